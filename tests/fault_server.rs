//! The fault server does what its scripts say, and its ledger and checks notice what they must.
//! Driven by plain sockets: the library lends no more than the client that a stage must have.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arctos_tests::api::{BROKEN, CREATED, FORBIDDEN, NOT_CREATED, OK, Reply, UNKNOWN};
use arctos_tests::expected;
use arctos_tests::expected::{BROKEN_UNKNOWN, FORBIDDEN_NOT_CREATED, MADE};
use arctos_tests::http::{Framing, Request, Said, answer, chunks, success, success_body};
use arctos_tests::ledger::{check, truth};
use arctos_tests::server::{Change, Exchange, Script, Seen, Server, Step};
use arctos_tests::stage::{Calls, Stage};
use arctos_tests::tls::{Authority, Identity, Version};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

fn request(number: &str) -> Vec<u8> {
    let body = format!("{{\"out_task_num\":\"{number}\"}}");
    format!("POST /api/task/do_add HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn connect(server: &Server) -> TcpStream {
    let socket = TcpStream::connect(server.address()).expect("the server listens");
    // What is written has arrived when the call has returned.
    socket.set_nodelay(true).expect("TCP_NODELAY");
    socket
}

/// Sends a request and reads the whole answer, of which the length is known.
fn exchange(stream: &mut (impl Read + Write), number: &str) {
    stream.write_all(&request(number)).unwrap();
    let mut answer = vec![0; success(number).len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, success(number));
}

/// What a test that must fail says.
fn panics(test: impl FnOnce()) -> String {
    *catch_unwind(AssertUnwindSafe(test)).expect_err("this must fail").downcast().expect("a text")
}

fn read_all(mut stream: impl Read) -> (Vec<u8>, Option<ErrorKind>) {
    let mut all = Vec::new();
    let end = stream.read_to_end(&mut all).err().map(|error| error.kind());
    (all, end)
}

#[test]
fn an_appointment_is_entered_and_answered() {
    let server = Server::plain();
    let whole = success("A");
    server.next(Script::made().send(whole.clone()).close());
    let mut socket = connect(&server);
    socket.write_all(&request("A")).unwrap();
    assert_eq!(read_all(&socket), (whole.clone(), None));
    drop(socket);
    let seen = &server.settle(0).unwrap()[0];
    assert_eq!((server.ledger().made("A"), server.ledger().made("B")), (1, 0));
    let [only] = seen.exchanges.as_slice() else { panic!("{seen:?}") };
    assert_eq!((only.plain.as_slice(), only.sent.as_slice()), (&*request("A"), &*whole));
    assert_eq!((only.segments, &seen.note, &seen.fault), (1, &None, &None));
    assert_eq!(Said::read(&only.sent).unwrap().body.unwrap(), success_body("A").into_bytes());
}

#[test]
fn a_request_in_two_writes_is_two_segments() {
    let server = Server::plain();
    server.next(Script::request().close());
    let mut socket = connect(&server);
    let request = request("A");
    socket.write_all(&request[..20]).unwrap();
    socket.write_all(&request[20..]).unwrap();
    read_all(&socket);
    drop(socket);
    assert_eq!(server.settle(0).unwrap()[0].exchanges[0].segments, 2);
}

#[test]
fn the_server_stops_reading_at_the_byte_and_resets() {
    let whole = request("A");
    for count in 1..whole.len() {
        // What is not read counts as arrived.
        for sent in [count, whole.len()] {
            let server = Server::plain();
            server.next(Script::silent().then(Step::Read(count)).reset());
            let mut socket = connect(&server);
            socket.write_all(&whole[..sent]).unwrap();
            assert_eq!(read_all(&socket), (vec![], Some(ErrorKind::ConnectionReset)));
            let seen = &server.settle(0).unwrap()[0];
            assert_eq!((seen.raw, seen.request_bytes(), seen.requests().count()), (sent as u64, sent, 0));
            // The last byte closes the object, the one before it the number.
            assert_eq!(seen.exchanges[0].is_of("A"), sent >= whole.len() - 1);
            assert!(server.ledger().all().is_empty());
        }
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
                Script::made().then(Step::Records(vec!["half".into()], Change::First(12))).fin(),
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
            assert!(seen.handshaken && seen.exchanges[0].plain == request(&number), "{seen:?}");
            assert_eq!(server.ledger().made(&number), u32::from(seen.requests().count() == 1));
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

/// A request of which this has arrived.
fn seen(plain: &[u8]) -> Exchange {
    Exchange { plain: plain.to_vec(), ..Exchange::default() }
}

#[test]
fn lies_are_found_out() {
    let request_seen = seen(b"POST");
    let said = |status: &str, body: &str| Exchange {
        sent: answer(status, Framing::Length, body.as_bytes()),
        ..request_seen.clone()
    };
    let whole_seen = Exchange { request: Request::parse(&request("A")).unwrap(), ..seen(&request("A")) };
    let nothing_seen = Exchange::default();
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
        ("not created without an answer", reply(BROKEN, NOT_CREATED), 0, &whole_seen),
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

#[test]
fn tries_are_judged_together() {
    let tried = |attempts: u32| {
        let document = serde_json::json!({ "outcome": "unknown", "attempts": attempts });
        Reply { text: Some(document.to_string()), ..reply(BROKEN, UNKNOWN) }
    };
    let refused = Exchange { sent: answer("403 Forbidden", Framing::Length, b""), ..seen(&request("A")) };
    let (nothing, part, whole) = (seen(b""), seen(&request("A")[..9]), seen(&request("A")));
    // One of which nobody can tell is enough, and a repeat may be cut short.
    for tries in [vec![whole.clone()], vec![nothing.clone(), part.clone()], vec![whole.clone(), part, refused.clone()]]
    {
        assert_eq!(check(&tried(u32::try_from(tries.len()).unwrap()), 0, &tries), Ok(()));
        assert!(check(&tried(7), 0, &tries).is_err(), "another number of attempts");
    }
    for tries in
        [vec![nothing.clone(), nothing.clone()], vec![nothing, refused.clone()], vec![refused.clone(), refused]]
    {
        assert!(check(&tried(2), 0, &tries).is_err(), "avoidable: {tries:?}");
    }
    let others = [whole, seen(&request("B"))];
    assert!(truth(&tried(2), 0, &others).is_ok() && check(&tried(2), 0, &others).is_err(), "other bytes");
}

/// A server of plain HTTP, and one of each version of TLS with the authority that it needs.
fn servers() -> Vec<(Server, Option<Authority>)> {
    let mut all = vec![(Server::plain(), None)];
    for version in [Version::Tls12, Version::Tls13] {
        let authority = Authority::new();
        let server = Server::start("127.0.0.1", Some(authority.server(Identity::right(version))));
        all.push((server, Some(authority)));
    }
    all
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// Connects to one of [`servers`], with another handle of the bare socket.
fn open(server: &Server, authority: Option<&Authority>) -> (Box<dyn Stream>, TcpStream) {
    let socket = connect(server);
    let bare = socket.try_clone().unwrap();
    match authority {
        None => (Box::new(socket), bare),
        Some(authority) => (Box::new(StreamOwned::new(client(authority), socket)), bare),
    }
}

#[test]
fn one_connection_carries_one_request_after_another() {
    for (server, authority) in servers() {
        for script in [Script::served().and(Script::served()).and(Script::served()), Script::forever(Script::served())]
        {
            let from = server.connections();
            server.next(script);
            let start = Instant::now();
            let numbers = ["A", "B", "C"].map(|name| format!("{name}{from}"));
            let (mut stream, bare) = open(&server, authority.as_ref());
            for number in &numbers {
                exchange(&mut stream, number);
            }
            drop((stream, bare));
            let seen = &server.settle(from).unwrap()[0];
            assert_eq!((seen.numbers(), &seen.note, &seen.fault), (numbers.to_vec(), &None, &None));
            assert_eq!(seen.request_bytes(), 3 * request(&numbers[0]).len());
            let (mut at, mut began) = (0, start);
            for (one, number) in seen.exchanges.iter().zip(&numbers) {
                assert_eq!((&one.plain, &one.sent), (&request(number), &success(number)));
                assert!(one.is_of(number) && !one.is_of(&number[..1]) && one.began >= began);
                assert!(one.at > at && one.at <= seen.raw && (authority.is_some() || one.segments == 1), "{one:?}");
                (at, began) = (one.at, one.began);
                assert_eq!(server.tries(number).len(), 1);
                assert_eq!(server.ledger().made(number), 1);
            }
            if authority.is_none() {
                let length = request(&numbers[0]).len() as u64;
                assert_eq!(
                    seen.exchanges.iter().map(|one| one.at).collect::<Vec<_>>(),
                    [1, 1 + length, 1 + 2 * length]
                );
            }
        }
    }
}

#[test]
fn a_client_may_leave_instead_of_sending_another_request() {
    for (server, authority) in servers() {
        for script in [Script::served().and(Script::served()), Script::forever(Script::served())] {
            let from = server.connections();
            server.next(script);
            let (mut stream, bare) = open(&server, authority.as_ref());
            exchange(&mut stream, &format!("A{from}"));
            drop((stream, bare));
            let seen = &server.settle(from).unwrap()[0];
            assert_eq!((seen.numbers().len(), seen.exchanges.len(), &seen.fault), (1, 1, &None));
        }
    }
}

#[test]
fn a_request_that_no_script_reads_is_a_fault() {
    for script in [
        Script::served(),
        Script::served().fin(),
        Script::served().then(Step::AwaitRelease).then(Step::Reset),
        // Nobody goes on after the end that the server has told.
        Script::forever(Script::served().close()),
        Script::forever(Script::request().then(Step::ByNumber)),
    ] {
        for (server, authority) in servers() {
            server.number("A", Script::silent().then(Step::Make).then(Step::Answer(success)).close());
            server.next(script.clone());
            let (mut stream, bare) = open(&server, authority.as_ref());
            exchange(&mut stream, "A");
            stream.write_all(b"P").unwrap();
            server.release();
            drop((stream, bare));
            let seen = &server.settle(0).unwrap()[0];
            assert_eq!((seen.numbers(), seen.exchanges.len()), (vec!["A".to_owned()], 2), "{script:?}");
            assert_eq!(seen.exchanges[1].plain, b"P");
            assert!(panics(move || drop(server)).contains("bytes after the request"));
        }
    }
}

#[test]
fn a_part_of_the_next_request_is_read_and_answered() {
    for (server, authority) in servers() {
        server.next(Script::served().then(Step::Read(9)).send("early").reset());
        let (mut stream, _bare) = open(&server, authority.as_ref());
        exchange(&mut stream, "A");
        stream.write_all(&request("B")).unwrap();
        assert_eq!(read_all(&mut stream), (b"early".to_vec(), Some(ErrorKind::ConnectionReset)));
        let seen = &server.settle(0).unwrap()[0];
        assert_eq!((seen.numbers(), seen.exchanges.len()), (vec!["A".to_owned()], 2));
        assert_eq!((&*seen.exchanges[0].sent, &*seen.exchanges[1].sent), (&*success("A"), b"early".as_slice()));
        assert_eq!((server.tries("B").len(), server.ledger().made("B")), (1, 0));
    }
}

#[test]
fn what_the_server_resets_without_reading_has_arrived() {
    for (server, authority) in servers() {
        server.next(Script::silent().then(Step::Handshake).then(Step::AwaitRelease).then(Step::Reset));
        let (mut stream, _bare) = open(&server, authority.as_ref());
        stream.write_all(&request("A")).unwrap();
        let arrived = server.brought(0);
        server.release();
        let seen = &server.settle(0).unwrap()[0];
        assert_eq!((&seen.exchanges[0].plain, seen.raw), (&request("A"), arrived[0]));
    }
}

#[test]
fn an_end_while_idle_has_come_when_its_script_is_over() {
    type End = fn(Script) -> Script;
    let ends: [(&str, End, Option<ErrorKind>); 4] = [
        ("FIN", |script| script.fin().then(Step::Acknowledged), None),
        ("close_notify", |script| script.then(Step::CloseNotify).then(Step::Acknowledged), None),
        ("close_notify and FIN", |script| script.close().then(Step::Acknowledged), None),
        ("RST", |script| script.then(Step::Reset), Some(ErrorKind::ConnectionReset)),
    ];
    for (server, authority) in servers() {
        for (what, end, error) in ends {
            if what == "close_notify" && authority.is_none() {
                continue;
            }
            let from = server.connections();
            server.next(end(Script::served().then(Step::AwaitRelease)));
            let (mut stream, bare) = open(&server, authority.as_ref());
            exchange(&mut stream, &format!("A{from}"));
            assert!(!server.seen(from)[0].over, "{what}");
            server.release();
            server.await_over(from).unwrap();
            bare.set_nonblocking(true).unwrap();
            let come = bare.peek(&mut [0]).map_err(|error| error.kind());
            match error {
                None => assert_eq!(come, Ok(usize::from(what.starts_with("close_notify") && authority.is_some()))),
                Some(error) => assert_eq!(come, Err(error)),
            }
        }
    }
}

#[test]
fn several_records_go_out_in_one_piece_and_are_cut_at_the_byte() {
    for version in [Version::Tls12, Version::Tls13] {
        let authority = Authority::new();
        let server = Server::start("127.0.0.1", Some(authority.server(Identity::right(version))));
        let sent = |change| {
            let from = server.connections();
            server.next(Script::request().then(Step::Records(vec!["first".into(), "second".into()], change)).fin());
            let (mut stream, bare) = open(&server, Some(&authority));
            stream.write_all(&request("A")).unwrap();
            let came = read_all(&mut stream).0;
            drop((stream, bare));
            let seen = server.settle(from).unwrap().remove(0);
            // A client that gets a record whole can read it.
            assert_eq!(seen.exchanges[0].sent, came, "{version:?} {change:?}");
            (seen.records, came)
        };
        let (records, came) = sent(Change::None);
        assert_eq!(came, b"firstsecond");
        let first = 5 + usize::from(u16::from_be_bytes([records[3], records[4]]));
        let second = 5 + usize::from(u16::from_be_bytes([records[first + 3], records[first + 4]]));
        assert_eq!((records.len(), records[0], records[first]), (first + second, 23, 23));
        for cut in 0..records.len() {
            let wanted: &[u8] = if cut < first { b"" } else { b"first" };
            assert_eq!(sent(Change::First(cut)).1, wanted, "{version:?} {cut}");
            assert_eq!(sent(Change::Without(records.len() - cut)).1, wanted, "{version:?} {cut}");
        }
    }
}

#[test]
fn what_is_held_of_the_records_goes_out_when_it_is_released() {
    for version in [Version::Tls12, Version::Tls13] {
        let authority = Authority::new();
        let server = Server::start("127.0.0.1", Some(authority.server(Identity::right(version))));
        for held in [0, 1, 20] {
            let texts = vec!["first".into(), "second".into()];
            server.next(Script::request().then(Step::Records(texts, Change::Held(held))).fin());
            let (mut stream, _bare) = open(&server, Some(&authority));
            stream.write_all(&request("A")).unwrap();
            let mut first = [0; 5];
            stream.read_exact(&mut first).unwrap();
            let connection = server.connections() - 1;
            assert!(held == 0 || !server.seen(connection)[0].over, "{version:?} {held}");
            server.release();
            assert_eq!((&first, &*read_all(&mut stream).0), (b"first", b"second".as_slice()), "{version:?} {held}");
        }
    }
}

#[test]
fn a_server_that_knows_repeats_makes_one_appointment() {
    let server = Server::plain();
    server.next(Script::forever(Script::request().then(Step::MakeOnce).then(Step::Answer(success))));
    let mut socket = connect(&server);
    exchange(&mut socket, "A");
    exchange(&mut socket, "A");
    drop(socket);
    assert_eq!(server.settle(0).unwrap()[0].numbers(), ["A", "A"]);
    assert_eq!((server.ledger().made("A"), server.tries("A").len()), (1, 2));
}

#[test]
fn a_server_that_restarts_leaves_its_connections_and_takes_new_ones() {
    for (server, authority) in servers() {
        server.always(Script::forever(Script::served()));
        for round in 0..3 {
            let (mut kept, bare) = open(&server, authority.as_ref());
            exchange(&mut kept, &format!("A{round}"));
            server.down();
            assert_eq!(TcpStream::connect(server.address()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
            bare.set_nonblocking(true).unwrap();
            assert_eq!(bare.peek(&mut [0]).unwrap(), 0, "an end has come");
            server.up();
            let (mut stream, _bare) = open(&server, authority.as_ref());
            exchange(&mut stream, &format!("B{round}"));
            // What was left stays so, and what is written there is lost.
            (&bare).write_all(&request("LOST")).unwrap();
            server.restart();
        }
        let numbers: Vec<_> = server.settle(0).unwrap().iter().map(Seen::numbers).collect();
        assert_eq!(numbers, [["A0"], ["B0"], ["A1"], ["B1"], ["A2"], ["B2"]]);
        assert_eq!(server.connections(), 6);
    }
}

/// A success as the library would hand it over.
fn made(number: &str) -> Reply {
    Reply { text: Some(success_body(number)), ..reply(OK, CREATED) }
}

#[test]
fn calls_over_kept_connections_are_told_apart() {
    let mut calls = Calls::of(Stage::http());
    let refused = answer("403 Forbidden", Framing::Length, b"");
    let refusal = Script::request().send(refused.clone());
    calls.server().next(Script::served().and(Script::served()).and(refusal).and(Script::request()).reset());
    calls.server().next(Script::forever(Script::served()));
    let mut kept = connect(calls.server());
    calls.call_by("A", MADE, |_| {
        exchange(&mut kept, "A");
        made("A")
    });
    calls.call_by("B", MADE, |_| {
        exchange(&mut kept, "B");
        made("B")
    });
    let failed = |reply: Reply, word: &str, attempts: u32| Reply {
        text: Some(serde_json::json!({ "outcome": word, "attempts": attempts }).to_string()),
        ..reply
    };
    calls.call_by("C", FORBIDDEN_NOT_CREATED, |_| {
        kept.write_all(&request("C")).unwrap();
        kept.read_exact(&mut vec![0; refused.len()]).unwrap();
        failed(reply(FORBIDDEN, NOT_CREATED), "not_created", 1)
    });
    calls.call_by("D", BROKEN_UNKNOWN, |_| {
        kept.write_all(&request("D")).unwrap();
        assert_eq!(read_all(&kept).1, Some(ErrorKind::ConnectionReset));
        failed(reply(BROKEN, UNKNOWN), "unknown", 1)
    });
    let address = calls.server().address();
    calls.call_by("E", MADE, |_| {
        exchange(&mut TcpStream::connect(address).unwrap(), "E");
        made("E")
    });
    let numbers: Vec<_> = calls.end().iter().map(Seen::numbers).collect();
    assert_eq!(numbers, [vec!["A", "B", "C", "D"], vec!["E"]]);
}

#[test]
fn calls_that_went_wrong_are_found_out() {
    let run = |script: Script, test: fn(&mut Calls, TcpStream)| {
        let mut calls = Calls::of(Stage::http());
        calls.server().next(script);
        let socket = connect(calls.server());
        panics(move || {
            test(&mut calls, socket);
            calls.end();
        })
    };
    let forever = || Script::forever(Script::served());
    let wrong = run(forever(), |calls, mut socket| {
        calls.call_by("A", MADE, |_| {
            exchange(&mut socket, "A");
            made("A")
        });
        exchange(&mut socket, "LATE");
    });
    assert!(wrong.contains("arrived after the call had returned"), "{wrong}");
    let wrong = run(forever(), |calls, mut socket| {
        for number in ["A", "B"] {
            calls.call_by(number, MADE, |_| {
                exchange(&mut socket, number);
                made(number)
            });
            exchange(&mut socket, &format!("LATE-{number}"));
        }
    });
    assert!(wrong.contains("before B: something arrived"), "{wrong}");
    let wrong = run(forever(), |calls, mut socket| {
        calls.call_by("A", MADE, |_| {
            exchange(&mut socket, "A");
            made("B")
        });
    });
    assert!(wrong.contains("the answer is that of another call"), "{wrong}");
    let wrong = run(forever(), |calls, mut socket| {
        calls.call_by("A", MADE, |_| {
            exchange(&mut socket, "A");
            exchange(&mut socket, "A");
            made("A")
        });
    });
    assert!(wrong.contains("made 2 times"), "{wrong}");
    let wrong = run(Script::served(), |calls, mut socket| {
        calls.call_by("A", MADE, |_| {
            exchange(&mut socket, "A");
            socket.write_all(b"P").unwrap();
            made("A")
        });
    });
    assert!(wrong.contains("bytes after the request"), "{wrong}");
    // The request of another call before it does not excuse an unknown of this one.
    let wrong = run(forever(), |calls, mut socket| {
        calls.call_by("A", MADE, |_| {
            exchange(&mut socket, "A");
            made("A")
        });
        calls.call_by("B", BROKEN_UNKNOWN, |_| Reply {
            text: Some(r#"{"outcome":"unknown","attempts":0}"#.to_owned()),
            ..reply(BROKEN, UNKNOWN)
        });
    });
    assert!(wrong.contains("B: unknown"), "{wrong}");
}
