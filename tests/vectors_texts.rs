//! Naughty strings, by the list of that name: wherever a caller may give a text, it arrives as it was given or is
//! refused.

use std::ffi::CStr;
use std::ptr::null_mut;

use arctos_tests::api::*;
use arctos_tests::expected::{MADE, REJECTED_NOT_CREATED};
use arctos_tests::http::{Framing, answer, success_body};
use arctos_tests::server::{Script, Server};
use arctos_tests::stage::{Done, Stage, Table, config};
use arctos_tests::vectors::document;
use serde_json::{Map, Value, json};

/// The list's strings, each once, but those with a NUL, which no C text can hold.
fn strings() -> Option<Vec<String>> {
    let document = document("texts/blns.json")?;
    let mut strings: Vec<String> = Vec::new();
    for text in document.as_array().expect("a list") {
        let text = text.as_str().expect("a string");
        if !text.contains('\0') && !strings.iter().any(|known| known == text) {
            strings.push(text.to_owned());
        }
    }
    Some(strings)
}

/// A JSON string whose every character is an escape.
fn escaped(text: &str) -> String {
    let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    format!("\"{units}\"")
}

/// A good task with this number and this remark, both JSON strings.
fn task_with(number: &str, remark: &str) -> String {
    task("NUMBER").replace("\"NUMBER\"", number).replace("\"video\"", &format!("\"task_remark\":{remark},\"video\""))
}

fn made() -> Script {
    Script::made().send(answer("200 OK", Framing::Length, success_body("N").as_bytes())).close()
}

/// A refusal that repeats a text.
fn refusal(text: &str) -> Script {
    let body = json!({ "status": 0, "message": format!("<{text}>") }).to_string();
    Script::request().send(answer("400 Bad Request", Framing::Length, body.as_bytes())).close()
}

/// Checks that the body is the task byte for byte, and that a reader finds the text in its field.
fn arrived(done: Done, task: &str, field: &str, text: &str) -> Result<Reply, String> {
    let body = &done.request().body;
    if body != task.as_bytes() {
        return Err(format!("{text:?}: {:?} instead of {task:?}", String::from_utf8_lossy(body)));
    }
    let read: Value = serde_json::from_slice(body).map_err(|error| format!("{text:?}: {error}"))?;
    if read[field] == text { Ok(done.reply) } else { Err(format!("{text:?}: {}", read[field])) }
}

/// White_Space of Unicode.
fn is_blank(character: char) -> bool {
    matches!(u32::from(character),
        0x09..=0x0d | 0x20 | 0x85 | 0xa0 | 0x1680 | 0x2000..=0x200a | 0x2028 | 0x2029 | 0x202f | 0x205f | 0x3000)
}

#[test]
fn a_remark_arrives_as_it_was_given_and_is_repeated_in_no_document() {
    let Some(strings) = strings() else { return };
    let stage = Stage::http();
    let mut table = Table::new();
    for text in &strings {
        for (remark, script, expected) in
            [(json!(text).to_string(), made(), MADE), (escaped(text), refusal(text), REJECTED_NOT_CREATED)]
        {
            let number = stage.number();
            let task = task_with(&json!(number).to_string(), &remark);
            let done = stage.attempt_task(text, expected, &number, &task, script);
            let reply = table.take(done.and_then(|done| arrived(done, &task, "task_remark", text)));
            // What is shorter is not masked where the server repeats it: it could be any word.
            if let Some(reply) = reply.filter(|reply| reply.code != OK && text.len() >= 8) {
                let document = reply.json();
                let said = document["server_message"].as_str().expect("the server's words");
                let hidden = said.starts_with('<') && !said.contains(text.as_str());
                table.take(hidden.then_some(()).ok_or_else(|| format!("{text:?}: {document}")));
            }
        }
    }
    table.finish();
}

#[test]
fn a_number_arrives_as_it_was_given_and_a_blank_one_is_refused() {
    let Some(strings) = strings() else { return };
    let stage = Stage::http();
    // A server of its own: the ledger of the other one holds the number by then, and a refusal would be no truth.
    let refusing = Stage::http();
    let mut table = Table::new();
    let mut blank = 0;
    for text in &strings {
        let spellings = [json!(text).to_string(), escaped(text)];
        if text.chars().all(is_blank) {
            blank += 1;
            for number in spellings {
                let reply = stage.client.add(&task_with(&number, "\"\""));
                let refused = reply.code == BAD_TASK && reply.problem_fields() == ["out_task_num"];
                table.take(refused.then_some(()).ok_or_else(|| format!("{text:?}: {reply:?}")));
            }
            continue;
        }
        let [plain, escaped] = spellings;
        let task = task_with(&plain, "\"\"");
        let done = stage.attempt_task(text, MADE, text, &task, made());
        table.take(done.and_then(|done| arrived(done, &task, "out_task_num", text)));
        let task = task_with(&escaped, "\"\"");
        let done = refusing.attempt_task(text, REJECTED_NOT_CREATED, text, &task, refusal("no"));
        let reply = table.take(done.and_then(|done| arrived(done, &task, "out_task_num", text)));
        if let Some(document) = reply.map(|reply| reply.json()) {
            let told = document["out_task_num"] == **text;
            table.take(told.then_some(()).ok_or_else(|| format!("{text:?}: {document}")));
        }
    }
    table.finish();
    assert!(blank > 0, "no string is blank");
    let calls = strings.len() - blank;
    assert_eq!((stage.server.connections(), refusing.server.connections()), (calls, calls));
}

/// What RFC 3986 says of a text as a part of a URL's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// It is one.
    Path,
    /// It ends the path, or no URL can hold it.
    NoPath,
    /// It is none, and what readers make of it differs.
    Doubtful,
}

fn part(text: &str) -> Part {
    let bytes = text.as_bytes();
    let hex = |place: usize| bytes.get(place).is_some_and(u8::is_ascii_hexdigit);
    let fits = |(place, byte): (usize, &u8)| match byte {
        b'%' => hex(place + 1) && hex(place + 2),
        byte => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:/".contains(byte),
    };
    if bytes.iter().any(|byte| b"?#".contains(byte) || !byte.is_ascii_graphic()) {
        Part::NoPath
    } else if bytes.iter().enumerate().all(fits) {
        Part::Path
    } else {
        // "@" too: it stands between a user and a host, and may stand in a path.
        Part::Doubtful
    }
}

#[test]
fn a_prefix_of_the_path_goes_out_as_it_was_given_or_is_refused() {
    let Some(strings) = strings() else { return };
    let mut table = Table::new();
    let mut refused = 0;
    for text in &strings {
        let server = Server::plain();
        let config = config(&format!("{}/{text}/end", server.base_url())).to_string();
        let (client, reply) = client_new(&config);
        let part = part(text);
        let Some(client) = client else {
            refused += 1;
            let right = reply.code == BAD_CONFIG && reply.problem_fields() == ["base_url"] && part != Part::Path;
            table.take(right.then_some(()).ok_or_else(|| format!("{text:?} is {part:?}: {reply:?}")));
            continue;
        };
        if part == Part::NoPath {
            table.take::<()>(Err(format!("{text:?} is taken for a path: {reply:?}")));
            continue;
        }
        let stage = Stage::of(server, client);
        let number = stage.number();
        let done = table.take(stage.attempt_task(text, MADE, &number, &task(&number), made()));
        let Some(line) = done.map(|done| done.request().line.clone()) else { continue };
        let same = line == format!("POST /{text}/end/api/task/do_add HTTP/1.1");
        table.take(same.then_some(()).ok_or_else(|| format!("{text:?}: {line}")));
    }
    table.finish();
    assert!((1..strings.len()).contains(&refused), "{refused} of {} are refused", strings.len());
}

/// The reference tokens of a pointer by RFC 6901, decoded; `None` when it is no pointer.
fn tokens(pointer: &str) -> Option<Vec<String>> {
    if pointer.is_empty() {
        return Some(Vec::new());
    }
    let decode = |token: &str| {
        let mut decoded = String::new();
        let mut rest = token.chars();
        while let Some(character) = rest.next() {
            decoded.push(match character {
                '~' => match rest.next()? {
                    '0' => '~',
                    '1' => '/',
                    _ => return None,
                },
                other => other,
            });
        }
        Some(decoded)
    };
    pointer.strip_prefix('/')?.split('/').map(decode).collect()
}

/// A text with objects one in the other, at whose end stands `value`.
fn nested(tokens: &[String], value: &str) -> Value {
    tokens.iter().rev().fold(json!(value), |inner, token| Value::Object(Map::from_iter([(token.clone(), inner)])))
}

#[test]
fn a_pointer_finds_what_it_names_or_is_refused() {
    let Some(strings) = strings() else { return };
    let mut table = Table::new();
    let mut pointers = 0;
    for text in &strings {
        for pointer in [text.clone(), format!("/{text}"), format!("/a/{text}/")] {
            let (found, right) = match tokens(&pointer) {
                None => {
                    let reply = json_get("{}", &pointer);
                    let right = reply.code == BAD_ARGUMENT;
                    (reply, right)
                }
                Some(tokens) => {
                    pointers += 1;
                    let reply = json_get(&nested(&tokens, "here").to_string(), &pointer);
                    let right = reply.code == OK && reply.text() == "here";
                    let nothing = json_get("{}", &pointer).code == if tokens.is_empty() { OK } else { NO_VALUE };
                    (reply, right && nothing)
                }
            };
            table.take(right.then_some(()).ok_or_else(|| format!("{pointer:?}: {found:?}")));
        }
    }
    table.finish();
    assert!(pointers > 0, "no string is a pointer");
}

/// Sets a text in a new object: the code, and the object.
fn set_text(pointer: &str, text: &str) -> (i32, Option<String>) {
    let (pointer, text) = (c(pointer), c(text));
    let mut json = null_mut();
    // SAFETY: texts that live through the calls; what the library hands over is freed once.
    unsafe {
        let code = (arctos().json_set_text)(&mut json, pointer.as_ptr(), text.as_ptr());
        let object = (!json.is_null()).then(|| CStr::from_ptr(json).to_str().expect("texts are UTF-8").to_owned());
        (arctos().free)(json);
        (code, object)
    }
}

#[test]
fn a_text_that_is_set_is_read_again_as_it_was_given() {
    let Some(strings) = strings() else { return };
    let mut table = Table::new();
    for text in &strings {
        let pointer = format!("/{}", text.replace('~', "~0").replace('/', "~1"));
        let (code, object) = set_text(&pointer, text);
        let Some(object) = object.filter(|_| code == OK) else {
            table.take::<()>(Err(format!("{text:?}: code {code}")));
            continue;
        };
        let read: Result<Value, _> = serde_json::from_str(&object);
        let same = read.is_ok_and(|read| read == nested(std::slice::from_ref(text), text));
        table.take(same.then_some(()).ok_or_else(|| format!("{text:?}: {object}")));
        let reply = json_get(&object, &pointer);
        let same = reply.code == OK && reply.text() == text;
        table.take(same.then_some(()).ok_or_else(|| format!("{text:?}: {reply:?}")));
    }
    table.finish();
}
