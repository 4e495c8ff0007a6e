//! What a fork may find: every lock of the library open, and nothing half done under it.
//!
//! A child has one thread and a copy of the parent's memory. A lock that another thread held would stay closed in it
//! for ever, so that whoever forks waits until nobody is behind the gate. What belongs to another module's private
//! locks (ureq, rustls) and what a child must not use (sockets, threads that it does not have) carries the
//! generation of its process, and is left alone where that is not the current one.
//!
//! What waits for a disk has a gate of its own, which is closed first: until it is, nobody else waits for the fork.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once, PoisonError, RwLock, RwLockWriteGuard};

use once_cell::sync::OnceCell;

use crate::sys;

static GATE: RwLock<()> = RwLock::new(());
/// The gate of what may take as long as a disk does.
static SLOW_GATE: RwLock<()> = RwLock::new(());
/// What puts away, before a fork, what must not go through it.
static PUT_AWAY: OnceCell<fn()> = OnceCell::new();
static GENERATION: AtomicU32 = AtomicU32::new(0);
static READY: Once = Once::new();

thread_local! {
    /// The closed gates, while their thread forks. Nothing has to be dropped, so that a thread that is about to end and
    /// has dropped all else can still fork.
    static CLOSED: RefCell<Option<ManuallyDrop<[RwLockWriteGuard<'static, ()>; 2]>>> = const { RefCell::new(None) };
}

/// Counts the processes from the one that loaded the library: it differs between a parent and its child.
pub(crate) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Makes every fork of the process wait for the gate. To be called once, when the library is loaded: a thread that
/// forks beside the first call of another one would not find out in time.
#[cfg_attr(not(unix), expect(dead_code, reason = "where nothing forks, nothing asks"))]
pub(crate) fn watch() {
    sys::at_fork(before, in_parent, in_child);
}

/// Runs what the library prepares once in a process. To be called before anything else of the library is.
pub(crate) fn ready(prepare: impl FnOnce()) {
    if !READY.is_completed() {
        undisturbed(|| READY.call_once(prepare));
    }
}

extern "C" fn before() {
    let slow = SLOW_GATE.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(put_away) = PUT_AWAY.get() {
        put_away();
    }
    let closed = GATE.write().unwrap_or_else(PoisonError::into_inner);
    CLOSED.set(Some(ManuallyDrop::new([slow, closed])));
}

extern "C" fn in_parent() {
    open_again();
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    // The parent's connections: a copy of their descriptors would keep them open when the parent closes them.
    let sockets = &mut *OPEN.0.lock().unwrap_or_else(PoisonError::into_inner);
    sockets.drain(..).for_each(sys::close);
    open_again();
}

fn open_again() {
    drop(CLOSED.take().map(ManuallyDrop::into_inner));
}

/// Runs work during which nobody forks. It must be short, wait for nothing, and not come back here.
pub(crate) fn undisturbed<T>(work: impl FnOnce() -> T) -> T {
    let _open = GATE.read().unwrap_or_else(PoisonError::into_inner);
    work()
}

/// Runs work during which nobody forks, and which may wait for a disk, but not come back here.
#[cfg(feature = "journal")]
pub(crate) fn undisturbed_slowly<T>(work: impl FnOnce() -> T) -> T {
    let _open = SLOW_GATE.read().unwrap_or_else(PoisonError::into_inner);
    work()
}

/// [`undisturbed_slowly`], unless somebody is about to fork.
#[cfg(feature = "journal")]
pub(crate) fn undisturbed_at_once<T>(work: impl FnOnce() -> T) -> Option<T> {
    let _open = SLOW_GATE.try_read().ok()?;
    Some(work())
}

/// Has this called before every fork, while nobody is inside [`undisturbed_slowly`]; the first one stays.
#[cfg(feature = "journal")]
pub(crate) fn put_away_before(put_away: fn()) {
    undisturbed(|| {
        let _ = PUT_AWAY.set(put_away);
    });
}

/// A lock that is open in a child whoever held it, over data that is whole there.
pub(crate) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Lock<T> {
        Lock(Mutex::new(value))
    }

    /// Runs work on the data; as short as [`undisturbed`] asks for.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        undisturbed(|| work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// The sockets and files that are open, for a child to close.
static OPEN: Lock<Vec<sys::RawSocket>> = Lock::new(Vec::new());

/// Opens a socket or a file that a child closes.
pub(crate) fn open<T>(open: impl FnOnce() -> std::io::Result<(T, sys::RawSocket)>) -> std::io::Result<T> {
    OPEN.with(|sockets| {
        sockets.try_reserve(1).map_err(|_| std::io::ErrorKind::OutOfMemory)?;
        let (socket, raw) = open()?;
        sockets.push(raw);
        Ok(socket)
    })
}

/// Closes what was opened so. Its number may be another's at once: it is forgotten in the same breath.
pub(crate) fn close(raw: sys::RawSocket, close: impl FnOnce()) {
    OPEN.with(|sockets| {
        sockets.retain(|open| *open != raw);
        close();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_a_panic_left_goes_on() {
        static COUNT: Lock<u32> = Lock::new(0);
        let panicked = std::panic::catch_unwind(|| {
            COUNT.with(|count| {
                *count = 1;
                panic!("on purpose")
            })
        });
        assert!(panicked.is_err());
        assert_eq!(COUNT.with(|count| *count), 1);
    }
}
