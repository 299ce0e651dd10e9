//! What the connectors cost a span, in nanoseconds: `cargo run --release -p pipeline --example spanmetrics_cost`. One number a line; nothing is asserted but
//! that every span was counted.

use std::sync::Arc;
use std::time::Instant;

use model::{Batch, Encoding, Meta, Signal};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use pipeline::config::{Config, Problems, Section, Source};
use pipeline::connectors::{servicegraph, spanmetrics};
use pipeline::{MakeStage, Stage};
use prost::Message;

/// Spans in a request, as SDKs' batches have them.
const SPANS: u64 = 1000;

/// Spans of a measurement.
const MEASURED: u64 = 2_000_000;

const T0: u64 = 1_700_000_000_000_000_000;

type Parse = fn(&Section<'_>) -> Result<MakeStage, Problems>;

fn main() {
    let batch = request(1);
    println!("{} bytes a span", batch.payload.len() as u64 / SPANS);
    let dimensions = "[{ name: http.route }, { name: region, default: none }]";
    for (what, settings) in [
        ("spanmetrics", "{}".to_owned()),
        ("spanmetrics, exemplars", "{ exemplars: { enabled: true } }".to_owned()),
        (
            "spanmetrics, exponential",
            "{ histogram: { exponential: {} } }".to_owned(),
        ),
        ("spanmetrics, two dimensions", format!("{{ dimensions: {dimensions} }}")),
        (
            "spanmetrics, one for calls only",
            "{ calls_dimensions: [{ name: http.route }] }".to_owned(),
        ),
    ] {
        measure(what, spanmetrics::parse, &settings, &batch);
    }
    let small = Batch {
        items: 1,
        ..spans(1, 1)
    };
    measure("spanmetrics, one span a request", spanmetrics::parse, "{}", &small);
    measure("servicegraph", servicegraph::parse, "{}", &batch);
}

fn measure(what: &str, parse: Parse, settings: &str, batch: &Batch) {
    let mut stage = stage(parse, settings);
    let mut out = Vec::new();
    stage.take(batch.clone(), &mut out);
    let rounds = MEASURED / u64::from(batch.items);
    let began = cpu_nanos();
    for _ in 0..rounds {
        stage.take(batch.clone(), &mut out);
    }
    let nanos = (cpu_nanos() - began) as f64 / MEASURED as f64;
    let began = Instant::now();
    let state = match stage.state(false) {
        pipeline::State::Whole(bytes) | pipeline::State::Change(bytes) => bytes.len(),
    };
    let state_micros = began.elapsed().as_micros();
    let began = Instant::now();
    stage.finish(T0 + 60_000_000_000, &mut out);
    let points: u32 = out.iter().map(|batch| batch.items).sum();
    let flush_micros = began.elapsed().as_micros();
    assert!(points > 0, "every span was counted");
    println!(
        "{what}: {nanos:.0} ns a span; {points} points in {flush_micros} µs; state {state} bytes in {state_micros} µs"
    );
}

/// What this thread has run, so that others on the machine do not count; where the kernel does not tell, what has gone by.
fn cpu_nanos() -> u64 {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ran = schedstat.split(' ').next().and_then(|nanos| nanos.parse().ok());
    ran.unwrap_or_else(|| BEGAN.elapsed().as_nanos() as u64)
}

static BEGAN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);

fn stage(parse: Parse, settings: &str) -> Box<dyn Stage> {
    let text = format!("processors:\n  measured: {settings}\n");
    let config = Config::load(vec![Source::new("example.yaml", text)], &|_| None).expect("a configuration");
    match parse(&config.section(&config.processors[0])) {
        Ok(make) => make(),
        Err(problems) => panic!("{problems}"),
    }
}

fn request(resources: u64) -> Batch {
    spans(resources, SPANS)
}

/// A request of spans of a usual size: 12 attributes, some 600 bytes.
fn spans(resources: u64, count: u64) -> Batch {
    let pair = |key: &str, value: String| KeyValue {
        key: key.into(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value)),
        }),
        ..KeyValue::default()
    };
    let span = |id: u64| {
        let mut attributes = vec![
            pair("http.request.method", "GET".into()),
            pair("http.route", format!("/api/v1/things/{}", id % 20)),
            pair("url.path", format!("/api/v1/things/{id}")),
        ];
        attributes.extend((0..9).map(|at| pair(&format!("attribute.number.{at}"), format!("value {id} of {at}"))));
        Span {
            trace_id: u128::from(id / 2 + 1).to_be_bytes().to_vec(),
            span_id: (id + 1).to_be_bytes().to_vec(),
            // A client's span and the server's that it calls, by turns.
            parent_span_id: id.to_be_bytes().to_vec(),
            name: format!("GET /api/v1/things/{}", id % 20),
            kind: if id.is_multiple_of(2) { 3 } else { 2 },
            start_time_unix_nano: T0,
            end_time_unix_nano: T0 + id * 100_000,
            attributes,
            status: Some(Status {
                code: i32::from(id.is_multiple_of(10)) * 2,
                ..Status::default()
            }),
            ..Span::default()
        }
    };
    let resource_spans = (0..resources).map(|resource| ResourceSpans {
        resource: Some(Resource {
            attributes: vec![
                pair("service.name", format!("service {resource}")),
                pair("service.instance.id", format!("{resource:032}")),
                pair("deployment.environment", "dev".into()),
            ],
            ..Resource::default()
        }),
        scope_spans: vec![ScopeSpans {
            spans: (0..count / resources).map(span).collect(),
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    });
    let request = ExportTraceServiceRequest {
        resource_spans: resource_spans.collect(),
    };
    let meta = Meta {
        received_at_unix_nano: T0,
        receiver: "otlp".into(),
        peer: None,
        headers: Vec::new(),
        source_offset: None,
    };
    Batch {
        signal: Signal::Traces,
        encoding: Encoding::Otlp,
        payload: request.encode_to_vec().into(),
        items: count as u32,
        wire: None,
        meta: Arc::new(meta),
    }
}
