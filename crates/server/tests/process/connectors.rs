//! Kills the real process while it counts spans: what it tells on its scrape endpoint afterwards is each span once, and each call between services once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

use crate::kill::now;
use crate::running::{Ports, Server, post};

const KILLS: usize = 4;
const SENDERS: usize = 2;
/// Acknowledged calls that a round waits for before its kill, so that each kill falls into load.
const CALLS_A_ROUND: usize = 40;
const WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

fn configuration(folder: &Path, ports: Ports, scrape: u16) -> PathBuf {
    let text = format!(
        "receivers:
  otlp: {{ protocols: {{ http: {{ endpoint: '127.0.0.1:{}' }} }} }}
connectors:
  span_metrics:
    metrics_flush_interval: 1s
    aggregation_cardinality_limit: 100000
    histogram: {{ unit: s }}
    exemplars: {{ enabled: true }}
  servicegraph:
    metrics_flush_interval: 1s
    store: {{ ttl: 1h, max_items: 100000 }}
exporters:
  prometheus: {{ endpoint: '127.0.0.1:{scrape}', enable_open_metrics: true }}
  store:
extensions:
  query: {{ endpoint: '127.0.0.1:{}' }}
service:
  extensions: [query]
  telemetry: {{ metrics: {{ level: none }} }}
  pipelines:
    traces: {{ receivers: [otlp], exporters: [span_metrics, servicegraph, store] }}
    metrics: {{ receivers: [span_metrics, servicegraph], exporters: [prometheus] }}
",
        ports.http, ports.query,
    );
    let path = folder.join("config.yaml");
    fs::write(&path, text).expect("writes");
    path
}

/// One half of a call, which is told apart by its span's name: `calls N` of a client, `serves N` of the server.
fn half(number: u64, is_client: bool) -> Vec<u8> {
    let (service, name) = match is_client {
        true => ("web", format!("calls {number}")),
        false => ("shop", format!("serves {number}")),
    };
    let id = |of_client: bool| (number.wrapping_mul(2) + u64::from(of_client)).to_be_bytes().to_vec();
    let span = Span {
        trace_id: u128::from(number).to_be_bytes().to_vec(),
        span_id: id(is_client),
        parent_span_id: if is_client { Vec::new() } else { id(true) },
        name,
        kind: if is_client { 3 } else { 2 },
        start_time_unix_nano: now(),
        end_time_unix_nano: now() + 3_000_000,
        ..Span::default()
    };
    let name = KeyValue {
        key: "service.name".into(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(service.into())),
        }),
        ..KeyValue::default()
    };
    let resource_spans = vec![ResourceSpans {
        resource: Some(Resource {
            attributes: vec![name],
            ..Resource::default()
        }),
        scope_spans: vec![ScopeSpans {
            spans: vec![span],
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

/// The page of the scrape endpoint; empty while there is none.
fn page(port: u16) -> String {
    let get = || -> std::io::Result<String> {
        let mut socket = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        let accept = "application/openmetrics-text; version=1.0.0";
        write!(
            socket,
            "GET /metrics HTTP/1.0\r\nhost: 127.0.0.1:{port}\r\naccept: {accept}\r\n\r\n"
        )?;
        let mut page = String::new();
        socket.read_to_string(&mut page)?;
        Ok(page)
    };
    get().unwrap_or_default()
}

/// The samples of a metric by the value of a label.
fn samples(page: &str, metric: &str, label: &str) -> BTreeMap<String, f64> {
    let one = |line: &str| {
        let labels = line.strip_prefix(metric)?.strip_prefix('{')?;
        let (labels, rest) = labels.split_once('}')?;
        let (_, value) = labels.split_once(&format!("{label}=\""))?;
        let number = rest.split_whitespace().next()?.parse().ok()?;
        Some((value.split('"').next()?.to_owned(), number))
    };
    page.lines().filter_map(one).collect()
}

#[test]
fn kill_9_counts_no_span_twice_and_none_less() {
    let folder = tempfile::tempdir().expect("a directory");
    let ports = Ports::free();
    let scrape = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
    let scrape = scrape.expect("a free port").port();
    let config = configuration(folder.path(), ports, scrape);
    let acked: Mutex<BTreeSet<String>> = Mutex::default();
    let next = AtomicU64::new(1);
    for round in 0..KILLS {
        let server = Server::start_with(&folder.path().join("data"), ports, &config);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..SENDERS {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        for is_client in [number.is_multiple_of(2), !number.is_multiple_of(2)] {
                            if post(ports.http, "/v1/traces", &half(number, is_client)) == Some(200) {
                                let name = if is_client { "calls" } else { "serves" };
                                acked
                                    .lock()
                                    .expect("no sender panicked")
                                    .insert(format!("{name} {number}"));
                            }
                        }
                    }
                });
            }
            while acked.lock().expect("no sender panicked").len() < 2 * CALLS_A_ROUND * (round + 1) {
                std::thread::yield_now();
            }
            server.kill();
            stop.store(true, Ordering::Relaxed);
        });
    }

    let acked = acked.into_inner().expect("no sender panicked");
    let server = Server::start_with(&folder.path().join("data"), ports, &config);
    let deadline = Instant::now() + WITHIN;
    let (calls, page) = loop {
        let page = page(scrape);
        let calls = samples(&page, "traces_span_metrics_calls_total", "span_name");
        let is_told = |name: &String| calls.contains_key(name);
        // The service graph is told as often, but not at the same moment.
        let pairs = samples(&page, "traces_service_graph_request_total", "client");
        let both = (1..next.load(Ordering::Relaxed))
            .filter(|number| is_told(&format!("calls {number}")) && is_told(&format!("serves {number}")));
        if acked.iter().all(is_told) && pairs.get("web") == Some(&(both.count() as f64)) {
            break (calls, page);
        }
        let missing: Vec<_> = acked.iter().filter(|name| !is_told(name)).take(5).collect();
        assert!(
            Instant::now() < deadline,
            "{missing:?} are missing; {pairs:?}; {} series",
            calls.len()
        );
        std::thread::sleep(POLL);
    };
    for (name, count) in &calls {
        assert_eq!(*count, 1.0, "{name}");
    }
    let durations = samples(&page, "traces_span_metrics_duration_seconds_count", "span_name");
    assert_eq!(durations, calls);
    for metric in ["server", "client"] {
        let metric = format!("traces_service_graph_request_{metric}_seconds_count");
        assert!(page.contains(&format!("{metric}{{")), "{metric} is not told");
    }
    // An exemplar is of one interval: it is told once.
    let traced = format!("trace_id=\"{:032x}\"}}", u64::MAX);
    while !self::page(scrape).contains(&traced) {
        assert!(Instant::now() < deadline, "there is no exemplar");
        assert_eq!(post(ports.http, "/v1/traces", &half(u64::MAX, true)), Some(200));
        std::thread::sleep(POLL);
    }
    let ledger = server.json("/api/trackline/v1/ledger");
    assert_eq!(ledger["balanced"], true, "{ledger}");
    assert_eq!(server.stop(), Some(0));
}
