//! Jaeger's encodings against `prost` as an independent decoder, against each other, and there and back.

#[path = "../../model/tests/otlp/arbitrary.rs"]
#[allow(dead_code)] // Only spans are of interest here.
mod arbitrary;
#[path = "support/jaeger_api.rs"]
mod jaeger_api;

use codec::jaeger::{from_protobuf, from_thrift, posts};
use codec::value_text;
use model::Signal;
use model::canonical::canonicalize;
use model::view::{AnyValue as ValueView, View};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use proptest::prelude::*;
use prost::Message;

use arbitrary::Source;
use jaeger_api as api;

const MAX_BYTES: usize = 4 << 20;

fn canonical(payload: Vec<u8>) -> Vec<u8> {
    canonicalize(Signal::Traces, payload.into())
        .expect("is legal")
        .payload
        .to_vec()
}

fn decode(payload: &[u8]) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest::decode(payload).expect("is legal")
}

fn text(key: &str, value: &str) -> KeyValue {
    pair(key, Value::StringValue(value.into()))
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

// ---- What a span becomes ----

fn full_span() -> Span {
    Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        parent_span_id: vec![3; 8],
        trace_state: "vendor=1".into(),
        flags: 0x301,
        name: "GET /cart".into(),
        kind: 2,
        start_time_unix_nano: 1_700_000_000_000_000_001,
        end_time_unix_nano: 1_700_000_002_500_000_001,
        attributes: vec![
            text("http.route", "/cart"),
            pair("retry", Value::BoolValue(false)),
            pair("http.response.status_code", Value::IntValue(500)),
            pair("load", Value::DoubleValue(0.5)),
            pair("raw", Value::BytesValue(vec![0, 255])),
            pair(
                "list",
                Value::ArrayValue(opentelemetry_proto::tonic::common::v1::ArrayValue {
                    values: vec![AnyValue {
                        value: Some(Value::IntValue(1)),
                    }],
                }),
            ),
            text("span.kind", "not the kind"),
        ],
        dropped_attributes_count: 7,
        events: vec![Event {
            time_unix_nano: 1_700_000_001_000_000_000,
            name: "exception".into(),
            attributes: vec![text("exception.type", "Timeout")],
            dropped_attributes_count: 0,
        }],
        links: vec![Link {
            trace_id: vec![4; 16],
            span_id: vec![5; 8],
            ..Link::default()
        }],
        status: Some(Status {
            message: "timed out".into(),
            code: 2,
        }),
        ..Span::default()
    }
}

fn request(spans: Vec<Span>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", "shop"), text("host.name", "web-1")],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "http".into(),
                    version: "1.2".into(),
                    ..InstrumentationScope::default()
                }),
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

fn posted(request: &ExportTraceServiceRequest) -> Vec<api::Batch> {
    posts(&canonical(request.encode_to_vec()), MAX_BYTES)
        .all
        .iter()
        .map(|post| {
            let message = api::PostSpansRequest::decode(post.message.as_slice()).expect("Jaeger's protobuf");
            let batch = message.batch.expect("a batch");
            assert_eq!(batch.spans.len(), post.spans as usize);
            batch
        })
        .collect()
}

#[test]
fn a_span_becomes_what_the_specification_says() {
    use api::KeyValue as Tag;
    let batches = posted(&request(vec![full_span()]));
    let [batch] = batches.as_slice() else {
        panic!("one resource, one batch");
    };
    let process = batch.process.as_ref().expect("a process");
    assert_eq!(process.service_name, "shop");
    assert_eq!(process.tags, [Tag::text("host.name", "web-1")]);
    let reference = |trace: u8, span: u8, ref_type| api::SpanRef {
        trace_id: vec![trace; 16],
        span_id: vec![span; 8],
        ref_type,
    };
    let expect = api::Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        operation_name: "GET /cart".into(),
        references: vec![reference(1, 3, 0), reference(4, 5, 1)],
        flags: 1,
        start_time: Some(api::Time {
            seconds: 1_700_000_000,
            nanos: 1,
        }),
        duration: Some(api::Time {
            seconds: 2,
            nanos: 500_000_000,
        }),
        tags: vec![
            Tag::text("otel.scope.name", "http"),
            Tag::text("otel.scope.version", "1.2"),
            Tag::text("span.kind", "server"),
            Tag::text("otel.status_code", "ERROR"),
            Tag::bool("error", true),
            Tag::text("otel.status_description", "timed out"),
            Tag::text("w3c.tracestate", "vendor=1"),
            Tag::int("otel.dropped_attributes_count", 7),
            Tag::text("http.route", "/cart"),
            Tag::bool("retry", false),
            Tag::int("http.response.status_code", 500),
            Tag::double("load", 0.5),
            Tag {
                key: "raw".into(),
                v_type: 4,
                v_binary: vec![0, 255],
                ..Tag::default()
            },
            Tag::text("list", "[1]"),
        ],
        logs: vec![api::Log {
            timestamp: Some(api::Time {
                seconds: 1_700_000_001,
                nanos: 0,
            }),
            fields: vec![Tag::text("event", "exception"), Tag::text("exception.type", "Timeout")],
        }],
        ..api::Span::default()
    };
    assert_eq!(batch.spans, [expect]);
}

#[test]
fn each_resource_is_a_batch_and_the_same_resource_is_one() {
    let mut twice = request(vec![full_span()]);
    let mut other = twice.resource_spans[0].clone();
    other.resource = None;
    twice.resource_spans.extend([other, twice.resource_spans[0].clone()]);
    let batches = posted(&twice);
    let sizes: Vec<_> = batches
        .iter()
        .map(|batch| {
            let name = batch.process.as_ref().map(|process| process.service_name.as_str());
            (name.unwrap_or_default(), batch.spans.len())
        })
        .collect();
    assert_eq!(sizes, [("shop", 2), ("OTLPResourceNoServiceName", 1)]);
}

#[test]
fn calls_stay_below_the_size_that_a_server_takes() {
    let payload = canonical(request(vec![full_span(); 100]).encode_to_vec());
    let all = posts(&payload, 2_000).all;
    assert!(all.len() > 10);
    assert!(
        all.iter().all(|post| post.message.len() <= 2_016),
        "with the tag and the length around it"
    );
    assert_eq!(all.iter().map(|post| post.spans).sum::<u32>(), 100);
    let one_each = posts(&payload, 1).all;
    assert_eq!((one_each.len(), one_each[0].spans), (100, 1));
}

#[test]
fn a_large_scope_is_not_written_into_every_span() {
    let mut request = request(vec![full_span(); 2_000]);
    let scope = request.resource_spans[0].scope_spans[0]
        .scope
        .as_mut()
        .expect("has one");
    scope.version = "v".repeat(100_000);
    let payload = canonical(request.encode_to_vec());
    let posts = posts(&payload, 4 << 20);
    let taken = posts.all.iter().map(|post| post.spans).sum::<u32>();
    assert_eq!(taken + posts.rejected, 2_000);
    assert!(taken > 600 && posts.rejected > 600, "{taken} taken");
}

#[test]
fn a_large_resource_is_not_sent_along_with_every_span() {
    let mut request = request(vec![full_span(); 2_000]);
    let resource = request.resource_spans[0].resource.as_mut().expect("has one");
    resource.attributes.push(KeyValue {
        key: "k".into(),
        value: Some(AnyValue {
            value: Some(Value::StringValue("v".repeat(100_000))),
        }),
        ..KeyValue::default()
    });
    let payload = canonical(request.encode_to_vec());
    let posts = posts(&payload, 50_000);
    let bytes = posts.all.iter().map(|post| post.message.len()).sum::<usize>();
    assert!(posts.rejected > 600 && bytes < 100 << 20, "{bytes} bytes");
}

// ---- There and back ----

/// A value as Jaeger can hold it.
fn value(value: &mut Option<AnyValue>) {
    let any = value.get_or_insert_default();
    let text = match &any.value {
        None | Some(Value::StringValueStrindex(_)) => String::new(),
        Some(Value::ArrayValue(_) | Value::KvlistValue(_)) => {
            let bytes = any.encode_to_vec();
            let mut out = Vec::new();
            value_text::write_json(&ValueView::read(&bytes), &mut out);
            String::from_utf8(out).expect("is text")
        }
        Some(_) => return,
    };
    any.value = Some(Value::StringValue(text));
}

fn attributes(pairs: &mut [KeyValue]) {
    for pair in &mut *pairs {
        pair.key_strindex = 0;
        value(&mut pair.value);
    }
    pairs.sort_by(|a, b| a.key.cmp(&b.key));
}

fn id(id: &mut Vec<u8>) {
    if id.iter().all(|byte| *byte == 0) {
        id.clear();
    }
}

/// The listed losses, applied to a span.
fn normal_span(span: &mut Span) {
    span.flags &= 1;
    if !(0..=5).contains(&span.kind) {
        span.kind = 0;
    }
    span.end_time_unix_nano = span.end_time_unix_nano.max(span.start_time_unix_nano);
    attributes(&mut span.attributes);
    for event in &mut span.events {
        attributes(&mut event.attributes);
    }
    for link in &mut span.links {
        id(&mut link.trace_id);
        id(&mut link.span_id);
        *link = Link {
            trace_id: std::mem::take(&mut link.trace_id),
            span_id: std::mem::take(&mut link.span_id),
            ..Link::default()
        };
    }
    id(&mut span.parent_span_id);
    if span.parent_span_id.is_empty() {
        let within = span
            .links
            .iter()
            .find(|link| link.trace_id == span.trace_id && !link.span_id.is_empty());
        span.parent_span_id = within.map(|link| link.span_id.clone()).unwrap_or_default();
    }
    if let Some(status) = &mut span.status
        && !(0..=2).contains(&status.code)
    {
        status.code = 0;
    }
    span.status = span.status.take().filter(|status| *status != Status::default());
}

/// All spans with where they come from, in an order of their own; as `Debug` writes it, all NaNs are equal.
fn flat(mut request: ExportTraceServiceRequest) -> Vec<String> {
    let mut all = Vec::new();
    for group in &mut request.resource_spans {
        let mut resource = group.resource.take().unwrap_or_default().attributes;
        attributes(&mut resource);
        for scoped in &mut group.scope_spans {
            let mut scope = scoped.scope.take().unwrap_or_default();
            scope.dropped_attributes_count = 0;
            attributes(&mut scope.attributes);
            for span in &mut scoped.spans {
                normal_span(span);
                all.push(format!("{resource:?} {scope:?} {span:?}"));
            }
        }
    }
    all.sort();
    all
}

fn back(batches: &[impl AsRef<[u8]>]) -> ExportTraceServiceRequest {
    let resource_spans = batches
        .iter()
        .map(|message| from_protobuf(message.as_ref()).expect("what we write, we read"))
        .flat_map(|payload| decode(&canonical(payload)).resource_spans)
        .collect();
    ExportTraceServiceRequest { resource_spans }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn there_and_back_is_identity_but_for_what_is_listed(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let payload = canonical(Source(&bytes).traces().encode_to_vec());
        let messages: Vec<_> = posts(&payload, 3_000).all.into_iter().map(|post| post.message).collect();
        for message in &messages {
            api::PostSpansRequest::decode(message.as_slice()).expect("Jaeger's protobuf");
        }
        let (read, sent) = (flat(back(&messages)), flat(decode(&payload)));
        prop_assert_eq!(read, sent);
    }

    #[test]
    fn thrift_tells_the_same_as_protobuf(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        for mut batch in posted(&Source(&bytes).traces()) {
            // Thrift counts microseconds, in 63 bits.
            for span in &mut batch.spans {
                let times = [&mut span.start_time, &mut span.duration].into_iter();
                for time in times.chain(span.logs.iter_mut().map(|log| &mut log.timestamp)).flatten() {
                    time.nanos -= time.nanos % 1_000;
                    time.seconds %= 1_000_000_000;
                }
            }
            let thrift = from_thrift(&api::thrift(&batch)).expect("Thrift");
            let protobuf = from_protobuf(&api::PostSpansRequest { batch: Some(batch) }.encode_to_vec()).expect("protobuf");
            // As `Debug` writes it, all NaNs are equal.
            prop_assert_eq!(format!("{:?}", decode(&thrift)), format!("{:?}", decode(&protobuf)));
        }
    }

    #[test]
    fn damage_is_an_error_or_legal_protobuf(
        bytes in prop::collection::vec(any::<u8>(), 0..1000),
        cut in 0usize..2000,
        flips in prop::collection::vec((0usize..2000, any::<u8>()), 0..4),
    ) {
        for batch in posted(&Source(&bytes).traces()) {
            let thrift = api::thrift(&batch);
            let protobuf = api::PostSpansRequest { batch: Some(batch) }.encode_to_vec();
            for (mut message, read) in [(thrift, from_thrift as fn(&[u8]) -> _), (protobuf, from_protobuf)] {
                message.truncate(cut.max(1));
                for (at, byte) in &flips {
                    let len = message.len();
                    message[at % len] = *byte;
                }
                if let Ok(payload) = read(&message) {
                    prop_assert!(payload.len() <= 64 + 4 * message.len(), "{} of {}", payload.len(), message.len());
                    canonical(payload);
                }
            }
        }
    }
}

// ---- What only other senders send ----

fn received(batch: api::Batch) -> Vec<ResourceSpans> {
    let message = api::PostSpansRequest { batch: Some(batch) }.encode_to_vec();
    decode(&canonical(from_protobuf(&message).expect("protobuf"))).resource_spans
}

fn jaeger_span(tags: Vec<api::KeyValue>) -> api::Span {
    api::Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        operation_name: "work".into(),
        tags,
        ..api::Span::default()
    }
}

fn one(span: api::Span) -> Span {
    let mut all = received(api::Batch {
        spans: vec![span],
        process: None,
    });
    all.remove(0).scope_spans.remove(0).spans.remove(0)
}

#[test]
fn an_error_of_opentracing_is_an_exception() {
    use api::KeyValue as Tag;
    let log = |fields| api::Log {
        timestamp: None,
        fields,
    };
    let mut span = jaeger_span(vec![Tag::bool("error", true), Tag::text("otel.status_code", "OK")]);
    span.logs = vec![
        log(vec![
            Tag::text("event", "error"),
            Tag::text("message", "no"),
            Tag::text("stack", "at 1"),
        ]),
        log(vec![Tag::text("event", "error")]),
        log(vec![Tag::text("message", "plain")]),
    ];
    let span = one(span);
    assert_eq!(
        span.status.map(|status| status.code),
        Some(2),
        "the tag `error` decides"
    );
    let events: Vec<_> = span
        .events
        .iter()
        .map(|event| {
            let keys: Vec<_> = event.attributes.iter().map(|pair| pair.key.as_str()).collect();
            (event.name.as_str(), keys.join(" "))
        })
        .collect();
    assert_eq!(
        events,
        [
            ("exception", "exception.message exception.stacktrace".to_owned()),
            ("error", String::new()),
            ("", "message".to_owned())
        ]
    );
}

#[test]
fn what_is_no_status_and_no_kind_stays_an_attribute() {
    use api::KeyValue as Tag;
    let span = one(jaeger_span(vec![
        Tag::text("error", "true"),
        Tag::bool("otel.status_code", true),
        Tag::text("span.kind", "other"),
        Tag::text("SPAN.KIND", "client"),
    ]));
    assert_eq!((span.status, span.kind, span.attributes.len()), (None, 0, 4));
    assert_eq!(one(jaeger_span(vec![Tag::text("span.kind", "CLIENT")])).kind, 3);
}

#[test]
fn references_become_parent_and_links() {
    let reference = |trace: u8, span: u8, ref_type| api::SpanRef {
        trace_id: vec![trace; 16],
        span_id: vec![span; 8],
        ref_type,
    };
    let check = |references: Vec<api::SpanRef>, parent: &[u8], links: &[u8]| {
        let span = one(api::Span {
            references,
            ..jaeger_span(Vec::new())
        });
        assert_eq!(span.parent_span_id, parent);
        let linked: Vec<_> = span.links.iter().map(|link| link.span_id[0]).collect();
        assert_eq!(linked, links);
        span
    };
    check(vec![reference(1, 7, 1), reference(1, 8, 0)], &[8; 8], &[7]);
    check(vec![reference(9, 7, 0), reference(1, 8, 1)], &[8; 8], &[7, 8]);
    check(vec![reference(9, 7, 1)], &[], &[7]);
    let two = check(vec![reference(1, 7, 0), reference(1, 8, 0)], &[7; 8], &[8]);
    assert_eq!(two.links[0].attributes, [text("opentracing.ref_type", "child_of")]);
    let again = posted(&request(vec![two]));
    assert_eq!(again[0].spans[0].references, [reference(1, 7, 0), reference(1, 8, 0)]);
}

#[test]
fn short_trace_ids_are_padded_and_other_lengths_are_rejected() {
    let span = |trace_id: Vec<u8>| api::Span {
        trace_id,
        ..jaeger_span(Vec::new())
    };
    assert_eq!(one(span(vec![7; 8])).trace_id, [[0; 8], [7; 8]].concat());
    let message = api::PostSpansRequest {
        batch: Some(api::Batch {
            spans: vec![span(vec![7; 9]), span(vec![7; 16])],
            process: None,
        }),
    };
    let read = from_protobuf(&message.encode_to_vec()).expect("protobuf");
    let canonical = canonicalize(Signal::Traces, read.into()).expect("is legal");
    assert_eq!((canonical.items, canonical.rejected.len()), (1, 1));
}

#[test]
fn a_span_may_bring_its_own_process() {
    let process = |name: &str| api::Process {
        service_name: name.into(),
        tags: vec![api::KeyValue::text("hostname", "h")],
    };
    let of = |name: Option<&str>| api::Span {
        process: name.map(process),
        ..jaeger_span(Vec::new())
    };
    let all = received(api::Batch {
        spans: vec![of(Some("a")), of(None), of(Some("b")), of(Some("b")), of(None)],
        process: Some(process("shared")),
    });
    let sizes: Vec<_> = all
        .iter()
        .map(|group| {
            let attributes = &group.resource.as_ref().expect("a resource").attributes;
            assert_eq!(attributes[1], text("host.name", "h"));
            let Some(Value::StringValue(name)) = attributes[0].value.clone().and_then(|value| value.value) else {
                panic!("a name");
            };
            (name, group.scope_spans[0].spans.len())
        })
        .collect();
    let expect = [("shared", 2), ("a", 1), ("b", 2)].map(|(name, count)| (name.to_owned(), count));
    assert_eq!(sizes, expect);
}

#[test]
fn thrift_that_lies_is_refused_where_it_lies() {
    let check = |message: &[u8], expect: &str| {
        assert_eq!(from_thrift(message).expect_err("is malformed").to_string(), expect);
    };
    check(b"", "malformed Thrift at byte 0: it is cut short");
    check(&[0], "malformed Thrift at byte 1: the batch has no process");
    check(
        &[12, 0, 1, 0, 0, 9],
        "malformed Thrift at byte 5: bytes follow the batch",
    );
    check(
        &[99, 0, 1],
        "malformed Thrift at byte 3: a type that Thrift does not have",
    );
    // Two thousand million spans, of which none is there.
    let huge = [&[12, 0, 1, 0, 15, 0, 2, 12][..], &i32::MAX.to_be_bytes()].concat();
    check(&huge, "malformed Thrift at byte 12: it is cut short");
    let negative = [&[11, 0, 9][..], &(-1i32).to_be_bytes()].concat();
    check(&negative, "malformed Thrift at byte 7: a length is negative");
    // Structs in structs.
    let deep = [12, 0, 9].repeat(100);
    check(&deep, "malformed Thrift at byte 51: it is nested too deeply");
    // A list of bytes where spans should be.
    let bytes = [12, 0, 1, 0, 15, 0, 2, 3, 0, 0, 0, 1, 7, 0];
    check(
        &bytes,
        "malformed Thrift at byte 12: a list holds something other than structs",
    );
    let empty_span = [12, 0, 1, 0, 15, 0, 2, 12, 0, 0, 0, 1, 0, 0];
    check(
        &empty_span,
        "malformed Thrift at byte 13: a span lacks one of its ids or its start",
    );
}

#[test]
fn one_span_does_not_fill_the_memory_with_tags() {
    let span = [&[0x0a][..], &[0x80, 0x80, 0x80, 0x01], &[0x42, 0].repeat(1 << 20)].concat();
    let batch = [&[0x0a][..], &[0x85, 0x80, 0x80, 0x01], &span].concat();
    let error = from_protobuf(&batch).expect_err("too many");
    assert_eq!(
        error.to_string(),
        "a span has more than 262144 tags, logs and references"
    );
}
