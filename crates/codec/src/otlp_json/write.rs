//! Protobuf to OTLP/JSON.

use model::Signal;
use model::base64;
use model::schema::{self, Field, Kind, Message, Rule};
use model::wire::{self, Fields, Payload};

/// Translates a canonical payload to OTLP/JSON, on one line. Fields that OTLP does not define have no name there and
/// are left out.
pub fn from_protobuf(signal: Signal, payload: &[u8]) -> String {
    let mut out = String::with_capacity(payload.len() * 3);
    object(schema::request(signal), payload, &mut out);
    out
}

fn object(message: &'static Message, bytes: &[u8], out: &mut String) {
    let present = Fields::new(bytes).fold(0u32, |present, (number, _)| {
        present | 1u32.checked_shl(number).unwrap_or(0)
    });
    let mut separator = '{';
    for field in message.fields.iter().filter(|field| present >> field.number & 1 == 1) {
        out.push(separator);
        separator = ',';
        out.push('"');
        out.push_str(field.name);
        out.push_str("\":");
        let mut values = Fields::new(bytes)
            .filter(|(number, _)| *number == field.number)
            .map(|(_, payload)| payload);
        match field.rule {
            Rule::Many | Rule::Map => array(values, out, |payload, out| element(field, payload, out)),
            Rule::Packed => {
                let mut rest = values.next().map_or(&[][..], Payload::bytes);
                let numbers = std::iter::from_fn(|| match field.kind.wire_type() {
                    wire::FIXED64 => wire::fixed64(&mut rest).map(Payload::Fixed64),
                    _ => wire::varint(&mut rest).map(Payload::Varint),
                });
                array(numbers, out, |payload, out| scalar(field, payload, out));
            }
            _ => match values.next() {
                Some(payload) => element(field, payload, out),
                None => out.push_str("null"),
            },
        }
    }
    if separator == '{' {
        out.push('{');
    }
    out.push('}');
}

fn array<'a>(
    values: impl Iterator<Item = Payload<'a>>,
    out: &mut String,
    mut write: impl FnMut(Payload<'a>, &mut String),
) {
    out.push('[');
    for (index, payload) in values.enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(payload, out);
    }
    out.push(']');
}

fn element(field: &'static Field, payload: Payload<'_>, out: &mut String) {
    match field.kind {
        Kind::Message(message) => object(message, payload.bytes(), out),
        _ => scalar(field, payload, out),
    }
}

fn scalar(field: &'static Field, payload: Payload<'_>, out: &mut String) {
    use std::fmt::Write;
    // Writing to a string does not fail.
    let _ = match field.kind {
        Kind::Bool => write!(out, "{}", payload.varint() != 0),
        Kind::Int32 | Kind::Enum => write!(out, "{}", payload.varint() as i32),
        Kind::Uint32 => write!(out, "{}", payload.varint() as u32),
        Kind::Sint32 => {
            let value = payload.varint() as u32;
            write!(out, "{}", (value >> 1) as i32 ^ -((value & 1) as i32))
        }
        Kind::Fixed32 => write!(out, "{}", payload.fixed32()),
        Kind::Int64 => write!(out, "\"{}\"", payload.varint() as i64),
        Kind::Uint64 => write!(out, "\"{}\"", payload.varint()),
        Kind::Fixed64 => write!(out, "\"{}\"", payload.fixed64()),
        Kind::Sfixed64 => write!(out, "\"{}\"", payload.fixed64() as i64),
        Kind::Double => {
            double(f64::from_bits(payload.fixed64()), out);
            Ok(())
        }
        Kind::Text => {
            text(std::str::from_utf8(payload.bytes()).unwrap_or_default(), out);
            Ok(())
        }
        Kind::Bytes => write!(out, "\"{}\"", base64::encode(payload.bytes())),
        Kind::TraceId | Kind::SpanId => {
            out.push('"');
            for byte in payload.bytes() {
                let _ = write!(out, "{byte:02x}");
            }
            out.push('"');
            Ok(())
        }
        Kind::Message(_) => Ok(()),
    };
}

fn double(value: f64, out: &mut String) {
    if value.is_nan() {
        out.push_str("\"NaN\"");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" });
    } else {
        // The shortest digits that read back as the same double; `Display` would spell 1e300 out.
        use std::fmt::Write;
        let _ = write!(out, "{value:?}");
    }
}

fn text(text: &str, out: &mut String) {
    use std::fmt::Write;
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[plain..at]);
        plain = at + 1;
        let _ = match byte {
            b'"' => out.write_str("\\\""),
            b'\\' => out.write_str("\\\\"),
            b'\n' => out.write_str("\\n"),
            b'\r' => out.write_str("\\r"),
            b'\t' => out.write_str("\\t"),
            _ => write!(out, "\\u{byte:04x}"),
        };
    }
    out.push_str(&text[plain..]);
    out.push('"');
}
