//! An ERROR log inside a span belongs to the span too (SPEC S8): as an `error_log` event, as an exception where there
//! is one, and as the span's status.

use std::error::Error;

use opentelemetry::trace::{Status, TraceContextExt};
use opentelemetry::{Context, KeyValue};

use super::{Entry, Field, level_name};
use crate::tracking::TrackingId;

/// What stands where nobody said what kind of error it was.
pub(crate) const UNKNOWN: &str = "UnknownError";

/// What an ERROR entry is about.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// Something that went wrong in the code: recorded as an exception as well.
    Exception,
    /// The line that every request ends with: what went wrong has been recorded already.
    RequestEnd,
}

/// Records the entry on the current span of `context`, if that records anything.
pub(crate) fn record(context: &Context, entry: &Entry, kind: Kind) {
    let span = context.span();
    if !span.is_recording() {
        return;
    }
    let text = |name: &str| match entry.field(name) {
        Some(Field::Str(text)) => Some(cut(text)),
        Some(Field::Shared(text)) => Some(cut(text)),
        _ => None,
    };
    let error_type = text("error.type")
        .or_else(|| text("exception.class"))
        .unwrap_or_else(|| UNKNOWN.to_owned());
    let mut tracking_id = [0; 32];
    let tracking_id = TrackingId::of(context).encode(&mut tracking_id).to_owned();
    span.add_event(
        "error_log",
        vec![
            KeyValue::new("log.level", level_name(entry.level)),
            KeyValue::new("log.message", cut(&entry.message)),
            KeyValue::new("log.logger", entry.logger),
            KeyValue::new("log.module", entry.module),
            KeyValue::new("log.function", entry.function.clone()),
            KeyValue::new("log.line", i64::from(entry.line)),
            KeyValue::new("tracking.id", tracking_id),
            KeyValue::new("error.type", error_type.clone()),
        ],
    );
    if kind == Kind::RequestEnd {
        return;
    }
    let message = text("error.message")
        .or_else(|| text("exception.message"))
        .unwrap_or_else(|| cut(&entry.message));
    span.add_event(
        "exception",
        vec![
            KeyValue::new("exception.type", error_type),
            KeyValue::new("exception.message", message.clone()),
            KeyValue::new("exception.stacktrace", stack(entry, text("exception.stack_trace"))),
        ],
    );
    span.set_status(Status::error(message));
}

/// Bytes of a text that a span keeps: spans wait in a queue that counts them, not their bytes.
const MAX_TEXT: usize = 16 * 1024;

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}

/// The stack given with the entry, or where it was logged and, if `RUST_BACKTRACE` asks for it, the call stack.
fn stack(entry: &Entry, given: Option<String>) -> String {
    let mut stack = given.unwrap_or_default();
    if stack.starts_with("at ") {
        // It has its own place and calls, as a panic has; where it was logged says less.
        return stack;
    }
    if stack.is_empty() || !stack.contains('\n') {
        if !stack.is_empty() {
            stack.push('\n');
        }
        stack.push_str(&format!("at {}:{}", entry.path, entry.line));
    }
    let trace = std::backtrace::Backtrace::capture();
    if trace.status() == std::backtrace::BacktraceStatus::Captured {
        let trace = trace.to_string();
        if names_functions(&trace) {
            stack.push('\n');
            stack.push_str(from_file(&trace, entry.path));
        }
    }
    stack
}

/// The call stack from the first frame in the file that logged: above it are the frames of logging.
fn from_file<'a>(trace: &'a str, path: &str) -> &'a str {
    let (mut at, mut frame) = (0, 0);
    for line in trace.split_inclusive('\n') {
        let text = line.trim_start();
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            frame = at;
        } else if text.starts_with("at ") && text.contains(path) {
            return &trace[frame..];
        }
        at += line.len();
    }
    trace
}

/// Whether a call stack tells anything: that of a program stripped of its symbols is a column of `<unknown>`.
pub(crate) fn names_functions(trace: &str) -> bool {
    trace.lines().any(|line| {
        line.trim_start().starts_with(|c: char| c.is_ascii_digit()) && !line.trim_end().ends_with(": <unknown>")
    })
}

/// The name of an error's type as its `Debug` form begins with it: the best that a trait object tells.
pub(crate) fn type_name(error: &(dyn Error + 'static)) -> Option<String> {
    let debug = format!("{error:?}");
    let end = debug
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(debug.len());
    let name = &debug[..end];
    name.starts_with(|c: char| c.is_ascii_uppercase())
        .then(|| name.to_owned())
}

/// The chain of causes behind an error, one per line.
pub(crate) fn causes(error: &(dyn Error + 'static)) -> Option<String> {
    let mut chain = String::new();
    let mut next = error.source();
    let mut depth = 0;
    while let Some(cause) = next {
        if depth == MAX_CAUSES {
            break;
        }
        if !chain.is_empty() {
            chain.push('\n');
        }
        chain.push_str("caused by: ");
        chain.push_str(&cause.to_string());
        next = cause.source();
        depth += 1;
    }
    (!chain.is_empty()).then_some(chain)
}

/// Causes shown at most: a chain may be a circle.
const MAX_CAUSES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_stack_begins_where_it_was_logged() {
        let trace = "   0: sdk::record\n             at sdk/src/record.rs:1\n   1: app::handler\n             at ./src/main.rs:7\n   \
                     2: main\n             at ./src/main.rs:3\n";
        assert_eq!(
            from_file(trace, "src/main.rs"),
            "   1: app::handler\n             at ./src/main.rs:7\n   2: main\n             at ./src/main.rs:3\n"
        );
        assert_eq!(from_file(trace, "elsewhere.rs"), trace);
    }
}
