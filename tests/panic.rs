//! A panic inside the library becomes a code and a true outcome, shows nothing, and the process and its client live on.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use arctos_tests::api::{INTERNAL, root};
use arctos_tests::http::{Framing, answer, success_body};
use arctos_tests::server::{Script, Seen, Server, Step};
use arctos_tests::stage::{TOKEN, config, config_tls, with};
use arctos_tests::tls::{Authority, Identity, Version};
use arctos_tests::tools::{Host, both};
use serde_json::{Value, json};

/// Stands in the text of every panic, and in nothing else that the library may show.
const MARKER: &str = "Marker-7c1e, the customer's own words";

/// What the planted panics look for, and say.
const PLANTED: [&str; 3] = ["panic-before-", "panic-after-", "planted"];

/// The library with panics planted in it.
fn planted() -> PathBuf {
    let path = root().join("target/planted/debug/libarctos.so");
    assert!(path.exists(), "{} is not there: `make test` builds it", path.display());
    path
}

#[track_caller]
fn document(path: &Path, number: &str, outcome: &str, host: &str) {
    let text = std::fs::read_to_string(path).expect("the program wrote it");
    for secret in ["Marker", "customer", "panic", "planted", TOKEN, ".rs", "src/"] {
        // The number itself is the caller's and stands there.
        assert!(!text.replace(number, "").contains(secret), "{secret}: {text}");
    }
    let mut document: Value = serde_json::from_str(&text).expect("JSON");
    for (key, is) in [("elapsed_ms", Value::is_u64 as fn(&Value) -> bool), ("call_id", Value::is_string)] {
        assert!(is(&document[key].take()), "{key}: {text}");
    }
    let time = document["time"].take();
    assert!(time.is_string(), "{text}");
    let (attempts, doubt) = if outcome == "unknown" { (1, "; the appointment may have been made") } else { (0, "") };
    let expected = json!({
        "code": INTERNAL,
        "name": "ARCTOS_INTERNAL",
        "message": format!("the library has failed; this is a defect in it, please report it{doubt}"),
        "outcome": outcome,
        "attempts": attempts,
        "elapsed_ms": null,
        "call_id": null,
        "out_task_num": number,
        "host": host,
        "time": null,
        "version": env!("CARGO_PKG_VERSION"),
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&document[key], value, "{key}: {text}");
    }
}

/// The program that uses it.
fn host() -> Host {
    let library = planted();
    let mut search = OsString::from("-Wl,-rpath,");
    search.push(library.parent().expect("a file has a folder"));
    Host::linked("planted", |command| command.arg(&library).arg(&search).arg("-lpthread"))
}

/// Runs the program, which must show nothing of a panic.
#[track_caller]
fn run(command: &mut Command) {
    let output = command.env("RUST_BACKTRACE", "full").output().expect("the program runs");
    assert!(output.status.success(), "{}: {}", output.status, both(&output));
    assert_eq!(both(&output), "", "nothing of a panic is shown");
}

fn panics(server: &Server, config: &Value) {
    let host = host();
    server.always(Script::request().then(Step::ByNumber));
    for number in ["MADE-1", "MADE-2", "MADE-3", "MADE-4", "panic-after-1", "panic-after-3"] {
        let whole = answer("200 OK", Framing::Length, success_body(number).as_bytes());
        server.number(number, Script::silent().then(Step::Make).send(whole).close());
    }

    let [before, after] = ["before", "after"].map(|name| host.folder().join(name));
    run(host.command().arg(config.to_string()).arg(MARKER).args([&before, &after]));

    // Those that panicked before their request made no connection, and the others closed theirs.
    let seen = server.settle(0).expect("the connections have ended");
    let numbers: Vec<String> = seen.iter().flat_map(Seen::numbers).collect();
    assert_eq!(numbers, ["MADE-1", "panic-after-1", "MADE-2", "panic-after-3", "MADE-3", "MADE-4"]);
    assert!(numbers.iter().all(|number| server.ledger().made(number) == 1), "each was made once");

    let (_, authority) = config["base_url"].as_str().expect("a URL").split_once("://").expect("a URL");
    document(&before, "panic-before-1", "not_created", authority);
    // The server made it, and the library cannot know.
    document(&after, "panic-after-1", "unknown", authority);
}

#[test]
fn a_panic_over_http() {
    let server = Server::plain();
    // By its name, so that it is looked up on a thread of the library.
    panics(&server, &config(&server.base_url_as("localhost")));
}

#[test]
fn a_panic_over_tls_1_2() {
    panics_over(Version::Tls12);
}

#[test]
fn a_panic_over_tls_1_3() {
    panics_over(Version::Tls13);
}

fn panics_over(version: Version) {
    let authority = Authority::new();
    let server = Server::start("127.0.0.1", Some(authority.server(Identity::right(version))));
    panics(&server, &config_tls(&server.base_url(), &authority));
}

/// Calls that the log's function makes panic while its own call logs in, which goes on, and panics when it has its answer.
#[test]
fn a_panic_within_a_log_in() {
    let server = Server::plain();
    let logs_in = |token: &str| {
        let body = json!({ "token": token }).to_string();
        server.next(Script::request().send(answer("200 OK", Framing::Length, body.as_bytes())));
    };
    logs_in("token-1");
    server.next(Script::served());
    logs_in("token-2");
    server.always(Script::served());
    let login = json!({ "path": "/login", "body": { "out_task_num": MARKER }, "token_pointer": "/token" });
    let mut config = with(config(&server.base_url()), json!({ "login": login }));
    config.as_object_mut().expect("an object").remove("token");
    run(host().command().arg(config.to_string()).arg(MARKER));

    let seen = server.settle(0).expect("the connections have ended");
    let requests = seen.iter().flat_map(Seen::requests).map(|request| {
        let token = request.header("Authorization").unwrap_or("no token");
        format!("{} {token}", request.out_task_num().expect("a number"))
    });
    let log_in = format!("{MARKER} no token");
    assert_eq!(
        requests.collect::<Vec<_>>(),
        [
            &*log_in,
            "panic-after-5 Bearer token-1",
            &*log_in,
            "panic-after-4 Bearer token-2",
            "MADE-5 Bearer token-2",
            // The diagnosis.
            " no token",
        ]
    );
}

#[test]
fn the_libraries_that_ship_hold_no_planted_panic() {
    let holds = |path: &Path, text: &str| {
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    for text in PLANTED {
        assert!(holds(&planted(), text), "the library with planted panics lacks {text}: it says nothing here");
        for name in ["libarctos.so", "libarctos.a"] {
            assert!(!holds(&root().join("target/release").join(name), text), "{name} holds {text}");
        }
    }
}
