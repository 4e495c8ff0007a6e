//! Whom TLS trusts, and as whom it shows itself. Nothing switches verification off.
#![forbid(unsafe_code)]

mod certificate;
mod explain;
mod files;
mod handshake;
mod pem;
mod pin;
pub(crate) mod settings;

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

pub(crate) use certificate::Certificate;
pub(crate) use explain::explain;
use handshake::{Identity, Verifier};
pub(crate) use handshake::{Refused, Root, Shown, session, watch};
use pin::Pin;

/// Whom to trust.
enum Roots {
    /// Those whom the platform trusts, by its own rules.
    System,
    /// These.
    These(RootCertStore),
}

impl Roots {
    /// Mozilla's list.
    fn bundled() -> Roots {
        Roots::These(RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()))
    }

    fn verifier(self, provider: Arc<CryptoProvider>, pins: Vec<Pin>) -> Result<Verifier, String> {
        let (chain, roots): (Arc<dyn ServerCertVerifier>, _) = match self {
            Roots::These(roots) => {
                let roots = Arc::new(roots);
                let chain = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider).build();
                (chain.map_err(|error| format!("cannot be used: {error}"))?, Some(roots))
            }
            Roots::System => {
                let chain = rustls_platform_verifier::Verifier::new(provider).map_err(|error| {
                    format!(
                        "of this system cannot be used: {error}; install its certificates, or set roots to \"bundled\" \
                         or \"file\""
                    )
                })?;
                (Arc::new(chain), None)
            }
        };
        Ok(Verifier { chain, roots, pins })
    }
}

/// The settings of TLS. The error says what is wrong with the roots.
fn client_config(
    roots: Roots,
    pins: Vec<Pin>,
    identity: Option<CertifiedKey>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier = roots.verifier(provider.clone(), pins)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?
        // "Dangerous" is rustls' word for every verifier that is not its own.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(Identity(identity.map(Arc::new))));
    Ok(Arc::new(config))
}

/// The same settings without the sessions to resume, whose lock another thread may have held in the parent.
pub(crate) fn renewed(config: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.resumption = Resumption::default();
    Arc::new(config)
}
