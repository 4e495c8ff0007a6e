//! The chaos server: what it does to each request is drawn from a seed, the request's number and how often the number
//! has come, so that the same seed draws the same faults whichever thread comes first. What it does to a connection
//! before there is a request is drawn from the connection's place among all. It writes down what a client could know,
//! and when.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::http::{Request, chunks, failure_body, find, head, success, success_body};
use crate::ledger::Ledger;
use crate::server::PATIENCE;
use crate::sys;

/// Numbers that look random and are the same each time.
#[derive(Debug, Clone)]
pub struct Draw(u64);

impl Draw {
    /// The numbers that belong to a seed and a name.
    pub fn new(seed: u64, name: &str) -> Draw {
        let mut draw = Draw(seed);
        for byte in name.bytes() {
            draw.0 ^= u64::from(byte);
            draw.0 = draw.next();
        }
        draw
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).expect("64 bits");
        usize::try_from(self.next() % end).expect("it is below one")
    }

    /// True in so many of 100 cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// A time of less than so many milliseconds.
    pub fn time(&mut self, milliseconds: usize) -> Duration {
        Duration::from_micros(self.below(1000 * milliseconds) as u64)
    }

    /// One of these, by their weights.
    pub fn pick<T: Clone>(&mut self, choices: &[(usize, T)]) -> T {
        let mut left = self.below(choices.iter().map(|(weight, _)| weight).sum());
        for (weight, choice) in choices {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return choice.clone(),
            }
        }
        unreachable!("it is below the sum")
    }
}

/// How much of a request is read, and what is done about it, before anything is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Answered.
    Answer,
    /// Answered by 413 as soon as its number is known, and not read to its end.
    Early,
    /// The connection is reset as soon as the number is known.
    ResetUnread,
    /// The connection is reset when all is read.
    Reset,
    /// No more is read, and nothing said.
    SilentUnread,
    /// All is read, and nothing said.
    Silent,
}

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Made, with a task number.
    Made,
    /// Made, with a warning.
    Warned,
    /// Made, without a task number.
    Numberless,
    /// Status 0.
    Failed,
    /// An HTTP status that is no success.
    Status(u16),
}

/// How it is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// At once.
    Whole,
    /// In pieces.
    Slow,
    /// With a second answer, or the beginning of one, behind it in the same piece.
    Burst,
    /// Not to its end, then FIN.
    CutFin,
    /// Not to its end, then RST.
    CutReset,
    /// Not to its end, then RST when the client's kernel has it.
    CutResetLater,
    /// Not to its end, then nothing.
    CutSilent,
}

/// What happens to the connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It is kept.
    Keep,
    /// FIN at once.
    Fin,
    /// FIN when it has idled for some time.
    FinLater,
    /// RST when the client's kernel has the answer.
    Reset,
    /// RST when it has idled for some time.
    ResetLater,
    /// TLS's close_notify when it has idled for some time, and no FIN.
    NotifyLater,
    /// The answer says `Connection: close`, and FIN follows.
    SaysClose,
    /// The answer says `Keep-Alive: timeout=0`, and FIN follows.
    SaysTimeout0,
    /// The answer says `Keep-Alive: timeout=1`, and FIN follows after a second of idling.
    SaysTimeout1,
    /// A second answer, or the beginning of one, while no call of the client is in flight.
    StaleLater,
}

/// What the server does with one request.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// At first.
    pub act: Act,
    /// Whether the appointment is made.
    pub makes: bool,
    /// What it says then.
    pub meaning: Meaning,
    /// How it says that.
    pub delivery: Delivery,
    /// What comes after that.
    pub after: After,
}

/// What holds for the faults of a call.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Whether the call ends soon by itself, so that the server may be silent.
    pub brief: bool,
    /// Whether the request does not fit into what the kernel takes at once.
    pub long: bool,
    /// Whether a 503 means that nothing was done.
    pub idle_503: bool,
    /// Whether a number is made once, however often it comes.
    pub dedupes: bool,
    /// Tells when no call of the client is in flight.
    pub gate: Arc<Gate>,
}

impl Fault {
    fn draw(draw: &mut Draw, rules: &Rules) -> Fault {
        let silent = if rules.brief { 10 } else { 0 };
        let act = draw.pick(&[
            (180, Act::Answer),
            (if rules.long { 60 } else { 1 }, Act::Early),
            (4, Act::ResetUnread),
            (8, Act::Reset),
            (silent, Act::SilentUnread),
            (2 * silent, Act::Silent),
        ]);
        let mut meaning = draw.pick(&[
            (140, Meaning::Made),
            (4, Meaning::Warned),
            (2, Meaning::Numberless),
            (4, Meaning::Failed),
            (12, Meaning::Status(429)),
            (8, Meaning::Status(503)),
            (6, Meaning::Status(500)),
            (2, Meaning::Status(502)),
            (6, Meaning::Status(400)),
            (6, Meaning::Status(403)),
            (2, Meaning::Status(404)),
            (2, Meaning::Status(408)),
            (2, Meaning::Status(409)),
        ]);
        if act == Act::Early {
            meaning = Meaning::Status(413);
        }
        let makes = match (act, meaning) {
            (Act::Answer, Meaning::Made | Meaning::Warned | Meaning::Numberless) => true,
            (Act::Answer, Meaning::Status(408 | 409 | 500 | 502)) | (Act::Reset | Act::Silent, _) => draw.chance(50),
            (Act::Answer, Meaning::Status(503)) => !rules.idle_503 && draw.chance(50),
            _ => false,
        };
        let delivery = draw.pick(&[
            (80, Delivery::Whole),
            (6, Delivery::Slow),
            (8, Delivery::Burst),
            (3, Delivery::CutFin),
            (3, Delivery::CutReset),
            (3, Delivery::CutResetLater),
            (silent / 2, Delivery::CutSilent),
        ]);
        let after = draw.pick(&[
            (60, After::Keep),
            (5, After::Fin),
            (8, After::FinLater),
            (5, After::Reset),
            (5, After::ResetLater),
            (4, After::NotifyLater),
            (4, After::SaysClose),
            (2, After::SaysTimeout0),
            (2, After::SaysTimeout1),
            (4, After::StaleLater),
        ]);
        Fault { act, makes, meaning, delivery, after }
    }

    /// What can be counted of it.
    pub fn labels(&self) -> Vec<String> {
        let Fault { act, makes, meaning, delivery, after } = self;
        let made = if *makes { ", made" } else { "" };
        match (act, delivery) {
            (Act::Answer, Delivery::Whole | Delivery::Slow) => {
                vec![format!("{meaning:?}{made}"), format!("delivery: {delivery:?}"), format!("after it: {after:?}")]
            }
            (Act::Answer, _) => vec![format!("{meaning:?}{made}"), format!("delivery: {delivery:?}")],
            _ => vec![format!("{act:?}{made}")],
        }
    }
}

/// What becomes of a connection before there is a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    Usual,
    Reset,
    Fin,
    /// Over TLS: nothing is said to the first bytes.
    Silent,
    /// Over TLS: reset when the first bytes have come.
    ResetHandshake,
}

/// Calls of one client: how many are in flight, and whether more may begin.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<Traffic>,
    opened: Condvar,
}

#[derive(Debug, Default)]
struct Traffic {
    inside: usize,
    closed: usize,
}

/// One call that is inside a gate.
pub struct Pass<'a>(&'a Gate);

/// A gate that nobody enters.
struct Closed<'a>(&'a Gate);

impl Gate {
    fn lock(&self) -> MutexGuard<'_, Traffic> {
        self.state.lock().expect("nothing panics under it")
    }

    /// Waits while the gate is closed.
    pub fn enter(&self) -> Pass<'_> {
        let open = self.opened.wait_while(self.lock(), |traffic| traffic.closed > 0);
        open.expect("nothing panics under it").inside += 1;
        Pass(self)
    }

    fn close(&self) -> Closed<'_> {
        self.lock().closed += 1;
        Closed(self)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.lock().inside -= 1;
    }
}

impl Closed<'_> {
    fn is_empty(&self) -> bool {
        self.0.lock().inside == 0
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.lock().closed -= 1;
        self.0.opened.notify_all();
    }
}

/// A request of which a byte at least arrived at the server's kernel.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Its `out_task_num`, unless so little of it arrived that nobody can tell.
    pub number: Option<String>,
    /// When the server saw it first.
    pub at: Instant,
    /// On which connection.
    pub connection: u64,
    /// Whether another request had come over its connection.
    pub kept: bool,
    /// What the server was about to do with it; `None` when it did not come to that.
    pub fault: Option<Fault>,
    /// A digest of its bytes, when it was read whole.
    pub digest: Option<u64>,
    /// Whether a whole head was sent in answer.
    pub head: bool,
    /// Whether a whole answer was sent.
    pub whole: bool,
    /// When the client's kernel was known to have that.
    pub acknowledged: Option<Instant>,
    /// What had become of the connection before, as far as it is worth telling.
    pub because: Option<&'static str>,
    /// When the client's kernel was known to have the end of the connection, or bytes that are no answer, by which the
    /// connection could not be used any more.
    pub closed: Option<Instant>,
    /// What the client must never do.
    pub wrong: Option<String>,
}

/// A time in which a request that the client's kernel took may have been lost unseen: the server reset its connection.
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    /// What had come by then was seen.
    pub from: Instant,
    /// From then on the client's kernel took nothing more.
    pub to: Instant,
    /// When the server took the connection; `None` for those that waited until then.
    pub opened: Option<Instant>,
    /// Whether a request had been answered on it.
    pub kept: bool,
}

/// What the server saw.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// The requests, by the time of their first byte.
    pub arrivals: Vec<Arrival>,
    /// When requests may have been lost.
    pub losses: Vec<Loss>,
    /// What it made.
    pub ledger: Ledger,
    /// How many connections there were.
    pub connections: u64,
    /// How many of them are open.
    pub open: u64,
    /// How many second answers it sent while no call was in flight.
    pub stale: u64,
    /// How often each number came.
    tries: HashMap<String, u32>,
}

type RulesOf = dyn Fn(&str) -> Rules + Send + Sync;

struct Shared {
    seed: u64,
    rules: Box<RulesOf>,
    tls: Option<Arc<ServerConfig>>,
    records: Mutex<Records>,
}

impl Shared {
    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().expect("nothing panics under it")
    }
}

/// A server on loopback, on a port that the system gave.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    running: Mutex<Option<Running>>,
    /// Keeps the port while the server is down.
    _reserved: Socket,
}

/// What there is as long as the server is up. Its threads are told of the end by that of the pipe.
struct Running {
    up: PipeWriter,
    accepting: JoinHandle<()>,
}

fn bound(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.bind(&address.into()).expect("a port");
    socket
}

impl Server {
    /// A server that draws its faults from this seed; `rules` are those of the call with this number.
    pub fn new(
        seed: u64,
        tls: Option<Arc<ServerConfig>>,
        rules: impl Fn(&str) -> Rules + Send + Sync + 'static,
    ) -> Server {
        let reserved = bound(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = reserved.local_addr().expect("an address").as_socket().expect("of the net");
        let shared = Arc::new(Shared { seed, rules: Box::new(rules), tls, records: Mutex::default() });
        let server = Server { address, shared, running: Mutex::default(), _reserved: reserved };
        server.up();
        server
    }

    /// Listens.
    pub fn up(&self) {
        let socket = bound(self.address);
        socket.listen(1024).expect("it listens");
        socket.set_nonblocking(true).expect("O_NONBLOCK");
        let listener = TcpListener::from(socket);
        let (down, up) = io::pipe().expect("a pipe");
        let shared = Arc::clone(&self.shared);
        let accepting = std::thread::spawn(move || accept(listener, &shared, &Arc::new(down)));
        let former = self.running.lock().expect("set and taken only").replace(Running { up, accepting });
        assert!(former.is_none(), "the server is up");
    }

    /// Refuses connections from now on, and resets those that there are.
    pub fn down(&self) {
        let running = self.running.lock().expect("set and taken only").take();
        if let Some(Running { up, accepting }) = running {
            drop(up);
            accepting.join().expect("no thread of the server panics");
        }
    }

    /// The base URL.
    pub fn base_url(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// What it saw by now.
    pub fn records(&self) -> Records {
        self.shared.records().clone()
    }

    /// Waits until no more than so many connections are open, and gives their count.
    pub fn await_open(&self, most: u64) -> Result<u64, String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let open = self.shared.records().open;
            if open <= most {
                return Ok(open);
            }
            if Instant::now() > until {
                return Err(format!("{open} connections of at most {most} are open"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.down();
    }
}

/// Takes connections until the server goes down.
fn accept(listener: TcpListener, shared: &Arc<Shared>, down: &Arc<PipeReader>) {
    let mut lines: Vec<JoinHandle<()>> = Vec::new();
    loop {
        let (_, ends) = wait(listener.as_raw_fd(), down, PATIENCE);
        let from = Instant::now();
        loop {
            match listener.accept() {
                Ok((socket, peer)) => {
                    let connection = {
                        let mut records = shared.records();
                        records.connections += 1;
                        records.open += 1;
                        records.connections
                    };
                    let line = Line::new(Arc::clone(shared), socket, peer, Arc::clone(down), connection);
                    lines.push(std::thread::spawn(move || line.run()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // One that the client has reset before.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => panic!("accept: {error}"),
            }
        }
        if ends {
            drop(listener);
            if shared.tls.is_none() {
                let loss = Loss { from, to: Instant::now(), opened: None, kept: false };
                shared.records().losses.push(loss);
            }
            return join(lines);
        }
        let (ended, running) = lines.into_iter().partition(JoinHandle::is_finished);
        lines = running;
        join(ended);
    }
}

fn join(lines: Vec<JoinHandle<()>>) {
    for line in lines {
        line.join().expect("no thread of the server panics");
    }
}

/// Waits until a socket has something to read, or the server goes down, or the time is over: which of the first two.
fn wait(socket: RawFd, down: &PipeReader, most: Duration) -> (bool, bool) {
    let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut entries = [entry(socket), entry(down.as_raw_fd())];
    let time = libc::timespec {
        tv_sec: most.as_secs().try_into().expect("a short time"),
        tv_nsec: most.subsec_nanos().into(),
    };
    // SAFETY: two entries and a time that live through the call, and no signal mask.
    let count = unsafe { libc::ppoll(entries.as_mut_ptr(), 2, &time, std::ptr::null()) };
    if count < 0 { (false, false) } else { (entries[0].revents != 0, entries[1].revents != 0) }
}

/// Why a connection goes no further.
enum Stop {
    /// The client has closed it.
    Left,
    /// It is to be reset.
    Reset,
    /// The server goes down.
    Down,
}

/// One connection.
struct Line {
    shared: Arc<Shared>,
    socket: TcpStream,
    peer: SocketAddr,
    down: Arc<PipeReader>,
    connection: u64,
    opened: Instant,
    tls: Option<ServerConnection>,
    /// Whether a request can come: over TLS, whether its handshake has been answered.
    open: bool,
    /// The bytes of the request that is being read; over TLS decrypted.
    plain: Vec<u8>,
    /// The place of that request in the records, from its first byte until it is answered.
    arrival: Option<usize>,
    /// The place of the one that was answered last.
    answered: Option<usize>,
    /// Whether the client has been told that the connection ends.
    ended: bool,
    /// Why no further request may come, whenever its call began.
    forbidden: Option<&'static str>,
    /// From when on no call that begins may use the connection.
    closed: Option<Instant>,
}

impl Line {
    fn new(shared: Arc<Shared>, socket: TcpStream, peer: SocketAddr, down: Arc<PipeReader>, connection: u64) -> Line {
        socket.set_nodelay(true).expect("TCP_NODELAY");
        socket.set_write_timeout(Some(PATIENCE)).expect("a time-out");
        let tls = shared.tls.as_ref().map(|config| {
            let mut tls = ServerConnection::new(Arc::clone(config)).expect("a TLS connection");
            tls.set_buffer_limit(None);
            tls
        });
        Line {
            shared,
            socket,
            peer,
            down,
            connection,
            opened: Instant::now(),
            open: tls.is_none(),
            tls,
            plain: Vec::new(),
            arrival: None,
            answered: None,
            ended: false,
            forbidden: None,
            closed: None,
        }
    }

    fn run(mut self) {
        let Err(stop) = self.serve();
        let shared = Arc::clone(&self.shared);
        match stop {
            Stop::Left => self.leave(),
            Stop::Reset => self.reset(),
            Stop::Down => {
                self.see(|arrival| {
                    arrival.because.get_or_insert("the server restarted");
                });
                self.reset();
            }
        }
        shared.records().open -= 1;
    }

    /// Changes the record of the request that is being read or answered, if there is one.
    fn see(&self, change: impl FnOnce(&mut Arrival)) {
        if let Some(index) = self.arrival {
            change(&mut self.shared.records().arrivals[index]);
        }
    }

    fn serve(&mut self) -> Result<std::convert::Infallible, Stop> {
        let mut draw = Draw::new(self.shared.seed, &format!("connection {}", self.connection));
        let only_tls = usize::from(self.tls.is_some());
        let opening = draw.pick(&[
            (200, Opening::Usual),
            (2, Opening::Reset),
            (2, Opening::Fin),
            (3 * only_tls, Opening::Silent),
            (3 * only_tls, Opening::ResetHandshake),
        ]);
        match opening {
            Opening::Usual => {}
            Opening::Reset => return Err(Stop::Reset),
            Opening::Fin => self.finish()?,
            Opening::Silent => loop {
                self.receive()?;
            },
            Opening::ResetHandshake => {
                self.receive()?;
                return Err(Stop::Reset);
            }
        }
        loop {
            self.exchange()?;
        }
    }

    /// One request and what is done about it.
    fn exchange(&mut self) -> Result<(), Stop> {
        let number = loop {
            match number(&self.plain) {
                Some(number) => break number,
                None => self.fill()?,
            }
        };
        if self.ended {
            loop {
                self.fill()?;
            }
        }
        let rules = (self.shared.rules)(&number);
        let tries = {
            let mut records = self.shared.records();
            let tries = records.tries.entry(number.clone()).or_default();
            *tries += 1;
            *tries
        };
        let mut draw = Draw::new(self.shared.seed, &format!("{number} {tries}"));
        let fault = Fault::draw(&mut draw, &rules);
        self.see(|arrival| arrival.fault = Some(fault));
        match fault.act {
            Act::ResetUnread => return Err(Stop::Reset),
            Act::SilentUnread => {
                // Until the call has surely ended. Whether the client closes can be seen by reading only.
                self.pause(BRIEF + Duration::from_millis(100))?;
                return Err(Stop::Reset);
            }
            Act::Early => {
                let (answer, head) = answer(&number, fault, &mut draw);
                self.send(&answer)?;
                self.has_sent(answer.len(), head, answer.len());
                if draw.chance(50) {
                    self.pause(draw.time(20))?;
                }
                self.await_acknowledgement(false)?;
                return Err(Stop::Reset);
            }
            Act::Answer | Act::Reset | Act::Silent => {}
        }
        self.read_whole()?;
        if fault.makes {
            let ledger = &mut self.shared.records().ledger;
            if !rules.dedupes || ledger.made(&number) == 0 {
                ledger.enter(&number);
            }
        }
        match fault.act {
            Act::Reset => Err(Stop::Reset),
            Act::Silent => self.look_on("its last request had no answer"),
            _ => {
                self.answer(&number, fault, &rules, &mut draw)?;
                self.afterwards(&number, fault, &rules, &mut draw)
            }
        }
    }

    /// Reads the rest of the request, strictly.
    fn read_whole(&mut self) -> Result<(), Stop> {
        loop {
            match Request::parse(&self.plain) {
                Ok(None) => self.fill()?,
                Ok(Some(request)) => {
                    let mut hasher = DefaultHasher::new();
                    self.plain[..request.length].hash(&mut hasher);
                    let behind = self.plain.len() - request.length;
                    self.plain.clear();
                    self.see(|arrival| {
                        arrival.digest = Some(hasher.finish());
                        if behind > 0 {
                            arrival.wrong = Some(format!("{behind} bytes behind the request"));
                        }
                    });
                    return Ok(());
                }
                Err(wrong) => {
                    self.see(|arrival| arrival.wrong = Some(wrong));
                    return Err(Stop::Reset);
                }
            }
        }
    }

    /// Says what is to be said.
    fn answer(&mut self, number: &str, fault: Fault, rules: &Rules, draw: &mut Draw) -> Result<(), Stop> {
        let (answer, head) = answer(number, fault, draw);
        let length = answer.len();
        // Less than all of it. The last line of a chunked one tells nothing more.
        let cut = draw.below(length - 2);
        if matches!(fault.after, After::SaysClose | After::SaysTimeout0) {
            self.forbidden = Some("the answer before said that it would not be kept");
        }
        match fault.delivery {
            Delivery::Whole => {
                self.send(&answer)?;
                self.has_sent(length, head, length);
            }
            Delivery::Slow => {
                let piece = 1 + length / (1 + draw.below(5));
                let mut sent = 0;
                for part in answer.chunks(piece) {
                    self.pause(draw.time(40))?;
                    self.send(part)?;
                    sent += part.len();
                    self.has_sent(sent, head, length);
                }
            }
            Delivery::Burst => {
                self.forbidden = Some("a second answer had come with the one before");
                let second = stale(number, draw);
                self.burst(&answer, &second, head, draw)?;
            }
            Delivery::CutFin | Delivery::CutReset | Delivery::CutResetLater | Delivery::CutSilent => {
                self.forbidden = Some("the answer before was not whole");
                match &mut self.tls {
                    Some(tls) if draw.chance(50) => {
                        // Not even its only record is whole.
                        let records = encrypted(tls, &[&answer]);
                        self.send_raw(&records[..draw.below(records.len())])?;
                    }
                    _ => {
                        self.send(&answer[..cut])?;
                        self.has_sent(cut, head, length);
                    }
                }
            }
        }
        // What comes next is another request.
        self.arrival = None;
        // It counts when the client has it where the call may end by itself, or try again.
        let at_once = match fault.delivery {
            Delivery::Whole | Delivery::Slow => fault.after == After::Fin,
            Delivery::Burst | Delivery::CutSilent => false,
            Delivery::CutFin | Delivery::CutReset | Delivery::CutResetLater => true,
        };
        if !at_once && (rules.brief || fault.meaning != Meaning::Made) {
            self.await_acknowledgement(true)?;
        }
        Ok(())
    }

    /// Sends two answers, or one and the beginning of another, in one piece.
    fn burst(&mut self, first: &[u8], second: &[u8], head: usize, draw: &mut Draw) -> Result<(), Stop> {
        let part = if draw.chance(70) { second.len() } else { 1 + draw.below(second.len()) };
        match &mut self.tls {
            Some(tls) => {
                let one_record = draw.chance(30);
                if one_record {
                    let both = [first, &second[..part]].concat();
                    let records = encrypted(tls, &[&both]);
                    self.send_raw(&records)?;
                } else {
                    let mut records = encrypted(tls, &[first]);
                    let behind = encrypted(tls, &[second]);
                    // Less than a record, too.
                    let part = if draw.chance(50) { behind.len() } else { 1 + draw.below(behind.len()) };
                    records.extend_from_slice(&behind[..part]);
                    self.send_raw(&records)?;
                }
            }
            None => self.send_raw(&[first, &second[..part]].concat())?,
        }
        self.has_sent(first.len(), head, first.len());
        Ok(())
    }

    /// What becomes of the connection after what was said.
    fn afterwards(&mut self, number: &str, fault: Fault, rules: &Rules, draw: &mut Draw) -> Result<(), Stop> {
        match fault.delivery {
            Delivery::Whole | Delivery::Slow => {}
            Delivery::Burst => {
                self.idle(draw.time(40))?;
                return self.finish();
            }
            Delivery::CutFin => return self.finish(),
            Delivery::CutReset => return Err(Stop::Reset),
            Delivery::CutResetLater => {
                self.await_acknowledgement(true)?;
                return Err(Stop::Reset);
            }
            Delivery::CutSilent => return self.look_on("the answer before was not whole"),
        }
        match fault.after {
            After::Keep => Ok(()),
            After::Fin => self.finish(),
            After::Reset => {
                self.await_acknowledgement(true)?;
                // The next request may have come with the acknowledgement.
                if self.idle(Duration::ZERO)? { Err(Stop::Reset) } else { Ok(()) }
            }
            After::ResetLater => {
                if self.idle(draw.time(40))? {
                    Err(Stop::Reset)
                } else {
                    Ok(())
                }
            }
            After::FinLater => self.finish_after(draw.time(40)),
            After::SaysClose | After::SaysTimeout0 => self.finish_after(draw.time(4)),
            After::SaysTimeout1 => self.finish_after(Duration::from_secs(1)),
            After::NotifyLater => {
                if !self.idle(draw.time(40))? {
                    return Ok(());
                }
                let Some(tls) = &mut self.tls else { return self.finish() };
                tls.send_close_notify();
                let records = encrypted(tls, &[]);
                self.ended = true;
                self.send_raw(&records)?;
                self.is_closed()
            }
            After::StaleLater => {
                if !self.idle(draw.time(20))? {
                    return Ok(());
                }
                let gate = Arc::clone(&rules.gate);
                let closed = gate.close();
                let until = Instant::now() + Duration::from_millis(60);
                // While a call is in flight nobody could tell whether it was before or after it used the connection.
                while !closed.is_empty() {
                    if Instant::now() > until || !self.idle(Duration::from_micros(500))? {
                        return Ok(());
                    }
                }
                if !self.idle(Duration::ZERO)? {
                    return Ok(());
                }
                let second = stale(number, draw);
                let part = if draw.chance(70) { second.len() } else { 1 + draw.below(second.len()) };
                self.send(&second[..part])?;
                self.shared.records().stale += 1;
                self.is_closed()
            }
        }
    }

    /// Ends the connection by FIN when it has idled for so long.
    fn finish_after(&mut self, time: Duration) -> Result<(), Stop> {
        if self.idle(time)? { self.finish() } else { Ok(()) }
    }

    /// Ends the connection by FIN, over TLS with a close_notify in half of the cases.
    fn finish(&mut self) -> Result<(), Stop> {
        self.ended = true;
        if self.connection.is_multiple_of(2)
            && let Some(tls) = self.tls.as_mut().filter(|tls| !tls.is_handshaking())
        {
            tls.send_close_notify();
            let records = encrypted(tls, &[]);
            self.send_raw(&records)?;
        }
        self.socket.shutdown(Shutdown::Write).map_err(|_| Stop::Left)?;
        self.is_closed()
    }

    /// Takes down when the client's kernel has what makes the connection useless.
    fn is_closed(&mut self) -> Result<(), Stop> {
        self.await_acknowledgement(true)?;
        self.closed = Some(Instant::now());
        Ok(())
    }

    /// Reads until the client closes, and says nothing; what still comes must not come.
    fn look_on(&mut self, forbidden: &'static str) -> Result<(), Stop> {
        let arrival = self.arrival.take();
        self.forbidden = Some(forbidden);
        loop {
            let filled = self.fill();
            if self.arrival.is_none() {
                self.arrival = arrival.filter(|_| filled.is_err());
            }
            filled?;
        }
    }

    /// Waits for so long unless something comes: whether nothing did.
    fn idle(&self, time: Duration) -> Result<bool, Stop> {
        if self.arrival.is_some() {
            return Ok(false);
        }
        match wait(self.socket.as_raw_fd(), &self.down, time) {
            (_, true) => Err(Stop::Down),
            (readable, _) => Ok(!readable),
        }
    }

    /// Waits for so long whatever comes.
    fn pause(&self, time: Duration) -> Result<(), Stop> {
        match wait(-1, &self.down, time) {
            (_, true) => Err(Stop::Down),
            _ => Ok(()),
        }
    }

    /// Waits until the client's kernel has acknowledged everything, an end too; with `reads` what comes meanwhile is read.
    fn await_acknowledgement(&mut self, reads: bool) -> Result<(), Stop> {
        let mut buffer = vec![0; 64 * 1024];
        // Nothing wakes anybody when an acknowledgement comes, so this asks again and again.
        while sys::unacknowledged(&self.socket) > 0 {
            let read = if reads { sys::receive_now(&self.socket, &mut buffer) } else { Ok(None) };
            match read {
                // What was sent to a client that has reset the connection is never acknowledged.
                Ok(Some(0)) | Err(_) => return Err(Stop::Left),
                Ok(None) if self.socket.peer_addr().is_err() => return Err(Stop::Left),
                Ok(None) => self.pause(Duration::from_micros(200))?,
                Ok(Some(count)) => self.take(&buffer[..count]),
            }
        }
        if let Some(index) = self.answered {
            self.shared.records().arrivals[index].acknowledged.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// Notes how much of an answer was sent.
    fn has_sent(&mut self, sent: usize, head: usize, length: usize) {
        self.answered = self.arrival;
        self.see(|arrival| {
            arrival.head = sent >= head;
            arrival.whole = sent == length;
        });
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        match &mut self.tls {
            None => self.send_raw(bytes),
            Some(tls) => {
                let records = encrypted(tls, &[bytes]);
                self.send_raw(&records)
            }
        }
    }

    /// Sends bytes past TLS, in one piece.
    fn send_raw(&self, bytes: &[u8]) -> Result<(), Stop> {
        (&self.socket).write_all(bytes).map_err(|_| Stop::Left)
    }

    /// Waits for bytes of a request.
    fn fill(&mut self) -> Result<(), Stop> {
        let before = self.plain.len();
        while self.plain.len() == before {
            let bytes = self.receive()?;
            self.take(&bytes);
            if let Some(tls) = &mut self.tls {
                let records = encrypted(tls, &[]);
                self.open |= !records.is_empty();
                self.send_raw(&records)?;
            }
        }
        Ok(())
    }

    /// Waits for bytes and reads them.
    fn receive(&self) -> Result<Vec<u8>, Stop> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            if wait(self.socket.as_raw_fd(), &self.down, PATIENCE).1 {
                return Err(Stop::Down);
            }
            match sys::receive_now(&self.socket, &mut buffer) {
                Ok(None) => {}
                Ok(Some(0)) | Err(_) => return Err(Stop::Left),
                Ok(Some(count)) => {
                    buffer.truncate(count);
                    return Ok(buffer);
                }
            }
        }
    }

    /// Takes what the socket gave, and notes the first bytes of a request.
    fn take(&mut self, mut bytes: &[u8]) {
        match &mut self.tls {
            None => self.plain.extend_from_slice(bytes),
            Some(tls) => {
                while !bytes.is_empty() {
                    if tls.read_tls(&mut bytes).is_err() || tls.process_new_packets().is_err() {
                        break;
                    }
                    // There is always an error behind what there is: nothing more for now.
                    let _ = tls.reader().read_to_end(&mut self.plain);
                }
            }
        }
        if self.plain.is_empty() {
            return;
        }
        let number = number(&self.plain);
        let mut records = self.shared.records();
        let index = *self.arrival.get_or_insert_with(|| {
            records.arrivals.push(Arrival {
                number: None,
                at: Instant::now(),
                connection: self.connection,
                kept: self.answered.is_some(),
                fault: None,
                digest: None,
                head: false,
                whole: false,
                acknowledged: None,
                because: self.ended.then_some("the server had just ended the connection"),
                closed: self.closed,
                wrong: self.forbidden.map(|why| format!("its connection was used again, though {why}")),
            });
            records.arrivals.len() - 1
        });
        records.arrivals[index].number = number;
    }

    /// Takes what the client had sent before it closed.
    fn leave(mut self) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(Some(count @ 1..)) = sys::receive_now(&self.socket, &mut buffer) {
            self.take(&buffer[..count]);
        }
    }

    /// Resets the connection, after a look at what the kernel has and nobody has read.
    fn reset(mut self) {
        let from = Instant::now();
        // It may be that nothing can be read any more, since the client has reset the connection.
        let bytes = sys::peek(&self.socket, sys::unread(&self.socket)).unwrap_or_default();
        let known = self.arrival;
        self.take(&bytes);
        if self.arrival != known {
            self.see(|arrival| arrival.because = Some("the server reset the connection before it read anything"));
        }
        let address = self.socket.local_addr().expect("an address");
        SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
        let loss = Loss { from, to: from, opened: Some(self.opened), kept: self.answered.is_some() };
        let (shared, open, peer) = (Arc::clone(&self.shared), self.open, self.peer);
        drop(self);
        if open {
            while is_connected(peer, address) {
                std::thread::yield_now();
            }
            shared.records().losses.push(Loss { to: Instant::now(), ..loss });
        }
    }
}

/// Whether this process has a socket with the first address that is connected to the second one.
fn is_connected(from: SocketAddr, to: SocketAddr) -> bool {
    let folder = std::fs::read_dir("/proc/self/fd").expect("Linux tells");
    let numbers = folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok());
    numbers.into_iter().any(|number| {
        // SAFETY: it is asked for its addresses only, whatever it is by now, and nothing more than an error comes when it
        // is closed.
        let socket = unsafe { BorrowedFd::borrow_raw(number) };
        let is = |address: io::Result<SockAddr>, one| address.is_ok_and(|address| address.as_socket() == Some(one));
        let socket = SockRef::from(&socket);
        // A socket whose connection was reset has no peer any more.
        is(socket.peer_addr(), to) && is(socket.local_addr(), from)
    })
}

/// The longest time that a brief call may take.
pub const BRIEF: Duration = Duration::from_millis(400);

/// The records of these texts, one for each, behind what TLS has to say besides.
fn encrypted(tls: &mut ServerConnection, texts: &[&[u8]]) -> Vec<u8> {
    let mut records = Vec::new();
    for text in texts {
        tls.writer().write_all(text).expect("the buffer has no limit");
    }
    while tls.wants_write() {
        tls.write_tls(&mut records).expect("memory takes all");
    }
    records
}

/// The `out_task_num` in what there is of a request.
fn number(plain: &[u8]) -> Option<String> {
    const KEY: &[u8] = b"\"out_task_num\":\"";
    let start = find(plain, KEY)? + KEY.len();
    let length = plain[start..].iter().position(|byte| *byte == b'"')?;
    Some(String::from_utf8_lossy(&plain[start..start + length]).into_owned())
}

/// What the server says besides the meaning of an answer.
pub fn words(number: &str) -> String {
    format!("no more of {number}")
}

/// A whole answer, and how long its head is.
fn answer(number: &str, fault: Fault, draw: &mut Draw) -> (Vec<u8>, usize) {
    let (status, mut body) = match fault.meaning {
        Meaning::Made => (200, success_body(number)),
        Meaning::Warned => (200, success_body(number).replace("\"status\":1", "\"status\":2")),
        Meaning::Numberless => (200, format!("{{\"status\":1,\"message\":\"{}\",\"info\":{{}}}}", words(number))),
        Meaning::Failed => (200, failure_body(&words(number))),
        Meaning::Status(status) => (status, failure_body(&words(number))),
    };
    if draw.chance(20) {
        body.push_str(&" ".repeat(draw.below(10_000)));
    }
    let mut headers = vec!["Content-Type: application/json".to_owned()];
    if matches!(status, 429 | 503) && draw.chance(50) {
        headers.push("Retry-After: 0".to_owned());
    }
    match fault.after {
        After::SaysClose => headers.push("Connection: close".to_owned()),
        After::SaysTimeout0 => headers.push("Keep-Alive: timeout=0".to_owned()),
        After::SaysTimeout1 => headers.push("Keep-Alive: timeout=1".to_owned()),
        _ => {}
    }
    let body = if draw.chance(30) {
        headers.push("Transfer-Encoding: chunked".to_owned());
        chunks(body.as_bytes(), 1 + draw.below(body.len()), "", "")
    } else {
        headers.push(format!("Content-Length: {}", body.len()));
        body.into_bytes()
    };
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    let mut whole = head(&format!("{status} Status"), &headers);
    let length = whole.len();
    whole.extend(body);
    (whole, length)
}

/// An answer that belongs to no request.
fn stale(number: &str, draw: &mut Draw) -> Vec<u8> {
    let refused = |status: &str| {
        let body = failure_body(&words(number));
        [head(status, &[&format!("Content-Length: {}", body.len())]), body.into()].concat()
    };
    match draw.below(3) {
        0 => success(number),
        1 => refused("403 Status"),
        _ => refused("429 Status"),
    }
}
