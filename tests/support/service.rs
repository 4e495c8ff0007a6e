//! Servers that make every appointment, for programs that are watched while they use the library.

use std::process::Command;

use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};

use crate::http::{Framing, Request, answer, head};
use crate::proxy::{Proxy, Script as ProxyScript};
use crate::server::{Script, Server, Step};
use crate::stage::{TOKEN, config, config_tls, with};
use crate::tls::{Authority, Identity, Version};
use crate::tokens::{refusal, refuses};
use crate::tools::Host;

/// How many threads of `guest` call at once.
const THREADS: usize = 4;

/// A server that makes every appointment, and keeps its connections until the client closes them.
pub struct Service {
    server: Server,
    authority: Option<Authority>,
}

impl Service {
    /// One of each: over http, over TLS 1.2 and over TLS 1.3.
    pub fn all() -> [Service; 3] {
        [Service::http(), Service::https(Version::Tls12), Service::https(Version::Tls13)]
    }

    /// Over http.
    pub fn http() -> Service {
        Service::of(Server::plain(), None)
    }

    /// Over https.
    pub fn https(version: Version) -> Service {
        let authority = Authority::new();
        let server = Server::start("127.0.0.1", Some(authority.server(Identity::right(version))));
        Service::of(server, Some(authority))
    }

    fn of(server: Server, authority: Option<Authority>) -> Service {
        server.always(Script::forever(Script::served()));
        Service { server, authority }
    }

    /// Its base URL.
    pub fn base_url(&self) -> String {
        self.server.base_url()
    }

    /// The file of its authority, over https.
    pub fn ca_file(&self) -> Option<&str> {
        self.authority.as_ref().map(Authority::file)
    }

    /// The configuration of a client that knows it by name, so that a thread of the library looks the name up, and
    /// that keeps its connections for so long.
    pub fn config(&self, idle_timeout_ms: u32) -> Value {
        let url = self.server.base_url_as("localhost");
        let config = self.authority.as_ref().map_or_else(|| config(&url), |authority| config_tls(&url, authority));
        with(config, json!({ "idle_timeout_ms": idle_timeout_ms }))
    }

    /// Waits until its connections have ended: it must have made this appointment, once.
    #[track_caller]
    pub fn made(&self, number: &str) {
        self.server.settle(0).expect("the connections have ended");
        assert_eq!(self.server.ledger().made(number), 1, "{number}");
    }
}

/// Runs `guest`, a program of that name in `tests/c`: `run` is given its command. It calls each service, with connections
/// that are kept and without, and makes calls that are refused, are shown a certificate of another authority, and reach
/// nobody. At last it calls in a bank's network.
#[track_caller]
pub fn guests(guest: &Host, run: impl Fn(&mut Command)) {
    let failing = Server::plain();
    failing.always(Script::request().send(answer("500 No", Framing::Length, b"no")).close());
    let (another, trusted) = (Authority::new(), Authority::new());
    let strange = Server::start("127.0.0.1", Some(another.server(Identity::right(Version::Tls13))));
    strange.always(Script::request());
    for idle_timeout_ms in [0, 60_000] {
        for service in Service::all() {
            let mut command = guest.command();
            does(&mut command, "call", "ARCTOS_OK", &service.config(idle_timeout_ms));
            does(&mut command, "call", "ARCTOS_SERVER_ERROR", &config(&failing.base_url()));
            does(&mut command, "call", "ARCTOS_TLS", &config_tls(&strange.base_url(), &trusted));
            does(&mut command, "call", "ARCTOS_CONNECT", &config("http://127.0.0.1:1"));
            run(&mut command);
            for number in ["GUEST-1", "GUEST-2", "GUEST-3"] {
                service.made(number);
            }
            let connections = service.server.connections();
            assert_eq!(connections, if idle_timeout_ms == 0 { 3 } else { 1 });
        }
    }
    for version in [Version::Tls12, Version::Tls13] {
        in_a_network(version, guest, &run);
    }
}

/// Has `guest` do something with a client of this configuration, which must end with the code of this name.
fn does(guest: &mut Command, what: &str, code: &str, config: &Value) {
    guest.args([what, code, &config.to_string()]);
}

/// Tokens by log-in and from a file, a proxy with a password, a server that asks for a certificate, pins, and diagnoses.
#[track_caller]
fn in_a_network(version: Version, guest: &Host, run: impl Fn(&mut Command)) {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let mut command = guest.command();

    // The threads come first: what they wait for is given no longer than this test waits.
    let server = Server::start("127.0.0.1", Some(authority.server(Identity::right(version))));
    let logs_in = |token: &str| {
        let body = json!({ "status": 1, "info": { "token": token } }).to_string();
        server.next(Script::request().send(answer("200 OK", Framing::Length, body.as_bytes())));
    };
    logs_in("token-1");
    for _ in 0..THREADS {
        server.next(Script::request().then(Step::AwaitRelease).send(refusal(403)));
    }
    logs_in("token-2");
    for _ in 0..THREADS {
        server.next(Script::served());
    }
    logs_in("token-3");
    server.next(refuses(403));
    logs_in("token-4");
    for _ in 0..3 {
        server.next(Script::served());
    }
    server.next(Script::request().send(head("204 Well", &["Date: Tue, 24 Nov 2026 07:30:00 GMT"])));
    let proxy = Proxy::to(server.address());
    let body = json!({ "user": "branch-943", "password": "p\u{e4}ssword at the server" });
    let login = json!({ "path": "/api/login?of=943", "body": body, "token_pointer": "/info/token" });
    let keys = json!({ "login": login, "proxy": proxy.url_with("branch:password%20at%20the%20proxy") });
    let mut logging_in = with(config_tls(&server.base_url(), &authority), keys);
    logging_in.as_object_mut().expect("an object").remove("token");
    for what in ["threads", "call", "diagnose"] {
        does(&mut command, what, "ARCTOS_OK", &logging_in);
    }

    let closed = Proxy::to(server.address());
    closed.always(ProxyScript::head().send(head("407 Proxy Authentication Required", &["Content-Length: 0"])).fin());
    let stopped = with(logging_in, json!({ "proxy": closed.url_with("branch:another%20password") }));
    for what in ["call", "diagnose"] {
        does(&mut command, what, "ARCTOS_CONNECT", &stopped);
    }

    let file = NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "token-of-a-file").expect("the file is written");
    let changing = Server::plain();
    for script in [Script::served(), refuses(403), Script::served(), Script::served()] {
        changing.next(script);
    }
    let mut reading = with(config(&changing.base_url()), json!({ "token_file": file.path() }));
    reading.as_object_mut().expect("an object").remove("token");
    does(&mut command, "call", "ARCTOS_OK", &reading);

    // With a journal, and once more, of which the server hears nothing.
    let once = Server::plain();
    once.always(Script::served());
    let folder = TempDir::new().expect("a folder");
    let journal = json!({ "journal": { "file": folder.path().join("journal") } });
    let keeping = with(config(&once.base_url()), journal);
    for what in ["call", "threads", "call", "many", "many"] {
        does(&mut command, what, "ARCTOS_OK", &keeping);
    }

    let identity = Identity { asks_for_certificate: true, ..Identity::right(version) };
    let (tls, pin) = authority.server_with_pin(identity);
    let asking = Server::start("127.0.0.1", Some(tls));
    asking.always(Script::served());
    let files = authority.client(None);
    let known = |authority: &Authority, pin: String| {
        let keys = authority.trusted_with(with(files.keys(), json!({ "pins": [pin] })));
        with(config(&asking.base_url()), keys)
    };
    does(&mut command, "call", "ARCTOS_OK", &known(&authority, pin.clone()));
    does(&mut command, "call", "ARCTOS_TLS", &known(&authority, stranger.pin()));
    does(&mut command, "diagnose", "ARCTOS_TLS", &known(&stranger, pin));

    std::thread::scope(|scope| {
        scope.spawn(|| {
            server.await_requests(1 + THREADS).expect("a log-in, and all of the threads");
            server.release();
        });
        run(&mut command);
    });

    let two = ["token-2"; THREADS];
    let first = [&[""], &["token-1"; THREADS][..], &[""], &two, &["", "token-3", ""], &["token-4"; 3], &[""]].concat();
    assert_eq!(tokens(&server), first);
    assert_eq!(tokens(&changing), ["token-of-a-file", "token-of-a-file", "another-token", "another-token"]);
    assert_eq!(tokens(&asking), [TOKEN; 3]);
    for (proxy, credentials, connections) in
        [(&proxy, "branch:password at the proxy", first.len()), (&closed, "branch:another password", 4)]
    {
        let seen = proxy.settle().expect("the connections have ended");
        assert_eq!(seen.len(), connections);
        assert!(seen.iter().all(|seen| seen.connect().credentials().as_deref() == Some(credentials)));
    }
}

/// The token of each request, in the order of the connections; empty where there is none.
#[track_caller]
fn tokens(server: &Server) -> Vec<String> {
    let seen = server.settle(0).expect("the connections have ended");
    let token = |request: &Request| request.header("Authorization").unwrap_or_default().replace("Bearer ", "");
    seen.iter().flat_map(|seen| seen.requests().map(token)).collect()
}
