//! Failures and their documents. Every failure of a call is built here, from the record of the call: no other
//! place chooses an outcome.
#![forbid(unsafe_code)]

use std::fmt;

use serde::Serialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use crate::call::{Call, Cause, Doubt, Limit, Phase, Purpose};
use crate::code::Code;
use crate::memory::{self, NoMemory};
use crate::outcome::Outcome;

/// One thing that is wrong with a configuration or a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The key or field, nested ones with dots.
    pub field: String,
    /// What is wrong, and what is expected.
    pub problem: String,
    /// The value as it was given, shortened; absent where it could be a secret or a customer's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl Problem {
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>) -> Problem {
        Problem { field: field.into(), problem: problem.into(), value: None }
    }

    pub(crate) fn value(mut self, value: Option<String>) -> Problem {
        self.value = value;
        self
    }
}

/// What the server said besides its status, as far as it helps.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub retry_after_ms: Option<u64>,
    pub server_message: Option<String>,
    pub server_body: Option<String>,
}

/// What the answer meant, where it was no success.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub code: Code,
    pub outcome: Outcome,
    pub meaning: String,
}

/// Why a function failed: a code, one sentence, and what is known of the appointment.
#[derive(Clone, Serialize)]
pub struct Failure(Box<Document>);

/// The error document, in the order of its keys.
#[derive(Clone, Serialize)]
struct Document {
    #[serde(serialize_with = "code_value")]
    code: Code,
    name: &'static str,
    message: String,
    #[serde(flatten)]
    call: Option<About>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_body: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Problem>,
    /// The answer of the server to an earlier call, from the journal.
    #[serde(skip_serializing_if = "Option::is_none")]
    recorded_answer: Option<Box<RawValue>>,
    /// Those of many tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<Box<RawValue>>,
    /// Those of a diagnosis.
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<Box<RawValue>>,
    /// Whether another try would bring no more, whatever the code.
    #[serde(skip)]
    is_final: bool,
}

/// What only the failure of a call that makes an appointment has to say.
#[derive(Clone, Serialize)]
struct About {
    #[serde(serialize_with = "outcome_word")]
    outcome: Outcome,
    /// That of the last try alone.
    #[serde(skip)]
    last: Outcome,
    attempts: u32,
    elapsed_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    call_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    out_task_num: Option<String>,
}

fn code_value<S: serde::Serializer>(code: &Code, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i32(code.value())
}

fn outcome_word<S: serde::Serializer>(outcome: &Outcome, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(outcome.word())
}

impl Failure {
    /// A failure outside any call, such as that of a JSON function.
    pub(crate) fn plain(code: Code, message: impl Into<String>) -> Failure {
        Failure(Box::new(Document {
            code,
            name: code.name(),
            message: message.into(),
            call: None,
            host: None,
            proxy: None,
            time: OffsetDateTime::now_utc().replace_nanosecond(0).ok().and_then(|now| now.format(&Rfc3339).ok()),
            version: crate::VERSION,
            retry_after_ms: None,
            http_status: None,
            server_message: None,
            server_body: None,
            problems: Vec::new(),
            recorded_answer: None,
            results: None,
            steps: None,
            is_final: false,
        }))
    }

    /// A configuration or a task with everything that is wrong with it.
    pub(crate) fn problems(code: Code, what: &str, problems: Vec<Problem>) -> Failure {
        const SHOWN: usize = 5;
        let mut message = format!("{what}: ");
        for (index, problem) in problems.iter().take(SHOWN).enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            message.push_str(&format!("{separator}{} {}", problem.field, problem.problem));
        }
        if problems.len() > SHOWN {
            message.push_str(&format!("; and {} more", problems.len() - SHOWN));
        }
        let mut failure = Failure::plain(code, message);
        failure.0.problems = problems;
        failure
    }

    /// This failure as that of a call, unless it is one already. Everything that says what became of an appointment
    /// comes from the record.
    pub(crate) fn of(mut self, call: &Call) -> Failure {
        if self.0.call.is_none() {
            self.relate(call, if call.sent() { Outcome::Unknown } else { Outcome::NotCreated });
        }
        self
    }

    /// The failure of a call that was stopped by `cause`.
    pub(crate) fn stopped(call: &Call, cause: &Cause) -> Failure {
        let host = call.host().unwrap_or_default();
        let phase = call.current_phase();
        let gone = match call.purpose() {
            Purpose::LogIn => "the request itself had not gone out",
            Purpose::Diagnosis => "no appointment was asked for",
            _ if call.sent() => "the request had gone out",
            #[cfg(feature = "journal")]
            _ if phase == Phase::Elsewhere => "nothing was sent now",
            _ => "nothing of the request had gone out",
        };
        let proxy = call.proxy().map(|proxy| format!("the proxy {proxy}"));
        // Who the name and the connection belong to.
        let next = proxy.as_deref().unwrap_or(host);
        let (code, message) = match cause {
            Cause::Resolve(why) => (Code::Connect, format!("{next} could not be resolved: {why}")),
            Cause::Connect(why) if phase == Phase::Handshake => {
                let through = proxy.as_ref().map(|proxy| format!(" through {proxy}")).unwrap_or_default();
                (Code::Connect, format!("no connection to {host}{through}: {why}"))
            }
            Cause::Connect(why) => (Code::Connect, format!("no connection to {next}: {why}")),
            Cause::Proxy { why, .. } => (Code::Connect, format!("{next} {why}")),
            Cause::Tls(why) if phase == Phase::Handshake => (Code::Tls, format!("no TLS with {host}: {why}")),
            Cause::Tls(why) => (Code::Tls, format!("TLS with {host} failed: {why}; {gone}")),
            Cause::Deadline(limit) => (Code::Timeout, timeout_message(host, proxy.as_deref(), phase, *limit, gone)),
            #[cfg(feature = "journal")]
            Cause::Cancelled if matches!(phase, Phase::Journal | Phase::Elsewhere) => {
                (Code::Cancelled, format!("the call to {host} was cancelled; nothing was sent now"))
            }
            Cause::Cancelled if phase == Phase::Pause => {
                (Code::Cancelled, format!("the call to {host} was cancelled between two tries"))
            }
            Cause::Cancelled => (Code::Cancelled, format!("the call to {host} was cancelled; {gone}")),
            Cause::Broken(why) => (Code::Broken, format!("the connection to {host} broke: {why}; {gone}")),
            Cause::Unreadable(why) => (Code::BadResponse, format!("the answer of {host} cannot be read: {why}")),
        };
        let mut failure = Failure::plain(code, of_log_in(call, message)).of(call);
        if let Cause::Proxy { passes, retry_after_ms, .. } = cause {
            failure.0.is_final = !passes;
            failure.0.retry_after_ms = *retry_after_ms;
        }
        failure
    }

    /// The failure of a call whose answer has a meaning.
    pub(crate) fn answered(call: &Call, verdict: Verdict, said: Said) -> Failure {
        let host = call.host().unwrap_or_default();
        let message = of_log_in(call, format!("{host} {}", verdict.meaning));
        let mut failure = Failure::plain(verdict.code, message);
        failure.0.http_status = call.status();
        failure.relate(call, verdict.outcome);
        failure.0.retry_after_ms = said.retry_after_ms;
        failure.0.server_message = said.server_message;
        failure.0.server_body = said.server_body;
        failure
    }

    /// The failure of a call of which nothing was sent, for the journal stands in the way: with what it says of the
    /// appointment, and the server's answer where it has one.
    #[cfg(feature = "journal")]
    pub(crate) fn recorded(
        call: &Call,
        code: Code,
        outcome: Outcome,
        message: String,
        answer: Option<&str>,
    ) -> Failure {
        let mut failure = Failure::plain(code, message);
        failure.relate(call, outcome);
        failure.0.recorded_answer = answer.and_then(|answer| serde_json::from_str(answer).ok());
        failure
    }

    /// The failure of a call in which the library itself failed. Says nothing of the panic's text, which could
    /// hold anything.
    pub(crate) fn internal(call: &Call) -> Failure {
        Failure::plain(Code::Internal, "the library has failed; this is a defect in it, please report it").of(call)
    }

    fn relate(&mut self, call: &Call, last: Outcome) {
        let doubt = match call.purpose() {
            Purpose::Local => return,
            Purpose::LogIn => {
                self.0.http_status = call.status();
                return;
            }
            Purpose::Diagnosis => {
                self.0.host = call.host().map(str::to_owned);
                self.0.proxy = call.proxy().map(str::to_owned);
                return;
            }
            Purpose::Appointment => "the appointment may have been made",
            Purpose::Request => "it may have been carried out",
        };
        // Only a success, or a refusal of the only try, is certain.
        let before = call.doubt().filter(|_| last == Outcome::NotCreated);
        let outcome = if before.is_some() { Outcome::Unknown } else { last };
        if outcome == Outcome::Unknown {
            let by = match before {
                None => "",
                Some(Doubt::Try) => " by an earlier try of this call",
                #[cfg(feature = "journal")]
                Some(Doubt::Call) => " by another call",
            };
            self.0.message.push_str(&format!("; {doubt}{by}"));
        }
        self.0.host = call.host().map(str::to_owned);
        self.0.proxy = call.proxy().map(str::to_owned);
        self.0.http_status = call.status().or(self.0.http_status);
        self.0.call = Some(About {
            outcome,
            last,
            attempts: call.attempts(),
            elapsed_ms: u64::try_from(call.elapsed().as_millis()).unwrap_or(u64::MAX),
            call_id: call.id().map(str::to_owned),
            out_task_num: call.number().and_then(|number| memory::copy(number).ok()),
        });
    }

    /// How this failure ends a try: its code, and its outcome without what tries before it left open.
    pub(crate) fn of_last_try(&self) -> (Code, Option<Outcome>) {
        (self.0.code, self.0.call.as_ref().map(|call| call.last))
    }

    /// How many tries it took.
    pub(crate) fn attempts(&self) -> Option<u32> {
        self.0.call.as_ref().map(|call| call.attempts)
    }

    /// Whether another try would bring no more, whatever the code.
    pub(crate) fn is_final(&self) -> bool {
        self.0.is_final
    }

    /// The same with the steps of a diagnosis.
    pub(crate) fn with_steps(mut self, steps: &impl Serialize) -> Failure {
        self.0.steps = serde_json::value::to_raw_value(steps).ok();
        self
    }

    /// The same with the results of many tasks, a JSON array.
    pub(crate) fn with_results(mut self, results: Option<Zeroizing<String>>) -> Failure {
        let results = results.map(|mut results| RawValue::from_string(std::mem::take(&mut *results)));
        self.0.results = results.and_then(Result::ok);
        self
    }

    /// The same with something more to say.
    pub(crate) fn noting(mut self, note: &str) -> Failure {
        self.0.message.push_str(&format!("; {note}"));
        self
    }

    pub(crate) fn retry_after_ms(&self) -> Option<u64> {
        self.0.retry_after_ms
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// What is known of the appointment; `None` for functions that make none.
    pub fn outcome(&self) -> Option<Outcome> {
        self.0.call.as_ref().map(|call| call.outcome)
    }

    /// One sentence on what failed.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The error document, as the C functions hand it over; where there is no memory for it, what it cannot do without.
    pub fn document(&self) -> String {
        #[derive(Serialize)]
        struct Short {
            #[serde(serialize_with = "code_value")]
            code: Code,
            name: &'static str,
            message: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            outcome: Option<&'static str>,
        }
        let message = "there is no memory to say more";
        let outcome = self.outcome().map(Outcome::word);
        let short = || memory::json(&Short { code: self.0.code, name: self.0.name, message, outcome });
        let document = memory::json(&self.0).or_else(|NoMemory| short());
        document.map(|mut document| std::mem::take(&mut *document)).unwrap_or_default()
    }
}

/// How a call has ended: its code, and what is known of the appointment.
pub(crate) fn end<T>(result: &Result<T, Failure>) -> (Code, Outcome) {
    match result {
        Ok(_) => (Code::Ok, Outcome::Created),
        Err(failure) => (failure.code(), failure.outcome().unwrap_or(Outcome::Unknown)),
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.document())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.0.name, self.0.message)
    }
}

impl std::error::Error for Failure {}

/// A message that says it where it is not the call itself that failed.
fn of_log_in(call: &Call, message: String) -> String {
    if call.purpose() == Purpose::LogIn { format!("the log-in failed: {message}") } else { message }
}

fn timeout_message(host: &str, proxy: Option<&str>, phase: Phase, limit: Limit, gone: &str) -> String {
    let limit = match limit {
        Limit::Call(time) => format!("within timeout_ms ({} ms)", time.as_millis()),
        Limit::Connect(time) => format!("within connect_timeout_ms ({} ms)", time.as_millis()),
        Limit::Rest => "in time".to_owned(),
    };
    let what = match (phase, proxy) {
        (Phase::Resolve, Some(proxy)) => &format!("the name of {proxy} was not resolved"),
        (Phase::Resolve, None) => "the name was not resolved",
        (Phase::Connect, Some(proxy)) => &format!("no connection to {proxy}"),
        (Phase::Connect, None) => "no connection",
        (Phase::Tunnel, _) => &format!("{} opened no way to it", proxy.unwrap_or("the proxy")),
        (Phase::Handshake, _) => "the TLS handshake did not end",
        (Phase::LogIn, _) => "no token came from the log-in of another call",
        (Phase::Request, _) => "the server did not take the request",
        (Phase::Answer, _) => "no whole answer",
        (Phase::Pause, _) => "no further try",
        #[cfg(feature = "journal")]
        (Phase::Journal, _) => "the journal was not ready",
        #[cfg(feature = "journal")]
        (Phase::Elsewhere, _) => "another call that makes the same appointment did not end",
    };
    format!("{host}: {what} {limit}; {gone}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_outcome_is_what_the_record_says() {
        let call = Call::start(Purpose::Appointment);
        call.within(Duration::from_secs(1));
        let cause = Cause::Broken("reset".to_owned());
        assert_eq!(Failure::stopped(&call, &cause).outcome(), Some(Outcome::NotCreated));
        call.record_sent();
        assert_eq!(Failure::stopped(&call, &cause).outcome(), Some(Outcome::Unknown));
        assert_eq!(Failure::internal(&call).outcome(), Some(Outcome::Unknown));
        let verdict = || Verdict { code: Code::NotFound, outcome: Outcome::NotCreated, meaning: String::new() };
        assert_eq!(Failure::answered(&call, verdict(), Said::default()).outcome(), Some(Outcome::NotCreated));
        assert_eq!(Failure::internal(&Call::start(Purpose::Local)).outcome(), None);
        // One try that may have made it is not undone by another's refusal, but by its success.
        call.pause(Duration::ZERO, true).unwrap();
        assert!(!call.sent());
        for (outcome, all) in [
            (Outcome::NotCreated, Outcome::Unknown),
            (Outcome::Unknown, Outcome::Unknown),
            (Outcome::Created, Outcome::Created),
        ] {
            let verdict = Verdict { code: Code::Forbidden, outcome, meaning: String::new() };
            let failure = Failure::answered(&call, verdict, Said::default());
            assert_eq!((failure.outcome(), failure.of_last_try().1), (Some(all), Some(outcome)));
        }
    }
}
