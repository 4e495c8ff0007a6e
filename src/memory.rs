//! Memory of a size that the caller or the server chooses: it may be refused, and then a call says so. What is small is
//! taken without asking; where that is refused, the process ends, as everywhere in Rust.
#![forbid(unsafe_code)]

use std::collections::TryReserveError;
use std::io::{self, Write};

use serde::Serialize;
use zeroize::Zeroizing;

use crate::code::Code;
use crate::failure::Failure;

/// There is no memory for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoMemory;

impl From<TryReserveError> for NoMemory {
    fn from(_: TryReserveError) -> NoMemory {
        NoMemory
    }
}

impl From<NoMemory> for Failure {
    fn from(_: NoMemory) -> Failure {
        Failure::plain(Code::Internal, "there is no memory for a text of this size")
    }
}

/// Texts one behind another, in memory that is wiped and was allocated once.
pub(crate) fn join(parts: &[&str]) -> Result<Zeroizing<String>, NoMemory> {
    let mut joined = Zeroizing::new(String::new());
    joined.try_reserve_exact(parts.iter().map(|part| part.len()).sum())?;
    parts.iter().for_each(|part| joined.push_str(part));
    Ok(joined)
}

/// Lets go of a text that may be long: what is cleared is wiped in one piece, and not byte by byte.
pub(crate) fn release(mut text: Zeroizing<String>) {
    text.clear();
}

/// A copy of a text.
pub(crate) fn copy(text: &str) -> Result<String, NoMemory> {
    join(&[text]).map(|mut copy| std::mem::take(&mut *copy))
}

/// One more element of a list.
#[inline]
pub(crate) fn push<T>(list: &mut Vec<T>, element: T) -> Result<(), NoMemory> {
    if list.len() == list.capacity() {
        list.try_reserve(1)?;
    }
    list.push(element);
    Ok(())
}

/// A list of all that an iterator gives.
pub(crate) fn collect<T>(elements: impl Iterator<Item = T>) -> Result<Vec<T>, NoMemory> {
    let mut list = Vec::new();
    for element in elements {
        push(&mut list, element)?;
    }
    Ok(list)
}

/// A value as JSON, in memory that is wiped and was allocated once.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> Result<Zeroizing<String>, NoMemory> {
    let mut length = Length(0);
    let written = "what the library writes can be written as JSON";
    serde_json::to_writer(&mut length, value).expect(written);
    let mut bytes = Zeroizing::new(Vec::new());
    bytes.try_reserve_exact(length.0)?;
    serde_json::to_writer(&mut *bytes, value).expect(written);
    Ok(Zeroizing::new(String::from_utf8(std::mem::take(&mut *bytes)).expect("JSON is UTF-8")))
}

/// Counts what is written.
struct Length(usize);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_what_they_were_put_together_from() {
        assert_eq!(join(&["a", "", "bc"]).unwrap().as_str(), "abc");
        assert_eq!(copy("許").unwrap(), "許");
        let text = json("a\"\n許").unwrap();
        assert_eq!((text.as_str(), text.capacity()), ("\"a\\\"\\n許\"", text.len()));
        assert_eq!(collect(0..3).unwrap(), [0, 1, 2]);
    }
}
