//! Jaeger's JSON as it was approved, against files in `golden/`; `UPDATE_GOLDEN=1 cargo test -p server` rewrites them.

use std::path::PathBuf;
use std::sync::Arc;

use model::record::{EventRecord, LinkRecord, Scope, SpanRecord, Value};
use model::{SpanId, TraceId};
use serde::Serialize;

use super::otlp_json::ResourceSpans;
use super::span_json::TraceJson;
use super::v3::SummaryJson;

fn text(key: &str, value: &str) -> (String, Value) {
    (key.to_owned(), Value::Str(value.to_owned()))
}

/// Two services, every type of value, events, links, an orphan.
fn spans() -> Vec<SpanRecord> {
    let trace_id = TraceId(0x4bf92f3577b34da6a3ce929d0e0e4736_u128.to_be_bytes());
    let web = Arc::new(vec![
        text("service.name", "web"),
        text("host.name", "a"),
        ("replicas".into(), Value::Int(3)),
    ]);
    let engine = Arc::new(vec![text("service.name", "engine"), text("host.name", "b")]);
    let scope = Arc::new(Scope {
        name: "sdk".into(),
        version: "1.2".into(),
        ..Scope::default()
    });
    let root = SpanRecord {
        trace_id,
        span_id: SpanId(1u64.to_be_bytes()),
        name: "GET /chat".into(),
        kind: 2,
        flags: 0x101,
        start_unix_nano: 1_795_201_445_123_456_789,
        end_unix_nano: 1_795_201_445_223_456_789,
        status_code: 2,
        status_message: "it broke".into(),
        trace_state: "a=b".into(),
        resource: web,
        scope: scope.clone(),
        attributes: vec![
            text("http.route", "/chat"),
            ("http.response.status_code".into(), Value::Int(502)),
            ("large".into(), Value::Int(i64::MAX)),
            ("ratio".into(), Value::Double(72.5)),
            ("cached".into(), Value::Bool(false)),
            ("blob".into(), Value::Bytes(vec![0, 0, 0x30, 0x39])),
            ("list".into(), Value::Array(vec![Value::Int(1), Value::Str("x".into())])),
            ("map".into(), Value::Map(vec![("k".into(), Value::Null)])),
            text("error", "yes"),
        ],
        events: vec![EventRecord {
            time_unix_nano: 1_795_201_445_133_456_789,
            name: "exception".into(),
            attributes: vec![text("exception.type", "Timeout")],
            ..EventRecord::default()
        }],
        ..SpanRecord::default()
    };
    let child = SpanRecord {
        trace_id,
        span_id: SpanId(2u64.to_be_bytes()),
        parent_span_id: Some(root.span_id),
        name: "run".into(),
        kind: 5,
        start_unix_nano: 1_795_201_445_143_000_000,
        end_unix_nano: 1_795_201_445_153_000_000,
        status_code: 1,
        resource: engine.clone(),
        scope,
        links: vec![LinkRecord {
            trace_id: Some(TraceId(9u128.to_be_bytes())),
            span_id: Some(SpanId(9u64.to_be_bytes())),
            ..LinkRecord::default()
        }],
        ..SpanRecord::default()
    };
    let orphan = SpanRecord {
        trace_id,
        span_id: SpanId(3u64.to_be_bytes()),
        parent_span_id: Some(SpanId(77u64.to_be_bytes())),
        name: "lost".into(),
        start_unix_nano: 1_795_201_445_150_000_000,
        end_unix_nano: 1_795_201_445_140_000_000,
        resource: engine,
        ..SpanRecord::default()
    };
    vec![root, child, orphan]
}

fn check(name: &str, value: &impl Serialize) {
    let shown = serde_json::to_string_pretty(value).unwrap() + "\n";
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("src/api/jaeger/golden")
        .join(format!("{name}.json"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &shown).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(shown == expected, "{} differs; it is now:\n{shown}", path.display());
}

#[test]
fn a_trace_in_the_legacy_shape() {
    check("legacy_trace", &TraceJson::new(&spans()));
}

#[test]
fn a_trace_in_otlp_json() {
    let spans = spans();
    check("otlp_trace", &ResourceSpans(&spans));
    // The independent decoder of OTLP JSON reads it too.
    let request = format!(
        r#"{{"resourceSpans":{}}}"#,
        serde_json::to_string(&ResourceSpans(&spans)).unwrap()
    );
    let decoded: opentelemetry_proto::tonic::trace::v1::TracesData = serde_json::from_str(&request).unwrap();
    let names: Vec<&str> = decoded
        .resource_spans
        .iter()
        .flat_map(|resource| &resource.scope_spans)
        .flat_map(|scope| &scope.spans)
        .map(|span| span.name.as_str())
        .collect();
    assert_eq!(names, ["GET /chat", "run", "lost"]);
    assert_eq!(
        decoded.resource_spans[0].scope_spans[0].spans[0].start_time_unix_nano,
        1_795_201_445_123_456_789
    );
}

#[test]
fn a_summary() {
    check(
        "summary",
        &SummaryJson::new(query::search::summary(&spans(), 0).unwrap()),
    );
}

#[test]
fn short_ids_are_written_short() {
    let spans = [SpanRecord {
        trace_id: TraceId(0xabc_u128.to_be_bytes()),
        ..SpanRecord::default()
    }];
    let json = serde_json::to_value(TraceJson::new(&spans)).unwrap();
    assert_eq!(json["traceID"], "0000000000000abc");
    assert_eq!(json["processes"]["p1"]["serviceName"], "OTLPResourceNoServiceName");
}
