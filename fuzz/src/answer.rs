//! A reader of answers by their bytes, after RFC 9112 and the contract.

use arctos::{Code, Outcome};

use crate::json::{self, Shape, Unread, Value};

/// What a caller is told.
pub type Expected = (Code, Outcome);

const BROKEN: Expected = (Code::Broken, Outcome::Unknown);
const UNREADABLE: Expected = (Code::BadResponse, Outcome::Unknown);
const MADE: Expected = (Code::Ok, Outcome::Created);
const NAMELESS: Expected = (Code::BadResponse, Outcome::Created);
const REFUSED: Expected = (Code::Failed, Outcome::NotCreated);

/// What an answer comes to, that ended in good order with its last byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// It does not start as an answer of HTTP/1 does.
    NoAnswer,
    /// It ends before the head does.
    NoHead,
    /// The status decides, whatever follows it.
    Decided(u16),
    /// A 2xx with this body.
    Whole(Vec<u8>),
    /// A 2xx whose body ends before its end.
    Cut,
    /// A 2xx whose framing readers understand differently by the contract.
    Ambiguous,
    /// A 2xx that is not well formed: what it comes to depends on how far a reader goes along. These are the bodies
    /// that one could find.
    Doubtful(Vec<Vec<u8>>),
}

impl Class {
    /// Doubtful, with these bodies, or what one that is told its length could take for them.
    fn doubtful(mut bodies: Vec<Vec<u8>>) -> Class {
        for index in 0..bodies.len() {
            let text = bodies[index].utf8_chunks().next().map_or("", |chunk| chunk.valid());
            if let Ok(value) = json::read_start(text) {
                bodies.push(value.raw.as_bytes().to_vec());
            }
        }
        Class::Doubtful(bodies)
    }

    /// What a caller may be told: one thing alone, but for what is not clear.
    pub fn expected(&self) -> Vec<Expected> {
        match self {
            Class::NoAnswer => vec![UNREADABLE],
            Class::NoHead | Class::Cut => vec![BROKEN],
            Class::Decided(status) => vec![decided(*status)],
            Class::Whole(body) => envelope(body),
            Class::Ambiguous => vec![BROKEN, UNREADABLE],
            Class::Doubtful(bodies) => {
                bodies.iter().flat_map(|body| envelope(body)).chain([BROKEN, UNREADABLE]).collect()
            }
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
/// Longest heads and bodies are left out.
pub fn classify(answer: &[u8]) -> Class {
    const PROTOCOL: &[u8] = b"HTTP/1.";
    let mut rest = answer;
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
            100 | 102..=199 => {}
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

/// The contract's table of statuses that are no 2xx.
fn decided(status: u16) -> Expected {
    match status {
        401 | 403 => (Code::Forbidden, Outcome::NotCreated),
        404 => (Code::NotFound, Outcome::NotCreated),
        429 => (Code::Busy, Outcome::NotCreated),
        400 | 405 | 406 | 407 | 410 | 411 | 413 | 414 | 415 | 417 | 421 | 422 | 431 => {
            (Code::Rejected, Outcome::NotCreated)
        }
        400..=499 => (Code::Rejected, Outcome::Unknown),
        503 => (Code::Busy, Outcome::Unknown),
        500..=599 => (Code::ServerError, Outcome::Unknown),
        _ => UNREADABLE,
    }
}

/// No reader has to take more lines than these.
const MOST_FIELDS: usize = 100;

/// Reads the body of a 2xx, as far as RFC 9112 and the contract leave no doubt of its end.
fn success(status: u16, first: &[u8], lines: &[&[u8]], body: &[u8]) -> Class {
    let doubtful = || Class::doubtful(vec![body.to_vec(), tolerant(body)]);
    // There is no body, so that nothing is there to be read.
    if status == 204 {
        return Class::Whole(Vec::new());
    }
    let Some(fields) = lines.iter().map(|line| field(line)).collect::<Option<Vec<_>>>() else { return doubtful() };
    if !first.iter().all(|byte| is_text(*byte)) || fields.len() > MOST_FIELDS {
        return doubtful();
    }
    let all = |wanted: &str| -> Vec<&str> {
        let values = fields.iter().filter(|(name, _)| name == wanted).flat_map(|(_, value)| value.split(','));
        values.map(|value| value.trim_matches([' ', '\t'])).collect()
    };
    let encoded = all("content-encoding").iter().any(|coding| !coding.eq_ignore_ascii_case("identity"));
    match (all("content-length").as_slice(), all("transfer-encoding").as_slice()) {
        _ if encoded => Class::Ambiguous,
        ([], []) => Class::Whole(body.to_vec()),
        ([length], []) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
            match length.parse::<usize>() {
                Ok(length) if body.len() >= length => Class::Whole(body[..length].to_vec()),
                Ok(_) => Class::Cut,
                Err(_) => Class::Ambiguous,
            }
        }
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") && first.starts_with(b"HTTP/1.1") => chunked(body),
        ([], _) => Class::Ambiguous,
        // A length that stands there twice may be read.
        (lengths, []) if lengths.iter().all(|length| length == &lengths[0]) => doubtful(),
        (_, _) => Class::Ambiguous,
    }
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

/// No reader has to take a longer line with the size of a chunk, whatever extensions stand in it.
const LONGEST_SIZE: usize = 16;

/// Reads a chunked body strictly.
fn chunked(body: &[u8]) -> Class {
    let doubtful = || Class::doubtful(vec![tolerant(body)]);
    let mut rest = body;
    let mut whole = Vec::new();
    loop {
        let Some(end) = find(rest, b"\r\n") else {
            let begun = rest.strip_suffix(b"\r").unwrap_or(rest);
            let plain = begun.len() <= LONGEST_SIZE && begun.iter().all(u8::is_ascii_hexdigit);
            return if plain { Class::Cut } else { doubtful() };
        };
        let size = rest[..end].split(|byte| *byte == b';').next().expect("split gives one part at least");
        let digits = (1..=8).contains(&size.len()) && size.iter().all(u8::is_ascii_hexdigit);
        if !digits || end > LONGEST_SIZE || !rest[..end].iter().all(|byte| is_text(*byte)) {
            return doubtful();
        }
        let size = usize::from_str_radix(&String::from_utf8_lossy(size), 16).expect("eight digits at most");
        rest = &rest[end + 2..];
        if size == 0 {
            // Only trailers, which nobody asks for, could follow; ours are the end, or none at all.
            return if rest.is_empty() || rest.starts_with(b"\r\n") { Class::Whole(whole) } else { doubtful() };
        }
        let Some((chunk, after)) = rest.split_at_checked(size) else { return Class::Cut };
        whole.extend_from_slice(chunk);
        match after {
            [] | [b'\r'] => return Class::Cut,
            [b'\r', b'\n', after @ ..] => rest = after,
            _ => return doubtful(),
        }
    }
}

fn find(whole: &[u8], part: &[u8]) -> Option<usize> {
    whole.windows(part.len()).position(|window| window == part)
}

/// What a reader of chunks finds that takes any line end, and what it likes of a line.
fn tolerant(body: &[u8]) -> Vec<u8> {
    let mut rest = body;
    let mut whole = Vec::new();
    while let Some((first, after)) = line(rest) {
        // Blanks and a sign before the size do no harm to such a reader.
        let first = String::from_utf8_lossy(first);
        let first = first.trim_start();
        let first = first.strip_prefix('+').unwrap_or(first);
        let digits = first.bytes().take_while(u8::is_ascii_hexdigit).count();
        let size = usize::from_str_radix(&first[..digits], 16).unwrap_or(0);
        let (chunk, after) = after.split_at(size.min(after.len()));
        whole.extend_from_slice(chunk);
        if size == 0 {
            break;
        }
        rest = after.strip_prefix(b"\r\n").or_else(|| after.strip_prefix(b"\n")).unwrap_or(after);
    }
    whole
}

/// What the body of a 2xx says, by the decisions 8 to 11 of the contract: one thing alone, but for a text that this
/// reader gives up on.
fn envelope(body: &[u8]) -> Vec<Expected> {
    let Ok(text) = std::str::from_utf8(body) else { return vec![UNREADABLE] };
    let envelope = match json::read(text) {
        Ok(envelope) => envelope,
        Err(Unread::NotJson) => return vec![UNREADABLE],
        Err(Unread::TooDeep) => return vec![UNREADABLE, MADE, NAMELESS, REFUSED],
    };
    if ["status", "message", "info"].iter().any(|name| envelope.all(name).len() > 1) {
        return vec![UNREADABLE];
    }
    let word = |value: &Value| match value.is_number() {
        true => Some(value.raw.to_owned()),
        false => value.text().map(str::to_owned),
    };
    let number = number(envelope.get("info"));
    match (envelope.get("status").and_then(word).as_deref(), number) {
        (Some("1" | "2"), Number::There) => vec![MADE],
        (Some("1" | "2"), Number::NoText) => vec![MADE, NAMELESS],
        (Some("1" | "2"), _) => vec![NAMELESS],
        (Some("0"), Number::Missing) => vec![REFUSED],
        _ => vec![UNREADABLE],
    }
}

/// What stands in the place of the task number.
enum Number {
    There,
    /// Nothing, or what servers write for nothing.
    Missing,
    /// A string that no text can hold.
    NoText,
    Unreadable,
}

fn number(info: Option<&Value>) -> Number {
    let Some(info) = info.filter(|info| !is_nothing(info)) else { return Number::Missing };
    if info.members().is_none() {
        return Number::Unreadable;
    }
    match info.all("task_num").as_slice() {
        [] => Number::Missing,
        [number] if is_nothing(number) => Number::Missing,
        [number] if number.is_number() || number.text().is_some() => Number::There,
        [number] if number.is_string() => Number::NoText,
        _ => Number::Unreadable,
    }
}

fn is_nothing(value: &Value) -> bool {
    match &value.shape {
        Shape::Null => true,
        Shape::String(text) => text.as_deref().is_some_and(|text| text.trim().is_empty()),
        Shape::Array(elements) => elements.iter().all(is_void),
        Shape::Object(members) => members.is_empty(),
        Shape::Number | Shape::Boolean => false,
    }
}

/// An array or object without contents.
fn is_void(value: &Value) -> bool {
    matches!(value.shape, Shape::Array(_) | Shape::Object(_)) && is_nothing(value)
}
