//! A call ends at its deadline, whatever the server does; no thread runs for it, and nothing of it is sent afterwards.

use std::time::Duration;

use arctos_tests::deadline::{FullQueue, Phase, Phases, Round, Scheme, longer_than_both_buffers};
use arctos_tests::expected::MADE;
use arctos_tests::http::{Framing, answer, answer_head, head, success_body};
use arctos_tests::server::{Change, Script, Step};
use arctos_tests::stage::{Stage, config};
use arctos_tests::tls::{Identity, Version};
use serde_json::json;

/// The deadline of every call but those with a long task.
const DEADLINE: Duration = Duration::from_millis(300);
const SLOWLY: Duration = Duration::from_millis(100);

const CALL: &str = "timeout_ms";
const CONNECTION: &str = "connect_timeout_ms";

#[test]
fn connecting() {
    let queue = FullQueue::new("127.0.0.1", 0);
    let mut phases = Phases::default();
    for limit in [CALL, CONNECTION] {
        for scheme in ["http", "https"] {
            let config = config(&format!("{scheme}://{}", queue.address()));
            phases.run_unconnected(scheme, Round::of_twenty(DEADLINE), config, Phase::CONNECT.by(limit));
        }
    }
    phases.finish();
    queue.nobody_came().unwrap();
}

#[test]
fn the_handshake() {
    let mut phases = Phases::default();
    let mut run = |case: &str, version, limit, script: Script| {
        let script = script.then(Step::AwaitRelease);
        let phase = Phase::HANDSHAKE.by(limit);
        phases.run(case, Round::of_twenty(DEADLINE), Scheme::Https(version), phase, script);
    };
    let first = |change| Script::silent().then(Step::Flight(change));
    let second = |change| first(Change::None).then(Step::Flight(change));
    for limit in [CALL, CONNECTION] {
        run("unread", Version::Tls13, limit, Script::silent());
    }
    for (version, limit) in [(Version::Tls12, CONNECTION), (Version::Tls13, CALL)] {
        run("unanswered", version, limit, first(Change::First(0)));
        run("a byte", version, limit, first(Change::First(1)));
        run("a header", version, limit, first(Change::First(5)));
        run("all but a byte", version, limit, first(Change::Without(1)));
        run("a byte at a time", version, limit, first(Change::Slow(SLOWLY)));
    }
    run("the client's part unread", Version::Tls12, CALL, first(Change::None));
    run("the client's part unanswered", Version::Tls12, CONNECTION, second(Change::First(0)));
    run("all but the last byte of all", Version::Tls12, CALL, second(Change::Without(1)));
    phases.finish();
}

#[test]
fn the_connections_own_ends_with_the_handshake() {
    let keys = json!({ "connect_timeout_ms": 600, "timeout_ms": 50_000 });
    let stage = Stage::https_with(Identity::right(Version::Tls13), keys);
    let pause = Duration::from_millis(1200);
    stage.run("a slow answer", MADE, |number| {
        let whole = answer("200 OK", Framing::Length, success_body(number).as_bytes());
        // The pause stands between the two halves of the answer and is longer than the connection may take.
        let half = whole.len() / 2;
        Script::made().then(Step::Pieces(whole[..half].to_vec(), half, pause)).send(&whole[half..]).close()
    });
}

#[test]
fn sending_the_request() {
    let mut phases = Phases::default();
    // A task of that length takes time to read, which is the processors' and not the deadline's: five at once. And the
    // clock runs from the entry.
    let deadline = Duration::from_millis(600);
    for scheme in Scheme::ALL {
        let round = Round { threads: 5, calls: 4, remark: longer_than_both_buffers(), ..Round::of_twenty(deadline) };
        let script = if scheme == Scheme::Http { Script::silent() } else { Script::silent().then(Step::Handshake) };
        phases.run("unread", round, scheme, Phase::REQUEST, script.then(Step::AwaitRelease));
    }
    phases.finish();
}

#[test]
fn waiting_for_the_answer() {
    let mut phases = Phases::default();
    let mut run = |case: &str, scheme, script| {
        phases.run(case, Round::of_twenty(DEADLINE), scheme, Phase::ANSWER, script);
    };
    let body = success_body("N");
    let whole_head = answer_head("200 OK", Framing::Length, body.len());
    run("unread", Scheme::Http, Script::silent().then(Step::AwaitRelease));
    for scheme in Scheme::ALL {
        run("no answer", scheme, Script::made().then(Step::AwaitRelease));
        run("half a head", scheme, Script::made().send(&whole_head[..20]).then(Step::AwaitRelease));
        run("no body", scheme, Script::made().send(&*whole_head).then(Step::AwaitRelease));
        run("a slow head", scheme, Script::made().then(Step::Pieces(whole_head.clone(), 1, SLOWLY)));
        let slow_body = Step::Pieces(body.clone().into(), 1, SLOWLY);
        run("a slow body", scheme, Script::made().send(&*whole_head).then(slow_body));
    }
    let early = head("103 Early Hints", &[]);
    let slow_early = Step::Pieces(early.repeat(50), early.len(), SLOWLY);
    run("slow interim answers", Scheme::Http, Script::made().then(slow_early));
    phases.finish();
}

#[test]
fn signals_do_not_move_it() {
    let mut phases = Phases::default();
    let storm = Round { signals: true, ..Round::of_twenty(DEADLINE) };
    let queue = FullQueue::new("127.0.0.1", 0);
    let config = config(&format!("http://{}", queue.address()));
    phases.run_unconnected("the connection", storm.clone(), config, Phase::CONNECT);
    let https = Scheme::Https(Version::Tls13);
    let silent = Script::silent().then(Step::AwaitRelease);
    phases.run("the handshake", storm.clone(), https, Phase::HANDSHAKE.by(CONNECTION), silent);
    let read = Script::made().then(Step::AwaitRelease);
    phases.run("the answer", storm, Scheme::Http, Phase::ANSWER, read);
    phases.finish();
}
