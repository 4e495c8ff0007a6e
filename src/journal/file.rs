//! One file in one process: a single connection, and one thread that uses it, for all clients that name the file.
//!
//! The calls hand their work to the thread and wait for it as they wait for the network, so that neither a slow disk nor
//! another program that has the file locked holds a deadline or a cancel. All work that is there when the thread comes
//! back goes into one transaction, and is synced to the disk once.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::digest::Key;
use super::life::Life;
use super::rows::{Ending, Filter, Intent, Refused, Resolution, Row, Rows, Standing};
use super::store::{Kind, Place, Store, Trouble};
use crate::code::Code;
use crate::fork::{self, Lock};
use crate::outcome::Outcome;
use crate::sys;

/// The pauses before a locked file is tried again: the first one, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(10)];
/// How much longer a caller who has no time left waits for work that has begun, so as to tell its end.
const GRACE: Duration = Duration::from_millis(50);

/// The files in use.
static FILES: Lock<Vec<Weak<File>>> = Lock::new(Vec::new());

/// One file.
pub(super) struct File {
    place: Place,
    key: OnceLock<Key>,
    /// Why the file is not what it was. Nothing is asked of it then: what it would say may be less than was known.
    lost: Lock<Option<Trouble>>,
    /// Closed before a fork, and opened again when there is work.
    store: Mutex<Option<Store>>,
    queue: Lock<Queue>,
}

/// What waits for the thread.
struct Queue {
    /// The process that it belongs to: a child of fork has neither the thread nor those who wait.
    generation: u32,
    jobs: Vec<Arc<Job>>,
    thread: Option<Thread>,
    /// The clients that have the file open.
    users: usize,
}

/// What can be asked of a file.
pub(super) enum Work {
    /// Open it.
    Open,
    /// Look how a call stands, and write its intent; the sign of life lives as long as this.
    Begin(Arc<Intent>, Arc<Life>),
    /// Look how a call would stand.
    Look(Arc<Intent>),
    /// Write how a call ended.
    End(Ending, Arc<Life>),
    List(Filter),
    Resolve(Resolution),
}

/// What came of it.
pub(super) enum Done {
    Opened,
    Stands(Standing),
    /// Nothing is known against it.
    Free,
    Ended,
    /// Rows, and the last one that was looked at where there may be more.
    Listed(Vec<Row>, Option<i64>),
    Resolved(Result<Row, Refused>),
}

/// Why nothing came of it.
pub(super) enum Undone {
    Trouble(Trouble),
    /// The caller has stopped waiting. What was the matter until then, where that is known.
    Stopped(Option<Trouble>),
}

impl Undone {
    /// What to tell of it.
    pub(super) fn trouble(self) -> Trouble {
        self.trouble_after(None)
    }

    /// What to tell of it where this was the matter before.
    pub(super) fn trouble_after(self, before: Option<Trouble>) -> Trouble {
        match (self, before) {
            (Undone::Trouble(trouble) | Undone::Stopped(Some(trouble)), _) => trouble,
            (Undone::Stopped(None), Some(before)) => before,
            (Undone::Stopped(None), None) => {
                Trouble::passing("did not become ready in time: the disk is slow, or many calls wait for it")
            }
        }
    }
}

/// One piece of work and how far it is.
struct Job {
    work: Work,
    caller: Option<Thread>,
    progress: Lock<Progress>,
}

struct Progress {
    step: Step,
    /// The outcome that stood in the row before the call.
    seen: Option<Outcome>,
    /// Why it has to wait.
    hindrance: Option<Trouble>,
}

enum Step {
    Waiting,
    /// The thread is at it.
    Begun,
    Done(Box<Result<Done, Trouble>>),
    /// Its caller has stopped waiting.
    Left,
}

impl Job {
    fn new(work: Work, caller: Option<Thread>) -> Arc<Job> {
        let progress = Progress { step: Step::Waiting, seen: None, hindrance: None };
        Arc::new(Job { work, caller, progress: Lock::new(progress) })
    }

    /// Whether anybody still wants it; then it is begun.
    fn take_up(&self) -> bool {
        self.progress.with(|progress| match progress.step {
            Step::Waiting => {
                progress.step = Step::Begun;
                true
            }
            _ => false,
        })
    }

    /// The file is locked: its caller may leave it again.
    fn put_back(&self, hindrance: &Trouble) {
        self.progress.with(|progress| {
            if matches!(progress.step, Step::Begun) {
                progress.step = Step::Waiting;
            }
            progress.hindrance = Some(hindrance.clone());
        });
    }

    fn see(&self, outcome: Outcome) {
        self.progress.with(|progress| progress.seen = Some(outcome));
    }

    fn run(&self, rows: &Rows) -> Result<Done, Trouble> {
        match &self.work {
            Work::Open => Ok(Done::Opened),
            Work::Begin(intent, life) => rows.begin(intent, life.offset(), |seen| self.see(seen)).map(Done::Stands),
            Work::Look(intent) => self.look(intent, rows).map(|standing| standing.unwrap_or(Done::Free)),
            Work::End(ending, life) => rows.end(ending, life.offset()).map(|()| Done::Ended),
            Work::List(filter) => rows.list(filter).map(|(rows, last)| Done::Listed(rows, last)),
            Work::Resolve(resolution) => rows.resolve(resolution).map(Done::Resolved),
        }
    }

    fn look(&self, intent: &Intent, rows: &Rows) -> Result<Option<Done>, Trouble> {
        Ok(rows.look(intent, |seen| self.see(seen))?.map(Done::Stands))
    }

    /// As much of it as can be done while another program writes.
    fn read(&self, rows: &Rows) -> Result<Option<Done>, Trouble> {
        match &self.work {
            Work::Begin(intent, _) => self.look(intent, rows),
            Work::Look(intent) => self.look(intent, rows).map(|standing| standing.or(Some(Done::Free))),
            Work::Open => Ok(Some(Done::Opened)),
            Work::List(filter) => rows.list(filter).map(|(rows, last)| Some(Done::Listed(rows, last))),
            Work::End(..) | Work::Resolve(_) => Ok(None),
        }
    }

    /// Hands over what came of it. The work that undoes it, where its caller does not send: an intent that was written
    /// for one who has left, or that failed to be written, for it may yet be found in the log.
    fn finish(&self, result: Result<Done, Trouble>) -> Option<Work> {
        let stands = matches!(result, Ok(Done::Stands(Standing::Begun { .. })));
        let failed = result.is_err();
        let (left, seen) = self.progress.with(|progress| {
            let left = matches!(progress.step, Step::Left);
            if !left {
                progress.step = Step::Done(Box::new(result));
            }
            (left, progress.seen)
        });
        if let Some(caller) = &self.caller {
            caller.unpark();
        }
        match &self.work {
            Work::Begin(intent, life) if failed || left && stands => {
                let (intent, outcome) = (intent.clone(), seen.unwrap_or(Outcome::Unknown));
                let code = Code::Journal.value();
                let ending = Ending { intent, outcome, code, answer: None, masked: None, undoes: true };
                Some(Work::End(ending, life.clone()))
            }
            _ => None,
        }
    }
}

impl File {
    /// The file at a path, opened; one for all who name it.
    pub(super) fn open(path: &Path, until: Instant) -> Result<Arc<File>, Trouble> {
        fork::put_away_before(put_away);
        let place = Place::prepare(path)?;
        let file = FILES.with(|files| {
            files.retain(|file| file.strong_count() > 0);
            let known = files.iter().filter_map(Weak::upgrade).find(|file| file.place == place);
            known.unwrap_or_else(|| {
                let queue = Queue { generation: fork::generation(), jobs: Vec::new(), thread: None, users: 0 };
                let (store, queue) = (Mutex::new(None), Lock::new(queue));
                let file = Arc::new(File { place, key: OnceLock::new(), lost: Lock::new(None), store, queue });
                files.push(Arc::downgrade(&file));
                file
            })
        });
        let first = file.queue.with(|queue| {
            queue.users += 1;
            queue.users == 1
        });
        // Nobody has it any more who knew more than it says; what it still lacks is found out again.
        if first {
            file.lost.with(|lost| *lost = None);
        }
        let (opened, _) = file.ask(Work::Open, || (Instant::now() < until).then_some(until));
        match opened {
            Ok(_) => Ok(file),
            Err(undone) => {
                file.leave();
                Err(undone.trouble())
            }
        }
    }

    /// Lets go of the file. Who is the last one closes it, unless somebody is just using it, who does so then. Calls in
    /// flight may open it once more.
    pub(super) fn leave(&self) {
        let (thread, last) = self.queue.with(|queue| {
            queue.users -= 1;
            let here = queue.generation == fork::generation();
            (queue.thread.clone().filter(|_| here), queue.users == 0)
        });
        if last {
            fork::undisturbed_at_once(|| self.store.try_lock().map(|mut store| drop(store.take())));
            thread.inspect(Thread::unpark);
        }
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.place.path
    }

    /// The key of its digests.
    pub(super) fn key(&self) -> Result<&Key, Trouble> {
        self.key.get().ok_or_else(|| Trouble::passing("cannot be used: it was not opened"))
    }

    /// Has work done, and waits for it. `wait` says until when the next wait may last, and nothing when there is no time
    /// left. Besides what came of it: the outcome that stood in the row of a call that begins, where it could be read.
    pub(super) fn ask(
        self: &Arc<File>,
        work: Work,
        mut wait: impl FnMut() -> Option<Instant>,
    ) -> (Result<Done, Undone>, Option<Outcome>) {
        let job = Job::new(work, Some(thread::current()));
        if let Err(trouble) = self.submit(job.clone()) {
            return (Err(Undone::Trouble(trouble)), None);
        }
        let mut last = None;
        loop {
            let now = Instant::now();
            let until = match (wait(), last) {
                (Some(until), _) => until,
                (None, Some(last)) => last,
                (None, None) => *last.insert(now + GRACE),
            };
            let over = last.is_some();
            let ended = job.progress.with(|progress| {
                let step = std::mem::replace(&mut progress.step, Step::Left);
                let result = match step {
                    Step::Done(result) => result.map_err(Undone::Trouble),
                    Step::Waiting if over => Err(Undone::Stopped(progress.hindrance.take())),
                    Step::Begun if over && now >= until => Err(Undone::Stopped(progress.hindrance.take())),
                    step => {
                        progress.step = step;
                        return None;
                    }
                };
                Some((result, progress.seen))
            });
            if let Some(ended) = ended {
                // What nobody has begun is nobody's any more, and with it goes the sign of life that it holds.
                let left = self.queue.with(|queue| {
                    let place = queue.jobs.iter().position(|other| Arc::ptr_eq(other, &job));
                    place.map(|place| queue.jobs.remove(place))
                });
                drop(left);
                return ended;
            }
            thread::park_timeout(until.saturating_duration_since(now));
        }
    }

    /// Puts a job into the queue, and starts the thread where there is none.
    fn submit(self: &Arc<File>, job: Arc<Job>) -> Result<(), Trouble> {
        self.queue.with(|queue| {
            if queue.generation != fork::generation() {
                // Those who wait are in the parent, and so are the locks that tell of their lives.
                std::mem::forget(std::mem::take(&mut queue.jobs));
                queue.thread = None;
                queue.generation = fork::generation();
            }
            if queue.thread.is_none() {
                let file = self.clone();
                let started = sys::spawn("arctos-journal", move || file.serve());
                queue.thread = Some(started.map_err(|error| Trouble::of_system("no thread for it", &error))?);
            }
            queue.jobs.push(job);
            queue.thread.as_ref().inspect(|thread| thread.unpark());
            Ok(())
        })
    }

    /// What the thread does, until no client has the file.
    fn serve(self: Arc<File>) {
        let mut batch: Vec<Arc<Job>> = Vec::new();
        let mut pause = PAUSES[0];
        loop {
            batch.extend(self.queue.with(|queue| std::mem::take(&mut queue.jobs)));
            batch.retain(|job| job.take_up());
            let ends = self.queue.with(|queue| {
                let ends = batch.is_empty() && queue.jobs.is_empty() && queue.users == 0;
                if ends {
                    queue.thread = None;
                }
                ends
            });
            if ends {
                fork::undisturbed_slowly(|| drop(self.store().take()));
                return;
            }
            if batch.is_empty() {
                thread::park();
                continue;
            }
            self.work(&mut batch);
            if batch.is_empty() {
                pause = PAUSES[0];
            } else {
                thread::park_timeout(pause);
                pause = (pause * 2).min(PAUSES[1]);
            }
        }
    }

    /// Has some jobs done, and keeps those that wait for another program.
    fn work(&self, batch: &mut Vec<Arc<Job>>) {
        match self.attempt(batch) {
            Ok(results) => self.finish(batch.drain(..).zip(results.into_iter().map(Ok))),
            Err(trouble) if trouble.kind == Kind::Busy => self.read(batch, &trouble),
            Err(trouble) if batch.len() == 1 => self.finish(batch.drain(..).map(|job| (job, Err(trouble.clone())))),
            // It may be the trouble of one of them.
            Err(_) => {
                for job in std::mem::take(batch) {
                    let mut alone = vec![job];
                    self.work(&mut alone);
                    batch.append(&mut alone);
                }
            }
        }
    }

    fn finish(&self, ended: impl Iterator<Item = (Arc<Job>, Result<Done, Trouble>)>) {
        let undo: Vec<Arc<Job>> =
            ended.filter_map(|(job, result)| job.finish(result)).map(|work| Job::new(work, None)).collect();
        self.queue.with(|queue| queue.jobs.extend(undo));
    }

    /// Does what need not write, and has the rest wait for who does.
    fn read(&self, batch: &mut Vec<Arc<Job>>, hindrance: &Trouble) {
        for job in std::mem::take(batch) {
            match self.inside(|store| store.read(|rows| job.read(rows))) {
                Ok(Some(done)) => self.finish(std::iter::once((job, Ok(done)))),
                _ => {
                    job.put_back(hindrance);
                    batch.push(job);
                }
            }
        }
    }

    /// Does all of some jobs in one transaction, or none.
    fn attempt(&self, batch: &[Arc<Job>]) -> Result<Vec<Done>, Trouble> {
        self.inside(|store| store.write(|rows| batch.iter().map(|job| job.run(rows)).collect()))
    }

    /// Runs work with the connection, while nobody forks. It is closed where it may be the trouble.
    fn inside<T>(&self, work: impl FnOnce(&Store) -> Result<T, Trouble>) -> Result<T, Trouble> {
        fork::undisturbed_slowly(|| {
            if let Some(trouble) = self.lost.with(|lost| lost.clone()) {
                return Err(trouble);
            }
            let mut store = self.store();
            let attempt = AssertUnwindSafe(|| work(self.opened(&mut store)?));
            let done = catch_unwind(attempt).unwrap_or_else(|_| {
                Err(Trouble::passing(
                    "cannot be used: the library has failed; this is a defect in it, please report it",
                ))
            });
            if let Err(trouble) = &done {
                match trouble.kind {
                    Kind::Busy | Kind::Unwritten | Kind::Final => {}
                    Kind::Passing => *store = None,
                    Kind::Lasting => {
                        *store = None;
                        self.lost.with(|lost| *lost = Some(trouble.clone()));
                    }
                }
            }
            done
        })
    }

    fn store(&self) -> std::sync::MutexGuard<'_, Option<Store>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, opened where it is not.
    fn opened<'a>(&self, store: &'a mut Option<Store>) -> Result<&'a Store, Trouble> {
        let open = match store.take() {
            Some(open) => open,
            None => {
                let open = Store::open(&self.place)?;
                if !self.key.get_or_init(|| Key::new(&open.key)).is_of(&open.key) {
                    return Err(Trouble::damaged("it has another key than before"));
                }
                open
            }
        };
        Ok(store.insert(open))
    }
}

/// Closes the connections before a fork: none may go through it, and no thread is inside SQLite now.
fn put_away() {
    let files: Vec<Arc<File>> = FILES.with(|files| files.iter().filter_map(Weak::upgrade).collect());
    for file in &files {
        drop(file.store().take());
    }
}
