//! The path of a request that makes no appointment: below the base URL, however it is spelled.
#![forbid(unsafe_code)]

use std::borrow::Cow;

const LONGEST: usize = 2 * 1024;

/// Whether a path may be asked for; the error says what is wrong. `reserved` is a path with a function of its own.
pub(crate) fn check(path: &str, reserved: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') || path.starts_with("//") {
        return Err("must start with one slash; it is put behind base_url");
    }
    if path.len() > LONGEST {
        return Err("is longer than 2048 bytes");
    }
    if path.contains('#') {
        return Err("must have no fragment (#)");
    }
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&byte);
    if !path.bytes().all(known) {
        return Err(
            "holds a blank, a control character, a backslash or another character that a URL cannot; write it with %",
        );
    }
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let path = decoded(path).ok_or("has a % that is not followed by two hexadecimal digits")?;
    decoded(query).ok_or("has a % that is not followed by two hexadecimal digits")?;
    if path.iter().any(u8::is_ascii_control) {
        return Err("holds a control character, written with %");
    }
    // Some servers take a backslash for a slash, and drop what stands behind a semicolon.
    let segments = path.split(|byte| b"/\\".contains(byte)).map(|segment| {
        let end = segment.iter().position(|byte| *byte == b';').unwrap_or(segment.len());
        segment[..end].trim_ascii()
    });
    let segments: Vec<&[u8]> = segments.filter(|segment| !segment.is_empty()).collect();
    if segments.iter().any(|segment| matches!(*segment, b"." | b"..")) {
        return Err("must have no segment . or .., in no spelling");
    }
    let other = reserved.as_bytes().split(|byte| *byte == b'/').filter(|segment| !segment.is_empty());
    let same = |(one, other): (&&[u8], &[u8])| one.eq_ignore_ascii_case(other);
    if segments.len() == other.clone().count() && segments.iter().zip(other).all(same) {
        return Err("is that of appointments, which arctos_task_add makes");
    }
    Ok(())
}

/// Without its percent signs, however often they were escaped themselves.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut text = Cow::Borrowed(text.as_bytes());
    let mut strict = true;
    loop {
        let mut plain = Vec::with_capacity(text.len());
        let mut rest = &*text;
        while let [byte, after @ ..] = rest {
            let escaped = (*byte == b'%').then(|| {
                std::str::from_utf8(after.get(..2)?).ok().filter(|two| two.bytes().all(|one| one.is_ascii_hexdigit()))
            });
            match escaped {
                Some(Some(two)) => {
                    plain.push(u8::from_str_radix(two, 16).ok()?);
                    rest = &after[2..];
                }
                Some(None) if strict => return None,
                _ => {
                    plain.push(*byte);
                    rest = after;
                }
            }
        }
        if plain.len() == text.len() {
            return Some(plain);
        }
        text = Cow::Owned(plain);
        // What a % was that was written with % itself is the server's business.
        strict = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_base_url() {
        let check = |path: &str| check(path, "/api/task/do_add");
        for path in [
            "/",
            "/a",
            "/api/task/do_list?from=1&to=..%2F..",
            "/api/room/%E8%A8%B1",
            "/a/b;c=1/...",
            "/api/task/do_add/x",
            "/100%25",
            "/x@y:z",
        ] {
            assert_eq!(check(path), Ok(()), "{path}");
        }
        for path in [
            "",
            "a",
            "//host/x",
            "https://host/x",
            "/a b",
            "/a\tb",
            "/a\\..\\b",
            "/a#b",
            "/\u{8a31}",
            "/..",
            "/a/../b",
            "/a/./b",
            "/a/..",
            "/%2e%2E/b",
            "/a/.%2e/b",
            "/a/%252e%252e/b",
            "/a%2f..%2fb",
            "/a/..;x/b",
            "/a%5c..%5cb",
            "/a/%2e%2e%20/b",
            "/a%00b",
            "/a%0d%0ab",
            "/a%",
            "/a%4",
            "/a%zz",
            "/a?b=%",
            "/a\"b",
            "/api/task/do_add",
            "/api/task/do_add/",
            "/api//task/do_add?x=1",
            "/api/task/do%5fadd",
            "/API/Task/Do_Add",
            "/api/task;v=1/do_add",
            "/api%2Ftask%2Fdo_add",
        ] {
            assert!(check(path).is_err(), "{path}");
        }
        assert!(check(&format!("/{}", "a".repeat(LONGEST))).is_err());
    }
}
