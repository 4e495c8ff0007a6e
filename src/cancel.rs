//! Calls that are ended by their caller: all of a client, or those with one call id.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::fork::Lock;

/// What cancels the calls of one client.
pub(crate) struct Cancels {
    /// How often all calls were cancelled.
    count: AtomicU64,
    /// The calls in flight to which their caller gave an id.
    named: Lock<Vec<(String, Arc<AtomicBool>)>>,
}

impl Cancels {
    pub(crate) fn new() -> Arc<Cancels> {
        Arc::new(Cancels { count: AtomicU64::new(0), named: Lock::new(Vec::new()) })
    }

    /// Takes a call in, with the id that its caller gave it.
    pub(crate) fn ticket(self: &Arc<Cancels>, id: Option<&str>) -> Arc<Ticket> {
        let named = id.map(|id| {
            let flag = Arc::new(AtomicBool::new(false));
            self.named.with(|named| named.push((id.to_owned(), flag.clone())));
            flag
        });
        Arc::new(Ticket { client: self.clone(), count: self.count.load(Ordering::Acquire), named })
    }

    /// Cancels all that are in flight now, and none that come later.
    pub(crate) fn all(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    /// Cancels those with this id.
    pub(crate) fn one(&self, id: &str) {
        self.named.with(|named| {
            for (_, flag) in named.iter().filter(|(name, _)| name == id) {
                flag.store(true, Ordering::Release);
            }
        });
    }
}

/// What a call in flight asks whether it was cancelled.
pub(crate) struct Ticket {
    client: Arc<Cancels>,
    count: u64,
    named: Option<Arc<AtomicBool>>,
}

impl Ticket {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.client.count.load(Ordering::Acquire) != self.count
            || self.named.as_ref().is_some_and(|flag| flag.load(Ordering::Acquire))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(own) = &self.named {
            self.client.named.with(|named| named.retain(|(_, flag)| !Arc::ptr_eq(flag, own)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_in_flight_are_cancelled_and_no_later_ones() {
        let cancels = Cancels::new();
        let [plain, desk, other] = [None, Some("desk"), Some("other")].map(|id| cancels.ticket(id));
        cancels.one("nobody");
        assert!(![&plain, &desk, &other].into_iter().any(|ticket| ticket.is_cancelled()));
        cancels.one("desk");
        assert!(desk.is_cancelled() && !plain.is_cancelled() && !other.is_cancelled());
        drop(desk);
        assert!(!cancels.ticket(Some("desk")).is_cancelled());
        cancels.all();
        assert!(plain.is_cancelled() && other.is_cancelled());
        assert!(!cancels.ticket(None).is_cancelled());
    }
}
