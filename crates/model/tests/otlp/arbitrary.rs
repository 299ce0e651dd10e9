//! Messages made from a string of bytes, so that proptest and the fuzzer can both drive and shrink them.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar,
    exponential_histogram_data_point::Buckets, metric::Data, number_data_point, summary_data_point::ValueAtQuantile,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

/// Stands in generated text for a byte that is not UTF-8; `scramble` puts it there.
pub const BAD_BYTE: char = '\u{1}';

/// Decisions read from bytes; all zeros once they are used up.
pub struct Source<'a>(pub &'a [u8]);

impl Source<'_> {
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    pub fn below(&mut self, bound: u8) -> u8 {
        self.byte() % bound
    }

    pub fn one_in(&mut self, bound: u8) -> bool {
        self.byte() % bound == bound - 1
    }

    pub fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => 0,
            1 => u64::from(self.byte()),
            2 => u64::MAX - u64::from(self.byte()),
            _ => u64::from_le_bytes([0; 8].map(|_: u8| self.byte())),
        }
    }

    fn double(&mut self) -> f64 {
        match self.below(3) {
            0 => f64::from(self.byte()) / 8.0,
            1 => f64::NAN,
            _ => f64::from_bits(self.number()),
        }
    }

    fn text(&mut self) -> String {
        const PIECES: [char; 8] = ['a', 'B', '0', '.', ' ', 'ß', '🦀', BAD_BYTE];
        let length = match self.below(8) {
            7 => 100,
            length => length,
        };
        (0..length).map(|_| PIECES[usize::from(self.below(8))]).collect()
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.byte()).collect()
    }

    fn many<T>(&mut self, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(4)).map(|_| make(self)).collect()
    }

    /// An id that is mostly valid, and sometimes absent, zero, too short or too long.
    fn id(&mut self, length: usize) -> Vec<u8> {
        match self.below(12) {
            8 => Vec::new(),
            9 => vec![0; length],
            10 => self.bytes(length - 1),
            11 => self.bytes(length + 1),
            _ => {
                let mut id = self.bytes(length);
                id[0] |= 1;
                id
            }
        }
    }

    fn attributes(&mut self, depth: u8) -> Vec<KeyValue> {
        // Now and then more keys than the walk compares one by one.
        let count = if depth == 0 && self.one_in(64) {
            90
        } else {
            self.below(5)
        };
        (0..count)
            .map(|index| KeyValue {
                key: match self.below(6) {
                    0 => self.text(),
                    1 => format!("{}.{index}", self.text()),
                    2 => format!("some.longer.key.{index}"),
                    _ => ["a", "b", "service.name"][usize::from(self.below(3))].into(),
                },
                value: (!self.one_in(12)).then(|| self.value(depth)),
                key_strindex: i32::from(self.one_in(16)),
            })
            .collect()
    }

    fn value(&mut self, depth: u8) -> AnyValue {
        let kinds = if depth < 3 { 9 } else { 6 };
        let value = match self.below(kinds) {
            0 => Some(Value::StringValue(self.text())),
            1 => Some(Value::BoolValue(self.one_in(2))),
            2 => Some(Value::IntValue(self.number() as i64)),
            3 => Some(Value::DoubleValue(self.double())),
            4 => Some(Value::BytesValue(self.bytes(3))),
            5 => None,
            6 => Some(Value::ArrayValue(ArrayValue {
                values: self.many(|source| source.value(depth + 1)),
            })),
            7 => Some(Value::KvlistValue(KeyValueList {
                values: self.attributes(depth + 1),
            })),
            _ => Some(Value::StringValueStrindex(self.number() as i32)),
        };
        AnyValue { value }
    }

    fn resource(&mut self) -> Option<Resource> {
        (!self.one_in(4)).then(|| Resource {
            attributes: self.attributes(0),
            dropped_attributes_count: self.number() as u32,
            entity_refs: self.many(|source| EntityRef {
                schema_url: source.text(),
                r#type: source.text(),
                id_keys: source.many(Self::text),
                description_keys: source.many(Self::text),
            }),
        })
    }

    fn scope(&mut self) -> Option<InstrumentationScope> {
        (!self.one_in(4)).then(|| InstrumentationScope {
            name: self.text(),
            version: self.text(),
            attributes: self.attributes(0),
            dropped_attributes_count: self.number() as u32,
        })
    }

    pub fn traces(&mut self) -> ExportTraceServiceRequest {
        let resource_spans = self.many(|source| ResourceSpans {
            resource: source.resource(),
            scope_spans: source.many(|source| ScopeSpans {
                scope: source.scope(),
                spans: source.many(Self::span),
                schema_url: source.text(),
            }),
            schema_url: source.text(),
        });
        ExportTraceServiceRequest { resource_spans }
    }

    fn span(&mut self) -> Span {
        Span {
            trace_id: self.id(16),
            span_id: self.id(8),
            trace_state: self.text(),
            parent_span_id: self.id(8),
            flags: self.number() as u32,
            name: self.text(),
            kind: self.number() as i32,
            start_time_unix_nano: self.number(),
            end_time_unix_nano: self.number(),
            attributes: self.attributes(0),
            dropped_attributes_count: self.number() as u32,
            events: self.many(|source| Event {
                time_unix_nano: source.number(),
                name: source.text(),
                attributes: source.attributes(1),
                dropped_attributes_count: source.number() as u32,
            }),
            dropped_events_count: self.number() as u32,
            links: self.many(|source| Link {
                trace_id: source.id(16),
                span_id: source.id(8),
                trace_state: source.text(),
                attributes: source.attributes(1),
                dropped_attributes_count: source.number() as u32,
                flags: source.number() as u32,
            }),
            dropped_links_count: self.number() as u32,
            status: self.one_in(2).then(|| Status {
                message: self.text(),
                code: self.number() as i32,
            }),
        }
    }

    pub fn logs(&mut self) -> ExportLogsServiceRequest {
        let resource_logs = self.many(|source| ResourceLogs {
            resource: source.resource(),
            scope_logs: source.many(|source| ScopeLogs {
                scope: source.scope(),
                log_records: source.many(Self::log_record),
                schema_url: source.text(),
            }),
            schema_url: source.text(),
        });
        ExportLogsServiceRequest { resource_logs }
    }

    fn log_record(&mut self) -> LogRecord {
        LogRecord {
            time_unix_nano: self.number(),
            observed_time_unix_nano: self.number(),
            severity_number: self.number() as i32,
            severity_text: self.text(),
            body: self.one_in(2).then(|| self.value(0)),
            attributes: self.attributes(0),
            dropped_attributes_count: self.number() as u32,
            flags: self.number() as u32,
            trace_id: self.id(16),
            span_id: self.id(8),
            event_name: self.text(),
        }
    }

    pub fn metrics(&mut self) -> ExportMetricsServiceRequest {
        let resource_metrics = self.many(|source| ResourceMetrics {
            resource: source.resource(),
            scope_metrics: source.many(|source| ScopeMetrics {
                scope: source.scope(),
                metrics: source.many(Self::metric),
                schema_url: source.text(),
            }),
            schema_url: source.text(),
        });
        ExportMetricsServiceRequest { resource_metrics }
    }

    fn metric(&mut self) -> Metric {
        let data = match self.below(6) {
            0 => None,
            1 => Some(Data::Gauge(Gauge {
                data_points: self.many(Self::number_point),
            })),
            2 => Some(Data::Sum(Sum {
                data_points: self.many(Self::number_point),
                aggregation_temporality: self.number() as i32,
                is_monotonic: self.one_in(2),
            })),
            3 => Some(Data::Histogram(Histogram {
                data_points: self.many(Self::histogram_point),
                aggregation_temporality: self.number() as i32,
            })),
            4 => Some(Data::ExponentialHistogram(ExponentialHistogram {
                data_points: self.many(Self::exponential_point),
                aggregation_temporality: self.number() as i32,
            })),
            _ => Some(Data::Summary(Summary {
                data_points: self.many(Self::summary_point),
            })),
        };
        Metric {
            name: self.text(),
            description: self.text(),
            unit: self.text(),
            metadata: self.attributes(1),
            data,
        }
    }

    fn number_point(&mut self) -> NumberDataPoint {
        NumberDataPoint {
            attributes: self.attributes(0),
            start_time_unix_nano: self.number(),
            time_unix_nano: self.number(),
            exemplars: self.many(Self::exemplar),
            flags: self.number() as u32,
            value: match self.below(3) {
                0 => None,
                1 => Some(number_data_point::Value::AsDouble(self.double())),
                _ => Some(number_data_point::Value::AsInt(self.number() as i64)),
            },
        }
    }

    fn histogram_point(&mut self) -> HistogramDataPoint {
        HistogramDataPoint {
            attributes: self.attributes(0),
            start_time_unix_nano: self.number(),
            time_unix_nano: self.number(),
            count: self.number(),
            sum: self.one_in(2).then(|| self.double()),
            bucket_counts: self.many(Self::number),
            explicit_bounds: self.many(Self::double),
            exemplars: self.many(Self::exemplar),
            flags: self.number() as u32,
            min: self.one_in(2).then(|| self.double()),
            max: self.one_in(2).then(|| self.double()),
        }
    }

    fn exponential_point(&mut self) -> ExponentialHistogramDataPoint {
        ExponentialHistogramDataPoint {
            attributes: self.attributes(0),
            start_time_unix_nano: self.number(),
            time_unix_nano: self.number(),
            count: self.number(),
            sum: self.one_in(2).then(|| self.double()),
            scale: self.number() as i32,
            zero_count: self.number(),
            positive: self.one_in(2).then(|| self.buckets()),
            negative: self.one_in(2).then(|| self.buckets()),
            flags: self.number() as u32,
            exemplars: self.many(Self::exemplar),
            min: self.one_in(2).then(|| self.double()),
            max: self.one_in(2).then(|| self.double()),
            zero_threshold: self.double(),
        }
    }

    fn buckets(&mut self) -> Buckets {
        Buckets {
            offset: self.number() as i32,
            bucket_counts: self.many(Self::number),
        }
    }

    fn summary_point(&mut self) -> SummaryDataPoint {
        SummaryDataPoint {
            attributes: self.attributes(0),
            start_time_unix_nano: self.number(),
            time_unix_nano: self.number(),
            count: self.number(),
            sum: self.double(),
            quantile_values: self.many(|source| ValueAtQuantile {
                quantile: source.double(),
                value: source.double(),
            }),
            flags: self.number() as u32,
        }
    }

    fn exemplar(&mut self) -> Exemplar {
        Exemplar {
            filtered_attributes: self.attributes(1),
            time_unix_nano: self.number(),
            span_id: self.id(8),
            trace_id: self.id(16),
            value: match self.below(3) {
                0 => None,
                1 => Some(exemplar::Value::AsDouble(self.double())),
                _ => Some(exemplar::Value::AsInt(self.number() as i64)),
            },
        }
    }
}
