//! Why: `include` and `exclude` mean the same in every processor that has them; they are read and answered here, on the encoded bytes.

use model::Signal;
use model::edit::message;
use model::view::{AnyValue, Attributes, List, View};
use regex::Regex;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::actions::{Scalar, as_text, compile};
use crate::config::{Problems, Section};

/// Which items are meant. What is given must all hold; of the entries of a list one is enough, except that all `attributes` and `resources` must be there.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MatchProperties {
    /// `strict` compares texts as they are, `regexp` finds patterns.
    pub match_type: Option<MatchType>,
    /// The collector's settings for a cache of its patterns; accepted, without effect.
    pub regexp: Option<IgnoredAny>,
    /// The resource's `service.name`.
    pub services: Vec<String>,
    /// Names of spans.
    pub span_names: Vec<String>,
    /// Kinds of spans: `SPAN_KIND_SERVER` or `Server`.
    pub span_kinds: Vec<String>,
    /// Bodies of log records, where they are text.
    pub log_bodies: Vec<String>,
    /// Severity texts of log records.
    pub log_severity_texts: Vec<String>,
    /// The least severity of a log record.
    pub log_severity: Option<SeverityNumber>,
    /// As `log_severity`, in the collector's other spelling.
    pub log_severity_number: Option<SeverityNumber>,
    /// Names of metrics.
    pub metric_names: Vec<String>,
    /// Attributes of the span, log record or data point.
    pub attributes: Vec<Attribute>,
    /// Attributes of the resource.
    pub resources: Vec<Attribute>,
    /// Instrumentation scopes.
    pub libraries: Vec<Library>,
}

/// How texts are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatchType {
    Strict,
    Regexp,
}

/// A bound on the severity.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SeverityNumber {
    /// The least: a number from 1 to 24, or a name such as `INFO`, `WARN2`, `ERROR`.
    pub min: SeverityName,
    /// Whether a record without a severity matches. Default: no.
    pub match_undefined: bool,
}

/// A severity by its number or name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SeverityName(pub i32);

impl<'de> Deserialize<'de> for SeverityName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<SeverityName, D::Error> {
        let text = String::deserialize(deserializer)?;
        severity(&text).map(SeverityName).ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "`{text}` is no severity: a number from 1 to 24, or TRACE, DEBUG, INFO, WARN, ERROR, FATAL, each also with 2, 3 or 4 behind it"
            ))
        })
    }
}

/// The number of a severity that is written as a number or as a name.
pub fn severity(text: &str) -> Option<i32> {
    const NAMES: [&str; 6] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
    if let Ok(number) = text.parse::<i32>() {
        return (1..=24).contains(&number).then_some(number);
    }
    let text = text.to_ascii_uppercase();
    let text = text.strip_prefix("SEVERITY_NUMBER_").unwrap_or(&text);
    let (name, step) = match text.as_bytes().last() {
        Some(digit @ b'2'..=b'4') => (&text[..text.len() - 1], i32::from(digit - b'1')),
        _ => (text, 0),
    };
    let at = NAMES.iter().position(|known| *known == name)?;
    Some(at as i32 * 4 + 1 + step)
}

/// An attribute that must be there.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attribute {
    /// Its key.
    pub key: String,
    /// Its value; if none is given, any will do.
    #[serde(default)]
    pub value: Option<Scalar>,
}

/// An instrumentation scope.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Library {
    /// Its name.
    pub name: String,
    /// Its version; if none is given, any will do.
    #[serde(default)]
    pub version: Option<String>,
}

/// What is around an item, encoded.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    pub signal: Signal,
    pub resource: &'a [u8],
    pub scope: &'a [u8],
    /// The span, log record or data point; empty at a metric as a whole.
    pub item: &'a [u8],
    pub attributes: Attributes<'a>,
    /// For metrics.
    pub metric: &'a [u8],
}

/// [`MatchProperties`], read and compiled.
#[derive(Debug)]
pub struct Matcher {
    services: Texts,
    span_names: Texts,
    span_kinds: Vec<i32>,
    log_bodies: Texts,
    log_severity_texts: Texts,
    severity: Option<SeverityNumber>,
    metric_names: Texts,
    attributes: Vec<Pair>,
    resources: Vec<Pair>,
    libraries: Vec<(Texts, Texts)>,
}

/// One of several texts or patterns; empty means that nothing was asked.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    strict: Vec<String>,
    patterns: Vec<Regex>,
}

impl Texts {
    pub(crate) fn new(texts: &[String], match_type: MatchType) -> Result<Texts, String> {
        Ok(match match_type {
            MatchType::Regexp => Texts {
                strict: Vec::new(),
                patterns: texts.iter().map(|text| compile(text)).collect::<Result<_, _>>()?,
            },
            MatchType::Strict => Texts {
                strict: texts.to_vec(),
                patterns: Vec::new(),
            },
        })
    }

    fn asked(&self) -> bool {
        !self.strict.is_empty() || !self.patterns.is_empty()
    }

    pub(crate) fn has(&self, text: &str) -> bool {
        self.strict.iter().any(|known| known == text) || self.patterns.iter().any(|pattern| pattern.is_match(text))
    }

    /// Whether nothing was asked, or it is there.
    fn allows<'t>(&self, text: impl FnOnce() -> Option<&'t str>) -> bool {
        !self.asked() || text().is_some_and(|text| self.has(text))
    }
}

#[derive(Debug)]
pub(crate) struct Pair {
    key: String,
    value: Wanted,
}

#[derive(Debug)]
enum Wanted {
    Any,
    Equal(Scalar),
    Pattern(Regex),
}

impl Pair {
    pub(crate) fn new(attribute: &Attribute, match_type: MatchType) -> Result<Pair, String> {
        let value = match (&attribute.value, match_type) {
            (None, _) => Wanted::Any,
            (Some(Scalar::Text(text)), MatchType::Regexp) => Wanted::Pattern(compile(text)?),
            (Some(value), _) => Wanted::Equal(value.clone()),
        };
        Ok(Pair {
            key: attribute.key.clone(),
            value,
        })
    }

    pub(crate) fn is_in(&self, attributes: Attributes<'_>) -> bool {
        let Some(value) = attributes.get(&self.key) else {
            return false;
        };
        match &self.value {
            Wanted::Any => true,
            Wanted::Pattern(pattern) => pattern.is_match(&as_text(value)),
            Wanted::Equal(wanted) => wanted.equals(value),
        }
    }
}

impl Matcher {
    /// Reads what stands at `path`; `None` if there is nothing.
    pub fn new(
        section: &Section<'_>,
        path: &[&str],
        properties: Option<&MatchProperties>,
    ) -> Result<Option<Matcher>, Problems> {
        let Some(properties) = properties else { return Ok(None) };
        let Some(match_type) = properties.match_type else {
            return Err(section.problem(path, "`match_type` is missing: `strict` or `regexp`"));
        };
        let matcher = Matcher::compile(properties, match_type).map_err(|message| section.problem(path, message))?;
        if !matcher.asks() {
            return Err(section.problem(
                path,
                "nothing is said that could match, such as `services` or `attributes`",
            ));
        }
        Ok(Some(matcher))
    }

    fn compile(properties: &MatchProperties, match_type: MatchType) -> Result<Matcher, String> {
        let texts = |texts: &[String]| Texts::new(texts, match_type);
        let pairs = |pairs: &[Attribute]| -> Result<Vec<Pair>, String> {
            pairs.iter().map(|pair| Pair::new(pair, match_type)).collect()
        };
        let library = |library: &Library| -> Result<(Texts, Texts), String> {
            let version: Vec<String> = library.version.iter().cloned().collect();
            Ok((texts(std::slice::from_ref(&library.name))?, texts(&version)?))
        };
        Ok(Matcher {
            services: texts(&properties.services)?,
            span_names: texts(&properties.span_names)?,
            span_kinds: properties
                .span_kinds
                .iter()
                .map(|kind| span_kind(kind).ok_or_else(|| format!("`{kind}` is no kind of span")))
                .collect::<Result<_, _>>()?,
            log_bodies: texts(&properties.log_bodies)?,
            log_severity_texts: texts(&properties.log_severity_texts)?,
            severity: properties
                .log_severity
                .clone()
                .or_else(|| properties.log_severity_number.clone()),
            metric_names: texts(&properties.metric_names)?,
            attributes: pairs(&properties.attributes)?,
            resources: pairs(&properties.resources)?,
            libraries: properties.libraries.iter().map(library).collect::<Result<_, _>>()?,
        })
    }

    fn asks(&self) -> bool {
        let texts = [
            &self.services,
            &self.span_names,
            &self.log_bodies,
            &self.log_severity_texts,
            &self.metric_names,
        ];
        texts.into_iter().any(Texts::asked)
            || self.severity.is_some()
            || !(self.span_kinds.is_empty()
                && self.attributes.is_empty()
                && self.resources.is_empty()
                && self.libraries.is_empty())
    }

    /// Whether all that was asked holds. What does not exist in a signal holds for none of its items.
    pub fn matches(&self, around: &Around<'_>) -> bool {
        let resource: Attributes<'_> = List::new(around.resource, 1);
        let spans = || (around.signal == Signal::Traces).then_some(around.item);
        let logs = || (around.signal == Signal::Logs).then_some(around.item);
        let number = |item: &[u8], number| message::field(item, number).map_or(0, |value| value.varint() as i32);
        self.services.allows(|| resource.get_str("service.name"))
            && self.span_names.allows(|| field(spans(), 5))
            && (self.span_kinds.is_empty() || spans().is_some_and(|span| self.span_kinds.contains(&number(span, 6))))
            && self
                .log_bodies
                .allows(|| match AnyValue::read(message::body(logs()?, 5)) {
                    AnyValue::Str(text) => Some(text),
                    _ => None,
                })
            && self.log_severity_texts.allows(|| field(logs(), 3))
            && self.severity.as_ref().is_none_or(|wanted| {
                logs().is_some_and(|log| match number(log, 2) {
                    0 => wanted.match_undefined,
                    severity => severity >= wanted.min.0,
                })
            })
            && self
                .metric_names
                .allows(|| field((around.signal == Signal::Metrics).then_some(around.metric), 1))
            && self.attributes.iter().all(|pair| pair.is_in(around.attributes))
            && self.resources.iter().all(|pair| pair.is_in(resource))
            && (self.libraries.is_empty()
                || self.libraries.iter().any(|(name, version)| {
                    name.allows(|| field(Some(around.scope), 1)) && version.allows(|| field(Some(around.scope), 2))
                }))
    }
}

/// A field that is text.
fn field(message: Option<&[u8]>, number: u32) -> Option<&str> {
    std::str::from_utf8(message::body(message?, number)).ok()
}

/// The number of a kind of span by its name, in any of the spellings in use.
fn span_kind(name: &str) -> Option<i32> {
    const KINDS: [&str; 6] = ["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"];
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("SPAN_KIND_").unwrap_or(&name);
    KINDS.iter().position(|kind| *kind == name).map(|at| at as i32)
}

/// What a processor with `include` and `exclude` works on.
#[derive(Debug, Default)]
pub struct Chosen {
    pub include: Option<Matcher>,
    pub exclude: Option<Matcher>,
}

impl Chosen {
    pub fn all(&self) -> bool {
        self.include.is_none() && self.exclude.is_none()
    }

    pub fn takes(&self, around: &Around<'_>) -> bool {
        self.include.as_ref().is_none_or(|include| include.matches(around))
            && self.exclude.as_ref().is_none_or(|exclude| !exclude.matches(around))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_have_numbers_and_names() {
        for (text, expect) in [
            ("INFO", Some(9)),
            ("warn2", Some(14)),
            ("SEVERITY_NUMBER_FATAL4", Some(24)),
            ("17", Some(17)),
            ("0", None),
            ("25", None),
            ("LOUD", None),
        ] {
            assert_eq!(severity(text), expect, "{text}");
        }
    }

    #[test]
    fn kinds_of_spans_have_several_spellings() {
        assert_eq!(span_kind("SPAN_KIND_SERVER"), Some(2));
        assert_eq!(span_kind("Client"), Some(3));
        assert_eq!(span_kind("PEER"), None);
    }
}
