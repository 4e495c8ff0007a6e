//! What `tests/c/disk_recorder.c` recorded of a program that it was preloaded into.

/// One event. What its numbers are, stands in the recorder.
pub struct Event {
    /// What happened.
    pub what: u64,
    /// Which file, or which socket.
    pub which: u64,
    /// Where in the file; of a sync, which one.
    pub place: u64,
    /// A name, or a mark.
    pub text: String,
    /// What was written or sent; of names that change, the new one.
    pub data: Vec<u8>,
}

/// The events of a record, in order.
#[track_caller]
pub fn events(record: &[u8]) -> Vec<Event> {
    let mut rest = record;
    let mut events = Vec::new();
    while !rest.is_empty() {
        let number = |at: usize| u64::from_ne_bytes(rest[at * 8..at * 8 + 8].try_into().expect("eight bytes"));
        let [what, which, place, text, data] = [0, 1, 2, 3, 4].map(number);
        let (middle, end) = (40 + text as usize, 40 + (text + data) as usize);
        let text = String::from_utf8(rest[40..middle].to_vec()).expect("text");
        events.push(Event { what, which, place, text, data: rest[middle..end].to_vec() });
        rest = &rest[end..];
    }
    events
}
