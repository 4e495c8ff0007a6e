//! The proxies that banks have: squid and tinyproxy with a password, and mitmproxy, which looks into TLS. Each runs as a
//! child of the test, on loopback and from a folder of its own.

use std::fs::{self, File, Permissions};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use arctos_tests::api::{CONNECT, NOT_CREATED, OK, Owned, Reply, TLS, task};
use arctos_tests::deadline::Scheme;
use arctos_tests::expected::{BROKEN_UNKNOWN, MADE};
use arctos_tests::ledger::truth;
use arctos_tests::server::{PATIENCE, Script, Server, Step};
use arctos_tests::stage::{Calls, Stage, config, config_tls, with};
use arctos_tests::tls::{Authority, Identity, Version};
use arctos_tests::tools::{Running, skipped, succeed, tool};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

/// What is on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Squid,
    Tinyproxy,
    Mitmproxy,
}

/// What a proxy is told.
struct Setting<'a> {
    /// The only port to which it connects, where it can be told so.
    port: u16,
    /// The file of the authority that one that looks into TLS trusts.
    authority: &'a Authority,
}

const USER: &str = "branch";

impl Kind {
    /// The password of the user, with as many signs as the proxy allows.
    fn password(self) -> &'static str {
        match self {
            Kind::Squid => "hunter2@marker:/#",
            Kind::Tinyproxy => "hunter2.marker",
            Kind::Mitmproxy => "hunter2@marker/#",
        }
    }

    /// User and password as they stand in a URL.
    fn credentials(self) -> String {
        let password = self.password().replace('@', "%40").replace(':', "%3A").replace('/', "%2F").replace('#', "%23");
        format!("{USER}:{password}")
    }
}

/// A proxy that runs.
struct Real {
    kind: Kind,
    process: Running,
    address: SocketAddr,
    folder: TempDir,
    _port: Port,
}

/// A port that the system gives to nobody else as long as this lives, whoever listens on it or listens no more.
struct Port(Socket);

impl Port {
    fn new() -> Port {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("SO_REUSEADDR");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
        Port(socket)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("an address").as_socket().expect("of the net")
    }
}

impl Real {
    /// Starts one and waits until it listens; `None`, and a line that says so, where it is not installed.
    fn start(kind: Kind, setting: &Setting) -> Option<Real> {
        let what = format!("{kind:?} on the way");
        let (program, package) = match kind {
            Kind::Squid => ("squid", "squid"),
            Kind::Tinyproxy => ("tinyproxy", "tinyproxy-bin"),
            Kind::Mitmproxy => ("mitmdump", "mitmproxy"),
        };
        let program = tool(&what, program, package)?;
        let folder = TempDir::new().expect("a folder");
        // Squid gives up the rights of root and writes as another user.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).expect("its own folder");
        let port = Port::new();
        let address = port.address();
        let mut command = Command::new(&program);
        match kind {
            Kind::Squid => squid(&mut command, folder.path(), address.port(), setting)?,
            Kind::Tinyproxy => tinyproxy(&mut command, folder.path(), address.port(), setting),
            Kind::Mitmproxy => mitmproxy(&mut command, folder.path(), address.port(), setting),
        }
        let said = File::create(folder.path().join("said")).expect("a file");
        command.current_dir(folder.path()).stdin(Stdio::null()).stderr(said.try_clone().expect("a file"));
        let process = Running(command.stdout(said).spawn().expect("it starts"));
        let mut real = Real { kind, process, address, folder, _port: port };
        real.await_start();
        Some(real)
    }

    /// Waits until it listens.
    fn await_start(&mut self) {
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).is_err() {
            let ended = self.process.0.try_wait().expect("a child");
            assert!(ended.is_none(), "{:?} has ended: {ended:?}\n{}", self.kind, self.said());
            assert!(Instant::now() < until, "{:?} does not listen\n{}", self.kind, self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it said, and wrote down.
    fn said(&self) -> String {
        ["said", "cache.log"].map(|name| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()).concat()
    }

    fn url(&self, credentials: &str) -> String {
        match credentials {
            "" => format!("http://{}", self.address),
            _ => format!("http://{credentials}@{}", self.address),
        }
    }

    /// Ends it as a crash does.
    fn kill(&mut self) {
        // One that has ended by itself cannot be killed, and need not be.
        let _ = self.process.0.kill();
        self.process.0.wait().expect("it ends");
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.kill();
        // Squid leaves its shared memory behind when it is killed.
        if self.kind == Kind::Squid {
            for entry in fs::read_dir("/dev/shm").expect("shared memory").flatten() {
                if entry.file_name().to_string_lossy().starts_with(&format!("{}-", service(self.address.port()))) {
                    fs::remove_file(entry.path()).expect("its own");
                }
            }
        }
    }
}

/// What a squid calls itself, and with it whatever it shares by name on the machine.
fn service(port: u16) -> String {
    format!("arctostest{port}")
}

/// A file that whoever runs the proxy can read.
fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).expect("the file is written");
    fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("its own file");
    path.to_str().expect("a path in UTF-8").to_owned()
}

fn squid(command: &mut Command, folder: &Path, port: u16, setting: &Setting) -> Option<()> {
    let htpasswd = tool("squid with a password", "htpasswd", "apache2-utils")?;
    let helper = Path::new("/usr/lib/squid/basic_ncsa_auth");
    if !helper.is_file() {
        skipped(&format!("squid with a password: there is no {}", helper.display()));
        return None;
    }
    let passwords = write(folder, "passwords", "");
    succeed(Command::new(htpasswd).args(["-b", &passwords, USER, Kind::Squid.password()]));
    let own = folder.to_str().expect("a path in UTF-8");
    let text = format!(
        "http_port 127.0.0.1:{port}\n\
         pid_filename none\n\
         cache deny all\n\
         cache_mem 1 MB\n\
         access_log none\n\
         cache_log {own}/cache.log\n\
         cache_store_log none\n\
         netdb_filename none\n\
         coredump_dir {own}\n\
         pinger_enable off\n\
         max_filedescriptors 1024\n\
         shutdown_lifetime 0 seconds\n\
         visible_hostname proxy.bank.example\n\
         connect_retries 0\n\
         auth_param basic program {} {passwords}\n\
         auth_param basic children 2 startup=1\n\
         acl known proxy_auth REQUIRED\n\
         acl allowed port {}\n\
         http_access deny !known\n\
         http_access allow known allowed\n\
         http_access deny all\n",
        helper.display(),
        setting.port,
    );
    command.args(["-N", "-n", &service(port), "-f", &write(folder, "squid.conf", &text)]);
    Some(())
}

fn tinyproxy(command: &mut Command, folder: &Path, port: u16, setting: &Setting) {
    let text = format!(
        "Port {port}\n\
         Listen 127.0.0.1\n\
         Timeout 60\n\
         MaxClients 50\n\
         Allow 127.0.0.1\n\
         BasicAuth {USER} {}\n\
         ConnectPort {}\n",
        Kind::Tinyproxy.password(),
        setting.port,
    );
    command.args(["-d", "-c", &write(folder, "tinyproxy.conf", &text)]);
}

fn mitmproxy(command: &mut Command, folder: &Path, port: u16, setting: &Setting) {
    let authority = fs::read_to_string(setting.authority.file()).expect("the authority's file");
    command.args(["--listen-host", "127.0.0.1", "--listen-port", &port.to_string()]);
    let confdir = format!("confdir={}", folder.display());
    let trusted = format!("ssl_verify_upstream_trusted_ca={}", write(folder, "authority.pem", &authority));
    let password = format!("proxyauth={USER}:{}", Kind::Mitmproxy.password());
    for option in [&confdir, &trusted, &password] {
        command.args(["--set", option]);
    }
}

/// A server and the proxy before it.
struct Behind {
    kind: Kind,
    real: Real,
    server: Server,
    authority: Authority,
    trusted: String,
}

impl Behind {
    fn start(kind: Kind, scheme: Scheme) -> Option<Behind> {
        let authority = Authority::new();
        let tls = match scheme {
            Scheme::Http => None,
            Scheme::Https(version) => Some(authority.server(Identity::right(version))),
        };
        let server = Server::start("127.0.0.1", tls);
        let setting = Setting { port: server.address().port(), authority: &authority };
        let real = Real::start(kind, &setting)?;
        // Whoever looks into TLS shows a certificate of its own authority.
        let trusted = match kind {
            Kind::Mitmproxy => real.folder.path().join("mitmproxy-ca-cert.pem").to_str().expect("UTF-8").to_owned(),
            Kind::Squid | Kind::Tinyproxy => authority.file().to_owned(),
        };
        Some(Behind { kind, real, server, authority, trusted })
    }

    fn config(&self, credentials: &str, keys: Value) -> Value {
        let tls = json!({ "roots": "file", "ca_file": self.trusted });
        let own = json!({ "tls": tls, "proxy": self.real.url(credentials), "retries": 2 });
        with(with(config(&self.server.base_url()), own), keys)
    }

    /// A client that knows the password.
    fn client(&self, keys: Value) -> Owned {
        Owned::new(&self.config(&self.kind.credentials(), keys))
    }

    /// A failure that is the proxy's, after so many tries.
    #[track_caller]
    fn refused(&self, reply: &Reply, attempts: u32, words: &[&str]) {
        let proxy = self.real.address.to_string();
        assert_eq!((reply.code, reply.outcome), (CONNECT, NOT_CREATED), "{reply:?}");
        let document = reply.json();
        assert_eq!(document["attempts"], attempts, "{reply:?}");
        assert_eq!((&document["proxy"], &document["host"]), (&json!(proxy), &json!(self.server.address().to_string())));
        let message = document["message"].as_str().expect("a message");
        for word in words.iter().chain([&"proxy", &&*proxy]) {
            assert!(message.contains(word), "no {word} in {message}");
        }
        assert!(!reply.text().contains("hunter2") && !reply.text().contains("YnJhbmNo"), "{reply:?}");
    }
}

/// Makes appointments by a proxy of this kind, and is refused by it.
fn with_a_password(kind: Kind) {
    for scheme in Scheme::ALL {
        let Some(behind) = Behind::start(kind, scheme) else { return };
        // What tinyproxy says to a wrong password is a server's status, not a proxy's.
        let wrong = if kind == Kind::Tinyproxy { "401" } else { "407" };
        let another = kind.credentials().replace(USER, "another");
        for (credentials, words) in [
            ("", ["407", "asks for a user and a password"]),
            ("branch:wrong", [wrong, "refused the user and password"]),
            (&*another, [wrong, "refused the user and password"]),
        ] {
            let reply = Owned::new(&behind.config(credentials, json!({}))).add(&task("REFUSED"));
            behind.refused(&reply, 1, &words);
        }
        assert_eq!(behind.server.connections(), 0, "{scheme:?}");
        let client = behind.client(json!({ "idle_timeout_ms": 60_000 }));
        let Behind { real, server, authority, .. } = behind;
        server.always(Script::forever(Script::served()));
        let mut calls = Calls::of(Stage::of(server, client));
        for index in 0..5 {
            calls.call(&format!("A-{index}"), MADE);
        }
        if kind == Kind::Mitmproxy {
            // It keeps the server's connection as long as it pleases.
            drop(real);
        }
        let seen = calls.end();
        assert_eq!((seen.len(), seen[0].numbers().len()), (1, 5), "{scheme:?}: one connection is kept");
        drop(authority);
    }
}

#[test]
fn squid_with_a_password() {
    with_a_password(Kind::Squid);
}

#[test]
fn tinyproxy_with_a_password() {
    with_a_password(Kind::Tinyproxy);
}

#[test]
fn mitmproxy_with_a_password() {
    with_a_password(Kind::Mitmproxy);
}

#[test]
fn a_port_that_the_proxy_does_not_allow() {
    for kind in [Kind::Squid, Kind::Tinyproxy] {
        let Some(behind) = Behind::start(kind, Scheme::Http) else { continue };
        let other = Server::plain();
        let keys = json!({ "base_url": other.base_url() });
        let reply = behind.client(keys).add(&task("A-1"));
        assert_eq!((reply.code, reply.outcome), (CONNECT, NOT_CREATED), "{kind:?}: {reply:?}");
        let document = reply.json();
        assert_eq!((&document["attempts"], &document["host"]), (&json!(1), &json!(other.address().to_string())));
        let message = document["message"].as_str().expect("a message");
        for word in ["403", &behind.real.address.to_string(), "allowed"] {
            assert!(message.contains(word), "{kind:?}: {message}");
        }
        assert_eq!((other.connections(), behind.server.connections()), (0, 0), "{kind:?}");
    }
}

#[test]
fn a_server_that_is_down_behind_the_proxy() {
    // Tinyproxy says 500, which any defect may be.
    for (kind, attempts, status) in [(Kind::Squid, 3, "503"), (Kind::Tinyproxy, 1, "500"), (Kind::Mitmproxy, 3, "502")]
    {
        for scheme in [Scheme::Http, Scheme::Https(Version::Tls13)] {
            let Some(behind) = Behind::start(kind, scheme) else { break };
            behind.server.down();
            let reply = behind.client(json!({})).add(&task("A-1"));
            behind.refused(&reply, attempts, &[status]);
            // It comes up again.
            behind.server.up();
            behind.server.always(Script::served().close());
            assert_eq!(behind.client(json!({})).add(&task("A-2")).code, OK, "{kind:?}");
            assert_eq!(behind.server.ledger().made("A-2"), 1, "{kind:?}");
        }
    }
}

#[test]
fn a_proxy_that_is_killed_after_the_request_leaves_it_open() {
    for kind in [Kind::Squid, Kind::Tinyproxy, Kind::Mitmproxy] {
        for scheme in [Scheme::Http, Scheme::Https(Version::Tls13)] {
            let Some(mut behind) = Behind::start(kind, scheme) else { break };
            behind.server.next(Script::made().then(Step::AwaitRelease));
            let client = behind.client(json!({}));
            let reply = std::thread::scope(|scope| {
                let call = scope.spawn(|| client.add(&task("A-1")));
                behind.server.await_requests(1).unwrap();
                behind.real.kill();
                call.join().expect("the call returns")
            });
            assert_eq!(
                (reply.code, reply.outcome),
                (BROKEN_UNKNOWN.code, BROKEN_UNKNOWN.outcome),
                "{kind:?}: {reply:?}"
            );
            assert_eq!(reply.json()["attempts"], 1, "{reply:?}");
            behind.server.release();
            let seen = behind.server.settle(0).unwrap();
            truth(&reply, behind.server.ledger().made("A-1"), &seen[0].exchanges).unwrap();
            // Now nothing goes out.
            let reply = client.add(&task("A-2"));
            behind.refused(&reply, 3, &[]);
            assert_eq!(behind.server.connections(), 1, "{kind:?}");
        }
    }
}

#[test]
fn a_proxy_that_looks_into_tls_is_told_by_its_authority() {
    for version in [Version::Tls12, Version::Tls13] {
        let Some(behind) = Behind::start(Kind::Mitmproxy, Scheme::Https(version)) else { return };
        behind.server.always(Script::served().close());
        // Those that the server's own authority would satisfy, and those of the system.
        let file = config_tls("https://127.0.0.1", &behind.authority)["tls"].clone();
        for tls in [file, json!({ "roots": "system" }), json!({ "roots": "bundled" })] {
            let reply = behind.client(json!({ "tls": tls })).add(&task("REFUSED"));
            assert_eq!((reply.code, reply.outcome), (TLS, NOT_CREATED), "{tls}: {reply:?}");
            let document = reply.json();
            assert_eq!(
                (&document["attempts"], &document["host"]),
                (&json!(1), &json!(behind.server.address().to_string()))
            );
            let message = document["message"].as_str().expect("a message");
            assert!(message.contains("mitmproxy"), "the issuer is not told: {message}");
        }
        let found = behind.client(json!({})).diagnose();
        let steps = found.json()["steps"].clone();
        let tls = steps.as_array().and_then(|steps| steps.iter().find(|step| step["step"] == "tls"));
        let tls = tls.unwrap_or_else(|| panic!("{found:?}"));
        assert_eq!((found.code, &tls["inspected"], &tls["public"]), (OK, &json!(true), &json!(false)), "{found:?}");
        let made = behind.client(json!({})).add(&task("A-1"));
        assert_eq!((made.code, made.outcome), (MADE.code, MADE.outcome), "{made:?}");
        let ledger = behind.server.ledger();
        assert_eq!((ledger.made("REFUSED"), ledger.made("A-1")), (0, 1));
    }
}
