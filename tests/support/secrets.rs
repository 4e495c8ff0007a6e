//! What tests of secrets share: the spellings in which servers echo what they were sent, and an ear at the log.

use std::ffi::{CStr, c_char, c_void};
use std::sync::{Mutex, Once};

use serde_json::json;

use crate::api::{Reply, arctos};

/// The text as HTML, with these for the quotes.
pub fn html(text: &str, quote: &str, apostrophe: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', quote).replace('\'', apostrophe)
}

/// The text as a JSON string's contents, where these characters too are escaped by their numbers.
pub fn json_text(text: &str, escaped: &str) -> String {
    let quoted = json!(text).to_string();
    let mut out = String::new();
    for character in quoted[1..quoted.len() - 1].chars() {
        if escaped.contains(character) || (!character.is_ascii() && escaped.contains('é')) {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(character);
        }
    }
    out
}

/// The same with capital digits in the numbers.
fn capitals(json: &str) -> String {
    let mut parts = json.split("\\u");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "\\u" + &part[..4].to_uppercase() + &part[4..])
}

/// The spellings in which servers echo what they were sent.
pub fn spellings(secret: &str) -> Vec<(&'static str, String)> {
    vec![
        ("verbatim", secret.to_owned()),
        ("JSON", json_text(secret, "")),
        ("JSON with slashes escaped", json_text(secret, "").replace('/', "\\/")),
        ("JSON in ASCII", json_text(secret, "é")),
        ("JSON safe for HTML", json_text(secret, "<>&'")),
        ("JSON safe for HTML in capitals", capitals(&json_text(secret, "é<>&'"))),
        ("HTML", html(secret, "&quot;", "&#39;")),
        ("HTML with numbers", html(secret, "&#34;", "&#x27;")),
        ("HTML with names", html(secret, "&quot;", "&apos;")),
        ("HTML with named slashes", html(secret, "&quot;", "&#x27;").replace('/', "&#x2F;")),
    ]
}

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

unsafe extern "C" fn hear(_: *mut c_void, _: i32, line: *const c_char) {
    // SAFETY: the library hands over a text that is valid while the callback runs.
    let line = unsafe { CStr::from_ptr(line) }.to_string_lossy().into_owned();
    LINES.lock().expect("no thread panics while it holds the lock").push(line);
}

/// Hears every line of the log of this process from now on.
pub fn listen() {
    static ONCE: Once = Once::new();
    // SAFETY: the callback stays.
    ONCE.call_once(|| unsafe { (arctos().set_log)(Some(hear), std::ptr::null_mut(), 4) });
}

/// Checks that none of these parts stands in a reply, nor in any line of the log since the last check.
pub fn clean(reply: &Reply, parts: &[&str]) -> Result<(), String> {
    let lines = std::mem::take(&mut *LINES.lock().expect("no thread panics while it holds the lock"));
    for text in lines.iter().chain(&reply.text) {
        if let Some(part) = parts.iter().find(|part| text.contains(**part)) {
            return Err(format!("{part} stands in {text}"));
        }
    }
    Ok(())
}
