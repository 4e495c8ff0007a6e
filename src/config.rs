//! The configuration: its keys, their ranges and defaults. A key of a part that is not built is unknown here.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::address::{self, Base};
use crate::code::Code;
use crate::contract;
use crate::credential::{self, Credential, LogIn, Source};
use crate::failure::{Failure, Problem};
#[cfg(feature = "journal")]
use crate::journal;
use crate::json;
use crate::keys::Keys;
use crate::memory::{self, NoMemory};
use crate::proxy::{self, Proxy};
use crate::secret::Secret;
use crate::{path, tls};

/// No time of the configuration may be longer: an hour.
pub(crate) const LONGEST_MS: u64 = 3_600_000;
const MOST_BYTES: u64 = 1 << 30;
const LONGEST_USER_AGENT: usize = 256;
#[cfg(feature = "journal")]
const LONGEST_SERVER_ID: usize = 256;
/// A hundred years.
#[cfg(feature = "journal")]
const MOST_DAYS: u64 = 36_525;

const KEYS: [&str; 18 + cfg!(feature = "journal") as usize] = [
    "base_url",
    "allow_http",
    "token",
    "token_file",
    "login",
    "proxy",
    "timeout_ms",
    "connect_timeout_ms",
    "max_response_bytes",
    "tls",
    "strict",
    "user_agent",
    "retries",
    "retry_503",
    "server_dedupes",
    "connections",
    "idle_timeout_ms",
    "keep_bodies",
    #[cfg(feature = "journal")]
    "journal",
];
#[cfg(feature = "journal")]
const JOURNAL_KEYS: [&str; 3] = ["file", "server_id", "keep_days"];
const LOGIN_KEYS: [&str; 4] = ["path", "body", "token_pointer", "refresh_on"];

/// A client's configuration, checked.
pub(crate) struct Config {
    pub base: Base,
    pub credential: Credential,
    pub proxy: Option<Arc<Proxy>>,
    pub timeout: Duration,
    pub connect_timeout: Duration,
    pub max_response_bytes: usize,
    pub tls: Option<Arc<rustls::ClientConfig>>,
    pub strict: bool,
    pub user_agent: String,
    pub retries: u32,
    pub retry_503: bool,
    pub server_dedupes: bool,
    pub connections: usize,
    /// Zero: no connection is kept.
    pub idle_timeout: Duration,
    pub keep_bodies: bool,
    #[cfg(feature = "journal")]
    pub journal: Option<journal::Settings>,
    /// The configuration in force, for a log.
    pub in_force: String,
}

/// What the caller is shown: every key that is in force.
#[derive(Serialize)]
struct InForce<'a> {
    base_url: &'a str,
    allow_http: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_file: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<LogInInForce<'a>>,
    /// The one that calls go through, wherever it was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<&'a str>,
    timeout_ms: u64,
    connect_timeout_ms: u64,
    max_response_bytes: u64,
    tls: tls::settings::InForce,
    strict: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    retries: u64,
    retry_503: bool,
    server_dedupes: bool,
    connections: u64,
    idle_timeout_ms: u64,
    keep_bodies: bool,
    #[cfg(feature = "journal")]
    #[serde(skip_serializing_if = "Option::is_none")]
    journal: Option<&'a journal::Settings>,
}

#[derive(Serialize)]
struct LogInInForce<'a> {
    path: String,
    body: &'static str,
    token_pointer: &'a str,
    refresh_on: &'a [u16],
}

impl Config {
    /// Reads a configuration and the files that it names.
    ///
    /// # Errors
    /// [`Code::BadConfig`], with everything that is wrong.
    pub(crate) fn read(text: &str) -> Result<Config, Failure> {
        let wrong = |problems| Failure::problems(Code::BadConfig, "the configuration is refused", problems);
        let object = json::object(text).map_err(|problem| wrong(vec![Problem::new("configuration", problem)]))?;
        let mut problems = Vec::new();
        let deeper = [
            ("tls.", &tls::settings::KEYS[..]),
            ("login.", &LOGIN_KEYS),
            #[cfg(feature = "journal")]
            ("journal.", &JOURNAL_KEYS),
        ];
        let mut keys = Keys::new("", object, &KEYS, &deeper, &mut problems);
        let allow_http = keys.boolean("allow_http", false);
        let base = keys.base_url(allow_http);
        let mut token = keys.secret_token();
        let token_file = keys.token_file(&mut token);
        let login_members = keys.given_object("login");
        let proxy = keys.proxy(base.as_ref());
        let sources = ["token", "token_file", "login"].into_iter().filter(|key| keys.get(key).is_some());
        if let [_, others @ ..] = sources.collect::<Vec<_>>().as_slice() {
            for key in others {
                keys.problem(key, "is one too many: give one of token, token_file and login");
            }
        }
        let timeout_ms = keys.integer("timeout_ms", 15_000, 1..=LONGEST_MS);
        let connect_timeout_ms = keys.integer("connect_timeout_ms", 5_000, 1..=LONGEST_MS);
        let max_response_bytes = keys.integer("max_response_bytes", 1 << 20, 1..=MOST_BYTES);
        let tls_members = keys.object("tls");
        let strict = keys.boolean("strict", false);
        let user_agent = keys.user_agent();
        let retries = keys.integer("retries", 2, 0..=10);
        let retry_503 = keys.boolean("retry_503", false);
        let server_dedupes = keys.boolean("server_dedupes", false);
        let connections = keys.integer("connections", 8, 1..=1024);
        let idle_timeout_ms = keys.integer("idle_timeout_ms", 4_000, 0..=LONGEST_MS);
        let keep_bodies = keys.boolean("keep_bodies", false);
        #[cfg(feature = "journal")]
        let journal_members = keys.given_object("journal");

        let login =
            login_members.and_then(|members| log_in(Keys::new("login.", members, &LOGIN_KEYS, &[], &mut problems)));
        #[cfg(feature = "journal")]
        let journal = journal_members.and_then(|members| {
            journal(Keys::new("journal.", members, &JOURNAL_KEYS, &[], &mut problems), base.as_ref())
        });
        let https = base.as_ref().is_some_and(|base| base.https);
        let tls = tls::settings::read(tls_members, https, &mut problems);
        let Some(base) = base.filter(|_| problems.is_empty()) else {
            return Err(wrong(problems));
        };
        let in_force = InForce {
            base_url: &base.url,
            allow_http,
            token: token.as_ref().filter(|_| token_file.is_none()).map(|_| "***"),
            token_file: token_file.as_deref(),
            login: login.as_ref().map(|login| LogInInForce {
                // A password may stand in its query.
                path: match login.path.split_once('?') {
                    Some((path, _)) => format!("{path}?***"),
                    None => login.path.clone(),
                },
                body: "***",
                token_pointer: &login.token_pointer,
                refresh_on: &login.refresh_on,
            }),
            proxy: proxy.as_ref().map(|proxy| proxy.in_force.as_str()),
            timeout_ms,
            connect_timeout_ms,
            max_response_bytes,
            tls: tls.in_force,
            strict,
            user_agent: user_agent.as_deref(),
            retries,
            retry_503,
            server_dedupes,
            connections,
            idle_timeout_ms,
            keep_bodies,
            #[cfg(feature = "journal")]
            journal: journal.as_ref(),
        };
        let in_force = serde_json::to_string(&in_force).expect("the configuration can be written as JSON");
        let source = match (token_file, login) {
            (Some(path), _) => Source::File(path),
            (None, Some(login)) => Source::LogIn(login),
            (None, None) => Source::Caller,
        };
        let own = concat!("arctos/", env!("CARGO_PKG_VERSION"));
        Ok(Config {
            base,
            credential: Credential::new(source, token),
            proxy: proxy.map(Arc::new),
            timeout: Duration::from_millis(timeout_ms),
            connect_timeout: Duration::from_millis(connect_timeout_ms),
            max_response_bytes: usize::try_from(max_response_bytes).unwrap_or(usize::MAX),
            tls: tls.config,
            strict,
            user_agent: user_agent.map_or_else(|| own.to_owned(), |given| format!("{given} {own}")),
            retries: u32::try_from(retries).unwrap_or(u32::MAX),
            retry_503,
            server_dedupes,
            connections: usize::try_from(connections).unwrap_or(usize::MAX),
            idle_timeout: Duration::from_millis(idle_timeout_ms),
            keep_bodies,
            #[cfg(feature = "journal")]
            journal,
            in_force,
        })
    }
}

impl Keys<'_, '_> {
    fn secret_token(&mut self) -> Option<Secret> {
        let text = self.string("token")?;
        Secret::token(&text).map_err(|problem| self.problem("token", problem)).ok()
    }

    /// Reads the token that a file holds into the place of the client's.
    fn token_file(&mut self, token: &mut Option<Secret>) -> Option<PathBuf> {
        let text = self.string("token_file")?;
        let path = PathBuf::from(text.as_str());
        match credential::read(&path) {
            Ok(read) => *token = Some(read),
            // It may be the token itself, in the wrong place.
            Err(problem) => self.problem_with("token_file", problem, path.is_absolute().then_some(&*text)),
        }
        Some(path)
    }

    /// The proxy to this server, where there is one.
    fn proxy(&mut self, base: Option<&Base>) -> Option<Proxy> {
        let text = self.string("proxy")?;
        proxy::read(&text, base).unwrap_or_else(|problem| {
            self.problem("proxy", problem);
            None
        })
    }

    fn user_agent(&mut self) -> Option<String> {
        let text = self.string("user_agent")?;
        let fits = text.len() <= LONGEST_USER_AGENT
            && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
            && !text.trim().is_empty();
        if !fits {
            let wanted = "must be 1 to 256 visible ASCII characters or blanks, and not only blanks";
            self.problem("user_agent", wanted);
            return None;
        }
        Some(text.trim().to_owned())
    }

    fn base_url(&mut self, allow_http: bool) -> Option<Base> {
        if self.get("base_url").is_none() {
            self.problem("base_url", "is missing; it is https://host[:port][/prefix]");
            return None;
        }
        let text = self.string("base_url")?;
        match address::base(&text, allow_http) {
            Ok(base) => Some(base),
            Err(problem) => {
                // A password or a key may stand in it.
                let plain = !text.contains(['@', '?', '#']) && text.len() <= address::LONGEST;
                self.problem_with("base_url", problem, plain.then_some(text.as_str()));
                None
            }
        }
    }
}

/// Where the journal is; `None` when something is wrong with it.
#[cfg(feature = "journal")]
fn journal(mut keys: Keys, base: Option<&Base>) -> Option<journal::Settings> {
    if keys.get("file").is_none() {
        keys.problem("file", "is missing, and required in journal");
    }
    let file = keys.string("file").filter(|file| {
        let is_path = !file.is_empty() && !file.contains('\0');
        if !is_path {
            keys.problem("file", "must be the path of a file");
        }
        is_path
    });
    let given = keys.name("server_id", LONGEST_SERVER_ID);
    let keep_days = keys.integer("keep_days", 400, 1..=MOST_DAYS);
    let server_id = match given {
        Some(given) => given.to_string(),
        None => base?.url.clone(),
    };
    Some(journal::Settings { file: PathBuf::from(file?.as_str()), server_id, keep_days })
}

/// How to log in; `None` when something is wrong with it.
fn log_in(mut keys: Keys) -> Option<LogIn> {
    for key in ["path", "body", "token_pointer"] {
        if keys.get(key).is_none() {
            keys.problem(key, "is missing, and required in login");
        }
    }
    let path = keys.string("path").filter(|path| match path::check(path, contract::PATH) {
        Ok(()) => true,
        Err(problem) => {
            // A password may stand in its query.
            keys.problem_with("path", problem, (!path.contains('?')).then_some(path));
            false
        }
    });
    let body = keys.get("body").and_then(|body| match memory::join(&[body.get()]) {
        Ok(body) => Some(Secret::new(body)),
        Err(NoMemory) => {
            keys.problem("body", "is too long: there is no memory for it");
            None
        }
    });
    let token_pointer = keys.string("token_pointer").filter(|pointer| {
        let is_pointer = json::is_pointer(pointer);
        if !is_pointer {
            let wanted = "must be a JSON pointer (RFC 6901), such as /info/token";
            keys.problem("token_pointer", wanted);
        }
        is_pointer
    });
    let wanted = "statuses by which a server refuses a token and does nothing, as in [401,403]";
    let allowed = |status: &u64| u16::try_from(*status).is_ok_and(contract::is_refusal);
    let refresh_on = keys.integers("refresh_on", &[401, 403], wanted, allowed)?;
    Some(LogIn {
        path: path?.to_string(),
        body: body?,
        token_pointer: token_pointer?.to_string(),
        refresh_on: refresh_on.into_iter().filter_map(|status| u16::try_from(status).ok()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_wrong_is_listed_and_no_secret_shown() {
        let text = r#"{"base_url":"https://u:hunter2hunter2@h","token":"se\ncret-marker","tokn":"secret-marker","timeout_ms":0,
            "strict":"yes","tls":{"roots":"none","cafile":"x"},"strict":true,"connect_timeout_ms":1.5}"#;
        let failure = Config::read(text).err().unwrap();
        let document: serde_json::Value = serde_json::from_str(&failure.document()).unwrap();
        let fields: Vec<&str> =
            document["problems"].as_array().unwrap().iter().map(|problem| problem["field"].as_str().unwrap()).collect();
        assert_eq!(
            fields,
            [
                "tokn",
                "strict",
                "base_url",
                "token",
                "timeout_ms",
                "connect_timeout_ms",
                "strict",
                "tls.cafile",
                "tls.roots"
            ]
        );
        assert!(!failure.document().contains("marker") && !failure.document().contains("hunter2"));
    }
}
