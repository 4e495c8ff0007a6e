//! The journal: an appointment at most once under a number, whatever dies. Decisions 35 to 41.
//!
//! | module | knows |
//! |---|---|
//! | `people` | what a person asks of the journal and tells it, in JSON |
//! | `file` | one file in one process: the thread that uses it, and those who wait for it |
//! | `store` | what the file must be; one connection of SQLite; transactions |
//! | `rows` | what stands in it, and what a call makes of that |
//! | `life` | whether a sender is alive |
//! | `digest` | whether two bodies say the same |
#![forbid(unsafe_code)]

mod digest;
mod file;
mod life;
mod people;
mod rows;
mod store;

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use zeroize::Zeroizing;

use self::file::{Done, File, Undone, Work};
use self::life::Life;
use self::rows::{Ending, Intent, Row, Standing};
use self::store::{Kind, Trouble};
use crate::call::{Call, Cause, Phase};
use crate::code::Code;
use crate::failure::Failure;
use crate::json;
use crate::log::{Fields, Level};
use crate::memory::{self, NoMemory};
use crate::outcome::Outcome;

/// The pauses between two looks at what another call makes: the first one, and the longest.
const LOOKS: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(10)];
/// The pause before the outcome of a call is written again, where that failed.
const AGAIN: Duration = Duration::from_millis(50);
/// How long it is tried at least to write what a call came to, though its deadline has passed.
const LAST_WORDS: Duration = Duration::from_millis(1_500);
/// How long it is tried for a call that was cancelled, or whose outcome is unknown: so its row reads without it too.
const FAREWELL: Duration = Duration::from_millis(100);

/// What the configuration says of the journal.
#[derive(Serialize)]
pub(crate) struct Settings {
    pub file: PathBuf,
    pub server_id: String,
    pub keep_days: u64,
}

/// The journal of one client.
pub(crate) struct Journal {
    file: Arc<File>,
    /// Whether it was not closed yet.
    open: AtomicBool,
    server: String,
    keep: Duration,
}

/// What a call does after it has looked into the journal.
pub(crate) enum Begun {
    /// It sends, and tells how that ends.
    Send(Pending),
    /// It hands over the answer of an earlier one.
    Recorded(Zeroizing<String>),
    /// It does not send, and the journal has nothing to say against what it says instead.
    Nothing,
}

/// What a call wants of the journal.
#[derive(Clone, Copy)]
pub(crate) struct Wish {
    /// To send; else to hear what is known.
    pub sends: bool,
    /// To send also what may have been made: a repeat is answered with the first success.
    pub server_dedupes: bool,
}

impl Journal {
    /// Opens the journal, within this time.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(crate) fn open(settings: &Settings, timeout: Duration) -> Result<Journal, String> {
        let file = File::open(&settings.file, Instant::now() + timeout).map_err(|trouble| trouble.to_string())?;
        let keep = Duration::from_secs(settings.keep_days * 24 * 60 * 60);
        Ok(Journal { file, open: AtomicBool::new(true), server: settings.server_id.clone(), keep })
    }

    /// Asks whether a call may send this body under this number, and writes that it does, if it wants to. `mask` takes
    /// out of an answer what no failure of the call may repeat.
    ///
    /// # Errors
    /// [`Code::Journal`], [`Code::Unresolved`], [`Code::Conflict`], [`Code::BadResponse`] as it was recorded, and those
    /// of waiting.
    pub(crate) fn begin(
        &self,
        call: &Rc<Call>,
        number: &str,
        body: &str,
        wish: Wish,
        mask: impl Fn(&str) -> Option<String>,
    ) -> Result<Begun, Failure> {
        call.phase(Phase::Journal);
        let file = &self.file;
        let digest = file.key().map_err(|trouble| self.failure(call, None, &trouble))?.digest(body)?;
        let life = || {
            Life::begin(file.path())
                .map(Arc::new)
                .map_err(|error| self.failure(call, None, &Trouble::of_system("its signs of life", &error)))
        };
        let life = if wish.sends { Some(life()?) } else { None };
        let intent = Arc::new(Intent {
            server: memory::copy(&self.server)?,
            out_task_num: memory::copy(number)?,
            digest,
            server_dedupes: wish.server_dedupes && wish.sends,
            keep: self.keep,
        });
        let [mut pause, longest] = LOOKS;
        loop {
            let work = match &life {
                Some(life) => Work::Begin(intent.clone(), life.clone()),
                None => Work::Look(intent.clone()),
            };
            let (done, seen) = file.ask(work, || call.check().is_ok().then(|| call.slice()));
            let standing = match done {
                Ok(Done::Stands(standing)) => standing,
                Ok(Done::Free) => return Ok(Begun::Nothing),
                Ok(_) => return Err(Failure::internal(call)),
                // Who waits for another call, or was cancelled, was not stopped by the file.
                Err(Undone::Stopped(_)) if call.is_cancelled() || call.current_phase() == Phase::Elsewhere => {
                    return Err(Journal::stopped(call, seen, call.check().err().unwrap_or(Cause::Cancelled)));
                }
                Err(undone) => return Err(self.failure(call, seen, &undone.trouble())),
            };
            let row = match standing {
                Standing::Begun { doubtful } => {
                    if doubtful {
                        call.doubt_another();
                    }
                    let Some(life) = life else { return Err(Failure::internal(call)) };
                    return Ok(Begun::Send(Pending {
                        file: file.clone(),
                        call: call.clone(),
                        intent,
                        life,
                        ended: false,
                    }));
                }
                Standing::Sending if !wish.sends => {
                    call.doubt_another();
                    return Ok(Begun::Nothing);
                }
                Standing::Sending => {
                    call.phase(Phase::Elsewhere);
                    call.sleep(pause).map_err(|cause| Journal::stopped(call, seen, cause))?;
                    pause = (pause * 2).min(longest);
                    continue;
                }
                Standing::Made(Row { answer: Some(answer), .. }) => {
                    call.log(Level::Information, "recorded", || Fields {
                        code: Some(Code::Ok.value()),
                        name: Some(Code::Ok.name()),
                        outcome: Some(Outcome::Created.word()),
                        ..Fields::default()
                    });
                    return Ok(Begun::Recorded(Zeroizing::new(answer)));
                }
                Standing::Made(_) => {
                    let message = "the journal says that the appointment was made, and has no task number of it: look it up at the server";
                    let code = Code::BadResponse;
                    return Err(Failure::recorded(call, code, Outcome::Created, message.to_owned(), None));
                }
                Standing::Unresolved => {
                    let message = "an earlier call for this out_task_num may have made the appointment, and nothing was sent now: find out at the server, and tell the journal by arctos_journal_resolve";
                    let code = Code::Unresolved;
                    return Err(Failure::recorded(call, code, Outcome::Unknown, message.to_owned(), None));
                }
                Standing::Conflict(row) => row,
            };
            let (outcome, what) = match row.state {
                rows::State::Ended(Outcome::Created) => (Outcome::Created, "was made"),
                _ => (Outcome::Unknown, "may have been made"),
            };
            let message = format!(
                "this out_task_num stands for another task, which {what}; nothing was sent now: give this one a number of its own"
            );
            let answer = row.masked.as_ref().or(row.answer.as_ref()).and_then(|answer| mask(answer));
            return Err(Failure::recorded(call, Code::Conflict, outcome, message, answer.as_deref()));
        }
    }

    /// The failure of a call that has stopped waiting, and has sent nothing. `seen`: as for [`Journal::failure`].
    fn stopped(call: &Call, seen: Option<Outcome>, cause: Cause) -> Failure {
        if seen != Some(Outcome::NotCreated) {
            call.doubt_another();
        }
        Failure::stopped(call, &cause)
    }

    /// The failure of a call of which nothing was sent, since the file stands in the way. `seen`: the outcome that stands
    /// there, if it could be read.
    fn failure(&self, call: &Call, seen: Option<Outcome>, trouble: &Trouble) -> Failure {
        let outcome = if seen == Some(Outcome::NotCreated) { Outcome::NotCreated } else { Outcome::Unknown };
        Failure::recorded(
            call,
            Code::Journal,
            outcome,
            format!("{}; nothing was sent now", self.sentence(trouble)),
            None,
        )
    }

    fn sentence(&self, trouble: &Trouble) -> String {
        format!("the journal {} {trouble}", self.file.path().display())
    }

    /// Lets go of the file; calls in flight go on.
    pub(crate) fn close(&self) {
        if self.open.swap(false, Ordering::AcqRel) {
            self.file.leave();
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

/// A call that sends. Until it has ended, others wait for it; where its process dies before, or this is dropped, its
/// outcome is what had gone out.
pub(crate) struct Pending {
    file: Arc<File>,
    call: Rc<Call>,
    intent: Arc<Intent>,
    life: Arc<Life>,
    ended: bool,
}

impl Pending {
    /// Writes how the call ended. Where that cannot be done, the row reads as unknown from now on, and the log says so.
    /// `mask`: as for [`Journal::begin`].
    pub(crate) fn end(mut self, result: &Result<Zeroizing<String>, Failure>, mask: impl Fn(&str) -> Option<String>) {
        let (code, outcome) = match result {
            Ok(_) => (Code::Ok, Outcome::Created),
            Err(failure) => (failure.code(), failure.outcome().unwrap_or(Outcome::Unknown)),
        };
        // What cannot be masked is not shown.
        let answer = result.as_ref().ok().map(|answer| Answer {
            text: answer,
            masked: mask(answer).filter(|masked| json::read(masked).is_ok()).unwrap_or_default(),
        });
        self.write(code, outcome, answer);
    }

    fn write(&mut self, code: Code, outcome: Outcome, answer: Option<Answer>) {
        self.ended = true;
        let now = Instant::now();
        let mut until = match outcome {
            Outcome::Unknown => now + FAREWELL,
            _ => now + self.call.left().max(LAST_WORDS),
        };
        let (mut cancelled, mut before) = (false, None);
        let why = loop {
            let wait = || {
                if self.call.is_cancelled() && !cancelled {
                    cancelled = true;
                    until = until.min(Instant::now() + FAREWELL);
                }
                let now = Instant::now();
                (now < until).then(|| until.min(now + AGAIN))
            };
            let Ok(ending) = self.ending(code, outcome, answer.as_ref()) else {
                break Trouble::passing("cannot be used: there is no memory for it");
            };
            let why = match self.file.ask(Work::End(ending, self.life.clone()), wait).0 {
                Ok(_) => return,
                Err(undone) => undone.trouble_after(before),
            };
            let left = until.saturating_duration_since(Instant::now());
            if matches!(why.kind, Kind::Final | Kind::Lasting) || left.is_zero() {
                break why;
            }
            before = Some(why);
            std::thread::sleep(left.min(AGAIN));
        };
        let path = self.file.path().display();
        let note = format!("the outcome was not written, and counts as unknown: the journal {path} {why}");
        self.call.log(Level::Warning, "journal", || Fields {
            code: Some(code.value()),
            name: Some(code.name()),
            outcome: Some(outcome.word()),
            note: Some(&note),
            ..Fields::default()
        });
    }

    fn ending(&self, code: Code, outcome: Outcome, answer: Option<&Answer>) -> Result<Ending, NoMemory> {
        let masked = answer.filter(|answer| answer.masked != answer.text).map(|answer| &*answer.masked);
        Ok(Ending {
            intent: self.intent.clone(),
            outcome,
            code: code.value(),
            answer: answer.map(|answer| memory::copy(answer.text)).transpose()?,
            masked: masked.map(memory::copy).transpose()?,
            undoes: false,
        })
    }
}

/// The answer to a call that has made its appointment.
struct Answer<'a> {
    text: &'a str,
    masked: String,
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.ended {
            let outcome =
                if self.call.sent() || self.call.doubt().is_some() { Outcome::Unknown } else { Outcome::NotCreated };
            self.write(Code::Internal, outcome, None);
        }
    }
}
