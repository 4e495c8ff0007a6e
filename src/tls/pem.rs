//! PEM, read strictly: what is broken in a file is said, and nothing of it is skipped that could have been meant.
#![forbid(unsafe_code)]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// One block of a PEM file.
pub(super) struct Block<'a> {
    /// What its first line names.
    pub label: &'a [u8],
    /// The number of its first line, from 1.
    pub line: usize,
    /// What stands between its first and its last line.
    body: &'a [u8],
}

/// The line that `text` begins with, without blanks at its ends, and what is behind it.
fn split_line(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| end + 1);
    let (line, rest) = text.split_at(end);
    (line.trim_ascii(), rest)
}

/// The label of a first or a last line of a block, `None` for one that is cut.
fn label<'a>(line: &'a [u8], start: &[u8]) -> Option<&'a [u8]> {
    line.strip_prefix(start)?.strip_suffix(b"-----")
}

/// The blocks of a file, in order; what stands between them is not looked at. The error says which line is wrong.
pub(super) fn blocks(text: &[u8]) -> Result<Vec<Block<'_>>, String> {
    let broken = |line: usize| format!("is broken PEM in the block that begins at line {line}");
    let mut rest = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut blocks = Vec::new();
    // The number of the line, and a block whose end has not come.
    let mut number = 0;
    let mut open: Option<(&[u8], usize, &[u8])> = None;
    while !rest.is_empty() {
        let at = rest;
        let line;
        (line, rest) = split_line(rest);
        number += 1;
        if !line.starts_with(b"-----") {
            continue;
        }
        match (open.take(), label(line, b"-----BEGIN "), label(line, b"-----END ")) {
            (None, Some(label), _) => open = Some((label, number, rest)),
            (Some((label, begun, body)), None, Some(end)) if label == end => {
                blocks.push(Block { label, line: begun, body: &body[..body.len() - at.len()] });
            }
            (Some((_, begun, _)), ..) => return Err(broken(begun)),
            (None, ..) if line.starts_with(b"-----BEGIN") => return Err(broken(number)),
            (None, ..) if line.starts_with(b"-----END") => {
                return Err(format!("is broken PEM: line {number} ends a block that has not begun"));
            }
            // A line of dashes, as people put between blocks.
            (None, ..) => {}
        }
    }
    match open {
        Some((_, begun, _)) => Err(broken(begun)),
        None => Ok(blocks),
    }
}

impl Block<'_> {
    /// Whether a passphrase protects it.
    pub(super) fn is_encrypted(&self) -> bool {
        self.label.starts_with(b"ENCRYPTED ") || self.body.trim_ascii_start().starts_with(b"Proc-Type:")
    }

    /// What stands in it, in memory that is wiped.
    pub(super) fn der(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        let mut text = Zeroizing::new(Vec::with_capacity(self.body.len()));
        text.extend(self.body.iter().filter(|byte| !byte.is_ascii_whitespace()));
        let der = STANDARD.decode(&*text).map(Zeroizing::new).ok().filter(|der| !der.is_empty());
        der.ok_or_else(|| format!("is broken PEM in the block that begins at line {}", self.line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The blocks with what is in them, as text.
    fn read(text: &str) -> Result<Vec<(String, String)>, String> {
        let texts = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        blocks(text.as_bytes())?.iter().map(|block| Ok((texts(block.label), texts(&block.der()?)))).collect()
    }

    #[test]
    fn blocks_are_read_and_the_rest_is_passed_over() {
        let (one, two) = (("ONE".to_owned(), "hello".to_owned()), ("TWO".to_owned(), "a".to_owned()));
        let plain =
            "-----BEGIN ONE-----\naGVs\nbG8=\n-----END ONE-----\n-----BEGIN TWO-----\nYQ==\n-----END TWO-----\n";
        let around = format!(
            "# head\n----\nAttributes: x\n{}# between\n-----\n",
            plain.replace("-----END ONE", "\n-----END ONE")
        );
        for text in [
            plain,
            &around,
            &plain.replace('\n', "\r\n"),
            &format!("\u{feff}{plain}"),
            plain.trim_end(),
            &plain.replace("aGVs\nbG8=", "  a\tG V\n\nsbG8 =\t"),
        ] {
            assert_eq!(read(text), Ok(vec![one.clone(), two.clone()]), "{text}");
        }
        assert_eq!(read(""), Ok(vec![]));
        assert_eq!(read("none\n"), Ok(vec![]));
        assert_eq!(blocks(plain.as_bytes()).unwrap().iter().map(|block| block.line).collect::<Vec<_>>(), [1, 5]);
    }

    #[test]
    fn what_is_broken_is_said_with_its_line() {
        for (text, line) in [
            ("\n-----BEGIN ONE-----\naGVsbG8=\n", "2"),
            ("-----BEGIN ONE-----", "1"),
            ("-----BEGIN ONE----\naGVsbG8=\n-----END ONE-----\n", "1"),
            ("-----BEGIN ONE-----\naGVsbG8=\n-----END ONE----\n", "1"),
            ("-----BEGIN ONE-----\naGVsbG8=\n-----END TWO-----\n", "1"),
            ("-----BEGIN ONE-----\naGVsbG8=\n-----BEGIN ONE-----\naGVsbG8=\n-----END ONE-----\n", "1"),
            ("aGVsbG8=\n-----END ONE-----\n", "2"),
            ("-----BEGIN ONE-----\n-----END ONE-----\n", "1"),
            ("-----BEGIN ONE-----\naGVsbG8\n-----END ONE-----\n", "1"),
            ("-----BEGIN ONE-----\naGVs!G8=\n-----END ONE-----\n", "1"),
            ("-----BEGIN ONE-----\naGVsbG8=aGVs\n-----END ONE-----\n", "1"),
            ("-----BEGIN ONE-----\nProc-Type: 4,ENCRYPTED\n\naGVs\n-----END ONE-----\n", "1"),
        ] {
            let why = read(text).unwrap_err();
            assert!(why.contains(&format!("line {line}")), "{text}: {why}");
        }
    }

    #[test]
    fn a_passphrase_is_seen() {
        let of = |text: &str| blocks(text.as_bytes()).unwrap()[0].is_encrypted();
        assert!(of("-----BEGIN ENCRYPTED PRIVATE KEY-----\naGVs\n-----END ENCRYPTED PRIVATE KEY-----\n"));
        assert!(of("-----BEGIN K-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: x\n\naGVs\n-----END K-----\n"));
        assert!(!of("-----BEGIN PRIVATE KEY-----\nENCRYPTED\n-----END PRIVATE KEY-----\n"));
    }
}
