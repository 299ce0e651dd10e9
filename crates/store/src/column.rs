//! What a physical column is called and holds. A name never changes its kind: the suffix says it.

use std::sync::Arc;

use model::record::Value;

use crate::Dataset;

/// Columns a part may have; attributes beyond them share `rest:json`. Wider tables slow every reader that opens the footer.
pub const MAX_COLUMNS: usize = 512;

/// What a column's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    Text = 0,
    /// Text that is the typed JSON of `json.rs`.
    Json = 1,
    Int = 2,
    Uint = 3,
    Double = 4,
    Bool = 5,
    /// 8 bytes: a span id.
    Id8 = 6,
    /// 16 bytes: a trace id.
    Id16 = 7,
    /// True where the attribute is the row's trace id in lower hex: the text is not stored, `trace_id` says it.
    TraceHex = 8,
}

impl Kind {
    pub fn from_u8(value: u8) -> Option<Kind> {
        [
            Kind::Text,
            Kind::Json,
            Kind::Int,
            Kind::Uint,
            Kind::Double,
            Kind::Bool,
            Kind::Id8,
            Kind::Id16,
            Kind::TraceHex,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == value)
    }

    pub fn is_text(self) -> bool {
        matches!(self, Kind::Text | Kind::Json)
    }

    /// Bytes of an id; 0 for what is none.
    pub fn id_width(self) -> usize {
        match self {
            Kind::Id8 => 8,
            Kind::Id16 => 16,
            _ => 0,
        }
    }
}

/// A column: its name, what it holds, and whether every row has a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub name: Arc<str>,
    pub kind: Kind,
    pub required: bool,
}

/// One of the dataset's own columns.
pub struct Fixed {
    pub name: &'static str,
    pub kind: Kind,
    pub required: bool,
}

const fn required(name: &'static str, kind: Kind) -> Fixed {
    Fixed {
        name,
        kind,
        required: true,
    }
}

const fn optional(name: &'static str, kind: Kind) -> Fixed {
    Fixed {
        name,
        kind,
        required: false,
    }
}

/// Indices of the datasets' own columns in a block.
pub mod fixed {
    pub const TRACE_ID: usize = 0;
    pub const SPAN_ID: usize = 1;
    /// A span's start; a record's time, or its observed time if it has none.
    pub const TIME: usize = 2;
    pub const FLAGS: usize = 3;
    pub const SCOPE_NAME: usize = 4;
    pub const SCOPE_VERSION: usize = 5;
    pub const SCOPE_SCHEMA_URL: usize = 6;
    pub const SCOPE_DROPPED: usize = 7;
    pub const RESOURCE_SCHEMA_URL: usize = 8;
    pub const DROPPED_ATTRIBUTES: usize = 9;
    pub const REST: usize = 10;

    pub const PARENT: usize = 11;
    pub const NAME: usize = 12;
    pub const KIND: usize = 13;
    pub const DURATION: usize = 14;
    pub const STATUS_CODE: usize = 15;
    pub const STATUS_MESSAGE: usize = 16;
    pub const TRACE_STATE: usize = 17;
    pub const EVENTS: usize = 18;
    pub const LINKS: usize = 19;
    pub const DROPPED_EVENTS: usize = 20;
    pub const DROPPED_LINKS: usize = 21;

    pub const STREAM: usize = 11;
    pub const OBSERVED: usize = 12;
    pub const SEVERITY_NUMBER: usize = 13;
    pub const SEVERITY_TEXT: usize = 14;
    pub const EVENT_NAME: usize = 15;
    pub const BODY: usize = 16;
    pub const BODY_INT: usize = 17;
    pub const BODY_DOUBLE: usize = 18;
    pub const BODY_BOOL: usize = 19;
    pub const BODY_JSON: usize = 20;
    /// The record has no time of its own: `TIME` is its observed time.
    pub const TIME_IS_OBSERVED: usize = 21;
}

static SPAN_COLUMNS: [Fixed; 22] = [
    required("trace_id", Kind::Id16),
    required("span_id", Kind::Id8),
    required("start_unix_nano", Kind::Uint),
    optional("flags", Kind::Uint),
    optional("scope_name", Kind::Text),
    optional("scope_version", Kind::Text),
    optional("scope_schema_url", Kind::Text),
    optional("scope_dropped_attributes_count", Kind::Uint),
    optional("resource_schema_url", Kind::Text),
    optional("dropped_attributes_count", Kind::Uint),
    optional("rest:json", Kind::Json),
    optional("parent_span_id", Kind::Id8),
    required("name", Kind::Text),
    required("kind", Kind::Uint),
    required("duration_ns", Kind::Int),
    required("status_code", Kind::Uint),
    optional("status_message", Kind::Text),
    optional("trace_state", Kind::Text),
    optional("events:json", Kind::Json),
    optional("links:json", Kind::Json),
    optional("dropped_events_count", Kind::Uint),
    optional("dropped_links_count", Kind::Uint),
];

static LOG_COLUMNS: [Fixed; 22] = [
    optional("trace_id", Kind::Id16),
    optional("span_id", Kind::Id8),
    required("time_unix_nano", Kind::Uint),
    optional("flags", Kind::Uint),
    optional("scope_name", Kind::Text),
    optional("scope_version", Kind::Text),
    optional("scope_schema_url", Kind::Text),
    optional("scope_dropped_attributes_count", Kind::Uint),
    optional("resource_schema_url", Kind::Text),
    optional("dropped_attributes_count", Kind::Uint),
    optional("rest:json", Kind::Json),
    required("stream", Kind::Uint),
    optional("observed_unix_nano", Kind::Uint),
    required("severity_number", Kind::Uint),
    optional("severity_text", Kind::Text),
    optional("event_name", Kind::Text),
    optional("body", Kind::Text),
    optional("body:int", Kind::Int),
    optional("body:double", Kind::Double),
    optional("body:bool", Kind::Bool),
    optional("body:json", Kind::Json),
    optional("time_is_observed", Kind::Bool),
];

impl Dataset {
    /// The columns that the dataset has by itself, before attributes.
    pub(crate) fn fixed(self) -> &'static [Fixed] {
        match self {
            Dataset::Traces => &SPAN_COLUMNS,
            Dataset::Logs => &LOG_COLUMNS,
        }
    }

    /// The column that rows are dated by.
    pub(crate) fn time_column(self) -> &'static str {
        self.fixed()[fixed::TIME].name
    }
}

/// Where an attribute sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Level {
    Attr = 0,
    Resource = 1,
    Scope = 2,
    Body = 3,
}

impl Level {
    pub const fn prefix(self) -> &'static str {
        match self {
            Level::Attr => "attr.",
            Level::Resource => "resource.",
            Level::Scope => "scope.",
            Level::Body => "body.",
        }
    }

    /// The order in which a bare name is looked for.
    pub const BARE: [Level; 4] = [Level::Attr, Level::Body, Level::Resource, Level::Scope];
}

/// Suffix and kind of a typed column; text has none unless its key itself ends like one of these.
const SUFFIXES: [(&str, Kind); 6] = [
    (":int", Kind::Int),
    (":double", Kind::Double),
    (":bool", Kind::Bool),
    (":json", Kind::Json),
    (":str", Kind::Text),
    (":trace_id", Kind::TraceHex),
];

/// The physical name of an attribute's column.
pub fn column_name(level: Level, key: &str, kind: Kind) -> String {
    let suffix = match kind {
        Kind::Int => ":int",
        Kind::Double => ":double",
        Kind::Bool => ":bool",
        Kind::Json => ":json",
        Kind::TraceHex => ":trace_id",
        _ if SUFFIXES.iter().any(|(suffix, _)| key.ends_with(suffix)) => ":str",
        _ => "",
    };
    format!("{}{key}{suffix}", level.prefix())
}

/// Level, key and kind of an attribute's column; `None` for one of the dataset's own.
pub fn parse_column_name(name: &str) -> Option<(Level, &str, Kind)> {
    let (level, rest) = Level::BARE
        .into_iter()
        .find_map(|level| Some((level, name.strip_prefix(level.prefix())?)))?;
    for (suffix, kind) in SUFFIXES {
        if let Some(key) = rest.strip_suffix(suffix) {
            return Some((level, key, kind));
        }
    }
    Some((level, rest, Kind::Text))
}

/// The value that a word of a column stands for.
pub fn word_value(kind: Kind, word: u64) -> Value {
    match kind {
        Kind::Double => Value::Double(f64::from_bits(word)),
        Kind::Bool => Value::Bool(word != 0),
        _ => Value::Int(word as i64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_even_where_a_key_ends_like_a_suffix() {
        for key in ["http.method", "a:int", "a:str", "x:json:int", "", ":bool"] {
            for kind in [
                Kind::Text,
                Kind::Int,
                Kind::Double,
                Kind::Bool,
                Kind::Json,
                Kind::TraceHex,
            ] {
                for level in Level::BARE {
                    let name = column_name(level, key, kind);
                    assert_eq!(parse_column_name(&name), Some((level, key, kind)), "{name}");
                }
            }
        }
        assert_eq!(column_name(Level::Attr, "a:int", Kind::Text), "attr.a:int:str");
    }

    #[test]
    fn own_columns_lie_where_their_indices_say() {
        let spans = Dataset::Traces.fixed();
        assert_eq!(spans[fixed::PARENT].name, "parent_span_id");
        assert_eq!(spans[fixed::DROPPED_LINKS].name, "dropped_links_count");
        assert_eq!(spans[fixed::TIME].name, "start_unix_nano");
        assert_eq!(spans[fixed::STATUS_MESSAGE].name, "status_message");
        let logs = Dataset::Logs.fixed();
        assert_eq!(logs[fixed::BODY_JSON].name, "body:json");
        assert_eq!(logs[fixed::REST].name, "rest:json");
        assert_eq!(logs[fixed::STREAM].name, "stream");
    }
}
