//! Trace and span ids. Random, except when a caller suggested the trace id of a request (SPEC T4): the OpenTelemetry
//! SDK takes the trace id of a span without parent only from its id generator, so the suggestion waits there.

use std::cell::Cell;

use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

thread_local! {
    static SUGGESTED: Cell<Option<TraceId>> = const { Cell::new(None) };
}

#[derive(Debug, Default)]
pub(crate) struct Ids {
    random: RandomIdGenerator,
}

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        SUGGESTED.take().unwrap_or_else(|| self.random.new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        self.random.new_span_id()
    }
}

/// Runs `start`, in which the next root span of this thread gets `id` as its trace id.
pub(crate) fn with_suggested<T>(id: Option<TraceId>, start: impl FnOnce() -> T) -> T {
    let Some(id) = id else { return start() };
    SUGGESTED.set(Some(id));
    let started = start();
    SUGGESTED.set(None);
    started
}
