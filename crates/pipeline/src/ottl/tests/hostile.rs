//! Whatever somebody calls a statement: an answer with a place in it, no panic, and if it runs, what comes out is canonical.

use proptest::prelude::*;

use super::{batch, sample};
use crate::ottl::check;
use crate::ottl::editors::EDITORS;
use crate::ottl::functions::{CONVERTERS, Parameter, Takes};
use crate::ottl::paths::Context;
use crate::processors::transform;
use crate::testing::processor;
use model::Signal;
use model::canonical::canonicalize;

fn check(text: &str) {
    for context in Context::ALL {
        for mistake in [
            check::statement(text, context).err(),
            check::condition(text, context).err(),
        ]
        .into_iter()
        .flatten()
        {
            assert!(
                mistake.at <= mistake.end && mistake.end <= text.len(),
                "{text}: {mistake:?}"
            );
            assert!(mistake.column(text) <= text.chars().count() + 1, "{text}");
        }
    }
    for signal in Signal::ALL {
        let _ = (check::infer(text, signal, true), check::infer(text, signal, false));
    }
}

/// A value for a parameter: mostly one that fits.
fn argument(takes: Takes, choice: u8) -> &'static str {
    let pick = |list: &'static [&'static str]| list[usize::from(choice) % list.len()];
    match takes {
        Takes::Any | Takes::Text => pick(&[
            "name",
            r#"attributes["url"]"#,
            r#""x=1 y=2""#,
            r#"attributes["map"]"#,
            r#"attributes["tags"]"#,
            "nil",
            "-9223372036854775807 - 1",
            "1.5e300 * 1e300",
            "start_time",
            r#"Duration("1h")"#,
            "0x00ff",
            "[name, 1, [nil]]",
            r#"{"k": attributes}"#,
            r#"attributes["json"]"#,
            "end_time - start_time",
            r#""%d %s %5.2f %%""#,
            r#""upsert""#,
            r#""key""#,
            r#""""#,
        ]),
        Takes::Int => pick(&["0", "3", "-1", "9223372036854775807", "kind", r#"Len(attributes)"#]),
        Takes::List => pick(&["[]", r#"["url", "flag"]"#, "[1, name]", r#"attributes["tags"]"#]),
        Takes::Map => pick(&[
            "attributes",
            "{}",
            r#"{"a": 1}"#,
            r#"ParseJSON(attributes["json"])"#,
            "name",
        ]),
        Takes::Pattern => pick(&[r#""""#, r#""(?P<a>.)(.*)""#, r#""\\d+""#, r#""^x*""#]),
        Takes::Glob => pick(&[r#""*""#, r#""G?T*""#, r#""[""#]),
        Takes::Function => pick(&["SHA256", "ToUpperCase", "Hex"]),
        Takes::Target => pick(&[
            "attributes",
            "name",
            r#"attributes["url"]"#,
            r#"attributes["map"]["inner"]["x"]"#,
            r#"attributes["tags"][0]"#,
            "resource.attributes",
            "scope.name",
            "start_time",
            "kind",
            "trace_id",
            "status.code",
            "status.message",
            "cache",
            "parent_span_id.string",
        ]),
    }
}

fn call(name: &str, parameters: &[Parameter], choices: &[u8]) -> String {
    let mut arguments = Vec::new();
    for (index, parameter) in parameters.iter().enumerate() {
        let choice = choices.get(index).copied().unwrap_or_default();
        if parameter.optional && choice % 3 == 0 {
            continue;
        }
        let argument = argument(parameter.takes, choice);
        arguments.push(match parameter.optional {
            true => format!("{} = {argument}", parameter.name),
            false => argument.to_owned(),
        });
    }
    format!("{name}({})", arguments.join(", "))
}

const WORDS: [&str; 30] = [
    "set",
    "(",
    ")",
    "name",
    "attributes",
    "[",
    "]",
    "\"x\"",
    ",",
    "where",
    "and",
    "or",
    "not",
    "==",
    "<",
    "1",
    "-",
    "+",
    "*",
    "/",
    "nil",
    "true",
    "Concat",
    "{",
    "}",
    ":",
    ".",
    "SPAN_KIND_SERVER",
    "=",
    "span",
];

proptest! {
    #[test]
    fn any_text_is_answered(text in ".{0,60}") {
        check(&text);
    }

    #[test]
    fn any_order_of_words_is_answered(words in prop::collection::vec(prop::sample::select(&WORDS[..]), 0..20)) {
        check(&words.join(" "));
        check(&words.concat());
    }

    #[test]
    fn every_function_takes_whatever_comes(
        editor in 0..EDITORS.len(),
        converter in 0..CONVERTERS.len(),
        choices in prop::collection::vec(any::<u8>(), 12..13),
    ) {
        let (editor, converter) = (&EDITORS[editor], &CONVERTERS[converter]);
        let edit = call(editor.name, editor.parameters, &choices[..6]);
        let value = call(converter.name, converter.parameters, &choices[6..]);
        let set = format!(r#"set(attributes["new"], {value})"#);
        let statements = [edit, set, "set(name, attributes[\"new\"])".to_owned()];
        let right: Vec<String> = statements
            .iter()
            .filter(|text| check::statement(text, Context::Span).is_ok())
            .map(|text| format!("'{text}'"))
            .collect();
        let config = format!("{{ trace_statements: [{{ context: span, statements: [{}] }}] }}", right.join(", "));
        let after = processor(transform::parse, &config).process(batch(&sample())).expect("faults are only counted");
        let canonical = canonicalize(after.signal, after.payload.bytes()).expect("is legal");
        prop_assert!(!canonical.rewritten, "{statements:?}");
        prop_assert_eq!(canonical.items, after.items);
    }
}
