//! Two who use one journal at once are one to the server: two copies of the library in a process, a host with an SQLite of
//! its own, two processes.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arctos_tests::api::{Client, Functions, OK, Owned, c, library_path};
use arctos_tests::http::{success, success_body};
use arctos_tests::journal::{Adder, Book, calls, rows, task};
use arctos_tests::server::{Script, Server, Step};
use arctos_tests::tools::Running;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

const NUMBERS: usize = 200;

fn name(number: usize) -> String {
    format!("T-{number}")
}

/// A server that makes everything on connections that it keeps, and a journal.
fn site() -> (Server, Book, Value) {
    let (server, book) = (Server::plain(), Book::default());
    server.always(Script::forever(Script::served()));
    let config = book.config(&server, json!({ "idle_timeout_ms": 60_000 }));
    (server, book, config)
}

/// All numbers were sent once and made once, and the file is whole.
#[track_caller]
fn all_made_once(server: &Server, book: &Book) {
    let seen = server.settle(0).expect("the clients are gone");
    let mut sent: Vec<String> = seen.iter().flat_map(|seen| seen.numbers()).collect();
    sent.sort();
    let mut wanted: Vec<String> = (0..NUMBERS).map(name).collect();
    wanted.sort();
    assert_eq!(sent, wanted);
    assert!(server.ledger().all().values().all(|made| *made == 1));
    assert_eq!(server.ledger().all().len(), NUMBERS);
    assert_eq!(book.integrity(), "ok");
}

/// A process that adds all numbers again is given what was answered, and nothing is sent.
#[track_caller]
fn all_handed_over_again(server: &Server, config: &Value) {
    let before = server.connections();
    let again = Adder::run(&mut Adder::default().command(config, "T", 0, NUMBERS, 4, "each"));
    assert_eq!(again.len(), NUMBERS);
    for call in again {
        assert_eq!((call.code, &call.answer), (OK, &success_body(&call.number)));
    }
    assert_eq!(server.connections(), before, "something was sent again");
}

/// A copy of the library, and a client of it.
struct Copy {
    library: Functions,
    client: Client,
}

// SAFETY: every function of the library may be called from every thread.
unsafe impl Sync for Copy {}

impl Copy {
    fn new(folder: &Path, name: &str, config: &Value) -> Copy {
        let path = folder.join(name);
        std::fs::copy(library_path(), &path).expect("a copy");
        let library = Functions::load(&path);
        let mut client = ptr::null_mut();
        // SAFETY: the texts live as long as the call.
        let code = unsafe { (library.client_new)(c(&config.to_string()).as_ptr(), &mut client, ptr::null_mut()) };
        assert_eq!(code, OK);
        Copy { library, client }
    }

    /// Its own texts go back to it, so that the helpers of [`arctos_tests::api`] do not fit.
    fn add(&self, number: &str) -> (i32, String) {
        let (task, mut answer) = (c(&task(number)), ptr::null_mut());
        // SAFETY: the client lives, and the answer is a text that is freed once.
        unsafe {
            let code = (self.library.task_add)(self.client, task.as_ptr(), &mut answer);
            let text = CStr::from_ptr(answer).to_str().expect("UTF-8").to_owned();
            (self.library.free)(answer);
            (code, text)
        }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // SAFETY: a client of this copy.
        unsafe { (self.library.client_free)(self.client) }
    }
}

#[test]
fn two_copies_of_the_library_in_one_process() {
    const THREADS: usize = 4;
    let (server, book, config) = site();
    {
        let copies = ["one.so", "another.so"].map(|name| Copy::new(book.folder(), name, &config));
        let [one, another] = &copies;
        assert!(!std::ptr::fn_addr_eq(one.library.task_add, another.library.task_add), "one and the same copy");
        std::thread::scope(|scope| {
            for copy in &copies {
                for thread in 0..THREADS {
                    scope.spawn(move || {
                        for number in 0..NUMBERS {
                            // Two of them go the other way round.
                            let number = name(if thread % 2 == 0 { number } else { NUMBERS - 1 - number });
                            assert_eq!(copy.add(&number), (OK, success_body(&number)));
                        }
                    });
                }
            }
        });
    }
    all_made_once(&server, &book);
    all_handed_over_again(&server, &config);
}

/// What a host does with the file that it must not spoil: it opens it, reads, and closes it, until it is told to stop.
fn reads_on(file: &Path, flags: OpenFlags, stop: &AtomicBool) -> usize {
    let mut times = 0;
    while !stop.load(Ordering::Relaxed) {
        let sqlite = Connection::open_with_flags(file, flags).expect("it opens");
        sqlite.busy_timeout(Duration::from_secs(60)).expect("a time-out");
        let count = |row: &rusqlite::Row| row.get::<_, u32>(0);
        let rows = sqlite.query_row("SELECT count(*) FROM appointment", [], count).expect("it reads");
        assert!(rows as usize <= NUMBERS);
        drop(sqlite);
        times += 1;
    }
    times
}

#[test]
fn a_host_that_opens_and_closes_the_file_with_its_own_sqlite() {
    const THREADS: usize = 4;
    let (server, book, config) = site();
    let stop = AtomicBool::new(false);
    {
        let clients = [Owned::new(&config), Owned::new(&config)];
        let times = std::thread::scope(|scope| {
            let kinds = [OpenFlags::default(), OpenFlags::SQLITE_OPEN_READ_ONLY];
            let (file, stop) = (&book.file(), &stop);
            let hosts = kinds.map(|flags| {
                let file = file.clone();
                scope.spawn(move || reads_on(&file, flags, stop))
            });
            let callers: Vec<_> = (0..2 * THREADS)
                .map(|thread| {
                    let client = &clients[thread % 2];
                    scope.spawn(move || {
                        for number in 0..NUMBERS {
                            let number = name(if thread % 4 < 2 { number } else { NUMBERS - 1 - number });
                            let reply = client.add(&task(&number));
                            assert_eq!((reply.code, reply.text()), (OK, &*success_body(&number)));
                        }
                    })
                })
                .collect();
            let called: Vec<_> = callers.into_iter().map(|caller| caller.join()).collect();
            stop.store(true, Ordering::Relaxed);
            let times = hosts.map(|host| host.join().expect("the host reads"));
            assert!(called.iter().all(Result::is_ok), "a caller failed");
            times
        });
        assert!(times.iter().all(|times| *times >= 10), "the host was hardly there: {times:?}");
    }
    all_made_once(&server, &book);
    all_handed_over_again(&server, &config);
    let client = Owned::new(&config);
    assert_eq!(rows(&client, json!({ "outcome": "created" })).len(), NUMBERS);
}

#[test]
fn clients_that_come_and_go_beside_a_host_that_does() {
    let (server, book, config) = site();
    let stop = AtomicBool::new(false);
    drop(Owned::new(&config));
    std::thread::scope(|scope| {
        let host = scope.spawn(|| reads_on(&book.file(), OpenFlags::default(), &stop));
        let callers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    for number in (0..NUMBERS).map(name) {
                        let reply = Owned::new(&config).add(&task(&number));
                        assert_eq!((reply.code, reply.text()), (OK, &*success_body(&number)));
                    }
                })
            })
            .collect();
        let called: Vec<_> = callers.into_iter().map(|caller| caller.join()).collect();
        stop.store(true, Ordering::Relaxed);
        host.join().expect("the host reads");
        assert!(called.iter().all(Result::is_ok), "a caller failed");
    });
    all_made_once(&server, &book);
    all_handed_over_again(&server, &config);
}

#[test]
fn two_processes_of_eight_threads_that_add_one_number_make_one_request() {
    let (server, book) = (Server::plain(), Book::default());
    // Time enough for all of them to come while it is being made.
    let slowly = Step::Drain(Duration::from_millis(300));
    server.always(Script::request().then(slowly).then(Step::Make).then(Step::Answer(success)));
    let config = book.config(&server, json!({}));
    let adder = Adder::default();
    for round in 0..5 {
        let start = || adder.command(&config, "S", round, 1, 8, "all").stdout(Stdio::piped()).spawn();
        let both = [start(), start()].map(|program| Running(program.expect("it starts")));
        let mut answers: BTreeMap<String, usize> = BTreeMap::new();
        for mut program in both {
            let mut output = Vec::new();
            let mut pipe = program.0.stdout.take().expect("a pipe");
            pipe.read_to_end(&mut output).expect("what it printed");
            assert!(program.0.wait().expect("it ends").success());
            for call in calls(&output) {
                assert_eq!(call.code, OK, "{call:?}");
                *answers.entry(call.answer).or_default() += 1;
            }
        }
        assert_eq!(answers, BTreeMap::from([(success_body(&format!("S-{round}")), 16)]));
        assert_eq!(server.connections(), round + 1, "more than one request");
    }
    assert_eq!(book.integrity(), "ok");
}
