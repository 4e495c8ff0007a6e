//! One client, and the way of a call through the library.
#![forbid(unsafe_code)]

use std::rc::Rc;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use crate::call::{Call, Cause};
use crate::code::Code;
use crate::config::{Config, Secret};
use crate::connection::{Answer, Connection};
use crate::contract::{self, Envelope, Status, Task};
use crate::failure::{Failure, Said};
use crate::mask::mask;
use crate::options::Options;

/// How long the rest of an answer may take once its head has decided: it holds no more than the server's words.
const REST: Duration = Duration::from_secs(1);
/// No more bytes of the server's words than these stand in a document.
const LONGEST_MESSAGE: usize = 4 * 1024;
const LONGEST_BODY: usize = 256 * 1024;

/// A client of one server. Any number of threads may use it at once.
pub struct Client {
    config: Config,
    token: RwLock<Option<Secret>>,
    connection: Connection,
}

impl Client {
    /// A client from its configuration, a JSON text. Opens no connection.
    ///
    /// # Errors
    /// [`Code::BadConfig`], with everything that is wrong.
    pub fn new(config: &str) -> Result<Client, Failure> {
        let mut config = Config::read(config)?;
        let connection = Connection::new(&config)?;
        let token = RwLock::new(config.token.take());
        Ok(Client { config, token, connection })
    }

    /// The configuration in force as JSON, secrets masked.
    pub fn config(&self) -> &str {
        &self.config.in_force
    }

    /// Puts another token in the place of the client's. Calls in flight go on with the one they started with.
    ///
    /// # Errors
    /// [`Code::BadArgument`] for a token that is empty or that no header can carry; the old one stays.
    pub fn set_token(&self, token: &str) -> Result<(), Failure> {
        let token = Secret::token(token)
            .map_err(|problem| Failure::plain(Code::BadArgument, format!("the token {problem}; the old one stays")))?;
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = Some(token);
        Ok(())
    }

    /// Makes an appointment: the server's answer, byte for byte.
    ///
    /// # Errors
    /// Every code but [`Code::BadConfig`] and [`Code::NoValue`]; [`Failure::outcome`] tells whether it was made.
    pub fn task_add(&self, task: &str, options: &Options) -> Result<String, Failure> {
        let call = Call::start(true);
        self.add(&call, task, options).map_err(|failure| failure.of(&call))
    }

    /// [`Client::task_add`] within a call that has begun.
    pub(crate) fn add(&self, call: &Rc<Call>, task: &str, options: &Options) -> Result<String, Failure> {
        if let Some(id) = &options.call_id {
            call.set_id(id);
        }
        call.within(options.timeout.unwrap_or(self.config.timeout));
        call.set_host(&self.config.base.authority);
        let task = Task::read(task, self.config.strict).inspect_err(|_| {
            if let Some(number) = contract::number(task) {
                call.set_number(&number);
            }
        })?;
        call.set_number(&task.number);
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(token) = token else {
            let what = "the client has no token: give one in its configuration or set one";
            return Err(Failure::plain(Code::Forbidden, what));
        };
        let scope = call.enter();
        call.attempt(self.config.connect_timeout);
        #[cfg(feature = "planted-panic")]
        plant("panic-before-", &task);
        let answer = self.connection.post(call, contract::PATH, &token, &task.body);
        #[cfg(feature = "planted-panic")]
        plant("panic-after-", &task);
        let result = self.judge(call, answer, &token, &task);
        drop(scope);
        result
    }

    /// What the answer, or the lack of one, means.
    fn judge(&self, call: &Rc<Call>, mut answer: Answer, token: &Secret, task: &Task) -> Result<String, Failure> {
        if !call.sent() && call.status().is_some() {
            // An answer to a request of which nothing went out is no answer to it.
            let cause = Cause::Broken("it was answered before the request was sent".to_owned());
            return Err(Failure::stopped(call, &call.cause().unwrap_or(cause)));
        }
        let max = self.config.max_response_bytes;
        // A complete head decides, whatever became of the rest.
        let (verdict, body, message) = match call.status().map(contract::status) {
            Some(Status::Decided(verdict)) => {
                call.hurry(REST);
                let body = answer.whole(call, max).ok();
                let message = body.as_deref().and_then(contract::message);
                (verdict, body, message)
            }
            Some(Status::Success) | None => {
                let body = answer.whole(call, max).map_err(|cause| Failure::stopped(call, &cause))?;
                match contract::envelope(&body) {
                    Envelope::Made => return Ok(body),
                    Envelope::Not(verdict, message) => (verdict, Some(body), message),
                }
            }
        };
        let private = task.private();
        let secrets: Vec<&str> =
            private.iter().map(|text| text.as_str()).chain(std::iter::once(token.expose())).collect();
        let said = Said {
            retry_after_ms: answer.retry_after_ms(),
            server_message: message.and_then(|message| mask(&message, &secrets, LONGEST_MESSAGE)),
            server_body: body.filter(|_| self.config.keep_bodies).and_then(|body| mask(&body, &secrets, LONGEST_BODY)),
        };
        Err(Failure::answered(call, verdict, said))
    }
}

/// Panics with everything that no message may show.
#[cfg(feature = "planted-panic")]
fn plant(start: &str, task: &Task) {
    if task.number.starts_with(start) {
        panic!("planted: {}", *task.body);
    }
}
