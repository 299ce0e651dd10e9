//! The catalog: numbered commits that name parts and journal ranges together, and now and then a checkpoint. See `docs/format/catalog.md`.
//!
//! Each file is written twice, in two folders. The copy first, then the one whose name makes the commit: whatever one of them lost is in the other, and a
//! copy that is alone is a commit whose outcome nobody heard, which may stand as well as not.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::directory::Blob;
use crate::disk::Disk;
use crate::ranges::Ranges;
use crate::{Dataset, Day};

/// Commits between checkpoints: an open reads at most this many files.
const CHECKPOINT_EVERY: u64 = 64;
const COMMIT: &str = "commit";
const CHECKPOINT: &str = "checkpoint";
const MAGIC: &str = "trackline-catalog";
/// The version that is written, and the newest that is read.
pub(crate) const CATALOG_VERSION: u32 = 1;

/// A part as the catalog knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartEntry {
    /// Unique in this store, ascending.
    pub id: u64,
    pub dataset: Dataset,
    pub day: Day,
    /// Under `sealed/` rather than `open/`.
    pub sealed: bool,
    pub rows: u64,
    pub bytes: u64,
    pub min_time: u64,
    pub max_time: u64,
    /// When its oldest row was appended: what decides when late rows are sealed.
    pub created_unix_nano: u64,
    /// Offset, length and checksum of the part's directory.
    pub directory: (u64, u32, u32),
    /// Checksum of the whole file; parts of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc: Option<u32>,
    /// Services and their operations.
    pub names: Names,
}

impl PartEntry {
    pub fn directory(&self) -> Blob {
        Blob {
            offset: self.directory.0,
            bytes: self.directory.1,
            crc: self.directory.2,
        }
    }

    /// Path below the store's directory.
    pub fn path(&self, dir: &Path) -> PathBuf {
        dir.join(self.dataset.as_str())
            .join(if self.sealed { "sealed" } else { "open" })
            .join(self.day.folder())
            .join(format!("{:016x}.parquet", self.id))
    }
}

/// Distinct services of a part, each with its distinct operations; a log part has no operations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    pub services: BTreeMap<String, Vec<String>>,
    /// There were more than `MAX_PAIRS`: the list is not complete.
    pub cut: bool,
}

/// Pairs of service and operation kept per part. A service with unbounded operation names must not swell the catalog.
pub const MAX_PAIRS: usize = 2000;

impl Names {
    pub fn insert(&mut self, service: &str, operation: Option<&str>) {
        if self.pairs() >= MAX_PAIRS {
            self.cut = true;
            return;
        }
        let operations = match self.services.get_mut(service) {
            Some(operations) => operations,
            None => self.services.entry(service.to_owned()).or_default(),
        };
        if let Some(operation) = operation
            && let Err(at) = operations.binary_search_by(|o| o.as_str().cmp(operation))
        {
            operations.insert(at, operation.to_owned());
        }
    }

    fn pairs(&self) -> usize {
        self.services.values().map(|o| o.len().max(1)).sum()
    }

    pub fn merge(&mut self, other: &Names) {
        for (service, operations) in &other.services {
            if operations.is_empty() {
                self.insert(service, None);
            }
            for operation in operations {
                self.insert(service, Some(operation));
            }
        }
        self.cut |= other.cut;
    }
}

/// A source of rows: a journal reader of one journal.
pub type Source = (String, String);

/// What one commit changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    pub added: Vec<PartEntry>,
    pub removed: Vec<u64>,
    /// Source, journal (hex), ranges newly covered.
    pub covered: Vec<(String, String, Ranges)>,
    /// Dataset and the instant before which retention has removed rows.
    pub horizon: Vec<(Dataset, u64)>,
}

/// What all commits add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub parts: BTreeMap<u64, PartEntry>,
    pub covered: BTreeMap<Source, Ranges>,
    pub horizon: BTreeMap<Dataset, u64>,
    pub next_part: u64,
}

impl State {
    pub fn apply(&mut self, commit: &Commit) {
        for id in &commit.removed {
            self.parts.remove(id);
        }
        for part in &commit.added {
            self.next_part = self.next_part.max(part.id + 1);
            self.parts.insert(part.id, part.clone());
        }
        for (source, journal, ranges) in &commit.covered {
            self.covered
                .entry((source.clone(), journal.clone()))
                .or_default()
                .merge(ranges);
        }
        for &(dataset, horizon) in &commit.horizon {
            let known = self.horizon.entry(dataset).or_default();
            *known = horizon.max(*known);
        }
    }

    /// The commit that makes this state out of nothing.
    fn as_commit(&self) -> Commit {
        Commit {
            added: self.parts.values().cloned().collect(),
            removed: Vec::new(),
            covered: self
                .covered
                .iter()
                .map(|((source, journal), ranges)| (source.clone(), journal.clone(), ranges.clone()))
                .collect(),
            horizon: self.horizon.iter().map(|(d, h)| (*d, *h)).collect(),
        }
    }
}

/// The checkpoint's body: a commit and the one number that it does not imply.
#[derive(Serialize, Deserialize)]
struct Checkpoint {
    next_part: u64,
    state: Commit,
}

/// A failed step of the catalog.
#[derive(Debug)]
pub struct CatalogError {
    pub doing: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

/// Why a catalog did not load.
#[derive(Debug)]
pub enum LoadError {
    Io(CatalogError),
    Damaged {
        path: PathBuf,
        what: String,
    },
    /// The version that wrote it.
    Newer(u32),
}

/// A catalog file that does not hold what it should, while the store goes on without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub path: PathBuf,
    pub what: String,
}

/// The first and the second place of each file.
const FOLDERS: [&str; 2] = ["catalog", "catalog-copy"];
/// The system's number for a disk that cannot read what it holds: damage as any other.
const EIO: i32 = 5;
/// What a damaged file is called once it is kept aside.
const DAMAGED: &str = "damaged";
/// What to do when nothing here can tell what a commit said.
pub(crate) const REMEDY: &str = "put either of them back from a backup; without one, move the store's directory away and start with an empty one: \
                      its parts are Parquet files and stay readable";

/// One of the two files of a number, as it was found.
enum Found {
    Whole(Vec<u8>),
    Missing,
    Bad(String),
    /// It says that a newer version wrote it: so it is, unless its other copy knows better.
    Newer(u32),
}

/// The log of commits of a store.
pub struct Catalog {
    /// The two folders, each the other's copy.
    dirs: [PathBuf; 2],
    disk: Arc<dyn Disk>,
    /// Number of the next commit. A failed commit does not take it: the next attempt replaces the same file, so that of an attempt whose
    /// fate is unknown and the one that followed it only one can ever be read.
    next: u64,
    state: State,
    checkpointed: u64,
    /// Files that the load did without.
    damage: Vec<Damage>,
    /// The first of the newest commits that cannot be read in either place.
    lost: Option<u64>,
    /// The two places differ, be it by damage or by a crash between them.
    uneven: bool,
}

impl Catalog {
    /// Whether a store's directory has the catalog's folder, or its copy.
    pub fn is_there(names: &[crate::disk::Entry]) -> bool {
        names.iter().any(|e| e.is_dir && FOLDERS.contains(&e.name.as_str()))
    }

    /// Makes the catalog's folders.
    pub fn create(disk: &dyn Disk, store: &Path) -> Result<(), CatalogError> {
        for folder in FOLDERS {
            let path = store.join(folder);
            disk.create_dir_all(&path).map_err(|source| CatalogError {
                doing: "create",
                path,
                source,
            })?;
        }
        disk.sync_dir(store).map_err(|source| CatalogError {
            doing: "sync",
            path: store.to_owned(),
            source,
        })
    }

    /// Reads the newest checkpoint and the commits after it, each from whichever place still has it. Changes nothing.
    pub fn load(disk: Arc<dyn Disk>, store: &Path) -> Result<Catalog, LoadError> {
        let mut catalog = Catalog {
            dirs: FOLDERS.map(|folder| store.join(folder)),
            disk,
            next: 1,
            state: State::default(),
            checkpointed: 0,
            damage: Vec::new(),
            lost: None,
            uneven: false,
        };
        let [commits, checkpoints] = [catalog.numbers(COMMIT)?, catalog.numbers(CHECKPOINT)?];
        let newest = commits.last().max(checkpoints.last()).copied().unwrap_or(0);
        // Of the checkpoints all but the newest were left by a crash while it was written.
        for &number in checkpoints.iter().rev() {
            if let Some(checkpoint) = catalog.read::<Checkpoint>(number, CHECKPOINT, newest)? {
                catalog.state.apply(&checkpoint.state);
                catalog.state.next_part = checkpoint.next_part;
                catalog.next = number + 1;
                catalog.checkpointed = number;
                break;
            }
        }
        for &number in commits.range(catalog.next..) {
            if number > catalog.next {
                break;
            }
            match catalog.read::<Commit>(number, COMMIT, newest)? {
                Some(commit) => catalog.state.apply(&commit),
                None => break,
            }
            catalog.next = number + 1;
        }
        catalog.judge_rest(&commits, &checkpoints)?;
        Ok(catalog)
    }

    /// What lies beyond the last commit that could be read is nothing, or commits that nobody can read; everything else is a hole in the middle.
    fn judge_rest(&mut self, commits: &BTreeSet<u64>, checkpoints: &BTreeSet<u64>) -> Result<(), LoadError> {
        let beyond: Vec<u64> = commits.range(self.next..).copied().collect();
        let path = self.path(0, self.next, COMMIT);
        if let Some(&number) = checkpoints.range(self.next..).next_back() {
            return Err(LoadError::Damaged {
                path: self.path(0, number, CHECKPOINT),
                what: format!("{}{REMEDY}", self.said_of(number)),
            });
        }
        let Some(&last) = beyond.last() else { return Ok(()) };
        if beyond.first() != Some(&self.next) {
            return Err(LoadError::Damaged {
                path,
                what: format!(
                    "it is missing, and so is its copy, while {} is there; {REMEDY}",
                    self.path(0, last, COMMIT).display()
                ),
            });
        }
        for number in &beyond[1..] {
            if self.read::<Commit>(*number, COMMIT, last)?.is_some() {
                return Err(LoadError::Damaged {
                    path,
                    what: format!(
                        "{}{} is readable and was made on top of it; {REMEDY}",
                        self.said_of(self.next),
                        self.path(0, *number, COMMIT).display()
                    ),
                });
            }
        }
        self.lost = Some(self.next);
        Ok(())
    }

    fn said_of(&self, number: u64) -> String {
        let name = format!("{number:016x}.");
        self.damage
            .iter()
            .filter(|d| {
                d.path
                    .file_name()
                    .is_some_and(|n| n.to_string_lossy().starts_with(&name))
            })
            .map(|d| format!("{}: {}; ", d.path.display(), d.what))
            .collect()
    }

    /// Numbers of the files of a kind in either place.
    fn numbers(&self, kind: &str) -> Result<BTreeSet<u64>, LoadError> {
        let mut numbers = BTreeSet::new();
        for dir in &self.dirs {
            let names = self.disk.list(dir).map_err(|source| {
                LoadError::Io(CatalogError {
                    doing: "list",
                    path: dir.clone(),
                    source,
                })
            })?;
            numbers.extend(names.iter().filter_map(|entry| number_of(&entry.name, kind)));
        }
        Ok(numbers)
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// What the load did without, for the log, the status and the check.
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// The first of the newest commits that cannot be read in either place, if there is one: parts that no other commit names may be its.
    pub fn lost(&self) -> Option<u64> {
        self.lost
    }

    /// No part will get this number.
    pub fn skip_part(&mut self, id: u64) {
        self.state.next_part = self.state.next_part.max(id + 1);
    }

    /// The first place of a commit, for messages.
    pub fn path_of(&self, commit: u64) -> PathBuf {
        self.path(0, commit, COMMIT)
    }

    fn path(&self, place: usize, number: u64, kind: &str) -> PathBuf {
        self.dirs[place].join(format!("{number:016x}.{kind}"))
    }

    /// Reads a file from its first place, else from the second; `None` if neither holds it whole. Notes what is damaged.
    fn read<T: for<'a> Deserialize<'a>>(
        &mut self,
        number: u64,
        kind: &str,
        newest: u64,
    ) -> Result<Option<T>, LoadError> {
        let mut bodies: [Option<Vec<u8>>; 2] = [None, None];
        let mut newer = None;
        for (place, body) in bodies.iter_mut().enumerate() {
            let path = self.path(place, number, kind);
            let what = match self.look(&path)? {
                Found::Whole(bytes) => {
                    *body = Some(bytes);
                    continue;
                }
                Found::Bad(what) => what,
                Found::Newer(version) => {
                    newer = Some(version);
                    format!("its first line names version {version}")
                }
                // A crash may come between the two places of the newest file and of a checkpoint, and older programs wrote to one place only.
                Found::Missing if number == newest || kind == CHECKPOINT || place == 1 => continue,
                Found::Missing => "it is missing".to_owned(),
            };
            self.damage.push(Damage { path, what });
        }
        self.uneven |= bodies[0] != bodies[1];
        let Some((place, body)) = (0..)
            .zip(&bodies)
            .find_map(|(place, body)| Some((place, body.as_ref()?)))
        else {
            return newer.map_or(Ok(None), |version| Err(LoadError::Newer(version)));
        };
        serde_json::from_slice(body)
            .map(Some)
            .map_err(|error| LoadError::Damaged {
                path: self.path(place, number, kind),
                what: format!("its checksum is right and its content is not: {error}; this is a bug"),
            })
    }

    /// A file's body, if it is what was written.
    fn look(&self, path: &Path) -> Result<Found, LoadError> {
        let bytes = match self.disk.read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
            Err(error) if error.raw_os_error() == Some(EIO) || error.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(Found::Bad(format!("it cannot be read: {error}")));
            }
            // A right or a descriptor that is lacking says nothing about the file.
            Err(source) => {
                return Err(LoadError::Io(CatalogError {
                    doing: "read",
                    path: path.to_owned(),
                    source,
                }));
            }
        };
        let bad = |what: &str| Ok(Found::Bad(what.to_owned()));
        let Some(end) = bytes.iter().position(|b| *b == b'\n') else {
            return bad("it has no first line");
        };
        let (head, body) = (&bytes[..end], &bytes[end + 1..]);
        let head = std::str::from_utf8(head).unwrap_or_default();
        let Some((version, crc)) = head.strip_prefix(MAGIC).and_then(|rest| rest.trim().split_once(' ')) else {
            return bad("its first line is not that of a catalog file");
        };
        match version.parse::<u32>() {
            Ok(version) if version > CATALOG_VERSION => return Ok(Found::Newer(version)),
            Ok(_) => {}
            Err(_) => return bad("its first line is not that of a catalog file"),
        }
        if u32::from_str_radix(crc, 16) != Ok(crc32c::crc32c(body)) {
            return bad("its body does not match its checksum");
        }
        Ok(Found::Whole(body.to_vec()))
    }

    /// Writes both places; the first place, which is written last, makes it count.
    fn write<T: Serialize>(&self, number: u64, kind: &str, body: &T) -> Result<(), CatalogError> {
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| CatalogError { doing, path, source }
        };
        let body = serde_json::to_vec(body)
            .map_err(io::Error::other)
            .map_err(failed("encode", &self.path(0, number, kind)))?;
        let mut bytes = format!("{MAGIC} {CATALOG_VERSION} {:08x}\n", crc32c::crc32c(&body)).into_bytes();
        bytes.extend_from_slice(&body);
        for place in [1, 0] {
            let path = self.path(place, number, kind);
            let temporary = path.with_extension("temporary");
            let mut file = self.disk.create(&temporary).map_err(failed("create", &temporary))?;
            file.write_all(&bytes).map_err(failed("write", &temporary))?;
            file.sync().map_err(failed("sync", &temporary))?;
            drop(file);
            self.disk.rename(&temporary, &path).map_err(failed("rename", &path))?;
            let dir = &self.dirs[place];
            self.disk.sync_dir(dir).map_err(failed("sync", dir))?;
        }
        Ok(())
    }

    /// Makes a commit durable. After an error the state is as before, and the next attempt replaces this one.
    pub fn commit(&mut self, commit: &Commit) -> Result<(), CatalogError> {
        // Two places that differ must not be built upon: which of them a later load believes would depend on damage.
        self.mend()?;
        self.write(self.next, COMMIT, commit)?;
        self.state.apply(commit);
        self.next += 1;
        if self.next - 1 - self.checkpointed >= CHECKPOINT_EVERY {
            // The commit stands whatever becomes of the checkpoint; the next commit tries again.
            if let Err(error) = self.checkpoint() {
                tracing::warn!(path = %error.path.display(), error = %error.source, "cannot {} a checkpoint of the catalog", error.doing);
            }
        }
        Ok(())
    }

    /// Keeps damaged files aside under another name, and has everything in both places again by a new checkpoint. If it fails, the next commit or start
    /// tries again.
    pub fn mend(&mut self) -> Result<(), CatalogError> {
        for Damage { path, .. } in &self.damage {
            let aside = PathBuf::from(format!("{}.{DAMAGED}", path.display()));
            match self.disk.rename(path, &aside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(CatalogError {
                        doing: "rename",
                        path: path.clone(),
                        source: error,
                    });
                }
                _ => {}
            }
        }
        if self.uneven && self.next > 1 {
            self.checkpoint()?;
        }
        self.damage.clear();
        self.uneven = false;
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), CatalogError> {
        let number = self.next - 1;
        let body = Checkpoint {
            next_part: self.state.next_part,
            state: self.state.as_commit(),
        };
        self.write(number, CHECKPOINT, &body)?;
        self.checkpointed = number;
        // What the checkpoint contains is no longer needed; a file that stays behind is ignored by `load` and tried again next time.
        for dir in &self.dirs {
            for entry in self.disk.list(dir).unwrap_or_default() {
                let old = number_of(&entry.name, COMMIT).is_some_and(|n| n <= number)
                    || number_of(&entry.name, CHECKPOINT).is_some_and(|n| n < number);
                if old {
                    let _ = self.disk.remove(&dir.join(&entry.name));
                }
            }
        }
        Ok(())
    }
}

/// The number in a file's name if it is of a kind.
fn number_of(name: &str, kind: &str) -> Option<u64> {
    let (number, found) = name.split_once('.')?;
    (number.len() == 16 && found == kind).then_some(())?;
    u64::from_str_radix(number, 16).ok()
}

/// Damaged files that earlier starts have kept aside.
pub fn kept_aside(disk: &dyn Disk, store: &Path) -> Vec<PathBuf> {
    let mut aside = Vec::new();
    for folder in FOLDERS {
        let dir = store.join(folder);
        let names = disk.list(&dir).unwrap_or_default();
        let ours = names.iter().filter(|e| e.name.ends_with(DAMAGED));
        aside.extend(ours.map(|e| dir.join(&e.name)));
    }
    aside
}
