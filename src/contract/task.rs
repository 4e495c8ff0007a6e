//! What a task must be, and what is sent for it: decisions 1 to 7, 12a and 12b.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::ops::Range;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use crate::code::Code;
use crate::failure::{Failure, Problem};
use crate::json::{self, Member, Object, Text, Value};
use crate::memory::{self, NoMemory};
use crate::nearest::nearest;

/// A documented field.
struct Field {
    name: &'static str,
    required: bool,
    check: fn(Value) -> Result<(), &'static str>,
}

/// The page's table, with what the decisions made of its contradictions. task_time and the two spellings of the
/// remark have rules besides, below.
///
/// [`Place`] names some of its rows.
const FIELDS: [Field; 12] = [
    Field { name: "business_id", required: true, check: integer },
    Field { name: super::NUMBER, required: true, check: filled_string },
    Field { name: "out_task_type", required: false, check: any_string },
    Field { name: "task_type", required: true, check: task_type },
    Field { name: "task_notify", required: false, check: boolean },
    Field { name: "task_time", required: false, check: |_| Ok(()) },
    Field { name: REMARKS[0], required: false, check: any_string },
    Field { name: REMARKS[1], required: false, check: any_string },
    Field { name: "branch_code", required: true, check: filled_string_or_number },
    Field { name: "business_code", required: false, check: string_or_number },
    Field { name: "room_type", required: true, check: room_type },
    Field { name: "video", required: true, check: boolean_or_its_word },
];

/// Where fields that have rules of their own stand in the table.
#[derive(Clone, Copy)]
enum Place {
    Number = 1,
    Notify = 4,
    Time = 5,
    Remark = 6,
    Remarks = 7,
    Room = 10,
}

/// Decision 3: the page's example and its table name the remark differently.
const REMARKS: [&str; 2] = ["task_remark", "task_remarks"];

const SECONDS: &str = "must be Unix seconds in a string or an integer (1 to 11 digits), or an RFC 3339 time with an offset such as 2026-11-24T15:30:00+08:00";

/// A task that keeps the contract, as it is sent.
pub(crate) struct Task<'a> {
    /// The body of the request: the caller's text where it needs no change.
    pub body: Text<'a>,
    /// Its out_task_num.
    pub number: Text<'a>,
    /// Decision 6: what the page does not name.
    pub notes: Vec<Note>,
}

/// An undocumented field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Note {
    pub field: String,
    pub note: String,
}

/// The request that a task would make, as JSON: `{"path","body","notes"}`. Nothing is sent.
///
/// # Errors
/// [`Code::BadTask`], with everything that is wrong.
pub fn task_check(task: &str) -> Result<Zeroizing<String>, Failure> {
    let task = Task::read(task, false)?;
    let notes = memory::json(&task.notes)?;
    let whole = [r#"{"path":""#, super::PATH, r#"","body":"#, &task.body, r#","notes":"#, &notes, "}"];
    Ok(memory::join(&whole)?)
}

impl<'a> Task<'a> {
    /// Reads a task and lists all that is wrong with it; where that is `strict`, fields that are not documented too.
    pub(crate) fn read(text: &'a str, strict: bool) -> Result<Task<'a>, Failure> {
        let wrong = |problems| Failure::problems(Code::BadTask, "the task is refused", problems);
        let Object(members) = json::object(text).map_err(|problem| wrong(vec![Problem::new("task", problem)]))?;
        // In the order of the table; of a field that stands twice, the first.
        let mut values: [Option<Value>; FIELDS.len()] = [None; FIELDS.len()];
        let mut may_repeat = false;
        let mut undocumented = 0;
        let mut problems = Vec::new();
        let mut notes = Vec::new();
        for (key, value) in &members {
            match FIELDS.iter().position(|field| field.name == key) {
                Some(place) => {
                    let field = &FIELDS[place];
                    may_repeat |= values[place].is_some();
                    values[place].get_or_insert(*value);
                    if let Err(expected) = (field.check)(*value) {
                        let shown = if REMARKS.contains(&field.name) { None } else { shown(*value) };
                        memory::push(&mut problems, Problem::new(field.name, expected).value(shown))?;
                    }
                }
                None => {
                    undocumented += 1;
                    match strict {
                        true => memory::push(&mut problems, Problem::new(memory::copy(key)?, note(key)))?,
                        false => memory::push(&mut notes, Note { field: memory::copy(key)?, note: note(key) })?,
                    }
                }
            }
        }
        if may_repeat || undocumented > 1 {
            problems.splice(0..0, twice(&members)?);
        }
        for (field, _) in FIELDS.iter().zip(&values).filter(|(field, value)| field.required && value.is_none()) {
            problems.push(Problem::new(field.name, "is missing"));
        }
        let given = |place: Place| values[place as usize];
        // Decision 3: both at once only if they say the same.
        if let (Some(one), Some(other)) = (given(Place::Remark), given(Place::Remarks))
            && one.get() != other.get()
            && json::string(one).is_none_or(|one| json::string(other).is_none_or(|other| *one != *other))
        {
            problems.push(Problem::new(REMARKS[0], "and task_remarks are both given and differ"));
        }
        let mut edits: Vec<(Range<usize>, String)> = Vec::new();
        match given(Place::Time) {
            Some(value) => match seconds(value) {
                Ok(None) => {}
                Ok(Some(seconds)) => edits.push((json::place(text, value.get()), format!("\"{seconds}\""))),
                Err(problem) => problems.push(Problem::new("task_time", problem).value(shown(value))),
            },
            None if given(Place::Room).and_then(json::string).as_deref() == Some("normal") => {
                problems.push(Problem::new("task_time", "is missing, and required when room_type is normal"));
            }
            None => {}
        }
        if !problems.is_empty() {
            return Err(wrong(problems));
        }
        // Decision 5: the documented default, and the only field that is ever filled in.
        if given(Place::Notify).is_none() {
            let end = text.rfind('}').expect("an object ends with a brace");
            edits.push((end..end, ",\"task_notify\":false".to_owned()));
        }
        let mut body = Text::Borrowed(text);
        // From behind, so that the places before stay where they are.
        edits.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
        for (range, new) in edits {
            body = Text::Owned(json::splice(&body, range, &[&new])?);
        }
        let number = given(Place::Number).and_then(json::string).unwrap_or_default();
        Ok(Task { body, number, notes })
    }

    /// What a server may echo and no document may repeat: every text and number of remarks and undocumented fields.
    pub(crate) fn private(&self) -> Result<Vec<Zeroizing<String>>, NoMemory> {
        // It is an object: what is not there is memory.
        let Object(members) = json::object(&self.body).map_err(|_| NoMemory)?;
        let documented = |key: &str| FIELDS.iter().any(|field| field.name == key) && !REMARKS.contains(&key);
        json::texts(members.iter().filter(|(key, _)| !documented(key)).map(|(_, value)| *value))
    }
}

/// The out_task_num of a task that may be wrong otherwise, so that its failure can name it.
pub(crate) fn number(text: &str) -> Option<String> {
    match json::pick(text, [super::NUMBER]) {
        Ok([Member::Once(value) | Member::Twice(value)]) => memory::copy(&json::string(value)?).ok(),
        _ => None,
    }
}

fn note(key: &str) -> String {
    let names: Vec<&str> = FIELDS.iter().map(|field| field.name).collect();
    match nearest(key, &names) {
        Some(name) => format!("is not a documented field; {name} is"),
        None => "is not a documented field".to_owned(),
    }
}

/// A key that stands twice could be read either way by the server.
fn twice(members: &[(Cow<str>, Value)]) -> Result<Vec<Problem>, NoMemory> {
    let mut keys = memory::collect(members.iter().map(|(key, _)| key.as_ref()))?;
    keys.sort_unstable();
    let mut twice = memory::collect(keys.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]))?;
    twice.dedup();
    let mut problems = Vec::new();
    for key in twice {
        memory::push(&mut problems, Problem::new(memory::copy(key)?, "stands twice"))?;
    }
    Ok(problems)
}

/// A value for an error document: short, and no structure.
fn shown(value: Value) -> Option<String> {
    const LONGEST: usize = 64;
    let text = match json::kind(value) {
        "an object" | "an array" => return None,
        "a string" => json::string(value)?,
        _ => Text::Borrowed(value.get()),
    };
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => Some(format!("{}…", &text[..cut])),
        None => Some((*text).to_owned()),
    }
}

fn is_string(value: Value) -> bool {
    value.get().starts_with('"')
}

fn is_number(value: Value) -> bool {
    json::kind(value) == "a number"
}

fn is_filled(value: Value) -> bool {
    json::string(value).is_some_and(|text| !text.trim().is_empty())
}

fn require(condition: bool, expected: &'static str) -> Result<(), &'static str> {
    if condition { Ok(()) } else { Err(expected) }
}

/// Decision 7: of any length, and never rounded, since it is never read as a number.
fn integer(value: Value) -> Result<(), &'static str> {
    let digits = value.get().strip_prefix('-').unwrap_or(value.get());
    require(digits.bytes().all(|byte| byte.is_ascii_digit()), "must be an integer")
}

fn any_string(value: Value) -> Result<(), &'static str> {
    require(is_string(value), "must be a string")
}

fn filled_string(value: Value) -> Result<(), &'static str> {
    require(is_filled(value), "must be a string that is not empty and not only blanks")
}

/// Decision 1.
fn filled_string_or_number(value: Value) -> Result<(), &'static str> {
    require(is_number(value) || is_filled(value), "must be a number, or a string that is not empty and not only blanks")
}

/// Decision 1.
fn string_or_number(value: Value) -> Result<(), &'static str> {
    require(is_number(value) || is_string(value), "must be a string or a number")
}

fn boolean(value: Value) -> Result<(), &'static str> {
    require(matches!(value.get(), "true" | "false"), "must be true or false")
}

/// Decision 2.
fn boolean_or_its_word(value: Value) -> Result<(), &'static str> {
    let word = json::string(value);
    let word = word.as_deref().unwrap_or(value.get());
    require(matches!(word, "true" | "false"), "must be true or false, or one of them as a string")
}

fn task_type(value: Value) -> Result<(), &'static str> {
    one_of(value, &["normal", "custom"], "must be \"normal\" or \"custom\"")
}

fn room_type(value: Value) -> Result<(), &'static str> {
    one_of(value, &["realtime", "normal"], "must be \"realtime\" or \"normal\"")
}

fn one_of(value: Value, words: &[&str], expected: &'static str) -> Result<(), &'static str> {
    require(json::string(value).is_some_and(|text| words.contains(&&*text)), expected)
}

/// Decision 4: what is sent in place of this task_time; `None` when it is sent as it stands.
fn seconds(value: Value) -> Result<Option<String>, &'static str> {
    let Some(text) = json::string(value) else {
        return if is_number(value) {
            digits(value.get()).map(|()| Some(value.get().to_owned()))
        } else {
            Err(SECONDS)
        };
    };
    match rfc_3339(&text) {
        Some(seconds) if seconds < 0 => Err("is before 1970"),
        Some(seconds) => {
            let seconds = seconds.to_string();
            digits(&seconds).map(|()| Some(seconds))
        }
        None => digits(&text).map(|()| None),
    }
}

fn digits(text: &str) -> Result<(), &'static str> {
    let all = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.len() {
        13 if all => Err("looks like milliseconds; it must be Unix seconds"),
        1..=11 if all => Ok(()),
        _ => Err(SECONDS),
    }
}

/// The Unix seconds of an RFC 3339 time. A fraction is dropped, towards the past; second 60, which only the last
/// minute of a day in UTC can have, is the next second.
fn rfc_3339(text: &str) -> Option<i64> {
    // The parser takes any sign between date and time.
    if !text.get(10..11).is_some_and(|sign| matches!(sign, "T" | "t" | " ")) {
        return None;
    }
    const SECOND: Range<usize> = 17..19;
    if text.get(SECOND) == Some("60") {
        let before = format!("{}59{}", &text[..SECOND.start], &text[SECOND.end..]);
        let before = OffsetDateTime::parse(&before, &Rfc3339).ok()?;
        let last = before.unix_timestamp() + 1;
        return (last % 86_400 == 0).then_some(last);
    }
    OffsetDateTime::parse(text, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(value: &str) -> Result<Option<String>, &'static str> {
        seconds(json::value(value).unwrap())
    }

    #[test]
    fn places_are_those_of_the_table() {
        for (place, name) in [
            (Place::Number, "out_task_num"),
            (Place::Notify, "task_notify"),
            (Place::Time, "task_time"),
            (Place::Remark, "task_remark"),
            (Place::Remarks, "task_remarks"),
            (Place::Room, "room_type"),
        ] {
            assert_eq!(FIELDS[place as usize].name, name);
        }
    }

    #[test]
    fn times_become_seconds() {
        for (given, sent) in [
            ("1703141398", "1703141398"),
            ("0", "0"),
            ("\"2023-12-21T14:49:58+08:00\"", "1703141398"),
            ("\"2023-12-21T06:49:58.999Z\"", "1703141398"),
            ("\"1998-12-31T23:59:60Z\"", "915148800"),
            ("\"1998-12-31T15:59:60.123-08:00\"", "915148800"),
            ("\"1970-01-01T00:00:00Z\"", "0"),
        ] {
            assert_eq!(time(given), Ok(Some(sent.to_owned())), "{given}");
        }
        for given in ["\"1703141398\"", "\"1\"", "\"17031413980\""] {
            assert_eq!(time(given), Ok(None), "{given}");
        }
        for given in [
            "\"\"",
            "\" 1\"",
            "\"-1\"",
            "\"+1\"",
            "-1",
            "1.5",
            "1e9",
            "170314139800",
            "\"170314139800\"",
            "true",
            "null",
            "\"2023-12-21T14:49:58\"",
            "\"2023-12-21\"",
            "\"1998-12-31T22:59:60Z\"",
            "\"1969-12-31T23:59:59Z\"",
            "{}",
            "\"9999-12-31T23:59:59Z\"",
            "\"１７０\"",
        ] {
            assert!(time(given).is_err(), "{given}");
        }
        assert!(time("1703141398000").unwrap_err().contains("milliseconds"));
        assert!(time("\"1703141398000\"").unwrap_err().contains("milliseconds"));
        assert!(time("\"1969-12-31T23:59:59Z\"").unwrap_err().contains("1970"));
    }
}
