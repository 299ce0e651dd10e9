//! The answer to one question by tracking ID, in the shape that the API serves and the terminal and the page read.
//!
//! One set of structs is written (server) and read (command line) so that the two cannot drift. Instants are unix
//! nanoseconds as decimal strings, because JavaScript's numbers end at 2^53; offsets and durations are numbers of
//! nanoseconds relative to `trace.start_unix_nano`.

use model::record::{Attributes, Value};
use model::{SpanId, TraceId};
use serde::{Deserialize, Serialize};

use crate::json;

/// Everything that is known about one tracking ID.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Story {
    #[serde(with = "json::trace_id")]
    pub tracking_id: TraceId,
    pub status: Status,
    /// One sentence for a person: what was found, and what follows from it.
    pub explanation: String,
    pub trace: Trace,
    pub logs: Vec<Log>,
    pub errors: Vec<Fault>,
    pub ai: Ai,
    pub rows: Vec<TableRows>,
    /// Why some configured database could not be asked; the rest of the story stands.
    pub rows_error: Option<String>,
    pub more: More,
}

/// How complete the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Spans are there, with their root, and every named parent.
    Found,
    /// Something is there, but a root or a parent is missing, or logs came without their spans.
    Partial,
    /// Logs or rows exist and say that the trace was not sampled.
    NotSampled,
    /// It was here and retention removed it: the store noted so, or its database rows are older than what is kept.
    Expired,
    /// Nothing here has this id.
    Unknown,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Found => "found",
            Status::Partial => "partial",
            Status::NotSampled => "not_sampled",
            Status::Expired => "expired",
            Status::Unknown => "unknown",
        }
    }
}

/// The spans in tree order, with what is true of all of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// The earliest span's start; without spans the earliest log's time; without both 0.
    #[serde(with = "json::decimal")]
    pub start_unix_nano: u64,
    pub duration_ns: u64,
    /// The span without a parent, or the earliest orphan when the root is missing.
    pub root: Option<Root>,
    pub services: Vec<ServiceShare>,
    pub span_count: usize,
    pub error_count: usize,
    /// Levels of the tree; 1 when there is only a root.
    pub depth: u32,
    pub detail: Detail,
    /// Whether some span cannot lie in its parent's time as the clocks say.
    pub clock_skew: bool,
    pub spans: Vec<Span>,
    pub resources: Vec<Resource>,
}

/// Where a trace began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    pub service: String,
    pub operation: String,
}

/// What one service had to do with a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceShare {
    pub name: String,
    pub spans: usize,
    pub errors: usize,
}

/// How much of each span an answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Detail {
    Full,
    /// No attributes, events and links.
    Outline,
}

/// The attributes of one resource; spans name it by its index.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Resource(#[serde(with = "json::attributes")] pub Attributes);

/// One span in its place in the tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    #[serde(with = "json::span_id")]
    pub span_id: SpanId,
    #[serde(with = "json::optional_span_id")]
    pub parent_span_id: Option<SpanId>,
    pub service: String,
    pub instance: String,
    pub operation: String,
    pub kind: Kind,
    pub offset_ns: i64,
    pub duration_ns: u64,
    pub status: SpanStatus,
    pub status_message: String,
    pub depth: u32,
    /// It names a parent that is not here.
    pub orphan: bool,
    /// Added to the span's times it puts the span where its parent's clock allows it; 0 where the clocks agree.
    pub skew_ns: i64,
    pub resource: u32,
    pub scope: String,
    /// Absent in an outline.
    #[serde(default, with = "json::optional_attributes", skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Attributes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<Event>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<Vec<Link>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Unspecified,
    Internal,
    Server,
    Client,
    Producer,
    Consumer,
}

impl Kind {
    /// The numbers are those of `opentelemetry.proto.trace.v1.Span.SpanKind`.
    pub fn from_number(kind: u8) -> Kind {
        match kind {
            1 => Kind::Internal,
            2 => Kind::Server,
            3 => Kind::Client,
            4 => Kind::Producer,
            5 => Kind::Consumer,
            _ => Kind::Unspecified,
        }
    }

    pub fn number(self) -> u8 {
        match self {
            Kind::Unspecified => 0,
            Kind::Internal => 1,
            Kind::Server => 2,
            Kind::Client => 3,
            Kind::Producer => 4,
            Kind::Consumer => 5,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Unspecified => "unspecified",
            Kind::Internal => "internal",
            Kind::Server => "server",
            Kind::Client => "client",
            Kind::Producer => "producer",
            Kind::Consumer => "consumer",
        }
    }

    /// The inverse of `as_str`, letter case aside.
    pub fn from_name(name: &str) -> Option<Kind> {
        [
            Kind::Unspecified,
            Kind::Internal,
            Kind::Server,
            Kind::Client,
            Kind::Producer,
            Kind::Consumer,
        ]
        .into_iter()
        .find(|kind| kind.as_str().eq_ignore_ascii_case(name))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpanStatus {
    Unset,
    Ok,
    Error,
}

impl SpanStatus {
    /// The numbers are those of `opentelemetry.proto.trace.v1.Status.StatusCode`.
    pub fn from_number(code: u8) -> SpanStatus {
        match code {
            1 => SpanStatus::Ok,
            2 => SpanStatus::Error,
            _ => SpanStatus::Unset,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub offset_ns: i64,
    pub name: String,
    #[serde(with = "json::attributes")]
    pub attributes: Attributes,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    #[serde(with = "json::trace_id")]
    pub trace_id: TraceId,
    #[serde(with = "json::span_id")]
    pub span_id: SpanId,
    #[serde(with = "json::attributes")]
    pub attributes: Attributes,
}

/// One log line of any service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Log {
    #[serde(with = "json::decimal")]
    pub time_unix_nano: u64,
    pub offset_ns: i64,
    pub service: String,
    /// `TRACE`, `DEBUG`, `INFO`, `WARN`, `ERROR`, `FATAL`, or what the sender wrote where it gave no number.
    pub level: String,
    pub message: String,
    #[serde(with = "json::optional_span_id")]
    pub span_id: Option<SpanId>,
    pub logger: String,
    #[serde(with = "json::attributes")]
    pub attributes: Attributes,
    /// The body where it is more than the message, else null.
    #[serde(with = "json::value")]
    pub body: Value,
}

/// One thing that went wrong, told once even where it left traces in several places.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    #[serde(with = "json::optional_span_id")]
    pub span_id: Option<SpanId>,
    pub service: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub message: String,
    pub stack: Option<String>,
    pub offset_ns: i64,
    pub source: FaultSource,
    /// What its callers made of it, from the failure up to the root.
    #[serde(default)]
    pub seen_in: Vec<SeenIn>,
    /// Layers beyond the bound on `seen_in`.
    #[serde(default)]
    pub seen_in_cut: usize,
}

/// One failure as another layer told of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeenIn {
    #[serde(with = "json::optional_span_id")]
    pub span_id: Option<SpanId>,
    pub service: String,
    /// The span's name; empty where its span is not here.
    pub operation: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// Empty where the layer says nothing but that it failed.
    pub message: String,
    pub stack: Option<String>,
    pub offset_ns: i64,
    pub source: FaultSource,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultSource {
    Event,
    Status,
    Log,
}

/// What the AI and other paid calls of a trace used and cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ai {
    pub calls: Vec<AiCall>,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cost_usd: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AiCall {
    #[serde(with = "json::span_id")]
    pub span_id: SpanId,
    pub service: String,
    /// Empty for a paid call that is not a model's.
    pub model: String,
    pub provider: String,
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// 0 where the service did not say.
    pub cost_usd: f64,
    pub duration_ns: u64,
    pub error: Option<String>,
}

/// Rows of one table that carry the id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableRows {
    /// The configured database without its password, e.g. `sqlite:app.db`.
    pub source: String,
    pub table: String,
    pub columns: Vec<String>,
    pub rows: Vec<Vec<serde_json::Value>>,
    /// There are more rows than the bound on an answer lets through.
    #[serde(default)]
    pub cut: bool,
}

/// What a bound left out of this answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct More {
    pub spans_cut: usize,
    pub logs_cut: usize,
    #[serde(default)]
    pub errors_cut: usize,
}
