//! A journal that is full, locked, damaged, gone or not to be written: nothing is sent of which it would know nothing, and
//! where the request had gone out, the call tells what the server said and the row reads as unknown.

use std::ffi::{CStr, c_char, c_void};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr;
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use arctos_tests::api::{
    BAD_CONFIG, BROKEN, CANCELLED, CONFLICT, CREATED, JOURNAL, NOT_CREATED, OK, Owned, REJECTED, Reply, UNKNOWN,
    UNRESOLVED, arctos, client_new,
};
use arctos_tests::http::{head, success, success_body};
use arctos_tests::journal::{Adder, Book, locked_elsewhere, rows, task};
use arctos_tests::server::{Script, Server, Step};
use arctos_tests::tools::{Host, Talker, both, succeed};
use rusqlite::Connection;
use serde_json::{Value, json};

/// A time after which a call has come to where it waits.
const SOON: Duration = Duration::from_millis(300);

/// A server that makes everything, a journal, and a client.
struct Site {
    client: Owned,
    server: Server,
    book: Book,
    config: Value,
}

impl Site {
    fn new() -> Site {
        let (server, book) = (Server::plain(), Book::default());
        server.always(Script::served());
        let config = book.config(&server, json!({}));
        Site { client: Owned::new(&config), server, book, config }
    }

    #[track_caller]
    fn made(&self, number: &str) {
        let reply = self.client.add(&task(number));
        assert_eq!((reply.code, reply.text()), (OK, &*success_body(number)));
    }

    /// A call that ends without a request, with this code and outcome.
    #[track_caller]
    fn sends_nothing(&self, number: &str, options: Value, (code, outcome): (i32, i32)) -> Reply {
        let before = self.server.connections();
        let reply = self.client.add_with(&task(number), &options.to_string());
        assert_eq!((reply.code, reply.outcome), (code, outcome), "{reply:?}");
        if code != OK {
            assert_eq!(reply.json()["attempts"], 0, "{reply:?}");
        }
        assert_eq!(self.server.connections(), before);
        reply
    }

    /// What another process is told of a number, for which it must send nothing.
    #[track_caller]
    fn elsewhere(&self, adder: &Adder, number: usize) -> i32 {
        let before = self.server.connections();
        let calls = Adder::run(&mut adder.command(&self.config, "S", number, 1, 1, "each"));
        assert_eq!(self.server.connections(), before);
        calls[0].code
    }

    /// A client that is refused for its journal.
    #[track_caller]
    fn refused(&self) -> String {
        let (_, reply) = client_new(&self.config.to_string());
        assert_eq!(reply.code, BAD_CONFIG, "{reply:?}");
        assert_eq!(reply.problem_fields(), ["journal.file"]);
        reply.json()["problems"][0]["problem"].as_str().expect("text").to_owned()
    }
}

/// Who has the file locked.
#[derive(Debug, Clone, Copy)]
enum Holder {
    /// Another program.
    Process,
    /// The host itself, by an SQLite of its own.
    Host,
}

const HOLDERS: [Holder; 2] = [Holder::Process, Holder::Host];

/// Does something while the file is locked.
fn locked<T>(file: &Path, holder: Holder, work: impl FnOnce() -> T) -> T {
    match holder {
        Holder::Process => locked_elsewhere(file, work),
        Holder::Host => {
            let sqlite = Connection::open(file).expect("it opens");
            sqlite.busy_timeout(Duration::from_secs(60)).expect("a time-out");
            sqlite.execute_batch("BEGIN IMMEDIATE").expect("it locks");
            let done = work();
            sqlite.execute_batch("ROLLBACK").expect("it lets go");
            done
        }
    }
}

static LINES: Mutex<Vec<(i32, String)>> = Mutex::new(Vec::new());

unsafe extern "C" fn collect(_: *mut c_void, level: i32, line: *const c_char) {
    // SAFETY: the library gives a text that lives as long as the call.
    let line = unsafe { CStr::from_ptr(line) }.to_str().expect("UTF-8").to_owned();
    LINES.lock().expect("no panic under it").push((level, line));
}

/// Listens to the log, for good.
fn listen() {
    static ONCE: Once = Once::new();
    // SAFETY: the function needs nothing of what it is given.
    ONCE.call_once(|| unsafe { (arctos().set_log)(Some(collect), ptr::null_mut(), 3) });
}

/// How many events of this name a call has had.
fn heard(event: &str, level: i32, call_id: &str) -> usize {
    let lines = LINES.lock().expect("no panic under it");
    let events = lines.iter().map(|(level, line)| (*level, serde_json::from_str::<Value>(line).expect("JSON")));
    events.filter(|(at, line)| *at == level && line["event"] == event && line["call_id"] == call_id).count()
}

/// The warnings of a call that its outcome was not written.
fn unwritten(call_id: &str) -> usize {
    heard("journal", 2, call_id)
}

#[test]
fn while_another_has_the_file_locked_nothing_is_sent_and_what_is_known_is_said() {
    for holder in HOLDERS {
        let site = Site::new();
        site.made("L-1");
        site.server.next(Script::made().then(Step::Reset));
        assert_eq!(site.client.add(&task("L-2")).code, BROKEN);
        site.server.next(Script::request().send(head("400 No", &["Content-Length: 0"])).close());
        assert_eq!(site.client.add(&task("L-3")).code, REJECTED);

        locked(&site.book.file(), holder, || {
            let again = site.sends_nothing("L-1", json!({}), (OK, CREATED));
            assert_eq!(again.text(), success_body("L-1"));
            let other = site.client.add(&task("L-1").replace("943", "944"));
            assert_eq!((other.code, other.outcome), (CONFLICT, CREATED), "{other:?}");
            site.sends_nothing("L-2", json!({}), (UNRESOLVED, UNKNOWN));
            for number in ["L-3", "L-4"] {
                let reply = site.sends_nothing(number, json!({ "timeout_ms": 700 }), (JOURNAL, NOT_CREATED));
                let message = reply.json()["message"].as_str().expect("text").to_owned();
                assert!(message.contains("locked by another program"), "{message}");
                assert!(reply.json()["elapsed_ms"].as_u64().expect("a number") >= 700, "{reply:?}");
            }
            // A client needs no more than to look.
            drop(Owned::new(&site.config));
        });
        for number in ["L-3", "L-4"] {
            site.made(number);
        }
        site.sends_nothing("L-2", json!({}), (UNRESOLVED, UNKNOWN));
        assert_eq!(site.book.integrity(), "ok");
    }
}

#[test]
fn a_call_that_waits_for_a_locked_file_is_cancelled_within_a_second() {
    for holder in HOLDERS {
        let site = Site::new();
        locked(&site.book.file(), holder, || {
            std::thread::scope(|scope| {
                let call =
                    scope.spawn(|| site.sends_nothing("C-1", json!({ "call_id": "waits" }), (CANCELLED, NOT_CREATED)));
                std::thread::sleep(SOON);
                let begun = Instant::now();
                // A cancel that comes before its call does nothing.
                while !call.is_finished() {
                    assert_eq!(site.client.cancel_call("waits"), OK);
                    assert!(begun.elapsed() < Duration::from_secs(10), "it goes on waiting");
                    std::thread::sleep(Duration::from_millis(10));
                }
                assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
                call.join().expect("it was cancelled");
            });
        });
        site.made("C-1");
    }
}

/// Spoils the file after a request has come and before its answer: what the call returns.
fn spoiled_between<T>(
    site: &Site,
    number: &str,
    options: Value,
    spoil: impl FnOnce(&(dyn Fn() -> Reply + Sync)) -> T,
) -> T {
    let requests = site.server.connections();
    site.server.next(Script::request().then(Step::AwaitRelease).then(Step::Make).then(Step::Answer(success)));
    std::thread::scope(|scope| {
        let call = Mutex::new(Some(scope.spawn(|| site.client.add_with(&task(number), &options.to_string()))));
        site.server.await_requests(requests + 1).expect("its request");
        spoil(&|| {
            site.server.release();
            call.lock().expect("no panic under it").take().expect("one call").join().expect("it returns")
        })
    })
}

#[test]
fn an_outcome_that_a_lock_keeps_from_the_file_is_told_all_the_same_and_its_row_is_unknown() {
    listen();
    let adder = Adder::default();
    for holder in HOLDERS {
        let site = Site::new();
        let call_id = format!("second {holder:?}");
        spoiled_between(&site, "S-1", json!({ "timeout_ms": 2_000, "call_id": call_id }), |answer| {
            locked(&site.book.file(), holder, || {
                let reply = answer();
                assert_eq!((reply.code, reply.text()), (OK, &*success_body("S-1")));
                assert_eq!(unwritten(&call_id), 1);
            });
        });
        let found = rows(&site.client, json!({}));
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0]["outcome"], found[0].get("answer")), (&json!("unknown"), None));
        assert_eq!(site.elsewhere(&adder, 1), UNRESOLVED);
        site.sends_nothing("S-1", json!({}), (UNRESOLVED, UNKNOWN));
        assert_eq!(site.server.ledger().made("S-1"), 1);
    }
}

#[test]
fn nobody_waits_for_a_sender_that_has_given_up_though_the_file_is_still_locked() {
    for holder in HOLDERS {
        let site = Site::new();
        spoiled_between(&site, "S-1", json!({ "timeout_ms": 2_000 }), |answer| {
            locked(&site.book.file(), holder, || {
                assert_eq!(answer().code, OK);
                // At the end of its time it would be ARCTOS_JOURNAL.
                site.sends_nothing("S-1", json!({ "timeout_ms": 10_000 }), (UNRESOLVED, UNKNOWN));
            });
        });
    }
}

#[test]
fn a_lock_that_ends_in_time_costs_the_outcome_nothing() {
    listen();
    for holder in HOLDERS {
        let site = Site::new();
        let reply = spoiled_between(&site, "S-1", json!({ "call_id": "short" }), |answer| {
            std::thread::scope(|scope| {
                let call = locked(&site.book.file(), holder, || {
                    let call = scope.spawn(answer);
                    std::thread::sleep(SOON);
                    call
                });
                call.join().expect("it returns")
            })
        });
        assert_eq!((reply.code, reply.text()), (OK, &*success_body("S-1")));
        assert_eq!(rows(&site.client, json!({ "outcome": "created" })).len(), 1);
        site.sends_nothing("S-1", json!({}), (OK, CREATED));
    }
    assert_eq!(unwritten("short"), 0);
}

#[test]
fn a_cancel_ends_the_wait_of_an_outcome_and_not_the_answer() {
    listen();
    let site = Site::new();
    spoiled_between(&site, "S-1", json!({ "call_id": "cancelled late" }), |answer| {
        locked(&site.book.file(), Holder::Process, || {
            std::thread::scope(|scope| {
                let call = scope.spawn(answer);
                while heard("answer", 3, "cancelled late") == 0 {
                    std::thread::sleep(Duration::from_millis(10));
                }
                let begun = Instant::now();
                assert_eq!(site.client.cancel(), OK);
                let reply = call.join().expect("it returns");
                assert_eq!((reply.code, reply.text()), (OK, &*success_body("S-1")));
                assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
            });
        });
    });
    assert_eq!(unwritten("cancelled late"), 1);
    site.sends_nothing("S-1", json!({}), (UNRESOLVED, UNKNOWN));
}

#[test]
fn a_disk_that_is_full_before_the_request_keeps_it_from_being_sent() {
    let (server, book) = (Server::plain(), Book::default());
    server.always(Script::served());
    let config = book.config(&server, json!({ "timeout_ms": 1_500 })).to_string();
    Host::new("journal_full").run(&["first", &config, book.beside("-wal").to_str().expect("UTF-8")]);
    let ledger = server.ledger();
    assert!(ledger.all().values().all(|made| *made == 1), "{ledger:?}");
    assert_eq!(server.connections(), ledger.all().len(), "what failed was sent");
    assert_eq!(book.integrity(), "ok");
}

/// A disk that becomes full while the server makes an appointment.
fn full_after_the_request(mode: &str) {
    let site = Site::new();
    let host = Host::new("journal_full");
    site.server.always(Script::request().then(Step::ByNumber));
    let served = Script::silent().then(Step::Make).then(Step::Answer(success));
    site.server.number("S-2", Script::silent().then(Step::AwaitRelease).and(served.clone()));
    let others = (1..=200).map(|number| format!("G-{number}")).chain(["S-1", "S-3"].map(str::to_owned));
    others.for_each(|number| site.server.number(&number, served.clone()));
    let config = site.book.config(&site.server, json!({ "timeout_ms": 3_000 })).to_string();
    let mut host = Talker::of(host.command().args([mode, &config]).arg(site.book.beside("-wal")));
    host.says("sending");
    // The last of those that it has made up to here, and one more.
    let before = rows(&site.client, json!({ "outcome": "created" })).len();
    site.server.await_requests(before + 1).expect("its request");
    host.go_on();
    host.says("full");
    site.server.release();
    host.go_on();
    host.says("unknown");
    let calls = Adder::run(&mut Adder::default().command(&site.config, "S", 2, 1, 1, "each"));
    assert_eq!(calls[0].code, UNRESOLVED);
    host.go_on();
    host.ends();
    let ledger = site.server.ledger();
    assert!(ledger.all().values().all(|made| *made == 1), "{ledger:?}");
    assert_eq!(site.server.connections(), ledger.all().len());
    let unknown = rows(&site.client, json!({ "outcome": "unknown" }));
    assert_eq!(unknown.iter().map(|row| &row["out_task_num"]).collect::<Vec<_>>(), ["S-2"]);
    assert_eq!(site.book.integrity(), "ok");
}

#[test]
fn a_disk_that_is_full_after_the_request_keeps_no_answer_back_and_the_row_is_unknown() {
    full_after_the_request("second");
}

#[test]
fn a_disk_that_is_full_keeps_nobody_from_hearing_what_is_unknown() {
    full_after_the_request("asks");
}

#[test]
fn a_disk_that_is_full_when_a_journal_is_made_is_a_bad_configuration() {
    let (server, book) = (Server::plain(), Book::default());
    server.always(Script::served());
    let config = book.config(&server, json!({})).to_string();
    let file = book.file();
    let (begin, end) = config.split_once(file.to_str().expect("UTF-8")).expect("it names the file");
    let begin = format!("{begin}{}", file.display());
    let output = succeed(Host::new("journal_full").command().args(["new", &begin, end]));
    let failed: usize = String::from_utf8(output.stdout).expect("text").trim().parse().expect("a number");
    assert_eq!(server.connections(), failed);
}

/// Overwrites all of a file behind so many bytes, and gives what stands in it then.
fn damage(file: &Path, from: usize) -> Vec<u8> {
    let length = usize::try_from(file.metadata().expect("a file").len()).expect("a length");
    let open = std::fs::File::options().write(true).open(file).expect("it opens");
    open.write_all_at(&vec![0xa5; length.saturating_sub(from)], from as u64).expect("it is overwritten");
    std::fs::read(file).expect("it can be read")
}

/// Three numbers, the last of them by another process: what this one has read of the file is out of date.
fn read_anew(site: &Site, adder: &Adder) {
    for number in ["S-1", "S-2"] {
        site.made(number);
    }
    let calls = Adder::run(&mut adder.command(&site.config, "S", 3, 1, 1, "each"));
    assert_eq!(calls[0].code, OK);
}

#[test]
fn a_file_that_is_damaged_while_it_is_in_use_is_left_as_it_is_and_nothing_is_sent() {
    let adder = Adder::default();
    for in_log in [true, false] {
        let site = Site::new();
        read_anew(&site, &adder);
        if !in_log {
            let sqlite = Connection::open(site.book.file()).expect("it opens");
            sqlite.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("the log is in the file");
        }
        let files = [(site.book.file(), 100), (site.book.beside("-wal"), 32)];
        let damaged = files.each_ref().map(|(file, from)| damage(file, *from));
        for number in ["S-1", "S-3", "S-4"] {
            let reply = site.sends_nothing(number, json!({}), (JOURNAL, UNKNOWN));
            assert!(reply.text().contains("is damaged, and left as it is"), "{reply:?}");
        }
        assert_eq!(site.client.journal_list("{}").code, JOURNAL);
        assert_eq!(site.client.journal_resolve("S-1", r#"{"outcome":"not_created","by":"a clerk"}"#).code, JOURNAL);
        assert!(site.refused().contains("is damaged, and left as it is"));
        for ((file, _), damaged) in files.iter().zip(&damaged) {
            assert!(std::fs::read(file).expect("it can be read") == *damaged, "{} was changed", file.display());
        }
        assert_eq!(site.server.connections(), 3);
    }
}

#[test]
fn a_log_that_is_damaged_while_it_is_in_use_makes_nothing_twice() {
    let site = Site::new();
    read_anew(&site, &Adder::default());
    let log = site.book.beside("-wal");
    let damaged = damage(&log, 32);
    for number in ["S-1", "S-2", "S-3", "S-4"] {
        site.sends_nothing(number, json!({}), (JOURNAL, UNKNOWN));
    }
    assert!(std::fs::read(&log).expect("it can be read") == damaged, "it was changed");
}

#[test]
fn a_file_that_is_damaged_beside_a_client_is_refused_to_another_process() {
    let adder = Adder::default();
    let site = Site::new();
    site.made("S-1");
    let files = [(site.book.file(), 100), (site.book.beside("-wal"), 32)];
    let damaged = files.each_ref().map(|(file, from)| damage(file, *from));
    let output = adder.command(&site.config, "S", 1, 2, 1, "each").output().expect("it runs");
    assert!(!output.status.success());
    assert!(both(&output).contains("\"journal.file\""), "{}", both(&output));
    for ((file, _), damaged) in files.iter().zip(&damaged) {
        assert!(std::fs::read(file).expect("it can be read") == *damaged, "{} was changed", file.display());
    }
    assert_eq!(site.server.connections(), 1);
}

#[test]
fn an_outcome_that_a_damaged_file_cannot_take_is_told_all_the_same() {
    listen();
    let adder = Adder::default();
    let site = Site::new();
    let files = [(site.book.file(), 100), (site.book.beside("-wal"), 32)];
    let reply = spoiled_between(&site, "S-1", json!({ "call_id": "damaged" }), |answer| {
        // What this process has read of the file is out of date then.
        let calls = Adder::run(&mut adder.command(&site.config, "S", 2, 1, 1, "each"));
        assert_eq!(calls[0].code, OK);
        for (file, from) in &files {
            damage(file, *from);
        }
        let begun = Instant::now();
        let reply = answer();
        assert!(begun.elapsed() < Duration::from_secs(10), "it was tried again: {:?}", begun.elapsed());
        reply
    });
    assert_eq!((reply.code, reply.text()), (OK, &*success_body("S-1")));
    assert_eq!(unwritten("damaged"), 1);
    site.sends_nothing("S-1", json!({}), (JOURNAL, UNKNOWN));
}

#[test]
fn a_file_that_is_removed_or_replaced_while_it_is_in_use_keeps_requests_from_being_sent() {
    for replaced in [false, true] {
        let site = Site::new();
        site.made("S-1");
        let file = site.book.file();
        if replaced {
            let other = site.book.folder().join("other");
            std::fs::copy(&file, &other).expect("a copy");
            std::fs::rename(&other, &file).expect("it takes its place");
        } else {
            std::fs::remove_file(&file).expect("it is removed");
        }
        for number in ["S-1", "S-2"] {
            let reply = site.sends_nothing(number, json!({}), (JOURNAL, UNKNOWN));
            assert!(reply.text().contains("was removed or replaced"), "{reply:?}");
        }
        let list = site.client.journal_list("{}");
        assert_eq!(list.code, JOURNAL, "{list:?}");
        assert_eq!(file.exists(), replaced);
    }
}

#[test]
fn a_file_that_is_removed_after_the_request_keeps_no_answer_back() {
    listen();
    let site = Site::new();
    let reply = spoiled_between(&site, "S-1", json!({ "timeout_ms": 2_000, "call_id": "removed" }), |answer| {
        std::fs::remove_file(site.book.file()).expect("it is removed");
        answer()
    });
    assert_eq!((reply.code, reply.text()), (OK, &*success_body("S-1")));
    assert_eq!(unwritten("removed"), 1);
    site.sends_nothing("S-1", json!({}), (JOURNAL, UNKNOWN));
}

#[test]
fn a_log_or_its_index_that_is_removed_while_it_is_in_use_keeps_requests_from_being_sent() {
    let adder = Adder::default();
    for end in ["-wal", "-shm"] {
        let site = Site::new();
        site.made("S-1");
        std::fs::remove_file(site.book.beside(end)).expect("it is removed");
        for number in ["S-1", "S-2"] {
            let reply = site.sends_nothing(number, json!({}), (JOURNAL, UNKNOWN));
            assert!(reply.text().contains("was removed or replaced"), "{reply:?}");
        }
        if end == "-shm" {
            // It can be made anew from the log; for whom it was removed it stays another one.
            let calls = Adder::run(&mut adder.command(&site.config, "S", 1, 2, 1, "each"));
            assert!(calls.iter().all(|call| call.code == OK), "{calls:?}");
            site.sends_nothing("S-2", json!({}), (JOURNAL, UNKNOWN));
            assert_eq!(site.server.connections(), 2);
            assert_eq!(site.book.integrity(), "ok");
        }
    }
}

#[test]
fn signs_of_life_that_are_removed_make_a_living_call_unknown_to_others_and_nothing_twice() {
    let adder = Adder::default();
    let site = Site::new();
    let reply = spoiled_between(&site, "S-1", json!({}), |answer| {
        std::fs::remove_file(site.book.beside("-alive")).expect("it is removed");
        assert_eq!(site.elsewhere(&adder, 1), UNRESOLVED);
        answer()
    });
    assert_eq!((reply.code, reply.text()), (OK, &*success_body("S-1")));
    // Whose calls were seen by nobody else makes no further ones.
    for number in ["S-1", "S-2"] {
        let reply = site.sends_nothing(number, json!({}), (JOURNAL, UNKNOWN));
        assert!(reply.text().contains("was removed or replaced"), "{reply:?}");
    }
    assert_eq!(site.elsewhere(&adder, 1), UNRESOLVED);
    assert_eq!(site.server.connections(), 1);
}

#[test]
fn a_file_that_may_not_be_written_any_more_keeps_requests_from_being_sent() {
    let (server, book) = (Server::plain(), Book::default());
    server.always(Script::served());
    let config = book.config(&server, json!({})).to_string();
    Host::new("journal_full").run(&["mode", &config, book.file().to_str().expect("UTF-8")]);
    let ledger = server.ledger();
    assert!(ledger.all().values().all(|made| *made == 1), "{ledger:?}");
    assert_eq!(ledger.all().keys().collect::<Vec<_>>(), ["O-1", "O-2", "O-3", "O-4"]);
    assert_eq!(server.connections(), 4);
    assert_eq!(book.integrity(), "ok");
}
