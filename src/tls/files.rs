//! The PEM files that a configuration names. One thing that cannot be read spoils its file: half a file is a surprise
//! for later. No message holds anything of what stands in a file.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{Error, InconsistentKeys, RootCertStore};
use zeroize::{Zeroize, Zeroizing};

use super::pem::{self, Block};
use crate::failure::Problem;

/// No file may be longer: those with all authorities of the world have a quarter of a megabyte.
const LONGEST: usize = 16 << 20;

/// The trusted authorities of a file.
pub(super) fn authorities(path: &str) -> Result<RootCertStore, Problem> {
    let problem = |problem: String| Problem::new("tls.ca_file", problem).value(Some(path.to_owned()));
    let mut store = RootCertStore::empty();
    for (line, certificate) in certificates(path).map_err(problem)? {
        store.add(certificate).map_err(|_| problem(unreadable(line)))?;
    }
    Ok(store)
}

/// The certificate of a client with those that lead to its authority, and its key.
pub(super) fn identity(cert_file: &str, key_file: &str) -> Result<CertifiedKey, Vec<Problem>> {
    let of_chain = |problem: String| Problem::new("tls.cert_file", problem).value(Some(cert_file.to_owned()));
    let of_key = |problem: String| Problem::new("tls.key_file", problem).value(Some(key_file.to_owned()));
    let (chain, key) = match (chain(cert_file), key(key_file)) {
        (Ok(chain), Ok(key)) => (chain, key),
        (chain, key) => {
            return Err(chain.err().map(of_chain).into_iter().chain(key.err().map(of_key)).collect());
        }
    };
    let identity = CertifiedKey::new(chain, key);
    match identity.keys_match() {
        Ok(()) => Ok(identity),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            let fits_another = |one: &CertificateDer<'static>| {
                CertifiedKey::new(vec![one.clone()], identity.key.clone()).keys_match().is_ok()
            };
            Err(vec![if identity.cert.iter().any(fits_another) {
                of_chain("has the certificate of the key in tls.key_file, but not as its first one".to_owned())
            } else {
                of_key(format!("holds a key that does not fit the certificate in tls.cert_file ({cert_file})"))
            }])
        }
        Err(_) => Err(vec![of_chain("has a first certificate whose key cannot be used".to_owned())]),
    }
}

fn chain(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut chain = Vec::new();
    for (line, certificate) in certificates(path)? {
        if ParsedCertificate::try_from(&certificate).is_err() {
            return Err(unreadable(line));
        }
        chain.push(certificate);
    }
    Ok(chain)
}

fn unreadable(line: usize) -> String {
    format!("has a certificate that cannot be read, in the block that begins at line {line}")
}

/// The certificates of a file, one at least, with the numbers of their lines.
fn certificates(path: &str) -> Result<Vec<(usize, CertificateDer<'static>)>, String> {
    let text = read(path)?;
    let mut certificates = Vec::new();
    for block in pem::blocks(&text)? {
        match block.label {
            b"CERTIFICATE" | b"X509 CERTIFICATE" => {
                certificates.push((block.line, CertificateDer::from(block.der()?.to_vec())));
            }
            b"TRUSTED CERTIFICATE" | b"PKCS7" | b"CMS" => {
                return Err(format!(
                    "has certificates in a form that is not read, in the block that begins at line {}; the form is \
                     BEGIN CERTIFICATE",
                    block.line
                ));
            }
            _ => {}
        }
    }
    if certificates.is_empty() { Err(nothing("certificate", &text)) } else { Ok(certificates) }
}

fn nothing(what: &str, text: &[u8]) -> String {
    // What DER begins with, that of a PKCS#12 file too.
    if text.starts_with(&[0x30]) {
        format!("holds no {what} in PEM; it looks like DER or PKCS#12")
    } else {
        format!("holds no {what} in PEM")
    }
}

/// The only key of a file.
fn key(path: &str) -> Result<Arc<dyn SigningKey>, String> {
    const KINDS: &str = "it must be an RSA key of 2048 to 4096 bits, one for ECDSA on P-256 or P-384, or one for \
                         Ed25519, as PKCS#8 (BEGIN PRIVATE KEY), PKCS#1 (BEGIN RSA PRIVATE KEY) or SEC1 (BEGIN EC \
                         PRIVATE KEY)";
    let text = read(path)?;
    let mut blocks = pem::blocks(&text)?;
    blocks.retain(|block| block.label.ends_with(b"PRIVATE KEY"));
    let block: &Block<'_> = match blocks.as_slice() {
        [] => return Err(nothing("private key", &text)),
        [block] => block,
        _ => return Err(format!("holds {} private keys, and must hold one", blocks.len())),
    };
    if block.is_encrypted() {
        return Err(
            "holds a key that is protected by a passphrase, for which there is no setting; it must be without \
                    one, in a file that only this program can read"
                .to_owned(),
        );
    }
    let der = block.der()?;
    // Borrowed: what owns a key in the TLS library does not wipe it.
    let key: PrivateKeyDer<'_> = match block.label {
        b"PRIVATE KEY" => PrivatePkcs8KeyDer::from(&der[..]).into(),
        b"RSA PRIVATE KEY" => PrivatePkcs1KeyDer::from(&der[..]).into(),
        b"EC PRIVATE KEY" => PrivateSec1KeyDer::from(&der[..]).into(),
        _ => return Err(format!("holds a key of a kind that cannot be used; {KINDS}")),
    };
    let parsed = any_supported_type(&key);
    wipe_stack();
    parsed.map_err(|_| format!("holds a key that cannot be used; {KINDS}"))
}

/// Wipes what functions that have returned to the caller of this one have left on the stack: what parses a key leaves it
/// there.
#[inline(never)]
fn wipe_stack() {
    [0_u8; 32 * 1024].zeroize();
}

/// A file, in memory that is wiped.
fn read(path: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let file = File::open(path).map_err(unreadable)?;
    let mut text = Zeroizing::new(Vec::new());
    file.take(LONGEST as u64 + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() > LONGEST { Err(format!("is longer than {} MiB", LONGEST >> 20)) } else { Ok(text) }
}
