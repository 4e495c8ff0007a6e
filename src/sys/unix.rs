//! The Unix side.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Instant;

/// Waits until the socket can be read or written, or has failed. `false` when the time is over.
pub(crate) fn wait(socket: &TcpStream, read: bool, write: bool, until: Instant) -> io::Result<bool> {
    let events = if read { libc::POLLIN } else { 0 } | if write { libc::POLLOUT } else { 0 };
    let mut entry = libc::pollfd { fd: socket.as_raw_fd(), events, revents: 0 };
    loop {
        // SAFETY: one entry, which lives as long as the call; the descriptor is the borrowed socket's.
        let ready = unsafe { libc::poll(&mut entry, 1, super::poll_timeout(until)) };
        match ready {
            1.. => return Ok(true),
            0 if Instant::now() >= until => return Ok(false),
            0 => {}
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Whether the system still holds output that the peer has not acknowledged, and would go on sending after a close.
pub(crate) fn unsent(socket: &TcpStream) -> bool {
    let mut count: libc::c_int = 0;
    // SAFETY: the request writes one int to the pointer that it is given.
    let asked = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    asked != 0 || count > 0
}

/// Makes the closing of the socket a reset: whatever of its output the system still holds is dropped.
pub(crate) fn reset_on_close(socket: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the pointer and the length are those of one `linger`; a failure changes nothing.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        );
    }
}

/// Starts a thread on which no signal is delivered: the host's handlers run on the host's threads.
pub(crate) fn spawn(name: &str, work: fn()) -> io::Result<()> {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigfillset` fills the set that it is given, and `pthread_sigmask` the old one.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    // SAFETY: `before` was filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    started.map(drop)
}
