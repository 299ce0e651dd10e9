//! What a query sees from its start to its end: fresh blocks and live parts, each row in exactly one of them.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::Dataset;
use crate::block::Block;
use crate::catalog::PartEntry;
use crate::disk::Disk;
use crate::error::ReadError;
use crate::memory::Memory;
use crate::part::OpenPart;
use crate::removed::Removed;
use crate::settings::Settings;

/// Memory of opened parts' directories: those of about a hundred million rows.
pub const OPEN_PARTS_BYTES: u64 = 48 << 20;
/// Parts kept open, each a file descriptor.
const OPEN_PARTS: usize = 256;

/// Locks, also after a panic elsewhere: every value behind these locks is replaced whole.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A part while anyone can see it. Its file goes when it is doomed and the last snapshot that holds it is dropped.
pub struct Part {
    pub entry: PartEntry,
    path: PathBuf,
    disk: Arc<dyn Disk>,
    doomed: AtomicBool,
    bad: AtomicBool,
}

impl Part {
    pub fn new(entry: PartEntry, dir: &Path, disk: Arc<dyn Disk>) -> Part {
        Part {
            path: entry.path(dir),
            entry,
            disk,
            doomed: AtomicBool::new(false),
            bad: AtomicBool::new(false),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The catalog no longer names it: remove the file when nobody reads it any more.
    pub fn doom(&self) {
        self.doomed.store(true, Ordering::Release);
    }

    /// Whether reading it failed for what it holds: it is no longer asked.
    pub fn is_bad(&self) -> bool {
        self.bad.load(Ordering::Acquire)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.doomed.load(Ordering::Acquire)
            && let Err(error) = self.disk.remove(&self.path)
        {
            // It is an orphan now; the next open removes it.
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a replaced part");
        }
    }
}

/// One consistent view.
#[derive(Clone, Default)]
pub struct Snapshot {
    pub traces: Vec<Arc<Block>>,
    pub logs: Vec<Arc<Block>>,
    /// Shared between snapshots, because most changes are appends and there may be thousands of parts.
    pub parts: Arc<BTreeMap<u64, Arc<Part>>>,
    pub horizon: BTreeMap<Dataset, u64>,
}

impl Snapshot {
    pub fn blocks(&self, dataset: Dataset) -> &Vec<Arc<Block>> {
        match dataset {
            Dataset::Traces => &self.traces,
            Dataset::Logs => &self.logs,
        }
    }

    pub fn blocks_mut(&mut self, dataset: Dataset) -> &mut Vec<Arc<Block>> {
        match dataset {
            Dataset::Traces => &mut self.traces,
            Dataset::Logs => &mut self.logs,
        }
    }

    pub fn parts_of(&self, dataset: Dataset) -> impl Iterator<Item = &Arc<Part>> {
        self.parts.values().filter(move |p| p.entry.dataset == dataset)
    }
}

/// A part that was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// Its file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

#[derive(Default)]
struct OpenParts {
    parts: HashMap<u64, (Arc<OpenPart>, u64)>,
    tick: u64,
}

/// What writer and reader share.
pub struct Shared {
    pub dir: PathBuf,
    pub settings: Settings,
    current: RwLock<Arc<Snapshot>>,
    open: Mutex<OpenParts>,
    quarantined: Mutex<Vec<Quarantined>>,
    pub removed: Removed,
    pub memory: Memory,
}

impl Shared {
    pub fn new(dir: PathBuf, settings: Settings, snapshot: Snapshot) -> Shared {
        Shared {
            removed: Removed::open(Arc::clone(&settings.disk), &dir),
            dir,
            settings,
            current: RwLock::new(Arc::new(snapshot)),
            open: Mutex::default(),
            quarantined: Mutex::default(),
            memory: Memory::default(),
        }
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the snapshot; callers hold the writer's lock, so that two never overlap.
    pub fn publish(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut next = Snapshot::clone(&self.snapshot());
        change(&mut next);
        let next = Arc::new(next);
        let old = std::mem::replace(&mut *self.current.write().unwrap_or_else(PoisonError::into_inner), next);
        // Dropping the old view may remove files: not under the lock.
        drop(old);
    }

    /// The opened part, from the cache or the disk. A part that does not hold what it promises is set aside.
    pub fn open_part(&self, part: &Part) -> Result<Arc<OpenPart>, ReadError> {
        {
            let mut open = lock(&self.open);
            open.tick += 1;
            let tick = open.tick;
            if let Some((part, used)) = open.parts.get_mut(&part.entry.id) {
                *used = tick;
                return Ok(Arc::clone(part));
            }
        }
        let disk = &*self.settings.disk;
        let opened = match OpenPart::open(disk, part.path(), Some(part.entry.directory())) {
            // The day was sealed since this snapshot was taken: the same file under its new name.
            Err(ReadError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                let sealed = PartEntry {
                    sealed: !part.entry.sealed,
                    ..part.entry.clone()
                };
                OpenPart::open(disk, &sealed.path(&self.dir), Some(part.entry.directory()))?
            }
            opened => opened?,
        };
        let opened = Arc::new(opened);
        let mut open = lock(&self.open);
        let tick = open.tick;
        let held = &self.memory.open_parts;
        held.add(opened.directory.memory_bytes() as u64);
        if let Some((old, _)) = open.parts.insert(part.entry.id, (Arc::clone(&opened), tick)) {
            held.sub(old.directory.memory_bytes() as u64);
        }
        while open.parts.len() > 1 && (open.parts.len() > OPEN_PARTS || held.bytes() > OPEN_PARTS_BYTES) {
            let Some(oldest) = open.parts.iter().min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id) else {
                break;
            };
            if let Some((old, _)) = open.parts.remove(&oldest) {
                held.sub(old.directory.memory_bytes() as u64);
            }
        }
        Ok(opened)
    }

    /// Forgets an opened part, so that its descriptor goes with its file.
    pub fn forget(&self, id: u64) {
        let mut open = lock(&self.open);
        if let Some((old, _)) = open.parts.remove(&id) {
            self.memory.open_parts.sub(old.directory.memory_bytes() as u64);
        }
    }

    /// Sets a part aside after a read of it failed: it is no longer asked, and reported.
    pub fn set_aside(&self, part: &Part, error: &ReadError) {
        if !part.bad.swap(true, Ordering::AcqRel) {
            tracing::error!(path = %part.path.display(), %error, "a part is damaged and set aside");
            self.forget(part.entry.id);
            self.report(part.path.clone(), error.to_string());
        }
    }

    pub fn report(&self, path: PathBuf, reason: String) {
        lock(&self.quarantined).push(Quarantined { path, reason });
    }

    pub fn quarantined(&self) -> Vec<Quarantined> {
        lock(&self.quarantined).clone()
    }
}
