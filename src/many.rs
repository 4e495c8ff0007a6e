//! Many appointments in one call: so many at once as the client keeps connections, each as if it were asked for alone.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::call::{Call, Purpose};
use crate::cancel::Ticket;
use crate::client::{Client, report_end};
use crate::code::Code;
use crate::contract;
use crate::failure::{self, Failure, Problem};
use crate::fork::Lock;
use crate::json::{self, Member, Value};
use crate::memory::{self, NoMemory};
use crate::options::Options;
use crate::sys;

/// What became of one task.
pub struct Row<'a> {
    /// Where it stands in the array, from 0.
    pub index: usize,
    /// How many have ended by now, this one included.
    pub done: usize,
    /// How many there are.
    pub total: usize,
    /// Its code.
    pub code: Code,
    /// `{"index","out_task_num","code","name","outcome"}`, with `answer` or `error`.
    pub text: &'a str,
}

/// So many rows a thread wait to be heard at most.
const ROWS_A_THREAD: usize = 4;
/// Rows that come one after the other faster than this are heard a few at once.
const SOON: Duration = Duration::from_millis(1);

/// What the threads share that make the appointments.
struct Run<'a> {
    client: &'a Client,
    options: &'a Options,
    /// With their numbers.
    tasks: &'a [(Value<'a>, Member<'a>)],
    next: AtomicUsize,
    /// Whoever asked for them wants no more.
    stopped: AtomicBool,
    ticket: Arc<Ticket>,
    /// A failure that all that follow would share.
    shared: Lock<Option<(Code, String)>>,
}

struct Ended {
    index: usize,
    code: Code,
    text: Zeroizing<String>,
}

impl Client {
    /// Makes an appointment of each task in a JSON array. `row` hears of each as it ends, on this thread, and says
    /// whether to go on: after a `false` nothing more is begun. With `collect`, gives `{"results":[…]}`, in order.
    ///
    /// # Errors
    /// [`Code::BadTask`] for what is no array, or holds a number twice: nothing was sent. [`Code::Partial`] when one was
    /// not made, with the results where they are collected.
    pub fn add_many(
        &self,
        tasks: &str,
        options: &Options,
        collect: bool,
        mut row: impl FnMut(Row) -> bool,
    ) -> Result<Zeroizing<String>, Failure> {
        let wrong = |problems| Failure::problems(Code::BadTask, "the tasks are refused", problems);
        let tasks =
            json::array_with(tasks, contract::NUMBER).map_err(|problem| wrong(vec![Problem::new("tasks", problem)]))?;
        let twice = twice(&tasks)?;
        if !twice.is_empty() {
            return Err(wrong(twice));
        }
        let run = Run {
            client: self,
            options,
            tasks: &tasks,
            next: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            ticket: self.ticket(options),
            shared: Lock::new(None),
        };
        let total = tasks.len();
        let (mut done, mut made) = (0, 0);
        let mut results = Vec::new();
        if collect {
            results.try_reserve_exact(total).map_err(|_| NoMemory)?;
            results.resize_with(total, || Zeroizing::new(String::new()));
        }
        let mut take = |ended: Ended| {
            done += 1;
            made += usize::from(ended.code == Code::Ok);
            let Ended { index, code, text } = ended;
            if !row(Row { index, done, total, code, text: &text }) {
                run.stopped.store(true, Ordering::Relaxed);
            }
            if let Some(place) = results.get_mut(index) {
                *place = text;
            }
        };
        thread::scope(|scope| {
            let threads = self.most_at_once().min(total);
            // Who ends a task waits for those before to be heard, so that few rows are in memory.
            let (sender, receiver) = sync_channel(ROWS_A_THREAD * threads);
            let run = &run;
            let start = |sender: SyncSender<Ended>| {
                let work = move || while run.next().is_some_and(|ended| sender.send(ended).is_ok()) {};
                sys::without_signals(|| thread::Builder::new().name("arctos-many".to_owned()).spawn_scoped(scope, work))
            };
            let started = (0..threads).take_while(|_| start(sender.clone()).is_ok()).count();
            drop(sender);
            if started == 0 {
                std::iter::from_fn(|| run.next()).for_each(&mut take);
            }
            let mut heard = Instant::now();
            while let Ok(ended) = receiver.recv() {
                std::iter::once(ended).chain(receiver.try_iter()).for_each(&mut take);
                // To be woken for every row would cost more than the row where they come fast.
                if heard.elapsed() < SOON {
                    thread::sleep(SOON / 8);
                }
                heard = Instant::now();
            }
        });
        let results = if collect { Some(listed(&results)?) } else { None };
        if made == total {
            return Ok(match results {
                Some(results) => memory::join(&[r#"{"results":"#, &results, "}"])?,
                None => Zeroizing::new(String::new()),
            });
        }
        let message = format!("of {total} tasks {} were not made: the row of each says why", total - made);
        Err(Failure::plain(Code::Partial, message).with_results(results))
    }
}

impl Run<'_> {
    /// Does the next task; `None` when there is none.
    fn next(&self) -> Option<Ended> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let task = self.tasks.get(index)?.0.get();
        let call = Call::start(Purpose::Appointment);
        self.client.count(&call);
        let attempt = AssertUnwindSafe(|| self.add(&call, task));
        let result = catch_unwind(attempt).unwrap_or_else(|_| Err(Failure::internal(&call)));
        let (code, outcome) = failure::end(&result);
        let text = catch_unwind(AssertUnwindSafe(|| {
            if let Err(failure) = &result {
                report_end(&call, failure);
            }
            row(index, &call, &result)
        }));
        call.count_end(code, outcome);
        // Without memory for all, what it cannot do without.
        let text = text.ok().and_then(Result::ok).unwrap_or_else(|| {
            let word = outcome.word();
            let (code, name) = (code.value(), code.name());
            Zeroizing::new(format!(r#"{{"index":{index},"code":{code},"name":"{name}","outcome":"{word}"}}"#))
        });
        Some(Ended { index, code, text })
    }

    fn add(&self, call: &Rc<Call>, task: &str) -> Result<Zeroizing<String>, Failure> {
        let stopped = self.stopped.load(Ordering::Relaxed) || self.ticket.is_cancelled();
        let against = if stopped {
            Some((Code::Cancelled, "was not begun: the calls were stopped".to_owned()))
        } else {
            self.shared.with(|shared| shared.clone())
        };
        if let Some((code, why)) = against {
            let against = Failure::plain(code, format!("this task {why}"));
            return self.client.add_unless(call, task, self.options, Some(against));
        }
        // What is cancelled from here on is this call.
        call.obey(|| self.ticket.clone());
        self.client.add(call, task, self.options).inspect_err(|failure| {
            let code = failure.code();
            if matches!(code, Code::Forbidden | Code::Tls | Code::Connect) {
                let why = format!("was not tried, as it would fail as another one has: {}", failure.message());
                self.shared.with(|shared| *shared = Some((code, why)));
            }
        })
    }
}

/// The row of a task.
fn row(index: usize, call: &Call, result: &Result<Zeroizing<String>, Failure>) -> Result<Zeroizing<String>, NoMemory> {
    let document;
    let (code, outcome) = failure::end(result);
    let (key, value) = match result {
        Ok(answer) => ("answer", answer.trim_ascii()),
        Err(failure) => {
            document = Some(failure.document()).filter(|document| !document.is_empty()).ok_or(NoMemory)?;
            ("error", document.as_str())
        }
    };
    let number = call.number().map(json::quoted).transpose()?;
    let number = number.as_ref().map_or(["", ""], |number| [r#","out_task_num":"#, number]);
    let start = [r#"{"index":"#, &index.to_string(), number[0], number[1], r#","code":"#, &code.value().to_string()];
    let end = [r#","name":""#, code.name(), r#"","outcome":""#, outcome.word(), r#"",""#, key, r#"":"#, value, "}"];
    memory::join(&[&start[..], &end].concat())
}

fn listed(results: &[Zeroizing<String>]) -> Result<Zeroizing<String>, NoMemory> {
    let mut parts = Vec::new();
    memory::push(&mut parts, "[")?;
    for (index, result) in results.iter().enumerate() {
        if index > 0 {
            memory::push(&mut parts, ",")?;
        }
        memory::push(&mut parts, result)?;
    }
    memory::push(&mut parts, "]")?;
    memory::join(&parts)
}

/// The numbers that stand more than once: a repeat could be sent while the first one is under way.
fn twice(tasks: &[(Value, Member)]) -> Result<Vec<Problem>, NoMemory> {
    let numbers = tasks.iter().enumerate().filter_map(|(index, (_, number))| match number {
        Member::Once(number) | Member::Twice(number) => Some((json::string(*number)?, index)),
        Member::Missing => None,
    });
    let mut numbers = memory::collect(numbers)?;
    numbers.sort_unstable_by(|one, other| (&*one.0, one.1).cmp(&(&*other.0, other.1)));
    let mut problems = Vec::new();
    for pair in numbers.windows(2).filter(|pair| *pair[0].0 == *pair[1].0) {
        let [(number, first), (_, second)] = pair else { continue };
        let problem = format!("stands in the task {first} too");
        let problem = Problem::new(format!("{second}.out_task_num"), problem).value(Some(memory::copy(number)?));
        memory::push(&mut problems, problem)?;
    }
    Ok(problems)
}
