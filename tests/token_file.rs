//! A client whose token stands in a file: what the file may look like, and when it is read again.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use arctos_tests::api::{
    BAD_ARGUMENT, BAD_CONFIG, FORBIDDEN, NOT_CREATED, OK, Owned, Reply, SERVER_ERROR, UNKNOWN, client_new, task,
};
use arctos_tests::expected::status;
use arctos_tests::http::{Framing, answer, success};
use arctos_tests::server::{Script, Server, Step};
use arctos_tests::stage::{config, with};
use arctos_tests::tokens::{By, Site, THREADS, called, made, refusal, refuses};
use serde_json::{Value, json};
use tempfile::TempDir;

const FIRST: &str = "token-one";
const SECOND: &str = "token-two";

/// A file that holds a token.
struct File {
    folder: TempDir,
}

impl File {
    fn holding(contents: impl AsRef<[u8]>) -> File {
        let file = File { folder: TempDir::new().expect("a folder") };
        file.write(contents);
        file
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("許 token")
    }

    fn write(&self, contents: impl AsRef<[u8]>) {
        fs::write(self.path(), contents).expect("a file");
    }
}

/// The configuration of a client whose token stands in this file.
fn reading(config: Value, file: &Path) -> Value {
    let mut config = with(config, json!({ "token_file": file }));
    config.as_object_mut().expect("an object").remove("token");
    config
}

/// A client whose file holds the first token, and has made one appointment, `A0`.
fn site(keys: Value) -> (Site, File) {
    let file = File::holding(FIRST);
    let server = Server::plain();
    let client = Owned::new(&with(reading(config(&server.base_url()), &file.path()), keys));
    let site = Site::new(server, client, &[FIRST, SECOND]);
    site.server.next(Script::served());
    site.makes(By::Add, "A0");
    (site, file)
}

/// The numbers and tokens of the calls from the connection with this index on, when these have ended.
#[track_caller]
fn trace_from(site: &Site, from: usize) -> Vec<String> {
    let seen = site.server.settle(from).expect("the connections have ended");
    seen.iter().flat_map(|seen| seen.requests().map(called)).collect()
}

fn message(document: &Value) -> &str {
    document["message"].as_str().expect("a message")
}

#[test]
fn what_stands_around_the_token_does_not_count() {
    for (contents, token) in [
        ("token-one", FIRST),
        ("token-one\n", FIRST),
        ("token-one\r\n", FIRST),
        ("\u{feff}token-one\r\n", FIRST),
        (" \t\r\n token-one \t\n\n", FIRST),
        ("\u{feff}\n token-one", FIRST),
        ("two words\n", "two words"),
        (&format!("{}{FIRST}{}", " ".repeat(30_000), "\n".repeat(30_000)), FIRST),
        (&"x".repeat(8_192), &"x".repeat(8_192)),
    ] {
        let file = File::holding(contents);
        let server = Server::plain();
        let (client, reply) = client_new(&reading(config(&server.base_url()), &file.path()).to_string());
        assert_eq!(reply.code, OK, "{contents:?} {reply:?}");
        let in_force = reply.json();
        assert_eq!((&in_force["token_file"], in_force.get("token")), (&json!(file.path()), None));
        assert!(!reply.text().contains(token), "{reply:?}");
        assert_eq!(server.connections(), 0);
        // Read by now.
        fs::remove_file(file.path()).expect("it is there");
        server.next(Script::served());
        assert_eq!(client.expect("a client").add(&task("A1")).code, OK);
        let seen = server.settle(0).unwrap();
        assert_eq!(seen[0].requests().map(called).collect::<Vec<_>>(), [format!("A1 {token}")]);
    }
}

/// The document of a client that must not be made because of its file.
#[track_caller]
fn refused(path: &Path) -> Value {
    let config = reading(config("http://127.0.0.1:1"), path);
    let (_, reply) = client_new(&config.to_string());
    assert_eq!((reply.code, reply.problem_fields()), (BAD_CONFIG, vec!["token_file".to_owned()]), "{reply:?}");
    reply.json()
}

fn problem(document: &Value) -> &str {
    document["problems"][0]["problem"].as_str().expect("a problem")
}

#[test]
fn a_file_that_holds_no_token_is_refused() {
    let utf16: Vec<u8> = "\u{feff}token-one".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (contents, words) in [
        (&b""[..], "is empty"),
        (b" \r\n\t", "is empty"),
        ("\u{feff}".as_bytes(), "is empty"),
        (b"token-one\ntoken-two\n", "control character"),
        (b"token\0one", "control character"),
        ("許功蓋許功蓋".as_bytes(), "ASCII"),
        (b"token\xffone", "UTF-8"),
        (&utf16, "UTF-8"),
        (b"Bearer token-one", "Bearer"),
        (&[b'x'; 8_193], "8192"),
        (&[b'x'; 70_000], "65536"),
        (&[&b"token-one"[..], &[b' '; 65_536], b"token-two"].concat(), "65536"),
    ] {
        let file = File::holding(contents);
        let document = refused(&file.path());
        assert!(problem(&document).contains(words), "{words}: {document}");
        assert_eq!(document["problems"][0]["value"], json!(file.path()), "{document}");
        assert!(["token-one", "token-two", "許功蓋", "xxxx"].iter().all(|text| !document.to_string().contains(text)));
    }
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let file = File::holding(FIRST);
    let fifo = file.folder.path().join("fifo");
    let name = CString::new(fifo.as_os_str().as_bytes()).expect("no NUL");
    // SAFETY: a path that lives through the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    // Nobody writes into it: reading would not end.
    assert!(problem(&refused(&fifo)).contains("no regular file"));
    assert!(problem(&refused(file.folder.path())).contains("no regular file"));
    assert!(problem(&refused(Path::new("/dev/zero"))).contains("no regular file"));
    let missing = file.folder.path().join("missing");
    assert!(problem(&refused(&missing)).contains("cannot be read"));
    assert!(problem(&refused(Path::new(""))).contains("cannot be read"));
    assert!(problem(&refused(&file.path().join("below"))).contains("cannot be read"));
    // A link is what it leads to.
    let link = file.folder.path().join("link");
    std::os::unix::fs::symlink(file.path(), &link).expect("a link");
    assert_eq!(client_new(&reading(config("http://127.0.0.1:1"), &link).to_string()).1.code, OK);
}

#[test]
fn a_token_in_the_place_of_its_file_is_not_shown() {
    let document = refused(Path::new("eyJhbGciOiJIUzI1NiJ9.hunter2"));
    assert!(!document.to_string().contains("hunter2"), "{document}");
}

#[test]
fn a_refused_call_reads_the_file_again_and_is_sent_once_more() {
    for by in By::BOTH {
        for status in [401, 403] {
            let (site, file) = site(json!({}));
            let from = site.server.connections();
            file.write(format!("{SECOND}\n"));
            site.server.next(Script::served());
            // Nothing was refused: it is not read.
            site.makes(by, "A1");
            site.scripts([refuses(status), Script::served(), Script::served()]);
            site.makes(by, "A2");
            site.makes(by, "A3");
            let wanted = ["A1 token-one", "A2 token-one", "A2 token-two", "A3 token-two"];
            assert_eq!(trace_from(&site, from), wanted);
            site.each_made_once(4);
        }
    }
}

#[test]
fn a_new_token_that_is_refused_too_is_the_end() {
    let (site, file) = site(json!({ "retries": 10 }));
    file.write(SECOND);
    site.scripts([refuses(401), refuses(403)]);
    let document = site.fails(By::Add, "A1", FORBIDDEN, NOT_CREATED, 2);
    assert_eq!(document["http_status"], 403);
    assert!(!message(&document).contains("token_file"), "{document}");
    // The token that is there is tried first.
    file.write("token-three");
    site.scripts([refuses(401), Script::served()]);
    site.makes(By::Add, "A2");
    let wanted = ["A0 token-one", "A1 token-one", "A1 token-two", "A2 token-two", "A2 token-three"];
    assert_eq!(trace_from(&site, 0), wanted);
}

#[test]
fn the_same_token_is_not_sent_again() {
    let (site, file) = site(json!({ "retries": 10 }));
    for contents in [FIRST, "\u{feff}token-one\r\n"] {
        file.write(contents);
        for by in By::BOTH {
            for status in [401, 403] {
                let from = site.server.connections();
                site.server.next(refuses(status));
                let document = site.fails(by, &format!("A{status}"), FORBIDDEN, NOT_CREATED, 1);
                assert_eq!((&document["http_status"], &document["server_message"]), (&json!(status), &json!("no")));
                assert!(message(&document).ends_with("; token_file still holds the same token"), "{document}");
                assert_eq!(trace_from(&site, from), [format!("A{status} token-one")]);
            }
        }
    }
    // Nobody remembers it: the next one looks again.
    file.write(SECOND);
    site.scripts([refuses(401), Script::served()]);
    site.makes(By::Add, "A1");
}

#[test]
fn a_file_that_cannot_be_read_any_more_leaves_the_refusal_as_it_is() {
    let (site, file) = site(json!({ "retries": 10 }));
    let mut number = 0;
    let mut refused = |words: &str| {
        number += 1;
        site.server.next(refuses(401));
        let document = site.fails(By::Add, &format!("A{number}"), FORBIDDEN, NOT_CREATED, 1);
        assert!(message(&document).contains("refused the token (HTTP 401); token_file "), "{document}");
        assert!(message(&document).contains(words), "{document}");
    };
    for (contents, words) in [(&b""[..], "is empty"), (b"a\nb", "control character"), (b"\xff", "UTF-8")] {
        file.write(contents);
        refused(words);
    }
    fs::remove_file(file.path()).expect("it is there");
    refused("cannot be read");
    fs::create_dir(file.path()).expect("a folder");
    refused("no regular file");
    fs::remove_dir(file.path()).expect("it is empty");
    // The token that was refused is still the one that there is.
    site.server.next(Script::served());
    site.makes(By::Add, "B1");
    file.write(SECOND);
    site.scripts([refuses(401), Script::served()]);
    site.makes(By::Add, "B2");
    let trace = trace_from(&site, 0);
    assert_eq!(trace[trace.len() - 3..], ["B1 token-one", "B2 token-one", "B2 token-two"]);
}

#[test]
fn other_statuses_do_not_read_it() {
    let (site, file) = site(json!({}));
    file.write(SECOND);
    for code in (300..=599).filter(|code| ![401, 403].contains(code)) {
        let expected = status(code).expect("a final status");
        let script = if expected.outcome == UNKNOWN { Script::made() } else { Script::request() };
        site.server.next(script.send(refusal(code)));
        site.fails(By::Add, &format!("S{code}"), expected.code, expected.outcome, 1);
    }
    let body = br#"{"status":0,"message":"no"}"#;
    site.server.next(Script::request().send(answer("200 OK", Framing::Length, body)));
    site.fails(By::Add, "S200", arctos_tests::api::FAILED, NOT_CREATED, 1);
    assert!(trace_from(&site, 0).iter().all(|one| one.ends_with(" token-one")));
}

#[test]
fn many_that_are_refused_at_once_are_sent_once_more_each() {
    for changed in [true, false] {
        let (site, file) = site(json!({}));
        let from = site.server.connections();
        for _ in 0..THREADS {
            site.server.next(Script::request().then(Step::AwaitRelease).send(refusal(401)));
        }
        if changed {
            file.write(SECOND);
            site.server.always(Script::served());
        }
        std::thread::scope(|scope| {
            let calls = site.all_at_once(scope);
            site.server.await_requests(from + THREADS).unwrap();
            site.server.release();
            for (number, call) in calls {
                let reply: Reply = call.join().expect("no panic");
                if changed {
                    made(&number, &reply);
                } else {
                    assert_eq!((reply.code, reply.outcome), (FORBIDDEN, NOT_CREATED), "{reply:?}");
                    assert!(message(&reply.json()).contains("the same token"), "{reply:?}");
                }
            }
        });
        let mut trace = trace_from(&site, from);
        trace.sort();
        let tokens: &[&str] = if changed { &[FIRST, SECOND] } else { &[FIRST] };
        let mut wanted: Vec<String> =
            (0..THREADS).flat_map(|index| tokens.iter().map(move |token| format!("T{index} {token}"))).collect();
        wanted.sort();
        assert_eq!(trace, wanted);
        site.each_made_once(if changed { THREADS + 1 } else { 1 });
    }
}

#[test]
fn a_call_that_began_before_another_found_the_same_token_looks_for_itself() {
    let (site, file) = site(json!({}));
    site.server.next(Script::request().then(Step::AwaitRelease).send(refusal(401)));
    std::thread::scope(|scope| {
        let early = scope.spawn(|| site.call(By::Add, "EARLY"));
        site.server.await_requests(2).unwrap();
        site.server.next(refuses(401));
        site.fails(By::Add, "LATE", FORBIDDEN, NOT_CREATED, 1);
        file.write(SECOND);
        site.server.next(Script::served());
        site.server.release();
        made("EARLY", &early.join().expect("no panic"));
    });
}

#[test]
fn what_was_left_open_before_a_refusal_stays_open() {
    let keys = json!({ "retries": 1, "server_dedupes": true });
    for (contents, scripts, code, attempts) in [
        (FIRST, vec![], FORBIDDEN, 2),
        (SECOND, vec![refuses(403)], FORBIDDEN, 3),
        (SECOND, vec![Script::request().send(refusal(500))], SERVER_ERROR, 3),
    ] {
        let (site, file) = site(keys.clone());
        file.write(contents);
        site.scripts([Script::made().reset(), refuses(401)]);
        site.scripts(scripts);
        let document = site.fails(By::Add, "A1", code, UNKNOWN, attempts);
        assert!(message(&document).contains("may have been made"), "{document}");
        site.each_made_once(2);
    }
    let (site, file) = site(keys);
    file.write(SECOND);
    let known = Script::request().then(Step::MakeOnce).then(Step::Answer(success));
    site.scripts([Script::made().reset(), refuses(401), known]);
    site.makes(By::Add, "A1");
    site.each_made_once(2);
}

#[test]
fn a_new_token_that_the_server_echoes_is_masked() {
    let (site, file) = site(json!({ "keep_bodies": true }));
    file.write("hunter2-hunter2");
    let body =
        json!({ "status": 0, "message": format!("not hunter2-hunter2, not {FIRST}"), "token": "hunter2-hunter2" });
    let echo = answer("403 No", Framing::Length, body.to_string().as_bytes());
    site.scripts([refuses(401), Script::request().send(echo)]);
    let document = site.fails(By::Add, "A1", FORBIDDEN, NOT_CREATED, 2);
    assert_eq!(document["server_message"], "not ***, not ***");
    assert!(!document.to_string().contains("hunter2"), "{document}");
}

#[test]
fn a_client_that_reads_its_token_takes_no_other() {
    let (site, _file) = site(json!({}));
    for token in ["another-token", "", "a\nb"] {
        let reply = site.client().set_token(token);
        assert_eq!(reply.code, BAD_ARGUMENT, "{reply:?}");
        assert!(reply.text().contains("token_file") && !reply.text().contains("another-token"), "{reply:?}");
    }
    site.server.next(Script::served());
    site.makes(By::Add, "A1");
    assert_eq!(trace_from(&site, 1), ["A1 token-one"]);
}

#[test]
fn a_file_that_is_replaced_under_many_calls_costs_none_of_them() {
    const ROUNDS: usize = 20;
    let (site, file) = site(json!({}));
    for round in 0..ROUNDS {
        let from = site.server.connections();
        for _ in 0..4 {
            site.server.next(Script::request().then(Step::AwaitRelease).send(refusal(403)));
        }
        site.server.always(Script::served());
        std::thread::scope(|scope| {
            let call = |index: usize| {
                scope.spawn({
                    let site = &site;
                    move || site.call(By::BOTH[index % 2], &format!("R{round}-{index}"))
                })
            };
            let calls: Vec<_> = (0..4).map(call).collect();
            site.server.await_requests(from + 4).unwrap();
            // As a careful program replaces it: by another one under its name.
            let new = file.folder.path().join("new");
            fs::write(&new, format!("token-of-round-{round}")).expect("a file");
            fs::rename(&new, file.path()).expect("renamed");
            site.server.release();
            for (index, call) in calls.into_iter().enumerate() {
                made(&format!("R{round}-{index}"), &call.join().expect("no panic"));
            }
        });
    }
    site.each_made_once(4 * ROUNDS + 1);
}
