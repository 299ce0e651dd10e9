//! A disk that lies as real ones do, from a seed: it loses what was not synchronised, tears writes, fails to
//! synchronise, flips bits, fills up, and stops at any operation. For tests of whatever runs on a [`Disk`].
//!
//! Contents become durable by `sync_data`, names by `sync_dir`, neither by the other. A failed `sync_data` may have
//! kept any part of what it was to keep, and a later one does not make up for it: that is what Linux does.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskFile, Lock, Locked, Open};

/// What a disk writes in one piece.
const SECTOR_BYTES: usize = 512;

/// What goes wrong while it runs. The default is nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// After this many more operations that change something, the machine stops in the middle of the next.
    pub stop_after: Option<u64>,
    /// Of a thousand `sync_data`, how many fail.
    pub sync_failures: u32,
    /// Of a thousand writes, how many fail after writing a part.
    pub write_failures: u32,
    /// How much fits.
    pub capacity_bytes: Option<u64>,
}

/// How the machine stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The process ended; everything it had written is there.
    Process,
    /// The power went: of what was not synchronised, any part is there.
    Power,
}

/// A simulated disk; clones are the same disk.
#[derive(Clone)]
pub struct SimulatedDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Change {
    fn apply(&self, contents: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if contents.len() < end {
                    contents.resize(end, 0);
                }
                contents[*offset..end].copy_from_slice(bytes);
            }
            Change::Length(length) => contents.resize(*length, 0),
        }
    }

    /// Some sectors of a write, all or nothing of the rest.
    fn apply_torn(&self, contents: &mut Vec<u8>, random: &mut fastrand::Rng) {
        let Change::Write { offset, bytes } = self else {
            if random.bool() {
                self.apply(contents);
            }
            return;
        };
        let mut at = 0;
        while at < bytes.len() {
            let end = ((offset + at) / SECTOR_BYTES + 1) * SECTOR_BYTES - offset;
            let piece = &bytes[at..end.min(bytes.len())];
            if random.bool() {
                Change::Write {
                    offset: offset + at,
                    bytes: piece.to_vec(),
                }
                .apply(contents);
            }
            at = end;
        }
    }
}

#[derive(Debug, Default)]
struct Contents {
    seen: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Set(PathBuf, usize),
    Remove(PathBuf),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            NameChange::Set(path, file) => drop(names.insert(path.clone(), *file)),
            NameChange::Remove(path) => drop(names.remove(path)),
        }
    }

    fn directory(&self) -> Option<&Path> {
        match self {
            NameChange::Set(path, _) | NameChange::Remove(path) => path.parent(),
        }
    }
}

struct Inner {
    random: fastrand::Rng,
    faults: Faults,
    stopped: bool,
    /// Raised at every restart: what was opened before is of no use after.
    run: u64,
    files: Vec<Contents>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced_names: Vec<NameChange>,
    directories: HashSet<PathBuf>,
    locks: BTreeMap<PathBuf, String>,
}

impl SimulatedDisk {
    pub fn new(seed: u64) -> SimulatedDisk {
        let inner = Inner {
            random: fastrand::Rng::with_seed(seed),
            faults: Faults::default(),
            stopped: false,
            run: 0,
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            directories: HashSet::new(),
            locks: BTreeMap::new(),
        };
        SimulatedDisk {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_faults(&self, faults: Faults) {
        self.inner().faults = faults;
    }

    /// Whether [`Faults::stop_after`] has struck.
    pub fn is_stopped(&self) -> bool {
        self.inner().stopped
    }

    /// The machine starts again, without faults; everything that was open is gone, and so is what the loss took.
    pub fn restart(&self, loss: Loss) {
        let mut inner = self.inner();
        let Inner {
            random,
            files,
            names,
            durable_names,
            unsynced_names,
            ..
        } = &mut *inner;
        match loss {
            Loss::Process => {}
            Loss::Power => {
                for contents in files.iter_mut() {
                    for change in std::mem::take(&mut contents.unsynced) {
                        match random.u8(0..3) {
                            0 => {}
                            1 => change.apply(&mut contents.durable),
                            _ => change.apply_torn(&mut contents.durable, random),
                        }
                    }
                    contents.seen = contents.durable.clone();
                }
                // A file system keeps the order of its names, up to some point.
                let kept = random.usize(0..=unsynced_names.len());
                unsynced_names
                    .drain(..)
                    .take(kept)
                    .for_each(|change| change.apply(durable_names));
                *names = durable_names.clone();
            }
        }
        inner.faults = Faults::default();
        inner.stopped = false;
        inner.run += 1;
        inner.locks.clear();
    }

    /// The files there are, with their lengths.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let inner = self.inner();
        inner
            .names
            .iter()
            .map(|(path, &file)| (path.clone(), inner.files[file].seen.len() as u64))
            .collect()
    }

    /// Turns one bit over, on the platter and in what is read. False if the file is not that long.
    pub fn flip_bit(&self, path: &Path, bit: u64) -> bool {
        let mut inner = self.inner();
        let Some(&file) = inner.names.get(path) else {
            return false;
        };
        let (byte, mask) = ((bit / 8) as usize, 1 << (bit % 8));
        let contents = &mut inner.files[file];
        let Some(seen) = contents.seen.get_mut(byte) else {
            return false;
        };
        *seen ^= mask;
        if let Some(durable) = contents.durable.get_mut(byte) {
            *durable ^= mask;
        }
        true
    }
}

fn stopped() -> io::Error {
    io::Error::other("the simulated machine has stopped")
}

impl Inner {
    /// Counts an operation that changes something. True if the machine stops in the middle of it.
    fn change(&mut self) -> io::Result<bool> {
        if self.stopped {
            return Err(stopped());
        }
        if let Some(left) = &mut self.faults.stop_after {
            if *left == 0 {
                self.stopped = true;
                return Ok(true);
            }
            *left -= 1;
        }
        Ok(false)
    }

    fn strikes(&mut self, of_a_thousand: u32) -> bool {
        of_a_thousand > 0 && self.random.u32(0..1000) < of_a_thousand
    }

    fn used_bytes(&self) -> u64 {
        self.names
            .values()
            .map(|&file| self.files[file].seen.len() as u64)
            .sum()
    }

    fn rename(&mut self, change: NameChange) -> io::Result<()> {
        let stops = self.change()?;
        if stops && self.random.bool() {
            return Err(stopped());
        }
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
        if stops { Err(stopped()) } else { Ok(()) }
    }

    fn write(&mut self, file: usize, change: Change) -> io::Result<()> {
        let stops = self.change()?;
        let old_bytes = self.files[file].seen.len() as u64;
        let new_bytes = match &change {
            Change::Write { offset, bytes } => old_bytes.max((offset + bytes.len()) as u64),
            Change::Length(length) => *length as u64,
        };
        let used = self.used_bytes() - old_bytes + new_bytes;
        if new_bytes > old_bytes && self.faults.capacity_bytes.is_some_and(|capacity| used > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let writing = matches!(change, Change::Write { .. });
        let fails = writing && self.strikes(self.faults.write_failures);
        let change = match change {
            Change::Write { offset, mut bytes } if stops || fails => {
                bytes.truncate(self.random.usize(0..=bytes.len()));
                Change::Write { offset, bytes }
            }
            change => change,
        };
        let contents = &mut self.files[file];
        change.apply(&mut contents.seen);
        contents.unsynced.push(change);
        match (stops, fails) {
            (true, _) => Err(stopped()),
            (_, true) => Err(io::Error::other("a simulated write error")),
            _ => Ok(()),
        }
    }

    fn sync_data(&mut self, file: usize) -> io::Result<()> {
        let stops = self.change()?;
        let fails = self.strikes(self.faults.sync_failures);
        let Inner { files, random, .. } = self;
        let contents = &mut files[file];
        if stops {
            return Err(stopped());
        }
        for change in std::mem::take(&mut contents.unsynced) {
            if fails {
                change.apply_torn(&mut contents.durable, random);
            } else {
                change.apply(&mut contents.durable);
            }
        }
        if fails {
            Err(io::Error::other("a simulated failure to synchronise"))
        } else {
            Ok(())
        }
    }
}

impl Disk for SimulatedDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        if inner.stopped {
            return Err(stopped());
        }
        // A directory's own name is taken to be durable: who made it is beyond what is simulated here.
        inner.directories.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let inner = self.inner();
        if !inner.directories.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let names = inner.names.keys().filter(|name| name.parent() == Some(path));
        Ok(names
            .filter_map(|name| Some(name.file_name()?.to_str()?.to_owned()))
            .collect())
    }

    fn open(&self, path: &Path, open: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.inner();
        let file = match (inner.names.get(path).copied(), open) {
            (Some(_), Open::New) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(file), _) => file,
            (None, Open::New) => {
                let file = inner.files.len();
                inner.files.push(Contents::default());
                inner.rename(NameChange::Set(path.to_owned(), file))?;
                file
            }
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        if inner.stopped {
            return Err(stopped());
        }
        Ok(Arc::new(SimulatedFile {
            disk: self.clone(),
            file,
            run: inner.run,
            writable: open != Open::Read,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let file = inner.names.get(from).copied().ok_or(io::ErrorKind::NotFound)?;
        // One step: a crash shows either both or neither.
        let stops = inner.change()?;
        for change in [
            NameChange::Remove(from.to_owned()),
            NameChange::Set(to.to_owned(), file),
        ] {
            change.apply(&mut inner.names);
        }
        // Whichever prefix of these survives, the new name is there before the old one goes.
        inner.unsynced_names.push(NameChange::Set(to.to_owned(), file));
        inner.unsynced_names.push(NameChange::Remove(from.to_owned()));
        if stops { Err(stopped()) } else { Ok(()) }
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        if !inner.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.rename(NameChange::Remove(path.to_owned()))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        if inner.change()? {
            return Err(stopped());
        }
        let Inner {
            unsynced_names,
            durable_names,
            ..
        } = &mut *inner;
        unsynced_names.retain(|change| {
            let here = change.directory() == Some(path);
            if here {
                change.apply(durable_names);
            }
            !here
        });
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        let inner = self.inner();
        Ok(inner
            .faults
            .capacity_bytes
            .map_or(u64::MAX, |capacity| capacity.saturating_sub(inner.used_bytes())))
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Locked> {
        let mut inner = self.inner();
        if inner.stopped {
            return Err(stopped());
        }
        if let Some(theirs) = inner.locks.get(path) {
            return Ok(Locked::Theirs(theirs.clone()));
        }
        inner.locks.insert(path.to_owned(), owner.to_owned());
        Ok(Locked::Ours(Box::new(SimulatedLock {
            disk: self.clone(),
            path: path.to_owned(),
            run: inner.run,
        })))
    }
}

struct SimulatedLock {
    disk: SimulatedDisk,
    path: PathBuf,
    run: u64,
}

impl Lock for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        let mut inner = self.disk.inner();
        if inner.run == self.run {
            inner.locks.remove(&self.path);
        }
    }
}

struct SimulatedFile {
    disk: SimulatedDisk,
    file: usize,
    run: u64,
    writable: bool,
}

impl SimulatedFile {
    fn inner(&self, writing: bool) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.disk.inner();
        if inner.stopped || inner.run != self.run {
            return Err(stopped());
        }
        if writing && !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(inner)
    }
}

impl DiskFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let inner = self.inner(false)?;
        let seen = &inner.files[self.file].seen;
        let from = (offset as usize).min(seen.len());
        let count = buffer.len().min(seen.len() - from);
        buffer[..count].copy_from_slice(&seen[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let bytes = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.inner(true)?.write(
            self.file,
            Change::Write {
                offset: offset as usize,
                bytes,
            },
        )
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner(true)?.sync_data(self.file)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.inner(true)?.write(self.file, Change::Length(length as usize))
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let mut inner = self.inner(true)?;
        let length = inner.files[self.file].seen.len().max(length as usize);
        inner.write(self.file, Change::Length(length))
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.inner(false)?.files[self.file].seen.len() as u64)
    }
}
