//! An answer that is cut off after any byte, by an end or by a reset, leaves the caller with the truth.
//!
//! The appointment is made in every case, so that `not_created` is always a lie.

use arctos_tests::expected::{BAD_RESPONSE_UNKNOWN, BROKEN_UNKNOWN, Expected, MADE};
use arctos_tests::http::{Framing, answer, answer_head, find, success_body};
use arctos_tests::server::{Change, Script, Step};
use arctos_tests::stage::{Stage, run_all};
use arctos_tests::tls::Version;

const FRAMINGS: [Framing; 3] = [Framing::Length, Framing::Chunked(25), Framing::Close];

/// How the connection ends after the cut.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// FIN; over TLS after a close_notify.
    Close,
    /// FIN; over TLS without a close_notify.
    Fin,
    /// RST, when the client's kernel has what was sent.
    Reset,
}

impl End {
    fn of(self, script: Script) -> Script {
        match self {
            End::Close => script.close(),
            End::Fin => script.fin(),
            End::Reset => script.reset(),
        }
    }
}

fn whole(framing: Framing) -> Vec<u8> {
    answer("200 OK", framing, success_body("N").as_bytes())
}

/// What an answer means of which the first `sent` bytes arrived. `meant` says that the end of the
/// connection can be taken for the end of a body.
fn expected(framing: Framing, sent: usize, meant: bool) -> Expected {
    let whole = whole(framing);
    let head = answer_head("200 OK", framing, success_body("N").len()).len();
    match framing {
        Framing::Length if sent == whole.len() => MADE,
        // The chunk of size zero ends the body: only trailers, which nobody asks for, could follow.
        Framing::Chunked(_) if sent >= find(&whole, b"\r\n0\r\n").expect("the last chunk") + 5 => MADE,
        Framing::Close if meant && sent == whole.len() => MADE,
        Framing::Close if meant && sent >= head => BAD_RESPONSE_UNKNOWN,
        _ => BROKEN_UNKNOWN,
    }
}

fn cut_after_each_byte(framing: Framing, end: End) {
    let whole = whole(framing);
    let row = |sent| {
        let case = format!("{framing:?}, {sent} of {} bytes, {end:?}", whole.len());
        (case, expected(framing, sent, end != End::Reset), end.of(Script::made().send(&whole[..sent])))
    };
    run_all(Stage::http, (0..=whole.len()).map(row).collect());
}

#[test]
fn content_length_and_an_end() {
    cut_after_each_byte(Framing::Length, End::Fin);
}

#[test]
fn content_length_and_a_reset() {
    cut_after_each_byte(Framing::Length, End::Reset);
}

#[test]
fn chunked_and_an_end() {
    cut_after_each_byte(Framing::Chunked(25), End::Fin);
}

#[test]
fn chunked_and_a_reset() {
    cut_after_each_byte(Framing::Chunked(25), End::Reset);
}

#[test]
fn close_delimited_and_an_end() {
    cut_after_each_byte(Framing::Close, End::Fin);
}

#[test]
fn close_delimited_and_a_reset() {
    cut_after_each_byte(Framing::Close, End::Reset);
}

/// The answer up to each byte goes out in whole records, and then the connection ends.
fn cut_between_records(version: Version) {
    let mut rows = Vec::new();
    for framing in FRAMINGS {
        let whole = whole(framing);
        for sent in 0..=whole.len() {
            for end in [End::Close, End::Fin, End::Reset] {
                let case = format!("{version:?} {framing:?}, {sent} of {} bytes, {end:?}", whole.len());
                let script = end.of(Script::made().send(&whole[..sent]));
                rows.push((case, expected(framing, sent, end == End::Close), script));
            }
        }
    }
    run_all(|| Stage::https(version), rows);
}

/// The record with the answer goes out up to each of its bytes, and then the connection ends.
fn cut_inside_a_record(version: Version) {
    let stage = Stage::https(version);
    let mut rows = Vec::new();
    for framing in FRAMINGS {
        let whole = whole(framing);
        let all = Script::made().then(Step::Records(vec![whole.clone()], Change::None)).close();
        let length = stage.run("the whole record", MADE, |_| all).only().records.len();
        assert!(length > whole.len(), "a record is longer than what it holds");
        for sent in 0..=length {
            for end in [End::Fin, End::Reset] {
                let case = format!("{version:?} {framing:?}, {sent} of {length} bytes of the record, {end:?}");
                let arrived = if sent == length { whole.len() } else { 0 };
                let script = end.of(Script::made().then(Step::Records(vec![whole.clone()], Change::First(sent))));
                rows.push((case, expected(framing, arrived, false), script));
            }
        }
    }
    run_all(|| Stage::https(version), rows);
}

#[test]
fn tls_1_2_between_records() {
    cut_between_records(Version::Tls12);
}

#[test]
fn tls_1_3_between_records() {
    cut_between_records(Version::Tls13);
}

#[test]
fn tls_1_2_inside_a_record() {
    cut_inside_a_record(Version::Tls12);
}

#[test]
fn tls_1_3_inside_a_record() {
    cut_inside_a_record(Version::Tls13);
}
