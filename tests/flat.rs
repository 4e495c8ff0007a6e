//! 1,000 calls that fail, or succeed, leave the process as large as it was: no descriptor, no thread and no memory stays.

use std::net::{Ipv4Addr, SocketAddr};

use arctos_tests::api::*;
use arctos_tests::http::{Framing, answer, failure_body, head, success, success_body};
use arctos_tests::server::{Script, Server, Step};
use arctos_tests::stage::{config, config_tls, with};
use arctos_tests::tls::{Authority, Identity, Version};
use arctos_tests::tools::{Host, both, succeed};
use serde_json::{Value, json};

/// Longer than any pause between two calls.
const KEPT_MS: u32 = 60_000;

/// What the program makes before it looks at itself, and after.
const WARM_UP: usize = 100;
const CALLS: usize = 1_000;

/// Any outcome will do.
const ANY: i32 = -1;

struct Flat(Host);

impl Flat {
    fn new() -> Flat {
        Flat(Host::new("flat"))
    }

    #[track_caller]
    fn stays(&self, case: &str, code: i32, outcome: i32, clients: &str, config: &Value, task: &str) {
        let mut command = self.0.command();
        // Blocks that glibc keeps for the next call of malloc count as used, and so does what each heap has of its own,
        // which comes when two threads are inside malloc at once: without both, what is used is exact.
        command.env("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0:glibc.malloc.arena_max=1");
        let numbers = [code.to_string(), outcome.to_string()];
        command.args(numbers).args([clients, &CALLS.to_string(), &config.to_string(), task]);
        let output = succeed(&mut command);
        // Shown where a test fails or is asked to show it.
        println!("{case}: {}", both(&output).trim_end());
    }

    /// Calls to a server that does the same with every connection.
    #[track_caller]
    fn stays_with(&self, case: &str, code: i32, outcome: i32, server: &Server, config: &Value, script: Script) {
        let connections = self.connections(case, (code, outcome), "kept", server, config, script);
        assert_eq!(connections, WARM_UP + CALLS, "{case}");
    }

    /// The same: how many connections there were.
    #[track_caller]
    fn connections(
        &self,
        case: &str,
        (code, outcome): (i32, i32),
        clients: &str,
        server: &Server,
        config: &Value,
        script: Script,
    ) -> usize {
        server.always(script);
        let from = server.connections();
        self.stays(case, code, outcome, clients, config, &task("FLAT"));
        server.settle(from).expect("the connections have ended").len()
    }
}

#[test]
fn calls_that_send_nothing() {
    let flat = Flat::new();
    // Bound and not listening: connections are refused, and nobody else gets the port.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
    let port = socket.local_addr().expect("an address").as_socket().expect("an IP address").port();
    let at = |host: &str| config(&format!("http://{host}:{port}"));
    let good = task("FLAT");

    flat.stays("refused", CONNECT, NOT_CREATED, "kept", &at("127.0.0.1"), &good);
    // The name is looked up on a thread of the library.
    flat.stays("refused by name", CONNECT, NOT_CREATED, "kept", &at("localhost"), &good);
    flat.stays("clients come and go", CONNECT, NOT_CREATED, "fresh", &at("127.0.0.1"), &good);
    for roots in ["system", "bundled"] {
        let config = with(config(&format!("https://127.0.0.1:{port}")), json!({ "tls": { "roots": roots } }));
        flat.stays("clients with roots come and go", CONNECT, NOT_CREATED, "fresh", &config, &good);
    }
    let no_token = json!({ "base_url": "http://127.0.0.1:1" });
    flat.stays("no token", FORBIDDEN, NOT_CREATED, "kept", &no_token, &good);
    flat.stays("bad task", BAD_TASK, NOT_CREATED, "kept", &at("127.0.0.1"), r#"{"business_id":"x","video":[{}]}"#);
    flat.stays("no JSON", BAD_TASK, NOT_CREATED, "kept", &at("127.0.0.1"), "{\"business_id\"");
    let bad_config = with(at("127.0.0.1"), json!({ "timeout_ms": "x", "unknown": 1, "tls": { "roots": "file" } }));
    flat.stays("bad configuration", BAD_CONFIG, ANY, "fresh", &bad_config, &good);
    let missing = with(at("127.0.0.1"), json!({ "tls": { "roots": "file", "ca_file": "/nowhere/ca.pem" } }));
    flat.stays("a file that is missing", BAD_CONFIG, ANY, "fresh", &missing, &good);
}

#[test]
fn calls_that_a_server_answers_over_http() {
    let flat = Flat::new();
    let server = Server::plain();
    let config = with(config(&server.base_url()), json!({ "keep_bodies": true }));
    let answers = |status: &str, body: &str| Script::request().send(answer(status, Framing::Length, body.as_bytes()));
    for (case, code, outcome, script) in [
        ("made", OK, CREATED, answers("200 OK", &success_body("FLAT")).close()),
        ("failed", FAILED, NOT_CREATED, answers("200 OK", &failure_body("no such branch")).close()),
        ("forbidden", FORBIDDEN, NOT_CREATED, answers("403 Forbidden", "no").close()),
        ("bad response", BAD_RESPONSE, UNKNOWN, answers("200 OK", "<html></html>").close()),
        ("no number", BAD_RESPONSE, CREATED, answers("200 OK", r#"{"status":1}"#).close()),
        ("reset after the request", BROKEN, UNKNOWN, Script::request().reset()),
        ("reset in the request", BROKEN, UNKNOWN, Script::silent().then(Step::Read(1)).then(Step::Reset)),
        ("closed after the request", BROKEN, UNKNOWN, Script::request().fin()),
        ("cut in the head", BROKEN, UNKNOWN, Script::request().send(*b"HTTP/1.1 200 O").fin()),
    ] {
        flat.stays_with(case, code, outcome, &server, &config, script);
    }
    let whole = answer("200 OK", Framing::Length, success_body("FLAT").as_bytes());
    let cut = Script::request().send(&whole[..whole.len() - 1]).fin();
    flat.stays_with("cut in the body", BROKEN, UNKNOWN, &server, &config, cut);
}

#[test]
fn calls_that_a_server_answers_over_https() {
    let flat = Flat::new();
    let (authority, stranger) = (Authority::new(), Authority::new());
    for version in [Version::Tls12, Version::Tls13] {
        let server = Server::start("127.0.0.1", Some(authority.server(Identity::right(version))));
        let config = config_tls(&server.base_url(), &authority);
        let case = |what: &str| format!("{what}, {version:?}");
        let whole = answer("200 OK", Framing::Length, success_body("FLAT").as_bytes());
        let made = Script::request().send(whole.clone()).close();
        flat.stays_with(&case("made"), OK, CREATED, &server, &config, made);
        let cut = Script::request().send(&whole[..whole.len() - 1]).close();
        flat.stays_with(&case("cut in the body"), BROKEN, UNKNOWN, &server, &config, cut);
        // Whether the client has its session tickets by then makes no difference.
        let reset = Script::request().then(Step::Reset);
        flat.stays_with(&case("reset after the request"), BROKEN, UNKNOWN, &server, &config, reset);
        let closed = Script::silent().then(Step::Raw(5)).fin();
        flat.stays_with(&case("closed in the handshake"), CONNECT, NOT_CREATED, &server, &config, closed);
        let config = config_tls(&server.base_url(), &stranger);
        flat.stays_with(&case("unknown authority"), TLS, NOT_CREATED, &server, &config, Script::request());
    }
}

#[test]
fn calls_over_connections_that_are_kept() {
    let flat = Flat::new();
    let authority = Authority::new();
    let http = Server::plain();
    let tls = |version| Server::start("127.0.0.1", Some(authority.server(Identity::right(version))));
    let (tls_1_2, tls_1_3) = (tls(Version::Tls12), tls(Version::Tls13));
    for (what, server, config) in [
        ("http", &http, config(&http.base_url())),
        ("TLS 1.2", &tls_1_2, config_tls(&tls_1_2.base_url(), &authority)),
        ("TLS 1.3", &tls_1_3, config_tls(&tls_1_3.base_url(), &authority)),
    ] {
        let config = with(config, json!({ "idle_timeout_ms": KEPT_MS }));
        let busy = answer("429 Busy", Framing::Length, b"later");
        let served = Script::forever(Script::served());
        let refused = Script::forever(Script::request().send(busy));
        // With another answer in the same piece, so that the connection cannot be kept.
        let doubled = Script::made().send(success("FLAT").repeat(2)).close();
        let (made, not_made) = ((OK, CREATED), (BUSY, NOT_CREATED));
        let calls = WARM_UP + CALLS;
        for (case, expected, clients, script, connections) in [
            ("made", made, "kept", served.clone(), 1),
            ("refused", not_made, "kept", refused, 1),
            ("answered twice", made, "kept", doubled, calls),
            ("clients come and go", made, "fresh", served, calls),
        ] {
            let case = format!("{case}, {what}");
            assert_eq!(flat.connections(&case, expected, clients, server, &config, script), connections, "{case}");
        }
    }
}

#[test]
fn calls_whose_deadline_passes() {
    let flat = Flat::new();
    let authority = Authority::new();
    let http = Server::plain();
    let https = Server::start("127.0.0.1", Some(authority.server(Identity::right(Version::Tls13))));
    for (server, config) in [(&http, config(&http.base_url())), (&https, config_tls(&https.base_url(), &authority))] {
        server.always(Script::silent());
        let config = with(config, json!({ "timeout_ms": 1 }));
        flat.stays("deadline", TIMEOUT, ANY, "kept", &config, &task("FLAT"));
        server.settle(0).expect("the connections have ended");
    }
}

#[test]
fn diagnoses() {
    let flat = Flat::new();
    let authority = Authority::new();
    let http = Server::plain();
    let tls = |version| Server::start("127.0.0.1", Some(authority.server(Identity::right(version))));
    let (tls_1_2, tls_1_3) = (tls(Version::Tls12), tls(Version::Tls13));
    let well = Script::request().send(head("200 OK", &["Date: Wed, 25 Nov 2026 08:00:00 GMT"]));
    let reset = Script::request().then(Step::Reset);
    for (what, server) in [("http", &http), ("TLS 1.2", &tls_1_2), ("TLS 1.3", &tls_1_3)] {
        let config = config_tls(&server.base_url(), &authority);
        let untrusting = with(config.clone(), json!({ "tls": { "roots": "bundled" } }));
        for (case, code, config, script) in [
            ("well", OK, &config, &well),
            ("reset", BROKEN, &config, &reset),
            ("not trusted", if what == "http" { OK } else { TLS }, &untrusting, &well),
        ] {
            server.always(script.clone());
            flat.stays(&format!("{case}, {what}"), code, ANY, "kept", config, "diagnose");
            server.settle(0).expect("the connections have ended");
        }
    }
}
