//! Whether the appointment was made, and how a caller without a JSON library reads it from a document.
#![forbid(unsafe_code)]

use crate::code::Code;

/// What a failed call says of the appointment. Not zero means that one may exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Outcome {
    /// The request did not reach the server, or the server said that it did nothing.
    NotCreated = 0,
    /// The server said that it made the appointment.
    Created = 1,
    /// Some of the request went out, and no answer that decides came back.
    Unknown = 2,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Outcome; 3] = [Outcome::NotCreated, Outcome::Created, Outcome::Unknown];

    /// The outcome as documents spell it.
    pub const fn word(self) -> &'static str {
        match self {
            Outcome::NotCreated => "not_created",
            Outcome::Created => "created",
            Outcome::Unknown => "unknown",
        }
    }

    /// The outcome of a call, from its code and its document. Allocates nothing and cannot fail:
    /// what cannot be read is [`Outcome::Unknown`].
    pub fn read(code: i32, document: Option<&[u8]>) -> Outcome {
        Code::row(code).and_then(|row| row.decides).or_else(|| stated(document?)).unwrap_or(Outcome::Unknown)
    }
}

/// The `outcome` at the top of a whole JSON object that states it exactly once.
///
/// A scanner of its own, since every JSON parser at hand allocates, if only for its errors.
fn stated(document: &[u8]) -> Option<Outcome> {
    let mut scan = Scan { rest: document };
    let mut found = None;
    scan.expect(b'{')?;
    if scan.peek()? != b'}' {
        loop {
            let key = scan.string()?;
            scan.expect(b':')?;
            if key == b"outcome" {
                let word = scan.string()?;
                let outcome = Outcome::ALL.into_iter().find(|outcome| outcome.word().as_bytes() == word)?;
                if found.replace(outcome).is_some() {
                    return None;
                }
            } else {
                scan.skip_value()?;
            }
            match scan.peek()? {
                b',' => scan.expect(b',')?,
                _ => break,
            }
        }
    }
    scan.expect(b'}')?;
    scan.peek().is_none().then_some(found)?
}

struct Scan<'a> {
    rest: &'a [u8],
}

impl<'a> Scan<'a> {
    fn peek(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_ascii_start();
        self.rest.first().copied()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.rest = &self.rest[1..])
    }

    /// The raw contents of a string.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        let whole = self.rest;
        let mut at = 0;
        loop {
            match whole.get(at)? {
                b'"' => break,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        self.rest = &whole[at + 1..];
        Some(&whole[..at])
    }

    fn skip_value(&mut self) -> Option<()> {
        let mut depth = 0usize;
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.rest = &self.rest[1..];
                    continue;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.rest = &self.rest[1..];
                }
                b',' | b':' if depth > 0 => {
                    self.rest = &self.rest[1..];
                    continue;
                }
                b',' | b':' => return None,
                _ => {
                    let end = self.rest.iter().position(|byte| b",:]}\"[{ \t\r\n".contains(byte));
                    self.rest = &self.rest[end?..];
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(document: &str) -> Outcome {
        Outcome::read(Code::Timeout.value(), Some(document.as_bytes()))
    }

    #[test]
    fn the_word_at_the_top_counts() {
        assert_eq!(read(r#"{"outcome":"not_created"}"#), Outcome::NotCreated);
        assert_eq!(
            read(r#" { "a" : [1,{"outcome":"created"}], "outcome" : "not_created" , "z":null} "#),
            Outcome::NotCreated
        );
        assert_eq!(read(r#"{"s":"\"outcome\":\"created\"","n":-1.5e3,"outcome":"created"}"#), Outcome::Created);
        assert_eq!(read(r#"{"outcome":"unknown","o":{},"l":[]}"#), Outcome::Unknown);
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        for text in [
            "",
            "{",
            "{}",
            "[]",
            "null",
            r#""outcome""#,
            r#"{"outcome":"not_created""#,
            r#"{"outcome":"not_created"} x"#,
            r#"{"outcome":"not_created","outcome":"created"}"#,
            r#"{"outcome":0}"#,
            r#"{"outcome":"nothing"}"#,
            r#"{"a":{"outcome":"not_created"}}"#,
            r#"{"a":],"outcome":"not_created"}"#,
            r#"{"outcome":"not_created","a":"#,
            r#"{"outcome":"not_created",}"#,
            r#"{"a":,"outcome":"not_created"}"#,
            "{\"outcome\":\"not_created",
        ] {
            assert_eq!(read(text), Outcome::Unknown, "{text}");
        }
        assert_eq!(Outcome::read(-12, None), Outcome::Unknown);
        assert_eq!(Outcome::read(7, None), Outcome::Unknown);
        assert_eq!(Outcome::read(-1000, None), Outcome::Unknown);
    }

    #[test]
    fn some_codes_decide_alone() {
        for (code, outcome) in [
            (0, Outcome::Created),
            (-1, Outcome::NotCreated),
            (-2, Outcome::NotCreated),
            (-3, Outcome::NotCreated),
            (-4, Outcome::NotCreated),
        ] {
            assert_eq!(Outcome::read(code, None), outcome);
            assert_eq!(Outcome::read(code, Some(br#"{"outcome":"unknown"}"#)), outcome);
        }
    }
}
