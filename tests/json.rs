//! The JSON functions: values are found by RFC 6901, changes are made in place, and all that is not touched stays as it
//! was, byte for byte.

use std::ffi::{CStr, c_char};
use std::ptr::null_mut;

use arctos_tests::api::*;

/// A text of the library, or NULL, that the setters work on.
#[derive(Debug)]
struct Text(*mut c_char);

impl Drop for Text {
    fn drop(&mut self) {
        // SAFETY: NULL or a text of the library, freed once.
        unsafe { (arctos().free)(self.0) }
    }
}

impl Text {
    fn empty() -> Text {
        Text(null_mut())
    }

    /// The caller's own JSON as a text of the library.
    #[track_caller]
    fn of(json: &str) -> Text {
        let mut text = Text::empty();
        assert_eq!(text.set("", json), OK, "{json:.100}");
        text
    }

    fn set(&mut self, pointer: &str, value: &str) -> i32 {
        let (pointer, value) = (c(pointer), c(value));
        // SAFETY: texts that live through the call.
        unsafe { (arctos().json_set)(&mut self.0, pointer.as_ptr(), value.as_ptr()) }
    }

    fn set_text(&mut self, pointer: &str, text: &str) -> i32 {
        let (pointer, text) = (c(pointer), c(text));
        // SAFETY: texts that live through the call.
        unsafe { (arctos().json_set_text)(&mut self.0, pointer.as_ptr(), text.as_ptr()) }
    }

    fn read(&self) -> &str {
        assert!(!self.0.is_null(), "a text");
        // SAFETY: a living text of the library, which nothing changes while it is borrowed.
        unsafe { CStr::from_ptr(self.0) }.to_str().expect("texts are UTF-8")
    }
}

#[track_caller]
fn got(json: &str, pointer: &str) -> String {
    let reply = json_get(json, pointer);
    assert_eq!(reply.code, OK, "{pointer:?} {reply:?}");
    reply.text().to_owned()
}

/// A change that must be made.
#[track_caller]
fn changed(json: &str, pointer: &str, value: &str) -> String {
    let mut text = Text::of(json);
    assert_eq!(text.set(pointer, value), OK, "{pointer:?}");
    text.read().to_owned()
}

/// A change that must be refused: the text stays where it is and as it is.
#[track_caller]
fn unchanged(json: &str, pointer: &str, value: &str, code: i32) {
    let mut text = Text::of(json);
    let before = (text.0, text.read().to_owned());
    assert_eq!(text.set(pointer, value), code, "{json:.100} {pointer:.100?} {value:.100}");
    assert_eq!((text.0, text.read()), (before.0, &*before.1), "{pointer:.100?}");
}

/// The document of RFC 6901, section 5, with the table that follows it.
const RFC_6901: &str = r#"{
      "foo": ["bar", "baz"],
      "": 0,
      "a/b": 1,
      "c%d": 2,
      "e^f": 3,
      "g|h": 4,
      "i\\j": 5,
      "k\"l": 6,
      " ": 7,
      "m~n": 8
   }"#;

#[test]
fn the_examples_of_rfc_6901() {
    for (pointer, value) in [
        ("", RFC_6901),
        ("/foo", r#"["bar", "baz"]"#),
        ("/foo/0", "bar"),
        ("/", "0"),
        ("/a~1b", "1"),
        ("/c%d", "2"),
        ("/e^f", "3"),
        ("/g|h", "4"),
        ("/i\\j", "5"),
        ("/k\"l", "6"),
        ("/ ", "7"),
        ("/m~0n", "8"),
    ] {
        assert_eq!(got(RFC_6901, pointer), value, "{pointer:?}");
    }
}

#[test]
fn more_pointers() {
    let json = r#"{"a":{"":{"":"deep"}},"~1":1,"/":2,"~":3,"許功蓋":4,"\u0062":5,"0":[[10,11],{"0":12}],"😀":6,"-":7}"#;
    for (pointer, value) in [
        ("/a//", "deep"),
        ("/a/", r#"{"":"deep"}"#),
        ("/~01", "1"),
        ("/~1", "2"),
        ("/~0", "3"),
        ("/許功蓋", "4"),
        ("/b", "5"),
        ("/0", r#"[[10,11],{"0":12}]"#),
        ("/0/0/1", "11"),
        ("/0/1/0", "12"),
        ("/😀", "6"),
        ("/-", "7"),
    ] {
        assert_eq!(got(json, pointer), value, "{pointer:?}");
    }
}

#[test]
fn where_nothing_is() {
    let json = r#"{"a":{"b":null},"list":[1,2],"text":"0123","number":15,"~1":0}"#;
    for pointer in [
        "/b",
        "/A",
        "/a/c",
        "/a/b/c",
        "/a/",
        "/",
        "/list/2",
        "/list/-",
        "/list/-1",
        "/list/+1",
        "/list/00",
        "/list/01",
        "/list/1e0",
        "/list/ 1",
        "/list/",
        "/list/a",
        "/list/１",
        "/list/0/0",
        "/list/18446744073709551616",
        "/list/99999999999999999999999999",
        "/text/0",
        "/number/0",
        "/~0~1",
        "/list/length",
    ] {
        let reply = json_get(json, pointer);
        assert_eq!(reply.code, NO_VALUE, "{pointer:?} {reply:?}");
        assert_eq!(reply.json().get("outcome"), None, "{reply:?}");
    }
    // A null is a value.
    assert_eq!(got(json, "/a/b"), "null");
    for json in ["15", "null", "\"text\"", "true", "[]", "{}"] {
        for pointer in ["/", "/0", "/a"] {
            assert_eq!(json_get(json, pointer).code, NO_VALUE, "{json} {pointer}");
        }
    }
}

#[test]
fn what_is_no_pointer_is_refused() {
    for pointer in [
        "a", " ", " /a", "#", "#/a", "a/b", "~", "/~", "/a~", "/~2", "/~a", "/~~0", "/a/~/b", "//~", "0", "-", "$.a",
        "/a~1~",
    ] {
        for json in [r#"{"a":1}"#, "[]", "1"] {
            let reply = json_get(json, pointer);
            assert_eq!(reply.code, BAD_ARGUMENT, "{pointer:?} {reply:?}");
            assert!(reply.json()["message"].as_str().is_some_and(|message| message.contains("pointer")), "{reply:?}");
            unchanged(json, pointer, "1", BAD_ARGUMENT);
        }
    }
}

/// What looks like JSON and is none.
const NOT_JSON: [&str; 44] = [
    "",
    " ",
    "\n",
    "{",
    "}",
    "[",
    "]",
    "{]",
    "[}",
    "[1,]",
    "[,1]",
    "[1 2]",
    r#"{"a":1,}"#,
    r#"{"a"}"#,
    r#"{"a":}"#,
    r#"{a:1}"#,
    r#"{1:1}"#,
    r#"{'a':1}"#,
    "'a'",
    "nul",
    "Null",
    "TRUE",
    "01",
    "-",
    "+1",
    ".5",
    "1.",
    "1e",
    "0x1",
    "NaN",
    "Infinity",
    "1 2",
    "{} x",
    "{}{}",
    "[1] [2]",
    r#"""#,
    r#""\x""#,
    r#""\u12g4""#,
    "\"a\nb\"",
    "\"a\tb\"",
    "// no\n{}",
    "/* no */ {}",
    "\u{feff}{}",
    "\u{a0}{}",
];

#[test]
fn what_is_no_json_is_refused() {
    for json in NOT_JSON {
        for pointer in ["", "/a"] {
            let reply = json_get(json, pointer);
            assert_eq!(reply.code, BAD_ARGUMENT, "{json:?} {reply:?}");
        }
        // As a value, on every way that leads to a change.
        for (pointer, text) in [("", "{}"), ("/a", "{}"), ("/a", r#"{"a":1}"#), ("/-", "[]"), ("/0", "[1]")] {
            unchanged(text, pointer, json, BAD_ARGUMENT);
        }
        let mut nothing = Text::empty();
        assert_eq!(nothing.set("/a", json), BAD_ARGUMENT, "{json:?}");
        assert!(nothing.0.is_null(), "{json:?}");
    }
    // Faults far from what the pointer names, too.
    for json in [r#"{"a":1,"b":[1,]}"#, r#"{"b":nul,"a":1}"#, r#"{"a":1} x"#, r#"{"a":1"#, r#"{"b":"\x","a":1}"#] {
        assert_eq!(json_get(json, "/a").code, BAD_ARGUMENT, "{json}");
    }
}

#[test]
fn refusals_quote_nothing_of_the_text() {
    for (json, pointer) in [
        ("{\"secret-5f1e\":secret-5f1e}", ""),
        ("{\"secret-5f1e\":\"\\u0000\"}", "/secret-5f1e"),
        ("[\"secret-5f1e\"", "/0"),
    ] {
        let reply = json_get(json, pointer);
        assert_eq!(reply.code, BAD_ARGUMENT, "{reply:?}");
        assert!(!reply.text().contains("secret"), "{reply:?}");
    }
}

#[test]
fn values_are_handed_over_as_they_stand() {
    for value in [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "15",
        "-15",
        "12345678901234567890",
        "0.10",
        "1.0",
        "2.50",
        "1e5",
        "1E+05",
        "-1.5e-300",
        "444e44",
        "123456789012345678901234567890.123456789012345678901234567890",
        "[]",
        "{}",
        "[ ]",
        "{ }",
        "[1,  2 ,3]",
        "{ \"b\" : 1 , \"a\":2,\t\"b2\" :\n[ ] }",
        r#"["\u0000"]"#,
        r#"["\ud800"]"#,
        r#"{"a":"\/\u0041"}"#,
    ] {
        assert_eq!(got(value, ""), value);
        assert_eq!(got(&format!(" \t\r\n{value} \t\r\n"), ""), value);
        assert_eq!(got(&format!("{{ \"x\" : [ 0 , {value} ] }}"), "/x/1"), value);
        assert_eq!(changed("{\"x\":0}", "/x", value), format!("{{\"x\":{value}}}"));
        assert_eq!(changed("{\"x\":0}", "/x", &format!(" \t\r\n{value} \t\r\n")), format!("{{\"x\":{value}}}"));
        assert_eq!(changed("[1]", "", value), value);
    }
}

#[test]
fn strings_are_handed_over_as_plain_text() {
    for (json, text) in [
        (r#""""#, ""),
        (r#""plain""#, "plain"),
        (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
        (r#""\u8a31\u529f\u84cb""#, "許功蓋"),
        (r#""許功蓋""#, "許功蓋"),
        (r#""\ud83d\ude00 \uD83D\uDE00 😀""#, "😀 😀 😀"),
        (r#""\u0001\u001f\u007f\u0080\uffff""#, "\u{1}\u{1f}\u{7f}\u{80}\u{ffff}"),
        (r#""{\"a\":1}""#, "{\"a\":1}"),
        (r#"" blanks ""#, " blanks "),
        (r#""\u005cu0000""#, "\\u0000"),
    ] {
        assert_eq!(got(json, ""), text);
        assert_eq!(got(&format!("{{\"a\":[{json}]}}"), "/a/0"), text);
    }
}

#[test]
fn strings_that_no_text_can_hold_are_refused() {
    for json in [
        r#""\u0000""#,
        r#""a\u0000b""#,
        r#""\ud800""#,
        r#""\udfff""#,
        r#""\ud800x""#,
        r#""\ud800\n""#,
        r#""\udc00\ud800""#,
        r#""\ud800\ud800""#,
        r#""\ud83d \ude00""#,
    ] {
        for (whole, pointer) in
            [(json.to_owned(), ""), (format!("{{\"a\":{json}}}"), "/a"), (format!("[{json}]"), "/0")]
        {
            let reply = json_get(&whole, pointer);
            assert_eq!(reply.code, BAD_ARGUMENT, "{whole} {reply:?}");
        }
        // Around them nothing is lost, and they can be replaced.
        let whole = format!("{{\"a\":{json},\"b\":1}}");
        assert_eq!(got(&whole, "/b"), "1");
        assert_eq!(got(&whole, ""), whole);
        assert_eq!(changed(&whole, "/b", "2"), format!("{{\"a\":{json},\"b\":2}}"));
        assert_eq!(changed(&whole, "/a", "0"), "{\"a\":0,\"b\":1}");
    }
}

#[test]
fn a_member_on_the_way_that_stands_twice_is_refused() {
    for (json, pointer) in [
        (r#"{"a":1,"a":1}"#, "/a"),
        (r#"{"a":1,"\u0061":2}"#, "/a"),
        (r#"{"a":{"b":1},"a":{"b":1}}"#, "/a/b"),
        (r#"{"x":{"a":1,"b":2,"a":3}}"#, "/x/a"),
        (r#"[{"a":1,"a":2}]"#, "/0/a"),
    ] {
        let reply = json_get(json, pointer);
        assert_eq!(reply.code, BAD_ARGUMENT, "{json} {reply:?}");
        unchanged(json, pointer, "1", BAD_ARGUMENT);
    }
    // Beside the way it is the server's affair.
    let json = r#"{"x":1,"x":2,"a":{"y":1,"y":2}}"#;
    assert_eq!(got(json, "/a"), r#"{"y":1,"y":2}"#);
    assert_eq!(changed(json, "/a", "0"), r#"{"x":1,"x":2,"a":0}"#);
}

#[test]
fn changes_touch_nothing_else() {
    let json = "{ \"n\" : 12345678901234567890 , \"a\" : [ 1 , {\"b\": 2.50, \"c\":\"\\u8a31\\/\"} ] ,\t\"z\":444e44 }";
    for (pointer, old, new) in [
        ("/n", "12345678901234567890", "98765432109876543210"),
        ("/a/0", " 1 ,", " [] ,"),
        ("/a/1/b", "2.50", "null"),
        ("/a/1/c", "\"\\u8a31\\/\"", "{\"d\" : 1}"),
        ("/z", "444e44", "1e400"),
    ] {
        let value = new.trim_matches([' ', ',']);
        assert_eq!(changed(json, pointer, value), json.replacen(old, new, 1), "{pointer}");
    }
}

#[test]
fn members_and_elements_are_created() {
    for (json, pointer, value, wanted) in [
        ("{}", "/a", "1", r#"{"a":1}"#),
        ("{\"a\":1}", "/b", "2", r#"{"a":1,"b":2}"#),
        ("{\"a\":{}}", "/a/b", "2", r#"{"a":{"b":2}}"#),
        ("{\"a\":[{}]}", "/a/0/b", "2", r#"{"a":[{"b":2}]}"#),
        ("{}", "/", "1", r#"{"":1}"#),
        ("{}", "/~1~0", "1", r#"{"/~":1}"#),
        ("{}", "/-", "1", r#"{"-":1}"#),
        ("{}", "/0", "1", r#"{"0":1}"#),
        ("{}", "/許功蓋", "1", r#"{"許功蓋":1}"#),
        ("{}", "/a\"b\\c", "1", r#"{"a\"b\\c":1}"#),
        ("[]", "/-", "1", "[1]"),
        ("[1]", "/-", "2", "[1,2]"),
        ("[[]]", "/0/-", "2", "[[2]]"),
        ("{\"a\":[1,2]}", "/a/-", "{}", "{\"a\":[1,2,{}]}"),
    ] {
        assert_eq!(changed(json, pointer, value), wanted, "{json} {pointer}");
    }
    // A name with control characters is escaped like every string.
    assert_eq!(got(&changed("{}", "/a\n\u{1}", "1"), "/a\n\u{1}"), "1");
    // Blanks inside stay.
    assert_eq!(got(&changed("{ }", "/a", "1"), "/a"), "1");
    assert_eq!(got(&changed("[ \n ]", "/-", "1"), "/0"), "1");
}

#[test]
fn without_a_parent_nothing_is_changed() {
    for (json, pointer) in [
        ("{}", "/a/b"),
        ("{\"a\":1}", "/a/b"),
        ("{\"a\":\"{}\"}", "/a/b"),
        ("{\"a\":null}", "/a/b"),
        ("{\"a\":{}}", "/a/b/c"),
        ("[]", "/0"),
        ("[1]", "/1"),
        ("[1]", "/2"),
        ("[1]", "/-/a"),
        ("[1]", "/a"),
        ("[1]", "/01"),
        ("[1]", "/-1"),
        ("15", "/a"),
        ("\"{}\"", "/a"),
        ("null", "/-"),
    ] {
        unchanged(json, pointer, "1", NO_VALUE);
    }
}

#[test]
fn null_starts_an_empty_object() {
    let mut text = Text::empty();
    assert_eq!(text.set("/business_id", "15"), OK);
    assert_eq!(text.read(), r#"{"business_id":15}"#);
    assert_eq!(text.set_text("/out_task_num", "BR0943-187"), OK);
    assert_eq!(text.read(), r#"{"business_id":15,"out_task_num":"BR0943-187"}"#);

    for (pointer, value, code) in
        [("/a/b", "1", NO_VALUE), ("/a", "x", BAD_ARGUMENT), ("a", "1", BAD_ARGUMENT), ("/-/-", "1", NO_VALUE)]
    {
        let mut text = Text::empty();
        assert_eq!(text.set(pointer, value), code, "{pointer}");
        assert!(text.0.is_null(), "{pointer}");
    }
    let mut text = Text::empty();
    assert_eq!(text.set_text("", "all of it"), OK);
    assert_eq!(text.read(), "\"all of it\"");
}

#[test]
fn the_empty_pointer_replaces_the_whole() {
    let mut text = Text::of("[1, 2]");
    for value in ["15", "{ \"a\" : 1 }", "\"許功蓋\"", "null"] {
        assert_eq!(text.set("", value), OK);
        assert_eq!(text.read(), value);
    }
    assert_eq!(text.set_text("", "a \"text\""), OK);
    assert_eq!(text.read(), r#""a \"text\"""#);
}

#[test]
fn texts_of_others_are_refused() {
    let foreign = c(r#"{"a":1}"#);
    for pointer in ["", "/a", "/b"] {
        let mut text = foreign.as_ptr().cast_mut();
        let (pointer, value) = (c(pointer), c("2"));
        for setter in [arctos().json_set, arctos().json_set_text] {
            // SAFETY: texts that live through the call.
            assert_eq!(unsafe { setter(&mut text, pointer.as_ptr(), value.as_ptr()) }, BAD_ARGUMENT);
            assert_eq!(text.cast_const(), foreign.as_ptr());
            assert_eq!(foreign.as_c_str(), c(r#"{"a":1}"#).as_c_str());
        }
    }
    // An answer of the library is a text of the library.
    let mut answer = null_mut();
    let task = c(&task("N"));
    // SAFETY: texts that live through the calls; the answer is released by `Text`.
    assert_eq!(unsafe { (arctos().task_check)(task.as_ptr(), &mut answer) }, OK);
    let mut answer = Text(answer);
    assert_eq!(answer.set("/path", "\"/elsewhere\""), OK);
    assert_eq!(got(answer.read(), "/path"), "/elsewhere");
}

#[test]
fn a_text_that_its_owner_changed_is_read_as_it_is_now() {
    let text = Text::of(r#"{"number":12345678}"#);
    // SAFETY: a living text of the library, long enough for what is written.
    unsafe {
        text.0.add(10).write(b'7' as c_char);
        text.0.add(11).write(b'}' as c_char);
        text.0.add(12).write(0);
    }
    let mut text = text;
    assert_eq!(text.set("/a", "1"), OK);
    assert_eq!(text.read(), r#"{"number":7,"a":1}"#);

    // What is no UTF-8 any more is refused, and left as it is.
    let mut text = Text::of(r#"{"a":"x"}"#);
    // SAFETY: as above.
    unsafe { text.0.add(6).write(-1) };
    let before = text.0;
    assert_eq!(text.set("/a", "1"), BAD_ARGUMENT);
    assert_eq!(text.0, before);
    // SAFETY: as above.
    assert_eq!(unsafe { CStr::from_ptr(text.0) }, c"{\"a\":\"\xff\"}");
}

#[test]
fn texts_are_escaped() {
    for (plain, json) in [
        ("", r#""""#),
        ("plain", r#""plain""#),
        ("\"", r#""\"""#),
        ("\\", r#""\\""#),
        ("\\u0041", r#""\\u0041""#),
        ("\n\r\t", r#""\n\r\t""#),
        ("許功蓋", r#""許功蓋""#),
        ("😀", r#""😀""#),
        ("</script>", r#""</script>""#),
        ("15", r#""15""#),
        ("null", r#""null""#),
        ("{\"a\":1}", r#""{\"a\":1}""#),
    ] {
        let mut text = Text::empty();
        assert_eq!(text.set_text("/a", plain), OK);
        assert_eq!(text.read(), format!("{{\"a\":{json}}}"));
        assert_eq!(got(text.read(), "/a"), plain);
    }
    // Every character that one byte holds, and some of each length: as JSON's own rules read it back, it is the same.
    let mut characters: String = (1..=0x7f_u8).map(char::from).collect();
    characters.push_str("\u{80}\u{7ff}\u{800}\u{d7ff}\u{e000}\u{feff}\u{ffff}\u{10000}\u{10ffff}\u{2028}\u{2029}");
    let mut text = Text::of("[]");
    assert_eq!(text.set_text("/-", &characters), OK);
    assert!(!text.read().bytes().any(|byte| byte < b' '), "control characters are escaped");
    assert_eq!(serde_json::from_str::<Vec<String>>(text.read()).expect("JSON"), [&*characters]);
    assert_eq!(got(text.read(), "/0"), characters);
}

#[test]
fn a_hundred_thousand_levels_do_no_harm() {
    const LEVELS: usize = 100_000;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(LEVELS), close.repeat(LEVELS));
        let step = if open == "[" { "/0" } else { "/a" };
        assert!(got(&deep, "") == deep, "{open}");
        let inner = format!("{}1{}", open.repeat(LEVELS - 3), close.repeat(LEVELS - 3));
        assert!(got(&deep, &step.repeat(3)) == inner, "{open}");
        let mut text = Text::of(&deep);
        assert_eq!(text.set(&step.repeat(3), "2"), OK);
        assert_eq!(text.read(), format!("{}2{}", open.repeat(3), close.repeat(3)));
        assert_eq!(text.set(&step.repeat(3), &deep), OK);
        assert!(got(text.read(), &step.repeat(3)) == deep, "{open}");
        // Never closed.
        assert_eq!(json_get(&open.repeat(LEVELS), "").code, BAD_ARGUMENT);
        assert_eq!(json_get(&open.repeat(LEVELS), step).code, BAD_ARGUMENT);
        unchanged("{}", "/a", &open.repeat(LEVELS), BAD_ARGUMENT);
        // A pointer that goes a long way down, and one that is longer than the way.
        let deep = format!("{}1{}", open.repeat(1_000), close.repeat(1_000));
        assert_eq!(got(&deep, &step.repeat(1_000)), "1");
        assert_eq!(json_get(&deep, &step.repeat(LEVELS)).code, NO_VALUE);
    }
}

#[test]
fn ten_megabytes_go_in_and_out() {
    let long = "許功蓋 \"quoted\" \\ \n".repeat(500_000);
    assert!(long.len() > 10_000_000, "{}", long.len());
    let mut text = Text::empty();
    assert_eq!(text.set_text("/task_remark", &long), OK);
    assert_eq!(text.set("/business_id", "15"), OK);
    assert!(got(text.read(), "/task_remark") == long);
    assert_eq!(got(text.read(), "/business_id"), "15");
    assert_eq!(text.set("/task_remark", "null"), OK);
    assert_eq!(text.read(), r#"{"task_remark":null,"business_id":15}"#);

    let many = format!("[{}0]", "15, ".repeat(2_500_000));
    assert_eq!(got(&many, "/2500000"), "0");
    assert_eq!(json_get(&many, "/2500001").code, NO_VALUE);
}
