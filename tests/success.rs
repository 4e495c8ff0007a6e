//! An appointment that is made is answered with the server's own text, byte for byte, however it came.

use std::time::Duration;

use arctos_tests::api::{Owned, task};
use arctos_tests::expected::MADE;
use arctos_tests::http::{Framing, answer, answer_head, chunks, head, success_body};
use arctos_tests::server::{Script, Server, Step};
use arctos_tests::stage::{Stage, Table, config, config_tls};
use arctos_tests::tls::{Authority, Identity, Version};

fn stages() -> Vec<(&'static str, Stage)> {
    vec![("http", Stage::http()), ("TLS 1.2", Stage::https(Version::Tls12)), ("TLS 1.3", Stage::https(Version::Tls13))]
}

/// One case: the answer comes as `script` sends it, and the caller gets `body`.
fn handed_over(table: &mut Table, stage: &Stage, case: &str, body: &str, script: Script) {
    let number = stage.number();
    if let Some(done) = table.take(stage.attempt_task(case, MADE, &number, &task(&number), script)) {
        let same = done.reply.text() == body;
        table.take(same.then_some(()).ok_or_else(|| format!("{case}: another text: {}", done.reply.text())));
    }
}

#[test]
fn every_spelling_of_success_is_handed_over_as_it_came() {
    let stage = Stage::http();
    let mut table = Table::new();
    for body in [
        r#"{"status":1,"message":"success","info":{"task_num":"202312210000001"}}"#,
        r#"{"status":"1","message":"success","info":{"task_num":"202312210000001"}}"#,
        r#"{"status":2,"message":"the branch is closed then","info":{"task_num":"202312210000001"}}"#,
        r#"{"status":"2","message":"","info":{"task_num":"202312210000001"}}"#,
        r#"{"status":1,"info":{"task_num":202312210000001}}"#,
        r#"{"status":1,"info":{"task_num":98765432109876543210987654321}}"#,
        r#"{"info":{"zone":{"status":0},"task_num":"x","list":[1,{"status":3}]},"status":1,"added":null,"n":1.50e+7}"#,
        r#"{"status":1,"message":"\u0073uccess \ud83d\ude00 預約","info":{"task_num":"T\u002d1\/2"}}"#,
        r#"{"\u0073tatus":1,"info":{"task_\u006eum":"escaped keys"}}"#,
        " \r\n\t{ \"status\" :\t1 ,\r\n \"info\" : { \"task_num\" : \"blanks\" } }\r\n\r\n ",
    ] {
        for framing in [Framing::Length, Framing::Chunked(7), Framing::Close] {
            let script = Script::made().send(answer("200 OK", framing, body.as_bytes())).close();
            handed_over(&mut table, &stage, &format!("{framing:?} {body}"), body, script);
        }
    }
    table.finish();
}

#[test]
fn every_framing_is_read_over_http_and_https() {
    for (scheme, stage) in stages() {
        let mut table = Table::new();
        let body = success_body("預約");
        for framing in [Framing::Length, Framing::Chunked(1), Framing::Chunked(1000), Framing::Close] {
            let whole = answer("200 OK", framing, body.as_bytes());
            let at_once = Script::made().send(whole.clone()).close();
            handed_over(&mut table, &stage, &format!("{scheme} {framing:?} at once"), &body, at_once);
            let pieces = Script::made().then(Step::Pieces(whole.clone(), 1, Duration::ZERO)).close();
            handed_over(&mut table, &stage, &format!("{scheme} {framing:?} in pieces"), &body, pieces);
            let slowly = Script::made().then(Step::Pieces(whole, 61, Duration::from_millis(20))).close();
            handed_over(&mut table, &stage, &format!("{scheme} {framing:?} slowly"), &body, slowly);
        }
        let chunked = |extension, trailers| {
            let head = answer_head("200 OK", Framing::Chunked(1), 0);
            Script::made().send([head, chunks(body.as_bytes(), 5, extension, trailers)].concat()).close()
        };
        for (what, extension, trailers) in [
            ("extension", ";name=value", ""),
            ("quoted extension", ";a=\"b;c\";d", ""),
            ("trailer", "", "X-Checksum: 12\r\n"),
            ("both", ";x", "A: b\r\nC: d\r\n"),
        ] {
            handed_over(&mut table, &stage, &format!("{scheme} {what}"), &body, chunked(extension, trailers));
        }
        table.finish();
    }
}

#[test]
fn the_end_of_the_answer_is_not_waited_for_when_its_length_is_known() {
    // The server leaves the connection open until the call has returned.
    for (scheme, stage) in stages() {
        let mut table = Table::new();
        let body = success_body("N");
        for framing in [Framing::Length, Framing::Chunked(10)] {
            let script = Script::made().send(answer("200 OK", framing, body.as_bytes())).then(Step::AwaitRelease);
            handed_over(&mut table, &stage, &format!("{scheme} {framing:?}"), &body, script);
        }
        table.finish();
    }
}

#[test]
fn interim_answers_are_skipped() {
    for (scheme, stage) in stages() {
        let mut table = Table::new();
        let body = success_body("N");
        let last = answer("200 OK", Framing::Length, body.as_bytes());
        for (what, interim) in [
            ("100", head("100 Continue", &[])),
            ("100 with headers", head("100 Continue", &["Date: today", "X-Proxy: a"])),
            ("102", head("102 Processing", &[])),
            ("103 with headers", head("103 Early Hints", &["Link: </a>; rel=preload", "Link: </b>"])),
            ("199", head("199 Whatever", &["Content-Length: 5"])),
            ("many", head("100 Continue", &["A: b"]).repeat(50)),
            ("different ones", [head("103 Early Hints", &["A: b"]), head("100 Continue", &[])].concat()),
        ] {
            let whole = [interim.clone(), last.clone()].concat();
            let burst = Script::made().send(whole.clone()).close();
            handed_over(&mut table, &stage, &format!("{scheme} {what}"), &body, burst);
            let pieces = Script::made().then(Step::Pieces(whole, 1, Duration::ZERO)).close();
            handed_over(&mut table, &stage, &format!("{scheme} {what} in pieces"), &body, pieces);
            let pause = Script::made().then(Step::Pieces(interim, usize::MAX, Duration::from_millis(50)));
            let pause = pause.send(last.clone()).close();
            handed_over(&mut table, &stage, &format!("{scheme} {what}, then a pause"), &body, pause);
        }
        table.finish();
    }
}

#[test]
fn heads_of_other_servers_are_read() {
    let stage = Stage::http();
    let mut table = Table::new();
    let body = success_body("N");
    let length = format!("Content-Length: {}", body.len());
    let lower = length.to_lowercase();
    for (what, head) in [
        ("no reason", head("200 ", &[&length])),
        ("another reason", head("200 Vermittelt \u{e9}", &[&length])),
        ("lower case", head("200 OK", &[&lower])),
        ("two equal lengths", head("200 OK", &[&length, &length])),
        ("another type", head("200 OK", &["Content-Type: text/html; charset=big5", &length])),
        ("long header", head("200 OK", &[&format!("X-Long: {}", "x".repeat(20_000)), &length])),
        ("keep-alive", head("200 OK", &["Connection: keep-alive", "Keep-Alive: timeout=5", &length])),
        ("cookies", head("200 OK", &["Set-Cookie: a=b", "Set-Cookie: c=d", &length])),
        ("HTTP/1.0", format!("HTTP/1.0 200 OK\r\n{length}\r\n\r\n").into_bytes()),
    ] {
        let script = Script::made().send([head, body.clone().into_bytes()].concat()).close();
        handed_over(&mut table, &stage, what, &body, script);
    }
    table.finish();
}

#[test]
fn every_name_of_loopback_is_reached() {
    let authority = Authority::new();
    for (address, name) in [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "localhost"), ("::1", "::1")] {
        for version in [None, Some(Version::Tls12), Some(Version::Tls13)] {
            let tls = version.map(|version| authority.server(Identity::right(version)));
            let server = Server::start(address, tls);
            let config = match version {
                None => config(&server.base_url_as(name)),
                Some(_) => config_tls(&server.base_url_as(name), &authority),
            };
            let stage = Stage::of(server, Owned::new(&config));
            let done = stage.run(&format!("{name} {version:?}"), MADE, |number| {
                Script::made().send(answer("200 OK", Framing::Length, success_body(number).as_bytes())).close()
            });
            assert_eq!(done.reply.text(), success_body(&done.number));
        }
    }
}

#[test]
fn one_client_makes_one_appointment_after_another() {
    for (scheme, stage) in stages() {
        for call in 0..20 {
            let done = stage.run(&format!("{scheme} call {call}"), MADE, |number| {
                Script::made().send(answer("200 OK", Framing::Length, success_body(number).as_bytes())).close()
            });
            assert_eq!(done.reply.text(), success_body(&done.number));
        }
        assert_eq!(stage.server.ledger().all().len(), 20);
    }
}
