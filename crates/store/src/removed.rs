//! Which traces retention has removed, so that a lookup can tell *removed* from *never seen*: sorted fingerprints in small files beside the catalog. See
//! `docs/format/removed.md`.
//!
//! No commit names these files. They only say that an id was here once, rows that are there always answer first, and so a file that is written and whose
//! removal then fails claims nothing wrong. What cannot be written or read loses the certainty for some ids and nothing else.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use model::TraceId;

use crate::disk::{Disk, FileRead};
use crate::encoding::{put_varint, take_varint};
use crate::settings::Retention;
use crate::snapshot::lock;
use crate::texts::hash_seeded;
use crate::{Dataset, Day};

/// The folder below the store's directory.
pub const REMOVED_DIR: &str = "removed";
const ENDING: &str = ".ids";
const TEMPORARY: &str = ".temporary";
const MAGIC: &[u8; 8] = b"TRKLRMV1";
/// Magic, dataset, reason, two bytes of nothing, day, bound, ids, blocks.
const HEAD_BYTES: usize = 36;
/// What one lookup reads of a file.
const BLOCK_BYTES: usize = 4096;
/// A count before the entries of a block and a checksum behind them.
const BLOCK_ROOM: usize = BLOCK_BYTES - 2 - 4;
/// Ids of one file: 8 MiB while they are sorted, about 4.6 MB on disk.
const FILE_IDS: usize = 1 << 20;
/// A file with fewer than this many is folded into the next one of its day.
const FULL_IDS: usize = FILE_IDS / 4 * 3;
/// More blocks than the largest file has: a damaged head must not ask for the memory.
const MAX_BLOCKS: usize = FILE_IDS * 8 / BLOCK_ROOM + 1;
/// Part of the format: changing it makes old files unreadable.
const SEED: u64 = 0x7265_6d6f_7665_6421;

/// 48 bits: among the 60 million ids that the default bound remembers, one of four million lookups of an id that was never here meets a wrong one.
fn fingerprint(id: &TraceId) -> u64 {
    hash_seeded(&id.0, SEED) >> 16
}

/// The rule by which retention removed something, as it was then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Only what is younger is kept.
    Age(Duration),
    /// Only so many bytes of the dataset are kept.
    Bytes(u64),
}

impl Rule {
    fn name(self) -> &'static str {
        match self {
            Rule::Age(_) => "age",
            Rule::Bytes(_) => "size",
        }
    }
}

/// Rows of a trace that were here and that retention removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Removal {
    /// Spans or log records.
    pub dataset: Dataset,
    /// The day that they lay in.
    pub day: Day,
    /// Why they went.
    pub rule: Rule,
}

/// What is remembered of removed traces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemovedStats {
    /// Files of fingerprints.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Parts that were removed in this process's life without a note of their traces, because writing it or reading them failed.
    pub parts_without_note: u64,
}

/// One file. A name is never used twice, so that what is cached of a file stays true.
struct List {
    path: PathBuf,
    /// `2026-11-12-traces-age-0000002a.ids`: sorts by day.
    name: String,
    bytes: u64,
    head: OnceLock<Head>,
    bad: AtomicBool,
}

/// What a file says of itself, and the first fingerprint of each block: 8 bytes for every 4 KiB.
struct Head {
    removal: Removal,
    ids: u64,
    firsts: Vec<u64>,
}

enum Fault {
    Io(io::Error),
    Damaged(&'static str),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Fault::Damaged("the file is cut short"),
            _ => Fault::Io(error),
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Io(error) => write!(f, "{error}"),
            Fault::Damaged(what) => f.write_str(what),
        }
    }
}

/// All files of a store.
pub struct Removed {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    lists: Mutex<Vec<Arc<List>>>,
    /// Parts whose ids are noted and whose removal is not committed yet: a retry does not note them again.
    noted: Mutex<BTreeSet<u64>>,
    next: AtomicU64,
    parts_without_note: AtomicU64,
}

impl Removed {
    /// Lists the files; none is opened. What cannot be listed is not remembered.
    pub fn open(disk: Arc<dyn Disk>, store: &Path) -> Removed {
        let dir = store.join(REMOVED_DIR);
        let mut lists = Vec::new();
        let mut next = 0;
        let entries = disk.list(&dir).unwrap_or_else(|error| {
            tracing::warn!(path = %dir.display(), %error, "cannot list what is remembered of removed traces");
            Vec::new()
        });
        for entry in entries {
            let path = dir.join(&entry.name);
            if entry.name.ends_with(TEMPORARY) {
                // Left by a crash; what cannot be removed now is written over or removed at another start.
                let _ = disk.remove(&path);
            } else if let Some(number) = number_of(&entry.name) {
                next = next.max(number + 1);
                lists.push(Arc::new(List::new(path, entry.name, entry.bytes)));
            }
        }
        Removed {
            dir,
            disk,
            lists: Mutex::new(lists),
            noted: Mutex::default(),
            next: AtomicU64::new(next),
            parts_without_note: AtomicU64::new(0),
        }
    }

    pub fn stats(&self) -> RemovedStats {
        let lists = lock(&self.lists);
        RemovedStats {
            files: lists.len() as u64,
            bytes: lists.iter().map(|l| l.bytes).sum(),
            parts_without_note: self.parts_without_note.load(Ordering::Relaxed),
        }
    }

    /// What was removed of a trace, oldest day first. `damaged` hears of each damaged file once.
    pub fn find(&self, id: &TraceId, damaged: &mut dyn FnMut(PathBuf, String)) -> Vec<Removal> {
        let wanted = fingerprint(id);
        'again: loop {
            let lists = lock(&self.lists).clone();
            let mut found = BTreeSet::new();
            for list in &lists {
                match list.holds(&*self.disk, wanted) {
                    Ok(Some(removal)) => {
                        found.insert((removal.day, removal));
                    }
                    Ok(None) => {}
                    // Folded into another file since the list was taken.
                    Err(Fault::Io(error)) if error.kind() == io::ErrorKind::NotFound && !self.lists(list) => {
                        continue 'again;
                    }
                    Err(fault) => {
                        if !list.bad.swap(true, Ordering::AcqRel) {
                            tracing::error!(path = %list.path.display(), %fault, "a list of removed traces is damaged: for some ids it is no longer certain that they were here");
                            damaged(list.path.clone(), fault.to_string());
                        }
                    }
                }
            }
            return found.into_iter().map(|(_, removal)| removal).collect();
        }
    }

    fn lists(&self, list: &Arc<List>) -> bool {
        lock(&self.lists).iter().any(|l| Arc::ptr_eq(l, list))
    }

    /// Starts a note of ids that lay in one day of a dataset.
    pub fn note(&self, removal: Removal) -> Note<'_> {
        let prefix = prefix(&removal);
        let mut note = Note {
            all: self,
            removal,
            ids: Vec::new(),
            folded: Vec::new(),
            made: Vec::new(),
        };
        for list in lock(&self.lists).iter().filter(|l| l.name.starts_with(&prefix)) {
            if let Ok(ids) = list.small_ids(&*self.disk)
                && !ids.is_empty()
                && note.ids.len() + ids.len() <= FULL_IDS
            {
                note.ids.extend(ids);
                note.folded.push(Arc::clone(list));
            }
        }
        note
    }

    pub fn is_noted(&self, part: u64) -> bool {
        lock(&self.noted).contains(&part)
    }

    pub fn set_noted(&self, part: u64) {
        lock(&self.noted).insert(part);
    }

    /// The removal of parts stands; `lost` of them are gone without a note.
    pub fn committed(&self, parts: &[u64], lost: u64) {
        let mut noted = lock(&self.noted);
        for part in parts {
            noted.remove(part);
        }
        self.parts_without_note.fetch_add(lost, Ordering::Relaxed);
    }

    /// Forgets what is beyond the bound, the oldest days first.
    pub fn forget(&self, bound: Retention, now_unix_nano: u64) {
        let age = u64::try_from(bound.age.as_nanos()).unwrap_or(u64::MAX);
        // A day is too old when it ended before the bound, and names begin with their day.
        let oldest = Day::of(now_unix_nano.saturating_sub(age)).folder();
        let gone: Vec<Arc<List>> = {
            let mut lists = lock(&self.lists);
            lists.sort_by(|a, b| a.name.cmp(&b.name));
            let mut bytes: u64 = lists.iter().map(|l| l.bytes).sum();
            let mut keep = 0;
            for list in lists.iter() {
                if list.name.as_str() >= oldest.as_str() && bound.bytes.is_none_or(|most| bytes <= most) {
                    break;
                }
                bytes -= list.bytes;
                keep += 1;
            }
            lists.drain(..keep).collect()
        };
        for list in &gone {
            tracing::info!(path = %list.path.display(), "forgets which traces were removed");
            self.remove(list);
        }
    }

    fn remove(&self, list: &List) {
        if let Err(error) = self.disk.remove(&list.path) {
            // It is listed again at the next start, and forgotten then.
            tracing::warn!(path = %list.path.display(), %error, "cannot remove a list of removed traces");
        }
    }
}

/// The number in a file's name; `None` if it is not one of ours.
fn number_of(name: &str) -> Option<u64> {
    let (_, number) = name.strip_suffix(ENDING)?.rsplit_once('-')?;
    u64::from_str_radix(number, 16).ok()
}

fn prefix(removal: &Removal) -> String {
    let Removal { dataset, day, rule } = removal;
    format!("{}-{}-{}-", day.folder(), dataset.as_str(), rule.name())
}

/// Ids on their way into files: dropped unfinished, it leaves the files as they were.
pub struct Note<'a> {
    all: &'a Removed,
    removal: Removal,
    ids: Vec<u64>,
    /// Files whose ids are in here now.
    folded: Vec<Arc<List>>,
    made: Vec<Arc<List>>,
}

impl Note<'_> {
    pub fn push(&mut self, id: &TraceId) -> io::Result<()> {
        let print = fingerprint(id);
        if self.ids.last() == Some(&print) {
            return Ok(());
        }
        self.ids.push(print);
        if self.ids.len() >= FILE_IDS {
            self.straighten();
            if self.ids.len() >= FULL_IDS {
                self.write()?;
            }
        }
        Ok(())
    }

    fn straighten(&mut self) {
        self.ids.sort_unstable();
        self.ids.dedup();
    }

    fn write(&mut self) -> io::Result<()> {
        let bytes = encode(&self.removal, &self.ids);
        let (disk, dir) = (&self.all.disk, &self.all.dir);
        let number = self.all.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{number:08x}{ENDING}", prefix(&self.removal));
        let path = dir.join(&name);
        let temporary = dir.join(format!("{name}{TEMPORARY}"));
        disk.create_dir_all(dir)?;
        let written = (|| {
            let mut file = disk.create(&temporary)?;
            file.write_all(&bytes)?;
            file.sync()?;
            drop(file);
            disk.rename(&temporary, &path)
        })();
        if let Err(error) = written {
            // A disk that is full has its room back.
            let _ = disk.remove(&temporary);
            return Err(error);
        }
        self.made.push(Arc::new(List::new(path, name, bytes.len() as u64)));
        self.ids.clear();
        Ok(())
    }

    /// Makes the note durable and visible; the files that it folded go.
    pub fn finish(mut self) -> io::Result<()> {
        self.straighten();
        if !self.ids.is_empty() {
            self.write()?;
        }
        if self.made.is_empty() {
            return Ok(());
        }
        self.all.disk.sync_dir(&self.all.dir)?;
        if let Some(store) = self.all.dir.parent() {
            self.all.disk.sync_dir(store)?;
        }
        let folded = std::mem::take(&mut self.folded);
        {
            let mut lists = lock(&self.all.lists);
            lists.retain(|l| !folded.iter().any(|f| Arc::ptr_eq(f, l)));
            lists.append(&mut self.made);
        }
        for list in &folded {
            self.all.remove(list);
        }
        Ok(())
    }
}

impl Drop for Note<'_> {
    fn drop(&mut self) {
        // Empty after `finish`.
        for list in &self.made {
            self.all.remove(list);
        }
    }
}

/// A file of sorted, distinct fingerprints.
fn encode(removal: &Removal, ids: &[u64]) -> Vec<u8> {
    let mut firsts: Vec<u64> = Vec::new();
    let mut blocks: Vec<u8> = Vec::with_capacity(ids.len() * 5 + BLOCK_BYTES);
    let mut block: Vec<u8> = Vec::with_capacity(BLOCK_BYTES);
    let mut entry: Vec<u8> = Vec::with_capacity(10);
    let (mut count, mut previous) = (0u16, 0u64);
    let mut close = |block: &mut Vec<u8>, count: u16, number: usize| {
        let start = blocks.len();
        blocks.extend_from_slice(&count.to_le_bytes());
        blocks.append(block);
        blocks.resize(start + BLOCK_BYTES - 4, 0);
        let crc = block_crc(number, &blocks[start..]);
        blocks.extend_from_slice(&crc.to_le_bytes());
    };
    for &id in ids {
        entry.clear();
        put_varint(&mut entry, id - previous);
        if !block.is_empty() && block.len() + entry.len() > BLOCK_ROOM {
            close(&mut block, count, firsts.len() - 1);
            count = 0;
        }
        if block.is_empty() {
            firsts.push(id);
            entry.clear();
            put_varint(&mut entry, id);
        }
        block.extend_from_slice(&entry);
        count += 1;
        previous = id;
    }
    if !block.is_empty() {
        close(&mut block, count, firsts.len() - 1);
    }
    let (reason, bound) = match removal.rule {
        Rule::Age(age) => (0, u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)),
        Rule::Bytes(bytes) => (1, bytes),
    };
    let mut out = Vec::with_capacity(HEAD_BYTES + firsts.len() * 8 + 4 + blocks.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[u8::from(removal.dataset == Dataset::Logs), reason, 0, 0]);
    out.extend_from_slice(&removal.day.0.to_le_bytes());
    out.extend_from_slice(&bound.to_le_bytes());
    out.extend_from_slice(&(ids.len() as u64).to_le_bytes());
    out.extend_from_slice(&(firsts.len() as u32).to_le_bytes());
    for first in &firsts {
        out.extend_from_slice(&first.to_le_bytes());
    }
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&blocks);
    out
}

/// Of a block and its number, so that a block in another's place does not pass.
fn block_crc(number: usize, block: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&(number as u32).to_le_bytes()), block)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
    bytes.map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

impl Head {
    fn read(file: &dyn FileRead) -> Result<Head, Fault> {
        let mut head = [0; HEAD_BYTES];
        file.read_exact_at(&mut head, 0)?;
        if &head[..8] != MAGIC {
            return Err(Fault::Damaged("it does not begin as a list of removed traces does"));
        }
        let blocks = u32_at(&head, 32) as usize;
        if blocks > MAX_BLOCKS {
            return Err(Fault::Damaged("a length is beyond reason"));
        }
        let mut all = vec![0; HEAD_BYTES + blocks * 8 + 4];
        file.read_exact_at(&mut all, 0)?;
        let (body, crc) = all.split_at(HEAD_BYTES + blocks * 8);
        if crc32c::crc32c(body) != u32_at(crc, 0) {
            return Err(Fault::Damaged("its head does not match its checksum"));
        }
        let bound = u64_at(body, 16);
        Ok(Head {
            removal: Removal {
                dataset: if body[8] == 0 { Dataset::Traces } else { Dataset::Logs },
                day: Day(u32_at(body, 12)),
                rule: if body[9] == 0 {
                    Rule::Age(Duration::from_nanos(bound))
                } else {
                    Rule::Bytes(bound)
                },
            },
            ids: u64_at(body, 24),
            firsts: body[HEAD_BYTES..]
                .as_chunks::<8>()
                .0
                .iter()
                .map(|b| u64::from_le_bytes(*b))
                .collect(),
        })
    }

    /// Gives the fingerprints of one block, ascending, to `see` until it says that it has seen enough.
    fn block(&self, file: &dyn FileRead, number: usize, see: &mut dyn FnMut(u64) -> bool) -> Result<(), Fault> {
        let mut block = [0; BLOCK_BYTES];
        let start = HEAD_BYTES + self.firsts.len() * 8 + 4 + number * BLOCK_BYTES;
        file.read_exact_at(&mut block, start as u64)?;
        let (body, crc) = block.split_at(BLOCK_BYTES - 4);
        if block_crc(number, body) != u32_at(crc, 0) {
            return Err(Fault::Damaged("a block does not match its checksum"));
        }
        let (count, mut entries) = (u16::from_le_bytes([body[0], body[1]]), &body[2..]);
        let mut print = 0u64;
        for _ in 0..count {
            let delta = take_varint(&mut entries).map_err(|bad| Fault::Damaged(bad.0))?;
            print = print.wrapping_add(delta);
            if !see(print) {
                break;
            }
        }
        Ok(())
    }
}

impl List {
    fn new(path: PathBuf, name: String, bytes: u64) -> List {
        List {
            path,
            name,
            bytes,
            head: OnceLock::new(),
            bad: AtomicBool::new(false),
        }
    }

    fn head(&self, file: &dyn FileRead) -> Result<&Head, Fault> {
        match self.head.get() {
            Some(head) => Ok(head),
            None => {
                let head = Head::read(file)?;
                Ok(self.head.get_or_init(|| head))
            }
        }
    }

    fn holds(&self, disk: &dyn Disk, wanted: u64) -> Result<Option<Removal>, Fault> {
        let file = disk.open(&self.path)?;
        let head = self.head(&*file)?;
        let Some(number) = head.firsts.partition_point(|first| *first <= wanted).checked_sub(1) else {
            return Ok(None);
        };
        let mut found = false;
        head.block(&*file, number, &mut |print| {
            found |= print == wanted;
            print < wanted
        })?;
        Ok(found.then_some(head.removal))
    }

    /// All fingerprints of a file that is worth folding; none of one that is full.
    fn small_ids(&self, disk: &dyn Disk) -> Result<Vec<u64>, Fault> {
        let file = disk.open(&self.path)?;
        let head = self.head(&*file)?;
        let mut ids = Vec::new();
        if head.ids < FULL_IDS as u64 {
            for number in 0..head.firsts.len() {
                head.block(&*file, number, &mut |print| {
                    ids.push(print);
                    true
                })?;
            }
        }
        Ok(ids)
    }
}

/// Reads every file whole; returns how many there are, and what is wrong with which.
pub fn check(disk: &dyn Disk, store: &Path) -> (u64, Vec<(PathBuf, String)>) {
    let dir = store.join(REMOVED_DIR);
    let mut problems = Vec::new();
    let mut files = 0;
    for entry in disk.list(&dir).unwrap_or_default() {
        if number_of(&entry.name).is_none() {
            continue;
        }
        let path = dir.join(&entry.name);
        let whole = (|| -> Result<(), Fault> {
            let file = disk.open(&path)?;
            let head = Head::read(&*file)?;
            let mut ids = 0;
            for number in 0..head.firsts.len() {
                head.block(&*file, number, &mut |_| {
                    ids += 1;
                    true
                })?;
            }
            if ids != head.ids {
                return Err(Fault::Damaged("it holds another number of ids than it says"));
            }
            Ok(())
        })();
        match whole {
            // Folded into another one or forgotten while we looked.
            Err(Fault::Io(error)) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(fault) => problems.push((path, format!("{fault}; some removed traces will be called unknown"))),
            Ok(()) => {}
        }
        files += 1;
    }
    (files, problems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    fn id(n: u64) -> TraceId {
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&n.to_be_bytes());
        TraceId(bytes)
    }

    fn removal() -> Removal {
        Removal {
            dataset: Dataset::Traces,
            day: Day(20_000),
            rule: Rule::Age(Duration::from_secs(5)),
        }
    }

    fn found(removed: &Removed, n: u64) -> bool {
        let found = removed.find(&id(n), &mut |path, what| panic!("{}: {what}", path.display()));
        found == vec![removal()]
    }

    /// Ids that count up are the worst that a hash may get.
    #[test]
    fn more_ids_than_a_file_holds_are_all_found_at_less_than_five_bytes_each() {
        let dir = tempfile::tempdir().unwrap();
        let removed = Removed::open(Arc::new(RealDisk), dir.path());
        let many = FILE_IDS as u64 + 300_000;
        let mut note = removed.note(removal());
        for n in 0..many {
            note.push(&id(n)).unwrap();
            note.push(&id(n)).unwrap();
        }
        note.finish().unwrap();
        assert!((0..many).step_by(997).all(|n| found(&removed, n)));
        assert!(!(many..many + 20_000).any(|n| found(&removed, n)));
        let stats = removed.stats();
        let per_id = stats.bytes as f64 / many as f64;
        assert_eq!(stats.files, 2);
        assert!((4.0..5.0).contains(&per_id), "{per_id} bytes an id");
        let (files, problems) = check(&RealDisk, dir.path());
        assert_eq!((files, problems), (2, Vec::new()));

        // What comes later is folded into the file that has room, and only into that.
        let mut note = removed.note(removal());
        (many..many + 1000).for_each(|n| note.push(&id(n)).unwrap());
        note.finish().unwrap();
        assert_eq!(removed.stats().files, 2);
        assert!((0..many + 1000).step_by(499).all(|n| found(&removed, n)));
        let reopened = Removed::open(Arc::new(RealDisk), dir.path());
        assert!((0..many + 1000).step_by(4999).all(|n| found(&reopened, n)));
    }

    #[test]
    fn a_note_that_is_given_up_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let removed = Removed::open(Arc::new(RealDisk), dir.path());
        let mut note = removed.note(removal());
        (0..FILE_IDS as u64 + 5).for_each(|n| note.push(&id(n)).unwrap());
        drop(note);
        assert_eq!(std::fs::read_dir(dir.path().join(REMOVED_DIR)).unwrap().count(), 0);
        assert!(!found(&removed, 1));
    }
}
