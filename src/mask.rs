//! Takes out of a server's words what must not stand in a document, however the server spells it.
#![forbid(unsafe_code)]

use std::ops::Range;

use zeroize::Zeroizing;

use crate::memory;

/// Shorter texts are not masked: they would be found everywhere.
const SHORTEST: usize = 8;
const MASK: &str = "***";
/// How many comparisons of characters may be made for one text, some tenths of a second.
const MOST_WORK: usize = 200_000_000;
/// The most bytes that one byte of a secret takes, as in `\\\\u003c` or `&amp;#x3c;`.
const LONGEST_SPELLING: usize = 12;

/// `text` with `***` in the place of each secret of 8 bytes or more, be it as it is or escaped for JSON or HTML, once
/// or more often. Of a long text, the first `longest` bytes or somewhat less.
///
/// `None` when there is too much to look for in too much, or no memory: the server's words are not worth it then.
pub(crate) fn mask(text: &str, secrets: &[impl AsRef<str>], longest: usize) -> Option<String> {
    // A secret that is cut in two would not be found. Nothing of it is left when more than it can take, with every
    // character escaped twice, is dropped again behind the cut.
    let longest_secret = secrets.iter().map(|secret| secret.as_ref().len()).max().unwrap_or(0);
    let margin = LONGEST_SPELLING.saturating_mul(longest_secret);
    let cut = text.floor_char_boundary(longest.saturating_add(margin));
    let masked = mask_whole(&text[..cut], secrets)?;
    let kept = if cut < text.len() { longest.min(masked.len().saturating_sub(margin)) } else { longest };
    memory::copy(&masked[..masked.floor_char_boundary(kept)]).ok()
}

fn mask_whole(text: &str, secrets: &[impl AsRef<str>]) -> Option<Zeroizing<String>> {
    let mut all = Vec::new();
    for secret in secrets.iter().map(AsRef::as_ref).filter(|secret| secret.len() >= SHORTEST) {
        memory::push(&mut all, (secret, Plain::of(secret)?)).ok()?;
    }
    let plain = Plain::of(text)?;
    let characters = plain.characters.as_slice();
    let work = all.iter().map(|(_, wanted)| wanted.characters.len().min(characters.len())).sum::<usize>();
    if characters.len().saturating_mul(work) > MOST_WORK {
        return None;
    }
    let mut hidden: Vec<Range<usize>> = Vec::new();
    for (secret, wanted) in &all {
        let wanted = wanted.characters.as_slice();
        if wanted.len() < SHORTEST / 2 {
            // It is made of escapes: without them too little is left to be looked for.
            for (start, _) in text.match_indices(secret) {
                memory::push(&mut hidden, start..start + secret.len()).ok()?;
            }
            continue;
        }
        for (start, _) in characters.windows(wanted.len()).enumerate().filter(|(_, window)| *window == wanted) {
            let places = &plain.places[start..start + wanted.len()];
            memory::push(&mut hidden, places[0].start..places[wanted.len() - 1].end).ok()?;
        }
        // What stands before it may make an escape of its first character, where none was meant.
        for (at, sign) in text.match_indices(['\\', '&']) {
            let start = at + sign.len();
            // Of many backslashes the last one counts.
            if text[start..].starts_with('\\') {
                continue;
            }
            if let Some(length) = begins(&text[start..], wanted) {
                memory::push(&mut hidden, start..start + length).ok()?;
            }
        }
    }
    hidden.sort_by_key(|range| range.start);
    let mut parts = Vec::new();
    let mut done = 0;
    for range in hidden {
        // Secrets may overlap.
        if range.start >= done {
            memory::push(&mut parts, &text[done..range.start]).ok()?;
            memory::push(&mut parts, MASK).ok()?;
        }
        done = done.max(range.end);
    }
    memory::push(&mut parts, &text[done..]).ok()?;
    memory::join(&parts).ok()
}

/// How much of a text these characters take, if it begins with them.
fn begins(text: &str, wanted: &[char]) -> Option<usize> {
    let mut read = unescaped(text);
    let mut length = 0;
    for wanted in wanted {
        let (character, place) = read.next()?;
        if character != *wanted {
            return None;
        }
        length = place.end;
    }
    Some(length)
}

/// The characters of a text without their escapes, in memory that is wiped, each with its place. A text, and the same
/// text escaped any number of times, have the same characters here; backslashes are none, since how often they are
/// doubled is what differs.
struct Plain {
    characters: Zeroizing<Vec<char>>,
    places: Vec<Range<usize>>,
}

impl Plain {
    /// `None` when there is no memory for it.
    fn of(text: &str) -> Option<Plain> {
        let mut plain = Plain { characters: Zeroizing::new(Vec::new()), places: Vec::new() };
        for (character, place) in unescaped(text) {
            memory::push(&mut plain.characters, character).ok()?;
            memory::push(&mut plain.places, place).ok()?;
        }
        Some(plain)
    }
}

fn unescaped(text: &str) -> impl Iterator<Item = (char, Range<usize>)> {
    let mut at = 0;
    let next = move || {
        let start = at;
        let rest = &text[at..];
        let unescaped = rest.trim_start_matches('\\');
        let slashes = rest.len() - unescaped.len();
        at += slashes;
        let character = unescaped.chars().next()?;
        let (character, length) = match character {
            '&' => entity(unescaped).unwrap_or(('&', 1)),
            'u' if slashes > 0 => unit(unescaped).unwrap_or(('u', 1)),
            'n' if slashes > 0 => ('\n', 1),
            'r' if slashes > 0 => ('\r', 1),
            't' if slashes > 0 => ('\t', 1),
            'b' if slashes > 0 => ('\u{8}', 1),
            'f' if slashes > 0 => ('\u{c}', 1),
            other => (other, other.len_utf8()),
        };
        at += length;
        Some((character, start..at))
    };
    std::iter::from_fn(next).filter(|(character, _)| *character != '\\')
}

/// `u1234`, or the two halves of a surrogate pair: the character and the length.
fn unit(text: &str) -> Option<(char, usize)> {
    let half = |text: &str| {
        let digits = text.strip_prefix('u')?.get(..4)?;
        digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
    };
    const LENGTH: usize = 5;
    let first = half(text)?;
    if let Some(character) = char::from_u32(u32::from(first)) {
        return Some((character, LENGTH));
    }
    let after = text[LENGTH..].trim_start_matches('\\');
    let pair = [first, half(after)?];
    let character = char::decode_utf16(pair).next()?.ok()?;
    Some((character, text.len() - after.len() + LENGTH))
}

/// `&lt;`, `&#60;`, `&#x3C;`, `&amp;lt;` and so on: the character and the length.
fn entity(text: &str) -> Option<(char, usize)> {
    const LONGEST: usize = 12;
    let mut length = 1;
    loop {
        let rest = &text[length..];
        let end = rest.bytes().take(LONGEST).position(|byte| byte == b';')?;
        let character = match &rest[..end] {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            number => {
                let number = number.strip_prefix('#')?;
                let code = match number.strip_prefix(['x', 'X']) {
                    Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                    None => number.parse().ok()?,
                };
                char::from_u32(code)?
            }
        };
        length += end + 1;
        // An ampersand may begin another entity, where a text was escaped twice.
        if character != '&' {
            return Some((character, length));
        }
        match entity_after_ampersand(&text[length..]) {
            true => continue,
            false => return Some((character, length)),
        }
    }
}

fn entity_after_ampersand(rest: &str) -> bool {
    let end = rest.char_indices().nth(LONGEST_SPELLING).map_or(rest.len(), |(end, _)| end);
    entity(&Zeroizing::new(["&", &rest[..end]].concat())).is_some()
}

#[cfg(test)]
mod tests {
    fn mask(text: &str, secrets: &[&str], longest: usize) -> String {
        super::mask(text, secrets, longest).expect("little work")
    }

    #[test]
    fn secrets_are_masked_however_they_are_spelled() {
        let secret = "to\"ken/<&'許😀\n\\end";
        let escape = |text: &str| serde_json::to_string(text).unwrap().trim_matches('"').to_owned();
        let json = escape(secret);
        for text in [
            secret,
            &json,
            &escape(&json),
            "to\\\"ken\\/\\u003c\\u0026\\u0027\\u8a31\\uD83D\\ude00\\n\\\\end",
            "to\\u0022ken\\u002F\\u003C&'\\u8A31\\ud83d\\ude00\\u000a\\u005cend",
            "to&quot;ken/&lt;&amp;'許😀\n\\end",
            "to&#34;ken&#x2F;&lt;&amp;&#39;許😀\n\\end",
            "to&#x22;ken&#047;&#60;&#38;&apos;&#35377;&#x1F600;&#10;&#92;end",
            "to&amp;quot;ken/&amp;lt;&amp;amp;&#39;許😀\\n\\\\end",
        ] {
            assert_eq!(mask(&format!("a {text} b {text}"), &[secret], 9999), "a *** b ***", "{text}");
        }
    }

    #[test]
    fn a_secret_is_found_behind_what_makes_an_escape_of_its_beginning() {
        for secret in
            ["token-of-mine", "number-1", "rest\"of<it", "u0041-is-mine", "u1234567", "lt;of-mine", "#65;-mine"]
        {
            let json = secret.replace('"', "\\\"").replace('<', "\\u003c");
            for before in ["\\", "\\\\\\", "&", "\\&", "&\\"] {
                for spelled in [secret, &json] {
                    let masked = mask(&format!("BODY\n{before}{spelled}, and more"), &[secret], 9999);
                    assert!(masked.ends_with("***, and more"), "{before}{spelled}: {masked}");
                }
            }
        }
        let backslashes = "\\".repeat(1 << 20);
        assert_eq!(mask(&backslashes, &["token-of-mine"], 9999).len(), 9999);
    }

    #[test]
    fn all_else_is_kept() {
        for text in ["short is kept", "&amp; \\u12 \\ud800 & &; &nothing; &#xffffffff; \\", "", "許功蓋"] {
            assert_eq!(mask(text, &["short", "a-secret-of-mine", "\\\\\\\\\\\\\\\\"], 9999), text);
        }
        assert_eq!(mask("x abcdefghij y", &["abcdefgh", "cdefghij"], 9999), "x *** y");
        assert_eq!(mask("x abcdefgh", &["bcdefgh!", "abcdefgh"], 9999), "x ***");
    }

    #[test]
    fn a_cut_leaves_no_part_of_a_secret() {
        for secret in ["secret-secret", "許功蓋許功蓋"] {
            for start in 0..200 {
                let text = format!("{}{secret}{secret}{}", "x".repeat(start), "y".repeat(500));
                for longest in [0, 1, 100, 110] {
                    let masked = mask(&text, &[secret], longest);
                    assert!(masked.len() <= longest && masked.chars().all(|kept| "xy*".contains(kept)), "{masked}");
                }
            }
        }
        assert_eq!(mask("許功", &[], 5), "許");
    }

    #[test]
    fn what_would_take_too_long_is_not_shown() {
        let secret = "a".repeat(200_000) + "b";
        assert_eq!(super::mask(&"a".repeat(1 << 20), &[&secret], 4096), None);
        assert_eq!(mask("what the server said", &[&secret], 4096), "what the server said");
    }

    #[test]
    fn a_secret_that_is_all_escapes_masks_only_itself() {
        assert_eq!(mask("A &#x0041; \\\\\\\\a a", &["&#x0041;", "\\\\\\\\a"], 99), "A *** \\\\\\\\a a");
    }
}
