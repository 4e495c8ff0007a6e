//! Calls that end at their deadline, or are cancelled, made and measured by the host `tests/c/deadline.c`: a process of
//! its own, so that its threads can be counted and its resolver replaced.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::api::{CANCELLED, NOT_CREATED, Reply, TIMEOUT};
use crate::expected::{CANCELLED_NOT_CREATED, CANCELLED_UNKNOWN, Expected, TIMEOUT_NOT_CREATED, TIMEOUT_UNKNOWN};
use crate::http::Said;
use crate::ledger::{Ledger, truth};
use crate::server::{Exchange, Script, Server};
use crate::stage::{Table, config_tls, with};
use crate::tls::{Authority, Identity, Version};
use crate::tools::{Host, Preload, Running};

/// How far the median of calls may be from their deadline.
const MEDIAN: Duration = Duration::from_millis(100);
/// How far the median of calls may be from the instant at which they are cancelled.
const MEDIAN_OF_CANCELS: Duration = Duration::from_millis(250);
/// How much later than a thread that slept to the same instant any call may return.
const BEYOND_CONTROL: Duration = Duration::from_secs(1);

/// So much later it is looked for what followed a call.
const LATER: Duration = Duration::from_secs(2);

/// The calls that a host makes at its start.
#[derive(Debug, Clone)]
pub struct Round {
    /// The deadline that the configurations set.
    pub deadline: Duration,
    /// How many threads call at once.
    pub threads: usize,
    /// How many calls each of them makes.
    pub calls: usize,
    /// How many bytes of remark a task has.
    pub remark: usize,
    /// Whether SIGALRM is sent to the host all the time.
    pub signals: bool,
    /// Whether the calls are cancelled, instead of a deadline of their own.
    pub cancel: Option<Cancel>,
    /// Whether each thread first makes an appointment that is none of these calls.
    pub first: bool,
    /// Further keys of the configurations.
    pub keys: Value,
}

/// How the host cancels its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    /// Each thread has a client of its own, all whose calls are cancelled.
    Client,
    /// All threads have one client, whose calls are cancelled by their ids.
    Call,
}

impl Round {
    /// Twenty calls at once.
    pub fn of_twenty(deadline: Duration) -> Round {
        let (threads, calls, remark, signals) = (20, 1, 0, false);
        Round { deadline, threads, calls, remark, signals, cancel: None, first: false, keys: json!({}) }
    }

    /// What ends a call of this phase.
    fn end(&self, phase: Phase) -> String {
        self.cancel.map_or_else(|| phase.limit.to_owned(), |cancel| format!("cancelled by {cancel:?}"))
    }

    /// A configuration for each client that this takes.
    pub fn configs(&self, config: Value) -> Vec<Value> {
        vec![config; if self.cancel == Some(Cancel::Client) { self.threads } else { 1 }]
    }
}

/// A call that a host made.
#[derive(Debug)]
pub struct Ended {
    /// How long after the deadline it returned, or, of a single call, how long it took; nanoseconds.
    pub late: i64,
    /// How long after the sleeping thread it returned, in nanoseconds.
    pub beyond: i64,
    /// What it returned; a success without its text.
    pub reply: Reply,
}

/// The built host, and perhaps the resolver that is preloaded.
pub struct Launcher {
    host: Host,
    preload: Option<Preload>,
}

impl Launcher {
    /// Builds the host, which uses the system's resolver.
    #[track_caller]
    pub fn new() -> Launcher {
        Launcher { host: Host::new("deadline"), preload: None }
    }

    /// Builds the host and the resolver that does what a name says, see `tests/c/resolver.c`.
    #[track_caller]
    pub fn with_resolver() -> Launcher {
        Launcher { host: Host::new("deadline"), preload: Some(Preload::new("resolver")) }
    }

    /// Starts a host, and waits until its calls have ended.
    pub fn run(&self, round: Round, configs: &[Value]) -> Caller {
        let mut command = self.host.command();
        command.arg(round.deadline.as_millis().to_string());
        let cancel = match round.cancel {
            None => 0,
            Some(Cancel::Client) => 1,
            Some(Cancel::Call) => 2,
        };
        let (signals, first) = (usize::from(round.signals), usize::from(round.first));
        let numbers = [round.threads, round.calls, round.remark, signals, cancel, first];
        command.args(numbers.map(|one| one.to_string()));
        command.args(configs.iter().map(Value::to_string));
        if let Some(library) = &self.preload {
            command.env("LD_PRELOAD", library.path());
        }
        Caller::of(command.stdin(Stdio::piped()).stdout(Stdio::piped()), round)
    }

    /// Starts a host that makes no call by itself.
    pub fn idle(&self) -> Caller {
        self.run(Round { threads: 0, ..Round::of_twenty(Duration::ZERO) }, &[])
    }
}

impl Default for Launcher {
    fn default() -> Launcher {
        Launcher::new()
    }
}

/// A host whose first calls have ended.
pub struct Caller {
    process: Running,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    round: Round,
    /// How many threads that are not the host's there were at most while the calls ran.
    pub most_threads: usize,
    /// How many of them there were after the calls.
    pub threads_after: usize,
    /// How often SIGALRM was delivered to one of them.
    pub strange_signals: usize,
    /// Whether SIGALRM waits for a thread that takes it.
    pub signal_pending: bool,
    /// The calls.
    pub calls: Vec<Ended>,
}

impl Caller {
    /// Waits until the first calls of a host have ended.
    fn of(command: &mut Command, round: Round) -> Caller {
        let mut process = Running(command.spawn().expect("the host starts"));
        let input = process.0.stdin.take().expect("a pipe");
        let output = BufReader::new(process.0.stdout.take().expect("a pipe"));
        let mut caller = Caller {
            process,
            input,
            output,
            round,
            most_threads: 0,
            threads_after: 0,
            strange_signals: 0,
            signal_pending: false,
            calls: Vec::new(),
        };
        [caller.most_threads, caller.threads_after] = caller.two_numbers("threads ");
        let [strange, pending] = caller.two_numbers("signals ");
        (caller.strange_signals, caller.signal_pending) = (strange, pending == 1);
        for _ in 0..caller.round.threads * caller.round.calls {
            let ended = caller.read_call();
            caller.calls.push(ended);
        }
        assert_eq!(caller.line(), "done");
        caller
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the host writes text");
        assert!(line.ends_with('\n'), "the host has failed: {line:?}");
        line.pop();
        line
    }

    fn two_numbers(&mut self, word: &str) -> [usize; 2] {
        let line = self.line();
        let numbers = line.strip_prefix(word).and_then(|rest| rest.split_once(' '));
        let (first, second) = numbers.unwrap_or_else(|| panic!("not of {word}: {line}"));
        [first, second].map(|number| number.parse().expect("a number"))
    }

    fn read_call(&mut self) -> Ended {
        let line = self.line();
        let parts: Vec<&str> = line.splitn(6, ' ').collect();
        let ["call", late, beyond, code, outcome, text] = parts[..] else { panic!("no call: {line}") };
        let number = |text: &str| text.parse::<i64>().expect("a number");
        let small = |text: &str| i32::try_from(number(text)).expect("a small number");
        let reply = Reply { code: small(code), outcome: small(outcome), text: Some(text.to_owned()) };
        Ended { late: number(late), beyond: number(beyond), reply }
    }

    /// Makes one more call, with a client of its own.
    pub fn call(&mut self, config: &Value) -> Ended {
        writeln!(self.input, "call {config}").expect("the host listens");
        self.read_call()
    }

    /// Ends what hangs in the resolver, and returns when the host has no thread left but its first.
    pub fn release(&mut self) {
        writeln!(self.input, "release").expect("the host listens");
        assert_eq!(self.line(), "released");
    }

    /// Lets the host end by itself.
    #[track_caller]
    pub fn end(self) {
        let Caller { mut process, input, .. } = self;
        drop(input);
        let status = process.0.wait().expect("the host ends");
        assert!(status.success(), "the host has failed: {status}");
    }

    /// Whether each call ended at its deadline or its cancel, with this code and outcome, in one try, and with these words in its
    /// message: none of them earlier, half of them soon after it, and none much later than a thread that only slept.
    pub fn on_time(&self, expected: Expected, words: &str) -> Result<(), String> {
        let deadline = i64::try_from(self.round.deadline.as_nanos()).expect("a short time");
        let time = |nanoseconds: i64| format!("{} µs", nanoseconds / 1000);
        for Ended { late, beyond, reply } in &self.calls {
            if (reply.code, reply.outcome) != (expected.code, expected.outcome) {
                return Err(format!("expected {expected:?}: {reply:?}"));
            }
            if *late < 0 {
                return Err(format!("{} before the deadline: {reply:?}", time(-late)));
            }
            if *beyond > nanoseconds(BEYOND_CONTROL) {
                return Err(format!("{} after a thread that slept to the deadline: {reply:?}", time(*beyond)));
            }
            let document = reply.json();
            if document["attempts"] != 1 {
                return Err(format!("not one attempt: {reply:?}"));
            }
            if [TIMEOUT, CANCELLED].contains(&reply.code)
                && !document["message"].as_str().is_some_and(|text| text.contains(words))
            {
                return Err(format!("not the message of \"{words}\": {reply:?}"));
            }
            let elapsed = document["elapsed_ms"].as_i64().unwrap_or(-1);
            // The clock of a call starts at its entry, which is no matter to who cancels it.
            let least = if self.round.cancel.is_some() { 0 } else { deadline / 1_000_000 };
            if elapsed < least || elapsed > (deadline + late) / 1_000_000 {
                return Err(format!("returned {} after the deadline, and elapsed_ms says: {reply:?}", time(*late)));
            }
        }
        let mut late: Vec<i64> = self.calls.iter().map(|call| call.late).collect();
        late.sort_unstable();
        let median = late[late.len() / 2];
        if median > nanoseconds(if self.round.cancel.is_some() { MEDIAN_OF_CANCELS } else { MEDIAN }) {
            return Err(format!("the median is {} after the deadline", time(median)));
        }
        Ok(())
    }
}

fn nanoseconds(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).expect("a short time")
}

/// What calls left behind when they returned: their host and their server live on, so that it is seen whether
/// something follows.
struct Left {
    case: String,
    expected: Expected,
    caller: Caller,
    server: Server,
    brought: Vec<u64>,
    ledger: Ledger,
}

impl Left {
    /// Takes down what the server has got from calls that have just returned. Each made one connection.
    fn behind(case: &str, expected: Expected, caller: Caller, server: Server) -> Result<Left, String> {
        server.await_connections(caller.calls.len()).map_err(|wrong| format!("{case}: {wrong}"))?;
        let (brought, ledger) = (server.brought(0), server.ledger());
        Ok(Left { case: case.to_owned(), expected, caller, server, brought, ledger })
    }

    /// Fails for everything that has followed since, and for every reply that is not true.
    fn nothing_followed(self, table: &mut Table) {
        let Left { case, expected, caller, server, brought, ledger } = self;
        let check = || {
            if (server.brought(0), server.ledger()) != (brought.clone(), ledger.clone()) {
                return Err(format!("{brought:?} bytes had arrived, now {:?}", server.brought(0)));
            }
            server.release();
            let seen = server.settle(0)?;
            if server.brought(0) != brought || server.ledger() != ledger {
                return Err(format!("{brought:?} bytes had arrived, at the end {:?}", server.brought(0)));
            }
            if seen.len() != caller.calls.len() {
                return Err(format!("{} connections for {} calls", seen.len(), caller.calls.len()));
            }
            let open = |one: &Exchange| !one.plain.is_empty() && Said::read(&one.sent).is_none();
            for seen in &seen {
                let wrong = match expected.outcome {
                    NOT_CREATED => seen.exchanges.iter().any(open),
                    _ => seen.request_bytes() == 0,
                };
                if wrong || seen.fault.is_some() {
                    return Err(format!(
                        "{} bytes of the request arrived; {:?}, {:?}",
                        seen.request_bytes(),
                        seen.fault,
                        seen.note
                    ));
                }
            }
            let tries: Vec<Exchange> = seen.into_iter().flat_map(|seen| seen.exchanges).collect();
            for call in &caller.calls {
                let number = call.reply.json()["out_task_num"].as_str().unwrap_or_default().to_owned();
                truth(&call.reply, ledger.made(&number), &tries).map_err(|wrong| format!("{number}: {wrong}"))?;
            }
            Ok(())
        };
        table.take(check().map_err(|wrong| format!("{case}: {wrong}")));
        caller.end();
    }
}

/// The ways to speak to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS of this version.
    Https(Version),
}

impl Scheme {
    /// All of them.
    pub const ALL: [Scheme; 3] = [Scheme::Http, Scheme::Https(Version::Tls12), Scheme::Https(Version::Tls13)];
}

/// The part of a call in which its end comes, and what must be said of it.
#[derive(Debug, Clone, Copy)]
pub struct Phase {
    /// What was not done in time, as the message has it, or that it was cancelled.
    pub words: &'static str,
    /// The key of the configuration that sets the deadline. The other limits are far away.
    pub limit: &'static str,
    /// The code and the outcome.
    pub expected: Expected,
}

impl Phase {
    /// The connection is not made.
    pub const CONNECT: Phase = Phase::before("no connection");
    /// TLS is not opened.
    pub const HANDSHAKE: Phase = Phase::before("the TLS handshake did not end");
    /// Not all of the request is sent.
    pub const REQUEST: Phase = Phase::after("the server did not take the request");
    /// The answer does not come, or not whole.
    pub const ANSWER: Phase = Phase::after("no whole answer");

    /// Cancelled when nothing of it had gone out, or all that had was refused.
    pub const CANCELLED_BEFORE: Phase = Phase { expected: CANCELLED_NOT_CREATED, ..Phase::before("was cancelled") };
    /// Cancelled when some of it had gone out.
    pub const CANCELLED_AFTER: Phase = Phase { expected: CANCELLED_UNKNOWN, ..Phase::before("was cancelled") };

    const fn before(words: &'static str) -> Phase {
        Phase { words, limit: "timeout_ms", expected: TIMEOUT_NOT_CREATED }
    }

    const fn after(words: &'static str) -> Phase {
        Phase { words, limit: "timeout_ms", expected: TIMEOUT_UNKNOWN }
    }

    /// With the deadline set by another key.
    pub const fn by(self, limit: &'static str) -> Phase {
        Phase { limit, ..self }
    }
}

const RECEIVE_BUFFER: usize = 64 * 1024;

/// More bytes than the kernels of both sides hold of a request that the server of [`Phases`] does not read.
pub fn longer_than_both_buffers() -> usize {
    let sizes = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_wmem").expect("Linux tells the sizes of its buffers");
    let most: usize = sizes.split_whitespace().last().expect("a number").parse().expect("a number");
    most + 4 * RECEIVE_BUFFER
}

/// Calls that must all end at their deadline, and what they left behind.
#[derive(Default)]
pub struct Phases {
    launcher: Launcher,
    table: Table,
    left: Vec<Left>,
}

impl Phases {
    /// Calls to a server that goes by this script on every connection.
    pub fn run(&mut self, case: &str, round: Round, scheme: Scheme, phase: Phase, script: Script) {
        let authority = Authority::new();
        let tls = match scheme {
            Scheme::Http => None,
            Scheme::Https(version) => Some(authority.server(Identity::right(version))),
        };
        let server = Server::start("127.0.0.1", tls);
        server.receive_buffer(RECEIVE_BUFFER);
        server.always(script);
        let case = format!("{case}, {scheme:?}, {}", round.end(phase));
        let caller = self.judge(&case, round, config_tls(&server.base_url(), &authority), phase);
        self.left.extend(self.table.take(Left::behind(&case, phase.expected, caller, server)));
    }

    /// Calls to a host to which no connection is made.
    pub fn run_unconnected(&mut self, case: &str, round: Round, config: Value, phase: Phase) {
        self.judge(&format!("{case}, {}", round.end(phase)), round, config, phase).end();
    }

    fn judge(&mut self, case: &str, round: Round, config: Value, phase: Phase) -> Caller {
        let milliseconds = u64::try_from(round.deadline.as_millis()).expect("a short time");
        let config = with(config, round.keys.clone());
        let (config, words) = match round.cancel {
            None => (
                with(config, json!({ phase.limit: milliseconds })),
                format!("{} within {} ({milliseconds} ms)", phase.words, phase.limit),
            ),
            Some(_) => (config, phase.words.to_owned()),
        };
        let caller = self.launcher.run(round.clone(), &round.configs(config));
        self.table.take(caller.on_time(phase.expected, &words).map_err(|wrong| format!("{case}: {wrong}")));
        let threads = match (caller.most_threads, caller.threads_after) {
            (0, 0) => Ok(()),
            (most, after) => Err(format!("{case}: {most} threads of the library during the calls, {after} after them")),
        };
        self.table.take(threads);
        caller
    }

    /// Looks again two seconds later, and fails for everything that was wrong.
    #[track_caller]
    pub fn finish(mut self) {
        std::thread::sleep(LATER);
        for left in self.left {
            left.nothing_followed(&mut self.table);
        }
        self.table.finish();
    }
}

/// An address at which connections wait for ever: it listens, and its queue is full.
pub struct FullQueue {
    socket: Socket,
    address: SocketAddr,
    waiting: Vec<TcpStream>,
}

impl FullQueue {
    /// Listens and fills the queue. Port 0: one that the system gives.
    pub fn new(ip: &str, port: u16) -> FullQueue {
        let ip: IpAddr = ip.parse().expect("an address");
        let socket = Socket::new(Domain::for_address((ip, port).into()), Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::new(ip, port).into()).expect("a port");
        socket.listen(0).expect("a queue");
        let address = socket.local_addr().expect("an address").as_socket().expect("of the net");
        // When the queue of the listener is full the kernel drops what would open another connection.
        let patience = Duration::from_millis(300);
        let waiting: Vec<_> = std::iter::from_fn(|| TcpStream::connect_timeout(&address, patience).ok()).collect();
        assert!(!waiting.is_empty(), "the queue has room for one at least");
        FullQueue { socket, address, waiting }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether nobody but this test has ever got into the queue.
    pub fn nobody_came(&self) -> Result<(), String> {
        self.socket.set_nonblocking(true).map_err(|error| error.to_string())?;
        let own: Vec<_> = self.waiting.iter().filter_map(|socket| socket.local_addr().ok()).collect();
        while let Ok((_, peer)) = self.socket.accept() {
            let peer = peer.as_socket().ok_or("no address")?;
            if !own.contains(&peer) {
                return Err(format!("a call from {peer} got into the queue of {}", self.address));
            }
        }
        Ok(())
    }
}
