//! What comes out says nothing that it must not, by patterns that are written independently, and everything else is as it was.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::canonical::canonicalize;
use model::{Compression, Encoding, Signal, Wire};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue as ProtoValue, ArrayValue, KeyValue, KeyValueList};
use proptest::prelude::*;
use prost::Message;
use serde_json::{Value as Json, json};

use super::*;

fn batch(signal: Signal, payload: Vec<u8>) -> Batch {
    let canonical = canonicalize(signal, Bytes::from(payload)).expect("a request");
    let wire = Wire {
        compression: Compression::None,
        bytes: canonical.payload.clone(),
    };
    Batch {
        signal,
        encoding: Encoding::Otlp,
        payload: canonical.payload.into(),
        items: canonical.items,
        wire: Some(wire),
        meta: crate::testing::meta(),
    }
}

/// A request in OTLP/JSON, as the independent decoder reads it.
fn traces(json: Json) -> Batch {
    let request: ExportTraceServiceRequest = serde_json::from_value(json).expect("a request");
    batch(Signal::Traces, request.encode_to_vec())
}

fn logs(json: Json) -> Batch {
    let request: ExportLogsServiceRequest = serde_json::from_value(json).expect("a request");
    batch(Signal::Logs, request.encode_to_vec())
}

fn attributes(pairs: &[(&str, Json)]) -> Json {
    pairs
        .iter()
        .map(|(key, value)| json!({"key": key, "value": value}))
        .collect()
}

fn text(text: &str) -> Json {
    json!({"stringValue": text})
}

fn span(pairs: &[(&str, Json)]) -> Batch {
    traces(
        json!({"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [{"spans": [{
            "traceId": "07070707070707070707070707070707", "spanId": "0101010101010101", "name": "for anna@example.com",
            "attributes": attributes(pairs),
            "events": [{"name": "e", "attributes": attributes(&[("inner", text("bob@example.com"))])}],
        }]}]}]}),
    )
}

fn redaction(config: Config) -> Redaction {
    Redaction::new(&config).expect("a configuration")
}

fn list(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn shown(value: &ProtoValue) -> Json {
    match value.value.as_ref() {
        None => Json::Null,
        Some(Value::StringValue(text)) => json!(text),
        Some(Value::BoolValue(value)) => json!(value),
        Some(Value::IntValue(value)) => json!(value),
        Some(Value::DoubleValue(value)) => json!(value),
        Some(Value::ArrayValue(list)) => list.values.iter().map(shown).collect(),
        Some(Value::KvlistValue(list)) => json!(pairs(&list.values)),
        Some(other) => json!(format!("{other:?}")),
    }
}

fn pairs(pairs: &[KeyValue]) -> BTreeMap<String, Json> {
    pairs
        .iter()
        .map(|pair| (pair.key.clone(), pair.value.as_ref().map_or(Json::Null, shown)))
        .collect()
}

#[track_caller]
fn check_span(config: Config, before: &[(&str, Json)], after: Json) {
    let redacted = redaction(config).process(span(before)).expect("never refuses");
    let request = ExportTraceServiceRequest::decode(redacted.payload.bytes()).expect("decodes");
    let span = &request.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!(json!(pairs(&span.attributes)), after);
}

#[test]
fn keys_that_are_not_allowed_go_and_the_summary_says_so() {
    let config = || Config {
        allowed_keys: list(&["kept", "note"]),
        ignored_keys: list(&["ignored"]),
        blocked_values: list(&["4[0-9]{12}(?:[0-9]{3})?"]),
        ..Config::default()
    };
    let before = [
        ("kept", text("card 4111111111111111!")),
        ("gone", text("x")),
        ("ignored", text("4111111111111111")),
        ("note", json!({"intValue": "7"})),
    ];
    let base = json!({"kept": "card ****!", "ignored": "4111111111111111", "note": 7});
    check_span(config(), &before, base.clone());
    let with = |more: Json| {
        let mut all = base.clone();
        all.as_object_mut()
            .expect("a map")
            .extend(more.as_object().expect("a map").clone());
        all
    };
    let info = json!({"redaction.redacted.count": 1, "redaction.masked.count": 1, "redaction.ignored.count": 1});
    let summary = |summary| Config { summary, ..config() };
    check_span(summary(Summary::Info), &before, with(info));
    let debug = json!({
        "redaction.redacted.keys": "gone", "redaction.redacted.count": 1,
        "redaction.masked.keys": "kept", "redaction.masked.count": 1, "redaction.ignored.count": 1,
    });
    check_span(summary(Summary::Debug), &before, with(debug));
    // What an earlier redaction said is added to.
    let earlier = [
        ("gone", text("x")),
        ("redaction.redacted.keys", text("a,b")),
        ("redaction.redacted.count", json!({"intValue": "2"})),
    ];
    let both = json!({"redaction.redacted.keys": "a,b,gone", "redaction.redacted.count": 3});
    check_span(summary(Summary::Debug), &earlier, both);
}

#[test]
fn values_of_secret_keys_go_as_a_whole() {
    let config = Config {
        presets: vec![Preset::Password, Preset::Email],
        blocked_key_patterns: list(&["^internal"]),
        allowed_values: list(&["@example\\.org$"]),
        ..Config::default()
    };
    let map = json!({"kvlistValue": {"values": [
        {"key": "api_key", "value": text("k")},
        {"key": "list", "value": {"arrayValue": {"values": [text("a@b.com"), json!({"intValue": "1"})]}}},
    ]}});
    check_span(
        config,
        &[
            ("db.password", text("hunter2")),
            ("password_count", json!({"intValue": "3"})),
            ("internal.x", text("anything")),
            ("mail", text("anna@example.org")),
            ("map", map),
        ],
        json!({
            "db.password": "****", "password_count": 3, "internal.x": "****", "mail": "anna@example.org",
            "map": {"api_key": "****", "list": ["****", 1]},
        }),
    );
}

#[test]
fn numbers_are_looked_at_if_all_types_are_meant() {
    let config = |redact_all_types| Config {
        presets: vec![Preset::Card],
        redact_all_types,
        ..Config::default()
    };
    let before = [
        ("n", json!({"intValue": "4111111111111111"})),
        ("b", json!({"boolValue": true})),
    ];
    check_span(config(false), &before, json!({"n": 4111111111111111_i64, "b": true}));
    check_span(config(true), &before, json!({"n": "****", "b": true}));
}

#[test]
fn names_and_bodies() {
    let config = || Config {
        presets: vec![Preset::Email, Preset::Password],
        span_names: true,
        summary: Summary::Debug,
        ..Config::default()
    };
    let redacted = redaction(config()).process(span(&[])).expect("never refuses");
    let request = ExportTraceServiceRequest::decode(redacted.payload.bytes()).expect("decodes");
    let span = &request.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!(span.name, "for ****");
    assert_eq!(
        json!(pairs(&span.events[0].attributes)),
        json!({"inner": "****", "redaction.masked.keys": "inner", "redaction.masked.count": 1})
    );

    let record = |body: Json| json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": body}]}]}]});
    let check = |body: Json, expect: Json, said: Json| {
        let redacted = redaction(config()).process(logs(record(body))).expect("never refuses");
        let request = ExportLogsServiceRequest::decode(redacted.payload.bytes()).expect("decodes");
        let record = &request.resource_logs[0].scope_logs[0].log_records[0];
        assert_eq!(record.body.as_ref().map(shown), Some(expect));
        assert_eq!(json!(pairs(&record.attributes)), said);
    };
    let said = |key: &str| json!({"redaction.body.masked.keys": key, "redaction.body.masked.count": 1});
    check(text("from a@b.com"), json!("from ****"), said("body"));
    let map = json!({"kvlistValue": {"values": [{"key": "user", "value": {"kvlistValue": {"values": [
        {"key": "password", "value": text("x")}, {"key": "age", "value": {"intValue": "7"}},
    ]}}}]}});
    check(map, json!({"user": {"password": "****", "age": 7}}), said("password"));
}

#[test]
fn what_is_not_touched_keeps_its_wire_form() {
    let config = || Config {
        presets: vec![Preset::Card],
        summary: Summary::Debug,
        ..Config::default()
    };
    let before = span(&[
        ("a", text("b")),
        ("list", json!({"arrayValue": {"values": [text("c")]}})),
    ]);
    let after = redaction(config()).process(before.clone()).expect("never refuses");
    assert_eq!(after.payload.as_ptr(), before.payload.as_ptr());
    assert!(after.wire.is_some());
    let after = redaction(config())
        .process(span(&[("a", text("4111111111111111"))]))
        .expect("never refuses");
    assert!(after.wire.is_none());
}

#[test]
fn wrong_settings_say_what_is_right() {
    let wrong = |config: Config| Redaction::new(&config).expect_err("is wrong");
    let hash = |name: &str| Config {
        hash_function: Some(name.into()),
        ..Config::default()
    };
    assert_eq!(
        wrong(hash("crc32")).1,
        "there is no `crc32`; there are md5, sha1, sha256, sha3, hmac-sha256 and hmac-sha512"
    );
    assert_eq!(wrong(hash("hmac-sha256")).1, "an hmac needs `hmac_key`");
    let pattern = Config {
        blocked_values: list(&["("]),
        ..Config::default()
    };
    assert!(wrong(pattern).1.starts_with("blocked_values: regex parse error"));
    // Repetitions of repetitions would take the memory of the machine.
    let large = Config {
        blocked_values: list(&["(((a{100}){100}){100}){100}"]),
        ..Config::default()
    };
    assert!(wrong(large).1.contains("size limit"));
}

/// The ready-made sets as plain patterns over whole texts, slow and obvious.
struct Naive {
    patterns: Vec<Regex>,
    ssn: Regex,
    bearer: Regex,
    cards: Vec<Regex>,
    issuers: Regex,
}

impl Naive {
    fn new() -> Naive {
        let regex = |pattern: &str| Regex::new(pattern).expect("a pattern");
        let word = |pattern: &str| regex(&format!("(?:^|[^0-9A-Za-z])(?:{pattern})(?:$|[^0-9A-Za-z])"));
        Naive {
            patterns: vec![
                regex(r"[0-9A-Za-z_.%+\-[^\x00-\x7f]]+(?:@|%40)[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*\.[A-Za-z]{2,}"),
                word(r"\+[0-9](?:[ ().-]{0,2}[0-9]){7,14}"),
                word(r"[0-9]{3}(?:[ .-]|\) ?)[0-9]{3}[ .-][0-9]{4}"),
                word("A(?:KI|SI|BI|CC)A[0-9A-Z]{16}"),
                regex(r"(?:^|[^0-9A-Za-z])eyJ[0-9A-Za-z_-]{5,}\.[0-9A-Za-z_-]{8,}\."),
            ],
            ssn: word("([0-9]{3})-([0-9]{2})-([0-9]{4})"),
            bearer: regex(r"(?i:(?:^|[^0-9a-z])bearer)[ \t]+([0-9A-Za-z._~+/=-]{8,})"),
            cards: (12..=18)
                .map(|n| regex(&format!("^(?:[0-9][ -]?){{{n}}}[0-9]")))
                .collect(),
            issuers: regex(
                "^(?:4[0-9]{12}|4[0-9]{15}|4[0-9]{18}|5[1-5][0-9]{14}|(?:222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}\
                 |3[47][0-9]{13}|(?:6011|64[4-9][0-9]|65[0-9]{2})[0-9]{12,15}|(?:30[0-5][0-9]|3095|36[0-9]{2}|3[89][0-9]{2})[0-9]{10,15}\
                 |(?:62|81)[0-9]{14,17}|(?:5018|5020|5038|5893|6304|6759|676[123])[0-9]{9,15}|35(?:2[89]|[3-8][0-9])[0-9]{12,15})$",
            ),
        }
    }

    fn finds(&self, text: &str) -> bool {
        let ends = |at: usize| !text[at..].starts_with(|c: char| c.is_ascii_alphanumeric());
        let is_ssn = |from: usize| {
            self.ssn.captures_at(text, from).is_some_and(|found| {
                let area = &found[1];
                area != "000" && area != "666" && !area.starts_with('9') && &found[2] != "00" && &found[3] != "0000"
            })
        };
        let is_bearer = |from: usize| {
            self.bearer
                .captures_at(text, from)
                .is_some_and(|found| found[1].len() >= 20 || found[1].contains(|c: char| c.is_ascii_digit()))
        };
        let is_card = |at: usize| {
            let before = &text[..at];
            let mut ahead = before.chars().rev();
            let last = ahead.next();
            let is_fraction = last == Some('.') && ahead.next().is_some_and(|c| c.is_ascii_digit());
            let starts = !is_fraction && !last.is_some_and(|c| c.is_ascii_alphanumeric());
            starts
                && self
                    .cards
                    .iter()
                    .filter_map(|card| card.find(&text[at..]))
                    .any(|found| {
                        let digits: String = found.as_str().chars().filter(char::is_ascii_digit).collect();
                        let doubled = [0, 2, 4, 6, 8, 1, 3, 5, 7, 9];
                        let sum: usize = digits
                            .bytes()
                            .rev()
                            .enumerate()
                            .map(|(place, digit)| {
                                usize::from(digit - b'0') * (1 - place % 2)
                                    + doubled[usize::from(digit - b'0')] * (place % 2)
                            })
                            .sum();
                        ends(at + found.end()) && self.issuers.is_match(&digits) && sum.is_multiple_of(10)
                    })
        };
        self.patterns.iter().any(|pattern| pattern.is_match(text))
            || text
                .char_indices()
                .any(|(at, _)| is_ssn(at) || is_bearer(at) || is_card(at))
    }
}

/// Texts that are, nearly are, or become secrets when their neighbours go.
fn hostile() -> impl Strategy<Value = String> {
    let piece = proptest::sample::select(vec![
        "4111 1111 1111 1111",
        "4111111111111111",
        "378282246310005",
        "5555-5555-5555-4444",
        "411111111111111",
        "1",
        "anna@example.com",
        "a%40b.org",
        "@b.co",
        "@",
        "%40",
        ".com",
        "123-45-6789",
        "000-12-3456",
        "45-6789",
        "-",
        " ",
        ".",
        "+49 30 1234567",
        "(555) 123-4567",
        "555.123.4567",
        "+",
        "12345678",
        "Bearer abcdef12345",
        "bearer ",
        "BEARER\tx",
        "eyJhbGciOiJI.eyJzdWIiOiIx.c2ln",
        "eyJ",
        "AKIAIOSFODNN7EXAMPLE",
        "AKIA",
        "x",
        "_",
        "é",
        "🦀",
        "value",
        "=",
        "\n",
        "4",
    ]);
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

fn value() -> impl Strategy<Value = ProtoValue> {
    let wrap = |value| ProtoValue { value: Some(value) };
    let leaf = prop_oneof![
        6 => hostile().prop_map(move |text| wrap(Value::StringValue(text))),
        1 => any::<i64>().prop_map(move |number| wrap(Value::IntValue(number))),
        1 => Just(ProtoValue { value: None }),
        1 => any::<bool>().prop_map(move |value| wrap(Value::BoolValue(value))),
        1 => hostile().prop_map(move |text| wrap(Value::BytesValue(text.into_bytes()))),
    ];
    leaf.prop_recursive(3, 8, 3, move |inner| {
        let list = proptest::collection::vec(inner, 0..3);
        prop_oneof![
            list.clone()
                .prop_map(move |values| wrap(Value::ArrayValue(ArrayValue { values }))),
            list.prop_map(move |values| wrap(Value::KvlistValue(KeyValueList {
                values: numbered(values)
            }))),
        ]
    })
}

fn numbered(values: Vec<ProtoValue>) -> Vec<KeyValue> {
    let pair = |(at, value)| KeyValue {
        key: format!("key.{at}"),
        value: Some(value),
        ..KeyValue::default()
    };
    values.into_iter().enumerate().map(pair).collect()
}

/// Every text of a value, in order; taken out of it.
fn take_texts(value: &mut ProtoValue, texts: &mut Vec<String>) {
    match &mut value.value {
        Some(Value::StringValue(text)) => texts.push(std::mem::take(text)),
        Some(Value::ArrayValue(list)) => list.values.iter_mut().for_each(|value| take_texts(value, texts)),
        Some(Value::KvlistValue(list)) => take_pairs(&mut list.values, texts),
        _ => {}
    }
}

fn take_pairs(pairs: &mut [KeyValue], texts: &mut Vec<String>) {
    for value in pairs.iter_mut().filter_map(|pair| pair.value.as_mut()) {
        take_texts(value, texts);
    }
}

fn all() -> Redaction {
    let presets = vec![
        Preset::Email,
        Preset::Phone,
        Preset::Ssn,
        Preset::Card,
        Preset::Bearer,
        Preset::AwsKey,
        Preset::Jwt,
        Preset::Password,
    ];
    redaction(Config {
        presets,
        ..Config::default()
    })
}

/// Redacts, and checks the texts of before and after and that the rest is the same. `texts` takes the texts out of a request.
fn check<M: Message + Default + PartialEq + std::fmt::Debug>(
    signal: Signal,
    request: &M,
    texts: impl Fn(&mut M) -> Vec<String>,
) -> Result<(), TestCaseError> {
    let before = batch(signal, request.encode_to_vec());
    let after = all().process(before.clone()).expect("never refuses");
    let canonical = canonicalize(signal, after.payload.bytes()).expect("is legal");
    prop_assert!(!canonical.rewritten, "is canonical");
    prop_assert_eq!(canonical.items, before.items);
    prop_assert_eq!(after.wire.is_some(), after.payload == before.payload);
    let mut old = M::decode(before.payload.bytes()).expect("decodes");
    let mut new = M::decode(after.payload.bytes()).expect("decodes");
    let (said, left) = (texts(&mut old), texts(&mut new));
    prop_assert_eq!(old, new);
    prop_assert_eq!(said.len(), left.len());
    let naive = Naive::new();
    for (said, left) in said.iter().zip(&left) {
        prop_assert!(!naive.finds(left), "{:?} became {:?}", said, left);
        prop_assert_eq!(said != left, naive.finds(said), "{:?} became {:?}", said, left);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn of_spans_nothing_is_left(values in proptest::collection::vec(value(), 5)) {
        use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, span::{Event, Link}};
        use opentelemetry_proto::tonic::{common::v1::InstrumentationScope, resource::v1::Resource};
        let [resource, scope, of_span, event, link] = [0, 1, 2, 3, 4].map(|at| numbered(vec![values[at].clone()]));
        let span = Span {
            trace_id: vec![1; 16], span_id: vec![2; 8], attributes: of_span,
            events: vec![Event { attributes: event, ..Event::default() }],
            links: vec![Link { trace_id: vec![1; 16], span_id: vec![2; 8], attributes: link, ..Link::default() }],
            ..Span::default()
        };
        let scope = InstrumentationScope { attributes: scope, ..InstrumentationScope::default() };
        let request = ExportTraceServiceRequest { resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes: resource, ..Resource::default() }),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans: vec![span], ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }] };
        check(Signal::Traces, &request, |request| {
            let mut texts = Vec::new();
            let resource = &mut request.resource_spans[0];
            take_pairs(&mut resource.resource.as_mut().expect("is there").attributes, &mut texts);
            let scope = &mut resource.scope_spans[0];
            take_pairs(&mut scope.scope.as_mut().expect("is there").attributes, &mut texts);
            let span = &mut scope.spans[0];
            take_pairs(&mut span.attributes, &mut texts);
            take_pairs(&mut span.events[0].attributes, &mut texts);
            take_pairs(&mut span.links[0].attributes, &mut texts);
            texts
        })?;
    }

    #[test]
    fn of_log_records_nothing_is_left(values in proptest::collection::vec(value(), 4)) {
        use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
        let record = |body: &ProtoValue, value: &ProtoValue| LogRecord {
            body: Some(body.clone()), attributes: numbered(vec![value.clone()]), ..LogRecord::default()
        };
        let log_records = vec![record(&values[0], &values[1]), record(&values[2], &values[3])];
        let request = ExportLogsServiceRequest { resource_logs: vec![ResourceLogs {
            scope_logs: vec![ScopeLogs { log_records, ..ScopeLogs::default() }], ..ResourceLogs::default()
        }] };
        check(Signal::Logs, &request, |request| {
            let mut texts = Vec::new();
            for record in &mut request.resource_logs[0].scope_logs[0].log_records {
                take_texts(record.body.as_mut().expect("is there"), &mut texts);
                take_pairs(&mut record.attributes, &mut texts);
            }
            texts
        })?;
    }

    #[test]
    fn of_data_points_nothing_is_left(values in proptest::collection::vec(value(), 6)) {
        use opentelemetry_proto::tonic::metrics::v1::{
            Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
            ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, metric::Data,
        };
        let [gauge, sum, histogram, exponential, summary, exemplar] = [0, 1, 2, 3, 4, 5].map(|at| numbered(vec![values[at].clone()]));
        let exemplars = vec![Exemplar { filtered_attributes: exemplar, ..Exemplar::default() }];
        let data = vec![
            Data::Gauge(Gauge { data_points: vec![NumberDataPoint { attributes: gauge, exemplars, ..NumberDataPoint::default() }] }),
            Data::Sum(Sum { data_points: vec![NumberDataPoint { attributes: sum, ..NumberDataPoint::default() }], ..Sum::default() }),
            Data::Histogram(Histogram { data_points: vec![HistogramDataPoint { attributes: histogram, ..HistogramDataPoint::default() }], ..Histogram::default() }),
            Data::ExponentialHistogram(ExponentialHistogram {
                data_points: vec![ExponentialHistogramDataPoint { attributes: exponential, ..ExponentialHistogramDataPoint::default() }],
                ..ExponentialHistogram::default()
            }),
            Data::Summary(Summary { data_points: vec![SummaryDataPoint { attributes: summary, ..SummaryDataPoint::default() }] }),
        ];
        let metrics = data.into_iter().map(|data| Metric { data: Some(data), ..Metric::default() }).collect();
        let request = ExportMetricsServiceRequest { resource_metrics: vec![ResourceMetrics {
            scope_metrics: vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }], ..ResourceMetrics::default()
        }] };
        check(Signal::Metrics, &request, |request| {
            let mut texts = Vec::new();
            let take_numbers = |points: &mut Vec<NumberDataPoint>, texts: &mut Vec<String>| for point in points {
                take_pairs(&mut point.attributes, texts);
                point.exemplars.iter_mut().for_each(|exemplar| take_pairs(&mut exemplar.filtered_attributes, texts));
            };
            for metric in &mut request.resource_metrics[0].scope_metrics[0].metrics {
                match metric.data.as_mut().expect("is there") {
                    Data::Gauge(data) => take_numbers(&mut data.data_points, &mut texts),
                    Data::Sum(data) => take_numbers(&mut data.data_points, &mut texts),
                    Data::Histogram(data) => data.data_points.iter_mut().for_each(|point| take_pairs(&mut point.attributes, &mut texts)),
                    Data::ExponentialHistogram(data) => data.data_points.iter_mut().for_each(|point| take_pairs(&mut point.attributes, &mut texts)),
                    Data::Summary(data) => data.data_points.iter_mut().for_each(|point| take_pairs(&mut point.attributes, &mut texts)),
                }
            }
            texts
        })?;
    }
}
