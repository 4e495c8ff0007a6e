//! The record of one call. What had gone out is written down here by the connection, at the moment at which the
//! socket takes it, and nowhere else; a failure's outcome is read off it.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How far a call has come. Messages name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Resolve,
    Connect,
    Handshake,
    Request,
    Answer,
}

/// Why the connection could not carry a call to its end. The texts are fit for a message: they hold neither the
/// request nor the answer.
#[derive(Debug, Clone)]
pub(crate) enum Cause {
    /// The server's name was not found.
    Resolve(String),
    /// No connection to any of its addresses, or closed while TLS was being opened.
    Connect(String),
    /// TLS is not acceptable, or broke.
    Tls(String),
    /// A deadline passed: that of the call, or that of its connection.
    Deadline(Limit),
    /// Closed or reset in the middle.
    Broken(String),
    /// What came is no readable answer.
    Unreadable(String),
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
pub(crate) struct Call {
    entered: Instant,
    /// Whether the call is there to make an appointment, so that its failures have an outcome.
    appointment: bool,
    deadline: Cell<Option<(Instant, Limit)>>,
    connecting: Cell<Option<(Instant, Limit)>>,
    phase: Cell<Phase>,
    attempts: Cell<u32>,
    sent: Cell<bool>,
    status: Cell<Option<u16>>,
    ended: Cell<bool>,
    cause: RefCell<Option<Cause>>,
    id: RefCell<Option<String>>,
    number: RefCell<Option<String>>,
    host: RefCell<Option<String>>,
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
    /// Starts the clock. `appointment`: whether the call is there to make one.
    pub(crate) fn start(appointment: bool) -> Rc<Call> {
        Rc::new(Call {
            entered: Instant::now(),
            appointment,
            deadline: Cell::new(None),
            connecting: Cell::new(None),
            phase: Cell::new(Phase::Resolve),
            attempts: Cell::new(0),
            sent: Cell::new(false),
            status: Cell::new(None),
            ended: Cell::new(false),
            cause: RefCell::new(None),
            id: RefCell::new(None),
            number: RefCell::new(None),
            host: RefCell::new(None),
        })
    }

    /// Makes this the current call of its thread while the scope lives.
    pub(crate) fn enter(self: &Rc<Call>) -> Scope {
        Scope { outer: CURRENT.replace(Some(self.clone())) }
    }

    /// Sets the deadline of the whole call, counted from its entry.
    pub(crate) fn within(&self, timeout: Duration) {
        self.deadline.set(Some((self.entered + timeout, Limit::Call(timeout))));
    }

    /// Begins an attempt: its connection must stand within `connect_timeout`.
    pub(crate) fn attempt(&self, connect_timeout: Duration) {
        self.attempts.set(self.attempts.get() + 1);
        self.phase.set(Phase::Resolve);
        self.connecting.set(Some((Instant::now() + connect_timeout, Limit::Connect(connect_timeout))));
    }

    /// Enters a phase. The connection's own deadline ends with the handshake.
    pub(crate) fn phase(&self, phase: Phase) {
        self.phase.set(phase);
        if matches!(phase, Phase::Request | Phase::Answer) {
            self.connecting.set(None);
        }
    }

    /// Gives what is left of an answer no more than this: its head has decided.
    pub(crate) fn hurry(&self, rest: Duration) {
        let until = Instant::now() + rest;
        if self.deadline.get().is_none_or(|(deadline, _)| until < deadline) {
            self.deadline.set(Some((until, Limit::Rest)));
        }
    }

    /// The instant at which the call must stop waiting, and the limit that ends then.
    pub(crate) fn until(&self) -> (Instant, Limit) {
        let deadline = self.deadline.get().expect("a deadline is set before anything waits");
        match self.connecting.get() {
            Some(connecting) if connecting.0 < deadline.0 => connecting,
            _ => deadline,
        }
    }

    /// Records that the socket took bytes of the request.
    pub(crate) fn record_sent(&self) {
        self.sent.set(true);
    }

    /// Records that a whole head with this status came.
    pub(crate) fn record_status(&self, status: u16) {
        self.status.set(Some(status));
    }

    /// Records that the server closed the connection in good order.
    pub(crate) fn record_end(&self) {
        self.ended.set(true);
    }

    /// Records why the connection stopped; the first reason stays.
    pub(crate) fn record_cause(&self, cause: Cause) {
        self.cause.borrow_mut().get_or_insert(cause);
    }

    pub(crate) fn set_id(&self, id: &str) {
        self.id.replace(Some(id.to_owned()));
    }

    pub(crate) fn set_number(&self, number: &str) {
        self.number.replace(Some(number.to_owned()));
    }

    pub(crate) fn set_host(&self, host: &str) {
        self.host.replace(Some(host.to_owned()));
    }

    pub(crate) fn is_appointment(&self) -> bool {
        self.appointment
    }

    pub(crate) fn current_phase(&self) -> Phase {
        self.phase.get()
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.attempts.get()
    }

    pub(crate) fn sent(&self) -> bool {
        self.sent.get()
    }

    pub(crate) fn status(&self) -> Option<u16> {
        self.status.get()
    }

    pub(crate) fn ended(&self) -> bool {
        self.ended.get()
    }

    pub(crate) fn cause(&self) -> Option<Cause> {
        self.cause.borrow().clone()
    }

    /// The caller's own name for the call.
    pub(crate) fn id(&self) -> Option<String> {
        self.id.borrow().clone()
    }

    pub(crate) fn number(&self) -> Option<String> {
        self.number.borrow().clone()
    }

    pub(crate) fn host(&self) -> Option<String> {
        self.host.borrow().clone()
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.entered.elapsed()
    }
}
