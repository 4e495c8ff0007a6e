//! A connection that ends while the request goes out, before it, or right after it.

use std::sync::Arc;

use arctos_tests::api::{NOT_CREATED, Owned, task};
use arctos_tests::expected::{BROKEN_UNKNOWN, CONNECT_NOT_CREATED, MADE};
use arctos_tests::http::{Framing, answer};
use arctos_tests::ledger::truth;
use arctos_tests::server::{Change, Script, Server, Step};
use arctos_tests::stage::{Stage, config, config_tls, run_all};
use arctos_tests::tls::{Authority, Identity, Version};
use serde_json::json;
use socket2::{Domain, Socket, Type};

fn made(number: &str) -> Script {
    let body = arctos_tests::http::success_body(number);
    Script::made().send(answer("200 OK", Framing::Length, body.as_bytes())).close()
}

type End = fn(Script) -> Script;

/// The ways in which a connection ends; over plain HTTP the last two are one.
const ENDS: [(&str, End); 3] = [("reset", Script::reset), ("FIN", Script::fin), ("close_notify", Script::close)];

/// The connection ends when the server has read each number of the request's bytes.
fn end_after_each_byte(stage: impl Fn() -> Stage + Sync, ends: &[(&str, End)]) {
    let length = stage().run("a whole call", MADE, made).request().length;
    let mut rows = Vec::new();
    for read in 1..=length {
        for (what, end) in ends {
            let case = format!("{read} of {length} bytes read, {what}");
            rows.push((case, BROKEN_UNKNOWN, end(Script::silent().then(Step::Read(read)))));
        }
    }
    run_all(stage, rows);
}

#[test]
fn ended_after_each_byte_of_the_request() {
    end_after_each_byte(Stage::http, &ENDS[..2]);
}

#[test]
fn ended_after_each_byte_of_the_request_over_tls_1_2() {
    end_after_each_byte(|| Stage::https(Version::Tls12), &ENDS);
}

#[test]
fn ended_after_each_byte_of_the_request_over_tls_1_3() {
    end_after_each_byte(|| Stage::https(Version::Tls13), &ENDS);
}

#[test]
fn ended_after_the_appointment_was_made() {
    for (scheme, stage) in
        [("http", Stage::http()), ("TLS 1.2", Stage::https(Version::Tls12)), ("TLS 1.3", Stage::https(Version::Tls13))]
    {
        for (_, end) in ENDS {
            let done = stage.run(scheme, BROKEN_UNKNOWN, |_| end(Script::made()));
            assert_eq!(stage.server.ledger().made(&done.number), 1);
        }
    }
}

#[test]
fn a_big_request_is_reset_while_it_goes_out() {
    let stage = Stage::http();
    let remark = "x".repeat(32 << 20);
    for (_, end) in &ENDS[..2] {
        let number = stage.number();
        let task = task(&number).replace("\"video\"", &format!("\"task_remark\":\"{remark}\",\"video\""));
        let script = end(Script::silent().then(Step::Read(1 << 20)));
        stage.run_task("a big body", BROKEN_UNKNOWN, &number, &task, script);
    }
}

#[test]
fn a_refused_connection_is_not_created() {
    // Bound and not listening: the port belongs to this test, and the kernel refuses for it.
    for (domain, address, host) in [
        (Domain::IPV4, "127.0.0.1:0", "127.0.0.1"),
        (Domain::IPV4, "127.0.0.1:0", "localhost"),
        (Domain::IPV6, "[::1]:0", "[::1]"),
    ] {
        let socket = Socket::new(domain, Type::STREAM, None).expect("a socket");
        let address: std::net::SocketAddr = address.parse().expect("an address");
        socket.bind(&address.into()).expect("a port");
        let port = socket.local_addr().expect("an address").as_socket().expect("of the net").port();
        for scheme in ["http", "https"] {
            let client = Owned::new(&config(&format!("{scheme}://{host}:{port}")));
            let reply = client.add(&task("BR0943-187"));
            let context = format!("{scheme} {host}: {reply:?}");
            assert_eq!(
                (reply.code, reply.outcome),
                (CONNECT_NOT_CREATED.code, CONNECT_NOT_CREATED.outcome),
                "{context}"
            );
            assert_eq!(truth(&reply, 0, &[]), Ok(()), "{context}");
            assert_eq!(reply.json()["attempts"], 1, "{context}");
            assert_eq!(reply.json()["host"], format!("{host}:{port}"), "{context}");
        }
    }
}

/// The handshake ends after each byte of what the server must read before the client is done with it.
fn end_in_the_handshake(version: Version) {
    let identity = Identity { resumption: false, ..Identity::right(version) };
    let stage = || Stage::https_with(identity, json!({}));
    let flights = stage().run("a whole call", MADE, made).only().flights.clone();
    // With TLS 1.3 the client's request follows its second flight at once, and so the handshake is over
    // for the client when its first flight is answered. With TLS 1.2 it waits for an answer to the second.
    let length = match version {
        Version::Tls12 => flights[1],
        Version::Tls13 => flights[0],
    };
    let length = usize::try_from(length).expect("a length");
    assert!(length > 100, "{flights:?}");
    let mut rows = Vec::new();
    for read in 0..length {
        for (what, end) in &ENDS[..2] {
            let case = format!("{version:?}, {read} of {length} bytes, {what}");
            rows.push((case, CONNECT_NOT_CREATED, end(Script::silent().then(Step::Raw(read)))));
        }
    }
    for (case, done) in run_all(stage, rows) {
        assert_eq!(done.only().request_bytes(), 0, "{case}");
    }
}

#[test]
fn ended_in_the_handshake_of_tls_1_2() {
    end_in_the_handshake(Version::Tls12);
}

#[test]
fn ended_in_the_handshake_of_tls_1_3() {
    end_in_the_handshake(Version::Tls13);
}

/// The server's handshake ends after each of its bytes: first its first flight, then what follows the client's second.
fn end_in_the_servers_flights(version: Version) {
    let authority = Authority::new();
    let config = authority.server(Identity::right(version));
    let stage = || {
        let server = Server::start("127.0.0.1", Some(Arc::clone(&config)));
        let client = Owned::new(&config_tls(&server.base_url(), &authority));
        Stage::of(server, client)
    };
    let first = |change| Script::silent().then(Step::Flight(change));
    let second = |change| first(Change::None).then(Step::Flight(change));
    // With TLS 1.3 the client is done after the server's first flight: its request goes out, and the server's second
    // flight are session tickets.
    let later = match version {
        Version::Tls12 => CONNECT_NOT_CREATED,
        Version::Tls13 => BROKEN_UNKNOWN,
    };
    let length = |expected, script: Script| {
        stage().run("a flight without its last byte", expected, |_| script.fin()).only().records.len()
    };
    let lengths = [length(CONNECT_NOT_CREATED, first(Change::Without(1))), length(later, second(Change::Without(1)))];
    // Signatures differ in length by a few bytes, so that the end is reached from both sides.
    let changes = |length: usize| (0..length - 10).map(Change::First).chain((1..=30).map(Change::Without));
    let mut rows = Vec::new();
    for change in changes(lengths[0]) {
        for (what, end) in &ENDS[..2] {
            let case = format!("{version:?}, first flight of {} bytes, {change:?}, {what}", lengths[0]);
            rows.push((case, CONNECT_NOT_CREATED, end(first(change))));
        }
    }
    for change in changes(lengths[1]) {
        let case = format!("{version:?}, second flight of {} bytes, {change:?}, FIN", lengths[1]);
        rows.push((case, later, second(change).fin()));
    }
    for (case, done) in run_all(stage, rows) {
        assert_eq!(done.only().request_bytes() == 0, done.reply.outcome == NOT_CREATED, "{case}");
    }
}

#[test]
fn ended_in_the_servers_flights_of_tls_1_2() {
    end_in_the_servers_flights(Version::Tls12);
}

#[test]
fn ended_in_the_servers_flights_of_tls_1_3() {
    end_in_the_servers_flights(Version::Tls13);
}
