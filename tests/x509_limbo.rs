//! The certificate cases of x509-limbo, each shown to the library by a live server: one that must be refused gets no
//! byte of a request, and one that must be accepted makes the appointment.
//!
//! A proxy of the test's own leads every host name to the case's server. Where rustls-webpki documents that it decides
//! otherwise than the vectors do, its documented verdict is what must come.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use arctos_tests::api::{OK, Reply, client_new, task};
use arctos_tests::expected::{Expected, MADE, TLS_NOT_CREATED};
use arctos_tests::ledger::check;
use arctos_tests::proxy::Proxy;
use arctos_tests::server::{Script, Server};
use arctos_tests::stage::{Table, config, with};
use arctos_tests::tools::{Host, skipped, succeed, tool};
use arctos_tests::vectors::document;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::{Error, ServerConfig, SignatureAlgorithm, SignatureScheme, SupportedProtocolVersion};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// How many cases run at once.
const THREADS: usize = 4;

/// No more than alerts may follow the client's first flight. The shortest request is much longer.
const ALERTS: u64 = 64;

/// The exceptions of which the vectors have no case.
const NOT_IN_THE_VECTORS: [&str; 2] = ["rfc9881::ml-dsa-44-key-agreement", "rfc9881::ml-dsa-44-key-encipherment"];

/// The host for the one server case that gives no name.
const ANY_HOST: &str = "example.com";

/// What a message says of the right certificate of another host. Names are looked at after the chain, and before what
/// is signed with the key.
const ANOTHER_NAME: &str = "for another host name";

/// The exceptions whose certificate is accepted, and whose key cannot make a signature that the library takes in TLS:
/// the verdict is that of the certificate, and the call is refused all the same.
const NO_KEY_FOR_TLS: [&str; 3] =
    ["webpki::forbidden-dsa-leaf", "webpki::forbidden-p192-leaf", "webpki::forbidden-weak-rsa-in-leaf"];

/// Whether a certificate is good enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Accept,
    Refuse,
}

impl Verdict {
    fn read(text: &Value) -> Verdict {
        match text.as_str() {
            Some("SUCCESS") => Verdict::Accept,
            Some("FAILURE") => Verdict::Refuse,
            _ => panic!("no verdict: {text}"),
        }
    }

    /// What must come of a call.
    fn expected(self) -> Expected {
        match self {
            Verdict::Accept => MADE,
            Verdict::Refuse => TLS_NOT_CREATED,
        }
    }
}

/// Why no live server can show a case to the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unpresentable {
    /// It is about the certificate of a client.
    Client,
    /// It comes with a revocation list, and the library takes none.
    RevocationList,
    /// It sets a limit for the length of the chain, and the library has no such setting.
    ChainDepth,
    /// The vectors do not have the key of the server's certificate.
    NoKey,
}

/// One case.
struct Case {
    id: String,
    /// A number that no other case has.
    number: String,
    /// PEM of the roots.
    trusted: String,
    chain: Vec<CertificateDer<'static>>,
    /// PEM of the key of the first certificate, empty where the vectors have none.
    key: String,
    /// The name that the certificate must be for, as in a URL.
    host: Option<String>,
    /// The time of the check, if it is not now.
    time: Option<String>,
    verdict: Verdict,
    exception: bool,
    unpresentable: Option<Unpresentable>,
}

/// The texts of a list.
fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().expect("a list").iter().map(|one| one.as_str().expect("a text"))
}

impl Case {
    fn read(index: usize, case: &Value, exceptions: &Value) -> Case {
        let text = |key: &str| case[key].as_str().map(str::to_owned);
        let id = text("id").expect("an id");
        let wanted = Verdict::read(&case["expected_result"]);
        let exception = exceptions.get(&id);
        let verdict = exception.map_or(wanted, |exception| {
            assert_eq!(Verdict::read(&exception["expected"]), wanted, "{id}");
            Verdict::read(&exception["actual"])
        });
        let key = text("peer_certificate_key").unwrap_or_default();
        let unpresentable = if case["validation_kind"] == "CLIENT" {
            Some(Unpresentable::Client)
        } else if texts(&case["crls"]).next().is_some() {
            Some(Unpresentable::RevocationList)
        } else if !case["max_chain_depth"].is_null() {
            Some(Unpresentable::ChainDepth)
        } else if key.is_empty() {
            Some(Unpresentable::NoKey)
        } else {
            None
        };
        let leaf = case["peer_certificate"].as_str().expect("a certificate");
        let chain = std::iter::once(leaf).chain(texts(&case["untrusted_intermediates"]));
        let host = |name: &str| if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
        Case {
            number: format!("BR0943-{index:04}"),
            trusted: texts(&case["trusted_certs"]).collect(),
            chain: chain.map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM")).collect(),
            key,
            host: case["expected_peer_name"]["value"].as_str().map(host),
            time: text("validation_time"),
            verdict,
            exception: exception.is_some(),
            unpresentable,
            id,
        }
    }

    /// Whether it is run. Exceptions about revocation lists are run too: their documented verdict is that of a check
    /// without one.
    fn is_run(&self) -> bool {
        self.exception || self.unpresentable.is_none()
    }

    /// The key, if rustls takes it.
    fn usual_key(&self) -> Option<Arc<dyn SigningKey>> {
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).ok()?;
        ring::default_provider().key_provider.load_private_key(key).ok()
    }

    fn host(&self) -> &str {
        self.host.as_deref().unwrap_or(ANY_HOST)
    }

    /// One call with a base URL of this host, to a server that shows the case's chain and signs with this key. It is
    /// made by `call` with a configuration, and must come to this verdict.
    fn run(
        &self,
        version: &'static SupportedProtocolVersion,
        key: Arc<dyn SigningKey>,
        host: &str,
        verdict: Verdict,
        call: impl FnOnce(&Value) -> Reply,
    ) -> Result<Reply, String> {
        let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(self.chain.clone(), key))));
        let server = Server::start("127.0.0.1", Some(Arc::new(tls)));
        server.always(Script::served().close());
        let proxy = Proxy::to(server.address());
        let roots = written(self.trusted.as_bytes());
        let tls = json!({ "roots": "file", "ca_file": roots.path() });
        let keys = json!({ "proxy": proxy.url(), "tls": tls });
        let reply = call(&with(config(&format!("https://{host}")), keys));
        self.judge(&server, &proxy, host, verdict, &reply).map(|()| reply.clone()).map_err(|wrong| {
            format!("{}, {:?}: {wrong}\n  expected {verdict:?}\n  {reply:?}", self.id, version.version)
        })
    }

    fn judge(&self, server: &Server, proxy: &Proxy, host: &str, verdict: Verdict, reply: &Reply) -> Result<(), String> {
        let seen = server.settle(0)?;
        let asked: Vec<String> = proxy.settle()?.iter().map(|seen| seen.connect().target().to_owned()).collect();
        if asked != [format!("{host}:443")] {
            return Err(format!("the proxy was asked for {asked:?}"));
        }
        let [seen] = seen.as_slice() else { return Err(format!("{} connections", seen.len())) };
        if let Some(fault) = &seen.fault {
            return Err(fault.clone());
        }
        let made = server.ledger().made(&self.number);
        check(reply, made, &seen.exchanges)?;
        if verdict == Verdict::Refuse {
            let first = seen.flights.first().copied().ok_or("the client said nothing")?;
            if seen.request_bytes() > 0 || seen.raw > first + ALERTS {
                return Err(format!("{} bytes came after the first flight", seen.raw - first));
            }
            if seen.handshaken {
                return Err("the client finished the handshake".to_owned());
            }
        }
        let expected = verdict.expected();
        if (reply.code, reply.outcome) != (expected.code, expected.outcome) {
            return Err("another code or outcome".to_owned());
        }
        if verdict == Verdict::Refuse && !message(reply).contains("certificate") {
            return Err("the message speaks of no certificate".to_owned());
        }
        if self.host.is_none() && message(reply).contains(ANOTHER_NAME) {
            return Err("any host is another one, so that this says nothing of the case".to_owned());
        }
        Ok(())
    }
}

fn message(reply: &Reply) -> String {
    reply.json()["message"].as_str().expect("a message").to_owned()
}

fn written(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(bytes).expect("the file is written");
    file
}

/// A key that rustls does not take. Openssl signs with it, and the server says that the signature is of a kind that
/// clients ask for.
#[derive(Debug, Clone)]
struct OpensslKey {
    openssl: PathBuf,
    pem: String,
    algorithm: SignatureAlgorithm,
    scheme: SignatureScheme,
}

impl OpensslKey {
    fn new(openssl: &Path, pem: &str) -> OpensslKey {
        let (algorithm, scheme) = match pem.contains("RSA PRIVATE KEY") {
            true => (SignatureAlgorithm::RSA, SignatureScheme::RSA_PSS_SHA256),
            false => (SignatureAlgorithm::ECDSA, SignatureScheme::ECDSA_NISTP256_SHA256),
        };
        OpensslKey { openssl: openssl.to_owned(), pem: pem.to_owned(), algorithm, scheme }
    }
}

impl SigningKey for OpensslKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&self.scheme).then(|| Box::new(self.clone()) as _)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }
}

impl Signer for OpensslKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let (key, message) = (written(self.pem.as_bytes()), written(message));
        let mut command = Command::new(&self.openssl);
        command.args(["dgst", "-sha256", "-sign"]).arg(key.path());
        if self.algorithm == SignatureAlgorithm::RSA {
            command.args(["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"]);
        }
        Ok(succeed(command.arg(message.path()).stdin(Stdio::null())).stdout)
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

/// All cases of the vectors, and the names of the exceptions.
fn read() -> Option<(Vec<Case>, BTreeSet<String>)> {
    let (limbo, exceptions) = (document("x509-limbo/limbo.json")?, document("x509-limbo/webpki_exceptions.json")?);
    let cases = limbo["testcases"].as_array().expect("a list").iter().enumerate();
    let cases = cases.map(|(index, case)| Case::read(index, case, &exceptions)).collect();
    Some((cases, exceptions.as_object().expect("an object").keys().cloned().collect()))
}

/// How a case is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By a call of this process.
    Now,
    /// By a process with a clock of its own.
    AtItsTime,
    /// By a call of this process, to a server whose key is one for openssl.
    OtherKey,
}

/// The cases that are run in this way.
fn run_in(way: Way) -> Option<Vec<Case>> {
    let way_of = |case: &Case| match (&case.time, case.usual_key()) {
        (Some(_), _) => Way::AtItsTime,
        (None, Some(_)) => Way::Now,
        (None, None) => Way::OtherKey,
    };
    Some(read()?.0.into_iter().filter(|case| case.is_run() && way_of(case) == way).collect())
}

/// What was counted: calls that were accepted, and those that were refused.
type Counts = [usize; 2];

/// Runs cases with each version, several at once, and counts: first those that are no exceptions.
#[track_caller]
fn run_all(
    cases: &[Case],
    run: impl Fn(&Case, &'static SupportedProtocolVersion) -> Result<Reply, String> + Sync,
) -> [Counts; 2] {
    let rows = VERSIONS.iter().flat_map(|version| cases.iter().map(move |case| (case, *version)));
    let rows = Mutex::new(rows);
    let work = || {
        let mut results = Vec::new();
        loop {
            let next = rows.lock().expect("taking a row does not panic").next();
            let Some((case, version)) = next else { return results };
            results.push((case.exception, run(case, version)));
        }
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no case panics")).collect()
    });
    let (mut table, mut counts) = (Table::new(), [[0; 2]; 2]);
    for (exception, result) in results {
        if let Some(reply) = table.take(result) {
            counts[usize::from(exception)][usize::from(reply.code != OK)] += 1;
        }
    }
    table.finish();
    counts
}

/// The counts of as many calls with each version.
fn with_each_version(counts: [Counts; 2]) -> [Counts; 2] {
    counts.map(|counts| counts.map(|count| count * VERSIONS.len()))
}

/// A call of this process.
fn call(case: &Case, config: &Value) -> Reply {
    match client_new(&config.to_string()) {
        (Some(client), _) => client.add(&task(&case.number)),
        (None, reply) => reply,
    }
}

#[test]
fn what_no_server_can_show_is_known() {
    let Some((cases, exceptions)) = read() else { return };
    assert_eq!(cases.len(), 208);
    let (exceptional, others): (Vec<&Case>, Vec<&Case>) = cases.iter().partition(|case| case.exception);
    let mut unpresentable: BTreeMap<Unpresentable, Vec<&str>> = BTreeMap::new();
    for case in others {
        if let Some(why) = case.unpresentable {
            unpresentable.entry(why).or_default().push(&case.id);
        }
    }
    println!("no live server can show: {unpresentable:#?}");
    let counts: Vec<(Unpresentable, usize)> = unpresentable.iter().map(|(why, ids)| (*why, ids.len())).collect();
    let expected = [
        (Unpresentable::Client, 10),
        (Unpresentable::RevocationList, 6),
        (Unpresentable::ChainDepth, 6),
        (Unpresentable::NoKey, 19),
    ];
    assert_eq!(counts, expected);
    assert_eq!(exceptional.len(), 58);
    let ids: BTreeSet<&str> = exceptional.iter().map(|case| &*case.id).collect();
    let others: Vec<&str> = exceptions.iter().map(|id| &**id).filter(|id| !ids.contains(id)).collect();
    assert_eq!(others, NOT_IN_THE_VECTORS);
    let run = |exception| cases.iter().filter(|case| case.is_run() && case.exception == exception).count();
    println!("x509-limbo: {} others and {} exceptions are run", run(false), run(true));
    assert_eq!((run(false), run(true)), (109, 58));
}

#[test]
fn each_case_comes_to_its_verdict() {
    let Some(cases) = run_in(Way::Now) else { return };
    let [others, exceptions] = run_all(&cases, |case, version| {
        let key = case.usual_key().expect("its way is one of usual keys");
        case.run(version, key, case.host(), case.verdict, |config| call(case, config))
    });
    println!("x509-limbo, now: accepted and refused {others:?}, exceptions {exceptions:?}");
    assert_eq!([others, exceptions], with_each_version([[28, 71], [46, 5]]));
}

/// The library that sets the clock of a process.
fn faketime() -> Option<PathBuf> {
    let lib = Path::new("/usr/lib");
    let folders = std::fs::read_dir(lib).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let file = |folder: PathBuf| folder.join("faketime/libfaketime.so.1");
    let found = folders.chain([lib.to_owned()]).map(file).find(|file| file.exists());
    if found.is_none() {
        skipped("x509-limbo at other times: libfaketime.so.1 is not installed (Debian package faketime)");
    }
    found
}

/// A call by a process whose clock stands still at the case's time.
fn call_at_its_time(host: &Host, faketime: &Path, case: &Case, config: &Value) -> Reply {
    let time = case.time.as_deref().and_then(|time| time.strip_suffix("+00:00")).expect("a time of UTC");
    let mut command = host.command();
    command.args([&config.to_string(), &case.number]).env("LD_PRELOAD", faketime).env("TZ", "UTC0");
    // The deadline is measured by the other clock.
    command.env("FAKETIME", time.replace('T', " ")).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let output = String::from_utf8(succeed(&mut command).stdout).expect("text");
    let (first, text) = output.split_once('\n').expect("a line");
    let [clock, code, outcome] = first.split(' ').collect::<Vec<_>>()[..] else {
        panic!("not what it prints: {first}")
    };
    let seconds = time.split('.').next().expect("split gives one part at least");
    assert_eq!(clock, format!("{seconds}Z"), "the clock is not set");
    let number = |text: &str| text.parse().expect("a number");
    let reply = Reply { code: number(code), text: Some(text.to_owned()), outcome: number(outcome) };
    if reply.code != OK {
        assert_eq!(reply.json()["time"], clock, "the library has another clock");
    }
    reply
}

#[test]
fn each_case_of_another_time_comes_to_its_verdict() {
    let (Some(cases), Some(faketime)) = (run_in(Way::AtItsTime), faketime()) else { return };
    let host = Host::new("at_time");
    let [others, exceptions] = run_all(&cases, |case, version| {
        let key = case.usual_key().expect("all of them have one");
        let call = |config: &Value| call_at_its_time(&host, &faketime, case, config);
        case.run(version, key, case.host(), case.verdict, call)
    });
    println!("x509-limbo, at other times: accepted and refused {others:?}, exceptions {exceptions:?}");
    assert_eq!([others, exceptions], with_each_version([[3, 7], [3, 0]]));
}

#[test]
fn each_case_with_another_kind_of_key_comes_to_its_verdict() {
    let (Some(cases), Some(openssl)) =
        (run_in(Way::OtherKey), tool("x509-limbo with other keys", "openssl", "openssl"))
    else {
        return;
    };
    let [others, exceptions] = run_all(&cases, |case, version| {
        let run = |host: &str, verdict| {
            let key = Arc::new(OpensslKey::new(&openssl, &case.key));
            case.run(version, key, host, verdict, |config| call(case, config))
        };
        if !NO_KEY_FOR_TLS.contains(&&*case.id) {
            return run(case.host(), case.verdict);
        }
        assert_eq!(case.verdict, Verdict::Accept);
        let (reply, other) = (run(case.host(), Verdict::Refuse)?, run("another.example.com", Verdict::Refuse)?);
        match [&reply, &other].map(|reply| message(reply).contains(ANOTHER_NAME)) {
            [false, true] => Ok(reply),
            _ => Err(format!("{}: it is not the key that is refused: {reply:?}, {other:?}", case.id)),
        }
    });
    println!("x509-limbo, with other keys: accepted and refused {others:?}, exceptions {exceptions:?}");
    assert_eq!([others, exceptions], with_each_version([[0, 0], [1, 3]]));
}
