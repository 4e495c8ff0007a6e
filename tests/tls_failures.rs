//! A server that cannot prove who it is gets no byte of the request.

use arctos_tests::api::{Owned, task};
use arctos_tests::expected::{MADE, TLS_NOT_CREATED};
use arctos_tests::http::{Framing, answer, find, head, success_body};
use arctos_tests::server::{Script, Server, Step};
use arctos_tests::stage::{Stage, TOKEN, config, config_tls, with};
use arctos_tests::tls::{Authority, Identity, Version};
use serde_json::json;

/// One call to a server of this identity, by a client that trusts this authority and knows it by this name.
#[track_caller]
fn refused(case: &str, identity: Identity, trusted: &Authority, signer: &Authority, name: &str) {
    let server = Server::start("127.0.0.1", Some(signer.server(identity)));
    let client = Owned::new(&config_tls(&server.base_url_as(name), trusted));
    let stage = Stage::of(server, client);
    let done = stage.run(&format!("{case}, {:?}", identity.version), TLS_NOT_CREATED, |_| Script::request());
    assert_eq!(done.seen.request_bytes(), 0, "{case}");
    assert!(!done.seen.handshaken, "{case}: the client finished the handshake");
    assert_eq!(done.reply.json()["host"], format!("{name}:{}", stage.server.address().port()), "{case}");
}

#[test]
fn certificates_are_checked() {
    let authority = Authority::new();
    let stranger = Authority::new();
    for version in [Version::Tls12, Version::Tls13] {
        let right = Identity::right(version);
        refused("unknown authority", right, &authority, &stranger, "127.0.0.1");
        refused("expired", Identity { expired: true, ..right }, &authority, &authority, "127.0.0.1");
        let other = Identity { names: &["arctos.bank.example"], ..right };
        refused("another name", other, &authority, &authority, "localhost");
        refused("no such address", other, &authority, &authority, "127.0.0.1");
        let name_only = Identity { names: &["localhost"], ..right };
        refused("a name instead of an address", name_only, &authority, &authority, "127.0.0.1");
    }
}

#[test]
fn other_roots_do_not_know_the_authority() {
    for roots in ["system", "bundled"] {
        let authority = Authority::new();
        let server = Server::start("127.0.0.1", Some(authority.server(Identity::right(Version::Tls13))));
        let client = Owned::new(&with(config(&server.base_url()), json!({ "tls": { "roots": roots } })));
        let stage = Stage::of(server, client);
        let done = stage.run(roots, TLS_NOT_CREATED, |_| Script::request());
        assert_eq!(done.seen.request_bytes(), 0, "{roots}");
    }
}

#[test]
fn the_right_certificate_is_accepted_after_a_wrong_one() {
    // The client of the right server is not affected by what it was shown before.
    let authority = Authority::new();
    refused(
        "expired",
        Identity { expired: true, ..Identity::right(Version::Tls13) },
        &authority,
        &authority,
        "localhost",
    );
    let server = Server::start("127.0.0.1", Some(authority.server(Identity::right(Version::Tls13))));
    let client = Owned::new(&config_tls(&server.base_url_as("localhost"), &authority));
    Stage::of(server, client).run("the right one", MADE, |number| {
        Script::made().send(answer("200 OK", Framing::Length, success_body(number).as_bytes())).close()
    });
}

#[test]
fn a_server_that_speaks_no_tls_gets_nothing() {
    for (case, answer) in [
        ("http", head("400 Bad Request", &["Content-Length: 0"])),
        ("handshake_failure", b"\x15\x03\x03\x00\x02\x02\x28".to_vec()),
        ("protocol_version", b"\x15\x03\x01\x00\x02\x02\x46".to_vec()),
        ("garbage", b"220 mail.bank.example ESMTP\r\n".to_vec()),
    ] {
        let authority = Authority::new();
        let server = Server::plain();
        let url = server.base_url().replace("http://", "https://");
        let stage = Stage::of(server, Owned::new(&config_tls(&url, &authority)));
        let done = stage.run(case, TLS_NOT_CREATED, |_| Script::silent().then(Step::Read(5)).send(answer).close());
        let seen = &done.seen.plain;
        assert_eq!(seen[0], 0x16, "{case}: no handshake");
        for text in [TOKEN, "POST", &done.number, &task(&done.number)] {
            assert_eq!(find(seen, text.as_bytes()), None, "{case}: {text}");
        }
    }
}

#[test]
fn a_server_that_breaks_the_handshake_gets_nothing() {
    for version in [Version::Tls12, Version::Tls13] {
        let stage = Stage::https(version);
        let alert = b"\x15\x03\x03\x00\x02\x02\x28".to_vec();
        let script = Script::silent().then(Step::Raw(5)).then(Step::Bare(alert)).fin();
        let done = stage.run(&format!("{version:?}"), TLS_NOT_CREATED, |_| script);
        assert_eq!(done.seen.request_bytes(), 0);
    }
}
