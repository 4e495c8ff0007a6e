//! Many appointments in one call: each is what it would be alone, several are made at once, and each is told once.

use std::collections::BTreeSet;
use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::thread;
use std::time::Instant;

use arctos_tests::api::{
    BAD_ARGUMENT, BAD_TASK, BROKEN, CANCELLED, CONNECT, CREATED, FORBIDDEN, NOT_CREATED, OK, Owned, PARTIAL, Reply,
    TLS, UNKNOWN, UNRESOLVED, arctos, c, call, task,
};
use arctos_tests::http::{Framing, answer, head, success, success_body};
use arctos_tests::server::{PATIENCE, Script, Server, Step};
use arctos_tests::stage::{config, config_tls, with};
use arctos_tests::tls::{Authority, Identity, Version};
use serde_json::{Value, json};
use tempfile::TempDir;

/// One row as it was told.
struct Told {
    index: i32,
    done: i32,
    total: i32,
    code: i32,
    text: String,
    outcome: i32,
}

impl Told {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect("a row is JSON")
    }
}

/// What hears of the rows: says after each whether to stop.
struct Ear<'a> {
    told: Vec<Told>,
    stops: Box<dyn FnMut(&Told) -> bool + 'a>,
    thread: thread::ThreadId,
}

unsafe extern "C-unwind" fn hear(
    user: *mut c_void,
    index: i32,
    done: i32,
    total: i32,
    code: i32,
    row: *const c_char,
) -> i32 {
    // SAFETY: `user` is the ear of a call that has not returned; a row is a text.
    let (ear, text) = unsafe { (&mut *user.cast::<Ear>(), CStr::from_ptr(row)) };
    // SAFETY: the row is a text.
    let outcome = unsafe { (arctos().outcome)(code, row) };
    assert_eq!(ear.thread, thread::current().id(), "rows are told on the thread that calls");
    let text = text.to_str().expect("UTF-8").to_owned();
    let told = Told { index, done, total, code, text, outcome };
    let stops = (ear.stops)(&told);
    ear.told.push(told);
    i32::from(stops)
}

fn array(tasks: &[String]) -> String {
    format!("[{}]", tasks.join(","))
}

/// A call for these tasks: what it returned, and what it told.
#[track_caller]
fn add_many(client: &Owned, tasks: &str, stops: impl FnMut(&Told) -> bool) -> (Reply, Vec<Told>) {
    let mut ear = Ear { told: Vec::new(), stops: Box::new(stops), thread: thread::current().id() };
    let tasks = c(tasks);
    let user = ptr::from_mut(&mut ear).cast();
    let function = arctos().task_add_many;
    // SAFETY: the texts and the ear live as long as the call.
    let reply = call(|answer| unsafe { function(client.0, tasks.as_ptr(), ptr::null(), Some(hear), user, answer) });
    let told = ear.told;
    for (place, row) in told.iter().enumerate() {
        assert_eq!(usize::try_from(row.done), Ok(place + 1), "they are counted");
        let json = row.json();
        assert_eq!((&json["index"], &json["code"]), (&json!(row.index), &json!(row.code)), "{}", row.text);
        let word = ["not_created", "created", "unknown"][usize::try_from(row.outcome).expect("an outcome")];
        assert_eq!(json["outcome"], word, "{}", row.text);
        assert_eq!(json.get("answer").is_some(), row.code == OK, "{}", row.text);
        assert_eq!(json.get("error").is_some(), row.code != OK, "{}", row.text);
        if row.code != OK {
            assert_eq!((&json["error"]["code"], &json["error"]["outcome"]), (&json!(row.code), &json!(word)));
        }
    }
    (reply, told)
}

/// Whether the collected results are the rows, in order.
#[track_caller]
fn agree(reply: &Reply, told: &[Told]) {
    let document = reply.json();
    let results = document["results"].as_array().expect("results");
    let mut rows: Vec<_> = told.iter().map(|row| (row.index, row.json())).collect();
    rows.sort_by_key(|(index, _)| *index);
    assert_eq!(results.iter().collect::<Vec<_>>(), rows.iter().map(|(_, row)| row).collect::<Vec<_>>());
    assert!(told.iter().all(|row| usize::try_from(row.total) == Ok(told.len())));
    if reply.code != OK {
        assert_eq!(reply.code, PARTIAL, "{reply:?}");
        assert!(document.get("outcome").is_none(), "each row has its own");
    }
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|index| task(&format!("M-{index}"))).collect()
}

#[test]
fn all_are_made_and_told_once() {
    const COUNT: usize = 300;
    let server = Server::plain();
    server.always(Script::forever(Script::served()));
    let client = Owned::new(&with(config(&server.base_url()), json!({ "idle_timeout_ms": 60_000, "connections": 5 })));
    let (reply, told) = add_many(&client, &array(&numbered(COUNT)), |_| false);
    assert_eq!(reply.code, OK, "{reply:?}");
    agree(&reply, &told);
    let document = reply.json();
    for (index, row) in document["results"].as_array().expect("results").iter().enumerate() {
        let number = format!("M-{index}");
        assert_eq!(row["out_task_num"], number);
        assert_eq!(row["answer"], serde_json::from_str::<Value>(&success_body(&number)).expect("JSON"));
        assert_eq!(server.ledger().made(&number), 1);
    }
    assert!(server.connections() <= 5, "{} connections", server.connections());
    drop(client);
}

#[test]
fn as_many_are_under_way_as_there_are_connections() {
    let server = Server::plain();
    server.always(Script::made().then(Step::AwaitRelease).then(Step::Answer(success)));
    let client = Owned::new(&with(config(&server.base_url()), json!({ "connections": 3 })));
    thread::scope(|scope| {
        let call = scope.spawn(|| add_many(&client, &array(&numbered(7)), |_| false).0.code);
        server.await_requests(3).expect("three are sent");
        assert_eq!(server.connections(), 3);
        server.always(Script::served());
        server.release();
        assert_eq!(call.join().expect("no panic"), OK);
    });
    assert_eq!(server.settle(0).expect("the connections have ended").len(), 7);
}

#[test]
fn each_has_the_end_that_it_would_have_alone() {
    let server = Server::plain();
    let client = Owned::new(&with(config(&server.base_url()), json!({ "connections": 1 })));
    let refused = answer("200 OK", Framing::Length, br#"{"status":0,"message":"no"}"#);
    for script in [
        Script::served(),
        Script::request().send(refused),
        Script::made().reset(),
        Script::made().send(answer("200 OK", Framing::Length, br#"{"status":2}"#)),
        Script::request().send(head("404 No", &["Content-Length: 0"])),
        Script::served(),
    ] {
        server.next(script);
    }
    let mut tasks = numbered(6);
    tasks.insert(1, r#"{"out_task_num":"M-bad","video":1}"#.to_owned());
    tasks.insert(2, "7".to_owned());
    let (reply, told) = add_many(&client, &array(&tasks), |_| false);
    agree(&reply, &told);
    let ends: Vec<_> = told.iter().map(|row| (row.index, row.code, row.outcome)).collect();
    let expected = [
        (0, OK, CREATED),
        (1, BAD_TASK, NOT_CREATED),
        (2, BAD_TASK, NOT_CREATED),
        (3, -20, NOT_CREATED),
        (4, BROKEN, UNKNOWN),
        (5, -26, CREATED),
        (6, -22, NOT_CREATED),
        (7, OK, CREATED),
    ];
    assert_eq!(ends, expected);
    assert_eq!(told[1].json()["out_task_num"], "M-bad");
    assert!(told[2].json().get("out_task_num").is_none());
    assert!(reply.json()["message"].as_str().expect("a text").contains("of 8 tasks 6"), "{reply:?}");
}

#[test]
fn what_is_wrong_with_the_whole_is_refused_before_anything_is_sent() {
    let server = Server::plain();
    let client = Owned::new(&config(&server.base_url()));
    let twice = array(&[task("A"), task("B"), task("A"), task("A")]);
    for (tasks, code, fields) in [
        ("{}", BAD_TASK, vec!["tasks"]),
        ("7", BAD_TASK, vec!["tasks"]),
        ("", BAD_TASK, vec!["tasks"]),
        ("[{}", BAD_TASK, vec!["tasks"]),
        (&*twice, BAD_TASK, vec!["2.out_task_num", "3.out_task_num"]),
    ] {
        let (reply, told) = add_many(&client, tasks, |_| panic!("no row"));
        assert_eq!((reply.code, told.len()), (code, 0), "{tasks}");
        assert_eq!(reply.problem_fields(), fields, "{tasks}");
    }
    for options in ["[]", r#"{"timeout":1}"#] {
        let reply = client.add_many(&array(&[task("A")]), options);
        assert_eq!(reply.code, BAD_ARGUMENT, "{reply:?}");
    }
    let (none, told) = add_many(&client, " [ ] ", |_| false);
    assert_eq!((none.code, none.text(), told.len()), (OK, r#"{"results":[]}"#, 0));
    assert_eq!(server.connections(), 0);
}

#[test]
fn nothing_is_collected_where_nothing_is_asked_for() {
    let server = Server::plain();
    server.always(Script::forever(Script::served()));
    let client = Owned::new(&with(config(&server.base_url()), json!({ "idle_timeout_ms": 60_000 })));
    let mut ear = Ear { told: Vec::new(), stops: Box::new(|_| false), thread: thread::current().id() };
    let tasks = c(&array(&numbered(20)));
    let function = arctos().task_add_many;
    let user = ptr::from_mut(&mut ear).cast();
    // SAFETY: the texts and the ear live as long as the calls.
    let code = unsafe { function(client.0, tasks.as_ptr(), ptr::null(), Some(hear), user, ptr::null_mut()) };
    assert_eq!((code, ear.told.len()), (OK, 20));
    // Nobody hears of a row, and of nothing else.
    // SAFETY: as above.
    let code = unsafe { function(client.0, tasks.as_ptr(), ptr::null(), None, ptr::null_mut(), ptr::null_mut()) };
    assert_eq!(code, OK);
    drop(client);
    server.settle(0).expect("the connections have ended");
    assert!(server.ledger().all().values().all(|made| *made == 2));
}

#[test]
fn who_stops_is_told_of_each_all_the_same() {
    let server = Server::plain();
    server.always(Script::served());
    let client = Owned::new(&with(config(&server.base_url()), json!({ "connections": 2 })));
    let (reply, told) = add_many(&client, &array(&numbered(40)), |row| row.done == 3);
    agree(&reply, &told);
    assert_eq!(told.len(), 40);
    let made: BTreeSet<i32> = told.iter().filter(|row| row.code == OK).map(|row| row.index).collect();
    // Those that were under way, or that had ended and waited to be heard, besides the three.
    assert!((3..=8).contains(&made.len()), "{}", made.len());
    for row in &told {
        let number = format!("M-{}", row.index);
        if made.contains(&row.index) {
            assert_eq!(server.ledger().made(&number), 1);
        } else {
            assert_eq!((row.code, row.outcome, server.ledger().made(&number)), (CANCELLED, NOT_CREATED, 0));
            assert_eq!(row.json()["error"]["attempts"], 0);
        }
    }
}

#[test]
fn a_cancel_ends_all_of_it() {
    for id in [None, Some("batch")] {
        let server = Server::plain();
        server.always(Script::request().then(Step::AwaitRelease));
        let client = Owned::new(&with(config(&server.base_url()), json!({ "connections": 3 })));
        let (tasks, options) = (array(&numbered(30)), id.map_or_else(|| json!({}), |id| json!({ "call_id": id })));
        thread::scope(|scope| {
            let many = scope.spawn(|| client.add_many(&tasks, &options.to_string()));
            server.await_requests(3).expect("three are sent");
            let began = Instant::now();
            match id {
                None => assert_eq!(client.cancel(), OK),
                Some(id) => assert_eq!(client.cancel_call(id), OK),
            }
            let reply = many.join().expect("no panic");
            assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
            assert_eq!(reply.code, PARTIAL);
            let document = reply.json();
            let results = document["results"].as_array().expect("results");
            let unknown = results.iter().filter(|row| row["outcome"] == "unknown").count();
            assert_eq!((unknown, results.len()), (3, 30), "{document}");
            assert!(results.iter().all(|row| row["code"] == CANCELLED), "{document}");
        });
        server.release();
        assert_eq!(server.connections(), 3);
    }
}

#[test]
fn a_failure_that_all_would_share_is_that_of_the_rest() {
    let forbidden = Server::plain();
    forbidden.always(Script::request().send(head("403 No", &["Content-Length: 0"])));
    let (authority, trusted) = (Authority::new(), Authority::new());
    let strange = Server::start("127.0.0.1", Some(authority.server(Identity::right(Version::Tls13))));
    strange.always(Script::request());
    for (config, code) in [
        (config(&forbidden.base_url()), FORBIDDEN),
        (config_tls(&strange.base_url(), &trusted), TLS),
        (config("http://127.0.0.1:1"), CONNECT),
    ] {
        let client = Owned::new(&with(config, json!({ "connections": 2 })));
        let (reply, told) = add_many(&client, &array(&numbered(50)), |_| false);
        agree(&reply, &told);
        assert_eq!(told.len(), 50);
        assert!(told.iter().all(|row| (row.code, row.outcome) == (code, NOT_CREATED)));
        let tried = told.iter().filter(|row| row.json()["error"]["attempts"] != 0).count();
        assert!((1..=2).contains(&tried), "{code}: {tried} were tried");
    }
    assert!((1..=2).contains(&forbidden.connections()));
}

#[test]
fn with_a_journal_each_is_made_at_most_once() {
    let server = Server::plain();
    let folder = TempDir::new().expect("a folder");
    let journal = json!({ "journal": { "file": folder.path().join("journal") }, "connections": 4 });
    let client = Owned::new(&with(config(&server.base_url()), journal));
    server.always(Script::served());
    let (first, _) = add_many(&client, &array(&numbered(12)), |_| false);
    assert_eq!(first.code, OK, "{first:?}");
    // Twice at once, in another order: all of it comes from the journal.
    let mut tasks = numbered(12);
    tasks.reverse();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| assert_eq!(add_many(&client, &array(&tasks), |_| false).0.code, OK));
        }
    });
    assert_eq!(server.settle(0).expect("the connections have ended").len(), 12);
    assert!(server.ledger().all().values().all(|made| *made == 1));
}

#[test]
fn what_is_not_tried_is_what_the_journal_knows_of_it() {
    let server = Server::plain();
    let folder = TempDir::new().expect("a folder");
    let keys = json!({ "journal": { "file": folder.path().join("journal") }, "connections": 1 });
    let client = Owned::new(&with(config(&server.base_url()), keys));
    for script in [Script::served(), Script::request().reset()] {
        server.next(script);
    }
    let first = client.add_many(&array(&numbered(2)), "{}");
    assert_eq!(first.code, PARTIAL, "{first:?}");
    let known = first.json()["results"][0]["answer"].clone();
    let tasks = array(&[task("NEW"), task("M-0"), task("M-1"), task("NEWER")]);
    let refused = Script::request().send(head("403 No", &["Content-Length: 0"]));
    for (first, rest) in [(FORBIDDEN, FORBIDDEN), (CANCELLED, CANCELLED)] {
        let (reply, told) = if first == FORBIDDEN {
            server.next(refused.clone());
            add_many(&client, &tasks, |_| false)
        } else {
            server.next(Script::request().then(Step::AwaitRelease));
            thread::scope(|scope| {
                let many = scope.spawn(|| add_many(&client, &tasks, |_| false));
                server.await_requests(4).expect("it is sent");
                assert_eq!(client.cancel(), OK);
                many.join().expect("no panic")
            })
        };
        agree(&reply, &told);
        let ends: Vec<_> = told.iter().map(|row| (row.code, row.outcome)).collect();
        let begun = if first == FORBIDDEN { NOT_CREATED } else { UNKNOWN };
        assert_eq!(ends, [(first, begun), (OK, CREATED), (UNRESOLVED, UNKNOWN), (rest, NOT_CREATED)]);
        assert_eq!(told[1].json()["answer"], known);
    }
    server.release();
    assert_eq!(server.settle(0).expect("the connections have ended").len(), 4);
}
