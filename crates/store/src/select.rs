//! Which rows of a block a filter keeps. Texts are judged once per distinct value, not once per row.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::rc::Rc;

use model::record::Value;
use model::{SpanId, TraceId};

use crate::column::{Kind, Level, Spec, parse_column_name, word_value};
use crate::filter::{Field, Filter, Op};
use crate::frame::{Data, Frame};
use crate::json;
use crate::texts::Texts;
use crate::words::WordFilter;

/// Name of the column that holds attributes without a column of their own.
const REST: &str = "rest:json";
/// Name of the column of trace ids in both datasets.
pub const TRACE_ID: &str = "trace_id";

/// The columns that a field may read, as a test on their names. `None` is a column that it does not read; a smaller rank is read first.
fn rank(field: &Field, spec: &Spec) -> Option<usize> {
    let own = |name: &str| &*spec.name == name || is_body_of(name, &spec.name);
    match field {
        Field::Exact(name) => match parse_column_name(&spec.name) {
            Some((level, key, _)) => {
                let wanted = name.strip_prefix(level.prefix())?;
                (wanted == key).then_some(1)
            }
            None => own(name).then_some(0),
        },
        Field::Bare(name) => match parse_column_name(&spec.name) {
            Some((level, key, _)) => {
                let rank = Level::BARE.iter().position(|l| *l == level)?;
                (key == name).then_some(rank + 1)
            }
            None => own(name).then_some(0),
        },
    }
}

/// `body` is one field in five types.
fn is_body_of(name: &str, column: &str) -> bool {
    name == "body" && matches!(column, "body:int" | "body:double" | "body:bool" | "body:json")
}

/// Whether a filter has to read a column.
pub fn reads(filter: &Filter, spec: &Spec) -> bool {
    match filter {
        Filter::True => false,
        Filter::And(all) | Filter::Or(all) => all.iter().any(|f| reads(f, spec)),
        Filter::Not(inner) => reads(inner, spec),
        Filter::Compare { field, .. } => {
            rank(field, spec).is_some() || (&*spec.name == REST && rest_names(field).next().is_some())
        }
    }
}

/// Whether a filter reads a column that stands for the trace id: then it reads `trace_id` too.
pub fn reads_trace_id<'a>(filter: &Filter, mut specs: impl Iterator<Item = &'a Spec>) -> bool {
    specs.any(|spec| spec.kind == Kind::TraceHex && reads(filter, spec))
}

/// The names that a field may have in the rest, in order of preference.
fn rest_names(field: &Field) -> impl Iterator<Item = Cow<'_, str>> {
    let levels = Level::BARE.iter().map(move |level| match field {
        Field::Bare(name) => Some(Cow::Owned(format!("{}{name}", level.prefix()))),
        Field::Exact(name) => name.starts_with(level.prefix()).then_some(Cow::Borrowed(name.as_str())),
    });
    levels.flatten()
}

/// The rows of a frame that a filter keeps.
pub fn select(filter: &Filter, frame: &Frame) -> Vec<bool> {
    match filter {
        Filter::True => vec![true; frame.rows],
        Filter::And(all) => all.iter().fold(vec![true; frame.rows], |mut kept, f| {
            if kept.contains(&true) {
                let more = select(f, frame);
                kept.iter_mut().zip(more).for_each(|(k, m)| *k &= m);
            }
            kept
        }),
        Filter::Or(all) => all.iter().fold(vec![false; frame.rows], |mut kept, f| {
            let more = select(f, frame);
            kept.iter_mut().zip(more).for_each(|(k, m)| *k |= m);
            kept
        }),
        Filter::Not(inner) => {
            let mut kept = select(inner, frame);
            kept.iter_mut().for_each(|k| *k = !*k);
            kept
        }
        Filter::Compare { field, op, value } => compare_rows(field, *op, value, frame),
    }
}

fn compare_rows(field: &Field, op: Op, value: &Value, frame: &Frame) -> Vec<bool> {
    let mut columns: Vec<(usize, &Spec, &Data)> = frame
        .columns
        .iter()
        .filter_map(|c| Some((rank(field, &c.spec)?, &c.spec, &c.data)))
        .collect();
    columns.sort_by_key(|c| c.0);
    let mut decided = vec![false; frame.rows];
    let mut kept = vec![false; frame.rows];
    for (_, spec, data) in columns {
        let mut judged: Vec<Option<bool>> = match data {
            Data::Text { texts, .. } => vec![None; texts.len()],
            _ => Vec::new(),
        };
        if spec.kind == Kind::TraceHex {
            let ids = frame.column(TRACE_ID);
            for row in 0..frame.rows {
                if let (false, Some(_), Some(id)) = (decided[row], data.word(row), ids.and_then(|ids| ids.id(row))) {
                    decided[row] = true;
                    let text = TraceId::from_bytes(id).unwrap_or_default().to_string();
                    kept[row] = text_matches(Kind::Text, &text, op, value);
                }
            }
            continue;
        }
        for row in 0..frame.rows {
            if decided[row] || !data.is_present(row) {
                continue;
            }
            decided[row] = true;
            kept[row] = match data {
                Data::Text { codes, texts, .. } => {
                    let index = codes[row] as usize - 1;
                    *judged[index].get_or_insert_with(|| text_matches(spec.kind, texts.get(index), op, value))
                }
                Data::Words { values, .. } => value_matches(&stored_word(spec.kind, values[row]), op, value),
                Data::Ids { .. } => id_matches(data.id(row).unwrap_or_default(), op, value),
            };
        }
    }
    if let Some(rest) = frame.column(REST) {
        for row in 0..frame.rows {
            if let (false, Some(text)) = (decided[row], rest.text(row))
                && let Some(Value::Map(pairs)) = json::parse(text)
            {
                let found = rest_names(field).find_map(|name| pairs.iter().find(|(key, _)| *key == name));
                if let Some((_, stored)) = found {
                    kept[row] = value_matches(stored, op, value);
                }
            }
        }
    }
    kept
}

fn stored_word(kind: Kind, word: u64) -> Value {
    match kind {
        // Counts and instants beyond the signed range compare as doubles, which keeps their order.
        Kind::Uint if word > i64::MAX as u64 => Value::Double(word as f64),
        kind => word_value(kind, word),
    }
}

fn text_matches(kind: Kind, stored: &str, op: Op, value: &Value) -> bool {
    match (kind, op) {
        (_, Op::Exists) => true,
        (_, Op::Contains) => wanted_text(value).is_some_and(|wanted| stored.contains(&*wanted)),
        (Kind::Json, _) => match json::parse(stored) {
            Some(parsed) => {
                value_matches(&parsed, op, value)
                    || (op == Op::Eq && matches!(value, Value::Str(text) if text == stored))
            }
            None => false,
        },
        _ => text_compares(stored, op, value),
    }
}

/// A stored text against a wanted value, without making a `Value` of it.
fn text_compares(stored: &str, op: Op, value: &Value) -> bool {
    match (op, value) {
        (Op::In, Value::Array(values)) => values.iter().any(|v| text_compares(stored, Op::Eq, v)),
        (_, Value::Str(wanted)) => holds(op, Some(stored.cmp(wanted))),
        (_, Value::Int(_) | Value::Double(_)) => match stored.parse::<f64>() {
            Ok(number) => holds(op, number_of(value).and_then(|w| number.partial_cmp(&w))),
            Err(_) => op == Op::Ne,
        },
        (_, Value::Bool(wanted)) => match (stored, op) {
            ("true", Op::Eq) | ("false", Op::Ne) => *wanted,
            ("false", Op::Eq) | ("true", Op::Ne) => !*wanted,
            (_, op) => op == Op::Ne,
        },
        _ => op == Op::Ne,
    }
}

/// A stored value that is not text against a wanted one.
fn value_matches(stored: &Value, op: Op, wanted: &Value) -> bool {
    match op {
        Op::Exists => return true,
        Op::In => {
            return match wanted {
                Value::Array(values) => values.iter().any(|v| value_matches(stored, Op::Eq, v)),
                _ => false,
            };
        }
        Op::Contains => {
            let text = match stored {
                Value::Str(text) => Cow::Borrowed(text.as_str()),
                other => {
                    let mut text = String::new();
                    json::write_value(&mut text, other);
                    Cow::Owned(text)
                }
            };
            return wanted_text(wanted).is_some_and(|w| text.contains(&*w));
        }
        _ => {}
    }
    let order = match (stored, wanted) {
        (Value::Str(stored), _) => return text_compares(stored, op, wanted),
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Str(b)) => match b.as_str() {
            "true" => Some(a.cmp(&true)),
            "false" => Some(a.cmp(&false)),
            _ => None,
        },
        (Value::Int(a), Value::Str(b)) => match b.parse::<i64>() {
            Ok(b) => Some(a.cmp(&b)),
            Err(_) => b.parse::<f64>().ok().and_then(|b| (*a as f64).partial_cmp(&b)),
        },
        (Value::Double(a), Value::Str(b)) => b.parse::<f64>().ok().and_then(|b| a.partial_cmp(&b)),
        (a, b) => match (number_of(a), number_of(b)) {
            (Some(a), Some(b)) => a.partial_cmp(&b),
            _ if a == b => Some(Ordering::Equal),
            _ => None,
        },
    };
    holds(op, order)
}

fn number_of(value: &Value) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::Double(value) => Some(*value),
        _ => None,
    }
}

/// What cannot be ordered is unequal and nothing else.
fn holds(op: Op, order: Option<Ordering>) -> bool {
    match (op, order) {
        (Op::Eq, order) => order == Some(Ordering::Equal),
        (Op::Ne, order) => order != Some(Ordering::Equal),
        (Op::Lt, Some(order)) => order.is_lt(),
        (Op::Le, Some(order)) => order.is_le(),
        (Op::Gt, Some(order)) => order.is_gt(),
        (Op::Ge, Some(order)) => order.is_ge(),
        _ => false,
    }
}

fn wanted_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::Str(text) => Some(Cow::Borrowed(text)),
        Value::Null => None,
        other => {
            let mut text = String::new();
            json::write_value(&mut text, other);
            Some(Cow::Owned(text))
        }
    }
}

fn id_matches(stored: &[u8], op: Op, value: &Value) -> bool {
    let wanted: Option<Vec<u8>> = match value {
        Value::Bytes(bytes) => Some(bytes.clone()),
        Value::Str(text) if stored.len() == 16 => TraceId::from_hex(text).ok().map(|id| id.0.to_vec()),
        Value::Str(text) => SpanId::from_hex(text).ok().map(|id| id.0.to_vec()),
        _ => None,
    };
    match (op, value) {
        (Op::Exists, _) => true,
        (Op::In, Value::Array(values)) => values.iter().any(|v| id_matches(stored, Op::Eq, v)),
        (Op::Contains | Op::In, _) => false,
        _ => holds(op, wanted.map(|w| stored.cmp(w.as_slice()))),
    }
}

/// What a group's chunk can say about its values before they are read.
pub enum Known {
    /// The column has no value here.
    Absent,
    /// These texts and no others.
    Texts(Texts),
    /// Texts that left these traces.
    Words(Rc<WordFilter>),
    /// Anything.
    Anything,
}

/// Texts of which a value must contain or be one to match; what asks a word filter.
enum Needles<'a> {
    Contains(Cow<'a, str>),
    Equals(Vec<&'a str>),
}

impl<'a> Needles<'a> {
    /// What a comparison of a column's text demands; `None` if that is more than a text.
    fn of(kind: Kind, is_rest: bool, op: Op, value: &'a Value) -> Option<Needles<'a>> {
        // In the rest a number may equal a text that spells it otherwise.
        let exact = |value: &'a Value| match value {
            Value::Str(text) if !is_rest || text.parse::<f64>().is_err() => Some(text.as_str()),
            _ => None,
        };
        match (op, value) {
            (Op::Contains, value) => wanted_text(value).map(Needles::Contains),
            // An array or map equals no text, and its text is not compared byte by byte.
            _ if kind == Kind::Json && !is_rest => None,
            (Op::Eq, value) => exact(value).map(|text| Needles::Equals(vec![text])),
            (Op::In, Value::Array(values)) => values.iter().map(exact).collect::<Option<_>>().map(Needles::Equals),
            _ => None,
        }
    }

    fn may_match(&self, words: &WordFilter, is_rest: bool) -> bool {
        match self {
            Needles::Contains(text) => words.may_contain(text),
            // A value in the rest is a part of the row's text there: escapes change no letter, digit or dash of it.
            Needles::Equals(texts) if is_rest => texts.iter().any(|text| words.may_contain(text)),
            Needles::Equals(texts) => texts.iter().any(|text| words.may_equal(text)),
        }
    }
}

/// Whether any row of a group may match, judged by dictionaries and word filters; `known` is asked for each column that matters, and
/// whether its words would help.
pub fn may_match<E>(
    filter: &Filter,
    specs: &[Spec],
    known: &mut impl FnMut(usize, bool) -> Result<Known, E>,
) -> Result<bool, E> {
    match filter {
        Filter::True | Filter::Not(_) => Ok(true),
        Filter::And(all) => {
            for f in all {
                if !may_match(f, specs, known)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Filter::Or(all) => {
            for f in all {
                if may_match(f, specs, known)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Filter::Compare { field, op, value } => {
            for (index, spec) in specs.iter().enumerate() {
                let is_rest = &*spec.name == REST && rest_names(field).next().is_some();
                if !is_rest && rank(field, spec).is_none() {
                    continue;
                }
                let needles = Needles::of(spec.kind, is_rest, *op, value).filter(|_| spec.kind.is_text());
                match known(index, needles.is_some())? {
                    Known::Absent => {}
                    Known::Anything => return Ok(true),
                    Known::Words(words) => {
                        if needles.is_none_or(|needles| needles.may_match(&words, is_rest)) {
                            return Ok(true);
                        }
                    }
                    Known::Texts(_) if is_rest => return Ok(true),
                    Known::Texts(texts) => {
                        if texts.iter().any(|text| text_matches(spec.kind, text, *op, value)) {
                            return Ok(true);
                        }
                    }
                }
            }
            Ok(false)
        }
    }
}

/// Services that a filter demands, if it does: every match has one of them. What prunes parts by the catalog alone.
pub fn services(filter: &Filter) -> Option<Vec<&str>> {
    match filter {
        Filter::And(all) => all.iter().find_map(services),
        Filter::Compare {
            field: Field::Exact(name),
            op,
            value,
        } if name == "resource.service.name" => match (op, value) {
            (Op::Eq, Value::Str(service)) => Some(vec![service]),
            (Op::In, Value::Array(values)) => values.iter().map(Value::as_str).collect(),
            _ => None,
        },
        _ => None,
    }
}

/// Whether a column belongs to the ones named.
pub fn is_named(names: &[String], spec: &Spec) -> bool {
    names
        .iter()
        .any(|name| &*spec.name == name.as_str() || rank(&Field::Exact(name.clone()), spec).is_some())
}
