//! Sockets, and how one is connected to whichever address of a host answers first.
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Type};

use crate::call::{Call, Cause, Phase};
use crate::fork;
use crate::stats::{Account, Stats};
use crate::sys::{self, Wish};

/// How long an address has to itself before the next one is tried beside it (RFC 8305, 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// No more causes than these stand in a message.
const MOST_CAUSES: usize = 4;

/// How long [`Socket::receive`] waits: whether the call may go on is asked as often.
pub(super) const PATIENCE: Duration = Duration::from_millis(40);

/// A socket of this process. It is waited for by [`sys::wait`], or in [`Socket::receive`]; nothing else blocks. A forked
/// child has a copy, which it has closed before it comes here.
pub(crate) struct Socket {
    stream: Option<TcpStream>,
    generation: u32,
    /// Of one that a call opened.
    account: Option<Account>,
}

impl Socket {
    /// A socket that has begun to connect.
    fn connecting(address: SocketAddr) -> io::Result<Socket> {
        let stream = fork::open(|| {
            let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            let mut stream = TcpStream::from(socket);
            if sys::is_standard(&stream) {
                // The host has closed a standard stream, and what it still writes there must not go to the server. A
                // copy has a higher number.
                stream = stream.try_clone()?;
            }
            let raw = sys::raw(&stream);
            Ok((stream, raw))
        })?;
        let socket = Socket { stream: Some(stream), generation: fork::generation(), account: None };
        socket.set_nonblocking(true)?;
        match SockRef::from(&*socket).connect(&address.into()) {
            Err(error) if !is_under_way(&error) => Err(error),
            _ => Ok(socket),
        }
    }

    /// Whether the connection stands; an error when it never will.
    fn connected(&self) -> io::Result<bool> {
        if let Some(error) = self.take_error()? {
            return Err(error);
        }
        let Ok(peer) = self.peer_addr() else { return Ok(false) };
        // A port that nobody listens on may be the very one that the system gave this side.
        if self.local_addr()? == peer {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        self.set_nodelay(true)?;
        sys::settle(self, PATIENCE)?;
        Ok(true)
    }

    /// Sends as much as the system takes now.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        sys::send(self, bytes).inspect(|count| self.account.iter().for_each(|account| account.sent(*count)))
    }

    /// Receives what is there; where nothing is, and it is to wait, what comes within [`PATIENCE`]. Some systems do not
    /// wait all the same.
    pub(super) fn receive(&self, buffer: &mut [u8], waits: bool) -> io::Result<usize> {
        sys::receive(self, buffer, waits)
            .inspect(|count| self.account.iter().for_each(|account| account.received(*count)))
    }

    /// Looks at what is there, and leaves it there.
    pub(super) fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        sys::peek(self, buffer)
    }

    /// From here on its client counts what goes over it.
    pub(super) fn count(&mut self, stats: &Arc<Stats>) {
        self.account = Some(Account::new(stats));
    }

    /// What its client counts of it.
    pub(super) fn account(&mut self) -> Option<&mut Account> {
        self.account.as_mut()
    }

    /// Whether this process opened it.
    pub(super) fn is_own(&self) -> bool {
        self.generation == fork::generation()
    }

    /// Ends it by a reset: whatever of its output the system still holds is dropped.
    pub(super) fn reset(&self) {
        // A failure changes nothing. Its closing would be the reset.
        let _ = SockRef::from(&**self).set_linger(Some(Duration::ZERO));
        sys::disconnect(self);
    }
}

impl Deref for Socket {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        self.stream.as_ref().expect("it is taken out by drop only")
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let Some(stream) = self.stream.take() else { return };
        if self.is_own() {
            fork::close(sys::raw(&stream), || drop(stream));
        } else {
            // It was closed at the fork, and its number may be another's.
            std::mem::forget(stream);
        }
    }
}

fn is_under_way(error: &io::Error) -> bool {
    #[cfg(unix)]
    let begun = error.raw_os_error() == Some(libc::EINPROGRESS);
    #[cfg(not(unix))]
    let begun = false;
    begun || matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// A connection to one of the addresses of a host, and the one that answered.
pub(super) fn connect(call: &Call, host: &str, addresses: Vec<SocketAddr>) -> Result<(Socket, SocketAddr), Cause> {
    call.phase(Phase::Connect);
    let mut addresses = interleave(addresses).into_iter();
    let mut trying: Vec<(Socket, SocketAddr)> = Vec::new();
    let mut causes = Vec::new();
    let mut next = Instant::now();
    loop {
        call.check()?;
        // The next address is tried when the ones before it have failed or had their time.
        let more = addresses.len() > 0 && trying.len() < sys::MOST_WAITED;
        if more
            && (trying.is_empty() || Instant::now() >= next)
            && let Some(address) = addresses.next()
        {
            match Socket::connecting(address) {
                Ok(socket) => {
                    trying.push((socket, address));
                    next = Instant::now() + ATTEMPT_DELAY;
                }
                Err(error) => causes.push((address, error)),
            }
        } else if trying.is_empty() {
            return Err(Cause::Connect(because(host, &causes)));
        } else {
            let until = if more { call.slice().min(next) } else { call.slice() };
            let sockets: Vec<&TcpStream> = trying.iter().map(|(socket, _)| &**socket).collect();
            sys::wait(&sockets, Wish::Write, until).map_err(|error| Cause::Connect(error.to_string()))?;
        }
        let mut index = 0;
        while index < trying.len() {
            match trying[index].0.connected() {
                Ok(true) => return Ok(trying.swap_remove(index)),
                Ok(false) => index += 1,
                Err(error) => {
                    causes.push((trying.remove(index).1, error));
                    next = Instant::now();
                }
            }
        }
    }
}

/// Both families in turn, each in the order in which the system prefers its addresses (RFC 8305, 4).
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first().map(SocketAddr::is_ipv4) else { return addresses };
    let (mut preferred, mut others): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv4() == first);
    let mut all = Vec::with_capacity(preferred.len() + others.len());
    let mut others = others.drain(..);
    for address in preferred.drain(..) {
        all.push(address);
        all.extend(others.next());
    }
    all.extend(others);
    all
}

/// Why none of the addresses could be connected to.
fn because(host: &str, causes: &[(SocketAddr, io::Error)]) -> String {
    let each = |(address, error): &(SocketAddr, io::Error)| {
        if address.ip().to_string() == host { error.to_string() } else { format!("{address}: {error}") }
    };
    causes.iter().take(MOST_CAUSES).map(each).collect::<Vec<String>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let addresses = |text: &str| -> Vec<SocketAddr> {
            text.split(' ')
                .map(|one| if one.contains(':') { format!("[{one}]:1") } else { format!("{one}:1") })
                .map(|one| one.parse().unwrap())
                .collect()
        };
        for (given, taken) in [
            ("::1 ::2 ::3 10.0.0.1 10.0.0.2", "::1 10.0.0.1 ::2 10.0.0.2 ::3"),
            ("10.0.0.1 ::1 ::2", "10.0.0.1 ::1 ::2"),
            ("10.0.0.1 10.0.0.2", "10.0.0.1 10.0.0.2"),
        ] {
            assert_eq!(interleave(addresses(given)), addresses(taken));
        }
        assert!(interleave(Vec::new()).is_empty());
    }
}
