//! A name that is not resolved in time ends the call at its deadline, and ties down no more than a few threads.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::time::Duration;

use arctos_tests::deadline::{Ended, FullQueue, Launcher, Round};
use arctos_tests::expected::{CONNECT_NOT_CREATED, Expected, MADE, TIMEOUT_NOT_CREATED};
use arctos_tests::http::{Framing, answer, success_body};
use arctos_tests::ledger::truth;
use arctos_tests::server::{Script, Server, Step};
use arctos_tests::stage::{config, with};
use arctos_tests::tls::{Authority, Identity, Version};
use arctos_tests::tools::{Host, Preload, succeed};
use serde_json::{Value, json};

/// How many names the library looks up at once.
const MOST_RESOLVERS: usize = 4;

/// As many names that hang.
fn hanging(count: usize, keys: &Value) -> Vec<Value> {
    (0..count).map(|index| with(config(&format!("https://hang{index}.bank.example")), keys.clone())).collect()
}

/// A server that makes one appointment, and the configuration that finds it by a name.
fn served(name: &str) -> (Server, Value) {
    let server = Server::plain();
    server.next(Script::made().send(answer("200 OK", Framing::Length, success_body("N").as_bytes())).close());
    let url = format!("http://{name}:{}", server.address().port());
    (server, with(config(&url), json!({ "allow_http": true })))
}

#[track_caller]
fn came_to(ended: &Ended, expected: Expected) {
    assert_eq!((ended.reply.code, ended.reply.outcome), (expected.code, expected.outcome), "{:?}", ended.reply);
}

#[track_caller]
fn made(ended: &Ended, server: &Server) {
    came_to(ended, MADE);
    assert_eq!(server.ledger().all().len(), 1);
}

#[test]
fn a_look_up_that_hangs_ends_at_the_deadline() {
    const DEADLINE: Duration = Duration::from_millis(300);
    let launcher = Launcher::with_resolver();
    for limit in ["timeout_ms", "connect_timeout_ms"] {
        let mut caller = launcher.run(Round::of_twenty(DEADLINE), &hanging(20, &json!({ limit: 300 })));
        caller.on_time(TIMEOUT_NOT_CREATED, &format!("the name was not resolved within {limit} (300 ms)")).unwrap();
        for call in &caller.calls {
            assert_eq!(truth(&call.reply, 0, &[]), Ok(()));
        }
        assert!((1..=MOST_RESOLVERS).contains(&caller.most_threads), "{} threads", caller.most_threads);
        caller.release();
        caller.end();
    }
}

#[test]
fn a_thousand_look_ups_that_hang_take_four_threads() {
    let round = Round { threads: 100, calls: 10, ..Round::of_twenty(Duration::from_millis(200)) };
    let mut caller = Launcher::with_resolver().run(round, &hanging(100, &json!({ "timeout_ms": 200 })));
    assert_eq!(caller.calls.len(), 1000);
    caller.on_time(TIMEOUT_NOT_CREATED, "the name was not resolved within timeout_ms").unwrap();
    // The look-ups that hang are all that is left of the calls.
    assert_eq!((caller.most_threads, caller.threads_after), (MOST_RESOLVERS, MOST_RESOLVERS));
    caller.release();
    // Names that hung are looked up again.
    let (server, config) = served("hang0.bank.example");
    made(&caller.call(&config), &server);
    caller.end();
}

#[test]
fn a_thousand_look_ups_that_hang_at_once_keep_their_deadline() {
    let round = Round { threads: 1000, ..Round::of_twenty(Duration::from_millis(2000)) };
    let mut caller = Launcher::with_resolver().run(round, &hanging(100, &json!({ "timeout_ms": 2000 })));
    assert_eq!(caller.calls.len(), 1000);
    caller.on_time(TIMEOUT_NOT_CREATED, "the name was not resolved within timeout_ms").unwrap();
    assert_eq!((caller.most_threads, caller.threads_after), (MOST_RESOLVERS, MOST_RESOLVERS));
    caller.release();
    caller.end();
}

#[test]
fn a_thousand_look_ups_that_hang_end_when_they_are_cancelled() {
    let (host, resolver) = (Host::new("look_ups"), Preload::new("resolver"));
    let configs = hanging(20, &json!({}));
    let output = succeed(host.command().args(configs.iter().map(Value::to_string)).env("LD_PRELOAD", resolver.path()));
    let text = String::from_utf8(output.stdout).expect("text");
    let numbers: Vec<u64> = text.split_whitespace().map(|number| number.parse().expect("a number")).collect();
    let [threads, median, longest] = numbers[..] else { panic!("not what it prints: {text}") };
    assert_eq!(threads, MOST_RESOLVERS as u64);
    assert!(median <= 250 && longest <= 2500, "median {median} ms, longest {longest} ms");
}

#[test]
fn a_look_up_that_hangs_holds_up_no_other() {
    let round = Round { threads: MOST_RESOLVERS - 1, ..Round::of_twenty(Duration::from_millis(200)) };
    let mut caller = Launcher::with_resolver().run(round, &hanging(MOST_RESOLVERS - 1, &json!({ "timeout_ms": 200 })));
    assert_eq!(caller.threads_after, MOST_RESOLVERS - 1);
    let (server, config) = served("arctos.bank.example");
    made(&caller.call(&config), &server);
    caller.end();
}

#[test]
fn no_signal_is_delivered_to_a_thread_of_the_library() {
    let round = Round { signals: true, ..Round::of_twenty(Duration::from_millis(300)) };
    let caller = Launcher::with_resolver().run(round, &hanging(20, &json!({ "timeout_ms": 300 })));
    // Nor does a signal move the deadline.
    caller.on_time(TIMEOUT_NOT_CREATED, "the name was not resolved within timeout_ms").unwrap();
    assert_eq!(caller.threads_after, MOST_RESOLVERS, "there is a thread that could take it");
    assert_eq!((caller.strange_signals, caller.signal_pending), (0, true));
    caller.end();
}

/// One call, by a host that makes no other.
fn call(config: &Value) -> Ended {
    let mut caller = Launcher::with_resolver().idle();
    let ended = caller.call(config);
    caller.end();
    ended
}

#[test]
fn a_slow_look_up_is_waited_for() {
    let (server, config) = served("slow.bank.example");
    let ended = call(&config);
    made(&ended, &server);
    assert!(ended.late >= 300_000_000, "{} ns", ended.late);
}

#[test]
fn the_look_up_is_part_of_the_time_of_the_connection() {
    let server = Server::start("127.0.0.1", Some(Authority::new().server(Identity::right(Version::Tls13))));
    server.always(Script::silent().then(Step::AwaitRelease));
    let url = format!("https://slow.bank.example:{}", server.address().port());
    let launcher = Launcher::with_resolver();
    for limit in ["timeout_ms", "connect_timeout_ms"] {
        let config = with(config(&url), json!({ limit: 500 }));
        let caller = launcher.run(Round::of_twenty(Duration::from_millis(500)), &[config]);
        let words = format!("the TLS handshake did not end within {limit} (500 ms)");
        caller.on_time(TIMEOUT_NOT_CREATED, &words).unwrap();
        caller.end();
    }
    server.release();
    for seen in server.settle(0).unwrap() {
        assert_eq!(seen.request_bytes(), 0);
    }
}

#[test]
fn a_name_that_cannot_be_resolved_is_not_created() {
    let mut caller = Launcher::with_resolver().idle();
    for code in [
        libc::EAI_NONAME,
        libc::EAI_AGAIN,
        libc::EAI_FAIL,
        libc::EAI_FAMILY,
        libc::EAI_NODATA,
        libc::EAI_SERVICE,
        libc::EAI_MEMORY,
        libc::EAI_SYSTEM,
    ] {
        let name = format!("fail-{}.bank.example", code.unsigned_abs());
        let reply = caller.call(&config(&format!("https://{name}"))).reply;
        assert_eq!((reply.code, reply.outcome), (CONNECT_NOT_CREATED.code, CONNECT_NOT_CREATED.outcome), "{reply:?}");
        let document = reply.json();
        assert_eq!((&document["attempts"], &document["host"]), (&json!(1), &json!(name)), "{reply:?}");
        assert_eq!(truth(&reply, 0, &[]), Ok(()));
    }
    caller.end();
}

/// How long an address has to itself, and how much sooner than that nobody can come to the next one.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
const AT_LEAST: i64 = 200_000_000;

/// The name that is looked up as these addresses; `127.0.0.10-69` are sixty.
fn list(addresses: &[&str]) -> String {
    let labels: Vec<String> = addresses.iter().map(|address| address.replace('.', "-")).collect();
    format!("list.{}.bank.example", labels.join(".").replace("::1", "ip6-loopback"))
}

/// The server of [`served`] on another address.
fn served_on(host: &str, addresses: &[&str]) -> (Server, Value) {
    let server = Server::start(host, None);
    server.next(Script::made().send(answer("200 OK", Framing::Length, success_body("N").as_bytes())).close());
    let url = format!("http://{}:{}", list(addresses), server.address().port());
    (server, with(config(&url), json!({ "allow_http": true })))
}

/// A call over the first address that answers, which took so many nanoseconds.
#[track_caller]
fn connected(server: &Server, config: &Value) -> i64 {
    let ended = call(config);
    made(&ended, server);
    ended.late
}

#[test]
fn an_address_that_does_not_answer_leaves_the_way_to_the_next() {
    // Both families, either of them first.
    for (addresses, host) in [
        (&["127.0.0.2", "127.0.0.1"][..], "127.0.0.1"),
        (&["::1", "127.0.0.1"], "127.0.0.1"),
        (&["127.0.0.2", "::1"], "::1"),
    ] {
        let (server, config) = served_on(host, addresses);
        let silent = FullQueue::new(addresses[0], server.address().port());
        let time = connected(&server, &config);
        assert!((AT_LEAST..10_000_000_000).contains(&time), "{addresses:?}: {time} ns");
        assert_eq!(silent.nobody_came(), Ok(()));
    }
}

#[test]
fn the_other_family_has_its_turn_before_a_second_address_of_the_first() {
    let (server, config) = served_on("::1", &["127.0.0.2", "127.0.0.3", "127.0.0.4", "::1"]);
    let port = server.address().port();
    let silent = FullQueue::new("127.0.0.2", port);
    let others = ["127.0.0.3", "127.0.0.4"].map(|ip| TcpListener::bind((ip, port)).expect("a port"));
    let time = connected(&server, &config);
    assert!(time >= AT_LEAST, "{time} ns");
    for other in &others {
        other.set_nonblocking(true).expect("O_NONBLOCK");
        assert_eq!(other.accept().map(drop).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    }
    assert_eq!(silent.nobody_came(), Ok(()));
}

#[test]
fn an_address_that_refuses_is_left_at_once() {
    // Sixty, more than are tried at once, alone and beside one that does not answer.
    for addresses in [&["127.0.0.10-69", "127.0.0.1"][..], &["127.0.0.2", "127.0.0.10-69", "127.0.0.1"]] {
        let (server, config) = served_on("127.0.0.1", addresses);
        let silent = FullQueue::new("127.0.0.2", server.address().port());
        let time = Duration::from_nanos(connected(&server, &config).unsigned_abs());
        assert!(time < ATTEMPT_DELAY * 20, "{addresses:?}: {time:?}");
        assert_eq!(silent.nobody_came(), Ok(()));
    }
}

#[test]
fn an_address_that_cannot_be_tried_is_left_at_once_beside_one_that_does_not_answer() {
    // No connection can be made to a group.
    let (server, config) = served_on("127.0.0.1", &["127.0.0.2", "224.0.0.1-40", "127.0.0.1"]);
    let silent = FullQueue::new("127.0.0.2", server.address().port());
    let time = connected(&server, &config);
    let most = i64::try_from((ATTEMPT_DELAY * 20).as_nanos()).expect("a short time");
    assert!((AT_LEAST..most).contains(&time), "{time} ns for forty addresses");
    assert_eq!(silent.nobody_came(), Ok(()));
}

#[test]
fn addresses_that_all_refuse_are_no_connection() {
    // Its port is its own, and it listens on one address.
    let server = Server::plain();
    let url = format!("https://{}:{}", list(&["127.0.0.2-59"]), server.address().port());
    let ended = call(&config(&url));
    came_to(&ended, CONNECT_NOT_CREATED);
    let document = ended.reply.json();
    let message = document["message"].as_str().expect("a message");
    let refused = |ip: &str| format!("{ip}:{}: Connection refused", server.address().port());
    assert!(message.contains(&refused("127.0.0.2")) && message.contains(&refused("127.0.0.3")), "{message}");
    assert!(message.len() < 1000 && document["attempts"] == 1, "{document}");
    assert_eq!(server.connections(), 0);
}

#[test]
fn addresses_that_do_not_answer_end_at_the_deadline() {
    let first = FullQueue::new("127.0.0.1", 0);
    let port = first.address().port();
    let others = ["127.0.0.2", "::1"].map(|ip| FullQueue::new(ip, port));
    let launcher = Launcher::with_resolver();
    for limit in ["timeout_ms", "connect_timeout_ms"] {
        let url = format!("https://{}:{port}", list(&["127.0.0.1", "127.0.0.2", "::1"]));
        let caller =
            launcher.run(Round::of_twenty(Duration::from_millis(600)), &[with(config(&url), json!({ limit: 600 }))]);
        caller.on_time(TIMEOUT_NOT_CREATED, &format!("no connection within {limit} (600 ms)")).unwrap();
        assert_eq!(caller.threads_after, 0, "the look-up had ended");
        caller.end();
    }
    assert_eq!(first.nobody_came(), Ok(()));
    for other in others {
        assert_eq!(other.nobody_came(), Ok(()));
    }
}

#[test]
fn an_address_is_not_looked_up() {
    // With every thread that looks up names held by one that hangs.
    let round = Round::of_twenty(Duration::from_millis(200));
    let mut caller = Launcher::with_resolver().run(round, &hanging(20, &json!({ "timeout_ms": 200 })));
    assert_eq!(caller.threads_after, MOST_RESOLVERS);
    let (server, config) = served("127.0.0.1");
    made(&caller.call(&config), &server);
    caller.end();
}
