//! Whom TLS trusts. Nothing switches verification off.
#![forbid(unsafe_code)]

pub(crate) mod settings;

use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};

/// The TLS settings for `roots` "system", "bundled" or "file" with its `ca_file`. The error says what is wrong
/// with the roots.
fn client_config(roots: &str, ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = match ca_file {
        Some(file) => builder.with_root_certificates(read_roots(file)?),
        None if roots == "bundled" => {
            builder.with_root_certificates(RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()))
        }
        None => builder.dangerous().with_custom_certificate_verifier(system_verifier(provider)?),
    };
    Ok(Arc::new(config.with_no_client_auth()))
}

/// The same settings without the sessions to resume, whose lock another thread may have held in the parent.
pub(crate) fn renewed(config: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.resumption = Resumption::default();
    Arc::new(config)
}

/// The platform's own rules and roots. That it is a "custom" verifier is rustls' word for anything but its own.
fn system_verifier(provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, String> {
    rustls_platform_verifier::Verifier::new(provider).map(|verifier| Arc::new(verifier) as _).map_err(|error| {
        format!(
            "of this system cannot be used: {error}; install its certificates, or set roots to \"bundled\" or \"file\""
        )
    })
}

/// Every certificate of a PEM file. One that cannot be read spoils the file: half a file is a surprise for later.
fn read_roots(file: &Path) -> Result<RootCertStore, String> {
    let pem = std::fs::read(file).map_err(|error| format!("cannot be read: {error}"))?;
    let mut store = RootCertStore::empty();
    for (index, certificate) in CertificateDer::pem_slice_iter(&pem).enumerate() {
        let number = index + 1;
        let certificate = certificate.map_err(|_| format!("is broken PEM at its certificate {number}"))?;
        store.add(certificate).map_err(|_| format!("has a certificate, number {number}, that cannot be read"))?;
    }
    if store.is_empty() { Err("holds no certificate in PEM".to_owned()) } else { Ok(store) }
}

/// What a TLS error means, in words for a support desk.
pub(crate) fn explain(error: &Error) -> String {
    let Error::InvalidCertificate(reason) = error else {
        return match error {
            Error::InvalidMessage(_) => {
                "what the server sent is no TLS; it may speak plain http on this port".to_owned()
            }
            Error::AlertReceived(alert) => format!("the server refused with the alert {alert:?}"),
            other => other.to_string(),
        };
    };
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet; the clock may be wrong".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the server's certificate is for another host name".to_owned()
        }
        CertificateError::UnknownIssuer => {
            "the server's certificate is of an authority that is not trusted; name the right one in tls.ca_file"
                .to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the server's certificate is not meant for servers".to_owned()
        }
        other => format!("the server's certificate is not acceptable: {other}"),
    }
}
