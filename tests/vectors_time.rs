//! What is a time of RFC 3339, by the cases of JSON Schema's test suite: a time is sent as its Unix seconds, and what
//! is none is not taken for one.

use arctos_tests::api::*;
use arctos_tests::stage::Table;
use arctos_tests::vectors::document;
use serde_json::{Value, json};

/// What must become of a task_time.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// It is sent as these Unix seconds.
    Sent(String),
    /// It is a time, and one before 1970.
    Early,
    /// It is no time.
    None,
}

/// The suite's strings and whether they are times. What is no string the suite calls valid, since it is nothing that
/// the format speaks of.
fn cases() -> Option<Vec<(String, bool)>> {
    let document = document("texts/date-time.json")?;
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let tests = list(&document).into_iter().flat_map(|group| list(&group["tests"]));
    let cases: Vec<(String, bool)> = tests
        .filter_map(|test| {
            let text = test["data"].as_str()?.to_owned();
            Some((text, test["valid"].as_bool().expect("valid is a boolean")))
        })
        .collect();
    assert!(cases.iter().any(|(_, valid)| *valid) && cases.iter().any(|(_, valid)| !valid));
    Some(cases)
}

/// The same text 400 years later: after so many years the calendar repeats, leap years included, so that it is a time
/// exactly when `text` is. Most of the suite's are of 1963, which alone would be a reason to refuse them.
fn later(text: &str) -> Option<String> {
    let (year, rest) = text.split_once('-')?;
    let all = year.len() == 4 && year.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| format!("{}-{rest}", year.parse::<u32>().expect("four digits") + 400))
}

/// The Unix seconds of a valid time. A fraction is dropped, and second 60 counts on into the next minute by itself.
fn seconds(time: &str) -> i64 {
    let number = |range: std::ops::Range<usize>| time[range].parse::<i64>().expect("digits");
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    let (hour, minute, second) = (number(11..13), number(14..16), number(17..19));
    let offset = match time.as_bytes()[time.len() - 1] {
        b'Z' | b'z' => 0,
        _ => {
            let start = time.len() - 6;
            let minutes = number(start + 1..start + 3) * 60 + number(start + 4..start + 6);
            if time.as_bytes()[start] == b'-' { -minutes } else { minutes }
        }
    };
    (days(year, month, day) * 24 + hour) * 3600 + (minute - offset) * 60 + second
}

/// The days from 1970-01-01 to a date, counted year by year and month by month.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let leap = |year: i64| i64::from(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
    let years: i64 = if year >= 1970 {
        (1970..year).map(|year| 365 + leap(year)).sum()
    } else {
        -(year..1970).map(|year| 365 + leap(year)).sum::<i64>()
    };
    let months = [31, 28 + leap(year), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before = usize::try_from(month - 1).expect("a month");
    years + months[..before].iter().sum::<i64>() + day - 1
}

/// What became of a task_time.
fn fate(time: &str) -> Result<Fate, String> {
    let with = |value: &str| task("BR0943-187").replace("\"1703141398\"", value);
    let reply = task_check(&with(&json!(time).to_string()));
    if reply.code == OK {
        let seconds = reply.json()["body"]["task_time"].as_str().expect("seconds in a string").to_owned();
        // Nothing else of the task has changed.
        let body = format!("\"body\":{},\"notes\"", with(&json!(seconds).to_string()));
        return if reply.text().contains(&body) { Ok(Fate::Sent(seconds)) } else { Err(format!("{reply:?}")) };
    }
    if reply.code != BAD_TASK || reply.problem_fields() != ["task_time"] {
        return Err(format!("{reply:?}"));
    }
    let document = reply.json();
    let problem = document["problems"][0]["problem"].as_str().expect("a problem").to_owned();
    match (problem.contains("before 1970"), problem.contains("RFC 3339")) {
        (true, false) => Ok(Fate::Early),
        (false, true) => Ok(Fate::None),
        _ => Err(format!("it says neither: {problem}")),
    }
}

fn expected(text: &str, valid: bool) -> Fate {
    if !valid {
        return Fate::None;
    }
    match seconds(text) {
        ..0 => Fate::Early,
        seconds => Fate::Sent(seconds.to_string()),
    }
}

fn judge(text: &str, valid: bool) -> Result<Fate, String> {
    let (expected, found) = (expected(text, valid), fate(text)?);
    if found == expected { Ok(found) } else { Err(format!("{text:?}: {found:?} instead of {expected:?}")) }
}

#[test]
fn a_time_is_sent_as_its_seconds_and_refused_before_1970() {
    let Some(cases) = cases() else { return };
    let mut table = Table::new();
    let mut fates = Vec::new();
    for (text, valid) in cases {
        fates.extend(table.take(judge(&text, valid)));
    }
    table.finish();
    let some = |wanted: fn(&Fate) -> bool| fates.iter().any(wanted);
    assert!(some(|fate| matches!(fate, Fate::Sent(_))) && some(|fate| *fate == Fate::Early), "{fates:?}");
}

#[test]
fn a_time_after_1970_is_converted_and_what_is_none_is_not_taken_for_one() {
    let Some(cases) = cases() else { return };
    let mut table = Table::new();
    for (text, valid) in cases {
        let Some(text) = later(&text) else { continue };
        table.take(judge(&text, valid));
    }
    table.finish();
}
