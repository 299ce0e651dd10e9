//! Why: the editors, which are what changes telemetry, as one table from which the checker, the run and the documentation work.

use std::borrow::Cow;
use std::collections::HashSet;

use model::edit::message::{body, key_of, put_pair, set_field, set_pair, value_of};
use model::edit::put_value;
use model::view::{AnyValue, Attributes, KeyValue, List, View};
use model::wire::put_bytes;
use regex::Regex;

use super::Fault;
use super::frame::{Frame, too_deep};
use super::functions::{Parameter, Takes, may, need, push};
use super::paths::What;
use super::program::{Arg, Args, Expr, PathTo, Resolved};
use super::value::{Value, shallow_enough};

/// What editors work with. Kept for a whole batch, for its buffers.
#[derive(Debug, Default)]
pub struct Machine<'a> {
    pub frame: Frame<'a>,
    /// The encoded value that is about to be set.
    staged: Vec<u8>,
    /// The encoded pairs that are about to be set.
    pairs: Vec<u8>,
}

pub type Run = fn(&[Arg], &mut Machine<'_>) -> Result<(), Fault>;

/// A function that changes its target.
#[derive(Debug)]
pub struct Editor {
    pub name: &'static str,
    pub parameters: &'static [Parameter],
    pub run: Run,
}

const fn e(name: &'static str, parameters: &'static [Parameter], run: Run) -> Editor {
    Editor { name, parameters, run }
}

use Takes::{Any, Function, Glob, Int, List as ListOf, Map, Pattern, Target, Text};

pub const EDITORS: &[Editor] = &[
    e(
        "append",
        &[need("target", Target), may("value", Any), may("values", ListOf)],
        append,
    ),
    e("delete_key", &[need("target", Target), need("key", Text)], delete_key),
    e(
        "delete_keys",
        &[need("target", Target), need("keys", ListOf)],
        |args, m| by_keys(args, m, false),
    ),
    e(
        "delete_matching_keys",
        &[need("target", Target), need("pattern", Pattern)],
        |args, m| by_pattern(args, m, false),
    ),
    e(
        "flatten",
        &[need("target", Target), may("prefix", Text), may("depth", Int)],
        flatten,
    ),
    e(
        "keep_keys",
        &[need("target", Target), need("keys", ListOf)],
        |args, m| by_keys(args, m, true),
    ),
    e(
        "keep_matching_keys",
        &[need("target", Target), need("pattern", Pattern)],
        |args, m| by_pattern(args, m, true),
    ),
    e(
        "limit",
        &[
            need("target", Target),
            need("limit", Int),
            need("priority_keys", ListOf),
        ],
        limit,
    ),
    e(
        "merge_maps",
        &[need("target", Target), need("source", Map), need("strategy", Text)],
        merge_maps,
    ),
    e(
        "replace_all_matches",
        &[
            need("target", Target),
            need("pattern", Glob),
            need("replacement", Text),
            may("function", Function),
            may("replacement_format", Text),
        ],
        |args, m| replace_all(args, m, 1, 2, Mode::WholeValue),
    ),
    e(
        "replace_all_patterns",
        &[
            need("target", Target),
            need("mode", Text),
            need("regex", Pattern),
            need("replacement", Text),
            may("function", Function),
            may("replacement_format", Text),
        ],
        |args, m| {
            let mode = text(args, m, 1)?;
            let mode = match mode.as_str() {
                "value" => Mode::Value,
                "key" => Mode::Key,
                other => return Err(Fault::from(format!("`{other}` is no mode; it is `key` or `value`"))),
            };
            replace_all(args, m, 2, 3, mode)
        },
    ),
    e(
        "replace_match",
        &[
            need("target", Target),
            need("pattern", Glob),
            need("replacement", Text),
            may("function", Function),
            may("replacement_format", Text),
        ],
        |args, m| replace_one(args, m, Mode::WholeValue),
    ),
    e(
        "replace_pattern",
        &[
            need("target", Target),
            need("regex", Pattern),
            need("replacement", Text),
            may("function", Function),
            may("replacement_format", Text),
        ],
        |args, m| replace_one(args, m, Mode::Value),
    ),
    e("set", &[need("target", Target), need("value", Any)], set),
    e(
        "truncate_all",
        &[need("target", Target), need("limit", Int)],
        truncate_all,
    ),
];

/// The editor of this name.
pub fn editor(name: &str) -> Option<&'static Editor> {
    EDITORS.iter().find(|editor| editor.name == name)
}

fn target(args: &[Arg]) -> Result<&PathTo, Fault> {
    match args.first() {
        Some(Arg::Target(path)) => Ok(path),
        _ => Err(Fault::from("a path is needed")),
    }
}

fn text(list: &[Arg], m: &Machine<'_>, index: usize) -> Result<String, Fault> {
    let args = Args { list, frame: &m.frame };
    args.text(index).map(Cow::into_owned)
}

fn set(list: &[Arg], m: &mut Machine<'_>) -> Result<(), Fault> {
    let path = target(list)?;
    let mut staged = std::mem::take(&mut m.staged);
    staged.clear();
    let args = Args { list, frame: &m.frame };
    let is_time = match args.any(1)? {
        // What is missing sets nothing.
        Value::Nil => return Ok(()),
        Value::Time(nanos) if path.keys.is_empty() && path.what != What::Body => {
            put_value(&mut staged, AnyValue::Int(nanos));
            true
        }
        value => {
            value.encode(&mut staged)?;
            false
        }
    };
    let result = assign(&mut m.frame, path, &staged, is_time);
    m.staged = staged;
    result
}

/// Gives what a path leads to this encoded value.
fn assign(frame: &mut Frame<'_>, path: &PathTo, value: &[u8], is_time: bool) -> Result<(), Fault> {
    let Some((first, rest)) = path.keys.split_first() else {
        return frame.set(path.part, path.what, value, is_time);
    };
    let Some(number) = frame.pairs_field(path.what) else {
        // The body.
        let mut new = Vec::new();
        let keys: Vec<Resolved<'_>> = path
            .keys
            .iter()
            .map(|key| key.resolve(frame))
            .collect::<Result<_, _>>()?;
        nest(body(frame.bytes(path.part), 5), &keys, value, &mut new)?;
        drop(keys);
        return frame.set(path.part, path.what, &new, false);
    };
    if let ([], super::program::Key::Text(key)) = (rest, first) {
        if !shallow_enough(AnyValue::read(value), 0) {
            return Err(too_deep());
        }
        return frame.rewrite(path.part, |message, out| set_pair(message, number, key, value, out));
    }
    let Resolved::Text(key) = first.resolve(frame)? else {
        return Err(Fault::from("a map has keys, not elements"));
    };
    let key = key.into_owned();
    let keys: Vec<Resolved<'_>> = rest.iter().map(|key| key.resolve(frame)).collect::<Result<_, _>>()?;
    let pairs: Attributes<'_> = List::new(frame.bytes(path.part), number);
    let old = pairs
        .raw()
        .find(|pair| key_of(pair) == key.as_bytes())
        .map_or(&[][..], value_of);
    let mut new = Vec::new();
    nest(old, &keys, value, &mut new)?;
    drop(keys);
    if !shallow_enough(AnyValue::read(&new), 0) {
        return Err(too_deep());
    }
    frame.rewrite(path.part, |message, out| set_pair(message, number, &key, &new, out))
}

/// Writes an encoded value that is `old`, but for what the keys lead to. What is missing on the way becomes a map.
fn nest(old: &[u8], keys: &[Resolved<'_>], value: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let Some((key, rest)) = keys.split_first() else {
        out.extend_from_slice(value);
        return Ok(());
    };
    let mut inner = Vec::new();
    match (AnyValue::read(old), key) {
        (AnyValue::Empty, Resolved::Text(key)) => {
            nest(&[], rest, value, &mut inner)?;
            let mut map = Vec::new();
            put_pair(&mut map, 1, key, &inner);
            put_bytes(out, 6, &map);
        }
        (AnyValue::KvList(pairs), Resolved::Text(key)) => {
            let found = pairs.raw().find(|pair| key_of(pair) == key.as_bytes());
            nest(found.map_or(&[], value_of), rest, value, &mut inner)?;
            let mut map = Vec::new();
            set_pair(pairs.stretch(), 1, key, &inner, &mut map);
            put_bytes(out, 6, &map);
        }
        (AnyValue::Array(values), Resolved::Index(index)) => {
            let at = usize::try_from(*index).ok().filter(|at| *at < values.count());
            let at = at.ok_or_else(|| Fault::from(format!("the list has no element {index}")))?;
            let mut list = Vec::new();
            for (place, element) in values.raw().enumerate() {
                if place == at {
                    nest(element, rest, value, &mut inner)?;
                    put_bytes(&mut list, 1, &inner);
                } else {
                    put_bytes(&mut list, 1, element);
                }
            }
            put_bytes(out, 5, &list);
        }
        (old, Resolved::Text(key)) => {
            return Err(Fault::from(format!("{} has no key `{key}`", Value::from(old).kind())));
        }
        (old, Resolved::Index(index)) => {
            return Err(Fault::from(format!(
                "{} has no element {index}",
                Value::from(old).kind()
            )));
        }
    }
    Ok(())
}

/// Changes the pairs of a map: `change` writes them anew in the given field and says whether anything is different.
fn edit_pairs(
    list: &[Arg],
    m: &mut Machine<'_>,
    change: impl FnOnce(&Args<'_>, Attributes<'_>, u32, &mut Vec<u8>) -> Result<bool, Fault>,
) -> Result<(), Fault> {
    let path = target(list)?;
    let mut new = std::mem::take(&mut m.pairs);
    new.clear();
    let args = Args { list, frame: &m.frame };
    let whole = path.keys.is_empty().then(|| m.frame.pairs_field(path.what)).flatten();
    if let Some(number) = whole {
        let pairs = List::new(m.frame.bytes(path.part), number);
        if change(&args, pairs, number, &mut new)? {
            m.frame.rewrite(path.part, |message, out| {
                set_field(message, &[number], out, |out| out.extend_from_slice(&new));
            })?;
        }
        m.pairs = new;
        return Ok(());
    }
    let changed = match path.get(&m.frame)? {
        Value::Map(pairs) => change(&args, pairs.view(), 1, &mut new)?,
        other => return Err(Fault::from(format!("a map is needed, not {}", other.kind()))),
    };
    if changed {
        let mut value = Vec::new();
        put_bytes(&mut value, 6, &new);
        assign(&mut m.frame, path, &value, false)?;
    }
    m.pairs = new;
    Ok(())
}

/// Copies the pairs that `keep` wants.
fn retain(pairs: Attributes<'_>, number: u32, out: &mut Vec<u8>, mut keep: impl FnMut(&str) -> bool) -> bool {
    let mut changed = false;
    for pair in pairs.raw() {
        if keep(std::str::from_utf8(key_of(pair)).unwrap_or_default()) {
            put_bytes(out, number, pair);
        } else {
            changed = true;
        }
    }
    changed
}

fn delete_key(list: &[Arg], m: &mut Machine<'_>) -> Result<(), Fault> {
    edit_pairs(list, m, |args, pairs, number, out| {
        let key = args.text(1)?;
        Ok(retain(pairs, number, out, |found| found != key))
    })
}

fn by_keys(list: &[Arg], m: &mut Machine<'_>, keep: bool) -> Result<(), Fault> {
    edit_pairs(list, m, |args, pairs, number, out| {
        if let Some(Arg::Texts(keys)) = args.list.get(1) {
            return Ok(retain(pairs, number, out, |found| {
                keys.iter().any(|key| key == found) == keep
            }));
        }
        let mut keys = HashSet::new();
        args.each(1, |key| {
            keys.extend(key.into_text().map(Cow::into_owned));
            Ok(())
        })?;
        Ok(retain(pairs, number, out, |found| keys.contains(found) == keep))
    })
}

fn by_pattern(list: &[Arg], m: &mut Machine<'_>, keep: bool) -> Result<(), Fault> {
    edit_pairs(list, m, |args, pairs, number, out| {
        let pattern = args.pattern(1)?;
        Ok(retain(pairs, number, out, |found| pattern.is_match(found) == keep))
    })
}

fn truncate_all(list: &[Arg], m: &mut Machine<'_>) -> Result<(), Fault> {
    edit_pairs(list, m, |args, pairs, number, out| {
        let limit = usize::try_from(args.int(1)?).map_err(|_| Fault::from("the limit is negative"))?;
        map_values(pairs, number, out, |_, value| match value {
            AnyValue::Str(text) if text.len() > limit => {
                Ok(Some(Cow::Borrowed(&text[..text.floor_char_boundary(limit)])))
            }
            _ => Ok(None),
        })
    })
}

/// Many pairs, each of which grows within its bound, are told before they are all written.
fn bounded(out: &[u8], pairs: Attributes<'_>) -> Result<(), Fault> {
    match out.len() > pairs.stretch().len() + super::MAX_GROWTH_BYTES {
        true => Err(Fault::from(
            "the map would grow by more than the bound on what statements may add",
        )),
        false => Ok(()),
    }
}

/// Copies the pairs, with a text in the place of each value for which `change` has one.
fn map_values(
    pairs: Attributes<'_>,
    number: u32,
    out: &mut Vec<u8>,
    mut change: impl for<'t> FnMut(&str, AnyValue<'t>) -> Result<Option<Cow<'t, str>>, Fault>,
) -> Result<bool, Fault> {
    let mut changed = false;
    let mut value = Vec::new();
    for raw in pairs.raw() {
        bounded(out, pairs)?;
        let pair = KeyValue::read(raw);
        match change(pair.key, pair.value)? {
            Some(text) => {
                value.clear();
                put_value(&mut value, AnyValue::Str(&text));
                put_pair(out, number, pair.key, &value);
                changed = true;
            }
            None => put_bytes(out, number, raw),
        }
    }
    Ok(changed)
}

fn limit(list: &[Arg], m: &mut Machine<'_>) -> Result<(), Fault> {
    edit_pairs(list, m, |args, pairs, number, out| {
        let most = usize::try_from(args.int(1)?).map_err(|_| Fault::from("the limit is negative"))?;
        let mut first = HashSet::new();
        args.each(2, |key| {
            first.extend(key.into_text().map(Cow::into_owned));
            Ok(())
        })?;
        if pairs.count() <= most {
            return Ok(false);
        }
        let wanted = pairs.iter().filter(|pair| first.contains(pair.key)).count();
        let mut room = most.saturating_sub(wanted);
        let mut left = most;
        Ok(retain(pairs, number, out, |key| {
            let keep = left > 0 && (first.contains(key) || room > 0);
            if keep {
                left -= 1;
                room -= usize::from(!first.contains(key));
            }
            keep
        }))
    })
}

fn merge_maps(list: &[Arg], m: &mut Machine<'_>) -> Result<(), Fault> {
    edit_pairs(list, m, |args, pairs, number, out| {
        let (source, strategy) = (args.map_of(1)?, args.text(2)?);
        let (inserts, updates) = match &*strategy {
            "insert" => (true, false),
            "update" => (false, true),
            "upsert" => (true, true),
            other => {
                return Err(Fault::from(format!(
                    "`{other}` is no strategy; it is `insert`, `update` or `upsert`"
                )));
            }
        };
        let source = source.view();
        let mut new: std::collections::HashMap<&[u8], &[u8]> = source.raw().map(|pair| (key_of(pair), pair)).collect();
        let mut changed = false;
        for pair in pairs.raw() {
            match new.remove(key_of(pair)) {
                Some(found) if updates => {
                    changed |= found != pair;
                    put_bytes(out, number, found);
                }
                _ => put_bytes(out, number, pair),
            }
        }
        if inserts {
            for pair in source.raw().filter(|pair| new.contains_key(key_of(pair))) {
                put_bytes(out, number, pair);
                changed = true;
            }
        }
        let deep = source.iter().any(|pair| !shallow_enough(pair.value, 0));
        if deep { Err(too_deep()) } else { Ok(changed) }
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// What the pattern finds in a value.
    Value,
    /// A value that matches as a whole.
    WholeValue,
    Key,
}

/// What stands in the place of what a pattern finds, ready to be used.
struct Replacement<'v> {
    pattern: &'v Regex,
    text: Cow<'v, str>,
    function: Option<&'static super::functions::Converter>,
    format: Cow<'v, str>,
}

impl<'v> Replacement<'v> {
    /// The arguments from `pattern` on: replacement, function, format.
    fn new(args: &Args<'v>, pattern: usize, replacement: usize) -> Result<Replacement<'v>, Fault> {
        Ok(Replacement {
            pattern: args.pattern(pattern)?,
            text: args.text(replacement)?,
            function: match args.list.get(replacement + 1) {
                Some(Arg::Function(function)) => Some(function),
                _ => None,
            },
            format: args.text_or(replacement + 2, "%s")?,
        })
    }

    /// The text with the pattern replaced; `None` if it is not found.
    fn apply(&self, text: &str, frame: &Frame<'_>, mode: Mode) -> Result<Option<String>, Fault> {
        if !self.pattern.is_match(text) {
            return Ok(None);
        }
        if mode == Mode::WholeValue {
            return self.converted(self.text.to_string(), frame).map(Some);
        }
        let (mut out, mut end) = (String::new(), 0);
        for found in self.pattern.captures_iter(text) {
            let Some(whole) = found.get(0) else { continue };
            out.push_str(&text[end..whole.start()]);
            end = whole.end();
            if self.function.is_some() {
                let mut new = String::new();
                found.expand(&self.text, &mut new);
                out.push_str(&self.converted(new, frame)?);
            } else {
                found.expand(&self.text, &mut out);
            }
            if out.len() > text.len() + super::MAX_GROWTH_BYTES {
                return Err(Fault::from(
                    "the replaced text is larger than the bound on what statements may add",
                ));
            }
        }
        out.push_str(&text[end..]);
        Ok(Some(out))
    }

    fn converted(&self, text: String, frame: &Frame<'_>) -> Result<String, Fault> {
        let Some(function) = self.function else { return Ok(text) };
        let list = [Arg::Expr(Expr::Constant(Value::Text(Cow::Owned(text))))];
        let args = Args { list: &list, frame };
        let value = (function.run)(&args)?.into_text().unwrap_or_default().into_owned();
        Ok(self.format.replacen("%s", &value, 1))
    }
}

fn replace_one(list: &[Arg], m: &mut Machine<'_>, mode: Mode) -> Result<(), Fault> {
    let path = target(list)?;
    let new = {
        let args = Args { list, frame: &m.frame };
        match path.get(&m.frame)? {
            Value::Text(text) => Replacement::new(&args, 1, 2)?.apply(&text, &m.frame, mode)?,
            // What is not a text has nothing to be found in it, as in the collector.
            _ => None,
        }
    };
    let Some(new) = new else { return Ok(()) };
    let mut value = Vec::new();
    put_value(&mut value, AnyValue::Str(&new));
    assign(&mut m.frame, path, &value, false)
}

fn replace_all(list: &[Arg], m: &mut Machine<'_>, pattern: usize, replacement: usize, mode: Mode) -> Result<(), Fault> {
    edit_pairs(list, m, |args, pairs, number, out| {
        let replacement = Replacement::new(args, pattern, replacement)?;
        if mode != Mode::Key {
            return map_values(pairs, number, out, |_, value| match value {
                AnyValue::Str(text) => Ok(replacement.apply(text, args.frame, mode)?.map(Cow::Owned)),
                _ => Ok(None),
            });
        }
        let mut changed = false;
        let mut renamed = Vec::new();
        let mut size = 0;
        for raw in pairs.raw() {
            let key = KeyValue::read(raw).key;
            let new = replacement.apply(key, args.frame, mode)?;
            size += new.as_ref().map_or(0, |new| new.len().saturating_sub(key.len()));
            if size > super::MAX_GROWTH_BYTES {
                return Err(Fault::from(
                    "the map would grow by more than the bound on what statements may add",
                ));
            }
            changed |= new.is_some();
            renamed.push((new.map_or(Cow::Borrowed(key), Cow::Owned), value_of(raw)));
        }
        if changed {
            put_unique(&renamed, number, out);
        }
        Ok(changed)
    })
}

/// Writes pairs, of which the last of each key counts.
fn put_unique(pairs: &[(Cow<'_, str>, &[u8])], number: u32, out: &mut Vec<u8>) {
    let mut last = std::collections::HashMap::new();
    for (at, (key, _)) in pairs.iter().enumerate() {
        last.insert(&**key, at);
    }
    for (at, (key, value)) in pairs.iter().enumerate() {
        if last.get(&**key) == Some(&at) {
            put_pair(out, number, key, value);
        }
    }
}

fn append(list: &[Arg], m: &mut Machine<'_>) -> Result<(), Fault> {
    let path = target(list)?;
    let args = Args { list, frame: &m.frame };
    if args.given(1) == args.given(2) {
        return Err(Fault::from("exactly one of `value` and `values` is needed"));
    }
    let mut stretch = match path.get(&m.frame)? {
        Value::Nil => Vec::new(),
        Value::List(stretch) => stretch.into_owned(),
        single @ (Value::Text(_) | Value::Int(_) | Value::Double(_) | Value::Bool(_)) => {
            let mut stretch = Vec::new();
            if let Some(view) = single.view() {
                push(&mut stretch, view);
            }
            stretch
        }
        other => return Err(Fault::from(format!("nothing can be appended to {}", other.kind()))),
    };
    if args.given(1) {
        let mut element = Vec::new();
        args.any(1)?.encode(&mut element)?;
        put_bytes(&mut stretch, 1, &element);
    } else {
        args.each(2, |value| {
            let mut element = Vec::new();
            value.encode(&mut element)?;
            put_bytes(&mut stretch, 1, &element);
            Ok(())
        })?;
    }
    let mut value = Vec::new();
    put_bytes(&mut value, 5, &stretch);
    assign(&mut m.frame, path, &value, false)
}

fn flatten(list: &[Arg], m: &mut Machine<'_>) -> Result<(), Fault> {
    edit_pairs(list, m, |args, pairs, number, out| {
        let prefix = args.text_or(1, "")?;
        let depth = if args.given(2) { args.int(2)? } else { i64::MAX };
        if depth < 1 {
            return Err(Fault::from("the depth must be at least 1"));
        }
        let mut flat = Vec::new();
        let mut size = 0;
        for raw in pairs.raw() {
            let pair = KeyValue::read(raw);
            let key = match prefix.is_empty() {
                true => pair.key.to_owned(),
                false => format!("{prefix}.{}", pair.key),
            };
            flat_value(key, value_of(raw), depth, &mut flat, &mut size)?;
        }
        put_unique(&flat, number, out);
        Ok(true)
    })
}

fn flat_value<'p>(
    key: String,
    encoded: &'p [u8],
    depth: i64,
    flat: &mut Vec<(Cow<'p, str>, &'p [u8])>,
    size: &mut usize,
) -> Result<(), Fault> {
    // Keys repeat what is around them, which multiplies what a hostile sender put there.
    *size += key.len();
    if *size > super::MAX_GROWTH_BYTES {
        return Err(Fault::from(
            "the flat map is larger than the bound on what statements may add",
        ));
    }
    match AnyValue::read(encoded) {
        AnyValue::KvList(pairs) if depth > 0 && !pairs.is_empty() => {
            for raw in pairs.raw() {
                let inner = KeyValue::read(raw).key;
                flat_value(format!("{key}.{inner}"), value_of(raw), depth - 1, flat, size)?;
            }
        }
        AnyValue::Array(values) if depth > 0 && !values.is_empty() => {
            for (index, element) in values.raw().enumerate() {
                flat_value(format!("{key}.{index}"), element, depth - 1, flat, size)?;
            }
        }
        _ => flat.push((Cow::Owned(key), encoded)),
    }
    Ok(())
}
