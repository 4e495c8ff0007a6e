//! The bytes of an answer to a code and an outcome, by a real client and over a real connection.
//!
//! The input: what the server sends after a whole request, before it closes the connection.

#![no_main]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use arctos::{Client, Code, Options, Outcome};
use arctos_fuzz::answer::{Class, classify};
use arctos_fuzz::document::{self, document};
use arctos_fuzz::json::Value;
use libfuzzer_sys::fuzz_target;

/// What the client's configuration holds besides its server and its token: one input makes one connection.
const SETTINGS: &str = r#""timeout_ms":20000,"keep_bodies":true,"retries":0,"idle_timeout_ms":0"#;
const TOKEN: &str = "token-of-the-target";
const REMARK: &str = "remark of a customer";
const OTHER: &str = "value of a stranger";
/// A client that has not ended by its deadline hangs.
const LONGEST: Duration = Duration::from_secs(25);

struct Stage {
    client: Client,
    task: String,
    /// What the server says next.
    answer: Arc<Mutex<Vec<u8>>>,
    /// What it was asked, each request on a connection of its own.
    requests: Mutex<Receiver<Vec<u8>>>,
}

static STAGE: LazyLock<Stage> = LazyLock::new(|| {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let answer = Arc::new(Mutex::new(Vec::new()));
    let (seen, requests) = mpsc::channel();
    let next = answer.clone();
    std::thread::spawn(move || serve(&listener, &next, &seen));
    let config = format!(r#"{{"base_url":"http://127.0.0.1:{port}","token":"{TOKEN}",{SETTINGS}}}"#);
    let task = format!(
        r#"{{"business_id":15,"out_task_num":"BR0943-187","task_type":"normal","branch_code":943,"room_type":"realtime",
            "video":true,"task_notify":false,"task_remark":"{REMARK}","customer":"{OTHER}"}}"#
    );
    Stage { client: Client::new(&config).expect("a client"), task, answer, requests: Mutex::new(requests) }
});

fn serve(listener: &TcpListener, answer: &Mutex<Vec<u8>>, seen: &Sender<Vec<u8>>) {
    for socket in listener.incoming() {
        let mut socket = socket.expect("a connection");
        let request = request(&mut socket);
        let answer = answer.lock().expect("no panic").clone();
        // The client need not wait for all of it.
        let _ = socket.write_all(&answer);
        drop(socket);
        if seen.send(request).is_err() {
            return;
        }
    }
}

/// Reads one request to its last byte.
fn request(socket: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    socket.set_read_timeout(Some(LONGEST)).expect("a time");
    while !is_whole(&bytes) {
        match socket.read(&mut part).expect("a request") {
            0 => panic!("the request was cut: {}", String::from_utf8_lossy(&bytes)),
            count => bytes.extend_from_slice(&part[..count]),
        }
    }
    bytes
}

fn is_whole(request: &[u8]) -> bool {
    let text = std::str::from_utf8(request).expect("a request in UTF-8");
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.to_ascii_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.expect("a length")
}

fuzz_target!(|bytes: &[u8]| {
    let stage = &*STAGE;
    bytes.clone_into(&mut stage.answer.lock().expect("no panic"));
    let result = stage.client.task_add(&stage.task, &Options::default());
    let requests = stage.requests.lock().expect("no panic");
    let request = requests.recv_timeout(LONGEST).expect("a request");
    assert!(request.ends_with(stage.task.as_bytes()), "{}", String::from_utf8_lossy(&request));
    assert!(matches!(requests.try_recv(), Err(mpsc::TryRecvError::Empty)), "a second request");
    let class = classify(bytes);
    let got = match &result {
        Ok(body) => {
            if let Class::Whole(whole) = &class {
                assert_eq!(body.as_bytes(), whole);
            }
            (Code::Ok, Outcome::Created)
        }
        Err(failure) => {
            let text = document(failure);
            let document = document::read(&text);
            let outcome = failure.outcome().expect("an outcome");
            assert_eq!(document::text_of(&document, "outcome"), outcome.word());
            if let Class::Decided(status) = class {
                assert_eq!(document.get("http_status").map(|value| value.raw), Some(&*status.to_string()));
            }
            for said in ["server_message", "server_body"] {
                let said = document.get(said).and_then(Value::text).unwrap_or_default();
                assert!([TOKEN, REMARK, OTHER].iter().all(|secret| !said.contains(secret)), "{said}");
            }
            (failure.code(), outcome)
        }
    };
    let expected = class.expected();
    assert!(expected.contains(&got), "{got:?}, but {expected:?}: {:?}", String::from_utf8_lossy(bytes));
});
