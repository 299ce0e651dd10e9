//! Why: a component's settings are an ordinary serde struct with `deny_unknown_fields`; this reads one from the tree and turns whatever goes wrong
//! into a [`Problem`] at its place.
//!
//! Serde stops at the first mistake. To show all of them, the offending entry is taken out of a copy of the tree and reading starts again, up
//! to a bound.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Unexpected, Visitor};

use super::diagnostic::{Problem, Span, suggest};
use super::yaml::{Node, Scalar, Value};

/// After so many mistakes in one component the rest is noise.
const MAX_PROBLEMS: usize = 20;

/// Reads a `T`; on failure, all mistakes that could be found.
pub fn read<T: DeserializeOwned>(node: &Node) -> Result<T, Vec<Problem>> {
    let mut error = match T::deserialize(Reader { node }) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let mut problems = vec![error.clone().into_problem(node.span)];
    let mut removed: Vec<String> = Vec::new();
    let mut left = node.clone();
    while problems.len() < MAX_PROBLEMS {
        let Some(key) = error.span.and_then(|span| take_out(&mut left, span)) else {
            break;
        };
        removed.push(key);
        error = match T::deserialize(Reader { node: &left }) {
            Ok(_) => break,
            Err(error) => error,
        };
        // What is missing because it was taken out, or was written with another spelling, has been reported already.
        if error.missing.is_some_and(|field| {
            let meant = format!("did you mean `{field}`?");
            removed.iter().any(|key| key == field)
                || problems.iter().any(|problem| problem.hint.as_ref() == Some(&meant))
        }) {
            break;
        }
        problems.push(error.clone().into_problem(node.span));
    }
    Err(problems)
}

/// Removes the entry or list item at `span`; its key, or an empty text for an item.
fn take_out(node: &mut Node, span: Span) -> Option<String> {
    match &mut node.value {
        Value::Scalar(_) => None,
        Value::List(list) => {
            if let Some(key) = list.iter_mut().find_map(|item| take_out(item, span)) {
                return Some(key);
            }
            let at = list.iter().position(|item| item.span == span)?;
            list.remove(at);
            Some(String::new())
        }
        Value::Map(entries) => {
            if let Some(key) = entries.iter_mut().find_map(|entry| take_out(&mut entry.value, span)) {
                return Some(key);
            }
            let at = entries
                .iter()
                .position(|entry| entry.key_span == span || entry.value.span == span)?;
            Some(entries.remove(at).key)
        }
    }
}

/// A mistake on its way out of serde; the innermost reader that knows a place gives it one.
#[derive(Debug, Clone)]
pub struct Error {
    span: Option<Span>,
    message: String,
    hint: Option<String>,
    missing: Option<&'static str>,
}

impl Error {
    fn new(message: impl Into<String>) -> Error {
        Error {
            span: None,
            message: message.into(),
            hint: None,
            missing: None,
        }
    }

    fn at(mut self, span: Span) -> Error {
        self.span.get_or_insert(span);
        self
    }

    fn into_problem(self, otherwise: Span) -> Problem {
        Problem {
            span: Some(self.span.unwrap_or(otherwise)),
            message: self.message,
            hint: self.hint,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Error {
        Error::new(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Error {
        Error::new(format!(
            "expected {}, found {found}",
            plain_words(&expected.to_string())
        ))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Error {
        Error::new(format!(
            "expected {}, found {found}",
            plain_words(&expected.to_string())
        ))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Error {
        let hint = suggest(field, expected.iter().copied());
        Error {
            hint,
            ..Error::new(format!("unknown key `{field}`"))
        }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Error {
        let hint = suggest(variant, expected.iter().copied());
        Error {
            hint,
            ..Error::new(format!("`{variant}` is not one of the choices here"))
        }
    }

    fn missing_field(field: &'static str) -> Error {
        Error {
            missing: Some(field),
            ..Error::new(format!("the key `{field}` is missing"))
        }
    }

    fn duplicate_field(field: &'static str) -> Error {
        Error::new(format!("`{field}` is set twice"))
    }
}

/// Serde's names of Rust types, as a person would say them.
fn plain_words(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number that fits",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "`true` or `false`",
        "a string" => "a text",
        "a sequence" => "a list",
        other if other.starts_with("struct ") => "a map of settings",
        other => other,
    }
}

/// Reads one node.
#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node,
}

impl<'a> Reader<'a> {
    fn wrong(self, expected: &str) -> Error {
        if let Value::Scalar(scalar) = &self.node.value
            && let Some(name) = scalar.unset.first()
        {
            let message = format!("expected {expected}, but the environment variable {name} is not set");
            let hint = Some(format!("set it, or give a default: `${{env:{name}:-…}}`"));
            return Error {
                hint,
                ..Error::new(message)
            }
            .at(self.node.span);
        }
        Error::new(format!("expected {expected}, found {}", self.node.describe())).at(self.node.span)
    }

    fn scalar(self, expected: &str) -> Result<&'a Scalar, Error> {
        match &self.node.value {
            Value::Scalar(scalar) if !scalar.is_null() => Ok(scalar),
            _ => Err(self.wrong(expected)),
        }
    }

    fn whole<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        let number = self
            .scalar("a whole number")?
            .as_i64()
            .ok_or_else(|| self.wrong("a whole number"))?;
        self.placed(visitor.visit_i64(number))
    }

    fn placed<T>(self, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|error| error.at(self.node.span))
    }
}

macro_rules! whole_numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
            self.whole(visitor)
        }
    )*};
}

impl<'a> Deserializer<'a> for Reader<'a> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        let Value::Scalar(scalar) = self.node.shape() else {
            return match self.node.shape() {
                Value::List(_) => self.deserialize_seq(visitor),
                _ => self.deserialize_map(visitor),
            };
        };
        let result = if scalar.is_null() && scalar.unset.is_empty() {
            visitor.visit_unit()
        } else if let Some(value) = scalar.as_bool() {
            visitor.visit_bool(value)
        } else if let Some(number) = scalar.as_i64() {
            visitor.visit_i64(number)
        } else if let Some(number) = scalar.as_f64() {
            visitor.visit_f64(number)
        } else {
            visitor.visit_str(&scalar.text)
        };
        self.placed(result)
    }

    fn deserialize_bool<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        let value = self
            .scalar("`true` or `false`")?
            .as_bool()
            .ok_or_else(|| self.wrong("`true` or `false`"))?;
        self.placed(visitor.visit_bool(value))
    }

    whole_numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    fn deserialize_f32<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        let number = self
            .scalar("a number")?
            .as_f64()
            .ok_or_else(|| self.wrong("a number"))?;
        self.placed(visitor.visit_f64(number))
    }

    fn deserialize_char<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_str<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            // A variable that is not set is an empty text; `""` is one too.
            Value::Scalar(scalar) if !scalar.is_null() || !scalar.unset.is_empty() || scalar.substituted => {
                let result = visitor.visit_str(&scalar.text);
                // Whoever refuses an empty text here should hear why it is empty.
                match (result, scalar.unset.first()) {
                    (Err(error), Some(name)) => {
                        let hint = Some(format!("the environment variable {name} is not set"));
                        Err(Error { hint, ..error }.at(self.node.span))
                    }
                    (result, _) => self.placed(result),
                }
            }
            _ => Err(self.wrong("a text")),
        }
    }

    fn deserialize_string<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Scalar(scalar) if scalar.is_null() && scalar.unset.is_empty() => self.placed(visitor.visit_none()),
            _ => self.placed(visitor.visit_some(self)),
        }
    }

    fn deserialize_unit<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.node.is_null() {
            self.placed(visitor.visit_unit())
        } else {
            Err(self.wrong("nothing"))
        }
    }

    fn deserialize_unit_struct<V: Visitor<'a>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'a>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Error> {
        self.placed(visitor.visit_newtype_struct(self))
    }

    fn deserialize_seq<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.shape() {
            Value::List(list) => self.placed(visitor.visit_seq(Items { list: list.iter() })),
            _ => Err(self.wrong("a list")),
        }
    }

    fn deserialize_tuple<V: Visitor<'a>>(self, _len: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'a>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    /// A key without a value is an empty map: all settings at their defaults.
    fn deserialize_map<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.shape() {
            Value::Map(_) => {}
            _ if self.node.is_null() => {}
            _ => return Err(self.wrong("a map of settings")),
        }
        self.placed(visitor.visit_map(Entries {
            entries: self.node.entries().iter(),
            value: None,
        }))
    }

    fn deserialize_struct<V: Visitor<'a>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'a>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Scalar(scalar) if !scalar.is_null() => {
                let text: StrDeserializer<'_, Error> = de::IntoDeserializer::into_deserializer(scalar.text.as_str());
                self.placed(text.deserialize_enum(name, variants, visitor))
            }
            _ => {
                let choices: Vec<String> = variants.iter().map(|variant| format!("`{variant}`")).collect();
                Err(self.wrong(&format!("one of {}", choices.join(", "))))
            }
        }
    }

    fn deserialize_identifier<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        self.placed(visitor.visit_unit())
    }
}

struct Items<'a> {
    list: std::slice::Iter<'a, Node>,
}

impl<'a> SeqAccess<'a> for Items<'a> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'a>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        match self.list.next() {
            Some(node) => seed
                .deserialize(Reader { node })
                .map(Some)
                .map_err(|error| error.at(node.span)),
            None => Ok(None),
        }
    }
}

struct Entries<'a> {
    entries: std::slice::Iter<'a, super::yaml::Entry>,
    value: Option<&'a Node>,
}

impl<'a> MapAccess<'a> for Entries<'a> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'a>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let Some(entry) = self.entries.next() else {
            return Ok(None);
        };
        self.value = Some(&entry.value);
        let key: StrDeserializer<'_, Error> = de::IntoDeserializer::into_deserializer(entry.key.as_str());
        seed.deserialize(key)
            .map(Some)
            .map_err(|error| error.at(entry.key_span))
    }

    fn next_value_seed<S: DeserializeSeed<'a>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let node = self
            .value
            .take()
            .ok_or_else(|| Error::new("a value was asked for before its key"))?;
        seed.deserialize(Reader { node }).map_err(|error| error.at(node.span))
    }
}

#[cfg(test)]
mod tests {
    use super::super::diagnostic::Source;
    use super::super::yaml;
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;
    use std::time::Duration;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        endpoint: String,
        #[serde(default, deserialize_with = "crate::config::optional_duration")]
        timeout: Option<Duration>,
        #[serde(default)]
        limit: u16,
        #[serde(default)]
        headers: BTreeMap<String, String>,
        #[serde(default)]
        mode: Mode,
        #[serde(default, deserialize_with = "crate::config::present")]
        tls: Option<Tls>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(rename_all = "snake_case")]
    enum Mode {
        #[default]
        Slow,
        Fast,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Tls {
        insecure: bool,
    }

    fn parse(text: &str) -> Node {
        yaml::parse(&Source::new("test.yaml", text), 0).expect("valid YAML")
    }

    fn mistakes(text: &str) -> Vec<String> {
        let problems = read::<Settings>(&parse(text)).expect_err("mistakes");
        let line = |problem: Problem| {
            let span = problem.span.expect("a place");
            format!(
                "{}:{} {}{}",
                span.line,
                span.column,
                problem.message,
                problem.hint.map(|hint| format!(" / {hint}")).unwrap_or_default()
            )
        };
        problems.into_iter().map(line).collect()
    }

    #[test]
    fn settings_are_read() {
        let node =
            parse("endpoint: localhost:4317\ntimeout: 5s\nlimit: 12\nheaders: { a: 1, b: x }\nmode: fast\ntls:\n");
        let settings: Settings = read(&node).expect("no mistakes");
        assert_eq!(settings.endpoint, "localhost:4317");
        assert_eq!(settings.timeout, Some(Duration::from_secs(5)));
        assert_eq!(settings.headers["a"], "1");
        assert_eq!(
            (settings.limit, settings.mode, settings.tls),
            (12, Mode::Fast, Some(Tls { insecure: false }))
        );
    }

    #[test]
    fn digits_may_stand_in_groups_as_the_collector_reads_them() {
        let settings: Settings = read(&parse("endpoint: 1_0\nlimit: 12_000\n")).expect("no mistakes");
        assert_eq!((settings.endpoint.as_str(), settings.limit), ("1_0", 12_000));
        assert_eq!(read::<f64>(&parse("1_000.5")).ok(), Some(1000.5));
        assert_eq!(mistakes("endpoint: x\nlimit: _12\n").len(), 1);
    }

    #[test]
    fn all_mistakes_are_shown_with_their_places() {
        let text = "endpont: x\ntimeout: 5\nlimit: 70000\nheaders: [a]\nmode: fats\ntls: { insecure: maybe, ca: y }\n";
        assert_eq!(
            mistakes(text),
            [
                "1:1 unknown key `endpont` / did you mean `endpoint`?",
                "2:10 expected a duration such as `5s`, `200ms` or `1h30m`, found `5` (the unit is missing)",
                "3:8 expected a whole number that fits, found integer `70000`",
                "4:10 expected a map of settings, found a list",
                "5:7 `fats` is not one of the choices here / did you mean `fast`?",
                "6:18 expected `true` or `false`, found `maybe`",
                "6:25 unknown key `ca` / known here: `insecure`",
            ]
        );
    }
}
