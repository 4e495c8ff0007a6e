//! A call ends at its deadline, whatever the server does, and nothing of it arrives afterwards.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use arctos_tests::api::{Owned, task};
use arctos_tests::expected::{Expected, TIMEOUT_NOT_CREATED, TIMEOUT_UNKNOWN};
use arctos_tests::http::{Framing, answer, answer_head, success_body};
use arctos_tests::ledger::truth;
use arctos_tests::server::{Script, Step};
use arctos_tests::stage::{Done, Stage, config, with};
use arctos_tests::tls::{Identity, Version};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

/// The deadline of every case but those with a long task.
const DEADLINE: Duration = Duration::from_millis(600);

/// Runs a call that must end at its deadline: not earlier, and no later than a second after a thread that
/// slept to the same instant.
#[track_caller]
fn on_time<T>(deadline: Duration, call: impl FnOnce() -> T) -> T {
    let deadline = Instant::now() + deadline;
    let control = std::thread::spawn(move || {
        std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
        Instant::now()
    });
    let result = call();
    let returned = Instant::now();
    let control = control.join().expect("the thread only sleeps");
    assert!(returned >= deadline, "returned {:?} before the deadline", deadline - returned);
    let late = returned.saturating_duration_since(control);
    assert!(late <= Duration::from_secs(1), "returned {late:?} after the deadline");
    result
}

/// The whole call has `DEADLINE`, the connection far more.
fn whole() -> Value {
    json!({ "timeout_ms": 600 })
}

/// The connection has `DEADLINE`, the whole call far more.
fn connecting() -> Value {
    json!({ "connect_timeout_ms": 600 })
}

#[track_caller]
fn ends(stage: &Stage, case: &str, expected: Expected, task: impl FnOnce(&str) -> String, script: Script) -> Done {
    let number = stage.number();
    let task = task(&number);
    let result = stage.attempt_call(case, expected, &number, script, |client| on_time(DEADLINE, || client.add(&task)));
    result.unwrap_or_else(|wrong| panic!("{wrong}"))
}

#[test]
fn a_server_that_says_nothing() {
    let made = || Script::made().then(Step::AwaitRelease);
    ends(&Stage::http_with(whole()), "http", TIMEOUT_UNKNOWN, task, made());
    ends(&Stage::http_with(whole()), "http, unread", TIMEOUT_UNKNOWN, task, Script::silent().then(Step::AwaitRelease));
    for version in [Version::Tls12, Version::Tls13] {
        let stage = Stage::https_with(Identity::right(version), whole());
        ends(&stage, &format!("{version:?}"), TIMEOUT_UNKNOWN, task, made());
    }
}

#[test]
fn a_server_that_does_not_answer_the_handshake() {
    for (keys, what) in [(connecting(), "of the connection"), (whole(), "of the call")] {
        let stage = Stage::https_with(Identity::right(Version::Tls13), keys);
        let script = Script::silent().then(Step::AwaitRelease);
        let done = ends(&stage, &format!("the deadline {what}"), TIMEOUT_NOT_CREATED, task, script);
        assert_eq!(done.seen.request_bytes(), 0);
    }
}

#[test]
fn the_deadline_of_the_connection_ends_with_the_handshake() {
    let stage = Stage::https_with(Identity::right(Version::Tls13), with(connecting(), json!({ "timeout_ms": 50_000 })));
    let pause = Duration::from_millis(1200);
    stage.run("a slow answer", arctos_tests::expected::MADE, |number| {
        let whole = answer("200 OK", Framing::Length, success_body(number).as_bytes());
        // The pause stands between the two halves of the answer and is longer than the connection may take.
        let half = whole.len() / 2;
        Script::made().then(Step::Pieces(whole[..half].to_vec(), half, pause)).send(&whole[half..]).close()
    });
}

/// The server reads the handshake at most, and the task is longer than what the two kernels hold.
#[track_caller]
fn does_not_read(stage: &Stage, script: Script) {
    const LENGTH: usize = 32 << 20;
    let number = stage.number();
    let remark = format!("\"task_remark\":\"{}\",\"video\"", "x".repeat(LENGTH));
    let task = task(&number).replace("\"video\"", &remark);
    let script = script.then(Step::AwaitRelease);
    // A busy machine needs a while to read a task of this length, and the clock runs from the entry.
    let call = |client: &Owned| on_time(Duration::from_secs(3), || client.add(&task));
    let done = stage.attempt_call("unread", TIMEOUT_UNKNOWN, &number, script, call);
    let seen = done.unwrap_or_else(|wrong| panic!("{wrong}")).seen;
    assert!(seen.raw > 0 && seen.raw < LENGTH as u64, "the kernels took {} bytes", seen.raw);
}

#[test]
fn a_server_that_does_not_read() {
    does_not_read(&Stage::http_with(json!({ "timeout_ms": 3000 })), Script::silent());
}

#[test]
fn a_server_that_does_not_read_tls_1_2() {
    let stage = Stage::https_with(Identity::right(Version::Tls12), json!({ "timeout_ms": 3000 }));
    does_not_read(&stage, Script::silent().then(Step::Handshake));
}

#[test]
fn a_server_that_does_not_read_tls_1_3() {
    let stage = Stage::https_with(Identity::right(Version::Tls13), json!({ "timeout_ms": 3000 }));
    does_not_read(&stage, Script::silent().then(Step::Handshake));
}

#[test]
fn a_server_that_answers_a_byte_at_a_time() {
    let pause = Duration::from_millis(100);
    let body = success_body("N");
    let head = answer_head("200 OK", Framing::Length, body.len());
    for stage in [Stage::http_with(whole()), Stage::https_with(Identity::right(Version::Tls13), whole())] {
        let slow_head = Script::made().then(Step::Pieces(head.clone(), 1, pause));
        ends(&stage, "in the head", TIMEOUT_UNKNOWN, task, slow_head);
        let slow_body = Script::made().send(&*head).then(Step::Pieces(body.clone().into(), 1, pause));
        ends(&stage, "in the body", TIMEOUT_UNKNOWN, task, slow_body);
        let interim = arctos_tests::http::head("103 Early Hints", &[]).repeat(50);
        let length = interim.len() / 50;
        ends(
            &stage,
            "interim answers",
            TIMEOUT_UNKNOWN,
            task,
            Script::made().then(Step::Pieces(interim, length, pause)),
        );
    }
}

#[test]
fn a_host_that_accepts_no_connection() {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    socket.bind(&any.into()).expect("a port");
    socket.listen(0).expect("a queue");
    let address = socket.local_addr().expect("an address").as_socket().expect("of the net");
    // When the queue of the listener is full the kernel drops what would open another connection.
    let patience = Duration::from_millis(300);
    let waiting: Vec<TcpStream> = std::iter::from_fn(|| TcpStream::connect_timeout(&address, patience).ok()).collect();
    assert!(!waiting.is_empty(), "the queue has room for one at least");
    for keys in [connecting(), whole()] {
        for scheme in ["http", "https"] {
            let client = Owned::new(&with(config(&format!("{scheme}://{address}")), keys.clone()));
            let reply = on_time(DEADLINE, || client.add(&task("BR0943-187")));
            let expected = (TIMEOUT_NOT_CREATED.code, TIMEOUT_NOT_CREATED.outcome);
            assert_eq!((reply.code, reply.outcome), expected, "{scheme} {keys} {reply:?}");
            assert_eq!(truth(&reply, 0, &[]), Ok(()));
        }
    }
}
