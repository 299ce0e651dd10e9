//! Metrics for Prometheus: the page as scrapers and `promtool` read it, remote write as a real Prometheus takes it, and what becomes of refusals.

mod page;
mod real;
mod received;
mod writing;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::Full;
use model::{Batch, Encoding, Meta, Signal};
use net::dial::{Answer, Client};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as NumberValue;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
    exemplar,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use pipeline::config::{Config, Section, Source};
use prost::Message;

const CUMULATIVE: i32 = 2;
const DELTA: i32 = 1;
const T: u64 = 1_700_000_000_000_000_000;

fn pairs(of: &[(&str, &str)]) -> Vec<KeyValue> {
    let value = |text: &str| {
        Some(AnyValue {
            value: Some(Value::StringValue(text.into())),
        })
    };
    of.iter()
        .map(|(key, text)| KeyValue {
            key: (*key).into(),
            value: value(text),
            ..KeyValue::default()
        })
        .collect()
}

fn number(value: f64, time_unix_nano: u64, attributes: &[(&str, &str)]) -> NumberDataPoint {
    NumberDataPoint {
        attributes: pairs(attributes),
        time_unix_nano,
        value: Some(NumberValue::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

fn gauge(name: &str, data_points: Vec<NumberDataPoint>) -> Metric {
    Metric {
        name: name.into(),
        data: Some(Data::Gauge(Gauge { data_points })),
        ..Metric::default()
    }
}

fn counter(name: &str, aggregation_temporality: i32, data_points: Vec<NumberDataPoint>) -> Metric {
    let sum = Sum {
        data_points,
        aggregation_temporality,
        is_monotonic: true,
    };
    Metric {
        name: name.into(),
        description: "How many".into(),
        data: Some(Data::Sum(sum)),
        ..Metric::default()
    }
}

/// Of three observations, one with a trace.
fn histogram(name: &str, time_unix_nano: u64, aggregation_temporality: i32) -> Metric {
    let exemplar = Exemplar {
        trace_id: vec![0xab; 16],
        time_unix_nano,
        value: Some(exemplar::Value::AsDouble(0.7)),
        ..Exemplar::default()
    };
    let point = HistogramDataPoint {
        attributes: pairs(&[("method", "GET")]),
        time_unix_nano,
        count: 3,
        sum: Some(4.5),
        bucket_counts: vec![1, 1, 1],
        explicit_bounds: vec![0.5, 1.0],
        exemplars: vec![exemplar],
        ..HistogramDataPoint::default()
    };
    let data = Histogram {
        data_points: vec![point],
        aggregation_temporality,
    };
    Metric {
        name: name.into(),
        unit: "s".into(),
        description: "How long".into(),
        data: Some(Data::Histogram(data)),
        ..Metric::default()
    }
}

fn request(metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    let resource = pairs(&[
        ("service.name", "chat"),
        ("service.instance.id", "i-1"),
        ("host.name", "h"),
    ]);
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource {
                attributes: resource,
                ..Resource::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                metrics,
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    }
}

/// As it comes from a door.
fn batch(metrics: Vec<Metric>) -> Batch {
    let meta = Meta {
        received_at_unix_nano: 0,
        receiver: "otlp".into(),
        peer: None,
        headers: Vec::new(),
        source_offset: None,
    };
    let payload = Bytes::from(request(metrics).encode_to_vec());
    let canonical = model::canonical::canonicalize(Signal::Metrics, payload).expect("canonical");
    let batch = Batch::from_canonical(Signal::Metrics, canonical, None, Arc::new(meta));
    assert_eq!(batch.encoding, Encoding::Otlp);
    batch
}

fn now_unix_nano() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_nanos() as u64
}

/// Reads the settings of one exporter, or the message that a person would see.
fn settings<T>(
    kind: &str,
    settings: &str,
    parse: impl Fn(&Section<'_>) -> Result<T, pipeline::config::Problems>,
) -> Result<T, String> {
    let text = format!("exporters:\n  {kind}: {settings}\nservice: {{ pipelines: {{ metrics: {{}} }} }}\n");
    let config = Config::load(vec![Source::new("test.yaml", text)], &|_| None).map_err(|error| error.to_string())?;
    parse(&config.section(&config.exporters[0])).map_err(|error| error.to_string())
}

async fn get(client: &Client, path: &str, headers: HeaderMap) -> Answer {
    let uri = format!("{}://{}{path}", client.scheme(), client.address());
    let mut request = Request::get(uri).body(Full::new(Bytes::new())).expect("a request");
    *request.headers_mut() = headers;
    client.send(request).await.expect("an answer")
}

/// How long a process that we started may take for what it does in a second.
const PATIENCE: Duration = Duration::from_secs(60);
