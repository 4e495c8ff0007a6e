//! What stands between a client and its server, step by step, in words for a help desk. No appointment is asked for,
//! and the token stays here.
#![forbid(unsafe_code)]

mod advice;

use std::env::consts::{ARCH, OS};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use crate::call::{Call, Cause};
use crate::config::Config;
use crate::connection::Connection;
use crate::credential::Credential;
use crate::failure::Failure;
use crate::tls::{Certificate, Root, Shown};
use advice::Way;

/// A clock that is wrong by more than this, in milliseconds, is worth a word: certificates and tokens end by it.
const CLOCK_MS: i64 = 60_000;
/// A certificate that ends within so long is worth a word, while there is time to renew it.
const ENDS_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// How a step ended.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Failed,
    Skipped,
}

/// One step, in the order of its keys.
#[derive(Serialize)]
struct Step {
    step: &'static str,
    state: State,
    ms: u64,
    detail: String,
    advice: String,
    #[serde(flatten)]
    more: More,
}

/// What is told besides, for programs.
#[derive(Default, Serialize)]
struct More {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cipher: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    chain: Vec<Certificate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    /// Whether Mozilla's list has an authority that the chain leads to; absent where a date in the chain is wrong, with
    /// which it leads to none.
    #[serde(skip_serializing_if = "Option::is_none")]
    public: Option<bool>,
    /// Whether the authority has the name of one that inspects TLS on the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    inspected: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_status: Option<u16>,
    /// How far this machine's clock is ahead of the server's.
    #[serde(skip_serializing_if = "Option::is_none")]
    ahead_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
}

/// What a step found.
struct Found {
    detail: String,
    advice: String,
    more: More,
}

impl Found {
    fn new(detail: impl Into<String>) -> Found {
        Found { detail: detail.into(), advice: advice::NOTHING.to_owned(), more: More::default() }
    }

    fn advice(mut self, advice: impl Into<String>) -> Found {
        self.advice = advice.into();
        self
    }
}

/// Why a step failed.
struct Stopped {
    cause: Cause,
    advice: String,
    more: More,
}

/// The steps so far, and the first that failed.
struct Diagnosis<'a> {
    call: &'a Rc<Call>,
    steps: Vec<Step>,
    failure: Option<Failure>,
}

impl Diagnosis<'_> {
    /// Does a step, and gives what the next one needs; `None` when it failed.
    fn step<T>(&mut self, step: &'static str, work: impl FnOnce() -> Result<(T, Found), Box<Stopped>>) -> Option<T> {
        let begun = Instant::now();
        let result = work();
        let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        match result {
            Ok((next, found)) => {
                self.push(step, State::Ok, ms, found);
                Some(next)
            }
            Err(stopped) => {
                let Stopped { cause, advice, more } = *stopped;
                let advice = if matches!(cause, Cause::Cancelled) { advice::CANCELLED.to_owned() } else { advice };
                self.fail(step, ms, Failure::stopped(self.call, &cause), advice, more);
                None
            }
        }
    }

    fn push(&mut self, step: &'static str, state: State, ms: u64, found: Found) {
        let Found { detail, advice, more } = found;
        self.steps.push(Step { step, state, ms, detail, advice, more });
    }

    fn fail(&mut self, step: &'static str, ms: u64, failure: Failure, advice: impl Into<String>, more: More) {
        let found = Found { more, ..Found::new(failure.message()).advice(advice) };
        self.push(step, State::Failed, ms, found);
        self.failure.get_or_insert(failure);
    }

    fn found(&mut self, step: &'static str, found: Found) {
        self.push(step, State::Ok, 0, found);
    }

    fn skip(&mut self, step: &'static str, found: Found) {
        self.push(step, State::Skipped, 0, found);
    }

    /// Skips what a step that failed stands before.
    fn give_up(&mut self, steps: &[&'static str]) {
        for step in steps {
            self.skip(step, Found::new("not reached").advice(advice::FIRST));
        }
    }
}

/// The steps as JSON.
///
/// # Errors
/// That of the first step that failed, with all of them.
pub(crate) fn run(call: &Rc<Call>, config: &Config, connection: &Connection) -> Result<String, Failure> {
    #[derive(Serialize)]
    struct Answer {
        steps: Vec<Step>,
    }

    let _scope = call.enter();
    call.attempt();
    call.connect_within(config.connect_timeout);
    let mut diagnosis = Diagnosis { call, steps: Vec::new(), failure: None };
    reach(&mut diagnosis, config, connection);
    token(&mut diagnosis, &config.credential);
    let version = crate::VERSION;
    let mut found = Found::new(format!("libarctos {version} for {OS} on {ARCH}"));
    found.more.version = Some(version);
    diagnosis.found("library", found);
    let Diagnosis { steps, failure, .. } = diagnosis;
    match failure {
        None => Ok(serde_json::to_string(&Answer { steps }).expect("the steps can be written as JSON")),
        Some(failure) => Err(failure.with_steps(&steps)),
    }
}

/// The steps to the server.
fn reach(diagnosis: &mut Diagnosis, config: &Config, connection: &Connection) {
    let call = diagnosis.call;
    let base = &config.base;
    let proxy = config.proxy.as_deref();
    let way = Way { server: &base.authority, https: base.https, proxied: proxy.is_some() };
    let probe = connection.probe();
    match proxy {
        None => diagnosis.found("route", Found::new(format!("direct to {}", base.authority))),
        Some(proxy) => {
            let mut found = Found::new(format!("to {} through the proxy {}", base.authority, proxy.authority));
            found.more.proxy = Some(proxy.authority.to_string());
            diagnosis.found("route", found);
        }
    }
    let next = proxy.map_or(&base.host, |proxy| &proxy.host);
    let addresses = diagnosis.step("name", || {
        let addresses = probe.addresses(call).map_err(|cause| stopped(way.name(&cause), cause))?;
        let mut found = Found::new(match next.parse::<IpAddr>() {
            Ok(_) => format!("{next} is an address already"),
            Err(_) => format!("{next} is {}", list(&addresses)),
        });
        found.more.addresses = addresses.iter().map(SocketAddr::ip).collect();
        Ok((addresses, found))
    });
    let Some(addresses) = addresses else { return diagnosis.give_up(&["connect", "proxy", "tls", "server", "clock"]) };
    let socket = diagnosis.step("connect", || {
        let (socket, address) = probe.connect(call, addresses).map_err(|cause| stopped(way.connect(&cause), cause))?;
        Ok((socket, Found::new(format!("connected to {address}"))))
    });
    let Some(socket) = socket else { return diagnosis.give_up(&["proxy", "tls", "server", "clock"]) };
    if let Some(proxy) = proxy {
        let opened = diagnosis.step("proxy", || {
            probe.tunnel(call, &socket).map_err(|cause| stopped(way.proxy(&cause), cause))?;
            Ok(((), Found::new(format!("{} opened the way to {}", proxy.authority, base.authority))))
        });
        if opened.is_none() {
            return diagnosis.give_up(&["tls", "server", "clock"]);
        }
    } else {
        diagnosis.skip("proxy", Found::new("none is in use"));
    }
    let stream = if base.https {
        diagnosis.step("tls", || {
            let (result, shown) = probe.secure(call, socket);
            let more = shown.as_ref().map(about).unwrap_or_default();
            let stream = match result {
                Ok(stream) => stream,
                Err(cause) => {
                    let advice = way.tls(&cause, shown.as_ref(), &base.host, &more);
                    return Err(Box::new(Stopped { cause, advice, more }));
                }
            };
            let (protocol, cipher) = stream.protocol().unwrap_or_default();
            let mut found = Found::new(format!("{protocol} with {cipher}"));
            if let Some(leaf) = more.chain.first() {
                found.detail.push_str(&format!(
                    "; the certificate of {} is issued by {} and good until {}",
                    leaf.subject, leaf.issuer, leaf.not_after
                ));
            }
            let found = found.advice(advice::certificate(&more));
            let more = More { protocol: Some(protocol), cipher: Some(cipher), ..more };
            Ok((stream, Found { more, ..found }))
        })
    } else {
        let found = Found::new("base_url is http: what is sent can be read on the way");
        diagnosis.skip("tls", found.advice(advice::HTTP));
        probe.secure(call, socket).0.ok()
    };
    let Some(stream) = stream else { return diagnosis.give_up(&["server", "clock"]) };
    let answered = diagnosis.step("server", || {
        let answered = probe.head(call, stream).map_err(|cause| stopped(way.server(&cause), cause))?;
        let status = answered.status;
        let mut found = Found::new(format!("{} answers, a HEAD without a token by HTTP {status}", base.authority))
            .advice(way.answered(status));
        found.more.http_status = Some(status);
        Ok((answered, found))
    });
    let Some(answered) = answered else { return diagnosis.give_up(&["clock"]) };
    match answered.date {
        None => diagnosis.skip("clock", Found::new("the server does not tell its time")),
        Some(theirs) => diagnosis.found("clock", clock(theirs, SystemTime::now())),
    }
}

fn stopped(advice: impl Into<String>, cause: Cause) -> Box<Stopped> {
    Box::new(Stopped { cause, advice: advice.into(), more: More::default() })
}

/// What a handshake showed.
fn about(shown: &Shown) -> More {
    let chain: Vec<Certificate> = shown.certificates().collect();
    let subject = |root| match root {
        Root::Trusted { subject, .. } => Some(subject),
        Root::None | Root::Unknown => None,
    };
    let known = subject(shown.public_root());
    let public = Some(known.is_some()).filter(|known| *known || are_in_time(&chain));
    // What the system trusts it does not tell, but it is nearly always that one.
    let root = match shown.root() {
        Root::Unknown => known,
        root => subject(root),
    };
    let inspected = Some(chain.iter().any(Certificate::is_of_an_inspecting_proxy));
    More { chain, root, public, inspected, ..More::default() }
}

/// The time since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Whether today is between the dates of each.
fn are_in_time(chain: &[Certificate]) -> bool {
    let now = now();
    chain.iter().all(|one| one.valid.0 <= now && now <= one.valid.1)
}

/// When the server's own certificate ends, where that is soon.
fn ends_soon(chain: &[Certificate]) -> Option<&str> {
    let leaf = chain.first()?;
    (leaf.valid.1.saturating_sub(now()) < ENDS_SOON).then_some(&leaf.not_after)
}

/// How this machine's clock stands to the server's, which tells whole seconds.
fn clock(theirs: SystemTime, ours: SystemTime) -> Found {
    let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let ahead = match ours.duration_since(theirs) {
        Ok(ahead) => ms(ahead),
        Err(behind) => -ms(behind.duration()),
    };
    let mut found = if ahead.abs() <= CLOCK_MS {
        Found::new("this machine and the server have the same time, within a minute")
    } else {
        let side = if ahead > 0 { "ahead of" } else { "behind" };
        Found::new(format!("this machine's clock is {} s {side} the server's", ahead.abs() / 1000))
            .advice(advice::CLOCK)
    };
    found.more.ahead_ms = Some(ahead);
    found
}

fn token(diagnosis: &mut Diagnosis, credential: &Credential) {
    match credential.at_hand() {
        Ok(Some(_)) => diagnosis.found("token", Found::new("there is one; whether the server takes it was not asked")),
        Ok(None) => diagnosis.found("token", Found::new("the first call logs in; this was not tried")),
        Err(failure) => diagnosis.fail("token", 0, failure, advice::TOKEN, More::default()),
    }
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", ")
}
