//! What is JSON and what is none, by JSONTestSuite: as a whole task, as a part of one, and in the JSON functions.

use std::ffi::{CStr, CString};
use std::ptr::null_mut;

use arctos_tests::api::*;
use arctos_tests::expected::MADE;
use arctos_tests::http::{Framing, answer, success_body};
use arctos_tests::server::Script;
use arctos_tests::stage::{Stage, Table};
use arctos_tests::vectors::vectors;
use serde_json::Value;

/// What the suite says of a file, by the first letter of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// `y`: it is JSON.
    Json,
    /// `n`: it is none.
    None,
    /// `i`: the standard leaves it to the reader.
    Either,
}

/// What the library takes a text for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Json,
    NotJson,
    /// No text at all: not UTF-8.
    NotText,
}

struct Case {
    name: String,
    class: Class,
    bytes: CString,
}

impl Case {
    /// The file's text; `None` when it is not UTF-8.
    fn text(&self) -> Option<&str> {
        self.bytes.to_str().ok()
    }

    /// What the library may take it for.
    fn allows(&self, taken: Taken) -> bool {
        match (self.text(), self.class) {
            (None, _) => taken == Taken::NotText,
            (Some(_), Class::Json) => taken == Taken::Json,
            (Some(_), Class::None) => taken == Taken::NotJson,
            (Some(_), Class::Either) => taken != Taken::NotText,
        }
    }

    fn judge(&self, taken: Result<Taken, String>) -> Result<Taken, String> {
        match taken {
            Ok(taken) if self.allows(taken) => Ok(taken),
            Ok(taken) => Err(format!("{}: taken for {taken:?}, and the suite says {:?}", self.name, self.class)),
            Err(wrong) => Err(format!("{}: {wrong}", self.name)),
        }
    }
}

/// The suite's files but those with a NUL, which no C text can hold.
fn suite() -> Option<Vec<Case>> {
    let folder = vectors("JSONTestSuite")?;
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("the suite's folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name in UTF-8").to_owned();
        let class = match name.split_once('_') {
            Some(("y", _)) => Class::Json,
            Some(("n", _)) => Class::None,
            Some(("i", _)) => Class::Either,
            _ => panic!("{name} is of no class"),
        };
        let Ok(bytes) = CString::new(std::fs::read(&path).expect("a file")) else {
            assert_ne!(class, Class::Json, "{name} is JSON and holds a NUL");
            continue;
        };
        cases.push(Case { name, class, bytes });
    }
    cases.sort_by(|one, other| one.name.cmp(&other.name));
    for class in [Class::Json, Class::None, Class::Either] {
        assert!(cases.iter().any(|case| case.class == class), "no file is {class:?}");
    }
    Some(cases)
}

/// A good task with `value` as that of an undocumented field, its last.
fn with_value(number: &str, value: &[u8]) -> CString {
    let task = task(number);
    let start = task.strip_suffix('}').expect("a brace");
    CString::new([start.as_bytes(), b",\"zone\":", value, b"}"].concat()).expect("no NUL")
}

fn check(task: &CStr) -> Reply {
    call(|answer| unsafe { (arctos().task_check)(task.as_ptr(), answer) })
}

fn get(json: &CStr, pointer: &CStr) -> Reply {
    call(|answer| unsafe { (arctos().json_get)(json.as_ptr(), pointer.as_ptr(), answer) })
}

/// Sets a value in a new object: the code, and the object.
fn set(value: &CStr) -> (i32, Option<String>) {
    let mut json = null_mut();
    // SAFETY: texts that live through the calls; what the library hands over is freed once.
    unsafe {
        let code = (arctos().json_set)(&mut json, c"/value".as_ptr(), value.as_ptr());
        let text = (!json.is_null()).then(|| CStr::from_ptr(json).to_str().expect("texts are UTF-8").to_owned());
        (arctos().free)(json);
        (code, text)
    }
}

/// What a refused task was taken for. That it is no JSON is said by the document, of the task as a whole.
fn refused(reply: &Reply) -> Result<Taken, String> {
    match reply.code {
        BAD_ARGUMENT => Ok(Taken::NotText),
        BAD_TASK => {
            let document = reply.json();
            let message = document["message"].as_str().expect("a message");
            let not_json = message.contains("not JSON");
            // Where the text stops being JSON, nothing else can be said of it.
            if not_json && reply.problem_fields() != ["task"] {
                return Err(format!("other problems than that it is not JSON: {reply:?}"));
            }
            assert!(!reply.problem_fields().is_empty(), "{reply:?}");
            Ok(if not_json { Taken::NotJson } else { Taken::Json })
        }
        _ => Err(format!("{reply:?}")),
    }
}

/// What a text was taken for as a whole task. No file of the suite is a good one.
fn as_task(case: &Case) -> Result<Taken, String> {
    refused(&check(&case.bytes))
}

/// What a text was taken for as the whole of a JSON text. It comes back without the blanks around it, a string as
/// its contents.
fn as_json(case: &Case) -> Result<Taken, String> {
    let reply = get(&case.bytes, c"");
    match (reply.code, case.text()) {
        (BAD_ARGUMENT, None) => Ok(Taken::NotText),
        (BAD_ARGUMENT, Some(_)) if reply.text().contains("not JSON") => Ok(Taken::NotJson),
        (OK, Some(text)) => {
            let text = text.trim_matches([' ', '\t', '\r', '\n']);
            let contents: Option<String> = text.starts_with('"').then(|| serde_json::from_str(text).expect("a string"));
            if reply.text() != contents.as_deref().unwrap_or(text) {
                return Err(format!("another text: {reply:?}"));
            }
            Ok(Taken::Json)
        }
        _ => Err(format!("{reply:?}")),
    }
}

/// What a text was taken for as a value to be set.
fn as_value(case: &Case) -> Result<Taken, String> {
    match (set(&case.bytes), case.text()) {
        ((BAD_ARGUMENT, None), None) => Ok(Taken::NotText),
        ((BAD_ARGUMENT, None), Some(_)) => Ok(Taken::NotJson),
        ((OK, Some(json)), Some(text)) => {
            let wanted = format!("{{\"value\":{}}}", text.trim_matches([' ', '\t', '\r', '\n']));
            if json == wanted { Ok(Taken::Json) } else { Err(format!("{json} instead of {wanted}")) }
        }
        (other, _) => Err(format!("{other:?}")),
    }
}

/// What a text was taken for as the value of an undocumented field. In a task that is not refused it goes out byte for
/// byte, and the field is noted.
///
/// A text that is no JSON could make JSON between others (`1,"a":2`). None of the suite's does.
fn as_part(case: &Case) -> Result<Taken, String> {
    let task = with_value("BR0943-187", case.bytes.as_bytes());
    let reply = check(&task);
    if reply.code != OK {
        return refused(&reply);
    }
    // The document is taken apart as text: a body may be such that not every reader can read it.
    let body = reply.text().strip_prefix("{\"path\":\"/api/task/do_add\",\"body\":").and_then(|rest| {
        let (body, notes) = rest.rsplit_once(",\"notes\":")?;
        let notes: Value = serde_json::from_str(notes.strip_suffix('}')?).ok()?;
        let [note] = notes.as_array()?.as_slice() else { return None };
        (note["field"] == "zone").then_some(body)
    });
    if body.map(str::as_bytes) != Some(task.as_bytes()) {
        return Err(format!("another document: {reply:?}"));
    }
    Ok(Taken::Json)
}

#[test]
fn a_whole_task_that_is_json_is_held_against_the_contract_and_any_other_is_called_no_json() {
    let Some(suite) = suite() else { return };
    let mut table = Table::new();
    for case in &suite {
        table.take(case.judge(as_task(case)));
    }
    table.finish();
}

#[test]
fn a_value_that_is_json_goes_out_byte_for_byte_and_no_other_goes_out() {
    let Some(suite) = suite() else { return };
    let stage = Stage::http();
    let mut table = Table::new();
    for case in &suite {
        table.take(case.judge(as_part(case)));
        if case.class != Class::Json {
            continue;
        }
        let number = stage.number();
        let task = with_value(&number, case.bytes.as_bytes());
        let task = task.to_str().expect("what is JSON is UTF-8");
        let script = Script::made().send(answer("200 OK", Framing::Length, success_body(&number).as_bytes())).close();
        let Some(done) = table.take(stage.attempt_task(&case.name, MADE, &number, task, script)) else { continue };
        let body = &done.request().body;
        let same = body == task.as_bytes();
        table.take(same.then_some(()).ok_or_else(|| format!("{}: {:?}", case.name, String::from_utf8_lossy(body))));
    }
    table.finish();
}

#[test]
fn a_value_that_is_no_json_is_refused_by_a_call_too() {
    let Some(suite) = suite() else { return };
    let stage = Stage::http();
    let mut table = Table::new();
    for case in suite.iter().filter(|case| case.class == Class::None) {
        let task = with_value("BR0943-187", case.bytes.as_bytes());
        let reply = call(|answer| unsafe { (arctos().task_add)(stage.client.0, task.as_ptr(), answer) });
        let sent = reply.outcome != NOT_CREATED || stage.server.connections() > 0;
        table.take(if sent { Err(format!("{}: sent: {reply:?}", case.name)) } else { case.judge(refused(&reply)) });
    }
    table.finish();
}

#[test]
fn get_gives_what_is_json_and_refuses_any_other() {
    let Some(suite) = suite() else { return };
    let mut table = Table::new();
    for case in &suite {
        table.take(case.judge(as_json(case)));
    }
    table.finish();
}

#[test]
fn set_takes_what_is_json_and_refuses_any_other() {
    let Some(suite) = suite() else { return };
    let mut table = Table::new();
    for case in &suite {
        table.take(case.judge(as_value(case)));
    }
    table.finish();
}

#[test]
fn every_function_takes_a_text_for_the_same() {
    let Some(suite) = suite() else { return };
    let mut table = Table::new();
    for case in &suite {
        let taken = [as_task(case), as_part(case), as_json(case), as_value(case)];
        let same = taken[0].is_ok() && taken.windows(2).all(|pair| pair[0] == pair[1]);
        table.take(same.then_some(()).ok_or_else(|| format!("{}: {taken:?}", case.name)));
    }
    table.finish();
}
