//! Jaeger's two doors on real sockets: what is sent arrives as OTLP, and answers are in Jaeger's own terms.

#[path = "../../codec/tests/support/jaeger_api.rs"]
mod jaeger_api;
mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jaeger_api as api;
use model::{Batch, Signal};
use net::{Doors, Open};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use pipeline::config::{Config, Source};
use pipeline::{Ack, Budget, Entry, Intake, Ledger, Outcome, Reason};
use prost::Message;
use receivers::Settings;
use support::{call, frame, gzip, post, raw_http};

const POST_SPANS: &str = "/jaeger.api_v2.CollectorService/PostSpans";
const THRIFT: (&str, &str) = ("content-type", "application/x-thrift");

struct Running {
    open: Open,
    grpc: SocketAddr,
    http: SocketAddr,
    ledger: Ledger,
    batches: Arc<Mutex<Vec<Batch>>>,
    outcome: Arc<Mutex<Outcome>>,
}

async fn start() -> Running {
    let (ledger, batches) = (Ledger::new(), Arc::new(Mutex::new(Vec::new())));
    let outcome = Arc::new(Mutex::new(Outcome::Delivered));
    let (kept, answer) = (Arc::clone(&batches), Arc::clone(&outcome));
    let entry: Arc<dyn Entry> = Arc::new(move |batch: Batch, ack: Ack| {
        kept.lock().unwrap().push(batch);
        ack.resolve(answer.lock().unwrap().clone());
    });
    let budget = Budget::root("test", 64 << 20);
    let intake = Intake::new("jaeger", &ledger, budget, vec![(Signal::Traces, entry)]);
    let yaml = "receivers: { jaeger: { protocols: { grpc: { endpoint: 127.0.0.1:0, max_recv_msg_size_mib: 1 }, thrift_http: { endpoint: 127.0.0.1:0 } } } }\n\
         service: { pipelines: { traces: {} } }\n";
    let config = Config::load(vec![Source::new("test", yaml)], &|_| None).unwrap();
    let config = receivers::jaeger::Config::parse(&config.section(&config.receivers[0])).unwrap();
    let mut doors = Doors::new();
    Box::new(config).mount(intake, &mut doors).unwrap();
    let open = doors.open().await.unwrap();
    Running {
        grpc: open.address_of("receiver jaeger (grpc)").unwrap(),
        http: open.address_of("receiver jaeger (thrift_http)").unwrap(),
        open,
        ledger,
        batches,
        outcome,
    }
}

impl Running {
    /// Closes the doors; the requests that arrived.
    async fn finish(self) -> Vec<ExportTraceServiceRequest> {
        assert!(self.open.shutdown(Duration::from_secs(10)).await);
        self.ledger.balance().unwrap();
        let batches = self.batches.lock().unwrap();
        batches
            .iter()
            .map(|batch| ExportTraceServiceRequest::decode(batch.payload.bytes()).unwrap())
            .collect()
    }
}

fn batch() -> api::Batch {
    let span = |id: u8| api::Span {
        trace_id: vec![7; 16],
        span_id: vec![id; 8],
        operation_name: format!("work {id}"),
        start_time: Some(api::Time {
            seconds: 1_700_000_000,
            nanos: 0,
        }),
        duration: Some(api::Time {
            seconds: 0,
            nanos: 2_000_000,
        }),
        tags: vec![api::KeyValue::text("span.kind", "server")],
        ..api::Span::default()
    };
    api::Batch {
        spans: vec![span(1), span(2)],
        process: Some(api::Process {
            service_name: "shop".into(),
            tags: Vec::new(),
        }),
    }
}

fn request(batch: api::Batch) -> Vec<u8> {
    api::PostSpansRequest { batch: Some(batch) }.encode_to_vec()
}

#[tokio::test]
async fn both_doors_take_the_same_spans() {
    let running = start().await;
    let plain = call(running.grpc, POST_SPANS, &[], frame(0, &request(batch()))).await;
    assert_eq!((plain.status, plain.body.len()), (0, 0), "{}", plain.message);
    let packed = frame(1, &gzip(&request(batch())));
    let packed = call(running.grpc, POST_SPANS, &[("grpc-encoding", "gzip")], packed).await;
    assert_eq!(packed.status, 0, "{}", packed.message);
    let thrift = api::thrift(&batch());
    assert_eq!(post(running.http, "/api/traces", &[THRIFT], &thrift).await.status, 202);
    let named = ("content-type", "application/vnd.apache.thrift.binary; charset=x");
    let path = "/api/traces?format=jaeger.thrift";
    let gzip = post(
        running.http,
        path,
        &[named, ("content-encoding", "gzip")],
        &gzip(&thrift),
    )
    .await;
    assert_eq!(gzip.status, 202);
    let arrived = running.finish().await;
    assert_eq!(arrived.len(), 4);
    assert!(
        arrived.iter().all(|request| *request == arrived[0]),
        "the same, four times"
    );
    let group = &arrived[0].resource_spans[0];
    let span = &group.scope_spans[0].spans[1];
    assert_eq!((span.name.as_str(), span.kind), ("work 2", 2));
    assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 2_000_000);
    assert_eq!(
        group.resource.as_ref().unwrap().attributes,
        [support::attribute("service.name", "shop")]
    );
}

#[tokio::test]
async fn what_is_wrong_is_said_in_the_protocols_terms() {
    let running = start().await;
    let grpc = async |path: &str, message: &[u8]| {
        let answer = call(running.grpc, path, &[], frame(0, message)).await;
        (answer.status, answer.message)
    };
    let (code, said) = grpc(POST_SPANS, b"\xff").await;
    assert_eq!(code, 3);
    assert!(said.contains("malformed Jaeger protobuf in PostSpansRequest"), "{said}");
    assert_eq!(grpc("/jaeger.api_v2.CollectorService/Other", b"").await.0, 12);
    assert_eq!(grpc(POST_SPANS, &vec![0; 2 << 20]).await.0, 8, "more than the limit");
    let mut half = batch();
    half.spans[0].span_id.clear();
    let (code, said) = grpc(POST_SPANS, &request(half)).await;
    assert_eq!(code, 3);
    assert!(said.starts_with("1 spans were not taken"), "{said}");

    let http = async |headers: &[(&str, &str)], body: &[u8]| {
        let answer = post(running.http, "/api/traces", headers, body).await;
        (answer.status, String::from_utf8(answer.body).unwrap())
    };
    let (status, said) = http(&[THRIFT], &[12, 0]).await;
    assert_eq!(status, 400);
    assert!(said.contains("malformed Thrift at byte 1: it is cut short"), "{said}");
    assert_eq!(http(&[("content-type", "application/json")], b"{}").await.0, 415);
    assert_eq!(http(&[THRIFT, ("content-encoding", "br")], b"").await.0, 415);
    let get = raw_http(running.http, b"GET /api/traces HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));

    *running.outcome.lock().unwrap() = Outcome::retry(Duration::from_secs(3), Reason::JournalFull);
    assert_eq!(grpc(POST_SPANS, &request(batch())).await.0, 14);
    let later = post(running.http, "/api/traces", &[THRIFT], &api::thrift(&batch())).await;
    assert_eq!((later.status, later.header("retry-after")), (503, Some("3")));
    let books = running.ledger.json();
    assert_eq!(books["doors"][0]["rejected"]["bad_id"], 1, "{books}");
    running.finish().await;
}
