//! Why: connectors are tested as the runner drives them: made from settings, handed batches and ticks, asked for their state.

use std::collections::{BTreeMap, BTreeSet};

use model::canonical::canonicalize;
use model::{Batch, Meta, Signal};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogramDataPoint, HistogramDataPoint, Metric, NumberDataPoint, exemplar, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

use crate::budget::Budget;
use crate::config::{Config, Problems, Section, Source};
use crate::stage::{MakeStage, Stage, State};
use crate::testing;

/// A stage as the configuration makes it: `settings` in YAML's flow style.
pub fn stage(parse: fn(&Section<'_>) -> Result<MakeStage, Problems>, settings: &str) -> Box<dyn Stage> {
    match try_stage(parse, settings) {
        Ok(stage) => stage,
        Err(problems) => panic!("{problems}"),
    }
}

/// As [`stage`]; or what is wrong with the settings.
pub fn try_stage(
    parse: fn(&Section<'_>) -> Result<MakeStage, Problems>,
    settings: &str,
) -> Result<Box<dyn Stage>, Problems> {
    let text = format!("processors:\n  tested: {settings}\n");
    let config = Config::load(vec![Source::new("test.yaml", text)], &|_| None)?;
    Ok(parse(&config.section(&config.processors[0]))?())
}

/// A span of a test.
#[derive(Debug, Clone)]
pub struct Spanned {
    pub service: &'static str,
    /// Attributes of the resource beside `service.name`.
    pub resource: Vec<(&'static str, String)>,
    pub scope: &'static str,
    pub trace: u8,
    pub id: u8,
    pub parent: u8,
    pub name: String,
    pub kind: i32,
    pub status: i32,
    pub took_ns: u64,
    pub attributes: Vec<(&'static str, String)>,
    pub events: Vec<Vec<(&'static str, String)>>,
    pub links: Vec<(u8, u8)>,
}

/// A span of the service `shop` with the name `buy`, of a server, that took 3 ms.
pub fn spanned() -> Spanned {
    Spanned {
        service: "shop",
        resource: Vec::new(),
        scope: "",
        trace: 1,
        id: 1,
        parent: 0,
        name: "buy".into(),
        kind: 2,
        status: 0,
        took_ns: 3_000_000,
        attributes: Vec::new(),
        events: Vec::new(),
        links: Vec::new(),
    }
}

/// When the first test batch arrived.
pub const T0: u64 = 1_700_000_000_000_000_000;
pub const SECOND: u64 = 1_000_000_000;

fn attributes(pairs: &[(&'static str, String)]) -> Vec<KeyValue> {
    let borrowed: Vec<(&str, &str)> = pairs.iter().map(|(key, value)| (*key, value.as_str())).collect();
    testing::pairs(&borrowed)
}

/// A batch of these spans, each with a resource of its own, that arrived so many ns after [`T0`].
pub fn arrived(spans: &[Spanned], after_ns: u64) -> Batch {
    let trace = |trace: u8| [&[0; 15][..], &[trace]].concat();
    let id = |id: u8| match id {
        0 => Vec::new(),
        id => [&[0; 7][..], &[id]].concat(),
    };
    let resource_spans = spans.iter().map(|spanned| ResourceSpans {
        resource: Some(Resource {
            attributes: match spanned.service {
                "" => attributes(&spanned.resource),
                service => [
                    attributes(&[("service.name", service.into())]),
                    attributes(&spanned.resource),
                ]
                .concat(),
            },
            ..Resource::default()
        }),
        scope_spans: vec![ScopeSpans {
            scope: Some(InstrumentationScope {
                name: spanned.scope.into(),
                version: "1.0".into(),
                ..InstrumentationScope::default()
            }),
            spans: vec![Span {
                trace_id: trace(spanned.trace),
                span_id: id(spanned.id),
                parent_span_id: id(spanned.parent),
                name: spanned.name.clone(),
                kind: spanned.kind,
                start_time_unix_nano: T0,
                end_time_unix_nano: T0 + spanned.took_ns,
                attributes: attributes(&spanned.attributes),
                status: Some(Status {
                    code: spanned.status,
                    ..Status::default()
                }),
                events: spanned
                    .events
                    .iter()
                    .map(|pairs| Event {
                        name: "event".into(),
                        attributes: attributes(pairs),
                        ..Event::default()
                    })
                    .collect(),
                links: spanned
                    .links
                    .iter()
                    .map(|(of, span)| Link {
                        trace_id: trace(*of),
                        span_id: id(*span),
                        ..Link::default()
                    })
                    .collect(),
                ..Span::default()
            }],
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    });
    let request = ExportTraceServiceRequest {
        resource_spans: resource_spans.collect(),
    };
    let batch = testing::batch_of(0).edited(request.encode_to_vec(), spans.len() as u32);
    let meta = Meta {
        received_at_unix_nano: T0 + after_ns,
        ..Meta::clone(&testing::meta())
    };
    testing::with_meta(&batch, meta)
}

/// A point as an independent decoder reads it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Point {
    /// ns after [`T0`].
    pub start: u64,
    pub time: u64,
    pub count: u64,
    pub sum: f64,
    pub buckets: Vec<u64>,
    pub bounds: Vec<f64>,
    /// Trace and span ids (their last bytes) and values.
    pub exemplars: Vec<(u8, u8, f64)>,
    pub temporality: i32,
}

/// The points of batches by name, resource and attributes, such as `calls{service.name=shop}{span.name=buy}`; what comes later replaces.
pub fn points(batches: &[Batch]) -> BTreeMap<String, Point> {
    let mut all = BTreeMap::new();
    for batch in batches {
        assert_eq!(batch.signal, Signal::Metrics);
        let canonical = canonicalize(Signal::Metrics, batch.payload.bytes()).expect("canonical");
        assert_eq!((canonical.rewritten, canonical.items), (false, batch.items));
        let request = ExportMetricsServiceRequest::decode(batch.payload.bytes()).expect("a request");
        for resource in &request.resource_metrics {
            let owner = shown(&resource.resource.clone().unwrap_or_default().attributes);
            for metric in resource.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
                for (attributes, point) in points_of(metric) {
                    let name = format!("{}{owner}{}", metric.name, shown(&attributes));
                    all.insert(name, point);
                }
            }
        }
    }
    all
}

fn shown(attributes: &[KeyValue]) -> String {
    let pairs = testing::attributes_of(attributes);
    let keys: BTreeSet<_> = pairs.iter().map(|(key, _)| key).collect();
    assert_eq!(keys.len(), pairs.len(), "each key is there once");
    let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("{{{}}}", pairs.join(","))
}

fn points_of(metric: &Metric) -> Vec<(Vec<KeyValue>, Point)> {
    let exemplars = |exemplars: &[Exemplar]| {
        let last = |id: &[u8]| id.last().copied().unwrap_or_default();
        let one = |exemplar: &Exemplar| match exemplar.value {
            Some(exemplar::Value::AsDouble(value)) => (last(&exemplar.trace_id), last(&exemplar.span_id), value),
            _ => panic!("an exemplar has a value"),
        };
        exemplars.iter().map(one).collect()
    };
    match metric.data.as_ref().expect("data") {
        Data::Sum(sum) => {
            assert!(sum.is_monotonic);
            let point = |point: &NumberDataPoint| Point {
                start: point.start_time_unix_nano - T0,
                time: point.time_unix_nano - T0,
                count: match point.value {
                    Some(number_data_point::Value::AsInt(count)) => count as u64,
                    _ => panic!("a count is whole"),
                },
                exemplars: exemplars(&point.exemplars),
                temporality: sum.aggregation_temporality,
                ..Point::default()
            };
            sum.data_points
                .iter()
                .map(|of| (of.attributes.clone(), point(of)))
                .collect()
        }
        Data::Histogram(histogram) => {
            let point = |point: &HistogramDataPoint| Point {
                start: point.start_time_unix_nano - T0,
                time: point.time_unix_nano - T0,
                count: point.count,
                sum: point.sum.expect("a sum"),
                buckets: point.bucket_counts.clone(),
                bounds: point.explicit_bounds.clone(),
                exemplars: exemplars(&point.exemplars),
                temporality: histogram.aggregation_temporality,
            };
            histogram
                .data_points
                .iter()
                .map(|of| (of.attributes.clone(), point(of)))
                .collect()
        }
        Data::ExponentialHistogram(histogram) => {
            let point = |point: &ExponentialHistogramDataPoint| Point {
                start: point.start_time_unix_nano - T0,
                time: point.time_unix_nano - T0,
                count: point.count,
                sum: point.sum.expect("a sum"),
                buckets: point.positive.clone().unwrap_or_default().bucket_counts,
                exemplars: exemplars(&point.exemplars),
                temporality: histogram.aggregation_temporality,
                ..Point::default()
            };
            histogram
                .data_points
                .iter()
                .map(|of| (of.attributes.clone(), point(of)))
                .collect()
        }
        other => panic!("{other:?}"),
    }
}

/// A state that was damaged is read or refused, and the stage works all the same.
pub fn survives_damage(mut stage: Box<dyn Stage>, whole: &State, damage: &[(usize, u8)], spans: &[Spanned]) {
    let State::Whole(bytes) = whole else { panic!("a whole") };
    let mut bytes = bytes.to_vec();
    for (at, by) in damage {
        let at = at % bytes.len();
        bytes[at] ^= by;
    }
    let _ = stage.restore(&State::Whole(bytes.into()));
    let mut out = Vec::new();
    stage.take(arrived(spans, SECOND), &mut out);
    let _ = stage.state(false);
    stage.finish(T0 + 60 * SECOND, &mut out);
    let _ = stage.state(true);
}

/// What a runner does with a stage, in the order of the contract: it hands it the batches of a stream, commits what it gave out and remembers, and after a
/// crash makes another one that goes on from the last commit.
pub struct Runner<'m> {
    make: &'m dyn Fn() -> Box<dyn Stage>,
    stage: Box<dyn Stage>,
    states: Vec<State>,
    /// How many batches of the stream the last commit covers.
    committed: usize,
    taken: usize,
    pending: Vec<Batch>,
    /// What was given out, durably.
    pub out: Vec<Batch>,
}

impl<'m> Runner<'m> {
    pub fn new(make: &'m dyn Fn() -> Box<dyn Stage>) -> Runner<'m> {
        let mut stage = make();
        stage.start(&Budget::root("process", 1 << 30));
        Runner {
            make,
            stage,
            states: Vec::new(),
            committed: 0,
            taken: 0,
            pending: Vec::new(),
            out: Vec::new(),
        }
    }

    /// Takes all of the stream that has not been taken.
    pub fn take(&mut self, stream: &[Batch]) {
        for batch in &stream[self.taken..] {
            self.stage.take(batch.clone(), &mut self.pending);
            self.taken += 1;
        }
    }

    /// Twice, because the first may come while more waits to be taken.
    pub fn tick(&mut self, after_ns: u64) {
        self.stage.tick(T0 + after_ns, &mut self.pending);
        self.stage.tick(T0 + after_ns, &mut self.pending);
    }

    pub fn finish(&mut self, after_ns: u64) {
        self.stage.finish(T0 + after_ns, &mut self.pending);
        self.commit();
    }

    pub fn commit(&mut self) {
        let state = self.stage.state(false);
        if let State::Whole(_) = state {
            self.states.clear();
        }
        self.states.push(state);
        self.committed = self.taken;
        self.out.append(&mut self.pending);
    }

    pub fn crash(&mut self) {
        self.stage = (self.make)();
        self.stage.start(&Budget::root("process", 1 << 30));
        for state in &self.states {
            self.stage.restore(state).expect("its own state");
        }
        self.taken = self.committed;
        self.pending.clear();
    }
}
