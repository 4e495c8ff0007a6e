//! The real binary over raw sockets: what it answers, how it misbehaves, what it has made.
#![cfg(unix)]

mod support;

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use support::{Answer, PATIENCE, Sandbox, get, kept, numbered, post, request, run, task};
use time::OffsetDateTime;

fn today() -> String {
    let date = OffsetDateTime::now_utc().date();
    format!("{}{:02}{:02}", date.year(), u8::from(date.month()), date.day())
}

#[test]
fn a_good_task_is_made_answered_and_listed() {
    let sandbox = Sandbox::start(&[]);
    let before = today();
    let answer = sandbox.add(task(&[]));
    let after = today();

    assert_eq!(answer.status, 200);
    let body = answer.json();
    let task_num = body["info"]["task_num"].as_str().unwrap().to_owned();
    assert_eq!(body, json!({"status": 1, "message": "success", "info": {"task_num": task_num}}));
    assert!([before, after].iter().any(|day| task_num == format!("{day}0000001")), "{task_num}");
    assert_eq!(
        sandbox.appointments(),
        [json!({
            "task_num": task_num,
            "out_task_num": "BR0943-187",
            "branch_code": 943,
            "business_id": 15,
            "room_type": "normal",
            "task_type": "normal",
            "task_time": "1703141398",
        })]
    );
}

#[test]
fn a_repeated_number_is_another_appointment() {
    let sandbox = Sandbox::start(&[]);
    let first = sandbox.add(task(&[])).json();
    let second = sandbox.add(task(&[])).json();
    assert_ne!(first["info"]["task_num"], second["info"]["task_num"]);
    let listed: Vec<_> = sandbox.appointments().iter().map(|appointment| appointment["task_num"].clone()).collect();
    assert_eq!(listed, [first["info"]["task_num"].clone(), second["info"]["task_num"].clone()]);
}

#[test]
fn each_appointment_is_one_line_on_stdout_without_its_remark() {
    let sandbox = Sandbox::start(&[]);
    let first = sandbox.add(task(&[])).json()["info"]["task_num"].as_str().unwrap().to_owned();
    let changes = [
        ("out_task_num", r#""two\nlines""#),
        ("branch_code", r#""0943""#),
        ("room_type", r#""realtime""#),
        ("task_time", ""),
    ];
    let second = sandbox.add(task(&changes)).json()["info"]["task_num"].as_str().unwrap().to_owned();
    assert_eq!(sandbox.add(numbered("fail-1")).status, 200);

    let (_, printed) = sandbox.stop("TERM");
    let lines = [
        format!("{first} out_task_num=\"BR0943-187\" branch_code=943 task_time=1703141398\n"),
        format!("{second} out_task_num=\"two\\nlines\" branch_code=\"0943\"\n"),
    ];
    assert_eq!(printed, lines.concat());
}

#[test]
fn the_token_is_asked_for_first() {
    let sandbox = Sandbox::start(&["--token", "another"]);
    let wrong = [
        "",
        "Authorization: another\r\n",
        "Authorization: Bearer\r\n",
        "Authorization: Bearer sandbox-token\r\n",
        "Authorization: Bearer anothe\r\n",
        "Authorization: Bearer another2\r\n",
        "Authorization: Basic another\r\n",
    ];
    for authorization in wrong {
        let headers = format!("{authorization}Content-Type: application/json\r\n");
        for body in [task(&[]), "not JSON".to_owned()] {
            let answer = sandbox.exchange(request("POST", "/api/task/do_add", &headers, &body));
            assert_eq!(answer.status, 403, "{authorization:?}");
            assert!(!answer.refusal().contains("another"), "{authorization:?}");
        }
    }
    assert!(sandbox.made().is_empty());

    let headers = "Authorization: Bearer another\r\nContent-Type: application/json\r\n";
    let answer = sandbox.exchange(request("POST", "/api/task/do_add", headers, &task(&[])));
    assert_eq!(answer.json()["status"], 1);
    assert_eq!(sandbox.made(), ["BR0943-187"]);
}

#[test]
fn the_media_type_must_be_json() {
    let sandbox = Sandbox::start(&[]);
    let rows = [
        ("", 415),
        ("Content-Type: text/plain\r\n", 415),
        ("Content-Type: application/jsonp\r\n", 415),
        ("Content-Type: application/x-www-form-urlencoded\r\n", 415),
        ("Content-Type: application/json; charset=utf-8\r\n", 200),
        ("Content-Type: Application/JSON\r\n", 200),
    ];
    for (content_type, status) in rows {
        let headers = format!("Authorization: Bearer sandbox-token\r\n{content_type}");
        let before = sandbox.made().len();
        let answer = sandbox.exchange(request("POST", "/api/task/do_add", &headers, &task(&[])));
        assert_eq!(answer.status, status, "{content_type:?}");
        let made = usize::from(status == 200);
        assert_eq!(answer.json()["status"], made, "{content_type:?}");
        assert_eq!(sandbox.made().len(), before + made, "{content_type:?}");
    }
}

#[test]
fn other_paths_and_methods_are_refused_in_json() {
    let sandbox = Sandbox::start(&[]);
    let headers = "Authorization: Bearer sandbox-token\r\nContent-Type: application/json\r\n";
    let rows = [
        ("POST", "/", 404, None),
        ("POST", "/api/task", 404, None),
        ("POST", "/api/task/do_add/", 404, None),
        ("GET", "/sandbox", 404, None),
        ("GET", "/api/task/do_add", 405, Some("post")),
        ("PUT", "/api/task/do_add", 405, Some("post")),
        ("POST", "/sandbox/appointments", 405, Some("get")),
        ("DELETE", "/sandbox/appointments", 405, Some("get")),
    ];
    for (method, path, status, allow) in rows {
        let answer = sandbox.exchange(request(method, path, headers, &task(&[])));
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
        assert!(!answer.refusal().is_empty(), "{method} {path}");
    }
    assert!(sandbox.made().is_empty());
}

#[test]
fn a_body_of_one_mebibyte_is_the_longest() {
    let sandbox = Sandbox::start(&[]);
    let limit = 1024 * 1024;
    let padded = |length: usize| task(&[]) + &" ".repeat(length - task(&[]).len());
    assert_eq!(sandbox.add(padded(limit)).status, 200);
    for length in [limit + 1, 4 * limit] {
        let answer = sandbox.add(padded(length));
        assert_eq!(answer.status, 413, "{length}");
        assert!(answer.refusal().contains("1 MiB"));
    }
    assert_eq!(sandbox.made().len(), 1);
}

#[test]
fn what_breaks_the_contract_is_refused_by_the_name_of_its_field() {
    let sandbox = Sandbox::start(&[]);
    // A field, the JSON text that it is given ("": none), and what is said about it.
    let rows = [
        ("business_id", "", "missing"),
        ("business_id", "null", "integer"),
        ("business_id", r#""15""#, "integer"),
        ("business_id", "15.0", "integer"),
        ("business_id", "1e3", "integer"),
        ("business_id", "true", "integer"),
        ("out_task_num", "", "missing"),
        ("out_task_num", "null", "string"),
        ("out_task_num", "187", "string"),
        ("out_task_num", r#""""#, "empty"),
        ("out_task_num", r#"" \t""#, "empty"),
        ("out_task_num", r#""\ud800""#, "surrogate"),
        ("out_task_type", "null", "string"),
        ("out_task_type", "7", "string"),
        ("task_type", "", "missing"),
        ("task_type", "null", "normal, custom"),
        ("task_type", r#""Normal""#, "normal, custom"),
        ("task_type", r#""other""#, "normal, custom"),
        ("task_notify", "", "missing"),
        ("task_notify", "null", "true or false"),
        ("task_notify", r#""false""#, "true or false"),
        ("task_notify", "0", "true or false"),
        ("task_time", "", "missing"),
        ("task_time", "null", "string"),
        ("task_time", "1703141398", "string"),
        ("task_time", r#""""#, "digits"),
        ("task_time", r#""-1703141398""#, "digits"),
        ("task_time", r#"" 1703141398""#, "digits"),
        ("task_time", r#""170314139800""#, "digits"),
        ("task_time", r#""1703141398000""#, "milliseconds"),
        ("task_time", r#""2023-12-21T06:49:58Z""#, "digits"),
        ("task_time", r#""١٧٠""#, "digits"),
        ("task_remark", "null", "string"),
        ("task_remark", "4711", "string"),
        ("task_remarks", "null", "string"),
        ("task_remarks", "[4711]", "string"),
        ("task_remarks", r#""not the same 4711""#, "not equal"),
        ("branch_code", "", "missing"),
        ("branch_code", "null", "string or a number"),
        ("branch_code", "true", "string or a number"),
        ("branch_code", "[943]", "string or a number"),
        ("branch_code", r#""""#, "empty"),
        ("branch_code", r#""  ""#, "empty"),
        ("business_code", "null", "string or a number"),
        ("business_code", "{}", "string or a number"),
        ("room_type", "", "missing"),
        ("room_type", "null", "realtime, normal"),
        ("room_type", r#""virtual""#, "realtime, normal"),
        ("video", "", "missing"),
        ("video", "null", "true or false"),
        ("video", "1", "true or false"),
        ("video", r#""True""#, "true or false"),
    ];
    for (field, value, problem) in rows {
        let answer = sandbox.add(task(&[(field, value)]));
        assert_eq!(answer.status, 400, "{field} {value}");
        let message = answer.refusal();
        assert!(message.contains(&format!("{field}: ")), "{field} {value}: {message}");
        assert!(message.contains(problem), "{field} {value}: {message}");
        assert!(!message.contains("; "), "more than one problem: {message}");
        assert!(!message.contains("4711"), "{field} {value}: {message}");
    }
    let realtime = [("room_type", r#""realtime""#), ("task_time", "null")];
    assert!(sandbox.add(task(&realtime)).refusal().starts_with("task_time: "));
    assert!(sandbox.made().is_empty());
}

#[test]
fn all_problems_are_listed_at_once() {
    let sandbox = Sandbox::start(&[]);
    let answer = sandbox.add("{}");
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.refusal(),
        "business_id: missing; out_task_num: missing; task_type: missing; task_notify: missing; \
         branch_code: missing; room_type: missing; video: missing"
    );

    let twice = task(&[]).replacen('{', r#"{"video": true, "not_documented": 1, "#, 1);
    let answer = sandbox.add(twice.replace(r#""normal""#, "5"));
    assert_eq!(answer.status, 400);
    let message = answer.refusal();
    for problem in ["video: given more than once", "not_documented: given", "task_type: ", "room_type: "] {
        assert!(message.contains(problem), "{message}");
    }
    assert!(!message.contains("4711"), "{message}");
    assert!(sandbox.made().is_empty());
}

#[test]
fn what_is_not_a_json_object_is_refused_without_being_quoted() {
    let sandbox = Sandbox::start(&[]);
    let good = task(&[]);
    let with_bom = format!("\u{feff}{good}");
    let rows: [&[u8]; 9] = [
        b"",
        b"secret-4711",
        b"\"secret-4711\"",
        b"[\"secret-4711\"]",
        b"4711",
        &good.as_bytes()[..good.len() - 1],
        &[good.as_bytes(), b" 4711"].concat(),
        with_bom.as_bytes(),
        &[&good.as_bytes()[..good.len() - 1], b", \"secret\": \"4711\xff\"}"].concat(),
    ];
    for body in rows {
        let shown = String::from_utf8_lossy(body);
        let answer = sandbox.add(body);
        assert_eq!(answer.status, 400, "{shown}");
        let message = answer.refusal();
        assert!(message.starts_with("the body is not"), "{shown}: {message}");
        assert!(!message.contains("4711"), "{shown}: {message}");
    }
    assert!(sandbox.made().is_empty());
}

#[test]
fn every_form_that_the_page_shows_is_accepted() {
    let sandbox = Sandbox::start(&[]);
    let rows: &[&[(&str, &str)]] = &[
        &[("business_id", "-1")],
        &[("out_task_type", r#""""#)],
        &[("task_type", r#""custom""#)],
        &[("task_notify", "true")],
        &[("task_time", r#""0""#)],
        &[("task_time", r#""17031413980""#)],
        &[("room_type", r#""realtime""#)],
        &[("room_type", r#""realtime""#), ("task_time", "")],
        &[("task_remark", "")],
        &[("task_remark", r#""""#)],
        &[("task_remark", ""), ("task_remarks", r#""remark""#)],
        &[("task_remarks", r#""remark\u002d4711""#)],
        &[("branch_code", r#""0943""#)],
        &[("branch_code", "9.5")],
        &[("business_code", "2")],
        &[("business_code", r#""2""#)],
        &[("business_code", r#""""#)],
        &[("video", "false")],
        &[("video", r#""true""#)],
        &[("video", r#""false""#)],
        &[("not_documented", "null"), ("neither", r#"{"a": [1, {"a": 1, "a": 2}], "b": "\ud800"}"#)],
    ];
    for changes in rows {
        let answer = sandbox.add(task(changes));
        assert_eq!(answer.status, 200, "{changes:?}: {}", String::from_utf8_lossy(&answer.body));
        assert_eq!(answer.json()["status"], 1, "{changes:?}");
    }
    assert_eq!(sandbox.made().len(), rows.len());
}

#[test]
fn the_list_keeps_the_digits_of_the_request() {
    let sandbox = Sandbox::start(&[]);
    let changes = [("business_id", "12345678901234567890123"), ("branch_code", "943.10")];
    assert_eq!(sandbox.add(task(&changes)).status, 200);
    let listing = sandbox.listing();
    assert!(listing.contains(r#""business_id":12345678901234567890123,"#), "{listing}");
    assert!(listing.contains(r#""branch_code":943.10,"#), "{listing}");
}

#[test]
fn test_numbers_choose_the_answer() {
    let sandbox = Sandbox::start(&[]);
    // Number, HTTP code, status in the body, whether it is made, whether the answer has a task_num.
    let rows = [
        ("fail-1", 200, 0, false, false),
        ("warn-1", 200, 2, true, true),
        ("busy-1", 429, 0, false, false),
        ("forbidden-1", 403, 0, false, false),
        ("error500-1", 500, 0, false, false),
        ("nonum-1", 200, 1, true, false),
        ("fail", 200, 1, true, true),
        ("fail_1", 200, 1, true, true),
        ("failure-1", 200, 1, true, true),
        ("FAIL-1", 200, 1, true, true),
        ("reset-1", 200, 1, true, true),
        ("reset-once", 200, 1, true, true),
        ("busy-once", 429, 0, false, false),
        ("BR-fail-1", 200, 1, true, true),
    ];
    for (number, code, status, made, has_task_num) in rows {
        let answer = sandbox.add(numbered(number));
        assert_eq!(answer.status, code, "{number}");
        let body = answer.json();
        assert_eq!(body["status"], status, "{number}");
        assert!(!body["message"].as_str().unwrap().is_empty(), "{number}");
        assert_eq!(body["info"]["task_num"].is_string(), has_task_num, "{number}");
        assert_eq!(sandbox.made().iter().any(|listed| listed == number), made, "{number}");
        let retry_after = if code == 429 { Some("1") } else { None };
        assert_eq!(answer.header("retry-after"), retry_after, "{number}");
    }
}

#[test]
fn a_test_number_does_not_excuse_a_bad_request() {
    let sandbox = Sandbox::start(&[]);
    let prefixes = [
        "fail-",
        "warn-",
        "busy-",
        "slow-",
        "reset-before-",
        "reset-after-",
        "truncate-",
        "html-",
        "forbidden-",
        "error500-",
        "nonum-",
        "busy-once-",
        "reset-once-",
        "slow-once-",
    ];
    for prefix in prefixes {
        let number = format!("\"{prefix}1\"");
        let answer = sandbox.add(task(&[("out_task_num", &number), ("video", "")]));
        assert_eq!((answer.status, answer.refusal().as_str()), (400, "video: missing"), "{prefix}");

        let headers = "Content-Type: application/json\r\n";
        let body = task(&[("out_task_num", &number)]);
        let answer = sandbox.exchange(request("POST", "/api/task/do_add", headers, &body));
        assert_eq!(answer.status, 403, "{prefix}");
        assert!(answer.refusal().contains("Authorization"), "{prefix}");
    }
    assert!(sandbox.made().is_empty());
}

#[test]
fn html_makes_it_and_answers_with_a_page() {
    let sandbox = Sandbox::start(&[]);
    let answer = sandbox.add(numbered("html-1"));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(answer.body.len(), answer.length);
    assert!(answer.body.starts_with(b"<!DOCTYPE html>"));
    assert_eq!(sandbox.made(), ["html-1"]);
}

#[test]
fn resets_are_resets_with_and_without_the_appointment() {
    let sandbox = Sandbox::start(&[]);
    for number in ["reset-before-1", "reset-once-1", "reset-after-1"] {
        let mut stream = sandbox.connect();
        stream.write_all(&post(numbered(number))).unwrap();
        let error = stream.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{number}");
    }
    assert_eq!(sandbox.made(), ["reset-after-1"]);
}

#[test]
fn a_reset_waits_for_the_whole_request() {
    let sandbox = Sandbox::start(&[]);
    for number in ["reset-before-1", "reset-once-1"] {
        let request = post(numbered(number));
        let (most, last) = request.split_at(request.len() - 1);
        let mut stream = sandbox.connect();
        stream.write_all(most).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let error = stream.read(&mut [0; 1]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{number}: {error}");

        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(last).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset, "{number}");
    }
}

#[test]
fn truncate_makes_it_and_ends_in_the_middle_of_the_body() {
    let sandbox = Sandbox::start(&[]);
    let answer = sandbox.add(numbered("truncate-1"));
    assert_truncated(&answer);
    assert_eq!(sandbox.made(), ["truncate-1"]);
}

fn assert_truncated(answer: &Answer) {
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.body.len(), answer.length / 2);
    assert!(answer.body.starts_with(b"{"), "{answer:?}");
}

#[test]
fn slow_makes_it_at_once_and_answers_later() {
    let sandbox = Sandbox::start(&["--slow-ms", "700"]);
    let begun = Instant::now();
    let answer = sandbox.add(numbered("slow-1"));
    assert!(begun.elapsed() >= Duration::from_millis(700));
    assert_eq!(answer.json()["status"], 1);
    assert_eq!(answer.json()["info"]["task_num"], sandbox.appointments()[0]["task_num"]);
}

#[test]
fn a_slow_answer_holds_up_neither_others_nor_the_end() {
    let sandbox = Sandbox::start(&["--slow-ms", "3600000"]);
    let mut stream = sandbox.connect();
    stream.write_all(&post(numbered("slow-1"))).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while sandbox.made() != ["slow-1"] {
        assert!(Instant::now() < deadline, "not made before its answer");
        thread::sleep(Duration::from_millis(5));
    }
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let error = stream.read(&mut [0; 1]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");

    let (status, _) = sandbox.stop("TERM");
    assert_eq!(status.code(), Some(0));
}

#[test]
fn busy_once_refuses_the_first_request_of_each_number() {
    let sandbox = Sandbox::start(&[]);
    for number in ["busy-once-1", "busy-once-2"] {
        let answer = sandbox.add(numbered(number));
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("1")), "{number}");
        assert!(!answer.refusal().is_empty(), "{number}");
    }
    assert!(sandbox.made().is_empty());
    // As with any number, a repeat of what was made is another appointment.
    for number in ["busy-once-1", "busy-once-2", "busy-once-1"] {
        let answer = sandbox.add(numbered(number));
        assert_eq!((answer.status, answer.header("retry-after")), (200, None), "{number}");
        assert_eq!(answer.json()["status"], 1, "{number}");
        assert_eq!(answer.json()["info"]["task_num"], sandbox.appointments().last().unwrap()["task_num"], "{number}");
    }
    assert_eq!(sandbox.made(), ["busy-once-1", "busy-once-2", "busy-once-1"]);
}

#[test]
fn reset_once_makes_it_at_the_second_request_only() {
    let sandbox = Sandbox::start(&[]);
    for number in ["reset-once-1", "reset-once-2"] {
        let mut stream = sandbox.connect();
        stream.write_all(&post(numbered(number))).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset, "{number}");
    }
    assert!(sandbox.made().is_empty());
    for number in ["reset-once-1", "reset-once-2"] {
        assert_eq!(sandbox.add(numbered(number)).json()["status"], 1, "{number}");
    }
    assert_eq!(sandbox.made(), ["reset-once-1", "reset-once-2"]);
}

#[test]
fn slow_once_makes_it_at_once_and_answers_the_first_later() {
    let sandbox = Sandbox::start(&["--slow-ms", "700"]);
    for number in ["slow-once-1", "slow-once-2"] {
        let begun = Instant::now();
        let answer = sandbox.add(numbered(number));
        assert!(begun.elapsed() >= Duration::from_millis(700), "{number}");
        assert_eq!(answer.json()["status"], 1, "{number}");
        assert_eq!(answer.json()["info"]["task_num"], sandbox.appointments().last().unwrap()["task_num"], "{number}");
    }
    assert_eq!(sandbox.made(), ["slow-once-1", "slow-once-2"]);
}

#[test]
fn slow_once_keeps_what_it_made_and_answers_later_requests_at_once() {
    // The first answer would come long after the test has failed.
    let sandbox = Sandbox::start(&["--slow-ms", "3600000"]);
    let mut stream = sandbox.connect();
    stream.write_all(&post(numbered("slow-once-1"))).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while sandbox.made() != ["slow-once-1"] {
        assert!(Instant::now() < deadline, "not made before its answer");
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(sandbox.add(numbered("slow-once-1")).json()["status"], 1);
    drop(stream);
    assert_eq!(sandbox.add(numbered("slow-once-1")).json()["status"], 1);
    assert_eq!(sandbox.made(), ["slow-once-1"; 3]);
}

#[test]
fn a_refused_request_is_not_the_first_of_its_number() {
    let sandbox = Sandbox::start(&["--slow-ms", "700"]);
    for number in ["busy-once-1", "reset-once-1", "slow-once-1"] {
        let quoted = format!("\"{number}\"");
        assert_eq!(sandbox.add(task(&[("out_task_num", &quoted), ("video", "")])).status, 400, "{number}");
        let headers = "Content-Type: application/json\r\n";
        let answer = sandbox.exchange(request("POST", "/api/task/do_add", headers, &numbered(number)));
        assert_eq!(answer.status, 403, "{number}");
    }
    assert_eq!(sandbox.add(numbered("busy-once-1")).status, 429);

    let mut stream = sandbox.connect();
    stream.write_all(&post(numbered("reset-once-1"))).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);

    let begun = Instant::now();
    assert_eq!(sandbox.add(numbered("slow-once-1")).status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(700));
}

const NUMBERS: usize = 4;
const CALLERS: usize = 8;

/// Sends each of `NUMBERS` numbers from `CALLERS` threads at once; returns what each was answered.
fn crowd(sandbox: &Sandbox, prefix: &str) -> Receiver<(usize, io::Result<Answer>)> {
    let (sender, answers) = mpsc::channel();
    let start = Arc::new(Barrier::new(NUMBERS * CALLERS));
    for caller in 0..NUMBERS * CALLERS {
        let number = caller % NUMBERS;
        let request = post(numbered(&format!("{prefix}{number}")));
        let mut stream = sandbox.connect();
        let (sender, start) = (sender.clone(), Arc::clone(&start));
        thread::spawn(move || {
            start.wait();
            let answer = stream.write_all(&request).and_then(|()| Answer::read_next(&mut stream));
            // Fails when the test has failed.
            let _ = sender.send((number, answer));
        });
    }
    answers
}

#[test]
fn of_many_requests_at_once_one_of_each_number_is_the_first() {
    let sandbox = Sandbox::start(&[]);
    for prefix in ["busy-once-", "reset-once-"] {
        let before = sandbox.made().len();
        let mut firsts = [0; NUMBERS];
        for (number, answer) in crowd(&sandbox, prefix) {
            match answer {
                Ok(answer) if answer.status == 200 => assert_eq!(answer.json()["status"], 1),
                Ok(answer) => {
                    assert_eq!((prefix, answer.status), ("busy-once-", 429));
                    firsts[number] += 1;
                }
                Err(error) => {
                    assert_eq!((prefix, error.kind()), ("reset-once-", ErrorKind::ConnectionReset));
                    firsts[number] += 1;
                }
            }
        }
        assert_eq!(firsts, [1; NUMBERS], "{prefix}");
        let made = &sandbox.made()[before..];
        for number in 0..NUMBERS {
            let number = format!("{prefix}{number}");
            assert_eq!(made.iter().filter(|&made| *made == number).count(), CALLERS - 1, "{number}");
        }
    }
}

#[test]
fn of_many_slow_requests_at_once_one_of_each_number_is_late() {
    // Late enough to be cut off by the end of the sandbox, which comes when all others have their answer.
    let sandbox = Sandbox::start(&["--slow-ms", "3600000"]);
    let answers = crowd(&sandbox, "slow-once-");
    let mut at_once = [0; NUMBERS];
    for _ in 0..NUMBERS * (CALLERS - 1) {
        let (number, answer) = answers.recv_timeout(PATIENCE).expect("more than one of a number is late");
        assert_eq!(answer.unwrap().json()["status"], 1);
        at_once[number] += 1;
    }
    assert_eq!(at_once, [CALLERS - 1; NUMBERS]);
    let deadline = Instant::now() + PATIENCE;
    while sandbox.made().len() < NUMBERS * CALLERS {
        assert!(Instant::now() < deadline, "the late ones are not made: {:?}", sandbox.made());
        thread::sleep(Duration::from_millis(5));
    }

    let (status, _) = sandbox.stop("TERM");
    assert_eq!(status.code(), Some(0));
    let mut late = [0; NUMBERS];
    for (number, answer) in answers {
        assert!(answer.is_err(), "answered: {answer:?}");
        late[number] += 1;
    }
    assert_eq!(late, [1; NUMBERS]);
}

#[test]
fn a_connection_is_kept_until_its_client_ends_it() {
    let sandbox = Sandbox::start(&["--slow-ms", "10"]);
    assert_kept(&mut sandbox.connect());
    let sandbox = Sandbox::start(&["--slow-ms", "10", "--tls"]);
    assert_kept(&mut sandbox.connect_tls("localhost"));
}

/// Sends every kind of request that gets a whole answer, one after the other, and then one with
/// `Connection: close`.
fn assert_kept(stream: &mut (impl Read + Write)) {
    let token = "Authorization: Bearer sandbox-token\r\n";
    let rows = [
        (post(numbered("first")), 200),
        (post("{}"), 400),
        (request("POST", "/api/task/do_add", "", &task(&[])).into(), 403),
        (request("POST", "/api/task/do_add", token, &task(&[])).into(), 415),
        (post(" ".repeat(2 * 1024 * 1024)), 413),
        (request("PUT", "/api/task/do_add", token, &task(&[])).into(), 405),
        (request("POST", "/", token, &task(&[])).into(), 404),
        (post(numbered("busy-1")), 429),
        (post(numbered("busy-once-1")), 429),
        (post(numbered("busy-once-1")), 200),
        (post(numbered("forbidden-1")), 403),
        (post(numbered("error500-1")), 500),
        (post(numbered("fail-1")), 200),
        (post(numbered("warn-1")), 200),
        (post(numbered("nonum-1")), 200),
        (post(numbered("html-1")), 200),
        (post(numbered("slow-1")), 200),
        (post(numbered("last")), 200),
    ];
    for (place, (request, status)) in rows.into_iter().enumerate() {
        stream.write_all(&kept(request)).unwrap();
        let answer = Answer::read_next(stream).unwrap();
        assert_eq!((answer.status, answer.header("connection")), (status, None), "request {place}");
    }

    stream.write_all(get("/sandbox/appointments").as_bytes()).unwrap();
    let answer = Answer::read(stream).unwrap();
    assert_eq!(answer.header("connection"), Some("close"));
    let listing = answer.json();
    let made: Vec<_> =
        listing["appointments"].as_array().unwrap().iter().map(|appointment| &appointment["out_task_num"]).collect();
    assert_eq!(made, ["first", "busy-once-1", "warn-1", "nonum-1", "html-1", "slow-1", "last"]);
}

#[test]
fn requests_sent_together_are_answered_in_order_up_to_the_one_that_closes() {
    let sandbox = Sandbox::start(&[]);
    let requests = [kept(post(numbered("first"))), post(numbered("second")), post(numbered("third"))];
    let mut stream = sandbox.connect();
    stream.write_all(&requests.concat()).unwrap();
    for (place, connection) in [None, Some("close")].into_iter().enumerate() {
        let answer = Answer::read_next(&mut stream).unwrap();
        assert_eq!(answer.header("connection"), connection);
        assert_eq!(answer.json()["info"]["task_num"], sandbox.appointments()[place]["task_num"]);
    }
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(sandbox.made(), ["first", "second"]);
}

#[test]
fn a_kept_connection_misbehaves_as_a_fresh_one_does() {
    let sandbox = Sandbox::start(&[]);
    let kept_connection = || {
        let mut stream = sandbox.connect();
        stream.write_all(&kept(post(numbered("good")))).unwrap();
        assert_eq!(Answer::read_next(&mut stream).unwrap().json()["status"], 1);
        stream
    };
    for number in ["reset-before-1", "reset-after-1", "reset-once-1"] {
        let mut stream = kept_connection();
        stream.write_all(&kept(post(numbered(number)))).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset, "{number}");
    }
    let mut stream = kept_connection();
    stream.write_all(&kept(post(numbered("truncate-1")))).unwrap();
    assert_truncated(&Answer::read(&mut stream).unwrap());
    assert_eq!(sandbox.made(), ["good", "good", "reset-after-1", "good", "good", "truncate-1"]);
}

#[test]
fn an_idle_connection_does_not_hold_up_the_end() {
    let sandbox = Sandbox::start(&[]);
    let mut stream = sandbox.connect();
    stream.write_all(&kept(post(numbered("first")))).unwrap();
    assert_eq!(Answer::read_next(&mut stream).unwrap().status, 200);
    let (status, _) = sandbox.stop("TERM");
    assert_eq!(status.code(), Some(0));
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn https_is_trusted_by_the_ca_file_under_each_name() {
    let sandbox = Sandbox::start(&["--tls"]);
    assert!(sandbox.folder.path().join("arctos-sandbox-ca.pem").is_file());
    for name in ["localhost", "127.0.0.1", "::1"] {
        let mut stream = sandbox.connect_tls(name);
        stream.write_all(&post(numbered(name))).unwrap();
        // Without close_notify the end of a good answer would be an error.
        assert_eq!(Answer::read(&mut stream).unwrap().json()["status"], 1, "{name}");
    }
    let mut stream = sandbox.connect_tls("arctos.example");
    assert!(stream.write_all(get("/sandbox/appointments").as_bytes()).is_err());
}

#[test]
fn https_misbehaves_below_tls() {
    let sandbox = Sandbox::start(&["--tls", "--ca-file", "ca of the test.pem"]);
    assert!(sandbox.folder.path().join("ca of the test.pem").is_file());
    for number in ["reset-before-1", "reset-once-1", "reset-after-1"] {
        let mut stream = sandbox.connect_tls("localhost");
        stream.write_all(&post(numbered(number))).unwrap();
        let error = stream.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{number}: {error}");
    }

    let mut stream = sandbox.connect_tls("localhost");
    stream.write_all(&post(numbered("truncate-1"))).unwrap();
    let mut raw = Vec::new();
    // rustls reports an end without close_notify so.
    assert_eq!(stream.read_to_end(&mut raw).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_truncated(&Answer::parse(&raw));

    let mut stream = sandbox.connect_tls("localhost");
    stream.write_all(get("/sandbox/appointments").as_bytes()).unwrap();
    let listing = Answer::read(&mut stream).unwrap().json();
    let made: Vec<_> = listing["appointments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|appointment| appointment["out_task_num"].as_str().unwrap())
        .collect();
    assert_eq!(made, ["reset-after-1", "truncate-1"]);
}

#[test]
fn the_ca_file_holds_no_private_key() {
    let sandbox = Sandbox::start(&["--tls"]);
    let pem = fs::read_to_string(sandbox.folder.path().join("arctos-sandbox-ca.pem")).unwrap();
    assert_eq!(pem.matches("-----BEGIN ").count(), 1, "{pem}");
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"), "{pem}");
    assert_eq!(fs::read_dir(&sandbox.folder).unwrap().count(), 1);
}

#[test]
fn signals_end_it_cleanly() {
    for signal in ["TERM", "INT"] {
        let sandbox = Sandbox::start(&[]);
        let (status, _) = sandbox.stop(signal);
        assert_eq!(status.code(), Some(0), "SIG{signal}");
    }
}

#[test]
fn it_goes_on_when_nobody_reads_its_stdout() {
    let mut sandbox = Sandbox::start(&[]);
    sandbox.close_stdout();
    assert_eq!(sandbox.add(task(&[])).json()["status"], 1);
    assert_eq!(sandbox.made(), ["BR0943-187"]);
}

#[test]
fn wrong_options_are_refused_before_anything_listens() {
    let busy = Sandbox::start(&[]);
    let busy = busy.address.to_string();
    let rows: [(&[&str], i32, &str); 10] = [
        (&["--listen", "0.0.0.0:0"], 2, "loopback"),
        (&["--listen", "192.0.2.1:8080"], 2, "loopback"),
        (&["--listen", "[::]:0"], 2, "loopback"),
        (&["--listen", "8080"], 2, "IP address and a port"),
        (&["--token", ""], 2, "--token"),
        (&["--token", "two words"], 2, "--token"),
        (&["--slow-ms", "soon"], 2, "--slow-ms"),
        (&["--listen", "127.0.0.1:0", "--ca-file", "ca.pem"], 2, "--tls"),
        (&["--listen", &busy], 1, &busy),
        (&["--listen", "127.0.0.1:0", "--tls", "--ca-file", "no/such/folder/ca.pem"], 1, "no/such/folder/ca.pem"),
    ];
    for (options, code, text) in rows {
        let (status, stdout, stderr) = run(options);
        assert_eq!(status.code(), Some(code), "{options:?}: {stderr}");
        assert!(stderr.contains(text), "{options:?}: {stderr}");
        assert!(stdout.is_empty(), "{options:?}");
    }
}
