//! Why: what an expression yields. A value borrows from the telemetry or from the statement wherever it can; lists and maps stay encoded.

use std::borrow::Cow;
use std::cmp::Ordering;

use model::base64;
use model::canonical::MAX_VALUE_DEPTH;
use model::edit::put_value;
use model::view::{AnyValue, Array, Attributes, List, View};
use model::wire::put_bytes;

use super::Fault;
use super::ast::Comparison;
use super::time;

#[derive(Debug, Clone)]
pub enum Value<'v> {
    Nil,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Cow<'v, str>),
    Bytes(Cow<'v, [u8]>),
    /// The elements, encoded in field 1.
    List(Cow<'v, [u8]>),
    Map(Pairs<'v>),
    /// Nanoseconds since 1970.
    Time(i64),
    /// In nanoseconds.
    Duration(i64),
}

/// Encoded pairs, and the number of the field that holds each.
#[derive(Debug, Clone)]
pub struct Pairs<'v> {
    pub stretch: Cow<'v, [u8]>,
    pub number: u32,
}

impl Pairs<'_> {
    pub fn view(&self) -> Attributes<'_> {
        List::new(&self.stretch, self.number)
    }
}

impl<'v> From<AnyValue<'v>> for Value<'v> {
    fn from(value: AnyValue<'v>) -> Value<'v> {
        match value {
            AnyValue::Empty => Value::Nil,
            AnyValue::Str(text) => Value::Text(Cow::Borrowed(text)),
            AnyValue::Bool(value) => Value::Bool(value),
            AnyValue::Int(number) => Value::Int(number),
            AnyValue::Double(number) => Value::Double(number),
            AnyValue::Bytes(bytes) => Value::Bytes(Cow::Borrowed(bytes)),
            AnyValue::Array(values) => Value::List(Cow::Borrowed(values.stretch())),
            AnyValue::KvList(pairs) => Value::Map(Pairs {
                stretch: Cow::Borrowed(pairs.stretch()),
                number: pairs.number(),
            }),
        }
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value::Text(Cow::Owned(text))
    }
}

impl<'v> Value<'v> {
    /// What it is, in a message.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Nil => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) => "a whole number",
            Value::Double(_) => "a decimal number",
            Value::Text(_) => "a text",
            Value::Bytes(_) => "bytes",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
            Value::Time(_) => "a time",
            Value::Duration(_) => "a duration",
        }
    }

    /// As a view; times and durations have none.
    pub fn view(&self) -> Option<AnyValue<'_>> {
        Some(match self {
            Value::Nil => AnyValue::Empty,
            Value::Bool(value) => AnyValue::Bool(*value),
            Value::Int(number) => AnyValue::Int(*number),
            Value::Double(number) => AnyValue::Double(*number),
            Value::Text(text) => AnyValue::Str(text),
            Value::Bytes(bytes) => AnyValue::Bytes(bytes),
            Value::List(stretch) => AnyValue::Array(List::new(stretch, 1)),
            Value::Map(pairs) => AnyValue::KvList(pairs.view()),
            Value::Time(_) | Value::Duration(_) => return None,
        })
    }

    /// Appends the fields of an `AnyValue`.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Fault> {
        let Some(view) = self.view() else {
            return Err(Fault::from(format!(
                "{} cannot be kept as a value; convert it, for example with `UnixNano`, `Nanoseconds` or `String`",
                self.kind()
            )));
        };
        put_value(out, view);
        Ok(())
    }

    /// As a text: texts as they are, numbers and booleans as they are written, bytes in hexadecimal, lists and maps as JSON. `None` for nothing.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        Some(match self {
            Value::Nil => return None,
            Value::Text(text) => Cow::Borrowed(text),
            Value::Bool(value) => Cow::Borrowed(if *value { "true" } else { "false" }),
            Value::Int(number) => Cow::Owned(number.to_string()),
            Value::Double(number) => Cow::Owned(number.to_string()),
            Value::Bytes(bytes) => Cow::Owned(crate::processors::actions::hex(bytes)),
            Value::List(stretch) => Cow::Owned(json(AnyValue::Array(List::new(stretch, 1))).to_string()),
            Value::Map(pairs) => Cow::Owned(json(AnyValue::KvList(pairs.view())).to_string()),
            Value::Time(nanos) => Cow::Owned(time::rfc3339(*nanos)),
            Value::Duration(nanos) => Cow::Owned(time::duration_text(*nanos)),
        })
    }

    /// As [`Value::text`], owning.
    pub fn into_text(self) -> Option<Cow<'v, str>> {
        match self {
            Value::Text(text) => Some(text),
            other => other.text().map(|text| Cow::Owned(text.into_owned())),
        }
    }
}

/// A value as JSON; bytes in base64.
pub fn json(value: AnyValue<'_>) -> serde_json::Value {
    match value {
        AnyValue::Empty => serde_json::Value::Null,
        AnyValue::Str(text) => text.into(),
        AnyValue::Bool(value) => value.into(),
        AnyValue::Int(number) => number.into(),
        AnyValue::Double(number) => number.into(),
        AnyValue::Bytes(bytes) => base64::encode(bytes).into(),
        AnyValue::Array(values) => values.iter().map(json).collect::<Vec<_>>().into(),
        AnyValue::KvList(pairs) => {
            let pairs = pairs.iter().map(|pair| (pair.key.to_owned(), json(pair.value)));
            serde_json::Value::Object(pairs.collect())
        }
    }
}

/// Appends the fields of an `AnyValue` that says what this JSON says.
pub fn encode_json(value: &serde_json::Value, out: &mut Vec<u8>) {
    use serde_json::Value as Json;
    match value {
        Json::Null => {}
        Json::Bool(value) => put_value(out, AnyValue::Bool(*value)),
        Json::String(text) => put_value(out, AnyValue::Str(text)),
        Json::Number(number) => match number.as_i64() {
            Some(number) => put_value(out, AnyValue::Int(number)),
            None => put_value(out, AnyValue::Double(number.as_f64().unwrap_or_default())),
        },
        Json::Array(values) => {
            let mut stretch = Vec::new();
            for value in values {
                let mut element = Vec::new();
                encode_json(value, &mut element);
                put_bytes(&mut stretch, 1, &element);
            }
            put_bytes(out, 5, &stretch);
        }
        Json::Object(pairs) => {
            let mut stretch = Vec::new();
            for (key, value) in pairs {
                let mut element = Vec::new();
                encode_json(value, &mut element);
                model::edit::message::put_pair(&mut stretch, 1, key, &element);
            }
            put_bytes(out, 6, &stretch);
        }
    }
}

/// Whether a value nests no deeper than a payload may, below this many levels that are around it.
pub fn shallow_enough(value: AnyValue<'_>, around: u32) -> bool {
    match value {
        _ if around >= MAX_VALUE_DEPTH => false,
        AnyValue::Array(values) => values.iter().all(|value| shallow_enough(value, around + 1)),
        AnyValue::KvList(pairs) => pairs.iter().all(|pair| shallow_enough(pair.value, around + 1)),
        _ => true,
    }
}

/// Compares as the language does: numbers of both kinds with each other, other values only with their own kind; values of different kinds are unequal and
/// in no order.
pub fn compare(one: &Value<'_>, how: Comparison, other: &Value<'_>) -> bool {
    let order = match (one, other) {
        (Value::Nil, Value::Nil) => Some(Ordering::Equal),
        (Value::Int(one), Value::Int(other)) => Some(one.cmp(other)),
        (Value::Double(one), Value::Double(other)) => one.partial_cmp(other),
        (Value::Int(one), Value::Double(other)) => (*one as f64).partial_cmp(other),
        (Value::Double(one), Value::Int(other)) => one.partial_cmp(&(*other as f64)),
        (Value::Text(one), Value::Text(other)) => Some(one.cmp(other)),
        (Value::Bytes(one), Value::Bytes(other)) => Some(one.cmp(other)),
        (Value::Bool(one), Value::Bool(other)) => Some(one.cmp(other)),
        (Value::Time(one), Value::Time(other)) | (Value::Duration(one), Value::Duration(other)) => Some(one.cmp(other)),
        (Value::List(_) | Value::Map(_), Value::List(_) | Value::Map(_)) => {
            let same = match (one.view(), other.view()) {
                (Some(one), Some(other)) => equal(one, other),
                _ => false,
            };
            return match how {
                Comparison::Equal => same,
                Comparison::NotEqual => !same,
                _ => false,
            };
        }
        _ => None,
    };
    match how {
        Comparison::Equal => order == Some(Ordering::Equal),
        Comparison::NotEqual => order != Some(Ordering::Equal),
        Comparison::Less => order == Some(Ordering::Less),
        Comparison::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Comparison::Greater => order == Some(Ordering::Greater),
        Comparison::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}

fn equal(one: AnyValue<'_>, other: AnyValue<'_>) -> bool {
    match (one, other) {
        (AnyValue::Array(one), AnyValue::Array(other)) => same_list(one, other),
        (AnyValue::KvList(one), AnyValue::KvList(other)) => {
            one.count() == other.count()
                && one
                    .iter()
                    .all(|pair| other.get(pair.key).is_some_and(|value| equal(pair.value, value)))
        }
        (AnyValue::Array(_) | AnyValue::KvList(_), _) | (_, AnyValue::Array(_) | AnyValue::KvList(_)) => false,
        (one, other) => compare(&one.into(), Comparison::Equal, &other.into()),
    }
}

fn same_list(one: Array<'_>, other: Array<'_>) -> bool {
    one.count() == other.count() && one.iter().zip(other).all(|(one, other)| equal(one, other))
}

/// The elements of an encoded list.
pub fn elements(stretch: &[u8]) -> impl Iterator<Item = AnyValue<'_>> {
    List::<AnyValue<'_>>::new(stretch, 1).iter()
}

/// An encoded `AnyValue` as a value.
pub fn read(encoded: &[u8]) -> Value<'_> {
    AnyValue::read(encoded).into()
}
