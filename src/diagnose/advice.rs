//! What to do about what a step found: one sentence, with the key to set or whoever must act.
#![forbid(unsafe_code)]

use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::ParsedCertificate;

use super::{More, are_in_time, ends_soon};
use crate::call::Cause;
use crate::tls::{Refused, Shown};

pub(super) const NOTHING: &str = "nothing to do";
pub(super) const FIRST: &str = "mend the step that failed before it";
pub(super) const CANCELLED: &str = "diagnose again: this was cancelled before its end";
pub(super) const HTTP: &str = "use https in base_url wherever the server is not this machine";
pub(super) const CLOCK: &str =
    "set this machine's clock, if it is the wrong one: certificates, tokens and times of appointments depend on it";
pub(super) const TOKEN: &str = "set token, token_file or login, or call arctos_client_set_token";

const CLIENT_CERTIFICATE: &str = "where the server wants a certificate of the client, have whoever runs it say which \
                                  ones it takes, and name such a one in tls.cert_file and its key in tls.key_file";

/// What advice depends on besides the cause.
pub(super) struct Way<'a> {
    /// Host and port.
    pub server: &'a str,
    pub https: bool,
    pub proxied: bool,
}

impl Way<'_> {
    pub(super) fn name(&self, cause: &Cause) -> &'static str {
        match (cause, self.proxied) {
            (Cause::Deadline(_), _) => {
                "have whoever runs this machine's network look at its name server, which does not answer"
            }
            (_, false) => {
                "check the host in base_url, and the name server of this machine; where only a proxy knows names, set \
                 proxy"
            }
            (_, true) => "check the host in proxy, and the name server of this machine",
        }
    }

    pub(super) fn connect(&self, cause: &Cause) -> String {
        let server = self.server;
        match (cause, self.proxied) {
            (Cause::Deadline(_), false) => format!(
                "have whoever runs the firewall let this machine connect to {server}, for nothing comes back from there; \
                 where the way out is a proxy, set proxy"
            ),
            (_, false) => {
                "check host and port in base_url, and whether the server runs; where the way out is a proxy, set proxy"
                    .to_owned()
            }
            (_, true) => {
                "check host and port in proxy, and whether the proxy runs and takes connections of this machine"
                    .to_owned()
            }
        }
    }

    pub(super) fn proxy(&self, cause: &Cause) -> String {
        let server = self.server;
        match cause {
            Cause::Proxy { passes: true, .. } => {
                format!("have whoever runs the proxy say why it does not reach {server} now, or try again later")
            }
            Cause::Deadline(_) => {
                format!("have whoever runs the proxy say why it does not answer to CONNECT {server}")
            }
            _ => format!(
                "have whoever runs the proxy let this machine, or the user in proxy, connect to {server} by CONNECT"
            ),
        }
    }

    /// With what the server showed, if it came to that.
    pub(super) fn tls(&self, cause: &Cause, shown: Option<&Shown>, host: &str, more: &More) -> String {
        let server = self.server;
        let Some(shown) = shown else {
            return match cause {
                Cause::Tls(_) => {
                    "check host and port in base_url, and have whoever runs the server say which versions of \
                     TLS it speaks there"
                        .to_owned()
                }
                _ => format!(
                    "check the port in base_url, and have whoever runs the server, or a firewall before it, say what \
                     becomes of TLS to {server}"
                ),
            };
        };
        if !matches!(cause, Cause::Tls(_)) {
            return "have whoever runs the server say why it does not go on with TLS: it may want a certificate of the \
                    client, that of tls.cert_file"
                .to_owned();
        }
        match shown.refused {
            None => CLIENT_CERTIFICATE.to_owned(),
            Some(Refused::Pin) => {
                "ask whoever runs the server whether its key is a new one: only then put its pin into \
                 tls.pins"
                    .to_owned()
            }
            Some(Refused::Signature) => {
                "have whoever runs the server give it the key that belongs to its certificate".to_owned()
            }
            Some(Refused::Authority | Refused::Chain) => chain(shown, host, more),
        }
    }

    pub(super) fn server(&self, cause: &Cause) -> &'static str {
        match cause {
            Cause::Tls(_) => CLIENT_CERTIFICATE,
            Cause::Deadline(_) => {
                "have whoever runs the server look at it, or at what stands before it: the way there is open, and no \
                 answer comes"
            }
            Cause::Broken(_) => {
                "have whoever runs the server, or a firewall before it, say why it closes connections without an answer"
            }
            _ if self.https => "check host and port in base_url: what answers there is no HTTP server",
            _ => "check base_url: what answers there is no HTTP server, or one that speaks https on this port",
        }
    }

    /// About the status of an answer.
    pub(super) fn answered(&self, status: u16) -> &'static str {
        match status {
            300..=399 => {
                "set base_url to where this leads, if calls are answered like this too: a redirect is never followed"
            }
            400 if !self.https => "use https in base_url, if the server speaks TLS on this port",
            429 => "try again later: the server has no room for this machine now",
            // 501 says no more than that it knows no HEAD.
            500 | 502..=599 => "have whoever runs the server look at it: calls may be answered like this too",
            _ => NOTHING,
        }
    }
}

/// About a chain that is not acceptable.
fn chain(shown: &Shown, host: &str, more: &More) -> String {
    if !are_in_time(&more.chain) {
        return "set this machine's clock, if it is wrong; otherwise have whoever runs the server renew its certificate"
            .to_owned();
    }
    if more.inspected == Some(true) {
        return "ask whoever runs the network for the certificate of the proxy's authority and name it in tls.ca_file, with \
                tls.roots \"file\", or for a way past the proxy"
            .to_owned();
    }
    if !is_for(shown, host) {
        return format!(
            "set base_url to a host that the certificate is for, or have whoever runs the server get one for {host}"
        );
    }
    if shown.refused == Some(Refused::Authority) {
        return "ask whoever runs the server, and whoever runs the network, whether the authority is theirs: only then name \
                its certificate in tls.ca_file, with tls.roots \"file\""
            .to_owned();
    }
    "have whoever runs the server get another certificate".to_owned()
}

/// Whether a server that is called so may have the certificate that it showed.
fn is_for(shown: &Shown, host: &str) -> bool {
    let leaf = shown.chain.first().and_then(|leaf| ParsedCertificate::try_from(leaf).ok());
    let name = ServerName::try_from(host).ok();
    leaf.zip(name).is_some_and(|(leaf, name)| verify_server_name(&leaf, &name).is_ok())
}

/// About a certificate that is acceptable.
pub(super) fn certificate(more: &More) -> String {
    if let Some(date) = ends_soon(&more.chain) {
        return format!("have whoever runs the server renew its certificate before {date}");
    }
    match (more.inspected, more.public) {
        (Some(true), _) => {
            "ask whoever runs the network for a way past its proxy, if that may not read what is sent: the \
             authority has the name of one that inspects TLS"
                .to_owned()
        }
        (_, Some(false)) => {
            "make sure that the authority is the bank's own: it is none of the public ones, and a proxy that \
             inspects TLS looks the same"
                .to_owned()
        }
        _ => NOTHING.to_owned(),
    }
}
