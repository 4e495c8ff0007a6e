//! A scripted HTTP proxy: raw sockets, one script a connection. It keeps every byte that clients sent it.
//!
//! As the fault server it goes on reading when a script is over, until the client closes, so that whatever still
//! arrives is seen.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use socket2::{SockRef, Socket};

use crate::http::find;
use crate::server::{PATIENCE, bound};
use crate::sys;
use crate::watched::Watched;

/// The head that opens a tunnel.
pub const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// What the proxy does next.
#[derive(Debug, Clone)]
pub enum Step {
    /// Reads the whole head of a CONNECT, strictly.
    Head,
    /// Reads until so many bytes have come since the beginning, or since the head of CONNECT.
    Read(usize),
    /// Sends bytes.
    Send(Vec<u8>),
    /// Sends bytes in pieces of a size, with a pause after each.
    Pieces(Vec<u8>, usize, Duration),
    /// Sends bytes again and again, without a pause, until the client leaves.
    Flood(Vec<u8>),
    /// Connects to the server, whatever was asked for, and passes bytes on until both sides have ended.
    Tunnel,
    /// Waits, without reading, until the test calls [`Proxy::release`].
    AwaitRelease,
    /// Sends FIN.
    Fin,
    /// Sends RST, after the client's kernel has what was sent.
    Reset,
}

/// The steps of one connection.
#[derive(Debug, Clone, Default)]
pub struct Script(Vec<Step>);

impl Script {
    /// Nothing: the proxy accepts and is silent.
    pub fn silent() -> Script {
        Script::default()
    }

    /// Reads the head of a CONNECT.
    pub fn head() -> Script {
        Script::silent().then(Step::Head)
    }

    /// Reads the head of a CONNECT and opens the tunnel by the usual answer.
    pub fn established() -> Script {
        Script::head().send(ESTABLISHED)
    }

    /// What a proxy is there for.
    pub fn tunnel() -> Script {
        Script::established().then(Step::Tunnel)
    }

    /// One more step.
    pub fn then(mut self, step: Step) -> Script {
        self.0.push(step);
        self
    }

    /// Sends bytes.
    pub fn send(self, bytes: impl Into<Vec<u8>>) -> Script {
        self.then(Step::Send(bytes.into()))
    }

    /// Ends the connection by FIN.
    pub fn fin(self) -> Script {
        self.then(Step::Fin)
    }

    /// Ends the connection by RST.
    pub fn reset(self) -> Script {
        self.then(Step::Reset)
    }
}

/// The head of a CONNECT as it stood on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// The first line, without its line end.
    pub line: String,
    /// The headers in order, names as they were written.
    pub headers: Vec<(String, String)>,
}

impl Connect {
    /// The head at the start of `raw` with its length; `None` when it is not whole yet, and what is wrong with it
    /// otherwise.
    fn parse(raw: &[u8]) -> Result<Option<(Connect, usize)>, String> {
        let Some(end) = find(raw, b"\r\n\r\n") else { return Ok(None) };
        let head = std::str::from_utf8(&raw[..end]).map_err(|_| "the head is not UTF-8".to_owned())?;
        if head.replace("\r\n", "").contains(char::is_control) {
            return Err(format!("a control character in {head:?}"));
        }
        let mut lines = head.split("\r\n");
        let line = lines.next().expect("split gives one part at least").to_owned();
        let headers = lines.map(|header| {
            let (name, value) = header.split_once(": ").ok_or_else(|| format!("not a header: {header:?}"))?;
            if name.is_empty() || name.contains(' ') || value.trim() != value {
                return Err(format!("not a header: {header:?}"));
            }
            Ok((name.to_owned(), value.to_owned()))
        });
        let connect = Connect { headers: headers.collect::<Result<_, _>>()?, line };
        match connect.line.split(' ').collect::<Vec<_>>().as_slice() {
            ["CONNECT", target, "HTTP/1.1"] if target.contains(':') => Ok(Some((connect, end + 4))),
            _ => Err(format!("not a CONNECT: {:?}", connect.line)),
        }
    }

    /// The host and port that were asked for.
    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).expect("the line was parsed")
    }

    /// The value of a header, which must not stand there more than once.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let all: Vec<_> = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).collect();
        assert!(all.len() <= 1, "{name} stands in the head more than once: {all:?}");
        all.first().map(|(_, value)| &**value)
    }

    /// User and password, as `user:password`, of a Basic `Proxy-Authorization`.
    #[track_caller]
    pub fn credentials(&self) -> Option<String> {
        let value = self.header("Proxy-Authorization")?;
        let basic = value.strip_prefix("Basic ").unwrap_or_else(|| panic!("not Basic: {value}"));
        Some(String::from_utf8(STANDARD.decode(basic).expect("base64")).expect("UTF-8"))
    }
}

/// What the proxy saw of one connection.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Every byte of the client.
    pub bytes: Vec<u8>,
    /// The CONNECT, when the script read its head whole.
    pub connect: Option<Connect>,
    /// How many bytes its head has.
    pub head: usize,
    /// Whether the script is over: the proxy does nothing more but read.
    pub over: bool,
    /// Whether the connection has ended.
    pub ended: bool,
    /// Whether the end of what the server sent has been passed on.
    pub server_ended: bool,
    /// What ended the script early, such as a client that left.
    pub note: Option<String>,
    /// What the client must never do.
    pub fault: Option<String>,
}

impl Seen {
    /// What came behind the head of CONNECT, or all when there is none.
    pub fn behind(&self) -> &[u8] {
        &self.bytes[self.head..]
    }

    /// The CONNECT, which must have come.
    #[track_caller]
    pub fn connect(&self) -> &Connect {
        self.connect.as_ref().unwrap_or_else(|| panic!("no CONNECT: {self:?}"))
    }
}

struct Slot {
    seen: Seen,
    /// The sockets of the client, and of the server once there is one, as long as they are open.
    sockets: Vec<Arc<TcpStream>>,
    released: bool,
}

struct State {
    scripts: VecDeque<Script>,
    always: Script,
    /// Where tunnels lead.
    server: SocketAddr,
    slots: Vec<Slot>,
    stopping: bool,
    threads: Vec<JoinHandle<()>>,
}

/// A proxy on loopback, on a port that the system gave. A connection without a script of its own is given a tunnel.
pub struct Proxy {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    shared: Arc<Watched<State>>,
    accepting: Mutex<Option<JoinHandle<()>>>,
    /// Keeps the port while the proxy is down.
    _reserved: Socket,
}

impl Proxy {
    /// A proxy on 127.0.0.1 whose tunnels all lead to this address, whatever host was asked for.
    pub fn to(address: SocketAddr) -> Proxy {
        Proxy::start("127.0.0.1", address)
    }

    /// The same on another loopback address.
    pub fn start(host: &str, server: SocketAddr) -> Proxy {
        let host: IpAddr = host.parse().expect("an address");
        let reserved = bound(SocketAddr::new(host, 0));
        let address = reserved.local_addr().expect("an address").as_socket().expect("of the net");
        let socket = bound(address);
        socket.listen(1024).expect("it listens");
        let listener = Arc::new(TcpListener::from(socket));
        let state = State {
            scripts: VecDeque::new(),
            always: Script::tunnel(),
            server,
            slots: Vec::new(),
            stopping: false,
            threads: Vec::new(),
        };
        let shared = Arc::new(Watched::new(state));
        let accepting = std::thread::spawn({
            let (listener, shared) = (Arc::clone(&listener), Arc::clone(&shared));
            move || accept(&listener, &shared)
        });
        Proxy { address, listener, shared, accepting: Mutex::new(Some(accepting)), _reserved: reserved }
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The value of the key `proxy`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The same with a user and a password, percent-encoded as they must stand there.
    pub fn url_with(&self, credentials: &str) -> String {
        format!("http://{credentials}@{}", self.address)
    }

    /// Sets the script of the next connection.
    pub fn next(&self, script: Script) {
        self.shared.lock().scripts.push_back(script);
    }

    /// Sets the script of every connection that has none of its own.
    pub fn always(&self, script: Script) {
        self.shared.lock().always = script;
    }

    /// How many connections there were by now.
    pub fn connections(&self) -> usize {
        self.shared.lock().slots.len()
    }

    /// What was seen of the connections by now.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.lock().slots.iter().map(|slot| slot.seen.clone()).collect()
    }

    /// Waits until there were so many connections.
    pub fn await_connections(&self, count: usize) -> Result<(), String> {
        self.shared
            .wait(|state| (state.slots.len() >= count).then_some(()))
            .ok_or_else(|| format!("{} connections instead of {count}", self.connections()))
    }

    /// Waits until the server behind the connection with this index has ended it, and the client has been told so.
    pub fn await_server_ended(&self, index: usize) -> Result<(), String> {
        self.shared
            .wait(|state| state.slots.get(index).is_some_and(|slot| slot.seen.server_ended).then_some(()))
            .ok_or_else(|| format!("the server has not ended connection {index}"))
    }

    /// Lets the scripts of all connections that there are go past [`Step::AwaitRelease`].
    pub fn release(&self) {
        self.shared.lock().slots.iter_mut().for_each(|slot| slot.released = true);
        self.shared.changed.notify_all();
    }

    /// Waits until every connection has ended, and tells what was seen of them.
    pub fn settle(&self) -> Result<Vec<Seen>, String> {
        self.shared
            .wait(|state| state.slots.iter().all(|slot| slot.seen.ended).then_some(()))
            .ok_or("a connection with the proxy is still open")?;
        Ok(self.seen())
    }

    /// Ends as a process that is killed: refuses connections from now on, and ends those that there are, on both
    /// sides. Tells what was seen of them.
    pub fn down(&self) -> Vec<Seen> {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        let accepting = self.accepting.lock().expect("taken only").take();
        if let Some(accepting) = accepting {
            // Wakes the thread that waits for connections, which then ends.
            SockRef::from(&*self.listener).shutdown(Shutdown::Both).expect("it listens");
            accepting.join().expect("accepting does not panic");
        }
        for socket in self.shared.lock().slots.iter().flat_map(|slot| &slot.sockets) {
            // The other side may have reset it.
            let _ = socket.shutdown(Shutdown::Both);
        }
        let threads = std::mem::take(&mut self.shared.lock().threads);
        let panicked = threads.into_iter().map(JoinHandle::join).filter(Result::is_err).count();
        assert!(std::thread::panicking() || panicked == 0, "a thread of the proxy panicked");
        self.seen()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let seen = self.down();
        if !std::thread::panicking() {
            for seen in seen {
                assert_eq!(seen.fault, None, "what the client sent to the proxy");
            }
            assert!(self.shared.lock().scripts.is_empty(), "a script was left over: a connection was not made");
        }
    }
}

/// Takes connections until the proxy goes down.
fn accept(listener: &TcpListener, shared: &Arc<Watched<State>>) {
    while let Ok((socket, _)) = listener.accept() {
        prepare(&socket);
        let socket = Arc::new(socket);
        let mut state = shared.lock();
        if state.stopping {
            return;
        }
        let script = state.scripts.pop_front().unwrap_or_else(|| state.always.clone());
        let index = state.slots.len();
        let sockets = vec![Arc::clone(&socket)];
        state.slots.push(Slot { seen: Seen::default(), sockets, released: false });
        let worker = Worker { shared: Arc::clone(shared), index, socket };
        state.threads.push(std::thread::spawn(move || worker.run(script)));
        shared.changed.notify_all();
    }
}

fn prepare(socket: &TcpStream) {
    socket.set_nodelay(true).expect("TCP_NODELAY");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    socket.set_write_timeout(Some(PATIENCE)).expect("a time-out");
}

/// Why a script goes no further.
enum Stop {
    /// The client, the server or the test has left.
    Left(String),
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
}

impl Worker {
    fn run(self, script: Script) {
        for step in script.0 {
            match self.step(step) {
                Ok(()) => {}
                Err(Stop::Left(note)) => {
                    self.see(|seen| seen.note = Some(note));
                    break;
                }
                Err(Stop::Fault(fault)) => {
                    self.see(|seen| seen.fault = Some(fault));
                    break;
                }
            }
        }
        self.see(|seen| seen.over = true);
        while self.receive().is_ok_and(|count| count > 0) {}
        let mut state = self.shared.lock();
        let slot = &mut state.slots[self.index];
        // The last owners of the sockets: these drops close them.
        slot.sockets.clear();
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

    fn step(&self, step: Step) -> Result<(), Stop> {
        match step {
            Step::Head => loop {
                let parsed = self.see(|seen| Connect::parse(&seen.bytes)).map_err(Stop::Fault)?;
                let Some((connect, head)) = parsed else {
                    self.receive_some()?;
                    continue;
                };
                let behind = self.see(|seen| {
                    (seen.connect, seen.head) = (Some(connect), head);
                    seen.behind().len()
                });
                return match behind {
                    0 => Ok(()),
                    _ => Err(Stop::Fault(format!("{behind} bytes before the answer to CONNECT"))),
                };
            },
            Step::Read(count) => {
                while self.see(|seen| seen.behind().len()) < count {
                    self.receive_some()?;
                }
                Ok(())
            }
            Step::Send(bytes) => Ok((&*self.socket).write_all(&bytes)?),
            Step::Pieces(bytes, size, pause) => {
                for piece in bytes.chunks(size) {
                    (&*self.socket).write_all(piece)?;
                    std::thread::sleep(pause);
                }
                Ok(())
            }
            Step::Flood(bytes) => loop {
                (&*self.socket).write_all(&bytes)?;
            },
            Step::Tunnel => self.tunnel(),
            Step::AwaitRelease => self
                .shared
                .wait(|state| (state.slots[self.index].released || state.stopping).then_some(()))
                .ok_or_else(|| Stop::Left("the test released nothing".to_owned())),
            Step::Fin => Ok(self.socket.shutdown(Shutdown::Write)?),
            Step::Reset => {
                let until = Instant::now() + PATIENCE;
                // Nothing wakes anybody when an acknowledgement comes, so this asks again and again.
                while sys::unacknowledged(&self.socket) > 0 && !sys::is_reset(&*self.socket) {
                    if Instant::now() > until {
                        return Err(Stop::Left("the client's kernel acknowledges nothing".to_owned()));
                    }
                    std::thread::sleep(Duration::from_micros(20));
                }
                abort(&self.socket);
                Ok(())
            }
        }
    }

    /// Connects to the server and passes bytes on, ends and resets too, until both sides have ended.
    fn tunnel(&self) -> Result<(), Stop> {
        let address = self.shared.lock().server;
        let server = match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(server) => Arc::new(server),
            Err(error) => {
                abort(&self.socket);
                return Err(error.into());
            }
        };
        prepare(&server);
        let stopping = {
            let mut state = self.shared.lock();
            state.slots[self.index].sockets.push(Arc::clone(&server));
            state.stopping
        };
        if stopping {
            return Err(Stop::Left("the proxy goes down".to_owned()));
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                pass(&server, &self.socket, || {
                    let mut buffer = vec![0; 16 * 1024];
                    let count = (&*server).read(&mut buffer)?;
                    buffer.truncate(count);
                    Ok(buffer)
                });
                self.see(|seen| seen.server_ended = true);
            });
            pass(&self.socket, &server, || self.take());
        });
        Ok(())
    }

    fn receive_some(&self) -> Result<(), Stop> {
        match self.receive()? {
            0 => Err(Stop::Left("the client closed".to_owned())),
            _ => Ok(()),
        }
    }

    fn receive(&self) -> io::Result<usize> {
        Ok(self.take()?.len())
    }

    /// Takes bytes of the client, none at the end, and keeps a copy.
    fn take(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; 16 * 1024];
        let count = (&*self.socket).read(&mut buffer)?;
        buffer.truncate(count);
        self.see(|seen| seen.bytes.extend_from_slice(&buffer));
        Ok(buffer)
    }
}

/// Lets the socket end by RST when it is closed, and whoever reads from it go on.
fn abort(socket: &TcpStream) {
    SockRef::from(socket).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    // The other side may have reset it.
    let _ = socket.shutdown(Shutdown::Read);
}

/// Passes bytes on in one direction until their end.
fn pass(from: &TcpStream, to: &TcpStream, mut take: impl FnMut() -> io::Result<Vec<u8>>) {
    loop {
        match take().and_then(|bytes| (&mut &*to).write_all(&bytes).map(|()| bytes.len())) {
            Ok(0) => {
                // The other side may have reset it.
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            Ok(_) => {}
            Err(_) => {
                abort(from);
                abort(to);
                return;
            }
        }
    }
}
