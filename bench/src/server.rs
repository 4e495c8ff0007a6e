//! Answers every appointment over http and https on loopback, as fast as it can, so that what is left is the client's.
//!
//!     bench-server [--pause-ms N] FOLDER
//!
//! Prints one line of JSON: the ports of both (`http`, `https`), and where in FOLDER the certificate of its authority
//! stands (`ca_file`). Serves until its standard input ends. `/answer-N` at the front of a path asks for an answer of N
//! bytes. With a pause every answer waits so long, so that every client has to wait for it.

use std::env;
use std::error::Error;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::ring::Ticketer;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

const START: &str = r#"{"status":1,"message":"success"#;
const END: &str = r#"","info":{"task_num":"202312210000001"}}"#;
const USAGE: &str = "bench-server [--pause-ms N] FOLDER";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (pause_ms, folder) = match arguments.iter().map(String::as_str).collect::<Vec<&str>>()[..] {
        [folder] => (0, folder),
        ["--pause-ms", pause_ms, folder] => (pause_ms.parse()?, folder),
        _ => return Err(USAGE.into()),
    };
    let pause = Duration::from_millis(pause_ms);
    let ca_file = Path::new(folder).join("ca.pem");
    let tls = Arc::new(certified(&ca_file)?);
    let http = listen(move |stream| serve(stream, pause))?;
    let https = listen(move |stream| {
        let mut connection = ServerConnection::new(Arc::clone(&tls)).map_err(io::Error::other)?;
        // Else a long answer goes out in pieces.
        connection.set_buffer_limit(None);
        serve(StreamOwned::new(connection, stream), pause)
    })?;
    println!("{}", json!({ "http": http, "https": https, "ca_file": ca_file }));
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// Makes an authority and a certificate of it, and writes the authority's to a file.
fn certified(ca_file: &Path) -> Result<ServerConfig, Box<dyn Error>> {
    let mut ca = CertificateParams::new([])?;
    // Of one name with the server's, it would be taken for a certificate that has signed itself.
    ca.distinguished_name.push(DnType::CommonName, "arctos bench CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
    let mut server = CertificateParams::new(["127.0.0.1", "::1", "localhost"].map(str::to_owned))?;
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Python refuses a certificate without it.
    server.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let server = server.signed_by(&key, &ca)?;
    fs::write(ca_file, ca.pem()).map_err(|error| format!("{}: {error}", ca_file.display()))?;

    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![server.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = Ticketer::new()?;
    Ok(config)
}

/// Serves each connection on a thread of its own, on one port of both families, IPv6 where the machine has it.
fn listen(serve: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static) -> io::Result<u16> {
    let (listeners, port) = loop {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = first.local_addr()?.port();
        match TcpListener::bind((Ipv6Addr::LOCALHOST, port)) {
            Ok(second) => break (vec![first, second], port),
            // Another program has it there.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(_) => break (vec![first], port),
        }
    };
    for listener in listeners {
        let serve = serve.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let serve = serve.clone();
                // A connection that fails is the client's to complain of.
                thread::spawn(move || {
                    let stream = stream?;
                    stream.set_nodelay(true)?;
                    serve(stream)
                });
            }
        });
    }
    Ok(port)
}

/// Answers the requests of a connection until the client closes it, or has asked for its end.
fn serve(mut stream: impl Read + Write, pause: Duration) -> io::Result<()> {
    let mut buffer = vec![0; 65536];
    let mut have = 0;
    let mut answer = Answer::of(0);
    loop {
        let request = loop {
            if let Some(request) = Request::read(&buffer[..have])? {
                break request;
            }
            if have == buffer.len() {
                buffer.resize(2 * have, 0);
            }
            match stream.read(&mut buffer[have..])? {
                0 => return Ok(()),
                more => have += more,
            }
        };
        if answer.asked != request.answer_bytes {
            answer = Answer::of(request.answer_bytes);
        }
        if !pause.is_zero() {
            thread::sleep(pause);
        }
        stream.write_all(&answer.text)?;
        stream.flush()?;
        if request.is_last {
            return Ok(());
        }
        buffer.copy_within(request.bytes..have, 0);
        have -= request.bytes;
    }
}

/// A whole request.
struct Request {
    bytes: usize,
    /// How long its answer shall be; 0 for the shortest.
    answer_bytes: usize,
    is_last: bool,
}

impl Request {
    /// The first one of these bytes, when it is all there.
    fn read(bytes: &[u8]) -> io::Result<Option<Request>> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
        let head = str::from_utf8(&bytes[..end]).map_err(io::Error::other)?;
        let mut lines = head.split("\r\n");
        let asked = lines.next().and_then(|line| line.split_once(" /answer-")).map(|(_, rest)| rest);
        let answer_bytes = asked.and_then(|rest| rest.split('/').next()?.parse().ok()).unwrap_or(0);
        let (mut length, mut is_last) = (0, false);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().map_err(io::Error::other)?;
            } else if name.eq_ignore_ascii_case("connection") {
                is_last = value.trim().eq_ignore_ascii_case("close");
            }
        }
        let whole = end + 4 + length;
        Ok((bytes.len() >= whole).then_some(Request { bytes: whole, answer_bytes, is_last }))
    }
}

/// An answer as it is sent.
struct Answer {
    asked: usize,
    text: Vec<u8>,
}

impl Answer {
    /// One with a document of so many bytes, or the shortest.
    fn of(asked: usize) -> Answer {
        let filling = " ".repeat(asked.saturating_sub(START.len() + END.len()));
        let document = format!("{START}{filling}{END}");
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", document.len());
        Answer { asked, text: (head + &document).into_bytes() }
    }
}
