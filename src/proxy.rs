//! The proxy between the client and its server: as the configuration names it, or as the environment does, which is
//! read when a client is made and never again. A setting that cannot be understood is refused: whoever names a proxy
//! wants no direct connection.
#![forbid(unsafe_code)]

use std::env;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::address::{self, Base, Place};
use crate::secret::Secret;

/// A proxy that opens a way to the server when it is asked by CONNECT.
pub(crate) struct Proxy {
    pub host: String,
    pub port: u16,
    /// Host and port, for messages.
    pub authority: Arc<str>,
    pub credentials: Option<Credentials>,
    /// The setting, its password masked.
    pub in_force: String,
}

/// What a proxy wants to know before it lets anybody through.
pub(crate) struct Credentials {
    pub password: Secret,
    /// `user:password` in base64, for Proxy-Authorization.
    pub basic: Secret,
}

/// The proxy of a setting, which is a URL, or "env" for what the environment says of this server, where it is known. The
/// error names what is wrong, and shows nothing of what could hold a password.
pub(crate) fn read(setting: &str, base: Option<&Base>) -> Result<Option<Proxy>, String> {
    if setting == "env" {
        return base.map_or(Ok(None), |base| from_environment(variable, base));
    }
    match setting.strip_prefix("http://") {
        Some(rest) => parse(rest).map(Some),
        None => Err(format!("{FORM}, or \"env\"{}", other_scheme(setting))),
    }
}

const FORM: &str = "must be http://[user:password@]host:port";

/// What to say of a proxy of another kind.
fn other_scheme(setting: &str) -> &'static str {
    match setting.split_once("://") {
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => "; a proxy is spoken to in http",
        Some((scheme, _)) if scheme.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("socks")) => {
            "; a SOCKS proxy cannot be used"
        }
        _ => "",
    }
}

/// Reads what stands behind `http://`.
fn parse(text: &str) -> Result<Proxy, String> {
    let text = text.strip_suffix('/').unwrap_or(text);
    if text.len() > address::LONGEST {
        return Err(format!("is longer than {} bytes", address::LONGEST));
    }
    let (user, place) = match text.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, text),
    };
    let Place { host, port } = address::place(place).map_err(|wanted| format!("{FORM}, {wanted}"))?;
    let port = port.ok_or_else(|| format!("{FORM}, with its port"))?;
    let authority = address::with_port(&host, port);
    let (credentials, shown) = match user {
        Some(user) => {
            let (credentials, name) = credentials(user)?;
            (Some(credentials), format!("{name}:***@"))
        }
        None => (None, String::new()),
    };
    let in_force = format!("http://{shown}{authority}");
    Ok(Proxy { host, port, authority: authority.into(), credentials, in_force })
}

/// Those of `user:password`, each written with % where a URL needs it; and the user as it was written.
fn credentials(text: &str) -> Result<(Credentials, &str), String> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    // A URL ends at these, so that a password with one of them was meant otherwise.
    if text.contains(['/', '?', '#']) {
        return Err(format!("{FORM}; in user and password, / ? # @ and % are written with %, as %2F"));
    }
    let decode = |part| -> Result<Zeroizing<String>, String> {
        if !is_escaped(part) {
            return Err(format!("{FORM}; a % in user or password is written %25"));
        }
        let bytes = Zeroizing::new(percent_decode_str(part).collect::<Vec<u8>>());
        let text = std::str::from_utf8(&bytes).map_err(|_| format!("{FORM}; user or password is not UTF-8"))?;
        if text.contains(char::is_control) {
            return Err(format!("{FORM}; user or password holds a control character"));
        }
        Ok(Zeroizing::new(text.to_owned()))
    };
    let (name, password) = (decode(user)?, decode(password)?);
    if name.contains(':') {
        return Err(format!("{FORM}; a user with a colon cannot log in"));
    }
    let both = Zeroizing::new([name.as_str(), ":", password.as_str()].concat());
    let basic = Secret::new(Zeroizing::new(STANDARD.encode(both.as_bytes())));
    Ok((Credentials { password: Secret::new(password), basic }, user))
}

/// Whether two hexadecimal digits stand behind every %.
fn is_escaped(text: &str) -> bool {
    let after = text.split('%').skip(1);
    after.into_iter().all(|rest| rest.as_bytes().get(..2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit)))
}

type Variable = Result<Option<Zeroizing<String>>, ()>;

/// A variable of the environment; an error when it is not UTF-8.
fn variable(name: &str) -> Variable {
    let Some(value) = env::var_os(name) else { return Ok(None) };
    value.into_string().map(|text| Some(Zeroizing::new(text))).map_err(drop)
}

/// The proxy that the environment names for a server, unless NO_PROXY does.
fn from_environment(variable: impl Fn(&str) -> Variable, base: &Base) -> Result<Option<Proxy>, String> {
    let names = if base.https { ["https_proxy", "HTTPS_PROXY"] } else { ["http_proxy", "HTTP_PROXY"] };
    let first = |names: [&'static str; 2]| {
        for name in names {
            match variable(name) {
                Ok(None) => {}
                Ok(Some(value)) => return Ok(Some((name, value))),
                Err(()) => return Err(format!("\"env\": the variable {name} is not UTF-8")),
            }
        }
        Ok(None)
    };
    let Some((name, value)) = first(names)? else { return Ok(None) };
    let value = value.trim();
    if value.is_empty() {
        return Ok(None);
    }
    if let Some((name, exceptions)) = first(["no_proxy", "NO_PROXY"])? {
        let wrong = |entry: &str| {
            // A proxy with its password, in the wrong variable.
            let shown = if exceptions.contains('@') { "an entry".to_owned() } else { format!("{entry:?}") };
            format!("\"env\": the variable {name} has {shown}, {EXCEPTION}")
        };
        if excepted(&exceptions, base).map_err(wrong)? {
            return Ok(None);
        }
    }
    // The environment is made for many programs, some of which write no scheme.
    let rest = match value.split_once("://") {
        Some(("http" | "HTTP", rest)) => rest,
        Some(_) => return Err(format!("\"env\": the variable {name} {FORM}{}", other_scheme(value))),
        None => value,
    };
    parse(rest).map(Some).map_err(|problem| format!("\"env\": the variable {name} {problem}"))
}

const EXCEPTION: &str = "which is no host name, no domain, no IP address and no network such as 10.0.0.0/8";

/// Whether one of the entries of NO_PROXY names the server; the error is an entry that cannot be understood.
fn excepted<'a>(list: &'a str, base: &Base) -> Result<bool, &'a str> {
    let host = base.host.strip_suffix('.').unwrap_or(&base.host);
    let address = host.parse::<IpAddr>().ok();
    let mut found = false;
    for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        found |= match entry {
            "*" => true,
            network if network.contains('/') => {
                let network: IpNet = network.parse().map_err(|_| entry)?;
                address.is_some_and(|address| network.contains(&address))
            }
            address_alone if address_alone.parse::<IpAddr>().is_ok() => address == address_alone.parse().ok(),
            _ => {
                let domain = entry.strip_prefix("*.").or(entry.strip_prefix('.')).unwrap_or(entry);
                let Place { host: domain, port } = address::place(domain).map_err(|_| entry)?;
                let domain = domain.strip_suffix('.').unwrap_or(&domain);
                let here = match domain.parse::<IpAddr>() {
                    Ok(one) => address == Some(one),
                    Err(_) => address.is_none() && is_within(host, domain),
                };
                here && port.is_none_or(|port| port == base.port)
            }
        };
    }
    Ok(found)
}

/// Whether a host is this domain, or below it.
fn is_within(host: &str, domain: &str) -> bool {
    let Some(start) = host.len().checked_sub(domain.len()) else { return false };
    host.get(start..).is_some_and(|end| end.eq_ignore_ascii_case(domain))
        && (start == 0 || host.as_bytes()[start - 1] == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direct(text: &str) -> Result<Option<Proxy>, String> {
        read(text, address::base("https://arctos.bank.example", false).ok().as_ref())
    }

    #[test]
    fn proxies_are_taken_apart() {
        for (text, host, port, basic, shown) in [
            ("http://proxy.bank:3128", "proxy.bank", 3128, None, "http://proxy.bank:3128"),
            ("http://10.0.0.1:80/", "10.0.0.1", 80, None, "http://10.0.0.1:80"),
            ("http://[::1]:8080", "::1", 8080, None, "http://[::1]:8080"),
            ("http://u:p@h:1", "h", 1, Some("dTpw"), "http://u:***@h:1"),
            ("http://u@h:1", "h", 1, Some("dTo="), "http://u:***@h:1"),
            ("http://u:p%40%3A%25:x@h:1", "h", 1, Some("dTpwQDolOng="), "http://u:***@h:1"),
            ("http://u:a@b@h:1", "h", 1, Some("dTphQGI="), "http://u:***@h:1"),
        ] {
            let proxy = direct(text).unwrap().unwrap();
            assert_eq!((proxy.host.as_str(), proxy.port, proxy.in_force.as_str()), (host, port, shown), "{text}");
            let given = proxy.credentials.as_ref().map(|given| given.basic.expose());
            assert_eq!(given, basic, "{text}");
        }
        for text in [
            "",
            "proxy:3128",
            "http://proxy",
            "http://proxy:",
            "http://proxy:0",
            "http://proxy:65536",
            "http://proxy:x",
            "http://",
            "http://:80",
            "https://proxy:3128",
            "socks5://proxy:1080",
            "http://proxy:3128/path",
            "http://user:hunter2/hunter2@proxy:3128",
            "http://user:hunter2%zz@proxy:3128",
            "http://user:hunter2%0a@proxy:3128",
            "http://user:hunter2%ff@proxy:3128",
            "http://us%3Aer:hunter2@proxy:3128",
            "http://user:hunter2@pro xy:3128",
            "http://pr\u{f6}xy:3128",
            "http://[proxy]:1",
            "\u{e9}\u{e9}\u{e9}://proxy:1",
            "ENV",
        ] {
            let problem = direct(text).err().unwrap();
            assert!(!problem.contains("hunter2"), "{text}: {problem}");
        }
    }

    fn of_environment(variables: &[(&str, &str)], url: &str) -> Result<Option<String>, String> {
        let base = address::base(url, true).unwrap();
        let variable = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            Ok(found.map(|(_, value)| Zeroizing::new((*value).to_owned())))
        };
        from_environment(variable, &base).map(|proxy| proxy.map(|proxy| proxy.in_force))
    }

    #[test]
    fn the_environment_names_a_proxy() {
        let (https, http) = ("https://arctos.bank.example", "http://arctos.bank.example");
        let proxy = |number: u8| Ok(Some(format!("http://p{number}:1")));
        assert_eq!(of_environment(&[], https), Ok(None));
        assert_eq!(of_environment(&[("HTTPS_PROXY", "http://p1:1")], https), proxy(1));
        assert_eq!(of_environment(&[("HTTPS_PROXY", "http://p1:1")], http), Ok(None));
        assert_eq!(of_environment(&[("HTTP_PROXY", "p2:1"), ("HTTPS_PROXY", "x")], http), proxy(2));
        assert_eq!(of_environment(&[("HTTPS_PROXY", "http://p1:1"), ("https_proxy", "http://p3:1/")], https), proxy(3));
        assert_eq!(of_environment(&[("HTTPS_PROXY", "http://p1:1"), ("https_proxy", " ")], https), Ok(None));
        for wrong in ["http://p1", "p1", "https://p1:1", "socks5h://p1:1", "http://u:hunter2@p1:x", "http://p 1:1"] {
            let problem = of_environment(&[("HTTPS_PROXY", wrong)], https).unwrap_err();
            assert!(problem.contains("HTTPS_PROXY") && !problem.contains("hunter2"), "{wrong}: {problem}");
        }
    }

    #[test]
    fn no_proxy_names_hosts_domains_and_networks() {
        let passes = |list: &str, url: &str| {
            let variables = [("https_proxy", "http://p1:1"), ("no_proxy", list)];
            of_environment(&variables, url).map(|proxy| proxy.is_none())
        };
        for (list, url, past) in [
            ("*", "https://a.example", true),
            ("", "https://a.example", false),
            ("b.example, A.Example ,,", "https://a.example", true),
            ("example", "https://a.example", true),
            (".example", "https://a.example", true),
            ("*.example", "https://a.example", true),
            (".a.example", "https://a.example", true),
            ("ample", "https://a.example", false),
            ("a.example", "https://example", false),
            ("a.example:8443", "https://a.example:8443", true),
            ("a.example:8443", "https://a.example", false),
            ("a.example.", "https://a.example", true),
            ("a.example", "https://a.example.", true),
            ("10.1.2.3", "https://10.1.2.3", true),
            ("10.1.2.3:443", "https://10.1.2.3", true),
            ("10.1.2.3:444", "https://10.1.2.3", false),
            ("10.0.0.0/8", "https://10.1.2.3", true),
            ("10.0.0.0/16", "https://10.1.2.3", false),
            ("10.0.0.0/8", "https://a.example", false),
            ("2001:db8::/32", "https://[2001:db8::1]", true),
            ("2001:db8::1", "https://[2001:db8:0::1]", true),
            ("[2001:db8::1]:443", "https://[2001:db8::1]", true),
            ("::/0", "https://10.1.2.3", false),
        ] {
            assert_eq!(passes(list, url), Ok(past), "{list} {url}");
        }
        for list in
            ["10.0.0.0/99", "10.0.0/8", "a b", "a.example:x", "http://a.example", "a.example;b.example", "*x", "3"]
        {
            assert!(
                passes(list, "https://c.example").unwrap_err().contains(&format!("no_proxy has {list:?}")),
                "{list}"
            );
        }
        for list in ["http://user:hunter2@proxy:3128", "http://user:hunter2,x@proxy:3128"] {
            let problem = passes(list, "https://c.example").unwrap_err();
            assert!(problem.contains("no_proxy has an entry") && !problem.contains("hunter2"), "{problem}");
        }
    }
}
