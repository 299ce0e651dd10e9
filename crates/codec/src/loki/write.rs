//! OTLP logs to push requests: streams are what has the same labels, in order of time.

use std::collections::HashMap;

use model::view::logs::{LogRecord, resource_logs};
use model::view::{AnyValue, Attributes, Resource, Scope};
use model::wire::{BYTES, VARINT, close_length, open_length, put_bytes, put_tag, put_varint};

use super::NANOS;
use super::labels::{Labels, write_name};
use super::line::{Whole, write_line};
use crate::{max_made_bytes, value_text};

/// Attributes that tell this exporter what to do. Source: README of the Collector's `loki` exporter, "Labels", "Tenant information", "Format".
const HINT_ATTRIBUTES: &str = "loki.attribute.labels";
const HINT_RESOURCE: &str = "loki.resource.labels";
const HINT_TENANT: &str = "loki.tenant";
const HINT_FORMAT: &str = "loki.format";

/// Names in one hint that become labels; the others are no hint. Loki takes 15 labels of a stream unless it is told otherwise.
const MAX_HINTED: usize = 100;

/// Levels by their severity number, four each.
const LEVELS: [&str; 6] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];

/// How a record becomes a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Logfmt,
    Raw,
}

/// How a push is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `logproto.PushRequest`, still to be packed with snappy.
    Protobuf,
    Json,
}

/// Labels that each record has without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultLabels {
    /// `exporter="OTLP"`.
    pub exporter: bool,
    /// `service.namespace` and `service.name`, with a slash between.
    pub job: bool,
    /// `service.instance.id`.
    pub instance: bool,
    /// From the severity.
    pub level: bool,
}

/// What is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub encoding: Encoding,
    /// Where no hint says otherwise.
    pub format: Format,
    pub default_labels: DefaultLabels,
    /// Ids, severity, scope and the attributes that are no labels go into structured metadata, not into the line.
    pub structured_metadata: bool,
    /// The time of records that have none, in nanoseconds since 1970.
    pub received_at_unix_nano: u64,
}

/// One push: one tenant's.
#[derive(Debug, PartialEq, Eq)]
pub struct Push {
    /// What the hint `loki.tenant` named; `None` where it did not.
    pub tenant: Option<String>,
    pub body: Vec<u8>,
    pub records: u32,
}

/// The pushes of a payload.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pushes {
    pub all: Vec<Push>,
    /// Records that are in none of them, because with what they share they are more than is made of one payload.
    pub rejected: u32,
}

pub(super) fn is_hint(key: &str) -> bool {
    key.starts_with("loki.") && matches!(key, HINT_ATTRIBUTES | HINT_RESOURCE | HINT_TENANT | HINT_FORMAT)
}

/// One stream while records are collected.
struct Stream {
    tenant: Option<String>,
    /// As the encoding has them.
    labels: Vec<u8>,
    /// The encoded entries, one after the other.
    entries: Vec<u8>,
    /// Time and end in `entries` of each.
    ends: Vec<(u64, usize)>,
}

/// The pushes that hand over a canonical payload of logs.
pub fn pushes(payload: &[u8], options: &Options) -> Pushes {
    let mut streams: Vec<Stream> = Vec::new();
    let (mut left_bytes, mut rejected) = (max_made_bytes(payload.len()), 0);
    // By tenant and labels, each with an end that no label contains.
    let mut known: HashMap<Vec<u8>, usize> = HashMap::new();
    let (mut labels, mut key, mut line) = (Labels::default(), Vec::new(), Vec::new());
    for group in resource_logs(payload) {
        let resource = group.owner();
        for scoped in group.list() {
            let scope = scoped.owner();
            // What labels, line and structured metadata of each record are made of, and looked up in.
            let shared_bytes = resource.raw.len() + scope.raw.len();
            for record in scoped.list() {
                if shared_bytes > left_bytes {
                    rejected += 1;
                    continue;
                }
                let tenant = collect(&mut labels, &resource, &record, &options.default_labels);
                let format = hinted_format(&resource, &record).unwrap_or(options.format);
                let whole = Whole {
                    record,
                    resource,
                    scope,
                };
                line.clear();
                write_line(format, &whole, &labels, left_bytes, &mut line);
                let made_bytes = shared_bytes + line.len();
                if made_bytes > left_bytes {
                    rejected += 1;
                    continue;
                }
                left_bytes -= made_bytes;
                key.clear();
                key.extend_from_slice(tenant.as_deref().unwrap_or_default().as_bytes());
                key.extend_from_slice(&[u8::from(tenant.is_some()), 0]);
                let from = key.len();
                match options.encoding {
                    Encoding::Protobuf => labels.write_selector(&mut key),
                    Encoding::Json => labels.write_json(&mut key),
                }
                let at = match known.get(&key) {
                    Some(at) => *at,
                    None => {
                        known.insert(key.clone(), streams.len());
                        streams.push(Stream {
                            tenant,
                            labels: key[from..].to_vec(),
                            entries: Vec::new(),
                            ends: Vec::new(),
                        });
                        streams.len() - 1
                    }
                };
                let time = [
                    record.time_unix_nano,
                    record.observed_unix_nano,
                    options.received_at_unix_nano,
                ]
                .into_iter()
                .find(|time| *time > 0)
                .unwrap_or_default();
                let metadata = options.structured_metadata.then_some((&whole, &labels));
                let stream = &mut streams[at];
                match options.encoding {
                    Encoding::Protobuf => protobuf_entry(&mut stream.entries, time, &line, metadata),
                    Encoding::Json => json_entry(&mut stream.entries, time, &line, metadata),
                }
                stream.ends.push((time, stream.entries.len()));
            }
        }
    }
    let all = by_tenant(streams, options.encoding);
    Pushes { all, rejected }
}

fn by_tenant(streams: Vec<Stream>, encoding: Encoding) -> Vec<Push> {
    let mut pushes: Vec<Push> = Vec::new();
    // Each record may name a tenant of its own.
    let mut known: HashMap<Option<String>, usize> = HashMap::new();
    for stream in streams {
        let at = *known.entry(stream.tenant.clone()).or_insert(pushes.len());
        if at == pushes.len() {
            let body = match encoding {
                Encoding::Protobuf => Vec::new(),
                Encoding::Json => b"{\"streams\":[".to_vec(),
            };
            pushes.push(Push {
                tenant: stream.tenant.clone(),
                body,
                records: 0,
            });
        }
        let push = &mut pushes[at];
        push.records += stream.ends.len() as u32;
        stream.write(encoding, &mut push.body);
    }
    for push in &mut pushes {
        if encoding == Encoding::Json {
            push.body.extend_from_slice(b"]}");
        }
    }
    pushes
}

impl Stream {
    /// The entries in order of time; those of one time stay in theirs.
    fn in_order(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = 0;
        let mut entries: Vec<_> = self
            .ends
            .iter()
            .map(|&(time, end)| {
                let start = std::mem::replace(&mut from, end);
                (time, &self.entries[start..end])
            })
            .collect();
        entries.sort_by_key(|(time, _)| *time);
        entries.into_iter().map(|(_, entry)| entry)
    }

    fn write(&self, encoding: Encoding, out: &mut Vec<u8>) {
        match encoding {
            Encoding::Protobuf => {
                put_tag(out, 1, BYTES);
                let open = open_length(out, self.labels.len() + self.entries.len());
                put_bytes(out, 1, &self.labels);
                for entry in self.in_order() {
                    out.extend_from_slice(entry);
                }
                close_length(out, open);
            }
            Encoding::Json => {
                if out.last() != Some(&b'[') {
                    out.push(b',');
                }
                out.extend_from_slice(b"{\"stream\":");
                out.extend_from_slice(&self.labels);
                out.extend_from_slice(b",\"values\":[");
                for (index, entry) in self.in_order().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(entry);
                }
                out.extend_from_slice(b"]}");
            }
        }
    }
}

/// Brings together the labels of a record, and its tenant if one is hinted at.
fn collect(
    labels: &mut Labels,
    resource: &Resource<'_>,
    record: &LogRecord<'_>,
    defaults: &DefaultLabels,
) -> Option<String> {
    labels.clear();
    let of_resource = &resource.attributes;
    if defaults.exporter {
        labels.set("exporter", &AnyValue::Str("OTLP"));
    }
    if defaults.job
        && let Some(name) = of_resource.get("service.name")
    {
        let namespace = of_resource.get("service.namespace");
        labels.set_with("job", |out| {
            if let Some(namespace) = namespace {
                value_text::write_text(&namespace, out);
                out.push(b'/');
            }
            value_text::write_text(&name, out);
        });
    }
    if defaults.instance
        && let Some(instance) = of_resource.get("service.instance.id")
    {
        labels.set("instance", &instance);
    }
    if defaults.level {
        let named = record.attributes.get("level");
        match (named, level(record.severity_number)) {
            (Some(level), _) => labels.set("level", &level),
            (None, Some(level)) => labels.set("level", &AnyValue::Str(level)),
            (None, None) => {}
        }
    }
    let mut tenant = None;
    for (hint, within, from) in [
        (HINT_RESOURCE, of_resource, of_resource),
        (HINT_RESOURCE, &record.attributes, of_resource),
        (HINT_ATTRIBUTES, &record.attributes, &record.attributes),
    ] {
        let Some(named) = within.get(hint) else { continue };
        each_name(&named, |name| {
            if let Some(value) = find(from, name) {
                labels.set(name, &value);
            }
        });
    }
    for attributes in [of_resource, &record.attributes] {
        if tenant.is_none()
            && let Some(named) = attributes.get(HINT_TENANT)
        {
            each_name(&named, |name| {
                if let Some(value) = find(attributes, name) {
                    labels.set(name, &value);
                    let mut text = Vec::new();
                    value_text::write_text(&value, &mut text);
                    tenant = String::from_utf8(text).ok();
                }
            });
        }
    }
    // Loki takes no stream without labels.
    if labels.is_empty() {
        labels.set("exporter", &AnyValue::Str("OTLP"));
    }
    labels.sort();
    tenant
}

fn level(severity_number: i32) -> Option<&'static str> {
    let index = usize::try_from(severity_number).ok()?.checked_sub(1)? / 4;
    LEVELS.get(index).copied()
}

/// The names of a hint: a list, or a text with commas.
fn each_name(hint: &AnyValue<'_>, visit: impl FnMut(&str)) {
    match hint {
        AnyValue::Str(text) => {
            let names = text.split(',').map(str::trim);
            names.filter(|name| !name.is_empty()).take(MAX_HINTED).for_each(visit);
        }
        AnyValue::Array(values) => {
            let values: Vec<AnyValue<'_>> = values.iter().take(MAX_HINTED).collect();
            values.iter().filter_map(AnyValue::as_str).for_each(visit);
        }
        _ => {}
    }
}

/// The value of a name, or of the way through maps that its dots say.
fn find<'a>(attributes: &Attributes<'a>, name: &str) -> Option<AnyValue<'a>> {
    attributes.get(name).or_else(|| {
        let (first, rest) = name.split_once('.')?;
        match attributes.get(first)? {
            AnyValue::KvList(within) => find(&within, rest),
            _ => None,
        }
    })
}

fn hinted_format(resource: &Resource<'_>, record: &LogRecord<'_>) -> Option<Format> {
    let hint = record
        .attributes
        .get_str(HINT_FORMAT)
        .or_else(|| resource.attributes.get_str(HINT_FORMAT))?;
    match hint {
        "json" => Some(Format::Json),
        "logfmt" => Some(Format::Logfmt),
        "raw" => Some(Format::Raw),
        _ => None,
    }
}

type Metadata<'m, 'a> = Option<(&'m Whole<'a>, &'m Labels)>;

fn protobuf_entry(out: &mut Vec<u8>, time_unix_nano: u64, line: &[u8], metadata: Metadata<'_, '_>) {
    put_tag(out, 2, BYTES);
    let entry = open_length(out, line.len() + 16);
    put_tag(out, 1, BYTES);
    let time = open_length(out, 0);
    for (number, part) in [(1, time_unix_nano / NANOS), (2, time_unix_nano % NANOS)] {
        if part > 0 {
            put_tag(out, number, VARINT);
            put_varint(out, part);
        }
    }
    close_length(out, time);
    put_bytes(out, 2, line);
    each_metadata(metadata, |name, value| {
        put_tag(out, 3, BYTES);
        let pair = open_length(out, name.len() + 16);
        put_tag(out, 1, BYTES);
        let key = open_length(out, name.len());
        write_name(name, out);
        close_length(out, key);
        put_tag(out, 2, BYTES);
        let text = open_length(out, 16);
        value_text::write_text(value, out);
        close_length(out, text);
        close_length(out, pair);
    });
    close_length(out, entry);
}

fn json_entry(out: &mut Vec<u8>, time_unix_nano: u64, line: &[u8], metadata: Metadata<'_, '_>) {
    out.extend_from_slice(b"[\"");
    value_text::write_number(i64::try_from(time_unix_nano).unwrap_or(i64::MAX), out);
    out.extend_from_slice(b"\",");
    value_text::write_json_text(std::str::from_utf8(line).unwrap_or_default(), out);
    if metadata.is_some() {
        out.extend_from_slice(b",{");
        let (mut first, mut key, mut text) = (true, Vec::new(), Vec::new());
        each_metadata(metadata, |name, value| {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            key.clear();
            write_name(name, &mut key);
            value_text::write_json_text(std::str::from_utf8(&key).unwrap_or_default(), out);
            out.push(b':');
            text.clear();
            value_text::write_text(value, &mut text);
            value_text::write_json_text(std::str::from_utf8(&text).unwrap_or_default(), out);
        });
        out.push(b'}');
    }
    out.push(b']');
}

/// What Loki itself keeps as structured metadata of an OTLP record, under the names that it uses.
fn each_metadata(metadata: Metadata<'_, '_>, mut visit: impl FnMut(&str, &AnyValue<'_>)) {
    let Some((whole, labels)) = metadata else { return };
    let record = &whole.record;
    for (name, id) in [
        ("trace_id", record.trace_id.map(|id| id.to_string())),
        ("span_id", record.span_id.map(|id| id.to_string())),
    ] {
        if let Some(id) = id {
            visit(name, &AnyValue::Str(&id));
        }
    }
    for (name, text) in [
        ("severity_text", record.severity_text),
        ("scope_name", whole.scope.name),
        ("scope_version", whole.scope.version),
    ] {
        if !text.is_empty() {
            visit(name, &AnyValue::Str(text));
        }
    }
    if record.severity_number != 0 {
        visit("severity_number", &AnyValue::Int(i64::from(record.severity_number)));
    }
    if record.flags != 0 {
        visit("flags", &AnyValue::Int(i64::from(record.flags)));
    }
    for attributes in [
        record.attributes,
        whole.resource.attributes,
        scope_attributes(&whole.scope),
    ] {
        for pair in attributes.iter() {
            if !is_hint(pair.key) && !labels.has(pair.key) {
                visit(pair.key, &pair.value);
            }
        }
    }
}

fn scope_attributes<'a>(scope: &Scope<'a>) -> Attributes<'a> {
    scope.attributes
}
