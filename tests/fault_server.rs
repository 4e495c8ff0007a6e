//! The fault server does what its scripts say, and its ledger and checks notice what they must.
//! Driven by plain sockets: nothing here needs the library.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use arctos_tests::api::{BROKEN, CREATED, FORBIDDEN, NOT_CREATED, OK, Reply, UNKNOWN};
use arctos_tests::expected;
use arctos_tests::http::{Framing, Request, Said, answer, chunks, success_body};
use arctos_tests::ledger::truth;
use arctos_tests::server::{Change, Script, Seen, Server, Step};
use arctos_tests::tls::{Authority, Identity, Version};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

fn request(number: &str) -> Vec<u8> {
    let body = format!("{{\"out_task_num\":\"{number}\"}}");
    format!("POST /api/task/do_add HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.address()).expect("the server listens")
}

fn read_all(mut stream: impl Read) -> (Vec<u8>, Option<ErrorKind>) {
    let mut all = Vec::new();
    let end = stream.read_to_end(&mut all).err().map(|error| error.kind());
    (all, end)
}

#[test]
fn an_appointment_is_entered_and_answered() {
    let server = Server::plain();
    let whole = answer("200 OK", Framing::Length, success_body("A").as_bytes());
    server.next(Script::made().send(whole.clone()).close());
    let mut socket = connect(&server);
    socket.write_all(&request("A")).unwrap();
    assert_eq!(read_all(&socket), (whole.clone(), None));
    drop(socket);
    let seen = &server.settle(0).unwrap()[0];
    assert_eq!((server.ledger().made("A"), server.ledger().made("B")), (1, 0));
    assert_eq!((seen.plain.as_slice(), seen.sent.as_slice()), (&*request("A"), &*whole));
    assert_eq!((seen.segments, &seen.note, &seen.fault), (1, &None, &None));
    assert_eq!(Said::read(&seen.sent).unwrap().body.unwrap(), success_body("A").into_bytes());
}

#[test]
fn a_request_in_two_writes_is_two_segments() {
    let server = Server::plain();
    server.next(Script::request().close());
    let mut socket = connect(&server);
    socket.set_nodelay(true).unwrap();
    let request = request("A");
    socket.write_all(&request[..20]).unwrap();
    socket.write_all(&request[20..]).unwrap();
    read_all(&socket);
    drop(socket);
    assert_eq!(server.settle(0).unwrap()[0].segments, 2);
}

#[test]
fn the_server_stops_reading_at_the_byte_and_resets() {
    for count in 1..request("A").len() {
        let server = Server::plain();
        server.next(Script::silent().then(Step::Read(count)).reset());
        let mut socket = connect(&server);
        socket.write_all(&request("A")).unwrap();
        assert_eq!(read_all(&socket), (vec![], Some(ErrorKind::ConnectionReset)));
        let seen = &server.settle(0).unwrap()[0];
        assert_eq!((seen.plain.len(), seen.request_bytes()), (count, request("A").len()));
        assert!(server.ledger().all().is_empty());
    }
}

#[test]
fn what_was_acknowledged_before_a_reset_can_be_read() {
    for _ in 0..50 {
        let server = Server::plain();
        server.next(Script::request().send("HTTP/1.1 200").reset());
        let mut socket = connect(&server);
        socket.write_all(&request("A")).unwrap();
        assert_eq!(read_all(&socket), (b"HTTP/1.1 200".to_vec(), Some(ErrorKind::ConnectionReset)));
    }
}

#[test]
fn an_end_after_which_the_client_goes_on_sending_is_seen() {
    let server = Server::plain();
    server.next(Script::request().fin());
    let mut socket = connect(&server);
    socket.write_all(&request("A")).unwrap();
    assert_eq!(read_all(&socket), (vec![], None));
    let at_return = server.arrived(0);
    assert_eq!(at_return, [Some(request("A").len() as u64)]);
    socket.write_all(b"late").unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.settle(0).unwrap()[0].raw, at_return[0].unwrap() + 4);
    // The server fails the test for this; here it is what is wanted.
    assert!(std::thread::spawn(move || drop(server)).join().is_err());
}

#[test]
fn bytes_count_as_arrived_before_the_server_reads_them() {
    let server = Server::plain();
    server.next(Script::silent().then(Step::AwaitRelease));
    let mut socket = connect(&server);
    socket.write_all(b"1234567").unwrap();
    server.await_connections(1).unwrap();
    assert_eq!(server.arrived(0), [Some(7)]);
    assert_eq!(server.seen(0)[0].raw, 0);
    server.release();
    drop(socket);
    assert_eq!(server.settle(0).unwrap()[0].raw, 7);
}

#[test]
fn a_number_chooses_its_script() {
    let server = Server::plain();
    server.always(Script::request().then(Step::ByNumber));
    for (number, text) in [("A", "first"), ("B", "second")] {
        server.number(number, Script::silent().then(Step::Pieces(text.into(), 1, Duration::ZERO)).close());
    }
    for (number, text) in [("B", "second"), ("A", "first")] {
        let mut socket = connect(&server);
        socket.write_all(&request(number)).unwrap();
        assert_eq!(read_all(&socket).0, text.as_bytes());
    }
}

#[test]
fn a_connection_that_nobody_expects_fails_the_test() {
    let server = Server::plain();
    let socket = connect(&server);
    assert_eq!(read_all(&socket).1, Some(ErrorKind::ConnectionReset));
    assert!(std::thread::spawn(move || drop(server)).join().is_err());
}

#[test]
fn requests_are_read_strictly() {
    let good = request("A");
    assert_eq!(Request::parse(&good).unwrap().unwrap().out_task_num().unwrap(), "A");
    for cut in 0..good.len() {
        assert_eq!(Request::parse(&good[..cut]), Ok(None));
    }
    let text = String::from_utf8(good).unwrap();
    for (from, to) in [
        ("Host: h", "Host:h"),
        ("Host: h", "Host: h "),
        ("Host: h", "Ho st: h"),
        ("Host: h", "Host: a\nb"),
        ("Host: h", "Content-Length: 3"),
        ("Host: h", "Transfer-Encoding: chunked"),
        ("Content-Length", "Content-Lengths"),
        ("Content-Length: ", "Content-Length: +"),
        ("POST /", "POST  /"),
    ] {
        assert!(text.contains(from));
        assert!(Request::parse(text.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
    }
}

#[test]
fn answers_are_built_as_they_should() {
    let chunked = chunks(b"hello", 2, ";a=b", "X: y\r\n");
    assert_eq!(chunked, b"2;a=b\r\nhe\r\n2;a=b\r\nll\r\n1;a=b\r\no\r\n0\r\nX: y\r\n\r\n");
    assert_eq!(
        answer("200 OK", Framing::Length, b"{}"),
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    );
    let interim = [b"HTTP/1.1 103 Early\r\nA: b\r\n\r\n".as_slice(), b"HTTP/1.1 400 No\r\n\r\n"].concat();
    assert_eq!(Said::read(&interim), Some(Said { status: 400, body: None }));
    assert_eq!(Said::read(&interim[..interim.len() - 1]), None);
}

#[test]
fn every_status_has_one_expected_answer() {
    for code in 100..=999 {
        let Some(expected) = expected::status(code) else { continue };
        let nothing_done = expected.outcome == NOT_CREATED;
        assert_eq!(nothing_done, expected::NOT_CREATED_STATUS.contains(&code), "{code}");
    }
}

/// A TLS client that trusts the authority.
fn client(authority: &Authority) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.file()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap()
}

#[test]
fn tls_is_spoken_and_cut_at_the_byte() {
    for version in [Version::Tls12, Version::Tls13] {
        let authority = Authority::new();
        let server = Server::start("127.0.0.1", Some(authority.server(Identity::right(version))));
        for (script, text, end) in [
            (Script::made().send("whole").close(), "whole", None),
            (Script::made().send("torn").fin(), "torn", Some(ErrorKind::UnexpectedEof)),
            (Script::made().send("torn").reset(), "torn", Some(ErrorKind::ConnectionReset)),
            (
                Script::made().then(Step::Records("half".into(), Change::First(12))).fin(),
                "",
                Some(ErrorKind::UnexpectedEof),
            ),
            (Script::silent().then(Step::Read(3)).reset(), "", Some(ErrorKind::ConnectionReset)),
        ] {
            let from = server.connections();
            server.next(script);
            let mut stream = StreamOwned::new(client(&authority), connect(&server));
            let number = format!("N{from}");
            stream.write_all(&request(&number)).unwrap();
            assert_eq!(read_all(&mut stream), (text.as_bytes().to_vec(), end), "{version:?}");
            drop(stream);
            let seen = &server.settle(from).unwrap()[0];
            assert!(seen.handshaken && seen.plain == request(&number), "{seen:?}");
            assert_eq!(server.ledger().made(&number), u32::from(seen.request.is_some()));
            assert!(seen.flights[0] > 100 && seen.flights[1] > seen.flights[0], "{:?}", seen.flights);
        }
    }
}

#[test]
fn a_flight_is_changed_as_the_script_says() {
    for version in [Version::Tls12, Version::Tls13] {
        let authority = Authority::new();
        let server = Server::start("127.0.0.1", Some(authority.server(Identity::right(version))));
        let sent = |change| {
            let from = server.connections();
            server.next(Script::silent().then(Step::Flight(change)).fin());
            let mut socket = connect(&server);
            // The first flight of a client, and no more of it.
            client(&authority).write_tls(&mut socket).unwrap();
            let (came, end) = read_all(&socket);
            assert_eq!(end, None);
            drop(socket);
            (came, server.settle(from).unwrap()[0].records.clone())
        };
        for (change, wanted) in [
            (Change::None, (|whole| whole) as fn(Vec<u8>) -> Vec<u8>),
            (Change::First(10), |whole| whole[..10].to_vec()),
            (Change::First(0), |_| vec![]),
            (Change::Without(3), |whole| whole[..whole.len() - 3].to_vec()),
            (Change::Followed(b"more"), |whole| [whole, b"more".to_vec()].concat()),
            (Change::Slow(Duration::ZERO), |whole| whole),
            (Change::Flipped(7), |mut whole| {
                whole[7] ^= 0x80;
                whole
            }),
        ] {
            let (came, whole) = sent(change);
            assert!(whole.len() > 500, "{version:?} {change:?}: {}", whole.len());
            assert_eq!(came, wanted(whole), "{version:?} {change:?}");
        }
    }
}

/// A reply as the library would give it.
fn reply(code: i32, outcome: i32) -> Reply {
    let words = ["not_created", "created", "unknown"];
    let text = match code {
        OK => "{}".to_owned(),
        _ => serde_json::json!({ "outcome": words[usize::try_from(outcome).unwrap()] }).to_string(),
    };
    Reply { code, text: Some(text), outcome }
}

#[test]
fn lies_are_found_out() {
    let request_seen = Seen { plain: b"POST".to_vec(), ..Seen::default() };
    let said = |status: &str, body: &str| Seen {
        sent: answer(status, Framing::Length, body.as_bytes()),
        ..request_seen.clone()
    };
    let nothing_seen = Seen::default();
    let silent = Reply { text: Some("{}".to_owned()), ..reply(BROKEN, UNKNOWN) };
    for (what, lie, made, seen) in [
        ("made twice", reply(OK, CREATED), 2, &request_seen),
        ("success without an appointment", reply(OK, CREATED), 0, &request_seen),
        ("success with another outcome", reply(OK, NOT_CREATED), 0, &request_seen),
        ("not created, and it is", reply(FORBIDDEN, NOT_CREATED), 1, &request_seen),
        ("created, and it is not", reply(BROKEN, CREATED), 0, &request_seen),
        ("unknown without a byte", reply(BROKEN, UNKNOWN), 0, &nothing_seen),
        ("unknown after a refusal", reply(BROKEN, UNKNOWN), 0, &said("403 Forbidden", "")),
        ("unknown after status 0", reply(BROKEN, UNKNOWN), 0, &said("200 OK", "{\"status\":0}")),
        ("no outcome", silent, 0, &request_seen),
    ] {
        assert!(truth(&lie, made, std::slice::from_ref(seen)).is_err(), "{what}");
    }
    for (true_reply, made, seen) in [
        (reply(OK, CREATED), 1, &request_seen),
        (reply(BROKEN, UNKNOWN), 1, &request_seen),
        (reply(BROKEN, UNKNOWN), 0, &request_seen),
        (reply(BROKEN, NOT_CREATED), 0, &nothing_seen),
        (reply(FORBIDDEN, NOT_CREATED), 0, &said("403 Forbidden", "")),
        (reply(BROKEN, UNKNOWN), 0, &said("200 OK", "{\"status\":1}")),
    ] {
        assert_eq!(truth(&true_reply, made, std::slice::from_ref(seen)), Ok(()));
    }
}
