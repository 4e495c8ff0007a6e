//! TLS that breaks after the request went out leaves the caller with the truth, and what TLS does by itself between
//! the request and its answer is harmless.

use std::sync::Arc;
use std::time::Duration;

use arctos_tests::api::{Owned, Reply, TLS, UNKNOWN, task};
use arctos_tests::expected::{
    BAD_RESPONSE_UNKNOWN, BROKEN_UNKNOWN, Expected, MADE, REJECTED_NOT_CREATED, TLS_NOT_CREATED,
};
use arctos_tests::http::{Framing, answer, find, head, success_body};
use arctos_tests::server::{Change, Script, Server, Step};
use arctos_tests::stage::{Row, Stage, Table, config, config_tls, run_all, with};
use arctos_tests::tls::{Authority, ClientFiles, Flaw, Identity, Version};
use serde_json::{Value, json};

const VERSIONS: [Version; 2] = [Version::Tls12, Version::Tls13];
const TLS_UNKNOWN: Expected = Expected { code: TLS, outcome: UNKNOWN };

fn whole(number: &str) -> Vec<u8> {
    answer("200 OK", Framing::Length, success_body(number).as_bytes())
}

/// A record that is no record of this connection.
const FOREIGN: [&[u8]; 4] = [
    // An alert without encryption.
    b"\x15\x03\x03\x00\x02\x02\x28",
    // Data that no key has encrypted.
    b"\x17\x03\x03\x00\x28the tag of this record cannot be right..",
    // Longer than a record may be.
    b"\x17\x03\x03\xff\xffabc",
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
];

/// What is no TLS of this connection follows the first `count` bytes of an answer at once.
fn followed(answer: &[u8], count: usize, foreign: &'static [u8]) -> Script {
    Script::made().then(Step::Records(vec![answer[..count].to_vec()], Change::Followed(foreign))).fin()
}

#[test]
fn something_else_in_place_of_the_answer() {
    for version in VERSIONS {
        let stage = Stage::https(version);
        for (index, foreign) in FOREIGN.into_iter().enumerate() {
            let case = format!("{version:?}, {index}");
            let done = stage.run(&case, TLS_UNKNOWN, |_| followed(b"", 0, foreign));
            assert_eq!(stage.server.ledger().made(&done.number), 1);
            let whole = whole("N");
            let head = find(&whole, b"\r\n\r\n").expect("a head") + 4;
            for (what, count) in [("in the head", head - 2), ("behind it", head), ("in the body", whole.len() - 1)] {
                stage.run(&format!("{case}, {what}"), TLS_UNKNOWN, |_| followed(&whole, count, foreign));
            }
            // Only the end of TLS could say that this answer is whole.
            let open = answer("200 OK", Framing::Close, success_body("N").as_bytes());
            stage.run(&format!("{case}, in place of the end"), TLS_UNKNOWN, |_| followed(&open, open.len(), foreign));
        }
    }
}

#[test]
fn something_else_behind_what_decides() {
    for version in VERSIONS {
        let stage = Stage::https(version);
        let mut table = Table::new();
        for (index, foreign) in FOREIGN.into_iter().enumerate() {
            let case = format!("{version:?}, {index}");
            for framing in [Framing::Length, Framing::Chunked(25)] {
                let whole = answer("200 OK", framing, success_body("N").as_bytes());
                let after = format!("{case}, behind the answer, {framing:?}");
                table.take(stage.attempt(&after, MADE, |_| followed(&whole, whole.len(), foreign)));
            }
            // A whole head decides.
            let refusal = head("400 Bad Request", &["Content-Length: 10"]);
            let refusal = Script::request().then(Step::Records(vec![refusal], Change::Followed(foreign))).fin();
            table.take(stage.attempt(&format!("{case}, behind a refusal"), REJECTED_NOT_CREATED, |_| refusal));
        }
        table.finish();
    }
}

/// The record with the answer has one wrong bit, in each of its bytes.
fn one_bit_of_the_answer_is_wrong(version: Version) {
    let all = Script::made().then(Step::Records(vec![whole("N")], Change::None)).close();
    let record = Stage::https(version).run("the whole record", MADE, |_| all).only().records.clone();
    let row = |place| -> Row {
        let expected = match place {
            // RFC 8446, 5.1: the version of a record means nothing, and its second byte is not looked at.
            2 if version == Version::Tls13 => MADE,
            // Where the record's length grows, the client waits for more.
            4 if record[4] < 0x80 => BROKEN_UNKNOWN,
            _ => TLS_UNKNOWN,
        };
        let script = Script::made().then(Step::Records(vec![whole("N")], Change::Flipped(place))).fin();
        (format!("{version:?}, byte {place} of {}", record.len()), expected, script)
    };
    run_all(|| Stage::https(version), (0..record.len()).map(row).collect());
}

#[test]
fn each_byte_of_the_answer_counts_in_tls_1_2() {
    one_bit_of_the_answer_is_wrong(Version::Tls12);
}

#[test]
fn each_byte_of_the_answer_counts_in_tls_1_3() {
    one_bit_of_the_answer_is_wrong(Version::Tls13);
}

fn members_only(version: Version) -> Stage {
    Stage::https_with(Identity { asks_for_certificate: true, ..Identity::right(version) }, json!({}))
}

/// A server that lets in only clients of its authority, and a client with these keys of `tls`.
fn members_and(version: Version, authority: &Authority, keys: Value) -> Stage {
    let identity = Identity { asks_for_certificate: true, ..Identity::right(version) };
    let server = Server::start("127.0.0.1", Some(authority.server(identity)));
    let client = Owned::new(&with(config(&server.base_url()), authority.trusted_with(keys)));
    Stage::of(server, client)
}

#[test]
fn a_client_whose_certificate_is_not_accepted_is_refused() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let of_file = "refused the client's certificate, that of tls.cert_file";
    let subject = format!("the subject CN=Fault server and the issuer {}", stranger.name());
    let valid = "is valid from 2020-01-01T00:00:00Z to 2021-01-01T00:00:00Z";
    for (case, files, words) in [
        ("none", None, ["CertificateRequired", "wants a certificate of the client", "tls.cert_file"]),
        ("of another authority", Some(stranger.client(None)), ["UnknownCA", of_file, &subject]),
        ("expired", Some(authority.client(Some(Flaw::Expired))), ["CertificateExpired", of_file, valid]),
        (
            "for servers only",
            Some(authority.client(Some(Flaw::ForServersOnly))),
            ["UnsupportedCertificate", of_file, "the subject CN=Fault server"],
        ),
    ] {
        let keys = files.as_ref().map_or(json!({}), ClientFiles::keys);
        let says = |case: &str, reply: &Reply| {
            let document = reply.json();
            let message = document["message"].as_str().expect("a message");
            assert!(words.iter().all(|word| message.contains(word)), "{case}: {message}");
            assert_eq!(document["attempts"], 1, "{case}: {document}");
            assert!(document.get("http_status").is_none(), "{case}: {document}");
        };
        // With TLS 1.2 the client waits for the end of the server's handshake, and is refused there.
        let stage = members_and(Version::Tls12, &authority, keys.clone());
        let done = stage.run(&format!("{case}, TLS 1.2"), TLS_NOT_CREATED, |_| Script::request().fin());
        assert_eq!(done.only().request_bytes(), 0, "{case}");
        assert!(!done.only().handshaken, "{case}");
        says(case, &done.reply);

        // With TLS 1.3 it does not wait: the request is on its way when the server refuses. Nothing was decrypted of
        // it, so that the server cannot tell what arrived; and the ledger is empty.
        let stage = members_and(Version::Tls13, &authority, keys);
        stage.server.next(Script::silent().then(Step::Refuse));
        let reply = stage.client.add(&task(&stage.number()));
        let seen = &stage.server.settle(0).expect("the connection has ended")[0];
        assert_eq!((reply.code, reply.outcome), (TLS, UNKNOWN), "{case}: {reply:?}");
        says(case, &reply);
        assert!(!seen.handshaken && seen.raw > seen.flights[0] + 300, "{case}: {seen:?}");
        assert!(stage.server.ledger().all().is_empty(), "{case}");
    }
}

#[test]
fn a_client_whose_certificate_is_accepted_makes_its_appointment() {
    let authority = Authority::new();
    // Of the authority, and of one below it, which the server does not have: the client shows it.
    for files in [authority.client(None), authority.below("Branch authority").client(None)] {
        for version in VERSIONS {
            let stage = members_and(version, &authority, files.keys());
            for call in ["first call", "second call"] {
                let done = stage
                    .run(&format!("{version:?}, {call}"), MADE, |number| Script::made().send(whole(number)).close());
                assert!(done.only().handshaken);
            }
            // A server that asks for none gets none, and minds nothing.
            let server = Server::start("127.0.0.1", Some(authority.server(Identity::right(version))));
            let client = Owned::new(&with(config(&server.base_url()), authority.trusted_with(files.keys())));
            Stage::of(server, client).run("not asked", MADE, |number| Script::made().send(whole(number)).close());
        }
    }
}

/// A task that no socket takes at once.
fn large(number: &str) -> String {
    task(number).replace("\"video\"", &format!("\"task_remark\":\"{}\",\"video\"", "x".repeat(8 << 20)))
}

#[track_caller]
fn is_refused(reply: &Reply, case: &str) {
    assert_eq!((reply.code, reply.outcome), (TLS, UNKNOWN), "{case}: {reply:?}");
    let document = reply.json();
    assert!(document["message"].as_str().expect("a message").contains("CertificateRequired"), "{case}: {reply:?}");
}

#[test]
fn a_refusal_is_noticed_while_the_request_goes_out() {
    for (case, end) in [
        ("the server reads no further", Script::silent().then(Step::AwaitRelease)),
        ("the server closes", Script::silent().fin().then(Step::AwaitRelease)),
    ] {
        let stage = members_only(Version::Tls13);
        stage.server.next(Script::silent().then(Step::Refuse).and(end));
        is_refused(&stage.client.add(&large(&stage.number())), case);
        stage.server.release();
        assert_eq!(stage.server.settle(0).expect("the connection has ended").len(), 1, "{case}");
    }
}

#[test]
fn a_refusal_with_a_reset_is_noticed_while_the_request_goes_out() {
    const SOME_OF_THE_REQUEST: u64 = 16 * 1024;
    let stage = members_only(Version::Tls13);
    stage.server.next(Script::silent().then(Step::Refuse));
    stage.client.add(&task(&stage.number()));
    let hello = stage.server.settle(0).expect("the connection has ended")[0].flights[0];
    // A reset that came before the first byte of the request would leave none of it sent.
    stage.server.next(
        Script::silent()
            .then(Step::Raw(usize::try_from(hello).expect("a size")))
            .then(Step::AwaitRelease)
            .then(Step::Refuse)
            .reset(),
    );
    std::thread::scope(|scope| {
        let call = scope.spawn(|| stage.client.add(&large(&stage.number())));
        while stage.server.brought(1).first().is_none_or(|brought| *brought < SOME_OF_THE_REQUEST) {
            assert!(!call.is_finished(), "the request does not come");
            std::thread::sleep(Duration::from_millis(1));
        }
        stage.server.release();
        is_refused(&call.join().expect("the call returns"), "the server resets");
    });
    assert_eq!(stage.server.settle(0).expect("the connections have ended").len(), 2);
}

#[test]
fn new_keys_at_any_time_are_harmless() {
    let stage = Stage::https(Version::Tls13);
    stage.run("before the request is read", MADE, |number| {
        Script::silent()
            .then(Step::Handshake)
            .then(Step::KeyUpdate)
            .then(Step::Request)
            .then(Step::Make)
            .send(whole(number))
            .close()
    });
    stage.run("before the answer", MADE, |number| Script::made().then(Step::KeyUpdate).send(whole(number)).close());
    stage.run("in the middle of the answer", MADE, |number| {
        let whole = whole(number);
        let (first, second) = whole.split_at(whole.len() / 2);
        Script::made().send(first).then(Step::KeyUpdate).send(second).close()
    });
    let done = stage.run("before each byte of the answer", MADE, |number| {
        let bytes = whole(number);
        bytes.iter().fold(Script::made(), |script, byte| script.then(Step::KeyUpdate).send([*byte])).close()
    });
    assert_eq!(done.reply.text(), success_body(&done.number));
}

#[test]
fn session_tickets_are_harmless() {
    for (case, tickets) in [("none", 0), ("the usual number", 2), ("many", 50)] {
        let authority = Authority::new();
        let mut config = Arc::unwrap_or_clone(authority.server(Identity::right(Version::Tls13)));
        config.send_tls13_tickets = tickets;
        let server = Server::start("127.0.0.1", Some(Arc::new(config)));
        let client = Owned::new(&config_tls(&server.base_url(), &authority));
        let stage = Stage::of(server, client);
        for call in ["first call", "second call", "third call"] {
            let done = stage.run(&format!("{case}, {call}"), MADE, |number| Script::made().send(whole(number)).close());
            assert_eq!(done.reply.text(), success_body(&done.number), "{case}, {call}");
        }
    }
}

#[test]
fn a_server_that_asks_for_another_key_gets_it() {
    for version in VERSIONS {
        let identity = Identity { asks_for_key: true, ..Identity::right(version) };
        Stage::https_with(identity, json!({}))
            .run(&format!("{version:?}"), MADE, |number| Script::made().send(whole(number)).close());
    }
}

#[test]
fn a_server_of_https_behind_an_http_url() {
    let refusal = head("400 The plain HTTP request was sent to HTTPS port", &["Content-Length: 0"]);
    for (case, expected, said) in [
        ("an alert", BAD_RESPONSE_UNKNOWN, b"\x15\x03\x01\x00\x02\x02\x46".to_vec()),
        ("nothing", BROKEN_UNKNOWN, vec![]),
        ("a refusal in HTTP", REJECTED_NOT_CREATED, refusal),
    ] {
        Stage::http().run(case, expected, |_| Script::silent().then(Step::Read(5)).send(said).fin());
    }

    // A server that is one: it cannot read what arrives.
    let authority = Authority::new();
    let server = Server::start("127.0.0.1", Some(authority.server(Identity::right(Version::Tls13))));
    server.next(Script::silent().then(Step::Handshake));
    let client = Owned::new(&config(&server.base_url().replace("https://", "http://")));
    let reply = client.add(&task("BR0943-187"));
    assert_eq!((reply.code, reply.outcome), (BAD_RESPONSE_UNKNOWN.code, BAD_RESPONSE_UNKNOWN.outcome), "{reply:?}");
    assert_eq!(reply.json()["attempts"], 1);
    let seen = server.settle(0).expect("the connection has ended");
    assert!(seen.len() == 1 && !seen[0].handshaken && seen[0].request_bytes() == 0, "{seen:?}");
    assert!(server.ledger().all().is_empty());
}
