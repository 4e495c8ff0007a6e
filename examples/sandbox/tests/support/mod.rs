//! A running sandbox and the raw clients that talk to it.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use tempfile::TempDir;

/// Far beyond what a busy machine needs; only a defect reaches it.
pub const PATIENCE: Duration = Duration::from_secs(60);

fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_arctos-sandbox"))
}

/// Runs the binary with options that it has to refuse; returns how it ended, stdout and stderr.
pub fn run(options: &[&str]) -> (ExitStatus, String, String) {
    let mut child = command().args(options).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let Some(status) = wait(&mut child) else {
        child.kill().unwrap();
        panic!("{options:?} started a server");
    };
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    (status, stdout, stderr)
}

/// How a process ended; `None` when it goes on and on.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(5));
    }
    None
}

/// A sandbox on a free port, in a folder of its own; killed when dropped.
pub struct Sandbox {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its working directory.
    pub folder: TempDir,
    ca_file: Option<PathBuf>,
}

impl Sandbox {
    /// Starts the binary and reads the address, and with `--tls` the CA file, that it prints.
    pub fn start(options: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let mut child = command()
            .args(["--listen", "127.0.0.1:0"])
            .args(options)
            .current_dir(&folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = || {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            line
        };
        let tls = options.contains(&"--tls");
        let scheme = if tls { "https" } else { "http" };
        let first = line();
        let address = first
            .strip_prefix(&format!("listening on {scheme}://"))
            .and_then(|rest| rest.strip_suffix('\n'))
            .unwrap_or_else(|| panic!("unexpected first line: {first:?}"))
            .parse()
            .unwrap();
        let ca_file = tls.then(|| {
            let second = line();
            let path = second
                .strip_prefix("CA file: ")
                .and_then(|rest| rest.strip_suffix('\n'))
                .unwrap_or_else(|| panic!("unexpected second line: {second:?}"));
            folder.path().join(path)
        });
        Self { child, stdout: Some(stdout), address, folder, ca_file }
    }

    /// A connection whose reads end in an error rather than in a test that hangs.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A TLS connection that trusts the CA file and nothing else.
    pub fn connect_tls(&self, name: &str) -> StreamOwned<ClientConnection, TcpStream> {
        let ca = CertificateDer::from_pem_file(self.ca_file.as_ref().unwrap()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(ca).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let client = ClientConnection::new(Arc::new(config), name).unwrap();
        StreamOwned::new(client, self.connect())
    }

    /// Sends a request and reads until the server closes.
    pub fn exchange(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut stream = self.connect();
        stream.write_all(request.as_ref()).unwrap();
        Answer::read(&mut stream).unwrap()
    }

    /// Posts a task body with the default token.
    pub fn add(&self, body: impl AsRef<[u8]>) -> Answer {
        self.exchange(post(body))
    }

    /// What `/sandbox/appointments` says, as text.
    pub fn listing(&self) -> String {
        let answer = self.exchange(get("/sandbox/appointments"));
        assert_eq!(answer.status, 200);
        String::from_utf8(answer.body).unwrap()
    }

    /// What `/sandbox/appointments` says.
    pub fn appointments(&self) -> Vec<Value> {
        let listing: Value = serde_json::from_str(&self.listing()).unwrap();
        listing["appointments"].as_array().unwrap().clone()
    }

    /// The `out_task_num` of each appointment, in order.
    pub fn made(&self) -> Vec<String> {
        self.appointments().iter().map(|appointment| appointment["out_task_num"].as_str().unwrap().to_owned()).collect()
    }

    /// Does what a script does that wanted the address only.
    pub fn close_stdout(&mut self) {
        self.stdout = None;
    }

    /// Sends a signal, waits for the end, and returns what stdout held after the first lines.
    pub fn stop(mut self, signal: &str) -> (ExitStatus, String) {
        let kill = format!("kill -{signal} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let status = wait(&mut self.child).unwrap_or_else(|| panic!("still running after SIG{signal}"));
        let mut rest = String::new();
        self.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
        (status, rest)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One answer, taken from everything that came until the connection's end.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// Status line and headers, in lower case.
    pub head: String,
    /// What came of the body.
    pub body: Vec<u8>,
    /// How long the body is by its Content-Length.
    pub length: usize,
}

impl Answer {
    /// Reads a stream to its end.
    pub fn read(stream: &mut impl Read) -> io::Result<Self> {
        let mut raw = Vec::new();
        stream.read_to_end(&mut raw)?;
        Ok(Self::parse(&raw))
    }

    /// Reads one answer and leaves the stream where the next one begins.
    pub fn read_next(stream: &mut impl Read) -> io::Result<Self> {
        let mut raw = Vec::new();
        while !raw.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            raw.push(byte[0]);
        }
        let mut answer = Self::parse(&raw);
        answer.body.resize(answer.length, 0);
        stream.read_exact(&mut answer.body)?;
        Ok(answer)
    }

    /// Takes the bytes of one answer apart.
    pub fn parse(raw: &[u8]) -> Self {
        let end = raw
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .unwrap_or_else(|| panic!("no complete head: {:?}", String::from_utf8_lossy(raw)));
        let head = String::from_utf8(raw[..end].to_vec()).unwrap().to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Self { status, head, body: raw[end + 4..].to_vec(), length: 0 };
        answer.length = answer.header("content-length").unwrap().parse().unwrap();
        answer
    }

    /// The value of a header, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    /// The whole body, which has to be JSON.
    pub fn json(&self) -> Value {
        assert_eq!(self.body.len(), self.length, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The message of an answer that refuses.
    pub fn refusal(&self) -> String {
        let body = self.json();
        assert_eq!(body["status"], 0, "{body}");
        assert!(body["info"]["task_num"].is_null(), "{body}");
        body["message"].as_str().unwrap().to_owned()
    }
}

/// A GET request.
pub fn get(path: &str) -> String {
    request("GET", path, "", "")
}

/// A task request with the default token.
pub fn post(body: impl AsRef<[u8]>) -> Vec<u8> {
    let headers = "Authorization: Bearer sandbox-token\r\nContent-Type: application/json\r\n";
    let body = body.as_ref();
    let mut raw = format!(
        "POST /api/task/do_add HTTP/1.1\r\nHost: sandbox\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    raw.extend_from_slice(body);
    raw
}

/// The same request without `Connection: close`: its connection may bring another one.
pub fn kept(request: impl AsRef<[u8]>) -> Vec<u8> {
    let request = str::from_utf8(request.as_ref()).unwrap();
    let kept = request.replacen("Connection: close\r\n", "", 1);
    assert_ne!(kept, request);
    kept.into_bytes()
}

/// Any request; each header line ends with CRLF.
pub fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: sandbox\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The text of a good task with changes: a field's JSON text, or "" to leave the field out.
pub fn task(changes: &[(&str, &str)]) -> String {
    let mut fields = BTreeMap::from([
        ("business_id", "15"),
        ("out_task_num", r#""BR0943-187""#),
        ("task_type", r#""normal""#),
        ("task_notify", "false"),
        ("task_time", r#""1703141398""#),
        ("task_remark", r#""remark-4711""#),
        ("branch_code", "943"),
        ("room_type", r#""normal""#),
        ("video", "true"),
        ("not_documented", r#""secret-4711""#),
    ]);
    fields.extend(changes.iter().copied());
    let members: Vec<String> = fields
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("\"{name}\": {value}"))
        .collect();
    format!("{{{}}}", members.join(", "))
}

/// A good task under this number.
pub fn numbered(out_task_num: &str) -> String {
    task(&[("out_task_num", &format!("\"{out_task_num}\""))])
}
