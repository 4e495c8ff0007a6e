//! What a client keeps secret stands in no text and in no line of the log: the tokens of a file and of a log-in, the
//! body of the log-in, the password of a proxy, and a private key, wherever the configuration is wrong, a call fails, or
//! somebody else repeats it.

use arctos_tests::api::{
    BAD_CONFIG, BAD_RESPONSE, CANCELLED, CONNECT, FORBIDDEN, OK, Owned, Reply, TIMEOUT, TLS, client_new, task,
};
use arctos_tests::http::{Framing, answer, answer_head, head};
use arctos_tests::proxy::{self, Proxy};
use arctos_tests::secrets::{self, spellings};
use arctos_tests::server::{Script, Server};
use arctos_tests::stage::{Table, config, config_tls, with};
use arctos_tests::tls::{Authority, Identity, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

// With everything that HTML and JSON escape, and letters on both sides of it.
const OF_FILE: &str = r#"filA7alpha<>&"'\/=+filZ7omega"#;
const FIRST: &str = r#"oneA7alpha<>&"'\/=+oneZ7omega"#;
const SECOND: &str = r#"twoA7alpha<>&"'\/=+twoZ7omega"#;
const LOGIN: &str = "logA7alpha<>&\"'\\/\n預約é logZ7omega";
const NUMBER: &str = "7355608173556081";
const PASSWORD: &str = "pxyA7alpha<>&\"'\\/%@:é pxyZ7omega";

/// What no text may hold: each plain end of a secret, which no escaping changes.
const PARTS: [&str; 12] = [
    "filA7alpha",
    "filZ7omega",
    "oneA7alpha",
    "oneZ7omega",
    "twoA7alpha",
    "twoZ7omega",
    "logA7alpha",
    "logZ7omega",
    NUMBER,
    "pxyA7alpha",
    "pxyZ7omega",
    // The middle of what travels to the proxy, in base64.
    "eHlBN2FscGhh",
];

/// `user:password` as it travels to the proxy.
fn basic() -> String {
    STANDARD.encode(format!("tellers:{PASSWORD}"))
}

fn in_url(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// The value of the key `proxy` with the password as people write it, and with everything escaped.
fn proxies(proxy: &Proxy) -> [String; 2] {
    let readable = PASSWORD.replace('%', "%25").replace('/', "%2F").replace(' ', "%20");
    [proxy.url_with(&format!("tellers:{readable}")), proxy.url_with(&format!("tellers:{}", in_url(PASSWORD)))]
}

fn login() -> Value {
    json!({
        "path": "/login",
        "body": { "password": LOGIN, "pin": 7_355_608_173_556_081_u64, "more": [{ "again": LOGIN }] },
        "token_pointer": "/info/token",
    })
}

/// With other keys in the place of the token.
fn keys(mut config: Value, keys: Value) -> Value {
    secrets::listen();
    config.as_object_mut().expect("an object").remove("token");
    with(with(config, json!({ "keep_bodies": true })), keys)
}

fn clean(reply: &Reply) -> Result<(), String> {
    secrets::clean(reply, &PARTS)
}

fn file(contents: impl AsRef<[u8]>) -> NamedTempFile {
    let file = NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), contents).expect("it is written");
    file
}

/// The configuration is refused, and nothing that is secret is said.
fn refused(table: &mut Table, config: &str) {
    let (_, reply) = client_new(config);
    let wrong = (reply.code != BAD_CONFIG).then(|| format!("accepted: {config}"));
    table.take(wrong.map_or_else(|| clean(&reply).map_err(|wrong| format!("{config}: {wrong}")), Err));
}

#[test]
fn a_configuration_that_is_refused_shows_none() {
    let base = || keys(config("http://127.0.0.1:1"), json!({}));
    let mut table = Table::new();
    let mut all = Vec::new();
    for token in
        [json!([FIRST]), json!({ "a": FIRST }), json!(format!("{FIRST}\u{1}")), json!(format!("Bearer {FIRST}"))]
    {
        all.push(json!({ "token": token }));
    }
    all.push(json!({ "token": format!("{FIRST}{}", "x".repeat(9000)) }));
    for key in ["tokens", "Token", "password", "authorization", "proxy_password", "key"] {
        all.push(json!({ key: FIRST }));
        all.push(json!({ "tls": { key: FIRST } }));
        all.push(json!({ "login": with(login(), json!({ key: FIRST })) }));
    }
    for login in [json!(LOGIN), json!([LOGIN]), json!({ "body": LOGIN }), json!({ "body": { "a": LOGIN }, "path": 1 })]
    {
        all.push(json!({ "login": login }));
    }
    for wrong in [
        json!({ "path": "no slash" }),
        json!({ "path": ["/login", LOGIN] }),
        json!({ "token_pointer": "none" }),
        json!({ "token_pointer": [LOGIN] }),
        json!({ "refresh_on": [LOGIN] }),
        json!({ "refresh_on": LOGIN }),
        json!({ "refresh_on": { "a": LOGIN } }),
    ] {
        all.push(json!({ "login": with(login(), wrong) }));
    }
    all.push(json!({ "login": login(), "token": FIRST }));
    all.push(json!({ "login": login(), "token": FIRST, "token_file": file(OF_FILE).path() }));
    for key in ["strict", "timeout_ms", "retries", "keep_bodies", "connections"] {
        all.push(json!({ key: FIRST, "token": SECOND, "login": login() }));
    }
    let password = in_url(PASSWORD);
    for proxy in [
        format!("http://tellers:{PASSWORD}@127.0.0.1:1"),
        format!("http://tellers:{password}@127.0.0.1"),
        format!("http://tellers:{password}@127.0.0.1:x"),
        format!("http://tellers:{password}@127.0.0.1:0"),
        format!("http://tellers:{password}@127.0.0.1:1/path"),
        format!("http://tellers:{password}@no host:1"),
        format!("http://tellers:{password}"),
        "http://tellers:pxyA7alpha%zz@127.0.0.1:1".to_owned(),
        "http://tellers:pxyA7alpha%0a@127.0.0.1:1".to_owned(),
        "http://tellers:pxyA7alpha%ff@127.0.0.1:1".to_owned(),
        "http://tellers:pxyA7alpha/pxyZ7omega@127.0.0.1:1".to_owned(),
        "http://tellers:pxyA7alpha#pxyZ7omega@127.0.0.1:1".to_owned(),
        "http://tellers:pxyA7alpha?pxyZ7omega@127.0.0.1:1".to_owned(),
        "http://pxyA7alpha:pxyZ7omega".to_owned(),
        "http://tellers%3Apx:pxyA7alpha@127.0.0.1:1".to_owned(),
        "https://tellers:pxyA7alpha@127.0.0.1:1".to_owned(),
        "socks5://tellers:pxyA7alpha@127.0.0.1:1".to_owned(),
        "tellers:pxyA7alpha@127.0.0.1:1".to_owned(),
        format!("http://tellers:pxyA7alpha{}@127.0.0.1:1", "x".repeat(9000)),
    ] {
        all.push(json!({ "proxy": proxy }));
    }
    all.push(json!({ "proxy": [PASSWORD] }));
    all.push(json!({ "proxy": { "password": PASSWORD } }));
    let files: Vec<NamedTempFile> = [
        format!("{OF_FILE}\n{OF_FILE}").as_bytes(),
        format!("{OF_FILE}\u{1}").as_bytes(),
        format!("Bearer {OF_FILE}").as_bytes(),
        &[OF_FILE.as_bytes(), b"\xff"].concat(),
        format!("{OF_FILE}許").as_bytes(),
        OF_FILE.repeat(5000).as_bytes(),
    ]
    .into_iter()
    .map(file)
    .collect();
    for file in &files {
        all.push(json!({ "token_file": file.path() }));
        all.push(json!({ "token_file": file.path(), "token": FIRST }));
    }
    for keys in all {
        let config = with(base(), keys);
        refused(&mut table, &config.to_string());
        refused(&mut table, &with(config, json!({ "base_url": "ftp://h", "unknown": FIRST })).to_string());
    }
    // No JSON, and keys that stand twice.
    let good = with(base(), json!({ "login": login(), "proxy": format!("http://tellers:{password}@127.0.0.1:1") }));
    let good = good.to_string();
    for wrong in [
        good[..good.len() - 1].to_owned(),
        format!("{good} {FIRST}"),
        format!("[{good}]"),
        json!(good).to_string(),
        good.replacen("{", &format!("{{\"login\":{},", login()), 1),
        good.replacen("{", &format!("{{\"proxy\":\"{password}\",",), 1),
        good.replace("\"body\":", "\"body\":1,\"body\":"),
        good.replace("logZ7omega", "logZ7omega\\ud800\\"),
        good.replace("logZ7omega", "logZ7omega\u{1}"),
    ] {
        refused(&mut table, &wrong);
    }
    table.finish();
}

#[test]
fn a_private_key_stands_in_no_document() {
    let authority = Authority::new();
    let files = authority.client(None);
    let [certificate, key] =
        [files.cert_file(), files.key_file()].map(|file| std::fs::read_to_string(file).expect("a file"));
    // What is between the first and the last line, as far as only the key has it.
    let inside: Vec<&str> = key.lines().filter(|line| !line.starts_with('-')).collect();
    let parts: Vec<&str> = inside.iter().flat_map(|line| [&line[..line.len() / 2], &line[line.len() / 2..]]).collect();
    let label = |label: &str| key.replace("PRIVATE KEY", label);
    let keys: Vec<NamedTempFile> = [
        key.replace("-----END", "!-----END"),
        key.replacen('\n', "\n!", 1),
        key.replace("-----END PRIVATE KEY-----", ""),
        key.replace("-----BEGIN PRIVATE KEY-----", ""),
        format!("{key}{key}"),
        label("ENCRYPTED PRIVATE KEY"),
        label("OPENSSH PRIVATE KEY"),
        label("RSA PRIVATE KEY"),
        label("EC PRIVATE KEY"),
        label("CERTIFICATE"),
        key.replacen(inside[0], "", 1),
        inside.concat(),
        authority.client(None).key_file().to_owned(),
    ]
    .into_iter()
    .map(file)
    .collect();
    let base = || self::keys(config("https://127.0.0.1:1"), json!({}));
    let check = |tls: Value| {
        let (_, reply) = client_new(&with(base(), authority.trusted_with(tls.clone())).to_string());
        assert_eq!(reply.code, BAD_CONFIG, "{tls} {reply:?}");
        assert_eq!(secrets::clean(&reply, &parts), Ok(()), "{tls}");
    };
    for key in &keys {
        check(json!({ "cert_file": files.cert_file(), "key_file": key.path() }));
        check(json!({ "cert_file": key.path(), "key_file": key.path() }));
        check(json!({ "ca_file": key.path() }));
        check(json!({ "cert_file": key.path(), "key_file": files.cert_file() }));
    }
    // The texts of the files in the place of their names, as people do.
    check(json!({ "cert_file": certificate, "key_file": key }));
    check(json!({ "cert_file": files.cert_file(), "key_file": key }));
    check(json!({ "cert_file": key, "key_file": files.key_file() }));
    check(json!({ "ca_file": key }));
    check(json!({ "roots": key }));
    check(json!({ "pins": [key] }));
    check(json!({ "key": key }));
}

#[test]
fn the_configuration_in_force_shows_none() {
    let proxy = Proxy::to(([127, 0, 0, 1], 1).into());
    let of_file = file(OF_FILE);
    for proxy in proxies(&proxy) {
        for source in [json!({ "token": FIRST }), json!({ "token_file": of_file.path() }), json!({ "login": login() })]
        {
            let config = with(keys(config("http://127.0.0.1:1"), source.clone()), json!({ "proxy": proxy }));
            let (client, reply) = client_new(&config.to_string());
            assert_eq!((reply.code, clean(&reply)), (OK, Ok(())), "{source}");
            assert!(reply.text().contains("***@") && client.is_some(), "{reply:?}");
        }
    }
}

/// A client that logs in and goes through a proxy, and both others.
struct Site {
    client: Owned,
    server: Server,
    proxy: Proxy,
}

impl Site {
    fn new() -> Site {
        Site::with(json!({ "login": login() }))
    }

    fn with(source: Value) -> Site {
        let server = Server::plain();
        let proxy = Proxy::to(server.address());
        let [_, url] = proxies(&proxy);
        let client = Owned::new(&keys(config(&server.base_url()), with(source, json!({ "proxy": url }))));
        Site { client, server, proxy }
    }

    /// The next connections' answers.
    fn say(&self, answers: impl IntoIterator<Item = Vec<u8>>) {
        for answer in answers {
            self.server.next(Script::request().send(answer).close());
        }
    }

    /// The client has this token from now on.
    fn logged_in(&self, token: &str) {
        self.say([token_of(token), answer("200 OK", Framing::Length, b"{\"status\":0}")]);
        self.client.add(&task("N"));
    }
}

fn token_of(token: &str) -> Vec<u8> {
    answer("200 OK", Framing::Length, json!({ "info": { "token": token } }).to_string().as_bytes())
}

/// The answers by which a server may say again what it knows.
fn echoes(echo: &str) -> Vec<Vec<u8>> {
    let page = format!("<html><p>{echo}</p> {echo}</html>");
    let message = json!({ "status": 0, "message": page, "info": null }).to_string();
    let mut all = Vec::new();
    for status in ["200 OK", "400 Bad", "404 No", "409 No", "429 No", "500 No", "503 No", "600 No"] {
        for body in [&page, &message] {
            all.push(answer(status, Framing::Length, body.as_bytes()));
        }
    }
    all
}

#[test]
fn what_a_server_repeats_of_them_is_masked() {
    let site = Site::new();
    let mut table = Table::new();
    site.logged_in(FIRST);
    let basic = basic();
    for secret in [FIRST, LOGIN, NUMBER, PASSWORD, &basic] {
        for (spelling, echo) in spellings(secret) {
            for said in echoes(&echo) {
                site.say([said.clone(), said]);
                for reply in [site.client.add(&task("N")), site.client.call("/x", &task("N"))] {
                    let wrong = (reply.code == OK).then(|| format!("{spelling} {echo}: a success"));
                    table
                        .take(wrong.map_or_else(|| clean(&reply).map_err(|wrong| format!("{spelling}: {wrong}")), Err));
                }
            }
        }
    }
    table.finish();
}

#[test]
fn what_is_repeated_of_tokens_that_were_refused_is_masked() {
    let mut table = Table::new();
    for ((spelling, first), (_, second)) in spellings(FIRST).into_iter().zip(spellings(SECOND)) {
        let refusal = |echo: &str| {
            answer("403 No", Framing::Length, json!({ "message": echo, "more": echo }).to_string().as_bytes())
        };
        for answers in [
            // The log-in gives a second one, and that is refused too.
            vec![refusal(""), token_of(SECOND), refusal(&format!("{first} {second}"))],
            // The log-in fails.
            vec![refusal(""), refusal(&first)],
        ] {
            let site = Site::new();
            site.logged_in(FIRST);
            site.say(answers);
            let reply = site.client.add(&task("N"));
            let masked = reply.code == FORBIDDEN && reply.text().contains("***");
            table.take(if masked { clean(&reply) } else { Err(format!("{spelling}: {reply:?}")) });
        }
    }
    table.finish();
}

#[test]
fn what_a_log_in_repeats_is_masked() {
    let site = Site::new();
    let mut table = Table::new();
    let basic = basic();
    for secret in [LOGIN, NUMBER, PASSWORD, &basic] {
        for (spelling, echo) in spellings(secret) {
            for said in echoes(&echo) {
                site.say([said]);
                let reply = site.client.add(&task("N"));
                table.take(if reply.code == OK { Err(format!("{spelling} {echo}: a success")) } else { clean(&reply) });
            }
        }
    }
    // Answers with a token that is none, whose words may be one.
    for token in
        [format!("{FIRST}\n"), format!("{FIRST}許"), format!("Bearer {FIRST}"), format!(" {FIRST}"), FIRST.repeat(400)]
    {
        for framing in [Framing::Length, Framing::Chunked(5), Framing::Close] {
            let body = json!({ "info": { "token": token }, "message": "welcome" }).to_string();
            for body in [body.clone(), body[..body.len() - 1].to_owned(), format!("{body} {FIRST}")] {
                site.say([answer("200 OK", framing, body.as_bytes())]);
                let reply = site.client.add(&task("N"));
                table.take(if reply.code == BAD_RESPONSE { clean(&reply) } else { Err(format!("{reply:?}")) });
            }
        }
    }
    // A failure of the log-in may name it, and what is no secret in it.
    site.say([answer("401 No", Framing::Length, json!({ "message": "wrong password or pin" }).to_string().as_bytes())]);
    let reply = site.client.add(&task("N"));
    table.take(if reply.text().contains("wrong password or pin") { Ok(()) } else { Err(format!("{reply:?}")) });
    table.finish();
}

#[test]
fn what_stands_in_a_head_is_not_told() {
    let mut table = Table::new();
    let basic = basic();
    for at_log_in in [false, true] {
        let site = Site::new();
        if !at_log_in {
            site.logged_in(FIRST);
        }
        for secret in [FIRST, SECOND, NUMBER, &basic] {
            let fields = [format!("Location: /?{secret}"), format!("X-Echo: {secret}"), "Content-Length: 0".to_owned()];
            let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
            let mut heads: Vec<Vec<u8>> = ["302", "400", "404", "500", "503"]
                .iter()
                .map(|status| head(&format!("{status} {secret}"), &fields))
                .collect();
            heads.push(format!("{secret}\r\n\r\n").into_bytes());
            heads.push(head("200 OK", &[&format!("Content-Encoding: {secret}"), "Content-Length: 0"]));
            heads.push(head("200 OK", &[&format!("Transfer-Encoding: {secret}")]));
            heads.push(head("200 OK", &[&format!("Content-Length: {secret}")]));
            if secret != NUMBER {
                // A number there is one of seconds.
                heads.push(head("429 No", &[&format!("Retry-After: {secret}"), "Content-Length: 0"]));
            }
            heads.push([answer_head("200 OK", Framing::Chunked(1), 0), secret.as_bytes().to_vec()].concat());
            for said in heads {
                site.say([said]);
                table.take(clean(&site.client.add(&task("N"))));
            }
        }
    }
    table.finish();
}

#[test]
fn what_a_proxy_repeats_is_not_told() {
    let site = Site::new();
    let mut table = Table::new();
    let basic = basic();
    for secret in ["pxyA7alpha", &basic] {
        for status in ["407", "403", "404", "429", "500", "502", "503", "504", "302", "101", "600"] {
            let status = format!("{status} {secret}");
            let fields = [format!("Proxy-Authenticate: Basic realm=\"{secret}\""), format!("Location: /{secret}")];
            let said = head(&status, &[&fields[0], &fields[1], "Connection: close"]);
            site.proxy.next(proxy::Script::head().send([&said[..], secret.as_bytes()].concat()).fin());
            let reply = site.client.add(&task("N"));
            table.take(if reply.code == CONNECT { clean(&reply) } else { Err(format!("{reply:?}")) });
            let said = head("200 OK", &[&fields[0]]);
            site.proxy.next(proxy::Script::head().send([&said[..], secret.as_bytes()].concat()).fin());
            table.take(clean(&site.client.diagnose()));
        }
        site.proxy.next(proxy::Script::head().send(format!("{secret}\r\n\r\n")).fin());
        table.take(clean(&site.client.add(&task("N"))));
        site.proxy.next(proxy::Script::head().send(format!("HTTP/1.1 200 OK\r\nX: {secret}")).fin());
        table.take(clean(&site.client.add(&task("N"))));
    }
    site.proxy.next(proxy::Script::silent().reset());
    table.take(clean(&site.client.add(&task("N"))));
    table.finish();
}

#[test]
fn failures_without_an_answer_show_none() {
    let mut table = Table::new();
    let of_file = file(OF_FILE);
    let sources = [json!({ "token": FIRST }), json!({ "token_file": of_file.path() }), json!({ "login": login() })];
    for source in sources {
        let mut fails = |config: Value, codes: &[i32]| {
            let client = Owned::new(&keys(config, source.clone()));
            for reply in [client.add(&task("N")), client.call("/x", &task("N")), client.diagnose()] {
                let as_expected = codes.contains(&reply.code) || reply.text().contains("\"steps\"");
                table.take(if as_expected { clean(&reply) } else { Err(format!("{source} {reply:?}")) });
            }
        };
        // Port 1 of loopback: nothing listens there on a machine that runs tests.
        fails(config("http://127.0.0.1:1"), &[CONNECT]);
        // How soon that is said is for the system to say.
        let nobody = with(config("https://nobody.invalid"), json!({ "timeout_ms": 2000 }));
        fails(nobody, &[CONNECT, TIMEOUT]);
        let dead = format!("http://tellers:{}@127.0.0.1:1", in_url(PASSWORD));
        fails(with(config("http://127.0.0.1:1"), json!({ "proxy": dead })), &[CONNECT]);
        let (authority, other) = (Authority::new(), Authority::new());
        let server = Server::start("127.0.0.1", Some(authority.server(Identity::right(Version::Tls13))));
        server.always(Script::request());
        fails(config_tls(&server.base_url(), &other), &[TLS]);
        let silent = Server::plain();
        silent.always(Script::silent());
        fails(with(config(&silent.base_url()), json!({ "timeout_ms": 300 })), &[TIMEOUT]);

        let client = Owned::new(&keys(config(&silent.base_url()), source.clone()));
        let reply = std::thread::scope(|scope| {
            let before = silent.connections();
            let call = scope.spawn(|| client.add(&task("N")));
            silent.await_connections(before + 1).expect("the call is on its way");
            client.cancel();
            call.join().expect("a reply")
        });
        table.take(if reply.code == CANCELLED { clean(&reply) } else { Err(format!("{reply:?}")) });
    }
    table.finish();
}

#[test]
fn a_token_file_that_goes_bad_is_not_shown() {
    let of_file = file(OF_FILE);
    let site = Site::with(json!({ "token_file": of_file.path() }));
    let refusal = || answer("403 No", Framing::Length, json!({ "message": OF_FILE }).to_string().as_bytes());
    let mut table = Table::new();
    for contents in
        [OF_FILE.to_owned(), format!("{FIRST}\n{SECOND}"), format!("{FIRST}\u{1}"), FIRST.repeat(5000), String::new()]
    {
        std::fs::write(of_file.path(), contents).expect("it is written");
        site.say([refusal()]);
        let reply = site.client.add(&task("N"));
        table.take(if reply.code == FORBIDDEN { clean(&reply) } else { Err(format!("{reply:?}")) });
    }
    table.finish();
}

#[test]
fn the_secrets_have_what_the_checks_look_for() {
    let basic = basic();
    for secret in [OF_FILE, FIRST, SECOND, LOGIN, NUMBER, PASSWORD, &basic] {
        for (spelling, echo) in spellings(secret) {
            assert!(PARTS.iter().any(|part| echo.contains(part)), "{spelling} {echo}");
        }
    }
}
