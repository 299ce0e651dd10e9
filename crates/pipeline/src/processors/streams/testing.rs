//! Why: batches of points for the tests of what counts them, and what comes out of it, as an independent decoder reads it.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::config::{Config, Problems, Section, Source};
use crate::processors::Step;
use crate::stage::{MakeStage, Stage};
use crate::testing::{meta, metrics, pairs, with_meta};

pub const SECOND: u64 = 1_000_000_000;
pub const START: u64 = 1_700_000_000 * SECOND;
/// The bounds of all histograms.
pub const BOUNDS: [f64; 3] = [1.0, 5.0, 25.0];

pub fn try_make(parse: fn(&Section<'_>) -> Result<Step, Problems>, settings: &str) -> Result<MakeStage, Problems> {
    let text = format!("processors:\n  tested: {settings}\n");
    let config = Config::load(vec![Source::new("test.yaml", text)], &|_| None)?;
    match parse(&config.section(&config.processors[0]))? {
        Step::Stage(make) => Ok(make),
        Step::InRequest(_) | Step::Take(_) => panic!("it holds data"),
    }
}

pub fn make(parse: fn(&Section<'_>) -> Result<Step, Problems>, settings: &str) -> MakeStage {
    match try_make(parse, settings) {
        Ok(make) => make,
        Err(problems) => panic!("{problems}"),
    }
}

/// A point in plain numbers. Times are in seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Plain {
    /// What tells its stream from others of its kind.
    pub series: u8,
    pub start: u64,
    pub time: u64,
    pub value: Of,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Of {
    Int(i64),
    Double(f64),
    Buckets([u64; 4]),
    /// Scale, count at zero, and by index.
    Exponential(i32, u64, BTreeMap<i32, u64>),
}

impl Of {
    pub fn is_of_kind(&self, other: &Of) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    fn name(&self) -> &'static str {
        match self {
            Of::Int(_) => "int",
            Of::Double(_) => "double",
            Of::Buckets(_) => "buckets",
            Of::Exponential(..) => "exponential",
        }
    }
}

/// A batch with a metric for each point.
pub fn batch(points: &[Plain], temporality: u64, arrived_at: u64) -> Batch {
    let metric = |point: &Plain| {
        let series = point.series.to_string();
        let attributes = pairs(&[("path", "/"), ("series", &series)]);
        let (start_time_unix_nano, time_unix_nano) = (START + point.start * SECOND, START + point.time * SECOND);
        let aggregation_temporality = temporality as i32;
        let number = |value| {
            Data::Sum(Sum {
                data_points: vec![NumberDataPoint {
                    attributes: attributes.clone(),
                    start_time_unix_nano,
                    time_unix_nano,
                    value: Some(value),
                    ..NumberDataPoint::default()
                }],
                aggregation_temporality,
                is_monotonic: true,
            })
        };
        let data = match &point.value {
            Of::Int(value) => number(Number::AsInt(*value)),
            Of::Double(value) => number(Number::AsDouble(*value)),
            Of::Buckets(counts) => Data::Histogram(Histogram {
                data_points: vec![HistogramDataPoint {
                    attributes: attributes.clone(),
                    start_time_unix_nano,
                    time_unix_nano,
                    count: counts.iter().sum(),
                    sum: Some(counts.iter().sum::<u64>() as f64),
                    bucket_counts: counts.to_vec(),
                    explicit_bounds: BOUNDS.to_vec(),
                    ..HistogramDataPoint::default()
                }],
                aggregation_temporality,
            }),
            Of::Exponential(scale, zero_count, counts) => {
                let first = counts.keys().next().copied().unwrap_or_default();
                let last = counts.keys().next_back().copied().unwrap_or(first - 1);
                let bucket_counts = (first..=last).map(|index| counts.get(&index).copied().unwrap_or_default());
                let positive = opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets {
                    offset: first,
                    bucket_counts: bucket_counts.collect(),
                };
                Data::ExponentialHistogram(ExponentialHistogram {
                    data_points: vec![ExponentialHistogramDataPoint {
                        attributes: attributes.clone(),
                        start_time_unix_nano,
                        time_unix_nano,
                        count: zero_count + counts.values().sum::<u64>(),
                        scale: *scale,
                        zero_count: *zero_count,
                        positive: Some(positive),
                        ..ExponentialHistogramDataPoint::default()
                    }],
                    aggregation_temporality,
                })
            }
        };
        Metric {
            name: point.value.name().into(),
            data: Some(data),
            ..Metric::default()
        }
    };
    of_metrics(points.iter().map(metric).collect(), points.len() as u32, arrived_at)
}

pub fn of_metrics(list: Vec<Metric>, items: u32, arrived_at: u64) -> Batch {
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource {
                attributes: pairs(&[("service.name", "shop")]),
                ..Resource::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                metrics: list,
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    };
    let batch = metrics().edited(request.encode_to_vec(), items);
    let meta = model::Meta {
        received_at_unix_nano: START + arrived_at * SECOND,
        ..(*meta()).clone()
    };
    with_meta(&batch, meta)
}

pub fn metrics_of(batch: &Batch) -> Vec<Metric> {
    let request = ExportMetricsServiceRequest::decode(batch.payload.bytes()).expect("a request");
    let scopes = request
        .resource_metrics
        .into_iter()
        .flat_map(|resource| resource.scope_metrics);
    scopes.flat_map(|scope| scope.metrics).collect()
}

/// The points of what came out, all of which must have this temporality.
pub fn plain(batch: &Batch, temporality: u64) -> Vec<Plain> {
    let seconds = |nanos: u64| (nanos.saturating_sub(START)) / SECOND;
    let series = |attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue]| {
        let attributes = crate::testing::attributes_of(attributes);
        let series = attributes.iter().find(|(key, _)| key == "series").expect("is there");
        series.1.parse().expect("a number")
    };
    let mut points = Vec::new();
    let is_right = |found: i32| assert_eq!(found as u64, temporality);
    for metric in metrics_of(batch) {
        match metric.data.expect("data") {
            Data::Sum(sum) => {
                is_right(sum.aggregation_temporality);
                assert!(sum.is_monotonic);
                points.extend(sum.data_points.iter().map(|point| Plain {
                    series: series(&point.attributes),
                    start: seconds(point.start_time_unix_nano),
                    time: seconds(point.time_unix_nano),
                    value: match point.value.expect("a value") {
                        Number::AsInt(value) => Of::Int(value),
                        Number::AsDouble(value) => Of::Double(value),
                    },
                }));
            }
            Data::Histogram(histogram) => {
                is_right(histogram.aggregation_temporality);
                points.extend(histogram.data_points.iter().map(|point| {
                    let counts: [u64; 4] = point.bucket_counts.clone().try_into().expect("four buckets");
                    assert_eq!(point.explicit_bounds, BOUNDS);
                    assert_eq!(point.count, counts.iter().sum::<u64>());
                    assert_eq!(point.sum, Some(point.count as f64));
                    Plain {
                        series: series(&point.attributes),
                        start: seconds(point.start_time_unix_nano),
                        time: seconds(point.time_unix_nano),
                        value: Of::Buckets(counts),
                    }
                }));
            }
            Data::ExponentialHistogram(histogram) => {
                is_right(histogram.aggregation_temporality);
                points.extend(histogram.data_points.iter().map(|point| {
                    let positive = point.positive.clone().unwrap_or_default();
                    let counts = (positive.offset..).zip(positive.bucket_counts);
                    let counts: BTreeMap<i32, u64> = counts.filter(|(_, count)| *count > 0).collect();
                    assert_eq!(point.count, point.zero_count + counts.values().sum::<u64>());
                    Plain {
                        series: series(&point.attributes),
                        start: seconds(point.start_time_unix_nano),
                        time: seconds(point.time_unix_nano),
                        value: Of::Exponential(point.scale, point.zero_count, counts),
                    }
                }));
            }
            other => panic!("{other:?}"),
        }
    }
    points
}

/// Points of a few series, in batches, with what each took; some come too late.
pub fn deltas(with_late: bool) -> impl Strategy<Value = Vec<Vec<Plain>>> {
    let counts = prop::collection::btree_map(-300i32..300, 1u64..50, 0..6);
    let value = prop_oneof![
        (0i64..100).prop_map(Of::Int),
        (0u32..100).prop_map(|value| Of::Double(f64::from(value))),
        prop::array::uniform4(0u64..20).prop_map(Of::Buckets),
        (-2i32..3, 0u64..5, counts).prop_map(|(scale, zero, counts)| Of::Exponential(scale, zero, counts)),
    ];
    let late = if with_late { 0.15 } else { 0.0 };
    let point = (0u8..3, value, prop::bool::weighted(late), 1u64..20);
    prop::collection::vec(prop::collection::vec(point, 0..4), 1..25).prop_map(|batches| {
        let mut time = 100;
        let batch = |points: Vec<(u8, Of, bool, u64)>| {
            let points = points.into_iter().map(|(series, value, is_late, back)| {
                time += 1;
                let time = if is_late { time - back } else { time };
                Plain {
                    series,
                    start: time - 1,
                    time,
                    value,
                }
            });
            points.collect()
        };
        batches.into_iter().map(batch).collect()
    })
}

/// Runs a stage over batches. It ends after each of `ends` without a word and begins again from what it said last, which it says every few batches.
pub fn run(make: &MakeStage, batches: &[Batch], every: usize, ends: &[usize]) -> Vec<Batch> {
    let (mut states, mut committed): (Vec<State>, Vec<Batch>) = (Vec::new(), Vec::new());
    let (mut position, mut takes) = (0, 0);
    let mut ends = ends.to_vec();
    'process: loop {
        let mut stage: Box<dyn Stage> = make();
        states.iter().for_each(|state| stage.restore(state).expect("reads"));
        let mut pending = Vec::new();
        for (index, batch) in batches.iter().enumerate().skip(position) {
            stage.take(batch.clone(), &mut pending);
            takes += 1;
            if let Some(at) = ends.iter().position(|end| *end == takes) {
                ends.remove(at);
                continue 'process;
            }
            if takes % every == 0 {
                match stage.state(false) {
                    whole @ State::Whole(_) => states = vec![whole],
                    change @ State::Change(_) => states.push(change),
                }
                committed.append(&mut pending);
                position = index + 1;
            }
        }
        committed.append(&mut pending);
        return committed;
    }
}

/// Whatever an exponential histogram claims.
pub fn hostile() -> impl Strategy<Value = ExponentialHistogramDataPoint> {
    use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
    let offset = prop_oneof![Just(i32::MIN), Just(i32::MAX), Just(0), any::<i32>()];
    let count = || prop_oneof![Just(0), Just(1u64), Just(u64::MAX), any::<u64>()];
    let buckets = || {
        let offset = offset.clone();
        (offset, prop::collection::vec(count(), 0..5))
            .prop_map(|(offset, bucket_counts)| Buckets { offset, bucket_counts })
    };
    let number = || prop_oneof![Just(0.0), Just(1.0), Just(f64::NAN), Just(f64::INFINITY), any::<f64>()];
    let scale = prop_oneof![Just(i32::MIN), Just(i32::MAX), -20i32..20];
    let times = (0u64..5, 0u64..5);
    (times, scale, count(), count(), number(), number(), buckets(), buckets()).prop_map(
        |((start, time), scale, count, zero_count, zero_threshold, sum, positive, negative)| {
            ExponentialHistogramDataPoint {
                start_time_unix_nano: start,
                time_unix_nano: time,
                count,
                scale,
                zero_count,
                zero_threshold,
                sum: Some(sum),
                positive: Some(positive),
                negative: Some(negative),
                ..ExponentialHistogramDataPoint::default()
            }
        },
    )
}

pub fn exponential(points: Vec<ExponentialHistogramDataPoint>, temporality: u64) -> Batch {
    let items = points.len() as u32;
    let metric = Metric {
        name: "hostile".into(),
        data: Some(Data::ExponentialHistogram(ExponentialHistogram {
            data_points: points,
            aggregation_temporality: temporality as i32,
        })),
        ..Metric::default()
    };
    of_metrics(vec![metric], items, 0)
}
