//! What stands in the file, and what a call or a person makes of it. Everything here runs inside one transaction.
#![forbid(unsafe_code)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, params};
use time::OffsetDateTime;

use super::digest::Digest;
use super::life;
use super::store::Trouble;
use crate::json;
use crate::outcome::Outcome;

/// The statements of version 1.
pub(super) const VERSION_1: &str = "
    CREATE TABLE file (
        key BLOB NOT NULL,
        turn INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE appointment (
        id INTEGER PRIMARY KEY,
        server TEXT NOT NULL,
        out_task_num TEXT NOT NULL,
        digest BLOB NOT NULL,
        state INTEGER NOT NULL,
        life INTEGER,
        started INTEGER NOT NULL,
        ended INTEGER,
        code INTEGER,
        answer TEXT,
        masked TEXT,
        by TEXT,
        note TEXT,
        resolved INTEGER,
        UNIQUE (server, out_task_num)
    ) STRICT;
    CREATE INDEX certain ON appointment (server, coalesce(resolved, ended, started)) WHERE state < 2;
";

/// Rows that one transaction forgets at most, and that one looks at for a list: calls wait meanwhile.
const FORGOTTEN_AT_ONCE: u32 = 1_000;
const LISTED_AT_ONCE: u32 = 1_000;
const LISTED_BYTES_AT_ONCE: usize = 1 << 20;

/// What is written of an appointment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Its outcome.
    Ended(Outcome),
    /// A call was about to send; whether it still is, its sign of life tells.
    Sending,
}

impl State {
    fn value(self) -> i64 {
        match self {
            State::Ended(outcome) => outcome as i64,
            State::Sending => 3,
        }
    }

    fn read(value: i64) -> Result<State, Trouble> {
        let outcome = Outcome::ALL.into_iter().find(|outcome| *outcome as i64 == value);
        match outcome {
            Some(outcome) => Ok(State::Ended(outcome)),
            None if value == State::Sending.value() => Ok(State::Sending),
            None => Err(Trouble::damaged(&format!("a row has the state {value}"))),
        }
    }

    /// As lists and filters spell it.
    pub(super) fn word(self) -> &'static str {
        match self {
            State::Ended(outcome) => outcome.word(),
            State::Sending => "sending",
        }
    }
}

/// One row.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub id: i64,
    pub out_task_num: String,
    digest: Vec<u8>,
    pub state: State,
    life: Option<i64>,
    pub started: i64,
    pub ended: Option<i64>,
    pub code: Option<i32>,
    pub answer: Option<String>,
    pub by: Option<String>,
    pub note: Option<String>,
    pub resolved: Option<i64>,
    /// The answer without what no failure may repeat, where that is another text.
    pub masked: Option<String>,
}

impl Row {
    /// How much of it there is, as far as others decide that.
    pub(super) fn bytes(&self) -> usize {
        let texts = [&self.answer, &self.by, &self.note].into_iter().flatten();
        self.out_task_num.len() + texts.map(String::len).sum::<usize>()
    }
}

/// How a call stands that wants to send.
#[derive(Debug)]
pub(super) enum Standing {
    /// It may: its intent is written. `doubtful`: an earlier call may have made the appointment.
    Begun { doubtful: bool },
    /// It was made.
    Made(Row),
    /// Another call is sending it.
    Sending,
    /// It may have been made.
    Unresolved,
    /// The number stands for another task.
    Conflict(Row),
}

/// What a call wants to send.
pub(super) struct Intent {
    pub server: String,
    pub out_task_num: String,
    pub digest: Digest,
    /// Whether a repeat is answered with the first success.
    pub server_dedupes: bool,
    /// Rows that ended longer ago are forgotten.
    pub keep: Duration,
}

/// How a call ended.
pub(super) struct Ending {
    pub intent: Arc<Intent>,
    pub outcome: Outcome,
    pub code: i32,
    pub answer: Option<String>,
    /// The answer without what no failure may repeat, where that is another text.
    pub masked: Option<String>,
    /// Whether it takes back an intent. Where there is none, something is written over what may stand of it in the log.
    pub undoes: bool,
}

/// Which rows are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    pub server: String,
    pub state: Option<State>,
    /// Milliseconds since 1970, from which and before which a row was started.
    pub since: Option<i64>,
    pub until: Option<i64>,
    /// The last row of the page before.
    pub after: i64,
}

/// What a person found out.
pub(super) struct Resolution {
    pub server: String,
    pub out_task_num: String,
    /// The answer that is recorded, with the task number, where the appointment was made.
    pub answer: Option<String>,
    pub by: String,
    pub note: Option<String>,
}

/// Why a row cannot be resolved.
#[derive(Debug)]
pub(super) enum Refused {
    /// There is none.
    NoRow,
    /// What stands there contradicts.
    Contradiction(&'static str),
}

/// The rows, within one transaction.
pub(super) struct Rows<'a> {
    pub connection: &'a Connection,
    /// The file that they stand in.
    pub path: &'a Path,
}

const COLUMNS: &str = "id, out_task_num, digest, state, life, started, ended, code, answer, by, note, resolved, masked";

impl Rows<'_> {
    /// How a call stands with what is written; `None` where it may send, if its intent can be written. What the outcome
    /// is before that goes to `seen`.
    pub(super) fn look(&self, intent: &Intent, seen: impl FnOnce(Outcome)) -> Result<Option<Standing>, Trouble> {
        let row = self.find(&intent.server, &intent.out_task_num)?;
        self.stands(intent, row, seen).map(Result::ok)
    }

    /// Writes the intent of a call, if it may send. `life`: the call's own sign.
    pub(super) fn begin(&self, intent: &Intent, life: u64, seen: impl FnOnce(Outcome)) -> Result<Standing, Trouble> {
        let row = self.find(&intent.server, &intent.out_task_num)?;
        if row.as_ref().is_some_and(|row| row.life == Some(signed(life))) {
            // An intent of this very call, which the disk has refused: it is there, and may not be when the machine stops.
            return Err(Trouble::passing("cannot be written: it is not certain that the disk has it"));
        }
        match self.stands(intent, row, seen)? {
            Ok(standing) => Ok(standing),
            Err(Some(row)) if row.state != State::Ended(Outcome::NotCreated) => {
                let sql = "UPDATE appointment SET state = ?2, life = ?3 WHERE id = ?1";
                self.run(sql, params![row.id, State::Sending.value(), signed(life)])?;
                Ok(Standing::Begun { doubtful: true })
            }
            Err(row) => {
                if let Some(row) = row {
                    self.run("DELETE FROM appointment WHERE id = ?1", params![row.id])?;
                }
                let sql = "INSERT INTO appointment (server, out_task_num, digest, state, life, started)
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
                let Intent { server, out_task_num, digest, .. } = intent;
                self.run(sql, params![server, out_task_num, digest, State::Sending.value(), signed(life), now()])?;
                Ok(Standing::Begun { doubtful: false })
            }
        }
    }

    /// How a call stands with its row; where it may send, the row.
    fn stands(
        &self,
        intent: &Intent,
        row: Option<Row>,
        seen: impl FnOnce(Outcome),
    ) -> Result<Result<Standing, Option<Row>>, Trouble> {
        let row = match row {
            Some(row) => self.settled(&intent.server, row)?,
            None => None,
        };
        seen(match row.as_ref().map(|row| row.state) {
            None => Outcome::NotCreated,
            Some(State::Ended(outcome)) => outcome,
            Some(State::Sending) => Outcome::Unknown,
        });
        Ok(match row {
            None => Err(None),
            Some(row) if row.state == State::Ended(Outcome::NotCreated) => Err(Some(row)),
            Some(row) if row.digest != intent.digest => Ok(Standing::Conflict(row)),
            Some(row) => match row.state {
                State::Sending => Ok(Standing::Sending),
                State::Ended(Outcome::Created) => Ok(Standing::Made(row)),
                State::Ended(_) if intent.server_dedupes => Err(Some(row)),
                State::Ended(_) => Ok(Standing::Unresolved),
            },
        })
    }

    /// Writes how the call with this sign of life ended.
    pub(super) fn end(&self, ending: &Ending, life: u64) -> Result<(), Trouble> {
        let sql = "UPDATE appointment SET state = ?4, life = NULL, ended = ?5, code = ?6, answer = ?7, masked = ?8
            WHERE server = ?1 AND out_task_num = ?2 AND life = ?3";
        let Ending { intent, outcome, code, answer, masked, undoes } = ending;
        let Intent { server, out_task_num, keep, .. } = &**intent;
        let (state, now) = (State::Ended(*outcome).value(), now());
        let changed = self.run(sql, params![server, out_task_num, signed(life), state, now, code, answer, masked])?;
        match changed {
            // Whoever has made an appointment over https knows the time well enough for a certificate.
            1 if *outcome == Outcome::Created => self.forget(server, now, *keep),
            1 => Ok(()),
            _ if *undoes => self.run("UPDATE file SET turn = turn", []).map(drop),
            _ => Err(Trouble::of_work("has the call for lost already")),
        }
    }

    /// The next rows, oldest first, of which no more than so many are looked at; the last one that was, where there may
    /// be more.
    pub(super) fn list(&self, filter: &Filter) -> Result<(Vec<Row>, Option<i64>), Trouble> {
        // By the plus, the rows are walked in their order, and none is sorted.
        let sql = format!("SELECT {COLUMNS} FROM appointment WHERE +server = ?1 AND id > ?2 ORDER BY id LIMIT ?3");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let most = i64::from(LISTED_AT_ONCE);
        let (mut found, mut bytes, mut whole) = (Vec::new(), 0, true);
        for row in statement.query_and_then(params![filter.server, filter.after, most], read)? {
            let row: Row = row?;
            bytes += row.bytes();
            found.push(row);
            if bytes > LISTED_BYTES_AT_ONCE || found.len() == LISTED_AT_ONCE as usize {
                whole = false;
                break;
            }
        }
        let last = found.last().filter(|_| !whole).map(|row| row.id);
        let mut rows = Vec::new();
        for row in found {
            if filter.since.is_none_or(|since| row.started >= since)
                && filter.until.is_none_or(|until| row.started < until)
            {
                let id = row.id;
                // One that began anew meanwhile stands further on.
                let row = self.settled(&filter.server, row)?.filter(|row| row.id == id);
                rows.extend(row.filter(|row| filter.state.is_none_or(|state| state == row.state)));
            }
        }
        Ok((rows, last))
    }

    /// Writes what a person found out.
    pub(super) fn resolve(&self, resolution: &Resolution) -> Result<Result<Row, Refused>, Trouble> {
        let Resolution { server, out_task_num, answer, by, note } = resolution;
        let row = self.find(server, out_task_num)?.map(|row| self.settled(server, row)).transpose()?.flatten();
        let Some(row) = row else { return Ok(Err(Refused::NoRow)) };
        let outcome = if answer.is_some() { Outcome::Created } else { Outcome::NotCreated };
        // What was said before stays, but for who said it.
        let recorded = match (row.state, row.answer.as_deref().zip(answer.as_deref())) {
            (State::Sending, _) => return refused("is being sent now: wait for what becomes of it"),
            (State::Ended(Outcome::Created), _) if outcome != Outcome::Created => {
                return refused("is recorded as created");
            }
            (State::Ended(Outcome::Created), Some((recorded, said))) if number(recorded) != number(said) => {
                return refused("is recorded as created, with another task number");
            }
            (State::Ended(Outcome::NotCreated), _) if outcome != Outcome::NotCreated => {
                return refused("is recorded as not created");
            }
            (State::Ended(Outcome::Unknown), _) => answer.as_ref(),
            _ => row.answer.as_ref().or(answer.as_ref()),
        };
        let state = State::Ended(outcome).value();
        let sql = "UPDATE appointment SET state = ?2, life = NULL, answer = ?3, by = ?4, note = ?5, resolved = ?6,
                masked = iif(answer IS ?3, masked, NULL)
            WHERE id = ?1";
        self.run(sql, params![row.id, state, recorded, by, note, now()])?;
        match self.find(server, out_task_num)? {
            Some(row) => Ok(Ok(row)),
            None => Err(Trouble::damaged("a row that was just written is not there")),
        }
    }

    /// Drops rows that were certain longer ago than `keep`. What is not certain stays, however old.
    fn forget(&self, server: &str, now: i64, keep: Duration) -> Result<(), Trouble> {
        let before = now.saturating_sub(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX));
        // States below 2 are the certain ones; so it is written in the index.
        let sql = "DELETE FROM appointment WHERE id IN (
            SELECT id FROM appointment
            WHERE server = ?1 AND state < 2 AND coalesce(resolved, ended, started) < ?2
            ORDER BY coalesce(resolved, ended, started) LIMIT ?3)";
        self.run(sql, params![server, before, FORGOTTEN_AT_ONCE])?;
        Ok(())
    }

    fn find(&self, server: &str, number: &str) -> Result<Option<Row>, Trouble> {
        let sql = format!("SELECT {COLUMNS} FROM appointment WHERE server = ?1 AND out_task_num = ?2");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut found = statement.query_and_then(params![server, number], read)?;
        found.next().transpose()
    }

    /// The row as it counts: what a dead sender left is unknown.
    fn settled(&self, server: &str, mut row: Row) -> Result<Option<Row>, Trouble> {
        while row.state == State::Sending && !self.is_alive(&row)? {
            // A call lets go of its sign of life when its outcome is written, which may have been just now.
            match self.find(server, &row.out_task_num)? {
                None => return Ok(None),
                Some(again) if again.state == State::Sending && again.life == row.life => {
                    row.state = State::Ended(Outcome::Unknown);
                }
                Some(again) => row = again,
            }
        }
        Ok(Some(row))
    }

    /// How often the file was written.
    pub(super) fn turn(&self) -> Result<u64, Trouble> {
        let mut statement = self.connection.prepare_cached("SELECT turn FROM file")?;
        let turn: i64 = statement.query_row([], |row| row.get(0))?;
        u64::try_from(turn).map_err(|_| Trouble::damaged("it counts backwards"))
    }

    /// Counts that it is written once more.
    pub(super) fn set_turn(&self, turn: u64) -> Result<(), Trouble> {
        self.run("UPDATE file SET turn = ?1", params![signed(turn)]).map(drop)
    }

    fn is_alive(&self, row: &Row) -> Result<bool, Trouble> {
        let Some(life) = row.life.and_then(|life| u64::try_from(life).ok()) else { return Ok(false) };
        life::is_alive(self.path, life).map_err(|error| Trouble::of_system("its signs of life", &error))
    }

    fn run(&self, sql: &str, values: impl rusqlite::Params) -> Result<usize, Trouble> {
        Ok(self.connection.prepare_cached(sql)?.execute(values)?)
    }
}

fn refused<T>(why: &'static str) -> Result<Result<T, Refused>, Trouble> {
    Ok(Err(Refused::Contradiction(why)))
}

fn read(row: &rusqlite::Row) -> Result<Row, Trouble> {
    Ok(Row {
        id: row.get(0)?,
        out_task_num: row.get(1)?,
        digest: row.get(2)?,
        state: State::read(row.get(3)?)?,
        life: row.get(4)?,
        started: row.get(5)?,
        ended: row.get(6)?,
        code: row.get(7)?,
        answer: row.get(8)?,
        by: row.get(9)?,
        note: row.get(10)?,
        resolved: row.get(11)?,
        masked: row.get(12)?,
    })
}

/// The task number of an answer.
fn number(answer: &str) -> Option<String> {
    json::get(answer, "/info/task_num").ok().map(|number| number.to_string())
}

/// SQLite's numbers have a sign. The offsets of signs of life have 62 bits, and no file is written so often.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or_default()
}

/// Milliseconds since 1970.
fn now() -> i64 {
    i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap_or_default()
}
