//! What a file from the OpenTelemetry Collector does with entries before they are records: parsers, times, severities, and fields that move. The others of its
//! operators are refused with what to use instead. What an operator cannot do to an entry it leaves: the entry goes on as it is.

mod config;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use codec::log_line::{Json, Members, Record, instant, owned, severity, trace_id};
use model::SpanId;
use model::instant::parse_rfc3339;
use pipeline::ottl::time;
use pipeline::processors::actions::Scalar;
use regex::Regex;

use self::config::Field;
pub use self::config::{Mapping, Operator};

/// Operators in one receiver; each costs time for every entry.
const MAX_OPERATORS: usize = 100;
/// The largest number that a severity has.
const MAX_SEVERITY: u8 = 24;

/// Operators as they run.
#[derive(Debug, Clone, Default)]
pub struct Operators(Vec<Step>);

#[derive(Debug, Clone)]
enum Step {
    Json {
        from: Place,
        to: Place,
    },
    Regex {
        from: Place,
        to: Place,
        pattern: Regex,
    },
    Time {
        from: Place,
        form: Form,
    },
    Severity {
        from: Place,
        words: BTreeMap<String, u8>,
        knows_usual: bool,
    },
    Trace {
        trace_id: Place,
        span_id: Place,
    },
    Container {
        format: Option<Container>,
        tells_pod: bool,
    },
    Move {
        from: Place,
        to: Place,
    },
    Copy {
        from: Place,
        to: Place,
    },
    Add {
        to: Place,
        value: Json<'static>,
    },
    Remove {
        from: Place,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    Docker,
    Cri,
}

#[derive(Debug, Clone)]
enum Form {
    /// Directives with `%`.
    Layout(String),
    /// Nanoseconds of a unit.
    Epoch(f64),
    Rfc3339,
}

/// `body`, `attributes.x`, `attributes["x.y"]`, `resource.x`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    root: Root,
    keys: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    Body,
    Attributes,
    Resource,
}

impl Place {
    fn parse(text: &str) -> Result<Place, String> {
        let end = text.find(['.', '[']).unwrap_or(text.len());
        let root = match &text[..end] {
            "body" | "$body" => Root::Body,
            "attributes" => Root::Attributes,
            "resource" => Root::Resource,
            _ => {
                return Err(format!(
                    "`{text}` does not begin with `body`, `attributes` or `resource`"
                ));
            }
        };
        let wrong = || format!("`{text}` is not a field; write it like attributes.key or attributes[\"a.key\"]");
        let (mut keys, mut rest) = (Vec::new(), &text[end..]);
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                keys.push(after[..end].to_owned());
                rest = &after[end..];
            } else {
                let inner = rest.strip_prefix('[').ok_or_else(wrong)?;
                let quote = inner
                    .chars()
                    .next()
                    .filter(|quote| matches!(quote, '"' | '\''))
                    .ok_or_else(wrong)?;
                let (key, after) = inner[1..].split_once(quote).ok_or_else(wrong)?;
                keys.push(key.to_owned());
                rest = after.strip_prefix(']').ok_or_else(wrong)?;
            }
        }
        match keys.iter().any(String::is_empty) {
            true => Err(wrong()),
            false => Ok(Place { root, keys }),
        }
    }

    fn get<'r, 'a>(&self, record: &'r Record<'a>) -> Option<&'r Json<'a>> {
        let (mut members, keys) = match self.root {
            Root::Body if self.keys.is_empty() => return Some(&record.body),
            Root::Body => match &record.body {
                Json::Object(members) => (members, &self.keys[..]),
                _ => return None,
            },
            Root::Attributes => (&record.attributes, &self.keys[..]),
            Root::Resource => (&record.resource, &self.keys[..]),
        };
        let (last, path) = keys.split_last()?;
        for key in path {
            members = match find(members, key)? {
                Json::Object(inner) => inner,
                _ => return None,
            };
        }
        find(members, last)
    }

    fn take<'a>(&self, record: &mut Record<'a>) -> Option<Json<'a>> {
        let mut members = match self.root {
            Root::Body if self.keys.is_empty() => return Some(std::mem::replace(&mut record.body, Json::Null)),
            Root::Body => match &mut record.body {
                Json::Object(members) => members,
                _ => return None,
            },
            Root::Attributes if self.keys.is_empty() => {
                return Some(Json::Object(std::mem::take(&mut record.attributes)));
            }
            Root::Resource if self.keys.is_empty() => return Some(Json::Object(std::mem::take(&mut record.resource))),
            Root::Attributes => &mut record.attributes,
            Root::Resource => &mut record.resource,
        };
        let (last, path) = self.keys.split_last()?;
        for key in path {
            let at = members.iter().position(|(name, _)| name == key)?;
            members = match &mut members[at].1 {
                Json::Object(inner) => inner,
                _ => return None,
            };
        }
        let at = members.iter().position(|(name, _)| name == last)?;
        Some(members.remove(at).1)
    }

    /// Puts a value there; an object at a root is merged into it.
    fn set<'a>(&self, record: &mut Record<'a>, value: Json<'a>) {
        let mut members = match self.root {
            Root::Body if self.keys.is_empty() => {
                record.body = value;
                return;
            }
            Root::Body => {
                if !matches!(record.body, Json::Object(_)) {
                    record.body = Json::Object(Vec::new());
                }
                match &mut record.body {
                    Json::Object(members) => members,
                    _ => return,
                }
            }
            Root::Attributes => &mut record.attributes,
            Root::Resource => &mut record.resource,
        };
        let Some((last, path)) = self.keys.split_last() else {
            if let Json::Object(values) = value {
                values.into_iter().for_each(|(key, value)| upsert(members, key, value));
            }
            return;
        };
        for key in path {
            let at = match members.iter().position(|(name, _)| name == key) {
                Some(at) => at,
                None => {
                    members.push((key.clone().into(), Json::Object(Vec::new())));
                    members.len() - 1
                }
            };
            if !matches!(members[at].1, Json::Object(_)) {
                members[at].1 = Json::Object(Vec::new());
            }
            members = match &mut members[at].1 {
                Json::Object(inner) => inner,
                _ => return,
            };
        }
        upsert(members, last.clone().into(), value);
    }
}

fn find<'r, 'a>(members: &'r Members<'a>, key: &str) -> Option<&'r Json<'a>> {
    members.iter().find(|(name, _)| name == key).map(|(_, value)| value)
}

fn upsert<'a>(members: &mut Members<'a>, key: Cow<'a, str>, value: Json<'a>) {
    match members.iter_mut().find(|(name, _)| *name == key) {
        Some((_, there)) => *there = value,
        None => members.push((key, value)),
    }
}

/// What is wrong with which operator, at which of its keys.
pub type Mistake = (usize, &'static str, String);

impl Operators {
    pub fn compile(configs: &[Operator]) -> Result<Operators, Mistake> {
        if configs.len() > MAX_OPERATORS {
            return Err((MAX_OPERATORS, "type", format!("more than {MAX_OPERATORS} operators")));
        }
        let mut steps = Vec::new();
        for (at, config) in configs.iter().enumerate() {
            compile(config, &mut steps).map_err(|(key, problem)| (at, key, problem))?;
        }
        Ok(Operators(steps))
    }

    /// Whether what an entry says is read by one of them.
    pub fn parse(&self) -> bool {
        self.0
            .iter()
            .any(|step| matches!(step, Step::Json { .. } | Step::Regex { .. }))
    }

    pub fn apply<'a>(&self, record: &mut Record<'a>, path: Option<&Path>) {
        for step in &self.0 {
            step.apply(record, path);
        }
    }
}

fn compile(config: &Operator, steps: &mut Vec<Step>) -> Result<(), (&'static str, String)> {
    let place = |key: &'static str, text: &Option<String>, default: &str| {
        Place::parse(text.as_deref().unwrap_or(default)).map_err(|problem| (key, problem))
    };
    let needed = |key: &'static str, text: &Option<String>| match text {
        Some(text) => Place::parse(text).map_err(|problem| (key, problem)),
        None => Err(("type", format!("`{}` needs `{key}`", config.r#type))),
    };
    let from = || place("parse_from", &config.parse_from, "body");
    let to = || place("parse_to", &config.parse_to, "attributes");
    match config.r#type.as_str() {
        "json_parser" => steps.push(Step::Json {
            from: from()?,
            to: to()?,
        }),
        "regex_parser" => {
            let pattern = config
                .regex
                .as_deref()
                .ok_or(("type", "`regex_parser` needs `regex`".to_owned()))?;
            let pattern = pipeline::processors::actions::compile(pattern).map_err(|problem| ("regex", problem))?;
            if pattern.capture_names().flatten().next().is_none() {
                return Err((
                    "regex",
                    "the pattern has no named group, such as (?P<level>\\w+)".to_owned(),
                ));
            }
            steps.push(Step::Regex {
                from: from()?,
                to: to()?,
                pattern,
            });
        }
        "time_parser" => {
            let form = form(config.layout.as_deref(), config.layout_type.as_deref())?;
            steps.push(Step::Time {
                from: needed("parse_from", &config.parse_from)?,
                form,
            });
        }
        "severity_parser" => {
            let from = needed("parse_from", &config.parse_from)?;
            steps.push(severity_step(from, &config.mapping, config.preset.as_deref())?);
        }
        "trace_parser" => {
            let of = |key: &'static str, field: &Option<Field>, default: &str| {
                let text = field.as_ref().map_or(default, |field| &field.parse_from);
                Place::parse(text).map_err(|problem| (key, problem))
            };
            steps.push(Step::Trace {
                trace_id: of("trace_id", &config.trace_id, "attributes.trace_id")?,
                span_id: of("span_id", &config.span_id, "attributes.span_id")?,
            });
        }
        "container" => steps.push(Step::Container {
            format: match config.format.as_deref() {
                None | Some("") => None,
                Some("docker") => Some(Container::Docker),
                Some("crio" | "containerd" | "cri") => Some(Container::Cri),
                Some(other) => return Err(("format", format!("`{other}` is none of docker, crio and containerd"))),
            },
            tells_pod: config.add_metadata_from_filepath.unwrap_or(true),
        }),
        "move" => steps.push(Step::Move {
            from: needed("from", &config.from)?,
            to: needed("to", &config.to)?,
        }),
        "copy" => steps.push(Step::Copy {
            from: needed("from", &config.from)?,
            to: needed("to", &config.to)?,
        }),
        "add" => {
            let value = match &config.value {
                Some(Scalar::Text(text)) if text.starts_with("EXPR(") => {
                    return Err((
                        "value",
                        "expressions are not evaluated here; the `transform` processor has `set`".to_owned(),
                    ));
                }
                Some(Scalar::Text(text)) => Json::Text(text.clone().into()),
                Some(Scalar::Int(number)) => Json::Int(*number),
                Some(Scalar::Double(number)) => Json::Double(*number),
                Some(Scalar::Bool(truth)) => Json::Bool(*truth),
                None => return Err(("type", "`add` needs `value`".to_owned())),
            };
            steps.push(Step::Add {
                to: needed("field", &config.field)?,
                value,
            });
        }
        "remove" => steps.push(Step::Remove {
            from: needed("field", &config.field)?,
        }),
        "noop" => {}
        "recombine" => {
            return Err((
                "type",
                "`recombine` is not available; write `multiline` of the receiver".to_owned(),
            ));
        }
        "filter" => {
            return Err((
                "type",
                "`filter` is not available; the processor `filter` drops, and counts what it drops".to_owned(),
            ));
        }
        other => {
            return Err((
                "type",
                format!(
                    "the operator `{other}` is not available; the `transform` processor has ParseJSON, ExtractPatterns, set, delete_key and others"
                ),
            ));
        }
    }
    if let Some(config) = &config.timestamp {
        let form = form(config.layout.as_deref(), config.layout_type.as_deref())?;
        let from = Place::parse(&config.parse_from).map_err(|problem| ("timestamp", problem))?;
        steps.push(Step::Time { from, form });
    }
    if let Some(config) = &config.severity {
        let from = Place::parse(&config.parse_from).map_err(|problem| ("severity", problem))?;
        steps.push(severity_step(from, &config.mapping, config.preset.as_deref())?);
    }
    Ok(())
}

fn form(layout: Option<&str>, kind: Option<&str>) -> Result<Form, (&'static str, String)> {
    let layout = layout.ok_or(("layout", "a time needs its `layout`".to_owned()))?;
    match kind.unwrap_or("strptime") {
        "strptime" => match time::format(0, layout) {
            Some(_) => Ok(Form::Layout(layout.to_owned())),
            None => Err(("layout", format!("`{layout}` has a directive that is not known"))),
        },
        "epoch" => match layout {
            "s" | "s.ms" | "s.us" | "s.ns" => Ok(Form::Epoch(1e9)),
            "ms" => Ok(Form::Epoch(1e6)),
            "us" => Ok(Form::Epoch(1e3)),
            "ns" => Ok(Form::Epoch(1.0)),
            other => Err(("layout", format!("`{other}` is none of s, ms, us and ns"))),
        },
        "gotime" if layout.starts_with("2006-01-02T15:04:05") || layout.starts_with("2006-01-02 15:04:05") => {
            Ok(Form::Rfc3339)
        }
        "gotime" => Err((
            "layout",
            "of Go's layouts only RFC 3339 is known; write it with `layout_type: strptime`".to_owned(),
        )),
        other => Err((
            "layout_type",
            format!("`{other}` is none of strptime, epoch and gotime"),
        )),
    }
}

fn severity_step(from: Place, mapping: &Mapping, preset: Option<&str>) -> Result<Step, (&'static str, String)> {
    let mut words = BTreeMap::new();
    for (level, values) in mapping {
        let name = level.trim_end_matches(|c: char| c.is_ascii_digit());
        let first = severity(name.as_bytes());
        let more = level[name.len()..].parse::<u8>().unwrap_or(1);
        if first == 0 || !(1..=4).contains(&more) {
            return Err(("mapping", format!("`{level}` is not a level such as error or warn2")));
        }
        for value in &values.0 {
            words.insert(value.to_ascii_lowercase(), (first + more - 1).min(MAX_SEVERITY));
        }
    }
    Ok(Step::Severity {
        from,
        words,
        knows_usual: preset != Some("none"),
    })
}

impl Step {
    fn apply<'a>(&self, record: &mut Record<'a>, path: Option<&Path>) {
        match self {
            Step::Json { from, to } => {
                let parsed = match from.get(record) {
                    Some(Json::Text(Cow::Borrowed(text))) => Json::object(text),
                    Some(Json::Text(Cow::Owned(text))) => Json::object(text).map(owned),
                    _ => None,
                };
                if let Some(parsed) = parsed {
                    to.set(record, Json::Object(parsed));
                }
            }
            Step::Regex { from, to, pattern } => {
                let Some(text) = from.get(record).and_then(Json::as_text) else {
                    return;
                };
                let Some(found) = pattern.captures(text) else { return };
                let groups = pattern.capture_names().flatten();
                let parsed: Members<'a> = groups
                    .filter_map(|name| {
                        Some((
                            name.to_owned().into(),
                            Json::Text(found.name(name)?.as_str().to_owned().into()),
                        ))
                    })
                    .collect();
                to.set(record, Json::Object(parsed));
            }
            Step::Time { from, form } => {
                let time = match (from.get(record), form) {
                    (Some(Json::Text(text)), Form::Layout(layout)) => {
                        time::parse(text, layout).and_then(|nanos| u64::try_from(nanos).ok())
                    }
                    (Some(Json::Text(text)), Form::Rfc3339) => parse_rfc3339(text),
                    (Some(value), Form::Epoch(nanos)) => epoch(value, *nanos),
                    _ => None,
                };
                if let Some(time) = time {
                    record.time_unix_nano = time;
                }
            }
            Step::Severity {
                from,
                words,
                knows_usual,
            } => {
                let text = match from.get(record) {
                    Some(Json::Text(text)) => text.clone(),
                    Some(Json::Int(number)) => Cow::Owned(number.to_string()),
                    _ => return,
                };
                let usual = || if *knows_usual { severity(text.as_bytes()) } else { 0 };
                record.severity_number = words.get(&text.to_ascii_lowercase()).copied().unwrap_or_else(usual);
                record.severity_text = text;
            }
            Step::Trace {
                trace_id: trace,
                span_id,
            } => {
                if let Some(id) = trace.get(record).and_then(Json::as_text).and_then(trace_id) {
                    record.trace_id = Some(id);
                }
                if let Some(id) = span_id
                    .get(record)
                    .and_then(Json::as_text)
                    .and_then(|text| SpanId::from_hex(text).ok())
                {
                    record.span_id = Some(id).filter(|id| !id.is_zero());
                }
            }
            Step::Container { format, tells_pod } => {
                let is_docker = match format {
                    Some(format) => *format == Container::Docker,
                    None => record.body.as_text().is_some_and(|text| text.starts_with('{')),
                };
                match is_docker {
                    true => docker(record),
                    false => cri(record),
                }
                if let Some(path) = path.filter(|_| *tells_pod) {
                    pod(path, record);
                }
            }
            Step::Move { from, to } => {
                if let Some(value) = from.take(record) {
                    to.set(record, value);
                }
            }
            Step::Copy { from, to } => {
                if let Some(value) = from.get(record).cloned() {
                    to.set(record, value);
                }
            }
            Step::Add { to, value } => to.set(record, value.clone()),
            Step::Remove { from } => drop(from.take(record)),
        }
    }
}

fn epoch(value: &Json<'_>, unit_nanos: f64) -> Option<u64> {
    let number = match value {
        Json::Int(number) if *number > 0 => return (*number as u64).checked_mul(unit_nanos as u64),
        Json::Double(number) => *number,
        Json::Text(text) => match text.parse::<u64>() {
            Ok(number) => return number.checked_mul(unit_nanos as u64),
            Err(_) => text.parse().ok()?,
        },
        _ => return None,
    };
    let nanos = number * unit_nanos;
    (nanos > 0.0 && nanos < 1.8e19).then_some(nanos as u64)
}

/// `{"log": "…\n", "stream": "stdout", "time": "…"}`, as Docker's `json-file` driver writes it.
fn docker(record: &mut Record<'_>) {
    let Some(members) = record.body.as_text().and_then(Json::object).map(owned) else {
        return;
    };
    if !members
        .iter()
        .any(|(key, value)| key == "log" && value.as_text().is_some())
    {
        return;
    }
    for (key, value) in members {
        match (key.as_ref(), value) {
            ("log", Json::Text(text)) => {
                let line = text.strip_suffix('\n').unwrap_or(&text);
                record.body = Json::Text(line.strip_suffix('\r').unwrap_or(line).to_owned().into());
            }
            ("stream", value) => upsert(&mut record.attributes, "log.iostream".into(), value),
            ("time", value) => {
                if let Some(time) = instant(&value) {
                    record.time_unix_nano = time;
                }
            }
            (_, value) => upsert(&mut record.attributes, key, value),
        }
    }
}

/// `TIME stdout F …`, as containerd and CRI-O write it.
fn cri(record: &mut Record<'_>) {
    let Some(text) = record.body.as_text() else { return };
    let mut words = text.splitn(4, ' ');
    let (Some(time), Some(stream), Some(tag)) = (words.next(), words.next(), words.next()) else {
        return;
    };
    let (Some(time), "stdout" | "stderr") = (parse_rfc3339(time), stream) else {
        return;
    };
    let (stream, tag) = (stream.to_owned(), tag.to_owned());
    let line = words.next().unwrap_or_default().to_owned();
    record.time_unix_nano = time;
    upsert(&mut record.attributes, "log.iostream".into(), Json::Text(stream.into()));
    upsert(&mut record.attributes, "logtag".into(), Json::Text(tag.into()));
    record.body = Json::Text(line.into());
}

/// `/var/log/pods/NAMESPACE_POD_UID/CONTAINER/RESTARTS.log`.
fn pod(path: &Path, record: &mut Record<'_>) {
    let mut names = path.iter().rev().map(|name| name.to_str().unwrap_or_default());
    let (Some(file), Some(container), Some(pod)) = (names.next(), names.next(), names.next()) else {
        return;
    };
    let restarts = file.split('.').next().filter(|number| number.parse::<u32>().is_ok());
    let parts: Vec<&str> = pod.split('_').collect();
    let ([namespace, name, uid], Some(restarts)) = (&parts[..], restarts) else {
        return;
    };
    for (key, value) in [
        ("k8s.namespace.name", *namespace),
        ("k8s.pod.name", name),
        ("k8s.pod.uid", uid),
        ("k8s.container.name", container),
        ("k8s.container.restart_count", restarts),
    ] {
        upsert(&mut record.resource, key.into(), Json::Text(value.to_owned().into()));
    }
}

#[cfg(test)]
mod tests;
