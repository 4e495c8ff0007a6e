//! JSON text in and out, with the order, the digits and the blanks of what is not touched.
//!
//! Nothing here builds a tree: an object is read one level deep, its values stay slices of the text, and a
//! change is made by putting new text in the place of old.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::code::Code;
use crate::failure::Failure;

/// An object's members in their order, keys decoded and values untouched; a key may stand twice.
pub(crate) struct Object<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

/// An array's elements.
struct Array<'a>(Vec<&'a RawValue>);

/// A key, borrowed where it has no escapes.
struct Key<'a>(Cow<'a, str>);

/// The contents of a string, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Key<'de>, E> {
                Ok(Key(String::from_utf8_lossy(bytes)))
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(String::from_utf8_lossy(bytes).into_owned())))
            }
        }
        // As bytes: half a surrogate pair is no reason to refuse an object, and names nothing that anyone asks for.
        deserializer.deserialize_bytes(KeyVisitor)
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut members = Vec::with_capacity(16);
                while let Some((Key(key), value)) = map.next_entry()? {
                    members.push((key, value));
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl<'de> Deserialize<'de> for Array<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements;
        impl<'de> Visitor<'de> for Elements {
            type Value = Array<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an array")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Array<'de>, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = seq.next_element()? {
                    elements.push(element);
                }
                Ok(Array(elements))
            }
        }
        deserializer.deserialize_seq(Elements)
    }
}

/// Reads a text that must be an object. The error says what is wrong with it, and quotes none of it.
pub(crate) fn object(text: &str) -> Result<Object<'_>, String> {
    if text.starts_with('\u{feff}') {
        return Err("is not JSON: it starts with a byte order mark".to_owned());
    }
    let read = match first_byte(text) {
        Some(b'{') => parse(text).map(Ok),
        _ => parse::<&RawValue>(text).map(|value| Err(format!("must be a JSON object, not {}", kind(value)))),
    };
    read.map_err(|error| format!("is not JSON: {error}"))?
}

/// Whether the text is JSON of any kind; the error says where it stops being so.
pub(crate) fn check(text: &str) -> Result<(), String> {
    parse::<&RawValue>(text).map(|_| ())
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn first_byte(text: &str) -> Option<u8> {
    text.bytes().find(|byte| !b" \t\r\n".contains(byte))
}

/// What a value is, with its article.
pub(crate) fn kind(value: &RawValue) -> &'static str {
    match value.get().as_bytes()[0] {
        b'{' => "an object",
        b'[' => "an array",
        b'"' => "a string",
        b't' | b'f' => "a boolean",
        b'n' => "null",
        _ => "a number",
    }
}

/// The contents of a string; `None` when the value is no string, or one that no text can hold (half a surrogate pair).
pub(crate) fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    if !value.get().starts_with('"') {
        return None;
    }
    serde_json::from_str::<Text>(value.get()).ok().map(|Text(text)| text)
}

/// Every string, decoded, and every other scalar in a value, keys included, at any depth.
pub(crate) fn scalars(value: &RawValue) -> impl Iterator<Item = Cow<'_, str>> {
    let mut rest = value.get();
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n', '{', '}', '[', ']', ',', ':']);
        let bytes = rest.as_bytes();
        let mut end = 0;
        if bytes.first()? == &b'"' {
            end = 1;
            while bytes[end] != b'"' {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
            end += 1;
        } else {
            while end < bytes.len() && !b" \t\r\n,]}".contains(&bytes[end]) {
                end += 1;
            }
        }
        let (scalar, after) = rest.split_at(end);
        rest = after;
        // Half a surrogate pair cannot be decoded, and is hidden as it is written.
        Some(match serde_json::from_str::<Text>(scalar) {
            Ok(Text(text)) => text,
            Err(_) => Cow::Borrowed(scalar.trim_matches('"')),
        })
    })
}

/// `text` as a JSON string, quotes included.
pub(crate) fn quoted(text: &str) -> Zeroizing<String> {
    Zeroizing::new(serde_json::to_string(text).expect("a string can be written as JSON"))
}

/// Where `part`, a slice of `whole`, stands in it.
pub(crate) fn place(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    start..start + part.len()
}

/// `text` with everything in `range` replaced by `parts`, in memory that is wiped and was allocated once.
pub(crate) fn splice(text: &str, range: Range<usize>, parts: &[&str]) -> Zeroizing<String> {
    let added: usize = parts.iter().map(|part| part.len()).sum();
    let mut spliced = Zeroizing::new(String::with_capacity(text.len() - range.len() + added));
    spliced.push_str(&text[..range.start]);
    for part in parts {
        spliced.push_str(part);
    }
    spliced.push_str(&text[range.end..]);
    spliced
}

/// The value at an RFC 6901 pointer: the contents of a string, anything else as its JSON text.
///
/// # Errors
/// [`Code::NoValue`] when nothing is there; [`Code::BadArgument`] for a text that is not JSON, a pointer that is
/// none, a member that stands twice, and a string that holds U+0000 or half a surrogate pair.
pub fn get(json: &str, pointer: &str) -> Result<Zeroizing<String>, Failure> {
    let mut value: &RawValue = parse(json).map_err(not_json)?;
    for token in tokens(pointer)? {
        value = match child(value, &token)? {
            Some(child) => child,
            None => return Err(no_value()),
        };
    }
    if !value.get().starts_with('"') {
        return Ok(Zeroizing::new(value.get().to_owned()));
    }
    match string(value) {
        Some(text) if text.contains('\0') => {
            Err(Failure::plain(Code::BadArgument, "the string at the pointer holds U+0000, which no C text can"))
        }
        Some(text) => Ok(Zeroizing::new(text.into_owned())),
        None => Err(Failure::plain(
            Code::BadArgument,
            "the string at the pointer holds half of a surrogate pair, which no UTF-8 text can",
        )),
    }
}

/// `json` with the JSON text `value` at an RFC 6901 pointer, whose last member is created when it is not there;
/// `-` appends to an array and the empty pointer replaces everything.
///
/// # Errors
/// [`Code::NoValue`] when the parent is not there or can hold no such member; [`Code::BadArgument`] for texts that
/// are not JSON, a pointer that is none, and a member on the way that stands twice.
pub fn set(json: &str, pointer: &str, value: &str) -> Result<Zeroizing<String>, Failure> {
    let mut parent: &RawValue = parse(json).map_err(not_json)?;
    check(value).map_err(not_json)?;
    let value = value.trim_matches([' ', '\t', '\r', '\n']);
    let mut tokens = tokens(pointer)?;
    let Some(last) = tokens.pop() else {
        return Ok(Zeroizing::new(value.to_owned()));
    };
    for token in tokens {
        parent = match child(parent, &token)? {
            Some(child) => child,
            None => return Err(no_value()),
        };
    }
    if let Some(old) = child(parent, &last)? {
        return Ok(splice(json, place(json, old.get()), &[value]));
    }
    let inside = &parent.get()[1..];
    let comma = if matches!(first_byte(inside), Some(b'}' | b']')) { "" } else { "," };
    let end = place(json, parent.get()).end - 1;
    match parent.get().as_bytes()[0] {
        b'{' => Ok(splice(json, end..end, &[comma, &quoted(&last), ":", value])),
        b'[' if last == "-" => Ok(splice(json, end..end, &[comma, value])),
        _ => Err(no_value()),
    }
}

fn not_json(error: String) -> Failure {
    Failure::plain(Code::BadArgument, format!("not JSON: {error}"))
}

fn no_value() -> Failure {
    Failure::plain(Code::NoValue, "there is nothing at the JSON pointer")
}

/// The reference tokens of a pointer, decoded.
fn tokens(pointer: &str) -> Result<Vec<String>, Failure> {
    let Some(path) = pointer.strip_prefix('/') else {
        return if pointer.is_empty() {
            Ok(Vec::new())
        } else {
            Err(Failure::plain(Code::BadArgument, "the JSON pointer must be empty or start with /"))
        };
    };
    path.split('/')
        .map(|token| {
            if token.split('~').skip(1).all(|after| after.starts_with(['0', '1'])) {
                Ok(token.replace("~1", "/").replace("~0", "~"))
            } else {
                Err(Failure::plain(Code::BadArgument, "in a JSON pointer, ~ must be followed by 0 or 1"))
            }
        })
        .collect()
}

/// The member or element that a token names.
fn child<'a>(value: &'a RawValue, token: &str) -> Result<Option<&'a RawValue>, Failure> {
    match value.get().as_bytes()[0] {
        b'{' => {
            let Object(members) = parse(value.get()).map_err(not_json)?;
            let mut named = members.into_iter().filter(|(key, _)| key == token);
            let first = named.next();
            if named.next().is_some() {
                return Err(Failure::plain(
                    Code::BadArgument,
                    "a member that the JSON pointer names stands twice in its object",
                ));
            }
            Ok(first.map(|(_, value)| value))
        }
        b'[' => {
            let plain = token == "0" || (!token.starts_with('0') && token.bytes().all(|byte| byte.is_ascii_digit()));
            let Some(index) = token.parse::<usize>().ok().filter(|_| plain) else { return Ok(None) };
            let Array(elements) = parse(value.get()).map_err(not_json)?;
            Ok(elements.get(index).copied())
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn get_follows_rfc_6901() {
        let text = r#"{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8}"#;
        for (pointer, value) in [
            ("", text),
            ("/foo", r#"["bar","baz"]"#),
            ("/foo/0", "bar"),
            ("/", "0"),
            ("/a~1b", "1"),
            ("/c%d", "2"),
            ("/e^f", "3"),
            ("/g|h", "4"),
            ("/i\\j", "5"),
            ("/k\"l", "6"),
            ("/ ", "7"),
            ("/m~0n", "8"),
        ] {
            assert_eq!(get(text, pointer).unwrap().as_str(), value, "{pointer}");
        }
        for pointer in ["/foo/2", "/foo/-", "/foo/00", "/foo/x", "/no", "/a~1b/c", "/foo/"] {
            assert_eq!(get(text, pointer).unwrap_err().code(), Code::NoValue, "{pointer}");
        }
        for pointer in ["foo", "/m~n", "/m~2n", "/m~"] {
            assert_eq!(get(text, pointer).unwrap_err().code(), Code::BadArgument, "{pointer}");
        }
    }

    #[test]
    fn set_touches_nothing_else() {
        let text = "{ \"n\" : 12345678901234567890 , \"a\" : [ 1 , {\"b\": 2.50} ] }";
        for (pointer, value, wanted) in [
            ("/n", "1", "{ \"n\" : 1 , \"a\" : [ 1 , {\"b\": 2.50} ] }"),
            ("/a/1/b", "null", "{ \"n\" : 12345678901234567890 , \"a\" : [ 1 , {\"b\": null} ] }"),
            ("/a/-", "3", "{ \"n\" : 12345678901234567890 , \"a\" : [ 1 , {\"b\": 2.50} ,3] }"),
            ("/a/1/c", " [] ", "{ \"n\" : 12345678901234567890 , \"a\" : [ 1 , {\"b\": 2.50,\"c\":[]} ] }"),
            ("/x", "{}", "{ \"n\" : 12345678901234567890 , \"a\" : [ 1 , {\"b\": 2.50} ] ,\"x\":{}}"),
            ("", "7", "7"),
        ] {
            assert_eq!(set(text, pointer, value).unwrap().as_str(), wanted, "{pointer}");
        }
        assert_eq!(set("{}", "/a\"b", "1").unwrap().as_str(), r#"{"a\"b":1}"#);
        assert_eq!(set("[ ]", "/-", "1").unwrap().as_str(), "[ 1]");
        for (text, pointer) in [("{}", "/a/b"), ("[]", "/0"), ("[1]", "/1"), ("1", "/a"), ("\"{\"", "/a"), ("[]", "/a")]
        {
            assert_eq!(set(text, pointer, "1").unwrap_err().code(), Code::NoValue, "{text} {pointer}");
        }
        for (text, pointer, value) in [
            ("{", "/a", "1"),
            ("{}", "/a", "1 2"),
            ("{}", "/a", ""),
            ("{}", "a", "1"),
            ("{\"a\":1,\"a\":2}", "/a", "1"),
        ] {
            assert_eq!(set(text, pointer, value).unwrap_err().code(), Code::BadArgument, "{text} {pointer} {value}");
        }
    }

    #[test]
    fn scalars_are_found_at_every_depth() {
        let text = r#" {"a\"}":[1.5e3,"x\\",{"b":["\u8a31",null]}],"c":"","d":"\ud800y"} "#;
        let value: &RawValue = serde_json::from_str(text).unwrap();
        let found: Vec<_> = scalars(value).collect();
        assert_eq!(found, ["a\"}", "1.5e3", "x\\", "b", "許", "null", "c", "", "d", "\\ud800y"]);
    }

    #[test]
    fn strings_that_c_cannot_hold_are_refused() {
        for text in [r#"["\u0000"]"#, r#"["\ud800"]"#] {
            assert_eq!(get(text, "/0").unwrap_err().code(), Code::BadArgument, "{text}");
        }
        assert_eq!(get(r#"["\u8a31\u529f\u84cb \ud83d\ude00"]"#, "/0").unwrap().as_str(), "許功蓋 😀");
    }
}
