//! The log tells every event as one line, to one function of the process at a time, and holds no secret.

use std::ffi::{CStr, OsString, c_char, c_void};
use std::mem::ManuallyDrop;
use std::os::unix::process::ExitStatusExt;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arctos_tests::api::{
    BAD_ARGUMENT, BAD_TASK, BROKEN, BUSY, CANCELLED, CONNECT, FORBIDDEN, LogFn, OK, Owned, Reply, TLS, arctos,
    library_path, root, task, task_check,
};
use arctos_tests::expected::status;
use arctos_tests::http::{Framing, answer, head, success, success_body};
use arctos_tests::server::{PATIENCE, Script, Server, Step};
use arctos_tests::stage::{Stage, config, config_tls, with};
use arctos_tests::tls::{Authority, Identity, Version};
use arctos_tests::tools::{Host, both, compiler, succeed, tool};
use serde_json::{Value, json};
use tempfile::TempDir;

/// One test at a time: the log is that of the process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // What another test has left in it is nothing.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn set_log<T>(log: LogFn, user: &T, most: i32) {
    // SAFETY: the callers take the log back before `user` ends.
    unsafe { (arctos().set_log)(Some(log), ptr::from_ref(user).cast_mut().cast(), most) }
}

fn no_log() {
    unsafe { (arctos().set_log)(None, ptr::null_mut(), 0) }
}

/// Takes the log back when its test ends, however that may be: what it was given is gone then.
struct Silence;

impl Drop for Silence {
    fn drop(&mut self) {
        no_log();
    }
}

/// The lines that came, with their levels.
#[derive(Default)]
struct Log(Mutex<Vec<(i32, String)>>);

impl Log {
    fn lines(&self) -> Vec<(i32, String)> {
        self.0.lock().expect("no panic under it").clone()
    }
}

unsafe extern "C" fn collect(user: *mut c_void, level: i32, line: *const c_char) {
    // SAFETY: `user` is the log of a test that lives until it has taken it back; a line is a text.
    let (log, line) = unsafe { (&*user.cast::<Log>(), CStr::from_ptr(line)) };
    let line = line.to_str().expect("a line is UTF-8").to_owned();
    log.0.lock().expect("no panic under it").push((level, line));
}

/// What work told the log, up to this level; each line is checked for what holds always.
#[track_caller]
fn logged_up_to<T>(most: i32, work: impl FnOnce() -> T) -> (T, Vec<Value>) {
    let log = Log::default();
    let _silence = Silence;
    let (began, clock) = (milliseconds_now(), Instant::now());
    set_log(collect, &log, most);
    let done = work();
    no_log();
    let (ended, took) = (milliseconds_now(), clock.elapsed().as_millis());
    let check = |(level, line): (i32, String)| {
        assert!(!line.chars().any(char::is_control), "more than one line: {line}");
        let event: Value = serde_json::from_str(&line).expect("a line is JSON");
        let word = ["error", "warning", "information", "detail"][usize::try_from(level - 1).expect("a level")];
        assert_eq!(event["level"], word, "{line}");
        let time = milliseconds(event["time"].as_str().expect("a time"));
        assert!(began <= time && time <= ended, "{began} {ended} {line}");
        assert!(u128::from(event["elapsed_ms"].as_u64().expect("a number")) <= took, "{took} {line}");
        event
    };
    (done, log.lines().into_iter().map(check).collect())
}

#[track_caller]
fn logged<T>(work: impl FnOnce() -> T) -> (T, Vec<Value>) {
    logged_up_to(4, work)
}

fn milliseconds_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("before the year 500,000,000")
}

/// A time such as 2026-11-24T08:00:00.120Z in milliseconds since 1970.
#[track_caller]
fn milliseconds(text: &str) -> u64 {
    let shape: String = text.chars().map(|one| if one.is_ascii_digit() { '0' } else { one }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{text}");
    let number = |from: usize, to: usize| text[from..to].parse::<u64>().expect("digits");
    let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
    // Years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    (((days * 24 + number(11, 13)) * 60 + number(14, 16)) * 60 + number(17, 19)) * 1000 + number(20, 23)
}

/// Without what differs each time.
fn timeless(event: &Value) -> Value {
    let mut event = event.clone();
    let members = event.as_object_mut().expect("an object");
    members.remove("time");
    members.remove("elapsed_ms");
    event
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().expect("a name")).collect()
}

/// Calls whose events are told in full.
struct Told {
    client: Owned,
    server: Server,
    host: String,
}

impl Told {
    fn of(stage: Stage) -> Told {
        let Stage { client, server, .. } = stage;
        server.always(Script::forever(Script::request().then(Step::ByNumber)));
        let host = server.address().to_string();
        Told { client, server, host }
    }

    /// A call with this number and id whose request is answered so: its events must be these and no others, besides
    /// what all have.
    #[track_caller]
    fn tells(&self, number: &str, script: Script, task: &str, expected: &[(&str, &str, Value)]) -> Vec<Value> {
        self.server.number(number, script);
        let id = format!("desk-{number}");
        let options = json!({ "call_id": id }).to_string();
        let (_, events) = logged(|| self.client.add_with(task, &options));
        let expected: Vec<Value> = expected
            .iter()
            .map(|(level, event, more)| {
                let base = json!({ "level": level, "event": event, "call_id": id, "out_task_num": number });
                with(with(base, json!({ "host": self.host })), more.clone())
            })
            .collect();
        let random = |mut event: Value| {
            if let Some(pause) = event.as_object_mut().expect("an object").remove("pause_ms") {
                assert!(pause.as_u64().is_some_and(|pause| pause <= 200), "{pause}");
            }
            event
        };
        assert_eq!(events.iter().map(|event| random(timeless(event))).collect::<Vec<_>>(), expected);
        events
    }

    fn address(&self) -> Value {
        json!({ "address": self.host })
    }
}

fn attempt(number: u32) -> Value {
    json!({ "attempt": number })
}

/// How something ended.
fn ended(code: i32, outcome: &str) -> Value {
    // SAFETY: the library's own static text.
    let name = unsafe { CStr::from_ptr((arctos().code_name)(code)) }.to_str().expect("ASCII");
    json!({ "code": code, "name": name, "outcome": outcome })
}

fn answered(http_status: u16, code: i32, outcome: &str) -> Value {
    with(json!({ "http_status": http_status }), ended(code, outcome))
}

fn tried(number: u32, code: i32, outcome: &str) -> Value {
    with(attempt(number), ended(code, outcome))
}

fn made() -> Script {
    Script::silent().then(Step::Make).then(Step::Answer(success))
}

fn refused(status: &str) -> Script {
    Script::silent().send(answer(status, Framing::Length, b"no"))
}

#[test]
fn every_event_is_told_with_what_belongs_to_it() {
    let _alone = alone();
    let keys = json!({ "idle_timeout_ms": 60_000, "retries": 1 });
    for stage in [Stage::http_with(keys.clone()), Stage::https_with(Identity::right(Version::Tls13), keys)] {
        let told = Told::of(stage);
        let (detail, information, warning, error) = ("detail", "information", "warning", "error");
        told.tells(
            "NEW",
            made(),
            &task("NEW"),
            &[
                (detail, "attempt", attempt(1)),
                (detail, "connect", told.address()),
                (information, "answer", answered(200, OK, "created")),
            ],
        );
        told.tells(
            "KEPT",
            made(),
            &task("KEPT"),
            &[
                (detail, "attempt", attempt(1)),
                (detail, "reuse", told.address()),
                (information, "answer", answered(200, OK, "created")),
            ],
        );
        let events = told.tells(
            "BUSY",
            refused("429 Busy"),
            &task("BUSY"),
            &[
                (detail, "attempt", attempt(1)),
                (detail, "reuse", told.address()),
                (information, "answer", answered(429, BUSY, "not_created")),
                (warning, "retry", tried(1, BUSY, "not_created")),
                (information, "pause", attempt(1)),
                (detail, "attempt", attempt(2)),
                (detail, "reuse", told.address()),
                (information, "answer", answered(429, BUSY, "not_created")),
                (error, "failure", tried(2, BUSY, "not_created")),
            ],
        );
        assert!(events[4]["pause_ms"].is_u64(), "{}", events[4]);
        let elapsed: Vec<_> = events.iter().map(|event| event["elapsed_ms"].as_u64().expect("a number")).collect();
        assert!(elapsed.is_sorted(), "{elapsed:?}");
        assert!(elapsed[5] >= elapsed[4] + events[4]["pause_ms"].as_u64().expect("a number"), "{events:?}");
        told.tells(
            "FORBIDDEN",
            refused("403 No"),
            &task("FORBIDDEN"),
            &[
                (detail, "attempt", attempt(1)),
                (detail, "reuse", told.address()),
                (information, "answer", answered(403, FORBIDDEN, "not_created")),
                (error, "failure", tried(1, FORBIDDEN, "not_created")),
            ],
        );
        let body = r#"{"status":2,"message":"soon full","info":{"task_num":1}}"#;
        let warned = Script::silent().then(Step::Make).send(answer("200 OK", Framing::Length, body.as_bytes()));
        let mut odd: Value = serde_json::from_str(&task("WARNED")).expect("JSON");
        odd["task_remrk"] = json!("a remark");
        odd["Kunde \"A\"\n許"] = json!([1]);
        let events = told.tells(
            "WARNED",
            warned,
            &odd.to_string(),
            &[
                (warning, "warning", json!({ "field": "task_remrk", "note": note(&odd, 0) })),
                (warning, "warning", json!({ "field": "Kunde \"A\"\n許", "note": note(&odd, 1) })),
                (detail, "attempt", attempt(1)),
                (detail, "reuse", told.address()),
                (information, "answer", answered(200, OK, "created")),
                (warning, "warning", json!({ "note": "the server made it, with status 2: a warning" })),
            ],
        );
        assert!(events[0]["note"].as_str().is_some_and(|note| note.contains("task_remark")), "{}", events[0]);
        told.tells(
            "BROKEN",
            Script::silent().then(Step::Make).then(Step::Reset),
            &task("BROKEN"),
            &[
                (detail, "attempt", attempt(1)),
                (detail, "reuse", told.address()),
                (error, "failure", tried(1, BROKEN, "unknown")),
            ],
        );
        let mut bad: Value = serde_json::from_str(&task("BAD")).expect("JSON");
        bad["video"] = json!(5);
        let failed = (error, "failure", tried(0, BAD_TASK, "not_created"));
        told.tells("BAD", Script::silent(), &bad.to_string(), &[failed]);
    }
}

/// The note that `arctos_task_check` has of a task's field.
#[track_caller]
fn note(task: &Value, index: usize) -> Value {
    task_check(&task.to_string()).json()["notes"][index]["note"].clone()
}

#[test]
fn a_cancel_is_told() {
    let _alone = alone();
    let stage = Stage::http();
    stage.server.next(Script::made().then(Step::AwaitRelease));
    let (reply, events) = logged(|| {
        std::thread::scope(|scope| {
            let call = scope.spawn(|| stage.client.add(&task("N")));
            stage.server.await_requests(1).expect("it waits for the answer");
            assert_eq!(stage.client.cancel(), OK);
            call.join().expect("no panic")
        })
    });
    assert_eq!(names(&events), ["attempt", "connect", "cancel"]);
    let cancel = timeless(&events[2]);
    let id = reply.json()["call_id"].clone();
    let host = stage.server.address().to_string();
    let base = json!({ "level": "warning", "event": "cancel", "call_id": id, "out_task_num": "N", "host": host });
    assert_eq!(cancel, with(base, tried(1, CANCELLED, "unknown")));
    stage.server.release();
}

#[test]
fn a_failure_before_anything_is_sent_is_told() {
    let _alone = alone();
    let client = Owned::new(&with(config("http://127.0.0.1:1"), json!({ "retries": 1 })));
    let (reply, events) = logged(|| client.add(&task("N")));
    assert_eq!(reply.code, CONNECT, "{reply:?}");
    assert_eq!(names(&events), ["attempt", "retry", "pause", "attempt", "failure"]);
    for (event, expected) in [(1, tried(1, CONNECT, "not_created")), (4, tried(2, CONNECT, "not_created"))] {
        let (level, name) = [("warning", "retry"), ("error", "failure")][event / 4];
        let base = json!({
            "level": level, "event": name, "call_id": reply.json()["call_id"], "out_task_num": "N",
            "host": "127.0.0.1:1",
        });
        assert_eq!(timeless(&events[event]), with(base, expected));
    }
    // Misuse is a failed call too.
    let freed = ManuallyDrop::new(Owned::new(&config("http://127.0.0.1:1")));
    unsafe { (arctos().client_free)(freed.0) };
    let failures: [&dyn Fn() -> Reply; 5] = [
        &|| freed.add(&task("N")),
        &|| client.add_with(&task("N"), "{\"timeout\":1}"),
        &|| client.call("/..", "{}"),
        &|| client.call("/x", "{"),
        &|| freed.call("/x", "{}"),
    ];
    for failure in failures {
        let (reply, events) = logged(failure);
        assert_eq!((reply.code, names(&events)), (BAD_ARGUMENT, vec!["failure"]), "{reply:?}");
        let document = reply.json();
        let mut base = json!({ "level": "error", "event": "failure", "call_id": document["call_id"] });
        if let Some(host) = document.get("host") {
            base["host"] = host.clone();
        }
        assert_eq!(timeless(&events[0]), with(base, tried(0, BAD_ARGUMENT, "not_created")));
    }
}

#[test]
fn all_lines_of_a_call_have_its_id() {
    let _alone = alone();
    let stage = Stage::http_with(json!({ "retries": 1 }));
    let mut ids = Vec::new();
    for call in 0..3 {
        stage.server.next(Script::request().and(refused("429 Busy")).close());
        stage.server.next(Script::request().and(refused("403 No")).close());
        let (reply, events) = logged(|| stage.client.call("/api/room/list", "{}"));
        assert_eq!(events.len(), 9, "{events:?}");
        let id = reply.json()["call_id"].as_str().expect("an id").to_owned();
        assert!(events.iter().all(|event| event["call_id"] == id && event.get("out_task_num").is_none()), "{events:?}");
        assert!(!ids.contains(&id), "call {call} has the id of another");
        ids.push(id);
    }
    // One that the caller gave, with whatever JSON has to escape.
    let id = "Schalter \"7\" \\ 許 😀";
    let (reply, events) = logged(|| stage.client.add_with("{}", &json!({ "call_id": id }).to_string()));
    assert_eq!((&reply.json()["call_id"], &events[0]["call_id"]), (&json!(id), &json!(id)));
    // And a number with what would end a line, or a text of C.
    let whole = answer("200 OK", Framing::Length, success_body("N").as_bytes());
    stage.server.next(Script::made().send(whole).close());
    let (reply, events) = logged(|| stage.client.add(&task(r"a\nb\u0000c")));
    assert_eq!(reply.code, OK, "{reply:?}");
    assert!(events.iter().all(|event| event["out_task_num"] == "a\nb\0c"), "{events:?}");
}

#[test]
fn no_more_than_the_level_is_told() {
    let _alone = alone();
    let stage = Stage::http_with(json!({ "idle_timeout_ms": 60_000, "retries": 1 }));
    let script = Script::request().and(refused("429 Busy")).and(Script::served());
    stage.server.always(Script::forever(script.and(Script::request()).and(refused("403 No"))));
    let mut odd: Value = serde_json::from_str(&task("N")).expect("JSON");
    odd["customer"] = json!("a name");
    let all = [
        (2, "warning"),
        (4, "attempt"),
        (4, "reuse"),
        (3, "answer"),
        (2, "retry"),
        (3, "pause"),
        (4, "attempt"),
        (4, "reuse"),
        (3, "answer"),
        (4, "attempt"),
        (4, "reuse"),
        (3, "answer"),
        (1, "failure"),
    ];
    // The connection that all later ones use.
    let calls = || {
        assert_eq!(stage.client.add(&odd.to_string()).code, OK);
        assert_eq!(stage.client.add(&task("N")).code, FORBIDDEN);
    };
    calls();
    for most in [4, 3, 2, 1, 0, -1, i32::MIN, 5, i32::MAX] {
        let ((), events) = logged_up_to(most, calls);
        let expected: Vec<_> = all.iter().filter(|(level, _)| *level <= most).map(|(_, event)| *event).collect();
        assert_eq!(names(&events), expected, "up to {most}");
    }
}

#[test]
fn there_is_one_log_and_only_while_it_is_set() {
    let _alone = alone();
    let client = Owned::new(&config("http://127.0.0.1:1"));
    let (first, second) = (Log::default(), Log::default());
    let _silence = Silence;
    let call = || assert_eq!(client.add("{}").code, BAD_TASK);
    let heard = || (first.lines().len(), second.lines().len());
    call();
    set_log(collect, &first, 4);
    call();
    assert_eq!(heard(), (1, 0));
    set_log(collect, &second, 4);
    call();
    assert_eq!(heard(), (1, 1));
    // Without a function, and with one that hears nothing.
    unsafe { (arctos().set_log)(None, ptr::from_ref(&second).cast_mut().cast(), 4) };
    call();
    set_log(collect, &first, 0);
    call();
    assert_eq!(heard(), (1, 1));
}

unsafe extern "C" fn note_user(user: *mut c_void, _: i32, _: *const c_char) {
    USERS.lock().expect("no panic under it").push(user.addr());
}

static USERS: Mutex<Vec<usize>> = Mutex::new(Vec::new());

#[test]
fn what_the_caller_gave_comes_back() {
    let _alone = alone();
    let client = Owned::new(&config("http://127.0.0.1:1"));
    let users = [0, 1, 0x1234_5678, usize::MAX];
    for user in users {
        unsafe { (arctos().set_log)(Some(note_user), ptr::without_provenance_mut(user), 1) };
        client.add("{}");
    }
    no_log();
    assert_eq!(*USERS.lock().expect("no panic under it"), users);
}

/// A function that a call can be held in.
#[derive(Default)]
struct Gate {
    entered: AtomicBool,
    open: Mutex<bool>,
    opened: Condvar,
    /// Whether the call that was held has come out of the function.
    left: AtomicBool,
    events: AtomicUsize,
}

const HELD: &str = r#"{"call_id":"held"}"#;
const SWITCHING: &str = r#"{"call_id":"switching"}"#;

impl Gate {
    fn open(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.opened.notify_all();
    }

    #[track_caller]
    fn await_entry(&self) {
        wait_until("the call is held", || self.entered.load(Ordering::SeqCst));
    }

    /// Sets another log, which must last until the held call has left this one.
    fn replace(&self, log: &Log) {
        set_log(collect, log, 4);
        assert!(self.left.load(Ordering::SeqCst), "arctos_set_log came back while a thread was inside the function");
    }
}

/// Opens a gate when its test fails, so that the call in it, which the test waits for, ends.
struct Opening<'a>(&'a Gate);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.open();
    }
}

unsafe extern "C" fn hold(user: *mut c_void, _: i32, line: *const c_char) {
    // SAFETY: the gate lives until another function was set; a line is a text.
    let (gate, line) = unsafe { (&*user.cast::<Gate>(), CStr::from_ptr(line)) };
    gate.events.fetch_add(1, Ordering::SeqCst);
    let line: Value = serde_json::from_slice(line.to_bytes()).expect("a line is JSON");
    if line["call_id"] == "held" {
        gate.entered.store(true, Ordering::SeqCst);
        let open = gate.open.lock().expect("no panic under it");
        drop(gate.opened.wait_while(open, |open| !*open).expect("no panic under it"));
        gate.left.store(true, Ordering::SeqCst);
    } else if line["call_id"] == "switching" {
        no_log();
    }
}

#[track_caller]
fn wait_until(what: &str, ready: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !ready() {
        assert!(Instant::now() < until, "{what}: not so");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Long enough for a function that does not wait to have come back.
const A_WHILE: Duration = Duration::from_millis(200);

#[test]
fn a_log_is_replaced_when_nobody_is_inside_it() {
    let _alone = alone();
    let client = Owned::new(&config("http://127.0.0.1:1"));
    let (gate, log) = (Gate::default(), Log::default());
    let _silence = Silence;
    set_log(hold, &gate, 1);
    std::thread::scope(|scope| {
        let _opening = Opening(&gate);
        let held = scope.spawn(|| client.add_with("{}", HELD));
        gate.await_entry();
        let first = scope.spawn(|| gate.replace(&log));
        // The new one is in force while the old one is waited for.
        wait_until("the new log hears", || {
            client.add("{}");
            !log.lines().is_empty()
        });
        // So it is for whoever replaces that one, though nobody is inside it.
        let second = scope.spawn(|| gate.replace(&log));
        std::thread::sleep(A_WHILE);
        assert!(!first.is_finished() && !second.is_finished(), "arctos_set_log came back");
        let events = gate.events.load(Ordering::SeqCst);
        gate.open();
        first.join().expect("it came back in time");
        second.join().expect("it came back in time");
        assert_eq!(held.join().expect("no panic").code, BAD_TASK);
        let lines = log.lines().len();
        for _ in 0..10 {
            client.add_with("{}", HELD);
        }
        assert_eq!(gate.events.load(Ordering::SeqCst), events, "an old function was called");
        assert_eq!(log.lines().len(), lines + 10);
    });
}

#[test]
fn a_log_is_replaced_from_within_at_once() {
    let _alone = alone();
    let client = Owned::new(&config("http://127.0.0.1:1"));
    let (gate, log) = (Gate::default(), Log::default());
    let _silence = Silence;
    set_log(hold, &gate, 1);
    std::thread::scope(|scope| {
        let _opening = Opening(&gate);
        let held = scope.spawn(|| client.add_with("{}", HELD));
        gate.await_entry();
        // Though another thread is inside the same function.
        assert_eq!(client.add_with("{}", SWITCHING).code, BAD_TASK);
        let events = gate.events.load(Ordering::SeqCst);
        client.add("{}");
        assert_eq!(gate.events.load(Ordering::SeqCst), events, "it was taken back");
        // Which whoever comes from outside still waits for.
        let outside = scope.spawn(|| gate.replace(&log));
        std::thread::sleep(A_WHILE);
        assert!(!outside.is_finished(), "arctos_set_log came back");
        gate.open();
        outside.join().expect("it came back in time");
        assert_eq!(held.join().expect("no panic").code, BAD_TASK);
    });
}

#[test]
fn what_the_log_used_may_go_when_it_was_replaced() {
    let _alone = alone();
    Host::new("log_switch").run(&[]);
}

/// A function that uses the library itself.
struct Nested {
    client: Owned,
    lines: AtomicUsize,
    failed: AtomicBool,
}

unsafe extern "C" fn use_the_library(user: *mut c_void, _: i32, line: *const c_char) {
    // SAFETY: it lives until another function was set; a line is a text.
    let (nested, line) = unsafe { (&*user.cast::<Nested>(), CStr::from_ptr(line)) };
    let line: Value = serde_json::from_slice(line.to_bytes()).expect("a line is JSON");
    nested.lines.fetch_add(1, Ordering::SeqCst);
    let Nested { client, .. } = nested;
    let right = line["out_task_num"] == "OUTER"
        && task_check(&task("N")).code == OK
        && client.add("{}").code == BAD_TASK
        && client.add(&task("INNER")).code == OK
        && client.call("/api/room/list", r#"{"out_task_num":"INNER"}"#).code == OK
        && client.set_token("token-of-the-tests").code == OK
        && client.cancel_call("nobody") == OK
        && Owned::new(&config("http://127.0.0.1:1")).add(&task("N")).code == CONNECT;
    nested.failed.fetch_or(!right, Ordering::SeqCst);
}

#[test]
fn the_library_may_be_used_from_within_and_tells_nothing_of_it() {
    let _alone = alone();
    for keep in [0, 60_000] {
        let Stage { client, server, .. } = Stage::http_with(json!({ "idle_timeout_ms": keep }));
        server.always(Script::forever(Script::served()));
        let nested = Nested { client, lines: AtomicUsize::new(0), failed: AtomicBool::new(false) };
        let _silence = Silence;
        set_log(use_the_library, &nested, 4);
        let reply = nested.client.add(&task("OUTER"));
        no_log();
        assert_eq!(reply.code, OK, "{reply:?}");
        assert!(!nested.failed.load(Ordering::SeqCst), "a call from within failed, or was told");
        assert_eq!(nested.lines.load(Ordering::SeqCst), 3, "attempt, connect or reuse, answer");
        assert_eq!(server.ledger().made("OUTER"), 1);
    }
}

unsafe extern "C" fn call_from_within(user: *mut c_void, level: i32, line: *const c_char) {
    // SAFETY: as above.
    let nested = unsafe { &*user.cast::<Nested>() };
    let reply = nested.client.add(&task("INNER"));
    nested.lines.fetch_add(1, Ordering::SeqCst);
    if reply.code != OK {
        nested.failed.store(true, Ordering::SeqCst);
        // SAFETY: a line is a text.
        eprintln!("{level} {:?}: {reply:?}", unsafe { CStr::from_ptr(line) });
    }
}

#[test]
fn a_call_from_within_a_log_in_does_not_wait_for_it() {
    let _alone = alone();
    let server = Server::plain();
    // To a log-in and to a call alike.
    let body = r#"{"status":1,"info":{"task_num":"7","token":"token-of-the-tests"}}"#;
    server.always(Script::request().send(answer("200 OK", Framing::Length, body.as_bytes())));
    let mut config = config(&server.base_url());
    config.as_object_mut().expect("an object").remove("token");
    let login = json!({ "path": "/in", "body": {}, "token_pointer": "/info/token" });
    let client = Owned::new(&with(config, json!({ "login": login, "timeout_ms": 5_000 })));
    let nested = Nested { client, lines: AtomicUsize::new(0), failed: AtomicBool::new(false) };
    let _silence = Silence;
    set_log(call_from_within, &nested, 4);
    let reply = nested.client.add(&task("OUTER"));
    no_log();
    assert_eq!(reply.code, OK, "{reply:?}");
    assert!(!nested.failed.load(Ordering::SeqCst), "a call from within failed");
    assert_eq!(nested.lines.load(Ordering::SeqCst), 6, "login, connect, answer; attempt, connect, answer");
}

const TOKEN: &str = r#"tokA7alpha<>&"'\/=+tokZ7omega"#;
const REMARK: &str = "remA7alpha <>&\"'\\/\n預約é remZ7omega";
const OTHER: &str = "othA7alpha<>&\"'\\/\u{1F600}othZ7omega";
/// What the server says.
const WORDS: &str = "srvA7alpha: \"come later\" srvZ7omega";

/// What no line may hold: the plain ends of all of them, which no escaping changes.
const PARTS: [&str; 8] =
    ["tokA7alpha", "tokZ7omega", "remA7alpha", "remZ7omega", "othA7alpha", "othZ7omega", "srvA7alpha", "srvZ7omega"];

fn telling_task(number: &str) -> Value {
    let mut task: Value = serde_json::from_str(&task(number)).expect("JSON");
    task["task_remark"] = json!(REMARK);
    task["customer"] = json!(OTHER);
    task["customers"] = json!([{ "name": OTHER }, OTHER]);
    task
}

/// Calls that come to every end, each with as much of what must not be told as it can hold.
fn telling_calls(stage: &Stage) -> usize {
    let Stage { client, server, .. } = stage;
    let mut calls = 0;
    let mut run = |script: Option<Script>| {
        for call in [false, true] {
            let task = telling_task("N").to_string();
            if let Some(script) = &script {
                server.next(script.clone());
            }
            let reply = if call { client.call(&format!("/x?y={}", "a"), &task) } else { client.add(&task) };
            assert_ne!(reply.code, BAD_TASK, "{reply:?}");
            calls += 1;
        }
    };
    let echo = format!("{WORDS} {TOKEN} {REMARK} {OTHER}");
    let page = json!({ "status": 0, "message": echo, "info": { "task_num": "" }, "echo": echo }).to_string();
    for code in (200..=600).filter(|code| status(*code).is_some_and(|_| *code % 100 < 32)) {
        let line = format!("{code} {}", WORDS.replace('"', ""));
        run(Some(Script::request().send(answer(&line, Framing::Length, page.as_bytes())).close()));
    }
    for code in [1, 2] {
        let body = json!({ "status": code, "message": echo, "info": { "task_num": WORDS } }).to_string();
        run(Some(Script::request().send(answer("200 OK", Framing::Length, body.as_bytes())).close()));
    }
    let length = format!("Content-Length: {}", page.len());
    let words = format!("X-Words: {}", WORDS.replace('"', ""));
    for headers in [
        &["Location: https://srvA7alpha.example/srvZ7omega", &length][..],
        &["Content-Encoding: srvA7alpha", &words, &length],
        &["Retry-After: srvA7alpha", &length],
        &["Connection: srvA7alpha", "Keep-Alive: srvZ7omega", &length],
    ] {
        for status in ["302 srvA7alpha", "200 srvZ7omega", "429 srvA7alpha"] {
            run(Some(Script::request().send([head(status, headers), page.clone().into_bytes()].concat()).close()));
        }
    }
    run(Some(Script::request().send(format!("{echo}\r\n\r\n")).close()));
    run(Some(Script::request().send(answer("200 OK", Framing::Length, page.as_bytes())[..150].to_vec()).close()));
    run(Some(Script::request().send(answer("200 OK", Framing::Chunked(3), echo.as_bytes())).close()));
    run(Some(Script::request().reset()));
    calls
}

#[test]
fn no_line_holds_a_secret_or_the_servers_words() {
    let _alone = alone();
    let keys = json!({ "token": TOKEN, "keep_bodies": true });
    let mut lines = Vec::new();
    for stage in [Stage::http_with(keys.clone()), Stage::https_with(Identity::right(Version::Tls12), keys.clone())] {
        let (calls, events) = logged(|| telling_calls(&stage));
        assert!(names(&events).iter().filter(|name| **name == "attempt").count() == calls, "{calls} {events:?}");
        lines.extend(events);
    }
    // Where nothing is sent.
    let strict = Owned::new(&with(config("http://127.0.0.1:1"), with(keys.clone(), json!({ "strict": true }))));
    let lax = Owned::new(&with(config("http://127.0.0.1:1"), with(keys.clone(), json!({ "retries": 1 }))));
    let good = telling_task("N");
    let mut bad = good.clone();
    bad["task_time"] = json!(REMARK);
    bad["task_remark"] = json!([REMARK]);
    let options = json!({ "timeout_ms": TOKEN, "tokA7alpha": OTHER }).to_string();
    let failures: [&dyn Fn() -> Reply; 9] = [
        &|| strict.add(&good.to_string()),
        &|| lax.add(&good.to_string()),
        &|| lax.add(&bad.to_string()),
        &|| lax.add(REMARK),
        &|| lax.add_with(&good.to_string(), &options),
        &|| lax.call(TOKEN, &good.to_string()),
        &|| lax.call(&format!("/../{TOKEN}"), &good.to_string()),
        &|| lax.call("/x", &format!("{good}}}")),
        &|| lax.call("/x", &good.to_string()),
    ];
    for failure in failures {
        let (reply, events) = logged(failure);
        assert!(reply.code < 0 && !events.is_empty(), "{reply:?} {events:?}");
        lines.extend(events);
    }
    // And where TLS fails.
    let (authority, other) = (Authority::new(), Authority::new());
    let server = Server::start("127.0.0.1", Some(authority.server(Identity::right(Version::Tls13))));
    server.next(Script::request());
    let stranger = Owned::new(&with(config_tls(&server.base_url(), &other), keys));
    let (reply, events) = logged(|| stranger.add(&good.to_string()));
    assert_eq!(reply.code, TLS, "{reply:?}");
    lines.extend(events);

    for line in lines.iter().map(Value::to_string) {
        assert_eq!(PARTS.iter().find(|part| line.contains(**part)), None, "{line}");
    }
    // The names of undocumented fields are told: it is from here that the others could have come.
    assert!(lines.iter().any(|line| line["field"] == "customer"), "no warning of a field");
    for known in ["attempt", "connect", "answer", "retry", "pause", "warning", "failure"] {
        assert!(names(&lines).contains(&known), "no {known}");
    }
}

#[test]
fn an_exception_ends_the_process() {
    let Some(gxx) = tool("a log function that throws", "g++", "g++") else { return };
    let folder = TempDir::new().expect("a folder");
    let program = folder.path().join("program");
    let library = library_path().canonicalize().expect("the library: run `make build` first");
    let mut search = OsString::from("-Wl,-rpath,");
    search.push(library.parent().expect("a file has a folder"));
    let mut command = compiler(&gxx);
    command.args(["-std=c++11", "-g", "-o"]).arg(&program).arg(root().join("tests/c/throw.cpp"));
    succeed(command.arg(&library).arg(&search));
    let output = std::process::Command::new(&program).current_dir(folder.path()).output().expect("it runs");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{}: {}", output.status, both(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "thrown\n", "nothing of the program follows");
}
