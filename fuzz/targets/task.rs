//! `arctos::task_check` against the contract's own table, read by a reader of JSON of its own.
//!
//! The input: a task.

#![no_main]

use arctos::{Code, task_check};
use arctos_fuzz::document::{self, document, problems, text_of};
use arctos_fuzz::json::{Unread, Value, read};
use libfuzzer_sys::fuzz_target;

const DOCUMENTED: [&str; 12] = [
    "business_id",
    "out_task_num",
    "out_task_type",
    "task_type",
    "task_notify",
    "task_time",
    "task_remark",
    "task_remarks",
    "branch_code",
    "business_code",
    "room_type",
    "video",
];
const REMARKS: [&str; 2] = ["task_remark", "task_remarks"];

fuzz_target!(|text: &str| {
    let checked = judge(text);
    let Ok(task) = read(text) else { return };
    // A remark, and the value of an undocumented field, have no influence on what a document says.
    let varied = varied(text, &task);
    match (checked, judge(&varied)) {
        (Ok((_, notes)), Ok((_, others))) => assert_eq!(notes, others, "{varied}"),
        (Err(document), Err(other)) => assert_eq!(document, other, "{varied}"),
        (one, other) => panic!("{one:?}, but {other:?} for {varied}"),
    }
});

/// Checks a task: the body and the notes of a good one, the document of a bad one without its time.
fn judge(text: &str) -> Result<(String, String), String> {
    let read = read(text);
    let acceptable = match &read {
        Ok(task) => acceptable(task),
        Err(Unread::NotJson) => Some(false),
        Err(Unread::TooDeep) => None,
    };
    let checked = match task_check(text) {
        Ok(checked) => checked,
        Err(failure) => {
            assert_ne!(acceptable, Some(true), "{failure}");
            for problem in problems(&failure, Code::BadTask) {
                assert!(!problem.problem.is_empty());
                let private = !DOCUMENTED.contains(&&*problem.field) || REMARKS.contains(&&*problem.field);
                assert!(!private || problem.value.is_none(), "{} is shown", problem.field);
            }
            return Err(document(&failure));
        }
    };
    assert_ne!(acceptable, Some(false), "{text}");
    let request = document::read(&checked);
    assert_eq!(request.members().map(<[_]>::len), Some(3), "{}", request.raw);
    assert_eq!(text_of(&request, "path"), "/api/task/do_add");
    let body = request.get("body").expect("a body").raw;
    let notes = request.get("notes").expect("notes");
    if let Ok(task) = &read {
        assert_eq!(body, expected_body(text, task, body).trim_matches([' ', '\t', '\r', '\n']));
        let noted: Vec<&str> = notes.elements().expect("an array").iter().map(|note| text_of(note, "field")).collect();
        let members = task.members().expect("an object");
        let others: Vec<&str> = members
            .iter()
            // The name of a key that is no text is the library's choice.
            .map(|(key, _)| key.as_deref())
            .enumerate()
            .filter(|(_, key)| key.is_none_or(|key| !DOCUMENTED.contains(&key)))
            .map(|(_, key)| key.unwrap_or_default())
            .collect();
        assert_eq!(noted.len(), others.len(), "{}", notes.raw);
        for (noted, other) in noted.iter().zip(others).filter(|(_, other)| !other.is_empty()) {
            assert_eq!(*noted, other);
        }
    }
    // What would be sent is a good task, of which the same would be sent.
    let again = task_check(body).unwrap_or_else(|failure| panic!("{failure}"));
    let again = document::read(&again);
    assert_eq!(again.get("body").map(|again| again.raw), Some(body));
    assert_eq!(again.get("notes").map(|again| again.raw), Some(notes.raw));
    Ok((body.to_owned(), notes.raw.to_owned()))
}

/// What goes out for a task: its own text, but for the time and the default of task_notify.
fn expected_body(text: &str, task: &Value, body: &str) -> String {
    let mut expected = text.to_owned();
    if task.get("task_notify").is_none() {
        expected.insert_str(task.place.end - 1, ",\"task_notify\":false");
    }
    if let Some(time) = task.get("task_time") {
        let seconds = match time.text() {
            None => format!("\"{}\"", time.raw),
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => time.raw.to_owned(),
            // Of a time with an offset only the form of what is sent is known here.
            Some(_) => {
                let body = read(body).expect("JSON");
                let sent = body.get("task_time").expect("a time");
                let seconds = sent.text().expect("a string");
                assert!((1..=11).contains(&seconds.len()) && seconds.bytes().all(|byte| byte.is_ascii_digit()));
                sent.raw.to_owned()
            }
        };
        expected.replace_range(time.place.clone(), &seconds);
    }
    expected
}

/// Whether the contract wants the task accepted; `None` where that depends on what this reader does not know.
fn acceptable(task: &Value) -> Option<bool> {
    let Some(members) = task.members() else { return Some(false) };
    // Keys that are no texts may be taken for each other.
    let unclear = |key: &Option<String>| key.as_deref().is_none_or(|key| key.contains('\u{fffd}'));
    if members.iter().filter(|(key, _)| unclear(key)).count() > 1 {
        return None;
    }
    let once = members.iter().flat_map(|(key, _)| key).all(|key| task.all(key).len() == 1);
    let required = |name: &str, rule: &dyn Fn(&Value) -> bool| task.get(name).is_some_and(rule);
    let optional = |name: &str, rule: &dyn Fn(&Value) -> bool| task.get(name).is_none_or(rule);
    let filled = |value: &Value| value.text().is_some_and(|text| !text.trim().is_empty());
    let word = |words: [&'static str; 2]| move |value: &Value| value.text().is_some_and(|text| words.contains(&text));
    let boolean = |value: &Value| ["true", "false"].contains(&value.raw);
    let remarks = match (task.get(REMARKS[0]), task.get(REMARKS[1])) {
        (Some(one), Some(other)) => one.raw == other.raw || one.text().is_some() && one.text() == other.text(),
        _ => true,
    };
    let all = once
        && remarks
        && required("business_id", &|value| value.is_number() && !value.raw.contains(['.', 'e', 'E']))
        && required("out_task_num", &filled)
        && optional("out_task_type", &|value| value.is_string())
        && required("task_type", &word(["normal", "custom"]))
        && optional("task_notify", &boolean)
        && optional(REMARKS[0], &|value| value.is_string())
        && optional(REMARKS[1], &|value| value.is_string())
        && required("branch_code", &|value| value.is_number() || filled(value))
        && optional("business_code", &|value| value.is_number() || value.is_string())
        && required("room_type", &word(["normal", "realtime"]))
        && required("video", &|value| boolean(value) || word(["true", "false"])(value));
    let time = match task.get("task_time") {
        None => Some(task.get("room_type").and_then(Value::text) != Some("normal")),
        Some(time) => match (time.text(), time.is_number()) {
            (None, false) => Some(false),
            (None, true) => Some(seconds(time.raw)),
            (Some(text), _) if text.len() >= "2026-11-24T15:30:00Z".len() && text.contains(':') => None,
            (Some(text), _) => Some(seconds(text)),
        },
    };
    if all { time } else { Some(false) }
}

fn seconds(text: &str) -> bool {
    (1..=11).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The same task with another remark and other values in undocumented fields, as good and as bad as it was.
fn varied(text: &str, task: &Value) -> String {
    let same = match (task.get(REMARKS[0]), task.get(REMARKS[1])) {
        (Some(one), Some(other)) => one.raw == other.raw || one.text().is_some() && one.text() == other.text(),
        _ => false,
    };
    let mut varied = text.to_owned();
    for (key, value) in task.members().unwrap_or_default().iter().rev() {
        let key = key.as_deref();
        let new = match key.filter(|key| DOCUMENTED.contains(key)) {
            None => "[\"another value\"]",
            Some(name) if REMARKS.contains(&name) => match (value.is_string(), name == REMARKS[0] || same) {
                (true, true) => "\"another remark\"",
                (true, false) => "\"and another\"",
                (false, true) => "[]",
                (false, false) => "[0]",
            },
            Some(_) => continue,
        };
        varied.replace_range(value.place.clone(), new);
    }
    varied
}
