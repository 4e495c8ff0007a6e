//! A connection that ends while the request goes out, before it, or right after it.

use arctos_tests::api::{Owned, task};
use arctos_tests::expected::{BROKEN_UNKNOWN, CONNECT_NOT_CREATED, MADE};
use arctos_tests::http::{Framing, answer};
use arctos_tests::ledger::truth;
use arctos_tests::server::{Script, Step};
use arctos_tests::stage::{Stage, Table, config};
use arctos_tests::tls::{Identity, Version};
use serde_json::json;
use socket2::{Domain, Socket, Type};

fn made(number: &str) -> Script {
    let body = arctos_tests::http::success_body(number);
    Script::made().send(answer("200 OK", Framing::Length, body.as_bytes())).close()
}

fn end_after_each_byte(end: fn(Script) -> Script) {
    let stage = Stage::http();
    let length = stage.run("a whole call", MADE, made).seen.request.expect("a request").length;
    let mut table = Table::new();
    for read in 1..=length {
        let script = end(Script::silent().then(Step::Read(read)));
        table.take(stage.attempt(&format!("{read} of {length} bytes read"), BROKEN_UNKNOWN, |_| script));
    }
    table.finish();
    assert_eq!(stage.server.ledger().all().len(), 1, "nothing but the first call made an appointment");
}

#[test]
fn reset_after_each_byte_of_the_request() {
    end_after_each_byte(Script::reset);
}

#[test]
fn closed_after_each_byte_of_the_request() {
    end_after_each_byte(Script::fin);
}

#[test]
fn over_tls_after_every_tenth_byte_of_the_request() {
    for version in [Version::Tls12, Version::Tls13] {
        let stage = Stage::https(version);
        let length = stage.run("a whole call", MADE, made).seen.request.expect("a request").length;
        let mut table = Table::new();
        for read in (1..length).step_by(10).chain([length]) {
            for end in [Script::reset, Script::fin, Script::close] {
                let script = end(Script::silent().then(Step::Read(read)));
                let case = format!("{version:?}, {read} of {length} bytes read");
                table.take(stage.attempt(&case, BROKEN_UNKNOWN, |_| script));
            }
        }
        table.finish();
    }
}

#[test]
fn ended_after_the_appointment_was_made() {
    for (scheme, stage) in
        [("http", Stage::http()), ("TLS 1.2", Stage::https(Version::Tls12)), ("TLS 1.3", Stage::https(Version::Tls13))]
    {
        for end in [Script::reset, Script::fin, Script::close] {
            let done = stage.run(scheme, BROKEN_UNKNOWN, |_| end(Script::made()));
            assert_eq!(stage.server.ledger().made(&done.number), 1);
        }
    }
}

#[test]
fn a_big_request_is_reset_while_it_goes_out() {
    let stage = Stage::http();
    let remark = "x".repeat(32 << 20);
    for end in [Script::reset, Script::fin] {
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

#[test]
fn a_name_that_is_unknown_is_not_created() {
    // RFC 6761: names below `.invalid` do not exist.
    let client = Owned::new(&config("https://arctos.bank.invalid"));
    let reply = client.add(&task("BR0943-187"));
    assert_eq!((reply.code, reply.outcome), (CONNECT_NOT_CREATED.code, CONNECT_NOT_CREATED.outcome), "{reply:?}");
    assert_eq!(truth(&reply, 0, &[]), Ok(()));
}

/// The handshake ends after each byte of what the server must read before the client is done with it.
fn end_in_the_handshake(version: Version) {
    let identity = Identity { resumption: false, ..Identity::right(version) };
    let stage = Stage::https_with(identity, json!({}));
    let flights = stage.run("a whole call", MADE, made).seen.flights;
    // With TLS 1.3 the client's request follows its second flight at once, and so the handshake is over
    // for the client when its first flight is answered. With TLS 1.2 it waits for an answer to the second.
    let length = match version {
        Version::Tls12 => flights[1],
        Version::Tls13 => flights[0],
    };
    let length = usize::try_from(length).expect("a length");
    assert!(length > 100, "{flights:?}");
    let mut table = Table::new();
    for read in 0..length {
        for (what, end) in [("reset", Script::reset as fn(Script) -> Script), ("closed", Script::fin)] {
            let script = end(Script::silent().then(Step::Raw(read)));
            let case = format!("{version:?}, {read} of {length} bytes, {what}");
            let Some(done) = table.take(stage.attempt(&case, CONNECT_NOT_CREATED, |_| script)) else { continue };
            assert_eq!(done.seen.request_bytes(), 0, "{case}");
        }
    }
    table.finish();
    assert_eq!(stage.server.ledger().all().len(), 1, "nothing but the first call made an appointment");
}

#[test]
fn ended_in_the_handshake_of_tls_1_2() {
    end_in_the_handshake(Version::Tls12);
}

#[test]
fn ended_in_the_handshake_of_tls_1_3() {
    end_in_the_handshake(Version::Tls13);
}
