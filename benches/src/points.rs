//! Metric points as services report them every few seconds: gauges, counters and histograms of a few hundred series per instance, about 200 bytes a
//! point.
//!
//! A series keeps its attributes and its start, counters only grow, and values move by small steps, as they do in production.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use crate::spans::{number, text};

const SERVICES: [&str; 4] = ["api-gateway", "workflow-agent", "workflow-engine", "workflow-scheduler"];
/// Replicas of each service.
const INSTANCES: usize = 3;
const METHODS: [&str; 4] = ["GET", "POST", "PUT", "DELETE"];
const STATUSES: [i64; 5] = [200, 201, 400, 404, 502];
const PEERS: [&str; 6] = [
    "db-primary.internal",
    "cache.internal",
    "llm.internal",
    "api.slack.com",
    "gmail.googleapis.com",
    "hooks.zapier.com",
];
/// The boundaries that the semantic conventions give durations, in seconds.
const BOUNDS_S: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];
/// Of ten points: one in a histogram, four gauges, the others counters.
const HISTOGRAMS_IN_TEN: usize = 1;
const GAUGES_IN_TEN: usize = 4;
/// Time between two reports of an instance.
const REPORT_EVERY_NS: u64 = 15_000_000_000;

struct Series {
    attributes: Vec<KeyValue>,
    total: u64,
    level: f64,
    sum: f64,
    buckets: Vec<u64>,
}

struct Instance {
    service: usize,
    replica: usize,
    start_ns: u64,
    now_ns: u64,
    series: Vec<Series>,
}

/// Produces export requests of one instance's report each.
pub struct PointSource {
    random: fastrand::Rng,
    instances: Vec<Instance>,
    next: usize,
}

impl PointSource {
    /// Reports of `points` points, the first at `start_ns`.
    pub fn new(seed: u64, start_ns: u64, points: usize) -> Self {
        let instances = (0..SERVICES.len() * INSTANCES).map(|at| Instance {
            service: at / INSTANCES,
            replica: at % INSTANCES,
            start_ns: start_ns - 3_600_000_000_000,
            now_ns: start_ns + at as u64 * 1_000_000_000,
            series: (0..points).map(Series::new).collect(),
        });
        Self {
            random: fastrand::Rng::with_seed(seed),
            instances: instances.collect(),
            next: 0,
        }
    }

    /// The next encoded request: all points of one instance.
    pub fn request(&mut self) -> Vec<u8> {
        let at = self.next;
        self.next = (at + 1) % self.instances.len();
        let Self { random, instances, .. } = self;
        let instance = &mut instances[at];
        instance.now_ns += REPORT_EVERY_NS;
        let mut metrics = vec![
            Metric {
                name: "http.server.request.duration".to_owned(),
                unit: "s".to_owned(),
                data: Some(Data::Histogram(Histogram {
                    data_points: Vec::new(),
                    aggregation_temporality: AggregationTemporality::Cumulative as i32,
                })),
                ..Metric::default()
            },
            metric("db.client.connection.count", "{connection}", gauge()),
            metric("workflow.queue.depth", "{item}", gauge()),
            metric("http.client.requests", "{request}", counter()),
            metric("http.server.requests", "{request}", counter()),
            metric("workflow.nodes.executed", "{node}", counter()),
        ];
        for (index, series) in instance.series.iter_mut().enumerate() {
            series.step(random);
            let kind = index % 10;
            let metric = if kind < HISTOGRAMS_IN_TEN {
                &mut metrics[0]
            } else if kind < HISTOGRAMS_IN_TEN + GAUGES_IN_TEN {
                &mut metrics[1 + kind % 2]
            } else {
                &mut metrics[3 + kind % 3]
            };
            match &mut metric.data {
                Some(Data::Histogram(histogram)) => histogram
                    .data_points
                    .push(series.histogram(instance.start_ns, instance.now_ns)),
                Some(Data::Gauge(gauge)) => gauge.data_points.push(series.number(
                    instance.start_ns,
                    instance.now_ns,
                    Value::AsDouble(series.level),
                )),
                Some(Data::Sum(sum)) => sum.data_points.push(series.number(
                    instance.start_ns,
                    instance.now_ns,
                    Value::AsInt(series.total as i64),
                )),
                _ => {}
            }
        }
        ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(Resource {
                    attributes: vec![
                        text("service.name", SERVICES[instance.service]),
                        text("service.version", "1.4.2"),
                        text(
                            "service.instance.id",
                            &format!("{}-{}", SERVICES[instance.service], instance.replica),
                        ),
                        text("deployment.environment", "prod"),
                    ],
                    ..Resource::default()
                }),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(InstrumentationScope {
                        name: "trackline-sdk".to_owned(),
                        ..InstrumentationScope::default()
                    }),
                    metrics,
                    ..ScopeMetrics::default()
                }],
                ..ResourceMetrics::default()
            }],
        }
        .encode_to_vec()
    }
}

fn metric(name: &str, unit: &str, data: Data) -> Metric {
    Metric {
        name: name.to_owned(),
        unit: unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

fn gauge() -> Data {
    Data::Gauge(Gauge::default())
}

fn counter() -> Data {
    Data::Sum(Sum {
        data_points: Vec::new(),
        aggregation_temporality: AggregationTemporality::Cumulative as i32,
        is_monotonic: true,
    })
}

impl Series {
    fn new(index: usize) -> Self {
        let route = format!(
            "/api/v1/{}/{{id}}",
            ["chat", "workflows", "sessions", "nodes"][index / 7 % 4]
        );
        Self {
            attributes: vec![
                text("http.request.method", METHODS[index / 3 % METHODS.len()]),
                text("http.route", &route),
                number("http.response.status_code", STATUSES[index / 11 % STATUSES.len()]),
                text("server.address", PEERS[index / 13 % PEERS.len()]),
                number("shard", index as i64),
            ],
            total: index as u64 * 1_000,
            level: index as f64,
            sum: 0.0,
            buckets: vec![0; BOUNDS_S.len() + 1],
        }
    }

    fn step(&mut self, random: &mut fastrand::Rng) {
        let calls = random.u64(0..40);
        self.total += calls;
        self.level = (self.level + random.f64() * 4.0 - 2.0).max(0.0);
        for _ in 0..calls.min(8) {
            let took = random.f64() * random.f64() * 2.0;
            self.sum += took;
            self.buckets[BOUNDS_S.partition_point(|bound| *bound < took)] += 1;
        }
    }

    fn number(&self, start_ns: u64, now_ns: u64, value: Value) -> NumberDataPoint {
        NumberDataPoint {
            attributes: self.attributes.clone(),
            start_time_unix_nano: start_ns,
            time_unix_nano: now_ns,
            value: Some(value),
            ..NumberDataPoint::default()
        }
    }

    fn histogram(&self, start_ns: u64, now_ns: u64) -> HistogramDataPoint {
        HistogramDataPoint {
            attributes: self.attributes.clone(),
            start_time_unix_nano: start_ns,
            time_unix_nano: now_ns,
            count: self.buckets.iter().sum(),
            sum: Some(self.sum),
            bucket_counts: self.buckets.clone(),
            explicit_bounds: BOUNDS_S.to_vec(),
            ..HistogramDataPoint::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_all_kinds_at_about_200_bytes_a_point() {
        let mut source = PointSource::new(1, 1_000_000_000_000_000, 1_000);
        let first = source.request();
        assert!(
            (170_000..240_000).contains(&first.len()),
            "{} bytes in a request",
            first.len()
        );
        let decoded = ExportMetricsServiceRequest::decode(first.as_slice()).expect("what was encoded decodes");
        let metrics = &decoded.resource_metrics[0].scope_metrics[0].metrics;
        let points: Vec<usize> = metrics
            .iter()
            .map(|metric| match &metric.data {
                Some(Data::Gauge(gauge)) => gauge.data_points.len(),
                Some(Data::Sum(sum)) => sum.data_points.len(),
                Some(Data::Histogram(histogram)) => histogram.data_points.len(),
                _ => 0,
            })
            .collect();
        assert_eq!((points.iter().sum::<usize>(), points[0]), (1_000, 100));
        assert!(points.iter().all(|points| *points > 0), "{points:?}");
    }

    #[test]
    fn counters_only_grow() {
        let mut source = PointSource::new(1, 1_000_000_000_000_000, 10);
        let total = |source: &mut PointSource| -> i64 {
            let request = ExportMetricsServiceRequest::decode(source.request().as_slice()).expect("decodes");
            for _ in 1..SERVICES.len() * INSTANCES {
                source.request();
            }
            let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
            let sums = metrics.iter().filter_map(|metric| match &metric.data {
                Some(Data::Sum(sum)) => Some(&sum.data_points),
                _ => None,
            });
            sums.flatten()
                .map(|point| match point.value {
                    Some(Value::AsInt(value)) => value,
                    _ => 0,
                })
                .sum()
        };
        let first = total(&mut source);
        assert!(total(&mut source) > first);
    }
}
