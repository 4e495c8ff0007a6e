//! Test vectors that others wrote. They are no part of the repository: `ARCTOS_VECTORS` names their folder.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::tools::skipped;

/// The file or folder `part` of the vectors. Where `ARCTOS_VECTORS` is not set, one line on standard error says once
/// that the part is skipped, and the caller returns; where `CI` is `true`, that is a failure.
#[track_caller]
pub fn vectors(part: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("ARCTOS_VECTORS") else {
        skipped(&format!("the vectors {part}: ARCTOS_VECTORS names no folder"));
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
