//! The configuration: its keys, their ranges and defaults. A key of a part that is not built is unknown here.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use ureq::http::Uri;
use zeroize::Zeroizing;

use crate::code::Code;
use crate::failure::{Failure, Problem};
use crate::json;
use crate::keys::Keys;
use crate::tls;

/// No time of the configuration may be longer: an hour.
pub(crate) const LONGEST_MS: u64 = 3_600_000;
const MOST_BYTES: u64 = 1 << 30;
/// What fits into one header line of ours with room to spare, and into those that servers accept.
const LONGEST_TOKEN: usize = 8 * 1024;
const LONGEST_URL: usize = 2 * 1024;
const LONGEST_USER_AGENT: usize = 256;

const KEYS: [&str; 15] = [
    "base_url",
    "allow_http",
    "token",
    "timeout_ms",
    "connect_timeout_ms",
    "max_response_bytes",
    "tls",
    "strict",
    "user_agent",
    "retries",
    "retry_503",
    "server_dedupes",
    "connections",
    "idle_timeout_ms",
    "keep_bodies",
];

/// A client's configuration, checked.
pub(crate) struct Config {
    pub base: Base,
    pub token: Option<Secret>,
    pub timeout: Duration,
    pub connect_timeout: Duration,
    pub max_response_bytes: usize,
    pub tls: Option<Arc<rustls::ClientConfig>>,
    pub strict: bool,
    pub user_agent: String,
    pub retries: u32,
    pub retry_503: bool,
    pub server_dedupes: bool,
    pub connections: usize,
    /// Zero: no connection is kept.
    pub idle_timeout: Duration,
    pub keep_bodies: bool,
    /// The configuration in force, for a log.
    pub in_force: String,
}

/// Where the server is.
pub(crate) struct Base {
    /// Without a slash at its end.
    pub url: String,
    /// Host and port as the URL names them, for messages.
    pub authority: String,
    /// The host alone, an IPv6 address without its brackets.
    pub host: String,
    pub port: u16,
    pub https: bool,
}

/// A text that is wiped when it is dropped, and shown nowhere.
#[derive(Clone)]
pub(crate) struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// A token that a header can carry.
    pub(crate) fn token(text: &str) -> Result<Secret, &'static str> {
        if text.is_empty() {
            return Err("is empty");
        }
        if text.len() > LONGEST_TOKEN {
            return Err("is longer than 8192 bytes, more than servers accept in a header");
        }
        if text.bytes().any(|byte| !(b' '..=b'~').contains(&byte)) {
            return Err("holds a control character or one outside ASCII, which no header can carry");
        }
        if text.starts_with(' ') || text.ends_with(' ') {
            return Err("starts or ends with a blank, which no header carries");
        }
        if text.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("bearer ")) {
            return Err("starts with the word Bearer, which the library puts before the token itself");
        }
        Ok(Secret(Arc::new(Zeroizing::new(text.to_owned()))))
    }

    /// The text, for the header that carries it and for masking.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

/// What the caller is shown: every key that is in force.
#[derive(Serialize)]
struct InForce<'a> {
    base_url: &'a str,
    allow_http: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'static str>,
    timeout_ms: u64,
    connect_timeout_ms: u64,
    max_response_bytes: u64,
    tls: tls::settings::InForce,
    strict: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    retries: u64,
    retry_503: bool,
    server_dedupes: bool,
    connections: u64,
    idle_timeout_ms: u64,
    keep_bodies: bool,
}

impl Config {
    /// Reads a configuration and the files that it names.
    ///
    /// # Errors
    /// [`Code::BadConfig`], with everything that is wrong.
    pub(crate) fn read(text: &str) -> Result<Config, Failure> {
        let wrong = |problems| Failure::problems(Code::BadConfig, "the configuration is refused", problems);
        let object = json::object(text).map_err(|problem| wrong(vec![Problem::new("configuration", problem)]))?;
        let mut problems = Vec::new();
        let mut keys = Keys::new("", object, &KEYS, &tls::settings::PLACES, &mut problems);
        let allow_http = keys.boolean("allow_http", false);
        let base = keys.base_url(allow_http);
        let token = keys.secret_token();
        let timeout_ms = keys.integer("timeout_ms", 15_000, 1..=LONGEST_MS);
        let connect_timeout_ms = keys.integer("connect_timeout_ms", 5_000, 1..=LONGEST_MS);
        let max_response_bytes = keys.integer("max_response_bytes", 1 << 20, 1..=MOST_BYTES);
        let tls_members = keys.object("tls");
        let strict = keys.boolean("strict", false);
        let user_agent = keys.user_agent();
        let retries = keys.integer("retries", 2, 0..=10);
        let retry_503 = keys.boolean("retry_503", false);
        let server_dedupes = keys.boolean("server_dedupes", false);
        let connections = keys.integer("connections", 8, 1..=1024);
        let idle_timeout_ms = keys.integer("idle_timeout_ms", 4_000, 0..=LONGEST_MS);
        let keep_bodies = keys.boolean("keep_bodies", false);

        let https = base.as_ref().is_some_and(|base| base.https);
        let tls = tls::settings::read(tls_members, https, &mut problems);
        let Some(base) = base.filter(|_| problems.is_empty()) else {
            return Err(wrong(problems));
        };
        let in_force = InForce {
            base_url: &base.url,
            allow_http,
            token: token.as_ref().map(|_| "***"),
            timeout_ms,
            connect_timeout_ms,
            max_response_bytes,
            tls: tls.in_force,
            strict,
            user_agent: user_agent.as_deref(),
            retries,
            retry_503,
            server_dedupes,
            connections,
            idle_timeout_ms,
            keep_bodies,
        };
        let in_force = serde_json::to_string(&in_force).expect("the configuration can be written as JSON");
        let own = concat!("arctos/", env!("CARGO_PKG_VERSION"));
        Ok(Config {
            base,
            token,
            timeout: Duration::from_millis(timeout_ms),
            connect_timeout: Duration::from_millis(connect_timeout_ms),
            max_response_bytes: usize::try_from(max_response_bytes).unwrap_or(usize::MAX),
            tls: tls.config,
            strict,
            user_agent: user_agent.map_or_else(|| own.to_owned(), |given| format!("{given} {own}")),
            retries: u32::try_from(retries).unwrap_or(u32::MAX),
            retry_503,
            server_dedupes,
            connections: usize::try_from(connections).unwrap_or(usize::MAX),
            idle_timeout: Duration::from_millis(idle_timeout_ms),
            keep_bodies,
            in_force,
        })
    }
}

impl Keys<'_, '_> {
    fn secret_token(&mut self) -> Option<Secret> {
        let text = self.string("token")?;
        Secret::token(&text).map_err(|problem| self.problem("token", problem)).ok()
    }

    fn user_agent(&mut self) -> Option<String> {
        let text = self.string("user_agent")?;
        let fits = text.len() <= LONGEST_USER_AGENT
            && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
            && !text.trim().is_empty();
        if !fits {
            let wanted = "must be 1 to 256 visible ASCII characters or blanks, and not only blanks";
            self.problem("user_agent", wanted);
            return None;
        }
        Some(text.trim().to_owned())
    }

    fn base_url(&mut self, allow_http: bool) -> Option<Base> {
        if self.get("base_url").is_none() {
            self.problem("base_url", "is missing; it is https://host[:port][/prefix]");
            return None;
        }
        let text = self.string("base_url")?;
        match base(&text, allow_http) {
            Ok(base) => Some(base),
            Err(problem) => {
                // A password or a key may stand in it.
                let plain = !text.contains(['@', '?', '#']) && text.len() <= LONGEST_URL;
                self.problem_with("base_url", problem, plain.then_some(text.as_str()));
                None
            }
        }
    }
}

/// Takes a base URL apart.
fn base(text: &str, allow_http: bool) -> Result<Base, String> {
    const FORM: &str = "must be https://host[:port][/prefix]";
    if text.len() > LONGEST_URL {
        return Err(format!("is longer than {LONGEST_URL} bytes"));
    }
    if !text.is_ascii() {
        return Err("holds characters outside ASCII; a host name is written in its xn-- form, a path with %".to_owned());
    }
    if let Some(part) = [('@', "a user"), ('?', "a query"), ('#', "a fragment"), ('\\', "a backslash")]
        .into_iter()
        .find_map(|(sign, part)| text.contains(sign).then_some(part))
    {
        return Err(format!("{FORM}, without {part}"));
    }
    let uri: Uri = text.parse().map_err(|_| FORM.to_owned())?;
    let https = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(FORM.to_owned()),
    };
    let bracketed = uri.host().and_then(|host| host.strip_prefix('[')?.strip_suffix(']'));
    let host = bracketed.or(uri.host()).unwrap_or_default().to_owned();
    // What stands after the host must be a port and nothing else; `Uri` takes "host:" and "host:99999" too.
    let authority = uri.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
    let port = match uri.host().and_then(|host| authority.strip_prefix(host)) {
        Some("") => Some(if https { 443 } else { 80 }),
        Some(after) => after
            .strip_prefix(':')
            .filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|port| port.parse::<u16>().ok())
            .filter(|port| *port > 0),
        None => None,
    };
    let Some(port) = port.filter(|_| !host.is_empty()) else {
        return Err(format!("{FORM}, with a port from 1 to 65535"));
    };
    let named = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => rustls::pki_types::ServerName::try_from(host.as_str()).is_ok(),
    };
    if !named {
        return Err(format!("{FORM}, with a host name of letters, digits, hyphens and dots, or an IP address"));
    }
    let loopback = host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    if !https && !loopback && !allow_http {
        return Err("is http to a host that is not this machine, where anyone on the way could read the token; \
                    use https, or set allow_http"
            .to_owned());
    }
    let url = text.trim_end_matches('/').to_owned();
    Ok(Base { url, authority, host, port, https })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_are_taken_apart() {
        for (text, host, port, url) in [
            ("https://arctos.bank.example", "arctos.bank.example", 443, "https://arctos.bank.example"),
            (
                "https://arctos.bank.example:8443/a/b/",
                "arctos.bank.example",
                8443,
                "https://arctos.bank.example:8443/a/b",
            ),
            ("http://127.1.2.3:1/", "127.1.2.3", 1, "http://127.1.2.3:1"),
            ("http://[::1]:8080", "::1", 8080, "http://[::1]:8080"),
            ("http://localhost", "localhost", 80, "http://localhost"),
            ("HTTPS://Host.example/x", "Host.example", 443, "HTTPS://Host.example/x"),
        ] {
            let base = base(text, false).unwrap();
            assert_eq!((base.host.as_str(), base.port, base.url.as_str()), (host, port, url), "{text}");
        }
        for text in [
            "",
            "host",
            "host:443",
            "/path",
            "ftp://host",
            "https://",
            "https:///x",
            "https://user@host",
            "https://user:pw@host",
            "https://host?q",
            "https://host/x#f",
            "https://host/a\\b",
            "https://host:",
            "https://host:0",
            "https://host:65536",
            "https://ho st",
            "https://h\u{f6}st",
            "http://bank.example",
            "http://10.0.0.1",
            "https://ho_st!",
            "https://host:8443x",
            "https://host:+443",
            "https://[host]",
            "https://-",
        ] {
            assert!(base(text, false).is_err(), "{text}");
        }
        assert!(base("http://bank.example", true).is_ok());
    }

    #[test]
    fn everything_wrong_is_listed_and_no_secret_shown() {
        let text = r#"{"base_url":"https://u:hunter2hunter2@h","token":"se\ncret-marker","tokn":"secret-marker","timeout_ms":0,
            "strict":"yes","tls":{"roots":"none","cafile":"x"},"strict":true,"connect_timeout_ms":1.5}"#;
        let failure = Config::read(text).err().unwrap();
        let document: serde_json::Value = serde_json::from_str(&failure.document()).unwrap();
        let fields: Vec<&str> =
            document["problems"].as_array().unwrap().iter().map(|problem| problem["field"].as_str().unwrap()).collect();
        assert_eq!(
            fields,
            [
                "tokn",
                "strict",
                "base_url",
                "token",
                "timeout_ms",
                "connect_timeout_ms",
                "strict",
                "tls.cafile",
                "tls.roots"
            ]
        );
        assert!(!failure.document().contains("marker") && !failure.document().contains("hunter2"));
    }
}
