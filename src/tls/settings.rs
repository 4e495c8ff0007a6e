//! The keys of `tls` in a configuration, and the files that they name. Each file is read once, when a client is made.
#![forbid(unsafe_code)]

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use serde::Serialize;

use crate::failure::Problem;
use crate::json::Object;
use crate::keys::Keys;

const KEYS: [&str; 2] = ["roots", "ca_file"];
/// The keys with the name of their object.
pub(crate) const PLACES: [&str; 2] = ["tls.roots", "tls.ca_file"];

/// What is in force, for a log.
#[derive(Serialize)]
pub(crate) struct InForce {
    roots: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<String>,
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
    let roots = keys.roots();
    let ca_file = keys.string("ca_file").map(|path| path.to_string());
    match (roots, keys.get("ca_file")) {
        (Some("file"), None) => keys.problem("ca_file", "is missing, and required with roots \"file\""),
        (Some("system" | "bundled"), Some(_)) if ca_file.is_some() => {
            keys.problem("ca_file", "goes with roots \"file\" only")
        }
        _ => {}
    }
    let roots = roots.unwrap_or("system");
    // A file that is named is read even where the URL is http: it will be needed, or is a mistake.
    let needed = ca_file.is_some() || https;
    let mut config = None;
    if needed && problems.len() == before {
        match super::client_config(roots, ca_file.as_deref().map(Path::new)) {
            Ok(made) => config = Some(made),
            Err(problem) => {
                let field = if roots == "file" { "tls.ca_file" } else { "tls.roots" };
                let value = ca_file.as_deref().unwrap_or(roots).to_owned();
                problems.push(Problem::new(field, problem).value(Some(value)));
            }
        }
    }
    Settings { config, in_force: InForce { roots, ca_file } }
}

impl Keys<'_, '_> {
    /// `None` when they are wrong.
    fn roots(&mut self) -> Option<&'static str> {
        if self.get("roots").is_none() {
            return Some("system");
        }
        let text = self.string("roots")?;
        let known = ["system", "bundled", "file"].into_iter().find(|known| *known == text.as_str());
        if known.is_none() {
            self.problem_with("roots", "must be \"system\", \"bundled\" or \"file\"", Some(&text));
        }
        known
    }
}
