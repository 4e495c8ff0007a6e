//! What a certificate says of itself, for people. But for the use of its key, nothing is decided by it: whether a
//! certificate is good is the verifier's to say.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use serde::Serialize;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Tag, Tagged};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{KeyUsage, SubjectAltName};
use x509_cert::name::{Name, RelativeDistinguishedName};
use x509_cert::time::Time;

use super::pin::Pin;

/// A certificate's author may write what he likes: no name is shown any longer than this, in characters.
const LONGEST: usize = 200;
/// So many of the names that a certificate is for are shown.
const MOST_NAMES: usize = 5;

/// What is shown of a certificate. Its texts are its author's, made fit for a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Certificate {
    pub subject: String,
    pub issuer: String,
    /// RFC 3339, as the next one.
    pub not_before: String,
    pub not_after: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
    /// The same times since 1970.
    #[serde(skip)]
    pub(crate) valid: (Duration, Duration),
    /// The names of hosts that it is for.
    #[serde(skip)]
    pub(super) names: Vec<String>,
}

impl Certificate {
    /// `None` for what is no certificate.
    pub(crate) fn read(der: &CertificateDer<'_>) -> Option<Certificate> {
        let certificate = x509_cert::Certificate::from_der(der).ok()?;
        let about = certificate.tbs_certificate();
        let (from, until) = (about.validity().not_before, about.validity().not_after);
        let names = about.get_extension::<SubjectAltName>().ok().flatten().map(|(_, names)| names.0);
        Some(Certificate {
            subject: distinguished(about.subject()),
            issuer: distinguished(about.issuer()),
            not_before: date(from),
            not_after: date(until),
            pin: Pin::of(der).map(|pin| pin.to_string()),
            valid: (from.to_unix_duration(), until.to_unix_duration()),
            names: names.iter().flatten().filter_map(host).collect(),
        })
    }

    /// The names of hosts that it is for, in words.
    pub(super) fn is_for(&self) -> String {
        let mut words = self.names.iter().take(MOST_NAMES).cloned().collect::<Vec<_>>().join(", ");
        match self.names.len() {
            0 => words.push_str("no host at all"),
            more if more > MOST_NAMES => words.push_str(&format!(" and {} more", more - MOST_NAMES)),
            _ => {}
        }
        words
    }

    /// Whether it was issued by itself.
    pub(super) fn is_self_signed(&self) -> bool {
        self.subject == self.issuer
    }

    /// Whether its issuer has the name of a product that opens TLS on the way, to look into it.
    pub(crate) fn is_of_an_inspecting_proxy(&self) -> bool {
        let issuer = self.issuer.to_lowercase();
        INSPECTING.iter().any(|word| issuer.contains(word))
    }
}

/// Whether the key of a certificate may sign others, which a certificate may say of an authority's key only
/// (RFC 5280, 4.2.1.9).
pub(super) fn may_sign_certificates(der: &CertificateDer<'_>) -> bool {
    let Ok(certificate) = x509_cert::Certificate::from_der(der) else { return false };
    let usage = certificate.tbs_certificate().get_extension::<KeyUsage>();
    usage.ok().flatten().is_some_and(|(_, usage)| usage.key_cert_sign())
}

/// What stands in the names of authorities of proxies and virus scanners that inspect TLS.
const INSPECTING: [&str; 36] = [
    "avast",
    "barracuda",
    "bitdefender",
    "blue coat",
    "bluecoat",
    "check point",
    "checkpoint",
    "cisco umbrella",
    "cloudflare gateway",
    "decrypt",
    "eset ssl",
    "fiddler",
    "firewall",
    "forcepoint",
    "fortigate",
    "fortinet",
    "iboss",
    "inspect",
    "kaspersky",
    "mcafee",
    "mitmproxy",
    "netskope",
    "palo alto",
    "portswigger",
    "proxy",
    "skyhigh",
    "sonicwall",
    "sophos",
    "squid",
    "symantec web",
    "trend micro",
    "umbrella",
    "watchguard",
    "web gateway",
    "websense",
    "zscaler",
];

/// The attributes of names that are written by letters (RFC 4514 and what other programs write).
const ATTRIBUTES: [(ObjectIdentifier, &str); 9] = [
    (ObjectIdentifier::new_unwrap("2.5.4.3"), "CN"),
    (ObjectIdentifier::new_unwrap("2.5.4.5"), "serialNumber"),
    (ObjectIdentifier::new_unwrap("2.5.4.6"), "C"),
    (ObjectIdentifier::new_unwrap("2.5.4.7"), "L"),
    (ObjectIdentifier::new_unwrap("2.5.4.8"), "ST"),
    (ObjectIdentifier::new_unwrap("2.5.4.10"), "O"),
    (ObjectIdentifier::new_unwrap("2.5.4.11"), "OU"),
    (ObjectIdentifier::new_unwrap("0.9.2342.19200300.100.1.25"), "DC"),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.1"), "emailAddress"),
];

/// A distinguished name, as in RFC 4514. Not by the name's own `Display`, which brings a table of all identifiers that
/// there are, and shows texts of UTF-16 as numbers.
fn distinguished(name: &Name) -> String {
    let parts = |set: &RelativeDistinguishedName| set.iter().map(attribute).collect::<Vec<_>>().join("+");
    let mut sets: Vec<String> = name.iter_rdn().map(parts).collect();
    sets.reverse();
    if sets.is_empty() { "(none)".to_owned() } else { shown(&sets.join(",")) }
}

fn attribute(attribute: &AttributeTypeAndValue) -> String {
    let (oid, bytes) = (attribute.oid, attribute.value.value());
    let text = match attribute.value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => String::from_utf8_lossy(bytes).into_owned(),
        Tag::TeletexString => bytes.iter().copied().map(char::from).collect(),
        Tag::BmpString => {
            let units: Vec<u16> =
                bytes.chunks(2).map(|pair| pair.iter().fold(0, |all, one| all << 8 | u16::from(*one))).collect();
            String::from_utf16_lossy(&units)
        }
        _ => "?".to_owned(),
    };
    let mut escaped = String::new();
    for sign in text.chars() {
        if matches!(sign, '"' | '+' | ',' | ';' | '<' | '>' | '\\') {
            escaped.push('\\');
        }
        escaped.push(sign);
    }
    match ATTRIBUTES.iter().find(|(known, _)| *known == oid) {
        Some((_, letters)) => format!("{letters}={escaped}"),
        None => format!("{oid}={escaped}"),
    }
}

/// The same from DER.
pub(super) fn distinguished_name(der: &[u8]) -> Option<String> {
    Name::from_der(der).ok().map(|name| distinguished(&name))
}

fn date(time: Time) -> String {
    time.to_date_time().to_string()
}

fn host(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(shown(name.as_str())),
        GeneralName::IpAddress(address) => {
            let address = match *address.as_bytes() {
                [a, b, c, d] => IpAddr::from([a, b, c, d]),
                ref bytes => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
            };
            Some(address.to_string())
        }
        _ => None,
    }
}

/// A text of somebody else's, fit for a message: on one line, not too long, and in the order in which it is written.
fn shown(text: &str) -> String {
    let invisible = |sign: char| {
        sign.is_control()
            || matches!(sign, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let mut signs = text.chars().map(|sign| if invisible(sign) { '\u{fffd}' } else { sign });
    let mut shown: String = signs.by_ref().take(LONGEST).collect();
    if signs.next().is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
pub(super) mod tests {
    use rustls::pki_types::pem::PemObject;

    use super::*;

    /// A certificate for `bank.example`, `*.bank.example`, 192.0.2.7 and 2001:db8::7, of an authority of its own.
    pub(in super::super) const LEAF: &str = include_str!("samples/leaf.pem");

    fn read(pem: &str) -> Certificate {
        Certificate::read(&CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn a_certificate_is_read() {
        let leaf = read(LEAF);
        assert_eq!(leaf.subject, "CN=bank.example,O=Bank\\, Ltd,C=TW");
        assert_eq!(leaf.issuer, "CN=許功蓋 authority");
        assert_eq!((&*leaf.not_before, &*leaf.not_after), ("2026-01-02T03:04:05Z", "2049-12-31T23:59:59Z"));
        assert_eq!(leaf.valid.0, Duration::from_secs(1_767_323_045));
        assert_eq!(leaf.names, ["bank.example", "*.bank.example", "192.0.2.7", "2001:db8::7"]);
        assert_eq!(leaf.is_for(), "bank.example, *.bank.example, 192.0.2.7, 2001:db8::7");
        assert_eq!(leaf.pin.as_deref(), Some(include_str!("samples/leaf.pin").trim()));
        assert!(!leaf.is_self_signed() && !leaf.is_of_an_inspecting_proxy());
        let json = serde_json::to_value(&leaf).unwrap();
        let mut keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        keys.sort();
        assert_eq!(keys, ["issuer", "not_after", "not_before", "pin", "subject"]);
    }

    #[test]
    fn what_is_no_certificate_is_none() {
        let der = CertificateDer::from_pem_slice(LEAF.as_bytes()).unwrap();
        for bytes in [&b""[..], b"0", b"no certificate", &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0x30; 1000]] {
            assert_eq!(Certificate::read(&CertificateDer::from_slice(bytes)), None);
        }
        for length in 0..der.len() {
            assert_eq!(Certificate::read(&CertificateDer::from_slice(&der[..length])), None, "{length}");
        }
        // Nothing that is changed in it makes this fail in another way than by `None`.
        for place in 0..der.len() {
            for bit in [1, 0x20, 0x80] {
                let mut other = der.to_vec();
                other[place] ^= bit;
                Certificate::read(&CertificateDer::from_slice(&other));
            }
        }
    }

    #[test]
    fn distinguished_names_are_written_as_people_know_them() {
        let set = |parts: &[&[u8]]| tagged(0x31, &parts.concat());
        let part = |oid: &[u8], tag: u8, text: &[u8]| tagged(0x30, &[tagged(6, oid), tagged(tag, text)].concat());
        fn tagged(tag: u8, bytes: &[u8]) -> Vec<u8> {
            [&[tag, u8::try_from(bytes.len()).unwrap()], bytes].concat()
        }
        let name = |sets: &[Vec<u8>]| distinguished_name(&tagged(0x30, &sets.concat()));
        let (cn, o, email) =
            (&[0x55, 4, 3][..], &[0x55, 4, 10][..], &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1][..]);
        for (sets, expected) in [
            (vec![], "(none)"),
            (vec![set(&[&part(cn, 0x0c, b"a")])], "CN=a"),
            (vec![set(&[&part(o, 0x13, b"Bank, Ltd")]), set(&[&part(cn, 0x0c, b"a+b")])], "CN=a\\+b,O=Bank\\, Ltd"),
            (vec![set(&[&part(cn, 0x1e, b"\x8a\x31\0a")])], "CN=許a"),
            (vec![set(&[&part(cn, 0x1e, b"\0a\0")])], "CN=a\u{fffd}"),
            (vec![set(&[&part(cn, 0x14, b"M\xfcller")])], "CN=Müller"),
            (vec![set(&[&part(cn, 0x0c, b"a\xffb")])], "CN=a\u{fffd}b"),
            (vec![set(&[&part(email, 0x16, b"a@b")])], "emailAddress=a@b"),
            (vec![set(&[&part(&[0x55, 4, 12], 0x0c, b"x")])], "2.5.4.12=x"),
            (vec![set(&[&part(cn, 0x02, b"x")])], "CN=?"),
            (vec![set(&[&part(cn, 0x0c, b"a"), &part(o, 0x0c, b"b")])], "CN=a+O=b"),
        ] {
            assert_eq!(name(&sets).as_deref(), Some(expected));
        }
        assert_eq!(distinguished_name(b"none"), None);
    }

    #[test]
    fn names_of_others_are_made_fit_for_a_message() {
        assert_eq!(shown("Bank 許功蓋"), "Bank 許功蓋");
        assert_eq!(
            shown("a\r\nb\u{1b}[2J\u{7f}\u{202e}c\u{2028}"),
            "a\u{fffd}\u{fffd}b\u{fffd}[2J\u{fffd}\u{fffd}c\u{fffd}"
        );
        assert_eq!(shown(&"x".repeat(200)), "x".repeat(200));
        assert_eq!(shown(&"許".repeat(201)), format!("{}…", "許".repeat(200)));
    }

    #[test]
    fn inspecting_proxies_are_known_by_name() {
        let mut leaf = read(LEAF);
        for (issuer, inspecting) in [
            ("CN=Zscaler Intermediate Root CA (zscaler.net),O=Zscaler Inc.", true),
            ("CN=mitmproxy,O=mitmproxy", true),
            ("CN=Bank TLS Inspection CA", true),
            ("CN=FGT60E,OU=Certificate Authority,O=Fortinet", true),
            ("CN=R11,O=Let's Encrypt,C=US", false),
            ("CN=DigiCert Global Root G2,OU=www.digicert.com,O=DigiCert Inc,C=US", false),
            ("CN=Bank Root CA", false),
        ] {
            leaf.issuer = issuer.to_owned();
            assert_eq!(leaf.is_of_an_inspecting_proxy(), inspecting, "{issuer}");
        }
    }
}
