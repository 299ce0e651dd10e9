//! Reads everything that a store has and says what is damaged, beside the process that owns it and without changing anything.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Dataset;
use crate::catalog::PartEntry;
use crate::disk::{Disk, RealDisk};
use crate::error::{OpenError, ReadError};
use crate::part::OpenPart;
use crate::removed;
use crate::store::{load_catalog, names_format};

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, where.
    pub what: String,
}

/// What a check read and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Parts that the catalog names.
    pub parts: u64,
    /// Rows that it promises in them.
    pub rows: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Files that say which traces retention removed.
    pub removed_lists: u64,
    /// What is damaged or missing.
    pub problems: Vec<Problem>,
    /// Files that no commit names. Harmless: the next open removes them; a store at work may be writing them now.
    pub strays: Vec<PathBuf>,
}

/// Checks the store in a directory: the catalog, and every page and index of every part.
pub fn check(dir: impl AsRef<Path>) -> Result<Report, OpenError> {
    check_on(&(Arc::new(RealDisk) as Arc<dyn Disk>), dir.as_ref())
}

/// The same on a disk that was handed in.
pub fn check_on(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Report, OpenError> {
    names_format(&**disk, dir)?;
    let catalog = load_catalog(disk, dir)?;
    let mut report = Report::default();
    for entry in catalog.state().parts.values() {
        report.parts += 1;
        report.rows += entry.rows;
        report.bytes += entry.bytes;
        let path = entry.path(dir);
        if let Err(error) = check_part(&**disk, &path, entry) {
            report.problems.push(Problem {
                path,
                what: error.to_string(),
            });
        }
    }
    let (lists, damaged) = removed::check(&**disk, dir);
    report.removed_lists = lists;
    report
        .problems
        .extend(damaged.into_iter().map(|(path, what)| Problem { path, what }));
    let named: HashSet<PathBuf> = catalog.state().parts.values().map(|p| p.path(dir)).collect();
    for dataset in Dataset::ALL {
        for place in ["open", "sealed"] {
            let place = dir.join(dataset.as_str()).join(place);
            for day in disk.list(&place).unwrap_or_default() {
                let folder = place.join(&day.name);
                for file in disk.list(&folder).unwrap_or_default() {
                    let path = folder.join(&file.name);
                    if !named.contains(&path) {
                        report.strays.push(path);
                    }
                }
            }
        }
    }
    Ok(report)
}

fn check_part(disk: &dyn Disk, path: &Path, entry: &PartEntry) -> Result<(), ReadError> {
    let part = OpenPart::open(disk, path, None)?;
    let differs = |what: String| ReadError::Corrupt {
        path: path.to_owned(),
        offset: 0,
        what,
    };
    if part.directory.rows != entry.rows {
        return Err(differs(format!(
            "it holds {} rows, the catalog says {}",
            part.directory.rows, entry.rows
        )));
    }
    if part.directory.dataset != entry.dataset || part.directory.day != entry.day {
        return Err(differs(
            "it is of another dataset or day than the catalog says".to_owned(),
        ));
    }
    part.check_trace_index()?;
    for group in 0..part.directory.groups.len() {
        let rows = part.directory.groups[group].rows as usize;
        for column in 0..part.directory.columns.len() {
            part.column(group, column, 0..rows)?;
        }
    }
    Ok(())
}
