//! Opens a store: lock, format, catalog, and a sweep of files that no commit names.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::{CATALOG_VERSION, Catalog, CatalogError, LoadError, PartEntry};
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
pub(crate) const CATALOG_DIR: &str = "catalog";

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
        let catalog_dir = dir.join(CATALOG_DIR);
        refuse_parts_without_catalog(&*disk, dir, &catalog_dir)?;
        disk.create_dir_all(&catalog_dir)
            .map_err(|e| refused("create", &catalog_dir, dir, e))?;
        disk.sync_dir(dir).map_err(|e| refused("sync", dir, dir, e))?;
        let catalog = load_catalog(&disk, dir)?;

        let mut snapshot = Snapshot::default();
        let mut missing = Vec::new();
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
    Catalog::load(Arc::clone(disk), &dir.join(CATALOG_DIR)).map_err(|error| match error {
        LoadError::Io(CatalogError { doing, path, source }) => refused(doing, &path, dir, source),
        LoadError::Damaged { path, what } => OpenError::Catalog { path, what },
        LoadError::Newer(found) => OpenError::Newer {
            dir: dir.to_owned(),
            found,
            known: CATALOG_VERSION,
        },
    })
}

/// Without its catalog every part would look like a leftover and be removed. The folder is made before the first part is written, so parts without it
/// mean that somebody took it away.
fn refuse_parts_without_catalog(disk: &dyn Disk, dir: &Path, catalog_dir: &Path) -> Result<(), OpenError> {
    let list = |path: &Path| disk.list(path).map_err(|e| refused("list", path, dir, e));
    if list(dir)?.iter().any(|entry| entry.is_dir && entry.name == CATALOG_DIR) {
        return Ok(());
    }
    for dataset in Dataset::ALL {
        for place in ["open", "sealed"] {
            let place = dir.join(dataset.as_str()).join(place);
            for day in list(&place)?.iter().filter(|day| day.is_dir) {
                if !list(&place.join(&day.name))?.is_empty() {
                    return Err(OpenError::Catalog {
                        path: catalog_dir.to_owned(),
                        what: "the folder is gone while parts are there; put it back, or move the parts away"
                            .to_owned(),
                    });
                }
            }
        }
    }
    Ok(())
}

/// Removes files that no commit names, and empty days; returns the parts that are there. Parts themselves are not opened.
fn sweep(disk: &Arc<dyn Disk>, dir: &Path, catalog: &Catalog) -> Result<HashSet<PathBuf>, OpenError> {
    let named: HashSet<PathBuf> = catalog.state().parts.values().map(|p| p.path(dir)).collect();
    // A part that was moved under `sealed/` and not committed there: back to where the catalog says.
    let moved: HashMap<PathBuf, PathBuf> = catalog
        .state()
        .parts
        .values()
        .filter(|p| !p.sealed)
        .map(|p| {
            let sealed = PartEntry {
                sealed: true,
                ..p.clone()
            };
            (sealed.path(dir), p.path(dir))
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
