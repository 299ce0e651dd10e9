//! `docs/ottl.md` says what the tables say, because it is written from them.

use crate::ottl;
use crate::ottl::editors::EDITORS;
use crate::ottl::functions::{CONVERTERS, Parameter};
use crate::ottl::paths::{self, Context};

/// `docs/ottl.md`, written from the tables; `UPDATE_GOLDEN=1` rewrites it.
#[test]
fn the_page_says_what_there_is() {
    let mut page = PAGE_OPENING.to_owned();
    for context in Context::ALL {
        let paths: Vec<String> = context
            .paths()
            .iter()
            .map(|named| {
                let keys = if named.what.has_keys() {
                    "`, keys in brackets"
                } else {
                    "`"
                };
                let read_only = if named.what.can_be_set() { "" } else { ", cannot be set" };
                format!("| `{}{keys} | {}{read_only} |\n", named.name, named.what.yields())
            })
            .collect();
        page.push_str(&format!(
            "\n### `{}`\n\n| path | what it is |\n|---|---|\n{}",
            context.name(),
            paths.concat()
        ));
    }
    let arguments = |parameters: &[Parameter]| {
        let names = parameters.iter().map(|parameter| match parameter.optional {
            true => format!("[{}]", parameter.name),
            false => parameter.name.to_owned(),
        });
        names.collect::<Vec<_>>().join(", ")
    };
    page.push_str("\n## Editors\n\nThey begin a statement. Arguments in brackets may be left out; every argument can be named, as in `flatten(attributes, depth=2)`.\n\n");
    for editor in EDITORS {
        page.push_str(&format!("- `{}({})`\n", editor.name, arguments(editor.parameters)));
    }
    page.push_str("\n## Functions\n\n");
    for converter in CONVERTERS {
        let only = match converter.only_in {
            [context, ..] => format!(", in the context `{}`", context.name()),
            [] => String::new(),
        };
        page.push_str(&format!(
            "- `{}({})`{only}\n",
            converter.name,
            arguments(converter.parameters)
        ));
    }
    page.push_str("\n## Constants\n\n");
    page.push_str(&format!("`{}`\n", paths::constants().join("`, `")));
    page.push_str(&format!(
        "\n## Bounds\n\n| what | bound |\n|---|---|\n| statements and conditions of one processor | {} |\n| one statement | {} bytes |\n| nesting of expressions | {} levels |\n| operators in a row | {} |\n| a compiled pattern | {} bytes |\n| what statements may add to one message | {} bytes |\n| what statements of one walk may add to a batch | {} bytes |\n| nesting of values | {} levels |\n",
        ottl::MAX_STATEMENTS,
        ottl::MAX_STATEMENT_BYTES,
        ottl::MAX_DEPTH,
        ottl::MAX_CHAIN,
        crate::processors::actions::MAX_PATTERN_BYTES,
        ottl::MAX_GROWTH_BYTES,
        ottl::MAX_BATCH_GROWTH_BYTES,
        model::canonical::MAX_VALUE_DEPTH,
    ));
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/ottl.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &page).expect("writes");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/ottl.md is not what the tables say; UPDATE_GOLDEN=1 rewrites it"
    );
}

const PAGE_OPENING: &str = "\
# The transformation language

<!-- Written by a test of crates/pipeline (UPDATE_GOLDEN=1) from the tables in crates/pipeline/src/ottl; edit them there. -->

The processors `filter` and `transform` take conditions and statements in the OpenTelemetry Transformation Language (OTTL). This page lists what exists here.
A statement is an editor with its arguments and, if it shall not always run, `where` and a condition:

```
set(span.status.code, STATUS_CODE_OK) where span.attributes[\"http.status_code\"] == 404 and IsMatch(span.name, \"^GET \")
```

- Values are texts in double quotes (`\\\\` is a backslash, so a pattern's digit is written `\\\\d`), whole and decimal numbers, bytes (`0x0a1b`), `true`, `false`, `nil`,
  lists `[1, 2]`, maps `{\"key\": 1}`, constants, paths and calls of functions. `+ - * /` calculate with numbers, times and durations.
- Conditions are comparisons (`== != < <= > >=`), calls and paths that yield a boolean, `and`, `or`, `not` and parentheses. `and` binds stronger than `or`.
  Values of different kinds are unequal and in no order; whole and decimal numbers compare with each other.
- What is missing is `nil`. Setting something to `nil` changes nothing.
- A path may begin with its context (`span.name`) or with one around it (`resource.attributes[\"service.name\"]`; `instrumentation_scope` is another word for `scope`).
  In a group that names its `context`, a path without a beginning belongs to that context. Without `context`, every path needs its beginning, and the innermost
  context that is named is the one that the statement is about.
- Statements without a group run one after the other over the batch; the statements of a group run together on each item.
- A statement that fails on an item (a number in the place of a text, for example) is counted and the next one runs; `error_mode` says otherwise.

Different from the Collector: `error_mode` is `ignore` unless set; patterns are those of Rust's `regex` (no look-around and no back-references, as in Go) and must be
written in the statement; globs have `*` and `?` only.
Not there: functions on XML, CSV, URLs and user agents, MD5, SHA-1, SHA-512 and Murmur hashes, UUIDs, `trace_state` by key, whole lists of events, links and
data points, exemplars and the buckets of exponential histograms, and the functions that make new metrics (`convert_sum_to_gauge`, `extract_sum_metric`, …).

## Paths
";
