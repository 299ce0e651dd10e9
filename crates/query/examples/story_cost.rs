//! What one story of a large trace costs, from the store to JSON: `cargo run --release -p query --example story_cost -- 100000`.

use std::sync::Arc;
use std::time::Instant;

use model::{Batch, Meta, Signal, TraceId};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use query::instant::now_unix_nano;
use query::search::TraceSearch;
use query::{Querier, Wanted};

/// Spans of one request, as a batch processor would send them.
const SPANS_PER_REQUEST: u64 = 1_000;

fn text(key: &str, value: String) -> KeyValue {
    let value = Some(AnyValue {
        value: Some(Value::StringValue(value)),
    });
    KeyValue {
        key: key.to_owned(),
        value,
        ..KeyValue::default()
    }
}

fn request(first: u64, start: u64) -> Batch {
    let span = |i: u64| Span {
        trace_id: vec![7; 16],
        span_id: (i + 1).to_be_bytes().to_vec(),
        parent_span_id: if i == 0 {
            vec![]
        } else {
            (i / 5 + 1).to_be_bytes().to_vec()
        },
        name: format!("operation {}", i % 50),
        kind: (i % 6) as i32,
        start_time_unix_nano: start + i * 1_000,
        end_time_unix_nano: start + i * 1_000 + 900_000,
        attributes: (0..12)
            .map(|k| text(&format!("attribute.{k}"), format!("value {} of {k}", i % 1_000)))
            .collect(),
        ..Span::default()
    };
    let resource = Resource {
        attributes: vec![text("service.name", format!("service-{}", first / 1_000 % 4))],
        ..Resource::default()
    };
    let scope_spans = ScopeSpans {
        spans: (first..first + SPANS_PER_REQUEST).map(span).collect(),
        ..ScopeSpans::default()
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![scope_spans],
            ..ResourceSpans::default()
        }],
    };
    let canonical = model::canonical::canonicalize(Signal::Traces, request.encode_to_vec().into()).expect("canonical");
    let meta = Meta {
        received_at_unix_nano: start,
        receiver: "otlp".into(),
        peer: None,
        headers: vec![],
        source_offset: None,
    };
    Batch::from_canonical(Signal::Traces, canonical, None, Arc::new(meta))
}

fn main() {
    let count: u64 = std::env::args()
        .nth(1)
        .and_then(|count| count.parse().ok())
        .unwrap_or(100_000);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (writer, reader) = store::Store::open(directory.path(), store::Settings::default()).expect("the store opens");
    let start = now_unix_nano() - 60_000_000_000;
    for first in (0..count).step_by(SPANS_PER_REQUEST as usize) {
        writer
            .append("bench", [1; 16], first..=first, &[request(first, start)])
            .expect("the store takes spans");
    }
    let id = TraceId([7; 16]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    for place in ["memory", "parts"] {
        let started = Instant::now();
        let spans = reader.trace(id, &store::Limit::NONE).expect("reads").records;
        println!(
            "{place}: the store finds {} spans in {:?}",
            spans.len(),
            started.elapsed()
        );
        drop(spans);
        let querier = Querier::new(reader.clone(), None);
        for wanted in [Wanted::Outline, Wanted::Full] {
            let started = Instant::now();
            let bytes =
                runtime.block_on(querier.story(id, wanted, |story| serde_json::to_vec(&story).map(|json| json.len())));
            println!(
                "{place}: {wanted:?} story, {bytes:?} bytes of JSON, in {:?}",
                started.elapsed()
            );
        }
        let search = TraceSearch {
            time: 0..u64::MAX,
            limit: 20,
            ..TraceSearch::default()
        };
        let started = Instant::now();
        let found = runtime
            .block_on(querier.ask(move |question| question.search(&search)))
            .expect("searches");
        println!(
            "{place}: a search that finds {} in {:?}",
            found.traces.len(),
            started.elapsed()
        );
        writer.flush().expect("flushes");
    }
    writer.close().expect("closes");
}
