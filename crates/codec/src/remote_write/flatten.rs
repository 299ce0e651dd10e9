//! Points become series: what is one histogram in OTLP is a series per bucket, and one each for sum and count.

use std::cmp::Ordering::{Equal, Less};

use model::view::list::Packed;
use model::view::metrics::{
    Data, Exemplar, ExponentialHistogramPoint, HistogramPoint, Metric, Number, NumberPoint, SummaryPoint,
    resource_metrics,
};
use model::view::{Attributes, List};

use super::native;
use super::request::Writer;
use super::series::SeriesSet;
use super::{Encoded, Options, Rejected};
use crate::max_made_bytes;
use crate::prometheus::labels::{Labels, Pairs};
use crate::prometheus::{FLAG_NO_RECORDED_VALUE, Kind, STALE_NAN, TEMPORALITY_CUMULATIVE, millis, naming, number};

/// Translates batches. It is kept for its buffers; nothing of one batch reaches the next.
#[derive(Debug)]
pub struct Encoder {
    options: Options,
    labels: Labels,
    exemplar_labels: Labels,
    set: SeriesSet,
    metric: MetricNames,
    point: PointLabels,
    bounds: Bounds,
    /// The series of a histogram's buckets, with their bounds, for exemplars.
    buckets: Vec<(f64, u32)>,
    scratch: Vec<u8>,
    writer: Writer,
    rejected: Rejected,
    newest_unix_nano: u64,
    /// What labels may still take: those of a histogram stand in the series of each of its buckets.
    left_bytes: usize,
}

/// The names that a metric's series have, as encoded labels.
#[derive(Debug, Default)]
struct MetricNames {
    text: String,
    suffixed: String,
    family: u32,
    plain: Vec<u8>,
    bucket: Vec<u8>,
    sum: Vec<u8>,
    count: Vec<u8>,
    created: Vec<u8>,
}

/// A point's labels, encoded, with the places where name and bound belong, so that the series of a histogram are put together by copying.
#[derive(Debug, Default)]
struct PointLabels {
    encoded: Vec<u8>,
    name_at: usize,
    extra_at: usize,
    whole: Vec<u8>,
}

/// The bounds of the last histogram with their labels: most of a metric's points have the same.
#[derive(Debug, Default)]
struct Bounds {
    values: Vec<f64>,
    labels: Vec<u8>,
    ends: Vec<usize>,
}

/// The family of a series that is one of a histogram's or a summary's, which came from Prometheus and stayed that.
fn family_of_part(name: &str, kind: Kind) -> &str {
    let suffixes: &[&str] = match kind {
        Kind::Histogram => &["_bucket", "_sum", "_count"],
        Kind::GaugeHistogram => &["_bucket", "_gsum", "_gcount"],
        Kind::Summary => &["_sum", "_count"],
        _ => &[],
    };
    suffixes
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .unwrap_or(name)
}

const NAME: &str = "__name__";
const TARGET_INFO: &str = "target_info";
const TARGET_INFO_HELP: &str = "Target metadata";

impl PointLabels {
    fn set(&mut self, set: &mut SeriesSet, pairs: Pairs<'_>, extra: &str) {
        self.encoded.clear();
        let (mut name_at, mut extra_at) = (None, None);
        for (name, value) in pairs.iter() {
            if name == NAME || (name == extra && !extra.is_empty()) {
                continue;
            }
            if name_at.is_none() && name > NAME {
                name_at = Some(self.encoded.len());
            }
            if extra_at.is_none() && name > extra {
                extra_at = Some(self.encoded.len());
            }
            set.put_label(&mut self.encoded, name, value);
        }
        self.name_at = name_at.unwrap_or(self.encoded.len());
        // `le` and `quantile` sort behind the name; without either, the place does not matter.
        self.extra_at = extra_at.unwrap_or(self.encoded.len()).max(self.name_at);
    }

    fn with(&mut self, name: &[u8], extra: &[u8]) -> &[u8] {
        self.whole.clear();
        self.whole.extend_from_slice(&self.encoded[..self.name_at]);
        self.whole.extend_from_slice(name);
        self.whole.extend_from_slice(&self.encoded[self.name_at..self.extra_at]);
        self.whole.extend_from_slice(extra);
        self.whole.extend_from_slice(&self.encoded[self.extra_at..]);
        &self.whole
    }
}

impl MetricNames {
    fn set(&mut self, set: &mut SeriesSet, kind: Kind) {
        let distributed = matches!(kind, Kind::Histogram | Kind::Summary);
        // OpenMetrics: `x_total` began at `x_created`.
        let base = self.text.strip_suffix("_total").unwrap_or(&self.text);
        for (label, name, suffix, is_used) in [
            (&mut self.plain, self.text.as_str(), "", true),
            (&mut self.bucket, &self.text, "_bucket", distributed),
            (&mut self.sum, &self.text, "_sum", distributed),
            (&mut self.count, &self.text, "_count", distributed),
            (&mut self.created, base, "_created", kind != Kind::Gauge),
        ] {
            label.clear();
            if is_used {
                self.suffixed.clear();
                self.suffixed.push_str(name);
                self.suffixed.push_str(suffix);
                set.put_label(label, NAME, &self.suffixed);
            }
        }
    }
}

impl Bounds {
    /// A bound that is no finite number is left out: beyond all numbers it would be a second bucket that has everything.
    fn set(&mut self, set: &mut SeriesSet, bounds: Packed<'_>) {
        let finite = || bounds.doubles().filter(|bound| bound.is_finite());
        if !self.ends.is_empty() && self.values.iter().copied().eq(finite()) {
            return;
        }
        self.values.clear();
        self.labels.clear();
        self.ends.clear();
        let mut text = String::new();
        // The last is that of the bucket which has all.
        for bound in finite().chain([f64::INFINITY]) {
            text.clear();
            number::canonical(&mut text, bound);
            set.put_label(&mut self.labels, "le", &text);
            self.values.push(bound);
            self.ends.push(self.labels.len());
        }
        self.values.pop();
    }

    fn label(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.labels[start..self.ends[at]]
    }
}

impl Encoder {
    pub fn new(options: Options) -> Encoder {
        let exemplars = crate::prometheus::labels::Options {
            strategy: options.labels.strategy,
            ..Default::default()
        };
        Encoder {
            labels: Labels::new(options.labels.clone()),
            exemplar_labels: Labels::new(exemplars),
            set: SeriesSet::new(options.version),
            metric: MetricNames::default(),
            point: PointLabels::default(),
            bounds: Bounds::default(),
            buckets: Vec::new(),
            scratch: Vec::new(),
            writer: Writer::default(),
            rejected: Rejected::default(),
            newest_unix_nano: 0,
            left_bytes: 0,
            options,
        }
    }

    /// Translates a canonical payload of metrics.
    pub fn encode(&mut self, payload: &[u8]) -> Encoded {
        self.set.clear();
        self.bounds = Bounds::default();
        self.rejected = Rejected::default();
        self.left_bytes = max_made_bytes(payload.len());
        for group in resource_metrics(payload) {
            let resource = group.owner();
            self.labels.resource(&resource);
            self.newest_unix_nano = 0;
            for scope in group.list() {
                let schema_url = if self.options.labels.scope {
                    scope.schema_url()
                } else {
                    ""
                };
                self.labels.scope(&scope.owner(), schema_url);
                for metric in scope.list() {
                    self.metric(&metric);
                }
            }
            if self.options.target_info
                && self.newest_unix_nano > 0
                && let Some(pairs) = self.labels.target(&resource)
            {
                let Encoder {
                    set, point, scratch, ..
                } = self;
                point.set(set, pairs, "");
                scratch.clear();
                set.put_label(scratch, NAME, TARGET_INFO);
                let family = set.family(TARGET_INFO, Kind::Info, TARGET_INFO_HELP, "");
                let series = set.series(point.with(scratch, &[]), family, 0);
                set.sample(series, millis(self.newest_unix_nano), 1.0, false);
            }
        }
        let mut encoded = Encoded {
            rejected: self.rejected,
            requests: Vec::new(),
            series: self.set.identities(),
        };
        self.writer.write(&self.set, &self.options, &mut encoded);
        encoded
    }

    fn metric(&mut self, metric: &Metric<'_>) {
        let Some(kind) = Kind::of(metric) else { return };
        let temporality = match metric.data {
            Data::Sum { temporality, .. }
            | Data::Histogram { temporality, .. }
            | Data::ExponentialHistogram { temporality, .. } => temporality,
            _ => TEMPORALITY_CUMULATIVE,
        };
        if temporality != TEMPORALITY_CUMULATIVE {
            let points = match metric.data {
                Data::Sum { points, .. } => points.count(),
                Data::Histogram { points, .. } => points.count(),
                Data::ExponentialHistogram { points, .. } => points.count(),
                _ => 0,
            };
            self.rejected.temporality += points as u32;
            return;
        }
        let options = &self.options;
        let unit = metric.unit;
        naming::metric(
            &mut self.metric.text,
            options.labels.strategy,
            &options.namespace,
            metric.name,
            naming::told_unit(metric),
            kind,
        );
        let family = match metric.data {
            Data::Gauge { .. } | Data::Sum { .. } => family_of_part(&self.metric.text, kind),
            _ => &self.metric.text,
        };
        self.metric.family = self.set.family(family, kind, metric.description, unit);
        self.metric.set(&mut self.set, kind);
        match metric.data {
            Data::None => {}
            Data::Gauge { points } | Data::Sum { points, .. } => {
                for point in points {
                    self.number(&point, kind);
                }
            }
            Data::Histogram { points, .. } => {
                for point in points {
                    self.histogram(&point);
                }
            }
            Data::ExponentialHistogram { points, .. } => {
                for point in points {
                    self.exponential(&point);
                }
            }
            Data::Summary { points } => {
                for point in points {
                    self.summary(&point);
                }
            }
        }
    }

    /// Prepares the labels of a point that becomes so many series; `false` if with them there is more than is made of one payload.
    fn begin(&mut self, attributes: &Attributes<'_>, extra: &str, time_unix_nano: u64, series: usize) -> bool {
        let pairs = self.labels.point(attributes);
        self.point.set(&mut self.set, pairs, extra);
        let name_bytes = self.metric.plain.len().max(self.metric.bucket.len());
        let bytes = (self.point.encoded.len() + name_bytes).saturating_mul(series);
        let Some(left) = self.left_bytes.checked_sub(bytes) else {
            self.rejected.too_large += 1;
            return false;
        };
        self.left_bytes = left;
        self.newest_unix_nano = self.newest_unix_nano.max(time_unix_nano);
        true
    }

    fn created(&mut self, start_unix_nano: u64, time_ms: i64) {
        if self.options.created && start_unix_nano > 0 {
            let Encoder { set, point, metric, .. } = self;
            let series = set.series(point.with(&metric.created, &[]), metric.family, 0);
            set.sample(series, time_ms, millis(start_unix_nano) as f64 / 1000.0, false);
        }
    }

    fn number(&mut self, point: &NumberPoint<'_>, kind: Kind) {
        let value = match (point.flags & FLAG_NO_RECORDED_VALUE != 0, point.value) {
            (true, _) => STALE_NAN,
            (false, Number::Int(value)) => value as f64,
            (false, Number::Double(value)) => value,
            (false, Number::None) => {
                self.rejected.no_value += 1;
                return;
            }
        };
        // Beside its own that of the time of creation.
        let series = if kind.counts() { 2 } else { 1 };
        if !self.begin(&point.attributes, "", point.time_unix_nano, series) {
            return;
        }
        let time_ms = millis(point.time_unix_nano);
        let start_ms = if kind.counts() {
            millis(point.start_unix_nano)
        } else {
            0
        };
        let Encoder {
            set,
            point: labels,
            metric,
            ..
        } = self;
        let series = set.series(labels.with(&metric.plain, &[]), metric.family, start_ms);
        set.sample(series, time_ms, value, true);
        if kind == Kind::Counter {
            self.created(point.start_unix_nano, time_ms);
        }
        self.exemplars(&point.exemplars, |_| Some(series));
    }

    fn histogram(&mut self, point: &HistogramPoint<'_>) {
        // Beside the buckets one that has all, sum, count and the time of creation.
        let series = point.explicit_bounds.doubles().count() + 4;
        if !self.begin(&point.attributes, "le", point.time_unix_nano, series) {
            return;
        }
        let time_ms = millis(point.time_unix_nano);
        let start_ms = millis(point.start_unix_nano);
        let ended = point.flags & FLAG_NO_RECORDED_VALUE != 0;
        let number = |count: u64| if ended { STALE_NAN } else { count as f64 };
        let Encoder {
            set,
            point: labels,
            metric,
            bounds,
            buckets,
            ..
        } = self;
        bounds.set(set, point.explicit_bounds);
        buckets.clear();
        let mut counts = point.bucket_counts.integers();
        let mut below = 0u64;
        if counts.len() > 0 {
            let mut at = 0;
            for bound in point.explicit_bounds.doubles() {
                below = below.saturating_add(counts.next().unwrap_or_default());
                if !bound.is_finite() {
                    continue;
                }
                let series = set.series(labels.with(&metric.bucket, bounds.label(at)), metric.family, start_ms);
                set.sample(series, time_ms, number(below), false);
                buckets.push((bound, series));
                at += 1;
            }
        }
        let all = set.series(
            labels.with(&metric.bucket, bounds.label(bounds.values.len())),
            metric.family,
            start_ms,
        );
        set.sample(all, time_ms, number(point.count), false);
        buckets.push((f64::INFINITY, all));
        if let Some(sum) = point.sum {
            let series = set.series(labels.with(&metric.sum, &[]), metric.family, start_ms);
            set.sample(series, time_ms, if ended { STALE_NAN } else { sum }, false);
        }
        let series = set.series(labels.with(&metric.count, &[]), metric.family, start_ms);
        set.sample(series, time_ms, number(point.count), true);
        self.created(point.start_unix_nano, time_ms);
        let buckets = std::mem::take(&mut self.buckets);
        self.exemplars(&point.exemplars, |value| {
            // Bounds ascend, and a point may have as many exemplars as buckets. NaN is in none.
            let at = buckets.partition_point(|(bound, _)| !matches!(value.partial_cmp(bound), Some(Less | Equal)));
            buckets.get(at).map(|(_, series)| *series)
        });
        self.buckets = buckets;
    }

    fn exponential(&mut self, point: &ExponentialHistogramPoint<'_>) {
        let start = self.set.bytes.len();
        if native::write(&mut self.set.bytes, point).is_err() {
            self.set.bytes.truncate(start);
            self.rejected.scale += 1;
            return;
        }
        let body = start..self.set.bytes.len();
        if !self.begin(&point.attributes, "", point.time_unix_nano, 2) {
            self.set.bytes.truncate(start);
            return;
        }
        let time_ms = millis(point.time_unix_nano);
        let Encoder {
            set,
            point: labels,
            metric,
            ..
        } = self;
        let series = set.series(
            labels.with(&metric.plain, &[]),
            metric.family,
            millis(point.start_unix_nano),
        );
        set.native(series, time_ms, body);
        self.created(point.start_unix_nano, time_ms);
        self.exemplars(&point.exemplars, |_| Some(series));
    }

    fn summary(&mut self, point: &SummaryPoint<'_>) {
        if !self.begin(
            &point.attributes,
            "quantile",
            point.time_unix_nano,
            point.quantiles.count() + 3,
        ) {
            return;
        }
        let time_ms = millis(point.time_unix_nano);
        let start_ms = millis(point.start_unix_nano);
        let ended = point.flags & FLAG_NO_RECORDED_VALUE != 0;
        let number = |value: f64| if ended { STALE_NAN } else { value };
        let Encoder {
            set,
            point: labels,
            metric,
            scratch,
            ..
        } = self;
        let mut text = String::new();
        for quantile in point.quantiles {
            text.clear();
            number::canonical(&mut text, quantile.quantile);
            scratch.clear();
            set.put_label(scratch, "quantile", &text);
            let series = set.series(labels.with(&metric.plain, scratch), metric.family, start_ms);
            set.sample(series, time_ms, number(quantile.value), false);
        }
        let series = set.series(labels.with(&metric.sum, &[]), metric.family, start_ms);
        set.sample(series, time_ms, number(point.sum), false);
        let series = set.series(labels.with(&metric.count, &[]), metric.family, start_ms);
        set.sample(series, time_ms, number(point.count as f64), true);
        self.created(point.start_unix_nano, time_ms);
    }

    /// Puts exemplars to the series that `of` names for a value.
    fn exemplars(&mut self, exemplars: &List<'_, Exemplar<'_>>, of: impl Fn(f64) -> Option<u32>) {
        for exemplar in exemplars.iter() {
            let value = match exemplar.value {
                Number::Int(value) => value as f64,
                Number::Double(value) => value,
                Number::None => continue,
            };
            let Some(series) = of(value) else { continue };
            let Encoder {
                set,
                exemplar_labels,
                scratch,
                ..
            } = self;
            scratch.clear();
            for (name, value) in exemplar_labels.exemplar(&exemplar).iter() {
                set.put_label(scratch, name, value);
            }
            set.exemplar(series, millis(exemplar.time_unix_nano), value, scratch);
        }
    }
}
