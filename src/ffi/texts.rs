//! The living texts: what was handed over and not yet released. A pointer is looked up here before anything behind
//! it is touched.

use std::collections::BTreeMap;
use std::ffi::c_char;

use zeroize::Zeroizing;

use crate::code::Code;
use crate::failure::Failure;
use crate::fork::Lock;
use crate::memory::{self, NoMemory};

/// The memory of one text: a block that no caller sees, then the text and its NUL. The block makes `free()` on the
/// text fail at once instead of on some later day, since allocators keep the size of an allocation, and that of a
/// text reads as 0 there. It is wiped as all memory of the library is when it is released.
struct Text {
    blocks: Vec<u128>,
}

const BLOCK: usize = size_of::<u128>();
const HIDDEN: [u8; BLOCK] = *b"ARCTOS\0\0\0\0\0\0\0\0\0\0";

static LIVING: Lock<BTreeMap<usize, Text>> = Lock::new(BTreeMap::new());

/// Hands a text over to the caller; `None` when there is no memory. What stands behind a NUL is not handed over:
/// the texts of the library hold none.
pub(super) fn give(text: &str) -> Option<*mut c_char> {
    let (whole, rest) = text.as_bytes().as_chunks::<BLOCK>();
    let mut last = [0; BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    let mut blocks: Vec<u128> = Vec::new();
    blocks.try_reserve_exact(1 + whole.len() + 1).ok()?;
    blocks.push(u128::from_ne_bytes(HIDDEN));
    blocks.extend(whole.iter().map(|block| u128::from_ne_bytes(*block)));
    blocks.push(u128::from_ne_bytes(last));
    let text = blocks.as_mut_ptr().wrapping_add(1).cast::<c_char>();
    LIVING.with(|living| living.insert(text.addr(), Text { blocks }));
    Some(text)
}

/// Wipes and releases a text; anything else is ignored.
pub(super) fn release(text: *mut c_char) {
    let removed = LIVING.with(|living| living.remove(&text.addr()));
    // Outside the lock: wiping takes as long as the text is.
    drop(removed);
}

/// A copy of a living text up to its NUL, as its owner may have changed it.
pub(super) fn copy(text: *const c_char) -> Result<Zeroizing<String>, Failure> {
    let bytes = LIVING.with(|living| -> Result<_, NoMemory> {
        let Some(found) = living.get(&text.addr()) else { return Ok(None) };
        let mut bytes = Zeroizing::new(Vec::new());
        bytes.try_reserve_exact(found.blocks.len() * BLOCK)?;
        for block in &found.blocks[1..] {
            bytes.extend_from_slice(&block.to_ne_bytes());
        }
        Ok(Some(bytes))
    })?;
    let text = bytes.as_ref().and_then(|bytes| std::str::from_utf8(bytes.split(|byte| *byte == 0).next()?).ok());
    let text = text.ok_or_else(|| Failure::plain(Code::BadArgument, "json is not a living text of the library"))?;
    Ok(memory::join(&[text])?)
}
