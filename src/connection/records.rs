//! Where the records of TLS end in what was read: rustls keeps part of a record to itself and does not tell.
#![forbid(unsafe_code)]

use std::io::{self, Read};

use super::socket::Socket;

/// Type, version and length.
const HEADER: usize = 5;

/// How far the record that is being read has come.
#[derive(Default)]
pub(super) struct Records {
    header: [u8; HEADER],
    /// How many bytes of the header there are.
    begun: usize,
    /// How many bytes are missing after it.
    missing: usize,
}

impl Records {
    /// Whether what was read ends with a record.
    pub(super) fn are_whole(&self) -> bool {
        self.begun == 0
    }

    /// The socket, read under watch; whether each read waits.
    pub(super) fn watch<'a>(&'a mut self, socket: &'a Socket, waits: bool) -> Watched<'a> {
        Watched { records: self, socket, waits }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let header = bytes.len().min(HEADER - self.begun);
            self.header[self.begun..self.begun + header].copy_from_slice(&bytes[..header]);
            self.begun += header;
            bytes = &bytes[header..];
            if header > 0 && self.begun == HEADER {
                self.missing = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
            }
            let body = bytes.len().min(self.missing);
            self.missing -= body;
            bytes = &bytes[body..];
            if self.begun == HEADER && self.missing == 0 {
                self.begun = 0;
            }
        }
    }
}

/// A socket whose records are counted.
pub(super) struct Watched<'a> {
    records: &'a mut Records,
    socket: &'a Socket,
    waits: bool,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.socket.receive(buffer, self.waits)?;
        self.records.take(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_end_where_their_length_says() {
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        for length in [1_u16, 0, 300, 17] {
            bytes.extend([23, 3, 3]);
            bytes.extend(length.to_be_bytes());
            bytes.extend(std::iter::repeat_n(23, usize::from(length)));
            ends.push(bytes.len());
        }
        for piece in [1, 2, 3, 4, 5, 6, 7, 100, bytes.len()] {
            let mut records = Records::default();
            let mut read = 0;
            for part in bytes.chunks(piece) {
                records.take(part);
                read += part.len();
                assert_eq!(records.are_whole(), ends.contains(&read), "{read} in pieces of {piece}");
            }
        }
    }
}
