//! What is left of secrets in the memory of a process after its texts and its client are freed.
//!
//! A C program uses the library, wipes what it was told, and writes an image of all its memory that can be read, as a
//! core would have it; the test looks in it for markers. It needs no debugger and no right that a process does not have
//! over itself.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use arctos_tests::api::{
    BAD_ARGUMENT, BAD_CONFIG, BAD_RESPONSE, BROKEN, CONFLICT, CONNECT, FAILED, FORBIDDEN, OK, REJECTED, SERVER_ERROR,
    UNRESOLVED,
};
use arctos_tests::deadline::Scheme;
use arctos_tests::http::{Framing, answer, find, head, success_body};
use arctos_tests::proxy::{self, Proxy};
use arctos_tests::server::{Script, Server};
use arctos_tests::stage::{at_once, config, config_tls, with};
use arctos_tests::tls::{Authority, Identity, Version};
use arctos_tests::tools::{Host, Running};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};

/// A secret of one kind: a stem, again and again, so that a part of it is found too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Marker(&'static str);

// Of nine bytes each, so that base64 repeats itself as well. The Q is for escapes in JSON.
const GIVEN: Marker = Marker("tokQg1ven");
const SET: Marker = Marker("tokQs3t7x");
const FIRST_FILE: Marker = Marker("tokQf1le1");
const SECOND_FILE: Marker = Marker("tokQf1le2");
const FIRST_LOGIN: Marker = Marker("tokQl0gn1");
const SECOND_LOGIN: Marker = Marker("tokQl0gn2");
const BAD_LOGIN: Marker = Marker("tokQb4d0n");
const LOGIN_BODY: Marker = Marker("lgQ\"<\\許");
const PASSWORD: Marker = Marker("pxyQ%:@7w");
const OF_ENVIRONMENT: Marker = Marker("envQ/?#9z");
const ANSWER: Marker = Marker("ansQ0w3r5");
const TEXT: Marker = Marker("txtQm4d3x");
const REMARK: Marker = Marker("reQ\"<\\é&");
const KEPT: Marker = Marker("kptQc0ntr");

impl Marker {
    /// Longer than what an allocator writes over when memory is released.
    fn text(self) -> String {
        self.0.repeat(8)
    }

    /// With everything but letters and digits written with %.
    fn in_url(self) -> String {
        let encode = |byte: u8| match byte {
            byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        };
        self.text().bytes().map(encode).collect()
    }

    /// What one stem of it looks like in memory.
    fn spellings(self) -> Vec<(String, Vec<u8>)> {
        let Marker(stem) = self;
        let quoted = json!(stem).to_string();
        let quoted = &quoted[1..quoted.len() - 1];
        let escaped: Vec<u8> = self.in_url().into_bytes();
        let mut spellings = vec![
            ("as it is".to_owned(), stem.as_bytes().to_vec()),
            ("in JSON".to_owned(), quoted.as_bytes().to_vec()),
            ("in JSON, with an escape".to_owned(), escape(quoted).into_bytes()),
            ("in a URL".to_owned(), escaped[..escaped.len() / 8].to_vec()),
            ("in UTF-16".to_owned(), stem.encode_utf16().flat_map(u16::to_ne_bytes).collect()),
            ("in UTF-32".to_owned(), stem.chars().flat_map(|one| u32::from(one).to_ne_bytes()).collect()),
        ];
        for shift in 0..3 {
            let encoded = STANDARD.encode(["x".repeat(shift), stem.repeat(4)].concat());
            spellings.push((format!("in base64, moved by {shift}"), encoded.as_bytes()[12..24].to_vec()));
        }
        spellings
    }
}

/// JSON with an escape in each marker, so that it is no slice of its JSON.
fn escape(json: &str) -> String {
    json.replace('Q', "\\u0051")
}

/// The memory of the program.
struct Image(Vec<u8>);

impl Image {
    /// Where a text stands.
    fn places(&self, text: &[u8]) -> Vec<usize> {
        let mut places = Vec::new();
        let mut from = 0;
        while let Some(rest) = self.0.get(from..) {
            // SAFETY: both are valid for their lengths. What it gives points into `rest`, or is NULL.
            let found = unsafe { libc::memmem(rest.as_ptr().cast(), rest.len(), text.as_ptr().cast(), text.len()) };
            if found.is_null() {
                break;
            }
            let place = from + (found.addr() - rest.as_ptr().addr());
            places.push(place);
            from = place + text.len();
        }
        places
    }

    fn holds(&self, marker: Marker) -> bool {
        !self.left(&format!("{marker:?}"), marker.spellings()).is_empty()
    }

    /// What is left of a secret, for a message.
    fn left(&self, secret: &str, spellings: Vec<(String, Vec<u8>)>) -> Vec<String> {
        let mut left = Vec::new();
        for (spelling, text) in spellings {
            let places = self.places(&text);
            if let Some(first) = places.first() {
                let around = &self.0[first.saturating_sub(64)..(first + 64).min(self.0.len())];
                let around = String::from_utf8_lossy(around);
                left.push(format!("{secret} {spelling}, {} times, the first in {around:?}", places.len()));
            }
        }
        left
    }
}

/// The program.
struct Program {
    host: Host,
    _process: Running,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Program {
    fn start() -> Program {
        let host = Host::new("secrets");
        let mut command: Command = host.command();
        for name in ["no_proxy", "NO_PROXY"] {
            command.env_remove(name);
        }
        let mut process = Running(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts"));
        let input = process.0.stdin.take().expect("a pipe");
        let output = BufReader::new(process.0.stdout.take().expect("a pipe"));
        Program { host, _process: process, input, output }
    }

    /// One command, which must come to this code.
    #[track_caller]
    fn tell(&mut self, command: char, text: impl AsRef<str>, code: i32) {
        let text = text.as_ref();
        assert!(!text.contains('\n'), "a command is one line");
        writeln!(self.input, "{command}{text}").expect("it listens");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("text");
        assert_eq!(line.trim_end(), code.to_string(), "{command}{text}");
    }

    #[track_caller]
    fn image(&mut self) -> Image {
        let path = self.host.folder().join("image");
        self.tell('i', path.to_str().expect("a path in UTF-8"), 0);
        let image = Image(std::fs::read(&path).expect("it was written"));
        std::fs::remove_file(&path).expect("it is there");
        image
    }

    /// Looks whether nothing is left of secrets when all is freed, after it has made sure that they would be found: one
    /// that the program keeps, and one that the client needs.
    #[track_caller]
    fn forgets(mut self, needed: Marker, secrets: &[Marker]) -> Image {
        self.tell('k', KEPT.text(), 0);
        self.tell('r', "", 0);
        let before = self.image();
        assert!(before.holds(KEPT), "the search does not find what is there");
        assert!(before.holds(needed), "the search does not find what the client needs");
        self.tell('f', "", 0);
        let after = self.image();
        assert!(after.holds(KEPT), "the search does not find what is there");
        let left = secrets.iter().flat_map(|secret| after.left(&format!("{secret:?}"), secret.spellings()));
        let left: Vec<String> = left.collect();
        assert!(left.is_empty(), "{}", left.join("\n"));
        after
    }
}

/// A server, and the keys of a client that trusts it.
struct Site {
    server: Server,
    authority: Authority,
    https: bool,
}

impl Site {
    fn over(scheme: Scheme) -> Site {
        let authority = Authority::new();
        let (server, https) = match scheme {
            Scheme::Http => (Server::plain(), false),
            Scheme::Https(version) => {
                (Server::start("127.0.0.1", Some(authority.server(Identity::right(version)))), true)
            }
        };
        Site { server, authority, https }
    }

    /// Without a token, with further keys; with every Q written as an escape.
    fn config(&self, keys: Value) -> String {
        let url = self.server.base_url();
        let mut config = if self.https { config_tls(&url, &self.authority) } else { config(&url) };
        config.as_object_mut().expect("an object").remove("token");
        escape(&with(config, keys).to_string())
    }

    /// The next connection's answer.
    fn says(&self, status: &str, framing: Framing, body: impl AsRef<[u8]>) {
        self.server.next(Script::request().send(answer(status, framing, body.as_ref())).close());
    }
}

fn task(number: &str) -> String {
    let mut task: Value = serde_json::from_str(&arctos_tests::api::task(number)).expect("JSON");
    task["task_remark"] = json!(REMARK.text());
    task["customer"] = json!({ "name": REMARK.text() });
    task.to_string()
}

/// A success with more in it than its number.
fn success(number: &str) -> String {
    let mut body: Value = serde_json::from_str(&success_body(number)).expect("JSON");
    body["info"]["for"] = json!(ANSWER.text());
    body.to_string()
}

/// Failures of every kind, in which the server says again what it was told, and a success at their end.
fn calls(program: &mut Program, site: &Site, secrets: &[Marker]) {
    let echo = secrets.iter().map(|secret| secret.text()).collect::<Vec<_>>().join(" ");
    let page = format!("<html>{echo} {}</html>", json!(echo));
    for framing in [Framing::Length, Framing::Chunked(7), Framing::Close] {
        site.says("400 Bad", framing, json!({ "status": 0, "message": echo, "echo": echo }).to_string());
        program.tell('a', task("N1"), REJECTED);
        site.says("200 OK", framing, json!({ "status": 0, "message": echo }).to_string());
        program.tell('a', task("N2"), FAILED);
        site.says("500 No", framing, page.repeat(40));
        program.tell('a', task("N3"), SERVER_ERROR);
        site.says("200 OK", framing, [page.as_bytes(), b"\xff"].concat());
        program.tell('a', task("N4"), BAD_RESPONSE);
    }
    site.server.next(Script::request().fin());
    program.tell('a', task("N5"), BROKEN);
    site.server.next(Script::request().send(head("302 Found", &["Location: /x", "Content-Length: 0"])).close());
    program.tell('p', format!("/x {}", task("N6")), BAD_RESPONSE);
    for framing in [Framing::Length, Framing::Chunked(7)] {
        site.says("200 OK", framing, success("N7"));
        program.tell('a', task("N7"), OK);
        program.tell('g', "/info/for", OK);
    }
    program.tell('s', TEXT.text(), OK);
}

fn schemes() -> [Scheme; 3] {
    [Scheme::Http, Scheme::Https(Version::Tls12), Scheme::Https(Version::Tls13)]
}

#[test]
fn a_token_is_forgotten() {
    at_once(schemes(), |scheme| {
        let (site, mut program) = (Site::over(scheme), Program::start());
        program.tell('c', site.config(json!({ "token": format!("{}\n", GIVEN.text()) })), BAD_CONFIG);
        program.tell('c', site.config(json!({ "token": GIVEN.text(), "keep_bodies": true })), OK);
        calls(&mut program, &site, &[GIVEN, REMARK]);
        program.tell('t', format!("{}\t", SET.text()), BAD_ARGUMENT);
        program.tell('t', SET.text(), OK);
        calls(&mut program, &site, &[SET, REMARK]);
        program.forgets(SET, &[GIVEN, SET, ANSWER, TEXT, REMARK]);
    });
}

#[test]
fn nothing_of_a_task_is_left_by_a_journal() {
    at_once(schemes(), |scheme| {
        let (site, mut program, folder) = (Site::over(scheme), Program::start(), TempDir::new().expect("a folder"));
        let keys = json!({ "token": GIVEN.text(), "journal": { "file": folder.path().join("journal") } });
        program.tell('c', site.config(keys), OK);
        site.says("400 Bad", Framing::Length, json!({ "status": 0, "message": REMARK.text() }).to_string());
        program.tell('a', task("N1"), REJECTED);
        site.server.next(Script::request().fin());
        program.tell('a', task("N2"), BROKEN);
        site.says("200 OK", Framing::Length, success("N3"));
        program.tell('a', task("N3"), OK);
        // From the journal, and against it.
        program.tell('a', task("N3"), OK);
        program.tell('a', task("N2"), UNRESOLVED);
        program.tell('a', task("N3").replace("943", "944"), CONFLICT);
        program.forgets(GIVEN, &[GIVEN, REMARK]);
    });
}

#[test]
fn a_token_of_a_file_is_forgotten() {
    at_once(schemes(), |scheme| {
        let (site, mut program) = (Site::over(scheme), Program::start());
        let file = NamedTempFile::new().expect("a file");
        let write = |text: String| std::fs::write(file.path(), text).expect("it is written");
        let config = site.config(json!({ "token_file": file.path(), "keep_bodies": true }));
        write(format!("{} {}", FIRST_FILE.text(), "\u{1}".repeat(9000)));
        program.tell('c', &config, BAD_CONFIG);
        write(format!("\u{feff} {}\r\n", FIRST_FILE.text()));
        program.tell('c', &config, OK);
        let page = format!("<html>{}</html>", FIRST_FILE.text());
        site.says("403 No", Framing::Length, &page);
        program.tell('a', task("N1"), FORBIDDEN);
        write(SECOND_FILE.text());
        site.says("403 No", Framing::Length, &page);
        site.says("200 OK", Framing::Length, success("N2"));
        program.tell('a', task("N2"), OK);
        calls(&mut program, &site, &[SECOND_FILE, REMARK]);
        program.forgets(SECOND_FILE, &[FIRST_FILE, SECOND_FILE, ANSWER, REMARK]);
    });
}

#[test]
fn a_log_in_is_forgotten() {
    at_once(schemes(), |scheme| {
        let (site, mut program) = (Site::over(scheme), Program::start());
        let login = json!({
            "path": "/login",
            "body": { "user": "teller", "password": LOGIN_BODY.text() },
            "token_pointer": "/info/token",
        });
        program.tell('c', site.config(json!({ "login": login, "keep_bodies": true })), OK);
        // Long, so that it comes in pieces.
        let answer = |token: String| json!({ "first": "x".repeat(40_000), "info": { "token": token } }).to_string();
        let escaped = |token: String| escape(&answer(token));
        let words = json!({ "message": format!("{} {}", LOGIN_BODY.text(), BAD_LOGIN.text()) }).to_string();
        for framing in [Framing::Length, Framing::Chunked(1000), Framing::Close] {
            site.says("401 No", framing, &words);
            program.tell('a', task("N1"), FORBIDDEN);
            site.says("500 No", framing, &words);
            program.tell('a', task("N1"), SERVER_ERROR);
            site.says("200 OK", framing, &words);
            program.tell('a', task("N1"), FORBIDDEN);
            site.says("200 OK", framing, [answer(BAD_LOGIN.text()).as_bytes(), b"\xff"].concat());
            program.tell('a', task("N1"), BAD_RESPONSE);
            for token in ["\n", "\0", "許"].map(|end| BAD_LOGIN.text() + end) {
                site.says("200 OK", framing, escaped(token));
                program.tell('a', task("N1"), BAD_RESPONSE);
            }
        }
        site.says("200 OK", Framing::Length, answer(FIRST_LOGIN.text()));
        site.says("200 OK", Framing::Length, success("N2"));
        program.tell('a', task("N2"), OK);
        site.says("403 No", Framing::Length, &words);
        site.says("200 OK", Framing::Chunked(1000), escaped(SECOND_LOGIN.text()));
        site.says("200 OK", Framing::Length, success("N3"));
        program.tell('a', task("N3"), OK);
        calls(&mut program, &site, &[SECOND_LOGIN, LOGIN_BODY, REMARK]);
        let secrets = [FIRST_LOGIN, SECOND_LOGIN, BAD_LOGIN, LOGIN_BODY, ANSWER, REMARK];
        program.forgets(SECOND_LOGIN, &secrets);
    });
}

#[test]
fn the_password_of_a_proxy_is_forgotten() {
    at_once(schemes(), |scheme| {
        let (site, mut program) = (Site::over(scheme), Program::start());
        let proxy = Proxy::to(site.server.address());
        for (setting, marker) in [("env", OF_ENVIRONMENT), ("", PASSWORD)] {
            let url = proxy.url_with(&format!("teller:{}", marker.in_url()));
            let setting = if setting.is_empty() { &url } else { setting };
            let scheme = if site.https { "https" } else { "http" };
            program.tell('e', format!("{scheme}_proxy={}", url.replace("teller", "teller%")), 0);
            program.tell('c', site.config(json!({ "token": GIVEN.text(), "proxy": format!("{url}/x") })), BAD_CONFIG);
            program.tell('e', format!("{scheme}_proxy={url}"), 0);
            program.tell('c', site.config(json!({ "token": GIVEN.text(), "proxy": setting })), OK);
            program.tell('e', "", 0);
            let basic = STANDARD.encode(format!("teller:{}", marker.text()));
            let echo = format!("X-Echo: {basic} {}", marker.in_url());
            for status in ["407 No", "502 No"] {
                let page = "x".repeat(9000) + &basic;
                proxy.next(proxy::Script::head().send(head(status, &[&echo])).send(page).fin());
                program.tell('a', task("N1"), CONNECT);
            }
            calls(&mut program, &site, &[GIVEN, marker, REMARK]);
            program.tell('r', "", 0);
            if setting == "env" {
                program.tell('f', "", 0);
            }
        }
        program.forgets(PASSWORD, &[OF_ENVIRONMENT, PASSWORD, GIVEN, ANSWER, REMARK]);
    });
}

/// The parts of a private key of ECDSA as its file has them, from the text of the file.
fn parts_of_key(pem: &str) -> Vec<(String, Vec<u8>)> {
    const LENGTH: usize = 32;
    let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(&text).expect("base64");
    // What stands before it in PKCS#8: the version, and an octet string of its length.
    let start = find(&der, &[2, 1, 1, 4, 32]).expect("a private key") + 5;
    let number = &der[start..start + LENGTH];
    let backwards: Vec<u8> = number.iter().rev().copied().collect();
    let binary = |what: &str, bytes: &[u8]| (what.to_owned(), bytes.to_vec());
    let mut parts = Vec::new();
    for half in 0..2 {
        let half = half * LENGTH / 2..(half + 1) * LENGTH / 2;
        parts.push(binary("in binary", &number[half.clone()]));
        parts.push(binary("in binary, backwards", &backwards[half]));
    }
    let encoded = &text.as_bytes()[start.div_ceil(3) * 4..(start + LENGTH) / 3 * 4];
    parts.extend(encoded.chunks_exact(12).map(|part| binary("in PEM", part)));
    parts
}

#[test]
fn the_key_of_a_client_is_forgotten() {
    for version in [Version::Tls12, Version::Tls13] {
        let identity = Identity { asks_for_certificate: true, ..Identity::right(version) };
        let authority = Authority::new();
        let server = Server::start("127.0.0.1", Some(authority.server(identity)));
        let files = authority.client(None);
        let key = std::fs::read_to_string(files.key_file()).expect("a file");
        let parts = parts_of_key(&key);
        let mut keeping = Program::start();
        keeping.tell('k', key.replace('\n', " "), 0);
        assert!(!keeping.image().left("the key", parts.clone()).is_empty(), "the search does not find what is there");

        let site = Site { server, authority, https: true };
        let mut program = Program::start();
        // One whose certificate is another's, so that the key is read and refused.
        let stranger = site.authority.client(None);
        let tls = |cert_file: &str| {
            site.authority.trusted_with(json!({ "cert_file": cert_file, "key_file": files.key_file() }))
        };
        program.tell('c', site.config(tls(stranger.cert_file())), BAD_CONFIG);
        // Its connection is kept until the client is freed.
        let keys = with(tls(files.cert_file()), json!({ "token": GIVEN.text(), "idle_timeout_ms": 60_000 }));
        program.tell('c', site.config(keys), OK);
        site.server.next(Script::forever(Script::served()));
        program.tell('a', task("N1"), OK);
        program.tell('a', task("N2"), OK);
        let image = program.forgets(GIVEN, &[GIVEN, REMARK]);
        let left = image.left("the key", parts);
        assert!(left.is_empty(), "{}", left.join("\n"));
    }
}
