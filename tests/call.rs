//! `arctos_call` POSTs what it is given below the base URL, says what became of it as `arctos_task_add` does, and does
//! not get anywhere else.

use std::ptr;
use std::time::Duration;

use arctos_tests::api::{BAD_ARGUMENT, Client, FORBIDDEN, NOT_CREATED, OK, Owned, Reply, arctos, c, call as taken};
use arctos_tests::expected::{
    BAD_RESPONSE_UNKNOWN, BROKEN_UNKNOWN, BUSY_NOT_CREATED, BUSY_UNKNOWN, CONNECT_NOT_CREATED, Expected,
    FAILED_NOT_CREATED, FORBIDDEN_NOT_CREATED, MADE, TIMEOUT_UNKNOWN, status, status_without_body,
};
use arctos_tests::http::{Framing, answer, answer_head, head};
use arctos_tests::ledger::check;
use arctos_tests::server::{Exchange, Script, Seen, Server, Step};
use arctos_tests::stage::{Stage, TOKEN, Table, config, with};
use arctos_tests::tls::{Identity, Version};
use serde_json::{Value, json};

const PATH: &str = "/api/room/list";
/// An answer that says that it was carried out, without anything else.
const DONE: &str = r#"{"status":1}"#;

/// The servers' ledger counts what is carried out by this number.
fn body(number: &str) -> String {
    json!({ "out_task_num": number }).to_string()
}

fn says(body: &str) -> Script {
    Script::silent().send(answer("200 OK", Framing::Length, body.as_bytes()))
}

fn done() -> Script {
    Script::made().and(says(DONE)).close()
}

/// One case: the only connection of a call goes by the script.
fn attempt(stage: &Stage, case: &str, expected: Expected, script: Script) -> Result<Reply, String> {
    let number = stage.number();
    let call = |client: &Owned| client.call(PATH, &body(&number));
    let done = stage.attempt_call(case, expected, &number, script, call)?;
    speaks_of_no_appointment(&done.reply).map_err(|wrong| format!("{case}: {wrong}"))?;
    Ok(done.reply)
}

/// What is said of a call that has nothing to do with appointments.
fn speaks_of_no_appointment(reply: &Reply) -> Result<(), String> {
    if reply.code == OK {
        return Ok(());
    }
    let document = reply.json();
    if document.get("out_task_num").is_some() {
        return Err(format!("an out_task_num: {reply:?}"));
    }
    let message = document["message"].as_str().unwrap_or_default().to_lowercase();
    match ["appointment", "task"].iter().find(|word| message.contains(**word)) {
        None => Ok(()),
        Some(word) => Err(format!("the message speaks of {word}: {reply:?}")),
    }
}

/// The requests that a server got, all connections ended.
#[track_caller]
fn settled(client: Owned, server: &Server) -> Vec<Seen> {
    drop(client);
    server.settle(0).expect("every connection has ended")
}

const TAKEN: [&str; 25] = [
    "/",
    "/a",
    "/a/",
    "/a//b",
    "/api/room/list",
    "/api/room/list?from=1&to=2",
    "/api/room/list?",
    "/api/room/list?/../..",
    "/api/room/list?path=..%2F..%2fx",
    "/api/room/list?a=%E8%A8%B1&b=%20+%23",
    "/api/task/do_list",
    "/api/task/do_add/x",
    "/api/task/do_add2",
    "/api/task",
    "/x/api/task/do_add",
    "/api/room/%E8%A8%B1",
    "/a;b=1/c;d",
    "/...",
    "/a/..b/.c/d..",
    "/100%25",
    "/%41%7e~",
    "/x@y:80/z",
    "/http://elsewhere.example/x",
    "/-._~!$&'()*+,;=:@",
    "/?x=y?z=/",
];

const REFUSED: [&str; 58] = [
    // Not below the base URL.
    "",
    "a",
    "api/room/list",
    "?a=b",
    "//elsewhere.example/x",
    "///x",
    "http://elsewhere.example/x",
    "https://elsewhere.example/x",
    ".elsewhere.example/x",
    "@elsewhere.example/x",
    ":80/x",
    "\\\\elsewhere.example\\x",
    "/\\elsewhere.example/x",
    // Upwards, or to where it stands.
    "/..",
    "/../",
    "/../x",
    "/a/..",
    "/a/../b",
    "/a/../../b",
    "/.",
    "/./a",
    "/a/.",
    "/a/./b",
    "/%2e%2e/b",
    "/%2E%2e/b",
    "/.%2e/b",
    "/%2e./b",
    "/a/%2e/b",
    "/a/%252e%252e/b",
    "/a/%25252e%25252e/b",
    "/a%2f..%2fb",
    "/a%2F%2e%2e%2Fb",
    "/a%252f..%252fb",
    "/a\\..\\b",
    "/a%5c..%5cb",
    "/a/..;x=1/b",
    "/a/..%3bx/b",
    "/a/..%20/b",
    "/a/%09../b",
    // What a URL cannot hold, or what is not sent.
    "/a b",
    " /a",
    "/a ",
    "/a\tb",
    "/a\nb",
    "/a\r\nX-Header: b",
    "/a HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n",
    "/a\u{7f}b",
    "/許",
    "/a#b",
    "/a?b#c",
    "/a%00b",
    "/a%0d%0aX-Header:%20b",
    "/a%",
    "/a%4",
    "/a%zz",
    "/a?b=%g0",
    "/a\"b",
    "/a<b>",
];

/// The path of `arctos_task_add`, as servers read it.
const RESERVED: [&str; 16] = [
    "/api/task/do_add",
    "/api/task/do_add/",
    "/api/task/do_add?",
    "/api/task/do_add?x=1",
    "/api//task/do_add",
    "/api/task///do_add//",
    "/API/Task/DO_ADD",
    "/api/task/do%5fadd",
    "/api/task/do%5Fadd",
    "/%61pi/task/do_add",
    "/api/task/do%255fadd",
    "/api%2ftask%2Fdo_add",
    "/api%5ctask/do_add",
    "/api/task/do_add;x=1",
    "/api;v=1/task/do_add",
    "/api/task/do_add%20",
];

#[test]
fn paths_below_the_base_url_go_out_as_they_are() {
    let longest = format!("/{}", "a".repeat(2047));
    for prefix in ["", "/", "/gate", "/gate/v1/"] {
        let server = Server::plain();
        let keys = json!({ "base_url": format!("{}{prefix}", server.base_url()), "idle_timeout_ms": 60_000 });
        let client = Owned::new(&with(config(&server.base_url()), keys));
        server.always(Script::forever(Script::request().and(says(DONE))));
        let paths: Vec<&str> = TAKEN.into_iter().chain([&*longest]).collect();
        for path in &paths {
            let reply = client.call(path, "{}");
            assert_eq!((reply.code, reply.text()), (OK, DONE), "{prefix} {path}: {reply:?}");
        }
        let seen = settled(client, &server);
        let lines: Vec<String> = seen.iter().flat_map(Seen::requests).map(|request| request.line.clone()).collect();
        let prefix = prefix.trim_end_matches('/');
        let wanted: Vec<String> = paths.iter().map(|path| format!("POST {prefix}{path} HTTP/1.1")).collect();
        assert_eq!(lines, wanted);
        let host = server.address().to_string();
        assert!(seen.iter().flat_map(Seen::requests).all(|request| request.header("Host") == Some(&*host)));
    }
}

#[test]
fn no_other_path_is_asked_for() {
    let too_long = format!("/{}", "a".repeat(2048));
    for prefix in ["", "/gate"] {
        // Every connection would be a fault of the server's.
        let server = Server::plain();
        let client = Owned::new(&config(&format!("{}{prefix}", server.base_url())));
        for path in REFUSED.into_iter().chain(RESERVED).chain([&*too_long]) {
            let reply = client.call(path, "{}");
            assert_eq!((reply.code, reply.outcome), (BAD_ARGUMENT, NOT_CREATED), "{path:?}: {reply:?}");
            let document = reply.json();
            assert!(document["message"].as_str().is_some_and(|message| message.starts_with("path ")), "{reply:?}");
            assert_eq!((&document["attempts"], document.get("out_task_num")), (&json!(0), None), "{reply:?}");
            let points_elsewhere = document["message"].as_str().is_some_and(|text| text.contains("arctos_task_add"));
            assert_eq!(points_elsewhere, RESERVED.contains(&path), "{path}: {reply:?}");
        }
        assert_eq!(server.connections(), 0);
    }
}

#[test]
fn any_json_goes_out_byte_for_byte() {
    let Stage { client, server, .. } = Stage::http_with(json!({ "idle_timeout_ms": 60_000 }));
    server.always(Script::forever(Script::request().and(says(DONE))));
    let long = format!("[\"{}\"]", "x".repeat(300_000));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let bodies = [
        "{}",
        "[]",
        "null",
        "true",
        "\"text\"",
        "-0.50e+07",
        "123456789012345678901234567890",
        " \r\n\t{ \"b\" : 1 ,\"a\":[ 1.50, \"\\u8a31\\/\" ] } \n",
        r#"{"business_id":15,"task_remark":null,"unknown":{"x":[]},"out_task_num":5}"#,
        r#"{"預約":"許 😀"}"#,
        &long,
        &deep,
    ];
    for body in bodies {
        let reply = client.call(PATH, body);
        assert_eq!((reply.code, reply.text()), (OK, DONE), "{body}: {reply:?}");
    }
    let seen = settled(client, &server);
    let requests: Vec<_> = seen.iter().flat_map(Seen::requests).collect();
    assert_eq!(requests.len(), bodies.len());
    for (request, body) in requests.iter().zip(bodies) {
        assert_eq!(request.body, body.as_bytes());
        assert_eq!(request.header("Content-Type"), Some("application/json"));
        assert_eq!(request.header("Authorization"), Some(&*format!("Bearer {TOKEN}")));
    }
}

/// What is wrong with the arguments: nothing connects, and the message begins with the argument's name.
#[track_caller]
fn refused(reply: &Reply, argument: &str) {
    assert_eq!((reply.code, reply.outcome), (BAD_ARGUMENT, NOT_CREATED), "{reply:?}");
    let document = reply.json();
    assert!(document["message"].as_str().is_some_and(|message| message.contains(argument)), "{argument}: {reply:?}");
    assert_eq!(document["outcome"], "not_created");
    speaks_of_no_appointment(reply).unwrap();
}

#[test]
fn what_is_not_json_is_refused() {
    let stage = Stage::http();
    for body in
        ["", " ", "{", "}", "{}}", "{} {}", "[1,]", "{'a':1}", "{\"a\":}", "01", "nul", "\"a\nb\"", "\u{feff}{}"]
    {
        refused(&stage.client.call(PATH, body), "body_json");
    }
    refused(&stage.client.call(PATH, &"[".repeat(100_000)), "body_json");
    assert_eq!(stage.server.connections(), 0);
}

#[test]
fn arguments_that_are_none_are_refused() {
    let stage = Stage::http();
    let freed = std::mem::ManuallyDrop::new(Owned::new(&config(&stage.server.base_url())));
    // SAFETY: a client of the library.
    unsafe { (arctos().client_free)(freed.0) };
    let (path, body) = (c(PATH), c("{}"));
    let call = |client: Client, path: *const _, body: *const _, options: *const _| {
        taken(|answer| unsafe { (arctos().call)(client, path, body, options, answer) })
    };
    let client = stage.client.0;
    let wrong = c"\xff/\xfe".as_ptr();
    for dead in [ptr::null_mut(), freed.0, ptr::without_provenance_mut(77)] {
        refused(&call(dead, path.as_ptr(), body.as_ptr(), ptr::null()), "client");
    }
    for none in [ptr::null(), wrong] {
        refused(&call(client, none, body.as_ptr(), ptr::null()), "path");
        refused(&call(client, path.as_ptr(), none, ptr::null()), "body_json");
    }
    refused(&call(client, path.as_ptr(), body.as_ptr(), wrong), "options_json");
    for options in ["", "[]", "{\"timeout\":1}", "{\"timeout_ms\":0}", "{\"call_id\":\"\"}", "{\"call_id\":7}"] {
        refused(&stage.client.call_with(PATH, "{}", options), "options");
    }
    // Without anywhere to write the text to.
    let code = unsafe { (arctos().call)(client, ptr::null(), body.as_ptr(), ptr::null(), ptr::null_mut()) };
    assert_eq!(code, BAD_ARGUMENT);
    assert_eq!(stage.server.connections(), 0);
}

#[test]
fn options_hold_for_the_call() {
    let stage = Stage::http();
    stage.server.next(Script::request());
    let reply = stage.client.call_with(PATH, "{}", r#"{"timeout_ms":300,"call_id":"desk-7"}"#);
    assert_eq!((reply.code, reply.outcome), (TIMEOUT_UNKNOWN.code, TIMEOUT_UNKNOWN.outcome), "{reply:?}");
    assert_eq!(reply.json()["call_id"], "desk-7");
    speaks_of_no_appointment(&reply).unwrap();
    stage.server.next(done());
    assert_eq!(stage.client.call_with(PATH, &body("N"), r#"{"call_id":"desk-7"}"#).text(), DONE);
}

#[test]
fn the_token_is_that_of_the_client() {
    let server = Server::plain();
    let mut without = config(&server.base_url());
    without.as_object_mut().expect("an object").remove("token");
    let client = Owned::new(&without);
    let reply = client.call(PATH, "{}");
    assert_eq!((reply.code, reply.outcome), (FORBIDDEN, NOT_CREATED), "{reply:?}");
    speaks_of_no_appointment(&reply).unwrap();
    assert_eq!(server.connections(), 0);
    assert_eq!(client.set_token("another-token").code, OK);
    server.next(done());
    assert_eq!(client.call(PATH, &body("N")).code, OK);
    let seen = settled(client, &server);
    let authorization = seen[0].requests().next().and_then(|request| request.header("Authorization"));
    assert_eq!(authorization, Some("Bearer another-token"));
}

#[test]
fn the_envelope_tells_and_no_number_is_asked_for() {
    for stage in [Stage::http(), Stage::https(Version::Tls13)] {
        let mut table = Table::new();
        for (answer, expected) in [
            (r#"{"status":1}"#, MADE),
            (r#"{"status":"1"}"#, MADE),
            (r#"{"status":2,"message":"nearly full"}"#, MADE),
            (r#"{"status":"2","info":null}"#, MADE),
            (r#"{"status":1,"info":{"task_num":"202312210000001"}}"#, MADE),
            (r#"{"status":1,"info":{"task_num":null}}"#, MADE),
            (r#"{"status":1,"info":{"task_num":{}}}"#, MADE),
            (r#"{"status":1,"info":[{"room":1.50},[]],"message":5}"#, MADE),
            (" { \"info\":\"\\u0000\", \"status\" : 1 }\r\n", MADE),
            (r#"{"status":0}"#, FAILED_NOT_CREATED),
            (r#"{"status":"0","message":"no such branch"}"#, FAILED_NOT_CREATED),
            (r#"{"status":0,"info":{"task_num":""}}"#, FAILED_NOT_CREATED),
            (r#"{"status":3}"#, BAD_RESPONSE_UNKNOWN),
            (r#"{"status":true}"#, BAD_RESPONSE_UNKNOWN),
            (r#"{"status":null}"#, BAD_RESPONSE_UNKNOWN),
            (r#"{"status":1.0}"#, BAD_RESPONSE_UNKNOWN),
            (r#"{"message":"success"}"#, BAD_RESPONSE_UNKNOWN),
            (r#"{"status":1,"status":0}"#, BAD_RESPONSE_UNKNOWN),
            ("[]", BAD_RESPONSE_UNKNOWN),
            ("", BAD_RESPONSE_UNKNOWN),
            (r#"{"status":1"#, BAD_RESPONSE_UNKNOWN),
        ] {
            let script = if expected.outcome == NOT_CREATED { Script::request() } else { Script::made() };
            let result = attempt(&stage, answer, expected, script.and(says(answer)).close());
            if let Some(reply) = table.take(result)
                && expected == MADE
            {
                assert_eq!(reply.text(), answer, "byte for byte");
            }
        }
        // A number is not looked at, so that it does not contradict the refusal.
        let number = stage.number();
        stage.server.next(Script::request().and(says(r#"{"status":0,"info":{"task_num":"1"}}"#)).close());
        let reply = stage.client.call(PATH, &body(&number));
        let expected = (FAILED_NOT_CREATED.code, FAILED_NOT_CREATED.outcome);
        assert_eq!((reply.code, reply.outcome), expected, "{reply:?}");
        table.finish();
    }
}

#[test]
fn every_http_status_means_what_it_means_for_appointments() {
    let stage = Stage::http();
    let mut table = Table::new();
    for code in 200..=600 {
        let Some(expected) = status(code) else { continue };
        let whole = answer(&format!("{code} Status"), Framing::Length, DONE.as_bytes());
        // A server that refuses and carries it out all the same would not tell the truth.
        let script = if expected.outcome == NOT_CREATED { Script::request() } else { Script::made() };
        let reply = table.take(attempt(&stage, &code.to_string(), expected, script.send(whole).close()));
        if let Some(reply) = reply.filter(|reply| reply.code != OK) {
            assert_eq!(reply.json()["http_status"], code);
        }
    }
    table.finish();
}

#[test]
fn connections_that_break_leave_no_more_doubt_than_there_is() {
    for stage in [|| Stage::http(), || Stage::https(Version::Tls12), || Stage::https(Version::Tls13)] {
        let mut table = Table::new();
        let stage = stage();
        for (how, end) in [("closed", Script::close as fn(Script) -> Script), ("reset", Script::reset)] {
            let mut row = |what: &str, expected, script: Script| {
                table.take(attempt(&stage, &format!("{what}, {how}"), expected, end(script)));
            };
            row("after the request", BROKEN_UNKNOWN, Script::request());
            row("after it was done", BROKEN_UNKNOWN, Script::made());
            let whole = answer("200 OK", Framing::Length, DONE.as_bytes());
            for count in [1, 20, whole.len() - 1] {
                row("in the answer", BROKEN_UNKNOWN, Script::made().send(&whole[..count]));
            }
            row("behind the answer", MADE, Script::made().send(&*whole));
            let refusal = answer_head("404 No", Framing::Length, 50);
            let not_found = status_without_body(404, BROKEN_UNKNOWN).expect("a final status");
            row("behind a head that refuses", not_found, Script::request().send(refusal));
            let failed = answer_head("503 No", Framing::Length, 50);
            row("behind a head that does not say", BUSY_UNKNOWN, Script::made().send(failed));
        }
        table.finish();
    }
    let reply = Owned::new(&config("http://127.0.0.1:1")).call(PATH, "{}");
    assert_eq!((reply.code, reply.outcome), (CONNECT_NOT_CREATED.code, CONNECT_NOT_CREATED.outcome), "{reply:?}");
    speaks_of_no_appointment(&reply).unwrap();
}

#[test]
fn a_request_that_is_cut_off_may_have_been_carried_out() {
    let stage = Stage::http();
    let mut table = Table::new();
    for bytes in [1, 10, 60, 150] {
        let script = Script::silent().then(Step::Read(bytes)).then(Step::Reset);
        table.take(attempt(&stage, &format!("after {bytes} bytes"), BROKEN_UNKNOWN, script));
    }
    table.finish();
}

#[test]
fn what_may_pass_is_tried_again_with_the_same_bytes() {
    for (last, expected) in [(true, MADE), (false, BUSY_NOT_CREATED)] {
        let stage = Stage::https_with(Identity::right(Version::Tls13), json!({ "retries": 1 }));
        let Stage { client, server, .. } = stage;
        let busy = || Script::request().send(answer("429 Busy", Framing::Length, b"later")).close();
        server.next(busy());
        server.next(if last { done() } else { busy() });
        let reply = client.call(PATH, &body("N"));
        assert_eq!((reply.code, reply.outcome), (expected.code, expected.outcome), "{reply:?}");
        speaks_of_no_appointment(&reply).unwrap();
        let seen = settled(client, &server);
        let tries: Vec<Exchange> = seen.into_iter().flat_map(|seen| seen.exchanges).collect();
        assert_eq!(tries.len(), 2);
        check(&reply, server.ledger().made("N"), &tries).unwrap();
    }
    // One that may have been carried out is not, unless the server knows repeats; then doubt stays until a success.
    let doubt = || Script::made().send(answer("500 No", Framing::Length, b"no")).close();
    let stage = Stage::http_with(json!({ "retries": 3 }));
    stage.server.next(doubt());
    assert_eq!(stage.client.call(PATH, &body("N")).json()["attempts"], 1);
    let stage = Stage::http_with(json!({ "retries": 1, "server_dedupes": true }));
    stage.server.next(doubt());
    stage.server.next(Script::request().send(head("403 No", &["Content-Length: 0"])).close());
    let reply = stage.client.call(PATH, &body("N"));
    assert_eq!((reply.code, reply.outcome), (FORBIDDEN, BROKEN_UNKNOWN.outcome), "{reply:?}");
    speaks_of_no_appointment(&reply).unwrap();
}

#[test]
fn echoes_of_the_body_and_the_token_are_masked() {
    let texts = ["Ms Lin, 4th window", "許功蓋 的 預約", "a \"quoted\" <name> & more\\n"];
    let body = json!({
        "customer": { "name": texts[0] },
        "list": [[texts[1]], { "deeper": [texts[2]] }],
        "short": "brief",
        "count": 5,
    });
    let stage = Stage::http_with(json!({ "keep_bodies": true }));
    let mut replies = Vec::new();
    let echo = format!("cannot take {} | {} | {} | brief 5 with {TOKEN}.", texts[0], texts[1], texts[2]);
    let page = json!({ "status": 0, "message": echo, "echo": body }).to_string();
    for (status, expected) in
        [("200 OK", FAILED_NOT_CREATED), ("403 No", FORBIDDEN_NOT_CREATED), ("503 No", BUSY_UNKNOWN)]
    {
        let script = Script::request().send(answer(status, Framing::Length, page.as_bytes())).close();
        let call = |client: &Owned| client.call(PATH, &body.to_string());
        replies.push(stage.attempt_call(status, expected, "N", script, call).unwrap().reply);
    }
    for reply in replies {
        let document = reply.json();
        assert_eq!(document["server_message"], "cannot take *** | *** | *** | brief 5 with ***.", "{reply:?}");
        let shown: Value = serde_json::from_str(document["server_body"].as_str().expect("a body")).expect("JSON");
        assert_eq!(shown["message"], document["server_message"]);
        for private in texts.into_iter().chain([TOKEN]) {
            let escaped = json!(private).to_string();
            for text in [private, &escaped[1..escaped.len() - 1]] {
                assert!(
                    !reply.text().contains(text) && !shown.to_string().contains(text),
                    "{text} stands in {reply:?}"
                );
            }
        }
        speaks_of_no_appointment(&reply).unwrap();
    }
}

#[test]
fn a_call_ends_at_its_deadline() {
    let stage = Stage::http_with(json!({ "timeout_ms": 300 }));
    let slowly = Step::Pieces(answer("200 OK", Framing::Length, DONE.as_bytes()), 1, Duration::from_millis(100));
    for script in [Script::made().then(Step::AwaitRelease), Script::made().then(slowly)] {
        attempt(&stage, "too slow", TIMEOUT_UNKNOWN, script).unwrap();
    }
}
