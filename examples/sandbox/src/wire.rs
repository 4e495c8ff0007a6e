//! HTTP on one connection, and the endings that a well-behaved server would not choose.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::service::Service;

/// How a connection ends when its request gets no whole answer. The service returns it as its
/// error: the HTTP layer then stops without a byte, and leaves the stream to [`serve`].
#[derive(Clone, Debug)]
pub enum Ending {
    /// RST.
    Reset,
    /// A whole head, half of this body, then FIN.
    Truncated(String),
}

impl fmt::Display for Ending {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Ending::Reset => "reset",
            Ending::Truncated(_) => "truncated",
        })
    }
}

impl Error for Ending {}

/// A stream over TCP that can give up the layers above it.
pub trait OverTcp: AsyncRead + AsyncWrite + Unpin {
    /// The TCP stream below. Nothing more is sent from above, no close_notify either.
    fn into_tcp(self) -> TcpStream;
}

impl OverTcp for TcpStream {
    fn into_tcp(self) -> TcpStream {
        self
    }
}

impl OverTcp for TlsStream<TcpStream> {
    fn into_tcp(self) -> TcpStream {
        self.into_inner().0
    }
}

/// Serves one connection until either side ends it.
pub async fn serve(stream: impl OverTcp, service: Arc<Service>) {
    let respond = service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { service.call(request).await }
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), respond);
    // Other errors are the client's: it went away, or did not speak HTTP and was told.
    let Err(error) = (&mut connection).await else {
        return;
    };
    let ending = error.source().and_then(|source| source.downcast_ref::<Ending>()).cloned();
    if let Some(ending) = ending {
        // Fails only when the client has already closed: nobody is left to see the ending.
        let _ = end(connection.into_parts().io.into_inner(), ending).await;
    }
}

async fn end(mut stream: impl OverTcp, ending: Ending) -> io::Result<()> {
    match ending {
        Ending::Reset => stream.into_tcp().set_zero_linger(),
        Ending::Truncated(body) => {
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&body.as_bytes()[..body.len() / 2]).await?;
            stream.flush().await?;
            stream.into_tcp().shutdown().await
        }
    }
}
