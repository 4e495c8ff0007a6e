//! The ledger: what a server made, and the check of every reply against it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::api::{CREATED, NOT_CREATED, OK, Reply, UNKNOWN};
use crate::expected::NOT_CREATED_STATUS;
use crate::http::Said;
use crate::server::Seen;

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

/// Whether a reply is true: `made` is what the ledger holds for its number, `seen` what its connections saw.
pub fn truth(reply: &Reply, made: u32, seen: &[Seen]) -> Result<(), String> {
    let request_bytes: usize = seen.iter().map(|seen| seen.request_bytes()).sum();
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
        _ => {}
    }
    if reply.outcome == UNKNOWN {
        if request_bytes == 0 {
            return Err("unknown, and no byte of the request arrived".to_owned());
        }
        for said in seen.iter().filter_map(|seen| Said::read(&seen.sent)) {
            if NOT_CREATED_STATUS.contains(&said.status) {
                return Err(format!("unknown, and a whole head with {} arrived", said.status));
            }
            if said.status / 100 == 2 && said.body.as_deref().is_some_and(plainly_refused) {
                return Err("unknown, and a whole status 0 without a number arrived".to_owned());
            }
        }
    }
    Ok(())
}

/// Whether a body says status 0 without a task number, and says it once.
fn plainly_refused(body: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(body) else { return false };
    let Ok(envelope) = serde_json::from_str::<Value>(text) else { return false };
    text.matches("\"status\"").count() == 1
        && (envelope["status"] == 0 || envelope["status"] == "0")
        && envelope.get("info").is_none()
}
