//! Names to addresses, within a deadline that `getaddrinfo` does not know.
//!
//! A look-up can hang for as long as the system likes, so it runs on a thread of its own; there are never more
//! than [`MOST_THREADS`] of these, however many calls wait. Calls that ask for the same name share one look-up.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::sys;

const MOST_THREADS: usize = 4;

/// Why there are no addresses.
pub(super) enum Unresolved {
    /// The deadline passed.
    Late,
    /// The system's answer, or why it could not be asked.
    Failed(String),
}

struct Lookup {
    host: String,
    port: u16,
    found: Mutex<Option<Result<Vec<SocketAddr>, String>>>,
    done: Condvar,
}

struct Queue {
    waiting: VecDeque<Arc<Lookup>>,
    running: Vec<Arc<Lookup>>,
    threads: usize,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue { waiting: VecDeque::new(), running: Vec::new(), threads: 0 });

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The addresses of a host, at least one.
pub(super) fn resolve(host: &str, port: u16, until: Instant) -> Result<Vec<SocketAddr>, Unresolved> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let lookup = ask(host, port).map_err(|error| Unresolved::Failed(format!("no thread could be started: {error}")))?;
    let mut found = lookup.found.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(found) = found.as_ref() {
            return match found {
                Ok(addresses) if addresses.is_empty() => Err(Unresolved::Failed("it has no address".to_owned())),
                Ok(addresses) => Ok(addresses.clone()),
                Err(error) => Err(Unresolved::Failed(error.clone())),
            };
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Unresolved::Late);
        }
        found = lookup.done.wait_timeout(found, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Joins the look-up of this name that is under way, or starts one.
fn ask(host: &str, port: u16) -> io::Result<Arc<Lookup>> {
    let mut queue = queue();
    let same = |lookup: &&Arc<Lookup>| lookup.host == host && lookup.port == port;
    if let Some(lookup) = queue.running.iter().chain(&queue.waiting).find(same) {
        return Ok(lookup.clone());
    }
    if queue.threads < MOST_THREADS {
        match sys::spawn("arctos-resolver", work) {
            Ok(()) => queue.threads += 1,
            // The threads that there are will come to it.
            Err(_) if queue.threads > 0 => {}
            Err(error) => return Err(error),
        }
    }
    let lookup = Arc::new(Lookup { host: host.to_owned(), port, found: Mutex::new(None), done: Condvar::new() });
    queue.waiting.push_back(lookup.clone());
    Ok(lookup)
}

/// Works until nothing waits.
fn work() {
    loop {
        let mut queue = queue();
        // What nobody waits for any more is not looked up.
        queue.waiting.retain(|lookup| Arc::strong_count(lookup) > 1);
        let Some(lookup) = queue.waiting.pop_front() else {
            queue.threads -= 1;
            return;
        };
        queue.running.push(lookup.clone());
        drop(queue);
        let found = (lookup.host.as_str(), lookup.port)
            .to_socket_addrs()
            .map(Iterator::collect)
            .map_err(|error| error.to_string());
        self::queue().running.retain(|running| !Arc::ptr_eq(running, &lookup));
        *lookup.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        lookup.done.notify_all();
    }
}
