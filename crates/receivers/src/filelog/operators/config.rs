//! The keys of operators.

use std::collections::BTreeMap;

use pipeline::processors::actions::Scalar;
use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer};

/// One operator, with the keys of all.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operator {
    /// `json_parser`, `regex_parser`, `time_parser`, `severity_parser`, `trace_parser`, `container`, `move`, `copy`, `add`, `remove` or `noop`.
    pub r#type: String,
    /// Accepted, without effect: operators work in their order.
    #[serde(default)]
    pub id: Option<String>,
    /// Must be absent: operators work in their order.
    #[serde(default, deserialize_with = "no_output")]
    pub output: (),
    /// Must be absent.
    #[serde(default, deserialize_with = "no_condition")]
    pub r#if: (),
    /// `send` or `send_quiet`: what cannot be done to an entry is left, and the entry goes on.
    #[serde(default, deserialize_with = "only_send")]
    pub on_error: (),
    /// What is read. Default: `body`.
    #[serde(default)]
    pub parse_from: Option<String>,
    /// Where to the result goes. Default: `attributes`.
    #[serde(default)]
    pub parse_to: Option<String>,
    /// Of `regex_parser`: a pattern with named groups.
    #[serde(default)]
    pub regex: Option<String>,
    /// Accepted, without effect: whole numbers stay whole.
    #[serde(default)]
    pub parse_ints: Option<bool>,
    /// A time in what was parsed.
    #[serde(default)]
    pub timestamp: Option<TimeConfig>,
    /// A severity in what was parsed.
    #[serde(default)]
    pub severity: Option<SeverityConfig>,
    /// Of `time_parser`, as in `timestamp`.
    #[serde(default)]
    pub layout: Option<String>,
    /// Of `time_parser`, as in `timestamp`.
    #[serde(default)]
    pub layout_type: Option<String>,
    /// Of `severity_parser`, as in `severity`.
    #[serde(default)]
    pub mapping: Mapping,
    /// Of `severity_parser`, as in `severity`.
    #[serde(default)]
    pub preset: Option<String>,
    /// Accepted, without effect: the text is as it was written.
    #[serde(default)]
    pub overwrite_text: Option<bool>,
    /// Of `trace_parser`: where the trace's id is. Default: `attributes.trace_id`.
    #[serde(default)]
    pub trace_id: Option<Field>,
    /// Of `trace_parser`: where the span's id is. Default: `attributes.span_id`.
    #[serde(default)]
    pub span_id: Option<Field>,
    /// Of `trace_parser`: accepted, without effect.
    #[serde(default)]
    pub trace_flags: Option<IgnoredAny>,
    /// Of `move` and `copy`.
    #[serde(default)]
    pub from: Option<String>,
    /// Of `move` and `copy`.
    #[serde(default)]
    pub to: Option<String>,
    /// Of `add` and `remove`.
    #[serde(default)]
    pub field: Option<String>,
    /// Of `add`.
    #[serde(default)]
    pub value: Option<Scalar>,
    /// Of `container`: `docker`, `crio` or `containerd`. Default: what a line looks like.
    #[serde(default)]
    pub format: Option<String>,
    /// Of `container`: whether the path tells namespace, pod and container. Default: yes.
    #[serde(default)]
    pub add_metadata_from_filepath: Option<bool>,
    /// Of `container`: accepted, without effect. Parts of a line that was split are not joined.
    #[serde(default)]
    pub max_log_size: Option<IgnoredAny>,
    /// Of `regex_parser`: accepted, without effect.
    #[serde(default)]
    pub cache: Option<IgnoredAny>,
}

/// `{ parse_from: attributes.x }`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// What is read.
    pub parse_from: String,
}

/// `timestamp:`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeConfig {
    /// What is read.
    pub parse_from: String,
    /// The form of the time: `%Y-%m-%d %H:%M:%S`, or for `epoch` a unit: `s`, `ms`, `us` or `ns`.
    #[serde(default)]
    pub layout: Option<String>,
    /// `strptime` (default), `epoch`, or `gotime` for RFC 3339 in Go's writing.
    #[serde(default)]
    pub layout_type: Option<String>,
    /// Must be absent or `UTC`: a time without an offset is in UTC.
    #[serde(default, deserialize_with = "only_utc")]
    pub location: (),
}

/// `severity:`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeverityConfig {
    /// What is read.
    pub parse_from: String,
    /// Values by level, such as `error: [failed, 500]`; the usual words are known.
    #[serde(default)]
    pub mapping: Mapping,
    /// `default`, or `none` to know no words but those of `mapping`.
    #[serde(default)]
    pub preset: Option<String>,
    /// Accepted, without effect: the text is as it was written.
    #[serde(default)]
    pub overwrite_text: Option<bool>,
}

/// Values by level.
pub type Mapping = BTreeMap<String, OneOrMany>;

/// A value, or several.
#[derive(Debug, Clone, PartialEq)]
pub struct OneOrMany(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OneOrMany, D::Error> {
        struct Any;
        impl<'de> serde::de::Visitor<'de> for Any {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a value or a list of values")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![text.to_owned()]))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![number.to_string()]))
            }

            fn visit_seq<S: serde::de::SeqAccess<'de>>(self, mut seq: S) -> Result<OneOrMany, S::Error> {
                let mut values = Vec::new();
                while let Some(value) = seq.next_element::<String>()? {
                    values.push(value);
                }
                Ok(OneOrMany(values))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

fn no_output<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(deserializer)?;
    Err(D::Error::custom(
        "operators work in their order; leave `output` out and write them so",
    ))
}

fn no_condition<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(deserializer)?;
    Err(D::Error::custom(
        "conditions are not evaluated here; the `transform` processor has `where`, and what an operator cannot do to an entry it leaves",
    ))
}

fn only_send<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "send" | "send_quiet" => Ok(()),
        other => Err(D::Error::custom(format!(
            "`{other}` is not possible: no line is lost here; drop with the `filter` processor, which counts it"
        ))),
    }
}

fn only_utc<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "" | "UTC" => Ok(()),
        other => Err(D::Error::custom(format!(
            "`{other}` is not known here; a time without an offset is in UTC, so let the program write one"
        ))),
    }
}
