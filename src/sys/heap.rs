//! The memory that this library takes, and what it uses: it is wiped when it is released. What a token or a customer's
//! text was copied to on its way through HTTP, TLS or JSON stands in no core afterwards.

use std::alloc::{GlobalAlloc, Layout, System};
use std::mem::MaybeUninit;
use std::slice;

use zeroize::Zeroize;

struct Wiped;

// Memory that grows or shrinks is moved by what the trait itself does: by `alloc`, a copy, and `dealloc`.
// SAFETY: all is asked of the system, whose memory is written to only where it is given back.
unsafe impl GlobalAlloc for Wiped {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, twice: the block is of this size, and nobody uses it any more.
        unsafe {
            slice::from_raw_parts_mut(block.cast::<MaybeUninit<u8>>(), layout.size()).zeroize();
            System.dealloc(block, layout);
        }
    }
}

#[global_allocator]
static HEAP: Wiped = Wiped;
