//! What senders send, from the seed, over real sockets: spans and records that are known by their ids, over both
//! transports, now and then with faults of their own; and what they are told.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::Signal;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use tokio::net::TcpStream;

/// Connections at once: two of HTTP/1.1, one of gRPC.
pub const LANES: usize = 3;
const GRPC_LANE: usize = 2;
/// The longest attribute: with it, a few requests fill a segment of the smallest size.
const ATTRIBUTE_LIMIT_BYTES: usize = 3000;

/// One request.
pub struct Request {
    pub signal: Signal,
    /// Items that are as they should be.
    pub good: BTreeSet<u64>,
    /// Items that the door has to turn away, each by itself.
    pub bad: u64,
    body: Vec<u8>,
    gzip: bool,
}

/// What its sender heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Taken, but for so many items.
    Accepted { rejected: u64 },
    /// To be sent again.
    Later,
    /// Never to be sent again.
    Rejected,
}

fn attribute(random: &mut fastrand::Rng) -> Vec<KeyValue> {
    // Letters of a large alphabet, so that compression does not make it small again.
    let length = match random.u8(..8) {
        0 => random.usize(0..ATTRIBUTE_LIMIT_BYTES),
        _ => random.usize(0..60),
    };
    let text: String = (0..length).map(|_| random.alphanumeric()).collect();
    let value = Some(AnyValue {
        value: Some(any_value::Value::StringValue(text)),
    });
    vec![KeyValue {
        key: "noise".to_owned(),
        value,
        ..KeyValue::default()
    }]
}

impl Request {
    /// The next request; `next` is the first id that was never used.
    pub fn new(random: &mut fastrand::Rng, next: &mut u64, now_unix_nano: u64) -> Request {
        let signal = match random.u8(..20) {
            0 => Signal::Metrics,
            1..10 => Signal::Logs,
            _ => Signal::Traces,
        };
        if random.u8(..30) == 0 {
            return Request {
                signal,
                good: BTreeSet::new(),
                bad: 0,
                body: vec![0xff; random.usize(1..100)],
                gzip: false,
            };
        }
        let (mut good, mut bad) = (BTreeSet::new(), 0);
        let mut ids = Vec::new();
        for _ in 0..random.u8(1..8) {
            let is_bad = signal == Signal::Traces && random.u8(..30) == 0;
            if is_bad {
                bad += 1;
            } else {
                good.insert(*next);
            }
            ids.push((*next, if is_bad { 3 } else { 16 }));
            *next += 1;
        }
        let trace = random.u8(1..=250);
        let body = match signal {
            Signal::Traces => traces(&ids, trace, random, now_unix_nano),
            Signal::Logs => logs(&ids, trace, random, now_unix_nano),
            // No pipeline takes them, so nobody reads what they are.
            Signal::Metrics => Vec::new(),
        };
        if signal == Signal::Metrics {
            good.clear();
        }
        Request {
            signal,
            good,
            bad,
            body,
            gzip: random.bool(),
        }
    }

    /// One item that is as it should be.
    pub fn plain(signal: Signal, id: u64, now_unix_nano: u64) -> Request {
        let mut random = fastrand::Rng::with_seed(id);
        let body = match signal {
            Signal::Traces => traces(&[(id, 16)], 1, &mut random, now_unix_nano),
            _ => logs(&[(id, 16)], 1, &mut random, now_unix_nano),
        };
        Request {
            signal,
            good: BTreeSet::from([id]),
            bad: 0,
            body,
            gzip: false,
        }
    }
}

fn traces(ids: &[(u64, usize)], trace: u8, random: &mut fastrand::Rng, now_unix_nano: u64) -> Vec<u8> {
    let spans = ids
        .iter()
        .map(|&(id, trace_bytes)| Span {
            trace_id: vec![trace; trace_bytes],
            span_id: id.to_be_bytes().to_vec(),
            name: "work".to_owned(),
            start_time_unix_nano: now_unix_nano + id,
            end_time_unix_nano: now_unix_nano + id + 1,
            attributes: attribute(random),
            ..Span::default()
        })
        .collect();
    let scope_spans = vec![ScopeSpans {
        spans,
        ..ScopeSpans::default()
    }];
    let resource_spans = vec![ResourceSpans {
        scope_spans,
        ..ResourceSpans::default()
    }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

fn logs(ids: &[(u64, usize)], trace: u8, random: &mut fastrand::Rng, now_unix_nano: u64) -> Vec<u8> {
    let log_records = ids
        .iter()
        .map(|&(id, _)| LogRecord {
            time_unix_nano: now_unix_nano + id,
            trace_id: vec![trace; 16],
            span_id: id.to_be_bytes().to_vec(),
            attributes: attribute(random),
            ..LogRecord::default()
        })
        .collect();
    let scope_logs = vec![ScopeLogs {
        log_records,
        ..ScopeLogs::default()
    }];
    let resource_logs = vec![ResourceLogs {
        scope_logs,
        ..ResourceLogs::default()
    }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}

/// The ids in an export request.
pub fn ids(signal: Signal, payload: Bytes) -> Vec<u64> {
    let id = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("a span id of 8 bytes"));
    match signal {
        Signal::Traces => {
            let request = ExportTraceServiceRequest::decode(payload).expect("spans");
            let scopes = request.resource_spans.iter().flat_map(|it| &it.scope_spans);
            scopes.flat_map(|it| &it.spans).map(|span| id(&span.span_id)).collect()
        }
        _ => {
            let request = ExportLogsServiceRequest::decode(payload).expect("log records");
            let scopes = request.resource_logs.iter().flat_map(|it| &it.scope_logs);
            scopes
                .flat_map(|it| &it.log_records)
                .map(|record| id(&record.span_id))
                .collect()
        }
    }
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::fastest());
    let mut out = vec![0; compressor.gzip_compress_bound(data.len())];
    let length = compressor.gzip_compress(data, &mut out).expect("it fits");
    out.truncate(length);
    out
}

/// Sends what falls to each connection, one request after the other, all connections at once. What each sender heard, by the
/// request's place.
pub async fn send(grpc: SocketAddr, http: SocketAddr, requests: &[Request]) -> Vec<Told> {
    let lanes = (0..LANES).map(|lane| async move {
        let mut told = Vec::new();
        let mine = requests.iter().enumerate().skip(lane).step_by(LANES);
        match lane {
            GRPC_LANE => {
                let mut caller = Caller::connect(grpc).await;
                for (at, request) in mine {
                    told.push((at, caller.call(request).await));
                }
            }
            _ => {
                let mut poster = Poster::connect(http).await;
                for (at, request) in mine {
                    told.push((at, poster.post(request).await));
                }
            }
        }
        told
    });
    let [first, second, third]: [_; LANES] = lanes.collect::<Vec<_>>().try_into().ok().expect("as many as lanes");
    let (first, second, third) = tokio::join!(first, second, third);
    let mut all: Vec<(usize, Told)> = [first, second, third].concat();
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, told)| told).collect()
}

fn rejected_items(signal: Signal, body: &[u8]) -> u64 {
    let rejected = match signal {
        Signal::Traces => ExportTraceServiceResponse::decode(body)
            .expect("an answer")
            .partial_success
            .map(|partial| partial.rejected_spans),
        _ => ExportLogsServiceResponse::decode(body)
            .expect("an answer")
            .partial_success
            .map(|partial| partial.rejected_log_records),
    };
    u64::try_from(rejected.unwrap_or(0)).expect("no less than none")
}

struct Poster(hyper::client::conn::http1::SendRequest<Full<Bytes>>);

impl Poster {
    async fn connect(address: SocketAddr) -> Poster {
        let stream = TcpStream::connect(address).await.expect("the door is open");
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("it speaks HTTP");
        tokio::spawn(connection);
        Poster(sender)
    }

    async fn post(&mut self, request: &Request) -> Told {
        let path = format!("/v1/{}", request.signal.as_str());
        let mut head = http::Request::post(path)
            .header("host", "door")
            .header("content-type", "application/x-protobuf");
        let mut body = request.body.clone();
        if request.gzip {
            head = head.header("content-encoding", "gzip");
            body = gzip(&body);
        }
        let request_out = head.body(Full::new(Bytes::from(body))).expect("a request");
        self.0.ready().await.expect("the connection stays");
        let answer = self.0.send_request(request_out).await.expect("an answer");
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a whole answer").to_bytes();
        match status {
            200 => Told::Accepted {
                rejected: rejected_items(request.signal, &body),
            },
            503 => Told::Later,
            400 | 404 => Told::Rejected,
            other => panic!("HTTP status {other}: {}", String::from_utf8_lossy(&body)),
        }
    }
}

struct Caller(hyper::client::conn::http2::SendRequest<Full<Bytes>>, SocketAddr);

impl Caller {
    async fn connect(address: SocketAddr) -> Caller {
        let stream = TcpStream::connect(address).await.expect("the door is open");
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("it speaks HTTP/2");
        tokio::spawn(connection);
        Caller(sender, address)
    }

    async fn call(&mut self, request: &Request) -> Told {
        let service = match request.signal {
            Signal::Traces => "trace.v1.TraceService",
            Signal::Logs => "logs.v1.LogsService",
            Signal::Metrics => "metrics.v1.MetricsService",
        };
        let url = format!("http://{}/opentelemetry.proto.collector.{service}/Export", self.1);
        let mut head = http::Request::post(url)
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let mut message = request.body.clone();
        if request.gzip {
            head = head.header("grpc-encoding", "gzip");
            message = gzip(&message);
        }
        let mut framed = vec![u8::from(request.gzip)];
        framed.extend((message.len() as u32).to_be_bytes());
        framed.extend(message);
        let request_out = head.body(Full::new(Bytes::from(framed))).expect("a request");
        self.0.ready().await.expect("the connection stays");
        let (head, body) = self.0.send_request(request_out).await.expect("an answer").into_parts();
        let collected = body.collect().await.expect("a whole answer");
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let status = trailers.get("grpc-status").or(head.headers.get("grpc-status"));
        let body = collected.to_bytes();
        match status.and_then(|status| status.to_str().ok()) {
            Some("0") => Told::Accepted {
                rejected: rejected_items(request.signal, body.get(5..).unwrap_or_default()),
            },
            Some("14") => Told::Later,
            // Malformed, and no pipeline.
            Some("3" | "12") => Told::Rejected,
            other => panic!("gRPC status {other:?}: {head:?} {trailers:?}"),
        }
    }
}
