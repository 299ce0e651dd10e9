//! One log event, taken once on the thread where it happened and shared by everything that writes or sends it.
//!
//! The thread that logs pays for the copy and two queue pushes; JSON and protobuf are made elsewhere.

pub(crate) mod error_span;
pub(crate) mod layer;
pub(crate) mod line;
pub(crate) mod names;
pub(crate) mod otlp;
pub(crate) mod stdout;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::Context;
use opentelemetry::trace::{SpanId, TraceContextExt, TraceFlags, TraceId};
use tracing::Level;

/// Where an event belongs: trace, span and whether the trace is recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Place {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub flags: TraceFlags,
}

impl Place {
    /// The current span. `None` outside any trace.
    pub(crate) fn current() -> Option<Place> {
        Context::map_current(Place::of)
    }

    pub(crate) fn of(context: &Context) -> Option<Place> {
        let span = context.span();
        let span = span.span_context();
        span.is_valid().then(|| Place {
            trace_id: span.trace_id(),
            span_id: span.span_id(),
            flags: span.trace_flags(),
        })
    }
}

/// A field's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    /// Text.
    Str(Cow<'static, str>),
    /// Text that others hold as well, such as a span's attribute.
    Shared(Arc<str>),
    /// Signed integer.
    Int(i64),
    /// Unsigned integer.
    Uint(u64),
    /// Floating point; what JSON cannot hold becomes `null`.
    Float(f64),
    /// Truth value.
    Bool(bool),
}

impl Field {
    fn weight(&self) -> usize {
        match self {
            Field::Str(Cow::Owned(text)) => text.len(),
            Field::Shared(text) => text.len(),
            _ => 0,
        }
    }
}

impl From<&'static str> for Field {
    fn from(text: &'static str) -> Field {
        Field::Str(Cow::Borrowed(text))
    }
}
impl From<String> for Field {
    fn from(text: String) -> Field {
        Field::Str(Cow::Owned(text))
    }
}
impl From<Cow<'static, str>> for Field {
    fn from(text: Cow<'static, str>) -> Field {
        Field::Str(text)
    }
}
impl From<Arc<str>> for Field {
    fn from(text: Arc<str>) -> Field {
        Field::Shared(text)
    }
}
impl From<i64> for Field {
    fn from(number: i64) -> Field {
        Field::Int(number)
    }
}
impl From<u64> for Field {
    fn from(number: u64) -> Field {
        Field::Uint(number)
    }
}
impl From<u16> for Field {
    fn from(number: u16) -> Field {
        Field::Uint(u64::from(number))
    }
}
impl From<f64> for Field {
    fn from(number: f64) -> Field {
        Field::Float(number)
    }
}
impl From<bool> for Field {
    fn from(truth: bool) -> Field {
        Field::Bool(truth)
    }
}

/// Fields by name, names as the application wrote them.
pub(crate) type Fields = Vec<(Cow<'static, str>, Field)>;

/// One log event.
#[derive(Debug)]
pub(crate) struct Entry {
    pub time: SystemTime,
    pub level: Level,
    pub message: Cow<'static, str>,
    pub logger: &'static str,
    pub thread: Arc<str>,
    pub module: &'static str,
    pub function: Cow<'static, str>,
    pub path: &'static str,
    pub line: u32,
    pub place: Option<Place>,
    pub fields: Fields,
}

/// Bytes of an entry beside its owned texts: the struct itself and its list of fields.
const ENTRY_BYTES: usize = 256;
const FIELD_BYTES: usize = 48;

impl Entry {
    /// About how much memory the entry holds.
    pub(crate) fn weight(&self) -> usize {
        let fields: usize = self.fields.iter().map(|(_, field)| FIELD_BYTES + field.weight()).sum();
        ENTRY_BYTES + self.message.len() + fields
    }

    /// The field that the schema calls `name` (`error.type`), however the application spelled it.
    pub(crate) fn field(&self, name: &str) -> Option<&Field> {
        self.fields
            .iter()
            .find(|(key, _)| names::canonical(key) == name)
            .map(|(_, field)| field)
    }
}

/// The level's name in the schema, which knows no TRACE (SPEC L2).
pub(crate) fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARN",
        Level::INFO => "INFO",
        _ => "DEBUG",
    }
}

/// The current thread's name, made once per thread.
pub(crate) fn thread_name() -> Arc<str> {
    thread_local! {
        static NAME: OnceCell<Arc<str>> = const { OnceCell::new() };
    }
    NAME.with(|name| {
        name.get_or_init(|| {
            let thread = std::thread::current();
            match thread.name() {
                Some(name) => name.into(),
                None => format!("{:?}", thread.id()).into(),
            }
        })
        .clone()
    })
}
