//! The keyed digest of a body: equal for two texts that say the same JSON, and of no use to whoever lacks the key.
//!
//! The keys of an object are sorted, by their own digests; a string counts decoded, a number as it is written. Of a key
//! that stands twice the order counts.
#![forbid(unsafe_code)]

use ring::hmac;
use zeroize::Zeroizing;

use crate::json;
use crate::memory::{self, NoMemory};

/// The random key of a file.
pub(super) struct Key {
    hmac: hmac::Key,
    bytes: Zeroizing<[u8; KEY_LENGTH]>,
}

/// How long a key is, in bytes.
pub(super) const KEY_LENGTH: usize = 32;

/// A digest.
pub(super) type Digest = [u8; 32];

impl Key {
    pub(super) fn new(key: &[u8; KEY_LENGTH]) -> Key {
        Key { hmac: hmac::Key::new(hmac::HMAC_SHA256, key), bytes: Zeroizing::new(*key) }
    }

    /// Whether it is made of these bytes.
    pub(super) fn is_of(&self, key: &[u8; KEY_LENGTH]) -> bool {
        *self.bytes == *key
    }

    /// The digest of a text that is JSON, however deep it is.
    pub(super) fn digest(&self, text: &str) -> Result<Digest, NoMemory> {
        let mut open: Vec<Open> = Vec::new();
        let mut rest = text;
        loop {
            rest = rest.trim_start_matches([' ', '\t', '\r', '\n', ',', ':']);
            let ended = match rest.as_bytes().first() {
                Some(b'{') => {
                    memory::push(&mut open, Open { is_object: true, key: None, parts: Vec::new() })?;
                    rest = &rest[1..];
                    continue;
                }
                Some(b'[') => {
                    memory::push(&mut open, Open { is_object: false, key: None, parts: Vec::new() })?;
                    rest = &rest[1..];
                    continue;
                }
                Some(b'}' | b']') => {
                    rest = &rest[1..];
                    // The text is JSON: what ends has begun.
                    let Some(ended) = open.pop() else { return Ok(self.of(b'?', &[])) };
                    self.of_parts(ended)
                }
                Some(_) => {
                    let (scalar, after) = json::first_scalar(rest);
                    rest = after;
                    match json::contents(scalar)? {
                        Some(text) => self.of(b'"', text.as_bytes()),
                        // A number, a word, or a string that holds half a surrogate pair.
                        None => self.of(b'#', scalar.as_bytes()),
                    }
                }
                None => return Ok(self.of(b'?', &[])),
            };
            match open.last_mut() {
                None => return Ok(ended),
                Some(around) if around.is_object && around.key.is_none() => around.key = Some(ended),
                Some(around) => {
                    let key = around.key.take().unwrap_or_default();
                    memory::push(&mut around.parts, (key, ended))?;
                }
            }
        }
    }

    fn of_parts(&self, mut ended: Open) -> Digest {
        let kind = if ended.is_object { b'{' } else { b'[' };
        if ended.is_object {
            ended.parts.sort_by_key(|(key, _)| *key);
        }
        let mut context = hmac::Context::with_key(&self.hmac);
        context.update(&[kind]);
        for (key, value) in &ended.parts {
            context.update(key);
            context.update(value);
        }
        tag(context)
    }

    fn of(&self, kind: u8, bytes: &[u8]) -> Digest {
        let mut context = hmac::Context::with_key(&self.hmac);
        context.update(&[kind]);
        context.update(bytes);
        tag(context)
    }
}

/// An object or array whose end has not come yet.
struct Open {
    is_object: bool,
    /// The key of the value that comes next.
    key: Option<Digest>,
    parts: Vec<(Digest, Digest)>,
}

fn tag(context: hmac::Context) -> Digest {
    let mut digest = Digest::default();
    digest.copy_from_slice(context.sign().as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Digest {
        Key::new(&[7; KEY_LENGTH]).digest(text).unwrap()
    }

    #[test]
    fn what_says_the_same_is_equal() {
        let one = r#"{"a":1,"b":{"c":["x",{}],"d":"é\/"},"e":null}"#;
        for other in [
            r#"{"e":null,"b":{"d":"\u00e9/","c":["x",{}]},"a":1}"#,
            " { \"a\" : 1 ,\r\n\t\"\\u0062\" : { \"c\" : [ \"x\" , { } ] , \"d\" : \"é/\" } , \"e\" : null } ",
        ] {
            assert_eq!(digest(one), digest(other), "{other}");
        }
    }

    #[test]
    fn what_says_something_else_is_not() {
        let texts = [
            "{}",
            "[]",
            "[[]]",
            "[{}]",
            "1",
            "1.0",
            "\"1\"",
            "true",
            "\"true\"",
            "null",
            "\"\"",
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"a":1,"b":2}"#,
            r#"{"a":2,"b":1}"#,
            r#"{"a":[1,2]}"#,
            r#"{"a":[2,1]}"#,
            r#"{"a":[[1],2]}"#,
            r#"{"a":{"b":1}}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"a":2,"a":1}"#,
            r#"["a","b"]"#,
            r#"["ab"]"#,
            r#"{"a":"b"}"#,
            r#""\ud800""#,
            r#""\ud801""#,
        ];
        for (index, one) in texts.iter().enumerate() {
            for other in &texts[..index] {
                assert_ne!(digest(one), digest(other), "{one} {other}");
            }
        }
        assert_ne!(digest("{}"), Key::new(&[8; KEY_LENGTH]).digest("{}").unwrap());
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_ne!(digest(&deep(1_000_000)), digest(&deep(999_999)));
    }
}
