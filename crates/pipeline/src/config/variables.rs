//! Why: `${VAR}`, `${env:VAR}` and `${env:VAR:-default}` in values, `$$` for a dollar, as the OpenTelemetry Collector has them. Expansion works on
//! values of the finished tree, so what a variable holds can never become structure.

use super::diagnostic::Problem;
use super::yaml::{Node, Value};

/// What a text becomes.
struct Expanded {
    text: String,
    unset: Vec<String>,
}

/// Expands every value of the tree. Names that are not set and have no default become empty and are noted at their value: whether that is a
/// mistake depends on what is needed there.
pub fn expand(node: &mut Node, env: &dyn Fn(&str) -> Option<String>, problems: &mut Vec<Problem>) {
    match &mut node.value {
        Value::Scalar(scalar) => {
            if !scalar.raw.contains('$') {
                return;
            }
            match expand_text(&scalar.raw, env) {
                Ok(Expanded { text, unset }) => {
                    scalar.text = text;
                    scalar.unset = unset;
                }
                Err(message) => problems.push(Problem::new(node.span, message)),
            }
        }
        Value::List(list) => list.iter_mut().for_each(|item| expand(item, env, problems)),
        Value::Map(entries) => entries
            .iter_mut()
            .for_each(|entry| expand(&mut entry.value, env, problems)),
    }
}

fn expand_text(raw: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Expanded, String> {
    let mut text = String::with_capacity(raw.len());
    let mut unset = Vec::new();
    let mut rest = raw;
    while let Some(dollar) = rest.find('$') {
        text.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            text.push('$');
            rest = tail;
        } else if let Some(inner) = after.strip_prefix('{') {
            let Some(end) = inner.find('}') else {
                return Err("`${` without its `}`; a dollar by itself is written `$$`".into());
            };
            let reference = &inner[..end];
            let (name, default) = match reference.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (reference, None),
            };
            let name = match name.split_once(':') {
                Some(("env", name)) => name,
                Some((scheme, _)) => return Err(format!("`${{{scheme}:…}}` is not supported; `${{env:NAME}}` is")),
                None => name,
            };
            if !is_name(name) {
                return Err(format!("`{name}` is not the name of an environment variable"));
            }
            match (
                env(name).filter(|value| !value.is_empty() || default.is_none()),
                default,
            ) {
                (Some(value), _) => text.push_str(&value),
                (None, Some(default)) => text.push_str(default),
                (None, None) => unset.push(name.to_owned()),
            }
            rest = &inner[end + 1..];
        } else {
            // A lone dollar stands for itself, as in a pattern.
            text.push('$');
            rest = after;
        }
    }
    text.push_str(rest);
    Ok(Expanded { text, unset })
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &str, expect: &str) {
        let env = |name: &str| match name {
            "HOST" => Some("db".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let got = match expand_text(raw, &env) {
            Ok(Expanded { text, unset }) if unset.is_empty() => text,
            Ok(Expanded { text, unset }) => format!("{text} unset={unset:?}"),
            Err(message) => format!("error: {message}"),
        };
        assert_eq!(got, expect, "{raw}");
    }

    #[test]
    fn expansion() {
        check("http://${HOST}:${env:PORT:-80}/", "http://db:80/");
        check("${env:HOST}", "db");
        check("${EMPTY:-x}|${EMPTY}|", "x||");
        check("a$$b$${HOST}", "a$b${HOST}");
        check("^a$|b$", "^a$|b$");
        check("${NOPE}", " unset=[\"NOPE\"]");
        check(
            "${HOST",
            "error: `${` without its `}`; a dollar by itself is written `$$`",
        );
        check(
            "x${file:/etc/passwd}",
            "error: `${file:…}` is not supported; `${env:NAME}` is",
        );
        check("${a b}", "error: `a b` is not the name of an environment variable");
    }
}
