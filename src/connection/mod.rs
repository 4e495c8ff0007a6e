//! How one request goes out and its answer comes in.
//!
//! ureq writes the request and reads the answer; everything below it is ours: names, sockets, TLS, deadlines, and
//! the record of what was sent. It is held short: no redirect, no proxy and nothing else from the environment, no
//! compression, no retry, no pool, no thread. Its error texts hold URLs, so that none of them reaches a message.
#![forbid(unsafe_code)]

mod buffers;
mod head;
mod pool;
mod probe;
mod records;
mod resolve;
mod socket;
mod transport;
mod tunnel;

use std::io::Read;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ureq::http::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE, HOST, HeaderMap,
    HeaderName, HeaderValue, RETRY_AFTER, TRANSFER_ENCODING, USER_AGENT,
};
use ureq::http::{Method, Request, Response, Uri, Version};
use ureq::{Agent, Body};
use zeroize::Zeroizing;

use crate::call::{Call, Cause};
use crate::code::Code;
use crate::config::Config;
use crate::failure::{Failure, Problem};
use crate::secret::Secret;
use crate::stats::Stats;
use crate::{address, contract, fork};
use pool::Pool;
use transport::{Connector, NoResolver, Target};

/// The way to one server.
pub(crate) struct Connection {
    way: fork::Lock<Way>,
    settings: ureq::config::Config,
    pool: Arc<Pool>,
    stats: Arc<Stats>,
    base_url: String,
    /// Where appointments are made.
    endpoint: Uri,
    /// What every request says that carries a token; that of this one is put in its place.
    with_token: HeaderMap,
    without_token: HeaderMap,
    /// `None` where no connection is kept.
    idle_timeout: Option<Duration>,
}

/// What has locks that are not ours, so that a child needs it anew.
struct Way {
    agent: Agent,
    target: Arc<Target>,
    generation: u32,
}

impl Way {
    fn new(settings: &ureq::config::Config, target: Target, pool: &Arc<Pool>, stats: &Arc<Stats>) -> Way {
        let target = Arc::new(target);
        let connector = Connector::new(target.clone(), pool.clone(), stats.clone());
        let agent = Agent::with_parts(settings.clone(), connector, NoResolver);
        Way { agent, target, generation: fork::generation() }
    }
}

impl Connection {
    /// Prepares the way; nothing is opened before a call needs it.
    pub(crate) fn new(config: &Config, stats: Arc<Stats>) -> Result<Connection, Failure> {
        let refused = |key, problem| {
            Failure::problems(Code::BadConfig, "the configuration is refused", vec![Problem::new(key, problem)])
        };
        let target = Target::new(config).map_err(|problem| refused("base_url", problem))?;
        let base_url = config.base.url.clone();
        let endpoint = uri(&base_url, contract::PATH).map_err(|problem| refused("base_url", problem))?;
        let host = address::with_port(&config.base.host, config.base.port);
        let host = host.strip_suffix(if config.base.https { ":443" } else { ":80" }).unwrap_or(&host);
        let value = |key, text| HeaderValue::from_str(text).map_err(|_| refused(key, "fits no header".to_owned()));
        let mut without_token = HeaderMap::from_iter([
            (HOST, value("base_url", host)?),
            (CONTENT_TYPE, HeaderValue::from_static(JSON)),
            (ACCEPT, HeaderValue::from_static(JSON)),
            (USER_AGENT, value("user_agent", &config.user_agent)?),
        ]);
        let settings = ureq::config::Config::builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            // The request has those that it needs.
            .user_agent("")
            .accept("")
            .accept_encoding("")
            .max_response_header_size(head::LONGEST)
            .max_idle_connections(0)
            .build();
        transport::warm_up(&settings);
        let pool = Arc::new(Pool::new(config.connections));
        let way = fork::Lock::new(Way::new(&settings, target, &pool, &stats));
        let idle_timeout = Some(config.idle_timeout).filter(|time| !time.is_zero());
        if idle_timeout.is_none() {
            without_token.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let mut with_token = without_token.clone();
        with_token.insert(AUTHORIZATION, HeaderValue::from_static(""));
        Ok(Connection { way, settings, pool, stats, base_url, endpoint, with_token, without_token, idle_timeout })
    }

    /// Keeps no connection any more.
    pub(crate) fn close(&self) {
        self.pool.close();
    }

    /// How many connections are kept for further calls.
    pub(crate) fn kept(&self) -> usize {
        self.pool.kept()
    }

    fn agent(&self) -> Agent {
        self.way.with(|way| {
            if way.generation != fork::generation() {
                let new = Way::new(&self.settings, way.target.renewed(), &self.pool, &self.stats);
                // A thread that is not in this process may have held its locks.
                std::mem::forget(std::mem::replace(way, new));
            }
            way.agent.clone()
        })
    }

    /// POSTs a JSON body to a path below the base URL. What happened stands in the call's record; what came is
    /// read off the answer.
    pub(crate) fn post(&self, call: &Rc<Call>, path: &str, token: Option<&Secret>, body: &str) -> Answer {
        call.set_body(body.len());
        let response = match self.request(path, token, body) {
            Ok(request) => self.agent().run(request).map_err(|error| cause(call, &error)),
            Err(why) => Err(Cause::Unreadable(why)),
        };
        let response = response.map(|response| {
            let fields = Fields::read(response.headers());
            let framing = fields.framing(response.version());
            // To be known at the body's end, at which ureq lets go of the connection. What has no body, whatever its
            // head says, may be followed by one from a server that does not know it.
            let may_be_kept = framing.is_ok() && ![101, 204, 304].contains(&response.status().as_u16());
            let idle = self.idle_timeout.filter(|_| may_be_kept);
            call.keep(idle.and_then(|idle| fields.kept(response.version(), idle)));
            (response, framing)
        });
        if response.is_err() {
            call.keep(None);
        }
        Answer { response }
    }

    fn request<'a>(&self, path: &str, token: Option<&Secret>, body: &'a str) -> Result<Request<&'a str>, String> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = if path == contract::PATH { self.endpoint.clone() } else { uri(&self.base_url, path)? };
        *request.headers_mut() = match token {
            Some(token) => {
                let mut headers = self.with_token.clone();
                headers.insert(AUTHORIZATION, token.bearer().ok_or("the token fits no header")?.clone());
                headers
            }
            None => self.without_token.clone(),
        };
        Ok(request)
    }
}

const JSON: &str = "application/json";

fn uri(base_url: &str, path: &str) -> Result<Uri, String> {
    [base_url, path].concat().parse().map_err(|_| "the URL is none".to_owned())
}

/// What came back, body not yet read.
pub(crate) struct Answer {
    /// With what marks the end of its body.
    response: Result<(Response<Body>, Result<Framing, Cause>), Cause>,
}

impl Answer {
    /// The whole body as text, in memory that is wiped: it may hold a token, or a customer's data.
    ///
    /// # Errors
    /// The reason why there is none: the connection's own, or that of a framing that two readers could understand
    /// differently.
    pub(crate) fn whole(&mut self, call: &Call, max: usize) -> Result<Zeroizing<String>, Cause> {
        let (response, framing) = self.response.as_mut().map_err(|cause| cause.clone())?;
        let framing = framing.as_ref().map_err(Cause::clone)?;
        let mut bytes = read(call, response.body_mut(), framing, max)?;
        // ureq takes every end of the connection for the end of a body that only it delimits.
        if *framing == Framing::Close
            && let Some(cause) = call.cause()
        {
            return Err(cause);
        }
        let text = String::from_utf8(std::mem::take(&mut *bytes));
        text.map(Zeroizing::new).map_err(|_| Cause::Unreadable("it is not UTF-8".to_owned()))
    }

    /// `Retry-After`, seconds or a date, in milliseconds from now.
    pub(crate) fn retry_after_ms(&self) -> Option<u64> {
        retry_after(self.response.as_ref().ok()?.0.headers(), SystemTime::now())
    }
}

/// A date counts from the server's own clock where the answer tells it: this machine's may be wrong.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<u64> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok().map(str::trim);
    let value = text(RETRY_AFTER)?;
    if value.bytes().all(|byte| byte.is_ascii_digit()) {
        return value.parse::<u64>().ok()?.checked_mul(1000);
    }
    let then = httpdate::parse_http_date(value).ok()?;
    let now = text(DATE).and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
    u64::try_from(then.duration_since(now).unwrap_or_default().as_millis()).ok()
}

/// What marks the end of a body.
#[derive(Debug, PartialEq, Eq)]
enum Framing {
    /// Where it is a number that memory could hold.
    Length(Option<usize>),
    Chunked,
    Close,
}

/// What the fields of a head say of the body and of the connection.
#[derive(Default)]
struct Fields<'a> {
    /// A coding of the contents that was not asked for.
    is_encoded: bool,
    length: Option<&'a [u8]>,
    lengths_differ: bool,
    codings: usize,
    /// The last coding of the transfer.
    is_chunked: bool,
    closes: bool,
    /// Seconds, by Keep-Alive.
    timeout: Option<u64>,
}

impl<'a> Fields<'a> {
    fn read(headers: &'a HeaderMap) -> Fields<'a> {
        let mut fields = Fields::default();
        for (name, value) in headers {
            let members = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            if *name == CONTENT_LENGTH {
                for length in members {
                    fields.lengths_differ |= fields.length.is_some_and(|before| before != length);
                    fields.length = Some(length);
                }
            } else if *name == TRANSFER_ENCODING {
                for coding in members {
                    fields.codings += 1;
                    fields.is_chunked = coding.eq_ignore_ascii_case(b"chunked");
                }
            } else if *name == CONTENT_ENCODING {
                fields.is_encoded |= !members.into_iter().all(|coding| coding.eq_ignore_ascii_case(b"identity"));
            } else if *name == CONNECTION {
                fields.closes |= members.into_iter().any(|option| option.eq_ignore_ascii_case(b"close"));
            } else if name.as_str() == "keep-alive" && fields.timeout.is_none() {
                fields.timeout = members.into_iter().find_map(seconds);
            }
        }
        fields
    }

    /// How the body is framed, where all readers agree on it.
    fn framing(&self, version: Version) -> Result<Framing, Cause> {
        let unreadable = |why: &str| Err(Cause::Unreadable(why.to_owned()));
        if self.is_encoded {
            return unreadable("it has a Content-Encoding that was not asked for");
        }
        if self.lengths_differ {
            return unreadable("it has two different Content-Lengths");
        }
        if self.length.is_some_and(|length| length.is_empty() || !length.iter().all(u8::is_ascii_digit)) {
            return unreadable("its Content-Length is no number");
        }
        match (self.codings, self.length) {
            (0, None) => Ok(Framing::Close),
            (0, Some(length)) => {
                Ok(Framing::Length(std::str::from_utf8(length).ok().and_then(|length| length.parse().ok())))
            }
            (_, Some(_)) => unreadable("it has both Content-Length and Transfer-Encoding"),
            (1, None) if self.is_chunked && version == Version::HTTP_11 => Ok(Framing::Chunked),
            _ => unreadable("its Transfer-Encoding was not asked for"),
        }
    }

    /// How long the connection may wait for another request after this answer, at most `idle`.
    fn kept(&self, version: Version, idle: Duration) -> Option<Duration> {
        let ends = self.length.is_some() || self.codings > 0;
        if version != Version::HTTP_11 || self.closes || !ends {
            return None;
        }
        let timeout = self.timeout.map_or(idle, Duration::from_secs);
        Some(timeout.min(idle)).filter(|idle| !idle.is_zero())
    }
}

/// The seconds of `timeout=5` in a Keep-Alive field.
fn seconds(member: &[u8]) -> Option<u64> {
    let (key, seconds) = std::str::from_utf8(member).ok()?.split_once('=')?;
    let seconds = seconds.trim().trim_matches('"').parse().ok();
    seconds.filter(|_| key.trim().eq_ignore_ascii_case("timeout"))
}

/// Reads a body of at most `max` bytes.
fn read(call: &Call, body: &mut Body, framing: &Framing, max: usize) -> Result<Zeroizing<Vec<u8>>, Cause> {
    const STEP: usize = 8 * 1024;
    const LARGE_STEP: usize = 64 * 1024;
    const LARGEST_RESERVE: usize = 1024 * 1024;
    let mut reader = body.as_reader();
    let mut bytes = Zeroizing::new(Vec::new());
    let mut filled = 0;
    let step = match framing {
        Framing::Length(Some(length)) => {
            let all = length.min(&max).saturating_add(1);
            // No more than this on the server's word for it.
            let _ = bytes.try_reserve_exact(all.min(LARGEST_RESERVE));
            all.min(LARGE_STEP)
        }
        _ => STEP,
    };
    loop {
        if filled == bytes.len() {
            // One byte more than is allowed tells that there is more. Its size is the server's choice, so that the
            // memory for it may be refused.
            let room = step.min(max.saturating_add(1) - filled);
            if bytes.try_reserve(room).is_err() {
                return Err(Cause::Unreadable("there is no memory for it".to_owned()));
            }
            bytes.resize(filled + room, 0);
        }
        let count = match reader.read(&mut bytes[filled..]) {
            Ok(count) => count,
            Err(error) => return Err(cause(call, &ureq::Error::from(error))),
        };
        filled += count;
        if filled > max {
            return Err(Cause::Unreadable(format!("it is longer than max_response_bytes ({max} bytes)")));
        }
        if count == 0 {
            bytes.truncate(filled);
            return Ok(bytes);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Wed, 25 Nov 2026 08:00:00 GMT").unwrap();
        for (value, date, ms) in [
            ("2", None, Some(2_000)),
            (" 0 ", None, Some(0)),
            ("Wed, 25 Nov 2026 08:00:07 GMT", None, Some(7_000)),
            ("Wednesday, 25-Nov-26 08:00:07 GMT", None, Some(7_000)),
            ("Wed Nov 25 08:00:07 2026", None, Some(7_000)),
            ("Wed, 25 Nov 2026 07:00:00 GMT", None, Some(0)),
            ("Fri, 25 Nov 2016 08:00:07 GMT", Some("Fri, 25 Nov 2016 08:00:04 GMT"), Some(3_000)),
            ("Wed, 25 Nov 2026 08:00:07 GMT", Some("yesterday"), Some(7_000)),
            ("99999999999999999999", None, None),
            ("-1", None, None),
            ("1.5", None, None),
            ("soon", None, None),
        ] {
            let mut all = headers(&[("retry-after", value)]);
            if let Some(date) = date {
                all.insert(DATE, HeaderValue::from_static(date));
            }
            assert_eq!(retry_after(&all, now), ms, "{value} {date:?}");
        }
        assert_eq!(retry_after(&headers(&[]), now), None);
    }

    #[test]
    fn a_connection_is_kept_as_long_as_both_sides_say() {
        let idle = Duration::from_secs(4);
        let length = ("content-length", "2");
        for (version, lines, seconds) in [
            (Version::HTTP_11, &[length][..], Some(4)),
            (Version::HTTP_11, &[("transfer-encoding", "chunked")], Some(4)),
            (Version::HTTP_11, &[length, ("keep-alive", "max=5, timeout=2")], Some(2)),
            (Version::HTTP_11, &[length, ("keep-alive", "Timeout = \"3\"")], Some(3)),
            (Version::HTTP_11, &[length, ("keep-alive", "timeout=60")], Some(4)),
            (Version::HTTP_11, &[length, ("keep-alive", "timeout=0")], None),
            (Version::HTTP_11, &[length, ("connection", "x, Close")], None),
            (Version::HTTP_11, &[], None),
            (Version::HTTP_11, &[length, ("transfer-encoding", "chunked")], None),
            (Version::HTTP_10, &[length], None),
        ] {
            let headers = headers(lines);
            let fields = Fields::read(&headers);
            let kept = fields.framing(version).ok().and_then(|_| fields.kept(version, idle));
            assert_eq!(kept, seconds.map(Duration::from_secs), "{version:?} {lines:?}");
        }
    }
}
