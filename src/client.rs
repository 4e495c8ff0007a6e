//! One client, and the way of a call through the library.
#![forbid(unsafe_code)]

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::call::{Call, Cause, Purpose};
use crate::cancel::{Cancels, Ticket};
use crate::code::Code;
use crate::config::Config;
use crate::connection::{Answer, Connection};
use crate::contract::{self, Envelope, Status, Task};
use crate::credential::{LogIn, NoToken};
#[cfg(feature = "journal")]
use crate::failure::Problem;
use crate::failure::{Failure, Said, Verdict};
#[cfg(feature = "journal")]
use crate::journal::{Begun, Journal, Wish};
use crate::log::{Fields, Level};
use crate::mask::mask;
use crate::memory::{self, NoMemory};
use crate::options::Options;
use crate::outcome::Outcome;
use crate::path;
use crate::secret::Secret;
use crate::stats::Stats;
use crate::{diagnose, json};

/// How long the rest of an answer may take once its head has decided: it holds no more than the server's words.
const REST: Duration = Duration::from_secs(1);
/// No more bytes of the server's words than these stand in a document.
const LONGEST_MESSAGE: usize = 4 * 1024;
const LONGEST_BODY: usize = 256 * 1024;
/// The pause before the second try is of a random length up to this, each further one up to twice as much.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A client of one server. Any number of threads may use it at once.
pub struct Client {
    config: Config,
    connection: Connection,
    cancels: Arc<Cancels>,
    stats: Arc<Stats>,
    #[cfg(feature = "journal")]
    journal: Option<Journal>,
}

/// What is sent, the same bytes at each try.
struct Request<'a> {
    path: &'a str,
    body: &'a str,
    /// Whether a success has a task number.
    numbered: bool,
    /// What of the body no document may repeat.
    private: &'a dyn Fn() -> Result<Vec<Zeroizing<String>>, NoMemory>,
}

impl Client {
    /// A client from its configuration, a JSON text. Opens its journal, and no connection.
    ///
    /// # Errors
    /// [`Code::BadConfig`], with everything that is wrong.
    pub fn new(config: &str) -> Result<Client, Failure> {
        let config = Config::read(config)?;
        let stats = Stats::new();
        let connection = Connection::new(&config, stats.clone())?;
        #[cfg(feature = "journal")]
        let journal = match &config.journal {
            Some(settings) => Some(Journal::open(settings, config.timeout).map_err(|problem| {
                let problem = Problem::new("journal.file", problem).value(Some(settings.file.display().to_string()));
                Failure::problems(Code::BadConfig, "the configuration is refused", vec![problem])
            })?),
            None => None,
        };
        Ok(Client {
            config,
            connection,
            cancels: Cancels::new(),
            stats,
            #[cfg(feature = "journal")]
            journal,
        })
    }

    /// The configuration in force as JSON, secrets masked.
    pub fn config(&self) -> &str {
        &self.config.in_force
    }

    /// Puts another token in the place of the client's. Calls in flight go on with the one they started with.
    ///
    /// # Errors
    /// [`Code::BadArgument`] for a token that is empty or that no header can carry, and for a client that gets its
    /// tokens by itself; the old one stays.
    pub fn set_token(&self, token: &str) -> Result<(), Failure> {
        self.config.credential.set(token)
    }

    /// Makes an appointment: the server's answer, byte for byte.
    ///
    /// # Errors
    /// Every code but [`Code::BadConfig`] and [`Code::NoValue`]; [`Failure::outcome`] tells whether it was made.
    pub fn task_add(&self, task: &str, options: &Options) -> Result<Zeroizing<String>, Failure> {
        self.add(&Call::start(Purpose::Appointment), task, options)
    }

    /// POSTs any JSON to a path below the base URL: the server's answer, byte for byte.
    ///
    /// # Errors
    /// As of [`Client::task_add`]; [`Failure::outcome`] tells whether the server carried it out.
    pub fn call(&self, path: &str, body: &str, options: &Options) -> Result<Zeroizing<String>, Failure> {
        self.post(&Call::start(Purpose::Request), path, body, options)
    }

    /// Closes the journal and the connections that are kept, and keeps none from now on: who owns the client lets go of
    /// it. Calls in flight go on; in a child of fork it may be one of its parent's that never ends.
    pub(crate) fn close(&self) {
        self.connection.close();
        #[cfg(feature = "journal")]
        self.journal.iter().for_each(Journal::close);
    }

    /// What stands between the client and its server, step by step, as JSON. No appointment is asked for, and no token
    /// is sent.
    ///
    /// # Errors
    /// That of the first step that failed; its document has the steps.
    pub fn diagnose(&self) -> Result<String, Failure> {
        self.examine(&Call::start(Purpose::Diagnosis))
    }

    /// [`Client::diagnose`] within a call that has begun.
    pub(crate) fn examine(&self, call: &Rc<Call>) -> Result<String, Failure> {
        self.enter(call, &Options::default());
        diagnose::run(call, &self.config, &self.connection)
    }

    /// Counts a call from here on, until [`Call::count_end`].
    pub(crate) fn count(&self, call: &Call) {
        call.count(|| self.stats.begin());
    }

    /// What the client has done since it was made, as JSON.
    pub(crate) fn stats(&self) -> Result<Zeroizing<String>, Failure> {
        Ok(self.stats.document(self.connection.kept())?)
    }

    /// Ends every call that is in flight. Later ones are not affected.
    pub fn cancel(&self) {
        self.cancels.all();
    }

    /// Ends the calls in flight to which their caller gave this id.
    pub fn cancel_call(&self, id: &str) {
        self.cancels.one(id);
    }

    /// [`Client::task_add`] within a call that has begun.
    pub(crate) fn add(&self, call: &Rc<Call>, task: &str, options: &Options) -> Result<Zeroizing<String>, Failure> {
        self.add_unless(call, task, options, None)
    }

    /// [`Client::add`] of a task that is not sent where there is a reason against it: the failure, unless the journal
    /// knows more of the task.
    pub(crate) fn add_unless(
        &self,
        call: &Rc<Call>,
        task: &str,
        options: &Options,
        against: Option<Failure>,
    ) -> Result<Zeroizing<String>, Failure> {
        self.enter(call, options);
        self.make(call, task, against).map_err(|failure| failure.of(call))
    }

    fn make(&self, call: &Rc<Call>, task: &str, against: Option<Failure>) -> Result<Zeroizing<String>, Failure> {
        let task = Task::read(task, self.config.strict).inspect_err(|_| {
            if let Some(number) = contract::number(task) {
                call.set_number(number);
            }
        })?;
        call.set_number(memory::copy(&task.number)?);
        for note in &task.notes {
            let (field, note) = (Some(note.field.as_str()), Some(note.note.as_str()));
            call.log(Level::Warning, "warning", || Fields { field, note, ..Fields::default() });
        }
        let request = Request { path: contract::PATH, body: &task.body, numbered: true, private: &|| task.private() };
        #[cfg(feature = "journal")]
        let sends = against.is_none();
        let send = || {
            if let Some(against) = against {
                return Err(against);
            }
            #[cfg(feature = "planted-panic")]
            plant("panic-before-", &task);
            let result = self.carry_out(call, &request);
            #[cfg(feature = "planted-panic")]
            plant("panic-after-", &task);
            result
        };
        #[cfg(feature = "journal")]
        if let Some(journal) = &self.journal {
            return self.once(call, journal, &task, sends, send);
        }
        send()
    }

    /// Sends unless the journal knows better, and writes into it what came of it.
    #[cfg(feature = "journal")]
    fn once(
        &self,
        call: &Rc<Call>,
        journal: &Journal,
        task: &Task,
        sends: bool,
        send: impl FnOnce() -> Result<Zeroizing<String>, Failure>,
    ) -> Result<Zeroizing<String>, Failure> {
        // A server's answer in a failure, of this call or of a later one.
        let mask = |answer: &str| {
            let private = self.private(task.private().ok()?, self.config.credential.at_hand().ok()?.iter()).ok()?;
            mask(answer, &private, LONGEST_BODY)
        };
        let server_dedupes = self.config.server_dedupes;
        match journal.begin(call, &task.number, &task.body, Wish { sends, server_dedupes }, mask)? {
            Begun::Recorded(answer) => Ok(answer),
            Begun::Nothing => send(),
            Begun::Send(pending) => {
                let result = send().map_err(|failure| failure.of(call));
                pending.end(&result, mask);
                result
            }
        }
    }

    /// What the journal has of the client's server, as JSON.
    ///
    /// # Errors
    /// [`Code::BadArgument`] for a filter that is none, or without a journal; [`Code::Journal`].
    #[cfg(feature = "journal")]
    pub fn journal_list(&self, filter: &str) -> Result<Zeroizing<String>, Failure> {
        self.own_journal()?.list(filter, self.config.timeout)
    }

    /// Tells the journal what became of an appointment; its row as JSON.
    ///
    /// # Errors
    /// [`Code::NoValue`] where the journal has no such row; [`Code::BadArgument`] for a resolution that is none, or that
    /// contradicts what the journal knows, and without a journal; [`Code::Journal`].
    #[cfg(feature = "journal")]
    pub fn journal_resolve(&self, number: &str, resolution: &str) -> Result<Zeroizing<String>, Failure> {
        self.own_journal()?.resolve(number, resolution, self.config.timeout)
    }

    #[cfg(feature = "journal")]
    fn own_journal(&self) -> Result<&Journal, Failure> {
        let none = || Failure::plain(Code::BadArgument, "the client has no journal: its configuration names none");
        self.journal.as_ref().ok_or_else(none)
    }

    /// [`Client::call`] within a call that has begun.
    pub(crate) fn post(
        &self,
        call: &Rc<Call>,
        path: &str,
        body: &str,
        options: &Options,
    ) -> Result<Zeroizing<String>, Failure> {
        self.enter(call, options);
        self.ask(call, path, body).map_err(|failure| failure.of(call))
    }

    fn ask(&self, call: &Rc<Call>, path: &str, body: &str) -> Result<Zeroizing<String>, Failure> {
        let wrong = |name: &str, problem: &str| Failure::plain(Code::BadArgument, format!("{name} {problem}"));
        path::check(path, contract::PATH).map_err(|problem| wrong("path", problem))?;
        json::read(body).map_err(|problem| wrong("body_json", &format!("is not JSON: {problem}")))?;
        let private = || json::texts(json::value(body).into_iter());
        let request = Request { path, body, numbered: false, private: &private };
        self.carry_out(call, &request)
    }

    /// Sets what holds for the whole of a call.
    pub(crate) fn enter(&self, call: &Rc<Call>, options: &Options) {
        if let Some(id) = &options.call_id {
            call.set_id(id);
        }
        call.obey(|| self.ticket(options));
        call.within(options.timeout.unwrap_or(self.config.timeout));
        call.set_host(&self.config.base.authority);
        if let Some(proxy) = &self.config.proxy {
            call.set_proxy(&proxy.authority);
        }
    }

    /// What asks whether calls with these options are cancelled.
    pub(crate) fn ticket(&self, options: &Options) -> Arc<Ticket> {
        self.cancels.ticket(options.call_id.as_deref())
    }

    /// How many connections are kept, and how many appointments are made at once where many are asked for.
    pub(crate) fn most_at_once(&self) -> usize {
        self.config.connections
    }

    /// Tries until it is done, or until another try would do no good or could do harm.
    fn carry_out(&self, call: &Rc<Call>, request: &Request) -> Result<Zeroizing<String>, Failure> {
        let _scope = call.enter();
        let mut at_hand = self.config.credential.at_hand()?;
        // The one refusal that another token may mend.
        let mut refusal: Option<(Secret, Failure)> = None;
        loop {
            call.attempt();
            let refused = refusal.as_ref().map(|(token, _)| token);
            let token = match at_hand.take() {
                Some(token) => Ok(token),
                None => self.config.credential.another(call, refused, |login| self.log_in(call, login)),
            };
            let failure = match token {
                Ok(token) => match self.attempt(call, request, &token, refused) {
                    Ok(body) => return Ok(body),
                    Err(failure) if refusal.is_none() && self.is_refusal(call, &failure) => {
                        call.log(Level::Warning, "refused", || Fields {
                            attempt: Some(call.attempts()),
                            ..of(&failure)
                        });
                        refusal = Some((token, failure));
                        continue;
                    }
                    Err(failure) => {
                        at_hand = Some(token);
                        failure
                    }
                },
                Err(NoToken::Failed(failure)) => failure.of(call),
                Err(NoToken::Same(note)) => {
                    let none = || Failure::plain(Code::Forbidden, "the client has no token").of(call);
                    return Err(refusal.map_or_else(none, |(_, failure)| failure).noting(&note));
                }
            };
            let (code, outcome) = failure.of_last_try();
            let tries = call.attempts() - u32::from(refusal.is_some());
            if failure.is_final() || !self.may_try_again(code, outcome) || tries > self.config.retries {
                return Err(failure);
            }
            let asked = Duration::from_millis(failure.retry_after_ms().unwrap_or(0));
            let pause = asked.saturating_add(jitter(tries));
            if pause >= call.left() {
                return Err(failure);
            }
            let attempt = Some(call.attempts());
            call.log(Level::Warning, "retry", || Fields { attempt, ..of(&failure) });
            let pause_ms = u64::try_from(pause.as_millis()).ok();
            call.log(Level::Information, "pause", || Fields { attempt, pause_ms, ..Fields::default() });
            drop(failure);
            call.pause(pause, outcome == Some(Outcome::Unknown)).map_err(|cause| Failure::stopped(call, &cause))?;
        }
    }

    /// One try with one token, after another one was refused or not.
    fn attempt(
        &self,
        call: &Rc<Call>,
        request: &Request,
        token: &Secret,
        refused: Option<&Secret>,
    ) -> Result<Zeroizing<String>, Failure> {
        call.log(Level::Detail, "attempt", || Fields { attempt: Some(call.attempts()), ..Fields::default() });
        let answer = self.connection.post(call, request.path, Some(token), request.body);
        self.judge(call, answer, request.numbered, || {
            self.private((request.private)()?, std::iter::once(token).chain(refused))
        })
    }

    /// Whether the server refused the token, so that another one may do, and did nothing. What came before the token
    /// went out refuses none.
    fn is_refusal(&self, call: &Call, failure: &Failure) -> bool {
        call.sent()
            && call.status().is_some_and(|status| self.config.credential.renews_on(status))
            && failure.of_last_try().1 == Some(Outcome::NotCreated)
    }

    /// Gets a token for a call, in its time. What fails here made no appointment.
    fn log_in(&self, call: &Rc<Call>, login: &LogIn) -> Result<Secret, Failure> {
        let own = call.log_in();
        let _scope = own.enter();
        self.stats.login();
        own.log(Level::Detail, "login", Fields::default);
        let answer = self.connection.post(&own, &login.path, None, login.body.expose());
        let result = self.token_of(&own, answer, login);
        if let http_status @ Some(_) = own.status() {
            own.log(Level::Information, "answer", || {
                let code = result.as_ref().map_or_else(|failure| failure.code(), |_| Code::Ok);
                Fields { http_status, code: Some(code.value()), name: Some(code.name()), ..Fields::default() }
            });
        }
        result
    }

    /// The token in the answer to a log-in.
    fn token_of(&self, call: &Call, mut answer: Answer, login: &LogIn) -> Result<Secret, Failure> {
        let pointer = &login.token_pointer;
        let (code, meaning, body) = match self.hear(call, &mut answer)? {
            Heard::Decided(verdict, body) => {
                let status = call.status().unwrap_or_default();
                match verdict.code {
                    Code::Forbidden | Code::Rejected => (Code::Forbidden, format!("refused it (HTTP {status})"), body),
                    Code::NotFound => (Code::NotFound, format!("does not know login.path (HTTP {status})"), body),
                    code => (code, verdict.meaning, body),
                }
            }
            Heard::Body(body) => match json::string_at(&body, pointer) {
                Ok(token) => match Secret::token(&token) {
                    Ok(token) => return Ok(token),
                    // Its own words may be the token.
                    Err(problem) => (Code::BadResponse, format!("gave a token at {pointer} that {problem}"), None),
                },
                Err(failure) if failure.code() == Code::NoValue => {
                    // Where the server says that it worked, its own words may be the token.
                    let refused = !matches!(contract::envelope(&body, false), Envelope::Made { .. });
                    let meaning = format!("gave no token at {pointer}, by which it refused it");
                    (Code::Forbidden, meaning, Some(body).filter(|_| refused))
                }
                Err(failure) => {
                    (Code::BadResponse, format!("gave an answer that cannot be read: {}", failure.message()), None)
                }
            },
        };
        let message = body.as_deref().and_then(|body| contract::message(body));
        let server_message = message.and_then(|message| {
            let private = self.private(Vec::new(), std::iter::empty()).ok()?;
            mask(&message, &private, LONGEST_MESSAGE)
        });
        // Its body may hold a token somewhere else.
        let said = Said { retry_after_ms: answer.retry_after_ms(), server_message, server_body: None };
        Err(Failure::answered(call, Verdict { code, outcome: Outcome::NotCreated, meaning }, said))
    }

    /// Reads an answer as far as it tells something; the error is the lack of one.
    fn hear(&self, call: &Call, answer: &mut Answer) -> Result<Heard, Failure> {
        if !call.sent() && call.status().is_some() {
            // An answer to a request of which nothing went out is no answer to it.
            let cause = Cause::Broken("it was answered before the request was sent".to_owned());
            return Err(Failure::stopped(call, &call.cause().unwrap_or(cause)));
        }
        let max = self.config.max_response_bytes;
        let status = call.status().map(|status| contract::status(status, self.config.retry_503));
        // A complete head decides, whatever became of the rest.
        if let Some(Status::Decided(verdict)) = status {
            call.hurry(REST);
            return Ok(Heard::Decided(verdict, answer.whole(call, max).ok()));
        }
        answer.whole(call, max).map(Heard::Body).map_err(|cause| Failure::stopped(call, &cause))
    }

    /// Whether a failure may pass, and trying again makes nothing twice.
    fn may_try_again(&self, code: Code, outcome: Option<Outcome>) -> bool {
        match outcome {
            // What is final, such as a certificate, has another code.
            Some(Outcome::NotCreated) => matches!(code, Code::Connect | Code::Timeout | Code::Broken | Code::Busy),
            Some(Outcome::Unknown) if self.config.server_dedupes => {
                let codes = [Code::Timeout, Code::Broken, Code::Busy, Code::ServerError, Code::BadResponse];
                codes.contains(&code)
            }
            _ => false,
        }
    }

    /// What no document may repeat: the private texts of a request, these tokens, and what else the client keeps secret,
    /// since whoever answers for the server may have seen any of it.
    fn private<'a>(
        &'a self,
        mut texts: Vec<Zeroizing<String>>,
        tokens: impl Iterator<Item = &'a Secret>,
    ) -> Result<Vec<Zeroizing<String>>, NoMemory> {
        let proxy = self.config.proxy.iter().filter_map(|proxy| proxy.credentials.as_ref());
        let secrets = tokens.chain(proxy.flat_map(|credentials| [&credentials.password, &credentials.basic]));
        let secrets = secrets.map(|secret| memory::join(&[secret.expose()]));
        for secret in secrets.chain(self.config.credential.private()?.into_iter().map(Ok)) {
            let secret = secret?;
            if !texts.contains(&secret) {
                memory::push(&mut texts, secret)?;
            }
        }
        Ok(texts)
    }

    /// What the answer, or the lack of one, means. `numbered`: whether a success has a task number; `private`: what no
    /// document may repeat.
    fn judge(
        &self,
        call: &Rc<Call>,
        mut answer: Answer,
        numbered: bool,
        private: impl FnOnce() -> Result<Vec<Zeroizing<String>>, NoMemory>,
    ) -> Result<Zeroizing<String>, Failure> {
        let (verdict, body, message) = match self.hear(call, &mut answer)? {
            Heard::Decided(verdict, body) => {
                let message = body.as_deref().and_then(|body| contract::message(body));
                (verdict, body, message)
            }
            Heard::Body(body) => match contract::envelope(&body, numbered) {
                Envelope::Made { warning } => {
                    report(call, warning);
                    return Ok(body);
                }
                Envelope::Not(verdict, message) => (verdict, Some(body), message),
            },
        };
        // Where there is no memory for what no document may repeat, none of the server's words are.
        let private = private().ok();
        let masked = |text: Option<Zeroizing<String>>, longest| mask(&text?, private.as_ref()?, longest);
        let said = Said {
            retry_after_ms: answer.retry_after_ms(),
            server_message: masked(message, LONGEST_MESSAGE),
            server_body: masked(body.filter(|_| self.config.keep_bodies), LONGEST_BODY),
        };
        let failure = Failure::answered(call, verdict, said);
        call.log(Level::Information, "answer", || Fields { http_status: call.status(), ..of(&failure) });
        Err(failure)
    }
}

/// What came for a request.
enum Heard {
    /// A head that decides by itself, and the body if it could be had.
    Decided(Verdict, Option<Zeroizing<String>>),
    Body(Zeroizing<String>),
}

/// Tells the log of an answer that is a success. Decision 9: a warning is one.
fn report(call: &Call, warning: bool) {
    call.log(Level::Information, "answer", || Fields {
        http_status: call.status(),
        code: Some(Code::Ok.value()),
        name: Some(Code::Ok.name()),
        outcome: Some(Outcome::Created.word()),
        ..Fields::default()
    });
    if warning {
        let note = Some("the server made it, with status 2: a warning");
        call.log(Level::Warning, "warning", || Fields { note, ..Fields::default() });
    }
}

/// Tells the log of a call that failed, or was cancelled.
pub(crate) fn report_end(call: &Call, failure: &Failure) {
    let (level, event) = match failure.code() {
        Code::Cancelled => (Level::Warning, "cancel"),
        _ => (Level::Error, "failure"),
    };
    call.log(level, event, || {
        let outcome = failure.outcome().map(Outcome::word);
        Fields { attempt: Some(failure.attempts().unwrap_or(call.attempts())), outcome, ..of(failure) }
    });
}

/// How a try ended.
fn of(failure: &Failure) -> Fields<'static> {
    let (code, outcome) = failure.of_last_try();
    let outcome = outcome.map(Outcome::word);
    Fields { code: Some(code.value()), name: Some(code.name()), outcome, ..Fields::default() }
}

/// A random time, so that callers who were refused at once do not come back at once.
fn jitter(attempts: u32) -> Duration {
    let most = FIRST_PAUSE.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(LONGEST_PAUSE);
    // Without random numbers the pause is the longest.
    let share = getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX));
    most.mul_f64(share)
}

/// Panics with everything that no message may show.
#[cfg(feature = "planted-panic")]
fn plant(start: &str, task: &Task) {
    if task.number.starts_with(start) {
        panic!("planted: {}", &*task.body);
    }
}
