//! The living clients, under handles. A handle is never used twice while the process lives, is never a small
//! number, differs from load to load, and is odd, which no text is.

use std::collections::BTreeMap;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use once_cell::sync::OnceCell;

use super::arctos_client;
use crate::client::Client;
use crate::code::Code;
use crate::failure::Failure;
use crate::fork::Lock;

static LIVING: Lock<BTreeMap<usize, Arc<Client>>> = Lock::new(BTreeMap::new());

/// Handles below this could be mistaken for numbers that a program made up.
const SMALLEST: usize = 1 << 16;

fn next_handle() -> Result<usize, Failure> {
    static KEY: OnceCell<usize> = OnceCell::new();
    static COUNT: AtomicUsize = AtomicUsize::new(1);
    let key = KEY.get_or_try_init(|| {
        let mut bytes = [0; size_of::<usize>()];
        getrandom::fill(&mut bytes)
            .map(|()| usize::from_ne_bytes(bytes))
            .map_err(|error| Failure::plain(Code::Internal, format!("the system gives no random numbers: {error}")))
    })?;
    loop {
        // Counting and mixing in a constant maps no two counts to one handle.
        let handle = ((COUNT.fetch_add(1, Ordering::Relaxed) << 1) ^ key) | 1;
        if handle >= SMALLEST {
            return Ok(handle);
        }
    }
}

/// Takes a client in.
pub(super) fn insert(client: Client) -> Result<*mut arctos_client, Failure> {
    let handle = LIVING.with(|living| -> Result<usize, Failure> {
        let handle = next_handle()?;
        living.insert(handle, Arc::new(client));
        Ok(handle)
    })?;
    Ok(ptr::without_provenance_mut(handle))
}

/// The living client of a handle. No lock is held when it is returned.
pub(super) fn find(client: *mut arctos_client) -> Result<Arc<Client>, Failure> {
    LIVING.with(|living| living.get(&client.addr()).cloned()).ok_or_else(|| {
        let what = if client.is_null() { "client is NULL" } else { "client is not a living client of the library" };
        Failure::plain(Code::BadArgument, what)
    })
}

/// Forgets a client; anything else is ignored.
pub(super) fn remove(client: *mut arctos_client) {
    let removed = LIVING.with(|living| living.remove(&client.addr()));
    // Outside the lock: what was kept is closed now, and the last owner wipes the secrets.
    if let Some(client) = removed {
        client.close();
    }
}
