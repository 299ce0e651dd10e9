//! One trace can be as large as the store: reads of it end at their bounds and say what they left out.

mod traffic;

// The generator of logs looks for its sibling at the root of its crate.
#[allow(unused_imports, reason = "see above")]
use traffic::spans;

use std::cell::Cell;

use model::{Signal, TraceId};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use store::{Limit, ReadError, Reader, Settings, Store, Upkeep, Writer};
use traffic::{JOURNAL, NOON, batch_at};

const ID: TraceId = TraceId([7; 16]);
const SPANS: u64 = 20_000;
const NAME_BYTES: usize = 300;

/// A trace of which one half lies in a part and the other, later one in memory.
fn store(dir: &std::path::Path) -> (Writer, Reader) {
    let settings = Settings {
        upkeep: Upkeep::ByHand,
        ..Settings::default()
    };
    let (writer, reader) = Store::open(dir, settings).expect("opens");
    for (seq, half) in [0..SPANS / 2, SPANS / 2..SPANS].into_iter().enumerate() {
        let span = |i: u64| Span {
            trace_id: ID.0.to_vec(),
            span_id: (i + 1).to_be_bytes().to_vec(),
            name: format!("{i:0NAME_BYTES$}"),
            start_time_unix_nano: NOON + i,
            end_time_unix_nano: NOON + i + 1,
            ..Span::default()
        };
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                scope_spans: vec![ScopeSpans {
                    spans: half.map(span).collect(),
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        };
        let batch = batch_at(Signal::Traces, request.encode_to_vec(), NOON);
        let seq = seq as u64;
        writer.append("traces", JOURNAL, seq..=seq, &[batch]).expect("takes");
        if seq == 0 {
            writer.flush().expect("flushes");
        }
    }
    (writer, reader)
}

#[test]
fn rows_beyond_the_bound_are_counted_and_the_oldest_are_returned() {
    let dir = tempfile::tempdir().unwrap();
    let (_writer, reader) = store(dir.path());
    for rows in [0, 1, 9_000, 10_001, SPANS as usize, usize::MAX] {
        let found = reader.trace(ID, &Limit { rows, ..Limit::NONE }).unwrap();
        let expected = rows.min(SPANS as usize);
        assert_eq!((found.records.len(), found.cut), (expected, SPANS as usize - expected));
        assert!(
            (0u64..)
                .zip(&found.records)
                .all(|(i, span)| span.start_unix_nano == NOON + i)
        );
    }
}

#[test]
fn bytes_beyond_the_bound_are_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let (_writer, reader) = store(dir.path());
    let found = reader
        .trace(
            ID,
            &Limit {
                bytes: 1,
                ..Limit::NONE
            },
        )
        .unwrap();
    // One step is read, for nothing would help nobody; the next is not.
    assert!(
        (1..SPANS as usize / 2).contains(&found.records.len()),
        "{}",
        found.records.len()
    );
    assert_eq!(found.records.len() + found.cut, SPANS as usize);
    let ample = SPANS as usize * (NAME_BYTES + 2_000);
    assert_eq!(
        reader
            .trace(
                ID,
                &Limit {
                    bytes: ample,
                    ..Limit::NONE
                }
            )
            .unwrap()
            .cut,
        0
    );
}

#[test]
fn a_read_stops_in_the_middle_when_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let (_writer, reader) = store(dir.path());
    let asked = Cell::new(0);
    let count = || {
        asked.set(asked.get() + 1);
        true
    };
    reader
        .trace(
            ID,
            &Limit {
                go_on: &count,
                ..Limit::NONE
            },
        )
        .unwrap();
    let whole = asked.get();
    assert!(whole > 3, "asked {whole} times");
    for stop_at in 1..=whole {
        asked.set(0);
        let until = || {
            asked.set(asked.get() + 1);
            asked.get() < stop_at
        };
        let stopped = reader.trace(
            ID,
            &Limit {
                go_on: &until,
                ..Limit::NONE
            },
        );
        assert!(matches!(stopped, Err(ReadError::Stopped)), "{stop_at}");
        assert_eq!(asked.get(), stop_at);
    }
}
