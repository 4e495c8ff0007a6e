//! What the endpoint accepts: the wire form of a task, checked for all of its problems at once.
//! The decisions are those of `docs/contract.md`.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

/// A task that passed, as far as the list of appointments shows it. Codes and numbers keep the
/// spelling of the request.
#[derive(Serialize)]
pub struct Task {
    pub out_task_num: String,
    pub branch_code: Box<RawValue>,
    pub business_id: Box<RawValue>,
    pub room_type: String,
    pub task_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_time: Option<String>,
}

/// Checks a request body. The error lists every problem with the name of its field, and never
/// repeats a value: remarks and fields that nobody documented may be confidential.
pub fn check(body: &[u8]) -> Result<Task, String> {
    let text = str::from_utf8(body).map_err(|_| "the body is not UTF-8".to_owned())?;
    let mut fields = Fields::parse(text)?;

    let business_id = fields.required("business_id", integer);
    let out_task_num = fields.required("out_task_num", filled_string);
    fields.optional("out_task_type", string);
    let task_type = fields.required("task_type", |raw| one_of(raw, ["normal", "custom"]));
    fields.required("task_notify", boolean);
    let task_time = fields.optional("task_time", unix_seconds);
    let remark = fields.optional("task_remark", string);
    let remarks = fields.optional("task_remarks", string);
    if remark.is_some() && remarks.is_some() && remark != remarks {
        fields.problem("task_remark and task_remarks: both given, and not equal");
    }
    let branch_code = fields.required("branch_code", branch_code);
    fields.optional("business_code", string_or_number);
    let room_type = fields.required("room_type", |raw| one_of(raw, ["realtime", "normal"]));
    if room_type.as_deref() == Some("normal") && fields.get("task_time").is_none() {
        fields.problem("task_time: missing, and required when room_type is normal");
    }
    fields.required("video", video);

    match (business_id, out_task_num, task_type, branch_code, room_type) {
        (Some(business_id), Some(out_task_num), Some(task_type), Some(branch_code), Some(room_type))
            if fields.problems.is_empty() =>
        {
            Ok(Task { out_task_num, branch_code, business_id, room_type, task_type, task_time })
        }
        _ => Err(fields.problems.join("; ")),
    }
}

/// The members of the request's object and the problems found so far.
struct Fields<'a> {
    members: Vec<(String, &'a RawValue)>,
    problems: Vec<String>,
}

impl<'a> Fields<'a> {
    fn parse(text: &'a str) -> Result<Self, String> {
        let mut json = serde_json::Deserializer::from_str(text);
        // The parser's own texts quote the input.
        let members = json.deserialize_map(Members).and_then(|members| json.end().map(|()| members)).map_err(
            |error| match error.classify() {
                Category::Data => "the body is not a JSON object".to_owned(),
                _ => format!("the body is not JSON (line {}, column {})", error.line(), error.column()),
            },
        )?;

        let mut problems = Vec::new();
        let mut occurrences: HashMap<&str, usize> = HashMap::new();
        for (name, _) in &members {
            let count = occurrences.entry(name).or_default();
            *count += 1;
            if *count == 2 {
                problems.push(format!("{name}: given more than once"));
            }
        }
        Ok(Self { members, problems })
    }

    fn get(&self, name: &str) -> Option<&'a RawValue> {
        let (_, value) = self.members.iter().find(|(member, _)| member == name)?;
        Some(value)
    }

    fn problem(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    fn required<T>(&mut self, name: &str, rule: impl FnOnce(&RawValue) -> Result<T, String>) -> Option<T> {
        if self.get(name).is_none() {
            self.problem(format!("{name}: missing"));
        }
        self.optional(name, rule)
    }

    fn optional<T>(&mut self, name: &str, rule: impl FnOnce(&RawValue) -> Result<T, String>) -> Option<T> {
        match rule(self.get(name)?) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.problem(format!("{name}: {problem}"));
                None
            }
        }
    }
}

fn string(raw: &RawValue) -> Result<String, String> {
    if !raw.get().starts_with('"') {
        return Err("must be a string".to_owned());
    }
    serde_json::from_str(raw.get()).map_err(|_| "holds an unpaired surrogate".to_owned())
}

fn filled_string(raw: &RawValue) -> Result<String, String> {
    let text = string(raw)?;
    if text.trim().is_empty() {
        return Err("must not be empty or blank".to_owned());
    }
    Ok(text)
}

fn one_of<const N: usize>(raw: &RawValue, values: [&str; N]) -> Result<String, String> {
    string(raw)
        .ok()
        .filter(|text| values.contains(&text.as_str()))
        .ok_or_else(|| format!("must be one of: {}", values.join(", ")))
}

fn is_number(raw: &RawValue) -> bool {
    raw.get().starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

fn integer(raw: &RawValue) -> Result<Box<RawValue>, String> {
    if !is_number(raw) || raw.get().contains(['.', 'e', 'E']) {
        return Err("must be an integer".to_owned());
    }
    Ok(raw.to_owned())
}

fn boolean(raw: &RawValue) -> Result<(), String> {
    match raw.get() {
        "true" | "false" => Ok(()),
        _ => Err("must be true or false".to_owned()),
    }
}

/// The page's table says string, its example boolean (decision 2).
fn video(raw: &RawValue) -> Result<(), String> {
    match string(raw).as_deref() {
        Ok("true" | "false") => Ok(()),
        _ => boolean(raw),
    }
}

/// The page's table says string, its example number (decision 1).
fn string_or_number(raw: &RawValue) -> Result<(), String> {
    if is_number(raw) {
        return Ok(());
    }
    if !raw.get().starts_with('"') {
        return Err("must be a string or a number".to_owned());
    }
    string(raw).map(drop)
}

fn branch_code(raw: &RawValue) -> Result<Box<RawValue>, String> {
    string_or_number(raw)?;
    if !is_number(raw) {
        filled_string(raw)?;
    }
    Ok(raw.to_owned())
}

/// The wire form only; integers and RFC 3339 times are for the client to convert (decision 4).
fn unix_seconds(raw: &RawValue) -> Result<String, String> {
    let text = string(raw)?;
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.len() {
        1..=11 if digits => Ok(text),
        13 if digits => Err("looks like milliseconds, must be seconds".to_owned()),
        _ => Err("must be 1 to 11 digits, Unix seconds".to_owned()),
    }
}

/// Keeps order and duplicates, which a map would lose.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}
