//! Why: what is told is the difference to the point before, for each kind of point, each reset and each first point; there and back keeps all totals.

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use proptest::prelude::*;

use super::*;
use crate::processors::deltatocumulative;
use crate::processors::streams::testing::*;

fn int(series: u8, start: u64, time: u64, value: i64) -> Plain {
    Plain {
        series,
        start,
        time,
        value: Of::Int(value),
    }
}

fn differences(settings: &str, points: &[Plain]) -> (Vec<Plain>, Vec<(Reason, u64)>) {
    let mut stage = make(parse, settings)();
    let mut out = Vec::new();
    for point in points {
        stage.take(batch(std::slice::from_ref(point), CUMULATIVE, 10), &mut out);
    }
    let points = out.iter().flat_map(|batch| plain(batch, DELTA)).collect();
    (
        points,
        stage.book().expect("has a book").drops(Signal::Metrics).occurred(),
    )
}

#[test]
fn the_first_point_is_told_as_it_is_wanted() {
    // The first batch arrives at 10.
    for (settings, start, expect) in [
        ("{ initial_value: keep }", 1, true),
        ("{ initial_value: drop }", 11, false),
        ("{}", 9, false),
        ("{}", 11, true),
        ("{ initial_value: auto }", 20, false),
    ] {
        let (points, dropped) = differences(settings, &[int(1, start, 20, 5)]);
        let (first, reasons) = match expect {
            true => (vec![int(1, start, 20, 5)], vec![]),
            false => (vec![], vec![(Reason::FirstOfStream, 1)]),
        };
        assert_eq!((points, dropped), (first, reasons), "{settings} {start}");
    }
}

#[test]
fn what_is_told_is_the_difference_and_a_reset_begins_at_nothing() {
    let points = [
        int(1, 0, 10, 5),
        int(1, 0, 20, 9),
        // Too late.
        int(1, 0, 15, 7),
        int(1, 0, 20, 9),
        int(1, 0, 30, 9),
        // Less than before.
        int(1, 0, 40, 2),
        // More than before, but begun after it.
        int(1, 45, 50, 100),
        int(1, 45, 60, 101),
    ];
    let (told, dropped) = differences("{ initial_value: drop }", &points);
    assert_eq!(
        told,
        [
            int(1, 10, 20, 4),
            int(1, 20, 30, 0),
            int(1, 30, 40, 2),
            int(1, 45, 50, 100),
            int(1, 50, 60, 1)
        ]
    );
    assert_eq!(dropped, [(Reason::OutOfOrder, 2), (Reason::FirstOfStream, 1)]);
}

#[test]
fn only_what_is_chosen_is_turned() {
    let kept = |settings: &str, value: Of| {
        let point = Plain {
            series: 1,
            start: 0,
            time: 10,
            value,
        };
        let batch = batch(&[point], CUMULATIVE, 10);
        let mut out = Vec::new();
        make(parse, settings)().take(batch.clone(), &mut out);
        out.first().is_some_and(|out| out.payload == batch.payload)
    };
    let buckets = || Of::Buckets([1, 0, 0, 0]);
    for (settings, value, expect) in [
        ("{ include: { metrics: [int], match_type: strict } }", Of::Int(1), false),
        ("{ include: { metrics: [in], match_type: strict } }", Of::Int(1), true),
        (
            "{ include: { metrics: ['^i'], match_type: regexp } }",
            Of::Int(1),
            false,
        ),
        (
            "{ include: { metrics: ['^i'], match_type: regexp, regexp: { cacheenabled: true } } }",
            buckets(),
            true,
        ),
        ("{ exclude: { metrics: ['t$'], match_type: regexp } }", Of::Int(1), true),
        ("{ exclude: { metrics: ['t$'], match_type: regexp } }", buckets(), false),
        ("{ include: { metric_types: [histogram] } }", Of::Int(1), true),
        ("{ include: { metric_types: [histogram] } }", buckets(), false),
        (
            "{ exclude: { metric_types: [histogram, exponential_histogram] } }",
            buckets(),
            true,
        ),
        (
            "{ include: { metrics: [int], match_type: strict }, exclude: { metrics: [int], match_type: strict } }",
            Of::Int(1),
            true,
        ),
    ] {
        assert_eq!(kept(settings, value), expect, "{settings}");
    }
    // What may also fall is not turned.
    let mut metrics = metrics_of(&batch(&[int(1, 0, 1, 1)], CUMULATIVE, 0));
    if let Some(Data::Sum(sum)) = &mut metrics[0].data {
        sum.is_monotonic = false;
    }
    let falling = of_metrics(metrics, 1, 0);
    let mut out = Vec::new();
    make(parse, "{}")().take(falling.clone(), &mut out);
    assert_eq!(out[0].payload, falling.payload);
}

#[test]
fn mistakes_are_told() {
    for (settings, expect) in [
        ("{ include: { metrics: [a] } }", "`match_type` is needed with `metrics`"),
        (
            "{ include: { metrics: ['('], match_type: regexp } }",
            "is not a pattern",
        ),
        (
            "{ exclude: { metric_types: [histgram] } }",
            "`histgram` is no kind of metric",
        ),
        ("{ initial_value: always }", "always"),
        ("{ max_stalenes: 1h }", "did you mean `max_staleness`?"),
    ] {
        let problems = try_make(parse, settings)
            .err()
            .unwrap_or_else(|| panic!("{settings} is refused"));
        assert!(problems.to_string().contains(expect), "{settings}: {problems}");
    }
    make(parse, "{ max_stale: 1h }");
}

#[test]
fn exponential_histograms_are_compared_at_the_coarser_scale_and_finer_ones_are_not() {
    let of = |time, scale, counts: &[(i32, u64)]| Plain {
        series: 1,
        start: 0,
        time,
        value: Of::Exponential(scale, 1, counts.iter().copied().collect()),
    };
    let points = [
        of(1, 1, &[(0, 1), (1, 2), (2, 3)]),
        of(2, 0, &[(0, 4), (1, 3), (5, 1)]),
        of(3, 1, &[(0, 40), (1, 30)]),
        of(4, 1, &[(0, 41), (1, 30)]),
    ];
    let (told, dropped) = differences("{ initial_value: drop }", &points);
    let difference = |start, time, scale, counts: &[(i32, u64)]| Plain {
        start,
        value: Of::Exponential(scale, 0, counts.iter().copied().collect()),
        ..of(time, scale, &[])
    };
    assert_eq!(
        told,
        [difference(1, 2, 0, &[(0, 1), (5, 1)]), difference(3, 4, 1, &[(0, 1)])]
    );
    assert_eq!(dropped, [(Reason::FirstOfStream, 1), (Reason::Incompatible, 1)]);
}

/// The sum of all that a stream was said to have counted since.
fn totals(points: &[Plain]) -> Vec<(String, u64)> {
    let mut totals: Vec<(String, u64)> = Vec::new();
    for point in points {
        let (kind, count) = match &point.value {
            Of::Int(value) => ("int", *value as u64),
            Of::Double(value) => ("double", *value as u64),
            Of::Buckets(counts) => (
                "buckets",
                counts
                    .iter()
                    .enumerate()
                    .map(|(at, count)| count * 1000u64.pow(at as u32))
                    .sum(),
            ),
            Of::Exponential(_, zero, counts) => ("exponential", zero * 1_000_000 + counts.values().sum::<u64>()),
        };
        let stream = format!("{kind} {}", point.series);
        match totals.iter_mut().find(|(known, _)| *known == stream) {
            Some((_, total)) => *total += count,
            None => totals.push((stream, count)),
        }
    }
    totals.sort();
    totals
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn there_and_back_keeps_all_totals(batches in deltas(false), ends in prop::collection::vec(1usize..30, 0..3)) {
        let encoded: Vec<Batch> = batches.iter().map(|points| batch(points, DELTA, 0)).collect();
        let there = run(&make(deltatocumulative::parse, "{}"), &encoded, 2, &ends);
        let back = run(&make(parse, "{ initial_value: keep }"), &there, 3, &ends);
        let points: Vec<Plain> = back.iter().flat_map(|batch| plain(batch, DELTA)).collect();
        prop_assert_eq!(totals(&points), totals(&batches.concat()));
        for (told, said) in points.iter().zip(batches.concat()) {
            prop_assert_eq!((told.series, told.time), (said.series, said.time));
        }
    }

    /// Of numbers: what is told between two resets adds up to what the stream says itself.
    #[test]
    fn differences_add_up(values in prop::collection::vec(0i64..1000, 1..60)) {
        let points: Vec<Plain> = (1u64..).zip(&values).map(|(time, value)| int(1, 0, time, *value)).collect();
        let (told, _) = differences("{ initial_value: keep }", &points);
        let mut expect = vec![values[0]];
        expect.extend(values.windows(2).map(|pair| if pair[1] >= pair[0] { pair[1] - pair[0] } else { pair[1] }));
        let told: Vec<i64> = told.iter().map(|point| match point.value { Of::Int(value) => value, _ => -1 }).collect();
        prop_assert_eq!(told, expect);
    }

    #[test]
    fn no_claim_of_a_point_breaks_it(points in prop::collection::vec(hostile(), 1..6)) {
        let mut stage = make(parse, "{ initial_value: keep }")();
        let mut out = Vec::new();
        for point in points {
            stage.take(exponential(vec![point], CUMULATIVE), &mut out);
        }
        let state = stage.state(false);
        make(parse, "{}")().restore(&state).expect("its own memory reads");
    }
}
