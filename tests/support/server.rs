//! The fault server: raw sockets, one script a connection, and the ledger of what it made.
//!
//! A script says byte for byte what the server does with one connection. When it is over, the server goes
//! on reading until the client closes, so that whatever still arrives is seen.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection};
use socket2::SockRef;

use crate::http::Request;
use crate::ledger::Ledger;
use crate::sys;

/// How long the server, or a test that waits for it, waits for what must come. Long enough for a busy
/// machine: nothing is decided by it but that a test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What the server does next.
#[derive(Debug, Clone)]
pub enum Step {
    /// Reads exactly so many bytes from the socket in all, over TLS records as they come.
    Raw(usize),
    /// Reads exactly so many bytes of the request in all.
    Read(usize),
    /// Does the handshake of TLS and reads nothing more than that needs.
    Handshake,
    /// Reads until the handshake of TLS fails, and says so to the client.
    Refuse,
    /// Reads the whole request, strictly.
    Request,
    /// Enters the request's `out_task_num` into the ledger.
    Make,
    /// Goes on with the script that the test set for the request's `out_task_num`.
    ByNumber,
    /// Sends bytes.
    Send(Vec<u8>),
    /// Sends bytes in pieces of a size, with a pause after each.
    Pieces(Vec<u8>, usize, Duration),
    /// Sends bytes again and again, without a pause, until the client leaves.
    Flood(Vec<u8>),
    /// Over TLS: encrypts the bytes and sends the records, changed.
    Records(Vec<u8>, Change),
    /// Over TLS: reads until the handshake has an answer, and sends that, changed.
    Flight(Change),
    /// Over TLS 1.3: goes on with new keys, and asks the client to do so too.
    KeyUpdate,
    /// Sends bytes past TLS.
    Bare(Vec<u8>),
    /// Waits until the client's kernel has acknowledged everything, so that a reset drops nothing.
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

/// What the server saw of one connection.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// How many bytes were read from the socket.
    pub raw: u64,
    /// The bytes of the request; over TLS decrypted.
    pub plain: Vec<u8>,
    /// How many bytes of the request the kernel had when the server reset the connection without reading them.
    pub unread: usize,
    /// The request, when the script read it whole.
    pub request: Option<Request>,
    /// In how many segments the request had arrived when it was whole.
    pub segments: u32,
    /// The bytes of the answer that were sent whole; over TLS before encryption.
    pub sent: Vec<u8>,
    /// The bytes that [`Step::Records`] or [`Step::Flight`] would have sent unchanged, those of the last such step.
    pub records: Vec<u8>,
    /// Whether the handshake of TLS was done.
    pub handshaken: bool,
    /// The bytes that the socket had given when the client's first flight, and when the handshake, were whole.
    pub flights: Vec<u64>,
    /// Whether the connection has ended.
    pub ended: bool,
    /// What ended the script early, such as a client that left.
    pub note: Option<String>,
    /// What the client must never do.
    pub fault: Option<String>,
}

impl Seen {
    /// How many bytes of the request arrived.
    pub fn request_bytes(&self) -> usize {
        self.plain.len() + self.unread
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
    scripts: VecDeque<Script>,
    numbered: HashMap<String, Script>,
    always: Option<Script>,
    slots: Vec<Slot>,
    ledger: Ledger,
    stopping: bool,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    tls: Option<Arc<ServerConfig>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread of the server panics while it holds the state")
    }

    /// Waits until the state says so; `None` when the patience is over.
    fn wait<T>(&self, mut ready: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        let until = Instant::now() + PATIENCE;
        let mut state = self.lock();
        loop {
            if let Some(value) = ready(&mut state) {
                return Some(value);
            }
            let left = until.checked_duration_since(Instant::now())?;
            state = self.changed.wait_timeout(state, left).expect("as in lock").0;
        }
    }
}

/// A server on loopback, on a port that the system gave.
pub struct Server {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// A server of plain HTTP on 127.0.0.1.
    pub fn plain() -> Server {
        Server::start("127.0.0.1", None)
    }

    /// A server on a loopback address; with `tls` one of HTTPS.
    pub fn start(host: &str, tls: Option<Arc<ServerConfig>>) -> Server {
        let listener = Arc::new(TcpListener::bind((host, 0)).expect("a port"));
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), tls });
        let accepting = std::thread::spawn({
            let (listener, shared) = (Arc::clone(&listener), Arc::clone(&shared));
            move || accept(&listener, &shared)
        });
        let address = listener.local_addr().expect("an address");
        Server { address, listener, shared, accepting: Some(accepting) }
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
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        format!("{scheme}://{host}:{}", self.address.port())
    }

    /// Makes the kernel take no more than about twice so many bytes that the server does not read, on connections
    /// that are still to come.
    pub fn receive_buffer(&self, bytes: usize) {
        SockRef::from(&*self.listener).set_recv_buffer_size(bytes).expect("SO_RCVBUF");
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
        self.shared.lock().slots.len()
    }

    /// What the server made.
    pub fn ledger(&self) -> Ledger {
        self.shared.lock().ledger.clone()
    }

    /// What was seen of the connections from the one with this index on, now.
    pub fn seen(&self, from: usize) -> Vec<Seen> {
        self.shared.lock().slots[from..].iter().map(|slot| slot.seen.clone()).collect()
    }

    /// Waits until there were so many connections.
    pub fn await_connections(&self, count: usize) -> Result<(), String> {
        self.shared
            .wait(|state| (state.slots.len() >= count).then_some(()))
            .ok_or_else(|| format!("{} connections instead of {count}", self.connections()))
    }

    /// Waits until so many connections brought a whole request.
    pub fn await_requests(&self, count: usize) -> Result<(), String> {
        let brought = |state: &State| state.slots.iter().filter(|slot| slot.seen.request.is_some()).count();
        self.shared
            .wait(|state| (brought(state) >= count).then_some(()))
            .ok_or_else(|| format!("{} requests instead of {count}", brought(&self.shared.lock())))
    }

    /// How many bytes the kernel has received on each connection from the one with this index on, read by
    /// the server or not. `None` for those that the server itself has closed.
    pub fn arrived(&self, from: usize) -> Vec<Option<u64>> {
        // The lock keeps the server's threads from reading in between.
        let state = self.shared.lock();
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
        // Wakes the thread in `accept`, which then ends.
        let _ = SockRef::from(&*self.listener).shutdown(Shutdown::Both);
        let accepted = self.accepting.take().expect("taken here only").join();
        let threads = {
            let mut state = self.shared.lock();
            for slot in &state.slots {
                if let Some(socket) = &slot.socket {
                    let _ = socket.shutdown(Shutdown::Both);
                }
            }
            std::mem::take(&mut state.threads)
        };
        let ended = threads.into_iter().map(JoinHandle::join).filter(Result::is_err).count();
        if !std::thread::panicking() {
            assert!(accepted.is_ok() && ended == 0, "a thread of the server panicked");
            for seen in self.seen(0) {
                assert_eq!(seen.fault, None);
            }
            assert!(self.shared.lock().scripts.is_empty(), "a script was left over: a connection was not made");
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        let accepted = listener.accept();
        let mut state = shared.lock();
        if state.stopping {
            return;
        }
        let (socket, _) = accepted.expect("a connection");
        socket.set_nodelay(true).expect("TCP_NODELAY");
        socket.set_write_timeout(Some(PATIENCE)).expect("a time-out");
        let socket = Arc::new(socket);
        let script = state.scripts.pop_front().or_else(|| state.always.clone());
        let fault = script.is_none().then(|| "a connection that the test does not expect".to_owned());
        let seen = Seen { fault, ..Seen::default() };
        let index = state.slots.len();
        state.slots.push(Slot { seen, socket: Some(Arc::clone(&socket)), released: false });
        let tls = shared.tls.as_ref().map(|config| {
            let mut tls = ServerConnection::new(Arc::clone(config)).expect("a TLS connection");
            tls.set_buffer_limit(None);
            tls
        });
        let worker = Worker { shared: Arc::clone(shared), index, socket, tls, holding: false };
        let script = script.unwrap_or_else(|| Script::silent().then(Step::Reset));
        state.threads.push(std::thread::spawn(move || worker.run(script)));
        drop(state);
        shared.changed.notify_all();
    }
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
    shared: Arc<Shared>,
    index: usize,
    socket: Arc<TcpStream>,
    tls: Option<ServerConnection>,
    /// Whether what TLS has to say stays with it for now.
    holding: bool,
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
        } else {
            self.read_on();
        }
        let extra = |seen: &Seen| seen.request.as_ref().map_or(0, |request| seen.plain.len() - request.length);
        let mut state = self.shared.lock();
        let slot = &mut state.slots[self.index];
        if reset && self.tls.is_none() {
            slot.seen.unread = sys::unread(&self.socket);
        }
        if extra(&slot.seen) > 0 {
            slot.seen.fault = Some("bytes after the request".to_owned());
        }
        // The last two owners of the socket: the second drop closes it.
        slot.socket = None;
        drop(self.socket);
        slot.seen.ended = true;
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
            Step::Read(count) => loop {
                let have = self.see(|seen| seen.plain.len());
                if have >= count {
                    return Ok(());
                }
                self.receive_some(count - have)?;
            },
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
            Step::Request => loop {
                match self.see(|seen| Request::parse(&seen.plain)).map_err(Stop::Fault)? {
                    None => self.receive_some(usize::MAX)?,
                    Some(request) => {
                        let segments = sys::data_segments(&self.socket);
                        self.see(|seen| {
                            seen.request = Some(request);
                            seen.segments = segments;
                        });
                        return Ok(());
                    }
                }
            },
            Step::Make => {
                let number = self.out_task_num()?;
                self.shared.lock().ledger.enter(&number);
                Ok(())
            }
            Step::ByNumber => {
                let number = self.out_task_num()?;
                let script = self.shared.lock().numbered.get(&number).cloned();
                let script = script.ok_or_else(|| Stop::Fault(format!("no script for {number}")))?;
                steps.extend(script.0);
                Ok(())
            }
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
            Step::Records(bytes, change) => {
                let tls = self.tls.as_mut().expect("records are of TLS");
                tls.writer().write_all(&bytes)?;
                self.send_changed(change)?;
                if matches!(change, Change::None | Change::Followed(_)) {
                    self.see(|seen| seen.sent.extend_from_slice(&bytes));
                }
                Ok(())
            }
            Step::Flight(change) => {
                self.holding = true;
                while !self.tls.as_ref().expect("a flight is of TLS").wants_write() {
                    self.receive_some(usize::MAX)?;
                }
                self.holding = false;
                self.send_changed(change)
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
                    if Instant::now() > until {
                        return Err(Stop::Left("the client's kernel acknowledges nothing".to_owned()));
                    }
                    std::thread::sleep(Duration::from_micros(20));
                }
                Ok(())
            }
            Step::AwaitRelease => {
                let index = self.index;
                self.shared
                    .wait(|state| (state.slots[index].released || state.stopping).then_some(()))
                    .ok_or_else(|| Stop::Left("the test released nothing".to_owned()))
            }
            Step::CloseNotify => {
                if let Some(tls) = &mut self.tls {
                    tls.send_close_notify();
                }
                self.flush()
            }
            Step::Fin => Ok(self.socket.shutdown(Shutdown::Write)?),
            Step::Reset => unreachable!("the end of every script that has it"),
        }
    }

    fn out_task_num(&self) -> Result<String, Stop> {
        let request = self.see(|seen| seen.request.clone()).expect("a script reads the request first");
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
        self.see(|seen| seen.sent.extend_from_slice(bytes));
        Ok(())
    }

    /// Sends what TLS has to say, changed.
    fn send_changed(&mut self, change: Change) -> Result<(), Stop> {
        let tls = self.tls.as_mut().expect("called with TLS only");
        let mut records = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut records)?;
        }
        self.see(|seen| seen.records.clone_from(&records));
        match change {
            Change::None => {}
            Change::First(count) => records.truncate(count),
            Change::Without(count) => records.truncate(records.len().saturating_sub(count)),
            Change::Followed(others) => records.extend_from_slice(others),
            Change::Flipped(place) => match records.get_mut(place) {
                Some(byte) => *byte ^= 0x80,
                None => return Err(Stop::Fault(format!("there is no byte {place} to change"))),
            },
            Change::Slow(pause) => {
                for byte in records {
                    (&*self.socket).write_all(&[byte])?;
                    std::thread::sleep(pause);
                }
                return Ok(());
            }
        }
        Ok((&*self.socket).write_all(&records)?)
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
                    seen.plain.extend_from_slice(&buffer);
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
                seen.plain.extend_from_slice(&plain);
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
