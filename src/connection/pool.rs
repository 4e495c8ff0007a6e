//! The connections of one client that are kept for its next calls.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use super::transport::Line;
use crate::fork::Lock;
use crate::stats::Closed;

/// One that waits for the next call, and until when it may.
struct Idle {
    line: Box<Line>,
    until: Instant,
}

/// At most so many, the one that was used last on top. No system call is made under the lock.
pub(super) struct Pool {
    most: usize,
    /// `None` when nothing is kept any more.
    idle: Lock<Option<Vec<Idle>>>,
}

impl Pool {
    pub(super) fn new(most: usize) -> Pool {
        Pool { most, idle: Lock::new(Some(Vec::new())) }
    }

    /// One that may be used again: it is not too old, and nothing came over it since its last answer.
    pub(super) fn take(&self, now: Instant) -> Option<Box<Line>> {
        loop {
            let mut idle = self.idle.with(|all| all.as_mut()?.pop())?;
            if now >= idle.until {
                idle.line.stream.close(Closed::Expired);
            } else if idle.line.stream.is_quiet() {
                return Some(idle.line);
            } else {
                idle.line.stream.close(Closed::Stale);
            }
        }
    }

    /// Keeps one that has just brought a whole answer, for so long. Those at the bottom that are too old or too many
    /// go.
    pub(super) fn give(&self, line: Box<Line>, idle: Duration) {
        let now = Instant::now();
        let new = Idle { line, until: now + idle };
        let (gone, old) = self.idle.with(|all| {
            let Some(all) = all else { return (vec![new], 0) };
            let old = all.iter().position(|one| now < one.until).unwrap_or(all.len());
            let surplus = (all.len() - old + 1).saturating_sub(self.most);
            let gone: Vec<Idle> = all.drain(..old + surplus).collect();
            all.push(new);
            (gone, old)
        });
        for (index, idle) in gone.into_iter().enumerate() {
            idle.line.stream.close(if index < old { Closed::Expired } else { Closed::Surplus });
        }
    }

    /// Closes all that are kept, and keeps none from now on.
    pub(super) fn close(&self) {
        let gone = self.idle.with(Option::take);
        drop(gone);
    }

    /// How many are kept, of this process.
    pub(super) fn kept(&self) -> usize {
        self.idle.with(|all| all.iter().flatten().filter(|idle| idle.line.stream.is_own()).count())
    }
}
