//! What one client has done since it was made, in numbers. On the way of a call there are relaxed additions only:
//! nothing here waits, allocates or asks the system, and all that has to be worked out is worked out for who reads.
#![forbid(unsafe_code)]

use std::array::from_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

use crate::code::{Code, TABLE};
use crate::fork;
use crate::memory::{self, NoMemory};
use crate::outcome::Outcome;

/// Most of what every call adds to stands so often, each for some of the threads, so that they wait less for each other.
const SHARDS: usize = 8;
/// So many buckets an octave: none is wider than 1/32 of what is in it.
const PRECISION: u32 = 5;
const STEPS: usize = 1 << PRECISION;
/// What takes longer, in microseconds, counts as this long: 2.4 hours, where a call takes one at most and its journal
/// seconds.
const LONGEST: u64 = (1 << 33) - 1;
const BUCKETS: usize = bucket(LONGEST) + 1;

/// Why a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// It had waited too long for another call.
    Expired,
    /// It was found ended by the server, or with something on it that nobody had asked for.
    Stale,
    /// Its answer allowed no further call, or the client keeps none, or more came than an answer.
    NotKept,
    /// The server ended it with its answer, or in the middle of it.
    Ended,
    /// A call was cut off on it, or answered before its request was sent.
    Broken,
    /// More were kept than may be.
    Surplus,
    /// It belongs to the process that this one was forked from.
    Fork,
}

/// All reasons as documents spell them, in the order of their values.
const REASONS: [&str; 7] = ["expired", "stale", "not_kept", "ended", "broken", "surplus", "fork"];

/// The numbers of one client.
pub(crate) struct Stats {
    shards: [Shard; SHARDS],
    /// By code, in the order of the table, and outcome.
    ended: [[AtomicU64; Outcome::ALL.len()]; TABLE.len()],
    latency: [AtomicU64; BUCKETS],
    logins: AtomicU64,
    open: Gauge,
    opened: AtomicU64,
    resumed: AtomicU64,
    failed: AtomicU64,
    closed: [AtomicU64; REASONS.len()],
}

/// On cache lines of its own: processors fetch them in pairs.
#[repr(align(128))]
struct Shard {
    in_flight: Gauge,
    attempts: AtomicU64,
    retries: AtomicU64,
    reused: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    /// All calls together, and the longest one, in microseconds.
    sum: AtomicU64,
    longest: AtomicU64,
}

impl Stats {
    pub(crate) fn new() -> Arc<Stats> {
        Arc::new(Stats {
            shards: from_fn(|_| Shard {
                in_flight: Gauge::new(),
                attempts: AtomicU64::new(0),
                retries: AtomicU64::new(0),
                reused: AtomicU64::new(0),
                sent: AtomicU64::new(0),
                received: AtomicU64::new(0),
                sum: AtomicU64::new(0),
                longest: AtomicU64::new(0),
            }),
            ended: from_fn(|_| from_fn(|_| AtomicU64::new(0))),
            latency: from_fn(|_| AtomicU64::new(0)),
            logins: AtomicU64::new(0),
            open: Gauge::new(),
            opened: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            closed: from_fn(|_| AtomicU64::new(0)),
        })
    }

    /// The shard of this thread.
    fn shard(&self) -> &Shard {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static OWN: usize = NEXT.fetch_add(1, Relaxed) % SHARDS;
        }
        &self.shards[OWN.with(|own| *own)]
    }

    fn sum(&self, number: impl Fn(&Shard) -> &AtomicU64) -> u64 {
        self.shards.iter().map(|shard| number(shard).load(Relaxed)).sum()
    }

    /// A call begins.
    pub(crate) fn begin(self: &Arc<Stats>) -> Counted {
        let generation = self.shard().in_flight.add();
        Counted { stats: self.clone(), generation }
    }

    /// A log-in begins.
    pub(crate) fn login(&self) {
        self.logins.fetch_add(1, Relaxed);
    }

    /// A kept connection is used again.
    pub(crate) fn reused(&self) {
        self.shard().reused.fetch_add(1, Relaxed);
    }

    /// A connection could not be opened.
    pub(crate) fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    /// All of it as JSON; `kept`: how many connections wait for a call.
    pub(crate) fn document(&self, kept: usize) -> Result<Zeroizing<String>, NoMemory> {
        let ended: [[u64; Outcome::ALL.len()]; TABLE.len()] =
            from_fn(|code| from_fn(|outcome| self.ended[code][outcome].load(Relaxed)));
        let codes = from_fn(|code| (TABLE[code].name, ended[code].iter().sum()));
        let outcomes =
            Outcome::ALL.map(|outcome| (outcome.word(), ended.iter().map(|row| row[outcome as usize]).sum()));
        let kept = u64::try_from(kept).unwrap_or(u64::MAX);
        memory::json(&Told {
            calls: Calls {
                in_flight: self.shards.iter().map(|shard| shard.in_flight.get()).sum(),
                ended: ended.as_flattened().iter().sum(),
                codes: Named(codes),
                outcomes: All(outcomes),
            },
            attempts: self.sum(|shard| &shard.attempts),
            retries: self.sum(|shard| &shard.retries),
            logins: self.logins.load(Relaxed),
            connections: Connections {
                opened: self.opened.load(Relaxed),
                resumed: self.resumed.load(Relaxed),
                reused: self.sum(|shard| &shard.reused),
                failed: self.failed.load(Relaxed),
                in_use: self.open.get().saturating_sub(kept),
                kept,
                closed: All(from_fn(|reason| (REASONS[reason], self.closed[reason].load(Relaxed)))),
            },
            bytes: Bytes { sent: self.sum(|shard| &shard.sent), received: self.sum(|shard| &shard.received) },
            latency_us: self.latency(),
        })
    }

    fn latency(&self) -> Latency {
        let buckets: [u64; BUCKETS] = from_fn(|bucket| self.latency[bucket].load(Relaxed));
        let count: u64 = buckets.iter().sum();
        let max = self.shards.iter().map(|shard| shard.longest.load(Relaxed)).max().unwrap_or(0);
        let percentile = |percent| percentile(&buckets, count, percent).min(max);
        Latency {
            count,
            mean: self.sum(|shard| &shard.sum).checked_div(count).unwrap_or(0),
            p50: percentile(50),
            p90: percentile(90),
            p99: percentile(99),
            max,
        }
    }
}

/// A call that is under way.
pub(crate) struct Counted {
    stats: Arc<Stats>,
    generation: u32,
}

impl Counted {
    /// The call has ended so, after so many tries and further tries.
    pub(crate) fn end(&self, code: Code, outcome: Outcome, attempts: u32, retries: u32, elapsed: Duration) {
        let stats = &*self.stats;
        let shard = stats.shard();
        let us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        stats.latency[bucket(us)].fetch_add(1, Relaxed);
        shard.sum.fetch_add(us, Relaxed);
        if us > shard.longest.load(Relaxed) {
            shard.longest.fetch_max(us, Relaxed);
        }
        shard.attempts.fetch_add(attempts.into(), Relaxed);
        if retries > 0 {
            shard.retries.fetch_add(retries.into(), Relaxed);
        }
        let row = TABLE.iter().position(|row| row.code == code).expect("the table has every code");
        stats.ended[row][outcome as usize].fetch_add(1, Relaxed);
        shard.in_flight.subtract(self.generation);
    }
}

/// What a client counts of one of its sockets.
pub(crate) struct Account {
    stats: Arc<Stats>,
    /// Once it is a connection that stands: the process that opened it, and why it is closed when it is.
    stands: Option<(u32, Closed)>,
}

impl Account {
    pub(crate) fn new(stats: &Arc<Stats>) -> Account {
        Account { stats: stats.clone(), stands: None }
    }

    /// The socket has taken so many bytes.
    pub(crate) fn sent(&self, count: usize) {
        self.stats.shard().sent.fetch_add(count as u64, Relaxed);
    }

    /// The socket has given so many bytes.
    pub(crate) fn received(&self, count: usize) {
        self.stats.shard().received.fetch_add(count as u64, Relaxed);
    }

    /// The connection stands, TLS and all; `resumed`: by an earlier session.
    pub(crate) fn stands(&mut self, resumed: bool) {
        self.stats.opened.fetch_add(1, Relaxed);
        self.stats.resumed.fetch_add(resumed.into(), Relaxed);
        self.stands = Some((self.stats.open.add(), Closed::Broken));
    }

    /// What it is closed for, if it is closed now.
    pub(crate) fn closes(&mut self, why: Closed) {
        if let Some((_, reason)) = &mut self.stands {
            *reason = why;
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let Some((generation, why)) = self.stands else { return };
        let why = if generation == fork::generation() { why } else { Closed::Fork };
        self.stats.closed[why as usize].fetch_add(1, Relaxed);
        self.stats.open.subtract(generation);
    }
}

/// How many there are now in this process. The upper half is its generation: what a parent has in a fork is none of its
/// child's, and never ends there.
struct Gauge(AtomicU64);

impl Gauge {
    const fn new() -> Gauge {
        Gauge(AtomicU64::new(0))
    }

    fn of(value: u64, generation: u32) -> u64 {
        if value >> 32 == u64::from(generation) { value & u64::from(u32::MAX) } else { 0 }
    }

    /// One more, of this generation.
    fn add(&self) -> u32 {
        let generation = fork::generation();
        let more = |value| Some((u64::from(generation) << 32) + Gauge::of(value, generation) + 1);
        let _ = self.0.fetch_update(Relaxed, Relaxed, more);
        generation
    }

    /// One less of those of a generation.
    fn subtract(&self, generation: u32) {
        if generation == fork::generation() {
            self.0.fetch_sub(1, Relaxed);
        }
    }

    fn get(&self) -> u64 {
        Gauge::of(self.0.load(Relaxed), fork::generation())
    }
}

/// The bucket of a time in microseconds. Below [`STEPS`] each has its own, above it each octave has as many.
const fn bucket(us: u64) -> usize {
    let us = if us < LONGEST { us } else { LONGEST };
    if us < STEPS as u64 {
        return us as usize;
    }
    let octave = us.ilog2() - PRECISION;
    octave as usize * STEPS + (us >> octave) as usize
}

/// The longest time of a bucket.
const fn longest(bucket: usize) -> u64 {
    if bucket < 2 * STEPS {
        return bucket as u64;
    }
    let octave = bucket / STEPS - 1;
    (((bucket - octave * STEPS) as u64 + 1) << octave) - 1
}

/// The time that so many of a hundred calls do not exceed.
fn percentile(buckets: &[u64; BUCKETS], count: u64, percent: u64) -> u64 {
    let rank = (u128::from(count) * u128::from(percent)).div_ceil(100);
    let mut below = 0;
    let is_reached = |number: &u64| {
        below += u128::from(*number);
        below >= rank && below > 0
    };
    buckets.iter().position(is_reached).map_or(0, longest)
}

/// The document, in the order of its keys.
#[derive(Serialize)]
struct Told {
    calls: Calls,
    attempts: u64,
    retries: u64,
    logins: u64,
    connections: Connections,
    bytes: Bytes,
    latency_us: Latency,
}

#[derive(Serialize)]
struct Calls {
    in_flight: u64,
    ended: u64,
    codes: Named<{ TABLE.len() }>,
    outcomes: All<{ Outcome::ALL.len() }>,
}

#[derive(Serialize)]
struct Connections {
    opened: u64,
    resumed: u64,
    reused: u64,
    failed: u64,
    in_use: u64,
    kept: u64,
    closed: All<{ REASONS.len() }>,
}

#[derive(Serialize)]
struct Bytes {
    sent: u64,
    received: u64,
}

#[derive(Serialize)]
struct Latency {
    count: u64,
    mean: u64,
    p50: u64,
    p90: u64,
    p99: u64,
    max: u64,
}

/// Numbers under names, as an object.
struct All<const N: usize>([(&'static str, u64); N]);

impl<const N: usize> Serialize for All<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0)
    }
}

/// The same without those that are 0.
struct Named<const N: usize>([(&'static str, u64); N]);

impl<const N: usize> Serialize for Named<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.into_iter().filter(|(_, number)| *number > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_and_none_is_wider_than_it_may_be() {
        let mut first = 0;
        for index in 0..BUCKETS {
            let last = longest(index);
            assert_eq!((bucket(first), bucket(last)), (index, index), "{first} to {last}");
            assert!((last - first) * STEPS as u64 <= first.max(1), "{first} to {last}");
            first = last + 1;
        }
        assert_eq!(first, LONGEST + 1);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_percentile_is_what_so_many_calls_do_not_exceed() {
        let of = |times: &[u64]| {
            let mut buckets = [0; BUCKETS];
            times.iter().for_each(|time| buckets[bucket(*time)] += 1);
            [50, 90, 99, 100].map(|percent| percentile(&buckets, times.len() as u64, percent))
        };
        assert_eq!(of(&[]), [0; 4]);
        assert_eq!(of(&[0]), [0; 4]);
        assert_eq!(of(&[7]), [7; 4]);
        assert_eq!(of(&(1..=60).collect::<Vec<_>>()), [30, 54, 60, 60]);
        assert_eq!(of(&[1, 2]), [1, 2, 2, 2]);
        let hundred: Vec<u64> = [vec![3; 90], vec![20; 9], vec![31]].concat();
        assert_eq!(of(&hundred), [3, 3, 20, 31]);
        let [long, ..] = of(&[1_000_000]);
        assert!((1_000_000..1_032_000).contains(&long), "{long}");
    }

    #[test]
    fn what_threads_count_adds_up() {
        const EACH: u64 = 2_000;
        let stats = Stats::new();
        std::thread::scope(|scope| {
            for _ in 0..2 * SHARDS {
                scope.spawn(|| {
                    for us in 0..EACH {
                        let call = stats.begin();
                        call.end(Code::Ok, Outcome::Created, 2, 1, Duration::from_micros(us));
                    }
                });
            }
        });
        let _one = stats.begin();
        let all = EACH * 2 * SHARDS as u64;
        let document: serde_json::Value = serde_json::from_str(&stats.document(0).unwrap()).unwrap();
        assert_eq!(document["calls"]["in_flight"], 1);
        assert_eq!(document["calls"]["codes"], serde_json::json!({ "ARCTOS_OK": all }));
        assert_eq!((&document["attempts"], &document["retries"]), (&(2 * all).into(), &all.into()));
        let latency = &document["latency_us"];
        assert_eq!((&latency["count"], &latency["mean"], &latency["max"]), (&all.into(), &999.into(), &1_999.into()));
        assert_eq!(latency["p50"], longest(bucket(999)));
    }

    #[test]
    fn a_connection_is_open_until_it_is_closed_for_its_last_reason() {
        let stats = Stats::new();
        let document = || -> serde_json::Value { serde_json::from_str(&stats.document(0).unwrap()).unwrap() };
        drop(Account::new(&stats));
        assert_eq!(document()["connections"]["closed"]["broken"], 0, "one that never stood is not closed");
        let mut account = Account::new(&stats);
        account.stands(true);
        assert_eq!(document()["connections"]["in_use"], 1);
        account.closes(Closed::Stale);
        drop(account);
        let connections = &document()["connections"];
        assert_eq!(
            (&connections["opened"], &connections["resumed"], &connections["in_use"]),
            (&1.into(), &1.into(), &0.into())
        );
        assert_eq!(connections["closed"]["stale"], 1);
        assert_eq!(REASONS[Closed::Fork as usize], "fork");
        assert_eq!(REASONS[Closed::Ended as usize], "ended");
    }
}
