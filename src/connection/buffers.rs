//! The buffers between ureq and a connection. They grow as far as a head may, and stay with a connection that is kept.
//! They hold the token and the customer's data, which are wiped as soon as an exchange is over.
#![forbid(unsafe_code)]

use zeroize::Zeroize;

use super::head::LONGEST;

const INPUT: usize = 16 * 1024;
const OUTPUT: usize = 16 * 1024;
/// ureq writes no line in pieces; that of the token is the longest.
const LINE: usize = 10 * 1024;

#[derive(Default)]
pub(super) struct Buffers {
    input: Vec<u8>,
    consumed: usize,
    filled: usize,
    /// How much of the input was ever filled.
    touched: usize,
    /// The request, collected until its answer is awaited, so that head and body go out in one write; behind it is
    /// room for more.
    output: Vec<u8>,
    collected: usize,
    /// There was no memory for more room.
    exhausted: bool,
    progress: bool,
}

/// Makes a buffer longer; `false` when there is no memory for it.
fn lengthen(bytes: &mut Vec<u8>, length: usize) -> bool {
    let enough = bytes.try_reserve_exact(length - bytes.len()).is_ok();
    if enough {
        bytes.resize(length, 0);
    }
    enough
}

impl Buffers {
    /// Makes room for a request with a body of this length, where it is not usual. Without memory for it, the request
    /// finds out.
    pub(super) fn expect(&mut self, body: usize) {
        if body > OUTPUT - LINE {
            lengthen(&mut self.output, body.saturating_add(OUTPUT));
        }
    }

    /// The request as far as it was collected, with its room, and its length.
    pub(super) fn take_request(&mut self) -> (Vec<u8>, usize) {
        (std::mem::take(&mut self.output), std::mem::take(&mut self.collected))
    }

    /// Has the room of a request that was sent for the next one.
    pub(super) fn return_request(&mut self, (mut room, length): (Vec<u8>, usize)) {
        if room.len() == OUTPUT {
            room[..length].zeroize();
            self.output = room;
        }
    }

    /// Takes up what was just written; `false` when there was no memory for all of it.
    pub(super) fn collect(&mut self, amount: usize) -> bool {
        self.collected += amount;
        !self.exhausted
    }

    /// Wipes what an exchange has left.
    pub(super) fn wipe(&mut self) {
        let request = self.take_request();
        self.return_request(request);
        match self.input.len() {
            ..=INPUT => self.input[..self.touched].zeroize(),
            _ => self.input = Vec::new(),
        }
        (self.consumed, self.filled, self.touched) = (0, 0, 0);
        self.progress = false;
    }

    fn input_is_used_up(&self) -> bool {
        self.consumed == self.filled
    }
}

impl ureq::unversioned::transport::Buffers for Buffers {
    fn output(&mut self) -> &mut [u8] {
        if self.output.len() - self.collected < LINE {
            let length = (2 * self.output.len()).max(OUTPUT);
            self.exhausted = !lengthen(&mut self.output, length);
        }
        &mut self.output[self.collected..]
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
        let wanted = (self.input.len() * 2).max(INPUT);
        // A head, or a line of a chunked body, that is longer than a head may be leaves the buffer full, which the
        // transport reports; so does memory that cannot be had.
        if self.filled == self.input.len() && wanted <= 2 * LONGEST {
            lengthen(&mut self.input, wanted);
        }
        &mut self.input[self.filled..]
    }

    fn input_appended(&mut self, amount: usize) {
        self.filled += amount;
        self.touched = self.touched.max(self.filled);
    }

    fn input_consume(&mut self, amount: usize) {
        self.progress = amount > 0;
        self.consumed += amount;
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        // The scratch part serves chunked requests, of which there are none.
        (&mut [], self.output())
    }

    fn can_use_input(&self) -> bool {
        self.progress && !self.input_is_used_up()
    }
}
