//! The living texts: what was handed over and not yet released. A pointer is looked up here before anything behind
//! it is touched.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use zeroize::{Zeroize, Zeroizing};

use crate::code::{Code, TABLE};

/// The memory of one text: a block that no caller sees, then the text and its NUL. The block makes `free()` on the
/// text fail at once instead of on some later day, since allocators keep the size of an allocation, and that of a
/// text reads as 0 there.
struct Text {
    blocks: Vec<u128>,
}

const BLOCK: usize = size_of::<u128>();
const HIDDEN: [u8; BLOCK] = *b"ARCTOS\0\0\0\0\0\0\0\0\0\0";

impl Drop for Text {
    fn drop(&mut self) {
        self.blocks.zeroize();
    }
}

static LIVING: Mutex<BTreeMap<usize, Text>> = Mutex::new(BTreeMap::new());

fn living() -> MutexGuard<'static, BTreeMap<usize, Text>> {
    LIVING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands a text over to the caller; `None` when there is no memory. What stands behind a NUL is not handed over:
/// the texts of the library hold none.
pub(super) fn give(text: &str) -> Option<*mut c_char> {
    let count = 1 + (text.len() + 1).div_ceil(BLOCK);
    let mut blocks: Vec<u128> = Vec::new();
    blocks.try_reserve_exact(count).ok()?;
    blocks.push(u128::from_ne_bytes(HIDDEN));
    blocks.extend(text.as_bytes().chunks(BLOCK).map(|chunk| {
        let mut block = [0; BLOCK];
        block[..chunk.len()].copy_from_slice(chunk);
        u128::from_ne_bytes(block)
    }));
    blocks.resize(count, 0);
    let text = blocks.as_mut_ptr().wrapping_add(1).cast::<c_char>();
    living().insert(text.addr(), Text { blocks });
    Some(text)
}

/// Wipes and releases a text; anything else is ignored.
pub(super) fn release(text: *mut c_char) {
    let removed = living().remove(&text.addr());
    // Outside the lock: wiping takes as long as the text is.
    drop(removed);
}

/// A copy of a living text up to its NUL, as its owner may have changed it; `None` when it is none of ours, or no
/// longer UTF-8.
pub(super) fn copy(text: *const c_char) -> Option<Zeroizing<String>> {
    let living = living();
    let found = living.get(&text.addr())?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(found.blocks.len() * BLOCK));
    for block in &found.blocks[1..] {
        bytes.extend_from_slice(&block.to_ne_bytes());
    }
    drop(living);
    let end = bytes.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(&bytes[..end]).ok().map(|text| Zeroizing::new(text.to_owned()))
}

/// The name of a code as C takes it.
pub(super) fn static_name(code: i32) -> &'static CStr {
    static NAMES: LazyLock<Vec<(Code, CString)>> = LazyLock::new(|| {
        TABLE.iter().map(|row| (row.code, CString::new(row.name).expect("a name holds no NUL"))).collect()
    });
    NAMES.iter().find(|(known, _)| known.value() == code).map_or(c"ARCTOS_?", |(_, name)| name)
}
