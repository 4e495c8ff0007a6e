//! No failure's document and no line of the log holds the token, a remark, or an undocumented value, even where the
//! server echoes it.

use arctos_tests::api::{Owned, Reply, client_new, task_check};
use arctos_tests::expected::{
    BAD_RESPONSE_CREATED, BAD_RESPONSE_UNKNOWN, BROKEN_UNKNOWN, Expected, FAILED_NOT_CREATED, FORBIDDEN_NOT_CREATED,
    TLS_NOT_CREATED, status,
};
use arctos_tests::http::{Framing, answer, answer_head, head};
use arctos_tests::secrets::{self, html, json_text, spellings};
use arctos_tests::server::{Script, Server};
use arctos_tests::stage::{Stage, Table, config, config_tls, with};
use arctos_tests::tls::{Authority, Identity, Version};
use serde_json::{Value, json};

/// A token with everything that HTML and JSON escape, and letters on both sides of it.
const TOKEN: &str = r#"tokA7alpha<>&"'\/=+tokZ7omega"#;
const REMARK: &str = "remA7alpha <>&\"'\\/\n預約é remZ7omega";
const OTHER: &str = "othA7alpha<>&\"'\\/\u{1F600}othZ7omega";
const NESTED: &str = "nesA7alpha&<nesZ7omega";

/// What no document may hold: every secret, and each plain end of one, which no escaping changes.
const PARTS: [&str; 8] =
    ["tokA7alpha", "tokZ7omega", "remA7alpha", "remZ7omega", "othA7alpha", "othZ7omega", "nesA7alpha", "nesZ7omega"];

fn all() -> [&'static str; 4] {
    [TOKEN, REMARK, OTHER, NESTED]
}

fn task(number: &str) -> String {
    let mut task: Value = serde_json::from_str(&arctos_tests::api::task(number)).expect("JSON");
    task["task_remark"] = json!(REMARK);
    task["customer"] = json!(OTHER);
    task["customers"] = json!([{ "name": NESTED }, 5]);
    task.to_string()
}

fn keys() -> Value {
    secrets::listen();
    json!({ "token": TOKEN, "keep_bodies": true })
}

/// Neither the document nor the log may hold a secret, in whatever spelling.
fn clean(reply: &Reply) -> Result<(), String> {
    secrets::clean(reply, &PARTS)
}

/// One failure whose document must be clean.
fn failure(table: &mut Table, stage: &Stage, case: &str, expected: Expected, script: Script) {
    let number = stage.number();
    let result = stage.attempt_task(case, expected, &number, &task(&number), script);
    let Some(done) = table.take(result) else { return };
    table.take(clean(&done.reply).map_err(|wrong| format!("{case}: {wrong}")));
    // The caller's own number is no secret, and the document is of no use without it.
    let named = done.reply.json()["out_task_num"] == number;
    table.take(named.then_some(()).ok_or_else(|| format!("{case}: no out_task_num: {}", done.reply.text())));
}

#[test]
fn echoes_in_bodies_are_masked() {
    let stage = Stage::http_with(keys());
    let mut table = Table::new();
    for secret in all() {
        for (spelling, echo) in spellings(secret) {
            for code in [302, 400, 401, 403, 404, 409, 413, 429, 500, 503, 600] {
                let case = format!("{code} {spelling} {echo}");
                let expected = status(code).expect("a final status");
                let line = format!("{code} Status");
                let page = format!("<html><p>Authorization: Bearer {echo}</p> {echo}</html>");
                let script = Script::request().send(answer(&line, Framing::Length, page.as_bytes())).close();
                failure(&mut table, &stage, &case, expected, script);
            }
            let page = format!("<html><p>{echo}</p></html>");
            let script = Script::request().send(answer("200 OK", Framing::Chunked(11), page.as_bytes())).close();
            failure(&mut table, &stage, &format!("200 {spelling} {echo}"), BAD_RESPONSE_UNKNOWN, script);
        }
    }
    table.finish();
}

#[test]
fn echoes_in_messages_are_masked() {
    secrets::listen();
    let stage = Stage::http_with(json!({ "token": TOKEN }));
    let mut table = Table::new();
    for secret in all() {
        for (spelling, echo) in spellings(secret) {
            let message = format!("not accepted: {echo}; try again");
            let case = format!("{spelling} {echo}");
            let refusal = json!({ "status": 0, "message": message }).to_string();
            let script = Script::request().send(answer("200 OK", Framing::Length, refusal.as_bytes())).close();
            failure(&mut table, &stage, &case, FAILED_NOT_CREATED, script);
            let no_number = json!({ "status": 1, "message": message, "info": { "echo": echo } }).to_string();
            let script = Script::made().send(answer("200 OK", Framing::Length, no_number.as_bytes())).close();
            failure(&mut table, &stage, &case, BAD_RESPONSE_CREATED, script);
        }
    }
    table.finish();
}

#[test]
fn echoes_in_envelopes_are_masked() {
    let stage = Stage::http_with(keys());
    let mut table = Table::new();
    for secret in all() {
        for escaped in ["", "/", "é", "<>&'", "é<>&'/"] {
            let message = json_text(&format!("not accepted: {secret}; try again"), escaped);
            let refusal = format!("{{\"status\":0,\"message\":\"{message}\"}}");
            let script = Script::request().send(answer("200 OK", Framing::Length, refusal.as_bytes())).close();
            failure(&mut table, &stage, &refusal, FAILED_NOT_CREATED, script);
        }
    }
    table.finish();
}

#[test]
fn the_request_in_a_string_of_the_answer_is_masked() {
    // The echo that is nearest at hand: the whole body that was refused, as a text in the answer. What the
    // request escaped for itself is escaped once more.
    let stage = Stage::http_with(keys());
    let mut table = Table::new();
    for page in [false, true] {
        let number = stage.number();
        let refused = task(&number);
        let refused = if page { html(&refused, "&quot;", "&#39;") } else { refused };
        let message = format!("cannot take {refused} with Bearer {TOKEN}");
        let refusal = json!({ "status": 0, "message": message }).to_string();
        let script = Script::request().send(answer("200 OK", Framing::Length, refusal.as_bytes())).close();
        let case = if page { "escaped for HTML" } else { "as it was" };
        let result = stage.attempt_task(case, FAILED_NOT_CREATED, &number, &task(&number), script);
        let Some(done) = table.take(result) else { continue };
        table.take(clean(&done.reply).map_err(|wrong| format!("{case}: {wrong}")));
    }
    table.finish();
}

#[test]
fn echoes_of_another_request_are_masked() {
    let stage = Stage::http_with(keys());
    let mut table = Table::new();
    for secret in all() {
        for (spelling, echo) in spellings(secret) {
            let number = stage.number();
            let page = format!("<html><p>Authorization: Bearer {echo}</p> {echo}</html>");
            let script = Script::request().send(answer("403 No", Framing::Length, page.as_bytes())).close();
            let call = |client: &Owned| client.call("/api/room/list", &task(&number));
            let case = format!("{spelling} {echo}");
            let result = stage.attempt_call(&case, FORBIDDEN_NOT_CREATED, &number, script, call);
            let Some(done) = table.take(result) else { continue };
            table.take(clean(&done.reply).map_err(|wrong| format!("{case}: {wrong}")));
        }
    }
    // Nor where nothing is sent.
    for (path, body) in [("/..", task("N")), ("/api/room/list", task("N") + "}"), (TOKEN, task("N"))] {
        let reply = stage.client.call(path, &body);
        assert_eq!((reply.code, clean(&reply)), (arctos_tests::api::BAD_ARGUMENT, Ok(())), "{path} {body}");
    }
    table.finish();
}

#[test]
fn what_else_the_server_said_is_told() {
    let stage = Stage::http_with(keys());
    let done = stage.attempt_task(
        "a message around the token",
        FAILED_NOT_CREATED,
        "BR0943-187",
        &task("BR0943-187"),
        Script::request()
            .send(answer(
                "200 OK",
                Framing::Length,
                json!({ "status": 0, "message": format!("before {TOKEN} after") }).to_string().as_bytes(),
            ))
            .close(),
    );
    let message = done.expect("a refusal").reply.json()["server_message"].as_str().expect("a message").to_owned();
    assert!(message.starts_with("before ") && message.ends_with(" after"), "{message}");
}

#[test]
fn echoes_in_heads_and_in_torn_answers_are_masked() {
    let stage = Stage::http_with(keys());
    let mut table = Table::new();
    for secret in [TOKEN, OTHER, NESTED] {
        let location = format!("Location: https://elsewhere.example/?{secret}");
        let redirect = head(&format!("302 {secret}"), &[&location, &format!("X-Echo: {secret}"), "Content-Length: 0"]);
        failure(&mut table, &stage, "a redirect", BAD_RESPONSE_UNKNOWN, Script::request().send(redirect).close());
        let reason = head(&format!("500 {secret}"), &["Content-Length: 0"]);
        let expected = status(500).expect("a final status");
        failure(&mut table, &stage, "a reason", expected, Script::request().send(reason).close());
        let garbage = format!("{secret}\r\n{secret}\r\n\r\n");
        failure(&mut table, &stage, "garbage", BAD_RESPONSE_UNKNOWN, Script::request().send(garbage).close());
        let chunk = [answer_head("200 OK", Framing::Chunked(1), 0), secret.as_bytes().to_vec(), b"\r\n".to_vec()];
        let script = Script::request().send(chunk.concat()).close();
        failure(&mut table, &stage, "a bad chunk", BAD_RESPONSE_UNKNOWN, script);
        let encoding = head("200 OK", &[&format!("Content-Encoding: {secret}"), "Content-Length: 0"]);
        failure(&mut table, &stage, "an encoding", BAD_RESPONSE_UNKNOWN, Script::request().send(encoding).close());
        let mut torn = answer("200 OK", Framing::Length, format!("{secret} {secret} and more").as_bytes());
        torn.truncate(torn.len() - 3);
        failure(&mut table, &stage, "a torn answer", BROKEN_UNKNOWN, Script::request().send(torn).close());
    }
    table.finish();
}

#[test]
fn an_echo_that_the_limit_cuts_is_masked() {
    // What the limit leaves of an answer must not end in half a secret either.
    for limit in 20..60 {
        let stage = Stage::http_with(with(keys(), json!({ "max_response_bytes": limit })));
        let mut table = Table::new();
        let body = format!("0123456789 {TOKEN} {}", "x".repeat(100));
        for framing in [Framing::Length, Framing::Close] {
            let script = Script::request().send(answer("200 OK", framing, body.as_bytes())).close();
            failure(&mut table, &stage, &format!("limit {limit}"), BAD_RESPONSE_UNKNOWN, script);
        }
        table.finish();
    }
}

#[test]
fn failures_without_an_answer_are_clean() {
    let stage = Stage::http_with(keys());
    let mut table = Table::new();
    failure(&mut table, &stage, "closed", BROKEN_UNKNOWN, Script::request().fin());
    failure(&mut table, &stage, "reset", BROKEN_UNKNOWN, Script::request().reset());
    let impatient = Stage::http_with(with(keys(), json!({ "timeout_ms": 300 })));
    failure(&mut table, &impatient, "silent", arctos_tests::expected::TIMEOUT_UNKNOWN, Script::request());
    let authority = Authority::new();
    let server = Server::start("127.0.0.1", Some(authority.server(Identity::right(Version::Tls13))));
    let other = Authority::new();
    let trusting_others = with(config_tls(&server.base_url(), &other), keys());
    let stranger = Stage::of(server, Owned::new(&trusting_others));
    failure(&mut table, &stranger, "unknown authority", TLS_NOT_CREATED, Script::request());
    table.finish();
    // Port 1 of loopback: nothing listens there on a machine that runs tests.
    let reply = Owned::new(&with(config("http://127.0.0.1:1"), keys())).add(&task("N"));
    assert_eq!((reply.code, clean(&reply)), (arctos_tests::api::CONNECT, Ok(())));
}

#[test]
fn a_refused_task_does_not_show_its_texts() {
    let mut wrong: Value = serde_json::from_str(&task("N")).expect("JSON");
    wrong["task_time"] = json!("1703141398000");
    let mut not_text = wrong.clone();
    not_text["task_remark"] = json!([REMARK]);
    let mut two_remarks = wrong.clone();
    two_remarks["task_remarks"] = json!(format!("{REMARK}2"));
    let mut torn = task("N");
    torn.truncate(torn.len() - 1);
    let twice = task("N").replace("\"customer\"", "\"task_remark\"");
    let client = Owned::new(&with(config("http://127.0.0.1:1"), with(keys(), json!({ "strict": true }))));
    for task in [
        wrong.to_string(),
        not_text.to_string(),
        two_remarks.to_string(),
        torn,
        twice,
        format!("[{}]", task("N")),
        format!("{} {REMARK}", task("N")),
        json!(REMARK).to_string(),
        REMARK.to_owned(),
    ] {
        for reply in [client.add(&task), task_check(&task)] {
            assert_eq!(reply.code, arctos_tests::api::BAD_TASK, "{task} {reply:?}");
            assert_eq!(clean(&reply), Ok(()), "{task}");
        }
    }
}

#[test]
fn a_configuration_does_not_show_its_token() {
    let good = with(config("http://127.0.0.1:1"), keys());
    let (_client, reply) = client_new(&good.to_string());
    assert_eq!((reply.code, clean(&reply)), (0, Ok(())));
    assert_eq!(reply.json()["token"], "***");
    let mut torn = good.to_string();
    torn.pop();
    for config in [
        with(good.clone(), json!({ "timeout_ms": "soon", "unknown": 1 })).to_string(),
        with(good.clone(), json!({ "token": format!("{TOKEN}\n") })).to_string(),
        with(good.clone(), json!({ "token": [TOKEN] })).to_string(),
        with(good.clone(), json!({ "tokens": TOKEN })).to_string(),
        with(good.clone(), json!({ "base_url": format!("http://user:tokA7alpha@127.0.0.1/?tokZ7omega") })).to_string(),
        good.to_string().replacen("{", "{\"token\":\"tokA7alpha\",", 1),
        torn,
    ] {
        let (client, reply) = client_new(&config);
        assert!(client.is_none(), "{config}");
        assert_eq!((reply.code, clean(&reply)), (arctos_tests::api::BAD_CONFIG, Ok(())), "{config}");
    }
    let client = Owned::new(&good);
    let reply = client.set_token(&format!("{TOKEN}\r\nX: y"));
    assert_eq!(clean(&reply), Ok(()));
    assert!(reply.code < 0, "{reply:?}");
}

#[test]
fn the_secrets_have_what_the_checks_look_for() {
    // The checks above look for parts of the secrets: the secrets must have them.
    for secret in all() {
        assert_eq!(PARTS.iter().filter(|part| secret.contains(**part)).count(), 2, "{secret}");
        for (spelling, echo) in spellings(secret) {
            assert_eq!(PARTS.iter().filter(|part| echo.contains(**part)).count(), 2, "{spelling} {echo}");
        }
    }
}
