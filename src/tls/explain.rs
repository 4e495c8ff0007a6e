//! What an error of TLS means, in words for a support desk.
#![forbid(unsafe_code)]

use std::time::Duration;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, OtherError, PeerIncompatible};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::certificate::{Certificate, may_sign_certificates};
use super::handshake::{self, Asked, Refused, Shown};
use super::pin::Pin;

/// What the error means that ended TLS on this thread just now. `begun`: whether the server had spoken TLS before.
pub(crate) fn explain(error: &Error, begun: bool) -> String {
    match error {
        Error::InvalidCertificate(reason) => certificate(reason, handshake::shown().as_ref()),
        Error::AlertReceived(alert) => refusal(*alert, handshake::asked().as_ref()),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) if !begun => {
            "what the server sent is no TLS; it may speak plain http on this port".to_owned()
        }
        Error::InvalidMessage(
            InvalidMessage::CertificatePayloadTooLarge | InvalidMessage::HandshakePayloadTooLarge,
        ) => "the server sent a message of more than 64 KiB in the handshake, which is not read; the usual reason is too \
              many certificates, or too long ones"
            .to_owned(),
        Error::InvalidMessage(_) => format!("what the server sent breaks the rules of TLS: {error}"),
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => VERSION.to_owned(),
        other => other.to_string(),
    }
}

const VERSION: &str = "the server speaks no version of TLS that is allowed here; tls.min_version is the lowest one";

const PURPOSE: &str = "the server's certificate is not meant for servers (extended key usage serverAuth)";

/// What is wrong with the server's certificate, and whose it is.
fn certificate(reason: &CertificateError, shown: Option<&Shown>) -> String {
    let leaf = shown.and_then(|shown| Certificate::read(shown.chain.first()?));
    let mut words = wrong(reason, shown, leaf.as_ref());
    if let Some(leaf) = leaf {
        words.push_str(&format!("; it came with the subject {} and the issuer {}", leaf.subject, leaf.issuer));
        let foreign = matches!(reason, CertificateError::UnknownIssuer) || is_pin(shown);
        if foreign && leaf.is_of_an_inspecting_proxy() {
            words.push_str(
                ", which is the name of a proxy that inspects TLS on the way: the usual reason for this; whoever runs the \
                 network has its authority, or knows a way past it",
            );
        }
    }
    words
}

fn is_pin(shown: Option<&Shown>) -> bool {
    shown.is_some_and(|shown| shown.refused == Some(Refused::Pin))
}

fn leaf_may_sign(shown: Option<&Shown>) -> bool {
    shown.and_then(|shown| shown.chain.first()).is_some_and(may_sign_certificates)
}

fn wrong(reason: &CertificateError, shown: Option<&Shown>, leaf: Option<&Certificate>) -> String {
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            let expired = |one: &Certificate, now: Duration| (one.valid.1 < now).then(|| one.not_after.clone());
            match of_chain(shown, expired) {
                Some((whose, date, now)) => format!(
                    "{whose} has expired, on {date}; it must be renewed, or the clock of this machine, which says {now}, is \
                     wrong"
                ),
                None => "the server's certificate has expired".to_owned(),
            }
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            let early = |one: &Certificate, now: Duration| (one.valid.0 > now).then(|| one.not_before.clone());
            match of_chain(shown, early) {
                Some((whose, date, now)) => format!(
                    "{whose} is not valid yet, but from {date}; the clock of this machine, which says {now}, may be wrong"
                ),
                None => "the server's certificate is not valid yet; the clock may be wrong".to_owned(),
            }
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => match leaf {
            Some(leaf) => format!("the server's certificate is for another host name: it is for {}", leaf.is_for()),
            None => "the server's certificate is for another host name".to_owned(),
        },
        CertificateError::UnknownIssuer if leaf.is_some_and(Certificate::is_self_signed) => {
            "the server's certificate is of an authority that is not trusted: it is signed by itself; if it is the right \
             one, name it in tls.ca_file, with tls.roots \"file\""
                .to_owned()
        }
        CertificateError::UnknownIssuer => {
            let whose = top(shown).map(|issuer| format!(": {issuer}")).unwrap_or_default();
            // One alone may lack what leads from it to an authority that is trusted.
            let alone = shown.is_some_and(|shown| shown.chain.len() == 1);
            let between = if alone { "; or the server leaves out a certificate that stands between" } else { "" };
            format!(
                "the server's certificate is of an authority that is not trusted{whose}; if it is the right one, name \
                 its certificate in tls.ca_file, with tls.roots \"file\"{between}"
            )
        }
        CertificateError::InvalidPurpose if leaf_may_sign(shown) => {
            "the server's certificate is not acceptable: its key may sign other certificates (key usage keyCertSign), \
             which only that of an authority may"
                .to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => PURPOSE.to_owned(),
        CertificateError::ApplicationVerificationFailure if is_pin(shown) => {
            let pin = shown.and_then(|shown| Pin::of(shown.chain.first()?)).map(|pin| pin.to_string());
            format!(
                "the server's key has none of the pins in tls.pins; the key that came has {}; its \
                 certificate is good otherwise, so that either the server has got a new key, or somebody stands between",
                pin.as_deref().unwrap_or("not readable")
            )
        }
        CertificateError::BadSignature if shown.is_some_and(|shown| shown.refused == Some(Refused::Signature)) => {
            "the server's certificate is not acceptable: the server does not have its key".to_owned()
        }
        CertificateError::BadSignature => {
            "the server's certificate is not acceptable: a signature in its chain is wrong; it was changed, or an \
             authority of the same name is trusted that has another key"
                .to_owned()
        }
        // The only way in which what verifies by the system's authorities says so.
        CertificateError::Other(OtherError(error)) if error.to_string() == "certificate had invalid extensions" => {
            PURPOSE.to_owned()
        }
        CertificateError::Other(OtherError(error)) => {
            let words = match error.to_string().as_str() {
                "CaUsedAsEndEntity" => "it is that of an authority, not of a server".to_owned(),
                "EndEntityUsedAsCa" => "it is signed by a certificate that may not sign any".to_owned(),
                "NameConstraintViolation" => "it has a name for which its authority may not sign".to_owned(),
                "UnsupportedCertVersion" => "it, or one above it, is not of version 3 of X.509".to_owned(),
                "MaximumPathBuildCallsExceeded" | "MaximumPathDepthExceeded" | "MaximumSignatureChecksExceeded" => {
                    "so many certificates came with it that no way to an authority was found".to_owned()
                }
                other => other.to_owned(),
            };
            format!("the server's certificate is not acceptable: {words}")
        }
        other => format!("the server's certificate is not acceptable: {other}"),
    }
}

/// The issuer of the last certificate that came: that of a root, or of a certificate that is missing.
fn top(shown: Option<&Shown>) -> Option<String> {
    Some(Certificate::read(shown?.chain.last()?)?.issuer)
}

/// The first certificate of the chain with a date that is wrong now: whose it is, the date, and what is now.
fn of_chain(
    shown: Option<&Shown>,
    date: impl Fn(&Certificate, Duration) -> Option<String>,
) -> Option<(String, String, String)> {
    let shown = shown?;
    let now = Duration::from_secs(shown.now.as_secs());
    let (index, certificate, date) = shown.chain.iter().enumerate().find_map(|(index, der)| {
        let certificate = Certificate::read(der)?;
        let date = date(&certificate, now)?;
        Some((index, certificate, date))
    })?;
    let whose = match index {
        0 => "the server's certificate".to_owned(),
        _ => format!("a certificate above the server's, that of {},", certificate.subject),
    };
    let now = i64::try_from(now.as_secs()).ok().and_then(|now| OffsetDateTime::from_unix_timestamp(now).ok())?;
    Some((whose, date, now.format(&Rfc3339).ok()?))
}

/// Why the server refused.
fn refusal(alert: AlertDescription, asked: Option<&Asked>) -> String {
    use AlertDescription::*;
    if alert == ProtocolVersion {
        return format!("{VERSION} (alert {alert:?})");
    }
    // What it says of a certificate, which can only be the client's.
    let why = match alert {
        CertificateExpired => Some("it says that it has expired"),
        CertificateRevoked => Some("it says that it is revoked"),
        UnknownCA => Some("it does not trust the authority that issued it"),
        AccessDenied => Some("it gives no access to it"),
        BadCertificate | UnsupportedCertificate | CertificateUnknown => Some("it says no more than that"),
        _ => None,
    };
    let given = asked.and_then(|asked| asked.given.as_ref());
    match (why, asked, given) {
        _ if alert == CertificateRequired => without(alert),
        (_, Some(_), None) if why.is_some() || alert == HandshakeFailure => without(alert),
        (_, Some(_), Some(given)) if why.is_some() || matches!(alert, HandshakeFailure | DecryptError) => {
            let why = why.unwrap_or("it says no more than that");
            let whose = Certificate::read(given).map(|one| {
                format!(
                    "; it has the subject {} and the issuer {}, and is valid from {} to {}",
                    one.subject, one.issuer, one.not_before, one.not_after
                )
            });
            format!(
                "the server refused the client's certificate, that of tls.cert_file (alert {alert:?}): {why}{}",
                whose.unwrap_or_default()
            )
        }
        (Some(why), None, _) => format!(
            "the server refused with the alert {alert:?}; if it means the client's certificate, that of tls.cert_file: {why}"
        ),
        _ => format!("the server refused with the alert {alert:?}"),
    }
}

fn without(alert: AlertDescription) -> String {
    format!(
        "the server wants a certificate of the client and got none (alert {alert:?}); name one in tls.cert_file, and its \
         key in tls.key_file"
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::super::certificate::tests::LEAF;
    use super::*;

    #[test]
    fn refusals_are_told_by_what_the_server_asked_for() {
        use AlertDescription::*;
        let none = Asked { given: None };
        let leaf = Asked { given: CertificateDer::from_pem_slice(LEAF.as_bytes()).ok() };
        let (got_none, refused) = ("and got none", "refused the client's certificate, that of tls.cert_file");
        let whose = "the subject CN=bank.example,O=Bank\\, Ltd,C=TW and the issuer CN=許功蓋 authority, and is valid from \
                     2026-01-02T03:04:05Z to 2049-12-31T23:59:59Z";
        for (alert, asked, words) in [
            (CertificateRequired, None, [got_none, "tls.key_file"]),
            (CertificateRequired, Some(&none), [got_none, "tls.cert_file"]),
            (HandshakeFailure, Some(&none), [got_none, "tls.cert_file"]),
            (BadCertificate, Some(&none), [got_none, "tls.cert_file"]),
            (UnknownCA, Some(&leaf), [refused, "does not trust the authority"]),
            (CertificateExpired, Some(&leaf), [refused, "has expired"]),
            (CertificateRevoked, Some(&leaf), [refused, "is revoked"]),
            (AccessDenied, Some(&leaf), [refused, "no access"]),
            (HandshakeFailure, Some(&leaf), [refused, whose]),
            (DecryptError, Some(&leaf), [refused, whose]),
            (UnknownCA, None, ["alert UnknownCA", "tls.cert_file"]),
            (ProtocolVersion, None, ["alert ProtocolVersion", "tls.min_version"]),
        ] {
            let said = refusal(alert, asked);
            assert!(words.iter().all(|word| said.contains(word)), "{alert:?}: {said}");
        }
        for (alert, asked) in [(HandshakeFailure, None), (InternalError, Some(&none)), (InternalError, Some(&leaf))] {
            assert_eq!(refusal(alert, asked), format!("the server refused with the alert {alert:?}"));
        }
    }

    #[test]
    fn only_what_begins_as_no_tls_is_none() {
        let error = Error::InvalidMessage(InvalidMessage::InvalidContentType);
        assert!(explain(&error, false).contains("is no TLS; it may speak plain http"));
        for (error, begun) in [(error, true), (Error::InvalidMessage(InvalidMessage::MessageTooShort), false)] {
            let said = explain(&error, begun);
            assert!(said.starts_with("what the server sent breaks the rules of TLS: "), "{said}");
        }
    }

    /// What the verifier of the system's authorities says where a certificate is not meant for servers.
    #[derive(Debug)]
    struct Invalid;

    impl std::fmt::Display for Invalid {
        fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("certificate had invalid extensions")
        }
    }

    impl std::error::Error for Invalid {}

    #[test]
    fn what_was_shown_need_not_be_known() {
        for (reason, words) in [
            (CertificateError::Expired, "has expired"),
            (CertificateError::NotValidYet, "is not valid yet"),
            (CertificateError::NotValidForName, "for another host name"),
            (CertificateError::UnknownIssuer, "an authority that is not trusted"),
            (CertificateError::InvalidPurpose, "not meant for servers"),
            (CertificateError::BadSignature, "is not acceptable"),
            (CertificateError::ApplicationVerificationFailure, "is not acceptable"),
            (CertificateError::BadEncoding, "is not acceptable"),
            (CertificateError::Other(OtherError(Arc::new(Invalid))), "not meant for servers"),
        ] {
            let said = certificate(&reason, None);
            assert!(said.contains(words) && !said.contains("the subject"), "{said}");
        }
    }
}
