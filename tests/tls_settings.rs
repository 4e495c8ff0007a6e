//! The keys of `tls`: client certificates in every form of their files, and what cannot be used of them; the lowest
//! version; sessions that are resumed; files that are read once.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arctos_tests::api::*;
use arctos_tests::expected::{MADE, TLS_NOT_CREATED};
use arctos_tests::server::{Script, Server};
use arctos_tests::stage::{Stage, config, with};
use arctos_tests::tls::{Authority, ClientFiles, Identity, Version, pem};
use arctos_tests::tools::{succeed, tool};
use rcgen::KeyPair;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{ServerConfig, SignatureAlgorithm, SignatureScheme};
use serde_json::{Value, json};
use tempfile::TempDir;

const VERSIONS: [Version; 2] = [Version::Tls12, Version::Tls13];

fn members_only(version: Version) -> Identity {
    Identity { asks_for_certificate: true, ..Identity::right(version) }
}

/// A server, and a client that trusts its authority, with these keys of `tls`.
fn stage(tls: Arc<ServerConfig>, authority: &Authority, keys: Value) -> Stage {
    let server = Server::start("127.0.0.1", Some(tls));
    let client = Owned::new(&with(config(&server.base_url()), authority.trusted_with(keys)));
    Stage::of(server, client)
}

fn makes(stage: &Stage, case: &str) {
    let done = stage.run(case, MADE, |_| Script::served().close());
    assert!(done.only().handshaken, "{case}");
}

/// Runs openssl with these arguments, in a folder.
fn openssl(program: &Path, folder: &TempDir, arguments: &str) {
    succeed(Command::new(program).current_dir(folder).args(arguments.split(' ')));
}

fn read(folder: &TempDir, name: &str) -> String {
    fs::read_to_string(folder.path().join(name)).expect("a file")
}

#[test]
fn keys_of_every_form_are_taken() {
    let Some(program) = tool("keys of every form", "openssl", "openssl") else { return };
    let (authority, folder) = (Authority::new(), TempDir::new().expect("a folder"));
    for (case, arguments, label) in [
        ("RSA, PKCS#8", "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key", "PRIVATE KEY"),
        ("RSA, PKCS#1", "genrsa -traditional -out key 2048", "RSA PRIVATE KEY"),
        ("P-256, PKCS#8", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key", "PRIVATE KEY"),
        ("P-256, SEC1, with its parameters", "ecparam -name prime256v1 -genkey -out key", "EC PRIVATE KEY"),
        ("P-384, SEC1", "ecparam -name secp384r1 -genkey -noout -out key", "EC PRIVATE KEY"),
        ("Ed25519, PKCS#8", "genpkey -algorithm ED25519 -out key", "PRIVATE KEY"),
    ] {
        openssl(&program, &folder, arguments);
        openssl(&program, &folder, "pkcs8 -topk8 -nocrypt -in key -out pkcs8");
        let key = read(&folder, "key");
        assert!(key.contains(&format!("-----BEGIN {label}-----")), "{case}: openssl writes another form");
        let certificate = authority.certificate_of(&KeyPair::from_pem(&read(&folder, "pkcs8")).expect("a key"));
        let files = ClientFiles::new(&pem(&certificate), &key);
        for version in VERSIONS {
            makes(
                &stage(authority.server(members_only(version)), &authority, files.keys()),
                &format!("{case}, {version:?}"),
            );
        }
    }
}

#[test]
fn a_certificate_and_its_key_may_stand_in_one_file() {
    let authority = Authority::new();
    let key = KeyPair::generate().expect("a key");
    let certificate = pem(&authority.below("Branch authority").certificate_of(&key));
    let both = format!("\u{feff}Bag Attributes\r\n{}{certificate}", key.serialize_pem()).replace('\n', "\r\n");
    let files = ClientFiles::new(&both, "");
    let keys = json!({ "cert_file": files.cert_file(), "key_file": files.cert_file() });
    // The authority below ours is shown too, which the server does not have.
    makes(&stage(authority.server(members_only(Version::Tls13)), &authority, keys), "one file");
}

/// What is wrong with a configuration that has these keys of `tls`.
#[track_caller]
fn refused(case: &str, keys: Value) -> Vec<Value> {
    let authority = Authority::new();
    let config = with(config("https://arctos.bank.example"), authority.trusted_with(keys));
    let (_, reply) = client_new(&config.to_string());
    assert_eq!(reply.code, BAD_CONFIG, "{case}: {reply:?}");
    reply.json()["problems"].as_array().expect("problems").clone()
}

/// These two files are refused because of this one, which is named, and nothing of what stands in them is told.
#[track_caller]
fn files_are_refused(case: &str, files: &ClientFiles, field: &str, words: &[&str]) {
    let problems = refused(case, files.keys());
    let [problem] = problems.as_slice() else { panic!("{case}: {problems:?}") };
    assert_eq!(problem["field"], field, "{case}: {problem}");
    let path = if field == "tls.cert_file" { files.cert_file() } else { files.key_file() };
    assert_eq!(problem["value"], path, "{case}");
    let said = problem["problem"].as_str().expect("text");
    assert!(words.iter().all(|word| said.contains(word)), "{case}: {said}");
    let contents = [files.cert_file(), files.key_file()].map(|file| fs::read(file).expect("a file"));
    let all = problem.to_string();
    for line in contents.iter().flat_map(|text| text.split(|byte| *byte == b'\n')).filter(|line| line.len() > 16) {
        let line = String::from_utf8_lossy(line);
        assert!(line.starts_with("-----") || !all.contains(line.trim()), "{case}: {all}");
    }
}

#[test]
fn files_that_cannot_be_used_are_refused() {
    let authority = Authority::new();
    let new = || {
        let key = KeyPair::generate().expect("a key");
        (pem(&authority.certificate_of(&key)), key.serialize_pem())
    };
    let ((certificate, key), (other, other_key)) = (new(), new());
    let between = {
        let key = KeyPair::generate().expect("a key");
        let chain = authority.below("Branch authority").certificate_of(&key);
        (pem(&[chain[1].clone(), chain[0].clone()]), key.serialize_pem())
    };
    let lines: Vec<&str> = certificate.lines().collect();
    let behind = format!("line {}", lines.len() + 1);
    let not_base64 = certificate.replacen(lines[2], &format!("!{}", &lines[2][1..]), 1);
    let cut = certificate.replacen(&format!("{}\n", lines[2]), "", 1);
    let without_end = certificate.replacen("-----END CERTIFICATE-----", "", 1);
    let garbage = "-----BEGIN CERTIFICATE-----\nbm8gY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n";
    let garbage_key = "-----BEGIN PRIVATE KEY-----\nbm8ga2V5IGF0IGFsbA==\n-----END PRIVATE KEY-----\n";
    let sec1_in_name = key.replace("PRIVATE KEY", "EC PRIVATE KEY");
    let of_openssh = key.replace("PRIVATE KEY", "OPENSSH PRIVATE KEY");
    let trusted = certificate.replace("CERTIFICATE", "TRUSTED CERTIFICATE");
    let (cert_file, key_file) = ("tls.cert_file", "tls.key_file");
    for (case, certificate, key, field, words) in [
        (
            "the key of another",
            &*certificate,
            &*other_key,
            key_file,
            &["does not fit the certificate in tls.cert_file"][..],
        ),
        ("its certificate second", &format!("{other}{certificate}"), &key, cert_file, &["not as its first one"]),
        ("the authority's first", &between.0, &between.1, cert_file, &["not as its first one"]),
        ("no certificate", "", &key, cert_file, &["holds no certificate"]),
        ("a key only", &key, &key, cert_file, &["holds no certificate"]),
        ("no key", &certificate, "", key_file, &["holds no private key"]),
        ("a certificate only", &certificate, &certificate, key_file, &["holds no private key"]),
        ("two keys", &certificate, &format!("{key}{other_key}"), key_file, &["2 private keys"]),
        ("one key twice", &certificate, &format!("{key}{key}"), key_file, &["2 private keys"]),
        ("no key at all", &certificate, garbage_key, key_file, &["cannot be used"]),
        ("a key under another name", &certificate, &sec1_in_name, key_file, &["cannot be used"]),
        ("a key of openssh", &certificate, &of_openssh, key_file, &["of a kind that cannot be used"]),
        ("a broken key", &certificate, &key.replacen("MI", "M!", 1), key_file, &["broken PEM", "line 1"]),
        ("a key without its end", &certificate, &key.replace("-----END", ""), key_file, &["broken PEM", "line 1"]),
        ("no base64", &not_base64, &key, cert_file, &["broken PEM", "line 1"]),
        ("a certificate without its end", &without_end, &key, cert_file, &["broken PEM", "line 1"]),
        ("a cut certificate", &cut, &key, cert_file, &["cannot be read", "line 1"]),
        ("a broken one behind", &format!("{certificate}{not_base64}"), &key, cert_file, &["broken PEM", &behind]),
        ("garbage behind", &format!("{certificate}{garbage}"), &key, cert_file, &["cannot be read", &behind]),
        ("garbage between", &format!("{certificate}{garbage}{other}"), &key, cert_file, &["cannot be read", &behind]),
        ("another form behind", &format!("{certificate}{trusted}"), &key, cert_file, &["a form that is not read"]),
    ] {
        files_are_refused(case, &ClientFiles::new(certificate, key), field, words);
    }
    let files = ClientFiles::new(&certificate, &key);
    fs::write(files.cert_file(), b"\x30\x82\x01\x0a").expect("a file");
    files_are_refused("DER", &files, cert_file, &["looks like DER"]);
    // Both at once, where both are wrong.
    let problems = refused("both", ClientFiles::new("", "").keys());
    assert_eq!(problems.iter().map(|problem| &problem["field"]).collect::<Vec<_>>(), [cert_file, key_file]);
}

#[test]
fn keys_with_a_passphrase_are_refused_as_such() {
    let Some(program) = tool("keys with a passphrase", "openssl", "openssl") else { return };
    let folder = TempDir::new().expect("a folder");
    openssl(&program, &folder, "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key");
    openssl(&program, &folder, "pkcs8 -topk8 -in key -passout pass:word -out pkcs8");
    openssl(&program, &folder, "rsa -aes128 -traditional -in key -passout pass:word -out pkcs1");
    let key = KeyPair::from_pem(&read(&folder, "key")).expect("a key");
    let certificate = pem(&Authority::new().certificate_of(&key));
    for (name, says) in [("pkcs8", "BEGIN ENCRYPTED PRIVATE KEY"), ("pkcs1", "Proc-Type: 4,ENCRYPTED")] {
        let key = read(&folder, name);
        assert!(key.contains(says), "openssl writes another form");
        files_are_refused(name, &ClientFiles::new(&certificate, &key), "tls.key_file", &["passphrase"]);
    }
}

#[test]
fn keys_that_are_too_short_or_of_another_curve_are_refused() {
    let Some(program) = tool("keys of other kinds", "openssl", "openssl") else { return };
    let folder = TempDir::new().expect("a folder");
    let certificate = pem(&Authority::new().certificate_of(&KeyPair::generate().expect("a key")));
    for arguments in [
        "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out key",
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp256k1 -out key",
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521 -out key",
        "genpkey -algorithm ED448 -out key",
    ] {
        openssl(&program, &folder, arguments);
        let files = ClientFiles::new(&certificate, &read(&folder, "key"));
        files_are_refused(arguments, &files, "tls.key_file", &["cannot be used", "2048"]);
    }
}

#[test]
fn a_certificate_goes_with_its_key() {
    let files = Authority::new().client(None);
    let nowhere = "/nowhere/file.pem";
    for (case, keys, fields) in [
        ("no key", json!({ "cert_file": files.cert_file() }), &["tls.key_file"][..]),
        ("no certificate", json!({ "key_file": files.key_file() }), &["tls.cert_file"]),
        ("null", json!({ "cert_file": null, "key_file": files.key_file() }), &["tls.cert_file"]),
        ("numbers", json!({ "cert_file": 1, "key_file": 2 }), &["tls.cert_file", "tls.key_file"]),
        ("no such key", json!({ "cert_file": files.cert_file(), "key_file": nowhere }), &["tls.key_file"]),
        ("no such certificate", json!({ "cert_file": nowhere, "key_file": files.key_file() }), &["tls.cert_file"]),
        ("neither", json!({ "cert_file": nowhere, "key_file": nowhere }), &["tls.cert_file", "tls.key_file"]),
        ("a folder", json!({ "cert_file": "/", "key_file": files.key_file() }), &["tls.cert_file"]),
        ("no name", json!({ "cert_file": "", "key_file": files.key_file() }), &["tls.cert_file"]),
        (
            "the wrong way round",
            json!({ "cert_file": files.key_file(), "key_file": files.cert_file() }),
            &["tls.cert_file", "tls.key_file"],
        ),
        ("an endless file", json!({ "cert_file": "/dev/zero", "key_file": files.key_file() }), &["tls.cert_file"]),
    ] {
        let found: Vec<Value> = refused(case, keys).iter().map(|problem| problem["field"].clone()).collect();
        assert_eq!(found, fields, "{case}");
    }
    // They are read where the server is http too: a mistake is told at once.
    let keys = json!({ "tls": { "cert_file": nowhere, "key_file": nowhere } });
    let (_, reply) = client_new(&with(config("http://127.0.0.1:1"), keys).to_string());
    assert_eq!((reply.code, reply.problem_fields().len()), (BAD_CONFIG, 2), "{reply:?}");
}

#[test]
fn no_version_below_the_lowest_is_spoken() {
    for (lowest, version, expected) in [
        (json!({}), Version::Tls12, MADE),
        (json!({}), Version::Tls13, MADE),
        (json!({ "min_version": "1.2" }), Version::Tls12, MADE),
        (json!({ "min_version": "1.2" }), Version::Tls13, MADE),
        (json!({ "min_version": "1.3" }), Version::Tls12, TLS_NOT_CREATED),
        (json!({ "min_version": "1.3" }), Version::Tls13, MADE),
    ] {
        let authority = Authority::new();
        let stage = stage(authority.server(Identity::right(version)), &authority, lowest.clone());
        let done = stage.run(&format!("{lowest}, {version:?}"), expected, |_| Script::served().close());
        if expected == TLS_NOT_CREATED {
            assert_eq!(done.only().request_bytes(), 0);
            let document = done.reply.json();
            assert!(
                document["message"].as_str().is_some_and(|message| message.contains("tls.min_version")),
                "{document}"
            );
        }
    }
    for wrong in [json!("1.1"), json!("1.4"), json!("TLSv1.3"), json!(""), json!(1.3), json!(null), json!(["1.3"])] {
        let problems = refused(&wrong.to_string(), json!({ "min_version": wrong }));
        assert_eq!((problems.len(), &problems[0]["field"]), (1, &json!("tls.min_version")), "{problems:?}");
    }
}

/// Counts what a server signs: it does that once in a handshake, and not at all where a session is resumed.
#[derive(Debug, Clone)]
struct Counted<T>(T, Arc<AtomicUsize>);

impl ResolvesServerCert for Counted<Arc<dyn ResolvesServerCert>> {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certified = self.0.resolve(hello)?;
        let key = Arc::new(Counted(certified.key.clone(), self.1.clone()));
        Some(Arc::new(CertifiedKey::new(certified.cert.clone(), key)))
    }
}

impl SigningKey for Counted<Arc<dyn SigningKey>> {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(Counted(self.0.choose_scheme(offered)?, self.1.clone())))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl Signer for Counted<Box<dyn Signer>> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.sign(message)
    }

    fn scheme(&self) -> SignatureScheme {
        self.0.scheme()
    }
}

#[test]
fn sessions_are_resumed() {
    const CALLS: usize = 4;
    let authority = Authority::new();
    let files = authority.client(None);
    let pinned = |pin: &str| json!({ "pins": [pin] });
    for version in VERSIONS {
        let lowest = if version == Version::Tls12 { "1.2" } else { "1.3" };
        for (case, asks_for_certificate, keys) in [
            ("as it is", false, json!({})),
            ("with the lowest version", false, json!({ "min_version": lowest })),
            ("with a client certificate", true, files.keys()),
            ("with a pin", false, json!("pin")),
        ] {
            for resumption in [true, false] {
                let identity = Identity { asks_for_certificate, resumption, ..Identity::right(version) };
                let (tls, pin) = authority.server_with_pin(identity);
                let mut tls = Arc::unwrap_or_clone(tls);
                let signed = Arc::new(AtomicUsize::new(0));
                tls.cert_resolver = Arc::new(Counted(tls.cert_resolver, signed.clone()));
                let keys = if keys == "pin" { pinned(&pin) } else { keys.clone() };
                let stage = stage(Arc::new(tls), &authority, keys);
                for call in 1..=CALLS {
                    makes(&stage, &format!("{case}, {version:?}, call {call}"));
                }
                let whole = if resumption { 1 } else { CALLS };
                assert_eq!(signed.load(Ordering::SeqCst), whole, "{case}, {version:?}: so many whole handshakes");
            }
        }
    }
}

#[test]
fn files_are_read_once() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    for version in VERSIONS {
        let folder = TempDir::new().expect("a folder");
        let (files, others) = (authority.client(None), stranger.client(None));
        let copy = |from: [&str; 3]| {
            for (from, to) in from.into_iter().zip(["ca.pem", "cert.pem", "key.pem"]) {
                fs::copy(from, folder.path().join(to)).expect("a file");
            }
        };
        copy([authority.file(), files.cert_file(), files.key_file()]);
        let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
        let keys = json!({ "ca_file": path("ca.pem"), "cert_file": path("cert.pem"), "key_file": path("key.pem") });
        // No session is resumed: each connection needs all of it.
        let identity = Identity { resumption: false, ..members_only(version) };
        let stage = stage(authority.server(identity), &authority, keys);
        makes(&stage, "the files are there");
        copy([stranger.file(), others.cert_file(), others.key_file()]);
        makes(&stage, "other files are there");
        fs::remove_dir_all(folder.path()).expect("it is there");
        makes(&stage, "no files are there");
    }
}
