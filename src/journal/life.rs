//! The sign of life of a sender: a lock on a byte of a file beside the journal, which the system releases when the
//! sender's process ends, in whatever way.
//!
//! The byte is drawn anew for each call and stands in its row, so that a lock tells of one call and of no other. At its
//! beginning the file says how often the journal was written, as far as it knows.
#![forbid(unsafe_code)]

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use super::store::beside;
use crate::fork;
use crate::sys::files;

/// No sign of life has an offset below this one.
const FIRST: u64 = 1 << 12;

/// Held from before a call's intent is on disk until after its outcome is.
pub(super) struct Life {
    /// There until it is dropped.
    file: Option<File>,
    offset: u64,
}

impl Life {
    /// Begins one.
    pub(super) fn begin(journal: &Path) -> io::Result<Life> {
        let mut life = Life { file: Some(open(journal)?), offset: 0 };
        while let Some(file) = &life.file {
            // Of 62 bits, so that it is an offset everywhere, and none of those that are written.
            life.offset = FIRST | getrandom::u64().map_err(io::Error::other)? >> 2;
            if files::lock(file, life.offset)? {
                break;
            }
        }
        Ok(life)
    }

    /// What finds it again.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            fork::close(files::raw(&file), || drop(file));
        }
    }
}

/// Whether the call that has this byte is alive.
pub(super) fn is_alive(journal: &Path, offset: u64) -> io::Result<bool> {
    let life = Life { file: Some(open(journal)?), offset };
    life.file.as_ref().map_or(Ok(false), |file| files::is_locked(file, offset))
}

fn open(journal: &Path) -> io::Result<File> {
    let path = file_beside(journal);
    fork::open(|| {
        let file = files::open_to_lock(&path)?;
        let raw = files::raw(&file);
        Ok((file, raw))
    })
}

/// The file, to say how often the journal was written. It must not go through a fork.
pub(super) fn turns(journal: &Path) -> io::Result<File> {
    files::open_to_lock(&file_beside(journal))
}

/// Makes the file where it is not there, for those who may use the journal.
pub(super) fn prepare(journal: &Path, about: &Metadata) -> io::Result<()> {
    match files::make_like(&file_beside(journal), about) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Life::begin(journal).map(drop),
    }
}

/// The library never removes it: whoever locks a byte of a file without a name is seen by nobody.
fn file_beside(journal: &Path) -> PathBuf {
    beside(journal, "-alive")
}
