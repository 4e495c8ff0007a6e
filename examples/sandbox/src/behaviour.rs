//! What becomes of a task that passed the contract: the beginning of its `out_task_num` chooses.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{HeaderValue, RETRY_AFTER};
use serde_json::json;

use crate::book::Book;
use crate::contract::Task;
use crate::service::{Answer, answer, refusal};
use crate::wire::Ending;

#[derive(Clone, Copy)]
enum Behaviour {
    Succeed,
    Fail,
    Warn,
    Busy,
    Slow,
    ResetBefore,
    ResetAfter,
    Truncate,
    Html,
    Forbidden,
    ServerError,
    NoNumber,
}

/// Longer beginnings stand before those that they begin with.
const PREFIXES: [(&str, Behaviour, Times); 14] = [
    ("busy-once-", Behaviour::Busy, Times::Once),
    ("reset-once-", Behaviour::ResetBefore, Times::Once),
    ("slow-once-", Behaviour::Slow, Times::Once),
    ("fail-", Behaviour::Fail, Times::Always),
    ("warn-", Behaviour::Warn, Times::Always),
    ("busy-", Behaviour::Busy, Times::Always),
    ("slow-", Behaviour::Slow, Times::Always),
    ("reset-before-", Behaviour::ResetBefore, Times::Always),
    ("reset-after-", Behaviour::ResetAfter, Times::Always),
    ("truncate-", Behaviour::Truncate, Times::Always),
    ("html-", Behaviour::Html, Times::Always),
    ("forbidden-", Behaviour::Forbidden, Times::Always),
    ("error500-", Behaviour::ServerError, Times::Always),
    ("nonum-", Behaviour::NoNumber, Times::Always),
];

#[derive(Clone, Copy)]
enum Times {
    Always,
    /// For the first request with a number; the later ones succeed.
    Once,
}

/// The numbers whose one misbehaviour has been used up.
#[derive(Default)]
pub struct UsedUp {
    numbers: Mutex<HashSet<String>>,
}

impl UsedUp {
    /// Uses a number up. True for exactly one of all requests with it.
    fn add(&self, out_task_num: &str) -> bool {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).insert(out_task_num.to_owned())
    }
}

impl Behaviour {
    fn of(out_task_num: &str, used_up: &UsedUp) -> Self {
        match PREFIXES.iter().find(|(prefix, ..)| out_task_num.starts_with(prefix)) {
            Some(&(_, behaviour, Times::Always)) => behaviour,
            Some(&(_, behaviour, Times::Once)) if used_up.add(out_task_num) => behaviour,
            _ => Behaviour::Succeed,
        }
    }
}

/// Carries a task out as its `out_task_num` asks.
pub async fn carry_out(task: Task, book: &Book, used_up: &UsedUp, slow: Duration) -> Result<Answer, Ending> {
    match Behaviour::of(&task.out_task_num, used_up) {
        Behaviour::Succeed => Ok(json_ok(success(&book.add(task)))),
        Behaviour::Fail => Ok(refusal(StatusCode::OK, "the appointment was refused, as its number asks")),
        Behaviour::Warn => Ok(json_ok(json!({
            "status": 2,
            "message": "made with a warning, as its number asks",
            "info": { "task_num": book.add(task) },
        }))),
        Behaviour::Busy => {
            let mut answer = refusal(StatusCode::TOO_MANY_REQUESTS, "too many requests, as the number asks");
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            Ok(answer)
        }
        Behaviour::Slow => {
            let task_num = book.add(task);
            tokio::time::sleep(slow).await;
            Ok(json_ok(success(&task_num)))
        }
        Behaviour::ResetBefore => Err(Ending::Reset),
        Behaviour::ResetAfter => {
            book.add(task);
            Err(Ending::Reset)
        }
        Behaviour::Truncate => Err(Ending::Truncated(success(&book.add(task)).to_string())),
        Behaviour::Html => {
            book.add(task);
            Ok(answer(
                StatusCode::OK,
                "text/html; charset=utf-8",
                "<!DOCTYPE html><title>Portal</title><p>Please sign in.</p>".to_owned(),
            ))
        }
        Behaviour::Forbidden => Ok(refusal(StatusCode::FORBIDDEN, "access is not allowed, as the number asks")),
        Behaviour::ServerError => Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal error, as the number asks")),
        Behaviour::NoNumber => {
            book.add(task);
            Ok(json_ok(json!({ "status": 1, "message": "success", "info": {} })))
        }
    }
}

fn success(task_num: &str) -> serde_json::Value {
    json!({ "status": 1, "message": "success", "info": { "task_num": task_num } })
}

fn json_ok(body: serde_json::Value) -> Answer {
    answer(StatusCode::OK, "application/json", body.to_string())
}
