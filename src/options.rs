//! The options of one call. They grow inside their JSON, never by another function.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::code::Code;
use crate::config::LONGEST_MS;
use crate::failure::{Failure, Problem};
use crate::json;
use crate::keys::Keys;

const KEYS: [&str; 2] = ["timeout_ms", "call_id"];
const LONGEST_CALL_ID: usize = 128;

/// What one call does differently from its client's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// In place of the configuration's `timeout_ms`.
    pub timeout: Option<Duration>,
    /// The caller's own name for the call, for logs and error documents.
    pub call_id: Option<String>,
}

impl Options {
    /// Reads options from a JSON object.
    ///
    /// # Errors
    /// [`Code::BadArgument`], with everything that is wrong.
    pub fn read(text: &str) -> Result<Options, Failure> {
        let wrong = |problems| Failure::problems(Code::BadArgument, "the options are refused", problems);
        let object = json::object(text).map_err(|problem| wrong(vec![Problem::new("options", problem)]))?;
        let mut problems = Vec::new();
        let mut keys = Keys::new("", object, &KEYS, &[], &mut problems);
        let timeout = keys.optional_integer("timeout_ms", 1..=LONGEST_MS).map(Duration::from_millis);
        let call_id = keys.string("call_id").map(|text| text.to_string());
        if call_id
            .as_ref()
            .is_some_and(|id| !(1..=LONGEST_CALL_ID).contains(&id.len()) || id.contains(char::is_control))
        {
            keys.problem("call_id", "must be 1 to 128 bytes without control characters");
        }
        if problems.is_empty() { Ok(Options { timeout, call_id }) } else { Err(wrong(problems)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_or_refused() {
        assert_eq!(Options::read("{}").unwrap(), Options::default());
        let both = Options::read(r#"{"timeout_ms":250,"call_id":"c-19"}"#).unwrap();
        assert_eq!((both.timeout, both.call_id.as_deref()), (Some(Duration::from_millis(250)), Some("c-19")));
        for text in [
            "",
            "[]",
            "null",
            "{",
            r#"{"timeout":1}"#,
            r#"{"timeout_ms":0}"#,
            r#"{"timeout_ms":3600001}"#,
            r#"{"timeout_ms":"1"}"#,
            r#"{"timeout_ms":1.5}"#,
            r#"{"timeout_ms":null}"#,
            r#"{"call_id":""}"#,
            r#"{"call_id":1}"#,
            r#"{"call_id":"a\nb"}"#,
            r#"{"call_id":"a","call_id":"b"}"#,
        ] {
            assert_eq!(Options::read(text).unwrap_err().code(), Code::BadArgument, "{text}");
        }
        assert!(Options::read(&format!(r#"{{"call_id":"{}"}}"#, "x".repeat(129))).is_err());
    }
}
