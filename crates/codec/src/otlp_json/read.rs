//! OTLP/JSON to protobuf.

use std::fmt;

use model::Signal;
use model::canonical::MAX_VALUE_DEPTH;
use model::schema::{self, Field, Kind, Message, Role, Rule};
use model::{base64, wire};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};

/// JSON that is not an OTLP request: what is wrong, with line and column.
#[derive(Debug, thiserror::Error)]
#[error("malformed OTLP/JSON: {0}")]
pub struct BadJson(#[from] serde_json::Error);

/// Translates a request from OTLP/JSON. The result is legal protobuf, but not yet canonical: ids may be of any length,
/// and fields are in the order in which they were sent. Keys that OTLP does not define are skipped.
pub fn to_protobuf(signal: Signal, json: &[u8]) -> Result<Vec<u8>, BadJson> {
    let mut out = Vec::with_capacity(json.len() / 2);
    let mut reader = serde_json::Deserializer::from_slice(json);
    let body = Body {
        message: schema::request(signal),
        depth: 0,
        out: &mut out,
    };
    body.deserialize(&mut reader)?;
    reader.end()?;
    Ok(out)
}

/// Appends the fields of a message, read from a JSON object.
struct Body<'o> {
    message: &'static Message,
    /// Values around this message.
    depth: u32,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Body<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Body<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object ({})", self.message.name)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(field) = map.next_key_seed(Key(self.message))? {
            match field {
                None => drop(map.next_value::<IgnoredAny>()?),
                Some(field) => map.next_value_seed(Value {
                    field,
                    depth: self.depth,
                    out: self.out,
                })?,
            }
        }
        Ok(())
    }
}

/// Finds the field that a key names.
struct Key(&'static Message);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<&'static Field>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<&'static Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.fields.iter().find(|field| field.name == key))
    }
}

/// Appends a field; `null` is as good as absent.
struct Value<'o> {
    field: &'static Field,
    depth: u32,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of {}", self.field.name)
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        let Value { field, depth, out } = self;
        match field.rule {
            Rule::Many | Rule::Map => reader.deserialize_seq(Elements { field, depth, out }),
            Rule::Packed => {
                wire::put_tag(out, field.number, wire::BYTES);
                let open = wire::open_length(out, 0);
                reader.deserialize_seq(Numbers { field, out })?;
                wire::close_length(out, open);
                Ok(())
            }
            _ => Element { field, depth, out }.deserialize(reader),
        }
    }
}

/// Appends each element of an array as a field.
struct Elements<'o> {
    field: &'static Field,
    depth: u32,
    out: &'o mut Vec<u8>,
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array ({})", self.field.name)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<(), S::Error> {
        while seq
            .next_element_seed(Element {
                field: self.field,
                depth: self.depth,
                out: self.out,
            })?
            .is_some()
        {}
        Ok(())
    }
}

/// Appends the numbers of an array, packed.
struct Numbers<'o> {
    field: &'static Field,
    out: &'o mut Vec<u8>,
}

impl<'de> Visitor<'de> for Numbers<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of numbers ({})", self.field.name)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<(), S::Error> {
        while seq
            .next_element_seed(Scalar {
                field: self.field,
                tagged: false,
                out: self.out,
            })?
            .is_some()
        {}
        Ok(())
    }
}

/// Appends one message or scalar with its tag.
struct Element<'o> {
    field: &'static Field,
    depth: u32,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        let Element { field, depth, out } = self;
        let Kind::Message(message) = field.kind else {
            return Scalar {
                field,
                tagged: true,
                out,
            }
            .deserialize(reader);
        };
        let depth = depth + u32::from(message.role == Role::AnyValue);
        if depth > MAX_VALUE_DEPTH {
            return Err(D::Error::custom(format_args!(
                "values nest deeper than {MAX_VALUE_DEPTH} levels"
            )));
        }
        wire::put_message(out, field.number, 0, |out| {
            Body { message, depth, out }.deserialize(reader)
        })
    }
}

/// Appends one scalar, with its tag unless it is packed.
struct Scalar<'o> {
    field: &'static Field,
    tagged: bool,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Scalar<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl Scalar<'_> {
    fn tag(&mut self, wire_type: u8) {
        if self.tagged {
            wire::put_tag(self.out, self.field.number, wire_type);
        }
    }

    /// An integer, which every spelling of one ends up as.
    fn integer<E: Error>(mut self, value: i128) -> Result<(), E> {
        let number = |signed: bool, bits: u32| {
            let (low, high) = if signed {
                (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
            } else {
                (0, (1 << bits) - 1)
            };
            if (low..=high).contains(&value) {
                Ok(value as u64)
            } else {
                Err(E::custom(format_args!(
                    "{value} is out of range for {}",
                    self.field.name
                )))
            }
        };
        match self.field.kind {
            Kind::Int64 => self.varint(number(true, 64)?),
            Kind::Uint64 => self.varint(number(false, 64)?),
            Kind::Int32 | Kind::Enum => self.varint(number(true, 32)?),
            Kind::Uint32 => self.varint(number(false, 32)?),
            Kind::Sint32 => {
                let value = number(true, 32)? as i32;
                self.varint(u64::from((value << 1 ^ value >> 31) as u32));
            }
            Kind::Fixed32 => {
                let value = number(false, 32)? as u32;
                self.tag(wire::FIXED32);
                self.out.extend_from_slice(&value.to_le_bytes());
            }
            Kind::Fixed64 => self.fixed64(number(false, 64)?),
            Kind::Sfixed64 => self.fixed64(number(true, 64)?),
            Kind::Double => self.fixed64((value as f64).to_bits()),
            _ => return Err(E::invalid_type(Unexpected::Other("number"), &self)),
        }
        Ok(())
    }

    fn varint(&mut self, value: u64) {
        self.tag(wire::VARINT);
        wire::put_varint(self.out, value);
    }

    fn fixed64(&mut self, value: u64) {
        self.tag(wire::FIXED64);
        self.out.extend_from_slice(&value.to_le_bytes());
    }
}

/// Doubles above 2^53 stand for many integers, so that only those below say exactly which one is meant.
const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

impl Visitor<'_> for Scalar<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.field.kind {
            Kind::Bool => "true or false",
            Kind::Text => "a string",
            Kind::Bytes => "a string in base64",
            Kind::TraceId | Kind::SpanId => "a string in hex",
            Kind::Double => "a number, or a string of one",
            Kind::Enum => "the integer of an enum (OTLP/JSON does not take names)",
            _ => "an integer, or a string of one",
        };
        write!(f, "{what} ({})", self.field.name)
    }

    fn visit_bool<E: Error>(mut self, value: bool) -> Result<(), E> {
        match self.field.kind {
            Kind::Bool => {
                self.varint(u64::from(value));
                Ok(())
            }
            _ => Err(E::invalid_type(Unexpected::Bool(value), &self)),
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.integer(i128::from(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.integer(i128::from(value))
    }

    fn visit_f64<E: Error>(mut self, value: f64) -> Result<(), E> {
        match self.field.kind {
            Kind::Double => {
                self.fixed64(value.to_bits());
                Ok(())
            }
            // Some senders write whole numbers as 1.0 or 1e3; protobuf's JSON mapping takes them.
            _ if value.fract() == 0.0 && value.abs() <= MAX_EXACT_INTEGER => self.integer(value as i128),
            _ => Err(E::invalid_type(Unexpected::Float(value), &self)),
        }
    }

    fn visit_str<E: Error>(mut self, value: &str) -> Result<(), E> {
        let number = self.field.number;
        match self.field.kind {
            Kind::Text => wire::put_bytes(self.out, number, value.as_bytes()),
            Kind::Bytes => {
                let bytes = base64::decode(value).ok_or_else(|| E::invalid_value(Unexpected::Str(value), &self))?;
                wire::put_bytes(self.out, number, &bytes);
            }
            Kind::TraceId | Kind::SpanId => {
                wire::put_tag(self.out, number, wire::BYTES);
                wire::put_varint(self.out, value.len() as u64 / 2);
                if !put_hex(self.out, value.as_bytes()) {
                    return Err(E::invalid_value(Unexpected::Str(value), &self));
                }
            }
            Kind::Double => {
                let double = match value {
                    "NaN" => f64::NAN,
                    "Infinity" => f64::INFINITY,
                    "-Infinity" => f64::NEG_INFINITY,
                    _ => value
                        .parse()
                        .ok()
                        .filter(|double: &f64| double.is_finite())
                        .ok_or_else(|| E::invalid_value(Unexpected::Str(value), &self))?,
                };
                self.fixed64(double.to_bits());
            }
            Kind::Bool | Kind::Enum | Kind::Message(_) => return Err(E::invalid_type(Unexpected::Str(value), &self)),
            _ => match value.parse() {
                Ok(integer) => return self.integer(integer),
                Err(_) => return Err(E::invalid_value(Unexpected::Str(value), &self)),
            },
        }
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Err(E::invalid_type(Unexpected::Unit, &self))
    }
}

/// Appends the bytes of hex digits in either case; `false` if they are not.
fn put_hex(out: &mut Vec<u8>, text: &[u8]) -> bool {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    for pair in text.chunks(2) {
        let [high, low] = *pair else { return false };
        let (Some(high), Some(low)) = (digit(high), digit(low)) else {
            return false;
        };
        out.push((high << 4 | low) as u8);
    }
    true
}
