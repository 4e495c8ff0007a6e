//! A server that never pauses, so that there is always something to read, does not outrun the deadline.

use std::time::Duration;

use arctos_tests::deadline::{Phase, Phases, Round, Scheme, longer_than_both_buffers};
use arctos_tests::http::head;
use arctos_tests::server::{Script, Step};

/// One call at a time: it and the server keep a processor busy each.
fn three_calls() -> Round {
    Round { threads: 1, calls: 3, ..Round::of_twenty(Duration::from_millis(300)) }
}

#[test]
fn interim_answers_without_end() {
    let mut phases = Phases::default();
    let flood = Step::Flood(head("103 Early Hints", &[]).repeat(1000));
    for scheme in Scheme::ALL {
        let script = Script::made().then(flood.clone());
        phases.run("after the request", three_calls(), scheme, Phase::ANSWER, script);
        let begun = if scheme == Scheme::Http { Step::Read(1) } else { Step::Handshake };
        let script = Script::silent().then(begun).then(flood.clone());
        let round = Round { remark: longer_than_both_buffers(), ..three_calls() };
        phases.run("before the request is read", round, scheme, Phase::REQUEST, script);
    }
    phases.finish();
}
