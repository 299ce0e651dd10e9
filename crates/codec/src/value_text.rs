//! Why: protocols whose values are text need one answer to how an OTLP value reads: a text as it is, a list or map as JSON, bytes as base64. Lists and
//! maps follow the OpenTelemetry specification, "Common: mapping to non-OTLP protocols".

use std::io::Write;

use model::base64;
use model::view::{AnyValue, Attributes};

/// Appends the value as plain text: what a person would write.
pub fn write_text(value: &AnyValue<'_>, out: &mut Vec<u8>) {
    match value {
        AnyValue::Empty => {}
        AnyValue::Str(text) => out.extend_from_slice(text.as_bytes()),
        AnyValue::Bytes(bytes) => out.extend_from_slice(base64::encode(bytes).as_bytes()),
        AnyValue::Double(number) => write_double(*number, out),
        AnyValue::Bool(_) | AnyValue::Int(_) | AnyValue::Array(_) | AnyValue::KvList(_) => write_json(value, out),
    }
}

/// Appends the value as JSON. Nesting is bounded because canonical payloads are.
pub fn write_json(value: &AnyValue<'_>, out: &mut Vec<u8>) {
    match value {
        AnyValue::Empty => out.extend_from_slice(b"null"),
        AnyValue::Str(text) => write_json_text(text, out),
        AnyValue::Bool(true) => out.extend_from_slice(b"true"),
        AnyValue::Bool(false) => out.extend_from_slice(b"false"),
        AnyValue::Int(number) => write_number(*number, out),
        // JSON has no NaN and no infinity.
        AnyValue::Double(number) if number.is_finite() => write_double(*number, out),
        AnyValue::Double(number) => {
            out.push(b'"');
            write_double(*number, out);
            out.push(b'"');
        }
        AnyValue::Bytes(bytes) => write_json_text(&base64::encode(bytes), out),
        AnyValue::Array(values) => {
            out.push(b'[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_json(&value, out);
            }
            out.push(b']');
        }
        AnyValue::KvList(pairs) => write_json_object(pairs, out),
    }
}

/// Appends attributes as a JSON object.
pub fn write_json_object(pairs: &Attributes<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    for (index, pair) in pairs.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_json_text(pair.key, out);
        out.push(b':');
        write_json(&pair.value, out);
    }
    out.push(b'}');
}

/// Appends a JSON string with its quotes (RFC 8259 §7).
pub fn write_json_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[plain..at]);
        plain = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => formatted(out, format_args!("\\u{control:04x}")),
        }
    }
    out.extend_from_slice(&bytes[plain..]);
    out.push(b'"');
}

/// Appends a whole number.
pub fn write_number(number: i64, out: &mut Vec<u8>) {
    formatted(out, format_args!("{number}"));
}

/// The shortest digits that read back as the same double.
fn write_double(number: f64, out: &mut Vec<u8>) {
    let size = number.abs();
    if size != 0.0 && !(1e-6..1e17).contains(&size) && number.is_finite() {
        formatted(out, format_args!("{number:e}"));
    } else {
        formatted(out, format_args!("{number}"));
    }
}

/// Writing to memory does not fail.
fn formatted(out: &mut Vec<u8>, what: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::view::{KeyValue, View};
    use opentelemetry_proto::tonic::common::v1 as otlp;
    use otlp::any_value::Value;
    use prost::Message;

    fn pair(value: Value) -> Vec<u8> {
        otlp::KeyValue {
            key: "k".into(),
            value: Some(otlp::AnyValue { value: Some(value) }),
            ..otlp::KeyValue::default()
        }
        .encode_to_vec()
    }

    fn check(value: Value, text: &str, json: &str) {
        let bytes = pair(value);
        let value = KeyValue::read(&bytes).value;
        let (mut as_text, mut as_json) = (Vec::new(), Vec::new());
        write_text(&value, &mut as_text);
        write_json(&value, &mut as_json);
        assert_eq!(String::from_utf8(as_text).unwrap(), text);
        assert_eq!(String::from_utf8(as_json).unwrap(), json);
        serde_json::from_str::<serde_json::Value>(json).expect("is JSON");
    }

    #[test]
    fn values_read_as_a_person_would_write_them() {
        let text = |text: &str| Value::StringValue(text.into());
        check(text("a \"b\"\n\u{1}"), "a \"b\"\n\u{1}", "\"a \\\"b\\\"\\n\\u0001\"");
        check(Value::BoolValue(true), "true", "true");
        check(Value::IntValue(-7), "-7", "-7");
        check(Value::DoubleValue(1.5), "1.5", "1.5");
        check(Value::DoubleValue(1e300), "1e300", "1e300");
        check(Value::DoubleValue(f64::NAN), "NaN", "\"NaN\"");
        check(Value::DoubleValue(f64::NEG_INFINITY), "-inf", "\"-inf\"");
        check(Value::BytesValue(vec![1, 2, 3]), "AQID", "\"AQID\"");
        let list = otlp::ArrayValue {
            values: vec![
                otlp::AnyValue { value: Some(text("x")) },
                otlp::AnyValue { value: None },
                otlp::AnyValue {
                    value: Some(Value::IntValue(1)),
                },
            ],
        };
        check(Value::ArrayValue(list), "[\"x\",null,1]", "[\"x\",null,1]");
        let map = otlp::KeyValueList {
            values: vec![otlp::KeyValue::decode(pair(Value::BoolValue(false)).as_slice()).unwrap()],
        };
        check(Value::KvlistValue(map), "{\"k\":false}", "{\"k\":false}");
    }
}
