//! What a task must be, and what is sent for it: decisions 1 to 7, 12a and 12b of docs/contract.md. A check and a call
//! apply the same rules, and a task that breaks one of them is never sent.

use arctos_tests::api::*;
use arctos_tests::http::{Framing, answer, success_body};
use arctos_tests::server::{Script, Server};
use arctos_tests::stage::{Stage, Table, config, with};
use serde_json::{Value, json};

/// The fields of a good task, in order, with the text of their values.
const GOOD: [(&str, &str); 12] = [
    ("business_id", "15"),
    ("out_task_num", "\"BR0943-187\""),
    ("out_task_type", "\"loan\""),
    ("task_type", "\"normal\""),
    ("task_notify", "false"),
    ("task_time", "\"1703141398\""),
    ("task_remark", "\"a remark\""),
    ("task_remarks", "\"a remark\""),
    ("branch_code", "943"),
    ("business_code", "2"),
    ("room_type", "\"normal\""),
    ("video", "true"),
];

const REQUIRED: [&str; 6] = ["business_id", "out_task_num", "task_type", "branch_code", "room_type", "video"];

/// The good task with some fields given otherwise, or left out, and others put behind.
fn changed(changes: &[(&str, Option<&str>)]) -> String {
    let mut fields: Vec<(&str, &str)> = GOOD.to_vec();
    for (name, value) in changes {
        let place = fields.iter().position(|(known, _)| known == name);
        match (place, value) {
            (Some(place), Some(value)) => fields[place].1 = value,
            (Some(place), None) => drop(fields.remove(place)),
            (None, Some(value)) => fields.push((name, value)),
            (None, None) => panic!("{name} is not there"),
        }
    }
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

fn one(name: &str, value: &str) -> String {
    changed(&[(name, Some(value))])
}

/// What would be sent for a task that must be accepted, byte for byte, and the notes. The body is not read as JSON, which
/// no reader needs to be able to in every case.
fn sent(task: &str) -> Result<(String, Value), String> {
    let reply = task_check(task);
    if reply.code != OK {
        return Err(format!("refused: {reply:?}"));
    }
    let parts = reply.text().strip_prefix("{\"path\":\"/api/task/do_add\",\"body\":").and_then(|rest| {
        let (body, rest) = rest.rsplit_once(",\"notes\":")?;
        Some((body.to_owned(), serde_json::from_str(rest.strip_suffix('}')?).ok()?))
    });
    parts.ok_or_else(|| format!("another document: {}", reply.text()))
}

/// A task that must be sent like this, without a note.
fn sends(table: &mut Table, task: &str, body: &str) {
    let result = match sent(task) {
        Ok((sent, notes)) if sent == body && notes == json!([]) => Ok(()),
        other => Err(format!("{task}\n  expected {body}\n  {other:?}")),
    };
    table.take(result);
}

/// A task that must be sent as it is.
fn sends_as_given(table: &mut Table, task: &str) {
    sends(table, task, task);
}

/// A task that must be refused for these fields and for no other.
fn refuses(table: &mut Table, task: &str, fields: &[&str]) {
    let reply = task_check(task);
    let result = if reply.code != BAD_TASK {
        Err(format!("{task}: {reply:?}"))
    } else {
        let mut found = reply.problem_fields();
        found.sort();
        let mut fields = fields.to_vec();
        fields.sort_unstable();
        if found == fields { Ok(()) } else { Err(format!("{task}: {found:?} instead of {fields:?}")) }
    };
    table.take(result);
}

fn problem(reply: &Reply, field: &str) -> Value {
    let document = reply.json();
    let problems = document["problems"].as_array().expect("problems").clone();
    problems.into_iter().find(|problem| problem["field"] == field).unwrap_or_else(|| panic!("{field}: {reply:?}"))
}

#[test]
fn decision_1_codes_are_strings_or_numbers_and_sent_as_given() {
    let mut table = Table::new();
    for field in ["branch_code", "business_code"] {
        for value in [
            "943",
            "0",
            "-1",
            "12345678901234567890",
            "9.50",
            "1E+2",
            "\"943\"",
            "\" 943 \"",
            "\"0943\"",
            "\"\\u0039\"",
        ] {
            sends_as_given(&mut table, &one(field, value));
        }
        for value in ["null", "true", "[]", "[943]", "{}", "{\"code\":943}"] {
            refuses(&mut table, &one(field, value), &[field]);
        }
    }
    table.finish();
}

#[test]
fn decision_2_video_is_a_boolean_or_its_word() {
    let mut table = Table::new();
    for value in ["true", "false", "\"true\"", "\"false\""] {
        sends_as_given(&mut table, &one("video", value));
    }
    for value in
        ["null", "1", "0", "\"\"", "\"True\"", "\"TRUE\"", "\" true\"", "\"yes\"", "\"1\"", "[]", "[true]", "{}"]
    {
        refuses(&mut table, &one("video", value), &["video"]);
    }
    table.finish();
}

#[test]
fn decision_3_a_remark_under_either_name() {
    let mut table = Table::new();
    let with = |one: Option<&str>, other: Option<&str>| changed(&[("task_remark", one), ("task_remarks", other)]);
    for (one, other) in [
        (None, None),
        (Some("\"only\""), None),
        (None, Some("\"only\"")),
        (Some("\"\""), None),
        (None, Some("\"\"")),
        (Some("\" \""), None),
        (Some("\"\""), Some("\"\"")),
        (Some("\"both\""), Some("\"both\"")),
        (Some("\"許功蓋\""), Some("\"\\u8a31\\u529f\\u84cb\"")),
        (Some("\"a \\\"b\\\" \\\\ \\n\""), None),
    ] {
        sends_as_given(&mut table, &with(one, other));
    }
    for (one, other) in
        [("\"one\"", "\"other\""), ("\"one\"", "\"one \""), ("\"\"", "\"other\""), ("\"one\"", "\"One\"")]
    {
        let reply = task_check(&with(Some(one), Some(other)));
        let fields = reply.problem_fields();
        assert_eq!(reply.code, BAD_TASK, "{reply:?}");
        assert!(fields.iter().all(|field| field.starts_with("task_remark")) && !fields.is_empty(), "{reply:?}");
    }
    for value in ["null", "15", "true", "[]", "{}"] {
        refuses(&mut table, &with(Some(value), None), &["task_remark"]);
        refuses(&mut table, &with(None, Some(value)), &["task_remarks"]);
    }
    table.finish();
}

#[test]
fn decision_4_seconds_are_sent_as_a_string() {
    let mut table = Table::new();
    for value in ["\"1703141398\"", "\"0\"", "\"1\"", "\"99999999999\"", "\"00000000001\"", "\"\\u0031703141398\""] {
        sends_as_given(&mut table, &one("task_time", value));
    }
    for seconds in ["1703141398", "0", "1", "99999999999"] {
        sends(&mut table, &one("task_time", seconds), &one("task_time", &format!("\"{seconds}\"")));
    }
    for value in [
        "null",
        "true",
        "[]",
        "{}",
        "[1703141398]",
        "\"\"",
        "\" \"",
        "\" 1703141398\"",
        "\"1703141398 \"",
        "\"+1703141398\"",
        "\"-1\"",
        "-1",
        "1703141398.0",
        "1703141398.5",
        "1.703141398e9",
        "17e8",
        "\"1703141398.0\"",
        "\"1e9\"",
        "\"0x1\"",
        "\"1_703_141_398\"",
        "\"170314139800\"",
        "170314139800",
        "\"17031413980000\"",
        "17031413980000",
        "\"1703141398000000000\"",
        "12345678901234567890",
        "\"１７０３１４１３９８\"",
        "\"now\"",
        "\"1703141398\\u0000\"",
    ] {
        refuses(&mut table, &one("task_time", value), &["task_time"]);
    }
    table.finish();
}

#[test]
fn decision_4_times_with_an_offset_are_converted() {
    let mut table = Table::new();
    for (time, seconds) in [
        ("2023-12-21T06:49:58Z", "1703141398"),
        ("2023-12-21T14:49:58+08:00", "1703141398"),
        ("2023-12-21T06:49:58+00:00", "1703141398"),
        ("2023-12-21T06:49:58-00:00", "1703141398"),
        ("2023-12-20T22:49:58-08:00", "1703141398"),
        ("2023-12-21T12:19:58+05:30", "1703141398"),
        ("2023-12-22T06:48:58+23:59", "1703141398"),
        // RFC 3339 leaves the case of its two letters to the writer.
        ("2023-12-21t06:49:58z", "1703141398"),
        // Fractions are dropped, never rounded up.
        ("2023-12-21T06:49:58.0Z", "1703141398"),
        ("2023-12-21T06:49:58.5Z", "1703141398"),
        ("2023-12-21T06:49:58.999Z", "1703141398"),
        ("2023-12-21T06:49:58.999999999Z", "1703141398"),
        ("2023-12-21T06:49:58.9999999999999+00:00", "1703141398"),
        // Second 60 is the next second.
        ("1998-12-31T23:59:60Z", "915148800"),
        ("2016-12-31T23:59:60Z", "1483228800"),
        ("2016-12-31T23:59:60.999Z", "1483228800"),
        ("2017-01-01T07:59:60+08:00", "1483228800"),
        ("1998-12-31T15:59:60.123-08:00", "915148800"),
        // The ends of the calendar's rules.
        ("2024-02-29T00:00:00Z", "1709164800"),
        ("2000-02-29T23:59:59Z", "951868799"),
        ("2038-01-19T03:14:08Z", "2147483648"),
        ("2106-02-07T06:28:16Z", "4294967296"),
        ("1970-01-01T00:00:00Z", "0"),
        ("1970-01-01T08:00:00+08:00", "0"),
        ("1969-12-31T23:00:00-01:00", "0"),
    ] {
        sends(&mut table, &one("task_time", &json!(time).to_string()), &one("task_time", &format!("\"{seconds}\"")));
    }
    for time in [
        "2023-12-21T06:49:58",
        "2023-12-21 06:49:58",
        "2023-12-21",
        "2023-12-21T06:49Z",
        "2023-12-21T06Z",
        "20231221T064958Z",
        "2023-12-21T06:49:58+0800",
        "2023-12-21T06:49:58+08",
        "2023-12-21T06:49:58 +08:00",
        "2023-12-21T06:49:58+8:00",
        "2023-12-21T06:49:58.Z",
        "2023-12-21T06:49:58,5Z",
        "2023-12-21T06:49:58ZZ",
        "2023-12-21T06:49:58Z ",
        " 2023-12-21T06:49:58Z",
        "2023-12-21T06:49:61Z",
        "2023-12-21T06:60:00Z",
        "2023-12-21T24:00:00Z",
        "2023-12-21T06:49:58+24:00",
        "2023-12-21T06:49:58+08:60",
        "2023-13-01T00:00:00Z",
        "2023-00-01T00:00:00Z",
        "2023-12-32T00:00:00Z",
        "2023-12-00T00:00:00Z",
        "2023-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2023-04-31T00:00:00Z",
        "23-12-21T06:49:58Z",
        "+2023-12-21T06:49:58Z",
        "12023-12-21T06:49:58Z",
        "2023-12-21T06:49:58 UTC",
        "Thu, 21 Dec 2023 06:49:58 GMT",
        "2023-W51-4T06:49:58Z",
        "1969-12-31T23:59:59Z",
        "1969-12-31T23:59:59.999Z",
        "1970-01-01T07:59:59+08:00",
        "0000-01-01T00:00:00Z",
    ] {
        refuses(&mut table, &one("task_time", &json!(time).to_string()), &["task_time"]);
    }
    table.finish();
}

#[test]
fn decision_4_date_and_time_are_not_put_together_by_any_sign() {
    let mut table = Table::new();
    for sign in ["x", "_", "-", "/", "+", "X", "許", ""] {
        let time = format!("2023-12-21{sign}06:49:58Z");
        refuses(&mut table, &one("task_time", &json!(time).to_string()), &["task_time"]);
    }
    table.finish();
}

#[test]
fn decision_4_what_is_wrong_with_a_time_is_said() {
    for (value, said) in [
        ("\"1703141398000\"", "looks like milliseconds"),
        ("1703141398000", "looks like milliseconds"),
        ("\"1969-12-31T23:59:59Z\"", "before 1970"),
        ("\"1970-01-01T07:59:59+08:00\"", "before 1970"),
        ("\"tomorrow\"", "RFC 3339"),
        ("null", "RFC 3339"),
    ] {
        let reply = task_check(&one("task_time", value));
        assert_eq!(reply.code, BAD_TASK, "{reply:?}");
        let problem = problem(&reply, "task_time");
        assert!(problem["problem"].as_str().is_some_and(|problem| problem.contains(said)), "{reply:?}");
        let message = reply.json()["message"].as_str().expect("a message").to_owned();
        assert!(message.contains("task_time") && message.contains(said), "{message}");
    }
    let shown = |value| problem(&task_check(&one("task_time", value)), "task_time")["value"].clone();
    assert_eq!(shown("\"1703141398000\""), "1703141398000");
    assert_eq!(shown("1703141398000"), "1703141398000");
}

#[test]
fn decision_4_a_missing_time() {
    let mut table = Table::new();
    let without = |room_type| changed(&[("task_time", None), ("room_type", Some(room_type))]);
    refuses(&mut table, &without("\"normal\""), &["task_time"]);
    refuses(&mut table, &without("\"n\\u006frmal\""), &["task_time"]);
    sends_as_given(&mut table, &without("\"realtime\""));
    // It may be given all the same.
    sends_as_given(&mut table, &one("room_type", "\"realtime\""));
    // Where the room is not known, the time is not known to be missing.
    refuses(&mut table, &without("\"other\""), &["room_type"]);
    table.finish();
}

#[test]
fn decision_5_a_missing_notice_is_sent_as_false_and_nothing_else_is_filled_in() {
    let mut table = Table::new();
    let without = changed(&[("task_notify", None)]);
    let body = format!("{},\"task_notify\":false}}", without.strip_suffix('}').expect("a brace"));
    sends(&mut table, &without, &body);
    for value in ["true", "false"] {
        sends_as_given(&mut table, &one("task_notify", value));
    }
    for value in ["null", "\"false\"", "\"true\"", "0", "1", "[]", "{}"] {
        refuses(&mut table, &one("task_notify", value), &["task_notify"]);
    }
    let least = r#"{"business_id":15,"out_task_num":"N","task_type":"normal","branch_code":943,"room_type":"realtime","video":true}"#;
    sends(&mut table, least, &format!("{},\"task_notify\":false}}", least.strip_suffix('}').expect("a brace")));
    // A name that only looks like it, in a text or deeper down, is none.
    for other in [r#"{"task_notify":true}"#, r#""\"task_notify\":true}""#] {
        let task =
            changed(&[("task_notify", None), ("task_remark", None), ("task_remarks", None), ("other", Some(other))]);
        let (body, _) = sent(&task).expect("accepted");
        assert_eq!(body, format!("{},\"task_notify\":false}}", task.strip_suffix('}').expect("a brace")));
    }
    table.finish();
}

#[test]
fn decision_6_undocumented_fields_are_sent_and_noted() {
    for (field, near) in [
        ("taks_time", Some("task_time")),
        ("tasktime", Some("task_time")),
        ("taskTime", Some("task_time")),
        ("Task_Time", Some("task_time")),
        ("TASK_TIME", Some("task_time")),
        ("task_tme", Some("task_time")),
        ("vidoe", Some("video")),
        ("Video", Some("video")),
        ("branch_cod", Some("branch_code")),
        ("branchCode", Some("branch_code")),
        ("bussiness_code", Some("business_code")),
        ("businessId", Some("business_id")),
        ("outTaskNum", Some("out_task_num")),
        ("roomType", Some("room_type")),
        ("task_notif", Some("task_notify")),
        ("customer", None),
        ("x", None),
        ("", None),
        ("許功蓋", None),
        ("quoted \\\"name\\\"", None),
    ] {
        for value in [
            "null",
            "0.1000",
            "12345678901234567890",
            "[ ]",
            "{ \"a\" : 1, \"a\" : 2 }",
            "\"\\u0000\"",
            "\"\\ud800\"",
            "\"許功蓋\"",
        ] {
            let task = changed(&[(field, Some(value))]);
            let (body, notes) = sent(&task).unwrap_or_else(|wrong| panic!("{wrong}"));
            assert_eq!(body, task);
            let [note] = notes.as_array().expect("a list").as_slice() else { panic!("{field}: {notes}") };
            assert_eq!(note["field"], field.replace("\\\"", "\""), "{note}");
            let note = note["note"].as_str().expect("a note");
            let named: Vec<&str> = GOOD.iter().map(|(name, _)| *name).filter(|name| note.contains(name)).collect();
            assert_eq!(named, near.into_iter().collect::<Vec<_>>(), "{field}: {note}");
            assert!(value.len() < 5 || !note.contains(value), "{field}: {note}");
        }
    }
    // All of them, in their order.
    let task = changed(&[("z", Some("1")), ("vidoe", Some("2")), ("a", Some("3"))]);
    let (_, notes) = sent(&task).expect("accepted");
    let fields: Vec<&Value> = notes.as_array().expect("a list").iter().map(|note| &note["field"]).collect();
    assert_eq!(fields, ["z", "vidoe", "a"]);
    // The documented name under an escape is that name.
    sent(&changed(&[("video", None), ("vide\\u006f", Some("true"))])).expect("accepted");
}

#[test]
fn decision_7_digits_blanks_and_order_stay() {
    let mut table = Table::new();
    for digits in
        ["12345678901234567890", "-12345678901234567890", "9007199254740993", "0", "-0", &"1234567890".repeat(100)]
    {
        sends_as_given(&mut table, &one("business_id", digits));
        sends_as_given(&mut table, &one("branch_code", digits));
        sends_as_given(&mut table, &one("business_code", digits));
    }
    sends_as_given(&mut table, &one("branch_code", "1.50e+3"));
    let task = "{ \"video\" : \"true\" ,\n\t\"room_type\":\"normal\",\r\n  \"branch_code\" : 12345678901234567890.10 , \
                \"task_time\":  1703141398  ,\"task_type\":\"cust\\u006fm\", \"out_task_num\" : \"\\u8a31\\/功\" ,\"business_id\":15,\
                \"task_notify\" :true }";
    sends(&mut table, task, &task.replace("  1703141398  ", "  \"1703141398\"  "));
    let without = task.replace(",\"task_notify\" :true }", ", \"task_remark\" : \"}\" }");
    let kept = without.replace("  1703141398  ", "  \"1703141398\"  ");
    let body = sent(&without).expect("accepted").0;
    let kept = kept.strip_suffix(" }").expect("an end");
    assert!(body.starts_with(kept), "{body}");
    let filled: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(filled["task_notify"], false, "{body}");
    // Blanks around the task are no part of what is checked.
    let (body, _) = sent(&format!("\r\n\t {} \n", changed(&[]))).expect("accepted");
    assert_eq!(body.trim(), changed(&[]));
    table.finish();
}

#[test]
fn decision_12a_null_and_wrong_types_are_refused() {
    let mut table = Table::new();
    for (field, _) in GOOD {
        for value in ["null", "[]", "{}", "[\"normal\"]", "{\"a\":1}"] {
            // The remark under its other name would differ besides.
            let task = match field {
                "task_remark" => changed(&[("task_remarks", None), (field, Some(value))]),
                "task_remarks" => changed(&[("task_remark", None), (field, Some(value))]),
                _ => one(field, value),
            };
            refuses(&mut table, &task, &[field]);
        }
    }
    let no_number = ["true", "false", "\"15\"", "\"\""];
    let no_string = ["true", "15", "1.5", "-1"];
    for (field, values) in [
        ("business_id", &no_number),
        ("out_task_num", &no_string),
        ("out_task_type", &no_string),
        ("task_type", &no_string),
        ("room_type", &no_string),
        ("task_notify", &["15", "\"true\"", "\"\"", "0"]),
        ("branch_code", &["true", "false", "[15]", "{\"\":15}"]),
        ("business_code", &["true", "false", "[15]", "{\"\":15}"]),
        ("video", &["15", "0", "\"\"", "\"no\""]),
    ] {
        for value in values {
            refuses(&mut table, &one(field, value), &[field]);
        }
    }
    table.finish();
}

#[test]
fn decision_12a_what_is_required_is_required() {
    let mut table = Table::new();
    for field in REQUIRED {
        refuses(&mut table, &changed(&[(field, None)]), &[field]);
    }
    refuses(&mut table, "{}", &REQUIRED);
    refuses(&mut table, " { } ", &REQUIRED);
    let missing = problem(&task_check("{}"), "video");
    assert!(missing["problem"].as_str().is_some_and(|problem| problem.contains("missing")), "{missing}");
    assert_eq!(missing.get("value"), None, "{missing}");
    for field in ["out_task_type", "business_code", "task_notify"] {
        assert!(sent(&changed(&[(field, None)])).is_ok(), "{field}");
    }
    table.finish();
}

#[test]
fn decision_12b_values() {
    let mut table = Table::new();
    for value in ["1.0", "1.5", "1e3", "1E0", "-1.5", "15.00000000000000000000"] {
        refuses(&mut table, &one("business_id", value), &["business_id"]);
    }
    for field in ["out_task_num", "branch_code"] {
        for value in ["\"\"", "\" \"", "\"\\t\\n \"", "\"\\u0020\""] {
            refuses(&mut table, &one(field, value), &[field]);
        }
        for value in ["\" x \"", "\"x\"", "\"許功蓋\"", "\"😀\"", "\"\\\"\""] {
            sends_as_given(&mut table, &one(field, value));
        }
    }
    // Half a surrogate pair is no text that could name an appointment.
    refuses(&mut table, &one("out_task_num", "\"\\ud800\""), &["out_task_num"]);
    for (field, good) in [("task_type", ["normal", "custom"]), ("room_type", ["realtime", "normal"])] {
        for word in good {
            sends_as_given(&mut table, &one(field, &format!("\"{word}\"")));
        }
        for word in
            ["", " ", "Normal", "NORMAL", " normal", "normal ", "customer", "real-time", "none", "normal\\u0000"]
        {
            refuses(&mut table, &one(field, &format!("\"{word}\"")), &[field]);
        }
    }
    refuses(&mut table, &one("task_type", "\"realtime\""), &["task_type"]);
    refuses(&mut table, &one("room_type", "\"custom\""), &["room_type"]);
    for field in ["out_task_type", "business_code"] {
        sends_as_given(&mut table, &one(field, "\"\""));
        sends_as_given(&mut table, &one(field, "\" \""));
    }
    table.finish();
}

#[test]
fn all_problems_are_listed_at_once() {
    let mut table = Table::new();
    let bad: Vec<(&str, Option<&str>)> = GOOD
        .iter()
        .map(|(name, _)| (*name, Some(if name.starts_with("task_remark") { "\"\"" } else { "null" })))
        .collect();
    let all: Vec<&str> = GOOD.iter().map(|(name, _)| *name).filter(|name| !name.starts_with("task_remark")).collect();
    refuses(&mut table, &changed(&bad), &all);
    let mut more = all.clone();
    more.extend(["task_remark", "task_remarks"]);
    refuses(&mut table, &changed(&GOOD.map(|(name, _)| (name, Some("[]")))), &more);
    refuses(
        &mut table,
        r#"{"business_id":"15","out_task_num":" ","task_time":"1703141398000","video":"maybe","task_notify":null,"x":1,"x":1}"#,
        &[
            "business_id",
            "out_task_num",
            "task_time",
            "video",
            "task_notify",
            "x",
            "task_type",
            "branch_code",
            "room_type",
        ],
    );
    table.finish();
    // The sentence for people names the first ones and says that there are more.
    let message = task_check("{}").json()["message"].as_str().expect("a message").to_owned();
    assert!(message.contains("business_id") && message.len() < 1000, "{message}");
}

#[test]
fn what_was_given_is_shown_and_shortened() {
    let shown = |task: &str, field| problem(&task_check(task), field).get("value").cloned();
    assert_eq!(shown(&one("business_id", "\"15\""), "business_id"), Some(json!("15")));
    assert_eq!(shown(&one("room_type", "\"許功蓋\""), "room_type"), Some(json!("許功蓋")));
    assert_eq!(shown(&one("video", "1"), "video"), Some(json!("1")));
    let long = one("room_type", &json!("許".repeat(100_000)).to_string());
    let value = shown(&long, "room_type").expect("a value");
    assert!(value.as_str().is_some_and(|value| value.starts_with('許') && value.len() < 1000), "{value}");
    assert!(task_check(&long).text().len() < 2000);
}

#[test]
fn remarks_and_undocumented_values_stand_in_no_document() {
    const SECRET: &str = "5f1e0c secret";
    let text = json!(SECRET).to_string();
    let list = format!("[{text}]");
    for task in [
        changed(&[("task_remark", Some(&text)), ("video", Some("null"))]),
        changed(&[("task_remark", Some(&text)), ("task_remarks", Some("\"another\""))]),
        changed(&[("task_remark", Some(&list)), ("task_remarks", Some(&list))]),
        changed(&[("customer", Some(&text)), ("video", Some("null"))]),
        changed(&[("customer", Some(&list)), ("taks_time", Some(&text)), ("task_time", None)]),
        changed(&[]).replacen('{', &format!("{{\"customer\":{text},\"customer\":{text},"), 1),
        changed(&[]).replacen('{', &format!("{{\"task_remark\":{text},"), 1),
        changed(&[("task_remark", Some(&format!("\"{SECRET}\\x\"")))]),
        changed(&[("task_remark", Some(&format!("\"{SECRET}\n\"")))]),
        changed(&[("customer", Some(SECRET))]),
        format!("{{\"task_remark\":{text}"),
        format!("[{text}]"),
        text.clone(),
        SECRET.to_owned(),
    ] {
        let reply = task_check(&task);
        assert_eq!(reply.code, BAD_TASK, "{task}: {reply:?}");
        assert!(!reply.text().contains("5f1e0c"), "{task}: {reply:?}");
    }
}

#[test]
fn a_key_that_stands_twice_is_refused() {
    let mut table = Table::new();
    for (field, value) in GOOD {
        let twice = changed(&[]).replacen('{', &format!("{{\"{field}\":{value},"), 1);
        refuses(&mut table, &twice, &[field]);
    }
    let escaped = changed(&[]).replacen('{', "{\"vide\\u006f\":true,", 1);
    refuses(&mut table, &escaped, &["video"]);
    let undocumented = changed(&[("x", Some("1"))]).replacen('{', "{\"x\":1,", 1);
    refuses(&mut table, &undocumented, &["x"]);
    let thrice = changed(&[]).replacen('{', "{\"video\":true,\"video\":true,", 1);
    refuses(&mut table, &thrice, &["video"]);
    table.finish();
    // Deeper down it is no affair of the library's.
    let (body, _) = sent(&changed(&[("x", Some("{\"a\":1,\"a\":2}"))])).expect("accepted");
    assert!(body.contains("{\"a\":1,\"a\":2}"), "{body}");
}

#[test]
fn what_is_no_json_object_is_refused() {
    let good = changed(&[]);
    let cases: [&str; 22] = [
        "",
        " ",
        "[]",
        "[{}]",
        "3",
        "-1.5",
        "null",
        "true",
        "\"text\"",
        "{",
        "}",
        "nul",
        "{]",
        "{\"a\"}",
        "{\"a\":}",
        "{,}",
        "{'a':1}",
        "\u{feff}{}",
        &format!("\u{feff}{good}"),
        &format!("{good} x"),
        &format!("{good}{good}"),
        &good[..good.len() - 1],
    ];
    for task in cases {
        let reply = task_check(task);
        assert_eq!(reply.code, BAD_TASK, "{task:?}: {reply:?}");
        assert_eq!(reply.problem_fields(), ["task"], "{task:?}: {reply:?}");
    }
    for (task, said) in [
        ("[]", "array"),
        ("3", "number"),
        ("null", "null"),
        ("\"x\"", "string"),
        ("true", "boolean"),
        ("\u{feff}{}", "byte order mark"),
    ] {
        let problem = problem(&task_check(task), "task");
        assert!(problem["problem"].as_str().is_some_and(|problem| problem.contains(said)), "{task:?}: {problem}");
    }
}

#[test]
fn a_task_of_any_size_and_depth_is_answered() {
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let (body, notes) = sent(&changed(&[("deep", Some(&deep))])).map_err(|wrong| wrong.len()).expect("accepted");
    assert!(body == changed(&[("deep", Some(&deep))]), "the body stays as it is");
    assert_eq!(notes[0]["field"], "deep");
    for (field, _) in GOOD {
        let fields = task_check(&one(field, &deep)).problem_fields();
        assert!(
            !fields.is_empty() && fields.iter().all(|found| found == field || found == "task_remark"),
            "{fields:?}"
        );
    }
    assert_eq!(task_check(&deep).problem_fields(), ["task"]);
    assert_eq!(task_check(&format!("{{\"a\":{}", "[".repeat(100_000))).problem_fields(), ["task"]);
    let long = json!("許".repeat(1_000_000)).to_string();
    let task = changed(&[("task_remark", Some(&long)), ("task_remarks", None)]);
    assert!(sent(&task).map_err(|wrong| wrong.len()).expect("accepted").0 == task);
}

#[test]
fn a_call_applies_the_same_rules_and_sends_nothing() {
    // The server takes every connection for a fault.
    let server = Server::plain();
    let client = Owned::new(&config(&server.base_url()));
    for task in [
        String::new(),
        "[]".to_owned(),
        "{}".to_owned(),
        "null".to_owned(),
        format!("\u{feff}{}", changed(&[])),
        one("video", "null"),
        one("branch_code", "\" \""),
        one("task_time", "1703141398000"),
        one("task_time", "\"1969-12-31T23:59:59Z\""),
        one("task_remarks", "\"another\""),
        changed(&[("task_time", None)]),
        changed(&[]).replacen('{', "{\"video\":true,", 1),
    ] {
        let (added, checked) = (client.add(&task), task_check(&task));
        assert_eq!((added.code, added.outcome), (BAD_TASK, NOT_CREATED), "{task}: {added:?}");
        assert_eq!(checked.code, BAD_TASK, "{task}: {checked:?}");
        let (added, checked) = (added.json(), checked.json());
        assert_eq!(added["problems"], checked["problems"], "{task}");
        assert_eq!(added["message"], checked["message"], "{task}");
        assert_eq!((&added["outcome"], &added["attempts"]), (&json!("not_created"), &json!(0)), "{task}");
        // A check makes no appointment, so that it says nothing of one.
        assert_eq!((checked.get("outcome"), checked.get("attempts")), (None, None), "{task}");
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_strict_client_refuses_undocumented_fields() {
    let stage = Stage::http_with(json!({ "strict": true }));
    for (task, fields) in [
        (changed(&[("customer", Some("\"5f1e0c secret\""))]), vec!["customer"]),
        (changed(&[("vidoe", Some("true")), ("x", Some("[]"))]), vec!["vidoe", "x"]),
    ] {
        let reply = stage.client.add(&task);
        assert_eq!((reply.code, reply.outcome), (BAD_TASK, NOT_CREATED), "{reply:?}");
        assert_eq!(reply.problem_fields(), fields, "{reply:?}");
        assert!(!reply.text().contains("5f1e0c"), "{reply:?}");
    }
    let reply = stage.client.add(&changed(&[("vidoe", Some("true"))]));
    assert!(problem(&reply, "vidoe")["problem"].as_str().is_some_and(|problem| problem.contains("video")), "{reply:?}");
    assert_eq!(stage.server.connections(), 0);

    // What the page names goes out, and so does everything from a client that is not strict.
    let number = "BR0943-187";
    let script = || Script::made().send(answer("200 OK", Framing::Length, success_body(number).as_bytes())).close();
    stage.server.next(script());
    assert_eq!(stage.client.add(&changed(&[])).code, OK);
    let lax = Owned::new(&with(config(&stage.server.base_url()), json!({ "strict": false })));
    stage.server.next(script());
    let task = changed(&[("customer", Some("{ \"a\" : 0.10 }"))]);
    assert_eq!(lax.add(&task).code, OK);
    let seen = stage.server.settle(0).expect("the connections have ended");
    let body = &seen[1].requests().next().expect("a request").body;
    assert_eq!(std::str::from_utf8(body), Ok(&*task));
}

#[test]
fn problems_of_a_strict_client_are_listed_with_all_others() {
    let client = Owned::new(&with(config("http://127.0.0.1:1"), json!({ "strict": true })));
    let reply = client.add(&changed(&[("vidoe", Some("true")), ("video", None), ("task_time", Some("1703141398000"))]));
    let mut fields = reply.problem_fields();
    fields.sort();
    assert_eq!(
        (reply.code, fields),
        (BAD_TASK, ["task_time", "video", "vidoe"].map(str::to_owned).to_vec()),
        "{reply:?}"
    );
}
