//! A program that is killed at any instant loses nothing of what its journal promises: no appointment is made twice, and
//! what became of each can be told.
//!
//! `KILL_ROUNDS` says how often, `KILL_SEED` with which seed.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arctos_tests::api::{BROKEN, CREATED, OK, Owned, UNKNOWN, UNRESOLVED};
use arctos_tests::chaos::Draw;
use arctos_tests::http::{head, success, success_body};
use arctos_tests::journal::{Adder, Book, Call, calls, rows};
use arctos_tests::ledger::Ledger;
use arctos_tests::server::{Script, Server, Step};
use arctos_tests::tools::Running;
use serde_json::{Value, json};

/// Numbers of a round, and the threads that make them.
const NUMBERS: usize = 12;
const THREADS: usize = 4;

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |value| value.parse().expect("a number"))
}

/// What the server does with a request: mostly it serves it, now or later; sometimes nobody hears of what it made.
fn script(draw: &mut Draw) -> Script {
    let later = Script::silent().then(Step::Pieces(head("102 Processing", &[]), usize::MAX, draw.time(4)));
    let made = Script::silent().then(Step::Make);
    let served = made.clone().then(Step::Answer(success));
    draw.pick(&[
        (12, served.clone()),
        (4, later.clone().and(served)),
        (4, made.clone().and(later).then(Step::Answer(success))),
        (1, made.then(Step::Reset)),
        (1, Script::silent().then(Step::Reset)),
    ])
}

/// Says which seed it was when the test fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("KILL_SEED={}", self.0);
        }
    }
}

/// How many numbers tell of which instant.
#[derive(Debug, Default)]
struct Hits {
    /// The program died, or was done with others, before the intent.
    no_row: usize,
    /// It died between the intent and the request …
    unsent: usize,
    /// … between the request and its answer …
    unanswered: usize,
    /// … and between the answer and the outcome.
    answered: usize,
    unknown_and_made: usize,
    unknown_and_not_made: usize,
    created: usize,
}

/// The server, the journal, and the program that is killed.
struct Site {
    server: Server,
    book: Book,
    config: Value,
    adder: Adder,
}

impl Site {
    fn new() -> Site {
        let (server, book) = (Server::plain(), Book::default());
        server.always(Script::forever(Script::request().then(Step::ByNumber)));
        let config = book.config(&server, json!({ "idle_timeout_ms": 60_000 }));
        Site { server, book, config, adder: Adder::default() }
    }

    fn program(&self, round: usize) -> Running {
        let mut command = self.adder.command(&self.config, "K", round * NUMBERS, NUMBERS, THREADS, "each");
        Running(command.stdout(Stdio::piped()).spawn().expect("it starts"))
    }

    /// One round: what the programs were told, and how long the first one took.
    fn round(&self, round: usize, draw: &mut Draw, kill_after: Option<Duration>) -> (Vec<Call>, Duration) {
        for number in round * NUMBERS..(round + 1) * NUMBERS {
            self.server.number(&name(number), script(draw));
        }
        let begun = Instant::now();
        let first = self.program(round);
        // Now and then another one adds the same numbers, and lives on.
        let other = draw.chance(25).then(|| self.program(round));
        if let Some(delay) = kill_after {
            std::thread::sleep(delay);
        }
        let told = ended(first, kill_after.is_some());
        let took = begun.elapsed();
        let others = other.map(|other| ended(other, false)).unwrap_or_default();
        ([told, others].concat(), took)
    }

    /// For each number that was asked for, whether the whole answer was sent. No number may be asked for twice.
    fn requests(&self) -> BTreeMap<String, bool> {
        let mut requests = BTreeMap::new();
        let seen = self.server.settle(0).expect("the programs have ended");
        for exchange in seen.iter().flat_map(|seen| &seen.exchanges) {
            let Some(request) = &exchange.request else { continue };
            let number = request.out_task_num().expect("a number");
            let answered = exchange.sent.ends_with(success_body(&number).as_bytes());
            assert_eq!(requests.insert(number.clone(), answered), None, "{number} was sent twice");
        }
        requests
    }
}

fn name(number: usize) -> String {
    format!("K-{number}")
}

/// Waits until a program has ended, and gives what it was told; one that is killed may have been done before.
fn ended(mut program: Running, kill: bool) -> Vec<Call> {
    if kill {
        program.0.kill().expect("SIGKILL");
    }
    let mut output = Vec::new();
    program.0.stdout.take().expect("a pipe").read_to_end(&mut output).expect("what it printed");
    let status = program.0.wait().expect("it ends");
    assert!(status.success() || kill && status.signal() == Some(libc::SIGKILL), "{status}");
    calls(&output)
}

/// What the program was told before it died stands in the journal and is true.
fn check_told(call: &Call, row: &Value, made: u32) {
    match (call.code, call.outcome, made) {
        (OK, CREATED, 1) => {
            assert_eq!(row["outcome"], "created", "{call:?}");
            assert_eq!(call.answer, success_body(&call.number));
        }
        // The outcome of who died may be whole in the log, and be found there when the file is opened anew.
        (UNRESOLVED, UNKNOWN, 1) if row["outcome"] == "created" => {}
        (BROKEN | UNRESOLVED, UNKNOWN, _) => assert_eq!(row["outcome"], "unknown", "{call:?}"),
        _ => panic!("made {made} times: {call:?}"),
    }
}

/// Compares the journal with the ledger, for so many numbers.
fn compare(total: usize, ledger: &Ledger, requests: &BTreeMap<String, bool>, book: &BTreeMap<String, Value>) -> Hits {
    let mut hits = Hits::default();
    for number in (0..total).map(name) {
        let made = ledger.made(&number);
        assert!(made <= 1, "{number} was made {made} times");
        let Some(row) = book.get(&number) else {
            assert!(!requests.contains_key(&number), "{number} was sent, and the journal does not know it");
            hits.no_row += 1;
            continue;
        };
        match row["outcome"].as_str() {
            Some("created") => {
                assert_eq!(made, 1, "{row}");
                assert_eq!(row["answer"]["info"]["task_num"], format!("T-{number}"));
                hits.created += 1;
            }
            Some("unknown") => {
                *if made == 1 { &mut hits.unknown_and_made } else { &mut hits.unknown_and_not_made } += 1;
                // A row has no end where the program that wrote it had none.
                match requests.get(&number) {
                    _ if row.get("ended").is_some() => {}
                    None => hits.unsent += 1,
                    Some(false) => hits.unanswered += 1,
                    Some(true) => hits.answered += 1,
                }
            }
            _ => panic!("made {made} times: {row}"),
        }
    }
    assert_eq!(ledger.all().len(), hits.created + hits.unknown_and_made);
    hits
}

/// As a person who looks into the server's ledger.
fn resolve(client: &Owned, ledger: &Ledger) {
    for row in rows(client, json!({ "outcome": "unknown" })) {
        let number = row["out_task_num"].as_str().expect("a number");
        let resolution = match ledger.made(number) {
            0 => json!({ "outcome": "not_created", "by": "a clerk", "note": "not in the ledger" }),
            _ => json!({ "outcome": "created", "task_num": format!("T-{number}"), "by": "a clerk" }),
        };
        let reply = client.journal_resolve(number, &resolution.to_string());
        assert_eq!(reply.code, OK, "{reply:?}");
    }
}

#[test]
fn a_program_that_is_killed_makes_nothing_twice_and_leaves_the_truth() {
    let rounds = usize::try_from(setting("KILL_ROUNDS", 100)).expect("a number of rounds");
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
    let seed = Seed(setting("KILL_SEED", u64::try_from(clock).expect("64 bits")));
    let (site, mut draw, begun) = (Site::new(), Draw::new(seed.0, "kill"), Instant::now());

    // The first ones live, and tell how long one takes.
    const LIVING: usize = 5;
    let mut told = Vec::new();
    let mut usual = Duration::ZERO;
    for round in 0..LIVING {
        let (calls, took) = site.round(round, &mut draw, None);
        told.extend(calls);
        usual += took / LIVING as u32;
    }
    for round in LIVING..LIVING + rounds {
        let delay = usual.mul_f64(draw.below(1_000) as f64 / 1_000.0);
        told.extend(site.round(round, &mut draw, Some(delay)).0);
    }
    let total = (LIVING + rounds) * NUMBERS;

    let (requests, ledger) = (site.requests(), site.server.ledger());
    assert_eq!(site.book.integrity(), "ok");
    let client = Owned::new(&site.config);
    let all = rows(&client, json!({}));
    let count = all.len();
    let book: BTreeMap<String, Value> =
        all.into_iter().map(|row| (row["out_task_num"].as_str().expect("a number").to_owned(), row)).collect();
    assert_eq!(book.len(), count, "a number has two rows");
    let hits = compare(total, &ledger, &requests, &book);
    for call in &told {
        check_told(call, &book[&call.number], ledger.made(&call.number));
    }

    resolve(&client, &ledger);
    for number in (0..total).map(name) {
        site.server.number(&number, Script::silent().then(Step::Make).then(Step::Answer(success)));
    }
    let added = Adder::run(&mut site.adder.command(&site.config, "K", 0, total, 8, "each"));
    assert_eq!(added.len(), total);
    for call in &added {
        let answer: Value = serde_json::from_str(&call.answer).expect("JSON");
        assert_eq!((call.code, &answer["info"]["task_num"]), (OK, &json!(format!("T-{}", call.number))), "{call:?}");
    }
    let ledger = site.server.ledger();
    assert!(ledger.all().values().all(|made| *made == 1), "{ledger:?}");
    assert_eq!(ledger.all().len(), total);
    assert_eq!(rows(&client, json!({ "outcome": "created", "limit": 1_000 })).len(), total);
    assert_eq!(site.book.integrity(), "ok");

    if std::env::var_os("KILL_ROUNDS").is_some() {
        println!("KILL_ROUNDS={rounds} KILL_SEED={}: {:.0?}, {usual:.0?} a round, {hits:?}", seed.0, begun.elapsed());
    }
    let Hits { no_row, unsent, unanswered, answered, unknown_and_made, unknown_and_not_made, created } = hits;
    let all = [no_row, unsent, unanswered, answered, unknown_and_made, unknown_and_not_made, created];
    assert!(rounds < 100 || all.iter().all(|hits| *hits > 0), "an instant was never hit: {hits:?}");
}
