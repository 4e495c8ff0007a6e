//! The fault server: raw sockets, one script a connection, and the ledger of what it made.
//!
//! A script says byte for byte what the server does with one connection, which may carry several requests. When it
//! is over, the server goes on reading until the client closes, so that whatever still arrives is seen.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection};
use socket2::{Domain, SockRef, Socket, Type};

use crate::http::{Request, find, success};
use crate::ledger::Ledger;
use crate::sys;
use crate::watched::Watched;

/// How long the server, or a test that waits for it, waits for what must come. Long enough for a busy
/// machine: nothing is decided by it but that a test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What the server does next.
#[derive(Debug, Clone)]
pub enum Step {
    /// Reads exactly so many bytes from the socket in all, over TLS records as they come.
    Raw(usize),
    /// Reads exactly so many bytes of the next request in all.
    Read(usize),
    /// Reads until nothing has come for so long.
    Drain(Duration),
    /// Does the handshake of TLS and reads nothing more than that needs.
    Handshake,
    /// Reads until the handshake of TLS fails, and says so to the client.
    Refuse,
    /// Reads the whole next request, strictly.
    Request,
    /// Goes by the script for one request after another, until the client or the script closes the connection.
    Forever(Script),
    /// Enters the latest request's `out_task_num` into the ledger.
    Make,
    /// As `Make`, unless the ledger holds the number: a server that knows a repeat.
    MakeOnce,
    /// Goes on with the script that the test set for the latest request's `out_task_num`.
    ByNumber,
    /// Sends what the function makes of the latest request's `out_task_num`.
    Answer(fn(&str) -> Vec<u8>),
    /// Sends bytes.
    Send(Vec<u8>),
    /// Sends bytes in pieces of a size, with a pause after each.
    Pieces(Vec<u8>, usize, Duration),
    /// Sends bytes again and again, without a pause, until the client leaves.
    Flood(Vec<u8>),
    /// Over TLS: encrypts each of the texts into a record of its own (or more, when it is long), and sends all
    /// records in one piece, changed.
    Records(Vec<Vec<u8>>, Change),
    /// Over TLS: reads until the handshake has an answer, and sends that, changed.
    Flight(Change),
    /// Over TLS 1.3: goes on with new keys, and asks the client to do so too.
    KeyUpdate,
    /// Sends bytes past TLS.
    Bare(Vec<u8>),
    /// Waits until the client's kernel has acknowledged everything, an end too, so that a reset drops nothing.
    Acknowledged,
    /// Waits, without reading, until the test calls [`Server::release`].
    AwaitRelease,
    /// Sends TLS's close_notify.
    CloseNotify,
    /// Sends FIN; over TLS without a close_notify, unless one was sent.
    Fin,
    /// Sends RST.
    Reset,
}

/// What becomes of bytes of TLS on their way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// All of them are sent.
    None,
    /// Only so many are sent.
    First(usize),
    /// So many at the end are not sent.
    Without(usize),
    /// So many at the end are sent when the test calls [`Server::release`].
    Held(usize),
    /// Others are sent behind them in one piece.
    Followed(&'static [u8]),
    /// The highest bit of the one at this place is turned over.
    Flipped(usize),
    /// They are sent one at a time, with a pause after each.
    Slow(Duration),
}

/// The steps of one connection.
#[derive(Debug, Clone, Default)]
pub struct Script(Vec<Step>);

impl Script {
    /// Nothing: the server accepts and is silent.
    pub fn silent() -> Script {
        Script::default()
    }

    /// Reads the whole request.
    pub fn request() -> Script {
        Script::silent().then(Step::Request)
    }

    /// Reads the whole request and makes the appointment.
    pub fn made() -> Script {
        Script::request().then(Step::Make)
    }

    /// Reads the whole request, makes the appointment and says so, with the number that belongs to the request's.
    pub fn served() -> Script {
        Script::made().then(Step::Answer(success))
    }

    /// Goes by the script for one request after another, until the client or the script closes the connection.
    pub fn forever(script: Script) -> Script {
        Script::silent().then(Step::Forever(script))
    }

    /// One more step.
    pub fn then(mut self, step: Step) -> Script {
        self.0.push(step);
        self
    }

    /// The steps of another script.
    pub fn and(mut self, script: Script) -> Script {
        self.0.extend(script.0);
        self
    }

    /// Sends bytes.
    pub fn send(self, bytes: impl Into<Vec<u8>>) -> Script {
        self.then(Step::Send(bytes.into()))
    }

    /// Ends the connection as a well-behaved server does.
    pub fn close(self) -> Script {
        self.then(Step::CloseNotify).then(Step::Fin)
    }

    /// Ends the connection by FIN; over TLS nothing says that this end was meant.
    pub fn fin(self) -> Script {
        self.then(Step::Fin)
    }

    /// Ends the connection by RST, after the client's kernel has what was sent.
    pub fn reset(self) -> Script {
        self.then(Step::Acknowledged).then(Step::Reset)
    }
}

/// One request, and what the server said to it. There is one from the beginning of a connection, and one more with
/// the first byte after each whole request.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// When it began: by the connection, or by its first byte on a connection that had carried another.
    pub began: Instant,
    /// Which byte of the socket brought the first byte of the request, counted from 1 over the whole connection;
    /// over TLS one of the same record. 0 until there is one.
    pub at: u64,
    /// The bytes of the request that arrived; over TLS decrypted.
    pub plain: Vec<u8>,
    /// The request, when the script read it whole.
    pub request: Option<Request>,
    /// In how many segments the request arrived, when it is whole.
    pub segments: u32,
    /// The bytes that were sent whole before the next request began; over TLS before encryption.
    pub sent: Vec<u8>,
}

impl Default for Exchange {
    fn default() -> Exchange {
        Exchange { began: Instant::now(), at: 0, plain: Vec::new(), request: None, segments: 0, sent: Vec::new() }
    }
}

impl Exchange {
    /// Whether the request has this `out_task_num`, as far as it arrived.
    pub fn is_of(&self, number: &str) -> bool {
        find(&self.plain, format!("\"out_task_num\":\"{number}\"").as_bytes()).is_some()
    }
}

/// What the server saw of one connection.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// How many bytes the socket gave, those too that the kernel had when the server reset the connection.
    pub raw: u64,
    /// The requests and what was said to them, in order; one at least.
    pub exchanges: Vec<Exchange>,
    /// The bytes that [`Step::Records`] or [`Step::Flight`] would have sent unchanged, those of the last such step.
    pub records: Vec<u8>,
    /// Whether the handshake of TLS was done.
    pub handshaken: bool,
    /// The bytes that the socket had given when the client's first flight, and when the handshake, were whole.
    pub flights: Vec<u64>,
    /// Whether the script is over: the server does nothing more but read.
    pub over: bool,
    /// Whether the connection has ended.
    pub ended: bool,
    /// What ended the script early, such as a client that left.
    pub note: Option<String>,
    /// What the client must never do.
    pub fault: Option<String>,
}

impl Seen {
    /// How many bytes of requests arrived.
    pub fn request_bytes(&self) -> usize {
        self.exchanges.iter().map(|exchange| exchange.plain.len()).sum()
    }

    /// The whole requests, in order.
    pub fn requests(&self) -> impl DoubleEndedIterator<Item = &Request> {
        self.exchanges.iter().filter_map(|exchange| exchange.request.as_ref())
    }

    /// The `out_task_num` of each whole request, in order.
    #[track_caller]
    pub fn numbers(&self) -> Vec<String> {
        self.requests().map(|request| request.out_task_num().expect("a number")).collect()
    }

    fn last(&mut self) -> &mut Exchange {
        self.exchanges.last_mut().expect("there is one from the beginning")
    }

    /// The bytes of the next request that have arrived.
    fn next(&mut self) -> &[u8] {
        let last = self.last();
        if last.request.is_some() { &[] } else { &last.plain }
    }

    /// Takes bytes of a request, the last of those that the socket gave.
    fn arrived(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.last().request.is_some() {
            self.exchanges.push(Exchange::default());
        }
        let at = self.raw + 1 - bytes.len() as u64;
        let last = self.last();
        if last.plain.is_empty() {
            last.at = at;
        }
        last.plain.extend_from_slice(bytes);
    }
}

struct Slot {
    seen: Seen,
    /// The socket, as long as the server has it open.
    socket: Option<Arc<TcpStream>>,
    released: bool,
}

#[derive(Default)]
struct State {
    tls: Option<Arc<ServerConfig>>,
    scripts: VecDeque<Script>,
    numbered: HashMap<String, Script>,
    always: Option<Script>,
    /// Where connections come, unless the server is down.
    listener: Option<Arc<TcpListener>>,
    slots: Vec<Slot>,
    ledger: Ledger,
    stopping: bool,
    threads: Vec<JoinHandle<()>>,
}

/// A server on loopback, on a port that the system gave.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Watched<State>>,
    accepting: Mutex<Option<JoinHandle<()>>>,
    /// Keeps the port while the server is down.
    _reserved: Socket,
}

/// A socket that may share its address with connections of earlier ones.
pub(crate) fn bound(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.bind(&address.into()).expect("a port");
    socket
}

impl Server {
    /// A server of plain HTTP on 127.0.0.1.
    pub fn plain() -> Server {
        Server::start("127.0.0.1", None)
    }

    /// A server on a loopback address; with `tls` one of HTTPS.
    pub fn start(host: &str, tls: Option<Arc<ServerConfig>>) -> Server {
        let host: IpAddr = host.parse().expect("an address");
        let reserved = bound(SocketAddr::new(host, 0));
        let address = reserved.local_addr().expect("an address").as_socket().expect("of the net");
        let shared = Arc::new(Watched::new(State { tls, ..State::default() }));
        let server = Server { address, shared, accepting: Mutex::default(), _reserved: reserved };
        server.up();
        server
    }

    /// Listens again, after [`Server::down`].
    pub fn up(&self) {
        let socket = bound(self.address);
        socket.listen(1024).expect("it listens");
        socket.set_nonblocking(true).expect("O_NONBLOCK");
        let listener = Arc::new(TcpListener::from(socket));
        let former = self.shared.lock().listener.replace(Arc::clone(&listener));
        assert!(former.is_none(), "the server is up");
        let shared = Arc::clone(&self.shared);
        let accepting = std::thread::spawn(move || accept(&listener, &shared));
        *self.accepting.lock().expect("set and taken only") = Some(accepting);
    }

    /// Refuses connections from now on, and leaves those that there are, as a process that ends: what the client
    /// writes after that is lost, unseen.
    pub fn down(&self) {
        let Some(listener) = self.shared.lock().listener.take() else { return };
        // Wakes the thread that waits for connections, which then ends.
        SockRef::from(&*listener).shutdown(Shutdown::Both).expect("it listens");
        let accepting = self.accepting.lock().expect("set and taken only").take();
        accepting.expect("set when it was up").join().expect("accepting does not panic");
        for slot in &self.shared.lock().slots {
            if let Some(socket) = &slot.socket {
                // The client may have reset it.
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }

    /// Goes down and up again, on the same port.
    pub fn restart(&self) {
        self.down();
        self.up();
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL with the server's address.
    pub fn base_url(&self) -> String {
        self.base_url_as(&self.address.ip().to_string())
    }

    /// The base URL with another name for the same host.
    pub fn base_url_as(&self, host: &str) -> String {
        let scheme = if self.shared.lock().tls.is_some() { "https" } else { "http" };
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        format!("{scheme}://{host}:{}", self.address.port())
    }

    /// Makes the kernel take no more than about twice so many bytes that the server does not read, on connections
    /// that are still to come before the server goes down.
    pub fn receive_buffer(&self, bytes: usize) {
        let state = self.shared.lock();
        let listener = state.listener.as_ref().expect("the server is up");
        SockRef::from(&**listener).set_recv_buffer_size(bytes).expect("SO_RCVBUF");
    }

    /// Sets the script of the next connection.
    pub fn next(&self, script: Script) {
        self.shared.lock().scripts.push_back(script);
    }

    /// Sets the script that [`Step::ByNumber`] takes for this number.
    pub fn number(&self, number: &str, script: Script) {
        self.shared.lock().numbered.insert(number.to_owned(), script);
    }

    /// Sets the script of every connection that has none of its own.
    pub fn always(&self, script: Script) {
        self.shared.lock().always = Some(script);
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.look().slots.len()
    }

    /// The state with all connections that clients have made by now.
    fn look(&self) -> MutexGuard<'_, State> {
        let mut state = self.shared.lock();
        take_connections(&self.shared, &mut state);
        state
    }

    /// What the server made.
    pub fn ledger(&self) -> Ledger {
        self.shared.lock().ledger.clone()
    }

    /// What was seen of the connections from the one with this index on, now.
    pub fn seen(&self, from: usize) -> Vec<Seen> {
        self.look().slots[from..].iter().map(|slot| slot.seen.clone()).collect()
    }

    /// What came of the requests with this `out_task_num` by now, on all connections.
    pub fn tries(&self, number: &str) -> Vec<Exchange> {
        let seen = self.seen(0);
        seen.into_iter().flat_map(|seen| seen.exchanges).filter(|exchange| exchange.is_of(number)).collect()
    }

    /// Waits until there were so many connections.
    pub fn await_connections(&self, count: usize) -> Result<(), String> {
        self.shared
            .wait(|state| (state.slots.len() >= count).then_some(()))
            .ok_or_else(|| format!("{} connections instead of {count}", self.connections()))
    }

    /// Waits until so many whole requests were read.
    pub fn await_requests(&self, count: usize) -> Result<(), String> {
        let brought = |state: &State| state.slots.iter().map(|slot| slot.seen.requests().count()).sum::<usize>();
        self.shared
            .wait(|state| (brought(state) >= count).then_some(()))
            .ok_or_else(|| format!("{} requests instead of {count}", brought(&self.shared.lock())))
    }

    /// Waits until the script of the connection with this index is over: after [`Step::Reset`] the connection is gone.
    pub fn await_over(&self, index: usize) -> Result<(), String> {
        self.shared
            .wait(|state| state.slots.get(index).is_some_and(|slot| slot.seen.over).then_some(()))
            .ok_or_else(|| format!("the script of connection {index} is not over"))
    }

    /// How many bytes the kernel has received on each connection from the one with this index on, read by
    /// the server or not. `None` for those that the server itself has closed.
    pub fn arrived(&self, from: usize) -> Vec<Option<u64>> {
        // The lock keeps the server's threads from reading in between.
        let state = self.look();
        let arrived = |slot: &Slot| slot.socket.as_ref().map(|socket| slot.seen.raw + sys::unread(socket) as u64);
        state.slots[from..].iter().map(arrived).collect()
    }

    /// How many bytes each connection from the one with this index on has brought, read by the server or not.
    pub fn brought(&self, from: usize) -> Vec<u64> {
        // In this order: what was read from a connection that had ended before grows no more.
        let arrived = self.arrived(from);
        arrived.iter().zip(self.seen(from)).map(|(arrived, seen)| arrived.unwrap_or(seen.raw)).collect()
    }

    /// Lets the scripts of all connections that there are go past [`Step::AwaitRelease`].
    pub fn release(&self) {
        self.shared.lock().slots.iter_mut().for_each(|slot| slot.released = true);
        self.shared.changed.notify_all();
    }

    /// Waits until every connection from the one with this index on has ended, and tells what was seen of them.
    pub fn settle(&self, from: usize) -> Result<Vec<Seen>, String> {
        drop(self.look());
        self.shared
            .wait(|state| state.slots[from..].iter().all(|slot| slot.seen.ended).then_some(()))
            .ok_or("a connection is still open")?;
        Ok(self.seen(from))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        self.down();
        let threads = std::mem::take(&mut self.shared.lock().threads);
        let ended = threads.into_iter().map(JoinHandle::join).filter(Result::is_err).count();
        if !std::thread::panicking() {
            assert!(ended == 0, "a thread of the server panicked");
            for seen in self.seen(0) {
                assert_eq!(seen.fault, None);
            }
            assert!(self.shared.lock().scripts.is_empty(), "a script was left over: a connection was not made");
        }
    }
}

/// Takes connections until the server goes down.
fn accept(listener: &TcpListener, shared: &Arc<Watched<State>>) {
    loop {
        sys::wait_readable(listener, PATIENCE);
        let mut state = shared.lock();
        if state.listener.is_none() {
            return;
        }
        take_connections(shared, &mut state);
    }
}

/// Takes the connections that wait. Whoever looks at the state does so too: a connection that a client has made
/// counts whenever the thread that accepts comes to run.
fn take_connections(shared: &Arc<Watched<State>>, state: &mut State) {
    let Some(listener) = state.listener.clone() else { return };
    loop {
        match listener.accept() {
            Ok((socket, _)) => take_connection(shared, state, socket),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => panic!("accept: {error}"),
        }
    }
}

fn take_connection(shared: &Arc<Watched<State>>, state: &mut State, socket: TcpStream) {
    socket.set_nodelay(true).expect("TCP_NODELAY");
    socket.set_write_timeout(Some(PATIENCE)).expect("a time-out");
    let socket = Arc::new(socket);
    let script = state.scripts.pop_front().or_else(|| state.always.clone());
    let fault = script.is_none().then(|| "a connection that the test does not expect".to_owned());
    let seen = Seen { exchanges: vec![Exchange::default()], fault, ..Seen::default() };
    let index = state.slots.len();
    state.slots.push(Slot { seen, socket: Some(Arc::clone(&socket)), released: false });
    let tls = state.tls.as_ref().map(|config| {
        let mut tls = ServerConnection::new(Arc::clone(config)).expect("a TLS connection");
        tls.set_buffer_limit(None);
        tls
    });
    let worker = Worker { shared: Arc::clone(shared), index, socket, tls, holding: false, awaited: 1, closing: false };
    let script = script.unwrap_or_else(|| Script::silent().then(Step::Reset));
    state.threads.push(std::thread::spawn(move || worker.run(script)));
    shared.changed.notify_all();
}

/// Why a script goes no further.
enum Stop {
    /// The client, or the test, has left.
    Left(String),
    /// TLS has failed.
    Tls(String),
    /// The client did what it must not do.
    Fault(String),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Left(error.to_string())
    }
}

struct Worker {
    shared: Arc<Watched<State>>,
    index: usize,
    socket: Arc<TcpStream>,
    tls: Option<ServerConnection>,
    /// Whether what TLS has to say stays with it for now.
    holding: bool,
    /// How many requests the script has begun to read; one at least, since a script may read none of the first.
    awaited: usize,
    /// Whether the script has told the client that the connection ends.
    closing: bool,
}

impl Worker {
    fn run(mut self, script: Script) {
        let mut steps = VecDeque::from(script.0);
        let mut reset = false;
        while let Some(step) = steps.pop_front() {
            if matches!(step, Step::Reset) {
                reset = true;
                break;
            }
            match self.step(step, &mut steps) {
                Ok(()) => {}
                Err(Stop::Left(note) | Stop::Tls(note)) => {
                    self.see(|seen| seen.note = Some(note));
                    break;
                }
                Err(Stop::Fault(fault)) => {
                    self.see(|seen| seen.fault = Some(fault));
                    break;
                }
            }
        }
        if reset {
            SockRef::from(&*self.socket).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
            self.look_on();
        } else {
            self.see(|seen| seen.over = true);
            self.read_on();
        }
        let mut state = self.shared.lock();
        let slot = &mut state.slots[self.index];
        if slot.seen.exchanges.len() > self.awaited {
            slot.seen.fault = Some("bytes after the request".to_owned());
        }
        // The last two owners of the socket: the second drop closes it.
        slot.socket = None;
        drop(self.socket);
        (slot.seen.over, slot.seen.ended) = (true, true);
        drop(state);
        self.shared.changed.notify_all();
    }

    fn see<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        let value = change(&mut self.shared.lock().slots[self.index].seen);
        self.shared.changed.notify_all();
        value
    }

    fn step(&mut self, step: Step, steps: &mut VecDeque<Step>) -> Result<(), Stop> {
        match step {
            Step::Raw(count) => loop {
                let have = usize::try_from(self.see(|seen| seen.raw)).expect("a count");
                if have >= count {
                    return Ok(());
                }
                self.receive_some(count - have)?;
            },
            Step::Read(count) => {
                self.await_request();
                loop {
                    let have = self.see(|seen| seen.next().len());
                    if have >= count {
                        return Ok(());
                    }
                    self.receive_some(count - have)?;
                }
            }
            Step::Drain(quiet) => {
                while sys::wait_readable(&*self.socket, quiet) {
                    self.receive_some(usize::MAX)?;
                }
                Ok(())
            }
            Step::Handshake => {
                while self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
                    // One byte at a time, so that nothing of what follows the handshake is read.
                    self.receive_some(1)?;
                }
                Ok(())
            }
            Step::Refuse => loop {
                match self.receive_some(1) {
                    Ok(()) if self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) => {}
                    Ok(()) => return Err(Stop::Fault("nothing is wrong with the handshake".to_owned())),
                    Err(Stop::Tls(_)) => return Ok(()),
                    Err(stop) => return Err(stop),
                }
            },
            Step::Request => {
                self.await_request();
                loop {
                    match self.see(|seen| Request::parse(seen.next())).map_err(Stop::Fault)? {
                        None => self.receive_some(usize::MAX)?,
                        Some(request) => {
                            self.take_request(request);
                            return Ok(());
                        }
                    }
                }
            }
            Step::Forever(script) => {
                while !self.closing && self.see(|seen| seen.next().is_empty()) {
                    if self.receive(usize::MAX)? == 0 {
                        return Ok(());
                    }
                }
                if !self.closing {
                    steps.push_front(Step::Forever(script.clone()));
                    go_on(steps, script);
                }
                Ok(())
            }
            Step::Make => {
                let number = self.out_task_num()?;
                self.shared.lock().ledger.enter(&number);
                Ok(())
            }
            Step::MakeOnce => {
                let number = self.out_task_num()?;
                let ledger = &mut self.shared.lock().ledger;
                if ledger.made(&number) == 0 {
                    ledger.enter(&number);
                }
                Ok(())
            }
            Step::ByNumber => {
                let number = self.out_task_num()?;
                let script = self.shared.lock().numbered.get(&number).cloned();
                go_on(steps, script.ok_or_else(|| Stop::Fault(format!("no script for {number}")))?);
                Ok(())
            }
            Step::Answer(answer) => self.send(&answer(&self.out_task_num()?)),
            Step::Send(bytes) => self.send(&bytes),
            Step::Pieces(bytes, size, pause) => {
                for piece in bytes.chunks(size) {
                    self.send(piece)?;
                    if !pause.is_zero() {
                        std::thread::sleep(pause);
                    }
                }
                Ok(())
            }
            Step::Flood(bytes) => loop {
                match &mut self.tls {
                    None => (&*self.socket).write_all(&bytes)?,
                    Some(tls) => {
                        tls.writer().write_all(&bytes)?;
                        self.flush()?;
                    }
                }
            },
            Step::Records(texts, change) => {
                let mut records = Vec::new();
                let mut ends = Vec::new();
                for text in &texts {
                    self.tls.as_mut().expect("records are of TLS").writer().write_all(text)?;
                    self.encrypted(&mut records)?;
                    ends.push(records.len());
                }
                let unchanged = self.send_changed(records, change)?;
                for (text, end) in texts.iter().zip(ends) {
                    if end <= unchanged {
                        self.see(|seen| seen.last().sent.extend_from_slice(text));
                    }
                }
                Ok(())
            }
            Step::Flight(change) => {
                self.holding = true;
                while !self.tls.as_ref().expect("a flight is of TLS").wants_write() {
                    self.receive_some(usize::MAX)?;
                }
                self.holding = false;
                let mut records = Vec::new();
                self.encrypted(&mut records)?;
                self.send_changed(records, change)?;
                Ok(())
            }
            Step::KeyUpdate => {
                let tls = self.tls.as_mut().expect("keys are of TLS");
                tls.refresh_traffic_keys().map_err(|error| Stop::Fault(format!("no KeyUpdate: {error}")))?;
                self.flush()
            }
            Step::Bare(bytes) => Ok((&*self.socket).write_all(&bytes)?),
            Step::Acknowledged => {
                let until = Instant::now() + PATIENCE;
                // Nothing wakes anybody when an acknowledgement comes, so this asks again and again.
                while sys::unacknowledged(&self.socket) > 0 {
                    if sys::is_reset(&*self.socket) {
                        return Err(Stop::Left("the client has reset the connection".to_owned()));
                    }
                    if Instant::now() > until {
                        return Err(Stop::Left("the client's kernel acknowledges nothing".to_owned()));
                    }
                    std::thread::sleep(Duration::from_micros(20));
                }
                Ok(())
            }
            Step::AwaitRelease => self.await_release(),
            Step::CloseNotify => {
                self.closing = true;
                if let Some(tls) = &mut self.tls {
                    tls.send_close_notify();
                }
                self.flush()
            }
            Step::Fin => {
                self.closing = true;
                Ok(self.socket.shutdown(Shutdown::Write)?)
            }
            Step::Reset => unreachable!("the end of every script that has it"),
        }
    }

    /// Notes that the script reads some of the next request.
    fn await_request(&mut self) {
        let begun = self.see(|seen| seen.exchanges.len() + usize::from(seen.last().request.is_some()));
        self.awaited = begun;
    }

    /// Takes a request that is whole. What has come behind it belongs to another one.
    fn take_request(&self, request: Request) {
        let segments = sys::data_segments(&self.socket);
        self.see(|seen| {
            let earlier: u32 = seen.exchanges.iter().map(|exchange| exchange.segments).sum();
            let last = seen.last();
            last.segments = segments - earlier;
            let behind = last.plain.split_off(request.length);
            last.request = Some(request);
            seen.arrived(&behind);
        });
    }

    fn out_task_num(&self) -> Result<String, Stop> {
        let request = self.see(|seen| seen.requests().next_back().cloned()).expect("a script reads the request first");
        request.out_task_num().map_err(Stop::Fault)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        match &mut self.tls {
            None => (&*self.socket).write_all(bytes)?,
            Some(tls) => {
                tls.writer().write_all(bytes)?;
                self.flush()?;
            }
        }
        self.see(|seen| seen.last().sent.extend_from_slice(bytes));
        Ok(())
    }

    /// Takes over the records that TLS has ready.
    fn encrypted(&mut self, records: &mut Vec<u8>) -> Result<(), Stop> {
        let tls = self.tls.as_mut().expect("records are of TLS");
        while tls.wants_write() {
            tls.write_tls(records)?;
        }
        Ok(())
    }

    /// Sends records, changed: how many of their bytes went out before the change.
    fn send_changed(&mut self, mut records: Vec<u8>, change: Change) -> Result<usize, Stop> {
        self.see(|seen| seen.records.clone_from(&records));
        let mut unchanged = records.len();
        match change {
            Change::None => {}
            Change::First(count) => unchanged = count.min(unchanged),
            Change::Without(count) => unchanged = unchanged.saturating_sub(count),
            Change::Held(count) => {
                let held = records.split_off(unchanged.saturating_sub(count));
                (&*self.socket).write_all(&records)?;
                self.await_release()?;
                records = held;
            }
            Change::Followed(others) => records.extend_from_slice(others),
            Change::Flipped(place) => match records.get_mut(place) {
                Some(byte) => {
                    *byte ^= 0x80;
                    unchanged = place;
                }
                None => return Err(Stop::Fault(format!("there is no byte {place} to change"))),
            },
            Change::Slow(pause) => {
                for byte in records {
                    (&*self.socket).write_all(&[byte])?;
                    std::thread::sleep(pause);
                }
                return Ok(unchanged);
            }
        }
        if matches!(change, Change::First(_) | Change::Without(_)) {
            records.truncate(unchanged);
        }
        (&*self.socket).write_all(&records)?;
        Ok(unchanged)
    }

    fn await_release(&self) -> Result<(), Stop> {
        self.shared
            .wait(|state| (state.slots[self.index].released || state.stopping).then_some(()))
            .ok_or_else(|| Stop::Left("the test released nothing".to_owned()))
    }

    /// Sends what TLS has to say.
    fn flush(&mut self) -> Result<(), Stop> {
        let Some(tls) = self.tls.as_mut().filter(|_| !self.holding) else { return Ok(()) };
        while tls.wants_write() {
            tls.write_tls(&mut &*self.socket)?;
        }
        Ok(())
    }

    fn receive_some(&mut self, most: usize) -> Result<(), Stop> {
        match self.receive(most)? {
            0 => Err(Stop::Left("the client closed".to_owned())),
            _ => Ok(()),
        }
    }

    /// Reads at most so many bytes from the socket: how many it were, 0 at the end.
    fn receive(&mut self, most: usize) -> Result<usize, Stop> {
        let bytes = self.take(most)?;
        self.decrypt(&bytes)?;
        Ok(bytes.len())
    }

    /// Reads until the client closes, whatever it sends, and says nothing more.
    fn read_on(&mut self) {
        self.holding = true;
        while let Ok(bytes) = self.take(usize::MAX)
            && !bytes.is_empty()
        {
            // TLS may have come to its end, the bytes are counted all the same.
            let _ = self.decrypt(&bytes);
        }
    }

    /// Looks at what the kernel has and nobody will read.
    fn look_on(&mut self) {
        self.holding = true;
        let bytes = {
            let mut state = self.shared.lock();
            let slot = &mut state.slots[self.index];
            // Counted by `raw` from here on, no more by the socket.
            slot.socket = None;
            // It may be that nothing can be read any more, since the client has reset the connection.
            let bytes = sys::peek(&self.socket, sys::unread(&self.socket)).unwrap_or_default();
            slot.seen.raw += bytes.len() as u64;
            bytes
        };
        match &self.tls {
            None => self.see(|seen| seen.arrived(&bytes)),
            Some(tls) if !tls.is_handshaking() => {
                // TLS may have come to its end.
                let _ = self.decrypt(&bytes);
            }
            Some(_) => {}
        }
    }

    /// Takes at most so many bytes from the socket, none at the end.
    fn take(&mut self, most: usize) -> Result<Vec<u8>, Stop> {
        let mut buffer = vec![0_u8; most.min(16 * 1024)];
        loop {
            if !sys::wait_readable(&self.socket, PATIENCE) {
                return Err(Stop::Left("nothing came".to_owned()));
            }
            // Under the lock, so that `arrived` never counts bytes twice or not at all.
            let mut state = self.shared.lock();
            if let Some(count) = sys::receive_now(&self.socket, &mut buffer)? {
                buffer.truncate(count);
                let seen = &mut state.slots[self.index].seen;
                seen.raw += count as u64;
                if self.tls.is_none() {
                    seen.arrived(&buffer);
                }
                return Ok(buffer);
            }
        }
    }

    fn decrypt(&mut self, mut records: &[u8]) -> Result<(), Stop> {
        while !records.is_empty() {
            let Some(tls) = &mut self.tls else { return Ok(()) };
            let handshaking = tls.is_handshaking();
            tls.read_tls(&mut records)?;
            let processed = tls.process_new_packets();
            let mut plain = Vec::new();
            match tls.reader().read_to_end(&mut plain) {
                Ok(_) => {}
                // No close_notify yet: what there is has been read.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            let handshaken = !tls.is_handshaking();
            let answers = tls.wants_write();
            self.see(|seen| {
                seen.arrived(&plain);
                seen.handshaken = handshaken;
                if (handshaking && handshaken) || (answers && seen.flights.is_empty()) {
                    seen.flights.push(seen.raw);
                }
            });
            self.flush()?;
            if let Err(error) = processed {
                return Err(Stop::Tls(format!("TLS: {error}")));
            }
        }
        Ok(())
    }
}

/// Puts a script before the steps that are left.
fn go_on(steps: &mut VecDeque<Step>, script: Script) {
    for step in script.0.into_iter().rev() {
        steps.push_front(step);
    }
}
