//! The Windows side.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::windows::io::AsRawSocket;
use std::path::Path;
use std::ptr;
use std::time::{Duration, Instant};

use windows_sys::Win32::Networking::WinSock::{FD_SET, SOCKET, SOCKET_ERROR, TIMEVAL, closesocket, select};

use super::{MOST_WAITED, Wish};

/// What the system calls a socket.
pub(crate) type RawSocket = std::os::windows::io::RawSocket;

/// The system's number of a socket.
pub(crate) fn raw(socket: &TcpStream) -> RawSocket {
    socket.as_raw_socket()
}

/// Sockets and standard streams have no numbers in common here.
pub(crate) fn is_standard(_: &TcpStream) -> bool {
    false
}

/// Closes a socket that nothing else here will close.
pub(crate) fn close(socket: RawSocket) {
    // SAFETY: the caller's socket, which no living object of this process owns.
    unsafe { closesocket(socket as SOCKET) };
}

/// Here no other process has a copy of a socket: its closing ends the connection.
pub(crate) fn disconnect(_: &TcpStream) {}

/// There is no fork here.
pub(crate) fn at_fork(_: extern "C" fn(), _: extern "C" fn(), _: extern "C" fn()) {}

/// Waits until one of at most [`MOST_WAITED`] sockets is as it is wished, or has failed. `false` when the time is over.
///
/// By `select`: `WSAPoll` does not tell of a connection that fails before Windows 10 of 2020.
pub(crate) fn wait(sockets: &[&TcpStream], wish: Wish, until: Instant) -> io::Result<bool> {
    let none = FD_SET { fd_count: 0, fd_array: [0; 64] };
    let mut all = none;
    for (place, socket) in all.fd_array.iter_mut().zip(sockets.iter().take(MOST_WAITED)) {
        *place = socket.as_raw_socket() as SOCKET;
        all.fd_count += 1;
    }
    loop {
        let mut read = if wish == Wish::Write { none } else { all };
        let mut write = if wish == Wish::Read { none } else { all };
        let mut failed = all;
        let ms = super::milliseconds_left(until);
        let left = TIMEVAL { tv_sec: ms / 1000, tv_usec: ms % 1000 * 1000 };
        // SAFETY: three sets and a time, which live as long as the call; the sockets are borrowed.
        let ready = unsafe { select(0, set(&mut read), set(&mut write), set(&mut failed), &left) };
        match ready {
            SOCKET_ERROR => return Err(io::Error::last_os_error()),
            0 if Instant::now() >= until => return Ok(false),
            0 => {}
            _ => return Ok(true),
        }
    }
}

/// An empty set is not handed over: `select` refuses three of them only, but means none by none.
fn set(set: &mut FD_SET) -> *mut FD_SET {
    if set.fd_count == 0 { ptr::null_mut() } else { set }
}

/// Nothing waits in a socket here, but in [`wait`].
pub(crate) fn settle(_: &TcpStream, _: Duration) -> io::Result<()> {
    Ok(())
}

/// Sends what the socket takes now.
pub(crate) fn send(mut socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    socket.write(bytes)
}

/// Receives what is there.
pub(crate) fn receive(mut socket: &TcpStream, buffer: &mut [u8], _: bool) -> io::Result<usize> {
    socket.read(buffer)
}

/// Looks at what is there, and leaves it there.
pub(crate) fn peek(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    socket.peek(buffer)
}

/// Whether the system still holds output that the peer has not acknowledged. It does not tell here.
pub(crate) fn unsent(_: &TcpStream) -> Option<bool> {
    None
}

/// Opens a file to read it.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// There are no signals here that a new thread could take from the host.
pub(crate) fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    start()
}
