//! Sockets and TLS below ureq. Here, and only here, it is seen and recorded that the request goes out.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers as _, ConnectionDetails, NextTimeout, Transport};
use zeroize::Zeroize;

use super::buffers::{self, Buffers};
use super::head::{self, Head};
use super::resolve::{self, Unresolved};
use crate::call::{self, Call, Cause, Phase};
use crate::config::Base;
use crate::{sys, tls};

/// Where a connection leads.
pub(super) struct Target {
    host: String,
    port: u16,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Target {
    pub(super) fn new(base: &Base, tls: Option<Arc<ClientConfig>>) -> Result<Target, String> {
        let tls = match tls.filter(|_| base.https) {
            Some(config) => {
                let name = ServerName::try_from(base.host.clone()).map_err(|_| "has no valid host name".to_owned())?;
                Some((config, name))
            }
            None => None,
        };
        Ok(Target { host: base.host.clone(), port: base.port, tls })
    }
}

/// Opens connections for ureq.
pub(super) struct Connector(Arc<Target>);

impl Connector {
    pub(super) fn new(target: Arc<Target>) -> Connector {
        Connector(target)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Connector")
    }
}

impl ureq::unversioned::transport::Connector for Connector {
    type Out = Wire;

    fn connect(&self, _: &ConnectionDetails, _: Option<()>) -> Result<Option<Wire>, ureq::Error> {
        with_call(|call| {
            let socket = open(call, &self.0.host, self.0.port)?;
            let stream = match &self.0.tls {
                None => Stream::Plain(socket),
                Some((config, name)) => Stream::Tls(handshake(call, socket, config.clone(), name.clone())?),
            };
            call.phase(Phase::Request);
            Ok(Some(Wire::new(stream)))
        })
    }
}

/// Names belong to a connection, not to a call: ureq asks before it knows whether it needs one, and gets nothing.
#[derive(Debug)]
pub(super) struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(&self, _: &Uri, _: &ureq::config::Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        Ok(self.empty())
    }
}

/// Runs one step of the current call; what stops it is recorded, and ureq is told no more than that it stopped.
fn with_call<T>(step: impl FnOnce(&Rc<Call>) -> Result<T, Cause>) -> Result<T, ureq::Error> {
    let call = call::current().expect("a transport is used within a call only");
    step(&call).map_err(|cause| {
        // ureq reads on where a body was cut off, to see whether its last chunk had come.
        let kind = if matches!(cause, Cause::Broken(_)) { ErrorKind::ConnectionReset } else { ErrorKind::Other };
        call.record_cause(cause);
        ureq::Error::Io(io::Error::from(kind))
    })
}

fn open(call: &Call, host: &str, port: u16) -> Result<TcpStream, Cause> {
    call.phase(Phase::Resolve);
    let (until, limit) = call.until();
    let addresses = resolve::resolve(host, port, until).map_err(|error| match error {
        Unresolved::Late => Cause::Deadline(limit),
        Unresolved::Failed(why) => Cause::Resolve(why),
    })?;
    call.phase(Phase::Connect);
    let mut failed = Cause::Deadline(limit);
    for (index, address) in addresses.iter().enumerate() {
        // An address that does not answer leaves the others their share of the time.
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let others = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        match connect(*address, left / others) {
            Ok(socket) => return Ok(socket),
            Err(_) if Instant::now() >= until => return Err(Cause::Deadline(limit)),
            Err(error) if address.ip().to_string() == host => failed = Cause::Connect(error.to_string()),
            Err(error) => failed = Cause::Connect(format!("{address}: {error}")),
        }
    }
    Err(failed)
}

/// A socket that never blocks: all waiting is done in one place, within the deadline.
fn connect(address: SocketAddr, within: Duration) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&address, within.max(Duration::from_millis(1)))?;
    socket.set_nonblocking(true)?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

struct Tls {
    socket: TcpStream,
    session: Box<ClientConnection>,
    /// What is wrong with the records behind those that were good.
    broke: Option<Cause>,
}

/// Opens TLS and hands all of its handshake to the socket, so that whatever is written later is the request.
fn handshake(
    call: &Call,
    socket: TcpStream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<Tls, Cause> {
    call.phase(Phase::Handshake);
    let session = ClientConnection::new(config, name).map_err(|error| Cause::Tls(tls::explain(&error)))?;
    let mut tls = Tls { socket, session: Box::new(session), broke: None };
    let closed = |error: io::Error| Cause::Connect(format!("closed during the TLS handshake: {error}"));
    while tls.session.is_handshaking() || tls.session.wants_write() {
        in_time(call)?;
        if tls.session.wants_write() {
            match tls.session.write_tls(&mut Quiet(&tls.socket)) {
                Ok(_) => {}
                Err(error) if is_pause(&error) => wait(call, &tls.socket, Wish::Write)?,
                Err(error) => return Err(closed(error)),
            }
            continue;
        }
        match tls.session.read_tls(&mut &tls.socket) {
            Ok(0) => return Err(Cause::Connect("closed during the TLS handshake".to_owned())),
            Ok(_) => tls.process()?,
            Err(error) if is_pause(&error) => wait(call, &tls.socket, Wish::Read)?,
            Err(error) => return Err(closed(error)),
        }
    }
    Ok(tls)
}

impl Tls {
    /// Takes in the records that came; the server is told by an alert when one is not acceptable.
    fn process(&mut self) -> Result<(), Cause> {
        match self.session.process_new_packets() {
            Ok(_) => Ok(()),
            Err(error) => {
                let _ = self.session.write_tls(&mut Quiet(&self.socket));
                Err(Cause::Tls(tls::explain(&error)))
            }
        }
    }
}

/// Writes by `send`, which raises no SIGPIPE; a vectored write of the standard library is `writev`, which does.
struct Quiet<'a>(&'a TcpStream);

impl Write for Quiet<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[derive(Clone, Copy)]
enum Wish {
    Read,
    Write,
    Either,
}

/// Waits until the socket is ready, within the call's deadline.
fn wait(call: &Call, socket: &TcpStream, wish: Wish) -> Result<(), Cause> {
    in_time(call)?;
    let (until, limit) = call.until();
    let (read, write) = (!matches!(wish, Wish::Write), !matches!(wish, Wish::Read));
    match sys::wait(socket, read, write, until) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Cause::Deadline(limit)),
        Err(error) => Err(Cause::Broken(error.to_string())),
    }
}

fn in_time(call: &Call) -> Result<(), Cause> {
    let (until, limit) = call.until();
    if Instant::now() < until { Ok(()) } else { Err(Cause::Deadline(limit)) }
}

enum Stream {
    Plain(TcpStream),
    Tls(Tls),
}

/// Head and body of a task are seldom longer.
const USUAL_REQUEST: usize = 4 * 1024;

/// One connection, for one request and its answer.
pub(super) struct Wire {
    stream: Stream,
    buffers: Buffers,
    /// The request, collected until its answer is awaited, so that head and body go out in one write.
    request: Vec<u8>,
    head_done: bool,
    /// The connection ended out of order: what the system still holds of the request must not go out after the
    /// call has returned.
    abort: bool,
}

impl fmt::Debug for Wire {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Wire")
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.abort || sys::unsent(self.socket()) {
            sys::reset_on_close(self.socket());
        }
        self.request.zeroize();
    }
}

impl Transport for Wire {
    fn buffers(&mut self) -> &mut dyn ureq::unversioned::transport::Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        let output = &self.buffers.output()[..amount];
        let length = self.request.len() + output.len();
        // At first room for most requests, then twice as much each time.
        if length > self.request.capacity() && !buffers::reserve(&mut self.request, (2 * length).max(USUAL_REQUEST)) {
            return with_call(|_| Err(Cause::Broken("there is no memory for the request".to_owned())));
        }
        self.request.extend_from_slice(output);
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        let more = with_call(|call| {
            let result = self.exchange(call);
            self.abort |= result.is_err();
            result
        })?;
        // ureq looks after an end that is an error, and only then, whether a chunked body had all but its last line.
        if more { Ok(true) } else { Err(ureq::Error::Io(ErrorKind::UnexpectedEof.into())) }
    }

    /// Kept connections are for later: each call opens its own.
    fn is_open(&mut self) -> bool {
        false
    }

    fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }
}

impl Wire {
    fn new(stream: Stream) -> Wire {
        Wire { stream, buffers: Buffers::default(), request: Vec::new(), head_done: false, abort: false }
    }

    fn socket(&self) -> &TcpStream {
        match &self.stream {
            Stream::Plain(socket) => socket,
            Stream::Tls(tls) => &tls.socket,
        }
    }

    /// Sends what is still to be sent, then reads: the whole head of the answer at first, any bytes after it.
    /// `false` when the server ended the connection in good order.
    fn exchange(&mut self, call: &Rc<Call>) -> Result<bool, Cause> {
        if !self.request.is_empty() {
            let mut request = std::mem::take(&mut self.request);
            let sent = self.send(call, &request);
            request.zeroize();
            sent?;
            call.phase(Phase::Answer);
            if self.head_done {
                return Ok(true);
            }
        }
        loop {
            match self.receive(call)? {
                Received::Bytes => {
                    if !self.head_done {
                        self.look_at_head(call)?;
                    }
                    if self.head_done {
                        return Ok(true);
                    }
                }
                Received::Nothing => wait(call, self.socket(), Wish::Read)?,
                Received::End if self.head_done => {
                    call.record_end();
                    return Ok(false);
                }
                Received::End => return Err(Cause::Broken("it was closed before the answer came".to_owned())),
            }
        }
    }

    /// Gives the request to the socket. Ends early when the answer comes first: a server that refuses a request
    /// by its head need not read its body.
    fn send(&mut self, call: &Call, request: &[u8]) -> Result<(), Cause> {
        let mut rest = request;
        loop {
            match self.push(call, &mut rest) {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    if self.answer_came(call)? {
                        return Ok(());
                    }
                    wait(call, self.socket(), Wish::Either)?;
                }
                // What the server said before it broke the connection counts more than that it did.
                Err(cause) => {
                    self.abort = true;
                    return match self.answer_came(call) {
                        Ok(true) => Ok(()),
                        Err(alert @ Cause::Tls(_)) => Err(alert),
                        Ok(false) | Err(_) => Err(cause),
                    };
                }
            }
        }
    }

    /// Reads what is there; whether it is the whole head of an answer.
    fn answer_came(&mut self, call: &Call) -> Result<bool, Cause> {
        while !self.head_done {
            match self.receive(call)? {
                Received::Bytes => self.look_at_head(call)?,
                Received::Nothing => break,
                Received::End => return Err(Cause::Broken("it was closed before the request was sent".to_owned())),
            }
        }
        // The rest of the request stays unsent, and must not be sent by the system later.
        self.abort |= self.head_done;
        Ok(self.head_done)
    }

    /// Gives the socket as much as it takes now. `true` when it took all.
    fn push(&mut self, call: &Call, rest: &mut &[u8]) -> Result<bool, Cause> {
        let broke = |error: io::Error| Cause::Broken(error.to_string());
        loop {
            // What has not begun by then must not begin.
            in_time(call)?;
            let written = match &mut self.stream {
                Stream::Plain(_) if rest.is_empty() => return Ok(true),
                Stream::Plain(socket) => (&*socket).write(rest).inspect(|count| *rest = &rest[*count..]),
                Stream::Tls(tls) => {
                    if !tls.session.wants_write() {
                        if rest.is_empty() {
                            return Ok(true);
                        }
                        let count = tls.session.writer().write(rest).map_err(broke)?;
                        *rest = &rest[count..];
                    }
                    tls.session.write_tls(&mut Quiet(&tls.socket))
                }
            };
            match written {
                Ok(0) => return Err(Cause::Broken("the socket takes no more".to_owned())),
                Ok(_) => call.record_sent(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(broke(error)),
            }
        }
    }

    /// Reads what is there into the buffer.
    fn receive(&mut self, call: &Call) -> Result<Received, Cause> {
        // A server that never pauses must not outrun the deadline.
        in_time(call)?;
        let room = self.buffers.input_append_buf();
        if room.is_empty() {
            return Err(Cause::Unreadable("it does not fit into memory".to_owned()));
        }
        let received = match &mut self.stream {
            Stream::Plain(socket) => loop {
                match (&*socket).read(room) {
                    Ok(0) => break Received::End,
                    Ok(count) => {
                        self.buffers.input_appended(count);
                        break Received::Bytes;
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break Received::Nothing,
                    Err(error) => return Err(Cause::Broken(error.to_string())),
                }
            },
            Stream::Tls(tls) => loop {
                match tls.session.reader().read(room) {
                    Ok(0) => break Received::End,
                    Ok(count) => {
                        self.buffers.input_appended(count);
                        break Received::Bytes;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    // No close_notify: whoever cut the connection, it was not the server's TLS.
                    Err(_) => {
                        let cut = Cause::Broken("it was closed without TLS being closed".to_owned());
                        return Err(tls.broke.take().unwrap_or(cut));
                    }
                }
                if let Some(cause) = tls.broke.take() {
                    return Err(cause);
                }
                in_time(call)?;
                match tls.session.read_tls(&mut &tls.socket) {
                    // What came before a bad record counts: it is read first.
                    Ok(_) => tls.broke = tls.process().err(),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break Received::Nothing,
                    Err(error) => return Err(Cause::Broken(error.to_string())),
                }
            },
        };
        Ok(received)
    }

    /// Looks whether the head is whole, and drops interim ones.
    fn look_at_head(&mut self, call: &Call) -> Result<(), Cause> {
        loop {
            match head::read(self.buffers.input()) {
                Head::Partial => return Ok(()),
                Head::Interim(length) => self.buffers.input_consume(length),
                Head::Final(status) => {
                    call.record_status(status);
                    self.head_done = true;
                    return Ok(());
                }
                Head::Unreadable(why) => return Err(Cause::Unreadable(why.to_owned())),
            }
        }
    }
}

/// What one look at the connection brought.
enum Received {
    Bytes,
    /// Nothing for now.
    Nothing,
    /// The end, in good order.
    End,
}
