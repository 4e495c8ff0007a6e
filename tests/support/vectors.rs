//! Test vectors that others wrote. They are no part of the repository: `ARCTOS_VECTORS` names their folder.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::Value;

/// The file or folder `part` of the vectors. Where `ARCTOS_VECTORS` is not set, one line on standard error says once
/// that the part is skipped, and the caller returns; where `CI` is `true`, that is a failure.
#[track_caller]
pub fn vectors(part: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("ARCTOS_VECTORS") else {
        let line = format!("skipped: the vectors {part}: ARCTOS_VECTORS names no folder");
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{line}");
        static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        if SAID.lock().expect("no thread panics while it holds the lock").insert(line.clone()) {
            // Not by `eprintln!`, which the test harness keeps to itself when a test passes.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
        return None;
    };
    let path = Path::new(&folder).join(part);
    assert!(path.exists(), "{} is not there", path.display());
    Some(path)
}

/// The JSON document `part` of the vectors, otherwise as [`vectors`].
#[track_caller]
pub fn document(part: &str) -> Option<Value> {
    let path = vectors(part)?;
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Some(serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}
