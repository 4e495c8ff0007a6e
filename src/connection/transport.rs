//! Sockets and TLS below ureq. Here, and only here, it is seen and recorded that the request goes out.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind};
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers as _, ConnectionDetails, NextTimeout, Transport};

use super::buffers::Buffers;
use super::head::{self, Head};
use super::pool::Pool;
use super::records::Records;
use super::resolve;
use super::socket::{self, PATIENCE, Socket};
use super::tunnel;
use crate::address;
use crate::call::{self, Call, Cause, Phase};
use crate::config::Config;
use crate::fork;
use crate::log::{Fields, Level};
use crate::proxy::Proxy;
use crate::stats::{Closed, Stats};
use crate::sys::{self, Wish};
use crate::tls;

/// Where a connection leads.
#[derive(Clone)]
pub(super) struct Target {
    host: String,
    port: u16,
    proxy: Option<Arc<Proxy>>,
    /// For the proxy, which is told no more than that a program is there.
    user_agent: String,
    connect_timeout: Duration,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Target {
    pub(super) fn new(config: &Config) -> Result<Target, String> {
        let base = &config.base;
        let tls = match config.tls.clone().filter(|_| base.https) {
            Some(config) => {
                let name = ServerName::try_from(base.host.clone()).map_err(|_| "has no valid host name".to_owned())?;
                Some((config, name))
            }
            None => None,
        };
        let (host, port, proxy) = (base.host.clone(), base.port, config.proxy.clone());
        let (user_agent, connect_timeout) = (config.user_agent.clone(), config.connect_timeout);
        Ok(Target { host, port, proxy, user_agent, connect_timeout, tls })
    }

    /// The same, with nothing in it that another process may have locked.
    pub(super) fn renewed(&self) -> Target {
        let tls = self.tls.as_ref().map(|(config, name)| (tls::renewed(config), name.clone()));
        Target { tls, ..self.clone() }
    }

    fn open(&self, call: &Call, stats: &Arc<Stats>) -> Result<Stream, Cause> {
        call.connect_within(self.connect_timeout);
        let (mut socket, address) = self.connect(call, self.addresses(call)?)?;
        socket.count(stats);
        self.tunnel(call, &socket)?;
        let mut stream = self.secure(call, socket)?;
        stream.stands();
        call.log(Level::Detail, "connect", || Fields { address: Some(address), ..Fields::default() });
        Ok(stream)
    }

    /// Who is connected to: the proxy, where there is one, or else the server.
    fn next(&self) -> (&str, u16) {
        match &self.proxy {
            Some(proxy) => (&proxy.host, proxy.port),
            None => (&self.host, self.port),
        }
    }

    pub(super) fn addresses(&self, call: &Call) -> Result<Vec<SocketAddr>, Cause> {
        let (host, port) = self.next();
        resolve::resolve(call, host, port)
    }

    pub(super) fn connect(&self, call: &Call, addresses: Vec<SocketAddr>) -> Result<(Socket, SocketAddr), Cause> {
        socket::connect(call, self.next().0, addresses)
    }

    /// Has the proxy, where there is one, open the way to the server.
    pub(super) fn tunnel(&self, call: &Call, socket: &Socket) -> Result<(), Cause> {
        let Some(proxy) = &self.proxy else { return Ok(()) };
        tunnel::open(call, socket, proxy, &address::with_port(&self.host, self.port), &self.user_agent)
    }

    /// Opens TLS, where the server is https.
    pub(super) fn secure(&self, call: &Call, socket: Socket) -> Result<Stream, Cause> {
        match &self.tls {
            None => Ok(Stream::Plain(socket)),
            Some((config, name)) => handshake(call, socket, config.clone(), name.clone()).map(Stream::Tls),
        }
    }
}

/// Hands connections to ureq: one that was kept, or a new one.
pub(super) struct Connector {
    target: Arc<Target>,
    pool: Arc<Pool>,
    stats: Arc<Stats>,
}

impl Connector {
    pub(super) fn new(target: Arc<Target>, pool: Arc<Pool>, stats: Arc<Stats>) -> Connector {
        Connector { target, pool, stats }
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
            let now = call.check()?;
            let mut line = match self.pool.take(now) {
                Some(line) => {
                    self.stats.reused();
                    call.log(Level::Detail, "reuse", || Fields { address: line.stream.address(), ..Fields::default() });
                    line
                }
                None => Line::new(self.target.open(call, &self.stats).inspect_err(|_| self.stats.failed())?),
            };
            line.buffers.expect(call.body());
            call.phase(Phase::Request);
            Ok(Some(Wire::new(line, self.pool.clone())))
        })
    }
}

/// Lets ureq make what it makes once in a process, in a call that comes to no connection: one thread must not be about
/// it while another one forks.
pub(super) fn warm_up(settings: &ureq::config::Config) {
    #[derive(Debug)]
    struct Nowhere;

    impl ureq::unversioned::transport::Connector for Nowhere {
        type Out = Wire;

        fn connect(&self, _: &ConnectionDetails, _: Option<()>) -> Result<Option<Wire>, ureq::Error> {
            Ok(None)
        }
    }

    fork::undisturbed(|| {
        // Its failure is what it is for.
        let _ = ureq::Agent::with_parts(settings.clone(), Nowhere, NoResolver).post("http://localhost").send("");
    });
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

pub(crate) struct Tls {
    socket: Socket,
    session: Box<ClientConnection>,
    records: Records,
    /// What is wrong with the records behind those that were good.
    broke: Option<Cause>,
}

/// Opens TLS and hands all of its handshake to the socket, so that whatever is written later is the request.
fn handshake(call: &Call, socket: Socket, config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Tls, Cause> {
    call.phase(Phase::Handshake);
    let session = tls::session(config, name).map_err(|error| Cause::Tls(tls::explain(&error, false)))?;
    let mut tls = Tls { socket, session: Box::new(session), records: Records::default(), broke: None };
    let closed = |error: io::Error| Cause::Connect(format!("closed during the TLS handshake: {error}"));
    while tls.session.is_handshaking() || tls.session.wants_write() {
        call.check()?;
        if tls.session.wants_write() {
            match tls.session.write_tls(&mut Quiet(&tls.socket)) {
                Ok(_) => {}
                Err(error) if is_pause(&error) => wait(call, &tls.socket, Wish::Write)?,
                Err(error) => return Err(closed(error)),
            }
            continue;
        }
        match tls.read(false) {
            Ok(0) => return Err(Cause::Connect("closed during the TLS handshake".to_owned())),
            Ok(_) => tls.process()?,
            Err(error) if is_pause(&error) => wait(call, &tls.socket, Wish::Read)?,
            Err(error) => return Err(closed(error)),
        }
    }
    Ok(tls)
}

impl Tls {
    /// Reads from the socket, see [`Socket::receive`].
    fn read(&mut self, waits: bool) -> io::Result<usize> {
        self.session.read_tls(&mut self.records.watch(&self.socket, waits))
    }

    /// Takes in the records that came; the server is told by an alert when one is not acceptable.
    fn process(&mut self) -> Result<(), Cause> {
        match self.session.process_new_packets() {
            Ok(_) => Ok(()),
            Err(error) => {
                // One piece a time, as far as the socket takes them now.
                while self.session.wants_write() && self.session.write_tls(&mut Quiet(&self.socket)).is_ok() {}
                // Its version is known as soon as the server has answered in TLS at all.
                Err(Cause::Tls(tls::explain(&error, self.session.protocol_version().is_some())))
            }
        }
    }
}

/// Writes one piece after the other, by `send`, which raises no SIGPIPE; a vectored write is `writev`, which does.
struct Quiet<'a>(&'a Socket);

impl Write for Quiet<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Waits until the socket is ready, as long as the call goes on.
pub(super) fn wait(call: &Call, socket: &Socket, wish: Wish) -> Result<(), Cause> {
    loop {
        call.check()?;
        match sys::wait(&[socket], wish, call.slice()) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => return Err(Cause::Broken(error.to_string())),
        }
    }
}

/// A connection that stands.
pub(crate) enum Stream {
    Plain(Socket),
    Tls(Tls),
}

impl Stream {
    fn socket(&self) -> &Socket {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(tls) => &tls.socket,
        }
    }

    fn socket_mut(&mut self) -> &mut Socket {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(tls) => &mut tls.socket,
        }
    }

    /// Whether TLS has records that the socket did not take yet.
    fn wants_write(&self) -> bool {
        matches!(self, Stream::Tls(tls) if tls.session.wants_write())
    }

    /// The version and the cipher of its TLS.
    pub(crate) fn protocol(&self) -> Option<(String, String)> {
        let Stream::Tls(tls) = self else { return None };
        let version = tls.session.protocol_version()?;
        let cipher = tls.session.negotiated_cipher_suite()?.suite();
        let name = version.as_str().unwrap_or("TLS").replace("TLSv1_", "TLS 1.");
        Some((name, cipher.as_str().unwrap_or("an unknown cipher").to_owned()))
    }

    /// From here on it is counted as a connection.
    fn stands(&mut self) {
        let resumed = match self {
            Stream::Plain(_) => false,
            Stream::Tls(tls) => tls.session.handshake_kind() == Some(HandshakeKind::Resumed),
        };
        if let Some(account) = self.socket_mut().account() {
            account.stands(resumed);
        }
    }

    /// Closes it, for a reason that its client counts.
    pub(super) fn close(mut self, why: Closed) {
        if let Some(account) = self.socket_mut().account() {
            account.closes(why);
        }
    }

    /// Whether this process opened it.
    pub(super) fn is_own(&self) -> bool {
        self.socket().is_own()
    }

    fn address(&self) -> Option<SocketAddr> {
        self.socket().peer_addr().ok()
    }

    /// Whether nothing that was received is left inside TLS, and nothing that is to be sent.
    fn is_drained(&mut self) -> bool {
        match self {
            Stream::Plain(_) => true,
            Stream::Tls(tls) => {
                let quiet = |state: rustls::IoState| state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed();
                tls.broke.is_none()
                    && tls.records.are_whole()
                    && tls.session.process_new_packets().is_ok_and(quiet)
                    && !tls.session.wants_write()
            }
        }
    }

    /// Whether nothing came since the last answer: no byte of another one, no end. The one look before a connection
    /// is used again.
    pub(super) fn is_quiet(&mut self) -> bool {
        match self {
            // Not inherited from before a fork.
            stream if !stream.is_own() => false,
            Stream::Plain(socket) => {
                matches!(socket.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
            }
            Stream::Tls(tls) => {
                // Tickets for other sessions may come at any time.
                for _ in 0..MOST_TICKETS {
                    match tls.read(false) {
                        Ok(1..) if tls.session.process_new_packets().is_ok() => {}
                        Err(error) if error.kind() == ErrorKind::WouldBlock => return self.is_drained(),
                        Ok(_) | Err(_) => return false,
                    }
                }
                false
            }
        }
    }
}

/// Requests up to this length are taken whole by every window that a system opens: none is smaller.
const SHORT: usize = 1024;

/// A connection with its buffers.
pub(super) struct Line {
    pub stream: Stream,
    buffers: Buffers,
}

impl Line {
    pub(super) fn new(stream: Stream) -> Box<Line> {
        Box::new(Line { stream, buffers: Buffers::default() })
    }
}

/// A kept connection that brings more than so many pieces without an answer in them is given up.
const MOST_TICKETS: usize = 16;
/// So many looks at what came are taken at the end of a call's time: an answer that is there by then counts, and a
/// server that never pauses does not outrun the deadline.
const LAST_LOOKS: u8 = 16;

/// One connection, for one request and its answer.
pub(super) struct Wire {
    /// Until it is given back.
    line: Option<Box<Line>>,
    pool: Arc<Pool>,
    head_done: bool,
    /// The connection ended out of order: what the system still holds of the request must not go out after the
    /// call has returned.
    abort: bool,
    /// The request fits into the smallest window, and the system took it at once.
    is_short: bool,
    /// ureq has read the answer to its end, and has nothing left over.
    finished: bool,
    /// How many more looks at what came may be taken after the call's time.
    looks: u8,
}

impl fmt::Debug for Wire {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Wire")
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let Some(mut line) = self.line.take() else { return };
        let (pool, abort) = (self.pool.clone(), self.abort);
        let call = call::current();
        let why = match &call {
            _ if abort => Closed::Broken,
            Some(call) if call.ended() => Closed::Ended,
            _ => Closed::NotKept,
        };
        let call = call.filter(|_| self.finished && !abort);
        // It has arrived, then, before an answer to it could be made.
        let was_read = self.is_short && call.as_ref().is_some_and(|call| matches!(call.status(), Some(200..=299)));
        line.buffers.wipe();
        let part = move |idle| part(line, why, was_read, idle, &pool);
        match call {
            // ureq lets go of the connection before it shows the head of an answer that has no body.
            Some(call) => call.when_known(part),
            None => part(None),
        }
    }
}

/// Keeps a connection that is in order for so long, or closes it. `was_read`: the server has the request.
fn part(mut line: Box<Line>, why: Closed, was_read: bool, idle: Option<Duration>, pool: &Pool) {
    if let Some(idle) = idle
        && (was_read || sys::unsent(line.stream.socket()) != Some(true))
        && line.stream.is_drained()
    {
        return pool.give(line, idle);
    }
    if why == Closed::Broken || sys::unsent(line.stream.socket()) != Some(false) {
        line.stream.socket().reset();
    }
    line.stream.close(why);
}

impl Transport for Wire {
    fn buffers(&mut self) -> &mut dyn ureq::unversioned::transport::Buffers {
        &mut self.line().buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        if !self.line().buffers.collect(amount) {
            return with_call(|_| Err(Cause::Broken("there is no memory for the request".to_owned())));
        }
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

    /// ureq asks this of a connection that it is through with in good order. The pool is our own: ureq lets go of the
    /// connection, which goes there.
    fn is_open(&mut self) -> bool {
        self.finished = true;
        false
    }

    fn is_tls(&self) -> bool {
        self.line.as_ref().is_some_and(|line| matches!(line.stream, Stream::Tls(_)))
    }
}

impl Wire {
    pub(super) fn new(line: Box<Line>, pool: Arc<Pool>) -> Wire {
        Wire {
            line: Some(line),
            pool,
            head_done: false,
            abort: false,
            is_short: false,
            finished: false,
            looks: LAST_LOOKS,
        }
    }

    fn line(&mut self) -> &mut Line {
        self.line.as_mut().expect("it is taken out by drop only")
    }

    fn wait(&mut self, call: &Call, wish: Wish) -> Result<(), Cause> {
        wait(call, self.line().stream.socket(), wish)
    }

    /// Sends what is still to be sent, then reads: the whole head of the answer at first, any bytes after it.
    /// `false` when the server ended the connection in good order.
    fn exchange(&mut self, call: &Rc<Call>) -> Result<bool, Cause> {
        let request = self.line().buffers.take_request();
        if request.1 > 0 {
            self.send(call, &request.0[..request.1])?;
            self.line().buffers.return_request(request);
            call.phase(Phase::Answer);
            if self.head_done {
                return Ok(true);
            }
        }
        loop {
            match self.receive(call, true)? {
                Received::Bytes => {
                    if !self.head_done {
                        self.look_at_head(call)?;
                    }
                    if self.head_done {
                        return Ok(true);
                    }
                }
                Received::Nothing => self.wait(call, Wish::Read)?,
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
        self.is_short = request.len() <= SHORT;
        loop {
            match self.push(call, &mut rest) {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    self.is_short = false;
                    if self.answer_came(call)? {
                        return Ok(());
                    }
                    self.wait(call, Wish::Either)?;
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
            match self.receive(call, false)? {
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
            let line = self.line();
            if rest.is_empty() && !line.stream.wants_write() {
                return Ok(true);
            }
            // What has not begun by then must not begin.
            call.check()?;
            let written = match &mut line.stream {
                Stream::Plain(socket) => socket.send(rest).inspect(|count| *rest = &rest[*count..]),
                Stream::Tls(tls) => {
                    if !tls.session.wants_write() {
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

    /// Reads what is there into the buffer; where nothing is, and it may wait, perhaps what comes in a while.
    fn receive(&mut self, call: &Call, may_wait: bool) -> Result<Received, Cause> {
        let waits = |now: Option<Instant>| may_wait && now.is_some_and(|now| call.lasts(now, 2 * PATIENCE));
        let now = look(&mut self.looks, call)?;
        let Line { stream, buffers } = &mut **self.line.as_mut().expect("it is taken out by drop only");
        let room = buffers.input_append_buf();
        if room.is_empty() {
            return Err(Cause::Unreadable("it does not fit into memory".to_owned()));
        }
        let received = match stream {
            Stream::Plain(socket) => match socket.receive(room, waits(now)) {
                Ok(0) => Received::End,
                Ok(count) => {
                    buffers.input_appended(count);
                    Received::Bytes
                }
                Err(error) if is_pause(&error) => Received::Nothing,
                Err(error) => return Err(Cause::Broken(error.to_string())),
            },
            Stream::Tls(tls) => loop {
                match tls.session.reader().read(room) {
                    Ok(0) => break Received::End,
                    Ok(count) => {
                        buffers.input_appended(count);
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
                let now = look(&mut self.looks, call)?;
                match tls.read(waits(now)) {
                    // What came before a bad record counts: it is read first.
                    Ok(_) => tls.broke = tls.process().err(),
                    Err(error) if is_pause(&error) => break Received::Nothing,
                    Err(error) => return Err(Cause::Broken(error.to_string())),
                }
            },
        };
        Ok(received)
    }

    /// Looks whether the head is whole, and drops interim ones.
    fn look_at_head(&mut self, call: &Call) -> Result<(), Cause> {
        loop {
            match head::read(self.line().buffers.input()) {
                Head::Partial => return Ok(()),
                Head::Interim(length) => self.line().buffers.input_consume(length),
                Head::Final(status, _) => {
                    call.record_status(status);
                    self.head_done = true;
                    return Ok(());
                }
                Head::Unreadable(why) => return Err(Cause::Unreadable(why.to_owned())),
            }
        }
    }
}

/// Whether another look at what came may be taken; what time it is, where that may wait.
fn look(looks: &mut u8, call: &Call) -> Result<Option<Instant>, Cause> {
    call.check().map(Some).or_else(|cause| {
        *looks = looks.checked_sub(1).ok_or(cause)?;
        Ok(None)
    })
}

/// What one look at the connection brought.
enum Received {
    Bytes,
    /// Nothing for now.
    Nothing,
    /// The end, in good order.
    End,
}
