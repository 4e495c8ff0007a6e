//! What is the platform's own: waiting for a socket, closing one by a reset, and starting a thread that is none of
//! the host's business.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
use unix as platform;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows as platform;

pub(crate) use platform::{reset_on_close, spawn, unsent, wait};

use std::time::{Duration, Instant};

/// The time left in milliseconds as poll takes it, rounded up so that nothing wakes before its time.
fn poll_timeout(until: Instant) -> i32 {
    let left = until.saturating_duration_since(Instant::now());
    let ms = (left + Duration::from_nanos(999_999)).as_millis();
    i32::try_from(ms).unwrap_or(i32::MAX)
}
