//! What retention removed is told from what was never here: by age, by size, of both datasets, after a restart, after a crash between the note and the
//! commit, on a disk that does not take the note, and when the note is damaged.

mod refusing;
mod traffic;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::{Batch, Signal, TraceId};
use refusing::Refusing;
use store::{Clock, DAY_NANOS, Dataset, Day, Reader, Removal, Retention, Rule, Settings, Store, Upkeep, Writer};
// The generator of logs looks for its sibling at the root of its crate.
use traffic::spans;
use traffic::{HOUR, JOURNAL, NOON, batch_at, log_rows, span_rows};

const THREE_DAYS: Duration = Duration::from_secs(3 * 24 * 3600);

/// A store that keeps three days, its clock and its disk.
struct Bench {
    dir: tempfile::TempDir,
    now: Arc<AtomicU64>,
    disk: Refusing,
    settings: Settings,
    seq: u64,
}

impl Bench {
    fn new() -> Bench {
        let (now, disk) = (Arc::new(AtomicU64::new(NOON)), Refusing::default());
        let clock = Arc::clone(&now);
        let kept = Retention {
            age: THREE_DAYS,
            bytes: None,
        };
        Bench {
            dir: tempfile::tempdir().expect("a directory"),
            settings: Settings {
                traces: kept,
                logs: kept,
                upkeep: Upkeep::ByHand,
                clock: Clock::from_fn(move || clock.load(Ordering::SeqCst)),
                disk: Arc::new(disk.clone()),
                ..Settings::default()
            },
            now,
            disk,
            seq: 0,
        }
    }

    fn open(&self) -> (Writer, Reader) {
        Store::open(self.dir.path(), self.settings.clone()).expect("opens")
    }

    /// Appends and flushes one batch at a time of the day; returns its distinct traces.
    fn day(&mut self, writer: &Writer, day: u64, signal: Signal) -> Vec<TraceId> {
        let at = NOON + day * DAY_NANOS;
        self.now.store(at, Ordering::SeqCst);
        let payload = match signal {
            Signal::Traces => spans::SpanSource::new(day, at, 500_000).request(400),
            _ => traffic::logs::LogSource::new(day + 100, at, 1_000_000).request(400),
        };
        let batch: Batch = batch_at(signal, payload, at);
        let mut ids: Vec<TraceId> = match signal {
            Signal::Traces => span_rows(&batch).iter().map(|s| s.trace_id).collect(),
            _ => log_rows(&batch).iter().filter_map(|r| r.trace_id).collect(),
        };
        ids.sort();
        ids.dedup();
        assert!(ids.len() > 10);
        writer
            .append("both", JOURNAL, self.seq..=self.seq, &[batch])
            .expect("takes");
        self.seq += 1;
        writer.flush().expect("flushes");
        ids
    }

    fn at(&self, unix_nano: u64) {
        self.now.store(unix_nano, Ordering::SeqCst);
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = match std::fs::read_dir(self.dir.path().join("removed")) {
            Ok(entries) => entries.map(|e| e.expect("lists").path()).collect(),
            Err(_) => Vec::new(),
        };
        files.sort();
        files
    }
}

fn gone(dataset: Dataset, at: u64, rule: Rule) -> Vec<Removal> {
    let day = Day::of(at);
    vec![Removal { dataset, day, rule }]
}

fn unknown(n: u8) -> TraceId {
    TraceId([n | 1; 16])
}

#[test]
fn what_age_removed_of_either_dataset_is_known_by_day_and_rule_after_a_restart_too() {
    let mut bench = Bench::new();
    let (writer, reader) = bench.open();
    let spans = bench.day(&writer, 0, Signal::Traces);
    let logs = bench.day(&writer, 0, Signal::Logs);
    let kept = bench.day(&writer, 2, Signal::Traces);
    assert!(bench.files().is_empty());
    bench.at(NOON + 3 * DAY_NANOS + HOUR);
    writer.maintain().expect("maintains");
    drop((writer, reader));
    let (_writer, reader) = bench.open();
    for id in &spans {
        assert_eq!(reader.removed(*id), gone(Dataset::Traces, NOON, Rule::Age(THREE_DAYS)));
        assert!(
            reader
                .trace(*id, &store::Limit::NONE)
                .expect("reads")
                .records
                .is_empty()
        );
    }
    for id in &logs {
        assert_eq!(reader.removed(*id), gone(Dataset::Logs, NOON, Rule::Age(THREE_DAYS)));
    }
    for id in kept.into_iter().chain((0..=255).map(unknown)) {
        assert_eq!(reader.removed(id), Vec::new());
    }
    let stats = reader.stats();
    assert_eq!((stats.removed.files, stats.removed.parts_without_note), (2, 0));
    let report = store::check(bench.dir.path()).expect("checks");
    assert_eq!((report.removed_lists, report.problems.len()), (2, 0), "{report:?}");
}

#[test]
fn what_size_removed_says_so_and_a_trace_may_be_here_and_removed_in_parts() {
    let mut bench = Bench::new();
    let (writer, reader) = bench.open();
    let first = bench.day(&writer, 0, Signal::Traces);
    let bound = reader.stats().traces.bytes;
    bench.day(&writer, 1, Signal::Traces);
    drop((writer, reader));
    bench.settings.traces.bytes = Some(bound + bound / 2);
    let (writer, reader) = bench.open();
    writer.maintain().expect("maintains");
    let rule = Rule::Bytes(bound + bound / 2);
    for id in &first {
        assert_eq!(reader.removed(*id), gone(Dataset::Traces, NOON, rule));
    }
    // The same spans come again a day later: they are here, and they were removed.
    bench.seq += 1;
    let again = bench.day(&writer, 0, Signal::Traces);
    assert_eq!(again, first);
    assert!(
        !reader
            .trace(first[0], &store::Limit::NONE)
            .expect("reads")
            .records
            .is_empty()
    );
    assert_eq!(reader.removed(first[0]), gone(Dataset::Traces, NOON, rule));
}

#[test]
fn a_crash_between_the_note_and_the_commit_loses_nothing_and_notes_once() {
    let mut bench = Bench::new();
    let (writer, reader) = bench.open();
    let ids = bench.day(&writer, 0, Signal::Traces);
    bench.at(NOON + 4 * DAY_NANOS);
    bench.disk.refuse(Some(".commit"));
    writer.maintain().expect_err("the commit fails");
    writer.maintain().expect_err("the commit fails again");
    assert_eq!(bench.files().len(), 1, "noted, and once");
    let noted = std::fs::metadata(&bench.files()[0]).expect("is there").len();
    assert!(
        !reader
            .trace(ids[0], &store::Limit::NONE)
            .expect("reads")
            .records
            .is_empty()
    );
    // The writer ends without a word, as in a crash.
    drop((writer, reader));
    bench.disk.refuse(None);
    std::fs::write(bench.dir.path().join("removed/half.ids.temporary"), "torn").expect("writes");
    let (writer, reader) = bench.open();
    assert!(
        !reader
            .trace(ids[0], &store::Limit::NONE)
            .expect("reads")
            .records
            .is_empty()
    );
    writer.maintain().expect("maintains");
    assert_eq!(reader.stats().traces.parts, 0);
    for id in ids {
        assert!(reader.trace(id, &store::Limit::NONE).expect("reads").records.is_empty());
        assert_eq!(reader.removed(id), gone(Dataset::Traces, NOON, Rule::Age(THREE_DAYS)));
    }
    let files = bench.files();
    assert_eq!(files.len(), 1, "{files:?}");
    assert_eq!(std::fs::metadata(&files[0]).expect("is there").len(), noted);
}

/// Retention is what frees a full disk: a note that has no room must not stop it.
#[test]
fn a_disk_without_room_for_the_note_does_not_stop_retention() {
    let mut bench = Bench::new();
    let (writer, reader) = bench.open();
    let ids = bench.day(&writer, 0, Signal::Traces);
    bench.at(NOON + 4 * DAY_NANOS);
    bench.disk.refuse(Some("/removed/"));
    writer.maintain().expect("maintains");
    let stats = reader.stats();
    assert_eq!(
        (
            stats.traces.parts,
            stats.removed.files,
            stats.removed.parts_without_note
        ),
        (0, 0, 1)
    );
    assert_eq!(reader.removed(ids[0]), Vec::new());
    assert!(bench.files().is_empty());
}

#[test]
fn parts_of_one_day_share_a_file_and_the_oldest_days_are_forgotten_first() {
    let mut bench = Bench::new();
    let (writer, reader) = bench.open();
    let mut ids = Vec::new();
    for day in 0..3 {
        ids.push(bench.day(&writer, day, Signal::Traces));
        bench.day(&writer, day, Signal::Logs);
        bench.at(NOON + (day + 3) * DAY_NANOS + HOUR);
        writer.maintain().expect("maintains");
    }
    // Late rows of the second day, removed after the others.
    let late = bench.day(&writer, 1, Signal::Traces);
    bench.at(NOON + 5 * DAY_NANOS + HOUR);
    writer.maintain().expect("maintains");
    assert_eq!((late.len(), bench.files().len()), (ids[1].len(), 6));
    for day in &ids {
        assert_eq!(reader.removed(day[0]).len(), 1);
    }
    let bytes = reader.stats().removed.bytes;
    drop((writer, reader));

    bench.settings.remembered.bytes = Some(bytes - 1);
    let (writer, reader) = bench.open();
    writer.maintain().expect("maintains");
    assert_eq!(bench.files().len(), 5);
    drop((writer, reader));
    bench.settings.remembered = Retention {
        age: Duration::from_secs(4 * 24 * 3600),
        bytes: None,
    };
    let (writer, reader) = bench.open();
    writer.maintain().expect("maintains");
    assert_eq!(reader.removed(ids[0][0]), Vec::new(), "the first day is forgotten");
    assert_eq!(reader.removed(ids[1][0]).len(), 1);
    assert_eq!(bench.files().len(), 4);
}

#[test]
fn damage_to_a_list_costs_certainty_and_nothing_else() {
    let mut bench = Bench::new();
    let (writer, reader) = bench.open();
    let ids = bench.day(&writer, 0, Signal::Traces);
    let kept = bench.day(&writer, 3, Signal::Traces);
    bench.at(NOON + 4 * DAY_NANOS);
    writer.maintain().expect("maintains");
    drop((writer, reader));
    let path = bench.files().remove(0);
    let whole = std::fs::read(&path).expect("reads");
    for at in (0..whole.len()).step_by(97) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        if at % 2 == 0 {
            bytes.truncate(at);
        }
        std::fs::write(&path, bytes).expect("writes");
        let (_writer, reader) = bench.open();
        for id in ids.iter().take(3) {
            assert_eq!(reader.removed(*id), Vec::new(), "byte {at}");
        }
        assert_eq!(reader.stats().quarantined.len(), 1, "byte {at}: reported, once");
        assert!(
            !reader
                .trace(kept[0], &store::Limit::NONE)
                .expect("reads")
                .records
                .is_empty()
        );
        drop((_writer, reader));
        let report = store::check(bench.dir.path()).expect("checks");
        assert_eq!(report.problems.len(), 1, "byte {at}: {report:?}");
        assert_eq!(report.problems[0].path, path);
    }
}
