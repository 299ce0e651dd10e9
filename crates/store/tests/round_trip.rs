//! Append → scan gives the input back, up to the list in `docs/format/part.md`, whatever the input; judged by the independent decoder.

mod traffic;

use std::sync::Arc;

use model::record::{Attributes, EventRecord, LinkRecord, Scope, SpanRecord, Value};
use model::{Signal, SpanId, TraceId};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use proptest::prelude::*;
use prost::Message;
use store::{Clock, Columns, DAY_NANOS, Dataset, Filter, Limit, Reader, Scan, Settings, Store, Upkeep};
// The generator of logs looks for its sibling at the root of its crate.
use traffic::spans;
use traffic::{HOUR, JOURNAL, NOON, batch_at, by_id};

fn any_value_of() -> impl Strategy<Value = AnyValue> {
    use any_value::Value as V;
    let of = |value: V| AnyValue { value: Some(value) };
    let leaf = prop_oneof![
        4 => "[a-zé\"\\\\\n ]{0,12}".prop_map(move |t| of(V::StringValue(t))),
        2 => any::<i64>().prop_map(move |i| of(V::IntValue(i))),
        1 => prop_oneof![Just(0.0), Just(-0.0), Just(f64::INFINITY), -1e9..1e9].prop_map(move |d| of(V::DoubleValue(d))),
        1 => any::<bool>().prop_map(move |b| of(V::BoolValue(b))),
        1 => proptest::collection::vec(any::<u8>(), 0..6).prop_map(move |b| of(V::BytesValue(b))),
        1 => Just(AnyValue { value: None }),
    ];
    leaf.prop_recursive(3, 12, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|values| AnyValue {
                value: Some(V::ArrayValue(ArrayValue { values }))
            }),
            attributes_of(inner, 4).prop_map(|values| AnyValue {
                value: Some(V::KvlistValue(KeyValueList { values }))
            }),
        ]
    })
}

/// Attributes with unique keys, some of which end like our suffixes or begin like our escapes.
fn attributes_of(values: impl Strategy<Value = AnyValue>, most: usize) -> impl Strategy<Value = Vec<KeyValue>> {
    let key = prop_oneof!["[a-f]", "[a-c]\\.[a-c]", "[ab]:(int|json|str|trace_id)", "\\$[a-b]"];
    proptest::collection::btree_map(key, values, 0..most).prop_map(|pairs| {
        pairs
            .into_iter()
            .map(|(key, value)| KeyValue {
                key,
                value: Some(value),
                ..KeyValue::default()
            })
            .collect()
    })
}

fn attributes(most: usize) -> impl Strategy<Value = Vec<KeyValue>> {
    attributes_of(any_value_of(), most)
}

fn instant() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => NOON - HOUR..NOON + HOUR,
        2 => NOON - 5 * DAY_NANOS..NOON + DAY_NANOS,
        1 => Just(0u64),
        1 => Just(4_102_444_800_000_000_000u64),
        1 => Just(u64::MAX),
    ]
}

fn span() -> impl Strategy<Value = Span> {
    let ids = (1u8..6, any::<u64>(), proptest::option::of(1u64..9));
    let times = (instant(), 0u64..10_000_000_000);
    let texts = ("[a-d]{0,3}", "[a-b=]{0,3}", "[a-c ]{0,5}", 0i32..8, 0i32..5);
    let counts = (any::<u32>(), 0u32..2, 0u32..2, 0u32..2);
    let event =
        (any::<u64>(), "[a-c]{0,3}", attributes(3), 0u32..2).prop_map(|(time_unix_nano, name, attributes, dropped)| {
            Event {
                time_unix_nano,
                name,
                attributes,
                dropped_attributes_count: dropped,
            }
        });
    let link = (1u128.., 1u64.., "[a-b]{0,2}", attributes(2), 0u32..3).prop_map(
        |(trace, span, trace_state, attributes, flags)| Link {
            trace_id: trace.to_be_bytes().to_vec(),
            span_id: span.to_be_bytes().to_vec(),
            trace_state,
            attributes,
            flags,
            ..Link::default()
        },
    );
    let lists = (
        attributes(6),
        any::<bool>(),
        proptest::collection::vec(event, 0..3),
        proptest::collection::vec(link, 0..3),
    );
    (ids, times, texts, counts, lists).prop_map(|(ids, times, texts, counts, lists)| {
        let trace_id = vec![ids.0; 16];
        let mut attributes = lists.0;
        if lists.1 {
            attributes.push(spans::text("tracking.id", &spans::hex(&trace_id)));
        }
        Span {
            trace_id,
            span_id: ids.1.max(1).to_be_bytes().to_vec(),
            parent_span_id: ids.2.map(|p| p.to_be_bytes().to_vec()).unwrap_or_default(),
            start_time_unix_nano: times.0,
            end_time_unix_nano: times.0.wrapping_add(times.1),
            name: texts.0,
            trace_state: texts.1,
            status: Some(Status {
                message: texts.2,
                code: texts.4,
            }),
            kind: texts.3,
            flags: counts.0,
            dropped_attributes_count: counts.1,
            dropped_events_count: counts.2,
            dropped_links_count: counts.3,
            attributes,
            events: lists.2,
            links: lists.3,
        }
    })
}

fn request() -> impl Strategy<Value = ExportTraceServiceRequest> {
    let scope = (
        "[a-b]{0,2}",
        "[12]{0,2}",
        attributes(3),
        0u32..2,
        "[su]{0,1}",
        proptest::collection::vec(span(), 0..6),
    )
        .prop_map(|(name, version, attributes, dropped, schema_url, spans)| ScopeSpans {
            scope: Some(InstrumentationScope {
                name,
                version,
                attributes,
                dropped_attributes_count: dropped,
            }),
            spans,
            schema_url,
        });
    let resource = (attributes(4), "[su]{0,1}", proptest::collection::vec(scope, 0..3)).prop_map(
        |(attributes, schema_url, scope_spans)| ResourceSpans {
            resource: Some(Resource {
                attributes,
                ..Resource::default()
            }),
            scope_spans,
            schema_url,
        },
    );
    proptest::collection::vec(resource, 1..4).prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans })
}

fn value(value: &Option<AnyValue>) -> Value {
    use any_value::Value as V;
    match value.as_ref().and_then(|v| v.value.as_ref()) {
        Some(V::StringValue(text)) => Value::Str(text.clone()),
        Some(V::IntValue(i)) => Value::Int(*i),
        Some(V::DoubleValue(d)) => Value::Double(*d),
        Some(V::BoolValue(b)) => Value::Bool(*b),
        Some(V::BytesValue(b)) => Value::Bytes(b.clone()),
        Some(V::ArrayValue(a)) => Value::Array(a.values.iter().map(value_of).collect()),
        Some(V::KvlistValue(l)) => Value::Map(pairs(&l.values)),
        _ => Value::Null,
    }
}

fn value_of(any: &AnyValue) -> Value {
    value(&Some(any.clone()))
}

fn pairs(attributes: &[KeyValue]) -> Attributes {
    attributes.iter().map(|kv| (kv.key.clone(), value(&kv.value))).collect()
}

fn sorted(attributes: &[KeyValue]) -> Attributes {
    let mut pairs = pairs(attributes);
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    pairs
}

/// What the independent decoder says, normalised as the format's page lists.
fn expected(request: &ExportTraceServiceRequest) -> Vec<SpanRecord> {
    let mut rows = Vec::new();
    for rs in &request.resource_spans {
        let resource = Arc::new(sorted(&rs.resource.clone().unwrap_or_default().attributes));
        for ss in &rs.scope_spans {
            let scope = ss.scope.clone().unwrap_or_default();
            let scope = Arc::new(Scope {
                attributes: sorted(&scope.attributes),
                name: scope.name,
                version: scope.version,
                dropped_attributes_count: scope.dropped_attributes_count,
                schema_url: ss.schema_url.clone(),
            });
            for span in &ss.spans {
                let status = span.status.clone().unwrap_or_default();
                rows.push(SpanRecord {
                    trace_id: TraceId::from_bytes(&span.trace_id).unwrap(),
                    span_id: SpanId::from_bytes(&span.span_id).unwrap(),
                    parent_span_id: SpanId::from_bytes(&span.parent_span_id),
                    trace_state: span.trace_state.clone(),
                    flags: span.flags,
                    name: span.name.clone(),
                    kind: if span.kind <= 5 { span.kind as u8 } else { 0 },
                    start_unix_nano: span.start_time_unix_nano,
                    end_unix_nano: span.end_time_unix_nano,
                    status_code: if status.code <= 2 { status.code as u8 } else { 0 },
                    status_message: status.message,
                    resource: Arc::clone(&resource),
                    resource_schema_url: rs.schema_url.clone(),
                    scope: Arc::clone(&scope),
                    attributes: sorted(&span.attributes),
                    events: span
                        .events
                        .iter()
                        .map(|e| EventRecord {
                            time_unix_nano: e.time_unix_nano,
                            name: e.name.clone(),
                            attributes: pairs(&e.attributes),
                            dropped_attributes_count: e.dropped_attributes_count,
                        })
                        .collect(),
                    links: span
                        .links
                        .iter()
                        .map(|l| LinkRecord {
                            trace_id: TraceId::from_bytes(&l.trace_id),
                            span_id: SpanId::from_bytes(&l.span_id),
                            trace_state: l.trace_state.clone(),
                            flags: l.flags,
                            attributes: pairs(&l.attributes),
                            dropped_attributes_count: l.dropped_attributes_count,
                        })
                        .collect(),
                    dropped_attributes_count: span.dropped_attributes_count,
                    dropped_events_count: span.dropped_events_count,
                    dropped_links_count: span.dropped_links_count,
                });
            }
        }
    }
    rows
}

fn found(reader: &Reader) -> Vec<SpanRecord> {
    let scan = Scan {
        dataset: Dataset::Traces,
        time: 0..u64::MAX,
        filter: Filter::True,
        columns: Columns::All,
        newest_first: true,
    };
    by_id(
        reader
            .scan(scan)
            .flat_map(|b| store::rows::spans(&b.unwrap()))
            .collect(),
    )
}

fn settings() -> Settings {
    Settings {
        upkeep: Upkeep::ByHand,
        clock: Clock::from_fn(|| NOON + 2 * HOUR),
        ..Settings::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn spans_come_back_from_memory_from_parts_and_from_merged_parts(requests in proptest::collection::vec(request(), 4..7)) {
        let dir = tempfile::tempdir().unwrap();
        let (writer, reader) = Store::open(dir.path(), settings()).unwrap();
        let mut all = Vec::new();
        for (seq, request) in (0u64..).zip(&requests) {
            let batch = batch_at(Signal::Traces, request.encode_to_vec(), NOON);
            writer.append("traces", JOURNAL, seq..=seq, &[batch]).unwrap();
            all.extend(expected(request).into_iter().filter(|r| r.start_unix_nano < u64::MAX));
            prop_assert_eq!(&found(&reader), &by_id(all.clone()));
            writer.flush().unwrap();
            prop_assert_eq!(&found(&reader), &by_id(all.clone()));
        }
        writer.maintain().unwrap();
        prop_assert_eq!(&found(&reader), &by_id(all.clone()));
        for trace in 1u8..6 {
            let id = TraceId([trace; 16]);
            let wanted: Vec<SpanRecord> = by_id(all.iter().filter(|r| r.trace_id == id).cloned().collect());
            let mut got = by_id(reader.trace(id, &Limit::NONE).unwrap().records);
            got.retain(|r| r.start_unix_nano < u64::MAX);
            prop_assert_eq!(got, wanted);
        }
        drop((writer, reader));
        let report = store::check(dir.path()).unwrap();
        prop_assert!(report.problems.is_empty() && report.strays.is_empty(), "{:?}", report);
    }
}

#[test]
fn a_thousand_keys_and_one_key_of_five_types_come_back_and_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, reader) = Store::open(dir.path(), settings()).unwrap();
    let mut all = Vec::new();
    for seq in 0..5u64 {
        let spans = (0..60u64)
            .map(|n| {
                let mut attributes: Vec<KeyValue> = (0..20)
                    .map(|k| {
                        spans::text(
                            &format!("key-{}", (seq * 300 + n * 7 + k * 13) % 1000),
                            &format!("v{n}"),
                        )
                    })
                    .collect();
                let five = match n % 5 {
                    0 => any_value::Value::StringValue("7".into()),
                    1 => any_value::Value::IntValue(7),
                    2 => any_value::Value::DoubleValue(7.0),
                    3 => any_value::Value::BoolValue(true),
                    _ => any_value::Value::BytesValue(vec![7]),
                };
                attributes.push(KeyValue {
                    key: "five".into(),
                    value: Some(AnyValue { value: Some(five) }),
                    ..KeyValue::default()
                });
                attributes.sort_by(|a, b| a.key.cmp(&b.key));
                attributes.dedup_by(|a, b| a.key == b.key);
                Span {
                    trace_id: vec![1; 16],
                    span_id: (seq * 1000 + n + 1).to_be_bytes().to_vec(),
                    start_time_unix_nano: NOON + n,
                    end_time_unix_nano: NOON + n,
                    attributes,
                    ..Span::default()
                }
            })
            .collect();
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                scope_spans: vec![ScopeSpans {
                    spans,
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        };
        all.extend(expected(&request));
        let batch = batch_at(Signal::Traces, request.encode_to_vec(), NOON);
        writer.append("traces", JOURNAL, seq..=seq, &[batch]).unwrap();
        if seq < 4 {
            writer.flush().unwrap();
        }
    }
    let all = by_id(all);
    let judge = |reader: &Reader| {
        assert_eq!(found(reader), all);
        for key in ["key-3", "key-500", "key-998", "five"] {
            let filter = Filter::Compare {
                field: store::Field::Bare(key.into()),
                op: store::Op::Exists,
                value: Value::Null,
            };
            let scan = Scan {
                dataset: Dataset::Traces,
                time: 0..u64::MAX,
                filter,
                columns: Columns::All,
                newest_first: true,
            };
            let rows: usize = reader.scan(scan).map(|b| b.unwrap().num_rows()).sum();
            let wanted = all
                .iter()
                .filter(|r| model::record::attribute(&r.attributes, key).is_some())
                .count();
            assert_eq!(rows, wanted, "{key}");
        }
    };
    judge(&reader);
    writer.flush().unwrap();
    writer.maintain().unwrap();
    assert!(reader.stats().traces.parts <= 5);
    judge(&reader);
}

/// Bytes from one flipped bit to the next: prime, so that it does not fall in step with any structure.
const EVERY_BYTES: usize = 37;

#[test]
fn a_flipped_bit_is_found_by_check_set_aside_by_queries_and_the_rest_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, reader) = Store::open(dir.path(), settings()).unwrap();
    let mut source = spans::SpanSource::new(1, NOON, 1000);
    for seq in 0..2 {
        let batch = batch_at(Signal::Traces, source.request(300), NOON);
        writer.append("traces", JOURNAL, seq..=seq, &[batch]).unwrap();
        writer.flush().unwrap();
    }
    let mut files: Vec<_> = std::fs::read_dir(dir.path().join("traces/open/2026-11-20"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    let mut bytes = std::fs::read(&files[0]).unwrap();
    // Headers of pages and Parquet's footer, which we do not read ourselves, are no exception.
    for at in (0..bytes.len()).step_by(EVERY_BYTES) {
        bytes[at] ^= 0x10;
        std::fs::write(&files[0], &bytes).unwrap();
        let report = store::check(dir.path()).unwrap();
        assert_eq!(
            report.problems.len(),
            1,
            "a flipped bit at {at} of {} went unseen",
            bytes.len()
        );
        bytes[at] ^= 0x10;
    }
    std::fs::write(&files[0], &bytes).unwrap();
    assert_eq!(store::check(dir.path()).unwrap().problems, []);

    let end = bytes.len() / 2;
    bytes[40..end].fill(0xaa);
    std::fs::write(&files[0], &bytes).unwrap();
    assert_eq!(found(&reader).len(), 300);
    let quarantined = reader.stats().quarantined;
    assert_eq!(quarantined.len(), 1);
    assert_eq!(quarantined[0].path, files[0]);
}
