//! Parts are Parquet to everyone else: the `parquet` crate and DuckDB read what we wrote and count what we count.

mod traffic;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt64Type};
use model::record::{SpanRecord, Value};
use model::{Batch, Signal};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use store::{Clock, DAY_NANOS, Settings, Store, Upkeep};
// The generator of logs looks for its sibling at the root of its crate.
use traffic::spans;
use traffic::{JOURNAL, NOON, batch_at, by_id, span_rows};

/// A store with one sealed day of spans and logs, and what the spans say.
fn sealed_day(dir: &Path) -> Vec<SpanRecord> {
    let now = Arc::new(AtomicU64::new(NOON));
    let clock = Arc::clone(&now);
    let settings = Settings {
        upkeep: Upkeep::ByHand,
        clock: Clock::from_fn(move || clock.load(Ordering::SeqCst)),
        ..Settings::default()
    };
    let (writer, _reader) = Store::open(dir, settings).unwrap();
    let mut source = spans::SpanSource::new(5, NOON, 500_000);
    let mut expected = Vec::new();
    for seq in 0..20 {
        let batch = batch_at(Signal::Traces, source.request(400), NOON);
        expected.extend(span_rows(&batch));
        writer.append("traces", JOURNAL, seq..=seq, &[batch]).unwrap();
        if seq % 5 == 4 {
            writer.flush().unwrap();
        }
    }
    let mut source = traffic::logs::LogSource::new(5, NOON, 500_000);
    let logs: Batch = batch_at(Signal::Logs, source.request(700), NOON);
    writer.append("logs", JOURNAL, 20..=20, &[logs]).unwrap();
    writer.flush().unwrap();
    now.store(NOON + 2 * DAY_NANOS, Ordering::SeqCst);
    writer.maintain().unwrap();
    by_id(expected)
}

fn parquet_files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            out.extend(parquet_files(&path));
        } else {
            out.push(path);
        }
    }
    out
}

#[test]
fn the_parquet_crate_reads_every_value() {
    let dir = tempfile::tempdir().unwrap();
    let expected = sealed_day(dir.path());
    let files = parquet_files(&dir.path().join("traces/sealed"));
    assert_eq!(files.len(), 1);
    let file = std::fs::File::open(&files[0]).unwrap();
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    assert_eq!(builder.metadata().file_metadata().num_rows(), expected.len() as i64);
    let mut found = Vec::new();
    for batch in builder.build().unwrap() {
        let batch = batch.unwrap();
        let column = |name: &str| batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"));
        let (trace_id, span_id) = (
            column("trace_id").as_fixed_size_binary(),
            column("span_id").as_fixed_size_binary(),
        );
        let (start, duration) = (
            column("start_unix_nano").as_primitive::<UInt64Type>(),
            column("duration_ns").as_primitive::<Int64Type>(),
        );
        let (name, service) = (
            column("name").as_string::<i32>(),
            column("resource.service.name").as_string::<i32>(),
        );
        let user = column("attr.user.id").as_string::<i32>();
        let status = column("attr.http.response.status_code:int").as_primitive::<Int64Type>();
        let parent = column("parent_span_id").as_fixed_size_binary();
        for row in 0..batch.num_rows() {
            use arrow_array::Array;
            found.push((
                trace_id.value(row).to_vec(),
                start.value(row),
                span_id.value(row).to_vec(),
                parent.is_valid(row).then(|| parent.value(row).to_vec()),
                duration.value(row),
                name.value(row).to_owned(),
                service.value(row).to_owned(),
                user.is_valid(row).then(|| user.value(row).to_owned()),
                status.is_valid(row).then(|| status.value(row)),
            ));
        }
    }
    found.sort();
    let attribute = |s: &SpanRecord, key: &str| model::record::attribute(&s.attributes, key).cloned();
    let wanted: Vec<_> = expected
        .iter()
        .map(|s| {
            (
                s.trace_id.0.to_vec(),
                s.start_unix_nano,
                s.span_id.0.to_vec(),
                s.parent_span_id.map(|p| p.0.to_vec()),
                (s.end_unix_nano - s.start_unix_nano) as i64,
                s.name.clone(),
                match model::record::attribute(&s.resource, "service.name") {
                    Some(Value::Str(text)) => text.clone(),
                    _ => String::new(),
                },
                match attribute(s, "user.id") {
                    Some(Value::Str(text)) => Some(text),
                    _ => None,
                },
                match attribute(s, "http.response.status_code") {
                    Some(Value::Int(code)) => Some(code),
                    _ => None,
                },
            )
        })
        .collect();
    assert_eq!(found, wanted);
}

#[test]
fn duckdb_counts_what_we_count_in_sealed_days() {
    let python = std::env::var("TRACKLINE_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has_duckdb = Command::new(&python).args(["-c", "import duckdb"]).output();
    if !has_duckdb.is_ok_and(|o| o.status.success()) {
        skip(format_args!(
            "SKIPPED: {python} has no module duckdb; set TRACKLINE_TEST_PYTHON to one that has"
        ));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let expected = sealed_day(dir.path());
    let script = r#"
import duckdb, sys
spans = f"read_parquet('{sys.argv[1]}/traces/sealed/*/*.parquet', union_by_name=true)"
logs = f"read_parquet('{sys.argv[1]}/logs/sealed/*/*.parquet', union_by_name=true)"
one = lambda q: duckdb.sql(q).fetchall()[0][0]
print(one(f"select count(*) from {spans}"))
print(one(f"select count(distinct trace_id) from {spans}"))
print(one(f"select count(*) from {spans} where \"attr.http.response.status_code:int\" >= 500"))
print(one(f"select sum(duration_ns)::BIGINT from {spans}"))
print(one(f"select count(*) from {spans} where \"resource.service.name\" = 'workflow-engine' and status_code = 2"))
print(one(f"select count(*) from {spans} where start_unix_nano >= {sys.argv[2]}"))
print(one(f"select count(*) from {spans} where \"events:json\" is not null and json_array_length(\"events:json\") > 0"))
print(one(f"select count(*) from {logs}"))
"#;
    let half = expected[expected.len() / 2].start_unix_nano;
    let output = Command::new(&python)
        .args(["-c", script])
        .arg(dir.path())
        .arg(half.to_string())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Vec<u64> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|l| l.parse().unwrap())
        .collect();
    let traces: std::collections::HashSet<_> = expected.iter().map(|s| s.trace_id).collect();
    let attribute = |s: &SpanRecord, key: &str| model::record::attribute(&s.attributes, key).cloned();
    let count = |keep: &dyn Fn(&SpanRecord) -> bool| expected.iter().filter(|s| keep(s)).count() as u64;
    let wanted = vec![
        expected.len() as u64,
        traces.len() as u64,
        count(&|s| matches!(attribute(s, "http.response.status_code"), Some(Value::Int(c)) if c >= 500)),
        expected.iter().map(|s| s.end_unix_nano - s.start_unix_nano).sum(),
        count(&|s| {
            s.status_code == 2
                && model::record::attribute(&s.resource, "service.name") == Some(&Value::Str("workflow-engine".into()))
        }),
        count(&|s| s.start_unix_nano >= half),
        count(&|s| !s.events.is_empty()),
        700,
    ];
    assert_eq!(found, wanted);
}

/// Straight to standard error: what a passing test prints with a macro is not shown.
fn skip(why: std::fmt::Arguments<'_>) {
    use std::io::Write;
    // A terminal that is gone is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{why}");
}
