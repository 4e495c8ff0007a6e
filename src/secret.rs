//! Texts that nobody may see: wiped when they are dropped, without `Debug`, and shown to whoever sends them only.
#![forbid(unsafe_code)]

use std::sync::Arc;

use bytes::Bytes;
use ureq::http::HeaderValue;
use zeroize::Zeroizing;

/// What fits into one header line of ours with room to spare, and into those that servers accept.
const LONGEST_TOKEN: usize = 8 * 1024;

/// A secret; its copies are one text, which is wiped when the last of them is dropped.
#[derive(Clone)]
pub(crate) struct Secret(Arc<Hidden>);

struct Hidden {
    text: Zeroizing<String>,
    /// A token as a header carries it.
    bearer: Option<HeaderValue>,
}

impl Secret {
    pub(crate) fn new(text: Zeroizing<String>) -> Secret {
        Secret(Arc::new(Hidden { text, bearer: None }))
    }

    /// A token that a header can carry.
    pub(crate) fn token(text: &str) -> Result<Secret, &'static str> {
        if text.is_empty() {
            return Err("is empty");
        }
        if text.len() > LONGEST_TOKEN {
            return Err("is longer than 8192 bytes, more than servers accept in a header");
        }
        if text.bytes().any(|byte| !(b' '..=b'~').contains(&byte)) {
            return Err("holds a control character or one outside ASCII, which no header can carry");
        }
        if text.starts_with(' ') || text.ends_with(' ') {
            return Err("starts or ends with a blank, which no header carries");
        }
        if text.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("bearer ")) {
            return Err("starts with the word Bearer, which the library puts before the token itself");
        }
        let bearer = Zeroizing::new(["Bearer ", text].concat());
        // Without a copy of its own, so that the text is wiped with the header.
        let mut bearer = HeaderValue::from_maybe_shared(Bytes::from_owner(bearer)).map_err(|_| "fits no header")?;
        bearer.set_sensitive(true);
        Ok(Secret(Arc::new(Hidden { text: Zeroizing::new(text.to_owned()), bearer: Some(bearer) })))
    }

    /// The header that carries a token.
    pub(crate) fn bearer(&self) -> Option<&HeaderValue> {
        self.0.bearer.as_ref()
    }

    /// The text, for what carries it and for masking.
    pub(crate) fn expose(&self) -> &str {
        &self.0.text
    }

    /// Whether both are copies of one; two that only spell alike are not.
    pub(crate) fn is(&self, other: &Secret) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Compiles as long as it is wiped.
    const _: fn(&Secret) -> &Zeroizing<String> = |secret| &secret.0.text;
}
