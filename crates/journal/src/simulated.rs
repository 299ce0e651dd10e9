//! A disk that lies as real ones do, from a seed: it loses what was not synchronised, tears writes, fails to
//! synchronise, flips bits, fills up, and stops at any operation. For tests of whatever runs on a [`Disk`]; the store's
//! tests put their own contract over it, so that one disk can break under both.
//!
//! Contents become durable by `sync_data`, names by `sync_dir`, neither by the other. A failed `sync_data` may have
//! kept any part of what it was to keep, and a later one does not make up for it: that is what Linux does.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskFile, Lock, Locked, Open};

/// What a disk writes in one piece.
const SECTOR_BYTES: usize = 512;
/// Operations that are remembered for whoever has to understand a failure: a few lives' worth.
const HISTORY_LIMIT: usize = 500;

/// Which seeds a simulation is to run: `TRACKLINE_SEEDS=7` one, `TRACKLINE_SEEDS=0..5000` many, else its own default.
///
/// # Panics
/// If the variable holds anything else.
pub fn seeds(default: Range<u64>) -> Range<u64> {
    let Ok(text) = std::env::var("TRACKLINE_SEEDS") else {
        return default;
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let range = match text.split_once("..") {
        Some((first, end)) => number(first).zip(number(end)).map(|(first, end)| first..end),
        None => number(&text).map(|seed| seed..seed + 1),
    };
    range.unwrap_or_else(|| panic!("TRACKLINE_SEEDS must be a seed or a range like 0..500, not {text:?}"))
}

/// What goes wrong while it runs. The default is nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// After this many more operations that change something, the machine stops in the middle of the next.
    pub stop_after: Option<u64>,
    /// Of a thousand `sync_data` and `sync_dir`, how many fail.
    pub sync_failures: u32,
    /// Of a thousand writes, how many fail after writing a part.
    pub write_failures: u32,
    /// How much fits.
    pub capacity_bytes: Option<u64>,
    /// Says that it has synchronised, and has not: what no program can survive, so that a simulation can show that it
    /// would notice a program that does not synchronise.
    pub pretends_to_sync: bool,
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
    /// The life of the machine that this handle belongs to; none for one that outlives restarts.
    run: Option<u64>,
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
    /// The old name of a file that was renamed to the other: it never goes before that one is there.
    Renamed(PathBuf, PathBuf),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            NameChange::Set(path, file) => drop(names.insert(path.clone(), *file)),
            NameChange::Remove(path) | NameChange::Renamed(path, _) => drop(names.remove(path)),
        }
    }

    fn directory(&self) -> Option<&Path> {
        match self {
            NameChange::Set(path, _) | NameChange::Remove(path) | NameChange::Renamed(path, _) => path.parent(),
        }
    }
}

/// What a loss of power leaves of names that were not synchronised: each directory keeps the order of its own up to some
/// point, and no file system loses both names of a file that was renamed.
fn lose_names(changes: Vec<NameChange>, names: &mut BTreeMap<PathBuf, usize>, random: &mut fastrand::Rng) {
    let mut waiting: HashMap<PathBuf, usize> = HashMap::new();
    for change in &changes {
        *waiting.entry(home(change)).or_default() += 1;
    }
    let mut kept: HashMap<PathBuf, usize> = waiting
        .into_iter()
        .collect::<BTreeMap<_, _>>()
        .into_iter()
        .map(|(directory, count)| (directory, random.usize(0..=count)))
        .collect();
    let mut dropped: BTreeSet<PathBuf> = BTreeSet::new();
    for change in changes {
        let left = kept.get_mut(&home(&change)).expect("counted above");
        let lost = *left == 0 || matches!(&change, NameChange::Renamed(_, to) if dropped.contains(to));
        if lost {
            *left = 0;
            if let NameChange::Set(path, _) = change {
                dropped.insert(path);
            }
        } else {
            *left -= 1;
            change.apply(names);
        }
    }
}

fn home(change: &NameChange) -> PathBuf {
    change.directory().map(Path::to_owned).unwrap_or_default()
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
    directories: BTreeSet<PathBuf>,
    locks: BTreeMap<PathBuf, String>,
    history: VecDeque<String>,
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
            directories: BTreeSet::new(),
            locks: BTreeMap::new(),
            history: VecDeque::new(),
        };
        SimulatedDisk {
            inner: Arc::new(Mutex::new(inner)),
            run: None,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk as a program of this life of the machine sees it: after the next restart it is of no use, so that a
    /// thread that has not noticed its death changes nothing.
    pub fn mounted(&self) -> SimulatedDisk {
        let run = Some(self.inner().run);
        SimulatedDisk {
            inner: self.inner.clone(),
            run,
        }
    }

    /// For an operation of a program, which needs a machine that runs.
    fn running(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.inner();
        if inner.stopped || self.run.is_some_and(|run| run != inner.run) {
            return Err(stopped());
        }
        Ok(inner)
    }

    pub fn set_faults(&self, faults: Faults) {
        self.inner().faults = faults;
    }

    pub fn faults(&self) -> Faults {
        self.inner().faults
    }

    /// The machine stops here.
    pub fn stop(&self) {
        self.inner().stopped = true;
    }

    /// Whether it was stopped, or [`Faults::stop_after`] has struck; for one that is mounted, for ever.
    pub fn is_stopped(&self) -> bool {
        self.running().is_err()
    }

    /// What all files together take.
    pub fn used_bytes(&self) -> u64 {
        self.inner().used_bytes()
    }

    /// The last operations that changed something, with what came of them: the one order in which things happened.
    pub fn history(&self) -> Vec<String> {
        self.inner().history.iter().cloned().collect()
    }

    /// Whether there is such a directory.
    pub fn is_directory(&self, path: &Path) -> bool {
        self.inner().directories.contains(path)
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.running()?;
        let within = |name: &PathBuf| name.parent() == Some(path);
        if inner.names.keys().any(within) || inner.directories.iter().any(within) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        match inner.directories.remove(path) {
            true => Ok(()),
            false => Err(io::ErrorKind::NotFound.into()),
        }
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
                lose_names(std::mem::take(unsynced_names), durable_names, random);
                *names = durable_names.clone();
            }
        }
        // What has no name any more is gone for good.
        let pending = unsynced_names.iter().filter_map(|change| match change {
            NameChange::Set(_, file) => Some(file),
            NameChange::Remove(_) | NameChange::Renamed(..) => None,
        });
        let named: BTreeSet<usize> = names
            .values()
            .chain(durable_names.values())
            .chain(pending)
            .copied()
            .collect();
        for (at, contents) in files.iter_mut().enumerate() {
            if !named.contains(&at) {
                *contents = Contents::default();
            }
        }
        inner.note(|| format!("restart after the loss of the {loss:?}"));
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

fn name_of(path: &Path) -> String {
    path.display().to_string()
}

impl Inner {
    fn note(&mut self, what: impl FnOnce() -> String) {
        if self.history.len() == HISTORY_LIMIT {
            self.history.pop_front();
        }
        self.history.push_back(what());
    }

    /// Notes an operation with its outcome.
    fn noted<T>(&mut self, what: impl FnOnce() -> String, result: io::Result<T>) -> io::Result<T> {
        let outcome = match &result {
            Ok(_) => "done".to_owned(),
            Err(error) => error.to_string(),
        };
        self.note(|| format!("{}: {outcome}", what()));
        result
    }

    /// A file's name, for the history.
    fn file_name(&self, file: usize) -> String {
        let named = self.names.iter().find(|(_, found)| **found == file);
        named.map_or_else(|| format!("a removed file {file}"), |(path, _)| name_of(path))
    }

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
        let used = self.used_bytes().saturating_sub(old_bytes) + new_bytes;
        let full = new_bytes > old_bytes && self.faults.capacity_bytes.is_some_and(|capacity| used > capacity);
        let writing = matches!(change, Change::Write { .. });
        if full && !writing {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let fails = writing && self.strikes(self.faults.write_failures);
        let change = match change {
            // A write that does not get to its end has written some of it.
            Change::Write { offset, mut bytes } if stops || fails || full => {
                bytes.truncate(self.random.usize(0..=bytes.len()));
                Change::Write { offset, bytes }
            }
            change => change,
        };
        let contents = &mut self.files[file];
        change.apply(&mut contents.seen);
        contents.unsynced.push(change);
        match (stops, full, fails) {
            (true, ..) => Err(stopped()),
            (_, true, _) => Err(io::ErrorKind::StorageFull.into()),
            (.., true) => Err(io::Error::other("a simulated write error")),
            _ => Ok(()),
        }
    }

    fn sync_data(&mut self, file: usize) -> io::Result<()> {
        let stops = self.change()?;
        let fails = self.strikes(self.faults.sync_failures);
        let Inner {
            files, random, faults, ..
        } = self;
        let contents = &mut files[file];
        if stops {
            return Err(stopped());
        }
        if faults.pretends_to_sync {
            return Ok(());
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

    fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        if self.change()? {
            return Err(stopped());
        }
        if self.faults.pretends_to_sync {
            return Ok(());
        }
        let all = std::mem::take(&mut self.unsynced_names);
        // A file that was renamed from here to elsewhere has its new name before it loses the old one.
        let targets: BTreeSet<PathBuf> = all
            .iter()
            .filter_map(|change| match change {
                NameChange::Renamed(from, to) if from.parent() == Some(path) => Some(to.parent()?.to_owned()),
                _ => None,
            })
            .chain([path.to_owned()])
            .collect();
        let (here, elsewhere): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|change| change.directory().is_some_and(|directory| targets.contains(directory)));
        self.unsynced_names = elsewhere;
        let fails = self.strikes(self.faults.sync_failures);
        let kept = if fails {
            self.random.usize(0..=here.len())
        } else {
            here.len()
        };
        for change in &here[..kept] {
            change.apply(&mut self.durable_names);
        }
        if fails {
            // Unlike contents, names stay with the file system until it gets them down.
            self.unsynced_names.splice(0..0, here.into_iter().skip(kept));
            return Err(io::Error::other("a simulated failure to synchronise"));
        }
        Ok(())
    }
}

impl Disk for SimulatedDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        // A directory's own name is taken to be durable: who made it is beyond what is simulated here.
        self.running()?.directories.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let inner = self.running()?;
        if !inner.directories.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let names = inner.names.keys().chain(&inner.directories);
        Ok(names
            .filter(|name| name.parent() == Some(path))
            .filter_map(|name| Some(name.file_name()?.to_str()?.to_owned()))
            .collect())
    }

    fn open(&self, path: &Path, open: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.running()?;
        let file = match (inner.names.get(path).copied(), open) {
            (Some(_), Open::New) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(file), _) => file,
            (None, Open::New) => {
                let file = inner.files.len();
                inner.files.push(Contents::default());
                let made = inner.rename(NameChange::Set(path.to_owned(), file));
                inner.noted(|| format!("make {}", name_of(path)), made)?;
                file
            }
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(SimulatedFile {
            disk: self.clone(),
            file,
            run: inner.run,
            writable: open != Open::Read,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.running()?;
        let file = inner.names.get(from).copied().ok_or(io::ErrorKind::NotFound)?;
        // One step: a crash shows either both or neither.
        let stops = inner.change()?;
        for change in [
            NameChange::Set(to.to_owned(), file),
            NameChange::Renamed(from.to_owned(), to.to_owned()),
        ] {
            change.apply(&mut inner.names);
            inner.unsynced_names.push(change);
        }
        let result = if stops { Err(stopped()) } else { Ok(()) };
        inner.noted(|| format!("rename {} to {}", name_of(from), name_of(to)), result)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.running()?;
        if !inner.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let removed = inner.rename(NameChange::Remove(path.to_owned()));
        inner.noted(|| format!("remove {}", name_of(path)), removed)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.running()?;
        let synced = inner.sync_dir(path);
        inner.noted(|| format!("synchronise the names in {}", name_of(path)), synced)
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        let inner = self.running()?;
        Ok(inner
            .faults
            .capacity_bytes
            .map_or(u64::MAX, |capacity| capacity.saturating_sub(inner.used_bytes())))
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Locked> {
        let mut inner = self.running()?;
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
        let mut bytes = Vec::with_capacity(slices.iter().map(|slice| slice.len()).sum());
        slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
        let length = bytes.len();
        let mut inner = self.inner(true)?;
        let written = inner.write(
            self.file,
            Change::Write {
                offset: offset as usize,
                bytes,
            },
        );
        let name = inner.file_name(self.file);
        inner.noted(|| format!("write {length} bytes at {offset} of {name}"), written)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.inner(true)?;
        let synced = inner.sync_data(self.file);
        let name = inner.file_name(self.file);
        inner.noted(|| format!("synchronise {name}"), synced)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut inner = self.inner(true)?;
        let cut = inner.write(self.file, Change::Length(length as usize));
        let name = inner.file_name(self.file);
        inner.noted(|| format!("set the length of {name} to {length}"), cut)
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
