//! Fields of a fixed length, as records of COBOL and C hold them, in the encoding of their program.
#![forbid(unsafe_code)]

use crate::code::Code;
use crate::failure::Failure;

/// The text of a field, without the blanks and NULs that fill it up.
pub(crate) fn decode<'a>(field: &'a [u8], encoding: Option<&str>) -> Result<&'a str, Failure> {
    known(encoding)?;
    let filled = field.iter().rposition(|byte| !b" \0".contains(byte)).map_or(0, |last| last + 1);
    std::str::from_utf8(&field[..filled]).map_err(|error| {
        let place = error.valid_up_to();
        Failure::plain(
            Code::BadArgument,
            format!("the field is not UTF-8: the byte at offset {place} fits no character"),
        )
    })
}

/// A text in an encoding.
pub(crate) fn encode<'a>(text: &'a str, encoding: Option<&str>) -> Result<&'a str, Failure> {
    known(encoding).map(|()| text)
}

/// How many bytes of a text fit into `room` without splitting a character.
pub(crate) fn fitting(text: &str, room: usize) -> usize {
    text.floor_char_boundary(room)
}

fn known(encoding: Option<&str>) -> Result<(), Failure> {
    match encoding {
        None => Ok(()),
        Some(name) if name.eq_ignore_ascii_case("utf-8") || name.eq_ignore_ascii_case("utf8") => Ok(()),
        Some(name) => {
            let shown: String = name.chars().take(32).collect();
            Err(Failure::plain(Code::BadArgument, format!("the encoding {shown:?} is not known; known is UTF-8")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lose_what_fills_them_up() {
        for (field, text) in
            [("abc  ", "abc"), ("abc\0 \0", "abc"), ("  a b ", "  a b"), ("   ", ""), ("", ""), ("許功蓋 ", "許功蓋")]
        {
            assert_eq!(decode(field.as_bytes(), None).unwrap(), text);
        }
        assert!(decode("許".as_bytes().split_last().unwrap().1, None).is_err());
        assert!(decode(b"a", Some("cp950")).is_err());
        assert!(decode(b"a", Some("UTF8")).is_ok());
    }

    #[test]
    fn no_character_is_split() {
        for (room, fits) in [(0, 0), (2, 0), (3, 3), (5, 3), (6, 6), (100, 7)] {
            assert_eq!(fitting("許功a", room), fits);
        }
    }
}
