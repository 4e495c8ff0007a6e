//! A client that logs in by itself: when it does, how often, what becomes of a call whose log-in fails, and that no
//! appointment is made twice by it.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::sync::{Barrier, Mutex};
use std::thread::{ScopedJoinHandle, sleep};
use std::time::Duration;

use arctos_tests::api::{
    BAD_ARGUMENT, BAD_RESPONSE, BROKEN, BUSY, CANCELLED, CONNECT, CREATED, FORBIDDEN, NOT_CREATED, NOT_FOUND, OK,
    Owned, Reply, SERVER_ERROR, TIMEOUT, UNKNOWN, arctos, task,
};
use arctos_tests::deadline::Scheme;
use arctos_tests::expected::{NOT_CREATED_STATUS, status};
use arctos_tests::http::{Framing, Request, answer, find, head, success};
use arctos_tests::proxy::{Proxy, Script as ProxyScript};
use arctos_tests::server::{Script, Server, Step};
use arctos_tests::stage::{Table, at_once, config, config_tls, with};
use arctos_tests::tls::{Authority, Identity, Version};
use arctos_tests::tokens::{By, OTHER, Site, THREADS, called, made, refusal, refuses};
use arctos_tests::tools::{Host, Talker};
use serde_json::{Value, json};

const PATH: &str = "/api/auth/login?client=terminal";
/// What no document and no line of the log may hold.
const MARKER: &str = "hunter2";
const FIRST: &str = "token-one";
const SECOND: &str = "token-two";

/// With characters that JSON and HTML escape.
fn password() -> String {
    format!("{MARKER}\"&<許>'\\")
}

fn body() -> Value {
    json!({ "user": "branch-943", "password": password(), "of": [943, true, null] })
}

fn login() -> Value {
    json!({ "path": PATH, "body": body(), "token_pointer": "/info/token" })
}

/// The configuration of a client that logs in, from one with a token.
fn logging_in(mut config: Value) -> Value {
    config.as_object_mut().expect("an object").remove("token");
    with(config, json!({ "login": login() }))
}

/// A server, and a client that logs in to it, with further keys.
fn over(scheme: Scheme, keys: Value) -> Site {
    let authority = Authority::new();
    let (server, config) = match scheme {
        Scheme::Http => {
            let server = Server::plain();
            let config = config(&server.base_url());
            (server, config)
        }
        Scheme::Https(version) => {
            let server = Server::start("127.0.0.1", Some(authority.server(Identity::right(version))));
            let config = config_tls(&server.base_url(), &authority);
            (server, config)
        }
    };
    let client = Owned::new(&with(logging_in(config), keys));
    Site::new(server, client, &[MARKER, FIRST, SECOND])
}

fn http(keys: Value) -> Site {
    over(Scheme::Http, keys)
}

/// The same when the client has logged in, with the first token, and has made one appointment, `A0`.
fn logged_in(scheme: Scheme, keys: Value) -> Site {
    let site = over(scheme, keys);
    site.scripts([logs_in(FIRST), Script::served()]);
    site.makes(By::Add, "A0");
    site
}

/// What a log-in is answered with.
fn token_answer(token: &str) -> Vec<u8> {
    let body = json!({ "status": 1, "info": { "token": token, "expires_in": 3600 } });
    answer("200 OK", Framing::Length, body.to_string().as_bytes())
}

fn logs_in(token: &str) -> Script {
    Script::request().send(token_answer(token))
}

/// What a request was: `log-in`, or the number and the token of a call. A log-in must be what the configuration says.
fn spelled(request: &Request) -> String {
    if request.line == format!("POST {PATH} HTTP/1.1") {
        assert_eq!(request.all("Authorization"), [""; 0], "a log-in has no token");
        assert_eq!(request.header("Content-Type"), Some("application/json"));
        assert_eq!(String::from_utf8_lossy(&request.body), body().to_string());
        return "log-in".to_owned();
    }
    called(request)
}

/// All requests, in the order of their connections, when these have ended.
#[track_caller]
fn trace_from(server: &Server, from: usize) -> Vec<String> {
    let seen = server.settle(from).expect("the connections have ended");
    seen.iter().flat_map(|seen| seen.requests().map(spelled)).collect()
}

#[track_caller]
fn trace(server: &Server) -> Vec<String> {
    trace_from(server, 0)
}

#[test]
fn the_first_call_logs_in_and_later_ones_use_its_token() {
    for scheme in Scheme::ALL {
        for by in By::BOTH {
            let site = over(scheme, json!({}));
            assert_eq!(site.server.connections(), 0, "a client that is made opens no connection");
            site.server.next(logs_in(FIRST));
            site.server.always(Script::served());
            site.makes(by, "A1");
            site.makes(By::Call, "A2");
            site.makes(By::Add, "A3");
            assert_eq!(trace(&site.server), ["log-in", "A1 token-one", "A2 token-one", "A3 token-one"]);
            site.each_made_once(3);
        }
    }
}

#[test]
fn the_log_in_stands_below_the_base_url() {
    let server = Server::plain();
    let client = Owned::new(&logging_in(config(&format!("{}/branch/943", server.base_url()))));
    server.next(logs_in(FIRST));
    server.next(Script::served());
    assert_eq!(client.add(&task("A1")).code, OK);
    let seen = server.settle(0).unwrap();
    let lines: Vec<&str> = seen.iter().flat_map(|seen| seen.requests()).map(|request| &*request.line).collect();
    assert_eq!(lines, [&*format!("POST /branch/943{PATH} HTTP/1.1"), "POST /branch/943/api/task/do_add HTTP/1.1"]);
}

#[test]
fn log_ins_and_calls_share_their_connections() {
    for scheme in Scheme::ALL {
        let mut site = over(scheme, json!({ "idle_timeout_ms": 3_600_000 }));
        let script = logs_in(FIRST).and(Script::served()).and(refuses(401)).and(logs_in(SECOND));
        site.server.next(script.and(Script::forever(Script::served())));
        for number in ["A1", "A2", "A3"] {
            site.makes(By::Add, number);
        }
        site.free();
        let wanted = ["log-in", "A1 token-one", "A2 token-one", "log-in", "A2 token-two", "A3 token-two"];
        assert_eq!(trace(&site.server), wanted, "{scheme:?}");
        assert_eq!(site.server.connections(), 1, "{scheme:?}");
        site.each_made_once(3);
    }
}

#[test]
fn the_log_in_goes_through_the_proxy() {
    let server = Server::plain();
    let proxy = Proxy::to(server.address());
    proxy.always(ProxyScript::tunnel());
    let base_url = "http://arctos.bank.example";
    let keys = json!({ "allow_http": true, "proxy": proxy.url() });
    let client = Owned::new(&with(logging_in(config(base_url)), keys));
    server.next(logs_in(FIRST));
    server.next(Script::served());
    assert_eq!(client.add(&task("A1")).code, OK);
    assert_eq!(trace(&server), ["log-in", "A1 token-one"]);
    let seen = proxy.settle().unwrap();
    assert_eq!(seen.len(), 2);
    for one in &seen {
        assert_eq!(one.connect().target(), "arctos.bank.example:80");
    }
}

#[test]
fn odd_answers_to_a_log_in_have_a_token_all_the_same() {
    let body = format!("{{\"data\":[0,{{\"a/b\":\"{}\"}}],\"status\":0}}", FIRST.replace('t', "\\u0074"));
    let long = format!("{{\"pad\":\"{}\",\"data\":[0,{{\"a/b\":\"{FIRST}\"}}]}}", "x".repeat(700_000));
    let whole = |framing| answer("200 OK", framing, body.as_bytes());
    let interim = [head("100 Continue", &[]), head("103 Early Hints", &["Link: </>"]), whole(Framing::Length)].concat();
    for (pointer, script) in [
        ("/data/1/a~1b", Script::request().send(whole(Framing::Length))),
        ("/data/1/a~1b", Script::request().send(whole(Framing::Chunked(1)))),
        ("/data/1/a~1b", Script::request().send(whole(Framing::Close)).close()),
        ("/data/1/a~1b", Script::request().send(interim)),
        ("/data/1/a~1b", Script::request().send(answer("201 Made", Framing::Length, body.as_bytes()))),
        ("/data/1/a~1b", Script::request().send(answer("200 OK", Framing::Chunked(9_999), long.as_bytes()))),
        ("/data/1/a~1b", Script::request().then(Step::Pieces(whole(Framing::Chunked(7)), 1, Duration::from_millis(1)))),
        ("", Script::request().send(answer("200 OK", Framing::Length, format!(" \"{FIRST}\"\n").as_bytes()))),
    ] {
        let login = with(login(), json!({ "token_pointer": pointer }));
        let site = http(json!({ "login": login }));
        site.scripts([script, Script::served()]);
        site.makes(By::Add, "A1");
        assert_eq!(trace(&site.server), ["log-in", "A1 token-one"]);
    }
}

#[test]
fn the_body_is_sent_as_it_is_written() {
    for body in ["null", "\"text\"", "[ 1.50, 12345678901234567890 ]", "{\"b\":1,\"a\":{\"b\":\"\\u0041\"},\"b\":2}"] {
        let server = Server::plain();
        let config = format!(
            "{{\"base_url\":\"{}\",\"idle_timeout_ms\":0,\"login\":{{\"path\":\"/in\",\"token_pointer\":\"/info/token\",\"body\":{body}}}}}",
            server.base_url()
        );
        let (client, reply) = arctos_tests::api::client_new(&config);
        assert_eq!(reply.code, OK, "{reply:?}");
        server.next(logs_in(FIRST));
        server.next(Script::served());
        assert_eq!(client.expect("a client").add(&task("A1")).code, OK);
        let seen = server.settle(0).unwrap();
        assert_eq!(String::from_utf8_lossy(&seen[0].requests().next().expect("a log-in").body), body);
    }
}

#[test]
fn a_refused_call_logs_in_once_more_and_is_sent_once_more() {
    for scheme in Scheme::ALL {
        for (by, refused) in By::BOTH.into_iter().zip([401, 403]).chain(By::BOTH.into_iter().zip([403, 401])) {
            let site = logged_in(scheme, json!({}));
            let from = site.server.connections();
            site.scripts([refuses(refused), logs_in(SECOND)]);
            site.server.always(Script::served());
            site.makes(by, "A1");
            site.makes(by, "A2");
            assert_eq!(trace_from(&site.server, from), ["A1 token-one", "log-in", "A1 token-two", "A2 token-two"]);
            site.each_made_once(3);
        }
    }
}

#[test]
fn a_call_that_is_refused_again_hands_the_refusal_over() {
    for by in By::BOTH {
        for again in [401, 403] {
            let site = logged_in(Scheme::Http, json!({ "retries": 10 }));
            let from = site.server.connections();
            site.scripts([refuses(403), logs_in(SECOND), refuses(again)]);
            let document = site.fails(by, "A1", FORBIDDEN, NOT_CREATED, 2);
            assert_eq!(document["http_status"], again);
            assert!(!document["message"].as_str().expect("a message").contains("log-in"), "{document}");
            assert_eq!(trace_from(&site.server, from), ["A1 token-one", "log-in", "A1 token-two"]);
            // The next one begins anew, with the token that there is.
            let from = site.server.connections();
            site.server.next(Script::served());
            site.makes(by, "A2");
            assert_eq!(trace_from(&site.server, from), ["A2 token-two"]);
            site.each_made_once(2);
        }
    }
}

#[test]
fn a_token_that_is_refused_at_its_first_use_is_replaced_once() {
    let site = http(json!({ "retries": 10 }));
    site.scripts([logs_in(FIRST), refuses(401), logs_in(FIRST), refuses(401)]);
    site.fails(By::Add, "A1", FORBIDDEN, NOT_CREATED, 2);
    assert_eq!(trace(&site.server), ["log-in", "A1 token-one", "log-in", "A1 token-one"]);
}

#[test]
fn only_the_statuses_of_refresh_on_ask_for_another_token() {
    // By default 401 and 403 and nothing else, whatever else the server says, above all where it may have been made.
    let site = logged_in(Scheme::Http, json!({}));
    for code in (300..=599).filter(|code| ![401, 403].contains(code)) {
        let expected = status(code).expect("a final status");
        let script = if expected.outcome == UNKNOWN { Script::made() } else { Script::request() };
        site.server.next(script.send(refusal(code)));
        let number = format!("S{code}");
        let document = site.fails(By::Add, &number, expected.code, expected.outcome, 1);
        assert_eq!(document["http_status"], code);
    }
    site.server.next(Script::request().send(answer("200 OK", Framing::Length, br#"{"status":0,"message":"401"}"#)));
    site.fails(By::Add, "S200", arctos_tests::api::FAILED, NOT_CREATED, 1);
    assert_eq!(trace(&site.server).iter().filter(|one| *one == "log-in").count(), 1);

    // Others by its word, and then those alone.
    for code in NOT_CREATED_STATUS.into_iter().filter(|code| *code != 429) {
        let site = logged_in(Scheme::Http, json!({ "login": with(login(), json!({ "refresh_on": [code] })) }));
        let from = site.server.connections();
        site.scripts([refuses(code), logs_in(SECOND), Script::served()]);
        site.makes(By::Add, "A1");
        let other = if code == 401 { 403 } else { 401 };
        site.server.next(refuses(other));
        site.fails(By::Add, "A2", FORBIDDEN, NOT_CREATED, 1);
        let wanted = ["A1 token-one", "log-in", "A1 token-two", "A2 token-two"];
        assert_eq!(trace_from(&site.server, from), wanted, "{code}");
    }
    // Or never.
    let site = logged_in(Scheme::Http, json!({ "login": with(login(), json!({ "refresh_on": [] })) }));
    for code in [401, 403] {
        site.server.next(refuses(code));
        site.fails(By::Add, &format!("A{code}"), FORBIDDEN, NOT_CREATED, 1);
    }
    assert_eq!(trace(&site.server), ["log-in", "A0 token-one", "A401 token-one", "A403 token-one"]);
}

/// Fails a log-in, by this answer to it, in a call that the client makes first.
fn failing(site: &Site, by: By, number: &str, script: Script) -> Result<Value, String> {
    let from = site.server.connections();
    site.server.next(script);
    let reply = site.call(by, number);
    let seen = site.server.settle(from)?;
    if seen.len() != 1 || !site.server.tries(number).is_empty() {
        return Err(format!("{} connections, {} tries", seen.len(), site.server.tries(number).len()));
    }
    if reply.outcome != NOT_CREATED || reply.code == OK {
        return Err(format!("{reply:?}"));
    }
    let document = reply.json();
    let said = document["message"].as_str().is_some_and(|message| message.starts_with("the log-in failed: "));
    if !said || document["attempts"] != 1 || document.get("server_body").is_some() {
        return Err(document.to_string());
    }
    Ok(document)
}

#[test]
fn what_the_server_says_to_a_log_in() {
    let with_body = |body: &str| answer("200 OK", Framing::Length, body.as_bytes());
    let token = |value: &str| with_body(&format!("{{\"status\":1,\"info\":{{\"token\":{value}}}}}"));
    let long = format!("\"{}\"", "x".repeat(8_193));
    let mut rows: Vec<(String, Vec<u8>, i32, &str)> = Vec::new();
    for status in (400..=499).filter(|status| ![404, 429].contains(status)) {
        rows.push((format!("{status}"), refusal(status), FORBIDDEN, "refused it"));
    }
    for (status, code, phrase) in [(404, NOT_FOUND, "login.path"), (429, BUSY, "later"), (503, BUSY, "not available")] {
        rows.push((format!("{status}"), refusal(status), code, phrase));
    }
    for status in [500, 501, 502, 504, 599] {
        rows.push((format!("{status}"), refusal(status), SERVER_ERROR, "failed"));
    }
    for status in [301, 302, 303, 307, 308] {
        let to = format!("Location: {PATH}");
        rows.push((
            format!("{status}"),
            head(&format!("{status} Moved"), &[&to, "Content-Length: 0"]),
            BAD_RESPONSE,
            "redirect",
        ));
    }
    rows.push(("101".to_owned(), head("101 Switching", &[]), BAD_RESPONSE, "101"));
    rows.push(("999".to_owned(), refusal(999), BAD_RESPONSE, "999"));
    for (case, bytes) in [
        ("null", token("null")),
        ("a number", token("12345678")),
        ("true", token("true")),
        ("an object", token("{\"token\":\"abcdefgh\"}")),
        ("an array", token("[\"abcdefgh\"]")),
        ("nothing there", with_body(r#"{"status":0,"message":"wrong password","info":{}}"#)),
        ("no parent", with_body(r#"{"status":0,"message":"wrong password"}"#)),
        ("a parent that is none", with_body(r#"{"info":"token"}"#)),
        ("an array at the top", with_body("[]")),
        ("a string at the top", with_body("\"token\"")),
    ] {
        rows.push((case.to_owned(), bytes, FORBIDDEN, "no token at /info/token"));
    }
    for (case, bytes) in [
        ("no text", token("\"\"")),
        ("a line end", token(r#""abcdefgh\n""#)),
        ("a header", token(r#""abcdefgh\r\nX-Injected: 1""#)),
        ("a control character", token(r#""abc\u0001defgh""#)),
        ("DEL", token("\"abc\u{7f}defgh\"")),
        ("not ASCII", token("\"許功蓋許功蓋\"")),
        ("a blank before it", token("\" abcdefgh\"")),
        ("a word before it", token("\"Bearer abcdefgh\"")),
        ("too long a token", token(&long)),
        ("U+0000", token(r#""abc\u0000defgh""#)),
        ("half a character", token(r#""abc\ud800defgh""#)),
        ("no body", with_body("")),
        ("no JSON", with_body("<html>log in</html>")),
        ("half of it", with_body(r#"{"info":{"token":"abcdefgh""#)),
        ("twice", with_body(r#"{"info":{"token":"abcdefgh","token":"ijklmnop"}}"#)),
        ("no UTF-8", answer("200 OK", Framing::Length, b"{\"info\":{\"token\":\"abc\xff\"}}")),
        ("no content", head("204 None", &[])),
        (
            "a coding",
            head("200 OK", &["Content-Encoding: gzip", "Content-Length: 2"]).into_iter().chain(*b"{}").collect(),
        ),
        (
            "two lengths",
            head("200 OK", &["Content-Length: 2", "Content-Length: 3"]).into_iter().chain(*b"{}").collect(),
        ),
        ("too long", with_body(&format!("{{\"info\":{{\"token\":\"abcdefgh\"}},\"pad\":\"{}\"}}", "x".repeat(20_000)))),
        ("no HTTP", b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec()),
    ] {
        rows.push((case.to_owned(), bytes, BAD_RESPONSE, ""));
    }
    let mut table = Table::new();
    // One client for all of them: that one log-in failed does not keep it from the next.
    let site = http(json!({ "keep_bodies": true, "max_response_bytes": 16_384 }));
    for (index, (case, bytes, code, phrase)) in rows.into_iter().enumerate() {
        for by in By::BOTH {
            let status = std::str::from_utf8(&bytes[9..12]).ok().and_then(|status| status.parse::<u16>().ok());
            let result = failing(&site, by, &format!("A{index}"), Script::request().send(bytes.clone()).close());
            let result = result.and_then(|document| {
                let says = document["message"].as_str().is_some_and(|message| message.contains(phrase));
                let told = status.is_none() || document.get("http_status") == Some(&json!(status));
                let leaks = document.to_string().contains("abcdefgh");
                if document["code"] == code && says && told && !leaks { Ok(()) } else { Err(document.to_string()) }
            });
            table.take(result.map_err(|wrong| format!("{case} {by:?}: {wrong}")));
        }
    }
    table.finish();
    site.scripts([logs_in(FIRST), Script::served()]);
    site.makes(By::Add, "A-last");
    site.each_made_once(1);
}

#[test]
fn what_the_server_echoes_of_a_log_in_is_masked() {
    let site = http(json!({ "keep_bodies": true }));
    let html = password().replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let json_twice = serde_json::to_string(&serde_json::to_string(&password()).expect("JSON")).expect("JSON");
    for (case, echo) in [("verbatim", password()), ("HTML", html), ("JSON", json_twice)] {
        for status in ["200 OK", "403 No", "500 No", "429 No"] {
            let message = format!("no {echo} for branch-943 at {PATH}");
            let body = json!({ "status": 0, "message": message, "body": body() });
            let script = Script::request().send(answer(status, Framing::Length, body.to_string().as_bytes()));
            let document = failing(&site, By::Add, "A1", script).unwrap();
            let message = document["server_message"].as_str().expect("a message");
            assert!(message.starts_with("no ") && message.contains("***"), "{case} {status}: {message}");
            assert!(message.ends_with("?client=***"), "{case} {status}: {message}");
        }
    }
}

#[test]
fn a_token_in_the_words_of_a_log_in_is_not_told() {
    let site = http(json!({ "keep_bodies": true, "login": with(login(), json!({ "token_pointer": "/message" })) }));
    let body = json!({ "status": 1, "message": format!("Bearer {FIRST}") });
    let script = Script::request().send(answer("200 OK", Framing::Length, body.to_string().as_bytes()));
    let document = failing(&site, By::Add, "A1", script).unwrap();
    assert_eq!(document["code"], BAD_RESPONSE);
    // A server that says that it logged in gave a token somewhere, only not where it was looked for.
    let site = http(json!({ "keep_bodies": true }));
    for status in [json!(1), json!("2")] {
        let body = json!({ "status": status, "message": FIRST, "token": SECOND });
        let script = Script::request().send(answer("200 OK", Framing::Length, body.to_string().as_bytes()));
        let document = failing(&site, By::Add, "A2", script).unwrap();
        assert_eq!(document["code"], FORBIDDEN);
        assert_eq!(document.get("server_message"), None, "{document}");
    }
}

/// Runs many log-ins that fail, each by its script, on several clients at once.
fn all_fail(scheme: Scheme, rows: Vec<(String, Script, i32)>) {
    let rows = Mutex::new(rows.into_iter());
    let table = Mutex::new(Table::new());
    at_once(0..8, |_| {
        let site = over(scheme, json!({}));
        for index in 0.. {
            let next = rows.lock().expect("no panic under it").next();
            let Some((case, script, code)) = next else { return };
            let by = By::BOTH[index % 2];
            let result = failing(&site, by, &format!("A{index}"), script);
            let result = result
                .and_then(|document| if document["code"] == code { Ok(()) } else { Err(document.to_string()) })
                .map_err(|wrong| format!("{case}: {wrong}"));
            table.lock().expect("no panic under it").take(result);
        }
    });
    table.into_inner().expect("no panic under it").finish();
}

type End = fn(Script) -> Script;
const ENDS: [(&str, End); 2] = [("reset", Script::reset), ("FIN", Script::fin)];

fn length_of_log_in(scheme: Scheme) -> usize {
    let site = logged_in(scheme, json!({}));
    let seen = site.server.settle(0).unwrap();
    seen[0].requests().next().expect("a log-in").length
}

#[test]
fn a_log_in_that_breaks_at_any_byte_makes_nothing() {
    let length = length_of_log_in(Scheme::Http);
    let mut rows = Vec::new();
    for (what, end) in ENDS {
        rows.extend((0..length).map(|read| {
            // Before the first byte the client may find out at once, or when it has sent some.
            let script =
                if read == 0 { Script::silent().then(Step::Raw(1)) } else { Script::silent().then(Step::Read(read)) };
            (format!("{read} of {length} bytes read, {what}"), end(script), BROKEN)
        }));
        for framing in [Framing::Length, Framing::Chunked(25)] {
            let body = json!({ "info": { "token": FIRST } }).to_string();
            let whole = answer("200 OK", framing, body.as_bytes());
            let enough = match framing {
                Framing::Chunked(_) => find(&whole, b"\r\n0\r\n").expect("the last chunk") + 5,
                _ => whole.len(),
            };
            rows.extend((0..enough).map(|sent| {
                let case = format!("{framing:?}, {sent} of {} bytes sent, {what}", whole.len());
                (case, end(Script::request().send(&whole[..sent])), BROKEN)
            }));
        }
    }
    all_fail(Scheme::Http, rows);
}

#[test]
fn a_log_in_that_breaks_over_tls_makes_nothing() {
    for version in [Version::Tls12, Version::Tls13] {
        let scheme = Scheme::Https(version);
        let length = length_of_log_in(scheme);
        let whole = token_answer(FIRST);
        let mut rows = Vec::new();
        for (what, end) in ENDS {
            for read in (0..200).step_by(29) {
                let script = end(Script::silent().then(Step::Raw(read)));
                rows.push((format!("{version:?}: {read} bytes of the handshake, {what}"), script, CONNECT));
            }
            for read in (1..length).step_by(29) {
                let script = end(Script::silent().then(Step::Read(read)));
                rows.push((format!("{version:?}: {read} bytes of the request, {what}"), script, BROKEN));
            }
            for sent in (0..whole.len()).step_by(11) {
                let script = end(Script::request().send(&whole[..sent]));
                rows.push((format!("{version:?}: {sent} bytes of the answer, {what}"), script, BROKEN));
            }
        }
        all_fail(scheme, rows);
    }
}

#[test]
fn a_server_that_is_down_is_said_to_be_so_by_the_log_in() {
    let site = http(json!({}));
    site.server.down();
    let document = site.fails(By::Add, "A1", CONNECT, NOT_CREATED, 1);
    assert!(document["message"].as_str().expect("a message").starts_with("the log-in failed: "), "{document}");
}

#[test]
fn a_log_in_after_a_refusal_that_fails_makes_nothing() {
    for (script, code) in [
        (refuses(403), FORBIDDEN),
        (refuses(404), NOT_FOUND),
        (refuses(429), BUSY),
        (refuses(503), BUSY),
        (refuses(500), SERVER_ERROR),
        (Script::request().reset(), BROKEN),
        (Script::request().send(answer("200 OK", Framing::Length, b"{}")), FORBIDDEN),
        (Script::request().send(answer("200 OK", Framing::Length, b"no")), BAD_RESPONSE),
    ] {
        for by in By::BOTH {
            let site = logged_in(Scheme::Http, json!({}));
            let from = site.server.connections();
            site.scripts([refuses(401), script.clone()]);
            let document = site.fails(by, "A1", code, NOT_CREATED, 2);
            assert!(document["message"].as_str().expect("a message").starts_with("the log-in failed: "), "{document}");
            assert_eq!(trace_from(&site.server, from), ["A1 token-one", "log-in"]);
            site.each_made_once(1);
        }
    }
}

#[test]
fn a_log_in_that_hangs_ends_with_the_call() {
    let whole = token_answer(FIRST);
    let rows = [
        (Scheme::Http, "unread", Script::silent()),
        (Scheme::Https(Version::Tls12), "the handshake", Script::silent()),
        (Scheme::Https(Version::Tls13), "the handshake", Script::silent()),
        (Scheme::Http, "no answer", Script::request()),
        (Scheme::Https(Version::Tls13), "no answer", Script::request()),
        (Scheme::Http, "half a head", Script::request().send(&whole[..20])),
        (Scheme::Http, "half a body", Script::request().send(&whole[..whole.len() - 5])),
    ];
    at_once(rows, |(scheme, case, script)| {
        for (options, limit) in
            [(json!({ "timeout_ms": 400 }), "timeout_ms (400 ms)"), (json!({}), "timeout_ms (500 ms)")]
        {
            let site = over(scheme, json!({ "timeout_ms": 500 }));
            site.server.next(script.clone().then(Step::AwaitRelease));
            let reply = site.call_with(By::Add, "A1", &options);
            site.server.release();
            assert_eq!((reply.code, reply.outcome), (TIMEOUT, NOT_CREATED), "{case} {reply:?}");
            let document = reply.json();
            let message = document["message"].as_str().expect("a message");
            assert!(message.starts_with("the log-in failed: ") && message.contains(limit), "{case}: {message}");
            assert!(!message.contains("; the request had gone out"), "{case}: {message}");
            site.server.settle(0).unwrap();
            assert!(site.server.tries("A1").is_empty());
        }
    });
    // Its connection has a limit of its own.
    let site = over(Scheme::Https(Version::Tls13), json!({ "connect_timeout_ms": 300 }));
    site.server.next(Script::silent().then(Step::AwaitRelease));
    let document = site.fails(By::Add, "A1", TIMEOUT, NOT_CREATED, 1);
    assert!(document["message"].as_str().expect("a message").contains("connect_timeout_ms (300 ms)"), "{document}");
    site.server.release();
}

#[test]
fn the_time_of_a_log_in_is_that_of_its_call() {
    const LOG_IN_MS: u64 = 2_000;
    const TIMEOUT_MS: u64 = 3_000;
    let site = http(json!({ "timeout_ms": TIMEOUT_MS }));
    let whole = token_answer(FIRST);
    let half = whole.len().div_ceil(2);
    site.scripts([
        Script::request().then(Step::Pieces(whole, half, Duration::from_millis(LOG_IN_MS))),
        Script::made().then(Step::AwaitRelease),
    ]);
    let document = site.fails(By::Add, "A1", TIMEOUT, UNKNOWN, 1);
    site.server.release();
    let elapsed = document["elapsed_ms"].as_u64().expect("a number");
    assert!((TIMEOUT_MS..TIMEOUT_MS + LOG_IN_MS).contains(&elapsed), "{document}");
    site.server.settle(0).unwrap();
}

#[test]
fn what_may_pass_is_tried_again_and_what_will_not_is_not() {
    for (first, code) in [
        (Script::request().reset(), BROKEN),
        (refuses(503), BUSY),
        (refuses(429), BUSY),
        (Script::request().send(head("429 No", &["Retry-After: 0", "Content-Length: 0"])), BUSY),
    ] {
        // Once, and then it goes on.
        let site = http(json!({ "retries": 1 }));
        site.scripts([first.clone(), logs_in(FIRST), Script::served()]);
        site.makes(By::Add, "A1");
        assert_eq!(trace(&site.server), ["log-in", "log-in", "A1 token-one"]);
        // Or as often as it may.
        let site = logged_in(Scheme::Http, json!({ "retries": 2 }));
        let from = site.server.connections();
        site.server.next(refuses(401));
        (0..3).for_each(|_| site.server.next(first.clone()));
        site.fails(By::Add, "A1", code, NOT_CREATED, 4);
        assert_eq!(trace_from(&site.server, from), ["A1 token-one", "log-in", "log-in", "log-in"]);
    }
    for (script, code) in [
        (refuses(403), FORBIDDEN),
        (refuses(400), FORBIDDEN),
        (refuses(404), NOT_FOUND),
        (refuses(500), SERVER_ERROR),
        (refuses(302), BAD_RESPONSE),
        (Script::request().send(answer("200 OK", Framing::Length, b"{}")), FORBIDDEN),
    ] {
        let site = http(json!({ "retries": 10, "retry_503": true, "server_dedupes": true }));
        site.server.next(script);
        site.fails(By::Add, "A1", code, NOT_CREATED, 1);
        assert_eq!(trace(&site.server), ["log-in"]);
    }
}

#[test]
fn a_pause_that_a_log_in_asks_for_and_the_deadline_does_not_allow_is_not_begun() {
    let site = http(json!({ "retries": 10 }));
    site.server.next(Script::request().send(head("503 No", &["Retry-After: 3600", "Content-Length: 0"])));
    let document = site.fails(By::Add, "A1", BUSY, NOT_CREATED, 1);
    assert_eq!(document["retry_after_ms"], 3_600_000);
}

#[test]
fn being_sent_again_with_another_token_is_none_of_the_retries() {
    // In any order, one failure may pass, and a second one may not.
    let busy = || refuses(429);
    let site = logged_in(Scheme::Http, json!({ "retries": 1 }));
    let from = site.server.connections();
    site.scripts([refuses(401), logs_in(SECOND), busy(), Script::served()]);
    site.makes(By::Add, "A1");
    site.scripts([busy(), refuses(401), logs_in(FIRST), Script::served()]);
    site.makes(By::Add, "A2");
    site.scripts([busy(), refuses(401), logs_in(SECOND), busy()]);
    site.fails(By::Add, "A3", BUSY, NOT_CREATED, 3);
    let wanted = [
        "A1 token-one",
        "log-in",
        "A1 token-two",
        "A1 token-two",
        "A2 token-two",
        "A2 token-two",
        "log-in",
        "A2 token-one",
        "A3 token-one",
        "A3 token-one",
        "log-in",
        "A3 token-two",
    ];
    assert_eq!(trace_from(&site.server, from), wanted);
    site.each_made_once(3);
}

#[test]
fn what_was_left_open_before_a_refusal_stays_open() {
    let dedupes = json!({ "retries": 1, "server_dedupes": true });
    let lost = || Script::made().reset();
    let known = || Script::request().then(Step::MakeOnce).then(Step::Answer(success));
    for by in By::BOTH {
        for (scripts, code, attempts) in [
            (vec![refuses(403)], FORBIDDEN, 3),
            (vec![refuses(500)], SERVER_ERROR, 3),
            (vec![Script::request().reset()], BROKEN, 3),
            (vec![Script::request().send(answer("200 OK", Framing::Length, b"{}"))], FORBIDDEN, 3),
            (vec![logs_in(SECOND), refuses(403)], FORBIDDEN, 3),
            (vec![logs_in(SECOND), refuses(400)], arctos_tests::api::REJECTED, 3),
        ] {
            let site = logged_in(Scheme::Http, dedupes.clone());
            site.scripts([lost(), refuses(401)].into_iter().chain(scripts));
            let document = site.fails(by, "A1", code, UNKNOWN, attempts);
            assert!(document["message"].as_str().expect("a message").contains("earlier try"), "{document}");
            site.each_made_once(2);
        }
        let site = logged_in(Scheme::Http, dedupes.clone());
        site.scripts([lost(), refuses(401), logs_in(SECOND), known()]);
        site.makes(by, "A1");
        site.each_made_once(2);
    }
}

#[test]
fn many_that_are_refused_at_once_log_in_once() {
    for scheme in Scheme::ALL {
        let site = logged_in(scheme, json!({}));
        let from = site.server.connections();
        for _ in 0..THREADS {
            site.server.next(Script::request().then(Step::AwaitRelease).send(refusal(401)));
        }
        site.server.next(logs_in(SECOND));
        site.server.always(Script::served());
        let numbers: Vec<String> = std::thread::scope(|scope| {
            let calls = site.all_at_once(scope);
            site.server.await_requests(from + THREADS).unwrap();
            site.server.release();
            let end = |(number, call): (String, ScopedJoinHandle<Reply>)| {
                let reply = call.join().expect("no panic");
                made(&number, &reply);
                number
            };
            calls.into_iter().map(end).collect()
        });
        let mut trace = trace_from(&site.server, from);
        assert_eq!(trace.remove(THREADS), "log-in", "after all of the refusals: {trace:?}");
        trace.sort();
        let mut wanted: Vec<String> =
            numbers.iter().flat_map(|number| [FIRST, SECOND].map(|token| format!("{number} {token}"))).collect();
        wanted.sort();
        assert_eq!(trace, wanted, "{scheme:?}");
        site.each_made_once(THREADS + 1);
    }
}

#[test]
fn many_first_calls_at_once_log_in_once() {
    for scheme in Scheme::ALL {
        let site = over(scheme, json!({}));
        site.server.next(Script::request().then(Step::AwaitRelease).send(token_answer(FIRST)));
        site.server.always(Script::served());
        std::thread::scope(|scope| {
            let calls = site.all_at_once(scope);
            site.server.await_requests(1).unwrap();
            // Nothing tells that a call waits for the log-in of another; one that would log in by itself has done so
            // by then.
            sleep(Duration::from_millis(300));
            assert_eq!(site.server.connections(), 1);
            site.server.release();
            all_made(calls.into_iter().map(|(_, call)| call));
        });
        let trace = trace(&site.server);
        assert_eq!((trace.len(), &*trace[0]), (THREADS + 1, "log-in"));
        assert!(trace[1..].iter().all(|one| one.ends_with(" token-one")), "{trace:?}");
        site.each_made_once(THREADS);
    }
}

#[test]
fn a_log_in_that_is_refused_is_refused_for_all_that_waited() {
    for script in [
        refuses(403),
        refuses(500),
        Script::request().send(answer("200 OK", Framing::Length, br#"{"status":0,"message":"locked"}"#)),
    ] {
        let site = logged_in(Scheme::Http, json!({ "retries": 3 }));
        let from = site.server.connections();
        for _ in 0..THREADS {
            site.server.next(Script::request().then(Step::AwaitRelease).send(refusal(403)));
        }
        // One more log-in would be a connection that the server does not expect.
        site.server.next(script);
        std::thread::scope(|scope| {
            let calls = site.all_at_once(scope);
            site.server.await_requests(from + THREADS).unwrap();
            site.server.release();
            let mut codes = Vec::new();
            for (number, call) in calls {
                let reply = call.join().expect("no panic");
                assert_eq!(reply.outcome, NOT_CREATED, "{reply:?}");
                let document = reply.json();
                let message = document["message"].as_str().expect("a message");
                assert!(message.starts_with("the log-in failed: "), "{document}");
                // What is said of a call is said of this one.
                assert!(document.get("out_task_num").is_none_or(|said| *said == *number), "{document}");
                assert_eq!(document["attempts"], 2, "{document}");
                codes.push((reply.code, document["http_status"].clone(), document["server_message"].clone()));
            }
            codes.dedup();
            assert_eq!(codes.len(), 1, "{codes:?}");
        });
        assert_eq!(site.server.connections(), from + THREADS + 1);
        site.each_made_once(1);
        // Whoever comes later asks again.
        let from = site.server.connections();
        site.scripts([refuses(403), logs_in(SECOND), Script::served()]);
        site.makes(By::Add, "A1");
        assert_eq!(trace_from(&site.server, from), ["A1 token-one", "log-in", "A1 token-two"]);
    }
}

/// A call that logs in first, `L`, whose log-in hangs, and four more that wait for it, when they do.
fn leader_and_followers<T>(
    site: &Site,
    leader: Value,
    followers: Value,
    then: impl FnOnce(ScopedJoinHandle<Reply>, Vec<ScopedJoinHandle<Reply>>) -> T,
) -> T {
    site.server.next(Script::request().then(Step::AwaitRelease).send(token_answer(FIRST)));
    let started = Barrier::new(5);
    std::thread::scope(|scope| {
        let leader = scope.spawn(move || site.call_with(By::Add, "L", &leader));
        site.server.await_requests(1).unwrap();
        let (started, followers) = (&started, &followers);
        let follower = |index: usize| {
            scope.spawn(move || {
                started.wait();
                site.call_with(By::BOTH[index % 2], &format!("F{index}"), followers)
            })
        };
        let calls: Vec<_> = (0..4).map(follower).collect();
        started.wait();
        // Nothing tells that they wait. One that has not come so far makes the test weaker, and not wrong.
        sleep(Duration::from_millis(200));
        assert_eq!(site.server.connections(), 1, "they wait");
        then(leader, calls)
    })
}

#[track_caller]
fn all_made<'scope>(calls: impl IntoIterator<Item = ScopedJoinHandle<'scope, Reply>>) {
    for call in calls {
        let reply = call.join().expect("no panic");
        assert_eq!((reply.code, reply.outcome), (OK, CREATED), "{reply:?}");
    }
}

/// That after a log-in that came to nothing there was one other, whose token all four calls went with.
fn another_has_logged_in(site: &Site) {
    site.server.release();
    let trace = trace(&site.server);
    assert_eq!(trace[..2], ["log-in", "log-in"]);
    assert!(trace.len() == 6 && trace[2..].iter().all(|one| one.ends_with(" token-two")), "{trace:?}");
    site.each_made_once(4);
}

#[test]
fn when_the_one_that_logs_in_runs_out_of_time_another_one_goes() {
    let site = http(json!({}));
    leader_and_followers(&site, json!({ "timeout_ms": 4_000 }), json!({}), |leader, calls| {
        site.server.next(logs_in(SECOND));
        site.server.always(Script::served());
        let reply = leader.join().expect("no panic");
        assert_eq!((reply.code, reply.outcome), (TIMEOUT, NOT_CREATED), "{reply:?}");
        all_made(calls);
    });
    another_has_logged_in(&site);
}

#[test]
fn when_the_one_that_logs_in_is_cancelled_another_one_goes() {
    let site = http(json!({}));
    leader_and_followers(&site, json!({ "call_id": "lead" }), json!({ "call_id": "follow" }), |leader, calls| {
        site.server.next(logs_in(SECOND));
        site.server.always(Script::served());
        assert_eq!(site.client().cancel_call("lead"), OK);
        let reply = leader.join().expect("no panic");
        assert_eq!((reply.code, reply.outcome), (CANCELLED, NOT_CREATED), "{reply:?}");
        all_made(calls);
    });
    another_has_logged_in(&site);
}

#[test]
fn those_that_wait_for_a_log_in_have_a_deadline_and_can_be_cancelled() {
    let site = http(json!({}));
    leader_and_followers(&site, json!({}), json!({ "timeout_ms": 600 }), |leader, calls| {
        for call in calls {
            let reply = call.join().expect("no panic");
            assert_eq!((reply.code, reply.outcome), (TIMEOUT, NOT_CREATED), "{reply:?}");
            assert!(reply.text().contains("log-in of another call within timeout_ms (600 ms)"), "{reply:?}");
            assert_eq!(reply.json()["attempts"], 1);
        }
        site.server.next(Script::served());
        site.server.release();
        assert_eq!(leader.join().expect("no panic").code, OK);
    });
    assert_eq!(trace(&site.server), ["log-in", "L token-one"]);

    let site = http(json!({}));
    leader_and_followers(&site, json!({}), json!({ "call_id": "follow" }), |leader, calls| {
        assert_eq!(site.client().cancel_call("follow"), OK);
        for call in calls {
            let reply = call.join().expect("no panic");
            assert_eq!((reply.code, reply.outcome), (CANCELLED, NOT_CREATED), "{reply:?}");
        }
        site.server.next(Script::served());
        site.server.release();
        assert_eq!(leader.join().expect("no panic").code, OK);
    });

    let site = http(json!({}));
    leader_and_followers(&site, json!({}), json!({}), |leader, calls| {
        assert_eq!(site.client().cancel(), OK);
        for call in calls.into_iter().chain([leader]) {
            let reply = call.join().expect("no panic");
            assert_eq!((reply.code, reply.outcome), (CANCELLED, NOT_CREATED), "{reply:?}");
        }
    });
    site.server.release();
    site.server.settle(0).unwrap();
    assert_eq!(site.server.connections(), 1);
    // It is over: the next call logs in.
    site.scripts([logs_in(SECOND), Script::served()]);
    site.makes(By::Add, "A1");
}

#[test]
fn a_log_in_that_breaks_is_tried_again_once_by_all_that_waited() {
    let site = http(json!({ "retries": 2 }));
    site.server.next(Script::request().then(Step::AwaitRelease).reset());
    std::thread::scope(|scope| {
        let calls = site.all_at_once(scope);
        site.server.await_requests(1).unwrap();
        sleep(Duration::from_millis(200));
        site.server.next(logs_in(SECOND));
        site.server.always(Script::served());
        site.server.release();
        all_made(calls.into_iter().map(|(_, call)| call));
    });
    let trace = trace(&site.server);
    assert_eq!((trace.len(), &trace[..2]), (THREADS + 2, &["log-in".to_owned(), "log-in".to_owned()][..]));
    site.each_made_once(THREADS);
}

#[test]
fn a_client_that_logs_in_takes_no_token() {
    for site in [http(json!({})), logged_in(Scheme::Http, json!({}))] {
        let from = site.server.connections();
        for token in ["another-token", "", "a\nb"] {
            let reply = site.client().set_token(token);
            assert_eq!(reply.code, BAD_ARGUMENT, "{reply:?}");
            assert!(reply.text().contains("login") && !reply.text().contains("another-token"), "{reply:?}");
        }
        if from == 0 {
            site.server.next(logs_in(FIRST));
        }
        site.server.next(Script::served());
        site.makes(By::Add, "A1");
        assert_eq!(trace_from(&site.server, from).last().map(String::as_str), Some("A1 token-one"));
    }
}

#[test]
fn what_is_wrong_with_the_call_itself_needs_no_log_in() {
    let site = http(json!({}));
    assert_eq!(site.client().add("{}").code, arctos_tests::api::BAD_TASK);
    assert_eq!(site.client().call("no path", "{}").code, BAD_ARGUMENT);
    assert_eq!(site.client().call(OTHER, "{").code, BAD_ARGUMENT);
    assert_eq!(site.client().add_with(&task("A1"), "{\"timeout_ms\":0}").code, BAD_ARGUMENT);
    assert_eq!(site.server.connections(), 0);
}

#[test]
fn a_fork_in_the_middle_of_anothers_log_in() {
    let host = Host::new("fork");
    for version in [None, Some(Version::Tls12), Some(Version::Tls13)] {
        for refused in [false, true] {
            let authority = Authority::new();
            let server = Server::start("127.0.0.1", version.map(|version| authority.server(Identity::right(version))));
            let config =
                if version.is_some() { config_tls(&server.base_url(), &authority) } else { config(&server.base_url()) };
            // The one of the parent hangs, then the child has one of its own, and makes its call.
            if refused {
                server.next(logs_in("token-zero"));
                server.next(refuses(401));
            }
            server.next(Script::request().then(Step::AwaitRelease).send(token_answer(FIRST)));
            if refused {
                server.next(refuses(401));
            }
            for script in [logs_in(SECOND), Script::served(), Script::served()] {
                server.next(script);
            }
            let mut parent = Talker::of(host.command().args(["beside", "wait", &logging_in(config).to_string()]));
            parent.says("calling");
            server.await_requests(if refused { 3 } else { 1 }).unwrap();
            parent.go_on();
            parent.says("forked");
            server.release();
            parent.go_on();
            parent.ends();
            let wanted: &[&str] = if refused {
                let first = ["log-in", "A0 token-zero", "log-in"];
                &[&first[..], &["C0 token-zero", "log-in", "C0 token-two", "A0 token-one"]].concat()
            } else {
                &["log-in", "log-in", "C0 token-two", "A0 token-one"]
            };
            assert_eq!(trace(&server), wanted);
            assert_eq!(["A0", "C0"].map(|number| server.ledger().made(number)), [1, 1]);
        }
    }
}

/// The lines that came.
type Lines = Mutex<Vec<String>>;

unsafe extern "C" fn collect(user: *mut c_void, _level: i32, line: *const c_char) {
    // SAFETY: `user` are lines that live until the log is taken back; a line is a text.
    let (lines, line) = unsafe { (&*user.cast::<Lines>(), CStr::from_ptr(line)) };
    lines.lock().expect("no panic under it").push(line.to_str().expect("a line is UTF-8").to_owned());
}

#[test]
fn the_log_tells_of_log_ins_and_of_no_secret() {
    let lines = Lines::default();
    // SAFETY: the lines live until the log is taken back below, or longer where an assertion fails: they are leaked.
    let lines: &'static Lines = Box::leak(Box::new(lines));
    unsafe { (arctos().set_log)(Some(collect), ptr::from_ref(lines).cast_mut().cast(), 4) };
    let site = http(json!({}));
    let options = |id: &str| json!({ "call_id": id });
    site.scripts([logs_in(FIRST), Script::served(), refuses(401), logs_in(SECOND), Script::served()]);
    for id in ["log-first", "log-again"] {
        assert_eq!(site.call_with(By::Add, id, &options(id)).code, OK);
    }
    site.scripts([refuses(403), refuses(404)]);
    assert_eq!(site.call_with(By::Add, "log-failed", &options("log-failed")).code, NOT_FOUND);
    site.scripts([refuses(403), Script::request().reset()]);
    assert_eq!(site.call_with(By::Add, "log-broken", &options("log-broken")).code, BROKEN);
    unsafe { (arctos().set_log)(None, ptr::null_mut(), 0) };

    // Other tests of this process have told theirs, too.
    let lines = lines.lock().expect("no panic under it").clone();
    let of = |id: &str| -> Vec<Value> {
        let all = lines.iter().map(|line| serde_json::from_str::<Value>(line).expect("a line is JSON"));
        all.filter(|line| line["call_id"] == id).collect()
    };
    let short = |line: &Value| {
        let mut text =
            format!("{} {}", line["level"].as_str().expect("a level"), line["event"].as_str().expect("an event"));
        for key in ["attempt", "http_status", "name", "outcome"] {
            if let Some(value) = line.get(key) {
                text.push_str(&format!(" {}", value.to_string().trim_matches('"')));
            }
        }
        text
    };
    let events = |id: &str| of(id).iter().map(short).collect::<Vec<_>>();
    let attempt = |number: u32| [format!("detail attempt {number}"), "detail connect".to_owned()];
    let log_in = |end: &str| ["detail login", "detail connect", end].map(str::to_owned);
    let made = || ["information answer 200 ARCTOS_OK created".to_owned()];
    let refused = |status: u16| {
        [
            format!("information answer {status} ARCTOS_FORBIDDEN not_created"),
            "warning refused 1 ARCTOS_FORBIDDEN not_created".to_owned(),
        ]
    };
    let ok = "information answer 200 ARCTOS_OK";
    assert_eq!(events("log-first"), [&log_in(ok)[..], &attempt(1), &made()].concat());
    assert_eq!(events("log-again"), [&attempt(1)[..], &refused(401), &log_in(ok), &attempt(2), &made()].concat());
    let end = ["error failure 2 ARCTOS_NOT_FOUND not_created".to_owned()];
    let log_in_404 = log_in("information answer 404 ARCTOS_NOT_FOUND");
    assert_eq!(events("log-failed"), [&attempt(1)[..], &refused(403), &log_in_404, &end].concat());
    // Nothing was answered.
    let end = ["error failure 2 ARCTOS_BROKEN not_created".to_owned()];
    assert_eq!(events("log-broken"), [&attempt(1)[..], &refused(403), &log_in("")[..2], &end].concat());
    for id in ["log-first", "log-again", "log-failed", "log-broken"] {
        let mut last = 0;
        for line in of(id) {
            assert_eq!(line["out_task_num"], id, "{line}");
            assert_eq!(line["host"], site.server.address().to_string(), "{line}");
            let elapsed = line["elapsed_ms"].as_u64().expect("a number");
            assert!(elapsed >= last, "since the call began: {line}");
            last = elapsed;
        }
    }
    for line in &lines {
        for secret in [MARKER, FIRST, SECOND, "branch-943"] {
            assert!(!line.contains(secret), "{secret} in {line}");
        }
    }
}

#[test]
fn the_configuration_in_force_shows_neither_body_nor_query_of_a_log_in() {
    let config = logging_in(config("http://127.0.0.1:1"));
    let (client, reply) = arctos_tests::api::client_new(&config.to_string());
    assert!(client.is_some(), "{reply:?}");
    let shown =
        r#""login":{"path":"/api/auth/login?***","body":"***","token_pointer":"/info/token","refresh_on":[401,403]}"#;
    assert!(reply.text().contains(shown), "{}", reply.text());
    assert!(!reply.text().contains(MARKER) && !reply.text().contains("\"token\":"), "{}", reply.text());
}
