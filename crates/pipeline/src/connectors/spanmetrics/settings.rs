//! Why: what the configuration means for the counting, worked out once for all stages that it makes.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use model::write::Temporality;

use super::{AggregationTemporality, BUILT_IN, Config, Dimension, Unit};
use crate::connectors::histogram::{Shape, bounds};
use crate::connectors::series::DEFAULT_MAX_SERIES;

const NS_PER_MS: f64 = 1e6;

const NS_PER_S: f64 = 1e9;

/// What a table of series counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    Spans,
    Events,
}

/// Series with the same dimensions: those of one metric, or those of `calls` and `duration`.
#[derive(Debug)]
pub struct TableSettings {
    pub of: Of,
    pub dimensions: Vec<Dimension>,
    /// From which dimension on events are asked first.
    pub of_event: usize,
    /// The name of the sum.
    pub counted: Option<String>,
    /// The name of the histogram.
    pub measured: Option<String>,
}

#[derive(Debug)]
pub struct Settings {
    pub component: Arc<str>,
    pub tables: Vec<TableSettings>,
    /// Which of [`BUILT_IN`] are written.
    pub built_in: [bool; BUILT_IN.len()],
    pub shape: Shape,
    pub unit: &'static str,
    pub ns_per_unit: f64,
    pub temporality: Temporality,
    pub flush_nanos: u64,
    pub resource_expiration_nanos: u64,
    pub series_expiration_nanos: u64,
    pub max_series: usize,
    pub max_resources: usize,
    pub resource_keys: Vec<String>,
    pub has_resource_attributes: bool,
    pub scopes: Vec<String>,
    pub max_exemplars: usize,
    /// What a remembered state depends on.
    pub fingerprint: String,
}

impl Settings {
    pub fn new(config: &Config, component: &str) -> Settings {
        let name = |metric: &str| match config.namespace.as_str() {
            "" => metric.to_owned(),
            namespace => format!("{namespace}.{metric}"),
        };
        let with = |more: &[Dimension]| [&config.dimensions[..], more].concat();
        let table = |of, dimensions, counted: &[&str], measured: &[&str]| TableSettings {
            of,
            dimensions,
            of_event: config.dimensions.len(),
            counted: counted.first().map(|metric| name(metric)),
            measured: measured.first().map(|metric| name(metric)),
        };
        let (calls, durations) = (with(&config.calls_dimensions), with(&config.histogram.dimensions));
        let mut tables = match () {
            () if config.histogram.disable => vec![table(Of::Spans, calls, &["calls"], &[])],
            () if calls == durations => vec![table(Of::Spans, calls, &["calls"], &["duration"])],
            () => vec![
                table(Of::Spans, calls, &["calls"], &[]),
                table(Of::Spans, durations, &[], &["duration"]),
            ],
        };
        if config.events.enabled {
            tables.push(table(Of::Events, with(&config.events.dimensions), &["events"], &[]));
        }
        let (unit, ns_per_unit) = match config.histogram.unit {
            Unit::Ms => ("ms", NS_PER_MS),
            Unit::S => ("s", NS_PER_S),
        };
        let shape = match (&config.histogram.exponential, &config.histogram.explicit) {
            (Some(exponential), _) => Shape::Exponential {
                max_size: exponential.max_size,
            },
            (None, explicit) => {
                let buckets = explicit.as_ref().and_then(|explicit| explicit.buckets.as_deref());
                Shape::Explicit(bounds(buckets, ns_per_unit))
            }
        };
        let mut settings = Settings {
            component: component.into(),
            tables,
            built_in: BUILT_IN.map(|name| config.exclude_dimensions.iter().all(|excluded| excluded != name)),
            shape,
            unit,
            ns_per_unit,
            temporality: match config.aggregation_temporality {
                AggregationTemporality::Cumulative => Temporality::Cumulative,
                AggregationTemporality::Delta => Temporality::Delta,
            },
            flush_nanos: nanos(config.metrics_flush_interval),
            resource_expiration_nanos: nanos(config.metrics_expiration),
            series_expiration_nanos: nanos(config.series_expiration),
            max_series: match config.aggregation_cardinality_limit {
                0 => DEFAULT_MAX_SERIES,
                limit => limit,
            },
            max_resources: config.resource_metrics_cache_size,
            resource_keys: config.resource_metrics_key_attributes.clone(),
            has_resource_attributes: config.add_resource_attributes.unwrap_or(true),
            scopes: config.include_instrumentation_scope.clone(),
            max_exemplars: match config.exemplars.enabled {
                true => config.exemplars.max_per_data_point,
                false => 0,
            },
            fingerprint: String::new(),
        };
        settings.fingerprint = settings.describe();
        settings
    }

    /// All that the remembered series depend on.
    fn describe(&self) -> String {
        let mut text = String::new();
        for table in &self.tables {
            let counts = (table.counted.is_some(), table.measured.is_some());
            let names = table
                .dimensions
                .iter()
                .map(|dimension| (&dimension.name, &dimension.default));
            let names: Vec<_> = names.collect();
            let written = write!(text, "{:?} {counts:?} {names:?}; ", table.of);
            debug_assert!(written.is_ok(), "a text takes everything");
        }
        let (built_in, shape, unit) = (self.built_in, &self.shape, self.unit);
        let (keys, has, scopes) = (&self.resource_keys, self.has_resource_attributes, &self.scopes);
        let temporality = self.temporality;
        let written = write!(
            text,
            "{built_in:?} {shape:?} {unit} {temporality:?} {keys:?} {has} {scopes:?}"
        );
        debug_assert!(written.is_ok(), "a text takes everything");
        text
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
