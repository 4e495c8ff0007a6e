//! The keys of `tls` in a configuration, and the files that they name. Each file is read once, when a client is made.
#![forbid(unsafe_code)]

use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, SupportedProtocolVersion};
use serde::Serialize;

use super::pin::Pin;
use super::{Roots, files};
use crate::failure::Problem;
use crate::json::{self, Object};
use crate::keys::Keys;

/// The keys, without the name of their object.
pub(crate) const KEYS: [&str; 6] = ["roots", "ca_file", "cert_file", "key_file", "min_version", "pins"];

/// What is in force, for a log.
#[derive(Serialize)]
pub(crate) struct InForce {
    roots: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cert_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_file: Option<String>,
    min_version: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pins: Vec<String>,
}

/// What the keys ask for.
pub(crate) struct Settings {
    /// `None` where the server is http, and where something is wrong.
    pub config: Option<Arc<ClientConfig>>,
    pub in_force: InForce,
}

/// Reads the members of `tls`. `https`: whether the server is.
pub(crate) fn read(members: Object, https: bool, problems: &mut Vec<Problem>) -> Settings {
    let before = problems.len();
    let mut keys = Keys::new("tls.", members, &KEYS, &[], problems);
    let roots = keys.one_of("roots", ["system", "bundled", "file"]);
    let ca_file = keys.path("ca_file");
    match (roots, keys.get("ca_file")) {
        (Some("file"), None) => keys.problem("ca_file", "is missing, and required with roots \"file\""),
        (Some("system" | "bundled"), Some(_)) if ca_file.is_some() => {
            keys.problem("ca_file", "goes with roots \"file\" only")
        }
        _ => {}
    }
    let (cert_file, key_file) = (keys.path("cert_file"), keys.path("key_file"));
    match (keys.get("cert_file"), keys.get("key_file")) {
        (Some(_), None) => keys.problem("key_file", "is missing, and required with cert_file"),
        (None, Some(_)) => keys.problem("cert_file", "is missing, and required with key_file"),
        _ => {}
    }
    let min_version = keys.one_of("min_version", ["1.2", "1.3"]).unwrap_or("1.2");
    let pins = keys.pins();

    let in_force = InForce {
        roots: roots.unwrap_or("system"),
        ca_file,
        cert_file,
        key_file,
        min_version,
        pins: pins.iter().map(Pin::to_string).collect(),
    };
    // A file that is named is read even where the URL is http: it will be needed, or is a mistake.
    let needed = https || in_force.ca_file.is_some() || in_force.cert_file.is_some();
    let config = if needed && problems.len() == before { configure(&in_force, pins, problems) } else { None };
    Settings { config, in_force }
}

/// Reads the files, and makes of all what connections need.
fn configure(wanted: &InForce, pins: Vec<Pin>, problems: &mut Vec<Problem>) -> Option<Arc<ClientConfig>> {
    let roots = match &wanted.ca_file {
        Some(file) => files::authorities(file).map(Roots::These).map_err(|problem| problems.push(problem)).ok(),
        None if wanted.roots == "bundled" => Some(Roots::bundled()),
        None => Some(Roots::System),
    };
    let identity = match wanted.cert_file.as_deref().zip(wanted.key_file.as_deref()) {
        Some((cert_file, key_file)) => {
            files::identity(cert_file, key_file).map(Some).map_err(|wrong| problems.extend(wrong)).ok()
        }
        None => Some(None),
    };
    let versions: &[&'static SupportedProtocolVersion] =
        if wanted.min_version == "1.3" { &[&TLS13] } else { &[&TLS13, &TLS12] };
    let config = super::client_config(roots?, pins, identity?, versions);
    let problem = |problem| Problem::new("tls.roots", problem).value(Some(wanted.roots.to_owned()));
    config.map_err(|error| problems.push(problem(error))).ok()
}

impl Keys<'_, '_> {
    /// The first of the words unless there is another; `None` when it is none of them.
    fn one_of<const N: usize>(&mut self, key: &str, words: [&'static str; N]) -> Option<&'static str> {
        if self.get(key).is_none() {
            return Some(words[0]);
        }
        let text = self.string(key)?;
        let known = words.into_iter().find(|known| *known == text.as_str());
        if known.is_none() {
            let quoted = words.map(|word| format!("{word:?}"));
            let (last, others) = quoted.split_last()?;
            self.problem_with(key, format!("must be {} or {last}", others.join(", ")), shown(&text));
        }
        known
    }

    fn path(&mut self, key: &str) -> Option<String> {
        let path = self.string(key)?;
        if shown(&path).is_none() {
            self.problem(key, "must be the path of a file, and not what stands in the file");
            return None;
        }
        Some(path.to_string())
    }

    /// The pins, none where there is no such key or something is wrong.
    fn pins(&mut self) -> Vec<Pin> {
        const WANTED: &str = "must be the base64 of a SHA-256, 44 characters long, that of the key of the server's \
                              certificate (SubjectPublicKeyInfo)";
        const SHOWN: usize = 64;
        let Some(value) = self.get("pins") else { return Vec::new() };
        let Some(elements) = json::elements(value) else {
            self.wrong_type("pins", value, "an array of strings");
            return Vec::new();
        };
        if elements.is_empty() {
            self.problem("pins", "is empty; it must hold one pin at least, or be left out");
        }
        let mut pins = Vec::new();
        for (index, element) in elements.into_iter().enumerate() {
            if json::kind(element) != "a string" {
                self.problem("pins", format!("[{index}] must be a string, not {}", json::kind(element)));
                continue;
            }
            let text = json::string(element).unwrap_or_default();
            match Pin::read(&text) {
                Some(pin) => pins.push(pin),
                None => {
                    let start: String = text.chars().take(SHOWN).collect();
                    self.problem_with("pins", format!("[{index}] {WANTED}"), shown(&start));
                }
            }
        }
        pins
    }
}

/// A value for a document, unless it is PEM: what stands in a file where its path belongs may be a key.
fn shown(value: &str) -> Option<&str> {
    Some(value).filter(|value| !value.contains("-----"))
}
