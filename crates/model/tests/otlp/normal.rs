//! Canonical form said once more, over decoded messages: slow and obvious.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::{Exemplar, metric::Data};
use opentelemetry_proto::tonic::resource::v1::Resource;

/// What the door does to a decoded request; returns the items that stay and the items that go.
pub trait Normal {
    fn normalise(&mut self) -> (u32, u32);
}

impl Normal for ExportTraceServiceRequest {
    fn normalise(&mut self) -> (u32, u32) {
        let (mut kept, mut rejected) = (0, 0);
        for resource_spans in &mut self.resource_spans {
            resource(&mut resource_spans.resource);
            for scope_spans in &mut resource_spans.scope_spans {
                scope(&mut scope_spans.scope);
                let before = scope_spans.spans.len();
                let valid = |id: &[u8], length| id.len() == length && id.iter().any(|byte| *byte != 0);
                scope_spans
                    .spans
                    .retain(|span| valid(&span.trace_id, 16) && valid(&span.span_id, 8));
                kept += scope_spans.spans.len();
                rejected += before - scope_spans.spans.len();
                for span in &mut scope_spans.spans {
                    id(&mut span.parent_span_id, 8);
                    attributes(&mut span.attributes);
                    for event in &mut span.events {
                        attributes(&mut event.attributes);
                    }
                    for link in &mut span.links {
                        id(&mut link.trace_id, 16);
                        id(&mut link.span_id, 8);
                        attributes(&mut link.attributes);
                    }
                }
            }
        }
        (kept as u32, rejected as u32)
    }
}

impl Normal for ExportLogsServiceRequest {
    fn normalise(&mut self) -> (u32, u32) {
        let mut kept = 0;
        for resource_logs in &mut self.resource_logs {
            resource(&mut resource_logs.resource);
            for scope_logs in &mut resource_logs.scope_logs {
                scope(&mut scope_logs.scope);
                kept += scope_logs.log_records.len();
                for log in &mut scope_logs.log_records {
                    id(&mut log.trace_id, 16);
                    id(&mut log.span_id, 8);
                    attributes(&mut log.attributes);
                    if let Some(body) = &mut log.body {
                        value(body);
                    }
                }
            }
        }
        (kept as u32, 0)
    }
}

impl Normal for ExportMetricsServiceRequest {
    fn normalise(&mut self) -> (u32, u32) {
        let mut kept = 0;
        for resource_metrics in &mut self.resource_metrics {
            resource(&mut resource_metrics.resource);
            for scope_metrics in &mut resource_metrics.scope_metrics {
                scope(&mut scope_metrics.scope);
                for metric in &mut scope_metrics.metrics {
                    attributes(&mut metric.metadata);
                    kept += match &mut metric.data {
                        None => 0,
                        Some(Data::Gauge(data)) => each(&mut data.data_points, |point| {
                            attributes(&mut point.attributes);
                            exemplars(&mut point.exemplars);
                        }),
                        Some(Data::Sum(data)) => each(&mut data.data_points, |point| {
                            attributes(&mut point.attributes);
                            exemplars(&mut point.exemplars);
                        }),
                        Some(Data::Histogram(data)) => each(&mut data.data_points, |point| {
                            attributes(&mut point.attributes);
                            exemplars(&mut point.exemplars);
                        }),
                        Some(Data::ExponentialHistogram(data)) => each(&mut data.data_points, |point| {
                            attributes(&mut point.attributes);
                            exemplars(&mut point.exemplars);
                        }),
                        Some(Data::Summary(data)) => {
                            each(&mut data.data_points, |point| attributes(&mut point.attributes))
                        }
                    };
                }
            }
        }
        (kept as u32, 0)
    }
}

fn each<T>(points: &mut [T], change: impl FnMut(&mut T)) -> usize {
    points.iter_mut().for_each(change);
    points.len()
}

fn exemplars(exemplars: &mut [Exemplar]) {
    for exemplar in exemplars {
        id(&mut exemplar.trace_id, 16);
        id(&mut exemplar.span_id, 8);
        attributes(&mut exemplar.filtered_attributes);
    }
}

fn resource(resource: &mut Option<Resource>) {
    if let Some(resource) = resource {
        attributes(&mut resource.attributes);
    }
}

fn scope(scope: &mut Option<InstrumentationScope>) {
    if let Some(scope) = scope {
        attributes(&mut scope.attributes);
    }
}

fn id(id: &mut Vec<u8>, length: usize) {
    if id.len() != length {
        id.clear();
    }
}

fn attributes(pairs: &mut Vec<KeyValue>) {
    let keys: Vec<String> = pairs.iter().map(|pair| pair.key.clone()).collect();
    let mut index = 0;
    pairs.retain(|pair| {
        index += 1;
        !keys[index..].contains(&pair.key)
    });
    for pair in pairs {
        if let Some(pair) = &mut pair.value {
            value(pair);
        }
    }
}

fn value(any: &mut AnyValue) {
    match &mut any.value {
        Some(Value::ArrayValue(array)) => array.values.iter_mut().for_each(value),
        Some(Value::KvlistValue(list)) => attributes(&mut list.values),
        _ => {}
    }
}
