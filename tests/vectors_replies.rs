//! Raw answers out of the tests of curl and llhttp: each means what its status line says, and nothing else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use arctos_tests::api::*;
use arctos_tests::expected::{self, Expected};
use arctos_tests::http::find;
use arctos_tests::ledger::truth;
use arctos_tests::server::{Script, Seen, Server, Step};
use arctos_tests::stage::{Table, config};
use arctos_tests::vectors::document;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// How many calls run at once.
const THREADS: usize = 8;

/// One answer, from its first byte to the end of the connection.
struct Raw {
    name: String,
    bytes: Vec<u8>,
}

fn replies() -> Option<Vec<Raw>> {
    let document = document("http-replies/raw_replies.json")?;
    let read = |(index, reply): (usize, &serde_json::Value)| {
        let text = |key: &str| reply[key].as_str().expect("a string").to_owned();
        let bytes = STANDARD.decode(text("raw")).expect("base64");
        Raw { name: format!("{index}: {} {:?}", text("src"), text("name")), bytes }
    };
    Some(document.as_array().expect("a list").iter().enumerate().map(read).collect())
}

/// What a reply comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// It does not start as an answer of HTTP/1 does.
    NoAnswer,
    /// It ends before the head does.
    NoHead,
    /// The status decides, whatever follows it.
    Decided(u16),
    /// A 2xx whose body is whole, and not that of the vendor's server.
    Whole,
    /// A 2xx whose body ends before its end.
    Cut,
    /// A 2xx whose head or framing readers may understand differently, so that it is whole for one and not for another.
    Doubtful,
}

impl Class {
    /// The code and the outcome. Of a doubtful one the outcome alone is known.
    fn expected(self) -> Option<Expected> {
        match self {
            Class::NoAnswer | Class::Whole => Some(expected::BAD_RESPONSE_UNKNOWN),
            Class::NoHead | Class::Cut => Some(expected::BROKEN_UNKNOWN),
            Class::Decided(status) => expected::status(status),
            Class::Doubtful => None,
        }
    }
}

/// Reads an answer by its status line, by rules of its own:
///
/// - CR and LF before a status line are skipped.
/// - A status line is `HTTP/1.0` or `HTTP/1.1`, one blank, and three digits from 100 to 999, followed by a blank or the
///   end of the line. It ends with LF, before which a CR may stand.
/// - What cannot become `HTTP/1.` any more is no answer, and neither is another status line, once it is whole.
/// - A head is whole with its first empty line. A whole head with a status that is no 2xx decides.
/// - After an interim answer, 1xx but 101, another one follows by the same rules.
///
/// Longest heads and bodies are left out: no reply comes near them.
fn classify(reply: &[u8]) -> Class {
    const PROTOCOL: &[u8] = b"HTTP/1.";
    let mut rest = reply;
    loop {
        while let [b'\r' | b'\n', after @ ..] = rest {
            rest = after;
        }
        if !rest.starts_with(&PROTOCOL[..rest.len().min(PROTOCOL.len())]) {
            return Class::NoAnswer;
        }
        let Some((first, after)) = line(rest) else { return Class::NoHead };
        let Some(status) = status(first) else { return Class::NoAnswer };
        rest = after;
        let mut fields = Vec::new();
        loop {
            match line(rest) {
                None => return Class::NoHead,
                Some((b"", body)) => {
                    rest = body;
                    break;
                }
                Some((field, after)) => {
                    fields.push(field);
                    rest = after;
                }
            }
        }
        match status {
            101 => return Class::Decided(101),
            100..=199 => {}
            200..=299 => return success(status, first, &fields, rest),
            _ => return Class::Decided(status),
        }
    }
}

/// The first line without its end, and what follows it.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = &bytes[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), &bytes[end + 1..]))
}

fn status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.0 ").or_else(|| line.strip_prefix(b"HTTP/1.1 "))?;
    let digits = rest.split(|byte| *byte == b' ').next()?;
    if digits.len() != 3 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let status = digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
    (status >= 100).then_some(status)
}

/// Reads the body of a 2xx, as far as RFC 9112 leaves no doubt of its end.
fn success(status: u16, first: &[u8], fields: &[&[u8]], body: &[u8]) -> Class {
    // There is no body, so that nothing is there to be read.
    if status == 204 {
        return Class::Whole;
    }
    let Some(fields) = fields.iter().map(|line| field(line)).collect::<Option<Vec<_>>>() else {
        return Class::Doubtful;
    };
    if !first.iter().all(|byte| is_text(*byte)) {
        return Class::Doubtful;
    }
    let all = |wanted: &str| -> Vec<&str> {
        fields.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_str()).collect()
    };
    let class = match (all("content-length").as_slice(), all("transfer-encoding").as_slice()) {
        ([], []) => Class::Whole,
        ([length], []) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
            match length.parse::<usize>() {
                Ok(length) if body.len() >= length => Class::Whole,
                Ok(_) => Class::Cut,
                Err(_) => Class::Doubtful,
            }
        }
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") && first.starts_with(b"HTTP/1.1") => chunked(body),
        _ => Class::Doubtful,
    };
    // A content coding that nobody asked for is a second reason not to read a body.
    if class == Class::Cut && !all("content-encoding").is_empty() { Class::Doubtful } else { class }
}

/// A header line that is well formed: its name in lower case, and its value.
fn field(line: &[u8]) -> Option<(String, String)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let well = !name.is_empty() && name.iter().all(token) && value.iter().all(|byte| is_text(*byte));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    well.then(|| (text(name).to_ascii_lowercase(), text(value.trim_ascii())))
}

/// Neither a control character, but for the tabulator, nor DEL.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Reads a chunked body strictly.
fn chunked(mut rest: &[u8]) -> Class {
    loop {
        let Some(end) = find(rest, b"\r\n") else {
            let begun = rest.strip_suffix(b"\r").unwrap_or(rest);
            return if begun.iter().all(u8::is_ascii_hexdigit) { Class::Cut } else { Class::Doubtful };
        };
        let size = rest[..end].split(|byte| *byte == b';').next().expect("split gives one part at least");
        let digits = (1..=8).contains(&size.len()) && size.iter().all(u8::is_ascii_hexdigit);
        if !digits || !rest[..end].iter().all(|byte| is_text(*byte)) {
            return Class::Doubtful;
        }
        let size = usize::from_str_radix(&String::from_utf8_lossy(size), 16).expect("eight digits at most");
        rest = &rest[end + 2..];
        if size == 0 {
            // The last chunk came: without the line after it, RFC 9112 does not call the body incomplete.
            let ended = rest.starts_with(b"\r\n") || find(rest, b"\r\n\r\n").is_some();
            return if ended { Class::Whole } else { Class::Doubtful };
        }
        let Some(after) = rest.get(size..) else { return Class::Cut };
        match after {
            [] | [b'\r'] => return Class::Cut,
            [b'\r', b'\n', after @ ..] => rest = after,
            _ => return Class::Doubtful,
        }
    }
}

fn number(index: usize) -> String {
    format!("BR0943-{index:04}")
}

/// Makes one call for each reply, several at once.
fn calls(server: &Server, replies: &[Raw]) -> BTreeMap<usize, Reply> {
    let client = Owned::new(&config(&server.base_url()));
    let next = AtomicUsize::new(0);
    let calls = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(reply) = replies.get(index) else { return done };
            let number = number(index);
            server.number(&number, Script::silent().send(&*reply.bytes).fin());
            done.push((index, client.add(&task(&number))));
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(calls)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no call panics")).collect()
    })
}

fn judge(raw: &Raw, class: Class, reply: &Reply, seen: &Seen) -> Result<(), String> {
    let wrong = |what: &str| {
        let start = String::from_utf8_lossy(&raw.bytes[..raw.bytes.len().min(300)]).into_owned();
        Err(format!("{}: {class:?}: {what}\n  {reply:?}\n  {start:?}", raw.name))
    };
    if let Err(what) = truth(reply, 0, &seen.exchanges) {
        return wrong(&what);
    }
    match class.expected() {
        Some(expected) if (reply.code, reply.outcome) != (expected.code, expected.outcome) => {
            wrong(&format!("expected {expected:?}"))
        }
        None if !matches!((reply.code, reply.outcome), (BROKEN | BAD_RESPONSE, UNKNOWN)) => wrong("expected unknown"),
        _ => match class {
            Class::Decided(status) if reply.json()["http_status"] != status => wrong("another http_status"),
            _ => Ok(()),
        },
    }
}

#[test]
fn every_raw_reply_means_what_its_status_line_says() {
    let Some(replies) = replies() else { return };
    let server = Server::plain();
    server.always(Script::request().then(Step::ByNumber));
    let answered = calls(&server, &replies);
    let mut seen = BTreeMap::new();
    for connection in server.settle(0).expect("every connection has ended") {
        let number = connection.numbers().remove(0);
        assert!(seen.insert(number.clone(), connection).is_none(), "{number} went out twice");
    }
    assert_eq!(seen.len(), replies.len());
    let mut table = Table::new();
    let mut counts: BTreeMap<Class, usize> = BTreeMap::new();
    for (index, raw) in replies.iter().enumerate() {
        // What the reader need not know, since no reply has it.
        assert!(raw.bytes.len() < 64 << 10 && find(&raw.bytes, b"\"status\"").is_none(), "{}", raw.name);
        let class = classify(&raw.bytes);
        *counts.entry(class).or_default() += 1;
        table.take(judge(raw, class, &answered[&index], &seen[&number(index)]));
    }
    for (class, count) in &counts {
        println!("{count:5} {class:?} {:?}", class.expected());
    }
    table.finish();
    for class in [Class::NoAnswer, Class::NoHead, Class::Whole, Class::Cut] {
        assert!(counts.contains_key(&class), "no reply is {class:?}");
    }
    assert!(counts.keys().any(|class| matches!(class, Class::Decided(_))), "no status decides");
}
