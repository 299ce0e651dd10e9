//! CPU time of the door per span: sockets, HTTP/2 or HTTP/1, inflating, the validating walk and the way into a graph that keeps
//! nothing. Counted on the server's own thread, so that the client and the neighbours do not blur it.
//!
//! `cargo bench -p receivers`

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::Signal;
use net::Doors;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use pipeline::{Ack, Budget, Intake, Ledger};
use prost::Message;
use receivers::otlp;
use tokio::net::TcpStream;

const SPANS: usize = 1000;
const REQUESTS: usize = 300;
/// Different bodies, so that caches see what they would see.
const BODIES: usize = 16;

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// About 590 bytes and 12 attributes a span, with the entropy of real ids and times.
fn request(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut id = |n: usize| -> Vec<u8> { (0..n).map(|_| random.u8(1..)).collect() };
    let spans = (0..SPANS)
        .map(|i| {
            let noise = id(8);
            let text = |s: String| Value::StringValue(s);
            Span {
                trace_id: id(16),
                span_id: id(8),
                parent_span_id: id(8),
                name: format!("POST /workflows/{{id}}/step{}", i % 7),
                kind: 2,
                start_time_unix_nano: 1_700_000_000_000_000_000 + u64::from(noise[0]) * 1_000_003,
                end_time_unix_nano: 1_700_000_000_300_000_000 + u64::from(noise[1]) * 1_000_003,
                attributes: vec![
                    attribute("http.request.method", text("POST".into())),
                    attribute("http.route", text("/workflows/{id}/execute".into())),
                    attribute("http.response.status_code", Value::IntValue(200)),
                    attribute("url.path", text(format!("/workflows/{}/execute", noise[2]))),
                    attribute("server.address", text("workflow-engine.internal".into())),
                    attribute("server.port", Value::IntValue(8002)),
                    attribute("client.address", text(format!("10.0.{}.{}", noise[3], noise[4]))),
                    attribute(
                        "user_agent.original",
                        text("workflow-agent/1.4.2 (linux; x86_64)".into()),
                    ),
                    attribute("session.id", text(noise.iter().map(|b| format!("{b:02x}")).collect())),
                    attribute("network.protocol.version", text("1.1".into())),
                    attribute("retry", Value::BoolValue(false)),
                    attribute("queue.seconds", Value::DoubleValue(f64::from(noise[5]) / 256.0)),
                ],
                ..Span::default()
            }
        })
        .collect();
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![attribute("service.name", Value::StringValue("engine".into()))],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
    .encode_to_vec()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
    let mut out = vec![0; compressor.gzip_compress_bound(data.len())];
    let len = compressor.gzip_compress(data, &mut out).unwrap();
    out.truncate(len);
    out
}

/// Nanoseconds that the calling thread has run.
fn thread_cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

/// The receiver on a thread of its own; asked for its CPU time through a channel.
struct Server {
    grpc: SocketAddr,
    http: SocketAddr,
    ask: tokio::sync::mpsc::UnboundedSender<std::sync::mpsc::Sender<u64>>,
}

fn serve() -> Server {
    let (up, is_up) = std::sync::mpsc::channel();
    let (ask, mut asked) = tokio::sync::mpsc::unbounded_channel::<std::sync::mpsc::Sender<u64>>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let entry = |_: model::Batch, ack: Ack| ack.delivered();
            let budget = Budget::root("bench", 256 << 20);
            let intake = Intake::new("otlp", &Ledger::new(), budget, vec![(Signal::Traces, Arc::new(entry))]);
            let mut config = otlp::Config::both();
            config.protocols.grpc.as_mut().unwrap().endpoint = "127.0.0.1:0".parse().unwrap();
            config.protocols.http.as_mut().unwrap().endpoint = "127.0.0.1:0".parse().unwrap();
            let mut doors = Doors::new();
            let mounted = otlp::mount(&config, intake, &mut doors).unwrap();
            let open = doors.open().await.unwrap();
            let address = |who: Option<String>| open.address_of(&who.unwrap()).unwrap();
            up.send((address(mounted.grpc), address(mounted.http))).unwrap();
            while let Some(answer) = asked.recv().await {
                answer.send(thread_cpu_ns()).unwrap();
            }
        });
    });
    let (grpc, http) = is_up.recv().unwrap();
    Server { grpc, http, ask }
}

impl Server {
    fn cpu_ns(&self) -> u64 {
        let (answer, answered) = std::sync::mpsc::channel();
        self.ask.send(answer).unwrap();
        answered.recv().unwrap()
    }
}

async fn send(server: &Server, grpc: bool, coding: &str, bodies: &[Bytes]) {
    let address = if grpc { server.grpc } else { server.http };
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (path, content_type) = if grpc {
        (
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            "application/grpc",
        )
    } else {
        ("/v1/traces", "application/x-protobuf")
    };
    let request = |body: &Bytes| {
        http::Request::post(format!("http://{address}{path}"))
            .header("content-type", content_type)
            .header(if grpc { "grpc-encoding" } else { "content-encoding" }, coding)
            .header("te", "trailers")
            .header("host", "bench")
            .body(Full::new(body.clone()))
            .unwrap()
    };
    if grpc {
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
        tokio::spawn(connection);
        for i in 0..REQUESTS {
            let answer = sender.send_request(request(&bodies[i % bodies.len()])).await.unwrap();
            let answer = answer.into_body().collect().await.unwrap();
            assert_eq!(answer.trailers().unwrap()["grpc-status"], "0");
        }
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        for i in 0..REQUESTS {
            let answer = sender.send_request(request(&bodies[i % bodies.len()])).await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.into_body().collect().await.unwrap();
        }
    }
}

fn main() {
    let server = serve();
    let mut random = fastrand::Rng::with_seed(7);
    let plain: Vec<Vec<u8>> = (0..BODIES).map(|_| request(&mut random)).collect();
    println!("{SPANS} spans a request, {} bytes", plain[0].len());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for coding in ["identity", "gzip", "zstd"] {
        let bodies: Vec<Vec<u8>> = plain
            .iter()
            .map(|body| match coding {
                "gzip" => gzip(body),
                "zstd" => zstd::bulk::compress(body, 1).unwrap(),
                _ => body.clone(),
            })
            .collect();
        for grpc in [true, false] {
            let framed: Vec<Bytes> = bodies
                .iter()
                .map(|body| {
                    let mut framed = Vec::new();
                    if grpc {
                        framed.push(u8::from(coding != "identity"));
                        framed.extend((body.len() as u32).to_be_bytes());
                    }
                    framed.extend(body);
                    Bytes::from(framed)
                })
                .collect();
            // The first pass warms allocator and caches.
            let mut best = f64::INFINITY;
            for _ in 0..4 {
                let before = server.cpu_ns();
                runtime.block_on(send(&server, grpc, coding, &framed));
                let spent = server.cpu_ns() - before;
                best = best.min(spent as f64 / 1000.0 / (SPANS * REQUESTS) as f64);
            }
            let transport = if grpc { "gRPC" } else { "HTTP" };
            println!(
                "{transport} {coding:8} {:7} bytes  {best:.3} µs a span",
                framed[0].len()
            );
        }
    }
}
