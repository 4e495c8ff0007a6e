//! What a client counts is what happened: by what its calls returned, and by what the server saw of them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arctos_tests::api::{
    BAD_ARGUMENT, BAD_TASK, BROKEN, CANCELLED, CONNECT, FORBIDDEN, NOT_CREATED, OK, Owned, PARTIAL, Reply, TIMEOUT,
    TLS, arctos, call, task, task_check,
};
use arctos_tests::deadline::Scheme;
use arctos_tests::expected::{
    BAD_RESPONSE_CREATED, BAD_RESPONSE_UNKNOWN, BROKEN_UNKNOWN, BUSY_NOT_CREATED, BUSY_UNKNOWN, Expected,
    FAILED_NOT_CREATED, FORBIDDEN_NOT_CREATED, MADE, NOT_FOUND_NOT_CREATED, REJECTED_NOT_CREATED, REJECTED_UNKNOWN,
    SERVER_ERROR_UNKNOWN,
};
use arctos_tests::http::{Framing, answer, answer_head, failure_body, head, success, success_body};
use arctos_tests::proxy::{self, Proxy};
use arctos_tests::server::{Script, Server, Step};
use arctos_tests::stage::{Stage, TOKEN, at_once, config, config_tls, with};
use arctos_tests::tls::{Authority, Identity, Version};
use arctos_tests::tools::{Host, Running};
use serde_json::{Value, json};

/// No pause of a test comes near it.
const LONG: u32 = 3_600_000;

/// A client that keeps its connections, and its server.
fn keeping(scheme: Scheme) -> Stage {
    Stage::over(scheme, json!({ "idle_timeout_ms": LONG }))
}

fn number(stats: &Value, pointer: &str) -> u64 {
    stats.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer} in {stats}"))
}

fn sum(object: &Value) -> u64 {
    object.as_object().expect("an object").values().map(|value| value.as_u64().expect("a number")).sum()
}

/// What is true of every client: `kept` and the reasons for closing that are named are the only ones.
#[track_caller]
fn connections(client: &Owned, kept: u64, closed: &[(&str, u64)]) -> Value {
    let stats = client.stats();
    let connections = &stats["connections"];
    let total = kept + closed.iter().map(|(_, count)| count).sum::<u64>();
    assert_eq!(number(connections, "/kept"), kept, "{stats}");
    assert_eq!(number(connections, "/in_use"), 0, "{stats}");
    for (reason, count) in connections["closed"].as_object().expect("reasons") {
        let expected = closed.iter().find(|(known, _)| known == reason).map_or(0, |(_, count)| *count);
        assert_eq!(count.as_u64(), Some(expected), "{reason}: {stats}");
    }
    assert_eq!(number(connections, "/opened"), total, "{stats}");
    stats
}

/// What is true when no call is in flight.
#[track_caller]
fn agree(stats: &Value, calls: u64) {
    assert_eq!(number(stats, "/calls/in_flight"), 0, "{stats}");
    assert_eq!(number(stats, "/calls/ended"), calls, "{stats}");
    assert_eq!(sum(&stats["calls"]["codes"]), calls, "{stats}");
    assert_eq!(sum(&stats["calls"]["outcomes"]), calls, "{stats}");
    assert_eq!(number(stats, "/latency_us/count"), calls, "{stats}");
    let times = ["p50", "p90", "p99", "max"].map(|key| number(stats, &format!("/latency_us/{key}")));
    assert!(times.is_sorted() && number(stats, "/latency_us/mean") <= times[3], "{stats}");
}

#[test]
fn a_client_that_did_nothing_counts_nothing() {
    let server = Server::plain();
    let client = Owned::new(&config(&server.base_url()));
    let fresh = client.stats();
    agree(&fresh, 0);
    // None of these is a call.
    server.next(Script::request().send(head("200 OK", &[])));
    client.diagnose();
    task_check(&task("N"));
    client.set_token("another");
    client.cancel();
    client.add_many("{}", "{}");
    client.stats();
    assert_eq!(client.stats(), fresh);
    server.settle(0).expect("the diagnosis has ended");
}

/// Counts what calls returned.
#[derive(Default)]
struct Returned {
    calls: u64,
    codes: BTreeMap<String, u64>,
    outcomes: BTreeMap<&'static str, u64>,
    attempts: u64,
}

impl Returned {
    fn take(&mut self, code: i32, outcome: i32, attempts: u64) {
        // SAFETY: a static text.
        let name = unsafe { std::ffi::CStr::from_ptr((arctos().code_name)(code)) };
        self.calls += 1;
        *self.codes.entry(name.to_str().expect("ASCII").to_owned()).or_default() += 1;
        let word = ["not_created", "created", "unknown"][usize::try_from(outcome).expect("an outcome")];
        *self.outcomes.entry(word).or_default() += 1;
        self.attempts += attempts;
    }

    fn took(&mut self, reply: &Reply, code: i32) {
        assert_eq!(reply.code, code, "{reply:?}");
        let attempts = if code == OK { 1 } else { reply.json()["attempts"].as_u64().expect("attempts") };
        self.take(code, reply.outcome, attempts);
    }
}

#[test]
fn every_call_is_counted_by_its_code_and_its_outcome() {
    let stage = Stage::http();
    let mut returned = Returned::default();
    let whole = |status: &'static str, body: String| {
        move |_: &str| Script::request().send(answer(status, Framing::Length, body.as_bytes())).close()
    };
    let made = |body: &'static str| {
        move |_: &str| Script::made().send(answer("200 OK", Framing::Length, body.as_bytes())).close()
    };
    let mut run = |case: &str, expected: Expected, script: &dyn Fn(&str) -> Script| {
        let reply = stage.run(case, expected, script).reply;
        returned.took(&reply, expected.code);
    };
    run("success", MADE, &|_| Script::served().close());
    run("success again", MADE, &|_| Script::served().close());
    run("warning", MADE, &made(r#"{"status":2,"message":"late","info":{"task_num":"T"}}"#));
    run("no number", BAD_RESPONSE_CREATED, &made(r#"{"status":1}"#));
    run("refused", FAILED_NOT_CREATED, &whole("200 OK", failure_body("no")));
    run("401", FORBIDDEN_NOT_CREATED, &whole("401 No", String::new()));
    run("404", NOT_FOUND_NOT_CREATED, &whole("404 No", String::new()));
    run("400", REJECTED_NOT_CREATED, &whole("400 No", String::new()));
    run("409", REJECTED_UNKNOWN, &whole("409 No", String::new()));
    run("429", BUSY_NOT_CREATED, &whole("429 No", String::new()));
    run("503", BUSY_UNKNOWN, &whole("503 No", String::new()));
    run("500", SERVER_ERROR_UNKNOWN, &whole("500 No", String::new()));
    run("not JSON", BAD_RESPONSE_UNKNOWN, &whole("200 OK", "no".to_owned()));
    run("reset", BROKEN_UNKNOWN, &|_| Script::request().reset());
    let (client, server) = (&stage.client, &stage.server);
    server.next(Script::request());
    returned.took(&client.add_with(&task("LATE"), r#"{"timeout_ms":50}"#), TIMEOUT);
    server.next(Script::request());
    std::thread::scope(|scope| {
        let cancelled = scope.spawn(|| client.add(&task("CANCELLED")));
        server.await_requests(16).expect("the call is under way");
        assert_eq!(number(&client.stats(), "/calls/in_flight"), 1);
        client.cancel();
        returned.took(&cancelled.join().expect("it returns"), CANCELLED);
    });
    server.down();
    returned.took(&client.add(&task("NOBODY")), CONNECT);
    server.up();
    returned.took(&client.add("{}"), BAD_TASK);
    returned.took(&client.add_with(&task("N"), "{"), BAD_ARGUMENT);
    let reply = call(|answer| unsafe { (arctos().task_add)(client.0, std::ptr::null(), answer) });
    returned.took(&reply, BAD_ARGUMENT);
    returned.took(&client.call("no path", "{}"), BAD_ARGUMENT);
    server.next(Script::request().send(answer("200 OK", Framing::Length, br#"{"status":1}"#)).close());
    returned.took(&client.call("/api/room/list", "{}"), OK);

    server.always(Script::served().close());
    let tasks = format!("[{},{{}},{}]", task("M-1"), task("M-2"));
    assert_eq!(client.add_many(&tasks, "{}").code, PARTIAL);
    for (code, outcome, attempts) in [(OK, 1, 1), (OK, 1, 1), (BAD_TASK, NOT_CREATED, 0)] {
        returned.take(code, outcome, attempts);
    }

    let stats = client.stats();
    agree(&stats, returned.calls);
    assert_eq!(stats["calls"]["codes"], json!(returned.codes));
    assert_eq!(stats["calls"]["outcomes"], json!(returned.outcomes));
    assert_eq!(number(&stats, "/attempts"), returned.attempts);
    assert_eq!((number(&stats, "/retries"), number(&stats, "/logins")), (0, 0));
    for word in [TOKEN, "BR0943", "M-1", "127.0.0.1"] {
        assert!(!stats.to_string().contains(word), "{stats}");
    }
}

#[test]
fn tries_retries_and_log_ins_are_counted_apart() {
    let stage = Stage::http_with(json!({ "retries": 2 }));
    let busy = || Script::request().send(head("429 Busy", &["Content-Length: 0"])).close();
    stage.run_tries("at the third", MADE, |_| vec![busy(), busy(), Script::served().close()]);
    let done = stage.run_tries("never", BUSY_NOT_CREATED, |_| vec![busy(), busy(), busy()]);
    assert_eq!(done.reply.json()["attempts"], 3);
    stage.run("at once", MADE, |_| Script::served().close());
    let stats = stage.client.stats();
    agree(&stats, 3);
    assert_eq!(["/attempts", "/retries", "/logins"].map(|key| number(&stats, key)), [7, 4, 0]);

    let server = Server::plain();
    let mut keys = config(&server.base_url());
    keys.as_object_mut().expect("an object").remove("token");
    let client = Owned::new(&with(keys, json!({ "login": { "path": "/in", "body": {}, "token_pointer": "/token" } })));
    let logs_in = || Script::request().send(answer("200 OK", Framing::Length, br#"{"token":"a"}"#)).close();
    server.next(logs_in());
    server.next(Script::request().send(head("401 No", &["Content-Length: 0"])).close());
    server.next(Script::request().send(answer("200 OK", Framing::Length, br#"{"token":"b"}"#)).close());
    server.next(Script::served().close());
    assert_eq!(client.add(&task("N")).code, OK);
    let stats = connections(&client, 0, &[("not_kept", 4)]);
    agree(&stats, 1);
    assert_eq!(["/attempts", "/retries", "/logins"].map(|key| number(&stats, key)), [2, 0, 2]);
    server.next(Script::request().send(head("401 No", &["Content-Length: 0"])).close());
    server.next(Script::request().send(head("403 No", &["Content-Length: 0"])).close());
    assert_eq!(client.add(&task("N")).code, FORBIDDEN);
    assert_eq!(number(&client.stats(), "/logins"), 3);
}

#[test]
fn kept_connections_are_told_from_new_ones() {
    at_once(Scheme::ALL, |scheme| {
        let stage = keeping(scheme);
        stage.server.always(Script::forever(Script::served()));
        let numbers: Vec<String> = (0..5).map(|call| format!("N-{call}")).collect();
        for number in &numbers {
            assert_eq!(stage.client.add(&task(number)).code, OK);
        }
        let stats = connections(&stage.client, 1, &[]);
        agree(&stats, 5);
        assert_eq!(
            ["reused", "resumed", "failed"].map(|key| number(&stats["connections"], &format!("/{key}"))),
            [4, 0, 0]
        );
        // The server has all that was sent, and the client all that it was sent.
        let brought: u64 = stage.server.brought(0).iter().sum();
        assert_eq!(number(&stats, "/bytes/sent"), brought, "{scheme:?}");
        let said: usize = numbers.iter().map(|number| success(number).len()).sum();
        let received = number(&stats, "/bytes/received");
        match scheme {
            Scheme::Http => assert_eq!(received, said as u64),
            Scheme::Https(_) => assert!(received > said as u64, "{received} with TLS around {said}"),
        }
    });
}

#[test]
fn resumed_sessions_are_told_from_whole_handshakes() {
    at_once([Version::Tls12, Version::Tls13], |version| {
        for (resumption, resumed) in [(true, 3), (false, 0)] {
            let stage = Stage::https_with(Identity { resumption, ..Identity::right(version) }, json!({}));
            for call in 0..4 {
                stage.run(&format!("call {call}"), MADE, |_| Script::served().close());
            }
            let stats = connections(&stage.client, 0, &[("not_kept", 4)]);
            assert_eq!(number(&stats, "/connections/resumed"), resumed, "{version:?} {resumption}");
        }
    });
}

#[test]
fn connections_that_fail_are_not_opened() {
    let stage = Stage::http();
    stage.server.down();
    assert_eq!(stage.client.add(&task("N")).code, CONNECT);
    let stats = connections(&stage.client, 0, &[]);
    assert_eq!((number(&stats, "/connections/failed"), number(&stats, "/attempts")), (1, 1));

    let server = Server::start("127.0.0.1", Some(Authority::new().server(Identity::right(Version::Tls13))));
    let client = Owned::new(&config_tls(&server.base_url(), &Authority::new()));
    server.next(Script::silent().then(Step::Refuse));
    assert_eq!(client.add(&task("N")).code, TLS);
    let stats = connections(&client, 0, &[]);
    assert_eq!(number(&stats, "/connections/failed"), 1);
    let seen = server.settle(0).expect("the connection has ended");
    assert_eq!(number(&stats, "/bytes/sent"), seen[0].raw, "the handshake is counted");
    assert!(number(&stats, "/bytes/received") > 0);
}

#[test]
fn a_connection_that_waited_too_long_has_expired() {
    let server = Server::plain();
    let client = Owned::new(&with(config(&server.base_url()), json!({ "idle_timeout_ms": 1 })));
    for call in 0..3 {
        server.next(Script::served());
        assert_eq!(client.add(&task(&format!("N-{call}"))).code, OK);
        // Longer than it may wait, whatever the machine does.
        std::thread::sleep(Duration::from_millis(5));
    }
    let stats = connections(&client, 1, &[("expired", 2)]);
    assert_eq!(number(&stats, "/connections/reused"), 0);
    // It is closed as well when another one comes to be kept.
    server.next(Script::made().then(Step::AwaitRelease).then(Step::Answer(success)));
    std::thread::scope(|scope| {
        let held = scope.spawn(|| client.add(&task("HELD")).code);
        server.await_requests(4).expect("the call is under way");
        server.next(Script::served());
        assert_eq!(client.add(&task("BESIDE")).code, OK);
        std::thread::sleep(Duration::from_millis(5));
        server.release();
        assert_eq!(held.join().expect("it returns"), OK);
    });
    connections(&client, 1, &[("expired", 4)]);
}

#[test]
fn a_connection_that_the_server_left_is_found_stale() {
    at_once(Scheme::ALL, |scheme| {
        let stage = keeping(scheme);
        let ends: [fn(Script) -> Script; 3] = [Script::close, Script::fin, |script| script.send(success("NOBODY"))];
        for (index, end) in ends.into_iter().enumerate() {
            stage.server.next(end(Script::served().then(Step::AwaitRelease)).then(Step::Acknowledged));
            assert_eq!(stage.client.add(&task(&format!("N-{index}"))).code, OK);
            connections(&stage.client, 1, &[("stale", index as u64)]);
            stage.server.release();
            stage.server.await_over(index).expect("the script ends");
        }
        stage.server.next(Script::served());
        assert_eq!(stage.client.add(&task("LAST")).code, OK);
        let stats = connections(&stage.client, 1, &[("stale", 3)]);
        assert_eq!(number(&stats, "/connections/reused"), 0, "{scheme:?}");
    });
}

#[test]
fn a_connection_is_not_kept_for_what_its_answer_says() {
    at_once(Scheme::ALL, |scheme| {
        let stage = keeping(scheme);
        let body = success_body("N");
        let saying = |header: &str| {
            let length = format!("Content-Length: {}", body.len());
            [head("200 OK", &[header, &length]), body.clone().into_bytes()].concat()
        };
        let old = String::from_utf8(saying("A: b")).expect("UTF-8").replace("HTTP/1.1", "HTTP/1.0").into_bytes();
        let second = [saying("A: b"), success("NOBODY")].concat();
        let answers = [saying("Connection: close"), saying("Keep-Alive: timeout=0"), old, second];
        for (index, answer) in (1..).zip(answers) {
            stage.server.next(Script::made().send(answer));
            assert_eq!(stage.client.add(&task(&format!("N-{index}"))).code, OK, "{scheme:?} {index}");
            connections(&stage.client, 0, &[("not_kept", index)]);
        }
        stage.server.next(Script::request().send(head("204 None", &[])));
        assert_ne!(stage.client.add(&task("NONE")).code, OK);
        connections(&stage.client, 0, &[("not_kept", 5)]);
    });
}

#[test]
fn a_connection_that_ends_with_its_answer_is_told_from_one_that_is_cut_off() {
    at_once(Scheme::ALL, |scheme| {
        let stage = keeping(scheme);
        let body = success_body("N");
        let run = |script: Script, code: i32| {
            stage.server.next(script);
            let reply = stage.client.add_with(&task(&stage.number()), r#"{"timeout_ms":2000}"#);
            assert_eq!(reply.code, code, "{scheme:?} {reply:?}");
        };
        run(Script::made().send(answer("200 OK", Framing::Close, body.as_bytes())).close(), OK);
        connections(&stage.client, 0, &[("ended", 1)]);
        let half = || [answer_head("200 OK", Framing::Length, body.len()), body.as_bytes()[..9].to_vec()].concat();
        run(Script::made().send(half()).close(), BROKEN);
        connections(&stage.client, 0, &[("ended", 2)]);
        run(Script::made().send(half()).reset(), BROKEN);
        run(Script::request().reset(), BROKEN);
        run(Script::request(), TIMEOUT);
        let stats = connections(&stage.client, 0, &[("ended", 2), ("broken", 3)]);
        agree(&stats, 5);
    });
}

#[test]
fn connections_beyond_those_that_are_kept_are_surplus() {
    let stage = Stage::http_with(json!({ "idle_timeout_ms": LONG, "connections": 2 }));
    let (client, server) = (&stage.client, &stage.server);
    server.always(Script::made().then(Step::AwaitRelease).then(Step::Answer(success)));
    std::thread::scope(|scope| {
        let calls = [0, 1, 2, 3, 4].map(|call| scope.spawn(move || client.add(&task(&format!("N-{call}"))).code));
        server.await_requests(5).expect("the calls are under way");
        let stats = client.stats();
        assert_eq!(number(&stats, "/calls/in_flight"), 5);
        assert_eq!(["/opened", "/in_use", "/kept"].map(|key| number(&stats["connections"], key)), [5, 5, 0]);
        server.release();
        assert_eq!(calls.map(|call| call.join().expect("it returns")), [OK; 5]);
    });
    agree(&connections(client, 2, &[("surplus", 3)]), 5);
}

#[test]
fn a_client_that_is_freed_in_the_middle_of_a_call_counts_no_more() {
    let Stage { client, server, .. } = keeping(Scheme::Http);
    server.next(Script::made().then(Step::AwaitRelease).then(Step::Answer(success)));
    std::thread::scope(|scope| {
        let under_way = scope.spawn(|| client.add(&task("N")));
        server.await_requests(1).expect("the call is under way");
        // SAFETY: a client that is used no more but by whoever is inside.
        unsafe { (arctos().client_free)(client.0) };
        assert_eq!(client.told().code, BAD_ARGUMENT);
        server.release();
        assert_eq!(under_way.join().expect("it returns").code, OK);
    });
    server.settle(0).expect("the connection has ended");
}

#[test]
fn latency_is_between_what_the_server_waits_and_what_the_caller_sees() {
    const CALLS: usize = 40;
    const SLOW: usize = 6;
    const WAIT: Duration = Duration::from_millis(80);
    let stage = Stage::http();
    let us = |time: Duration| u64::try_from(time.as_micros()).expect("a short time");
    let mut times = Vec::new();
    for call in 0..CALLS {
        let late = Script::made().then(Step::Pieces(Vec::from(*b"HTTP/1.1 100 Continue\r\n\r\n"), 100, WAIT));
        let script = if call < SLOW { late.then(Step::Answer(success)) } else { Script::served() };
        stage.server.next(script.close());
        let begun = Instant::now();
        assert_eq!(stage.client.add(&task(&format!("N-{call}"))).code, OK);
        times.push(us(begun.elapsed()));
    }
    times.sort_unstable();
    let stats = stage.client.stats();
    agree(&stats, CALLS as u64);
    let of = |key: &str| number(&stats, &format!("/latency_us/{key}"));
    for (key, percent) in [("p50", 50), ("p90", 90), ("p99", 99), ("max", 100)] {
        let seen = times[(CALLS * percent).div_ceil(100) - 1];
        // A bucket may be 1/32 longer than what is in it.
        assert!(of(key) <= seen + seen / 32, "{key}: {} though the caller waited {seen}", of(key));
    }
    for key in ["p90", "p99", "max"] {
        assert!(of(key) >= us(WAIT), "{key}: {}", of(key));
    }
    assert!(of("p50") > 0 && of("mean") >= us(WAIT) * SLOW as u64 / CALLS as u64, "{stats}");
    assert!(of("mean") * CALLS as u64 <= times.iter().sum(), "{stats}");
}

#[test]
fn what_eight_threads_do_at_once_adds_up() {
    const THREADS: u64 = 8;
    const CALLS: u64 = 150;
    at_once(Scheme::ALL, |scheme| {
        let stage = keeping(scheme);
        let (client, server) = (&stage.client, &stage.server);
        server.always(Script::forever(Script::served()));
        let over = AtomicBool::new(false);
        let over = &over;
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || {
                let mut ended = 0;
                while !over.load(Ordering::Relaxed) {
                    let stats = client.stats();
                    let now = number(&stats, "/calls/ended");
                    assert!(ended <= now && number(&stats, "/calls/in_flight") <= THREADS, "{stats}");
                    assert_eq!(sum(&stats["calls"]["codes"]), sum(&stats["calls"]["outcomes"]), "{stats}");
                    ended = now;
                }
            });
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    scope.spawn(move || {
                        for call in 0..CALLS {
                            let wrong = call % 10 == 9;
                            let task = if wrong { "{}".to_owned() } else { task(&format!("N-{thread}-{call}")) };
                            assert_eq!(client.add(&task).code, if wrong { BAD_TASK } else { OK });
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().expect("its calls return"));
            over.store(true, Ordering::Relaxed);
            reader.join().expect("it reads");
        });
        let (calls, wrong) = (THREADS * CALLS, THREADS * CALLS / 10);
        let opened = server.connections() as u64;
        let stats = connections(client, opened, &[]);
        agree(&stats, calls);
        assert_eq!(stats["calls"]["codes"], json!({ "ARCTOS_OK": calls - wrong, "ARCTOS_BAD_TASK": wrong }));
        assert_eq!(number(&stats, "/attempts"), calls - wrong);
        assert_eq!(number(&stats, "/connections/reused"), calls - wrong - opened);
        assert_eq!(number(&stats, "/bytes/sent"), server.brought(0).iter().sum::<u64>(), "{scheme:?}");
    });
}

#[test]
fn the_part_of_a_proxy_is_counted() {
    let server = Server::plain();
    let proxy = Proxy::to(server.address());
    let keys = json!({ "proxy": proxy.url(), "idle_timeout_ms": LONG });
    let client = Owned::new(&with(config(&server.base_url()), keys));
    proxy.next(proxy::Script::head().send("HTTP/1.1 502 Not now\r\nContent-Length: 0\r\n\r\n").fin());
    assert_eq!(client.add(&task("N")).code, CONNECT);
    let stats = connections(&client, 0, &[]);
    assert_eq!(number(&stats, "/connections/failed"), 1);
    let refused = number(&stats, "/bytes/sent");
    assert!(refused > 0 && number(&stats, "/bytes/received") > 0, "{stats}");
    server.next(Script::served());
    proxy.next(proxy::Script::tunnel());
    assert_eq!(client.add(&task("N")).code, OK);
    let stats = connections(&client, 1, &[]);
    let connect = refused;
    assert_eq!(number(&stats, "/bytes/sent"), refused + connect + server.brought(0)[0]);
}

#[test]
fn a_child_counts_on_without_what_its_parent_is_about() {
    let server = Server::plain();
    server.next(Script::made().then(Step::AwaitRelease).then(Step::Answer(success)));
    server.always(Script::forever(Script::served()));
    let host = Host::new("stats");
    let config = with(config(&server.base_url()), json!({ "idle_timeout_ms": LONG }));
    let mut command = host.command();
    command.arg(config.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = Running(command.spawn().expect("the host starts"));
    server.await_requests(1).expect("the call is under way");
    running.0.stdin.as_mut().expect("piped").write_all(b"\n").expect("it reads");
    let mut lines = BufReader::new(running.0.stdout.take().expect("piped")).lines();
    let mut next = |what: &str| -> Value {
        let line = lines.next().unwrap_or_else(|| panic!("{what}: the host has ended")).expect("UTF-8");
        serde_json::from_str(&line).expect("JSON")
    };
    let figures = |stats: &Value| {
        ["/calls/in_flight", "/calls/ended", "/connections/in_use", "/connections/kept", "/connections/opened"]
            .map(|pointer| number(stats, pointer))
    };
    let parent = next("the parent");
    assert_eq!(figures(&parent), [1, 2, 1, 1, 2], "{parent}");
    let child = next("the child");
    assert_eq!(figures(&child), [0, 2, 0, 0, 2], "{child}");
    assert_eq!(child["calls"]["codes"], parent["calls"]["codes"]);
    let child = next("the child after its call");
    assert_eq!(figures(&child), [0, 3, 0, 1, 3], "{child}");
    assert_eq!(number(&child, "/connections/closed/fork"), 1, "{child}");
    assert_eq!(sum(&child["connections"]["closed"]), 1, "{child}");
    assert_eq!(next("the parent, which does not notice"), parent);
    server.release();
    let parent = next("the parent at its end");
    assert_eq!(figures(&parent), [0, 3, 0, 2, 2], "{parent}");
    assert_eq!(sum(&parent["connections"]["closed"]), 0, "{parent}");
    assert!(running.0.wait().expect("it ends").success());
}
