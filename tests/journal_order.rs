//! With a journal nothing is sent before the intent is on the disk, and no call returns before its outcome is: the
//! system calls say so.

use std::path::PathBuf;

use arctos_tests::disk::{Event, events};
use arctos_tests::http::find;
use arctos_tests::server::{Script, Server};
use arctos_tests::stage::{config, with};
use arctos_tests::tools::{Host, Preload, succeed};
use serde_json::json;
use tempfile::TempDir;

const WRITTEN: u64 = 3;
const SYNC_BEGINS: u64 = 4;
const SYNCED: u64 = 5;
const SENT: u64 = 11;
const MARK: u64 = 12;

/// What stands before a page in the -wal.
const FRAME_HEAD: usize = 24;

struct Record(Vec<Event>);

/// What the system calls were while the program did these steps.
fn record(server: &Server, sync_ms: u32, steps: &[&str]) -> Record {
    let (host, recorder) = (Host::new("disk_adder"), Preload::new("disk_recorder"));
    let folder = TempDir::new().expect("a folder");
    let place = folder.path().canonicalize().expect("it is there");
    let file = host.folder().join("record");
    let config = with(config(&server.base_url()), json!({ "journal": { "file": place.join("journal") } }));
    let environment: [(&str, PathBuf); 4] = [
        ("LD_PRELOAD", recorder.path()),
        ("DISK_RECORD", file.clone()),
        ("DISK_FOLDER", place),
        ("DISK_SYNC_MS", sync_ms.to_string().into()),
    ];
    succeed(host.command().arg(config.to_string()).args(steps).envs(environment));
    Record(events(&std::fs::read(file).expect("the recorder wrote it")))
}

impl Record {
    fn find(&self, from: usize, is: impl Fn(&Event) -> bool) -> Option<usize> {
        (from..self.0.len()).find(|at| is(&self.0[*at]))
    }

    /// The number's mark.
    #[track_caller]
    fn mark(&self, from: usize, what: &str, number: &str) -> usize {
        let text = format!("{what} {number}");
        self.find(from, |event| event.what == MARK && event.text == text).unwrap_or_else(|| panic!("no {text}"))
    }

    /// The first byte of the number's request.
    #[track_caller]
    fn sent(&self, from: usize, number: &str) -> usize {
        let field = format!("\"out_task_num\":\"{number}\"");
        let is = |event: &Event| event.what == SENT && find(&event.data, field.as_bytes()).is_some();
        self.find(from, is).unwrap_or_else(|| panic!("{number} was not sent"))
    }

    /// The end of the transaction that was the first, from there on, to write this text into the -wal.
    #[track_caller]
    fn committed(&self, from: usize, text: &str) -> usize {
        let write = |event: &Event| event.what == WRITTEN && event.text == "journal-wal";
        let held = self.find(from, |event| write(event) && find(&event.data, text.as_bytes()).is_some());
        let held = held.unwrap_or_else(|| panic!("{text} is not in the -wal"));
        let is_head = |event: &Event| write(event) && event.data.len() == FRAME_HEAD;
        let own = (0..held).rfind(|at| is_head(&self.0[*at])).expect("a head before its page");
        // The head of the last page of a transaction tells how large the file is.
        let last = |event: &Event| is_head(event) && event.data[4..8] != [0; 4];
        let head = self.find(own, last).expect("the transaction ends");
        self.find(head + 1, write).expect("a page behind its head")
    }

    /// Whether the -wal was synced, from the beginning to the end, between two events.
    fn synced_between(&self, after: usize, before: usize) -> bool {
        let sync = |at: usize, what: u64| self.0[at].what == what && self.0[at].text == "journal-wal";
        (after + 1..before).filter(|begun| sync(*begun, SYNC_BEGINS)).any(|begun| {
            (begun + 1..before).any(|ended| sync(ended, SYNCED) && self.0[ended].place == self.0[begun].place)
        })
    }

    #[track_caller]
    fn is_in_order(&self, number: &str) {
        let called = self.mark(0, "calls", number);
        let sent = self.sent(called, number);
        let intent = self.committed(called, number);
        assert!(self.synced_between(intent, sent), "{number} was sent before its intent was synced");
        let returned = self.mark(sent, "returned", number);
        let outcome = self.committed(sent, &format!("T-{number}"));
        assert!(self.synced_between(outcome, returned), "{number} returned before its outcome was synced");
    }

    fn syncs(&self) -> usize {
        self.0.iter().filter(|event| event.what == SYNCED && event.text == "journal-wal").count()
    }
}

/// A server that makes every appointment.
fn serving() -> Server {
    let server = Server::plain();
    server.always(Script::forever(Script::served()));
    server
}

fn made_once(server: &Server, count: usize) {
    server.settle(0).expect("the connections have ended");
    let ledger = server.ledger();
    assert!(ledger.all().len() == count && ledger.all().values().all(|made| *made == 1), "{ledger:?}");
}

#[test]
fn intent_sync_request_outcome_sync_return_and_nothing_for_what_is_recorded() {
    const CALLS: usize = 20;
    let server = serving();
    let record = record(&server, 0, &["ONE:20:1", "ONE:20:1"]);
    let numbers: Vec<String> = (0..CALLS).map(|call| format!("ONE-{call:04}")).collect();
    numbers.iter().for_each(|number| record.is_in_order(number));
    assert!(record.syncs() >= 2 * CALLS, "{} syncs", record.syncs());

    let again = record.mark(0, "returned", &numbers[CALLS - 1]) + 1;
    let events: Vec<(u64, &str)> = record.0[again..].iter().map(|event| (event.what, event.text.as_str())).collect();
    let marks: Vec<String> =
        numbers.iter().flat_map(|number| [format!("calls {number}"), format!("returned {number}")]).collect();
    let marks: Vec<(u64, &str)> = marks.iter().map(|text| (MARK, text.as_str())).collect();
    assert_eq!(events, marks, "what is recorded costs no write, no sync and no byte on the net");
    made_once(&server, CALLS);
}

#[test]
fn eight_threads_keep_the_order_and_share_their_syncs() {
    const CALLS: usize = 200;
    let server = serving();
    // On a slow disk those who come meanwhile are many.
    let record = record(&server, 2, &["MANY:200:8"]);
    (0..CALLS).for_each(|call| record.is_in_order(&format!("MANY-{call:04}")));
    let syncs = record.syncs();
    println!("{CALLS} calls of eight threads: {syncs} syncs");
    assert!(syncs < CALLS, "{syncs} syncs for {CALLS} calls: the threads do not share them");
    made_once(&server, CALLS);
}
