//! Why: a series is its labels, so the same attributes must give the same labels in every format and from every batch: sorted, each name once, none
//! empty. What resource, scope and point contribute is laid over each other here, in buffers that are used again and again.

use std::ops::Range;

use model::view::metrics::Exemplar;
use model::view::{AnyValue, Attributes, Resource, Scope};

use super::naming::{self, Strategy};
use super::number;

/// What becomes a label, and of what name.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub strategy: Strategy,
    /// Labels of every series, unless an attribute gives one of that name. Names as they are to appear.
    pub external: Vec<(String, String)>,
    /// Whether attributes of the resource become labels of its series.
    pub resource_attributes: bool,
    /// Whether `service.name`, `service.namespace` and `service.instance.id`, which are `job` and `instance`, are left out of them.
    pub exclude_service_attributes: bool,
    /// Whether series tell their scope (`otel_scope_name`, …).
    pub scope: bool,
}

/// Who wins over a name, from strongest to weakest; attributes of one name are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    /// `job`, `instance` and the scope's labels.
    Identity,
    Resource,
    Point,
    External,
}

/// One label, as stretches of the buffer.
#[derive(Debug, Clone)]
struct Label {
    layer: Layer,
    /// The attribute's own name.
    key: Range<usize>,
    name: Range<usize>,
    value: Range<usize>,
}

/// The labels of one series after the other.
#[derive(Debug, Default)]
pub struct Labels {
    options: Options,
    text: String,
    /// Where the resource's text ends and the scope's begins, and where that ends and a point's begins.
    scope_at: usize,
    point_at: usize,
    /// How many of `base` are the resource's.
    resource_labels: usize,
    /// Of resource, scope and configuration; the part that is sorted is in `sorted`.
    base: Vec<Label>,
    sorted: Vec<Label>,
    point: Vec<Label>,
    merged: Vec<Label>,
    /// The keys of the last point, and where their labels are in `merged`. They hold until resource or scope change.
    keys: Vec<(Range<usize>, usize)>,
    has_keys: bool,
    /// Where the keys' text ends and the values' begins.
    values_at: usize,
    has_job: bool,
}

/// What an exemplar's labels may have together; longer ones are refused (OpenMetrics 1.0, "Exemplars").
const MAX_EXEMPLAR_CHARS: usize = 128;

const SERVICE: [&str; 3] = ["service.name", "service.namespace", "service.instance.id"];

impl Labels {
    pub fn new(options: Options) -> Labels {
        let mut labels = Labels {
            options,
            ..Labels::default()
        };
        labels.begin();
        labels
    }

    fn begin(&mut self) {
        self.text.clear();
        self.base.clear();
        for (name, value) in &self.options.external {
            let label = place(&mut self.text, Layer::External, "", name, value);
            self.base.push(label);
        }
    }

    /// What follows is of this resource.
    pub fn resource(&mut self, resource: &Resource<'_>) {
        self.begin();
        let (mut name, mut namespace, mut instance) = (None, None, None);
        for pair in resource.attributes.iter() {
            match pair.key {
                "service.name" => name = Some(pair.value),
                "service.namespace" => namespace = Some(pair.value),
                "service.instance.id" => instance = Some(pair.value),
                _ => {}
            }
            let is_service = SERVICE.contains(&pair.key);
            if self.options.resource_attributes && !(is_service && self.options.exclude_service_attributes) {
                let label = attribute(
                    &mut self.text,
                    self.options.strategy,
                    Layer::Resource,
                    pair.key,
                    &pair.value,
                );
                self.base.push(label);
            }
        }
        self.has_job = name.is_some() || instance.is_some();
        if let Some(name) = name {
            let label = build(&mut self.text, Layer::Identity, "job", |text| {
                if let Some(namespace) = namespace {
                    write_value(text, &namespace);
                    text.push('/');
                }
                write_value(text, &name);
            });
            self.base.push(label);
        }
        if let Some(instance) = instance {
            let label = build(&mut self.text, Layer::Identity, "instance", |text| {
                write_value(text, &instance)
            });
            self.base.push(label);
        }
        self.scope_at = self.text.len();
        self.resource_labels = self.base.len();
        self.sort_base();
    }

    /// What follows is of this scope of the resource.
    pub fn scope(&mut self, scope: &Scope<'_>, schema_url: &str) {
        self.text.truncate(self.scope_at);
        self.base.truncate(self.resource_labels);
        if self.options.scope {
            let named = [
                ("otel_scope_name", scope.name),
                ("otel_scope_version", scope.version),
                ("otel_scope_schema_url", schema_url),
            ];
            for (name, value) in named.into_iter().filter(|(_, value)| !value.is_empty()) {
                let label = place(&mut self.text, Layer::Identity, "", name, value);
                self.base.push(label);
            }
            for pair in scope.attributes.iter() {
                let key = self.text.len()..self.text.len() + pair.key.len();
                self.text.push_str(pair.key);
                let start = self.text.len();
                self.text.push_str("otel_scope_");
                label_after_prefix(&mut self.text, self.options.strategy, pair.key);
                let name = start..self.text.len();
                write_value(&mut self.text, &pair.value);
                let value = name.end..self.text.len();
                // Weaker than the scope's own name and version.
                self.base.push(Label {
                    layer: Layer::Resource,
                    key,
                    name,
                    value,
                });
            }
        }
        self.sort_base();
    }

    fn sort_base(&mut self) {
        self.has_keys = false;
        self.point_at = self.text.len();
        self.sorted.clone_from(&self.base);
        self.sorted = merge_equal(&mut self.text, std::mem::take(&mut self.sorted));
        self.point_at = self.text.len();
    }

    /// The labels of a point, until the next call.
    pub fn point(&mut self, attributes: &Attributes<'_>) -> Pairs<'_> {
        if !self.same_keys(attributes) {
            self.other_keys(attributes);
        }
        Pairs {
            text: &self.text,
            labels: &self.merged,
        }
    }

    /// Points of one metric, and of most, have the same keys in the same order: only the values are new then. `false` if these are others.
    fn same_keys(&mut self, attributes: &Attributes<'_>) -> bool {
        if !self.has_keys {
            return false;
        }
        self.text.truncate(self.values_at);
        let mut keys = self.keys.iter();
        for pair in attributes.iter() {
            let Some((_, slot)) = keys.next().filter(|(key, _)| self.text[key.clone()] == *pair.key) else {
                return false;
            };
            let start = self.text.len();
            write_value(&mut self.text, &pair.value);
            self.merged[*slot].value = start..self.text.len();
        }
        keys.next().is_none()
    }

    fn other_keys(&mut self, attributes: &Attributes<'_>) {
        self.text.truncate(self.point_at);
        self.point.clear();
        self.keys.clear();
        for pair in attributes.iter() {
            let start = self.text.len();
            self.text.push_str(pair.key);
            let key = start..self.text.len();
            naming::label(&mut self.text, self.options.strategy, pair.key);
            let name = key.end..self.text.len();
            self.keys.push((key.clone(), 0));
            self.point.push(Label {
                layer: Layer::Point,
                key,
                name,
                value: 0..0,
            });
        }
        self.values_at = self.text.len();
        for (label, pair) in self.point.iter_mut().zip(attributes.iter()) {
            let start = self.text.len();
            write_value(&mut self.text, &pair.value);
            label.value = start..self.text.len();
        }
        self.merged.clear();
        let (text, merged) = (&self.text, &mut self.merged);
        merged.extend(self.sorted.iter().chain(&self.point).cloned());
        sort(text, merged);
        let collides = merged
            .windows(2)
            .any(|two| text[two[0].name.clone()] == text[two[1].name.clone()]);
        if collides {
            self.merged = merge_equal(&mut self.text, std::mem::take(&mut self.merged));
        }
        self.has_keys = !collides;
        for (slot, label) in self.merged.iter().enumerate().filter(|_| !collides) {
            if label.layer == Layer::Point
                && let Ok(at) = self.keys.binary_search_by_key(&label.key.start, |(key, _)| key.start)
            {
                self.keys[at].1 = slot;
            }
        }
    }

    /// The labels of an exemplar: its ids, and its attributes where all of them fit.
    pub fn exemplar(&mut self, exemplar: &Exemplar<'_>) -> Pairs<'_> {
        self.text.clear();
        self.merged.clear();
        if let Some(id) = exemplar.span_id {
            self.merged
                .push(build(&mut self.text, Layer::Identity, "span_id", |text| {
                    hex(text, &id.0)
                }));
        }
        if let Some(id) = exemplar.trace_id {
            self.merged
                .push(build(&mut self.text, Layer::Identity, "trace_id", |text| {
                    hex(text, &id.0)
                }));
        }
        let ids = self.merged.len();
        for pair in exemplar.filtered_attributes.iter() {
            let label = attribute(
                &mut self.text,
                self.options.strategy,
                Layer::Point,
                pair.key,
                &pair.value,
            );
            self.merged.push(label);
        }
        if self.merged.len() > ids {
            let whole = merge_equal(&mut self.text, self.merged.clone());
            let size = |label: &Label| {
                self.text[label.name.clone()].chars().count() + self.text[label.value.clone()].chars().count()
            };
            if whole.iter().map(size).sum::<usize>() <= MAX_EXEMPLAR_CHARS {
                self.merged = whole;
            } else {
                self.merged.truncate(ids);
            }
        }
        Pairs {
            text: &self.text,
            labels: &self.merged,
        }
    }

    /// The labels of `target_info`: what the resource has beyond `job` and `instance`; `None` where that is nothing, or where nobody could join on it.
    pub fn target(&mut self, resource: &Resource<'_>) -> Option<Pairs<'_>> {
        if !self.has_job || !resource.attributes.iter().any(|pair| !SERVICE.contains(&pair.key)) {
            return None;
        }
        self.has_keys = false;
        self.text.truncate(self.point_at);
        self.merged.clear();
        for pair in resource.attributes.iter().filter(|pair| !SERVICE.contains(&pair.key)) {
            let label = attribute(
                &mut self.text,
                self.options.strategy,
                Layer::Point,
                pair.key,
                &pair.value,
            );
            self.merged.push(label);
        }
        let inherited = &self.base[..self.resource_labels];
        self.merged
            .extend(inherited.iter().filter(|label| label.layer != Layer::Resource).cloned());
        self.merged = merge_equal(&mut self.text, std::mem::take(&mut self.merged));
        Some(Pairs {
            text: &self.text,
            labels: &self.merged,
        })
    }
}

/// Sorted labels, each name once.
#[derive(Clone, Copy)]
pub struct Pairs<'a> {
    text: &'a str,
    labels: &'a [Label],
}

impl<'a> Pairs<'a> {
    /// Names and values. A label without a value is no label, as Prometheus sees it.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let text = self.text;
        let pairs = self
            .labels
            .iter()
            .map(move |label| (&text[label.name.clone()], &text[label.value.clone()]));
        pairs.filter(|(_, value)| !value.is_empty())
    }
}

fn place(text: &mut String, layer: Layer, key: &str, name: &str, value: &str) -> Label {
    let start = text.len();
    text.push_str(key);
    let key = start..text.len();
    let mut label = build(text, layer, name, |text| text.push_str(value));
    label.key = key;
    label
}

fn build(text: &mut String, layer: Layer, name: &str, value: impl FnOnce(&mut String)) -> Label {
    let start = text.len();
    text.push_str(name);
    let name = start..text.len();
    value(text);
    Label {
        layer,
        key: start..start,
        value: name.end..text.len(),
        name,
    }
}

fn attribute(text: &mut String, strategy: Strategy, layer: Layer, key: &str, value: &AnyValue<'_>) -> Label {
    let start = text.len();
    text.push_str(key);
    let key_range = start..text.len();
    naming::label(text, strategy, key);
    let name = key_range.end..text.len();
    write_value(text, value);
    Label {
        layer,
        key: key_range,
        value: name.end..text.len(),
        name,
    }
}

/// As [`naming::label`] behind a prefix, where the first character may be anything.
fn label_after_prefix(text: &mut String, strategy: Strategy, key: &str) {
    let start = text.len();
    naming::label(text, strategy, key);
    if !key.starts_with("key_") && text[start..].starts_with("key_") {
        text.replace_range(start..start + "key_".len(), "");
    }
}

fn sort(text: &str, labels: &mut [Label]) {
    labels.sort_unstable_by(|a, b| text[a.name.clone()].cmp(&text[b.name.clone()]));
}

fn hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// Sorts, and leaves of each name one: the strongest layer's; attributes whose names became the same are joined by `;` in the order of their own names.
fn merge_equal(text: &mut String, mut labels: Vec<Label>) -> Vec<Label> {
    labels.sort_by(|a, b| {
        let of = |label: &Label| (&text[label.name.clone()], &text[label.key.clone()]);
        let attributes = |label: &Label| matches!(label.layer, Layer::Resource | Layer::Point);
        of(a).0.cmp(of(b).0).then_with(|| match (attributes(a), attributes(b)) {
            (true, true) => of(a).1.cmp(of(b).1).then(a.layer.cmp(&b.layer)),
            _ => a.layer.cmp(&b.layer),
        })
    });
    let mut at = 0;
    let mut kept = 0;
    while at < labels.len() {
        let mut end = at + 1;
        while end < labels.len() && text[labels[end].name.clone()] == text[labels[at].name.clone()] {
            end += 1;
        }
        let mut label = labels[at].clone();
        if matches!(label.layer, Layer::Resource | Layer::Point) {
            let mut joined: Option<Range<usize>> = None;
            for i in at + 1..end {
                let other = labels[i].clone();
                // The same attribute of the resource and of the point: the resource's goes first and counts.
                if other.layer == Layer::External || text[other.key.clone()] == text[labels[i - 1].key.clone()] {
                    continue;
                }
                let from = joined.take().unwrap_or_else(|| {
                    let start = text.len();
                    again(text, label.value.clone());
                    start..text.len()
                });
                text.push(';');
                again(text, other.value.clone());
                joined = Some(from.start..text.len());
            }
            if let Some(joined) = joined {
                label.value = joined;
            }
        }
        labels[kept] = label;
        kept += 1;
        at = end;
    }
    labels.truncate(kept);
    labels
}

/// Appends what a stretch of the same text holds. It happens only where two names became one.
fn again(text: &mut String, range: Range<usize>) {
    let copy = text[range].to_owned();
    text.push_str(&copy);
}

/// Appends an attribute's value as the text of a label: text as it is, lists and maps as JSON, bytes in base64.
pub fn write_value(out: &mut String, value: &AnyValue<'_>) {
    match value {
        AnyValue::Empty => {}
        AnyValue::Str(text) => out.push_str(text),
        AnyValue::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        AnyValue::Int(value) => number::integer(out, *value),
        AnyValue::Double(value) => write_double(out, *value),
        AnyValue::Bytes(bytes) => out.push_str(&model::base64::encode(bytes)),
        AnyValue::Array(_) | AnyValue::KvList(_) => write_json(out, value),
    }
}

fn write_double(out: &mut String, value: f64) {
    use std::fmt::Write;
    let size = value.abs();
    // Writing to a string does not fail.
    let _ = if value.is_nan() {
        out.write_str("NaN")
    } else if value.is_infinite() {
        out.write_str(if value > 0.0 { "+Inf" } else { "-Inf" })
    } else if size != 0.0 && !(1e-6..1e21).contains(&size) {
        write!(out, "{value:e}")
    } else {
        write!(out, "{value}")
    };
}

fn write_json(out: &mut String, value: &AnyValue<'_>) {
    match value {
        AnyValue::Empty => out.push_str("null"),
        AnyValue::Array(values) => {
            out.push('[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_json(out, &value);
            }
            out.push(']');
        }
        AnyValue::KvList(pairs) => {
            out.push('{');
            for (index, pair) in pairs.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_json_text(out, pair.key);
                out.push(':');
                write_json(out, &pair.value);
            }
            out.push('}');
        }
        AnyValue::Str(text) => write_json_text(out, text),
        AnyValue::Bytes(bytes) => write_json_text(out, &model::base64::encode(bytes)),
        AnyValue::Double(value) if !value.is_finite() => {
            out.push('"');
            write_double(out, *value);
            out.push('"');
        }
        AnyValue::Bool(_) | AnyValue::Int(_) | AnyValue::Double(_) => write_value(out, value),
    }
}

fn write_json_text(out: &mut String, text: &str) {
    // A text always has JSON.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}
