//! A receiver on real sockets over a graph that a test can look into, and the plainest possible clients.
#![allow(dead_code)] // Each test binary uses its part.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::{Batch, Signal};
use net::{Doors, Open};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use pipeline::{Ack, Budget, Entry, Intake, Ledger, Outcome};
use prost::Message;
use receivers::otlp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes the receiver may use, unless a test says otherwise.
pub const BUDGET_BYTES: u64 = 256 << 20;

pub struct Running {
    pub open: Open,
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    pub ledger: Ledger,
    pub budget: Budget,
    pub batches: Arc<Mutex<Vec<Batch>>>,
    /// What the graph answers from now on.
    pub outcome: Arc<Mutex<Outcome>>,
    pub counters: Arc<receivers::Counters>,
}

pub fn config() -> otlp::Config {
    let mut config = otlp::Config::both();
    let protocols = &mut config.protocols;
    protocols.grpc.as_mut().unwrap().endpoint = "127.0.0.1:0".parse().unwrap();
    protocols.http.as_mut().unwrap().endpoint = "127.0.0.1:0".parse().unwrap();
    config
}

/// Traces and logs go to a graph that keeps them; metrics have no pipeline.
pub async fn start() -> Running {
    start_with(&config(), BUDGET_BYTES).await
}

pub async fn start_with(config: &otlp::Config, budget_bytes: u64) -> Running {
    let ledger = Ledger::new();
    let budget = Budget::root("test", budget_bytes);
    let batches = Arc::new(Mutex::new(Vec::new()));
    let outcome = Arc::new(Mutex::new(Outcome::Delivered));
    let (kept, answer) = (batches.clone(), outcome.clone());
    let entry: Arc<dyn Entry> = Arc::new(move |batch: Batch, ack: Ack| {
        let outcome = answer.lock().unwrap().clone();
        if !matches!(outcome, Outcome::Retry { .. }) {
            kept.lock().unwrap().push(batch);
        }
        ack.resolve(outcome);
    });
    let routes = vec![(Signal::Traces, entry.clone()), (Signal::Logs, entry)];
    let intake = Intake::new("otlp", &ledger, budget.clone(), routes);
    let mut doors = Doors::new();
    let mounted = otlp::mount(config, intake, &mut doors).unwrap();
    let open = doors.open().await.unwrap();
    let address = |who: Option<String>| who.and_then(|who| open.address_of(&who));
    let grpc = address(mounted.grpc).unwrap();
    let http = address(mounted.http).unwrap();
    Running {
        open,
        grpc,
        http,
        ledger,
        budget,
        batches,
        outcome,
        counters: mounted.counters,
    }
}

impl Running {
    /// Closes the doors and checks that nothing is unaccounted for.
    pub async fn finish(self) {
        assert!(self.open.shutdown(Duration::from_secs(10)).await, "requests still ran");
        self.ledger.balance().unwrap();
        self.batches.lock().unwrap().clear();
        assert_eq!(self.budget.used_bytes(), 0, "all reserved memory was given back");
    }

    /// How often `reason` stands in the door's book for a signal, refused and rejected together.
    pub fn turned_away(&self, signal: Signal, reason: &str) -> u64 {
        let books = self.ledger.json();
        let doors = books["doors"].as_array().unwrap();
        let door = doors.iter().find(|d| d["signal"] == signal.as_str()).unwrap();
        ["refused", "rejected"]
            .iter()
            .map(|kind| door[kind][reason].as_u64().unwrap_or(0))
            .sum()
    }

    pub fn items(&self) -> u32 {
        self.batches.lock().unwrap().iter().map(|b| b.items).sum()
    }
}

// ---- Telemetry ----

pub fn text(value: &str) -> Option<AnyValue> {
    Some(AnyValue {
        value: Some(any_value::Value::StringValue(value.to_owned())),
    })
}

pub fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: text(value),
        ..KeyValue::default()
    }
}

pub fn resource() -> Resource {
    Resource {
        attributes: vec![attribute("service.name", "checkout")],
        ..Resource::default()
    }
}

pub fn span(n: u8) -> Span {
    Span {
        trace_id: vec![n; 16],
        span_id: vec![n; 8],
        name: format!("operation {n}"),
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_001_000_000,
        attributes: vec![attribute("http.route", "/cart/{id}"), attribute("peer", "10.0.0.1")],
        ..Span::default()
    }
}

pub fn traces(spans: Vec<Span>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource()),
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

/// An export request of `n` good spans.
pub fn spans(n: u8) -> Vec<u8> {
    traces((1..=n).map(span).collect()).encode_to_vec()
}

/// An export request of `n` log records.
pub fn logs(n: u8) -> Vec<u8> {
    let log_records = (1..=n)
        .map(|i| LogRecord {
            time_unix_nano: 1_700_000_000_000_000_000,
            body: text(&format!("message {i}")),
            ..LogRecord::default()
        })
        .collect();
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource()),
            scope_logs: vec![ScopeLogs {
                log_records,
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    }
    .encode_to_vec()
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
    let mut out = vec![0; compressor.gzip_compress_bound(data.len())];
    let len = compressor.gzip_compress(data, &mut out).unwrap();
    out.truncate(len);
    out
}

// ---- HTTP/1.1 by hand ----

#[derive(Debug, Clone)]
pub struct HttpAnswer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl HttpAnswer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

/// One POST and its answer.
pub async fn post(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &[u8]) -> HttpAnswer {
    let mut head = format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    raw_http(address, &[head.as_bytes(), body].concat()).await
}

/// Sends bytes, reads one answer.
pub async fn raw_http(address: SocketAddr, bytes: &[u8]) -> HttpAnswer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A server that refuses early may close before it has read all; its answer is what counts.
    let _ = stream.write_all(bytes).await;
    read_answer(&mut stream).await
}

/// Reads one answer with a content-length, or to the end of the stream.
pub async fn read_answer(stream: &mut TcpStream) -> HttpAnswer {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = seen.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8(seen[..end].to_vec()).unwrap();
            let answer = HttpAnswer {
                status: head.split(' ').nth(1).unwrap().parse().unwrap(),
                body: seen[end + 4..].to_vec(),
                head,
            };
            let length = answer.header("content-length").map_or(0, |v| v.parse().unwrap());
            if answer.body.len() >= length {
                return answer;
            }
        }
        let n = stream.read(&mut buffer).await.unwrap();
        assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..n]);
    }
}

pub const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
pub const JSON: (&str, &str) = ("content-type", "application/json");

// ---- gRPC over hyper's HTTP/2 client ----

#[derive(Debug, Clone)]
pub struct GrpcAnswer {
    pub http_status: u16,
    pub status: u32,
    pub message: String,
    pub details: Option<String>,
    /// The message without its frame.
    pub body: Vec<u8>,
}

pub const TRACE_EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
pub const LOGS_EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
pub const METRICS_EXPORT: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

/// A message in its frame.
pub fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    let mut framed = vec![flag];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    framed
}

/// One call with these bytes as its body.
pub async fn call(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> GrpcAnswer {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    let driver = tokio::spawn(connection);
    let mut request = http::Request::post(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body))).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let (head, body) = response.into_parts();
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let bytes = collected.to_bytes();
    let find = |name: &str| {
        trailers
            .get(name)
            .or(head.headers.get(name))
            .map(|v| v.to_str().unwrap().to_owned())
    };
    let answer = GrpcAnswer {
        http_status: head.status.as_u16(),
        status: find("grpc-status").map_or(99, |v| v.parse().unwrap()),
        message: find("grpc-message").unwrap_or_default(),
        details: find("grpc-status-details-bin"),
        body: unframe(&bytes),
    };
    drop(sender);
    driver.abort();
    answer
}

/// Takes the frame off the one message of an answer; a status alone has none.
fn unframe(bytes: &[u8]) -> Vec<u8> {
    let Some((&[flag, a, b, c, d], message)) = bytes.split_first_chunk::<5>() else {
        assert!(bytes.is_empty(), "half a frame");
        return Vec::new();
    };
    assert_eq!(flag, 0, "answers are not compressed");
    assert_eq!(
        message.len(),
        u32::from_be_bytes([a, b, c, d]) as usize,
        "one whole message"
    );
    message.to_vec()
}
