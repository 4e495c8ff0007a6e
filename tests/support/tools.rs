//! Programs that tests need beyond Rust: compilers, and the small C hosts of `tests/c` that they build.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::Mutex;

use tempfile::TempDir;

use crate::api::{library_path, root};

/// Where the program `name` is, which Debian's `package` brings. When it is not installed, one line on standard error
/// says that `what` is skipped, and the caller returns; where `CI` is `true`, a missing tool is a failure.
#[track_caller]
pub fn tool(what: &str, name: &str, package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian has some where only root looks for them.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let found = folders.map(|folder| folder.join(name)).find(|file| is_program(file));
    if found.is_none() {
        skipped(&format!("{what}: {name} is not installed (Debian package {package})"));
    }
    found
}

/// Says on standard error, once for each line, that something is skipped; where `CI` is `true`, that is a failure.
#[track_caller]
pub fn skipped(what: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let line = format!("skipped: {what}");
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{line}");
    if SAID.lock().expect("no thread panics while it holds the lock").insert(line.clone()) {
        // Not by `eprintln!`, which the test harness keeps to itself when a test passes.
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

fn is_program(file: &Path) -> bool {
    file.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

/// The C compiler: `CC`, or `cc`.
pub fn cc() -> PathBuf {
    std::env::var_os("CC").unwrap_or_else(|| "cc".into()).into()
}

/// The file of a C program in `tests/c`.
pub fn source(name: &str) -> PathBuf {
    root().join("tests/c").join(name).with_extension("c")
}

/// A C program with the header's folder, ready for what it is to be compiled to.
pub fn compiler(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"]).arg(root().join("include"));
    command.stdin(Stdio::null());
    command
}

/// Runs a command that must succeed, and gives what it printed.
#[track_caller]
pub fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, both(&output));
    output
}

/// What a command printed, for a message.
pub fn both(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A program that runs beside the test, and ends with its scope at the latest.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended by itself cannot be killed, and need not be.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program that says how far it has come, and waits to be told to go on.
pub struct Talker {
    process: Running,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Talker {
    /// Starts the program.
    pub fn of(command: &mut Command) -> Talker {
        let mut process = Running(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts"));
        let input = process.0.stdin.take().expect("a pipe");
        let output = BufReader::new(process.0.stdout.take().expect("a pipe"));
        Talker { process, input, output }
    }

    /// Waits until it says this word.
    #[track_caller]
    pub fn says(&mut self, word: &str) {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("text");
        assert_eq!(line.trim_end(), word);
    }

    /// Lets it go on.
    pub fn go_on(&mut self) {
        self.input.write_all(b"\n").expect("it listens");
    }

    /// Waits until it has ended, which must be well.
    #[track_caller]
    pub fn ends(mut self) {
        drop(self.input);
        let status = self.process.0.wait().expect("it ends");
        assert!(status.success(), "{status}");
    }
}

/// A C program that uses the library, in a folder of its own.
pub struct Host {
    folder: TempDir,
}

impl Host {
    /// Builds a program of `tests/c` with the shared library.
    #[track_caller]
    pub fn new(name: &str) -> Host {
        let library = library_path()
            .canonicalize()
            .unwrap_or_else(|error| panic!("{}: {error}; run `make build` first", library_path().display()));
        let mut search = OsString::from("-Wl,-rpath,");
        search.push(library.parent().expect("a file has a folder"));
        Host::linked(name, |command| command.arg(&library).arg(&search).args(["-lpthread", "-ldl"]))
    }

    /// Builds a program of `tests/c` with what `link` adds to the compiler's command.
    #[track_caller]
    pub fn linked(name: &str, link: impl FnOnce(&mut Command) -> &mut Command) -> Host {
        let host = Host { folder: TempDir::new().expect("a folder") };
        let mut command = compiler(&cc());
        command.args(["-std=gnu99", "-g", "-o"]).arg(host.program()).arg(source(name));
        succeed(link(&mut command));
        host
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("program")
    }

    /// The folder that the program runs in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The program, ready to be run in its folder.
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.program());
        command.current_dir(self.folder()).stdin(Stdio::null());
        command
    }

    /// Runs the program, which must exit with 0 and be silent.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) {
        let output = succeed(self.command().args(arguments));
        assert_eq!(both(&output), "", "it must print nothing");
    }
}

/// A C library that stands before the system's where it is preloaded.
pub struct Preload {
    folder: TempDir,
}

impl Preload {
    /// Builds one of `tests/c`.
    #[track_caller]
    pub fn new(name: &str) -> Preload {
        let preload = Preload { folder: TempDir::new().expect("a folder") };
        let mut command = compiler(&cc());
        command.args(["-std=gnu99", "-g", "-shared", "-fPIC", "-o"]).arg(preload.path());
        succeed(command.arg(source(name)).args(["-ldl", "-lpthread"]));
        preload
    }

    /// What `LD_PRELOAD` names.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("preload.so")
    }
}
