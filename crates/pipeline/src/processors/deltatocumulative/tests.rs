//! Why: on all kinds of points the sums are those of a model that keeps every point and adds all of them up again.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Exemplar, Gauge, Metric, NumberDataPoint, Sum, Summary};
use proptest::prelude::*;

use super::*;
use crate::processors::streams::testing::*;
use crate::testing::pairs;

fn int(series: u8, start: u64, time: u64, value: i64) -> Plain {
    Plain {
        series,
        start,
        time,
        value: Of::Int(value),
    }
}

fn sums(settings: &str, batches: &[(u64, Vec<Plain>)]) -> (Vec<Plain>, Vec<(Reason, u64)>) {
    let mut stage = make(parse, settings)();
    let mut out = Vec::new();
    for (arrived_at, points) in batches {
        stage.take(batch(points, DELTA, *arrived_at), &mut out);
    }
    let points = out.iter().flat_map(|batch| plain(batch, CUMULATIVE)).collect();
    (
        points,
        stage.book().expect("has a book").drops(Signal::Metrics).occurred(),
    )
}

#[test]
fn points_are_added_up_by_stream() {
    let (points, dropped) = sums(
        "{}",
        &[(0, vec![int(1, 0, 1, 5), int(2, 0, 1, 7)]), (1, vec![int(1, 1, 2, 3)])],
    );
    assert_eq!(points, [int(1, 0, 1, 5), int(2, 0, 1, 7), int(1, 0, 2, 8)]);
    assert_eq!(dropped, []);
}

#[test]
fn what_is_not_later_or_begins_earlier_is_dropped() {
    let late = vec![int(1, 1, 2, 3), int(1, 1, 2, 3), int(1, 0, 9, 1), int(1, 2, 3, 1)];
    let (points, dropped) = sums("{}", &[(0, late)]);
    assert_eq!(points, [int(1, 1, 2, 3), int(1, 1, 3, 4)]);
    assert_eq!(dropped, [(Reason::OutOfOrder, 2)]);
}

#[test]
fn what_has_no_sum_begins_anew_and_can_be_remembered() {
    let double = |start, time, value| Plain {
        value: Of::Double(value),
        ..int(1, start, time, 0)
    };
    let mut stage = make(parse, "{}")();
    let mut out = Vec::new();
    for point in [
        double(0, 1, f64::INFINITY),
        double(1, 2, f64::NEG_INFINITY),
        double(2, 3, 1.0),
    ] {
        stage.take(batch(&[point], DELTA, 0), &mut out);
    }
    make(parse, "{}")().restore(&stage.state(false)).expect("reads");
    assert_eq!(plain(&out[1], CUMULATIVE), [double(1, 2, f64::NEG_INFINITY)]);
}

/// What version 1 remembers of one stream (`docs/format/stages.md`): what was written once is read for ever.
const REMEMBERED: &str = "0100002a36fe9c971700002a36fe9c97170a380a100f51ddcc59041f5a044cb4251b6932861100002a36fe9c97173a1b1100002a36fe9c97171900cac471fe9c9717310500000000000000";

#[test]
fn what_was_remembered_once_is_read_for_ever() {
    let mut stage = make(parse, "{}")();
    let mut out = Vec::new();
    stage.take(batch(&[int(1, 0, 1, 5)], DELTA, 0), &mut out);
    let State::Whole(state) = stage.state(true) else {
        panic!("all of it")
    };
    let hex: String = state.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, REMEMBERED);
    let mut again = make(parse, "{}")();
    again.restore(&State::Whole(state)).expect("reads");
    again.take(batch(&[int(1, 1, 2, 3)], DELTA, 1), &mut out);
    assert_eq!(plain(&out[1], CUMULATIVE), [int(1, 0, 2, 8)]);
}

#[test]
fn a_stream_that_is_silent_ends_and_new_ones_are_bounded() {
    let (points, _) = sums(
        "{ max_stale: 5m }",
        &[
            (0, vec![int(1, 0, 1, 5), int(2, 0, 1, 5)]),
            (300, vec![int(1, 1, 2, 5)]),
            (301, vec![int(2, 1, 2, 5)]),
        ],
    );
    assert_eq!(points[2..], [int(1, 0, 2, 10), int(2, 1, 2, 5)]);
    let three = vec![int(1, 0, 1, 1), int(2, 0, 1, 1), int(3, 0, 1, 1), int(1, 1, 2, 1)];
    let (points, dropped) = sums("{ max_streams: 2 }", &[(0, three)]);
    assert_eq!(points.len(), 3);
    assert_eq!(dropped, [(Reason::StreamLimit, 1)]);
}

#[test]
fn where_memory_is_short_new_streams_are_dropped_and_old_ones_go_on() {
    let root = Budget::root("process", 50_000);
    let mut stage = make(parse, "{}")();
    stage.start(&root);
    let mut out = Vec::new();
    let many = |time: u64| -> Vec<Metric> {
        let points = (0..2000u64).map(|series| NumberDataPoint {
            attributes: pairs(&[("series", &series.to_string())]),
            start_time_unix_nano: START,
            time_unix_nano: START + time,
            value: Some(opentelemetry_proto::tonic::metrics::v1::number_data_point::Value::AsInt(1)),
            ..NumberDataPoint::default()
        });
        vec![Metric {
            name: "many".into(),
            data: Some(Data::Sum(Sum {
                data_points: points.collect(),
                aggregation_temporality: 1,
                is_monotonic: true,
            })),
            ..Metric::default()
        }]
    };
    stage.take(of_metrics(many(1), 2000, 0), &mut out);
    stage.take(of_metrics(many(2), 2000, 1), &mut out);
    assert!(
        out[0].items < 2000 && out[1].items >= out[0].items,
        "{} {}",
        out[0].items,
        out[1].items
    );
    assert!(root.peak_bytes() < 150_000, "{}", root.peak_bytes());
    drop(stage);
    assert_eq!(root.used_bytes(), 0);
}

#[test]
fn all_else_goes_on_as_it_is() {
    let point = NumberDataPoint {
        attributes: pairs(&[("series", "1")]),
        time_unix_nano: START,
        value: Some(opentelemetry_proto::tonic::metrics::v1::number_data_point::Value::AsInt(4)),
        exemplars: vec![Exemplar::default()],
        flags: 0,
        ..NumberDataPoint::default()
    };
    let metric = |data| Metric {
        name: "m".into(),
        description: "what it is".into(),
        unit: "By".into(),
        data: Some(data),
        ..Metric::default()
    };
    let sum = |aggregation_temporality, points| {
        Data::Sum(Sum {
            data_points: points,
            aggregation_temporality,
            is_monotonic: false,
        })
    };
    let untouched = vec![
        metric(Data::Gauge(Gauge {
            data_points: vec![point.clone()],
        })),
        metric(sum(2, vec![point.clone()])),
        metric(Data::Summary(Summary::default())),
        Metric::default(),
    ];
    let mut stage = make(parse, "{}")();
    let mut out = Vec::new();
    let batch = of_metrics(untouched.clone(), 2, 0);
    stage.take(batch.clone(), &mut out);
    assert_eq!(out[0].payload, batch.payload);
    // Of what is turned, everything but the numbers stays; a metric goes with its last point.
    let stale = NumberDataPoint {
        flags: 1,
        ..point.clone()
    };
    let mut turned = of_metrics(
        vec![
            metric(sum(1, vec![point.clone(), stale.clone()])),
            metric(sum(1, vec![stale])),
        ],
        3,
        0,
    );
    stage.take(turned.clone(), &mut out);
    assert_eq!(metrics_of(&out[1]), [metric(sum(2, vec![point]))]);
    assert_eq!(out[1].items, 1);
    assert_eq!(
        stage.book().expect("has a book").drops(Signal::Metrics).occurred(),
        [(Reason::NoValue, 2)]
    );
    turned.signal = Signal::Logs;
    stage.take(turned, &mut out);
    assert_eq!(out.len(), 3);
}

#[test]
fn other_bounds_begin_a_histogram_anew() {
    let with = |bounds: Vec<f64>, start, time| {
        let mut metrics = metrics_of(&batch(
            &[Plain {
                series: 1,
                start,
                time,
                value: Of::Buckets([1, 1, 1, 1]),
            }],
            DELTA,
            0,
        ));
        if let Some(Data::Histogram(histogram)) = &mut metrics[0].data {
            histogram.data_points[0].explicit_bounds = bounds;
        }
        of_metrics(metrics, 1, 0)
    };
    let mut stage = make(parse, "{}")();
    let mut out = Vec::new();
    stage.take(with(BOUNDS.to_vec(), 0, 1), &mut out);
    stage.take(with(vec![1.0, 2.0, 3.0], 1, 2), &mut out);
    stage.take(with(vec![1.0, 2.0, 3.0], 2, 3), &mut out);
    let counts = out.iter().map(|batch| match metrics_of(batch)[0].data.clone() {
        Some(Data::Histogram(histogram)) => (
            histogram.data_points[0].count,
            (histogram.data_points[0].start_time_unix_nano - START) / SECOND,
        ),
        _ => panic!("a histogram"),
    });
    assert_eq!(counts.collect::<Vec<_>>(), [(4, 0), (4, 1), (8, 1)]);
}

/// The points that come out, by a model that adds all accepted points of a stream up again for each.
fn naive(batches: &[Vec<Plain>]) -> Vec<Plain> {
    let mut accepted: Vec<Plain> = Vec::new();
    let mut out = Vec::new();
    for point in batches.iter().flatten() {
        let of_stream = |other: &&Plain| other.series == point.series && other.value.is_of_kind(&point.value);
        let before: Vec<&Plain> = accepted.iter().filter(of_stream).collect();
        if before.iter().any(|other| point.time <= other.time)
            || before.first().is_some_and(|first| point.start < first.start)
        {
            continue;
        }
        accepted.push(point.clone());
        let all: Vec<&Plain> = accepted.iter().filter(of_stream).collect();
        let value = match &point.value {
            Of::Int(_) => Of::Int(
                all.iter()
                    .map(|point| match point.value {
                        Of::Int(value) => value,
                        _ => 0,
                    })
                    .sum(),
            ),
            Of::Double(_) => Of::Double(
                all.iter()
                    .map(|point| match point.value {
                        Of::Double(value) => value,
                        _ => 0.0,
                    })
                    .sum(),
            ),
            Of::Buckets(_) => {
                let mut sum = [0; 4];
                for point in &all {
                    if let Of::Buckets(counts) = point.value {
                        (0..4).for_each(|index| sum[index] += counts[index]);
                    }
                }
                Of::Buckets(sum)
            }
            Of::Exponential(..) => exponential_sum(&all),
        };
        out.push(Plain {
            start: all[0].start,
            value,
            ..point.clone()
        });
    }
    out
}

/// The finest scale that none of them is coarser than, and at which all of them lie within 160 buckets.
fn exponential_sum(points: &[&Plain]) -> Of {
    let each = || {
        points.iter().filter_map(|point| match &point.value {
            Of::Exponential(scale, zero, counts) => Some((*scale, *zero, counts)),
            _ => None,
        })
    };
    let at = |wanted: i32| {
        let mut sum = BTreeMap::new();
        for (scale, _, counts) in each() {
            for (index, count) in counts {
                *sum.entry(index >> (scale - wanted)).or_default() += count;
            }
        }
        sum
    };
    let mut scale = each().map(|(scale, _, _)| scale).min().expect("points");
    loop {
        let sum: BTreeMap<i32, u64> = at(scale);
        let (first, last) = (sum.keys().next(), sum.keys().next_back());
        // A single point stays as it came.
        if points.len() == 1 || first.zip(last).is_none_or(|(first, last)| last - first < 160) {
            return Of::Exponential(scale, each().map(|(_, zero, _)| zero).sum(), sum);
        }
        scale -= 1;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn sums_are_those_of_all_points(batches in deltas(true)) {
        let encoded: Vec<Batch> = batches.iter().map(|points| batch(points, DELTA, 0)).collect();
        let out = run(&make(parse, "{}"), &encoded, 3, &[]);
        let points: Vec<Plain> = out.iter().flat_map(|batch| plain(batch, CUMULATIVE)).collect();
        prop_assert_eq!(points, naive(&batches));
        for batch in &out {
            let canonical = model::canonical::canonicalize(Signal::Metrics, batch.payload.bytes()).expect("is legal");
            prop_assert!(!canonical.rewritten);
            prop_assert_eq!(canonical.items, batch.items);
        }
    }

    #[test]
    fn a_crash_counts_nothing_twice_and_leaves_nothing_out(
        batches in deltas(true),
        every in 1usize..5,
        ends in prop::collection::vec(1usize..40, 0..4),
    ) {
        let encoded: Vec<Batch> = batches.iter().map(|points| batch(points, DELTA, 0)).collect();
        let payloads = |ends: &[usize]| -> Vec<_> {
            let out = run(&make(parse, "{}"), &encoded, every, ends);
            out.into_iter().map(|batch| batch.payload).collect()
        };
        prop_assert_eq!(payloads(&[]), payloads(&ends));
    }

    #[test]
    fn no_claim_of_a_point_breaks_it(points in prop::collection::vec(hostile(), 1..6)) {
        let mut stage = make(parse, "{}")();
        let mut out = Vec::new();
        for point in points {
            stage.take(exponential(vec![point], DELTA), &mut out);
        }
        let state = stage.state(false);
        make(parse, "{}")().restore(&state).expect("its own memory reads");
    }

    #[test]
    fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..200), payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut stage = make(parse, "{}")();
        let _ = stage.restore(&State::Whole(bytes.clone().into()));
        let mut versioned = vec![0; 17];
        versioned[0] = 1;
        versioned.extend(bytes);
        let _ = stage.restore(&State::Change(versioned.into()));
        let mut out = Vec::new();
        stage.take(of_metrics(Vec::new(), 0, 0).edited(payload, 1), &mut out);
    }
}
