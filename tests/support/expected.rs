//! The table of expected answers, written down from the vendor's rules and not from the library.

use crate::api::*;

/// The one code and the one outcome of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// The code.
    pub code: i32,
    /// The outcome.
    pub outcome: i32,
}

const fn expected(code: i32, outcome: i32) -> Expected {
    Expected { code, outcome }
}

/// The appointment is made.
pub const MADE: Expected = expected(OK, CREATED);
/// The connection could not be made.
pub const CONNECT_NOT_CREATED: Expected = expected(CONNECT, NOT_CREATED);
/// The handshake failed for a reason of TLS.
pub const TLS_NOT_CREATED: Expected = expected(TLS, NOT_CREATED);
/// The deadline came before the first byte of the request.
pub const TIMEOUT_NOT_CREATED: Expected = expected(TIMEOUT, NOT_CREATED);
/// The deadline came after the first byte of the request.
pub const TIMEOUT_UNKNOWN: Expected = expected(TIMEOUT, UNKNOWN);
/// Cancelled before the first byte of the request, or after all that went out was refused.
pub const CANCELLED_NOT_CREATED: Expected = expected(CANCELLED, NOT_CREATED);
/// Cancelled after the first byte of the request.
pub const CANCELLED_UNKNOWN: Expected = expected(CANCELLED, UNKNOWN);
/// The connection ended after the first byte of the request.
pub const BROKEN_UNKNOWN: Expected = expected(BROKEN, UNKNOWN);
/// The server said status 0.
pub const FAILED_NOT_CREATED: Expected = expected(FAILED, NOT_CREATED);
/// The token is not accepted.
pub const FORBIDDEN_NOT_CREATED: Expected = expected(FORBIDDEN, NOT_CREATED);
/// No such path.
pub const NOT_FOUND_NOT_CREATED: Expected = expected(NOT_FOUND, NOT_CREATED);
/// A refusal that says that nothing was done.
pub const REJECTED_NOT_CREATED: Expected = expected(REJECTED, NOT_CREATED);
/// A refusal that does not say whether something was done.
pub const REJECTED_UNKNOWN: Expected = expected(REJECTED, UNKNOWN);
/// Too many requests.
pub const BUSY_NOT_CREATED: Expected = expected(BUSY, NOT_CREATED);
/// Unavailable, perhaps after the request was passed on.
pub const BUSY_UNKNOWN: Expected = expected(BUSY, UNKNOWN);
/// The server failed.
pub const SERVER_ERROR_UNKNOWN: Expected = expected(SERVER_ERROR, UNKNOWN);
/// An answer that cannot be read.
pub const BAD_RESPONSE_UNKNOWN: Expected = expected(BAD_RESPONSE, UNKNOWN);
/// An answer that says success and lacks the task number.
pub const BAD_RESPONSE_CREATED: Expected = expected(BAD_RESPONSE, CREATED);

/// The statuses that say that the server did nothing.
pub const NOT_CREATED_STATUS: [u16; 17] =
    [400, 401, 403, 404, 405, 406, 407, 410, 411, 413, 414, 415, 417, 421, 422, 429, 431];

/// What a whole head with this status, followed by a body that says success, means. `None` for interim
/// ones, after which another head follows.
pub fn status(code: u16) -> Option<Expected> {
    Some(match code {
        101 => BAD_RESPONSE_UNKNOWN,
        100..=199 => return None,
        // 204 has no body, whatever its headers say, so nothing in it can be read.
        204 => BAD_RESPONSE_UNKNOWN,
        200..=299 => MADE,
        300..=399 => BAD_RESPONSE_UNKNOWN,
        400 | 405 | 406 | 407 | 410 | 411 | 413 | 414 | 415 | 417 | 421 | 422 | 431 => REJECTED_NOT_CREATED,
        401 | 403 => FORBIDDEN_NOT_CREATED,
        404 => NOT_FOUND_NOT_CREATED,
        429 => BUSY_NOT_CREATED,
        402 | 408 | 409 | 412 | 416 | 418 | 419 | 420 | 423 | 424 | 425 | 426 | 427 | 428 | 430 => REJECTED_UNKNOWN,
        432..=499 => REJECTED_UNKNOWN,
        503 => BUSY_UNKNOWN,
        500..=599 => SERVER_ERROR_UNKNOWN,
        600..=999 => BAD_RESPONSE_UNKNOWN,
        _ => unreachable!("no such status: {code}"),
    })
}

/// What the same head means when its body is not there or is cut off. Only a success needs its body.
pub fn status_without_body(code: u16, without: Expected) -> Option<Expected> {
    match status(code)? {
        MADE => Some(without),
        other => Some(other),
    }
}
