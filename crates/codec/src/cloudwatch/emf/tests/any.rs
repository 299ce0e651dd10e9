//! Metrics of any kind with anything in them.

use proptest::prelude::*;

use super::*;

fn some_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-c]{0,2}",
        Just("_aws".to_owned()),
        Just("Version".to_owned()),
        ".{0,8}"
    ]
}

fn some_number() -> impl Strategy<Value = f64> {
    prop_oneof![-100.0..100.0f64, any::<f64>()]
}

fn some_labels() -> impl Strategy<Value = Vec<otlp::KeyValue>> {
    proptest::collection::btree_map(some_text(), some_text(), 0..4).prop_map(|labels| {
        let labels: Vec<(&str, &str)> = labels
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        pairs(&labels)
    })
}

/// A metric of any kind, with as many points as labels are given.
fn some_metric() -> impl Strategy<Value = metrics::Metric> {
    let points = proptest::collection::vec((some_labels(), some_number(), 0u64..4, any::<u64>(), 0u32..2), 0..4);
    let counts = proptest::collection::vec(any::<u64>(), 0..5);
    (
        some_text(),
        some_text(),
        points,
        0..5u8,
        0..3i32,
        any::<bool>(),
        counts,
        any::<i32>(),
    )
        .prop_map(
            |(name, unit, points, kind, aggregation_temporality, is_monotonic, counts, scale)| {
                let number = |(attributes, value, time, _, flags): (Vec<otlp::KeyValue>, f64, u64, u64, u32)| {
                    let value = Some(metrics::number_data_point::Value::AsDouble(value));
                    metrics::NumberDataPoint {
                        attributes,
                        time_unix_nano: time,
                        start_time_unix_nano: time / 2,
                        value,
                        flags,
                        ..Default::default()
                    }
                };
                let data = match kind {
                    0 => metrics::metric::Data::Gauge(metrics::Gauge {
                        data_points: points.into_iter().map(number).collect(),
                    }),
                    1 => metrics::metric::Data::Sum(metrics::Sum {
                        data_points: points.into_iter().map(number).collect(),
                        aggregation_temporality,
                        is_monotonic,
                    }),
                    2 => {
                        let point = |(attributes, value, time, count, flags)| metrics::HistogramDataPoint {
                            attributes,
                            time_unix_nano: time,
                            count,
                            sum: Some(value),
                            flags,
                            bucket_counts: counts.clone(),
                            explicit_bounds: (1..counts.len()).map(|at| at as f64).collect(),
                            min: is_monotonic.then_some(value),
                            ..Default::default()
                        };
                        metrics::metric::Data::Histogram(metrics::Histogram {
                            data_points: points.into_iter().map(point).collect(),
                            aggregation_temporality,
                        })
                    }
                    3 => {
                        let buckets = || {
                            Some(metrics::exponential_histogram_data_point::Buckets {
                                offset: scale,
                                bucket_counts: counts.clone(),
                            })
                        };
                        let point = |(attributes, value, time, count, flags)| metrics::ExponentialHistogramDataPoint {
                            attributes,
                            time_unix_nano: time,
                            count,
                            sum: Some(value),
                            flags,
                            scale,
                            zero_count: count,
                            positive: buckets(),
                            negative: buckets(),
                            ..Default::default()
                        };
                        metrics::metric::Data::ExponentialHistogram(metrics::ExponentialHistogram {
                            data_points: points.into_iter().map(point).collect(),
                            aggregation_temporality,
                        })
                    }
                    _ => {
                        let point = |(attributes, sum, time, count, flags)| metrics::SummaryDataPoint {
                            attributes,
                            time_unix_nano: time,
                            count,
                            sum,
                            flags,
                            quantile_values: vec![metrics::summary_data_point::ValueAtQuantile {
                                quantile: sum,
                                value: sum,
                            }],
                            ..Default::default()
                        };
                        metrics::metric::Data::Summary(metrics::Summary {
                            data_points: points.into_iter().map(point).collect(),
                        })
                    }
                };
                metric(&name, &unit, data)
            },
        )
}

proptest! {
    /// Whatever metrics come: events are JSON with members that are there once, and name dimensions and metrics that are among them; no point is counted twice.
    #[test]
    fn any_metrics_become_events_that_hold_together(
        resource in some_text(), scope in some_text(), metrics in proptest::collection::vec(some_metric(), 0..6), on in any::<[bool; 6]>(),
    ) {
        let options = Options {
            version: if on[0] { Version::V0 } else { Version::V1 },
            rollup: if on[1] { Rollup::ZeroAndSingle } else { Rollup::Single },
            resource_labels: on[2], retains_initial: on[3], is_detailed: on[4], json_labels: vec!["a".to_owned()],
            ..options()
        };
        let points: u32 = metrics.iter().map(count_points).sum();
        let payload = payload(&[("service.name", &resource), ("a", "1")], &scope, metrics);
        let out = Encoder::new(options).encode(&payload, T, if on[5] { "prometheus" } else { "otlp" });
        let rejected: u32 = out.rejected.iter().map(|(items, _)| *items).sum();
        let told: u32 = out.streams.iter().flat_map(crate::cloudwatch::puts).flat_map(|put| put.items).sum();
        prop_assert!(told + rejected <= points, "{told} and {rejected} of {points}");
        for (_, text) in out.streams.iter().flat_map(|stream| stream.events()) {
            let event: Json = serde_json::from_str(text).expect("JSON");
            let members = event.as_object().expect("an object");
            prop_assert_eq!(serde_json::from_str::<Once>(text).expect("members").0, members.len(), "{}", text);
            let directives = if on[0] { &event["CloudWatchMetrics"] } else { &event["_aws"]["CloudWatchMetrics"] };
            for directive in directives.as_array().expect("a list") {
                for name in directive["Dimensions"].as_array().expect("a list").iter().flat_map(|set| set.as_array().expect("a list")) {
                    prop_assert!(event[name.as_str().expect("a name")].is_string(), "{}", text);
                }
                for metric in directive["Metrics"].as_array().expect("a list") {
                    let value = &event[metric["Name"].as_str().expect("a name")];
                    prop_assert!(value.is_number() || value["Count"].is_number(), "{}", text);
                }
            }
        }
    }
}

fn count_points(metric: &metrics::Metric) -> u32 {
    let bytes = metric.encode_to_vec();
    let view: Metric<'_> = model::view::View::read(&bytes);
    points_of(&view.data)
}

/// How many members an object's text has, whether or not their names differ.
struct Once(usize);

impl<'de> serde::Deserialize<'de> for Once {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Once, D::Error> {
        struct Members;
        impl<'de> serde::de::Visitor<'de> for Members {
            type Value = Once;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Once, A::Error> {
                let mut count = 0;
                while map.next_entry::<String, serde::de::IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Once(count))
            }
        }
        deserializer.deserialize_map(Members)
    }
}
