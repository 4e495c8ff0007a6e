//! nginx and haproxy as they come from Debian, in front of a server that keeps a ledger: however they limit and reload
//! their connections, and whatever becomes of the server behind them, no appointment is made twice, and every outcome
//! is true.
//!
//! `FRONTS_CALLS` says how many calls go through each front while it reloads; all else grows with it.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, c_char, c_void};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use arctos_tests::api::{BROKEN, BUSY, CREATED, NOT_CREATED, OK, Owned, Reply, SERVER_ERROR, UNKNOWN, arctos, task};
use arctos_tests::chaos::Draw;
use arctos_tests::front::{Front, Program, Rules};
use arctos_tests::http::{Framing, answer, success};
use arctos_tests::server::{Script, Server, Step};
use arctos_tests::stage::{at_once, config_tls, with};
use arctos_tests::tls::Authority;

const THREADS: usize = 8;
/// How many calls go through a front while it reloads.
const USUAL_CALLS: usize = 12_000;
/// A front reloads once in so many calls.
const CALLS_A_RELOAD: usize = 4_000;
/// Of so many calls over kept connections one may be unknown because a front reloaded.
const ONE_IN: usize = 1_000;
/// A time that nothing comes near.
const LONG: Duration = Duration::from_secs(60);
/// How long a front waits for a server that says nothing.
const SHORT: Duration = Duration::from_millis(300);
/// So many of what was wrong are told.
const SHOWN: usize = 20;

/// What becomes of a request that has reached the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is made, and the server says so.
    Served,
    /// It is refused by 403.
    Refused,
    /// It is made, and the server dies by a reset.
    MadeReset,
    /// It is made, and the server dies by an end.
    MadeClosed,
    /// It is made, and the server says nothing.
    MadeSilent,
    /// It is made, and the server dies in the middle of its answer.
    MadeCut,
    /// The server dies by a reset before it makes it.
    Reset,
    /// The server dies by an end before it makes it.
    Closed,
    /// The server says nothing, and does not make it.
    Silent,
}

impl Fate {
    /// Any of them.
    fn draw(draw: &mut Draw) -> Fate {
        draw.pick(&[
            (60, Fate::Served),
            (5, Fate::Refused),
            (6, Fate::MadeReset),
            (6, Fate::MadeClosed),
            (1, Fate::MadeSilent),
            (6, Fate::MadeCut),
            (6, Fate::Reset),
            (6, Fate::Closed),
            (1, Fate::Silent),
        ])
    }

    /// What the server does when it has read the request with this number.
    fn script(self, number: &str) -> Script {
        let read = Script::silent();
        let made = Script::silent().then(Step::Make);
        match self {
            Fate::Served => made.then(Step::Answer(success)),
            Fate::Refused => read.send(answer("403 Forbidden", Framing::Length, b"{}")),
            Fate::MadeReset => made.then(Step::Reset),
            Fate::MadeClosed => made.fin(),
            Fate::MadeSilent => made,
            Fate::MadeCut => {
                let whole = success(number);
                made.send(&whole[..whole.len() - 9]).fin()
            }
            Fate::Reset => read.then(Step::Reset),
            Fate::Closed => read.fin(),
            Fate::Silent => read,
        }
    }

    /// What the client must say of it, and how often the ledger holds it, where nothing else goes wrong.
    fn expected(self) -> (i32, u32) {
        match self {
            Fate::Served => (CREATED, 1),
            Fate::Refused => (NOT_CREATED, 0),
            Fate::MadeReset | Fate::MadeClosed | Fate::MadeSilent | Fate::MadeCut => (UNKNOWN, 1),
            Fate::Reset | Fate::Closed | Fate::Silent => (UNKNOWN, 0),
        }
    }
}

/// What the log told the thread of the call that it is in.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    /// Whether the latest connection was kept from an earlier call.
    kept: bool,
    connects: usize,
    retries: usize,
}

thread_local! {
    static TOLD: Cell<Told> = Cell::default();
}

unsafe extern "C" fn log(_: *mut c_void, _: i32, line: *const c_char) {
    // SAFETY: the library hands over a text.
    let line = unsafe { CStr::from_ptr(line) }.to_string_lossy();
    let event = line.split_once("\"event\":\"").and_then(|(_, rest)| rest.split('"').next());
    let mut told = TOLD.get();
    match event {
        Some("connect") => (told.kept, told.connects) = (false, told.connects + 1),
        Some("reuse") => told.kept = true,
        Some("retry") => told.retries += 1,
        _ => return,
    }
    TOLD.set(told);
}

/// A call that has returned.
struct Done {
    number: String,
    fate: Fate,
    told: Told,
    took: Duration,
    reply: Reply,
    /// How often its whole request reached the server.
    arrived: usize,
    /// How often the ledger holds it.
    made: u32,
}

impl Done {
    fn is_unknown(&self) -> bool {
        self.reply.outcome == UNKNOWN
    }

    fn status(&self) -> Option<u64> {
        self.reply.json()["http_status"].as_u64()
    }

    /// Why its outcome is unknown, as far as the library says.
    fn cause(&self) -> String {
        let kept = if self.told.kept { "kept" } else { "new" };
        match (self.reply.code, self.status()) {
            (BROKEN, None) => format!("a {kept} connection ended without an answer"),
            (BROKEN, Some(_)) => "the answer was cut off".to_owned(),
            (_, Some(status)) => format!("HTTP {status}"),
            (code, None) => format!("code {code}"),
        }
    }

    /// Whether its outcome is true.
    fn judge(&self) -> Result<(), String> {
        if self.made > 1 || self.arrived > 1 {
            return Err("went to the server more than once".to_owned());
        }
        let document = self.reply.json();
        match (self.reply.code, self.reply.outcome) {
            (OK, CREATED) if self.made != 1 => Err("a success".to_owned()),
            (OK, CREATED) if document["info"]["task_num"] != format!("T-{}", self.number) => {
                Err("the answer is that of another call".to_owned())
            }
            (OK, CREATED) => Ok(()),
            (_, NOT_CREATED) if self.made > 0 => Err("not_created, and made".to_owned()),
            (_, NOT_CREATED) if self.arrived > 0 && self.fate != Fate::Refused => {
                Err("not_created, and nobody has said so".to_owned())
            }
            (_, NOT_CREATED) => Ok(()),
            (BROKEN | BUSY | SERVER_ERROR, UNKNOWN) => Ok(()),
            other => Err(format!("{other:?} must not be")),
        }
    }

    /// As `judge`, where nothing else goes wrong but what its fate says.
    fn judge_exactly(&self) -> Result<(), String> {
        self.judge()?;
        match self.arrived {
            // The front used a connection that the server had just ended.
            0 if self.is_unknown() => Ok(()),
            1 if (self.reply.outcome, self.made) == self.fate.expected() => Ok(()),
            _ => Err("not what its fate demands".to_owned()),
        }
    }
}

/// One test at a time: each of them needs all cores.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // SAFETY: the function stays as long as the process, and takes every line.
    unsafe { (arctos().set_log)(Some(log), std::ptr::null_mut(), 4) };
    // Another test may have failed.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One front before one server, and clients for http and https.
struct Scene {
    name: String,
    clients: Vec<Owned>,
    front: Front,
    server: Server,
}

impl Scene {
    /// A client for each of these keys, for http and https in turn. `None` when the program is not installed.
    #[track_caller]
    fn new(program: Program, case: &str, rules: &Rules, keys: &[Value]) -> Option<Scene> {
        let name = format!("{program:?}, {case}");
        let (server, authority) = (Server::plain(), Authority::new());
        server.always(Script::forever(Script::request().then(Step::ByNumber)));
        let front = Front::start(&name, program, server.address(), &authority, rules)?;
        let usual = json!({ "retries": 2, "idle_timeout_ms": 4000 });
        let client = |(index, keys): (usize, &Value)| {
            let config = config_tls(&front.base_url(index % 2 == 1), &authority);
            Owned::new(&with(with(config, usual.clone()), keys.clone()))
        };
        let clients = keys.iter().enumerate().map(client).collect();
        Some(Scene { name, clients, front, server })
    }

    /// Makes so many calls from all threads, each over any of the clients, or over its own where there
    /// are as many; `plan` draws the pause before a call and what
    /// becomes of it. Beside them `beside` does what it does: it is given the count of calls that have returned. Then
    /// ends everything, and tells what came of the calls when nothing more can come.
    #[track_caller]
    fn run(
        self,
        count: usize,
        plan: impl Fn(&mut Draw) -> (Duration, Fate) + Sync,
        beside: impl FnOnce(&mut Front, &Server, &AtomicUsize),
    ) -> Report {
        let Scene { name, clients, mut front, server } = self;
        let (begun, returned) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let begin = Instant::now();
        let caller = |thread: usize| {
            let mut draw = Draw::new(0, &format!("{name} {thread}"));
            let mut calls = Vec::new();
            while begun.fetch_add(1, Ordering::SeqCst) < count {
                let number = format!("F{thread}-{}", calls.len());
                let (pause, fate) = plan(&mut draw);
                server.number(&number, fate.script(&number));
                // One for each of them idles as long as its thread does.
                let choice = if clients.len() == THREADS { thread } else { draw.below(clients.len()) };
                let client = &clients[choice];
                std::thread::sleep(pause);
                TOLD.set(Told::default());
                let start = Instant::now();
                let reply = client.add(&task(&number));
                let took = start.elapsed();
                calls.push(Done { number, fate, told: TOLD.get(), took, reply, arrived: 0, made: 0 });
                returned.fetch_add(1, Ordering::SeqCst);
            }
            calls
        };
        let mut calls: Vec<Done> = std::thread::scope(|scope| {
            let caller = &caller;
            let callers: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || caller(thread))).collect();
            beside(&mut front, &server, &returned);
            callers.into_iter().flat_map(|caller| caller.join().expect("every reply can be read")).collect()
        });
        let elapsed = begin.elapsed();
        drop(clients);
        front.stop();
        let seen = server.settle(0).expect("the front has ended");
        let mut arrivals: HashMap<String, usize> = HashMap::new();
        for request in seen.iter().flat_map(|seen| seen.requests()) {
            *arrivals.entry(request.out_task_num().expect("a number")).or_default() += 1;
        }
        let ledger = server.ledger();
        for call in &mut calls {
            call.arrived = arrivals.remove(&call.number).unwrap_or(0);
            call.made = ledger.made(&call.number);
        }
        assert!(arrivals.is_empty(), "{name}: nobody sent {arrivals:?}");
        Report { name, calls, elapsed }
    }
}

/// What came of all calls of a test.
struct Report {
    name: String,
    calls: Vec<Done>,
    elapsed: Duration,
}

impl Report {
    fn count(&self, what: impl Fn(&Done) -> bool) -> usize {
        self.calls.iter().filter(|call| what(call)).count()
    }

    fn connects(&self) -> usize {
        self.calls.iter().map(|call| call.told.connects).sum()
    }

    /// Says what there was, and fails where something was wrong.
    #[track_caller]
    fn print(&self, what: &str, judge: impl Fn(&Done) -> Result<(), String>) {
        // By cause: how many, and how many of them were made.
        let mut unknown = BTreeMap::<String, (usize, usize)>::new();
        for call in self.calls.iter().filter(|call| call.is_unknown()) {
            let (count, made) = unknown.entry(call.cause()).or_default();
            (*count, *made) = (*count + 1, *made + usize::from(call.made > 0));
        }
        let retries: usize = self.calls.iter().map(|call| call.told.retries).sum();
        let mut text = format!(
            "{}: {what}{} calls in {:.1} s, {} over kept connections, {} connections, {retries} retries; {} not created, \
             {} unknown",
            self.name,
            self.calls.len(),
            self.elapsed.as_secs_f64(),
            self.count(|call| call.told.kept),
            self.connects(),
            self.count(|call| call.reply.outcome == NOT_CREATED),
            self.count(Done::is_unknown),
        );
        for (cause, (count, made)) in unknown {
            write!(text, "\n  {count:>6} unknown, {made} of them made: {cause}").expect("memory");
        }
        println!("{text}");
        let wrong: Vec<String> =
            self.calls.iter().filter_map(|call| Some((call, judge(call).err()?))).map(tell).collect();
        let shown = wrong.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join("\n");
        assert!(wrong.is_empty(), "{}: {} are wrong:\n{shown}", self.name, wrong.len());
    }
}

/// What is wrong with a call.
fn tell((call, what): (&Done, String)) -> String {
    let Done { number, fate, told, took, reply, arrived, made } = call;
    format!(
        "{number}: {what}; {fate:?}, arrived {arrived} times, made {made} times, took {took:?}\n  {told:?} {reply:?}"
    )
}

/// A number that the environment sets.
fn setting(name: &str, usual: usize) -> usize {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
        Err(_) => usual,
    }
}

/// So many in the usual run, and as many times more as that is longer.
fn scaled(usual: usize) -> usize {
    usual * setting("FRONTS_CALLS", USUAL_CALLS) / USUAL_CALLS
}

fn reloads(program: Program) {
    let _alone = alone();
    let rules = Rules { idle: LONG, says: None, requests: None, server: LONG };
    let Some(scene) = Scene::new(program, "reloads", &rules, &[json!({}), json!({})]) else { return };
    let calls = scaled(USUAL_CALLS);
    let reloads = calls / CALLS_A_RELOAD;
    let report = scene.run(
        calls,
        |draw| (draw.time(6), Fate::Served),
        |front, _, returned| {
            for reload in 0..reloads {
                // In the middle of its calls.
                while returned.load(Ordering::SeqCst) < CALLS_A_RELOAD * reload + CALLS_A_RELOAD / 2 {
                    std::thread::sleep(Duration::from_micros(500));
                }
                front.reload();
            }
        },
    );
    report.print(&format!("{reloads} reloads, "), Done::judge);
    let (unknown, kept) = (report.count(Done::is_unknown), report.count(|call| call.told.kept));
    let ended = report.count(|call| call.is_unknown() && call.reply.code == BROKEN && call.status().is_none());
    assert_eq!(unknown, ended, "a server that is well was not reached");
    assert!(unknown * ONE_IN <= kept, "{unknown} of {kept} calls over kept connections are unknown");
    // Each reload ends all connections of both clients.
    assert!(reloads > 0 && report.connects() > 2 * reloads, "{} connections", report.connects());
}

#[test]
fn nginx_reloads() {
    reloads(Program::Nginx);
}

#[test]
fn haproxy_reloads() {
    reloads(Program::Haproxy);
}

fn server_dies(program: Program) {
    let _alone = alone();
    let rules = Rules { idle: LONG, says: None, requests: None, server: SHORT };
    // The word of the third client is true: neither front says 503 of a request that it has passed on.
    let keys = [json!({}), json!({}), json!({ "retry_503": true })];
    let Some(scene) = Scene::new(program, "the server dies", &rules, &keys) else { return };
    let report = scene.run(scaled(1_500), |draw| (Duration::ZERO, Fate::draw(draw)), |_, _, _| {});
    report.print("", Done::judge_exactly);
    for status in [502, 504] {
        for made in [0, 1] {
            let count = report.count(|call| call.is_unknown() && call.status() == Some(status) && call.made == made);
            assert!(count > 0, "no {status} for what was made {made} times");
        }
    }

    let Some(scene) = Scene::new(program, "the server restarts", &rules, &keys) else { return };
    let calls = scaled(1_500);
    let mut restarts = 0;
    let plan = |draw: &mut Draw| {
        let fate = if draw.chance(90) { Fate::Served } else { Fate::draw(draw) };
        (draw.time(6), fate)
    };
    let report = scene.run(calls, plan, |_, server, returned| {
        while returned.load(Ordering::SeqCst) < calls {
            std::thread::sleep(Duration::from_millis(100));
            server.down();
            std::thread::sleep(Duration::from_millis(20));
            server.up();
            restarts += 1;
        }
    });
    report.print(&format!("{restarts} restarts, "), Done::judge);
    let away = report.count(|call| call.arrived == 0 && matches!(call.status(), Some(502 | 503)));
    assert!(restarts > 0 && away > 0, "{away} calls met a server that was down");
}

#[test]
fn nginx_before_a_server_that_dies() {
    server_dies(Program::Nginx);
}

#[test]
fn haproxy_before_a_server_that_dies() {
    server_dies(Program::Haproxy);
}

#[test]
fn a_limit_of_requests_makes_nothing_unknown() {
    const REQUESTS: usize = 5;
    let _alone = alone();
    let rules = Rules { idle: LONG, says: None, requests: Some(REQUESTS), server: LONG };
    let Some(scene) = Scene::new(Program::Nginx, "few requests a connection", &rules, &[json!({}), json!({})]) else {
        return;
    };
    let calls = scaled(3_000);
    let report = scene.run(calls, |_| (Duration::ZERO, Fate::Served), |_, _, _| {});
    report.print("", Done::judge);
    assert_eq!(report.count(Done::is_unknown), 0);
    assert!((calls / REQUESTS..calls).contains(&report.connects()), "{} connections", report.connects());
}

/// How long a front and the clients keep connections that are idle, and the pauses between calls.
struct Idles {
    program: Program,
    front: Duration,
    says: Option<u32>,
    client_ms: u64,
    pauses_ms: (usize, usize),
    calls: usize,
    /// How much longer the front waits than the clients, where it does.
    margin: Option<Duration>,
}

impl Idles {
    fn test(&self) {
        let Idles { program, front, says, client_ms, pauses_ms: (from, to), calls, margin } = *self;
        let rules = Rules { idle: front, says, requests: None, server: LONG };
        let says = says.map_or_else(String::new, |seconds| format!(" and says {seconds} s"));
        let case = format!("keeps idle connections {} ms{says}, the clients {client_ms} ms", front.as_millis());
        let keys = json!({ "idle_timeout_ms": client_ms });
        let Some(scene) = Scene::new(program, &case, &rules, &vec![keys; THREADS]) else { return };
        let least = Duration::from_millis(from as u64);
        let report = scene.run(scaled(calls), |draw| (least + draw.time(to - from), Fate::Served), |_, _, _| {});
        report.print("", Done::judge);
        let unknown = report.count(Done::is_unknown);
        let slowest = report.calls.iter().map(|call| call.took).max().expect("a call");
        // A call that stood still for so long may have used its connection as late.
        if margin.is_some_and(|margin| slowest < margin) {
            assert_eq!(unknown, 0, "{}", report.name);
        }
        assert!(report.connects() > THREADS, "no connection was given up");
        assert!(report.count(|call| call.told.kept) > 0, "no connection was kept");
    }
}

#[test]
fn a_limit_of_idling_makes_nothing_unknown_that_is_kept_to() {
    let _alone = alone();
    let ms = Duration::from_millis;
    let kept_to = |program, front, says, client_ms, pauses_ms, margin| Idles {
        program,
        front,
        says,
        client_ms,
        pauses_ms,
        calls: 48,
        margin: Some(margin),
    };
    // As many calls as possible come just when the front ends the connection.
    let raced = |program| Idles {
        program,
        front: ms(50),
        says: None,
        client_ms: 4000,
        pauses_ms: (40, 60),
        calls: 400,
        margin: None,
    };
    let cases = [
        kept_to(Program::Nginx, ms(1_000), None, 400, (0, 1_200), ms(600)),
        kept_to(Program::Haproxy, ms(1_000), None, 400, (0, 1_200), ms(600)),
        kept_to(Program::Nginx, ms(2_000), Some(1), 4000, (900, 1_100), ms(1_000)),
        raced(Program::Nginx),
        raced(Program::Haproxy),
    ];
    at_once(cases, |case| case.test());
}
