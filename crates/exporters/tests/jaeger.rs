//! The `jaeger` exporter on a real socket, against a collector of Jaeger's written here, and against a real Jaeger where there is one.

#[path = "../../codec/tests/support/jaeger_api.rs"]
mod jaeger_api;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, Full};
use jaeger_api as api;
use model::{Batch, Encoding, Meta, Signal};
use net::{DoorSettings, Doors, Mount, Request, Response, handler_fn};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use pipeline::config::{Config, Source};
use pipeline::{Exporter, Outcome, Reason};
use prost::Message;

/// Spans of a trace of their own, from two services.
fn spans(trace: u8) -> Batch {
    let group = |service: &str, ids: &[u8]| ResourceSpans {
        resource: Some(Resource {
            attributes: vec![KeyValue {
                key: "service.name".into(),
                value: Some(AnyValue {
                    value: Some(Value::StringValue(service.into())),
                }),
                ..KeyValue::default()
            }],
            ..Resource::default()
        }),
        scope_spans: vec![ScopeSpans {
            spans: ids
                .iter()
                .map(|&id| Span {
                    trace_id: vec![trace; 16],
                    span_id: vec![id; 8],
                    parent_span_id: if id == 1 { Vec::new() } else { vec![1; 8] },
                    name: format!("work {id}"),
                    kind: 2,
                    start_time_unix_nano: 1_700_000_000_000_000_000,
                    end_time_unix_nano: 1_700_000_000_002_000_000,
                    status: Some(Status {
                        code: 2,
                        message: "no".into(),
                    }),
                    ..Span::default()
                })
                .collect(),
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![group("shop", &[1, 2]), group("bank", &[3])],
    };
    Batch {
        signal: Signal::Traces,
        encoding: Encoding::Otlp,
        payload: request.encode_to_vec().into(),
        items: 3,
        wire: None,
        meta: Arc::new(Meta {
            received_at_unix_nano: 0,
            receiver: "otlp".into(),
            peer: None,
            headers: Vec::new(),
            source_offset: None,
        }),
    }
}

fn exporter(address: SocketAddr, more: &str) -> exporters::jaeger::Jaeger {
    let text = format!(
        "exporters: {{ jaeger: {{ endpoint: '{address}', tls: {{ insecure: true }}, {more} }} }}\nservice: {{ pipelines: {{ traces: {{}} }} }}\n"
    );
    let config = Config::load(vec![Source::new("test.yaml", text)], &|_| None).expect("YAML");
    let config =
        exporters::jaeger::parse(&config.section(&config.exporters[0])).unwrap_or_else(|error| panic!("{error}"));
    exporters::jaeger::Jaeger::new(&config).expect("made")
}

/// What Jaeger's collector saw, and the statuses that it is to answer.
#[derive(Default)]
struct Collector {
    seen: Mutex<Vec<api::Batch>>,
    answers: Mutex<VecDeque<u16>>,
}

impl Collector {
    async fn answer(self: Arc<Collector>, request: Request) -> Response {
        let (head, body) = request.into_parts();
        assert_eq!(head.uri.path(), "/jaeger.api_v2.CollectorService/PostSpans");
        let body = body.collect().await.expect("a body").to_bytes();
        let message = match head.headers.get("grpc-encoding") {
            Some(_) => {
                let mut out = vec![0; 1 << 20];
                let length = libdeflater::Decompressor::new()
                    .gzip_decompress(&body[5..], &mut out)
                    .expect("gzip");
                out.truncate(length);
                out
            }
            None => body[5..].to_vec(),
        };
        let request = api::PostSpansRequest::decode(message.as_slice()).expect("a request");
        self.seen
            .lock()
            .expect("no panic")
            .push(request.batch.expect("a batch"));
        let status = self.answers.lock().expect("no panic").pop_front().unwrap_or(0);
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from(status));
        let body = Full::new(Bytes::from_static(&[0; 5])).with_trailers(async move { Some(Ok(trailers)) });
        let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
        response
            .headers_mut()
            .insert("content-type", HeaderValue::from_static("application/grpc"));
        response
    }

    async fn open(self: &Arc<Collector>) -> (net::Open, SocketAddr) {
        let mut doors = Doors::new();
        let collector = Arc::clone(self);
        let mount = Mount::Grpc {
            name: "jaeger.api_v2.CollectorService",
            service: handler_fn(move |request| Arc::clone(&collector).answer(request)),
        };
        let any = "127.0.0.1:0".parse().expect("an endpoint");
        doors
            .mount_with(&any, "jaeger", mount, DoorSettings::default())
            .expect("free");
        let open = doors.open().await.expect("opens");
        let address = open.address_of("jaeger").expect("open");
        (open, address)
    }
}

#[tokio::test]
async fn each_service_is_a_call_and_the_worst_answer_counts() {
    let collector = Arc::new(Collector::default());
    let (_open, address) = collector.open().await;
    for packing in ["gzip", "none"] {
        let exporter = exporter(address, &format!("compression: {packing}"));
        assert_eq!(exporter.export(spans(7)).await, Outcome::Delivered, "{packing}");
    }
    let seen: Vec<_> = std::mem::take(&mut *collector.seen.lock().expect("no panic"))
        .into_iter()
        .map(|batch| (batch.process.expect("a process").service_name, batch.spans.len()))
        .collect();
    let both = [("shop".to_owned(), 2), ("bank".to_owned(), 1)];
    assert_eq!(seen, [both.clone(), both].concat());

    let exporter = exporter(address, "");
    let after = async |answers: [u16; 2]| {
        collector.answers.lock().expect("no panic").extend(answers);
        exporter.export(spans(7)).await
    };
    assert!(matches!(after([3, 0]).await, Outcome::Rejected { items: 2, .. }));
    assert!(matches!(after([3, 3]).await, Outcome::Rejected { items: 3, .. }));
    let later = Outcome::retry(Duration::ZERO, Reason::BackendUnavailable);
    assert_eq!(after([0, 14]).await, later);
}
