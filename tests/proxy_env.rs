//! `"proxy": "env"`: the environment is read when a client is made, and never otherwise. Each case is a process of its
//! own, since an environment is.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;

use arctos_tests::api::{BAD_CONFIG, CONNECT, NOT_CREATED, OK};
use arctos_tests::deadline::Scheme;
use arctos_tests::proxy::Proxy;
use arctos_tests::server::{Script, Server};
use arctos_tests::stage::{config, config_tls, with};
use arctos_tests::tls::{Authority, Identity, Version};
use arctos_tests::tools::{Host, succeed};
use serde_json::{Value, json};

/// All that programs read of a proxy.
const VARIABLES: [&str; 8] =
    ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"];

/// A proxy that nobody reaches: nothing listens there.
const DEAD: &str = "http://127.0.0.1:1";

/// What a process was told.
struct Told {
    code: i32,
    text: String,
    call: Option<Call>,
}

/// What its call came to.
struct Call {
    code: i32,
    outcome: i32,
    text: String,
}

impl Told {
    /// The configuration in force, or the error document.
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect("JSON")
    }

    /// The proxy that is in force.
    #[track_caller]
    fn proxy(&self) -> Option<String> {
        assert_eq!(self.code, OK, "{}", self.text);
        self.json().get("proxy").map(|proxy| proxy.as_str().expect("a text").to_owned())
    }

    /// The problem of the only key that is wrong.
    #[track_caller]
    fn problem(&self) -> String {
        assert_eq!(self.code, BAD_CONFIG, "{}", self.text);
        assert!(self.call.is_none(), "there is no client");
        let document = self.json();
        assert_eq!(document["name"], "ARCTOS_BAD_CONFIG");
        let problems = document["problems"].as_array().expect("problems").clone();
        assert_eq!((problems.len(), &problems[0]["field"]), (1, &json!("proxy")), "{}", self.text);
        problems[0]["problem"].as_str().expect("a text").to_owned()
    }
}

/// Processes with environments of their own.
struct Processes(Host);

impl Processes {
    fn new() -> Processes {
        Processes(Host::new("environment"))
    }

    /// A client that is made with these variables.
    fn client(&self, config: &Value, variables: &[(&str, &str)]) -> Told {
        self.run(config, variables, false, &[])
    }

    /// A client that is made with these variables, and makes a call when others are set besides.
    fn call(&self, config: &Value, variables: &[(&str, &str)], later: &[(&str, &str)]) -> Told {
        self.run(config, variables, true, later)
    }

    fn run<V: AsRef<OsStr>>(
        &self,
        config: &Value,
        variables: &[(&str, V)],
        call: bool,
        later: &[(&str, &str)],
    ) -> Told {
        let mut command = self.0.command();
        for name in VARIABLES {
            command.env_remove(name);
        }
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command.arg(config.to_string()).arg(if call { "1" } else { "0" });
        for (name, value) in later {
            command.args([name, value]);
        }
        let output = String::from_utf8(succeed(&mut command).stdout).expect("text");
        let mut lines = output.lines();
        let (code, text) = lines
            .next()
            .and_then(|line| line.strip_prefix("new ")?.split_once(' '))
            .unwrap_or_else(|| panic!("not what it prints: {output}"));
        let call = lines.next().map(|line| {
            let parts: Vec<&str> = line.splitn(4, ' ').collect();
            let ["call", code, outcome, text] = parts[..] else { panic!("not what it prints: {output}") };
            Call { code: number(code), outcome: number(outcome), text: text.to_owned() }
        });
        assert_eq!(lines.next(), None);
        Told { code: number(code), text: text.to_owned(), call }
    }
}

fn number(text: &str) -> i32 {
    text.parse().expect("a number")
}

/// A client of this URL whose proxy is that of the environment.
fn env(url: &str) -> Value {
    with(config(url), json!({ "allow_http": true, "proxy": "env" }))
}

#[test]
fn each_scheme_has_a_variable() {
    let processes = Processes::new();
    let (http, https) = ("http://arctos.bank.example", "https://arctos.bank.example");
    let (one, other) = ("http://one.example:1", "http://other.example:2");
    for (url, variables, proxy) in [
        (https, &[][..], None),
        (http, &[], None),
        (https, &[("HTTPS_PROXY", one)], Some(one)),
        (https, &[("https_proxy", one)], Some(one)),
        (http, &[("HTTP_PROXY", one)], Some(one)),
        (http, &[("http_proxy", one)], Some(one)),
        (https, &[("https_proxy", one), ("HTTPS_PROXY", other)], Some(one)),
        (http, &[("HTTP_PROXY", other), ("http_proxy", one)], Some(one)),
        (https, &[("http_proxy", other), ("HTTP_PROXY", other)], None),
        (http, &[("https_proxy", other), ("HTTPS_PROXY", other)], None),
        (https, &[("all_proxy", other), ("ALL_PROXY", other)], None),
        (http, &[("all_proxy", other), ("ALL_PROXY", other)], None),
        (https, &[("Https_Proxy", other)], None),
        (https, &[("HTTPS_PROXY", "")], None),
        (https, &[("HTTPS_PROXY", " ")], None),
        (https, &[("https_proxy", "")], None),
        (https, &[("https_proxy", ""), ("HTTPS_PROXY", other)], None),
        (http, &[("http_proxy", " "), ("HTTP_PROXY", other)], None),
        (https, &[("https_proxy", one), ("no_proxy", ""), ("NO_PROXY", "")], Some(one)),
        (https, &[("https_proxy", one), ("no_proxy", " , ,")], Some(one)),
        (https, &[("HTTPS_PROXY", "one.example:1")], Some(one)),
        (https, &[("HTTPS_PROXY", "http://one.example:1/")], Some(one)),
        (https, &[("HTTPS_PROXY", " http://one.example:1 ")], Some(one)),
        (https, &[("HTTPS_PROXY", "http://u:hunter2%40@one.example:1")], Some("http://u:***@one.example:1")),
        (https, &[("HTTPS_PROXY", "u:hunter2@one.example:1")], Some("http://u:***@one.example:1")),
        (https, &[("HTTPS_PROXY", "[2001:db8::1]:3128")], Some("http://[2001:db8::1]:3128")),
        // What is wrong with a variable that is not for this server is no matter.
        (https, &[("HTTP_PROXY", "socks5://x"), ("HTTPS_PROXY", one)], Some(one)),
        (http, &[("HTTPS_PROXY", "nonsense")], None),
    ] {
        let told = processes.client(&env(url), variables);
        assert_eq!(told.proxy().as_deref(), proxy, "{url} {variables:?}");
        assert!(!told.text.contains("hunter2"), "{}", told.text);
    }
}

#[test]
fn no_proxy_names_what_is_reached_directly() {
    let processes = Processes::new();
    let host = "https://arctos.bank.example";
    for (list, url, direct) in [
        // Hosts, and what is below them.
        ("arctos.bank.example", host, true),
        ("bank.example", host, true),
        ("example", host, true),
        (".bank.example", host, true),
        (".arctos.bank.example", host, true),
        ("ARCTOS.Bank.EXAMPLE", host, true),
        (".BANK.example", host, true),
        ("arctos.bank.example", "https://ARCTOS.bank.Example", true),
        ("ank.example", host, false),
        ("tos.bank.example", host, false),
        ("x.arctos.bank.example", host, false),
        ("arctos", host, false),
        ("arctos.bank", host, false),
        ("bank.example.org", host, false),
        ("arctos.bank.example", "https://arctos.bank.example.org", false),
        ("localhost", "https://localhost", true),
        ("localhost", "https://127.0.0.1", false),
        // Lists.
        ("*", host, true),
        ("*", "https://10.1.2.3", true),
        ("other.example, *", host, true),
        ("other.example,arctos.bank.example", host, true),
        (" other.example , arctos.bank.example ", host, true),
        ("\tother.example,\tarctos.bank.example,", host, true),
        (",,arctos.bank.example,,", host, true),
        ("other.example,another.example", host, false),
        // Ports.
        ("arctos.bank.example:443", host, true),
        ("arctos.bank.example:8443", host, false),
        ("arctos.bank.example:8443", "https://arctos.bank.example:8443", true),
        ("arctos.bank.example", "https://arctos.bank.example:8443", true),
        (".bank.example:443", host, true),
        ("bank.example:80", host, false),
        ("arctos.bank.example:80", "http://arctos.bank.example", true),
        ("10.1.2.3:443", "https://10.1.2.3", true),
        ("10.1.2.3:80", "https://10.1.2.3", false),
        ("[2001:db8::7]:443", "https://[2001:db8::7]", true),
        ("[2001:db8::7]:80", "https://[2001:db8::7]", false),
        // Addresses.
        ("10.1.2.3", "https://10.1.2.3", true),
        ("10.1.2.3", "https://10.1.2.4", false),
        ("10.1.2.3", "https://110.1.2.3", false),
        ("10.1.2.3", host, false),
        ("2001:db8::7", "https://[2001:db8::7]", true),
        ("2001:DB8:0:0::7", "https://[2001:db8::7]", true),
        ("[2001:db8::7]", "https://[2001:db8::7]", true),
        ("2001:db8::7", "https://[2001:db8::8]", false),
        // Networks.
        ("10.0.0.0/8", "https://10.1.2.3", true),
        ("10.0.0.0/8", "https://11.1.2.3", false),
        ("10.1.2.3/32", "https://10.1.2.3", true),
        ("10.1.2.4/31", "https://10.1.2.5", true),
        ("10.1.2.4/31", "https://10.1.2.6", false),
        ("10.1.2.3/8", "https://10.9.9.9", true),
        ("0.0.0.0/0", "https://10.1.2.3", true),
        ("0.0.0.0/0", "https://[2001:db8::7]", false),
        ("0.0.0.0/0", host, false),
        ("2001:db8::/32", "https://[2001:db8:1::7]", true),
        ("2001:db8::/32", "https://[2001:db9::7]", false),
        ("::/0", "https://[2001:db8::7]", true),
        ("::/0", "https://10.1.2.3", false),
        ("127.0.0.0/8", "http://127.0.0.1:8080", true),
    ] {
        for name in ["no_proxy", "NO_PROXY"] {
            let scheme = if url.starts_with("https") { "HTTPS_PROXY" } else { "HTTP_PROXY" };
            let told = processes.client(&env(url), &[(scheme, DEAD), (name, list)]);
            assert_eq!(told.proxy().is_none(), direct, "{name}={list} {url}");
        }
    }
    // Lower case first, as for the proxies.
    let variables = [("HTTPS_PROXY", DEAD), ("no_proxy", "other.example"), ("NO_PROXY", "*")];
    assert_eq!(processes.client(&env(host), &variables).proxy().as_deref(), Some(DEAD));
}

#[test]
fn what_cannot_be_understood_is_refused() {
    let processes = Processes::new();
    for value in [
        "proxy",
        "http://proxy",
        "http://proxy:0",
        "http://proxy:65536",
        "http://proxy:3128/path",
        "http://pro xy:3128",
        "http://:3128",
        "http://",
        "https://proxy:3128",
        "https://u:hunter2@proxy:3128",
        "socks5://proxy:1080",
        "socks5h://proxy:1080",
        "socks4a://u:hunter2@proxy:1080",
        "env",
        "u:hunter2@proxy",
        "http://u:hunter2%zz@proxy:3128",
        "http://u:hunter2/@proxy:3128",
        "proxy:3128,proxy:3129",
        "http=proxy:3128;https=proxy:3128",
    ] {
        for (name, url) in [
            ("https_proxy", "https://arctos.bank.example"),
            ("HTTPS_PROXY", "https://arctos.bank.example"),
            ("http_proxy", "http://arctos.bank.example"),
            ("HTTP_PROXY", "http://arctos.bank.example"),
        ] {
            let told = processes.client(&env(url), &[(name, value)]);
            let problem = told.problem();
            assert!(problem.contains(name), "{name}={value}: {problem}");
            assert!(!told.text.contains("hunter2"), "{name}={value}: {}", told.text);
        }
    }
}

#[test]
fn an_exception_that_cannot_be_understood_is_refused() {
    let processes = Processes::new();
    for wrong in [
        "10.0.0.0/99",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "10.0.0.0/",
        "10.0.0.0/255.0.0.0",
        "10.0.0/8",
        "300.0.0.0/8",
        "2001:db8::/129",
        "2001:db8::/x",
        "bank.example/8",
        "http://bank.example",
        "bank example",
        "bank.example;other.example",
        "bank.example:",
        "bank.example:0",
        "bank.example:65536",
        "bank.example:x",
        "10.*",
        "1.2.3",
        "ba*k.example",
        "[2001:db8::7",
        "[bank.example]",
        "預約.example",
        ".",
    ] {
        for name in ["no_proxy", "NO_PROXY"] {
            // Whatever else the list holds: another entry that names the server does not hide it.
            for list in [wrong.to_owned(), format!("arctos.bank.example,{wrong}"), format!("*, {wrong} ,x.example")] {
                let told =
                    processes.client(&env("https://arctos.bank.example"), &[("HTTPS_PROXY", DEAD), (name, &list)]);
                let problem = told.problem();
                assert!(problem.contains(name), "{list}: {problem}");
            }
        }
    }
}

#[test]
fn what_is_no_text_is_refused() {
    let processes = Processes::new();
    let strange = OsString::from_vec(b"http://u:hunter2\xff@proxy:3128".to_vec());
    for (names, wrong) in [(["HTTPS_PROXY", "NO_PROXY"], "HTTPS_PROXY"), (["NO_PROXY", "HTTPS_PROXY"], "NO_PROXY")] {
        let dead = OsString::from(DEAD);
        let told =
            processes.run(&env("https://arctos.bank.example"), &[(names[0], &strange), (names[1], &dead)], false, &[]);
        let problem = told.problem();
        assert!(problem.contains(wrong), "{problem}");
        assert!(!told.text.contains("hunter2"), "{}", told.text);
    }
}

/// A server and a proxy that leads to it.
struct Behind {
    proxy: Proxy,
    server: Server,
    authority: Authority,
    /// The variable for this scheme, in both spellings.
    names: [&'static str; 2],
}

impl Behind {
    fn new(scheme: Scheme) -> Behind {
        let authority = Authority::new();
        let (tls, names) = match scheme {
            Scheme::Http => (None, ["http_proxy", "HTTP_PROXY"]),
            Scheme::Https(version) => {
                (Some(authority.server(Identity::right(version))), ["https_proxy", "HTTPS_PROXY"])
            }
        };
        let server = Server::start("127.0.0.1", tls);
        server.always(Script::served().close());
        Behind { proxy: Proxy::to(server.address()), server, authority, names }
    }

    fn config(&self, keys: Value) -> Value {
        with(config_tls(&self.server.base_url(), &self.authority), keys)
    }

    /// How many appointments were made by now, and how many tunnels there were.
    fn made(&self) -> (u32, usize) {
        self.server.settle(0).unwrap();
        (self.server.ledger().made("ENV-1"), self.proxy.settle().unwrap().len())
    }
}

const SCHEMES: [Scheme; 2] = [Scheme::Http, Scheme::Https(Version::Tls13)];

#[track_caller]
fn succeeded(told: &Told) {
    let call = told.call.as_ref().expect("a call");
    assert_eq!(call.code, OK, "{}", call.text);
}

#[test]
fn a_call_goes_where_the_environment_says() {
    let processes = Processes::new();
    for scheme in SCHEMES {
        let behind = Behind::new(scheme);
        let config = behind.config(json!({ "proxy": "env" }));
        let with_password = behind.proxy.url_with("branch:hunter2%40");
        for (index, name) in behind.names.into_iter().enumerate() {
            let told = processes.call(&config, &[(name, &with_password)], &[]);
            succeeded(&told);
            let tunnels = behind.proxy.settle().unwrap();
            assert_eq!(tunnels.len(), index + 1, "{name}");
            assert_eq!(tunnels[index].connect().credentials().as_deref(), Some("branch:hunter2@"));
            let shown = format!("http://branch:***@{}", behind.proxy.address());
            assert_eq!(told.proxy(), Some(shown));
        }
        let direct = [(behind.names[0], DEAD), ("NO_PROXY", "10.0.0.0/8, 127.0.0.0/8")];
        succeeded(&processes.call(&config, &direct, &[]));
        assert_eq!(behind.made(), (3, 2));
        // Nothing is sent past a proxy that is not there.
        let told = processes.call(&config, &[(behind.names[0], DEAD), ("NO_PROXY", "10.0.0.0/8")], &[]);
        let call = told.call.expect("a call");
        assert_eq!((call.code, call.outcome), (CONNECT, NOT_CREATED), "{}", call.text);
        assert!(call.text.contains("127.0.0.1:1"), "{}", call.text);
        assert_eq!(behind.made(), (3, 2));
    }
}

#[test]
fn the_environment_is_read_when_the_client_is_made() {
    let processes = Processes::new();
    for scheme in SCHEMES {
        let behind = Behind::new(scheme);
        let config = behind.config(json!({ "proxy": "env" }));
        let [lower, upper] = behind.names;
        let proxy = behind.proxy.url();
        succeeded(&processes.call(&config, &[(upper, &proxy)], &[(lower, DEAD), (upper, DEAD)]));
        succeeded(&processes.call(&config, &[(upper, &proxy)], &[("no_proxy", "*"), ("NO_PROXY", "*")]));
        assert_eq!(behind.made(), (2, 2));
        succeeded(&processes.call(&config, &[], &[(lower, DEAD), (upper, DEAD)]));
        let past = [(upper, DEAD), ("no_proxy", "127.0.0.1")];
        succeeded(&processes.call(&config, &past, &[("no_proxy", "other.example")]));
        assert_eq!(behind.made(), (4, 2));
    }
}

#[test]
fn without_the_word_the_environment_is_not_read() {
    let processes = Processes::new();
    for scheme in SCHEMES {
        let behind = Behind::new(scheme);
        for value in [DEAD, "nonsense", "socks5://u:hunter2@proxy:1080"] {
            let all =
                VARIABLES.map(|name| (name, if name.eq_ignore_ascii_case("no_proxy") { "10.0.0.0/99" } else { value }));
            let told = processes.call(&behind.config(json!({})), &all, &all);
            succeeded(&told);
            assert_eq!(told.proxy(), None);
        }
        assert_eq!(behind.made(), (3, 0));
        // A proxy of the configuration is used whatever NO_PROXY says.
        let all = VARIABLES.map(|name| (name, if name.eq_ignore_ascii_case("no_proxy") { "*" } else { DEAD }));
        let told = processes.call(&behind.config(json!({ "proxy": behind.proxy.url() })), &all, &all);
        succeeded(&told);
        assert_eq!((told.proxy(), behind.made()), (Some(behind.proxy.url()), (4, 1)));
    }
}
