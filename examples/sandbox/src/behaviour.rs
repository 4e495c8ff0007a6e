//! What becomes of a task that passed the contract: the first word of its `out_task_num` chooses.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{HeaderValue, RETRY_AFTER};
use serde_json::json;

use crate::book::Book;
use crate::contract::Task;
use crate::service::{Answer, answer, refusal};
use crate::wire::Ending;

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

impl Behaviour {
    fn of(out_task_num: &str) -> Self {
        const PREFIXES: [(&str, Behaviour); 11] = [
            ("fail-", Behaviour::Fail),
            ("warn-", Behaviour::Warn),
            ("busy-", Behaviour::Busy),
            ("slow-", Behaviour::Slow),
            ("reset-before-", Behaviour::ResetBefore),
            ("reset-after-", Behaviour::ResetAfter),
            ("truncate-", Behaviour::Truncate),
            ("html-", Behaviour::Html),
            ("forbidden-", Behaviour::Forbidden),
            ("error500-", Behaviour::ServerError),
            ("nonum-", Behaviour::NoNumber),
        ];
        PREFIXES
            .into_iter()
            .find(|(prefix, _)| out_task_num.starts_with(prefix))
            .map_or(Behaviour::Succeed, |(_, behaviour)| behaviour)
    }
}

/// Carries a task out as its `out_task_num` asks.
pub async fn carry_out(task: Task, book: &Book, slow: Duration) -> Result<Answer, Ending> {
    match Behaviour::of(&task.out_task_num) {
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
