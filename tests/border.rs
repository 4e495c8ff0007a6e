//! Misuse is answered and never undefined, texts and clients are what the header says, and the library is a good guest
//! of its process. What needs a process of its own runs in a C program of `tests/c`.

use std::collections::HashSet;
use std::ffi::{CStr, CString, c_char};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::ptr::{null, null_mut, without_provenance_mut};
use std::sync::Mutex;

use arctos_tests::api::*;
use arctos_tests::http::{Framing, answer, head, success_body};
use arctos_tests::server::{Script, Server, Step};
use arctos_tests::service::guests;
use arctos_tests::stage::{config, config_tls};
use arctos_tests::tls::{Authority, Identity, Version};
use arctos_tests::tools::{Host, both};
use object::{Object, ObjectSymbol};
use serde_json::{Value, json};

/// Nothing listens there on a machine that runs tests, and nothing is to be sent there.
const NOWHERE: &str = "http://127.0.0.1:1";

fn client() -> Owned {
    Owned::new(&config(NOWHERE))
}

/// The reply must be a refusal that names the argument, and speak of an appointment only where one was asked for.
#[track_caller]
fn refused(reply: &Reply, argument: &str, appointment: bool) {
    assert_eq!(reply.code, BAD_ARGUMENT, "{argument}: {reply:?}");
    let document = reply.json();
    let message = document["message"].as_str().expect("a message");
    assert!(message.contains(argument), "{argument}: {message}");
    let outcome = if appointment { json!("not_created") } else { Value::Null };
    assert_eq!(document["outcome"], outcome, "{argument}: {reply:?}");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(document["version"], version, "{reply:?}");
    let time = document["time"].as_str().expect("a time");
    assert!(time.len() == 20 && time.ends_with('Z') && &time[10..11] == "T", "{time}");
}

/// Every function that takes texts, called with one of them from the caller: the argument's name, the call, and whether
/// the function makes an appointment, or asks the server for something else.
type TextCall<'a> = (&'static str, Box<dyn Fn(*const c_char) -> Reply + 'a>, bool);

fn text_calls(client: Client) -> Vec<TextCall<'static>> {
    let new = |text| {
        let mut made: Client = without_provenance_mut(1);
        let reply = call(|answer| unsafe { (arctos().client_new)(text, &mut made, answer) });
        assert!(made.is_null(), "{reply:?}");
        reply
    };
    let json = || c("{}");
    vec![
        ("config_json", Box::new(new), false),
        (
            "token",
            Box::new(move |text| call(|answer| unsafe { (arctos().client_set_token)(client, text, answer) })),
            false,
        ),
        ("task_json", Box::new(move |text| call(|answer| unsafe { (arctos().task_add)(client, text, answer) })), true),
        ("task_json", Box::new(|text| call(|answer| unsafe { (arctos().task_check)(text, answer) })), false),
        (
            "path",
            Box::new(move |text| {
                call(|answer| unsafe { (arctos().call)(client, text, json().as_ptr(), null(), answer) })
            }),
            true,
        ),
        (
            "body_json",
            Box::new(move |text| {
                call(|answer| unsafe { (arctos().call)(client, c("/x").as_ptr(), text, null(), answer) })
            }),
            true,
        ),
        ("json", Box::new(|text| call(|answer| unsafe { (arctos().json_get)(text, c("").as_ptr(), answer) })), false),
        (
            "pointer",
            Box::new(move |text| call(|answer| unsafe { (arctos().json_get)(json().as_ptr(), text, answer) })),
            false,
        ),
    ]
}

/// The functions that work in place, with one of their texts from the caller.
type Setter<'a> = (&'static str, Box<dyn Fn(*mut *mut c_char, *const c_char) -> i32 + 'a>);

fn setters() -> Vec<Setter<'static>> {
    let pointer = || c("/a");
    let value = || c("1");
    vec![
        ("set, pointer", Box::new(move |json, text| unsafe { (arctos().json_set)(json, text, value().as_ptr()) })),
        ("set, value", Box::new(move |json, text| unsafe { (arctos().json_set)(json, pointer().as_ptr(), text) })),
        (
            "text, pointer",
            Box::new(move |json, text| unsafe { (arctos().json_set_text)(json, text, value().as_ptr()) }),
        ),
        ("text, text", Box::new(move |json, text| unsafe { (arctos().json_set_text)(json, pointer().as_ptr(), text) })),
    ]
}

/// Calls every setter with a bad text: the code is that of misuse, and the text of the library stays as it is.
#[track_caller]
fn setters_refuse(text: *const c_char, what: &str) {
    for (name, setter) in setters() {
        let mut nothing = null_mut();
        assert_eq!(setter(&mut nothing, text), BAD_ARGUMENT, "{name} {what}");
        assert!(nothing.is_null(), "{name} {what}");

        let mut json = null_mut();
        let (pointer, value) = (c("/kept"), c("[1, 2.50]"));
        assert_eq!(unsafe { (arctos().json_set)(&mut json, pointer.as_ptr(), value.as_ptr()) }, OK);
        let before = json;
        assert_eq!(setter(&mut json, text), BAD_ARGUMENT, "{name} {what}");
        assert_eq!(json, before, "{name} {what}");
        assert_eq!(unsafe { CStr::from_ptr(json) }, c"{\"kept\":[1, 2.50]}", "{name} {what}");
        unsafe { (arctos().free)(json) };
    }
}

#[test]
fn null_for_a_text_is_answered() {
    let client = client();
    for (argument, call, appointment) in text_calls(client.0) {
        refused(&call(null()), &format!("{argument} is NULL"), appointment);
    }
    // SAFETY: NULL is answered.
    assert_eq!(unsafe { (arctos().call_cancel)(client.0, null()) }, BAD_ARGUMENT);
    setters_refuse(null(), "NULL");
}

#[test]
fn null_for_a_client_is_answered() {
    let (token, task) = (c("a-token"), c(&task("N")));
    let reply = call(|answer| unsafe { (arctos().client_set_token)(null_mut(), token.as_ptr(), answer) });
    refused(&reply, "client is NULL", false);
    let reply = call(|answer| unsafe { (arctos().task_add)(null_mut(), task.as_ptr(), answer) });
    refused(&reply, "client is NULL", true);
    let nobody = Owned(null_mut());
    refused(&nobody.call("/x", "{}"), "client is NULL", true);
    refused(&nobody.diagnose(), "client is NULL", false);
    refused(&nobody.told(), "client is NULL", false);
    assert_eq!((nobody.cancel(), nobody.cancel_call("c-1")), (BAD_ARGUMENT, BAD_ARGUMENT));
    let config = c(&config(NOWHERE).to_string());
    let reply = call(|answer| unsafe { (arctos().client_new)(config.as_ptr(), null_mut(), answer) });
    refused(&reply, "client is NULL", false);
    for setter in [arctos().json_set, arctos().json_set_text] {
        assert_eq!(unsafe { setter(null_mut(), c("/a").as_ptr(), c("1").as_ptr()) }, BAD_ARGUMENT);
    }
    // SAFETY: NULL is fine.
    unsafe {
        (arctos().free)(null_mut());
        (arctos().client_free)(null_mut());
    }
}

#[test]
fn null_for_everything_at_once_is_answered() {
    refused(&call(|answer| unsafe { (arctos().client_new)(null(), null_mut(), answer) }), "NULL", false);
    refused(&call(|answer| unsafe { (arctos().client_set_token)(null_mut(), null(), answer) }), "NULL", false);
    refused(&call(|answer| unsafe { (arctos().task_add)(null_mut(), null(), answer) }), "NULL", true);
    refused(&call(|answer| unsafe { (arctos().call)(null_mut(), null(), null(), null(), answer) }), "NULL", true);
    refused(&call(|answer| unsafe { (arctos().client_diagnose)(null_mut(), answer) }), "NULL", false);
    refused(&call(|answer| unsafe { (arctos().json_get)(null(), null(), answer) }), "NULL", false);
    let library = arctos();
    // SAFETY: NULL is answered everywhere.
    let codes = unsafe {
        [
            (library.client_new)(null(), null_mut(), null_mut()),
            (library.client_set_token)(null_mut(), null(), null_mut()),
            (library.task_add)(null_mut(), null(), null_mut()),
            (library.task_check)(null(), null_mut()),
            (library.json_get)(null(), null(), null_mut()),
            (library.json_set)(null_mut(), null(), null()),
            (library.json_set_text)(null_mut(), null(), null()),
            (library.call)(null_mut(), null(), null(), null(), null_mut()),
            (library.client_diagnose)(null_mut(), null_mut()),
            (library.client_stats)(null_mut(), null_mut()),
            (library.client_cancel)(null_mut()),
            (library.call_cancel)(null_mut(), null()),
        ]
    };
    assert_eq!(codes, [BAD_ARGUMENT; 12]);
    // SAFETY: none is set.
    unsafe { (library.set_log)(None, null_mut(), 4) };
}

#[test]
fn without_an_answer_the_code_is_the_same() {
    let server = Server::plain();
    let made = Script::made().send(answer("200 OK", Framing::Length, success_body("N").as_bytes())).close();
    let client = Owned::new(&config(&server.base_url()));
    let library = arctos();
    let (good, bad) = (c(&task("N")), c("{}"));
    let (token, no_token) = (c("a-token"), c(""));
    let config = [c(&config(NOWHERE).to_string()), c("{}")];
    // SAFETY: texts that live through the calls; `answer` may be NULL.
    unsafe {
        server.next(made.clone());
        assert_eq!((library.task_add)(client.0, good.as_ptr(), null_mut()), OK);
        assert_eq!((library.task_add)(client.0, bad.as_ptr(), null_mut()), BAD_TASK);
        server.next(Script::request().send(answer("200 OK", Framing::Length, br#"{"status":1}"#)).close());
        let (path, body) = (c("/x"), c("{}"));
        assert_eq!((library.call)(client.0, path.as_ptr(), body.as_ptr(), null(), null_mut()), OK);
        assert_eq!((library.call)(client.0, body.as_ptr(), body.as_ptr(), null(), null_mut()), BAD_ARGUMENT);
        server.next(Script::request().send(head("200 OK", &[])));
        assert_eq!((library.client_diagnose)(client.0, null_mut()), OK);
        assert_eq!((library.client_stats)(client.0, null_mut()), OK);
        assert_eq!((library.task_check)(good.as_ptr(), null_mut()), OK);
        assert_eq!((library.task_check)(bad.as_ptr(), null_mut()), BAD_TASK);
        assert_eq!((library.client_set_token)(client.0, token.as_ptr(), null_mut()), OK);
        assert_eq!((library.client_set_token)(client.0, no_token.as_ptr(), null_mut()), BAD_ARGUMENT);
        assert_eq!((library.json_get)(good.as_ptr(), c("/video").as_ptr(), null_mut()), OK);
        assert_eq!((library.json_get)(good.as_ptr(), c("/none").as_ptr(), null_mut()), NO_VALUE);
        let mut made: Client = without_provenance_mut(1);
        assert_eq!((library.client_new)(config[1].as_ptr(), &mut made, null_mut()), BAD_CONFIG);
        assert!(made.is_null());
        assert_eq!((library.client_new)(config[0].as_ptr(), &mut made, null_mut()), OK);
        assert!(!made.is_null());
        (library.client_free)(made);
    }
    assert_eq!(server.settle(0).expect("the connections have ended").len(), 3);
    assert_eq!(server.ledger().made("N"), 1);
}

#[test]
fn bytes_that_are_not_utf_8_are_answered() {
    let client = client();
    // 0xff, an overlong NUL, half a character, half a surrogate pair, beyond Unicode, a lone second byte, CP950.
    for bytes in [
        "\\xff",
        "\\xc0\\x80",
        "\\xe8\\xa8",
        "\\xed\\xa0\\x80",
        "\\xf4\\x90\\x80\\x80",
        "\\x80",
        "\\xb3\\x5c\\xa5\\x5c",
    ] {
        for around in ["%", "{\"business_id\":\"%\"}", "/%", "%{}"] {
            let mut text = Vec::new();
            for part in around.split_inclusive('%') {
                text.extend_from_slice(part.trim_end_matches('%').as_bytes());
                if part.ends_with('%') {
                    let hex = bytes.split("\\x").skip(1);
                    text.extend(hex.map(|byte| u8::from_str_radix(byte, 16).expect("a byte")));
                }
            }
            let text = CString::new(text).expect("no NUL");
            for (argument, call, appointment) in text_calls(client.0) {
                refused(&call(text.as_ptr()), &format!("{argument} is not UTF-8"), appointment);
            }
            // SAFETY: a text that lives through the call.
            assert_eq!(unsafe { (arctos().call_cancel)(client.0, text.as_ptr()) }, BAD_ARGUMENT, "{text:?}");
            setters_refuse(text.as_ptr(), bytes);
        }
    }
}

#[test]
fn a_freed_client_is_answered_and_a_living_one_goes_on() {
    let living = client();
    let freed = client().0;
    let gone = Owned(freed);
    for _ in 0..3 {
        refused(&gone.add(&task("N")), "client", true);
        refused(&gone.set_token("a-token"), "client", false);
        refused(&gone.call("/x", "{}"), "client", true);
        refused(&gone.diagnose(), "client", false);
        refused(&gone.told(), "client", false);
        assert_eq!((gone.cancel(), gone.cancel_call("c-1")), (BAD_ARGUMENT, BAD_ARGUMENT));
        // SAFETY: freeing a client twice is ignored.
        unsafe { (arctos().client_free)(freed) };
        assert_eq!((living.cancel(), living.cancel_call("c-1")), (OK, OK));
        assert_eq!(living.set_token("a-token").code, OK);
    }
}

#[test]
fn handles_that_never_were_are_answered() {
    let living = client();
    let mut state = 0x9e37_79b9_7f4a_7c15_usize;
    for _ in 0..10_000 {
        // xorshift64: odd and even numbers of all sizes.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let stranger = Owned(without_provenance_mut(state >> (state % 60)));
        assert_eq!(stranger.set_token("a-token").code, BAD_ARGUMENT, "{stranger:?}");
        assert_eq!(stranger.diagnose().code, BAD_ARGUMENT, "{stranger:?}");
        assert_eq!(stranger.told().code, BAD_ARGUMENT, "{stranger:?}");
        assert_eq!((stranger.cancel(), stranger.cancel_call("c-1")), (BAD_ARGUMENT, BAD_ARGUMENT), "{stranger:?}");
    }
    assert_eq!(living.set_token("a-token").code, OK);
}

#[test]
fn misuse_in_a_program_of_one_thread() {
    Host::new("misuse").run(&[]);
}

#[test]
fn handles_are_never_used_twice_and_never_small() {
    let config = c(&config(NOWHERE).to_string());
    let all = Mutex::new(HashSet::new());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (config, all) = (&config, &all);
            scope.spawn(move || {
                let mut kept = Vec::new();
                for round in 0..2_500 {
                    let mut client: Client = null_mut();
                    let code = unsafe { (arctos().client_new)(config.as_ptr(), &mut client, null_mut()) };
                    assert_eq!(code, OK);
                    let client = Owned(client);
                    let handle = client.0.addr();
                    assert!(handle >= 65_536, "{handle}");
                    assert!(all.lock().expect("no panic").insert(handle), "{handle} was used twice");
                    // Some live on, some are gone at once.
                    if round % 10 == thread {
                        kept.push(client);
                    }
                }
                assert!(kept.iter().all(|client| client.set_token("a-token").code == OK));
            });
        }
    });
    assert_eq!(all.lock().expect("no panic").len(), 10_000);
}

/// Set in a child of the test below, which prints a handle and ends.
const CHILD: &str = "ARCTOS_TEST_CHILD_HANDLE";

#[test]
fn handles_differ_from_process_to_process() {
    if std::env::var_os(CHILD).is_some() {
        println!("handle {}", client().0.addr());
        return;
    }
    let handle = || -> usize {
        let mut child = Command::new(std::env::current_exe().expect("this test"));
        child.args(["--exact", "handles_differ_from_process_to_process", "--nocapture"]).env(CHILD, "1");
        let output = child.output().expect("the child runs");
        assert!(output.status.success(), "{}", both(&output));
        let output = both(&output);
        let (_, handle) = output.split_once("handle ").unwrap_or_else(|| panic!("{output}"));
        handle.lines().next().expect("a line").parse().expect("a number")
    };
    let handles = HashSet::from([handle(), handle(), handle()]);
    assert_eq!(handles.len(), 3, "{handles:?}");
}

#[test]
fn two_loads_in_one_process_know_nothing_of_each_other() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let copy = folder.path().join("libarctos-copy.so");
    std::fs::copy(library_path(), &copy).expect("a copy of the library");
    let (one, other) = (arctos(), Functions::load(&copy));
    let client = client();
    let (token, pointer, text) = (c("a-token"), c(""), c("here"));
    // SAFETY: texts that live through the calls; whatever is not the other load's is answered.
    unsafe {
        assert_eq!((other.client_set_token)(client.0, token.as_ptr(), null_mut()), BAD_ARGUMENT);
        (other.client_free)(client.0);
        assert_eq!((one.client_set_token)(client.0, token.as_ptr(), null_mut()), OK);

        let mut mine = null_mut();
        assert_eq!((one.json_set_text)(&mut mine, pointer.as_ptr(), text.as_ptr()), OK);
        let mut theirs = mine;
        assert_eq!((other.json_set)(&mut theirs, c("/a").as_ptr(), c("1").as_ptr()), BAD_ARGUMENT);
        assert_eq!(theirs, mine);
        (other.free)(mine);
        assert_eq!(CStr::from_ptr(mine), c"\"here\"");
        (one.free)(mine);
    }
}

#[test]
fn texts_are_aligned() {
    for length in 0..200 {
        let text = c(&"x".repeat(length));
        let mut json = null_mut();
        // SAFETY: texts that live through the call.
        let code = unsafe { (arctos().json_set_text)(&mut json, c("").as_ptr(), text.as_ptr()) };
        assert_eq!((code, json.addr() % 16), (OK, 0), "{length}");
        // SAFETY: a text of the library, freed once.
        unsafe { (arctos().free)(json) };
    }
}

#[test]
fn texts_stand_inside_their_memory_and_are_wiped_and_outcome_allocates_nothing() {
    Host::new("heap").run(&[]);
}

#[test]
fn plain_free_aborts_at_once() {
    let host = Host::new("plain_free");
    // Up to sizes that the C library takes from its quick lists, from its heap, and from the system.
    for length in [0, 1, 13, 14, 100, 1_000, 10_000, 100_000, 10_000_000] {
        let output = host.command().arg(length.to_string()).output().expect("the program runs");
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{length}: {}: {}", output.status, both(&output));
    }
}

fn outcome(code: i32, document: Option<&str>) -> i32 {
    let document = document.map(c);
    // SAFETY: NULL or a text that lives through the call.
    unsafe { (arctos().outcome)(code, document.as_ref().map_or(null(), |text| text.as_ptr())) }
}

#[test]
fn outcome_without_a_readable_document() {
    let long = format!("{}\"outcome\":\"not_created\"", "{\"a\":".repeat(100_000));
    let unreadable = [
        None,
        Some(""),
        Some(" "),
        Some("garbage"),
        Some("<html></html>"),
        Some("null"),
        Some("{}"),
        Some("[]"),
        Some("\"not_created\""),
        Some(r#"["outcome","not_created"]"#),
        Some(r#"{"outcome":"not_created""#),
        Some(r#"{"outcome":"not_created"#),
        Some(r#"{"outcome":"not_cr"#),
        Some(r#"{"outcome":"#),
        Some(r#"{"outcome":"not_created"}}"#),
        Some(r#"{"outcome":"not_created"} {"outcome":"created"}"#),
        Some(r#"{"outcome":"not_created","outcome":"created"}"#),
        Some(r#"{"outcome":"NOT_CREATED"}"#),
        Some(r#"{"outcome":"perhaps"}"#),
        Some(r#"{"outcome":null}"#),
        Some(r#"{"outcome":0}"#),
        Some(r#"{"outcome":["not_created"]}"#),
        Some(r#"{"Outcome":"not_created"}"#),
        Some(r#"{"message":"\"outcome\":\"not_created\""}"#),
        Some(r#"{"problems":[{"outcome":"not_created"}]}"#),
        Some(&*long),
    ];
    let decided = [(OK, CREATED), (BAD_ARGUMENT, NOT_CREATED), (BAD_CONFIG, NOT_CREATED), (BAD_TASK, NOT_CREATED)];
    for document in unreadable {
        for (code, expected) in decided.into_iter().chain([(NO_VALUE, NOT_CREATED)]) {
            assert_eq!(outcome(code, document), expected, "{code} {document:?}");
        }
        let undecided = [
            CONNECT,
            TLS,
            TIMEOUT,
            BROKEN,
            CANCELLED,
            FAILED,
            FORBIDDEN,
            NOT_FOUND,
            REJECTED,
            BUSY,
            SERVER_ERROR,
            BAD_RESPONSE,
            INTERNAL,
        ];
        // Codes that this version does not know, and that no version will.
        for code in undecided.into_iter().chain([-5, -15, -27, -98, -100, 1, 2, i32::MAX, i32::MIN]) {
            assert_eq!(outcome(code, document), UNKNOWN, "{code} {document:?}");
        }
    }
}

#[test]
fn outcome_of_a_document_is_what_the_document_says() {
    for (word, expected) in [("not_created", NOT_CREATED), ("created", CREATED), ("unknown", UNKNOWN)] {
        for document in [
            format!(r#"{{"outcome":"{word}"}}"#),
            format!(" {{ \"outcome\"\t:\r\n\"{word}\" }}\n"),
            format!(r#"{{"code":-12,"name":"x","outcome":"{word}","attempts":1}}"#),
            format!(r#"{{"message":"he said \"outcome\":\"created\" {{[","outcome":"{word}"}}"#),
            format!(r#"{{"problems":[{{"outcome":"created"}},[[]],null,-1.5e+3,true],"outcome":"{word}"}}"#),
            format!(r#"{{"outcome":"{word}","error":{{"outcome":"created"}},"answer":{{}}}}"#),
            format!(r#"{{"\\":"\\","outcome":"{word}"}}"#),
            format!(r#"{{"許功蓋":"😀","outcome":"{word}"}}"#),
        ] {
            // With codes of later versions too: callers decide by the outcome.
            for code in
                [CONNECT, TLS, TIMEOUT, BROKEN, BUSY, SERVER_ERROR, CANCELLED, BAD_RESPONSE, INTERNAL, -15, -1000]
            {
                assert_eq!(outcome(code, Some(&document)), expected, "{code} {document}");
            }
        }
    }
    // What a server answers to a success is its own affair.
    assert_eq!(outcome(OK, Some(r#"{"status":1,"outcome":"not_created"}"#)), CREATED);
}

#[test]
fn codes_have_their_names() {
    let name = |code| unsafe { CStr::from_ptr((arctos().code_name)(code)) }.to_str().expect("ASCII");
    for (code, expected) in [
        (OK, "ARCTOS_OK"),
        (BAD_ARGUMENT, "ARCTOS_BAD_ARGUMENT"),
        (BAD_CONFIG, "ARCTOS_BAD_CONFIG"),
        (BAD_TASK, "ARCTOS_BAD_TASK"),
        (NO_VALUE, "ARCTOS_NO_VALUE"),
        (CONNECT, "ARCTOS_CONNECT"),
        (TLS, "ARCTOS_TLS"),
        (TIMEOUT, "ARCTOS_TIMEOUT"),
        (BROKEN, "ARCTOS_BROKEN"),
        (CANCELLED, "ARCTOS_CANCELLED"),
        (FAILED, "ARCTOS_FAILED"),
        (FORBIDDEN, "ARCTOS_FORBIDDEN"),
        (NOT_FOUND, "ARCTOS_NOT_FOUND"),
        (REJECTED, "ARCTOS_REJECTED"),
        (BUSY, "ARCTOS_BUSY"),
        (SERVER_ERROR, "ARCTOS_SERVER_ERROR"),
        (BAD_RESPONSE, "ARCTOS_BAD_RESPONSE"),
        (INTERNAL, "ARCTOS_INTERNAL"),
    ] {
        assert_eq!(name(code), expected);
        let address = |code| unsafe { (arctos().code_name)(code) }.addr();
        assert_eq!(address(code), address(code), "a static text");
    }
    for stranger in [1, 7, -5, -98, -100, i32::MAX, i32::MIN] {
        assert_eq!(name(stranger), "ARCTOS_?", "{stranger}");
    }
}

#[test]
fn versions_are_those_of_the_package_and_of_the_header() {
    // SAFETY: a static text.
    let version = unsafe { CStr::from_ptr((arctos().version)()) };
    assert_eq!(version.to_str(), Ok(env!("CARGO_PKG_VERSION")));
    let header = std::fs::read_to_string(root().join("include/arctos.h")).expect("the header");
    let (_, abi) = header.split_once("#define ARCTOS_ABI_VERSION ").expect("the version of the interface");
    let abi: u32 = abi.lines().next().expect("a line").trim().parse().expect("a number");
    assert_eq!(unsafe { (arctos().abi_version)() }, abi);
}

/// The host's environment asks for everything that libraries print or write when they are asked.
#[test]
fn the_process_is_left_as_it_was_and_nothing_is_printed() {
    let host = Host::new("guest");
    let keys = host.folder().join("keys");
    guests(&host, |command| {
        command.envs([("RUST_BACKTRACE", "full"), ("RUST_LOG", "trace"), ("ARCTOS_LOG", "trace")]);
        command.env("SSLKEYLOGFILE", &keys);
        let output = command.output().expect("the program runs");
        assert!(output.status.success(), "{}: {}", output.status, both(&output));
        assert_eq!(both(&output), "");
    });
    assert!(!keys.exists(), "keys of TLS were written to a file");
    let files: Vec<_> = std::fs::read_dir(host.folder()).expect("a folder").map(|file| file.expect("a file")).collect();
    assert_eq!(files.len(), 1, "only the program stands in its folder: {files:?}");
}

#[test]
fn sigpipe_ends_no_host_over_http() {
    let host = Host::new("sigpipe");
    let server = Server::plain();
    for script in [
        Script::silent().fin().then(Step::Reset),
        Script::silent().then(Step::Read(1)).fin().then(Step::Reset),
        Script::silent().then(Step::Read(1)).then(Step::Reset),
        Script::silent().then(Step::Read(1)).fin(),
    ] {
        server.always(script);
        host.run(&[&config(&server.base_url()).to_string(), "5"]);
    }
    assert_eq!(server.settle(0).expect("the connections have ended").len(), 20);
}

fn sigpipe_ends_no_host_over(version: Version) {
    let host = Host::new("sigpipe");
    let authority = Authority::new();
    let server = Server::start("127.0.0.1", Some(authority.server(Identity::right(version))));
    for script in [
        Script::silent().then(Step::Raw(1)).fin().then(Step::Reset),
        Script::silent().then(Step::Handshake).fin().then(Step::Reset),
        Script::silent().then(Step::Read(1)).fin().then(Step::Reset),
        Script::silent().then(Step::Read(1)).then(Step::Reset),
        Script::silent().then(Step::Read(1)).close(),
    ] {
        server.always(script);
        host.run(&[&config_tls(&server.base_url(), &authority).to_string(), "4"]);
    }
    assert_eq!(server.settle(0).expect("the connections have ended").len(), 20);
}

#[test]
fn sigpipe_ends_no_host_over_tls_1_2() {
    sigpipe_ends_no_host_over(Version::Tls12);
}

#[test]
fn sigpipe_ends_no_host_over_tls_1_3() {
    sigpipe_ends_no_host_over(Version::Tls13);
}

#[test]
fn only_the_interface_is_exported() {
    let library = std::fs::read(library_path()).expect("the library");
    let file = object::File::parse(&*library).expect("an object file");
    let mut exported: Vec<&str> = file
        .dynamic_symbols()
        .filter(|symbol| symbol.is_definition())
        .map(|symbol| symbol.name().expect("UTF-8"))
        .collect();
    exported.sort_unstable();
    let listed = std::fs::read_to_string(root().join("tests/exported-symbols.txt")).expect("the list");
    assert_eq!(exported, listed.lines().collect::<Vec<_>>(), "tests/exported-symbols.txt lists what is exported");
    assert!(exported.iter().all(|name| name.starts_with("arctos_")), "{exported:?}");
}
