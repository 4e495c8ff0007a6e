//! The Unix side.

use std::fs::{File, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::{MOST_WAITED, Wish};

/// What the system calls a socket.
pub(crate) type RawSocket = RawFd;

/// The system's number of a socket.
pub(crate) fn raw(socket: &TcpStream) -> RawSocket {
    socket.as_raw_fd()
}

/// Whether a socket has the number of standard input, output or error.
pub(crate) fn is_standard(socket: &TcpStream) -> bool {
    socket.as_raw_fd() <= libc::STDERR_FILENO
}

/// Closes a socket that nothing else here will close: an inherited one whose owner is not in this process.
pub(crate) fn close(socket: RawSocket) {
    // SAFETY: the caller's descriptor, which no living object of this process owns. Its failure would leave nothing to do.
    unsafe { libc::close(socket) };
}

/// Ends a connection now, by a reset where its closing would be one. A close waits until no process has a copy of the
/// descriptor any more, and a program that is just being started has copies of all.
pub(crate) fn disconnect(socket: &TcpStream) {
    // SAFETY: an address of all zeroes is of the family AF_UNSPEC, and has its own size.
    unsafe {
        let nobody: libc::sockaddr = std::mem::zeroed();
        libc::connect(socket.as_raw_fd(), &raw const nobody, size_of::<libc::sockaddr>() as libc::socklen_t);
    }
}

/// Has these called around every fork: before it, and after it in the parent and in the child.
pub(crate) fn at_fork(before: extern "C" fn(), in_parent: extern "C" fn(), in_child: extern "C" fn()) {
    unsafe extern "C" {
        fn pthread_atfork(
            before: Option<extern "C" fn()>,
            in_parent: Option<extern "C" fn()>,
            in_child: Option<extern "C" fn()>,
        ) -> libc::c_int;
    }
    // SAFETY: the functions stay as long as the process: the library is not unloaded. It fails when there is no memory
    // for three pointers, and then a fork is what it was without it.
    unsafe { pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
}

/// Waits until one of at most [`MOST_WAITED`] sockets is as it is wished, or has failed. `false` when the time is over.
pub(crate) fn wait(sockets: &[&TcpStream], wish: Wish, until: Instant) -> io::Result<bool> {
    let events = match wish {
        Wish::Read => libc::POLLIN,
        Wish::Write => libc::POLLOUT,
        Wish::Either => libc::POLLIN | libc::POLLOUT,
    };
    let mut entries = [libc::pollfd { fd: -1, events, revents: 0 }; MOST_WAITED];
    for (entry, socket) in entries.iter_mut().zip(sockets) {
        entry.fd = socket.as_raw_fd();
    }
    loop {
        let count = sockets.len().min(MOST_WAITED) as libc::nfds_t;
        // SAFETY: as many entries as are there, which live as long as the call; the descriptors are borrowed sockets'.
        let ready = unsafe { libc::poll(entries.as_mut_ptr(), count, super::milliseconds_left(until)) };
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

/// Has a connected socket wait only in [`receive`] that is told to, and there for no more than this; where a send would
/// wait all the same, as on macOS, nowhere.
pub(crate) fn settle(socket: &TcpStream, wait: Duration) -> io::Result<()> {
    if !cfg!(target_os = "linux") {
        return Ok(());
    }
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(wait))
}

/// Sends what the socket takes now. Raises no SIGPIPE.
pub(crate) fn send(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    #[cfg(target_vendor = "apple")]
    const QUIET: libc::c_int = 0;
    #[cfg(not(target_vendor = "apple"))]
    const QUIET: libc::c_int = libc::MSG_NOSIGNAL;
    SockRef::from(socket).send_with_flags(bytes, libc::MSG_DONTWAIT | QUIET)
}

/// Receives what is there; where `waits`, after a while that [`settle`] has set, if nothing is.
pub(crate) fn receive(socket: &TcpStream, buffer: &mut [u8], waits: bool) -> io::Result<usize> {
    receive_with(socket, buffer, if waits { 0 } else { libc::MSG_DONTWAIT })
}

/// Looks at what is there, and leaves it there.
pub(crate) fn peek(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    receive_with(socket, buffer, libc::MSG_DONTWAIT | libc::MSG_PEEK)
}

fn receive_with(socket: &TcpStream, buffer: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
    // SAFETY: the system writes at most as many bytes as the buffer has, which is borrowed as the socket is.
    let count = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Whether the system still holds output that the peer has not acknowledged, and would go on sending after a close.
/// `None` where it does not tell.
pub(crate) fn unsent(socket: &TcpStream) -> Option<bool> {
    let mut count: libc::c_int = 0;
    // SAFETY: the request writes one int to the pointer that it is given.
    let asked = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    (asked == 0).then_some(count > 0)
}

/// Opens a file to read it, without waiting for what may be behind its name.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// Runs work that starts a thread, on which then no signal is delivered.
pub(crate) fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigfillset` fills the set that it is given, and `pthread_sigmask` the old one.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let started = start();
    // SAFETY: `before` was filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    started
}
