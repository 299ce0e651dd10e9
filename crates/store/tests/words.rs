//! A scan that is pruned by word filters finds what one finds that reads everything: logs and spans, bodies, attributes and the rest.

mod traffic;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::Signal;
use model::record::Value;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value::{ArrayValue, DoubleValue, IntValue, StringValue};
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue as Array, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;
use store::{Clock, Columns, Dataset, Field, Filter, Groups, Op, Reader, Scan, Settings, Store, Upkeep};
use traffic::spans::uuid;
use traffic::{HOUR, JOURNAL, NOON, batch_at, spans};

/// Requests, each flushed into a part of its own; then all are merged.
const REQUESTS: u64 = 4;
const RECORDS: u64 = 1000;
/// Searches with and without pruning.
const SEARCHES: usize = 200;

fn any(value: opentelemetry_proto::tonic::common::v1::any_value::Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn attribute(key: &str, value: opentelemetry_proto::tonic::common::v1::any_value::Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(any(value)),
        ..KeyValue::default()
    }
}

/// A text with ids, words, numbers and separators of all kinds.
fn text(random: &mut fastrand::Rng) -> String {
    const WORDS: [&str; 14] = [
        "connection",
        "Refused",
        "by-peer",
        "überlauf",
        "日本語のログ出力",
        "user_id",
        "x",
        "",
        "ОшибкаСоединения",
        "a\"b\\c\n",
        "0x00",
        "OutOfMemoryError",
        "-",
        "naïve",
    ];
    const BETWEEN: [&str; 9] = [" ", "/", ": ", "-", "_", "\t", "=\"", "", "·"];
    let mut out = String::new();
    for _ in 0..random.usize(1..5) {
        match random.u8(0..6) {
            0 => out.push_str(&uuid(random)),
            1 => (0..random.usize(1..40)).for_each(|_| out.push(random.digit(16))),
            2 => (0..random.usize(1..20)).for_each(|_| out.push(random.alphanumeric())),
            3 => out.push_str(&random.u32(..).to_string()),
            _ => out.push_str(WORDS[random.usize(0..WORDS.len())]),
        }
        out.push_str(BETWEEN[random.usize(0..BETWEEN.len())]);
    }
    out
}

/// Records whose keys are partly too long for a column, so that their values lie in the rest.
fn request(random: &mut fastrand::Rng, long_key: &str, at: u64) -> Vec<u8> {
    let log_records = (0..RECORDS)
        .map(|i| {
            let mut attributes = vec![
                attribute("note", StringValue(text(random))),
                attribute("few", StringValue(format!("value {}", random.u8(0..5)))),
            ];
            attributes.push(match random.u8(0..8) {
                0 => attribute(long_key, IntValue(random.i64(0..2000))),
                1 => attribute(long_key, DoubleValue(random.f64())),
                2 => attribute(
                    long_key,
                    ArrayValue(Array {
                        values: vec![any(StringValue(text(random))), any(IntValue(7))],
                    }),
                ),
                _ => attribute(long_key, StringValue(text(random))),
            });
            LogRecord {
                time_unix_nano: at + i,
                body: Some(any(StringValue(text(random)))),
                attributes,
                ..LogRecord::default()
            }
        })
        .collect();
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs: vec![ScopeLogs {
                log_records,
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    }
    .encode_to_vec()
}

fn scan(reader: &Reader, filter: Filter) -> (Vec<u64>, Groups) {
    let mut scanner = reader.scan(Scan {
        dataset: Dataset::Logs,
        time: 0..u64::MAX,
        filter,
        columns: Columns::Named(vec!["time_unix_nano".to_owned()]),
        newest_first: false,
    });
    let mut times = Vec::new();
    for batch in scanner.by_ref() {
        times.extend(store::rows::logs(&batch.unwrap()).iter().map(|r| r.time_unix_nano));
    }
    times.sort_unstable();
    (times, scanner.groups())
}

fn compare(field: &str, op: Op, value: Value) -> Filter {
    Filter::Compare {
        field: Field::Exact(field.to_owned()),
        op,
        value,
    }
}

/// A needle cut out of a value, at no place in particular; one that is nearly a value; or one that is most likely in none.
fn needle(random: &mut fastrand::Rng, value: &str) -> String {
    let ends: Vec<usize> = value.char_indices().map(|(at, _)| at).chain([value.len()]).collect();
    let (a, b) = (ends[random.usize(0..ends.len())], ends[random.usize(0..ends.len())]);
    match random.u8(0..6) {
        0 => value.to_owned(),
        1 => format!("{}{}", &value[a.min(b)..a.max(b)], random.alphanumeric()),
        2 | 3 => text(random),
        _ => value[a.min(b)..a.max(b)].to_owned(),
    }
}

#[test]
fn a_pruned_scan_finds_what_an_unpruned_one_finds() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicU64::new(NOON));
    let clock = Arc::clone(&now);
    let settings = Settings {
        upkeep: Upkeep::ByHand,
        clock: Clock::from_fn(move || clock.load(Ordering::SeqCst)),
        ..Settings::default()
    };
    let (writer, reader) = Store::open(dir.path(), settings).unwrap();
    let mut random = fastrand::Rng::with_seed(11);
    let long_key = "k".repeat(300);
    for seq in 0..REQUESTS {
        let payload = request(&mut random, &long_key, NOON + seq * RECORDS);
        writer
            .append("logs", JOURNAL, seq..=seq, &[batch_at(Signal::Logs, payload, NOON)])
            .unwrap();
        writer.flush().unwrap();
    }
    now.store(NOON + HOUR, Ordering::SeqCst);
    writer.maintain().unwrap();
    assert_eq!(reader.stats().logs.parts, 1);

    let rest = format!("attr.{long_key}");
    let mut values: Vec<(String, String)> = Vec::new();
    for batch in reader.scan(Scan {
        dataset: Dataset::Logs,
        time: 0..u64::MAX,
        filter: Filter::True,
        columns: Columns::All,
        newest_first: false,
    }) {
        for record in store::rows::logs(&batch.unwrap()) {
            if let Value::Str(body) = &record.body {
                values.push(("body".to_owned(), body.clone()));
            }
            for (key, value) in &record.attributes {
                match value {
                    Value::Str(text) => values.push((format!("attr.{key}"), text.clone())),
                    Value::Int(number) => values.push((format!("attr.{key}"), number.to_string())),
                    Value::Double(number) => values.push((format!("attr.{key}"), format!("{number:e}"))),
                    _ => {}
                }
            }
        }
    }
    assert!(values.iter().any(|(field, _)| *field == rest));
    let mut ruled_out = 0;
    for _ in 0..SEARCHES {
        let (field, value) = &values[random.usize(0..values.len())];
        let wanted = needle(&mut random, value);
        let filter = match random.u8(0..4) {
            0 => compare(field, Op::Eq, Value::Str(wanted.clone())),
            1 => {
                let other = needle(&mut random, &values[0].1);
                compare(
                    field,
                    Op::In,
                    Value::Array(vec![Value::Str(other), Value::Str(wanted.clone())]),
                )
            }
            _ => compare(field, Op::Contains, Value::Str(wanted.clone())),
        };
        // What is negated twice means the same and is not pruned.
        let unpruned = Filter::Not(Box::new(Filter::Not(Box::new(filter.clone()))));
        let (found, groups) = scan(&reader, filter);
        let (expected, all) = scan(&reader, unpruned);
        assert_eq!(all.ruled_out, 0);
        assert_eq!(found, expected, "{wanted:?} in {:.20}", field);
        ruled_out += groups.ruled_out;
    }
    assert!(
        ruled_out > 20,
        "only {ruled_out} of {SEARCHES} searches were spared the group"
    );

    for (field, op, value) in [
        ("body", Op::Contains, "deadlock-between-imbalanced-ledgers"),
        ("attr.note", Op::Contains, "6d0f1c2b-77aa-4c1d-a0b1-9e8d7c6b5a49"),
        ("attr.note", Op::Eq, "6d0f1c2b77aa4c1da0b19e8d7c6b5a49"),
        (&rest, Op::Eq, "6d0f1c2b77aa4c1da0b19e8d7c6b5a49"),
    ] {
        let (found, groups) = scan(&reader, compare(field, op, Value::Str(value.to_owned())));
        assert!(found.is_empty());
        assert_eq!((groups.read, groups.ruled_out), (0, 1), "{value} in {field:.20}");
    }
    assert_eq!(store::check(dir.path()).unwrap().problems, []);
}
