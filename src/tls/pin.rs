//! Pins: the SHA-256 of a certificate's public key, as base64.
#![forbid(unsafe_code)]

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;

const LENGTH: usize = 32;

/// The SHA-256 of a SubjectPublicKeyInfo (RFC 7469, 2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pin([u8; LENGTH]);

impl Pin {
    /// Reads one as it is written here, or with the "sha256/" or "sha256//" that other programs put before it.
    pub(super) fn read(text: &str) -> Option<Pin> {
        const BASE64: usize = LENGTH.div_ceil(3) * 4;
        // By the length, since the letters before the slash are base64 themselves.
        let (prefix, pin) = text.split_at_checked(text.len().checked_sub(BASE64)?)?;
        let bytes = STANDARD.decode(pin).ok().filter(|_| matches!(prefix, "" | "sha256/" | "sha256//"))?;
        bytes.try_into().ok().map(Pin)
    }

    /// That of a certificate; `None` where its key cannot be read.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Pin> {
        let parsed = ParsedCertificate::try_from(certificate).ok()?;
        Some(Pin::of_key(&parsed.subject_public_key_info()))
    }

    pub(super) fn of_key(info: &[u8]) -> Pin {
        // The SHA-256 that TLS is done with.
        let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("a cipher suite of TLS 1.3");
        let hash = suite.common.hash_provider.hash(info);
        Pin(hash.as_ref().try_into().expect("the length of SHA-256"))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&STANDARD.encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The SHA-256 of "abc".
    const ABC: &str = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";

    #[test]
    fn a_pin_is_the_hash_of_the_key() {
        assert_eq!(Pin::of_key(b"abc").to_string(), ABC);
        assert_eq!(Pin::of(&CertificateDer::from_slice(b"no certificate")), None);
    }

    #[test]
    fn pins_are_read_strictly() {
        for text in [ABC.to_owned(), format!("sha256/{ABC}"), format!("sha256//{ABC}")] {
            assert_eq!(Pin::read(&text).map(|pin| pin.to_string()).as_deref(), Some(ABC), "{text}");
        }
        // These begin as the prefixes do.
        for text in [format!("sha256/{}", &ABC[7..]), format!("sha256//{}", &ABC[8..])] {
            assert_eq!(Pin::read(&text).map(|pin| pin.to_string()).as_deref(), Some(&*text));
        }
        for text in [
            "",
            "=",
            &ABC[..43],
            &ABC[..42],
            &ABC[1..],
            &format!("{ABC}="),
            &format!("A{ABC}"),
            &format!("{ABC}AAAA"),
            &format!(" {ABC}"),
            &format!("{ABC}\n"),
            &format!("sha1/{ABC}"),
            &format!("SHA256/{ABC}"),
            &format!("sha256/sha256/{ABC}"),
            &format!("sha256///{ABC}"),
            // Bits behind the last byte, the alphabet of URLs, a character of several bytes, hex.
            &ABC.replace("Fa0=", "Fa1="),
            &ABC.replace('/', "_"),
            &format!("許{}", &ABC[3..]),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ] {
            assert_eq!(Pin::read(text), None, "{text}");
        }
    }
}
