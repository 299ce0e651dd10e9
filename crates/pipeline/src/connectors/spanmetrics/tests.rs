//! What the connector makes of spans, decoded by others, and beside a slow and obvious one over random streams and crashes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use bytes::Bytes;

use super::points::MAX_POINTS;
use super::*;
use crate::connectors::series::FREE_CHANGES_BYTES;
use crate::connectors::testing::{
    Point, Runner, SECOND, Spanned, arrived, points, spanned, stage, survives_damage, try_stage,
};
use crate::testing::meta;

const CALLS: &str = "traces.span.metrics.calls";
const DURATION: &str = "traces.span.metrics.duration";
const BUY: &str =
    "{service.name=shop}{service.name=shop,span.kind=SPAN_KIND_SERVER,span.name=buy,status.code=STATUS_CODE_UNSET}";

/// The points that come of spans with these settings, when the process stops in order a second later.
fn told(settings: &str, spans: &[Spanned]) -> BTreeMap<String, Point> {
    let mut stage = stage(parse, settings);
    let mut out = Vec::new();
    stage.take(arrived(spans, 0), &mut out);
    assert!(out.is_empty(), "nothing is due");
    stage.finish(crate::connectors::testing::T0 + SECOND, &mut out);
    points(&out)
}

/// The names of the points.
fn names(settings: &str, spans: &[Spanned]) -> Vec<String> {
    told(settings, spans).into_keys().collect()
}

#[test]
fn spans_are_counted_and_measured_as_the_collector_does_it() {
    let failed = Spanned {
        status: 2,
        took_ns: 20_000_000_000,
        ..spanned()
    };
    let told = told("{}", &[spanned(), spanned(), failed]);
    let failed = BUY.replace("UNSET", "ERROR");
    assert_eq!(
        told.keys().collect::<Vec<_>>(),
        [
            &format!("{CALLS}{failed}"),
            &format!("{CALLS}{BUY}"),
            &format!("{DURATION}{failed}"),
            &format!("{DURATION}{BUY}"),
        ]
    );
    let calls = &told[&format!("{CALLS}{BUY}")];
    assert_eq!(
        (calls.count, calls.start, calls.time, calls.temporality),
        (2, 0, SECOND, 2)
    );
    let duration = &told[&format!("{DURATION}{BUY}")];
    assert_eq!((duration.count, duration.sum, duration.temporality), (2, 6.0, 2));
    assert_eq!(duration.bounds[..3], [2.0, 4.0, 6.0]);
    assert_eq!((duration.buckets.len(), duration.buckets[1]), (17, 2));
    assert_eq!(told[&format!("{DURATION}{failed}")].buckets[16], 1);
}

#[test]
fn dimensions_are_of_the_span_then_of_the_resource_then_the_default() {
    let span = Spanned {
        resource: vec![("region", "here".into()), ("zone", "a".into())],
        attributes: vec![("region", "there".into())],
        scope: "http",
        ..spanned()
    };
    let settings = "{ dimensions: [{ name: region }, { name: zone }, { name: none }, { name: always, default: x }],
        exclude_dimensions: [span.kind, status.code, service.name], histogram: { disable: true }, namespace: '',
        include_instrumentation_scope: [http], add_resource_attributes: false }";
    let expect = "calls{}{always=x,region=there,span.instrumentation.scope.name=http,span.instrumentation.scope.version=1.0,span.name=buy,zone=a}";
    assert_eq!(names(settings, &[span]), [expect]);
}

#[test]
fn calls_and_durations_may_have_different_dimensions() {
    let span = Spanned {
        attributes: vec![("a", "1".into()), ("b", "2".into())],
        ..spanned()
    };
    let settings = "{ calls_dimensions: [{ name: a }], histogram: { dimensions: [{ name: b }], unit: s },
        exclude_dimensions: [span.kind, status.code, service.name], add_resource_attributes: false }";
    let told = told(settings, &[span.clone(), span]);
    assert_eq!(told[&format!("{CALLS}{{}}{{a=1,span.name=buy}}")].count, 2);
    let duration = &told[&format!("{DURATION}{{}}{{b=2,span.name=buy}}")];
    assert_eq!((duration.count, duration.sum, duration.bounds[0]), (2, 0.006, 0.002));
    assert_eq!(told.len(), 2);
}

#[test]
fn events_are_counted_by_their_attributes() {
    let span = Spanned {
        attributes: vec![("kind", "span".into())],
        events: vec![
            vec![("exception.type", "Timeout".into()), ("kind", "event".into())],
            vec![("exception.type", "Timeout".into())],
        ],
        ..spanned()
    };
    let settings = "{ events: { enabled: true, dimensions: [{ name: exception.type }, { name: kind }] },
        exclude_dimensions: [span.kind, status.code, service.name, span.name], add_resource_attributes: false, namespace: n, histogram: { disable: true } }";
    assert_eq!(
        names(settings, &[span]),
        [
            "n.calls{}{}",
            "n.events{}{exception.type=Timeout,kind=event}",
            "n.events{}{exception.type=Timeout,kind=span}"
        ]
    );
}

#[test]
fn an_exponential_histogram_and_one_with_bounds_of_its_own() {
    let told_exponential = told("{ histogram: { exponential: { max_size: 10 } } }", &[spanned()]);
    let point = &told_exponential[&format!("{DURATION}{BUY}")];
    assert_eq!((point.count, point.sum, &point.buckets[..]), (1, 3.0, &[1][..]));
    let told = told("{ histogram: { explicit: { buckets: [1ms, 3ms] } } }", &[spanned()]);
    assert_eq!(told[&format!("{DURATION}{BUY}")].buckets, [0, 1, 0]);
}

#[test]
fn exemplars_are_the_latest_of_their_bucket_and_of_one_interval() {
    let with = |id, took_ns| Spanned {
        id,
        took_ns,
        ..spanned()
    };
    let spans = [
        with(1, 3_000_000),
        with(2, 3_500_000),
        with(3, 1_000_000),
        with(4, 7_000_000),
    ];
    let settings = "{ exemplars: { enabled: true, max_per_data_point: 2 } }";
    let told = told(settings, &spans);
    for metric in [CALLS, DURATION] {
        assert_eq!(
            told[&format!("{metric}{BUY}")].exemplars,
            [(1, 2, 3.5), (1, 4, 7.0)],
            "{metric}"
        );
    }
    let mut stage = stage(parse, settings);
    let mut out = Vec::new();
    stage.take(arrived(&spans, 0), &mut out);
    stage.tick(crate::connectors::testing::T0 + 60 * SECOND, &mut out);
    stage.tick(crate::connectors::testing::T0 + 60 * SECOND, &mut out);
    let first = out.split_off(0);
    stage.tick(crate::connectors::testing::T0 + 120 * SECOND, &mut out);
    assert_eq!(points(&first)[&format!("{CALLS}{BUY}")].exemplars.len(), 2);
    assert_eq!(
        points(&out)[&format!("{CALLS}{BUY}")].exemplars.len(),
        0,
        "they were told"
    );
}

#[test]
fn without_exemplars_there_are_none() {
    assert!(
        told("{}", &[spanned()])
            .values()
            .all(|point| point.exemplars.is_empty())
    );
}

#[test]
fn a_resource_without_a_service_counts_and_a_span_that_ends_before_it_began_took_nothing() {
    let nameless = Spanned {
        service: "",
        ..spanned()
    };
    let told = told(
        "{ exclude_dimensions: [span.kind, status.code, span.name] }",
        &[nameless],
    );
    assert_eq!(told[&format!("{CALLS}{{}}{{service.name=unknown_service}}")].count, 1);
    let payload = {
        let mut request = crate::testing::traces(&arrived(&[spanned()], 0));
        request.resource_spans[0].scope_spans[0].spans[0].end_time_unix_nano = 1;
        prost::Message::encode_to_vec(&request)
    };
    let mut stage = stage(parse, "{}");
    let mut out = Vec::new();
    stage.take(arrived(&[], 0).edited(payload, 1), &mut out);
    stage.finish(crate::connectors::testing::T0, &mut out);
    assert_eq!(points(&out)[&format!("{DURATION}{BUY}")].sum, 0.0);
}

#[test]
fn deltas_begin_where_the_last_ended() {
    let make = || {
        stage(
            parse,
            "{ aggregation_temporality: AGGREGATION_TEMPORALITY_DELTA, metrics_flush_interval: 10s }",
        )
    };
    let mut runner = Runner::new(&make);
    let stream = [arrived(&[spanned()], 0), arrived(&[spanned(), spanned()], 15 * SECOND)];
    runner.take(&stream);
    runner.commit();
    let first = points(&runner.out)[&format!("{CALLS}{BUY}")].clone();
    assert_eq!(
        (first.start, first.time, first.count, first.temporality),
        (0, 15 * SECOND, 1, 1)
    );
    runner.out.clear();
    runner.crash();
    runner.tick(25 * SECOND);
    runner.tick(35 * SECOND);
    runner.commit();
    assert_eq!(runner.out.len(), 1, "what nothing happened to is not told");
    let second = &points(&runner.out)[&format!("{CALLS}{BUY}")];
    assert_eq!((second.start, second.time, second.count), (15 * SECOND, 25 * SECOND, 2));
}

#[test]
fn what_is_beyond_the_bound_is_counted_in_one_series() {
    let span = |at: usize| Spanned {
        name: format!("GET /{at}"),
        ..spanned()
    };
    let spans: Vec<Spanned> = (0..10).map(span).collect();
    let settings = "{ aggregation_cardinality_limit: 4, exclude_dimensions: [span.kind, status.code, service.name] }";
    let told = told(settings, &spans);
    let overflow = &told[&format!("{CALLS}{{}}{{otel.metric.overflow=BoolValue(true)}}")];
    assert_eq!((told.len(), overflow.count), (2 * 5, 6));
    assert_eq!(
        told[&format!("{DURATION}{{}}{{otel.metric.overflow=BoolValue(true)}}")].count,
        6
    );
    let total: u64 = told
        .iter()
        .filter(|(name, _)| name.starts_with(CALLS))
        .map(|(_, point)| point.count)
        .sum();
    assert_eq!(total, 10, "each span counts once");
}

#[test]
fn resources_are_bounded_too_and_told_apart_as_one_says() {
    let pod = |at: usize| Spanned {
        resource: vec![("pod", format!("{at}")), ("zone", "a".into())],
        ..spanned()
    };
    let pods: Vec<Spanned> = (0..5).map(pod).collect();
    let plain = "exclude_dimensions: [span.kind, status.code, span.name, service.name], histogram: { disable: true }";
    let told_bounded = told(&format!("{{ resource_metrics_cache_size: 2, {plain} }}"), &pods);
    let counts: Vec<(&str, u64)> = told_bounded
        .iter()
        .map(|(name, point)| (&name[CALLS.len()..], point.count))
        .collect();
    assert_eq!(
        counts,
        [
            ("{pod=0,service.name=shop,zone=a}{}", 1),
            ("{pod=1,service.name=shop,zone=a}{}", 1),
            ("{}{otel.metric.overflow=BoolValue(true)}", 3),
        ]
    );
    let told_by_zone = told(
        &format!("{{ resource_metrics_key_attributes: [zone], {plain} }}"),
        &pods,
    );
    let counts: Vec<(&str, u64)> = told_by_zone
        .iter()
        .map(|(name, point)| (&name[CALLS.len()..], point.count))
        .collect();
    assert_eq!(
        counts,
        [("{pod=0,service.name=shop,zone=a}{}", 5)],
        "with the attributes of the first"
    );
    let told_apart = told(&format!("{{ add_resource_attributes: false, {plain} }}"), &pods);
    assert_eq!(told_apart[&format!("{CALLS}{{}}{{}}")].count, 5);
}

#[test]
fn hostile_texts_are_cut() {
    let span = Spanned {
        name: "ä".repeat(100_000),
        resource: vec![("long", "x".repeat(1 << 20)), ("short", "y".into())],
        ..spanned()
    };
    let told = told(
        "{ exclude_dimensions: [span.kind, status.code, service.name] }",
        &[span],
    );
    let expect = format!("{CALLS}{{service.name=shop,short=y}}{{span.name={}}}", "ä".repeat(512));
    assert_eq!(told[&expect].count, 1);
}

#[test]
fn series_expire_alone_or_with_their_resource() {
    let other = Spanned {
        name: "sell".into(),
        ..spanned()
    };
    let run = |settings: &str| {
        let make = || stage(parse, settings);
        let mut runner = Runner::new(&make);
        runner.take(&[
            arrived(&[spanned(), other.clone()], 0),
            arrived(&[spanned()], 50 * SECOND),
        ]);
        runner.commit();
        runner.crash();
        for tick in [60, 90, 120, 200] {
            runner.out.clear();
            runner.tick(tick * SECOND);
            runner.commit();
            if tick == 120 {
                break;
            }
        }
        let names = points(&runner.out)
            .into_keys()
            .filter(|name| name.starts_with(CALLS))
            .count();
        runner.out.clear();
        runner.tick(200 * SECOND);
        runner.commit();
        (names, runner.out.len())
    };
    assert_eq!(run("{}"), (2, 1));
    assert_eq!(run("{ series_expiration: 100s }"), (1, 0));
    assert_eq!(run("{ metrics_expiration: 100s }"), (2, 0));
}

#[test]
fn a_forgotten_series_begins_anew() {
    let make = || stage(parse, "{ metrics_expiration: 1m }");
    let mut runner = Runner::new(&make);
    let stream = [arrived(&[spanned()], 0), arrived(&[spanned()], 600 * SECOND)];
    runner.take(&stream);
    runner.commit();
    runner.tick(660 * SECOND);
    runner.commit();
    let point = &points(&runner.out)[&format!("{CALLS}{BUY}")];
    assert_eq!((point.count, point.start, point.time), (1, 600 * SECOND, 660 * SECOND));
}

#[test]
fn at_the_bound_what_is_idle_makes_room() {
    let span = |at: usize| Spanned {
        name: format!("{at}"),
        ..spanned()
    };
    let make = || stage(parse, "{ aggregation_cardinality_limit: 2 }");
    let mut runner = Runner::new(&make);
    runner.take(&[
        arrived(&[span(1), span(2)], 0),
        arrived(&[span(1)], 3590 * SECOND),
        arrived(&[span(3)], 3700 * SECOND),
    ]);
    runner.finish(3701 * SECOND);
    let last = points(&runner.out[runner.out.len() - 1..]);
    let calls: Vec<_> = last.keys().filter(|name| name.starts_with(CALLS)).collect();
    assert!(calls.iter().any(|name| name.contains("span.name=3")), "{calls:?}");
    assert!(!calls.iter().any(|name| name.contains("span.name=2")), "{calls:?}");
}

#[test]
fn large_outputs_are_several_batches() {
    let spans: Vec<Spanned> = (0..5_000)
        .map(|at| Spanned {
            name: format!("{at}"),
            ..spanned()
        })
        .collect();
    let mut stage = stage(parse, "{ aggregation_cardinality_limit: 5000 }");
    let mut out = Vec::new();
    stage.take(arrived(&spans, 0), &mut out);
    stage.finish(crate::connectors::testing::T0 + 1, &mut out);
    assert!(
        out.len() > 1 && out.iter().all(|batch| batch.items <= 2 * MAX_POINTS),
        "{out:?}"
    );
    assert_eq!(points(&out).len(), 10_000);
}

#[test]
fn a_state_tells_what_changed_and_from_time_to_time_all() {
    let span = |at: usize| Spanned {
        name: format!("{at}"),
        ..spanned()
    };
    let spans: Vec<Spanned> = (0..500).map(span).collect();
    let mut stage = stage(parse, "{}");
    stage.take(arrived(&spans, 0), &mut Vec::new());
    let State::Whole(whole) = stage.state(false) else {
        panic!("the first is whole")
    };
    let (mut changes, mut since) = (0, 0);
    loop {
        stage.take(arrived(&spans[..10], 1), &mut Vec::new());
        match stage.state(false) {
            State::Change(change) => {
                assert!(change.len() * 20 < whole.len(), "{} of {}", change.len(), whole.len());
                changes += 1;
                since += change.len();
            }
            State::Whole(again) => {
                assert!(again.len() < whole.len() + 1000);
                break;
            }
        }
    }
    assert!(
        changes > 50 && since <= 2 * whole.len() + FREE_CHANGES_BYTES,
        "{changes} changes of {since} bytes"
    );
}

#[test]
fn a_state_of_other_settings_or_of_nothing_is_refused() {
    let mut before = stage(parse, "{}");
    before.take(arrived(&[spanned()], 0), &mut Vec::new());
    let state = before.state(false);
    for other in [
        "{ dimensions: [{ name: a }] }",
        "{ histogram: { unit: s } }",
        "{ aggregation_temporality: delta }",
    ] {
        let error = stage(parse, other).restore(&state).expect_err(other);
        assert!(error.to_string().contains("not those of before"), "{error}");
    }
    for same in ["{ metrics_flush_interval: 5s }", "{ aggregation_cardinality_limit: 7 }"] {
        stage(parse, same).restore(&state).expect(same);
    }
    let mut stage = stage(parse, "{}");
    for bad in [&[][..], &[9], &[1, 0x3a, 2, 0x10, 5], &[1, 0x7a, 0]] {
        let bad = State::Whole(Bytes::copy_from_slice(bad));
        assert!(stage.restore(&bad).is_err(), "{bad:?}");
    }
    let mut out = Vec::new();
    stage.take(arrived(&[spanned()], 0), &mut out);
    stage.finish(crate::connectors::testing::T0, &mut out);
    assert_eq!(points(&out)[&format!("{CALLS}{BUY}")].count, 1, "it works all the same");
}

#[test]
fn memory_is_of_the_budget_and_a_budget_that_is_spent_is_a_bound() {
    let budget = Budget::root("process", 2_000);
    let mut stage = stage(parse, "{}");
    stage.start(&budget);
    let spans: Vec<Spanned> = (0..20)
        .map(|at| Spanned {
            name: format!("{at}"),
            ..spanned()
        })
        .collect();
    let mut out = Vec::new();
    stage.take(arrived(&spans, 0), &mut out);
    assert!((1..=2_000).contains(&budget.used_bytes()), "{}", budget.used_bytes());
    stage.finish(crate::connectors::testing::T0, &mut out);
    let told = points(&out);
    let total: u64 = told
        .iter()
        .filter(|(name, _)| name.starts_with(CALLS))
        .map(|(_, point)| point.count)
        .sum();
    assert!(total == 20 && told.len() < 20, "{told:?}");
    drop(stage);
    assert_eq!(budget.used_bytes(), 0);
}

#[test]
fn signals_that_are_not_spans_are_left_alone() {
    let mut stage = stage(parse, "{}");
    let mut out = Vec::new();
    stage.take(crate::testing::logs(), &mut out);
    stage.finish(meta().received_at_unix_nano, &mut out);
    assert!(out.is_empty());
}

#[test]
fn mistakes_are_explained() {
    let check = |settings: &str, expect: &str| {
        let problems = match try_stage(parse, settings) {
            Ok(_) => panic!("{settings} is taken"),
            Err(problems) => problems.to_string(),
        };
        assert!(problems.contains(expect), "{settings}: {problems}");
    };
    check("{ dimension: [] }", "dimensions");
    check("{ dimensions: [{ name: span.name }] }", "`span.name` is there already");
    check(
        "{ dimensions: [{ name: a }], calls_dimensions: [{ name: a }] }",
        "`a` is there already",
    );
    check("{ dimensions: [{ name: a }, { default: b }] }", "needs a `name`");
    check("{ dimensions: [{ glob: 'a.*' }] }", "name each dimension");
    check(
        "{ histogram: { explicit: { buckets: [1ms] }, exponential: { max_size: 5 } } }",
        "either `explicit` or `exponential`",
    );
    check("{ histogram: { explicit: { buckets: [5ms, 1ms] } } }", "ascend");
    check("{ histogram: { explicit: { buckets: [5] } } }", "unit is missing");
    check("{ histogram: { exponential: { max_size: 1 } } }", "from 2 to 16384");
    check("{ histogram: { unit: us } }", "us");
    check("{ events: { enabled: true } }", "needs `dimensions`");
    check("{ metrics_flush_interval: 0s }", "longer than nothing");
    check("{ aggregation_temporality: sometimes }", "sometimes");
    check("{ exemplars: { max_per_data_point: 1000 } }", "at most 100");
    check("{ resource_metrics_cache_size: 0 }", "at least one");
    check("{ enable_metrics_sampling_method: true }", "count before a sampler");
}

#[test]
fn the_files_of_the_collector_load() {
    let settings = "{ histogram: { explicit: { buckets: [100us, 1ms, 2ms, 6ms, 10ms, 100ms, 250ms] } },
        dimensions: [{ name: http.method, default: GET }, { name: http.status_code }], exemplars: { enabled: true },
        exclude_dimensions: ['status.code'], dimensions_cache_size: 1000, aggregation_temporality: 'AGGREGATION_TEMPORALITY_CUMULATIVE',
        metrics_flush_interval: 15s, metrics_expiration: 5m, events: { enabled: true, dimensions: [{ name: exception.type }, { name: exception.message }] },
        resource_metrics_key_attributes: [service.name, telemetry.sdk.language, telemetry.sdk.name], metric_timestamp_cache_size: 10 }";
    assert!(try_stage(parse, settings).is_ok());
    let told = told("{ histogram: { exponential: }, exemplars: , events: }", &[spanned()]);
    assert_eq!(
        told[&format!("{DURATION}{BUY}")].bounds.len(),
        0,
        "a bare key is its defaults"
    );
}

#[derive(Debug, Clone)]
enum Step {
    Arrive(Vec<(u8, u8, u8, u64)>),
    Tick,
    Commit,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let span = (0u8..3, 0u8..4, 0u8..3, 0u64..20_000_000);
    prop_oneof![
        4 => proptest::collection::vec(span, 1..5).prop_map(Step::Arrive),
        1 => Just(Step::Tick),
        2 => Just(Step::Commit),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    /// Whatever comes, and wherever the process is killed: nothing is counted twice and nothing is missing, and a series keeps its start.
    #[test]
    fn what_is_told_is_what_came(steps in proptest::collection::vec(step(), 1..60), is_delta: bool, exponential: bool) {
        const SERVICES: [&str; 3] = ["shop", "bank", "post"];
        let temporality = if is_delta { "delta" } else { "cumulative" };
        let histogram = if exponential { "{ exponential: { max_size: 5 } }" } else { "{}" };
        let settings = format!("{{ aggregation_temporality: {temporality}, histogram: {histogram}, metrics_flush_interval: 7s, exemplars: {{ enabled: true }} }}");
        let make = || stage(parse, &settings);
        let mut runner = Runner::new(&make);
        let mut stream = Vec::new();
        let mut expect: BTreeMap<String, (u64, f64, u64)> = BTreeMap::new();
        let mut now = 0;
        for step in &steps {
            now += SECOND;
            match step {
                Step::Arrive(spans) => {
                    let spans: Vec<Spanned> = spans.iter().map(|(service, name, status, took_ns)| Spanned {
                        service: SERVICES[*service as usize],
                        name: format!("name {name}"),
                        status: i32::from(*status),
                        took_ns: *took_ns,
                        ..spanned()
                    }).collect();
                    for span in &spans {
                        let status = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"][span.status as usize];
                        let service = span.service;
                        let name = format!("{{service.name={service}}}{{service.name={service},span.kind=SPAN_KIND_SERVER,span.name={},status.code={status}}}", span.name);
                        let (count, sum, _) = expect.entry(name).or_insert((0, 0.0, now));
                        *count += 1;
                        *sum += span.took_ns as f64 / 1e6;
                    }
                    stream.push(arrived(&spans, now));
                    runner.take(&stream);
                }
                Step::Tick => runner.tick(now),
                Step::Commit => runner.commit(),
                Step::Crash => {
                    runner.crash();
                    runner.take(&stream);
                }
            }
        }
        runner.finish(now + 1);
        let mut told: BTreeMap<String, (u64, f64, u64)> = BTreeMap::new();
        for batch in &runner.out {
            for (name, point) in points(std::slice::from_ref(batch)) {
                let Some(name) = name.strip_prefix(DURATION) else { continue };
                let (count, sum, start) = told.entry(name.to_owned()).or_insert((0, 0.0, point.start));
                if is_delta {
                    (*count, *sum) = (*count + point.count, *sum + point.sum);
                } else {
                    prop_assert_eq!(*start, point.start, "a series keeps its start");
                    prop_assert!(point.count >= *count, "a cumulative series does not go back");
                    (*count, *sum) = (point.count, point.sum);
                }
            }
        }
        prop_assert_eq!(told.keys().collect::<Vec<_>>(), expect.keys().collect::<Vec<_>>());
        for (name, (count, sum, start)) in &expect {
            let (told_count, told_sum, told_start) = told[name];
            prop_assert_eq!(*count, told_count, "{}", name);
            prop_assert!((sum - told_sum).abs() < 1e-6, "{}: {} {}", name, sum, told_sum);
            prop_assert!(is_delta || *start == told_start, "{}: {} {}", name, start, told_start);
        }
    }

    #[test]
    fn no_damaged_state_is_a_panic(damage in proptest::collection::vec((0usize..10_000, 1u8..), 0..4), exponential: bool) {
        let settings = if exponential { "{ histogram: { exponential: { max_size: 4 } }, exemplars: { enabled: true } }" } else { "{ exemplars: { enabled: true } }" };
        let spans = [spanned(), Spanned { took_ns: 77_000_000, ..spanned() }, Spanned { service: "bank", ..spanned() }];
        let mut before = stage(parse, settings);
        before.take(arrived(&spans, 0), &mut Vec::new());
        survives_damage(stage(parse, settings), &before.state(true), &damage, &spans);
    }
}
