//! One line of a log as one record. A line that is JSON in our log schema (`docs/log-schema.md`, SPEC §3) says itself when it was written, how bad it is
//! and whose request it belongs to; it becomes the record that the service's SDK would have sent over OTLP, under the same names. Any other line is a body.
//!
//! In between stands a [`Record`], so that what parses lines in other ways can fill one too.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use model::canonical::MAX_VALUE_DEPTH;
use model::instant::{NANOS_PER_SECOND, parse_rfc3339};
use model::wire::{
    self, BYTES, FIXED64, VARINT, close_length, open_length, put_bytes, put_fixed32, put_fixed64, put_tag, put_varint,
};
use model::{SpanId, TraceId};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Fields of one line at most, all levels together. The schema allows 900; what has several times as many is data rather than a log line, and stays text.
const MAX_FIELDS: u32 = 4_096;

/// What the names of the objects that fields lie in may take, written out for each field, in lengths of the line. Real lines stay below one; what is far
/// above it is a large name over many fields, and stays text.
const MAX_NAMES_OF_LINE: usize = 8;

/// What our SDK writes where a line belongs to no trace.
const NO_TRACE: &str = "no-trace";

/// A JSON value whose texts are those of the line where nothing in them is escaped.
#[derive(Debug, Clone, PartialEq)]
pub enum Json<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Cow<'a, str>),
    List(Vec<Json<'a>>),
    Object(Members<'a>),
}

/// The members of an object, in their order.
pub type Members<'a> = Vec<(Cow<'a, str>, Json<'a>)>;

impl<'a> Json<'a> {
    /// Reads a JSON object; `None` for everything else, and for what is larger or deeper than a log line has a use for.
    pub fn object(text: &'a str) -> Option<Members<'a>> {
        let left = Cell::new(MAX_FIELDS);
        let mut reader = serde_json::Deserializer::from_str(text);
        let seed = Seed { left: &left, depth: 0 };
        let value = seed.deserialize(&mut reader).ok()?;
        reader.end().ok()?;
        match value {
            Json::Object(members) => Some(members),
            _ => None,
        }
    }

    pub fn as_text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The same without a borrow of the line.
    pub fn into_owned(self) -> Json<'static> {
        match self {
            Json::Null => Json::Null,
            Json::Bool(truth) => Json::Bool(truth),
            Json::Int(number) => Json::Int(number),
            Json::Double(number) => Json::Double(number),
            Json::Text(text) => Json::Text(text.into_owned().into()),
            Json::List(values) => Json::List(values.into_iter().map(Json::into_owned).collect()),
            Json::Object(members) => Json::Object(owned(members)),
        }
    }

    /// Appends the fields of an OTLP `AnyValue`.
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Json::Null => {}
            Json::Text(text) => put_bytes(out, 1, text.as_bytes()),
            Json::Bool(truth) => {
                put_tag(out, 2, VARINT);
                put_varint(out, u64::from(*truth));
            }
            Json::Int(number) => {
                put_tag(out, 3, VARINT);
                put_varint(out, *number as u64);
            }
            Json::Double(number) => {
                put_tag(out, 4, FIXED64);
                out.extend_from_slice(&number.to_le_bytes());
            }
            Json::List(values) => {
                put_tag(out, 5, BYTES);
                let list = open_length(out, 0);
                for value in values {
                    put_tag(out, 1, BYTES);
                    let open = open_length(out, 0);
                    value.write(out);
                    close_length(out, open);
                }
                close_length(out, list);
            }
            Json::Object(members) => {
                put_tag(out, 6, BYTES);
                let map = open_length(out, 0);
                write_attributes(1, members, out);
                close_length(out, map);
            }
        }
    }
}

/// The same without a borrow of the line.
pub fn owned(members: Members<'_>) -> Members<'static> {
    let pairs = members.into_iter();
    pairs
        .map(|(key, value)| (key.into_owned().into(), value.into_owned()))
        .collect()
}

/// Appends `KeyValue`s under this field number.
pub fn write_attributes(number: u32, members: &[(Cow<'_, str>, Json<'_>)], out: &mut Vec<u8>) {
    for (key, value) in members {
        put_tag(out, number, BYTES);
        let pair = open_length(out, 0);
        put_bytes(out, 1, key.as_bytes());
        put_tag(out, 2, BYTES);
        let open = open_length(out, 0);
        value.write(out);
        close_length(out, open);
        close_length(out, pair);
    }
}

/// Reads a value; fields are counted over the whole document.
#[derive(Clone, Copy)]
struct Seed<'c> {
    left: &'c Cell<u32>,
    depth: u32,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Json<'de>, D::Error> {
        reader.deserialize_any(self)
    }
}

impl Seed<'_> {
    /// What stands one level deeper.
    fn below<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth + 1;
        match depth < MAX_VALUE_DEPTH {
            true => Ok(Seed { depth, ..self }),
            false => Err(E::custom("values nest too deep")),
        }
    }

    fn count<E: Error>(self) -> Result<(), E> {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        match left {
            0 => Err(E::custom("too many fields")),
            _ => Ok(()),
        }
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(truth))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Json<'de>, E> {
        Ok(Json::Int(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Json<'de>, E> {
        // As the SDK does with what OTLP's integers cannot hold.
        Ok(i64::try_from(number).map_or_else(|_| Json::Text(number.to_string().into()), Json::Int))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Json<'de>, E> {
        Ok(Json::Double(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Json<'de>, S::Error> {
        let below = self.below()?;
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(below)? {
            self.count()?;
            values.push(value);
        }
        Ok(Json::List(values))
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Json<'de>, M::Error> {
        let below = self.below()?;
        let mut members = Vec::new();
        while let Some(key) = map.next_key_seed(Key)? {
            self.count()?;
            members.push((key, map.next_value_seed(below)?));
        }
        Ok(Json::Object(members))
    }
}

struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }
}

/// A log record before it is encoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Record<'a> {
    /// When it was written, in ns since 1970; 0 where it does not say.
    pub time_unix_nano: u64,
    /// OTLP's number, 1 to 24; 0 for unknown.
    pub severity_number: u8,
    /// As it was written.
    pub severity_text: Cow<'a, str>,
    pub body: Json<'a>,
    pub attributes: Members<'a>,
    /// What the line says of where it comes from.
    pub resource: Members<'a>,
    pub trace_id: Option<TraceId>,
    pub span_id: Option<SpanId>,
    pub flags: u32,
}

impl<'a> Record<'a> {
    /// A line that says nothing of itself.
    pub fn plain(line: impl Into<Cow<'a, str>>) -> Record<'a> {
        Record {
            time_unix_nano: 0,
            severity_number: 0,
            severity_text: Cow::Borrowed(""),
            body: Json::Text(line.into()),
            attributes: Vec::new(),
            resource: Vec::new(),
            trace_id: None,
            span_id: None,
            flags: 0,
        }
    }

    /// A line as what it is: a record of the schema, or text.
    pub fn of_line(line: &'a str) -> Record<'a> {
        Record::of_schema(line).unwrap_or_else(|| Record::plain(line))
    }

    /// Where the body is a line in the log schema, the record becomes what that says; what it was told before is kept beside it.
    pub fn read_body(&mut self) {
        let read = match &self.body {
            Json::Text(Cow::Borrowed(line)) => Record::of_schema(line),
            Json::Text(Cow::Owned(line)) => Record::of_schema(line).map(Record::into_owned),
            _ => None,
        };
        let Some(mut read) = read else { return };
        if read.time_unix_nano == 0 {
            read.time_unix_nano = self.time_unix_nano;
        }
        let (attributes, resource) = (std::mem::take(&mut self.attributes), std::mem::take(&mut self.resource));
        for (before, now) in [(attributes, &mut read.attributes), (resource, &mut read.resource)] {
            // Both may have thousands.
            let known: HashSet<&str> = now.iter().map(|(key, _)| key.as_ref()).collect();
            let new = before.into_iter().filter(|(key, _)| !known.contains(key.as_ref()));
            let new: Members<'a> = new.collect();
            now.extend(new);
        }
        *self = read;
    }

    /// The same without a borrow of the line.
    pub fn into_owned(self) -> Record<'static> {
        Record {
            severity_text: self.severity_text.into_owned().into(),
            body: self.body.into_owned(),
            attributes: owned(self.attributes),
            resource: owned(self.resource),
            ..self
        }
    }

    /// A line in the log schema: JSON with a message, and a time or a level.
    pub fn of_schema(line: &'a str) -> Option<Record<'a>> {
        if !line.trim_start().starts_with('{') {
            return None;
        }
        let members = Json::object(line)?;
        let mut record = Record::plain("");
        let mut has_message = false;
        let mut ids = Ids::default();
        let mut kept = Vec::with_capacity(members.len());
        for (key, value) in members {
            match (key.as_ref(), value) {
                ("@message" | "message", Json::Text(text)) if !has_message => {
                    has_message = true;
                    record.body = Json::Text(text);
                }
                ("@message" | "message", value) if record.body == value => {}
                ("@timestamp" | "timestamp", value) => match instant(&value) {
                    Some(time) if matches!(record.time_unix_nano, 0) || record.time_unix_nano == time => {
                        record.time_unix_nano = time;
                    }
                    _ => kept.push((key, value)),
                },
                ("@level" | "level", Json::Text(text)) if record.severity_text.is_empty() => {
                    record.severity_number = severity(text.as_bytes());
                    record.severity_text = text;
                }
                ("@level" | "level", Json::Text(text)) if record.severity_text == text => {}
                ("service", text @ Json::Text(_)) => record.resource.push(("service.name".into(), text)),
                ("environment", text @ Json::Text(_)) => {
                    // Both names, as the SDK sets them.
                    record.resource.push(("deployment.environment".into(), text.clone()));
                    record.resource.push(("deployment.environment.name".into(), text));
                }
                ("tracking_id" | "traceId" | "trace_id", Json::Text(text)) => {
                    if !ids.trace(&text) {
                        kept.push((key, Json::Text(text)));
                    }
                }
                ("spanId" | "span_id", Json::Text(text)) => {
                    if !ids.span(&text) {
                        kept.push((key, Json::Text(text)));
                    }
                }
                ("tracing", Json::Object(members)) => {
                    for (name, value) in members {
                        let is_known = match (name.as_ref(), value.as_text()) {
                            ("trace_id", Some(text)) => ids.trace(text),
                            ("span_id", Some(text)) => ids.span(text),
                            _ => false,
                        };
                        if !is_known {
                            kept.push((format!("tracing.{name}").into(), value));
                        }
                    }
                }
                ("source", Json::Object(members)) => source(members, &mut kept),
                ("@logger", value) => kept.push(("logger".into(), value)),
                ("@thread", value) => kept.push(("thread.name".into(), value)),
                (_, value) => kept.push((key, value)),
            }
        }
        if !has_message || (record.time_unix_nano == 0 && record.severity_text.is_empty()) {
            return None;
        }
        record.trace_id = ids.trace_id;
        record.span_id = ids.span_id;
        let mut left_bytes = line.len() * MAX_NAMES_OF_LINE;
        for (key, value) in kept {
            flatten(key, value, &mut left_bytes, &mut record.attributes)?;
        }
        without_derived(&mut record.attributes);
        Some(record)
    }

    /// Appends the fields of an OTLP `LogRecord`. `more` are attributes that are encoded already, as `LogRecord` has them.
    pub fn write(&self, observed_unix_nano: u64, more: &[u8], out: &mut Vec<u8>) {
        if self.time_unix_nano > 0 {
            put_fixed64(out, 1, self.time_unix_nano);
        }
        if self.severity_number > 0 {
            put_tag(out, 2, VARINT);
            put_varint(out, u64::from(self.severity_number));
        }
        if !self.severity_text.is_empty() {
            put_bytes(out, 3, self.severity_text.as_bytes());
        }
        put_tag(out, 5, BYTES);
        let body = open_length(out, self.body.as_text().map_or(0, str::len));
        self.body.write(out);
        close_length(out, body);
        write_attributes(6, &self.attributes, out);
        out.extend_from_slice(more);
        if self.flags > 0 {
            put_fixed32(out, 8, self.flags);
        }
        if let Some(id) = self.trace_id {
            put_bytes(out, 9, &id.0);
        }
        if let Some(id) = self.span_id {
            put_bytes(out, 10, &id.0);
        }
        put_fixed64(out, 11, observed_unix_nano);
    }
}

/// The ids that a line gives, under whichever names.
#[derive(Default)]
struct Ids {
    trace_id: Option<TraceId>,
    span_id: Option<SpanId>,
}

impl Ids {
    /// Whether the text says nothing that the record would not say.
    fn trace(&mut self, text: &str) -> bool {
        match trace_id(text) {
            Some(id) => *self.trace_id.get_or_insert(id) == id,
            None => text == NO_TRACE || text.is_empty(),
        }
    }

    fn span(&mut self, text: &str) -> bool {
        match SpanId::from_hex(text).ok().filter(|id| !id.is_zero()) {
            Some(id) => *self.span_id.get_or_insert(id) == id,
            None => text == NO_TRACE || text.is_empty(),
        }
    }
}

/// 32 hex digits, or a UUID with its dashes, as old records have them.
pub fn trace_id(text: &str) -> Option<TraceId> {
    let id = match text.len() {
        36 => TraceId::parse(text),
        _ => TraceId::from_hex(text),
    };
    id.ok().filter(|id| !id.is_zero())
}

/// RFC 3339; or a number of seconds, milliseconds, microseconds or nanoseconds since 1970, which their sizes tell apart for all times since 1973.
pub fn instant(value: &Json<'_>) -> Option<u64> {
    match value {
        Json::Text(text) => parse_rfc3339(text),
        Json::Int(number) => {
            let number = u64::try_from(*number).ok().filter(|number| *number > 0)?;
            match number {
                0..100_000_000_000 => number.checked_mul(NANOS_PER_SECOND),
                100_000_000_000..100_000_000_000_000 => number.checked_mul(1_000_000),
                100_000_000_000_000..100_000_000_000_000_000 => number.checked_mul(1_000),
                _ => Some(number),
            }
        }
        Json::Double(seconds) if *seconds > 0.0 && *seconds < 1e11 => Some((*seconds * 1e9) as u64),
        _ => None,
    }
}

/// `source` under OpenTelemetry's names, which the SDK sends too.
fn source<'a>(members: Members<'a>, kept: &mut Members<'a>) {
    for (name, value) in members {
        let key = match name.as_ref() {
            "pathname" => Cow::Borrowed("code.file.path"),
            "line" => Cow::Borrowed("code.line.number"),
            "function" => Cow::Borrowed("code.function.name"),
            other => Cow::Owned(format!("source.{other}")),
        };
        kept.push((key, value));
    }
}

/// Members of an object become attributes with a dot in their names, as the SDK sends them. `None` where the objects' names take more than what is left.
fn flatten<'a>(key: Cow<'a, str>, value: Json<'a>, left_bytes: &mut usize, out: &mut Members<'a>) -> Option<()> {
    match value {
        Json::Object(members) if !members.is_empty() => {
            for (name, value) in members {
                *left_bytes = left_bytes.checked_sub(key.len())?;
                flatten(format!("{key}.{name}").into(), value, left_bytes, out)?;
            }
        }
        value => out.push((key, value)),
    }
    Some(())
}

/// Takes out what the schema says twice: `file` and `source.filename` are the end of the path, `source.module` is the logger.
fn without_derived(attributes: &mut Members<'_>) {
    let text = |attributes: &Members<'_>, wanted: &str| {
        let found = attributes.iter().find(|(key, _)| key == wanted);
        found.and_then(|(_, value)| value.as_text()).map(str::to_owned)
    };
    let (Some(path), logger) = (text(attributes, "code.file.path"), text(attributes, "logger")) else {
        return;
    };
    let name = path.rsplit(['/', '\\']).next().unwrap_or(&path);
    let number = attributes.iter().find_map(|(key, value)| match value {
        Json::Int(number) if key == "code.line.number" => Some(*number),
        _ => None,
    });
    let place = number.map(|number| format!("{name}:{number}"));
    attributes.retain(|(key, value)| match key.as_ref() {
        "source.filename" => value.as_text() != Some(name),
        "file" => value.as_text().map(str::to_owned) != place,
        "source.module" => value.as_text().map(str::to_owned) != logger,
        _ => true,
    });
}

/// The first number of the severity that a word means; 0 for none.
pub fn severity(word: &[u8]) -> u8 {
    let is = |words: &[&str]| words.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(word));
    [
        (1, &["trace"][..]),
        (5, &["debug", "dbg"]),
        (9, &["info", "information", "informational", "notice"]),
        (13, &["warn", "warning"]),
        (17, &["error", "err", "eror"]),
        (
            21,
            &["fatal", "critical", "crit", "panic", "alert", "emerg", "emergency"],
        ),
    ]
    .iter()
    .find(|(_, words)| is(words))
    .map_or(0, |(number, _)| *number)
}

/// An OTLP request of log records under construction: records of one resource that follow each other share it.
#[derive(Debug, Default)]
pub struct Request {
    out: Vec<u8>,
    /// The resource's attributes that are open, encoded.
    resource: Vec<u8>,
    open: Option<[wire::OpenLength; 2]>,
    /// The next record's.
    next: Vec<u8>,
    records: u32,
}

impl Request {
    /// `resource` are attributes that all lines have besides their own, encoded as `Resource` has them; what a line says itself goes before them.
    pub fn push(&mut self, record: &Record<'_>, resource: &[u8], observed_unix_nano: u64, more: &[u8]) {
        self.next.clear();
        // The last of two attributes with one key counts.
        self.next.extend_from_slice(resource);
        write_attributes(1, &record.resource, &mut self.next);
        if self.open.is_none() || self.next != self.resource {
            self.end();
            std::mem::swap(&mut self.resource, &mut self.next);
            put_tag(&mut self.out, 1, BYTES);
            let group = open_length(&mut self.out, 0);
            put_bytes(&mut self.out, 1, &self.resource);
            put_tag(&mut self.out, 2, BYTES);
            let scope = open_length(&mut self.out, 0);
            self.open = Some([group, scope]);
        }
        put_tag(&mut self.out, 2, BYTES);
        let open = open_length(&mut self.out, 256);
        record.write(observed_unix_nano, more, &mut self.out);
        close_length(&mut self.out, open);
        self.records += 1;
    }

    pub fn records(&self) -> u32 {
        self.records
    }

    pub fn len(&self) -> usize {
        self.out.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    fn end(&mut self) {
        if let Some([group, scope]) = self.open.take() {
            close_length(&mut self.out, scope);
            close_length(&mut self.out, group);
        }
    }

    /// The request, which is legal protobuf but not yet canonical.
    pub fn finish(mut self) -> Vec<u8> {
        self.end();
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes<'r>(record: &'r Record<'_>) -> Vec<(&'r str, &'r Json<'r>)> {
        let pairs = record.attributes.iter();
        pairs.map(|(key, value)| (key.as_ref(), value)).collect()
    }

    #[test]
    fn a_line_of_the_schema_is_what_the_sdk_would_have_sent() {
        let line = r#"{"@timestamp":"2026-11-20T19:04:05.123Z","@level":"ERROR","@message":"it \"broke\"","@logger":"shop::cart","@thread":"worker-1",
            "timestamp":"2026-11-20T19:04:05.123Z","level":"ERROR","message":"it \"broke\"","service":"shop","environment":"prod",
            "tracking_id":"0af7651916cd43dd8448eb211c80319c","traceId":"0af7651916cd43dd8448eb211c80319c","file":"cart.rs:12",
            "source":{"module":"shop::cart","function":"buy","line":12,"filename":"cart.rs","pathname":"src/cart.rs"},
            "tracing":{"trace_id":"0af7651916cd43dd8448eb211c80319c","span_id":"b7ad6b7169203331"},
            "request":{"method":"GET","duration":0.5},"items":[1,"two",null],"big":18446744073709551615}"#;
        let record = Record::of_schema(line).unwrap();
        assert_eq!(record.time_unix_nano, 1_795_201_445_123_000_000);
        assert_eq!((record.severity_number, record.severity_text.as_ref()), (17, "ERROR"));
        assert_eq!(record.body.as_text(), Some("it \"broke\""));
        assert_eq!(record.trace_id.unwrap().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(record.span_id.unwrap().to_string(), "b7ad6b7169203331");
        let resource: Vec<&str> = record.resource.iter().map(|(key, _)| key.as_ref()).collect();
        assert_eq!(
            resource,
            ["service.name", "deployment.environment", "deployment.environment.name"]
        );
        assert_eq!(
            attributes(&record),
            [
                ("logger", &Json::Text("shop::cart".into())),
                ("thread.name", &Json::Text("worker-1".into())),
                ("code.function.name", &Json::Text("buy".into())),
                ("code.line.number", &Json::Int(12)),
                ("code.file.path", &Json::Text("src/cart.rs".into())),
                ("request.method", &Json::Text("GET".into())),
                ("request.duration", &Json::Double(0.5)),
                (
                    "items",
                    &Json::List(vec![Json::Int(1), Json::Text("two".into()), Json::Null])
                ),
                ("big", &Json::Text("18446744073709551615".into())),
            ]
        );
    }

    #[test]
    fn old_ids_have_dashes_and_no_trace_is_none() {
        let id = |text: &str| {
            Record::of_line(&format!(r#"{{"level":"INFO","message":"m","tracking_id":"{text}"}}"#)).trace_id
        };
        assert_eq!(
            id("0af76519-16cd-43dd-8448-eb211c80319c").unwrap().to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        assert_eq!(id("no-trace"), None);
        let odd = r#"{"level":"INFO","message":"m","tracking_id":"order 17","traceId":"no-trace"}"#;
        assert_eq!(
            attributes(&Record::of_line(odd)),
            [("tracking_id", &Json::Text("order 17".into()))]
        );
    }

    #[test]
    fn what_differs_under_two_names_is_kept() {
        let line = r#"{"@level":"WARN","level":"warning","@message":"a","message":"b","timestamp":5000000000,"@timestamp":"soon",
            "traceId":"0af7651916cd43dd8448eb211c80319c","tracking_id":"0af7651916cd43dd8448eb211c80319d"}"#;
        let record = Record::of_schema(line).unwrap();
        assert_eq!(record.time_unix_nano, 5_000_000_000_000_000_000);
        let keys: Vec<&str> = record.attributes.iter().map(|(key, _)| key.as_ref()).collect();
        assert_eq!(keys, ["level", "message", "@timestamp", "tracking_id"]);
    }

    #[test]
    fn anything_else_is_text() {
        let deep = format!(
            r#"{{"level":"INFO","message":"m","x":{}1{}}}"#,
            "[".repeat(40),
            "]".repeat(40)
        );
        let wide = format!(r#"{{"level":"INFO","message":"m","x":[{}1]}}"#, "1,".repeat(5_000));
        for line in [
            "",
            "plain text",
            "{",
            "{}",
            r#"{"message":"no time, no level"}"#,
            r#"{"level":"INFO","timestamp":"2026-11-20T19:04:05Z"}"#,
            r#"{"level":"INFO","message":"m"} and more"#,
            r#"{"level":"INFO","message":{"a":1}}"#,
            &deep,
            &wide,
        ] {
            assert_eq!(Record::of_line(line), Record::plain(line), "{line}");
        }
    }

    #[test]
    fn a_long_name_over_many_fields_is_not_written_before_each() {
        let fields: Vec<String> = (0..4_000).map(|number| format!(r#""{number}":0"#)).collect();
        let line = |name: &str| format!(r#"{{"level":"INFO","message":"m","{name}":{{{}}}}}"#, fields.join(","));
        let usual = line("kubernetes.labels");
        assert_eq!(Record::of_line(&usual).attributes.len(), 4_000);
        let long = line(&"n".repeat(100_000));
        assert_eq!(Record::of_line(&long), Record::plain(&long));
    }

    #[test]
    fn numbers_are_times_by_their_size() {
        for (number, nanos) in [
            (1_700_000_000, 1_700_000_000_000_000_000),
            (1_700_000_000_123, 1_700_000_000_123_000_000),
            (1_700_000_000_123_456, 1_700_000_000_123_456_000),
            (1_700_000_000_123_456_789, 1_700_000_000_123_456_789),
        ] {
            assert_eq!(instant(&Json::Int(number)), Some(nanos));
        }
        assert_eq!(instant(&Json::Int(-1)), None);
        assert_eq!(instant(&Json::Double(1.5)), Some(1_500_000_000));
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_line_is_it_becomes_one_record(
            line in r#"(\{("(@?level|@?message|@?timestamp|traceId|tracking_id|source|tracing|service|a|b)":("[a-z0-9]{0,32}"|-?[0-9]{1,20}|[0-9]e[0-9]{1,3}|\{"[a-c]":[0-9]\}|\[[0-9],null\]|null|true),?){0,8}\}|.{0,40})"#,
        ) {
            let mut request = Request::default();
            request.push(&Record::of_line(&line), &[], 1, &[]);
            let canonical = model::canonical::canonicalize(model::Signal::Logs, request.finish().into());
            proptest::prop_assert_eq!(canonical.map(|canonical| canonical.items), Ok(1));
        }
    }
}
