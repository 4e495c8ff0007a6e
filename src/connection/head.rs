//! The head of an answer, read by its status line alone, so that a complete head decides even where ureq cannot
//! make sense of the fields below it.
#![forbid(unsafe_code)]

use memchr::memchr;

/// The longest head that is read.
pub(super) const LONGEST: usize = 64 * 1024;

/// What the bytes of an answer begin with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// The head is not whole yet.
    Partial,
    /// An interim answer (1xx but 101) of this length; the answer itself follows.
    Interim(usize),
    /// The head of the answer: its status and its length.
    Final(u16, usize),
    /// No HTTP/1 answer.
    Unreadable(&'static str),
}

/// Reads the first head in `bytes`.
pub(super) fn read(bytes: &[u8]) -> Head {
    let start = bytes.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or(bytes.len());
    let text = &bytes[start..];
    const PROTOCOL: &[u8] = b"HTTP/1.";
    let begun = text.len().min(PROTOCOL.len());
    if text[..begun] != PROTOCOL[..begun] {
        return Head::Unreadable("it is no HTTP/1 answer");
    }
    let too_long = bytes.len() > LONGEST;
    let mut rest = text;
    let mut lines = std::iter::from_fn(|| {
        let (line, after) = rest.split_at(memchr(b'\n', rest)? + 1);
        rest = after;
        Some(line)
    });
    let Some(first) = lines.next() else {
        return if too_long { Head::Unreadable("its head is longer than 64 KiB") } else { Head::Partial };
    };
    let Some(status) = status_line(first) else {
        return Head::Unreadable("its status line is none of HTTP/1");
    };
    let mut length = start + first.len();
    for line in lines {
        length += line.len();
        if matches!(line, b"\n" | b"\r\n") {
            return match status {
                _ if length > LONGEST => Head::Unreadable("its head is longer than 64 KiB"),
                100 | 102..=199 => Head::Interim(length),
                _ => Head::Final(status, length),
            };
        }
    }
    if too_long { Head::Unreadable("its head is longer than 64 KiB") } else { Head::Partial }
}

/// `HTTP/1.0 200`, `HTTP/1.1 200 `, `HTTP/1.1 200 OK`: a status of three digits from 100, and a blank or the end of the
/// line behind them.
fn status_line(line: &[u8]) -> Option<u16> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let rest = line.strip_prefix(b"HTTP/1.1 ").or_else(|| line.strip_prefix(b"HTTP/1.0 "))?;
    let (digits, reason) = rest.split_at_checked(3)?;
    let whole =
        digits.iter().all(u8::is_ascii_digit) && digits[0] != b'0' && matches!(reason.first(), None | Some(b' '));
    whole.then(|| digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_line_and_a_blank_line_make_a_head() {
        for (bytes, head) in [
            ("", Head::Partial),
            ("\r\n\r\n", Head::Partial),
            ("HT", Head::Partial),
            ("HTTP/1.1 200 OK\r\n", Head::Partial),
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r", Head::Partial),
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\n{", Head::Final(200, 25)),
            ("\r\nHTTP/1.0 404\n\n", Head::Final(404, 16)),
            ("HTTP/1.1 400 \r\n: broken field\r\n\r\n", Head::Final(400, 33)),
            ("HTTP/1.1 101 Switching\r\n\r\n", Head::Final(101, 26)),
            ("HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP", Head::Interim(31)),
            ("HTTP/1.1 999 x\r\n\r\n", Head::Final(999, 18)),
            ("<html>", Head::Unreadable("it is no HTTP/1 answer")),
            ("HTTP/2 200\r\n\r\n", Head::Unreadable("it is no HTTP/1 answer")),
            ("HTTP/1.1 2000 OK\r\n", Head::Unreadable("its status line is none of HTTP/1")),
            ("HTTP/1.1 099 OK\r\n", Head::Unreadable("its status line is none of HTTP/1")),
            ("HTTP/1.1 404\t\r\n", Head::Unreadable("its status line is none of HTTP/1")),
            ("HTTP/1.1 404\r\r\n", Head::Unreadable("its status line is none of HTTP/1")),
            ("HTTP/1.2 200 OK\r\n", Head::Unreadable("its status line is none of HTTP/1")),
        ] {
            assert_eq!(read(bytes.as_bytes()), head, "{bytes:?}");
        }
        let long = format!("HTTP/1.1 400 x\r\nA: {}", "b".repeat(LONGEST));
        assert!(matches!(read(long.as_bytes()), Head::Unreadable(_)));
    }
}
