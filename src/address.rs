//! Where a server or a proxy is, as a configuration spells it.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use ureq::http::Uri;

/// The longest URL that is taken.
pub(crate) const LONGEST: usize = 2 * 1024;

/// Where the server is.
pub(crate) struct Base {
    /// Without a slash at its end.
    pub url: String,
    /// Host and port as the URL names them, for messages.
    pub authority: Arc<str>,
    /// The host alone, an IPv6 address without its brackets.
    pub host: String,
    pub port: u16,
    pub https: bool,
}

/// A host, an IPv6 address without its brackets, and the port where one is named.
pub(crate) struct Place {
    pub host: String,
    pub port: Option<u16>,
}

/// Takes `host`, `host:port`, `[address]` or `[address]:port` apart; the error ends a sentence that says what the
/// whole must be.
pub(crate) fn place(text: &str) -> Result<Place, &'static str> {
    let (host, port, is_named) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest, host.parse::<Ipv6Addr>().is_ok()),
        None => {
            let end = text.find(':').unwrap_or(text.len());
            (&text[..end], &text[end..], ServerName::try_from(&text[..end]).is_ok())
        }
    };
    if !is_named {
        return Err("with a host name of letters, digits, hyphens and dots, or an IP address");
    }
    let port = match port {
        "" => None,
        port => {
            let digits = port.strip_prefix(':').filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
            let number = digits.and_then(|digits| digits.parse().ok()).filter(|port| *port > 0);
            Some(number.ok_or("with a port from 1 to 65535")?)
        }
    };
    Ok(Place { host: host.to_owned(), port })
}

/// `host:port`, with the brackets of an IPv6 address.
pub(crate) fn with_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Takes a base URL apart.
pub(crate) fn base(text: &str, allow_http: bool) -> Result<Base, String> {
    const FORM: &str = "must be https://host[:port][/prefix]";
    if text.len() > LONGEST {
        return Err(format!("is longer than {LONGEST} bytes"));
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
    let authority = uri.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
    let Place { host, port } = place(&authority).map_err(|wanted| format!("{FORM}, {wanted}"))?;
    let port = port.unwrap_or(if https { 443 } else { 80 });
    let loopback = host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    if !https && !loopback && !allow_http {
        return Err("is http to a host that is not this machine, where anyone on the way could read the token; \
                    use https, or set allow_http"
            .to_owned());
    }
    let url = text.trim_end_matches('/').to_owned();
    Ok(Base { url, authority: authority.into(), host, port, https })
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
}
