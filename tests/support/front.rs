//! Real fronts: nginx and haproxy, each in a folder of its own, before a server of the tests.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use socket2::Socket;
use tempfile::TempDir;

use crate::server::{PATIENCE, bound};
use crate::tls::{Authority, Identity, Version};
use crate::tools::tool;

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// nginx: a master and two workers.
    Nginx,
    /// haproxy: a master and one worker of two threads.
    Haproxy,
}

/// What a front is told besides where its server is.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// How long it keeps a client's connection that is idle.
    pub idle: Duration,
    /// How many seconds it tells clients in `Keep-Alive: timeout=`. nginx only.
    pub says: Option<u32>,
    /// After how many requests it closes a client's connection, as its answer says. nginx only.
    pub requests: Option<usize>,
    /// How long it waits for the server, to connect and to answer.
    pub server: Duration,
}

/// A front that runs: it listens on loopback, for http and https.
pub struct Front {
    program: Program,
    folder: TempDir,
    master: Child,
    http: SocketAddr,
    https: SocketAddr,
    /// Keep the ports before the front listens.
    _reserved: [Socket; 2],
}

impl Front {
    /// Starts the program before the server at this address. Its certificate is of this authority. When it is not
    /// installed, one line says that `what` is skipped.
    #[track_caller]
    pub fn start(
        what: &str,
        program: Program,
        server: SocketAddr,
        authority: &Authority,
        rules: &Rules,
    ) -> Option<Front> {
        let (name, package) = match program {
            Program::Nginx => ("nginx", "nginx-light"),
            Program::Haproxy => ("haproxy", "haproxy"),
        };
        let path = tool(what, name, package)?;
        let folder = TempDir::new().expect("a folder");
        let write = |file: &str, text: String| fs::write(folder.path().join(file), text).expect("a file");
        let reserved = [(); 2].map(|()| bound(SocketAddr::from(([127, 0, 0, 1], 0))));
        let [http, https] = reserved.each_ref().map(|socket| {
            let address = socket.local_addr().expect("an address");
            address.as_socket().expect("of the net")
        });
        write("front.pem", authority.pem(Identity::right(Version::Tls13).names));
        let mut command = Command::new(path);
        match program {
            Program::Nginx => {
                write("front.conf", nginx(server, http, https, rules));
                command.arg("-p").arg(folder.path()).args(["-e", "error.log", "-c", "front.conf"]);
            }
            Program::Haproxy => {
                write("front.conf", haproxy(server, http, https, rules));
                command.args(["-W", "-db", "-f", "front.conf"]);
            }
        }
        let output = File::create(folder.path().join("output.log")).expect("a file");
        command.current_dir(folder.path()).stdin(Stdio::null());
        command.stdout(output.try_clone().expect("a descriptor")).stderr(output);
        // SAFETY: prctl is async-signal-safe, and touches no memory.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        let master = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut front = Front { program, folder, master, http, https, _reserved: reserved };
        for address in [http, https] {
            front.wait("it listens", |_| TcpStream::connect(address).is_ok());
        }
        Some(front)
    }

    /// The base URL for http, or for https.
    pub fn base_url(&self, https: bool) -> String {
        if https { format!("https://{}", self.https) } else { format!("http://{}", self.http) }
    }

    /// Reloads gracefully: returns when workers that were there before have ended, and there are new ones.
    #[track_caller]
    pub fn reload(&mut self) {
        let before = self.workers();
        self.signal(match self.program {
            Program::Nginx => libc::SIGHUP,
            Program::Haproxy => libc::SIGUSR2,
        });
        self.wait("its workers are new", |front| {
            let now = front.workers();
            !now.is_empty() && !now.iter().any(|worker| before.contains(worker))
        });
    }

    /// Ends gracefully, when all its clients have gone.
    #[track_caller]
    pub fn stop(mut self) {
        self.signal(match self.program {
            Program::Nginx => libc::SIGQUIT,
            Program::Haproxy => libc::SIGUSR1,
        });
        self.wait("it has ended", |front| front.master.try_wait().expect("a child").is_some());
    }

    fn signal(&self, signal: libc::c_int) {
        let master = self.master.id().try_into().expect("a process's number");
        // SAFETY: nothing but a signal to a child that has not been waited for.
        let result = unsafe { libc::kill(master, signal) };
        assert_eq!(result, 0, "kill: {}", io::Error::last_os_error());
    }

    /// The processes whose parent is the master.
    fn workers(&self) -> Vec<u32> {
        let all = fs::read_dir("/proc").expect("Linux tells");
        let numbers = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        numbers.filter(|number| parent(*number) == Some(self.master.id())).collect()
    }

    #[track_caller]
    fn wait(&mut self, what: &str, ready: impl Fn(&mut Front) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !ready(self) {
            let ended = self.master.try_wait().expect("a child");
            if ended.is_some() || Instant::now() > until {
                panic!("{:?}, {ended:?}: not that {what}\n{}", self.program, self.logs());
            }
            // Nothing wakes anybody when another process comes so far.
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it wrote.
    pub fn logs(&self) -> String {
        let read = |file: &str| fs::read_to_string(self.folder.path().join(file)).unwrap_or_default();
        read("output.log") + &read("error.log")
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Ok(None) = self.master.try_wait() {
            // At once, with its workers, which nobody ends when the master is killed.
            self.signal(libc::SIGTERM);
            let _ = self.master.wait();
        }
    }
}

/// The parent of a process, as long as there is one of this number.
fn parent(process: u32) -> Option<u32> {
    let about = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Behind the program's name, which may hold anything, in parentheses: the state and the parent.
    about.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// The server stands there twice, so that a front that sends a request again has somewhere to send it.
fn nginx(server: SocketAddr, http: SocketAddr, https: SocketAddr, rules: &Rules) -> String {
    let says = rules.says.map_or_else(String::new, |seconds| format!(" {seconds}s"));
    let requests = rules.requests.map_or_else(String::new, |count| format!("keepalive_requests {count};"));
    let (idle, patience) = (rules.idle.as_millis(), rules.server.as_millis());
    format!(
        "daemon off;
worker_processes 2;
pid front.pid;
error_log error.log notice;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    upstream ledger {{
        server {server} max_fails=0;
        server {server} max_fails=0;
        keepalive 16;
    }}
    server {{
        listen {http};
        listen {https} ssl;
        ssl_certificate front.pem;
        ssl_certificate_key front.pem;
        keepalive_timeout {idle}ms{says};
        {requests}
        location / {{
            proxy_pass http://ledger;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_connect_timeout {patience}ms;
            proxy_read_timeout {patience}ms;
        }}
    }}
}}
"
    )
}

/// As [`nginx`]. The new worker takes the listeners over from the old one, as in Debian's own configuration.
fn haproxy(server: SocketAddr, http: SocketAddr, https: SocketAddr, rules: &Rules) -> String {
    assert!(rules.says.is_none() && rules.requests.is_none(), "haproxy knows no such rule");
    let (idle, patience) = (rules.idle.as_millis(), rules.server.as_millis());
    format!(
        "global
    nbthread 2
    stats socket unix@front.sock mode 600 level admin expose-fd listeners
defaults
    mode http
    timeout client 60s
    timeout http-request 60s
    timeout http-keep-alive {idle}ms
    timeout connect {patience}ms
    timeout server {patience}ms
    retries 2
    option redispatch
frontend front
    bind {http}
    bind {https} ssl crt front.pem
    default_backend ledger
backend ledger
    server one {server}
    server two {server}
"
    )
}
