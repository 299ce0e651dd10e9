//! The catalog: numbered commits that name parts and journal ranges together, and now and then a checkpoint. See `docs/format/catalog.md`.

use std::collections::BTreeMap;
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

/// The log of commits in a directory.
pub struct Catalog {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    /// Number of the next commit. A failed commit does not take it: the next attempt replaces the same file, so that of an attempt whose
    /// fate is unknown and the one that followed it only one can ever be read.
    next: u64,
    state: State,
    checkpointed: u64,
}

impl Catalog {
    /// Reads the newest checkpoint and the commits after it.
    pub fn load(disk: Arc<dyn Disk>, dir: &Path) -> Result<Catalog, LoadError> {
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| LoadError::Io(CatalogError { doing, path, source })
        };
        let names = disk.list(dir).map_err(failed("list", dir))?;
        let mut commits: Vec<u64> = Vec::new();
        let mut checkpoints: Vec<u64> = Vec::new();
        for entry in &names {
            match entry.name.split_once('.') {
                Some((number, kind)) if number.len() == 16 => match (u64::from_str_radix(number, 16), kind) {
                    (Ok(number), COMMIT) => commits.push(number),
                    (Ok(number), CHECKPOINT) => checkpoints.push(number),
                    _ => {}
                },
                _ => {}
            }
        }
        commits.sort_unstable();
        let mut catalog = Catalog {
            dir: dir.to_owned(),
            disk,
            next: 1,
            state: State::default(),
            checkpointed: 0,
        };
        if let Some(&number) = checkpoints.iter().max() {
            let path = catalog.path(number, CHECKPOINT);
            let checkpoint: Checkpoint = catalog.read(&path)?;
            catalog.state.apply(&checkpoint.state);
            catalog.state.next_part = checkpoint.next_part;
            catalog.next = number + 1;
            catalog.checkpointed = number;
        }
        for number in commits {
            if number < catalog.next {
                continue;
            }
            let path = catalog.path(number, COMMIT);
            if number > catalog.next {
                return Err(LoadError::Damaged {
                    path: catalog.path(catalog.next, COMMIT),
                    what: format!("it is missing, while {} is there", path.display()),
                });
            }
            let commit: Commit = catalog.read(&path)?;
            catalog.state.apply(&commit);
            catalog.next = number + 1;
        }
        Ok(catalog)
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    fn path(&self, number: u64, kind: &str) -> PathBuf {
        self.dir.join(format!("{number:016x}.{kind}"))
    }

    fn read<T: for<'a> Deserialize<'a>>(&self, path: &Path) -> Result<T, LoadError> {
        let bytes = self.disk.read(path).map_err(|source| {
            LoadError::Io(CatalogError {
                doing: "read",
                path: path.to_owned(),
                source,
            })
        })?;
        let damaged = |what: &str| LoadError::Damaged {
            path: path.to_owned(),
            what: what.to_owned(),
        };
        let end = bytes
            .iter()
            .position(|b| *b == b'\n')
            .ok_or_else(|| damaged("it has no first line"))?;
        let (head, body) = (&bytes[..end], &bytes[end + 1..]);
        let head = std::str::from_utf8(head).map_err(|_| damaged("its first line is not text"))?;
        let strange = || damaged("its first line is not that of a catalog file");
        let (version, crc) = head
            .strip_prefix(MAGIC)
            .and_then(|rest| rest.trim().split_once(' '))
            .ok_or_else(strange)?;
        let version: u32 = version.parse().map_err(|_| strange())?;
        if version > CATALOG_VERSION {
            return Err(LoadError::Newer(version));
        }
        let crc = u32::from_str_radix(crc, 16).map_err(|_| strange())?;
        if crc32c::crc32c(body) != crc {
            return Err(damaged("its body does not match its checksum"));
        }
        serde_json::from_slice(body).map_err(|error| damaged(&error.to_string()))
    }

    fn write<T: Serialize>(&self, path: &Path, body: &T) -> Result<(), CatalogError> {
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| CatalogError { doing, path, source }
        };
        let body = serde_json::to_vec(body)
            .map_err(io::Error::other)
            .map_err(failed("encode", path))?;
        let mut bytes = format!("{MAGIC} {CATALOG_VERSION} {:08x}\n", crc32c::crc32c(&body)).into_bytes();
        bytes.extend_from_slice(&body);
        let temporary = path.with_extension("temporary");
        let mut file = self.disk.create(&temporary).map_err(failed("create", &temporary))?;
        file.write_all(&bytes).map_err(failed("write", &temporary))?;
        file.sync().map_err(failed("sync", &temporary))?;
        drop(file);
        self.disk.rename(&temporary, path).map_err(failed("rename", path))?;
        self.disk.sync_dir(&self.dir).map_err(failed("sync", &self.dir))
    }

    /// Makes a commit durable. After an error the state is as before, and the next attempt replaces this one.
    pub fn commit(&mut self, commit: &Commit) -> Result<(), CatalogError> {
        self.write(&self.path(self.next, COMMIT), commit)?;
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

    fn checkpoint(&mut self) -> Result<(), CatalogError> {
        let number = self.next - 1;
        let body = Checkpoint {
            next_part: self.state.next_part,
            state: self.state.as_commit(),
        };
        self.write(&self.path(number, CHECKPOINT), &body)?;
        let previous = std::mem::replace(&mut self.checkpointed, number);
        // What the checkpoint contains is no longer needed; a file that stays behind is ignored by `load` and tried again next time.
        let names = self.disk.list(&self.dir).unwrap_or_default();
        for entry in names {
            let number_of = entry
                .name
                .split_once('.')
                .and_then(|(n, _)| u64::from_str_radix(n, 16).ok());
            let old = match number_of {
                Some(n) if entry.name.ends_with(CHECKPOINT) => n <= previous && n < number,
                Some(n) if entry.name.ends_with(COMMIT) => n <= number,
                _ => false,
            };
            if old {
                let _ = self.disk.remove(&self.dir.join(&entry.name));
            }
        }
        Ok(())
    }
}
