//! Handshakes: who is trusted, what is shown of ourselves, and what is kept of both, so that a failure can be told.
//!
//! What comes in a handshake is kept for the thread that does it: the TLS library's errors must stay what they are, for
//! the alert that the server gets is chosen by them, and they carry no certificates. A connection does its handshake on
//! one thread from end to end.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};

use super::certificate::{Certificate, distinguished_name, may_sign_certificates};
use super::pin::Pin;

/// What the server showed of itself.
#[derive(Clone)]
pub(crate) struct Shown {
    /// The server's own certificate comes first.
    pub chain: Vec<CertificateDer<'static>>,
    /// By the clock of this machine.
    pub(super) now: UnixTime,
    /// What was not acceptable.
    pub refused: Option<Refused>,
    roots: Option<Arc<RootCertStore>>,
}

/// What was not acceptable of what a server showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The chain leads to no authority that is trusted.
    Authority,
    /// Anything else of the chain.
    Chain,
    Pin,
    /// That it has the key of its certificate.
    Signature,
}

/// Which root a chain leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Root {
    /// This one is trusted, by its subject and its pin.
    Trusted { subject: String, pin: String },
    /// To none that is trusted.
    None,
    /// The system knows, and does not tell.
    Unknown,
}

impl Shown {
    /// Its certificates for people, the server's own first, up to one that cannot be read.
    pub(crate) fn certificates(&self) -> impl Iterator<Item = Certificate> {
        self.chain.iter().map_while(Certificate::read)
    }

    /// The root that its chain leads to.
    pub(crate) fn root(&self) -> Root {
        self.roots.as_ref().map_or(Root::Unknown, |roots| self.root_among(roots))
    }

    /// The root of Mozilla's list that its chain leads to, whoever is trusted.
    pub(crate) fn public_root(&self) -> Root {
        self.root_among(&RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()))
    }

    fn root_among(&self, roots: &RootCertStore) -> Root {
        let Some((leaf, others)) = self.chain.split_first() else { return Root::None };
        let Ok(leaf) = ParsedCertificate::try_from(leaf) else { return Root::None };
        let algorithms = ring::default_provider().signature_verification_algorithms.all;
        let leads_to = |roots: &[TrustAnchor<'static>]| {
            let store = RootCertStore { roots: roots.to_vec() };
            verify_server_cert_signed_by_trust_anchor(&leaf, &store, others, self.now, algorithms).is_ok()
        };
        let mut among = roots.roots.as_slice();
        if !leads_to(among) {
            return Root::None;
        }
        // Which of them it was is not told. By halves, since a server may show a chain that takes long to look through.
        while among.len() > 1 {
            let (first, second) = among.split_at(among.len() / 2);
            among = if leads_to(first) { first } else { second };
        }
        let [root] = among else { return Root::None };
        // An anchor holds what is inside of both sequences.
        let sequence = |contents: &[u8]| DistinguishedName::in_sequence(contents);
        let subject = distinguished_name(sequence(&root.subject).as_ref()).unwrap_or_default();
        Root::Trusted { subject, pin: Pin::of_key(sequence(&root.subject_public_key_info).as_ref()).to_string() }
    }
}

/// That the server asked for the client's certificate.
#[derive(Clone)]
pub(super) struct Asked {
    /// The certificate that it got, if it got one.
    pub given: Option<CertificateDer<'static>>,
}

/// What is kept of the handshake that a thread did last.
#[derive(Default)]
struct Kept {
    shown: Option<Shown>,
    asked: Option<Asked>,
    /// What was shown is kept though it was acceptable.
    watched: bool,
}

thread_local! {
    static KEPT: RefCell<Kept> = const { RefCell::new(Kept { shown: None, asked: None, watched: false }) };
}

/// Begins TLS with a server.
pub(crate) fn session(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<ClientConnection, Error> {
    KEPT.with_borrow_mut(|kept| *kept = Kept { watched: kept.watched, ..Kept::default() });
    ClientConnection::new(config, name)
}

/// Does what does a handshake, and gives with its result what the server showed, whether it was acceptable or not.
/// `None` where it came to show nothing: a session that is resumed shows nothing, see [`renewed`](super::renewed).
pub(crate) fn watch<T>(handshake: impl FnOnce() -> T) -> (T, Option<Shown>) {
    struct Watching;

    impl Drop for Watching {
        fn drop(&mut self) {
            // That the server asked for a certificate stays known: over TLS 1.3 it refuses one later.
            KEPT.with_borrow_mut(|kept| (kept.shown, kept.watched) = (None, false));
        }
    }

    KEPT.with_borrow_mut(|kept| *kept = Kept { watched: true, ..Kept::default() });
    let _watching = Watching;
    let result = handshake();
    (result, KEPT.with_borrow_mut(|kept| kept.shown.take()))
}

/// What the server showed that was not acceptable.
pub(super) fn shown() -> Option<Shown> {
    KEPT.with_borrow_mut(|kept| if kept.watched { kept.shown.clone() } else { kept.shown.take() })
}

/// Whether the server asked for a certificate of the client.
pub(super) fn asked() -> Option<Asked> {
    KEPT.with_borrow(|kept| kept.asked.clone())
}

/// Verifies as another does, and then by pins.
#[derive(Debug)]
pub(super) struct Verifier {
    pub chain: Arc<dyn ServerCertVerifier>,
    /// Those that it trusts, where they are known.
    pub roots: Option<Arc<RootCertStore>>,
    /// None: any key will do.
    pub pins: Vec<Pin>,
}

impl Verifier {
    /// Keeps what was shown, if it was refused or is watched.
    fn keep(&self, chain: &[&CertificateDer<'_>], now: UnixTime, refused: Option<Refused>) {
        KEPT.with_borrow_mut(|kept| {
            if refused.is_some() || kept.watched {
                let chain = chain.iter().map(|one| (*one).clone().into_owned()).collect();
                kept.shown = Some(Shown { chain, now, refused, roots: self.roots.clone() });
            }
        });
    }

    fn signed(
        &self,
        certificate: &CertificateDer<'_>,
        verdict: Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        verdict.inspect_err(|_| {
            let whole = KEPT.with_borrow_mut(|kept| {
                kept.shown.as_mut().map(|shown| shown.refused = Some(Refused::Signature)).is_some()
            });
            if !whole {
                self.keep(&[certificate], UnixTime::now(), Some(Refused::Signature));
            }
        })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = || self.pins.is_empty() || Pin::of(end_entity).is_some_and(|pin| self.pins.contains(&pin));
        let chain = self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let (verdict, refused) = match chain {
            Err(error) => {
                use CertificateError::{BadSignature, UnknownIssuer};
                // A signature is wrong where another authority has the name of one that is trusted.
                let unknown = matches!(error, Error::InvalidCertificate(UnknownIssuer | BadSignature));
                (Err(error), Some(if unknown { Refused::Authority } else { Refused::Chain }))
            }
            // rustls takes it, unless it says in its basic constraints too that it is an authority's.
            Ok(_) if may_sign_certificates(end_entity) => {
                (Err(Error::InvalidCertificate(CertificateError::InvalidPurpose)), Some(Refused::Chain))
            }
            Ok(_) if !pinned() => {
                let error = CertificateError::ApplicationVerificationFailure;
                (Err(Error::InvalidCertificate(error)), Some(Refused::Pin))
            }
            Ok(verified) => (Ok(verified), None),
        };
        let chain: Vec<&CertificateDer<'_>> = std::iter::once(end_entity).chain(intermediates).collect();
        self.keep(&chain, now, refused);
        verdict
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(cert, self.chain.verify_tls12_signature(message, cert, dss))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(cert, self.chain.verify_tls13_signature(message, cert, dss))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.chain.requires_raw_public_keys()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.chain.root_hint_subjects()
    }
}

/// Shows the client's certificate to a server that asks for one.
#[derive(Debug)]
pub(super) struct Identity(pub Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let identity = self.0.as_ref().filter(|identity| identity.key.choose_scheme(schemes).is_some());
        let given = identity.and_then(|identity| identity.cert.first()).cloned();
        KEPT.with_borrow_mut(|kept| kept.asked = Some(Asked { given }));
        identity.cloned()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

#[cfg(test)]
mod tests {
    use rustls::ServerConnection;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;
    use rustls::version::TLS13;

    use super::super::certificate::tests::LEAF;
    use super::super::{Roots, client_config, explain};
    use super::*;

    const AUTHORITY: &str = include_str!("samples/authority.pem");
    const LEAF_KEY: &str = include_str!("samples/leaf.key");
    const LEAF_PIN: &str = include_str!("samples/leaf.pin");

    fn certificate(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    fn pin(text: &str) -> Vec<Pin> {
        vec![Pin::read(text.trim()).unwrap()]
    }

    /// A client that trusts these, beside other authorities.
    fn client(roots: &[&str], pins: Vec<Pin>) -> Arc<ClientConfig> {
        let mut store = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().take(6).cloned());
        roots.iter().for_each(|root| store.add(certificate(root)).unwrap());
        // Among the others, where it is found by halves of both kinds.
        store.roots.rotate_right(2);
        client_config(Roots::These(store), pins, None, &[&TLS13]).unwrap()
    }

    /// A handshake with a server that has the sample, by the name that the client knows it by.
    fn handshake(config: &Arc<ClientConfig>, name: &'static str) -> Result<(), Error> {
        let key = PrivateKeyDer::from_pem_slice(LEAF_KEY.as_bytes()).unwrap();
        let server = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate(LEAF)], key)
            .unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        let mut client = session(config.clone(), ServerName::try_from(name).unwrap())?;
        while client.is_handshaking() || client.wants_write() {
            let mut records = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut records).unwrap();
            }
            let mut rest = records.as_slice();
            while !rest.is_empty() {
                server.read_tls(&mut rest).unwrap();
                server.process_new_packets()?;
            }
            let mut records = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut records).unwrap();
            }
            let mut rest = records.as_slice();
            while !rest.is_empty() {
                client.read_tls(&mut rest).unwrap();
                client.process_new_packets()?;
            }
        }
        Ok(())
    }

    #[test]
    fn what_is_watched_is_told_whether_it_was_acceptable_or_not() {
        let trusting = client(&[AUTHORITY], Vec::new());
        let (result, shown) = watch(|| handshake(&trusting, "bank.example"));
        let shown = shown.unwrap();
        assert_eq!((result, shown.refused), (Ok(()), None));
        assert_eq!(shown.chain, [certificate(LEAF)]);
        let shown_pin = shown.certificates().next().unwrap().pin.unwrap();
        assert_eq!(shown_pin, LEAF_PIN.trim());
        let authority_pin = Pin::of(&certificate(AUTHORITY)).unwrap().to_string();
        let trusted = Root::Trusted { subject: "CN=許功蓋 authority".to_owned(), pin: authority_pin };
        assert_eq!(shown.root(), trusted);

        let (result, shown) = watch(|| handshake(&client(&[], Vec::new()), "bank.example"));
        let shown = shown.unwrap();
        assert_eq!(result, Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)));
        assert_eq!((shown.chain.len(), shown.root(), shown.refused), (1, Root::None, Some(Refused::Authority)));

        // Its root is trusted though its name is another.
        let (result, shown) = watch(|| handshake(&trusting, "other.example"));
        assert!(result.is_err());
        let shown = shown.unwrap();
        assert_eq!((shown.root(), shown.refused), (trusted, Some(Refused::Chain)));

        // An error is explained by what is watched, and does not take it away.
        let (why, shown) = watch(|| explain(&handshake(&trusting, "other.example").unwrap_err(), true));
        assert!(why.contains("*.bank.example") && shown.is_some(), "{why}");
    }

    #[test]
    fn roots_that_are_not_told_are_unknown() {
        let shown = Shown { chain: vec![certificate(LEAF)], now: UnixTime::now(), refused: None, roots: None };
        assert_eq!(shown.root(), Root::Unknown);
        let roots = Some(Arc::new(RootCertStore::empty()));
        for chain in [vec![], vec![CertificateDer::from_slice(b"none")]] {
            assert_eq!(Shown { chain, roots: roots.clone(), ..shown.clone() }.root(), Root::None);
        }
    }

    #[test]
    fn no_certificate_is_shown_in_the_place_of_another() {
        let leaf = || certificate(LEAF);
        let none = || CertificateDer::from_slice(b"none");
        for (chain, count) in [(vec![none(), leaf()], 0), (vec![leaf(), none(), leaf()], 1), (vec![leaf(), leaf()], 2)]
        {
            let shown = Shown { chain, now: UnixTime::now(), refused: None, roots: None };
            assert_eq!(shown.certificates().count(), count);
        }
    }

    #[test]
    fn nothing_is_kept_of_a_handshake_that_is_over() {
        let trusting = client(&[AUTHORITY], Vec::new());
        assert_eq!(handshake(&trusting, "bank.example"), Ok(()));
        assert!(shown().is_none());
        assert!(handshake(&trusting, "other.example").is_err());
        assert!(shown().is_some() && shown().is_none(), "it is taken");
        assert!(handshake(&trusting, "other.example").is_err());
        session(trusting.clone(), ServerName::try_from("bank.example").unwrap()).unwrap();
        assert!(shown().is_none(), "it is another handshake's");
        let ((), kept) = watch(|| ());
        assert!(kept.is_none() && !KEPT.with_borrow(|kept| kept.watched));
    }

    #[test]
    fn pins_are_asked_besides_the_chain_and_never_instead() {
        let other = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
        let refused = Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        let authority = Pin::of(&certificate(AUTHORITY)).unwrap().to_string();
        let both = [pin(other), pin(LEAF_PIN)].concat();
        for (pins, expected) in
            [(pin(LEAF_PIN), Ok(())), (both, Ok(())), (pin(other), refused.clone()), (pin(&authority), refused)]
        {
            assert_eq!(handshake(&client(&[AUTHORITY], pins), "bank.example"), expected);
        }
        let unknown = Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        assert_eq!(handshake(&client(&[], pin(LEAF_PIN)), "bank.example"), unknown);
        assert!(handshake(&client(&[AUTHORITY], pin(LEAF_PIN)), "other.example").is_err());
    }
}
