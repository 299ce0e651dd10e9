//! What a file from the OpenTelemetry Collector does with entries before they are records: parsers, times, severities, fields that move, lines that are put
//! together or dropped. The others of its operators are refused with what to use instead. What an operator cannot do to an entry it leaves: the entry goes on
//! as it is.

mod combine;
mod config;
mod container;
mod expression;
mod layout;
mod place;
mod zone;

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::time::Duration;

use codec::log_line::{Json, Members, Record, owned, severity, trace_id};
use model::SpanId;
use pipeline::processors::actions::Scalar;
use regex::Regex;

pub use self::combine::Entry;
use self::combine::{Combine, Mark, Queue};
use self::config::{Field, Values};
pub use self::config::{Mapping, Operator};
use self::container::{cri, docker, pod};
use self::expression::Expression;
use self::layout::Layout;
use self::place::Place;
use crate::lines::now_unix_nano;

/// Operators in one receiver; each costs time for every entry.
const MAX_OPERATORS: usize = 100;
/// The largest number that a severity has.
const MAX_SEVERITY: u8 = 24;

/// Entries that `recombine` makes one of, and sources that it tells apart, at most, where its settings say nothing; the collector's.
const MAX_ENTRIES: usize = 1_000;
const MAX_UNMATCHED: usize = 100;
const MAX_SOURCES: usize = 1_000;
/// Bytes of what was put together, where the settings say nothing or 0: what one line may have by default.
const MAX_COMBINED_BYTES: usize = 1 << 20;
/// How long `recombine` waits for what belongs to an entry; the collector's.
const PATIENCE: Duration = Duration::from_secs(5);

/// Operators as they run: stages, each of which but the last ends with lines that are put together.
#[derive(Debug, Clone, Default)]
pub struct Operators {
    stages: Vec<Stage>,
}

#[derive(Debug, Clone, Default)]
struct Stage {
    operators: Vec<Compiled>,
    combine: Option<Combine>,
}

/// One operator: steps that are taken if a condition holds before the first of them.
#[derive(Debug, Clone)]
struct Compiled {
    condition: Option<Expression>,
    steps: Vec<Step>,
}

/// The entries of one file on their way through stages. What is on its way when a turn ends is read again.
#[derive(Debug, Default)]
pub struct Held {
    /// One for each stage that puts lines together.
    queues: Vec<Queue>,
    passed: VecDeque<Entry<'static>>,
}

impl Held {
    /// The next entry that has passed all stages.
    pub fn pop(&mut self) -> Option<Entry<'static>> {
        self.passed.pop_front()
    }

    /// The first byte in the file of what has not passed yet.
    pub fn start(&self) -> Option<u64> {
        self.queues.iter().filter_map(Queue::start).min()
    }

    /// The first byte of each entry that waits for more.
    pub fn unfinished(&self) -> impl Iterator<Item = u64> {
        self.queues.iter().flat_map(Queue::unfinished)
    }
}

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
        layout: Layout,
    },
    Severity {
        from: Place,
        words: Words,
        knows_usual: bool,
    },
    /// Drops what it holds of, or a share of that.
    Filter {
        expression: Expression,
        share: f64,
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

/// Levels by value.
#[derive(Debug, Clone, Default)]
struct Words {
    by_text: BTreeMap<String, u8>,
    by_range: Vec<(i64, i64, u8)>,
}

/// What is wrong with which operator, at which of its keys.
pub type Mistake = (usize, &'static str, String);

impl Operators {
    pub fn compile(configs: &[Operator]) -> Result<Operators, Mistake> {
        if configs.len() > MAX_OPERATORS {
            return Err((MAX_OPERATORS, "type", format!("more than {MAX_OPERATORS} operators")));
        }
        let (mut stages, mut stage) = (Vec::new(), Stage::default());
        for (at, config) in configs.iter().enumerate() {
            let mut steps = Vec::new();
            let wrong = |(key, problem)| (at, key, problem);
            let condition = expression("if", &config.r#if).map_err(wrong)?;
            let combine = compile(config, &mut steps).map_err(wrong)?;
            stage.operators.push(Compiled { condition, steps });
            if combine.is_some() {
                stage.combine = combine;
                stages.push(std::mem::take(&mut stage));
            }
        }
        stages.push(stage);
        Ok(Operators { stages })
    }

    /// Whether what an entry says is read by one of them.
    pub fn parse(&self) -> bool {
        let operators = self.stages.iter().flat_map(|stage| &stage.operators);
        operators
            .flat_map(|operator| &operator.steps)
            .any(|step| matches!(step, Step::Json { .. } | Step::Regex { .. }))
    }

    /// Whether lines are put together, so that they must go through [`Operators::enter`].
    pub fn combine(&self) -> bool {
        self.stages.iter().any(|stage| stage.combine.is_some())
    }

    /// Changes an entry by itself; whether it goes on.
    pub fn apply(&self, record: &mut Record<'_>, path: Option<&Path>) -> bool {
        self.stages.iter().all(|stage| stage.apply(record, path).is_some())
    }

    /// Takes the next entry of its file; what has passed all stages by that is at [`Held::pop`].
    pub fn enter(&self, held: &mut Held, entry: Entry<'_>, path: Option<&Path>) {
        held.queues.resize_with(self.stages.len() - 1, Queue::default);
        self.enter_stage(0, held, entry, path);
    }

    fn enter_stage(&self, at: usize, held: &mut Held, mut entry: Entry<'_>, path: Option<&Path>) {
        let stage = &self.stages[at];
        let mut takes_part = false;
        if let Some(record) = &mut entry.record {
            match stage.apply(record, path) {
                None => entry.record = None,
                Some(is_meant) => takes_part = is_meant,
            }
        }
        match &stage.combine {
            None => held.passed.push_back(entry.into_owned()),
            Some(combine) => {
                held.queues[at].push(combine, entry, takes_part, path);
                self.drain(at, combine, held, path);
            }
        }
    }

    fn drain(&self, at: usize, combine: &Combine, held: &mut Held, path: Option<&Path>) {
        loop {
            while let Some(entry) = held.queues[at].pop() {
                self.enter_stage(at + 1, held, entry, path);
            }
            if !held.queues[at].is_full(combine) {
                return;
            }
            held.queues[at].finish_front(combine);
        }
    }

    /// The stage that holds the oldest entry, which is the last that holds any.
    fn oldest(&self, held: &Held) -> Option<(usize, &Combine)> {
        let at = held.queues.iter().rposition(|queue| queue.start().is_some())?;
        Some((at, self.stages[at].combine.as_ref()?))
    }

    /// How long the oldest entry that waits for more may do so; `None` is for ever.
    pub fn patience(&self, held: &Held) -> Option<Duration> {
        self.oldest(held)?.1.patience
    }

    /// The oldest entry goes on as it is.
    pub fn give_up(&self, held: &mut Held, path: Option<&Path>) {
        if let Some((at, combine)) = self.oldest(held) {
            held.queues[at].finish_front(combine);
            self.drain(at, combine, held, path);
        }
    }
}

impl Stage {
    /// Whether the last operator, which may put lines together, was for this entry, as it was before that changed it; `None` for one that is dropped.
    fn apply(&self, record: &mut Record<'_>, path: Option<&Path>) -> Option<bool> {
        let mut is_meant = true;
        for operator in &self.operators {
            let condition = operator.condition.as_ref();
            is_meant = condition.is_none_or(|condition| condition.holds(record, path));
            if is_meant && !operator.steps.iter().all(|step| step.apply(record, path)) {
                return None;
            }
        }
        Some(is_meant)
    }
}

fn expression(key: &'static str, text: &Option<String>) -> Result<Option<Expression>, (&'static str, String)> {
    let Some(text) = text else { return Ok(None) };
    Expression::parse(text).map(Some).map_err(|problem| (key, problem))
}

fn compile(config: &Operator, steps: &mut Vec<Step>) -> Result<Option<Combine>, (&'static str, String)> {
    let mut combine = None;
    let missing = |key: &str| ("type", format!("`{}` needs `{key}`", config.r#type));
    let needed = |key: &'static str, text: &Option<String>| {
        let text = text.as_deref().ok_or_else(|| missing(key))?;
        Place::parse(text).map_err(|problem| (key, problem))
    };
    let needed_value = |key: &'static str, text: &Option<String>| {
        let text = text.as_deref().ok_or_else(|| missing(key))?;
        Place::of_value(text).map_err(|problem| (key, problem))
    };
    let from = || {
        let text = config.parse_from.as_deref().unwrap_or("body");
        Place::of_value(text).map_err(|problem| ("parse_from", problem))
    };
    let to = || {
        let text = config.parse_to.as_deref().unwrap_or("attributes");
        Place::parse(text).map_err(|problem| ("parse_to", problem))
    };
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
            let layout = Layout::read(
                config.layout.as_deref(),
                config.layout_type.as_deref(),
                config.location.as_deref(),
            )?;
            steps.push(Step::Time {
                from: needed_value("parse_from", &config.parse_from)?,
                layout,
            });
        }
        "severity_parser" => {
            let from = needed_value("parse_from", &config.parse_from)?;
            steps.push(severity_step(from, &config.mapping, config.preset.as_deref())?);
        }
        "trace_parser" => {
            let of = |key: &'static str, field: &Option<Field>, default: &str| {
                let text = field.as_ref().map_or(default, |field| &field.parse_from);
                Place::of_value(text).map_err(|problem| (key, problem))
            };
            steps.push(Step::Trace {
                trace_id: of("trace_id", &config.trace_id, "attributes.trace_id")?,
                span_id: of("span_id", &config.span_id, "attributes.span_id")?,
            });
        }
        "container" => {
            combine = Some(Combine {
                mark: Mark::WholeLine,
                field: Place::parse("body").map_err(|problem| ("type", problem))?,
                with: String::new(),
                max_unmatched: MAX_ENTRIES,
                max_bytes: combined_bytes(config),
                source: Some(Place::parse("attributes[\"log.iostream\"]").map_err(|problem| ("type", problem))?),
                max_entries: MAX_ENTRIES,
                takes_newest: true,
                max_sources: MAX_SOURCES,
                patience: Some(PATIENCE),
            });
            steps.push(Step::Container {
                format: match config.format.as_deref() {
                    None | Some("") => None,
                    Some("docker") => Some(Container::Docker),
                    Some("crio" | "containerd" | "cri") => Some(Container::Cri),
                    Some(other) => return Err(("format", format!("`{other}` is none of docker, crio and containerd"))),
                },
                tells_pod: config.add_metadata_from_filepath.unwrap_or(true),
            });
        }
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
                to: needed_value("field", &config.field)?,
                value,
            });
        }
        "remove" => steps.push(Step::Remove {
            from: needed("field", &config.field)?,
        }),
        "noop" => {}
        "recombine" => {
            let mark = match (
                expression("is_first_entry", &config.is_first_entry)?,
                expression("is_last_entry", &config.is_last_entry)?,
            ) {
                (Some(first), None) => Mark::First(first),
                (None, Some(last)) => Mark::Last(last),
                _ => {
                    let why = "`recombine` needs one of `is_first_entry` and `is_last_entry`";
                    return Err(("type", why.to_owned()));
                }
            };
            combine = Some(Combine {
                mark,
                field: needed_value("combine_field", &config.combine_field)?,
                with: config.combine_with.clone().unwrap_or_else(|| "\n".to_owned()),
                max_entries: bound("max_batch_size", config.max_batch_size, MAX_ENTRIES)?,
                max_unmatched: bound(
                    "max_unmatched_batch_size",
                    config.max_unmatched_batch_size,
                    MAX_UNMATCHED,
                )?,
                max_bytes: combined_bytes(config),
                takes_newest: match config.overwrite_with.as_deref() {
                    None | Some("newest") => true,
                    Some("oldest") => false,
                    Some(other) => {
                        return Err(("overwrite_with", format!("`{other}` is neither `newest` nor `oldest`")));
                    }
                },
                source: match &config.source_identifier {
                    None => None,
                    Some(text) => Some(Place::of_value(text).map_err(|problem| ("source_identifier", problem))?),
                },
                max_sources: bound("max_sources", config.max_sources, MAX_SOURCES)?,
                patience: Some(config.force_flush_period.unwrap_or(PATIENCE)).filter(|period| !period.is_zero()),
            });
        }
        "filter" => {
            let share = config.drop_ratio.unwrap_or(1.0);
            if !(0.0..=1.0).contains(&share) {
                return Err(("drop_ratio", format!("`{share}` is not a share from 0 to 1")));
            }
            let filter = expression("expr", &config.expr)?;
            steps.push(Step::Filter {
                expression: filter.ok_or((
                    "type",
                    "`filter` needs `expr`, of which what it drops is true".to_owned(),
                ))?,
                share,
            });
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
        let layout = Layout::read(
            config.layout.as_deref(),
            config.layout_type.as_deref(),
            config.location.as_deref(),
        )
        .map_err(|(_, problem)| ("timestamp", problem))?;
        let from = Place::of_value(&config.parse_from).map_err(|problem| ("timestamp", problem))?;
        steps.push(Step::Time { from, layout });
    }
    if let Some(config) = &config.severity {
        let from = Place::of_value(&config.parse_from).map_err(|problem| ("severity", problem))?;
        steps.push(severity_step(from, &config.mapping, config.preset.as_deref())?);
    }
    Ok(combine)
}

fn combined_bytes(config: &Operator) -> usize {
    match config.max_log_size {
        None | Some(0) => MAX_COMBINED_BYTES,
        Some(bytes) => bytes as usize,
    }
}

fn bound(key: &'static str, number: Option<u64>, default: usize) -> Result<usize, (&'static str, String)> {
    match number {
        None => Ok(default),
        // As the collector has it: no bound but that of bytes.
        Some(0) => Ok(usize::MAX),
        Some(number) => usize::try_from(number).map_err(|_| (key, format!("{number} is too large"))),
    }
}

fn severity_step(from: Place, mapping: &Mapping, preset: Option<&str>) -> Result<Step, (&'static str, String)> {
    let mut words = Words::default();
    for (level, values) in mapping {
        let name = level.trim_end_matches(|c: char| c.is_ascii_digit());
        let first = severity(name.as_bytes());
        let more = match &level[name.len()..] {
            "" => 1,
            digits => digits.parse::<u8>().unwrap_or(0),
        };
        if first == 0 || !(1..=4).contains(&more) {
            return Err(("mapping", format!("`{level}` is not a level such as error or warn2")));
        }
        let number = (first + more - 1).min(MAX_SEVERITY);
        for value in &values.0 {
            match value {
                Values::One(value) => match hundreds(value) {
                    Some(from) => words.by_range.push((from, from + 99, number)),
                    None => drop(words.by_text.insert(value.to_ascii_lowercase(), number)),
                },
                Values::Range { min, max } if min <= max => words.by_range.push((*min, *max, number)),
                Values::Range { min, max } => {
                    return Err((
                        "mapping",
                        format!("{min} is more than {max}, so no value is between them"),
                    ));
                }
            }
        }
    }
    let knows_usual = match preset {
        None | Some("" | "default") => true,
        Some("none") => false,
        Some(other) => return Err(("preset", format!("`{other}` is neither `default` nor `none`"))),
    };
    Ok(Step::Severity {
        from,
        words,
        knows_usual,
    })
}

/// `4xx` stands for 400 to 499.
fn hundreds(value: &str) -> Option<i64> {
    let digit = value.strip_suffix("xx").or_else(|| value.strip_suffix("XX"))?;
    digit
        .parse()
        .ok()
        .filter(|digit| (1..=9).contains(digit))
        .map(|digit: i64| digit * 100)
}

impl Words {
    fn level(&self, text: &str) -> Option<u8> {
        let by_text = || self.by_text.get(&text.to_ascii_lowercase()).copied();
        by_text().or_else(|| {
            let number: i64 = text.parse().ok().filter(|_| !self.by_range.is_empty())?;
            let range = self
                .by_range
                .iter()
                .find(|(min, max, _)| (*min..=*max).contains(&number));
            range.map(|(_, _, level)| *level)
        })
    }
}

impl Step {
    /// Whether the entry goes on.
    fn apply<'a>(&self, record: &mut Record<'a>, path: Option<&Path>) -> bool {
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
                let text = from.get(record).and_then(Json::as_text);
                let Some(found) = text.and_then(|text| pattern.captures(text)) else {
                    return true;
                };
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
            Step::Time { from, layout } => {
                let time = match from.get(record) {
                    Some(Json::Text(text)) => layout.parse(text, now_unix_nano()),
                    Some(Json::Int(number)) => layout.parse(&number.to_string(), now_unix_nano()),
                    Some(Json::Double(number)) => layout.parse_number(*number),
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
                    _ => return true,
                };
                let usual = || if *knows_usual { severity(text.as_bytes()) } else { 0 };
                record.severity_number = words.level(&text).unwrap_or_else(usual);
                record.severity_text = text;
            }
            Step::Filter { expression, share } => {
                let is_dropped = expression.holds(record, path) && (*share >= 1.0 || random_share() < *share);
                return !is_dropped;
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
                // What is no object cannot be all attributes, and stays.
                let is_object = |value: Option<&Json<'_>>| matches!(value, Some(Json::Object(_)));
                let fits = !to.is_of_all() || from.is_of_all() || is_object(from.get(record));
                if let Some(value) = fits.then(|| from.take(record)).flatten() {
                    to.set(record, value);
                }
            }
            Step::Copy { from, to } => {
                if let Some(value) = from.copy(record) {
                    to.set(record, value);
                }
            }
            Step::Add { to, value } => to.set(record, value.clone()),
            Step::Remove { from } => drop(from.take(record)),
        }
        true
    }
}

/// From 0 to less than 1. The standard library's keys for hash tables are random, and each call's are others.
fn random_share() -> f64 {
    (RandomState::new().hash_one(()) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests;
