//! A visit of the bytes is the same as decoding, changing and encoding.

use model::canonical::canonicalize;
use model::edit::inner::{Fates, Inner};
use model::edit::{Fate, Visit, message, put_value, visit};
use model::view::AnyValue;
use model::{Batch, Signal};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue as ProtoValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use proptest::prelude::*;
use prost::Message;

use super::arbitrary::Source;
use super::canonical::checked;
use super::edits::batch;
use super::normal::Normal;

/// What happens at the n-th thing seen: 0 it is dropped, 1 it is changed, else it is kept.
struct Choices<'c> {
    choices: &'c [u8],
    next: usize,
}

impl Choices<'_> {
    fn next(&mut self) -> u8 {
        let choice = self.choices.get(self.next).map_or(2, |choice| choice % 4);
        self.next += 1;
        choice
    }
}

/// Marks owners with an attribute, and spans, records and metrics by their name (or severity text).
struct Marker<'c> {
    choices: Choices<'c>,
    signal: Signal,
    resource: Option<Vec<u8>>,
    scope: Option<Vec<u8>>,
    fates: Fates,
}

fn marked(owner: &[u8], number: u32) -> Vec<u8> {
    let (mut value, mut out) = (Vec::new(), Vec::new());
    put_value(&mut value, AnyValue::Int(7));
    message::set_pair(owner, number, "marked", &value, &mut out);
    out
}

impl<'a> Visit<'a> for Marker<'_> {
    fn depth(&self) -> u32 {
        3
    }

    fn changes_owners(&self) -> bool {
        true
    }

    fn enter_resource(&mut self, resource: &'a [u8], _group: &'a [u8]) -> Fate {
        let choice = self.choices.next();
        self.resource = (choice == 1).then(|| marked(resource, 1));
        if choice == 0 { Fate::Drop } else { Fate::Keep }
    }

    fn leave_resource(&mut self) -> Option<&[u8]> {
        self.resource.as_deref()
    }

    fn enter_scope(&mut self, scope: &'a [u8], _group: &'a [u8]) -> Fate {
        let choice = self.choices.next();
        self.scope = (choice == 1).then(|| marked(scope, 3));
        if choice == 0 { Fate::Drop } else { Fate::Keep }
    }

    fn leave_scope(&mut self) -> Option<&[u8]> {
        self.scope.as_deref()
    }

    fn item(&mut self, item: &'a [u8], out: &mut Vec<u8>) -> Fate {
        let inner = match self.signal {
            Signal::Traces => Inner::Events,
            Signal::Metrics => Inner::Points,
            Signal::Logs => {
                return match self.choices.next() {
                    0 => Fate::Drop,
                    1 => {
                        message::set_field(item, &[3], out, |out| model::wire::put_bytes(out, 3, b"marked"));
                        Fate::Replace
                    }
                    _ => Fate::Keep,
                };
            }
        };
        let choice = self.choices.next();
        if choice == 0 {
            return Fate::Drop;
        }
        self.fates.clear();
        inner.each(item, |data, each| match self.choices.next() {
            0 => self.fates.discard(),
            1 => {
                // Time of an event, of a data point.
                let number = if inner == Inner::Events { 1 } else { 3 };
                assert_eq!(inner == Inner::Events, data == 0);
                let mut changed = Vec::new();
                message::set_field(each, &[number], &mut changed, |out| {
                    model::wire::put_fixed64(out, number, 7)
                });
                self.fates.replace(&changed);
            }
            _ => self.fates.keep(),
        });
        if inner == Inner::Points && self.fates.emptied() {
            return Fate::Drop;
        }
        if !self.fates.changed() && choice != 1 {
            return Fate::Keep;
        }
        let mut renamed = item.to_vec();
        if choice == 1 {
            let number = if inner == Inner::Events { 5 } else { 1 };
            renamed.clear();
            message::set_field(item, &[number], &mut renamed, |out| {
                model::wire::put_bytes(out, number, b"marked");
            });
        }
        self.fates.apply(inner, &renamed, out);
        Fate::Replace
    }
}

fn run(batch: &Batch, choices: &[u8]) -> Batch {
    let mut marker = Marker {
        choices: Choices { choices, next: 0 },
        signal: batch.signal,
        resource: None,
        scope: None,
        fates: Fates::default(),
    };
    visit(batch, &mut marker)
}

fn mark(attributes: &mut Vec<KeyValue>) {
    let value = Some(ProtoValue {
        value: Some(Value::IntValue(7)),
    });
    match attributes.iter_mut().find(|pair| pair.key == "marked") {
        Some(pair) => pair.value = value,
        None => attributes.push(KeyValue {
            key: "marked".into(),
            value,
            ..KeyValue::default()
        }),
    }
}

fn same<M: Message + Default + PartialEq + std::fmt::Debug>(edited: &Batch, expected: &M) {
    let read = M::decode(edited.payload.bytes()).expect("is legal");
    // As text, because a value may be NaN.
    assert_eq!(format!("{read:?}"), format!("{expected:?}"));
    let canonical = canonicalize(edited.signal, edited.payload.bytes()).expect("is legal");
    assert!(!canonical.rewritten, "what comes out is canonical");
    assert_eq!(canonical.items, edited.items);
}

/// The model's groups have the same shape in all signals, but no trait in common.
macro_rules! groups {
    ($request:ident.$resources:ident, $scopes:ident, $items:ident, $next:ident, $item:expr) => {
        $request.$resources.retain_mut(|resource| {
            let choice = $next.next();
            let before = resource.$scopes.len();
            if choice == 0 {
                return false;
            }
            let mut gone = 0;
            resource.$scopes.retain_mut(|scope| {
                let choice = $next.next();
                let before = scope.$items.len();
                if choice == 0 {
                    gone += 1;
                    return false;
                }
                scope.$items.retain_mut(|item| $item(item, &mut $next));
                if before > 0 && scope.$items.is_empty() {
                    gone += 1;
                    return false;
                }
                if choice == 1 {
                    mark(&mut scope.scope.get_or_insert_with(InstrumentationScope::default).attributes);
                }
                true
            });
            if before > 0 && gone == before {
                return false;
            }
            if choice == 1 {
                mark(&mut resource.resource.get_or_insert_with(Resource::default).attributes);
            }
            true
        });
    };
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..most)
}

fn received(signal: Signal, message: &(impl Message + Default + Normal + std::fmt::Debug), scramble: &[u8]) -> Batch {
    batch(signal, checked(signal, message, scramble).payload)
}

proptest! {
    #[test]
    fn traces(source in bytes(400), scramble in bytes(40), choices in bytes(60)) {
        let batch = received(Signal::Traces, &Source(&source).traces(), &scramble);
        let mut model = ExportTraceServiceRequest::decode(batch.payload.bytes()).expect("is legal");
        let mut next = Choices { choices: &choices, next: 0 };
        groups!(model.resource_spans, scope_spans, spans, next, |span: &mut Span, next: &mut Choices<'_>| {
            let choice = next.next();
            if choice == 1 {
                span.name = "marked".into();
            }
            choice != 0 && {
                span.events.retain_mut(|event| {
                    let choice = next.next();
                    if choice == 1 {
                        event.time_unix_nano = 7;
                    }
                    choice != 0
                });
                true
            }
        });
        same(&run(&batch, &choices), &model);
    }

    #[test]
    fn logs(source in bytes(400), scramble in bytes(40), choices in bytes(60)) {
        let batch = received(Signal::Logs, &Source(&source).logs(), &scramble);
        let mut model = ExportLogsServiceRequest::decode(batch.payload.bytes()).expect("is legal");
        let mut next = Choices { choices: &choices, next: 0 };
        groups!(model.resource_logs, scope_logs, log_records, next, |log: &mut LogRecord, next: &mut Choices<'_>| {
            let choice = next.next();
            if choice == 1 {
                log.severity_text = "marked".into();
            }
            choice != 0
        });
        same(&run(&batch, &choices), &model);
    }

    #[test]
    fn metrics(source in bytes(400), scramble in bytes(40), choices in bytes(60)) {
        let batch = received(Signal::Metrics, &Source(&source).metrics(), &scramble);
        let mut model = ExportMetricsServiceRequest::decode(batch.payload.bytes()).expect("is legal");
        let mut next = Choices { choices: &choices, next: 0 };
        groups!(model.resource_metrics, scope_metrics, metrics, next, |metric: &mut Metric, next: &mut Choices<'_>| {
            let choice = next.next();
            if choice == 0 {
                return false;
            }
            if choice == 1 {
                metric.name = "marked".into();
            }
            macro_rules! points {
                ($data:expr) => {{
                    let before = $data.data_points.len();
                    $data.data_points.retain_mut(|point| {
                        let choice = next.next();
                        if choice == 1 {
                            point.time_unix_nano = 7;
                        }
                        choice != 0
                    });
                    before == 0 || !$data.data_points.is_empty()
                }};
            }
            match &mut metric.data {
                Some(Data::Gauge(data)) => points!(data),
                Some(Data::Sum(data)) => points!(data),
                Some(Data::Histogram(data)) => points!(data),
                Some(Data::ExponentialHistogram(data)) => points!(data),
                Some(Data::Summary(data)) => points!(data),
                None => true,
            }
        });
        same(&run(&batch, &choices), &model);
    }
}
