//! Why: a small tree of YAML in which every node knows where it stands, so that every later mistake can point at its place.
//!
//! The tree is bounded in size and depth while it is built, aliases included: a few lines of anchors must not become gigabytes.

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::diagnostic::{Problem, Source, Span};

/// Deeper nesting than any configuration has; the tree is walked by recursion.
pub const MAX_DEPTH: usize = 64;

/// More nodes than any configuration has, copies made by aliases included.
pub const MAX_NODES: usize = 200_000;

/// A configuration is written by hand: beyond this size the wrong file was named.
pub const MAX_SOURCE_BYTES: usize = 4 << 20;

#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub span: Span,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Scalar {
    /// As written, without quotes.
    pub raw: String,
    /// With variables expanded.
    pub text: String,
    /// Not quoted: may be a number, a boolean or null.
    pub plain: bool,
    /// Variables in `raw` that are not set and have no default.
    pub unset: Vec<String>,
    /// The whole value is one reference: it has the type of what it stands for.
    pub substituted: bool,
    /// The list or map that such a reference stands for.
    pub structure: Option<Box<Value>>,
    /// Must not be shown.
    pub secret: bool,
    /// What was substituted, until what is secret of it is collected.
    pub parts: Vec<Part>,
}

/// A text that stands where a reference stood, or would have.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub text: String,
    /// From a file, or from a variable whose name says so.
    pub secret: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub key: String,
    pub key_span: Span,
    pub value: Node,
}

impl Node {
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.is_null())
    }

    /// The value, or the list or map that a reference stands for.
    pub fn shape(&self) -> &Value {
        match &self.value {
            Value::Scalar(Scalar {
                structure: Some(structure),
                ..
            }) => structure,
            value => value,
        }
    }

    pub fn entries(&self) -> &[Entry] {
        match self.shape() {
            Value::Map(entries) => entries,
            Value::Scalar(_) | Value::List(_) => &[],
        }
    }

    /// Takes out what the path of keys leads to.
    pub fn remove(&mut self, path: &[&str]) {
        let (Value::Map(entries), Some((key, rest))) = (&mut self.value, path.split_first()) else {
            return;
        };
        if rest.is_empty() {
            entries.retain(|entry| entry.key != *key);
        } else if let Some(entry) = entries.iter_mut().find(|entry| entry.key == *key) {
            entry.value.remove(rest);
        }
    }

    /// Whether it says the same, wherever it stands.
    pub fn says_the_same(&self, other: &Node) -> bool {
        let same_entry = |a: &Entry, b: &Entry| a.key == b.key && a.value.says_the_same(&b.value);
        match (self.shape(), other.shape()) {
            (Value::Scalar(a), Value::Scalar(b)) => a.text == b.text && a.plain == b.plain && a.unset == b.unset,
            (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.says_the_same(b)),
            (Value::Map(a), Value::Map(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_entry(a, b)),
            _ => false,
        }
    }

    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// What it is, for a message.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Map(_) => "a map".into(),
            Value::List(_) => "a list".into(),
            Value::Scalar(scalar) if scalar.unset.is_empty() && scalar.is_null() => "nothing".into(),
            Value::Scalar(scalar) if scalar.secret => "a value that is not shown here".into(),
            Value::Scalar(scalar) => format!("`{}`", shortened(&scalar.text)),
        }
    }
}

fn shortened(text: &str) -> String {
    const SHOWN_CHARACTERS: usize = 40;
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}

impl Scalar {
    pub fn is_null(&self) -> bool {
        self.plain && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self.text.as_str() {
            "true" | "True" | "TRUE" if self.plain => Some(true),
            "false" | "False" | "FALSE" if self.plain => Some(false),
            _ => None,
        }
    }

    pub fn as_i64(&self) -> Option<i64> {
        let text = self.plain.then_some(self.text.as_str())?;
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        let magnitude = match (digits.get(..2), digits.get(2..)) {
            (Some("0x"), Some(hex)) => i128::from(u64::from_str_radix(hex, 16).ok()?),
            (Some("0o"), Some(octal)) => i128::from(u64::from_str_radix(octal, 8).ok()?),
            _ if digits.starts_with(|c: char| c.is_ascii_digit()) => i128::from(ungrouped(digits).parse::<u64>().ok()?),
            _ => return None,
        };
        i64::try_from(sign * magnitude).ok()
    }

    pub fn as_f64(&self) -> Option<f64> {
        let text = self.plain.then_some(self.text.as_str())?;
        match text {
            ".inf" | "+.inf" => Some(f64::INFINITY),
            "-.inf" => Some(f64::NEG_INFINITY),
            ".nan" => Some(f64::NAN),
            _ if text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) => {
                ungrouped(text).parse().ok()
            }
            _ => None,
        }
    }
}

/// A number without the underscores that the collector, as YAML 1.1, allows between digits.
fn ungrouped(number: &str) -> std::borrow::Cow<'_, str> {
    match number.contains('_') {
        true => number.replace('_', "").into(),
        false => number.into(),
    }
}

/// Reads the one document of a source; `source_index` is what spans will name.
pub fn parse(source: &Source, source_index: usize) -> Result<Node, Problem> {
    if source.text.len() > MAX_SOURCE_BYTES {
        return Err(Problem::new(
            None,
            format!("{} is larger than {MAX_SOURCE_BYTES} bytes", source.name),
        ));
    }
    let mut builder = Builder {
        source: source_index,
        anchors: Vec::new(),
        nodes: 0,
        open: Vec::new(),
        root: None,
    };
    let mut parser = Parser::new_from_str(&source.text);
    let mut documents = 0;
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            let marker = error.marker();
            let span = builder.span_at(marker.line(), marker.col(), 1);
            // The commonest reason, and the least obvious one.
            let line = source.text.lines().nth(marker.line().max(1) - 1).unwrap_or_default();
            let braces = line
                .contains("${")
                .then(|| "within `{ }`, a value with `${…}` needs quotes".to_owned());
            Problem::new(span, format!("not valid YAML: {}", error.info())).hint(braces)
        })?;
        let one_line = span.start.line() == span.end.line();
        let length = if one_line {
            span.end.col().saturating_sub(span.start.col())
        } else {
            usize::MAX
        };
        let span = builder.span_at(span.start.line(), span.start.col(), length);
        if matches!(event, Event::DocumentStart(_)) {
            documents += 1;
            if documents > 1 {
                return Err(Problem::new(
                    span,
                    "a second YAML document; a configuration is one document",
                ));
            }
        }
        builder.event(event, span)?;
    }
    let empty = Span {
        source: source_index,
        line: 1,
        column: 1,
        length: 0,
    };
    Ok(builder.root.unwrap_or(Node {
        span: empty,
        value: Value::Map(Vec::new()),
    }))
}

struct Builder {
    source: usize,
    /// Anchor, node, how many nodes it is.
    anchors: Vec<(usize, Node, usize)>,
    nodes: usize,
    open: Vec<Open>,
    root: Option<Node>,
}

struct Open {
    anchor: usize,
    span: Span,
    nodes_before: usize,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    Map(Vec<Entry>, Option<(String, Span)>),
}

impl Builder {
    fn span_at(&self, line: usize, column_from_zero: usize, length: usize) -> Span {
        Span {
            source: self.source,
            line: line.max(1),
            column: column_from_zero + 1,
            length,
        }
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        match event {
            Event::Scalar(text, style, anchor, _tag) => {
                let plain = style == ScalarStyle::Plain;
                let scalar = Scalar {
                    raw: text.to_string(),
                    text: text.into_owned(),
                    plain,
                    unset: Vec::new(),
                    substituted: false,
                    structure: None,
                    secret: false,
                    parts: Vec::new(),
                };
                self.count(1, span)?;
                self.complete(
                    Node {
                        span,
                        value: Value::Scalar(scalar),
                    },
                    anchor,
                    1,
                )
            }
            Event::SequenceStart(anchor, _tag) => self.start(anchor, span, OpenKind::List(Vec::new())),
            Event::MappingStart(anchor, _tag) => self.start(anchor, span, OpenKind::Map(Vec::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                let value = match open.kind {
                    OpenKind::List(list) => Value::List(list),
                    OpenKind::Map(entries, _) => Value::Map(merged(entries)?),
                };
                let nodes = self.nodes - open.nodes_before;
                self.complete(Node { span: open.span, value }, open.anchor, nodes)
            }
            Event::Alias(anchor) => {
                let found = self.anchors.iter().rev().find(|(id, _, _)| *id == anchor);
                let Some((_, node, nodes)) = found else {
                    return Err(Problem::new(span, "an alias of something that is not complete yet"));
                };
                let (node, nodes) = (node.clone(), *nodes);
                self.count(nodes, span)?;
                self.complete(node, 0, nodes)
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Problem> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(Problem::new(
                span,
                format!("more than {MAX_NODES} values, aliases included"),
            ));
        }
        Ok(())
    }

    fn start(&mut self, anchor: usize, span: Span, kind: OpenKind) -> Result<(), Problem> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Problem::new(span, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let nodes_before = self.nodes;
        self.count(1, span)?;
        self.open.push(Open {
            anchor,
            span,
            nodes_before,
            kind,
        });
        Ok(())
    }

    fn complete(&mut self, node: Node, anchor: usize, nodes: usize) -> Result<(), Problem> {
        // An alias may put a deep node where it becomes too deep; its copies are within the bound on nodes already.
        if self.open.len() + depth(&node) > MAX_DEPTH {
            return Err(Problem::new(
                node.span,
                format!("nested deeper than {MAX_DEPTH} levels"),
            ));
        }
        if anchor > 0 {
            self.anchors.push((anchor, node.clone(), nodes));
        }
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(node),
            Some(OpenKind::List(list)) => list.push(node),
            Some(OpenKind::Map(entries, key)) => match key.take() {
                Some((name, key_span)) => {
                    if name != "<<"
                        && let Some(first) = entries.iter().find(|entry| entry.key == name)
                    {
                        let message = format!("`{name}` is set twice; the first time in line {}", first.key_span.line);
                        return Err(Problem::new(key_span, message));
                    }
                    entries.push(Entry {
                        key: name,
                        key_span,
                        value: node,
                    });
                }
                None => match node.value {
                    Value::Scalar(scalar) => *key = Some((scalar.text, node.span)),
                    Value::List(_) | Value::Map(_) => {
                        return Err(Problem::new(node.span, "a key must be a plain text"));
                    }
                },
            },
        }
        Ok(())
    }
}

fn depth(node: &Node) -> usize {
    match &node.value {
        Value::Scalar(_) => 0,
        Value::List(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|entry| depth(&entry.value)).max().unwrap_or(0),
    }
}

/// Resolves `<<: *anchor` (YAML 1.1's merge key, which collector files use): entries of the merged maps that are not set here.
fn merged(entries: Vec<Entry>) -> Result<Vec<Entry>, Problem> {
    let (merges, mut own): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(|entry| entry.key == "<<");
    for merge in merges {
        let maps = match merge.value.value {
            Value::List(list) => list,
            Value::Map(_) | Value::Scalar(_) => vec![merge.value],
        };
        for map in maps {
            let Value::Map(entries) = map.value else {
                return Err(Problem::new(merge.key_span, "`<<` merges maps, and this is none"));
            };
            for entry in entries {
                if !own.iter().any(|known| known.key == entry.key) {
                    own.push(entry);
                }
            }
        }
    }
    Ok(own)
}

/// Lays `over` on `base`: maps merge, lists and scalars replace, null deletes.
pub fn overlay(base: Node, over: Node) -> Node {
    match (base, over) {
        (
            Node {
                value: Value::Map(mut entries),
                ..
            },
            Node {
                value: Value::Map(news),
                span,
            },
        ) => {
            for new in news {
                match entries.iter().position(|entry| entry.key == new.key) {
                    Some(at) if new.value.is_null() => drop(entries.remove(at)),
                    Some(at) => {
                        let old = entries.remove(at);
                        let value = overlay(old.value, new.value);
                        entries.insert(
                            at,
                            Entry {
                                key: new.key,
                                key_span: new.key_span,
                                value,
                            },
                        );
                    }
                    None => entries.push(new),
                }
            }
            Node {
                span,
                value: Value::Map(entries),
            }
        }
        (_, over) => over,
    }
}
