//! The one table of codes: the header, the names and the page of codes are made from it or checked against it.
#![forbid(unsafe_code)]

use std::ffi::CStr;

use crate::outcome::Outcome;

/// One row of the table of codes.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The code.
    pub code: Code,
    /// Its name in C.
    pub name: &'static str,
    /// The outcome that the code decides by itself, where it does.
    pub decides: Option<Outcome>,
    /// The outcome of a try that ends with it, in words; empty where no appointment is in question.
    pub outcome: &'static str,
    /// When a function returns it.
    pub when: &'static str,
}

macro_rules! codes {
    ($($variant:ident = $value:literal, $name:literal, $decides:expr, $outcome:literal, $when:literal;)*) => {
        /// What a function of the library returns: 0 is success, every other code is negative.
        ///
        /// A code never changes its value or its meaning; new ones are added.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(i32)]
        pub enum Code {
            $(#[doc = $when] $variant = $value,)*
        }

        /// Every code, in the order of their values.
        pub const TABLE: &[Row] = &[
            $(Row { code: Code::$variant, name: $name, decides: $decides, outcome: $outcome, when: $when },)*
        ];

        impl Code {
            /// The code's name in C, such as `ARCTOS_TIMEOUT`.
            pub const fn name(self) -> &'static str {
                match self { $(Code::$variant => $name,)* }
            }

            /// The name of a value as a C string, where it is one of a code.
            pub(crate) const fn c_name(value: i32) -> Option<&'static CStr> {
                match value {
                    $($value => Some(c_str(concat!($name, "\0"))),)*
                    _ => None,
                }
            }
        }
    };
}

const fn c_str(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a name ends with its only NUL"),
    }
}

codes! {
    Ok = 0, "ARCTOS_OK", Some(Outcome::Created), "created",
        "The call succeeded. From arctos_task_add: the server's status is 1 (success) or 2 (warning)";
    BadArgument = -1, "ARCTOS_BAD_ARGUMENT", Some(Outcome::NotCreated), "not created",
        "An argument is NULL or not UTF-8, the client is not a living one, or the token, options, JSON or pointer is wrong";
    BadConfig = -2, "ARCTOS_BAD_CONFIG", Some(Outcome::NotCreated), "",
        "The configuration, or a file that it names, is refused; problems lists everything";
    BadTask = -3, "ARCTOS_BAD_TASK", Some(Outcome::NotCreated), "not created",
        "The task is not JSON or breaks the contract; problems lists everything";
    NoValue = -4, "ARCTOS_NO_VALUE", Some(Outcome::NotCreated), "",
        "There is nothing at the JSON pointer";
    Connect = -10, "ARCTOS_CONNECT", None, "not created",
        "The server's name was not found, or the connection was refused, unreachable or closed during the TLS handshake";
    Tls = -11, "ARCTOS_TLS", None, "not created; unknown when TLS fails after the request went out",
        "The server's certificate or its TLS is not acceptable";
    Timeout = -12, "ARCTOS_TIMEOUT", None, "by what had gone out",
        "A deadline passed: timeout_ms of the call or connect_timeout_ms of its connection";
    Broken = -13, "ARCTOS_BROKEN", None, "by what had gone out",
        "The connection was reset or closed before the answer was whole";
    Cancelled = -14, "ARCTOS_CANCELLED", None, "by what had gone out",
        "arctos_client_cancel or arctos_call_cancel ended the call";
    Failed = -20, "ARCTOS_FAILED", None, "not created",
        "The server answered with status 0: it refused the appointment; server_message says why";
    Forbidden = -21, "ARCTOS_FORBIDDEN", None, "not created",
        "HTTP 401 or 403, or the client has no token";
    NotFound = -22, "ARCTOS_NOT_FOUND", None, "not created",
        "HTTP 404: base_url does not lead to the server's API";
    Rejected = -23, "ARCTOS_REJECTED", None, "not created where the status says so; else unknown",
        "Another HTTP 4xx: the server does not accept the request";
    Busy = -24, "ARCTOS_BUSY", None, "429: not created; 503: unknown, with retry_503 not created",
        "HTTP 429 or 503: the server is busy or not available";
    ServerError = -25, "ARCTOS_SERVER_ERROR", None, "unknown",
        "Another HTTP 5xx: the server failed";
    BadResponse = -26, "ARCTOS_BAD_RESPONSE", None, "unknown; created when the server says so but gives no number",
        "The answer is no readable answer of this API, or a redirect, which is never followed";
    Partial = -27, "ARCTOS_PARTIAL", None, "see each row",
        "arctos_task_add_many: an appointment was not made; its row says why";
    Journal = -30, "ARCTOS_JOURNAL", None, "not created when the journal could be read and says nothing against it; else unknown",
        "The journal cannot be read or written: nothing was sent now";
    Unresolved = -31, "ARCTOS_UNRESOLVED", None, "unknown",
        "The journal holds an earlier try of this out_task_num that may have made it: nothing was sent now";
    Conflict = -32, "ARCTOS_CONFLICT", None, "what the journal says: created or unknown",
        "The journal holds this out_task_num with another task: nothing was sent now";
    Internal = -99, "ARCTOS_INTERNAL", None, "by what had gone out",
        "A defect of the library: please report it";
}

impl Code {
    /// The code's value in C.
    pub const fn value(self) -> i32 {
        self as i32
    }

    /// The row of the table for a value that came from outside.
    pub(crate) fn row(value: i32) -> Option<&'static Row> {
        TABLE.iter().find(|row| row.code.value() == value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_unique_and_never_positive() {
        for pair in TABLE.windows(2) {
            assert!(pair[0].code.value() > pair[1].code.value());
        }
        assert!(TABLE.iter().all(|row| row.code.value() <= 0 && row.name == row.code.name()));
    }
}
