//! Why: how many calls, how many of them failed and how long they took can be read off spans, so that a service has these metrics without measuring anything
//! itself. Every span that comes in is counted in `traces.span.metrics.calls` and `traces.span.metrics.duration`, by service, span name, kind, status and
//! the dimensions that are asked for; exemplars carry the trace id. As series of Prometheus they are `traces_span_metrics_calls_total` and
//! `traces_span_metrics_duration_milliseconds` (`_seconds` with `unit: s`), as dashboards and Jaeger's Monitor tab expect them.
//!
//! It stands behind the journal: what it counted and how far it has read are one commit, so that a crash counts nothing twice and nothing less, and
//! cumulative series go on with their start over restarts. What a pipeline gives it is counted: let it take from a pipeline without a sampler, and sample
//! in another one that has the same receivers.
//!
//! ```yaml
//! connectors:
//!   spanmetrics:
//!     dimensions: [{ name: http.route }, { name: http.request.method, default: none }]
//!     exemplars: { enabled: true }
//!     metrics_expiration: 1h
//! service:
//!   pipelines:
//!     traces/all: { receivers: [otlp], exporters: [spanmetrics] }
//!     traces: { receivers: [otlp], processors: [tail_sampling, batch], exporters: [otlp] }
//!     metrics: { receivers: [otlp, spanmetrics], exporters: [prometheus] }
//! ```

mod counting;
mod points;
mod settings;
mod state;

use std::sync::Arc;
use std::time::Duration;

use model::write::Temporality;
use model::{Batch, Signal};
use serde::Deserialize;

use self::counting::{NO_RESOURCE, SCOPE_NAME, SCOPE_VERSION, Tally, resource_bytes, series_bytes};
use self::settings::Settings;
use super::StreamClock;
use super::histogram::{Bound, DEFAULT_MAX_SIZE, MAX_SIZES, check_bounds};
use super::series::{Held, IDLE_NANOS, MAX_HELD_BYTES, OVERFLOW, Table, Telling};
use crate::budget::Budget;
use crate::config::{Problems, Section, duration, present};
use crate::stage::{BadState, MakeStage, Stage, State};

/// Dimensions that one metric has at most: each is looked for in every span.
const MAX_DIMENSIONS: usize = 64;

/// Exemplars that a series keeps at most between two flushes: each takes 48 bytes and is looked at for every span of its series.
const MAX_EXEMPLARS: usize = 100;

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How durations are recorded.
    pub histogram: HistogramConfig,
    /// Attributes of spans, or else of resources, that all metrics are told apart by, beside `service.name`, `span.name`, `span.kind` and `status.code`.
    pub dimensions: Vec<Dimension>,
    /// More of them, for `calls` only.
    pub calls_dimensions: Vec<Dimension>,
    /// Which of `service.name`, `span.name`, `span.kind` and `status.code` to leave out.
    pub exclude_dimensions: Vec<String>,
    /// Spans as examples of a point, with their trace and span ids.
    pub exemplars: Exemplars,
    /// Count the events of spans too.
    pub events: Events,
    /// What the names of the metrics begin with, before a dot. Default `traces.span.metrics`.
    pub namespace: String,
    /// `AGGREGATION_TEMPORALITY_CUMULATIVE` (default; also `cumulative`) or `AGGREGATION_TEMPORALITY_DELTA` (`delta`).
    pub aggregation_temporality: AggregationTemporality,
    /// How often the metrics are given out. Default 60s.
    #[serde(deserialize_with = "duration")]
    pub metrics_flush_interval: Duration,
    /// After how long without a span the series of a resource are forgotten. Default 0, which is never.
    #[serde(deserialize_with = "duration")]
    pub metrics_expiration: Duration,
    /// After how long without a span a single series is forgotten. Default 0, which is never.
    #[serde(deserialize_with = "duration")]
    pub series_expiration: Duration,
    /// How many series a metric has at most; what is beyond is counted in one with `otel.metric.overflow`. At the bound, those idle for an hour make room. Default 0, which is 2000.
    pub aggregation_cardinality_limit: usize,
    /// How many resources are told apart; the spans of others are counted in the series with `otel.metric.overflow`. Default 1000.
    pub resource_metrics_cache_size: usize,
    /// The attributes that tell resources apart. Default: all of them. Name them if some change with each start of a service.
    pub resource_metrics_key_attributes: Vec<String>,
    /// Give the points out with the attributes of the spans' resources. Default `true`; with `false`, resources are not told apart.
    pub add_resource_attributes: Option<bool>,
    /// Scopes whose name and version become attributes: `span.instrumentation.scope.name`, `span.instrumentation.scope.version`.
    pub include_instrumentation_scope: Vec<String>,
    /// The collector's; without effect, since series are found without a cache.
    pub dimensions_cache_size: Option<u64>,
    /// The collector's; without effect, since the time of the last flush is remembered for all series.
    pub metric_timestamp_cache_size: Option<u64>,
    /// The collector's attribute that says whether spans were extrapolated; not supported, since each span that comes in counts as one.
    pub enable_metrics_sampling_method: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            histogram: HistogramConfig::default(),
            dimensions: Vec::new(),
            calls_dimensions: Vec::new(),
            exclude_dimensions: Vec::new(),
            exemplars: Exemplars::default(),
            events: Events::default(),
            namespace: "traces.span.metrics".into(),
            aggregation_temporality: AggregationTemporality::Cumulative,
            metrics_flush_interval: Duration::from_secs(60),
            metrics_expiration: Duration::ZERO,
            series_expiration: Duration::ZERO,
            aggregation_cardinality_limit: 0,
            resource_metrics_cache_size: 1000,
            resource_metrics_key_attributes: Vec::new(),
            add_resource_attributes: None,
            include_instrumentation_scope: Vec::new(),
            dimensions_cache_size: None,
            metric_timestamp_cache_size: None,
            enable_metrics_sampling_method: false,
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HistogramConfig {
    /// Leave the durations out. Default `false`.
    pub disable: bool,
    /// `ms` (default) or `s`.
    pub unit: Unit,
    /// Buckets with bounds that are said; this form is the default.
    #[serde(deserialize_with = "present")]
    pub explicit: Option<Explicit>,
    /// Buckets that find their bounds themselves.
    #[serde(deserialize_with = "present")]
    pub exponential: Option<ExponentialConfig>,
    /// More dimensions, for `duration` only.
    pub dimensions: Vec<Dimension>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    #[default]
    Ms,
    S,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Explicit {
    /// The upper bounds of the buckets, as durations. Default 2, 4, 6, 8, 10, 50, 100, 200, 400, 800 ms, 1, 1.4, 2, 5, 10, 15 s.
    pub buckets: Option<Vec<Bound>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExponentialConfig {
    /// How many buckets a histogram has at most. Default 160.
    pub max_size: u32,
}

impl Default for ExponentialConfig {
    fn default() -> Self {
        ExponentialConfig {
            max_size: DEFAULT_MAX_SIZE,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dimension {
    /// The key of the attribute.
    pub name: String,
    /// The value where neither span nor resource has the attribute. Default: the point then has none.
    pub default: Option<String>,
    /// The collector's choice of attributes by a pattern; not supported.
    pub glob: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exemplars {
    /// Whether there are any. Default `false`.
    pub enabled: bool,
    /// How many a point has at most, the latest of different buckets. Default 5.
    pub max_per_data_point: usize,
}

impl Default for Exemplars {
    fn default() -> Self {
        Exemplars {
            enabled: false,
            max_per_data_point: 5,
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Events {
    /// Whether there is a metric `events`. Default `false`.
    pub enabled: bool,
    /// Attributes of events that it is told apart by, beside `dimensions`; at least one.
    pub dimensions: Vec<Dimension>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum AggregationTemporality {
    #[serde(rename = "AGGREGATION_TEMPORALITY_CUMULATIVE", alias = "cumulative", alias = "")]
    Cumulative,
    #[serde(rename = "AGGREGATION_TEMPORALITY_DELTA", alias = "delta")]
    Delta,
}

pub fn parse(section: &Section<'_>) -> Result<MakeStage, Problems> {
    let config: Config = section.parse()?;
    check(section, &config)?;
    for key in ["dimensions_cache_size", "metric_timestamp_cache_size"] {
        if section.sets(&[key]) {
            section.warn(&[key], format!("`{key}` has no effect: there is no such cache"));
        }
    }
    let settings = Arc::new(Settings::new(&config, section.component.id.as_str()));
    Ok(Arc::new(move || Box::new(SpanMetrics::new(Arc::clone(&settings)))))
}

/// The attributes that are not configured, in the order in which they are written.
const BUILT_IN: [&str; 4] = ["service.name", "span.name", "span.kind", "status.code"];
fn check(section: &Section<'_>, config: &Config) -> Result<(), Problems> {
    let base: Vec<&str> = BUILT_IN
        .into_iter()
        .chain([SCOPE_NAME, SCOPE_VERSION, OVERFLOW])
        .collect();
    let common = check_dimensions(section, &["dimensions"], &config.dimensions, &base)?;
    check_dimensions(section, &["calls_dimensions"], &config.calls_dimensions, &common)?;
    check_dimensions(
        section,
        &["histogram", "dimensions"],
        &config.histogram.dimensions,
        &common,
    )?;
    check_dimensions(section, &["events", "dimensions"], &config.events.dimensions, &common)?;
    if config.events.enabled && config.events.dimensions.is_empty() {
        let problem = "`events` needs `dimensions`: without one, all events of a span would be the same";
        return Err(section.problem(&["events"], problem));
    }
    if config.metrics_flush_interval.is_zero() {
        return Err(section.problem(&["metrics_flush_interval"], "an interval is longer than nothing"));
    }
    if config.enable_metrics_sampling_method {
        let problem = "`enable_metrics_sampling_method` is not supported: each span that comes in counts as one; remove it, and count before a sampler";
        return Err(section.problem(&["enable_metrics_sampling_method"], problem));
    }
    let histogram = &config.histogram;
    if histogram.explicit.is_some() && histogram.exponential.is_some() {
        return Err(section.problem(&["histogram"], "a histogram is either `explicit` or `exponential`"));
    }
    if let Some(exponential) = &histogram.exponential
        && !MAX_SIZES.contains(&exponential.max_size)
    {
        let problem = format!(
            "a histogram has from {} to {} buckets",
            MAX_SIZES.start(),
            MAX_SIZES.end()
        );
        return Err(section.problem(&["histogram", "exponential", "max_size"], problem));
    }
    if let Some(buckets) = histogram
        .explicit
        .as_ref()
        .and_then(|explicit| explicit.buckets.as_ref())
    {
        let path = ["histogram", "explicit", "buckets"];
        check_bounds(section, &path, buckets)?;
    }
    if config.resource_metrics_cache_size == 0 {
        return Err(section.problem(
            &["resource_metrics_cache_size"],
            "at least one resource has to be remembered",
        ));
    }
    if config.exemplars.max_per_data_point > MAX_EXEMPLARS {
        let problem = format!("a point has at most {MAX_EXEMPLARS} exemplars");
        return Err(section.problem(&["exemplars", "max_per_data_point"], problem));
    }
    Ok(())
}

/// Returns the names of these dimensions and of those `before` them.
fn check_dimensions<'c>(
    section: &Section<'_>,
    path: &[&str],
    dimensions: &'c [Dimension],
    before: &[&'c str],
) -> Result<Vec<&'c str>, Problems> {
    let mut names = before.to_vec();
    if names.len() + dimensions.len() > MAX_DIMENSIONS {
        return Err(section.problem(path, format!("a metric has at most {MAX_DIMENSIONS} dimensions")));
    }
    for (at, dimension) in dimensions.iter().enumerate() {
        let at = at.to_string();
        let path: Vec<&str> = path.iter().copied().chain([at.as_str()]).collect();
        if dimension.glob.is_some() {
            return Err(section.problem(&path, "`glob` is not supported; name each dimension"));
        }
        if dimension.name.is_empty() {
            return Err(section.problem(&path, "a dimension needs a `name`"));
        }
        if names.contains(&dimension.name.as_str()) {
            return Err(section.problem(&path, format!("the dimension `{}` is there already", dimension.name)));
        }
        names.push(&dimension.name);
    }
    Ok(names)
}

struct SpanMetrics {
    settings: Arc<Settings>,
    clock: StreamClock,
    next_flush_unix_nano: u64,
    last_flush_unix_nano: u64,
    /// Each with the attributes that it is given out with, where they are more than those that tell it apart.
    resources: Table<Box<[u8]>>,
    tallies: Vec<Tally>,
    held: Held,
    /// Whether something was counted since the last flush.
    is_dirty: bool,
    /// Whether there was a flush since the state was last asked for.
    has_flushed: bool,
    telling: Telling,
    key: Vec<u8>,
}

impl SpanMetrics {
    fn new(settings: Arc<Settings>) -> SpanMetrics {
        SpanMetrics {
            clock: StreamClock::default(),
            next_flush_unix_nano: 0,
            last_flush_unix_nano: 0,
            resources: Table::default(),
            tallies: settings.tables.iter().map(|_| Tally::default()).collect(),
            held: Held::default(),
            is_dirty: false,
            has_flushed: false,
            telling: Telling::default(),
            key: Vec::new(),
            settings,
        }
    }

    /// Begins anew.
    fn forget(&mut self) {
        let mut held = std::mem::take(&mut self.held);
        held.shrink(0);
        *self = SpanMetrics {
            held,
            ..SpanMetrics::new(Arc::clone(&self.settings))
        };
    }

    /// Goes on to this time, and gives out what is due.
    fn advance(&mut self, now: u64, out: &mut Vec<Batch>) {
        // A clock that was set back must not put off the next flush for as long.
        let is_due = self.next_flush_unix_nano <= now;
        let is_astray = self.next_flush_unix_nano.saturating_sub(now) > self.settings.flush_nanos;
        match self.next_flush_unix_nano {
            0 => self.next_flush_unix_nano = now.saturating_add(self.settings.flush_nanos),
            _ if is_due || is_astray => self.flush(now, out),
            _ => {}
        }
    }

    fn flush(&mut self, now: u64, out: &mut Vec<Batch>) {
        self.expire(now);
        self.write(now, out);
        match self.settings.temporality {
            Temporality::Delta => {
                for tally in &mut self.tallies {
                    tally.series = Table::default();
                }
                self.resources = Table::default();
                self.held.shrink(0);
                self.telling.has_moved = true;
            }
            Temporality::Cumulative => {
                for tally in &mut self.tallies {
                    tally.series.each_value(|value| value.exemplars.clear());
                }
            }
        }
        self.last_flush_unix_nano = now;
        self.next_flush_unix_nano = now.saturating_add(self.settings.flush_nanos);
        self.is_dirty = false;
        self.has_flushed = true;
    }

    /// Forgets series whose time is over.
    fn expire(&mut self, now: u64) {
        let settings = &self.settings;
        let resources = self.resources.rows();
        let is_older = |touched: u64, nanos: u64| nanos > 0 && now.saturating_sub(touched) > nanos;
        let are_resources_full = resources.len() >= settings.max_resources;
        let is_short = self.held.bytes > MAX_HELD_BYTES / 2;
        let mut has_moved = false;
        for tally in &mut self.tallies {
            let is_full = tally.series.len() >= settings.max_series || are_resources_full || is_short;
            has_moved |= tally.series.retain(|row| {
                let resource = resources.get(row.owner as usize);
                let seen = resource.map_or(row.touched_unix_nano, |resource| resource.touched_unix_nano);
                let is_over = is_older(row.touched_unix_nano, settings.series_expiration_nanos)
                    || is_older(seen, settings.resource_expiration_nanos)
                    || is_full && is_older(row.touched_unix_nano, IDLE_NANOS);
                !is_over
            });
        }
        if !has_moved {
            return;
        }
        let mut is_used = vec![false; self.resources.len()];
        for row in self.tallies.iter().flat_map(|tally| tally.series.rows()) {
            if let Some(is_used) = is_used.get_mut(row.owner as usize) {
                *is_used = true;
            }
        }
        let mut numbers = Vec::with_capacity(is_used.len());
        let mut next = 0;
        for is_used in &is_used {
            numbers.push(next);
            next += u32::from(*is_used);
        }
        let mut at = 0;
        self.resources.retain(|_| {
            at += 1;
            is_used[at - 1]
        });
        for tally in &mut self.tallies {
            let number = |owner: u32| numbers.get(owner as usize).copied().unwrap_or(NO_RESOURCE);
            tally.series.renumber(number);
        }
        self.telling.has_moved = true;
        self.held.shrink(self.count_held());
    }

    fn count_held(&self) -> usize {
        let resources = self
            .resources
            .rows()
            .iter()
            .map(|row| resource_bytes(&row.key, &row.value));
        let series = self.tallies.iter().flat_map(|tally| tally.series.rows());
        resources.sum::<usize>() + series.map(|row| series_bytes(&self.settings, &row.key)).sum::<usize>()
    }
}

impl Stage for SpanMetrics {
    fn start(&mut self, budget: &Budget) {
        self.held.start(budget, &self.settings.component);
    }

    fn restore(&mut self, state: &State) -> Result<(), BadState> {
        let read = match state {
            State::Whole(bytes) => self.read(bytes, true),
            State::Change(bytes) => self.read(bytes, false),
        };
        if read.is_err() {
            self.forget();
        }
        read
    }

    fn take(&mut self, batch: Batch, out: &mut Vec<Batch>) {
        let now = self.clock.take(batch.meta.received_at_unix_nano);
        self.advance(now, out);
        if batch.signal == Signal::Traces {
            self.take_spans(&batch.payload, now);
            self.is_dirty = true;
        }
    }

    fn tick(&mut self, now_unix_nano: u64, out: &mut Vec<Batch>) {
        let now = self.clock.tick(now_unix_nano);
        self.advance(now, out);
    }

    fn finish(&mut self, now_unix_nano: u64, out: &mut Vec<Batch>) {
        let now = self.clock.end(now_unix_nano);
        self.advance(now, out);
        if self.is_dirty {
            self.flush(now, out);
        }
    }

    fn state(&mut self, whole: bool) -> State {
        let mut telling = std::mem::take(&mut self.telling);
        telling.has_moved |= whole;
        let state = telling.state(|is_whole| self.encode(is_whole));
        self.telling = telling;
        self.has_flushed = false;
        state
    }
}

#[cfg(test)]
mod tests;
