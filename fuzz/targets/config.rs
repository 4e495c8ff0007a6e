//! `arctos::Client::new`: what it refuses, what it accepts, and what it shows of it.
//!
//! The input: a configuration. To run beside authority.pem, the one file that it may name.

#![no_main]

use std::net::IpAddr;

use arctos::{Client, Code};
use arctos_fuzz::document::{self, document, problems, text_of};
use arctos_fuzz::json::{Value, read};
use libfuzzer_sys::fuzz_target;

const AUTHORITY: &str = "\"ca_file\":\"authority.pem\"";
const ANOTHER_TOKEN: &str = "\"another-token\"";

fuzz_target!(|text: &str| {
    if names_strange_file(text) {
        return;
    }
    match Client::new(text) {
        Ok(client) => accepted(text, &client),
        Err(failure) => {
            document(&failure);
            for problem in problems(&failure, Code::BadConfig) {
                assert!(!problem.problem.is_empty());
                let secret = problem.field == "token" || problem.problem.starts_with(UNKNOWN);
                assert!(!secret || problem.value.is_none(), "{} is shown", problem.field);
                let open = problem.value.as_deref().is_none_or(|url| !url.contains(['@', '?', '#']));
                assert!(open || problem.field != "base_url", "what may be a password in a URL is shown");
                let closed = !["proxy", "login.body"].contains(&problem.field.as_str());
                assert!(closed || problem.value.is_none(), "{} is shown", problem.field);
            }
            refused(text, &failure);
        }
    }
});

/// The start of what is said of an unknown key.
const UNKNOWN: &str = "is not a known key";

/// Whether the text may name another file than ours, in whatever spelling: no file of the machine is to be read.
fn names_strange_file(text: &str) -> bool {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("\\u00") {
        let escape = rest.get(start + 4..start + 6).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        plain.push_str(&rest[..start]);
        match escape {
            Some(byte) => {
                plain.push(char::from(byte));
                rest = &rest[start + 6..];
            }
            None => {
                plain.push_str("\\u00");
                rest = &rest[start + 4..];
            }
        }
    }
    plain.push_str(rest);
    plain.matches("_file").count() != text.matches(AUTHORITY).count()
}

fn accepted(text: &str, client: &Client) {
    let given = read(text).expect("what is accepted is JSON");
    let in_force = document::read(client.config());
    // What was given is in force.
    for (key, value) in given.members().expect("an object") {
        let key = key.as_deref().expect("a known key is a text");
        let now = match in_force.get(key) {
            Some(now) => now,
            // The environment may name none.
            None if key == "proxy" && value.text() == Some("env") => continue,
            None => panic!("{key} is not in force"),
        };
        match key {
            "proxy" => proxied(value.text().expect("a text"), now.text().expect("a text")),
            "login" => {
                assert_eq!(text_of(now, "body"), "***");
                assert_eq!(text_of(now, "path"), text_of(value, "path"));
                assert_eq!(text_of(now, "token_pointer"), text_of(value, "token_pointer"));
                if let Some(statuses) = value.get("refresh_on") {
                    assert!(each_same(now.get("refresh_on").expect("it is in force"), statuses, raw));
                }
            }
            "token" => assert_eq!(now.text(), Some("***")),
            "base_url" => assert_eq!(now.text(), value.text().map(|url| url.trim_end_matches('/'))),
            "user_agent" => assert_eq!(now.text(), value.text().map(str::trim)),
            "tls" => {
                for (key, value) in value.members().expect("an object") {
                    let key = key.as_deref().expect("a known key is a text");
                    let here = now.get(key).unwrap_or_else(|| panic!("tls.{key} is not in force"));
                    let same = if key == "pins" { each_same(here, value, pin) } else { same(here, value) };
                    assert!(same, "{key}: {}", now.raw);
                }
            }
            _ => assert!(same(now, value), "{key}: {}", now.raw),
        }
    }
    let token = given.get("token");
    assert_eq!(in_force.get("token").is_some(), token.is_some());
    safe(text_of(&given, "base_url"), given.get("allow_http").is_some_and(|value| value.raw == "true"));
    // What is in force is a configuration that puts the same in force, whatever the token.
    for token in [token.map(|token| token.raw), token.map(|_| ANOTHER_TOKEN)] {
        let mut again = client.config().to_owned();
        if let (Some(masked), Some(token)) = (in_force.get("token"), token) {
            again.replace_range(masked.place.clone(), token);
        }
        let again = Client::new(&again).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(again.config(), client.config());
    }
    if let Some(token) = token {
        assert!(client.set_token(token.text().expect("a text")).is_ok());
    }
    assert_eq!(client.set_token("").map_err(|failure| failure.code()), Err(Code::BadArgument));
}

fn same(one: &Value, other: &Value) -> bool {
    one.raw == other.raw || one.text().is_some() && one.text() == other.text()
}

/// Whether two arrays have the same elements by what is read of each.
fn each_same<'a>(one: &'a Value, other: &'a Value, read: fn(&'a Value) -> &'a str) -> bool {
    let all = |value: &'a Value| value.elements().expect("an array").iter().map(read).collect::<Vec<_>>();
    all(one) == all(other)
}

fn raw<'a>(value: &'a Value) -> &'a str {
    value.raw
}

/// A pin without what may stand before it.
fn pin<'a>(value: &'a Value) -> &'a str {
    let text = value.text().expect("a text");
    text.strip_prefix("sha256//").or(text.strip_prefix("sha256/")).unwrap_or(text)
}

/// A proxy that was accepted: its user is shown, and nothing in the place of its password.
fn proxied(given: &str, now: &str) {
    if given == "env" {
        return;
    }
    let rest = given.strip_prefix("http://").expect("the one scheme");
    let (user, rest) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
    let shown = match user {
        Some(user) => format!("http://{}:***@", user.split(':').next().unwrap_or_default()),
        None => "http://".to_owned(),
    };
    let place = now.strip_prefix(&shown).unwrap_or_else(|| panic!("{now}"));
    let host = |place: &str| place.rsplit_once(':').expect("a port").0.to_owned();
    assert_eq!(host(place), host(rest), "{now}");
}

/// A URL that was accepted: the token travels to its host alone, and there unreadable for others.
fn safe(url: &str, allow_http: bool) {
    let (scheme, rest) = url.split_once("://").expect("a scheme");
    let authority = rest.split('/').next().unwrap_or_default();
    assert!(!url.contains(['@', '?', '#', ' ']) && url.is_ascii(), "{url}");
    assert!(!authority.is_empty() && !authority.contains(['\\', '%']), "{url}");
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let loopback = host.eq_ignore_ascii_case("localhost")
        || match host.parse() {
            Ok(IpAddr::V4(address)) => address.octets()[0] == 127,
            Ok(IpAddr::V6(address)) => {
                let tail = address.to_ipv4_mapped().map(|address| address.octets()[0]);
                address.segments() == [0, 0, 0, 0, 0, 0, 0, 1] || tail == Some(127)
            }
            Err(_) => false,
        };
    match scheme.to_ascii_lowercase().as_str() {
        "https" => {}
        "http" => assert!(allow_http || loopback, "{url}"),
        _ => panic!("{url}"),
    }
}

/// Neither the token nor the value of an unknown key has any influence on what a refusal says of all else.
fn refused(text: &str, failure: &arctos::Failure) {
    let Ok(given) = read(text) else { return };
    let before = problems(failure, Code::BadConfig);
    // A key with a dot and one in an object may have the same name there: both must be unknown.
    let unknown = |field: &str| {
        let mut told = before.iter().filter(|problem| problem.field == field).peekable();
        told.peek().is_some() && told.all(|problem| problem.problem.starts_with(UNKNOWN))
    };
    let mut places = Vec::new();
    for (key, value) in given.members().unwrap_or_default() {
        match key.as_deref() {
            Some("token") => places.push((value.place.clone(), ANOTHER_TOKEN)),
            Some(key) if unknown(key) => places.push((value.place.clone(), "[]")),
            _ => {}
        }
    }
    // Of two the first is read.
    for (key, value) in given.get("tls").and_then(Value::members).unwrap_or_default() {
        if key.as_deref().is_some_and(|key| unknown(&format!("tls.{key}"))) {
            places.push((value.place.clone(), "{}"));
        }
    }
    places.sort_by_key(|(place, _)| std::cmp::Reverse(place.start));
    let mut varied = text.to_owned();
    for (place, new) in places {
        varied.replace_range(place, new);
    }
    let Err(other) = Client::new(&varied) else {
        return assert!(before.iter().all(|problem| problem.field == "token"), "{varied}");
    };
    let after = problems(&other, Code::BadConfig);
    let told = |problems: &[document::Problem]| -> Vec<document::Problem> {
        problems.iter().filter(|problem| problem.field != "token").cloned().collect()
    };
    assert_eq!(told(&before), told(&after), "{varied}");
    let token_is_told = |problems: &[document::Problem]| problems.iter().any(|problem| problem.field == "token");
    if !token_is_told(&before) && !token_is_told(&after) {
        assert_eq!(document(failure), document(&other), "{varied}");
    }
}
