//! Journals: a program that makes appointments through one, and what stands in its file.

use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::api::{OK, Owned};
use crate::server::Server;
use crate::stage::{config, with};
use crate::tools::{Host, Talker, succeed};

/// A journal that is not there yet, in a folder of its own.
pub struct Book {
    folder: TempDir,
}

impl Default for Book {
    fn default() -> Book {
        Book { folder: TempDir::new().expect("a folder") }
    }
}

impl Book {
    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its file.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    /// A file of SQLite's beside it.
    pub fn beside(&self, end: &str) -> PathBuf {
        self.folder.path().join(format!("journal{end}"))
    }

    /// The configuration of a client of this server that keeps it.
    pub fn config(&self, server: &Server, keys: Value) -> Value {
        let journal = json!({ "journal": { "file": self.file() } });
        with(with(config(&server.base_url()), journal), keys)
    }

    /// What SQLite finds wrong with the file; "ok" when nothing is.
    pub fn integrity(&self) -> String {
        let sqlite = Connection::open(self.file()).expect("it opens");
        sqlite.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("an answer")
    }
}

/// All rows of the client's server, page by page.
#[track_caller]
pub fn rows(client: &Owned, mut filter: Value) -> Vec<Value> {
    let mut rows = Vec::new();
    loop {
        let reply = client.journal_list(&filter.to_string());
        assert_eq!(reply.code, OK, "{reply:?}");
        let mut page = reply.json();
        rows.append(page["rows"].as_array_mut().expect("rows"));
        let Some(next) = page.get("next") else { return rows };
        filter["after"] = next.clone();
    }
}

/// The task of the C programs with this number.
pub fn task(number: &str) -> String {
    format!(
        r#"{{"business_id":15,"out_task_num":"{number}","task_type":"normal","branch_code":943,"room_type":"realtime","video":true}}"#
    )
}

/// What a call of the program has returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its `out_task_num`.
    pub number: String,
    /// Its code.
    pub code: i32,
    /// Its outcome.
    pub outcome: i32,
    /// Its text.
    pub answer: String,
}

/// `tests/c/journal_adder.c`.
pub struct Adder(Host);

impl Default for Adder {
    fn default() -> Adder {
        Adder(Host::new("journal_adder"))
    }
}

impl Adder {
    /// The program with its arguments: `count` numbers from `prefix` and `first` on, by so many threads. `who` is "each"
    /// or "all".
    pub fn command(
        &self,
        config: &Value,
        prefix: &str,
        first: usize,
        count: usize,
        threads: usize,
        who: &str,
    ) -> Command {
        let mut command = self.0.command();
        command.args([&config.to_string(), prefix]);
        command.args([first, count, threads].map(|number| number.to_string())).arg(who);
        command
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(command: &mut Command) -> Vec<Call> {
        calls(&succeed(command).stdout)
    }
}

/// The calls that the program has told of, as far as they are whole.
pub fn calls(output: &[u8]) -> Vec<Call> {
    let text = std::str::from_utf8(output).expect("text");
    let whole = text.split_inclusive('\0').filter_map(|call| call.strip_suffix('\0'));
    let call = |call: &str| {
        let mut parts = call.splitn(4, ' ');
        let mut next = || parts.next().expect("four parts");
        let number = next().to_owned();
        let [code, outcome] = [next(), next()].map(|number| number.parse().expect("a number"));
        Call { number, code, outcome, answer: next().to_owned() }
    };
    whole.map(call).collect()
}

/// Does something while another process has the file locked.
#[track_caller]
pub fn locked_elsewhere<T>(file: &Path, work: impl FnOnce() -> T) -> T {
    const PYTHON: &str = r#"
import sqlite3, sys
journal = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
journal.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
journal.execute("ROLLBACK")
print("open", flush=True)
"#;
    let mut python = Talker::of(Command::new("python3").args(["-c", PYTHON]).arg(file));
    python.says("locked");
    let done = work();
    python.go_on();
    python.says("open");
    python.ends();
    done
}
