//! The life of rows: appended, answered from memory, flushed, answered from parts, found again after a restart, merged, removed, sealed.

mod traffic;

// The generator of logs looks for its sibling at the root of its crate.
use traffic::spans;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::record::{LogRecord, SpanRecord, Value};
use model::{Batch, Signal};
use store::{
    Clock, Columns, DAY_NANOS, Dataset, Field, Filter, Limit, Op, OpenError, Reader, Scan, Settings, Store, Upkeep,
    Writer,
};
use traffic::{HOUR, JOURNAL, NOON, batch_at, by_id, by_time, log_rows, span_rows};

fn settings(now: &Arc<AtomicU64>) -> Settings {
    let now = Arc::clone(now);
    Settings {
        upkeep: Upkeep::ByHand,
        clock: Clock::from_fn(move || now.load(Ordering::SeqCst)),
        ..Settings::default()
    }
}

fn open(dir: &Path, now: u64) -> (Writer, Reader) {
    Store::open(dir, settings(&Arc::new(AtomicU64::new(now)))).expect("opens")
}

fn all(dataset: Dataset) -> Scan {
    Scan {
        dataset,
        time: 0..u64::MAX,
        filter: Filter::True,
        columns: Columns::All,
        newest_first: true,
    }
}

fn scan_spans(reader: &Reader, scan: Scan) -> Vec<SpanRecord> {
    by_id(
        reader
            .scan(scan)
            .flat_map(|batch| store::rows::spans(&batch.expect("reads")))
            .collect(),
    )
}

fn scan_logs(reader: &Reader, scan: Scan) -> Vec<LogRecord> {
    by_time(
        reader
            .scan(scan)
            .flat_map(|batch| store::rows::logs(&batch.expect("reads")))
            .collect(),
    )
}

fn batches(seed: u64, requests: usize, spans: usize, start: u64) -> (Vec<Batch>, Vec<[u8; 16]>) {
    let mut source = spans::SpanSource::new(seed, start, 500_000);
    let batches = (0..requests)
        .map(|_| batch_at(Signal::Traces, source.request(spans), start))
        .collect();
    (batches, source.sampled_ids)
}

fn append(writer: &Writer, seq: &mut u64, batches: &[Batch]) {
    for batch in batches {
        writer
            .append("traces", JOURNAL, *seq..=*seq, std::slice::from_ref(batch))
            .expect("takes");
        *seq += 1;
    }
}

#[test]
fn spans_answer_from_memory_then_from_parts_then_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (batches, ids) = batches(1, 20, 500, NOON);
    let expected = by_id(batches.iter().flat_map(span_rows).collect());
    let mut seq = 0;
    {
        let (writer, reader) = open(dir.path(), NOON);
        append(&writer, &mut seq, &batches);
        assert_eq!(scan_spans(&reader, all(Dataset::Traces)), expected);
        assert!(writer.covered("traces", JOURNAL).low == 0);

        writer.flush().unwrap();
        assert_eq!(reader.stats().traces.fresh_rows, 0);
        assert_eq!(scan_spans(&reader, all(Dataset::Traces)), expected);
        assert_eq!(writer.covered("traces", JOURNAL).low, 20);
    }
    let (writer, reader) = open(dir.path(), NOON);
    assert_eq!(writer.covered("traces", JOURNAL).low, 20);
    assert_eq!(scan_spans(&reader, all(Dataset::Traces)), expected);
    for id in ids {
        let id = model::TraceId(id);
        let wanted: Vec<SpanRecord> = expected.iter().filter(|s| s.trace_id == id).cloned().collect();
        assert_eq!(by_id(reader.trace(id, &Limit::NONE).unwrap().records), wanted);
    }
    let services: std::collections::BTreeSet<String> = expected
        .iter()
        .filter_map(|s| {
            model::record::attribute(&s.resource, "service.name")?
                .as_str()
                .map(str::to_owned)
        })
        .collect();
    assert_eq!(reader.services(0..u64::MAX), services.into_iter().collect::<Vec<_>>());
    assert!(
        reader
            .operations("api-gateway", 0..u64::MAX)
            .contains(&"POST /api/v1/chat".to_owned())
    );
}

#[test]
fn logs_answer_from_memory_then_from_parts() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, reader) = open(dir.path(), NOON);
    let mut source = traffic::logs::LogSource::new(1, NOON, 1_000_000);
    let batches: Vec<Batch> = (0..10)
        .map(|_| batch_at(Signal::Logs, source.request(300), NOON))
        .collect();
    let expected = by_time(batches.iter().flat_map(log_rows).collect());
    writer.append("logs", JOURNAL, 0..=9, &batches).unwrap();
    assert_eq!(scan_logs(&reader, all(Dataset::Logs)), expected);
    writer.flush().unwrap();
    assert_eq!(scan_logs(&reader, all(Dataset::Logs)), expected);
    for wanted in expected.iter().filter(|r| r.trace_id.is_some()).take(20) {
        let found = reader
            .logs_of_trace(wanted.trace_id.unwrap(), &Limit::NONE)
            .unwrap()
            .records;
        assert!(found.contains(wanted));
        assert!(found.iter().all(|r| r.trace_id == wanted.trace_id));
    }
}

#[test]
fn filters_choose_what_a_plain_loop_over_the_rows_chooses() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, reader) = open(dir.path(), NOON);
    let (batches, _) = batches(3, 10, 400, NOON);
    let expected = by_id(batches.iter().flat_map(span_rows).collect());
    let mut seq = 0;
    append(&writer, &mut seq, &batches);
    let attribute = |s: &SpanRecord, key: &str| model::record::attribute(&s.attributes, key).cloned();
    let compare = |field: Field, op: Op, value: Value| Filter::Compare { field, op, value };
    type Keep = Box<dyn Fn(&SpanRecord) -> bool>;
    let cases: Vec<(Filter, Keep)> = vec![
        (
            Filter::eq("resource.service.name", Value::Str("workflow-engine".into())),
            Box::new(|s| {
                model::record::attribute(&s.resource, "service.name") == Some(&Value::Str("workflow-engine".into()))
            }),
        ),
        (
            compare(Field::Bare("http.response.status_code".into()), Op::Ge, Value::Int(500)),
            Box::new(move |s| matches!(attribute(s, "http.response.status_code"), Some(Value::Int(n)) if n >= 500)),
        ),
        (
            compare(
                Field::Bare("http.response.status_code".into()),
                Op::Eq,
                Value::Str("502".into()),
            ),
            Box::new(move |s| attribute(s, "http.response.status_code") == Some(Value::Int(502))),
        ),
        (
            Filter::And(vec![
                compare(
                    Field::Bare("db.query.text".into()),
                    Op::Contains,
                    Value::Str("workflow_executions".into()),
                ),
                Filter::Not(Box::new(compare(
                    Field::Exact("name".into()),
                    Op::Contains,
                    Value::Str("INSERT".into()),
                ))),
            ]),
            Box::new(move |s| {
                matches!(attribute(s, "db.query.text"), Some(Value::Str(t)) if t.contains("workflow_executions"))
                    && !s.name.contains("INSERT")
            }),
        ),
        (
            compare(Field::Exact("duration_ns".into()), Op::Gt, Value::Int(100_000_000)),
            Box::new(|s| s.end_unix_nano - s.start_unix_nano > 100_000_000),
        ),
        (
            compare(Field::Exact("attr.no.such.key".into()), Op::Exists, Value::Null),
            Box::new(|_| false),
        ),
        (
            compare(Field::Bare("cost.usd".into()), Op::Exists, Value::Null),
            Box::new(move |s| attribute(s, "cost.usd").is_some()),
        ),
        (
            compare(
                Field::Exact("trace_id".into()),
                Op::Eq,
                Value::Str(expected[0].trace_id.to_string()),
            ),
            {
                let id = expected[0].trace_id;
                Box::new(move |s| s.trace_id == id)
            },
        ),
        (
            compare(
                Field::Bare("tracking.id".into()),
                Op::Eq,
                Value::Str(expected[7].trace_id.to_string()),
            ),
            {
                let id = expected[7].trace_id;
                Box::new(move |s| s.trace_id == id)
            },
        ),
    ];
    for fresh in [true, false] {
        for (filter, keep) in &cases {
            let wanted: Vec<&SpanRecord> = expected.iter().filter(|s| keep(s)).collect();
            let found = scan_spans(
                &reader,
                Scan {
                    filter: filter.clone(),
                    ..all(Dataset::Traces)
                },
            );
            assert_eq!(found.iter().collect::<Vec<_>>(), wanted, "{filter:?}, fresh: {fresh}");
        }
        writer.flush().unwrap();
    }
}

#[test]
fn merged_parts_say_what_their_inputs_said_and_identical_spans_once() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicU64::new(NOON));
    let (writer, reader) = Store::open(dir.path(), settings(&now)).unwrap();
    let mut seq = 0;
    let mut expected = Vec::new();
    for seed in 0..6 {
        let (batches, _) = batches(seed, 4, 500, NOON + seed * 20_000_000_000);
        expected.extend(batches.iter().flat_map(span_rows));
        append(&writer, &mut seq, &batches);
        if seed == 5 {
            // What a client sends again.
            append(&writer, &mut seq, &batches[..1]);
        }
        writer.flush().unwrap();
    }
    let expected = by_id(expected);
    assert_eq!(reader.stats().traces.parts, 6);
    now.store(NOON + HOUR, Ordering::SeqCst);
    writer.maintain().unwrap();
    let stats = reader.stats().traces;
    assert_eq!(stats.parts, 1);
    assert_eq!(stats.rows, expected.len() as u64);
    assert_eq!(scan_spans(&reader, all(Dataset::Traces)), expected);
    let files: Vec<_> = walk(dir.path())
        .into_iter()
        .filter(|p| p.ends_with(".parquet"))
        .collect();
    assert_eq!(files.len(), 1, "replaced files are gone: {files:?}");
}

#[test]
fn a_merge_short_of_memory_takes_fewer_parts_at_a_time() {
    const BOUND: u64 = 3 << 20;
    let merged = |merge_bytes: u64| {
        let dir = tempfile::tempdir().unwrap();
        let now = Arc::new(AtomicU64::new(NOON));
        let settings = Settings {
            merge_bytes,
            ..settings(&now)
        };
        let (writer, reader) = Store::open(dir.path(), settings).expect("opens");
        let (batches, _) = batches(5, 6, 200, NOON);
        let mut seq = 0;
        for batch in &batches {
            append(&writer, &mut seq, std::slice::from_ref(batch));
            writer.flush().unwrap();
        }
        now.fetch_add(HOUR, Ordering::SeqCst);
        writer.maintain().unwrap();
        assert_eq!(
            scan_spans(&reader, all(Dataset::Traces)),
            by_id(batches.iter().flat_map(span_rows).collect())
        );
        (reader.stats().traces.parts, reader.memory())
    };
    let (parts, ample) = merged(store::MERGE_BYTES);
    assert_eq!(parts, 1);
    assert!(ample.merge.peak_bytes > BOUND, "six parts at once take more");
    let (parts, short) = merged(BOUND);
    assert!((2..6).contains(&parts), "{parts}");
    assert!(short.merge.peak_bytes > 0 && short.merge.peak_bytes <= BOUND);
    for held in [ample, short] {
        assert_eq!(
            (held.chunks.used_bytes, held.flush.used_bytes, held.merge.used_bytes),
            (0, 0, 0)
        );
        assert!(held.chunks.peak_bytes > 0 && held.flush.peak_bytes > held.chunks.peak_bytes);
    }
    let (parts, none) = merged(0);
    assert_eq!((parts, none.merge.peak_bytes), (6, 0), "not even two fit: they wait");
}

#[test]
fn a_scan_reads_on_in_its_snapshot_while_its_parts_are_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicU64::new(NOON));
    let (writer, reader) = Store::open(dir.path(), settings(&now)).unwrap();
    let mut seq = 0;
    let mut expected = 0;
    for seed in 0..5 {
        let (batches, _) = batches(seed, 2, 300, NOON);
        expected += 600;
        append(&writer, &mut seq, &batches);
        writer.flush().unwrap();
    }
    let mut scan = reader.scan(all(Dataset::Traces));
    let mut rows = scan.next().unwrap().unwrap().num_rows();
    now.store(NOON + HOUR, Ordering::SeqCst);
    writer.maintain().unwrap();
    assert_eq!(reader.stats().traces.parts, 1);
    rows += scan.map(|b| b.unwrap().num_rows()).sum::<usize>();
    assert_eq!(rows, expected);
    let files = walk(dir.path()).into_iter().filter(|p| p.ends_with(".parquet")).count();
    assert_eq!(files, 1);
}

#[test]
fn retention_removes_by_age_and_size_and_says_from_when() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicU64::new(NOON));
    let mut with = settings(&now);
    with.traces.age = Duration::from_secs(3 * 24 * 3600);
    let (writer, reader) = Store::open(dir.path(), with.clone()).unwrap();
    let mut seq = 0;
    for day in 0..3 {
        let at = NOON + day * DAY_NANOS;
        now.store(at, Ordering::SeqCst);
        let (batches, _) = batches(day, 1, 500, at);
        append(&writer, &mut seq, &batches);
        writer.flush().unwrap();
    }
    assert_eq!(reader.stats().traces.parts, 3);
    assert_eq!(reader.stats().traces.horizon_unix_nano, 0);
    let later = NOON + 3 * DAY_NANOS + HOUR;
    now.store(later, Ordering::SeqCst);
    writer.maintain().unwrap();
    let stats = reader.stats().traces;
    assert_eq!(stats.rows, 1000);
    assert_eq!(stats.horizon_unix_nano, later - 3 * DAY_NANOS);
    drop((writer, reader));

    with.traces.bytes = Some(stats.bytes - 1);
    let (writer, reader) = Store::open(dir.path(), with).unwrap();
    writer.maintain().unwrap();
    let stats = reader.stats().traces;
    assert_eq!(stats.rows, 500);
    assert!(stats.horizon_unix_nano > NOON + DAY_NANOS);
}

#[test]
fn days_are_sealed_once_and_late_rows_are_sealed_beside_them() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicU64::new(NOON));
    let (writer, reader) = Store::open(dir.path(), settings(&now)).unwrap();
    let mut seq = 0;
    for seed in 0..3 {
        let (batches, _) = batches(seed, 1, 400, NOON);
        append(&writer, &mut seq, &batches);
        writer.flush().unwrap();
    }
    let sealed = |reader: &Reader| reader.stats().traces.sealed_parts;
    writer.maintain().unwrap();
    assert_eq!(sealed(&reader), 0);
    now.store(NOON + DAY_NANOS, Ordering::SeqCst);
    writer.maintain().unwrap();
    assert_eq!((sealed(&reader), reader.stats().traces.parts), (1, 1));
    let first: Vec<_> = walk(dir.path())
        .into_iter()
        .filter(|p| p.contains("/sealed/"))
        .collect();

    let (late, _) = batches(9, 1, 100, NOON);
    append(&writer, &mut seq, &late);
    writer.flush().unwrap();
    writer.maintain().unwrap();
    assert_eq!((sealed(&reader), reader.stats().traces.parts), (1, 2));
    now.store(NOON + DAY_NANOS + 7 * HOUR, Ordering::SeqCst);
    writer.maintain().unwrap();
    assert_eq!((sealed(&reader), reader.stats().traces.parts), (2, 2));
    let second: Vec<_> = walk(dir.path())
        .into_iter()
        .filter(|p| p.contains("/sealed/"))
        .collect();
    assert!(first.iter().all(|f| second.contains(f)), "what is sealed stays");
    assert_eq!(scan_spans(&reader, all(Dataset::Traces)).len(), 1300);
    drop((writer, reader));
    let (_writer, reader) = open(dir.path(), NOON + 2 * DAY_NANOS);
    assert_eq!(scan_spans(&reader, all(Dataset::Traces)).len(), 1300);
}

#[test]
fn a_store_in_use_of_a_newer_version_or_unwritable_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let held = open(dir.path(), NOON);
    let error = Store::open(dir.path(), Settings::default()).err().expect("is refused");
    assert!(
        matches!(&error, OpenError::InUse { pid, .. } if *pid == std::process::id().to_string()),
        "{error}"
    );
    drop(held);
    std::fs::write(dir.path().join("FORMAT"), "trackline-store 99\n").unwrap();
    let error = Store::open(dir.path(), Settings::default()).err().expect("is refused");
    assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error}");
    let file = dir.path().join("a file");
    std::fs::write(&file, "").unwrap();
    let error = Store::open(file.join("store"), Settings::default())
        .err()
        .expect("is refused");
    assert!(error.to_string().contains("a file"), "{error}");
}

/// It was called damaged, and the check of a store of another format found no fault at all.
#[test]
fn a_catalog_of_a_newer_version_is_newer_rather_than_damaged() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), NOON));
    let commit = dir.path().join("catalog").join(format!("{:016x}.commit", 1));
    std::fs::write(&commit, "trackline-catalog 2 of another shape\n{}").unwrap();
    let error = Store::open(dir.path(), Settings::default()).err().expect("is refused");
    assert!(matches!(error, OpenError::Newer { found: 2, known: 1, .. }), "{error}");
    assert_eq!(walk(&dir.path().join("catalog")).len(), 1, "and nothing was changed");
    std::fs::remove_file(commit).unwrap();
    std::fs::write(dir.path().join("FORMAT"), "trackline-store 99\n").unwrap();
    let error = store::check(dir.path()).expect_err("is not looked into");
    assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error}");
}

/// Parts that no catalog names are leftovers of a crash, and removed at the start; a deleted catalog made leftovers of all of them.
#[test]
fn a_deleted_catalog_does_not_take_the_parts_with_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let (writer, reader) = open(dir.path(), NOON);
    let (sent, _) = batches(3, 1, 100, NOON);
    append(&writer, &mut 1, &sent);
    writer.close().expect("flushes");
    drop((writer, reader));
    std::fs::rename(dir.path().join("catalog"), dir.path().join("aside")).expect("the catalog is there");
    std::fs::remove_dir_all(dir.path().join("catalog-copy")).expect("and so is its copy");
    let before = walk(dir.path());
    let refused = Store::open(dir.path(), settings(&Arc::new(AtomicU64::new(NOON))));
    assert!(
        matches!(refused, Err(OpenError::Catalog { .. })),
        "the store opened without its catalog"
    );
    assert_eq!(walk(dir.path()), before);

    std::fs::rename(dir.path().join("aside"), dir.path().join("catalog")).expect("it goes back");
    let (_writer, reader) = open(dir.path(), NOON);
    assert_eq!(scan_spans(&reader, all(Dataset::Traces)).len(), 100);
}

fn walk(dir: &Path) -> Vec<String> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            out.extend(walk(&path));
        } else {
            out.push(path.to_string_lossy().into_owned());
        }
    }
    out
}

#[test]
fn threads_flush_and_merge_by_themselves_and_close_leaves_everything_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        flush_rows: 1500,
        ..Settings::default()
    };
    let acknowledged = Arc::new(std::sync::Mutex::new(store::Ranges::default()));
    let mut expected = Vec::new();
    {
        let (writer, reader) = Store::open(dir.path(), settings.clone()).unwrap();
        let heard = Arc::clone(&acknowledged);
        writer.on_commit(move |source, journal, ranges| {
            assert_eq!((source, journal), ("traces", JOURNAL));
            heard.lock().unwrap().merge(ranges);
        });
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let now = u64::try_from(now.as_nanos()).unwrap();
        let work: Vec<Vec<Batch>> = (0..2).map(|seed| batches(seed, 12, 300, now).0).collect();
        expected.extend(work.iter().flatten().flat_map(span_rows));
        std::thread::scope(|scope| {
            for (worker, batches) in (0u64..).zip(&work) {
                let writer = &writer;
                scope.spawn(move || {
                    for (n, batch) in (0u64..).zip(batches) {
                        let seq = n * 2 + worker;
                        writer
                            .append("traces", JOURNAL, seq..=seq, std::slice::from_ref(batch))
                            .expect("takes");
                    }
                });
            }
        });
        assert_eq!(scan_spans(&reader, all(Dataset::Traces)).len(), expected.len());
        writer.close().unwrap();
        let (more, _) = batches(5, 1, 10, now);
        assert!(writer.append("traces", JOURNAL, 99..=99, &more).is_err());
    }
    assert_eq!(acknowledged.lock().unwrap().iter().collect::<Vec<_>>(), vec![(0, 23)]);
    let (writer, reader) = Store::open(dir.path(), settings).unwrap();
    assert_eq!(writer.covered("traces", JOURNAL).low, 24);
    assert_eq!(scan_spans(&reader, all(Dataset::Traces)), by_id(expected));
}

#[test]
fn memory_is_bounded_and_the_refusal_says_so_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    let with = Settings {
        memory_bytes: 200_000,
        ..settings(&Arc::new(AtomicU64::new(NOON)))
    };
    let (writer, reader) = Store::open(dir.path(), with).unwrap();
    let (batches, _) = batches(1, 30, 100, NOON);
    let mut taken = 0;
    let error = loop {
        match writer.append(
            "traces",
            JOURNAL,
            taken..=taken,
            &batches[taken as usize..=taken as usize],
        ) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(
            error,
            store::AppendError::Full {
                bound_bytes: 200_000,
                ..
            }
        ),
        "{error}"
    );
    assert!(reader.memory_bytes() < 400_000);
    writer.flush().unwrap();
    assert_eq!(reader.memory_bytes(), 0);
    writer
        .append(
            "traces",
            JOURNAL,
            taken..=taken,
            &batches[taken as usize..=taken as usize],
        )
        .expect("there is room again");
    assert_eq!(
        scan_spans(&reader, all(Dataset::Traces)).len() as u64,
        (taken + 1) * 100
    );
}
