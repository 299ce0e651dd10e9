//! Typed JSON: how arrays, maps, bytes and empty values rest in `:json` columns, readable by anyone's JSON functions and exact for us.
//!
//! Integers are written without, doubles always with a point or exponent. `{"$bytes": "base64"}` and `{"$double": "NaN"}` stand for
//! what JSON lacks; a key of data that begins with `$` gets one more.

use std::fmt::Write;

use model::record::Value;
use model::view::{AnyValue, Attributes};

/// Nesting that the reader follows; the door lets less in.
const MAX_DEPTH: usize = 64;

pub fn write_text(out: &mut String, text: &str) {
    out.push('"');
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => "",
            _ => continue,
        };
        out.push_str(&text[from..at]);
        if escape.is_empty() {
            let _ = write!(out, "\\u{byte:04x}");
        } else {
            out.push_str(escape);
        }
        from = at + 1;
    }
    out.push_str(&text[from..]);
    out.push('"');
}

pub fn write_key(out: &mut String, key: &str) {
    if key.starts_with('$') {
        let mut escaped = String::with_capacity(key.len() + 1);
        escaped.push('$');
        escaped.push_str(key);
        write_text(out, &escaped);
    } else {
        write_text(out, key);
    }
    out.push(':');
}

fn write_double(out: &mut String, value: f64) {
    if value.is_finite() {
        let _ = write!(out, "{value:?}");
    } else {
        let name = if value.is_nan() {
            "NaN"
        } else if value > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        };
        let _ = write!(out, "{{\"$double\":\"{name}\"}}");
    }
}

fn write_bytes(out: &mut String, bytes: &[u8]) {
    let _ = write!(out, "{{\"$bytes\":\"{}\"}}", model::base64::encode(bytes));
}

/// Writes a value as it is encoded on the wire.
pub fn write_view(out: &mut String, value: &AnyValue<'_>) {
    match value {
        AnyValue::Empty => out.push_str("null"),
        AnyValue::Str(text) => write_text(out, text),
        AnyValue::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        AnyValue::Int(value) => {
            let _ = write!(out, "{value}");
        }
        AnyValue::Double(value) => write_double(out, *value),
        AnyValue::Bytes(bytes) => write_bytes(out, bytes),
        AnyValue::Array(values) => {
            out.push('[');
            for (i, value) in values.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_view(out, &value);
            }
            out.push(']');
        }
        AnyValue::KvList(pairs) => write_map(out, pairs),
    }
}

/// Writes attributes as an object.
pub fn write_map(out: &mut String, pairs: &Attributes<'_>) {
    out.push('{');
    for (i, pair) in pairs.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_key(out, pair.key);
        write_view(out, &pair.value);
    }
    out.push('}');
}

/// Reads what the writers here write; `None` for anything else.
pub fn parse(text: &str) -> Option<Value> {
    let mut parser = Parser { text, at: 0 };
    let value = parser.value(0)?;
    (parser.at == text.len()).then_some(value)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn word(&mut self, word: &str, value: Value) -> Option<Value> {
        self.text[self.at..].starts_with(word).then(|| {
            self.at += word.len();
            value
        })
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.peek()? {
            b'n' => self.word("null", Value::Null),
            b't' => self.word("true", Value::Bool(true)),
            b'f' => self.word("false", Value::Bool(false)),
            b'"' => Some(Value::Str(self.string()?)),
            b'[' => {
                self.at += 1;
                let mut values = Vec::new();
                if self.peek()? != b']' {
                    loop {
                        values.push(self.value(depth + 1)?);
                        if self.peek()? != b',' {
                            break;
                        }
                        self.at += 1;
                    }
                }
                self.eat(b']')?;
                Some(Value::Array(values))
            }
            b'{' => self.object(depth),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<Value> {
        self.at += 1;
        let mut pairs: Vec<(String, Value)> = Vec::new();
        let mut special = None;
        if self.peek()? != b'}' {
            loop {
                let key = self.string()?;
                self.eat(b':')?;
                let value = self.value(depth + 1)?;
                match key.strip_prefix('$') {
                    Some(data) if data.starts_with('$') => pairs.push((data.to_owned(), value)),
                    Some(name) => special = Some((name.to_owned(), value)),
                    None => pairs.push((key, value)),
                }
                if self.peek()? != b',' {
                    break;
                }
                self.at += 1;
            }
        }
        self.eat(b'}')?;
        match special {
            None => Some(Value::Map(pairs)),
            Some((name, Value::Str(text))) if pairs.is_empty() => match (name.as_str(), text.as_str()) {
                ("bytes", text) => Some(Value::Bytes(model::base64::decode(text)?)),
                ("double", "NaN") => Some(Value::Double(f64::NAN)),
                ("double", "Infinity") => Some(Value::Double(f64::INFINITY)),
                ("double", "-Infinity") => Some(Value::Double(f64::NEG_INFINITY)),
                _ => None,
            },
            Some(_) => None,
        }
    }

    fn number(&mut self) -> Option<Value> {
        let rest = &self.text[self.at..];
        let length = rest
            .find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E'))
            .unwrap_or(rest.len());
        let number = &rest[..length];
        self.at += length;
        if number.contains(['.', 'e', 'E']) {
            number.parse().ok().map(Value::Double)
        } else {
            number.parse().ok().map(Value::Int)
        }
    }

    fn string(&mut self) -> Option<String> {
        self.eat(b'"')?;
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let stop = rest.find(['"', '\\'])?;
            out.push_str(&rest[..stop]);
            self.at += stop + 1;
            if rest.as_bytes()[stop] == b'"' {
                return Some(out);
            }
            let escape = self.peek()?;
            self.at += 1;
            out.push(match escape {
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'"' => '"',
                b'\\' => '\\',
                b'u' => {
                    let digits = self.text.get(self.at..self.at + 4)?;
                    self.at += 4;
                    char::from_u32(u32::from_str_radix(digits, 16).ok()?)?
                }
                _ => return None,
            });
        }
    }
}

/// Writes an owned value; what `parse` reads back.
pub fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Str(text) => write_text(out, text),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Int(value) => {
            let _ = write!(out, "{value}");
        }
        Value::Double(value) => write_double(out, *value),
        Value::Bytes(bytes) => write_bytes(out, bytes),
        Value::Array(values) => {
            out.push('[');
            for (i, value) in values.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_value(out, value);
            }
            out.push(']');
        }
        Value::Map(pairs) => {
            out.push('{');
            for (i, (key, value)) in pairs.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_key(out, key);
                write_value(out, value);
            }
            out.push('}');
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            any::<f64>()
                .prop_filter("NaN differs from itself", |d| !d.is_nan())
                .prop_map(Value::Double),
            any::<String>().prop_map(Value::Str),
            proptest::collection::vec(any::<u8>(), 0..9).prop_map(Value::Bytes),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                proptest::collection::vec(("[$a-z\"]{0,6}", inner), 0..5).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_value_comes_back_with_its_type(value in values()) {
            let mut text = String::new();
            write_value(&mut text, &value);
            serde_json::from_str::<serde_json::Value>(&text).expect("is JSON");
            prop_assert_eq!(parse(&text), Some(value));
        }

        #[test]
        fn other_text_is_refused_not_a_panic(text in "[\\[\\]{}\",:$a-z0-9\\\\.u-]{0,40}") {
            let _ = parse(&text);
        }
    }
}
