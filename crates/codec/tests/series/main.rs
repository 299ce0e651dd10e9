//! Series become OTLP and the same series again: what a page or a request says is what the exporter of remote write says afterwards, if it adds nothing.

#[path = "../remote_write/proto.rs"]
#[allow(dead_code, reason = "the messages of 1.0 are for the other test")]
mod proto;

mod pages;
mod requests;

use codec::prometheus::naming::Strategy as Translation;
use codec::prometheus::otlp::{self, Built, Job, TargetInfo};
use codec::prometheus::series::{SeriesList, is_stale};
use codec::prometheus::{Kind, labels};
use codec::remote_write::{Encoder, Options, Version};
use model::Signal;
use model::canonical::canonicalize;
use prost::Message;

const NOW_MS: i64 = 1_700_000_000_123;

/// A series in words: type, labels, then value, time and start of each sample, then exemplars.
type Lines = Vec<String>;

fn value_text(value: f64) -> String {
    match value {
        value if is_stale(value) => "stale".into(),
        value if value.is_nan() => format!("NaN:{:x}", value.to_bits()),
        value => format!("{value:?}"),
    }
}

fn labels_text<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let labels: Vec<String> = labels
        .into_iter()
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
    labels.join(" ")
}

/// What a list holds, series by series in order.
fn said(list: &SeriesList) -> Lines {
    let mut lines = Lines::new();
    for series in list.iter() {
        let head = format!("{:?} {}", series.kind(), labels_text(series.labels()));
        for sample in series.samples() {
            lines.push(format!(
                "{head} = {} at {} from {}",
                value_text(sample.value),
                sample.time_ms.unwrap_or(NOW_MS),
                sample.start_ms
            ));
        }
        let default = series
            .samples()
            .last()
            .and_then(|sample| sample.time_ms)
            .unwrap_or(NOW_MS);
        for (labels, value, time_ms) in series.exemplars() {
            lines.push(format!(
                "{head} # {} = {} at {}",
                labels_text(labels),
                value_text(value),
                time_ms.unwrap_or(default)
            ));
        }
    }
    lines.sort();
    lines
}

fn options() -> otlp::Options {
    otlp::Options {
        time_ms: NOW_MS,
        job: Job::Parted,
        target_info: TargetInfo::Kept,
        max_bytes: 1 << 30,
    }
}

/// Builds, and makes sure that what was built is what a door would have made of it.
fn build(list: &SeriesList, options: &otlp::Options) -> Built {
    let built = otlp::build(list, options).expect("small");
    let canonical = canonicalize(Signal::Metrics, built.payload.clone().into()).expect("OTLP");
    assert!(!canonical.rewritten, "it is canonical");
    assert!(canonical.rejected.is_empty());
    assert_eq!(u64::from(canonical.items), built.points);
    built
}

/// What a native histogram says, however it is written.
fn native_text(native: &proto::Histogram) -> String {
    let side = |spans: &[proto::BucketSpan], deltas: &[i64], counts: &[f64]| {
        let (mut index, mut count) = (0i64, 0);
        let mut deltas = deltas.iter();
        let mut counts = counts.iter();
        let mut buckets = Vec::new();
        for span in spans {
            index += i64::from(span.offset);
            for _ in 0..span.length {
                count += deltas.next().copied().unwrap_or_default();
                let whole = counts.next().map_or(count, |count| *count as i64);
                if whole != 0 {
                    buckets.push((index, whole));
                }
                index += 1;
            }
        }
        buckets
    };
    if is_stale(native.sum) {
        return format!("stale at {}", native.timestamp);
    }
    format!(
        "{} sum {} schema {} zero {} below {:?} {:?} {:?} at {}",
        native.count_float.map_or(native.count_int, |count| count as u64),
        value_text(native.sum),
        native.schema,
        native
            .zero_count_float
            .map_or(native.zero_count_int, |count| count as u64),
        native.zero_threshold,
        side(&native.negative_spans, &native.negative_deltas, &native.negative_counts),
        side(&native.positive_spans, &native.positive_deltas, &native.positive_counts),
        native.timestamp,
    )
}

/// What the exporter makes of it.
fn told(payload: &[u8]) -> Lines {
    let options = Options {
        version: Version::V2,
        labels: labels::Options {
            strategy: Translation::NoTranslation,
            scope: true,
            ..labels::Options::default()
        },
        ..Options::default()
    };
    let encoded = Encoder::new(options).encode(payload);
    assert_eq!(encoded.rejected.total(), 0, "{:?}", encoded.rejected);
    let mut lines = Lines::new();
    for request in &encoded.requests {
        let request = proto::Request::decode(request.bytes.as_slice()).expect("2.0");
        let labels = |refs: &[u32]| {
            let pair = |pair: &[u32]| [pair[0], pair[1]].map(|symbol| request.symbols[symbol as usize].clone());
            let pairs: Vec<[String; 2]> = refs.chunks_exact(2).map(pair).collect();
            labels_text(pairs.iter().map(|[name, value]| (name.as_str(), value.as_str())))
        };
        for series in &request.timeseries {
            let kind = [
                Kind::Unknown,
                Kind::Counter,
                Kind::Gauge,
                Kind::Histogram,
                Kind::GaugeHistogram,
                Kind::Summary,
                Kind::Info,
                Kind::StateSet,
            ][series.metadata.as_ref().map_or(0, |metadata| metadata.kind) as usize];
            let head = format!("{kind:?} {}", labels(&series.labels_refs));
            for sample in &series.samples {
                lines.push(format!(
                    "{head} = {} at {} from {}",
                    value_text(sample.value),
                    sample.timestamp,
                    series.created_timestamp
                ));
            }
            for native in &series.histograms {
                lines.push(format!(
                    "{head} ~ {} from {}",
                    native_text(native),
                    series.created_timestamp
                ));
            }
            for exemplar in &series.exemplars {
                lines.push(format!(
                    "{head} # {} = {} at {}",
                    labels(&exemplar.labels_refs),
                    value_text(exemplar.value),
                    exemplar.timestamp
                ));
            }
        }
    }
    lines.sort();
    lines
}

/// There and back.
fn same(list: &SeriesList) -> Built {
    let built = build(list, &options());
    assert_eq!((built.bad_times, built.lone_exemplars), (0, 0));
    assert_eq!(told(&built.payload), said(list));
    built
}
