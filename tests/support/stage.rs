//! One client and one server, and the way every case goes: call, look at the wire, settle, check.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::api::{OK, Owned, Reply, task};
use crate::deadline::Scheme;
use crate::expected::Expected;
use crate::http::Request;
use crate::ledger::check;
use crate::server::{Exchange, Script, Seen, Server};
use crate::tls::{Authority, Identity, Version};

/// The token that tests use.
pub const TOKEN: &str = "token-of-the-tests";

/// A server and a client that knows it.
pub struct Stage {
    /// The client. It stands before the server and so is freed before it.
    pub client: Owned,
    /// The server.
    pub server: Server,
    calls: AtomicU32,
}

/// What came of one case.
#[derive(Debug)]
pub struct Done {
    /// What the library returned.
    pub reply: Reply,
    /// What the server saw of each connection.
    pub seen: Vec<Seen>,
    /// The task's number.
    pub number: String,
}

impl Done {
    /// What the server saw of the only connection.
    #[track_caller]
    pub fn only(&self) -> &Seen {
        let [only] = self.seen.as_slice() else { panic!("{} connections", self.seen.len()) };
        only
    }

    /// The only request.
    #[track_caller]
    pub fn request(&self) -> &Request {
        let requests: Vec<&Request> = self.only().requests().collect();
        let [only] = requests.as_slice() else { panic!("{} requests", requests.len()) };
        only
    }
}

/// A configuration with this base URL, the token, and a deadline that no case comes near. A call makes one try over a
/// connection of its own, which ends with it: a test of anything else says so by keys of its own.
pub fn config(base_url: &str) -> Value {
    json!({
        "base_url": base_url,
        "token": TOKEN,
        "timeout_ms": 50_000,
        "connect_timeout_ms": 50_000,
        "retries": 0,
        "idle_timeout_ms": 0,
    })
}

/// `config` with further keys, or others.
pub fn with(mut config: Value, keys: Value) -> Value {
    let Value::Object(keys) = keys else { panic!("keys of a configuration") };
    config.as_object_mut().expect("an object").extend(keys);
    config
}

/// A configuration for a server whose certificate is signed by this authority.
pub fn config_tls(base_url: &str, authority: &Authority) -> Value {
    with(config(base_url), json!({ "tls": { "roots": "file", "ca_file": authority.file() } }))
}

impl Stage {
    /// Plain HTTP.
    pub fn http() -> Stage {
        Stage::http_with(json!({}))
    }

    /// Plain HTTP with further keys of the configuration.
    pub fn http_with(keys: Value) -> Stage {
        let server = Server::plain();
        let client = Owned::new(&with(config(&server.base_url()), keys));
        Stage::of(server, client)
    }

    /// HTTPS with a certificate that the client trusts.
    pub fn https(version: Version) -> Stage {
        Stage::https_with(Identity::right(version), json!({}))
    }

    /// HTTPS with a server of this identity, whose authority the client trusts, and further keys.
    pub fn https_with(identity: Identity, keys: Value) -> Stage {
        let authority = Authority::new();
        let server = Server::start("127.0.0.1", Some(authority.server(identity)));
        // The file is read by now: it may go with the authority.
        let client = Owned::new(&with(config_tls(&server.base_url(), &authority), keys));
        Stage::of(server, client)
    }

    /// Any scheme, with further keys.
    pub fn over(scheme: Scheme, keys: Value) -> Stage {
        match scheme {
            Scheme::Http => Stage::http_with(keys),
            Scheme::Https(version) => Stage::https_with(Identity::right(version), keys),
        }
    }

    /// A server and a client that a test made by itself.
    pub fn of(server: Server, client: Owned) -> Stage {
        Stage { client, server, calls: AtomicU32::new(0) }
    }

    /// A number that no other case of this stage has.
    pub fn number(&self) -> String {
        format!("BR0943-{:04}", self.calls.fetch_add(1, Ordering::Relaxed))
    }

    /// One case: one call, whose only connection goes by the script that is made for its number.
    #[track_caller]
    pub fn run(&self, case: &str, expected: Expected, script: impl FnOnce(&str) -> Script) -> Done {
        self.attempt(case, expected, script).unwrap_or_else(|wrong| panic!("{wrong}"))
    }

    /// As `run`, for tables that list everything that is wrong.
    pub fn attempt(&self, case: &str, expected: Expected, script: impl FnOnce(&str) -> Script) -> Result<Done, String> {
        let number = self.number();
        self.attempt_task(case, expected, &number, &task(&number), script(&number))
    }

    /// One case whose call goes on trying: its first connection goes by the first of the scripts that are made for its
    /// number, its next one by the next.
    #[track_caller]
    pub fn run_tries(&self, case: &str, expected: Expected, tries: impl FnOnce(&str) -> Vec<Script>) -> Done {
        self.attempt_tries(case, expected, tries).unwrap_or_else(|wrong| panic!("{wrong}"))
    }

    /// As `run_tries`, for tables.
    pub fn attempt_tries(
        &self,
        case: &str,
        expected: Expected,
        tries: impl FnOnce(&str) -> Vec<Script>,
    ) -> Result<Done, String> {
        let number = self.number();
        self.attempt_scripts(case, expected, &number, tries(&number), |client| client.add(&task(&number)))
    }

    /// One case with a task of its own.
    #[track_caller]
    pub fn run_task(&self, case: &str, expected: Expected, number: &str, task: &str, script: Script) -> Done {
        self.attempt_task(case, expected, number, task, script).unwrap_or_else(|wrong| panic!("{wrong}"))
    }

    /// As `run_task`, for tables.
    pub fn attempt_task(
        &self,
        case: &str,
        expected: Expected,
        number: &str,
        task: &str,
        script: Script,
    ) -> Result<Done, String> {
        self.attempt_call(case, expected, number, script, |client| client.add(task))
    }

    /// One case whose call the test makes itself.
    pub fn attempt_call(
        &self,
        case: &str,
        expected: Expected,
        number: &str,
        script: Script,
        call: impl FnOnce(&Owned) -> Reply,
    ) -> Result<Done, String> {
        self.attempt_scripts(case, expected, number, vec![script], call)
    }

    /// One case with a script for each connection that its call makes.
    fn attempt_scripts(
        &self,
        case: &str,
        expected: Expected,
        number: &str,
        scripts: Vec<Script>,
        call: impl FnOnce(&Owned) -> Reply,
    ) -> Result<Done, String> {
        let from = self.server.connections();
        let connections = scripts.len();
        scripts.into_iter().for_each(|script| self.server.next(script));
        let reply = call(&self.client);
        let seen = self.judge(from, connections, number, expected, &reply);
        let seen = seen.map_err(|wrong| format!("{case}: {wrong}\n  expected {expected:?}\n  {reply:?}"))?;
        Ok(Done { reply, seen, number: number.to_owned() })
    }

    /// Checks a call that has just returned and was the only one, and waits until its connections have ended.
    fn judge(
        &self,
        from: usize,
        connections: usize,
        number: &str,
        expected: Expected,
        reply: &Reply,
    ) -> Result<Vec<Seen>, String> {
        let at_return = self.server.brought(from);
        self.server.release();
        let seen = self.server.settle(from)?;
        if seen.len() != connections {
            return Err(format!("{} connections instead of {connections}", seen.len()));
        }
        nothing_followed(&at_return, &seen)?;
        let tries: Vec<Exchange> = seen.iter().flat_map(|seen| seen.exchanges.clone()).collect();
        judge(reply, expected, self.server.ledger().made(number), &tries).map_err(|wrong| {
            let notes: Vec<_> = seen.iter().map(|seen| (seen.raw, seen.request_bytes(), &seen.note)).collect();
            format!("{wrong}; the server read (bytes, of them of requests, note) {notes:?}")
        })?;
        Ok(seen)
    }
}

/// Checks one call: what it returned, and what came of its tries at the server.
fn judge(reply: &Reply, expected: Expected, made: u32, tries: &[Exchange]) -> Result<(), String> {
    check(reply, made, tries)?;
    if (reply.code, reply.outcome) != (expected.code, expected.outcome) {
        return Err("another code or outcome".to_owned());
    }
    Ok(())
}

/// Checks connections that have ended: nothing has come since they had brought so many bytes, and nothing that the
/// client must not do.
fn nothing_followed(brought: &[u64], seen: &[Seen]) -> Result<(), String> {
    for (index, seen) in seen.iter().enumerate() {
        if let Some(fault) = &seen.fault {
            return Err(format!("{fault}, on connection {index}"));
        }
        match brought.get(index) {
            None => return Err(format!("connection {index} was made after the call had returned")),
            Some(brought) if seen.raw > *brought => {
                return Err(format!("{} bytes arrived after the call had returned", seen.raw - brought));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Several calls of one client, one after another, over connections that may be kept. All is judged at the end, when
/// the client has been freed and the connections have ended; until then the scripts go at the test's own pace.
pub struct Calls {
    stage: Stage,
    calls: Vec<Call>,
    wrong: Vec<String>,
}

/// One of [`Calls`].
struct Call {
    number: String,
    expected: Expected,
    reply: Reply,
    /// How many bytes each connection had brought before the call.
    before: Vec<u64>,
    /// How many when it had returned.
    after: Vec<u64>,
}

impl Call {
    /// Whether the exchange, on the connection with this index, was one of this call's tries.
    fn made(&self, index: usize, exchange: &Exchange) -> bool {
        if exchange.plain.is_empty() {
            return (self.before.len()..self.after.len()).contains(&index);
        }
        let before = self.before.get(index).copied().unwrap_or(0);
        self.after.get(index).is_some_and(|after| before < exchange.at && exchange.at <= *after)
    }
}

impl Calls {
    /// No call yet.
    pub fn of(stage: Stage) -> Calls {
        Calls { stage, calls: Vec::new(), wrong: Vec::new() }
    }

    /// The server.
    pub fn server(&self) -> &Server {
        &self.stage.server
    }

    /// One more call. A success must be the one that belongs to its number, see [`success`](crate::http::success).
    pub fn call(&mut self, number: &str, expected: Expected) -> Reply {
        self.call_by(number, expected, |client| client.add(&task(number)))
    }

    /// One more call, which the test makes itself.
    pub fn call_by(&mut self, number: &str, expected: Expected, call: impl FnOnce(&Owned) -> Reply) -> Reply {
        let before = self.server().brought(0);
        let quiet = self.calls.last().is_none_or(|last| last.after == before);
        if !quiet {
            self.wrong.push(format!("before {number}: something arrived though there was no call"));
        }
        let reply = call(&self.stage.client);
        let after = self.server().brought(0);
        let call = Call { number: number.to_owned(), expected, reply: reply.clone(), before, after };
        self.calls.push(call);
        reply
    }

    /// Frees the client, waits until its connections have ended, and checks all calls: what the server saw of each
    /// connection.
    #[track_caller]
    pub fn end(self) -> Vec<Seen> {
        let Calls { stage: Stage { client, server, .. }, calls, mut wrong } = self;
        drop(client);
        server.release();
        let seen = server.settle(0).unwrap_or_else(|open| panic!("the client is freed, and {open}; {wrong:?}"));
        let last = calls.last().expect("a call");
        wrong.extend(nothing_followed(&last.after, &seen).err());
        for call in &calls {
            let on = |(index, seen): (usize, &Seen)| {
                let tries = seen.exchanges.iter().filter(move |exchange| call.made(index, exchange));
                tries.cloned().collect::<Vec<_>>()
            };
            let tries: Vec<Exchange> = seen.iter().enumerate().flat_map(on).collect();
            let Call { number, expected, reply, .. } = call;
            let mut judged = judge(reply, *expected, server.ledger().made(number), &tries);
            if reply.code == OK && reply.json()["info"]["task_num"] != format!("T-{number}") {
                judged = Err("the answer is that of another call".to_owned());
            }
            wrong.extend(judged.err().map(|what| format!("{number}: {what}\n  expected {expected:?}\n  {reply:?}")));
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        seen
    }
}

/// Runs a test on all of these at once, for tests that wait most of their time.
pub fn at_once<T: Send>(cases: impl IntoIterator<Item = T>, test: impl Fn(T) + Sync) {
    std::thread::scope(|scope| {
        for case in cases {
            let test = &test;
            scope.spawn(move || test(case));
        }
    });
}

/// One row of a long table: what it is called, what must come of it, and what the server does.
pub type Row = (String, Expected, Script);

/// Runs many cases on several stages at once, since most of their time they wait, for an acknowledgement above all.
/// Fails unless all were right, and gives what came of each.
#[track_caller]
pub fn run_all(stage: impl Fn() -> Stage + Sync, rows: Vec<Row>) -> Vec<(String, Done)> {
    const STAGES: usize = 8;
    let rows = Mutex::new(rows.into_iter());
    let results = Mutex::new((Table::new(), Vec::new()));
    let work = || {
        let stage = stage();
        loop {
            let next = rows.lock().expect("taking a row does not panic").next();
            let Some((case, expected, script)) = next else { return };
            let result = stage.attempt(&case, expected, |_| script);
            let (table, done) = &mut *results.lock().expect("noting a result does not panic");
            done.extend(table.note(result).map(|one| (case, one)));
            if table.wrong.len() >= ENOUGH {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..STAGES {
            scope.spawn(work);
        }
    });
    let (table, done) = results.into_inner().expect("noting a result does not panic");
    table.finish();
    done
}

/// A library that is wrong everywhere would make a table wait for each case.
const ENOUGH: usize = 20;

/// The failures of a table of cases.
#[derive(Debug, Default)]
pub struct Table {
    cases: usize,
    wrong: Vec<String>,
}

impl Table {
    /// A table without failures.
    pub fn new() -> Table {
        Table::default()
    }

    /// Takes the result of one case; the case itself when it was right.
    #[track_caller]
    pub fn take<T>(&mut self, result: Result<T, String>) -> Option<T> {
        let done = self.note(result);
        if self.wrong.len() == ENOUGH {
            self.fail();
        }
        done
    }

    fn note<T>(&mut self, result: Result<T, String>) -> Option<T> {
        self.cases += 1;
        result.map_err(|wrong| self.wrong.push(wrong)).ok()
    }

    /// Fails unless there were cases and all were right.
    #[track_caller]
    pub fn finish(self) {
        assert!(self.cases > 0, "an empty table");
        if !self.wrong.is_empty() {
            self.fail();
        }
    }

    #[track_caller]
    fn fail(&self) -> ! {
        panic!("{} of {} cases are wrong:\n{}", self.wrong.len(), self.cases, self.wrong.join("\n"))
    }
}
