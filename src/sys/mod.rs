//! What is the platform's own: waiting for sockets, what a fork does, starting a thread that is none of the host's
//! business, files and their locks, and memory.

mod heap;
#[cfg(unix)]
mod unix;
#[cfg(unix)]
use unix as platform;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows as platform;

#[cfg(all(unix, feature = "journal"))]
#[path = "unix_files.rs"]
pub(crate) mod files;
#[cfg(all(windows, feature = "journal"))]
#[path = "windows_files.rs"]
pub(crate) mod files;

pub(crate) use platform::{
    RawSocket, at_fork, close, disconnect, is_standard, open, peek, raw, receive, send, settle, unsent, wait,
    without_signals,
};

use std::io;
use std::thread::Thread;
use std::time::{Duration, Instant};

/// More sockets than these are not waited for at once.
pub(crate) const MOST_WAITED: usize = 32;

/// What a socket is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Read,
    Write,
    Either,
}

/// The time left, in units of a millisecond rounded up, so that nothing wakes before its time.
fn milliseconds_left(until: Instant) -> i32 {
    let left = until.saturating_duration_since(Instant::now());
    let ms = (left + Duration::from_nanos(999_999)).as_millis();
    i32::try_from(ms).unwrap_or(i32::MAX)
}

/// Starts a thread on which no signal is delivered: the host's handlers run on the host's threads.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<Thread> {
    let started = without_signals(|| std::thread::Builder::new().name(name.to_owned()).spawn(work));
    started.map(|started| started.thread().clone())
}
