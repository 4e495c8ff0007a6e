//! Servers that make every appointment, for programs that are watched while they use the library.

use std::process::Command;

use serde_json::Value;

use crate::http::{Framing, answer, success_body};
use crate::server::{Script, Server};
use crate::stage::{config, config_tls};
use crate::tls::{Authority, Identity, Version};
use crate::tools::Host;

/// What [`Service`] gives every appointment for its number.
pub const NUMBER: &str = "T-N";

/// A server that makes every appointment.
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
        let whole = answer("200 OK", Framing::Length, success_body("N").as_bytes());
        server.always(Script::made().send(whole).close());
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

    /// The configuration of a client that knows it by name, so that a thread of the library looks the name up.
    pub fn config(&self) -> Value {
        let url = self.server.base_url_as("localhost");
        self.authority.as_ref().map_or_else(|| config(&url), |authority| config_tls(&url, authority))
    }

    /// Waits until its connections have ended: it must have made this appointment, once.
    #[track_caller]
    pub fn made(&self, number: &str) {
        self.server.settle(0).expect("the connections have ended");
        assert_eq!(self.server.ledger().made(number), 1, "{number}");
    }
}

/// Runs `guest`, a program of that name in `tests/c`, against each service: `run` is given its command with
/// configurations with which a call succeeds, is refused, is shown a certificate of another authority, and reaches
/// nobody.
#[track_caller]
pub fn guests(guest: &Host, run: impl Fn(&mut Command)) {
    let failing = Server::plain();
    failing.always(Script::request().send(answer("500 No", Framing::Length, b"no")).close());
    let (another, trusted) = (Authority::new(), Authority::new());
    let strange = Server::start("127.0.0.1", Some(another.server(Identity::right(Version::Tls13))));
    strange.always(Script::request());
    let failures =
        [config(&failing.base_url()), config_tls(&strange.base_url(), &trusted), config("http://127.0.0.1:1")];
    for service in Service::all() {
        let mut command = guest.command();
        command.arg(service.config().to_string()).args(failures.iter().map(Value::to_string));
        run(&mut command);
        service.made("GUEST");
    }
}
