//! The way through a proxy: CONNECT, and its answer read to the last byte of its head and no further. What goes
//! through it afterwards is between this side and the server.
#![forbid(unsafe_code)]

use std::io::ErrorKind;
use std::time::SystemTime;

use ureq::http::header::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::head::{self, Head};
use super::retry_after;
use super::socket::Socket;
use super::transport::wait;
use crate::call::{Call, Cause, Phase};
use crate::memory;
use crate::proxy::Proxy;
use crate::sys::Wish;

/// How much of an answer is looked at in one piece.
const PIECE: usize = 4 * 1024;

/// Asks a proxy for a way to `server`, a host with its port.
pub(super) fn open(call: &Call, socket: &Socket, proxy: &Proxy, server: &str, user_agent: &str) -> Result<(), Cause> {
    call.phase(Phase::Tunnel);
    ask(call, socket, proxy, server, user_agent)?;
    let (status, head) = answer(call, socket)?;
    if !(200..=299).contains(&status) {
        return Err(refusal(status, &head, proxy, server));
    }
    // Whatever it is, the server did not send it.
    match socket.peek(&mut [0]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        Ok(0) => Err(closed("after it had opened the way")),
        Ok(_) => Err(strange("sent more than an answer to CONNECT".to_owned())),
        Err(error) => Err(closed(&error.to_string())),
    }
}

fn ask(call: &Call, socket: &Socket, proxy: &Proxy, server: &str, user_agent: &str) -> Result<(), Cause> {
    let start = ["CONNECT ", server, " HTTP/1.1\r\nHost: ", server, "\r\nUser-Agent: ", user_agent, "\r\n"];
    let authorization = match &proxy.credentials {
        Some(credentials) => ["Proxy-Authorization: Basic ", credentials.basic.expose(), "\r\n"],
        None => [""; 3],
    };
    let request = memory::join(&[&start[..], &authorization, &["\r\n"]].concat())
        .map_err(|_| strange("could not be asked: there is no memory".to_owned()))?;
    let mut rest = request.as_bytes();
    while !rest.is_empty() {
        call.check()?;
        match socket.send(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait(call, socket, Wish::Write)?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(closed(&error.to_string())),
        }
    }
    Ok(())
}

/// The status of the proxy's answer, and its head.
fn answer(call: &Call, socket: &Socket) -> Result<(u16, Vec<u8>), Cause> {
    let mut head = Vec::new();
    // On the stack, and a proxy may repeat what it was told.
    let mut piece = Zeroizing::new([0; PIECE]);
    loop {
        call.check()?;
        let known = head.len();
        match socket.peek(&mut *piece) {
            Ok(0) => return Err(closed("before it answered")),
            Ok(count) => head.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                wait(call, socket, Wish::Read)?;
                continue;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(closed(&error.to_string())),
        }
        match head::read(&head) {
            Head::Partial => take(socket, &mut piece[..head.len() - known])?,
            // Behind it another one begins, of which nothing is taken yet.
            Head::Interim(length) => {
                take(socket, &mut piece[..length - known])?;
                head.clear();
            }
            Head::Final(status, length) => {
                take(socket, &mut piece[..length - known])?;
                head.truncate(length);
                return Ok((status, head));
            }
            Head::Unreadable(why) => return Err(strange(format!("gave no answer to CONNECT that can be read: {why}"))),
        }
    }
}

/// Reads as many bytes as were looked at.
fn take(socket: &Socket, mut piece: &mut [u8]) -> Result<(), Cause> {
    while !piece.is_empty() {
        match socket.receive(piece, false) {
            Ok(0) => return Err(closed("before it answered")),
            Ok(count) => piece = &mut piece[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(closed(&error.to_string())),
        }
    }
    Ok(())
}

/// What ended the connection may pass.
fn closed(when: &str) -> Cause {
    Cause::Proxy { why: format!("closed the connection: {when}"), passes: true, retry_after_ms: None }
}

fn strange(why: String) -> Cause {
    Cause::Proxy { why, passes: false, retry_after_ms: None }
}

/// What a status that is no success means. Where the proxy is busy or did not reach the server, another try may.
fn refusal(status: u16, head: &[u8], proxy: &Proxy, server: &str) -> Cause {
    let why = match status {
        // Some say 401 where they refuse what they were given.
        401 | 407 if proxy.credentials.is_some() => {
            "refused the user and password of the setting proxy, or takes no Basic log-in".to_owned()
        }
        401 | 407 => "asks for a user and a password: set proxy to http://user:password@host:port".to_owned(),
        429 => "has no room for a connection now".to_owned(),
        502..=504 => format!("did not reach {server}"),
        400..=499 => format!("does not let this machine connect to {server}: it must be allowed there"),
        _ => format!("opened no way to {server}"),
    };
    let passes = matches!(status, 429 | 502..=504);
    let retry_after_ms = retry_after(&fields(head), SystemTime::now()).filter(|_| passes);
    Cause::Proxy { why: format!("{why} (HTTP {status})"), passes, retry_after_ms }
}

/// The fields of a head, as far as they can be read.
fn fields(head: &[u8]) -> HeaderMap {
    let field = |line: &[u8]| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
        Some((HeaderName::from_bytes(&line[..colon]).ok()?, value))
    };
    head.split(|byte| *byte == b'\n').skip(1).filter_map(field).collect()
}
