//! The C, the Python and the COBOL caller say the truth to whoever starts them: by exit code, standard output and
//! one line on standard error, whatever the server does.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arctos_tests::api::{BROKEN, Owned, library_path, root, task};
use arctos_tests::tools::{both, cc, compiler, succeed, tool};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

const TOKEN: &str = "token-that-no-output-may-hold";
/// How long the sandbox waits before it answers a `slow-` number, and how long the Python caller waits for it.
/// The second must leave time for the request to go out, and the first must be well above it.
const SLOW_MS: &str = "4000";
const IMPATIENT_MS: &str = "2000";
/// How long a request may take to come to the sandbox.
const PATIENCE: Duration = Duration::from_secs(60);

/// The exit codes that all callers document.
const MADE: i32 = 0;
const NOT_MADE: i32 = 2;
const MAYBE_MADE: i32 = 3;
const MADE_WITHOUT_NUMBER: i32 = 4;

/// The test numbers of the sandbox, except `slow-` and `slow-once-`: how the caller ends, the first word on standard
/// error (none: standard error is empty), and whether the sandbox made the appointment.
const CASES: [(&str, i32, &str, bool); 13] = [
    ("plain-", MADE, "", true),
    ("warn-", MADE, "warning", true),
    ("fail-", NOT_MADE, "ARCTOS_FAILED", false),
    ("busy-", NOT_MADE, "ARCTOS_BUSY", false),
    ("busy-once-", MADE, "", true),
    ("forbidden-", NOT_MADE, "ARCTOS_FORBIDDEN", false),
    ("reset-before-", MAYBE_MADE, "ARCTOS_BROKEN", false),
    ("reset-once-", MAYBE_MADE, "ARCTOS_BROKEN", false),
    ("reset-after-", MAYBE_MADE, "ARCTOS_BROKEN", true),
    ("truncate-", MAYBE_MADE, "ARCTOS_BROKEN", true),
    ("html-", MAYBE_MADE, "ARCTOS_BAD_RESPONSE", true),
    ("error500-", MAYBE_MADE, "ARCTOS_SERVER_ERROR", false),
    ("nonum-", MADE_WITHOUT_NUMBER, "ARCTOS_BAD_RESPONSE", true),
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Language {
    C,
    Python,
    Cobol,
}

/// A folder with the built callers in it.
struct Callers {
    folder: TempDir,
    /// Those that could be built.
    languages: Vec<Language>,
}

impl Callers {
    /// Builds the callers as strictly as their users may; that in COBOL only where its compiler is installed.
    fn new() -> Callers {
        let folder = TempDir::new().expect("a temporary folder");
        let library = fs::canonicalize(library_path())
            .unwrap_or_else(|error| panic!("{}: {error}; run `make build` first", library_path().display()));
        let libraries = library.parent().expect("a file has a folder");
        // As DT_RPATH, which goes before the LD_LIBRARY_PATH that cargo sets and where other builds of the library are.
        let mut search = OsString::from("-Wl,--disable-new-dtags,-rpath,");
        search.push(libraries);
        let mut languages = vec![Language::C, Language::Python];
        for (name, options) in [("add_task", &["-pthread"][..]), ("diagnose", &[]), ("restart", &[])] {
            let mut command = compiler(&cc());
            command.args(["-std=c89", "-Wno-long-long"]).args(options);
            command.arg(root().join("examples/c").join(name).with_extension("c")).arg(&library).arg(&search);
            succeed(command.arg("-o").arg(folder.path().join(name)));
        }
        if let Some(cobc) = tool("the COBOL caller", "cobc", "gnucobol3") {
            let mut command = Command::new(cobc);
            command.args(["-x", "-free", "-Wall", "-Werror", "-o"]).arg(folder.path().join("addtask"));
            command.arg(root().join("examples/cobol/addtask.cob"));
            command.arg("-L").arg(libraries).args(["-l", "arctos", "-Q"]).arg(&search);
            assert_eq!(both(&succeed(&mut command)), "", "{command:?}");
            languages.push(Language::Cobol);
        }
        Callers { folder, languages }
    }

    /// A caller with its token and without arguments.
    fn bare(&self, language: Language) -> Command {
        let mut command;
        match language {
            Language::C => command = Command::new(self.folder.path().join("add_task")),
            Language::Python => {
                command = Command::new("python3");
                command.arg(root().join("examples/python/add_task.py")).env("PYTHONDONTWRITEBYTECODE", "1");
            }
            Language::Cobol => command = Command::new(self.folder.path().join("addtask")),
        }
        command.env("ARCTOS_TOKEN", TOKEN).stdin(Stdio::null());
        command
    }

    fn command(&self, language: Language, base_url: &str, number: &str, ca_file: Option<&Path>) -> Command {
        self.command_with(&[], language, base_url, number, ca_file)
    }

    /// The same with options before everything else.
    fn command_with(
        &self,
        options: &[&str],
        language: Language,
        base_url: &str,
        number: &str,
        ca_file: Option<&Path>,
    ) -> Command {
        let mut command = self.bare(language);
        command.args(options);
        match language {
            Language::C | Language::Cobol => command.args([base_url, number]).args(ca_file),
            Language::Python => {
                command.args(["--base-url", base_url, "--number", number]);
                command.args(ca_file.map(|_| "--ca-file")).args(ca_file)
            }
        };
        command
    }
}

/// How a caller ended.
#[derive(Debug)]
struct End {
    exit: Option<i32>,
    stdout: String,
    stderr: String,
}

impl End {
    fn of(command: &mut Command) -> End {
        End::from(command.output().expect("the caller runs"))
    }

    fn from(output: Output) -> End {
        let Output { status, stdout, stderr } = output;
        let end = End {
            exit: status.code(),
            stdout: String::from_utf8(stdout).expect("UTF-8"),
            stderr: String::from_utf8(stderr).expect("UTF-8"),
        };
        assert!(!end.stdout.contains(TOKEN) && !end.stderr.contains(TOKEN), "the token is shown: {end:?}");
        end
    }

    /// Checks the exit code, that standard output holds the number and nothing else, and that standard error holds
    /// one line, which begins with `word` and names the outcome; no line at all when `word` is empty.
    #[track_caller]
    fn check(&self, exit: i32, word: &str, task_num: Option<&str>) {
        assert_eq!(self.exit, Some(exit), "{self:?}");
        let number = if exit == MADE { task_num } else { None };
        assert_eq!(self.stdout, number.map_or(String::new(), |number| format!("{number}\n")), "{self:?}");
        if word.is_empty() {
            assert_eq!(self.stderr, "", "{self:?}");
            return;
        }
        let outcome = match exit {
            NOT_MADE => "not_created",
            MAYBE_MADE => "unknown",
            _ => "created",
        };
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        assert!(self.stderr.starts_with(word), "{self:?}");
        assert!(self.stderr.ends_with(&format!(" (outcome: {outcome})\n")), "{self:?}");
    }
}

/// A running sandbox, ended with its scope.
struct Sandbox {
    process: Child,
    base_url: String,
    address: SocketAddr,
    ca_file: Option<PathBuf>,
    _folder: TempDir,
}

impl Sandbox {
    fn start(tls: bool) -> Sandbox {
        Sandbox::as_slow_as(SLOW_MS, tls)
    }

    /// One that answers a `slow-` number after so many milliseconds.
    fn as_slow_as(slow_ms: &str, tls: bool) -> Sandbox {
        let program = root().join("target/debug/arctos-sandbox");
        let folder = TempDir::new().expect("a temporary folder");
        let ca_file = tls.then(|| folder.path().join("ca.pem"));
        let complaints = folder.path().join("stderr");
        let mut command = Command::new(&program);
        command.args(["--listen", "127.0.0.1:0", "--token", TOKEN, "--slow-ms", slow_ms]);
        if let Some(ca_file) = &ca_file {
            command.arg("--tls").arg("--ca-file").arg(ca_file);
        }
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&complaints).expect("a file"))
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; `make test` builds it", program.display()));
        let mut output = BufReader::new(process.stdout.take().expect("a pipe"));
        let mut line = String::new();
        output.read_line(&mut line).expect("the sandbox prints its address");
        let base_url = line.trim().strip_prefix("listening on ").unwrap_or_else(|| {
            panic!("the sandbox printed {line:?} and {}", fs::read_to_string(&complaints).expect("a file"))
        });
        let (scheme, address) = base_url.split_once("://").expect("a URL");
        assert_eq!(scheme, if tls { "https" } else { "http" });
        let sandbox = Sandbox {
            base_url: base_url.to_owned(),
            address: address.parse().expect("an address and a port"),
            process,
            ca_file,
            _folder: folder,
        };
        // It prints each appointment, and must not have to wait for a reader.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        sandbox
    }

    /// The task number of the one appointment that was made for `out_task_num`; `None` when none was made.
    #[track_caller]
    fn made(&self, out_task_num: &str) -> Option<String> {
        let mut numbers = self.all_made(out_task_num);
        let number = numbers.pop();
        assert!(numbers.is_empty(), "{out_task_num} was made twice");
        number
    }

    /// The task numbers of all appointments that were made for `out_task_num`.
    #[track_caller]
    fn all_made(&self, out_task_num: &str) -> Vec<String> {
        let list = self.get("/sandbox/appointments");
        let all = list["appointments"].as_array().unwrap_or_else(|| panic!("no list in {list}"));
        all.iter()
            .filter(|appointment| appointment["out_task_num"] == out_task_num)
            .map(|appointment| appointment["task_num"].as_str().expect("a task number").to_owned())
            .collect()
    }

    fn get(&self, path: &str) -> Value {
        let mut stream = TcpStream::connect(self.address).expect("the sandbox listens");
        let Some(ca_file) = &self.ca_file else {
            return get(&mut stream, path);
        };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca_file).expect("a certificate")).expect("an authority");
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::from(self.address.ip());
        let connection = ClientConnection::new(Arc::new(config), name).expect("a TLS client");
        get(&mut StreamOwned::new(connection, stream), path)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The JSON that the server has at `path`.
fn get(stream: &mut (impl Read + Write), path: &str) -> Value {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: sandbox\r\nConnection: close\r\n\r\n").expect("the request goes out");
    serde_json::from_slice(&read_body(&mut BufReader::new(stream))).expect("JSON")
}

/// Reads the head of a message and gives its body.
fn read_body(reader: &mut impl BufRead) -> Vec<u8> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a head");
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().expect("a length");
            }
            _ if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a whole body");
    body
}

/// Reads one request, answers it with `body`, and gives the body that came.
fn answer(stream: &mut TcpStream, body: &str) -> Vec<u8> {
    let mut reader = BufReader::new(&mut *stream);
    let came = read_body(&mut reader);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).expect("the answer goes out");
    came
}

/// A server that answers one request with `body`: its base URL, and a thread that gives the body that came.
fn answer_once(body: String) -> (String, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let base_url = format!("http://{}", listener.local_addr().expect("an address"));
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        answer(&mut stream, &body)
    });
    (base_url, server)
}

/// Every test number of the sandbox, by every caller.
fn every_number(tls: bool) {
    let callers = Callers::new();
    let sandbox = Sandbox::start(tls);
    let ca_file = sandbox.ca_file.as_deref();
    for &language in &callers.languages {
        for (prefix, exit, word, is_made) in CASES {
            let number = format!("{prefix}{language:?}-1");
            let end = End::of(&mut callers.command(language, &sandbox.base_url, &number, ca_file));
            let made = sandbox.made(&number);
            assert_eq!(made.is_some(), is_made, "{number}: {end:?}");
            end.check(exit, word, made.as_deref());
        }

        // The Python caller does not wait long enough for a slow answer, the others do.
        let number = format!("slow-{language:?}-1");
        let mut command = callers.command(language, &sandbox.base_url, &number, ca_file);
        let (exit, word) = match language {
            Language::C | Language::Cobol => (MADE, ""),
            Language::Python => {
                command.args(["--timeout-ms", IMPATIENT_MS]);
                (MAYBE_MADE, "ARCTOS_TIMEOUT")
            }
        };
        let end = End::of(&mut command);
        let made = sandbox.made(&number);
        assert!(made.is_some(), "{end:?}");
        end.check(exit, word, made.as_deref());
    }
}

#[test]
fn every_number_of_the_sandbox_over_http() {
    every_number(false);
}

#[test]
fn every_number_of_the_sandbox_over_https() {
    every_number(true);
}

#[test]
fn what_is_unknown_is_tried_again_where_the_server_knows_a_repeat() {
    let callers = Callers::new();
    let sandbox = Sandbox::start(false);
    for (language, option) in [(Language::C, "-d"), (Language::Python, "--server-dedupes")] {
        let number = format!("reset-once-{language:?}-1");
        let end = End::of(&mut callers.command_with(&[option], language, &sandbox.base_url, &number, None));
        end.check(MADE, "", sandbox.made(&number).as_deref());
    }
}

#[test]
fn a_repeat_by_hand_makes_another_appointment() {
    let callers = Callers::new();
    let sandbox = Sandbox::start(false);
    let number = "slow-once-Python-1";
    let mut command = callers.command(Language::Python, &sandbox.base_url, number, None);
    let end = End::of(command.args(["--timeout-ms", IMPATIENT_MS]));
    end.check(MAYBE_MADE, "ARCTOS_TIMEOUT", None);
    assert_eq!(sandbox.all_made(number).len(), 1);
    let end = End::of(&mut callers.command(Language::Python, &sandbox.base_url, number, None));
    let all = sandbox.all_made(number);
    assert_eq!(all.len(), 2, "{end:?}");
    end.check(MADE, "", Some(&all[1]));
}

#[test]
fn the_log_shows_a_retry() {
    let callers = Callers::new();
    let sandbox = Sandbox::start(true);
    for language in [Language::C, Language::Python] {
        let number = format!("busy-once-{language:?}-1");
        let ca_file = sandbox.ca_file.as_deref();
        let end = End::of(&mut callers.command_with(&["-v"], language, &sandbox.base_url, &number, ca_file));
        let made = sandbox.made(&number).unwrap_or_else(|| panic!("not made: {end:?}"));
        assert_eq!((end.exit, end.stdout), (Some(MADE), format!("{made}\n")), "{}", end.stderr);
        let events: Vec<Value> =
            end.stderr.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
        let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().expect("a name")).collect();
        assert_eq!(names, ["answer", "retry", "pause", "answer"], "{}", end.stderr);
        assert!(events.iter().all(|event| event["out_task_num"] == number), "{}", end.stderr);
    }
}

#[test]
fn an_interrupt_cancels_the_call_and_the_outcome_is_told() {
    let callers = Callers::new();
    // Later than the library waits: only a cancel ends the call so.
    let sandbox = Sandbox::as_slow_as("3600000", false);
    for language in [Language::C, Language::Python] {
        let number = format!("slow-{language:?}-1");
        let mut command = callers.command(language, &sandbox.base_url, &number, None);
        // Whoever runs the tests may have it ignored.
        // SAFETY: the one function that is called may be called between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGINT, libc::SIG_DFL);
                Ok(())
            });
        }
        let caller = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the caller runs");
        let given_up = Instant::now() + PATIENCE;
        while sandbox.made(&number).is_none() {
            assert!(Instant::now() < given_up, "the request does not come");
            std::thread::sleep(Duration::from_millis(5));
        }
        let process = libc::pid_t::try_from(caller.id()).expect("a process");
        // SAFETY: a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(process, libc::SIGINT) }, 0);
        End::from(caller.wait_with_output().expect("the caller ends")).check(MAYBE_MADE, "ARCTOS_CANCELLED", None);
    }
}

#[test]
fn what_the_server_says_is_shown_in_one_line() {
    let callers = Callers::new();
    for &language in &callers.languages {
        for (body, word, exit, said) in [
            (r#"{"status":0,"message":"no\nsuch\u001b[31m branch"}"#, "ARCTOS_FAILED", NOT_MADE, "no such [31m branch"),
            (r#"{"status":2,"message":"a\r\u007fb","info":{"task_num":7}}"#, "warning", MADE, "a  b"),
        ] {
            let (base_url, server) = answer_once(body.to_owned());
            let end = End::of(&mut callers.command(language, &base_url, "said-1", None));
            end.check(exit, word, Some("7"));
            assert!(end.stderr.contains(said), "{end:?}");
            server.join().expect("the server saw one request");
        }
    }
}

#[test]
fn without_a_token_nothing_is_made() {
    let callers = Callers::new();
    let sandbox = Sandbox::start(false);
    for &language in &callers.languages {
        let number = format!("no-token-{language:?}");
        let mut command = callers.command(language, &sandbox.base_url, &number, None);
        let end = End::of(command.env_remove("ARCTOS_TOKEN"));
        end.check(NOT_MADE, "ARCTOS_FORBIDDEN", None);
        assert_eq!(sandbox.made(&number), None);
    }
}

#[test]
fn where_nothing_listens_nothing_is_made() {
    let callers = Callers::new();
    // Bound and not listening: connections are refused, and nobody else gets the port.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
    let address = socket.local_addr().expect("an address").as_socket().expect("an IP address");
    for &language in &callers.languages {
        let end = End::of(&mut callers.command(language, &format!("http://{address}"), "nobody-1", None));
        end.check(NOT_MADE, "ARCTOS_CONNECT", None);
    }
}

#[test]
fn without_the_right_authority_nothing_is_made() {
    let callers = Callers::new();
    let sandbox = Sandbox::start(true);
    let stranger = callers.folder.path().join("stranger.pem");
    let certificate = rcgen::generate_simple_self_signed(vec!["stranger".to_owned()]).expect("a certificate");
    fs::write(&stranger, certificate.cert.pem()).expect("a file");
    let garbage = callers.folder.path().join("garbage.pem");
    fs::write(&garbage, "no certificate").expect("a file");
    let missing = callers.folder.path().join("missing.pem");
    for &language in &callers.languages {
        for (ca_file, word) in
            [(&stranger, "ARCTOS_TLS"), (&garbage, "ARCTOS_BAD_CONFIG"), (&missing, "ARCTOS_BAD_CONFIG")]
        {
            let number = format!("authority-{language:?}");
            let end = End::of(&mut callers.command(language, &sandbox.base_url, &number, Some(ca_file)));
            end.check(NOT_MADE, word, None);
            assert_eq!(sandbox.made(&number), None);
        }
    }
}

#[test]
fn an_argument_that_is_missing_or_wrong_makes_nothing() {
    let callers = Callers::new();
    for &language in &callers.languages {
        let end = End::of(&mut callers.bare(language));
        assert_eq!((end.exit, &*end.stdout), (Some(NOT_MADE), ""), "{end:?}");
        assert!(end.stderr.contains("usage: "), "{end:?}");
        let end = End::of(&mut callers.command(language, "ftp://127.0.0.1", "wrong-1", None));
        end.check(NOT_MADE, "ARCTOS_BAD_CONFIG", None);
        let end = End::of(&mut callers.command(language, "http://127.0.0.1:1", "", None));
        end.check(NOT_MADE, "ARCTOS_BAD_TASK", None);

        let ca_file = Path::new(OsStr::from_bytes(b"\xff"));
        let end = End::of(&mut callers.command(language, "https://127.0.0.1:1", "wrong-1", Some(ca_file)));
        end.check(NOT_MADE, "ARCTOS_BAD_", None);

        // A caller with a field for the token must not send the part that its field holds.
        let mut command = callers.command(language, "http://127.0.0.1:1", "wrong-1", None);
        let end = End::of(command.env("ARCTOS_TOKEN", "x".repeat(10_000)));
        end.check(NOT_MADE, "ARCTOS_BAD_CONFIG", None);
        assert!(!end.stderr.contains("xxxx"), "{end:?}");
    }
}

/// Standard output that takes nothing, or is not there at all, must not look like success.
#[cfg(target_os = "linux")]
#[test]
fn a_number_that_cannot_be_printed_is_made_without_a_number() {
    let callers = Callers::new();
    let sandbox = Sandbox::start(false);
    for &language in &callers.languages {
        for (what, redirection) in [("full", ">/dev/full"), ("closed", ">&-")] {
            let number = format!("{what}-{language:?}-1");
            let caller = callers.command(language, &sandbox.base_url, &number, None);
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("exec \"$@\" {redirection}"), "sh"]).arg(caller.get_program());
            shell.args(caller.get_args()).env("ARCTOS_TOKEN", TOKEN).env("PYTHONDONTWRITEBYTECODE", "1");
            let end = End::of(&mut shell);
            let made = sandbox.made(&number).unwrap_or_else(|| panic!("not made: {end:?}"));
            end.check(MADE_WITHOUT_NUMBER, &format!("the task number {made} could not be printed"), None);
        }
    }
}

/// What only a caller with fields of fixed lengths can do wrong.
#[test]
fn the_cobol_record_is_sent_without_what_fills_it_up_and_never_cut() {
    let callers = Callers::new();
    if !callers.languages.contains(&Language::Cobol) {
        return;
    }
    let made = |number: &str| format!(r#"{{"status":1,"message":"success","info":{{"task_num":"{number}"}}}}"#);

    let longest = "  \"許 功蓋\" of forty bytes".to_owned() + &"x".repeat(11);
    assert_eq!(longest.len(), 40, "the length of the field");
    // East of Greenwich by 8 hours, and west of it by 3 and a half.
    for (number, zone) in [("187", "A-8"), (&longest, "B3:30")] {
        let (base_url, server) = answer_once(made("12345678901234567890"));
        let end = End::of(callers.command(Language::Cobol, &base_url, number, None).env("TZ", zone));
        end.check(MADE, "", Some("12345678901234567890"));
        let body = server.join().expect("the server saw one request");
        let mut body: Value = serde_json::from_slice(&body).expect("JSON");
        let time = body["task_time"].take();
        let tomorrow = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs() + 24 * 60 * 60;
        let time: u64 = time.as_str().and_then(|time| time.parse().ok()).expect("seconds");
        assert!(time.abs_diff(tomorrow) <= 60, "{time} is not tomorrow, {tomorrow}");
        let wanted = json!({
            "business_id": 15, "out_task_num": number, "task_type": "normal", "task_notify": false, "task_time": null,
            "task_remark": "Housing loan, first talk", "branch_code": "943", "room_type": "normal", "video": true,
        });
        assert_eq!(body, wanted);
    }

    // A number of the server's that its field would cut is not printed, and is not lost either.
    let (base_url, server) = answer_once(made("123456789012345678901"));
    let end = End::of(&mut callers.command(Language::Cobol, &base_url, "long-1", None));
    end.check(MADE_WITHOUT_NUMBER, "the task number 123456789012345678901 is longer than its field", None);
    server.join().expect("the server saw one request");

    // Arguments that their fields would cut are not sent.
    let long = "x".repeat(1025);
    for (what, base_url, number, ca_file) in [
        ("OUT-TASK-NUM", "https://127.0.0.1:1", &*format!("{longest}x"), None),
        ("BASE-URL", &*format!("https://127.0.0.1:1/{long}"), "1", None),
        ("CA-FILE", "https://127.0.0.1:1", "1", Some(Path::new(&long))),
    ] {
        let end = End::of(&mut callers.command(Language::Cobol, base_url, number, ca_file));
        end.check(NOT_MADE, &format!("{what} is longer than its field"), None);
    }
}

/// The C and the Python program for help desks, with the same arguments.
struct Desk<'a> {
    callers: &'a Callers,
    /// Those of both: the server and the file of its authority, or the file of a configuration.
    arguments: [Vec<OsString>; 2],
}

impl<'a> Desk<'a> {
    fn at(callers: &'a Callers, base_url: &str, ca_file: Option<&Path>) -> Desk<'a> {
        let c = [OsString::from(base_url)].into_iter().chain(ca_file.map(OsString::from));
        let python = ["--base-url", base_url].map(OsString::from).into_iter();
        let python = python.chain(ca_file.into_iter().flat_map(|file| ["--ca-file".into(), OsString::from(file)]));
        Desk { callers, arguments: [c.collect(), python.collect()] }
    }

    fn configured(callers: &'a Callers, config: &Path) -> Desk<'a> {
        Desk { callers, arguments: ["-c", "--config"].map(|option| vec![option.into(), config.into()]) }
    }

    fn commands(&self) -> [Command; 2] {
        let c = Command::new(self.callers.folder.path().join("diagnose"));
        let mut python = Command::new("python3");
        python.args(["-m", "arctos", "diagnose"]).env("PYTHONDONTWRITEBYTECODE", "1");
        let mut commands = [c, python];
        for (command, arguments) in commands.iter_mut().zip(&self.arguments) {
            command.args(arguments).current_dir(root().join("bindings/python")).env("ARCTOS_TOKEN", TOKEN);
            command.env("ARCTOS_LIBRARY", fs::canonicalize(library_path()).expect("run `make build` first"));
            command.stdin(Stdio::null());
        }
        commands
    }

    /// Runs both, which must end with this exit code, and print the same but for how long each step took. The lines.
    #[track_caller]
    fn print(&self, exit: i32, change: impl Fn(&mut Command)) -> Vec<String> {
        let [c, python] = self.commands().map(|mut command| {
            change(&mut command);
            let end = End::of(&mut command);
            assert_eq!((end.exit, end.stderr.is_empty()), (Some(exit), exit != NOT_DIAGNOSED), "{end:?}");
            let timeless = |line: &str| match line.get(17..28) {
                Some(time) if time.ends_with(" ms") => line.replacen(time, "", 1),
                _ => line.to_owned(),
            };
            end.stdout.lines().map(timeless).collect::<Vec<String>>()
        });
        assert_eq!(c, python);
        c
    }
}

/// The exit codes that both document.
const WELL: i32 = 0;
const FAILED: i32 = 1;
const NOT_DIAGNOSED: i32 = 2;

#[test]
fn a_help_desk_is_told_the_steps() {
    let callers = Callers::new();
    let sandbox = Sandbox::start(true);
    let desk = Desk::at(&callers, &sandbox.base_url, sandbox.ca_file.as_deref());
    let lines = desk.print(WELL, |_| ());
    let names = ["route", "name", "connect", "proxy", "tls", "server", "clock", "token", "library"];
    let steps: Vec<&String> = lines.iter().filter(|line| !line.starts_with([' ', 'A'])).collect();
    let told: Vec<&str> = steps.iter().map(|line| line[9..].split(' ').next().expect("a word")).collect();
    assert_eq!(told, names, "{lines:#?}");
    assert!(steps.iter().all(|line| line.starts_with("ok       ") || line.starts_with("skipped  ")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.trim_start().starts_with("certificate 1: ")), "{lines:#?}");
    assert_eq!(lines.last().expect("lines"), "ARCTOS_OK");

    // What fails has advice below it.
    let lines = Desk::at(&callers, &sandbox.base_url, None).print(FAILED, |_| ());
    let failed = lines.iter().position(|line| line.starts_with("failed   tls")).expect("a step that failed");
    let advice = lines[failed..].iter().find(|line| line.trim_start().starts_with("-> ")).expect("advice");
    assert!(advice.contains("tls.ca_file"), "{lines:#?}");
    assert_eq!(lines.last().expect("lines"), "ARCTOS_TLS");
    let lines = desk.print(FAILED, |command| {
        command.env_remove("ARCTOS_TOKEN");
    });
    assert_eq!(lines.last().expect("lines"), "ARCTOS_FORBIDDEN");
    // No appointment is made of it.
    assert_eq!(sandbox.get("/sandbox/appointments")["appointments"], json!([]));
}

#[test]
fn a_help_desk_uses_the_configuration_of_the_program_in_question() {
    let callers = Callers::new();
    let sandbox = Sandbox::start(false);
    let file = callers.folder.path().join("config.json");
    let desk = Desk::configured(&callers, &file);
    for (config, exit, last) in [
        (json!({ "base_url": sandbox.base_url, "token": TOKEN }).to_string(), WELL, Some("ARCTOS_OK")),
        (json!({ "base_url": sandbox.base_url }).to_string(), FAILED, Some("ARCTOS_FORBIDDEN")),
        (json!({ "base_url": sandbox.base_url, "tokne": TOKEN }).to_string(), NOT_DIAGNOSED, None),
        (String::from("{"), NOT_DIAGNOSED, None),
        (format!("{{\"token\":\"{TOKEN}\0\"}}"), NOT_DIAGNOSED, None),
        (" ".repeat(70_000), NOT_DIAGNOSED, None),
    ] {
        fs::write(&file, config).expect("it is written");
        assert_eq!(desk.print(exit, |_| ()).last().map(String::as_str), last);
    }
    fs::remove_file(&file).expect("it is there");
    desk.print(NOT_DIAGNOSED, |_| ());
    Desk::at(&callers, "ftp://127.0.0.1", None).print(NOT_DIAGNOSED, |_| ());
    let none = Desk { callers: &callers, arguments: [Vec::new(), Vec::new()] };
    none.print(NOT_DIAGNOSED, |_| ());
    // Steps that nobody can read are none.
    for mut command in Desk::at(&callers, &sandbox.base_url, None).commands() {
        let full = fs::File::options().write(true).open("/dev/full").expect("Linux has it");
        let end = End::of(command.stdout(full));
        assert_eq!((end.exit, &*end.stderr), (Some(NOT_DIAGNOSED), "the steps could not be printed\n"));
    }
}

/// The program for the start of the day, with a journal and a file of tasks.
struct Branch<'a> {
    callers: &'a Callers,
    sandbox: &'a Sandbox,
}

impl Branch<'_> {
    fn journal(&self) -> PathBuf {
        self.callers.folder.path().join("journal")
    }

    /// Starts the day with tasks of these numbers, and with what the operator types. The end, what is on standard output,
    /// and the questions and complaints by line.
    fn start(&self, options: &[&str], numbers: &[&str], typed: &str) -> (Option<i32>, String, Vec<String>) {
        let folder = self.callers.folder.path();
        let tasks: String = numbers.iter().map(|number| task(number) + "\n").collect();
        fs::write(folder.join("tasks"), tasks).expect("it is written");
        fs::write(folder.join("typed"), typed).expect("it is written");
        let mut command = Command::new(folder.join("restart"));
        command.args(options).arg(&self.sandbox.base_url).arg(self.journal()).arg("m.lin").arg(folder.join("tasks"));
        command.args(&self.sandbox.ca_file).env("ARCTOS_TOKEN", TOKEN);
        command.stdin(fs::File::open(folder.join("typed")).expect("it is there"));
        let End { exit, stdout, stderr } = End::of(&mut command);
        (exit, stdout, stderr.lines().map(str::to_owned).collect())
    }

    /// A client of another program of the branch.
    fn client(&self) -> Owned {
        let Sandbox { base_url, ca_file, .. } = self.sandbox;
        let mut config = json!({ "base_url": base_url, "token": TOKEN, "journal": { "file": self.journal() } });
        if let Some(file) = ca_file {
            config["tls"] = json!({ "roots": "file", "ca_file": file });
        }
        Owned::new(&config)
    }

    /// What the journal has under a number.
    fn row(&self, number: &str) -> Value {
        let rows = self.client().journal_list("{}").json();
        let row = rows["rows"].as_array().expect("rows").iter().find(|row| row["out_task_num"] == number);
        row.expect("a row").clone()
    }
}

const QUESTION: &str = "  was it made? y and its number at the server, n, or nothing for later: ";

#[test]
fn at_the_start_of_the_day_a_person_tells_what_became_of_the_unknown() {
    for tls in [false, true] {
        let (callers, sandbox) = (Callers::new(), Sandbox::start(tls));
        let branch = Branch { callers: &callers, sandbox: &sandbox };
        let numbers = ["plain-1", "reset-after-1", "reset-once-1", "fail-1"];
        let (exit, stdout, complaints) = branch.start(&[], &numbers, "");
        let plain = sandbox.made("plain-1").expect("it is made");
        assert_eq!((exit, &stdout), (Some(MAYBE_MADE), &format!("plain-1 {plain}\n")), "{complaints:?}");
        let said: Vec<(&str, &str)> =
            complaints.iter().map(|line| line.split_once(": ").expect("a number and a code")).collect();
        for (index, (number, code)) in
            [("reset-after-1", "ARCTOS_BROKEN"), ("reset-once-1", "ARCTOS_BROKEN"), ("fail-1", "ARCTOS_FAILED")]
                .into_iter()
                .enumerate()
        {
            assert!(said[index].0 == number && said[index].1.starts_with(code), "{complaints:?}");
        }

        // Nobody is there to answer: nothing is sent again.
        let (exit, stdout, complaints) = branch.start(&[], &numbers, "");
        assert_eq!((exit, &stdout), (Some(MAYBE_MADE), &format!("plain-1 {plain}\n")));
        assert!(complaints[0].starts_with("reset-after-1 is unknown since 20"), "{complaints:?}");
        assert_eq!(complaints[1], QUESTION);
        let unresolved = complaints.iter().filter(|line| line.contains(": ARCTOS_UNRESOLVED: "));
        assert_eq!(unresolved.count(), 2, "{complaints:?}");

        // One has been found at the server, the other one has not.
        let found = sandbox.made("reset-after-1").expect("it is made");
        let typed = format!("what?\ny\n{}\ny {found}\nn\n", "x".repeat(1000));
        let (exit, stdout, complaints) = branch.start(&[], &numbers, &typed);
        let again = sandbox.made("reset-once-1").expect("it is made");
        let made = format!("plain-1 {plain}\nreset-after-1 {found}\nreset-once-1 {again}\n");
        assert_eq!((exit, &stdout), (Some(NOT_MADE), &made), "{complaints:?}");
        let recorded = [
            format!("{}reset-after-1: recorded as created, by m.lin", QUESTION.repeat(4)),
            format!("{QUESTION}reset-once-1: recorded as not created, by m.lin"),
        ];
        assert_eq!([&complaints[1], &complaints[3]], [&recorded[0], &recorded[1]]);
        let row = branch.row("reset-after-1");
        assert_eq!((&row["by"], &row["note"]), (&json!("m.lin"), &json!("at the start of the day")));
        assert_eq!(row["answer"]["info"]["task_num"], *found);

        // From then on it is known, and nothing is asked.
        let (exit, stdout, complaints) = branch.start(&[], &numbers[..3], "");
        assert_eq!((exit, &stdout, complaints), (Some(MADE), &made, Vec::new()));
    }
}

#[test]
fn at_the_start_of_the_day_all_pages_are_shown_and_answers_may_be_arguments() {
    let (callers, sandbox) = (Callers::new(), Sandbox::start(false));
    let branch = Branch { callers: &callers, sandbox: &sandbox };
    // More than two pages.
    let numbers: Vec<String> = (0..43).map(|number| format!("reset-after-{number}")).collect();
    let client = branch.client();
    for number in &numbers {
        assert_eq!(client.add(&task(number)).code, BROKEN);
    }
    let shown = |lines: &[String]| -> Vec<String> {
        let lines = lines.iter().filter_map(|line| line.trim_start_matches(QUESTION).split_once(" is unknown since "));
        lines.map(|(number, _)| number.to_owned()).collect()
    };
    let (exit, stdout, complaints) = branch.start(&[], &[], &"\n".repeat(43));
    assert_eq!((exit, &*stdout), (Some(MAYBE_MADE), ""));
    assert_eq!(shown(&complaints), numbers);

    let found: Vec<String> = numbers.iter().map(|number| sandbox.made(number).expect("it is made")).collect();
    let answers: Vec<&str> =
        numbers[1..].iter().zip(&found[1..]).flat_map(|(number, found)| ["-y", number, found]).collect();
    let (exit, stdout, complaints) = branch.start(&answers, &["reset-after-7"], "");
    assert_eq!((exit, stdout), (Some(MAYBE_MADE), format!("reset-after-7 {}\n", found[7])), "{complaints:?}");
    assert_eq!(shown(&complaints), numbers[..1]);
    assert!(!complaints.iter().any(|line| line.contains(QUESTION)), "{complaints:?}");

    // What nobody has heard of, and what contradicts, is complained of.
    for (answer, code) in [(["-n", "reset-after-7"], "ARCTOS_BAD_ARGUMENT"), (["-n", "stranger"], "ARCTOS_NO_VALUE")] {
        let (exit, stdout, complaints) = branch.start(&answer, &[], "");
        assert_eq!((exit, &*stdout), (Some(MAYBE_MADE), ""), "{complaints:?}");
        assert!(complaints[0].starts_with(&format!("{}: {code}: ", answer[1])), "{complaints:?}");
    }
    let (exit, _, complaints) = branch.start(&["-y", &numbers[0], &found[0]], &[], "");
    assert_eq!(exit, Some(MADE), "{complaints:?}");
    assert_eq!(shown(&complaints), [""; 0]);

    // A number that the server did not give, too.
    assert_eq!(branch.start(&[], &["nonum-1"], "").0, Some(MADE_WITHOUT_NUMBER));
    let (exit, stdout, _) = branch.start(&["-y", "nonum-1", "77"], &["nonum-1"], "");
    assert_eq!((exit, &*stdout), (Some(MADE), "nonum-1 77\n"));
}

#[test]
fn a_day_that_cannot_start_makes_nothing() {
    let (callers, sandbox) = (Callers::new(), Sandbox::start(false));
    let folder = callers.folder.path();
    let program = folder.join("restart");
    let at = |name: &str| folder.join(name).into_os_string();
    fs::write(at("no-journal"), "the minutes of a meeting").expect("it is written");
    fs::write(at("tasks"), task("plain-1")).expect("it is written");
    let url = OsString::from(&sandbox.base_url);
    for (arguments, word) in [
        (vec![], "usage: "),
        (vec!["-y".into(), "1".into(), url.clone(), at("journal"), "m.lin".into()], "usage: "),
        (vec![url.clone(), at("no-journal"), "m.lin".into(), at("tasks")], "ARCTOS_BAD_CONFIG: "),
        (vec![url.clone(), at("journal"), "m.lin".into(), at("missing")], "cannot be opened"),
        (vec!["ftp://127.0.0.1".into(), at("journal"), "m.lin".into(), at("tasks")], "ARCTOS_BAD_CONFIG: "),
    ] {
        let mut command = Command::new(&program);
        let end = End::of(command.args(&arguments).env("ARCTOS_TOKEN", TOKEN).stdin(Stdio::null()));
        assert_eq!((end.exit, &*end.stdout), (Some(NOT_MADE), ""), "{end:?}");
        assert!(end.stderr.contains(word), "{end:?}");
    }
    assert_eq!(sandbox.made("plain-1"), None);

    // What is no task is told by its line, and the others are made.
    fs::write(at("tasks"), format!("{{}}\n\n{}\r\n{}\na\0b", task("plain-1"), "x".repeat(70_000))).expect("written");
    let mut command = Command::new(&program);
    command.args([url, at("journal"), "m.lin".into(), at("tasks")]).env("ARCTOS_TOKEN", TOKEN).stdin(Stdio::null());
    let end = End::of(&mut command);
    let made = sandbox.made("plain-1").expect("it is made");
    assert_eq!((end.exit, end.stdout), (Some(NOT_MADE), format!("plain-1 {made}\n")));
    let complaints: Vec<&str> = end.stderr.lines().collect();
    assert!(complaints[0].starts_with("line 1: ARCTOS_BAD_TASK: "), "{complaints:?}");
    let bad = ["line 4", "line 5"].map(|line| format!("{line} is too long, or holds a NUL, and is no task"));
    assert_eq!(complaints[1..], bad);
}

#[test]
fn a_day_tells_the_numbers_in_lines_or_that_it_could_not() {
    let (callers, sandbox) = (Callers::new(), Sandbox::start(false));
    let folder = callers.folder.path();
    fs::write(folder.join("tasks"), task("plain-1")).expect("it is written");
    let start = |base_url: &str, redirection: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec \"$@\" {redirection}"), "sh"]).arg(folder.join("restart")).arg(base_url);
        shell.arg(folder.join("journal")).arg("m.lin").arg(folder.join("tasks"));
        End::of(shell.env("ARCTOS_TOKEN", TOKEN).stdin(Stdio::null()))
    };
    for redirection in [">/dev/full", ">&-"] {
        let end = start(&sandbox.base_url, redirection);
        let made = sandbox.made("plain-1").expect("it is made");
        let said = format!("plain-1 is made, but its number {made} could not be printed\n");
        assert_eq!((end.exit, &end.stderr), (Some(MADE_WITHOUT_NUMBER), &said));
    }
    // What a server says neither breaks the line nor commands the terminal.
    let (base_url, server) = answer_once(r#"{"status":1,"info":{"task_num":"7\n\u001b8"}}"#.to_owned());
    let end = start(&base_url, "");
    assert_eq!((end.exit, &*end.stdout, &*end.stderr), (Some(MADE), "plain-1 7  8\n", ""));
    server.join().expect("the server saw one request");
}

#[test]
fn the_python_packages_own_tests_pass() {
    let End { exit, stderr, .. } = End::of(
        Command::new("python3")
            .args(["-W", "error", "-m", "unittest", "discover", "-s", "tests"])
            .current_dir(root().join("bindings/python"))
            .env("ARCTOS_LIBRARY", fs::canonicalize(library_path()).expect("run `make build` first"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null()),
    );
    assert_eq!(exit, Some(0), "{stderr}");
    // A run that found no test ends well too.
    assert!(stderr.contains("\nRan ") && !stderr.contains("\nRan 0 tests") && !stderr.contains("skipped"), "{stderr}");
}
