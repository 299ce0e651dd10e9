//! The keys of operators.

use std::collections::BTreeMap;
use std::time::Duration;

use pipeline::processors::actions::Scalar;
use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer};

use crate::filelog::MAX_LOG_SIZE;

/// One operator, with the keys of all.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operator {
    /// `json_parser`, `regex_parser`, `time_parser`, `severity_parser`, `trace_parser`, `container`, `recombine`, `filter`, `move`, `copy`, `add`, `remove` or `noop`.
    pub r#type: String,
    /// Accepted, without effect: operators work in their order.
    #[serde(default)]
    pub id: Option<String>,
    /// Must be absent: operators work in their order.
    #[serde(default, deserialize_with = "no_output")]
    pub output: (),
    /// Of which entries it is for, as `body contains "x" and attributes.level != "DEBUG"`. The others pass it by. Default: all.
    #[serde(default)]
    pub r#if: Option<String>,
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
    /// Of `time_parser`, as in `timestamp`.
    #[serde(default)]
    pub location: Option<String>,
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
    /// Of `recombine` and `container`: bytes of what was put together; the part that exceeds them is the last. Default 1 MiB, as 0; at most 64 MiB.
    #[serde(default, deserialize_with = "combined_size")]
    pub max_log_size: Option<u64>,
    /// Of `recombine`: what is put together, such as `body`.
    #[serde(default)]
    pub combine_field: Option<String>,
    /// Of `recombine`: what stands between. Default: a new line.
    #[serde(default)]
    pub combine_with: Option<String>,
    /// Of `recombine`: what is true of an entry's first line, as `body matches "^[^\\s]"`.
    #[serde(default)]
    pub is_first_entry: Option<String>,
    /// Of `recombine`: what is true of its last. One of the two.
    #[serde(default)]
    pub is_last_entry: Option<String>,
    /// Of `recombine`: lines of one entry. Default 1000; 0 for no bound but that of bytes.
    #[serde(default)]
    pub max_batch_size: Option<u64>,
    /// Of `recombine`: the same where no first or last line was among them. Default 100.
    #[serde(default)]
    pub max_unmatched_batch_size: Option<u64>,
    /// Of `recombine`: whose other fields the entry has, the `newest` line's or the `oldest`'s. Default `newest`.
    #[serde(default)]
    pub overwrite_with: Option<String>,
    /// Of `recombine`: a field that tells sources in one file apart. Default: a file is one source.
    #[serde(default)]
    pub source_identifier: Option<String>,
    /// Of `recombine`: sources in one file. Default 1000.
    #[serde(default)]
    pub max_sources: Option<u64>,
    /// Of `recombine`: how long more lines are waited for. Default 5s; 0 waits for ever.
    #[serde(default, deserialize_with = "pipeline::config::optional_duration")]
    pub force_flush_period: Option<Duration>,
    /// Of `filter`: what is true of entries that are dropped. They are counted as `filtered`.
    #[serde(default)]
    pub expr: Option<String>,
    /// Of `filter`: the share of them that is dropped, from 0 to 1. Default 1.
    #[serde(default)]
    pub drop_ratio: Option<f64>,
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
    /// The form of the time: `%Y-%m-%d %H:%M:%S`, `2006-01-02 15:04:05`, or for `epoch` a unit: `s`, `ms`, `us` or `ns`. A time without a year is near.
    #[serde(default)]
    pub layout: Option<String>,
    /// `strptime` (default), `gotime` (the example that Go writes) or `epoch`.
    #[serde(default)]
    pub layout_type: Option<String>,
    /// Where a time without an offset was told: a name of the system's database of time zones, such as `Europe/Vienna`, or `Local`. Default `UTC`.
    #[serde(default)]
    pub location: Option<String>,
}

/// `severity:`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeverityConfig {
    /// What is read.
    pub parse_from: String,
    /// Values by level, such as `error: [failed, 5xx]` or `warn: { min: 400, max: 499 }`; the usual words are known.
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

/// A value or several, of which each may be a range.
#[derive(Debug, Clone, PartialEq)]
pub struct OneOrMany(pub(super) Vec<Values>);

/// What a level is said for.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    One(String),
    Range { min: i64, max: i64 },
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Values, D::Error> {
        OneOrMany::deserialize(deserializer).and_then(|mut values| match (values.0.pop(), values.0.pop()) {
            (Some(value), None) => Ok(value),
            _ => Err(D::Error::custom("a list within a list of values")),
        })
    }
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OneOrMany, D::Error> {
        struct Any;
        impl<'de> serde::de::Visitor<'de> for Any {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a value, `{ min: 1, max: 2 }`, or a list of these")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![Values::One(text.to_owned())]))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<OneOrMany, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<OneOrMany, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_seq<S: serde::de::SeqAccess<'de>>(self, mut seq: S) -> Result<OneOrMany, S::Error> {
                let mut values = Vec::new();
                while let Some(value) = seq.next_element::<Values>()? {
                    values.push(value);
                }
                Ok(OneOrMany(values))
            }

            fn visit_map<M: serde::de::MapAccess<'de>>(self, map: M) -> Result<OneOrMany, M::Error> {
                let range = Range::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(OneOrMany(vec![Values::Range {
                    min: range.min,
                    max: range.max,
                }]))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    min: i64,
    max: i64,
}

fn combined_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match pipeline::config::size(deserializer)? {
        bytes if bytes <= MAX_LOG_SIZE => Ok(Some(bytes)),
        _ => Err(D::Error::custom("must be at most 64MiB")),
    }
}

fn no_output<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(deserializer)?;
    Err(D::Error::custom(
        "operators work in their order; leave `output` out and write them so",
    ))
}

fn only_send<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "send" | "send_quiet" => Ok(()),
        other => Err(D::Error::custom(format!(
            "`{other}` is not possible: no line is lost here; drop with the operator `filter`, which counts it"
        ))),
    }
}
