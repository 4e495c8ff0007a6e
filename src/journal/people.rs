//! What a person asks of the journal and tells it, in JSON. Decision 40.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use super::Journal;
use super::file::{Done, Work};
use super::rows::{Filter, Refused, Resolution, Row, State};
use crate::code::Code;
use crate::failure::{Failure, Problem};
use crate::keys::Keys;
use crate::outcome::Outcome;
use crate::{json, log, memory};

const FILTER_KEYS: [&str; 5] = ["outcome", "since", "until", "limit", "after"];
const RESOLUTION_KEYS: [&str; 4] = ["outcome", "task_num", "by", "note"];

/// Rows of a page, where the filter does not say, and at most.
const USUAL: u64 = 100;
const MOST: u64 = 1_000;
/// A page that has grown to more bytes than these is shown as it is.
const LARGEST: usize = 8 << 20;

const LONGEST_TASK_NUM: usize = 256;
const LONGEST_BY: usize = 128;
const LONGEST_NOTE: usize = 4_096;

/// A page of rows.
#[derive(Serialize)]
struct Page<'a> {
    rows: Vec<Shown<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// One row. What it does not have is absent.
#[derive(Serialize)]
struct Shown<'a> {
    out_task_num: &'a str,
    outcome: &'static str,
    server: &'a str,
    started: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolved: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
}

/// The answer that stands for one that a person has found.
#[derive(Serialize)]
struct Resolved<'a> {
    status: i32,
    message: &'static str,
    info: Info<'a>,
    resolved: bool,
}

#[derive(Serialize)]
struct Info<'a> {
    task_num: &'a str,
}

impl Journal {
    /// The rows of the client's server as JSON, oldest first.
    ///
    /// # Errors
    /// [`Code::BadArgument`], [`Code::Journal`].
    pub(crate) fn list(&self, filter: &str, timeout: Duration) -> Result<Zeroizing<String>, Failure> {
        let (mut filter, limit) = self.filter(filter)?;
        let until = Instant::now() + timeout;
        let mut rows: Vec<Row> = Vec::new();
        // One more than is shown tells whether there is another page.
        while rows.len() <= limit && rows.iter().map(Row::bytes).sum::<usize>() <= LARGEST {
            let Done::Listed(more, last) = self.ask(Work::List(filter.clone()), until)? else {
                return Err(Failure::plain(Code::Internal, "the journal has answered something else"));
            };
            rows.extend(more);
            match last {
                Some(last) => filter.after = last,
                None => {
                    filter.after = i64::MAX;
                    break;
                }
            }
        }
        let next = match rows.get(limit - 1) {
            Some(last) if rows.len() > limit => Some(last.id),
            _ => Some(filter.after).filter(|after| *after < i64::MAX),
        };
        let rows = rows.iter().take(limit).map(|row| self.shown(row)).collect();
        Ok(memory::json(&Page { rows, next: next.map(|next| next.to_string()) })?)
    }

    /// Records what became of an appointment; the row as JSON.
    ///
    /// # Errors
    /// [`Code::BadArgument`], [`Code::NoValue`], [`Code::Journal`].
    pub(crate) fn resolve(
        &self,
        number: &str,
        resolution: &str,
        timeout: Duration,
    ) -> Result<Zeroizing<String>, Failure> {
        let resolution = self.resolution(number, resolution)?;
        match self.ask(Work::Resolve(resolution), Instant::now() + timeout)? {
            Done::Resolved(Ok(row)) => Ok(memory::json(&self.shown(&row))?),
            Done::Resolved(Err(Refused::NoRow)) => {
                Err(Failure::plain(Code::NoValue, "the journal has no row of this out_task_num and this server"))
            }
            Done::Resolved(Err(Refused::Contradiction(why))) => {
                Err(Failure::plain(Code::BadArgument, format!("the appointment of this out_task_num {why}")))
            }
            _ => Err(Failure::plain(Code::Internal, "the journal has answered something else")),
        }
    }

    fn ask(&self, work: Work, until: Instant) -> Result<Done, Failure> {
        let (done, _) = self.file.ask(work, || (Instant::now() < until).then_some(until));
        done.map_err(|undone| Failure::plain(Code::Journal, self.sentence(&undone.trouble())))
    }

    /// What is asked for, and how many rows at most.
    fn filter(&self, text: &str) -> Result<(Filter, usize), Failure> {
        let wrong = |problems| Failure::problems(Code::BadArgument, "the filter is refused", problems);
        let object = json::object(text).map_err(|problem| wrong(vec![Problem::new("filter", problem)]))?;
        let mut problems = Vec::new();
        let mut keys = Keys::new("", object, &FILTER_KEYS, &[], &mut problems);
        let states = Outcome::ALL.into_iter().map(State::Ended).chain([State::Sending]);
        let state = keys.string("outcome").and_then(|word| {
            let state = states.clone().find(|state| state.word() == *word);
            if state.is_none() {
                keys.problem("outcome", "must be \"not_created\", \"created\", \"unknown\" or \"sending\"");
            }
            state
        });
        let since = keys.instant("since");
        let until = keys.instant("until");
        let limit = keys.integer("limit", USUAL, 1..=MOST);
        let after = keys.string("after").map(|text| text.parse().ok().filter(|id: &i64| *id >= 0));
        if after == Some(None) {
            keys.problem("after", "must be the next of an earlier page");
        }
        if !problems.is_empty() {
            return Err(wrong(problems));
        }
        let server = memory::copy(&self.server)?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok((Filter { server, state, since, until, after: after.flatten().unwrap_or(0) }, limit))
    }

    fn resolution(&self, number: &str, text: &str) -> Result<Resolution, Failure> {
        let wrong = |problems| Failure::problems(Code::BadArgument, "the resolution is refused", problems);
        let object = json::object(text).map_err(|problem| wrong(vec![Problem::new("resolution", problem)]))?;
        let mut problems = Vec::new();
        let mut keys = Keys::new("", object, &RESOLUTION_KEYS, &[], &mut problems);
        for key in ["outcome", "by"] {
            if keys.get(key).is_none() {
                keys.problem(key, "is missing, and required");
            }
        }
        let outcome = keys.string("outcome");
        let created = match outcome.as_ref().map(|word| word.as_str()) {
            Some("created") => Some(true),
            Some("not_created") => Some(false),
            Some(_) => {
                keys.problem(
                    "outcome",
                    "must be \"created\" or \"not_created\": the journal knows by itself what it does not know",
                );
                None
            }
            None => None,
        };
        let task_num = keys.name("task_num", LONGEST_TASK_NUM);
        match (created, keys.get("task_num").is_some()) {
            (Some(true), false) => keys.problem("task_num", "is missing, and required of what was created"),
            (Some(false), true) => keys.problem("task_num", "is given, but what was not created has none"),
            _ => {}
        }
        let by = keys.name("by", LONGEST_BY);
        let note = keys.string("note").filter(|note| {
            let fits = note.len() <= LONGEST_NOTE
                && !note.contains(|character: char| character.is_control() && !matches!(character, '\t' | '\n' | '\r'));
            if !fits {
                keys.problem("note", "must be at most 4096 bytes without control characters but line ends and tabs");
            }
            fits
        });
        if !problems.is_empty() {
            return Err(wrong(problems));
        }
        let answer = match task_num.filter(|_| created == Some(true)) {
            Some(number) => {
                let answer =
                    Resolved { status: 1, message: "resolved", info: Info { task_num: &number }, resolved: true };
                Some(memory::json(&answer)?.to_string())
            }
            None => None,
        };
        Ok(Resolution {
            server: memory::copy(&self.server)?,
            out_task_num: memory::copy(number)?,
            answer,
            by: by.map(|by| by.to_string()).unwrap_or_default(),
            note: note.map(|note| note.to_string()),
        })
    }

    fn shown<'a>(&'a self, row: &'a Row) -> Shown<'a> {
        Shown {
            out_task_num: &row.out_task_num,
            outcome: row.state.word(),
            server: &self.server,
            started: time(row.started),
            ended: row.ended.map(time),
            code: row.code,
            answer: row.answer.as_deref().and_then(json::raw),
            resolved: row.resolved.map(time),
            by: row.by.as_deref(),
            note: row.note.as_deref(),
        }
    }
}

impl Keys<'_, '_> {
    /// A time in RFC 3339, as milliseconds since 1970.
    fn instant(&mut self, key: &str) -> Option<i64> {
        let text = self.string(key)?;
        let time = OffsetDateTime::parse(&text, &Rfc3339).ok();
        if time.is_none() {
            let wanted = "must be an RFC 3339 time with an offset, such as 2026-11-24T15:30:00+08:00";
            self.problem(key, wanted);
        }
        // A part of a millisecond belongs to the next one: a row has none.
        i64::try_from((time?.unix_timestamp_nanos() + 999_999).div_euclid(1_000_000)).ok()
    }
}

fn time(ms: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    log::time(time.unwrap_or(OffsetDateTime::UNIX_EPOCH))
}
