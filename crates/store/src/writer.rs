//! The writing handle: append to memory, flush to parts, commit both together with the journal positions they cover.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::Batch;

use crate::append::{Appender, dataset_of};
use crate::block::Block;
use crate::catalog::{Catalog, CatalogError, Commit, Names, PartEntry, Source};
use crate::disk::FileWrite;
use crate::error::{AppendError, FlushError};
use crate::flush::{Sorted, flush_bytes, unite};
use crate::make::{Made, make_from_blocks};
use crate::ranges::{Covered, Ranges};
use crate::snapshot::{Part, Shared, lock};
use crate::{Dataset, Day, Upkeep};

/// A refused append is worth trying again after about one flush.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How long the flusher waits after a failed write before it tries again.
const FLUSH_RETRY: Duration = Duration::from_secs(1);
/// How often upkeep looks whether there is something to merge, seal or remove.
pub const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Rows were taken: they answer queries now, and will be durable in parts after a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Rows taken.
    pub rows: u64,
}

type OnCommit = Box<dyn Fn(&str, [u8; 16], &Ranges) + Send + Sync>;

/// Journal positions whose rows are in memory.
#[derive(Default)]
struct Pending {
    covered: BTreeMap<Source, Ranges>,
    bytes: u64,
    rows: u64,
    oldest: Option<Instant>,
}

#[derive(Default)]
struct Fresh {
    traces: Pending,
    logs: Pending,
    last_failure: Option<String>,
    closed: bool,
}

impl Fresh {
    fn pending(&mut self, dataset: Dataset) -> &mut Pending {
        match dataset {
            Dataset::Traces => &mut self.traces,
            Dataset::Logs => &mut self.logs,
        }
    }
}

/// What the writer's threads share.
pub struct Core {
    pub shared: Arc<Shared>,
    fresh: Mutex<Fresh>,
    /// Signalled when memory is freed, and when there is something to flush.
    room: Condvar,
    work: Condvar,
    /// One commit at a time. Held across a whole flush or the commit of a merge.
    catalog: Mutex<Catalog>,
    /// Files of attempts that failed: removed once a later commit has made their attempt unreadable.
    failed_files: Mutex<Vec<PathBuf>>,
    flushing: Mutex<()>,
    pub merging: Mutex<()>,
    next_part: Mutex<u64>,
    appenders: Mutex<Vec<Appender>>,
    on_commit: Mutex<Option<Arc<OnCommit>>>,
    pub stop: AtomicBool,
    pub upkeep_wake: Condvar,
    pub upkeep_lock: Mutex<bool>,
    _lock: Box<dyn Send + Sync>,
}

/// The writing handle. Dropping it stops its threads without a flush: what was not flushed is replayed from the journal.
pub struct Writer {
    core: Arc<Core>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Writer {
    pub(crate) fn start(shared: Arc<Shared>, catalog: Catalog, held: Box<dyn Send + Sync>) -> io::Result<Writer> {
        let next_part = catalog.state().next_part.max(1);
        let upkeep = shared.settings.upkeep;
        let core = Arc::new(Core {
            shared,
            fresh: Mutex::default(),
            room: Condvar::new(),
            work: Condvar::new(),
            catalog: Mutex::new(catalog),
            failed_files: Mutex::default(),
            flushing: Mutex::default(),
            merging: Mutex::default(),
            next_part: Mutex::new(next_part),
            appenders: Mutex::default(),
            on_commit: Mutex::default(),
            stop: AtomicBool::new(false),
            upkeep_wake: Condvar::new(),
            upkeep_lock: Mutex::new(false),
            _lock: held,
        });
        let mut threads = Vec::new();
        if upkeep == Upkeep::Threads {
            let flusher = Arc::clone(&core);
            threads.push(
                std::thread::Builder::new()
                    .name("store-flush".into())
                    .spawn(move || flusher.flush_loop())?,
            );
            let keeper = Arc::clone(&core);
            threads.push(
                std::thread::Builder::new()
                    .name("store-upkeep".into())
                    .spawn(move || keeper.upkeep_loop())?,
            );
        }
        Ok(Writer {
            core,
            threads: Mutex::new(threads),
        })
    }

    /// Takes the rows of some batches of one signal; they answer queries when this returns. `seqs` are the journal positions that these
    /// batches stand for: positions in between that belong to other streams may and should be included, so that ranges join.
    /// Waits for memory up to `append_wait`; an error means that nothing was taken.
    pub fn append(
        &self,
        source: &str,
        journal: [u8; 16],
        seqs: RangeInclusive<u64>,
        batches: &[Batch],
    ) -> Result<Ticket, AppendError> {
        self.core.append(source, journal, seqs, batches)
    }

    /// What committed parts cover of a source: where its reader goes on after a restart.
    pub fn covered(&self, source: &str, journal: [u8; 16]) -> Covered {
        let catalog = lock(&self.core.catalog);
        let key = (source.to_owned(), hex(&journal));
        catalog.state().covered.get(&key).map(Covered::from).unwrap_or_default()
    }

    /// Calls back after each commit with the positions that have become durable by it.
    pub fn on_commit(&self, callback: impl Fn(&str, [u8; 16], &Ranges) + Send + Sync + 'static) {
        *lock(&self.core.on_commit) = Some(Arc::new(Box::new(callback)));
    }

    /// Everything appended before is in committed parts when this returns.
    pub fn flush(&self) -> Result<(), FlushError> {
        self.core.flush()
    }

    /// One round of upkeep: retention, merges until there is nothing to merge, sealing. The store's thread does the same by itself.
    pub fn maintain(&self) -> Result<(), FlushError> {
        self.core.maintain()
    }

    /// Flushes and ends the store's threads. Later calls fail with `Closed`.
    pub fn close(&self) -> Result<(), FlushError> {
        let flushed = self.core.flush();
        lock(&self.core.fresh).closed = true;
        self.halt();
        flushed
    }

    fn halt(&self) {
        self.core.stop.store(true, Ordering::Release);
        // A thread looks at `stop` under its lock before it waits: passing through the locks makes sure that it hears the call.
        drop(lock(&self.core.fresh));
        drop(lock(&self.core.upkeep_lock));
        self.core.work.notify_all();
        self.core.room.notify_all();
        self.core.upkeep_wake.notify_all();
        for thread in lock(&self.threads).drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.halt();
    }
}

impl Core {
    fn append(
        &self,
        source: &str,
        journal: [u8; 16],
        seqs: RangeInclusive<u64>,
        batches: &[Batch],
    ) -> Result<Ticket, AppendError> {
        let settings = &self.shared.settings;
        let Some(first) = batches.first() else {
            return Ok(Ticket { rows: 0 });
        };
        let dataset = dataset_of(first.signal)?;
        for batch in batches {
            if batch.signal != first.signal {
                return Err(AppendError::Signal("a mixture of signals in one append"));
            }
        }
        self.wait_for_room()?;
        let retention = settings.retention(dataset).age;
        let mut appender = self.appender(dataset);
        let blocks = appender.blocks(batches, u64::try_from(retention.as_nanos()).unwrap_or(u64::MAX));
        lock(&self.appenders).push(appender);

        let rows: u64 = blocks.iter().map(|b| b.rows as u64).sum();
        let bytes: u64 = blocks.iter().map(|b| b.memory_bytes).sum();
        let mut fresh = lock(&self.fresh);
        if fresh.closed {
            return Err(AppendError::Closed);
        }
        let pending = fresh.pending(dataset);
        pending
            .covered
            .entry((source.to_owned(), hex(&journal)))
            .or_default()
            .insert(seqs);
        pending.bytes += bytes;
        pending.rows += rows;
        pending.oldest.get_or_insert_with(Instant::now);
        let due = pending.rows >= settings.flush_rows || pending.bytes >= settings.flush_bytes;
        self.shared.memory.chunks.add(bytes);
        self.shared
            .publish(|next| next.blocks_mut(dataset).extend(blocks.into_iter().map(Arc::new)));
        drop(fresh);
        if due {
            self.work.notify_one();
        }
        Ok(Ticket { rows })
    }

    fn appender(&self, dataset: Dataset) -> Appender {
        let mut appenders = lock(&self.appenders);
        match appenders.iter().position(|a| a.dataset() == dataset) {
            Some(at) => appenders.swap_remove(at),
            None => Appender::new(dataset),
        }
    }

    fn wait_for_room(&self) -> Result<(), AppendError> {
        let settings = &self.shared.settings;
        let deadline = Instant::now() + settings.append_wait;
        let mut fresh = lock(&self.fresh);
        loop {
            if fresh.closed {
                return Err(AppendError::Closed);
            }
            let held = self.shared.memory.chunks.bytes();
            if held < settings.memory_bytes {
                return Ok(());
            }
            self.work.notify_one();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || settings.upkeep == Upkeep::ByHand {
                return Err(AppendError::Full {
                    held_bytes: held,
                    bound_bytes: settings.memory_bytes,
                    retry_after: RETRY_AFTER,
                    last_failure: fresh.last_failure.clone(),
                });
            }
            (fresh, _) = self
                .room
                .wait_timeout(fresh, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn flush_loop(&self) {
        let settings = &self.shared.settings;
        let mut fresh = lock(&self.fresh);
        let mut pause = None;
        while !self.stop.load(Ordering::Acquire) {
            let held = self.shared.memory.chunks.bytes();
            let due = |p: &Pending| {
                p.rows > 0
                    && (p.rows >= settings.flush_rows
                        || p.bytes >= settings.flush_bytes
                        || held >= settings.memory_bytes
                        || p.oldest.is_some_and(|o| o.elapsed() >= settings.flush_after))
            };
            if pause.is_none() && (due(&fresh.traces) || due(&fresh.logs)) {
                drop(fresh);
                if let Err(error) = self.flush() {
                    tracing::error!(%error, "a flush failed");
                    pause = Some(FLUSH_RETRY);
                }
                fresh = lock(&self.fresh);
                continue;
            }
            let wait = pause.take().unwrap_or(settings.flush_after / 4);
            (fresh, _) = self
                .work
                .wait_timeout(fresh, wait)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn upkeep_loop(&self) {
        let mut woken = lock(&self.upkeep_lock);
        loop {
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            if !*woken {
                (woken, _) = self
                    .upkeep_wake
                    .wait_timeout(woken, UPKEEP_EVERY)
                    .unwrap_or_else(PoisonError::into_inner);
                if self.stop.load(Ordering::Acquire) {
                    return;
                }
            }
            *woken = false;
            drop(woken);
            if let Err(error) = self.maintain() {
                tracing::error!(%error, "upkeep of the store failed");
            }
            woken = lock(&self.upkeep_lock);
        }
    }

    /// Wakes upkeep after something changed that it may act on.
    fn wake_upkeep(&self) {
        *lock(&self.upkeep_lock) = true;
        self.upkeep_wake.notify_one();
    }

    pub fn flush(&self) -> Result<(), FlushError> {
        let _one = lock(&self.flushing);
        let mut result = Ok(());
        for dataset in Dataset::ALL {
            if let Err(error) = self.flush_dataset(dataset) {
                lock(&self.fresh).last_failure = Some(error.to_string());
                result = Err(error);
            }
        }
        if result.is_ok() {
            lock(&self.fresh).last_failure = None;
        }
        result
    }

    fn flush_dataset(&self, dataset: Dataset) -> Result<(), FlushError> {
        let (blocks, taken) = {
            let mut fresh = lock(&self.fresh);
            let taken = std::mem::take(fresh.pending(dataset));
            (self.shared.snapshot().blocks(dataset).clone(), taken)
        };
        if blocks.is_empty() && taken.covered.is_empty() {
            return Ok(());
        }
        let result = self.write_blocks(dataset, &blocks, &taken.covered);
        let mut fresh = lock(&self.fresh);
        match result {
            Ok(added) => {
                let gone: std::collections::HashSet<*const Block> = blocks.iter().map(Arc::as_ptr).collect();
                self.shared.publish(|next| {
                    next.blocks_mut(dataset).retain(|b| !gone.contains(&Arc::as_ptr(b)));
                    for entry in added {
                        let part = Part::new(entry, &self.shared.dir, Arc::clone(&self.shared.settings.disk));
                        Arc::make_mut(&mut next.parts).insert(part.entry.id, Arc::new(part));
                    }
                });
                let bytes: u64 = blocks.iter().map(|b| b.memory_bytes).sum();
                self.shared.memory.chunks.sub(bytes);
                drop(fresh);
                self.room.notify_all();
                self.notify(&taken.covered);
                self.wake_upkeep();
                Ok(())
            }
            Err(error) => {
                // The rows stay where they are; their positions go back to what the next flush will cover.
                let pending = fresh.pending(dataset);
                pending.bytes += taken.bytes;
                pending.rows += taken.rows;
                pending.oldest = taken.oldest.or(pending.oldest);
                for (source, ranges) in &taken.covered {
                    pending.covered.entry(source.clone()).or_default().merge(ranges);
                }
                Err(error)
            }
        }
    }

    fn write_blocks(
        &self,
        dataset: Dataset,
        blocks: &[Arc<Block>],
        covered: &BTreeMap<Source, Ranges>,
    ) -> Result<Vec<PartEntry>, FlushError> {
        let mut days: BTreeMap<Day, Vec<Arc<Block>>> = BTreeMap::new();
        for block in blocks {
            days.entry(block.day).or_default().push(Arc::clone(block));
        }
        let mut added = Vec::new();
        for (day, blocks) in days {
            let _held = self.shared.memory.flush.hold(flush_bytes(&blocks));
            let sorted = Sorted::new(&blocks);
            let counted = blocks
                .iter()
                .flat_map(|b| b.columns.iter().map(|c| (&c.spec, c.len() as u64)));
            let union = unite(dataset, counted);
            let made = self.write_part(dataset, day, false, |file| {
                make_from_blocks(file, &sorted, union, dataset, day)
            });
            match made {
                Ok(entry) => added.push(entry),
                Err(error) => {
                    self.abandon(&added);
                    return Err(error);
                }
            }
        }
        let commit = Commit {
            added: added.clone(),
            covered: covered
                .iter()
                .map(|((source, journal), ranges)| (source.clone(), journal.clone(), ranges.clone()))
                .collect(),
            ..Commit::default()
        };
        if let Err(error) = self.commit(&commit) {
            self.abandon(&added);
            return Err(error);
        }
        Ok(added)
    }

    /// Writes one part's file and makes it durable; the catalog does not know it yet.
    pub fn write_part(
        &self,
        dataset: Dataset,
        day: Day,
        sealed: bool,
        make: impl FnOnce(Box<dyn FileWrite>) -> io::Result<(Made, Names)>,
    ) -> Result<PartEntry, FlushError> {
        let disk = &self.shared.settings.disk;
        let id = {
            let mut next = lock(&self.next_part);
            *next += 1;
            *next - 1
        };
        let mut entry = PartEntry {
            id,
            dataset,
            day,
            sealed,
            rows: 0,
            bytes: 0,
            min_time: 0,
            max_time: 0,
            created_unix_nano: self.shared.settings.clock.now_unix_nano(),
            directory: (0, 0, 0),
            crc: None,
            names: Names::default(),
        };
        let path = entry.path(&self.shared.dir);
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let result = (|| {
            self.make_folder(&folder)?;
            let file = disk.create(&path).map_err(failed("create", &path))?;
            let made = make(file).map_err(failed("write", &path))?;
            disk.sync_dir(&folder).map_err(failed("sync", &folder))?;
            Ok(made)
        })();
        match result {
            Ok((made, names)) => {
                entry.rows = made.rows;
                entry.bytes = made.bytes;
                entry.min_time = made.min_time;
                entry.max_time = made.max_time;
                entry.directory = (made.directory.offset, made.directory.bytes, made.directory.crc);
                entry.crc = Some(made.crc);
                entry.names = names;
                Ok(entry)
            }
            Err(error) => {
                // Nobody knows the file; what cannot be removed now is removed at the next open.
                let _ = disk.remove(&path);
                Err(error)
            }
        }
    }

    /// Creates a day's folder and makes its name durable.
    pub fn make_folder(&self, folder: &Path) -> Result<(), FlushError> {
        let disk = &self.shared.settings.disk;
        disk.create_dir_all(folder).map_err(failed("create", folder))?;
        let mut at = folder;
        while let Some(parent) = at.parent() {
            disk.sync_dir(parent).map_err(failed("sync", parent))?;
            if parent == self.shared.dir {
                break;
            }
            at = parent;
        }
        Ok(())
    }

    /// Files whose commit failed: the commit may yet turn out durable, so they stay until a later one has replaced it.
    pub fn abandon(&self, parts: &[PartEntry]) {
        lock(&self.failed_files).extend(parts.iter().map(|p| p.path(&self.shared.dir)));
    }

    /// Makes a commit durable.
    pub fn commit(&self, commit: &Commit) -> Result<(), FlushError> {
        let mut catalog = lock(&self.catalog);
        catalog
            .commit(commit)
            .map_err(|CatalogError { doing, path, source }| FlushError::Io { doing, path, source })?;
        for path in lock(&self.failed_files).drain(..) {
            let _ = self.shared.settings.disk.remove(&path);
        }
        Ok(())
    }

    /// Commits the replacement of some parts and shows it to queries.
    pub fn replace(&self, commit: Commit) -> Result<(), FlushError> {
        if let Err(error) = self.commit(&commit) {
            self.abandon(&commit.added);
            return Err(error);
        }
        // The lock of `fresh` is what orders snapshots.
        let fresh = lock(&self.fresh);
        self.shared.publish(|next| {
            for id in &commit.removed {
                if let Some(part) = Arc::make_mut(&mut next.parts).remove(id) {
                    // A part that is added again has only moved.
                    if commit.added.iter().all(|a| a.id != *id) {
                        part.doom();
                    }
                    self.shared.forget(*id);
                }
            }
            for entry in commit.added {
                let part = Part::new(entry, &self.shared.dir, Arc::clone(&self.shared.settings.disk));
                Arc::make_mut(&mut next.parts).insert(part.entry.id, Arc::new(part));
            }
            for (dataset, horizon) in &commit.horizon {
                let known = next.horizon.entry(*dataset).or_default();
                *known = (*known).max(*horizon);
            }
        });
        drop(fresh);
        Ok(())
    }

    fn notify(&self, covered: &BTreeMap<Source, Ranges>) {
        let callback = lock(&self.on_commit).clone();
        if let Some(callback) = callback {
            for ((source, journal), ranges) in covered {
                callback(source, unhex(journal), ranges);
            }
        }
    }
}

/// Wraps a failure of the file system with what was tried.
pub fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FlushError + use<> {
    let path = path.to_owned();
    move |source| FlushError::Io { doing, path, source }
}

fn hex(id: &[u8; 16]) -> String {
    id.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> [u8; 16] {
    u128::from_str_radix(text, 16).unwrap_or_default().to_be_bytes()
}
