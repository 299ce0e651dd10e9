//! The one handle through which everything is asked: stories, searches, names, edges between services.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use model::record::{LogRecord, SpanRecord, Value};
use model::{SpanId, TraceId};
use serde::Serialize;
use store::{Columns, Dataset, Filter, Found, Limit, Reader, Scan, Weigh};

use crate::assemble::{self, MAX_OUTLINE_SPANS, Material, Reach, Wanted};
use crate::fields::service_name;
use crate::gate::{Deadline, Gate, QueryError};
use crate::instant::now_unix_nano;
use crate::rows::{Rows, RowsFound};
use crate::search::{TraceSearch, TraceSummary, summary};
use crate::story::{Detail, Kind, More, Span, Story};

/// Traces of one search: a list that a person scrolls, or Jaeger's own maximum.
pub const MAX_TRACES: usize = 1_500;
/// Distinct traces remembered while looking for the newest: bounds a search that matches everything.
const MAX_CANDIDATES: usize = 100_000;
/// Spans that one search returns in full (Jaeger's search does): about 200 MB of records.
pub const MAX_SEARCH_SPANS: usize = 200_000;
/// Memory of the spans that one search returns in full, in bytes: as much as that many ordinary spans take, for spans
/// that are not.
pub const MAX_SEARCH_BYTES: usize = 256 << 20;
/// Names in the list that a search returns, in bytes: 1,500 traces of ordinary names have a tenth of it.
pub const MAX_LIST_BYTES: usize = 4 << 20;
/// Spans read of one trace: no answer shows more.
pub const MAX_TRACE_SPANS: usize = MAX_OUTLINE_SPANS;
/// Memory of the spans read of one trace, in bytes: as many ordinary spans (a dozen attributes, 1.5 kB) fit in.
pub const MAX_TRACE_BYTES: usize = 384 << 20;
/// Log records read of one trace; an answer shows the first tenth, and the errors of all.
pub const MAX_TRACE_LOGS: usize = 100_000;
/// Memory of the log records read of one trace, in bytes.
pub const MAX_TRACE_LOG_BYTES: usize = 128 << 20;
/// Spans read for one graph of services, newest first: about 100 MB while the edges are counted.
const MAX_GRAPH_SPANS: usize = 1_000_000;
/// Spans read to tell the kinds of a service's operations.
const MAX_KIND_SPANS: usize = 200_000;

/// Asks a store, and databases where some are configured. Cloning is cheap.
#[derive(Clone)]
pub struct Querier {
    reader: Reader,
    rows: Option<Arc<Rows>>,
    gate: Gate,
    retention: Option<Duration>,
}

/// Calls from one service to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Edge {
    pub parent: String,
    pub child: String,
    pub call_count: u64,
}

/// The services that called each other in a range of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dependencies {
    pub edges: Vec<Edge>,
    /// A bound kept older spans from being counted.
    pub cut: bool,
}

/// What a search found, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed<T> {
    pub traces: Vec<T>,
    /// A bound on memory kept spans or traces out that also match.
    pub cut: bool,
}

impl<T> Default for Listed<T> {
    fn default() -> Listed<T> {
        Listed {
            traces: Vec::new(),
            cut: false,
        }
    }
}

impl Querier {
    pub fn new(reader: Reader, rows: Option<Rows>) -> Querier {
        Querier {
            reader,
            rows: rows.map(Arc::new),
            gate: Gate::new(),
            retention: None,
        }
    }

    /// The configured age of data, for the words of an answer that finds nothing.
    pub fn with_retention(self, retention: Duration) -> Querier {
        Querier {
            retention: Some(retention),
            ..self
        }
    }

    /// Asks on a thread of its own; what the closure returns is the answer, so that it can be serialised there too.
    pub async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Question) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let reader = self.reader.clone();
        self.gate
            .run(move |deadline| {
                ask(&Question {
                    reader: &reader,
                    deadline,
                })
            })
            .await
    }

    /// Everything about one id. `then` runs on the question's thread: it serialises, which for a large trace takes
    /// longer than finding it.
    pub async fn story<T: Send + 'static>(
        &self,
        id: TraceId,
        wanted: Wanted,
        then: impl FnOnce(Story) -> T + Send + 'static,
    ) -> Result<T, QueryError> {
        let rows = async {
            match &self.rows {
                Some(rows) => rows.find(id).await,
                None => RowsFound::default(),
            }
        };
        let material = self.ask(move |question| {
            let spans = question.trace(id)?;
            let logs = question.logs(id)?;
            let removed = if spans.records.is_empty() {
                question.reader.removed(id)
            } else {
                Vec::new()
            };
            Ok((spans, logs, removed, horizon(question.reader)))
        });
        let (rows, material) = tokio::join!(rows, material);
        let (spans, logs, removed, horizon_unix_nano) = material?;
        let reach = Reach {
            now_unix_nano: now_unix_nano(),
            horizon_unix_nano,
            retention_ns: self
                .retention
                .map(|age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)),
        };
        let material = Material {
            spans: spans.records,
            logs: logs.records,
            more: More {
                spans_cut: spans.cut,
                logs_cut: logs.cut,
                ..More::default()
            },
            rows: rows.tables,
            rows_error: rows.error,
            rows_since_unix_nano: rows.since_unix_nano,
            removed,
        };
        self.gate
            .run(move |_| Ok(then(assemble::story(id, wanted, material, reach))))
            .await
    }

    /// What the store holds, for a status page.
    pub fn stats(&self) -> store::Stats {
        self.reader.stats()
    }
}

/// What is older than this is gone from every dataset; `None` while nothing has been removed.
fn horizon(reader: &Reader) -> Option<u64> {
    let stats = reader.stats();
    Some(stats.traces.horizon_unix_nano.min(stats.logs.horizon_unix_nano)).filter(|&horizon| horizon > 0)
}

/// One question in progress, on its thread.
pub struct Question<'a> {
    reader: &'a Reader,
    deadline: &'a Deadline,
}

impl Question<'_> {
    /// The spans of a trace, by start, within the bound on one read.
    pub fn trace(&self, id: TraceId) -> Result<Found<SpanRecord>, QueryError> {
        self.trace_within(id, MAX_TRACE_SPANS, MAX_TRACE_BYTES)
    }

    fn trace_within(&self, id: TraceId, rows: usize, bytes: usize) -> Result<Found<SpanRecord>, QueryError> {
        let go_on = || self.deadline.check().is_ok();
        let limit = Limit {
            rows,
            bytes,
            go_on: &go_on,
        };
        self.reader.trace(id, &limit).map_err(|error| self.told(error))
    }

    fn logs(&self, id: TraceId) -> Result<Found<LogRecord>, QueryError> {
        let go_on = || self.deadline.check().is_ok();
        let limit = Limit {
            rows: MAX_TRACE_LOGS,
            bytes: MAX_TRACE_LOG_BYTES,
            go_on: &go_on,
        };
        self.reader.logs_of_trace(id, &limit).map_err(|error| self.told(error))
    }

    /// A read that was stopped was so for the deadline's reason.
    fn told(&self, error: store::ReadError) -> QueryError {
        match self.deadline.check() {
            Err(reason) if matches!(error, store::ReadError::Stopped) => reason,
            _ => error.into(),
        }
    }

    /// One span in full, placed in its trace.
    pub fn span(&self, id: TraceId, span_id: SpanId) -> Result<Option<Span>, QueryError> {
        let mut spans = self.trace(id)?.records;
        let Some(index) = spans.iter().position(|span| span.span_id == span_id) else {
            return Ok(None);
        };
        let start = spans.iter().map(|span| span.start_unix_nano).min().unwrap_or(0);
        let place = assemble::places(&spans)[index];
        Ok(Some(assemble::span(
            spans.swap_remove(index),
            place,
            Detail::Full,
            start,
        )))
    }

    /// Names of all services that have sent anything.
    pub fn services(&self) -> Vec<String> {
        self.reader.services(0..u64::MAX)
    }

    /// Names of a service's operations.
    pub fn operations(&self, service: &str) -> Vec<String> {
        self.reader.operations(service, 0..u64::MAX)
    }

    /// A service's operations with the kinds of their spans, as far as the newest spans tell; an operation that they
    /// do not show has no kind.
    pub fn operations_by_kind(&self, service: &str) -> Result<Vec<(String, Option<Kind>)>, QueryError> {
        let mut kinds: BTreeMap<String, BTreeSet<u8>> = self
            .operations(service)
            .into_iter()
            .map(|name| (name, BTreeSet::new()))
            .collect();
        let filter = TraceSearch {
            service: Some(service.to_owned()),
            ..TraceSearch::default()
        }
        .filter();
        let mut left = MAX_KIND_SPANS;
        for batch in self.reader.scan(scan(0..u64::MAX, filter, &["name", "kind"])) {
            self.deadline.check()?;
            for span in store::rows::spans(&batch?) {
                kinds.entry(span.name).or_default().insert(span.kind);
                left = left.saturating_sub(1);
            }
            if left == 0 {
                break;
            }
        }
        let pairs = kinds.into_iter().flat_map(|(name, kinds)| {
            let kinds: Vec<Option<Kind>> = match kinds.len() {
                0 => vec![None],
                _ => kinds.into_iter().map(|kind| Some(Kind::from_number(kind))).collect(),
            };
            kinds.into_iter().map(move |kind| (name.clone(), kind))
        });
        Ok(pairs.collect())
    }

    /// Ids of the newest traces that match, newest first.
    pub fn find(&self, search: &TraceSearch) -> Result<Vec<TraceId>, QueryError> {
        let limit = search.limit.min(MAX_TRACES);
        if limit == 0 || search.time.is_empty() {
            return Ok(Vec::new());
        }
        let mut newest: HashMap<TraceId, u64> = HashMap::new();
        for batch in self.reader.scan(scan(
            search.time.clone(),
            search.filter(),
            &["trace_id", "start_unix_nano"],
        )) {
            self.deadline.check()?;
            let least = threshold(&newest, limit);
            let mut newer = false;
            for span in store::rows::spans(&batch?) {
                newer |= span.start_unix_nano > least;
                let start = newest.entry(span.trace_id).or_default();
                *start = span.start_unix_nano.max(*start);
            }
            // Blocks come newest first and overlap a little: one that adds nothing newer ends the search.
            if (newest.len() >= limit && !newer) || newest.len() >= MAX_CANDIDATES {
                break;
            }
        }
        let mut found: Vec<(Reverse<u64>, TraceId)> =
            newest.into_iter().map(|(id, start)| (Reverse(start), id)).collect();
        found.sort_unstable();
        found.truncate(limit);
        Ok(found.into_iter().map(|(_, id)| id).collect())
    }

    /// The newest traces that match, each summed up over all its spans.
    pub fn search(&self, search: &TraceSearch) -> Result<Listed<TraceSummary>, QueryError> {
        let mut listed = Listed::default();
        let mut left = MAX_LIST_BYTES;
        for id in self.find(search)? {
            let spans = self.trace(id)?;
            let Some(found) = summary(&spans.records, spans.cut) else {
                continue;
            };
            match left.checked_sub(found.text_bytes()) {
                Some(rest) => left = rest,
                None if listed.traces.is_empty() => left = 0,
                None => {
                    listed.cut = true;
                    break;
                }
            }
            listed.traces.push(found);
        }
        Ok(listed)
    }

    /// The newest traces that match, with all their spans.
    pub fn search_full(&self, search: &TraceSearch) -> Result<Listed<Vec<SpanRecord>>, QueryError> {
        self.in_full(self.find(search)?, &mut |_| {})
    }

    /// These traces with all their spans, within the bound on one search; `missing` is told of those that are not here.
    pub fn in_full(
        &self,
        ids: Vec<TraceId>,
        missing: &mut dyn FnMut(TraceId),
    ) -> Result<Listed<Vec<SpanRecord>>, QueryError> {
        let mut listed = Listed::default();
        let (mut rows, mut bytes) = (MAX_SEARCH_SPANS, MAX_SEARCH_BYTES);
        for id in ids {
            // The first trace is returned as far as it can be: a bound that hides everything helps nobody.
            let Found { records, cut } = self.trace_within(id, rows, bytes)?;
            listed.cut |= cut > 0;
            if cut > 0 && !listed.traces.is_empty() {
                break;
            }
            if records.is_empty() {
                missing(id);
                continue;
            }
            rows -= records.len().min(rows);
            bytes = bytes.saturating_sub(records.iter().map(Weigh::bytes).sum());
            listed.traces.push(records);
        }
        Ok(listed)
    }

    /// Which services called which, counted over spans that started in a range of time.
    pub fn dependencies(&self, time: Range<u64>) -> Result<Dependencies, QueryError> {
        if time.is_empty() {
            return Ok(Dependencies::default());
        }
        let columns = ["trace_id", "span_id", "parent_span_id", "resource.service.name"];
        let mut graph = Graph::default();
        let mut cut = false;
        for batch in self.reader.scan(scan(time, Filter::True, &columns)) {
            self.deadline.check()?;
            graph.extend(&store::rows::spans(&batch?));
            if graph.spans.len() >= MAX_GRAPH_SPANS {
                cut = true;
                break;
            }
        }
        Ok(Dependencies {
            edges: graph.edges(),
            cut,
        })
    }
}

fn scan(time: Range<u64>, filter: Filter, columns: &[&str]) -> Scan {
    Scan {
        dataset: Dataset::Traces,
        time,
        filter,
        columns: Columns::Named(columns.iter().map(|&name| name.to_owned()).collect()),
        newest_first: true,
    }
}

/// The start of the `limit`-th newest trace so far; 0 while there are fewer.
fn threshold(newest: &HashMap<TraceId, u64>, limit: usize) -> u64 {
    if newest.len() < limit {
        return 0;
    }
    let mut starts: Vec<u64> = newest.values().copied().collect();
    let at = starts.len() - limit;
    *starts.select_nth_unstable(at).1
}

/// Spans as a graph needs them.
#[derive(Default)]
struct Graph {
    services: Vec<String>,
    /// (trace, span) of each span, with its service.
    spans: HashMap<(TraceId, SpanId), u32>,
    /// (trace, parent span) of each span that has one, with the span's service.
    calls: Vec<(TraceId, SpanId, u32)>,
}

impl Graph {
    fn extend(&mut self, spans: &[SpanRecord]) {
        let mut last: Option<(*const Vec<(String, Value)>, u32)> = None;
        for span in spans {
            let pointer = Arc::as_ptr(&span.resource);
            let service = match last {
                Some((known, service)) if known == pointer => service,
                _ => self.service(service_name(&span.resource)),
            };
            last = Some((pointer, service));
            self.spans.insert((span.trace_id, span.span_id), service);
            if let Some(parent) = span.parent_span_id {
                self.calls.push((span.trace_id, parent, service));
            }
        }
    }

    fn service(&mut self, name: &str) -> u32 {
        let known = self.services.iter().position(|service| service == name);
        known.unwrap_or_else(|| {
            self.services.push(name.to_owned());
            self.services.len() - 1
        }) as u32
    }

    fn edges(&self) -> Vec<Edge> {
        let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for (trace, parent, child) in &self.calls {
            let Some(parent) = self.spans.get(&(*trace, *parent)).filter(|&parent| parent != child) else {
                continue;
            };
            let pair = (
                self.services[*parent as usize].as_str(),
                self.services[*child as usize].as_str(),
            );
            *counts.entry(pair).or_default() += 1;
        }
        let edge = |((parent, child), call_count): ((&str, &str), u64)| Edge {
            parent: parent.to_owned(),
            child: child.to_owned(),
            call_count,
        };
        counts.into_iter().map(edge).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{resource, span};

    #[test]
    fn edges_are_calls_between_services() {
        let mut spans = [
            span(1, 0, 0, 9),
            span(2, 1, 1, 8),
            span(3, 2, 2, 7),
            span(4, 2, 2, 7),
            span(5, 9, 2, 7),
        ];
        for (i, service) in [(2, "engine"), (3, "engine"), (4, "lost")] {
            spans[i].resource = resource(service);
        }
        let mut graph = Graph::default();
        // The callee may come in an earlier batch than its caller.
        graph.extend(&spans[2..]);
        graph.extend(&spans[..2]);
        assert_eq!(
            graph.edges(),
            [Edge {
                parent: "web".into(),
                child: "engine".into(),
                call_count: 2
            }]
        );
    }

    #[test]
    fn the_threshold_is_the_start_that_a_newer_trace_must_beat() {
        let newest: HashMap<TraceId, u64> = (1..=5u8).map(|i| (TraceId([i; 16]), u64::from(i) * 10)).collect();
        assert_eq!(threshold(&newest, 6), 0);
        assert_eq!(threshold(&newest, 5), 10);
        assert_eq!(threshold(&newest, 2), 40);
    }
}
