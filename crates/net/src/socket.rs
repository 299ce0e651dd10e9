//! Going out without HTTP: connections for protocols that a caller speaks itself, with TLS or without, as [`dial`](crate::dial) opens them.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::dial::{DialConfigError, DialError, TlsSetup};
use crate::tls::ClientTls;

/// Time to reach the other side, TLS included. A backend in another region answers within a tenth of it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection, with TLS or without.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// Opens connections to any host.
#[derive(Clone)]
pub struct Dialer {
    tls: Option<TlsSetup>,
}

impl Dialer {
    /// Reads certificates.
    pub fn new(tls: Option<&ClientTls>) -> Result<Dialer, DialConfigError> {
        let tls = tls.map(|tls| TlsSetup::read(tls, false).map(TlsSetup::without_http));
        Ok(Dialer { tls: tls.transpose()? })
    }

    /// Connects, TLS included, or says within ten seconds why not.
    pub async fn connect(&self, host: &str, port: u16) -> Result<Box<dyn Socket>, DialError> {
        let failed = |why: String| DialError::Connect {
            address: format!("{host}:{port}"),
            why,
        };
        let connecting = async {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let socket = TcpStream::connect((bare, port))
                .await
                .map_err(|error| failed(error.to_string()))?;
            socket.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
            let Some(tls) = &self.tls else {
                return Ok(Box::new(socket) as Box<dyn Socket>);
            };
            let name: ServerName<'static> = tls.name(host).map_err(|error| failed(error.to_string()))?;
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(tls.config()));
            let stream = connector.connect(name, socket).await;
            let stream = stream.map_err(|error| failed(format!("TLS: {error}")))?;
            Ok(Box::new(stream) as Box<dyn Socket>)
        };
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
        connected.unwrap_or_else(|_| Err(failed(format!("no answer in {CONNECT_TIMEOUT:?}"))))
    }
}

/// Bytes that nobody can guess, for the nonces of handshakes; none if the system has none to give.
pub fn unguessable<const BYTES: usize>() -> Option<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).ok()?;
    Some(bytes)
}
