//! Spans that application code makes by hand, and events on them. Made with the OpenTelemetry API directly: the
//! bridge from `tracing` spans costs several times as much.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Display;
use std::future::Future;

use opentelemetry::trace::{FutureExt, Link, Span as _, SpanContext, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, ContextGuard, Key, KeyValue, Value};

use crate::logs::error_span::{UNKNOWN, causes, type_name};
use crate::request::RequestState;
use crate::telemetry::Telemetry;
use crate::tracking::TrackingId;

/// Describes a span inside the current one.
///
/// ```
/// # async fn load() {}
/// # async fn example() {
/// trackline_sdk::span("load_workflow")
///     .attr("workflow.id", "wf-7")
///     .run(load())
///     .await;
/// # }
/// ```
pub fn span(name: impl Into<Cow<'static, str>>) -> SpanBuilder {
    SpanBuilder {
        name: name.into(),
        kind: SpanKind::Internal,
        attributes: Vec::new(),
        links: Vec::new(),
        parent: None,
    }
}

/// Adds an event to the current span.
pub fn event(name: impl Into<Cow<'static, str>>, attributes: Vec<KeyValue>) {
    Context::map_current(|context| context.span().add_event(name, attributes));
}

/// Sets an attribute of the current span.
pub fn set_attribute(key: impl Into<Key>, value: impl Into<Value>) {
    Context::map_current(|context| context.span().set_attribute(KeyValue::new(key, value)));
}

/// A span that has not begun.
#[must_use = "a span begins with `start`, `run` or `try_run`"]
#[derive(Debug)]
pub struct SpanBuilder {
    name: Cow<'static, str>,
    kind: SpanKind,
    attributes: Vec<KeyValue>,
    links: Vec<Link>,
    parent: Option<Context>,
}

impl SpanBuilder {
    /// Client, server, producer or consumer; internal if not said.
    pub fn kind(mut self, kind: SpanKind) -> Self {
        self.kind = kind;
        self
    }

    /// An attribute.
    pub fn attr(mut self, key: impl Into<Key>, value: impl Into<Value>) -> Self {
        self.attributes.push(KeyValue::new(key, value));
        self
    }

    /// A link to a span in another trace, such as the request that scheduled this work.
    pub fn link(mut self, to: SpanContext) -> Self {
        self.links.push(Link::with_context(to));
        self
    }

    /// Begins inside `context` instead of the current one. An empty context begins a trace.
    pub fn parent(mut self, context: Context) -> Self {
        self.parent = Some(context);
        self
    }

    /// Begins the span. It ends when the returned value and everything that runs in it is gone, or with
    /// [`ActiveSpan::end`].
    pub fn start(self) -> ActiveSpan {
        let parent = self.parent.unwrap_or_else(Context::current);
        let Some(tracer) = RequestState::telemetry_of(&parent).tracer() else {
            return ActiveSpan { context: parent };
        };
        let mut builder = tracer.span_builder(self.name).with_kind(self.kind);
        builder.attributes = Some(self.attributes);
        if !self.links.is_empty() {
            builder.links = Some(self.links);
        }
        let span = tracer.build_with_context(builder, &parent);
        ActiveSpan {
            context: parent.with_span(span),
        }
    }

    /// Runs a future in the span, which ends with it.
    pub async fn run<F: Future>(self, future: F) -> F::Output {
        let span = self.start();
        let output = span.run(future).await;
        span.end();
        output
    }

    /// Runs a future in the span, which ends with it; an `Err` is recorded as the span's error.
    pub async fn try_run<T, E, F>(self, future: F) -> Result<T, E>
    where
        E: Display,
        F: Future<Output = Result<T, E>>,
    {
        let span = self.start();
        let output = span.run(future).await;
        if let Err(error) = &output {
            span.fail(short_type_name::<E>(), &error.to_string());
        }
        span.end();
        output
    }
}

/// The last part of a type's path without its generics: `sqlx_core::error::Error` is `Error`.
fn short_type_name<T>() -> &'static str {
    let full = std::any::type_name::<T>();
    let path = full.split('<').next().unwrap_or(full);
    match path.rsplit("::").next() {
        Some(name) if !name.is_empty() => name,
        _ => UNKNOWN,
    }
}

/// A span that has begun. Clones are the same span.
#[derive(Debug, Clone)]
pub struct ActiveSpan {
    context: Context,
}

impl ActiveSpan {
    /// Makes this the current span of the thread until the guard is dropped. For code without `await`; across one use
    /// [`ActiveSpan::run`].
    pub fn enter(&self) -> ContextGuard {
        self.context.clone().attach()
    }

    /// Runs a future in this span: it is the current one whenever the future runs, and only then.
    pub fn run<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        future.with_context(self.context.clone())
    }

    /// Sets an attribute.
    pub fn set(&self, key: impl Into<Key>, value: impl Into<Value>) -> &Self {
        self.context.span().set_attribute(KeyValue::new(key, value));
        self
    }

    /// Adds an event.
    pub fn event(&self, name: impl Into<Cow<'static, str>>, attributes: Vec<KeyValue>) -> &Self {
        self.context.span().add_event(name, attributes);
        self
    }

    /// Records an error as an exception and as the span's status.
    pub fn error(&self, error: &(dyn Error + 'static)) -> &Self {
        let kind = type_name(error);
        let kind = kind.as_deref().unwrap_or(UNKNOWN);
        record_failure(&self.context, kind, &error.to_string(), causes(error));
        self
    }

    /// Records a failure that has no error value.
    pub fn fail(&self, error_type: &str, message: &str) -> &Self {
        record_failure(&self.context, error_type, message, None);
        self
    }

    /// The trace that this span is in.
    pub fn tracking_id(&self) -> TrackingId {
        TrackingId::of(&self.context)
    }

    /// The OpenTelemetry context that has this span as its current one.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Ends the span now.
    pub fn end(&self) {
        self.context.span().end();
    }
}

/// Records a failure on the span of `context`: exception event, `error.type`, status.
pub fn record_failure(context: &Context, error_type: &str, message: &str, stack: Option<String>) {
    let span = context.span();
    if !span.is_recording() {
        return;
    }
    let mut attributes = vec![
        KeyValue::new("exception.type", error_type.to_owned()),
        KeyValue::new("exception.message", message.to_owned()),
    ];
    if let Some(stack) = stack {
        attributes.push(KeyValue::new("exception.stacktrace", stack));
    }
    span.add_event("exception", attributes);
    span.set_attribute(KeyValue::new("error.type", error_type.to_owned()));
    span.set_status(Status::error(message.to_owned()));
}

/// Begins a server span. `suggested` becomes the trace id if `parent` has no span; attributes that are known are given
/// at once, because each later one takes a lock.
pub fn start_server_span(
    telemetry: &Telemetry,
    parent: &Context,
    suggested: Option<opentelemetry::trace::TraceId>,
    name: String,
    attributes: Vec<KeyValue>,
    link: Option<SpanContext>,
) -> Context {
    let Some(tracer) = telemetry.tracer() else {
        return parent.clone();
    };
    let mut builder = tracer.span_builder(name).with_kind(SpanKind::Server);
    builder.attributes = Some(attributes);
    if let Some(link) = link {
        builder.links = Some(vec![Link::with_context(link)]);
    }
    let mut span = crate::ids::with_suggested(suggested, || tracer.build_with_context(builder, parent));
    if span.is_recording() {
        let id = TrackingId::from(span.span_context().trace_id());
        span.set_attribute(KeyValue::new("tracking.id", id.to_string()));
    }
    parent.with_span(span)
}
