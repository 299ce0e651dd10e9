//! A seeded simulation: crashes at any write, torn writes, names that were never made durable, full disks, failing fsyncs and files of the catalog that
//! rot. After each reopening and replay from the store's cursor, every journalled row is there exactly once.

mod simulated;
mod traffic;

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use journal::simulated::{Faults, Loss, SimulatedDisk, seeds};
use model::record::SpanRecord;
use model::{Batch, Signal};
use simulated::Simulated;
use store::{
    Clock, Columns, DAY_NANOS, Dataset, Disk, Filter, OpenError, Reader, Scan, Settings, Store, Upkeep, Writer,
};
// The generator of logs looks for its sibling at the root of its crate.
use traffic::spans;
use traffic::{JOURNAL, NOON, batch_at, by_id, span_rows};

const DIR: &str = "/store";
const STEPS: u32 = 60;
/// Enough for each way of breaking to meet each state in seconds of an unoptimised build; `TRACKLINE_SEEDS` in the environment
/// asks for more.
const SEEDS: Range<u64> = 0..16;
/// Files that rotted, so that it is seen if none did.
static ROTTEN: AtomicU64 = AtomicU64::new(0);

struct World {
    disk: SimulatedDisk,
    /// What goes wrong next, beside what the disk itself is like.
    faults: Faults,
    now: Arc<AtomicU64>,
    journal: Vec<Batch>,
    rows: Vec<SpanRecord>,
    source: spans::SpanSource,
    random: fastrand::Rng,
}

impl World {
    fn new(seed: u64, lies: bool) -> World {
        let faults = Faults {
            pretends_to_sync: lies,
            ..Faults::default()
        };
        let disk = SimulatedDisk::new(seed);
        disk.set_faults(faults);
        World {
            disk,
            faults,
            now: Arc::new(AtomicU64::new(NOON)),
            journal: Vec::new(),
            rows: Vec::new(),
            source: spans::SpanSource::new(seed, NOON, 3_600_000_000_000 / 20),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    fn open(&self) -> Result<(Writer, Reader), OpenError> {
        let now = Arc::clone(&self.now);
        Store::open(
            DIR,
            Settings {
                upkeep: Upkeep::ByHand,
                clock: Clock::from_fn(move || now.load(Ordering::SeqCst)),
                disk: Arc::new(Simulated(self.disk.mounted())),
                ..Settings::default()
            },
        )
    }

    fn fault(&self, change: impl FnOnce(&mut Faults)) {
        let mut faults = self.disk.faults();
        change(&mut faults);
        self.disk.set_faults(faults);
    }

    /// The machine stops and comes back, sometimes with all that was written.
    fn crash(&mut self) {
        let loss = if self.random.u8(0..4) == 0 && !self.faults.pretends_to_sync {
            Loss::Process
        } else {
            Loss::Power
        };
        self.disk.stop();
        self.disk.restart(loss);
        self.disk.set_faults(self.faults);
    }

    /// One file of the catalog that is there in both places is no longer what was written in one of them. (A crash may have left only one place.)
    fn rot(&mut self) -> bool {
        let mut files = self.disk.files();
        let names: HashSet<PathBuf> = files.iter().map(|(path, _)| path.clone()).collect();
        files.retain(|(path, bytes)| {
            let twin = path.to_string_lossy();
            let twin = match twin.contains("/catalog-copy/") {
                true => twin.replace("/catalog-copy/", "/catalog/"),
                false => twin.replace("/catalog/", "/catalog-copy/"),
            };
            let number = path.extension().is_some_and(|e| e == "commit" || e == "checkpoint");
            number && *bytes > 0 && names.contains(Path::new(&twin))
        });
        let Some((path, bytes)) = self.random.choice(&files) else {
            return false;
        };
        if self.random.bool() {
            let file = journal::Disk::open(&self.disk, path, journal::Open::Write).unwrap();
            // A fault that strikes here leaves it whole, which is fine, too.
            return file.set_len(bytes / 2).is_ok();
        }
        self.disk.flip_bit(path, self.random.u64(0..bytes * 8))
    }

    /// What a restarted exporter does: append again what the store's cursor does not cover.
    fn replay(&self, writer: &Writer) {
        let covered = writer.covered("traces", JOURNAL);
        for (seq, batch) in (0u64..).zip(&self.journal) {
            let is_covered = seq < covered.low || covered.ranges.iter().any(|r| (r.0..=r.1).contains(&seq));
            if !is_covered {
                writer
                    .append("traces", JOURNAL, seq..=seq, std::slice::from_ref(batch))
                    .expect("memory is not full");
            }
        }
    }

    fn differs(&self, reader: &Reader) -> Option<String> {
        let scan = Scan {
            dataset: Dataset::Traces,
            time: 0..u64::MAX,
            filter: Filter::True,
            columns: Columns::All,
            newest_first: false,
        };
        let mut found = Vec::new();
        for batch in reader.scan(scan) {
            match batch {
                Ok(batch) => found.extend(store::rows::spans(&batch)),
                Err(error) => return Some(error.to_string()),
            }
        }
        if by_id(found.clone()) == by_id(self.rows.clone()) {
            return None;
        }
        Some(format!("{} rows of {}", found.len(), self.rows.len()))
    }

    fn append(&mut self, writer: &Writer) {
        let batch = batch_at(Signal::Traces, self.source.request(7), self.now.load(Ordering::SeqCst));
        let seq = self.journal.len() as u64;
        self.rows.extend(span_rows(&batch));
        self.journal.push(batch.clone());
        writer
            .append("traces", JOURNAL, seq..=seq, &[batch])
            .expect("memory is not full");
    }

    /// Lives until the machine dies or the steps are over; says what is wrong.
    fn live(&mut self, writer: &Writer, reader: &Reader) -> Option<String> {
        for _ in 0..self.random.u32(1..STEPS) {
            match self.random.u32(0..100) {
                0..50 => self.append(writer),
                50..75 => {
                    let _ = writer.flush();
                }
                75..85 => {
                    let _ = writer.maintain();
                }
                85..90 => {
                    let step = self.random.u64(1..DAY_NANOS / 4);
                    self.now.fetch_add(step, Ordering::SeqCst);
                }
                90..94 => {
                    let full = self.disk.faults().capacity_bytes.is_none();
                    let room = self.random.u64(0..20_000);
                    let used = self.disk.used_bytes();
                    self.fault(|faults| faults.capacity_bytes = full.then_some(used + room));
                }
                94..97 => {
                    let failures = if self.random.bool() { 200 } else { 0 };
                    self.fault(|faults| {
                        faults.sync_failures = failures;
                        faults.write_failures = failures;
                    });
                }
                _ => {
                    let life = self.random.u64(0..60);
                    self.fault(|faults| {
                        faults.stop_after.get_or_insert(life);
                    });
                }
            }
            if self.disk.is_stopped() {
                return None;
            }
            if self.random.u32(0..6) == 0
                && let Some(what) = self.differs(reader)
            {
                return Some(format!("while living: {what}"));
            }
        }
        None
    }
}

/// What was wrong, if anything, and what the disk did.
fn simulate(seed: u64, lies: bool) -> (Option<String>, Vec<String>) {
    let mut world = World::new(seed, lies);
    let what = run(&mut world);
    (what, world.disk.history())
}

/// Lives, crashes and reopens a few times; says what was wrong, if anything.
fn run(world: &mut World) -> Option<String> {
    for round in 0..6 {
        // The machine may die while opening, too.
        if round > 0 && world.random.u32(0..3) == 0 {
            let life = world.random.u64(0..12);
            world.fault(|faults| faults.stop_after = Some(life));
            drop(world.open());
            world.crash();
        }
        if round > 0 && !world.faults.pretends_to_sync && world.random.bool() && world.rot() {
            ROTTEN.fetch_add(1, Ordering::Relaxed);
        }
        let (writer, reader) = match world.open() {
            Ok(opened) => opened,
            Err(error) => return Some(format!("round {round}: {error}")),
        };
        world.replay(&writer);
        if let Some(what) = world.differs(&reader) {
            return Some(format!("round {round}, after replay: {what}"));
        }
        if let Some(what) = world.live(&writer, &reader) {
            return Some(format!("round {round}, {what}"));
        }
        drop((writer, reader));
        world.crash();
    }
    // An open puts a part whose move to the sealed ones was cut short where the catalog says; a check changes nothing.
    if let Err(error) = world.open() {
        return Some(format!("before the check: {error}"));
    }
    let disk: Arc<dyn Disk> = Arc::new(Simulated(world.disk.mounted()));
    let report = store::check_on(&disk, Path::new(DIR));
    match report {
        Ok(report) if report.problems.is_empty() => None,
        Ok(report) => Some(format!("check: {:?}", report.problems)),
        Err(error) => Some(format!("check: {error}")),
    }
}

#[test]
fn every_journalled_row_is_there_once_whatever_breaks() {
    for seed in seeds(SEEDS) {
        let (what, history) = simulate(seed, false);
        if let Some(what) = what {
            panic!(
                "TRACKLINE_SEEDS={seed}: {what}; what the disk did last:\n{}",
                history.join("\n")
            );
        }
    }
    let rotten = ROTTEN.load(Ordering::Relaxed);
    let wanted = seeds(SEEDS).count() as u64;
    assert!(rotten >= wanted, "only {rotten} files of the catalog rotted");
}

#[test]
fn a_disk_that_does_not_sync_is_caught() {
    assert!(
        SEEDS.into_iter().any(|seed| simulate(seed, true).0.is_some()),
        "the simulation would not notice a store that never syncs"
    );
}

/// The commit that sealed it was taken for failed and stood nevertheless; the part had been moved back, and the next open
/// removed it as a file that no commit names.
#[test]
fn a_part_whose_sealing_failed_half_way_is_not_lost() {
    for seed in 0..30 {
        let mut world = World::new(seed, false);
        let (writer, reader) = world.open().unwrap();
        world.append(&writer);
        writer.flush().unwrap();
        world.now.fetch_add(2 * DAY_NANOS, Ordering::SeqCst);
        world.fault(|faults| faults.sync_failures = 200);
        let _ = writer.maintain();
        drop((writer, reader));
        world.disk.stop();
        world.disk.restart(Loss::Process);
        let (writer, reader) = world.open().unwrap();
        world.replay(&writer);
        assert_eq!(world.differs(&reader), None, "seed {seed}");
    }
}
