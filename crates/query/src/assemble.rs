//! Puts spans, logs and rows together into one story, and says in words how complete it is.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use model::TraceId;
use model::record::{Attributes, LogRecord, SpanRecord, Value, attribute};
use store::{DAY_NANOS, Dataset, Removal, Rule};

use crate::fields::{self, service_name};
use crate::instant::{duration_text, rfc3339};
use crate::logs::{log, log_time, offset};
use crate::story::{
    Detail, Event, Kind, Link, More, Resource, Root, ServiceShare, Span, SpanStatus, Status, Story, TableRows, Trace,
};
use crate::tree::Tree;
use crate::{ai, faults, skew};

/// A longer trace comes as an outline unless it is asked for in full: its attributes would be megabytes.
pub const AUTO_OUTLINE_SPANS: usize = 2_000;
/// Spans in one full answer, about 100 MB of JSON; the rest is counted in `more`.
pub const MAX_FULL_SPANS: usize = 50_000;
/// Spans in one outline, about 60 MB of JSON.
pub const MAX_OUTLINE_SPANS: usize = 250_000;
/// Log lines in one answer.
pub const MAX_LOGS: usize = 10_000;
/// Spans exported after their end take this long to arrive in the usual case (1 s of batching, transport, retries);
/// a trace with a gap that ended more recently than this may still be arriving.
const ARRIVING_NS: u64 = 30 * 1_000_000_000;
/// The sampled bit of W3C trace flags.
const SAMPLED: u32 = 1;
/// OTLP: the parent's context came from another process.
const PARENT_IS_REMOTE: u32 = 0x300;

const STATUS_ERROR: u8 = 2;

/// How much of each span is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Full up to `AUTO_OUTLINE_SPANS`, else an outline.
    #[default]
    Auto,
    Full,
    Outline,
}

/// What one id led to, before it is put together.
#[derive(Debug, Default)]
pub struct Material {
    pub spans: Vec<SpanRecord>,
    pub logs: Vec<LogRecord>,
    /// Spans and logs that a bound kept from being read.
    pub more: More,
    pub rows: Vec<TableRows>,
    pub rows_error: Option<String>,
    /// When the oldest row with this id was written, where a table has such a column.
    pub rows_since_unix_nano: Option<u64>,
    /// What retention is known to have removed of it; only looked for where there is no span.
    pub removed: Vec<Removal>,
}

/// What is known about how far back the data goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    pub now_unix_nano: u64,
    /// Everything older than this has been removed; `None` when nothing has been removed yet.
    pub horizon_unix_nano: Option<u64>,
    /// The configured age, where there is one.
    pub retention_ns: Option<u64>,
}

/// Puts a story together. Linear but for sorting; attributes are moved, not copied.
pub fn story(id: TraceId, wanted: Wanted, material: Material, reach: Reach) -> Story {
    let Material {
        spans,
        mut logs,
        more,
        rows,
        rows_error,
        rows_since_unix_nano,
        removed,
    } = material;
    logs.sort_by_key(log_time);
    let tree = Tree::build(&spans);
    let start = spans
        .iter()
        .map(|span| span.start_unix_nano)
        .min()
        .or_else(|| logs.first().map(log_time))
        .unwrap_or(0);
    let mut resources = Resources::default();
    let places = places_in(&spans, &tree, &mut resources);
    let skew: Vec<i64> = places.iter().map(|place| place.skew_ns).collect();
    let (errors, errors_cut) = faults::faults(&spans, &tree, &skew, &logs, start);
    let ai = ai::calls(&spans, &tree);
    let (status, mut explanation) = judge(
        &spans,
        &tree,
        &logs,
        &rows,
        &Past {
            rows_since_unix_nano,
            removed: &removed,
        },
        reach,
    );
    if let Some(bounded) = read_in_part(&more, spans.len(), logs.len()) {
        explanation = bounded;
    }
    let (trace, spans_cut) = trace(spans, &tree, (&places, resources), wanted, start);
    let logs_cut = logs.len().saturating_sub(MAX_LOGS);
    logs.truncate(MAX_LOGS);
    Story {
        tracking_id: id,
        status,
        explanation,
        trace,
        logs: logs.into_iter().map(|record| log(record, start)).collect(),
        errors,
        ai,
        rows,
        rows_error,
        more: More {
            spans_cut: more.spans_cut + spans_cut,
            logs_cut: more.logs_cut + logs_cut,
            errors_cut: more.errors_cut + errors_cut,
        },
    }
}

/// Resources in the order of their first span, each once: by the pointer that records share, else by content.
#[derive(Default)]
struct Resources {
    by_pointer: HashMap<*const Attributes, u32>,
    by_content: HashMap<u64, Vec<u32>>,
    list: Vec<Arc<Attributes>>,
}

impl Resources {
    fn index(&mut self, resource: &Arc<Attributes>) -> u32 {
        if let Some(&known) = self.by_pointer.get(&Arc::as_ptr(resource)) {
            return known;
        }
        let alike = self.by_content.entry(fingerprint(resource)).or_default();
        let known = alike.iter().copied().find(|&i| self.list[i as usize] == *resource);
        let index = known.unwrap_or_else(|| {
            self.list.push(resource.clone());
            alike.push(self.list.len() as u32 - 1);
            self.list.len() as u32 - 1
        });
        self.by_pointer.insert(Arc::as_ptr(resource), index);
        index
    }

    /// A number per resource such that equal numbers share a clock.
    fn hosts(&self) -> Vec<u32> {
        let mut seen: HashMap<&str, u32> = HashMap::new();
        self.list
            .iter()
            .map(|resource| {
                let name = ["host.id", "host.name", "service.instance.id", "service.name"]
                    .into_iter()
                    .map(|key| attribute(resource, key).and_then(Value::as_str).unwrap_or_default())
                    .find(|name| !name.is_empty())
                    .unwrap_or_default();
                let next = seen.len() as u32;
                *seen.entry(name).or_insert(next)
            })
            .collect()
    }
}

/// Equal for equal resources; values that are not text only lengthen the comparison that follows.
fn fingerprint(resource: &[(String, Value)]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (key, value) in resource {
        key.hash(&mut hasher);
        value.as_str().hash(&mut hasher);
    }
    hasher.finish()
}

fn trace(
    mut spans: Vec<SpanRecord>,
    tree: &Tree,
    (places, resources): (&[Place], Resources),
    wanted: Wanted,
    start: u64,
) -> (Trace, usize) {
    let detail = match wanted {
        Wanted::Full => Detail::Full,
        Wanted::Outline => Detail::Outline,
        Wanted::Auto if spans.len() > AUTO_OUTLINE_SPANS => Detail::Outline,
        Wanted::Auto => Detail::Full,
    };
    let mut services: Vec<ServiceShare> = Vec::new();
    let mut service_index: HashMap<String, usize> = HashMap::new();
    let service_by_resource: Vec<usize> = resources
        .list
        .iter()
        .map(|resource| {
            let name = service_name(resource);
            *service_index.entry(name.to_owned()).or_insert_with(|| {
                services.push(ServiceShare {
                    name: name.to_owned(),
                    spans: 0,
                    errors: 0,
                });
                services.len() - 1
            })
        })
        .collect();
    let mut error_count = 0;
    for (i, span) in spans.iter().enumerate() {
        let share = &mut services[service_by_resource[places[i].resource as usize]];
        share.spans += 1;
        if span.status_code == STATUS_ERROR {
            share.errors += 1;
            error_count += 1;
        }
    }
    let root = tree.order.first().map(|&i| Root {
        service: service_name(&spans[i as usize].resource).to_owned(),
        operation: spans[i as usize].name.clone(),
    });
    let end = spans
        .iter()
        .map(|span| span.end_unix_nano.max(span.start_unix_nano))
        .max()
        .unwrap_or(start);
    let span_count = spans.len();
    let limit = if detail == Detail::Full {
        MAX_FULL_SPANS
    } else {
        MAX_OUTLINE_SPANS
    };
    let shown = tree
        .order
        .iter()
        .take(limit)
        .map(|&i| {
            span(
                std::mem::take(&mut spans[i as usize]),
                places[i as usize],
                detail,
                start,
            )
        })
        .collect();
    let trace = Trace {
        start_unix_nano: start,
        duration_ns: end - start,
        root,
        services,
        span_count,
        error_count,
        depth: tree.levels(),
        detail,
        clock_skew: places.iter().any(|place| place.skew_ns != 0),
        spans: shown,
        resources: resources
            .list
            .into_iter()
            .map(|shared| Resource(Arc::try_unwrap(shared).unwrap_or_else(|shared| shared.as_ref().clone())))
            .collect(),
    };
    (trace, span_count.saturating_sub(limit))
}

/// What the tree knows about one span.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    pub depth: u32,
    pub orphan: bool,
    pub skew_ns: i64,
    pub resource: u32,
}

/// The places of the spans of one trace, in the order given.
pub fn places(spans: &[SpanRecord]) -> Vec<Place> {
    places_in(spans, &Tree::build(spans), &mut Resources::default())
}

fn places_in(spans: &[SpanRecord], tree: &Tree, resources: &mut Resources) -> Vec<Place> {
    let mut resource_of = vec![0; spans.len()];
    for &i in &tree.order {
        resource_of[i as usize] = resources.index(&spans[i as usize].resource);
    }
    let hosts = resources.hosts();
    let host_of: Vec<u32> = resource_of.iter().map(|&resource| hosts[resource as usize]).collect();
    let skew = skew::corrections(spans, tree, &host_of);
    (0..spans.len())
        .map(|i| Place {
            depth: tree.depth[i],
            orphan: tree.orphan[i],
            skew_ns: skew.get(i).copied().unwrap_or(0),
            resource: resource_of[i],
        })
        .collect()
}

/// One record as a span of a story.
pub fn span(record: SpanRecord, place: Place, detail: Detail, start: u64) -> Span {
    let full = detail == Detail::Full;
    let resource = record.resource;
    Span {
        span_id: record.span_id,
        parent_span_id: record.parent_span_id,
        service: service_name(&resource).to_owned(),
        instance: fields::text(&resource, "service.instance.id").to_owned(),
        operation: record.name,
        kind: Kind::from_number(record.kind),
        offset_ns: offset(record.start_unix_nano, start),
        duration_ns: record.end_unix_nano.saturating_sub(record.start_unix_nano),
        status: SpanStatus::from_number(record.status_code),
        status_message: record.status_message,
        depth: place.depth,
        orphan: place.orphan,
        skew_ns: place.skew_ns,
        resource: place.resource,
        scope: record.scope.name.clone(),
        attributes: full.then_some(record.attributes),
        events: full.then(|| {
            let event = |event: model::record::EventRecord| Event {
                offset_ns: offset(event.time_unix_nano, start),
                name: event.name,
                attributes: event.attributes,
            };
            record.events.into_iter().map(event).collect()
        }),
        links: full.then(|| {
            let link = |link: model::record::LinkRecord| Link {
                trace_id: link.trace_id.unwrap_or_default(),
                span_id: link.span_id.unwrap_or_default(),
                attributes: link.attributes,
            };
            record.links.into_iter().map(link).collect()
        }),
    }
}

/// The two witnesses of a trace that is here no longer.
struct Past<'a> {
    /// The services' own databases.
    rows_since_unix_nano: Option<u64>,
    /// The store's note of what it removed.
    removed: &'a [Removal],
}

/// The status and the sentence that explains it.
fn judge(
    spans: &[SpanRecord],
    tree: &Tree,
    logs: &[LogRecord],
    rows: &[TableRows],
    past: &Past<'_>,
    reach: Reach,
) -> (Status, String) {
    let logs_text = count(logs.len(), "log line");
    let row_count: usize = rows.iter().map(|table| table.rows.len()).sum();
    if !spans.is_empty() {
        return judge_spans(spans, tree, &logs_text, reach);
    }
    if !logs.is_empty() {
        return if logs.iter().all(|log| log.flags & SAMPLED == 0) {
            let text =
                format!("{logs_text}, no span: the trace was not sampled, so its services sent only their logs.");
            (Status::NotSampled, text)
        } else {
            let spans_removed: Vec<Removal> = past
                .removed
                .iter()
                .filter(|r| r.dataset == Dataset::Traces)
                .copied()
                .collect();
            if let Some(told) = removal_text(&spans_removed) {
                return (Status::Partial, format!("{logs_text}, but no span: {told}."));
            }
            let last = logs.iter().map(log_time).max().unwrap_or(0);
            let why = if reach.now_unix_nano.saturating_sub(last) < ARRIVING_NS {
                "its spans may still be arriving"
            } else {
                "its spans never arrived or have been removed"
            };
            (
                Status::Partial,
                format!("{logs_text}, but no span, although the trace was sampled: {why}."),
            )
        };
    }
    let rows_text = if row_count > 0 {
        format!(" {} in the database with it.", has(row_count, "row"))
    } else {
        String::new()
    };
    if let Some(told) = removal_text(past.removed) {
        return (Status::Expired, format!("It was here: {told}.{rows_text}"));
    }
    match (past.rows_since_unix_nano, reach.horizon_unix_nano) {
        (Some(since), Some(horizon)) if since < horizon => {
            let text = format!(
                "Its database rows are from {}, but spans and logs are kept only since {}{}.",
                rfc3339(since, 0),
                rfc3339(horizon, 0),
                retention(reach)
            );
            (Status::Expired, text)
        }
        (_, Some(horizon)) => {
            let text = format!(
                "No span and no log here has this id; an id does not tell its age, and what is older than {} has been removed{}.{rows_text}",
                rfc3339(horizon, 0),
                retention(reach)
            );
            (Status::Unknown, text)
        }
        (_, None) => (
            Status::Unknown,
            format!("No span and no log here has this id, and nothing has been removed yet.{rows_text}"),
        ),
    }
}

/// What is said instead where the bound on one read was met: then a missing parent says nothing about its sender.
fn read_in_part(more: &More, spans: usize, logs: usize) -> Option<String> {
    if more.spans_cut + more.logs_cut == 0 {
        return None;
    }
    Some(format!(
        "{} and {}: more than one answer reads. This is about the oldest of them, {} and {}.",
        count(spans + more.spans_cut, "span"),
        count(logs + more.logs_cut, "log line"),
        count(spans, "span"),
        count(logs, "log line"),
    ))
}

fn judge_spans(spans: &[SpanRecord], tree: &Tree, logs: &str, reach: Reach) -> (Status, String) {
    let spans_text = count(spans.len(), "span");
    let mut services: Vec<&str> = spans.iter().map(|span| service_name(&span.resource)).collect();
    services.sort_unstable();
    services.dedup();
    let what = format!("{spans_text} of {} and {logs}", count(services.len(), "service"));
    let orphans = tree.orphans();
    if orphans == 0 {
        let first = spans.iter().map(|span| span.start_unix_nano).min().unwrap_or(0);
        let last = spans.iter().map(|span| span.end_unix_nano).max().unwrap_or(0);
        let total = last.saturating_sub(first);
        return (Status::Found, format!("{what}, in {}.", duration_text(total)));
    }
    let last = spans.iter().map(|span| span.end_unix_nano).max().unwrap_or(0);
    let arriving = reach.now_unix_nano.saturating_sub(last) < ARRIVING_NS;
    let missing = if tree.root().is_none() {
        let first = &spans[tree.order[0] as usize];
        if orphans == 1 && first.flags & PARENT_IS_REMOTE == PARENT_IS_REMOTE && !arriving {
            return (
                Status::Partial,
                format!(
                    "{what}; it was called with a parent span that is not here, so the caller does not report to this server."
                ),
            );
        }
        "the root span is missing".to_owned()
    } else {
        format!(
            "{} a parent that is missing",
            if orphans == 1 {
                "1 span names".to_owned()
            } else {
                format!("{orphans} spans name")
            }
        )
    };
    let why = if arriving {
        "it may still be arriving"
    } else {
        "its service did not send it, or it was lost on the way"
    };
    (Status::Partial, format!("{what}, but {missing}: {why}."))
}

/// `its spans and log lines of 2026-11-12 were removed by retention, which kept 7 days`; nothing where nothing was removed.
fn removal_text(removed: &[Removal]) -> Option<String> {
    let newest = removed.iter().max_by_key(|r| r.day)?;
    let of = |dataset| removed.iter().any(|r| r.dataset == dataset);
    let what = match (of(Dataset::Traces), of(Dataset::Logs)) {
        (true, true) => "spans and log lines",
        (true, false) => "spans",
        _ => "log lines",
    };
    let oldest = removed.iter().map(|r| r.day).min().unwrap_or(newest.day);
    let days = if oldest == newest.day {
        newest.day.folder()
    } else {
        format!("{} to {}", oldest.folder(), newest.day.folder())
    };
    let kept = match newest.rule {
        Rule::Age(age) => age_text(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)),
        Rule::Bytes(bytes) => format!("at most {} of {}", size_text(bytes), newest.dataset.as_str()),
    };
    Some(format!(
        "its {what} of {days} were removed by retention, which kept {kept}"
    ))
}

fn retention(reach: Reach) -> String {
    reach
        .retention_ns
        .map_or(String::new(), |ns| format!(" (retention is {})", age_text(ns)))
}

/// Whole days where there are some, as retention is configured.
fn age_text(ns: u64) -> String {
    match ns / DAY_NANOS {
        0 => duration_text(ns),
        days => count(days as usize, "day"),
    }
}

/// `20 GiB`, as sizes are configured.
fn size_text(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if size < 1024.0 {
            return format!("{} {unit}", (size * 10.0).round() / 10.0);
        }
        size /= 1024.0;
    }
    format!("{} TiB", (size * 10.0).round() / 10.0)
}

fn count(n: usize, noun: &str) -> String {
    match n {
        0 => format!("no {noun}"),
        1 => format!("1 {noun}"),
        _ => format!("{n} {noun}s"),
    }
}

fn has(n: usize, noun: &str) -> String {
    if n == 1 {
        format!("There is 1 {noun}")
    } else {
        format!("There are {n} {noun}s")
    }
}
