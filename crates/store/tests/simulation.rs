//! A seeded simulation: crashes at any write, torn writes, names that were never made durable, full disks, failing fsyncs and files of the catalog that
//! rot. After each reopening and replay from the store's cursor, every journalled row is there exactly once.

mod traffic;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use model::record::SpanRecord;
use model::{Batch, Signal};
use store::{
    Clock, Columns, DAY_NANOS, Dataset, Disk, Entry, FileRead, FileWrite, Filter, LockError, OpenError, Reader, Scan,
    Settings, Store, Upkeep, Writer,
};
// The generator of logs looks for its sibling at the root of its crate.
use traffic::spans;
use traffic::{JOURNAL, NOON, batch_at, by_id, span_rows};

#[derive(Clone, Default)]
struct Inode {
    data: Vec<u8>,
    synced: usize,
}

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    dirs: std::collections::BTreeSet<PathBuf>,
    random: fastrand::Rng,
    /// Changes until the machine dies.
    life: Option<u64>,
    dead: bool,
    /// One in so many writes and fsyncs fails; 0 for none.
    failing: u32,
    full: bool,
    /// A disk that promises durability and does not deliver: the simulation must catch it.
    lies: bool,
}

/// A disk in memory that can die.
#[derive(Clone, Default)]
struct SimDisk(Arc<Mutex<State>>);

impl State {
    fn change(&mut self) -> io::Result<()> {
        if let Some(life) = &mut self.life {
            if *life == 0 {
                self.dead = true;
            } else {
                *life -= 1;
            }
        }
        if self.dead {
            Err(io::Error::other("the machine died"))
        } else {
            Ok(())
        }
    }

    fn may_fail(&mut self) -> io::Result<()> {
        if self.failing > 0 && self.random.u32(0..self.failing) == 0 {
            return Err(io::Error::other("the disk failed"));
        }
        Ok(())
    }
}

impl SimDisk {
    /// What is left after a power cut: synced bytes and a torn part of the others, durable names and some of the others.
    fn crash(&self) {
        let mut state = self.0.lock().unwrap();
        let state = &mut *state;
        let mut names = BTreeMap::new();
        let paths: Vec<PathBuf> = state.names.keys().chain(state.durable.keys()).cloned().collect();
        for path in paths {
            let kept = if state.random.bool() {
                state.names.get(&path)
            } else {
                state.durable.get(&path)
            };
            if let Some(inode) = kept {
                names.insert(path, *inode);
            }
        }
        for inode in &mut state.inodes {
            let kept = state.random.usize(inode.synced..=inode.data.len());
            inode.data.truncate(kept);
            // What was not synced may also come back as something else.
            if kept > inode.synced && state.random.bool() {
                let at = state.random.usize(inode.synced..kept);
                inode.data[at] ^= 0x55;
            }
            inode.synced = inode.data.len();
        }
        state.durable.clone_from(&names);
        state.names = names;
        state.dead = false;
        state.life = None;
        state.full = false;
        state.failing = 0;
    }
}

impl SimDisk {
    /// One file of the catalog that is there in both places is no longer what was written in one of them. (A crash may have left only one place.)
    fn rot(&self) -> bool {
        let mut state = self.0.lock().unwrap();
        let state = &mut *state;
        let whole: Vec<usize> = state
            .names
            .iter()
            .filter(|(path, _)| {
                let twin = path.to_string_lossy();
                let twin = match twin.contains("/catalog-copy/") {
                    true => twin.replace("/catalog-copy/", "/catalog/"),
                    false => twin.replace("/catalog/", "/catalog-copy/"),
                };
                let number = path.extension().is_some_and(|e| e == "commit" || e == "checkpoint");
                number && state.names.contains_key(Path::new(&twin))
            })
            .map(|(_, inode)| *inode)
            .collect();
        if whole.is_empty() {
            return false;
        }
        let inode = &mut state.inodes[whole[state.random.usize(0..whole.len())]];
        match state.random.bool() {
            true => inode.data.truncate(inode.data.len() / 2),
            false => {
                let at = state.random.usize(0..inode.data.len());
                inode.data[at] ^= 1 << state.random.u32(0..8);
            }
        }
        inode.synced = inode.data.len();
        true
    }
}

struct SimWrite(SimDisk, usize);

impl FileWrite for SimWrite {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.0.lock().unwrap();
        if let Err(error) = state.change() {
            // The write that was under way when the machine died is torn.
            let n = state.random.usize(0..=bytes.len());
            if state.life.take().is_some() {
                state.inodes[self.1].data.extend_from_slice(&bytes[..n]);
            }
            return Err(error);
        }
        if state.full {
            let n = state.random.usize(0..=bytes.len());
            state.inodes[self.1].data.extend_from_slice(&bytes[..n]);
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.may_fail()?;
        state.inodes[self.1].data.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.0.0.lock().unwrap();
        state.change()?;
        state.may_fail()?;
        if !state.lies {
            let inode = &mut state.inodes[self.1];
            inode.synced = inode.data.len();
        }
        Ok(())
    }
}

struct SimRead(Vec<u8>);

impl FileRead for SimRead {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap();
        let bytes = self
            .0
            .get(from..from + buffer.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}

impl Disk for SimDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.change()?;
        for dir in path.ancestors() {
            state.dirs.insert(dir.to_owned());
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let state = self.0.lock().unwrap();
        if state.dead {
            return Err(io::Error::other("the machine died"));
        }
        let files = state
            .names
            .iter()
            .filter(|(p, _)| p.parent() == Some(path))
            .map(|(p, inode)| Entry {
                name: p.file_name().unwrap().to_string_lossy().into_owned(),
                bytes: state.inodes[*inode].data.len() as u64,
                is_dir: false,
            });
        let dirs = state.dirs.iter().filter(|p| p.parent() == Some(path)).map(|p| Entry {
            name: p.file_name().unwrap().to_string_lossy().into_owned(),
            bytes: 0,
            is_dir: true,
        });
        let mut all: Vec<Entry> = files.chain(dirs).collect();
        all.sort();
        Ok(all)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        let mut state = self.0.lock().unwrap();
        state.change()?;
        state.inodes.push(Inode::default());
        let inode = state.inodes.len() - 1;
        state.names.insert(path.to_owned(), inode);
        Ok(Box::new(SimWrite(self.clone(), inode)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileRead>> {
        let state = self.0.lock().unwrap();
        if state.dead {
            return Err(io::Error::other("the machine died"));
        }
        let inode = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimRead(state.inodes[inode].data.clone())))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.change()?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.change()?;
        state.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(())
    }

    fn remove_dir(&self, _path: &Path) -> io::Result<()> {
        self.0.lock().unwrap().change()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.change()?;
        state.may_fail()?;
        if !state.lies {
            let here: Vec<(PathBuf, usize)> = state
                .names
                .iter()
                .filter(|(p, _)| p.parent() == Some(path))
                .map(|(p, i)| (p.clone(), *i))
                .collect();
            state.durable.retain(|p, _| p.parent() != Some(path));
            state.durable.extend(here);
        }
        Ok(())
    }

    fn lock(&self, _path: &Path, _owner: &str) -> Result<Box<dyn Send + Sync>, LockError> {
        Ok(Box::new(()))
    }
}

const DIR: &str = "/store";
const STEPS: u32 = 60;
/// Seeds of a test run; raise it by hand to search for longer.
const SEEDS: u64 = 16;
/// Files that rotted, so that it is seen if none did.
static ROTTEN: AtomicU64 = AtomicU64::new(0);

struct World {
    disk: SimDisk,
    now: Arc<AtomicU64>,
    journal: Vec<Batch>,
    rows: Vec<SpanRecord>,
    source: spans::SpanSource,
    random: fastrand::Rng,
}

impl World {
    fn new(seed: u64, lies: bool) -> World {
        let disk = SimDisk::default();
        {
            let mut state = disk.0.lock().unwrap();
            state.random = fastrand::Rng::with_seed(seed ^ 0xd15c);
            state.lies = lies;
        }
        World {
            disk,
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
                disk: Arc::new(self.disk.clone()),
                ..Settings::default()
            },
        )
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

    /// Lives until the machine dies or the steps are over; says what is wrong.
    fn live(&mut self, writer: &Writer, reader: &Reader) -> Option<String> {
        for _ in 0..self.random.u32(1..STEPS) {
            match self.random.u32(0..100) {
                0..50 => {
                    let batch = batch_at(Signal::Traces, self.source.request(7), self.now.load(Ordering::SeqCst));
                    let seq = self.journal.len() as u64;
                    self.rows.extend(span_rows(&batch));
                    self.journal.push(batch.clone());
                    writer
                        .append("traces", JOURNAL, seq..=seq, &[batch])
                        .expect("memory is not full");
                }
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
                    let mut state = self.disk.0.lock().unwrap();
                    state.full = !state.full;
                }
                94..97 => {
                    let failing = if self.random.bool() { 5 } else { 0 };
                    self.disk.0.lock().unwrap().failing = failing;
                }
                _ => {
                    let life = self.random.u64(0..60);
                    self.disk.0.lock().unwrap().life.get_or_insert(life);
                }
            }
            if self.disk.0.lock().unwrap().dead {
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

/// Lives, crashes and reopens a few times; says what was wrong, if anything.
fn simulate(seed: u64, lies: bool) -> Option<String> {
    let mut world = World::new(seed, lies);
    for round in 0..6 {
        // The machine may die while opening, too.
        if round > 0 && world.random.u32(0..3) == 0 {
            let life = world.random.u64(0..12);
            world.disk.0.lock().unwrap().life = Some(life);
            drop(world.open());
            world.disk.crash();
        }
        if round > 0 && !lies && world.random.bool() && world.disk.rot() {
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
        world.disk.crash();
    }
    let report = store::check_on(&(Arc::new(world.disk.clone()) as Arc<dyn Disk>), Path::new(DIR));
    match report {
        Ok(report) if report.problems.is_empty() => None,
        Ok(report) => Some(format!("check: {:?}", report.problems)),
        Err(error) => Some(format!("check: {error}")),
    }
}

#[test]
fn every_journalled_row_is_there_once_whatever_breaks() {
    for seed in 0..SEEDS {
        if let Some(what) = simulate(seed, false) {
            panic!("seed {seed}: {what}");
        }
    }
    let rotten = ROTTEN.load(Ordering::Relaxed);
    assert!(rotten >= SEEDS, "only {rotten} files of the catalog rotted");
}

#[test]
fn a_disk_that_does_not_sync_is_caught() {
    assert!(
        (0..SEEDS).any(|seed| simulate(seed, true).is_some()),
        "the simulation would not notice a store that never syncs"
    );
}
