//! Attributes and the values they hold.

use super::list::{List, View};
use super::text;
use crate::record::{self, Value};
use crate::wire::{self, Fields, Payload};

/// The pairs of a resource, scope, span, event, link, log record, data point or key-value list. Keys are unique.
pub type Attributes<'a> = List<'a, KeyValue<'a>>;

/// The elements of an array value.
pub type Array<'a> = List<'a, AnyValue<'a>>;

#[derive(Debug, Clone, Copy)]
pub struct KeyValue<'a> {
    pub key: &'a str,
    pub value: AnyValue<'a>,
}

#[derive(Debug, Clone, Copy, Default)]
pub enum AnyValue<'a> {
    /// Present, but without a value that OTLP's traces, logs and metrics define.
    #[default]
    Empty,
    Str(&'a str),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(&'a [u8]),
    Array(Array<'a>),
    KvList(Attributes<'a>),
}

impl<'a> View<'a> for KeyValue<'a> {
    #[inline]
    fn read(message: &'a [u8]) -> Self {
        if let Some((key, value)) = wire::plain_pair(message) {
            return KeyValue {
                key: text(key),
                value: AnyValue::read(value),
            };
        }
        let mut pair = KeyValue {
            key: "",
            value: AnyValue::Empty,
        };
        for (number, payload) in Fields::new(message) {
            match number {
                1 => pair.key = text(payload.bytes()),
                2 => pair.value = AnyValue::read(payload.bytes()),
                _ => {}
            }
        }
        pair
    }
}

impl<'a> View<'a> for AnyValue<'a> {
    #[inline]
    fn read(message: &'a [u8]) -> Self {
        if let Some(value) = wire::plain_text(message) {
            return AnyValue::Str(text(value));
        }
        let mut value = AnyValue::Empty;
        for field in Fields::new(message) {
            match field {
                (1, Payload::Bytes(bytes)) => value = AnyValue::Str(text(bytes)),
                (2, Payload::Varint(number)) => value = AnyValue::Bool(number != 0),
                (3, Payload::Varint(number)) => value = AnyValue::Int(number as i64),
                (4, Payload::Fixed64(bits)) => value = AnyValue::Double(f64::from_bits(bits)),
                (5, Payload::Bytes(bytes)) => value = AnyValue::Array(List::new(bytes, 1)),
                (6, Payload::Bytes(bytes)) => value = AnyValue::KvList(List::new(bytes, 1)),
                (7, Payload::Bytes(bytes)) => value = AnyValue::Bytes(bytes),
                _ => {}
            }
        }
        value
    }
}

impl<'a> List<'a, KeyValue<'a>> {
    /// The value of a key; walks the list.
    pub fn get(&self, key: &str) -> Option<AnyValue<'a>> {
        self.raw().find_map(|pair| match wire::plain_pair(pair) {
            Some((found, value)) => (found == key.as_bytes()).then(|| AnyValue::read(value)),
            None => {
                let pair = KeyValue::read(pair);
                (pair.key == key).then_some(pair.value)
            }
        })
    }

    /// The value of a key if it is text; walks the list.
    pub fn get_str(&self, key: &str) -> Option<&'a str> {
        self.get(key)?.as_str()
    }

    /// Copies all pairs.
    pub fn to_owned(&self) -> record::Attributes {
        self.iter()
            .map(|pair| (pair.key.to_owned(), pair.value.to_owned()))
            .collect()
    }
}

impl<'a> AnyValue<'a> {
    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&'a str> {
        match self {
            AnyValue::Str(text) => Some(text),
            _ => None,
        }
    }

    /// Copies the value with all that it holds.
    pub fn to_owned(&self) -> Value {
        match self {
            AnyValue::Empty => Value::Null,
            AnyValue::Str(value) => Value::Str((*value).to_owned()),
            AnyValue::Bool(value) => Value::Bool(*value),
            AnyValue::Int(value) => Value::Int(*value),
            AnyValue::Double(value) => Value::Double(*value),
            AnyValue::Bytes(value) => Value::Bytes(value.to_vec()),
            AnyValue::Array(values) => Value::Array(values.iter().map(|value| value.to_owned()).collect()),
            AnyValue::KvList(pairs) => Value::Map(pairs.to_owned()),
        }
    }
}
