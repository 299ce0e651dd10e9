//! What went wrong in a trace, each thing told once.
//!
//! One failure leaves up to four marks on its span (an `exception` event, an `error_log` event, an ERROR log line,
//! the status) and a status on every span above it. The mark that says most wins and takes over what the others
//! know; an ancestor that only repeats a fault below it, or whose status says nothing more, is left out.

use std::collections::HashMap;

use model::record::{EventRecord, LogRecord, SpanRecord};

use crate::fields::{self, service_name};
use crate::json;
use crate::logs::{SEVERITY_ERROR, log_time, message, offset};
use crate::story::{Fault, FaultSource};
use crate::tree::Tree;

/// A trace in which everything fails still gives a list that a person can read.
pub const MAX_FAULTS: usize = 1_000;

/// One span with thousands of exceptions is a loop; each is compared with all before it, so this also bounds work.
const MAX_FAULTS_PER_SPAN: usize = 100;

/// Marks of one span this close in time and of one type were left by one failure.
const SAME_MOMENT_NS: u64 = 1_000_000;

/// The type that our SDK writes where it knows none; it names nothing.
const UNKNOWN_TYPE: &str = "UnknownError";

const STATUS_ERROR: u8 = 2;

struct Mark {
    fault: Fault,
    at: u64,
}

/// The faults of a trace by time, and how many the bound left out.
pub fn faults(spans: &[SpanRecord], tree: &Tree, logs: &[LogRecord], start: u64) -> (Vec<Fault>, usize) {
    let mut error_logs: HashMap<_, Vec<&LogRecord>> = HashMap::new();
    for log in logs.iter().filter(|log| log.severity_number >= SEVERITY_ERROR) {
        error_logs.entry(log.span_id).or_default().push(log);
    }

    // (position in tree order, mark)
    let mut marks: Vec<(usize, Mark)> = Vec::new();
    for (position, &i) in tree.order.iter().enumerate() {
        let span = &spans[i as usize];
        let logs = error_logs.remove(&Some(span.span_id)).unwrap_or_default();
        if span.status_code != STATUS_ERROR && span.events.is_empty() && logs.is_empty() {
            continue;
        }
        let first = marks.len();
        let service = || service_name(&span.resource).to_owned();
        let mut add = |mark: Mark| {
            if marks.len() - first >= MAX_FAULTS_PER_SPAN {
                return;
            }
            let known = marks[first..]
                .iter_mut()
                .map(|(_, known)| known)
                .find(|known| same(known, &mark));
            match known {
                Some(known) => absorb(&mut known.fault, mark.fault),
                None => marks.push((position, mark)),
            }
        };
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
        if span.status_code == STATUS_ERROR && marks.len() == first {
            marks.push((position, from_status(span, service(), start)));
        }
    }

    let ends = subtree_ends(tree);
    let mut keep = vec![true; marks.len()];
    let mut next_alike: HashMap<(&str, &str), usize> = HashMap::new();
    // The nearest later position that has a mark; marks of one span share theirs.
    let (mut next, mut seen) = (None, None);
    for index in (0..marks.len()).rev() {
        let (position, mark) = &marks[index];
        if seen != Some(*position) {
            next = seen;
            seen = Some(*position);
        }
        let below = |other: usize| other > *position && other < ends[*position];
        let key = (mark.fault.kind.as_str(), mark.fault.message.as_str());
        let repeated = next_alike.get(&key).is_some_and(|&other| below(other));
        let says_nothing_more = mark.fault.source == FaultSource::Status
            && next.is_some_and(below)
            && spans[tree.order[*position] as usize].status_message.is_empty();
        keep[index] = !repeated && !says_nothing_more;
        next_alike.insert(key, *position);
    }
    let mut found: Vec<Fault> = marks
        .into_iter()
        .zip(keep)
        .filter(|(_, keep)| *keep)
        .map(|((_, mark), _)| mark.fault)
        .collect();

    // Logs outside of every span that is here.
    for log in error_logs.into_values().flatten() {
        found.push(from_log(log, start).fault);
    }
    found.sort_by_key(|fault| fault.offset_ns);
    let cut = found.len().saturating_sub(MAX_FAULTS);
    found.truncate(MAX_FAULTS);
    (found, cut)
}

/// For each position in tree order, the position after its subtree.
fn subtree_ends(tree: &Tree) -> Vec<usize> {
    let count = tree.order.len();
    let mut ends = vec![count; count];
    let mut open: Vec<(u32, usize)> = Vec::new();
    for (position, &i) in tree.order.iter().enumerate() {
        let depth = tree.depth[i as usize];
        while open.last().is_some_and(|&(above, _)| above >= depth) {
            if let Some((_, closed)) = open.pop() {
                ends[closed] = position;
            }
        }
        open.push((depth, position));
    }
    ends
}

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

fn absorb(known: &mut Fault, other: Fault) {
    if unnamed(&known.kind) && !other.kind.is_empty() {
        known.kind = other.kind;
    }
    if known.message.is_empty() {
        known.message = other.message;
    }
    known.stack = known.stack.take().or(other.stack);
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
    };
    Mark {
        fault,
        at: event.time_unix_nano,
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
    };
    Mark { fault, at }
}

fn from_status(span: &SpanRecord, service: String, start: u64) -> Mark {
    let message = if !span.status_message.is_empty() {
        span.status_message.clone()
    } else if let Some(code) = fields::count(&span.attributes, "http.response.status_code") {
        format!("HTTP {code}")
    } else {
        "the span ended with status ERROR and no message".to_owned()
    };
    let fault = Fault {
        span_id: Some(span.span_id),
        service,
        kind: fields::text(&span.attributes, "error.type").to_owned(),
        message,
        stack: None,
        offset_ns: offset(span.end_unix_nano.max(span.start_unix_nano), start),
        source: FaultSource::Status,
    };
    Mark {
        fault,
        at: span.end_unix_nano,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{attributes, log, span, span_id};

    fn exception(kind: &str, message: &str, at: u64) -> EventRecord {
        EventRecord {
            time_unix_nano: at,
            name: "exception".into(),
            attributes: attributes(&[
                ("exception.type", kind),
                ("exception.message", message),
                ("exception.stacktrace", "at main"),
            ]),
            ..EventRecord::default()
        }
    }

    fn error_log(message: &str, at: u64) -> EventRecord {
        EventRecord {
            time_unix_nano: at,
            name: "error_log".into(),
            attributes: attributes(&[("log.message", message), ("error.type", UNKNOWN_TYPE)]),
            ..EventRecord::default()
        }
    }

    /// One line per fault: `span source type: message`.
    fn check(spans: &[SpanRecord], logs: &[LogRecord], expect: &[&str]) {
        let tree = Tree::build(spans);
        let (found, cut) = faults(spans, &tree, logs, 0);
        let shown: Vec<String> = found
            .iter()
            .map(|fault| {
                let id = fault.span_id.map_or(0, |id| id.0[7]);
                format!("{id} {:?} {}: {}", fault.source, fault.kind, fault.message)
            })
            .collect();
        assert_eq!(shown, expect);
        assert_eq!(cut, 0);
    }

    #[test]
    fn four_marks_of_one_failure_are_one_fault() {
        let mut failing = span(1, 0, 0, 50_000_000);
        failing.status_code = STATUS_ERROR;
        failing.events = vec![
            error_log("the model did not answer", 40),
            exception("Timeout", "deadline of 30s passed", 40),
        ];
        check(
            &[failing],
            &[log(1, 40, 17, "the model did not answer")],
            &["1 Event Timeout: deadline of 30s passed"],
        );
    }

    #[test]
    fn ancestors_that_repeat_or_say_nothing_are_left_out() {
        let mut spans = [span(1, 0, 0, 90), span(2, 1, 10, 80), span(3, 2, 20, 70)];
        for span in &mut spans {
            span.status_code = STATUS_ERROR;
        }
        spans[1].events = vec![exception("Refused", "no route", 60)];
        spans[2].events = vec![exception("Refused", "no route", 50)];
        check(&spans, &[], &["3 Event Refused: no route"]);
    }

    #[test]
    fn an_ancestor_with_a_message_of_its_own_stays() {
        let mut spans = [span(1, 0, 0, 90), span(2, 1, 10, 80)];
        spans[0].status_code = STATUS_ERROR;
        spans[0].status_message = "gave up after 3 tries".into();
        spans[1].status_code = STATUS_ERROR;
        check(
            &spans,
            &[],
            &[
                "2 Status : the span ended with status ERROR and no message",
                "1 Status : gave up after 3 tries",
            ],
        );
    }

    #[test]
    fn two_failures_of_one_span_stay_two() {
        let mut failing = span(1, 0, 0, 90_000_000);
        failing.events = vec![exception("A", "first", 10), exception("B", "second", 50_000_000)];
        check(&[failing], &[], &["1 Event A: first", "1 Event B: second"]);
    }

    #[test]
    fn siblings_do_not_hide_each_other() {
        let mut spans = [span(1, 0, 0, 90), span(2, 1, 10, 20), span(3, 1, 30, 40)];
        for failing in &mut spans[1..] {
            failing.status_code = STATUS_ERROR;
            failing.status_message = "refused".into();
        }
        check(&spans, &[], &["2 Status : refused", "3 Status : refused"]);
    }

    #[test]
    fn an_error_log_without_its_span_is_told() {
        check(&[], &[log(9, 5, 17, "lost"), log(9, 6, 9, "fine")], &["9 Log : lost"]);
        assert_eq!(span_id(9).0[7], 9);
    }
}
