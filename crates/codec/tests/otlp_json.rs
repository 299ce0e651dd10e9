//! OTLP/JSON against `opentelemetry-proto` (prost for the protobuf side, its serde form for the JSON side), and the
//! example payloads of the OpenTelemetry project.

#[path = "../../model/tests/otlp/arbitrary.rs"]
mod arbitrary;

use std::path::PathBuf;

use bytes::Bytes;
use codec::otlp_json::{from_protobuf, to_protobuf};
use model::Signal;
use model::canonical::canonicalize;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use proptest::prelude::*;
use prost::Message;

use arbitrary::Source;

/// A message, through canonical form and JSON, is the same message.
fn there_and_back<M: Message + Default + std::fmt::Debug>(signal: Signal, message: &M) {
    let payload = canonicalize(signal, message.encode_to_vec().into())
        .expect("is legal")
        .payload;
    let json = from_protobuf(signal, &payload);
    let back = to_protobuf(signal, json.as_bytes()).unwrap_or_else(|error| panic!("{error}: {json}"));
    let canonical = canonicalize(signal, back.into()).expect("JSON becomes legal protobuf");
    // As `Debug` writes it, all NaNs are equal: JSON has only one.
    let shown = |payload: Bytes| format!("{:?}", M::decode(payload).expect("is legal"));
    let (read, sent) = (shown(canonical.payload.clone()), shown(payload));
    if let Some(at) = read.bytes().zip(sent.bytes()).position(|(read, sent)| read != sent) {
        let around = |text: &str| text.chars().skip(at.saturating_sub(200)).take(250).collect::<String>();
        panic!("read {}\nsent {}", around(&read), around(&sent));
    }
    assert_eq!(read.len(), sent.len(), "{json}");
    assert_eq!(from_protobuf(signal, &canonical.payload), json);
    serde_json::from_str::<serde_json::Value>(&json).expect("is JSON");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn traces_there_and_back(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        there_and_back(Signal::Traces, &Source(&bytes).traces());
    }

    #[test]
    fn logs_there_and_back(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        there_and_back(Signal::Logs, &Source(&bytes).logs());
    }

    #[test]
    fn metrics_there_and_back(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        there_and_back(Signal::Metrics, &Source(&bytes).metrics());
    }

    #[test]
    fn damaged_json_never_panics(
        bytes in prop::collection::vec(any::<u8>(), 0..500),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let payload = canonicalize(Signal::Logs, Source(&bytes).logs().encode_to_vec().into()).expect("is legal");
        let mut json = from_protobuf(Signal::Logs, &payload.payload).into_bytes();
        for (index, byte) in damage {
            *index.get_mut(&mut json) = byte;
        }
        if let Ok(payload) = to_protobuf(Signal::Logs, &json) {
            canonicalize(Signal::Logs, payload.into()).expect("what JSON becomes is legal protobuf");
        }
    }
}

fn reads(signal: Signal, json: &str) -> Vec<u8> {
    let payload = to_protobuf(signal, json.as_bytes()).unwrap_or_else(|error| panic!("{error}: {json}"));
    canonicalize(signal, payload.into()).expect("is legal").payload.to_vec()
}

fn check_span(json: &str, expect: impl Fn(&mut opentelemetry_proto::tonic::trace::v1::Span)) {
    let ids = r#""traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"eee19b7ec3c1b174""#;
    let request = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{ids}{json}}}]}}]}}]}}"#);
    let read = ExportTraceServiceRequest::decode(&*reads(Signal::Traces, &request)).expect("is legal");
    let span = read.resource_spans[0].scope_spans[0].spans[0].clone();
    let mut expected = opentelemetry_proto::tonic::trace::v1::Span {
        trace_id: 0x5b8efff798038103d269b633813fc60c_u128.to_be_bytes().into(),
        span_id: 0xeee19b7ec3c1b174_u64.to_be_bytes().into(),
        ..Default::default()
    };
    expect(&mut expected);
    assert_eq!(span, expected, "{json}");
}

#[test]
fn spellings_that_senders_use() {
    check_span("", |_| {});
    check_span(r#","startTimeUnixNano":"1544712660000000000""#, |s| {
        s.start_time_unix_nano = 1544712660000000000
    });
    check_span(r#","startTimeUnixNano":1544712660000000001"#, |s| {
        s.start_time_unix_nano = 1544712660000000001
    });
    check_span(r#","kind":2,"flags":257"#, |s| (s.kind, s.flags) = (2, 257));
    check_span(r#","droppedEventsCount":"3","droppedLinksCount":4.0"#, |s| {
        (s.dropped_events_count, s.dropped_links_count) = (3, 4);
    });
    check_span(
        r#","name":"\u00e4\n","parentSpanId":"","status":null,"events":null"#,
        |s| s.name = "ä\n".into(),
    );
    check_span(r#","parentSpanId":"EEE19B7EC3C1B173","status":{}"#, |s| {
        s.parent_span_id = 0xeee19b7ec3c1b173_u64.to_be_bytes().into();
        s.status = Some(Default::default());
    });
    check_span(
        r#","newField":{"a":[{"b":1e999999}]},"trace_state":"snake case is not a name""#,
        |_| {},
    );
}

#[test]
fn what_is_not_otlp_json_says_where() {
    let check = |body: &str, expect: &str| {
        let json = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{{body}}}]}}]}}]}}"#);
        let error = to_protobuf(Signal::Logs, json.as_bytes()).expect_err(&json).to_string();
        assert!(
            error.starts_with("malformed OTLP/JSON: ") && error.contains(expect),
            "{error}"
        );
        assert!(error.contains("at line 1 column "), "{error}");
    };
    check(r#""severityNumber":"SEVERITY_NUMBER_INFO""#, "the integer of an enum");
    check(r#""timeUnixNano":"-1""#, "-1 is out of range for timeUnixNano");
    check(
        r#""timeUnixNano":1.5"#,
        "expected an integer, or a string of one (timeUnixNano)",
    );
    check(r#""traceId":"xyz""#, "expected a string in hex (traceId)");
    check(r#""traceId":"abc""#, "expected a string in hex (traceId)");
    check(r#""attributes":{}"#, "expected an array (attributes)");
    check(r#""attributes":[1]"#, "expected an object (KeyValue)");
    check(r#""attributes":[null]"#, "expected an object (KeyValue)");
    check(
        r#""body":{"bytesValue":"a"}"#,
        "expected a string in base64 (bytesValue)",
    );
    check(r#""body":{"boolValue":"true"}"#, "expected true or false (boolValue)");
    check(r#""body":"text""#, "expected an object (AnyValue)");
    check(r#""severityText":"\ud800""#, "hex escape");
    check(r#""flags":4294967296"#, "4294967296 is out of range for flags");

    let error = to_protobuf(Signal::Traces, b"{} x").expect_err("has more after its end");
    assert!(error.to_string().contains("trailing characters"), "{error}");
    let deep = "{\"arrayValue\":{\"values\":[".repeat(40);
    let json = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{deep}"#);
    let error = to_protobuf(Signal::Logs, json.as_bytes())
        .expect_err("is too deep")
        .to_string();
    assert!(error.contains("values nest deeper than 32 levels"), "{error}");
    let unknown = "[".repeat(1_000_000);
    to_protobuf(Signal::Logs, format!("{{\"x\":{unknown}").as_bytes()).expect_err("does not end");
}

#[test]
fn doubles_of_every_kind() {
    let read = |double: &str| {
        let json = format!(
            r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"gauge":{{"dataPoints":[{{"asDouble":{double}}}]}}}}]}}]}}]}}"#
        );
        let payload = reads(Signal::Metrics, &json);
        match model::view::metrics::metrics(&payload)
            .next()
            .expect("has a metric")
            .data
        {
            model::view::metrics::Data::Gauge { points } => points.iter().next().expect("has a point").value,
            other => panic!("{other:?}"),
        }
    };
    use model::view::metrics::Number;
    assert_eq!(read("5"), Number::Double(5.0));
    assert_eq!(read("-0.5"), Number::Double(-0.5));
    assert_eq!(read("\"1e300\""), Number::Double(1e300));
    assert_eq!(read("\"-Infinity\""), Number::Double(f64::NEG_INFINITY));
    assert!(matches!(read("\"NaN\""), Number::Double(value) if value.is_nan()));
}

/// The folder of example payloads: named by a variable, or beside the checkout.
fn examples() -> Option<PathBuf> {
    let folder = match std::env::var_os("TRACKLINE_CONFORMANCE") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance"),
    }
    .join("otlp");
    if folder.is_dir() {
        return Some(folder);
    }
    // Straight to standard error: what a passing test prints with a macro is not shown.
    let _ = std::io::Write::write_fmt(
        &mut std::io::stderr(),
        format_args!(
            "skipped: no example payloads in {}; TRACKLINE_CONFORMANCE names their folder\n",
            folder.display()
        ),
    );
    None
}

/// Our reading of an example is what an independent reader makes of it.
fn check_example<M>(folder: &std::path::Path, file: &str, signal: Signal)
where
    M: Message + Default + PartialEq + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let json = std::fs::read_to_string(folder.join(file)).expect("the example can be read");
    let ours = M::decode(&*reads(signal, &json)).expect("is legal");
    let theirs: M = serde_json::from_str(&json).expect("the example is OTLP/JSON");
    assert!(ours == theirs, "{file}: {ours:#?} is not {theirs:#?}");
    assert!(ours.encoded_len() > 100, "{file} says something");
    there_and_back(signal, &ours);
}

#[test]
fn the_examples_of_the_opentelemetry_project() {
    let Some(folder) = examples() else { return };
    check_example::<ExportTraceServiceRequest>(&folder, "trace.json", Signal::Traces);
    check_example::<ExportLogsServiceRequest>(&folder, "logs.json", Signal::Logs);
    check_example::<ExportLogsServiceRequest>(&folder, "events.json", Signal::Logs);
    check_example::<ExportMetricsServiceRequest>(&folder, "metrics.json", Signal::Metrics);
}
