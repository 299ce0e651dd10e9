//! `PostSpansRequest` read, strictly: what is cut short or has the wrong wire type is refused as a whole.

use model::wire::{self, Payload};

use super::otlp::Output;
use super::span::{Log, Reference, Span, Tag, Value};
use super::{BINARY, BOOL, BadJaeger, CHILD_OF, FLOAT64, INT64, NANOS};

/// Translates a `PostSpansRequest` to an OTLP request, which is legal protobuf but not yet canonical.
pub fn from_protobuf(message: &[u8]) -> Result<Vec<u8>, BadJaeger> {
    let mut batch: &[u8] = &[];
    for field in fields(message, "PostSpansRequest") {
        if let (1, Payload::Bytes(bytes)) = field? {
            batch = bytes;
        }
    }
    let mut out = Output::new(batch.len());
    let mut process: &[u8] = &[];
    for field in fields(batch, "Batch") {
        if let (2, Payload::Bytes(bytes)) = field? {
            process = bytes;
        }
    }
    // A span may bring its own process. Those that have none come first, so that the batch's process is written once, whatever the order.
    let mut tags = Vec::new();
    let mut span = Span::default();
    let mut own = false;
    let name = read_process(process, &mut tags)?;
    out.resource(name, &tags);
    for bytes in spans(batch) {
        if process_of(bytes)?.is_some() {
            own = true;
        } else {
            read_span(bytes, &mut span)?;
            out.span(&mut span);
        }
    }
    let mut process: Option<&[u8]> = None;
    for bytes in spans(batch).filter(|_| own) {
        let Some(its) = process_of(bytes)? else { continue };
        if process != Some(its) {
            tags.clear();
            let name = read_process(its, &mut tags)?;
            out.resource(name, &tags);
            process = Some(its);
        }
        read_span(bytes, &mut span)?;
        out.span(&mut span);
    }
    Ok(out.finish())
}

/// The encoded spans of a batch that has been walked before.
fn spans(batch: &[u8]) -> impl Iterator<Item = &[u8]> {
    fields(batch, "Batch").filter_map(|field| match field {
        Ok((1, Payload::Bytes(bytes))) => Some(bytes),
        _ => None,
    })
}

/// Walks a message; the first mistake is the last thing told.
fn fields<'a>(rest: &'a [u8], what: &'static str) -> impl Iterator<Item = Result<(u64, Payload<'a>), BadJaeger>> {
    wire::strict_fields(rest).map(move |field| field.ok_or(BadJaeger::Protobuf(what)))
}

fn process_of(span: &[u8]) -> Result<Option<&[u8]>, BadJaeger> {
    let mut process = None;
    for field in fields(span, "Span") {
        if let (10, Payload::Bytes(bytes)) = field? {
            process = Some(bytes);
        }
    }
    Ok(process)
}

/// The service's name; the tags are added to `tags`.
fn read_process<'a>(process: &'a [u8], tags: &mut Vec<Tag<'a>>) -> Result<&'a [u8], BadJaeger> {
    let mut name: &[u8] = &[];
    for field in fields(process, "Process") {
        match field? {
            (1, Payload::Bytes(bytes)) => name = bytes,
            (2, Payload::Bytes(bytes)) => {
                if tags.len() >= super::MAX_ELEMENTS {
                    return Err(BadJaeger::TooMany);
                }
                tags.push(read_tag(bytes)?);
            }
            _ => {}
        }
    }
    Ok(name)
}

fn read_span<'a>(message: &'a [u8], span: &mut Span<'a>) -> Result<(), BadJaeger> {
    span.clear();
    for field in fields(message, "Span") {
        match field? {
            (1, Payload::Bytes(bytes)) => span.trace_id = trace_id(bytes),
            (2, Payload::Bytes(bytes)) => span.span_id = bytes.try_into().unwrap_or_default(),
            (3, Payload::Bytes(bytes)) => span.name = bytes,
            (4, Payload::Bytes(bytes)) => {
                span.element()?;
                span.references.push(read_reference(bytes)?);
            }
            (5, Payload::Varint(flags)) => span.flags = flags as u32,
            (6, Payload::Bytes(bytes)) => span.start_unix_nano = nanos(bytes, "Timestamp")?,
            (7, Payload::Bytes(bytes)) => span.duration_nano = nanos(bytes, "Duration")?,
            (8, Payload::Bytes(bytes)) => {
                span.element()?;
                span.tags.push(read_tag(bytes)?);
            }
            (9, Payload::Bytes(bytes)) => read_log(bytes, span)?,
            (12, Payload::Bytes(bytes)) => {
                span.element()?;
                span.warnings.push(bytes);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Sixteen bytes; senders from before 128-bit ids have eight.
fn trace_id(bytes: &[u8]) -> [u8; 16] {
    let mut id = [0; 16];
    match bytes.len() {
        16 => id.copy_from_slice(bytes),
        8 => id[8..].copy_from_slice(bytes),
        _ => {}
    }
    id
}

fn read_reference(message: &[u8]) -> Result<Reference, BadJaeger> {
    let mut reference = Reference {
        child_of: true,
        ..Reference::default()
    };
    for field in fields(message, "SpanRef") {
        match field? {
            (1, Payload::Bytes(bytes)) => reference.trace_id = trace_id(bytes),
            (2, Payload::Bytes(bytes)) => reference.span_id = bytes.try_into().unwrap_or_default(),
            (3, Payload::Varint(kind)) => reference.child_of = kind == CHILD_OF,
            _ => {}
        }
    }
    Ok(reference)
}

fn read_log<'a>(message: &'a [u8], span: &mut Span<'a>) -> Result<(), BadJaeger> {
    span.element()?;
    let mut time_unix_nano = 0;
    for field in fields(message, "Log") {
        match field? {
            (1, Payload::Bytes(bytes)) => time_unix_nano = nanos(bytes, "Timestamp")?,
            (2, Payload::Bytes(bytes)) => {
                span.element()?;
                span.fields.push(read_tag(bytes)?);
            }
            _ => {}
        }
    }
    span.logs.push(Log {
        time_unix_nano,
        fields_end: span.fields.len(),
    });
    Ok(())
}

/// Seconds and nanoseconds; what lies before 1970 or is negative is 0.
fn nanos(message: &[u8], what: &'static str) -> Result<u64, BadJaeger> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in fields(message, what) {
        match field? {
            (1, Payload::Varint(value)) => seconds = value as i64,
            (2, Payload::Varint(value)) => nanos = value as i64,
            _ => {}
        }
    }
    let whole = i128::from(seconds) * i128::from(NANOS) + i128::from(nanos);
    Ok(u64::try_from(whole.max(0)).unwrap_or(u64::MAX))
}

fn read_tag(message: &[u8]) -> Result<Tag<'_>, BadJaeger> {
    let mut key: &[u8] = &[];
    let (mut kind, mut text, mut binary) = (0, &[][..], &[][..]);
    let (mut bool, mut int, mut double) = (false, 0, 0.0);
    for field in fields(message, "KeyValue") {
        match field? {
            (1, Payload::Bytes(bytes)) => key = bytes,
            (2, Payload::Varint(value)) => kind = value,
            (3, Payload::Bytes(bytes)) => text = bytes,
            (4, Payload::Varint(value)) => bool = value != 0,
            (5, Payload::Varint(value)) => int = value as i64,
            (6, Payload::Fixed64(bits)) => double = f64::from_bits(bits),
            (7, Payload::Bytes(bytes)) => binary = bytes,
            _ => {}
        }
    }
    let value = match kind {
        BOOL => Value::Bool(bool),
        INT64 => Value::Int(int),
        FLOAT64 => Value::Double(double),
        BINARY => Value::Bytes(binary),
        // A type that we do not know is most likely told as text as well.
        _ => Value::Text(text),
    };
    Ok(Tag { key, value })
}
