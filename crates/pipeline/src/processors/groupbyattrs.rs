//! Why: some senders put on each record what belongs to all of them. Records that have the same values of the named attributes are put together under a resource that has
//! them; and what has the same resource and the same scope stands together, which is less to send.
//!
//! ```yaml
//! processors:
//!   groupbyattrs: { keys: [host.name, k8s.pod.name] }
//! ```
//!
//! An attribute that is moved takes the place of the resource's own of that key. A record that has none of the attributes stays under its resource. Without `keys` nothing is
//! moved, and only what stands apart is put together. It works within a batch, so it is worth most where batches are large. Where moving would make a batch larger than twice its
//! size and 64 MiB, it goes on as it is, and that is counted as a fault.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use model::edit::message::{key_of, map_fields};
use model::wire::{self, Fields, Payload, put_bytes, put_tag, put_varint, varint_len};
use model::{Batch, Signal};
use serde::Deserialize;

use super::Step;
use super::points::Kind;
use crate::ack::Outcome;
use crate::component::Processor;
use crate::config::{Problems, Section};
use crate::ledger::StepBook;

/// By how much a batch may grow beyond twice its size.
const MAX_GROWTH_BYTES: usize = 64 << 20;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Attributes of spans, log records and data points that belong to their resource. Default none: records are only put together.
    pub keys: Vec<String>,
}

pub fn parse(section: &Section<'_>) -> Result<Step, Problems> {
    let mut config: Config = section.parse()?;
    if let Some(empty) = config.keys.iter().position(String::is_empty) {
        return Err(section.problem(&["keys", &empty.to_string()], "an attribute's key is not empty"));
    }
    let mut known = std::collections::HashSet::new();
    config.keys.retain(|key| known.insert(key.clone()));
    Ok(Step::InRequest(Arc::new(Grouper {
        keys: config.keys,
        book: StepBook::new(section.component.id.as_str()),
    })))
}

struct Grouper {
    keys: Vec<String>,
    book: Arc<StepBook>,
}

impl Processor for Grouper {
    fn process(&self, batch: Batch) -> Result<Batch, Outcome> {
        // A reference to the same bytes: the batch may go on as it is.
        let payload = batch.payload.bytes();
        let mut grouping = Grouping {
            keys: &self.keys,
            max_bytes: batch.payload.len().saturating_mul(2).saturating_add(MAX_GROWTH_BYTES),
            bytes: 0,
            resources: Vec::new(),
            by_resource: HashMap::default(),
            is_changed: false,
        };
        if grouping.read(batch.signal, &payload).is_none() {
            self.book.fault(batch.signal);
            return Ok(batch);
        }
        if !grouping.is_changed {
            return Ok(batch);
        }
        let mut grouped = Vec::with_capacity(payload.len());
        grouping.put(&mut grouped);
        Ok(batch.edited(grouped, batch.items))
    }

    fn book(&self) -> Option<&Arc<StepBook>> {
        Some(&self.book)
    }
}

/// What a batch holds, put together.
struct Grouping<'a> {
    keys: &'a [String],
    /// More than this is not written.
    max_bytes: usize,
    /// What will be written, or a little less.
    bytes: usize,
    resources: Vec<ResourceOut<'a>>,
    /// By what tells resources apart.
    by_resource: HashMap<Vec<u8>, usize, RandomState>,
    /// Whether anything stands elsewhere than before.
    is_changed: bool,
}

struct ResourceOut<'a> {
    /// The encoded message, if there is one.
    resource: Option<Vec<u8>>,
    schema_url: &'a [u8],
    scopes: Vec<ScopeOut<'a>>,
    by_scope: HashMap<(&'a [u8], &'a [u8]), usize, RandomState>,
}

struct ScopeOut<'a> {
    scope: Option<&'a [u8]>,
    schema_url: &'a [u8],
    items: Vec<Item<'a>>,
    /// Metrics by what they are but their points.
    by_metric: HashMap<Vec<u8>, usize, RandomState>,
}

enum Item<'a> {
    Same(&'a [u8]),
    Changed(Vec<u8>),
    Metric(Metric<'a>),
}

/// A metric in parts: around its data, in its data around the points, and the points.
struct Metric<'a> {
    head: Vec<u8>,
    kind: u32,
    data: Vec<u8>,
    points: Vec<Item<'a>>,
}

/// A group of a resource or scope: its owner, the groups or items in it, and its schema URL.
fn parts(group: &[u8]) -> (Option<&[u8]>, impl Iterator<Item = &[u8]>, &[u8]) {
    let (mut owner, mut schema_url) = (None, &[][..]);
    for (number, payload) in Fields::new(group) {
        match number {
            1 => owner = Some(payload.bytes()),
            3 => schema_url = payload.bytes(),
            _ => {}
        }
    }
    let inner = Fields::new(group).filter(|(number, _)| *number == 2);
    (owner, inner.map(|(_, payload)| payload.bytes()), schema_url)
}

impl<'a> Grouping<'a> {
    /// `None` if it would become too large.
    fn read(&mut self, signal: Signal, payload: &'a [u8]) -> Option<()> {
        for (number, group) in Fields::new(payload) {
            let (resource, scopes, schema_url) = parts(group.bytes());
            if number != 1 {
                continue;
            }
            // Where records of this resource go, by the attributes that are moved; without any it is the resource itself.
            let mut targets: HashMap<Vec<u8>, usize, RandomState> = HashMap::default();
            let known = self.resources.len();
            let own = self.resource(resource, &[], schema_url)?;
            self.is_changed |= own < known;
            targets.insert(Vec::new(), own);
            let mut moved = Vec::new();
            for scope in scopes {
                let (owner, items, scope_url) = parts(scope);
                let (_, is_new) = self.scope(own, owner, scope_url);
                self.is_changed |= !is_new;
                for item in items {
                    let mut at = |grouping: &mut Self, attributes: u32, item: &'a [u8]| {
                        moved.clear();
                        let item = grouping.take_out(attributes, item, &mut moved);
                        let resource_at = match targets.get(&moved) {
                            Some(at) => *at,
                            None => {
                                let at = grouping.resource(resource, &moved, schema_url)?;
                                targets.insert(moved.clone(), at);
                                at
                            }
                        };
                        let (scope_at, _) = grouping.scope(resource_at, owner, scope_url);
                        Some((resource_at, scope_at, item))
                    };
                    match signal {
                        Signal::Traces | Signal::Logs => {
                            let attributes = if signal == Signal::Traces { 9 } else { 6 };
                            let (resource, scope, item) = at(self, attributes, item)?;
                            self.resources[resource].scopes[scope].items.push(item);
                        }
                        Signal::Metrics => {
                            let Some((kind, data)) = data_of(item) else {
                                let (scope, _) = self.scope(own, owner, scope_url);
                                self.resources[own].scopes[scope].items.push(Item::Same(item));
                                continue;
                            };
                            let empty = Metric::without_points(item, kind, data);
                            let points = Fields::new(data).filter(|(number, _)| *number == 1);
                            let mut points = points.map(|(_, point)| point.bytes()).peekable();
                            if points.peek().is_none() {
                                let (scope, _) = self.scope(own, owner, scope_url);
                                self.resources[own].scopes[scope].items.push(Item::Same(item));
                                continue;
                            }
                            let mut last = None;
                            for point in points {
                                let attributes = Kind::from_field(kind).map_or(7, Kind::attributes);
                                let (resource, scope, point) = at(self, attributes, point)?;
                                let begins = last != Some((resource, scope));
                                last = Some((resource, scope));
                                self.metric(resource, scope, &empty, begins)?.push(point);
                            }
                        }
                    }
                    self.bytes += item.len();
                    if self.bytes > self.max_bytes {
                        return None;
                    }
                }
            }
        }
        Some(())
    }

    /// Where a resource stands, after these encoded pairs have taken the place of its own.
    fn resource(&mut self, resource: Option<&[u8]>, moved: &[u8], schema_url: &'a [u8]) -> Option<usize> {
        let taken: Vec<&[u8]> = Fields::new(moved).map(|(_, pair)| key_of(pair.bytes())).collect();
        let mut message = resource.map(<[u8]>::to_vec);
        if !moved.is_empty() {
            let mut changed = Vec::new();
            map_fields(resource.unwrap_or_default(), &mut changed, |number, pair, _| {
                number == 1 && taken.contains(&key_of(pair.bytes()))
            });
            changed.extend_from_slice(moved);
            message = Some(changed);
        }
        // Resources are the same whatever the order of their attributes.
        let fields = Fields::new(message.as_deref().unwrap_or_default());
        let mut pairs: Vec<&[u8]> = fields
            .filter(|(number, _)| *number == 1)
            .map(|(_, pair)| pair.bytes())
            .collect();
        pairs.sort_unstable();
        let mut key = Vec::new();
        put_bytes(&mut key, 3, schema_url);
        pairs.iter().for_each(|pair| put_bytes(&mut key, 1, pair));
        if let Some(at) = self.by_resource.get(&key) {
            return Some(*at);
        }
        self.bytes += key.len();
        if self.bytes > self.max_bytes {
            return None;
        }
        let at = self.resources.len();
        self.by_resource.insert(key, at);
        self.resources.push(ResourceOut {
            resource: message,
            schema_url,
            scopes: Vec::new(),
            by_scope: HashMap::default(),
        });
        Some(at)
    }

    /// Where a scope stands in a resource, and whether it was not there before.
    fn scope(&mut self, resource: usize, scope: Option<&'a [u8]>, schema_url: &'a [u8]) -> (usize, bool) {
        let out = &mut self.resources[resource];
        let at = out.scopes.len();
        let key = (scope.unwrap_or_default(), schema_url);
        if let Some(at) = out.by_scope.get(&key) {
            return (*at, false);
        }
        out.by_scope.insert(key, at);
        self.bytes += key.0.len() + schema_url.len();
        out.scopes.push(ScopeOut {
            scope,
            schema_url,
            items: Vec::new(),
            by_metric: HashMap::default(),
        });
        (at, true)
    }

    /// The points of a metric in a scope. `begins` says that they are the first there of a metric that was read: it may be that another was there before.
    fn metric(
        &mut self,
        resource: usize,
        scope: usize,
        empty: &Metric<'a>,
        begins: bool,
    ) -> Option<&mut Vec<Item<'a>>> {
        let out = &mut self.resources[resource].scopes[scope];
        let mut key = empty.head.clone();
        put_bytes(&mut key, empty.kind, &empty.data);
        let at = match out.by_metric.get(&key) {
            Some(at) => {
                self.is_changed |= begins;
                *at
            }
            None => {
                let at = out.items.len();
                self.bytes += key.len();
                if self.bytes > self.max_bytes {
                    return None;
                }
                out.by_metric.insert(key, at);
                out.items.push(Item::Metric(Metric {
                    head: empty.head.clone(),
                    data: empty.data.clone(),
                    points: Vec::new(),
                    ..*empty
                }));
                at
            }
        };
        match &mut out.items[at] {
            Item::Metric(metric) => Some(&mut metric.points),
            Item::Same(_) | Item::Changed(_) => None,
        }
    }

    /// Takes the attributes that are moved out of an item, into `moved` as fields of a resource, in the order of the keys.
    fn take_out(&mut self, attributes: u32, item: &'a [u8], moved: &mut Vec<u8>) -> Item<'a> {
        if self.keys.is_empty() {
            return Item::Same(item);
        }
        let mut found: Vec<(usize, &[u8])> = Vec::new();
        for (number, pair) in Fields::new(item) {
            if number == attributes
                && let Some(at) = self.keys.iter().position(|key| key.as_bytes() == key_of(pair.bytes()))
            {
                found.push((at, pair.bytes()));
            }
        }
        if found.is_empty() {
            return Item::Same(item);
        }
        self.is_changed = true;
        found.sort_by_key(|(at, _)| *at);
        found.iter().for_each(|(_, pair)| put_bytes(moved, 1, pair));
        let mut changed = Vec::with_capacity(item.len());
        map_fields(item, &mut changed, |number, pair, _| {
            number == attributes && self.keys.iter().any(|key| key.as_bytes() == key_of(pair.bytes()))
        });
        Item::Changed(changed)
    }

    fn put(&self, out: &mut Vec<u8>) {
        for resource in &self.resources {
            // What lost all its records to other resources goes with the last.
            if !resource.scopes.is_empty() && resource.scopes.iter().all(|scope| scope.items.is_empty()) {
                continue;
            }
            let mut group = Vec::new();
            if let Some(message) = &resource.resource {
                put_bytes(&mut group, 1, message);
            }
            for scope in resource.scopes.iter().filter(|scope| !scope.items.is_empty()) {
                put_tag(&mut group, 2, wire::BYTES);
                put_varint(&mut group, scope.len() as u64);
                scope.put(&mut group);
            }
            put_url(&mut group, resource.schema_url);
            put_bytes(out, 1, &group);
        }
    }
}

fn put_url(out: &mut Vec<u8>, schema_url: &[u8]) {
    if !schema_url.is_empty() {
        put_bytes(out, 3, schema_url);
    }
}

/// What a field of one byte as its tag takes.
fn field_len(body: usize) -> usize {
    1 + varint_len(body as u64) + body
}

impl ScopeOut<'_> {
    fn len(&self) -> usize {
        let scope = self.scope.map_or(0, |scope| field_len(scope.len()));
        let url = if self.schema_url.is_empty() {
            0
        } else {
            field_len(self.schema_url.len())
        };
        scope + url + self.items.iter().map(|item| field_len(item.len())).sum::<usize>()
    }

    fn put(&self, out: &mut Vec<u8>) {
        if let Some(scope) = self.scope {
            put_bytes(out, 1, scope);
        }
        self.items.iter().for_each(|item| item.put(out, 2));
        put_url(out, self.schema_url);
    }
}

impl Item<'_> {
    fn len(&self) -> usize {
        match self {
            Item::Same(bytes) => bytes.len(),
            Item::Changed(bytes) => bytes.len(),
            Item::Metric(metric) => metric.head.len() + field_len(metric.data_len()),
        }
    }

    /// Writes it as a field.
    fn put(&self, out: &mut Vec<u8>, number: u32) {
        match self {
            Item::Same(bytes) => put_bytes(out, number, bytes),
            Item::Changed(bytes) => put_bytes(out, number, bytes),
            Item::Metric(metric) => {
                put_tag(out, number, wire::BYTES);
                put_varint(out, self.len() as u64);
                out.extend_from_slice(&metric.head);
                put_tag(out, metric.kind, wire::BYTES);
                put_varint(out, metric.data_len() as u64);
                metric.points.iter().for_each(|point| point.put(out, 1));
                out.extend_from_slice(&metric.data);
            }
        }
    }
}

/// The data of a metric, if it is of a kind that has points.
fn data_of(metric: &[u8]) -> Option<(u32, &[u8])> {
    let found = Fields::new(metric).find(|(number, _)| matches!(number, 5 | 7 | 9 | 10 | 11));
    found.map(|(number, data)| (number, data.bytes()))
}

impl<'a> Metric<'a> {
    fn without_points(metric: &'a [u8], kind: u32, data: &'a [u8]) -> Metric<'a> {
        let (mut head, mut rest) = (Vec::new(), Vec::new());
        map_fields(metric, &mut head, |number, _, _| number == kind);
        map_fields(data, &mut rest, |number, payload, _| {
            number == 1 && matches!(payload, Payload::Bytes(_))
        });
        Metric {
            head,
            kind,
            data: rest,
            points: Vec::new(),
        }
    }

    fn data_len(&self) -> usize {
        self.data.len() + self.points.iter().map(|point| field_len(point.len())).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::processors::streams::testing::metrics_of;
    use crate::testing::{attributes_of, logs, metrics, pairs, processor, spans, traces, try_processor};

    type Plain = Vec<(String, String)>;
    /// Resource, scope, name, attributes.
    type Row = (Plain, String, String, Plain);

    /// Spans with up to two of the attributes `a`, `b` and `c`, of a few resources and scopes.
    #[derive(Debug, Clone)]
    struct Case(Vec<(u8, u8, Vec<Attributes>)>);

    /// The values of `c`, `a` and `b`.
    type Attributes = (u8, Option<u8>, Option<u8>);

    fn cases() -> impl Strategy<Value = Case> {
        let span = (0u8..3, prop::option::of(0u8..3), prop::option::of(0u8..2));
        let group = (0u8..3, 0u8..2, prop::collection::vec(span, 1..4));
        prop::collection::vec(group, 0..6).prop_map(Case)
    }

    impl Case {
        fn batch(&self) -> Batch {
            let mut nth = 0;
            let groups = self.0.iter().map(|(resource, scope, list)| {
                let resource = resource.to_string();
                // The order of attributes is nothing that tells resources apart.
                let mut own = vec![("service.name", resource.as_str()), ("a", "own")];
                if nth % 2 == 0 {
                    own.reverse();
                }
                let spans = list.iter().map(|(c, a, b)| {
                    nth += 1;
                    let (a, b, c) = (a.map(|a| a.to_string()), b.map(|b| b.to_string()), c.to_string());
                    let mut attributes = vec![("c", c.as_str())];
                    attributes.extend(b.as_deref().map(|b| ("b", b)));
                    attributes.extend(a.as_deref().map(|a| ("a", a)));
                    Span {
                        trace_id: vec![7; 16],
                        span_id: vec![8; 8],
                        name: nth.to_string(),
                        attributes: pairs(&attributes),
                        ..Span::default()
                    }
                });
                ResourceSpans {
                    scope_spans: vec![ScopeSpans {
                        spans: spans.collect(),
                        scope: Some(InstrumentationScope {
                            name: scope.to_string(),
                            ..InstrumentationScope::default()
                        }),
                        ..ScopeSpans::default()
                    }],
                    resource: Some(Resource {
                        attributes: pairs(&own),
                        ..Resource::default()
                    }),
                    ..ResourceSpans::default()
                }
            });
            let request = ExportTraceServiceRequest {
                resource_spans: groups.collect(),
            };
            spans([]).edited(request.encode_to_vec(), nth)
        }
    }

    fn rows(batch: &Batch) -> BTreeSet<Row> {
        let mut rows = BTreeSet::new();
        for group in traces(batch).resource_spans {
            let resource = attributes_of(&group.resource.unwrap_or_default().attributes);
            for scope in group.scope_spans {
                let name = scope.scope.unwrap_or_default().name;
                for span in scope.spans {
                    rows.insert((
                        resource.clone(),
                        name.clone(),
                        span.name,
                        attributes_of(&span.attributes),
                    ));
                }
            }
        }
        rows
    }

    proptest! {
        /// Each span is where a model puts it, and no resource and no scope in it stands twice.
        #[test]
        fn each_record_stands_where_its_attributes_say(case in cases(), with_keys: bool) {
            let keys: &[&str] = if with_keys { &["a", "b"] } else { &[] };
            let batch = case.batch();
            let grouped = processor(parse, &format!("{{ keys: [{}] }}", keys.join(", "))).process(batch.clone()).expect("no fault");
            let expect: BTreeSet<Row> = rows(&batch).into_iter().map(|(resource, scope, name, attributes)| {
                let mut resource: BTreeMap<String, String> = resource.into_iter().collect();
                let (moved, kept): (Plain, Plain) = attributes.into_iter().partition(|(key, _)| keys.contains(&key.as_str()));
                resource.extend(moved);
                (resource.into_iter().collect(), scope, name, kept)
            }).collect();
            prop_assert_eq!(rows(&grouped), expect);
            prop_assert_eq!(grouped.items, batch.items);
            let mut known = BTreeSet::new();
            for group in traces(&grouped).resource_spans {
                let resource = attributes_of(&group.resource.unwrap_or_default().attributes);
                for scope in &group.scope_spans {
                    prop_assert!(!scope.spans.is_empty());
                    let scope = scope.scope.clone().unwrap_or_default().name;
                    prop_assert!(known.insert((resource.clone(), scope)));
                }
            }
            let canonical = model::canonical::canonicalize(Signal::Traces, grouped.payload.bytes()).expect("is legal");
            prop_assert!(!canonical.rewritten);
            prop_assert_eq!(canonical.items, grouped.items);
        }

        #[test]
        fn no_bytes_break_it(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            for signal in Signal::ALL {
                let batch = Batch { signal, ..spans([]).edited(payload.clone(), 1) };
                let _ = processor(parse, "{ keys: [a] }").process(batch);
            }
        }
    }

    #[test]
    fn points_are_put_together_by_metric() {
        let grouped = processor(parse, "{ keys: [path] }")
            .process(metrics())
            .expect("no fault");
        let names: Vec<(String, usize)> = metrics_of(&grouped)
            .iter()
            .map(|metric| {
                let points = match metric.data.as_ref().expect("data") {
                    Data::Sum(sum) => {
                        assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
                        assert!(sum.data_points[0].attributes.is_empty());
                        sum.data_points.len()
                    }
                    Data::Gauge(gauge) => gauge.data_points.len(),
                    other => panic!("{other:?}"),
                };
                (metric.name.clone(), points)
            })
            .collect();
        assert_eq!(
            names,
            [
                ("requests".to_owned(), 1),
                ("requests".to_owned(), 1),
                ("load".to_owned(), 1)
            ]
        );
        assert_eq!(grouped.items, 3);
        // The same request twice in a batch is put together.
        let twice = model::edit::concat(&[metrics(), metrics()]).expect("of one kind");
        let grouped = processor(parse, "{}").process(twice).expect("no fault");
        let points = metrics_of(&grouped)
            .into_iter()
            .map(|metric| model::edit::inner::Inner::Points.count(&metric.encode_to_vec()));
        assert_eq!(points.collect::<Vec<_>>(), [4, 2]);
        let canonical = model::canonical::canonicalize(Signal::Metrics, grouped.payload.bytes()).expect("is legal");
        assert!(!canonical.rewritten && canonical.items == 6);
    }

    #[test]
    fn what_stands_together_already_goes_on_as_it_came() {
        for batch in [logs(), metrics(), spans(0..3)] {
            let same = processor(parse, "{ keys: [nothing] }")
                .process(batch.clone())
                .expect("no fault");
            assert_eq!(same.payload.as_ptr(), batch.payload.as_ptr());
        }
        let grouped = processor(parse, "{ keys: [code] }").process(logs()).expect("no fault");
        let request =
            opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest::decode(grouped.payload.bytes())
                .expect("a request");
        assert_eq!(request.resource_logs.len(), 2);
    }

    #[test]
    fn a_resource_is_not_copied_without_bound() {
        let big = "x".repeat(1 << 20);
        let mut request = traces(&spans(0..200));
        request.resource_spans[0].resource = Some(Resource {
            attributes: pairs(&[("big", &big)]),
            ..Resource::default()
        });
        for (nth, span) in request.resource_spans[0].scope_spans[0].spans.iter_mut().enumerate() {
            span.attributes = pairs(&[("a", &nth.to_string())]);
        }
        let batch = spans([]).edited(request.encode_to_vec(), 200);
        let grouper = processor(parse, "{ keys: [a] }");
        let same = grouper.process(batch.clone()).expect("goes on");
        assert_eq!(same.payload, batch.payload);
        assert_eq!(grouper.book().expect("has a book").faults(Signal::Traces), 1);
    }

    #[test]
    fn keys_have_names() {
        let problems = try_processor(parse, "{ keys: [a, ''] }").err().expect("is refused");
        assert_eq!(problems.list[0].message, "an attribute's key is not empty");
    }
}
