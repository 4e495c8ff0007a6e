//! The buffers between ureq and a connection. They grow as far as a head may. They hold the token and the customer's
//! data, and are wiped as all memory of the library is.
#![forbid(unsafe_code)]

use super::head::LONGEST;

const SIZE: usize = 16 * 1024;

#[derive(Default)]
pub(super) struct Buffers {
    input: Vec<u8>,
    consumed: usize,
    filled: usize,
    output: Vec<u8>,
    progress: bool,
}

/// Makes room for `capacity` bytes; `false` when there is no memory for it.
pub(super) fn reserve(bytes: &mut Vec<u8>, capacity: usize) -> bool {
    bytes.try_reserve_exact(capacity.saturating_sub(bytes.len())).is_ok()
}

impl Buffers {
    fn input_is_used_up(&self) -> bool {
        self.consumed == self.filled
    }

    fn ensure_output(&mut self) {
        if self.output.is_empty() {
            self.output.resize(SIZE, 0);
        }
    }
}

impl ureq::unversioned::transport::Buffers for Buffers {
    fn output(&mut self) -> &mut [u8] {
        self.ensure_output();
        &mut self.output
    }

    fn input(&self) -> &[u8] {
        &self.input[self.consumed..self.filled]
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        if self.input_is_used_up() {
            (self.consumed, self.filled) = (0, 0);
        } else if self.filled == self.input.len() && self.consumed > 0 {
            self.input.copy_within(self.consumed..self.filled, 0);
            (self.consumed, self.filled) = (0, self.filled - self.consumed);
        }
        let wanted = (self.input.len() * 2).max(SIZE);
        // A head, or a line of a chunked body, that is longer than a head may be leaves the buffer full, which the
        // transport reports; so does memory that cannot be had.
        if self.filled == self.input.len() && wanted <= 2 * LONGEST && reserve(&mut self.input, wanted) {
            self.input.resize(wanted, 0);
        }
        &mut self.input[self.filled..]
    }

    fn input_appended(&mut self, amount: usize) {
        self.filled += amount;
    }

    fn input_consume(&mut self, amount: usize) {
        self.progress = amount > 0;
        self.consumed += amount;
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        self.ensure_output();
        // The scratch part serves chunked requests, of which there are none.
        (&mut [], &mut self.output)
    }

    fn can_use_input(&self) -> bool {
        self.progress && !self.input_is_used_up()
    }
}
