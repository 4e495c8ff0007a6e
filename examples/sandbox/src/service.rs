//! The two paths, and what is checked before the contract: method, token, media type, size.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;

use crate::behaviour::{self, UsedUp};
use crate::book::Book;
use crate::contract;
use crate::wire::Ending;

/// A whole answer, kept in memory.
pub type Answer = Response<Full<Bytes>>;

const BODY_LIMIT: usize = 1024 * 1024;

/// What all connections share.
pub struct Service {
    authorization: String,
    slow: Duration,
    book: Book,
    used_up: UsedUp,
}

impl Service {
    pub fn new(token: String, slow: Duration) -> Self {
        Self { authorization: format!("Bearer {token}"), slow, book: Book::default(), used_up: UsedUp::default() }
    }

    /// Answers one request, or says how its connection ends instead.
    pub async fn call(&self, request: Request<Incoming>) -> Result<Answer, Ending> {
        let (head, body) = request.into_parts();
        let body = read_to_end(body).await;
        match (head.uri.path(), &head.method) {
            ("/api/task/do_add", &Method::POST) => match self.admit(&head.headers, body) {
                Ok(task) => behaviour::carry_out(task, &self.book, &self.used_up, self.slow).await,
                Err((status, message)) => Ok(refusal(status, &message)),
            },
            ("/sandbox/appointments", &Method::GET) => Ok(answer(StatusCode::OK, "application/json", self.book.list())),
            ("/api/task/do_add", _) => Ok(wrong_method("POST")),
            ("/sandbox/appointments", _) => Ok(wrong_method("GET")),
            _ => Ok(refusal(StatusCode::NOT_FOUND, "Resource Not Found")),
        }
    }

    /// The task of a request that may come in, or what to refuse it with.
    fn admit(&self, headers: &HeaderMap, body: Body) -> Result<contract::Task, (StatusCode, String)> {
        let authorized =
            headers.get(AUTHORIZATION).is_some_and(|value| value.as_bytes() == self.authorization.as_bytes());
        if !authorized {
            return Err((
                StatusCode::FORBIDDEN,
                "Access to the requested resource is not allowed: \
                 the Authorization header does not carry the token"
                    .to_owned(),
            ));
        }
        if !is_json(headers) {
            return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/json".to_owned()));
        }
        match body {
            Body::Whole(body) => contract::check(&body).map_err(|problems| (StatusCode::BAD_REQUEST, problems)),
            Body::TooLong => Err((StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 1 MiB".to_owned())),
            Body::Broken => Err((StatusCode::BAD_REQUEST, "the body could not be read".to_owned())),
        }
    }
}

enum Body {
    Whole(Vec<u8>),
    TooLong,
    Broken,
}

/// Reads a body to its end, and drops what is over the limit: closing a connection with unread
/// bytes would reset it, and the client might never see the answer.
async fn read_to_end(mut incoming: Incoming) -> Body {
    let mut body = Vec::new();
    let mut length: u64 = 0;
    while let Some(frame) = incoming.frame().await {
        let Ok(frame) = frame else {
            return Body::Broken;
        };
        if let Some(data) = frame.data_ref() {
            length += data.len() as u64;
            if length <= BODY_LIMIT as u64 {
                body.extend_from_slice(data);
            }
        }
    }
    if length > BODY_LIMIT as u64 { Body::TooLong } else { Body::Whole(body) }
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}

/// An answer with its body.
pub fn answer(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// The envelope of a request that made nothing.
pub fn refusal(status: StatusCode, message: &str) -> Answer {
    answer(status, "application/json", json!({ "status": 0, "message": message }).to_string())
}

fn wrong_method(allowed: &'static str) -> Answer {
    let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, &format!("this path takes {allowed} only"));
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}
