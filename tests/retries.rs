//! What may pass is tried again, what is final or in doubt is not, and the outcome of a call speaks of all its tries.
//!
//! That a call makes no more connections than it has scripts, and that its outcome and its attempts agree with what
//! the server saw, is checked by the stage.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_void};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant, SystemTime};

use arctos_tests::api::{
    BROKEN, BUSY, CONNECT, FAILED, FORBIDDEN, NOT_CREATED, NOT_FOUND, OK, Owned, REJECTED, TLS, UNKNOWN, arctos, task,
};
use arctos_tests::deadline::{FullQueue, Launcher, Scheme};
use arctos_tests::expected::{
    BAD_RESPONSE_CREATED, BAD_RESPONSE_UNKNOWN, BROKEN_UNKNOWN, BUSY_NOT_CREATED, BUSY_UNKNOWN, CONNECT_NOT_CREATED,
    Expected, FAILED_NOT_CREATED, FORBIDDEN_NOT_CREATED, MADE, NOT_FOUND_NOT_CREATED, REJECTED_NOT_CREATED,
    REJECTED_UNKNOWN, SERVER_ERROR_UNKNOWN, TIMEOUT_NOT_CREATED, TIMEOUT_UNKNOWN, TLS_NOT_CREATED,
};
use arctos_tests::http::{Framing, answer, failure_body, head, success, success_body};
use arctos_tests::ledger::truth;
use arctos_tests::server::{Change, Script, Server, Step};
use arctos_tests::stage::{Calls, Done, Stage, at_once, config, with};
use arctos_tests::tls::{Flaw, Identity, Version};
use arctos_tests::tools::{Host, succeed};
use serde_json::{Value, json};

const VERSIONS: [Version; 2] = [Version::Tls12, Version::Tls13];
/// The longest pause before the second try; it doubles with each further one.
const FIRST_PAUSE: u64 = 200;
const LONGEST_PAUSE: u64 = 10_000;

const fn unknown(code: i32) -> Expected {
    Expected { code, outcome: UNKNOWN }
}

type Watch = Arc<dyn Fn(&Value) + Send + Sync>;

/// Who is told of the events of calls to a host.
static WATCHES: Mutex<Option<HashMap<String, Watch>>> = Mutex::new(None);

unsafe extern "C" fn tell(_: *mut c_void, _: i32, line: *const c_char) {
    // SAFETY: a line is a text that lives as long as this call.
    let line = unsafe { CStr::from_ptr(line) };
    let event: Value = serde_json::from_slice(line.to_bytes()).expect("a line is JSON");
    let watch = {
        let watches = WATCHES.lock().expect("nobody panics under it");
        event["host"].as_str().and_then(|host| watches.as_ref()?.get(host).cloned())
    };
    if let Some(watch) = watch {
        watch(&event);
    }
}

/// What the log tells of the calls to one server, until this is dropped.
struct Log {
    host: String,
    events: Arc<Mutex<Vec<Value>>>,
}

impl Log {
    fn of(server: &Server) -> Log {
        Log::with(server, |_| ())
    }

    /// `act` is done at each event, on the thread of the call, which goes on after it.
    fn with(server: &Server, act: impl Fn(&Value) + Send + Sync + 'static) -> Log {
        static ONCE: Once = Once::new();
        // SAFETY: the function needs nothing but the line, and stays as long as the process.
        ONCE.call_once(|| unsafe { (arctos().set_log)(Some(tell), std::ptr::null_mut(), 4) });
        let log = Log { host: server.address().to_string(), events: Arc::default() };
        let events = log.events.clone();
        let watch: Watch = Arc::new(move |event: &Value| {
            events.lock().expect("nobody panics under it").push(event.clone());
            act(event);
        });
        WATCHES.lock().expect("as above").get_or_insert_default().insert(log.host.clone(), watch);
        log
    }

    fn of_name(&self, name: &str) -> Vec<Value> {
        let events = self.events.lock().expect("as above");
        events.iter().filter(|event| event["event"] == name).cloned().collect()
    }

    fn pauses(&self) -> Vec<u64> {
        self.of_name("pause").iter().map(|event| event["pause_ms"].as_u64().expect("a number")).collect()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        WATCHES.lock().expect("as above").get_or_insert_default().remove(&self.host);
    }
}

/// One call and its tries: a script for the connection of each.
struct Case {
    what: String,
    scheme: Scheme,
    keys: Value,
    expected: Expected,
    tries: Vec<Script>,
}

/// Makes the calls at once, each to a server of its own, and gives what came of them.
fn run_cases(cases: Vec<Case>) -> Vec<(String, Done)> {
    let all = Mutex::new(Vec::new());
    at_once(cases, |Case { what, scheme, keys, expected, tries }| {
        let stage = Stage::over(scheme, keys);
        let log = Log::of(&stage.server);
        let count = tries.len();
        let done = stage.run_tries(&format!("{what}, {scheme:?}"), expected, |_| tries);
        let pauses = log.pauses();
        assert_eq!((log.of_name("attempt").len(), pauses.len()), (count, count - 1), "{what}, {scheme:?}");
        assert_eq!(log.of_name("retry").len(), count - 1, "{what}, {scheme:?}");
        all.lock().expect("noting does not panic").push((what, done));
    });
    all.into_inner().expect("noting does not panic")
}

/// Each of these on each of the schemes.
fn over<'a>(
    schemes: &'a [Scheme],
    keys: &'a Value,
    rows: impl IntoIterator<Item = (&'a str, Expected, Vec<Script>)>,
) -> Vec<Case> {
    let each = |(what, expected, tries): (&str, Expected, Vec<Script>)| {
        let case = |scheme: &Scheme| Case {
            what: what.to_owned(),
            scheme: *scheme,
            keys: keys.clone(),
            expected,
            tries: tries.clone(),
        };
        schemes.iter().map(case).collect::<Vec<_>>()
    };
    rows.into_iter().flat_map(each).collect()
}

/// Makes the appointment unless it knows the number, and says so.
fn made() -> Script {
    Script::request().then(Step::MakeOnce).then(Step::Answer(success)).close()
}

/// Refuses the request, and closes the connection.
fn says(status: &str, headers: &[&str]) -> Script {
    Script::request().send(head(status, &[headers, &["Content-Length: 0"]].concat())).close()
}

const BUSY_STATUS: &str = "429 Too Many Requests";

/// The connection ends within the handshake of TLS.
fn handshakes_that_fail() -> Vec<(&'static str, Script)> {
    let flight = |change| Script::silent().then(Step::Flight(change));
    vec![
        ("closed at once", Script::silent().fin()),
        ("reset at once", Script::silent().then(Step::Reset)),
        ("closed after a byte", Script::silent().then(Step::Raw(1)).fin()),
        ("reset after a byte", Script::silent().then(Step::Raw(1)).then(Step::Reset)),
        ("closed within an answer", flight(Change::Without(1)).fin()),
        ("reset within an answer", flight(Change::First(5)).reset()),
    ]
}

#[test]
fn a_connection_that_ends_within_the_handshake_is_opened_again() {
    let mut cases = Vec::new();
    for (what, failing) in handshakes_that_fail() {
        for retries in [0, 1, 3] {
            let keys = json!({ "retries": retries });
            let schemes = VERSIONS.map(Scheme::Https);
            let never = vec![failing.clone(); retries + 1];
            let mut late = never.clone();
            late[retries] = made();
            cases.extend(over(&schemes, &keys, [(what, CONNECT_NOT_CREATED, never), (what, MADE, late)]));
        }
    }
    run_cases(cases);
}

#[test]
fn a_handshake_that_takes_too_long_is_one_of_the_tries() {
    let schemes = VERSIONS.map(Scheme::Https);
    let keys = json!({ "retries": 2, "connect_timeout_ms": 1000 });
    let silent = || Script::silent().then(Step::AwaitRelease);
    let done = run_cases(over(
        &schemes,
        &keys,
        [("always", TIMEOUT_NOT_CREATED, vec![silent(); 3]), ("twice", MADE, vec![silent(), silent(), made()])],
    ));
    for (what, done) in done {
        if what == "always" {
            let document = done.reply.json();
            assert!(document["elapsed_ms"].as_u64().unwrap() >= 3000, "{document}");
            assert!(document["message"].as_str().unwrap().contains("connect_timeout_ms"), "{document}");
        }
    }
}

#[test]
fn a_connection_that_is_not_made_in_time_is_one_of_the_tries() {
    let queue = FullQueue::new("127.0.0.1", 0);
    at_once([0, 2], |retries: u32| {
        let keys = json!({ "retries": retries, "connect_timeout_ms": 300 });
        let client = Owned::new(&with(config(&format!("http://{}", queue.address())), keys));
        let reply = client.add(&task("N"));
        assert_eq!((reply.code, reply.outcome), (TIMEOUT_NOT_CREATED.code, NOT_CREATED), "{reply:?}");
        assert_eq!(reply.json()["attempts"], retries + 1, "{reply:?}");
        assert!(reply.json()["elapsed_ms"].as_u64().unwrap() >= 300 * u64::from(retries + 1), "{reply:?}");
    });
    queue.nobody_came().unwrap();
}

#[test]
fn a_port_that_begins_to_listen_later_is_found() {
    let mut cases = Vec::new();
    for scheme in Scheme::ALL {
        for refusals in [1, 2, 3] {
            cases.push((scheme, refusals));
        }
    }
    at_once(cases, |(scheme, refusals)| {
        let stage = Arc::new(Stage::over(scheme, json!({ "retries": 3 })));
        stage.server.down();
        let log = {
            let stage = Arc::downgrade(&stage);
            Log::with(&Arc::clone(&stage.upgrade().expect("it is there")).server, move |event| {
                if event["event"] == "retry" && event["attempt"] == refusals {
                    stage.upgrade().expect("it is there").server.up();
                }
            })
        };
        stage.server.next(made());
        let reply = stage.client.add(&task("N"));
        assert_eq!(reply.code, OK, "{scheme:?} {refusals}: {reply:?}");
        let seen = stage.server.settle(0).unwrap();
        assert_eq!(seen.len(), 1);
        assert_eq!(truth(&reply, stage.server.ledger().made("N"), &seen[0].exchanges), Ok(()));
        assert_eq!((log.of_name("attempt").len(), log.pauses().len()), (refusals + 1, refusals), "{scheme:?}");
        for event in log.of_name("retry") {
            assert_eq!((&event["code"], &event["outcome"]), (&json!(CONNECT), &json!("not_created")), "{event}");
        }
    });
}

#[test]
fn a_port_that_never_listens_is_tried_as_often_as_it_may() {
    let mut cases = Vec::new();
    for scheme in Scheme::ALL {
        for retries in [0, 1, 3] {
            cases.push((scheme, retries));
        }
    }
    at_once(cases, |(scheme, retries): (Scheme, usize)| {
        let stage = Stage::over(scheme, json!({ "retries": retries }));
        stage.server.down();
        let log = Log::of(&stage.server);
        let reply = stage.client.add(&task("N"));
        assert_eq!((reply.code, reply.outcome), (CONNECT, NOT_CREATED), "{scheme:?} {retries}: {reply:?}");
        assert_eq!(reply.json()["attempts"], retries + 1, "{scheme:?} {retries}: {reply:?}");
        assert_eq!((log.of_name("attempt").len(), log.pauses().len()), (retries + 1, retries), "{scheme:?}");
        assert_eq!(truth(&reply, stage.server.ledger().made("N"), &[]), Ok(()));
    });
}

#[test]
fn a_name_that_is_not_found_is_asked_for_again() {
    let mut caller = Launcher::with_resolver().idle();
    // EAI_NONAME and EAI_AGAIN.
    for name in ["fail-2.bank.example", "fail-3.bank.example"] {
        for retries in [0, 2] {
            let ended = caller.call(&with(config(&format!("https://{name}")), json!({ "retries": retries })));
            assert_eq!((ended.reply.code, ended.reply.outcome), (CONNECT, NOT_CREATED), "{:?}", ended.reply);
            assert_eq!(ended.reply.json()["attempts"], retries + 1, "{:?}", ended.reply);
        }
    }
    caller.end();
}

#[test]
fn a_connection_that_is_reset_before_the_first_byte_is_opened_again() {
    const BROKEN_NOT_CREATED: Expected = Expected { code: BROKEN, outcome: NOT_CREATED };
    let mut cases = Vec::new();
    for scheme in Scheme::ALL {
        for (resets, retries) in [(1, 0), (1, 2), (2, 2), (3, 2)] {
            cases.push((scheme, resets, retries));
        }
    }
    at_once(cases, |(scheme, resets, retries): (Scheme, usize, usize)| {
        let stage = Arc::new(Stage::over(scheme, json!({ "retries": retries })));
        let log = {
            let (stage, index) = (Arc::downgrade(&stage), Mutex::new(0));
            Log::with(&Arc::clone(&stage.upgrade().expect("it is there")).server, move |event| {
                if event["event"] == "connect" {
                    let stage = stage.upgrade().expect("it is there");
                    let mut index = index.lock().expect("nobody panics under it");
                    stage.server.await_connections(*index + 1).unwrap();
                    if *index < resets {
                        // It has come before the client goes on.
                        stage.server.release();
                        stage.server.await_over(*index).unwrap();
                    }
                    *index += 1;
                }
            })
        };
        let lost = Script::silent().then(Step::Handshake).then(Step::AwaitRelease).then(Step::Reset);
        let mut tries = vec![lost; resets];
        let expected = if resets <= retries {
            tries.push(made());
            MADE
        } else {
            BROKEN_NOT_CREATED
        };
        let count = tries.len();
        stage.run_tries(&format!("{scheme:?}, {resets} resets"), expected, |_| tries);
        assert_eq!((log.of_name("attempt").len(), log.pauses().len()), (count, count - 1), "{scheme:?}");
    });
}

#[test]
fn a_server_that_is_busy_is_asked_again_when_it_says() {
    // The clock of this machine is of no account where the server tells its own.
    const EARLY: &str = "Date: Fri, 25 Nov 2016 08:00:04 GMT";
    const LATER: &str = "Retry-After: Fri, 25 Nov 2016 08:00:05 GMT";
    let mut cases = Vec::new();
    for (what, headers, asked) in [
        ("nothing", &[][..], None),
        ("seconds", &["Retry-After: 1"], Some(1000)),
        ("no second", &["Retry-After: 0"], Some(0)),
        ("a date of the server's clock", &[EARLY, LATER], Some(1000)),
        ("a date that has passed", &[LATER], Some(0)),
        ("a date that has passed on the server's clock", &["Date: Fri, 25 Nov 2016 08:01:00 GMT", LATER], Some(0)),
        ("no time", &["Retry-After: soon"], None),
        ("a negative one", &["Retry-After: -1"], None),
    ] {
        for scheme in Scheme::ALL {
            cases.push((what, headers, asked, scheme));
        }
    }
    at_once(cases, |(what, headers, asked, scheme)| {
        for (retries, tries, expected) in [
            (1, vec![says(BUSY_STATUS, headers), made()], MADE),
            (1, vec![says(BUSY_STATUS, headers); 2], BUSY_NOT_CREATED),
        ] {
            let case = format!("{what}, {scheme:?}");
            let stage = Stage::over(scheme, json!({ "retries": retries }));
            let log = Log::of(&stage.server);
            let done = stage.run_tries(&case, expected, |_| tries);
            let [pause] = log.pauses()[..] else { panic!("{case}: {:?}", log.pauses()) };
            let least = asked.unwrap_or(0);
            assert!((least..=least + FIRST_PAUSE).contains(&pause), "{case}: {pause} ms");
            let began = |index: usize| done.seen[index].exchanges[0].began;
            assert!(began(1) - began(0) >= Duration::from_millis(pause), "{case}: {:?}", began(1) - began(0));
            if expected != MADE {
                assert_eq!(done.reply.json().get("retry_after_ms").and_then(Value::as_u64), asked, "{case}");
            }
        }
    });
}

#[test]
fn a_date_counts_from_this_machine_where_the_server_tells_no_clock() {
    at_once(Scheme::ALL, |scheme| {
        // The date is of whole seconds: more than one from now, and not more than two.
        let then = SystemTime::now() + Duration::from_secs(2);
        let header = format!("Retry-After: {}", httpdate::fmt_http_date(then));
        let then = httpdate::parse_http_date(&header["Retry-After: ".len()..]).expect("a date");
        let stage = Stage::over(scheme, json!({ "retries": 1 }));
        let done = stage.run_tries("a date", MADE, |_| vec![says(BUSY_STATUS, &[&header]), made()]);
        let began = SystemTime::now() - done.seen[1].exchanges[0].began.elapsed();
        // Times in the log and in documents are of whole milliseconds.
        assert!(began + Duration::from_millis(1) >= then, "{scheme:?}: {began:?} {then:?}");
    });
}

#[test]
fn a_pause_that_the_deadline_does_not_allow_is_not_begun() {
    let mut cases = Vec::new();
    for (header, ms) in [
        ("Retry-After: 60", 60_000),
        ("Retry-After: 31", 31_000),
        ("Retry-After: 86400", 86_400_000),
        ("Retry-After: 9007199254740", 9_007_199_254_740_000_u64),
        ("Date: Fri, 25 Nov 2016 08:00:00 GMT\r\nRetry-After: Fri, 25 Nov 2016 09:00:00 GMT", 3_600_000),
    ] {
        for scheme in Scheme::ALL {
            cases.push((header, ms, scheme));
        }
    }
    at_once(cases, |(header, ms, scheme)| {
        let stage = Stage::over(scheme, json!({ "retries": 10, "timeout_ms": 30_000 }));
        let log = Log::of(&stage.server);
        let done = stage.run_tries(header, BUSY_NOT_CREATED, |_| vec![says(BUSY_STATUS, &[header])]);
        let document = done.reply.json();
        assert_eq!(document["retry_after_ms"], ms, "{scheme:?}: {document}");
        assert!(document["elapsed_ms"].as_u64().unwrap() < 15_000, "{scheme:?}: {document}");
        assert!(log.pauses().is_empty() && log.of_name("retry").is_empty(), "{scheme:?} {header}");
    });
    // What is left after one pause does not allow another one.
    at_once(Scheme::ALL, |scheme| {
        let keys = json!({ "retries": 10, "timeout_ms": 3900 });
        let stage = Stage::over(scheme, keys);
        let busy = || says(BUSY_STATUS, &["Retry-After: 2"]);
        let done = stage.run_tries("twice two seconds", BUSY_NOT_CREATED, |_| vec![busy(), busy()]);
        let document = done.reply.json();
        assert_eq!(document["retry_after_ms"], 2000, "{scheme:?}: {document}");
        let elapsed = document["elapsed_ms"].as_u64().unwrap();
        assert!((2000..3900).contains(&elapsed), "{scheme:?}: {document}");
    });
}

#[test]
fn a_busy_server_is_asked_again_over_the_kept_connection() {
    at_once(Scheme::ALL, |scheme| {
        let stage = Stage::over(scheme, json!({ "retries": 3, "idle_timeout_ms": 60_000 }));
        let busy = |framing| Script::request().send(answer(BUSY_STATUS, framing, b"busy"));
        let bare = Script::request().send(head(BUSY_STATUS, &["Content-Length: 0"]));
        let first = Script::served().and(busy(Framing::Length)).and(busy(Framing::Chunked(1))).and(bare);
        stage.server.next(first.and(Script::served()).and(Script::request()).reset());
        let mut calls = Calls::of(stage);
        calls.call("A", MADE);
        calls.call("B", MADE);
        // Whether it was made is not known, so that it is not tried again.
        calls.call("C", BROKEN_UNKNOWN);
        let seen = calls.end();
        assert_eq!(seen.iter().map(|seen| seen.numbers().concat()).collect::<Vec<_>>(), ["ABBBBC"], "{scheme:?}");
    });
}

#[test]
fn another_request_is_tried_again_as_an_appointment_is() {
    at_once(Scheme::ALL, |scheme| {
        let stage = Stage::over(scheme, json!({ "retries": 1 }));
        stage.server.next(says(BUSY_STATUS, &[]));
        let made = answer("200 OK", Framing::Length, success_body("OTHER").as_bytes());
        stage.server.next(Script::made().send(made).close());
        let mut calls = Calls::of(stage);
        calls.call_by("OTHER", MADE, |client| client.call("/api/task/other", r#"{"out_task_num":"OTHER"}"#));
        assert_eq!(calls.end().len(), 2, "{scheme:?}");
    });
}

/// What may have made the appointment, with the codes that an integrator's word makes known.
fn doubtful() -> Vec<(&'static str, Expected, Script)> {
    let asked = || Script::request().then(Step::MakeOnce);
    let status = |status: &str| asked().send(head(status, &["Content-Length: 0"])).close();
    let whole = |body: &[u8]| asked().send(answer("200 OK", Framing::Length, body)).close();
    let cut = |framing, missing: usize| {
        let all = answer("200 OK", framing, success_body("N").as_bytes());
        asked().send(&all[..all.len() - missing])
    };
    vec![
        ("reset", BROKEN_UNKNOWN, asked().reset()),
        ("reset, and not made", BROKEN_UNKNOWN, Script::request().reset()),
        ("closed", BROKEN_UNKNOWN, asked().fin()),
        ("closed in good order", BROKEN_UNKNOWN, asked().close()),
        ("a part of the request", BROKEN_UNKNOWN, Script::silent().then(Step::Read(40)).reset()),
        ("a part of the head", BROKEN_UNKNOWN, asked().send("HTTP/1.1 200").fin()),
        ("a part of the body", BROKEN_UNKNOWN, cut(Framing::Length, 1).fin()),
        ("a part of the body, and a reset", BROKEN_UNKNOWN, cut(Framing::Length, 20).reset()),
        ("a part of the chunks", BROKEN_UNKNOWN, cut(Framing::Chunked(20), 8).fin()),
        ("500", SERVER_ERROR_UNKNOWN, status("500 Internal Server Error")),
        ("502", SERVER_ERROR_UNKNOWN, status("502 Bad Gateway")),
        ("503", BUSY_UNKNOWN, status("503 Service Unavailable")),
        ("504", SERVER_ERROR_UNKNOWN, status("504 Gateway Timeout")),
        ("a redirect", BAD_RESPONSE_UNKNOWN, status("302 Found\r\nLocation: http://127.0.0.1/")),
        ("no HTTP", BAD_RESPONSE_UNKNOWN, asked().send("220 mail.bank.example ESMTP\r\n").close()),
        ("no JSON", BAD_RESPONSE_UNKNOWN, whole(b"<html>done</html>")),
        ("no UTF-8", BAD_RESPONSE_UNKNOWN, whole(b"{\"status\":1,\"message\":\"\xff\"}")),
        ("no status", BAD_RESPONSE_UNKNOWN, whole(b"{}")),
        ("another status", BAD_RESPONSE_UNKNOWN, whole(br#"{"status":7}"#)),
        ("a contradiction", BAD_RESPONSE_UNKNOWN, whole(br#"{"status":0,"info":{"task_num":"1"}}"#)),
    ]
}

#[test]
fn what_is_in_doubt_is_not_tried_again_by_itself() {
    let keys = json!({ "retries": 10 });
    let rows = doubtful().into_iter().map(|(what, expected, script)| (what, expected, vec![script]));
    run_cases(over(&Scheme::ALL, &keys, rows));
}

#[test]
fn what_is_in_doubt_is_sent_again_to_a_server_that_knows_repeats() {
    let keys = json!({ "retries": 2, "server_dedupes": true });
    for tries in [1, 2, 3] {
        let rows = doubtful().into_iter().map(|(what, expected, script)| {
            let mut all = vec![script; tries];
            if tries < 3 {
                all.push(made());
            }
            (what, if tries < 3 { MADE } else { expected }, all)
        });
        for (what, done) in run_cases(over(&Scheme::ALL, &keys, rows)) {
            let requests: Vec<_> = done.seen.iter().flat_map(|seen| seen.requests()).collect();
            assert!(requests.windows(2).all(|pair| pair[0] == pair[1]), "{what}");
            if tries < 3 {
                assert_eq!(done.reply.text(), success_body(&done.number), "{what}");
            }
        }
    }
}

/// What another try would not change.
fn finals() -> Vec<(&'static str, Expected, Script)> {
    let refused = |status: &str| Script::request().send(head(status, &["Content-Length: 0"])).close();
    let made = |body: &str| Script::made().send(answer("200 OK", Framing::Length, body.as_bytes())).close();
    let failed = answer("200 OK", Framing::Length, failure_body("no slot left").as_bytes());
    vec![
        ("400", REJECTED_NOT_CREATED, refused("400 Bad Request")),
        ("401", FORBIDDEN_NOT_CREATED, refused("401 Unauthorized")),
        ("403", FORBIDDEN_NOT_CREATED, refused("403 Forbidden")),
        ("404", NOT_FOUND_NOT_CREATED, refused("404 Not Found")),
        ("408", REJECTED_UNKNOWN, refused("408 Request Timeout")),
        ("409", REJECTED_UNKNOWN, refused("409 Conflict")),
        ("413", REJECTED_NOT_CREATED, refused("413 Content Too Large\r\nRetry-After: 0")),
        ("425", REJECTED_UNKNOWN, refused("425 Too Early")),
        ("status 0", FAILED_NOT_CREATED, Script::request().send(failed).close()),
        ("no number", BAD_RESPONSE_CREATED, made(r#"{"status":1,"message":"success"}"#)),
        ("a number that cannot be read", BAD_RESPONSE_CREATED, made(r#"{"status":2,"info":{"task_num":[]}}"#)),
    ]
}

#[test]
fn what_is_final_is_not_tried_again() {
    for server_dedupes in [false, true] {
        let keys = json!({ "retries": 10, "server_dedupes": server_dedupes, "retry_503": true });
        let rows = finals().into_iter().map(|(what, expected, script)| (what, expected, vec![script]));
        run_cases(over(&Scheme::ALL, &keys, rows));
    }
}

#[test]
fn tls_that_is_not_acceptable_is_not_tried_again() {
    let flaws = [Flaw::Expired, Flaw::SelfSigned, Flaw::WrongUsage, Flaw::Altered, Flaw::KeyOfAnother];
    let cases = VERSIONS.into_iter().flat_map(|version| flaws.map(|flaw| (version, flaw)));
    let keys = || json!({ "retries": 10, "server_dedupes": true });
    at_once(cases, |(version, flaw)| {
        let stage = Stage::https_with(Identity::right(version).with(flaw), keys());
        let log = Log::of(&stage.server);
        stage.run(&format!("{version:?} {flaw:?}"), TLS_NOT_CREATED, |_| Script::request());
        assert_eq!(log.of_name("attempt").len(), 1, "{version:?} {flaw:?}");
    });
    // Nor is what breaks it after the request.
    for version in VERSIONS {
        let stage = Stage::https_with(Identity::right(version), keys());
        let foreign = Change::Followed(b"\x17\x03\x03\x00\x28the tag of this record cannot be right..");
        let script = Script::made().then(Step::Records(vec![b"HTTP".to_vec()], foreign)).fin();
        stage.run(&format!("{version:?}"), unknown(TLS), |_| script);
    }
    // What speaks no TLS will not learn it.
    let stage = Stage::over(Scheme::Https(Version::Tls13), keys());
    let plain =
        Script::silent().then(Step::Raw(1)).then(Step::Bare(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())).fin();
    stage.run("no TLS", TLS_NOT_CREATED, |_| plain);
}

#[test]
fn a_503_is_tried_again_on_the_word_of_the_integrator() {
    let keys = json!({ "retries": 2, "retry_503": true });
    let away = |headers| says("503 Service Unavailable", headers);
    let done = run_cases(over(
        &Scheme::ALL,
        &keys,
        [
            ("once", MADE, vec![away(&[]), made()]),
            ("twice", MADE, vec![away(&["Retry-After: 1"]), away(&[]), made()]),
            ("always", BUSY_NOT_CREATED, vec![away(&[]); 3]),
            ("with 429", BUSY_NOT_CREATED, vec![away(&[]), says(BUSY_STATUS, &[]), away(&[])]),
            ("not another 5xx", SERVER_ERROR_UNKNOWN, vec![away(&[]), says("502 Bad Gateway", &[])]),
            ("which a repeat cannot undo", MADE, vec![says(BUSY_STATUS, &[]), away(&[]), made()]),
        ],
    ));
    for (what, done) in done {
        if what == "twice" {
            let began = |index: usize| done.seen[index].exchanges[0].began;
            assert!(began(1) - began(0) >= Duration::from_secs(1));
        }
    }
    // The word is of 503 only where it was given.
    run_cases(over(&Scheme::ALL, &json!({ "retries": 2 }), [("not asked for", BUSY_UNKNOWN, vec![away(&[])])]));
}

#[test]
fn only_a_success_ends_a_doubt() {
    let keys = json!({ "retries": 2, "server_dedupes": true });
    let lost = || Script::request().then(Step::MakeOnce).reset();
    let error = || Script::request().send(head("500 No", &["Content-Length: 0"])).close();
    let failed = || Script::request().send(answer("200 OK", Framing::Length, failure_body("no").as_bytes())).close();
    let unnumbered = || {
        let body = br#"{"status":1,"message":"success"}"#;
        Script::request().then(Step::MakeOnce).send(answer("200 OK", Framing::Length, body)).close()
    };
    let busy = || says(BUSY_STATUS, &[]);
    let rows = [
        ("refused", unknown(FORBIDDEN), vec![lost(), says("401 Unauthorized", &[])]),
        ("refused later", unknown(FORBIDDEN), vec![error(), busy(), says("403 Forbidden", &[])]),
        ("not found", unknown(NOT_FOUND), vec![error(), says("404 Not Found", &[])]),
        ("rejected", unknown(REJECTED), vec![lost(), says("400 Bad Request", &[])]),
        ("a conflict", unknown(REJECTED), vec![lost(), says("409 Conflict", &[])]),
        ("status 0", unknown(FAILED), vec![lost(), failed()]),
        ("busy", unknown(BUSY), vec![lost(), busy(), busy()]),
        ("lost between", unknown(BUSY), vec![busy(), lost(), busy()]),
        ("in doubt again", SERVER_ERROR_UNKNOWN, vec![lost(), busy(), error()]),
        ("no number", BAD_RESPONSE_CREATED, vec![lost(), unnumbered()]),
        ("no number later", BAD_RESPONSE_CREATED, vec![error(), busy(), unnumbered()]),
        ("made", MADE, vec![lost(), busy(), made()]),
    ];
    for (what, done) in run_cases(over(&Scheme::ALL, &keys, rows)) {
        if done.reply.code == OK {
            continue;
        }
        let document = done.reply.json();
        let message = document["message"].as_str().expect("a message");
        // The reader of a refusal must be told why it does not say that nothing was made.
        let refused = [FORBIDDEN, NOT_FOUND, FAILED, BUSY].contains(&done.reply.code);
        assert!(!refused || message.contains("by an earlier try"), "{what}: {message}");
    }
    let closed = || Script::silent().fin();
    let schemes = VERSIONS.map(Scheme::Https);
    let rows = [("no handshake", unknown(CONNECT), vec![lost(), closed(), closed()])];
    run_cases(over(&schemes, &keys, rows));
    // Without a server that knows repeats, too, a try that is in doubt is the last one.
    let rows = [
        ("in doubt", BROKEN_UNKNOWN, vec![busy(), lost()]),
        ("refused", FORBIDDEN_NOT_CREATED, vec![busy(), busy(), says("401 Unauthorized", &[])]),
    ];
    run_cases(over(&Scheme::ALL, &json!({ "retries": 5 }), rows));
}

#[test]
fn a_server_that_goes_down_after_a_doubt_leaves_it() {
    at_once(Scheme::ALL, |scheme| {
        let stage = Arc::new(Stage::over(scheme, json!({ "retries": 2, "server_dedupes": true })));
        let watched = Arc::downgrade(&stage);
        let log = Log::with(&stage.server, move |event| {
            if event["event"] == "retry" && event["attempt"] == 1 {
                watched.upgrade().expect("it is there").server.down();
            }
        });
        stage.server.next(Script::made().reset());
        let reply = stage.client.add(&task("N"));
        assert_eq!((reply.code, reply.outcome), (CONNECT, UNKNOWN), "{scheme:?}: {reply:?}");
        assert_eq!(reply.json()["attempts"], 3, "{scheme:?}: {reply:?}");
        let codes: Vec<_> = log.of_name("retry").iter().map(|event| event["code"].clone()).collect();
        assert_eq!(codes, [json!(BROKEN), json!(CONNECT)], "{scheme:?}");
        let seen = stage.server.settle(0).unwrap();
        assert_eq!((seen.len(), stage.server.ledger().made("N")), (1, 1));
        assert_eq!(truth(&reply, 1, &seen[0].exchanges), Ok(()));
    });
}

#[test]
fn the_deadline_holds_over_all_tries() {
    const DEADLINE: u64 = 2500;
    let keys = json!({ "retries": 10, "timeout_ms": DEADLINE, "server_dedupes": true });
    let busy = || says(BUSY_STATUS, &[]);
    let lost = || Script::request().then(Step::MakeOnce).reset();
    let silent = || Script::silent().then(Step::AwaitRelease);
    let mut cases = over(
        &Scheme::ALL,
        &keys,
        [
            ("no answer", TIMEOUT_UNKNOWN, vec![busy(), Script::request()]),
            ("no answer to a repeat", TIMEOUT_UNKNOWN, vec![lost(), Script::request()]),
            ("no answer at all", TIMEOUT_UNKNOWN, vec![Script::request()]),
        ],
    );
    let closed = || Script::silent().fin();
    cases.extend(over(
        &VERSIONS.map(Scheme::Https),
        &keys,
        [
            ("no handshake", TIMEOUT_NOT_CREATED, vec![closed(), silent()]),
            ("no handshake after it was busy", TIMEOUT_NOT_CREATED, vec![busy(), closed(), silent()]),
            ("no handshake for a repeat", TIMEOUT_UNKNOWN, vec![lost(), silent()]),
        ],
    ));
    let start = Instant::now();
    for (what, done) in run_cases(cases) {
        let document = done.reply.json();
        let elapsed = document["elapsed_ms"].as_u64().expect("a number");
        assert!((DEADLINE..DEADLINE + 5000).contains(&elapsed), "{what}: {document}");
        assert!(document["message"].as_str().expect("a message").contains("timeout_ms"), "{what}: {document}");
    }
    assert!(start.elapsed() >= Duration::from_millis(DEADLINE));
}

#[test]
fn a_repeat_has_the_token_that_the_call_began_with() {
    at_once(Scheme::ALL, |scheme| {
        let stage = Arc::new(Stage::over(scheme, json!({ "retries": 1 })));
        let watched = Arc::downgrade(&stage);
        let _log = Log::with(&stage.server, move |event| {
            if event["event"] == "pause" {
                let stage = watched.upgrade().expect("it is there");
                assert_eq!(stage.client.set_token("another-token").code, OK);
            }
        });
        let done = stage.run_tries("another token", MADE, |_| vec![says(BUSY_STATUS, &[]), made()]);
        let requests: Vec<_> = done.seen.iter().flat_map(|seen| seen.requests()).collect();
        assert_eq!(requests[0], requests[1], "{scheme:?}");
        let done = stage.run("the next call", MADE, |_| made());
        assert_eq!(done.request().header("Authorization"), Some("Bearer another-token"));
    });
}

#[test]
fn pauses_are_random_and_grow_up_to_the_longest() {
    const CALLS: usize = 40;
    const RETRIES: usize = 10;
    let server = Server::plain();
    server.down();
    let keys = json!({ "retries": RETRIES, "timeout_ms": 3_600_000, "connect_timeout_ms": 3_600_000 });
    let config = with(config(&server.base_url()), keys).to_string();
    let output = succeed(Host::new("backoff").command().args([&CALLS.to_string(), &config]));
    let lines = String::from_utf8(output.stdout).expect("the host writes text");
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line is JSON"));
    let mut pauses: Vec<Vec<u64>> = vec![Vec::new()];
    for line in lines {
        let last = pauses.last_mut().expect("there is one");
        if line["event"] == "pause" {
            assert_eq!(line["attempt"], last.len() + 1, "{line}");
            last.push(line["pause_ms"].as_u64().expect("a number"));
        } else if line.get("attempts").is_some() {
            assert_eq!((&line["attempts"], &line["code"]), (&json!(RETRIES + 1), &json!(CONNECT)), "{line}");
            assert_eq!((&line["outcome"], last.len()), (&json!("not_created"), RETRIES), "{line}");
            // The pauses were not only announced.
            let elapsed = line["elapsed_ms"].as_u64().expect("a number");
            assert!(elapsed >= last.iter().sum(), "{line}: {last:?}");
            pauses.push(Vec::new());
        }
    }
    assert_eq!((pauses.pop(), pauses.len()), (Some(Vec::new()), CALLS));
    for retry in 0..RETRIES {
        let most = (FIRST_PAUSE << retry).min(LONGEST_PAUSE);
        let mut all: Vec<u64> = pauses.iter().map(|pauses| pauses[retry]).collect();
        all.sort_unstable();
        // None is longer, and that no pause of forty is in one half comes once in a million million times.
        assert!(all[CALLS - 1] <= most && all[CALLS - 1] > most / 2 && all[0] < most / 2, "{retry}: {all:?}");
        all.dedup();
        assert!(all.len() > CALLS / 4, "{retry}: {all:?}");
    }
}
