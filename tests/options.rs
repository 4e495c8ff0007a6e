//! The options of one call: they hold for that call alone, and what is wrong with them is refused before anything is
//! sent.

use std::ffi::CString;
use std::ptr::null;
use std::time::{Duration, Instant};

use arctos_tests::api::*;
use arctos_tests::expected::{FAILED_NOT_CREATED, MADE, TIMEOUT_NOT_CREATED, TIMEOUT_UNKNOWN};
use arctos_tests::http::{Framing, answer, success_body};
use arctos_tests::server::{Script, Step};
use arctos_tests::stage::{Stage, TOKEN, config, with};
use arctos_tests::tls::{Identity, Version};
use serde_json::json;

/// Options as their bytes.
fn add_with_bytes(client: &Owned, task: &str, options: &[u8]) -> Reply {
    let (task, options) = (c(task), CString::new(options).expect("no NUL in a test's text"));
    // SAFETY: texts that live through the call.
    call(|answer| unsafe { (arctos().task_add_with)(client.0, task.as_ptr(), options.as_ptr(), answer) })
}

/// No options at all.
fn add_with_null(client: &Owned, task: &str) -> Reply {
    let task = c(task);
    // SAFETY: a text that lives through the call, and a NULL that is allowed.
    call(|answer| unsafe { (arctos().task_add_with)(client.0, task.as_ptr(), null(), answer) })
}

/// A server that makes the appointment and takes so long for the answer.
fn slow(number: &str, pause: Duration) -> Script {
    let whole = answer("200 OK", Framing::Length, success_body(number).as_bytes());
    let half = whole.len() / 2;
    Script::made().then(Step::Pieces(whole[..half].to_vec(), half, pause)).send(&whole[half..]).close()
}

/// A server that makes the appointment and never answers.
fn mute() -> Script {
    Script::made().then(Step::AwaitRelease)
}

/// A client without a token: its calls end before anything is sent, after the options have been read.
fn without_token(stage: &Stage) -> Owned {
    let mut config = config(&stage.server.base_url());
    config.as_object_mut().expect("an object").remove("token");
    Owned::new(&config)
}

#[test]
fn a_shorter_timeout_ends_the_call_earlier() {
    let limit = Duration::from_millis(600);
    let options = r#"{"timeout_ms":600}"#;
    let stage = Stage::http();
    let number = stage.number();
    let started = Instant::now();
    let done = stage
        .attempt_call("answer", TIMEOUT_UNKNOWN, &number, mute(), |client| client.add_with(&task(&number), options))
        .unwrap_or_else(|wrong| panic!("{wrong}"));
    // The client's own is 50 s.
    assert!((limit..Duration::from_secs(25)).contains(&started.elapsed()), "{:?}", started.elapsed());
    let message = done.reply.json()["message"].to_string();
    assert!(message.contains("timeout_ms (600 ms)"), "{message}");

    // It ends a connection that is still being opened, too, though that has a longer limit of its own.
    let stage = Stage::https_with(Identity::right(Version::Tls13), json!({}));
    let number = stage.number();
    let started = Instant::now();
    let script = Script::silent().then(Step::AwaitRelease);
    let call = |client: &Owned| client.add_with(&task(&number), options);
    let done = stage.attempt_call("handshake", TIMEOUT_NOT_CREATED, &number, script, call);
    assert_eq!(done.unwrap_or_else(|wrong| panic!("{wrong}")).only().request_bytes(), 0);
    assert!((limit..Duration::from_secs(25)).contains(&started.elapsed()), "{:?}", started.elapsed());
}

#[test]
fn a_longer_timeout_waits_longer_and_only_in_its_call() {
    let stage = Stage::http_with(json!({ "timeout_ms": 600 }));
    let pause = Duration::from_millis(1800);
    for (case, options) in [("before", None), ("with", Some(r#"{"timeout_ms":50000}"#)), ("after", None)] {
        let number = stage.number();
        let expected = if options.is_some() { MADE } else { TIMEOUT_UNKNOWN };
        let script = if options.is_some() { slow(&number, pause) } else { mute() };
        let call = |client: &Owned| match options {
            Some(options) => client.add_with(&task(&number), options),
            None => client.add(&task(&number)),
        };
        let done = stage.attempt_call(case, expected, &number, script, call).unwrap_or_else(|wrong| panic!("{wrong}"));
        match options {
            // The answer is the server's, byte for byte, as without options.
            Some(_) => assert_eq!(done.reply.text(), success_body(&number)),
            None => assert!(done.reply.text().contains("timeout_ms (600 ms)"), "{:?}", done.reply),
        }
        assert_eq!(stage.server.ledger().made(&number), 1, "{case}");
    }
}

#[test]
fn without_options_it_is_the_same_call() {
    let stage = Stage::http();
    let number = stage.number();
    let task = task(&number);
    // Nothing is made, so that one number will do for all three.
    let run = |case: &str, call: &dyn Fn(&Owned) -> Reply| {
        let body = br#"{"status":0,"message":"no such branch"}"#;
        let script = Script::request().send(answer("200 OK", Framing::Length, body)).close();
        let done = stage.attempt_call(case, FAILED_NOT_CREATED, &number, script, call);
        let done = done.unwrap_or_else(|wrong| panic!("{wrong}"));
        let mut document = done.reply.json();
        for key in ["call_id", "elapsed_ms", "time"] {
            assert!(document.as_object_mut().expect("an object").remove(key).is_some(), "{case}: {key}");
        }
        (done.only().exchanges[0].plain.clone(), document)
    };
    let plain = run("task_add", &|client| client.add(&task));
    assert_eq!(run("NULL", &|client| add_with_null(client, &task)), plain);
    for options in ["{}", " {\n} ", r#"{"call_id":"desk-7","timeout_ms":40000}"#] {
        // Options are no part of what goes out.
        assert_eq!(run(options, &|client| client.add_with(&task, options)), plain);
    }
}

#[test]
fn the_call_id_stands_in_every_error_document() {
    let stage = Stage::http();
    let no_token = without_token(&stage);
    let longest = "許".repeat(42) + "é";
    assert_eq!(longest.len(), 128);
    for id in ["c", "desk-7", " a \"b\" \\ / 'c' ", "許功蓋 😀", "null", &*"x".repeat(128), &*longest] {
        let options = json!({ "call_id": id }).to_string();
        let number = stage.number();

        let refused = stage.client.add_with("{}", &options);
        assert_eq!((refused.code, &refused.json()["call_id"]), (BAD_TASK, &json!(id)), "{refused:?}");
        let refused = no_token.add_with(&task(&number), &options);
        assert_eq!((refused.code, &refused.json()["call_id"]), (FORBIDDEN, &json!(id)), "{refused:?}");
        assert_eq!(stage.server.connections(), stage.server.ledger().all().len());

        let script = Script::made().reset();
        let call = |client: &Owned| client.add_with(&task(&number), &options);
        let done = stage.attempt_call(id, arctos_tests::expected::BROKEN_UNKNOWN, &number, script, call);
        let done = done.unwrap_or_else(|wrong| panic!("{wrong}"));
        assert_eq!(done.reply.json()["call_id"], id, "{:?}", done.reply);
    }
}

#[test]
fn without_a_call_id_the_library_makes_one_for_each_call() {
    let stage = Stage::http();
    let client = without_token(&stage);
    let mut ids = std::collections::BTreeSet::new();
    for options in ["{}", r#"{"timeout_ms":1}"#, r#"{"timeout_ms":3600000}"#] {
        for _ in 0..20 {
            let reply = client.add_with(&task("N"), options);
            assert_eq!((reply.code, reply.outcome), (FORBIDDEN, NOT_CREATED), "{reply:?}");
            let id = reply.json()["call_id"].as_str().expect("an id").to_owned();
            assert!((1..=128).contains(&id.len()), "{id}");
            assert!(ids.insert(id), "an id came twice: {reply:?}");
        }
    }
    assert_eq!(stage.server.connections(), 0);
}

#[test]
fn wrong_options_are_refused_and_nothing_is_sent() {
    let stage = Stage::http();
    let too_long = format!(r#"{{"call_id":"{}"}}"#, "x".repeat(129));
    let too_long_in_bytes = format!(r#"{{"call_id":"{}"}}"#, "許".repeat(43));
    for (options, fields) in [
        // Not JSON, or no object.
        ("", &["options"][..]),
        (" ", &["options"]),
        ("{", &["options"]),
        ("{}{}", &["options"]),
        ("timeout_ms=1", &["options"]),
        (r#"{"timeout_ms":1,}"#, &["options"]),
        (r#"{"timeout_ms":01}"#, &["options"]),
        ("{'timeout_ms':1}", &["options"]),
        ("\u{feff}{}", &["options"]),
        ("null", &["options"]),
        ("[]", &["options"]),
        ("600", &["options"]),
        (r#""{}""#, &["options"]),
        (r#"[{"timeout_ms":1}]"#, &["options"]),
        // Unknown keys; letters count.
        (r#"{"timeout":600}"#, &["timeout"]),
        (r#"{"Timeout_ms":600}"#, &["Timeout_ms"]),
        (r#"{"timeout_ms ":600}"#, &["timeout_ms "]),
        (r#"{"":1}"#, &[""]),
        (r#"{"connect_timeout_ms":600}"#, &["connect_timeout_ms"]),
        (r#"{"base_url":"http://127.0.0.1:1"}"#, &["base_url"]),
        // Wrong values.
        (r#"{"timeout_ms":0}"#, &["timeout_ms"]),
        (r#"{"timeout_ms":-1}"#, &["timeout_ms"]),
        (r#"{"timeout_ms":3600001}"#, &["timeout_ms"]),
        (r#"{"timeout_ms":18446744073709551617}"#, &["timeout_ms"]),
        (r#"{"timeout_ms":1.5}"#, &["timeout_ms"]),
        (r#"{"timeout_ms":"600"}"#, &["timeout_ms"]),
        (r#"{"timeout_ms":null}"#, &["timeout_ms"]),
        (r#"{"timeout_ms":true}"#, &["timeout_ms"]),
        (r#"{"timeout_ms":[600]}"#, &["timeout_ms"]),
        (r#"{"timeout_ms":{}}"#, &["timeout_ms"]),
        (r#"{"call_id":""}"#, &["call_id"]),
        (r#"{"call_id":7}"#, &["call_id"]),
        (r#"{"call_id":null}"#, &["call_id"]),
        (r#"{"call_id":false}"#, &["call_id"]),
        (r#"{"call_id":["a"]}"#, &["call_id"]),
        (r#"{"call_id":"a\nb"}"#, &["call_id"]),
        (r#"{"call_id":"\u0000"}"#, &["call_id"]),
        (r#"{"call_id":"a\u001b[31m"}"#, &["call_id"]),
        ("{\"call_id\":\"\u{7f}\"}", &["call_id"]),
        ("{\"call_id\":\"\u{85}\"}", &["call_id"]),
        (r#"{"call_id":"\ud800"}"#, &["call_id"]),
        (&too_long, &["call_id"]),
        (&too_long_in_bytes, &["call_id"]),
        // Keys that stand twice, though spelled in two ways.
        (r#"{"timeout_ms":600,"timeout_ms":600}"#, &["timeout_ms"]),
        (r#"{"call_id":"a","call\u005fid":"b"}"#, &["call_id"]),
        // Everything is told at once.
        (r#"{"timeout_ms":0,"retries":1,"call_id":""}"#, &["call_id", "retries", "timeout_ms"]),
    ] {
        let number = stage.number();
        let reply = stage.client.add_with(&task(&number), options);
        assert_eq!((reply.code, reply.outcome), (BAD_ARGUMENT, NOT_CREATED), "{options}: {reply:?}");
        assert_eq!(reply.json()["outcome"], "not_created", "{options}: {reply:?}");
        let mut named = reply.problem_fields();
        named.sort();
        assert_eq!(named, fields, "{options}: {reply:?}");
        for field in fields {
            assert!(reply.json()["message"].to_string().contains(field.trim()), "{options}: {reply:?}");
        }

        // So it is for those who want no text.
        let (task, options) = (c(&task(&number)), c(options));
        // SAFETY: texts that live through the call, and a NULL that is allowed.
        let code =
            unsafe { (arctos().task_add_with)(stage.client.0, task.as_ptr(), options.as_ptr(), std::ptr::null_mut()) };
        assert_eq!(code, BAD_ARGUMENT, "{options:?}");
    }
    assert_eq!(stage.server.connections(), 0);
    assert!(stage.server.ledger().all().is_empty());

    // The client is none the worse for it.
    let number = stage.number();
    let script = Script::made().send(answer("200 OK", Framing::Length, success_body(&number).as_bytes())).close();
    let call = |client: &Owned| client.add_with(&task(&number), r#"{"timeout_ms":50000}"#);
    stage.attempt_call("afterwards", MADE, &number, script, call).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn a_misspelled_key_is_told_its_right_name() {
    let stage = Stage::http();
    for (key, wanted) in [("timeoutms", "timeout_ms"), ("timout_ms", "timeout_ms"), ("callid", "call_id")] {
        let reply = stage.client.add_with(&task("N"), &json!({ key: 1 }).to_string());
        assert_eq!(reply.code, BAD_ARGUMENT, "{reply:?}");
        assert!(reply.json()["problems"][0]["problem"].to_string().contains(wanted), "{key}: {reply:?}");
    }
    assert_eq!(stage.server.connections(), 0);
}

#[test]
fn refused_options_show_nothing_that_could_be_a_secret() {
    let stage = Stage::http();
    for options in [
        json!({ "token": TOKEN }).to_string(),
        json!({ "timeout_ms": TOKEN }).to_string(),
        json!({ "call_id": format!("{TOKEN}\n") }).to_string(),
        json!({ "call_id": { "token": TOKEN } }).to_string(),
        format!("{{\"timeout_ms\":{TOKEN}}}"),
    ] {
        let reply = stage.client.add_with(&task("N"), &options);
        assert_eq!(reply.code, BAD_ARGUMENT, "{reply:?}");
        assert!(!reply.text().contains(TOKEN), "{options}: {reply:?}");
    }
    assert_eq!(stage.server.connections(), 0);
}

#[test]
fn options_that_are_not_utf_8_are_refused() {
    let stage = Stage::http();
    for options in [&b"\xff"[..], b"{\"call_id\":\"\xe8\xa8\"}", b"{\"call_id\":\"\xed\xa0\x80\"}", b"{}\x80"] {
        let reply = add_with_bytes(&stage.client, &task("N"), options);
        assert_eq!((reply.code, reply.outcome), (BAD_ARGUMENT, NOT_CREATED), "{reply:?}");
        let message = reply.json()["message"].to_string();
        assert!(message.contains("options_json") && message.contains("UTF-8"), "{message}");
    }
    assert_eq!(stage.server.connections(), 0);
}

#[test]
fn what_task_add_refuses_is_refused_with_options_too() {
    let stage = Stage::http();
    let options = c(r#"{"call_id":"desk-7"}"#);
    let right = c(&task("N"));
    let freed = Owned::new(&with(config(&stage.server.base_url()), json!({})));
    let handle = freed.0;
    drop(freed);
    for (what, client, task) in [
        ("NULL client", std::ptr::null_mut(), right.as_ptr()),
        ("freed client", handle, right.as_ptr()),
        ("NULL task", stage.client.0, null()),
        ("task that is not UTF-8", stage.client.0, c"{\"a\":\"\xff\"}".as_ptr()),
    ] {
        // SAFETY: NULL, or texts that live through the call; handles are looked up and not followed.
        let reply = call(|answer| unsafe { (arctos().task_add_with)(client, task, options.as_ptr(), answer) });
        assert_eq!((reply.code, reply.outcome), (BAD_ARGUMENT, NOT_CREATED), "{what}: {reply:?}");
    }
    assert_eq!(stage.server.connections(), 0);
}
