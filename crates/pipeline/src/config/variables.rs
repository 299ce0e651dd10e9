//! Why: `${VAR}`, `${env:VAR}`, `${env:VAR:-default}` and `${file:PATH}` in values, `$$` for a dollar, as the OpenTelemetry Collector has them.
//!
//! A value that is one reference and nothing else has the type of what it stands for: `${env:LIMIT}` is a number where one is wanted, and may be a list
//! or a map where those are; where a text is wanted it is the text as it is. Beside other text, a reference is always text.

use std::fs::File;
use std::io::Read;

use super::diagnostic::{Problem, Source};
use super::secrets;
use super::yaml::{self, Node, Part, Value};

/// What `${file:…}` may hold: a credential or a certificate. A larger file is not the one that was meant.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What a text becomes.
#[derive(Default)]
struct Expanded {
    text: String,
    unset: Vec<String>,
    parts: Vec<Part>,
    warnings: Vec<String>,
}

/// Expands every value of the tree. Names that are not set and have no default become empty and are noted at their value: whether that is a
/// mistake depends on what is needed there.
pub fn expand(
    node: &mut Node,
    env: &dyn Fn(&str) -> Option<String>,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) {
    let span = node.span;
    match &mut node.value {
        Value::Scalar(scalar) => {
            if !scalar.raw.contains('$') {
                return;
            }
            match expand_text(&scalar.raw, env) {
                Ok(expanded) => {
                    warnings.extend(expanded.warnings.into_iter().map(|text| Problem::new(span, text)));
                    scalar.text = expanded.text;
                    scalar.unset = expanded.unset;
                    scalar.parts = expanded.parts;
                    if is_one_reference(&scalar.raw) {
                        scalar.substituted = true;
                        scalar.plain = true;
                        scalar.structure = structure(&scalar.text, node.span).map(Box::new);
                    }
                }
                Err(message) => problems.push(Problem::new(span, message)),
            }
        }
        Value::List(list) => list.iter_mut().for_each(|item| expand(item, env, problems, warnings)),
        Value::Map(entries) => entries
            .iter_mut()
            .for_each(|entry| expand(&mut entry.value, env, problems, warnings)),
    }
}

/// A list or a map, in flow style or, where there are several lines, in block style; everything in it stands where the reference does.
fn structure(text: &str, span: super::Span) -> Option<Value> {
    let trimmed = text.trim_start();
    let text = match trimmed.starts_with(['[', '{']) {
        true => trimmed,
        false if trimmed.trim_end().contains('\n') => text,
        false => return None,
    };
    let mut node = yaml::parse(&Source::new("", text), span.source).ok()?;
    if matches!(node.value, Value::Scalar(_)) {
        return None;
    }
    place(&mut node, span);
    Some(node.value)
}

fn place(node: &mut Node, span: super::Span) {
    node.span = span;
    match &mut node.value {
        Value::Scalar(_) => {}
        Value::List(list) => list.iter_mut().for_each(|item| place(item, span)),
        Value::Map(entries) => entries.iter_mut().for_each(|entry| {
            entry.key_span = span;
            place(&mut entry.value, span);
        }),
    }
}

/// A piece of a text with references.
enum Piece<'a> {
    Text(&'a str),
    Dollar,
    Reference(&'a str),
}

fn pieces(raw: &str) -> impl Iterator<Item = Result<Piece<'_>, String>> {
    let mut rest = raw;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let dollar = rest.find('$').unwrap_or(rest.len());
        if dollar > 0 {
            let (text, after) = rest.split_at(dollar);
            rest = after;
            return Some(Ok(Piece::Text(text)));
        }
        let after = &rest[1..];
        if let Some(tail) = after.strip_prefix('$') {
            rest = tail;
            return Some(Ok(Piece::Dollar));
        }
        let Some(inner) = after.strip_prefix('{') else {
            // A lone dollar stands for itself, as in a pattern.
            rest = after;
            return Some(Ok(Piece::Dollar));
        };
        let Some(end) = inner.find('}') else {
            rest = "";
            return Some(Err(
                "`${` without its `}`; a dollar by itself is written `$$`".to_owned()
            ));
        };
        rest = &inner[end + 1..];
        Some(Ok(Piece::Reference(&inner[..end])))
    })
}

fn is_one_reference(raw: &str) -> bool {
    let mut pieces = pieces(raw);
    matches!(pieces.next(), Some(Ok(Piece::Reference(_)))) && pieces.next().is_none()
}

/// What is left of a text when its references are taken out.
pub fn without_references(raw: &str) -> String {
    pieces(raw)
        .filter_map(|piece| match piece {
            Ok(Piece::Text(text)) => Some(text),
            _ => None,
        })
        .collect()
}

/// Whether a reference brings a text along that stands in for a variable.
pub fn has_default(raw: &str) -> bool {
    pieces(raw)
        .any(|piece| matches!(piece, Ok(Piece::Reference(inner)) if inner.split_once(":-").is_some_and(|it| !it.1.is_empty())))
}

fn expand_text(raw: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Expanded, String> {
    let mut expanded = Expanded::default();
    for piece in pieces(raw) {
        match piece? {
            Piece::Text(text) => expanded.text.push_str(text),
            Piece::Dollar => expanded.text.push('$'),
            Piece::Reference(reference) => match reference.strip_prefix("file:") {
                Some(path) => expanded.put_file(path)?,
                None => expanded.put_variable(reference, env)?,
            },
        }
    }
    Ok(expanded)
}

impl Expanded {
    fn put_variable(&mut self, reference: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<(), String> {
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        let name = match name.split_once(':') {
            Some(("env", name)) => name,
            Some((scheme, _)) => {
                return Err(format!(
                    "`${{{scheme}:…}}` is not supported; `${{env:NAME}}` and `${{file:PATH}}` are"
                ));
            }
            None => name,
        };
        if !is_name(name) {
            return Err(format!("`{name}` is not the name of an environment variable"));
        }
        let value = env(name).filter(|value| !value.is_empty() || default.is_none());
        match (&value, default) {
            (Some(value), _) => self.text.push_str(value),
            (None, Some(default)) => self.text.push_str(default),
            (None, None) => self.unset.push(name.to_owned()),
        }
        let secret = secrets::is_secret_name(name);
        let texts = value.into_iter().chain(default.map(str::to_owned));
        self.parts.extend(texts.map(|text| Part { text, secret }));
        Ok(())
    }

    fn put_file(&mut self, path: &str) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("cannot read `{path}`: {error}");
        let file = File::open(path).map_err(failed)?;
        if open_to_all(&file) {
            self.warnings.push(format!(
                "`{path}` may be read by every user of this machine; `chmod o-r` it if it holds a secret"
            ));
        }
        let mut text = String::new();
        file.take(MAX_FILE_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(failed)?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(format!("`{path}` is larger than {MAX_FILE_BYTES} bytes"));
        }
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        self.text.push_str(text);
        self.parts.push(Part {
            text: text.to_owned(),
            secret: true,
        });
        Ok(())
    }
}

/// Whether the permissions let every user of the machine read it.
pub fn open_to_all(file: &File) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        const READ_BY_OTHERS: u32 = 0o004;
        file.metadata()
            .is_ok_and(|data| data.is_file() && data.mode() & READ_BY_OTHERS != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        false
    }
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
            Ok(Expanded { text, unset, .. }) if unset.is_empty() => text,
            Ok(Expanded { text, unset, .. }) => format!("{text} unset={unset:?}"),
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
            "x${http://a/}",
            "error: `${http:…}` is not supported; `${env:NAME}` and `${file:PATH}` are",
        );
        check("${a b}", "error: `a b` is not the name of an environment variable");
    }

    #[test]
    fn files_are_bounded_and_lose_one_line_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name).display().to_string();
        std::fs::write(path("token"), "abc\n\r\n").expect("writes");
        std::fs::write(path("huge"), vec![b'x'; MAX_FILE_BYTES as usize + 1]).expect("writes");
        check(&format!("<${{file:{}}}>", path("token")), "<abc\n>");
        let huge = path("huge");
        check(
            &format!("${{file:{huge}}}"),
            &format!("error: `{huge}` is larger than 1048576 bytes"),
        );
        let none = path("none");
        check(
            &format!("${{file:{none}}}"),
            &format!("error: cannot read `{none}`: No such file or directory (os error 2)"),
        );
    }

    #[test]
    fn lists_and_maps_in_either_style() {
        let span = crate::config::Span {
            source: 3,
            line: 7,
            column: 5,
            length: 2,
        };
        let check = |text: &str, expect: &str| {
            let found = match structure(text, span) {
                Some(Value::List(list)) => format!("list of {}", list.len()),
                Some(Value::Map(entries)) => {
                    assert!(
                        entries
                            .iter()
                            .all(|entry| entry.key_span == span && entry.value.span == span)
                    );
                    let keys: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
                    keys.join(" ")
                }
                Some(Value::Scalar(_)) => "a scalar".to_owned(),
                None => "text".to_owned(),
            };
            assert_eq!(found, expect, "{text}");
        };
        check("[a, b]", "list of 2");
        check(" {a: 1, b: [2]}", "a b");
        check("# why\na: 1\nb:\n  c: 2\n", "a b");
        check("  a: 1\n  b: 2\n", "a b");
        check("- a\n- b\n- c", "list of 3");
        check("a: 1", "text");
        check("a: 1\n", "text");
        check("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "text");
        check("a: 1\n b: {", "text");
    }

    #[test]
    fn what_only_refers_is_told_from_what_also_says() {
        assert!(is_one_reference("${A}") && is_one_reference("${env:A:-b}"));
        assert!(!is_one_reference("${A}${B}") && !is_one_reference("$${A}") && !is_one_reference("x${A}"));
        assert_eq!(without_references("Bearer ${A}:x${B}$$"), "Bearer :x");
        assert!(has_default("a${B:-c}") && !has_default("a${B:-}") && !has_default(":-"));
    }
}
