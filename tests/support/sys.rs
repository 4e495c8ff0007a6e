//! What the standard library does not tell of a socket. Linux only, like the tests that use it.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Waits until the socket has something to read, a connection, an end, or an error; `false` when the time is over.
pub fn wait_readable(socket: &impl AsRawFd, most: Duration) -> bool {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let most = i32::try_from(most.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one valid pollfd, which lives through the call.
    unsafe { libc::poll(&mut poll, 1, most) == 1 }
}

/// Whether the other side has reset the connection, and nobody was told yet.
pub fn is_reset(socket: &impl AsRawFd) -> bool {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: as above.
    unsafe { libc::poll(&mut poll, 1, 0) == 1 && poll.revents & libc::POLLERR != 0 }
}

/// Reads what is there now: `None` when nothing is, `Some(0)` at the end of the stream.
pub fn receive_now(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    receive(socket, buffer, libc::MSG_DONTWAIT)
}

/// The first bytes of what is there now, which stay where they are.
pub fn peek(socket: &TcpStream, count: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; count];
    let count = receive(socket, &mut buffer, libc::MSG_DONTWAIT | libc::MSG_PEEK)?;
    buffer.truncate(count.unwrap_or(0));
    Ok(buffer)
}

fn receive(socket: &TcpStream, buffer: &mut [u8], flags: libc::c_int) -> io::Result<Option<usize>> {
    // SAFETY: the buffer is valid for its length.
    let count = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags) };
    match usize::try_from(count) {
        Ok(count) => Ok(Some(count)),
        Err(_) => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            error => Err(error),
        },
    }
}

fn count(socket: &TcpStream, request: libc::Ioctl) -> usize {
    let mut value: libc::c_int = 0;
    // SAFETY: both requests write one int.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), request, &mut value) };
    assert_eq!(result, 0, "ioctl: {}", io::Error::last_os_error());
    usize::try_from(value).expect("a count")
}

/// How many bytes the kernel has received that nobody has read yet.
pub fn unread(socket: &TcpStream) -> usize {
    count(socket, libc::FIONREAD)
}

/// How many bytes that were sent the other side's kernel has not acknowledged yet.
pub fn unacknowledged(socket: &TcpStream) -> usize {
    count(socket, libc::TIOCOUTQ)
}

/// How many segments with data the kernel has received on this connection.
pub fn data_segments(socket: &TcpStream) -> u32 {
    // `tcpi_data_segs_in` of Linux 4.6 and later, which `libc::tcp_info` does not reach.
    const OFFSET: usize = 152;
    let mut info = [0_u8; 256];
    let mut length = libc::socklen_t::try_from(info.len()).expect("a small number");
    // SAFETY: the kernel writes at most `length` bytes.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &mut length)
    };
    assert_eq!(result, 0, "TCP_INFO: {}", io::Error::last_os_error());
    assert!(length as usize >= OFFSET + 4, "the kernel tells no tcpi_data_segs_in");
    u32::from_ne_bytes(info[OFFSET..OFFSET + 4].try_into().expect("four bytes"))
}
