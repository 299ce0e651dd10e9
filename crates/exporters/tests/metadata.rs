//! Headers of requests from one socket to the other: who sends says a tenant, the journal is opened anew on the way, and what goes out says the same tenant
//! for all of a request.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use journal::{Journal, RealDisk};
use model::{Batch, Encoding, Meta, Signal};
use net::{Doors, Open};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use pipeline::config::{Config, Source};
use pipeline::graph::{Drained, ExporterPart, Parts, PipelinePart};
use pipeline::processors::{Step, batch};
use pipeline::sending::{Queue, Retry, Sending};
use pipeline::{Ack, Budget, Entry, Exporter, Graph, Intake, Ledger, Outcome, Reason, Sink};
use prost::Message;
use receivers::Settings;
use tokio::sync::Notify;

/// Long enough that only a bug reaches it.
const GRACE: Duration = Duration::from_secs(60);

const SINKS: &str = "
receivers:
  otlp:
    protocols:
      grpc: { endpoint: 127.0.0.1:0, include_metadata: true }
      http: { endpoint: 127.0.0.1:0, include_metadata: true }
  loki: { protocols: { http: { endpoint: 127.0.0.1:0, include_metadata: true } } }
  jaeger: { protocols: { grpc: { endpoint: 127.0.0.1:0, include_metadata: true } } }
  prometheusremotewrite: { endpoint: 127.0.0.1:0, include_metadata: true }
service: { pipelines: { traces: {} } }
";

/// A backend of many tenants: keeps what comes with the tenants that its request names.
#[derive(Default)]
struct Tenants {
    is_down: Mutex<bool>,
    taken: Mutex<Vec<(Vec<String>, Batch)>>,
    arrived: Notify,
}

impl Entry for Tenants {
    fn enter(&self, batch: Batch, ack: Ack) {
        self.arrived.notify_waiters();
        if *self.is_down.lock().unwrap() {
            return ack.resolve(Outcome::retry(Duration::ZERO, Reason::BackendUnavailable));
        }
        let tenants = batch.meta.headers.iter().map(|(_, value)| value.to_string()).collect();
        self.taken.lock().unwrap().push((tenants, batch));
        ack.delivered();
    }

    fn metadata_keys(&self) -> Vec<Arc<str>> {
        vec!["x-scope-orgid".into()]
    }
}

/// Receivers that hand everything to one entry.
async fn doors(yaml: &str, entry: impl Fn(&str) -> Intake) -> Open {
    let config = Config::load(vec![Source::new("test", yaml)], &|_| None).unwrap();
    let mut doors = Doors::new();
    for component in &config.receivers {
        let section = config.section(component);
        let settings: Box<dyn Settings> = match component.id.as_str() {
            "otlp" => Box::new(receivers::otlp::Config::parse(&section).unwrap()),
            "loki" => Box::new(receivers::loki::Config::parse(&section).unwrap()),
            "jaeger" => Box::new(receivers::jaeger::Config::parse(&section).unwrap()),
            _ => Box::new(receivers::prometheusremotewrite::Config::parse(&section).unwrap()),
        };
        settings.mount(entry(component.id.as_str()), &mut doors).unwrap();
    }
    doors.open().await.unwrap()
}

async fn backend(tenants: &Arc<Tenants>) -> Open {
    let ledger = Ledger::new();
    doors(SINKS, |name| {
        let routes = Signal::ALL.map(|signal| (signal, Arc::clone(tenants) as Arc<dyn Entry>));
        Intake::new(name, &ledger, Budget::root("test", 64 << 20), routes.to_vec())
    })
    .await
}

fn at(open: &Open, who: &str) -> SocketAddr {
    open.address_of(&format!("receiver {who}")).unwrap()
}

/// What `headers_setter` does here: the tenant goes on, and who says none is nobody.
const SETTER: &str =
    "headers_setter: { headers: [{ key: X-Scope-OrgID, from_context: X-Tenant, default_value: nobody }] }";

fn exporter(kind: &str, settings: &str) -> Arc<dyn Exporter> {
    let text = format!(
        "exporters: {{ it: {{ {settings} }} }}\nextensions: {{ {SETTER} }}\nservice: {{ extensions: [headers_setter], pipelines: {{ traces: {{}} }} }}\n"
    );
    let config = Config::load(vec![Source::new("test", text)], &|_| None).unwrap();
    let section = config.section(&config.exporters[0]);
    match kind {
        "otlp" => Arc::new(exporters::otlp::Otlp::new(&exporters::otlp::parse(&section).unwrap()).unwrap()),
        "otlphttp" => {
            Arc::new(exporters::otlphttp::OtlpHttp::new(&exporters::otlphttp::parse(&section).unwrap()).unwrap())
        }
        "loki" => Arc::new(exporters::loki::Loki::new(&exporters::loki::parse(&section).unwrap()).unwrap()),
        "jaeger" => Arc::new(exporters::jaeger::Jaeger::new(&exporters::jaeger::parse(&section).unwrap()).unwrap()),
        "loadbalancing" => {
            let config = exporters::loadbalancing::parse(&section).unwrap();
            Arc::new(exporters::loadbalancing::LoadBalancing::new(&config).unwrap())
        }
        _ => {
            let config = exporters::prometheusremotewrite::parse(&section).unwrap();
            Arc::new(exporters::prometheusremotewrite::RemoteWrite::new(&config).unwrap())
        }
    }
}

fn batch_of(signal: Signal, payload: Vec<u8>, items: u32, headers: &[(&str, &str)]) -> Batch {
    Batch {
        signal,
        encoding: Encoding::Otlp,
        payload: payload.into(),
        items,
        wire: None,
        meta: Arc::new(Meta {
            received_at_unix_nano: 0,
            receiver: "otlp".into(),
            peer: None,
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            source_offset: None,
        }),
    }
}

/// Spans that are known by their tenant and number.
fn spans(tenant: &str, numbers: std::ops::Range<u64>) -> Batch {
    let items = numbers.clone().count() as u32;
    let spans = numbers.map(|number| Span {
        trace_id: vec![7; 16],
        span_id: (number + 1).to_be_bytes().to_vec(),
        name: tenant.to_owned(),
        ..Span::default()
    });
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans: spans.collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    batch_of(Signal::Traces, request.encode_to_vec(), items, &[])
}

/// How often each span arrived. Fails where a request holds spans of others than it says.
fn told_apart(tenants: &Tenants) -> BTreeMap<(String, Vec<u8>), u32> {
    let mut arrived = BTreeMap::new();
    for (names, batch) in tenants.taken.lock().unwrap().iter() {
        let [name] = &names[..] else {
            panic!("one tenant a request: {names:?}");
        };
        let request = ExportTraceServiceRequest::decode(batch.payload.bytes()).unwrap();
        let scopes = request.resource_spans.iter().flat_map(|it| &it.scope_spans);
        for span in scopes.flat_map(|it| &it.spans) {
            assert_eq!(&span.name, name, "a span of another tenant");
            *arrived.entry((span.name.clone(), span.span_id.clone())).or_default() += 1;
        }
    }
    arrived
}

/// A collector: OTLP in, a journal or none, `batch` with keys, OTLP over gRPC and HTTP out.
async fn collector(directory: Option<&Path>, backend: &Open) -> (Graph, Open, Ledger) {
    let text = "processors: { batch: { send_batch_size: 100, timeout: 5ms, metadata_keys: [x-tenant] } }\nservice: { pipelines: { traces: {} } }\n";
    let config = Config::load(vec![Source::new("test", text)], &|_| None).unwrap();
    let Ok(Step::Take(take)) = batch::parse(&config.section(&config.processors[0])) else {
        panic!("`batch` says how much is taken");
    };
    let retry = Retry {
        initial_interval: Duration::from_millis(1),
        max_interval: Duration::from_millis(5),
        ..Retry::default()
    };
    let part = |name: &str, settings: String| ExporterPart {
        name: name.into(),
        sink: Sink::Exporter(exporter(
            name,
            &format!("{settings}, auth: {{ authenticator: headers_setter }}"),
        )),
        sending: Sending::new(GRACE, retry.clone(), &Queue::default()),
    };
    let (grpc, http) = (at(backend, "otlp (grpc)"), at(backend, "otlp (http)"));
    let ledger = Ledger::new();
    let graph = Graph::start(Parts {
        pipelines: vec![PipelinePart {
            name: "traces".into(),
            signal: Signal::Traces,
            receivers: vec!["otlp".into()],
            in_request: Vec::new(),
            stages: Vec::new(),
            take,
            exporters: vec![
                part("otlp", format!("endpoint: 'http://{grpc}'")),
                part("otlphttp", format!("endpoint: 'http://{http}'")),
            ],
            connectors: Vec::new(),
        }],
        connectors: Vec::new(),
        journal: directory.map(|directory| {
            let settings = journal::Settings {
                min_free_bytes: 0,
                ..journal::Settings::new(directory)
            };
            Journal::open(settings, Arc::new(RealDisk)).unwrap().0
        }),
        budget: Budget::root("process", 1 << 30),
        ledger: ledger.clone(),
        runtime: tokio::runtime::Handle::current(),
    })
    .unwrap();
    let front = "receivers: { otlp: { protocols: { grpc: { endpoint: 127.0.0.1:0, include_metadata: true }, http: { endpoint: 127.0.0.1:0, include_metadata: true } } } }\nservice: { pipelines: { traces: {} } }\n";
    let open = doors(front, |name| graph.intake(name).unwrap()).await;
    (graph, open, ledger)
}

/// Two tenants and one who names none send in turn, over both transports.
async fn send(open: &Open, rounds: std::ops::Range<u64>) {
    let (grpc, http) = (at(open, "otlp (grpc)"), at(open, "otlp (http)"));
    let sender = |tenant: Option<&str>| {
        let headers = tenant.map_or(String::new(), |tenant| format!(", headers: {{ X-Tenant: {tenant} }}"));
        [
            exporter("otlp", &format!("endpoint: 'http://{grpc}'{headers}")),
            exporter("otlphttp", &format!("endpoint: 'http://{http}'{headers}")),
        ]
    };
    let senders = [
        ("a", sender(Some("a"))),
        ("b", sender(Some("b"))),
        ("nobody", sender(None)),
    ];
    for n in rounds {
        for (tenant, transports) in &senders {
            let batch = spans(tenant, n * 10..n * 10 + 10);
            assert_eq!(
                transports[(n % 2) as usize].export(batch).await,
                Outcome::Delivered,
                "{tenant}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_mixes_tenants_though_the_journal_is_opened_anew() {
    let directory = tempfile::tempdir().unwrap();
    let tenants = Arc::new(Tenants::default());
    let backend = backend(&tenants).await;
    *tenants.is_down.lock().unwrap() = true;
    let (graph, open, _) = collector(Some(directory.path()), &backend).await;
    let asked = tenants.arrived.notified();
    send(&open, 0..30).await;
    asked.await;
    assert!(open.shutdown(GRACE).await);
    graph.drain(Duration::ZERO).await;
    assert!(tenants.taken.lock().unwrap().is_empty());

    *tenants.is_down.lock().unwrap() = false;
    let (graph, open, ledger) = collector(Some(directory.path()), &backend).await;
    send(&open, 30..60).await;
    assert!(open.shutdown(GRACE).await);
    assert_eq!(graph.drain(GRACE).await, Drained::Settled);
    let arrived = told_apart(&tenants);
    assert_eq!(arrived.len(), 3 * 600, "all that was acknowledged");
    assert!(arrived.values().all(|times| *times == 2), "once by each exporter");
    let requests = tenants.taken.lock().unwrap().len();
    assert!(
        requests < 2 * 180,
        "{requests} requests: those of one tenant are joined"
    );
    ledger.balance().unwrap();
    assert!(backend.shutdown(GRACE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_journal_too() {
    let tenants = Arc::new(Tenants::default());
    let backend = backend(&tenants).await;
    let (graph, open, ledger) = collector(None, &backend).await;
    send(&open, 0..10).await;
    assert!(open.shutdown(GRACE).await);
    assert_eq!(graph.drain(GRACE).await, Drained::Settled);
    assert_eq!(told_apart(&tenants).len(), 3 * 100);
    ledger.balance().unwrap();
    assert!(backend.shutdown(GRACE).await);
}

fn logs() -> Vec<u8> {
    let log_records = vec![LogRecord {
        time_unix_nano: 1_700_000_000_000_000_000,
        ..LogRecord::default()
    }];
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs: vec![ScopeLogs {
                log_records,
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    }
    .encode_to_vec()
}

fn metrics() -> Vec<u8> {
    let point = NumberDataPoint {
        time_unix_nano: 1_700_000_000_000_000_000,
        value: Some(number_data_point::Value::AsInt(1)),
        ..NumberDataPoint::default()
    };
    let metrics = vec![Metric {
        name: "up".into(),
        data: Some(metric::Data::Gauge(Gauge {
            data_points: vec![point],
        })),
        ..Metric::default()
    }];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            scope_metrics: vec![ScopeMetrics {
                metrics,
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    }
    .encode_to_vec()
}

#[tokio::test]
async fn every_protocol_says_the_tenant() {
    let tenants = Arc::new(Tenants::default());
    let backend = backend(&tenants).await;
    let auth = "auth: { authenticator: headers_setter }";
    let otlp = at(&backend, "otlp (grpc)");
    let spans = spans("a", 0..1).payload.to_vec();
    let kinds = [
        (
            "otlp",
            Signal::Traces,
            &spans,
            format!("endpoint: 'http://{otlp}', {auth}"),
        ),
        (
            "otlphttp",
            Signal::Logs,
            &logs(),
            format!("endpoint: 'http://{}', {auth}", at(&backend, "otlp (http)")),
        ),
        (
            "loki",
            Signal::Logs,
            &logs(),
            format!("endpoint: 'http://{}', {auth}", at(&backend, "loki (http)")),
        ),
        (
            "jaeger",
            Signal::Traces,
            &spans,
            format!(
                "endpoint: '{}', tls: {{ insecure: true }}, {auth}",
                at(&backend, "jaeger (grpc)")
            ),
        ),
        (
            "prometheusremotewrite",
            Signal::Metrics,
            &metrics(),
            format!(
                "endpoint: 'http://{}/api/v1/write', {auth}",
                at(&backend, "prometheusremotewrite (http)")
            ),
        ),
        (
            "loadbalancing",
            Signal::Traces,
            &spans,
            format!(
                "protocol: {{ otlp: {{ tls: {{ insecure: true }}, {auth} }} }}, resolver: {{ static: {{ hostnames: ['{otlp}'] }} }}"
            ),
        ),
    ];
    for (kind, signal, payload, settings) in kinds {
        let exporter = exporter(kind, &settings);
        assert_eq!(exporter.metadata_keys(), ["x-tenant".into()], "{kind}");
        // The same bytes may come with another tenant.
        let one = batch_of(signal, payload.clone(), 1, &[("x-tenant", "one")]);
        let two = Batch {
            meta: batch_of(signal, Vec::new(), 0, &[("x-tenant", "two")]).meta,
            ..one.clone()
        };
        let none = batch_of(signal, payload.clone(), 1, &[]);
        for batch in [one, two, none] {
            assert_eq!(exporter.export(batch).await, Outcome::Delivered, "{kind}");
        }
        let taken = std::mem::take(&mut *tenants.taken.lock().unwrap());
        let names: Vec<String> = taken.into_iter().flat_map(|(names, _)| names).collect();
        assert_eq!(names, ["one", "two", "nobody"], "{kind}");
    }
    assert!(backend.shutdown(GRACE).await);
}

#[test]
fn a_door_does_not_ask_who_sends_with_it() {
    let text = format!(
        "receivers: {{ otlp: {{ protocols: {{ http: {{ auth: {{ authenticator: headers_setter }} }} }} }} }}\nextensions: {{ {SETTER} }}\nservice: {{ extensions: [headers_setter], pipelines: {{ traces: {{}} }} }}\n"
    );
    let config = Config::load(vec![Source::new("test", text)], &|_| None).unwrap();
    let said = receivers::otlp::Config::parse(&config.section(&config.receivers[0])).unwrap_err();
    let said = said.to_string();
    assert!(said.contains("it sets headers of requests that go out"), "{said}");
}
