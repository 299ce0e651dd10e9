//! What the store costs: CPU nanoseconds a row for append, flush and merge, bytes a row, and the latency of looking up traces.
//!
//! `cargo run --release -p store --example cost -- [spans] [days]`. CPU time is that of this thread, so a busy machine blurs it little.

use std::time::{Duration, Instant};

use model::record::Value;
use model::{Batch, Signal, TraceId};
use spans::SpanSource;
use store::{Columns, DAY_NANOS, Dataset, Filter, Limit, Reader, Scan, Settings, Store, Upkeep};

#[path = "../tests/traffic/mod.rs"]
mod traffic;
use traffic::{JOURNAL, NOON, batch_at, spans};

/// Spans of a request, as a collector sends them.
const REQUEST_SPANS: usize = 1000;
/// Lookups measured.
const LOOKUPS: usize = 200;

fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    Duration::from_nanos(nanos)
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let spans: usize = arguments.next().and_then(|a| a.parse().ok()).unwrap_or(1_000_000);
    let days: u64 = arguments.next().and_then(|a| a.parse().ok()).unwrap_or(1);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let end = NOON + days * DAY_NANOS;
    let settings = Settings {
        upkeep: Upkeep::ByHand,
        memory_bytes: u64::MAX,
        clock: store::Clock::from_fn(move || end),
        traces: store::Retention {
            age: Duration::from_secs(30 * 24 * 3600),
            bytes: None,
        },
        ..Settings::default()
    };
    let flush_rows = settings.flush_rows as usize;
    let (writer, reader) = Store::open(dir.path(), settings.clone()).expect("opens");
    let (mut appending, mut flushing, mut merging) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut ids = Vec::new();
    let mut seq = 0;
    let mut payload = 0usize;
    let mut memory = 0;
    for day in 0..days {
        let mut source = SpanSource::new(day + 1, NOON + day * DAY_NANOS, 80_000);
        let requests = spans / REQUEST_SPANS / days as usize;
        let mut fresh = 0;
        for _ in 0..requests {
            let batch: Batch = batch_at(Signal::Traces, source.request(REQUEST_SPANS), NOON + day * DAY_NANOS);
            payload += batch.payload.len();
            let before = cpu();
            writer.append("traces", JOURNAL, seq..=seq, &[batch]).expect("takes");
            appending += cpu() - before;
            seq += 1;
            fresh += REQUEST_SPANS;
            if fresh >= flush_rows {
                memory = memory.max(reader.memory_bytes());
                let before = cpu();
                writer.flush().expect("flushes");
                flushing += cpu() - before;
                fresh = 0;
                let before = cpu();
                writer.maintain().expect("merges");
                merging += cpu() - before;
            }
        }
        ids.extend(source.sampled_ids);
    }
    let before = cpu();
    writer.flush().expect("flushes");
    flushing += cpu() - before;
    let unmerged = reader.stats().traces;
    let before = cpu();
    writer.maintain().expect("merges");
    merging += cpu() - before;
    let stats = reader.stats().traces;
    let each = |d: Duration| d.as_nanos() as f64 / stats.rows as f64;
    println!(
        "spans            {} of {} B on the wire, {} parts before the last round, {} after",
        stats.rows,
        payload / stats.rows.max(1) as usize,
        unmerged.parts,
        stats.parts
    );
    println!("append           {:8.0} ns/span", each(appending));
    println!("flush            {:8.0} ns/span", each(flushing));
    println!("merge            {:8.0} ns/span", each(merging));
    println!("together         {:8.0} ns/span", each(appending + flushing + merging));
    println!(
        "in memory        {:8.1} MiB at most, {:.0} B/span",
        memory as f64 / 1048576.0,
        memory as f64 / flush_rows as f64
    );
    println!("on disk          {:8.2} B/span", stats.bytes as f64 / stats.rows as f64);
    drop((writer, reader));
    let before = Instant::now();
    let (writer, reader) = Store::open(dir.path(), settings).expect("opens again");
    println!("open             {:8.2} ms", before.elapsed().as_secs_f64() * 1e3);
    lookups(&reader, &ids, "first");
    lookups(&reader, &ids, "warm");
    search(&reader, end);
    if std::env::var_os("KEEP").is_some() {
        println!("kept in {}", dir.keep().display());
    }
    drop(writer);
}

fn lookups(reader: &Reader, ids: &[[u8; 16]], what: &str) {
    let mut took: Vec<Duration> = Vec::new();
    for id in ids.iter().step_by((ids.len() / LOOKUPS).max(1)) {
        let before = Instant::now();
        let found = reader.trace(TraceId(*id), &Limit::NONE).expect("reads").records;
        took.push(before.elapsed());
        std::hint::black_box(found.len());
    }
    took.sort_unstable();
    if let (Some(median), Some(worst)) = (took.get(took.len() / 2), took.last()) {
        println!(
            "trace, {what:9} {:8.2} ms median, {:.2} ms at most, of {}",
            median.as_secs_f64() * 1e3,
            worst.as_secs_f64() * 1e3,
            took.len()
        );
    }
}

fn search(reader: &Reader, end: u64) {
    let scan = Scan {
        dataset: Dataset::Traces,
        time: end - DAY_NANOS..u64::MAX,
        filter: Filter::And(vec![
            Filter::eq("resource.service.name", Value::Str("workflow-engine".into())),
            Filter::eq("attr.workflow.id", Value::Str("wf-0042".into())),
        ]),
        columns: Columns::Named(vec![
            "trace_id".into(),
            "start_unix_nano".into(),
            "duration_ns".into(),
            "name".into(),
        ]),
        newest_first: true,
    };
    let before = Instant::now();
    let rows: usize = reader.scan(scan).map(|b| b.expect("reads").num_rows()).sum();
    println!(
        "search one day   {:8.2} ms, {rows} rows",
        before.elapsed().as_secs_f64() * 1e3
    );
}
