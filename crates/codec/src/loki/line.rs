//! A record as one line: JSON, logfmt, or its body alone. Attributes that became labels are left out.

use model::view::logs::LogRecord;
use model::view::{AnyValue, Attributes, Resource, Scope};

use super::labels::Labels;
use super::write::{Format, is_hint};
use crate::value_text::{write_json, write_json_text, write_number, write_text};

/// A record and where it comes from.
pub(super) struct Whole<'a> {
    pub(super) record: LogRecord<'a>,
    pub(super) resource: Resource<'a>,
    pub(super) scope: Scope<'a>,
}

/// Writes to an empty line, more than `max_bytes` only if that is too much.
pub(super) fn write_line(format: Format, whole: &Whole<'_>, labels: &Labels, max_bytes: usize, out: &mut Vec<u8>) {
    match format {
        Format::Json => json(whole, labels, out),
        Format::Logfmt => logfmt(whole, labels, max_bytes, out),
        Format::Raw => write_text(&whole.record.body, out),
    }
}

fn json(whole: &Whole<'_>, labels: &Labels, out: &mut Vec<u8>) {
    let record = &whole.record;
    out.push(b'{');
    if !matches!(record.body, AnyValue::Empty) {
        member("body", out);
        write_json(&record.body, out);
    }
    if let Some(id) = record.trace_id {
        member("traceid", out);
        write_json_text(&id.to_string(), out);
    }
    if let Some(id) = record.span_id {
        member("spanid", out);
        write_json_text(&id.to_string(), out);
    }
    if !record.severity_text.is_empty() {
        member("severity", out);
        write_json_text(record.severity_text, out);
    }
    if record.flags != 0 {
        member("flags", out);
        write_number(i64::from(record.flags), out);
    }
    for (name, attributes) in [
        ("attributes", record.attributes),
        ("resources", whole.resource.attributes),
    ] {
        let before = out.len();
        member(name, out);
        out.push(b'{');
        let mut any = false;
        for pair in left(&attributes, labels) {
            any = true;
            member(pair.0, out);
            write_json(&pair.1, out);
        }
        out.push(b'}');
        if !any {
            out.truncate(before);
        }
    }
    if !whole.scope.name.is_empty() {
        member("instrumentation_scope", out);
        out.push(b'{');
        member("name", out);
        write_json_text(whole.scope.name, out);
        if !whole.scope.version.is_empty() {
            member("version", out);
            write_json_text(whole.scope.version, out);
        }
        out.push(b'}');
    }
    out.push(b'}');
}

/// The name of a member, with the comma before it where one is due.
fn member(name: &str, out: &mut Vec<u8>) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    write_json_text(name, out);
    out.push(b':');
}

/// The attributes that are neither labels nor hints.
fn left<'a>(attributes: &Attributes<'a>, labels: &Labels) -> impl Iterator<Item = (&'a str, AnyValue<'a>)> {
    attributes
        .iter()
        .filter(|pair| !is_hint(pair.key) && !labels.has(pair.key))
        .map(|pair| (pair.key, pair.value))
}

fn logfmt(whole: &Whole<'_>, labels: &Labels, max_bytes: usize, out: &mut Vec<u8>) {
    let record = &whole.record;
    let mut name = String::new();
    match record.body {
        AnyValue::Empty => {}
        // A line that begins as logfmt is taken for it and stays as it is.
        AnyValue::Str(text) if begins_as_logfmt(text) => out.extend_from_slice(text.trim().as_bytes()),
        AnyValue::KvList(pairs) => {
            for pair in pairs.iter() {
                flat(&mut name, pair.key, &pair.value, max_bytes, out);
            }
        }
        AnyValue::Array(_) => flat(&mut name, "body", &record.body, max_bytes, out),
        body => flat(&mut name, "msg", &body, max_bytes, out),
    }
    let ids = [
        ("traceID", record.trace_id.map(|id| id.to_string())),
        ("spanID", record.span_id.map(|id| id.to_string())),
    ];
    for (key, id) in &ids {
        if let Some(id) = id {
            flat(&mut name, key, &AnyValue::Str(id), max_bytes, out);
        }
    }
    if !record.severity_text.is_empty() {
        flat(
            &mut name,
            "severity",
            &AnyValue::Str(record.severity_text),
            max_bytes,
            out,
        );
    }
    if record.flags != 0 {
        flat(
            &mut name,
            "flags",
            &AnyValue::Int(i64::from(record.flags)),
            max_bytes,
            out,
        );
    }
    for (prefix, attributes) in [
        ("attribute_", record.attributes),
        ("resource_", whole.resource.attributes),
    ] {
        for (key, value) in left(&attributes, labels) {
            name.push_str(prefix);
            flat(&mut name, key, &value, max_bytes, out);
            name.clear();
        }
    }
    if !whole.scope.name.is_empty() {
        flat(
            &mut name,
            "instrumentation_scope_name",
            &AnyValue::Str(whole.scope.name),
            max_bytes,
            out,
        );
        if !whole.scope.version.is_empty() {
            flat(
                &mut name,
                "instrumentation_scope_version",
                &AnyValue::Str(whole.scope.version),
                max_bytes,
                out,
            );
        }
    }
}

fn begins_as_logfmt(text: &str) -> bool {
    let key = text.trim_start().bytes().take_while(|byte| is_key(*byte)).count();
    key > 0 && text.trim_start().as_bytes().get(key) == Some(&b'=')
}

fn is_key(byte: u8) -> bool {
    byte > b' ' && !matches!(byte, b'=' | b'"' | 0x7f)
}

/// `prefix` and `key` and what the value is made of, each as `name=value`. A long prefix is written before each
/// of many values, so it ends when the line is longer than it may be.
fn flat(prefix: &mut String, key: &str, value: &AnyValue<'_>, max_bytes: usize, out: &mut Vec<u8>) {
    if out.len() > max_bytes {
        return;
    }
    let before = prefix.len();
    prefix.push_str(key);
    match value {
        AnyValue::Empty => {}
        AnyValue::KvList(pairs) => {
            prefix.push('_');
            for pair in pairs.iter() {
                flat(prefix, pair.key, &pair.value, max_bytes, out);
            }
        }
        AnyValue::Array(values) => {
            prefix.push('_');
            for (index, value) in values.iter().enumerate() {
                flat(prefix, &index.to_string(), &value, max_bytes, out);
            }
        }
        value => {
            if !out.is_empty() {
                out.push(b' ');
            }
            out.extend(prefix.bytes().map(|byte| if is_key(byte) { byte } else { b'_' }));
            out.push(b'=');
            match value {
                AnyValue::Str(text) if text.is_empty() || !text.bytes().all(is_key) => write_json_text(text, out),
                value => write_text(value, out),
            }
        }
    }
    prefix.truncate(before);
}
