//! Writers of requests, the counterpart of `view`: whoever makes telemetry (a connector, a scraper, a receiver of another protocol) writes it here, straight
//! as encoded bytes in canonical form. Nothing is collected first, so that a request of many points costs its bytes and nothing else.
//!
//! ```
//! use model::write::{Metrics, NumberPoint, Temporality};
//! use model::view::metrics::Number;
//!
//! let mut metrics = Metrics::default();
//! metrics.resource(
//!     |attributes| attributes.text("service.name", "shop"),
//!     |resource| {
//!         resource.scope("orders", "1.0", |scope| {
//!             scope.sum("orders", "{order}", Temporality::Cumulative, true, |points| {
//!                 let point = NumberPoint { start_unix_nano: 1, time_unix_nano: 2, value: Number::Int(3) };
//!                 points.number(&point, &[], |attributes| attributes.text("kind", "book"));
//!             });
//!         });
//!     },
//! );
//! assert_eq!(metrics.points(), 1);
//! ```

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;

use crate::batch::{Batch, Encoding, Meta, Signal};
use crate::id::{SpanId, TraceId};
use crate::view::metrics::Number;
use crate::view::{self, AnyValue};
use crate::wire::{BYTES, Fields, VARINT, put_bytes, put_fixed64, put_message, put_tag, put_varint, varint_len};

/// The usual length of a message that holds others, in bytes: a guess from 128 to 16,383 reserves the two bytes that most of them need.
const USUAL_BYTES: usize = 1 << 10;

/// Appends a message that cannot fail.
fn message(out: &mut Vec<u8>, number: u32, expected_len: usize, body: impl FnOnce(&mut Vec<u8>)) {
    let written: Result<(), Infallible> = put_message(out, number, expected_len, |out| {
        body(out);
        Ok(())
    });
    let Ok(()) = written;
}

/// Writes the attributes of one owner. The caller vouches that no key is there twice.
pub struct Attributes<'o> {
    out: &'o mut Vec<u8>,
    number: u32,
}

impl<'o> Attributes<'o> {
    /// Attributes that are fields of this number, appended to `out`.
    pub fn new(out: &'o mut Vec<u8>, number: u32) -> Self {
        Attributes { out, number }
    }

    #[inline]
    pub fn text(&mut self, key: &str, value: &str) {
        let value_len = 1 + varint_len(value.len() as u64) + value.len();
        self.pair(key, value_len, |out| put_bytes(out, 1, value.as_bytes()));
    }

    pub fn bool(&mut self, key: &str, value: bool) {
        self.pair(key, 2, |out| {
            put_tag(out, 2, VARINT);
            put_varint(out, u64::from(value));
        });
    }

    pub fn int(&mut self, key: &str, value: i64) {
        self.pair(key, 1 + varint_len(value as u64), |out| {
            put_tag(out, 3, VARINT);
            put_varint(out, value as u64);
        });
    }

    pub fn double(&mut self, key: &str, value: f64) {
        self.pair(key, 9, |out| put_fixed64(out, 4, value.to_bits()));
    }

    /// A value as a view has it.
    pub fn value(&mut self, key: &str, value: AnyValue<'_>) {
        let nested = |number, bytes: &[u8]| (number, bytes.len());
        let (number, len) = match value {
            AnyValue::Str(text) => return self.text(key, text),
            AnyValue::Bool(value) => return self.bool(key, value),
            AnyValue::Int(value) => return self.int(key, value),
            AnyValue::Double(value) => return self.double(key, value),
            AnyValue::Empty => return self.pair(key, 0, |_| {}),
            AnyValue::Array(list) => nested(5, list.stretch()),
            AnyValue::KvList(list) => nested(6, list.stretch()),
            AnyValue::Bytes(bytes) => nested(7, bytes),
        };
        let value_len = 1 + varint_len(len as u64) + len;
        self.pair(key, value_len, |out| match value {
            AnyValue::Array(list) => put_bytes(out, number, list.stretch()),
            AnyValue::KvList(list) => put_bytes(out, number, list.stretch()),
            AnyValue::Bytes(bytes) => put_bytes(out, number, bytes),
            _ => {}
        });
    }

    /// Attributes that are encoded already, as fields of any one number: those of a view, or those that a writer has made before.
    pub fn copy(&mut self, encoded: &[u8]) {
        for (_, pair) in Fields::new(encoded) {
            put_bytes(self.out, self.number, pair.bytes());
        }
    }

    /// All attributes of a view.
    pub fn list(&mut self, attributes: &view::Attributes<'_>) {
        self.copy(attributes.stretch());
    }

    #[inline]
    fn pair(&mut self, key: &str, value_len: usize, value: impl FnOnce(&mut Vec<u8>)) {
        let key_len = 1 + varint_len(key.len() as u64) + key.len();
        let pair_len = key_len + 1 + varint_len(value_len as u64) + value_len;
        put_tag(self.out, self.number, BYTES);
        put_varint(self.out, pair_len as u64);
        put_bytes(self.out, 1, key.as_bytes());
        put_tag(self.out, 2, BYTES);
        put_varint(self.out, value_len as u64);
        value(self.out);
    }
}

/// What a point of a counter or histogram says: what happened since the last one, or since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Temporality {
    Delta = 1,
    Cumulative = 2,
}

/// A point of a gauge or a sum.
#[derive(Debug, Clone, Copy)]
pub struct NumberPoint {
    /// 0 where there is none, as for gauges.
    pub start_unix_nano: u64,
    pub time_unix_nano: u64,
    pub value: Number,
}

/// A point of a histogram with bounds that are said.
#[derive(Debug, Clone, Copy)]
pub struct HistogramPoint<'a> {
    pub start_unix_nano: u64,
    pub time_unix_nano: u64,
    pub count: u64,
    pub sum: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    /// Ascending upper bounds, each inside its bucket.
    pub bounds: &'a [f64],
    /// One more than `bounds`, or none if there are no buckets.
    pub counts: &'a [u64],
}

/// A point of a histogram whose bounds are powers of 2^(2^-scale).
#[derive(Debug, Clone, Copy)]
pub struct ExponentialPoint<'a> {
    pub start_unix_nano: u64,
    pub time_unix_nano: u64,
    pub count: u64,
    pub sum: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub scale: i32,
    pub zero_count: u64,
    pub zero_threshold: f64,
    /// The index of the first bucket, and the buckets; none if there are no values of this sign.
    pub positive: (i32, &'a [u64]),
    pub negative: (i32, &'a [u64]),
}

/// A point of a summary; quantiles (0 to 1) with their values.
#[derive(Debug, Clone, Copy)]
pub struct SummaryPoint<'a> {
    pub start_unix_nano: u64,
    pub time_unix_nano: u64,
    pub count: u64,
    pub sum: f64,
    pub quantiles: &'a [(f64, f64)],
}

/// One observation behind a point, with the trace that it was made in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exemplar {
    pub time_unix_nano: u64,
    pub value: f64,
    pub trace_id: Option<TraceId>,
    pub span_id: Option<SpanId>,
}

impl Exemplar {
    fn write(&self, out: &mut Vec<u8>, number: u32) {
        message(out, number, 46, |out| {
            put_fixed64(out, 2, self.time_unix_nano);
            put_fixed64(out, 3, self.value.to_bits());
            if let Some(id) = self.span_id {
                put_bytes(out, 4, &id.0);
            }
            if let Some(id) = self.trace_id {
                put_bytes(out, 5, &id.0);
            }
        });
    }
}

/// A request of metrics. Resources, scopes and metrics that turn out to have no points are not written.
#[derive(Debug, Default)]
pub struct Metrics {
    out: Vec<u8>,
    points: u32,
}

impl Metrics {
    /// Data points so far.
    pub fn points(&self) -> u32 {
        self.points
    }

    /// Bytes so far.
    pub fn len_bytes(&self) -> usize {
        self.out.len()
    }

    /// Begins a resource and writes what it has.
    pub fn resource(
        &mut self,
        attributes: impl FnOnce(&mut Attributes<'_>),
        scopes: impl FnOnce(&mut ResourceWriter<'_>),
    ) {
        let Metrics { out, points } = self;
        unless_empty(out, points, 1, |out, points| {
            message(out, 1, USUAL_BYTES, |out| attributes(&mut Attributes::new(out, 1)));
            scopes(&mut ResourceWriter { out, points });
        });
    }

    /// The request as a batch; `None` if there are no points in it.
    pub fn finish(self, meta: Arc<Meta>) -> Option<Batch> {
        (self.points > 0).then(|| Batch {
            signal: Signal::Metrics,
            encoding: Encoding::Otlp,
            payload: Bytes::from(self.out).into(),
            items: self.points,
            wire: None,
            meta,
        })
    }
}

/// Appends a message that is taken back if it brought no points.
fn unless_empty(out: &mut Vec<u8>, points: &mut u32, number: u32, body: impl FnOnce(&mut Vec<u8>, &mut u32)) {
    let before = *points;
    let written = put_message(out, number, USUAL_BYTES, |out| {
        body(out, points);
        match *points == before {
            true => Err(()),
            false => Ok(()),
        }
    });
    // What failed has taken itself back.
    let (Ok(()) | Err(())) = written;
}

/// Writes the scopes of a resource.
pub struct ResourceWriter<'o> {
    out: &'o mut Vec<u8>,
    points: &'o mut u32,
}

impl ResourceWriter<'_> {
    /// Begins a scope and writes what it has.
    pub fn scope(&mut self, name: &str, version: &str, metrics: impl FnOnce(&mut ScopeWriter<'_>)) {
        unless_empty(self.out, self.points, 2, |out, points| {
            message(out, 1, name.len() + version.len() + 4, |out| {
                for (number, text) in [(1, name), (2, version)] {
                    if !text.is_empty() {
                        put_bytes(out, number, text.as_bytes());
                    }
                }
            });
            metrics(&mut ScopeWriter { out, points });
        });
    }
}

/// Writes the metrics of a scope.
pub struct ScopeWriter<'o> {
    out: &'o mut Vec<u8>,
    points: &'o mut u32,
}

impl ScopeWriter<'_> {
    pub fn gauge(&mut self, name: &str, unit: &str, points: impl FnOnce(&mut Points<'_>)) {
        self.metric(name, unit, 5, points, |_| {});
    }

    pub fn sum(
        &mut self,
        name: &str,
        unit: &str,
        temporality: Temporality,
        is_monotonic: bool,
        points: impl FnOnce(&mut Points<'_>),
    ) {
        self.metric(name, unit, 7, points, |out| {
            put_temporality(out, temporality);
            if is_monotonic {
                put_tag(out, 3, VARINT);
                put_varint(out, 1);
            }
        });
    }

    pub fn histogram(
        &mut self,
        name: &str,
        unit: &str,
        temporality: Temporality,
        points: impl FnOnce(&mut Points<'_>),
    ) {
        self.metric(name, unit, 9, points, |out| put_temporality(out, temporality));
    }

    pub fn exponential_histogram(
        &mut self,
        name: &str,
        unit: &str,
        temporality: Temporality,
        points: impl FnOnce(&mut Points<'_>),
    ) {
        self.metric(name, unit, 10, points, |out| put_temporality(out, temporality));
    }

    pub fn summary(&mut self, name: &str, unit: &str, points: impl FnOnce(&mut Points<'_>)) {
        self.metric(name, unit, 11, points, |_| {});
    }

    fn metric(
        &mut self,
        name: &str,
        unit: &str,
        kind: u32,
        points: impl FnOnce(&mut Points<'_>),
        rest: impl FnOnce(&mut Vec<u8>),
    ) {
        unless_empty(self.out, self.points, 2, |out, count| {
            put_bytes(out, 1, name.as_bytes());
            if !unit.is_empty() {
                put_bytes(out, 3, unit.as_bytes());
            }
            message(out, kind, USUAL_BYTES, |out| {
                points(&mut Points { out, count });
                rest(out);
            });
        });
    }
}

fn put_temporality(out: &mut Vec<u8>, temporality: Temporality) {
    put_tag(out, 2, VARINT);
    put_varint(out, temporality as u64);
}

/// Writes the points of one metric. The caller chooses the kind of point that the metric has.
pub struct Points<'o> {
    out: &'o mut Vec<u8>,
    count: &'o mut u32,
}

impl Points<'_> {
    pub fn number(
        &mut self,
        point: &NumberPoint,
        exemplars: &[Exemplar],
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.point(|out| {
            attributes(&mut Attributes::new(out, 7));
            put_times(out, point.start_unix_nano, point.time_unix_nano);
            match point.value {
                Number::None => {}
                Number::Double(value) => put_fixed64(out, 4, value.to_bits()),
                Number::Int(value) => put_fixed64(out, 6, value as u64),
            }
            for exemplar in exemplars {
                exemplar.write(out, 5);
            }
        });
    }

    pub fn histogram(
        &mut self,
        point: &HistogramPoint<'_>,
        exemplars: &[Exemplar],
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.point(|out| {
            attributes(&mut Attributes::new(out, 9));
            put_times(out, point.start_unix_nano, point.time_unix_nano);
            put_fixed64(out, 4, point.count);
            for (number, value) in [(5, point.sum), (11, point.min), (12, point.max)] {
                if let Some(value) = value {
                    put_fixed64(out, number, value.to_bits());
                }
            }
            put_packed(out, 6, point.counts.iter().copied());
            put_packed(out, 7, point.bounds.iter().map(|bound| bound.to_bits()));
            for exemplar in exemplars {
                exemplar.write(out, 8);
            }
        });
    }

    pub fn exponential(
        &mut self,
        point: &ExponentialPoint<'_>,
        exemplars: &[Exemplar],
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.point(|out| {
            attributes(&mut Attributes::new(out, 1));
            put_times(out, point.start_unix_nano, point.time_unix_nano);
            put_fixed64(out, 4, point.count);
            put_tag(out, 6, VARINT);
            put_varint(out, zigzag(point.scale));
            put_fixed64(out, 7, point.zero_count);
            for (number, (offset, counts)) in [(8, point.positive), (9, point.negative)] {
                if !counts.is_empty() {
                    message(out, number, USUAL_BYTES, |out| put_buckets(out, offset, counts));
                }
            }
            for exemplar in exemplars {
                exemplar.write(out, 11);
            }
            for (number, value) in [(5, point.sum), (12, point.min), (13, point.max)] {
                if let Some(value) = value {
                    put_fixed64(out, number, value.to_bits());
                }
            }
            if point.zero_threshold != 0.0 {
                put_fixed64(out, 14, point.zero_threshold.to_bits());
            }
        });
    }

    pub fn summary(&mut self, point: &SummaryPoint<'_>, attributes: impl FnOnce(&mut Attributes<'_>)) {
        self.point(|out| {
            attributes(&mut Attributes::new(out, 7));
            put_times(out, point.start_unix_nano, point.time_unix_nano);
            put_fixed64(out, 4, point.count);
            put_fixed64(out, 5, point.sum.to_bits());
            for (quantile, value) in point.quantiles {
                message(out, 6, 18, |out| {
                    put_fixed64(out, 1, quantile.to_bits());
                    put_fixed64(out, 2, value.to_bits());
                });
            }
        });
    }

    fn point(&mut self, body: impl FnOnce(&mut Vec<u8>)) {
        message(self.out, 1, USUAL_BYTES, body);
        *self.count += 1;
    }
}

fn put_times(out: &mut Vec<u8>, start_unix_nano: u64, time_unix_nano: u64) {
    if start_unix_nano != 0 {
        put_fixed64(out, 2, start_unix_nano);
    }
    put_fixed64(out, 3, time_unix_nano);
}

fn put_packed(out: &mut Vec<u8>, number: u32, values: impl ExactSizeIterator<Item = u64>) {
    if values.len() == 0 {
        return;
    }
    put_tag(out, number, BYTES);
    put_varint(out, values.len() as u64 * 8);
    for value in values {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

fn put_buckets(out: &mut Vec<u8>, offset: i32, counts: &[u64]) {
    put_tag(out, 1, VARINT);
    put_varint(out, zigzag(offset));
    message(out, 2, counts.len() * 2, |out| {
        for count in counts {
            put_varint(out, *count);
        }
    });
}

/// An `sint32` as a varint holds it.
fn zigzag(value: i32) -> u64 {
    u64::from(((value << 1) ^ (value >> 31)) as u32)
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    use opentelemetry_proto::tonic::metrics::v1::{exemplar, number_data_point};
    use prost::Message;

    use super::*;
    use crate::canonical::canonicalize;
    use crate::view::List;

    fn meta() -> Arc<Meta> {
        Arc::new(Meta {
            received_at_unix_nano: 1,
            receiver: "spanmetrics".into(),
            peer: None,
            headers: Vec::new(),
            source_offset: None,
        })
    }

    /// One metric of each kind, in one scope.
    fn written() -> Metrics {
        let exemplar = Exemplar {
            time_unix_nano: 7,
            value: 1.5,
            trace_id: Some(TraceId([1; 16])),
            span_id: Some(SpanId([2; 8])),
        };
        let number = |value| NumberPoint {
            start_unix_nano: 5,
            time_unix_nano: 9,
            value,
        };
        let mut metrics = Metrics::default();
        metrics.resource(|_| {}, |resource| resource.scope("empty", "", |_| {}));
        metrics.resource(
            |attributes| attributes.text("service.name", "shop"),
            |resource| {
                resource.scope("orders", "1.0", |scope| {
                    scope.gauge("none", "", |_| {});
                    scope.gauge("load", "1", |points| {
                        points.number(&number(Number::Double(0.5)), &[], |_| {})
                    });
                    scope.sum("calls", "", Temporality::Cumulative, true, |points| {
                        points.number(&number(Number::Int(-3)), &[exemplar], |attributes| {
                            attributes.text("a", "b");
                            attributes.bool("yes", true);
                            attributes.int("int", -7);
                            attributes.double("double", 2.5);
                            attributes.value("nothing", AnyValue::Empty);
                            attributes.value("bytes", AnyValue::Bytes(&[1, 2]));
                            let mut list = Vec::new();
                            put_bytes(&mut list, 1, &[]);
                            attributes.value("array", AnyValue::Array(List::new(&list, 1)));
                            let mut copied = Vec::new();
                            Attributes::new(&mut copied, 9).text("copied", &"long".repeat(50));
                            attributes.copy(&copied);
                        });
                    });
                    scope.histogram("duration", "ms", Temporality::Delta, |points| {
                        let point = HistogramPoint {
                            start_unix_nano: 5,
                            time_unix_nano: 9,
                            count: 3,
                            sum: Some(4.5),
                            min: Some(1.0),
                            max: None,
                            bounds: &[1.0, 2.0],
                            counts: &[1, 2, 0],
                        };
                        points.histogram(&point, &[exemplar], |attributes| attributes.text("a", "b"));
                    });
                    scope.exponential_histogram("exponential", "s", Temporality::Cumulative, |points| {
                        let point = ExponentialPoint {
                            start_unix_nano: 5,
                            time_unix_nano: 9,
                            count: 300,
                            sum: Some(4.5),
                            min: None,
                            max: Some(9.0),
                            scale: -2,
                            zero_count: 1,
                            zero_threshold: 0.1,
                            positive: (-5, &[299, 0, 1]),
                            negative: (0, &[]),
                        };
                        points.exponential(&point, &[exemplar], |attributes| attributes.text("a", "b"));
                    });
                    scope.summary("summary", "s", |points| {
                        let point = SummaryPoint {
                            start_unix_nano: 0,
                            time_unix_nano: 9,
                            count: 3,
                            sum: 1.0,
                            quantiles: &[(0.5, 0.2), (0.99, 0.7)],
                        };
                        points.summary(&point, |attributes| attributes.text("a", "b"));
                    });
                });
            },
        );
        metrics
    }

    #[test]
    fn what_is_written_is_canonical_and_an_independent_decoder_reads_it() {
        let batch = written().finish(meta()).expect("points");
        assert_eq!(batch.items, 5);
        let canonical = canonicalize(Signal::Metrics, batch.payload.bytes()).expect("canonical");
        assert_eq!((canonical.rewritten, canonical.items), (false, 5));
        let request = ExportMetricsServiceRequest::decode(batch.payload.bytes()).expect("a request");
        assert_eq!(request.resource_metrics.len(), 1, "what has no points is not there");
        let scope = &request.resource_metrics[0].scope_metrics[0];
        let names: Vec<_> = scope.metrics.iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(names, ["load", "calls", "duration", "exponential", "summary"]);
        let Some(Data::Sum(sum)) = &scope.metrics[1].data else {
            panic!("a sum")
        };
        let point = &sum.data_points[0];
        assert_eq!((sum.aggregation_temporality, sum.is_monotonic), (2, true));
        assert_eq!(point.value, Some(number_data_point::Value::AsInt(-3)));
        let exemplar = &point.exemplars[0];
        assert_eq!(
            (exemplar.trace_id.clone(), exemplar.span_id.clone(), exemplar.value),
            (vec![1; 16], vec![2; 8], Some(exemplar::Value::AsDouble(1.5)))
        );
        let values: Vec<_> = point
            .attributes
            .iter()
            .map(|pair| (pair.key.as_str(), pair.value.clone().and_then(|value| value.value)))
            .collect();
        assert_eq!(values.len(), 8);
        assert_eq!(values[0], ("a", Some(Value::StringValue("b".into()))));
        assert_eq!(values[2], ("int", Some(Value::IntValue(-7))));
        assert_eq!(values[4], ("nothing", None));
        assert_eq!(values[7], ("copied", Some(Value::StringValue("long".repeat(50)))));
        let Some(Data::Histogram(histogram)) = &scope.metrics[2].data else {
            panic!("a histogram")
        };
        let point = &histogram.data_points[0];
        assert_eq!(
            (point.bucket_counts.clone(), point.explicit_bounds.clone()),
            (vec![1, 2, 0], vec![1.0, 2.0])
        );
        assert_eq!((point.sum, point.min, point.max), (Some(4.5), Some(1.0), None));
        let Some(Data::ExponentialHistogram(histogram)) = &scope.metrics[3].data else {
            panic!("an exponential histogram")
        };
        let point = &histogram.data_points[0];
        let positive = point.positive.clone().expect("buckets");
        assert_eq!(
            (point.scale, positive.offset, positive.bucket_counts),
            (-2, -5, vec![299, 0, 1])
        );
        assert_eq!((point.negative.clone(), point.zero_threshold), (None, 0.1));
        let Some(Data::Summary(summary)) = &scope.metrics[4].data else {
            panic!("a summary")
        };
        assert_eq!(summary.data_points[0].quantile_values[1].value, 0.7);
    }

    #[test]
    fn a_request_without_points_is_none() {
        let mut metrics = Metrics::default();
        metrics.resource(
            |attributes| attributes.text("service.name", "shop"),
            |resource| resource.scope("s", "", |scope| scope.gauge("g", "", |_| {})),
        );
        assert_eq!(metrics.len_bytes(), 0);
        assert!(metrics.finish(meta()).is_none());
    }
}
