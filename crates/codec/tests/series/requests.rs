//! Requests of remote write: any series there and back, and what hostile or broken senders get.

use std::collections::{BTreeMap, BTreeSet};

use codec::remote_write::read::{BadRequest, Families, Read, bytes_at_most, first_version, second_version};
use proptest::prelude::*;

use super::*;

/// A series as a sender has it.
#[derive(Debug, Clone, Default)]
struct Model {
    labels: BTreeMap<String, String>,
    kind: i32,
    help: String,
    unit: String,
    start_ms: i64,
    samples: Vec<(f64, i64)>,
    natives: Vec<proto::Histogram>,
    exemplars: Vec<(BTreeMap<String, String>, f64, i64)>,
}

const KINDS: [Kind; 8] = [
    Kind::Unknown,
    Kind::Counter,
    Kind::Gauge,
    Kind::Histogram,
    Kind::GaugeHistogram,
    Kind::Summary,
    Kind::Info,
    Kind::StateSet,
];

impl Model {
    fn new(name: &str, kind: i32, labels: &[(&str, &str)]) -> Model {
        let mut model = Model {
            kind,
            ..Model::default()
        };
        model.label("__name__", name);
        for (name, value) in labels {
            model.label(name, value);
        }
        model
    }

    fn label(&mut self, name: &str, value: &str) {
        self.labels.insert(name.into(), value.into());
    }

    fn sample(mut self, value: f64, time_ms: i64) -> Model {
        self.samples.push((value, time_ms));
        self
    }

    fn lines(&self, has_type: bool) -> Lines {
        let text = |labels: &BTreeMap<String, String>| {
            labels_text(labels.iter().map(|(name, value)| (name.as_str(), value.as_str())))
        };
        let kind = if has_type {
            KINDS[self.kind as usize]
        } else {
            Kind::Unknown
        };
        let start = if kind.counts() { self.start_ms } else { 0 };
        let head = format!("{kind:?} {}", text(&self.labels));
        let samples = self.samples.iter();
        let mut lines: Lines = samples
            .map(|(value, time_ms)| format!("{head} = {} at {time_ms} from {start}", value_text(*value)))
            .collect();
        for native in &self.natives {
            // A threshold of nothing is what OpenTelemetry means by 1e-128.
            let mut native = native.clone();
            if native.zero_threshold == 0.0 {
                native.zero_threshold = 1e-128;
            }
            lines.push(format!("{head} ~ {} from {}", native_text(&native), self.start_ms));
        }
        for (labels, value, time_ms) in &self.exemplars {
            lines.push(format!(
                "{head} # {} = {} at {time_ms}",
                text(labels),
                value_text(*value)
            ));
        }
        lines
    }
}

fn samples(model: &Model) -> Vec<proto::Sample> {
    let samples = model.samples.iter();
    samples
        .map(|(value, timestamp)| proto::Sample {
            value: *value,
            timestamp: *timestamp,
        })
        .collect()
}

fn first(models: &[Model]) -> proto::WriteRequest {
    let labels = |labels: &BTreeMap<String, String>| {
        let labels = labels.iter().map(|(name, value)| proto::Label {
            name: name.clone(),
            value: value.clone(),
        });
        labels.collect()
    };
    let timeseries = models.iter().map(|model| proto::TimeSeries {
        labels: labels(&model.labels),
        samples: samples(model),
        histograms: model.natives.clone(),
        exemplars: model
            .exemplars
            .iter()
            .map(|(of, value, timestamp)| proto::Exemplar {
                labels: labels(of),
                value: *value,
                timestamp: *timestamp,
            })
            .collect(),
    });
    proto::WriteRequest {
        timeseries: timeseries.collect(),
        metadata: Vec::new(),
    }
}

fn second(models: &[Model]) -> proto::Request {
    let mut symbols = vec![String::new()];
    let mut symbol = |text: &str| match symbols.iter().position(|known| known == text) {
        Some(at) => at as u32,
        None => {
            symbols.push(text.to_owned());
            symbols.len() as u32 - 1
        }
    };
    let mut timeseries = Vec::new();
    for model in models {
        let mut refs = |labels: &BTreeMap<String, String>| {
            let pairs = labels.iter();
            pairs.flat_map(|(name, value)| [symbol(name), symbol(value)]).collect()
        };
        timeseries.push(proto::TimeSeriesV2 {
            labels_refs: refs(&model.labels),
            samples: samples(model),
            histograms: model.natives.clone(),
            exemplars: model
                .exemplars
                .iter()
                .map(|(labels, value, timestamp)| proto::ExemplarV2 {
                    labels_refs: refs(labels),
                    value: *value,
                    timestamp: *timestamp,
                })
                .collect(),
            metadata: Some(proto::MetadataV2 {
                kind: model.kind,
                help_ref: symbol(&model.help),
                unit_ref: symbol(&model.unit),
            }),
            created_timestamp: model.start_ms,
        });
    }
    proto::Request { symbols, timeseries }
}

fn read_second(request: &proto::Request) -> Read {
    let message = request.encode_to_vec();
    let read = second_version(&message).expect("a request");
    assert!(held(&read) <= bytes_at_most(&message, Version::V2));
    read
}

fn read_first(request: &proto::WriteRequest) -> Read {
    let message = request.encode_to_vec();
    let mut families = Families::default();
    families.learn(&message).expect("a request");
    let read = first_version(&message, &families).expect("a request");
    assert!(held(&read) <= bytes_at_most(&message, Version::V1));
    read
}

fn held(read: &Read) -> u64 {
    read.list.bytes_held() as u64
}

/// Builds, and makes sure that it was not longer than was said before.
fn translate(read: &Read) -> Built {
    let built = build(&read.list, &options());
    assert!(built.payload.len() as u64 <= otlp::len_at_most(&read.list));
    built
}

fn expected(models: &[Model], has_type: bool) -> Lines {
    let mut lines: Lines = models.iter().flat_map(|model| model.lines(has_type)).collect();
    lines.sort();
    lines
}

// ---- any series ----

const TIMES: [i64; 3] = [1_700_000_000_000, 1_700_000_015_001, 1];

fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        3 => (-5i32..5).prop_map(f64::from),
        1 => any::<u64>().prop_map(f64::from_bits),
        1 => Just(codec::prometheus::STALE_NAN),
        1 => Just(f64::from_bits(0x7ff8_0000_0000_0001)),
    ]
}

fn any_labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    let name = prop_oneof![
        Just("job"),
        Just("instance"),
        Just("a"),
        Just("b__c"),
        Just("http.route"),
        Just("__replica__"),
        Just("_"),
        Just("otel_scope_name"),
        Just("otel_scope_version"),
        Just("otel_scope_schema_url"),
        Just("otel_scope_x.y"),
        Just("otel_scope_"),
        Just("service.name"),
        Just("key_1"),
    ];
    let value = prop_oneof![
        Just("x"),
        Just("a/b"),
        Just("/"),
        Just("a//b/"),
        Just("1"),
        Just("ü\"\\\n\0")
    ];
    proptest::collection::btree_map(name.prop_map(String::from), value.prop_map(String::from), 0..5)
}

fn any_exemplars() -> impl Strategy<Value = Vec<(BTreeMap<String, String>, f64, i64)>> {
    let name = prop_oneof![Just("trace_id"), Just("span_id"), Just("user.id"), Just("__x")];
    let value = prop_oneof![
        Just("0af7651916cd43dd8448eb211c80319c"),
        Just("0AF7651916CD43DD8448EB211C80319C"),
        Just("00f067aa0ba902b7"),
        Just("0000000000000000"),
        Just("x")
    ];
    let labels = proptest::collection::btree_map(name.prop_map(String::from), value.prop_map(String::from), 0..3);
    let exemplar = (labels, -3i32..9, 1i64..5).prop_map(|(labels, value, time)| (labels, f64::from(value), time));
    proptest::collection::vec(exemplar, 0..3)
}

fn described(mut models: Vec<Model>, labels: &BTreeMap<String, String>, help: usize, start: usize) -> Vec<Model> {
    for model in &mut models {
        model.labels.extend(labels.clone());
        model.help = ["", "Helps."][help % 2].into();
        model.unit = ["", "seconds"][help / 2 % 2].into();
        model.start_ms = [0, 1_600_000_000_001][start];
    }
    models
}

fn any_number() -> impl Strategy<Value = Vec<Model>> {
    let name = prop_oneof![
        Just("a"),
        Just("a_total"),
        Just("h"),
        Just("h_count"),
        Just("h_bucket"),
        Just("a.b"),
        Just("é"),
        Just("target_info")
    ];
    let values = proptest::collection::vec(any_value(), 1..4);
    let head = (name, 0i32..8, any_labels(), 0usize..4, 0usize..2);
    (head, values, any_exemplars()).prop_map(|((name, kind, labels, help, start), values, exemplars)| {
        let mut model = Model::new(name, kind, &[]);
        model.samples = values.into_iter().zip(TIMES).collect();
        model.exemplars = exemplars;
        described(vec![model], &labels, help, start)
    })
}

/// Whole or spoiled in one place.
fn any_histogram() -> impl Strategy<Value = Vec<Model>> {
    let counts = proptest::collection::vec(0u32..5, 1..5);
    let head = (
        any_labels(),
        0usize..4,
        0usize..2,
        prop_oneof![Just(3), Just(3), Just(3), Just(5)],
    );
    (head, counts, any_value(), any::<bool>(), 0usize..12, any_value()).prop_map(
        |((labels, help, start, kind), counts, sum, ended, spoil, other)| {
            let (mut models, mut all) = (Vec::new(), 0.0);
            let last = counts.len() - 1;
            for (at, count) in counts.iter().enumerate() {
                all += f64::from(*count);
                let bound = if at == last {
                    "+Inf".to_owned()
                } else {
                    format!("{at}.5")
                };
                let mut model = match kind {
                    3 => Model::new("h_bucket", kind, &[("le", &bound)]),
                    _ => Model::new("h", kind, &[("quantile", &bound)]),
                };
                if kind == 3 && at < last {
                    model.exemplars = vec![(BTreeMap::new(), at as f64 + 0.25, 7)];
                }
                model.samples = vec![(all, TIMES[0]), (all, TIMES[1])];
                models.push(model);
            }
            for (name, value) in [("h_sum", sum), ("h_count", all)] {
                models.push(
                    Model::new(name, kind, &[])
                        .sample(value, TIMES[0])
                        .sample(value, TIMES[1]),
                );
            }
            if ended {
                models
                    .iter_mut()
                    .for_each(|model| model.samples[1].0 = codec::prometheus::STALE_NAN);
            }
            let mut models = described(models, &labels, help, start);
            let at = spoil % models.len();
            match spoil {
                0..3 => drop(models.remove(at)),
                3..5 => models[at].samples[0].0 = other,
                5 => models[at].samples[0].1 += 1,
                6 => models[at].start_ms = 5,
                7 => drop(models[at].samples.remove(0)),
                _ => {}
            }
            models
        },
    )
}

fn any_native() -> impl Strategy<Value = Vec<Model>> {
    let span = || (0i32..5, 1u32..4).prop_map(|(offset, length)| proto::BucketSpan { offset, length });
    let side = || {
        (
            proptest::collection::vec(span(), 0..3),
            proptest::collection::vec(0i64..9, 9),
            -9i32..9,
        )
    };
    let head = (any_labels(), 0usize..4, 0usize..2, -4i32..9, any_value());
    (head, side(), side(), 0u64..3, any::<bool>(), any_exemplars()).prop_map(
        |((labels, help, start, schema, sum), positive, negative, zero_count_int, is_float, exemplars)| {
            let side = |(mut spans, counts, offset): (Vec<proto::BucketSpan>, Vec<i64>, i32)| {
                if let Some(first) = spans.first_mut() {
                    first.offset = offset;
                }
                let length: u32 = spans.iter().map(|span| span.length).sum();
                (spans, counts[..length as usize].to_vec())
            };
            let deltas = |counts: &[i64]| {
                let before = [0].into_iter().chain(counts.iter().copied());
                counts
                    .iter()
                    .zip(before)
                    .map(|(count, before)| count - before)
                    .collect()
            };
            let floats = |counts: &[i64]| counts.iter().map(|count| *count as f64).collect();
            let ((positive_spans, positive), (negative_spans, negative)) = (side(positive), side(negative));
            let count = zero_count_int + positive.iter().chain(&negative).sum::<i64>() as u64;
            let mut native = proto::Histogram {
                count_int: count,
                sum,
                schema,
                zero_threshold: [0.0, 0.25][(count % 2) as usize],
                zero_count_int,
                negative_spans,
                negative_deltas: deltas(&negative),
                positive_spans,
                positive_deltas: deltas(&positive),
                timestamp: TIMES[0],
                ..proto::Histogram::default()
            };
            if is_float {
                (native.count_int, native.count_float) = (0, Some(count as f64));
                (native.zero_count_int, native.zero_count_float) = (0, Some(zero_count_int as f64));
                (native.negative_deltas, native.negative_counts) = (Vec::new(), floats(&negative));
                (native.positive_deltas, native.positive_counts) = (Vec::new(), floats(&positive));
            }
            let mut model = Model::new("n", 3, &[]);
            model.natives = vec![native];
            model.exemplars = exemplars;
            described(vec![model], &labels, help, start)
        },
    )
}

/// Each series once, in any order.
fn any_models() -> impl Strategy<Value = Vec<Model>> {
    let some = prop_oneof![any_number(), any_histogram(), any_native()];
    proptest::collection::vec(some, 0..6).prop_flat_map(|models| {
        let mut known = BTreeSet::new();
        let models: Vec<Model> = models
            .into_iter()
            .flatten()
            .filter(|model| known.insert(model.labels.clone()))
            .collect();
        Just(models).prop_shuffle()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Names, labels, values, times, types, starts, ends and exemplars.
    #[test]
    fn series_come_back_as_they_were(models in any_models()) {
        let read = read_second(&second(&models));
        prop_assert_eq!(&read.refused, &[]);
        let built = translate(&read);
        prop_assert_eq!(told(&built.payload), expected(&models, true));
        prop_assert_eq!((built.bad_times, built.lone_exemplars), (0, 0));

        let read = read_first(&first(&models));
        prop_assert_eq!(&read.refused, &[]);
        // What 1.0 does not tell: types and starts.
        let mut untyped = models.clone();
        untyped.iter_mut().for_each(|model| model.start_ms = 0);
        prop_assert_eq!(told(&translate(&read).payload), expected(&untyped, false));
    }

    #[test]
    fn any_bytes(bytes: Vec<u8>) {
        check_bytes(&bytes);
    }

    /// Bytes that nearly are a request.
    #[test]
    fn broken_requests(models in any_models(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        for mut message in [first(&models).encode_to_vec(), second(&models).encode_to_vec()] {
            if !message.is_empty() {
                let at = at.index(message.len());
                message[at] = byte;
                message.truncate(cut.index(message.len()).max(at + 1));
            }
            check_bytes(&message);
        }
    }
}

fn check_bytes(message: &[u8]) {
    let mut families = Families::default();
    let _ = families.learn(message);
    for (version, read) in [
        (Version::V1, first_version(message, &families)),
        (Version::V2, second_version(message)),
    ] {
        let Ok(read) = read else { continue };
        assert!(held(&read) <= bytes_at_most(message, version), "{version:?}");
        translate(&read);
    }
}

// ---- what senders should not send ----

fn refused(read: &Read) -> Vec<String> {
    let refused = read.refused.iter();
    refused
        .map(|refused| format!("{}: {}", refused.labels, refused.why))
        .collect()
}

#[test]
fn one_bad_series_costs_only_itself() {
    let good = Model::new("good", 1, &[]).sample(1.0, 5);
    let label = |name: &str, value: &str| proto::Label {
        name: name.into(),
        value: value.into(),
    };
    for (labels, expect) in [
        (vec![label("a", "b")], r#"{a="b"}: a series has no name"#),
        (vec![], "{}: a series has no name"),
        (vec![label("__name__", "")], "{}: a series has no name"),
        (
            vec![label("__name__", "n"), label("", "x")],
            r#"{="x", __name__="n"}: a label has no name"#,
        ),
        (
            vec![label("b", "1"), label("__name__", "n"), label("b", "2")],
            r#"{__name__="n", b="1", b="2"}: a label is there twice"#,
        ),
    ] {
        let bad = proto::TimeSeries {
            labels: labels.clone(),
            samples: vec![proto::Sample::default(); 2],
            exemplars: vec![proto::Exemplar::default()],
            ..proto::TimeSeries::default()
        };
        let mut request = first(std::slice::from_ref(&good));
        request.timeseries.insert(0, bad);
        let read = read_first(&request);
        assert_eq!(refused(&read), [expect]);
        assert_eq!((read.refused_items, read.refused_exemplars), (2, 1));
        assert_eq!(told(&translate(&read).payload), good.lines(false));
    }
    for (refs, expect) in [
        (
            vec![1, 2, 1],
            "{__name__=\"good\"}: the references of its labels come in pairs, and these are odd",
        ),
        (
            vec![1, 2, 9, 9],
            "{__name__=\"good\"}: a label refers to symbol 9, and there are 4",
        ),
        (vec![1, 2, 0, 2], "{=\"good\", __name__=\"good\"}: a label has no name"),
        (
            vec![1, 2, 1, 2],
            "{__name__=\"good\", __name__=\"good\"}: a label is there twice",
        ),
    ] {
        let mut request = second(std::slice::from_ref(&good));
        request.symbols.push("more".into());
        let bad = proto::TimeSeriesV2 {
            labels_refs: refs,
            samples: vec![proto::Sample::default()],
            ..proto::TimeSeriesV2::default()
        };
        request.timeseries.push(bad);
        let read = read_second(&request);
        assert_eq!(refused(&read), [expect]);
        assert_eq!(told(&translate(&read).payload), good.lines(true));
    }
    // Not sorted, an empty value, and a symbol that nobody refers to and that is no text.
    let mut message = proto::Request {
        symbols: ["", "b", "1", "__name__", "n"].map(String::from).into(),
        timeseries: vec![proto::TimeSeriesV2 {
            labels_refs: vec![1, 2, 3, 4, 4, 0],
            samples: vec![
                proto::Sample {
                    value: 1.0,
                    timestamp: 9,
                },
                proto::Sample {
                    value: 2.0,
                    timestamp: 8,
                },
            ],
            ..proto::TimeSeriesV2::default()
        }],
    }
    .encode_to_vec();
    message.extend_from_slice(&[4 << 3 | 2, 1, 0xff]);
    let read = second_version(&message).expect("a request");
    assert_eq!(refused(&read), [""; 0]);
    assert_eq!(
        told(&translate(&read).payload),
        [
            "Unknown __name__=\"n\" b=\"1\" = 1.0 at 9 from 0",
            "Unknown __name__=\"n\" b=\"1\" = 2.0 at 8 from 0"
        ]
    );
}

#[test]
fn native_histograms_that_are_none() {
    let good = proto::Histogram {
        count_int: 3,
        positive_spans: vec![proto::BucketSpan { offset: 0, length: 2 }],
        positive_deltas: vec![1, 1],
        timestamp: 5,
        ..proto::Histogram::default()
    };
    let span = |offset, length| proto::BucketSpan { offset, length };
    let check = |spoil: &dyn Fn(&mut proto::Histogram), expect: &str| {
        let mut bad = good.clone();
        spoil(&mut bad);
        let mut model = Model::new("n", 3, &[]);
        model.natives = vec![bad, good.clone()];
        let read = read_second(&second(&[model]));
        assert_eq!(refused(&read), [format!("{{__name__=\"n\"}}: {expect}")]);
        assert_eq!((read.refused_items, translate(&read).histograms), (1, 1));
    };
    check(&|h| h.schema = 9, "the schema 9 of a native histogram is not known");
    check(&|h| h.schema = -5, "the schema -5 of a native histogram is not known");
    check(
        &|h| h.count_int = 2,
        "a native histogram has less observations than its buckets together",
    );
    check(
        &|h| h.positive_deltas = vec![1, -2],
        "a native histogram has a negative count",
    );
    check(
        &|h| h.count_float = Some(3.5),
        "a native histogram has counts that are no whole numbers, which OTLP does not have",
    );
    let spans = "the spans of a native histogram name another number of buckets than it has";
    check(&|h| h.positive_spans = vec![span(0, 1)], spans);
    check(&|h| h.positive_spans = vec![span(0, 1), span(-3, 1)], spans);
    check(&|h| h.positive_spans = vec![span(0, u32::MAX)], spans);
    let wide = "a native histogram spans more than 16384 buckets";
    check(&|h| h.positive_spans = vec![span(0, 1), span(16_383, 1)], wide);
    check(&|h| h.positive_spans = vec![span(i32::MIN, 2)], wide);
    let custom = |h: &mut proto::Histogram, bounds: &[f64]| {
        h.schema = -53;
        h.custom_values = bounds.to_vec();
    };
    check(
        &|h| custom(h, &[2.0, 1.0]),
        "the bounds of a native histogram do not ascend",
    );
    check(
        &|h| custom(h, &[f64::NAN]),
        "the bounds of a native histogram do not ascend",
    );
    check(&|h| custom(h, &[]), spans);
}

#[test]
fn buckets_of_ones_own_become_bounds() {
    let mut model = Model::new("n", 3, &[]);
    model.natives = vec![proto::Histogram {
        count_int: 6,
        sum: 9.5,
        schema: -53,
        positive_spans: vec![proto::BucketSpan { offset: 1, length: 2 }],
        positive_deltas: vec![2, 2],
        custom_values: vec![0.5, 1.0],
        timestamp: 5,
        ..proto::Histogram::default()
    }];
    let built = translate(&read_second(&second(&[model])));
    let bucket = |le: &str, count: f64| format!("Histogram __name__=\"n_bucket\" le=\"{le}\" = {count:?} at 5 from 0");
    assert_eq!(
        told(&built.payload),
        [
            bucket("+Inf", 6.0),
            bucket("0.5", 0.0),
            bucket("1.0", 2.0),
            "Histogram __name__=\"n_count\" = 6.0 at 5 from 0".into(),
            "Histogram __name__=\"n_sum\" = 9.5 at 5 from 0".into(),
        ]
    );
}

#[test]
fn a_small_request_that_becomes_a_large_one_is_refused() {
    let long = "x".repeat(10_000);
    let mut model = Model::new("n", 0, &[("a", &long)]);
    model.samples = vec![(1.0, 5); 10_000];
    let read = read_second(&second(&[model]));
    let options = otlp::Options {
        max_bytes: 50 << 20,
        ..options()
    };
    let error = otlp::build(&read.list, &options).expect_err("100 MB");
    assert!(error.to_string().contains("more than 52428800 bytes"), "{error}");
    assert!(otlp::len_at_most(&read.list) > 100_000_000);
}

#[test]
fn exemplars_find_their_sample_and_times_their_bounds() {
    let exemplar = |value: f64| vec![(BTreeMap::from([("x".into(), "y".into())]), value, 4)];
    let mut lone = Model::new("a", 1, &[]);
    lone.exemplars = exemplar(1.0);
    let mut lost = Model::new("b", 1, &[]);
    lost.exemplars = exemplar(2.0);
    let early = Model::new("a", 1, &[]).sample(1.0, -5).sample(2.0, i64::MAX);
    let sample = Model::new("a", 1, &[]).sample(3.0, 5);
    let built = translate(&read_second(&second(&[lone, early, lost, sample])));
    assert_eq!((built.lone_exemplars, built.bad_times), (1, 2));
    assert_eq!(
        told(&built.payload),
        [
            "Counter __name__=\"a\" # x=\"y\" = 1.0 at 4",
            "Counter __name__=\"a\" = 3.0 at 5 from 0"
        ]
    );
}

#[test]
fn types_of_the_first_version_come_when_they_come() {
    let metadata = |kind, name: &str| proto::MetricMetadata {
        kind,
        metric_family_name: name.into(),
        help: "Helps.".into(),
        unit: String::new(),
    };
    let mut families = Families::default();
    let models = ["a_total", "h_sum", "g", "a"].map(|name| Model::new(name, 0, &[]).sample(1.0, 5));
    let request = first(&models).encode_to_vec();
    let kinds = |families: &Families| -> Vec<Kind> {
        let read = first_version(&request, families).expect("a request");
        read.list.iter().map(|series| series.kind()).collect()
    };
    assert_eq!(kinds(&families), [Kind::Unknown; 4]);
    let described = proto::WriteRequest {
        timeseries: Vec::new(),
        metadata: vec![metadata(1, "a"), metadata(3, "h"), metadata(2, "g")],
    };
    assert!(Families::are_in(&described.encode_to_vec()) && !Families::are_in(&request));
    families.learn(&described.encode_to_vec()).expect("a request");
    assert_eq!(
        kinds(&families),
        [Kind::Counter, Kind::Histogram, Kind::Gauge, Kind::Counter]
    );
    // What is remembered has a bound.
    for number in 0..5_000 {
        let described = proto::WriteRequest {
            timeseries: Vec::new(),
            metadata: vec![metadata(2, &format!("{number}{}", "x".repeat(1000)))],
        };
        families.learn(&described.encode_to_vec()).expect("a request");
        assert!(families.bytes() <= codec::remote_write::read::MAX_FAMILIES_BYTES);
    }
    assert_eq!(kinds(&families), [Kind::Unknown; 4]);
}

#[test]
fn what_is_no_request() {
    assert_eq!(
        second_version(b"\x2a\xff").expect_err("cut"),
        BadRequest::Protobuf("Request")
    );
    assert_eq!(
        second_version(b"\x2a\x02\x0a\x05").expect_err("cut").to_string(),
        "TimeSeries is no protobuf"
    );
    let families = Families::default();
    assert_eq!(
        first_version(b"\x0a\x04\x12\x02\x09\x00", &families)
            .expect_err("cut")
            .to_string(),
        "Sample is no protobuf"
    );
}
