//! Push requests to OTLP logs: the labels of a stream become its resource, a line a body, structured metadata attributes.

use std::borrow::Cow;
use std::fmt;

use model::wire::{
    self, BYTES, Payload, VARINT, close_length, open_length, put_bytes, put_fixed32, put_fixed64, put_tag, put_varint,
};
use model::{SpanId, TraceId};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::NANOS;
use super::selector::{Label, parse};
use crate::log_line::severity;

/// Labels that name the service, the best first.
const SERVICE: [&str; 3] = ["service_name", "service", "job"];

/// Labels and metadata that tell a severity.
const LEVEL: [&str; 5] = ["level", "severity", "severity_text", "detected_level", "lvl"];

const TRACE_ID: [&str; 4] = ["trace_id", "traceid", "traceID", "traceId"];
const SPAN_ID: [&str; 4] = ["span_id", "spanid", "spanID", "spanId"];

/// Labels of one stream at most; Loki itself takes fifteen.
const MAX_LABELS: usize = 1_000;

/// Why a push is not what it should be, in Loki's words where it has some.
#[derive(Debug, thiserror::Error)]
pub enum BadPush {
    #[error("malformed push request: {0} is no protobuf")]
    Protobuf(&'static str),
    #[error("malformed push request: {0}")]
    Json(#[from] serde_json::Error),
    #[error("error parsing labels {labels}: {what}")]
    Labels { labels: String, what: &'static str },
}

/// Translates a `logproto.PushRequest`, unpacked, to an OTLP request, which is legal protobuf but not yet canonical.
pub fn from_protobuf(message: &[u8], now_unix_nano: u64) -> Result<Vec<u8>, BadPush> {
    let mut out = Output::new(message.len(), now_unix_nano);
    for field in fields(message, "PushRequest") {
        if let (1, Payload::Bytes(stream)) = field? {
            let mut selector: &[u8] = b"{}";
            for field in fields(stream, "StreamAdapter") {
                if let (1, Payload::Bytes(bytes)) = field? {
                    selector = bytes;
                }
            }
            let text = String::from_utf8_lossy(selector);
            let labels = parse(&text, MAX_LABELS).map_err(|what| BadPush::Labels {
                labels: text.chars().take(200).collect(),
                what,
            })?;
            out.begin(&labels);
            let level = level_of(&labels);
            for field in fields(stream, "StreamAdapter") {
                if let (2, Payload::Bytes(entry)) = field? {
                    read_entry(entry, level, &mut out)?;
                }
            }
            out.end();
        }
    }
    Ok(out.out)
}

/// Translates the JSON of the push API.
pub fn from_json(text: &[u8], now_unix_nano: u64) -> Result<Vec<u8>, BadPush> {
    let mut out = Output::new(text.len(), now_unix_nano);
    let mut reader = serde_json::Deserializer::from_slice(text);
    Place::Request(&mut out).deserialize(&mut reader)?;
    reader.end()?;
    Ok(out.out)
}

/// Walks a message; the first mistake is the last thing told.
fn fields<'a>(rest: &'a [u8], what: &'static str) -> impl Iterator<Item = Result<(u64, Payload<'a>), BadPush>> {
    wire::strict_fields(rest).map(move |field| field.ok_or(BadPush::Protobuf(what)))
}

fn read_entry(entry: &[u8], level: u64, out: &mut Output) -> Result<(), BadPush> {
    let (mut time, mut line): (u64, &[u8]) = (0, &[]);
    for field in fields(entry, "EntryAdapter") {
        match field? {
            (1, Payload::Bytes(bytes)) => {
                let (mut seconds, mut nanos) = (0, 0);
                for field in fields(bytes, "Timestamp") {
                    match field? {
                        (1, Payload::Varint(value)) => seconds = value as i64,
                        (2, Payload::Varint(value)) => nanos = value as i64,
                        _ => {}
                    }
                }
                let whole = i128::from(seconds) * i128::from(NANOS) + i128::from(nanos);
                time = u64::try_from(whole.max(0)).unwrap_or(u64::MAX);
            }
            (2, Payload::Bytes(bytes)) => line = bytes,
            _ => {}
        }
    }
    let open = out.begin_record(time, line);
    let mut told = Told {
        level,
        ..Told::default()
    };
    for field in fields(entry, "EntryAdapter") {
        if let (3, Payload::Bytes(pair)) = field? {
            let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
            for field in fields(pair, "LabelPairAdapter") {
                match field? {
                    (1, Payload::Bytes(bytes)) => name = bytes,
                    (2, Payload::Bytes(bytes)) => value = bytes,
                    _ => {}
                }
            }
            told.hear(&mut out.out, name, value);
        }
    }
    out.end_record(open, &told);
    Ok(())
}

/// The request being written.
struct Output {
    out: Vec<u8>,
    now_unix_nano: u64,
    open: Vec<wire::OpenLength>,
    expected: usize,
}

impl Output {
    fn new(expected: usize, now_unix_nano: u64) -> Self {
        Self {
            out: Vec::with_capacity(expected + expected / 4),
            now_unix_nano,
            open: Vec::new(),
            expected,
        }
    }

    /// Begins a stream.
    fn begin(&mut self, labels: &[Label<'_>]) {
        put_tag(&mut self.out, 1, BYTES);
        self.open.push(open_length(&mut self.out, self.expected));
        self.resource(labels);
        put_tag(&mut self.out, 2, BYTES);
        self.open.push(open_length(&mut self.out, self.expected));
    }

    fn resource(&mut self, labels: &[Label<'_>]) {
        put_tag(&mut self.out, 1, BYTES);
        let open = open_length(&mut self.out, 256);
        let find = |wanted: &&str| labels.iter().find(|(name, _)| name == wanted);
        if let Some((_, name)) = SERVICE.iter().find_map(find) {
            // What the exporter calls a job is a namespace and a name.
            let name = name.rsplit_once('/').map_or(name.as_ref(), |(_, name)| name);
            attribute(&mut self.out, 1, b"service.name", name.as_bytes());
        }
        for (name, value) in labels.iter().filter(|(name, _)| name != "service_name") {
            attribute(&mut self.out, 1, name.as_bytes(), value.as_bytes());
        }
        close_length(&mut self.out, open);
    }

    fn end(&mut self) {
        while let Some(open) = self.open.pop() {
            close_length(&mut self.out, open);
        }
    }

    fn begin_record(&mut self, time_unix_nano: u64, line: &[u8]) -> wire::OpenLength {
        put_tag(&mut self.out, 2, BYTES);
        let open = open_length(&mut self.out, line.len() + 32);
        if time_unix_nano > 0 {
            put_fixed64(&mut self.out, 1, time_unix_nano);
        }
        put_tag(&mut self.out, 5, BYTES);
        let body = open_length(&mut self.out, line.len());
        put_bytes(&mut self.out, 1, line);
        close_length(&mut self.out, body);
        open
    }

    fn end_record(&mut self, open: wire::OpenLength, told: &Told) {
        put_fixed64(&mut self.out, 11, self.now_unix_nano);
        let severity = told.number.unwrap_or(told.level);
        if severity > 0 {
            put_tag(&mut self.out, 2, VARINT);
            put_varint(&mut self.out, severity);
        }
        if told.flags > 0 {
            put_fixed32(&mut self.out, 8, told.flags);
        }
        if let Some(id) = told.trace_id {
            put_bytes(&mut self.out, 9, &id.0);
        }
        if let Some(id) = told.span_id {
            put_bytes(&mut self.out, 10, &id.0);
        }
        close_length(&mut self.out, open);
    }
}

/// The severity that a stream's labels tell.
fn level_of(labels: &[Label<'_>]) -> u64 {
    let told = labels.iter().find(|(name, _)| LEVEL.contains(&name.as_ref()));
    told.map_or(0, |(_, value)| u64::from(severity(value.as_bytes())))
}

/// What structured metadata tells that OTLP has fields for.
#[derive(Default)]
struct Told {
    /// From a word.
    level: u64,
    /// As a number, which is exact.
    number: Option<u64>,
    flags: u32,
    trace_id: Option<TraceId>,
    span_id: Option<SpanId>,
}

impl Told {
    /// Takes what is one of these; else it is an attribute.
    fn hear(&mut self, out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
        let (key, text) = (
            std::str::from_utf8(name).unwrap_or_default(),
            std::str::from_utf8(value).unwrap_or_default(),
        );
        let id = |names: &[&str]| names.contains(&key);
        if id(&TRACE_ID)
            && let Some(id) = TraceId::from_hex(text).ok().filter(|id| !id.is_zero())
        {
            self.trace_id = Some(id);
        } else if id(&SPAN_ID)
            && let Some(id) = SpanId::from_hex(text).ok().filter(|id| !id.is_zero())
        {
            self.span_id = Some(id);
        } else if key == "severity_number"
            && let Some(number) = text.parse().ok().filter(|number| (1..=24).contains(number))
        {
            self.number = Some(number);
        } else if key == "flags"
            && let Ok(flags) = text.parse()
        {
            self.flags = flags;
        } else {
            // What a line says of itself goes before what its stream says.
            if LEVEL.contains(&key)
                && let known @ 1.. = severity(value)
            {
                self.level = u64::from(known);
            }
            attribute(out, 6, name, value);
        }
    }
}

fn attribute(out: &mut Vec<u8>, number: u32, key: &[u8], value: &[u8]) {
    let delimited = |len: usize| 1 + wire::varint_len(len as u64) + len;
    put_tag(out, number, BYTES);
    put_varint(out, (delimited(key.len()) + delimited(delimited(value.len()))) as u64);
    put_bytes(out, 1, key);
    put_tag(out, 2, BYTES);
    put_varint(out, delimited(value.len()) as u64);
    put_bytes(out, 1, value);
}

// ---- JSON: `{"streams": [{"stream": {…}, "values": [["time", "line", {…}], …]}]}`, read without a tree in between ----

/// The places in the document, each read with what it writes to.
enum Place<'o> {
    Request(&'o mut Output),
    Streams(&'o mut Output),
    Stream(&'o mut Output),
    /// Entries of a stream whose labels tell this severity.
    Values(&'o mut Output, u64),
    Entry(&'o mut Output, u64),
    Labels(&'o mut Vec<Label<'static>>),
    Metadata(&'o mut Output, &'o mut Told),
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        match self {
            Place::Streams(_) | Place::Values(..) | Place::Entry(..) => reader.deserialize_seq(self),
            _ => reader.deserialize_map(self),
        }
    }
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::Request(_) => "an object with `streams`",
            Place::Streams(_) => "a list of streams",
            Place::Stream(_) => "an object with `stream` and `values`",
            Place::Values(..) => "a list of entries",
            Place::Entry(..) => "an entry: [\"nanoseconds\", \"line\"], and structured metadata if there is any",
            Place::Labels(_) => "an object of labels",
            Place::Metadata(..) => "an object of structured metadata",
        })
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<(), S::Error> {
        match self {
            Place::Streams(out) => while seq.next_element_seed(Place::Stream(out))?.is_some() {},
            Place::Values(out, level) => while seq.next_element_seed(Place::Entry(out, level))?.is_some() {},
            Place::Entry(out, level) => {
                let short = || S::Error::custom("an entry has no time or no line");
                let time = seq.next_element::<Text<'_>>()?.ok_or_else(short)?.0;
                let time: i64 = time
                    .parse()
                    .map_err(|_| S::Error::custom("the time of an entry is not a number of nanoseconds in quotes"))?;
                let line = seq.next_element::<Text<'_>>()?.ok_or_else(short)?.0;
                let open = out.begin_record(u64::try_from(time).unwrap_or(0), line.as_bytes());
                let mut told = Told {
                    level,
                    ..Told::default()
                };
                seq.next_element_seed(Place::Metadata(out, &mut told))?;
                out.end_record(open, &told);
                while seq.next_element::<IgnoredAny>()?.is_some() {}
            }
            _ => return Err(S::Error::custom("an object is expected here")),
        }
        Ok(())
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        match self {
            Place::Request(out) => {
                while let Some(Text(key)) = map.next_key()? {
                    match key.as_ref() {
                        "streams" => map.next_value_seed(Place::Streams(out))?,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
            }
            Place::Stream(out) => {
                let (mut labels, mut records) = (Vec::new(), Vec::new());
                while let Some(Text(key)) = map.next_key()? {
                    match key.as_ref() {
                        "stream" => map.next_value_seed(Place::Labels(&mut labels))?,
                        "values" => {
                            // The labels may come behind the entries, so these are put aside.
                            let before = std::mem::take(&mut out.out);
                            let read = map.next_value_seed(Place::Values(out, level_of(&labels)));
                            records.append(&mut std::mem::replace(&mut out.out, before));
                            read?;
                        }
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                out.begin(&labels);
                out.out.extend_from_slice(&records);
                out.end();
            }
            Place::Labels(labels) => {
                while let Some((Text(name), Text(value))) = map.next_entry()? {
                    if labels.len() == MAX_LABELS {
                        return Err(M::Error::custom("a stream has too many labels"));
                    }
                    labels.push((name.into_owned().into(), value.into_owned().into()));
                }
            }
            Place::Metadata(out, told) => {
                while let Some((Text(name), Text(value))) = map.next_entry()? {
                    told.hear(&mut out.out, name.as_bytes(), value.as_bytes());
                }
            }
            _ => return Err(M::Error::custom("a list is expected here")),
        }
        Ok(())
    }
}

/// A text, borrowed from the document where nothing in it is escaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
