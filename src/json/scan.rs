//! A fast reader of JSON as programs write it. What it takes, serde_json takes, and reads alike; what it does not take
//! may be JSON all the same, and is left to serde_json, which also says what is wrong with it.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::{Member, Value};
use crate::memory;

/// serde_json takes 127.
const DEEPEST: u32 = 64;

/// The members of a text that is an object without an escape in a key.
pub(super) fn object(text: &str) -> Option<Vec<(Cow<'_, str>, Value<'_>)>> {
    let mut scan = Scan { text, at: 0 };
    let mut members = Vec::new();
    // Of most objects at once.
    members.try_reserve((text.len() / 24).clamp(1, 16)).ok()?;
    scan.list(b'{', b'}', |scan| {
        let key = scan.key()?;
        memory::push(&mut members, (Cow::Borrowed(key), scan.value(DEEPEST)?)).ok()
    })?;
    scan.end()?;
    Some(members)
}

/// What a text that is an object without an escape in a key has under these names.
pub(super) fn pick<'a, const N: usize>(text: &'a str, names: [&str; N]) -> Option<[Member<'a>; N]> {
    let mut scan = Scan { text, at: 0 };
    let found = scan.members(names)?;
    scan.end()?;
    Some(found)
}

/// The elements of a text that is an array.
pub(super) fn array(text: &str) -> Option<Vec<Value<'_>>> {
    let mut scan = Scan { text, at: 0 };
    let mut elements = Vec::new();
    scan.list(b'[', b']', |scan| memory::push(&mut elements, scan.value(DEEPEST)?).ok())?;
    scan.end()?;
    Some(elements)
}

/// The elements of a text that is an array, each with what it has under a name if it is an object.
pub(super) fn array_with<'a>(text: &'a str, name: &str) -> Option<Vec<(Value<'a>, Member<'a>)>> {
    let mut scan = Scan { text, at: 0 };
    let mut elements = Vec::new();
    scan.list(b'[', b']', |scan| {
        scan.blanks();
        let mut found = Member::Missing;
        let element = if scan.next() == Some(b'{') {
            let start = scan.at;
            [found] = scan.members([name])?;
            Value { text: &text[start..scan.at], is_plain: false }
        } else {
            scan.value(DEEPEST)?
        };
        memory::push(&mut elements, (element, found)).ok()
    })?;
    scan.end()?;
    Some(elements)
}

/// The value that a text is.
pub(super) fn value(text: &str) -> Option<Value<'_>> {
    let mut scan = Scan { text, at: 0 };
    let value = scan.value(DEEPEST)?;
    scan.end()?;
    Some(value)
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    #[inline(always)]
    fn next(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Passes what is there for sure.
    #[inline(always)]
    fn pass(&mut self, byte: u8) -> Option<()> {
        (self.next() == Some(byte)).then(|| self.at += 1)
    }

    #[inline(always)]
    fn blanks(&mut self) {
        while matches!(self.next(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Nothing but blanks is left.
    fn end(&mut self) -> Option<()> {
        self.blanks();
        self.next().is_none().then_some(())
    }

    /// What stands between two brackets, with commas between.
    #[inline(always)]
    fn list(&mut self, open: u8, close: u8, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.blanks();
        self.pass(open)?;
        self.blanks();
        if self.pass(close).is_some() {
            return Some(());
        }
        loop {
            each(self)?;
            self.blanks();
            if self.pass(b',').is_none() {
                return self.pass(close);
            }
        }
    }

    /// What an object has under these names.
    #[inline(always)]
    fn members<const N: usize>(&mut self, names: [&str; N]) -> Option<[Member<'a>; N]> {
        let mut found = [Member::Missing; N];
        self.list(b'{', b'}', |scan| {
            let (key, value) = (scan.key()?, scan.value(DEEPEST)?);
            if let Some(place) = names.iter().position(|name| key == *name) {
                found[place].and(value);
            }
            Some(())
        })?;
        Some(found)
    }

    /// A key without escapes, and its colon.
    #[inline(always)]
    fn key(&mut self) -> Option<&'a str> {
        self.blanks();
        let start = self.at;
        let escaped = self.string()?;
        let key = &self.text[start + 1..self.at - 1];
        self.blanks();
        self.pass(b':')?;
        (!escaped).then_some(key)
    }

    #[inline(always)]
    fn value(&mut self, deepest: u32) -> Option<Value<'a>> {
        self.blanks();
        let start = self.at;
        let mut is_plain = false;
        match self.next()? {
            b'"' => self.string().map(|escaped| is_plain = !escaped),
            b'{' | b'[' => self.nested(deepest.checked_sub(1)?),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number(),
        }?;
        Some(Value { text: &self.text[start..self.at], is_plain })
    }

    fn nested(&mut self, deepest: u32) -> Option<()> {
        match self.next() {
            Some(b'{') => self.list(b'{', b'}', |scan| scan.key().and_then(|_| scan.value(deepest)).map(drop)),
            _ => self.list(b'[', b']', |scan| scan.value(deepest).map(drop)),
        }
    }

    #[inline(always)]
    fn word(&mut self, word: &str) -> Option<()> {
        self.text.as_bytes()[self.at..].starts_with(word.as_bytes()).then(|| self.at += word.len())
    }

    /// Whether it has escapes.
    #[inline(always)]
    fn string(&mut self) -> Option<bool> {
        self.pass(b'"')?;
        let bytes = self.text.as_bytes();
        let mut escaped = false;
        loop {
            self.at += plain(&bytes[self.at..])?;
            match bytes[self.at] {
                b'"' => {
                    self.at += 1;
                    return Some(escaped);
                }
                b'\\' => match bytes.get(self.at + 1)? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 2,
                    b'u' => {
                        let digits = bytes.get(self.at + 2..self.at + 6)?;
                        if !digits.iter().all(u8::is_ascii_hexdigit) {
                            return None;
                        }
                        self.at += 6;
                    }
                    _ => return None,
                },
                _ => return None,
            }
            escaped = true;
        }
    }

    #[inline(always)]
    fn number(&mut self) -> Option<()> {
        let _ = self.pass(b'-');
        match self.next()? {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits()?,
            _ => return None,
        }
        if self.pass(b'.').is_some() {
            self.digits()?;
        }
        if matches!(self.next(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.next(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    /// At least one.
    #[inline(always)]
    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.next().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

/// How many bytes stand before the first quote, backslash or control character.
#[inline(always)]
fn plain(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let mut done = 0;
    while let Some(word) = bytes[done..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*word);
        let (quote, backslash) = (word ^ (ONES * u64::from(b'"')), word ^ (ONES * u64::from(b'\\')));
        // The high bit of each byte that is looked for, at least of the first such one.
        let found = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(ONES * u64::from(b' ')) & !word);
        if found & HIGH != 0 {
            return Some(done + ((found & HIGH).trailing_zeros() / 8) as usize);
        }
        done += 8;
    }
    let found = bytes[done..].iter().position(|byte| matches!(byte, b'"' | b'\\' | ..b' '))?;
    Some(done + found)
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    /// What serde_json reads of the same text.
    fn wanted(text: &str) -> Option<&str> {
        serde_json::from_str::<&RawValue>(text).ok().map(RawValue::get)
    }

    #[test]
    fn what_is_taken_is_json_and_read_as_serde_json_reads_it() {
        let seeds = [
            r#" {"a":1,"b":[true,false,null, -0.5e+7 ,"x\"\\\/\b\f\n\r\t\u8A31\ud800"],"c":{"d":{}},"許":"功" } "#,
            r#"[0,-0,10,1.5,2E3,3e-4,[],{},[[[]]],"",{"":""},{"k":{"k":[{"k":0}]}}]"#,
            r#"{"status":1,"message":"success","info":{"task_num":"202312210000001"}}"#,
        ];
        let pieces = ["\"", "\\", "{", "}", "[", "]", ",", ":", "0", "1", "-", ".", "e", "t", "u", "\u{1}", " ", "é"];
        let mut taken = 0;
        for seed in seeds {
            assert!(value(seed).is_some(), "{seed}");
            let places: Vec<usize> = seed.char_indices().map(|(place, _)| place).chain([seed.len()]).collect();
            for (start, &from) in places.iter().enumerate() {
                for &to in &places[start..(start + 3).min(places.len())] {
                    for piece in pieces.iter().chain([&""]) {
                        let text = [&seed[..from], piece, &seed[to..]].concat();
                        let wanted = wanted(&text);
                        if let Some(Value { text: found, is_plain }) = value(&text) {
                            taken += 1;
                            assert_eq!(Some(found), wanted, "{text}");
                            assert_eq!(is_plain, Value::new(found).is_plain, "{text}");
                        }
                    }
                }
            }
        }
        assert!(taken > 1000, "{taken}");
    }

    #[test]
    fn the_end_of_what_is_plain_is_found_wherever_it_is() {
        for filling in [b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xff] {
            for end in (0..b' ').chain([b'"', b'\\']) {
                for place in 0..20 {
                    let mut bytes = [filling; 20];
                    bytes[place] = end;
                    assert_eq!(plain(&bytes), Some(place), "{end} behind {filling}");
                    bytes[place..].fill(end);
                    assert_eq!(plain(&bytes), Some(place), "{end}s behind {filling}");
                }
            }
            assert_eq!(plain(&[filling; 20]), None);
        }
    }

    #[test]
    fn members_and_elements_are_those_of_serde_json() {
        let text = r#" { "a" : 1 , "b":[ 1 , {"c": 2.50} ], "a":"x" } "#;
        let read: super::super::Object = serde_json::from_str(text).unwrap();
        let members = object(text).unwrap();
        assert_eq!(members.len(), 3);
        assert!(members.iter().zip(&read.0).all(|(one, other)| one.0 == other.0 && one.1.get() == other.1.get()));
        let elements = array(members[1].1.get()).unwrap();
        assert_eq!(elements.iter().map(|element| element.get()).collect::<Vec<_>>(), ["1", r#"{"c": 2.50}"#]);
        let with = array_with(r#" [ 7, {"n":"x" , "o":[{"n":1}]},{"n":1,"n":2} ] "#, "n").unwrap();
        let texts: Vec<&str> = with.iter().map(|(element, _)| element.get()).collect();
        assert_eq!(texts, ["7", r#"{"n":"x" , "o":[{"n":1}]}"#, r#"{"n":1,"n":2}"#]);
        assert!(matches!(with[0].1, Member::Missing));
        assert!(matches!(with[1].1, Member::Once(value) if value.get() == "\"x\"" && value.is_plain));
        assert!(matches!(with[2].1, Member::Twice(value) if value.get() == "1"));
        assert!(array_with("[{]", "n").is_none() && array_with("[] 1", "n").is_none());
        assert!(object(r#"{"\u0061":1}"#).is_none() && object("[]").is_none() && array("{}").is_none());
        assert!(object("{} x").is_none() && object("{\"a\":1,}").is_none() && object("{,}").is_none());
    }

    #[test]
    fn what_is_too_deep_is_left_to_serde_json() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let deepest = DEEPEST as usize;
        assert!(value(&nested(deepest)).is_some() && value(&nested(deepest + 1)).is_none());
        assert!(wanted(&nested(deepest + 1)).is_some());
    }
}
