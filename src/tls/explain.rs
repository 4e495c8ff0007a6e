//! What an error of TLS means, in words for a support desk.
#![forbid(unsafe_code)]

use std::time::Duration;

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::certificate::Certificate;
use super::handshake::{self, Asked, Refused, Shown};
use super::pin::Pin;

/// What the error means that ended TLS on this thread just now.
pub(crate) fn explain(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(reason) => certificate(reason, handshake::shown().as_ref()),
        Error::AlertReceived(alert) => refusal(*alert, handshake::asked().as_ref()),
        Error::InvalidMessage(_) => "what the server sent is no TLS; it may speak plain http on this port".to_owned(),
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

fn wrong(reason: &CertificateError, shown: Option<&Shown>, leaf: Option<&Certificate>) -> String {
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            let expired = |one: &Certificate, now: Duration| (one.valid.1 < now).then(|| one.not_after.clone());
            match of_chain(shown, expired) {
                Some((whose, date, now)) => format!(
                    "{whose} has expired, on {date}; it must be renewed, or the clock of this machine is wrong, which \
                     says {now}"
                ),
                None => "the server's certificate has expired".to_owned(),
            }
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            let early = |one: &Certificate, now: Duration| (one.valid.0 > now).then(|| one.not_before.clone());
            match of_chain(shown, early) {
                Some((whose, date, now)) => format!(
                    "{whose} is not valid yet, but from {date}; the clock of this machine may be wrong, which says {now}"
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
             one, name it in tls.ca_file"
                .to_owned()
        }
        CertificateError::UnknownIssuer => {
            let whose = top(shown).map(|issuer| format!(": {issuer}")).unwrap_or_default();
            format!(
                "the server's certificate is of an authority that is not trusted{whose}; if it is the right one, name \
                 its certificate in tls.ca_file"
            )
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the server's certificate is not meant for servers".to_owned()
        }
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
