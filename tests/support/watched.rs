//! What several threads of a test's server share: who waits for a change of it hears of each.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Instant;

use crate::server::PATIENCE;

/// Data behind a lock. Whoever changes what another thread may wait for tells so by `changed`.
pub(crate) struct Watched<T> {
    data: Mutex<T>,
    pub(crate) changed: Condvar,
}

impl<T> Watched<T> {
    pub(crate) fn new(data: T) -> Watched<T> {
        Watched { data: Mutex::new(data), changed: Condvar::new() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.data.lock().expect("no thread panics while it holds the data")
    }

    /// Waits until the data says so; `None` when the patience is over.
    pub(crate) fn wait<V>(&self, mut ready: impl FnMut(&mut T) -> Option<V>) -> Option<V> {
        let until = Instant::now() + PATIENCE;
        let mut data = self.lock();
        loop {
            if let Some(value) = ready(&mut data) {
                return Some(value);
            }
            let left = until.checked_duration_since(Instant::now())?;
            data = self.changed.wait_timeout(data, left).expect("as in lock").0;
        }
    }
}
