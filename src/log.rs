//! What happens, told to the caller's log: one JSON line an event.
//!
//! No line holds a secret or a customer's text: an event has no field that could carry one.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Iso8601;
use time::format_description::well_known::iso8601::{Config, EncodedConfig, TimePrecision};

use crate::call::Call;
use crate::fork::{self, Lock};
use crate::memory;

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(i32)]
pub(crate) enum Level {
    Error = 1,
    Warning = 2,
    Information = 3,
    Detail = 4,
}

/// What an event has to say besides its name. What does not apply is absent from its line.
#[derive(Default, Serialize)]
pub(crate) struct Fields<'a> {
    /// Which try it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_ms: Option<u64>,
    /// The name of a field of a task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'a str>,
}

/// One line of the log.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    level: Level,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    call_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    out_task_num: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    /// The one that the call goes through, host and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<&'a str>,
    elapsed_ms: u64,
    #[serde(flatten)]
    fields: Fields<'a>,
}

/// The caller's function: the level, and the line.
pub(crate) type Callback = Arc<dyn Fn(i32, &str) + Send + Sync>;

/// A callback, and how many threads are inside it.
struct Sink {
    callback: Callback,
    /// The highest level that it is given.
    most: i32,
    inside: Mutex<u32>,
    left: Condvar,
    generation: u32,
}

impl Sink {
    fn new(callback: Callback, most: i32) -> Arc<Sink> {
        let (inside, left) = (Mutex::new(0), Condvar::new());
        Arc::new(Sink { callback, most, inside, left, generation: fork::generation() })
    }

    fn inside(&self) -> MutexGuard<'_, u32> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, change: i32) {
        let mut inside = self.inside();
        *inside = inside.saturating_add_signed(change);
        self.left.notify_all();
    }

    /// Whether a thread is inside the callback. One from before a fork counts threads that are not here.
    fn is_busy(&self) -> bool {
        self.generation == fork::generation() && *self.inside() > 0
    }

    fn await_all_out(&self) {
        let mut inside = self.inside();
        while *inside > 0 {
            inside = self.left.wait(inside).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The callback in force, and those before it that a thread may still be inside.
struct Sinks {
    current: Option<Arc<Sink>>,
    former: Vec<Arc<Sink>>,
}

static SINKS: Lock<Sinks> = Lock::new(Sinks { current: None, former: Vec::new() });
/// The highest level that is delivered, to be asked without a lock.
static MOST: AtomicI32 = AtomicI32::new(0);

thread_local! {
    /// Whether this thread is inside the callback.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Sets the callback, or none. Comes back when no other thread is inside one of those before, whoever took them out of
/// force; at once when it is called from within one.
pub(crate) fn set(callback: Option<Callback>, most: i32) {
    let new = callback.filter(|_| most > 0).map(|callback| Sink::new(callback, most));
    let most = if new.is_some() { most } else { 0 };
    let former = SINKS.with(|sinks| {
        MOST.store(most, Ordering::Relaxed);
        sinks.former.extend(std::mem::replace(&mut sinks.current, new));
        sinks.former.retain(|sink| sink.is_busy());
        sinks.former.clone()
    });
    if !INSIDE.get() {
        former.iter().for_each(|sink| sink.await_all_out());
    }
}

/// Tells of an event of a call. What it has to say is asked for only when somebody listens.
pub(crate) fn write<'a>(call: &Call, level: Level, event: &'static str, fields: impl FnOnce() -> Fields<'a>) {
    if level as i32 > MOST.load(Ordering::Relaxed) || INSIDE.get() {
        return;
    }
    let line = Line {
        time: time(OffsetDateTime::now_utc()),
        level,
        event,
        call_id: call.id(),
        out_task_num: call.number(),
        host: call.host(),
        proxy: call.proxy(),
        elapsed_ms: u64::try_from(call.elapsed().as_millis()).unwrap_or(u64::MAX),
        fields: fields(),
    };
    let Ok(line) = memory::json(&line) else { return };
    let sink = SINKS.with(|sinks| {
        let sink = sinks.current.as_mut().filter(|sink| level as i32 <= sink.most)?;
        if sink.generation != fork::generation() {
            *sink = Sink::new(sink.callback.clone(), sink.most);
        }
        sink.add(1);
        Some(sink.clone())
    });
    let Some(sink) = sink else { return };
    INSIDE.set(true);
    (sink.callback)(level as i32, &line);
    INSIDE.set(false);
    fork::undisturbed(|| sink.add(-1));
}

/// A time of UTC with its milliseconds, by RFC 3339 and always of the same length.
pub(crate) fn time(time: OffsetDateTime) -> String {
    const DIGITS: TimePrecision = TimePrecision::Second { decimal_digits: NonZero::new(3) };
    const FORMAT: EncodedConfig = Config::DEFAULT.set_time_precision(DIGITS).encode();
    // Cut, and not rounded up to a second 60.
    let time = time.replace_millisecond(time.millisecond()).unwrap_or(time);
    time.format(&Iso8601::<FORMAT>).unwrap_or_default()
}
