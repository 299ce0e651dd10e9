//! Statements on encoded bytes against a slow and obvious interpreter on decoded spans, for the editors that nearly all configurations use.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use proptest::prelude::*;
use regex::Regex;

use super::{batch, pair, sample, wrapped};
use crate::processors::transform;
use crate::testing::{processor, traces};
use model::canonical::canonicalize;

/// What a statement does, in a form that can be written in the language and done by hand.
#[derive(Debug, Clone)]
enum Step {
    SetText(&'static str, &'static str),
    SetInt(&'static str, i64),
    Copy(&'static str, &'static str),
    SetName(&'static str),
    SetResource(&'static str, &'static str),
    Delete(&'static str),
    DeleteMatching(&'static str),
    Keep(Vec<&'static str>),
    Replace(&'static str, &'static str, &'static str),
    ReplaceAll(&'static str, &'static str),
    Truncate(usize),
}

/// Where it does it.
#[derive(Debug, Clone)]
enum Where {
    Everywhere,
    Is(&'static str, &'static str),
    Missing(&'static str),
    More(&'static str, i64),
    Matches(&'static str),
}

const KEYS: [&str; 5] = ["a", "b.c", "größe", "key with spaces", "longer.key.of.an.attribute"];
const TEXTS: [&str; 5] = ["", "x", "GET /orders/17", "größe 🦀", "a=1&b=22&c=333"];
const PATTERNS: [&str; 4] = ["\\\\d+", "^g", "[a-c]", "🦀|x"];

/// The pattern as a regular expression rather than as it is written in the language.
fn regex(written: &str) -> Regex {
    Regex::new(&written.replace("\\\\", "\\")).expect("a pattern")
}

impl Step {
    fn written(&self) -> String {
        match self {
            Step::SetText(key, text) => format!(r#"set(attributes["{key}"], "{text}")"#),
            Step::SetInt(key, number) => format!(r#"set(attributes["{key}"], {number})"#),
            Step::Copy(to, from) => format!(r#"set(attributes["{to}"], attributes["{from}"])"#),
            Step::SetName(text) => format!(r#"set(name, "{text}")"#),
            Step::SetResource(key, text) => format!(r#"set(resource.attributes["{key}"], "{text}")"#),
            Step::Delete(key) => format!(r#"delete_key(attributes, "{key}")"#),
            Step::DeleteMatching(pattern) => format!(r#"delete_matching_keys(attributes, "{pattern}")"#),
            Step::Keep(keys) => format!("keep_keys(attributes, {keys:?})"),
            Step::Replace(key, pattern, text) => {
                format!(r#"replace_pattern(attributes["{key}"], "{pattern}", "{text}")"#)
            }
            Step::ReplaceAll(pattern, text) => {
                format!(r#"replace_all_patterns(attributes, "value", "{pattern}", "{text}")"#)
            }
            Step::Truncate(limit) => format!("truncate_all(attributes, {limit})"),
        }
    }

    fn run(&self, span: &mut Span, resource: &mut Vec<KeyValue>) {
        let replaced = |text: &str, pattern: &str, with: &str| regex(pattern).replace_all(text, with).into_owned();
        match self {
            Step::SetText(key, text) => set(&mut span.attributes, key, Value::StringValue((*text).into())),
            Step::SetInt(key, number) => set(&mut span.attributes, key, Value::IntValue(*number)),
            Step::Copy(to, from) => {
                if let Some(value) = get(&span.attributes, from).cloned() {
                    set(&mut span.attributes, to, value);
                }
            }
            Step::SetName(text) => span.name = (*text).into(),
            Step::SetResource(key, text) => set(resource, key, Value::StringValue((*text).into())),
            Step::Delete(key) => span.attributes.retain(|pair| pair.key != *key),
            Step::DeleteMatching(pattern) => span.attributes.retain(|pair| !regex(pattern).is_match(&pair.key)),
            Step::Keep(keys) => span.attributes.retain(|pair| keys.contains(&pair.key.as_str())),
            Step::Replace(key, pattern, with) => {
                if let Some(Value::StringValue(text)) = get(&span.attributes, key) {
                    let new = replaced(text, pattern, with);
                    set(&mut span.attributes, key, Value::StringValue(new));
                }
            }
            Step::ReplaceAll(pattern, with) => each_text(&mut span.attributes, |text| replaced(text, pattern, with)),
            Step::Truncate(limit) => each_text(&mut span.attributes, |text| {
                let mut short = text.to_owned();
                while short.len() > *limit {
                    short.pop();
                }
                short
            }),
        }
    }
}

impl Where {
    fn written(&self) -> String {
        match self {
            Where::Everywhere => String::new(),
            Where::Is(key, text) => format!(r#" where attributes["{key}"] == "{text}""#),
            Where::Missing(key) => format!(r#" where not (attributes["{key}"] != nil)"#),
            Where::More(key, number) => format!(r#" where attributes["{key}"] > {number} and true"#),
            Where::Matches(pattern) => format!(r#" where IsMatch(name, "{pattern}")"#),
        }
    }

    fn holds(&self, span: &Span) -> bool {
        match self {
            Where::Everywhere => true,
            Where::Is(key, text) => {
                matches!(get(&span.attributes, key), Some(Value::StringValue(found)) if found == text)
            }
            Where::Missing(key) => get(&span.attributes, key).is_none(),
            Where::More(key, number) => match get(&span.attributes, key) {
                Some(Value::IntValue(found)) => found > number,
                Some(Value::DoubleValue(found)) => *found > *number as f64,
                _ => false,
            },
            Where::Matches(pattern) => regex(pattern).is_match(&span.name),
        }
    }
}

fn get<'p>(pairs: &'p [KeyValue], key: &str) -> Option<&'p Value> {
    let pair = pairs.iter().find(|pair| pair.key == key)?;
    pair.value.as_ref()?.value.as_ref()
}

fn set(pairs: &mut Vec<KeyValue>, key: &str, value: Value) {
    match pairs.iter_mut().find(|pair| pair.key == key) {
        Some(pair) => pair.value = Some(wrapped(value)),
        None => pairs.push(super::pair(key, value)),
    }
}

fn each_text(pairs: &mut [KeyValue], change: impl Fn(&str) -> String) {
    for pair in pairs {
        if let Some(AnyValue {
            value: Some(Value::StringValue(text)),
        }) = &mut pair.value
        {
            *text = change(text);
        }
    }
}

fn key() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&KEYS[..])
}

fn text() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&TEXTS[..])
}

fn pattern() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&PATTERNS[..])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (key(), text()).prop_map(|(key, text)| Step::SetText(key, text)),
        (key(), any::<i64>()).prop_map(|(key, number)| Step::SetInt(key, number.max(-i64::MAX))),
        (key(), key()).prop_map(|(to, from)| Step::Copy(to, from)),
        text().prop_map(Step::SetName),
        (key(), text()).prop_map(|(key, text)| Step::SetResource(key, text)),
        key().prop_map(Step::Delete),
        pattern().prop_map(Step::DeleteMatching),
        prop::collection::vec(key(), 0..4).prop_map(Step::Keep),
        (key(), pattern(), text()).prop_map(|(key, pattern, text)| Step::Replace(key, pattern, text)),
        (pattern(), text()).prop_map(|(pattern, text)| Step::ReplaceAll(pattern, text)),
        (0..12usize).prop_map(Step::Truncate),
    ]
}

fn condition() -> impl Strategy<Value = Where> {
    prop_oneof![
        Just(Where::Everywhere),
        (key(), text()).prop_map(|(key, text)| Where::Is(key, text)),
        key().prop_map(Where::Missing),
        (key(), -5..5i64).prop_map(|(key, number)| Where::More(key, number)),
        pattern().prop_map(Where::Matches),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        text().prop_map(|text| Value::StringValue(text.into())),
        (-9..9i64).prop_map(Value::IntValue),
        (-9..9i64).prop_map(|number| Value::DoubleValue(number as f64 / 2.0)),
        any::<bool>().prop_map(Value::BoolValue),
        prop::collection::vec(any::<u8>(), 0..4).prop_map(Value::BytesValue),
    ]
}

fn span() -> impl Strategy<Value = Span> {
    let attributes = prop::collection::btree_map(key(), value(), 0..5);
    (text(), attributes, any::<u8>()).prop_map(|(name, attributes, id)| Span {
        trace_id: vec![7; 16],
        span_id: vec![id.max(1); 8],
        name: name.into(),
        attributes: attributes.into_iter().map(|(key, value)| pair(key, value)).collect(),
        ..Span::default()
    })
}

fn naive(request: &ExportTraceServiceRequest, steps: &[(Step, Where)]) -> ExportTraceServiceRequest {
    let mut request = request.clone();
    for resource in &mut request.resource_spans {
        let owner = &mut resource.resource.as_mut().expect("the sample has one").attributes;
        for span in resource.scope_spans.iter_mut().flat_map(|scope| &mut scope.spans) {
            for (step, condition) in steps {
                if condition.holds(span) {
                    step.run(span, owner);
                }
            }
        }
    }
    request
}

proptest! {
    #[test]
    fn statements_do_what_they_say(
        spans in prop::collection::vec(span(), 0..4),
        steps in prop::collection::vec((step(), condition()), 1..6),
    ) {
        let mut request = sample();
        request.resource_spans[0].scope_spans[0].spans = spans;
        let statements: Vec<String> = steps
            .iter()
            .map(|(step, condition)| format!("'{}{}'", step.written(), condition.written()))
            .collect();
        let config = format!(
            "{{ error_mode: propagate, trace_statements: [{{ context: span, statements: [{}] }}] }}",
            statements.join(", ")
        );
        let before = batch(&request);
        let after = processor(transform::parse, &config).process(before.clone()).expect("no fault");
        let expected = naive(&request, &steps);
        prop_assert_eq!(traces(&after), expected);
        let canonical = canonicalize(after.signal, after.payload.bytes()).expect("is legal");
        prop_assert!(!canonical.rewritten);
        prop_assert_eq!(canonical.items, after.items);
    }
}
