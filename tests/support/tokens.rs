//! A client that gets its tokens by itself, and its server: what was called, with which token, and whether all that the
//! client said is true.

use std::sync::Mutex;
use std::thread::{Scope, ScopedJoinHandle};

use serde_json::{Value, json};

use crate::api::{CREATED, OK, Owned, Reply, task};
use crate::http::{Framing, Request, answer};
use crate::ledger::truth;
use crate::server::{Script, Server};

/// A path of `arctos_call`.
pub const OTHER: &str = "/api/room/reserve";
/// How many calls are made at once.
pub const THREADS: usize = 16;

/// The two functions that send something.
#[derive(Debug, Clone, Copy)]
pub enum By {
    /// `arctos_task_add_with`.
    Add,
    /// `arctos_call`.
    Call,
}

impl By {
    /// Both.
    pub const BOTH: [By; 2] = [By::Add, By::Call];
}

/// The answer that refuses, with this status.
pub fn refusal(status: u16) -> Vec<u8> {
    answer(&format!("{status} No"), Framing::Length, br#"{"status":0,"message":"no"}"#)
}

/// Reads the request and refuses it with this status.
pub fn refuses(status: u16) -> Script {
    Script::request().send(refusal(status))
}

/// The number and the token of a call.
#[track_caller]
pub fn called(request: &Request) -> String {
    let known = [format!("POST {OTHER} HTTP/1.1"), "POST /api/task/do_add HTTP/1.1".to_owned()];
    assert!(known.contains(&request.line), "{}", request.line);
    let token = request.header("Authorization").and_then(|value| value.strip_prefix("Bearer ")).expect("a token");
    format!("{} {token}", request.out_task_num().expect("a number"))
}

/// A server, its client, and what the client returned. When it goes, every reply must be true of what the server saw
/// and made, and hold no secret.
pub struct Site {
    /// `None` when it is freed.
    client: Option<Owned>,
    /// The server.
    pub server: Server,
    secrets: Vec<String>,
    replies: Mutex<Vec<(String, Reply)>>,
}

impl Site {
    /// A client of the server, which holds these secrets.
    pub fn new(server: Server, client: Owned, secrets: &[&str]) -> Site {
        let secrets = secrets.iter().map(|secret| (*secret).to_owned()).collect();
        Site { client: Some(client), server, secrets, replies: Mutex::default() }
    }

    /// The client.
    pub fn client(&self) -> &Owned {
        self.client.as_ref().expect("it is not freed")
    }

    /// Frees the client.
    pub fn free(&mut self) {
        self.client = None;
    }

    /// Sets the scripts of the next connections.
    pub fn scripts(&self, scripts: impl IntoIterator<Item = Script>) {
        scripts.into_iter().for_each(|script| self.server.next(script));
    }

    /// A call with options.
    pub fn call_with(&self, by: By, number: &str, options: &Value) -> Reply {
        let (body, options) = (task(number), options.to_string());
        let reply = match by {
            By::Add => self.client().add_with(&body, &options),
            By::Call => self.client().call_with(OTHER, &body, &options),
        };
        self.replies.lock().expect("no panic under it").push((number.to_owned(), reply.clone()));
        reply
    }

    /// A call.
    pub fn call(&self, by: By, number: &str) -> Reply {
        self.call_with(by, number, &json!({}))
    }

    /// A call that must succeed.
    #[track_caller]
    pub fn makes(&self, by: By, number: &str) {
        made(number, &self.call(by, number));
    }

    /// A call that must fail so: its document.
    #[track_caller]
    pub fn fails(&self, by: By, number: &str, code: i32, outcome: i32, attempts: u32) -> Value {
        let reply = self.call(by, number);
        assert_eq!((reply.code, reply.outcome), (code, outcome), "{reply:?}");
        let document = reply.json();
        assert_eq!(document["attempts"], attempts, "{document}");
        document
    }

    /// So many calls at once, by both functions, as [`THREADS`] says, with their numbers.
    pub fn all_at_once<'scope, 'env>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
    ) -> Vec<(String, ScopedJoinHandle<'scope, Reply>)> {
        let call = |index: usize| {
            let number = format!("T{index}");
            let name = number.clone();
            (number, scope.spawn(move || self.call(By::BOTH[index % 2], &name)))
        };
        (0..THREADS).map(call).collect()
    }

    /// Whether so many appointments were made, each once.
    #[track_caller]
    pub fn each_made_once(&self, count: usize) {
        let ledger = self.server.ledger();
        assert!(ledger.all().len() == count && ledger.all().values().all(|made| *made == 1), "{ledger:?}");
    }

    fn judge(&self) -> Result<(), String> {
        for (number, reply) in &*self.replies.lock().expect("no panic under it") {
            let text = reply.text.as_deref().unwrap_or_default();
            if reply.code != OK && self.secrets.iter().any(|secret| text.contains(secret)) {
                return Err(format!("a secret in {text}"));
            }
            truth(reply, self.server.ledger().made(number), &self.server.tries(number))
                .map_err(|wrong| format!("{number}: {wrong}: {reply:?}"))?;
        }
        Ok(())
    }
}

/// Checks the success of the call with this number.
#[track_caller]
pub fn made(number: &str, reply: &Reply) {
    assert_eq!((reply.code, reply.outcome), (OK, CREATED), "{reply:?}");
    assert_eq!(reply.json()["info"]["task_num"], format!("T-{number}"));
}

impl Drop for Site {
    fn drop(&mut self) {
        self.free();
        self.server.release();
        if !std::thread::panicking() {
            self.server.settle(0).expect("the client is freed");
            self.judge().unwrap_or_else(|wrong| panic!("{wrong}"));
        }
    }
}
