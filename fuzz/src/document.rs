//! Error documents, as any caller reads them.

use arctos::{Code, Failure};

use crate::json::{self, Value};

/// The error document, with a 0 in the place of the time at which it was written. It must be JSON, its `code` and `name` those of the
/// failure, and have a message.
pub fn document(failure: &Failure) -> String {
    let text = failure.document();
    let document = read(&text);
    assert_eq!(document.get("code").map(|code| code.raw), Some(failure.code().value().to_string().as_str()), "{text}");
    assert_eq!(text_of(&document, "name"), failure.code().name(), "{text}");
    assert_eq!(text_of(&document, "message"), failure.message(), "{text}");
    assert!(!failure.message().is_empty(), "{text}");
    let time = document.get("time").expect("a time").place.clone();
    [&text[..time.start], "0", &text[time.end..]].concat()
}

/// What is wrong with a configuration or a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key or field.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
    /// The value that the document shows.
    pub value: Option<String>,
}

/// The problems that the document of a refusal with `code` lists; there must be some, and no outcome, for nothing was
/// called.
pub fn problems(failure: &Failure, code: Code) -> Vec<Problem> {
    assert_eq!(failure.code(), code, "{failure}");
    assert_eq!(failure.outcome(), None, "{failure}");
    let text = failure.document();
    let document = read(&text);
    let problems = document.get("problems").and_then(Value::elements).expect("problems");
    assert!(!problems.is_empty(), "{text}");
    problems
        .iter()
        .map(|problem| Problem {
            field: text_of(problem, "field").to_owned(),
            problem: text_of(problem, "problem").to_owned(),
            value: problem.get("value").map(|value| value.text().expect("a string").to_owned()),
        })
        .collect()
}

/// A text of the library's, which must be JSON. A key that stands twice in it is a defect.
pub fn read(text: &str) -> Value<'_> {
    let document = json::read(text).unwrap_or_else(|error| panic!("{error:?}: {text}"));
    for (key, _) in document.members().expect("an object") {
        let key = key.as_deref().expect("a key that is a text");
        assert_eq!(document.all(key).len(), 1, "{key} stands more than once: {text}");
    }
    document
}

/// The string of this name.
pub fn text_of<'a>(value: &'a Value<'_>, name: &str) -> &'a str {
    value.get(name).and_then(Value::text).unwrap_or_else(|| panic!("no {name} in {}", value.raw))
}
