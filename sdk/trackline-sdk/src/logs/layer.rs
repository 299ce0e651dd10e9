//! The `tracing` layer: events of the application become log entries, placed in the current OpenTelemetry span.
//!
//! `tracing` spans (from `#[instrument]`) give their events their fields and their name as the function; they are not
//! exported as spans.

use std::borrow::Cow;
use std::fmt;
use std::time::SystemTime;

use opentelemetry::Context;
use tracing::field::{Field as Key, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context as LayerContext, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::{Entry, Field, Fields, Place, error_span, thread_name};
use crate::request::RequestState;
use crate::telemetry::Telemetry;

/// Feeds `tracing` events into a [`Telemetry`].
pub struct LogLayer {
    telemetry: Telemetry,
}

impl LogLayer {
    pub(crate) fn new(telemetry: Telemetry) -> LogLayer {
        LogLayer { telemetry }
    }
}

/// A `tracing` span's fields, kept for the events inside it.
struct SpanFields(Fields);

impl<S> Layer<S> for LogLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: LayerContext<'_, S>) {
        let mut visitor = Visitor::default();
        attributes.record(&mut visitor);
        if visitor.fields.is_empty() {
            return;
        }
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(SpanFields(visitor.fields));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: LayerContext<'_, S>) {
        let mut visitor = Visitor::default();
        values.record(&mut visitor);
        let Some(span) = context.span(id) else { return };
        let mut extensions = span.extensions_mut();
        match extensions.get_mut::<SpanFields>() {
            Some(SpanFields(fields)) => {
                fields.retain(|(name, _)| !visitor.fields.iter().any(|(new, _)| new == name));
                fields.append(&mut visitor.fields);
            }
            None => extensions.insert(SpanFields(visitor.fields)),
        }
    }

    fn on_event(&self, event: &Event<'_>, context: LayerContext<'_, S>) {
        // The exporters log too; their words must not come back to them.
        if Context::is_current_telemetry_suppressed() {
            return;
        }
        let metadata = event.metadata();
        if *metadata.level() >= Level::INFO && Context::map_current(RequestState::is_quiet) {
            return;
        }
        let mut visitor = Visitor::default();
        event.record(&mut visitor);
        let mut function = Cow::Borrowed("");
        if let Some(scope) = context.event_scope(event) {
            for span in scope {
                if function.is_empty() {
                    function = Cow::Borrowed(span.name());
                }
                if let Some(SpanFields(fields)) = span.extensions().get::<SpanFields>() {
                    visitor.fields.extend_from_slice(fields);
                }
            }
        }
        if let Some(at) = visitor.fields.iter().position(|(name, _)| name == "function")
            && let (_, Field::Str(name)) = visitor.fields.swap_remove(at)
        {
            function = name;
        }
        // An event without a message may have a name of its own; the default name only repeats the place.
        if visitor.message.is_empty() && !metadata.name().starts_with("event ") {
            visitor.message = Cow::Borrowed(metadata.name());
        }
        let entry = Entry {
            time: SystemTime::now(),
            level: *metadata.level(),
            message: visitor.message,
            logger: metadata.target(),
            thread: thread_name(),
            module: metadata.module_path().unwrap_or(metadata.target()),
            function,
            path: metadata.file().unwrap_or(""),
            line: metadata.line().unwrap_or(0),
            place: Place::current(),
            fields: visitor.fields,
        };
        if entry.level == Level::ERROR {
            error_span::record(&Context::current(), &entry, error_span::Kind::Exception);
        }
        self.telemetry.emit(entry);
    }
}

#[derive(Default)]
struct Visitor {
    message: Cow<'static, str>,
    fields: Fields,
}

impl Visitor {
    fn put(&mut self, key: &Key, value: Field) {
        self.fields.push((Cow::Borrowed(key.name()), value));
    }
}

impl Visit for Visitor {
    fn record_debug(&mut self, key: &Key, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if key.name() == "message" {
            self.message = Cow::Owned(text);
        } else {
            self.put(key, text.into());
        }
    }

    fn record_str(&mut self, key: &Key, value: &str) {
        if key.name() == "message" {
            self.message = Cow::Owned(value.to_owned());
        } else {
            self.put(key, value.to_owned().into());
        }
    }

    fn record_error(&mut self, key: &Key, value: &(dyn std::error::Error + 'static)) {
        self.put(key, value.to_string().into());
        let described = [
            ("error.type", error_span::type_name(value)),
            ("exception.stack_trace", error_span::causes(value)),
        ];
        for (name, text) in described {
            if let Some(text) = text {
                self.fields.push((Cow::Borrowed(name), text.into()));
            }
        }
    }

    fn record_i64(&mut self, key: &Key, value: i64) {
        self.put(key, value.into());
    }

    fn record_u64(&mut self, key: &Key, value: u64) {
        self.put(key, value.into());
    }

    fn record_f64(&mut self, key: &Key, value: f64) {
        self.put(key, value.into());
    }

    fn record_bool(&mut self, key: &Key, value: bool) {
        self.put(key, value.into());
    }
}
