//! Remote write, read back by an independent decoder: what comes out is what OTLP's rules and Prometheus' say, in both versions the same.

mod proto;

use std::collections::{BTreeMap, BTreeSet};

use codec::prometheus::STALE_NAN;
use codec::prometheus::labels;
use codec::prometheus::naming::Strategy as Translation;
use codec::remote_write::{Encoded, Encoder, Options, Rejected, Version};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as NumberValue;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::prelude::*;
use prost::Message;

/// A request as 1.0 has it, whichever it was.
fn decode(version: Version, bytes: &[u8]) -> proto::WriteRequest {
    if version == Version::V1 {
        return proto::WriteRequest::decode(bytes).expect("1.0");
    }
    let request = proto::Request::decode(bytes).expect("2.0");
    assert_eq!(request.symbols[0], "", "the first symbol is the empty text");
    let unique: BTreeSet<&String> = request.symbols.iter().collect();
    assert_eq!(unique.len(), request.symbols.len(), "each symbol once");
    let labels = |refs: &[u32]| {
        let pairs = refs.chunks_exact(2);
        assert!(pairs.remainder().is_empty());
        pairs
            .map(|pair| proto::Label {
                name: request.symbols[pair[0] as usize].clone(),
                value: request.symbols[pair[1] as usize].clone(),
            })
            .collect()
    };
    let timeseries = request.timeseries.iter().map(|series| proto::TimeSeries {
        labels: labels(&series.labels_refs),
        samples: series.samples.clone(),
        exemplars: series
            .exemplars
            .iter()
            .map(|exemplar| proto::Exemplar {
                labels: labels(&exemplar.labels_refs),
                value: exemplar.value,
                timestamp: exemplar.timestamp,
            })
            .collect(),
        histograms: series.histograms.clone(),
    });
    proto::WriteRequest {
        timeseries: timeseries.collect(),
        metadata: Vec::new(),
    }
}

fn text_of(labels: &[proto::Label]) -> String {
    let labels: Vec<String> = labels
        .iter()
        .map(|label| format!("{}={:?}", label.name, label.value))
        .collect();
    labels.join(" ")
}

/// One line for each sample, histogram and exemplar.
fn lines(version: Version, encoded: &Encoded) -> Vec<String> {
    let mut lines = Vec::new();
    for request in &encoded.requests {
        for series in decode(version, &request.bytes).timeseries {
            let labels = text_of(&series.labels);
            for sample in &series.samples {
                let value = match sample.value.to_bits() == STALE_NAN.to_bits() {
                    true => "stale".to_owned(),
                    false => sample.value.to_string(),
                };
                lines.push(format!("{labels} {value} @{}", sample.timestamp));
            }
            for exemplar in &series.exemplars {
                lines.push(format!(
                    "{labels} # {} {} @{}",
                    text_of(&exemplar.labels),
                    exemplar.value,
                    exemplar.timestamp
                ));
            }
            for it in &series.histograms {
                let spans = |spans: &[proto::BucketSpan]| -> Vec<(i32, u32)> {
                    spans.iter().map(|span| (span.offset, span.length)).collect()
                };
                lines.push(format!(
                    "{labels} native {} sum {} schema {} zero {} -{:?}{:?} +{:?}{:?} @{}",
                    it.count_int,
                    it.sum,
                    it.schema,
                    it.zero_count_int,
                    spans(&it.negative_spans),
                    it.negative_deltas,
                    spans(&it.positive_spans),
                    it.positive_deltas,
                    it.timestamp
                ));
            }
        }
    }
    lines
}

const T: u64 = 1_700_000_000_000_000_000;

fn said(value: impl Into<String>) -> Option<AnyValue> {
    Some(AnyValue {
        value: Some(Value::StringValue(value.into())),
    })
}

fn pair(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: said(value),
        ..KeyValue::default()
    }
}

fn pairs(of: &[(&str, &str)]) -> Vec<KeyValue> {
    of.iter().map(|(key, value)| pair(key, value)).collect()
}

fn number(value: f64, attributes: &[(&str, &str)]) -> NumberDataPoint {
    NumberDataPoint {
        attributes: pairs(attributes),
        time_unix_nano: T,
        start_time_unix_nano: T - 60_000_000_000,
        value: Some(NumberValue::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

fn gauge(name: &str, unit: &str, data_points: Vec<NumberDataPoint>) -> Metric {
    Metric {
        name: name.into(),
        unit: unit.into(),
        data: Some(Data::Gauge(Gauge { data_points })),
        ..Metric::default()
    }
}

fn counter(name: &str, temporality: i32, data_points: Vec<NumberDataPoint>) -> Metric {
    let sum = Sum {
        data_points,
        aggregation_temporality: temporality,
        is_monotonic: true,
    };
    Metric {
        name: name.into(),
        data: Some(Data::Sum(sum)),
        ..Metric::default()
    }
}

fn request(resource: &[(&str, &str)], metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource {
                attributes: pairs(resource),
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

/// Encodes with both versions, which must say the same.
fn encode(options: &Options, request: &ExportMetricsServiceRequest) -> (Vec<String>, Rejected) {
    let payload = model::canonical::canonicalize(model::Signal::Metrics, request.encode_to_vec().into())
        .expect("canonical")
        .payload;
    let mut both = Vec::new();
    for version in [Version::V1, Version::V2] {
        let mut encoder = Encoder::new(Options {
            version,
            ..options.clone()
        });
        let encoded = encoder.encode(&payload);
        assert_eq!(
            encoder.encode(&payload),
            encoded,
            "nothing of one batch reaches the next"
        );
        both.push((lines(version, &encoded), encoded.rejected));
    }
    assert_eq!(both[0], both[1]);
    both.remove(0)
}

fn check(options: &Options, request: &ExportMetricsServiceRequest, expect: &[&str]) {
    let (lines, rejected) = encode(options, request);
    assert_eq!(lines, expect);
    assert_eq!(rejected, Rejected::default());
}

#[test]
fn gauges_and_counters() {
    let exemplar = Exemplar {
        trace_id: vec![0xab; 16],
        span_id: vec![0xcd; 8],
        time_unix_nano: T,
        filtered_attributes: pairs(&[("user.id", "u1")]),
        value: Some(exemplar::Value::AsInt(3)),
    };
    let count = NumberDataPoint {
        value: Some(NumberValue::AsInt(17)),
        exemplars: vec![exemplar],
        ..number(0.0, &[("status_code", "200"), ("Zone", "a")])
    };
    let metrics = vec![
        gauge("queue.length", "{item}", vec![number(2.5, &[])]),
        counter("request_count", 2, vec![count]),
    ];
    let request = request(
        &[
            ("service.name", "chat"),
            ("service.namespace", "ai"),
            ("service.instance.id", "i-1"),
        ],
        metrics,
    );
    let options = Options {
        created: true,
        ..Options::default()
    };
    check(
        &options,
        &request,
        &[
            r#"__name__="queue_length" instance="i-1" job="ai/chat" 2.5 @1700000000000"#,
            r#"Zone="a" __name__="request_count_total" instance="i-1" job="ai/chat" status_code="200" 17 @1700000000000"#,
            r#"Zone="a" __name__="request_count_total" instance="i-1" job="ai/chat" status_code="200" # span_id="cdcdcdcdcdcdcdcd" trace_id="abababababababababababababababab" user_id="u1" 3 @1700000000000"#,
            r#"Zone="a" __name__="request_count_created" instance="i-1" job="ai/chat" status_code="200" 1699999940 @1700000000000"#,
        ],
    );
}

#[test]
fn histograms_and_summaries() {
    let point = HistogramDataPoint {
        attributes: pairs(&[("le", "mine"), ("zone", "a")]),
        time_unix_nano: T,
        count: 6,
        sum: Some(7.25),
        bucket_counts: vec![1, 2, 3],
        explicit_bounds: vec![0.5, 1.0],
        exemplars: vec![Exemplar {
            trace_id: vec![1; 16],
            time_unix_nano: T,
            value: Some(exemplar::Value::AsDouble(0.7)),
            ..Exemplar::default()
        }],
        ..HistogramDataPoint::default()
    };
    let ended = HistogramDataPoint {
        flags: 1,
        time_unix_nano: T,
        explicit_bounds: vec![0.5],
        bucket_counts: vec![0, 0],
        ..HistogramDataPoint::default()
    };
    let quantile = |quantile, value| ValueAtQuantile { quantile, value };
    let summary = SummaryDataPoint {
        time_unix_nano: T,
        count: 3,
        sum: 4.5,
        quantile_values: vec![quantile(0.0, 1.0), quantile(0.99, 2.0)],
        ..SummaryDataPoint::default()
    };
    let histogram = Histogram {
        data_points: vec![point, ended],
        aggregation_temporality: 2,
    };
    let metrics = vec![
        Metric {
            name: "request.duration".into(),
            unit: "s".into(),
            data: Some(Data::Histogram(histogram)),
            ..Metric::default()
        },
        Metric {
            name: "s".into(),
            data: Some(Data::Summary(Summary {
                data_points: vec![summary],
            })),
            ..Metric::default()
        },
    ];
    check(
        &Options::default(),
        &request(&[], metrics),
        &[
            r#"__name__="request_duration_seconds_bucket" le="0.5" zone="a" 1 @1700000000000"#,
            r#"__name__="request_duration_seconds_bucket" le="1.0" zone="a" 3 @1700000000000"#,
            r#"__name__="request_duration_seconds_bucket" le="1.0" zone="a" # trace_id="01010101010101010101010101010101" 0.7 @1700000000000"#,
            r#"__name__="request_duration_seconds_bucket" le="+Inf" zone="a" 6 @1700000000000"#,
            r#"__name__="request_duration_seconds_sum" zone="a" 7.25 @1700000000000"#,
            r#"__name__="request_duration_seconds_count" zone="a" 6 @1700000000000"#,
            r#"__name__="request_duration_seconds_bucket" le="0.5" stale @1700000000000"#,
            r#"__name__="request_duration_seconds_bucket" le="+Inf" stale @1700000000000"#,
            r#"__name__="request_duration_seconds_count" stale @1700000000000"#,
            r#"__name__="s" quantile="0.0" 1 @1700000000000"#,
            r#"__name__="s" quantile="0.99" 2 @1700000000000"#,
            r#"__name__="s_sum" 4.5 @1700000000000"#,
            r#"__name__="s_count" 3 @1700000000000"#,
        ],
    );
}

#[test]
fn long_labels_of_many_buckets_are_not_written_for_each() {
    let large = "x".repeat(100_000);
    let point = |attributes: &[(&str, &str)]| HistogramDataPoint {
        attributes: pairs(attributes),
        time_unix_nano: T,
        bucket_counts: vec![1; 1_001],
        explicit_bounds: (0..1_000).map(f64::from).collect(),
        ..HistogramDataPoint::default()
    };
    let histogram = Data::Histogram(Histogram {
        data_points: vec![point(&[("large", &large)]), point(&[])],
        aggregation_temporality: 2,
    });
    let metric = Metric {
        name: "h".into(),
        data: Some(histogram),
        ..Metric::default()
    };
    let payload = request(&[], vec![metric]).encode_to_vec();
    let encoded = Encoder::new(Options::default()).encode(&payload);
    assert_eq!((encoded.rejected.too_large, encoded.rejected.total()), (1, 1));
    assert_eq!(encoded.requests.iter().map(|request| request.points).sum::<u32>(), 1);
}

/// Of a gauge's point one series is made, and the room of two was wanted.
#[test]
fn a_point_of_a_gauge_takes_the_room_of_one_series() {
    let points = (0..1_000).map(|n| number(1.0, &[("n", &n.to_string())]));
    let resource = [("large", &*"x".repeat(45_000))];
    let payload = request(&resource, vec![gauge("g", "", points.collect())]).encode_to_vec();
    let mut options = Options::default();
    options.labels.resource_attributes = true;
    let encoded = Encoder::new(options).encode(&payload);
    assert_eq!((encoded.rejected.total(), encoded.series.len()), (0, 1_000));
}

#[test]
fn a_histogram_may_have_as_many_exemplars_as_buckets() {
    let of = |value: f64| Exemplar {
        time_unix_nano: T,
        value: Some(exemplar::Value::AsDouble(value)),
        ..Exemplar::default()
    };
    let point = HistogramDataPoint {
        time_unix_nano: T,
        bucket_counts: vec![1; 3],
        explicit_bounds: vec![0.0, 1.0],
        exemplars: [-1.0, 0.0, 0.5, 1.0, 2.0, f64::INFINITY, f64::NAN].map(of).to_vec(),
        ..HistogramDataPoint::default()
    };
    let histogram = Data::Histogram(Histogram {
        data_points: vec![point],
        aggregation_temporality: 2,
    });
    let metric = Metric {
        name: "h".into(),
        data: Some(histogram),
        ..Metric::default()
    };
    let (lines, _) = encode(&Options::default(), &request(&[], vec![metric]));
    let of_bucket = |le: &str| {
        let bucket = format!("le=\"{le}\" #");
        lines.iter().filter(|line| line.contains(&bucket)).count()
    };
    assert_eq!(["0.0", "1.0", "+Inf"].map(of_bucket), [2, 2, 2], "{lines:?}");
}

#[test]
fn exponential_histograms() {
    let point = |scale, positive: (i32, Vec<u64>), negative: (i32, Vec<u64>)| ExponentialHistogramDataPoint {
        time_unix_nano: T,
        count: positive.1.iter().chain(&negative.1).sum::<u64>() + 2,
        sum: Some(10.0),
        zero_count: 2,
        scale,
        positive: Some(Buckets {
            offset: positive.0,
            bucket_counts: positive.1,
        }),
        negative: Some(Buckets {
            offset: negative.0,
            bucket_counts: negative.1,
        }),
        ..ExponentialHistogramDataPoint::default()
    };
    let metric = |name: &str, data_points| {
        let data = ExponentialHistogram {
            data_points,
            aggregation_temporality: 2,
        };
        Metric {
            name: name.into(),
            data: Some(Data::ExponentialHistogram(data)),
            ..Metric::default()
        }
    };
    let metrics = vec![
        metric("a", vec![point(3, (-2, vec![4, 0, 1, 0, 0, 0, 7]), (0, vec![1]))]),
        // Two buckets of scale 9 are one of 8.
        metric("b", vec![point(9, (-3, vec![1, 2, 3, 4]), (0, vec![]))]),
        metric("c", vec![point(-5, (0, vec![1]), (0, vec![]))]),
        metric(
            "d",
            vec![ExponentialHistogramDataPoint {
                flags: 1,
                ..point(0, (0, vec![1]), (0, vec![]))
            }],
        ),
        metric("e", vec![point(0, (i32::MAX, vec![1]), (0, vec![]))]),
    ];
    let (lines, rejected) = encode(&Options::default(), &request(&[], metrics));
    assert_eq!(
        lines,
        [
            r#"__name__="a" native 15 sum 10 schema 3 zero 2 -[(1, 1)][1] +[(-1, 3), (3, 1)][4, -4, 1, 6] @1700000000000"#,
            r#"__name__="b" native 12 sum 10 schema 8 zero 2 -[][] +[(-1, 3)][1, 4, -1] @1700000000000"#,
            r#"__name__="d" native 0 sum NaN schema 0 zero 0 -[][] +[][] @1700000000000"#,
        ]
    );
    assert_eq!(
        rejected,
        Rejected {
            scale: 2,
            ..Rejected::default()
        }
    );
}

#[test]
fn labels_of_resource_scope_point_and_configuration() {
    let point = NumberDataPoint {
        attributes: [
            pairs(&[
                ("a.b", "2"),
                ("a-b", "1"),
                ("job", "mine"),
                ("__name__", "evil"),
                ("empty", ""),
                ("env", "point"),
                ("région", "ü"),
            ]),
            vec![KeyValue {
                key: "list".into(),
                value: Some(AnyValue {
                    value: Some(Value::ArrayValue(ArrayValue {
                        values: vec![
                            said("x\"y").expect("some"),
                            AnyValue {
                                value: Some(Value::IntValue(-3)),
                            },
                        ],
                    })),
                }),
                ..KeyValue::default()
            }],
        ]
        .concat(),
        ..number(1.0, &[])
    };
    let mut request = request(
        &[("service.name", "s"), ("host.name", "h"), ("a_b", "3")],
        vec![gauge("g", "", vec![point])],
    );
    let scope = &mut request.resource_metrics[0].scope_metrics[0];
    scope.scope = Some(InstrumentationScope {
        name: "lib".into(),
        version: "1.2".into(),
        attributes: pairs(&[("0x", "y")]),
        ..InstrumentationScope::default()
    });
    scope.schema_url = "https://schema".into();
    let labels = labels::Options {
        external: vec![
            ("env".into(), "external".into()),
            ("project".into(), "p".into()),
            ("__replica__".into(), "r".into()),
        ],
        resource_attributes: true,
        scope: true,
        ..labels::Options::default()
    };
    let options = Options {
        labels: labels.clone(),
        target_info: true,
        namespace: "n".into(),
        ..Options::default()
    };
    check(
        &options,
        &request,
        &[
            concat!(
                r#"__name__="n_g" __replica__="r" a_b="1;2;3" env="point" host_name="h" job="s" key_name_="evil" list="[\"x\\\"y\",-3]" otel_scope_0x="y" "#,
                r#"otel_scope_name="lib" otel_scope_schema_url="https://schema" otel_scope_version="1.2" project="p" r_gion="ü" service_name="s" 1 @1700000000000"#
            ),
            r#"__name__="target_info" __replica__="r" a_b="3" env="external" host_name="h" job="s" project="p" 1 @1700000000000"#,
        ],
    );
    let plain = labels::Options {
        strategy: Translation::NoTranslation,
        ..labels::Options::default()
    };
    let (lines, _) = encode(
        &Options {
            labels: plain,
            ..Options::default()
        },
        &request,
    );
    assert_eq!(
        lines,
        [
            r#"__name__="g" a-b="1" a.b="2" env="point" job="s" key___name__="evil" list="[\"x\\\"y\",-3]" région="ü" 1 @1700000000000"#
        ]
    );
}

#[test]
fn one_series_has_its_samples_in_order_and_each_time_once() {
    let at = |value, seconds: u64| NumberDataPoint {
        time_unix_nano: T + seconds * 1_000_000_000,
        ..number(value, &[])
    };
    let metrics = vec![
        gauge("g", "", vec![at(3.0, 3), at(1.0, 1)]),
        gauge("g", "", vec![at(2.0, 2), at(3.0, 3), at(9.0, 1)]),
    ];
    let (lines, rejected) = encode(&Options::default(), &request(&[], metrics));
    assert_eq!(
        lines,
        [
            r#"__name__="g" 9 @1700000001000"#,
            r#"__name__="g" 2 @1700000002000"#,
            r#"__name__="g" 3 @1700000003000"#,
        ]
    );
    assert_eq!(
        rejected,
        Rejected {
            duplicate: 1,
            ..Rejected::default()
        }
    );
}

#[test]
fn what_prometheus_does_not_have_is_counted() {
    let nothing = NumberDataPoint {
        value: None,
        ..number(0.0, &[])
    };
    let ended = NumberDataPoint {
        flags: 1,
        ..nothing.clone()
    };
    let metrics = vec![
        counter("delta", 1, vec![number(1.0, &[]), number(2.0, &[("a", "b")])]),
        counter("unspecified", 0, vec![number(1.0, &[])]),
        gauge("nothing", "", vec![nothing]),
        gauge("ended", "", vec![ended]),
    ];
    let (lines, rejected) = encode(&Options::default(), &request(&[], metrics));
    assert_eq!(lines, [r#"__name__="ended" stale @1700000000000"#]);
    assert_eq!(
        rejected,
        Rejected {
            temporality: 3,
            no_value: 1,
            ..Rejected::default()
        }
    );
    assert!(
        rejected.message().contains("3 points of delta") && rejected.message().contains("1 points without a value")
    );
}

#[test]
fn a_series_has_the_same_number_in_every_batch() {
    let metric = |name: &str| gauge(name, "", vec![number(1.0, &[("a", "b")]), number(1.0, &[("a", "c")])]);
    for version in [Version::V1, Version::V2] {
        let mut encoder = Encoder::new(Options {
            version,
            ..Options::default()
        });
        let mut numbers = |metrics: Vec<Metric>| encoder.encode(&request(&[], metrics).encode_to_vec()).series;
        let alone = numbers(vec![metric("y")]);
        let behind = numbers(vec![metric("x"), metric("y")]);
        assert_eq!((alone.len(), behind.len()), (2, 4));
        assert_eq!(alone, behind[2..], "{version:?}");
        assert_eq!(behind.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    }
}

#[test]
fn metadata_is_told_once_in_each_request() {
    let metric = |name: &str| Metric {
        description: "help".into(),
        ..gauge(name, "By", vec![number(1.0, &[]), number(1.0, &[("a", "b")])])
    };
    let payload = request(&[], vec![metric("a"), metric("b"), metric("a")]).encode_to_vec();
    let encoded = Encoder::new(Options {
        metadata: true,
        ..Options::default()
    })
    .encode(&payload);
    let said: Vec<_> = decode(Version::V1, &encoded.requests[0].bytes)
        .metadata
        .into_iter()
        .map(|it| (it.kind, it.metric_family_name, it.help, it.unit))
        .collect();
    let of = |name: &str| (2, name.to_owned(), "help".to_owned(), "By".to_owned());
    assert_eq!(said, [of("a_bytes"), of("b_bytes")]);
    let encoded = Encoder::new(Options {
        version: Version::V2,
        ..Options::default()
    })
    .encode(&payload);
    let request = proto::Request::decode(encoded.requests[0].bytes.as_slice()).expect("2.0");
    for series in &request.timeseries {
        let metadata = series.metadata.as_ref().expect("always");
        let of = |at: u32| request.symbols[at as usize].as_str();
        assert_eq!(
            (metadata.kind, of(metadata.help_ref), of(metadata.unit_ref)),
            (2, "help", "By")
        );
    }
}

fn attribute() -> impl Strategy<Value = (String, String)> {
    ("[a-c._é]{0,3}", "[x-z]{0,2}")
}

fn any_metric() -> impl Strategy<Value = Metric> {
    let point = (
        proptest::collection::vec(attribute(), 0..4),
        0u64..4,
        any::<f64>(),
        0u32..8,
    );
    let name = prop_oneof!["[a-b]", "\\PC{0,4}"];
    (name, proptest::collection::vec(point, 0..5), 0..4, 0..3).prop_map(|(name, points, kind, temporality)| {
        let parts = |(attributes, at, value, flags): (Vec<(String, String)>, u64, f64, u32)| {
            let attributes = attributes
                .iter()
                .map(|(key, value)| pair(key, value))
                .collect::<Vec<_>>();
            (attributes, T + at * 1_000_000, value, u32::from(flags == 1))
        };
        let points = points.into_iter().map(parts);
        let numbers = |points: &mut dyn Iterator<Item = (Vec<KeyValue>, u64, f64, u32)>| {
            let number = |(attributes, time_unix_nano, value, flags)| NumberDataPoint {
                attributes,
                time_unix_nano,
                value: Some(NumberValue::AsDouble(value)),
                flags,
                ..NumberDataPoint::default()
            };
            points.map(number).collect()
        };
        let mut points = points;
        let data = match kind {
            0 => Data::Gauge(Gauge {
                data_points: numbers(&mut points),
            }),
            1 => Data::Sum(Sum {
                data_points: numbers(&mut points),
                aggregation_temporality: temporality,
                is_monotonic: true,
            }),
            2 => Data::Histogram(Histogram {
                data_points: points
                    .map(|(attributes, time_unix_nano, value, flags)| HistogramDataPoint {
                        attributes,
                        time_unix_nano,
                        flags,
                        bucket_counts: vec![1, u64::MAX, 3],
                        explicit_bounds: vec![value, f64::INFINITY],
                        ..HistogramDataPoint::default()
                    })
                    .collect(),
                aggregation_temporality: temporality,
            }),
            _ => Data::Summary(Summary {
                data_points: points
                    .map(|(attributes, time_unix_nano, value, flags)| SummaryDataPoint {
                        attributes,
                        time_unix_nano,
                        flags,
                        quantile_values: vec![ValueAtQuantile { quantile: value, value }],
                        ..SummaryDataPoint::default()
                    })
                    .collect(),
            }),
        };
        Metric {
            name,
            data: Some(data),
            ..Metric::default()
        }
    })
}

proptest! {
    /// Whatever comes, and however it is cut: each series is once in all requests of a batch, its labels are sorted, named and not empty, its samples in
    /// order; the cut changes nothing but where a series stands.
    #[test]
    fn requests_are_what_receivers_ask_for(metrics in proptest::collection::vec(any_metric(), 0..5), max in 1usize..400) {
        let request = request(&[("service.name", "s"), ("x.y", "z")], metrics);
        let payload = model::canonical::canonicalize(model::Signal::Metrics, request.encode_to_vec().into());
        prop_assume!(payload.is_ok());
        let canonical = payload.expect("just looked");
        let mut whole = Vec::new();
        for version in [Version::V1, Version::V2] {
            for max_request_bytes in [0, max] {
                let options = Options { version, target_info: true, max_request_bytes, ..Options::default() };
                let encoded = Encoder::new(options).encode(&canonical.payload);
                prop_assert!(max_request_bytes > 0 || encoded.requests.len() <= 1);
                let mut seen: BTreeMap<String, usize> = BTreeMap::new();
                for (at, request) in encoded.requests.iter().enumerate() {
                    let decoded = decode(version, &request.bytes);
                    prop_assert!(request.bytes.len() <= max || decoded.timeseries.len() == 1 || max_request_bytes == 0);
                    prop_assert_eq!(request.samples, decoded.timeseries.iter().map(|series| series.samples.len() as u64).sum::<u64>());
                    for series in decoded.timeseries {
                        prop_assert!(series.labels.windows(2).all(|two| two[0].name < two[1].name), "{:?}", series.labels);
                        prop_assert!(series.labels.iter().all(|label| !label.name.is_empty() && !label.value.is_empty()));
                        prop_assert!(series.samples.windows(2).all(|two| two[0].timestamp < two[1].timestamp));
                        prop_assert!(!series.samples.is_empty());
                        prop_assert_eq!(seen.insert(text_of(&series.labels), at), None);
                    }
                }
                let points = encoded.requests.iter().map(|request| request.points).sum::<u32>();
                prop_assert!(points + encoded.rejected.total() <= canonical.items);
                whole.push((lines(version, &encoded), encoded.rejected, points));
            }
        }
        prop_assert!(whole.iter().all(|it| *it == whole[0]), "{whole:?}");
    }

    /// What a point's neighbours have for attributes makes no difference to it.
    #[test]
    fn each_point_is_its_own(
        points in proptest::collection::vec(proptest::collection::vec((prop_oneof!["[a-c]", "[a-c._]{1,2}", "job|env|host_name"], "[x-z]{0,2}"), 0..4), 1..6),
        resource_attributes: bool,
    ) {
        let labels = labels::Options {
            external: vec![("env".into(), "e".into()), ("b".into(), "e".into())],
            resource_attributes,
            ..labels::Options::default()
        };
        let options = Options { labels, ..Options::default() };
        let metric = |at: usize, attributes: &[(String, String)]| {
            let attributes: Vec<(&str, &str)> = attributes.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            gauge(&format!("m{at}"), "", vec![number(at as f64, &attributes)])
        };
        let of = |metrics| request(&[("service.name", "s"), ("host.name", "h"), ("c", "r")], metrics);
        let canonical = |request: ExportMetricsServiceRequest| model::canonical::canonicalize(model::Signal::Metrics, request.encode_to_vec().into());
        let all: Vec<Metric> = points.iter().enumerate().map(|(at, attributes)| metric(at, attributes)).collect();
        let encode = |metrics: Vec<Metric>| canonical(of(metrics)).map(|it| lines(Version::V1, &Encoder::new(options.clone()).encode(&it.payload)));
        let Ok(together) = encode(all.clone()) else { return Ok(()) };
        let alone: Vec<String> = all.into_iter().flat_map(|metric| encode(vec![metric]).unwrap_or_default()).collect();
        prop_assert_eq!(together, alone);
    }

    /// Bytes that are no protobuf are read as far as they are.
    #[test]
    fn any_bytes(bytes: Vec<u8>) {
        for version in [Version::V1, Version::V2] {
            Encoder::new(Options { version, target_info: true, ..Options::default() }).encode(&bytes);
        }
    }
}
