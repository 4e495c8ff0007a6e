//! The ledger: what a server made, and the check of every reply against it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::api::{CREATED, NOT_CREATED, OK, Reply, UNKNOWN};
use crate::expected::NOT_CREATED_STATUS;
use crate::http::{Said, find};
use crate::server::Exchange;

/// How many times each `out_task_num` was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger(BTreeMap<String, u32>);

impl Ledger {
    /// Enters one appointment.
    pub fn enter(&mut self, number: &str) {
        *self.0.entry(number.to_owned()).or_default() += 1;
    }

    /// How many times this number was made.
    pub fn made(&self, number: &str) -> u32 {
        self.0.get(number).copied().unwrap_or(0)
    }

    /// All numbers with how many times each was made.
    pub fn all(&self) -> &BTreeMap<String, u32> {
        &self.0
    }
}

/// Whether a reply is right in all that can be told from outside: `made` is what the ledger holds for its number,
/// `tries` what came of the tries of its call, each of which reached the server.
pub fn check(reply: &Reply, made: u32, tries: &[Exchange]) -> Result<(), String> {
    if reply.code != OK && reply.json()["attempts"] != tries.len() {
        return Err(format!("not the {} attempts that the server saw", tries.len()));
    }
    let longest = tries.iter().map(|one| &one.plain).max_by_key(|plain| plain.len());
    if longest.is_some_and(|longest| tries.iter().any(|one| !longest.starts_with(&one.plain))) {
        return Err("the bytes of a repeat are others".to_owned());
    }
    truth(reply, made, tries)
}

/// Whether a reply is true and says no `unknown` that could have been avoided: `made` is what the ledger holds for its
/// number, `tries` what came of its call at the server.
pub fn truth(reply: &Reply, made: u32, tries: &[Exchange]) -> Result<(), String> {
    if made > 1 {
        return Err(format!("made {made} times"));
    }
    match (reply.code, reply.outcome) {
        (OK, CREATED) => {}
        (OK, other) => return Err(format!("a success with outcome {other}")),
        (_, NOT_CREATED | CREATED | UNKNOWN) => {
            // A text without the word leaves the caller of another language without the outcome.
            if let Some(text) = &reply.text
                && serde_json::from_str::<Value>(text).is_ok_and(|document| document.get("outcome").is_none())
            {
                return Err("the error document says no outcome".to_owned());
            }
        }
        (_, other) => return Err(format!("no such outcome: {other}")),
    }
    match (reply.outcome, made) {
        (NOT_CREATED, 1) => return Err("not_created, and the ledger holds the number".to_owned()),
        (CREATED, 0) => return Err("created, and the ledger does not hold the number".to_owned()),
        (NOT_CREATED, _) if tries.iter().any(|one| one.request.is_some() && !answered(&one.sent)) => {
            return Err("not_created, and a whole request had no answer".to_owned());
        }
        (UNKNOWN, _) => {
            // One try of which nobody can tell makes the whole call unknown.
            let known: Option<Vec<String>> = tries.iter().map(nothing_done).collect();
            if let Some(known) = known {
                return Err(format!("unknown, and of {} tries: {}", tries.len(), known.join(", ")));
            }
        }
        _ => {}
    }
    Ok(())
}

/// Whether a whole final head was sent, in whatever spelling a client may take.
fn answered(sent: &[u8]) -> bool {
    let sent = sent.trim_ascii_start();
    let ends = [b"\n\r\n".as_slice(), b"\n\n"];
    let Some(end) = ends.iter().filter_map(|end| Some(find(sent, end)? + end.len())).min() else { return false };
    // The first digit of "HTTP/1.1 100": the final head stands behind it.
    let interim = sent.get(9) == Some(&b'1') && !sent[9..].starts_with(b"101");
    !interim || answered(&sent[end..])
}

/// Why a client must know that nothing came of a try, if it must.
fn nothing_done(one: &Exchange) -> Option<String> {
    if one.plain.is_empty() {
        return Some("no byte of the request arrived".to_owned());
    }
    let said = Said::read(&one.sent)?;
    if NOT_CREATED_STATUS.contains(&said.status) {
        return Some(format!("a whole head with {} arrived", said.status));
    }
    let refused = said.status / 100 == 2 && said.body.as_deref().is_some_and(plainly_refused);
    refused.then(|| "a whole status 0 without a number arrived".to_owned())
}

/// Whether a body says status 0 without a task number, and says it once.
fn plainly_refused(body: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(body) else { return false };
    let Ok(envelope) = serde_json::from_str::<Value>(text) else { return false };
    text.matches("\"status\"").count() == 1
        && (envelope["status"] == 0 || envelope["status"] == "0")
        && envelope.get("info").is_none()
}
