//! JSON text in and out, with the order, the digits and the blanks of what is not touched.
//!
//! Nothing here builds a tree: an object is read one level deep, its values stay slices of the text, and a
//! change is made by putting new text in the place of old.
#![forbid(unsafe_code)]

mod scan;

use std::borrow::Cow;
use std::fmt;
use std::ops::{Deref, Range};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::code::Code;
use crate::failure::Failure;
use crate::memory::{self, NoMemory};

/// What is said of a text that is too large for the memory that there is.
const NO_MEMORY: &str = "there is no memory for it";

/// A value of JSON as it is written, without the blanks around it.
#[derive(Clone, Copy)]
pub(crate) struct Value<'a> {
    text: &'a str,
    /// It is a string without escapes.
    is_plain: bool,
}

impl<'a> Value<'a> {
    fn new(text: &'a str) -> Value<'a> {
        Value { text, is_plain: text.starts_with('"') && !text.contains('\\') }
    }

    pub(crate) fn get(self) -> &'a str {
        self.text
    }
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|value| Value::new(value.get()))
    }
}

/// An object's members in their order, keys decoded and values untouched; a key may stand twice.
pub(crate) struct Object<'a>(pub Vec<(Cow<'a, str>, Value<'a>)>);

/// An array's elements.
struct Array<'a>(Vec<Value<'a>>);

/// A key, borrowed where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a string")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(String::from_utf8_lossy(bytes).into_owned())))
            }
        }
        // Checked as it stands, for serde_json lets control characters pass where it is asked for bytes.
        let key = Value::deserialize(deserializer)?.get();
        if !key.contains('\\') {
            return Ok(Key(Cow::Borrowed(&key[1..key.len() - 1])));
        }
        // As bytes: half a surrogate pair is no reason to refuse an object, and names nothing that anyone asks for.
        serde_json::Deserializer::from_str(key).deserialize_bytes(KeyVisitor).map_err(D::Error::custom)
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
                    memory::push(&mut members, (key, value)).map_err(|NoMemory| A::Error::custom(NO_MEMORY))?;
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
                    memory::push(&mut elements, element).map_err(|NoMemory| A::Error::custom(NO_MEMORY))?;
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
        Some(b'{') => members(text).map(Ok),
        _ => read(text).map(|value| Err(format!("must be a JSON object, not {}", kind(value)))),
    };
    read.map_err(|error| format!("is not JSON: {error}"))?
}

/// What an object has under a name.
#[derive(Clone, Copy)]
pub(crate) enum Member<'a> {
    Missing,
    Once(Value<'a>),
    /// More than once; the first of them.
    Twice(Value<'a>),
}

impl<'a> Member<'a> {
    fn and(&mut self, value: Value<'a>) {
        *self = match self {
            Member::Missing => Member::Once(value),
            Member::Once(first) | Member::Twice(first) => Member::Twice(*first),
        };
    }
}

/// What a text that must be an object has under these names; the errors are those of [`object`].
pub(crate) fn pick<'a, const N: usize>(text: &'a str, names: [&str; N]) -> Result<[Member<'a>; N], String> {
    scan::pick(text, names).map_or_else(
        || {
            let mut found = [Member::Missing; N];
            for (key, value) in object(text)?.0 {
                if let Some(place) = names.iter().position(|name| key == *name) {
                    found[place].and(value);
                }
            }
            Ok(found)
        },
        Ok,
    )
}

fn listed(text: &str) -> Result<Vec<Value<'_>>, String> {
    scan::array(text).map_or_else(|| parse(text).map(|Array(elements)| elements), Ok)
}

fn members(text: &str) -> Result<Object<'_>, String> {
    scan::object(text).map_or_else(|| parse(text), |members| Ok(Object(members)))
}

/// Reads a text that must be an array, of several things, each with what it has under a name if it is an object. The
/// error says what is wrong with it, and quotes none of it.
pub(crate) fn array_with<'a>(text: &'a str, name: &str) -> Result<Vec<(Value<'a>, Member<'a>)>, String> {
    if let Some(elements) = scan::array_with(text, name) {
        return Ok(elements);
    }
    let value = read(text).map_err(|error| format!("are not JSON: {error}"))?;
    let elements = elements(value).ok_or_else(|| format!("must be a JSON array, not {}", kind(value)))?;
    let found = |element: Value<'a>| pick(element.get(), [name]).map_or(Member::Missing, |[found]| found);
    memory::collect(elements.into_iter().map(|element| (element, found(element))))
        .map_err(|NoMemory| format!("are not read: {NO_MEMORY}"))
}

/// A text that is JSON of any kind; the error says where it stops being so.
pub(crate) fn read(text: &str) -> Result<Value<'_>, String> {
    scan::value(text).map_or_else(|| parse(text), Ok)
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn first_byte(text: &str) -> Option<u8> {
    text.bytes().find(|byte| !b" \t\r\n".contains(byte))
}

/// What a value is, with its article.
pub(crate) fn kind(value: Value) -> &'static str {
    match value.get().as_bytes()[0] {
        b'{' => "an object",
        b'[' => "an array",
        b'"' => "a string",
        b't' | b'f' => "a boolean",
        b'n' => "null",
        _ => "a number",
    }
}

/// A text that may be a secret: part of another one where it stands there as it is, or else in memory that is wiped.
pub(crate) enum Text<'a> {
    Borrowed(&'a str),
    Owned(Zeroizing<String>),
}

impl Default for Text<'_> {
    fn default() -> Self {
        Text::Borrowed("")
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Owned(text) => text,
        }
    }
}

impl Text<'_> {
    /// A text of its own, in memory that is wiped.
    pub(crate) fn owned(self) -> Result<Zeroizing<String>, NoMemory> {
        match self {
            Text::Borrowed(text) => memory::join(&[text]),
            Text::Owned(text) => Ok(text),
        }
    }
}

/// The contents of a string; `None` when the value is no string, or one that no text can hold (half a surrogate pair) or
/// for which there is no memory.
pub(crate) fn string(value: Value) -> Option<Text> {
    if value.is_plain {
        return Some(Text::Borrowed(&value.text[1..value.text.len() - 1]));
    }
    contents(value.text).ok().flatten()
}

/// The contents of a scalar that is a string, borrowed where it has no escapes; `None` for others, and for half a
/// surrogate pair.
pub(crate) fn contents(scalar: &str) -> Result<Option<Text<'_>>, NoMemory> {
    match scalar.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        None => Ok(None),
        Some(inside) if !inside.contains('\\') => Ok(Some(Text::Borrowed(inside))),
        Some(inside) => Ok(unescaped(inside)?.map(Text::Owned)),
    }
}

/// What stands between the quotes of a string of JSON, without its escapes.
fn unescaped(inside: &str) -> Result<Option<Zeroizing<String>>, NoMemory> {
    // No escape is shorter than what it stands for.
    let mut text = Zeroizing::new(String::new());
    text.try_reserve_exact(inside.len())?;
    let mut rest = inside;
    while let Some((before, escape)) = rest.split_once('\\') {
        text.push_str(before);
        let mut after = escape.chars();
        let character = match after.next() {
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => {
                let Some((character, behind)) = character(after.as_str()) else { return Ok(None) };
                after = behind.chars();
                character
            }
            Some(other) => other,
            None => return Ok(None),
        };
        text.push(character);
        rest = after.as_str();
    }
    text.push_str(rest);
    Ok(Some(text))
}

/// The character of `1234`, or of the two halves of a surrogate pair `d83d\ude00`, and what stands behind it.
fn character(digits: &str) -> Option<(char, &str)> {
    let unit = |digits: &str| u16::from_str_radix(digits.get(..4)?, 16).ok();
    let (first, rest) = (unit(digits)?, &digits[4..]);
    if let Some(character) = char::from_u32(u32::from(first)) {
        return Some((character, rest));
    }
    let second = rest.strip_prefix("\\u")?;
    let pair = char::decode_utf16([first, unit(second)?]).next()?.ok()?;
    Some((pair, &second[4..]))
}

/// Every string, and every other scalar in a value, keys included, at any depth, as it is written.
pub(crate) fn scalars(value: Value<'_>) -> impl Iterator<Item = &str> {
    parts(value).map(|(scalar, _)| scalar)
}

/// The scalars of a value, each with whether it is a key.
fn parts(value: Value<'_>) -> impl Iterator<Item = (&str, bool)> {
    let mut rest = value.get();
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n', '{', '}', '[', ']', ',', ':']);
        if rest.is_empty() {
            return None;
        }
        let (scalar, after) = first_scalar(rest);
        rest = after;
        Some((scalar, first_byte(after) == Some(b':')))
    })
}

/// The scalar with which this part of a text that is JSON begins, and what stands behind it.
pub(crate) fn first_scalar(text: &str) -> (&str, &str) {
    let bytes = text.as_bytes();
    let mut end = 0;
    if bytes.first() == Some(&b'"') {
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
    text.split_at(end)
}

/// The contents of all [`scalars`] of some values.
pub(crate) fn texts<'a>(values: impl Iterator<Item = Value<'a>>) -> Result<Vec<Zeroizing<String>>, NoMemory> {
    all(values.flat_map(scalars))
}

/// The contents of the scalars of a value, those of its keys not.
pub(crate) fn values(value: Value) -> Result<Vec<Zeroizing<String>>, NoMemory> {
    all(parts(value).filter(|(_, is_key)| !is_key).map(|(scalar, _)| scalar))
}

fn all<'a>(scalars: impl Iterator<Item = &'a str>) -> Result<Vec<Zeroizing<String>>, NoMemory> {
    let mut texts = Vec::new();
    for scalar in scalars {
        let text = match contents(scalar)? {
            Some(text) => text.owned()?,
            // Half a surrogate pair cannot be decoded, and is hidden as it is written.
            None => memory::join(&[scalar.trim_matches('"')])?,
        };
        memory::push(&mut texts, text)?;
    }
    Ok(texts)
}

/// The value of a text that is JSON; `None` of another.
pub(crate) fn value(text: &str) -> Option<Value<'_>> {
    read(text).ok()
}

/// A text that is JSON, to be written into another one; `None` of another.
#[cfg(feature = "journal")]
pub(crate) fn raw(text: &str) -> Option<&RawValue> {
    parse(text).ok()
}

/// The elements of an array; `None` of anything else.
pub(crate) fn elements(value: Value) -> Option<Vec<Value>> {
    if kind(value) != "an array" {
        return None;
    }
    listed(value.get()).ok()
}

/// Whether a text is an RFC 6901 pointer.
pub(crate) fn is_pointer(text: &str) -> bool {
    tokens(text).is_ok()
}

/// `text` as a JSON string, quotes included.
pub(crate) fn quoted(text: &str) -> Result<Zeroizing<String>, NoMemory> {
    memory::json(text)
}

/// Where `part`, a slice of `whole`, stands in it.
pub(crate) fn place(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    start..start + part.len()
}

/// `text` with everything in `range` replaced by `parts`, in memory that is wiped and was allocated once.
pub(crate) fn splice(text: &str, range: Range<usize>, parts: &[&str]) -> Result<Zeroizing<String>, NoMemory> {
    memory::join(&[&[&text[..range.start]], parts, &[&text[range.end..]]].concat())
}

/// The value at an RFC 6901 pointer: the contents of a string, anything else as its JSON text.
///
/// # Errors
/// [`Code::NoValue`] when nothing is there; [`Code::BadArgument`] for a text that is not JSON, a pointer that is
/// none, a member that stands twice, and a string that holds U+0000 or half a surrogate pair.
pub fn get(json: &str, pointer: &str) -> Result<Zeroizing<String>, Failure> {
    let value = find(json, pointer)?;
    if !value.get().starts_with('"') {
        return Ok(memory::join(&[value.get()])?);
    }
    text(value)
}

/// The contents of the string at an RFC 6901 pointer; anything else in its place is as nothing.
///
/// # Errors
/// As of [`get`].
pub(crate) fn string_at(json: &str, pointer: &str) -> Result<Zeroizing<String>, Failure> {
    let value = find(json, pointer)?;
    if value.get().starts_with('"') { text(value) } else { Err(no_value()) }
}

/// The value at a pointer.
fn find<'a>(json: &'a str, pointer: &str) -> Result<Value<'a>, Failure> {
    let tokens = tokens(pointer);
    let first = tokens.as_ref().ok().and_then(|tokens| tokens.first());
    let (mut value, passed) = match first.filter(|_| first_byte(json) == Some(b'{')) {
        // The whole of an object is read with its members.
        Some(first) => (member(members(json).map_err(not_json)?, first)?.ok_or_else(no_value)?, 1),
        None => (read(json).map_err(not_json)?, 0),
    };
    for token in tokens?.into_iter().skip(passed) {
        value = match child(value, &token)? {
            Some(child) => child,
            None => return Err(no_value()),
        };
    }
    Ok(value)
}

/// The contents of a string.
fn text(value: Value) -> Result<Zeroizing<String>, Failure> {
    let refused = |why: &str| Err(Failure::plain(Code::BadArgument, format!("the string at the pointer holds {why}")));
    match contents(value.get())? {
        Some(text) if text.contains('\0') => refused("U+0000, which no C text can"),
        Some(text) => Ok(text.owned()?),
        None => refused("half of a surrogate pair, which no UTF-8 text can"),
    }
}

/// `json` with the JSON text `value` at an RFC 6901 pointer, whose last member is created when it is not there;
/// `-` appends to an array and the empty pointer replaces everything.
///
/// # Errors
/// [`Code::NoValue`] when the parent is not there or can hold no such member; [`Code::BadArgument`] for texts that
/// are not JSON, a pointer that is none, and a member on the way that stands twice.
pub fn set(json: &str, pointer: &str, value: &str) -> Result<Zeroizing<String>, Failure> {
    let mut parent = read(json).map_err(not_json)?;
    let value = read(value).map_err(not_json)?.get();
    let mut tokens = tokens(pointer)?;
    let Some(last) = tokens.pop() else {
        return Ok(memory::join(&[value])?);
    };
    for token in tokens {
        parent = match child(parent, &token)? {
            Some(child) => child,
            None => return Err(no_value()),
        };
    }
    if let Some(old) = child(parent, &last)? {
        return Ok(splice(json, place(json, old.get()), &[value])?);
    }
    let inside = &parent.get()[1..];
    let comma = if matches!(first_byte(inside), Some(b'}' | b']')) { "" } else { "," };
    let end = place(json, parent.get()).end - 1;
    match parent.get().as_bytes()[0] {
        b'{' => Ok(splice(json, end..end, &[comma, &quoted(&last)?, ":", value])?),
        b'[' if last == "-" => Ok(splice(json, end..end, &[comma, value])?),
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

/// The member that a token names.
fn member<'a>(Object(members): Object<'a>, token: &str) -> Result<Option<Value<'a>>, Failure> {
    let mut named = members.into_iter().filter(|(key, _)| key == token);
    let first = named.next();
    if named.next().is_some() {
        let twice = "a member that the JSON pointer names stands twice in its object";
        return Err(Failure::plain(Code::BadArgument, twice));
    }
    Ok(first.map(|(_, value)| value))
}

/// The member or element that a token names.
fn child<'a>(value: Value<'a>, token: &str) -> Result<Option<Value<'a>>, Failure> {
    match value.get().as_bytes()[0] {
        b'{' => member(members(value.get()).map_err(not_json)?, token),
        b'[' => {
            let plain = token == "0" || (!token.starts_with('0') && token.bytes().all(|byte| byte.is_ascii_digit()));
            let Some(index) = token.parse::<usize>().ok().filter(|_| plain) else { return Ok(None) };
            Ok(listed(value.get()).map_err(not_json)?.get(index).copied())
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
    fn control_characters_stand_in_no_key() {
        for text in ["{\"a\tb\":1}", "{\"a\\n\u{1f}\":1}"] {
            assert!(object(text).is_err(), "{text}");
        }
        assert_eq!(object(r#"{"\ta\ud800":1}"#).unwrap().0[0].0, "\ta\u{fffd}\u{fffd}\u{fffd}");
    }

    #[test]
    fn scalars_are_found_at_every_depth() {
        let text = r#" {"a\"}":[1.5e3,"x\\",{"b":["\u8a31",null]}],"c":"","d":"\ud800y"} "#;
        let value = value(text).unwrap();
        let found = texts(std::iter::once(value)).unwrap();
        let found: Vec<&str> = found.iter().map(|text| text.as_str()).collect();
        assert_eq!(found, ["a\"}", "1.5e3", "x\\", "b", "許", "null", "c", "", "d", "\\ud800y"]);
        let found = values(value).unwrap();
        let found: Vec<&str> = found.iter().map(|text| text.as_str()).collect();
        assert_eq!(found, ["1.5e3", "x\\", "許", "null", "", "\\ud800y"]);
        let value = super::value(r#"{ "a" : "b:" , "c" :[ "d" ]}"#).unwrap();
        assert_eq!(values(value).unwrap().iter().map(|text| text.as_str()).collect::<Vec<_>>(), ["b:", "d"]);
    }

    #[test]
    fn strings_that_c_cannot_hold_are_refused() {
        for text in [r#"["\u0000"]"#, r#"["\ud800"]"#] {
            assert_eq!(get(text, "/0").unwrap_err().code(), Code::BadArgument, "{text}");
        }
        assert_eq!(get(r#"["\u8a31\u529f\u84cb \ud83d\ude00"]"#, "/0").unwrap().as_str(), "許功蓋 😀");
    }
}
