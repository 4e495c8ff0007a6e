//! With a journal an appointment is made at most once under its number, and what is known of each can be told.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use arctos_tests::api::{
    BAD_ARGUMENT, BAD_CONFIG, BAD_RESPONSE, BROKEN, CANCELLED, CONFLICT, CREATED, FAILED, FORBIDDEN, JOURNAL, NO_VALUE,
    NOT_CREATED, OK, Owned, REJECTED, Reply, TIMEOUT, UNKNOWN, UNRESOLVED, arctos, c, call, client_new, root, task,
};
use arctos_tests::http::{Framing, answer, failure_body, success};
use arctos_tests::journal::Book;
use arctos_tests::server::{PATIENCE, Script, Server, Step};
use arctos_tests::stage::config;
use rusqlite::{Connection, params};
use serde_json::{Value, json};

/// A server, and its journal.
struct Desk {
    server: Server,
    book: Book,
}

impl Desk {
    fn new() -> Desk {
        Desk { server: Server::plain(), book: Book::default() }
    }

    fn file(&self) -> PathBuf {
        self.book.file()
    }

    fn config(&self, keys: Value) -> Value {
        self.book.config(&self.server, keys)
    }

    fn client(&self) -> Owned {
        Owned::new(&self.config(json!({})))
    }

    /// One that says of its server that a repeat is answered with the first success.
    fn trusting(&self) -> Owned {
        Owned::new(&self.config(json!({ "server_dedupes": true })))
    }

    /// Has a call for this number end with this outcome in the journal, and nothing known of it where it is unknown.
    fn leave(&self, client: &Owned, number: &str, outcome: i32) {
        let (script, code) = match outcome {
            CREATED => (Script::served(), OK),
            UNKNOWN => (Script::request().reset(), BROKEN),
            _ => (Script::request().send(answer("200 OK", Framing::Length, failure_body("no").as_bytes())), FAILED),
        };
        self.server.next(script);
        let reply = client.add(&task(number));
        assert_eq!((reply.code, reply.outcome), (code, outcome), "{reply:?}");
    }

    /// How many requests have come, over all connections.
    fn requests(&self) -> usize {
        let seen = self.server.settle(0).expect("the connections have ended");
        seen.iter().map(|seen| seen.requests().count()).sum()
    }

    fn sql(&self) -> Connection {
        Connection::open(self.file()).expect("an SQLite file")
    }
}

fn other_task(number: &str) -> String {
    task(number).replace("\"branch_code\":943", "\"branch_code\":944")
}

#[track_caller]
fn list(client: &Owned, filter: Value) -> Value {
    let reply = client.journal_list(&filter.to_string());
    assert_eq!(reply.code, OK, "{reply:?}");
    reply.json()
}

#[track_caller]
fn rows(client: &Owned, filter: Value) -> Vec<Value> {
    list(client, filter)["rows"].as_array().expect("rows").clone()
}

#[track_caller]
fn only(client: &Owned) -> Value {
    let rows = rows(client, json!({}));
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    row.clone()
}

fn numbers(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["out_task_num"].as_str().expect("a number")).collect()
}

fn resolve(client: &Owned, number: &str, resolution: Value) -> Reply {
    client.journal_resolve(number, &resolution.to_string())
}

/// The code and the outcome.
fn end(reply: &Reply) -> (i32, i32) {
    (reply.code, reply.outcome)
}

#[test]
fn what_was_made_is_handed_over_again_and_not_sent() {
    let desk = Desk::new();
    desk.server.next(Script::served());
    let client = desk.client();
    let first = client.add(&task("BR-1"));
    assert_eq!(first.code, OK, "{first:?}");
    // The same body in other words, by the same client and by another one.
    let same = format!(" {{ \"video\":true,{}", task("BR-1").replace(",\"video\":true", "").replacen('{', "\n", 1));
    for (client, task) in [(&client, task("BR-1")), (&desk.client(), same)] {
        let again = client.add(&task);
        assert_eq!((again.code, &again.text), (OK, &first.text), "{task}");
    }
    let conflict = client.add(&other_task("BR-1"));
    assert_eq!(end(&conflict), (CONFLICT, CREATED), "{conflict:?}");
    assert_eq!((&conflict.json()["recorded_answer"], &conflict.json()["attempts"]), (&first.json(), &json!(0)));
    assert_eq!(desk.requests(), 1);
    let row = only(&client);
    assert_eq!((&row["outcome"], &row["answer"], &row["code"]), (&json!("created"), &first.json(), &json!(0)));
    assert_eq!((&row["out_task_num"], &row["server"]), (&json!("BR-1"), &json!(desk.server.base_url())));
    assert!(row["started"].as_str() <= row["ended"].as_str(), "{row}");
}

#[test]
fn what_was_not_made_is_sent_again() {
    let desk = Desk::new();
    let client = desk.client();
    desk.leave(&client, "BR-1", NOT_CREATED);
    assert_eq!((&only(&client)["outcome"], &only(&client)["code"]), (&json!("not_created"), &json!(FAILED)));
    // Another body is no conflict then.
    desk.server.next(Script::served());
    assert_eq!(client.add(&other_task("BR-1")).code, OK);
    assert_eq!(end(&client.add(&task("BR-1"))), (CONFLICT, CREATED));
    assert_eq!(only(&client)["outcome"], "created");
    // Nothing went out: there was nobody.
    desk.server.down();
    assert_eq!(client.add(&task("BR-2")).outcome, NOT_CREATED);
    assert_eq!(rows(&client, json!({ "outcome": "not_created" })).len(), 1);
}

#[test]
fn what_may_have_been_made_is_not_sent_again() {
    let desk = Desk::new();
    let client = desk.client();
    desk.leave(&client, "BR-1", UNKNOWN);
    let again = client.add(&task("BR-1"));
    assert_eq!(end(&again), (UNRESOLVED, UNKNOWN), "{again:?}");
    assert_eq!(again.json()["attempts"], 0);
    let conflict = client.add(&other_task("BR-1"));
    assert_eq!(end(&conflict), (CONFLICT, UNKNOWN));
    assert!(conflict.json().get("recorded_answer").is_none());
    assert_eq!(only(&client)["outcome"], "unknown");
    assert_eq!(desk.requests(), 1);
}

#[test]
fn what_may_have_been_made_is_sent_again_where_a_repeat_does_no_harm() {
    let desk = Desk::new();
    let client = desk.trusting();
    desk.leave(&client, "BR-1", UNKNOWN);
    let started = only(&client)["started"].clone();
    // A later refusal says nothing of the first try.
    desk.server.next(Script::request().send(answer("400 Bad Request", Framing::Length, b"{}")));
    let refused = client.add(&task("BR-1"));
    assert_eq!(end(&refused), (REJECTED, UNKNOWN), "{refused:?}");
    assert_eq!((&only(&client)["outcome"], &only(&client)["started"]), (&json!("unknown"), &started));
    // Nor does a call that reaches nobody, or one that may not be sent.
    desk.server.down();
    assert_eq!(client.add(&task("BR-1")).outcome, UNKNOWN);
    desk.server.up();
    assert_eq!(end(&client.add(&other_task("BR-1"))), (CONFLICT, UNKNOWN));
    assert_eq!(end(&desk.client().add(&task("BR-1"))), (UNRESOLVED, UNKNOWN));
    // Only a success ends it.
    desk.server.next(Script::served());
    assert_eq!(end(&client.add(&task("BR-1"))), (OK, CREATED));
    assert_eq!(only(&client)["outcome"], "created");
    assert_eq!(desk.client().add(&task("BR-1")).code, OK);
}

#[test]
fn what_was_made_without_a_number_stays_so_until_a_person_gives_it() {
    let desk = Desk::new();
    let client = desk.client();
    desk.server.next(Script::made().send(answer("200 OK", Framing::Length, br#"{"status":1}"#)));
    for _ in 0..2 {
        assert_eq!(end(&client.add(&task("BR-1"))), (BAD_RESPONSE, CREATED));
    }
    let row = only(&client);
    assert_eq!((&row["outcome"], &row["code"]), (&json!("created"), &json!(BAD_RESPONSE)));
    assert!(row.get("answer").is_none());
    assert_eq!(resolve(&client, "BR-1", json!({ "outcome": "not_created", "by": "lin" })).code, BAD_ARGUMENT);
    assert_eq!(resolve(&client, "BR-1", json!({ "outcome": "created", "task_num": "7", "by": "lin" })).code, OK);
    assert_eq!(client.add(&task("BR-1")).json()["info"]["task_num"], "7");
    assert_eq!(desk.requests(), 1);
}

#[test]
fn a_person_says_what_became_of_it() {
    let desk = Desk::new();
    let client = desk.client();
    for number in ["BR-1", "BR-2"] {
        desk.leave(&client, number, UNKNOWN);
    }
    let found = json!({ "outcome": "created", "task_num": "2026\"1", "by": "m.lin", "note": "seen at\nthe desk" });
    let reply = resolve(&client, "BR-1", found);
    assert_eq!(reply.code, OK, "{reply:?}");
    let row = reply.json();
    assert_eq!(row, rows(&client, json!({}))[0]);
    assert_eq!(
        (&row["outcome"], &row["by"], &row["note"]),
        (&json!("created"), &json!("m.lin"), &json!("seen at\nthe desk"))
    );
    assert!(row["resolved"].as_str() >= row["ended"].as_str(), "{row}");
    assert_eq!(
        client.add(&task("BR-1")).text(),
        r#"{"status":1,"message":"resolved","info":{"task_num":"2026\"1"},"resolved":true}"#
    );
    assert_eq!(end(&client.add(&other_task("BR-1"))), (CONFLICT, CREATED));

    assert_eq!(resolve(&client, "BR-2", json!({ "outcome": "not_created", "by": "m.lin" })).code, OK);
    desk.server.next(Script::served());
    assert_eq!(client.add(&task("BR-2")).code, OK);
    let row = &rows(&client, json!({}))[1];
    assert!(row["outcome"] == "created" && row.get("by").is_none(), "who sends again starts anew: {row}");
    assert_eq!(desk.requests(), 3);
}

#[test]
fn what_a_person_says_does_not_contradict_what_is_known() {
    let desk = Desk::new();
    let client = desk.client();
    for (number, outcome) in [("MADE", CREATED), ("NOT", NOT_CREATED), ("OPEN", UNKNOWN)] {
        desk.leave(&client, number, outcome);
    }
    let before = rows(&client, json!({}));
    let created = |number: &str| json!({ "outcome": "created", "task_num": number, "by": "a" });
    let not = || json!({ "outcome": "not_created", "by": "a" });
    for (number, resolution, code) in [
        ("NONE", not(), NO_VALUE),
        ("MADE", not(), BAD_ARGUMENT),
        ("MADE", created("another"), BAD_ARGUMENT),
        ("NOT", created("1"), BAD_ARGUMENT),
        ("OPEN", json!({}), BAD_ARGUMENT),
        ("OPEN", json!([]), BAD_ARGUMENT),
        ("OPEN", json!({ "outcome": "unknown", "by": "a" }), BAD_ARGUMENT),
        ("OPEN", json!({ "outcome": "created", "by": "a" }), BAD_ARGUMENT),
        ("OPEN", json!({ "outcome": "not_created" }), BAD_ARGUMENT),
        ("OPEN", json!({ "outcome": "not_created", "task_num": "1", "by": "a" }), BAD_ARGUMENT),
        ("OPEN", json!({ "outcome": "not_created", "by": "" }), BAD_ARGUMENT),
        ("OPEN", json!({ "outcome": "not_created", "by": "a\nb" }), BAD_ARGUMENT),
        ("OPEN", json!({ "outcome": "not_created", "by": "a".repeat(129) }), BAD_ARGUMENT),
        ("OPEN", json!({ "outcome": "not_created", "by": "a", "note": "n".repeat(4097) }), BAD_ARGUMENT),
        ("OPEN", json!({ "outcome": "not_created", "by": "a", "note": "\u{7}" }), BAD_ARGUMENT),
        ("OPEN", json!({ "outcome": "not_created", "by": "a", "notes": "n" }), BAD_ARGUMENT),
        ("OPEN", created(" "), BAD_ARGUMENT),
        ("OPEN", created("1\n"), BAD_ARGUMENT),
        ("OPEN", created(&"1".repeat(257)), BAD_ARGUMENT),
        ("OPEN", json!({ "outcome": "created", "task_num": 7, "by": "a" }), BAD_ARGUMENT),
    ] {
        let reply = resolve(&client, number, resolution.clone());
        assert_eq!(reply.code, code, "{number} {resolution} {reply:?}");
        assert!(reply.json().get("outcome").is_none(), "{reply:?}");
    }
    assert_eq!(rows(&client, json!({})), before, "nothing has changed");
    // The same once more is none; who said it last stands there.
    assert_eq!(resolve(&client, "MADE", created("T-MADE")).code, OK);
    assert_eq!(
        resolve(&client, "NOT", json!({ "outcome": "not_created", "by": "b", "note": "n".repeat(4096) })).code,
        OK
    );
    let after = rows(&client, json!({}));
    assert_eq!((&after[0]["answer"], &after[0]["by"]), (&before[0]["answer"], &json!("a")));
    assert_eq!((&after[1]["outcome"], &after[1]["by"]), (&json!("not_created"), &json!("b")));
    let longest = json!({ "outcome": "created", "task_num": "1".repeat(256), "by": "a".repeat(128) });
    assert_eq!(resolve(&client, "OPEN", longest).code, OK);
}

#[test]
fn a_list_comes_in_pages_oldest_first() {
    let desk = Desk::new();
    let client = desk.client();
    for index in 0..7 {
        desk.leave(&client, &format!("BR-{index}"), if index % 2 == 0 { CREATED } else { UNKNOWN });
    }
    let all = rows(&client, json!({}));
    assert_eq!(numbers(&all), ["BR-0", "BR-1", "BR-2", "BR-3", "BR-4", "BR-5", "BR-6"]);
    assert!(list(&client, json!({})).get("next").is_none());
    assert!(list(&client, json!({ "limit": 7 })).get("next").is_none(), "there is no other page");

    let mut filter = json!({ "outcome": "created", "limit": 3 });
    let first = list(&client, filter.clone());
    assert_eq!(numbers(first["rows"].as_array().expect("rows")), ["BR-0", "BR-2", "BR-4"]);
    filter["after"] = first["next"].clone();
    let second = list(&client, filter);
    assert_eq!(numbers(second["rows"].as_array().expect("rows")), ["BR-6"]);
    assert!(second.get("next").is_none());

    let time = |index: usize| all[index]["started"].as_str().expect("a time").to_owned();
    let between = |since: &str, until: &str| {
        let rows = rows(&client, json!({ "since": since, "until": until }));
        numbers(&rows).iter().map(|number| (*number).to_owned()).collect::<Vec<_>>()
    };
    let expected = |since: &str, until: &str| -> Vec<String> {
        let within = all.iter().filter(|row| {
            let started = row["started"].as_str().expect("a time");
            since <= started && started < until
        });
        within.map(|row| row["out_task_num"].as_str().expect("a number").to_owned()).collect()
    };
    for (since, until) in [(time(2), time(5)), (time(6), "9999-12-31T23:59:59Z".to_owned()), (time(0), time(0))] {
        assert_eq!(between(&since, &until), expected(&since, &until), "{since} {until}");
    }
    assert_eq!(between("2000-01-01T00:00:00+08:00", "2001-01-01T00:00:00+08:00"), [""; 0]);
}

#[test]
fn pages_hold_what_is_asked_for_however_much_there_is() {
    let desk = Desk::new();
    let client = desk.client();
    desk.leave(&client, "BR-0", UNKNOWN);
    // Of 5,000 others, one in 100 is unknown, and half are another server's.
    desk.sql()
        .execute_batch(
            "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 5000)
            INSERT INTO appointment (server, out_task_num, digest, state, started)
            SELECT iif(x % 2 = 0, server, 'another'), 'N-' || x, digest, iif(x % 100 = 0, 2, 0), started + x FROM appointment, n",
        )
        .expect("rows");
    let mut filter = json!({ "outcome": "unknown", "limit": 7 });
    let (mut found, mut pages) = (Vec::new(), 0);
    loop {
        let page = list(&client, filter.clone());
        found.extend(numbers(page["rows"].as_array().expect("rows")).into_iter().map(str::to_owned));
        pages += 1;
        match page.get("next") {
            Some(next) => filter["after"] = next.clone(),
            None => break,
        }
    }
    let expected: Vec<String> =
        std::iter::once("BR-0".to_owned()).chain((1..=50).map(|x| format!("N-{}", x * 100))).collect();
    assert_eq!((found, pages), (expected, 8));
    assert_eq!(rows(&client, json!({ "limit": 1000 })).len(), 1000);
}

#[test]
fn large_answers_make_short_pages() {
    let desk = Desk::new();
    let client = desk.client();
    desk.leave(&client, "BR-0", CREATED);
    let answer = json!({ "status": 1, "info": { "task_num": "7" }, "more": "x".repeat(1 << 20) }).to_string();
    let sql = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 20)
        INSERT INTO appointment (server, out_task_num, digest, state, started, answer)
        SELECT server, 'N-' || x, digest, 1, started, ?1 FROM appointment, n";
    desk.sql().execute(sql, params![answer]).expect("rows");
    let (mut found, mut filter) = (0, json!({}));
    loop {
        let page = list(&client, filter.clone());
        let count = page["rows"].as_array().expect("rows").len();
        assert!((1..=12).contains(&count), "{count}");
        found += count;
        match page.get("next") {
            Some(next) => filter["after"] = next.clone(),
            None => break,
        }
    }
    assert_eq!(found, 21);
}

#[test]
fn a_filter_that_is_none_is_refused() {
    let desk = Desk::new();
    let client = desk.client();
    for (filter, fields) in [
        (r#"{"outcome":"made"}"#, vec!["outcome"]),
        (r#"{"outcome":1,"limit":0}"#, vec!["outcome", "limit"]),
        (r#"{"limit":1001}"#, vec!["limit"]),
        (r#"{"since":"2026-11-24"}"#, vec!["since"]),
        (r#"{"since":"2026-11-24T08:00:00","until":5}"#, vec!["since", "until"]),
        (r#"{"after":"x"}"#, vec!["after"]),
        (r#"{"after":"-1"}"#, vec!["after"]),
        (r#"{"after":7}"#, vec!["after"]),
        (r#"{"outcomes":"created"}"#, vec!["outcomes"]),
        (r#"{"limit":1,"limit":1}"#, vec!["limit"]),
        ("[]", vec!["filter"]),
        ("", vec!["filter"]),
    ] {
        let reply = client.journal_list(filter);
        assert_eq!(reply.code, BAD_ARGUMENT, "{filter}");
        assert_eq!(reply.problem_fields(), fields, "{filter}");
    }
    let all = call(|answer| unsafe { (arctos().journal_list)(client.0, std::ptr::null(), answer) });
    assert_eq!((all.code, all.text()), (OK, r#"{"rows":[]}"#));
}

#[test]
fn a_client_without_a_journal_has_none() {
    let desk = Desk::new();
    let client = Owned::new(&config(&desk.server.base_url()));
    assert_eq!(client.journal_list("{}").code, BAD_ARGUMENT);
    assert_eq!(resolve(&client, "BR-1", json!({ "outcome": "not_created", "by": "a" })).code, BAD_ARGUMENT);
    desk.server.next(Script::served());
    desk.server.next(Script::served());
    for _ in 0..2 {
        assert_eq!(client.add(&task("BR-1")).code, OK, "nothing remembers it");
    }
}

#[test]
fn rows_belong_to_a_server() {
    let desk = Desk::new();
    let client = desk.client();
    desk.leave(&client, "BR-1", CREATED);
    let named = |id: &str| Owned::new(&desk.config(json!({ "journal": { "file": desk.file(), "server_id": id } })));
    let other = named("failover");
    assert_eq!(rows(&other, json!({})).len(), 0);
    desk.leave(&other, "BR-1", UNKNOWN);
    // Another host under the same id shares what is known.
    let host = Server::plain();
    let keys = json!({ "base_url": host.base_url(), "journal": { "file": desk.file(), "server_id": "failover" } });
    let shared = Owned::new(&desk.config(keys));
    assert_eq!(end(&shared.add(&task("BR-1"))), (UNRESOLVED, UNKNOWN));
    assert_eq!(only(&shared)["server"], "failover");
    assert_eq!(only(&client)["outcome"], "created");
    assert_eq!(named(&desk.server.base_url()).add(&task("BR-1")).code, OK, "the default is the base URL");
}

#[test]
fn other_calls_wait_for_the_one_that_sends() {
    let desk = Desk::new();
    let client = desk.client();
    desk.server.next(Script::made().then(Step::AwaitRelease).then(Step::Answer(success)));
    thread::scope(|scope| {
        let first = scope.spawn(|| client.add(&task("BR-1")));
        desk.server.await_requests(1).expect("it is sent");
        assert_eq!(only(&client)["outcome"], "sending");
        // Another body is told at once.
        assert_eq!(end(&client.add(&other_task("BR-1"))), (CONFLICT, UNKNOWN));
        assert_eq!(resolve(&client, "BR-1", json!({ "outcome": "not_created", "by": "a" })).code, BAD_ARGUMENT);
        // One whose time is over, and one that is cancelled, know nothing.
        let late = client.add_with(&task("BR-1"), r#"{"timeout_ms":200}"#);
        assert_eq!(end(&late), (TIMEOUT, UNKNOWN), "{late:?}");
        assert_eq!(late.json()["attempts"], 0);
        let cancelled = scope.spawn(|| client.add_with(&task("BR-1"), r#"{"call_id":"me"}"#));
        let began = Instant::now();
        while !cancelled.is_finished() {
            assert!(began.elapsed() < PATIENCE);
            client.cancel_call("me");
            thread::yield_now();
        }
        assert_eq!(end(&cancelled.join().expect("no panic")), (CANCELLED, UNKNOWN));
        let others: Vec<_> = (0..6).map(|_| scope.spawn(|| desk.client().add(&task("BR-1")))).collect();
        assert!(!others.iter().any(|other| other.is_finished()) && !first.is_finished());
        desk.server.release();
        let first = first.join().expect("no panic");
        assert_eq!(first.code, OK);
        for other in others {
            assert_eq!(other.join().expect("no panic").text, first.text);
        }
    });
    assert_eq!(desk.requests(), 1);
}

#[test]
fn who_waited_for_a_call_that_made_nothing_sends() {
    let desk = Desk::new();
    let client = desk.client();
    let refused = answer("403 Forbidden", Framing::Length, b"{}");
    desk.server.next(Script::request().then(Step::AwaitRelease).send(refused));
    desk.server.next(Script::served());
    thread::scope(|scope| {
        let first = scope.spawn(|| client.add(&task("BR-1")));
        desk.server.await_requests(1).expect("it is sent");
        let second = scope.spawn(|| client.add(&task("BR-1")));
        desk.server.release();
        assert_eq!(end(&first.join().expect("no panic")), (FORBIDDEN, NOT_CREATED));
        let second = second.join().expect("no panic");
        assert_eq!(end(&second), (OK, CREATED), "{second:?}");
    });
    assert_eq!(only(&client)["outcome"], "created");
}

#[test]
fn bodies_that_are_large_or_deep_are_compared_too() {
    let desk = Desk::new();
    let client = desk.client();
    let with_extra = |number: &str, extra: &str| task(number).replacen('{', &format!("{{\"extra\":{extra},"), 1);
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let long = format!("\"{}\"", "許\\n".repeat(200_000));
    for (number, one, other) in [("DEEP", deep(100), deep(101)), ("LONG", long.clone(), format!("[{long}]"))] {
        desk.server.next(Script::served());
        assert_eq!(client.add(&with_extra(number, &one)).code, OK);
        assert_eq!(client.add(&with_extra(number, &one)).code, OK);
        assert_eq!(end(&client.add(&with_extra(number, &other))), (CONFLICT, CREATED));
    }
    assert_eq!(desk.requests(), 2);
}

#[test]
fn any_number_that_a_task_can_have_is_kept_apart() {
    let desk = Desk::new();
    let client = desk.client();
    // The server's own reader of numbers is not asked.
    let spelled = [r"A", r"a", r"A\u0000", r"A\u0000B", r"\u00e9", r"e\u0301", r"'; DROP TABLE appointment; --"];
    for number in spelled {
        desk.server.next(Script::request().send(success("1")));
        assert_eq!(client.add(&task(number)).code, OK, "{number}");
        assert_eq!(client.add(&task(number)).code, OK, "{number}");
    }
    assert_eq!(desk.requests(), spelled.len());
    assert_eq!(rows(&client, json!({})).len(), spelled.len());
}

#[test]
fn the_configuration_in_force_names_the_journal() {
    let desk = Desk::new();
    let (client, reply) = client_new(&desk.config(json!({})).to_string());
    let expected = json!({ "file": desk.file(), "server_id": desk.server.base_url(), "keep_days": 400 });
    assert_eq!(reply.json()["journal"], expected);
    assert!(client.is_some());
    let mode = |file: PathBuf| fs::metadata(file).expect("a file").permissions().mode() & 0o777;
    for beside in ["", "-wal", "-shm", "-alive"] {
        assert_eq!(mode(desk.book.folder().join(format!("journal{beside}"))), 0o600, "{beside}");
    }
}

#[test]
fn whoever_may_use_the_file_may_use_what_stands_beside_it() {
    let desk = Desk::new();
    fs::write(desk.file(), b"").expect("an empty file");
    fs::set_permissions(desk.file(), fs::Permissions::from_mode(0o660)).expect("its mode");
    let client = desk.client();
    desk.leave(&client, "BR-1", CREATED);
    for beside in ["", "-wal", "-shm", "-alive"] {
        let about = fs::metadata(desk.book.folder().join(format!("journal{beside}"))).expect("a file");
        assert_eq!(about.permissions().mode() & 0o777, 0o660, "{beside}");
    }
}

#[test]
fn a_file_that_knows_less_than_it_did_is_refused() {
    for what in ["an older copy", "no log", "no file"] {
        let desk = Desk::new();
        let in_folder = |name: &str| desk.book.folder().join(name);
        desk.leave(&desk.client(), "BR-1", CREATED);
        let _: i64 = desk.sql().query_row("PRAGMA wal_checkpoint", [], |row| row.get(0)).expect("a checkpoint");
        fs::copy(desk.file(), in_folder("copy")).expect("a copy");
        desk.leave(&desk.client(), "BR-2", CREATED);
        match what {
            "an older copy" => {
                fs::copy(in_folder("copy"), desk.file()).expect("the copy comes back");
                fs::write(in_folder("journal-wal"), b"").expect("its log is empty");
            }
            "no log" => fs::remove_file(in_folder("journal-wal")).expect("a log"),
            _ => fs::remove_file(desk.file()).expect("a file"),
        }
        let problem = refused(desk.config(json!({})));
        assert!(problem.contains("older copy, or has lost its log"), "{what}: {problem}");
        // Where it is meant so.
        fs::remove_file(in_folder("journal-alive")).expect("a file");
        let client = desk.client();
        let known = if what == "no file" { vec![] } else { vec!["BR-1"] };
        assert_eq!(numbers(&rows(&client, json!({}))), known, "{what}");
        desk.leave(&client, "BR-3", CREATED);
    }
}

/// The problem of a client with this journal, which must be refused for its file alone.
#[track_caller]
fn refused(config: Value) -> String {
    let (_, reply) = client_new(&config.to_string());
    assert_eq!(reply.code, BAD_CONFIG, "{reply:?}");
    assert_eq!(reply.problem_fields(), ["journal.file"], "{reply:?}");
    reply.json()["problems"][0]["problem"].as_str().expect("a problem").to_owned()
}

#[test]
fn a_file_that_is_no_journal_stays_as_it_is() {
    let desk = Desk::new();
    let client = desk.client();
    drop(client);
    let journal = fs::read(desk.file()).expect("a journal");
    let changed = |at: usize, bytes: &[u8]| {
        let mut changed = journal.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let foreign = desk.book.folder().join("foreign");
    Connection::open(&foreign).expect("a file").execute_batch("CREATE TABLE t (x)").expect("a table");
    for (what, bytes, why) in [
        ("text", b"not a journal".to_vec(), "is no journal"),
        ("zeroes", vec![0; 8192], "is no journal"),
        ("cut header", journal[..64].to_vec(), "is no journal"),
        ("of another program", fs::read(&foreign).expect("a file"), "another program"),
        ("of another application id", changed(68, b"GPKG"), "another program"),
        ("newer", changed(60, &[0, 0, 0, 2]), "newer version"),
        ("damaged", changed(100, &[0xff; 200]), "is damaged"),
    ] {
        let file = desk.book.folder().join("file");
        fs::write(&file, &bytes).expect("it is written");
        let problem = refused(desk.config(json!({ "journal": { "file": file } })));
        assert!(problem.contains(why), "{what}: {problem}");
        assert!(fs::read(&file).expect("it is there") == bytes, "{what}: the file was changed");
        for beside in ["-wal", "-journal"] {
            let beside = desk.book.folder().join(format!("file{beside}"));
            assert!(!beside.exists() || fs::read(beside).expect("a file").is_empty(), "{what}");
        }
    }
}

#[test]
fn a_path_that_can_be_no_journal_is_refused() {
    let desk = Desk::new();
    let in_folder = |name: &str| desk.book.folder().join(name);
    drop(desk.client());
    fs::hard_link(desk.file(), in_folder("second name")).expect("a link");
    symlink(in_folder("nothing"), in_folder("dangling")).expect("a link");
    for (file, why) in [
        (in_folder("second name"), "several names"),
        (in_folder("dangling"), "symbolic link"),
        (desk.book.folder().to_owned(), "is no file"),
        (in_folder("no folder/journal"), "its folder"),
        (PathBuf::from("/proc/arctos-journal"), "cannot be used"),
        (PathBuf::from("/dev/null"), "is no file"),
    ] {
        let problem = refused(desk.config(json!({ "journal": { "file": file } })));
        assert!(problem.contains(why), "{}: {problem}", file.display());
    }
    fs::remove_file(in_folder("second name")).expect("a link");
    // A symbolic link leads to the one file.
    symlink(desk.file(), in_folder("link")).expect("a link");
    desk.leave(&Owned::new(&desk.config(json!({ "journal": { "file": in_folder("link") } }))), "BR-1", CREATED);
    assert_eq!(desk.client().add(&task("BR-1")).code, OK);
    assert_eq!(desk.requests(), 1);
}

#[test]
fn keys_of_the_journal_are_checked() {
    let desk = Desk::new();
    for (journal, fields) in [
        (json!({}), vec!["journal.file"]),
        (json!("file"), vec!["journal"]),
        (json!({ "file": 1, "keep_days": 0 }), vec!["journal.file", "journal.keep_days"]),
        (json!({ "file": "" }), vec!["journal.file"]),
        (json!({ "file": "a\0b" }), vec!["journal.file"]),
        (json!({ "file": desk.file(), "server_id": "" }), vec!["journal.server_id"]),
        (json!({ "file": desk.file(), "server_id": "a\tb" }), vec!["journal.server_id"]),
        (json!({ "file": desk.file(), "server_id": "x".repeat(257) }), vec!["journal.server_id"]),
        (json!({ "file": desk.file(), "keep_days": 36_526 }), vec!["journal.keep_days"]),
        (json!({ "file": desk.file(), "keepdays": 1 }), vec!["journal.keepdays"]),
    ] {
        let (_, reply) = client_new(&desk.config(json!({ "journal": journal })).to_string());
        assert_eq!(
            (reply.code, reply.problem_fields()),
            (BAD_CONFIG, fields.iter().map(|f| (*f).to_owned()).collect())
        );
    }
    assert!(!desk.file().exists(), "nothing is made for a configuration that is refused");
}

#[test]
fn what_is_certain_is_forgotten_in_time_and_nothing_else() {
    let desk = Desk::new();
    let client = Owned::new(&desk.config(json!({ "journal": { "file": desk.file(), "keep_days": 10 } })));
    for (number, outcome) in [("MADE", CREATED), ("NOT", NOT_CREATED), ("OPEN", UNKNOWN), ("FOUND", UNKNOWN)] {
        desk.leave(&client, number, outcome);
    }
    let elsewhere = Owned::new(&desk.config(json!({ "journal": { "file": desk.file(), "server_id": "elsewhere" } })));
    desk.leave(&elsewhere, "MADE", CREATED);
    assert_eq!(resolve(&client, "FOUND", json!({ "outcome": "not_created", "by": "a" })).code, OK);
    let age = |days: i64| {
        let sql = "UPDATE appointment SET started = started - ?1, ended = ended - ?1, resolved = resolved - ?1";
        desk.sql().execute(sql, params![days * 24 * 60 * 60 * 1000]).expect("rows");
    };
    age(9);
    desk.leave(&client, "A", CREATED);
    assert_eq!(numbers(&rows(&client, json!({}))), ["MADE", "NOT", "OPEN", "FOUND", "A"]);
    age(2);
    // Who makes nothing, because the clock is wrong, may forget nothing.
    desk.leave(&client, "B", NOT_CREATED);
    desk.leave(&client, "OTHER", UNKNOWN);
    assert_eq!(client.add(&task("MADE")).code, OK);
    assert_eq!(numbers(&rows(&client, json!({}))), ["MADE", "NOT", "OPEN", "FOUND", "A", "B", "OTHER"]);
    desk.leave(&client, "C", CREATED);
    assert_eq!(numbers(&rows(&client, json!({}))), ["OPEN", "A", "B", "OTHER", "C"]);
    assert_eq!(rows(&elsewhere, json!({})).len(), 1, "another server's rows have another time");
    age(36_000);
    desk.leave(&client, "D", CREATED);
    assert_eq!(numbers(&rows(&client, json!({}))), ["OPEN", "OTHER", "D"], "what is open is never forgotten");
    assert_eq!(end(&client.add(&task("OPEN"))), (UNRESOLVED, UNKNOWN));
}

#[test]
fn nothing_of_a_body_stands_in_the_file() {
    let desk = Desk::new();
    let client = desk.client();
    desk.server.next(Script::request().send(answer("200 OK", Framing::Length, br#"{"status":0,"message":"no"}"#)));
    let secret = "a remark that nobody may read";
    let body = task("BR-1").replacen('{', &format!("{{\"task_remark\":\"{secret}\","), 1);
    assert_eq!(client.add(&body).code, FAILED);
    let files = fs::read_dir(desk.book.folder()).expect("a folder");
    let mut count = 0;
    for file in files {
        let bytes = fs::read(file.expect("a file").path()).expect("bytes");
        for word in [secret, "1703141398", "token-of-the-tests"] {
            assert!(!bytes.windows(word.len()).any(|window| window == word.as_bytes()), "{word}");
        }
        count += 1;
    }
    assert_eq!(count, 4);
    // The same body, the same number, another file: another digest.
    let digest = |file: PathBuf| -> Vec<u8> {
        Connection::open(file)
            .and_then(|file| file.query_row("SELECT digest FROM appointment", [], |row| row.get(0)))
            .expect("a digest")
    };
    let other = Desk::new();
    other.server.next(Script::request().send(answer("200 OK", Framing::Length, br#"{"status":0}"#)));
    assert_eq!(other.client().add(&body).code, FAILED);
    assert_ne!(digest(desk.file()), digest(other.file()));
}

#[test]
fn a_conflict_repeats_nothing_of_the_other_task() {
    let desk = Desk::new();
    let (remark, other, token) = ("the remark of one customer", "and of another one", "a-token-of-yesterday");
    let said = |text: &str| task("BR-1").replacen('{', &format!("{{\"task_remark\":\"{text}\","), 1);
    let words = json!({ "status": 1, "info": { "task_num": "7", "for": remark }, "by": [token] }).to_string();
    desk.server.next(Script::made().send(answer("200 OK", Framing::Length, words.as_bytes())));
    let yesterday = Owned::new(&desk.config(json!({ "token": token })));
    assert_eq!(yesterday.add(&said(remark)).text(), words);
    let conflict = desk.client().add(&said(other));
    assert_eq!(end(&conflict), (CONFLICT, CREATED));
    let masked = json!({ "status": 1, "info": { "task_num": "7", "for": "***" }, "by": ["***"] });
    assert_eq!(conflict.json()["recorded_answer"], masked);
    for secret in [remark, other, token] {
        assert!(!conflict.text().contains(secret), "{conflict:?}");
    }
    // To the same task the answer is what it was.
    assert_eq!(desk.client().add(&said(remark)).text(), words);
}

#[test]
fn a_journal_that_goes_away_stops_every_call() {
    let names = ["journal", "journal-wal", "journal-shm", "journal-alive"];
    for (what, name) in ["removed", "replaced"].into_iter().flat_map(|what| names.map(|name| (what, name))) {
        let desk = Desk::new();
        let client = desk.client();
        desk.leave(&client, "BR-1", CREATED);
        let file = desk.book.folder().join(name);
        fs::remove_file(&file).expect("a file");
        if what == "replaced" {
            fs::write(file, b"").expect("a file");
        }
        let reply = client.add(&task("BR-2"));
        assert_eq!(end(&reply), (JOURNAL, UNKNOWN), "{what} {name}: nobody can tell what stood in it: {reply:?}");
        // Without the signs of life, the call has none of its own.
        let why =
            if (what, name) == ("removed", "journal-alive") { "its signs of life" } else { "removed or replaced" };
        assert!(reply.json()["message"].as_str().expect("a text").contains(why), "{reply:?}");
        // And it stays so: what is there now knows less.
        assert_eq!(client.journal_list("{}").code, JOURNAL);
        assert_eq!(client.add(&task("BR-2")).code, JOURNAL);
        assert_eq!(desk.requests(), 1);
    }
}

#[test]
fn a_call_that_never_begins_leaves_no_row() {
    let desk = Desk::new();
    let client = desk.client();
    let bad = client.add(r#"{"out_task_num":"BR-1"}"#);
    assert_eq!(bad.outcome, NOT_CREATED);
    let number = c("BR-1");
    let reply =
        call(|answer| unsafe { (arctos().journal_resolve)(client.0, number.as_ptr(), std::ptr::null(), answer) });
    assert_eq!(reply.code, BAD_ARGUMENT);
    assert_eq!(rows(&client, json!({})).len(), 0);
}

#[test]
fn a_file_that_is_locked_is_waited_for_within_the_deadline() {
    let desk = Desk::new();
    let client = desk.client();
    desk.leave(&client, "MADE", CREATED);
    desk.leave(&client, "OPEN", UNKNOWN);
    let other = desk.sql();
    other.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    // What need not be written is told all the same.
    assert_eq!(end(&client.add(&task("MADE"))), (OK, CREATED));
    assert_eq!(end(&client.add(&task("OPEN"))), (UNRESOLVED, UNKNOWN));
    assert_eq!(end(&client.add(&other_task("MADE"))), (CONFLICT, CREATED));
    assert_eq!(desk.client().add(&task("MADE")).code, OK, "another client opens it");
    let locked = client.add_with(&task("NEW"), r#"{"timeout_ms":300}"#);
    assert_eq!(end(&locked), (JOURNAL, NOT_CREATED), "{locked:?}");
    assert!(locked.json()["message"].as_str().expect("a text").contains("locked"), "{locked:?}");
    assert_eq!(desk.requests(), 2);
    thread::scope(|scope| {
        desk.server.next(Script::served());
        let waiting = scope.spawn(|| client.add(&task("NEW")));
        thread::sleep(Duration::from_millis(100));
        assert!(!waiting.is_finished());
        other.execute_batch("COMMIT").expect("the lock ends");
        assert_eq!(waiting.join().expect("no panic").code, OK);
    });
}

#[test]
fn a_file_of_version_1_is_read() {
    let desk = Desk::new();
    fs::copy(root().join("tests/fixtures/journal-1.sqlite3"), desk.file()).expect("a copy");
    let client = Owned::new(&desk.config(json!({ "journal": { "file": desk.file(), "server_id": "fixture" } })));
    let rows = rows(&client, json!({}));
    assert_eq!(numbers(&rows), ["MADE", "NOT", "OPEN", "FOUND", "DEAD"]);
    let outcomes: Vec<_> = rows.iter().map(|row| row["outcome"].as_str().expect("a word")).collect();
    assert_eq!(outcomes, ["created", "not_created", "unknown", "created", "unknown"]);
    assert_eq!((&rows[3]["by"], &rows[3]["note"]), (&json!("m.lin"), &json!("at the desk")));
    assert_eq!(rows[3]["resolved"], "2026-11-29T14:41:07.957Z");
    assert_eq!(client.add(&task("MADE")).json()["info"]["task_num"], "T-MADE");
    assert_eq!(client.add(&task("FOUND")).json()["info"]["task_num"], "7");
    assert_eq!(end(&client.add(&other_task("MADE"))), (CONFLICT, CREATED));
    for number in ["OPEN", "DEAD"] {
        assert_eq!(end(&client.add(&task(number))), (UNRESOLVED, UNKNOWN));
    }
    desk.server.next(Script::served());
    assert_eq!(client.add(&task("NOT")).code, OK);
    assert_eq!(desk.requests(), 1);
}
