//! What a whole answer with HTTP 200 means, and what an answer that cannot be read means.

use arctos_tests::api::NOT_CREATED;
use arctos_tests::expected::{
    BAD_RESPONSE_CREATED, BAD_RESPONSE_UNKNOWN, Expected, FAILED_NOT_CREATED, MADE, SERVER_ERROR_UNKNOWN,
};
use arctos_tests::http::{Framing, answer, answer_head, chunks, failure_body, head, success_body};
use arctos_tests::server::{Script, Step};
use arctos_tests::stage::{Done, Stage, Table};
use arctos_tests::tls::Version;
use serde_json::json;

const FRAMINGS: [Framing; 3] = [Framing::Length, Framing::Chunked(9), Framing::Close];

/// One case for a 200 with this body in every framing.
fn bodies(stage: &Stage, expected: Expected, bodies: &[&[u8]]) {
    let mut table = Table::new();
    for body in bodies {
        for framing in FRAMINGS {
            let case = format!("{framing:?} {:?}", String::from_utf8_lossy(body));
            let script = script(expected).send(answer("200 OK", framing, body)).close();
            let Some(done) = table.take(stage.attempt(&case, expected, |_| script)) else { continue };
            table.take(no_body(&done).map_err(|wrong| format!("{case}: {wrong}")));
        }
    }
    table.finish();
}

/// The appointment is made wherever the expected outcome allows it.
fn script(expected: Expected) -> Script {
    if expected.outcome == NOT_CREATED { Script::request() } else { Script::made() }
}

/// Bodies are in the document only when the configuration wants them.
fn no_body(done: &Done) -> Result<(), String> {
    match done.reply.json().get("server_body") {
        None => Ok(()),
        Some(body) => Err(format!("a server_body that nobody asked for: {body}")),
    }
}

#[test]
fn status_0_is_a_refusal_with_the_servers_own_words() {
    let stage = Stage::http();
    let mut table = Table::new();
    for (body, message) in [
        (r#"{"status":0,"message":"branch_code 943 is unknown"}"#, Some("branch_code 943 is unknown")),
        (r#"{"status":"0","message":"no \"slot\" left \u2014 預約"}"#, Some("no \"slot\" left — 預約")),
        (r#"{"message":"m","status":0,"info":{}}"#, Some("m")),
        (r#"{"status":0,"message":"m","info":null}"#, Some("m")),
        (r#"{"status":0,"message":"m","info":[]}"#, Some("m")),
        (r#"{"status":0,"message":"m","info":{"task_num":null}}"#, Some("m")),
        (r#"{"status":0,"message":"m","info":{"task_num":""}}"#, Some("m")),
        (r#"{"status":0}"#, None),
    ] {
        for framing in FRAMINGS {
            let case = format!("{framing:?} {body}");
            let script = Script::request().send(answer("200 OK", framing, body.as_bytes())).close();
            let Some(done) = table.take(stage.attempt(&case, FAILED_NOT_CREATED, |_| script)) else { continue };
            let told = done.reply.json().get("server_message").cloned();
            let same = told == message.map(|message| json!(message));
            table.take(same.then_some(()).ok_or_else(|| format!("{case}: server_message is {told:?}")));
        }
    }
    table.finish();
}

#[test]
fn status_0_with_a_task_number_contradicts_itself() {
    bodies(
        &Stage::http(),
        BAD_RESPONSE_UNKNOWN,
        &[
            br#"{"status":0,"message":"m","info":{"task_num":"202312210000001"}}"#,
            br#"{"status":"0","message":"m","info":{"task_num":202312210000001}}"#,
        ],
    );
}

#[test]
fn success_without_a_task_number_is_created_all_the_same() {
    bodies(
        &Stage::http(),
        BAD_RESPONSE_CREATED,
        &[
            br#"{"status":1,"message":"success"}"#,
            br#"{"status":"1","message":"success","info":null}"#,
            br#"{"status":1,"message":"success","info":{}}"#,
            br#"{"status":1,"message":"success","info":{"task_num":null}}"#,
            br#"{"status":1,"message":"success","info":{"task_num":""}}"#,
            br#"{"status":2,"message":"warning","info":{"task_num":""}}"#,
            br#"{"status":"2","message":"warning"}"#,
            br#"{"status":1,"message":"success","info":{"TASK_NUM":"1","task_number":"2"}}"#,
        ],
    );
}

#[test]
fn any_other_status_cannot_be_read() {
    let spellings = [
        "3",
        "-1",
        "10",
        "01",
        "1.0",
        "1e0",
        "true",
        "false",
        "null",
        "{}",
        "[1]",
        r#""""#,
        r#""3""#,
        r#""1 ""#,
        r#"" 1""#,
        r#""01""#,
        r#""1.0""#,
        r#""success""#,
        r#""true""#,
        "18446744073709551617",
    ];
    let texts: Vec<String> = spellings
        .iter()
        .map(|status| format!(r#"{{"status":{status},"message":"m","info":{{"task_num":"202312210000001"}}}}"#))
        .chain([
            r#"{"message":"m","info":{"task_num":"1"}}"#.to_owned(),
            r#"{"Status":1,"info":{"task_num":"1"}}"#.to_owned(),
        ])
        .collect();
    let texts: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
    bodies(&Stage::http(), BAD_RESPONSE_UNKNOWN, &texts);
}

#[test]
fn a_body_that_is_no_envelope_cannot_be_read() {
    bodies(
        &Stage::http(),
        BAD_RESPONSE_UNKNOWN,
        &[
            b"",
            b" ",
            b"null",
            b"1",
            br#""1""#,
            b"[]",
            br#"[1,"success",{"task_num":"1"}]"#,
            b"{}",
            b"<html><body>It works</body></html>",
            b"status=1",
            br#"{"status":1,"info":{"task_num":"1"}"#,
            br#"{"status":1,"info":{"task_num":"1"}}}"#,
            br#"{"status":1,"info":{"task_num":"1"}}{"status":1,"info":{"task_num":"1"}}"#,
            br#"{"status":1,"info":{"task_num":"1"}} OK"#,
            br#"{'status':1,'info':{'task_num':'1'}}"#,
            br#"{"status":1,"info":{"task_num":"1"},}"#,
            br#"{"status":1,"status":1,"info":{"task_num":"1"}}"#,
            br#"{"status":1,"info":{"task_num":"1"},"status":0}"#,
            br#"{"status":0,"message":"m","\u0073tatus":1}"#,
            b"{\"status\":1,\"info\":{\"task_num\":\"1\"}}\0",
            b"{\"status\":1,\"message\":\"a\0b\",\"info\":{\"task_num\":\"1\"}}",
            b"\0",
            b"{\"status\":1,\"message\":\"\xe9\",\"info\":{\"task_num\":\"1\"}}",
            b"{\"status\":1,\"message\":\"\xed\xa0\x80\",\"info\":{\"task_num\":\"1\"}}",
            b"{\"status\":1,\"message\":\"\xc0\xaf\",\"info\":{\"task_num\":\"1\"}}",
            b"\xff\xfe{\0}\0",
        ],
    );
}

#[test]
fn a_deeply_nested_body_cannot_be_read_and_does_no_harm() {
    let nested = format!("{{\"status\":1,\"info\":{}", "[".repeat(500_000));
    bodies(&Stage::http(), BAD_RESPONSE_UNKNOWN, &[nested.as_bytes()]);
}

#[test]
fn an_answer_may_be_as_long_as_the_limit_and_no_longer() {
    let body = success_body("N");
    let stage = Stage::http_with(json!({ "max_response_bytes": body.len() }));
    let mut table = Table::new();
    for framing in FRAMINGS {
        let exactly = Script::made().send(answer("200 OK", framing, body.as_bytes())).close();
        table.take(stage.attempt(&format!("{framing:?} at the limit"), MADE, |_| exactly));
        let longer = format!("{body} ");
        let over = Script::made().send(answer("200 OK", framing, longer.as_bytes())).close();
        table.take(stage.attempt(&format!("{framing:?} over the limit"), BAD_RESPONSE_UNKNOWN, |_| over));
        let far = answer("200 OK", framing, " ".repeat(3 << 20).as_bytes());
        let far = Script::made().send(far).close();
        table.take(stage.attempt(&format!("{framing:?} far over the limit"), BAD_RESPONSE_UNKNOWN, |_| far));
    }
    table.finish();
}

#[test]
fn an_answer_may_be_a_mebibyte_long_by_default() {
    let stage = Stage::http();
    let mut table = Table::new();
    for (length, expected) in [(1 << 20, MADE), ((1 << 20) + 1, BAD_RESPONSE_UNKNOWN)] {
        let mut body = success_body("N");
        body.push_str(&" ".repeat(length - body.len()));
        for framing in [Framing::Length, Framing::Chunked(70_000), Framing::Close] {
            let script = Script::made().send(answer("200 OK", framing, body.as_bytes())).close();
            let result = stage.attempt(&format!("{framing:?} {length} bytes"), expected, |_| script);
            let Some(done) = table.take(result) else { continue };
            if expected == MADE {
                assert!(done.reply.text() == body, "another text of {} bytes", done.reply.text().len());
            }
        }
    }
    table.finish();
}

#[test]
fn a_head_that_contradicts_itself_or_is_none_cannot_be_read() {
    let body = success_body("N");
    let length = format!("Content-Length: {}", body.len());
    let with = |headers: &[&str], body: &[u8]| [head("200 OK", headers), body.to_vec()].concat();
    let plain = body.as_bytes();
    let chunked = chunks(plain, 9, "", "");
    let big = format!("X-Big: {}", "x".repeat(70 << 10));
    let many: Vec<String> = (0..1000).map(|index| format!("X-Many-{index}: {}", "x".repeat(100))).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).chain([&*length]).collect();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("two different lengths", with(&[&length, "Content-Length: 5"], plain)),
        ("two different lengths in one line", with(&[&format!("{length}, 5")], plain)),
        ("a length that is no number", with(&["Content-Length: abc"], plain)),
        ("a negative length", with(&["Content-Length: -5"], plain)),
        ("a length with a sign", with(&[&length.replace(": ", ": +")], plain)),
        ("a length beyond all numbers", with(&["Content-Length: 99999999999999999999999"], plain)),
        ("length and chunked", with(&[&length, "Transfer-Encoding: chunked"], &chunked)),
        ("chunked and length", with(&["Transfer-Encoding: chunked", &length], &chunked)),
        ("gzip unasked", with(&["Content-Encoding: gzip", &length], plain)),
        ("gzip unasked, chunked", with(&["Transfer-Encoding: chunked", "content-encoding: GZIP"], &chunked)),
        ("br unasked", with(&["Content-Encoding: br", &length], plain)),
        ("gzip as transfer encoding", with(&["Transfer-Encoding: gzip, chunked"], &chunked)),
        ("a chunk size that is no number", with(&["Transfer-Encoding: chunked"], b"xyz\r\n{}\r\n0\r\n\r\n")),
        ("an empty chunk size", with(&["Transfer-Encoding: chunked"], b"\r\n{}\r\n0\r\n\r\n")),
        ("a negative chunk size", with(&["Transfer-Encoding: chunked"], b"-2\r\n{}\r\n0\r\n\r\n")),
        (
            "a chunk size beyond all numbers",
            with(&["Transfer-Encoding: chunked"], b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
        ),
        ("a chunk longer than its size", with(&["Transfer-Encoding: chunked"], b"1\r\n{}\r\n0\r\n\r\n")),
        ("not chunked at all", with(&["Transfer-Encoding: chunked"], &[plain, b"\r\n"].concat())),
        ("a header beyond 64 KiB", with(&[&big, &length], plain)),
        ("headers beyond 64 KiB", with(&many, plain)),
        ("a header without a colon", with(&["no colon here", &length], plain)),
        ("a header with a blank in its name", with(&["Bad Name: x", &length], plain)),
        ("a header with a NUL", with(&["X: a\0b", &length], plain)),
        ("no HTTP at all", b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n\r\n".to_vec()),
        ("binary garbage", (0..=255_u8).cycle().skip(128).take(4096).collect()),
        ("a TLS alert", b"\x15\x03\x01\x00\x02\x02\x28".to_vec()),
        ("HTTP/2", b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80\0\x04\0\x01\0\0\0\x05\0\xff\xff\xff".to_vec()),
        ("HTTP/2.0 in words", [b"HTTP/2.0 200 OK\r\n".as_slice(), length.as_bytes(), b"\r\n\r\n", plain].concat()),
        ("HTTP/0.9", plain.to_vec()),
        ("a status of two digits", [b"HTTP/1.1 20 OK\r\n".as_slice(), length.as_bytes(), b"\r\n\r\n", plain].concat()),
        (
            "a status of four digits",
            [b"HTTP/1.1 2000 OK\r\n".as_slice(), length.as_bytes(), b"\r\n\r\n", plain].concat(),
        ),
        ("status 099", [b"HTTP/1.1 099 OK\r\n".as_slice(), length.as_bytes(), b"\r\n\r\n", plain].concat()),
        ("status 000", [b"HTTP/1.1 000 OK\r\n".as_slice(), length.as_bytes(), b"\r\n\r\n", plain].concat()),
    ];
    for stage in [Stage::http(), Stage::https(Version::Tls13)] {
        let mut table = Table::new();
        for (case, sent) in &cases {
            table.take(stage.attempt(case, BAD_RESPONSE_UNKNOWN, |_| Script::made().send(sent.clone()).close()));
        }
        table.finish();
    }
}

#[test]
fn a_close_delimited_answer_must_be_whole_json() {
    let stage = Stage::https(Version::Tls13);
    let mut table = Table::new();
    let whole = answer("200 OK", Framing::Close, success_body("N").as_bytes());
    let start = answer_head("200 OK", Framing::Close, 0).len();
    for length in (start..whole.len()).step_by(10) {
        let script = Script::made().send(&whole[..length]).close();
        table.take(stage.attempt(&format!("{length} bytes"), BAD_RESPONSE_UNKNOWN, |_| script));
    }
    table.take(stage.attempt("all of it", MADE, |_| Script::made().send(&*whole).close()));
    table.finish();
}

#[test]
fn endless_interim_answers_end_at_the_limit_or_the_deadline() {
    // Which of the two ends them is not promised: the outcome is.
    let stage = Stage::http_with(json!({ "timeout_ms": 1000 }));
    let number = stage.number();
    stage.server.next(Script::made().then(Step::Send(head("103 Early Hints", &["A: b"]).repeat(200_000))));
    let reply = stage.client.add(&arctos_tests::api::task(&number));
    assert_eq!(reply.outcome, arctos_tests::api::UNKNOWN, "{reply:?}");
    stage.server.settle(0).expect("the connection has ended");
}

#[test]
fn the_servers_body_is_kept_when_the_configuration_says_so() {
    let stage = Stage::http_with(json!({ "keep_bodies": true }));
    let mut table = Table::new();
    for (expected, status, body) in [
        (FAILED_NOT_CREATED, "200 OK", failure_body("no slot left")),
        (BAD_RESPONSE_UNKNOWN, "200 OK", "<html>\n\"It works\" \\ 預約</html>".to_owned()),
        (BAD_RESPONSE_CREATED, "200 OK", "{ \"status\":1 }".to_owned()),
        (SERVER_ERROR_UNKNOWN, "502 Bad Gateway", "<html>Bad Gateway</html>".to_owned()),
        (arctos_tests::expected::REJECTED_NOT_CREATED, "400 Bad Request", "{\"detail\":[1,2]}".to_owned()),
    ] {
        for framing in FRAMINGS {
            let case = format!("{framing:?} {status} {body}");
            let script = script(expected).send(answer(status, framing, body.as_bytes())).close();
            let Some(done) = table.take(stage.attempt(&case, expected, |_| script)) else { continue };
            let told = done.reply.json()["server_body"].clone();
            table.take((told == body).then_some(()).ok_or_else(|| format!("{case}: server_body is {told}")));
        }
    }
    table.finish();
}
