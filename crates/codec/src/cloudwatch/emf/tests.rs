//! Metrics in, events out: what CloudWatch is told.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1 as otlp;
use opentelemetry_proto::tonic::metrics::v1 as metrics;
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use otlp::any_value::Value as Any;
use prost::Message;
use regex::Regex;
use serde_json::{Value as Json, json};

use super::*;

mod any;

const T: u64 = 1_700_000_000_000_000_000;
const SECOND: u64 = 1_000_000_000;
const DELTA: i32 = 1;

fn pairs(of: &[(&str, &str)]) -> Vec<otlp::KeyValue> {
    of.iter()
        .map(|(key, value)| otlp::KeyValue {
            key: (*key).into(),
            value: Some(otlp::AnyValue {
                value: Some(Any::StringValue((*value).into())),
            }),
            ..Default::default()
        })
        .collect()
}

fn payload(resource: &[(&str, &str)], scope: &str, metrics: Vec<metrics::Metric>) -> Vec<u8> {
    ExportMetricsServiceRequest {
        resource_metrics: vec![metrics::ResourceMetrics {
            resource: Some(OtlpResource {
                attributes: pairs(resource),
                ..Default::default()
            }),
            scope_metrics: vec![metrics::ScopeMetrics {
                scope: Some(otlp::InstrumentationScope {
                    name: scope.into(),
                    ..Default::default()
                }),
                metrics,
                ..Default::default()
            }],
            ..Default::default()
        }],
    }
    .encode_to_vec()
}

fn point(value: f64, time: u64, labels: &[(&str, &str)]) -> metrics::NumberDataPoint {
    metrics::NumberDataPoint {
        attributes: pairs(labels),
        time_unix_nano: time,
        value: Some(metrics::number_data_point::Value::AsDouble(value)),
        ..Default::default()
    }
}

fn metric(name: &str, unit: &str, data: metrics::metric::Data) -> metrics::Metric {
    metrics::Metric {
        name: name.into(),
        unit: unit.into(),
        data: Some(data),
        ..Default::default()
    }
}

fn gauge(name: &str, unit: &str, data_points: Vec<metrics::NumberDataPoint>) -> metrics::Metric {
    metric(name, unit, metrics::metric::Data::Gauge(metrics::Gauge { data_points }))
}

fn sum(
    name: &str,
    is_monotonic: bool,
    temporality: i32,
    data_points: Vec<metrics::NumberDataPoint>,
) -> metrics::Metric {
    let sum = metrics::Sum {
        data_points,
        aggregation_temporality: temporality,
        is_monotonic,
    };
    metric(name, "1", metrics::metric::Data::Sum(sum))
}

fn options() -> Options {
    Options {
        namespace: String::new(),
        group: None,
        stream: Template::parse(Name::Stream, "otel-stream").expect("right"),
        rollup: Rollup::None,
        version: Version::V1,
        extracts: true,
        resource_labels: false,
        leaves_out_service: false,
        retains_initial: false,
        is_detailed: false,
        json_labels: Vec::new(),
        declarations: Vec::new(),
        units: Vec::new(),
    }
}

/// The events of all streams as JSON.
fn events(translated: &Translated) -> Vec<Json> {
    let texts = translated.streams.iter().flat_map(|stream| stream.events());
    texts
        .map(|(_, text)| serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}")))
        .collect()
}

/// The values of a metric in what one payload after the other becomes.
fn values(options: Options, name: &str, metrics: Vec<metrics::Metric>) -> Vec<Json> {
    let mut encoder = Encoder::new(options);
    let encode = |metric| {
        let out = encoder.encode(&payload(&[], "", vec![metric]), T, "otlp");
        let mut got: Vec<Json> = events(&out).iter().map(|event| event[name].clone()).collect();
        got.extend(out.rejected.iter().map(|(items, why)| json!(format!("{items} {why}"))));
        json!(got)
    };
    metrics.into_iter().map(encode).collect()
}

#[test]
fn points_of_one_time_and_labels_are_one_event() {
    let of = [("route", "/a")];
    let payload = payload(
        &[("service.name", "api"), ("service.namespace", "ai"), ("host", "h1")],
        "lib",
        vec![
            gauge(
                "memory",
                "By",
                vec![point(7.0, T, &of), point(8.0, T, &[("route", "/b")])],
            ),
            gauge("latency", "ms", vec![point(1.5, T, &of)]),
            gauge("late", "", vec![point(2.0, T + SECOND, &of)]),
        ],
    );
    let mut encoder = Encoder::new(options());
    let out = encoder.encode(&payload, 1, "otlp");
    assert_eq!(
        (out.streams.len(), &out.streams[0].group, &out.streams[0].name),
        (1, &"/metrics/ai/api".to_owned(), &"otel-stream".to_owned())
    );
    let event = |route: &str, time: u64, metrics: Json, values: Json| {
        let mut event = json!({
            "Version": "1",
            "_aws": {"Timestamp": time / 1_000_000, "CloudWatchMetrics": [{"Namespace": "ai/api", "Dimensions": [["OTelLib", "route"]], "Metrics": metrics}]},
            "OTelLib": "lib", "route": route,
        });
        let all = event.as_object_mut().expect("an object");
        all.extend(values.as_object().expect("an object").clone());
        event
    };
    let expect = [
        event(
            "/a",
            T,
            json!([{"Name": "memory", "Unit": "Bytes"}, {"Name": "latency", "Unit": "Milliseconds"}]),
            json!({"memory": 7.0, "latency": 1.5}),
        ),
        event(
            "/b",
            T,
            json!([{"Name": "memory", "Unit": "Bytes"}]),
            json!({"memory": 8.0}),
        ),
        event("/a", T + SECOND, json!([{"Name": "late"}]), json!({"late": 2.0})),
    ];
    let got = events(&out);
    assert_eq!(got.len(), expect.len());
    for (got, expect) in got.iter().zip(&expect) {
        // 7 and 7.0 are the same number.
        let same = |value: &Json| serde_json::to_string(value).expect("JSON").replace(".0", "");
        assert_eq!(same(got), same(expect));
    }
}

#[test]
fn sums_that_count_from_the_start_become_what_was_added() {
    let at = |value: f64, seconds: u64| sum("n", true, CUMULATIVE, vec![point(value, T + seconds * SECOND, &[])]);
    let got = values(
        options(),
        "n",
        vec![
            at(5.0, 0),
            at(8.0, 10),
            at(8.0, 20),
            at(2.0, 30),
            at(9.0, 25),
            at(3.0, 40),
        ],
    );
    let old = "1 a point is not newer than the last one of its series";
    let expect = [json!([]), json!([3]), json!([0]), json!([2]), json!([old]), json!([1])];
    assert_eq!(got, expect);
    let initial = Options {
        retains_initial: true,
        ..options()
    };
    assert_eq!(
        values(initial, "n", vec![at(5.0, 0), at(8.0, 10)]),
        [json!([5]), json!([3])]
    );
    // A start between two points is a restart, although the value grew.
    let restarted = |value: f64, seconds: u64, start: u64| {
        let mut point = point(value, T + seconds * SECOND, &[]);
        point.start_time_unix_nano = T + start * SECOND;
        sum("n", true, CUMULATIVE, vec![point])
    };
    let got = values(
        options(),
        "n",
        vec![restarted(5.0, 10, 0), restarted(7.0, 20, 0), restarted(9.0, 40, 30)],
    );
    assert_eq!(got, [json!([]), json!([2]), json!([9])]);
    // What is no counter, and what says what was added, goes as it is.
    let as_it_is = |is_monotonic, temporality| {
        let at = |value, seconds: u64| {
            sum(
                "n",
                is_monotonic,
                temporality,
                vec![point(value, T + seconds * SECOND, &[])],
            )
        };
        values(options(), "n", vec![at(5.0, 0), at(3.0, 10)])
    };
    assert_eq!(as_it_is(false, CUMULATIVE), [json!([5]), json!([3])]);
    assert_eq!(as_it_is(true, DELTA), [json!([5]), json!([3])]);
}

#[test]
fn two_instances_of_a_service_are_two_series() {
    let mut encoder = Encoder::new(options());
    let mut added = |instance: &str, value: f64, seconds: u64| {
        let metric = sum(
            "n",
            true,
            CUMULATIVE,
            vec![point(value, T + seconds * SECOND, &[("a", "b")])],
        );
        let payload = payload(&[("service.instance.id", instance)], "", vec![metric]);
        let events = events(&encoder.encode(&payload, T, "otlp"));
        events.first().map(|event| event["n"].as_f64().expect("a number"))
    };
    assert_eq!((added("1", 100.0, 0), added("2", 5.0, 0)), (None, None));
    assert_eq!((added("1", 101.0, 1), added("2", 7.0, 1)), (Some(1.0), Some(2.0)));
}

#[test]
fn series_without_points_are_forgotten() {
    let mut encoder = Encoder::new(options());
    let mut encode = |name: &str, hours: u64| {
        let now = T + hours * 3600 * SECOND;
        let metric = sum(name, true, CUMULATIVE, vec![point(1.0, now, &[])]);
        encoder.encode(&payload(&[], "", vec![metric]), now, "otlp");
        encoder.remembered()
    };
    assert_eq!((encode("a", 0), encode("b", 0), encode("a", 0)), (1, 2, 2));
    assert_eq!(encode("b", 2), 1, "both were too old, one came again");
}

fn histogram(temporality: i32, counts: &[u64], sum: f64, seconds: u64, ends: Option<(f64, f64)>) -> metrics::Metric {
    let point = metrics::HistogramDataPoint {
        time_unix_nano: T + seconds * SECOND,
        count: counts.iter().sum(),
        sum: Some(sum),
        bucket_counts: counts.to_vec(),
        explicit_bounds: vec![1.0, 2.0, 5.0],
        min: ends.map(|ends| ends.0),
        max: ends.map(|ends| ends.1),
        ..Default::default()
    };
    let data = metrics::Histogram {
        data_points: vec![point],
        aggregation_temporality: temporality,
    };
    metric("h", "s", metrics::metric::Data::Histogram(data))
}

fn statistics(min: f64, max: f64, count: u64, sum: f64) -> Json {
    json!([{"Max": max, "Min": min, "Sum": sum, "Count": count}])
}

fn same(got: &[Json], expect: &[Json]) {
    let text = |list: &[Json]| serde_json::to_string(list).expect("JSON").replace(".0", "");
    assert_eq!(text(got), text(expect));
}

#[test]
fn histograms_become_statistics() {
    let got = values(
        options(),
        "h",
        vec![
            histogram(DELTA, &[0, 2, 1, 0], 6.0, 0, None),
            histogram(DELTA, &[1, 0, 0, 1], 9.0, 0, None),
            histogram(DELTA, &[1, 0, 0, 1], 9.0, 0, Some((0.25, 8.75))),
            histogram(DELTA, &[0, 0, 0, 0], 0.0, 0, None),
        ],
    );
    let expect = [
        statistics(1.0, 5.0, 3, 6.0),
        statistics(0.0, 5.0, 2, 9.0),
        statistics(0.25, 5.0_f64.min(8.75), 2, 9.0),
        json!([]),
    ];
    same(&got, &expect);
    let got = values(
        options(),
        "h",
        vec![
            histogram(CUMULATIVE, &[3, 0, 0, 1], 9.0, 0, Some((0.1, 7.0))),
            histogram(CUMULATIVE, &[3, 2, 0, 1], 12.0, 10, Some((0.1, 7.0))),
            histogram(CUMULATIVE, &[3, 2, 0, 1], 12.0, 20, Some((0.1, 7.0))),
            histogram(CUMULATIVE, &[0, 1, 0, 0], 1.5, 30, Some((1.5, 1.5))),
        ],
    );
    let expect = [
        json!([]),
        statistics(1.0, 2.0, 2, 3.0),
        json!([]),
        statistics(1.5, 1.5, 1, 1.5),
    ];
    same(&got, &expect);
}

#[test]
fn exponential_histograms_keep_their_values() {
    let of = |temporality, counts: Vec<u64>, count: u64, seconds: u64| {
        let point = metrics::ExponentialHistogramDataPoint {
            time_unix_nano: T + seconds * SECOND,
            count,
            sum: Some(count as f64),
            scale: 0,
            zero_count: 1,
            positive: Some(metrics::exponential_histogram_data_point::Buckets {
                offset: 0,
                bucket_counts: counts,
            }),
            negative: Some(metrics::exponential_histogram_data_point::Buckets {
                offset: 1,
                bucket_counts: vec![2],
            }),
            ..Default::default()
        };
        let data = metrics::ExponentialHistogram {
            data_points: vec![point],
            aggregation_temporality: temporality,
        };
        metric("e", "", metrics::metric::Data::ExponentialHistogram(data))
    };
    let got = values(options(), "e", vec![of(DELTA, vec![4, 0, 1], 8, 0)]);
    let expect = json!([{"Values": [-3.0, 0.0, 1.5, 6.0], "Counts": [2.0, 1.0, 4.0, 1.0], "Max": 6.0, "Min": -3.0, "Sum": 8.0, "Count": 8}]);
    same(&got, &[expect]);
    // More than CloudWatch takes: fewer values, as many counts.
    let got = values(options(), "e", vec![of(DELTA, vec![1; 300], 303, 0)]);
    let got = &got[0][0];
    assert!(got["Values"].as_array().expect("a list").len() <= 100);
    let counts = got["Counts"].as_array().expect("a list").iter();
    assert_eq!(
        counts.map(|count| count.as_f64().expect("a number")).sum::<f64>(),
        303.0
    );
    let got = values(
        options(),
        "e",
        vec![of(CUMULATIVE, vec![4], 7, 0), of(CUMULATIVE, vec![9], 12, 1)],
    );
    same(&got, &[json!([]), statistics(1.0, 1.0, 5, 5.0)]);
}

fn summary(seconds: u64, count: u64, sum: f64) -> metrics::Metric {
    let quantile = |quantile, value| metrics::summary_data_point::ValueAtQuantile { quantile, value };
    let point = metrics::SummaryDataPoint {
        time_unix_nano: T + seconds * SECOND,
        count,
        sum,
        quantile_values: vec![quantile(0.5, 1.0), quantile(0.99, 4.0)],
        ..Default::default()
    };
    let data = metrics::Summary {
        data_points: vec![point],
    };
    metric("s", "s", metrics::metric::Data::Summary(data))
}

#[test]
fn summaries() {
    let got = values(options(), "s", vec![summary(0, 3, 6.0), summary(10, 5, 9.0)]);
    same(&got, &[statistics(1.0, 4.0, 3, 6.0), statistics(1.0, 4.0, 5, 9.0)]);
    let mut encoder = Encoder::new(options());
    let from_prometheus = [("receiver", "prometheus")];
    assert!(events(&encoder.encode(&payload(&from_prometheus, "", vec![summary(0, 3, 6.0)]), T, "otlp")).is_empty());
    let out = encoder.encode(&payload(&from_prometheus, "", vec![summary(10, 5, 9.0)]), T, "otlp");
    let event = &events(&out)[0];
    same(&[json!([event["s"]])], &[statistics(1.0, 4.0, 2, 3.0)]);
    assert_eq!(event["prom_metric_type"], "summary");
    let detailed = Options {
        is_detailed: true,
        ..options()
    };
    let out = Encoder::new(detailed).encode(&payload(&[], "", vec![summary(0, 3, 6.0)]), T, "otlp");
    let got = events(&out);
    assert_eq!(
        (got[0]["s_sum"].as_f64(), got[0]["s_count"].as_f64()),
        (Some(6.0), Some(3.0))
    );
    assert_eq!((&got[1]["quantile"], got[1]["s"].as_f64()), (&json!("0.5"), Some(1.0)));
    assert_eq!((&got[2]["quantile"], got[2]["s"].as_f64()), (&json!("0.99"), Some(4.0)));
    assert_eq!(
        got[2]["_aws"]["CloudWatchMetrics"][0]["Dimensions"],
        json!([["quantile"]])
    );
}

fn dimensions(rollup: Rollup, scope: &str, labels: &[(&str, &str)]) -> Json {
    let mut encoder = Encoder::new(Options { rollup, ..options() });
    let out = encoder.encode(
        &payload(&[], scope, vec![gauge("g", "", vec![point(1.0, T, labels)])]),
        T,
        "otlp",
    );
    events(&out)[0]["_aws"]["CloudWatchMetrics"][0]["Dimensions"].clone()
}

#[test]
fn dimensions_are_rolled_up() {
    let two = [("a", "1"), ("b", "2")];
    assert_eq!(dimensions(Rollup::None, "lib", &two), json!([["OTelLib", "a", "b"]]));
    assert_eq!(
        dimensions(Rollup::Single, "lib", &two),
        json!([["OTelLib", "a", "b"], ["OTelLib", "a"], ["OTelLib", "b"]])
    );
    assert_eq!(
        dimensions(Rollup::ZeroAndSingle, "", &two),
        json!([["a", "b"], [], ["a"], ["b"]])
    );
    assert_eq!(dimensions(Rollup::ZeroAndSingle, "", &two[..1]), json!([[], ["a"]]));
    assert_eq!(
        dimensions(Rollup::ZeroAndSingle, "lib", &two[..1]),
        json!([["OTelLib"], ["OTelLib", "a"]])
    );
    assert_eq!(dimensions(Rollup::ZeroAndSingle, "", &[]), json!([[]]));
    assert_eq!(dimensions(Rollup::ZeroAndSingle, "lib", &[]), json!([["OTelLib"]]));
    // What cannot be a dimension stays a label.
    let long = "x".repeat(1025);
    assert_eq!(
        dimensions(Rollup::None, "", &[("a", ""), ("b", &long), (":c", "1"), ("d", "1")]),
        json!([["d"]])
    );
    let many: Vec<(String, String)> = (0..40).map(|at| (format!("l{at:02}"), "v".to_owned())).collect();
    let many: Vec<(&str, &str)> = many
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        dimensions(Rollup::None, "", &many)[0].as_array().expect("a list").len(),
        30
    );
}

#[test]
fn declarations_choose() {
    let strings = |of: &[&str]| of.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let pattern = |text: &str| Regex::new(text).expect("right");
    let declaration = |dimensions: &[&[&str]], selector: &str, matcher: Option<(&[&str], &str)>| {
        let matchers = matcher.into_iter().map(|(names, of)| LabelMatcher {
            names: strings(names),
            separator: ";".to_owned(),
            pattern: pattern(of),
        });
        let dimensions = dimensions.iter().map(|set| strings(set)).collect();
        Declaration::new(dimensions, vec![pattern(selector)], matchers.collect())
    };
    let big: Vec<String> = (0..31).map(|at| at.to_string()).collect();
    assert_eq!(Declaration::new(vec![big], vec![], vec![]).1, 1);
    let declarations = vec![
        declaration(&[&["b", "a", "a"], &["a", "b"], &["nowhere"]], "^x", None).0,
        declaration(&[&["a"]], "^x1$", Some((&["a", "b"], "^1;2$"))).0,
        declaration(&[&["a"]], "^z", Some((&["a"], "never"))).0,
    ];
    let mut encoder = Encoder::new(Options {
        declarations,
        ..options()
    });
    let metrics = ["x1", "x2", "x3", "y", "z"];
    let metrics = metrics.map(|name| gauge(name, "", vec![point(1.0, T, &[("a", "1"), ("b", "2")])]));
    let out = encoder.encode(&payload(&[], "", metrics.to_vec()), T, "otlp");
    let event = &events(&out)[0];
    let expect = json!([
        {"Namespace": "default", "Dimensions": [["a", "b"], ["a"]], "Metrics": [{"Name": "x1"}]},
        {"Namespace": "default", "Dimensions": [["a", "b"]], "Metrics": [{"Name": "x2"}, {"Name": "x3"}]},
    ]);
    assert_eq!(event["_aws"]["CloudWatchMetrics"], expect);
    assert!(
        event["y"].is_number() && event["z"].is_number(),
        "they are in the log all the same"
    );
    let out = encoder.encode(
        &payload(&[], "", vec![gauge("y", "", vec![point(1.0, T, &[])])]),
        T,
        "otlp",
    );
    same(&events(&out), &[json!({"y": 1.0})]);
}

#[test]
fn what_an_event_may_hold() {
    let many: Vec<metrics::Metric> = (0..250)
        .map(|at| gauge(&format!("m{at}"), "", vec![point(1.0, T, &[("a", "b")])]))
        .collect();
    let out = Encoder::new(options()).encode(&payload(&[], "", many), T, "otlp");
    let sizes: Vec<usize> = events(&out)
        .iter()
        .map(|event| {
            event["_aws"]["CloudWatchMetrics"][0]["Metrics"]
                .as_array()
                .expect("a list")
                .len()
        })
        .collect();
    assert_eq!(sizes, [100, 100, 50]);
    // The same name twice at one time is two events.
    let twice = vec![gauge("m", "", vec![point(1.0, T, &[]), point(2.0, T, &[])])];
    let out = Encoder::new(options()).encode(&payload(&[], "", twice), T, "otlp");
    assert_eq!(events(&out).len(), 2);
    let large = "x".repeat(1 << 20);
    let out = Encoder::new(options()).encode(
        &payload(
            &[],
            "",
            vec![
                gauge("large", "", vec![point(1.0, T, &[("a", &large)])]),
                gauge("nan", "", vec![point(f64::NAN, T, &[]), point(1e300, T, &[])]),
                gauge("_aws", "", vec![point(1.0, T, &[])]),
                gauge(&large, "", vec![point(1.0, T, &[])]),
                gauge(
                    "fine",
                    "",
                    vec![point(1.0, T, &[("_aws", "x"), ("fine", "x"), ("Version", "7")])],
                ),
            ],
        ),
        T,
        "otlp",
    );
    let got = events(&out);
    assert_eq!(got.len(), 1);
    assert_eq!((&got[0]["Version"], got[0]["fine"].as_f64()), (&json!("1"), Some(1.0)));
    let mut counts: Vec<u32> = out.rejected.iter().map(|(items, _)| *items).collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 2, 2], "{:?}", out.rejected);
}

/// A large resource that is to be part of every event does not become many times its size.
#[test]
fn what_is_made_of_a_payload_is_bounded() {
    let large = "x".repeat(100_000);
    let points = (0..2000).map(|at| point(1.0, T, &[("at", &at.to_string())])).collect();
    let with_resource = Options {
        resource_labels: true,
        ..options()
    };
    let out =
        Encoder::new(with_resource).encode(&payload(&[("r", &large)], "", vec![gauge("g", "", points)]), T, "otlp");
    let bytes: usize = out
        .streams
        .iter()
        .flat_map(|stream| stream.events())
        .map(|(_, text)| text.len())
        .sum();
    assert!(bytes < 100 << 20, "{bytes}");
    assert_eq!(
        out.rejected.iter().map(|(items, _)| *items as usize).sum::<usize>() + events(&out).len(),
        2000
    );
}

#[test]
fn a_long_name_of_many_points_is_made_of_a_payload_so_often_only() {
    let name = "n".repeat(MAX_METRIC_NAME_CHARS);
    let points = vec![point(1.0, T, &[]); 80_000];
    let out = Encoder::new(options()).encode(&payload(&[], "", vec![gauge(&name, "", points)]), T, "otlp");
    let [(rejected, TOO_MUCH)] = out.rejected[..] else {
        panic!("{:?}", out.rejected);
    };
    let taken = out.streams[0].events().count();
    assert_eq!(rejected as usize + taken, 80_000);
    assert!((60_000..66_000).contains(&taken), "{taken}");
}

#[test]
fn quantiles_count_as_the_copies_of_labels_that_they_are() {
    let quantile = |at: usize| metrics::summary_data_point::ValueAtQuantile {
        quantile: at as f64 / 20.0,
        value: 1.0,
    };
    let large = "x".repeat(100_000);
    let point = metrics::SummaryDataPoint {
        attributes: pairs(&[("large", &large)]),
        time_unix_nano: T,
        quantile_values: (0..20).map(quantile).collect(),
        ..Default::default()
    };
    let summary = metrics::metric::Data::Summary(metrics::Summary {
        data_points: vec![point; 60],
    });
    let detailed = Options {
        is_detailed: true,
        ..options()
    };
    let out = Encoder::new(detailed).encode(&payload(&[], "", vec![metric("s", "", summary)]), T, "otlp");
    assert_eq!(out.rejected, [(30, TOO_MUCH)]);
}

#[test]
fn a_group_may_be_named_by_resource_and_point() {
    let named = Options {
        group: Some(Template::parse(Name::Group, "/{r}/{p}").expect("right")),
        ..options()
    };
    let points = vec![point(1.0, T, &[("p", "1"), ("r", "no")]), point(1.0, T, &[("p", "2")])];
    let out = Encoder::new(named).encode(&payload(&[("r", "a")], "", vec![gauge("g", "", points)]), T, "otlp");
    let groups: Vec<&str> = out.streams.iter().map(|stream| stream.group.as_str()).collect();
    assert_eq!(groups, ["/a/1", "/a/2"]);
}

#[test]
fn labels_units_names_and_versions() {
    let some = |more: Options| {
        let resource = [("service.name", "api"), ("a", "of the resource")];
        let labels = [("a", "of the point"), ("json", r#"{"x": [1]}"#), ("broken", "{")];
        let payload = payload(&resource, "", vec![gauge("g", "By", vec![point(1.0, T, &labels)])]);
        let out = Encoder::new(more).encode(&payload, T, "otlp");
        (
            out.streams[0].group.clone(),
            out.streams[0].name.clone(),
            events(&out).remove(0),
        )
    };
    let json_labels = vec!["json".to_owned(), "broken".to_owned()];
    let (group, stream, event) = some(Options {
        namespace: "mine and yours".to_owned(),
        resource_labels: true,
        json_labels,
        stream: Template::parse(Name::Stream, "{ServiceName}-{at}").expect("right"),
        units: vec![UnitRule {
            metric: "g".into(),
            unit: "Count".into(),
            overwrite: true,
        }],
        ..options()
    });
    assert_eq!(
        (group.as_str(), stream.as_str()),
        ("/metrics/mine_and_yours", "api-undefined")
    );
    assert_eq!(event["_aws"]["CloudWatchMetrics"][0]["Namespace"], "mine and yours");
    assert_eq!(event["_aws"]["CloudWatchMetrics"][0]["Metrics"][0]["Unit"], "Count");
    assert_eq!(
        event["_aws"]["CloudWatchMetrics"][0]["Dimensions"],
        json!([["a", "service.name"]])
    );
    assert_eq!(
        (&event["a"], &event["json"], &event["broken"]),
        (&json!("of the resource"), &json!({"x": [1]}), &json!("{"))
    );
    let (_, _, event) = some(Options {
        version: Version::V0,
        ..options()
    });
    assert_eq!(
        (&event["Version"], &event["Timestamp"], &event["_aws"]),
        (&json!("0"), &json!("1700000000000"), &Json::Null)
    );
    assert_eq!(
        event["CloudWatchMetrics"][0]["Metrics"],
        json!([{"Name": "g", "Unit": "Bytes"}])
    );
    let (_, _, event) = some(Options {
        extracts: false,
        ..options()
    });
    assert!(event.get("_aws").is_none() && event["g"].is_number());
    for (of, expect) in [
        ("", ""),
        ("1", ""),
        ("ms", "Milliseconds"),
        ("{request}", "Count"),
        ("{request}/s", "Count/Second"),
        ("Kilobytes", "Kilobytes"),
        ("furlong", ""),
    ] {
        assert_eq!(unit(of), expect, "{of}");
    }
}

#[test]
fn points_without_a_value_are_passed_over() {
    let stale = metrics::NumberDataPoint {
        flags: NO_VALUE,
        ..point(0.0, T, &[])
    };
    let out = Encoder::new(options()).encode(&payload(&[], "", vec![gauge("g", "", vec![stale])]), T, "otlp");
    assert!(events(&out).is_empty() && out.rejected.is_empty());
}
