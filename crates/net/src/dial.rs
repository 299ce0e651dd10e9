//! Going out: one client for one address, over HTTP/2 on a shared connection or HTTP/1.1 on a few kept ones, with TLS or without.
//!
//! A request is tried once. A connection that turned out dead before anything was sent on it is replaced by a new one; everything else is the caller's to
//! repeat, who knows what may be repeated.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::proxy::Proxy;
use crate::socket::Socket;
use crate::tls::ClientTls;

/// Time to reach the other side, TLS included. A backend in another region answers within a tenth of it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The most that is read of an answer: a status with its details is a few hundred bytes, and nobody may fill our memory.
pub const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The smallest buffer of an answer's body, in bytes: most are statuses, and a page of metrics doubles it a few times.
const FIRST_BUFFER_BYTES: usize = 8 * 1024;

/// Idle HTTP/1.1 connections that are kept: what a window of requests in flight uses.
const MAX_IDLE_CONNECTIONS: usize = 16;

/// An HTTP/2 connection is asked for a sign of life this often while requests are open, and dropped if none comes.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the system keeps the certificates that it trusts; the first that exists counts. `SSL_CERT_FILE` goes first.
const TRUST_FILES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// What TLS needs of files, read once for any number of clients.
#[derive(Clone)]
pub struct TlsSetup {
    config: Arc<rustls::ClientConfig>,
    server_name: Option<String>,
}

impl TlsSetup {
    /// Reads certificates. `only_http2` is for gRPC.
    pub fn read(tls: &ClientTls, only_http2: bool) -> Result<TlsSetup, DialConfigError> {
        Ok(TlsSetup {
            config: Arc::new(client_config(tls, only_http2)?),
            server_name: tls.server_name_override.clone(),
        })
    }

    /// The same for a protocol that is not HTTP, which nobody negotiates.
    pub(crate) fn without_http(self) -> TlsSetup {
        let mut config = (*self.config).clone();
        config.alpn_protocols.clear();
        TlsSetup {
            config: Arc::new(config),
            ..self
        }
    }

    pub(crate) fn config(&self) -> &Arc<rustls::ClientConfig> {
        &self.config
    }

    pub(crate) fn name(&self, host: &str) -> Result<ServerName<'static>, DialConfigError> {
        let name = self.server_name.as_deref().unwrap_or(host);
        let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
        ServerName::try_from(name.clone()).map_err(|_| DialConfigError::Name(name))
    }
}

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DialConfigError {
    #[error("cannot read certificates from {}: {why}", path.display())]
    File { path: PathBuf, why: String },
    #[error("no trusted certificates were found in this system; name a `ca_file`")]
    NoTrust,
    #[error("certificate and key do not work together: {0}")]
    Identity(rustls::Error),
    #[error("`{0}` is not a name that a certificate can have")]
    Name(String),
}

/// Why a request has no answer. Whether the other side acted on it is unknown.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("cannot connect to {address}: {why}")]
    Connect { address: String, why: String },
    #[error("the connection to {address} broke: {why}")]
    Broken { address: String, why: String },
    #[error("the answer of {address} is larger than {limit_bytes} bytes")]
    TooLarge { address: String, limit_bytes: usize },
    #[error("there is no memory for the answer of {address} now")]
    NoRoom { address: String },
}

/// What is done with the body of an answer.
pub enum Reading<'a> {
    /// It is kept, up to `limit_bytes`. `room` is asked before a buffer grows by so many bytes.
    Keep {
        limit_bytes: usize,
        room: &'a mut (dyn FnMut(u64) -> bool + Send),
    },
    /// Nobody wants it: the head is the answer, and a connection that would still bring a body is closed.
    Leave,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

/// A client for one host and port.
pub struct Client {
    host: String,
    port: u16,
    tls: Option<(tokio_rustls::TlsConnector, ServerName<'static>)>,
    /// Without TLS nobody says which version is spoken: gRPC is HTTP/2 by prior knowledge, other protocols HTTP/1.1.
    prior_http2: bool,
    proxy: Option<Proxy>,
    shared: tokio::sync::Mutex<Option<http2::SendRequest<Full<Bytes>>>>,
    idle: Mutex<Vec<http1::SendRequest<Full<Bytes>>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Client({}{})",
            self.address(),
            if self.tls.is_some() { ", TLS" } else { "" }
        )
    }
}

enum Connection {
    Shared(http2::SendRequest<Full<Bytes>>),
    Own(http1::SendRequest<Full<Bytes>>),
}

impl Client {
    /// Reads certificates; connects with the first request.
    pub fn new(host: &str, port: u16, tls: Option<&ClientTls>, prior_http2: bool) -> Result<Client, DialConfigError> {
        let tls = match tls {
            Some(tls) => Some(TlsSetup::read(tls, prior_http2)?),
            None => None,
        };
        Client::with(host, port, tls.as_ref(), prior_http2)
    }

    /// As [`Client::new`], with certificates that have been read.
    pub fn with(host: &str, port: u16, tls: Option<&TlsSetup>, prior_http2: bool) -> Result<Client, DialConfigError> {
        let tls = match tls {
            Some(tls) => Some((Arc::clone(&tls.config).into(), tls.name(host)?)),
            None => None,
        };
        Ok(Client {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            tls,
            prior_http2,
            proxy: None,
            shared: tokio::sync::Mutex::default(),
            idle: Mutex::default(),
        })
    }

    /// The same, through a proxy if there is one.
    #[must_use]
    pub fn through(self, proxy: Option<Proxy>) -> Client {
        Client { proxy, ..self }
    }

    /// `host:port`, as it belongs into `Host` and messages.
    pub fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Sends a request and reads its answer. The request's URI is a whole one (`http://host:port/path`). Dropping the future gives the request up.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, DialError> {
        let keep = Reading::Keep {
            limit_bytes: MAX_ANSWER_BYTES,
            room: &mut |_| true,
        };
        self.send_reading(request, keep).await
    }

    /// As [`Client::send`], for answers that are larger, or whose bodies nobody wants.
    pub async fn send_reading(
        &self,
        mut request: Request<Full<Bytes>>,
        reading: Reading<'_>,
    ) -> Result<Answer, DialError> {
        match self.connection().await? {
            Connection::Shared(mut sender) => {
                let response = sender
                    .send_request(request)
                    .await
                    .map_err(|error| self.broken(&error))?;
                self.read(response, reading).await.map(|(answer, _)| answer)
            }
            Connection::Own(mut sender) => {
                // HTTP/1.1 names the host in a header and only the path in its first line. Who signs the header has set it.
                if let Ok(host) = self.address().parse() {
                    request.headers_mut().entry(http::header::HOST).or_insert(host);
                }
                match self.proxy.as_ref().filter(|_| self.tls.is_none()) {
                    // A proxy is told the whole of it.
                    Some(proxy) => {
                        if let Some(authorization) = proxy.authorization() {
                            let name = http::header::PROXY_AUTHORIZATION;
                            request.headers_mut().insert(name, authorization.clone());
                        }
                    }
                    None => {
                        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).parse();
                        if let Ok(path) = path {
                            *request.uri_mut() = path;
                        }
                    }
                }
                let response = sender
                    .send_request(request)
                    .await
                    .map_err(|error| self.broken(&error))?;
                // Not the backend's word: it has seen nothing.
                if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED && self.proxy.is_some() {
                    return Err(DialError::Connect {
                        address: self.address(),
                        why: "the proxy wants another user or password (407)".to_owned(),
                    });
                }
                let (answer, is_read) = self.read(response, reading).await?;
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                if is_read && idle.len() < MAX_IDLE_CONNECTIONS && !sender.is_closed() {
                    idle.push(sender);
                }
                Ok(answer)
            }
        }
    }

    /// The answer, and whether all of it was read.
    async fn read(&self, response: Response<Incoming>, reading: Reading<'_>) -> Result<(Answer, bool), DialError> {
        let (head, mut incoming) = response.into_parts();
        let mut answer = Answer {
            status: head.status,
            headers: head.headers,
            body: Bytes::new(),
            trailers: HeaderMap::new(),
        };
        let Reading::Keep { limit_bytes, room } = reading else {
            return Ok((answer, incoming.is_end_stream()));
        };
        let mut body = BytesMut::new();
        while let Some(frame) = incoming.frame().await {
            let data = match frame.map_err(|error| self.broken(&error))?.into_data() {
                Ok(data) => data,
                Err(frame) => {
                    answer.trailers = frame.into_trailers().unwrap_or_default();
                    continue;
                }
            };
            let arrived = body.len() + data.len();
            if arrived > limit_bytes {
                return Err(DialError::TooLarge {
                    address: self.address(),
                    limit_bytes,
                });
            }
            if arrived > body.capacity() {
                let capacity = (arrived * 2).clamp(FIRST_BUFFER_BYTES, limit_bytes.max(FIRST_BUFFER_BYTES));
                if !room((capacity - body.capacity()) as u64) {
                    return Err(DialError::NoRoom {
                        address: self.address(),
                    });
                }
                body.reserve(capacity - body.len());
            }
            body.extend_from_slice(&data);
        }
        answer.body = body.freeze();
        Ok((answer, true))
    }

    fn broken(&self, error: &hyper::Error) -> DialError {
        let why =
            std::error::Error::source(error).map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
        DialError::Broken {
            address: self.address(),
            why,
        }
    }

    /// A connection that is alive as far as one can tell.
    async fn connection(&self) -> Result<Connection, DialError> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        while let Some(mut sender) = idle() {
            if sender.ready().await.is_ok() {
                return Ok(Connection::Own(sender));
            }
        }
        // Held while connecting: whoever comes meanwhile waits for the same connection instead of making another. Where it turns out to be
        // HTTP/1.1, each makes its own.
        let mut shared = self.shared.lock().await;
        if let Some(sender) = shared.as_mut() {
            if sender.ready().await.is_ok() {
                return Ok(Connection::Shared(sender.clone()));
            }
            *shared = None;
        }
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.connect()).await;
        let connection = connected.unwrap_or_else(|_| {
            Err(DialError::Connect {
                address: self.address(),
                why: format!("no answer in {CONNECT_TIMEOUT:?}"),
            })
        })?;
        if let Connection::Shared(sender) = &connection {
            *shared = Some(sender.clone());
        }
        Ok(connection)
    }

    async fn connect(&self) -> Result<Connection, DialError> {
        let failed = |why: String| DialError::Connect {
            address: self.address(),
            why,
        };
        let socket: Box<dyn Socket> = match &self.proxy {
            Some(proxy) => {
                let through = match self.tls.is_some() {
                    true => proxy.tunnel(&self.address()).await,
                    false => proxy.connect().await,
                };
                through.map_err(failed)?
            }
            None => {
                let socket = TcpStream::connect((self.host.as_str(), self.port))
                    .await
                    .map_err(|error| failed(error.to_string()))?;
                socket.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
                Box::new(socket)
            }
        };
        match &self.tls {
            None => self.handshake(socket, self.prior_http2).await,
            Some((connector, name)) => {
                let stream = connector
                    .connect(name.clone(), socket)
                    .await
                    .map_err(|error| failed(format!("TLS: {error}")))?;
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                if self.prior_http2 && !http2 {
                    return Err(failed("the server does not offer HTTP/2 (ALPN `h2`)".to_owned()));
                }
                self.handshake(stream, http2).await
            }
        }
    }

    async fn handshake(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        http2: bool,
    ) -> Result<Connection, DialError> {
        let failed = |error: hyper::Error| DialError::Connect {
            address: self.address(),
            why: error.to_string(),
        };
        let io = TokioIo::new(stream);
        if http2 {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIMEOUT)
                .handshake(io)
                .await
                .map_err(failed)?;
            // How it ends is told to the requests on it.
            tokio::spawn(async move { drop(connection.await) });
            Ok(Connection::Shared(sender))
        } else {
            let (sender, connection) = http1::handshake(io).await.map_err(failed)?;
            tokio::spawn(async move { drop(connection.await) });
            Ok(Connection::Own(sender))
        }
    }
}

fn client_config(tls: &ClientTls, only_http2: bool) -> Result<rustls::ClientConfig, DialConfigError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(tls.min_version.and_newer())
        .map_err(DialConfigError::Identity)?;
    let builder = if tls.insecure_skip_verify {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(BelieveAnyone(provider)))
    } else {
        builder.with_root_certificates(roots(tls)?)
    };
    let mut config = match tls.cert_file.as_ref().zip(tls.key_file.as_ref()) {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| DialConfigError::File {
                path: key.clone(),
                why: error.to_string(),
            })?;
            builder
                .with_client_auth_cert(certificates(certificate)?, key_der)
                .map_err(DialConfigError::Identity)?
        }
    };
    config.alpn_protocols = match only_http2 {
        true => vec![b"h2".to_vec()],
        false => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    Ok(config)
}

fn roots(tls: &ClientTls) -> Result<rustls::RootCertStore, DialConfigError> {
    let mut roots = rustls::RootCertStore::empty();
    let file = match &tls.ca_file {
        Some(file) => Some(file.clone()),
        None => trust_file(),
    };
    for certificate in certificates(&file.ok_or(DialConfigError::NoTrust)?)? {
        // A bundle may hold certificates that rustls does not read; the others are trusted all the same.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        return Err(DialConfigError::NoTrust);
    }
    Ok(roots)
}

/// `insecure_skip_verify`: the other side must hold the key of its certificate, and nothing more is asked.
#[derive(Debug)]
struct BelieveAnyone(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for BelieveAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn trust_file() -> Option<PathBuf> {
    std::env::var_os("SSL_CERT_FILE")
        .map(PathBuf::from)
        .or_else(|| TRUST_FILES.iter().map(PathBuf::from).find(|path| path.exists()))
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, DialConfigError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| DialConfigError::File {
            path: path.clone(),
            why: error.to_string(),
        })
}

/// A URL's parts as far as a client needs them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `Some` if a scheme was written.
    pub https: Option<bool>,
    pub host: String,
    pub port: Option<u16>,
    /// From the first slash on; empty if there is none.
    pub path: String,
}

impl Target {
    /// Reads `host:port`, `http://host`, `https://host:port/path`. `Err` says what is wrong.
    pub fn parse(text: &str) -> Result<Target, String> {
        const SCHEMES: [(&str, bool); 2] = [("http://", false), ("https://", true)];
        if text.is_empty() {
            return Err("it is empty".to_owned());
        }
        let scheme = SCHEMES
            .iter()
            .find_map(|(scheme, https)| text.strip_prefix(scheme).map(|rest| (rest, *https)));
        if scheme.is_none()
            && let Some((scheme, _)) = text.split_once("://")
        {
            return Err(format!("`{scheme}://` is not supported; use http:// or https://"));
        }
        let (rest, https) = scheme.map_or((text, None), |(rest, https)| (rest, Some(https)));
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let uri: http::uri::Authority = authority
            .parse()
            .map_err(|_| format!("`{authority}` is not host:port"))?;
        if authority.contains('@') {
            return Err("it must not hold a user or password; use `headers`".to_owned());
        }
        if uri.host().is_empty() {
            return Err("it has no host".to_owned());
        }
        let port = match authority
            .strip_prefix(uri.host())
            .and_then(|rest| rest.strip_prefix(':'))
        {
            Some("") => return Err("the port is missing".to_owned()),
            Some(port) => Some(
                port.parse()
                    .map_err(|_| format!("the port {port} is not a number up to 65535"))?,
            ),
            None => None,
        };
        Ok(Target {
            https,
            host: uri.host().to_owned(),
            port,
            path: path.to_owned(),
        })
    }
}

/// Headers from a configuration. `Err` names the one that is wrong, never its value.
pub fn headers<'a>(map: impl IntoIterator<Item = (&'a String, &'a String)>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (key, value) in map {
        let name: http::HeaderName = key
            .parse()
            .map_err(|_| format!("`{key}` is not the name of a header"))?;
        if headers.contains_key(&name) {
            return Err(format!("the header `{name}` is set twice"));
        }
        let mut value: http::HeaderValue = value
            .parse()
            .map_err(|_| format!("the value of the header `{name}` has characters that are not allowed"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let got = match Target::parse(text) {
            Ok(Target {
                https,
                host,
                port,
                path,
            }) => format!("{https:?} {host} {port:?} {path}"),
            Err(why) => why,
        };
        assert_eq!(got, expect, "{text}");
    }

    #[test]
    fn targets() {
        check("backend:4317", "None backend Some(4317) ");
        check(
            "https://otlp.example.com/base",
            "Some(true) otlp.example.com None /base",
        );
        check("http://[::1]:4318/", "Some(false) [::1] Some(4318) /");
        check("", "it is empty");
        check("ftp://x", "`ftp://` is not supported; use http:// or https://");
        check("host:", "the port is missing");
        check(
            "https://me:secret@host/",
            "it must not hold a user or password; use `headers`",
        );
        check("host:99999", "the port 99999 is not a number up to 65535");
        check("https://", "`` is not host:port");
    }

    #[test]
    fn secrets_are_not_in_messages() {
        let wrong = headers([(&"authorization".to_owned(), &"Bearer s3cret\n".to_owned())]).expect_err("a line break");
        assert!(!wrong.contains("s3cret"), "{wrong}");
        let fine = headers([(&"Authorization".to_owned(), &"Bearer s3cret".to_owned())]).expect("fine");
        assert!(!format!("{fine:?}").contains("s3cret"));
    }
}
