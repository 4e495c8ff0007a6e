//! The record of one call. What had gone out is written down here by the connection, at the moment at which the
//! socket takes it, and nowhere else; a failure's outcome is read off it.
#![forbid(unsafe_code)]

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cancel::Ticket;
use crate::code::Code;
use crate::log::{self, Fields, Level};
use crate::memory;
use crate::outcome::Outcome;
use crate::stats::Counted;

/// How long a wait may go on before it looks whether the call was cancelled.
const SLICE: Duration = Duration::from_millis(50);

/// How far a call has come. Messages name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Resolve,
    Connect,
    /// A token is awaited, from a log-in of this call or of another one.
    LogIn,
    /// The proxy is asked for a way to the server.
    Tunnel,
    Handshake,
    Request,
    Answer,
    /// Between two tries.
    Pause,
    /// The journal's file is read or written.
    #[cfg(feature = "journal")]
    Journal,
    /// Another call, of this process or another one, makes the same appointment.
    #[cfg(feature = "journal")]
    Elsewhere,
}

/// Why the appointment may have been made before the try that is in question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// An earlier try of the same call may have made it.
    Try,
    /// Another call may have, by what the journal says or does not say.
    #[cfg(feature = "journal")]
    Call,
}

/// Why the connection could not carry a call to its end. The texts are fit for a message: they hold neither the
/// request nor the answer.
#[derive(Debug, Clone)]
pub(crate) enum Cause {
    /// The server's name was not found.
    Resolve(String),
    /// No connection to any of its addresses, or closed while TLS was being opened.
    Connect(String),
    /// The proxy opened no way to the server. What stands behind its name in a message, whether another try may bring
    /// more, and when at the earliest.
    Proxy { why: String, passes: bool, retry_after_ms: Option<u64> },
    /// TLS is not acceptable, or broke.
    Tls(String),
    /// A deadline passed: that of the call, or that of its connection.
    Deadline(Limit),
    /// The caller has cancelled the call.
    Cancelled,
    /// Closed or reset in the middle.
    Broken(String),
    /// What came is no readable answer.
    Unreadable(String),
}

/// What a call is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Nothing that the server hears of: its failures have no outcome.
    Local,
    /// To make an appointment.
    Appointment,
    /// To have the server do something else.
    Request,
    /// To find out what stands in the way, without the server being asked for anything.
    Diagnosis,
    /// To get a token for another call, whose failure says what became of the rest.
    LogIn,
}

/// Which time limit is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// `timeout_ms`.
    Call(Duration),
    /// `connect_timeout_ms`.
    Connect(Duration),
    /// The time that is given to the rest of an answer whose head has already decided.
    Rest,
}

/// One call of one function, from its entry to its return. It stays on the thread of its caller.
///
/// What is said of a try begins anew with each; the rest is of all of them.
pub(crate) struct Call {
    entered: Instant,
    purpose: Purpose,
    deadline: Cell<Option<(Instant, Limit)>>,
    ticket: OnceCell<Arc<Ticket>>,
    counted: OnceCell<Counted>,
    attempts: Cell<u32>,
    /// How many of them came after a failure that may pass.
    retries: Cell<u32>,
    /// What before this try may have made the appointment.
    doubt: Cell<Option<Doubt>>,
    id: OnceCell<String>,
    number: OnceCell<String>,
    /// How long the body of its request is.
    body: Cell<usize>,
    host: OnceCell<Arc<str>>,
    proxy: OnceCell<Arc<str>>,
    this: Try,
}

/// How long the connection of a try may be kept for other calls.
enum Keep {
    /// Not known before the head of the answer is read; then this is done with a connection that was let go of before.
    Open(Option<Box<dyn FnOnce(Option<Duration>)>>),
    /// So long, or not at all.
    Known(Option<Duration>),
}

/// What is said of one try.
struct Try {
    /// A limit of its own: that of the connection, or that of the rest of an answer.
    limit: Cell<Option<(Instant, Limit)>>,
    phase: Cell<Phase>,
    sent: Cell<bool>,
    status: Cell<Option<u16>>,
    ended: Cell<bool>,
    keep: RefCell<Keep>,
    cause: RefCell<Option<Cause>>,
}

impl Try {
    fn reset(&self, phase: Phase) {
        self.limit.set(None);
        self.phase.set(phase);
        self.sent.set(false);
        self.status.set(None);
        self.ended.set(false);
        self.keep.replace(Keep::Open(None));
        self.cause.replace(None);
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Call>>> = const { RefCell::new(None) };
}

/// Makes a call the current one of its thread, until it is dropped.
pub(crate) struct Scope {
    outer: Option<Rc<Call>>,
}

impl Drop for Scope {
    fn drop(&mut self) {
        CURRENT.set(self.outer.take());
    }
}

/// The call that this thread is in. The transport has no other way to it: what ureq hands to a connector
/// carries no data of its caller's, but runs on the caller's thread from end to end.
pub(crate) fn current() -> Option<Rc<Call>> {
    CURRENT.with_borrow(Clone::clone)
}

impl Call {
    /// Starts the clock.
    pub(crate) fn start(purpose: Purpose) -> Rc<Call> {
        Call::since(Instant::now(), purpose)
    }

    fn since(entered: Instant, purpose: Purpose) -> Rc<Call> {
        Rc::new(Call {
            entered,
            purpose,
            deadline: Cell::new(None),
            ticket: OnceCell::new(),
            counted: OnceCell::new(),
            attempts: Cell::new(0),
            retries: Cell::new(0),
            doubt: Cell::new(None),
            id: OnceCell::new(),
            number: OnceCell::new(),
            body: Cell::new(0),
            host: OnceCell::new(),
            proxy: OnceCell::new(),
            this: Try {
                limit: Cell::new(None),
                phase: Cell::new(Phase::Resolve),
                sent: Cell::new(false),
                status: Cell::new(None),
                ended: Cell::new(false),
                keep: RefCell::new(Keep::Open(None)),
                cause: RefCell::new(None),
            },
        })
    }

    /// A call for a token that this one needs, in the time of this one.
    pub(crate) fn log_in(&self) -> Rc<Call> {
        let other = Call::since(self.entered, Purpose::LogIn);
        other.deadline.set(self.deadline.get());
        if let Some(ticket) = self.ticket.get() {
            let _ = other.ticket.set(ticket.clone());
        }
        for (to, from) in [(&other.host, &self.host), (&other.proxy, &self.proxy)] {
            if let Some(text) = from.get() {
                let _ = to.set(text.clone());
            }
        }
        if let Some(id) = self.id() {
            other.set_id(id);
        }
        if let Some(number) = self.number().and_then(|number| memory::copy(number).ok()) {
            other.set_number(number);
        }
        other
    }

    /// Makes this the current call of its thread while the scope lives.
    pub(crate) fn enter(self: &Rc<Call>) -> Scope {
        Scope { outer: CURRENT.replace(Some(self.clone())) }
    }

    /// Sets the deadline of the whole call, counted from its entry.
    pub(crate) fn within(&self, timeout: Duration) {
        self.deadline.set(Some((self.entered + timeout, Limit::Call(timeout))));
    }

    /// From here on the call can be cancelled; the first ticket stays.
    pub(crate) fn obey(&self, ticket: impl FnOnce() -> Arc<Ticket>) {
        self.ticket.get_or_init(ticket);
    }

    /// From here on the call is counted as one of its client's.
    pub(crate) fn count(&self, begin: impl FnOnce() -> Counted) {
        self.counted.get_or_init(begin);
    }

    /// Counts how the call has ended, where it is counted.
    pub(crate) fn count_end(&self, code: Code, outcome: Outcome) {
        if let Some(counted) = self.counted.get() {
            counted.end(code, outcome, self.attempts(), self.retries.get(), self.elapsed());
        }
    }

    /// Begins a try.
    pub(crate) fn attempt(&self) {
        self.attempts.set(self.attempts.get() + 1);
        self.this.reset(Phase::Resolve);
    }

    /// The connection of this try must stand within `connect_timeout` from now.
    pub(crate) fn connect_within(&self, connect_timeout: Duration) {
        self.this.phase.set(Phase::Resolve);
        self.this.limit.set(Some((Instant::now() + connect_timeout, Limit::Connect(connect_timeout))));
    }

    /// Waits before the next try; `doubtful` when this one may have made the appointment.
    pub(crate) fn pause(&self, time: Duration, doubtful: bool) -> Result<(), Cause> {
        if doubtful {
            self.doubt.set(Some(Doubt::Try));
        }
        self.this.reset(Phase::Pause);
        self.sleep(time)?;
        self.retries.set(self.retries.get() + 1);
        Ok(())
    }

    /// Waits.
    pub(crate) fn sleep(&self, time: Duration) -> Result<(), Cause> {
        let until = Instant::now() + time;
        loop {
            self.check()?;
            let left = until.min(self.slice()).saturating_duration_since(Instant::now());
            if Instant::now() >= until {
                return Ok(());
            }
            std::thread::sleep(left);
        }
    }

    /// Enters a phase. The connection's own deadline ends with the handshake.
    pub(crate) fn phase(&self, phase: Phase) {
        self.this.phase.set(phase);
        if matches!(phase, Phase::Request | Phase::Answer) {
            self.this.limit.set(None);
        }
    }

    /// Gives what is left of an answer no more than this: its head has decided.
    pub(crate) fn hurry(&self, rest: Duration) {
        self.this.limit.set(Some((Instant::now() + rest, Limit::Rest)));
    }

    /// The instant at which the call must stop waiting, and the limit that ends then.
    fn until(&self) -> (Instant, Limit) {
        let deadline = self.deadline.get().expect("a deadline is set before anything waits");
        match self.this.limit.get() {
            Some(limit) if limit.0 < deadline.0 => limit,
            _ => deadline,
        }
    }

    /// Whether the caller has cancelled the call.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.ticket.get().is_some_and(|ticket| ticket.is_cancelled())
    }

    /// Whether the call may go on; what time it is.
    pub(crate) fn check(&self) -> Result<Instant, Cause> {
        if self.is_cancelled() {
            return Err(Cause::Cancelled);
        }
        let (until, limit) = self.until();
        let now = Instant::now();
        if now < until { Ok(now) } else { Err(Cause::Deadline(limit)) }
    }

    /// Whether the call may go on for longer than this after an instant.
    pub(crate) fn lasts(&self, now: Instant, time: Duration) -> bool {
        self.until().0.saturating_duration_since(now) > time
    }

    /// The instant until which one wait may last. After it [`Call::check`] tells whether to go on.
    pub(crate) fn slice(&self) -> Instant {
        self.until().0.min(Instant::now() + SLICE)
    }

    /// How much time the whole call has left.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.get().map_or(Duration::ZERO, |(deadline, _)| deadline.saturating_duration_since(Instant::now()))
    }

    /// Records that the socket took bytes of the request.
    pub(crate) fn record_sent(&self) {
        self.this.sent.set(true);
    }

    /// Records that a whole head with this status came.
    pub(crate) fn record_status(&self, status: u16) {
        self.this.status.set(Some(status));
    }

    /// Records that the server closed the connection in good order.
    pub(crate) fn record_end(&self) {
        self.this.ended.set(true);
    }

    /// Records why the connection stopped; the first reason stays.
    pub(crate) fn record_cause(&self, cause: Cause) {
        self.this.cause.borrow_mut().get_or_insert(cause);
    }

    /// Says how long the connection may be kept for other calls, once the answer is read; `None` not at all.
    pub(crate) fn keep(&self, idle: Option<Duration>) {
        if let Keep::Open(Some(then)) = self.this.keep.replace(Keep::Known(idle)) {
            then(idle);
        }
    }

    /// Does something with a connection as soon as it is known how long it may be kept.
    pub(crate) fn when_known(&self, then: impl FnOnce(Option<Duration>) + 'static) {
        let known = match *self.this.keep.borrow() {
            Keep::Known(idle) => Some(idle),
            Keep::Open(_) => None,
        };
        match known {
            Some(idle) => then(idle),
            None => drop(self.this.keep.replace(Keep::Open(Some(Box::new(then))))),
        }
    }

    /// The caller's own name for the call.
    pub(crate) fn set_id(&self, id: &str) {
        let _ = self.id.set(id.to_owned());
    }

    /// The number of the appointment.
    pub(crate) fn set_number(&self, number: String) {
        let _ = self.number.set(number);
    }

    pub(crate) fn set_host(&self, host: &Arc<str>) {
        let _ = self.host.set(host.clone());
    }

    pub(crate) fn set_body(&self, length: usize) {
        self.body.set(length);
    }

    pub(crate) fn body(&self) -> usize {
        self.body.get()
    }

    /// The proxy that the call goes through, host and port.
    pub(crate) fn set_proxy(&self, proxy: &Arc<str>) {
        let _ = self.proxy.set(proxy.clone());
    }

    pub(crate) fn purpose(&self) -> Purpose {
        self.purpose
    }

    pub(crate) fn current_phase(&self) -> Phase {
        self.this.phase.get()
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.attempts.get()
    }

    pub(crate) fn doubt(&self) -> Option<Doubt> {
        self.doubt.get()
    }

    /// Another call may have made the appointment.
    #[cfg(feature = "journal")]
    pub(crate) fn doubt_another(&self) {
        self.doubt.set(Some(Doubt::Call));
    }

    pub(crate) fn sent(&self) -> bool {
        self.this.sent.get()
    }

    pub(crate) fn status(&self) -> Option<u16> {
        self.this.status.get()
    }

    pub(crate) fn ended(&self) -> bool {
        self.this.ended.get()
    }

    pub(crate) fn cause(&self) -> Option<Cause> {
        self.this.cause.borrow().clone()
    }

    /// The caller's name for the call, or else one that finds it again. Drawn anew each time, so that forked siblings
    /// do not share it.
    pub(crate) fn id(&self) -> Option<&str> {
        if self.id.get().is_none()
            && let Ok(id) = getrandom::u64()
        {
            let _ = self.id.set(format!("c-{id:016x}"));
        }
        self.id.get().map(String::as_str)
    }

    pub(crate) fn number(&self) -> Option<&str> {
        self.number.get().map(String::as_str)
    }

    pub(crate) fn host(&self) -> Option<&str> {
        self.host.get().map(|host| &**host)
    }

    pub(crate) fn proxy(&self) -> Option<&str> {
        self.proxy.get().map(|proxy| &**proxy)
    }

    /// Tells the log of something that happened to this call.
    pub(crate) fn log<'a>(&self, level: Level, event: &'static str, fields: impl FnOnce() -> Fields<'a>) {
        log::write(self, level, event, fields);
    }

    pub(crate) fn entered(&self) -> Instant {
        self.entered
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.entered.elapsed()
    }
}
