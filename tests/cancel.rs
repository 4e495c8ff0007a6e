//! A call that is cancelled ends soon, whatever it waits for, and says what became of the appointment; no other call
//! notices.

use std::collections::HashSet;
use std::ffi::{CStr, c_char, c_void};
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use arctos_tests::api::{
    BAD_ARGUMENT, BUSY, CANCELLED, CREATED, Client, NOT_CREATED, OK, Owned, Reply, UNKNOWN, arctos, task,
};
use arctos_tests::deadline::{Cancel, FullQueue, Launcher, Phase, Phases, Round, Scheme, longer_than_both_buffers};
use arctos_tests::expected::{CANCELLED_NOT_CREATED, Expected};
use arctos_tests::http::{Framing, answer_head, head, success, success_body};
use arctos_tests::ledger::truth;
use arctos_tests::server::{Change, Script, Server, Step};
use arctos_tests::stage::{Stage, config, with};
use arctos_tests::tls::{Identity, Version};
use serde_json::{Value, json};

const WAYS: [Cancel; 2] = [Cancel::Client, Cancel::Call];

/// Both ways in turn, beginning with another one each time.
fn ways(index: usize) -> impl Iterator<Item = Cancel> {
    WAYS.into_iter().cycle().skip(index % 2)
}

/// Twenty calls, each cancelled after this time.
fn cancelled(by: Cancel, after: Duration) -> Round {
    Round { cancel: Some(by), ..Round::of_twenty(after) }
}

/// A time after which every call has come to where it waits.
const SOON: Duration = Duration::from_millis(300);

#[test]
fn while_the_name_is_resolved() {
    let launcher = Launcher::with_resolver();
    for way in WAYS {
        let round = cancelled(way, SOON);
        let configs = round.configs(config("https://hang.bank.example"));
        let mut caller = launcher.run(round, &configs);
        caller.on_time(CANCELLED_NOT_CREATED, "was cancelled").unwrap();
        for call in &caller.calls {
            assert_eq!(truth(&call.reply, 0, &[]), Ok(()));
        }
        assert_eq!(caller.threads_after, 1, "all wait for one look-up");
        caller.release();
        caller.end();
    }
}

#[test]
fn while_it_connects() {
    let queue = FullQueue::new("127.0.0.1", 0);
    let mut phases = Phases::default();
    for way in WAYS {
        for scheme in ["http", "https"] {
            let config = config(&format!("{scheme}://{}", queue.address()));
            phases.run_unconnected(scheme, cancelled(way, SOON), config, Phase::CANCELLED_BEFORE);
        }
    }
    phases.finish();
    queue.nobody_came().unwrap();
}

#[test]
fn during_the_handshake() {
    let mut phases = Phases::default();
    let first = |change| Script::silent().then(Step::Flight(change));
    for (index, version) in [Version::Tls12, Version::Tls13].into_iter().enumerate() {
        let scripts = [Script::silent(), first(Change::First(1)), first(Change::Without(9))];
        for (way, (case, script)) in ways(index).zip(["unread", "a byte", "most"].into_iter().zip(scripts)) {
            let script = script.then(Step::AwaitRelease);
            phases.run(case, cancelled(way, SOON), Scheme::Https(version), Phase::CANCELLED_BEFORE, script);
        }
    }
    phases.finish();
}

#[test]
fn while_the_request_is_sent() {
    let mut phases = Phases::default();
    for (way, scheme) in [
        (Cancel::Client, Scheme::Http),
        (Cancel::Call, Scheme::Https(Version::Tls12)),
        (Cancel::Client, Scheme::Https(Version::Tls13)),
    ] {
        // A task of that length takes time to read, which is the processors': few at once, and time for that.
        let round = Round {
            threads: 5,
            calls: 4,
            remark: longer_than_both_buffers(),
            ..cancelled(way, Duration::from_millis(600))
        };
        let script = if scheme == Scheme::Http { Script::silent() } else { Script::silent().then(Step::Handshake) };
        phases.run("unread", round, scheme, Phase::CANCELLED_AFTER, script.then(Step::AwaitRelease));
    }
    phases.finish();
}

#[test]
fn while_it_waits_for_the_answer() {
    let mut phases = Phases::default();
    let body = success_body("N");
    let whole_head = answer_head("200 OK", Framing::Length, body.len());
    let some = [&*whole_head, &body.as_bytes()[..10]].concat();
    for (index, scheme) in Scheme::ALL.into_iter().enumerate() {
        let made = Script::made;
        let scripts = [made(), made().send(&whole_head[..20]), made().send(&*some)];
        let cases = ["no answer", "half a head", "half a body"];
        for (way, (case, script)) in ways(index).zip(cases.into_iter().zip(scripts)) {
            let script = script.then(Step::AwaitRelease);
            phases.run(case, cancelled(way, SOON), scheme, Phase::CANCELLED_AFTER, script);
        }
    }
    phases.finish();
}

#[test]
fn over_a_kept_connection() {
    let mut phases = Phases::default();
    let whole_head = answer_head("200 OK", Framing::Length, 100);
    for scheme in Scheme::ALL {
        for (case, script) in [("no answer", Script::made()), ("no body", Script::made().send(&*whole_head))] {
            let keys = json!({ "idle_timeout_ms": 60_000 });
            let round = Round { first: true, keys, ..cancelled(Cancel::Client, SOON) };
            let script = Script::served().and(script).then(Step::AwaitRelease);
            phases.run(case, round, scheme, Phase::CANCELLED_AFTER, script);
        }
    }
    phases.finish();
}

#[test]
fn between_two_tries() {
    let mut phases = Phases::default();
    let busy = head("429 Busy", &["Retry-After: 30", "Content-Length: 0"]);
    // Over a kept connection: see `between_two_steps`.
    for (way, scheme) in WAYS.into_iter().flat_map(|way| Scheme::ALL.map(|scheme| (way, scheme))) {
        let round = Round { keys: json!({ "retries": 2 }), ..cancelled(way, SOON) };
        let script = Script::request().send(&*busy).then(Step::AwaitRelease);
        phases.run("refused for now", round, scheme, Phase::CANCELLED_BEFORE, script);
    }
    phases.finish();
}

/// The stages of these tests: each scheme, with connections that are kept and without.
fn stages() -> Vec<Stage> {
    stages_with(0)
}

/// The same, whose calls are tried again so often.
fn stages_with(retries: u32) -> Vec<Stage> {
    let keys = |idle: u32| json!({ "idle_timeout_ms": idle, "retries": retries });
    let https = |version, idle| Stage::https_with(Identity::right(version), keys(idle));
    vec![
        Stage::http_with(keys(0)),
        Stage::http_with(keys(60_000)),
        https(Version::Tls12, 60_000),
        https(Version::Tls13, 0),
    ]
}

/// Makes the server read requests and go by the script of each one's number, those without one being made.
fn by_number(server: &Server) {
    server.always(Script::forever(Script::request().then(Step::ByNumber)));
}

/// Makes an appointment under a number of its own script: the server makes it after the test's release.
fn hold(server: &Server, number: &str) {
    server.number(number, Script::silent().then(Step::AwaitRelease).then(Step::Make).then(Step::Answer(success)));
}

fn serve(server: &Server, number: &str) {
    server.number(number, Script::silent().then(Step::Make).then(Step::Answer(success)));
}

#[track_caller]
fn is_made(reply: &Reply, number: &str) {
    assert_eq!((reply.code, reply.outcome), (OK, CREATED), "{number}: {reply:?}");
    assert_eq!(reply.text(), success_body(number), "another call's answer");
}

#[track_caller]
fn came_to(reply: &Reply, code: i32, outcome: i32) {
    assert_eq!((reply.code, reply.outcome), (code, outcome), "{reply:?}");
}

fn with_id(client: &Owned, number: &str, id: &str) -> Reply {
    client.add_with(&task(number), &json!({ "call_id": id }).to_string())
}

#[track_caller]
fn joined(call: ScopedJoinHandle<'_, Reply>) -> Reply {
    call.join().expect("a call does not panic")
}

#[test]
fn calls_that_begin_later_are_not_affected() {
    for Stage { client, server, .. } in stages() {
        by_number(&server);
        let numbers: Vec<_> = (0..20).map(|call| (format!("A-{call}"), format!("B-{call}"))).collect();
        for (call, (before, after)) in numbers.iter().enumerate() {
            server.number(before, Script::silent().then(Step::AwaitRelease));
            serve(&server, after);
            std::thread::scope(|scope| {
                let cancelled = scope.spawn(|| with_id(&client, before, "desk"));
                server.await_requests(2 * call + 1).expect("it waits for the answer");
                assert_eq!(if call % 2 == 0 { client.cancel() } else { client.cancel_call("desk") }, OK);
                // The one that was cancelled may still be on its way out.
                is_made(&with_id(&client, after, "desk"), after);
                came_to(&joined(cancelled), CANCELLED, UNKNOWN);
            });
            server.release();
        }
        drop(client);
        server.settle(0).expect("every connection has ended");
        assert_eq!(server.ledger().all().len(), numbers.len());
        assert_eq!(server.seen(0).iter().find_map(|seen| seen.fault.clone()), None);
    }
}

#[test]
fn a_cancel_without_a_call_does_nothing() {
    for Stage { client, server, .. } in stages() {
        by_number(&server);
        for number in ["1", "2", "3"] {
            serve(&server, number);
            for _ in 0..3 {
                assert_eq!((client.cancel(), client.cancel_call("desk"), client.cancel_call("")), (OK, OK, OK));
            }
            is_made(&with_id(&client, number, "desk"), number);
        }
    }
}

#[test]
fn other_clients_go_on() {
    let server = Server::plain();
    by_number(&server);
    let [one, other] = [(), ()].map(|()| Owned::new(&config(&server.base_url())));
    for number in ["ONE", "ONE-TOO", "OTHER"] {
        hold(&server, number);
    }
    std::thread::scope(|scope| {
        let calls = ["ONE", "ONE-TOO"].map(|number| scope.spawn(|| with_id(&one, number, "desk")));
        let others = scope.spawn(|| with_id(&other, "OTHER", "desk"));
        server.await_requests(3).expect("all wait for the answer");
        assert_eq!((one.cancel(), one.cancel_call("desk")), (OK, OK));
        calls.map(joined).iter().for_each(|reply| came_to(reply, CANCELLED, UNKNOWN));
        assert!(!others.is_finished(), "the call of another client has ended");
        server.release();
        is_made(&joined(others), "OTHER");
    });
}

#[test]
fn only_calls_with_the_id_are_cancelled() {
    let ids = [Some("desk"), Some("desk"), Some("desk-7"), Some("des"), Some("Desk"), Some("許"), None];
    for Stage { client, server, .. } in stages() {
        by_number(&server);
        let number = |call: usize| format!("N-{call}");
        (0..ids.len()).for_each(|call| hold(&server, &number(call)));
        std::thread::scope(|scope| {
            let calls: Vec<_> = (0..ids.len())
                .map(|call| {
                    let (client, number) = (&client, number(call));
                    scope.spawn(move || match ids[call] {
                        Some(id) => with_id(client, &number, id),
                        None => client.add(&task(&number)),
                    })
                })
                .collect();
            server.await_requests(ids.len()).expect("all wait for the answer");
            for unknown in ["", "desk ", "nobody", &"x".repeat(10_000)] {
                assert_eq!(client.cancel_call(unknown), OK);
            }
            assert!(calls.iter().all(|call| !call.is_finished()), "a call has ended");
            assert_eq!(client.cancel_call("desk"), OK);
            let mut calls = calls.into_iter();
            for call in calls.by_ref().take(2) {
                let reply = joined(call);
                came_to(&reply, CANCELLED, UNKNOWN);
                assert_eq!(reply.json()["call_id"], "desk");
            }
            assert!(calls.as_slice().iter().all(|call| !call.is_finished()), "a call with another id has ended");
            assert_eq!(client.cancel_call("許"), OK);
            let mut calls: Vec<_> = calls.collect();
            came_to(&joined(calls.remove(3)), CANCELLED, UNKNOWN);
            server.release();
            for (call, place) in calls.into_iter().zip([2, 3, 4, 6]) {
                is_made(&joined(call), &number(place));
            }
        });
    }
}

#[test]
fn a_request_of_another_kind_is_cancelled_too() {
    let stage = Stage::http();
    stage.server.next(Script::request().then(Step::AwaitRelease));
    std::thread::scope(|scope| {
        let call = scope.spawn(|| stage.client.call("/api/room/list", "{}"));
        stage.server.await_requests(1).expect("it waits for the answer");
        assert_eq!(stage.client.cancel(), OK);
        came_to(&joined(call), CANCELLED, UNKNOWN);
    });
    stage.server.release();
}

#[test]
fn what_is_no_client_or_no_id_is_answered() {
    let client = Owned::new(&config("http://127.0.0.1:1"));
    let freed = ManuallyDrop::new(Owned::new(&config("http://127.0.0.1:1")));
    let library = arctos();
    let made_up: Client = ptr::without_provenance_mut(0x1234_5679);
    unsafe {
        (library.client_free)(freed.0);
        for none in [ptr::null_mut(), freed.0, made_up] {
            assert_eq!((library.client_cancel)(none), BAD_ARGUMENT);
            assert_eq!((library.call_cancel)(none, c"desk".as_ptr()), BAD_ARGUMENT);
            assert_eq!((library.call_cancel)(none, ptr::null()), BAD_ARGUMENT);
        }
        assert_eq!((library.call_cancel)(client.0, ptr::null()), BAD_ARGUMENT);
        assert_eq!((library.call_cancel)(client.0, c"desk\xff".as_ptr()), BAD_ARGUMENT);
    }
    assert_eq!(client.cancel(), OK);
}

#[test]
fn calls_of_a_freed_client_finish_and_cannot_be_cancelled() {
    for Stage { client, server, .. } in stages() {
        by_number(&server);
        hold(&server, "HELD");
        // The pointer alone: what C has left of a client that it has freed.
        let freed = ManuallyDrop::new(Owned(client.0));
        std::thread::scope(|scope| {
            let call = scope.spawn(|| with_id(&freed, "HELD", "desk"));
            server.await_requests(1).expect("it waits for the answer");
            drop(client);
            assert_eq!((freed.cancel(), freed.cancel_call("desk")), (BAD_ARGUMENT, BAD_ARGUMENT));
            server.release();
            is_made(&joined(call), "HELD");
        });
        server.settle(0).expect("nothing is kept of a freed client");
    }
}

#[test]
fn a_call_of_a_freed_client_is_tried_again() {
    let server = Server::plain();
    let client = Owned::new(&with(config(&server.base_url()), json!({ "retries": 1 })));
    let busy = head("429 Busy", &["Retry-After: 1", "Content-Length: 0"]);
    server.next(Script::request().send(busy).close());
    server.next(Script::served().close());
    let freed = ManuallyDrop::new(Owned(client.0));
    std::thread::scope(|scope| {
        let call = scope.spawn(|| freed.add(&task("AGAIN")));
        server.await_over(0).expect("it is refused for now");
        drop(client);
        is_made(&joined(call), "AGAIN");
    });
}

/// Where a call is cancelled by itself, from its log, and what must come of it.
struct Moment {
    event: &'static str,
    id: &'static str,
    client: Client,
    called: AtomicBool,
}

unsafe extern "C" fn cancel_at(user: *mut c_void, _: i32, line: *const c_char) {
    // SAFETY: the moment lives until another callback is set; a line is a text.
    let (moment, line) = unsafe { (&*user.cast::<Moment>(), CStr::from_ptr(line)) };
    let line: Value = serde_json::from_slice(line.to_bytes()).expect("a line is JSON");
    // Other tests of this process are heard too.
    if line["call_id"] == moment.id && line["event"] == moment.event {
        moment.called.store(true, Ordering::SeqCst);
        // SAFETY: a client of the library.
        assert_eq!(unsafe { (arctos().client_cancel)(moment.client) }, OK);
    }
}

/// Cancels between any two steps of a call: what has happened by then decides.
#[test]
fn between_two_steps() {
    let busy = head("429 Busy", &["Content-Length: 0"]);
    for (event, expected, requests) in [
        ("attempt", CANCELLED_NOT_CREATED, 0),
        ("connect", CANCELLED_NOT_CREATED, 0),
        ("reuse", CANCELLED_NOT_CREATED, 0),
        ("retry", CANCELLED_NOT_CREATED, 1),
        ("pause", CANCELLED_NOT_CREATED, 1),
        ("answer", Expected { code: OK, outcome: CREATED }, 1),
    ] {
        for kind in ["http", "https"] {
            let keys = json!({ "idle_timeout_ms": 60_000, "retries": 2 });
            let Stage { client, server, .. } = match kind {
                "http" => Stage::http_with(keys),
                _ => Stage::https_with(Identity::right(Version::Tls13), keys),
            };
            by_number(&server);
            serve(&server, "FIRST");
            match event {
                "retry" | "pause" => server.number("N", Script::silent().send(&*busy)),
                _ => serve(&server, "N"),
            }
            let first = usize::from(event == "reuse");
            if first == 1 {
                is_made(&client.add(&task("FIRST")), "FIRST");
            }
            let id = "between-two-steps";
            let moment = Moment { event, id, client: client.0, called: AtomicBool::new(false) };
            // SAFETY: the moment lives until the callback is taken back.
            let reply = unsafe {
                (arctos().set_log)(Some(cancel_at), (&raw const moment).cast_mut().cast(), 4);
                let reply = with_id(&client, "N", id);
                (arctos().set_log)(None, ptr::null_mut(), 0);
                reply
            };
            assert!(moment.called.load(Ordering::SeqCst), "{event} {kind}: no such event");
            came_to(&reply, expected.code, expected.outcome);
            drop(client);
            let seen = server.settle(0).expect("every connection has ended");
            let numbers: Vec<_> = seen.iter().flat_map(|seen| seen.numbers()).collect();
            assert_eq!(numbers.len(), first + requests, "{event} {kind}: {numbers:?}");
            let bytes: usize = seen.iter().map(|seen| seen.request_bytes()).sum();
            let whole: usize = seen.iter().flat_map(|seen| seen.requests()).map(|request| request.length).sum();
            assert_eq!(bytes, whole, "{event} {kind}: a part of a request");
            assert_eq!(truth(&reply, server.ledger().made("N"), &server.tries("N")), Ok(()), "{event} {kind}");
        }
    }
}

#[test]
fn a_storm_of_cancels_stays_truthful() {
    const THREADS: usize = 8;
    const CALLS: usize = 24;
    let number = |thread: usize, call: usize| format!("S{thread}-{call:02}");
    let busy = head("429 Busy", &["Retry-After: 0", "Content-Length: 0"]);
    for stage in stages_with(1) {
        let Stage { server, .. } = &stage;
        by_number(server);
        for thread in 0..THREADS {
            for call in 0..CALLS {
                let number = number(thread, call);
                let made = Script::silent().then(Step::Make);
                let script = match (thread + call) % 4 {
                    0 => made.then(Step::Answer(success)),
                    1 => {
                        let whole = success(&number);
                        let half = whole.len() / 2;
                        made.then(Step::Pieces(whole, half + 1, Duration::from_millis(40)))
                    }
                    2 => Script::silent().send(&*busy),
                    // Nothing is made and nothing said for a while.
                    _ => {
                        let early = head("103 Early Hints", &[]);
                        let wait = Step::Pieces(early.repeat(4), early.len(), Duration::from_millis(30));
                        Script::silent().then(wait).then(Step::Make).then(Step::Answer(success))
                    }
                };
                server.number(&number, script);
            }
        }
        let (done, start) = (AtomicBool::new(false), Barrier::new(THREADS + 1));
        let replies = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let callers: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (client, start, replies) = (&stage.client, &start, &replies);
                    scope.spawn(move || {
                        start.wait();
                        for call in 0..CALLS {
                            let number = number(thread, call);
                            let reply = with_id(client, &number, &format!("desk-{thread}"));
                            replies.lock().expect("no panic under it").push((number, reply));
                        }
                    })
                })
                .collect();
            let canceller = scope.spawn(|| {
                start.wait();
                let mut count = 0_usize;
                while !done.load(Ordering::SeqCst) {
                    count += 1;
                    let client = &stage.client;
                    let code = match count % 5 {
                        0 => client.cancel(),
                        _ => client.cancel_call(&format!("desk-{}", count % THREADS)),
                    };
                    assert_eq!(code, OK);
                    std::thread::sleep(Duration::from_millis((count % 7) as u64 * 6));
                }
            });
            let ended: Vec<_> = callers.into_iter().map(ScopedJoinHandle::join).collect();
            done.store(true, Ordering::SeqCst);
            canceller.join().expect("every cancel is taken");
            ended.into_iter().for_each(|ended| ended.expect("no call panics"));
        });
        let Stage { client, server, .. } = stage;
        drop(client);
        server.settle(0).expect("every connection has ended");
        let replies = replies.into_inner().expect("no panic under it");
        assert_eq!(replies.len(), THREADS * CALLS);
        let ledger = server.ledger();
        let mut came = HashSet::new();
        for (number, reply) in &replies {
            if reply.code == OK {
                is_made(reply, number);
            } else {
                assert!([CANCELLED, BUSY].contains(&reply.code), "{number}: {reply:?}");
            }
            came.insert((reply.code, reply.outcome));
            assert_eq!(truth(reply, ledger.made(number), &server.tries(number)), Ok(()), "{number}: {reply:?}");
        }
        for kind in [(OK, CREATED), (CANCELLED, UNKNOWN), (CANCELLED, NOT_CREATED)] {
            assert!(came.contains(&kind), "the storm brought no {kind:?}: {came:?}");
        }
    }
}
