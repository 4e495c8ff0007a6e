//! Fields of a fixed length: `arctos_json_set_field` reads them, `arctos_text_copy` fills them. Neither touches a byte
//! beyond what it was given, and neither lets a part of a character through.

use std::ffi::{CStr, CString, c_char};
use std::ptr::{null, null_mut, without_provenance_mut};

use arctos_tests::api::*;

/// Memory with a page before and after it that nobody may touch: who does, ends this process.
struct Fenced {
    map: *mut u8,
    page: usize,
    length: usize,
}

impl Fenced {
    fn new(least: usize) -> Fenced {
        // SAFETY: a new mapping that nobody else knows.
        unsafe {
            let page = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).expect("a size");
            let length = least.next_multiple_of(page);
            let (protection, flags) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            let map = libc::mmap(null_mut(), length + 2 * page, protection, flags, -1, 0);
            assert_ne!(map, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
            let map = map.cast::<u8>();
            let opened = libc::mprotect(map.add(page).cast(), length, libc::PROT_READ | libc::PROT_WRITE);
            assert_eq!(opened, 0, "{}", std::io::Error::last_os_error());
            Fenced { map, page, length }
        }
    }

    /// All of it.
    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the open part of the mapping, borrowed like the whole.
        unsafe { std::slice::from_raw_parts_mut(self.map.add(self.page), self.length) }
    }

    /// The last `length` bytes: the next one may not be touched.
    fn last(&mut self, length: usize) -> *mut c_char {
        self.bytes().as_mut_ptr_range().end.wrapping_sub(length).cast()
    }

    /// Bytes that end where the memory does.
    fn ending(&mut self, bytes: &[u8]) -> *mut c_char {
        let start = self.length - bytes.len();
        self.bytes()[start..].copy_from_slice(bytes);
        self.last(bytes.len())
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, once.
        unsafe { libc::munmap(self.map.cast(), self.length + 2 * self.page) };
    }
}

/// A text of the library, or NULL.
struct Text(*mut c_char);

impl Drop for Text {
    fn drop(&mut self) {
        // SAFETY: NULL or a text of the library, freed once.
        unsafe { (arctos().free)(self.0) }
    }
}

impl Text {
    #[track_caller]
    fn of(json: &str) -> Text {
        let (mut text, json) = (Text(null_mut()), c(json));
        // SAFETY: texts that live through the call.
        assert_eq!(unsafe { (arctos().json_set)(&mut text.0, c"".as_ptr(), json.as_ptr()) }, OK);
        text
    }

    fn set_field(&mut self, pointer: &CStr, data: *const c_char, length: i32, encoding: Option<&CStr>) -> i32 {
        let encoding = encoding.map_or(null(), CStr::as_ptr);
        // SAFETY: texts that live through the call, and data that is NULL or of this length.
        unsafe { (arctos().json_set_field)(&mut self.0, pointer.as_ptr(), data, length, encoding) }
    }

    fn read(&self) -> &str {
        assert!(!self.0.is_null(), "a text");
        // SAFETY: a living text of the library, which nothing changes while it is borrowed.
        unsafe { CStr::from_ptr(self.0) }.to_str().expect("texts are UTF-8")
    }
}

fn length(bytes: &[u8]) -> i32 {
    i32::try_from(bytes.len()).expect("a short field")
}

/// The string that a field becomes; the field stands right before memory that nobody may read.
#[track_caller]
fn becomes(field: &[u8], encoding: Option<&CStr>) -> String {
    let mut memory = Fenced::new(field.len() + 1);
    let mut text = Text(null_mut());
    assert_eq!(text.set_field(c"/f", memory.ending(field), length(field), encoding), OK, "{field:.100x?}");
    let value: serde_json::Value = serde_json::from_str(text.read()).expect("JSON");
    assert_eq!(value.as_object().map(|object| object.len()), Some(1), "{}", text.read());
    value["f"].as_str().expect("a string").to_owned()
}

/// A field that is refused with this code: a text stays where it is and as it is, and NULL stays NULL.
#[track_caller]
fn refused(json: &str, pointer: &CStr, field: &[u8], encoding: Option<&CStr>, code: i32) {
    let mut memory = Fenced::new(field.len() + 1);
    let data = memory.ending(field);
    let mut text = Text::of(json);
    let before = (text.0, text.read().to_owned());
    assert_eq!(text.set_field(pointer, data, length(field), encoding), code, "{pointer:?} {field:x?} {encoding:?}");
    assert_eq!((text.0, text.read()), (before.0, &*before.1));
    let mut nothing = Text(null_mut());
    assert_eq!(nothing.set_field(pointer, data, length(field), encoding), code, "{pointer:?} {field:x?} {encoding:?}");
    assert!(nothing.0.is_null());
}

/// What is no UTF-8, wherever it stands.
const NOT_UTF_8: [&[u8]; 11] = [
    b"\x80",
    b"\xff",
    b"\xc0\x80",
    b"\xc1\xbf",
    b"\xe0\x80\x80",
    b"\xf0\x80\x80\x80",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80",
    b"\xa4\xa4\xa4\xe5",
    b"\xe8a\xa8",
];

/// What names no encoding that there is, or none yet.
const NO_ENCODINGS: [&CStr; 14] = [
    c"cp950",
    c"CP950",
    c"big5",
    c"ascii",
    c"latin1",
    c"iso-8859-1",
    c"utf-16",
    c"utf-80",
    c"utf-",
    c" utf-8",
    c"utf-8 ",
    c"",
    c"\xff",
    c"utf-8\xe8",
];

const UTF_8: [Option<&CStr>; 4] = [None, Some(c"utf-8"), Some(c"UTF-8"), Some(c"Utf-8")];

#[test]
fn blanks_and_nuls_at_the_end_are_left_out() {
    for (field, text) in [
        (&b""[..], ""),
        (b" ", ""),
        (b"\0", ""),
        (b"          ", ""),
        (b"\0\0\0\0\0\0\0\0", ""),
        (b" \0 \0", ""),
        (b"BR0943-187", "BR0943-187"),
        (b"BR0943-187          ", "BR0943-187"),
        (b"BR0943-187\0\0\0\0\0\0\0\0\0\0", "BR0943-187"),
        (b"BR0943-187\0 \0 \0\0  ", "BR0943-187"),
        (b"a", "a"),
        (b"a ", "a"),
        (b"a\0", "a"),
        // What stands before the end stays.
        (b"  a", "  a"),
        (b"  a  b   c ", "  a  b   c"),
        (b"\0a", "\0a"),
        (b"a\0b\0", "a\0b"),
        (b" \0x\0 ", " \0x"),
        // Nothing else is a blank.
        (b"a\t", "a\t"),
        (b"a\r\n  ", "a\r\n"),
        (b"a\x0b\x0c\x1f\x7f ", "a\u{b}\u{c}\u{1f}\u{7f}"),
        ("a\u{a0}\u{3000}\u{feff} ".as_bytes(), "a\u{a0}\u{3000}\u{feff}"),
        // Text that JSON escapes, and text that looks like JSON.
        (br#""a\"b" "#, r#""a\"b""#),
        (br#"{"video":false} "#, r#"{"video":false}"#),
        (b"15   ", "15"),
        ("許 功蓋 é 😀   ".as_bytes(), "許 功蓋 é 😀"),
    ] {
        for encoding in UTF_8 {
            assert_eq!(becomes(field, encoding), text, "{field:x?} {encoding:?}");
        }
    }
}

#[test]
fn a_field_is_escaped_as_json_wants_it() {
    for (field, json) in [
        (&b"a\"b\\c/ "[..], r#"{"f":"a\"b\\c/"}"#),
        (b"\n\r\t ", r#"{"f":"\n\r\t"}"#),
        (b"a\0b", r#"{"f":"a\u0000b"}"#),
        (b"     ", r#"{"f":""}"#),
        ("許功蓋 ".as_bytes(), r#"{"f":"許功蓋"}"#),
    ] {
        let mut text = Text(null_mut());
        assert_eq!(text.set_field(c"/f", field.as_ptr().cast(), length(field), None), OK);
        assert_eq!(text.read(), json);
    }
    // Every byte that is a character of its own, as JSON's own rules read it back.
    let field: Vec<u8> = (0..=0x7f).collect();
    assert_eq!(becomes(&field, None).as_bytes(), field);
}

#[test]
fn only_the_length_counts_and_no_nul_ends_a_field() {
    let record = "許 é😀\0a b  許".as_bytes();
    for long in 0..=record.len() {
        // What follows the field is there to be read by mistake, once, and may not be read at all, once.
        let field = &record[..long];
        let filled = field.iter().rposition(|byte| *byte != b' ' && *byte != 0).map_or(0, |last| last + 1);
        match std::str::from_utf8(&field[..filled]) {
            Ok(wanted) => {
                assert_eq!(becomes(field, None), wanted, "{long}");
                let mut text = Text(null_mut());
                assert_eq!(text.set_field(c"", record.as_ptr().cast(), length(field), None), OK, "{long}");
                assert_eq!(serde_json::from_str::<String>(text.read()).expect("a string"), wanted, "{long}");
            }
            Err(_) => refused("{}", c"/f", field, None, BAD_ARGUMENT),
        }
    }
}

#[test]
fn a_character_that_is_cut_at_the_end_is_refused() {
    for character in ["é", "許", "😀"] {
        for cut in 1..character.len() {
            for before in ["", "a", "許", "a "] {
                for after in ["", " ", "\0", "  \0 "] {
                    let field = [before.as_bytes(), &character.as_bytes()[..cut], after.as_bytes()].concat();
                    refused(r#"{"a":1,"f":"x"}"#, c"/f", &field, None, BAD_ARGUMENT);
                }
            }
        }
    }
}

#[test]
fn what_is_not_of_the_encoding_is_refused() {
    for wrong in NOT_UTF_8 {
        for (before, after) in [("", ""), ("a", ""), ("", "b"), ("許 ", " 功 ")] {
            let field = [before.as_bytes(), wrong, after.as_bytes()].concat();
            for encoding in [None, Some(c"utf-8")] {
                refused(r#"{"a":1,"f":"x"}"#, c"/f", &field, encoding, BAD_ARGUMENT);
            }
        }
    }
    // In what is left out nothing else can stand.
    refused("{}", c"/f", b"a \xe8 ", None, BAD_ARGUMENT);
}

#[test]
fn an_encoding_that_is_not_known_is_refused() {
    let long = CString::new("x".repeat(10_000)).expect("no NUL");
    for encoding in NO_ENCODINGS.into_iter().chain([long.as_c_str()]) {
        for field in [&b"abc"[..], b"   ", b""] {
            refused(r#"{"f":"x"}"#, c"/f", field, Some(encoding), BAD_ARGUMENT);
        }
    }
}

#[test]
fn null_and_lengths_that_are_none_are_refused() {
    let data: *const c_char = c"abc".as_ptr();
    for (data, length) in
        [(null(), 0), (null(), 3), (null(), -1), (null(), i32::MAX), (data, -1), (data, -3), (data, i32::MIN)]
    {
        let mut text = Text::of(r#"{"f":"x"}"#);
        let before = text.0;
        assert_eq!(text.set_field(c"/f", data, length, None), BAD_ARGUMENT, "{data:?} {length}");
        assert_eq!((text.0, text.read()), (before, r#"{"f":"x"}"#));
    }
    let mut text = null_mut();
    // SAFETY: NULLs that are answered, and texts that live through the call.
    unsafe {
        assert_eq!((arctos().json_set_field)(null_mut(), c"/f".as_ptr(), data, 3, null()), BAD_ARGUMENT);
        assert_eq!((arctos().json_set_field)(&mut text, null(), data, 3, null()), BAD_ARGUMENT);
    }
    assert!(text.is_null());
    // A field of no bytes may begin where nothing can be read.
    let mut memory = Fenced::new(1);
    let mut text = Text(null_mut());
    assert_eq!(text.set_field(c"/f", memory.last(0), 0, None), OK);
    assert_eq!(text.read(), r#"{"f":""}"#);
}

#[test]
fn a_field_goes_where_its_pointer_says() {
    for (json, pointer, wanted) in [
        ("{}", c"/a", r#"{"a":"x y"}"#),
        ("{ \"n\" : 12345678901234567890 , \"a\":1 }", c"/a", "{ \"n\" : 12345678901234567890 , \"a\":\"x y\" }"),
        ("[1]", c"/-", r#"[1,"x y"]"#),
        ("[1,2]", c"/0", r#"["x y",2]"#),
        ("[1,2]", c"", r#""x y""#),
    ] {
        let mut text = Text::of(json);
        assert_eq!(text.set_field(pointer, c"x y  ".as_ptr(), 5, None), OK, "{json} {pointer:?}");
        assert_eq!(text.read(), wanted);
    }
    refused("{}", c"/a/b", b"x", None, NO_VALUE);
    refused("{}", c"a", b"x", None, BAD_ARGUMENT);
    refused("{}", c"/~2", b"x", None, BAD_ARGUMENT);

    // A text that is none of the library's.
    let foreign = c"{}";
    let mut text = foreign.as_ptr().cast_mut();
    // SAFETY: texts that live through the call.
    let code = unsafe { (arctos().json_set_field)(&mut text, c"/a".as_ptr(), c"x".as_ptr(), 1, null()) };
    assert_eq!((code, text.cast_const()), (BAD_ARGUMENT, foreign.as_ptr()));
}

#[test]
fn a_field_may_stand_in_the_text_that_it_is_put_into() {
    let mut text = Text::of(r#"{"a":"within","b":1}"#);
    let within = text.0.wrapping_add(6);
    assert_eq!(text.set_field(c"/b", within, 6, None), OK);
    assert_eq!(text.read(), r#"{"a":"within","b":"within"}"#);
}

#[test]
fn ten_megabytes_are_a_field() {
    let mut field = "許功蓋 \"quoted\" ".repeat(500_000).into_bytes();
    let filled = field.len() - 1;
    field.resize(field.len() + 1_000_000, b' ');
    assert!(field.len() > 10_000_000);
    assert!(becomes(&field, None).as_bytes() == &field[..filled]);
}

/// The byte that stands around every buffer, and in it before it is filled.
const GUARD: u8 = 0xa5;

/// Runs `arctos_text_copy` on a buffer of `size` bytes, once with guard bytes on both sides and once right before
/// memory that nobody may touch; gives what it returned and what the buffer held.
#[track_caller]
fn copied(text: *const c_char, encoding: Option<&CStr>, size: usize, passed: i32, pad: i32) -> (i32, Vec<u8>) {
    let encoding = encoding.map_or(null(), CStr::as_ptr);
    let mut memory = Fenced::new(3 * size + 64);
    let all = memory.length;
    let mut results = [all - size, (all - size) / 2].map(|start| {
        memory.bytes().fill(GUARD);
        // SAFETY: texts that live through the call, and a buffer within the memory.
        let result = unsafe {
            let buffer = memory.bytes().as_mut_ptr().add(start).cast();
            (arctos().text_copy)(text, encoding, buffer, passed, pad)
        };
        let bytes = memory.bytes();
        let around = bytes[..start].iter().chain(&bytes[start + size..]);
        assert!(around.into_iter().all(|byte| *byte == GUARD), "a byte beside the buffer was changed");
        (result, bytes[start..start + size].to_vec())
    });
    assert_eq!(results[0], results[1], "the place of the buffer does not matter");
    std::mem::take(&mut results[0])
}

/// As `copied`, with a text that ends right before memory that nobody may read.
#[track_caller]
fn copied_text(text: &[u8], encoding: Option<&CStr>, size: usize, pad: u8) -> (i32, Vec<u8>) {
    let mut memory = Fenced::new(text.len() + 1);
    let text = memory.ending(&[text, b"\0"].concat());
    copied(text, encoding, size, i32::try_from(size).expect("a short field"), i32::from(pad))
}

/// What a buffer must hold: as many whole characters as there is room for, and the pad.
fn field(text: &str, size: usize, pad: u8) -> Vec<u8> {
    let room = if pad == 0 { size.saturating_sub(1) } else { size };
    let mut field = Vec::new();
    for character in text.chars() {
        if field.len() + character.len_utf8() > room {
            break;
        }
        field.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
    field.resize(size, pad);
    field
}

#[test]
fn every_size_holds_whole_characters_and_the_pad() {
    for text in [
        "",
        " ",
        "a",
        "202312210000001",
        "é",
        "éé",
        "許",
        "許功蓋",
        "😀",
        "😀😀",
        "aé許😀",
        "😀許éa",
        "a許b😀c é ",
        "é\u{301}許\u{fe0f}",
        "\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}",
    ] {
        let whole = i32::try_from(text.len()).expect("a short text");
        for size in 0..=text.len() + 5 {
            for pad in [0, 32, 255, b'x'] {
                for encoding in UTF_8 {
                    let (result, buffer) = copied_text(text.as_bytes(), encoding, size, pad);
                    assert_eq!(result, whole, "{text:?} {size} {pad}");
                    assert_eq!(buffer, field(text, size, pad), "{text:?} {size} {pad}");
                    if pad == 0 && size > 0 {
                        let ended = CStr::from_bytes_until_nul(&buffer).expect("pad 0 ends with a NUL");
                        assert!(text.starts_with(ended.to_str().expect("whole characters")), "{text:?} {size}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_text_that_just_fits_is_not_cut() {
    assert_eq!(copied_text("許功".as_bytes(), None, 6, 32), (6, "許功".into()));
    assert_eq!(copied_text("許功".as_bytes(), None, 5, 32), (6, "許  ".into()));
    // A NUL at the end needs a byte of its own, and nothing else is given up for it.
    assert_eq!(copied_text("許功".as_bytes(), None, 7, 0), (6, "許功\0".into()));
    assert_eq!(copied_text("許功".as_bytes(), None, 6, 0), (6, "許\0\0\0".into()));
    assert_eq!(copied_text("a".as_bytes(), None, 1, 0), (1, "\0".into()));
    assert_eq!(copied_text("a".as_bytes(), None, 1, 255), (1, "a".into()));
}

#[test]
fn null_as_a_text_is_the_empty_text() {
    for size in 0..5 {
        for pad in [0, 32, 255] {
            let passed = i32::try_from(size).expect("a small number");
            assert_eq!(copied(null(), None, size, passed, i32::from(pad)), (0, vec![pad; size]));
        }
    }
}

#[test]
fn without_a_buffer_only_the_length_is_told() {
    let mut memory = Fenced::new(1);
    for text in ["", "a", "許功蓋", "aé許😀"] {
        let whole = i32::try_from(text.len()).expect("a short text");
        let text = c(text);
        for pad in [0, 32, 255] {
            // SAFETY: a text that lives through the call; NULL and what lies behind the memory are not written to.
            unsafe {
                for size in [0, 1, 7, i32::MAX] {
                    assert_eq!((arctos().text_copy)(text.as_ptr(), null(), null_mut(), size, pad), whole);
                }
                assert_eq!((arctos().text_copy)(text.as_ptr(), null(), memory.last(0), 0, pad), whole);
                assert_eq!((arctos().text_copy)(text.as_ptr(), null(), without_provenance_mut(1), 0, pad), whole);
            }
        }
    }
    // SAFETY: NULLs that are allowed.
    assert_eq!(unsafe { (arctos().text_copy)(null(), null(), null_mut(), 0, 0) }, 0);
}

#[test]
fn a_text_that_is_not_utf_8_gives_a_field_of_pad() {
    for wrong in NOT_UTF_8.into_iter().chain([&b"\xe8\xa8"[..], b"\xf0\x9f\x98", b"\xc3"]) {
        for (before, after) in [("", ""), ("a long way before ", ""), ("", " and after"), ("許", "功")] {
            let text = [before.as_bytes(), wrong, after.as_bytes()].concat();
            for size in [0, 1, 4, 40] {
                for pad in [0, 32, 255] {
                    assert_eq!(copied_text(&text, None, size, pad), (-1, vec![pad; size]), "{text:x?}");
                }
            }
        }
    }
}

#[test]
fn an_encoding_that_is_not_known_gives_a_field_of_pad() {
    let long = CString::new("x".repeat(10_000)).expect("no NUL");
    for encoding in NO_ENCODINGS.into_iter().chain([long.as_c_str()]) {
        for size in [0, 1, 20] {
            for pad in [0, 32, 255] {
                for text in ["", "abc", "許功蓋"] {
                    let result = copied_text(text.as_bytes(), Some(encoding), size, pad);
                    assert_eq!(result, (-1, vec![pad; size]), "{encoding:?} {text}");
                }
            }
        }
        // SAFETY: texts that live through the call, and a NULL that is allowed.
        assert_eq!(unsafe { (arctos().text_copy)(c"a".as_ptr(), encoding.as_ptr(), null_mut(), 0, 0) }, -1);
    }
}

#[test]
fn a_size_or_pad_that_is_none_touches_nothing() {
    for (size, pad) in [
        (-1, 0),
        (-1, 32),
        (i32::MIN, 32),
        (8, -1),
        (8, 256),
        (8, 0x120),
        (8, i32::MIN),
        (8, i32::MAX),
        (0, -1),
        (-1, -1),
        // What a C programmer passes whose char is signed.
        (8, i32::from(-1_i8)),
    ] {
        for text in [c"abc".as_ptr(), null(), c"\xff".as_ptr()] {
            assert_eq!(copied(text, None, 8, size, pad), (-1, vec![GUARD; 8]), "{size} {pad}");
            // SAFETY: as above, and a NULL that is allowed.
            assert_eq!(unsafe { (arctos().text_copy)(text, null(), null_mut(), size, pad) }, -1, "{size} {pad}");
        }
    }
}

#[test]
fn what_goes_through_a_record_comes_back() {
    for text in ["", "BR0943-187", "  a  b", "許功蓋 (VIP) \"x\"", "😀é"] {
        let (whole, record) = copied_text(text.as_bytes(), None, 40, 32);
        assert_eq!(whole, length(text.as_bytes()));
        assert_eq!(becomes(&record, None), text);
        let (_, record) = copied_text(text.as_bytes(), None, 40, 0);
        assert_eq!(becomes(&record, None), text);
    }
}

#[test]
fn a_text_may_be_padded_in_its_place() {
    for (size, pad, wanted) in
        [(8, b' ', *b"abc     "), (8, 0, *b"abc\0\0\0\0\0"), (2, b' ', *b"abc\0\0\0\0\0"), (2, 0, *b"a\0c\0\0\0\0\0")]
    {
        let mut field = *b"abc\0\0\0\0\0";
        let text = field.as_mut_ptr().cast::<std::ffi::c_char>();
        let length = unsafe { (arctos().text_copy)(text, std::ptr::null(), text, size, i32::from(pad)) };
        assert_eq!((length, field), (3, wanted), "{size} {pad}");
    }
}
