//! Why: `attributes` and `resource` do the same to different owners of attributes. What they do is here, once; they say whose attributes they mean.

use std::borrow::Cow;
use std::fmt;
use std::fmt::Write;
use std::sync::Arc;

use model::Meta;
use model::edit::{Changes, put_value};
use model::view::{AnyValue, Attributes, View};
use regex::{Regex, RegexBuilder};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};

use crate::config::{Problems, Section};

/// What a compiled pattern may take in memory, in bytes: far more than a pattern that people read, far less than what hurts.
pub const MAX_PATTERN_BYTES: usize = 1 << 20;

/// One step. Steps run in their order, and later ones see what earlier ones did.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// The attribute. `delete` and `hash` may have a `pattern` instead.
    #[serde(default)]
    pub key: String,
    /// `insert` sets it where it is missing, `update` where it is there, `upsert` in both cases; `delete` removes it; `hash` puts the SHA-256 of its value in
    /// its place; `extract` sets the attributes that the named groups of `pattern` find in its text; `convert` changes its type.
    pub action: Kind,
    /// What to set: text, number or boolean.
    #[serde(default)]
    pub value: Option<Scalar>,
    /// Or: which other attribute's value to set; nothing happens where that is missing.
    #[serde(default)]
    pub from_attribute: Option<String>,
    /// Or: `metadata.NAME`, a request header that the receiver kept, or `client.address`; nothing happens where that is missing.
    #[serde(default)]
    pub from_context: Option<String>,
    /// For `extract`, with named groups; for `delete` and `hash`, which keys.
    #[serde(default)]
    pub pattern: Option<String>,
    /// For `convert`: `int`, `double` or `string`. What cannot be converted stays.
    #[serde(default)]
    pub converted_type: Option<Type>,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Insert,
    Update,
    Upsert,
    Delete,
    Hash,
    Extract,
    Convert,
}

/// What a value becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Type {
    Int,
    Double,
    String,
}

/// A value that is written in a configuration.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    Text(String),
    Int(i64),
    Double(f64),
    Bool(bool),
}

impl Scalar {
    pub fn as_any(&self) -> AnyValue<'_> {
        match self {
            Scalar::Text(text) => AnyValue::Str(text),
            Scalar::Int(number) => AnyValue::Int(*number),
            Scalar::Double(number) => AnyValue::Double(*number),
            Scalar::Bool(value) => AnyValue::Bool(*value),
        }
    }

    /// The same type and value.
    pub fn equals(&self, value: AnyValue<'_>) -> bool {
        match (self, value) {
            (Scalar::Text(one), AnyValue::Str(other)) => one == other,
            (Scalar::Int(one), AnyValue::Int(other)) => *one == other,
            (Scalar::Double(one), AnyValue::Double(other)) => *one == other,
            (Scalar::Bool(one), AnyValue::Bool(other)) => *one == other,
            _ => false,
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scalar, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number, `true` or `false`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.to_owned()))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar::Int(number))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Scalar, E> {
                Ok(Scalar::Double(number))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar::Bool(value))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A pattern within the bound on its size.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .size_limit(MAX_PATTERN_BYTES)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(limit) => {
                format!("the pattern `{pattern}` takes more than {limit} bytes once compiled")
            }
            // The message draws the pattern over several lines; its last says what is wrong.
            other => {
                let message = other.to_string();
                let last = message.lines().last().unwrap_or_default();
                let last = last.strip_prefix("error: ").unwrap_or(last);
                format!("`{pattern}` is not a pattern: {last}")
            }
        })
}

/// A value as a text: as it is, or as a person would write it.
pub fn as_text(value: AnyValue<'_>) -> Cow<'_, str> {
    match value {
        AnyValue::Str(text) => Cow::Borrowed(text),
        AnyValue::Bool(value) => Cow::Borrowed(if value { "true" } else { "false" }),
        AnyValue::Int(number) => Cow::Owned(number.to_string()),
        AnyValue::Double(number) => Cow::Owned(number.to_string()),
        AnyValue::Empty => Cow::Borrowed(""),
        AnyValue::Bytes(_) | AnyValue::Array(_) | AnyValue::KvList(_) => {
            Cow::Owned(crate::ottl::value::json(value).to_string())
        }
    }
}

/// The steps of one processor, read and compiled.
#[derive(Debug)]
pub struct Actions {
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    key: String,
    does: Does,
}

#[derive(Debug)]
enum Does {
    Set { when: When, from: From },
    Delete(Option<Regex>),
    Hash(Option<Regex>),
    Extract(Regex),
    Convert(Type),
}

#[derive(Debug, Clone, Copy)]
enum When {
    Missing,
    Present,
    Always,
}

#[derive(Debug)]
enum From {
    Value(Scalar),
    Attribute(String),
    Header(String),
    Peer,
}

impl Actions {
    /// Reads the list that stands at `key`.
    pub fn new(section: &Section<'_>, key: &str, actions: Vec<Action>) -> Result<Actions, Problems> {
        if actions.is_empty() {
            return Err(section.problem(&[key], format!("`{key}` is empty; nothing would be done")));
        }
        let mut steps = Vec::with_capacity(actions.len());
        for (index, action) in actions.into_iter().enumerate() {
            let name = action.key.clone();
            let step = step(action).map_err(|message| {
                let message = if name.is_empty() {
                    message
                } else {
                    format!("attribute `{name}`: {message}")
                };
                section.problem(&[key, &index.to_string()], message)
            })?;
            steps.push(step);
        }
        Ok(Actions { steps })
    }

    /// The request headers that the steps read.
    pub fn metadata_keys(&self) -> Vec<Arc<str>> {
        let read = |step: &Step| match &step.does {
            Does::Set {
                from: From::Header(name),
                ..
            } => Some(name.as_str().into()),
            _ => None,
        };
        self.steps.iter().filter_map(read).collect()
    }

    /// Says what becomes of an owner's attributes.
    pub fn apply(&self, attributes: Attributes<'_>, meta: &Meta, changes: &mut Changes) {
        for step in &self.steps {
            step.apply(attributes, meta, changes);
        }
    }
}

fn step(action: Action) -> Result<Step, String> {
    let sources = [
        action.value.is_some(),
        action.from_attribute.is_some(),
        action.from_context.is_some(),
    ];
    let sources = sources.into_iter().filter(|given| *given).count();
    let sets = matches!(action.action, Kind::Insert | Kind::Update | Kind::Upsert);
    let by_pattern = matches!(action.action, Kind::Delete | Kind::Hash);
    let word = match action.action {
        Kind::Insert => "insert",
        Kind::Update => "update",
        Kind::Upsert => "upsert",
        Kind::Delete => "delete",
        Kind::Hash => "hash",
        Kind::Extract => "extract",
        Kind::Convert => "convert",
    };
    if action.key.is_empty() && !(by_pattern && action.pattern.is_some()) {
        return Err(if by_pattern {
            format!("`{word}` needs a `key` or a `pattern`")
        } else {
            "`key` is empty".to_owned()
        });
    }
    if sets && sources != 1 {
        return Err("exactly one of `value`, `from_attribute` and `from_context` is needed".to_owned());
    }
    if !sets && sources > 0 {
        return Err(format!("`{word}` takes no value"));
    }
    if action.pattern.is_some() && !by_pattern && action.action != Kind::Extract {
        return Err(format!("`{word}` takes no `pattern`"));
    }
    if action.converted_type.is_some() && action.action != Kind::Convert {
        return Err(format!("`{word}` takes no `converted_type`"));
    }
    let pattern = action.pattern.as_deref().map(compile).transpose()?;
    let does = match action.action {
        Kind::Delete => Does::Delete(pattern),
        Kind::Hash => Does::Hash(pattern),
        Kind::Extract => {
            let pattern = pattern.ok_or("`extract` needs a `pattern`")?;
            if pattern.capture_names().flatten().next().is_none() {
                return Err("the pattern of `extract` has no named group, such as `(?P<id>.*)`".to_owned());
            }
            if pattern.capture_names().skip(1).any(|name| name.is_none()) {
                return Err(
                    "every group of the pattern of `extract` must be named; write `(?:` for one that is not meant"
                        .to_owned(),
                );
            }
            Does::Extract(pattern)
        }
        Kind::Convert => Does::Convert(
            action
                .converted_type
                .ok_or("`convert` needs a `converted_type`: `int`, `double` or `string`")?,
        ),
        Kind::Insert | Kind::Update | Kind::Upsert => {
            let from = match (action.value, action.from_attribute, action.from_context) {
                (Some(value), _, _) => From::Value(value),
                (None, Some(attribute), _) => From::Attribute(attribute),
                (None, None, context) => context_of(&context.unwrap_or_default())?,
            };
            let when = match action.action {
                Kind::Insert => When::Missing,
                Kind::Update => When::Present,
                _ => When::Always,
            };
            Does::Set { when, from }
        }
    };
    Ok(Step { key: action.key, does })
}

fn context_of(context: &str) -> Result<From, String> {
    if context == "client.address" {
        return Ok(From::Peer);
    }
    match context.strip_prefix("metadata.") {
        Some(name) if !name.is_empty() => Ok(From::Header(name.to_ascii_lowercase())),
        _ => Err(format!(
            "`from_context: {context}` is not known; it is `metadata.NAME` (a header that the receiver keeps with `include_metadata`) or `client.address`"
        )),
    }
}

impl Step {
    fn apply(&self, attributes: Attributes<'_>, meta: &Meta, changes: &mut Changes) {
        let key = self.key.as_str();
        match &self.does {
            Does::Set { when, from } => {
                let apply = match when {
                    When::Missing => now(attributes, changes, key).is_none(),
                    When::Present => now(attributes, changes, key).is_some(),
                    When::Always => true,
                };
                if apply {
                    set(key, from, attributes, meta, changes);
                }
            }
            Does::Delete(pattern) => {
                if !key.is_empty() {
                    changes.remove(key);
                }
                for_keys(pattern.as_ref(), attributes, changes, |key, changes| {
                    changes.remove(key)
                });
            }
            Does::Hash(pattern) => {
                if !key.is_empty() {
                    hash(key, attributes, changes);
                }
                for_keys(pattern.as_ref(), attributes, changes, |key, changes| {
                    hash(key, attributes, changes);
                });
            }
            Does::Extract(pattern) => {
                let Some(AnyValue::Str(text)) = now(attributes, changes, key) else {
                    return;
                };
                let text = text.to_owned();
                let Some(groups) = pattern.captures(&text) else { return };
                for name in pattern.capture_names().flatten() {
                    let found = groups.name(name).map_or("", |group| group.as_str());
                    changes.set(name, AnyValue::Str(found));
                }
            }
            Does::Convert(to) => {
                let Some(value) = now(attributes, changes, key) else {
                    return;
                };
                match (to, value) {
                    (Type::String, AnyValue::Str(_)) => {}
                    (Type::String, value) => {
                        let text = as_text(value).into_owned();
                        changes.set(key, AnyValue::Str(&text));
                    }
                    (Type::Int, value) => {
                        if let Some(number) = to_int(value) {
                            changes.set(key, AnyValue::Int(number));
                        }
                    }
                    (Type::Double, value) => {
                        if let Some(number) = to_double(value) {
                            changes.set(key, AnyValue::Double(number));
                        }
                    }
                }
            }
        }
    }
}

/// The value of an attribute as it is by now.
fn now<'a>(attributes: Attributes<'a>, changes: &'a Changes, key: &str) -> Option<AnyValue<'a>> {
    match changes.get(key) {
        Some(change) => change.map(AnyValue::read),
        None => attributes.get(key),
    }
}

fn set(key: &str, from: &From, attributes: Attributes<'_>, meta: &Meta, changes: &mut Changes) {
    match from {
        From::Value(value) => changes.set(key, value.as_any()),
        From::Attribute(other) => match changes.get(other) {
            Some(None) => {}
            Some(Some(value)) => {
                let value = value.to_vec();
                changes.set_encoded(key, &value);
            }
            None => {
                if let Some(value) = attributes.get(other) {
                    changes.set(key, value);
                }
            }
        },
        From::Header(name) => {
            let mut values = meta
                .headers
                .iter()
                .filter(|(header, _)| header.eq_ignore_ascii_case(name))
                .map(|(_, value)| value);
            if let Some(first) = values.next() {
                // Several values are joined as the collector joins them.
                let joined = values.fold(Cow::Borrowed(&**first), |all, next| Cow::Owned(format!("{all};{next}")));
                changes.set(key, AnyValue::Str(&joined));
            }
        }
        From::Peer => {
            if let Some(peer) = meta.peer {
                changes.set(key, AnyValue::Str(&peer.ip().to_string()));
            }
        }
    }
}

/// Calls `act` with every key of the owner that a pattern finds, by now.
fn for_keys(
    pattern: Option<&Regex>,
    attributes: Attributes<'_>,
    changes: &mut Changes,
    mut act: impl FnMut(&str, &mut Changes),
) {
    let Some(pattern) = pattern else { return };
    for pair in attributes {
        if pattern.is_match(pair.key) && changes.get(pair.key).is_none_or(|change| change.is_some()) {
            act(pair.key, changes);
        }
    }
    // Keys that earlier steps brought.
    let mut brought: Vec<String> = changes
        .keys()
        .filter(|key| attributes.get(key).is_none() && pattern.is_match(key))
        .filter(|key| changes.get(key).is_some_and(|change| change.is_some()))
        .map(str::to_owned)
        .collect();
    brought.sort();
    brought.dedup();
    for key in brought {
        act(&key, changes);
    }
}

fn hash(key: &str, attributes: Attributes<'_>, changes: &mut Changes) {
    let Some(value) = now(attributes, changes, key) else {
        return;
    };
    // Numbers are hashed as the collector hashes them: eight bytes, the lowest first.
    let digest = match value {
        AnyValue::Str(text) => Sha256::digest(text),
        AnyValue::Bool(value) => Sha256::digest([u8::from(value)]),
        AnyValue::Int(number) => Sha256::digest(number.to_le_bytes()),
        AnyValue::Double(number) => Sha256::digest(number.to_bits().to_le_bytes()),
        AnyValue::Bytes(bytes) => Sha256::digest(bytes),
        AnyValue::Empty => return,
        AnyValue::Array(_) | AnyValue::KvList(_) => {
            let mut bytes = Vec::new();
            put_value(&mut bytes, value);
            Sha256::digest(bytes)
        }
    };
    let text = hex(&digest);
    changes.set(key, AnyValue::Str(&text));
}

/// Two lower-case digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn to_int(value: AnyValue<'_>) -> Option<i64> {
    match value {
        AnyValue::Str(text) => text.parse().ok(),
        AnyValue::Bool(value) => Some(i64::from(value)),
        AnyValue::Double(number) => Some(number as i64),
        _ => None,
    }
}

fn to_double(value: AnyValue<'_>) -> Option<f64> {
    match value {
        AnyValue::Str(text) => text.parse().ok(),
        AnyValue::Bool(value) => Some(f64::from(u8::from(value))),
        AnyValue::Int(number) => Some(number as f64),
        _ => None,
    }
}
