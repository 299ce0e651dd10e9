//! A damaged file of the catalog: what one of the two places lost is in the other; what both lost is done without where that is safe, and refused with
//! words where it is not.

mod refusing;
mod traffic;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::record::LogRecord;
use model::{Batch, Signal};
use refusing::Refusing;
use store::{
    Clock, Columns, DAY_NANOS, Dataset, Filter, FlushError, OpenError, Reader, Scan, Settings, Store, Upkeep, Writer,
};
// The generator of logs looks for its sibling at the root of its crate.
use traffic::spans;
use traffic::{JOURNAL, NOON, batch_at, by_time, log_rows};

const FOLDERS: [&str; 2] = ["catalog", "catalog-copy"];

/// Log records, which nothing ever collapses: what is there twice is seen.
struct Bench {
    dir: tempfile::TempDir,
    now: Arc<AtomicU64>,
    disk: Refusing,
    journal: Vec<Batch>,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            dir: tempfile::tempdir().expect("a directory"),
            now: Arc::new(AtomicU64::new(NOON)),
            disk: Refusing::default(),
            journal: Vec::new(),
        }
    }

    /// One commit for each of so many flushes.
    fn with_flushes(flushes: u64) -> Bench {
        let mut bench = Bench::new();
        let (writer, _reader) = bench.open().expect("opens");
        for _ in 0..flushes {
            bench.flush(&writer);
        }
        bench
    }

    fn flush(&mut self, writer: &Writer) {
        self.try_flush(writer).expect("flushes");
    }

    fn try_flush(&mut self, writer: &Writer) -> Result<(), FlushError> {
        let seq = self.journal.len() as u64;
        let mut source = traffic::logs::LogSource::new(seq, NOON, 1_000_000);
        let batch = batch_at(Signal::Logs, source.request(5), NOON);
        self.journal.push(batch.clone());
        writer.append("logs", JOURNAL, seq..=seq, &[batch]).expect("takes");
        writer.flush()
    }

    fn open(&self) -> Result<(Writer, Reader), OpenError> {
        let now = Arc::clone(&self.now);
        let settings = Settings {
            upkeep: Upkeep::ByHand,
            clock: Clock::from_fn(move || now.load(Ordering::SeqCst)),
            disk: Arc::new(self.disk.clone()),
            ..Settings::default()
        };
        Store::open(self.dir.path(), settings)
    }

    /// What a restarted exporter does.
    fn replay(&self, writer: &Writer) -> usize {
        let covered = writer.covered("logs", JOURNAL);
        let mut replayed = 0;
        for (seq, batch) in (0u64..).zip(&self.journal) {
            if seq >= covered.low && !covered.ranges.iter().any(|r| (r.0..=r.1).contains(&seq)) {
                writer
                    .append("logs", JOURNAL, seq..=seq, std::slice::from_ref(batch))
                    .expect("takes");
                replayed += 1;
            }
        }
        replayed
    }

    fn expected(&self) -> Vec<LogRecord> {
        by_time(self.journal.iter().flat_map(log_rows).collect())
    }

    fn file(&self, folder: &str, name: &str) -> PathBuf {
        self.dir.path().join(folder).join(name)
    }

    fn catalog(&self, folder: &str) -> Vec<String> {
        names(&self.dir.path().join(folder))
    }
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .map(|e| e.expect("lists").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn records(reader: &Reader) -> Vec<LogRecord> {
    let scan = Scan {
        dataset: Dataset::Logs,
        time: 0..u64::MAX,
        filter: Filter::True,
        columns: Columns::All,
        newest_first: true,
    };
    by_time(
        reader
            .scan(scan)
            .flat_map(|batch| store::rows::logs(&batch.expect("reads")))
            .collect(),
    )
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("creates");
    for entry in std::fs::read_dir(from).expect("lists") {
        let path = entry.expect("lists").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).expect("copies");
        }
    }
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).expect("reads");
    let at = bytes.len() / 2;
    bytes[at] ^= 0x20;
    std::fs::write(path, bytes).expect("writes");
}

type Harm = (&'static str, fn(&Path));

const HARMS: [Harm; 3] = [
    ("flipped", flip),
    ("emptied", |path| std::fs::write(path, "").expect("writes")),
    ("removed", |path| std::fs::remove_file(path).expect("removes")),
];

#[test]
fn any_one_damaged_file_is_mended_from_its_copy_without_loss() {
    // A checkpoint and two commits after it, or commits only.
    let sources = [Bench::with_flushes(66), Bench::with_flushes(2)];
    for folder in FOLDERS {
        for at in 0..5 {
            for (harm, hurt) in HARMS {
                let source = &sources[at / 3];
                let bench = Bench {
                    journal: source.journal.clone(),
                    ..Bench::new()
                };
                copy(source.dir.path(), bench.dir.path());
                let name = bench.catalog(folder)[at % 3].clone();
                let case = format!("{folder}/{name} {harm}");
                let file = bench.file(folder, &name);
                hurt(&file);
                let report = store::check(bench.dir.path()).expect("checks");
                if harm != "removed" {
                    assert_eq!(report.problems.len(), 1, "{case}: {report:?}");
                    assert_eq!(report.problems[0].path, file, "{case}");
                }
                let (writer, reader) = bench.open().expect(&case);
                assert_eq!(bench.replay(&writer), 0, "{case}");
                assert!(records(&reader) == bench.expected(), "{case}");
                if harm != "removed" {
                    let told = reader.stats().quarantined;
                    assert!(told.len() == 1 && told[0].path == file, "{case}: {told:?}");
                    let aside = file.with_file_name(format!("{name}.damaged"));
                    assert!(aside.is_file(), "{case}");
                    let report = store::check(bench.dir.path()).expect("checks");
                    assert_eq!((report.problems, report.aside), (Vec::new(), vec![aside]), "{case}");
                }
                drop((writer, reader));
                // The mended pair bears another blow, in the other place.
                let other = FOLDERS[usize::from(folder == FOLDERS[0])];
                let whole = bench.catalog(other).into_iter().find(|n| !n.ends_with("damaged"));
                flip(&bench.file(other, &whole.expect("a file")));
                let (_writer, reader) = bench.open().expect(&case);
                assert!(records(&reader) == bench.expected(), "{case}, and its copy later");
            }
        }
    }
}

#[test]
fn a_catalog_whose_folder_is_gone_comes_back_from_its_copy() {
    for folder in FOLDERS {
        let mut bench = Bench::with_flushes(5);
        std::fs::remove_dir_all(bench.dir.path().join(folder)).expect("removes");
        let (writer, reader) = bench.open().expect("opens");
        assert!(records(&reader) == bench.expected());
        bench.flush(&writer);
        drop((writer, reader));
        let (_writer, reader) = bench.open().expect("opens");
        assert!(records(&reader) == bench.expected());
        assert_eq!(bench.catalog(FOLDERS[0]), bench.catalog(FOLDERS[1]));
    }
}

/// The copy of each commit is durable and the file that counts is not: the commit may stand, whatever it was. A sealed part that the failed commit had moved, and
/// the failure moved back, was taken for a leftover.
#[test]
fn a_commit_that_reached_only_its_copy_may_stand_whatever_it_changed() {
    let mut bench = Bench::with_flushes(8);
    let hours = |hours: u64| NOON + hours * DAY_NANOS / 24;
    // A merge at first, then the move of its output under sealed/, then rows.
    for now in [hours(1), hours(24), hours(25)] {
        let (writer, reader) = bench.open().expect("opens");
        bench.now.store(now, Ordering::SeqCst);
        bench.disk.refuse(Some("/catalog/"));
        if now == hours(25) {
            bench.try_flush(&writer).expect_err("is refused");
        } else {
            writer.maintain().expect_err("is refused");
        }
        assert!(records(&reader) == bench.expected());
        drop((writer, reader));
        bench.disk.refuse(None);
        let (writer, reader) = bench.open().expect("opens");
        assert_eq!(reader.stats().quarantined, Vec::new());
        assert_eq!(bench.replay(&writer), 0, "the commit stands");
        assert!(records(&reader) == bench.expected());
        assert_eq!(reader.stats().logs.sealed_parts, u64::from(now > hours(1)));
    }
}

#[test]
fn the_newest_commit_lost_in_both_places_is_read_from_the_journal_again_and_its_parts_are_kept() {
    let mut bench = Bench::with_flushes(4);
    for folder in FOLDERS {
        let newest = bench.catalog(folder).pop().expect("a commit");
        flip(&bench.file(folder, &newest));
    }
    let (writer, reader) = bench.open().expect("opens");
    assert_eq!(records(&reader).len(), 15);
    let unclaimed = bench.dir.path().join("unclaimed");
    assert_eq!(names(&unclaimed), ["logs-2026-11-20-0000000000000004.parquet"]);
    assert_eq!(
        reader.stats().quarantined.len(),
        3,
        "two files and what they may have named"
    );
    assert_eq!(bench.replay(&writer), 1);
    bench.flush(&writer);
    assert!(records(&reader) == bench.expected());
    drop((writer, reader));
    let (_writer, reader) = bench.open().expect("opens");
    assert!(records(&reader) == bench.expected());
    assert_eq!(reader.stats().quarantined.len(), 0);
    assert_eq!(names(&unclaimed).len(), 1, "nothing removes it");
    let report = store::check(bench.dir.path()).expect("checks");
    assert_eq!((report.problems.len(), report.aside.len()), (0, 3), "{report:?}");
}

#[test]
fn a_merge_lost_in_both_places_is_refused_once_its_inputs_are_gone() {
    let bench = Bench::with_flushes(8);
    bench.now.store(NOON + DAY_NANOS / 24, Ordering::SeqCst);
    let (writer, reader) = bench.open().expect("opens");
    writer.maintain().expect("merges");
    assert_eq!(reader.stats().logs.parts, 1);
    drop((writer, reader));
    for folder in FOLDERS {
        let newest = bench.catalog(folder).pop().expect("a commit");
        flip(&bench.file(folder, &newest));
    }
    refused_and_unchanged(&bench);
}

#[test]
fn a_commit_lost_in_both_places_under_later_ones_is_refused_with_what_to_do() {
    for (flushes, lost) in [(5, 2), (66, 0)] {
        let bench = Bench::with_flushes(flushes);
        for folder in FOLDERS {
            let name = bench.catalog(folder)[lost].clone();
            flip(&bench.file(folder, &name));
        }
        refused_and_unchanged(&bench);
    }
}

fn refused_and_unchanged(bench: &Bench) {
    let everything = || walk(bench.dir.path());
    let before = everything();
    let Err(OpenError::Catalog { what, .. }) = bench.open() else {
        panic!("it opened");
    };
    assert!(what.contains("backup") && what.contains("Parquet"), "{what}");
    assert_eq!(everything(), before);
}

fn walk(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).expect("lists") {
        let path = entry.expect("lists").path();
        if path.is_dir() {
            out.extend(walk(&path));
        } else {
            out.push((path.clone(), std::fs::metadata(&path).expect("is there").len()));
        }
    }
    out.sort();
    out
}
