//! Opens a store: lock, format, catalog, and a sweep of files that no commit names.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::{CATALOG_VERSION, Catalog, CatalogError, Damage, LoadError, PartEntry, REMEDY};
use crate::disk::LockError;
use crate::error::OpenError;
use crate::reader::Reader;
use crate::settings::Settings;
use crate::snapshot::{Part, Shared, Snapshot};
use crate::writer::Writer;
use crate::{Dataset, Disk};

/// The newest format that this program reads and writes.
pub const FORMAT: u32 = 1;
const FORMAT_FILE: &str = "FORMAT";
const LOCK_FILE: &str = "LOCK";
/// Where parts go that a commit may name which nobody can read.
pub(crate) const UNCLAIMED_DIR: &str = "unclaimed";

/// A directory of parts and their catalog.
pub struct Store;

impl Store {
    /// Opens or creates the store in a directory and takes its lock.
    pub fn open(dir: impl AsRef<Path>, settings: Settings) -> Result<(Writer, Reader), OpenError> {
        let dir = dir.as_ref();
        let disk = Arc::clone(&settings.disk);
        disk.create_dir_all(dir).map_err(|e| refused("create", dir, dir, e))?;
        let held = disk
            .lock(&dir.join(LOCK_FILE), &format!("{}\n", std::process::id()))
            .map_err(|error| match error {
                LockError::Held(pid) => OpenError::InUse {
                    dir: dir.to_owned(),
                    pid,
                },
                LockError::Io(source) => refused("lock", &dir.join(LOCK_FILE), dir, source),
            })?;
        check_format(&*disk, dir)?;
        refuse_parts_without_catalog(&*disk, dir)?;
        Catalog::create(&*disk, dir)
            .map_err(|CatalogError { doing, path, source }| refused(doing, &path, dir, source))?;
        let mut catalog = load_catalog(&disk, dir)?;

        let mut snapshot = Snapshot::default();
        let mut missing = Vec::new();
        let mut faults: Vec<(PathBuf, String)> = Vec::new();
        if let Some(commit) = catalog.lost() {
            refuse_unless_all_are_there(&*disk, dir, &catalog, commit)?;
            let unclaimed = set_unclaimed_aside(&*disk, dir, &mut catalog)?;
            let words = lost_words(commit);
            faults.push((
                dir.join(UNCLAIMED_DIR),
                format!("{words}; {unclaimed} parts that it may have named are kept here, unread"),
            ));
        }
        for Damage { path, what } in catalog.damage() {
            let rest = if catalog.lost().is_some() {
                ""
            } else {
                "; its other copy is used"
            };
            faults.push((path.clone(), format!("{what}{rest}; it is kept beside it as *.damaged")));
        }
        if let Err(CatalogError { doing, path, source }) = catalog.mend() {
            tracing::warn!(path = %path.display(), error = %source, "cannot {doing} while mending the catalog; the next commit tries again");
        }
        let found = sweep(&disk, dir, &catalog)?;
        for entry in catalog.state().parts.values() {
            let path = entry.path(dir);
            if found.contains(&path) {
                let part = Part::new(entry.clone(), dir, Arc::clone(&disk));
                Arc::make_mut(&mut snapshot.parts).insert(entry.id, Arc::new(part));
            } else {
                missing.push(path);
            }
        }
        snapshot.horizon = catalog.state().horizon.clone();
        let shared = Arc::new(Shared::new(dir.to_owned(), settings, snapshot));
        for (path, what) in faults {
            tracing::error!(path = %path.display(), "the catalog was damaged: {what}");
            shared.report(path, what);
        }
        for path in missing {
            tracing::error!(path = %path.display(), "a part that the catalog names is not there");
            shared.report(path, "the file is not there".to_owned());
        }
        let reader = Reader::new(Arc::clone(&shared));
        let writer = Writer::start(shared, catalog, held).map_err(|e| refused("start threads for", dir, dir, e))?;
        Ok((writer, reader))
    }
}

fn refused(doing: &'static str, path: &Path, dir: &Path, source: io::Error) -> OpenError {
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => OpenError::ReadOnly {
            dir: dir.to_owned(),
            source,
        },
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => OpenError::Full {
            dir: dir.to_owned(),
            source,
        },
        _ => OpenError::Io {
            doing,
            path: path.to_owned(),
            source,
        },
    }
}

/// Reads the format number, or writes it into a directory that has none.
fn check_format(disk: &dyn Disk, dir: &Path) -> Result<(), OpenError> {
    match names_format(disk, dir)? {
        true => Ok(()),
        false => write_format(disk, dir, &dir.join(FORMAT_FILE)),
    }
}

/// Whether the directory names its format. It is an error if that is one that this program does not know.
pub(crate) fn names_format(disk: &dyn Disk, dir: &Path) -> Result<bool, OpenError> {
    let path = dir.join(FORMAT_FILE);
    match disk.read(&path) {
        Ok(bytes) if !bytes.is_empty() => {
            let text = String::from_utf8_lossy(&bytes);
            let found = format_of(&text).ok_or_else(|| OpenError::Catalog {
                path: path.clone(),
                what: "it does not name a format".to_owned(),
            })?;
            if found > FORMAT {
                return Err(OpenError::Newer {
                    dir: dir.to_owned(),
                    found,
                    known: FORMAT,
                });
            }
            Ok(true)
        }
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(refused("read", &path, dir, error)),
    }
}

fn format_of(text: &str) -> Option<u32> {
    text.strip_prefix("trackline-store ")?.trim().parse().ok()
}

fn write_format(disk: &dyn Disk, dir: &Path, path: &Path) -> Result<(), OpenError> {
    let write = || -> io::Result<()> {
        let temporary = path.with_extension("temporary");
        let mut file = disk.create(&temporary)?;
        file.write_all(format!("trackline-store {FORMAT}\n").as_bytes())?;
        file.sync()?;
        disk.rename(&temporary, path)?;
        disk.sync_dir(dir)
    };
    write().map_err(|e| refused("write", path, dir, e))
}

pub(crate) fn load_catalog(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Catalog, OpenError> {
    Catalog::load(Arc::clone(disk), dir).map_err(|error| match error {
        LoadError::Io(CatalogError { doing, path, source }) => refused(doing, &path, dir, source),
        LoadError::Damaged { path, what } => OpenError::Catalog { path, what },
        LoadError::Newer(found) => OpenError::Newer {
            dir: dir.to_owned(),
            found,
            known: CATALOG_VERSION,
        },
    })
}

/// What is said of commits that cannot be read in either place.
pub(crate) fn lost_words(commit: u64) -> String {
    format!(
        "commit {commit:016x} cannot be read in either place, and nothing readable came after it: the store goes on as it was before it, and what only it \
         covered is read from the journal again if that still has it"
    )
}

/// Going on as before a lost commit is safe while everything from before it is there: files go only after the commit that removes them. Where some are gone, the
/// rows may be in a part that nobody can tell from a leftover.
fn refuse_unless_all_are_there(disk: &dyn Disk, dir: &Path, catalog: &Catalog, commit: u64) -> Result<(), OpenError> {
    for entry in catalog.state().parts.values() {
        let other = PartEntry {
            sealed: !entry.sealed,
            ..entry.clone()
        };
        let path = entry.path(dir);
        let gone = |path: &Path| match disk.open(path) {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(refused("open", path, dir, error)),
        };
        if gone(&path)? && gone(&other.path(dir))? {
            return Err(OpenError::Catalog {
                path: catalog.path_of(commit),
                what: format!(
                    "it cannot be read in either place, and {}, which was there before it, is gone, so that it cannot be told which parts replaced it; {REMEDY}",
                    path.display()
                ),
            });
        }
    }
    Ok(())
}

/// Moves parts that no readable commit names out of the way, where nothing removes them. Returns how many there are.
fn set_unclaimed_aside(disk: &dyn Disk, dir: &Path, catalog: &mut Catalog) -> Result<u64, OpenError> {
    let named: HashSet<u64> = catalog.state().parts.keys().copied().collect();
    let aside = dir.join(UNCLAIMED_DIR);
    let mut moved = 0;
    for (folder, file) in part_files(disk, dir)? {
        let from = folder.join(&file);
        let id = file
            .strip_suffix(".parquet")
            .and_then(|id| u64::from_str_radix(id, 16).ok());
        let Some(id) = id.filter(|id| !named.contains(id)) else {
            continue;
        };
        catalog.skip_part(id);
        let day = folder.file_name().unwrap_or_default().to_string_lossy();
        let dataset = Dataset::ALL
            .into_iter()
            .find(|d| from.starts_with(dir.join(d.as_str())));
        let to = aside.join(format!("{}-{day}-{file}", dataset.map_or("", Dataset::as_str)));
        disk.create_dir_all(&aside)
            .map_err(|e| refused("create", &aside, dir, e))?;
        disk.rename(&from, &to).map_err(|e| refused("rename", &from, dir, e))?;
        moved += 1;
    }
    if moved > 0 {
        disk.sync_dir(&aside).map_err(|e| refused("sync", &aside, dir, e))?;
        disk.sync_dir(dir).map_err(|e| refused("sync", dir, dir, e))?;
    }
    Ok(moved)
}

/// Every file below the days of both datasets: its folder and its name.
pub(crate) fn part_files(disk: &dyn Disk, dir: &Path) -> Result<Vec<(PathBuf, String)>, OpenError> {
    let list = |path: &Path| disk.list(path).map_err(|e| refused("list", path, dir, e));
    let mut files = Vec::new();
    for dataset in Dataset::ALL {
        for place in ["open", "sealed"] {
            let place = dir.join(dataset.as_str()).join(place);
            for day in list(&place)?.into_iter().filter(|day| day.is_dir) {
                let folder = place.join(&day.name);
                let names = list(&folder)?.into_iter().map(|file| (folder.clone(), file.name));
                files.extend(names);
            }
        }
    }
    Ok(files)
}

/// Without its catalog every part would look like a leftover and be removed. The folder is made before the first part is written, so parts without it
/// mean that somebody took it away.
fn refuse_parts_without_catalog(disk: &dyn Disk, dir: &Path) -> Result<(), OpenError> {
    let names = disk.list(dir).map_err(|e| refused("list", dir, dir, e))?;
    if Catalog::is_there(&names) || part_files(disk, dir)?.is_empty() {
        return Ok(());
    }
    Err(OpenError::Catalog {
        path: dir.join("catalog"),
        what: "the folder is gone while parts are there; put it back, or move the parts away".to_owned(),
    })
}

/// Removes files that no commit names, and empty days; returns the parts that are there. Parts themselves are not opened.
fn sweep(disk: &Arc<dyn Disk>, dir: &Path, catalog: &Catalog) -> Result<HashSet<PathBuf>, OpenError> {
    let named: HashSet<PathBuf> = catalog.state().parts.values().map(|p| p.path(dir)).collect();
    // A part that was moved under `sealed/` and not committed there, or committed there and moved back: to where the catalog says.
    let moved: HashMap<PathBuf, PathBuf> = catalog
        .state()
        .parts
        .values()
        .map(|p| {
            let other = PartEntry {
                sealed: !p.sealed,
                ..p.clone()
            };
            (other.path(dir), p.path(dir))
        })
        .collect();
    let mut found = HashSet::with_capacity(named.len());
    for dataset in Dataset::ALL {
        for place in ["open", "sealed"] {
            let place = dir.join(dataset.as_str()).join(place);
            for day in disk.list(&place).map_err(|e| refused("list", &place, dir, e))? {
                let folder = place.join(&day.name);
                if !day.is_dir {
                    continue;
                }
                let mut kept = 0;
                for file in disk.list(&folder).map_err(|e| refused("list", &folder, dir, e))? {
                    let path = folder.join(&file.name);
                    if named.contains(&path) {
                        found.insert(path);
                        kept += 1;
                    } else if let Some(home) = moved.get(&path) {
                        if let Some(day) = home.parent() {
                            disk.create_dir_all(day).map_err(|e| refused("create", day, dir, e))?;
                        }
                        disk.rename(&path, home).map_err(|e| refused("rename", &path, dir, e))?;
                        found.insert(home.clone());
                    } else if let Err(error) = disk.remove(&path) {
                        tracing::warn!(path = %path.display(), %error, "cannot remove a file that no commit names");
                        kept += 1;
                    }
                }
                if kept == 0 {
                    // An empty day is only untidy.
                    let _ = disk.remove_dir(&folder);
                }
            }
        }
    }
    Ok(found)
}
