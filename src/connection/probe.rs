//! The way to the server one step at a time, beside the connections that calls use, for a diagnosis.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use ureq::Agent;
use ureq::http::header::{CONNECTION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue};
use ureq::http::{Method, Request, Uri};
use ureq::unversioned::transport::ConnectionDetails;

use super::pool::Pool;
use super::socket::Socket;
use super::transport::{Line, NoResolver, Stream, Target, Wire};
use super::{Connection, cause};
use crate::call::{Call, Cause, Phase};
use crate::fork::Lock;
use crate::tls::{self, Shown};

/// What leads to the server, and what is asked there.
pub(crate) struct Probe {
    target: Target,
    settings: ureq::config::Config,
    base_url: String,
    headers: HeaderMap,
}

/// What the server answered.
pub(crate) struct Answered {
    pub status: u16,
    /// Its clock.
    pub date: Option<SystemTime>,
}

impl Connection {
    /// A way of its own, which resumes no session, so that the server shows its certificate.
    pub(crate) fn probe(&self) -> Probe {
        let target = self.way.with(|way| way.target.renewed());
        let mut headers = self.without_token.clone();
        headers.remove(CONTENT_TYPE);
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        Probe { target, settings: self.settings.clone(), base_url: self.base_url.clone(), headers }
    }
}

impl Probe {
    /// The addresses of the server, or of the proxy.
    pub(crate) fn addresses(&self, call: &Call) -> Result<Vec<SocketAddr>, Cause> {
        self.target.addresses(call)
    }

    /// A connection to one of them.
    pub(crate) fn connect(&self, call: &Call, addresses: Vec<SocketAddr>) -> Result<(Socket, SocketAddr), Cause> {
        self.target.connect(call, addresses)
    }

    /// The proxy's part.
    pub(crate) fn tunnel(&self, call: &Call, socket: &Socket) -> Result<(), Cause> {
        self.target.tunnel(call, socket)
    }

    /// TLS, and what the server showed, be it acceptable or not.
    pub(crate) fn secure(&self, call: &Call, socket: Socket) -> (Result<Stream, Cause>, Option<Shown>) {
        tls::watch(|| self.target.secure(call, socket))
    }

    /// Asks for the head of the base URL, without the token.
    pub(crate) fn head(&self, call: &Rc<Call>, stream: Stream) -> Result<Answered, Cause> {
        let unreadable = |_| Cause::Unreadable("the URL is none".to_owned());
        let uri: Uri = self.base_url.parse().map_err(unreadable)?;
        let mut request = Request::new(());
        *request.method_mut() = Method::HEAD;
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers.clone();
        let agent = Agent::with_parts(self.settings.clone(), Once(Lock::new(Some(stream))), NoResolver);
        call.phase(Phase::Request);
        let response = agent.run(request).map_err(|error| cause(call, &error));
        call.keep(None);
        let response = response?;
        let date = response.headers().get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        Ok(Answered { status: response.status().as_u16(), date })
    }
}

/// Hands out the one connection that it has.
struct Once(Lock<Option<Stream>>);

impl fmt::Debug for Once {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Once")
    }
}

impl ureq::unversioned::transport::Connector for Once {
    type Out = Wire;

    fn connect(&self, _: &ConnectionDetails, _: Option<()>) -> Result<Option<Wire>, ureq::Error> {
        let stream = self.0.with(Option::take);
        Ok(stream.map(|stream| Wire::new(Line::new(stream), Arc::new(Pool::new(0)))))
    }
}
