//! The way to the collector: TCP, with TLS where the endpoint says `https`, for both protocols alike.
//!
//! The libraries that use a connection tell of a failed one in words of their own layers. What went wrong is kept here
//! in plain words for the one line that the service logs about it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::Service;

use crate::settings::Protocol;
use crate::tls::{self, Files, TlsError};

/// Makes connections to one collector. Clones share what they know about failures.
#[derive(Clone)]
pub(crate) struct Reach {
    connector: HttpsConnector<HttpConnector>,
    secure: bool,
    protocol: Protocol,
    timeout: Duration,
    trouble: Arc<Mutex<Option<String>>>,
}

/// The connection to the collector failed; the reason is kept by [`Reach`] and repeated here.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unreachable(String);

impl Reach {
    /// Reads certificates if `endpoint` is `https`; connects with the first request.
    pub(crate) fn new(endpoint: &Uri, protocol: Protocol, files: &Files, timeout: Duration) -> Result<Reach, TlsError> {
        let secure = endpoint.scheme() == Some(&Scheme::HTTPS);
        let alpn: &[u8] = match protocol {
            Protocol::Grpc => b"h2",
            Protocol::Http => b"http/1.1",
        };
        // Without https no file is read and none can be wrong.
        let config = if secure {
            files.config(alpn)?
        } else {
            tls::trusting_nobody()
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        Ok(Reach {
            connector: HttpsConnector::from((tcp, config)),
            secure,
            protocol,
            timeout,
            trouble: Arc::default(),
        })
    }

    /// Why the last connection failed, or else what the exporter itself says.
    pub(crate) fn explain(&self, error: &dyn fmt::Display) -> String {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.clone().unwrap_or_else(|| error.to_string())
    }
}

impl Service<Uri> for Reach {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Unreachable;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Unreachable>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unreachable>> {
        self.connector
            .poll_ready(cx)
            .map_err(|error| Unreachable(error.to_string()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let host = uri.authority().map_or_else(String::new, ToString::to_string);
        // The caller's own idea of TLS does not count: tonic is told `http`, so that its TLS stays out of this even in
        // a program that turns it on for other clients.
        let mut parts = uri.into_parts();
        parts.scheme = Some(if self.secure { Scheme::HTTPS } else { Scheme::HTTP });
        let uri = Uri::from_parts(parts).map_err(|error| error.to_string());
        let mut connector = self.connector.clone();
        let (trouble, timeout, grpc) = (self.trouble.clone(), self.timeout, self.protocol == Protocol::Grpc);
        Box::pin(async move {
            let connect = async {
                let stream = connector
                    .call(uri?)
                    .await
                    .map_err(|error| plain(error.as_ref(), &host))?;
                match &stream {
                    MaybeHttpsStream::Https(tls) if grpc && tls.inner().get_ref().1.alpn_protocol() != Some(b"h2") => {
                        Err(format!(
                            "{host} offers no HTTP/2, which gRPC needs (is it the port for OTLP over HTTP?)"
                        ))
                    }
                    _ => Ok(stream),
                }
            };
            let connected = tokio::time::timeout(timeout, connect)
                .await
                .unwrap_or_else(|_| Err(format!("{host} does not answer within {timeout:?}")));
            *trouble.lock().unwrap_or_else(PoisonError::into_inner) = connected.as_ref().err().cloned();
            connected.map_err(Unreachable)
        })
    }
}

/// What a failed connection means: rustls' own reason if there is one, else the system's.
fn plain(error: &(dyn std::error::Error + 'static), host: &str) -> String {
    let mut innermost = error;
    loop {
        if let Some(tls) = innermost.downcast_ref::<rustls::Error>() {
            return tls::plain(tls, host);
        }
        // An `io::Error` shows what it wraps to `get_ref` only; its `source` is the source of that.
        let inside = innermost
            .downcast_ref::<std::io::Error>()
            .and_then(|io| io.get_ref())
            .map(|inside| inside as &(dyn std::error::Error + 'static));
        match inside.or_else(|| innermost.source()) {
            Some(next) => innermost = next,
            None => return format!("no connection to {host}: {innermost}"),
        }
    }
}
