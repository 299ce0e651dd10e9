//! Why: some backends want what was counted since the last point, not in all. Of each stream the difference to the point before is told: monotonic sums, histograms
//! and exponential histograms of cumulative temporality become delta; all else goes on as it is.
//!
//! ```yaml
//! processors:
//!   cumulativetodelta:
//!     include: { metrics: ["^http\\..*"], match_type: regexp }
//!     exclude: { metrics: [http.server.active_requests], match_type: strict }
//! ```
//!
//! A stream is told from others by its resource, scope, metric (name, unit, kind) and attributes. Its first point is told or not as `initial_value` says. Where it counts
//! less than before, or began after the point before, it was reset, and what it says is what was counted since. A point that is not later than the one before is dropped and
//! counted (`out_of_order`), as is one whose buckets cannot be compared (`incompatible`). Minimum and maximum are left out, because they are not known of a difference. The
//! last points are on disk together with the differences that were told, so that a crash counts nothing twice and leaves nothing out.
//!
//! Deliberately different from the Collector's: it drops a sum's first point after a reset, and lets points that are out of order through.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::{Batch, Signal};
use regex::Regex;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Step;
use super::actions::compile;
use super::matching::MatchType;
use super::points::{Difference, Kind, Point};
use super::streams::{CUMULATIVE, Convert, DELTA, Id, Streams, convert};
use crate::budget::Budget;
use crate::config::{Problems, Section, suggest};
use crate::ledger::StepBook;
use crate::reason::Reason;
use crate::stage::{BadState, Stage, State};

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Only these metrics are turned. Default all.
    pub include: MatchMetrics,
    /// These are not, even if they are included.
    pub exclude: MatchMetrics,
    /// A stream of which nothing came for this long has ended; 0 is never, and once memory is full points of new streams are dropped (`stream_limit`). Also written
    /// `max_stale`. Default `0`.
    #[serde(alias = "max_stale", deserialize_with = "crate::config::duration")]
    pub max_staleness: Duration,
    /// Whether the first point of a stream is told: `keep`, `drop`, or `auto`, which tells it if the stream began after this process did. Default `auto`.
    pub initial_value: InitialValue,
}

/// Which metrics are meant; what is given must all hold.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MatchMetrics {
    /// Names of metrics.
    pub metrics: Vec<String>,
    /// `strict` compares names as they are, `regexp` finds patterns. Needed with `metrics`.
    pub match_type: Option<MatchType>,
    /// The Collector's settings for a cache of its patterns; accepted, without effect.
    pub regexp: Option<IgnoredAny>,
    /// Some of `sum`, `histogram`, `exponentialhistogram`. Default all.
    pub metric_types: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InitialValue {
    #[default]
    Auto,
    Keep,
    Drop,
}

/// The kinds as they are written.
const KINDS: [(&str, Kind); 3] = [
    ("sum", Kind::Sum),
    ("histogram", Kind::Histogram),
    ("exponentialhistogram", Kind::Exponential),
];

/// Which metrics are meant, read and checked.
#[derive(Debug, Clone, Default)]
struct Chosen {
    names: Vec<String>,
    patterns: Vec<Regex>,
    kinds: Vec<Kind>,
}

impl Chosen {
    fn parse(section: &Section<'_>, key: &str, of: &MatchMetrics) -> Result<Chosen, Problems> {
        let mut chosen = Chosen::default();
        match of.match_type {
            _ if of.metrics.is_empty() => {}
            None => {
                let message = "`match_type` is needed with `metrics`: `strict` or `regexp`";
                return Err(section.problem(&[key, "metrics"], message));
            }
            Some(MatchType::Strict) => chosen.names.clone_from(&of.metrics),
            Some(MatchType::Regexp) => {
                for (index, pattern) in of.metrics.iter().enumerate() {
                    let place = [key, "metrics", &index.to_string()];
                    let pattern = compile(pattern).map_err(|message| section.problem(&place, message))?;
                    chosen.patterns.push(pattern);
                }
            }
        }
        for (index, name) in of.metric_types.iter().enumerate() {
            let plain = name.to_lowercase().replace('_', "");
            let Some((_, kind)) = KINDS.iter().find(|(known, _)| *known == plain) else {
                let place = [key, "metric_types", &index.to_string()];
                let hint = suggest(name, KINDS.map(|(known, _)| known));
                let message = format!("`{name}` is no kind of metric that is turned");
                return Err(section.problem_in(&place, 0..name.len(), message, hint));
            };
            chosen.kinds.push(*kind);
        }
        Ok(chosen)
    }

    fn has_names(&self) -> bool {
        !self.names.is_empty() || !self.patterns.is_empty()
    }

    fn names(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name) || self.patterns.iter().any(|pattern| pattern.is_match(name))
    }
}

pub fn parse(section: &Section<'_>) -> Result<Step, Problems> {
    let config: Config = section.parse()?;
    let include = Chosen::parse(section, "include", &config.include)?;
    let exclude = Chosen::parse(section, "exclude", &config.exclude)?;
    let book = StepBook::new(section.component.id.as_str());
    Ok(Step::Stage(Arc::new(move || {
        Box::new(Subtracting {
            subtractor: Subtractor {
                include: include.clone(),
                exclude: exclude.clone(),
                initial_value: config.initial_value,
                streams: Streams::new(config.max_staleness, usize::MAX),
            },
            tracked: book.count("otelcol_cumulativetodelta_streams_tracked", []),
            book: Arc::clone(&book),
        })
    })))
}

struct Subtracting {
    subtractor: Subtractor,
    tracked: Arc<AtomicU64>,
    book: Arc<StepBook>,
}

struct Subtractor {
    include: Chosen,
    exclude: Chosen,
    initial_value: InitialValue,
    streams: Streams,
}

impl Subtractor {
    fn tells_first(&self, point: &Point) -> bool {
        match self.initial_value {
            InitialValue::Keep => true,
            InitialValue::Drop => false,
            InitialValue::Auto => {
                point.start_unix_nano >= self.streams.began_at_unix_nano()
                    && point.start_unix_nano != point.time_unix_nano
            }
        }
    }
}

impl Convert for Subtractor {
    const FROM: u64 = CUMULATIVE;
    const TO: u64 = DELTA;

    fn wants(&self, name: &str, kind: Kind, is_monotonic: bool) -> bool {
        if kind == Kind::Sum && !is_monotonic {
            return false;
        }
        let is_included = (!self.include.has_names() || self.include.names(name))
            && (self.include.kinds.is_empty() || self.include.kinds.contains(&kind));
        is_included && !self.exclude.names(name) && !self.exclude.kinds.contains(&kind)
    }

    fn point(&mut self, id: Id, point: Point) -> Result<Point, Reason> {
        let told = match self.streams.get(&id) {
            None if self.tells_first(&point) => Ok(point.clone()),
            None => Err(Reason::FirstOfStream),
            Some(last) if point.time_unix_nano <= last.time_unix_nano => return Err(Reason::OutOfOrder),
            Some(last) => {
                let has_begun_anew =
                    point.start_unix_nano >= last.time_unix_nano && point.start_unix_nano < point.time_unix_nano;
                match point.value.since(&last.value) {
                    _ if has_begun_anew => Ok(point.clone()),
                    Difference::Since(value) => Ok(Point {
                        start_unix_nano: last.time_unix_nano,
                        time_unix_nano: point.time_unix_nano,
                        value,
                    }),
                    Difference::Reset => Ok(Point {
                        start_unix_nano: last.time_unix_nano,
                        ..point.clone()
                    }),
                    Difference::Mismatch => Err(Reason::Incompatible),
                }
            }
        };
        match self.streams.set(id, point) {
            true => told,
            false => Err(Reason::StreamLimit),
        }
    }
}

impl Stage for Subtracting {
    fn start(&mut self, budget: &Budget) {
        let part = budget.child(Arc::clone(&self.book.processor), budget.limit_bytes());
        self.subtractor.streams.count_in(&part);
    }

    fn restore(&mut self, state: &State) -> Result<(), BadState> {
        self.subtractor.streams.restore(state)
    }

    fn take(&mut self, batch: Batch, out: &mut Vec<Batch>) {
        if batch.signal != Signal::Metrics {
            out.push(batch);
            return;
        }
        self.subtractor.streams.at(batch.meta.received_at_unix_nano);
        let converted = convert(&batch, &mut self.subtractor, &self.book);
        if converted.items > 0 || batch.items == 0 {
            out.push(converted);
        }
        self.tracked
            .store(self.subtractor.streams.len() as u64, Ordering::Relaxed);
    }

    fn state(&mut self, whole: bool) -> State {
        self.subtractor.streams.state(whole)
    }

    fn book(&self) -> Option<&Arc<StepBook>> {
        Some(&self.book)
    }
}

#[cfg(test)]
mod tests;
