//! Many threads, several clients, and servers that do to each request whatever a seed draws: the ledger agrees with
//! every outcome, and no outcome is `unknown` that could have been known.
//!
//! `CHAOS_SECONDS` says how long, `CHAOS_SEED` with which seed. The same seed draws the same faults for the same
//! numbers; which of them meet is the threads' matter.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, c_char, c_void};
use std::fmt::Debug;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use arctos_tests::api::{CANCELLED, CREATED, NOT_CREATED, OK, Owned, Reply, UNKNOWN, arctos, task};
use arctos_tests::chaos::{Act, Arrival, BRIEF, Delivery, Draw, Gate, Loss, Meaning, Records, Rules, Server, words};
use arctos_tests::deadline::Scheme;
use arctos_tests::expected::NOT_CREATED_STATUS;
use arctos_tests::stage::{config_tls, with};
use arctos_tests::tls::{Authority, Identity, Version};

const THREADS: usize = 16;
const USUAL_SECONDS: u64 = 12;
const LONGEST_REMARK: usize = 2_000_000;
/// A request that is longer is not taken by the kernel at once.
const LONG: usize = 500_000;
/// The deadline of calls that have no shorter one.
const PATIENT: Duration = Duration::from_secs(3);
/// How much later than a thread that only slept a call may return.
const BEYOND_CONTROL: Duration = Duration::from_secs(1);
/// So many of what was wrong are told.
const SHOWN: usize = 20;

/// One client: which scheme it uses, how often it is called among all, and what its configuration has besides.
struct Kind {
    scheme: Scheme,
    weight: usize,
    keys: Value,
}

fn kinds() -> Vec<Kind> {
    const TLS12: Scheme = Scheme::Https(Version::Tls12);
    const TLS13: Scheme = Scheme::Https(Version::Tls13);
    [
        (Scheme::Http, 40, json!({})),
        (TLS13, 10, json!({})),
        (TLS12, 10, json!({})),
        (Scheme::Http, 5, json!({ "retries": 0, "connections": 2 })),
        (TLS12, 3, json!({ "retries": 0 })),
        (Scheme::Http, 5, json!({ "server_dedupes": true })),
        (TLS13, 5, json!({ "server_dedupes": true, "retries": 4 })),
        (Scheme::Http, 5, json!({ "retry_503": true, "connections": 1 })),
        (TLS12, 5, json!({ "retry_503": true })),
        (Scheme::Http, 5, json!({ "idle_timeout_ms": 20 })),
        (TLS13, 5, json!({ "idle_timeout_ms": 20, "connections": 1 })),
        (Scheme::Http, 2, json!({ "idle_timeout_ms": 0 })),
    ]
    .map(|(scheme, weight, keys)| Kind { scheme, weight, keys })
    .into()
}

impl Kind {
    fn says(&self, key: &str) -> bool {
        self.keys[key] == true
    }

    fn retries(&self) -> u64 {
        self.keys["retries"].as_u64().unwrap_or(2)
    }

    /// How many connections it may keep.
    fn kept(&self) -> u64 {
        if self.keys["idle_timeout_ms"] == 0 { 0 } else { self.keys["connections"].as_u64().unwrap_or(8) }
    }
}

/// The number of a call, which tells its client.
fn number(kind: usize, thread: usize, count: usize) -> String {
    format!("K{kind}-{thread}-{count}")
}

fn kind_of(number: &str) -> usize {
    let digits = number.strip_prefix('K').and_then(|rest| rest.split('-').next());
    digits.expect("a number of this test").parse().expect("a client")
}

/// What is drawn of a call.
struct Plan {
    timeout: Duration,
    /// How long after its begin it is cancelled by its id.
    cancel: Option<Duration>,
    /// How many bytes of remark its task has.
    remark: usize,
}

impl Plan {
    fn of(seed: u64, number: &str) -> Plan {
        let mut draw = Draw::new(seed, number);
        let timeout = if draw.chance(20) { Duration::from_millis(5) + draw.time(395) } else { PATIENT };
        let cancel = draw.chance(10).then(|| draw.time(150));
        let remark = if draw.chance(5) { draw.below(LONGEST_REMARK) } else { 0 };
        Plan { timeout, cancel, remark }
    }

    fn is_brief(&self) -> bool {
        self.timeout <= BRIEF || self.cancel.is_some()
    }
}

/// A call that has returned.
struct Done {
    number: String,
    begin: Instant,
    end: Instant,
    timeout: Duration,
    reply: Reply,
}

/// What runs beside the calls.
#[derive(Default)]
struct Beside {
    over: AtomicBool,
    /// What is to be cancelled, and when.
    to_cancel: Mutex<Vec<(Instant, String)>>,
    /// When calls were cancelled by their number, just before it.
    cancelled: Mutex<HashMap<String, Instant>>,
    /// When all calls of a client were, just before it.
    all_cancelled: Mutex<Vec<(usize, Instant)>>,
}

impl Beside {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::SeqCst)
    }

    /// Cancels calls by their ids.
    fn cancel(&self, clients: &[Owned]) {
        while self.goes_on() {
            let due: Vec<_> = lock(&self.to_cancel).extract_if(.., |(when, _)| *when <= Instant::now()).collect();
            for (_, number) in due {
                lock(&self.cancelled).insert(number.clone(), Instant::now());
                assert_eq!(clients[kind_of(&number)].cancel_call(&number), OK);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Restarts servers, and cancels all calls of a client.
    fn trouble(&self, seed: u64, servers: &[Server], clients: &[Owned]) -> u64 {
        let mut draw = Draw::new(seed, "trouble");
        let mut restarts = 0;
        while self.goes_on() {
            std::thread::sleep(Duration::from_millis(100) + draw.time(500));
            if draw.chance(60) {
                let server = &servers[draw.below(servers.len())];
                server.down();
                std::thread::sleep(draw.time(60));
                server.up();
                restarts += 1;
            } else {
                let kind = draw.below(clients.len());
                lock(&self.all_cancelled).push((kind, Instant::now()));
                assert_eq!(clients[kind].cancel(), OK);
            }
        }
        restarts
    }

    /// Sleeps again and again: the longest time by which it slept too long.
    fn control(&self) -> Duration {
        const SLEEP: Duration = Duration::from_millis(10);
        let mut worst = Duration::ZERO;
        while self.goes_on() {
            let start = Instant::now();
            std::thread::sleep(SLEEP);
            worst = worst.max(start.elapsed() - SLEEP);
        }
        worst
    }

    /// When a call was first cancelled.
    fn cancel_of(&self, call: &Done) -> Option<Instant> {
        let kind = kind_of(&call.number);
        let all = lock(&self.all_cancelled);
        let all = all.iter().filter(|(one, at)| *one == kind && (call.begin..=call.end).contains(at));
        let own = lock(&self.cancelled).get(&call.number).copied().filter(|at| *at <= call.end);
        all.map(|(_, at)| *at).chain(own).min()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics under it")
}

/// Calls until the time is over.
fn caller(
    seed: u64,
    thread: usize,
    until: Instant,
    kinds: &[Kind],
    gates: &[Arc<Gate>],
    clients: &[Owned],
    beside: &Beside,
) -> Vec<Done> {
    let mut draw = Draw::new(seed, &format!("thread {thread}"));
    let choices: Vec<(usize, usize)> = kinds.iter().enumerate().map(|(index, kind)| (kind.weight, index)).collect();
    let mut calls = Vec::new();
    while Instant::now() < until {
        let kind = draw.pick(&choices);
        let number = number(kind, thread, calls.len());
        let plan = Plan::of(seed, &number);
        let mut task = task(&number);
        if plan.remark > 0 {
            task.pop();
            task.push_str(&format!(",\"task_remark\":\"{}\"}}", "x".repeat(plan.remark)));
        }
        let options = json!({ "timeout_ms": plan.timeout.as_millis() as u64, "call_id": number }).to_string();
        let pass = gates[kind].enter();
        let begin = Instant::now();
        if let Some(cancel) = plan.cancel {
            lock(&beside.to_cancel).push((begin + cancel, number.clone()));
        }
        let reply = clients[kind].add_with(&task, &options);
        let end = Instant::now();
        drop(pass);
        calls.push(Done { number, begin, end, timeout: Duration::from_millis(plan.timeout.as_millis() as u64), reply });
    }
    calls
}

/// What a client knows of a request from an answer.
#[derive(PartialEq, Eq)]
enum Known {
    Refused,
    Made,
}

fn known(arrival: &Arrival, kind: &Kind) -> Option<Known> {
    match arrival.fault?.meaning {
        Meaning::Status(status) => {
            let refused = NOT_CREATED_STATUS.contains(&status) || (status == 503 && kind.says("retry_503"));
            (arrival.head && refused).then_some(Known::Refused)
        }
        Meaning::Failed => arrival.whole.then_some(Known::Refused),
        Meaning::Made | Meaning::Warned | Meaning::Numberless => arrival.whole.then_some(Known::Made),
    }
}

/// Whether a client may send a request again after this answer.
fn may_repeat(arrival: &Arrival, kind: &Kind) -> bool {
    let passes = arrival.fault.is_some_and(|fault| matches!(fault.meaning, Meaning::Status(429 | 503)));
    kind.says("server_dedupes") || (passes && known(arrival, kind) == Some(Known::Refused))
}

/// Checks one call; of one that is `unknown`, why nobody could know.
fn judge(
    call: &Done,
    kind: &Kind,
    arrivals: &[&Arrival],
    made: u32,
    cancel: Option<Instant>,
    records: &Records,
) -> Result<Option<String>, String> {
    let Done { number, begin, end, timeout, reply } = call;
    let (code, outcome) = (reply.code, reply.outcome);
    if let Some(wrong) = arrivals.iter().find_map(|arrival| arrival.wrong.clone()) {
        return Err(wrong);
    }
    if arrivals.iter().any(|arrival| arrival.closed.is_some_and(|closed| closed < *begin)) {
        return Err(
            "went over a connection that had ended, or had brought more than its answer, before it began".into()
        );
    }
    if made > 1 {
        return Err(format!("made {made} times"));
    }
    if let Some((_, earlier)) = arrivals.split_last()
        && !earlier.iter().all(|arrival| may_repeat(arrival, kind))
    {
        return Err("was sent again after what may have made it".into());
    }
    let digests: Vec<u64> = arrivals.iter().filter_map(|arrival| arrival.digest).collect();
    if digests.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err("the bytes of a repeat are others".into());
    }
    if arrivals.len() as u64 > 1 + kind.retries() {
        return Err("more tries than retries allow".into());
    }
    let last = arrivals.last().copied();
    let document = reply.json();
    if code == OK {
        if document["info"]["task_num"] != format!("T-{number}") {
            return Err("the answer is that of another number".into());
        }
        if made != 1 || !last.is_some_and(|last| known(last, kind) == Some(Known::Made)) {
            return Err(format!("a success, made {made} times"));
        }
        return Ok(None);
    }
    if document["out_task_num"] != **number {
        return Err("the document names another number".into());
    }
    if document.get("server_message").is_some_and(|message| *message != words(number)) {
        return Err("the server's words are those for another number".into());
    }
    let attempts = document["attempts"].as_u64().unwrap_or(0);
    if attempts < arrivals.len() as u64 || attempts > 1 + kind.retries() {
        return Err(format!("{} arrived, and attempts says otherwise", arrivals.len()));
    }
    if let Some(status) = document["http_status"].as_u64() {
        let said = last.and_then(|last| last.fault.filter(|_| last.head)).map(|fault| match fault.meaning {
            Meaning::Status(status) => u64::from(status),
            _ => 200,
        });
        if said != Some(status) {
            return Err(format!("http_status is {status}, and the server said {said:?}"));
        }
    }
    if code == CANCELLED && cancel.is_none() {
        return Err("nobody had cancelled it".into());
    }
    match (outcome, made) {
        (NOT_CREATED, 0) if arrivals.iter().all(|arrival| known(arrival, kind) == Some(Known::Refused)) => Ok(None),
        (NOT_CREATED, 0) => Err("not_created, and a request that arrived was not refused".into()),
        (NOT_CREATED, _) => Err("not_created, and made".into()),
        (CREATED, 1) if last.is_some_and(|last| known(last, kind) == Some(Known::Made)) => Ok(None),
        (CREATED, _) => Err(format!("created, made {made} times")),
        (UNKNOWN, _) => {
            let limit = (*begin + *timeout).min(cancel.unwrap_or(*begin + *timeout));
            let in_time = |arrival: &Arrival| arrival.acknowledged.is_some_and(|at| at < limit);
            if last.is_some_and(|last| known(last, kind) == Some(Known::Made) && in_time(last)) {
                return Err("unknown, and the server had said in time that it was made".into());
            }
            // Without the word of a server that knows repeats, another try shows that the one before was refused.
            let refused = if kind.says("server_dedupes") { 0 } else { arrivals.len().saturating_sub(1) };
            let open = |arrival: &&&Arrival| known(arrival, kind).is_none() || !in_time(arrival);
            if let Some(open) = arrivals.iter().skip(refused).find(open) {
                return Ok(Some(because(open, kind)));
            }
            let since = last.map_or(*begin, |last| last.at);
            let nameless = |one: &Arrival| one.number.is_none() && (since..=*end).contains(&one.at);
            if records.arrivals.iter().any(nameless) || may_be_lost(call, &records.losses) {
                return Ok(Some("on its way when the server reset its connection".into()));
            }
            Err(match arrivals.len() {
                0 => "unknown, and no byte of it arrived, nor could one have been lost".into(),
                count => format!("unknown, and all of {count} requests had been refused in time"),
            })
        }
        other => Err(format!("no such outcome: {other:?}")),
    }
}

/// Whether a request of the call can have been lost unseen: the server reset a connection that may be the call's after
/// the call had it.
fn may_be_lost(call: &Done, losses: &[Loss]) -> bool {
    let log = lock(&LOG);
    let had = log.connections.get(&call.number).map(Vec::as_slice).unwrap_or_default();
    had.iter().enumerate().any(|(index, this)| {
        let until = had.get(index + 1).map_or(call.end, |next| next.at);
        let fits = |loss: &Loss| if this.kept { loss.kept } else { loss.opened.is_none_or(|at| call.begin < at) };
        losses.iter().any(|loss| fits(loss) && loss.from <= until && this.at <= loss.to)
    })
}

/// Why a client cannot know what became of a request.
fn because(open: &Arrival, kind: &Kind) -> String {
    match (open.because, open.fault) {
        (Some(because), _) => because.to_owned(),
        (None, None) => "the request was not whole".to_owned(),
        (None, Some(_)) if known(open, kind).is_some() => "the answer came as the call ended".to_owned(),
        (None, Some(fault)) if open.whole => format!("answered with {:?}", fault.meaning),
        (None, Some(fault)) => match (fault.act, fault.delivery) {
            (Act::Answer | Act::Early, Delivery::Whole | Delivery::Slow | Delivery::Burst) => {
                "the call ended before the answer".to_owned()
            }
            (Act::Answer | Act::Early, cut) => format!("{cut:?}"),
            (act, _) => format!("{act:?}{}", if fault.makes { ", made" } else { "" }),
        },
    }
}

/// What the log told.
static LOG: Mutex<Log> = Mutex::new(Log { events: BTreeMap::new(), connections: BTreeMap::new() });

struct Log {
    /// How many lines there are of each event.
    events: BTreeMap<String, u64>,
    /// When each call, by its number, had a connection: before it wrote anything.
    connections: BTreeMap<String, Vec<Had>>,
}

/// A call has a connection.
#[derive(Clone, Copy)]
struct Had {
    at: Instant,
    /// Whether it was kept from an earlier call.
    kept: bool,
}

unsafe extern "C" fn log(_: *mut c_void, _: i32, line: *const c_char) {
    // SAFETY: the library hands over a text.
    let line = unsafe { CStr::from_ptr(line) }.to_string_lossy();
    let text = |key: &str| line.split_once(&format!("\"{key}\":\"")).and_then(|(_, rest)| rest.split('"').next());
    let (event, number) = (text("event").unwrap_or("no event"), text("out_task_num").unwrap_or("no number"));
    *lock(&LOG).events.entry(event.to_owned()).or_default() += 1;
    if ["connect", "reuse"].contains(&event) {
        // What comes between the look at a connection and the first byte has more time to come.
        let mut draw = Draw::new(0, &line);
        if draw.chance(5) {
            std::thread::sleep(draw.time(3));
        }
        let had = Had { at: Instant::now(), kept: event == "reuse" };
        lock(&LOG).connections.entry(number.to_owned()).or_default().push(had);
    }
}

/// Counts by name.
#[derive(Default)]
struct Counts(BTreeMap<String, BTreeMap<String, u64>>);

impl Counts {
    fn add(&mut self, of: &str, name: impl Into<String>) {
        *self.0.entry(of.to_owned()).or_default().entry(name.into()).or_default() += 1;
    }

    fn print(&self) {
        for (of, counts) in &self.0 {
            println!("{of}");
            for (name, count) in counts {
                println!("  {count:>8}  {name}");
            }
        }
    }
}

/// How many entries a folder has.
fn entries(folder: &str) -> usize {
    std::fs::read_dir(Path::new(folder)).expect("Linux tells").count()
}

fn descriptors() -> usize {
    entries("/proc/self/fd")
}

fn threads() -> usize {
    entries("/proc/self/task")
}

fn name_of(code: i32) -> String {
    // SAFETY: a static text.
    let name = unsafe { CStr::from_ptr((arctos().code_name)(code)) };
    name.to_string_lossy().into_owned()
}

fn word_of(outcome: i32) -> &'static str {
    ["not_created", "created", "unknown"].get(outcome as usize).copied().unwrap_or("none")
}

/// A number that the environment sets.
fn setting(name: &str, usual: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
        Err(_) => usual,
    }
}

fn same<T: PartialEq + Debug>(what: &str, now: T, before: T) -> Option<String> {
    (now != before).then(|| format!("{what}: {before:?} before, {now:?} after"))
}

#[test]
fn the_ledger_agrees_with_every_outcome() {
    let seconds = setting("CHAOS_SECONDS", USUAL_SECONDS);
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_micros();
    let seed = setting("CHAOS_SEED", u64::try_from(clock).expect("64 bits"));
    println!("CHAOS_SEED={seed} CHAOS_SECONDS={seconds}");

    let kinds: Arc<Vec<Kind>> = Arc::new(kinds());
    let gates: Vec<Arc<Gate>> = kinds.iter().map(|_| Arc::default()).collect();
    let authority = Authority::new();
    // SAFETY: the function stays as long as the process, and takes every line.
    unsafe { (arctos().set_log)(Some(log), std::ptr::null_mut(), 4) };
    let before = (descriptors(), threads());

    let servers = Scheme::ALL.map(|scheme| {
        let (kinds, gates) = (Arc::clone(&kinds), gates.clone());
        let rules = move |number: &str| {
            let (kind, plan) = (kind_of(number), Plan::of(seed, number));
            Rules {
                brief: plan.is_brief(),
                long: plan.remark > LONG,
                idle_503: kinds[kind].says("retry_503"),
                dedupes: kinds[kind].says("server_dedupes"),
                gate: Arc::clone(&gates[kind]),
            }
        };
        let tls = match scheme {
            Scheme::Http => None,
            Scheme::Https(version) => Some(authority.server(Identity::right(version))),
        };
        Server::new(seed, tls, rules)
    });
    let place = |kind: &Kind| Scheme::ALL.iter().position(|scheme| *scheme == kind.scheme).expect("all are there");
    let clients: Vec<Owned> = kinds
        .iter()
        .map(|kind| {
            let usual = json!({ "retries": 2, "idle_timeout_ms": 4000, "connect_timeout_ms": 500 });
            let config = config_tls(&servers[place(kind)].base_url(), &authority);
            Owned::new(&with(with(config, usual), kind.keys.clone()))
        })
        .collect();

    let beside = Beside::default();
    let until = Instant::now() + Duration::from_secs(seconds);
    let (calls, restarts, overslept) = std::thread::scope(|scope| {
        let (beside, kinds, gates, servers, clients) = (&beside, &kinds, &gates, &servers, &clients);
        let canceller = scope.spawn(|| beside.cancel(clients));
        let trouble = scope.spawn(|| beside.trouble(seed, servers, clients));
        let control = scope.spawn(|| beside.control());
        let callers: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || caller(seed, thread, until, kinds, gates, clients, beside)))
            .collect();
        let calls: Vec<_> = callers.into_iter().map(|caller| caller.join()).collect();
        beside.over.store(true, Ordering::SeqCst);
        canceller.join().expect("it cancels");
        let (restarts, overslept) = (trouble.join().expect("it restarts"), control.join().expect("it sleeps"));
        let calls: Vec<Done> = calls.into_iter().flat_map(|calls| calls.expect("every reply can be read")).collect();
        (calls, restarts, overslept)
    });

    let mut wrong: Vec<String> = Vec::new();
    let mut counts = Counts::default();
    // What is kept stays open; all else has been closed by the calls.
    let mut kept = 0;
    for (place_of_server, server) in servers.iter().enumerate() {
        let most = kinds.iter().filter(|kind| place(kind) == place_of_server).map(Kind::kept).sum();
        match server.await_open(most) {
            Ok(open) => kept += open,
            Err(what) => wrong.push(what),
        }
    }
    let records: Vec<Records> = servers.iter().map(Server::records).collect();
    servers.iter().for_each(Server::down);
    let left = descriptors().saturating_sub(before.0);
    let most: u64 = kinds.iter().map(Kind::kept).sum();
    if left as u64 > most {
        wrong.push(format!("{left} descriptors are left, and at most {most} connections are kept"));
    }
    drop(clients);
    drop(servers);
    wrong.extend(same("descriptors", descriptors(), before.0));
    wrong.extend(same("threads", threads(), before.1));
    // SAFETY: as above.
    unsafe { (arctos().set_log)(None, std::ptr::null_mut(), 0) };

    let mut arrivals: HashMap<&str, Vec<&Arrival>> = HashMap::new();
    for arrival in records.iter().flat_map(|records| &records.arrivals) {
        counts.add("requests that arrived", if arrival.kept { "over a kept connection" } else { "over a new one" });
        for label in arrival.fault.iter().flat_map(|fault| fault.labels()) {
            counts.add("faults drawn", label);
        }
        match &arrival.number {
            Some(number) => arrivals.entry(number).or_default().push(arrival),
            None => counts.add("requests that arrived", "too little to tell which"),
        }
    }
    let mut late = Duration::ZERO;
    let mut results: BTreeMap<i32, u64> = BTreeMap::new();
    for call in &calls {
        let index = kind_of(&call.number);
        let (kind, records) = (&kinds[index], &records[place(&kinds[index])]);
        let arrivals = arrivals.remove(&*call.number).unwrap_or_default();
        let made = records.ledger.made(&call.number);
        let cancel = beside.cancel_of(call);
        let (code, outcome) = (name_of(call.reply.code), word_of(call.reply.outcome));
        counts.add("calls", format!("{code} {outcome}"));
        *results.entry(call.reply.outcome).or_default() += 1;
        let took = call.end - call.begin;
        late = late.max(took.saturating_sub(call.timeout));
        let judged = match judge(call, kind, &arrivals, made, cancel, records) {
            Ok(_) if took > call.timeout + BEYOND_CONTROL + overslept => Err(format!("took {took:?}")),
            judged => judged,
        };
        match judged {
            Ok(None) => {}
            Ok(Some(because)) => counts.add("unknown", format!("{code}: {because}")),
            Err(what) => {
                let since = |at: Instant| format!("{:+.3} ms", ms(at, call.begin));
                let seen: Vec<String> = arrivals
                    .iter()
                    .map(|one| {
                        format!(
                            "\n    at {} over connection {} ({}), head {} whole {} acknowledged {:?} {:?} {:?}",
                            since(one.at),
                            one.connection,
                            if one.kept { "kept" } else { "new" },
                            one.head,
                            one.whole,
                            one.acknowledged.map(since),
                            one.because,
                            one.fault
                        )
                    })
                    .collect();
                wrong.push(format!(
                    "{}: {what}\n  {:?} {:?}, made {made} times, took {took:?} of {:?}, cancelled {:?}\n  {:?}{}",
                    call.number,
                    kind.scheme,
                    kind.keys.to_string(),
                    call.timeout,
                    cancel.map(since),
                    call.reply,
                    seen.concat()
                ));
            }
        }
    }
    wrong.extend(arrivals.keys().map(|number| format!("{number} arrived, and nobody sent it")));

    for (event, count) in &lock(&LOG).events {
        counts.0.entry("events of the log".to_owned()).or_default().insert(event.clone(), *count);
    }
    let connections: u64 = records.iter().map(|records| records.connections).sum();
    let stale: u64 = records.iter().map(|records| records.stale).sum();
    counts.print();
    println!(
        "{} calls, {connections} connections, {restarts} restarts, {stale} second answers between two calls, {} cancels \
         of one call, {} of all of a client; {kept} connections were kept at the end; the latest call returned {late:?} \
         after its deadline, a sleeping thread up to {overslept:?} after its time",
        calls.len(),
        lock(&beside.cancelled).len(),
        lock(&beside.all_cancelled).len(),
    );
    let many = wrong.len();
    wrong.truncate(SHOWN);
    assert!(many == 0, "CHAOS_SEED={seed}: {many} are wrong:\n{}", wrong.join("\n"));
    // What would make the rest say nothing.
    if seconds >= USUAL_SECONDS {
        let event = |name: &str| lock(&LOG).events.get(name).copied().unwrap_or(0);
        assert!([NOT_CREATED, CREATED, UNKNOWN].iter().all(|outcome| results.contains_key(outcome)), "{results:?}");
        assert!(["connect", "reuse", "retry", "cancel"].iter().all(|name| event(name) > 0), "an event is missing");
        assert!(restarts > 0 && stale > 0, "{restarts} restarts, {stale} second answers");
    }
}

/// How many milliseconds an instant is after another.
fn ms(at: Instant, start: Instant) -> f64 {
    match at.checked_duration_since(start) {
        Some(after) => after.as_secs_f64() * 1000.0,
        None => -(start - at).as_secs_f64() * 1000.0,
    }
}
