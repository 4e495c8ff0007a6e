//! C programs use a library that AddressSanitizer was built into: nothing is read or written that must not be, nothing
//! is used after its release, and nothing is lost. Linux only; skipped by name where that library was not built.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use arctos_tests::api::root;
use arctos_tests::service::{Service, guests};
use arctos_tests::stage::TOKEN;
use arctos_tests::tools::{Host, both, skipped};
use object::{Object, ObjectSymbol};

/// How a program ends when its sanitizer has found something.
const FOUND: i32 = 86;

/// The library that AddressSanitizer was built into. `make test` builds it where Rust's nightly toolchain is installed;
/// where it is not there, one line on standard error says that `what` is skipped, and where `CI` is `true` the test
/// fails.
#[track_caller]
fn instrumented(what: &str) -> Option<PathBuf> {
    let path = root().join("target/asan/libarctos.so");
    if path.exists() {
        return Some(path);
    }
    skipped(&format!("{what} with AddressSanitizer: `make test` builds it with Rust's nightly toolchain"));
    None
}

/// A program of `tests/c` with AddressSanitizer in it, and the library's too.
#[track_caller]
fn host(library: &Path, name: &str) -> Host {
    let mut search = OsString::from("-Wl,-rpath,");
    search.push(library.parent().expect("a file has a folder"));
    Host::linked(name, |command| command.args(["-fsanitize=address", "-lpthread"]).arg(library).arg(&search))
}

fn run(command: &mut Command) -> Output {
    command.env("ASAN_OPTIONS", format!("detect_leaks=1:detect_stack_use_after_return=1:exitcode={FOUND}"));
    command.env("LSAN_OPTIONS", "");
    command.output().expect("the program runs")
}

/// Runs a program that must end well and print this.
#[track_caller]
fn is_clean(command: &mut Command, prints: &str) {
    let output = run(command);
    assert!(output.status.success(), "{}: {}", output.status, both(&output));
    assert_eq!(both(&output), prints);
}

/// Runs a program in which something must be found.
#[track_caller]
fn finds(command: &mut Command, what: &[&str]) {
    let output = run(command);
    assert_eq!(output.status.code(), Some(FOUND), "{}", both(&output));
    for part in what {
        assert!(both(&output).contains(part), "{part} is not in {}", both(&output));
    }
}

#[test]
fn the_library_is_instrumented() {
    let Some(library) = instrumented("what the library is built of") else { return };
    let bytes = std::fs::read(&library).expect("the library");
    let file = object::File::parse(&*bytes).expect("an object file");
    let wanted: Vec<&str> = file
        .dynamic_symbols()
        .filter(|symbol| symbol.is_undefined())
        .map(|symbol| symbol.name().expect("UTF-8"))
        .filter(|name| name.starts_with("__asan_report_load") || name.starts_with("__asan_report_store"))
        .collect();
    assert!(wanted.len() >= 10, "reads and writes of every size are watched: {wanted:?}");
}

#[test]
fn the_sanitizer_sees_what_the_library_does() {
    let Some(library) = instrumented("faults of a caller") else { return };
    let faults = host(&library, "caller_faults");
    // The frame that reads is the library's, and not that of a function of the C library.
    finds(faults.command().arg("overrun"), &["heap-buffer-overflow", "READ of size 1", "src/field.rs"]);
    finds(faults.command().arg("lost"), &["LeakSanitizer", "20 byte(s) leaked"]);
    let plain_free = host(&library, "plain_free");
    for length in ["0", "13", "1000", "10000000"] {
        finds(plain_free.command().arg(length), &["attempting free on address which was not malloc()-ed"]);
    }
}

#[test]
fn misuse_is_clean() {
    let Some(library) = instrumented("misuse") else { return };
    is_clean(&mut host(&library, "misuse").command(), "");
}

#[test]
fn every_function_is_clean() {
    let Some(library) = instrumented("a program that uses every function") else { return };
    is_clean(&mut host(&library, "every_function").command(), concat!(env!("CARGO_PKG_VERSION"), "\n"));
}

/// A program whose calls are answered, refused, not connected, and shown a certificate of another authority, and one in
/// a bank's network.
#[test]
fn calls_that_fail_are_clean() {
    let Some(library) = instrumented("calls that fail") else { return };
    guests(&host(&library, "guest"), |command| is_clean(command, ""));
}

/// A program that releases what its log function uses as soon as another one is set.
#[test]
fn a_log_that_is_replaced_is_clean() {
    let Some(library) = instrumented("a log that is replaced") else { return };
    is_clean(host(&library, "log_switch").command().arg("free"), "");
}

#[test]
fn the_c_example_is_clean() {
    let Some(library) = instrumented("the C example") else { return };
    let host = host(&library, "../../examples/c/add_task");
    for service in Service::all() {
        let mut command = host.command();
        command.args([&*service.base_url(), "C-1"]).args(service.ca_file()).env("ARCTOS_TOKEN", TOKEN);
        is_clean(&mut command, "T-C-1\n");
        service.made("C-1");
    }
}
