//! Certificates made at the start of a test, and the servers' side of TLS.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ::ring::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, date_time_ymd,
};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

/// The versions of TLS that a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2 only.
    Tls12,
    /// TLS 1.3 only.
    Tls13,
}

/// What is wrong with a certificate, that of a server unless it says something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// It is one for clients only.
    WrongUsage,
    /// It is one for servers only.
    ForServersOnly,
    /// It is that of an authority, which may sign others and be no server.
    OfAnAuthority,
    /// Its key may sign others, though it is no authority's.
    MaySign,
    /// It is signed by its own key and nobody else's.
    SelfSigned,
    /// It is signed by a certificate that may sign nothing.
    SignedByNoAuthority,
    /// It is signed by an authority below ours whose time is over.
    SignedByAnExpiredOne,
    /// It was changed after it had been signed.
    Altered,
    /// The server does not have its key.
    KeyOfAnother,
}

/// What a server shows of itself.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// The version that it speaks.
    pub version: Version,
    /// The names in its certificate.
    pub names: &'static [&'static str],
    /// What is wrong with its certificate.
    pub flaw: Option<Flaw>,
    /// Whether it offers to resume sessions.
    pub resumption: bool,
    /// Whether it lets in only clients that have a certificate of its authority.
    pub asks_for_certificate: bool,
    /// Whether it takes only a kind of key for which no client has one ready, so that it asks for another.
    pub asks_for_key: bool,
}

impl Identity {
    /// A server that is right in everything.
    pub fn right(version: Version) -> Identity {
        Identity {
            version,
            names: &["localhost", "127.0.0.1", "::1"],
            flaw: None,
            resumption: true,
            asks_for_certificate: false,
            asks_for_key: false,
        }
    }

    /// The same with a flaw in its certificate.
    pub fn with(self, flaw: Flaw) -> Identity {
        Identity { flaw: Some(flaw), ..self }
    }
}

/// An authority of its own and its file, which a client is told to trust.
pub struct Authority {
    name: String,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// What leads from it to the one that is trusted, itself at first; nothing where it is that one.
    chain: Vec<CertificateDer<'static>>,
    file: NamedTempFile,
}

/// The files of a client: its certificate, with what leads to its authority, and its key.
pub struct ClientFiles {
    certificate: NamedTempFile,
    key: NamedTempFile,
}

impl ClientFiles {
    /// Files with these contents.
    pub fn new(certificate: &str, key: &str) -> ClientFiles {
        ClientFiles { certificate: written(certificate), key: written(key) }
    }

    /// The PEM file of the certificate.
    pub fn cert_file(&self) -> &str {
        path(&self.certificate)
    }

    /// The PEM file of the key.
    pub fn key_file(&self) -> &str {
        path(&self.key)
    }

    /// The keys of `tls` that name them.
    pub fn keys(&self) -> Value {
        json!({ "cert_file": self.cert_file(), "key_file": self.key_file() })
    }
}

fn written(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("the file is written");
    file
}

fn path(file: &NamedTempFile) -> &str {
    file.path().to_str().expect("a path in UTF-8")
}

/// Certificates as PEM.
pub fn pem(chain: &[CertificateDer<'_>]) -> String {
    let block = |certificate: &CertificateDer<'_>| {
        let text = STANDARD.encode(certificate);
        let lines: Vec<&str> =
            text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    chain.iter().map(block).collect()
}

/// The pin of a key.
pub fn pin(key: &KeyPair) -> String {
    STANDARD.encode(digest(&SHA256, &key.subject_public_key_info()))
}

impl Default for Authority {
    fn default() -> Authority {
        Authority::new()
    }
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn parameters(names: &[&str], common_name: &str) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn may_sign(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
}

impl Authority {
    /// A new authority with a name of its own.
    pub fn new() -> Authority {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Authority::named(&format!("Fault server authority {}", COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    /// A new authority of this name.
    pub fn named(name: &str) -> Authority {
        let key = new_key();
        let mut params = parameters(&[], name);
        may_sign(&mut params);
        let certificate = params.self_signed(&key).expect("a certificate");
        Authority::of(name, certificate, Issuer::new(params, key), Vec::new())
    }

    fn of(
        name: &str,
        certificate: Certificate,
        issuer: Issuer<'static, KeyPair>,
        chain: Vec<CertificateDer<'static>>,
    ) -> Authority {
        let (name, file) = (format!("CN={name}"), written(&certificate.pem()));
        Authority { name, certificate: certificate.der().clone(), issuer, chain, file }
    }

    /// An authority of this name whose own certificate is signed by this one.
    pub fn below(&self, name: &str) -> Authority {
        self.below_until(name, 2999)
    }

    fn below_until(&self, name: &str, year: i32) -> Authority {
        let key = new_key();
        let mut params = parameters(&[], name);
        may_sign(&mut params);
        params.not_after = date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let chain = [&[certificate.der().clone()], self.chain.as_slice()].concat();
        Authority::of(name, certificate, Issuer::new(params, key), chain)
    }

    /// The authority's name, as people write it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pin of the authority's key.
    pub fn pin(&self) -> String {
        pin(self.issuer.key())
    }

    /// The PEM file with the authority's certificate.
    pub fn file(&self) -> &str {
        path(&self.file)
    }

    /// The keys of a configuration that trusts this authority and no other, with further keys of `tls`.
    pub fn trusted_with(&self, keys: Value) -> Value {
        let Value::Object(keys) = keys else { panic!("keys of tls") };
        let mut tls = json!({ "roots": "file", "ca_file": self.file() });
        tls.as_object_mut().expect("an object").extend(keys);
        json!({ "tls": tls })
    }

    /// The files of a client whose certificate has this flaw.
    pub fn client(&self, flaw: Option<Flaw>) -> ClientFiles {
        let (chain, key) = self.certify(&["client.example"], flaw);
        ClientFiles::new(&pem(&chain), &key.serialize_pem())
    }

    /// A certificate for a client with this key, and what leads from there to the authority that is trusted.
    pub fn certificate_of(&self, key: &KeyPair) -> Vec<CertificateDer<'static>> {
        self.certify_key(&["client.example"], None, key)
    }

    /// A certificate for these names with this flaw, the chain behind it, and the key that its server has.
    fn certify(&self, names: &[&str], flaw: Option<Flaw>) -> (Vec<CertificateDer<'static>>, KeyPair) {
        let key = new_key();
        let chain = self.certify_key(names, flaw, &key);
        if flaw == Some(Flaw::KeyOfAnother) { (chain, new_key()) } else { (chain, key) }
    }

    /// A certificate for these names and this key with this flaw, and the chain behind it.
    fn certify_key(&self, names: &[&str], flaw: Option<Flaw>, key: &KeyPair) -> Vec<CertificateDer<'static>> {
        let mut params = parameters(names, "Fault server");
        match flaw {
            Some(Flaw::Expired) => {
                params.not_before = date_time_ymd(2020, 1, 1);
                params.not_after = date_time_ymd(2021, 1, 1);
            }
            Some(Flaw::NotYetValid) => {
                params.not_before = date_time_ymd(2999, 1, 1);
                params.not_after = date_time_ymd(3000, 1, 1);
            }
            Some(Flaw::WrongUsage) => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
            Some(Flaw::ForServersOnly) => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
            Some(Flaw::OfAnAuthority) => may_sign(&mut params),
            Some(Flaw::MaySign) => {
                params.is_ca = IsCa::ExplicitNoCa;
                params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
            }
            Some(Flaw::SelfSigned) => {
                return vec![params.self_signed(key).expect("a certificate").der().clone()];
            }
            Some(Flaw::SignedByNoAuthority) => {
                let (between_key, mut between) = (new_key(), parameters(&[], "No authority"));
                between.is_ca = IsCa::ExplicitNoCa;
                let above = between.signed_by(&between_key, &self.issuer).expect("a certificate").der().clone();
                let certificate = params.signed_by(key, &Issuer::new(between, between_key)).expect("a certificate");
                return vec![certificate.der().clone(), above];
            }
            Some(Flaw::SignedByAnExpiredOne) => {
                return self.below_until("Expired authority", 2021).certify_key(names, None, key);
            }
            Some(Flaw::Altered | Flaw::KeyOfAnother) | None => {}
        }
        let mut certificate = params.signed_by(key, &self.issuer).expect("a certificate").der().to_vec();
        if flaw == Some(Flaw::Altered) {
            *certificate.last_mut().expect("bytes") ^= 1;
        }
        [&[certificate.into()], self.chain.as_slice()].concat()
    }

    /// A certificate for these names with its key behind it, as servers read them from one PEM file.
    pub fn pem(&self, names: &[&str]) -> String {
        let (chain, key) = self.certify(names, None);
        pem(&chain) + &key.serialize_pem()
    }

    /// The configuration of a server whose certificate is signed by this authority, unless its flaw is another signer.
    pub fn server(&self, identity: Identity) -> Arc<ServerConfig> {
        self.server_with_pin(identity).0
    }

    /// The same, and the pin of its key.
    pub fn server_with_pin(&self, identity: Identity) -> (Arc<ServerConfig>, String) {
        let (chain, key) = self.certify(identity.names, identity.flaw);
        let pin = pin(&key);
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut provider = ring::default_provider();
        if identity.asks_for_key {
            provider.kx_groups = vec![ring::kx_group::SECP384R1];
        }
        // That the key fits its certificate is not asked here.
        let key = CertifiedKey::new(chain, provider.key_provider.load_private_key(key).expect("a key"));
        let version = match identity.version {
            Version::Tls12 => &rustls::version::TLS12,
            Version::Tls13 => &rustls::version::TLS13,
        };
        let provider = Arc::new(provider);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[version])
            .expect("a version");
        let builder = match identity.asks_for_certificate {
            true => builder.with_client_cert_verifier(self.verifier(provider)),
            false => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        if !identity.resumption {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        (Arc::new(config), pin)
    }

    fn verifier(&self, provider: Arc<CryptoProvider>) -> Arc<dyn rustls::server::danger::ClientCertVerifier> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a root");
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().expect("a verifier")
    }
}
