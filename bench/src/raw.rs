//! Makes the calls over a bare socket, with rustls for https: the least that a call can cost.
//!
//!     bench-raw URL CA_FILE THREADS BODY_BYTES KEEP
//!
//! What the arguments mean, and what it reads and prints, is told in `../clients/client.h`.

use std::env;
use std::error::Error;
use std::io::{self, BufRead, Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpStream, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::process::{self, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;

const USAGE: &str = "bench-raw URL CA_FILE THREADS BODY_BYTES keep|fresh";
const TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TASK: &str = concat!(
    r#"{"business_id":15,"out_task_num":"BENCH-000000000000","task_type":"normal","task_notify":false,"#,
    r#""task_time":"1795505400","branch_code":943,"room_type":"normal","video":true,"#,
    r#""out_task_type":"mortgage","business_code":"0715","task_remark":""#,
);
/// Where the digits of a task's number begin.
const NUMBER: usize = r#"{"business_id":15,"out_task_num":"BENCH-"#.len();
const DIGITS: usize = 12;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-raw: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [url, ca_file, threads, body_bytes, keep @ ("keep" | "fresh")] =
        arguments.iter().map(String::as_str).collect::<Vec<&str>>()[..]
    else {
        return Err(USAGE.into());
    };
    let threads = threads.parse::<NonZeroUsize>()?.get();
    let before = Instant::now();
    let server = Server::of(url, ca_file, keep == "keep")?;
    println!("{}", json!({ "version": "a socket and rustls", "setup_ns": nanoseconds(before.elapsed()) }));

    let shared = Arc::new(Shared {
        request: server.request(body_bytes.parse()?)?,
        server,
        begin: Barrier::new(threads + 1),
        end: Barrier::new(threads + 1),
        round: Mutex::new(Round::default()),
        last: AtomicU64::new(0),
    });
    for _ in 0..threads {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            if let Err(error) = shared.make_calls() {
                eprintln!("a call failed: {error}");
                // The others would wait at the barrier for ever.
                process::exit(1);
            }
        });
    }
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (tells, calls) = match line.split_once(' ') {
            Some(("calls", calls)) => (true, calls),
            Some(("count", calls)) => (false, calls),
            _ => return Err(format!("no such command: {line}").into()),
        };
        *shared.round() = Round { calls: calls.parse()?, ..Round::default() };
        let cpu = cpu_time();
        shared.begin.wait();
        shared.end.wait();
        let cpu = cpu_time() - cpu;
        let round = shared.round();
        let wall = round.ended.zip(round.began).map_or(Duration::ZERO, |(ended, began)| ended - began);
        if !tells {
            println!("{{}}");
            continue;
        }
        let [rss, peak] = memory()?;
        let each: Vec<u64> = round.each.iter().copied().map(nanoseconds).collect();
        println!(
            "{}",
            json!({
                "each_ns": each,
                "wall_ns": nanoseconds(wall),
                "cpu_ns": nanoseconds(cpu),
                "rss_kib": rss,
                "peak_rss_kib": peak,
            })
        );
    }
    Ok(())
}

/// What the threads share.
struct Shared {
    server: Server,
    /// The request, with a task that has no number yet.
    request: Request,
    begin: Barrier,
    end: Barrier,
    round: Mutex<Round>,
    /// The number of the last task.
    last: AtomicU64,
}

/// What is to be done in a round, and how long it took.
#[derive(Default)]
struct Round {
    calls: usize,
    each: Vec<Duration>,
    began: Option<Instant>,
    ended: Option<Instant>,
}

impl Shared {
    fn round(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the calls of every round, on one connection after the other.
    fn make_calls(&self) -> Result<(), Box<dyn Error>> {
        let mut request = self.request.text.clone();
        let mut kept = None;
        let mut answer = vec![0; 65536];
        loop {
            self.begin.wait();
            let calls = self.round().calls;
            let mut each = Vec::with_capacity(calls);
            let began = Instant::now();
            for _ in 0..calls {
                let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
                self.request.write(&mut request, number);
                let before = Instant::now();
                let mut connection = match kept.take() {
                    Some(connection) => connection,
                    None => self.server.connect()?,
                };
                connection.write_all(&request)?;
                connection.flush()?;
                read_answer(&mut connection, &mut answer)?;
                if self.server.keep {
                    kept = Some(connection);
                } else {
                    drop(connection);
                }
                each.push(before.elapsed());
            }
            let ended = Instant::now();
            let mut round = self.round();
            round.each.append(&mut each);
            round.began = Some(round.began.map_or(began, |earlier| earlier.min(began)));
            round.ended = Some(round.ended.map_or(ended, |later| later.max(ended)));
            drop(round);
            self.end.wait();
        }
    }
}

/// Reads an answer into the buffer, and looks for what says that an appointment was made.
fn read_answer(connection: &mut dyn Read, buffer: &mut Vec<u8>) -> Result<(), Box<dyn Error>> {
    let mut have = 0;
    let mut whole = None;
    while whole.is_none_or(|whole| have < whole) {
        if have == buffer.len() {
            buffer.resize(2 * have, 0);
        }
        match connection.read(&mut buffer[have..])? {
            0 => return Err("the connection was closed".into()),
            more => have += more,
        }
        if whole.is_none() {
            whole = length(&buffer[..have])?;
        }
    }
    let answer = str::from_utf8(&buffer[..have])?;
    if !answer.starts_with("HTTP/1.1 200 ") || !answer.contains(r#""status":1"#) || !answer.contains(r#""task_num":""#)
    {
        return Err(format!("no appointment: {answer}").into());
    }
    Ok(())
}

/// The length of an answer whose fields are there.
fn length(bytes: &[u8]) -> Result<Option<usize>, Box<dyn Error>> {
    let text = str::from_utf8(bytes)?;
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return Ok(None) };
    let (_, rest) = head.split_once("\r\nContent-Length: ").ok_or("the answer has no length")?;
    let length: usize = rest.split("\r\n").next().unwrap_or(rest).parse()?;
    Ok(Some(head.len() + 4 + length))
}

/// The head and the body of a request.
struct Request {
    text: Vec<u8>,
    number: usize,
}

impl Request {
    /// Copies it into a buffer of its length, and puts in the number of the task.
    fn write(&self, buffer: &mut [u8], mut number: u64) {
        buffer.copy_from_slice(&self.text);
        for digit in buffer[self.number..self.number + DIGITS].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
    }
}

/// Where requests go, and how.
struct Server {
    host: String,
    port: u16,
    prefix: String,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    keep: bool,
}

trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

impl Server {
    fn of(url: &str, ca_file: &str, keep: bool) -> Result<Server, Box<dyn Error>> {
        let (scheme, rest) = url.split_once("://").ok_or(USAGE)?;
        let (authority, prefix) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let (host, port) = authority.rsplit_once(':').ok_or("the URL has no port")?;
        let tls = if scheme == "https" {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_file_iter(ca_file)? {
                roots.add(certificate?)?;
            }
            let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
            Some((Arc::new(config), ServerName::try_from(host.to_owned())?))
        } else {
            None
        };
        Ok(Server { host: host.to_owned(), port: port.parse()?, prefix: prefix.to_owned(), tls, keep })
    }

    fn request(&self, body_bytes: usize) -> Result<Request, Box<dyn Error>> {
        let end = r#""}"#;
        let remark = body_bytes.checked_sub(TASK.len() + end.len()).ok_or("no task is so short")?;
        let head = format!(
            "POST {}/api/task/do_add HTTP/1.1\r\nHost: {}:{}\r\nUser-Agent: arctos-bench\r\n\
             Content-Type: application/json\r\nAccept: application/json\r\n\
             Authorization: Bearer a-token-of-the-bench\r\nContent-Length: {body_bytes}\r\n\r\n",
            self.prefix, self.host, self.port
        );
        let number = head.len() + NUMBER;
        Ok(Request { text: (head + TASK + &"x".repeat(remark) + end).into_bytes(), number })
    }

    fn connect(&self) -> Result<Box<dyn Stream>, Box<dyn Error>> {
        let mut last = None;
        for address in (&*self.host, self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(stream) => return self.over(stream),
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or_else(|| "the host has no address".into(), Box::from))
    }

    fn over(&self, stream: TcpStream) -> Result<Box<dyn Stream>, Box<dyn Error>> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let Some((config, name)) = &self.tls else { return Ok(Box::new(stream)) };
        let connection = ClientConnection::new(Arc::clone(config), name.clone())?;
        Ok(Box::new(StreamOwned::new(connection, stream)))
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What the process has taken of the processors.
fn cpu_time() -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the function writes one of these, and cannot fail for this clock.
    let time = unsafe {
        libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, time.as_mut_ptr());
        time.assume_init()
    };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The memory of the process, now and at most, in KiB.
fn memory() -> Result<[u64; 2], Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let value = |name: &str| -> Result<u64, Box<dyn Error>> {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).ok_or("the system does not tell of memory")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    };
    Ok([value("VmRSS:")?, value("VmHWM:")?])
}
