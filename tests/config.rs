//! The configuration: its keys with their defaults and ranges, and that everything wrong with one is said at once and
//! without its secrets.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use arctos_tests::api::*;
use arctos_tests::expected::{BAD_RESPONSE_UNKNOWN, MADE, NOT_CREATED_STATUS, TLS_NOT_CREATED};
use arctos_tests::http::{Framing, answer, success_body};
use arctos_tests::server::{Script, Server};
use arctos_tests::stage::{Stage, Table, config, with};
use arctos_tests::tls::{Authority, Identity, Version};
use arctos_tests::tools::both;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The SHA-256 of "abc".
const PIN: &str = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
/// Loopback, so that the configuration needs nothing of the machine it is read on.
const BASE: &str = "http://127.0.0.1:1";

/// A configuration with one key more.
fn one(key: &str, value: Value) -> String {
    with(json!({ "base_url": BASE }), json!({ key: value })).to_string()
}

/// A configuration whose one further key is this text.
fn raw(key: &str, value: &str) -> String {
    format!("{{\"base_url\":\"{BASE}\",\"{key}\":{value}}}")
}

/// The configuration in force, for one that must be accepted.
fn in_force(config: &str) -> Result<Value, String> {
    let (_client, reply) = client_new(config);
    if reply.code == OK { Ok(reply.json()) } else { Err(format!("{config:.2000}: {reply:?}")) }
}

/// A configuration that must be refused for these fields and for no other.
fn refuses(table: &mut Table, config: &str, fields: &[&str]) -> Option<Value> {
    let (_, reply) = client_new(config);
    let result = if reply.code != BAD_CONFIG {
        Err(format!("{config:.2000}: {reply:?}"))
    } else {
        let mut found = reply.problem_fields();
        found.sort();
        let mut fields = fields.to_vec();
        fields.sort_unstable();
        if found == fields { Ok(reply.json()) } else { Err(format!("{config:.2000}: {found:?} instead of {fields:?}")) }
    };
    table.take(result)
}

fn takes(table: &mut Table, key: &str, value: Value) {
    let result = in_force(&one(key, value.clone()))
        .and_then(|in_force| if in_force[key] == value { Ok(()) } else { Err(format!("{key} {value}: {in_force}")) });
    table.take(result);
}

#[test]
fn the_defaults_are_in_force() {
    let (_client, reply) = client_new(&format!("{{\"base_url\":\"{BASE}\"}}"));
    assert_eq!(reply.code, OK);
    assert_eq!(
        reply.text(),
        r#"{"base_url":"http://127.0.0.1:1","allow_http":false,"timeout_ms":15000,"connect_timeout_ms":5000,"max_response_bytes":1048576,"tls":{"roots":"system","min_version":"1.2"},"strict":false,"retries":2,"retry_503":false,"server_dedupes":false,"connections":8,"idle_timeout_ms":4000,"keep_bodies":false}"#
    );
}

#[test]
fn what_is_given_is_in_force_and_the_token_is_masked() {
    let authority = Authority::new();
    let ca_file = json!(authority.file());
    let files = authority.client(None);
    let (cert_file, key_file) = (json!(files.cert_file()), json!(files.key_file()));
    let given = format!(
        "{{ \"keep_bodies\": true, \"user_agent\": \"branch-terminal/4.2\", \"strict\": true, \"tls\": {{ \"pins\": [\"{PIN}\"], \"min_version\": \"1.3\", \"key_file\": {key_file}, \
         \"cert_file\": {cert_file}, \"ca_file\": {ca_file}, \"roots\": \"file\" }}, \"max_response_bytes\": 4096, \"connect_timeout_ms\": 700, \"timeout_ms\": 800, \
         \"idle_timeout_ms\": 0, \"connections\": 3, \"server_dedupes\": true, \"retry_503\": true, \"retries\": 0, \
         \"token\": \"5f1e0c-token\", \"allow_http\": true, \"base_url\": \"https://arctos.bank.example:8443/branch/\" }}"
    );
    let (_client, reply) = client_new(&given);
    assert_eq!(reply.code, OK, "{reply:?}");
    let expected = format!(
        "{{\"base_url\":\"https://arctos.bank.example:8443/branch\",\"allow_http\":true,\"token\":\"***\",\"timeout_ms\":800,\
         \"connect_timeout_ms\":700,\"max_response_bytes\":4096,\"tls\":{{\"roots\":\"file\",\"ca_file\":{ca_file},\
         \"cert_file\":{cert_file},\"key_file\":{key_file},\"min_version\":\"1.3\",\"pins\":[\"{PIN}\"]}},\
         \"strict\":true,\"user_agent\":\"branch-terminal/4.2\",\"retries\":0,\"retry_503\":true,\"server_dedupes\":true,\
         \"connections\":3,\"idle_timeout_ms\":0,\"keep_bodies\":true}}"
    );
    assert_eq!(reply.text(), expected);
    // It is a configuration itself.
    let (_client, again) = client_new(reply.text());
    assert_eq!((again.code, again.text()), (OK, &*expected));
}

#[test]
fn ranges_of_integers() {
    let mut table = Table::new();
    for (key, least, most) in [
        ("timeout_ms", 1, 3_600_000),
        ("connect_timeout_ms", 1, 3_600_000),
        ("max_response_bytes", 1, 1_073_741_824_i64),
        ("retries", 0, 10),
        ("connections", 1, 1_024),
        ("idle_timeout_ms", 0, 3_600_000),
    ] {
        for good in [least, least + 1, 2, most - 1, most] {
            takes(&mut table, key, json!(good));
        }
        let (below, beyond) = ((least - 1).to_string(), (most + 1).to_string());
        for bad in [
            &*below,
            "-2",
            "1.5",
            "0.5",
            &*beyond,
            "4294967296",
            "4294967297",
            "18446744073709551615",
            "18446744073709551617",
            "99999999999999999999999999",
            "-99999999999999999999999999",
            "1e9",
            "1e400",
        ] {
            let document = refuses(&mut table, &raw(key, bad), &[key]);
            let Some(document) = document else { continue };
            let problem = document["problems"][0]["problem"].as_str().expect("a problem").to_owned();
            assert!(problem.contains(&format!(" {least} to {most}")), "the range is said: {problem}");
            assert_eq!(document["problems"][0]["value"], bad, "{document}");
        }
        for wrong in ["null", "true", "\"15000\"", "\"\"", "[15000]", "{}"] {
            refuses(&mut table, &raw(key, wrong), &[key]);
        }
    }
    table.finish();
}

#[test]
fn booleans() {
    let mut table = Table::new();
    for key in ["allow_http", "strict", "keep_bodies", "retry_503", "server_dedupes"] {
        for good in [true, false] {
            takes(&mut table, key, json!(good));
        }
        for wrong in ["null", "0", "1", "\"true\"", "\"\"", "[]", "[true]", "{}"] {
            let document = refuses(&mut table, &raw(key, wrong), &[key]);
            let problem =
                document.map(|document| document["problems"][0]["problem"].as_str().expect("a problem").to_owned());
            assert!(problem.is_none_or(|problem| problem.contains("true or false")), "{key} {wrong}");
        }
    }
    table.finish();
}

#[test]
fn wrong_types_of_strings_and_objects() {
    let mut table = Table::new();
    for key in ["token", "user_agent"] {
        for wrong in ["null", "true", "15", "[]", "[\"x\"]", "{}", "\"\\ud800\""] {
            refuses(&mut table, &raw(key, wrong), &[key]);
        }
    }
    for wrong in ["null", "true", "15", "[]", "[\"x\"]", "{}", "\"\\ud800\""] {
        refuses(&mut table, &format!("{{\"base_url\":{wrong}}}"), &["base_url"]);
    }
    for wrong in ["null", "true", "15", "\"system\"", "[]", "[{}]"] {
        refuses(&mut table, &raw("tls", wrong), &["tls"]);
    }
    for wrong in ["null", "true", "15", "[]", "{}", "\"\\ud800\""] {
        refuses(&mut table, &raw("tls", &format!("{{\"roots\":{wrong}}}")), &["tls.roots"]);
        refuses(&mut table, &raw("tls", &format!("{{\"roots\":\"file\",\"ca_file\":{wrong}}}")), &["tls.ca_file"]);
    }
    table.finish();
}

#[test]
fn what_is_no_json_object_is_refused() {
    let good = format!("{{\"base_url\":\"{BASE}\"}}");
    let deep = "[".repeat(100_000);
    let mut table = Table::new();
    for config in [
        "",
        " ",
        "[]",
        "3",
        "null",
        "true",
        "\"text\"",
        "{",
        "}",
        "{]",
        "{,}",
        "{\"base_url\"}",
        "{'base_url':1}",
        "\u{feff}{}",
        &*format!("\u{feff}{good}"),
        &*format!("{good} x"),
        &*format!("{good}{good}"),
        &good[..good.len() - 1],
        &*format!("[{good}]"),
        &*deep,
        &*format!("{{\"base_url\":{deep}"),
    ] {
        refuses(&mut table, config, &["configuration"]);
    }
    refuses(&mut table, "{}", &["base_url"]);
    let deep = format!("{deep}{}", "]".repeat(100_000));
    refuses(&mut table, &deep, &["configuration"]);
    refuses(&mut table, &format!("{{\"base_url\":{deep}}}"), &["base_url"]);
    for key in ["token", "timeout_ms", "tls", "strict", "unknown"] {
        refuses(&mut table, &raw(key, &deep), &[key]);
    }
    table.finish();
    for around in ["\n{}\t", "  {}\r\n"] {
        assert!(in_force(&around.replace("{}", &good)).is_ok());
    }
}

#[test]
fn unknown_keys_are_refused_and_the_closest_known_one_is_named() {
    let mut table = Table::new();
    for (key, near) in [
        ("baseurl", "base_url"),
        ("base_uri", "base_url"),
        ("baseUrl", "base_url"),
        ("BASE_URL", "base_url"),
        ("tokn", "token"),
        ("Token", "token"),
        ("timeout", "timeout_ms"),
        ("timeoutMs", "timeout_ms"),
        ("time_out_ms", "timeout_ms"),
        ("connect_timeout", "connect_timeout_ms"),
        ("conect_timeout_ms", "connect_timeout_ms"),
        ("max_response_byte", "max_response_bytes"),
        ("maxResponseBytes", "max_response_bytes"),
        ("allowhttp", "allow_http"),
        ("allow_https", "allow_http"),
        ("stric", "strict"),
        ("useragent", "user_agent"),
        ("User-Agent", "user_agent"),
        ("keepbodies", "keep_bodies"),
        ("retrys", "retries"),
        ("Retries", "retries"),
        ("retry503", "retry_503"),
        ("retry_on_503", "retry_503"),
        ("server_dedupe", "server_dedupes"),
        ("serverDedupes", "server_dedupes"),
        ("connection", "connections"),
        ("conections", "connections"),
        ("idle_timeout", "idle_timeout_ms"),
        ("idleTimeoutMs", "idle_timeout_ms"),
        ("TLS", "tls"),
    ] {
        let Some(document) = refuses(&mut table, &one(key, json!("5f1e0c secret")), &[key]) else { continue };
        let problem = document["problems"][0]["problem"].as_str().expect("a problem");
        let found =
            problem.contains(&format!("did you mean {near}")).then_some(()).ok_or_else(|| format!("{key}: {problem}"));
        table.take(found);
        assert!(!document.to_string().contains("5f1e0c"), "{document}");
    }
    for (key, near) in [
        ("cafile", "tls.ca_file"),
        ("ca_files", "tls.ca_file"),
        ("root", "tls.roots"),
        ("Roots", "tls.roots"),
        ("certfile", "tls.cert_file"),
        ("keyfile", "tls.key_file"),
        ("minVersion", "tls.min_version"),
        ("pin", "tls.pins"),
    ] {
        let config = one("tls", json!({ key: "5f1e0c secret" }));
        let Some(document) = refuses(&mut table, &config, &[&format!("tls.{key}")]) else { continue };
        let problem = document["problems"][0]["problem"].as_str().expect("a problem");
        let found =
            problem.contains(&format!("did you mean {near}")).then_some(()).ok_or_else(|| format!("{key}: {problem}"));
        table.take(found);
        assert!(!document.to_string().contains("5f1e0c"), "{document}");
    }
    for key in ["", " ", "ssl", "許功蓋", "x", "verify", "insecure", "\u{1}"] {
        refuses(&mut table, &one(key, json!(false)), &[key]);
    }
    for key in ["verify", "insecure", "skip_verification", "danger_accept_invalid_certs"] {
        refuses(&mut table, &one("tls", json!({ key: true })), &[&format!("tls.{key}")]);
    }
    table.finish();
}

#[test]
fn a_key_that_stands_twice_is_refused() {
    let mut table = Table::new();
    for (key, value) in [
        ("base_url", json!(BASE)),
        ("allow_http", json!(false)),
        ("token", json!("5f1e0c-token")),
        ("timeout_ms", json!(1)),
        ("connect_timeout_ms", json!(1)),
        ("max_response_bytes", json!(1)),
        ("tls", json!({})),
        ("strict", json!(false)),
        ("user_agent", json!("x")),
        ("retries", json!(0)),
        ("retry_503", json!(false)),
        ("server_dedupes", json!(false)),
        ("connections", json!(1)),
        ("idle_timeout_ms", json!(0)),
        ("keep_bodies", json!(false)),
    ] {
        let first = if key == "base_url" { String::new() } else { format!("\"base_url\":\"{BASE}\",") };
        let config = format!("{{{first}\"{key}\":{value},\"{key}\":{value}}}");
        let document = refuses(&mut table, &config, &[key]);
        assert!(document.is_none_or(|document| !document.to_string().contains("5f1e0c")), "{key}");
    }
    refuses(&mut table, &format!("{{\"base_url\":\"{BASE}\",\"strict\":false,\"\\u0073trict\":true}}"), &["strict"]);
    refuses(&mut table, &raw("tls", r#"{"roots":"bundled","roots":"bundled"}"#), &["tls.roots"]);
    table.finish();
}

#[test]
fn all_problems_are_listed_at_once() {
    let mut table = Table::new();
    let everything = r#"{"base_url":"ftp://h","allow_http":1,"token":"","timeout_ms":0,"connect_timeout_ms":"1","max_response_bytes":null,
        "tls":{"roots":"none","ca_file":5,"cert_file":6,"min_version":"1.1","pins":[]},"strict":"no","user_agent":"","keep_bodies":0,
        "retries":11,"retry_503":503,"server_dedupes":"yes","connections":0,"idle_timeout_ms":-1,"journal":1}"#;
    let fields = [
        "base_url",
        "allow_http",
        "token",
        "timeout_ms",
        "connect_timeout_ms",
        "max_response_bytes",
        "tls.roots",
        "tls.ca_file",
        "tls.cert_file",
        "tls.key_file",
        "tls.min_version",
        "tls.pins",
        "strict",
        "user_agent",
        "keep_bodies",
        "retries",
        "retry_503",
        "server_dedupes",
        "connections",
        "idle_timeout_ms",
        "journal",
    ];
    let document = refuses(&mut table, everything, &fields);
    table.finish();
    let document = document.expect("refused");
    let message = document["message"].as_str().expect("a message");
    assert!(message.contains("base_url") || message.contains("journal"), "{message}");
    assert!(message.len() < 2000, "{message}");
    assert_eq!(
        (document.get("outcome"), document.get("attempts"), document.get("call_id")),
        (None, None, None),
        "{document}"
    );
    for problem in document["problems"].as_array().expect("problems") {
        assert!(problem["problem"].as_str().is_some_and(|problem| !problem.is_empty()), "{document}");
    }
}

#[test]
fn a_file_that_cannot_be_used_is_listed_with_all_other_problems() {
    let mut table = Table::new();
    let tls = json!({ "roots": "file", "ca_file": "/nowhere/ca.pem" });
    let config = with(
        json!({ "base_url": "https://arctos.bank.example", "timeout_ms": 0, "retries": 11 }),
        json!({ "tls": tls }),
    );
    refuses(&mut table, &config.to_string(), &["timeout_ms", "retries", "tls.ca_file"]);
    table.finish();
}

#[test]
fn secrets_stand_in_no_document() {
    const SECRET: &str = "5f1e0c";
    let token = format!("{SECRET}-token");
    for config in [
        json!({ "base_url": BASE, "token": token }),
        json!({ "base_url": BASE, "token": format!("{token}\n") }),
        json!({ "base_url": BASE, "token": format!("Bearer {token}") }),
        json!({ "base_url": BASE, "token": [token] }),
        json!({ "base_url": BASE, "token": { "value": token } }),
        json!({ "base_url": BASE, "tokens": token }),
        json!({ "base_url": BASE, "token": token, "timeout_ms": 0 }),
        json!({ "base_url": BASE, "password": token, "tls": { "key": token } }),
        json!({ "base_url": format!("https://user:{SECRET}@arctos.bank.example") }),
        json!({ "base_url": format!("https://{SECRET}@arctos.bank.example") }),
        json!({ "base_url": format!("https://arctos.bank.example?key={SECRET}") }),
        json!({ "base_url": format!("https://arctos.bank.example/#{SECRET}") }),
        json!({ "base_url": format!("user:{SECRET}@arctos.bank.example") }),
        json!({ "base_url": format!("https://user:許{SECRET}@arctos.bank.example") }),
        json!({ "base_url": format!("https://user:{SECRET}@arctos.bank.example/{}", "x".repeat(10_000)) }),
    ] {
        let (_client, reply) = client_new(&config.to_string());
        assert!(reply.code == OK || reply.code == BAD_CONFIG, "{config} {reply:?}");
        assert!(!reply.text().contains(SECRET), "{config} {reply:?}");
    }
    for torn in [
        format!("{{\"token\":\"{token}\",}}"),
        format!("{{\"token\":\"{token}"),
        format!("{{\"token\":{token}}}"),
        token.clone(),
    ] {
        let (_, reply) = client_new(&torn);
        assert_eq!(reply.code, BAD_CONFIG);
        assert!(!reply.text().contains(SECRET), "{torn} {reply:?}");
    }
}

#[test]
fn base_urls_that_are_accepted() {
    let authority = Authority::new();
    let tls = json!({ "roots": "file", "ca_file": authority.file() });
    let mut table = Table::new();
    for (given, shown) in [
        ("https://arctos.bank.example", "https://arctos.bank.example"),
        ("https://arctos.bank.example/", "https://arctos.bank.example"),
        ("https://arctos.bank.example:1", "https://arctos.bank.example:1"),
        ("https://arctos.bank.example:8443", "https://arctos.bank.example:8443"),
        ("https://arctos.bank.example:65535/", "https://arctos.bank.example:65535"),
        ("https://arctos.bank.example/branch/943", "https://arctos.bank.example/branch/943"),
        ("https://arctos.bank.example:8443/branch/943/", "https://arctos.bank.example:8443/branch/943"),
        ("https://arctos.bank.example/%E8%A8%B1", "https://arctos.bank.example/%E8%A8%B1"),
        ("https://arctos.bank.example/a-b_c.d~e", "https://arctos.bank.example/a-b_c.d~e"),
        ("https://arctos", "https://arctos"),
        ("https://a-1.b2.example", "https://a-1.b2.example"),
        ("https://xn--4gq48lf9j.example", "https://xn--4gq48lf9j.example"),
        ("https://10.1.2.3", "https://10.1.2.3"),
        ("https://10.1.2.3:8443/x", "https://10.1.2.3:8443/x"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]"),
        ("https://[2001:db8::1]:8443/x/", "https://[2001:db8::1]:8443/x"),
        ("http://127.0.0.1", "http://127.0.0.1"),
        ("http://127.0.0.1:8080/x", "http://127.0.0.1:8080/x"),
        ("http://127.255.3.4", "http://127.255.3.4"),
        ("http://[::1]", "http://[::1]"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
        ("http://localhost", "http://localhost"),
        ("http://localhost:8080/x/", "http://localhost:8080/x"),
        ("http://LOCALHOST:8080", "http://LOCALHOST:8080"),
    ] {
        let config = json!({ "base_url": given, "tls": tls });
        let result = in_force(&config.to_string()).and_then(|in_force| {
            if in_force["base_url"] == shown { Ok(()) } else { Err(format!("{given}: {in_force}")) }
        });
        table.take(result);
    }
    for host in ["arctos.bank.example", "10.1.2.3", "[2001:db8::1]:8080"] {
        let config = json!({ "base_url": format!("http://{host}/x"), "allow_http": true });
        table.take(in_force(&config.to_string()));
    }
    table.finish();
}

#[test]
fn base_urls_that_are_refused() {
    let mut table = Table::new();
    for base_url in [
        "",
        " ",
        "/",
        "arctos.bank.example",
        "arctos.bank.example:443",
        "//arctos.bank.example",
        "https",
        "https:",
        "https:/arctos.bank.example",
        "https://",
        "https:///",
        "https:///branch",
        "https://:443",
        "ftp://arctos.bank.example",
        "ws://127.0.0.1",
        "httpss://arctos.bank.example",
        "file:///etc/passwd",
        " https://arctos.bank.example",
        "https://arctos.bank.example ",
        "https://arctos.bank.example/a b",
        "https://arctos.bank.example/a\r\nX: y",
        "https://arctos.bank.example\n",
        "https://arctos.bank.example/\u{0}",
        "https://arctos.bank.example/\u{7f}",
        "https://arctos bank.example",
        "https://arctos.bank.example:0",
        "https://arctos.bank.example:65536",
        "https://arctos.bank.example:99999",
        "https://arctos.bank.example:-1",
        "https://arctos.bank.example:+443",
        "https://arctos.bank.example:https",
        "https://arctos.bank.example:443x",
        "https://arctos.bank.example:443:443",
        "https://user@arctos.bank.example",
        "https://user:password@arctos.bank.example",
        "https://@arctos.bank.example",
        "https://arctos.bank.example?",
        "https://arctos.bank.example?a=b",
        "https://arctos.bank.example/x?a=b",
        "https://arctos.bank.example#",
        "https://arctos.bank.example/x#y",
        "https://arctos.bänk.example",
        "https://許功蓋.example",
        "https://arctos.bank.example/許",
        "https://[2001:db8::1",
        "https://2001:db8::1",
        "https://[]",
        "https://[::1]x",
        "https://[arctos.bank.example]",
        "https://arctos..example",
        "https://-arctos.example",
        "https://arctos!bank.example",
        "https://arctos.bank.example\\x",
    ] {
        refuses(&mut table, &json!({ "base_url": base_url }).to_string(), &["base_url"]);
        refuses(&mut table, &json!({ "base_url": base_url, "allow_http": true }).to_string(), &["base_url"]);
    }
    for long in [3_000, 100_000] {
        let base_url = format!("https://arctos.bank.example/{}", "x".repeat(long));
        let document = refuses(&mut table, &json!({ "base_url": base_url }).to_string(), &["base_url"]);
        assert!(document.is_none_or(|document| document.to_string().len() < 3_000));
    }
    table.finish();
}

#[test]
fn http_is_for_this_machine_only() {
    let mut table = Table::new();
    for host in [
        "arctos.bank.example",
        "10.1.2.3",
        "192.168.0.1",
        "0.0.0.0",
        "128.0.0.1",
        "126.255.255.255",
        "[::]",
        "[::2]",
        "[2001:db8::1]",
        "localhost.bank.example",
        "localhost.",
        "notlocalhost",
        "127.0.0.1.bank.example",
        "local-host",
        "127.bank.example",
    ] {
        for scheme in ["http", "HTTP"] {
            let base_url = format!("{scheme}://{host}:8080/x");
            let document = refuses(&mut table, &json!({ "base_url": base_url }).to_string(), &["base_url"]);
            let Some(document) = document else { continue };
            let problem = document["problems"][0]["problem"].as_str().expect("a problem");
            assert!(problem.contains("https") && problem.contains("allow_http"), "{problem}");
            assert_eq!(document["problems"][0]["value"], base_url, "{document}");
        }
        refuses(
            &mut table,
            &json!({ "base_url": format!("http://{host}"), "allow_http": false }).to_string(),
            &["base_url"],
        );
    }
    // Other spellings of 127.0.0.1, some of which are no host names at all.
    for host in ["2130706433", "0x7f000001", "0177.0.0.1", "127.1"] {
        refuses(&mut table, &json!({ "base_url": format!("http://{host}") }).to_string(), &["base_url"]);
    }
    table.finish();
}

/// A file with these contents in a folder that lives as long as the test wants.
fn file(folder: &TempDir, name: &str, contents: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, contents).expect("a file");
    path
}

#[test]
fn files_of_authorities_that_cannot_be_used_are_refused() {
    let folder = TempDir::new().expect("a folder");
    let pem = |authority: &Authority| fs::read_to_string(authority.file()).expect("a certificate");
    let (one, other) = (pem(&Authority::new()), pem(&Authority::new()));
    let key = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    let lines: Vec<&str> = one.lines().collect();
    // Not base64, base64 of something else, and a certificate that ends in its middle.
    let not_base64 = one.replacen(lines[2], &format!("!{}", &lines[2][1..]), 1);
    let no_certificate = "-----BEGIN CERTIFICATE-----\nbm8gY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n";
    let cut = one.replacen(&format!("{}\n", lines[lines.len() - 2]), "", 1);
    let without_end = one.replacen("-----END CERTIFICATE-----", "", 1);
    let der: Vec<u8> = (0..=255).collect();
    let mut table = Table::new();
    for (what, contents) in [
        ("empty", Vec::new()),
        ("blank", b" \n\n".to_vec()),
        ("text", b"no certificate at all\n".to_vec()),
        ("bytes", der),
        ("a key only", key.clone().into_bytes()),
        ("no base64", not_base64.clone().into_bytes()),
        ("no certificate", no_certificate.into()),
        ("cut", cut.clone().into_bytes()),
        ("a broken one first", format!("{not_base64}{other}").into_bytes()),
        ("a broken one last", format!("{other}{not_base64}").into_bytes()),
        ("a broken one between", format!("{other}{no_certificate}{one}").into_bytes()),
        ("a cut one between", format!("{other}{cut}{one}").into_bytes()),
        ("one without its end", without_end.into_bytes()),
        ("one without its beginning", one.replacen("-----BEGIN CERTIFICATE-----", "", 1).into_bytes()),
        ("another form between", format!("{other}{}", one.replace("CERTIFICATE", "TRUSTED CERTIFICATE")).into_bytes()),
    ] {
        let path = file(&folder, &format!("{what}.pem"), &contents);
        for base_url in ["https://arctos.bank.example", BASE] {
            let config = json!({ "base_url": base_url, "tls": { "roots": "file", "ca_file": path } });
            let Some(document) = refuses(&mut table, &config.to_string(), &["tls.ca_file"]) else {
                continue;
            };
            assert_eq!(document["problems"][0]["value"], path.to_str().expect("UTF-8"), "{what}: {document}");
            assert!(
                document["message"].as_str().is_some_and(|message| message.contains("tls.ca_file")),
                "{what}: {document}"
            );
        }
    }
    for path in ["", "/nowhere/ca.pem", "ca\u{0}.pem", folder.path().to_str().expect("UTF-8"), &"x".repeat(10_000)] {
        let config = json!({ "base_url": "https://arctos.bank.example", "tls": { "roots": "file", "ca_file": path } });
        refuses(&mut table, &config.to_string(), &["tls.ca_file"]);
    }
    for (what, contents) in [
        ("two", format!("{one}{other}")),
        ("with words around", format!("# Authorities\n\n{one}\nsubject: none\n{other}# end\n")),
        ("with CRLF", one.replace('\n', "\r\n")),
        ("with a key beside", format!("{key}{one}")),
        ("one twice", format!("{one}{one}")),
    ] {
        let path = file(&folder, "許功蓋 ca.pem", contents.as_bytes());
        let config = json!({ "base_url": "https://arctos.bank.example", "tls": { "roots": "file", "ca_file": path } });
        let result = in_force(&config.to_string()).map_err(|wrong| format!("{what}: {wrong}"));
        table.take(result);
    }
    table.finish();
}

#[test]
fn roots_go_together_with_their_file_only() {
    let authority = Authority::new();
    let ca_file = authority.file();
    let mut table = Table::new();
    let tls = |tls: Value| json!({ "base_url": BASE, "tls": tls }).to_string();
    refuses(&mut table, &tls(json!({ "roots": "file" })), &["tls.ca_file"]);
    for config in [
        json!({ "ca_file": ca_file }),
        json!({ "roots": "system", "ca_file": ca_file }),
        json!({ "roots": "bundled", "ca_file": ca_file }),
    ] {
        refuses(&mut table, &tls(config), &["tls.ca_file"]);
    }
    for roots in ["", "none", "System", "FILE", " file", "webpki", "native", ca_file] {
        refuses(&mut table, &tls(json!({ "roots": roots })), &["tls.roots"]);
    }
    for (config, shown) in [
        (json!({}), json!({ "roots": "system", "min_version": "1.2" })),
        (json!({ "roots": "system" }), json!({ "roots": "system", "min_version": "1.2" })),
        (json!({ "roots": "bundled" }), json!({ "roots": "bundled", "min_version": "1.2" })),
        (
            json!({ "ca_file": ca_file, "roots": "file" }),
            json!({ "roots": "file", "ca_file": ca_file, "min_version": "1.2" }),
        ),
    ] {
        let result = in_force(&tls(config.clone()))
            .and_then(|in_force| if in_force["tls"] == shown { Ok(()) } else { Err(format!("{config}: {in_force}")) });
        table.take(result);
    }
    table.finish();
}

#[test]
fn a_file_is_read_once_and_all_of_its_authorities_are_trusted() {
    let folder = TempDir::new().expect("a folder");
    let authorities = [Authority::new(), Authority::new()];
    let both: String =
        authorities.iter().map(|authority| fs::read_to_string(authority.file()).expect("a file")).collect();
    let path = file(&folder, "ca.pem", both.as_bytes());
    for authority in &authorities {
        let server = Server::start("127.0.0.1", Some(authority.server(Identity::right(Version::Tls13))));
        let tls = json!({ "tls": { "roots": "file", "ca_file": path } });
        let client = Owned::new(&with(config(&server.base_url()), tls));
        let kept = fs::read(&path).expect("the file");
        fs::remove_file(&path).expect("it is there");
        let stage = Stage::of(server, client);
        stage.run("one of two authorities", MADE, |number| {
            Script::made().send(answer("200 OK", Framing::Length, success_body(number).as_bytes())).close()
        });
        fs::write(&path, kept).expect("a file");
    }
}

#[test]
fn bundled_authorities_do_not_know_this_one() {
    let authority = Authority::new();
    let server = Server::start("127.0.0.1", Some(authority.server(Identity::right(Version::Tls13))));
    let client = Owned::new(&with(config(&server.base_url()), json!({ "tls": { "roots": "bundled" } })));
    Stage::of(server, client).run("an authority of ours", TLS_NOT_CREATED, |_| Script::request());
}

/// The configuration of the child of the test below.
const CHILD: &str = "ARCTOS_TEST_CHILD_ROOTS";

#[test]
fn system_authorities_are_those_of_ssl_cert_file() {
    if let Ok(config) = std::env::var(CHILD) {
        let (client, reply) = client_new(&config);
        let code = client.map_or(reply.code, |client| client.add(&task("CHILD")).code);
        println!("code {code}");
        return;
    }
    let (authority, another) = (Authority::new(), Authority::new());
    let folder = TempDir::new().expect("a folder");
    let empty = file(&folder, "empty.pem", b"");
    let server = Server::start("127.0.0.1", Some(authority.server(Identity::right(Version::Tls13))));
    let system = json!({ "tls": { "roots": "system" } });
    for (keys, file, code) in [
        (json!({}), authority.file(), OK),
        (system.clone(), authority.file(), OK),
        (system.clone(), another.file(), TLS),
        (json!({ "tls": { "roots": "file", "ca_file": authority.file() } }), another.file(), OK),
        (json!({ "tls": { "roots": "file", "ca_file": another.file() } }), authority.file(), TLS),
        (json!({ "tls": { "roots": "bundled" } }), authority.file(), TLS),
        // Trusting nobody is no configuration.
        (system, empty.to_str().expect("UTF-8"), BAD_CONFIG),
    ] {
        match code {
            OK => server
                .next(Script::made().send(answer("200 OK", Framing::Length, success_body("CHILD").as_bytes())).close()),
            TLS => server.next(Script::request()),
            _ => {}
        }
        let config = with(config(&server.base_url()), keys);
        let mut child = Command::new(std::env::current_exe().expect("this test"));
        child.args(["--exact", "system_authorities_are_those_of_ssl_cert_file", "--nocapture"]);
        child.env(CHILD, config.to_string()).env("SSL_CERT_FILE", file).env_remove("SSL_CERT_DIR");
        let output = child.output().expect("the child runs");
        assert!(both(&output).contains(&format!("code {code}\n")), "{config} {file}: {}", both(&output));
    }
    server.settle(0).expect("the connections have ended");
}

/// What no header can carry, or what would be no token.
fn bad_tokens() -> Vec<String> {
    let long = "x".repeat(8_193);
    [
        "",
        " ",
        " a",
        "a ",
        "\ta",
        "a\n",
        "a\r\nX: y",
        "a\u{1}b",
        "a\u{7f}b",
        "許",
        "é",
        "a\u{a0}",
        "Bearer a",
        "bearer a",
        "BEARER a",
        &*long,
    ]
    .map(str::to_owned)
    .to_vec()
}

#[test]
fn tokens_of_the_configuration() {
    let mut table = Table::new();
    for token in bad_tokens() {
        refuses(&mut table, &one("token", json!(token)), &["token"]);
    }
    refuses(&mut table, &one("token", json!("a\u{0}b")), &["token"]);
    for token in
        ["a", "abc.DEF-_~+/=", "two words", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", "Bearer", "***", &"x".repeat(8_192)]
    {
        let result = in_force(&one("token", json!(token)))
            .and_then(|in_force| if in_force["token"] == "***" { Ok(()) } else { Err(in_force.to_string()) });
        table.take(result);
    }
    table.finish();
    assert_eq!(in_force(&json!({ "base_url": BASE }).to_string()).expect("accepted").get("token"), None);
}

#[test]
fn a_token_that_is_refused_leaves_the_old_one_in_place() {
    let stage = Stage::http();
    let sent = |stage: &Stage| {
        let done = stage.run("a token", MADE, |number| {
            Script::made().send(answer("200 OK", Framing::Length, success_body(number).as_bytes())).close()
        });
        done.request().header("Authorization").expect("a token").to_owned()
    };
    assert_eq!(stage.client.set_token("the-old-one").text(), "{}");
    for token in bad_tokens() {
        let reply = stage.client.set_token(&token);
        assert_eq!(reply.code, BAD_ARGUMENT, "{token:?} {reply:?}");
        assert_eq!(reply.json().get("outcome"), None, "{reply:?}");
        if token.len() > 8 {
            assert!(!reply.text().contains(&token), "{reply:?}");
        }
        assert_eq!(sent(&stage), "Bearer the-old-one", "{token:?}");
    }
    for token in ["the-new-one", "two words", &"x".repeat(8_192)] {
        let reply = stage.client.set_token(token);
        assert_eq!((reply.code, reply.text()), (OK, "{}"));
        assert_eq!(sent(&stage), format!("Bearer {token}"));
    }
}

#[test]
fn without_a_token_nothing_is_sent() {
    let server = Server::plain();
    let client = Owned::new(&json!({ "base_url": server.base_url() }));
    let reply = client.add(&task("N"));
    assert_eq!((reply.code, reply.outcome), (FORBIDDEN, NOT_CREATED), "{reply:?}");
    assert_eq!(reply.json()["attempts"], 0, "{reply:?}");
    assert_eq!(server.connections(), 0);
    // One that is refused is none.
    assert_eq!(client.set_token("").code, BAD_ARGUMENT);
    assert_eq!(client.add(&task("N")).code, FORBIDDEN);
    // A task that is wrong is wrong without a token, too.
    assert_eq!(client.add("{}").code, BAD_TASK);
    assert_eq!(client.set_token("a-token").code, OK);
    server.next(Script::made().send(answer("200 OK", Framing::Length, success_body("N").as_bytes())).close());
    assert_eq!(client.add(&task("N")).code, OK);
    // Freed, it closes what it has kept.
    drop(client);
    assert_eq!(server.settle(0).expect("the connection has ended").len(), 1);
}

#[test]
fn user_agents() {
    let mut table = Table::new();
    for good in [
        "x",
        "branch-terminal/4.2",
        "branch-terminal/4.2 (teller; zh-TW)",
        "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
        &"x".repeat(256),
    ] {
        takes(&mut table, "user_agent", json!(good));
    }
    for bad in ["", " ", "a\n", "a\r\nX: y", "a\tb", "a\u{0}b", "a\u{7f}b", "許功蓋", "é", &"x".repeat(257)] {
        refuses(&mut table, &one("user_agent", json!(bad)), &["user_agent"]);
    }
    table.finish();
}

#[test]
fn the_limit_of_an_answer_is_the_one_in_force() {
    let number = "BR0943-0000";
    let body = success_body(number);
    for (limit, expected) in [(body.len(), MADE), (body.len() - 1, BAD_RESPONSE_UNKNOWN), (1, BAD_RESPONSE_UNKNOWN)] {
        let stage = Stage::http_with(json!({ "max_response_bytes": limit }));
        stage.run(&format!("limit {limit}"), expected, |case| {
            assert_eq!(case, number);
            Script::made().send(answer("200 OK", Framing::Length, body.as_bytes())).close()
        });
    }
}

/// A configuration with a log-in: right but for these keys.
fn logging_in(keys: Value) -> String {
    let login =
        json!({ "path": "/api/login", "body": { "password": "5f1e0c-password" }, "token_pointer": "/info/token" });
    one("login", with(login, keys))
}

#[test]
fn log_ins_that_are_accepted() {
    let mut table = Table::new();
    let mut accepts = |keys: Value| {
        let shown = with(
            json!({ "path": "/api/login", "body": "***", "token_pointer": "/info/token", "refresh_on": [401, 403] }),
            keys.clone(),
        );
        let path = shown["path"].as_str().expect("a path").replace("client=terminal", "***");
        let shown = with(shown, json!({ "body": "***", "path": path }));
        let result = in_force(&logging_in(keys)).and_then(|in_force| {
            let right = in_force["login"] == shown && !in_force.to_string().contains("5f1e0c");
            if right { Ok(()) } else { Err(format!("{shown}: {in_force}")) }
        });
        table.take(result);
    };
    accepts(json!({}));
    for path in ["/", "/login", "/api/login?client=terminal", "/%E8%A8%B1", "/api/task"] {
        accepts(json!({ "path": path }));
    }
    for body in [json!(null), json!(true), json!(15), json!("5f1e0c"), json!(["5f1e0c"]), json!({}), json!({ "a": {} })]
    {
        accepts(json!({ "body": body }));
    }
    for pointer in ["", "/", "/0", "/a~1b/~0", "/許", "//"] {
        accepts(json!({ "token_pointer": pointer }));
    }
    for refresh_on in
        [json!([]), json!([403]), json!([401]), json!([403, 401]), json!([401, 401]), json!([400, 404, 422])]
    {
        accepts(json!({ "refresh_on": refresh_on }));
    }
    table.finish();
    let text = client_new(&logging_in(json!({}))).1;
    let shown = r#""login":{"path":"/api/login","body":"***","token_pointer":"/info/token","refresh_on":[401,403]}"#;
    assert!(text.text().contains(shown), "{text:?}");
}

#[test]
fn log_ins_that_are_refused() {
    let mut table = Table::new();
    for wrong in ["null", "true", "15", "\"5f1e0c\"", "[]", "[{}]"] {
        refuses(&mut table, &raw("login", wrong), &["login"]);
    }
    refuses(&mut table, &raw("login", "{}"), &["login.path", "login.body", "login.token_pointer"]);
    for path in [
        json!(null),
        json!(15),
        json!(["/login"]),
        json!(""),
        json!("login"),
        json!("//host/login"),
        json!("https://arctos.bank.example/login"),
        json!("/a b"),
        json!("/a\nb"),
        json!("/a#b"),
        json!("/a/../b"),
        json!("/許"),
        json!("/api/task/do_add"),
    ] {
        refuses(&mut table, &logging_in(json!({ "path": path })), &["login.path"]);
    }
    for pointer in
        [json!(null), json!(15), json!(["/token"]), json!("token"), json!("info/token"), json!("/a~2"), json!("/~")]
    {
        refuses(&mut table, &logging_in(json!({ "token_pointer": pointer })), &["login.token_pointer"]);
    }
    for wrong in [
        "null",
        "true",
        "401",
        "\"401\"",
        "{}",
        "[null]",
        "[\"401\"]",
        "[[401]]",
        "[401.0]",
        "[4.01e2]",
        "[-401]",
        "[0]",
        "[65937]",
        "[18446744073709552017]",
        "[401,503]",
        "[401,null]",
    ] {
        let refresh_on: Value = serde_json::from_str(wrong).expect("JSON");
        refuses(&mut table, &logging_in(json!({ "refresh_on": refresh_on })), &["login.refresh_on"]);
    }
    // Any status after which it may have been made, and the one that asks to wait.
    for status in (0..=1_000).filter(|status| *status == 429 || !NOT_CREATED_STATUS.contains(status)) {
        let document = refuses(&mut table, &logging_in(json!({ "refresh_on": [status] })), &["login.refresh_on"]);
        assert!(
            document.is_none_or(|document| document["problems"][0]["value"] == json!(status.to_string())),
            "{status}"
        );
    }
    for status in NOT_CREATED_STATUS.into_iter().filter(|status| *status != 429) {
        table.take(in_force(&logging_in(json!({ "refresh_on": [status] }))));
    }
    refuses(&mut table, &logging_in(json!({ "bodi": 1 })), &["login.bodi"]);
    refuses(
        &mut table,
        &raw("login", r#"{"pth":"/x","bdy":{},"token_point":"/x"}"#),
        &["login.pth", "login.bdy", "login.token_point", "login.path", "login.body", "login.token_pointer"],
    );
    refuses(&mut table, &raw("login", r#"{"path":"/x","body":1,"body":2,"token_pointer":"/x"}"#), &["login.body"]);
    let twice = r#"{"path":"/x","body":1,"token_pointer":"/x"}"#;
    refuses(&mut table, &format!("{{\"base_url\":\"{BASE}\",\"login\":{twice},\"login\":{twice}}}"), &["login"]);
    // Where they belong is said.
    for (key, near) in [
        ("path", "login.path"),
        ("body", "login.body"),
        ("token_pointer", "login.token_pointer"),
        ("refresh_on", "login.refresh_on"),
    ] {
        let Some(document) = refuses(&mut table, &one(key, json!("5f1e0c")), &[key]) else { continue };
        let problem = document["problems"][0]["problem"].as_str().expect("a problem");
        assert!(problem.contains(near), "{problem}");
    }
    for (key, near) in
        [("Path", "login.path"), ("tokenPointer", "login.token_pointer"), ("refresh", "login.refresh_on")]
    {
        let Some(document) = refuses(&mut table, &logging_in(json!({ key: "5f1e0c" })), &[&format!("login.{key}")])
        else {
            continue;
        };
        let problem = document["problems"][0]["problem"].as_str().expect("a problem");
        assert!(problem.contains(near), "{problem}");
    }
    table.finish();
}

#[test]
fn tokens_come_from_one_place() {
    let folder = TempDir::new().expect("a folder");
    let token = json!("5f1e0c-token");
    let token_file = json!(file(&folder, "token", b"5f1e0c-token\n"));
    let login = json!({ "path": "/login", "body": {}, "token_pointer": "/token" });
    let mut table = Table::new();
    for (keys, fields) in [
        (json!({ "token": token, "token_file": token_file }), &["token_file"][..]),
        (json!({ "token": token, "login": login }), &["login"]),
        (json!({ "login": login, "token_file": token_file }), &["login"]),
        (json!({ "login": login, "token_file": token_file, "token": token }), &["token_file", "login"]),
    ] {
        let config = with(json!({ "base_url": BASE }), keys).to_string();
        let document = refuses(&mut table, &config, fields);
        assert!(document.is_none_or(|document| !document.to_string().contains("5f1e0c")), "{config}");
    }
    for (key, value) in [("token", token), ("token_file", token_file), ("login", login)] {
        table.take(in_force(&one(key, value)));
    }
    for wrong in ["null", "true", "15", "[]", "{}", "\"\\ud800\""] {
        refuses(&mut table, &raw("token_file", wrong), &["token_file"]);
    }
    table.finish();
}

#[test]
fn a_password_in_the_wrong_place_is_not_shown() {
    const SECRET: &str = "hunter2hunter2";
    let mut texts = vec![
        logging_in(json!({ "body": SECRET, "pasword": SECRET })),
        logging_in(json!({ "password": SECRET, "timeout_ms": SECRET })),
        logging_in(json!({ "path": format!("/login?password={SECRET} x") })),
        logging_in(json!({ "path": [SECRET] })),
        logging_in(json!({ "token_pointer": SECRET })),
        logging_in(json!({ "refresh_on": SECRET })),
        logging_in(json!({ "refresh_on": [SECRET] })),
        logging_in(json!({ "refresh_on": { "password": SECRET } })),
        raw("login", &format!("{{\"body\":{{\"password\":\"{SECRET}\"}},\"body\":\"{SECRET}\"}}")),
        raw("login", &format!("{{\"body\":\"{SECRET}\",}}")),
        raw("login", &format!("{{\"body\":{{\"password\":\"{SECRET}")),
        raw("login", SECRET),
    ];
    for key in ["login", "password", "body", "login_body", "token_file", "user", "proxy_password"] {
        texts.extend([json!(SECRET), json!([SECRET]), json!({ "password": SECRET })].map(|value| one(key, value)));
    }
    for text in texts {
        let (_, reply) = client_new(&text);
        assert_eq!(reply.code, BAD_CONFIG, "{text}: {reply:?}");
        assert!(!reply.text().contains(SECRET), "{text}: {reply:?}");
    }
}
