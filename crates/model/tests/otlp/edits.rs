//! An edit of the bytes is the same as decoding, editing and encoding.

use std::sync::Arc;

use bytes::Bytes;
use model::canonical::canonicalize;
use model::edit::{self, Level, edit_attributes};
use model::view::AnyValue as ValueView;
use model::{Batch, Compression, Meta, Signal, Wire};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use proptest::prelude::*;
use prost::Message;

use super::arbitrary::Source;
use super::canonical::checked;

/// A batch of a scrambled message, as the door would hand it on.
pub fn batch(signal: Signal, payload: Bytes) -> Batch {
    let meta = Arc::new(Meta {
        received_at_unix_nano: 1,
        receiver: "otlp".into(),
        peer: None,
        headers: Vec::new(),
        source_offset: None,
    });
    let wire = Wire {
        compression: Compression::None,
        bytes: payload.clone(),
    };
    let canonical = canonicalize(signal, payload).expect("is legal");
    Batch::from_canonical(signal, canonical, Some(wire), meta)
}

fn traces(bytes: &[u8], choices: &[u8]) -> (Batch, ExportTraceServiceRequest) {
    let payload = checked(Signal::Traces, &Source(bytes).traces(), choices).payload;
    let message = ExportTraceServiceRequest::decode(payload.clone()).expect("is legal");
    (batch(Signal::Traces, payload), message)
}

fn logs(bytes: &[u8], choices: &[u8]) -> (Batch, ExportLogsServiceRequest) {
    let payload = checked(Signal::Logs, &Source(bytes).logs(), choices).payload;
    let message = ExportLogsServiceRequest::decode(payload.clone()).expect("is legal");
    (batch(Signal::Logs, payload), message)
}

fn metrics(bytes: &[u8], choices: &[u8]) -> (Batch, ExportMetricsServiceRequest) {
    let payload = checked(Signal::Metrics, &Source(bytes).metrics(), choices).payload;
    let message = ExportMetricsServiceRequest::decode(payload.clone()).expect("is legal");
    (batch(Signal::Metrics, payload), message)
}

/// Checks that an edited batch says what the model says, is canonical, and counts its items.
fn same<M: Message + Default + std::fmt::Debug>(edited: &Batch, expected: &M) {
    let read = M::decode(edited.payload.bytes()).expect("an edited payload is legal");
    assert_eq!(
        read.encode_to_vec(),
        expected.encode_to_vec(),
        "{read:#?} is not {expected:#?}"
    );
    let canonical = canonicalize(edited.signal, edited.payload.bytes()).expect("an edited payload is legal");
    assert!(!canonical.rewritten, "an edited payload is not canonical: {read:#?}");
    assert_eq!(edited.items, canonical.items);
    if let Some(wire) = &edited.wire {
        assert_eq!(
            wire.bytes,
            edited.payload.bytes(),
            "the wire form was kept though the payload changed"
        );
    }
}

/// Drops the items whose turn `keep` refuses, and the groups that this empties.
fn retain<T>(items: &mut Vec<T>, mut keep: impl FnMut(&mut T) -> bool) -> bool {
    let before = items.len();
    items.retain_mut(|item| keep(item));
    before == 0 || !items.is_empty()
}

fn select_traces(message: &mut ExportTraceServiceRequest, mut keep: impl FnMut() -> bool) {
    retain(&mut message.resource_spans, |resource| {
        retain(&mut resource.scope_spans, |scope| retain(&mut scope.spans, |_| keep()))
    });
}

fn select_metrics(message: &mut ExportMetricsServiceRequest, mut keep: impl FnMut() -> bool) {
    retain(&mut message.resource_metrics, |resource| {
        retain(&mut resource.scope_metrics, |scope| {
            retain(&mut scope.metrics, |metric| match &mut metric.data {
                None => true,
                Some(Data::Gauge(data)) => retain(&mut data.data_points, |_| keep()),
                Some(Data::Sum(data)) => retain(&mut data.data_points, |_| keep()),
                Some(Data::Histogram(data)) => retain(&mut data.data_points, |_| keep()),
                Some(Data::ExponentialHistogram(data)) => retain(&mut data.data_points, |_| keep()),
                Some(Data::Summary(data)) => retain(&mut data.data_points, |_| keep()),
            })
        })
    });
}

/// Keeps what `keep` says; whether anything is left.
fn only<T>(items: &mut Vec<T>, keep: impl FnMut(&mut T) -> bool) -> bool {
    items.retain_mut(keep);
    !items.is_empty()
}

/// A part's number for each item; a new one is one more than the highest so far.
fn dealt(places: &[usize], items: u32) -> Vec<usize> {
    let mut seen = Vec::new();
    let of = |place: &usize| {
        seen.iter().position(|seen| seen == place).unwrap_or_else(|| {
            seen.push(*place);
            seen.len() - 1
        })
    };
    places.iter().cycle().take(items as usize).map(of).collect()
}

/// Divides by the numbers, and looks that as many messages lie around each item as the signal has.
fn divided(batch: &Batch, numbers: &[usize], levels: usize) -> Vec<Batch> {
    let mut turns = numbers.iter();
    let parts = edit::divide(batch, |around, _| {
        assert_eq!(around.len(), levels);
        *turns.next().expect("asked once for each item")
    });
    assert!(turns.next().is_none(), "asked for each item");
    parts
}

/// What a split must give back in order: every item with the encoded messages around it, and every group without items.
fn flat_traces(message: &ExportTraceServiceRequest) -> Vec<Vec<Vec<u8>>> {
    let mut flat = Vec::new();
    for resource in &message.resource_spans {
        let mut outer = resource.clone();
        outer.scope_spans.clear();
        if resource.scope_spans.is_empty() {
            flat.push(vec![outer.encode_to_vec()]);
        }
        for scope in &resource.scope_spans {
            let mut inner = scope.clone();
            inner.spans.clear();
            if scope.spans.is_empty() {
                flat.push(vec![outer.encode_to_vec(), inner.encode_to_vec()]);
            }
            for span in &scope.spans {
                flat.push(vec![outer.encode_to_vec(), inner.encode_to_vec(), span.encode_to_vec()]);
            }
        }
    }
    flat
}

fn flat_metrics(message: &ExportMetricsServiceRequest) -> Vec<Vec<Vec<u8>>> {
    let mut flat = Vec::new();
    for resource in &message.resource_metrics {
        let mut outer = resource.clone();
        outer.scope_metrics.clear();
        if resource.scope_metrics.is_empty() {
            flat.push(vec![outer.encode_to_vec()]);
        }
        for scope in &resource.scope_metrics {
            let mut inner = scope.clone();
            inner.metrics.clear();
            if scope.metrics.is_empty() {
                flat.push(vec![outer.encode_to_vec(), inner.encode_to_vec()]);
            }
            for metric in &scope.metrics {
                // One point a copy: the first is taken by keeping only the first item of a one-metric message.
                let count = points(metric);
                for index in 0..count.max(1) {
                    let mut one = metric.clone();
                    keep_point(&mut one, index);
                    flat.push(vec![outer.encode_to_vec(), inner.encode_to_vec(), one.encode_to_vec()]);
                }
            }
        }
    }
    flat
}

fn points(metric: &opentelemetry_proto::tonic::metrics::v1::Metric) -> usize {
    match &metric.data {
        None => 0,
        Some(Data::Gauge(data)) => data.data_points.len(),
        Some(Data::Sum(data)) => data.data_points.len(),
        Some(Data::Histogram(data)) => data.data_points.len(),
        Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
        Some(Data::Summary(data)) => data.data_points.len(),
    }
}

fn keep_point(metric: &mut opentelemetry_proto::tonic::metrics::v1::Metric, index: usize) {
    fn only<T>(points: &mut Vec<T>, index: usize) {
        let mut at = 0;
        points.retain(|_| {
            at += 1;
            at == index + 1
        });
    }
    match &mut metric.data {
        None => {}
        Some(Data::Gauge(data)) => only(&mut data.data_points, index),
        Some(Data::Sum(data)) => only(&mut data.data_points, index),
        Some(Data::Histogram(data)) => only(&mut data.data_points, index),
        Some(Data::ExponentialHistogram(data)) => only(&mut data.data_points, index),
        Some(Data::Summary(data)) => only(&mut data.data_points, index),
    }
}

/// What is done to every owner's attributes in these tests.
#[derive(Debug, Clone)]
struct Plan(Vec<(&'static str, Option<i64>)>);

fn plan() -> impl Strategy<Value = Plan> {
    let key = prop::sample::select(vec!["a", "b", "", "service.name", "new", "some.longer.key.1"]);
    prop::collection::vec((key, prop::option::of(any::<i64>())), 0..5).prop_map(Plan)
}

impl Plan {
    fn on_bytes(&self, batch: &Batch, level: Level) -> Batch {
        edit_attributes(batch, level, |owner, changes| {
            // An owner with many attributes is left alone, so that the plan depends on what it sees.
            if owner.attributes.count() > 50 {
                return;
            }
            for (key, value) in &self.0 {
                match value {
                    Some(value) => changes.set(key, ValueView::Int(*value)),
                    None => changes.remove(key),
                }
            }
        })
    }

    fn on_pairs(&self, pairs: &mut Vec<KeyValue>) {
        if pairs.len() > 50 {
            return;
        }
        let mut last: Vec<(&str, Option<i64>)> = Vec::new();
        for (key, value) in &self.0 {
            last.retain(|(other, _)| other != key);
            last.push((key, *value));
        }
        for (key, value) in last {
            let at = pairs.iter().position(|pair| pair.key == key);
            let new = value.map(|value| KeyValue {
                key: key.into(),
                value: Some(AnyValue {
                    value: Some(Value::IntValue(value)),
                }),
                key_strindex: 0,
            });
            match (at, new) {
                (Some(at), Some(new)) => pairs[at] = new,
                (Some(at), None) => drop(pairs.remove(at)),
                (None, Some(new)) => pairs.push(new),
                (None, None) => {}
            }
        }
    }

    /// On a resource or scope, which is created for its first attribute.
    fn on_owner<T: Default>(&self, owner: &mut Option<T>, attributes: impl Fn(&mut T) -> &mut Vec<KeyValue>) {
        let mut new = owner.take();
        let existed = new.is_some();
        let pairs = attributes(new.get_or_insert_default());
        self.on_pairs(pairs);
        if existed || !pairs.is_empty() {
            *owner = new;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn concat(
        bytes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..500), 1..4),
        choices: Vec<u8>,
    ) {
        let (batches, messages): (Vec<Batch>, Vec<_>) = bytes.iter().map(|bytes| traces(bytes, &choices)).unzip();
        let joined = edit::concat(&batches).expect("there is a batch");
        let resource_spans = messages.into_iter().flat_map(|message| message.resource_spans).collect();
        same(&joined, &ExportTraceServiceRequest { resource_spans });
    }

    #[test]
    fn select(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        choices in prop::collection::vec(any::<u8>(), 0..300),
        keep in prop::collection::vec(any::<bool>(), 1..20),
    ) {
        let (batch, mut message) = traces(&bytes, &choices);
        let edited = edit::select(&batch, |index| keep[index as usize % keep.len()]);
        let mut turns = keep.iter().cycle();
        select_traces(&mut message, || *turns.next().expect("never ends"));
        same(&edited, &message);

        let (batch, mut message) = metrics(&bytes, &choices);
        let edited = edit::select(&batch, |index| keep[index as usize % keep.len()]);
        let mut turns = keep.iter().cycle();
        select_metrics(&mut message, || *turns.next().expect("never ends"));
        same(&edited, &message);
    }

    #[test]
    fn split(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        choices in prop::collection::vec(any::<u8>(), 0..300),
        max_items in 0u32..8,
        max_bytes in 0usize..3000,
    ) {
        let (batch, message) = traces(&bytes, &choices);
        let outputs = edit::split(&batch, max_items, max_bytes);
        check_limits(&outputs, max_items, max_bytes);
        let decoded = outputs.iter().map(|output| {
            let message = ExportTraceServiceRequest::decode(output.payload.bytes()).expect("is legal");
            same(output, &message);
            message
        });
        let flat: Vec<_> = decoded.flat_map(|message| flat_traces(&message)).collect();
        prop_assert_eq!(flat, flat_traces(&message));

        let (batch, message) = metrics(&bytes, &choices);
        let outputs = edit::split(&batch, max_items, max_bytes);
        check_limits(&outputs, max_items, max_bytes);
        let decoded = outputs.iter().map(|output| {
            let message = ExportMetricsServiceRequest::decode(output.payload.bytes()).expect("is legal");
            same(output, &message);
            message
        });
        let flat: Vec<_> = decoded.flat_map(|message| flat_metrics(&message)).collect();
        prop_assert_eq!(flat, flat_metrics(&message));
    }

    #[test]
    fn divide(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        choices in prop::collection::vec(any::<u8>(), 0..300),
        places in prop::collection::vec(0usize..5, 1..20),
    ) {
        let (batch, message) = traces(&bytes, &choices);
        let numbers = dealt(&places, batch.items);
        let parts = divided(&batch, &numbers, 2);
        for (part, output) in parts.iter().enumerate() {
            let mut expected = message.clone();
            let mut turns = numbers.iter();
            only(&mut expected.resource_spans, |resource| {
                only(&mut resource.scope_spans, |scope| {
                    only(&mut scope.spans, |_| turns.next() == Some(&part))
                })
            });
            same(output, if parts.len() == 1 { &message } else { &expected });
        }

        let (batch, message) = metrics(&bytes, &choices);
        let numbers = dealt(&places, batch.items);
        let parts = divided(&batch, &numbers, 4);
        for (part, output) in parts.iter().enumerate() {
            let mut expected = message.clone();
            let mut turns = numbers.iter();
            let mut mine = || turns.next() == Some(&part);
            only(&mut expected.resource_metrics, |resource| {
                only(&mut resource.scope_metrics, |scope| {
                    only(&mut scope.metrics, |metric| match &mut metric.data {
                        None => false,
                        Some(Data::Gauge(data)) => only(&mut data.data_points, |_| mine()),
                        Some(Data::Sum(data)) => only(&mut data.data_points, |_| mine()),
                        Some(Data::Histogram(data)) => only(&mut data.data_points, |_| mine()),
                        Some(Data::ExponentialHistogram(data)) => only(&mut data.data_points, |_| mine()),
                        Some(Data::Summary(data)) => only(&mut data.data_points, |_| mine()),
                    })
                })
            });
            same(output, if parts.len() == 1 { &message } else { &expected });
        }
    }

    #[test]
    fn attributes(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        choices in prop::collection::vec(any::<u8>(), 0..300),
        plan in plan(),
    ) {
        let (batch, message) = traces(&bytes, &choices);
        let mut edited = message.clone();
        for resource in &mut edited.resource_spans {
            plan.on_owner(&mut resource.resource, |resource| &mut resource.attributes);
        }
        same(&plan.on_bytes(&batch, Level::Resource), &edited);

        let mut edited = message.clone();
        for scope in edited.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans) {
            plan.on_owner(&mut scope.scope, |scope| &mut scope.attributes);
        }
        same(&plan.on_bytes(&batch, Level::Scope), &edited);

        let mut edited = message;
        for scope in edited.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans) {
            scope.spans.iter_mut().for_each(|span| plan.on_pairs(&mut span.attributes));
        }
        same(&plan.on_bytes(&batch, Level::Item), &edited);

        let (batch, mut edited) = logs(&bytes, &choices);
        for scope in edited.resource_logs.iter_mut().flat_map(|resource| &mut resource.scope_logs) {
            scope.log_records.iter_mut().for_each(|log| plan.on_pairs(&mut log.attributes));
        }
        same(&plan.on_bytes(&batch, Level::Item), &edited);

        let (batch, mut edited) = metrics(&bytes, &choices);
        let scopes = edited.resource_metrics.iter_mut().flat_map(|resource| &mut resource.scope_metrics);
        for metric in scopes.flat_map(|scope| &mut scope.metrics) {
            match &mut metric.data {
                None => {}
                Some(Data::Gauge(data)) => data.data_points.iter_mut().for_each(|p| plan.on_pairs(&mut p.attributes)),
                Some(Data::Sum(data)) => data.data_points.iter_mut().for_each(|p| plan.on_pairs(&mut p.attributes)),
                Some(Data::Histogram(data)) => {
                    data.data_points.iter_mut().for_each(|p| plan.on_pairs(&mut p.attributes));
                }
                Some(Data::ExponentialHistogram(data)) => {
                    data.data_points.iter_mut().for_each(|p| plan.on_pairs(&mut p.attributes));
                }
                Some(Data::Summary(data)) => data.data_points.iter_mut().for_each(|p| plan.on_pairs(&mut p.attributes)),
            }
        }
        same(&plan.on_bytes(&batch, Level::Item), &edited);
    }

    /// A value set from a view of another attribute is that value.
    #[test]
    fn values_are_copied_whole(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let (batch, mut message) = traces(&bytes, &[]);
        let edited = edit_attributes(&batch, Level::Item, |owner, changes| {
            if let Some(value) = owner.attributes.get("a") {
                changes.set("copy of a", value);
            }
        });
        for scope in message.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans) {
            for span in &mut scope.spans {
                let found = span.attributes.iter().find(|pair| pair.key == "a").cloned();
                if let Some(found) = found {
                    let mut value = found.value.unwrap_or_default();
                    if let Some(Value::StringValueStrindex(_)) = value.value {
                        value.value = None;
                    }
                    span.attributes.push(KeyValue { key: "copy of a".into(), value: Some(value), key_strindex: 0 });
                }
            }
        }
        same(&edited, &message);
    }

    /// Damaged batches cannot reach an edit, but if one did it must not bring the process down.
    #[test]
    fn edits_of_random_bytes_never_panic(bytes: Vec<u8>) {
        for signal in Signal::ALL {
            let good = batch(signal, Bytes::new());
            let bad = good.edited(Bytes::from(bytes.clone()), 10);
            edit::select(&bad, |index| index % 2 == 0);
            edit::split(&bad, 2, 100);
            let mut asked = 0;
            edit::divide(&bad, |_, _| {
                asked += 1;
                (asked - 1) % 2
            });
            for level in [Level::Resource, Level::Scope, Level::Item] {
                edit_attributes(&bad, level, |_, changes| changes.set("a", ValueView::Bool(true)));
            }
        }
    }
}

fn check_limits(outputs: &[Batch], max_items: u32, max_bytes: usize) {
    for output in outputs {
        assert!(output.items <= max_items.max(1));
        // What cannot be cut further: one item, or no more than groups without items.
        assert!(
            output.payload.len() <= max_bytes || output.items <= 1,
            "{output:?} with {max_bytes}"
        );
    }
}

#[test]
fn edits_that_change_nothing_keep_the_wire_form() {
    let batch = batch(Signal::Traces, Bytes::new());
    assert!(edit::select(&batch, |_| true).wire.is_some());
    assert!(edit_attributes(&batch, Level::Item, |_, _| {}).wire.is_some());
    assert_eq!(edit::split(&batch, 10, 10).len(), 1);
    assert!(
        edit::concat(std::slice::from_ref(&batch))
            .expect("there is a batch")
            .wire
            .is_some()
    );
    assert!(edit::concat(&[]).is_none());
}

/// A batch of one resource as a client sends it, in gzip.
fn zipped(spans: u64) -> Batch {
    let span = |id: u64| Span {
        trace_id: u128::from(id + 1).to_be_bytes().to_vec(),
        span_id: (id + 1).to_be_bytes().to_vec(),
        name: format!("GET /api/v1/workflows/{}", id * 7919 % 1000),
        start_time_unix_nano: 1_700_000_000_000_000_000 + id * 1_234_567,
        ..Span::default()
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource::default()),
            scope_spans: vec![ScopeSpans {
                spans: (0..spans).map(span).collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    let batch = batch(Signal::Traces, request.encode_to_vec().into());
    let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
    let mut packed = vec![0; compressor.gzip_compress_bound(batch.payload.len())];
    let len = compressor
        .gzip_compress(&batch.payload, &mut packed)
        .expect("there is room");
    packed.truncate(len);
    let wire = Wire {
        compression: Compression::Gzip,
        bytes: packed.into(),
    };
    Batch {
        wire: Some(wire),
        ..batch
    }
}

fn unzipped(batch: &Batch) -> Bytes {
    let wire = batch.wire.as_ref().expect("it has a wire form");
    let mut out = vec![0; batch.payload.len()];
    let len = libdeflater::Decompressor::new()
        .gzip_decompress(&wire.bytes, &mut out)
        .expect("it inflates");
    out.truncate(len);
    out.into()
}

#[test]
fn the_wire_form_follows_an_edit_of_the_resource_and_a_join() {
    let batch = zipped(2_000);
    let edit =
        |batch: &Batch, level| edit_attributes(batch, level, |_, changes| changes.set("env", ValueView::Str("prod")));
    let edited = edit(&batch, Level::Resource);
    assert_ne!(edited.payload, batch.payload);
    assert_eq!(unzipped(&edited), edited.payload.bytes());
    assert!(
        edit(&batch, Level::Item).wire.is_none(),
        "no stretch of it is as it was"
    );
    assert!(
        edit(&zipped(100), Level::Resource).wire.is_none(),
        "too short to be worth it"
    );

    let parts = [edited, batch, zipped(100)];
    let mut whole = edit::concat(&parts).expect("of one signal");
    whole.wire = edit::concat_wires(&parts);
    assert_eq!(unzipped(&whole), whole.payload.bytes());
    let [first, ..] = parts;
    let bare = first.edited(first.payload.bytes(), first.items);
    assert!(edit::concat_wires(&[first, bare]).is_none(), "one has none");
}
