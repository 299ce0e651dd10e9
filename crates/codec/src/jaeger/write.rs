//! OTLP spans to Jaeger's `PostSpansRequest`, written straight from views.

use std::collections::HashMap;

use model::view::traces::{Event, Link, Span, resource_spans};
use model::view::{AnyValue, Attributes, KeyValue, Resource, ResourceGroup, Scope};
use model::wire::{
    self, BYTES, VARINT, close_length, open_length, put_bytes, put_fixed64, put_tag, put_varint, varint_len,
};

use super::{BINARY, BOOL, CHILD_OF, FLOAT64, FOLLOWS_FROM, INT64, KINDS, NANOS, NO_SERVICE_NAME, tag};
use crate::{max_made_bytes, value_text};

/// Bytes that a span takes beyond what it took in OTLP, as a first guess.
const EXTRA_BYTES: usize = 128;

/// One call of `PostSpans`: Jaeger's batch has one process, so there is at least one for each resource.
#[derive(Debug, PartialEq, Eq)]
pub struct Post {
    /// The encoded `PostSpansRequest`.
    pub message: Vec<u8>,
    pub spans: u32,
}

/// The calls of a payload.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Posts {
    pub all: Vec<Post>,
    /// Spans that are in none of them, because with the scopes and processes that they share they are more than is made of one payload.
    pub rejected: u32,
}

/// The calls that hand over a canonical payload, each of at most `max_bytes` unless one span alone is longer.
pub fn posts(payload: &[u8], max_bytes: usize) -> Posts {
    let mut posts = Posts::default();
    // A scope's tags stand in each of its spans, a process in each call.
    let mut left_bytes = max_made_bytes(payload.len());
    // Used again for each resource, of which there may be one for every span.
    let (mut spans, mut scope_tags) = (Vec::with_capacity(payload.len().min(max_bytes)), Vec::new());
    for groups in by_resource(payload) {
        let process = process(&groups[0].owner());
        spans.clear();
        let mut count = 0;
        for scope in groups.iter().flat_map(|group| group.list()) {
            scope_tags.clear();
            write_scope(&mut scope_tags, &scope.owner());
            for span in scope.list() {
                let before = spans.len();
                // In case that it needs a call of its own.
                if scope_tags.len() + process.len() > left_bytes {
                    posts.rejected += 1;
                    continue;
                }
                left_bytes -= scope_tags.len();
                write_span(&mut spans, &span, &scope_tags);
                if count > 0 && spans.len() + process.len() > max_bytes {
                    let last = spans.split_off(before);
                    posts.all.push(post(&process, &spans, count));
                    left_bytes -= process.len();
                    spans.clear();
                    spans.extend_from_slice(&last);
                    count = 0;
                }
                count += 1;
            }
        }
        if count > 0 {
            posts.all.push(post(&process, &spans, count));
            left_bytes = left_bytes.saturating_sub(process.len());
        }
    }
    posts
}

/// The groups of each distinct resource: what several senders' requests became one batch of has the same resource many times.
fn by_resource(payload: &[u8]) -> Vec<Vec<ResourceGroup<'_, Span<'_>>>> {
    let mut all: Vec<Vec<_>> = Vec::new();
    let mut known: HashMap<&[u8], usize> = HashMap::new();
    for group in resource_spans(payload) {
        let at = *known.entry(group.owner().raw).or_insert(all.len());
        if at == all.len() {
            all.push(Vec::new());
        }
        all[at].push(group);
    }
    all
}

fn post(process: &[u8], spans: &[u8], count: u32) -> Post {
    let length = process.len() + spans.len();
    let mut message = Vec::with_capacity(length + 16);
    put_tag(&mut message, 1, BYTES);
    put_varint(&mut message, length as u64);
    message.extend_from_slice(spans);
    message.extend_from_slice(process);
    Post { message, spans: count }
}

/// `Batch.process`, its tag included.
fn process(resource: &Resource<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(resource.raw.len() + EXTRA_BYTES);
    let name = resource.service_name().filter(|name| !name.is_empty());
    put_tag(&mut out, 2, BYTES);
    let open = open_length(&mut out, resource.raw.len());
    put_bytes(&mut out, 1, name.unwrap_or(NO_SERVICE_NAME).as_bytes());
    for pair in resource.attributes.iter() {
        if pair.key != "service.name" || name.is_none() {
            write_tag(&mut out, 2, &pair);
        }
    }
    close_length(&mut out, open);
    out
}

/// The tags of a span that tell its scope.
fn write_scope(out: &mut Vec<u8>, scope: &Scope<'_>) {
    for (key, value) in [(tag::SCOPE_NAME, scope.name), (tag::SCOPE_VERSION, scope.version)] {
        if !value.is_empty() {
            text_tag(out, 8, key, value);
        }
    }
    let mut key = String::new();
    for pair in scope.attributes.iter() {
        key.clear();
        key.push_str(tag::SCOPE_PREFIX);
        key.push_str(pair.key);
        // `name` and `version` are taken.
        if key != tag::SCOPE_NAME && key != tag::SCOPE_VERSION {
            write_tag(out, 8, &KeyValue { key: &key, ..pair });
        }
    }
}

fn write_span(out: &mut Vec<u8>, span: &Span<'_>, scope_tags: &[u8]) {
    put_tag(out, 1, BYTES);
    let open = open_length(out, span.raw.len() + EXTRA_BYTES);
    put_bytes(out, 1, &span.trace_id.0);
    put_bytes(out, 2, &span.span_id.0);
    put_bytes(out, 3, span.name.as_bytes());
    if let Some(parent) = span.parent_span_id {
        reference(out, &span.trace_id.0, &parent.0, CHILD_OF);
    }
    for link in span.links.iter() {
        write_link(out, &link);
    }
    if span.flags & 1 != 0 {
        put_tag(out, 5, VARINT);
        put_varint(out, 1);
    }
    time(out, 6, span.start_unix_nano);
    time(out, 7, span.end_unix_nano.saturating_sub(span.start_unix_nano));
    out.extend_from_slice(scope_tags);
    let told = Told::by(span);
    told.write(out);
    for pair in span.attributes.iter() {
        if !told.says(pair.key) {
            write_tag(out, 8, &pair);
        }
    }
    for event in span.events.iter() {
        write_event(out, &event);
    }
    close_length(out, open);
}

/// What a span tells in tags that is not among its attributes.
struct Told<'a> {
    kind: Option<&'static str>,
    status: Option<&'static str>,
    description: &'a str,
    trace_state: &'a str,
    dropped: [(&'static str, u32); 3],
}

impl<'a> Told<'a> {
    fn by(span: &Span<'a>) -> Told<'a> {
        let kind = usize::try_from(span.kind)
            .ok()
            .and_then(|kind| KINDS.get(kind).copied());
        Told {
            kind: kind.filter(|kind| !kind.is_empty()),
            status: match span.status_code {
                1 => Some("OK"),
                2 => Some("ERROR"),
                _ => None,
            },
            description: span.status_message,
            trace_state: span.trace_state,
            dropped: [
                (tag::DROPPED_ATTRIBUTES, span.dropped_attributes_count),
                (tag::DROPPED_EVENTS, span.dropped_events_count),
                (tag::DROPPED_LINKS, span.dropped_links_count),
            ],
        }
    }

    fn failed(&self) -> bool {
        self.status == Some("ERROR")
    }

    fn write(&self, out: &mut Vec<u8>) {
        if let Some(kind) = self.kind {
            text_tag(out, 8, tag::KIND, kind);
        }
        if let Some(status) = self.status {
            text_tag(out, 8, tag::STATUS_CODE, status);
        }
        if self.failed() {
            typed_tag(out, 8, tag::ERROR, &AnyValue::Bool(true));
        }
        for (key, value) in [
            (tag::STATUS_DESCRIPTION, self.description),
            (tag::TRACE_STATE, self.trace_state),
        ] {
            if !value.is_empty() {
                text_tag(out, 8, key, value);
            }
        }
        for (key, count) in self.dropped {
            if count > 0 {
                typed_tag(out, 8, key, &AnyValue::Int(i64::from(count)));
            }
        }
    }

    /// Whether an attribute of this name would be a second tag beside the one that is told: readers take either.
    fn says(&self, key: &str) -> bool {
        match key {
            tag::KIND => self.kind.is_some(),
            tag::STATUS_CODE => self.status.is_some(),
            tag::ERROR => self.failed(),
            tag::STATUS_DESCRIPTION => !self.description.is_empty(),
            tag::TRACE_STATE => !self.trace_state.is_empty(),
            _ => self
                .dropped
                .iter()
                .any(|(dropped, count)| *count > 0 && *dropped == key),
        }
    }
}

fn write_link(out: &mut Vec<u8>, link: &Link<'_>) {
    let (trace, span) = (link.trace_id.unwrap_or_default(), link.span_id.unwrap_or_default());
    let child_of = !link.attributes.is_empty() && link.attributes.get_str(tag::REFERENCE) == Some(tag::CHILD_OF);
    reference(out, &trace.0, &span.0, if child_of { CHILD_OF } else { FOLLOWS_FROM });
}

fn reference(out: &mut Vec<u8>, trace_id: &[u8; 16], span_id: &[u8; 8], kind: u64) {
    put_tag(out, 4, BYTES);
    let open = open_length(out, 0);
    put_bytes(out, 1, trace_id);
    put_bytes(out, 2, span_id);
    if kind != CHILD_OF {
        put_tag(out, 3, VARINT);
        put_varint(out, kind);
    }
    close_length(out, open);
}

/// A `Timestamp` or a `Duration`: seconds and nanoseconds.
fn time(out: &mut Vec<u8>, number: u32, nanos: u64) {
    put_tag(out, number, BYTES);
    let open = open_length(out, 0);
    for (number, part) in [(1, nanos / NANOS), (2, nanos % NANOS)] {
        if part > 0 {
            put_tag(out, number, VARINT);
            put_varint(out, part);
        }
    }
    close_length(out, open);
}

fn write_event(out: &mut Vec<u8>, event: &Event<'_>) {
    put_tag(out, 9, BYTES);
    let open = open_length(out, event.raw.len());
    time(out, 1, event.time_unix_nano);
    if !event.name.is_empty() {
        text_tag(out, 2, tag::EVENT, event.name);
    }
    write_fields(out, &event.attributes, !event.name.is_empty());
    if event.dropped_attributes_count > 0 {
        let count = AnyValue::Int(i64::from(event.dropped_attributes_count));
        typed_tag(out, 2, tag::DROPPED_ATTRIBUTES, &count);
    }
    close_length(out, open);
}

fn write_fields(out: &mut Vec<u8>, attributes: &Attributes<'_>, named: bool) {
    for pair in attributes.iter() {
        if !(named && pair.key == tag::EVENT) {
            write_tag(out, 2, &pair);
        }
    }
}

fn write_tag(out: &mut Vec<u8>, number: u32, pair: &KeyValue<'_>) {
    match pair.value {
        AnyValue::Str(text) => text_tag(out, number, pair.key, text),
        value => typed_tag(out, number, pair.key, &value),
    }
}

/// A tag whose value is text; its length is known before it is written.
fn text_tag(out: &mut Vec<u8>, number: u32, key: &str, text: &str) {
    let delimited = |len: usize| 1 + varint_len(len as u64) + len;
    let value_len = if text.is_empty() { 0 } else { delimited(text.len()) };
    put_tag(out, number, BYTES);
    put_varint(out, (delimited(key.len()) + value_len) as u64);
    put_bytes(out, 1, key.as_bytes());
    if !text.is_empty() {
        put_bytes(out, 3, text.as_bytes());
    }
}

fn typed_tag(out: &mut Vec<u8>, number: u32, key: &str, value: &AnyValue<'_>) {
    put_tag(out, number, BYTES);
    let open = open_length(out, key.len());
    put_bytes(out, 1, key.as_bytes());
    let kind = |out: &mut Vec<u8>, kind| {
        put_tag(out, 2, VARINT);
        put_varint(out, kind);
    };
    match value {
        AnyValue::Str(text) => put_bytes(out, 3, text.as_bytes()),
        AnyValue::Bool(value) => {
            kind(out, BOOL);
            put_tag(out, 4, VARINT);
            put_varint(out, u64::from(*value));
        }
        AnyValue::Int(value) => {
            kind(out, INT64);
            put_tag(out, 5, VARINT);
            put_varint(out, *value as u64);
        }
        AnyValue::Double(value) => {
            kind(out, FLOAT64);
            put_fixed64(out, 6, value.to_bits());
        }
        AnyValue::Bytes(bytes) => {
            kind(out, BINARY);
            put_bytes(out, 7, bytes);
        }
        AnyValue::Empty => {}
        AnyValue::Array(_) | AnyValue::KvList(_) => {
            put_tag(out, 3, wire::BYTES);
            let open = open_length(out, EXTRA_BYTES);
            value_text::write_json(value, out);
            close_length(out, open);
        }
    }
    close_length(out, open);
}
