//! A power cut at any moment leaves a journal that opens and tells the truth: what was sent is there, and what was said
//! to be made is recorded as made.
//!
//! A run is recorded, and cut at each of its events. What was synced by then is on the disk. Of the rest each write may
//! be there, be missing, be there in part or have overtaken others; each name may be there or not.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Instant;

use arctos_tests::api::{CREATED, OK, Owned, UNKNOWN, UNRESOLVED, client_new, library_path, root};
use arctos_tests::disk;
use arctos_tests::http::{find, success_body};
use arctos_tests::journal::task;
use arctos_tests::server::{Script, Server};
use arctos_tests::stage::{config, with};
use arctos_tests::tools::{Host, Preload, succeed};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Of a record of `tests/c/disk_recorder.c`: what happened.
#[derive(Debug)]
enum Event {
    Made { file: u64, name: String },
    Changed { file: u64, change: Change },
    SyncBegins { file: Option<u64>, sync: u64 },
    Synced { sync: u64 },
    Renamed { from: String, to: Option<String>, stays: bool },
    Sent { number: String },
    Returned { number: String },
    Called,
}

/// A change of what a file contains.
#[derive(Debug)]
enum Change {
    Length(usize),
    Bytes(usize, Vec<u8>),
}

impl Event {
    fn of(recorded: disk::Event) -> Event {
        let disk::Event { what, which: file, place, text: name, data } = recorded;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        match what {
            1 => Event::Made { file, name },
            2 => Event::Changed { file, change: Change::Length(place as usize) },
            3 => Event::Changed { file, change: Change::Bytes(place as usize, data) },
            4 => Event::SyncBegins { file: Some(file), sync: place },
            6 => Event::SyncBegins { file: None, sync: place },
            5 | 7 => Event::Synced { sync: place },
            8 => Event::Renamed { from: name, to: None, stays: false },
            9 => Event::Renamed { from: name, to: Some(text(&data)), stays: false },
            10 => Event::Renamed { from: name, to: Some(text(&data)), stays: true },
            11 => {
                const FIELD: &str = "\"out_task_num\":\"";
                let from = find(&data, FIELD.as_bytes()).expect("a request goes out in one piece") + FIELD.len();
                let length = find(&data[from..], b"\"").expect("the end of the number");
                Event::Sent { number: text(&data[from..from + length]) }
            }
            12 => match name.strip_prefix("returned ") {
                Some(number) => Event::Returned { number: number.to_owned() },
                None => Event::Called,
            },
            _ => panic!("an event {what}"),
        }
    }
}

/// A file on the disk: what it contains for sure, and what was changed since.
#[derive(Debug, Default)]
struct File {
    sure: Vec<u8>,
    /// How many changes are in that.
    applied: usize,
    pending: Vec<Change>,
}

impl File {
    fn sync(&mut self, until: usize) {
        let count = until.saturating_sub(self.applied);
        for change in self.pending.drain(..count) {
            apply(&mut self.sure, &change, Part::Whole);
        }
        self.applied += count;
    }
}

/// How much of a write reaches the disk. Eight bytes that lie in one word of the file are never parted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Whole,
    /// Up to about so many bytes.
    First(usize),
    /// All but so many at the beginning, about.
    Behind(usize),
    /// Of the sectors of 512 bytes those whose bits are set.
    Sectors(u64),
    /// The file has become longer, and what was written is not there.
    Length,
}

fn apply(content: &mut Vec<u8>, change: &Change, part: Part) {
    let (place, bytes) = match change {
        Change::Length(length) => return content.resize(*length, 0),
        Change::Bytes(place, bytes) => (*place, bytes),
    };
    let word = |count: usize| ((place + count) / 8 * 8).saturating_sub(place).min(bytes.len());
    let reach = if let Part::First(count) = part { word(count) } else { bytes.len() };
    if content.len() < place + reach {
        content.resize(place + reach, 0);
    }
    let mut put = |from: usize, to: usize| content[place + from..place + to].copy_from_slice(&bytes[from..to]);
    match part {
        Part::Whole | Part::First(_) => put(0, reach),
        Part::Behind(count) => put(word(count), reach),
        Part::Length => {}
        Part::Sectors(bits) => {
            let mut from = 0;
            while from < reach {
                let to = ((place + from) / 512 * 512 + 512 - place).min(reach);
                if bits >> ((place + from) / 512 % 64) & 1 == 1 {
                    put(from, to);
                }
                from = to;
            }
        }
    }
}

/// A folder and its files.
#[derive(Debug, Default)]
struct Disk {
    files: Vec<File>,
    /// The latest file with a number: the system gives that of one without a name away again.
    numbers: HashMap<u64, usize>,
    names: BTreeMap<String, usize>,
    applied: usize,
    /// Changes of names that are not sure: of each name, the file that it stands for from then on.
    pending: Vec<Vec<(String, Option<usize>)>>,
    /// Syncs that have begun: of which file, or of the names, and how many of its changes.
    syncs: HashMap<u64, (Option<usize>, usize)>,
}

impl Disk {
    fn take(&mut self, event: &Event) {
        match event {
            Event::Made { file, name } => {
                self.numbers.insert(*file, self.files.len());
                self.pending.push(vec![(name.clone(), Some(self.files.len()))]);
                self.files.push(File::default());
            }
            Event::Changed { file, change } => {
                let change = match change {
                    Change::Length(length) => Change::Length(*length),
                    Change::Bytes(place, bytes) => Change::Bytes(*place, bytes.clone()),
                };
                self.files[self.numbers[file]].pending.push(change);
            }
            Event::SyncBegins { file, sync } => {
                let file = file.map(|file| self.numbers[&file]);
                let (applied, pending) = match file {
                    Some(file) => (self.files[file].applied, self.files[file].pending.len()),
                    None => (self.applied, self.pending.len()),
                };
                self.syncs.insert(*sync, (file, applied + pending));
            }
            Event::Synced { sync } => match self.syncs.remove(sync).expect("a sync that has begun") {
                (Some(file), until) => self.files[file].sync(until),
                (None, until) => {
                    let count = until.saturating_sub(self.applied);
                    for change in self.pending.drain(..count) {
                        rename(&mut self.names, &change);
                    }
                    self.applied += count;
                }
            },
            Event::Renamed { from, to, stays } => {
                let mut names = self.names.clone();
                self.pending.iter().for_each(|change| rename(&mut names, change));
                let file = names[from];
                let gone = (!stays).then(|| (from.clone(), None));
                self.pending.push(gone.into_iter().chain(to.clone().map(|to| (to, Some(file)))).collect());
            }
            Event::Sent { .. } | Event::Returned { .. } | Event::Called => {}
        }
    }

    /// What a power cut leaves.
    fn cut(&self, cut: Cut, dice: &mut Dice) -> Left {
        let mut names = self.names.clone();
        for change in &self.pending {
            let there = match cut {
                Cut::Nothing | Cut::Data => false,
                Cut::All | Cut::Names | Cut::Torn => true,
                Cut::Anything => dice.one_in(2),
            };
            if there {
                rename(&mut names, change);
            }
        }
        let files = names.into_iter().map(|(name, file)| (name, (file, self.files[file].changes(cut, dice)))).collect();
        let memory = if cut == Cut::Anything { dice.below(3) } else { 0 };
        Left { files, memory }
    }

    fn content(&self, file: usize, applied: &[(usize, Part)]) -> Vec<u8> {
        let mut content = self.files[file].sure.clone();
        for (change, part) in applied {
            apply(&mut content, &self.files[file].pending[change - self.files[file].applied], *part);
        }
        content
    }
}

fn rename(names: &mut BTreeMap<String, usize>, change: &[(String, Option<usize>)]) {
    for (name, file) in change {
        match file {
            Some(file) => names.insert(name.clone(), *file),
            None => names.remove(name),
        };
    }
}

/// What becomes of what is not sure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Nothing,
    All,
    /// The names are there, and nothing of what the files contain.
    Names,
    /// The contrary.
    Data,
    /// All is there, but some of the last write of each file.
    Torn,
    /// Each thing is or is not, or some of it, in any order.
    Anything,
}

/// The cuts of each point.
const CUTS: [Cut; 9] = [
    Cut::Nothing,
    Cut::All,
    Cut::Names,
    Cut::Data,
    Cut::Torn,
    Cut::Anything,
    Cut::Anything,
    Cut::Anything,
    Cut::Anything,
];

impl File {
    /// Which of the changes that are not sure a cut leaves, and how much of each.
    fn changes(&self, cut: Cut, dice: &mut Dice) -> Vec<(usize, Part)> {
        let last = self.pending.len().saturating_sub(1);
        let mut left = Vec::new();
        let part = |change: &Change, dice: &mut Dice| match change {
            Change::Length(_) => Part::Whole,
            Change::Bytes(_, bytes) => match dice.below(4) {
                0 => Part::First(dice.below(bytes.len() + 1)),
                1 => Part::Behind(dice.below(bytes.len() + 1)),
                2 => Part::Length,
                _ => Part::Sectors(dice.next()),
            },
        };
        // Some disks keep little, and others most of it.
        let (kept, torn) = ([2, 4, 16][dice.below(3)], [2, 8][dice.below(2)]);
        for (index, change) in self.pending.iter().enumerate() {
            let part = match cut {
                Cut::Nothing | Cut::Names => continue,
                Cut::Torn if index == last => part(change, dice),
                Cut::All | Cut::Data | Cut::Torn => Part::Whole,
                Cut::Anything if dice.one_in(kept) => continue,
                Cut::Anything if dice.one_in(torn) => part(change, dice),
                Cut::Anything => Part::Whole,
            };
            left.push((self.applied + index, part));
        }
        if cut == Cut::Anything && dice.one_in(2) {
            for index in (1..left.len()).rev() {
                left.swap(index, dice.below(index + 1));
            }
        }
        left
    }
}

/// What a power cut leaves of a folder: of each name, its file and the changes of it that are there though not sure; and
/// what stands in the file that is memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Left {
    files: BTreeMap<String, (usize, Vec<(usize, Part)>)>,
    memory: usize,
}

/// Numbers that are the same in each run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// A run that was recorded.
struct Run {
    server: Server,
    events: Vec<Event>,
    /// What was in memory at its end.
    memory: Vec<u8>,
}

impl Run {
    /// Runs the program with each of these lists of steps, in one folder.
    #[track_caller]
    fn of(library: &Path, processes: &[&[&str]]) -> Run {
        let server = Server::plain();
        server.always(Script::forever(Script::served()));
        let recorder = Preload::new("disk_recorder");
        let mut search = std::ffi::OsString::from("-Wl,-rpath,");
        search.push(library.parent().expect("a file has a folder"));
        let host = Host::linked("disk_adder", |command| command.arg(library).arg(&search).arg("-lpthread"));
        let folder = TempDir::new().expect("a folder");
        let place = folder.path().canonicalize().expect("it is there");
        let record = host.folder().join("record");
        for steps in processes {
            let environment: [(&str, &Path); 3] =
                [("LD_PRELOAD", &recorder.path()), ("DISK_RECORD", &record), ("DISK_FOLDER", &place)];
            let config = Run::config_at(&server, &place).to_string();
            succeed(host.command().arg(config).args(*steps).envs(environment));
        }
        server.settle(0).expect("the connections have ended");
        let run = Run {
            events: disk::events(&std::fs::read(record).expect("the recorder wrote it"))
                .into_iter()
                .map(Event::of)
                .collect(),
            memory: std::fs::read(place.join("journal-shm")).expect("it is there"),
            server,
        };
        run.is_whole(&place);
        run
    }

    fn config_at(server: &Server, folder: &Path) -> Value {
        with(config(&server.base_url()), json!({ "journal": { "file": folder.join("journal") } }))
    }

    /// The record knows everything that the run did to its folder.
    #[track_caller]
    fn is_whole(&self, folder: &Path) {
        let mut disk = Disk::default();
        self.events.iter().for_each(|event| disk.take(event));
        let left = disk.cut(Cut::All, &mut Dice(0));
        let there = std::fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("an entry").file_name());
        let there: BTreeSet<String> = there.map(|name| name.into_string().expect("text")).collect();
        let known: BTreeSet<String> = left.files.keys().cloned().chain(["journal-shm".to_owned()]).collect();
        assert_eq!(there, known);
        for (name, (file, changes)) in &left.files {
            let read = std::fs::read(folder.join(name)).expect("it is there");
            assert!(read == disk.content(*file, changes), "the record of {name} is not whole");
        }
    }

    /// Cuts the power before each of these events, of which the last may be the end: what is wrong then.
    fn cut(&self, points: RangeInclusive<usize>) -> Outcome {
        let began = Instant::now();
        let folder = TempDir::new().expect("a folder");
        let mut dice = Dice(7);
        let (mut disk, mut known, mut done) = (Disk::default(), Known::default(), HashSet::new());
        let mut outcome = Outcome::default();
        for (point, event) in self.events.iter().map(Some).chain([None]).enumerate() {
            if points.contains(&point) {
                for cut in CUTS {
                    let left = disk.cut(cut, &mut dice);
                    // What is sure only grows, so that its length tells which it is.
                    let sure: Vec<usize> = left.files.values().map(|(file, _)| disk.files[*file].applied).collect();
                    if !done.insert((sure, left.clone(), known.sent.len(), known.returned.len())) {
                        continue;
                    }
                    let place = folder.path().join(done.len().to_string());
                    self.lay_out(&disk, &left, &place);
                    let probe = done.len() % 8 == 0;
                    for (what, text) in known.check(&self.server, &place, probe) {
                        outcome.kinds.insert(what);
                        outcome.wrong.push(format!("cut {cut:?} before event {point}: {text}"));
                    }
                    std::fs::remove_dir_all(&place).expect("it is there");
                }
            }
            if let Some(event) = event {
                disk.take(event);
                match event {
                    Event::Sent { number } => drop(known.sent.insert(number.clone())),
                    Event::Returned { number } => drop(known.returned.insert(number.clone())),
                    _ => {}
                }
            }
        }
        outcome.disks = done.len();
        println!(
            "events {points:?} of {}: {} disks in {} ms",
            self.events.len(),
            done.len(),
            began.elapsed().as_millis()
        );
        outcome
    }

    fn lay_out(&self, disk: &Disk, left: &Left, place: &Path) {
        std::fs::create_dir(place).expect("the folder is new");
        let write = |name: &str, content: &[u8]| std::fs::write(place.join(name), content).expect("it is written");
        for (name, (file, changes)) in &left.files {
            write(name, &disk.content(*file, changes));
        }
        match left.memory {
            0 => {}
            1 => write("journal-shm", &self.memory),
            _ => write("journal-shm", &[0xa5; 40_000]),
        }
    }
}

/// What came of many cuts.
#[derive(Default)]
struct Outcome {
    disks: usize,
    kinds: BTreeSet<Wrong>,
    wrong: Vec<String>,
}

/// What can be wrong after a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    /// The journal cannot be opened or read.
    Unreadable,
    /// What was sent is not there, or as if it was not.
    SentIsLost,
    /// What was said to be made is not recorded as made.
    CreatedIsLost,
    /// What nobody sent is there as made, or what nobody knows at all.
    Invented,
    /// A number that is added again is sent again, or is answered wrongly.
    Again,
}

/// What the world knows when the power is cut.
#[derive(Default)]
struct Known {
    sent: BTreeSet<String>,
    returned: BTreeSet<String>,
}

impl Known {
    /// Opens the journal as a program does after the cut: what it says that is not true. `probe`: numbers are added again.
    fn check(&self, server: &Server, folder: &Path, probe: bool) -> Vec<(Wrong, String)> {
        let (client, reply) = client_new(&Run::config_at(server, folder).to_string());
        let Some(client) = client else { return vec![(Wrong::Unreadable, format!("{reply:?}"))] };
        let reply = client.journal_list("{\"limit\":1000}");
        if reply.code != OK {
            return vec![(Wrong::Unreadable, format!("{reply:?}"))];
        }
        let mut wrong = Vec::new();
        let page = reply.json();
        let mut rows: BTreeMap<&str, &Value> = BTreeMap::new();
        for row in page["rows"].as_array().expect("rows") {
            let number = row["out_task_num"].as_str().expect("a number");
            if rows.insert(number, row).is_some() || row["server"] != server.base_url() {
                wrong.push((Wrong::Invented, format!("{row}")));
            }
            let made = row["outcome"] == "created";
            if made && !self.sent.contains(number) || !made && row["outcome"] != "unknown" {
                wrong.push((Wrong::Invented, format!("{row}")));
            }
            if made && row["answer"] != serde_json::from_str::<Value>(&success_body(number)).expect("JSON") {
                wrong.push((Wrong::CreatedIsLost, format!("another answer: {row}")));
            }
        }
        for number in &self.sent {
            match rows.get(number.as_str()) {
                None => wrong.push((Wrong::SentIsLost, format!("{number} was sent and is not there"))),
                Some(row) if row["outcome"] == "created" => continue,
                Some(_) => {}
            }
            if self.returned.contains(number) {
                wrong.push((
                    Wrong::CreatedIsLost,
                    format!("{number} was said to be made: {:?}", rows.get(number.as_str())),
                ));
            }
        }
        if probe {
            // The last of each, and one that is old.
            let open = self.sent.difference(&self.returned);
            let probes: BTreeSet<&String> = open.chain(self.returned.first()).chain(self.returned.last()).collect();
            wrong.extend(probes.into_iter().filter_map(|number| self.add_again(&client, number)));
        }
        wrong
    }

    fn add_again(&self, client: &Owned, number: &str) -> Option<(Wrong, String)> {
        let reply = client.add(&task(number));
        let recorded = (reply.code, reply.outcome) == (OK, CREATED) && reply.text() == success_body(number);
        let unknown = (reply.code, reply.outcome) == (UNRESOLVED, UNKNOWN) && !self.returned.contains(number);
        (!recorded && !unknown).then(|| (Wrong::Again, format!("{number}: {reply:?}")))
    }
}

/// Cuts a run of the library that ships, at the points that `points` finds in it: nothing may be wrong, and no number is
/// sent again.
#[track_caller]
fn survives(processes: &[&[&str]], points: impl Fn(&[Event]) -> RangeInclusive<usize>) {
    let library = library_path().canonicalize().expect("`make build` builds it");
    let run = Run::of(&library, processes);
    let requests = run.server.connections();
    let outcome = run.cut(points(&run.events));
    let some = &outcome.wrong[..outcome.wrong.len().min(10)];
    assert!(some.is_empty(), "{} disks, {} wrong:\n{}", outcome.disks, outcome.wrong.len(), some.join("\n"));
    assert!(outcome.disks > 200, "{} disks are not those of a whole run", outcome.disks);
    assert_eq!(run.server.connections(), requests, "a number was sent again after a cut");
}

/// Every point of a run.
fn all(events: &[Event]) -> RangeInclusive<usize> {
    0..=events.len()
}

#[test]
fn one_thread() {
    survives(&[&["ONE:24:1"]], all);
}

#[test]
fn eight_threads() {
    survives(&[&["MANY:40:8"]], all);
}

#[test]
fn a_checkpoint_and_the_log_that_begins_anew_after_it() {
    const HEAD: usize = 32;
    survives(&[&["EARLY:190:1"]], |events| {
        let head = |event: &Event| matches!(event, Event::Changed { change: Change::Bytes(0, bytes), .. } if bytes.len() == HEAD);
        let heads: Vec<usize> = (0..events.len()).filter(|at| head(&events[*at])).collect();
        let again = heads.get(1).expect("the log begins anew");
        again - 60..=again + 120
    });
}

#[test]
fn a_journal_that_another_process_has_made_and_a_fork_between() {
    survives(&[&[], &["TWO:6:1", "fork", "FORK:6:2"], &["MORE:3:1"]], all);
}

#[test]
fn a_library_that_does_not_sync_is_found_out() {
    let library = root().join("target/planted/debug/libarctos.so");
    assert!(library.exists(), "{} is not there: `make test` builds it", library.display());
    let run = Run::of(&library, &[&["ONE:8:1"]]);
    let outcome = run.cut(all(&run.events));
    for kind in [Wrong::SentIsLost, Wrong::CreatedIsLost] {
        assert!(
            outcome.kinds.contains(&kind),
            "not found: {kind:?} among {}: {:?}",
            outcome.wrong.len(),
            outcome.kinds
        );
    }
}
