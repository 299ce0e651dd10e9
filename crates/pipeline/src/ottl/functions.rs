//! Why: the converters, as one table from which the checker, the evaluation and the documentation work.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use model::base64;
use model::edit::inner::Inner;
use model::edit::{message, put_value};
use model::view::{AnyValue, Attributes, List};
use model::wire::put_bytes;
use sha2::{Digest, Sha256};

use super::Fault;
use super::ast::Comparison;
use super::frame::{Part, from_hex};
use super::paths::{Context, What};
use super::program::Args;
use super::time;
use super::value::{Value, compare, elements, encode_json};
use crate::processors::actions::hex;

/// What an argument must be, as far as it shows before anything runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    Any,
    Text,
    Int,
    List,
    Map,
    /// A regular expression, written in the statement.
    Pattern,
    /// A pattern with `*` and `?`, written in the statement.
    Glob,
    /// The name of a converter.
    Function,
    /// A path that can be set.
    Target,
}

#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    pub name: &'static str,
    pub takes: Takes,
    pub optional: bool,
}

pub type Run = for<'v> fn(&Args<'v>) -> Result<Value<'v>, Fault>;

/// A function that yields a value.
#[derive(Debug)]
pub struct Converter {
    pub name: &'static str,
    pub parameters: &'static [Parameter],
    pub run: Run,
    /// Where it has a meaning; empty: everywhere.
    pub only_in: &'static [Context],
}

/// A parameter that is needed.
pub const fn need(name: &'static str, takes: Takes) -> Parameter {
    Parameter {
        name,
        takes,
        optional: false,
    }
}

/// A parameter that may be left out.
pub const fn may(name: &'static str, takes: Takes) -> Parameter {
    Parameter {
        name,
        takes,
        optional: true,
    }
}

const fn c(name: &'static str, parameters: &'static [Parameter], run: Run) -> Converter {
    Converter {
        name,
        parameters,
        run,
        only_in: &[],
    }
}

use Takes::{Any, Int, List as ListOf, Map, Pattern, Text};

const TARGET: &[Parameter] = &[need("target", Any)];
const VALUE: &[Parameter] = &[need("value", Any)];
const TIME: &[Parameter] = &[need("time", Any)];
const DURATION: &[Parameter] = &[need("duration", Any)];

pub const CONVERTERS: &[Converter] = &[
    c("Base64Decode", TARGET, base64_decode),
    c("Base64Encode", TARGET, |args| {
        Ok(base64::encode(bytes_of(args.any(0)?)?.as_ref()).into())
    }),
    c("Bool", VALUE, to_bool),
    c("Concat", &[need("values", ListOf), need("delimiter", Text)], concat),
    c(
        "ContainsValue",
        &[need("target", ListOf), need("item", Any)],
        contains_value,
    ),
    c(
        "ConvertCase",
        &[need("target", Any), need("toCase", Text)],
        convert_case,
    ),
    c("Day", TIME, |args| {
        Ok(Value::Int(i64::from(time::parts(args.time(0)?).day)))
    }),
    c("Double", VALUE, to_double),
    c("Duration", &[need("duration", Text)], |args| {
        let text = args.text(0)?;
        let nanos = time::parse_duration(&text);
        nanos
            .map(Value::Duration)
            .ok_or_else(|| Fault::from(format!("`{text}` is no duration such as `5s` or `1h30m`")))
    }),
    c(
        "ExtractPatterns",
        &[need("target", Any), need("pattern", Pattern)],
        extract_patterns,
    ),
    c("FNV", VALUE, |args| {
        let bytes = bytes_of(args.any(0)?)?;
        let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Ok(Value::Int(hash as i64))
    }),
    c(
        "Format",
        &[need("formatString", Text), need("arguments", ListOf)],
        format_text,
    ),
    c("FormatTime", &[need("time", Any), need("format", Text)], |args| {
        let format = args.text(1)?;
        let text = time::format(args.time(0)?, &format);
        text.map(Value::from)
            .ok_or_else(|| Fault::from(format!("`{format}` has a directive that is not supported")))
    }),
    Converter {
        only_in: &[Context::Metric],
        ..c("HasAttrKeyOnDatapoint", &[need("key", Text)], |args| {
            let key = args.text(0)?;
            points_have(args, |attributes| attributes.get(&key).is_some())
        })
    },
    Converter {
        only_in: &[Context::Metric],
        ..c(
            "HasAttrOnDatapoint",
            &[need("key", Text), need("value", Text)],
            |args| {
                let (key, value) = (args.text(0)?, args.text(1)?);
                points_have(args, |attributes| attributes.get_str(&key) == Some(&value))
            },
        )
    },
    c("HasPrefix", &[need("value", Any), need("prefix", Text)], |args| {
        Ok(Value::Bool(args.text(0)?.starts_with(&*args.text(1)?)))
    }),
    c("HasSuffix", &[need("value", Any), need("suffix", Text)], |args| {
        Ok(Value::Bool(args.text(0)?.ends_with(&*args.text(1)?)))
    }),
    c("Hex", VALUE, |args| Ok(hex(&bytes_of(args.any(0)?)?).into())),
    c("Hour", TIME, |args| {
        Ok(Value::Int(i64::from(time::parts(args.time(0)?).hour)))
    }),
    c("Hours", DURATION, |args| {
        Ok(Value::Double(args.duration(0)? as f64 / 3600e9))
    }),
    c("Index", &[need("target", Any), need("value", Any)], index),
    c("Int", VALUE, to_int),
    c("IsBool", VALUE, |args| {
        Ok(Value::Bool(matches!(args.any(0)?, Value::Bool(_))))
    }),
    c("IsDouble", VALUE, |args| {
        Ok(Value::Bool(matches!(args.any(0)?, Value::Double(_))))
    }),
    c("IsInt", VALUE, |args| {
        Ok(Value::Bool(matches!(args.any(0)?, Value::Int(_))))
    }),
    c("IsList", VALUE, |args| {
        Ok(Value::Bool(matches!(args.any(0)?, Value::List(_))))
    }),
    c("IsMap", VALUE, |args| {
        Ok(Value::Bool(matches!(args.any(0)?, Value::Map(_))))
    }),
    c("IsMatch", &[need("target", Any), need("pattern", Pattern)], |args| {
        let pattern = args.pattern(1)?;
        Ok(Value::Bool(args.like(0)?.is_some_and(|text| pattern.is_match(&text))))
    }),
    Converter {
        only_in: &[Context::Span],
        ..c("IsRootSpan", &[], |args| {
            let parent = args.frame.get(Part::Item, What::Id(4, 8, false));
            Ok(Value::Bool(
                matches!(parent, Value::Bytes(id) if id.iter().all(|byte| *byte == 0)),
            ))
        })
    },
    c("IsString", VALUE, |args| {
        Ok(Value::Bool(matches!(args.any(0)?, Value::Text(_))))
    }),
    c("Keys", &[need("target", Map)], |args| {
        let pairs = args.map_of(0)?;
        let mut stretch = Vec::new();
        for pair in pairs.view() {
            push(&mut stretch, AnyValue::Str(pair.key));
        }
        Ok(Value::List(Cow::Owned(stretch)))
    }),
    c("Len", TARGET, |args| {
        let len = match args.any(0)? {
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            Value::List(stretch) => elements(&stretch).count(),
            Value::Map(pairs) => pairs.view().count(),
            other => return Err(Fault::from(format!("{} has no length", other.kind()))),
        };
        Ok(Value::Int(len as i64))
    }),
    c("Log", VALUE, |args| match args.any(0)? {
        Value::Int(number) if number > 0 => Ok(Value::Double((number as f64).ln())),
        Value::Double(number) if number > 0.0 => Ok(Value::Double(number.ln())),
        _ => Err(Fault::from("a number above zero is needed")),
    }),
    c("Microseconds", DURATION, |args| {
        Ok(Value::Int(args.duration(0)? / 1_000))
    }),
    c("Milliseconds", DURATION, |args| {
        Ok(Value::Int(args.duration(0)? / 1_000_000))
    }),
    c("Minute", TIME, |args| {
        Ok(Value::Int(i64::from(time::parts(args.time(0)?).minute)))
    }),
    c("Minutes", DURATION, |args| {
        Ok(Value::Double(args.duration(0)? as f64 / 60e9))
    }),
    c("Month", TIME, |args| {
        Ok(Value::Int(i64::from(time::parts(args.time(0)?).month)))
    }),
    c("Nanoseconds", DURATION, |args| Ok(Value::Int(args.duration(0)?))),
    c("Now", &[], |_| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Value::Time(now.as_nanos() as i64))
    }),
    c("ParseJSON", &[need("target", Any)], |args| {
        let text = args.text(0)?;
        let json: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| Fault::from(format!("this is not JSON: {error}")))?;
        let mut encoded = Vec::new();
        encode_json(&json, &mut encoded);
        Ok(super::value::read(&encoded).owned())
    }),
    c(
        "ParseKeyValue",
        &[need("target", Any), may("delimiter", Text), may("pair_delimiter", Text)],
        parse_key_value,
    ),
    c("SHA256", VALUE, |args| {
        Ok(hex(&Sha256::digest(bytes_of(args.any(0)?)?.as_ref())).into())
    }),
    c("Second", TIME, |args| {
        Ok(Value::Int(i64::from(time::parts(args.time(0)?).second)))
    }),
    c("Seconds", DURATION, |args| {
        Ok(Value::Double(args.duration(0)? as f64 / 1e9))
    }),
    c("SpanID", &[need("bytes", Any)], |args| id(args, 8)),
    c("Split", &[need("target", Any), need("delimiter", Text)], |args| {
        let (text, delimiter) = (args.text(0)?, args.text(1)?);
        let mut stretch = Vec::new();
        if delimiter.is_empty() {
            for c in text.chars() {
                push(&mut stretch, AnyValue::Str(c.encode_utf8(&mut [0; 4])));
            }
        } else {
            for part in text.split(&*delimiter) {
                push(&mut stretch, AnyValue::Str(part));
            }
        }
        Ok(Value::List(Cow::Owned(stretch)))
    }),
    c("String", VALUE, |args| {
        Ok(args.like(0)?.map_or(Value::Nil, Value::Text))
    }),
    c(
        "Substring",
        &[need("target", Any), need("start", Int), need("length", Int)],
        |args| {
            let text = args.text(0)?;
            let (start, length) = (args.int(1)?, args.int(2)?);
            let end = start.saturating_add(length);
            let part = usize::try_from(start)
                .ok()
                .zip(usize::try_from(end).ok())
                .filter(|_| length > 0)
                .and_then(|(start, end)| text.get(start..end));
            part.map(|part| part.to_owned().into()).ok_or_else(|| {
                Fault::from(format!(
                    "a text of {} bytes has no part from {start} with length {length}, or it cuts a character",
                    text.len()
                ))
            })
        },
    ),
    c("Time", &[need("target", Text), need("format", Text)], |args| {
        let (text, format) = (args.text(0)?, args.text(1)?);
        time::parse(&text, &format)
            .map(Value::Time)
            .ok_or_else(|| Fault::from(format!("`{text}` is not written in the format `{format}`")))
    }),
    c(
        "ToKeyValueString",
        &[
            need("target", Map),
            may("delimiter", Text),
            may("pair_delimiter", Text),
            may("sort_output", Any),
        ],
        to_key_value,
    ),
    c("ToLowerCase", TARGET, |args| Ok(args.text(0)?.to_lowercase().into())),
    c("ToUpperCase", TARGET, |args| Ok(args.text(0)?.to_uppercase().into())),
    c("TraceID", &[need("bytes", Any)], |args| id(args, 16)),
    c("Trim", &[need("target", Any), may("replacement", Text)], |args| {
        let cut = args.text_or(1, " ")?;
        let cut: Vec<char> = cut.chars().collect();
        Ok(args.text(0)?.trim_matches(&cut[..]).to_owned().into())
    }),
    c("TrimPrefix", &[need("target", Any), need("prefix", Text)], |args| {
        let (text, prefix) = (args.text(0)?, args.text(1)?);
        Ok(text.strip_prefix(&*prefix).unwrap_or(&text).to_owned().into())
    }),
    c("TrimSuffix", &[need("target", Any), need("suffix", Text)], |args| {
        let (text, suffix) = (args.text(0)?, args.text(1)?);
        Ok(text.strip_suffix(&*suffix).unwrap_or(&text).to_owned().into())
    }),
    c("TruncateTime", &[need("time", Any), need("duration", Any)], |args| {
        let (nanos, unit) = (args.time(0)?, args.duration(1)?);
        match unit > 0 {
            true => Ok(Value::Time(nanos - nanos.rem_euclid(unit))),
            false => Ok(Value::Time(nanos)),
        }
    }),
    c("Unix", &[need("seconds", Int), may("nanoseconds", Int)], |args| {
        let nanos = if args.given(1) { args.int(1)? } else { 0 };
        let nanos = args
            .int(0)?
            .checked_mul(1_000_000_000)
            .and_then(|all| all.checked_add(nanos));
        nanos
            .map(Value::Time)
            .ok_or_else(|| Fault::from("a time beyond what can be told"))
    }),
    c("UnixMicro", TIME, |args| Ok(Value::Int(args.time(0)? / 1_000))),
    c("UnixMilli", TIME, |args| Ok(Value::Int(args.time(0)? / 1_000_000))),
    c("UnixNano", TIME, |args| Ok(Value::Int(args.time(0)?))),
    c("UnixSeconds", TIME, |args| {
        Ok(Value::Int(args.time(0)? / 1_000_000_000))
    }),
    c("Values", &[need("target", Map)], |args| {
        let pairs = args.map_of(0)?;
        let mut stretch = Vec::new();
        for pair in pairs.view() {
            push(&mut stretch, pair.value);
        }
        Ok(Value::List(Cow::Owned(stretch)))
    }),
    c("Weekday", TIME, |args| {
        Ok(Value::Int(i64::from(time::parts(args.time(0)?).weekday)))
    }),
    c("Year", TIME, |args| Ok(Value::Int(time::parts(args.time(0)?).year))),
];

/// The converter of this name.
pub fn converter(name: &str) -> Option<&'static Converter> {
    CONVERTERS.iter().find(|converter| converter.name == name)
}

/// Appends an element to an encoded list.
pub fn push(stretch: &mut Vec<u8>, value: AnyValue<'_>) {
    let mut element = Vec::new();
    put_value(&mut element, value);
    put_bytes(stretch, 1, &element);
}

/// The bytes of what has some: texts and bytes as they are, other values as their text.
fn bytes_of(value: Value<'_>) -> Result<Cow<'_, [u8]>, Fault> {
    Ok(match value {
        Value::Bytes(bytes) => bytes,
        Value::Nil => return Err(Fault::from("a text is needed, not nothing")),
        Value::Int(number) => Cow::Owned(number.to_be_bytes().to_vec()),
        Value::Double(number) => Cow::Owned(number.to_bits().to_be_bytes().to_vec()),
        other => match other.into_text() {
            Some(Cow::Borrowed(text)) => Cow::Borrowed(text.as_bytes()),
            Some(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
            None => Cow::Borrowed(&[]),
        },
    })
}

fn base64_decode<'v>(args: &Args<'v>) -> Result<Value<'v>, Fault> {
    let text = args.text(0)?;
    let bytes = base64::decode(&text).ok_or_else(|| Fault::from("this is not base64"))?;
    String::from_utf8(bytes)
        .map(Value::from)
        .map_err(|_| Fault::from("what the base64 holds is not a text"))
}

fn to_bool<'v>(args: &Args<'v>) -> Result<Value<'v>, Fault> {
    Ok(match args.any(0)? {
        Value::Nil => Value::Nil,
        Value::Bool(value) => Value::Bool(value),
        Value::Int(number) => Value::Bool(number != 0),
        Value::Double(number) => Value::Bool(number != 0.0),
        Value::Text(text) => match &*text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Value::Bool(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Value::Bool(false),
            other => return Err(Fault::from(format!("`{other}` is neither true nor false"))),
        },
        other => return Err(Fault::from(format!("{} is neither true nor false", other.kind()))),
    })
}

fn to_int<'v>(args: &Args<'v>) -> Result<Value<'v>, Fault> {
    Ok(match args.any(0)? {
        Value::Bool(value) => Value::Int(i64::from(value)),
        Value::Int(number) => Value::Int(number),
        Value::Double(number) => Value::Int(number as i64),
        // What is no number is nothing, so that setting it changes nothing.
        Value::Text(text) => text.parse().map_or(Value::Nil, Value::Int),
        Value::Duration(nanos) => Value::Int(nanos),
        _ => Value::Nil,
    })
}

fn to_double<'v>(args: &Args<'v>) -> Result<Value<'v>, Fault> {
    Ok(match args.any(0)? {
        Value::Bool(value) => Value::Double(f64::from(u8::from(value))),
        Value::Int(number) => Value::Double(number as f64),
        Value::Double(number) => Value::Double(number),
        Value::Text(text) => text.parse().map_or(Value::Nil, Value::Double),
        _ => Value::Nil,
    })
}

fn concat<'v>(args: &Args<'v>) -> Result<Value<'v>, Fault> {
    let delimiter = args.text(1)?;
    let (mut out, mut first, mut longest) = (String::new(), true, 0);
    args.each(0, |value| {
        if !std::mem::take(&mut first) {
            out.push_str(&delimiter);
        }
        // As the collector writes what is missing.
        let text = value.text().unwrap_or(Cow::Borrowed("<nil>"));
        longest = longest.max(text.len());
        out.push_str(&text);
        match out.len() > longest + super::MAX_GROWTH_BYTES {
            true => Err(Fault::from(
                "the text is larger than the bound on what statements may add",
            )),
            false => Ok(()),
        }
    })?;
    Ok(out.into())
}

fn contains_value<'v>(args: &Args<'v>) -> Result<Value<'v>, Fault> {
    let item = args.any(1)?;
    let mut found = false;
    args.each(0, |value| {
        found |= compare(&value, Comparison::Equal, &item);
        Ok(())
    })?;
    Ok(Value::Bool(found))
}

fn convert_case<'v>(args: &Args<'v>) -> Result<Value<'v>, Fault> {
    let (text, case) = (args.text(0)?, args.text(1)?);
    Ok(match &*case {
        "lower" => text.to_lowercase(),
        "upper" => text.to_uppercase(),
        "snake" | "camel" => {
            let mut out = String::new();
            let mut fresh = true;
            for c in text.chars() {
                if !c.is_alphanumeric() {
                    fresh = true;
                    continue;
                }
                if case == "camel" {
                    if fresh {
                        out.extend(c.to_uppercase());
                    } else {
                        out.push(c);
                    }
                } else {
                    if !out.is_empty() && !out.ends_with('_') && (fresh || c.is_uppercase()) {
                        out.push('_');
                    }
                    out.extend(c.to_lowercase());
                }
                fresh = false;
            }
            out
        }
        other => {
            return Err(Fault::from(format!(
                "`{other}` is no case; it is lower, upper, snake or camel"
            )));
        }
    }
    .into())
}

fn extract_patterns<'v>(args: &Args<'v>) -> Result<Value<'v>, Fault> {
    let (text, pattern) = (args.text(0)?, args.pattern(1)?);
    let mut stretch = Vec::new();
    if let Some(groups) = pattern.captures(&text) {
        for name in pattern.capture_names().flatten() {
            let mut value = Vec::new();
            put_value(
                &mut value,
                AnyValue::Str(groups.name(name).map_or("", |group| group.as_str())),
            );
            message::put_pair(&mut stretch, 1, name, &value);
        }
    }
    Ok(Value::map(stretch))
}

fn index<'v>(args: &Args<'v>) -> Result<Value<'v>, Fault> {
    let at = match args.any(0)? {
        Value::Text(text) => text.find(&*args.text(1)?),
        Value::List(stretch) => {
            let item = args.any(1)?;
            elements(&stretch).position(|value| compare(&value.into(), Comparison::Equal, &item))
        }
        other => return Err(Fault::from(format!("a text or a list is needed, not {}", other.kind()))),
    };
    Ok(Value::Int(at.map_or(-1, |at| at as i64)))
}

fn id<'v>(args: &Args<'v>, len: usize) -> Result<Value<'v>, Fault> {
    let bytes = match args.any(0)? {
        Value::Bytes(bytes) => bytes,
        Value::Text(text) => Cow::Owned(from_hex(&text).unwrap_or_default()),
        other => return Err(Fault::from(format!("bytes are needed, not {}", other.kind()))),
    };
    match bytes.len() == len {
        true => Ok(Value::Bytes(bytes)),
        false => Err(Fault::from(format!("the id needs {len} bytes and has {}", bytes.len()))),
    }
}

fn points_have<'v>(args: &Args<'v>, has: impl Fn(Attributes<'_>) -> bool) -> Result<Value<'v>, Fault> {
    let mut found = false;
    Inner::Points.each(args.frame.bytes(Part::Item), |data, point| {
        let number = match data {
            9 => 9,
            10 => 1,
            _ => 7,
        };
        found |= has(List::new(point, number));
    });
    Ok(Value::Bool(found))
}

/// Cuts at a delimiter where it is not quoted.
fn cut<'t>(text: &'t str, delimiter: &str) -> Vec<&'t str> {
    let (mut parts, mut start, mut at, mut quote) = (Vec::new(), 0, 0, None);
    while let Some(c) = text[at..].chars().next() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if text[at..].starts_with(delimiter) => {
                parts.push(&text[start..at]);
                at += delimiter.len();
                start = at;
                continue;
            }
            _ => {}
        }
        at += c.len_utf8();
    }
    parts.push(&text[start..]);
    parts
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inner;
        }
    }
    text
}

fn parse_key_value<'v>(args: &Args<'v>) -> Result<Value<'v>, Fault> {
    let text = args.text(0)?;
    let (delimiter, pair_delimiter) = (args.text_or(1, "=")?, args.text_or(2, " ")?);
    if delimiter.is_empty() || pair_delimiter.is_empty() || delimiter == pair_delimiter {
        return Err(Fault::from("the two delimiters must differ and not be empty"));
    }
    let mut pairs = std::collections::BTreeMap::new();
    for part in cut(&text, &pair_delimiter) {
        if part.trim().is_empty() {
            continue;
        }
        let Some((key, value)) = part.split_once(&*delimiter) else {
            return Err(Fault::from(format!("`{part}` has no `{delimiter}`")));
        };
        pairs.insert(unquoted(key), unquoted(value));
    }
    let mut stretch = Vec::new();
    for (key, value) in pairs {
        let mut encoded = Vec::new();
        put_value(&mut encoded, AnyValue::Str(value));
        message::put_pair(&mut stretch, 1, key, &encoded);
    }
    Ok(Value::map(stretch))
}

fn to_key_value<'v>(args: &Args<'v>) -> Result<Value<'v>, Fault> {
    let pairs = args.map_of(0)?;
    let (delimiter, pair_delimiter) = (args.text_or(1, "=")?, args.text_or(2, " ")?);
    let mut texts: Vec<(String, String)> = pairs
        .view()
        .iter()
        .map(|pair| {
            let value = Value::from(pair.value).into_text().unwrap_or_default();
            (pair.key.to_owned(), value.into_owned())
        })
        .collect();
    if matches!(args.any(3)?, Value::Bool(true)) {
        texts.sort();
    }
    let quote = |text: &str| match text.contains(&*pair_delimiter) || text.contains(&*delimiter) {
        true => format!("\"{}\"", text.replace('"', "\\\"")),
        false => text.to_owned(),
    };
    let texts: Vec<String> = texts
        .iter()
        .map(|(key, value)| format!("{}{delimiter}{}", quote(key), quote(value)))
        .collect();
    Ok(texts.join(&pair_delimiter).into())
}

/// The widest field that a format may ask for, in characters.
const MAX_WIDTH: usize = 256;

/// Go's verbs, as far as they have a meaning here: `%s %v %d %f %e %x %X %q %t %%` with `-`, `0`, `+`, a width and a precision.
fn format_text<'v>(args: &Args<'v>) -> Result<Value<'v>, Fault> {
    let format = args.text(0)?;
    let mut values = Vec::new();
    args.each(1, |value| {
        values.push(value.owned());
        Ok(())
    })?;
    let mut values = values.into_iter();
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let (mut left, mut zero, mut plus) = (false, false, false);
        while let Some(flag) = chars.next_if(|c| matches!(c, '-' | '0' | '+' | ' ' | '#')) {
            left |= flag == '-';
            zero |= flag == '0';
            plus |= flag == '+';
        }
        let number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            digits.parse::<usize>().unwrap_or(0).min(MAX_WIDTH)
        };
        let width = number(&mut chars);
        let precision = chars.next_if_eq(&'.').map(|_| number(&mut chars));
        let Some(verb) = chars.next() else {
            return Err(Fault::from("the format ends after `%`"));
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = values
            .next()
            .ok_or_else(|| Fault::from("the format asks for more values than there are"))?;
        let sign = if plus { "+" } else { "" };
        let mut text = match (verb, &value) {
            ('d', Value::Int(number)) if *number >= 0 => format!("{sign}{number}"),
            ('d', Value::Int(number)) => number.to_string(),
            ('x', Value::Int(number)) => format!("{number:x}"),
            ('X', Value::Int(number)) => format!("{number:X}"),
            ('f' | 'F', Value::Double(number)) => format!("{number:.*}", precision.unwrap_or(6)),
            ('e', Value::Double(number)) => format!("{number:.*e}", precision.unwrap_or(6)),
            ('t', Value::Bool(value)) => value.to_string(),
            ('x', Value::Text(text)) => hex(text.as_bytes()),
            ('q', Value::Text(text)) => format!("{text:?}"),
            ('s' | 'v' | 'g', value) => value.text().unwrap_or(Cow::Borrowed("<nil>")).into_owned(),
            (verb, value) => {
                return Err(Fault::from(format!("`%{verb}` cannot write {}", value.kind())));
            }
        };
        if let ('s', Some(most)) = (verb, precision) {
            text = text.chars().take(most).collect();
        }
        let missing = width.saturating_sub(text.chars().count());
        let fill = |out: &mut String, with: char| out.extend(std::iter::repeat_n(with, missing));
        if left {
            out.push_str(&text);
            fill(&mut out, ' ');
        } else if zero && !matches!(value, Value::Text(_)) {
            let digits = text.trim_start_matches(['-', '+']);
            out.push_str(&text[..text.len() - digits.len()]);
            fill(&mut out, '0');
            out.push_str(digits);
        } else {
            fill(&mut out, ' ');
            out.push_str(&text);
        }
    }
    match values.next() {
        Some(_) => Err(Fault::from("there are more values than the format asks for")),
        None => Ok(out.into()),
    }
}
