//! What an answer means: decisions 8 to 12.
#![forbid(unsafe_code)]

use zeroize::Zeroizing;

use crate::code::Code;
use crate::failure::Verdict;
use crate::json::{self, Member, Text, Value};
use crate::outcome::Outcome;

/// What a complete head says by itself.
pub(crate) enum Status {
    /// A 2xx: the body tells.
    Success,
    /// Anything else decides alone, whatever becomes of its body.
    Decided(Verdict),
}

/// Decision 12: the meaning of an HTTP status. `idle_503`: a 503 of this server means that it did nothing.
pub(crate) fn status(status: u16, idle_503: bool) -> Status {
    use Outcome::{NotCreated, Unknown};
    let (code, outcome, meaning) = match status {
        200..=299 => return Status::Success,
        401 | 403 => (Code::Forbidden, NotCreated, "refused the token"),
        404 => (Code::NotFound, NotCreated, "does not know the path; base_url may be wrong"),
        429 => (Code::Busy, NotCreated, "has no room for the request now; try again later"),
        503 if idle_503 => (Code::Busy, NotCreated, "is not available"),
        503 => (Code::Busy, Unknown, "is not available"),
        400 | 405 | 406 | 407 | 410 | 411 | 413 | 414 | 415 | 417 | 421 | 422 | 431 => {
            (Code::Rejected, NotCreated, "rejected the request")
        }
        400..=499 => (Code::Rejected, Unknown, "rejected the request"),
        500..=599 => (Code::ServerError, Unknown, "failed"),
        300..=399 => (
            Code::BadResponse,
            Unknown,
            "answered with a redirect, which is never followed, for the token must not travel; check base_url",
        ),
        _ => (Code::BadResponse, Unknown, "answered with a status that HTTP does not know here"),
    };
    Status::Decided(Verdict { code, outcome, meaning: format!("{meaning} (HTTP {status})") })
}

/// Whether a status refuses a token, or could, and says that nothing was done.
pub(crate) fn is_refusal(number: u16) -> bool {
    (400..=499).contains(&number)
        && number != 429
        && matches!(status(number, false), Status::Decided(verdict) if verdict.outcome == Outcome::NotCreated)
}

/// What the body of a 2xx says.
pub(crate) enum Envelope {
    /// Decisions 8, 9 and 11: made, perhaps with a warning. The text is the caller's, byte for byte.
    Made { warning: bool },
    /// Anything else, with the server's own message where there is one.
    Not(Verdict, Option<Zeroizing<String>>),
}

/// Reads the envelope of a 2xx. `numbered`: whether what was made has a task number.
pub(crate) fn envelope(body: &str, numbered: bool) -> Envelope {
    use Outcome::{Created, NotCreated, Unknown};
    let not = |code, outcome, meaning: &str, message| {
        Envelope::Not(Verdict { code, outcome, meaning: meaning.to_owned() }, message)
    };
    let unreadable = |why: &str| {
        let meaning = format!("gave an answer that cannot be read: {why}");
        not(Code::BadResponse, Unknown, &meaning, None)
    };
    let members = match json::pick(body, ["status", "message", "info"]) {
        Ok(members) => members,
        Err(why) => return unreadable(&format!("it {why}")),
    };
    let [Ok(status), Ok(said), Ok(info)] = members.map(once) else {
        return unreadable("a member stands twice in it");
    };
    let message = || said.and_then(text).and_then(|text| text.owned().ok());
    let status = status.and_then(text);
    let number = if numbered { Some(task_num(info)) } else { None };
    match (status.as_deref(), number) {
        (Some(made @ ("1" | "2")), None | Some(Number::There)) => Envelope::Made { warning: made == "2" },
        // Decision 10: made, and the caller must not be told that nothing happened.
        (Some("1" | "2"), Some(Number::Missing | Number::Unreadable)) => {
            not(Code::BadResponse, Created, "made the appointment but gave no task number", message())
        }
        (Some("0"), None | Some(Number::Missing)) => {
            let message = message();
            let meaning = match &message {
                Some(said) if !said.trim().is_empty() => "refused the request; server_message says why",
                _ => "refused the request and did not say why",
            };
            not(Code::Failed, NotCreated, meaning, message)
        }
        // Decision 10a: the server contradicts itself.
        (Some("0"), Some(Number::There | Number::Unreadable)) => {
            not(Code::BadResponse, Unknown, "says that it failed and gives a task number all the same", message())
        }
        _ => not(Code::BadResponse, Unknown, "gave an answer whose status is not 0, 1 or 2", message()),
    }
}

/// The server's own words in a body of any status, for the support desk.
pub(crate) fn message(body: &str) -> Option<Zeroizing<String>> {
    let [message] = json::pick(body, ["message"]).ok()?;
    once(message).ok()?.and_then(text)?.owned().ok()
}

/// A member that may be missing; an error where it stands more than once.
fn once(member: Member<'_>) -> Result<Option<Value<'_>>, ()> {
    match member {
        Member::Missing => Ok(None),
        Member::Once(value) => Ok(Some(value)),
        Member::Twice(_) => Err(()),
    }
}

/// The contents of a string, or a number as it is written (decision 8).
fn text(value: Value) -> Option<Text> {
    match json::kind(value) {
        "a string" => json::string(value),
        "a number" => Some(Text::Borrowed(value.get())),
        _ => None,
    }
}

enum Number {
    There,
    /// Missing, null or empty, which are the same.
    Missing,
    /// Something is there, and it cannot be said what.
    Unreadable,
}

/// Decision 10: a number may be a string or a number.
fn task_num(info: Option<Value>) -> Number {
    let Some(info) = info.filter(|info| !is_empty(*info)) else { return Number::Missing };
    let number = json::pick(info.get(), ["task_num"]).map_err(drop).and_then(|[number]| once(number));
    let Ok(number) = number else { return Number::Unreadable };
    match number.filter(|number| !is_empty(*number)) {
        None => Number::Missing,
        Some(number) if text(number).is_some() => Number::There,
        Some(_) => Number::Unreadable,
    }
}

/// What servers write for nothing: null, a string of blanks, and an array or object without contents.
fn is_empty(value: Value) -> bool {
    match json::kind(value) {
        "null" => true,
        "a string" => json::string(value).is_some_and(|text| text.trim().is_empty()),
        "an array" => json::scalars(value).next().is_none(),
        // A member has a key.
        "an object" => !value.get().contains('"'),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> (i32, Option<Outcome>) {
        match envelope(body, true) {
            Envelope::Made { .. } => (0, None),
            Envelope::Not(verdict, _) => (verdict.code.value(), Some(verdict.outcome)),
        }
    }

    #[test]
    fn envelopes_mean_what_the_contract_says() {
        use Outcome::{Created, NotCreated, Unknown};
        for (body, code, outcome) in [
            (r#"{"status":1,"message":"success","info":{"task_num":"7"}}"#, 0, None),
            (r#"{"status":"2","info":{"task_num":7,"x":[[]]},"y":"\ud800"}"#, 0, None),
            (r#"{"status":1,"info":{"task_num":""}}"#, -26, Some(Created)),
            (r#"{"status":1,"info":{"task_num":"  "}}"#, -26, Some(Created)),
            (r#"{"status":1,"info":{"task_num":true}}"#, -26, Some(Created)),
            (r#"{"status":1,"info":{"task_num":"\ud800"}}"#, -26, Some(Created)),
            (r#"{"status":0,"info":{"task_num":"\ud800"}}"#, -26, Some(Unknown)),
            (r#"{"status":2,"info":{}}"#, -26, Some(Created)),
            (r#"{"status":2,"info":null}"#, -26, Some(Created)),
            (r#"{"status":1,"info":["7"]}"#, -26, Some(Created)),
            (r#"{"status":1}"#, -26, Some(Created)),
            (r#"{"status":0}"#, -20, Some(NotCreated)),
            (r#"{"status":"0","message":3,"info":{"task_num":null}}"#, -20, Some(NotCreated)),
            (r#"{"status":0,"info":{"task_num":"7"}}"#, -26, Some(Unknown)),
            (r#"{"status":0,"info":[]}"#, -20, Some(NotCreated)),
            (r#"{"status":0,"info":{"task_num":"7","task_num":"7"}}"#, -26, Some(Unknown)),
            (r#"{"status":0,"info":{"\ud800":1,"task_num":"7"}}"#, -26, Some(Unknown)),
            (r#"{"status":0,"info":[{"task_num":"7"}]}"#, -26, Some(Unknown)),
            (r#"{"status":0,"info":{"task_num":["7"]}}"#, -26, Some(Unknown)),
            (r#"{"status":0,"info":"7"}"#, -26, Some(Unknown)),
            (r#"{"status":1,"\ud800":0,"info":{"task_num":"7"}}"#, 0, None),
            (r#"{"status":3,"info":{"task_num":"7"}}"#, -26, Some(Unknown)),
            (r#"{"status":1.0,"info":{"task_num":"7"}}"#, -26, Some(Unknown)),
            (r#"{"status":"1 ","info":{"task_num":"7"}}"#, -26, Some(Unknown)),
            (r#"{"status":true,"info":{"task_num":"7"}}"#, -26, Some(Unknown)),
            (r#"{"info":{"task_num":"7"}}"#, -26, Some(Unknown)),
            (r#"{"status":1,"status":0,"info":{"task_num":"7"}}"#, -26, Some(Unknown)),
            (r#"[1,"success",{"task_num":"7"}]"#, -26, Some(Unknown)),
            (r#"{"status":1,"info":{"task_num":"7"}} x"#, -26, Some(Unknown)),
            ("", -26, Some(Unknown)),
        ] {
            assert_eq!(read(body), (code, outcome), "{body}");
        }
    }
}
