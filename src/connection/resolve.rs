//! Names to addresses, within a deadline that `getaddrinfo` does not know.
//!
//! A look-up can hang for as long as the system likes, so it runs on a thread of its own; there are never more
//! than [`MOST_THREADS`] of these, however many calls wait. Calls that ask for the same name share one look-up.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use socket2::{Domain, Socket, Type};

use crate::call::{Call, Cause, Phase};
use crate::{fork, sys};

const MOST_THREADS: usize = 4;

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
    generation: u32,
}

static QUEUE: fork::Lock<Queue> =
    fork::Lock::new(Queue { waiting: VecDeque::new(), running: Vec::new(), threads: 0, generation: 0 });

/// The queue of this process: a child has none of the threads that its parent's look-ups were left to.
fn with_queue<T>(work: impl FnOnce(&mut Queue) -> T) -> T {
    QUEUE.with(|queue| {
        let generation = fork::generation();
        if queue.generation != generation {
            *queue = Queue { waiting: VecDeque::new(), running: Vec::new(), threads: 0, generation };
        }
        work(queue)
    })
}

/// The addresses of a host, at least one.
pub(super) fn resolve(call: &Call, host: &str, port: u16) -> Result<Vec<SocketAddr>, Cause> {
    call.phase(Phase::Resolve);
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let lookup = with_queue(|queue| ask(queue, host, port))
        .map_err(|error| Cause::Resolve(format!("no thread could be started: {error}")))?;
    let mut found = lookup.found.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(found) = found.as_ref() {
            return match found {
                Ok(addresses) if addresses.is_empty() => Err(Cause::Resolve("it has no address".to_owned())),
                Ok(addresses) => Ok(addresses.clone()),
                Err(error) => Err(Cause::Resolve(error.clone())),
            };
        }
        call.check()?;
        let left = call.slice().saturating_duration_since(Instant::now());
        found = lookup.done.wait_timeout(found, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Joins the look-up of this name that is under way, or starts one.
fn ask(queue: &mut Queue, host: &str, port: u16) -> io::Result<Arc<Lookup>> {
    let same = |lookup: &&Arc<Lookup>| lookup.host == host && lookup.port == port;
    if let Some(lookup) = queue.running.iter().chain(&queue.waiting).find(same) {
        return Ok(lookup.clone());
    }
    if queue.threads < MOST_THREADS {
        match sys::spawn("arctos-resolver", work) {
            Ok(_) => queue.threads += 1,
            // The threads that there are will come to it.
            Err(_) if queue.threads > 0 => {}
            Err(error) => return Err(error),
        }
    }
    let lookup = Arc::new(Lookup { host: host.to_owned(), port, found: Mutex::new(None), done: Condvar::new() });
    queue.waiting.push_back(lookup.clone());
    Ok(lookup)
}

/// Why a look-up failed. The system's resolver says that there is no such name, too, where it could open nothing.
fn why(error: &io::Error) -> String {
    let refused = fork::undisturbed(|| Socket::new(Domain::IPV4, Type::DGRAM, None).err());
    refused.map_or_else(|| error.to_string(), |refused| format!("{error}; no socket can be opened: {refused}"))
}

/// Works until nothing waits.
fn work() {
    loop {
        let next = with_queue(|queue| {
            // What nobody waits for any more is not looked up.
            queue.waiting.retain(|lookup| Arc::strong_count(lookup) > 1);
            let next = queue.waiting.pop_front();
            match &next {
                Some(lookup) => queue.running.push(lookup.clone()),
                None => queue.threads -= 1,
            }
            next
        });
        let Some(lookup) = next else { return };
        let found =
            (lookup.host.as_str(), lookup.port).to_socket_addrs().map(Iterator::collect).map_err(|error| why(&error));
        with_queue(|queue| queue.running.retain(|running| !Arc::ptr_eq(running, &lookup)));
        *lookup.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        lookup.done.notify_all();
    }
}
