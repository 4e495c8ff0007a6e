//! A connection carries a further call only when nothing is unread on it, it has not ended, and both sides still want
//! it: no call is ever given the answer of another one, or a connection that was gone before.
//!
//! No call here may be tried again, so that nothing is hidden by a second try.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use arctos_tests::api::{OK, Owned, arctos, task};
use arctos_tests::deadline::{Scheme, longer_than_both_buffers};
use arctos_tests::expected::{
    BAD_RESPONSE_UNKNOWN, BUSY_NOT_CREATED, BUSY_UNKNOWN, Expected, FAILED_NOT_CREATED, FORBIDDEN_NOT_CREATED, MADE,
    NOT_FOUND_NOT_CREATED, REJECTED_NOT_CREATED, REJECTED_UNKNOWN, SERVER_ERROR_UNKNOWN,
};
use arctos_tests::http::{
    Framing, Request, answer, answer_head, chunks, failure_body, find, head, success, success_body,
};
use arctos_tests::server::{Change, PATIENCE, Script, Seen, Server, Step};
use arctos_tests::stage::{Calls, Stage, TOKEN, at_once, config_tls, with};
use arctos_tests::sys;
use arctos_tests::tls::{Authority, Identity, Version};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA384, KeyType, Prk};
use rustls::{CipherSuite, KeyLog, ServerConnection, StreamOwned};
use serde_json::{Value, json};

const VERSIONS: [Version; 2] = [Version::Tls12, Version::Tls13];
/// No pause of a test comes near it.
const LONG: u32 = 3_600_000;

/// A client that keeps its connections, and its server.
fn stage(scheme: Scheme) -> Stage {
    stage_with(scheme, json!({}))
}

fn stage_with(scheme: Scheme, keys: Value) -> Stage {
    Stage::over(scheme, with(json!({ "idle_timeout_ms": LONG }), keys))
}

/// Runs a test over http and both versions of TLS at once: for the most part they wait.
fn over_each(test: impl Fn(Scheme) + Sync) {
    at_once(Scheme::ALL, test);
}

/// The whole answer that says that the appointment was made, with a body of at least so many bytes.
fn sized(number: &str, framing: Framing, length: usize) -> Vec<u8> {
    let body = success_body(number);
    answer("200 OK", framing, format!("{body:length$}").as_bytes())
}

/// An answer that nobody has asked for, with a body of at least so many bytes.
fn stale(length: usize) -> Vec<u8> {
    sized("STALE", Framing::Length, length)
}

/// A call whose server does something with the connection that it must not be used after.
struct Case {
    number: String,
    expected: Expected,
    script: Script,
    /// Whether the script ends when the test says so, after the call.
    held: bool,
}

impl Case {
    /// The connection is spoilt by the time the call has returned, or soon after it.
    fn at_once(number: String, script: Script) -> Case {
        Case { number, expected: MADE, script: script.then(Step::Acknowledged), held: false }
    }

    /// It is spoilt after the call.
    fn later(number: String, script: Script) -> Case {
        Case { held: true, ..Case::at_once(number, script) }
    }
}

/// Makes one call after another, each of which must go over a connection of its own, since the one before it is spoilt
/// by the time; and one more that finds the last one so. Each must get the answer that belongs to it.
#[track_caller]
fn one_connection_each(scheme: Scheme, cases: Vec<Case>) {
    // What was seen is copied with each call: many connections of one server are slow.
    const CALLS: usize = 30;
    let cases = Mutex::new(cases.into_iter());
    let work = |()| {
        loop {
            let some: Vec<Case> = cases.lock().expect("taking cases does not panic").by_ref().take(CALLS).collect();
            if some.is_empty() {
                return;
            }
            let mut calls = Calls::of(stage(scheme));
            let mut numbers = Vec::new();
            for (index, Case { number, expected, script, held }) in some.into_iter().enumerate() {
                calls.server().next(script);
                calls.call(&number, expected);
                assert_eq!(calls.server().connections(), index + 1, "{scheme:?} {number}: it was used again");
                if held {
                    calls.server().release();
                }
                calls.server().await_over(index).unwrap_or_else(|wrong| panic!("{scheme:?} {number}: {wrong}"));
                numbers.push(vec![number]);
            }
            calls.server().next(Script::served());
            calls.call("LAST", MADE);
            numbers.push(vec!["LAST".to_owned()]);
            let seen = calls.end();
            assert_eq!(seen.iter().map(Seen::numbers).collect::<Vec<_>>(), numbers, "{scheme:?}");
        }
    };
    at_once([(); 4], work);
}

/// Makes two calls; the first one must get what is expected and leave nothing behind, the second one gets an answer
/// over a connection of its own.
#[track_caller]
fn not_kept(stage: &Stage, case: &str, expected: Expected, script: impl FnOnce(&str) -> Script) {
    // Comes back when the client, which is not freed, has closed the connection.
    stage.run(case, expected, script);
    stage.run(&format!("after {case}"), MADE, served_and_closed);
}

/// Makes the appointment, and says that the connection ends.
fn served_and_closed(number: &str) -> Script {
    Script::made().send(saying("Connection: close", number)).close()
}

#[test]
fn calls_go_over_one_connection() {
    over_each(|scheme| {
        let stage = stage(scheme);
        stage.server.always(Script::forever(Script::served()));
        let mut calls = Calls::of(stage);
        let numbers: Vec<String> = (0..20).map(|call| format!("N-{call}")).collect();
        for number in &numbers {
            calls.call(number, MADE);
        }
        let seen = calls.end();
        let [only] = seen.as_slice() else { panic!("{scheme:?}: {} connections", seen.len()) };
        assert_eq!(only.numbers(), numbers, "{scheme:?}");
        // It was closed in good order, and nothing was said there: Calls looks at the bytes.
        assert_eq!(only.note, None, "{scheme:?}");
        for request in only.requests() {
            assert_eq!(request.header("Connection"), None, "{scheme:?}");
        }
    });
}

#[test]
fn both_kinds_of_calls_share_a_connection() {
    over_each(|scheme| {
        let stage = stage(scheme);
        let other = answer("200 OK", Framing::Chunked(9), br#"{"status":1,"info":{"task_num":"T-OTHER"}}"#);
        stage.server.next(Script::served().and(Script::request().then(Step::Make).send(other)).and(Script::served()));
        let mut calls = Calls::of(stage);
        calls.call("A", MADE);
        calls.call_by("OTHER", MADE, |client| client.call("/api/task/other", r#"{"out_task_num":"OTHER"}"#));
        calls.call("B", MADE);
        let seen = calls.end();
        let lines: Vec<&str> = seen[0].requests().map(|request| &*request.line).collect();
        let of = |path| format!("POST {path} HTTP/1.1");
        assert_eq!(lines, [of("/api/task/do_add"), of("/api/task/other"), of("/api/task/do_add")], "{scheme:?}");
        assert_eq!(seen.len(), 1, "{scheme:?}");
    });
}

/// Bodies that end around the sizes of buffers, and others.
const FIRST: [usize; 8] = [0, 1000, 4000, 8192, 16_200, 16_300, 20_000, 40_000];
/// How much of another answer there is.
const SECOND: [usize; 8] = [1, 2, 17, 150, 1000, 8192, 16_500, 40_000];

#[test]
fn a_second_answer_behind_the_first_is_nobodys() {
    over_each(|scheme| {
        let mut cases = Vec::new();
        for framing in [Framing::Length, Framing::Chunked(1500)] {
            for first in FIRST {
                for second in SECOND {
                    let number = format!("{framing:?} {first} {second}");
                    let first = sized(&number, framing, first);
                    let second = stale(second)[..second].to_vec();
                    let behind = if scheme == Scheme::Http || cases.len() % 2 == 0 {
                        // Over TLS as few records as there can be.
                        Script::made().send([first, second].concat())
                    } else {
                        Script::made().then(Step::Records(vec![first, second], Change::None))
                    };
                    cases.push(Case::at_once(number, behind));
                }
            }
        }
        one_connection_each(scheme, cases);
    });
}

#[test]
fn a_second_answer_in_the_same_burst_is_nobodys_whatever_the_size() {
    // TLS is read in pieces of some thousand bytes: what is left inside it depends on each of the sizes.
    at_once(VERSIONS.map(Scheme::Https), |scheme| {
        let mut cases = Vec::new();
        for second in [150, 8192] {
            for first in (0..4500).step_by(33) {
                for separate in [false, true] {
                    let number = format!("{first} {second} {separate}");
                    let first = sized(&number, Framing::Length, first);
                    let texts =
                        if separate { vec![first, stale(second)] } else { vec![[first, stale(second)].concat()] };
                    cases.push(Case::at_once(number, Script::made().then(Step::Records(texts, Change::None))));
                }
            }
        }
        one_connection_each(scheme, cases);
    });
}

#[test]
fn a_second_answer_right_after_the_first_is_nobodys() {
    over_each(|scheme| {
        let cases = SECOND.into_iter().map(|second| {
            let number = format!("{second}");
            let behind = Script::made().send(success(&number)).send(&stale(second)[..second]);
            Case::at_once(number, behind)
        });
        one_connection_each(scheme, cases.collect());
    });
}

#[test]
fn a_part_of_a_second_answer_is_enough_whenever_the_rest_comes() {
    over_each(|scheme| {
        let texts = |number: &str| vec![success(number), stale(0)];
        let length = match scheme {
            Scheme::Http => stale(0).len(),
            Scheme::Https(_) => {
                let script = |number: &str| Script::made().then(Step::Records(texts(number), Change::None)).close();
                let records = Stage::over(scheme, json!({})).run("the records", MADE, script).only().records.clone();
                let length = |at: usize| 5 + usize::from(u16::from_be_bytes([records[at + 3], records[at + 4]]));
                let second = length(length(0));
                assert_eq!(length(0) + second, records.len());
                second
            }
        };
        let script = |number: &str, part: usize| match scheme {
            Scheme::Http => {
                let first = [&*success(number), &stale(0)[..part]].concat();
                Script::made().send(first).then(Step::AwaitRelease).send(&stale(0)[part..])
            }
            Scheme::Https(_) => Script::made().then(Step::Records(texts(number), Change::Held(length - part))),
        };
        // The rest comes before the next call.
        let early = |part: usize| Case::later(format!("{part}"), script(&format!("{part}"), part));
        one_connection_each(scheme, (1..length).map(early).collect());
        // It comes after all calls.
        at_once([0, 1, 2, 3], |quarter| {
            let mut calls = Calls::of(stage(scheme));
            for (index, part) in (1..length).skip(quarter).step_by(4).enumerate() {
                let number = format!("{part}");
                calls.server().next(script(&number, part));
                calls.call(&number, MADE);
                assert_eq!(calls.server().connections(), index + 1, "{scheme:?} {number}: it was used again");
            }
            calls.server().next(Script::served());
            calls.call("LAST", MADE);
            let seen = calls.end();
            assert!(seen.iter().all(|seen| seen.numbers().len() == 1), "{scheme:?}");
        });
    });
}

#[test]
fn what_comes_while_idle_is_nobodys() {
    over_each(|scheme| {
        let idle = || Script::served().then(Step::AwaitRelease);
        let mut cases = Vec::new();
        for second in SECOND.into_iter().chain([3, 4, 5, 6, 9]) {
            let some = &stale(second)[..second];
            cases.push(Case::later(format!("{second} bytes"), idle().send(some)));
            cases.push(Case::later(format!("{second} bare bytes"), idle().then(Step::Bare(some.to_vec()))));
            if scheme != Scheme::Http {
                let part = Step::Records(vec![stale(0)], Change::First(second));
                cases.push(Case::later(format!("{second} of a record"), idle().then(part)));
                let wrong = Step::Records(vec![stale(100)], Change::Flipped(second % 100));
                cases.push(Case::later(format!("a record with byte {second} wrong"), idle().then(wrong)));
            }
        }
        one_connection_each(scheme, cases);
    });
}

#[test]
fn what_is_behind_a_chunked_body_is_nobodys() {
    over_each(|scheme| {
        let mut cases = Vec::new();
        for trailers in ["", "X-Checksum: 12\r\n", "A: b\r\nC: d\r\n"] {
            for second in [1, 150, 8192] {
                // The end of the body comes in two pieces, and behind the last one what nobody has asked for.
                for missing in 0..6 + trailers.len() {
                    let number = format!("{} of {missing}, {second}", trailers.len());
                    let body = chunks(success_body(&number).as_bytes(), 40, "", trailers);
                    let mut whole = [answer_head("200 OK", Framing::Chunked(40), 0), body].concat();
                    let rest = whole.split_off(whole.len() - missing);
                    let first = Step::Pieces(whole.clone(), whole.len(), Duration::from_millis(10));
                    let behind = [&rest, &stale(second)[..second]].concat();
                    cases.push(Case::at_once(number, Script::made().then(first).send(behind)));
                }
            }
        }
        one_connection_each(scheme, cases);
    });
}

#[test]
fn a_chunked_body_with_trailers_leaves_nothing_behind() {
    over_each(|scheme| {
        let whole = |index: usize, trailers| {
            let body = success_body(&format!("KEPT-{index}"));
            [answer_head("200 OK", Framing::Chunked(7), 0), chunks(body.as_bytes(), 7, ";x", trailers)].concat()
        };
        let all = ["", "X-Checksum: 12\r\n", "A: b\r\nC: d\r\n", ""].into_iter().enumerate();
        let answers: Vec<_> = all.map(|(index, trailers)| whole(index, trailers)).collect();
        let stage = stage(scheme);
        let script =
            answers.into_iter().fold(Script::silent(), |script, answer| script.and(Script::made()).send(answer));
        stage.server.next(script);
        let mut calls = Calls::of(stage);
        for index in 0..4 {
            calls.call(&format!("KEPT-{index}"), MADE);
        }
        assert_eq!(calls.end().len(), 1, "{scheme:?}");
    });
}

#[test]
fn an_answer_without_a_body_ends_with_its_head() {
    over_each(|scheme| {
        for (status, headers, expected) in [
            ("204 No Content", &[][..], BAD_RESPONSE_UNKNOWN),
            ("204 No Content", &["Content-Length: 20"], BAD_RESPONSE_UNKNOWN),
            ("304 Not Modified", &["Content-Length: 20"], BAD_RESPONSE_UNKNOWN),
            ("200 OK", &["Content-Length: 0"], BAD_RESPONSE_UNKNOWN),
            ("403 Forbidden", &["Content-Length: 0"], FORBIDDEN_NOT_CREATED),
        ] {
            let spoilt = |number: &str| {
                let script = Script::request().send([head(status, headers), stale(0)].concat());
                Case { expected, ..Case::at_once(number.to_owned(), script) }
            };
            one_connection_each(scheme, ["A", "B"].map(spoilt).into());
        }
    });
}

type End = fn(Script) -> Script;

#[test]
fn an_end_that_came_while_idle_is_noticed_before_the_next_request() {
    const ENDS: [(&str, End); 4] = [
        ("RST", |script| script.then(Step::Reset)),
        ("FIN", |script| script.fin().then(Step::Acknowledged)),
        ("close_notify", |script| script.then(Step::CloseNotify).then(Step::Acknowledged)),
        ("close_notify and FIN", |script| script.close().then(Step::Acknowledged)),
    ];
    over_each(|scheme| {
        let cases = |calls: usize| {
            let end = move |(what, end): (&str, End)| {
                let number = format!("{what} after {calls}");
                let script = end(Script::served().then(Step::AwaitRelease));
                Case { number, expected: MADE, script, held: true }
            };
            // There is no such thing as a close_notify alone.
            let ends = ENDS.into_iter().filter(|(what, _)| scheme != Scheme::Http || *what != "close_notify");
            ends.map(end).collect::<Vec<_>>()
        };
        one_connection_each(scheme, (0..5).flat_map(cases).collect());
    });
}

#[test]
fn a_server_that_was_restarted_is_found_again() {
    over_each(|scheme| {
        let stage = stage(scheme);
        stage.server.always(Script::forever(Script::served()));
        let mut calls = Calls::of(stage);
        for round in 0..5 {
            calls.call(&format!("A-{round}"), MADE);
            calls.call(&format!("B-{round}"), MADE);
            calls.server().restart();
        }
        let seen = calls.end();
        assert_eq!(seen.iter().map(|seen| seen.numbers().len()).collect::<Vec<_>>(), [2; 5], "{scheme:?}");
    });
}

#[test]
fn new_keys_beside_an_answer_do_no_harm() {
    for script in [
        Script::made().then(Step::KeyUpdate).then(Step::Answer(success)),
        Script::served().then(Step::KeyUpdate),
        Script::made().then(Step::KeyUpdate).then(Step::Answer(success)).then(Step::KeyUpdate).then(Step::KeyUpdate),
    ] {
        let stage = stage(Scheme::Https(Version::Tls13));
        stage.server.always(Script::forever(script.clone()));
        let mut calls = Calls::of(stage);
        for number in ["A", "B", "C", "D", "E"] {
            calls.call(number, MADE);
        }
        // Whether a connection whose server asks for new keys in return is kept is open.
        let numbers: Vec<String> = calls.end().iter().flat_map(Seen::numbers).collect();
        assert_eq!(numbers, ["A", "B", "C", "D", "E"], "{script:?}");
    }
}

/// The server's side of TLS 1.3 after the handshake, sealed by the test: rustls has no ticket to send by then.
struct Sealer {
    secret: Vec<u8>,
    sequence: u64,
}

/// So many bytes from a secret, as RFC 8446, 7.1 has it.
fn expand(secret: &[u8], label: &str, length: usize) -> Vec<u8> {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let byte = |number: usize| u8::try_from(number).expect("a small number");
    let info: [&[u8]; 6] =
        [&[0, byte(length)], &[byte("tls13 ".len() + label.len())], b"tls13 ", label.as_bytes(), &[0], &[]];
    let mut bytes = vec![0; length];
    let expanded = Prk::new_less_safe(HKDF_SHA384, secret);
    expanded.expand(&info, Length(length)).and_then(|key| key.fill(&mut bytes)).expect("not too long");
    bytes
}

impl Sealer {
    fn record(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        const TAG: usize = 16;
        let length = u16::try_from(content.len() + 1 + TAG).expect("a record");
        let mut record = vec![23, 3, 3];
        record.extend(length.to_be_bytes());
        let mut nonce: [u8; 12] = expand(&self.secret, "iv", 12).try_into().expect("12 bytes");
        for (byte, sequence) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= sequence;
        }
        self.sequence += 1;
        let key = UnboundKey::new(&AES_256_GCM, &expand(&self.secret, "key", 32)).expect("a key");
        let mut sealed = [content, &[kind]].concat();
        let nonce = Nonce::assume_unique_for_key(nonce);
        LessSafeKey::new(key).seal_in_place_append_tag(nonce, Aad::from(&record), &mut sealed).expect("sealed");
        [record, sealed].concat()
    }

    fn say(&mut self, what: Late) -> Vec<u8> {
        const HANDSHAKE: u8 = 22;
        match what {
            Late::Tickets(count) => {
                // Lifetime, age, nonce, ticket, no extension.
                let contents = [&[0, 0, 255, 0, 1, 2, 3, 4, 1, 7, 0, 32][..], &[9; 32], &[0, 0]].concat();
                let one = [&[4, 0, 0, u8::try_from(contents.len()).expect("a small number")], &*contents].concat();
                self.record(HANDSHAKE, &one.repeat(count))
            }
            Late::Keys { asks } => {
                let record = self.record(HANDSHAKE, &[24, 0, 0, 1, u8::from(asks)]);
                *self = Sealer { secret: expand(&self.secret, "traffic upd", self.secret.len()), sequence: 0 };
                record
            }
            Late::Empty => self.record(23, b""),
            Late::Part => self.record(23, b"HTTP/1.1 200 OK\r\n")[..20].to_vec(),
        }
    }
}

/// What a server of TLS 1.3 says while its client is idle.
#[derive(Debug, Clone, Copy)]
enum Late {
    /// So many tickets for other sessions, in one record.
    Tickets(usize),
    /// New keys, and perhaps that the client should have such, too.
    Keys { asks: bool },
    /// A record without contents.
    Empty,
    /// A part of a record.
    Part,
}

/// Keeps the secret of the server's side.
#[derive(Debug, Default)]
struct Secrets(Mutex<Vec<u8>>);

impl KeyLog for Secrets {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        if label == "SERVER_TRAFFIC_SECRET_0" {
            *self.0.lock().expect("keeping does not panic") = secret.to_vec();
        }
    }
}

/// Serves one connection after another until so many appointments are made, and gives their numbers by connection.
/// Says `late` after the first one, when `idle` tells it to, and tells back when the client's kernel has it.
fn serve_late(
    listener: &TcpListener,
    authority: &Authority,
    late: &[Late],
    appointments: usize,
    idle: mpsc::Receiver<()>,
    come: mpsc::Sender<()>,
) -> Vec<Vec<String>> {
    let secrets = Arc::new(Secrets::default());
    let identity = Identity { resumption: false, ..Identity::right(Version::Tls13) };
    let mut config = (*authority.server(identity)).clone();
    config.key_log = secrets.clone();
    let config = Arc::new(config);
    let mut all: Vec<Vec<String>> = Vec::new();
    while all.iter().map(Vec::len).sum::<usize>() < appointments {
        assert!(sys::wait_readable(listener, PATIENCE), "no connection; {all:?}");
        let (socket, _) = listener.accept().expect("a connection");
        socket.set_nodelay(true).expect("TCP_NODELAY");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let mut bare: TcpStream = socket.try_clone().expect("a copy");
        let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).expect("a server"), socket);
        let mut sealer = None;
        all.push(Vec::new());
        while let Some(request) = read_request(&mut stream) {
            let sealer = sealer.get_or_insert_with(|| {
                let suite = stream.conn.negotiated_cipher_suite().map(|suite| suite.suite());
                assert_eq!(suite, Some(CipherSuite::TLS13_AES_256_GCM_SHA384));
                Sealer { secret: secrets.0.lock().expect("as above").clone(), sequence: 0 }
            });
            let number = request.out_task_num().expect("a number");
            bare.write_all(&sealer.record(23, &success(&number))).expect("sent");
            all.last_mut().expect("this connection").push(number);
            if all.iter().map(Vec::len).sum::<usize>() == 1 {
                idle.recv().expect("the test goes on");
                for late in late {
                    bare.write_all(&sealer.say(*late)).expect("sent");
                    while sys::unacknowledged(&bare) > 0 {
                        std::thread::sleep(Duration::from_micros(20));
                    }
                }
                come.send(()).expect("the test goes on");
            }
        }
    }
    all
}

/// The next request; `None` when the client has closed the connection.
fn read_request(stream: &mut impl Read) -> Option<Request> {
    let mut bytes = Vec::new();
    loop {
        let mut some = [0; 4096];
        // A client that says nothing when it closes has not cut anything off.
        match stream.read(&mut some) {
            Ok(count @ 1..) => bytes.extend_from_slice(&some[..count]),
            end => {
                assert!(bytes.is_empty(), "a part of a request, and then {end:?}");
                return None;
            }
        }
        if let Some(request) = Request::parse(&bytes).expect("a request") {
            assert_eq!(request.length, bytes.len(), "bytes behind the request");
            return Some(request);
        }
    }
}

#[test]
fn tickets_and_new_keys_that_come_while_idle_do_no_harm() {
    for (late, kept) in [
        (vec![Late::Tickets(1)], Some(true)),
        (vec![Late::Tickets(4)], Some(true)),
        (vec![Late::Keys { asks: false }], Some(true)),
        (vec![Late::Tickets(1), Late::Keys { asks: false }, Late::Tickets(2)], Some(true)),
        // More or stranger than a server has reason for: whether the connection is kept is open.
        (vec![Late::Tickets(1); 40], None),
        (vec![Late::Tickets(150); 3], None),
        (vec![Late::Empty], None),
        (vec![Late::Keys { asks: true }], None),
        (vec![Late::Keys { asks: true }, Late::Keys { asks: false }, Late::Tickets(1)], None),
        (vec![Late::Part], Some(false)),
        (vec![Late::Tickets(2), Late::Part], Some(false)),
    ] {
        let authority = Authority::new();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        let client = Owned::new(&with(config_tls(&url, &authority), json!({ "idle_timeout_ms": LONG })));
        let numbers = ["A", "B", "C"];
        let ((idle, told), (tell, come)) = (mpsc::channel(), mpsc::channel());
        let all = std::thread::scope(|scope| {
            let (listener, authority, late) = (&listener, &authority, &*late);
            let serving = scope.spawn(move || serve_late(listener, authority, late, numbers.len(), told, tell));
            for number in numbers {
                let reply = client.add(&task(number));
                assert_eq!((reply.code, reply.text()), (OK, &*success_body(number)), "{late:?}: {reply:?}");
                if number == "A" {
                    idle.send(()).expect("the server serves");
                    come.recv_timeout(PATIENCE).expect("the server serves");
                }
            }
            drop(client);
            serving.join().expect("serving does not panic")
        });
        assert_eq!(all.concat(), numbers, "{late:?}");
        if let Some(kept) = kept {
            assert_eq!(all.len() == 1, kept, "{late:?}: {all:?}");
        }
    }
}

/// A success whose head says more.
fn saying(header: &str, number: &str) -> Vec<u8> {
    let body = success_body(number);
    [
        head("200 OK", &["Content-Type: application/json", &format!("Content-Length: {}", body.len()), header]),
        body.into(),
    ]
    .concat()
}

/// Makes two calls with a time between them, and one more at once: on how many connections. The head of each answer says
/// `header`.
fn connections_after(scheme: Scheme, idle_timeout_ms: u32, header: &'static str, between: Duration) -> usize {
    let stage = stage_with(scheme, json!({ "idle_timeout_ms": idle_timeout_ms }));
    let numbers = ["A", "B"];
    let script =
        || numbers.iter().fold(Script::silent(), |script, _| script.and(Script::request().then(Step::ByNumber)));
    for number in numbers {
        stage.server.number(number, Script::silent().then(Step::Make).send(saying(header, number)));
    }
    stage.server.always(script());
    let mut calls = Calls::of(stage);
    calls.call("A", MADE);
    std::thread::sleep(between);
    calls.call("B", MADE);
    calls.end().len()
}

#[test]
fn a_connection_is_kept_as_long_as_both_sides_say() {
    const NOTHING: &str = "X-Nothing: 1";
    let (now, longer) = (Duration::ZERO, Duration::from_millis(1300));
    let mut cases = Vec::new();
    for scheme in Scheme::ALL {
        for (idle_timeout_ms, header, between, connections) in [
            (LONG, NOTHING, now, 1),
            (LONG, NOTHING, longer, 1),
            (300, NOTHING, longer, 2),
            (LONG, "Keep-Alive: timeout=1", longer, 2),
            (LONG, "Keep-Alive: max=100, timeout=1", longer, 2),
            (LONG, "keep-alive: TIMEOUT = 1 , max=7", longer, 2),
            (LONG, "Keep-Alive: timeout=60", longer, 1),
            (300, "Keep-Alive: timeout=60", longer, 2),
            (LONG, "Keep-Alive: timeout=0", now, 2),
            // What does not say a time says nothing.
            (LONG, "Keep-Alive: timeout", longer, 1),
            (LONG, "Keep-Alive: timeout=", longer, 1),
            (LONG, "Keep-Alive: timeout=soon", longer, 1),
            (LONG, "Keep-Alive: timeout=-1", longer, 1),
            (LONG, "Keep-Alive: 1", longer, 1),
            (LONG, "Keep-Alive: timeout=18446744073709551615", longer, 1),
            (LONG, "Keep-Alive: timeout=99999999999999999999999", longer, 1),
            (LONG, "Keep-Alive: ,;=,, \"", longer, 1),
            (LONG, "Connection: keep-alive", longer, 1),
            (LONG, "Connection: close", now, 2),
            (LONG, "Connection: x-other, Close", now, 2),
            (0, NOTHING, now, 2),
            (0, "Keep-Alive: timeout=60", now, 2),
        ] {
            cases.push((scheme, idle_timeout_ms, header, between, connections));
        }
    }
    at_once(cases, |(scheme, idle_timeout_ms, header, between, connections)| {
        let seen = connections_after(scheme, idle_timeout_ms, header, between);
        assert_eq!(seen, connections, "{scheme:?}, {idle_timeout_ms} ms, {header:?}, {between:?}");
    });
}

#[test]
fn a_connection_younger_than_its_time_is_used() {
    over_each(|scheme| {
        // Three times as long as it may idle, and in use all the time.
        const IDLE: Duration = Duration::from_secs(2);
        let stage = stage_with(scheme, json!({ "idle_timeout_ms": IDLE.as_millis() as u64 }));
        stage.server.always(Script::forever(Script::served()));
        let mut calls = Calls::of(stage);
        let (start, mut last, mut late) = (Instant::now(), Instant::now(), 0);
        let mut count = 0;
        while start.elapsed() < 3 * IDLE {
            calls.call(&format!("N-{count}"), MADE);
            // A machine that is very busy may let too long a time pass by itself.
            late += usize::from(last.elapsed() >= IDLE);
            last = Instant::now();
            count += 1;
            std::thread::sleep(IDLE / 10);
        }
        let connections = calls.end().len();
        assert!((1..=1 + late).contains(&connections), "{scheme:?}: {connections} connections");
    });
}

#[test]
fn without_an_idle_time_nothing_is_kept_and_the_request_says_so() {
    over_each(|scheme| {
        let stage = stage_with(scheme, json!({ "idle_timeout_ms": 0 }));
        for number in 0..3 {
            // The server would keep it; the client ends it, though it is not freed.
            let done = stage.run(&format!("{scheme:?} {number}"), MADE, |_| Script::served());
            assert_eq!(done.request().header("Connection"), Some("close"));
        }
    });
}

#[test]
fn answers_that_end_in_doubt_are_not_kept() {
    over_each(|scheme| {
        let stage = stage(scheme);
        let case = |what: &str| format!("{scheme:?} {what}");
        let old = |headers: &[&str], number: &str| {
            let new = [head("200 OK", headers), success_body(number).into()].concat();
            [b"HTTP/1.0", &new["HTTP/1.1".len()..]].concat()
        };
        for headers in [&[][..], &["Connection: keep-alive"], &["Connection: keep-alive", "Keep-Alive: timeout=60"]] {
            not_kept(&stage, &case("HTTP/1.0"), MADE, |number| {
                let length = format!("Content-Length: {}", success_body(number).len());
                Script::made().send(old(&[headers, &[&length]].concat(), number))
            });
        }
        for framing in [Framing::Length, Framing::Chunked(9)] {
            not_kept(&stage, &case("close"), MADE, |number| {
                let whole = answer("200 OK", framing, success_body(number).as_bytes());
                let line = find(&whole, b"\r\n").expect("a line") + 2;
                Script::made().send([&whole[..line], b"Connection: close\r\n", &whole[line..]].concat())
            });
        }
        not_kept(&stage, &case("the end of the connection"), MADE, |number| {
            Script::made().send(answer("200 OK", Framing::Close, success_body(number).as_bytes())).close()
        });
        not_kept(&stage, &case("no length"), MADE, |number| {
            Script::made().send([head("200 OK", &[]), success_body(number).into()].concat()).close()
        });
        not_kept(&stage, &case("two lengths"), BAD_RESPONSE_UNKNOWN, |number| {
            let length = format!("Content-Length: {}", success_body(number).len());
            let both = [&length, "Transfer-Encoding: chunked"];
            Script::made().send([head("200 OK", &both), chunks(success_body(number).as_bytes(), 9, "", "")].concat())
        });
        // More than the answer has come, in one burst.
        not_kept(&stage, &case("a second one"), MADE, |number| {
            let both = [success(number), stale(0)].concat();
            Script::made().send(both)
        });
        // What has no body, whatever its head says, may be followed by one from a server that does not know it.
        for status in ["101 Switching Protocols", "204 No Content", "304 Not Modified"] {
            for length in ["Content-Length: 0", "Content-Length: 20"] {
                let script = Script::made().send(head(status, &[length]));
                not_kept(&stage, &case(status), BAD_RESPONSE_UNKNOWN, |_| script);
            }
        }
    });
}

#[test]
fn a_body_that_is_not_read_whole_is_not_kept() {
    over_each(|scheme| {
        let stage = stage_with(scheme, json!({ "max_response_bytes": 1000 }));
        for framing in [Framing::Length, Framing::Chunked(300)] {
            for length in [1001, 1002, 20_000] {
                let case = format!("{scheme:?} {framing:?} {length}");
                not_kept(&stage, &case, BAD_RESPONSE_UNKNOWN, |number| {
                    Script::made().send(sized(number, framing, length))
                });
                // What a refusal says is not needed.
                not_kept(&stage, &case, FORBIDDEN_NOT_CREATED, |_| {
                    Script::request().send(answer("403 Forbidden", framing, &vec![b' '; length]))
                });
            }
        }
    });
}

#[test]
fn an_answer_to_a_request_that_was_not_sent_whole_is_not_kept() {
    over_each(|scheme| {
        let stage = stage(scheme);
        stage.server.receive_buffer(64 * 1024);
        let remark = "x".repeat(longer_than_both_buffers());
        for framing in [Framing::Length, Framing::Chunked(9)] {
            let refusal = answer("413 Content Too Large", framing, b"too large");
            let (first, last) = refusal.split_at(refusal.len() - 3);
            let part = || Script::silent().then(Step::Read(1000));
            for (case, script) in [
                // Nothing more is read as long as the call takes.
                ("held up", part().send(&*refusal).then(Step::AwaitRelease)),
                // All that was sent has arrived when the answer ends: the rest of it is still missing.
                (
                    "read so far",
                    part()
                        .then(Step::Pieces(first.to_vec(), first.len(), Duration::from_millis(300)))
                        .then(Step::Drain(Duration::from_millis(200)))
                        .send(last),
                ),
            ] {
                let number = stage.number();
                let task = task(&number).replace("\"video\"", &format!("\"task_remark\":\"{remark}\",\"video\""));
                let case = format!("{scheme:?} {framing:?} {case}");
                stage.run_task(&case, REJECTED_NOT_CREATED, &number, &task, script);
                stage.run(&format!("after {case}"), MADE, served_and_closed);
            }
        }
    });
}

#[test]
fn refusals_that_are_whole_are_kept() {
    over_each(|scheme| {
        let mut answers = Vec::new();
        for (status, expected) in [
            ("400 Bad Request", REJECTED_NOT_CREATED),
            ("401 Unauthorized", FORBIDDEN_NOT_CREATED),
            ("403 Forbidden", FORBIDDEN_NOT_CREATED),
            ("404 Not Found", NOT_FOUND_NOT_CREATED),
            ("408 Request Timeout", REJECTED_UNKNOWN),
            ("409 Conflict", REJECTED_UNKNOWN),
            ("413 Content Too Large", REJECTED_NOT_CREATED),
            ("429 Too Many Requests", BUSY_NOT_CREATED),
            ("500 Internal Server Error", SERVER_ERROR_UNKNOWN),
            ("502 Bad Gateway", SERVER_ERROR_UNKNOWN),
            ("503 Service Unavailable", BUSY_UNKNOWN),
            ("302 Found", BAD_RESPONSE_UNKNOWN),
        ] {
            for (framing, body) in [
                (Framing::Length, &b"{\"message\":\"no\"}"[..]),
                (Framing::Length, b"<html>no</html>"),
                (Framing::Length, b""),
                (Framing::Chunked(7), b"<html>no</html>"),
                (Framing::Chunked(7), b""),
            ] {
                answers.push((expected, answer(status, framing, body)));
            }
        }
        // Whole, and not what was hoped for.
        answers.push((FAILED_NOT_CREATED, answer("200 OK", Framing::Length, failure_body("no").as_bytes())));
        answers.push((BAD_RESPONSE_UNKNOWN, answer("200 OK", Framing::Length, b"{}")));
        answers.push((BAD_RESPONSE_UNKNOWN, answer("200 OK", Framing::Chunked(1), b"\xff")));
        let stage = stage(scheme);
        let script = answers
            .iter()
            .fold(Script::silent(), |script, (_, answer)| script.and(Script::request()).send(answer.clone()));
        stage.server.next(script.and(Script::served()));
        let mut calls = Calls::of(stage);
        for (index, (expected, _)) in answers.into_iter().enumerate() {
            calls.call(&format!("KEPT-{index}"), expected);
        }
        calls.call("LAST", MADE);
        assert_eq!(calls.end().len(), 1, "{scheme:?}");
    });
}

/// How many connections the client has closed by now.
fn closed(server: &Server) -> usize {
    server.seen(0).iter().filter(|seen| seen.ended).count()
}

#[track_caller]
fn await_closed(server: &Server, count: usize) {
    let until = Instant::now() + PATIENCE;
    while closed(server) < count {
        assert!(Instant::now() < until, "{} connections are closed", closed(server));
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn no_more_connections_are_kept_than_are_wanted() {
    const AT_ONCE: usize = 12;
    for most in [1, 3] {
        over_each(|scheme| {
            let Stage { client, server, .. } = stage_with(scheme, json!({ "connections": most }));
            // All first requests wait for each other.
            let first = Script::made().then(Step::AwaitRelease).then(Step::Answer(success));
            server.always(first.and(Script::forever(Script::served())));
            std::thread::scope(|scope| {
                for thread in 0..AT_ONCE {
                    let client = &client;
                    scope.spawn(move || {
                        let number = format!("FIRST-{thread}");
                        let reply = client.add(&task(&number));
                        assert_eq!((reply.code, reply.text()), (OK, &*success_body(&number)), "{reply:?}");
                    });
                }
                server.await_requests(AT_ONCE).expect("all of them ask");
                assert_eq!((server.connections(), closed(&server)), (AT_ONCE, 0), "{scheme:?}");
                server.release();
            });
            await_closed(&server, AT_ONCE - most);
            // No more are closed, or opened, by what those that are kept can do.
            for round in 0..10 {
                std::thread::scope(|scope| {
                    for thread in 0..most {
                        let client = &client;
                        scope.spawn(move || {
                            let number = format!("ROUND-{round}-{thread}");
                            let reply = client.add(&task(&number));
                            assert_eq!((reply.code, reply.text()), (OK, &*success_body(&number)), "{reply:?}");
                        });
                    }
                });
            }
            assert_eq!((server.connections(), closed(&server)), (AT_ONCE, AT_ONCE - most), "{scheme:?}");
            drop(client);
            let seen = server.settle(0).expect("the client is freed");
            let requests: usize = seen.iter().map(|seen| seen.requests().count()).sum();
            assert_eq!(requests, AT_ONCE + 10 * most, "{scheme:?}");
            let numbers: HashSet<String> = seen.iter().flat_map(Seen::numbers).collect();
            assert_eq!(numbers.len(), requests, "{scheme:?}: one request a call");
            assert!(server.ledger().all().values().all(|made| *made == 1), "{scheme:?}");
        });
    }
}

#[test]
fn many_threads_get_their_own_answers_over_kept_connections() {
    const THREADS: usize = 16;
    const CALLS: usize = 25;
    over_each(|scheme| {
        let Stage { client, server, .. } = stage_with(scheme, json!({ "connections": 4 }));
        server.always(Script::forever(Script::served()));
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let client = &client;
                scope.spawn(move || {
                    for call in 0..CALLS {
                        let number = format!("T-{thread}-{call}");
                        let reply = client.add(&task(&number));
                        assert_eq!((reply.code, reply.text()), (OK, &*success_body(&number)), "{reply:?}");
                    }
                });
            }
        });
        drop(client);
        let seen = server.settle(0).expect("the client is freed");
        let numbers: Vec<String> = seen.iter().flat_map(Seen::numbers).collect();
        assert_eq!(numbers.len(), THREADS * CALLS, "{scheme:?}: one request a call");
        assert_eq!(server.ledger().all().len(), THREADS * CALLS, "{scheme:?}");
        assert!(seen.len() < THREADS * CALLS, "{scheme:?}: nothing was used again");
    });
}

#[test]
fn a_client_that_is_freed_leaves_nothing_open() {
    over_each(|scheme| {
        let Stage { client, server, .. } = stage(scheme);
        let made = |number: &str| {
            let reply = client.add(&task(number));
            assert_eq!((reply.code, reply.text()), (OK, &*success_body(number)), "{reply:?}");
        };
        // One is in flight when the client is freed, and another connection is kept.
        let waiting = Script::made().then(Step::AwaitRelease).then(Step::Answer(success));
        server.next(Script::served().and(waiting));
        server.next(Script::forever(Script::served()));
        made("A");
        std::thread::scope(|scope| {
            let first = scope.spawn(|| made("B"));
            server.await_requests(2).expect("it asks");
            made("C");
            // SAFETY: the handle is never used again but by calls that are in flight, and by its owner, which is ignored.
            unsafe { (arctos().client_free)(client.0) };
            let brought = server.brought(0);
            // At once, though the other one is still needed.
            await_closed(&server, 1);
            server.release();
            first.join().expect("it is served");
            let seen = server.settle(0).expect("the client is freed");
            for (seen, brought) in seen.iter().zip(brought) {
                assert_eq!((seen.raw, &seen.note), (brought, &None), "{scheme:?}");
            }
        });
    });
}

#[test]
fn a_new_token_goes_over_the_kept_connection() {
    over_each(|scheme| {
        let stage = stage(scheme);
        stage.server.next(Script::served().and(Script::served()).and(Script::served()));
        let mut calls = Calls::of(stage);
        calls.call("A", MADE);
        for (number, token) in [("B", "another"), ("C", "a-third-one")] {
            calls.call_by(number, MADE, |client| {
                assert_eq!(client.set_token(token).code, OK);
                client.add(&task(number))
            });
        }
        let seen = calls.end();
        let tokens: Vec<_> = seen[0].requests().map(|request| request.header("Authorization")).collect();
        let first = format!("Bearer {TOKEN}");
        assert_eq!(tokens, [Some(&*first), Some("Bearer another"), Some("Bearer a-third-one")], "{scheme:?}");
    });
}
