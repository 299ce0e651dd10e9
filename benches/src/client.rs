//! An OTLP/gRPC client that sends prepared requests over one HTTP/2 connection and times the acknowledgements.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// Level of the gzip that clients send: what the common SDKs' libraries default to.
const GZIP_LEVEL: i32 = 6;
/// Pause before a refused request is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(20);
/// Flag and length in front of a gRPC message.
const FRAME_HEAD: usize = 5;
/// Tries of one request before the benchmark gives up.
const MAX_TRIES: usize = 500;

#[derive(Clone, Copy)]
pub enum Service {
    Traces,
    Logs,
    Metrics,
}

impl Service {
    fn path(self) -> &'static str {
        match self {
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        }
    }
}

/// A gRPC message: flag, length, gzip of the encoded request.
pub fn frame(request: &[u8]) -> Bytes {
    frame_at(request, GZIP_LEVEL)
}

/// The same, packed harder or faster.
pub fn frame_at(request: &[u8], gzip_level: i32) -> Bytes {
    let level = libdeflater::CompressionLvl::new(gzip_level).expect("a level that libdeflate knows");
    let mut compressor = libdeflater::Compressor::new(level);
    let mut packed = vec![0; compressor.gzip_compress_bound(request.len())];
    let size = compressor
        .gzip_compress(request, &mut packed)
        .expect("the buffer has the bound's size");
    let mut framed = BytesMut::with_capacity(FRAME_HEAD + size);
    framed.put_u8(1);
    framed.put_u32(u32::try_from(size).expect("a request fits in 4 GiB"));
    framed.put_slice(&packed[..size]);
    framed.freeze()
}

/// What came of one request.
pub struct Sent {
    /// From the first try to the acknowledgement.
    pub latency: Duration,
    pub refused: usize,
}

#[derive(Clone)]
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
}

/// What a server said to one try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Acknowledged,
    /// To be sent again.
    Refused,
    /// Not to be sent again.
    Rejected,
}

/// One connection to a door, over either transport.
pub enum Door {
    Grpc(Client),
    Http(SocketAddr, hyper::client::conn::http1::SendRequest<Full<Bytes>>),
}

impl Door {
    pub async fn grpc(address: SocketAddr) -> Result<Self> {
        Ok(Self::Grpc(Client::connect(address).await?))
    }

    pub async fn http(address: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        tokio::spawn(connection);
        Ok(Self::Http(address, sender))
    }

    /// One try with spans. An error means that nothing is known: the connection broke, or nobody listens.
    pub async fn try_spans(&mut self, framed: Bytes) -> Result<Answer> {
        match self {
            Self::Grpc(client) => Ok(match client.attempt(Service::Traces, framed).await?.as_str() {
                "0" => Answer::Acknowledged,
                "1" | "4" | "8" | "10" | "11" | "14" | "15" => Answer::Refused,
                _ => Answer::Rejected,
            }),
            Self::Http(address, sender) => {
                let request = http::Request::post("/v1/traces")
                    .header("host", address.to_string())
                    .header("content-type", "application/x-protobuf")
                    .header("content-encoding", "gzip")
                    .body(Full::new(framed.slice(FRAME_HEAD..)))?;
                sender.ready().await?;
                let response = sender.send_request(request).await?;
                let status = response.status().as_u16();
                response.into_body().collect().await?;
                Ok(match status {
                    200..300 => Answer::Acknowledged,
                    429 | 502 | 503 | 504 => Answer::Refused,
                    _ => Answer::Rejected,
                })
            }
        }
    }
}

/// POST of a gzipped request over OTLP/HTTP, for peers that have no gRPC door. Takes a gRPC frame and drops its head.
pub async fn post(address: SocketAddr, path: &str, framed: Bytes) -> Result<()> {
    let request = http::Request::post(path)
        .header("host", address.to_string())
        .header("content-type", "application/x-protobuf")
        .header("content-encoding", "gzip")
        .body(Full::new(framed.slice(FRAME_HEAD..)))?;
    let socket = TcpStream::connect(address)
        .await
        .with_context(|| format!("connecting to {address}"))?;
    socket.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    ensure!(
        status.is_success(),
        "{path} answered {status}: {}",
        String::from_utf8_lossy(&body)
    );
    Ok(())
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(address)
            .await
            .with_context(|| format!("connecting to {address}"))?;
        socket.set_nodelay(true)?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await?;
        tokio::spawn(connection);
        Ok(Self {
            sender,
            authority: address.to_string(),
        })
    }

    /// Sends until acknowledged; UNAVAILABLE and RESOURCE_EXHAUSTED are tried again.
    pub async fn send(&mut self, service: Service, framed: Bytes) -> Result<Sent> {
        let started = Instant::now();
        for refused in 0..MAX_TRIES {
            match self.attempt(service, framed.clone()).await?.as_str() {
                "0" => {
                    return Ok(Sent {
                        latency: started.elapsed(),
                        refused,
                    });
                }
                "8" | "14" => tokio::time::sleep(RETRY_AFTER).await,
                status => bail!("the server answered grpc-status {status}"),
            }
        }
        bail!("refused {MAX_TRIES} times")
    }

    async fn attempt(&mut self, service: Service, framed: Bytes) -> Result<String> {
        let request = http::Request::post(format!("http://{}{}", self.authority, service.path()))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-encoding", "gzip")
            .body(Full::new(framed))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        ensure!(response.status() == 200, "HTTP status {}", response.status());
        let from_headers = response.headers().get("grpc-status").cloned();
        let body = response.into_body().collect().await?;
        let status = from_headers
            .or_else(|| {
                body.trailers()
                    .and_then(|trailers| trailers.get("grpc-status").cloned())
            })
            .context("the answer carries no grpc-status")?;
        Ok(status.to_str()?.to_owned())
    }
}

/// GET on the query door; returns status and body.
pub async fn get(address: SocketAddr, path: &str) -> Result<(u16, Bytes)> {
    let socket = TcpStream::connect(address)
        .await
        .with_context(|| format!("connecting to {address}"))?;
    socket.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection);
    let request = http::Request::get(path)
        .header("host", address.to_string())
        .body(Full::new(Bytes::new()))?;
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}
