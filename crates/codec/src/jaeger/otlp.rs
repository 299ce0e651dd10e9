//! Jaeger's spans to an OTLP request: one walk over the tags takes out what OTLP has fields for, the rest become attributes.

use model::wire::{
    self, BYTES, VARINT, close_length, open_length, put_bytes, put_fixed32, put_fixed64, put_tag, put_varint,
};

use super::span::{Reference, Span, Tag, Value};
use super::{KINDS, NO_SERVICE_NAME, tag};

/// OpenTracing's fields of an error, and what OpenTelemetry calls them.
const EXCEPTION_FIELDS: [(&str, &str); 3] = [
    ("error.kind", "exception.type"),
    ("message", "exception.message"),
    ("stack", "exception.stacktrace"),
];

/// An OTLP request being written, and what of it is still open.
pub(super) struct Output<'a> {
    out: Vec<u8>,
    /// The encoded `Resource` that the next span comes from.
    resource: Vec<u8>,
    open_resource: Option<wire::OpenLength>,
    /// The encoded scope of the open `ScopeSpans`, and that of the span at hand.
    scope: Vec<u8>,
    next_scope: Vec<u8>,
    open_scope: Option<wire::OpenLength>,
    /// First guess for lengths.
    expected: usize,
    told: Told<'a>,
}

impl<'a> Output<'a> {
    pub(super) fn new(expected: usize) -> Output<'a> {
        Output {
            out: Vec::with_capacity(expected + expected / 4),
            resource: Vec::new(),
            open_resource: None,
            scope: Vec::new(),
            next_scope: Vec::new(),
            open_scope: None,
            expected,
            told: Told::default(),
        }
    }

    /// What follows comes from this process.
    pub(super) fn resource(&mut self, service_name: &[u8], tags: &[Tag<'_>]) {
        self.close_resource();
        self.resource.clear();
        let named = !service_name.is_empty() && service_name != NO_SERVICE_NAME.as_bytes();
        if named {
            text(&mut self.resource, 1, b"service.name", service_name);
        }
        let host_named = tags.iter().any(|tag| tag.is("host.name"));
        for tag in tags {
            if tag.is("hostname") && !host_named {
                let key = b"host.name";
                attribute(&mut self.resource, 1, &Tag { key, ..*tag });
            } else if !(named && tag.is("service.name")) {
                attribute(&mut self.resource, 1, tag);
            }
        }
    }

    fn close_scope(&mut self) {
        if let Some(open) = self.open_scope.take() {
            close_length(&mut self.out, open);
        }
    }

    fn close_resource(&mut self) {
        self.close_scope();
        if let Some(open) = self.open_resource.take() {
            close_length(&mut self.out, open);
        }
    }

    /// Takes a span; of its tags those are left that became attributes.
    pub(super) fn span(&mut self, span: &mut Span<'a>) {
        let mut told = std::mem::take(&mut self.told);
        told.clear();
        span.tags.retain(|tag| !told.hear(tag));
        self.next_scope.clear();
        told.write_scope(&mut self.next_scope);
        if self.open_resource.is_none() {
            put_tag(&mut self.out, 1, BYTES);
            self.open_resource = Some(open_length(&mut self.out, self.expected));
            put_bytes(&mut self.out, 1, &self.resource);
        }
        if self.open_scope.is_none() || self.scope != self.next_scope {
            self.close_scope();
            put_tag(&mut self.out, 2, BYTES);
            self.open_scope = Some(open_length(&mut self.out, self.expected));
            if !self.next_scope.is_empty() {
                put_bytes(&mut self.out, 1, &self.next_scope);
            }
            std::mem::swap(&mut self.scope, &mut self.next_scope);
        }
        write_span(&mut self.out, span, &told);
        self.told = told;
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.close_resource();
        self.out
    }
}

/// What tags tell that OTLP has fields for.
#[derive(Default)]
struct Told<'a> {
    kind: u64,
    failed: bool,
    status: u64,
    description: &'a [u8],
    trace_state: &'a [u8],
    scope_name: &'a [u8],
    scope_version: &'a [u8],
    scope: Vec<Tag<'a>>,
    /// Attributes, events, links.
    dropped: [u32; 3],
}

impl<'a> Told<'a> {
    fn clear(&mut self) {
        let mut scope = std::mem::take(&mut self.scope);
        scope.clear();
        *self = Told {
            scope,
            ..Told::default()
        };
    }

    /// Whether the tag tells one of these.
    fn hear(&mut self, tag: &Tag<'a>) -> bool {
        let Ok(key) = std::str::from_utf8(tag.key) else {
            return false;
        };
        match (key, tag.value) {
            (tag::KIND, Value::Text(kind)) => {
                let known = KINDS
                    .iter()
                    .position(|known| !known.is_empty() && known.as_bytes().eq_ignore_ascii_case(kind));
                self.kind = known.map_or(self.kind, |number| number as u64);
                known.is_some()
            }
            (tag::ERROR, Value::Bool(true)) => {
                self.failed = true;
                true
            }
            (tag::STATUS_CODE, Value::Text(code)) => {
                let known = [&b"UNSET"[..], b"OK", b"ERROR"]
                    .iter()
                    .position(|known| known.eq_ignore_ascii_case(code));
                self.status = known.map_or(self.status, |number| number as u64);
                known.is_some()
            }
            (tag::STATUS_DESCRIPTION, Value::Text(text)) => heard(&mut self.description, text),
            (tag::TRACE_STATE, Value::Text(text)) => heard(&mut self.trace_state, text),
            (tag::SCOPE_NAME | tag::LIBRARY_NAME, Value::Text(text)) => heard(&mut self.scope_name, text),
            (tag::SCOPE_VERSION | tag::LIBRARY_VERSION, Value::Text(text)) => heard(&mut self.scope_version, text),
            (tag::DROPPED_ATTRIBUTES, Value::Int(count)) => counted(&mut self.dropped[0], count),
            (tag::DROPPED_EVENTS, Value::Int(count)) => counted(&mut self.dropped[1], count),
            (tag::DROPPED_LINKS, Value::Int(count)) => counted(&mut self.dropped[2], count),
            (key, value) if key.starts_with(tag::SCOPE_PREFIX) => {
                let key = &tag.key[tag::SCOPE_PREFIX.len()..];
                self.scope.push(Tag { key, value });
                true
            }
            _ => false,
        }
    }

    fn write_scope(&self, out: &mut Vec<u8>) {
        for (number, text) in [(1, self.scope_name), (2, self.scope_version)] {
            if !text.is_empty() {
                put_bytes(out, number, text);
            }
        }
        for tag in &self.scope {
            attribute(out, 3, tag);
        }
    }
}

/// Takes a text unless one was heard before.
fn heard<'a>(slot: &mut &'a [u8], text: &'a [u8]) -> bool {
    if slot.is_empty() {
        *slot = text;
    }
    true
}

/// Takes a count, if it is one.
fn counted(slot: &mut u32, count: i64) -> bool {
    u32::try_from(count).map(|count| *slot = count).is_ok()
}

fn write_span(out: &mut Vec<u8>, span: &Span<'_>, told: &Told<'_>) {
    put_tag(out, 2, BYTES);
    let open = open_length(out, 512);
    for (number, id) in [(1, &span.trace_id[..]), (2, &span.span_id[..])] {
        if id.iter().any(|byte| *byte != 0) {
            put_bytes(out, number, id);
        }
    }
    optional(out, 3, told.trace_state);
    let (parent, told_by) = span.parent();
    if let Some(parent) = parent {
        put_bytes(out, 4, &parent);
    }
    optional(out, 5, span.name);
    varint(out, 6, told.kind);
    let end = span.start_unix_nano.saturating_add(span.duration_nano);
    for (number, time) in [(7, span.start_unix_nano), (8, end)] {
        if time > 0 {
            put_fixed64(out, number, time);
        }
    }
    for tag in &span.tags {
        attribute(out, 9, tag);
    }
    if !span.warnings.is_empty() {
        write_warnings(out, &span.warnings);
    }
    varint(out, 10, u64::from(told.dropped[0]));
    let mut from = 0;
    for log in &span.logs {
        write_event(out, log.time_unix_nano, &span.fields[from..log.fields_end]);
        from = log.fields_end;
    }
    varint(out, 12, u64::from(told.dropped[1]));
    for (index, reference) in span.references.iter().enumerate() {
        if told_by != Some(index) {
            write_link(out, reference);
        }
    }
    varint(out, 14, u64::from(told.dropped[2]));
    write_status(out, told);
    if span.flags & 1 != 0 {
        put_fixed32(out, 16, 1);
    }
    close_length(out, open);
}

fn write_status(out: &mut Vec<u8>, told: &Told<'_>) {
    // The `error` tag decides, whatever else is told: it is what Jaeger shows.
    let code = if told.failed { 2 } else { told.status };
    if code == 0 && told.description.is_empty() {
        return;
    }
    put_tag(out, 15, BYTES);
    let open = open_length(out, told.description.len());
    optional(out, 2, told.description);
    varint(out, 3, code);
    close_length(out, open);
}

/// A reference to a parent without ids. Marking it would make of two bytes forty.
const NOWHERE: Reference = Reference {
    trace_id: [0; 16],
    span_id: [0; 8],
    child_of: true,
};

fn write_link(out: &mut Vec<u8>, reference: &Reference) {
    put_tag(out, 13, BYTES);
    let open = open_length(out, 0);
    if reference.trace_id != [0; 16] {
        put_bytes(out, 1, &reference.trace_id);
    }
    if reference.span_id != [0; 8] {
        put_bytes(out, 2, &reference.span_id);
    }
    if reference.child_of && *reference != NOWHERE {
        text(out, 4, tag::REFERENCE.as_bytes(), tag::CHILD_OF.as_bytes());
    }
    close_length(out, open);
}

fn write_event(out: &mut Vec<u8>, time_unix_nano: u64, fields: &[Tag<'_>]) {
    put_tag(out, 11, BYTES);
    let open = open_length(out, 128);
    if time_unix_nano > 0 {
        put_fixed64(out, 1, time_unix_nano);
    }
    let named = fields
        .iter()
        .position(|field| field.is(tag::EVENT) && field.text().is_some());
    let name = named.and_then(|at| fields[at].text()).unwrap_or_default();
    let renamed = |field: &Tag<'_>| EXCEPTION_FIELDS.into_iter().find(|(old, _)| field.is(old));
    let exception = name == b"error" && fields.iter().any(|field| renamed(field).is_some());
    optional(out, 2, if exception { b"exception" } else { name });
    let mut dropped = 0;
    for (index, field) in fields.iter().enumerate() {
        if named == Some(index) {
            continue;
        }
        match (field.value, renamed(field)) {
            (Value::Int(count), _) if field.is(tag::DROPPED_ATTRIBUTES) && counted(&mut dropped, count) => {}
            (value, Some((_, new))) if exception => attribute(
                out,
                3,
                &Tag {
                    key: new.as_bytes(),
                    value,
                },
            ),
            _ => attribute(out, 3, field),
        }
    }
    varint(out, 4, u64::from(dropped));
    close_length(out, open);
}

fn write_warnings(out: &mut Vec<u8>, warnings: &[&[u8]]) {
    put_tag(out, 9, BYTES);
    let pair = open_length(out, 128);
    put_bytes(out, 1, tag::WARNINGS.as_bytes());
    put_tag(out, 2, BYTES);
    let value = open_length(out, 128);
    put_tag(out, 5, BYTES);
    let array = open_length(out, 128);
    for warning in warnings {
        put_tag(out, 1, BYTES);
        let element = open_length(out, warning.len());
        put_bytes(out, 1, warning);
        close_length(out, element);
    }
    for open in [array, value, pair] {
        close_length(out, open);
    }
}

/// A `KeyValue`.
fn attribute(out: &mut Vec<u8>, number: u32, tag: &Tag<'_>) {
    if let Value::Text(value) = tag.value {
        return text(out, number, tag.key, value);
    }
    put_tag(out, number, BYTES);
    let open = open_length(out, tag.key.len());
    put_bytes(out, 1, tag.key);
    put_tag(out, 2, BYTES);
    let value = open_length(out, 0);
    match tag.value {
        Value::Text(text) => put_bytes(out, 1, text),
        Value::Bool(value) => {
            put_tag(out, 2, VARINT);
            put_varint(out, u64::from(value));
        }
        Value::Int(value) => {
            put_tag(out, 3, VARINT);
            put_varint(out, value as u64);
        }
        Value::Double(value) => put_fixed64(out, 4, value.to_bits()),
        Value::Bytes(bytes) => put_bytes(out, 7, bytes),
    }
    close_length(out, value);
    close_length(out, open);
}

/// A `KeyValue` with text, whose lengths are known.
fn text(out: &mut Vec<u8>, number: u32, key: &[u8], value: &[u8]) {
    let delimited = |len: usize| 1 + wire::varint_len(len as u64) + len;
    put_tag(out, number, BYTES);
    put_varint(out, (delimited(key.len()) + delimited(delimited(value.len()))) as u64);
    put_bytes(out, 1, key);
    put_tag(out, 2, BYTES);
    put_varint(out, delimited(value.len()) as u64);
    put_bytes(out, 1, value);
}

fn optional(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_bytes(out, number, bytes);
    }
}

fn varint(out: &mut Vec<u8>, number: u32, value: u64) {
    if value > 0 {
        put_tag(out, number, VARINT);
        put_varint(out, value);
    }
}
