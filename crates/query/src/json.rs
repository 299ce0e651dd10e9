//! How ids, instants and attribute values are written in JSON, and read back by the command line.

use std::fmt;

use model::record::Value;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The largest integer that a JSON number keeps in JavaScript; beyond it integers become strings (as Jaeger does it).
const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

const HEX: &[u8; 16] = b"0123456789abcdef";

fn hex_into<'a>(bytes: &[u8], buffer: &'a mut [u8; 32]) -> &'a str {
    for (i, byte) in bytes.iter().enumerate() {
        buffer[2 * i] = HEX[usize::from(byte >> 4)];
        buffer[2 * i + 1] = HEX[usize::from(byte & 15)];
    }
    std::str::from_utf8(&buffer[..2 * bytes.len()]).unwrap_or_default()
}

fn hex_from<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(bytes)
}

macro_rules! id_as_hex {
    ($module:ident, $id:ident) => {
        pub mod $module {
            use model::$id;
            use serde::{Deserialize, Deserializer, Serializer};

            pub fn serialize<S: Serializer>(id: &$id, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(super::hex_into(&id.0, &mut [0; 32]))
            }

            pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$id, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                super::hex_from(&text)
                    .map($id)
                    .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not an id in hex")))
            }
        }
    };
}

id_as_hex!(trace_id, TraceId);
id_as_hex!(span_id, SpanId);

pub mod optional_span_id {
    use model::SpanId;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(id: &Option<SpanId>, serializer: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => super::span_id::serialize(id, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SpanId>, D::Error> {
        #[derive(Deserialize)]
        struct Id(#[serde(with = "super::span_id")] SpanId);
        Ok(Option::<Id>::deserialize(deserializer)?.map(|id| id.0))
    }
}

/// A `u64` as a string of decimal digits.
pub mod decimal {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse()
            .map_err(|_| serde::de::Error::custom(format!("`{text}` is not a number of nanoseconds")))
    }
}

/// Attributes as an object, in their order.
pub mod attributes {
    use super::*;

    pub fn serialize<S: Serializer>(attributes: &[(String, Value)], serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(attributes.len()))?;
        for (key, value) in attributes {
            map.serialize_entry(key, &Out(value))?;
        }
        map.end()
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, Value)>, D::Error> {
        match In::deserialize(deserializer)?.0 {
            Value::Map(entries) => Ok(entries),
            other => Err(de::Error::custom(format!("attributes are an object, not {other:?}"))),
        }
    }
}

pub mod optional_attributes {
    use super::*;

    pub fn serialize<S: Serializer>(
        attributes: &Option<Vec<(String, Value)>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match attributes {
            Some(attributes) => super::attributes::serialize(attributes, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<(String, Value)>>, D::Error> {
        #[derive(Deserialize)]
        struct Entries(#[serde(with = "super::attributes")] Vec<(String, Value)>);
        Ok(Option::<Entries>::deserialize(deserializer)?.map(|entries| entries.0))
    }
}

/// One value of any shape.
pub mod value {
    use super::*;

    pub fn serialize<S: Serializer>(value: &Value, serializer: S) -> Result<S::Ok, S::Error> {
        Out(value).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        Ok(In::deserialize(deserializer)?.0)
    }
}

/// Writes a value as plain JSON: bytes as base64, numbers that JSON cannot hold as strings.
pub struct Out<'a>(pub &'a Value);

impl Serialize for Out<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Int(value) if value.unsigned_abs() > MAX_SAFE_INTEGER => serializer.collect_str(value),
            Value::Int(value) => serializer.serialize_i64(*value),
            Value::Double(value) if value.is_finite() => serializer.serialize_f64(*value),
            // The names are those of protobuf's JSON mapping.
            Value::Double(value) if value.is_nan() => serializer.serialize_str("NaN"),
            Value::Double(value) => serializer.serialize_str(if *value > 0.0 { "Infinity" } else { "-Infinity" }),
            Value::Str(value) => serializer.serialize_str(value),
            Value::Bytes(value) => serializer.serialize_str(&model::base64::encode(value)),
            Value::Array(values) => {
                let mut seq = serializer.serialize_seq(Some(values.len()))?;
                for value in values {
                    seq.serialize_element(&Out(value))?;
                }
                seq.end()
            }
            Value::Map(entries) => attributes::serialize(entries, serializer),
        }
    }
}

/// A value as one piece of text: strings as they are, everything else as its JSON.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Str(text) => text.to_string(),
        other => serde_json::to_string(&Out(other)).unwrap_or_default(),
    }
}

struct In(Value);

impl<'de> Deserialize<'de> for In {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<In, D::Error> {
        deserializer.deserialize_any(ValueVisitor).map(In)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Double(value as f64), Value::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Double(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Str(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(In(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, In(value))) = map.next_entry::<String, In>()? {
            entries.push((key, value));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_json_cannot_hold_become_strings() {
        let value = Value::Array(vec![
            Value::Int(1 << 53),
            Value::Int((1 << 53) - 1),
            Value::Double(f64::NAN),
            Value::Double(f64::NEG_INFINITY),
            Value::Bytes(vec![0, 0, 0x30, 0x39]),
            Value::Null,
        ]);
        assert_eq!(
            text(&value),
            r#"["9007199254740992",9007199254740991,"NaN","-Infinity","AAAwOQ==",null]"#
        );
    }

    #[test]
    fn attributes_keep_their_order_there_and_back() {
        let source = r#"{"z":1,"a":{"nested":[true,2.5,"x"]},"m":null}"#;
        let read = attributes::deserialize(&mut serde_json::Deserializer::from_str(source)).unwrap();
        let mut written = Vec::new();
        attributes::serialize(&read, &mut serde_json::Serializer::new(&mut written)).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), source);
    }
}
