//! A child of `fork` uses the library on connections of its own, and never hangs; its parent does not notice.

use std::path::Path;
use std::process::{Command, Stdio};

use arctos_tests::api::{library_path, root};
use arctos_tests::http::{head, success};
use arctos_tests::server::{Script, Server, Step};
use arctos_tests::stage::{config, config_tls, with};
use arctos_tests::tls::{Authority, Identity, Version};
use arctos_tests::tools::{Host, Preload, Talker, both, succeed};
use serde_json::{Value, json};

/// A server, and the authority of its certificate.
struct Site {
    server: Server,
    authority: Option<Authority>,
}

impl Site {
    fn http() -> Site {
        Site { server: Server::plain(), authority: None }
    }

    fn https(version: Version) -> Site {
        let authority = Authority::new();
        let server = Server::start("127.0.0.1", Some(authority.server(Identity::right(version))));
        Site { server, authority: Some(authority) }
    }

    fn all() -> [Site; 3] {
        [Site::http(), Site::https(Version::Tls12), Site::https(Version::Tls13)]
    }

    /// Makes every appointment, on connections that it keeps.
    fn serving(self) -> Site {
        self.server.always(Script::forever(Script::served()));
        self
    }

    /// A client that keeps its connections, whatever time a test takes.
    fn config(&self) -> Value {
        self.config_as("127.0.0.1")
    }

    fn config_as(&self, name: &str) -> Value {
        let url = self.server.base_url_as(name);
        let config = self.authority.as_ref().map_or_else(|| config(&url), |authority| config_tls(&url, authority));
        with(config, json!({ "idle_timeout_ms": 3_600_000, "allow_http": true }))
    }
}

/// The numbers of the appointments that were made over each connection.
fn numbers(server: &Server) -> Vec<Vec<String>> {
    server.seen(0).iter().map(|seen| seen.numbers()).collect()
}

#[track_caller]
fn all_made_once(server: &Server) {
    let ledger = server.ledger();
    assert!(ledger.all().values().all(|made| *made == 1), "{ledger:?}");
}

fn stages(work: &str, end: &str, child: &[&[&str]]) {
    let host = Host::new("fork");
    for site in Site::all().map(Site::serving) {
        let server = &site.server;
        let arguments = ["stages", &site.config().to_string(), work, end];
        let mut host = Talker::of(host.command().args(arguments));
        host.says("called");
        let before = server.brought(0);
        assert_eq!(before.len(), 1, "the parent keeps its connection");
        host.go_on();
        host.says("worked");
        assert_eq!(server.brought(0)[0], before[0], "the child has written to its parent's connection");
        assert!(!server.seen(0)[0].ended, "the child has ended its parent's connection");
        host.go_on();
        host.says("again");
        let all: Vec<&[&str]> = [&["P1", "P2", "P3"][..]].into_iter().chain(child.iter().copied()).collect();
        assert_eq!(numbers(server), all);
        assert!(!server.seen(0)[0].ended);
        host.go_on();
        host.says("freed");
        // The child lives on: what it has of its parent's must not keep the connection open.
        let seen = server.settle(0).expect("the parent has closed its connection");
        host.go_on();
        host.ends();
        assert!(seen.iter().all(|seen| seen.note.is_none() && seen.fault.is_none()), "{seen:?}");
        all_made_once(server);
    }
}

#[test]
fn a_child_calls_over_its_own_connections() {
    let own: &[&[&str]] = &[&["C1", "C2", "C3", "C4"], &["C5"]];
    stages("calls", "exit", own);
    stages("calls", "_exit", own);
}

#[test]
fn a_child_that_only_ends_leaves_its_parents_connections_alone() {
    stages("nothing", "exit", &[]);
    stages("nothing", "_exit", &[]);
}

#[test]
fn a_child_that_frees_the_client_leaves_its_parents_connections_alone() {
    stages("frees", "exit", &[]);
    stages("frees", "_exit", &[]);
}

#[test]
fn children_of_children_call_over_their_own_connections() {
    let host = Host::new("fork");
    for site in Site::all().map(Site::serving) {
        host.run(&["generations", &site.config().to_string(), "4"]);
        site.server.settle(0).expect("all have ended");
        let level = |level| (1..=3).map(|call| format!("G{level}-{call}")).collect::<Vec<_>>();
        assert_eq!(numbers(&site.server), (0..=4).map(level).collect::<Vec<_>>());
        all_made_once(&site.server);
    }
}

/// Forks beside calls, one of each configuration: when `there` says that they are where they should be, a child makes
/// one call on each of their clients; after that `release` lets them go on, and all must be made.
fn beside(kind: &str, server: &Server, configs: &[Value], preload: Option<&Path>, there: impl FnOnce()) {
    let host = Host::new("fork");
    let mut command = host.command();
    command.args(["beside", kind]).args(configs.iter().map(Value::to_string));
    if let Some(library) = preload {
        command.env("LD_PRELOAD", library);
    }
    let mut host = Talker::of(&mut command);
    if kind == "wait" {
        host.says("calling");
        there();
        host.go_on();
    }
    host.says("forked");
    server.release();
    host.go_on();
    host.ends();
    server.settle(0).expect("all have ended");
    all_made_once(server);
    for index in 0..configs.len() {
        for number in [format!("A{index}"), format!("C{index}")] {
            assert_eq!(server.ledger().made(&number), 1, "{number}");
        }
    }
}

#[test]
fn a_fork_beside_look_ups_that_hang() {
    let library = Preload::new("resolver");
    let site = Site::http().serving();
    // One more than the library looks up at once.
    let configs: Vec<Value> = (0..5).map(|index| site.config_as(&format!("hang{index}.bank.example"))).collect();
    beside("wait", &site.server, &configs, Some(&library.path()), || {});
    assert_eq!(site.server.connections(), 10);
}

#[test]
fn a_fork_in_the_middle_of_anothers_handshake() {
    for site in [Site::https(Version::Tls12), Site::https(Version::Tls13)].map(Site::serving) {
        site.server.next(Script::silent().then(Step::AwaitRelease).and(Script::forever(Script::served())));
        beside("wait", &site.server, &[site.config()], None, || site.server.await_connections(1).unwrap());
        assert_eq!(numbers(&site.server), [["A0"], ["C0"]]);
    }
}

#[test]
fn a_fork_while_another_waits_for_its_answer() {
    for site in Site::all().map(Site::serving) {
        let script = Script::request().then(Step::AwaitRelease).then(Step::Make).then(Step::Answer(success));
        site.server.next(Script::forever(script));
        beside("wait", &site.server, &[site.config()], None, || site.server.await_requests(1).unwrap());
        assert_eq!(numbers(&site.server), [["A0"], ["C0"]]);
    }
}

#[test]
fn a_fork_in_the_middle_of_anothers_answer() {
    for site in Site::all().map(Site::serving) {
        let whole = success("A0");
        let (first, rest) = whole.split_at(whole.len() / 2);
        site.server.next(Script::forever(Script::made().send(first).then(Step::AwaitRelease).send(rest)));
        beside("wait", &site.server, &[site.config()], None, || site.server.await_requests(1).unwrap());
        assert_eq!(numbers(&site.server), [["A0"], ["C0"]]);
    }
}

#[test]
fn a_fork_in_anothers_pause() {
    for site in Site::all().map(Site::serving) {
        let busy = head("429 Busy", &["Retry-After: 2", "Content-Length: 0"]);
        site.server.next(Script::request().send(busy).close());
        beside("pause", &site.server, &[with(site.config(), json!({ "retries": 1 }))], None, || {});
        assert_eq!(numbers(&site.server), [["A0"], ["C0"], ["A0"]]);
    }
}

#[test]
fn a_fork_while_another_is_inside_the_log() {
    for site in Site::all().map(Site::serving) {
        beside("log", &site.server, &[site.config()], None, || {});
        assert_eq!(numbers(&site.server), [["C0"], ["A0"]]);
    }
}

#[test]
fn five_hundred_children_beside_busy_threads() {
    const CHILDREN: u32 = 500;
    const FORKERS: u32 = 4;
    let [plain, tls12, tls13] = Site::all().map(Site::serving);
    let broken = Server::plain();
    broken.always(Script::made().then(Step::Reset));
    let configs = [
        plain.config(),
        tls12.config(),
        tls13.config(),
        plain.config_as("localhost"),
        config(&broken.base_url()),
        config("http://127.0.0.1:1"),
    ];
    let host = Host::new("fork");
    let output = host.command().arg("storm").args(configs.iter().map(Value::to_string)).output().expect("it runs");
    assert!(output.status.success(), "{}: {}", output.status, both(&output));
    let text = String::from_utf8(output.stdout).expect("text");
    let calls: Vec<u32> = text.lines().map(|line| line.parse().expect("a number")).collect();
    assert_eq!(calls.len(), 5, "{text}");
    assert!(calls.iter().all(|calls| *calls > 0), "not all threads were busy: {text}");

    // Which numbers each server must have made, once each, and no others.
    let busy = |thread: usize| (0..calls[thread]).map(move |call| format!("T{thread}-{call}"));
    let children = |which: &'static [u32]| {
        let all = (0..FORKERS).flat_map(|forker| (0..CHILDREN / FORKERS).map(move |index| (forker, index)));
        all.filter(|(_, index)| which.contains(&(index % 4))).map(|(forker, index)| format!("C{forker}-{index}"))
    };
    let made = |server: &Server, wanted: Vec<String>| {
        server.settle(0).expect("all have ended");
        let ledger = server.ledger();
        let wrong: Vec<_> = wanted.iter().filter(|number| ledger.made(number) != 1).collect();
        assert!(wrong.is_empty(), "not made once: {wrong:?}");
        assert_eq!(ledger.all().len(), wanted.len());
    };
    made(&plain.server, busy(0).chain(busy(3)).chain(children(&[0, 3])).collect());
    made(&tls12.server, busy(1).chain(children(&[1])).collect());
    made(&tls13.server, busy(2).chain(children(&[2])).collect());
    made(&broken, (0..calls[4]).map(|call| format!("B-{call}")).collect());
    // A child that wrote to a connection of its parent would have broken it: calls come after it, or its end.
    for site in [&tls12, &tls13] {
        assert!(site.server.seen(0).iter().all(|seen| seen.note.is_none()));
    }
}

#[test]
fn a_fork_at_any_allocation_of_the_first_use() {
    let host = Host::new("fork_within");
    for (site, step) in [(Site::http().serving(), 1), (Site::https(Version::Tls13).serving(), 3)] {
        let config = site.config().to_string();
        let mut forks = 0;
        for place in (1..).step_by(step) {
            let output = host.command().args([&place.to_string(), &config]).output().expect("it runs");
            match output.status.code() {
                Some(0) => forks += 1,
                Some(3) => break,
                _ => panic!("at allocation {place}: {}: {}", output.status, both(&output)),
            }
            assert_eq!(both(&output), "");
        }
        assert!(forks > 20, "{forks} forks are not those of the first use");
        site.server.settle(0).expect("all have ended");
        all_made_once(&site.server);
        let made = |first: char| site.server.ledger().all().keys().filter(|number| number.starts_with(first)).count();
        // And the call after which there was nothing more to fork at.
        assert_eq!((made('P'), made('C')), (forks + 1, forks));
        assert!((10..forks).contains(&made('B')), "{} children used the client of the first use", made('B'));
    }
}

/// Forks by `os.fork` and by `multiprocessing`, with a client that has kept a connection.
const PYTHON: &str = r#"
import json, multiprocessing, os, sys, threading
import arctos

def add(client, number):
    answer = client.task_add(business_id=15, out_task_num=number, task_type="normal", branch_code=943,
                             room_type="realtime", video=True)
    assert answer["info"]["task_num"] == "T-" + number, answer

def work(number):
    add(client, number)
    add(client, number + "-again")

client = arctos.Client(**json.loads(sys.argv[1]))
add(client, "P1")
done = threading.Event()
busy = threading.Thread(target=lambda: [add(client, f"B{call}") for call in range(20)])
busy.start()
child = os.fork()
if child == 0:
    work("C1")
    client.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
with multiprocessing.get_context("fork").Pool(2) as pool:
    pool.map(work, ["M1", "M2", "M3"])
    pool.close()
    pool.join()
busy.join()
add(client, "P2")
client.close()
"#;

#[test]
fn python_forks() {
    for site in Site::all().map(Site::serving) {
        let mut python = Command::new("python3");
        python.args(["-c", PYTHON, &site.config().to_string()]).stdin(Stdio::null());
        python.env("PYTHONPATH", root().join("bindings/python")).env("PYTHONDONTWRITEBYTECODE", "1");
        python.env("ARCTOS_LIBRARY", library_path().canonicalize().expect("run `make build` first"));
        assert_eq!(both(&succeed(&mut python)), "");
        site.server.settle(0).expect("all have ended");
        all_made_once(&site.server);
        assert_eq!(site.server.ledger().all().len(), 30);
        let first = &numbers(&site.server)[0];
        assert_eq!(first.first().map(String::as_str), Some("P1"));
        let child = |number: &String| number.starts_with(['C', 'M']);
        assert!(!first.iter().any(child), "a child has called over its parent's connection: {first:?}");
    }
}
