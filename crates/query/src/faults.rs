//! What went wrong in a trace, each thing told once.
//!
//! One failure leaves up to four marks on its span (an `exception` event, an `error_log` event, an ERROR log line,
//! the status) and more on every span above it. On one span the mark that says most takes over what the others know;
//! what callers made of it is folded under it (`causes.rs`) and kept as the layers in which it was seen.

use std::cmp::Reverse;
use std::collections::HashMap;

use model::record::{EventRecord, LogRecord, SpanRecord};

use crate::causes::{self, Mark, Marked, corrected};
use crate::fields::{self, service_name};
use crate::json;
use crate::logs::{SEVERITY_ERROR, log_time, message, offset};
use crate::story::{Fault, FaultSource, SeenIn};
use crate::tree::Tree;

/// A trace in which everything fails still gives a list that a person can read.
pub const MAX_FAULTS: usize = 1_000;
/// Layers listed of one failure: more services than a call passes; only a deep recursion has more.
pub const MAX_SEEN_IN: usize = 32;

/// Marks that are told apart in one trace; more than an answer lists, so that folding sees enough of them.
const MAX_MARKS: usize = 20 * MAX_FAULTS;

/// One span with thousands of exceptions is a loop; each is compared with all before it, so this also bounds work.
const MAX_FAULTS_PER_SPAN: usize = 100;

/// Marks of one span this close in time and of one type were left by one failure.
const SAME_MOMENT_NS: u64 = 1_000_000;

/// The type that our SDK writes where it knows none; it names nothing.
const UNKNOWN_TYPE: &str = "UnknownError";

const STATUS_ERROR: u8 = 2;

/// The faults of a trace by time, and how many the bounds left out. `skew` is what to add to each span's times, or
/// empty.
pub fn faults(spans: &[SpanRecord], tree: &Tree, skew: &[i64], logs: &[LogRecord], start: u64) -> (Vec<Fault>, usize) {
    let mut error_logs: HashMap<_, Vec<&LogRecord>> = HashMap::new();
    for log in logs.iter().filter(|log| log.severity_number >= SEVERITY_ERROR) {
        error_logs.entry(log.span_id).or_default().push(log);
    }

    let mut marks: Vec<Mark> = Vec::new();
    let mut marked: Vec<Marked> = Vec::new();
    let mut cut = 0;
    for &i in &tree.order {
        let span = &spans[i as usize];
        let logs = error_logs.remove(&Some(span.span_id)).unwrap_or_default();
        if span.status_code != STATUS_ERROR && span.events.is_empty() && logs.is_empty() {
            continue;
        }
        let first = marks.len();
        let mut add = |mut mark: Mark| {
            if marks.len() - first >= MAX_FAULTS_PER_SPAN || marks.len() >= MAX_MARKS {
                cut += 1;
                return;
            }
            mark.at = corrected(mark.at, skew, i);
            match marks[first..].iter_mut().find(|known| same(known, &mark)) {
                Some(known) => absorb(known, mark.fault),
                None => marks.push(mark),
            }
        };
        let service = || service_name(&span.resource).to_owned();
        for event in span.events.iter().filter(|event| event.name == "exception") {
            add(from_event(
                span,
                event,
                service(),
                start,
                "exception.type",
                "exception.message",
            ));
        }
        for event in span.events.iter().filter(|event| event.name == "error_log") {
            add(from_event(span, event, service(), start, "error.type", "log.message"));
        }
        for log in logs {
            add(from_log(log, start));
        }
        if span.status_code == STATUS_ERROR && (marks.len() == first || !span.status_message.is_empty()) {
            let mut mark = from_status(span, service(), start);
            mark.at = corrected(mark.at, skew, i);
            let is_full = marks.len() >= MAX_MARKS;
            match marks[first..].iter_mut().find(|known| same(known, &mark)) {
                Some(known) => absorb(known, mark.fault),
                None if is_full => cut += 1,
                None => marks.push(mark),
            }
        }
        if marks.len() > first {
            marked.push(Marked {
                span: i,
                marks: first..marks.len(),
            });
        }
    }

    let caused_by = causes::causes(spans, tree, skew, &marks, &marked);
    let mut found = fold(marks, &marked, &caused_by, spans, tree);
    // Logs outside of every span that is here.
    for log in error_logs.into_values().flatten() {
        let Mark { fault, at, .. } = from_log(log, start);
        found.push((at, fault));
    }
    found.sort_by_key(|(at, _)| *at);
    cut += found.len().saturating_sub(MAX_FAULTS);
    found.truncate(MAX_FAULTS);
    (found.into_iter().map(|(_, fault)| fault).collect(), cut)
}

/// The causes, each with the layers that were folded under it, from the failure up.
fn fold(
    marks: Vec<Mark>,
    marked: &[Marked],
    caused_by: &[Option<usize>],
    spans: &[SpanRecord],
    tree: &Tree,
) -> Vec<(u64, Fault)> {
    let span_of = marked
        .iter()
        .flat_map(|marked| marked.marks.clone().map(|_| marked.span as usize));
    let mut layers: HashMap<usize, Vec<(Reverse<u32>, u64, SeenIn)>> = HashMap::new();
    let mut causes: Vec<(usize, u64, Fault)> = Vec::new();
    for ((index, mark), span) in marks.into_iter().enumerate().zip(span_of) {
        let Mark { fault, at, also } = mark;
        let cause = caused_by[index];
        let mut own = None;
        match cause {
            Some(_) => own = Some(fault),
            None => causes.push((index, at, fault)),
        }
        let folded = layers.entry(cause.unwrap_or(index)).or_default();
        for told in own.into_iter().chain(also) {
            folded.push((Reverse(tree.depth[span]), at, layer(told, spans[span].name.clone())));
        }
    }
    causes
        .into_iter()
        .map(|(index, at, mut fault)| {
            let mut told = layers.remove(&index).unwrap_or_default();
            told.sort_by_key(|(depth, at, _)| (*depth, *at));
            fault.seen_in_cut = told.len().saturating_sub(MAX_SEEN_IN);
            fault.seen_in = told.into_iter().take(MAX_SEEN_IN).map(|(_, _, seen)| seen).collect();
            (at, fault)
        })
        .collect()
}

fn layer(fault: Fault, operation: String) -> SeenIn {
    let said = |text: String, nothing: &str| if text == nothing { String::new() } else { text };
    SeenIn {
        span_id: fault.span_id,
        service: fault.service,
        operation,
        kind: said(fault.kind, UNKNOWN_TYPE),
        message: said(fault.message, NO_MESSAGE),
        stack: fault.stack,
        offset_ns: fault.offset_ns,
        source: fault.source,
    }
}

/// What is said of a span that failed and says nothing more.
const NO_MESSAGE: &str = "the span ended with status ERROR and no message";

fn same(a: &Mark, b: &Mark) -> bool {
    let (x, y) = (&a.fault, &b.fault);
    let messages = !x.message.is_empty() && !y.message.is_empty();
    if messages && (x.message.contains(&y.message) || y.message.contains(&x.message)) {
        return true;
    }
    let types_agree = x.kind == y.kind || unnamed(&x.kind) || unnamed(&y.kind);
    types_agree && (!messages || a.at.abs_diff(b.at) <= SAME_MOMENT_NS)
}

fn unnamed(kind: &str) -> bool {
    kind.is_empty() || kind == UNKNOWN_TYPE
}

/// Takes over what another mark of the same failure knows; other words for it are kept beside.
fn absorb(known: &mut Mark, mut other: Fault) {
    let Mark { fault, also, .. } = known;
    if unnamed(&fault.kind) && !other.kind.is_empty() {
        fault.kind.clone_from(&other.kind);
    }
    if fault.message.is_empty() {
        fault.message = std::mem::take(&mut other.message);
    }
    fault.stack = fault.stack.take().or(other.stack.take());
    if !fault.message.contains(&other.message) && also.iter().all(|said| said.message != other.message) {
        also.push(other);
    }
}

fn from_event(span: &SpanRecord, event: &EventRecord, service: String, start: u64, kind: &str, message: &str) -> Mark {
    let read = |key: &str| fields::get(&event.attributes, key).map(json::text).unwrap_or_default();
    let fault = Fault {
        span_id: Some(span.span_id),
        service,
        kind: read(kind),
        message: read(message),
        stack: Some(read("exception.stacktrace")).filter(|stack| !stack.is_empty()),
        offset_ns: offset(event.time_unix_nano, start),
        source: FaultSource::Event,
        seen_in: Vec::new(),
        seen_in_cut: 0,
    };
    Mark {
        fault,
        at: event.time_unix_nano,
        also: Vec::new(),
    }
}

fn from_log(log: &LogRecord, start: u64) -> Mark {
    let read = |key: &str| {
        fields::of_log(&log.attributes, &log.body, key)
            .map(json::text)
            .filter(|t| !t.is_empty())
    };
    let at = log_time(log);
    let fault = Fault {
        span_id: log.span_id,
        service: service_name(&log.resource).to_owned(),
        kind: read("exception.type")
            .or_else(|| read("error.type"))
            .unwrap_or_default(),
        message: message(log),
        stack: read("exception.stacktrace"),
        offset_ns: offset(at, start),
        source: FaultSource::Log,
        seen_in: Vec::new(),
        seen_in_cut: 0,
    };
    Mark {
        fault,
        at,
        also: Vec::new(),
    }
}

fn from_status(span: &SpanRecord, service: String, start: u64) -> Mark {
    let message = if !span.status_message.is_empty() {
        span.status_message.clone()
    } else if let Some(code) = fields::count(&span.attributes, "http.response.status_code") {
        format!("HTTP {code}")
    } else {
        NO_MESSAGE.to_owned()
    };
    let fault = Fault {
        span_id: Some(span.span_id),
        service,
        kind: fields::text(&span.attributes, "error.type").to_owned(),
        message,
        stack: None,
        offset_ns: offset(span.end_unix_nano.max(span.start_unix_nano), start),
        source: FaultSource::Status,
        seen_in: Vec::new(),
        seen_in_cut: 0,
    };
    Mark {
        fault,
        at: span.end_unix_nano.max(span.start_unix_nano),
        also: Vec::new(),
    }
}
