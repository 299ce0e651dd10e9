//! Why: what the language can name in each context, as one table: the checker, the reader, the writer and the documentation all work from it.

use model::Signal;

/// A context: what a statement or condition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Context {
    Resource,
    Scope,
    Span,
    SpanEvent,
    Metric,
    DataPoint,
    Log,
}

impl Context {
    pub const ALL: [Context; 7] = [
        Context::Resource,
        Context::Scope,
        Context::Span,
        Context::SpanEvent,
        Context::Metric,
        Context::DataPoint,
        Context::Log,
    ];

    /// The name in configurations and paths.
    pub const fn name(self) -> &'static str {
        match self {
            Context::Resource => "resource",
            Context::Scope => "scope",
            Context::Span => "span",
            Context::SpanEvent => "spanevent",
            Context::Metric => "metric",
            Context::DataPoint => "datapoint",
            Context::Log => "log",
        }
    }

    /// Also with the names of older and newer generations.
    pub fn from_name(name: &str) -> Option<Context> {
        match name {
            "instrumentation_scope" => Some(Context::Scope),
            "log_record" => Some(Context::Log),
            name => Context::ALL.into_iter().find(|context| context.name() == name),
        }
    }

    /// The contexts of a signal, from the outside in.
    pub const fn of(signal: Signal) -> &'static [Context] {
        match signal {
            Signal::Traces => &[Context::Resource, Context::Scope, Context::Span, Context::SpanEvent],
            Signal::Logs => &[Context::Resource, Context::Scope, Context::Log],
            Signal::Metrics => &[Context::Resource, Context::Scope, Context::Metric, Context::DataPoint],
        }
    }

    /// What is around it, from the outside in.
    pub const fn around(self) -> &'static [Context] {
        match self {
            Context::Resource => &[],
            Context::Scope => &[Context::Resource],
            Context::Span | Context::Metric | Context::Log => &[Context::Resource, Context::Scope],
            Context::SpanEvent => &[Context::Resource, Context::Scope, Context::Span],
            Context::DataPoint => &[Context::Resource, Context::Scope, Context::Metric],
        }
    }

    /// What it has, for the table in the documentation and for the checker.
    pub const fn paths(self) -> &'static [Named] {
        match self {
            Context::Resource => RESOURCE,
            Context::Scope => SCOPE,
            Context::Span => SPAN,
            Context::SpanEvent => SPAN_EVENT,
            Context::Metric => METRIC,
            Context::DataPoint => DATA_POINT,
            Context::Log => LOG,
        }
    }
}

/// One path.
#[derive(Debug, Clone, Copy)]
pub struct Named {
    pub name: &'static str,
    pub what: What,
}

/// What a path leads to; the numbers are those of the fields in its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Pairs; keys in brackets lead on.
    Attributes(u32),
    Text(u32),
    /// An enumeration.
    Enum(u32),
    Bool(u32),
    /// A count of 32 bits, as a varint.
    Uint32(u32),
    /// Flags of 32 bits, of fixed length.
    Fixed32(u32),
    /// Nanoseconds since 1970 as a whole number.
    Nanos(u32),
    /// The same as a time.
    Time(u32),
    /// 16 or 8 bytes; `true`: all zeros are refused.
    Id(u32, usize, bool),
    /// The same in hexadecimal.
    IdText(u32, usize, bool),
    /// `Server`
    KindText,
    /// `SPAN_KIND_SERVER`
    KindConstant,
    StatusCode,
    StatusMessage,
    Body,
    BodyText,
    /// Of the group around a resource or scope.
    SchemaUrl,
    /// Which of the kinds of data a metric has.
    MetricType,
    Temporality,
    Monotonic,
    PointAttributes,
    PointFlags,
    ValueInt,
    ValueDouble,
    Count,
    Sum,
    Min,
    Max,
    Scale,
    ZeroCount,
    BucketCounts,
    Bounds,
    /// The place of an event in its span, from 0.
    EventIndex,
    /// What statements of one group hand to each other, forgotten with the item.
    Cache,
}

impl What {
    /// Whether keys in brackets may follow.
    pub const fn has_keys(self) -> bool {
        matches!(
            self,
            What::Attributes(_) | What::PointAttributes | What::Body | What::Cache
        )
    }

    /// Whether a statement can change it.
    pub const fn can_be_set(self) -> bool {
        !matches!(
            self,
            What::SchemaUrl
                | What::MetricType
                | What::EventIndex
                | What::KindConstant
                | What::BodyText
                | What::BucketCounts
                | What::Bounds
        )
    }

    /// What it yields, for the documentation.
    pub const fn yields(self) -> &'static str {
        match self {
            What::Attributes(_) | What::PointAttributes | What::Cache => "map",
            What::Text(_)
            | What::IdText(..)
            | What::KindText
            | What::KindConstant
            | What::StatusMessage
            | What::BodyText
            | What::SchemaUrl => "text",
            What::Enum(_)
            | What::Uint32(_)
            | What::Fixed32(_)
            | What::Nanos(_)
            | What::StatusCode
            | What::MetricType
            | What::Temporality
            | What::PointFlags
            | What::ValueInt
            | What::Count
            | What::Scale
            | What::ZeroCount
            | What::EventIndex => "whole number",
            What::Bool(_) | What::Monotonic => "boolean",
            What::Time(_) => "time",
            What::Id(..) => "bytes",
            What::Body => "any value",
            What::ValueDouble | What::Sum | What::Min | What::Max => "decimal number",
            What::BucketCounts | What::Bounds => "list",
        }
    }
}

const fn n(name: &'static str, what: What) -> Named {
    Named { name, what }
}

const RESOURCE: &[Named] = &[
    n("attributes", What::Attributes(1)),
    n("dropped_attributes_count", What::Uint32(2)),
    n("schema_url", What::SchemaUrl),
    n("cache", What::Cache),
];

const SCOPE: &[Named] = &[
    n("name", What::Text(1)),
    n("version", What::Text(2)),
    n("attributes", What::Attributes(3)),
    n("dropped_attributes_count", What::Uint32(4)),
    n("schema_url", What::SchemaUrl),
    n("cache", What::Cache),
];

const SPAN: &[Named] = &[
    n("trace_id", What::Id(1, 16, true)),
    n("trace_id.string", What::IdText(1, 16, true)),
    n("span_id", What::Id(2, 8, true)),
    n("span_id.string", What::IdText(2, 8, true)),
    n("parent_span_id", What::Id(4, 8, false)),
    n("parent_span_id.string", What::IdText(4, 8, false)),
    n("trace_state", What::Text(3)),
    n("name", What::Text(5)),
    n("kind", What::Enum(6)),
    n("kind.string", What::KindText),
    n("kind.deprecated_string", What::KindConstant),
    n("start_time_unix_nano", What::Nanos(7)),
    n("end_time_unix_nano", What::Nanos(8)),
    n("start_time", What::Time(7)),
    n("end_time", What::Time(8)),
    n("attributes", What::Attributes(9)),
    n("dropped_attributes_count", What::Uint32(10)),
    n("dropped_events_count", What::Uint32(12)),
    n("dropped_links_count", What::Uint32(14)),
    n("status.code", What::StatusCode),
    n("status.message", What::StatusMessage),
    n("flags", What::Fixed32(16)),
    n("cache", What::Cache),
];

const SPAN_EVENT: &[Named] = &[
    n("time_unix_nano", What::Nanos(1)),
    n("time", What::Time(1)),
    n("name", What::Text(2)),
    n("attributes", What::Attributes(3)),
    n("dropped_attributes_count", What::Uint32(4)),
    n("event_index", What::EventIndex),
    n("cache", What::Cache),
];

const METRIC: &[Named] = &[
    n("name", What::Text(1)),
    n("description", What::Text(2)),
    n("unit", What::Text(3)),
    n("type", What::MetricType),
    n("aggregation_temporality", What::Temporality),
    n("is_monotonic", What::Monotonic),
    n("metadata", What::Attributes(12)),
    n("cache", What::Cache),
];

const DATA_POINT: &[Named] = &[
    n("attributes", What::PointAttributes),
    n("start_time_unix_nano", What::Nanos(2)),
    n("time_unix_nano", What::Nanos(3)),
    n("start_time", What::Time(2)),
    n("time", What::Time(3)),
    n("value_int", What::ValueInt),
    n("value_double", What::ValueDouble),
    n("flags", What::PointFlags),
    n("count", What::Count),
    n("sum", What::Sum),
    n("min", What::Min),
    n("max", What::Max),
    n("scale", What::Scale),
    n("zero_count", What::ZeroCount),
    n("bucket_counts", What::BucketCounts),
    n("explicit_bounds", What::Bounds),
    n("cache", What::Cache),
];

const LOG: &[Named] = &[
    n("time_unix_nano", What::Nanos(1)),
    n("observed_time_unix_nano", What::Nanos(11)),
    n("time", What::Time(1)),
    n("observed_time", What::Time(11)),
    n("severity_number", What::Enum(2)),
    n("severity_text", What::Text(3)),
    n("body", What::Body),
    n("body.string", What::BodyText),
    n("attributes", What::Attributes(6)),
    n("dropped_attributes_count", What::Uint32(7)),
    n("flags", What::Fixed32(8)),
    n("trace_id", What::Id(9, 16, false)),
    n("trace_id.string", What::IdText(9, 16, false)),
    n("span_id", What::Id(10, 8, false)),
    n("span_id.string", What::IdText(10, 8, false)),
    n("event_name", What::Text(12)),
    n("cache", What::Cache),
];

/// The kinds of spans, by number: as constants and as texts.
pub const SPAN_KINDS: [(&str, &str); 6] = [
    ("SPAN_KIND_UNSPECIFIED", "Unspecified"),
    ("SPAN_KIND_INTERNAL", "Internal"),
    ("SPAN_KIND_SERVER", "Server"),
    ("SPAN_KIND_CLIENT", "Client"),
    ("SPAN_KIND_PRODUCER", "Producer"),
    ("SPAN_KIND_CONSUMER", "Consumer"),
];

const LISTS: [(&str, &[&str]); 3] = [
    ("STATUS_CODE_", &["UNSET", "OK", "ERROR"]),
    ("AGGREGATION_TEMPORALITY_", &["UNSPECIFIED", "DELTA", "CUMULATIVE"]),
    (
        "METRIC_DATA_TYPE_",
        &["NONE", "GAUGE", "SUM", "HISTOGRAM", "EXPONENTIAL_HISTOGRAM", "SUMMARY"],
    ),
];

/// The number that a constant stands for.
pub fn constant(name: &str) -> Option<i64> {
    if let Some(at) = SPAN_KINDS.iter().position(|(constant, _)| *constant == name) {
        return Some(at as i64);
    }
    for (start, names) in LISTS {
        if let Some(rest) = name.strip_prefix(start) {
            return names.iter().position(|known| *known == rest).map(|at| at as i64);
        }
    }
    match name {
        "FLAG_NONE" => Some(0),
        "FLAG_NO_RECORDED_VALUE" => Some(1),
        "SEVERITY_NUMBER_UNSPECIFIED" => Some(0),
        _ => {
            let severity = name.strip_prefix("SEVERITY_NUMBER_")?;
            if severity.starts_with(|c: char| c.is_ascii_digit()) {
                return None;
            }
            crate::processors::matching::severity(severity).map(i64::from)
        }
    }
}

/// Families of constants, for the documentation and for suggestions.
pub fn constants() -> Vec<String> {
    let mut all: Vec<String> = SPAN_KINDS.iter().map(|(constant, _)| (*constant).to_owned()).collect();
    for (start, names) in LISTS {
        all.extend(names.iter().map(|name| format!("{start}{name}")));
    }
    all.push("SEVERITY_NUMBER_UNSPECIFIED".to_owned());
    for severity in ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"] {
        for step in ["", "2", "3", "4"] {
            all.push(format!("SEVERITY_NUMBER_{severity}{step}"));
        }
    }
    all.extend(["FLAG_NONE".to_owned(), "FLAG_NO_RECORDED_VALUE".to_owned()]);
    all
}
