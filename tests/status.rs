//! Every HTTP status has one code and one outcome, and a complete head decides.

use arctos_tests::api::{Owned, task};
use arctos_tests::expected::{
    BAD_RESPONSE_UNKNOWN, BROKEN_UNKNOWN, Expected, MADE, REJECTED_NOT_CREATED, status, status_without_body,
};
use arctos_tests::http::{Framing, answer, head, success_body};
use arctos_tests::server::{Script, Server, Step};
use arctos_tests::stage::{Stage, Table, config, with};
use arctos_tests::tls::Version;
use serde_json::json;

/// Makes the appointment in every case in which the expected outcome allows it, and in half of those that
/// say `unknown`.
fn script(expected: Expected, code: u16, sent: Vec<u8>) -> Script {
    let made = expected == MADE || (expected.outcome != arctos_tests::api::NOT_CREATED && code.is_multiple_of(2));
    let script = if made { Script::made() } else { Script::request() };
    script.send(sent).close()
}

/// One case; a failure's document must tell the status.
fn check(table: &mut Table, stage: &Stage, what: &str, expected: Expected, code: u16, sent: Vec<u8>) {
    let case = format!("{code} {what}");
    let result = stage.attempt(&case, expected, |_| script(expected, code, sent));
    let Some(done) = table.take(result) else { return };
    if expected != MADE && !(200..300).contains(&code) {
        let told = done.reply.json()["http_status"] == code;
        table.take(told.then_some(()).ok_or_else(|| format!("{case}: no http_status: {}", done.reply.text())));
    }
}

#[test]
fn every_status_with_a_body_that_says_success() {
    let stage = Stage::http();
    let mut table = Table::new();
    for code in 100..=999 {
        let body = success_body("N");
        let whole = answer(&format!("{code} Status"), Framing::Length, body.as_bytes());
        match status(code) {
            Some(expected) => check(&mut table, &stage, "with a body", expected, code, whole),
            None => {
                let interim = head(&format!("{code} Status"), &[]);
                let last = answer("200 OK", Framing::Length, body.as_bytes());
                check(&mut table, &stage, "before the answer", MADE, code, [interim, last].concat());
            }
        }
    }
    table.finish();
}

#[test]
fn every_status_without_a_body() {
    let stage = Stage::http();
    let mut table = Table::new();
    for code in 100..=999 {
        let Some(expected) = status_without_body(code, BAD_RESPONSE_UNKNOWN) else { continue };
        let line = format!("{code} Status");
        check(&mut table, &stage, "with Content-Length 0", expected, code, head(&line, &["Content-Length: 0"]));
        check(&mut table, &stage, "with a head alone", expected, code, head(&line, &[]));
    }
    table.finish();
}

#[test]
fn every_status_with_a_body_that_is_cut_off() {
    let stage = Stage::http();
    let mut table = Table::new();
    for code in 100..=999 {
        let Some(expected) = status_without_body(code, BROKEN_UNKNOWN) else { continue };
        for (what, framing) in [("and half a body", Framing::Length), ("and half a chunk", Framing::Chunked(100))] {
            let mut sent = answer(&format!("{code} Status"), framing, success_body("N").as_bytes());
            sent.truncate(sent.len() - 20);
            check(&mut table, &stage, what, expected, code, sent);
        }
    }
    table.finish();
}

#[test]
fn every_status_with_a_body_that_is_reset() {
    let stage = Stage::http();
    let mut table = Table::new();
    for code in (100..=999).filter(|code| !(200..300).contains(code)) {
        let Some(expected) = status(code) else { continue };
        let mut sent = answer(&format!("{code} Status"), Framing::Length, success_body("N").as_bytes());
        sent.truncate(sent.len() - 20);
        table.take(stage.attempt(&format!("{code} and a reset"), expected, |_| Script::request().send(sent).reset()));
    }
    table.finish();
}

#[test]
fn a_refusal_is_read_over_https_too() {
    for version in [Version::Tls12, Version::Tls13] {
        let stage = Stage::https(version);
        let mut table = Table::new();
        for code in [302, 400, 401, 403, 404, 408, 409, 413, 429, 500, 502, 503, 504, 600] {
            let expected = status(code).expect("a final status");
            let line = format!("{code} Status");
            let whole = answer(&line, Framing::Length, b"<html>no</html>");
            check(&mut table, &stage, "over TLS", expected, code, whole.clone());
            let cut = whole[..whole.len() - 3].to_vec();
            let torn = stage.attempt(&format!("{code} torn"), expected, |_| Script::request().send(cut).fin());
            table.take(torn);
        }
        table.finish();
    }
}

#[test]
fn a_redirect_is_not_followed() {
    let stage = Stage::http();
    let elsewhere = Server::plain();
    let mut table = Table::new();
    for code in 300..400 {
        let location = format!("Location: {}/api/task/do_add", elsewhere.base_url());
        let sent = head(&format!("{code} Moved"), &[&location, "Content-Length: 0"]);
        check(&mut table, &stage, "elsewhere", BAD_RESPONSE_UNKNOWN, code, sent);
        let sent = head(&format!("{code} Moved"), &["Location: /other", "Content-Length: 0"]);
        check(&mut table, &stage, "on the same server", BAD_RESPONSE_UNKNOWN, code, sent);
    }
    table.finish();
    assert_eq!(elsewhere.connections(), 0);
}

#[test]
fn another_protocol_is_not_switched_to() {
    let stage = Stage::http();
    let done = stage.run("101 with its headers", BAD_RESPONSE_UNKNOWN, |_| {
        let switch = head("101 Switching Protocols", &["Upgrade: websocket", "Connection: Upgrade"]);
        Script::request().send(switch).then(Step::AwaitRelease)
    });
    assert_eq!(done.reply.json()["http_status"], 101);
}

#[test]
fn an_early_refusal_of_a_big_body_is_read() {
    let server = Server::plain();
    let client = Owned::new(&with(config(&server.base_url()), json!({ "timeout_ms": 100_000 })));
    let stage = Stage::of(server, client);
    let remark = "x".repeat(32 << 20);
    for (what, length) in [("without a body", 0), ("with a body", 30)] {
        for framing in [Framing::Length, Framing::Close] {
            let number = stage.number();
            let task = task(&number).replace("\"video\"", &format!("\"task_remark\":\"{remark}\",\"video\""));
            let refusal = answer("413 Content Too Large", framing, "too large ".repeat(length).as_bytes());
            // The head is whole when this much was read; the rest stays where it is.
            let script = Script::silent().then(Step::Read(2000)).send(refusal).reset();
            stage.run_task(&format!("413 {what}, {framing:?}"), REJECTED_NOT_CREATED, &number, &task, script);
        }
    }
    assert!(stage.server.ledger().all().is_empty());
}
