//! Push requests against `prost` as an independent decoder, and JSON against `serde_json`.

#[path = "../../model/tests/otlp/arbitrary.rs"]
#[allow(dead_code)] // Only logs are of interest here.
mod arbitrary;
#[path = "support/loki_api.rs"]
mod loki_api;

use codec::loki::{DefaultLabels, Encoding, Format, Options, Push, from_json, from_protobuf, pushes};
use loki_api as api;
use model::Signal;
use model::canonical::canonicalize;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::prelude::*;
use prost::Message;

use arbitrary::Source;

const NOW: u64 = 1_700_000_009_000_000_000;

const ALL: Options = Options {
    encoding: Encoding::Protobuf,
    format: Format::Json,
    default_labels: DefaultLabels {
        exporter: true,
        job: true,
        instance: true,
        level: true,
    },
    structured_metadata: false,
    received_at_unix_nano: NOW,
};

fn canonical(payload: Vec<u8>) -> Vec<u8> {
    canonicalize(Signal::Logs, payload.into())
        .expect("is legal")
        .payload
        .to_vec()
}

fn any(text: &str) -> AnyValue {
    AnyValue {
        value: Some(Value::StringValue(text.into())),
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(any(value)),
        ..KeyValue::default()
    }
}

fn record(seconds: u64, body: &str, attributes: Vec<KeyValue>) -> LogRecord {
    LogRecord {
        time_unix_nano: seconds * 1_000_000_000 + 5,
        severity_number: 9,
        severity_text: "Info".into(),
        body: Some(any(body)),
        attributes,
        ..LogRecord::default()
    }
}

fn request(resource: Vec<KeyValue>, log_records: Vec<LogRecord>) -> Vec<u8> {
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource {
                attributes: resource,
                ..Resource::default()
            }),
            scope_logs: vec![ScopeLogs {
                scope: Some(InstrumentationScope {
                    name: "app".into(),
                    ..InstrumentationScope::default()
                }),
                log_records,
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    };
    canonical(request.encode_to_vec())
}

fn shop() -> Vec<KeyValue> {
    vec![
        text("service.name", "cart"),
        text("service.namespace", "shop"),
        text("service.instance.id", "i-1"),
        text("host.name", "web-1"),
    ]
}

/// Labels and lines, and the structured metadata, of a push in protobuf.
fn streams(push: &Push) -> Vec<(String, Vec<String>)> {
    let request = api::PushRequest::decode(push.body.as_slice()).expect("Loki's protobuf");
    let shown = |entry: &api::Entry| {
        let metadata: Vec<_> = entry
            .structured_metadata
            .iter()
            .map(|pair| format!(" {}={}", pair.name, pair.value))
            .collect();
        let time = entry.timestamp.unwrap_or_default();
        format!("{}.{} {}{}", time.seconds, time.nanos, entry.line, metadata.concat())
    };
    let streams = request.streams.iter();
    streams
        .map(|stream| (stream.labels.clone(), stream.entries.iter().map(shown).collect()))
        .collect()
}

fn check(payload: &[u8], options: &Options, expect: &[(&str, &[&str])]) {
    let all = pushes(payload, options).all;
    assert_eq!(all.len(), 1);
    let got = streams(&all[0]);
    let got: Vec<(&str, Vec<&str>)> = got
        .iter()
        .map(|(labels, lines)| (labels.as_str(), lines.iter().map(String::as_str).collect()))
        .collect();
    let expect: Vec<(&str, Vec<&str>)> = expect.iter().map(|(labels, lines)| (*labels, lines.to_vec())).collect();
    assert_eq!(got, expect);
}

#[test]
fn labels_and_lines_are_those_of_the_collectors_exporter() {
    let mut traced = record(7, "paid", vec![text("user", "u1")]);
    traced.trace_id = vec![0xab; 16];
    traced.span_id = vec![0xcd; 8];
    traced.flags = 1;
    let payload = request(shop(), vec![traced, record(3, "say \"hi\"", Vec::new())]);
    let resources = r#""resources":{"service.name":"cart","service.namespace":"shop","service.instance.id":"i-1","host.name":"web-1"},"instrumentation_scope":{"name":"app"}}"#;
    let first = format!("3.5 {{\"body\":\"say \\\"hi\\\"\",\"severity\":\"Info\",{resources}");
    let second = format!(
        "7.5 {{\"body\":\"paid\",\"traceid\":\"{}\",\"spanid\":\"{}\",\"severity\":\"Info\",\"flags\":1,\"attributes\":{{\"user\":\"u1\"}},{resources}",
        "ab".repeat(16),
        "cd".repeat(8)
    );
    let labels = r#"{exporter="OTLP", instance="i-1", job="shop/cart", level="INFO"}"#;
    check(&payload, &ALL, &[(labels, &[&first, &second])]);
}

#[test]
fn hints_name_labels_formats_and_tenants() {
    let mut resource = shop();
    resource.push(text("loki.resource.labels", "host.name, absent"));
    resource.push(text("loki.format", "raw"));
    let nested = KeyValue {
        key: "http".into(),
        value: Some(AnyValue {
            value: Some(Value::KvlistValue(KeyValueList {
                values: vec![text("route", "/pay")],
            })),
        }),
        ..KeyValue::default()
    };
    let records = vec![
        record(
            1,
            "a",
            vec![
                text("loki.attribute.labels", "http.route,user"),
                nested,
                text("user", "u\n1"),
            ],
        ),
        record(
            2,
            "b",
            vec![text("loki.format", "logfmt"), text("level", "loud"), text("n", "x y")],
        ),
    ];
    let payload = request(resource, records);
    check(
        &payload,
        &ALL,
        &[
            (
                r#"{exporter="OTLP", host_name="web-1", http_route="/pay", instance="i-1", job="shop/cart", level="INFO", user="u\n1"}"#,
                &["1.5 a"],
            ),
            (
                r#"{exporter="OTLP", host_name="web-1", instance="i-1", job="shop/cart", level="loud"}"#,
                &[
                    "2.5 msg=b severity=Info attribute_n=\"x y\" resource_service.name=cart resource_service.namespace=shop resource_service.instance.id=i-1 instrumentation_scope_name=app",
                ],
            ),
        ],
    );
    let tenant = |name: &str| record(1, name, vec![text("loki.tenant", "org"), text("org", name)]);
    let payload = request(
        Vec::new(),
        vec![tenant("a"), tenant("b"), tenant("a"), record(1, "c", Vec::new())],
    );
    let all = pushes(&payload, &ALL).all;
    let tenants: Vec<_> = all.iter().map(|push| (push.tenant.as_deref(), push.records)).collect();
    assert_eq!(tenants, [(Some("a"), 2), (Some("b"), 1), (None, 1)]);
}

#[test]
fn what_is_no_label_may_be_structured_metadata() {
    let options = Options {
        format: Format::Raw,
        structured_metadata: true,
        default_labels: DefaultLabels {
            exporter: false,
            job: true,
            instance: false,
            level: false,
        },
        ..ALL
    };
    let mut resource = shop();
    resource.push(text("loki.resource.labels", "host.name"));
    let payload = request(resource, vec![record(1, "a", vec![text("user.id", "7")])]);
    let line = "1.5 a severity_text=Info scope_name=app severity_number=9 user_id=7 service_name=cart service_namespace=shop service_instance_id=i-1";
    check(
        &payload,
        &options,
        &[(r#"{host_name="web-1", job="shop/cart"}"#, &[line])],
    );
    let json = pushes(
        &payload,
        &Options {
            encoding: Encoding::Json,
            ..options
        },
    );
    let json: serde_json::Value = serde_json::from_slice(&json.all[0].body).expect("JSON");
    let expect = serde_json::json!({"streams": [{
        "stream": {"host_name": "web-1", "job": "shop/cart"},
        "values": [["1000000005", "a", {
            "severity_text": "Info", "scope_name": "app", "severity_number": "9", "user_id": "7",
            "service_name": "cart", "service_namespace": "shop", "service_instance_id": "i-1",
        }]],
    }]});
    assert_eq!(json, expect);
}

#[test]
fn a_record_without_a_time_or_a_label_is_still_taken() {
    let none = DefaultLabels {
        exporter: false,
        job: false,
        instance: false,
        level: false,
    };
    let bare = LogRecord {
        body: Some(any("x")),
        ..LogRecord::default()
    };
    let observed = LogRecord {
        observed_time_unix_nano: 4_000_000_000,
        ..bare.clone()
    };
    let options = Options {
        format: Format::Raw,
        default_labels: none,
        ..ALL
    };
    let lines: &[&str] = &["4.0 x", "1700000009.0 x"];
    check(
        &request(Vec::new(), vec![bare, observed]),
        &options,
        &[(r#"{exporter="OTLP"}"#, lines)],
    );
}

#[test]
fn a_large_resource_is_not_written_into_every_line() {
    let resource = vec![text("k", &"v".repeat(100_000))];
    let payload = request(resource, vec![record(1, "a", Vec::new()); 2_000]);
    for encoding in [Encoding::Protobuf, Encoding::Json] {
        let pushes = pushes(
            &payload,
            &Options {
                encoding,
                format: Format::Json,
                ..ALL
            },
        );
        let taken = pushes.all.iter().map(|push| push.records).sum::<u32>();
        assert_eq!(taken + pushes.rejected, 2_000);
        assert!(taken > 300 && pushes.rejected > 1_000, "{taken} taken");
    }
}

#[test]
fn a_long_name_over_many_values_is_not_written_before_each() {
    let many = AnyValue {
        value: Some(Value::ArrayValue(ArrayValue {
            values: vec![any("x"); 20_000],
        })),
    };
    let long = KeyValue {
        key: "k".repeat(100_000),
        value: Some(many),
        ..KeyValue::default()
    };
    let payload = request(Vec::new(), vec![record(1, "a", vec![long]), record(1, "b", Vec::new())]);
    let pushes = pushes(
        &payload,
        &Options {
            format: Format::Logfmt,
            ..ALL
        },
    );
    assert_eq!((pushes.rejected, pushes.all[0].records), (1, 1));
}

#[test]
fn every_record_may_have_a_tenant_and_a_hint_may_name_one_label_often() {
    let named = |number: usize| {
        let hints = [text("loki.tenant", "org"), text("org", &number.to_string())];
        record(1, "a", hints.to_vec())
    };
    let payload = request(Vec::new(), (0..3_000).map(named).collect());
    assert_eq!(pushes(&payload, &ALL).all.len(), 3_000);
    let hints = vec![
        text("loki.attribute.labels", &"a,b,".repeat(1_000)),
        text("a", "1"),
        text("b", "2"),
    ];
    let payload = request(Vec::new(), vec![record(1, "x", hints)]);
    let labels = &streams(&pushes(&payload, &ALL).all[0])[0].0;
    assert_eq!(labels, r#"{a="1", b="2", exporter="OTLP", level="INFO"}"#);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn both_encodings_tell_the_same_and_lose_no_record(
        bytes in prop::collection::vec(proptest::prelude::any::<u8>(), 0..3000),
        format in prop::sample::select(vec![Format::Json, Format::Logfmt, Format::Raw]),
        structured_metadata: bool,
    ) {
        let payload = canonicalize(Signal::Logs, Source(&bytes).logs().encode_to_vec().into()).expect("is legal");
        let options = Options { format, structured_metadata, ..ALL };
        let protobuf = pushes(&payload.payload, &options).all;
        prop_assert_eq!(protobuf.iter().map(|push| push.records).sum::<u32>(), payload.items);
        let json = pushes(&payload.payload, &Options { encoding: Encoding::Json, ..options }).all;
        prop_assert_eq!(protobuf.len(), json.len());
        for (protobuf, json) in protobuf.iter().zip(&json) {
            let protobuf = api::PushRequest::decode(protobuf.body.as_slice()).expect("Loki's protobuf");
            let json: serde_json::Value = serde_json::from_slice(&json.body).expect("JSON");
            for (at, stream) in protobuf.streams.iter().enumerate() {
                let values = json["streams"][at]["values"].as_array().expect("values");
                prop_assert_eq!(values.len(), stream.entries.len());
                let mut before = (0, 0);
                for (entry, value) in stream.entries.iter().zip(values) {
                    prop_assert_eq!(value[1].as_str(), Some(entry.line.as_str()));
                    if format == Format::Json {
                        serde_json::from_str::<serde_json::Value>(&entry.line).expect("a line of JSON");
                    }
                    let time = entry.timestamp.unwrap_or_default();
                    prop_assert!((time.seconds, time.nanos) >= before, "in order of time");
                    before = (time.seconds, time.nanos);
                }
            }
        }
    }

    #[test]
    fn what_we_push_we_take_and_damage_is_an_error_or_legal_protobuf(
        bytes in prop::collection::vec(proptest::prelude::any::<u8>(), 0..2000),
        cut in 0usize..4000,
        flips in prop::collection::vec((0usize..4000, proptest::prelude::any::<u8>()), 0..4),
    ) {
        let payload = canonicalize(Signal::Logs, Source(&bytes).logs().encode_to_vec().into()).expect("is legal").payload;
        for (encoding, read) in [
            (Encoding::Protobuf, from_protobuf as fn(&[u8], u64) -> _),
            (Encoding::Json, from_json),
        ] {
            let options = Options { encoding, format: Format::Raw, structured_metadata: true, ..ALL };
            for mut push in pushes(&payload, &options).all {
                let whole = read(&push.body, NOW).expect("what we write, we read");
                let whole = canonicalize(Signal::Logs, whole.into()).expect("is legal");
                prop_assert_eq!(whole.items, push.records);
                push.body.truncate(cut.max(1));
                for (at, byte) in &flips {
                    let len = push.body.len();
                    push.body[at % len] = *byte;
                }
                if let Ok(payload) = read(&push.body, NOW) {
                    prop_assert!(payload.len() <= 64 + 8 * push.body.len(), "{} of {}", payload.len(), push.body.len());
                    canonical(payload);
                }
            }
        }
    }
}
