//! The documented arctos endpoint on loopback, for people who have no vendor account.
//!
//! `README.md` beside this crate lists the test numbers that make it misbehave.

mod behaviour;
mod book;
mod contract;
mod service;
mod tls;
mod wire;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use service::Service;

/// Serves the documented arctos endpoint on loopback.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Loopback address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080", value_parser = loopback)]
    listen: SocketAddr,
    /// Bearer token that requests must carry
    #[arg(long, default_value = "sandbox-token", value_parser = header_token)]
    token: String,
    /// Serve https with a certificate made at start, for localhost, 127.0.0.1 and ::1
    #[arg(long)]
    tls: bool,
    /// Where --tls writes the CA certificate (PEM) that clients have to trust
    #[arg(long, value_name = "FILE", default_value = "arctos-sandbox-ca.pem", requires = "tls")]
    ca_file: PathBuf,
    /// How long a "slow-" appointment waits for its answer, in milliseconds
    #[arg(long, value_name = "N", default_value_t = 60_000)]
    slow_ms: u64,
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "expected an IP address and a port, such as 127.0.0.1:8080".to_owned())?;
    if !address.ip().is_loopback() {
        return Err("not a loopback address; the sandbox serves this machine only".to_owned());
    }
    Ok(address)
}

fn header_token(text: &str) -> Result<String, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("expected visible ASCII characters without blanks".to_owned());
    }
    Ok(text.to_owned())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            complain(&message);
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), String> {
    // Before the address is printed: whoever reads it may send the signal at once.
    let stop = stop_signal().map_err(|error| format!("cannot wait for signals: {error}"))?;
    let listener = TcpListener::bind(options.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", options.listen))?;
    let address = listener.local_addr().map_err(|error| format!("cannot read the listening address: {error}"))?;
    let tls = if options.tls { Some(tls::acceptor(&options.ca_file)?) } else { None };

    if tls.is_some() {
        say(&format!("listening on https://{address}"));
        say(&format!("CA file: {}", options.ca_file.display()));
    } else {
        say(&format!("listening on http://{address}"));
    }

    let service = Service::new(options.token, Duration::from_millis(options.slow_ms));
    tokio::select! {
        () = accept(listener, tls, Arc::new(service)) => Ok(()),
        () = stop => Ok(()),
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, service: Arc<Service>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Else an answer over TLS waits for the client's delayed ACK of the session tickets. Fails only on
                // a connection that has ended already.
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(stream, tls.clone(), Arc::clone(&service)));
            }
            Err(error) => {
                complain(&format!("cannot accept a connection: {error}"));
                // Out of descriptors, for example: without a pause the loop would spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, service: Arc<Service>) {
    match tls {
        None => wire::serve(stream, service).await,
        Some(acceptor) => match acceptor.accept(stream).await {
            Ok(stream) => wire::serve(stream, service).await,
            Err(error) => complain(&format!("TLS handshake failed: {error}")),
        },
    }
}

/// Resolves at the first SIGINT or SIGTERM after this function has returned.
#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Resolves at the first Ctrl-C or Ctrl-Break after this function has returned.
#[cfg(windows)]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::windows::{ctrl_break, ctrl_c};

    let mut ctrl_c = ctrl_c()?;
    let mut ctrl_break = ctrl_break()?;
    Ok(async move {
        tokio::select! {
            _ = ctrl_c.recv() => {}
            _ = ctrl_break.recv() => {}
        }
    })
}

/// Prints a line to stdout and flushes it. A reader that went away, such as a script that wanted
/// the address only, must not stop the server.
fn say(line: &str) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "arctos-sandbox: {line}");
}
