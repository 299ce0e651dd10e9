//! The `loadbalancing` exporter on real sockets, before gRPC backends written here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use exporters::loadbalancing::LoadBalancing;
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, Full};
use model::{Batch, Encoding, Meta, Signal};
use net::{DoorSettings, Doors, Mount, Request, Response, handler_fn};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use pipeline::config::{Config, Source};
use pipeline::{Exporter, Outcome, Reason};
use prost::Message;

fn parse(settings: &str) -> Result<exporters::loadbalancing::Config, String> {
    let text = format!("exporters:\n  loadbalancing: {{ {settings} }}\nservice: {{ pipelines: {{ traces: {{}} }} }}\n");
    let config = Config::load(vec![Source::new("test.yaml", text)], &|_| None).map_err(|error| error.to_string())?;
    exporters::loadbalancing::parse(&config.section(&config.exporters[0])).map_err(|error| error.to_string())
}

/// Two spans of each trace, in resources of three services.
fn spans(traces: u32) -> Batch {
    let span = |trace: u32, second: bool| Span {
        trace_id: (u128::from(trace) * 0x9e37_79b9_7f4a_7c15_f39c).to_be_bytes().to_vec(),
        span_id: (u64::from(trace) * 2 + u64::from(second) + 1).to_be_bytes().to_vec(),
        ..Span::default()
    };
    let resource_spans = (0..3).map(|service| ResourceSpans {
        resource: Some(Resource {
            attributes: vec![KeyValue {
                key: "service.name".to_owned(),
                value: Some(AnyValue {
                    value: Some(Value::StringValue(format!("service {service}"))),
                }),
                ..KeyValue::default()
            }],
            ..Resource::default()
        }),
        scope_spans: vec![ScopeSpans {
            spans: (1..=traces * 2)
                .filter(|at| at % 3 == service)
                .map(|at| span(at.div_ceil(2), at % 2 == 0))
                .collect(),
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    });
    let request = ExportTraceServiceRequest {
        resource_spans: resource_spans.collect(),
    };
    Batch {
        signal: Signal::Traces,
        encoding: Encoding::Otlp,
        payload: request.encode_to_vec().into(),
        items: traces * 2,
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

/// How often, of which trace, of which service.
type Seen = (u32, Vec<u8>, String);

#[derive(Default)]
struct Backend {
    /// How often each span came, its trace and its service.
    taken: Mutex<BTreeMap<Vec<u8>, Seen>>,
    is_away: AtomicBool,
}

impl Backend {
    async fn answer(self: Arc<Backend>, request: Request) -> Response {
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        let status = if self.is_away.load(Ordering::Relaxed) {
            "14"
        } else {
            "0"
        };
        if status == "0" {
            let request = ExportTraceServiceRequest::decode(&body[5..]).expect("a request");
            let mut taken = self.taken.lock().expect("no panic");
            for resource in request.resource_spans {
                let service = format!("{:?}", resource.resource);
                for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                    let seen = taken.entry(span.span_id).or_insert((0, span.trace_id, service.clone()));
                    seen.0 += 1;
                }
            }
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(status));
        let body = Full::new(Bytes::from_static(&[0; 5])).with_trailers(async move { Some(Ok(trailers)) });
        let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", grpc);
        response
    }

    async fn open() -> (Arc<Backend>, net::Open, SocketAddr) {
        let backend = Arc::new(Backend::default());
        let mut doors = Doors::new();
        let address = "127.0.0.1:0".parse().expect("an endpoint");
        let seen = Arc::clone(&backend);
        let service = handler_fn(move |request| Arc::clone(&seen).answer(request));
        let name = "opentelemetry.proto.collector.trace.v1.TraceService";
        let mount = Mount::Grpc { name, service };
        doors
            .mount_with(&address, "backend", mount, DoorSettings::default())
            .expect("free");
        let open = doors.open().await.expect("opens");
        let address = open.address_of("backend").expect("open");
        (backend, open, address)
    }

    /// The traces, or the services, of what came; nothing came twice.
    fn has(&self, of: impl Fn(&Seen) -> String) -> std::collections::BTreeSet<String> {
        let taken = self.taken.lock().expect("no panic");
        assert!(taken.values().all(|seen| seen.0 == 1), "something came twice");
        taken.values().map(of).collect()
    }

    fn spans(&self) -> usize {
        self.taken.lock().expect("no panic").len()
    }
}

struct Setup {
    backends: Vec<Arc<Backend>>,
    _open: Vec<net::Open>,
    exporter: LoadBalancing,
}

async fn three(more: &str) -> Setup {
    let (mut backends, mut open, mut hostnames) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        let (backend, door, address) = Backend::open().await;
        backends.push(backend);
        open.push(door);
        hostnames.push(format!("'{address}'"));
    }
    let config = parse(&format!(
        "protocol: {{ otlp: {{ tls: {{ insecure: true }}, compression: none }} }}, resolver: {{ static: {{ hostnames: [ {} ] }} }}, {more}",
        hostnames.join(", ")
    ));
    let exporter = LoadBalancing::new(&config.unwrap_or_else(|error| panic!("{error}"))).expect("made");
    Setup {
        backends,
        _open: open,
        exporter,
    }
}

#[tokio::test]
async fn a_trace_goes_to_one_backend_and_each_backend_has_its_share() {
    let setup = three("").await;
    assert_eq!(setup.exporter.export(spans(900)).await, Outcome::Delivered);
    let mut all = std::collections::BTreeSet::new();
    let mut count = 0;
    for backend in &setup.backends {
        let traces = backend.has(|seen| format!("{:?}", seen.1));
        assert!((150..=450).contains(&traces.len()), "{}", traces.len());
        count += traces.len();
        all.extend(traces);
        // Both spans of each.
        assert_eq!(backend.spans() % 2, 0);
    }
    assert_eq!((count, all.len()), (900, 900), "no trace is in two places");
}

#[tokio::test]
async fn a_service_goes_to_one_backend() {
    let setup = three("routing_key: service").await;
    assert_eq!(setup.exporter.export(spans(90)).await, Outcome::Delivered);
    let services: Vec<_> = setup
        .backends
        .iter()
        .map(|backend| backend.has(|seen| seen.2.clone()))
        .collect();
    assert_eq!(services.iter().map(|services| services.len()).sum::<usize>(), 3);
    assert_eq!(setup.backends.iter().map(|backend| backend.spans()).sum::<usize>(), 180);
}

#[tokio::test]
async fn what_the_others_took_is_not_sent_again() {
    let setup = three("").await;
    setup.backends[1].is_away.store(true, Ordering::Relaxed);
    let batch = spans(300);
    // As the sender does it that repeats the whole.
    for _ in 0..2 {
        let outcome = setup.exporter.export(batch.clone()).await;
        assert!(
            matches!(
                outcome,
                Outcome::Retry {
                    reason: Reason::BackendUnavailable,
                    ..
                }
            ),
            "{outcome:?}"
        );
    }
    assert_eq!(setup.backends[1].spans(), 0);
    let taken = setup.backends[0].spans() + setup.backends[2].spans();
    assert!(taken > 0);
    // And as the graph does it, with the rest in place of the whole.
    let left = setup.exporter.left(&batch).expect("some of it");
    let rest = left.batch.expect("there is a rest");
    assert_eq!((rest.items as usize, left.refused), (600 - taken, None));
    assert!(setup.exporter.left(&batch).is_none(), "it has been given away");
    setup.backends[1].is_away.store(false, Ordering::Relaxed);
    assert_eq!(setup.exporter.export(rest).await, Outcome::Delivered);
    for backend in &setup.backends {
        backend.has(|seen| seen.2.clone());
    }
    assert_eq!(setup.backends.iter().map(|backend| backend.spans()).sum::<usize>(), 600);
}

#[tokio::test]
async fn a_name_is_looked_up_with_the_first_request() {
    let (backend, _open, address) = Backend::open().await;
    let more = format!(
        "protocol: {{ otlp: {{ tls: {{ insecure: true }}, compression: none }} }}, resolver: {{ dns: {{ hostname: 127.0.0.1, port: \"{}\" }} }}",
        address.port()
    );
    let exporter = LoadBalancing::new(&parse(&more).unwrap_or_else(|error| panic!("{error}"))).expect("made");
    assert_eq!(exporter.export(spans(5)).await, Outcome::Delivered);
    assert_eq!(backend.spans(), 10);
    let nowhere = parse("resolver: { dns: { hostname: nowhere.invalid } }").expect("right");
    let exporter = LoadBalancing::new(&nowhere).expect("made");
    assert!(matches!(exporter.export(spans(5)).await, Outcome::Retry { .. }));
}

#[test]
fn mistakes_are_told_with_what_would_be_right() {
    for (settings, words) in [
        ("protocol: {}", "the key `resolver` is missing"),
        ("resolver: {}", "there is no backend"),
        ("resolver: { static: { hostnames: [] } }", "there are 0"),
        (
            "resolver: { static: { hostnames: [ 'http://a' ] } }",
            "is not host:port",
        ),
        (
            "resolver: { static: { hostnames: [ a ] }, dns: { hostname: b } }",
            "either",
        ),
        ("resolver: { dns: { hostname: '' } }", "`hostname` is empty"),
        ("resolver: { dns: { hostname: a, port: x } }", "`x` is not a port"),
        ("resolver: { k8s: { service: a.b } }", "clusterIP: None"),
        ("resolver: { aws_cloud_map: {} }", "DNS names"),
        (
            "resolver: { dns: { hostname: a } }, routing_key: streamID",
            "traceID, service, resource and metric",
        ),
        (
            "resolver: { dns: { hostname: a } }, tls: { insecure: true }",
            "protocol: { otlp",
        ),
        (
            "resolver: { dns: { hostname: a } }, protocol: { otlp: { headrs: {} } }",
            "did you mean `headers`?",
        ),
        ("resolver: { dns: { hostnam: a } }", "did you mean `hostname`?"),
    ] {
        let said = parse(settings).expect_err(settings);
        assert!(
            said.contains(words) && said.contains("test.yaml:2"),
            "{said}\nexpected: {words}"
        );
    }
}

#[test]
fn a_file_of_the_collectors_loads() {
    let config = parse(
        "routing_key: service, protocol: { otlp: { timeout: 1s, tls: { insecure: true }, sending_queue: { num_consumers: 3 } } }, \
         resolver: { dns: { hostname: a, port: \"4317\", interval: 10s, timeout: 2s } }",
    )
    .unwrap_or_else(|error| panic!("{error}"));
    let sending = exporters::loadbalancing::sending(&config);
    assert_eq!((sending.in_flight, sending.timeout.as_secs()), (3, 2));
}
