//! The series that `/metrics` shows: the latest value of each, by family and labels, for as long as somebody reports them.
//!
//! Prometheus counts from the beginning, so points that tell only what was added since the last (delta) are added up here.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use codec::prometheus::labels::{self, Labels};
use codec::prometheus::text::{self, Sample, Writer};
use codec::prometheus::{FLAG_NO_RECORDED_VALUE, Kind, TEMPORALITY_CUMULATIVE, TEMPORALITY_DELTA, millis, naming};
use model::view::metrics::{self, Data, Metric, Number, resource_metrics};
use model::view::{Attributes, List};
use pipeline::Lease;

/// Series on one page. A scrape of so many is about 40 MB of text; more is a mistake in somebody's labels.
pub const MAX_SERIES: usize = 200_000;

/// Text of one page, in bytes: several times what so many ordinary series take. Labels stand before each bucket, so a small message with long labels and
/// many buckets would make gigabytes of it.
pub const MAX_PAGE_BYTES: usize = 256 << 20;

/// What a series takes beside its labels and buckets: tree nodes, value, times.
const SERIES_BYTES: usize = 160;

/// What a line takes beside its labels: a name of ordinary length, a bound, a value, a time.
const LINE_BYTES: usize = 128;

/// What an exemplar takes beside its labels.
const EXEMPLAR_BYTES: usize = size_of::<Exemplar>();

/// How often the page is looked through for series that nobody reports, if nobody scrapes it either. Looking through a full page takes some milliseconds.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(10);

/// How series are made.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub labels: labels::Options,
    pub namespace: String,
    /// A series that nobody reported for so long is gone.
    pub expiration: Duration,
    /// Whether lines carry the time of their point.
    pub send_timestamps: bool,
}

/// Points that are not shown, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rejected {
    pub temporality: u32,
    pub no_value: u32,
    pub conflict: u32,
    pub overlap: u32,
    pub too_many: u32,
}

impl Rejected {
    pub fn total(&self) -> u32 {
        self.temporality + self.no_value + self.conflict + self.overlap + self.too_many
    }

    pub fn message(&self) -> String {
        let many = format!("beyond the {MAX_SERIES} series or {MAX_PAGE_BYTES} bytes of one page");
        let reasons = [
            (self.temporality, "of a temporality that cannot be added up"),
            (self.no_value, "without a value"),
            (
                self.conflict,
                "of a metric whose name another metric of another type has",
            ),
            (self.overlap, "of delta temporality for a time that is already counted"),
            (self.too_many, many.as_str()),
        ];
        let said: Vec<String> = reasons
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, why)| format!("{count} points {why}"))
            .collect();
        said.join("; ")
    }
}

/// All series of one page.
pub struct Registry {
    options: Options,
    labels: Labels,
    exemplar_labels: Labels,
    families: BTreeMap<String, Family>,
    /// Every name that a family's lines have, and whose it is.
    names: HashMap<String, String>,
    series: usize,
    /// Bytes of the page's lines, at most.
    text: usize,
    held: Lease,
    expired_at: Duration,
    name: String,
    key: String,
}

struct Family {
    kind: Kind,
    help: String,
    unit: String,
    series: BTreeMap<Box<str>, Series>,
}

struct Series {
    value: Value,
    time_unix_nano: u64,
    /// When it was last reported, since the start of the process.
    seen: Duration,
    /// The last of each bucket, in their order.
    exemplars: Vec<Exemplar>,
    size: Size,
}

/// What a series takes, in bytes.
#[derive(Clone, Copy, Default)]
struct Size {
    held: u64,
    /// Of its lines, at most.
    text: usize,
}

struct Exemplar {
    bucket: usize,
    labels: Box<str>,
    value: f64,
    time_ms: i64,
}

impl Exemplar {
    fn held_bytes(&self) -> u64 {
        (self.labels.len() + EXEMPLAR_BYTES) as u64
    }
}

/// Makes a share of what is held another size; whether there is memory for it.
fn resize(held: &mut Lease, from: u64, to: u64) -> bool {
    if to > from {
        return held.grow(to - from);
    }
    held.shrink(held.bytes() - (from - to));
    true
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Number(f64),
    /// Counts are per bucket, one more than the bounds. An exponential histogram has no bounds here: neither text format can say its buckets.
    Histogram {
        bounds: Vec<f64>,
        counts: Vec<u64>,
        count: u64,
        sum: Option<f64>,
    },
    Summary {
        quantiles: Vec<(f64, f64)>,
        count: u64,
        sum: f64,
    },
}

impl Value {
    fn heap_bytes(&self) -> usize {
        match self {
            Value::Number(_) => 0,
            Value::Histogram { counts, .. } => counts.len() * 16,
            Value::Summary { quantiles, .. } => quantiles.len() * 16,
        }
    }

    /// How many lines say it, each with all labels.
    fn lines(&self) -> usize {
        match self {
            Value::Number(_) => 1,
            Value::Histogram { counts, .. } => counts.len() + 3,
            Value::Summary { quantiles, .. } => quantiles.len() + 2,
        }
    }

    fn size(&self, key: &str) -> Size {
        Size {
            held: (key.len() + self.heap_bytes() + SERIES_BYTES) as u64,
            text: self.lines() * (key.len() + LINE_BYTES),
        }
    }

    /// What came on top since the last point.
    fn add(&mut self, more: &Value) {
        match (self, more) {
            (Value::Number(sum), Value::Number(more)) => *sum += more,
            (
                Value::Histogram {
                    bounds,
                    counts,
                    count,
                    sum,
                },
                Value::Histogram {
                    bounds: other_bounds,
                    counts: more_counts,
                    count: more,
                    sum: more_sum,
                },
            ) if bounds == other_bounds && counts.len() == more_counts.len() => {
                for (count, more) in counts.iter_mut().zip(more_counts) {
                    *count = count.saturating_add(*more);
                }
                *count = count.saturating_add(*more);
                *sum = sum.zip(*more_sum).map(|(sum, more)| sum + more);
            }
            // Other buckets than before: it begins anew, as after a restart.
            (value, more) => *value = more.clone(),
        }
    }
}

/// What every kind of point has.
struct Point<'a> {
    attributes: Attributes<'a>,
    start_unix_nano: u64,
    time_unix_nano: u64,
    flags: u32,
    exemplars: Option<List<'a, metrics::Exemplar<'a>>>,
    value: Option<Value>,
}

impl Registry {
    pub fn new(options: Options, held: Lease) -> Registry {
        let exemplars = labels::Options {
            strategy: options.labels.strategy,
            ..labels::Options::default()
        };
        Registry {
            labels: Labels::new(options.labels.clone()),
            exemplar_labels: Labels::new(exemplars),
            options,
            families: BTreeMap::new(),
            names: HashMap::new(),
            series: 0,
            text: 0,
            held,
            expired_at: Duration::ZERO,
            name: String::new(),
            key: String::new(),
        }
    }

    /// Takes the points of a canonical payload. `now` is the time since the start of the process.
    pub fn update(&mut self, payload: &[u8], now: Duration) -> Rejected {
        let mut rejected = Rejected::default();
        if now.saturating_sub(self.expired_at) >= EXPIRY_INTERVAL {
            self.expire(now);
        }
        for group in resource_metrics(payload) {
            let resource = group.owner();
            self.labels.resource(&resource);
            let mut newest = 0;
            for scope in group.list() {
                let schema_url = if self.options.labels.scope {
                    scope.schema_url()
                } else {
                    ""
                };
                self.labels.scope(&scope.owner(), schema_url);
                for metric in scope.list() {
                    newest = newest.max(self.metric(&metric, now, &mut rejected));
                }
            }
            if newest > 0
                && let Some(pairs) = self.labels.target(&resource)
            {
                self.key.clear();
                text::put_pairs(&mut self.key, pairs, "");
                self.name.clear();
                self.name.push_str("target_info");
                if self.claim(Kind::Info, "Target metadata", "") == Claim::Taken {
                    let value = Value::Number(1.0);
                    // One series a resource: where the page is full its points have been counted.
                    self.put(value, newest, None, now);
                }
            }
        }
        rejected
    }

    /// The newest time of its points.
    fn metric(&mut self, metric: &Metric<'_>, now: Duration, rejected: &mut Rejected) -> u64 {
        let Some(told) = Kind::of(metric) else { return 0 };
        let (kind, temporality, extra) = match metric.data {
            Data::None => return 0,
            Data::Gauge { .. } => (shown(told), TEMPORALITY_CUMULATIVE, ""),
            Data::Sum { temporality, .. } => (shown(told), temporality, ""),
            Data::Histogram { temporality, .. } | Data::ExponentialHistogram { temporality, .. } => {
                (Kind::Histogram, temporality, "le")
            }
            Data::Summary { .. } => (Kind::Summary, TEMPORALITY_CUMULATIVE, "quantile"),
        };
        let options = &self.options;
        naming::metric(
            &mut self.name,
            options.labels.strategy,
            &options.namespace,
            metric.name,
            naming::told_unit(metric),
            kind,
        );
        // What was added to a number that may also fall has no beginning that one could count from.
        let may = match temporality {
            TEMPORALITY_CUMULATIVE => true,
            TEMPORALITY_DELTA => kind != Kind::Gauge,
            _ => false,
        };
        let claim = if may {
            self.claim(kind, metric.description, metric.unit)
        } else {
            Claim::Conflict
        };
        let mut newest = 0;
        each_point(metric, |point| match claim {
            _ if !may => rejected.temporality += 1,
            Claim::Conflict => rejected.conflict += 1,
            Claim::Full => rejected.too_many += 1,
            Claim::Taken => {
                newest = newest.max(point.time_unix_nano);
                self.point(point, extra, temporality == TEMPORALITY_DELTA, now, rejected);
            }
        });
        newest
    }

    fn point(&mut self, point: Point<'_>, extra: &str, is_delta: bool, now: Duration, rejected: &mut Rejected) {
        self.key.clear();
        text::put_pairs(&mut self.key, self.labels.point(&point.attributes), extra);
        if point.flags & FLAG_NO_RECORDED_VALUE != 0 {
            self.remove();
            return;
        }
        let Some(value) = point.value else {
            rejected.no_value += 1;
            return;
        };
        let delta_start = is_delta.then_some(point.start_unix_nano);
        match self.put(value, point.time_unix_nano, delta_start, now) {
            Put::Full => rejected.too_many += 1,
            Put::Overlap => rejected.overlap += 1,
            Put::Done => self.exemplars(point.exemplars),
        }
    }

    /// Whether the family `name` is of this kind, and its lines are no other's.
    fn claim(&mut self, kind: Kind, help: &str, unit: &str) -> Claim {
        if let Some(family) = self.families.get(&self.name) {
            return if family.kind == kind {
                Claim::Taken
            } else {
                Claim::Conflict
            };
        }
        if self.families.len() >= MAX_SERIES {
            return Claim::Full;
        }
        let suffixes: &[&str] = match kind {
            Kind::Histogram => &["", "_bucket", "_sum", "_count"],
            Kind::Summary => &["", "_sum", "_count"],
            _ => &[""],
        };
        let names = || suffixes.iter().map(|suffix| format!("{}{suffix}", self.name));
        if names().any(|name| self.names.contains_key(&name)) {
            return Claim::Conflict;
        }
        for name in names().collect::<Vec<_>>() {
            self.names.insert(name, self.name.clone());
        }
        let family = Family {
            kind,
            help: help.to_owned(),
            unit: unit.to_owned(),
            series: BTreeMap::new(),
        };
        self.families.insert(self.name.clone(), family);
        Claim::Taken
    }

    /// Sets the series `key` of the family `name`, or adds to it what came since `delta_start_unix_nano`.
    fn put(&mut self, value: Value, time_unix_nano: u64, delta_start_unix_nano: Option<u64>, now: Duration) -> Put {
        let Some(family) = self.families.get_mut(&self.name) else {
            return Put::Full;
        };
        let size = value.size(&self.key);
        let Some(series) = family.series.get_mut(self.key.as_str()) else {
            if self.series >= MAX_SERIES || self.text + size.text > MAX_PAGE_BYTES || !self.held.grow(size.held) {
                return Put::Full;
            }
            let series = Series {
                value,
                time_unix_nano,
                seen: now,
                exemplars: Vec::new(),
                size,
            };
            family.series.insert(self.key.as_str().into(), series);
            self.series += 1;
            self.text += size.text;
            return Put::Done;
        };
        series.seen = now;
        let is_delta = match delta_start_unix_nano {
            // Without a start it can only be seen to be later.
            Some(0) if time_unix_nano > series.time_unix_nano => true,
            Some(start) if start != 0 && start >= series.time_unix_nano => true,
            Some(_) => return Put::Overlap,
            None if time_unix_nano >= series.time_unix_nano => false,
            None => return Put::Done,
        };
        // It may have more buckets than before.
        let of_exemplars = series.size.held - series.value.size(&self.key).held;
        let size = Size {
            held: size.held + of_exemplars,
            ..size
        };
        let text = self.text - series.size.text + size.text;
        if text > MAX_PAGE_BYTES || !resize(&mut self.held, series.size.held, size.held) {
            return Put::Full;
        }
        self.text = text;
        series.size = size;
        series.time_unix_nano = time_unix_nano;
        match is_delta {
            true => series.value.add(&value),
            false => series.value = value,
        }
        Put::Done
    }

    fn exemplars(&mut self, exemplars: Option<List<'_, metrics::Exemplar<'_>>>) {
        let Some(exemplars) = exemplars else { return };
        let series = self
            .families
            .get_mut(&self.name)
            .and_then(|family| family.series.get_mut(self.key.as_str()));
        let Some(series) = series else { return };
        for exemplar in exemplars {
            let value = match exemplar.value {
                Number::Int(value) => value as f64,
                Number::Double(value) => value,
                Number::None => continue,
            };
            let bucket = match &series.value {
                Value::Histogram { bounds, .. } => bounds.partition_point(|bound| *bound < value),
                _ => 0,
            };
            let mut labels = String::new();
            text::put_pairs(&mut labels, self.exemplar_labels.exemplar(&exemplar), "");
            let exemplar = Exemplar {
                bucket,
                labels: labels.into(),
                value,
                time_ms: millis(exemplar.time_unix_nano),
            };
            let at = series.exemplars.binary_search_by_key(&bucket, |known| known.bucket);
            let known = at.ok().map(|at| &series.exemplars[at]);
            if known.is_some_and(|known| known.time_ms > exemplar.time_ms) {
                continue;
            }
            let held = series.size.held - known.map_or(0, Exemplar::held_bytes) + exemplar.held_bytes();
            // An exemplar is an extra: where memory is short, the series goes without.
            if !resize(&mut self.held, series.size.held, held) {
                continue;
            }
            series.size.held = held;
            match at {
                Ok(at) => series.exemplars[at] = exemplar,
                Err(at) => series.exemplars.insert(at, exemplar),
            }
        }
    }

    fn remove(&mut self) {
        let Some(family) = self.families.get_mut(&self.name) else {
            return;
        };
        if let Some(series) = family.series.remove(self.key.as_str()) {
            self.series -= 1;
            self.text -= series.size.text;
            self.held.shrink(self.held.bytes() - series.size.held);
        }
    }

    /// Forgets what nobody reports any more.
    fn expire(&mut self, now: Duration) {
        self.expired_at = now;
        let expiration = self.options.expiration;
        let mut bytes = self.held.bytes();
        let (series, text) = (&mut self.series, &mut self.text);
        self.families.retain(|_, family| {
            family.series.retain(|_, it| {
                let is_alive = now.saturating_sub(it.seen) <= expiration;
                if !is_alive {
                    *series -= 1;
                    *text -= it.size.text;
                    bytes -= it.size.held;
                }
                is_alive
            });
            !family.series.is_empty()
        });
        self.held.shrink(bytes);
        let families = &self.families;
        self.names.retain(|_, owner| families.contains_key(owner));
    }

    /// Writes all that is reported, ordered by name and labels.
    pub fn write(&mut self, writer: &mut Writer, now: Duration) {
        self.expire(now);
        for (name, family) in &self.families {
            writer.family(name, family.kind, &family.help, &naming::unit(&family.unit));
            for (labels, series) in &family.series {
                let time_ms = self.options.send_timestamps.then(|| millis(series.time_unix_nano));
                let sample = |suffix, extra, value, exemplar| Sample {
                    suffix,
                    labels,
                    extra,
                    value,
                    time_ms,
                    exemplar,
                };
                let exemplar = |bucket| {
                    let at = series.exemplars.binary_search_by_key(&bucket, |known| known.bucket);
                    let exemplar = &series.exemplars[at.ok()?];
                    Some(text::Exemplar {
                        labels: &exemplar.labels,
                        value: exemplar.value,
                        time_ms: exemplar.time_ms,
                    })
                };
                match &series.value {
                    Value::Number(value) => writer.sample(&sample("", None, *value, exemplar(0))),
                    Value::Histogram {
                        bounds,
                        counts,
                        count,
                        sum,
                    } => {
                        let mut below = 0u64;
                        for (at, (bound, count)) in bounds.iter().zip(counts).enumerate() {
                            below = below.saturating_add(*count);
                            writer.sample(&sample("_bucket", Some(("le", *bound)), below as f64, exemplar(at)));
                        }
                        let all = Some(("le", f64::INFINITY));
                        writer.sample(&sample("_bucket", all, *count as f64, exemplar(bounds.len())));
                        if let Some(sum) = sum {
                            writer.sample(&sample("_sum", None, *sum, None));
                        }
                        writer.sample(&sample("_count", None, *count as f64, None));
                    }
                    Value::Summary { quantiles, count, sum } => {
                        for (quantile, value) in quantiles {
                            writer.sample(&sample("", Some(("quantile", *quantile)), *value, None));
                        }
                        writer.sample(&sample("_sum", None, *sum, None));
                        writer.sample(&sample("_count", None, *count as f64, None));
                    }
                }
            }
        }
    }

    pub fn series(&self) -> usize {
        self.series
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Claim {
    Taken,
    Conflict,
    Full,
}

enum Put {
    Done,
    Full,
    Overlap,
}

/// The type that a page shows for numbers. Series of a histogram that is not whole are no histogram, and a set of states has rules that nobody checked.
fn shown(kind: Kind) -> Kind {
    match kind {
        Kind::Histogram | Kind::GaugeHistogram | Kind::Summary => Kind::Unknown,
        Kind::StateSet => Kind::Gauge,
        kind => kind,
    }
}

fn each_point<'a>(metric: &Metric<'a>, mut visit: impl FnMut(Point<'a>)) {
    match metric.data {
        Data::None => {}
        Data::Gauge { points } | Data::Sum { points, .. } => {
            for point in points {
                visit(Point {
                    attributes: point.attributes,
                    start_unix_nano: point.start_unix_nano,
                    time_unix_nano: point.time_unix_nano,
                    flags: point.flags,
                    exemplars: Some(point.exemplars),
                    value: match point.value {
                        Number::Int(value) => Some(Value::Number(value as f64)),
                        Number::Double(value) => Some(Value::Number(value)),
                        Number::None => None,
                    },
                });
            }
        }
        Data::Histogram { points, .. } => {
            for point in points {
                visit(Point {
                    attributes: point.attributes,
                    start_unix_nano: point.start_unix_nano,
                    time_unix_nano: point.time_unix_nano,
                    flags: point.flags,
                    exemplars: Some(point.exemplars),
                    value: Some(histogram(&point)),
                });
            }
        }
        Data::ExponentialHistogram { points, .. } => {
            for point in points {
                visit(Point {
                    attributes: point.attributes,
                    start_unix_nano: point.start_unix_nano,
                    time_unix_nano: point.time_unix_nano,
                    flags: point.flags,
                    exemplars: Some(point.exemplars),
                    value: Some(Value::Histogram {
                        bounds: Vec::new(),
                        counts: Vec::new(),
                        count: point.count,
                        sum: point.sum,
                    }),
                });
            }
        }
        Data::Summary { points } => {
            for point in points {
                visit(Point {
                    attributes: point.attributes,
                    start_unix_nano: point.start_unix_nano,
                    time_unix_nano: point.time_unix_nano,
                    flags: point.flags,
                    exemplars: None,
                    value: Some(Value::Summary {
                        quantiles: point.quantiles.iter().map(|it| (it.quantile, it.value)).collect(),
                        count: point.count,
                        sum: point.sum,
                    }),
                });
            }
        }
    }
}

/// Buckets whose bound is no finite number go into the next one; the last has everything anyway.
fn histogram(point: &metrics::HistogramPoint<'_>) -> Value {
    let (mut bounds, mut counts) = (Vec::new(), Vec::new());
    let mut given = point.bucket_counts.integers();
    let mut carried = 0u64;
    if given.len() > 0 {
        for bound in point.explicit_bounds.doubles() {
            let count = carried.saturating_add(given.next().unwrap_or_default());
            // The same bound twice would be the same line twice.
            if bound.is_finite() && bounds.last().is_none_or(|last| *last < bound) {
                bounds.push(bound);
                counts.push(count);
                carried = 0;
            } else {
                carried = count;
            }
        }
    }
    Value::Histogram {
        bounds,
        counts,
        count: point.count,
        sum: point.sum,
    }
}
