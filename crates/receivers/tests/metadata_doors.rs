//! `include_metadata` on real sockets: of a request's headers those go with its batch that a pipeline names, at every door that has the key, and none
//! without it.

#[path = "../../codec/tests/support/jaeger_api.rs"]
mod jaeger_api;
mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jaeger_api as api;
use model::{Batch, Signal};
use net::{Doors, Open};
use pipeline::config::{Config, Problems, Section, Source};
use pipeline::{Ack, Budget, Entry, Intake, Ledger};
use prost::Message;
use receivers::{Settings, jaeger, loki, otlp, prometheusremotewrite};
use support::{JSON, PROTOBUF, TRACE_EXPORT, call, frame, post, raw_http, spans};

/// A pipeline that names three headers and keeps what comes.
#[derive(Default)]
struct Naming {
    batches: Mutex<Vec<Batch>>,
}

impl Entry for Naming {
    fn enter(&self, batch: Batch, ack: Ack) {
        self.batches.lock().unwrap().push(batch);
        ack.delivered();
    }

    fn metadata_keys(&self) -> Vec<Arc<str>> {
        ["x-tenant", "host", "x-absent"].map(Into::into).to_vec()
    }
}

struct Running {
    open: Open,
    naming: Arc<Naming>,
    ledger: Ledger,
}

async fn start<S: Settings + 'static>(
    parse: fn(&Section<'_>) -> Result<S, Problems>,
    kind: &str,
    settings: &str,
) -> Running {
    let (ledger, naming) = (Ledger::new(), Arc::new(Naming::default()));
    let routes = Signal::ALL.map(|signal| (signal, Arc::clone(&naming) as Arc<dyn Entry>));
    let intake = Intake::new(kind, &ledger, Budget::root("test", 64 << 20), routes.to_vec());
    let yaml = format!("receivers: {{ {kind}: {settings} }}\nservice: {{ pipelines: {{ traces: {{}} }} }}\n");
    let config = Config::load(vec![Source::new("test", yaml)], &|_| None).unwrap();
    let config = parse(&config.section(&config.receivers[0])).unwrap();
    let mut doors = Doors::new();
    Box::new(config).mount(intake, &mut doors).unwrap();
    let open = doors.open().await.unwrap();
    Running { open, naming, ledger }
}

impl Running {
    fn door(&self, who: &str) -> SocketAddr {
        self.open.address_of(who).unwrap()
    }

    /// Closes the doors; what each batch carries.
    async fn finish(self) -> Vec<Vec<(String, String)>> {
        assert!(self.open.shutdown(Duration::from_secs(10)).await);
        self.ledger.balance().unwrap();
        let batches = self.naming.batches.lock().unwrap();
        let own = |pairs: &model::Headers| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        batches.iter().map(|batch| own(&batch.meta.headers)).collect()
    }
}

fn expected(host: &str, tenants: &[&str]) -> Vec<(String, String)> {
    let host = std::iter::once(("host".to_owned(), host.to_owned()));
    let tenants = tenants
        .iter()
        .map(|tenant| ("x-tenant".to_owned(), (*tenant).to_owned()));
    host.chain(tenants).collect()
}

/// What a sender says beside its tenant goes nowhere.
const SECRET: (&str, &str) = ("authorization", "Bearer secret");

#[tokio::test]
async fn otlp_keeps_what_is_named_and_nothing_else() {
    for include in [true, false] {
        let settings = format!(
            "{{ protocols: {{ grpc: {{ endpoint: 127.0.0.1:0, include_metadata: {include} }}, http: {{ endpoint: 127.0.0.1:0, include_metadata: {include} }} }} }}"
        );
        let running = start(otlp::Config::parse, "otlp", &settings).await;
        let (grpc, http) = (
            running.door("receiver otlp (grpc)"),
            running.door("receiver otlp (http)"),
        );
        let headers = [PROTOBUF, SECRET, ("X-Tenant", "one"), ("X-TENANT", "two")];
        assert_eq!(post(http, "/v1/traces", &headers, &spans(1)).await.status, 200);
        let headers = [SECRET, ("x-tenant", "three")];
        assert_eq!(call(grpc, TRACE_EXPORT, &headers, frame(0, &spans(1))).await.status, 0);
        let expect = match include {
            true => vec![
                expected("test", &["one", "two"]),
                expected(&grpc.to_string(), &["three"]),
            ],
            false => vec![Vec::new(), Vec::new()],
        };
        assert_eq!(running.finish().await, expect);
    }
}

#[tokio::test]
async fn the_other_doors_do_too() {
    let tenant = ("x-tenant", "one");

    let settings = "{ protocols: { http: { endpoint: 127.0.0.1:0, include_metadata: true } } }";
    let running = start(loki::Config::parse, "loki", settings).await;
    let push = br#"{"streams":[{"stream":{"app":"shop"},"values":[["1700000000000000000","hello"]]}]}"#;
    let door = running.door("receiver loki (http)");
    assert_eq!(post(door, "/loki/api/v1/push", &[JSON, tenant], push).await.status, 204);
    assert_eq!(running.finish().await, [expected("test", &["one"])]);

    let settings = "{ protocols: { grpc: { endpoint: 127.0.0.1:0, include_metadata: true }, thrift_http: { endpoint: 127.0.0.1:0, include_metadata: true } } }";
    let running = start(jaeger::Config::parse, "jaeger", settings).await;
    let batch = api::Batch {
        spans: vec![api::Span {
            trace_id: vec![7; 16],
            span_id: vec![1; 8],
            operation_name: "work".into(),
            ..api::Span::default()
        }],
        process: None,
    };
    let (grpc, http) = (
        running.door("receiver jaeger (grpc)"),
        running.door("receiver jaeger (thrift_http)"),
    );
    let thrift = [("content-type", "application/x-thrift"), tenant];
    assert_eq!(
        post(http, "/api/traces", &thrift, &api::thrift(&batch)).await.status,
        202
    );
    let message = api::PostSpansRequest { batch: Some(batch) }.encode_to_vec();
    let method = "/jaeger.api_v2.CollectorService/PostSpans";
    assert_eq!(call(grpc, method, &[tenant], frame(0, &message)).await.status, 0);
    let expect = [expected("test", &["one"]), expected(&grpc.to_string(), &["one"])];
    assert_eq!(running.finish().await, expect);

    let settings = "{ endpoint: 127.0.0.1:0, include_metadata: true }";
    let running = start(prometheusremotewrite::Config::parse, "prometheusremotewrite", settings).await;
    // WriteRequest { timeseries: [{ labels: [{"__name__", "up"}], samples: [{ value: 1, timestamp: 1000 }] }] }
    let label = [
        &b"\x0a\x0e\x0a\x08__name__\x12\x02up"[..],
        b"\x12\x0c\x09\0\0\0\0\0\0\xf0\x3f\x10\xe8\x07",
    ]
    .concat();
    let request = [&[0x0a, label.len() as u8][..], &label].concat();
    let body = snap::raw::Encoder::new().compress_vec(&request).unwrap();
    let door = running.door("receiver prometheusremotewrite (http)");
    let answer = post(door, "/api/v1/write", &[PROTOBUF, tenant], &body).await;
    assert_eq!(answer.status, 204, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(running.finish().await, [expected("test", &["one"])]);
}

/// Cut off, a tenant would become another one.
#[tokio::test]
async fn headers_over_the_bounds_are_refused_for_good() {
    let settings = "{ protocols: { grpc: { endpoint: 127.0.0.1:0, include_metadata: true }, http: { endpoint: 127.0.0.1:0, include_metadata: true } } }";
    let running = start(otlp::Config::parse, "otlp", settings).await;
    let (grpc, http) = (
        running.door("receiver otlp (grpc)"),
        running.door("receiver otlp (http)"),
    );
    let long = "x".repeat(9_000);
    let answer = post(http, "/v1/traces", &[JSON, ("x-tenant", &long)], b"{}").await;
    let said = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(answer.status, 431, "{said}");
    assert!(said.contains("longer than 8192 bytes together"), "{said}");
    let many = vec![("x-tenant", "x"); 65];
    let answer = call(grpc, TRACE_EXPORT, &many, frame(0, &spans(1))).await;
    assert_eq!(answer.status, 3, "{}", answer.message);
    assert!(answer.message.contains("more than 64"), "{}", answer.message);
    let answer = post(http, "/v1/traces", &[PROTOBUF, ("x-tenant", "\u{e9}")], &spans(1)).await;
    assert_eq!(answer.status, 200, "UTF-8 is text");
    let head = b"POST /v1/traces HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: 2\r\nx-tenant: \xff\r\n\r\n{}";
    assert_eq!(
        raw_http(http, head).await.status,
        400,
        "two that are not must not become one"
    );
    let books = running.ledger.json();
    let rejected = &books["doors"][0]["rejected"];
    assert_eq!(
        (&rejected["too_large"], &rejected["malformed"]),
        (&2.into(), &1.into()),
        "{books}"
    );
    assert_eq!(running.finish().await, [expected("test", &["\u{e9}"])]);
}
