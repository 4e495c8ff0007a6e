//! A fork leaves the journal whole: parent and child both go on with it, no number is made twice, and what a dead parent
//! was sending is known to be so.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use arctos_tests::api::{OK, Owned, UNKNOWN, UNRESOLVED};
use arctos_tests::http::success;
use arctos_tests::journal::{locked_elsewhere, task};
use arctos_tests::server::{Script, Server, Step};
use arctos_tests::stage::{config, with};
use arctos_tests::tools::{Host, Running, both};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A server, and the file of a journal.
struct Desk {
    server: Server,
    folder: TempDir,
}

impl Desk {
    fn new() -> Desk {
        Desk { server: Server::plain(), folder: TempDir::new().expect("a folder") }
    }

    /// The file without symbolic links, as the system names it to who asks for descriptors.
    fn file(&self) -> PathBuf {
        self.folder.path().canonicalize().expect("it is there").join("journal")
    }

    fn config(&self) -> Value {
        let keys = json!({ "journal": { "file": self.file() }, "idle_timeout_ms": 3_600_000 });
        with(config(&self.server.base_url()), keys)
    }

    /// The arguments of the host in a mode.
    fn arguments(&self, mode: &str) -> [String; 3] {
        [mode.to_owned(), self.config().to_string(), self.file().to_str().expect("text").to_owned()]
    }
}

/// The numbers and outcomes of the rows.
#[track_caller]
fn rows(client: &Owned) -> Vec<(String, String)> {
    let reply = client.journal_list("{}");
    assert_eq!(reply.code, OK, "{reply:?}");
    let text = |row: &Value, key: &str| row[key].as_str().expect("text").to_owned();
    let rows = reply.json();
    let rows = rows["rows"].as_array().expect("rows");
    rows.iter().map(|row| (text(row, "out_task_num"), text(row, "outcome"))).collect()
}

/// Success after a while of its own for each number.
fn slow_success(number: &str) -> Vec<u8> {
    let sum: u64 = number.bytes().map(u64::from).fold(7, |sum, byte| sum * 31 % 1_009 + byte);
    std::thread::sleep(Duration::from_millis(sum % 9));
    success(number)
}

#[test]
fn five_hundred_children_beside_threads_that_commit() {
    const CHILDREN: u32 = 500;
    /// The rounds whose children outlive the client of their parent, and how many children a round has.
    const OUTLIVING: u32 = 3;
    const ROUND: u32 = 20;
    let desk = Desk::new();
    desk.server.always(Script::forever(Script::made().then(Step::Answer(slow_success))));
    let host = Host::new("journal_fork");
    let began = Instant::now();
    let output = host.command().args(desk.arguments("storm")).output().expect("it runs");
    assert!(output.status.success(), "{}: {}", output.status, both(&output));
    let text = String::from_utf8(output.stdout).expect("text");
    let calls: Vec<u32> = text.lines().map(|line| line.parse().expect("a number")).collect();
    println!("{CHILDREN} forks in {} ms beside {calls:?} calls", began.elapsed().as_millis());
    assert!(calls.len() == 6 && calls.iter().all(|calls| *calls > 0), "not all threads were busy: {text}");

    let children = |kind: &'static str| (0..CHILDREN).map(move |child| format!("{kind}{child}"));
    let outliving = (0..CHILDREN).filter(|child| child / ROUND % OUTLIVING == 2).map(|child| format!("L{child}"));
    let threads = (0..6).flat_map(|thread| (0..calls[thread]).map(move |call| format!("T{thread}-{call}")));
    let wanted: BTreeSet<String> = threads.chain(children("C")).chain(children("S")).chain(outliving).collect();
    desk.server.settle(0).expect("all have ended");
    let ledger = desk.server.ledger();
    let twice: Vec<_> = ledger.all().iter().filter(|(_, made)| **made != 1).collect();
    assert!(twice.is_empty(), "made more than once: {twice:?}");
    assert!(ledger.all().keys().eq(&wanted), "{} were made, not {}", ledger.all().len(), wanted.len());

    // By an SQLite of the test's own, and before anybody else opens the file.
    let connection = Connection::open_with_flags(desk.file(), OpenFlags::SQLITE_OPEN_READ_WRITE).expect("it opens");
    let text = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, String>(0)).expect(sql);
    assert_eq!(text("PRAGMA integrity_check"), "ok");
    let mut statement = connection.prepare("SELECT out_task_num FROM appointment WHERE state = 1").expect("SQL");
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).expect("rows");
    let created: BTreeSet<String> = rows.map(|row| row.expect("a row")).collect();
    assert!(created == wanted, "{} rows are created, not {}", created.len(), wanted.len());
    assert_eq!(text("SELECT CAST(count(*) AS TEXT) FROM appointment"), wanted.len().to_string());
}

#[test]
fn what_a_killed_parent_was_sending_is_unknown_though_its_child_lives() {
    let desk = Desk::new();
    desk.server.always(Script::forever(Script::request().then(Step::ByNumber)));
    let numbers: Vec<String> = (0..4).map(|call| format!("O-{call}")).collect();
    let served = Script::silent().then(Step::Make).then(Step::Answer(success));
    for number in &numbers {
        desk.server.number(number, Script::silent().then(Step::AwaitRelease));
    }
    desk.server.number("CHILD-1", served.clone());
    desk.server.number("CHILD-2", served);
    let host = Host::new("journal_fork");
    let mut command = host.command();
    command.args(desk.arguments("orphan")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Running(command.spawn().expect("it starts"));
    // The child has them too.
    let mut input = process.0.stdin.take().expect("a pipe");
    let mut output = BufReader::new(process.0.stdout.take().expect("a pipe")).lines();
    let mut says = |word: &str| assert_eq!(output.next().expect("it has ended").expect("text"), word);
    says("calling");
    desk.server.await_requests(4).expect("its calls");
    input.write_all(b"\n").expect("it listens");
    says("waited");
    process.0.kill().expect("it is there");
    process.0.wait().expect("it has ended");

    let client = Owned::new(&desk.config());
    let began = Instant::now();
    let outcomes: BTreeMap<String, String> = rows(&client).into_iter().collect();
    let expected = numbers.iter().map(|number| (number.as_str(), "unknown")).chain([("CHILD-1", "created")]);
    assert_eq!(outcomes, expected.map(|(number, outcome)| (number.to_owned(), outcome.to_owned())).collect());
    for number in &numbers {
        let reply = client.add(&task(number));
        assert_eq!((reply.code, reply.outcome), (UNRESOLVED, UNKNOWN), "{reply:?}");
    }
    // Each of the calls that they were for may last 50 seconds.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    input.write_all(b"\n").expect("the child listens");
    says("done");
    let outcomes: BTreeMap<String, String> = rows(&client).into_iter().collect();
    assert_eq!(outcomes.get("CHILD-2").map(String::as_str), Some("created"));
    drop(client);
    desk.server.release();
    desk.server.settle(0).expect("all have ended");
    let made = |number: &str, count: u32| (number.to_owned(), count);
    assert_eq!(desk.server.ledger().all(), &BTreeMap::from([made("CHILD-1", 1), made("CHILD-2", 1)]));
}

#[test]
fn a_fork_does_not_wait_for_a_file_that_is_locked() {
    let desk = Desk::new();
    let client = Owned::new(&desk.config());
    desk.server.next(Script::served());
    std::thread::scope(|scope| {
        let waiting = locked_elsewhere(&desk.file(), || {
            let waiting = scope.spawn(|| client.add(&task("W")));
            let began = Instant::now();
            for _ in 0..50 {
                // SAFETY: the child does nothing but to end.
                let child = unsafe { libc::fork() };
                assert!(child >= 0);
                if child == 0 {
                    // SAFETY: nothing of the test's is run at its end.
                    unsafe { libc::_exit(0) };
                }
                // SAFETY: a child of this thread's.
                assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
            }
            // The call waits for 50 s.
            assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
            assert!(!waiting.is_finished());
            waiting
        });
        assert_eq!(waiting.join().expect("no panic").code, OK);
    });
}
