//! A call ends at its deadline, whatever the server does, and nothing of it arrives afterwards.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use arctos_tests::api::{Owned, Reply, task};
use arctos_tests::expected::{Expected, TIMEOUT_NOT_CREATED, TIMEOUT_UNKNOWN};
use arctos_tests::http::{Framing, answer, answer_head, success_body};
use arctos_tests::ledger::truth;
use arctos_tests::server::{Script, Step};
use arctos_tests::stage::{Done, Stage, config, with};
use arctos_tests::tls::{Identity, Version};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

/// Runs a call that must end when so many milliseconds are over: not earlier, and no later than a second
/// after a thread that slept to the same instant.
#[track_caller]
fn on_time<T>(deadline_ms: u64, call: impl FnOnce() -> T) -> T {
    let deadline = Instant::now() + Duration::from_millis(deadline_ms);
    let control = std::thread::spawn(move || {
        std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
        Instant::now()
    });
    let result = call();
    let returned = Instant::now();
    let control = control.join().expect("the thread only sleeps");
    assert!(returned >= deadline, "returned {:?} before its deadline", deadline - returned);
    let late = returned.saturating_duration_since(control);
    assert!(late <= Duration::from_secs(1), "returned {late:?} after its deadline");
    result
}

const DEADLINE: u64 = 600;

fn keys() -> Value {
    json!({ "timeout_ms": DEADLINE })
}

#[track_caller]
fn case(stage: &Stage, what: &str, expected: Expected, script: Script) -> Done {
    let done = stage.run(what, expected, |number| {
        // The clock of the case: the script is made right before the call.
        let _ = number;
        script
    });
    assert!(done.reply.json()["elapsed_ms"].as_u64().is_some_and(|elapsed| elapsed >= DEADLINE - 100), "{done:?}");
    done
}

/// A call with the whole deadline, timed from entry to return.
#[track_caller]
fn timed(stage: &Stage, what: &str, expected: Expected, task: impl FnOnce(&str) -> String, script: Script) -> Done {
    let number = stage.number();
    let task = task(&number);
    let from = stage.server.connections();
    stage.server.next(script);
    let reply = on_time(DEADLINE, || stage.client.add(&task));
    stage.judge(from, &number, expected, reply).unwrap_or_else(|wrong| panic!("{what}: {wrong}"))
}
