//! W3C Trace Context and Baggage on HTTP headers, written for the header map itself: a text-map propagator sees one
//! value per name, and so cannot tell two `traceparent` headers from one nor join split `tracestate` headers.

mod baggage;
mod trace_context;

use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{SpanContext, TraceContextExt};

pub use trace_context::{Caller, parse_traceparent};

/// The caller's `tracestate`, verbatim, carried in the context. `SpanContext` has a place for it too, but that refuses
/// keys which the current specification allows.
#[derive(Debug, Clone)]
struct CallerState(std::sync::Arc<str>);

/// What the headers say about the caller's span. `None`: absent, or invalid, which the specification treats alike.
pub fn extract(headers: &HeaderMap) -> Option<Caller> {
    trace_context::extract(headers)
}

impl Caller {
    /// The caller's span as a remote span context.
    pub fn span_context(&self) -> SpanContext {
        trace_context::span_context(self)
    }

    /// `context` with the caller's span as the parent of what starts in it.
    pub fn continue_in(&self, context: &Context) -> Context {
        let context = context.with_remote_span_context(self.span_context());
        match &self.state {
            Some(state) => context.with_value(CallerState(state.as_str().into())),
            None => context,
        }
    }
}

/// `context` with the baggage of the headers, if they carry any.
pub fn extract_baggage(headers: &HeaderMap, context: Context) -> Context {
    match baggage::parse(headers) {
        Some(found) => context.with_baggage(found),
        None => context,
    }
}

/// Writes `traceparent`, `tracestate` and `baggage` of `context`, replacing what the map had under these names.
pub fn inject(context: &Context, headers: &mut HeaderMap) {
    let span = context.span();
    let span = span.span_context();
    if span.is_valid() {
        let own;
        let state = match context.get::<CallerState>() {
            Some(CallerState(state)) => Some(&**state),
            None => {
                own = span.trace_state().header();
                (!own.is_empty()).then_some(own.as_str())
            }
        };
        trace_context::write(span, state, headers);
    }
    if !context.baggage().is_empty() {
        baggage::write(context.baggage(), headers);
    }
}
