//! One event: labels and values side by side, and what CloudWatch is to make of them.

use serde::de::IgnoredAny;

use super::super::{MAX_EVENT_BYTES, Translated};
use super::value::Value;
use super::{Options, Rollup, SCOPE_LABEL, Version};
use crate::value_text::{write_json_text, write_number};

/// Metrics in one event, as the format permits.
const MAX_METRICS: usize = 100;

/// Dimensions in one set, likewise.
pub(super) const MAX_DIMENSIONS: usize = 30;

/// CloudWatch's bounds on a dimension. A label beyond them stays in the event.
const MAX_DIMENSION_NAME_CHARS: usize = 255;
const MAX_DIMENSION_VALUE_CHARS: usize = 1024;

/// Prometheus's word for a metric's kind, as a member beside the labels.
const KIND: &str = "prom_metric_type";

/// Points of one time with the same labels.
#[derive(Debug)]
pub(super) struct Group {
    pub stream: usize,
    pub namespace: String,
    pub time_unix_milli: i64,
    /// Where it is to be told.
    pub kind: Option<&'static str>,
    /// Sorted by name.
    pub labels: Vec<(String, String)>,
    pub metrics: Vec<Measured>,
}

/// A metric's value.
#[derive(Debug)]
pub(super) struct Measured {
    pub name: String,
    /// Empty: none.
    pub unit: &'static str,
    pub value: Value,
    /// Data points that it stands for.
    pub points: u32,
}

impl Group {
    /// Whether a metric of this name can be added.
    pub fn has_room_for(&self, name: &str) -> bool {
        self.metrics.len() < MAX_METRICS && self.metrics.iter().all(|known| known.name != name)
    }
}

/// Metrics that get the same sets of dimensions.
struct Directive<'a> {
    dimensions: Vec<Vec<&'a str>>,
    metrics: Vec<&'a Measured>,
}

/// Members of an event that say what it is.
pub(super) fn is_reserved(name: &str, version: Version) -> bool {
    match version {
        Version::V1 => matches!(name, "_aws" | "Version"),
        Version::V0 => matches!(name, "Version" | "Timestamp" | "CloudWatchMetrics"),
    }
}

/// Writes a group's events: one, unless it is larger than one may be.
pub(super) fn write(group: &Group, options: &Options, out: &mut Translated) {
    write_some(group, &group.metrics, options, out);
}

fn write_some(group: &Group, metrics: &[Measured], options: &Options, out: &mut Translated) {
    let mut text = Vec::with_capacity(256 + metrics.len() * 64);
    write_event(group, metrics, options, &mut text);
    let points = metrics.iter().map(|metric| metric.points).fold(0, u32::saturating_add);
    if text.len() <= MAX_EVENT_BYTES {
        out.streams[group.stream].push(group.time_unix_milli, points, |all| all.extend_from_slice(&text));
    } else if metrics.len() > 1 {
        let (some, others) = metrics.split_at(metrics.len() / 2);
        write_some(group, some, options, out);
        write_some(group, others, options, out);
    } else {
        out.reject(points, "labels that are larger than an event may be");
    }
}

fn write_event(group: &Group, metrics: &[Measured], options: &Options, out: &mut Vec<u8>) {
    out.push(b'{');
    let directives = if options.extracts {
        directives(group, metrics, options)
    } else {
        Vec::new()
    };
    match options.version {
        Version::V1 if !directives.is_empty() => {
            key("Version", out);
            out.extend_from_slice(b"\"1\"");
            key("_aws", out);
            out.push(b'{');
            key("Timestamp", out);
            write_number(group.time_unix_milli, out);
            key("CloudWatchMetrics", out);
            write_directives(&group.namespace, &directives, out);
            out.push(b'}');
        }
        Version::V1 => {}
        Version::V0 => {
            key("Timestamp", out);
            write_json_text(&group.time_unix_milli.to_string(), out);
            if !directives.is_empty() {
                key("Version", out);
                out.extend_from_slice(b"\"0\"");
                key("CloudWatchMetrics", out);
                write_directives(&group.namespace, &directives, out);
            }
        }
    }
    for metric in metrics {
        key(&metric.name, out);
        metric.value.write(out);
    }
    let is_metric = |name: &str| metrics.iter().any(|metric| metric.name == name);
    for (name, value) in &group.labels {
        if is_metric(name) || is_reserved(name, options.version) || group.kind.is_some() && name == KIND {
            continue;
        }
        key(name, out);
        let is_json = options.json_labels.contains(name) && serde_json::from_str::<IgnoredAny>(value).is_ok();
        match is_json {
            true => out.extend_from_slice(value.as_bytes()),
            false => write_json_text(value, out),
        }
    }
    if let Some(kind) = group.kind.filter(|_| !is_metric(KIND)) {
        key(KIND, out);
        write_json_text(kind, out);
    }
    out.push(b'}');
}

/// A key of an object, with the comma before it where one is needed.
fn key(name: &str, out: &mut Vec<u8>) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    write_json_text(name, out);
    out.push(b':');
}

fn write_directives(namespace: &str, directives: &[Directive<'_>], out: &mut Vec<u8>) {
    let comma = |index: usize, out: &mut Vec<u8>| {
        if index > 0 {
            out.push(b',');
        }
    };
    out.push(b'[');
    for (index, directive) in directives.iter().enumerate() {
        comma(index, out);
        out.push(b'{');
        key("Namespace", out);
        write_json_text(namespace, out);
        key("Dimensions", out);
        out.push(b'[');
        for (index, set) in directive.dimensions.iter().enumerate() {
            comma(index, out);
            out.push(b'[');
            for (index, name) in set.iter().enumerate() {
                comma(index, out);
                write_json_text(name, out);
            }
            out.push(b']');
        }
        out.push(b']');
        key("Metrics", out);
        out.push(b'[');
        for (index, metric) in directive.metrics.iter().enumerate() {
            comma(index, out);
            out.push(b'{');
            key("Name", out);
            write_json_text(&metric.name, out);
            if !metric.unit.is_empty() {
                key("Unit", out);
                write_json_text(metric.unit, out);
            }
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
    }
    out.push(b']');
}

fn directives<'a>(group: &'a Group, metrics: &'a [Measured], options: &'a Options) -> Vec<Directive<'a>> {
    let is_metric = |name: &str| metrics.iter().any(|metric| metric.name == name);
    // What can be a dimension: CloudWatch takes no metric at all with one that cannot.
    let labels: Vec<&str> = group
        .labels
        .iter()
        .filter(|(name, value)| {
            (1..=MAX_DIMENSION_NAME_CHARS).contains(&name.chars().count())
                && (1..=MAX_DIMENSION_VALUE_CHARS).contains(&value.chars().count())
                && !name.starts_with(':')
                && !is_metric(name)
                && !is_reserved(name, options.version)
                && !options.json_labels.contains(name)
        })
        .map(|(name, _)| name.as_str())
        .collect();
    let rolled = rolled_up(options.rollup, &labels);
    if options.declarations.is_empty() {
        let scope = usize::from(labels.contains(&SCOPE_LABEL));
        let is_single = labels.len() <= 1 + scope;
        let mut dimensions = Vec::new();
        // With one label, all labels are that one.
        if rolled.is_empty() || !is_single {
            dimensions.push(labels.iter().take(MAX_DIMENSIONS).copied().collect());
        }
        dimensions.extend(rolled);
        return vec![Directive {
            dimensions,
            metrics: metrics.iter().collect(),
        }];
    }
    declared(group, metrics, options, &labels, &rolled)
}

/// Metrics that the same declarations name get the dimensions of these together.
fn declared<'a>(
    group: &'a Group,
    metrics: &'a [Measured],
    options: &'a Options,
    labels: &[&'a str],
    rolled: &[Vec<&'a str>],
) -> Vec<Directive<'a>> {
    let fitting: Vec<_> = options
        .declarations
        .iter()
        .filter(|declaration| declaration.takes_labels(&group.labels))
        .collect();
    let mut by_declarations: Vec<(Vec<usize>, Vec<&Measured>)> = Vec::new();
    for metric in metrics {
        let named: Vec<usize> = (0..fitting.len())
            .filter(|at| fitting[*at].takes_name(&metric.name))
            .collect();
        if named.is_empty() {
            continue;
        }
        match by_declarations.iter_mut().find(|(known, _)| *known == named) {
            Some((_, metrics)) => metrics.push(metric),
            None => by_declarations.push((named, vec![metric])),
        }
    }
    let mut directives = Vec::new();
    for (named, metrics) in by_declarations {
        let mut dimensions: Vec<Vec<&str>> = Vec::new();
        let own = named
            .iter()
            .flat_map(|at| &fitting[*at].dimensions)
            .filter(|set| set.iter().all(|name| labels.contains(&name.as_str())))
            .map(|set| set.iter().map(String::as_str).collect());
        for set in own.chain(rolled.iter().cloned()) {
            if !dimensions.contains(&set) {
                dimensions.push(set);
            }
        }
        if !dimensions.is_empty() {
            directives.push(Directive { dimensions, metrics });
        }
    }
    directives
}

/// The sets with fewer labels; the scope's name, where there is one, is in all of them.
fn rolled_up<'a>(rollup: Rollup, labels: &[&'a str]) -> Vec<Vec<&'a str>> {
    let zero: Vec<&str> = labels.iter().filter(|name| **name == SCOPE_LABEL).copied().collect();
    let others = || labels.iter().filter(|name| **name != SCOPE_LABEL);
    let mut sets = Vec::new();
    if rollup == Rollup::ZeroAndSingle && others().next().is_some() {
        sets.push(zero.clone());
    }
    if rollup != Rollup::None {
        for name in others() {
            let mut set = zero.clone();
            set.push(name);
            set.sort_unstable();
            sets.push(set);
        }
    }
    sets
}
