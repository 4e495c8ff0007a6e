//! One client and one server, and the way every case goes: call, look at the wire, settle, check.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::api::{OK, Owned, Reply, task};
use crate::expected::Expected;
use crate::ledger::truth;
use crate::server::{Script, Seen, Server};
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
    /// What the server saw.
    pub seen: Seen,
    /// The task's number.
    pub number: String,
}

/// A configuration with this base URL, the token, and a deadline that no case comes near.
pub fn config(base_url: &str) -> Value {
    json!({ "base_url": base_url, "token": TOKEN, "timeout_ms": 50_000, "connect_timeout_ms": 50_000 })
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
        let from = self.server.connections();
        self.server.next(script);
        let reply = call(&self.client);
        let done = self.judge(from, number, expected, reply.clone());
        done.map_err(|wrong| format!("{case}: {wrong}\n  expected {expected:?}\n  {reply:?}"))
    }

    /// Checks a call that has just returned and was the only one, and waits until its connection has ended.
    fn judge(&self, from: usize, number: &str, expected: Expected, reply: Reply) -> Result<Done, String> {
        self.server.await_connections(from + 1)?;
        let at_return = self.server.arrived(from);
        self.server.release();
        let seen = self.server.settle(from)?;
        let [only] = seen.as_slice() else { return Err(format!("{} connections", seen.len())) };
        let context = || {
            let (note, raw, request) = (&only.note, only.raw, only.request_bytes());
            format!("the server read {raw} bytes, of the request {request}, note {note:?}")
        };
        if let Some(fault) = &only.fault {
            return Err(format!("{fault}; {}", context()));
        }
        if let [Some(at_return)] = at_return[..]
            && only.raw > at_return
        {
            return Err(format!("{} bytes arrived after the call had returned", only.raw - at_return));
        }
        // One connection is one try.
        if reply.code != OK && reply.json()["attempts"] != 1 {
            return Err(format!("not one attempt; {}", context()));
        }
        truth(&reply, self.server.ledger().made(number), &seen).map_err(|wrong| format!("{wrong}; {}", context()))?;
        if (reply.code, reply.outcome) != (expected.code, expected.outcome) {
            return Err(format!("another code or outcome; {}", context()));
        }
        Ok(Done { reply, seen: only.clone(), number: number.to_owned() })
    }
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
