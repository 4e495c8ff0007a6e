//! C and Python programs use the library under valgrind: nothing is read or written that must not be, and nothing is
//! lost. Linux only; skipped by name where valgrind is not installed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use arctos_tests::api::*;
use arctos_tests::service::{Service, guests};
use arctos_tests::stage::TOKEN;
use arctos_tests::tls::Version;
use arctos_tests::tools::{Host, both, succeed, tool};
use tempfile::TempDir;

/// What the library keeps until its process ends, in blocks: the empty tables of texts, of clients and of open sockets,
/// its panic hook, and a header of ureq's. A text, a client or a connection that is forgotten is reachable by those
/// tables, and one block more.
const KEPT: usize = 5;

fn valgrind(what: &str) -> Option<PathBuf> {
    tool(&format!("{what} under valgrind"), "valgrind", "valgrind")
}

/// How a program ended, and what valgrind found.
struct Found {
    output: Output,
    records: Vec<Record>,
}

/// One record of valgrind's: an error, or blocks that were not released.
#[derive(Debug)]
struct Record(String);

impl Record {
    /// The contents of every element of this name.
    fn all(&self, name: &str) -> Vec<&str> {
        let (start, end) = (format!("<{name}>"), format!("</{name}>"));
        self.0.split(&*start).skip(1).map(|rest| rest.split(&*end).next().expect("a part")).collect()
    }

    fn first(&self, name: &str) -> &str {
        self.all(name).first().unwrap_or_else(|| panic!("no {name} in {}", self.0))
    }

    /// Whether it is more than a block that is there until the end.
    fn is_wrong(&self) -> bool {
        !["Leak_StillReachable", "Leak_PossiblyLost"].contains(&self.first("kind"))
    }

    /// Whether the library stands anywhere in it.
    fn names_the_library(&self) -> bool {
        self.all("obj").iter().any(|object| object.ends_with("/libarctos.so"))
    }

    /// The blocks that the library itself asked for.
    fn blocks_of_the_library(&self) -> usize {
        let asked = self.all("obj").into_iter().find(|object| !object.contains("/vgpreload_"));
        if !self.first("kind").starts_with("Leak_") || asked.is_none_or(|object| !object.ends_with("/libarctos.so")) {
            return 0;
        }
        self.first("leakedblocks").parse().expect("a number")
    }
}

impl Found {
    /// Runs a program under valgrind.
    #[track_caller]
    fn by(valgrind: &Path, program: &Command) -> Found {
        let folder = TempDir::new().expect("a folder");
        let file = folder.path().join("valgrind.xml");
        let mut suppressions = std::ffi::OsString::from("--suppressions=");
        suppressions.push(root().join("tests/valgrind.supp"));
        let mut command = Command::new(valgrind);
        command.args(["--quiet", "--leak-check=full", "--show-leak-kinds=all", "--num-callers=40", "--error-limit=no"]);
        command.arg(suppressions).arg("--xml=yes").arg(format!("--xml-file={}", file.display()));
        command.arg(program.get_program()).args(program.get_args()).stdin(Stdio::null());
        for (name, value) in program.get_envs() {
            command.env(name, value.expect("a value"));
        }
        if let Some(folder) = program.get_current_dir() {
            command.current_dir(folder);
        }
        let output = command.output().expect("valgrind runs");
        let xml = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{error}: {}", both(&output)));
        assert!(xml.contains("<state>FINISHED</state>") && xml.trim_end().ends_with("</valgrindoutput>"), "{xml}");
        let records = xml.split("<error>").skip(1).map(|rest| {
            let (record, _) = rest.split_once("</error>").expect("elements end");
            Record(record.to_owned())
        });
        Found { records: records.collect(), output }
    }

    /// A program with nothing but itself and the library, which ended well: no error at all.
    #[track_caller]
    fn is_clean(&self) {
        assert!(self.output.status.success(), "{}: {}", self.output.status, both(&self.output));
        let wrong: Vec<&Record> = self.records.iter().filter(|record| record.is_wrong()).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// A program that has other libraries of its own: no error that has to do with this one.
    #[track_caller]
    fn is_clean_of_the_library(&self) {
        assert!(self.output.status.success(), "{}: {}", self.output.status, both(&self.output));
        let wrong: Vec<&Record> =
            self.records.iter().filter(|record| record.is_wrong() && record.names_the_library()).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// The program has released everything that it had from the library.
    #[track_caller]
    fn has_released_everything(&self) {
        let kept: Vec<&Record> = self.records.iter().filter(|record| record.blocks_of_the_library() > 0).collect();
        let blocks: usize = kept.iter().map(|record| record.blocks_of_the_library()).sum();
        assert!(blocks > 0, "the library is not seen at all");
        assert!(blocks <= KEPT, "{blocks} blocks of the library are still there: {kept:#?}");
    }
}

#[test]
fn valgrind_sees_what_the_library_does() {
    let Some(valgrind) = valgrind("faults of a caller") else { return };
    let host = Host::new("caller_faults");
    let overrun = Found::by(&valgrind, host.command().arg("overrun"));
    assert!(overrun.records.iter().any(|record| record.first("kind") == "InvalidRead" && record.names_the_library()));
    let lost = Found::by(&valgrind, host.command().arg("lost"));
    assert!(lost.records.iter().any(|record| record.first("kind") == "Leak_DefinitelyLost"));
}

#[test]
fn misuse_is_clean() {
    let Some(valgrind) = valgrind("misuse") else { return };
    Found::by(&valgrind, &Host::new("misuse").command()).is_clean();
}

#[test]
fn every_function_is_clean() {
    let Some(valgrind) = valgrind("a program that uses every function") else { return };
    Found::by(&valgrind, &Host::new("every_function").command()).is_clean();
}

/// A program whose calls are answered, refused, not connected, and shown a certificate of another authority, and one in
/// a bank's network.
#[test]
fn calls_that_fail_are_clean() {
    let Some(valgrind) = valgrind("calls that fail") else { return };
    guests(&Host::new("guest"), |command| Found::by(&valgrind, command).is_clean());
}

#[test]
fn the_c_example_is_clean() {
    let Some(valgrind) = valgrind("the C example") else { return };
    let host = Host::new("../../examples/c/add_task");
    for service in Service::all() {
        let mut command = host.command();
        command.args([&*service.base_url(), "C-1"]).args(service.ca_file()).env("ARCTOS_TOKEN", TOKEN);
        let found = Found::by(&valgrind, &command);
        found.is_clean();
        found.has_released_everything();
        assert_eq!(both(&found.output), "T-C-1\n");
        service.made("C-1");
    }
}

#[test]
fn the_python_example_is_clean() {
    let Some(valgrind) = valgrind("the Python example") else { return };
    // Not by its name, behind which a script may stand.
    let output = succeed(Command::new("python3").args(["-c", "import sys; print(sys.executable)"]));
    let python = String::from_utf8(output.stdout).expect("UTF-8");
    for service in [Service::http(), Service::https(Version::Tls13)] {
        let mut command = Command::new(python.trim_end());
        command.arg(root().join("examples/python/add_task.py")).args(["--number", "PYTHON-1", "--base-url"]);
        command.arg(service.base_url());
        if let Some(ca_file) = service.ca_file() {
            command.args(["--ca-file", ca_file]);
        }
        command.envs([("ARCTOS_TOKEN", TOKEN), ("PYTHONMALLOC", "malloc"), ("PYTHONDONTWRITEBYTECODE", "1")]);
        command.env("ARCTOS_LIBRARY", library_path().canonicalize().expect("run `make build` first"));
        let found = Found::by(&valgrind, &command);
        found.is_clean_of_the_library();
        found.has_released_everything();
        assert_eq!(both(&found.output), "T-PYTHON-1\n");
        service.made("PYTHON-1");
    }
}
