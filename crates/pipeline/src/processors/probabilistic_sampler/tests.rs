//! The share is right, the same traces are kept at every hop, and what is kept says how likely that was.

use bytes::Bytes;
use model::Encoding;
use model::canonical::canonicalize;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1 as proto;
use prost::Message;
use serde_json::{Value as Json, json};

use super::*;

fn batch(signal: Signal, payload: Vec<u8>) -> Batch {
    let canonical = canonicalize(signal, Bytes::from(payload)).expect("a request");
    Batch {
        signal,
        encoding: Encoding::Otlp,
        payload: canonical.payload.into(),
        items: canonical.items,
        wire: None,
        meta: crate::testing::meta(),
    }
}

/// Spans of so many traces, whose ids are the same in every run, each with its own state.
fn traces(count: u64, state: impl Fn(u64) -> String) -> Batch {
    let mut random = fastrand::Rng::with_seed(7);
    let spans = (0..count)
        .map(|index| proto::Span {
            trace_id: random.u128(1..).to_be_bytes().to_vec(),
            span_id: (index + 1).to_be_bytes().to_vec(),
            trace_state: state(index),
            // A link's state is not the span's.
            links: vec![proto::span::Link {
                trace_id: vec![1; 16],
                span_id: vec![1; 8],
                trace_state: "ot=th:1".into(),
                ..Default::default()
            }],
            ..proto::Span::default()
        })
        .collect();
    let scope_spans = vec![proto::ScopeSpans {
        spans,
        ..Default::default()
    }];
    let resource_spans = vec![proto::ResourceSpans {
        scope_spans,
        ..Default::default()
    }];
    batch(
        Signal::Traces,
        ExportTraceServiceRequest { resource_spans }.encode_to_vec(),
    )
}

fn sampler(mode: Mode, percentage: f32) -> Sampler {
    let config = Config {
        sampling_percentage: percentage,
        mode: Some(mode),
        ..Config::default()
    };
    Sampler::new(config, "probabilistic_sampler")
}

/// The spans that are left: number and state.
fn left(sampler: &Sampler, batch: &Batch) -> (Batch, Vec<(u64, String)>) {
    let kept = sampler.process(batch.clone()).expect("never refuses");
    let canonical = canonicalize(kept.signal, kept.payload.bytes()).expect("is legal");
    assert!(!canonical.rewritten, "is canonical");
    assert_eq!(canonical.items, kept.items);
    let book = sampler.book().expect("has a book");
    assert_eq!(book.drops(kept.signal).total(), u64::from(batch.items - kept.items));
    let list = spans(&kept.payload)
        .map(|span| {
            assert_eq!(
                span.links.iter().map(|link| link.trace_state).collect::<Vec<_>>(),
                ["ot=th:1"]
            );
            let id = u64::from_str_radix(&span.span_id.to_string(), 16).expect("a number");
            (id - 1, span.trace_state.to_owned())
        })
        .collect();
    (kept, list)
}

const COUNT: u64 = 20_000;

/// Whether a share is what it should be, within five standard deviations.
#[track_caller]
fn is_about(kept: usize, of: u64, share: f64) {
    let expect = of as f64 * share;
    let deviation = (expect * (1.0 - share)).sqrt();
    assert!(
        (kept as f64 - expect).abs() <= 5.0 * deviation,
        "{kept} of {of} are not {share}"
    );
}

fn ids(list: &[(u64, String)]) -> Vec<u64> {
    list.iter().map(|(id, _)| *id).collect()
}

#[test]
fn the_share_is_right_and_is_told() {
    let batch = traces(COUNT, |_| String::new());
    for (mode, percentage, state) in [
        (Mode::Equalizing, 25.0, "ot=th:c"),
        (Mode::Proportional, 25.0, "ot=th:c"),
        (Mode::Equalizing, 10.0, "ot=th:e666"),
        (Mode::HashSeed, 25.0, "ot=th:c;rv:"),
    ] {
        let (_, list) = left(&sampler(mode, percentage), &batch);
        is_about(list.len(), COUNT, f64::from(percentage) / 100.0);
        assert!(
            list.iter().all(|(_, told)| told.starts_with(state)),
            "{mode:?}: {:?}",
            list[0]
        );
    }
    assert!(left(&sampler(Mode::Proportional, 0.0), &batch).1.is_empty());
    assert_eq!(
        left(&sampler(Mode::Proportional, 200.0), &batch).1.len(),
        COUNT as usize
    );
}

#[test]
fn hops_behind_each_other_keep_the_same_traces() {
    let batch = traces(COUNT, |_| "vendor=x".into());
    let (half, of_half) = left(&sampler(Mode::Equalizing, 50.0), &batch);
    assert!(of_half.iter().all(|(_, state)| state == "ot=th:8,vendor=x"));
    // Whether it was halved before makes no difference to who equalizes to a quarter.
    let (_, at_once) = left(&sampler(Mode::Equalizing, 25.0), &batch);
    let (quarter, later) = left(&sampler(Mode::Equalizing, 25.0), &half);
    assert_eq!(later, at_once);
    // A half of a half is that quarter, and says so.
    let (_, proportional) = left(&sampler(Mode::Proportional, 50.0), &half);
    assert_eq!(proportional, at_once);
    // Who would keep more keeps all, and the lower probability stays told.
    let (same, list) = left(&sampler(Mode::Equalizing, 50.0), &quarter);
    assert_eq!(list, at_once);
    assert_eq!(same.payload.as_ptr(), quarter.payload.as_ptr());
    // Every sampler with a smaller share keeps a part of what one with a greater share keeps.
    let (_, tenth) = left(&sampler(Mode::Equalizing, 10.0), &batch);
    let greater = ids(&at_once);
    assert!(ids(&tenth).iter().all(|id| greater.binary_search(id).is_ok()));
    // Hashing again with the same seed drops nothing more.
    let (hashed, list) = left(&sampler(Mode::HashSeed, 25.0), &batch);
    assert_eq!(left(&sampler(Mode::HashSeed, 25.0), &hashed).1, list);
    // And who follows the threshold finds it consistent with the randomness that hashing told.
    assert_eq!(left(&sampler(Mode::Equalizing, 25.0), &hashed).1, list);
}

#[test]
fn randomness_that_is_told_goes_before_the_trace_id() {
    let batch = traces(COUNT, |index| {
        if index % 2 == 0 {
            "ot=rv:ffffffffffffff".into()
        } else {
            "ot=rv:00000000000000".into()
        }
    });
    let (_, list) = left(&sampler(Mode::Equalizing, 1.0), &batch);
    assert_eq!(ids(&list), (0..COUNT).step_by(2).collect::<Vec<_>>());
    assert_eq!(list[0].1, "ot=th:fd70a;rv:ffffffffffffff");
}

#[test]
fn what_is_broken_is_dropped_or_kept_as_asked() {
    let broken = |state: &'static str| traces(8, move |_| state.into());
    let open = || {
        let mut sampler = sampler(Mode::Proportional, 50.0);
        sampler.config.fail_closed = false;
        sampler
    };
    for (state, left_open) in [
        ("ot=th:zz", "ot=th:zz"),
        // It says that everything was kept by a sampler that would have dropped it.
        ("ot=rv:00000000000001;th:8", "ot=rv:00000000000001"),
    ] {
        assert!(
            left(&sampler(Mode::Proportional, 50.0), &broken(state)).1.is_empty(),
            "{state}"
        );
        let (_, list) = left(&open(), &broken(state));
        assert_eq!(list.len(), 8);
        assert!(list.iter().all(|(_, state)| state == left_open), "{list:?}");
    }
}

#[test]
fn spans_may_say_themselves() {
    let request = json!({"resourceSpans": [{"scopeSpans": [{"spans": [
        {"traceId": "00000000000000000000000000000001", "spanId": "0000000000000001",
         "attributes": [{"key": "sampling.priority", "value": {"intValue": "1"}}]},
        {"traceId": "000000000000000000ffffffffffffff", "spanId": "0000000000000002",
         "attributes": [{"key": "sampling.priority", "value": {"stringValue": "0"}}]},
        {"traceId": "000000000000000000ffffffffffffff", "spanId": "0000000000000003",
         "attributes": [{"key": "sampling.priority", "value": {"doubleValue": -1.0}}]},
    ]}]}]});
    let request: ExportTraceServiceRequest = serde_json::from_value(request).expect("a request");
    let kept = sampler(Mode::Proportional, 50.0)
        .process(batch(Signal::Traces, request.encode_to_vec()))
        .expect("never refuses");
    let list: Vec<String> = spans(&kept.payload)
        .map(|span| format!("{} {}", span.span_id, span.trace_state))
        .collect();
    assert_eq!(list, ["0000000000000001 ot=th:0", "0000000000000003 ot=th:8"]);
}

/// Log records by their attributes; what is left, with theirs.
fn logs(sampler: &Sampler, records: Json) -> Json {
    let request = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]});
    let request: ExportLogsServiceRequest = serde_json::from_value(request).expect("a request");
    let kept = sampler
        .process(batch(Signal::Logs, request.encode_to_vec()))
        .expect("never refuses");
    let records = model::view::logs::log_records(&kept.payload);
    records
        .map(|record| {
            let pairs = record.attributes.iter().map(|pair| {
                let value = pair.value.as_str().map_or(Json::Null, |text| json!(text));
                (pair.key.to_owned(), value)
            });
            Json::Object(pairs.collect())
        })
        .collect()
}

#[test]
fn log_records_say_it_in_attributes() {
    let attribute = |key: &str, value: Json| json!({"key": key, "value": value});
    let low = "00000000000000000000000000000001";
    let high = "000000000000000000ffffffffffffff";
    let half = sampler(Mode::Proportional, 50.0);
    let records = json!([
        {"traceId": high},
        {"traceId": low},
        {"traceId": low, "attributes": [attribute("sampling.randomness", json!({"stringValue": "ffffffffffffff"}))]},
        {"traceId": high, "attributes": [attribute("sampling.threshold", json!({"stringValue": "8"}))]},
        {"attributes": [attribute("no", json!({"stringValue": "trace"}))]},
        {"traceId": high, "attributes": [attribute("sampling.threshold", json!({"stringValue": "zz"}))]},
    ]);
    let expect = json!([
        {"sampling.threshold": "8"},
        {"sampling.randomness": "ffffffffffffff", "sampling.threshold": "8"},
        {"sampling.threshold": "c"},
    ]);
    assert_eq!(logs(&half, records), expect);

    let mut own = sampler(Mode::Proportional, 1.0);
    own.config.sampling_priority = "share".into();
    let records = json!([
        {"traceId": "00000000000000000080000000000000", "attributes": [attribute("share", json!({"intValue": "50"}))]},
        {"traceId": "00000000000000000080000000000000"},
    ]);
    assert_eq!(logs(&own, records), json!([{"share": null, "sampling.threshold": "8"}]));

    let by_attribute = Config {
        sampling_percentage: 50.0,
        attribute_source: Source::Record,
        from_attribute: "user".into(),
        ..Config::default()
    };
    let by_attribute = Sampler::new(by_attribute, "probabilistic_sampler");
    let records: Json = (0..1000)
        .flat_map(|user| [user, user])
        .map(|user| json!({"attributes": [attribute("user", json!({"stringValue": user.to_string()}))]}))
        .collect();
    let kept = logs(&by_attribute, records);
    let kept = kept.as_array().expect("a list");
    is_about(kept.len() / 2, 1000, 0.5);
    // Records of one user stay together.
    assert!(kept.chunks(2).all(|pair| pair[0]["user"] == pair[1]["user"]));
}
