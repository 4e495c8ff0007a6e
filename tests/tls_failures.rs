//! A server that cannot prove who it is, or cannot do the handshake, gets no byte of the request, and is not asked
//! again.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::Arc;

use arctos_tests::api::{Owned, task};
use arctos_tests::expected::{CONNECT_NOT_CREATED, Expected, MADE, TLS_NOT_CREATED};
use arctos_tests::http::{Framing, answer, find, head, success_body};
use arctos_tests::ledger::truth;
use arctos_tests::server::{Change, Script, Server, Step};
use arctos_tests::stage::{Done, Row, Stage, TOKEN, config, config_tls, run_all, with};
use arctos_tests::tls::{Authority, Flaw, Identity, Version};
use arctos_tests::tools::{Running, succeed, tool};
use serde_json::json;

const VERSIONS: [Version; 2] = [Version::Tls12, Version::Tls13];

/// No more than alerts may follow the client's first flight. The shortest request is much longer.
const ALERTS: u64 = 64;

/// Nothing of the request arrived, and not in a way in which the server could not read it either.
#[track_caller]
fn got_no_request(case: &str, done: &Done) {
    assert_eq!(done.only().request_bytes(), 0, "{case}");
    let first = done.only().flights.first().unwrap_or_else(|| panic!("{case}: the server said nothing"));
    assert!(done.only().raw <= first + ALERTS, "{case}: {} bytes after the first flight", done.only().raw - first);
}

/// Why there is no TLS: the alert that the server gets, and what the message says.
type Why<'a> = (&'a str, &'a [&'a str]);

/// One call to a server of this identity, by a client that trusts this authority and knows it by this name. The
/// message says why there was none.
#[track_caller]
fn refused(case: &str, identity: Identity, trusted: &Authority, signer: &Authority, name: &str, why: Why) -> String {
    let server = Server::start("127.0.0.1", Some(signer.server(identity)));
    let client = Owned::new(&config_tls(&server.base_url_as(name), trusted));
    let stage = Stage::of(server, client);
    let done = stage.run(&format!("{case}, {:?}", identity.version), TLS_NOT_CREATED, |_| Script::request());
    got_no_request(case, &done);
    assert!(!done.only().handshaken, "{case}: the client finished the handshake");
    let document = done.reply.json();
    assert_eq!(document["host"], format!("{name}:{}", stage.server.address().port()), "{case}");
    let message = document["message"].as_str().expect("a message");
    let (alert, words) = why;
    for word in words {
        assert!(message.contains(word), "{case}: {message}");
    }
    // It names the host, and the subject and the issuer that came.
    assert!(
        message.starts_with(&format!("no TLS with {name}:{}: ", stage.server.address().port())),
        "{case}: {message}"
    );
    assert!(message.contains("the subject CN=") && message.contains("the issuer CN="), "{case}: {message}");
    let note = done.only().note.as_deref().unwrap_or_default();
    assert!(note.contains(&format!("alert: {alert}")), "{case}: the server got {note}");
    message.to_owned()
}

#[test]
fn certificates_are_checked() {
    let authority = Authority::named("Fault server authority");
    let namesake = Authority::named("Fault server authority");
    let stranger = Authority::new();
    let stranger_is_named = format!("not trusted: {}", stranger.name());
    let untrusted: Why = ("UnknownCA", &[&stranger_is_named, "tls.ca_file", "leaves out"]);
    let wrong: Why = ("DecryptError", &["is not acceptable", "signature", "another key"]);
    for version in VERSIONS {
        let right = Identity::right(version);
        let message = refused("unknown authority", right, &authority, &stranger, "localhost", untrusted);
        assert!(
            message.contains(&format!("the subject CN=Fault server and the issuer {}", stranger.name())),
            "{message}"
        );
        assert!(!message.contains("inspects"), "{message}");
        refused("another of the same name", right, &authority, &namesake, "localhost", wrong);
        let another = |names| -> [String; 1] { [format!("for another host name: it is for {names};")] };
        let [arctos] = another("arctos.bank.example");
        let other = Identity { names: &["arctos.bank.example"], ..right };
        refused("another name", other, &authority, &authority, "localhost", ("BadCertificate", &[&arctos]));
        refused("no such address", other, &authority, &authority, "127.0.0.1", ("BadCertificate", &[&arctos]));
        let name_only = Identity { names: &["localhost"], ..right };
        let [localhost] = another("localhost");
        let case = "a name instead of an address";
        refused(case, name_only, &authority, &authority, "127.0.0.1", ("BadCertificate", &[&localhost]));
        let below = Identity { names: &["*.localhost"], ..right };
        let [wildcard] = another("*.localhost");
        refused(
            "a wildcard for names below",
            below,
            &authority,
            &authority,
            "localhost",
            ("BadCertificate", &[&wildcard]),
        );
        let nothing = Identity { names: &[], ..right };
        let [none] = another("no host at all");
        refused("no name", nothing, &authority, &authority, "localhost", ("BadCertificate", &[&none]));
        let many = Identity { names: &["a", "b", "c", "192.0.2.1", "2001:db8::1", "f", "g"], ..right };
        let [all] = another("a, b, c, 192.0.2.1, 2001:db8::1 and 2 more");
        refused("many names", many, &authority, &authority, "localhost", ("BadCertificate", &[&all]));
        let clock = "the clock of this machine";
        let flaws: [(Flaw, Why); 10] = [
            (
                Flaw::Expired,
                ("CertificateExpired", &["server's certificate has expired, on 2021-01-01T00:00:00Z", clock]),
            ),
            (Flaw::NotYetValid, ("CertificateExpired", &["is not valid yet, but from 2999-01-01T00:00:00Z", clock])),
            (
                Flaw::SignedByAnExpiredOne,
                ("CertificateExpired", &["that of CN=Expired authority, has expired, on 2021-01-01T00:00:00Z", clock]),
            ),
            (Flaw::WrongUsage, ("UnsupportedCertificate", &["is not meant for servers"])),
            (Flaw::MaySign, ("UnsupportedCertificate", &["is not acceptable: its key may sign other certificates"])),
            (Flaw::OfAnAuthority, ("CertificateUnknown", &["is not acceptable: it is that of an authority"])),
            (
                Flaw::SelfSigned,
                ("UnknownCA", &["an authority that is not trusted: it is signed by itself", "tls.ca_file"]),
            ),
            (
                Flaw::SignedByNoAuthority,
                ("CertificateUnknown", &["is not acceptable: it is signed by a certificate that may not"]),
            ),
            (Flaw::Altered, wrong),
            (Flaw::KeyOfAnother, ("DecryptError", &["is not acceptable", "the server does not have its key"])),
        ];
        for (flaw, why) in flaws {
            refused(&format!("{flaw:?}"), right.with(flaw), &authority, &authority, "localhost", why);
        }
    }
}

#[test]
fn an_authority_between_is_named_where_it_is_the_one_that_is_missing() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let between = stranger.below("Authority between");
    let above = format!("not trusted: {}", stranger.name());
    for version in VERSIONS {
        let right = Identity::right(version);
        let message = refused("below a stranger", right, &authority, &between, "localhost", ("UnknownCA", &[&above]));
        assert!(message.contains("the issuer CN=Authority between") && !message.contains("leaves out"), "{message}");
    }
}

#[test]
fn a_proxy_that_inspects_tls_is_told_by_its_name() {
    let authority = Authority::new();
    for (name, inspects) in [("Zscaler Root CA", true), ("mitmproxy", true), ("Bank Root CA", false)] {
        let right = Identity::right(Version::Tls13);
        let message = refused(name, right, &authority, &Authority::named(name), "localhost", ("UnknownCA", &[name]));
        assert_eq!(message.contains("a proxy that inspects TLS"), inspects, "{message}");
        // What is wrong with it otherwise has nothing to do with that.
        let inspecting = Authority::named(name);
        let expired = right.with(Flaw::Expired);
        let message = refused(name, expired, &inspecting, &inspecting, "localhost", ("CertificateExpired", &[]));
        assert!(!message.contains("inspects"), "{message}");
    }
}

#[test]
fn what_a_certificate_says_is_made_fit_for_a_message() {
    let authority = Authority::new();
    let long = "x".repeat(5_000);
    for name in ["two\r\nlines", "\u{1b}[2J", "\u{202e}backwards", "\u{0}", &long] {
        let right = Identity::right(Version::Tls13);
        let message = refused(name, right, &authority, &Authority::named(name), "localhost", ("UnknownCA", &[]));
        let plain = |sign: char| !sign.is_control() && sign != '\u{202e}';
        assert!(message.chars().all(plain) && message.len() < 1_500, "{message:?}");
    }
}

#[test]
fn other_roots_do_not_know_the_authority() {
    for roots in ["system", "bundled"] {
        let authority = Authority::new();
        let server = Server::start("127.0.0.1", Some(authority.server(Identity::right(Version::Tls13))));
        let client = Owned::new(&with(config(&server.base_url()), json!({ "tls": { "roots": roots } })));
        let stage = Stage::of(server, client);
        got_no_request(roots, &stage.run(roots, TLS_NOT_CREATED, |_| Script::request()));
    }
}

#[test]
fn the_right_certificate_is_accepted_after_a_wrong_one() {
    // The client of the right server is not affected by what it was shown before.
    let authority = Authority::new();
    let right = Identity::right(Version::Tls13);
    refused("expired", right.with(Flaw::Expired), &authority, &authority, "localhost", ("CertificateExpired", &[]));
    let server = Server::start("127.0.0.1", Some(authority.server(right)));
    let client = Owned::new(&config_tls(&server.base_url_as("localhost"), &authority));
    Stage::of(server, client).run("the right one", MADE, |number| {
        Script::made().send(answer("200 OK", Framing::Length, success_body(number).as_bytes())).close()
    });
}

/// A record of TLS.
fn record(kind: u8, version: [u8; 2], body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("a record");
    [&[kind][..], &version, &length.to_be_bytes(), body].concat()
}

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION: u8 = 23;
const TLS_1_2: [u8; 2] = [3, 3];

/// The record with a ServerHello that chooses this version and this cipher suite.
fn server_hello(version: [u8; 2], suite: [u8; 2]) -> Vec<u8> {
    let hello = [&version[..], &[7; 32], &[0], &suite, &[0]].concat();
    let length = u8::try_from(hello.len()).expect("a short one");
    record(HANDSHAKE, version, &[&[2, 0, 0, length][..], &hello].concat())
}

/// The client's first flight is answered by these bytes and an end. The message of what came of it.
#[track_caller]
fn answered_by(case: &str, expected: Expected, bytes: Vec<u8>, end: fn(Script) -> Script) -> String {
    let authority = Authority::new();
    let server = Server::plain();
    let url = server.base_url().replace("http://", "https://");
    let stage = Stage::of(server, Owned::new(&config_tls(&url, &authority)));
    let done = stage.run(case, expected, |_| end(Script::silent().then(Step::Read(5)).send(bytes)));
    let seen = &done.only().exchanges[0].plain;
    assert_eq!(seen[0], HANDSHAKE, "{case}: no handshake");
    let hello = 5 + u64::from(u16::from_be_bytes([seen[3], seen[4]]));
    let arrived = done.only().request_bytes() as u64;
    assert!(arrived <= hello + ALERTS, "{case}: {} bytes after the first flight", arrived - hello);
    for text in [TOKEN, "POST", &done.number, &task(&done.number)] {
        assert_eq!(find(seen, text.as_bytes()), None, "{case}: {text}");
    }
    done.reply.json()["message"].as_str().expect("a message").to_owned()
}

#[test]
fn a_server_that_speaks_no_tls_gets_nothing() {
    for (case, bytes) in [
        ("http", head("400 Bad Request", &["Content-Length: 0"])),
        ("a mail server", b"220 mail.bank.example ESMTP\r\n".to_vec()),
        ("a terminal", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("noughts", vec![0; 64]),
        ("no such type of a record", record(99, TLS_1_2, b"hello")),
    ] {
        let message = answered_by(case, TLS_NOT_CREATED, bytes, Script::close);
        assert!(message.contains("is no TLS; it may speak plain http"), "{case}: {message}");
    }
}

#[test]
fn a_server_that_breaks_the_rules_of_tls_gets_nothing() {
    for (case, bytes) in [
        ("no such version", record(HANDSHAKE, [9, 9], b"hello")),
        ("a record that is too long", [&[HANDSHAKE, 3, 3, 0xff, 0xff][..], &[0; 4096]].concat()),
        ("a record without contents", record(HANDSHAKE, TLS_1_2, b"")),
        ("a message that is too long", record(HANDSHAKE, TLS_1_2, &[2, 0xff, 0xff, 0xff])),
        ("a message that is none", record(HANDSHAKE, TLS_1_2, &[2, 0, 0, 3, 3, 3, 7])),
        ("another message", record(HANDSHAKE, TLS_1_2, &[14, 0, 0, 0])),
        ("data at once", record(APPLICATION, TLS_1_2, &[7; 100])),
        ("http after a hello", [server_hello(TLS_1_2, [0xc0, 0x2b]), head("400 Bad Request", &[])].concat()),
    ] {
        let message = answered_by(case, TLS_NOT_CREATED, bytes, Script::close);
        assert!(!message.contains("plain http"), "{case}: {message}");
    }
}

#[test]
fn a_server_that_refuses_gets_nothing() {
    for (name, alert) in [
        ("unexpected_message", 10),
        ("handshake_failure", 40),
        ("bad_certificate", 42),
        ("illegal_parameter", 47),
        ("access_denied", 49),
        ("protocol_version", 70),
        ("insufficient_security", 71),
        ("internal_error", 80),
        ("inappropriate_fallback", 86),
        ("missing_extension", 109),
        ("unrecognized_name", 112),
    ] {
        answered_by(name, TLS_NOT_CREATED, record(ALERT, TLS_1_2, &[2, alert]), Script::close);
    }
}

#[test]
fn a_server_that_is_too_old_gets_nothing() {
    for (name, version) in [("SSL 3.0", [3, 0]), ("TLS 1.0", [3, 1]), ("TLS 1.1", [3, 2])] {
        // TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, which these versions have.
        answered_by(name, TLS_NOT_CREATED, server_hello(version, [0xc0, 0x13]), Script::close);
        let alert = record(ALERT, version, &[2, 70]);
        answered_by(&format!("{name}, refusing"), TLS_NOT_CREATED, alert, Script::close);
    }
    // TLS_RSA_WITH_RC4_128_SHA, which nobody offers.
    answered_by("an old cipher suite", TLS_NOT_CREATED, server_hello(TLS_1_2, [0, 5]), Script::close);
}

#[test]
fn a_server_that_leaves_in_the_handshake_gets_nothing() {
    let half = server_hello(TLS_1_2, [0xc0, 0x2b])[..30].to_vec();
    for (what, end) in [("FIN", Script::fin as fn(Script) -> Script), ("reset", Script::reset)] {
        for (case, bytes) in [
            ("nothing", vec![]),
            ("half a record", half.clone()),
            ("a close_notify", record(ALERT, TLS_1_2, &[1, 0])),
            ("a warning", record(ALERT, TLS_1_2, &[1, 112])),
        ] {
            answered_by(&format!("{case}, {what}"), CONNECT_NOT_CREATED, bytes, end);
        }
    }
}

/// OpenSSL's server with nothing newer than TLS 1.1, which OpenSSL itself can talk to.
#[test]
fn a_real_server_of_tls_1_1_gets_nothing() {
    let Some(openssl) = tool("a server of TLS 1.1", "openssl", "openssl") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("a path in UTF-8").to_owned();
    let (key, certificate) = (path("key.pem"), path("certificate.pem"));
    succeed(
        Command::new(&openssl)
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost", "-keyout", &key, "-out", &certificate]),
    );
    let old = ["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"];
    let server = Command::new(&openssl)
        .args(["s_server", "-accept", "127.0.0.1:0", "-naccept", "2", "-key", &key, "-cert", &certificate])
        .args(old)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the server starts");
    let mut server = Running(server);
    let mut said = BufReader::new(server.0.stdout.take().expect("a pipe"));
    let address = loop {
        let mut line = String::new();
        assert_ne!(said.read_line(&mut line).expect("text"), 0, "the server tells no address");
        if let Some(address) = line.trim().strip_prefix("ACCEPT ") {
            break address.to_owned();
        }
    };
    let port = address.rsplit(':').next().expect("a port");

    let tls = json!({ "tls": { "roots": "file", "ca_file": certificate } });
    let client = Owned::new(&with(config(&format!("https://localhost:{port}")), tls));
    let reply = client.add(&task("BR0943-187"));
    assert_eq!((reply.code, reply.outcome), (TLS_NOT_CREATED.code, TLS_NOT_CREATED.outcome), "{reply:?}");
    assert_eq!(reply.json()["attempts"], 1, "{reply:?}");
    assert_eq!(truth(&reply, 0, &[]), Ok(()));

    // The second and last connection: had the call made another one, this would find nobody.
    let connect = format!("127.0.0.1:{port}");
    let control =
        succeed(Command::new(&openssl).args(["s_client", "-connect", &connect]).args(old).stdin(Stdio::null()));
    assert!(String::from_utf8_lossy(&control.stdout).contains("TLSv1.1"), "{control:?}");
    let mut rest = String::new();
    said.read_to_string(&mut rest).expect("text");
    server.0.wait().expect("the server ends after two connections");
    for text in [TOKEN, "POST", "BR0943-187"] {
        assert!(!rest.contains(text), "{rest}");
    }
}

/// The places of a first flight that are no header of a record, and no header of a message that can be read.
fn contents(flight: &[u8]) -> Vec<usize> {
    let mut places = Vec::new();
    let mut at = 0;
    while at < flight.len() {
        let end = at + 5 + usize::from(u16::from_be_bytes([flight[at + 3], flight[at + 4]]));
        let messages = flight[at] == HANDSHAKE;
        at += 5;
        while messages && at < end {
            let length = u32::from_be_bytes([0, flight[at + 1], flight[at + 2], flight[at + 3]]);
            places.extend(at + 4..at + 4 + length as usize);
            at += 4 + length as usize;
        }
        places.extend(at..end);
        at = end;
    }
    places
}

/// The server's first flight has one wrong bit, in each of its bytes. Headers are left as they are: a server that
/// announces more than it sends, and then leaves, is another case.
fn one_bit_is_wrong(version: Version) {
    let authority = Authority::new();
    let config = authority.server(Identity { resumption: false, ..Identity::right(version) });
    let stage = || {
        let server = Server::start("127.0.0.1", Some(Arc::clone(&config)));
        let client = Owned::new(&config_tls(&server.base_url(), &authority));
        Stage::of(server, client)
    };
    let all_but_one = Script::silent().then(Step::Flight(Change::Without(1))).fin();
    let flight = stage().run("a flight", CONNECT_NOT_CREATED, |_| all_but_one).only().records.clone();
    // Signatures differ in length, by a few bytes, so that what follows the last one is not always at its place.
    let places: Vec<usize> = contents(&flight).into_iter().filter(|place| *place < flight.len() - 10).collect();
    assert!(places.len() > 500, "{} of {}", places.len(), flight.len());
    let row = |place| -> Row {
        let script = Script::silent().then(Step::Flight(Change::Flipped(place))).fin();
        (format!("{version:?}, byte {place} of {}", flight.len()), TLS_NOT_CREATED, script)
    };
    for (case, done) in run_all(stage, places.into_iter().map(row).collect()) {
        got_no_request(&case, &done);
    }
}

#[test]
fn each_byte_of_the_handshake_counts_in_tls_1_2() {
    one_bit_is_wrong(Version::Tls12);
}

#[test]
fn each_byte_of_the_handshake_counts_in_tls_1_3() {
    one_bit_is_wrong(Version::Tls13);
}
