//! The token of a client, and where another one comes from when there is none or the server refuses it.
//!
//! However many calls want another one at once, one of them gets it, by its own time and connection, and the others
//! wait for it. Where the one that went runs out of time or is cancelled, another goes.
#![forbid(unsafe_code)]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Instant;

use zeroize::Zeroizing;

use crate::call::{Call, Phase};
use crate::code::Code;
use crate::failure::Failure;
use crate::fork::{self, Lock};
use crate::json;
use crate::memory::{self, NoMemory};
use crate::secret::Secret;
use crate::sys;

/// No file of a token is longer.
const LONGEST_FILE: usize = 64 * 1024;

/// Where tokens come from.
pub(crate) enum Source {
    /// The caller, who may set another one.
    Caller,
    File(PathBuf),
    LogIn(LogIn),
}

/// How to log in.
pub(crate) struct LogIn {
    pub path: String,
    pub body: Secret,
    /// Where the token stands in the answer.
    pub token_pointer: String,
    /// The statuses that ask for another token.
    pub refresh_on: Vec<u16>,
}

/// Why there is no token, or no other one.
#[derive(Clone)]
pub(crate) enum NoToken {
    /// The one that was refused is still the only one. The note says where.
    Same(String),
    Failed(Failure),
}

pub(crate) struct Credential {
    source: Source,
    state: Lock<State>,
}

struct State {
    token: Option<Secret>,
    /// The way to another one that a call is on.
    renewal: Option<Arc<Renewal>>,
    /// How the last log-in ended that brought none, and will not soon.
    refused: Option<(Instant, NoToken)>,
}

impl Credential {
    pub(crate) fn new(source: Source, token: Option<Secret>) -> Credential {
        Credential { source, state: Lock::new(State { token, renewal: None, refused: None }) }
    }

    /// The token at hand.
    ///
    /// # Errors
    /// [`Code::Forbidden`] where there is none, and none to be got.
    pub(crate) fn at_hand(&self) -> Result<Option<Secret>, Failure> {
        let token = self.state.with(|state| state.token.clone());
        if token.is_none() && matches!(self.source, Source::Caller) {
            let what = "the client has no token: give one in its configuration or set one";
            return Err(Failure::plain(Code::Forbidden, what));
        }
        Ok(token)
    }

    /// Puts the caller's token in the place of the one that is there.
    ///
    /// # Errors
    /// [`Code::BadArgument`] for a token that is none, and where tokens come from somewhere else.
    pub(crate) fn set(&self, token: &str) -> Result<(), Failure> {
        let wrong = |what: String| Err(Failure::plain(Code::BadArgument, what));
        let key = match &self.source {
            Source::Caller => None,
            Source::File(_) => Some("token_file"),
            Source::LogIn(_) => Some("login"),
        };
        if let Some(key) = key {
            return wrong(format!("the client gets its token by {key}; none can be set"));
        }
        let token = match Secret::token(token) {
            Ok(token) => token,
            Err(problem) => return wrong(format!("the token {problem}; the old one stays")),
        };
        let old = self.state.with(|state| state.token.replace(token));
        drop(old);
        Ok(())
    }

    /// What no document may repeat: the token at hand, and what a log-in sends.
    pub(crate) fn private(&self) -> Result<Vec<Zeroizing<String>>, NoMemory> {
        let mut texts = Vec::new();
        if let Source::LogIn(login) = &self.source {
            texts = json::value(login.body.expose()).map_or(Ok(Vec::new()), json::values)?;
            let query = login.path.split_once('?').map_or("", |(_, query)| query);
            for (_, value) in query.split('&').filter_map(|part| part.split_once('=')) {
                memory::push(&mut texts, memory::join(&[value])?)?;
            }
        }
        if let Some(token) = self.state.with(|state| state.token.clone()) {
            memory::push(&mut texts, memory::join(&[token.expose()])?)?;
        }
        Ok(texts)
    }

    /// Whether a status asks for another token.
    pub(crate) fn renews_on(&self, status: u16) -> bool {
        match &self.source {
            Source::Caller => false,
            Source::File(_) => matches!(status, 401 | 403),
            Source::LogIn(login) => login.refresh_on.contains(&status),
        }
    }

    /// Another token than the one that was refused, or the first. `log_in` is asked for it where it comes from a
    /// log-in, unless another call has one or is about it.
    pub(crate) fn another(
        &self,
        call: &Call,
        refused: Option<&Secret>,
        log_in: impl FnOnce(&LogIn) -> Result<Secret, Failure>,
    ) -> Result<Secret, NoToken> {
        call.phase(Phase::LogIn);
        let lead = loop {
            match self.state.with(|state| state.step(call, refused)) {
                Step::Use(token) => return Ok(token),
                Step::Fail(why) => return Err(why),
                Step::Lead(renewal) => break Lead { credential: self, renewal, end: End::Abandoned },
                Step::Follow(renewal) => match renewal.wait(call)? {
                    End::Failed(why) => return Err(why),
                    End::Renewed(_) | End::Abandoned => {}
                },
            }
        };
        let result = match &self.source {
            Source::LogIn(login) => log_in(login).map_err(NoToken::Failed),
            Source::File(path) => reread(path, refused),
            Source::Caller => Err(NoToken::Same("none can be had".to_owned())),
        };
        lead.end(call, &result);
        result
    }
}

/// What a call that wants another token does next.
enum Step {
    Use(Secret),
    Fail(NoToken),
    Lead(Arc<Renewal>),
    Follow(Arc<Renewal>),
}

impl State {
    fn step(&mut self, call: &Call, refused: Option<&Secret>) -> Step {
        if let Some(token) = &self.token
            && !refused.is_some_and(|refused| refused.is(token))
        {
            return Step::Use(token.clone());
        }
        // Whoever was there when it ended need not ask again.
        if let Some((ended, why)) = &self.refused
            && call.entered() < *ended
        {
            return Step::Fail(why.clone());
        }
        let (generation, leader) = (fork::generation(), thread::current().id());
        match &self.renewal {
            // A call that the log's function makes within a log-in would wait for itself.
            Some(renewal) if renewal.generation == generation && renewal.leader != leader => {
                Step::Follow(renewal.clone())
            }
            _ => {
                let (end, ended) = (Mutex::new(None), Condvar::new());
                let renewal = Arc::new(Renewal { generation, leader, end, ended });
                self.renewal = Some(renewal.clone());
                Step::Lead(renewal)
            }
        }
    }
}

/// One way to another token.
struct Renewal {
    generation: u32,
    leader: ThreadId,
    end: Mutex<Option<End>>,
    ended: Condvar,
}

#[derive(Clone)]
enum End {
    Renewed(Secret),
    Failed(NoToken),
    /// The call that was on it has ended for a reason of its own.
    Abandoned,
}

impl Renewal {
    fn wait(&self, call: &Call) -> Result<End, NoToken> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(end) = &*end {
                return Ok(end.clone());
            }
            call.check().map_err(|cause| NoToken::Failed(Failure::stopped(call, &cause)))?;
            let left = call.slice().saturating_duration_since(Instant::now());
            end = self.ended.wait_timeout(end, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Who is on the way; whatever happens to it, the others hear of its end.
struct Lead<'a> {
    credential: &'a Credential,
    renewal: Arc<Renewal>,
    end: End,
}

impl Lead<'_> {
    fn end(mut self, call: &Call, result: &Result<Secret, NoToken>) {
        self.end = match result {
            Ok(token) => End::Renewed(token.clone()),
            Err(_) if call.check().is_err() => End::Abandoned,
            Err(why) => End::Failed(why.clone()),
        };
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let end = std::mem::replace(&mut self.end, End::Abandoned);
        let old = self.credential.state.with(|state| {
            state.renewal.take_if(|renewal| Arc::ptr_eq(renewal, &self.renewal));
            match &end {
                End::Renewed(token) => {
                    state.refused = None;
                    state.token.replace(token.clone())
                }
                End::Failed(why) if why.is_final() => {
                    state.refused = Some((Instant::now(), why.clone()));
                    None
                }
                End::Failed(_) | End::Abandoned => None,
            }
        });
        drop(old);
        *self.renewal.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
        self.renewal.ended.notify_all();
    }
}

impl NoToken {
    /// Whether asking again would bring no more.
    fn is_final(&self) -> bool {
        match self {
            // It costs little to look once more, and somebody may have changed it.
            NoToken::Same(_) => false,
            NoToken::Failed(failure) => {
                !matches!(failure.code(), Code::Connect | Code::Timeout | Code::Broken | Code::Busy)
            }
        }
    }
}

/// Reads a file that holds a token: blanks, line ends and a byte order mark around it do not count. The error says what
/// is wrong with the file.
pub(crate) fn read(path: &Path) -> Result<Secret, String> {
    let unreadable = |error| format!("cannot be read: {error}");
    let file = sys::open(path).map_err(unreadable)?;
    // Whatever else it is could make a call wait, or never end.
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err("is no regular file".to_owned());
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(LONGEST_FILE as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > LONGEST_FILE {
        return Err(format!("is longer than {LONGEST_FILE} bytes"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| "holds no text in UTF-8".to_owned())?;
    let text = text.trim_start_matches('\u{feff}').trim_matches([' ', '\t', '\r', '\n']);
    Secret::token(text).map_err(|problem| format!("holds no token: it {problem}"))
}

fn reread(path: &Path, refused: Option<&Secret>) -> Result<Secret, NoToken> {
    match read(path) {
        Ok(token) if refused.is_some_and(|refused| refused.expose() == token.expose()) => {
            Err(NoToken::Same("token_file still holds the same token".to_owned()))
        }
        Ok(token) => Ok(token),
        Err(problem) => Err(NoToken::Same(format!("token_file {problem}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::call::Purpose;

    fn secret(token: &str) -> Secret {
        Secret::token(token).expect("a token")
    }

    #[test]
    fn whoever_waits_for_a_log_in_that_panics_goes_itself() {
        let login =
            LogIn { path: String::new(), body: secret("body"), token_pointer: String::new(), refresh_on: Vec::new() };
        let credential = Credential::new(Source::LogIn(login), None);
        let (leads, panics) = mpsc::channel();
        let renewal = || credential.state.with(|state| state.renewal.clone());
        thread::scope(|scope| {
            let leader = scope.spawn(|| {
                let call = Call::start(Purpose::Appointment);
                let log_in = |_: &LogIn| {
                    leads.send(()).expect("the test listens");
                    // Held by the credential, the lead, and each follower. The clone here is one more.
                    while renewal().is_none_or(|renewal| Arc::strong_count(&renewal) < 4) {
                        thread::sleep(Duration::from_millis(1));
                    }
                    panic!("on purpose")
                };
                catch_unwind(AssertUnwindSafe(|| credential.another(&call, None, log_in).is_ok())).is_err()
            });
            panics.recv().expect("it leads");
            let call = Call::start(Purpose::Appointment);
            call.within(Duration::from_secs(60));
            let token = credential.another(&call, None, |_| Ok(secret("token")));
            assert!(token.is_ok_and(|token| token.expose() == "token"));
            assert!(leader.join().expect("it catches the panic"), "it panicked");
        });
        assert!(renewal().is_none(), "nobody is on the way");
        assert!(credential.at_hand().is_ok_and(|token| token.is_some_and(|token| token.expose() == "token")));
    }
}
