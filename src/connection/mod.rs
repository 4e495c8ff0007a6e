//! How one request goes out and its answer comes in.
//!
//! ureq writes the request and reads the answer; everything below it is ours: names, sockets, TLS, deadlines, and
//! the record of what was sent. It is held short: no redirect, no proxy and nothing else from the environment, no
//! compression, no retry, no thread. Its error texts hold URLs, so that none of them reaches a message.
#![forbid(unsafe_code)]

mod buffers;
mod head;
mod resolve;
mod transport;

use std::io::Read;
use std::rc::Rc;
use std::sync::Arc;

use ureq::http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    RETRY_AFTER, TRANSFER_ENCODING,
};
use ureq::http::{Request, Response, Uri, Version};
use ureq::{Agent, Body};

use crate::call::{Call, Cause};
use crate::code::Code;
use crate::config::{Config, Secret};
use crate::failure::{Failure, Problem};
use transport::{Connector, NoResolver};

/// The way to one server.
pub(crate) struct Connection {
    agent: Agent,
    base_url: String,
}

impl Connection {
    /// Prepares the way; nothing is opened before a call needs it.
    pub(crate) fn new(config: &Config) -> Result<Connection, Failure> {
        let target = transport::Target::new(&config.base, config.tls.clone()).map_err(|problem| {
            Failure::problems(Code::BadConfig, "the configuration is refused", vec![Problem::new("base_url", problem)])
        })?;
        let settings = ureq::config::Config::builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(config.user_agent.as_str())
            .accept("application/json")
            .accept_encoding("")
            .max_response_header_size(head::LONGEST)
            .max_idle_connections(0)
            .build();
        let agent = Agent::with_parts(settings, Connector::new(Arc::new(target)), NoResolver);
        Ok(Connection { agent, base_url: config.base.url.clone() })
    }

    /// POSTs a JSON body to a path below the base URL. What happened stands in the call's record; what came is
    /// read off the answer.
    pub(crate) fn post(&self, call: &Rc<Call>, path: &str, token: &Secret, body: &str) -> Answer {
        let response = match self.request(path, token, body) {
            Ok(request) => self.agent.run(request).map_err(|error| cause(call, &error)),
            Err(why) => Err(Cause::Unreadable(why)),
        };
        Answer { response }
    }

    fn request<'a>(&self, path: &str, token: &Secret, body: &'a str) -> Result<Request<&'a str>, String> {
        let uri: Uri = format!("{}{path}", self.base_url).parse().map_err(|_| "the URL is none".to_owned())?;
        let bearer = crate::json::splice("", 0..0, &["Bearer ", token.expose()]);
        let mut bearer = HeaderValue::from_str(&bearer).map_err(|_| "the token fits no header".to_owned())?;
        bearer.set_sensitive(true);
        Request::post(uri)
            .header(AUTHORIZATION, bearer)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(CONNECTION, HeaderValue::from_static("close"))
            .body(body)
            .map_err(|_| "the request cannot be written".to_owned())
    }
}

/// What came back, body not yet read.
pub(crate) struct Answer {
    response: Result<Response<Body>, Cause>,
}

impl Answer {
    /// The whole body as text.
    ///
    /// # Errors
    /// The reason why there is none: the connection's own, or that of a framing that two readers could understand
    /// differently.
    pub(crate) fn whole(&mut self, call: &Call, max: usize) -> Result<String, Cause> {
        let response = self.response.as_mut().map_err(|cause| cause.clone())?;
        let framing = framing(response.version(), response.headers())?;
        let bytes = read(call, response.body_mut(), max)?;
        // ureq takes every end of the connection for the end of a body that only it delimits.
        if framing == Framing::Close
            && let Some(cause) = call.cause()
        {
            return Err(cause);
        }
        String::from_utf8(bytes).map_err(|_| Cause::Unreadable("it is not UTF-8".to_owned()))
    }

    /// `Retry-After` in seconds.
    pub(crate) fn retry_after_ms(&self) -> Option<u64> {
        let value = self.response.as_ref().ok()?.headers().get(RETRY_AFTER)?;
        value.to_str().ok()?.trim().parse::<u64>().ok()?.checked_mul(1000)
    }
}

/// What marks the end of a body.
#[derive(Debug, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
    Close,
}

/// How the body is framed, where all readers agree on it.
fn framing(version: Version, headers: &HeaderMap) -> Result<Framing, Cause> {
    let unreadable = |why: &str| Err(Cause::Unreadable(why.to_owned()));
    let all = |name: &HeaderName| -> Vec<&[u8]> {
        headers
            .get_all(name)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .collect()
    };
    if all(&CONTENT_ENCODING).iter().any(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        return unreadable("it has a Content-Encoding that was not asked for");
    }
    let lengths = all(&CONTENT_LENGTH);
    if lengths.windows(2).any(|pair| pair[0] != pair[1]) {
        return unreadable("it has two different Content-Lengths");
    }
    if lengths.iter().any(|length| length.is_empty() || !length.iter().all(u8::is_ascii_digit)) {
        return unreadable("its Content-Length is no number");
    }
    let codings = all(&TRANSFER_ENCODING);
    match (codings.as_slice(), lengths.is_empty()) {
        ([], true) => Ok(Framing::Close),
        ([], false) => Ok(Framing::Length),
        (_, false) => unreadable("it has both Content-Length and Transfer-Encoding"),
        ([coding], true) if coding.eq_ignore_ascii_case(b"chunked") && version == Version::HTTP_11 => {
            Ok(Framing::Chunked)
        }
        _ => unreadable("its Transfer-Encoding was not asked for"),
    }
}

/// Reads a body of at most `max` bytes.
fn read(call: &Call, body: &mut Body, max: usize) -> Result<Vec<u8>, Cause> {
    const STEP: usize = 8 * 1024;
    let mut reader = body.as_reader();
    let mut bytes = Vec::new();
    loop {
        let filled = bytes.len();
        // One byte more than is allowed tells that there is more. Its size is the server's choice, so that the
        // memory for it may be refused.
        let room = STEP.min(max.saturating_add(1) - filled);
        if bytes.try_reserve(room).is_err() {
            return Err(Cause::Unreadable("there is no memory for it".to_owned()));
        }
        bytes.resize(filled + room, 0);
        let count = match reader.read(&mut bytes[filled..]) {
            Ok(count) => count,
            Err(error) => return Err(cause(call, &ureq::Error::from(error))),
        };
        bytes.truncate(filled + count);
        if count == 0 {
            return Ok(bytes);
        }
        if bytes.len() > max {
            return Err(Cause::Unreadable(format!("it is longer than max_response_bytes ({max} bytes)")));
        }
    }
}

/// Why ureq stopped: what our own transport recorded, or else what ureq could not read.
fn cause(call: &Call, error: &ureq::Error) -> Cause {
    if let Some(cause) = call.cause() {
        return cause;
    }
    let broken = matches!(error, ureq::Error::Io(_) | ureq::Error::BodyStalled);
    if broken && call.ended() {
        return Cause::Broken("it was closed before the answer was whole".to_owned());
    }
    Cause::Unreadable("it breaks the rules of HTTP".to_owned())
}
