//! Every function from every thread at once, on one client, and nobody waits for another's network.

use std::collections::HashSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use arctos_tests::api::{CREATED, OK, Owned, task};
use arctos_tests::http::{Framing, answer, success_body};
use arctos_tests::server::{Script, Server, Step};
use arctos_tests::stage::{Stage, TOKEN, config};
use arctos_tests::tls::Version;

const THREADS: usize = 16;

/// The answer to a number, which tells the number.
fn answers(number: &str) -> Vec<u8> {
    answer("200 OK", Framing::Length, success_body(number).as_bytes())
}

/// Sets the script of a number: the appointment is made and answered.
fn serve(server: &Server, number: &str) {
    server.number(number, Script::silent().then(Step::Make).send(answers(number)).close());
}

#[test]
fn sixteen_threads_make_each_appointment_once() {
    for stage in [Stage::http(), Stage::https(Version::Tls12), Stage::https(Version::Tls13)] {
        let calls = 50;
        stage.server.always(Script::request().then(Step::ByNumber));
        let number = |thread, call| format!("T{thread:02}-{call:02}");
        for thread in 0..THREADS {
            for call in 0..calls {
                serve(&stage.server, &number(thread, call));
            }
        }
        let start = Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (client, start) = (&stage.client, &start);
                scope.spawn(move || {
                    start.wait();
                    for call in 0..calls {
                        let number = number(thread, call);
                        let reply = client.add(&task(&number));
                        assert_eq!((reply.code, reply.outcome), (OK, CREATED), "{number}: {reply:?}");
                        assert_eq!(reply.text(), success_body(&number), "another call's answer");
                    }
                });
            }
        });
        let seen = stage.server.settle(0).expect("every connection has ended");
        assert_eq!(seen.len(), THREADS * calls, "one connection a call");
        let ledger = stage.server.ledger();
        assert_eq!(ledger.all().len(), THREADS * calls);
        assert!(ledger.all().values().all(|made| *made == 1), "{ledger:?}");
    }
}

#[test]
fn a_fast_call_does_not_wait_for_slow_ones() {
    for stage in [Stage::http(), Stage::https(Version::Tls13)] {
        let hanging = AtomicBool::new(true);
        stage.server.always(Script::request().then(Step::ByNumber));
        std::thread::scope(|scope| {
            for thread in 1..THREADS {
                let number = format!("SLOW-{thread}");
                let script = Script::silent().then(Step::AwaitRelease).then(Step::Make).send(answers(&number)).close();
                stage.server.number(&number, script);
                let (client, hanging) = (&stage.client, &hanging);
                scope.spawn(move || {
                    let reply = client.add(&task(&number));
                    assert!(!hanging.load(Ordering::SeqCst), "returned before the server answered: {reply:?}");
                    assert_eq!((reply.code, reply.text()), (OK, &*success_body(&number)), "{reply:?}");
                });
            }
            stage.server.await_requests(THREADS - 1).expect("all of them hang");
            serve(&stage.server, "FAST");
            let reply = stage.client.add(&task("FAST"));
            assert_eq!((reply.code, reply.text()), (OK, &*success_body("FAST")), "{reply:?}");
            // The slow ones are answered from here on: the fast one did not wait for them.
            hanging.store(false, Ordering::SeqCst);
            stage.server.release();
        });
        assert_eq!(stage.server.ledger().all().len(), THREADS);
        stage.server.settle(0).expect("every connection has ended");
    }
}

#[test]
fn connections_that_hang_in_the_handshake_keep_nobody_waiting() {
    let stage = Stage::https(Version::Tls13);
    std::thread::scope(|scope| {
        for thread in 1..THREADS {
            stage.server.next(Script::silent().then(Step::AwaitRelease).then(Step::Fin));
            let client = &stage.client;
            scope.spawn(move || {
                let reply = client.add(&task(&format!("SLOW-{thread}")));
                assert_eq!(reply.code, arctos_tests::api::CONNECT, "{reply:?}");
            });
        }
        stage.server.await_connections(THREADS - 1).expect("all of them connect");
        stage.server.next(Script::made().send(answers("FAST")).close());
        assert_eq!(stage.client.add(&task("FAST")).code, OK);
        stage.server.release();
    });
    assert_eq!(stage.server.ledger().all().len(), 1);
    stage.server.settle(0).expect("every connection has ended");
}

#[test]
fn the_token_changes_while_calls_are_made() {
    let stage = Stage::http();
    let tokens: Vec<String> = (0..4).map(|token| format!("{TOKEN}-{token}-{}", "x".repeat(200 * token))).collect();
    stage.server.always(Script::request().then(Step::ByNumber));
    let number = |thread, call| format!("T{thread}-{call:02}");
    for thread in 0..4 {
        for call in 0..50 {
            serve(&stage.server, &number(thread, call));
        }
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|thread| {
                let client = &stage.client;
                scope.spawn(move || {
                    for call in 0..50 {
                        let reply = client.add(&task(&number(thread, call)));
                        assert_eq!(reply.code, OK, "{reply:?}");
                    }
                })
            })
            .collect();
        let setter = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                for token in &tokens {
                    assert_eq!(stage.client.set_token(token).code, OK);
                }
            }
        });
        let results: Vec<_> = callers.into_iter().map(|caller| caller.join()).collect();
        done.store(true, Ordering::SeqCst);
        setter.join().expect("every token is taken");
        results.into_iter().for_each(|result| result.expect("every call succeeds"));
    });
    let mut used = HashSet::new();
    for seen in stage.server.settle(0).expect("every connection has ended") {
        let request = seen.requests().next().expect("a request");
        let authorization = request.header("Authorization").expect("a token").to_owned();
        let token = authorization.strip_prefix("Bearer ").expect("a bearer token").to_owned();
        assert!(token == TOKEN || tokens.contains(&token), "a token that nobody set: {token}");
        used.insert(token);
    }
    assert!(used.len() > 1, "only one of the tokens was used");
    assert_eq!(stage.server.ledger().all().len(), 200);
}

#[test]
fn calls_in_flight_finish_when_their_client_is_freed() {
    for stage in [Stage::http(), Stage::https(Version::Tls13)] {
        let Stage { client, server, .. } = stage;
        server.always(Script::request().then(Step::ByNumber));
        // The pointer alone: what C has left of a client that it has freed.
        let freed = std::mem::ManuallyDrop::new(Owned(client.0));
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let number = format!("T{thread}");
                let script = Script::silent().then(Step::AwaitRelease).then(Step::Make).send(answers(&number)).close();
                server.number(&number, script);
                let freed = &freed;
                scope.spawn(move || {
                    let reply = freed.add(&task(&number));
                    assert_eq!((reply.code, reply.text()), (OK, &*success_body(&number)), "{reply:?}");
                });
            }
            server.await_requests(THREADS).expect("all calls are in flight");
            drop(client);
            let reply = freed.add(&task("LATE"));
            assert_eq!(reply.code, arctos_tests::api::BAD_ARGUMENT, "{reply:?}");
            server.release();
        });
        assert_eq!(server.ledger().all().len(), THREADS);
        server.settle(0).expect("every connection has ended");
    }
}

#[test]
fn clients_come_and_go_on_all_threads() {
    let server = Server::plain();
    server.always(Script::request().then(Step::ByNumber));
    let number = |thread, call| format!("T{thread:02}-{call:02}");
    for thread in 0..THREADS {
        for call in 0..10 {
            serve(&server, &number(thread, call));
        }
    }
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let server = &server;
            scope.spawn(move || {
                for call in 0..10 {
                    let client = Owned::new(&config(&server.base_url()));
                    let number = number(thread, call);
                    let reply = client.add(&task(&number));
                    assert_eq!((reply.code, reply.text()), (OK, &*success_body(&number)), "{reply:?}");
                }
            });
        }
    });
    assert_eq!(server.ledger().all().len(), THREADS * 10);
    server.settle(0).expect("every connection has ended");
}
