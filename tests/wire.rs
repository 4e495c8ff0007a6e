//! One call is one request, and what stands in it is what the caller gave.

use std::ffi::CStr;
use std::process::Command;

use arctos_tests::api::{Owned, arctos, task};
use arctos_tests::expected::MADE;
use arctos_tests::http::{Framing, Request, answer, success_body};
use arctos_tests::server::{Script, Server};
use arctos_tests::stage::{Calls, Stage, TOKEN, config, config_tls};
use arctos_tests::tls::{Authority, Identity, Version};
use serde_json::json;

fn made(number: &str) -> Script {
    Script::made().send(answer("200 OK", Framing::Length, success_body(number).as_bytes())).close()
}

/// The request that a task became.
#[track_caller]
fn sent(stage: &Stage, task: impl FnOnce(&str) -> String) -> Request {
    let number = stage.number();
    let done = stage.run_task("a task", MADE, &number, &task(&number), made(&number));
    assert_eq!(done.reply.text(), success_body(&number));
    done.request().clone()
}

#[track_caller]
fn body(stage: &Stage, task: impl FnOnce(&str) -> String) -> String {
    String::from_utf8(sent(stage, task).body).expect("UTF-8")
}

#[test]
fn the_path_stands_below_the_base_url() {
    for (base, line) in [
        ("", "POST /api/task/do_add HTTP/1.1"),
        ("/", "POST /api/task/do_add HTTP/1.1"),
        ("/branch/943", "POST /branch/943/api/task/do_add HTTP/1.1"),
        ("/branch/943/", "POST /branch/943/api/task/do_add HTTP/1.1"),
    ] {
        let server = Server::plain();
        let client = Owned::new(&config(&(server.base_url() + base)));
        let stage = Stage::of(server, client);
        assert_eq!(sent(&stage, task).line, line, "{base:?}");
    }
}

#[test]
fn the_head_says_what_it_must_and_no_more() {
    for stage in [Stage::http(), Stage::https(Version::Tls12), Stage::https(Version::Tls13)] {
        let request = sent(&stage, task);
        let authorization = format!("Bearer {TOKEN}");
        let length = request.body.len().to_string();
        for (name, value) in [
            ("Host", &*stage.server.address().to_string()),
            ("Authorization", &authorization),
            ("Content-Type", "application/json"),
            ("Content-Length", &length),
            ("Connection", "close"),
        ] {
            assert_eq!(request.header(name), Some(value), "{name}");
        }
        for name in ["Accept-Encoding", "Expect", "Transfer-Encoding", "TE", "Upgrade", "Cookie", "Referer"] {
            assert_eq!(request.header(name), None, "{name}");
        }
        for (name, _) in &request.headers {
            assert_eq!(request.all(name).len(), 1, "{name}");
        }
    }
}

#[test]
fn a_request_says_close_only_where_no_connection_is_kept() {
    let kept = || json!({ "idle_timeout_ms": 60_000 });
    let https = |version| Stage::https_with(Identity::right(version), kept());
    for stage in [Stage::http_with(kept()), https(Version::Tls12), https(Version::Tls13)] {
        stage.server.always(Script::forever(Script::served()));
        let mut calls = Calls::of(stage);
        for number in ["A", "B", "C"] {
            calls.call(number, MADE);
        }
        let seen = calls.end();
        let [only] = seen.as_slice() else { panic!("{} connections", seen.len()) };
        let requests: Vec<&Request> = only.requests().collect();
        assert_eq!(requests.len(), 3);
        for request in requests {
            for name in ["Connection", "Keep-Alive"] {
                assert_eq!(request.header(name), None, "{name}");
            }
        }
    }
}

#[test]
fn the_host_header_is_that_of_the_base_url() {
    let server = Server::plain();
    let client = Owned::new(&config(&server.base_url_as("localhost")));
    let stage = Stage::of(server, client);
    let host = format!("localhost:{}", stage.server.address().port());
    assert_eq!(sent(&stage, task).header("Host"), Some(&*host));
}

#[test]
fn the_user_agent_names_the_caller_and_then_the_library() {
    // SAFETY: a static text.
    let version = unsafe { CStr::from_ptr((arctos().version)()) }.to_str().expect("a version");
    let own = format!("arctos/{version}");
    let agent = |stage: Stage| sent(&stage, task).header("User-Agent").expect("a user agent").to_owned();
    let plain = agent(Stage::http());
    assert_eq!(plain.split(' ').next(), Some(&*own), "{plain}");
    let configured = agent(Stage::http_with(json!({ "user_agent": "branch-terminal/4.2" })));
    assert_eq!(configured, format!("branch-terminal/4.2 {plain}"));
}

#[test]
fn the_body_goes_out_byte_for_byte() {
    let stage = Stage::http();
    for (what, task) in [
        (
            "blanks and order",
            r#"{ "video" : "true",  "room_type":	"normal", "task_time"   :"1703141398",
  "branch_code": "943 B", "task_notify"
  :true, "task_type" :"custom", "out_task_num": "NUMBER" ,"business_id":15 }"#,
        ),
        (
            "numbers of any length, and as they are written",
            r#"{"business_id":12345678901234567890,"out_task_num":"NUMBER","task_type":"normal","task_notify":false,"task_time":"1703141398","branch_code":98765432109876543210,"room_type":"normal","video":true,"weight":1.50,"small":-0,"big":1E+400,"exact":444e44}"#,
        ),
        (
            "escapes",
            r#"{"business_id":15,"out_task_num":"NUMBER","task_type":"normal","task_notify":false,"task_time":"1703141398","branch_code":943,"room_type":"normal","video":true,"task_remark":"\u0041\/\u00e9é\"\\\n\ud83d\ude00😀 預約"}"#,
        ),
        (
            "undocumented fields",
            r#"{"zone":null,"business_id":15,"out_task_num":"NUMBER","nested":{"b":[1, 2,{"a":"b","task_time":1}],"a":{}},"task_type":"normal","task_notify":false,"task_time":"1703141398","branch_code":943,"room_type":"normal","video":true,"":"","tasktime":5}"#,
        ),
        (
            "both spellings of the remark, when they are equal",
            r#"{"business_id":15,"out_task_num":"NUMBER","task_type":"normal","task_notify":false,"task_time":"1703141398","task_remark":"","task_remarks":"","branch_code":943,"business_code":2,"out_task_type":"","room_type":"normal","video":"false"}"#,
        ),
        (
            "no time for a real-time room",
            r#"{"business_id":15,"out_task_num":"NUMBER","task_type":"normal","task_notify":false,"branch_code":943,"room_type":"realtime","video":true}"#,
        ),
    ] {
        let mut given = String::new();
        let body = body(&stage, |number| {
            given = task.replace("NUMBER", number);
            given.clone()
        });
        assert_eq!(body, given, "{what}");
    }
}

#[test]
fn a_number_with_escapes_goes_out_as_it_was_given() {
    let stage = Stage::http();
    // The number as the server reads it is BR-A1.
    let given = task(r"BR-\u00411");
    let done = stage.run_task("an escaped number", MADE, "BR-A1", &given, made("BR-A1"));
    assert_eq!(String::from_utf8(done.request().body.clone()).expect("UTF-8"), given);
}

#[test]
fn a_time_is_converted_and_nothing_else_is_touched() {
    let stage = Stage::http();
    for (time, seconds) in [
        ("1703141398", "1703141398"),
        ("1", "1"),
        (r#""2023-12-21T06:49:58Z""#, "1703141398"),
        (r#""2023-12-21T14:49:58+08:00""#, "1703141398"),
        (r#""2023-12-21T14:49:58.999+08:00""#, "1703141398"),
        (r#""2016-12-31T23:59:60Z""#, "1483228800"),
        (r#""1970-01-01T00:00:00Z""#, "0"),
    ] {
        let mut expected = String::new();
        let body = body(&stage, |number| {
            let task = task(number).replace("\"task_notify\":false", "\"a\" : [ 1.0 ]  ,\"task_notify\": true");
            expected = task.replace("\"1703141398\"", &format!("\"{seconds}\""));
            task.replace("\"1703141398\"", time)
        });
        assert_eq!(body, expected, "{time}");
    }
}

#[test]
fn a_missing_task_notify_is_appended() {
    let stage = Stage::http();
    for close in ["}", " }", "\n}"] {
        let mut given = String::new();
        let body = body(&stage, |number| {
            given = task(number).replace("\"task_notify\":false,", "");
            given.truncate(given.len() - 1);
            given.push_str(close);
            given.clone()
        });
        let appended = ",\"task_notify\":false";
        assert_eq!(body.matches(appended).count(), 1, "{body}");
        let at = body.find(appended).expect("it stands there");
        assert_eq!(body.replace(appended, ""), given);
        assert!(body[at + appended.len()..].trim_end() == "}", "not at the end: {body}");
    }
}

#[test]
fn blanks_around_the_task_do_no_harm() {
    let stage = Stage::http();
    let mut given = String::new();
    let body = body(&stage, |number| {
        given = task(number);
        format!(" \r\n\t{given}\n ")
    });
    assert_eq!(body.trim(), given);
}

#[test]
fn head_and_body_arrive_in_one_segment() {
    let stage = Stage::http();
    for _ in 0..20 {
        let number = stage.number();
        let done = stage.run_task("a task", MADE, &number, &task(&number), made(&number));
        // Counted by the kernel of the server's side, whenever the server came to read.
        assert_eq!(done.only().exchanges[0].segments, 1);
    }
}

#[test]
fn a_long_body_arrives_whole() {
    for stage in [Stage::http(), Stage::https(Version::Tls13)] {
        let remark = "預約 ".repeat(100_000);
        let mut given = String::new();
        let body = body(&stage, |number| {
            given = task(number).replace("\"video\"", &format!("\"task_remark\":\"{remark}\",\"video\""));
            given.clone()
        });
        assert!(body == given, "the body of {} bytes is another", given.len());
    }
}

#[test]
fn a_new_token_is_used_by_the_next_call() {
    let stage = Stage::http();
    assert_eq!(sent(&stage, task).header("Authorization"), Some(&*format!("Bearer {TOKEN}")));
    assert_eq!(stage.client.set_token("another-token").code, 0);
    assert_eq!(sent(&stage, task).header("Authorization"), Some("Bearer another-token"));
}

/// Where the child of the test below finds its configuration.
const CONFIG: &str = "ARCTOS_TEST_CHILD_CONFIG";

#[test]
fn proxies_of_the_environment_are_not_used() {
    if let Ok(config) = std::env::var(CONFIG) {
        let reply = Owned::new(&serde_json::from_str(&config).expect("JSON")).add(&task("CHILD"));
        assert_eq!(reply.code, 0, "{reply:?}");
        return;
    }
    let authority = Authority::new();
    let identity = Identity::right(Version::Tls13);
    for tls in [None, Some(authority.server(identity))] {
        let secure = tls.is_some();
        let server = Server::start("127.0.0.1", tls);
        let proxy = Server::plain();
        server.next(made("CHILD"));
        let config = match secure {
            true => config_tls(&server.base_url(), &authority),
            false => config(&server.base_url()),
        };
        let mut child = Command::new(std::env::current_exe().expect("this test"));
        child.args(["--exact", "proxies_of_the_environment_are_not_used", "--nocapture"]);
        child.env(CONFIG, config.to_string());
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            child.env(name, proxy.base_url());
            child.env(name.to_lowercase(), proxy.base_url());
        }
        for name in ["NO_PROXY", "no_proxy"] {
            child.env_remove(name);
        }
        let output = child.output().expect("the child runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        server.settle(0).expect("the connection has ended");
        assert_eq!(server.ledger().made("CHILD"), 1);
        assert_eq!(proxy.connections(), 0);
    }
}
