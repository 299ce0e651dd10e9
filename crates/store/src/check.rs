//! Reads everything that a store has and says what is damaged, beside the process that owns it and without changing anything.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::{self, Catalog, Damage, PartEntry};
use crate::disk::{Disk, RealDisk};
use crate::error::{OpenError, ReadError};
use crate::part::OpenPart;
use crate::removed;
use crate::store::{UNCLAIMED_DIR, load_catalog, lost_words, names_format, part_files};

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
    /// What earlier starts found damaged or could not attribute and have kept aside. Nothing reads it; it may be removed by hand.
    pub aside: Vec<PathBuf>,
}

/// Checks the store in a directory: the catalog, and every page and index of every part.
pub fn check(dir: impl AsRef<Path>) -> Result<Report, OpenError> {
    check_on(&(Arc::new(RealDisk) as Arc<dyn Disk>), dir.as_ref())
}

/// The same on a disk that was handed in.
pub fn check_on(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Report, OpenError> {
    names_format(&**disk, dir)?;
    let catalog = load_steady(disk, dir)?;
    let mut report = Report {
        aside: kept_aside(&**disk, dir),
        ..Report::default()
    };
    for Damage { path, what } in catalog.damage() {
        let what = match catalog.lost() {
            Some(commit) => format!("{what}; {}", lost_words(commit)),
            None => format!("{what}; its other copy is whole and is used"),
        };
        report.problems.push(Problem {
            path: path.clone(),
            what,
        });
    }
    let mut found = HashSet::new();
    let mut failed = Vec::new();
    for entry in catalog.state().parts.values() {
        report.parts += 1;
        report.rows += entry.rows;
        report.bytes += entry.bytes;
        let path = entry.path(dir);
        let Err(error) = check_part(&**disk, &path, entry) else {
            found.insert(path);
            continue;
        };
        // A move to `sealed/` that was cut short: the next open undoes it, and the part is whole.
        let moved = PartEntry {
            sealed: !entry.sealed,
            ..entry.clone()
        };
        let moved_path = moved.path(dir);
        if check_part(&**disk, &moved_path, &moved).is_ok() {
            found.insert(moved_path);
        } else {
            failed.push((path, error, entry));
        }
    }
    if !failed.is_empty() {
        // A store at work may have replaced these parts since: only what is still named is missed.
        let now = load_steady(disk, dir)?;
        failed.retain(|(_, _, entry)| now.state().parts.get(&entry.id).is_some_and(|it| it == *entry));
    }
    for (path, error, _) in failed {
        found.insert(path.clone());
        report.problems.push(Problem {
            path,
            what: error.to_string(),
        });
    }
    let (lists, damaged) = removed::check(&**disk, dir);
    report.removed_lists = lists;
    report
        .problems
        .extend(damaged.into_iter().map(|(path, what)| Problem { path, what }));
    for (folder, file) in part_files(&**disk, dir)? {
        let path = folder.join(file);
        if !found.contains(&path) {
            report.strays.push(path);
        }
    }
    Ok(report)
}

/// A store at work may replace the catalog's files while they are read: what looks damaged is looked at again.
fn load_steady(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Catalog, OpenError> {
    const LOOKS: u32 = 3;
    let mut catalog = load_catalog(disk, dir);
    for _ in 1..LOOKS {
        if catalog.as_ref().is_ok_and(|c| c.damage().is_empty()) {
            break;
        }
        catalog = load_catalog(disk, dir);
    }
    catalog
}

/// What earlier starts have put out of the way: damaged files of the catalog, and parts that only a lost commit may name.
fn kept_aside(disk: &dyn Disk, dir: &Path) -> Vec<PathBuf> {
    let unclaimed = dir.join(UNCLAIMED_DIR);
    let mut aside = catalog::kept_aside(disk, dir);
    let parts = disk.list(&unclaimed).unwrap_or_default();
    aside.extend(parts.into_iter().map(|e| unclaimed.join(e.name)));
    aside
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
    // What we read ourselves comes first: it says where the damage lies.
    part.check_trace_index()?;
    for group in 0..part.directory.groups.len() {
        part.words(group)?;
        let rows = part.directory.groups[group].rows as usize;
        for column in 0..part.directory.columns.len() {
            part.column(group, column, 0..rows)?;
        }
    }
    // Page headers, footer and gaps are only read by others.
    let (bytes, crc) = part.checksum()?;
    if bytes != entry.bytes {
        return Err(differs(format!(
            "it has {bytes} bytes, the catalog says {}",
            entry.bytes
        )));
    }
    if entry.crc.is_some_and(|known| known != crc) {
        return Err(differs(
            "its bytes do not match their checksum, in what only other readers of Parquet look at: a page header or the footer".to_owned(),
        ));
    }
    Ok(())
}
