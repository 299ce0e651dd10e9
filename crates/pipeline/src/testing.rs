//! Why: batches for the tests of this crate, small and real.

use std::sync::Arc;

use model::{Batch, Encoding, Meta, Signal};
use prost::Message;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};

use crate::component::Processor;
use crate::config::{Config, Problems, Section, Source};
use crate::processors::Step;

pub fn meta() -> Arc<Meta> {
    Arc::new(Meta {
        received_at_unix_nano: 1_700_000_000_000_000_000,
        receiver: "otlp".into(),
        peer: None,
        headers: Vec::new(),
        source_offset: None,
    })
}

/// A request of these spans, each known by its id.
pub fn spans(ids: impl IntoIterator<Item = u64>) -> Batch {
    let spans: Vec<Span> = ids
        .into_iter()
        .map(|id| Span {
            trace_id: [7; 16].to_vec(),
            span_id: (id + 1).to_be_bytes().to_vec(),
            name: format!("span {id}"),
            ..Span::default()
        })
        .collect();
    let items = spans.len() as u32;
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    Batch {
        signal: Signal::Traces,
        encoding: Encoding::Otlp,
        payload: request.encode_to_vec().into(),
        items,
        wire: None,
        meta: meta(),
    }
}

pub fn batch_of(items: u64) -> Batch {
    spans(0..items)
}

/// The ids of the spans of a batch, as [`spans`] gave them.
pub fn ids(batch: &Batch) -> Vec<u64> {
    let request = ExportTraceServiceRequest::decode(batch.payload.bytes()).expect("a request");
    let spans = request
        .resource_spans
        .iter()
        .flat_map(|resource| &resource.scope_spans)
        .flat_map(|scope| &scope.spans);
    spans
        .map(|span| u64::from_be_bytes(span.span_id.as_slice().try_into().expect("8 bytes")) - 1)
        .collect()
}

/// A processor as the configuration makes it: `settings` in YAML's flow style.
pub fn processor(parse: fn(&Section<'_>) -> Result<Step, Problems>, settings: &str) -> Arc<dyn Processor> {
    match try_processor(parse, settings) {
        Ok(processor) => processor,
        Err(problems) => panic!("{problems}"),
    }
}

/// As [`processor`]; or what is wrong with the settings.
pub fn try_processor(
    parse: fn(&Section<'_>) -> Result<Step, Problems>,
    settings: &str,
) -> Result<Arc<dyn Processor>, Problems> {
    let text = format!("processors:\n  tested: {settings}\n");
    let config = Config::load(vec![Source::new("test.yaml", text)], &|_| None)?;
    match parse(&config.section(&config.processors[0]))? {
        Step::InRequest(processor) => Ok(processor),
        Step::Take(_) | Step::Stage(_) => panic!("runs behind the journal"),
    }
}

pub fn traces(batch: &Batch) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest::decode(batch.payload.bytes()).expect("a request")
}

pub fn text(text: &str) -> AnyValue {
    AnyValue {
        value: Some(Value::StringValue(text.into())),
    }
}

pub fn pairs(pairs: &[(&str, &str)]) -> Vec<KeyValue> {
    let pair = |(key, value): &(&str, &str)| KeyValue {
        key: (*key).into(),
        value: Some(text(value)),
        ..KeyValue::default()
    };
    pairs.iter().map(pair).collect()
}

/// The same spans, of a resource with these attributes.
pub fn with_resource(batch: &Batch, attributes: &[(&str, &str)]) -> Batch {
    let mut request = traces(batch);
    for resource in &mut request.resource_spans {
        resource.resource = Some(Resource {
            attributes: pairs(attributes),
            ..Resource::default()
        });
    }
    batch.edited(request.encode_to_vec(), batch.items)
}

/// The same spans with these attributes.
pub fn with_attributes(batch: &Batch, attributes: &[(&str, &str)]) -> Batch {
    let mut request = traces(batch);
    for span in &mut request.resource_spans[0].scope_spans[0].spans {
        span.attributes = pairs(attributes);
    }
    batch.edited(request.encode_to_vec(), batch.items)
}

pub fn with_meta(batch: &Batch, meta: Meta) -> Batch {
    Batch {
        meta: Arc::new(meta),
        ..batch.clone()
    }
}

/// Attributes ordered by their keys; a text as it is, other values as they print.
pub fn attributes_of(attributes: &[KeyValue]) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = attributes
        .iter()
        .map(
            |pair| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
                Some(Value::StringValue(text)) => (pair.key.clone(), text.clone()),
                Some(other) => (pair.key.clone(), format!("{other:?}")),
                None => (pair.key.clone(), "nothing".to_owned()),
            },
        )
        .collect();
    pairs.sort();
    pairs
}

fn batch(signal: Signal, payload: Vec<u8>, items: u32) -> Batch {
    Batch {
        signal,
        encoding: Encoding::Otlp,
        payload: payload.into(),
        items,
        wire: None,
        meta: meta(),
    }
}

/// Two log records: one of level INFO with the body `hello`, one of level ERROR with the body `it broke` and an attribute `code`.
pub fn logs() -> Batch {
    let record = |severity_number, severity_text: &str, body: &str, attributes: &[(&str, &str)]| LogRecord {
        severity_number,
        severity_text: severity_text.into(),
        body: Some(text(body)),
        attributes: pairs(attributes),
        time_unix_nano: 1_700_000_000_000_000_000,
        ..LogRecord::default()
    };
    let log_records = vec![
        record(9, "INFO", "hello", &[]),
        record(17, "ERROR", "it broke", &[("code", "17")]),
    ];
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource {
                attributes: pairs(&[("service.name", "shop")]),
                ..Resource::default()
            }),
            scope_logs: vec![ScopeLogs {
                log_records,
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    };
    batch(Signal::Logs, request.encode_to_vec(), 2)
}

/// Two metrics: a sum `requests` with points of 1 and 2 (attribute `path`: `/a`, `/b`), a gauge `load` with one point of 0.5.
pub fn metrics() -> Batch {
    let point = |value, path: &str| NumberDataPoint {
        value: Some(value),
        attributes: pairs(&[("path", path)]),
        time_unix_nano: 1_700_000_000_000_000_000,
        ..NumberDataPoint::default()
    };
    let requests = Metric {
        name: "requests".into(),
        unit: "1".into(),
        data: Some(Data::Sum(Sum {
            data_points: vec![point(Number::AsInt(1), "/a"), point(Number::AsInt(2), "/b")],
            aggregation_temporality: 2,
            is_monotonic: true,
        })),
        ..Metric::default()
    };
    let load = Metric {
        name: "load".into(),
        data: Some(Data::Gauge(Gauge {
            data_points: vec![point(Number::AsDouble(0.5), "/")],
        })),
        ..Metric::default()
    };
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            scope_metrics: vec![ScopeMetrics {
                metrics: vec![requests, load],
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    };
    batch(Signal::Metrics, request.encode_to_vec(), 3)
}
