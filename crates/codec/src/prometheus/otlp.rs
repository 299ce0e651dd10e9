//! Why: series become OTLP metrics at the door, in such a way that they can become the same series again (`docs/prometheus-mapping.md`): `job` and `instance`
//! are the resource, `otel_scope_…` the scope, a counter is a sum, and the series of a histogram or a summary are one point, wherever that point says
//! exactly what they said. Where it would not, they stay series: a number each, marked with the type of their family.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use model::wire::{BYTES, VARINT, close_length, open_length, put_bytes, put_fixed64, put_tag, put_varint, varint_len};
use model::{SpanId, TraceId};

use super::series::{Exemplar, NAME, NativeForm, Sample, Series, SeriesList, SeriesRef, Stretch, is_stale};
use super::{FLAG_NO_RECORDED_VALUE, Kind, TEMPORALITY_CUMULATIVE, TYPE_KEY, number};

/// How series become OTLP.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The time of samples that have none, in milliseconds since 1970: that of the scrape.
    pub time_ms: i64,
    pub job: Job,
    pub target_info: TargetInfo,
    /// More bytes of OTLP are an error: labels stand once per point there, so that a small request may become a large one.
    pub max_bytes: usize,
}

/// What `job` becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Job {
    /// `service.name`, as it is: a scraper's jobs are names with slashes in them at times.
    #[default]
    Whole,
    /// `service.namespace` and `service.name`, parted at the first slash: what became `job` on the way from OTLP.
    Parted,
}

/// What becomes of `target_info`, whose labels are attributes of the resource with the same `job` and `instance`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetInfo {
    /// It is only that: whoever writes series from OTLP makes it again.
    #[default]
    Moved,
    /// It stays a series as well, because there may be nothing else of its resource.
    Kept,
}

/// OTLP, and what did not become so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Built {
    /// A canonical request; empty if there is no point.
    pub payload: Vec<u8>,
    /// Points in it. One of a histogram stands for several samples.
    pub points: u64,
    pub samples: u64,
    pub histograms: u64,
    pub exemplars: u64,
    /// Samples and native histograms of times that OTLP has no number for: before 1970 or after 2554.
    pub bad_times: u64,
    /// Exemplars of series that had no sample beside them.
    pub lone_exemplars: u64,
}

/// The result would be longer than was allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("as OTLP it would take more than {max_bytes} bytes; send smaller requests")]
pub struct TooLarge {
    pub max_bytes: usize,
}

/// Translates.
pub fn build(list: &SeriesList, options: &Options) -> Result<Built, TooLarge> {
    build_with(list, options, &Targets::default())
}

/// The same with what is known of resources from before.
pub fn build_with(list: &SeriesList, options: &Options, targets: &Targets) -> Result<Built, TooLarge> {
    let mut builder = Builder::new(list, *options, targets);
    builder.collect();
    builder.groups();
    builder.write()
}

/// What `target_info` said of resources, by `job` and `instance`: a sender of remote write says it once per scrape, in one request of many.
#[derive(Debug, Clone, Default)]
pub struct Targets {
    by_identity: HashMap<String, Vec<(String, String)>>,
    bytes: usize,
}

/// What is remembered of resources at most, in bytes of their labels: some ten thousand. Beyond it all are forgotten; senders repeat them at each scrape.
pub const MAX_TARGETS_BYTES: usize = 16 << 20;

/// What an entry takes beside its texts, and each label.
const ENTRY_BYTES: usize = 96;

impl Targets {
    /// Whether a list says anything of resources.
    pub fn are_in(list: &SeriesList) -> bool {
        list.iter().any(|series| series.name() == TARGET_INFO)
    }

    /// Remembers what it says.
    pub fn learn(&mut self, list: &SeriesList) {
        let mut key = String::new();
        for series in list.iter().filter(|series| series.name() == TARGET_INFO) {
            if !series.samples().iter().any(|sample| !is_stale(sample.value)) {
                continue;
            }
            write_identity(&mut key, series.label("job"), series.label("instance"));
            let labels = series
                .labels()
                .filter(|(name, _)| !matches!(*name, NAME | "job" | "instance"));
            let labels: Vec<(String, String)> = labels.map(|(name, value)| (name.into(), value.into())).collect();
            let sizes = labels
                .iter()
                .map(|(name, value)| name.len() + value.len() + ENTRY_BYTES);
            let size = sizes.sum::<usize>() + key.len() + ENTRY_BYTES;
            if self.by_identity.get(&key) == Some(&labels) || size > MAX_TARGETS_BYTES {
                continue;
            }
            if self.bytes + size > MAX_TARGETS_BYTES {
                *self = Targets::default();
            }
            // What is replaced stays counted; it is forgotten with the rest.
            self.bytes += size;
            self.by_identity.insert(key.clone(), labels);
        }
    }

    fn of(&self, job: &str, instance: &str) -> &[(String, String)] {
        if self.by_identity.is_empty() {
            return &[];
        }
        let mut key = String::new();
        write_identity(&mut key, job, instance);
        self.by_identity.get(&key).map_or(&[], Vec::as_slice)
    }

    /// What they add to the result of [`build_with`] at most, beside [`len_at_most`].
    pub fn len_at_most(&self, list: &SeriesList) -> u64 {
        let mut bytes = 0;
        let mut last = None;
        for series in list.iter().filter(|_| !self.by_identity.is_empty()) {
            let identity = (series.label("job"), series.label("instance"));
            if last != Some(identity) {
                last = Some(identity);
                let labels = self.of(identity.0, identity.1).iter();
                bytes += labels
                    .map(|(name, value)| (name.len() + value.len() + ENTRY_BYTES) as u64)
                    .sum::<u64>();
            }
        }
        bytes
    }
}

/// Writes a key that no other `job` and `instance` have.
fn write_identity(key: &mut String, job: &str, instance: &str) {
    key.clear();
    number::integer(key, job.len() as i64);
    key.push(':');
    key.push_str(job);
    key.push_str(instance);
}

/// What [`build`] makes of a list is not longer than this.
pub fn len_at_most(list: &SeriesList) -> u64 {
    // A label as an attribute of a point, with the tags and lengths around it; the times, values and flags of a point; and the texts of a metric that
    // nothing else is in, in a scope and a resource of its own.
    const LABEL_BYTES: u64 = 24;
    const POINT_BYTES: u64 = 160;
    const METRIC_BYTES: u64 = 200;
    let labels = |labels: Stretch| {
        let labels = labels.of(&list.labels).iter();
        labels
            .map(|label| label.name.len() + label.value.len() + LABEL_BYTES)
            .sum::<u64>()
    };
    let series = list.series.iter().map(|series| {
        let family = list.families[series.family as usize];
        let points = (series.samples.of(&list.samples).len() + series.natives.of(&list.natives).len()) as u64;
        let exemplars = series.exemplars.of(&list.exemplars).iter();
        let exemplars: u64 = exemplars.map(|exemplar| labels(exemplar.labels) + POINT_BYTES).sum();
        // Twice more for resource and scope.
        let labels = labels(series.labels) * (points + 2);
        labels + points * POINT_BYTES + exemplars + family.help.len() + family.unit.len() + METRIC_BYTES
    });
    series.sum::<u64>() + list.bytes.len() as u64
}

/// No element: the end of a chain.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Chain {
    first: u32,
    last: u32,
}

const EMPTY: Chain = Chain {
    first: NONE,
    last: NONE,
};

/// Of one `job` and `instance`.
struct Resource<'a> {
    job: &'a str,
    instance: &'a str,
    /// The labels of `target_info` are its.
    target: Option<SeriesRef<'a>>,
    scopes: Vec<u32>,
}

#[derive(Default)]
struct Scope<'a> {
    resource: u32,
    /// `otel_scope_…`, without the prefix.
    labels: Vec<(&'a str, &'a str)>,
    metrics: Vec<u32>,
}

/// OTLP's kinds of points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    Gauge,
    /// Which only grows.
    Sum,
    /// Which may shrink: what OpenTelemetry makes of infos and sets of states.
    UpDown,
    Histogram,
    Exponential,
    Summary,
}

struct Metric<'a> {
    scope: u32,
    form: Form,
    name: &'a str,
    family: u32,
    points: Chain,
}

#[derive(Debug, Clone, Copy)]
enum What {
    /// A series' sample.
    Number {
        series: u32,
        sample: u32,
    },
    Native {
        series: u32,
        native: u32,
    },
    Group(u32),
}

struct Point {
    what: What,
    next: u32,
}

/// What may become one point of a histogram or a summary.
struct Group<'a> {
    scope: u32,
    family: u32,
    base: &'a str,
    time_ms: i64,
    parts: Chain,
}

#[derive(Debug, Clone, Copy)]
enum Role {
    Sum,
    Count,
    /// Up to this `le`.
    Bucket(f64),
    Quantile(f64),
}

#[derive(Debug, Clone, Copy)]
struct Part {
    series: u32,
    sample: u32,
    role: Role,
    next: u32,
}

struct Builder<'a> {
    list: &'a SeriesList,
    targets: &'a Targets,
    options: Options,
    hasher: RandomState,
    resources: Vec<Resource<'a>>,
    by_identity: HashTable<u32>,
    scopes: Vec<Scope<'a>>,
    by_scope: HashTable<u32>,
    metrics: Vec<Metric<'a>>,
    by_metric: HashTable<u32>,
    points: Vec<Point>,
    groups: Vec<Group<'a>>,
    by_group: HashTable<u32>,
    parts: Vec<Part>,
    /// The scope of each series.
    scope_of: Vec<u32>,
    /// Exemplars that came in a series without samples: the series with the same labels that has some, and theirs.
    adopted: Vec<(u32, u32)>,
    built: Built,
}

const TARGET_INFO: &str = "target_info";
const SCOPE_PREFIX: &str = "otel_scope_";

impl<'a> Builder<'a> {
    fn new(list: &'a SeriesList, options: Options, targets: &'a Targets) -> Self {
        Builder {
            list,
            targets,
            options,
            hasher: RandomState::default(),
            resources: Vec::new(),
            by_identity: HashTable::new(),
            scopes: Vec::new(),
            by_scope: HashTable::new(),
            metrics: Vec::new(),
            by_metric: HashTable::new(),
            points: Vec::new(),
            groups: Vec::new(),
            by_group: HashTable::new(),
            parts: Vec::new(),
            scope_of: Vec::with_capacity(list.series.len()),
            adopted: Vec::new(),
            built: Built::default(),
        }
    }

    fn series(&self, at: u32) -> &'a Series {
        &self.list.series[at as usize]
    }

    fn labels(&self, at: u32) -> impl Iterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        let series = SeriesRef {
            list: self.list,
            series: self.series(at),
        };
        series.labels()
    }

    /// The time of a sample, if OTLP has it.
    fn time(&self, sample: &Sample) -> Option<i64> {
        let time_ms = sample.time_ms.unwrap_or(self.options.time_ms);
        nanos(time_ms).is_some().then_some(time_ms)
    }

    /// Finds out where each sample belongs.
    fn collect(&mut self) {
        let list = self.list;
        for at in 0..list.series.len() as u32 {
            let series = self.series(at);
            let scope = self.scope(at);
            self.scope_of.push(scope);
            let name = SeriesRef { list, series }.name();
            if name == TARGET_INFO && !series.samples.is_empty() {
                let resource = self.scopes[scope as usize].resource;
                // One that has ended tells of the resource only while no other does.
                let has_ended = series
                    .samples
                    .of(&list.samples)
                    .iter()
                    .all(|sample| is_stale(sample.value));
                let target = &mut self.resources[resource as usize].target;
                if target.is_none() || !has_ended {
                    *target = Some(SeriesRef { list, series });
                }
                if self.options.target_info == TargetInfo::Moved {
                    self.built.samples += series.samples.of(&list.samples).len() as u64;
                    continue;
                }
            }
            let kind = list.families[series.family as usize].kind;
            for native in series.natives.start..series.natives.end {
                let form = match list.natives[native as usize].form {
                    NativeForm::Exponential => Form::Exponential,
                    NativeForm::Explicit => Form::Histogram,
                };
                if nanos(list.natives[native as usize].time_ms).is_none() {
                    self.built.bad_times += 1;
                    continue;
                }
                self.built.histograms += 1;
                self.point(scope, form, name, series.family, What::Native { series: at, native });
            }
            let role = self.role(at, kind, name);
            for sample in series.samples.start..series.samples.end {
                let Some(time_ms) = self.time(&list.samples[sample as usize]) else {
                    self.built.bad_times += 1;
                    continue;
                };
                self.built.samples += 1;
                match role {
                    Some((base, role)) => self.part(scope, series.family, base, time_ms, at, sample, role),
                    None => self.number(at, sample, name, kind),
                }
            }
        }
        self.adopt();
    }

    /// A sample that is a point of its own.
    fn number(&mut self, series: u32, sample: u32, name: &'a str, kind: Kind) {
        let form = match kind {
            Kind::Counter => Form::Sum,
            Kind::Gauge | Kind::Unknown | Kind::GaugeHistogram => Form::Gauge,
            Kind::Info | Kind::StateSet => Form::UpDown,
            Kind::Histogram | Kind::Summary => {
                let counts = ["_bucket", "_count", "_sum"]
                    .iter()
                    .any(|suffix| name.ends_with(suffix));
                if counts { Form::Sum } else { Form::Gauge }
            }
        };
        let scope = self.scope_of[series as usize];
        let family = self.series(series).family;
        self.point(scope, form, name, family, What::Number { series, sample });
    }

    /// The scope of a series; the resource of a scope comes with it.
    fn scope(&mut self, series: u32) -> u32 {
        let (mut job, mut instance) = ("", "");
        let mut labels = Vec::new();
        for (name, value) in self.labels(series) {
            match name {
                "job" => job = value,
                "instance" => instance = value,
                _ => labels.extend(scope_label(name).map(|name| (name, value))),
            }
        }
        let resource = self.resource(job, instance);
        let Builder {
            scopes,
            by_scope,
            hasher,
            ..
        } = self;
        let hash = |scope: &Scope<'_>| hasher.hash_one((scope.resource, &scope.labels));
        let wanted = Scope {
            resource,
            labels,
            metrics: Vec::new(),
        };
        let is_it = |at: &u32| {
            let known = &scopes[*at as usize];
            known.resource == wanted.resource && known.labels == wanted.labels
        };
        if let Some(known) = by_scope.find(hash(&wanted), is_it) {
            return *known;
        }
        let number = scopes.len() as u32;
        let hashed = hash(&wanted);
        scopes.push(wanted);
        by_scope.insert_unique(hashed, number, |at| hash(&scopes[*at as usize]));
        self.resources[resource as usize].scopes.push(number);
        number
    }

    fn resource(&mut self, job: &'a str, instance: &'a str) -> u32 {
        let Builder {
            resources,
            by_identity,
            hasher,
            ..
        } = self;
        let is_it = |at: &u32| {
            let known = &resources[*at as usize];
            known.job == job && known.instance == instance
        };
        let hash = hasher.hash_one((job, instance));
        if let Some(known) = by_identity.find(hash, is_it) {
            return *known;
        }
        let number = resources.len() as u32;
        resources.push(Resource {
            job,
            instance,
            target: None,
            scopes: Vec::new(),
        });
        by_identity.insert_unique(hash, number, |at| {
            let known = &resources[*at as usize];
            hasher.hash_one((known.job, known.instance))
        });
        number
    }

    /// Adds a point to the metric that it belongs to.
    fn point(&mut self, scope: u32, form: Form, name: &'a str, family: u32, what: What) {
        let Builder {
            metrics,
            by_metric,
            hasher,
            scopes,
            points,
            ..
        } = self;
        let is_it = |at: &u32| {
            let known = &metrics[*at as usize];
            known.scope == scope && known.form == form && known.family == family && known.name == name
        };
        let last = metrics.len().wrapping_sub(1) as u32;
        let metric = if !metrics.is_empty() && is_it(&last) {
            last
        } else {
            let hash = |metric: &Metric<'_>| hasher.hash_one((metric.scope, metric.form, metric.family, metric.name));
            let wanted = Metric {
                scope,
                form,
                name,
                family,
                points: EMPTY,
            };
            let hashed = hash(&wanted);
            match by_metric.find(hashed, is_it) {
                Some(known) => *known,
                None => {
                    let number = metrics.len() as u32;
                    metrics.push(wanted);
                    by_metric.insert_unique(hashed, number, |at| hash(&metrics[*at as usize]));
                    scopes[scope as usize].metrics.push(number);
                    number
                }
            }
        };
        let number = points.len() as u32;
        points.push(Point { what, next: NONE });
        let chain = &mut metrics[metric as usize].points;
        match chain.last {
            NONE => chain.first = number,
            last => points[last as usize].next = number,
        }
        chain.last = number;
    }

    /// What a series is of its histogram or summary, and that one's name; `None` for a series of its own.
    fn role(&self, series: u32, kind: Kind, name: &'a str) -> Option<(&'a str, Role)> {
        let value = |wanted: &str| {
            let mut labels = self.labels(series);
            labels.find(|(name, _)| *name == wanted).map(|(_, value)| value)
        };
        let bound = |wanted: &str| value(wanted).and_then(|text| text.parse().ok());
        let whole = |special: &str| value(special).is_none();
        match kind {
            Kind::Histogram => {
                if let Some(base) = name.strip_suffix("_bucket") {
                    return Some((base, Role::Bucket(bound("le")?)));
                }
                let sum = name.strip_suffix("_sum").map(|base| (base, Role::Sum));
                let count = || name.strip_suffix("_count").map(|base| (base, Role::Count));
                sum.or_else(count).filter(|_| whole("le"))
            }
            Kind::Summary => {
                if let Some(quantile) = value("quantile") {
                    return Some((name, Role::Quantile(quantile.parse().ok()?)));
                }
                let sum = name.strip_suffix("_sum").map(|base| (base, Role::Sum));
                let count = || name.strip_suffix("_count").map(|base| (base, Role::Count));
                sum.or_else(count)
            }
            _ => None,
        }
    }

    /// Puts a sample to those of the same point.
    #[expect(clippy::too_many_arguments, reason = "they are one key and one value")]
    fn part(&mut self, scope: u32, family: u32, base: &'a str, time_ms: i64, series: u32, sample: u32, role: Role) {
        let list = self.list;
        let special = match list.families[family as usize].kind {
            Kind::Summary => "quantile",
            _ => "le",
        };
        let attributes = |series: u32| {
            let series = &list.series[series as usize];
            let labels = SeriesRef { list, series }.labels();
            labels.filter(move |(name, _)| *name != NAME && *name != special)
        };
        let Builder {
            groups,
            by_group,
            hasher,
            parts,
            ..
        } = self;
        let is_it = |at: &u32| {
            let known = &groups[*at as usize];
            known.time_ms == time_ms
                && known.scope == scope
                && known.family == family
                && known.base == base
                && attributes(parts[known.parts.first as usize].series).eq(attributes(series))
        };
        let last = groups.len().wrapping_sub(1) as u32;
        let group = if !groups.is_empty() && is_it(&last) {
            last
        } else {
            let hash = |scope: u32, family: u32, base: &str, time_ms: i64, series: u32| {
                let mut hash = hasher.hash_one((scope, family, base, time_ms));
                for pair in attributes(series) {
                    hash = hash.rotate_left(5) ^ hasher.hash_one(pair);
                }
                hash
            };
            let hashed = hash(scope, family, base, time_ms, series);
            match by_group.find(hashed, is_it) {
                Some(known) => *known,
                None => {
                    let number = groups.len() as u32;
                    groups.push(Group {
                        scope,
                        family,
                        base,
                        time_ms,
                        parts: EMPTY,
                    });
                    let of = |at: &u32| {
                        let group = &groups[*at as usize];
                        // The newest has no part yet, and is not asked for.
                        let first = parts.get(group.parts.first as usize).map_or(series, |part| part.series);
                        hash(group.scope, group.family, group.base, group.time_ms, first)
                    };
                    by_group.insert_unique(hashed, number, of);
                    number
                }
            }
        };
        let number = parts.len() as u32;
        parts.push(Part {
            series,
            sample,
            role,
            next: NONE,
        });
        let chain = &mut groups[group as usize].parts;
        match chain.last {
            NONE => chain.first = number,
            last => parts[last as usize].next = number,
        }
        chain.last = number;
    }

    /// Makes points of the groups that are whole, and of the others a number each.
    fn groups(&mut self) {
        let mut ordered = Vec::new();
        for at in 0..self.groups.len() as u32 {
            let Group {
                scope, family, base, ..
            } = self.groups[at as usize];
            let kind = self.list.families[family as usize].kind;
            self.parts_of(at, &mut ordered);
            let form = match kind {
                Kind::Summary => Form::Summary,
                _ => Form::Histogram,
            };
            if self.is_whole(kind, &ordered) {
                self.point(scope, form, base, family, What::Group(at));
                continue;
            }
            for part in &ordered {
                let series = self.series(part.series);
                let name = SeriesRef {
                    list: self.list,
                    series,
                }
                .name();
                self.number(part.series, part.sample, name, kind);
            }
        }
    }

    /// The parts of a group: buckets by their bounds, quantiles as they came, then sum and count.
    fn parts_of(&self, group: u32, out: &mut Vec<Part>) {
        out.clear();
        let mut at = self.groups[group as usize].parts.first;
        while at != NONE {
            let part = self.parts[at as usize];
            out.push(part);
            at = part.next;
        }
        out.sort_by(|a, b| match (a.role, b.role) {
            (Role::Bucket(a), Role::Bucket(b)) => a.total_cmp(&b),
            (a, b) => rank(a).cmp(&rank(b)),
        });
    }

    /// Whether a point says exactly what these samples say.
    fn is_whole(&self, kind: Kind, parts: &[Part]) -> bool {
        let sample = |part: &Part| self.list.samples[part.sample as usize];
        let Some((first, [.., sum, count])) = parts.first().zip(Some(parts)) else {
            return false;
        };
        let rest = &parts[..parts.len() - 2];
        if !matches!((sum.role, count.role), (Role::Sum, Role::Count)) {
            return false;
        }
        let (start_ms, ended) = (sample(first).start_ms, is_stale(sample(first).value));
        let alike = |part: &Part| sample(part).start_ms == start_ms && is_stale(sample(part).value) == ended;
        if !parts.iter().all(alike) || nanos(start_ms).is_none() {
            return false;
        }
        let total = sample(count).value;
        if !ended && !is_count(total) {
            return false;
        }
        if kind == Kind::Summary {
            let mut quantiles: Vec<f64> = Vec::with_capacity(rest.len());
            for part in rest {
                match part.role {
                    Role::Quantile(quantile) if !quantile.is_nan() => quantiles.push(quantile),
                    _ => return false,
                }
            }
            quantiles.sort_by(f64::total_cmp);
            return quantiles.windows(2).all(|two| two[0] != two[1]);
        }
        let (mut below, mut bound) = (0.0, f64::NEG_INFINITY);
        for part in rest {
            let Role::Bucket(le) = part.role else { return false };
            if le.partial_cmp(&bound) != Some(Ordering::Greater) {
                return false;
            }
            bound = le;
            let value = sample(part).value;
            if !ended {
                if !is_count(value) || value < below {
                    return false;
                }
                below = value;
            }
        }
        bound == f64::INFINITY && (ended || below == total)
    }

    /// Finds a series for exemplars that came in one without samples.
    fn adopt(&mut self) {
        let list = self.list;
        let of = |at: u32| {
            let series = &list.series[at as usize];
            SeriesRef { list, series }
        };
        let is_lone = |series: &Series| series.samples.is_empty() && series.natives.is_empty();
        let lone = |at: &u32| {
            let series = &list.series[*at as usize];
            is_lone(series) && !series.exemplars.is_empty()
        };
        let all = 0..list.series.len() as u32;
        if !all.clone().any(|at| lone(&at)) {
            return;
        }
        let hash = |at: u32| {
            let mut hash = 0u64;
            for pair in of(at).labels() {
                hash = hash.rotate_left(5) ^ self.hasher.hash_one(pair);
            }
            hash
        };
        let mut table: HashTable<u32> = HashTable::new();
        for at in all.clone().filter(|at| !is_lone(&list.series[*at as usize])) {
            let same = |known: &u32| of(*known).labels().eq(of(at).labels());
            match table.find_mut(hash(at), same) {
                // The newest gets them.
                Some(known) => *known = at,
                None => drop(table.insert_unique(hash(at), at, |at| hash(*at))),
            }
        }
        let mut adopted = Vec::new();
        for at in all.filter(lone) {
            match table.find(hash(at), |known| of(*known).labels().eq(of(at).labels())) {
                Some(owner) => adopted.push((*owner, at)),
                None => {
                    self.built.lone_exemplars += list.series[at as usize].exemplars.of(&list.exemplars).len() as u64
                }
            }
        }
        adopted.sort_unstable();
        self.adopted = adopted;
    }

    /// The exemplars that belong to a sample or a native histogram: those of its series, if it is the last of it.
    fn exemplars(&self, series: u32, is_last: bool) -> impl Iterator<Item = &'a Exemplar> {
        let list = self.list;
        let own = is_last.then(|| self.series(series).exemplars.of(&list.exemplars));
        let from = self.adopted.partition_point(|(owner, _)| *owner < series);
        let adopted = self.adopted[from..]
            .iter()
            .take_while(move |(owner, _)| is_last && *owner == series)
            .flat_map(|(_, lone)| list.series[*lone as usize].exemplars.of(&list.exemplars));
        own.into_iter().flatten().chain(adopted)
    }

    fn is_last_sample(&self, series: u32, sample: u32) -> bool {
        let series = self.series(series);
        sample + 1 == series.samples.end && series.natives.is_empty()
    }

    // ---- writing ----

    fn write(mut self) -> Result<Built, TooLarge> {
        let mut built = std::mem::take(&mut self.built);
        let mut out = Vec::new();
        let mut parts = Vec::new();
        for resource in &self.resources {
            let scopes = || resource.scopes.iter().map(|scope| &self.scopes[*scope as usize]);
            let mut scopes = scopes().filter(|scope| !scope.metrics.is_empty()).peekable();
            if scopes.peek().is_none() {
                continue;
            }
            put_tag(&mut out, 1, BYTES);
            let open_group = open_length(&mut out, EXPECTED_BYTES);
            self.put_resource(&mut out, resource);
            for scope in scopes {
                put_tag(&mut out, 2, BYTES);
                let open_scope = open_length(&mut out, EXPECTED_BYTES);
                put_scope(&mut out, &scope.labels);
                for metric in &scope.metrics {
                    self.put_metric(&mut out, &self.metrics[*metric as usize], &mut parts, &mut built)?;
                }
                if let Some((_, url)) = scope.labels.iter().find(|(name, _)| *name == SCHEMA_URL) {
                    put_bytes(&mut out, 3, url.as_bytes());
                }
                close_length(&mut out, open_scope);
            }
            close_length(&mut out, open_group);
        }
        built.payload = out;
        Ok(built)
    }

    fn put_resource(&self, out: &mut Vec<u8>, resource: &Resource<'_>) {
        put_tag(out, 1, BYTES);
        let open = open_length(out, 128);
        let (mut namespace, mut name) = ("", resource.job);
        if self.options.job == Job::Parted
            && let Some((before, behind)) = resource.job.split_once('/')
        {
            // One without a namespace or a name is another job when it is put together again.
            if !before.is_empty() && !behind.is_empty() {
                (namespace, name) = (before, behind);
            }
        }
        let service = [
            ("service.namespace", namespace),
            ("service.name", name),
            ("service.instance.id", resource.instance),
        ];
        for (key, value) in service.into_iter().filter(|(_, value)| !value.is_empty()) {
            put_attribute(out, 1, key, value);
        }
        let known = match resource.target {
            Some(_) => &[],
            None => self.targets.of(resource.job, resource.instance),
        };
        let known = known.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let told = resource.target.into_iter().flat_map(SeriesRef::labels);
        for (key, value) in told.chain(known) {
            let is_taken = service.iter().any(|(known, _)| *known == key);
            if !is_taken && !matches!(key, NAME | "job" | "instance") {
                put_attribute(out, 1, key, value);
            }
        }
        close_length(out, open);
    }

    fn put_metric(
        &self,
        out: &mut Vec<u8>,
        metric: &Metric<'_>,
        parts: &mut Vec<Part>,
        built: &mut Built,
    ) -> Result<(), TooLarge> {
        let family = self.list.families[metric.family as usize];
        put_tag(out, 2, BYTES);
        let open = open_length(out, EXPECTED_BYTES);
        for (number, text) in [
            (1, metric.name),
            (2, self.list.at(family.help)),
            (3, self.list.at(family.unit)),
        ] {
            if !text.is_empty() {
                put_bytes(out, number, text.as_bytes());
            }
        }
        let number = match metric.form {
            Form::Gauge => 5,
            Form::Sum | Form::UpDown => 7,
            Form::Histogram => 9,
            Form::Exponential => 10,
            Form::Summary => 11,
        };
        put_tag(out, number, BYTES);
        let open_data = open_length(out, EXPECTED_BYTES);
        let mut at = metric.points.first;
        while at != NONE {
            let point = &self.points[at as usize];
            put_tag(out, 1, BYTES);
            let open_point = open_length(out, 127);
            built.exemplars += match point.what {
                What::Number { series, sample } => self.put_number(out, metric, series, sample),
                What::Native { series, native } => self.put_native(out, metric, series, native),
                What::Group(group) => {
                    self.parts_of(group, parts);
                    self.put_group(out, metric.form, group, parts)
                }
            };
            close_length(out, open_point);
            built.points += 1;
            if out.len() > self.options.max_bytes {
                let max_bytes = self.options.max_bytes;
                return Err(TooLarge { max_bytes });
            }
            at = point.next;
        }
        if !matches!(metric.form, Form::Gauge | Form::Summary) {
            put_tag(out, 2, VARINT);
            put_varint(out, TEMPORALITY_CUMULATIVE as u64);
        }
        if metric.form == Form::Sum {
            put_tag(out, 3, VARINT);
            put_varint(out, 1);
        }
        close_length(out, open_data);
        if natural(metric.form) != family.kind {
            put_attribute(out, 12, TYPE_KEY, family.kind.word());
        }
        close_length(out, open);
        Ok(())
    }

    /// The labels of a point that are neither its name nor told elsewhere. Bounds are spelled in one way, as Prometheus 3 has it.
    fn put_labels(&self, out: &mut Vec<u8>, number: u32, series: u32, kind: Kind, without: &str) {
        let mut is_bucket = false;
        let mut text = String::new();
        for (name, value) in self.labels(series) {
            let is_told = matches!(name, "job" | "instance") || scope_label(name).is_some() || name == without;
            if name == NAME {
                is_bucket = value.ends_with("_bucket");
            } else if !is_told {
                let is_bound = (name == "le" && is_bucket) || (name == "quantile" && kind == Kind::Summary);
                if let Some(bound) = value.parse().ok().filter(|_| is_bound) {
                    text.clear();
                    number::canonical(&mut text, bound);
                    put_attribute(out, number, name, &text);
                } else {
                    put_attribute(out, number, name, value);
                }
            }
        }
    }

    fn put_number(&self, out: &mut Vec<u8>, metric: &Metric<'_>, series: u32, sample: u32) -> u64 {
        let kind = self.list.families[metric.family as usize].kind;
        let is_last = self.is_last_sample(series, sample);
        let sample = &self.list.samples[sample as usize];
        let time_ms = sample.time_ms.unwrap_or(self.options.time_ms);
        self.put_labels(out, 7, series, kind, "");
        let start_ms = if kind.counts() { sample.start_ms } else { 0 };
        put_times(out, start_ms, time_ms);
        if is_stale(sample.value) {
            put_tag(out, 8, VARINT);
            put_varint(out, u64::from(FLAG_NO_RECORDED_VALUE));
        } else {
            put_fixed64(out, 4, sample.value.to_bits());
        }
        self.put_exemplars(out, 5, series, is_last, time_ms)
    }

    fn put_native(&self, out: &mut Vec<u8>, metric: &Metric<'_>, series: u32, native: u32) -> u64 {
        let is_last = native + 1 == self.series(series).natives.end;
        let native = &self.list.natives[native as usize];
        let (attributes, exemplars) = match metric.form {
            Form::Exponential => (1, 11),
            _ => (9, 8),
        };
        self.put_labels(out, attributes, series, Kind::Histogram, "");
        put_times(out, native.start_ms, native.time_ms);
        out.extend_from_slice(native.body.of(&self.list.bytes));
        self.put_exemplars(out, exemplars, series, is_last, native.time_ms)
    }

    /// A histogram or a summary of the parts that [`Builder::parts_of`] put in order.
    fn put_group(&self, out: &mut Vec<u8>, form: Form, group: u32, parts: &[Part]) -> u64 {
        let [rest @ .., sum, count] = parts else { return 0 };
        let time_ms = self.groups[group as usize].time_ms;
        let sample = |part: &Part| self.list.samples[part.sample as usize];
        let ended = is_stale(sample(count).value);
        let number = |part: &Part| if ended { 0.0 } else { sample(part).value };
        let (attributes, kind, without) = match form {
            Form::Summary => (7, Kind::Summary, "quantile"),
            _ => (9, Kind::Histogram, "le"),
        };
        self.put_labels(out, attributes, count.series, kind, without);
        put_times(out, sample(count).start_ms, time_ms);
        put_fixed64(out, 4, number(count) as u64);
        put_fixed64(out, 5, number(sum).to_bits());
        let flags = if form == Form::Summary { 8 } else { 10 };
        if form == Form::Summary {
            for part in rest {
                let Role::Quantile(quantile) = part.role else { continue };
                put_tag(out, 6, BYTES);
                put_varint(out, 18);
                put_fixed64(out, 1, quantile.to_bits());
                put_fixed64(out, 2, number(part).to_bits());
            }
        } else {
            put_tag(out, 6, BYTES);
            put_varint(out, 8 * rest.len() as u64);
            let mut below = 0;
            for part in rest {
                let all = number(part) as u64;
                out.extend_from_slice(&(all - below).to_le_bytes());
                below = all;
            }
            if rest.len() > 1 {
                put_tag(out, 7, BYTES);
                put_varint(out, 8 * (rest.len() as u64 - 1));
                for part in &rest[..rest.len() - 1] {
                    let Role::Bucket(bound) = part.role else { continue };
                    out.extend_from_slice(&bound.to_bits().to_le_bytes());
                }
            }
        }
        if ended {
            put_tag(out, flags, VARINT);
            put_varint(out, u64::from(FLAG_NO_RECORDED_VALUE));
        }
        let mut exemplars = 0;
        if form == Form::Histogram {
            for part in parts {
                let is_last = self.is_last_sample(part.series, part.sample);
                exemplars += self.put_exemplars(out, 8, part.series, is_last, time_ms);
            }
        }
        exemplars
    }

    /// Writes the exemplars of a series behind its last sample, and says how many.
    fn put_exemplars(&self, out: &mut Vec<u8>, number: u32, series: u32, is_last: bool, time_ms: i64) -> u64 {
        let mut count = 0;
        for exemplar in self.exemplars(series, is_last) {
            count += 1;
            put_tag(out, number, BYTES);
            let open = open_length(out, 100);
            let time = nanos(exemplar.time_ms.unwrap_or(time_ms)).unwrap_or_default();
            put_fixed64(out, 2, time);
            put_fixed64(out, 3, exemplar.value.to_bits());
            for (name, value) in self.list.pairs(exemplar.labels) {
                match name {
                    "trace_id" => match id(value, TraceId::from_hex(value).ok().map(|id| id.0)) {
                        Some(id) => put_bytes(out, 5, &id),
                        None => put_attribute(out, 7, name, value),
                    },
                    "span_id" => match id(value, SpanId::from_hex(value).ok().map(|id| id.0)) {
                        Some(id) => put_bytes(out, 4, &id),
                        None => put_attribute(out, 7, name, value),
                    },
                    _ => put_attribute(out, 7, name, value),
                }
            }
            close_length(out, open);
        }
        count
    }
}

/// A guess at how long a list of points is, which saves moving it when it is right to within the length of a varint.
const EXPECTED_BYTES: usize = 1 << 15;

const SCHEMA_URL: &str = "schema_url";

fn put_scope(out: &mut Vec<u8>, labels: &[(&str, &str)]) {
    put_tag(out, 1, BYTES);
    let open = open_length(out, 64);
    for (name, value) in labels {
        match *name {
            "name" => put_bytes(out, 1, value.as_bytes()),
            "version" => put_bytes(out, 2, value.as_bytes()),
            SCHEMA_URL => {}
            name => put_attribute(out, 3, name, value),
        }
    }
    close_length(out, open);
}

/// What a label says of the scope: the part of its name behind the prefix.
fn scope_label(name: &str) -> Option<&str> {
    name.strip_prefix(SCOPE_PREFIX).filter(|rest| !rest.is_empty())
}

/// The type that an exporter reads from a kind of points.
fn natural(form: Form) -> Kind {
    match form {
        Form::Gauge | Form::UpDown => Kind::Gauge,
        Form::Sum => Kind::Counter,
        Form::Histogram | Form::Exponential => Kind::Histogram,
        Form::Summary => Kind::Summary,
    }
}

fn rank(role: Role) -> u8 {
    match role {
        Role::Bucket(_) => 0,
        Role::Quantile(_) => 1,
        Role::Sum => 2,
        Role::Count => 3,
    }
}

/// Whether a value is a number of observations: whole, and such that it is the same after a walk through 64 bits.
fn is_count(value: f64) -> bool {
    const END: f64 = 18_446_744_073_709_551_616.0;
    value.is_sign_positive() && value < END && value.fract() == 0.0
}

/// Milliseconds as OTLP's nanoseconds; `None` for times that those do not have.
fn nanos(time_ms: i64) -> Option<u64> {
    u64::try_from(time_ms).ok()?.checked_mul(1_000_000)
}

fn put_times(out: &mut Vec<u8>, start_ms: i64, time_ms: i64) {
    for (number, time_ms) in [(2, start_ms), (3, time_ms)] {
        if let Some(time @ 1..) = nanos(time_ms) {
            put_fixed64(out, number, time);
        }
    }
}

/// An id that is written back as it was read, and is one.
fn id<const N: usize>(text: &str, id: Option<[u8; N]>) -> Option<[u8; N]> {
    let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    id.filter(|id| is_lower && *id != [0; N])
}

fn put_attribute(out: &mut Vec<u8>, number: u32, key: &str, value: &str) {
    let delimited = |len: usize| 1 + varint_len(len as u64) + len;
    put_tag(out, number, BYTES);
    put_varint(out, (delimited(key.len()) + delimited(delimited(value.len()))) as u64);
    put_bytes(out, 1, key.as_bytes());
    put_tag(out, 2, BYTES);
    put_varint(out, delimited(value.len()) as u64);
    put_bytes(out, 1, value.as_bytes());
}
