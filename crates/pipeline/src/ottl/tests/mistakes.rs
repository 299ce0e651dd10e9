//! What is said of statements that are wrong, where the bounds lie, and which context a statement without one is about.

use model::Signal;

use super::changes;
use crate::ottl::check;
use crate::ottl::paths::Context;

#[test]
fn what_is_said_of_wrong_statements() {
    for (context, statement, expect) in [
        (
            Context::Span,
            "",
            "1: a statement begins with an editor such as `set(…)`, not with the end",
        ),
        (
            Context::Span,
            "name",
            "1: `name` is not called; an editor has its arguments in parentheses, as in `set(…)`",
        ),
        (
            Context::Span,
            r#"sett(name, "x")"#,
            "1: there is no editor `sett` [did you mean `set`?]",
        ),
        (
            Context::Span,
            r#"Concat(["a"], "")"#,
            "1: `Concat` does not change anything; a statement begins with an editor such as `set(…)`",
        ),
        (
            Context::Span,
            r#"set(name, "x"#,
            "11: this text has no end: a `\"` is missing",
        ),
        (Context::Span, r#"set(name, 'x')"#, "11: texts stand in double quotes"),
        (
            Context::Span,
            r#"set(name, "x") where kind = 2"#,
            "27: expected `==`, found `=`",
        ),
        (
            Context::Span,
            r#"set(name, "x") where kind == 2 && true"#,
            "32: `&` means nothing; conditions are joined with `and`",
        ),
        (
            Context::Span,
            r#"set(name, "x") if kind == 2"#,
            "16: expected the end, `where`, `and`, `or` or an operator, found `if`",
        ),
        (
            Context::Span,
            r#"set(nme, "x")"#,
            "5: a span has no `nme` [did you mean `name`?]",
        ),
        (
            Context::Span,
            r#"set(name)"#,
            "1: the argument `value` of `set` is missing",
        ),
        (Context::Span, r#"set(name, "a", "b")"#, "16: `set` takes 2 arguments"),
        (
            Context::Span,
            r#"set("name", "a")"#,
            "5: the argument `target` of `set` is a path, not a text",
        ),
        (
            Context::Span,
            r#"set(kind.deprecated_string, "a")"#,
            "5: `kind.deprecated_string` can be read, but not changed",
        ),
        (
            Context::Span,
            r#"set(log.body, "a")"#,
            "5: `log` is out of reach in the context `span` [in reach here: `resource.`, `scope.` or `span.`]",
        ),
        (Context::Span, r#"set(name["x"], "a")"#, "10: `name` has no keys"),
        (
            Context::Span,
            r#"set(attributes["a"], SPAN_KIND_SERVR)"#,
            "22: there is no constant `SPAN_KIND_SERVR` [did you mean `SPAN_KIND_SERVER`?]",
        ),
        (
            Context::Span,
            r#"set(attributes["a"], Conct(["a"], ""))"#,
            "22: there is no function `Conct` [did you mean `Concat`?]",
        ),
        (
            Context::Span,
            r#"set(attributes["a"], Concat)"#,
            "22: `Concat` is a function; call it, as in `Concat(…)`",
        ),
        (
            Context::Span,
            r#"set(attributes["a"], set(name, "b"))"#,
            "22: `set` is an editor; it can only begin a statement",
        ),
        (
            Context::Span,
            r#"set(attributes["a"], kind == 2)"#,
            "22: a value is needed here, not a condition",
        ),
        (
            Context::Span,
            r#"set(name, "x") where "yes""#,
            "22: a condition is needed here, not a text",
        ),
        (
            Context::Span,
            r#"replace_pattern(name, "(a", "b")"#,
            "23: `(a` is not a pattern: unclosed group",
        ),
        (
            Context::Span,
            r#"replace_pattern(name, attributes["p"], "b")"#,
            "23: the argument `regex` of `replace_pattern` is a pattern in double quotes, not a path",
        ),
        (
            Context::Span,
            r#"replace_pattern(name, "\d", "b")"#,
            "24: `\\d` is no escape; write `\\\\d` for a backslash and what follows",
        ),
        (
            Context::Span,
            r#"set(name, "\x+1")"#,
            "12: `\\x` needs 2 hexadecimal digits of a character",
        ),
        (
            Context::Span,
            r#"replace_pattern(name, "a", "b", SHA257)"#,
            "33: there is no function `SHA257` that takes one value [did you mean `SHA256`?]",
        ),
        (
            Context::Span,
            r#"append(attributes["a"], vlue = 1)"#,
            "32: `append` has no argument `vlue` [did you mean `value`?]",
        ),
        (
            Context::Span,
            r#"set(attributes["a"], {"k": 1, "k": 2})"#,
            "36: the key `k` is set twice",
        ),
        (
            Context::Span,
            r#"set(attributes["a"], 0x123)"#,
            "22: bytes need two hexadecimal digits each after `0x`",
        ),
        (
            Context::Span,
            r#"set(attributes["a"], 99999999999999999999)"#,
            "22: a whole number beyond 64 bits",
        ),
        (
            Context::Span,
            r#"set(span, 1)"#,
            "5: `span` needs a `.` and what of it is meant",
        ),
        (
            Context::Span,
            r#"set(attributes["a"].b, 1)"#,
            "20: expected nothing after a key in brackets but another key, found `.`",
        ),
        (
            Context::Resource,
            r#"set(attributes["a"], IsRootSpan())"#,
            "22: `IsRootSpan` has a meaning only in the context `span`, not in `resource`",
        ),
        (Context::Resource, r#"set(name, "a")"#, "5: a resource has no `name`"),
    ] {
        let mistake = check::statement(statement, context).expect_err(statement);
        let hint = mistake.hint.as_ref().map_or(String::new(), |hint| format!(" [{hint}]"));
        let said = format!("{}: {}{hint}", mistake.column(statement), mistake.message);
        let expect = match expect.contains(" [") {
            true => expect.to_owned(),
            false => format!("{expect}{hint}"),
        };
        assert_eq!(said, expect, "{statement}");
    }
}

#[test]
fn bounds_hold() {
    let deep = format!("set(name, {}1{})", "(".repeat(100_000 / 2 - 100), ")".repeat(10));
    let parens = format!("set(name, {}1{})", "(".repeat(500), ")".repeat(500));
    let chain = format!("set(name, 1{})", " + 1".repeat(1_000));
    let nots = format!("set(name, 1) where {}true", "not ".repeat(1_000));
    let minus = format!("set(name, {}1)", "-".repeat(1_000));
    let big = r#"replace_pattern(name, "(a{1000}){1000}", "")"#.to_owned();
    let long = format!("set(name, \"{}\")", "x".repeat(100_000));
    for (statement, expect) in [
        (deep, "expressions nest deeper than 64 levels"),
        (parens, "expressions nest deeper than 64 levels"),
        (chain, "more than 256 operators in a row"),
        (nots, "expressions nest deeper than 64 levels"),
        (minus, "expressions nest deeper than 64 levels"),
        (
            big,
            "the pattern `(a{1000}){1000}` takes more than 1048576 bytes once compiled",
        ),
        (long, "longer than 65536 bytes"),
    ] {
        let mistake = check::statement(&statement, Context::Span).expect_err("is beyond a bound");
        assert_eq!(mistake.message, expect);
    }
    // A name that doubles 40 times would be a terabyte.
    let doubled = vec![r#"replace_pattern(name, "^(.*)$", "$1$1")"#; 40];
    assert_eq!(
        changes(&doubled, Context::Span),
        "fault: the statement would make it larger than the bound on what statements may add"
    );
    // Nine texts that grow by 700 KB each.
    let long = "x".repeat(20_000);
    let many = [
        r#"set(attributes, {"a": "1", "b": "2", "c": "3", "d": "4", "e": "5", "f": "6", "g": "7", "h": "8", "i": "9"})"#.to_owned(),
        r#"replace_all_patterns(attributes, "value", "^.*$", "0123456789012345678901234567890123456789")"#.to_owned(),
        format!(r#"replace_all_patterns(attributes, "value", ".", "{long}")"#),
    ];
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(
        changes(&many, Context::Span),
        "fault: the map would grow by more than the bound on what statements may add"
    );
    let nested = vec![r#"set(attributes["map"], [attributes["map"]])"#; 40];
    assert_eq!(
        changes(&nested, Context::Span),
        "fault: the value would nest deeper than 32 levels"
    );
}

#[test]
fn contexts_are_inferred_from_paths() {
    for (signal, statement, expect) in [
        (
            Signal::Traces,
            r#"set(span.name, resource.attributes["a"])"#,
            Ok(Context::Span),
        ),
        (
            Signal::Traces,
            r#"set(resource.attributes["a"], "b")"#,
            Ok(Context::Resource),
        ),
        (
            Signal::Traces,
            r#"set(scope.name, "b") where spanevent.name == "x""#,
            Ok(Context::SpanEvent),
        ),
        (
            Signal::Metrics,
            r#"set(metric.name, "b") where IsMatch(metric.unit, "s")"#,
            Ok(Context::Metric),
        ),
        (
            Signal::Metrics,
            r#"set(metric.name, "b") where datapoint.value_int == 1"#,
            Ok(Context::DataPoint),
        ),
        (Signal::Logs, r#"set(log.body, "b")"#, Ok(Context::Log)),
        (
            Signal::Logs,
            r#"set(body, "b")"#,
            Err("5: `body` does not say what it is of; paths begin with `resource.`, `scope.` or `log.`"),
        ),
        (
            Signal::Logs,
            r#"set(span.name, "b")"#,
            Err("5: `span` is nothing that logs have"),
        ),
        (
            Signal::Logs,
            r#"set(cache["a"], "b")"#,
            Err("1: no path says what this is about; paths begin with `resource.`, `scope.` or `log.`"),
        ),
    ] {
        let inferred = check::infer(statement, signal, true);
        let inferred = inferred.map_err(|mistake| format!("{}: {}", mistake.column(statement), mistake.message));
        assert_eq!(inferred, expect.map_err(str::to_owned), "{statement}");
    }
}
