//! A diagnosis names the step that stands in the way, and what to do; it asks the server for nothing but one HEAD, shows it
//! no token, and leaves everything else alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use arctos_tests::api::*;
use arctos_tests::deadline::FullQueue;
use arctos_tests::http::{Framing, answer, find, head, success};
use arctos_tests::proxy::{self, Proxy};
use arctos_tests::server::{Script, Seen, Server, Step};
use arctos_tests::stage::{TOKEN, at_once, config, config_tls, with};
use arctos_tests::tls::{Authority, ClientFiles, Flaw, Identity, Version};
use arctos_tests::tools::{Host, Preload, both, succeed};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

/// All steps, in order.
const STEPS: [&str; 9] = ["route", "name", "connect", "proxy", "tls", "server", "clock", "token", "library"];

/// Over http and over https, with nothing wrong. One letter a step: ok, failed, skipped.
const FINE_HTTP: &str = "ooossoooo";
const FINE_HTTPS: &str = "ooosooooo";

/// The user's password at the proxy.
const PASSWORD: &str = "hunter2-at-the-proxy";

/// A document with its steps.
#[derive(Debug)]
struct Told(Value);

impl Told {
    /// What a diagnosis told, which must end with this code and in these states.
    #[track_caller]
    fn of(reply: &Reply, code: i32, states: &str) -> Told {
        let document = reply.json();
        let told = Told(document.clone());
        assert_eq!(reply.code, code, "{document:#}");
        for secret in [TOKEN, PASSWORD] {
            assert!(!reply.text().contains(secret), "{secret} is told: {document:#}");
        }
        let steps = document["steps"].as_array().unwrap_or_else(|| panic!("no steps: {document:#}"));
        let names: Vec<&str> = steps.iter().map(|step| step["step"].as_str().expect("a name")).collect();
        assert_eq!(names, STEPS);
        let letter = |step: &Value| match step["state"].as_str() {
            Some("ok") => 'o',
            Some("failed") => 'f',
            Some("skipped") => 's',
            other => panic!("no state: {other:?}"),
        };
        assert_eq!(steps.iter().map(letter).collect::<String>(), states, "{document:#}");
        for step in steps {
            assert!(step["ms"].is_u64(), "{step}");
            for key in ["detail", "advice"] {
                let text = step[key].as_str().expect("a text");
                // One sentence, on one line, without a stop at its end.
                assert!(!text.is_empty() && !text.ends_with('.') && !text.contains(char::is_control), "{step}");
                assert!(!text.contains("  "), "{step}");
            }
            if step["state"] == "failed" {
                assert_ne!(step["advice"], "nothing to do", "{step}");
            }
        }
        let Some(failed) = steps.iter().find(|step| step["state"] == "failed") else {
            assert_eq!(document.as_object().expect("an object").len(), 1, "nothing but steps: {document:#}");
            return told;
        };
        assert_eq!(document["message"], failed["detail"], "{document:#}");
        assert!(document["host"].is_string() && document["version"].is_string(), "{document:#}");
        for key in ["outcome", "attempts", "out_task_num"] {
            assert_eq!(document.get(key), None, "it makes no appointment: {document:#}");
        }
        told
    }

    fn step(&self, name: &str) -> &Value {
        let index = STEPS.iter().position(|step| *step == name).expect("a step");
        &self.0["steps"][index]
    }

    /// Checks that detail and advice of a step hold these words.
    #[track_caller]
    fn says(&self, step: &str, detail: &str, advice: &str) {
        let step = self.step(step);
        let holds = |key: &str, words: &str| step[key].as_str().is_some_and(|text| text.contains(words));
        assert!(holds("detail", detail) && holds("advice", advice), "not {detail:?} and {advice:?}: {step:#}");
    }
}

fn date(time: SystemTime) -> String {
    format!("Date: {}", httpdate::fmt_http_date(time))
}

/// The answer of a server that is well, which tells its time.
fn well() -> Script {
    Script::request().send(head("200 OK", &["Content-Length: 5", &date(SystemTime::now())]))
}

/// Checks what a server saw of one diagnosis.
#[track_caller]
fn was_asked_by_head(seen: &Seen, path: &str, host: &str) {
    assert_eq!((seen.fault.as_deref(), seen.exchanges.len()), (None, 1), "{seen:?}");
    let exchange = &seen.exchanges[0];
    let request = exchange.request.as_ref().unwrap_or_else(|| panic!("no whole request: {seen:?}"));
    assert_eq!(request.line, format!("HEAD {path} HTTP/1.1"));
    assert_eq!(request.header("Host"), Some(host));
    assert_eq!(request.header("Connection"), Some("close"));
    // As every other request, so that whoever lets these through lets it through too.
    assert_eq!(request.header("Accept"), Some("application/json"));
    assert!(request.header("User-Agent").is_some_and(|agent| agent.contains("arctos/")), "{request:?}");
    for name in ["Authorization", "Proxy-Authorization", "Cookie"] {
        assert_eq!(request.header(name), None);
    }
    assert_eq!(exchange.plain.len(), request.length, "nothing behind it");
    assert!(request.body.is_empty());
    assert_eq!(find(&exchange.plain, TOKEN.as_bytes()), None);
}

/// A client of a server of plain http, which does this with its only connection.
#[track_caller]
fn over_http(script: Script, keys: Value, code: i32, states: &str) -> Told {
    let server = Server::plain();
    let client = Owned::new(&with(config(&server.base_url()), keys));
    server.next(script);
    let told = Told::of(&client.diagnose(), code, states);
    server.release();
    let seen = server.settle(0).expect("the connection has ended");
    let [seen] = seen.as_slice() else { panic!("{} connections", seen.len()) };
    assert_eq!(find(&seen.exchanges[0].plain, TOKEN.as_bytes()), None);
    assert!(server.ledger().all().is_empty());
    told
}

/// The same over https, whose authority the client trusts, unless the keys say something else.
#[track_caller]
fn over_https(identity: Identity, script: Script, keys: Value, code: i32, states: &str) -> (Told, Authority) {
    let authority = Authority::new();
    let told = over_https_of(&authority, identity, script, with(authority.trusted_with(json!({})), keys), code, states);
    (told, authority)
}

#[track_caller]
fn over_https_of(
    authority: &Authority,
    identity: Identity,
    script: Script,
    keys: Value,
    code: i32,
    states: &str,
) -> Told {
    let server = Server::start("127.0.0.1", Some(authority.server(identity)));
    let client = Owned::new(&with(config(&server.base_url()), keys));
    server.next(script);
    let told = Told::of(&client.diagnose(), code, states);
    server.release();
    server.settle(0).expect("the connection has ended");
    assert_eq!(server.connections(), 1);
    told
}

#[test]
fn over_http_all_is_well() {
    let server = Server::plain();
    let client = Owned::new(&config(&format!("{}/prefix/", server.base_url())));
    server.next(well());
    let told = Told::of(&client.diagnose(), OK, FINE_HTTP);
    let seen = server.settle(0).expect("the connection has ended");
    assert_eq!(seen.len(), 1);
    let authority = server.address().to_string();
    was_asked_by_head(&seen[0], "/prefix", &authority);
    assert!(server.ledger().all().is_empty());

    told.says("route", &format!("direct to {authority}"), "nothing to do");
    assert_eq!(told.step("name")["addresses"], json!(["127.0.0.1"]));
    told.says("connect", &format!("connected to {authority}"), "nothing to do");
    told.says("tls", "base_url is http", "https");
    assert_eq!(told.step("server")["http_status"], 200);
    assert!(told.step("clock")["ahead_ms"].as_i64().is_some_and(|ms| ms.abs() <= 60_000), "{told:?}");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(told.step("library")["version"], version);
    told.says("library", &format!("libarctos {version}"), "nothing to do");
    // What does not apply is absent.
    for name in STEPS {
        let keys: Vec<&String> = told.step(name).as_object().expect("an object").keys().skip(5).collect();
        let expected = match name {
            "name" => vec!["addresses"],
            "server" => vec!["http_status"],
            "clock" => vec!["ahead_ms"],
            "library" => vec!["version"],
            _ => vec![],
        };
        assert_eq!(keys, expected, "{name}");
    }
}

#[test]
fn over_https_the_chain_is_told_as_it_is() {
    for (version, protocol, cipher) in [
        (Version::Tls12, "TLS 1.2", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
        (Version::Tls13, "TLS 1.3", "TLS13_AES_256_GCM_SHA384"),
    ] {
        let root = Authority::new();
        let between = root.below("Between");
        let (server, pin) = between.server_with_pin(Identity::right(version));
        let server = Server::start("127.0.0.1", Some(server));
        let client = Owned::new(&with(config(&server.base_url()), root.trusted_with(json!({ "pins": [pin] }))));
        // Twice: what is resumed would show no certificate.
        for index in 0..2 {
            server.next(well());
            let told = Told::of(&client.diagnose(), OK, FINE_HTTPS);
            let tls = told.step("tls");
            assert_eq!((&tls["protocol"], &tls["cipher"]), (&json!(protocol), &json!(cipher)));
            let chain = json!([
                {
                    "subject": "CN=Fault server",
                    "issuer": "CN=Between",
                    "not_before": "1975-01-01T00:00:00Z",
                    "not_after": "4096-01-01T00:00:00Z",
                    "pin": pin,
                },
                {
                    "subject": "CN=Between",
                    "issuer": root.name(),
                    "not_before": "1975-01-01T00:00:00Z",
                    "not_after": "2999-01-01T00:00:00Z",
                    "pin": between.pin(),
                },
            ]);
            assert_eq!(tls["chain"], chain);
            assert_eq!(tls["root"], root.name());
            assert_eq!((&tls["public"], &tls["inspected"]), (&json!(false), &json!(false)));
            told.says("tls", "issued by CN=Between and good until 4096-01-01T00:00:00Z", "the bank's own");
            server.settle(0).expect("the connection has ended");
            was_asked_by_head(&server.seen(0)[index], "/", &server.address().to_string());
        }
    }
}

#[test]
fn a_name_is_told_with_its_addresses() {
    let (host, resolver) = (Host::new("diagnose"), Preload::new("resolver"));
    let server = Server::plain();
    server.always(well());
    let at = |name: &str, keys: Value| {
        let config = with(config(&format!("http://{name}:{}", server.address().port())), json!({ "allow_http": true }));
        with(config, keys).to_string()
    };
    let configs = [
        at("list.127-0-0-1.127-0-0-2.bank.example", json!({})),
        at("fail-2.bank.example", json!({})),
        at("hang.bank.example", json!({ "connect_timeout_ms": 100 })),
        at("hang.bank.example", json!({ "timeout_ms": 100 })),
        at("arctos.bank.example", json!({ "proxy": "http://fail-2.proxy.example:3128" })),
    ];
    let output = succeed(host.command().args(configs).env("LD_PRELOAD", resolver.path()));
    let [fine, failed @ ..] = &told_by(&output.stdout)[..] else { panic!("{}", both(&output)) };
    let told = Told::of(fine, OK, FINE_HTTP);
    told.says("name", "list.127-0-0-1.127-0-0-2.bank.example is 127.0.0.1, 127.0.0.2", "nothing to do");
    assert_eq!(told.step("name")["addresses"], json!(["127.0.0.1", "127.0.0.2"]));
    let expected = [
        (CONNECT, "fail-2.bank.example", "base_url"),
        (TIMEOUT, "within connect_timeout_ms (100 ms)", "name server"),
        (TIMEOUT, "within timeout_ms (100 ms)", "name server"),
        (CONNECT, "the proxy fail-2.proxy.example:3128 could not be resolved", "the host in proxy"),
    ];
    assert_eq!(failed.len(), expected.len());
    for (reply, (code, detail, advice)) in failed.iter().zip(expected) {
        Told::of(reply, code, "ofsssssoo").says("name", detail, advice);
    }
    assert_eq!(server.settle(0).expect("it has ended").len(), 1, "the others did not come so far");
}

/// What the program printed.
fn told_by(stdout: &[u8]) -> Vec<Reply> {
    let reply = |line: &str| {
        let (code, text) = line.split_once(' ').expect("code and text");
        Reply { code: code.parse().expect("a code"), text: Some(text.to_owned()), outcome: NOT_CREATED }
    };
    std::str::from_utf8(stdout).expect("UTF-8").lines().map(reply).collect()
}

#[test]
fn a_port_where_nobody_listens_is_told() {
    // Bound and not listening: connections are refused, and nobody else gets the port.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    let address = socket.local_addr().expect("an address").as_socket().expect("of the net");
    let server = config(&format!("http://{address}"));
    let proxied =
        with(config("https://arctos.bank.example"), json!({ "proxy": format!("http://u:{PASSWORD}@{address}") }));
    for (config, detail, advice) in [
        (server, format!("no connection to {address}: Connection refused"), "base_url"),
        (proxied, format!("no connection to the proxy {address}: Connection refused"), "host and port in proxy"),
    ] {
        let told = Told::of(&Owned::new(&config).diagnose(), CONNECT, "oofssssoo");
        told.says("connect", &detail, advice);
        for step in ["proxy", "tls", "server", "clock"] {
            told.says(step, "not reached", "the step that failed before it");
        }
    }
}

/// A client with a user and a password at a proxy, that proxy, and the server behind it.
fn behind_a_proxy() -> (Owned, Proxy, Server, Authority) {
    const NAME: &str = "arctos.bank.example";
    let authority = Authority::new();
    let identity = Identity { names: &[NAME], ..Identity::right(Version::Tls13) };
    let server = Server::start("127.0.0.1", Some(authority.server(identity)));
    let proxy = Proxy::to(server.address());
    let keys = json!({ "proxy": proxy.url_with(&format!("branch:{PASSWORD}")) });
    let client = Owned::new(&with(config_tls(&server.base_url_as(NAME), &authority), keys));
    (client, proxy, server, authority)
}

#[test]
fn through_a_proxy_all_is_well() {
    let (client, proxy, server, authority) = behind_a_proxy();
    server.next(well());
    let told = Told::of(&client.diagnose(), OK, "ooooooooo");
    let (place, host) = (proxy.address().to_string(), format!("arctos.bank.example:{}", server.address().port()));
    assert_eq!(told.step("route")["proxy"], place);
    told.says("route", &format!("to {host} through the proxy {place}"), "");
    assert_eq!(told.step("name")["addresses"], json!(["127.0.0.1"]));
    told.says("connect", &format!("connected to {place}"), "");
    told.says("proxy", &format!("{place} opened the way to {host}"), "");
    assert_eq!(told.step("tls")["root"], authority.name());
    let asked = proxy.settle().expect("the connection has ended");
    assert_eq!((asked.len(), asked[0].connect().line.clone()), (1, format!("CONNECT {host} HTTP/1.1")));
    assert_eq!(find(&asked[0].bytes, TOKEN.as_bytes()), None);
    was_asked_by_head(&server.settle(0).expect("it has ended")[0], "/", &host);
}

#[test]
fn through_a_proxy_to_http_all_is_well() {
    let server = Server::plain();
    let proxy = Proxy::to(server.address());
    let keys = json!({ "proxy": proxy.url_with(&format!("branch:{PASSWORD}")), "allow_http": true });
    server.next(well());
    let url = server.base_url_as("arctos.bank.example");
    let told = Told::of(&Owned::new(&with(config(&url), keys)).diagnose(), OK, "oooosoooo");
    assert_eq!(told.step("route")["proxy"], proxy.address().to_string());
    assert_eq!(find(&proxy.settle().expect("it has ended")[0].bytes, TOKEN.as_bytes()), None);
    was_asked_by_head(&server.settle(0).expect("it has ended")[0], "/", url.trim_start_matches("http://"));
}

#[test]
fn what_a_proxy_says_is_told() {
    let says = |status: &str| proxy::Script::head().send(head(status, &["Content-Length: 0"])).fin();
    for (script, detail, advice) in [
        (says("407 Proxy Authentication Required"), "(HTTP 407)", "the user in proxy"),
        (says("403 Forbidden"), "must be allowed there (HTTP 403)", "let this machine"),
        (says("502 Bad Gateway"), "did not reach arctos.bank.example", "why it does not reach arctos.bank.example"),
        (says("503 Unavailable"), "(HTTP 503)", "try again later"),
        (proxy::Script::head().reset(), "closed the connection", "whoever runs the proxy"),
        (proxy::Script::head().send(*b"garbage\r\n\r\n").fin(), "gave no answer to CONNECT", "whoever runs the proxy"),
    ] {
        let (client, proxy, server, _authority) = behind_a_proxy();
        proxy.next(script);
        let told = Told::of(&client.diagnose(), CONNECT, "ooofsssoo");
        told.says("proxy", &format!("the proxy {} ", proxy.address()), advice);
        told.says("proxy", detail, advice);
        assert_eq!(told.0["proxy"], proxy.address().to_string());
        proxy.settle().expect("the connection has ended");
        assert_eq!(server.connections(), 0);
    }
}

#[test]
fn a_server_without_tls_is_told() {
    let server = Server::plain();
    server.next(Script::silent().then(Step::Read(1)).send(*b"HTTP/1.1 400 Bad Request\r\n\r\n").fin());
    let client = Owned::new(&config(&server.base_url().replace("http", "https")));
    let told = Told::of(&client.diagnose(), TLS, "ooosfssoo");
    told.says("tls", "is no TLS; it may speak plain http", "check host and port in base_url");
    assert_eq!(told.step("tls").get("chain"), None);
}

#[test]
fn a_certificate_that_is_refused_is_shown() {
    for version in [Version::Tls12, Version::Tls13] {
        let right = Identity::right(version);
        let refused = |identity| over_https(identity, Script::silent().then(Step::Refuse), json!({}), TLS, "ooosfssoo");

        let (told, authority) = refused(right.with(Flaw::Expired));
        told.says("tls", "has expired, on 2021-01-01T00:00:00Z", "this machine's clock");
        let chain = &told.step("tls")["chain"];
        assert_eq!(
            (&chain[0]["issuer"], &chain[0]["not_after"]),
            (&json!(authority.name()), &json!("2021-01-01T00:00:00Z"))
        );
        assert_eq!(told.step("tls").get("public"), None, "whose it is cannot be told from it any more");

        let (told, _) = refused(right.with(Flaw::NotYetValid));
        told.says("tls", "is not valid yet, but from 2999-01-01T00:00:00Z", "this machine's clock");

        let (told, authority) = refused(Identity { names: &["other.example"], ..right });
        told.says("tls", "it is for other.example", "set base_url to a host that the certificate is for");
        assert_eq!(told.step("tls")["root"], authority.name(), "{told:?}");
        assert_eq!(told.step("tls")["chain"][0]["subject"], "CN=Fault server");

        let (told, _) = refused(right.with(Flaw::KeyOfAnother));
        told.says("tls", "the server does not have its key", "the key that belongs to its certificate");
        assert_eq!(told.step("tls")["chain"].as_array().map(Vec::len), Some(1));

        let (told, _) = refused(right.with(Flaw::WrongUsage));
        told.says("tls", "is not meant for servers", "have whoever runs the server get another certificate");
    }
}

#[test]
fn a_certificate_that_ends_soon_is_told() {
    for (days, advice) in [(5, "renew its certificate before "), (30, "the bank's own")] {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
        let ends = SystemTime::now() + Duration::from_secs(days * 24 * 60 * 60);
        params.not_after = ends.into();
        let certificate = params.self_signed(&key).expect("a certificate");
        let file = NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), certificate.pem()).expect("it is written");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let tls = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key);
        let server = Server::start("127.0.0.1", Some(Arc::new(tls.expect("a certificate and its key"))));
        let keys = json!({ "tls": { "roots": "file", "ca_file": file.path() } });
        server.next(well());
        let told = Told::of(&Owned::new(&with(config(&server.base_url()), keys)).diagnose(), OK, FINE_HTTPS);
        told.says("tls", "good until ", advice);
    }
}

#[test]
fn an_authority_that_is_not_trusted_is_told() {
    let trusted = Authority::new();
    for (name, inspected, advice) in [
        ("Bank Root CA", false, "whether the authority is theirs"),
        ("mitmproxy", true, "ask whoever runs the network for the certificate of the proxy's authority"),
    ] {
        let authority = Authority::named(name);
        let (right, refuse) = (Identity::right(Version::Tls13), Script::silent().then(Step::Refuse));
        let told = over_https_of(&authority, right, refuse.clone(), trusted.trusted_with(json!({})), TLS, "ooosfssoo");
        let tls = told.step("tls");
        assert_eq!((&tls["public"], &tls["inspected"]), (&json!(false), &json!(inspected)));
        assert_eq!(tls.get("root"), None, "none is trusted");
        assert_eq!(tls["chain"][0]["issuer"], authority.name());
        told.says("tls", &format!("not trusted: CN={name}"), advice);
        told.says("tls", "", "tls.ca_file");

        for roots in ["system", "bundled"] {
            let keys = json!({ "tls": { "roots": roots } });
            let told = over_https_of(&authority, right, refuse.clone(), keys, TLS, "ooosfssoo");
            assert_eq!(told.step("tls")["public"], false);
            told.says("tls", "not trusted", advice);
        }

        let told = over_https_of(&authority, right, well(), authority.trusted_with(json!({})), OK, FINE_HTTPS);
        assert_eq!(told.step("tls")["inspected"], inspected);
        let advice = if inspected { "a way past its proxy" } else { "the bank's own" };
        told.says("tls", "", advice);
    }
}

#[test]
fn a_pin_that_is_not_the_servers_is_told() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (server, pin) = authority.server_with_pin(Identity::right(Version::Tls13));
    let server = Server::start("127.0.0.1", Some(server));
    server.next(Script::silent().then(Step::Refuse));
    let keys = authority.trusted_with(json!({ "pins": [other.pin()] }));
    let told = Told::of(&Owned::new(&with(config(&server.base_url()), keys)).diagnose(), TLS, "ooosfssoo");
    told.says("tls", &format!("the key that came has {pin}"), "tls.pins");
    assert_eq!(told.step("tls")["chain"][0]["pin"], pin);
    assert_eq!(told.step("tls")["root"], authority.name());
}

#[test]
fn a_server_that_wants_another_certificate_of_the_client_is_told() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    for version in [Version::Tls12, Version::Tls13] {
        let identity = Identity { asks_for_certificate: true, ..Identity::right(version) };
        let run = |files: Option<ClientFiles>, script, code, states: &str| {
            let keys = files.as_ref().map_or(json!({}), ClientFiles::keys);
            over_https_of(&authority, identity, script, authority.trusted_with(keys), code, states)
        };
        run(Some(authority.client(None)), well(), OK, FINE_HTTPS);
        // Over TLS 1.3 it is refused when the request has gone out.
        let (step, states) = match version {
            Version::Tls12 => ("tls", "ooosfssoo"),
            Version::Tls13 => ("server", "ooosofsoo"),
        };
        for (files, words) in [
            (None, "the server wants a certificate of the client and got none".to_owned()),
            (
                Some(stranger.client(None)),
                format!("it has the subject CN=Fault server and the issuer {}", stranger.name()),
            ),
        ] {
            let told = run(files, Script::silent().then(Step::Refuse), TLS, states);
            told.says(step, &words, "tls.cert_file");
            assert_eq!(told.step("tls")["chain"][0]["issuer"], authority.name());
        }
    }
}

#[test]
fn a_server_that_says_nothing_more_ends_each_step_at_the_deadline() {
    let queue = FullQueue::new("127.0.0.1", 0);
    let limits = [("timeout_ms", 400), ("connect_timeout_ms", 200)];
    at_once(limits, |(limit, ms)| {
        let keys = json!({ limit: ms });
        let within = format!("within {limit} ({ms} ms)");

        let config = with(config(&format!("http://{}", queue.address())), keys.clone());
        let told = Told::of(&Owned::new(&config).diagnose(), TIMEOUT, "oofssssoo");
        told.says("connect", &within, "the firewall");

        let (right, held) = (Identity::right(Version::Tls13), Script::silent().then(Step::AwaitRelease));
        let authority = Authority::new();
        let trusted = with(authority.trusted_with(json!({})), keys.clone());
        let told = over_https_of(&authority, right, held, trusted, TIMEOUT, "ooosfssoo");
        told.says("tls", &within, "TLS to 127.0.0.1");
        assert_eq!(told.step("tls").get("chain"), None);
    });
    queue.nobody_came().unwrap();

    let (client, proxy, server, _authority) = behind_a_proxy();
    drop(client);
    let keys = json!({ "connect_timeout_ms": 200, "proxy": proxy.url() });
    let client = Owned::new(&with(config(&server.base_url_as("arctos.bank.example")), keys));
    proxy.next(proxy::Script::head().then(proxy::Step::AwaitRelease));
    let told = Told::of(&client.diagnose(), TIMEOUT, "ooofsssoo");
    told.says("proxy", "within connect_timeout_ms (200 ms)", "why it does not answer to CONNECT");
    proxy.release();
    assert_eq!(server.connections(), 0);

    // What is said of the connection's time is over when it stands.
    let keys = json!({ "timeout_ms": 600, "connect_timeout_ms": 300 });
    let held = Script::request().then(Step::AwaitRelease);
    let told = over_http(held, keys.clone(), TIMEOUT, "ooossfsoo");
    told.says("server", "no whole answer within timeout_ms (600 ms)", "no answer comes");
    let half = Script::request().send(*b"HTTP/1.1 200 O").then(Step::AwaitRelease);
    over_http(half, keys, TIMEOUT, "ooossfsoo").says("server", "within timeout_ms", "no answer comes");
}

#[test]
fn a_server_that_cuts_the_connection_is_told() {
    for (script, detail) in [
        (Script::request().reset(), "the connection to"),
        (Script::request().fin(), "it was closed before the answer came"),
        (Script::request().send(*b"HTTP/1.1 200 OK\r\nA: b").fin(), "it was closed"),
        (Script::request().send(*b"HTTP/1.1 200 OK\r\nA: b").reset(), "the connection to"),
    ] {
        over_http(script, json!({}), BROKEN, "ooossfsoo").says("server", detail, "why it closes connections");
    }
    let (told, _) = over_https(
        Identity::right(Version::Tls13),
        Script::silent().then(Step::Raw(1)).then(Step::Reset),
        json!({}),
        CONNECT,
        "ooosfssoo",
    );
    told.says("tls", "closed during the TLS handshake", "a firewall before it");
}

#[test]
fn what_is_no_answer_of_http_is_told() {
    for bytes in [
        &b"SSH-2.0-OpenSSH_9.2\r\n\r\n"[..],
        b"\x15\x03\x01\x00\x02\x02\x50\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/9 200\r\n\r\n",
    ] {
        let told = over_http(Script::request().send(bytes).close(), json!({}), BAD_RESPONSE, "ooossfsoo");
        told.says("server", "cannot be read", "check base_url");
    }
}

#[test]
fn an_answer_is_well_whatever_its_status_and_is_never_followed() {
    let away = Server::plain();
    let location = format!("Location: {}/", away.base_url());
    let nothing = "nothing to do";
    for (status, headers, advice) in [
        ("204 No Content", &[][..], nothing),
        ("301 Moved", &[location.as_str()], "a redirect is never followed"),
        ("302 Found", &[location.as_str(), "Content-Length: 0"], "set base_url to where this leads"),
        ("307 Temporary", &[location.as_str()], "set base_url"),
        ("400 Bad Request", &["Content-Length: 30"], "use https in base_url"),
        ("401 Unauthorized", &["WWW-Authenticate: Basic realm=x", "Content-Length: 0"], nothing),
        ("404 Not Found", &["Transfer-Encoding: chunked"], nothing),
        ("405 Method Not Allowed", &["Allow: POST"], nothing),
        ("429 Too Many", &["Retry-After: 1"], "try again later"),
        ("501 Not Implemented", &[], nothing),
        ("502 Bad Gateway", &["Content-Length: 0"], "whoever runs the server"),
    ] {
        let now = date(SystemTime::now());
        let all: Vec<&str> = headers.iter().copied().chain([now.as_str()]).collect();
        let told = over_http(Script::request().send(head(status, &all)), json!({}), OK, FINE_HTTP);
        let number: u16 = status[..3].parse().expect("a status");
        assert_eq!(told.step("server")["http_status"], number);
        told.says("server", &format!("by HTTP {number}"), advice);
    }
    assert_eq!(away.connections(), 0);
    // A server that knows HEAD badly, and an old one.
    let bodied = answer("200 OK", Framing::Length, b"{}");
    over_http(Script::request().send(bodied).close(), json!({}), OK, "ooossosoo");
    over_http(Script::request().send(*b"HTTP/1.0 200 OK\r\n\r\n").fin(), json!({}), OK, "ooossosoo");
    // Interim heads are none.
    let interim = [head("103 Early Hints", &["Link: </x>"]), head("200 OK", &[])].concat();
    over_http(Script::request().send(interim), json!({}), OK, "ooossosoo");
}

#[test]
fn the_clocks_are_compared() {
    const MINUTES: Duration = Duration::from_secs(600);
    let now = SystemTime::now();
    for (theirs, side, least) in
        [(now - MINUTES, "ahead of", 590_000..=720_000), (now + MINUTES, "behind", -610_000..=-480_000)]
    {
        let script = Script::request().send(head("200 OK", &["Content-Length: 0", &date(theirs)]));
        let told = over_http(script, json!({}), OK, FINE_HTTP);
        told.says("clock", &format!("s {side} the server's"), "set this machine's clock");
        let ahead = told.step("clock")["ahead_ms"].as_i64().expect("a number");
        assert!(least.contains(&ahead), "{ahead}");
    }
    for headers in [&["Content-Length: 0"][..], &["Content-Length: 0", "Date: yesterday"]] {
        let told = over_http(Script::request().send(head("200 OK", headers)), json!({}), OK, "ooossosoo");
        told.says("clock", "does not tell its time", "nothing to do");
        assert_eq!(told.step("clock").get("ahead_ms"), None);
    }
}

#[test]
fn a_token_that_is_missing_is_told_behind_everything_else() {
    let server = Server::plain();
    let bare = json!({ "base_url": server.base_url() });
    let client = Owned::new(&bare);
    server.next(well());
    let told = Told::of(&client.diagnose(), FORBIDDEN, "ooossoofo");
    told.says("token", "the client has no token", "arctos_client_set_token");
    server.settle(0).expect("it has ended");
    // The first failure gives the code.
    server.down();
    let told = Told::of(&client.diagnose(), CONNECT, "oofssssfo");
    told.says("token", "the client has no token", "token_file");
    server.up();
    assert_eq!(client.set_token("a-token").code, OK);
    server.next(well());
    Told::of(&client.diagnose(), OK, FINE_HTTP);
}

#[test]
fn a_token_that_is_still_to_come_is_not_asked_for() {
    let server = Server::plain();
    let file = NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), TOKEN).expect("it is written");
    let login = json!({ "path": "/log-in", "body": { "password": PASSWORD }, "token_pointer": "/token" });
    for (keys, words) in
        [(json!({ "login": login }), "logs in"), (json!({ "token_file": file.path() }), "there is one")]
    {
        let base = json!({ "base_url": server.base_url() });
        let from = server.connections();
        server.next(well());
        let told = Told::of(&Owned::new(&with(base, keys)).diagnose(), OK, FINE_HTTP);
        told.says("token", words, "nothing to do");
        let seen = server.settle(from).expect("it has ended");
        assert_eq!(seen.len(), 1, "nobody logs in");
        was_asked_by_head(&seen[0], "/", &server.address().to_string());
    }
}

#[test]
fn a_diagnosis_is_cancelled_where_it_waits() {
    let authority = Authority::new();
    let tls = Server::start("127.0.0.1", Some(authority.server(Identity::right(Version::Tls13))));
    let plain = Server::plain();
    let silent = Script::silent().then(Step::AwaitRelease);
    for (server, config, waits, states, fine) in [
        (&tls, config_tls(&tls.base_url(), &authority), "tls", "ooosfssoo", FINE_HTTPS),
        (&plain, config(&plain.base_url()), "server", "ooossfsoo", FINE_HTTP),
    ] {
        server.next(silent.clone());
        let client = Owned::new(&config);
        let reply = std::thread::scope(|scope| {
            let diagnosis = scope.spawn(|| client.diagnose());
            server.await_connections(1).unwrap();
            // What has come is of the step that waits.
            while server.arrived(0) == [Some(0)] {
                std::thread::yield_now();
            }
            assert_eq!(client.cancel(), OK);
            diagnosis.join().expect("no panic")
        });
        let told = Told::of(&reply, CANCELLED, states);
        told.says(waits, "was cancelled", "diagnose again");
        server.release();
        // Not sticky.
        server.next(well());
        Told::of(&client.diagnose(), OK, fine);
    }
}

#[test]
fn connections_that_are_kept_are_left_alone() {
    let authority = Authority::new();
    for tls in [None, Some(Version::Tls12), Some(Version::Tls13)] {
        let server = Server::start("127.0.0.1", tls.map(|version| authority.server(Identity::right(version))));
        let keys = json!({ "idle_timeout_ms": 60_000 });
        let client = Owned::new(&with(config_tls(&server.base_url(), &authority), keys));
        server.next(Script::forever(Script::served()));
        assert_eq!(client.add(&task("K1")).code, OK);
        let before = server.brought(0);
        server.next(well());
        Told::of(&client.diagnose(), OK, if tls.is_none() { FINE_HTTP } else { FINE_HTTPS });
        assert_eq!(server.brought(0)[0], before[0], "the kept connection was used");
        assert_eq!(client.add(&task("K2")).code, OK);
        drop(client);
        let seen = server.settle(0).expect("they have ended");
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0].numbers(), ["K1", "K2"]);
        was_asked_by_head(&seen[1], "/", &server.address().to_string());
    }
}

#[test]
fn threads_diagnose_while_others_make_appointments() {
    const CALLS: usize = 50;
    let authority = Authority::new();
    for version in [Version::Tls12, Version::Tls13] {
        let server = Server::start("127.0.0.1", Some(authority.server(Identity::right(version))));
        let keys = json!({ "idle_timeout_ms": 60_000 });
        let client = Owned::new(&with(config_tls(&server.base_url(), &authority), keys));
        let numbers: Vec<String> = (0..4 * CALLS).map(|index| format!("D{index:04}")).collect();
        server.always(Script::forever(Script::request().then(Step::ByNumber)));
        for number in &numbers {
            server.number(number, Script::silent().then(Step::Make).then(Step::Answer(success)));
        }
        // That of a HEAD.
        server.number("", Script::silent().send(head("200 OK", &["Content-Length: 5", &date(SystemTime::now())])));
        let done = AtomicBool::new(false);
        let diagnosed = std::thread::scope(|scope| {
            let add = |numbers: &[String]| numbers.iter().all(|number| client.add(&task(number)).code == OK);
            let adding: Vec<_> = numbers.chunks(CALLS).map(|numbers| scope.spawn(move || add(numbers))).collect();
            let diagnose = || {
                let mut count = 0;
                while !done.load(Ordering::Relaxed) || count == 0 {
                    Told::of(&client.diagnose(), OK, FINE_HTTPS);
                    count += 1;
                }
                count
            };
            let diagnosing: Vec<_> = (0..8).map(|_| scope.spawn(diagnose)).collect();
            let added: Vec<bool> = adding.into_iter().map(|thread| thread.join().expect("no panic")).collect();
            done.store(true, Ordering::Relaxed);
            assert_eq!(added, [true; 4]);
            diagnosing.into_iter().map(|thread| thread.join().expect("no panic")).sum::<usize>()
        });
        drop(client);
        let ledger = server.ledger();
        assert!(ledger.all().len() == numbers.len() && ledger.all().values().all(|made| *made == 1), "{ledger:?}");
        let seen = server.settle(0).expect("they have ended");
        let heads: Vec<&Seen> = seen.iter().filter(|seen| seen.numbers() == [""]).collect();
        assert_eq!(heads.len(), diagnosed);
        heads.iter().for_each(|seen| was_asked_by_head(seen, "/", &server.address().to_string()));
        // No connection has carried both.
        let others = seen.iter().filter(|seen| seen.numbers().iter().all(|number| !number.is_empty()));
        assert_eq!(others.count(), seen.len() - diagnosed);
    }
}

#[test]
fn a_child_of_fork_diagnoses_over_a_connection_of_its_own() {
    let host = Host::new("diagnose");
    let authority = Authority::new();
    for tls in [None, Some(Version::Tls12), Some(Version::Tls13)] {
        let server = Server::start("127.0.0.1", tls.map(|version| authority.server(Identity::right(version))));
        server.next(Script::forever(Script::served()));
        server.always(well());
        let keys = json!({ "idle_timeout_ms": 60_000 });
        // By name, so that the look-up has a thread, which the child has not.
        let config = with(config_tls(&server.base_url_as("localhost"), &authority), keys);
        let output = succeed(host.command().args(["forks", &config.to_string()]));
        assert!(output.stderr.is_empty(), "{}", both(&output));
        let replies = told_by(&output.stdout);
        assert_eq!(replies.len(), 3, "{}", both(&output));
        for reply in replies {
            Told::of(&reply, OK, if tls.is_none() { FINE_HTTP } else { FINE_HTTPS });
        }
        let seen = server.settle(0).expect("they have ended");
        assert_eq!(seen.len(), 4);
        assert_eq!(seen[0].numbers(), ["P1", "P2"]);
    }
}
