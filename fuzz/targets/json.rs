//! `arctos::json::get` and `set` against a reader of JSON and of RFC 6901 pointers of its own.
//!
//! The input: a pointer and a value, each ended by a line feed, and a JSON text.

#![no_main]

use arctos::json::{get, set};
use arctos::{Code, Failure};
use arctos_fuzz::document::document;
use arctos_fuzz::json::{Shape, Unread, Value, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let mut parts = input.splitn(3, '\n');
    let (Some(pointer), Some(value), Some(json)) = (parts.next(), parts.next(), parts.next()) else { return };
    let (got, changed) = (get(json, pointer), set(json, pointer, value));
    for failure in [&got, &changed].into_iter().filter_map(|result| result.as_ref().err()) {
        document(failure);
    }
    let (json_read, value_read) = (read(json), read(value));
    // By what name a pointer finds a key that is no text is the library's own.
    let too_deep = |read: &Result<Value, Unread>| matches!(read, Err(Unread::TooDeep));
    if too_deep(&json_read) || too_deep(&value_read) || pointer.contains('\u{fffd}') {
        return;
    }
    assert_eq!(answer(got), expected_get(json, pointer));
    let (Ok(old), Ok(value), Some(tokens)) = (json_read, value_read, tokens(pointer)) else {
        return assert_eq!(answer(changed), Err(Code::BadArgument));
    };
    let Some((last, parents)) = tokens.split_last() else {
        return assert_eq!(answer(changed).as_deref(), Ok(value.raw));
    };
    let parent = match find(&old, parents) {
        Ok(parent) => parent,
        Err(code) => return assert_eq!(answer(changed), Err(code)),
    };
    // Only the text of the old value may change, or something be put before the end of its parent.
    let new = match (find(parent, std::slice::from_ref(last)), &parent.shape) {
        (Ok(there), _) => {
            let there = there.place.clone();
            let wanted = [&json[..there.start], value.raw, &json[there.end..]].concat();
            let new = answer(changed).expect("a value that is there can be replaced");
            assert_eq!(new, wanted);
            return assert_eq!(answer(get(&new, pointer)), contents(&value));
        }
        (Err(Code::NoValue), Shape::Object(_)) => answer(changed).expect("a member can be added"),
        (Err(Code::NoValue), Shape::Array(_)) if last == "-" => answer(changed).expect("an element can be added"),
        (Err(code), _) => return assert_eq!(answer(changed), Err(code)),
    };
    let end = parent.place.end - 1;
    let added = new
        .strip_prefix(&json[..end])
        .and_then(|rest| rest.strip_suffix(&json[end..]))
        .unwrap_or_else(|| panic!("more was changed than {pointer} names: {json} became {new}"));
    let first = matches!(&parent.shape, Shape::Object(members) if members.is_empty())
        || matches!(&parent.shape, Shape::Array(elements) if elements.is_empty());
    let added = if first { Some(added) } else { added.strip_prefix(',') }.expect("a comma between two, and no other");
    let place = match &parent.shape {
        Shape::Array(elements) => {
            assert_eq!(added, value.raw);
            let number = elements.len().to_string();
            pointer.strip_suffix('-').expect("the last token is the end of the pointer").to_owned() + &number
        }
        _ => {
            let member = format!("{{{added}}}");
            let member = read(&member).expect("a member");
            let [(key, found)] = member.members().expect("an object") else { panic!("not one member: {added}") };
            assert_eq!((key.as_deref(), found.raw), (Some(last.as_str()), value.raw));
            pointer.to_owned()
        }
    };
    assert_eq!(answer(get(&new, &place)), contents(&value));
    assert_eq!(expected_get(&new, &place), contents(&value));
});

fn answer(result: Result<impl AsRef<str>, Failure>) -> Result<String, Code> {
    result.map(|text| text.as_ref().to_owned()).map_err(|failure| failure.code())
}

fn expected_get(json: &str, pointer: &str) -> Result<String, Code> {
    let root = read(json).map_err(|_| Code::BadArgument)?;
    let tokens = tokens(pointer).ok_or(Code::BadArgument)?;
    find(&root, &tokens).and_then(contents)
}

/// What C is handed for a value.
fn contents(value: &Value) -> Result<String, Code> {
    match &value.shape {
        Shape::String(Some(text)) if !text.contains('\0') => Ok(text.clone()),
        Shape::String(_) => Err(Code::BadArgument),
        _ => Ok(value.raw.to_owned()),
    }
}

/// The tokens of a pointer, decoded from left to right; `None` where it is none.
fn tokens(pointer: &str) -> Option<Vec<String>> {
    let mut tokens = Vec::new();
    let mut characters = pointer.chars();
    while let Some(character) = characters.next() {
        if character == '/' {
            tokens.push(String::new());
            continue;
        }
        let decoded = match character {
            '~' => match characters.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            other => other,
        };
        tokens.last_mut()?.push(decoded);
    }
    Some(tokens)
}

fn find<'v, 'a>(root: &'v Value<'a>, tokens: &[String]) -> Result<&'v Value<'a>, Code> {
    tokens.iter().try_fold(root, |value, token| match &value.shape {
        Shape::Object(_) => match value.all(token).as_slice() {
            [] => Err(Code::NoValue),
            [one] => Ok(*one),
            _ => Err(Code::BadArgument),
        },
        Shape::Array(elements) => elements
            .iter()
            .enumerate()
            .find(|(index, _)| index.to_string() == *token)
            .map(|(_, element)| element)
            .ok_or(Code::NoValue),
        _ => Err(Code::NoValue),
    })
}
