//! Servers that make every appointment, for programs that are watched while they use the library.

use std::process::Command;

use serde_json::{Value, json};

use crate::http::{Framing, answer};
use crate::server::{Script, Server};
use crate::stage::{config, config_tls, with};
use crate::tls::{Authority, Identity, Version};
use crate::tools::Host;

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

/// Runs `guest`, a program of that name in `tests/c`, against each service, with connections that are kept and without:
/// `run` is given its command with configurations with which a call succeeds, is refused, is shown a certificate of
/// another authority, and reaches nobody.
#[track_caller]
pub fn guests(guest: &Host, run: impl Fn(&mut Command)) {
    let failing = Server::plain();
    failing.always(Script::request().send(answer("500 No", Framing::Length, b"no")).close());
    let (another, trusted) = (Authority::new(), Authority::new());
    let strange = Server::start("127.0.0.1", Some(another.server(Identity::right(Version::Tls13))));
    strange.always(Script::request());
    let failures =
        [config(&failing.base_url()), config_tls(&strange.base_url(), &trusted), config("http://127.0.0.1:1")];
    for idle_timeout_ms in [0, 60_000] {
        for service in Service::all() {
            let mut command = guest.command();
            command.arg(service.config(idle_timeout_ms).to_string()).args(failures.iter().map(Value::to_string));
            run(&mut command);
            for number in ["GUEST-1", "GUEST-2", "GUEST-3"] {
                service.made(number);
            }
            let connections = service.server.connections();
            assert_eq!(connections, if idle_timeout_ms == 0 { 3 } else { 1 });
        }
    }
}
