//! Pages as `prost` writes them, and what of OTLP becomes of them.

use model::Signal;
use model::canonical::canonicalize;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{ExponentialHistogramDataPoint, Metric as OtlpMetric, metric::Data};
use prost::Message;

use super::*;
use crate::prometheus::otlp::{Job, Options, TargetInfo, build, len_at_most};

#[derive(Clone, PartialEq, Message)]
struct Pair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Time {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Example {
    #[prost(message, repeated, tag = "1")]
    label: Vec<Pair>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(message, tag = "3")]
    timestamp: Option<Time>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(message, tag = "2")]
    exemplar: Option<Example>,
    #[prost(message, tag = "3")]
    created: Option<Time>,
}

#[derive(Clone, PartialEq, Message)]
struct Quantile {
    #[prost(double, tag = "1")]
    quantile: f64,
    #[prost(double, tag = "2")]
    value: f64,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(double, tag = "2")]
    sum: f64,
    #[prost(message, repeated, tag = "3")]
    quantile: Vec<Quantile>,
}

#[derive(Clone, PartialEq, Message)]
struct Bucket {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(double, tag = "2")]
    bound: f64,
    #[prost(message, tag = "3")]
    exemplar: Option<Example>,
}

#[derive(Clone, PartialEq, Message)]
struct BucketSpan {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Hist {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(double, tag = "2")]
    sum: f64,
    #[prost(message, repeated, tag = "3")]
    bucket: Vec<Bucket>,
    #[prost(double, tag = "4")]
    count_float: f64,
    #[prost(sint32, tag = "5")]
    schema: i32,
    #[prost(double, tag = "6")]
    zero_threshold: f64,
    #[prost(uint64, tag = "7")]
    zero_count: u64,
    #[prost(message, repeated, tag = "9")]
    negative_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "10")]
    negative_delta: Vec<i64>,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "13")]
    positive_delta: Vec<i64>,
    #[prost(double, repeated, tag = "14")]
    positive_count: Vec<f64>,
    #[prost(message, tag = "15")]
    created: Option<Time>,
    #[prost(message, repeated, tag = "16")]
    exemplars: Vec<Example>,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    label: Vec<Pair>,
    #[prost(message, tag = "2")]
    gauge: Option<Value>,
    #[prost(message, tag = "3")]
    counter: Option<Value>,
    #[prost(message, tag = "4")]
    summary: Option<Summary>,
    #[prost(message, tag = "5")]
    untyped: Option<Value>,
    #[prost(int64, optional, tag = "6")]
    timestamp_ms: Option<i64>,
    #[prost(message, tag = "7")]
    histogram: Option<Hist>,
}

#[derive(Clone, PartialEq, Message)]
struct Family {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    help: String,
    #[prost(int32, tag = "3")]
    kind: i32,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
    #[prost(string, tag = "5")]
    unit: String,
}

const NATIVES: Wanted = Wanted {
    natives: true,
    classics_beside: false,
};

fn pairs(pairs: &[(&str, &str)]) -> Vec<Pair> {
    let pair = |(name, value): &(&str, &str)| Pair {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    };
    pairs.iter().map(pair).collect()
}

fn page(families: &[Family]) -> Vec<u8> {
    families
        .iter()
        .flat_map(Message::encode_length_delimited_to_vec)
        .collect()
}

fn family(name: &str, kind: i32, metric: Metric) -> Family {
    Family {
        name: name.to_owned(),
        help: "what it is".to_owned(),
        kind,
        metric: vec![metric],
        unit: String::new(),
    }
}

fn histogram(hist: Hist) -> Family {
    let metric = Metric {
        label: pairs(&[("path", "/")]),
        histogram: Some(hist),
        ..Metric::default()
    };
    family("took_seconds", 4, metric)
}

/// Both forms at once, as `client_golang` sends them.
fn both() -> Hist {
    let exemplar = Example {
        label: pairs(&[("trace_id", "abc")]),
        value: 0.3,
        timestamp: Some(Time {
            seconds: 5,
            nanos: 6_000_000,
        }),
    };
    Hist {
        count: 10,
        sum: 12.5,
        bucket: vec![
            Bucket {
                count: 3,
                bound: 0.5,
                exemplar: Some(exemplar),
            },
            Bucket {
                count: 9,
                bound: 5.0,
                exemplar: None,
            },
        ],
        schema: 2,
        zero_threshold: 1e-9,
        zero_count: 1,
        negative_span: vec![BucketSpan { offset: -3, length: 1 }],
        negative_delta: vec![2],
        positive_span: vec![BucketSpan { offset: 1, length: 2 }, BucketSpan { offset: 2, length: 1 }],
        positive_delta: vec![3, -2, 2],
        created: Some(Time { seconds: 1, nanos: 0 }),
        ..Hist::default()
    }
}

fn otlp(list: &SeriesList) -> Vec<OtlpMetric> {
    let options = Options {
        time_ms: 9_000,
        job: Job::Whole,
        target_info: TargetInfo::Moved,
        max_bytes: 1 << 20,
    };
    let built = build(list, &options).expect("it fits");
    assert!(built.payload.len() as u64 <= len_at_most(list));
    let canonical = canonicalize(Signal::Metrics, built.payload.clone().into()).expect("legal");
    assert!(!canonical.rewritten);
    let request = ExportMetricsServiceRequest::decode(&built.payload[..]).expect("OTLP");
    let scopes = request
        .resource_metrics
        .into_iter()
        .flat_map(|resource| resource.scope_metrics);
    scopes.flat_map(|scope| scope.metrics).collect()
}

fn exponential(list: &SeriesList) -> ExponentialHistogramDataPoint {
    let metrics = otlp(list);
    let [metric] = &metrics[..] else { panic!("{metrics:?}") };
    match &metric.data {
        Some(Data::ExponentialHistogram(data)) => data.data_points[0].clone(),
        other => panic!("{other:?}"),
    }
}

/// Each series as `name{label="value"} value`.
fn shown(list: &SeriesList) -> Vec<String> {
    let series = list.iter().map(|series| {
        let labels: Vec<String> = series
            .labels()
            .filter(|(name, _)| *name != NAME)
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let values: Vec<String> = series.samples().iter().map(|sample| sample.value.to_string()).collect();
        format!("{}{{{}}} {}", series.name(), labels.join(","), values.join(" "))
    });
    series.collect()
}

#[test]
fn a_native_histogram_becomes_an_exponential_one() {
    let list = read(&page(&[histogram(both())]), NATIVES).unwrap();
    assert_eq!(shown(&list), ["took_seconds{path=/} "]);
    let point = exponential(&list);
    assert_eq!((point.count, point.sum, point.scale), (10, Some(12.5), 2));
    assert_eq!((point.zero_count, point.zero_threshold), (1, 1e-9));
    let positive = point.positive.unwrap();
    // Prometheus' bucket 1 is OTLP's 0.
    assert_eq!((positive.offset, positive.bucket_counts), (0, vec![3, 1, 0, 0, 3]));
    let negative = point.negative.unwrap();
    assert_eq!((negative.offset, negative.bucket_counts), (-4, vec![2]));
    assert_eq!(
        (point.start_time_unix_nano, point.time_unix_nano),
        (1_000_000_000, 9_000_000_000)
    );
    // The buckets' exemplars are its.
    assert_eq!(point.exemplars[0].time_unix_nano, 5_006_000_000);
}

#[test]
fn the_classic_buckets_of_a_histogram() {
    let expect = [
        "took_seconds_bucket{le=0.5,path=/} 3",
        "took_seconds_bucket{le=5.0,path=/} 9",
        "took_seconds_bucket{le=+Inf,path=/} 10",
        "took_seconds_sum{path=/} 12.5",
        "took_seconds_count{path=/} 10",
    ];
    let body = page(&[histogram(both())]);
    let list = read(&body, Wanted::default()).unwrap();
    assert_eq!(shown(&list), expect);
    let metrics = otlp(&list);
    let Some(Data::Histogram(data)) = &metrics[0].data else {
        panic!("{metrics:?}")
    };
    assert_eq!(data.data_points[0].bucket_counts, [3, 6, 1]);
    assert_eq!(data.data_points[0].exemplars.len(), 1);
    let beside = Wanted {
        natives: true,
        classics_beside: true,
    };
    let list = read(&body, beside).unwrap();
    assert_eq!(shown(&list), [&["took_seconds{path=/} "][..], &expect].concat());
    // One that has nothing of a native one is classic whatever is wanted.
    let classic = Hist {
        schema: 0,
        zero_threshold: 0.0,
        zero_count: 0,
        negative_span: vec![],
        positive_span: vec![],
        ..both()
    };
    assert_eq!(shown(&read(&page(&[histogram(classic)]), NATIVES).unwrap()), expect);
}

/// A native histogram without observations has one span of no buckets.
#[test]
fn an_empty_native_histogram() {
    let empty = Hist {
        schema: 3,
        positive_span: vec![BucketSpan { offset: 0, length: 0 }],
        ..Hist::default()
    };
    let list = read(&page(&[histogram(empty)]), NATIVES).unwrap();
    let point = exponential(&list);
    assert_eq!((point.count, point.scale), (0, 3));
    assert!(point.positive.is_none_or(|side| side.bucket_counts.is_empty()));
}

#[test]
fn the_other_types() {
    let value = |value: f64| {
        Some(Value {
            value,
            ..Value::default()
        })
    };
    let exemplar = Example {
        label: pairs(&[("trace_id", "x")]),
        value: 1.0,
        timestamp: None,
    };
    let counter = Value {
        value: 7.0,
        exemplar: Some(exemplar),
        created: Some(Time { seconds: 2, nanos: 0 }),
    };
    let summary = Summary {
        count: 4,
        sum: 2.5,
        quantile: vec![Quantile {
            quantile: 0.5,
            value: 0.25,
        }],
    };
    let families = [
        family(
            "seen_total",
            0,
            Metric {
                label: pairs(&[("b", "2"), ("a", "1"), ("gone", "")]),
                counter: Some(counter),
                ..Metric::default()
            },
        ),
        family(
            "temperature",
            1,
            Metric {
                gauge: value(-3.5),
                timestamp_ms: Some(5_000),
                ..Metric::default()
            },
        ),
        family(
            "latency",
            2,
            Metric {
                summary: Some(summary),
                ..Metric::default()
            },
        ),
        family(
            "some.thing",
            3,
            Metric {
                untyped: value(1.0),
                ..Metric::default()
            },
        ),
        family(
            "sizes",
            5,
            Metric {
                histogram: Some(Hist {
                    count: 2,
                    sum: 3.0,
                    ..Hist::default()
                }),
                ..Metric::default()
            },
        ),
        Family {
            name: "nothing".to_owned(),
            ..Family::default()
        },
    ];
    let list = read(&page(&families), NATIVES).unwrap();
    assert_eq!(
        shown(&list),
        [
            "seen_total{a=1,b=2} 7",
            "temperature{} -3.5",
            "latency{quantile=0.5} 0.25",
            "latency_sum{} 2.5",
            "latency_count{} 4",
            "some.thing{} 1",
            "sizes_bucket{le=+Inf} 2",
            "sizes_gsum{} 3",
            "sizes_gcount{} 2",
        ]
    );
    let first = list.iter().next().unwrap();
    assert_eq!(
        (first.kind(), first.help(), first.samples()[0].start_ms),
        (Kind::Counter, "what it is", 2_000)
    );
    assert_eq!(first.exemplars().count(), 1);
    assert_eq!(list.iter().nth(1).unwrap().samples()[0].time_ms, Some(5_000));
    otlp(&list);
}

#[test]
fn what_is_no_page_is_told() {
    let check = |page: &[u8], expect: &str| {
        let said = read(page, NATIVES).unwrap_err().to_string();
        assert!(said.contains(expect), "{said}");
    };
    check(b"# TYPE x counter\n", "the family number 1: the page ends within it");
    check(&[1, 0xff], "number 1: it is no protobuf");
    let good = page(&[histogram(both())]);
    check(&good[..good.len() - 1], "may be cut off");
    check(&[&good[..], &[0]].concat(), "number 2: it has no name");
    let gauge = |labels: &[(&str, &str)]| Metric {
        label: pairs(labels),
        gauge: Some(Value::default()),
        ..Metric::default()
    };
    check(&page(&[family("x", 9, gauge(&[]))]), "family x: its type 9");
    check(&page(&[family("x", 0, gauge(&[]))]), "no value of its type, counter");
    check(
        &page(&[family("x", 1, gauge(&[("a", "1"), ("a", "2")]))]),
        "there twice",
    );
    check(&page(&[family("x", 1, gauge(&[(NAME, "y")]))]), "there twice");
    check(&page(&[family("x", 1, gauge(&[("", "y")]))]), "no name");
    let many: Vec<(String, String)> = (0..1_001).map(|at| (format!("l{at}"), "x".to_owned())).collect();
    let many: Vec<(&str, &str)> = many
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    check(&page(&[family("x", 1, gauge(&many))]), "labels");
    for (wrong, expect) in [
        (Hist { schema: 9, ..both() }, "the schema 9"),
        (Hist { count: 1, ..both() }, "less observations"),
        (
            Hist {
                positive_delta: vec![3],
                ..both()
            },
            "another number of buckets",
        ),
        (
            Hist {
                positive_delta: vec![3, -4, 1],
                ..both()
            },
            "negative count",
        ),
        (
            Hist {
                positive_delta: vec![],
                positive_count: vec![0.5, 1.0, 1.0],
                ..both()
            },
            "no whole numbers",
        ),
        (
            Hist {
                positive_span: vec![
                    BucketSpan { offset: 1, length: 1 },
                    BucketSpan {
                        offset: 1 << 20,
                        length: 2,
                    },
                ],
                ..both()
            },
            "more than 16384 buckets",
        ),
    ] {
        check(&page(&[histogram(wrong)]), expect);
    }
    let long = Example {
        label: pairs(&[("trace_id", &"x".repeat(200))]),
        ..Example::default()
    };
    check(
        &page(&[histogram(Hist {
            exemplars: vec![long],
            ..both()
        })]),
        "128 characters",
    );
}

#[test]
fn what_it_takes_is_known_before() {
    let wide = Hist {
        positive_span: vec![
            BucketSpan { offset: 0, length: 1 },
            BucketSpan {
                offset: 16_000,
                length: 1,
            },
        ],
        positive_delta: vec![1, 0],
        ..both()
    };
    for body in [page(&[histogram(both())]), page(&[histogram(wide)])] {
        for wanted in [
            NATIVES,
            Wanted::default(),
            Wanted {
                natives: true,
                classics_beside: true,
            },
        ] {
            let list = read(&body, wanted).unwrap();
            let size = size(&body);
            let labels: usize = list.iter().map(|series| series.labels().count()).sum();
            assert!(
                size.series >= list.len() as u64 && size.labels >= labels as u64,
                "{size:?}"
            );
            assert!(
                size.bytes + 2 * body.len() as u64 >= (list.bytes.len() + list.text.len()) as u64,
                "{size:?}"
            );
        }
    }
    assert_eq!(size(b"no page"), Size::default());
}

/// What is reserved for a page of a size is at least what its list takes: a label is two places in the text, a series has a sample or a histogram.
fn is_as_large_as_was_said(body: &[u8], list: &SeriesList) {
    let size = size(body);
    let said = 2 * (body.len() as u64 + size.bytes) + size.labels * 16 + size.series * 96;
    assert!(
        said >= list.bytes_held() as u64,
        "{} bytes, said {size:?}",
        list.bytes_held()
    );
}

/// A name behind the metrics was not counted, and yet written for each of them.
#[test]
fn a_name_behind_its_metrics_is_counted_with_each() {
    let name = "n".repeat(10_000);
    let named = family(&name, 1, Metric::default());
    let metric = [0x22, 2, 0x12, 0].repeat(1_000);
    let named = Family {
        metric: Vec::new(),
        ..named
    }
    .encode_to_vec();
    let whole = [metric, named].concat();
    let mut body = Vec::new();
    prost::encoding::encode_varint(whole.len() as u64, &mut body);
    body.extend(whole);
    is_as_large_as_was_said(&body, &read(&body, NATIVES).unwrap());
    assert!(size(&body).bytes >= 1_000 * 10_000);
}

/// Two bytes of an exemplar became forty that nobody had counted.
#[test]
fn exemplars_and_families_are_counted() {
    let counter = [0x12, 0].repeat(10_000);
    let in_bucket = [0x1a, 0].repeat(10_000);
    let labels = [0x0a, 0].repeat(3_000);
    let of = |number: u8, message: &[u8]| {
        let mut out = vec![number << 3 | 2];
        prost::encoding::encode_varint(message.len() as u64, &mut out);
        out.extend(message);
        out
    };
    let metric = |kind: u8, number: u8, data: &[u8]| {
        let parts = [of(1, b"a"), vec![0x18, kind], of(4, &of(number, data))].concat();
        of(0, &parts)[1..].to_vec()
    };
    let pages = [
        metric(0, 3, &counter),
        metric(0, 3, &of(2, &labels)),
        metric(4, 7, &of(3, &in_bucket)),
        metric(4, 7, &[0x82, 1, 0].repeat(10_000)),
        of(0, &of(1, b"a"))[1..].repeat(10_000),
    ];
    for (at, body) in pages.iter().enumerate() {
        match read(body, NATIVES) {
            Ok(list) => is_as_large_as_was_said(body, &list),
            Err(bad) => assert_eq!(at, 1, "{bad}"),
        }
    }
    assert!(size(&pages[1]).labels >= 3_000);
}

/// The fuzz target's claims, over pages that were right before some of their bytes were changed.
#[test]
fn a_page_that_was_damaged_is_none_or_is_as_large_as_was_said() {
    const CHANGES: u64 = 3_000;
    let good = page(&[
        histogram(both()),
        histogram(Hist {
            exemplars: vec![Example::default()],
            ..both()
        }),
    ]);
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: usize| {
        // Marsaglia, "Xorshift RNGs".
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut read_anyway = 0;
    for _ in 0..CHANGES {
        let mut body = good.clone();
        for _ in 0..=random(3) {
            let at = random(body.len());
            match random(3) {
                0 => body[at] = random(256) as u8,
                1 => body[at] ^= 1 << random(8),
                _ => drop(body.splice(at..at, [random(256) as u8])),
            }
        }
        let wanted = Wanted {
            natives: random(2) == 0,
            classics_beside: random(2) == 0,
        };
        let size = size(&body);
        let Ok(list) = read(&body, wanted) else { continue };
        read_anyway += 1;
        let labels: usize = list.iter().map(|series| series.labels().count()).sum();
        assert!(
            size.series >= list.len() as u64 && size.labels >= labels as u64,
            "{size:?} {body:?}"
        );
        assert!(size.bytes >= list.native_bytes() as u64, "{size:?} {body:?}");
        is_as_large_as_was_said(&body, &list);
        otlp(&list);
    }
    assert!(read_anyway > CHANGES / 20, "{read_anyway}");
}

/// A native histogram that is not there any more was told as a number that ended, under a name that never was a number.
#[test]
fn a_native_histogram_ends_as_one() {
    let mut before = read(&page(&[histogram(both())]), NATIVES).unwrap();
    before.forget_samples();
    let mut now = SeriesList::new();
    assert_eq!(now.end_missing(&before), Ok(1));
    let point = exponential(&now);
    assert_eq!((point.flags, point.count, point.time_unix_nano), (1, 0, 9_000_000_000));
    assert_eq!(now.end_missing(&before), Ok(0), "it has ended already");
}

#[test]
fn content_types() {
    assert!(is_it(MEDIA_TYPE));
    assert!(is_it(
        "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; escaping=values"
    ));
    for other in [
        "application/vnd.google.protobuf",
        "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=text",
        "text/plain; proto=io.prometheus.client.MetricFamily; encoding=delimited",
        "",
    ] {
        assert!(!is_it(other), "{other}");
    }
}
