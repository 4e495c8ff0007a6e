//! Pins: the server's key must be one of them, besides all that is asked of its certificate, and never instead.

use std::process::Command;

use arctos_tests::api::*;
use arctos_tests::expected::{Expected, MADE, TLS_NOT_CREATED};
use arctos_tests::server::{Script, Server};
use arctos_tests::stage::{Stage, config, with};
use arctos_tests::tls::{Authority, Flaw, Identity, Version, pin};
use arctos_tests::tools::both;
use rcgen::KeyPair;
use serde_json::{Value, json};

const VERSIONS: [Version; 2] = [Version::Tls12, Version::Tls13];

fn another() -> String {
    pin(&KeyPair::generate().expect("a key"))
}

/// One call to a server of this identity, by a client with the pins that are made of the server's. What the client said
/// and what the server did, where nothing was made, and the server's pin.
#[track_caller]
fn call(
    case: &str,
    expected: Expected,
    identity: Identity,
    authorities: [&Authority; 2],
    pins: impl FnOnce(&str) -> Vec<String>,
) -> (String, String) {
    let [trusted, signer] = authorities;
    let (tls, pin) = signer.server_with_pin(identity);
    let server = Server::start("127.0.0.1", Some(tls));
    let keys = trusted.trusted_with(json!({ "pins": pins(&pin) }));
    let client = Owned::new(&with(config(&server.base_url_as("localhost")), keys));
    let done = Stage::of(server, client).run(case, expected, |_| Script::served().close());
    if expected == MADE {
        return (String::new(), pin);
    }
    assert_eq!(done.only().request_bytes(), 0, "{case}");
    let message = done.reply.json()["message"].as_str().expect("a message").to_owned();
    let note = done.only().note.clone().unwrap_or_default();
    (format!("{message}\n{note}"), pin)
}

#[test]
fn one_of_the_pins_must_be_the_servers() {
    let authority = Authority::new();
    let authorities = [&authority, &authority];
    for version in VERSIONS {
        let right = Identity::right(version);
        call("its own", MADE, right, authorities, |pin| vec![pin.to_owned()]);
        call("the second of two", MADE, right, authorities, |pin| vec![another(), pin.to_owned()]);
        call("the first of two", MADE, right, authorities, |pin| vec![pin.to_owned(), another()]);
        call("with a prefix", MADE, right, authorities, |pin| vec![format!("sha256/{pin}")]);
        call("with another prefix", MADE, right, authorities, |pin| vec![format!("sha256//{pin}")]);
        for count in [1, 3] {
            let others = |_: &str| (0..count).map(|_| another()).collect();
            let (said, pin) = call("others", TLS_NOT_CREATED, right, authorities, others);
            let expected = format!("has none of the pins in tls.pins; the key that came has {pin}");
            assert!(said.contains(&expected), "{said}");
            assert!(
                said.contains(&format!("the subject CN=Fault server and the issuer {}", authority.name())),
                "{said}"
            );
            assert!(said.contains("alert: AccessDenied"), "{said}");
        }
    }
}

#[test]
fn a_pin_is_that_of_the_server_and_not_of_an_authority() {
    let root = Authority::new();
    let below = root.below("Authority between");
    for signer in [&root, &below] {
        let (said, _) =
            call("an authority's", TLS_NOT_CREATED, Identity::right(Version::Tls13), [&root, signer], |_| {
                vec![root.pin(), below.pin()]
            });
        assert!(said.contains("tls.pins"));
    }
}

#[test]
fn a_pin_makes_no_bad_certificate_good() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let own = |pin: &str| vec![pin.to_owned()];
    for version in VERSIONS {
        let right = Identity::right(version);
        let refused = |case: &str, identity, signer: &Authority, alert: &str| {
            let (said, _) = call(case, TLS_NOT_CREATED, identity, [&authority, signer], own);
            assert!(said.contains(&format!("alert: {alert}")) && !said.contains("tls.pins"), "{case}: {said}");
        };
        refused("unknown authority", right, &stranger, "UnknownCA");
        refused("another name", Identity { names: &["arctos.bank.example"], ..right }, &authority, "BadCertificate");
        refused("expired", right.with(Flaw::Expired), &authority, "CertificateExpired");
        refused("self-signed", right.with(Flaw::SelfSigned), &authority, "UnknownCA");
        refused("for clients", right.with(Flaw::WrongUsage), &authority, "UnsupportedCertificate");
    }
}

#[test]
fn an_inspecting_proxy_is_named_where_the_pin_is_another() {
    let proxy = Authority::named("mitmproxy");
    let (said, _) =
        call("a proxy that is trusted", TLS_NOT_CREATED, Identity::right(Version::Tls13), [&proxy; 2], |_| {
            vec![another()]
        });
    assert!(said.contains("the issuer CN=mitmproxy, which is the name of a proxy that inspects TLS"), "{said}");
}

/// The configuration of the child of the test below.
const CHILD: &str = "ARCTOS_TEST_CHILD_PINS";

#[test]
fn pins_go_with_all_roots() {
    if let Ok(config) = std::env::var(CHILD) {
        let (client, reply) = client_new(&config);
        let reply = client.map_or(reply, |client| client.add(&task("CHILD")));
        println!("code {} pins {}", reply.code, reply.text().contains("tls.pins"));
        return;
    }
    let authority = Authority::new();
    let (tls, pin) = authority.server_with_pin(Identity::right(Version::Tls13));
    let server = Server::start("127.0.0.1", Some(tls));
    for (roots, pin, code, by_pin) in [
        ("system", pin.clone(), OK, false),
        ("system", another(), TLS, true),
        ("bundled", pin.clone(), TLS, false),
        ("bundled", another(), TLS, false),
    ] {
        server.next(Script::served().close());
        let config = with(config(&server.base_url()), json!({ "tls": { "roots": roots, "pins": [pin] } }));
        let mut child = Command::new(std::env::current_exe().expect("this test"));
        child.args(["--exact", "pins_go_with_all_roots", "--nocapture"]);
        child.env(CHILD, config.to_string()).env("SSL_CERT_FILE", authority.file()).env_remove("SSL_CERT_DIR");
        let output = child.output().expect("the child runs");
        let expected = format!("code {code} pins {by_pin}\n");
        assert!(both(&output).contains(&expected), "{config}: {}", both(&output));
    }
    server.settle(0).expect("the connections have ended");
}

#[test]
fn what_is_no_pin_is_refused_with_its_place() {
    let good = another();
    let problems = |pins: Value| -> Vec<Value> {
        let config = with(config("http://127.0.0.1:1"), json!({ "tls": { "pins": pins } }));
        let (_, reply) = client_new(&config.to_string());
        assert_eq!(reply.code, BAD_CONFIG, "{pins}: {reply:?}");
        let problems = reply.json()["problems"].as_array().expect("problems").clone();
        assert!(problems.iter().all(|problem| problem["field"] == "tls.pins"), "{problems:?}");
        problems
    };
    for pins in [json!([]), json!(null), json!(good), json!({}), json!(1), json!(true)] {
        assert_eq!(problems(pins).len(), 1);
    }
    for wrong in
        ["", "AAAA", &good[1..], &format!("{good}="), &good.replace('=', ""), &format!("sha1/{good}"), "許功蓋"]
    {
        let found = problems(json!([good, wrong]));
        let [problem] = found.as_slice() else { panic!("{wrong}: {found:?}") };
        assert!(problem["problem"].as_str().is_some_and(|text| text.starts_with("[1] ")), "{problem}");
        assert_eq!(problem["value"], wrong);
    }
    for wrong in [json!(1), json!(null), json!([good])] {
        let found = problems(json!([wrong, good]));
        assert!(found[0]["problem"].as_str().is_some_and(|text| text.starts_with("[0] must be a string")), "{found:?}");
    }
    assert_eq!(problems(json!(["a", good, "b"])).len(), 2);
    assert!(problems(json!(["x".repeat(10_000)]))[0]["value"].as_str().is_some_and(|value| value.len() < 100));
    // In force they are shown without what may stand before them.
    let given = json!({ "tls": { "pins": [good, format!("sha256/{good}"), format!("sha256//{good}")] } });
    let (_client, reply) = client_new(&with(config("http://127.0.0.1:1"), given).to_string());
    assert_eq!(reply.json()["tls"]["pins"], json!([good, good, good]));
}
