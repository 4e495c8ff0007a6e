//! Days on which the system refuses, interrupts and takes away: the outcome stays true, and the next call works.

use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::time::Duration;

use arctos_tests::api::{BAD_ARGUMENT, CREATED, Client, NOT_CREATED, OK, Owned, Reply, library_path, task};
use arctos_tests::deadline::{FullQueue, longer_than_both_buffers};
use arctos_tests::expected::{
    BROKEN_UNKNOWN, Expected, FAILED_NOT_CREATED, MADE, REJECTED_NOT_CREATED, SERVER_ERROR_UNKNOWN,
    TIMEOUT_NOT_CREATED, TIMEOUT_UNKNOWN,
};
use arctos_tests::http::{Framing, answer, failure_body, head, success, success_body};
use arctos_tests::ledger::check;
use arctos_tests::server::{Change, Exchange, Script, Server, Step};
use arctos_tests::stage::{config, config_tls, with};
use arctos_tests::tls::{Authority, Identity, Version};
use arctos_tests::tools::{Host, Preload, Talker, both, succeed};
use serde_json::{Value, json};

const ALL: [Option<Version>; 3] = [None, Some(Version::Tls12), Some(Version::Tls13)];

/// A server, and the configuration of a client that trusts it.
fn site(version: Option<Version>) -> (Server, Authority, Value) {
    let authority = Authority::new();
    let server = Server::start("127.0.0.1", version.map(|version| authority.server(Identity::right(version))));
    let config = config_tls(&server.base_url(), &authority);
    (server, authority, config)
}

/// A client that keeps its connections, whatever time a test takes.
fn keeping(config: Value) -> Value {
    with(config, json!({ "idle_timeout_ms": 3_600_000 }))
}

/// A server that makes every appointment, on connections that it keeps.
fn serving() -> Server {
    let server = Server::plain();
    server.always(Script::forever(Script::served()));
    server
}

#[track_caller]
fn all_made_once(server: &Server) {
    let ledger = server.ledger();
    assert!(ledger.all().values().all(|made| *made == 1), "{ledger:?}");
}

/// One call under a storm of signals, and how many there were.
fn call_in_storm(host: &Host, preload: Option<&Preload>, config: &Value, remark: usize) -> (u32, Reply) {
    let mut command = host.command();
    command.args(["alarms", &config.to_string(), &remark.to_string()]);
    if let Some(library) = preload {
        command.env("LD_PRELOAD", library.path());
    }
    let output = succeed(&mut command);
    let text = String::from_utf8(output.stdout).expect("text");
    let parts: Vec<&str> = text.splitn(4, ' ').collect();
    let [signals, code, outcome, text] = parts[..] else { panic!("not what it prints: {text}") };
    let number = |text: &str| text.parse::<i32>().expect("a number");
    let reply = Reply { code: number(code), outcome: number(outcome), text: Some(text.to_owned()) };
    (signals.parse().expect("a number"), reply)
}

/// A name that is looked up slowly, and connections that are not made.
#[test]
fn signals_change_nothing_before_the_connection() {
    let (host, resolver) = (Host::new("hard_days"), Preload::new("resolver"));
    let server = serving();
    let url = format!("http://slow.bank.example:{}", server.address().port());
    let call = |keys| call_in_storm(&host, Some(&resolver), &with(config(&url), keys), 10);
    let (signals, reply) = call(json!({ "allow_http": true }));
    assert_eq!((reply.code, reply.text()), (OK, &*success_body("ALARM")));
    assert!(signals > 20, "{signals} signals in 300 ms");
    server.settle(0).expect("the connection has ended");
    assert_eq!(server.ledger().made("ALARM"), 1);

    let (signals, reply) = call(json!({ "allow_http": true, "timeout_ms": 200 }));
    timed_out(&reply, TIMEOUT_NOT_CREATED, 200, "the name was not resolved");
    assert!(signals > 10, "{signals} signals in 200 ms");

    let queue = FullQueue::new("127.0.0.1", 0);
    let config = with(config(&format!("http://{}", queue.address())), json!({ "timeout_ms": 300 }));
    let (signals, reply) = call_in_storm(&host, None, &config, 10);
    timed_out(&reply, TIMEOUT_NOT_CREATED, 300, "no connection");
    assert!(signals > 10, "{signals} signals in 300 ms");
    assert_eq!(queue.nobody_came(), Ok(()));
}

#[track_caller]
fn timed_out(reply: &Reply, expected: Expected, deadline: u64, words: &str) {
    assert_eq!((reply.code, reply.outcome), (expected.code, expected.outcome), "{reply:?}");
    let document = reply.json();
    assert!(document["message"].as_str().is_some_and(|message| message.contains(words)), "{reply:?}");
    let elapsed = document["elapsed_ms"].as_u64().expect("a number");
    assert!((deadline..deadline + 2000).contains(&elapsed), "{reply:?}");
}

#[test]
fn signals_change_nothing_in_any_phase_of_a_call() {
    let host = Host::new("hard_days");
    let slow = Duration::from_millis(3);
    let whole = success("ALARM");
    let served = || Script::made().then(Step::Pieces(whole.clone(), 2, slow)).close();
    for version in ALL {
        let mut cases = vec![
            ("a slow answer", MADE, json!({}), 10, vec![served()]),
            (
                "a slow request",
                MADE,
                json!({}),
                longer_than_both_buffers(),
                vec![Script::silent().then(Step::Read(1)).then(Step::AwaitRelease).and(served())],
            ),
            (
                "a pause",
                MADE,
                json!({ "retries": 1 }),
                10,
                vec![
                    Script::request().send(head("429 Busy", &["Retry-After: 1", "Content-Length: 0"])).close(),
                    served(),
                ],
            ),
            ("no answer", TIMEOUT_UNKNOWN, json!({ "timeout_ms": 400 }), 10, vec![Script::made()]),
            (
                "half an answer",
                TIMEOUT_UNKNOWN,
                json!({ "timeout_ms": 400 }),
                10,
                vec![Script::made().send(whole[..whole.len() - 1].to_vec())],
            ),
            ("a reset", BROKEN_UNKNOWN, json!({}), 10, vec![Script::made().reset()]),
            (
                "a refusal",
                FAILED_NOT_CREATED,
                json!({}),
                10,
                vec![
                    Script::request()
                        .then(Step::Pieces(
                            answer("200 OK", Framing::Chunked(7), failure_body("no").as_bytes()),
                            3,
                            slow,
                        ))
                        .close(),
                ],
            ),
        ];
        if version.is_some() {
            let flight = Script::silent().then(Step::Flight(Change::Slow(Duration::from_micros(300))));
            cases.push(("a slow handshake", MADE, json!({}), 10, vec![flight.and(served())]));
            let keys = json!({ "connect_timeout_ms": 300 });
            cases.push(("no handshake", TIMEOUT_NOT_CREATED, keys, 10, vec![Script::silent()]));
        }
        for (case, expected, keys, remark, scripts) in cases {
            let (server, _authority, config) = site(version);
            server.receive_buffer(64 * 1024);
            let connections = scripts.len();
            scripts.into_iter().for_each(|script| server.next(script));
            let done = AtomicBool::new(false);
            let (signals, reply) = std::thread::scope(|scope| {
                // A request that the server does not take at first.
                scope.spawn(|| {
                    while !done.load(Ordering::SeqCst) {
                        std::thread::sleep(Duration::from_millis(100));
                        server.release();
                    }
                });
                let result = call_in_storm(&host, None, &with(config, keys), remark);
                done.store(true, Ordering::SeqCst);
                result
            });
            let case = format!("{case}, {version:?}");
            let seen = server.settle(0).unwrap_or_else(|open| panic!("{case}: {open}"));
            assert_eq!(seen.len(), connections, "{case}");
            let tries: Vec<Exchange> = seen.into_iter().flat_map(|seen| seen.exchanges).collect();
            assert_eq!(check(&reply, server.ledger().made("ALARM"), &tries), Ok(()), "{case}: {reply:?}");
            assert_eq!((reply.code, reply.outcome), (expected.code, expected.outcome), "{case}: {reply:?}");
            if expected == MADE {
                assert_eq!(reply.text(), success_body("ALARM"), "{case}");
            }
            assert!(signals > 5 || expected == BROKEN_UNKNOWN, "{case}: {signals} signals");
        }
    }
}

#[test]
fn without_descriptors_a_call_says_so_and_works_again_later() {
    let host = Host::new("hard_days");
    let server = serving();
    let (ip, name) = (keeping(config(&server.base_url())), keeping(config(&server.base_url_as("localhost"))));
    let authority = Authority::new();
    let file = config_tls("https://127.0.0.1:1", &authority);
    host.run(&["descriptors", &ip.to_string(), &name.to_string(), &file.to_string()]);
    let seen = server.settle(0).expect("the connections have ended");
    let numbers: Vec<Vec<String>> = seen.iter().map(|seen| seen.numbers()).collect();
    assert_eq!(numbers, [&["K1", "K2", "K3", "K4", "K5"][..], &["F2"], &["N2"]]);
    all_made_once(&server);
}

#[test]
fn without_threads_a_name_is_not_looked_up_and_all_else_works() {
    let host = Host::new("hard_days");
    let server = serving();
    let (name, ip) = (config(&server.base_url_as("localhost")), config(&server.base_url()));
    host.run(&["threads", &name.to_string(), &ip.to_string()]);
    server.settle(0).expect("the connections have ended");
    assert_eq!(server.ledger().all().keys().collect::<Vec<_>>(), ["I1", "N1"]);
    all_made_once(&server);
}

#[test]
fn sigpipe_ends_no_host_that_writes_to_a_kept_connection() {
    let host = Host::new("hard_days");
    for version in ALL {
        for end in [
            Script::silent().fin().then(Step::Reset),
            Script::silent().then(Step::Reset),
            Script::silent().close().then(Step::Reset),
        ] {
            let (server, _authority, config) = site(version);
            server.always(Script::served().then(Step::Read(1)).and(end));
            host.run(&["sigpipe", &keeping(config).to_string()]);
            let seen = server.settle(0).expect("the connections have ended");
            assert_eq!(seen.len(), 5);
            for (round, seen) in seen.iter().enumerate() {
                assert_eq!(seen.numbers(), [format!("S{round}")]);
                assert!(seen.exchanges.len() == 2, "the large request went over the kept connection");
            }
            assert_eq!(server.ledger().all().len(), 5);
        }
    }
}

/// A copy of the descriptor in another process keeps a connection open that is closed here.
#[test]
fn nothing_follows_a_call_that_ended_while_a_program_was_being_started() {
    let host = Host::new("hard_days");
    for version in ALL {
        let (server, _authority, config) = site(version);
        server.receive_buffer(64 * 1024);
        server.next(Script::silent().then(Step::Read(1)).then(Step::AwaitRelease));
        let config = with(config, json!({ "timeout_ms": 500 })).to_string();
        let mut host = Talker::of(host.command().args(["spawned", &config, &longer_than_both_buffers().to_string()]));
        host.says("returned");
        let brought = server.brought(0);
        server.release();
        let seen = server.settle(0).expect("the connection has ended");
        assert!(seen[0].raw <= brought[0], "{} bytes had arrived, at the end {}", brought[0], seen[0].raw);
        host.go_on();
        host.ends();
    }
}

#[test]
fn a_library_that_is_closed_and_opened_beside_calls_stays_whole() {
    let host = Host::linked("reload", |command| command.args(["-lpthread", "-ldl"]));
    for version in ALL {
        let (server, _authority, config) = site(version);
        server.always(Script::forever(Script::served()));
        let mut command = host.command();
        command.arg(library_path().canonicalize().expect("run `make build` first")).arg(keeping(config).to_string());
        let output = succeed(&mut command);
        let text = both(&output);
        let calls: Vec<usize> = text.lines().map(|line| line.parse().expect("a number")).collect();
        assert!(calls.len() == 4 && calls.iter().all(|calls| *calls > 0), "{text}");
        server.settle(0).expect("the connections have ended");
        all_made_once(&server);
        assert_eq!(server.ledger().all().len(), calls.iter().sum::<usize>());
    }
}

/// Every call ends as it would have, or says that its client was gone when it began.
#[test]
fn clients_are_freed_while_many_threads_call() {
    const THREADS: usize = 8;
    const CLIENTS: usize = 200;
    for version in ALL {
        let (server, _authority, config) = site(version);
        server.always(Script::forever(Script::served()));
        let config = keeping(config);
        let new = || Owned::new(&config);
        let first = new();
        let current = AtomicPtr::new(first.0);
        let done = AtomicBool::new(false);
        let made: Vec<Vec<String>> = std::thread::scope(|scope| {
            let call = |thread: usize| {
                let mut made = Vec::new();
                for index in 0.. {
                    if done.load(Ordering::SeqCst) {
                        break;
                    }
                    let number = format!("T{thread}-{index}");
                    let client: Client = current.load(Ordering::SeqCst);
                    let reply = std::mem::ManuallyDrop::new(Owned(client)).add(&task(&number));
                    match reply.code {
                        OK => {
                            assert_eq!(reply.text(), success_body(&number), "another call's answer");
                            made.push(number);
                        }
                        code => assert_eq!(code, BAD_ARGUMENT, "{reply:?}"),
                    }
                }
                made
            };
            let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || call(thread))).collect();
            let mut last = first;
            for _ in 0..CLIENTS {
                let next = new();
                current.store(next.0, Ordering::SeqCst);
                // Frees the one before, with calls in flight.
                last = next;
                std::thread::sleep(Duration::from_millis(2));
            }
            done.store(true, Ordering::SeqCst);
            let made = threads.into_iter().map(|thread| thread.join().expect("no call goes wrong")).collect();
            drop(last);
            made
        });
        server.settle(0).expect("the connections of clients that are gone have ended");
        let made: Vec<String> = made.into_iter().flatten().collect();
        assert!(made.len() > CLIENTS, "{} calls", made.len());
        assert_eq!(server.ledger().all().len(), made.len());
        assert!(made.iter().all(|number| server.ledger().made(number) == 1));
    }
}

/// One after the other, each large allocation of a call is refused: the outcome is true, and the next call works.
#[test]
fn memory_that_is_refused_ends_a_large_call_and_nothing_else() {
    const LARGE: usize = 600 << 10;
    let host = Host::new("memory");
    let small = || Script::silent().then(Step::Make).then(Step::Answer(success));
    let text = "server ".repeat(LARGE / 7);
    let body = |status: &str, info: &str, text: &str| format!(r#"{{"status":{status},"message":"{text}"{info}}}"#);
    let info = r#","info":{"task_num":"T-large"}"#;
    let (made, refused) = (body("1", info, &text), body("0", "", &"\\u8a31".repeat(LARGE / 6)));
    let answers = |status, body: &str| answer(status, Framing::Length, body.as_bytes());
    let cases = [
        ("a task", MADE, small()),
        ("a success", MADE, Script::silent().then(Step::Make).send(answers("200 OK", &made))),
        (
            "a success in chunks",
            MADE,
            Script::silent().then(Step::Make).send(answer("200 OK", Framing::Chunked(1 << 16), made.as_bytes())),
        ),
        ("a refusal", FAILED_NOT_CREATED, Script::silent().send(answers("200 OK", &refused))),
        ("a status", REJECTED_NOT_CREATED, Script::silent().send(answers("400 No", &body("0", "", &text)))),
        ("an error", SERVER_ERROR_UNKNOWN, Script::silent().send(answers("500 No", &text))),
    ];
    for version in [None, Some(Version::Tls13)] {
        for (case, expected, script) in &cases {
            let (server, _authority, config) = site(version);
            server.always(Script::forever(Script::request().then(Step::ByNumber)));
            for kind in ["plain", "escaped"] {
                for allowed in 0..100 {
                    server.number(&format!("{kind}-{allowed}"), script.clone());
                    server.number(&format!("small-{kind}-{allowed}"), small());
                }
            }
            let keys = json!({ "max_response_bytes": 8 << 20, "keep_bodies": true });
            let config = with(keeping(config), keys).to_string();
            let output = succeed(host.command().args([&config, &LARGE.to_string()]));
            let seen = server.settle(0).expect("the connections have ended");
            let tried: Vec<String> = seen.iter().flat_map(|seen| seen.numbers()).collect();
            let begun = seen.iter().flat_map(|seen| &seen.exchanges).filter(|one| one.request.is_none());
            let begun = begun.filter(|one| !one.plain.is_empty()).count();
            let text = String::from_utf8(output.stdout).expect("text");
            let mut ends = Vec::new();
            for line in text.lines() {
                let parts: Vec<&str> = line.split(' ').collect();
                let [number, code, outcome, text] = parts[..] else { panic!("not what it prints: {line}") };
                let [code, outcome] = [code, outcome].map(|number| number.parse::<i32>().expect("a number"));
                let made = server.ledger().made(number);
                let line = format!("{case}, {version:?}: {line}, made {made} times");
                assert!(made <= 1, "{line}");
                match outcome {
                    NOT_CREATED => assert_eq!(made, 0, "{line}"),
                    CREATED => assert_eq!(made, 1, "{line}"),
                    // Without a document nothing tells.
                    _ => assert!(text == "0" || begun > 0 || tried.contains(&number.to_owned()), "{line}"),
                }
                assert_eq!(server.ledger().made(&format!("small-{number}")), 1, "{line}");
                if number.ends_with("-0") {
                    assert_ne!((code, outcome), (expected.code, expected.outcome), "nothing was refused: {line}");
                    ends.push((code, outcome));
                }
                *ends.last_mut().expect("the first") = (code, outcome);
            }
            assert_eq!(ends, [(expected.code, expected.outcome); 2], "{case}, {version:?}: {text}");
        }
    }
}
