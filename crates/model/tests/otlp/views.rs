//! What a view reads is what prost reads.

use model::Signal;
use model::view::metrics::{self, Data as DataView, Number};
use model::view::{AnyValue as ValueView, Attributes, Resource as ResourceView, Scope as ScopeView, logs, traces};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::{
    self as proto, Exemplar, ExponentialHistogramDataPoint, HistogramDataPoint, Metric, NumberDataPoint,
    SummaryDataPoint, exemplar, metric::Data, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use proptest::prelude::*;
use prost::Message;

use super::arbitrary::Source;
use super::canonical::checked;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn traces_read_what_prost_reads(bytes in prop::collection::vec(any::<u8>(), 0..2000), choices in prop::collection::vec(any::<u8>(), 0..600)) {
        let payload = checked(Signal::Traces, &Source(&bytes).traces(), &choices).payload;
        let request = ExportTraceServiceRequest::decode(payload.clone()).expect("is legal");
        same_traces(&payload, &request);
    }

    #[test]
    fn logs_read_what_prost_reads(bytes in prop::collection::vec(any::<u8>(), 0..2000), choices in prop::collection::vec(any::<u8>(), 0..600)) {
        let payload = checked(Signal::Logs, &Source(&bytes).logs(), &choices).payload;
        let request = ExportLogsServiceRequest::decode(payload.clone()).expect("is legal");
        same_logs(&payload, &request);
    }

    #[test]
    fn metrics_read_what_prost_reads(bytes in prop::collection::vec(any::<u8>(), 0..2000), choices in prop::collection::vec(any::<u8>(), 0..600)) {
        let payload = checked(Signal::Metrics, &Source(&bytes).metrics(), &choices).payload;
        let request = ExportMetricsServiceRequest::decode(payload.clone()).expect("is legal");
        same_metrics(&payload, &request);
    }

    #[test]
    fn views_of_random_bytes_never_panic(bytes: Vec<u8>) {
        traces::records(&bytes);
        logs::records(&bytes);
        for metric in metrics::metrics(&bytes) {
            let _ = format!("{metric:?}");
        }
    }
}

pub fn same_traces(payload: &[u8], request: &ExportTraceServiceRequest) {
    let mut groups = request.resource_spans.iter();
    for view in traces::resource_spans(payload) {
        let group = groups.next().expect("no more resources than prost reads");
        same(&view_resource(view.owner()), &resource_of(&group.resource));
        assert_eq!(view.schema_url(), group.schema_url);
        let mut scopes = group.scope_spans.iter();
        for view in view.list() {
            let scope = scopes.next().expect("no more scopes than prost reads");
            same(&view_scope(view.owner()), &scope_of(&scope.scope));
            assert_eq!(view.schema_url(), scope.schema_url);
            assert_eq!(view.list().count(), scope.spans.len());
            for (view, span) in view.list().iter().zip(&scope.spans) {
                same(&view_span(view), &plain_span(span));
            }
        }
        assert!(scopes.next().is_none());
    }
    assert!(groups.next().is_none());
    let records = traces::records(payload);
    let spans = request
        .resource_spans
        .iter()
        .flat_map(|group| &group.scope_spans)
        .flat_map(|scope| &scope.spans);
    assert_eq!(records.len(), spans.clone().count());
    for (record, span) in records.iter().zip(spans) {
        assert_eq!((&record.trace_id.0[..], &record.name), (&span.trace_id[..], &span.name));
        assert_eq!(
            (record.attributes.len(), record.events.len()),
            (span.attributes.len(), span.events.len())
        );
        assert_eq!(
            i32::from(record.kind),
            if (0..=5).contains(&span.kind) { span.kind } else { 0 }
        );
    }
}

pub fn same_logs(payload: &[u8], request: &ExportLogsServiceRequest) {
    let mut groups = request.resource_logs.iter();
    for view in logs::resource_logs(payload) {
        let group = groups.next().expect("no more resources than prost reads");
        same(&view_resource(view.owner()), &resource_of(&group.resource));
        assert_eq!(view.schema_url(), group.schema_url);
        let mut scopes = group.scope_logs.iter();
        for view in view.list() {
            let scope = scopes.next().expect("no more scopes than prost reads");
            same(&view_scope(view.owner()), &scope_of(&scope.scope));
            assert_eq!(view.schema_url(), scope.schema_url);
            assert_eq!(view.list().count(), scope.log_records.len());
            for (view, log) in view.list().iter().zip(&scope.log_records) {
                same(&view_log(view), &plain_log(log));
            }
        }
        assert!(scopes.next().is_none());
    }
    assert!(groups.next().is_none());
    assert_eq!(logs::records(payload).len(), logs::log_records(payload).count());
}

pub fn same_metrics(payload: &[u8], request: &ExportMetricsServiceRequest) {
    let mut groups = request.resource_metrics.iter();
    for view in metrics::resource_metrics(payload) {
        let group = groups.next().expect("no more resources than prost reads");
        same(&view_resource(view.owner()), &resource_of(&group.resource));
        assert_eq!(view.schema_url(), group.schema_url);
        let mut scopes = group.scope_metrics.iter();
        for view in view.list() {
            let scope = scopes.next().expect("no more scopes than prost reads");
            same(&view_scope(view.owner()), &scope_of(&scope.scope));
            assert_eq!(view.schema_url(), scope.schema_url);
            assert_eq!(view.list().count(), scope.metrics.len());
            for (view, metric) in view.list().iter().zip(&scope.metrics) {
                same(&view_metric(view), &plain_metric(metric));
            }
        }
        assert!(scopes.next().is_none());
    }
    assert!(groups.next().is_none());
}

/// Compared as encoded, because NaN is not equal to itself.
fn same<M: Message + std::fmt::Debug>(view: &M, prost: &M) {
    assert_eq!(
        view.encode_to_vec(),
        prost.encode_to_vec(),
        "the view reads {view:#?}, prost {prost:#?}"
    );
}

fn resource_of(resource: &Option<Resource>) -> Resource {
    let mut resource = resource.clone().unwrap_or_default();
    resource.entity_refs.clear();
    resource.attributes.iter_mut().for_each(plain_pair);
    resource
}

fn scope_of(scope: &Option<InstrumentationScope>) -> InstrumentationScope {
    let mut scope = scope.clone().unwrap_or_default();
    scope.attributes.iter_mut().for_each(plain_pair);
    scope
}

/// What views do not tell apart or do not show: an absent value from an empty one, profiles' string indexes, an absent
/// id from one that is all zeros, an absent status or body from an empty one.
fn plain_pair(pair: &mut KeyValue) {
    pair.key_strindex = 0;
    plain_value(pair.value.get_or_insert_default());
}

fn plain_value(value: &mut AnyValue) {
    match &mut value.value {
        Some(Value::StringValueStrindex(_)) => value.value = None,
        Some(Value::ArrayValue(array)) => array.values.iter_mut().for_each(plain_value),
        Some(Value::KvlistValue(list)) => list.values.iter_mut().for_each(plain_pair),
        _ => {}
    }
}

fn plain_id(id: &mut Vec<u8>) {
    if id.iter().all(|byte| *byte == 0) {
        id.clear();
    }
}

fn plain_span(span: &Span) -> Span {
    let mut span = span.clone();
    plain_id(&mut span.parent_span_id);
    span.status.get_or_insert_default();
    span.attributes.iter_mut().for_each(plain_pair);
    for event in &mut span.events {
        event.attributes.iter_mut().for_each(plain_pair);
    }
    for link in &mut span.links {
        plain_id(&mut link.trace_id);
        plain_id(&mut link.span_id);
        link.attributes.iter_mut().for_each(plain_pair);
    }
    span
}

fn plain_log(log: &LogRecord) -> LogRecord {
    let mut log = log.clone();
    plain_id(&mut log.trace_id);
    plain_id(&mut log.span_id);
    plain_value(log.body.get_or_insert_default());
    log.attributes.iter_mut().for_each(plain_pair);
    log
}

fn plain_metric(metric: &Metric) -> Metric {
    let mut metric = metric.clone();
    metric.metadata.iter_mut().for_each(plain_pair);
    let exemplars = |exemplars: &mut Vec<Exemplar>| {
        for exemplar in exemplars {
            plain_id(&mut exemplar.trace_id);
            plain_id(&mut exemplar.span_id);
            exemplar.filtered_attributes.iter_mut().for_each(plain_pair);
        }
    };
    match &mut metric.data {
        Some(Data::Gauge(proto::Gauge { data_points }) | Data::Sum(proto::Sum { data_points, .. })) => {
            for point in data_points {
                point.attributes.iter_mut().for_each(plain_pair);
                exemplars(&mut point.exemplars);
            }
        }
        Some(Data::Histogram(data)) => {
            for point in &mut data.data_points {
                point.attributes.iter_mut().for_each(plain_pair);
                exemplars(&mut point.exemplars);
            }
        }
        Some(Data::ExponentialHistogram(data)) => {
            for point in &mut data.data_points {
                point.attributes.iter_mut().for_each(plain_pair);
                exemplars(&mut point.exemplars);
            }
        }
        Some(Data::Summary(data)) => {
            for point in &mut data.data_points {
                point.attributes.iter_mut().for_each(plain_pair);
            }
        }
        None => {}
    }
    metric
}

fn view_value(value: ValueView<'_>) -> AnyValue {
    let value = match value {
        ValueView::Empty => None,
        ValueView::Str(value) => Some(Value::StringValue(value.into())),
        ValueView::Bool(value) => Some(Value::BoolValue(value)),
        ValueView::Int(value) => Some(Value::IntValue(value)),
        ValueView::Double(value) => Some(Value::DoubleValue(value)),
        ValueView::Bytes(value) => Some(Value::BytesValue(value.into())),
        ValueView::Array(values) => Some(Value::ArrayValue(ArrayValue {
            values: values.iter().map(view_value).collect(),
        })),
        ValueView::KvList(pairs) => Some(Value::KvlistValue(KeyValueList {
            values: view_attributes(pairs),
        })),
    };
    AnyValue { value }
}

fn view_attributes(attributes: Attributes<'_>) -> Vec<KeyValue> {
    let pairs = attributes.iter().map(|pair| {
        assert!(attributes.get(pair.key).is_some());
        KeyValue {
            key: pair.key.into(),
            value: Some(view_value(pair.value)),
            key_strindex: 0,
        }
    });
    pairs.collect()
}

fn view_resource(resource: ResourceView<'_>) -> Resource {
    Resource {
        attributes: view_attributes(resource.attributes),
        dropped_attributes_count: resource.dropped_attributes_count,
        entity_refs: Vec::new(),
    }
}

fn view_scope(scope: ScopeView<'_>) -> InstrumentationScope {
    InstrumentationScope {
        name: scope.name.into(),
        version: scope.version.into(),
        attributes: view_attributes(scope.attributes),
        dropped_attributes_count: scope.dropped_attributes_count,
    }
}

fn view_span(span: traces::Span<'_>) -> Span {
    Span {
        trace_id: span.trace_id.0.into(),
        span_id: span.span_id.0.into(),
        trace_state: span.trace_state.into(),
        parent_span_id: span.parent_span_id.map_or_else(Vec::new, |id| id.0.into()),
        flags: span.flags,
        name: span.name.into(),
        kind: span.kind,
        start_time_unix_nano: span.start_unix_nano,
        end_time_unix_nano: span.end_unix_nano,
        attributes: view_attributes(span.attributes),
        dropped_attributes_count: span.dropped_attributes_count,
        events: span
            .events
            .iter()
            .map(|event| Event {
                time_unix_nano: event.time_unix_nano,
                name: event.name.into(),
                attributes: view_attributes(event.attributes),
                dropped_attributes_count: event.dropped_attributes_count,
            })
            .collect(),
        dropped_events_count: span.dropped_events_count,
        links: span
            .links
            .iter()
            .map(|link| Link {
                trace_id: link.trace_id.map_or_else(Vec::new, |id| id.0.into()),
                span_id: link.span_id.map_or_else(Vec::new, |id| id.0.into()),
                trace_state: link.trace_state.into(),
                attributes: view_attributes(link.attributes),
                dropped_attributes_count: link.dropped_attributes_count,
                flags: link.flags,
            })
            .collect(),
        dropped_links_count: span.dropped_links_count,
        status: Some(Status {
            message: span.status_message.into(),
            code: span.status_code,
        }),
    }
}

fn view_log(log: logs::LogRecord<'_>) -> LogRecord {
    LogRecord {
        time_unix_nano: log.time_unix_nano,
        observed_time_unix_nano: log.observed_unix_nano,
        severity_number: log.severity_number,
        severity_text: log.severity_text.into(),
        body: Some(view_value(log.body)),
        attributes: view_attributes(log.attributes),
        dropped_attributes_count: log.dropped_attributes_count,
        flags: log.flags,
        trace_id: log.trace_id.map_or_else(Vec::new, |id| id.0.into()),
        span_id: log.span_id.map_or_else(Vec::new, |id| id.0.into()),
        event_name: log.event_name.into(),
    }
}

fn view_metric(metric: metrics::Metric<'_>) -> Metric {
    let data = match metric.data {
        DataView::None => None,
        DataView::Gauge { points } => Some(Data::Gauge(proto::Gauge {
            data_points: points.iter().map(view_number_point).collect(),
        })),
        DataView::Sum {
            points,
            temporality,
            is_monotonic,
        } => Some(Data::Sum(proto::Sum {
            data_points: points.iter().map(view_number_point).collect(),
            aggregation_temporality: temporality,
            is_monotonic,
        })),
        DataView::Histogram { points, temporality } => Some(Data::Histogram(proto::Histogram {
            data_points: points.iter().map(view_histogram_point).collect(),
            aggregation_temporality: temporality,
        })),
        DataView::ExponentialHistogram { points, temporality } => {
            Some(Data::ExponentialHistogram(proto::ExponentialHistogram {
                data_points: points.iter().map(view_exponential_point).collect(),
                aggregation_temporality: temporality,
            }))
        }
        DataView::Summary { points } => Some(Data::Summary(proto::Summary {
            data_points: points.iter().map(view_summary_point).collect(),
        })),
    };
    Metric {
        name: metric.name.into(),
        description: metric.description.into(),
        unit: metric.unit.into(),
        metadata: view_attributes(metric.metadata),
        data,
    }
}

fn view_number_point(point: metrics::NumberPoint<'_>) -> NumberDataPoint {
    NumberDataPoint {
        attributes: view_attributes(point.attributes),
        start_time_unix_nano: point.start_unix_nano,
        time_unix_nano: point.time_unix_nano,
        exemplars: point.exemplars.iter().map(view_exemplar).collect(),
        flags: point.flags,
        value: match point.value {
            Number::None => None,
            Number::Int(value) => Some(number_data_point::Value::AsInt(value)),
            Number::Double(value) => Some(number_data_point::Value::AsDouble(value)),
        },
    }
}

fn view_histogram_point(point: metrics::HistogramPoint<'_>) -> HistogramDataPoint {
    HistogramDataPoint {
        attributes: view_attributes(point.attributes),
        start_time_unix_nano: point.start_unix_nano,
        time_unix_nano: point.time_unix_nano,
        count: point.count,
        sum: point.sum,
        bucket_counts: point.bucket_counts.integers().collect(),
        explicit_bounds: point.explicit_bounds.doubles().collect(),
        exemplars: point.exemplars.iter().map(view_exemplar).collect(),
        flags: point.flags,
        min: point.min,
        max: point.max,
    }
}

fn view_exponential_point(point: metrics::ExponentialHistogramPoint<'_>) -> ExponentialHistogramDataPoint {
    let buckets = |buckets: metrics::Buckets<'_>| proto::exponential_histogram_data_point::Buckets {
        offset: buckets.offset,
        bucket_counts: buckets.bucket_counts.iter().collect(),
    };
    ExponentialHistogramDataPoint {
        attributes: view_attributes(point.attributes),
        start_time_unix_nano: point.start_unix_nano,
        time_unix_nano: point.time_unix_nano,
        count: point.count,
        sum: point.sum,
        scale: point.scale,
        zero_count: point.zero_count,
        positive: point.positive.map(buckets),
        negative: point.negative.map(buckets),
        flags: point.flags,
        exemplars: point.exemplars.iter().map(view_exemplar).collect(),
        min: point.min,
        max: point.max,
        zero_threshold: point.zero_threshold,
    }
}

fn view_summary_point(point: metrics::SummaryPoint<'_>) -> SummaryDataPoint {
    SummaryDataPoint {
        attributes: view_attributes(point.attributes),
        start_time_unix_nano: point.start_unix_nano,
        time_unix_nano: point.time_unix_nano,
        count: point.count,
        sum: point.sum,
        quantile_values: point
            .quantiles
            .iter()
            .map(|quantile| proto::summary_data_point::ValueAtQuantile {
                quantile: quantile.quantile,
                value: quantile.value,
            })
            .collect(),
        flags: point.flags,
    }
}

fn view_exemplar(exemplar: metrics::Exemplar<'_>) -> Exemplar {
    Exemplar {
        filtered_attributes: view_attributes(exemplar.filtered_attributes),
        time_unix_nano: exemplar.time_unix_nano,
        span_id: exemplar.span_id.map_or_else(Vec::new, |id| id.0.into()),
        trace_id: exemplar.trace_id.map_or_else(Vec::new, |id| id.0.into()),
        value: match exemplar.value {
            Number::None => None,
            Number::Int(value) => Some(exemplar::Value::AsInt(value)),
            Number::Double(value) => Some(exemplar::Value::AsDouble(value)),
        },
    }
}
