//! A client with a proxy: what the proxy is asked and what it never gets to see, what is said of it when it opens no
//! way, and that nothing else about a call changes.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use arctos_tests::api::{
    BAD_CONFIG, BROKEN, CONNECT, NOT_CREATED, OK, Owned, Reply, TIMEOUT, TLS, UNKNOWN, arctos, client_new, task,
};
use arctos_tests::deadline::{Cancel, FullQueue, Launcher, Phase, Phases, Round, Scheme};
use arctos_tests::expected::{
    BROKEN_UNKNOWN, CONNECT_NOT_CREATED, Expected, FORBIDDEN_NOT_CREATED, MADE, REJECTED_NOT_CREATED,
    SERVER_ERROR_UNKNOWN, TIMEOUT_NOT_CREATED,
};
use arctos_tests::http::{Framing, answer, find, head, success};
use arctos_tests::ledger::truth;
use arctos_tests::proxy::{self, ESTABLISHED, Proxy};
use arctos_tests::server::{Script, Server, Step};
use arctos_tests::stage::{Calls, Stage, TOKEN, Table, config, config_tls, with};
use arctos_tests::tls::{Authority, Flaw, Identity, Version};
use arctos_tests::tools::{Host, Talker};
use serde_json::{Value, json};

/// The server's name, which nobody but the proxy can find.
const NAME: &str = "arctos.bank.example";

const HTTPS: Scheme = Scheme::Https(Version::Tls13);

/// As it stands in the configuration, and in the head of CONNECT; and what may stand in no text.
const PASSWORD: &str = "hunter2%40marker%3A%2Fx";
const DECODED: &str = "hunter2@marker:/x";
const MARKER: &str = "hunter2";
/// The user's part of what travels to the proxy, in base64.
const ENCODED: &str = "YnJhbmNo";

/// A client, its proxy, and the server behind it.
struct Behind {
    client: Owned,
    proxy: Proxy,
    server: Server,
    authority: Authority,
}

impl Behind {
    fn new(scheme: Scheme, keys: Value) -> Behind {
        let version = if let Scheme::Https(version) = scheme { version } else { Version::Tls13 };
        Behind::with_identity(scheme, Identity { names: &[NAME], ..Identity::right(version) }, keys)
    }

    fn with_identity(scheme: Scheme, identity: Identity, keys: Value) -> Behind {
        let authority = Authority::new();
        let tls = (scheme != Scheme::Http).then(|| authority.server(identity));
        let server = Server::start("127.0.0.1", tls);
        let proxy = Proxy::to(server.address());
        let config = configured(&server, &authority, &proxy.url_with(&format!("branch:{PASSWORD}")));
        Behind { client: Owned::new(&with(config, keys)), proxy, server, authority }
    }

    /// Host and port of the server, as the client knows it.
    fn host(&self) -> String {
        format!("{NAME}:{}", self.server.address().port())
    }

    /// One call, each of whose tries the proxy spoils by the next of these scripts: nothing of it reaches the server
    /// or is shown to the proxy, and what the library says names both.
    fn spoiled(&self, expected: Expected, scripts: Vec<proxy::Script>) -> Result<Reply, String> {
        let (before, tries) = (self.proxy.connections(), scripts.len());
        scripts.into_iter().for_each(|script| self.proxy.next(script));
        let reply = self.client.add(&task("SPOILED"));
        // One that the client has given up may still wait to be taken.
        self.proxy.await_connections(before + tries).map_err(|wrong| format!("{wrong}: {reply:?}"))?;
        self.proxy.release();
        let seen = self.proxy.settle()?.split_off(before);
        let wrong = |what: String| Err(format!("{what}\n  expected {expected:?}\n  {reply:?}"));
        if seen.len() != tries {
            return wrong(format!("{} connections instead of {tries}", seen.len()));
        }
        if self.server.connections() > 0 {
            return wrong("the server was reached".to_owned());
        }
        for seen in &seen {
            if let Some(text) = secret_in(&seen.bytes) {
                return wrong(format!("the proxy was shown {text}"));
            }
        }
        let said = named(&reply, expected, &self.host(), &self.proxy.address().to_string());
        let attempts = reply.json()["attempts"].clone();
        match said {
            Ok(()) if attempts != tries => wrong(format!("{attempts} attempts")),
            Ok(()) => truth(&reply, 0, &[]).map(|()| reply),
            Err(what) => wrong(what),
        }
    }
}

/// A client of this server, which is known by its name alone.
fn configured(server: &Server, authority: &Authority, proxy: &str) -> Value {
    let keys = json!({ "allow_http": true, "proxy": proxy });
    with(config_tls(&server.base_url_as(NAME), authority), keys)
}

/// What only the server may see, if it is there.
fn secret_in(bytes: &[u8]) -> Option<&'static str> {
    let secrets = [TOKEN, "Bearer", "POST", "/api/", "business_id", "out_task_num"];
    secrets.into_iter().find(|text| find(bytes, text.as_bytes()).is_some())
}

/// Whether a failure that is the proxy's says so: which proxy, on the way to which server, and not its password.
fn named(reply: &Reply, expected: Expected, host: &str, proxy: &str) -> Result<(), String> {
    if (reply.code, reply.outcome) != (expected.code, expected.outcome) {
        return Err("another code or outcome".to_owned());
    }
    let document = reply.json();
    if (&document["host"], &document["proxy"]) != (&json!(host), &json!(proxy)) {
        return Err("another host or proxy".to_owned());
    }
    let message = document["message"].as_str().unwrap_or_default();
    if !message.contains("proxy") || !message.contains(proxy) {
        return Err(format!("the message does not say that it was the proxy {proxy}"));
    }
    untold(reply)
}

/// Whether a text holds no part of the password, plain or as the proxy gets it.
fn untold(reply: &Reply) -> Result<(), String> {
    let text = reply.text.as_deref().unwrap_or_default();
    match [MARKER, ENCODED, TOKEN].iter().any(|secret| text.contains(secret)) {
        true => Err("a secret is told".to_owned()),
        false => Ok(()),
    }
}

/// A head of CONNECT must have these headers and no others.
#[track_caller]
fn asked(connect: &proxy::Connect, target: &str, credentials: Option<&str>) {
    assert_eq!(connect.line, format!("CONNECT {target} HTTP/1.1"));
    assert_eq!(connect.header("Host"), Some(target));
    let agent = connect.header("User-Agent").expect("a program says which it is");
    assert!(agent.contains("arctos/"), "{agent}");
    assert_eq!(connect.credentials().as_deref(), credentials);
    assert_eq!(connect.headers.len(), 2 + usize::from(credentials.is_some()), "{connect:?}");
}

#[test]
fn the_proxy_is_asked_for_the_server() {
    const NAMES: &[&str] = &[NAME, "127.0.0.1", "192.0.2.7", "::1", "2001:db8::7"];
    for scheme in Scheme::ALL {
        for (host, port) in [
            (NAME, Some(8443)),
            (NAME, None),
            ("127.0.0.1", Some(7)),
            ("192.0.2.7", None),
            ("[::1]", None),
            ("[2001:db8::7]", Some(65535)),
        ] {
            let authority = Authority::new();
            let (word, default, tls) = match scheme {
                Scheme::Http => ("http", 80, None),
                Scheme::Https(version) => {
                    let identity = Identity { names: NAMES, ..Identity::right(version) };
                    ("https", 443, Some(authority.server(identity)))
                }
            };
            let server = Server::start("127.0.0.1", tls);
            server.next(Script::served().close());
            let proxy = Proxy::to(server.address());
            let place = port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
            let config = config_tls(&format!("{word}://{place}"), &authority);
            let client = Owned::new(&with(config, json!({ "allow_http": true, "proxy": proxy.url() })));
            assert_eq!(client.add(&task("A-1")).code, OK, "{scheme:?} {place}");
            drop(client);
            let seen = proxy.settle().unwrap();
            let [one] = seen.as_slice() else { panic!("{} connections", seen.len()) };
            asked(one.connect(), &format!("{host}:{}", port.unwrap_or(default)), None);
            let requests = server.settle(0).unwrap();
            let request = requests[0].requests().next().expect("the request");
            // What goes through the tunnel is what goes without one.
            assert!(request.line.starts_with("POST /api/task/do_add "), "{}", request.line);
            assert_eq!(request.header("Authorization"), Some(&*format!("Bearer {TOKEN}")));
            assert_eq!(request.header("Host").map(|host| host.trim_end_matches(":443")), Some(&*place));
            assert!(!request.headers.iter().any(|(name, _)| name.to_ascii_lowercase().starts_with("proxy")));
        }
    }
}

#[test]
fn the_proxy_may_have_an_address_of_ip_6() {
    let server = Server::plain();
    server.next(Script::served().close());
    let proxy = Proxy::start("::1", server.address());
    let client = Owned::new(&configured(&server, &Authority::new(), &proxy.url()));
    assert_eq!(client.add(&task("A-1")).code, OK);
    drop(client);
    assert_eq!(proxy.settle().unwrap().len(), 1);
}

#[test]
fn user_and_password_are_decoded_and_sent() {
    for (written, sent) in [
        ("branch:secret", "branch:secret"),
        ("branch:", "branch:"),
        ("branch", "branch:"),
        (":secret", ":secret"),
        ("us%65r:p%40ss%3aword%2F%3F%23%25", "user:p@ss:word/?#%"),
        ("user:a:b", "user:a:b"),
        ("u+s:p+w", "u+s:p+w"),
        ("%E9%A0%90%E7%B4%84:%C3%A9", "預約:é"),
        (&format!("branch:{PASSWORD}"), &format!("branch:{DECODED}")),
        (&format!("branch:{}", "x".repeat(1000)), &format!("branch:{}", "x".repeat(1000))),
    ] {
        let server = Server::plain();
        server.next(Script::served().close());
        let proxy = Proxy::to(server.address());
        let client = Owned::new(&configured(&server, &Authority::new(), &proxy.url_with(written)));
        assert_eq!(client.add(&task("A-1")).code, OK, "{written}");
        drop(client);
        let target = format!("{NAME}:{}", server.address().port());
        asked(proxy.settle().unwrap()[0].connect(), &target, Some(sent));
    }
}

#[test]
fn the_proxy_of_an_https_server_sees_nothing_of_the_request() {
    for version in [Version::Tls12, Version::Tls13] {
        let behind = Behind::new(Scheme::Https(version), json!({ "idle_timeout_ms": 60_000 }));
        behind
            .server
            .next(Script::served().and(Script::request().send(head("403 No", &["Content-Length: 0"]))).close());
        assert_eq!(behind.client.add(&task("A-1")).code, OK);
        let refused = behind.client.call("/api/task/other", r#"{"business_id":1}"#);
        assert_eq!((refused.code, refused.outcome), (FORBIDDEN_NOT_CREATED.code, FORBIDDEN_NOT_CREATED.outcome));
        let Behind { client, proxy, server, .. } = behind;
        drop(client);
        let seen = proxy.settle().unwrap();
        assert_eq!(seen.len(), 1);
        assert!(seen[0].behind().len() > 500, "the tunnel carried {} bytes", seen[0].behind().len());
        assert_eq!(secret_in(&seen[0].bytes), None);
        drop((proxy, server));
    }
}

#[test]
fn over_http_the_head_of_connect_holds_nothing_of_the_request() {
    let behind = Behind::new(Scheme::Http, json!({}));
    behind.server.next(Script::served().close());
    assert_eq!(behind.client.add(&task("A-1")).code, OK);
    let seen = behind.proxy.settle().unwrap();
    assert_eq!(secret_in(&seen[0].bytes[..seen[0].head]), None);
    // The server is asked through the tunnel, as over https.
    assert!(seen[0].behind().starts_with(b"POST /api/task/do_add HTTP/1.1\r\n"));
    assert_eq!(find(seen[0].behind(), b"roxy"), None);
}

/// The problem of the only key that is wrong.
#[track_caller]
fn refused(config: &Value) -> (Reply, String) {
    let (client, reply) = client_new(&config.to_string());
    assert!(client.is_none(), "{config}: {reply:?}");
    assert_eq!(reply.code, BAD_CONFIG, "{config}: {reply:?}");
    assert_eq!(reply.problem_fields(), ["proxy"], "{config}");
    let problem = reply.json()["problems"][0]["problem"].as_str().expect("a problem").to_owned();
    (reply, problem)
}

#[test]
fn a_proxy_that_cannot_be_understood_is_refused() {
    for setting in [
        json!(null),
        json!(3128),
        json!(true),
        json!([]),
        json!({}),
        json!(""),
        json!(" "),
        json!("direct"),
        json!("Env"),
        json!("ENV"),
        json!(" env"),
        json!("proxy"),
        json!("proxy:3128"),
        json!("127.0.0.1:3128"),
        json!("//proxy:3128"),
        json!("http:proxy:3128"),
        json!("http:/proxy:3128"),
        json!("https://proxy:3128"),
        json!("socks5://proxy:1080"),
        json!("socks5h://u:hunter2@proxy:1080"),
        json!("ftp://proxy:3128"),
        json!("http://"),
        json!("http://proxy"),
        json!("http://proxy:"),
        json!("http://proxy:0"),
        json!("http://proxy:65536"),
        json!("http://proxy:-1"),
        json!("http://proxy:+80"),
        json!("http://proxy: 80"),
        json!("http://proxy:80x"),
        json!("http://proxy:80:80"),
        json!("http://:3128"),
        json!("http:// :3128"),
        json!("http://pro xy:3128"),
        json!("http://pro\u{0}xy:3128"),
        json!("http://proxy:3128\n"),
        json!("http://proxy\r\nX: y:3128"),
        json!(" http://proxy:3128"),
        json!("http://proxy:3128/path"),
        json!("http://proxy:3128//"),
        json!("http://proxy:3128?a=b"),
        json!("http://proxy:3128#a"),
        json!("http://::1:3128"),
        json!("http://[::1]"),
        json!("http://[::1:3128"),
        json!("http://[proxy]:3128"),
        json!("http://[::1]x:3128"),
        json!("http://預約:3128"),
        json!("http://branch:hunter2@"),
        json!("http://branch:hunter2@:3128"),
        json!("http://branch:hunter2@proxy"),
        json!("http://branch:hunter2/x@proxy:3128"),
        json!("http://branch:hunter2?x@proxy:3128"),
        json!("http://branch:hunter2#x@proxy:3128"),
        json!("http://branch:hunter2%@proxy:3128"),
        json!("http://branch:hunter2%4@proxy:3128"),
        json!("http://branch:hunter2%zz@proxy:3128"),
        json!("http://branch:hunter2%+4@proxy:3128"),
        json!("http://branch:hunter2%FF@proxy:3128"),
        json!("http://branch:hunter2%0d%0aX-Y:%20z@proxy:3128"),
        json!("http://branch:hunter2%00@proxy:3128"),
        json!("http://bra%3Anch:hunter2@proxy:3128"),
        json!(format!("http://branch:hunter2{}@proxy:3128", "x".repeat(100_000))),
    ] {
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://127.0.0.1:1");
            let (reply, problem) = refused(&with(config(&url), json!({ "proxy": setting })));
            assert!(!reply.text().contains(MARKER), "{setting}: {reply:?}");
            assert!(problem.len() < 300, "{setting}: {problem}");
        }
    }
}

#[test]
fn the_configuration_in_force_shows_the_proxy_and_not_its_password() {
    for (given, shown) in [
        ("http://proxy.bank.example:3128", "http://proxy.bank.example:3128"),
        ("http://10.1.2.3:8080/", "http://10.1.2.3:8080"),
        ("http://[2001:db8::1]:3128", "http://[2001:db8::1]:3128"),
        ("http://branch:hunter2@proxy:3128", "http://branch:***@proxy:3128"),
        ("http://branch:@proxy:3128", "http://branch:***@proxy:3128"),
        ("http://bra%40nch:hunter2%40x@proxy:3128/", "http://bra%40nch:***@proxy:3128"),
    ] {
        let (client, reply) = client_new(&with(config("https://127.0.0.1:1"), json!({ "proxy": given })).to_string());
        assert!(client.is_some(), "{given}: {reply:?}");
        assert_eq!(reply.json()["proxy"], shown);
        untold(&reply).unwrap();
    }
    let (_client, reply) = client_new(&config("https://127.0.0.1:1").to_string());
    assert_eq!(reply.json().get("proxy"), None, "no proxy is in force: {reply:?}");
}

/// The refusals that no other try would change.
const FINAL: [&str; 16] = [
    "300 Multiple Choices",
    "302 Found",
    "400 Bad Request",
    "401 Unauthorized",
    "403 Forbidden",
    "404 Not Found",
    "405 Method Not Allowed",
    "407 Proxy Authentication Required",
    "408 Request Timeout",
    "410 Gone",
    "418 I'm a teapot",
    "451 Unavailable For Legal Reasons",
    "500 Internal Server Error",
    "501 Not Implemented",
    "505 HTTP Version Not Supported",
    "511 Network Authentication Required",
];

/// Those of a moment.
const PASSING: [&str; 4] =
    ["429 Too Many Requests", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"];

/// A page as proxies send it with a refusal.
fn refusal(status: &str) -> proxy::Script {
    let page = b"<html><body>Access denied</body></html>";
    let length = format!("Content-Length: {}", page.len());
    let headers = ["Content-Type: text/html", "Proxy-Authenticate: Basic realm=\"proxy\"", &length];
    proxy::Script::head().send([&head(status, &headers)[..], page].concat()).fin()
}

#[test]
fn a_refusal_is_final_and_says_whose_it_was() {
    let mut table = Table::new();
    for scheme in [Scheme::Http, HTTPS] {
        let behind = Behind::new(scheme, json!({ "retries": 2 }));
        for status in FINAL {
            let result = behind.spoiled(CONNECT_NOT_CREATED, vec![refusal(status)]);
            let Some(reply) = table.take(result.map_err(|wrong| format!("{status}: {wrong}"))) else { continue };
            let message = reply.json()["message"].as_str().expect("a message").to_owned();
            let status = &status[..3];
            table.take(if message.contains(status) { Ok(()) } else { Err(format!("{status} is not told: {message}")) });
            // It is the proxy's, and no answer of the server.
            for key in ["http_status", "server_message", "server_body"] {
                table.take(match reply.json().get(key) {
                    None => Ok(()),
                    Some(value) => Err(format!("{status}: {key} {value}")),
                });
            }
        }
    }
    table.finish();
}

#[test]
fn a_refused_log_in_says_what_to_set() {
    for (credentials, why) in
        [("", "asks for a user and a password"), ("branch:hunter2@", "refused the user and password")]
    {
        let server = Server::plain();
        let proxy = Proxy::to(server.address());
        let setting = format!("http://{credentials}{}", proxy.address());
        let client = Owned::new(&with(configured(&server, &Authority::new(), &setting), json!({ "retries": 2 })));
        proxy.next(refusal("407 Proxy Authentication Required"));
        let reply = client.add(&task("A-1"));
        named(
            &reply,
            CONNECT_NOT_CREATED,
            &format!("{NAME}:{}", server.address().port()),
            &proxy.address().to_string(),
        )
        .unwrap_or_else(|wrong| panic!("{wrong}: {reply:?}"));
        let message = reply.json()["message"].as_str().expect("a message").to_owned();
        assert!(message.contains(why) && message.contains("407"), "{message}");
        assert_eq!(reply.json()["attempts"], 1);
        assert_eq!(proxy.settle().unwrap().len(), 1);
    }
}

#[test]
fn what_may_pass_is_tried_again() {
    let mut table = Table::new();
    for scheme in [Scheme::Http, HTTPS] {
        for retries in [0, 2] {
            let behind = Behind::new(scheme, json!({ "retries": retries }));
            for status in PASSING {
                let scripts = vec![refusal(status); retries + 1];
                let result = behind.spoiled(CONNECT_NOT_CREATED, scripts);
                table.take(result.map_err(|wrong| format!("{status}, {retries} retries: {wrong}")));
            }
        }
    }
    table.finish();
}

#[test]
fn a_proxy_is_asked_again_no_sooner_than_it_says() {
    let busy = || proxy::Script::head().send(head("503 Service Unavailable", &["retry-AFTER: 1", "Content-Length: 0"]));
    for retries in [0, 1] {
        let behind = Behind::new(HTTPS, json!({ "retries": retries }));
        if retries > 0 {
            behind.server.next(Script::served().close());
        }
        behind.proxy.next(busy().fin());
        let begun = Instant::now();
        let reply = behind.client.add(&task("A-1"));
        if retries == 0 {
            assert_eq!((reply.code, reply.outcome), (CONNECT_NOT_CREATED.code, NOT_CREATED), "{reply:?}");
            assert_eq!(reply.json()["retry_after_ms"], 1000, "{reply:?}");
        } else {
            assert_eq!((reply.code, reply.outcome), (MADE.code, MADE.outcome), "{reply:?}");
            assert!(begun.elapsed() >= Duration::from_secs(1), "it was asked again at once");
        }
    }
    // What is final is not asked again at any time.
    let behind = Behind::new(HTTPS, json!({ "retries": 1 }));
    let never = head("403 Forbidden", &["Retry-After: 1", "Content-Length: 0"]);
    behind.proxy.next(proxy::Script::head().send(never).fin());
    let reply = behind.client.add(&task("A-2"));
    assert_eq!((&reply.json()["attempts"], reply.json().get("retry_after_ms")), (&json!(1), None), "{reply:?}");
}

#[test]
fn a_proxy_that_has_recovered_lets_the_call_through() {
    for scheme in Scheme::ALL {
        let behind = Behind::new(scheme, json!({ "retries": 3 }));
        behind.server.next(Script::served().close());
        for script in
            [refusal(PASSING[1]), proxy::Script::head().fin(), proxy::Script::head().reset(), proxy::Script::tunnel()]
        {
            behind.proxy.next(script);
        }
        let reply = behind.client.add(&task("A-1"));
        assert_eq!((reply.code, reply.outcome), (MADE.code, MADE.outcome), "{scheme:?}: {reply:?}");
        assert_eq!(behind.proxy.settle().unwrap().len(), 4);
        assert_eq!(behind.server.ledger().made("A-1"), 1);
    }
}

/// What is no answer to CONNECT.
fn garbage() -> BTreeMap<&'static str, Vec<u8>> {
    BTreeMap::from([
        ("a terminal", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("a mail server", b"220 mail.bank.example ESMTP\r\n\r\n".to_vec()),
        ("a page", b"<!DOCTYPE html><html></html>\r\n\r\n".to_vec()),
        ("noughts", vec![0; 64]),
        ("TLS", b"\x15\x03\x03\x00\x02\x02\x46".to_vec()),
        ("no status", b"HTTP/1.1\r\n\r\n".to_vec()),
        ("a status of two digits", b"HTTP/1.1 20 OK\r\n\r\n".to_vec()),
        ("a status of four digits", b"HTTP/1.1 2000 OK\r\n\r\n".to_vec()),
        ("a status of letters", b"HTTP/1.1 OK\r\n\r\n".to_vec()),
        ("another protocol", b"ICY 200 OK\r\n\r\n".to_vec()),
        ("a later version", b"HTTP/2 200\r\n\r\n".to_vec()),
        ("empty lines", b"\r\n".repeat(100)),
    ])
}

#[test]
fn a_proxy_that_breaks_the_rules_opens_no_way() {
    let mut table = Table::new();
    for scheme in [Scheme::Http, HTTPS] {
        let behind = Behind::new(scheme, json!({}));
        let mut case = |case: &str, script: proxy::Script| {
            let result = behind.spoiled(CONNECT_NOT_CREATED, vec![script]);
            table.take(result.map_err(|wrong| format!("{scheme:?}, {case}: {wrong}")));
        };
        use proxy::Script as Way;
        case("closes at once", Way::silent().fin());
        case("closes in the middle of CONNECT", Way::silent().then(proxy::Step::Read(9)).fin());
        case("closes after CONNECT", Way::head().fin());
        case("resets at once", Way::silent().reset());
        case("resets in the middle of CONNECT", Way::silent().then(proxy::Step::Read(9)).reset());
        case("resets after CONNECT", Way::head().reset());
        for (name, bytes) in garbage() {
            case(&format!("{name}, at once"), Way::silent().send(&*bytes).fin());
            case(&format!("{name}, after CONNECT"), Way::head().send(&*bytes).fin());
            case(&format!("{name}, by a reset"), Way::head().send(&*bytes).reset());
        }
        for count in [1, 8, 12, ESTABLISHED.len() - 2, ESTABLISHED.len() - 1] {
            case(&format!("closes after {count} bytes"), Way::head().send(&ESTABLISHED[..count]).fin());
            case(&format!("resets after {count} bytes"), Way::head().send(&ESTABLISHED[..count]).reset());
        }
        case("a head without an end", Way::head().send("HTTP/1.1 200 OK\r\n").then(flood(b"X-Filler: filler\r\n")));
        case("a line without an end", Way::head().send("HTTP/1.1 200 ").then(flood(b"O")));
        case("switches protocols", Way::head().send(head("101 Switching Protocols", &["Upgrade: x"])).fin());
    }
    table.finish();
}

fn flood(bytes: &[u8]) -> proxy::Step {
    proxy::Step::Flood(bytes.repeat(1000))
}

/// All spellings of a head that opens the way.
fn openings() -> Vec<(&'static str, proxy::Script)> {
    use proxy::Script as Way;
    let send = |status: &str, headers: &[&str]| Way::head().send(head(status, headers));
    let slowly = |size, pause| Way::head().then(proxy::Step::Pieces(ESTABLISHED.to_vec(), size, pause));
    let filler = format!("X-Filler: {}", "x".repeat(9_000));
    vec![
        ("HTTP/1.0", Way::head().send("HTTP/1.0 200 Connection established\r\nProxy-agent: tinyproxy/1.11.1\r\n\r\n")),
        ("no reason", Way::head().send("HTTP/1.1 200\r\n\r\n")),
        ("an empty reason", Way::head().send("HTTP/1.1 200 \r\n\r\n")),
        ("another success", send("201 Created", &[])),
        ("no content", send("204 No Content", &[])),
        ("a length of a body that is none", send("200 OK", &["Content-Length: 5"])),
        ("a length of 0", send("200 OK", &["Content-Length: 0"])),
        ("chunks that are none", send("200 OK", &["Transfer-Encoding: chunked"])),
        ("an end that is none", send("200 OK", &["Connection: close", "Proxy-Connection: close"])),
        ("a long head", send("200 OK", &[&filler])),
        ("one byte at a time", slowly(1, Duration::from_millis(2))),
        ("two pieces", slowly(ESTABLISHED.len() - 1, Duration::from_millis(20))),
        ("an interim answer", Way::head().send([&head("100 Continue", &[])[..], ESTABLISHED].concat())),
        ("two interim answers", Way::head().send(head("103 Early Hints", &["Link: x"]).repeat(2)).send(ESTABLISHED)),
    ]
}

#[test]
fn every_head_that_opens_the_way_does() {
    for scheme in Scheme::ALL {
        for (case, opening) in openings() {
            let behind = Behind::new(scheme, json!({}));
            behind.server.next(Script::served().close());
            behind.proxy.next(opening.then(proxy::Step::Tunnel));
            let reply = behind.client.add(&task("A-1"));
            assert_eq!((reply.code, reply.outcome), (MADE.code, MADE.outcome), "{scheme:?}, {case}: {reply:?}");
            assert_eq!(reply.json()["info"]["task_num"], "T-A-1", "{case}");
            assert_eq!(behind.server.ledger().made("A-1"), 1);
        }
    }
}

#[test]
fn bytes_behind_the_head_are_not_the_servers() {
    for scheme in Scheme::ALL {
        for (case, bytes) in [
            ("a success", success("FORGED")),
            ("a refusal", head("403 Forbidden", &["Content-Length: 0"])),
            ("one byte", b"H".to_vec()),
            ("an alert of TLS", b"\x15\x03\x03\x00\x02\x02\x28".to_vec()),
            ("more than a piece", vec![b'x'; 50_000]),
        ] {
            for headers in [&[][..], &["Content-Length: 5"], &["Transfer-Encoding: chunked"]] {
                let behind = Behind::new(scheme, json!({}));
                let whole = [&head("200 OK", headers)[..], &bytes].concat();
                let reply = behind.spoiled(CONNECT_NOT_CREATED, vec![proxy::Script::head().send(whole)]);
                reply.unwrap_or_else(|wrong| panic!("{scheme:?}, {case}, {headers:?}: {wrong}"));
            }
        }
    }
}

#[test]
fn an_end_behind_the_head_opens_no_way() {
    for scheme in Scheme::ALL {
        for script in [proxy::Script::established().fin(), proxy::Script::established().reset()] {
            let behind = Behind::new(scheme, json!({}));
            behind.proxy.next(script.clone());
            let reply = behind.client.add(&task("A-1"));
            // Over http the end may come before the request, during it, or when it had gone out.
            let case = format!("{scheme:?}, {script:?}: {reply:?}");
            match (reply.code, reply.outcome) {
                (CONNECT, NOT_CREATED) => {}
                (BROKEN, NOT_CREATED | UNKNOWN) if scheme == Scheme::Http => {}
                _ => panic!("{case}"),
            }
            assert_eq!(behind.server.connections(), 0, "{case}");
            untold(&reply).unwrap();
        }
    }
}

#[test]
fn a_proxy_that_ends_during_the_handshake_opened_no_way() {
    use proxy::Script as Way;
    for version in [Version::Tls12, Version::Tls13] {
        for (case, script) in [
            ("closes after the first flight began", Way::established().then(proxy::Step::Read(5)).fin()),
            ("resets after the first flight began", Way::established().then(proxy::Step::Read(5)).reset()),
        ] {
            let behind = Behind::new(Scheme::Https(version), json!({ "retries": 2 }));
            // Another try may pass.
            let (reply, seen) = {
                (0..3).for_each(|_| behind.proxy.next(script.clone()));
                (behind.client.add(&task("A-1")), behind.proxy.settle().unwrap())
            };
            assert_eq!((reply.code, reply.outcome), (CONNECT, NOT_CREATED), "{case}: {reply:?}");
            assert_eq!((reply.json()["attempts"].as_u64(), seen.len()), (Some(3), 3), "{case}");
            assert_eq!(reply.json()["host"], behind.host(), "{case}");
            assert!(seen.iter().all(|seen| secret_in(&seen.bytes).is_none()), "{case}");
            assert_eq!(behind.server.connections(), 0, "{case}");
        }
    }
}

#[test]
fn a_certificate_is_checked_behind_a_proxy() {
    for version in [Version::Tls12, Version::Tls13] {
        let right = Identity { names: &[NAME], ..Identity::right(version) };
        let another = Identity { names: &["proxy.bank.example", "127.0.0.1"], ..right };
        for (case, identity, why) in [
            ("another name", another, "for another host name"),
            ("expired", right.with(Flaw::Expired), "expired"),
            ("signed by itself", right.with(Flaw::SelfSigned), "not trusted"),
        ] {
            let behind = Behind::with_identity(Scheme::Https(version), identity, json!({ "retries": 2 }));
            behind.server.next(Script::request());
            let reply = behind.client.add(&task("A-1"));
            assert_eq!((reply.code, reply.outcome), (TLS, NOT_CREATED), "{case}: {reply:?}");
            let (document, host) = (reply.json(), behind.host());
            assert_eq!((&document["attempts"], &document["host"]), (&json!(1), &json!(host)), "{case}");
            let message = document["message"].as_str().expect("a message");
            assert!(message.contains(&host) && message.contains(why), "{case}: {message}");
            untold(&reply).unwrap();
            let seen = behind.server.settle(0).unwrap();
            assert_eq!((seen.len(), seen[0].request_bytes()), (1, 0), "{case}");
            assert!(behind.proxy.settle().unwrap().iter().all(|seen| secret_in(&seen.bytes).is_none()), "{case}");
        }
    }
}

#[test]
fn what_the_server_says_is_the_servers() {
    for scheme in [Scheme::Http, HTTPS] {
        for (status, expected) in [
            ("407 Proxy Authentication Required", REJECTED_NOT_CREATED),
            ("403 Forbidden", FORBIDDEN_NOT_CREATED),
            ("502 Bad Gateway", SERVER_ERROR_UNKNOWN),
            ("504 Gateway Timeout", SERVER_ERROR_UNKNOWN),
        ] {
            let behind = Behind::new(scheme, json!({ "retries": 2 }));
            behind.server.next(Script::request().send(answer(status, Framing::Length, b"{}")).close());
            let reply = behind.client.add(&task("A-1"));
            assert_eq!((reply.code, reply.outcome), (expected.code, expected.outcome), "{status}: {reply:?}");
            let document = reply.json();
            assert_eq!(document["http_status"].to_string(), status[..3], "{reply:?}");
            assert_eq!((&document["host"], &document["attempts"]), (&json!(behind.host()), &json!(1)), "{reply:?}");
            let message = document["message"].as_str().expect("a message");
            assert!(message.contains(&behind.host()), "{message}");
            assert!(!message.contains(&behind.proxy.address().to_string()), "{message}");
            untold(&reply).unwrap();
        }
    }
}

#[test]
fn one_tunnel_carries_call_after_call() {
    for scheme in Scheme::ALL {
        let Behind { client, proxy, server, authority } = Behind::new(scheme, json!({ "idle_timeout_ms": 60_000 }));
        drop(authority);
        server.always(Script::forever(Script::served()));
        let mut calls = Calls::of(Stage::of(server, client));
        for index in 0..5 {
            calls.call(&format!("A-{index}"), MADE);
        }
        let seen = calls.end();
        assert_eq!((seen.len(), seen[0].numbers().len()), (1, 5), "{scheme:?}");
        let tunnels = proxy.settle().unwrap();
        assert_eq!(tunnels.len(), 1, "{scheme:?}");
        assert_eq!(find(tunnels[0].behind(), b"CONNECT"), None);
    }
}

#[test]
fn a_tunnel_that_has_ended_is_followed_by_another() {
    for scheme in Scheme::ALL {
        let behind = Behind::new(scheme, json!({ "idle_timeout_ms": 60_000 }));
        // The first is ended by the server.
        behind.server.next(Script::served().close());
        behind.server.always(Script::forever(Script::served()));
        for (index, tunnels) in [1, 2, 2].into_iter().enumerate() {
            let number = format!("A-{index}");
            let reply = behind.client.add(&task(&number));
            assert_eq!((reply.code, reply.outcome), (MADE.code, MADE.outcome), "{scheme:?}: {reply:?}");
            assert_eq!((behind.server.ledger().made(&number), behind.proxy.connections()), (1, tunnels), "{scheme:?}");
            if index == 0 {
                behind.server.await_over(0).unwrap();
                behind.proxy.await_server_ended(0).unwrap();
            }
        }
        let seen = behind.proxy.down();
        assert!(seen.iter().all(|seen| seen.connect.is_some()));
        // The connection that was kept has ended too, and there is no proxy for another.
        let reply = behind.client.add(&task("A-4"));
        let said = named(&reply, CONNECT_NOT_CREATED, &behind.host(), &behind.proxy.address().to_string());
        said.unwrap_or_else(|wrong| panic!("{wrong}: {reply:?}"));
    }
}

#[test]
fn a_child_of_fork_has_tunnels_of_its_own() {
    let host = Host::new("fork");
    for scheme in Scheme::ALL {
        let Behind { client, proxy, server, authority } = Behind::new(scheme, json!({}));
        drop(client);
        server.always(Script::forever(Script::served()));
        let config = with(configured(&server, &authority, &proxy.url()), json!({ "idle_timeout_ms": 3_600_000 }));
        let mut talker = Talker::of(host.command().args(["stages", &config.to_string(), "calls", "_exit"]));
        talker.says("called");
        let before = proxy.seen()[0].bytes.len();
        talker.go_on();
        talker.says("worked");
        assert_eq!(proxy.seen()[0].bytes.len(), before, "the child has written to its parent's tunnel");
        talker.go_on();
        for word in ["again", "freed"] {
            talker.says(word);
            talker.go_on();
        }
        talker.ends();
        let made: Vec<_> = server.settle(0).unwrap().iter().map(|seen| seen.numbers()).collect();
        assert_eq!(made, [&["P1", "P2", "P3"][..], &["C1", "C2", "C3", "C4"], &["C5"]], "{scheme:?}");
        assert_eq!(proxy.settle().unwrap().len(), 3);
    }
}

#[test]
fn a_proxy_that_ends_after_the_request_leaves_it_open() {
    for scheme in Scheme::ALL {
        let behind = Behind::new(scheme, json!({ "retries": 2 }));
        behind.server.next(Script::made().then(Step::AwaitRelease));
        let reply = std::thread::scope(|scope| {
            let call = scope.spawn(|| behind.client.add(&task("A-1")));
            behind.server.await_requests(1).unwrap();
            behind.proxy.down();
            call.join().expect("the call returns")
        });
        assert_eq!((reply.code, reply.outcome), (BROKEN_UNKNOWN.code, BROKEN_UNKNOWN.outcome), "{reply:?}");
        assert_eq!(reply.json()["attempts"], 1);
        behind.server.release();
        let seen = behind.server.settle(0).unwrap();
        truth(&reply, behind.server.ledger().made("A-1"), &seen[0].exchanges).unwrap();
    }
}

#[test]
fn a_proxy_that_is_not_there() {
    for scheme in [Scheme::Http, HTTPS] {
        let behind = Behind::new(scheme, json!({ "retries": 2 }));
        behind.proxy.down();
        let reply = behind.client.add(&task("A-1"));
        let said = named(&reply, CONNECT_NOT_CREATED, &behind.host(), &behind.proxy.address().to_string());
        said.unwrap_or_else(|wrong| panic!("{wrong}: {reply:?}"));
        assert_eq!(reply.json()["attempts"], 3);
        assert_eq!(behind.server.connections(), 0);
    }
}

#[test]
fn names_are_looked_up_of_the_proxy_alone() {
    let mut caller = Launcher::with_resolver().idle();
    for scheme in Scheme::ALL {
        let (names, authority) = (&["hang.bank.example"], Authority::new());
        let tls = match scheme {
            Scheme::Http => None,
            Scheme::Https(version) => Some(authority.server(Identity { names, ..Identity::right(version) })),
        };
        let server = Server::start("127.0.0.1", tls);
        server.always(Script::request().send(success("N")).close());
        let proxy = Proxy::to(server.address());
        let port = proxy.address().port();
        let server_url = server.base_url_as("hang.bank.example");
        let keys = |proxy: &str| json!({ "allow_http": true, "retries": 2, "timeout_ms": 20_000, "proxy": proxy });
        let config = |proxy: &str| with(config_tls(&server_url, &authority), keys(proxy));
        for name in ["127.0.0.1", "proxy.bank.example"] {
            let ended = caller.call(&config(&format!("http://{name}:{port}")));
            assert_eq!((ended.reply.code, ended.reply.outcome), (MADE.code, MADE.outcome), "{:?}", ended.reply);
        }
        assert_eq!(proxy.settle().unwrap().len(), 2);
        let host = format!("hang.bank.example:{}", server.address().port());
        // -2: there is no such name.
        let ended = caller.call(&config("http://fail-2.bank.example:3128"));
        let said = named(&ended.reply, CONNECT_NOT_CREATED, &host, "fail-2.bank.example:3128");
        said.unwrap_or_else(|wrong| panic!("{wrong}: {:?}", ended.reply));
        assert_eq!(ended.reply.json()["attempts"], 3);
    }
    let limit = json!({ "timeout_ms": 300, "retries": 2, "proxy": "http://hang.proxy.example:3128" });
    let ended = caller.call(&with(config("https://arctos.bank.example"), limit));
    let said = named(&ended.reply, TIMEOUT_NOT_CREATED, "arctos.bank.example", "hang.proxy.example:3128");
    said.unwrap_or_else(|wrong| panic!("{wrong}: {:?}", ended.reply));
    caller.release();
    caller.end();
}

/// What a proxy does for ever, and how far the calls come.
fn hanging() -> Vec<(&'static str, proxy::Script)> {
    use proxy::Script as Way;
    let slowly = |bytes: &[u8]| proxy::Step::Pieces(bytes.to_vec(), 1, Duration::from_millis(100));
    let interim = head("100 Continue", &[]);
    vec![
        ("unread", Way::silent().then(proxy::Step::AwaitRelease)),
        ("some of CONNECT read", Way::silent().then(proxy::Step::Read(9)).then(proxy::Step::AwaitRelease)),
        ("unanswered", Way::head().then(proxy::Step::AwaitRelease)),
        ("half a head", Way::head().send(&ESTABLISHED[..20]).then(proxy::Step::AwaitRelease)),
        ("all but a byte", Way::head().send(&ESTABLISHED[..ESTABLISHED.len() - 1]).then(proxy::Step::AwaitRelease)),
        ("a byte at a time", Way::head().then(slowly(ESTABLISHED))),
        ("interim answers", Way::head().then(proxy::Step::Flood(interim.clone()))),
        ("slow interim answers", Way::head().then(slowly(&interim.repeat(10)))),
    ]
}

const CALL: &str = "timeout_ms";
const CONNECTION: &str = "connect_timeout_ms";

/// The deadline of calls, or the time after which they are cancelled: by then each has come to where it waits.
const SOON: Duration = Duration::from_millis(300);

/// What is said when the proxy did not open the way in time.
const TUNNEL: Phase = Phase { words: "opened no way to it", ..Phase::CONNECT };

/// Twenty calls through a proxy that goes by this script, to a server that reads a request and says nothing.
fn end_behind(phases: &mut Phases, case: &str, round: Round, scheme: Scheme, phase: Phase, script: proxy::Script) {
    let (authority, names) = (Authority::new(), &[NAME]);
    let tls = match scheme {
        Scheme::Http => None,
        Scheme::Https(version) => Some(authority.server(Identity { names, ..Identity::right(version) })),
    };
    let server = Server::start("127.0.0.1", tls);
    server.always(Script::request());
    let proxy = Proxy::to(server.address());
    proxy.always(script);
    let config = configured(&server, &authority, &proxy.url_with(&format!("branch:{PASSWORD}")));
    phases.run_unconnected(&format!("{case}, {scheme:?}"), round, config, phase);
    proxy.await_connections(20).unwrap_or_else(|wrong| panic!("{case}: {wrong}"));
    proxy.release();
    let seen = proxy.settle().unwrap_or_else(|open| panic!("{case}: {open}"));
    assert_eq!(seen.len(), 20, "{case}");
    for seen in seen {
        let clear = if scheme == Scheme::Http { &seen.bytes[..seen.head] } else { &*seen.bytes };
        assert_eq!(secret_in(clear), None, "{case}");
    }
    if phase.expected.outcome == NOT_CREATED {
        assert!(server.settle(0).unwrap().iter().all(|seen| seen.request_bytes() == 0), "{case}");
    }
}

#[test]
fn a_call_ends_at_its_deadline_in_each_phase() {
    let mut phases = Phases::default();
    let mut run = |case: &str, scheme, phase, script| {
        end_behind(&mut phases, case, Round::of_twenty(SOON), scheme, phase, script);
    };
    for (index, (case, script)) in hanging().into_iter().enumerate() {
        let (limit, other) = if index % 2 == 0 { (CALL, CONNECTION) } else { (CONNECTION, CALL) };
        run(case, Scheme::Http, TUNNEL.by(limit), script.clone());
        run(case, HTTPS, TUNNEL.by(other), script);
    }
    for version in [Version::Tls12, Version::Tls13] {
        let silent = proxy::Script::established().then(proxy::Step::AwaitRelease);
        run("TLS unanswered", Scheme::Https(version), Phase::HANDSHAKE.by(CONNECTION), silent);
    }
    for scheme in Scheme::ALL {
        run("no answer of the server", scheme, Phase::ANSWER, proxy::Script::tunnel());
    }
    phases.finish();
}

#[test]
fn a_call_is_cancelled_in_each_phase() {
    let mut phases = Phases::default();
    let mut run = |case: &str, by, scheme, phase, script| {
        let round = Round { cancel: Some(by), ..Round::of_twenty(SOON) };
        end_behind(&mut phases, case, round, scheme, phase, script);
    };
    for (index, (case, script)) in hanging().into_iter().enumerate() {
        let (one, other) = if index % 2 == 0 { (Cancel::Client, Cancel::Call) } else { (Cancel::Call, Cancel::Client) };
        run(case, one, Scheme::Http, Phase::CANCELLED_BEFORE, script.clone());
        run(case, other, HTTPS, Phase::CANCELLED_BEFORE, script);
    }
    let silent = proxy::Script::established().then(proxy::Step::AwaitRelease);
    run("TLS unanswered", Cancel::Client, HTTPS, Phase::CANCELLED_BEFORE, silent);
    for scheme in Scheme::ALL {
        run("no answer of the server", Cancel::Call, scheme, Phase::CANCELLED_AFTER, proxy::Script::tunnel());
    }
    phases.finish();
}

#[test]
fn connecting_to_the_proxy_ends_in_time() {
    let queue = FullQueue::new("127.0.0.1", 0);
    let mut phases = Phases::default();
    for scheme in ["http", "https"] {
        let keys = json!({ "allow_http": true, "proxy": format!("http://{}", queue.address()) });
        let config = with(config(&format!("{scheme}://{NAME}")), keys);
        // As long as the process lives: a phase is a constant elsewhere.
        let words = format!("no connection to the proxy {}", queue.address()).leak();
        let phase = Phase { words, ..Phase::CONNECT };
        phases.run_unconnected(scheme, Round::of_twenty(SOON), config.clone(), phase.by(CONNECTION));
        let round = Round { cancel: Some(Cancel::Client), ..Round::of_twenty(SOON) };
        phases.run_unconnected(scheme, round, config, Phase::CANCELLED_BEFORE);
    }
    phases.finish();
    queue.nobody_came().unwrap();
}

#[test]
fn a_proxy_that_hangs_is_asked_again() {
    for scheme in [Scheme::Http, HTTPS] {
        let behind = Behind::new(scheme, json!({ "retries": 2, "connect_timeout_ms": 200 }));
        let script = proxy::Script::head().then(proxy::Step::AwaitRelease);
        let reply = behind.spoiled(TIMEOUT_NOT_CREATED, vec![script; 3]);
        let reply = reply.unwrap_or_else(|wrong| panic!("{scheme:?}: {wrong}"));
        assert_eq!(reply.code, TIMEOUT);
    }
}

/// The lines of the log, of all tests of this process.
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

unsafe extern "C" fn collect(_: *mut c_void, _: i32, line: *const c_char) {
    // SAFETY: a line is a text.
    let line = unsafe { CStr::from_ptr(line) }.to_str().expect("a line is UTF-8").to_owned();
    LINES.lock().expect("no panic under it").push(line);
}

#[test]
fn the_log_names_the_proxy_and_not_its_password() {
    // SAFETY: the function lives as long as the process.
    unsafe { (arctos().set_log)(Some(collect), ptr::null_mut(), 4) };
    let mut proxies = Vec::new();
    for scheme in Scheme::ALL {
        let behind = Behind::new(scheme, json!({ "retries": 1 }));
        behind.server.always(Script::served().close());
        for script in [refusal(FINAL[7]), refusal(PASSING[1]), proxy::Script::tunnel(), proxy::Script::tunnel()] {
            behind.proxy.next(script);
        }
        let codes = [0, 1, 2].map(|index| behind.client.add(&task(&format!("A-{index}"))).code);
        assert_eq!(codes, [CONNECT, OK, OK], "{scheme:?}");
        proxies.push(behind.proxy.address().to_string());
    }
    unsafe { (arctos().set_log)(None, ptr::null_mut(), 0) };
    let lines = LINES.lock().expect("no panic under it").clone();
    let events: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for proxy in proxies {
        let told =
            |name: &str| events.iter().filter(|event| event["event"] == name && event["proxy"] == *proxy).count();
        let counts = ["attempt", "failure", "retry", "connect", "answer"].map(told);
        assert_eq!(counts, [4, 1, 1, 2, 2], "{proxy}: {lines:#?}");
    }
    for line in &lines {
        for text in [MARKER, ENCODED, TOKEN] {
            assert!(!line.contains(text), "{text} in {line}");
        }
    }
}
