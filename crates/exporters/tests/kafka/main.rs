//! The `kafka` exporter against a real broker (`real.rs`), and against a stand-in for what a real one does not do on demand (`standin.rs`).

mod real;
mod standin;

use std::collections::BTreeMap;
use std::sync::Arc;

use exporters::kafka::Kafka;
use model::{Batch, Encoding, Meta, Signal};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use pipeline::config::{Config, Source};
use prost::Message;

fn parse(settings: &str) -> Result<exporters::kafka::Config, String> {
    let text = format!("exporters:\n  kafka: {{ {settings} }}\nservice: {{ pipelines: {{ traces: {{}} }} }}\n");
    let config = Config::load(vec![Source::new("test.yaml", text)], &|_| None).map_err(|error| error.to_string())?;
    exporters::kafka::parse(&config.section(&config.exporters[0])).map_err(|error| error.to_string())
}

fn kafka(settings: &str) -> Kafka {
    let config = parse(settings).unwrap_or_else(|error| panic!("{error}"));
    Kafka::new(&config).expect("made")
}

/// A trace's id by its number.
fn id(trace: u8) -> Vec<u8> {
    [&[trace][..], &[0; 15]].concat()
}

/// Spans named `a` to `b` of traces by number, and of a service each.
fn spans(of: &[(u8, &str, &str)]) -> Batch {
    let mut resources: BTreeMap<&str, Vec<Span>> = BTreeMap::new();
    for (at, (trace, service, name)) in of.iter().enumerate() {
        resources.entry(service).or_default().push(Span {
            trace_id: id(*trace),
            span_id: (at as u64 + 1).to_be_bytes().to_vec(),
            name: (*name).to_owned(),
            ..Span::default()
        });
    }
    let text = |text: &str| {
        Some(AnyValue {
            value: Some(Value::StringValue(text.to_owned())),
        })
    };
    let resource_spans = resources.into_iter().map(|(service, spans)| ResourceSpans {
        resource: Some(Resource {
            attributes: vec![KeyValue {
                key: "service.name".to_owned(),
                value: text(service),
                ..KeyValue::default()
            }],
            ..Resource::default()
        }),
        scope_spans: vec![ScopeSpans {
            spans,
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
        items: of.len() as u32,
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

/// Trace and name of each span of a message.
fn read(value: &[u8]) -> Vec<(u8, String)> {
    let request = ExportTraceServiceRequest::decode(value).expect("is OTLP");
    let scopes = request
        .resource_spans
        .into_iter()
        .flat_map(|resource| resource.scope_spans);
    let spans = scopes.flat_map(|scope| scope.spans);
    spans.map(|span| (span.trace_id[0], span.name)).collect()
}

#[test]
fn mistakes_are_told_with_what_would_be_right() {
    for (settings, words) in [
        ("brokers: []", "there is none"),
        ("brokers: [ 'http://a:1' ]", "is not host:port"),
        ("brokers: 'a:1,b:x'", "`b:x`"),
        (
            "traces: { encoding: jaeger_proto }",
            "there are otlp_proto and otlp_json",
        ),
        ("traces: { topic_from_metadata_key: t }", "`topic_from_attribute`"),
        ("auth: { kerberos: { realm: r } }", "SCRAM-SHA-512"),
        (
            "auth: { sasl: { mechanism: AWS_MSK_IAM_OAUTHBEARER } }",
            "PLAIN, SCRAM-SHA-256",
        ),
        (
            "auth: { sasl: { mechanism: PLAIN, username: me } }",
            "`password` is needed",
        ),
        ("producer: { required_acks: 2 }", "0, 1, or -1"),
        (
            "producer: { compression: gzip, compression_params: { level: 12 } }",
            "1 to 9 for gzip",
        ),
        ("producer: { compression: brotli }", "brotli"),
        ("compression: gzip", "producer: { compression"),
        ("headers: { a: b }", "`record_headers`"),
        (
            "partition_logs_by_trace_id: true, partition_logs_by_resource_attributes: true",
            "one key",
        ),
        ("brokrs: []", "did you mean `brokers`?"),
        ("record_partitioner: { extension: mine }", "unknown key `extension`"),
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
        "brokers: 'a:9092, b', protocol_version: 2.1.0, client_id: me, topic: all, logs: { topic: l, encoding: otlp_json }, \
         topic_from_attribute: t, include_metadata_keys: [ x ], record_headers: { h: v }, partition_traces_by_id: true, \
         record_partitioner: { sticky_key: { hasher: murmur2 } }, metadata: { full: false, refresh_interval: 5m, retry: { max: 5, backoff: 1s } }, \
         auth: { plain_text: { username: u, password: hidden-password } }, tls: { insecure: true }, timeout: 7s, \
         producer: { max_message_bytes: 2000000, required_acks: -1, compression: zstd, compression_params: { level: 6 }, flush_max_messages: 100, \
         allow_auto_topic_creation: false, linger: 5ms, max_broker_write_bytes: 104857600 }, sending_queue: { enabled: true }, retry_on_failure: { enabled: true }",
    )
    .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.own.brokers.0, ["a:9092", "b"]);
    assert!(!format!("{config:?}").contains("hidden-password"));
    parse("").expect("nothing is needed");
}
