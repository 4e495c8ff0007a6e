//! A disk that hangs holds neither a deadline nor a cancel, and a journal lies on no share.
//!
//! Each test runs once more in a process of its own, before whose system calls a library stands.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use arctos_tests::api::{
    BAD_CONFIG, CANCELLED, CREATED, JOURNAL, NOT_CREATED, OK, Owned, UNKNOWN, UNRESOLVED, client_new, task,
};
use arctos_tests::http::success;
use arctos_tests::journal::rows;
use arctos_tests::server::{PATIENCE, Script, Server, Step};
use arctos_tests::stage::{config, with};
use arctos_tests::tools::{Preload, both};
use serde_json::json;
use tempfile::TempDir;

/// The folder of a child.
const FOLDER: &str = "ARCTOS_TEST_FOLDER";

/// Runs a test in a child that has a disk of its own; in the child, gives its folder.
fn on_a_strange_disk(test: &str, is: Option<&str>) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return Some(folder.into());
    }
    let (disk, folder) = (Preload::new("strange_disk"), TempDir::new().expect("a folder"));
    let mut child = Command::new(std::env::current_exe().expect("this test"));
    child.args(["--exact", test, "--nocapture"]).env(FOLDER, folder.path()).env("LD_PRELOAD", disk.path());
    child.env("DISK_HANGS", folder.path().join("hangs")).env("DISK_FAILS", folder.path().join("fails"));
    child.envs(is.map(|is| ("DISK_IS", is)));
    let output = child.output().expect("the child runs");
    assert!(output.status.success(), "{}", both(&output));
    assert!(both(&output).contains("1 passed"), "{}", both(&output));
    None
}

fn client(server: &Server, folder: &Path) -> Owned {
    Owned::new(&with(config(&server.base_url()), json!({ "journal": { "file": folder.join("journal") } })))
}

/// Waits until no row is being sent.
fn await_all_ended(client: &Owned) {
    let began = Instant::now();
    while !rows(client, json!({ "outcome": "sending" })).is_empty() {
        assert!(began.elapsed() < PATIENCE);
        thread::yield_now();
    }
}

#[test]
fn a_disk_that_hangs_before_the_request_holds_neither_a_deadline_nor_a_cancel() {
    let test = "a_disk_that_hangs_before_the_request_holds_neither_a_deadline_nor_a_cancel";
    let Some(folder) = on_a_strange_disk(test, None) else { return };
    let server = Server::plain();
    let client = client(&server, &folder);
    fs::write(folder.join("hangs"), b"").expect("a file");
    thread::scope(|scope| {
        let mut waiting = Vec::new();
        for number in ["A", "B", "C"] {
            waiting.push(scope.spawn(|| client.add_with(&task(number), r#"{"call_id":"me"}"#)));
        }
        // The first is at the disk, or waits for it; so do others.
        let late = client.add_with(&task("LATE"), r#"{"timeout_ms":300}"#);
        assert_eq!((late.code, late.outcome != CREATED), (JOURNAL, true), "{late:?}");
        assert!(!waiting.iter().any(|call| call.is_finished()));
        let began = Instant::now();
        while !waiting.iter().all(|call| call.is_finished()) {
            assert!(began.elapsed() < PATIENCE);
            client.cancel_call("me");
            thread::yield_now();
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        for call in waiting {
            let reply = call.join().expect("no panic");
            assert_eq!((reply.code, reply.outcome != CREATED), (CANCELLED, true), "{reply:?}");
        }
    });
    fs::remove_file(folder.join("hangs")).expect("a file");
    // Nothing was sent, nobody waits for them, and what the disk had taken was taken back.
    await_all_ended(&client);
    assert!(rows(&client, json!({})).iter().all(|row| row["outcome"] == "not_created"));
    assert_eq!(server.connections(), 0);
    for number in ["A", "B", "C", "LATE"] {
        server.next(Script::served());
        assert_eq!(client.add(&task(number)).code, OK);
    }
}

/// A call whose answer comes when its disk is like this hands over what the server said, and is not sent again.
fn told_all_the_same(folder: &Path, disk: &str) {
    let server = Server::plain();
    let client = client(&server, folder);
    server.next(Script::made().then(Step::AwaitRelease).then(Step::Answer(success)));
    let began = Instant::now();
    thread::scope(|scope| {
        let call = scope.spawn(|| client.add_with(&task("A"), r#"{"timeout_ms":1000}"#));
        server.await_requests(1).expect("it is sent");
        fs::write(folder.join(disk), b"").expect("a file");
        server.release();
        let reply = call.join().expect("no panic");
        assert_eq!((reply.code, reply.outcome), (OK, CREATED), "{reply:?}");
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    });
    fs::remove_file(folder.join(disk)).expect("a file");
    await_all_ended(&client);
    // The disk may have taken it at last, or what was written of it may be found in the log all the same, or not.
    let again = client.add(&task("A"));
    assert!([(OK, CREATED), (UNRESOLVED, UNKNOWN)].contains(&(again.code, again.outcome)), "{again:?}");
    assert_eq!(server.settle(0).expect("the connections have ended").len(), 1);
}

#[test]
fn a_disk_that_hangs_after_the_answer_takes_nothing_from_it() {
    let test = "a_disk_that_hangs_after_the_answer_takes_nothing_from_it";
    let Some(folder) = on_a_strange_disk(test, None) else { return };
    told_all_the_same(&folder, "hangs");
}

#[test]
fn an_intent_that_the_disk_refuses_is_none() {
    let Some(folder) = on_a_strange_disk("an_intent_that_the_disk_refuses_is_none", None) else { return };
    let server = Server::plain();
    let client = client(&server, &folder);
    for number in ["A", "B"] {
        fs::write(folder.join("fails"), b"").expect("a file");
        let reply = client.add(&task(number));
        assert_eq!((reply.code, reply.outcome), (JOURNAL, NOT_CREATED), "{reply:?}");
        fs::remove_file(folder.join("fails")).expect("a file");
        // What was written of it all the same is taken back.
        server.next(Script::served());
        let again = client.add(&task(number));
        assert_eq!((again.code, again.outcome), (OK, CREATED), "{again:?}");
    }
    assert_eq!(server.settle(0).expect("the connections have ended").len(), 2);
}

#[test]
fn an_outcome_that_the_disk_refuses_takes_nothing_from_the_answer() {
    let test = "an_outcome_that_the_disk_refuses_takes_nothing_from_the_answer";
    let Some(folder) = on_a_strange_disk(test, None) else { return };
    told_all_the_same(&folder, "fails");
}

#[test]
fn a_journal_on_a_share_is_refused() {
    let Some(folder) = on_a_strange_disk("a_journal_on_a_share_is_refused", Some("0x6969")) else { return };
    let file = folder.join("journal");
    let config = with(config("http://127.0.0.1:1"), json!({ "journal": { "file": file } }));
    let (_, reply) = client_new(&config.to_string());
    assert_eq!((reply.code, reply.outcome), (BAD_CONFIG, NOT_CREATED));
    assert_eq!(reply.problem_fields(), ["journal.file"]);
    let problem = reply.json()["problems"][0]["problem"].to_string();
    assert!(problem.contains("network share (NFS)"), "{problem}");
    assert!(!file.exists(), "nothing is made there");
}
