//! The Windows side.

use std::io;
use std::mem::size_of;
use std::net::TcpStream;
use std::os::windows::io::AsRawSocket;
use std::time::Instant;

use windows_sys::Win32::Networking::WinSock::{
    LINGER, POLLRDNORM, POLLWRNORM, SO_LINGER, SOCKET, SOCKET_ERROR, SOL_SOCKET, WSAPOLLFD, WSAPoll, setsockopt,
};

fn handle(socket: &TcpStream) -> SOCKET {
    socket.as_raw_socket() as SOCKET
}

/// Waits until the socket can be read or written, or has failed. `false` when the time is over.
pub(crate) fn wait(socket: &TcpStream, read: bool, write: bool, until: Instant) -> io::Result<bool> {
    let events = if read { POLLRDNORM } else { 0 } | if write { POLLWRNORM } else { 0 };
    let mut entry = WSAPOLLFD { fd: handle(socket), events, revents: 0 };
    loop {
        // SAFETY: one entry, which lives as long as the call; the handle is the borrowed socket's.
        let ready = unsafe { WSAPoll(&mut entry, 1, super::poll_timeout(until)) };
        match ready {
            SOCKET_ERROR => return Err(io::Error::last_os_error()),
            0 if Instant::now() >= until => return Ok(false),
            0 => {}
            _ => return Ok(true),
        }
    }
}

/// Whether the system may still hold output that the peer has not acknowledged. It does not tell here.
pub(crate) fn unsent(_: &TcpStream) -> bool {
    true
}

/// Makes the closing of the socket a reset: whatever of its output the system still holds is dropped.
pub(crate) fn reset_on_close(socket: &TcpStream) {
    let linger = LINGER { l_onoff: 1, l_linger: 0 };
    // SAFETY: the pointer and the length are those of one `LINGER`; a failure changes nothing.
    unsafe {
        setsockopt(handle(socket), SOL_SOCKET, SO_LINGER, (&raw const linger).cast(), size_of::<LINGER>() as i32);
    }
}

/// Starts a thread. There are no signals here that it could take from the host.
pub(crate) fn spawn(name: &str, work: fn()) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}
