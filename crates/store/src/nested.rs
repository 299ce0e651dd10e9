//! Events and links as JSON text: one column each instead of a list of structs with two levels and six leaves, because most spans have
//! neither and those that do are read whole.

use std::fmt::Write;

use model::record::{EventRecord, LinkRecord, Value};
use model::view::List;
use model::view::traces::{Event, Link};
use model::{SpanId, TraceId};

use crate::json;

pub fn write_events(out: &mut String, events: &List<'_, Event<'_>>) {
    out.push('[');
    for (i, event) in events.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        let _ = write!(out, "{{\"time_unix_nano\":{},\"name\":", event.time_unix_nano as i64);
        json::write_text(out, event.name);
        if !event.attributes.is_empty() {
            out.push_str(",\"attributes\":");
            json::write_map(out, &event.attributes);
        }
        write_dropped(out, event.dropped_attributes_count);
        out.push('}');
    }
    out.push(']');
}

pub fn write_links(out: &mut String, links: &List<'_, Link<'_>>) {
    out.push('[');
    for (i, link) in links.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push_str("{\"trace_id\":");
        match link.trace_id {
            Some(id) => {
                let _ = write!(out, "\"{id}\"");
            }
            None => out.push_str("null"),
        }
        out.push_str(",\"span_id\":");
        match link.span_id {
            Some(id) => {
                let _ = write!(out, "\"{id}\"");
            }
            None => out.push_str("null"),
        }
        if !link.trace_state.is_empty() {
            out.push_str(",\"trace_state\":");
            json::write_text(out, link.trace_state);
        }
        if link.flags != 0 {
            let _ = write!(out, ",\"flags\":{}", link.flags);
        }
        if !link.attributes.is_empty() {
            out.push_str(",\"attributes\":");
            json::write_map(out, &link.attributes);
        }
        write_dropped(out, link.dropped_attributes_count);
        out.push('}');
    }
    out.push(']');
}

fn write_dropped(out: &mut String, count: u32) {
    if count != 0 {
        let _ = write!(out, ",\"dropped_attributes_count\":{count}");
    }
}

fn maps(text: &str) -> Vec<Vec<(String, Value)>> {
    match json::parse(text) {
        Some(Value::Array(values)) => values
            .into_iter()
            .filter_map(|value| match value {
                Value::Map(pairs) => Some(pairs),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn number(value: &Value) -> u32 {
    match value {
        Value::Int(value) => *value as u32,
        _ => 0,
    }
}

fn text(value: Value) -> String {
    match value {
        Value::Str(text) => text,
        _ => String::new(),
    }
}

pub fn read_events(text_: &str) -> Vec<EventRecord> {
    maps(text_)
        .into_iter()
        .map(|pairs| {
            let mut event = EventRecord::default();
            for (key, value) in pairs {
                match (key.as_str(), value) {
                    ("time_unix_nano", Value::Int(time)) => event.time_unix_nano = time as u64,
                    ("name", value) => event.name = text(value),
                    ("attributes", Value::Map(pairs)) => event.attributes = pairs,
                    ("dropped_attributes_count", value) => event.dropped_attributes_count = number(&value),
                    _ => {}
                }
            }
            event
        })
        .collect()
}

pub fn read_links(text_: &str) -> Vec<LinkRecord> {
    maps(text_)
        .into_iter()
        .map(|pairs| {
            let mut link = LinkRecord::default();
            for (key, value) in pairs {
                match (key.as_str(), value) {
                    ("trace_id", Value::Str(id)) => link.trace_id = TraceId::from_hex(&id).ok(),
                    ("span_id", Value::Str(id)) => link.span_id = SpanId::from_hex(&id).ok(),
                    ("trace_state", value) => link.trace_state = text(value),
                    ("flags", value) => link.flags = number(&value),
                    ("attributes", Value::Map(pairs)) => link.attributes = pairs,
                    ("dropped_attributes_count", value) => link.dropped_attributes_count = number(&value),
                    _ => {}
                }
            }
            link
        })
        .collect()
}
