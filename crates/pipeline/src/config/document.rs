//! Why: what a configuration file says as a whole: which components are defined, and which pipelines use them.
//!
//! ```yaml
//! receivers:  { otlp: { protocols: { grpc: { endpoint: 127.0.0.1:4317 } } } }
//! processors: { batch: { timeout: 1s } }
//! exporters:  { debug: {}, otlp/backend: { endpoint: backend:4317 } }
//! service:
//!   journal: { directory: /var/lib/trackline/journal, max_bytes: 4GiB, fsync: always }
//!   pipelines:
//!     traces: { receivers: [otlp], processors: [batch], exporters: [debug, otlp/backend] }
//! ```

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::Signal;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer};

use super::diagnostic::{Problem, Problems, Source, Sources, Span, suggest};
use super::section::{Notes, Section};
use super::telemetry::{self, Telemetry};
use super::units::{optional_duration, parse_duration, size};
use super::yaml::{self, Entry, Node, Value};
use super::{de, secrets, variables};

/// The name of a component or pipeline, `otlp` or `otlp/backend`. The journal puts pipeline names into each record, within 64 bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// `kind` or `kind/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    whole: Arc<str>,
    kind_end: usize,
}

impl Id {
    fn parse(text: &str) -> Result<Id, String> {
        let (kind, name) = match text.split_once('/') {
            Some((kind, name)) => (kind, Some(name)),
            None => (text, None),
        };
        if kind.is_empty() || !kind.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(format!(
                "`{text}` is not a name: `kind` or `kind/name`, the kind of letters, digits and `_`"
            ));
        }
        // The colon separates pipeline and exporter in the names of journal readers.
        if name.is_some_and(|name| {
            name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control() || c == ':')
        }) {
            return Err(format!(
                "`{text}`: what follows the `/` must not be empty and have no spaces or colons"
            ));
        }
        if text.len() > MAX_NAME_BYTES {
            return Err(format!("`{text}` is longer than {MAX_NAME_BYTES} bytes"));
        }
        Ok(Id {
            whole: text.into(),
            kind_end: kind.len(),
        })
    }

    pub fn kind(&self) -> &str {
        &self.whole[..self.kind_end]
    }

    pub fn as_str(&self) -> &str {
        &self.whole
    }

    pub fn to_arc(&self) -> Arc<str> {
        Arc::clone(&self.whole)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.whole)
    }
}

/// A component as it is defined; its settings are read by whoever knows the kind ([`Section::parse`]).
#[derive(Debug, Clone)]
pub struct Component {
    pub id: Id,
    pub span: Span,
    pub(super) settings: Node,
}

/// A component as it is used.
#[derive(Debug, Clone)]
pub struct Reference {
    pub id: Id,
    pub span: Span,
}

#[derive(Debug, Clone)]
pub struct Pipeline {
    pub id: Id,
    pub span: Span,
    pub signal: Signal,
    pub receivers: Vec<Reference>,
    pub processors: Vec<Reference>,
    pub exporters: Vec<Reference>,
}

/// `service.journal`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Journal {
    /// Nothing is said: where it is and how large is the caller's default.
    #[default]
    Default,
    /// `none`: exporters acknowledge.
    None,
    Settings(JournalSettings),
}

/// The journal that makes accepted data durable. `journal: none` switches it off: a sender then hears "accepted" when the exporters have it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JournalSettings {
    /// Where the segments lie. Default: `journal` in the data directory.
    pub directory: Option<PathBuf>,
    /// The bound on disk; at it, readers skip or the door refuses, as their policy says. Default 4GiB: hours of traffic of a small fleet.
    #[serde(deserialize_with = "size")]
    pub max_bytes: u64,
    /// Older records are given up even if nobody has read them. Default: none.
    #[serde(deserialize_with = "optional_duration")]
    pub max_age: Option<Duration>,
    /// When bytes count as durable: `always` (default), `off`, or an interval such as `100ms`.
    pub fsync: Fsync,
    /// The size of one segment file. Default 64MiB.
    #[serde(deserialize_with = "size")]
    pub segment_bytes: u64,
    /// Free disk that is left for commits of the store; below it senders are refused for now, and nothing acknowledged is given up. Default 256MiB.
    #[serde(deserialize_with = "size")]
    pub min_free_bytes: u64,
}

impl Default for JournalSettings {
    fn default() -> JournalSettings {
        JournalSettings {
            directory: None,
            max_bytes: 4 << 30,
            max_age: None,
            fsync: Fsync::Always,
            segment_bytes: 64 << 20,
            min_free_bytes: 256 << 20,
        }
    }
}

/// When the journal's bytes are flushed to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    Always,
    Interval(Duration),
    Off,
}

impl<'de> Deserialize<'de> for Fsync {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fsync, D::Error> {
        struct Choice;
        impl Visitor<'_> for Choice {
            type Value = Fsync;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`always`, `off` or an interval such as `100ms`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Fsync, E> {
                match text {
                    "always" => Ok(Fsync::Always),
                    "off" => Ok(Fsync::Off),
                    _ => parse_duration(text).map(Fsync::Interval).ok_or_else(|| {
                        E::custom(format_args!(
                            "expected `always`, `off` or an interval such as `100ms`, found `{text}`"
                        ))
                    }),
                }
            }
        }
        deserializer.deserialize_str(Choice)
    }
}

/// A whole configuration, its references not yet resolved.
#[derive(Debug)]
pub struct Config {
    pub receivers: Vec<Component>,
    pub processors: Vec<Component>,
    pub exporters: Vec<Component>,
    pub connectors: Vec<Component>,
    pub extensions: Vec<Component>,
    pub pipelines: Vec<Pipeline>,
    pub started_extensions: Vec<Reference>,
    pub journal: Journal,
    pub telemetry: Telemetry,
    /// Such as variables that are not set.
    warnings: Vec<Problem>,
    /// What components found to say about their settings.
    pub(super) notes: Notes,
    /// What is wrong with the document as such; the planner reports it with what it finds itself, so that all is seen at once.
    pub(crate) mistakes: Vec<Problem>,
    pub(super) root: Node,
    pub(super) sources: Sources,
}

impl Config {
    /// Reads the sources, of which later ones are laid over earlier ones: maps merge, lists and values replace, null deletes. Fails only if there is no tree
    /// to look at; every other mistake is found by [`crate::plan::plan`].
    pub fn load(sources: Vec<Source>, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Problems> {
        let mut problems = Vec::new();
        let mut root: Option<Node> = None;
        for (index, source) in sources.iter().enumerate() {
            match yaml::parse(source, index) {
                Ok(node) if node.is_null() => {}
                Ok(node) => {
                    root = Some(match root {
                        Some(base) => yaml::overlay(base, node),
                        None => node,
                    });
                }
                Err(problem) => problems.push(problem),
            }
        }
        if !problems.is_empty() {
            return Err(Problems::new(Sources::new(sources, Vec::new()), problems));
        }
        let Some(mut root) = root else {
            let problem = Problem::new(None, "the configuration is empty");
            return Err(Problems::new(Sources::new(sources, Vec::new()), vec![problem]));
        };
        let mut warnings = Vec::new();
        variables::expand(&mut root, env, &mut problems, &mut warnings);
        warn_unset(&root, &mut warnings);
        let secrets = secrets::mark(&mut root, &sources, &mut warnings);
        let mut config = Config {
            receivers: Vec::new(),
            processors: Vec::new(),
            exporters: Vec::new(),
            connectors: Vec::new(),
            extensions: Vec::new(),
            pipelines: Vec::new(),
            started_extensions: Vec::new(),
            journal: Journal::Default,
            telemetry: Telemetry::default(),
            warnings,
            notes: Notes::default(),
            mistakes: Vec::new(),
            root: root.clone(),
            sources: Sources::new(sources, secrets),
        };
        config.top_level(&root, &mut problems);
        config.mistakes = problems;
        Ok(config)
    }

    pub fn section<'a>(&'a self, component: &'a Component) -> Section<'a> {
        Section {
            component,
            config: self,
        }
    }

    pub fn problems(&self, list: Vec<Problem>) -> Problems {
        Problems::new(self.sources.clone(), list)
    }

    /// Whether it means the same, however it is written.
    pub fn says_the_same(&self, other: &Config) -> bool {
        self.root.says_the_same(&other.root)
    }

    /// What is not wrong but probably not meant: what the document shows, and what components said when their settings were read.
    pub fn warnings(&self) -> Vec<Problem> {
        let mut warnings = self.warnings.clone();
        warnings.extend(self.notes.list());
        warnings
    }

    fn top_level(&mut self, root: &Node, problems: &mut Vec<Problem>) {
        const KEYS: [&str; 6] = [
            "receivers",
            "processors",
            "exporters",
            "connectors",
            "extensions",
            "service",
        ];
        if !matches!(root.value, Value::Map(_)) {
            let message = format!(
                "expected a map with `receivers`, `exporters` and `service`, found {}",
                root.describe()
            );
            problems.push(Problem::new(root.span, message));
            return;
        }
        let mut service = None;
        for entry in root.entries() {
            match entry.key.as_str() {
                "receivers" => self.receivers = components(entry, problems),
                "processors" => self.processors = components(entry, problems),
                "exporters" => self.exporters = components(entry, problems),
                "extensions" => self.extensions = components(entry, problems),
                "connectors" => self.connectors = components(entry, problems),
                "service" => service = Some(entry),
                // Extension fields, as in Compose files: a place for anchors.
                other if other.starts_with("x-") => {}
                other => {
                    let problem = Problem::new(entry.key_span, format!("unknown key `{other}`"));
                    problems.push(problem.hint(suggest(other, KEYS)));
                }
            }
        }
        match service {
            Some(entry) => {
                self.service(entry, problems);
                telemetry::check_budgets(root, &self.exporters, problems);
            }
            None => problems.push(Problem::new(
                root.span,
                "the key `service` is missing; without pipelines nothing would run",
            )),
        }
    }

    fn service(&mut self, service: &Entry, problems: &mut Vec<Problem>) {
        const KEYS: [&str; 4] = ["pipelines", "extensions", "journal", "telemetry"];
        if !expect_map(&service.value, "service", problems) {
            return;
        }
        for entry in service.value.entries() {
            match entry.key.as_str() {
                "pipelines" => self.pipelines(entry, problems),
                "extensions" => self.started_extensions = references(&entry.value, problems),
                "journal" => match &entry.value.value {
                    Value::Scalar(scalar) if scalar.text == "none" => self.journal = Journal::None,
                    _ if entry.value.is_null() => {}
                    _ => match de::read(&entry.value) {
                        Ok(settings) => self.journal = Journal::Settings(settings),
                        Err(more) => problems.extend(more),
                    },
                },
                "telemetry" => {
                    if expect_map(&entry.value, "telemetry", problems) {
                        self.telemetry = telemetry::read(entry, problems, &mut self.warnings);
                    }
                }
                other => {
                    let problem = Problem::new(entry.key_span, format!("unknown key `{other}` in `service`"));
                    problems.push(problem.hint(suggest(other, KEYS)));
                }
            }
        }
        if self.pipelines.is_empty() && problems.is_empty() {
            problems.push(Problem::new(
                service.key_span,
                "`service` has no pipelines; nothing would run",
            ));
        }
    }

    fn pipelines(&mut self, pipelines: &Entry, problems: &mut Vec<Problem>) {
        const KEYS: [&str; 3] = ["receivers", "processors", "exporters"];
        if !expect_map(&pipelines.value, "pipelines", problems) {
            return;
        }
        for entry in pipelines.value.entries() {
            let id = match Id::parse(&entry.key) {
                Ok(id) => id,
                Err(message) => {
                    problems.push(Problem::new(entry.key_span, message));
                    continue;
                }
            };
            let Some(signal) = Signal::ALL.into_iter().find(|signal| signal.as_str() == id.kind()) else {
                let problem = Problem::new(entry.key_span, format!("`{}` is not a signal", id.kind()));
                problems.push(problem.hint(suggest(id.kind(), Signal::ALL.map(Signal::as_str))));
                continue;
            };
            if !expect_map(&entry.value, id.as_str(), problems) {
                continue;
            }
            let mut pipeline = Pipeline {
                id,
                span: entry.key_span,
                signal,
                receivers: Vec::new(),
                processors: Vec::new(),
                exporters: Vec::new(),
            };
            for part in entry.value.entries() {
                match part.key.as_str() {
                    "receivers" => pipeline.receivers = references(&part.value, problems),
                    "processors" => pipeline.processors = references(&part.value, problems),
                    "exporters" => pipeline.exporters = references(&part.value, problems),
                    other => {
                        let problem = Problem::new(part.key_span, format!("unknown key `{other}` in a pipeline"));
                        problems.push(problem.hint(suggest(other, KEYS)));
                    }
                }
            }
            self.pipelines.push(pipeline);
        }
    }
}

fn expect_map(node: &Node, what: &str, problems: &mut Vec<Problem>) -> bool {
    let map = matches!(node.shape(), Value::Map(_)) || node.is_null();
    if !map {
        problems.push(Problem::new(
            node.span,
            format!("expected a map under `{what}`, found {}", node.describe()),
        ));
    }
    map
}

fn components(kind: &Entry, problems: &mut Vec<Problem>) -> Vec<Component> {
    if !expect_map(&kind.value, &kind.key, problems) {
        return Vec::new();
    }
    let mut components = Vec::new();
    for entry in kind.value.entries() {
        match Id::parse(&entry.key) {
            Ok(id) => components.push(Component {
                id,
                span: entry.key_span,
                settings: entry.value.clone(),
            }),
            Err(message) => problems.push(Problem::new(entry.key_span, message)),
        }
    }
    components
}

fn references(node: &Node, problems: &mut Vec<Problem>) -> Vec<Reference> {
    let list = match node.shape() {
        Value::List(list) => list.as_slice(),
        _ if node.is_null() => &[],
        _ => {
            problems.push(Problem::new(
                node.span,
                format!("expected a list of names, found {}", node.describe()),
            ));
            return Vec::new();
        }
    };
    let mut references: Vec<Reference> = Vec::new();
    for item in list {
        let Value::Scalar(scalar) = &item.value else {
            problems.push(Problem::new(
                item.span,
                format!("expected a name, found {}", item.describe()),
            ));
            continue;
        };
        match Id::parse(&scalar.text) {
            Ok(id) if references.iter().any(|reference| reference.id == id) => {
                problems.push(Problem::new(item.span, format!("`{id}` is listed twice")));
            }
            Ok(id) => references.push(Reference { id, span: item.span }),
            Err(message) => problems.push(Problem::new(item.span, message)),
        }
    }
    references
}

fn warn_unset(node: &Node, warnings: &mut Vec<Problem>) {
    match &node.value {
        Value::Scalar(scalar) => {
            for name in &scalar.unset {
                let message = format!("the environment variable {name} is not set; an empty text stands in its place");
                warnings.push(Problem::new(node.span, message));
            }
        }
        Value::List(list) => list.iter().for_each(|item| warn_unset(item, warnings)),
        Value::Map(entries) => entries.iter().for_each(|entry| warn_unset(&entry.value, warnings)),
    }
}
