//! Why: series become OTLP metrics at the door, in such a way that they can become the same series again (`docs/prometheus-mapping.md`): `job` and `instance`
//! are the resource, `otel_scope_…` the scope, a counter is a sum, and the series of a histogram or a summary are one point, wherever that point says
//! exactly what they said. Where it would not, they stay series: a number each, marked with the type of their family.

mod collect;
mod groups;
mod targets;
mod write;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use model::wire::varint_len;

pub use targets::{MAX_TARGETS_BYTES, Targets};

use super::series::{Exemplar, NAME, Sample, Series, SeriesList, SeriesRef, Stretch};

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

/// What [`build`] makes of a list is not longer than this.
pub fn len_at_most(list: &SeriesList) -> u64 {
    // The times, value and flags of a point or an exemplar, or a bucket of one, with the tags and lengths around them.
    const POINT_BYTES: u64 = 80;
    // The same of a metric, a scope and a resource that nothing else is in, with the type in the metadata and the keys of the service.
    const METRIC_BYTES: u64 = 240;
    let labels = |labels: Stretch| {
        let labels = labels.of(&list.labels).iter();
        labels
            .map(|label| attribute_len(list.at(label.name), list.at(label.value)))
            .sum::<u64>()
    };
    // What of a series is not told by its points.
    let head = |series: &Series| {
        let labels = series.labels.of(&list.labels).iter();
        let labels = labels.map(|label| (list.at(label.name), list.at(label.value)));
        labels.filter(|(name, _)| matches!(*name, NAME | "job" | "instance") || scope_label(name).is_some())
    };
    let mut bytes = list.bytes.len() as u64;
    let mut before: Option<&Series> = None;
    for series in &list.series {
        let points = (series.samples.of(&list.samples).len() + series.natives.of(&list.natives).len()) as u64;
        bytes += (labels(series.labels) + POINT_BYTES) * points;
        for exemplar in series.exemplars.of(&list.exemplars) {
            bytes += labels(exemplar.labels) + POINT_BYTES;
        }
        let is_like = |before: &&Series| before.family == series.family && head(before).eq(head(series));
        if before.filter(is_like).is_none() {
            let family = list.families[series.family as usize];
            let head = head(series)
                .map(|(name, value)| attribute_len(name, value))
                .sum::<u64>();
            // In one scope, and at most four metrics of it: numbers, native histograms of both forms, and what it is a part of.
            bytes += 4 * (head + family.help.len() + family.unit.len() + METRIC_BYTES);
        }
        before = Some(series);
    }
    // `target_info` is said of its resource as well.
    let targets = list.iter().filter(|series| series.name() == TARGET_INFO);
    bytes + targets.map(|target| labels(target.series.labels)).sum::<u64>()
}

/// What a label takes as an attribute. Bounds may be spelled a little longer than they were.
fn attribute_len(name: &str, value: &str) -> u64 {
    const SPELLED_BYTES: usize = 24;
    let longest = if matches!(name, "le" | "quantile") {
        SPELLED_BYTES
    } else {
        0
    };
    let delimited = |len: usize| 1 + varint_len(len as u64) + len;
    delimited(delimited(name.len()) + delimited(delimited(value.len() + longest))) as u64
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
}

/// What a label says of the scope: the part of its name behind the prefix.
fn scope_label(name: &str) -> Option<&str> {
    name.strip_prefix(SCOPE_PREFIX).filter(|rest| !rest.is_empty())
}

/// Milliseconds as OTLP's nanoseconds; `None` for times that those do not have.
fn nanos(time_ms: i64) -> Option<u64> {
    u64::try_from(time_ms).ok()?.checked_mul(1_000_000)
}
