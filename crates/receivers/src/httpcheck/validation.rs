//! What the body of an answer must be like.

use std::cell::OnceCell;

use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::Value;

/// What one pattern may take once compiled.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// One of `validations`: of each key that is set the body must be so.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ValidationConfig {
    /// A text that is in the body.
    pub contains: Option<String>,
    /// A text that is not.
    pub not_contains: Option<String>,
    /// A pattern that the body matches somewhere.
    pub regex: Option<String>,
    /// Where in a body of JSON the value is that `equals` names: `$.status`, `$.checks[0]["a key"]`. Without `equals` it must be there.
    pub json_path: Option<String>,
    /// What stands at `json_path`.
    pub equals: Option<String>,
    /// Bytes of the body at least.
    pub min_size: Option<u64>,
    /// Bytes of the body at most.
    pub max_size: Option<u64>,
}

/// One demand.
#[derive(Debug, Clone)]
pub enum Validation {
    Contains(String),
    NotContains(String),
    Matches(Regex),
    Json(Vec<Step>, Option<String>),
    Size(u64, u64),
}

/// One step into a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Key(String),
    At(usize),
}

impl ValidationConfig {
    /// What it demands, or which key is wrong and how.
    pub fn compile(&self) -> Result<Vec<Validation>, (&'static str, String)> {
        let mut all = Vec::new();
        all.extend(self.contains.clone().map(Validation::Contains));
        all.extend(self.not_contains.clone().map(Validation::NotContains));
        if let Some(pattern) = &self.regex {
            let compiled = RegexBuilder::new(pattern).size_limit(MAX_PATTERN_BYTES).build();
            all.push(Validation::Matches(compiled.map_err(|error| {
                let message = error.to_string();
                let last = message.lines().last().unwrap_or_default().trim_start_matches("error: ");
                ("regex", format!("`{pattern}` is not a pattern: {last}"))
            })?));
        }
        match (&self.json_path, &self.equals) {
            (Some(path), equals) => all.push(Validation::Json(steps(path)?, equals.clone())),
            (None, Some(_)) => return Err(("equals", "`equals` needs `json_path`".to_owned())),
            (None, None) => {}
        }
        if self.min_size.is_some() || self.max_size.is_some() {
            let (min, max) = (self.min_size.unwrap_or(0), self.max_size.unwrap_or(u64::MAX));
            if min > max {
                return Err(("min_size", "is more than `max_size`".to_owned()));
            }
            all.push(Validation::Size(min, max));
        }
        match all.is_empty() {
            true => Err((
                "",
                "demands nothing; write one of contains, not_contains, regex, json_path, min_size and max_size"
                    .to_owned(),
            )),
            false => Ok(all),
        }
    }
}

/// The body of an answer. It is read as JSON once, and only if something is demanded of that.
pub struct Body<'b> {
    bytes: &'b [u8],
    document: OnceCell<Option<Value>>,
}

impl<'b> Body<'b> {
    pub fn new(bytes: &'b [u8]) -> Body<'b> {
        Body {
            bytes,
            document: OnceCell::new(),
        }
    }

    /// None if it is no JSON. A document nests no deeper than the reader allows, which is 128 levels.
    fn document(&self) -> Option<&Value> {
        let read = || serde_json::from_slice(self.bytes).ok();
        self.document.get_or_init(read).as_ref()
    }
}

impl Validation {
    /// As the collector's attribute `validation.type` has it.
    pub fn kind(&self) -> &'static str {
        match self {
            Validation::Contains(_) => "contains",
            Validation::NotContains(_) => "not_contains",
            Validation::Matches(_) => "regex",
            Validation::Json(..) => "json_path",
            Validation::Size(..) => "size",
        }
    }

    pub fn holds(&self, body: &Body<'_>) -> bool {
        let has = |text: &String| memchr::memmem::find(body.bytes, text.as_bytes()).is_some();
        match self {
            Validation::Contains(text) => has(text),
            Validation::NotContains(text) => !has(text),
            Validation::Matches(pattern) => pattern.is_match(body.bytes),
            Validation::Size(min, max) => (*min..=*max).contains(&(body.bytes.len() as u64)),
            Validation::Json(steps, equals) => {
                let Some(document) = body.document() else {
                    return false;
                };
                let found = steps.iter().try_fold(document, |value, step| match step {
                    Step::Key(key) => value.get(key),
                    Step::At(at) => value.get(at),
                });
                match (found, equals) {
                    (None, _) => false,
                    (Some(_), None) => true,
                    (Some(Value::String(text)), Some(expect)) => text == expect,
                    (Some(value), Some(expect)) => expect.parse::<Value>().is_ok_and(|expect| expect == *value),
                }
            }
        }
    }
}

fn steps(path: &str) -> Result<Vec<Step>, (&'static str, String)> {
    let wrong = || {
        let why =
            format!("`{path}` is not a path that is followed here; write it like $.status or $.checks[0][\"a key\"]");
        ("json_path", why)
    };
    let (mut steps, mut rest) = (Vec::new(), path.strip_prefix('$').unwrap_or(path));
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let (inside, after) = inner.split_once(']').ok_or_else(wrong)?;
            let key = ['"', '\'']
                .iter()
                .find_map(|quote| inside.strip_prefix(*quote)?.strip_suffix(*quote));
            steps.push(match key {
                Some(key) => Step::Key(key.to_owned()),
                None => Step::At(inside.parse().map_err(|_| wrong())?),
            });
            rest = after;
        } else {
            let inner = match rest.strip_prefix('.') {
                Some(inner) => inner,
                None if steps.is_empty() => rest,
                None => return Err(wrong()),
            };
            let (key, after) = inner.split_at(inner.find(['.', '[']).unwrap_or(inner.len()));
            if key.is_empty() || key.contains(['*', '?', '#', '@', '|']) {
                return Err(wrong());
            }
            steps.push(Step::Key(key.to_owned()));
            rest = after;
        }
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(config: ValidationConfig, body: &str, expect: bool) {
        let all = config.compile().expect("right");
        let read = Body::new(body.as_bytes());
        assert_eq!(all.iter().all(|it| it.holds(&read)), expect, "{config:?}: {body}");
    }

    fn json(path: &str, equals: Option<&str>) -> ValidationConfig {
        ValidationConfig {
            json_path: Some(path.to_owned()),
            equals: equals.map(str::to_owned),
            ..ValidationConfig::default()
        }
    }

    #[test]
    fn what_a_body_must_be_like() {
        let body = r#"{"status":"ok","n":7,"checks":[{"a key":true},null]}"#;
        for (path, equals, expect) in [
            ("$.status", Some("ok"), true),
            ("status", Some("ok"), true),
            ("$.status", Some("bad"), false),
            ("$.n", Some("7"), true),
            ("$.checks[0][\"a key\"]", Some("true"), true),
            ("$.checks[0]['a key']", None, true),
            ("$.checks[1]", Some("null"), true),
            ("$.checks[2]", None, false),
            ("$.status.deeper", None, false),
            ("$", None, true),
        ] {
            check(json(path, equals), body, expect);
        }
        check(json("$.status", Some("ok")), "not json", false);
        let of = |key: &str, value: &str| {
            let value: Value = serde_json::from_str(value).expect("JSON");
            serde_json::from_value(serde_json::json!({ key: value })).expect("a validation")
        };
        check(of("contains", "\"ok\""), body, true);
        check(of("contains", "\"down\""), body, false);
        check(of("not_contains", "\"down\""), body, true);
        check(of("regex", r#""\"n\":\\d""#), body, true);
        check(of("regex", r#""^n""#), body, false);
        check(of("min_size", "5"), "1234", false);
        check(of("max_size", "4"), "1234", true);
        check(of("max_size", "3"), "1234", false);
    }

    #[test]
    fn mistakes() {
        let said = |config: ValidationConfig| config.compile().expect_err("wrong");
        assert_eq!(said(ValidationConfig::default()).0, "");
        for path in ["$.a[*]", "$..a", "$.a[", "$.a[x]", "a b]c[", "$x.#.y", "$.a[0]b"] {
            let (key, why) = said(json(path, None));
            assert!(key == "json_path" && why.contains("is not a path"), "{path}: {why}");
        }
        let equals = ValidationConfig {
            equals: Some("x".to_owned()),
            ..ValidationConfig::default()
        };
        assert!(said(equals).1.contains("needs `json_path`"));
        let sizes = ValidationConfig {
            min_size: Some(2),
            max_size: Some(1),
            ..ValidationConfig::default()
        };
        assert!(said(sizes).1.contains("is more than"));
        let regex = ValidationConfig {
            regex: Some("(".to_owned()),
            ..ValidationConfig::default()
        };
        assert!(said(regex).1.contains("is not a pattern"));
    }
}
