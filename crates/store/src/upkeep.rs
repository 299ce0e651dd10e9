//! What a store does by itself: remove what is too old or too much, merge parts, seal days.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::TraceId;

use crate::catalog::{Commit, Names, PartEntry};
use crate::column::fixed;
use crate::error::{FlushError, ReadError};
use crate::merge::{MergeError, merge_bytes, merge_parts, merged_names};
use crate::removed::{Note, Removal, Rule};
use crate::snapshot::{Part, lock};
use crate::writer::{Core, failed};
use crate::{Dataset, Day};

/// A part of this many rows is large enough to be left alone: eight flushes of a busy store, so that a row is rewritten once.
const LARGE_ROWS: u64 = 1_000_000;
/// Small parts that are worth one merge once they make a large one.
const MERGE_PARTS: usize = 8;
/// Parts of a day and dataset after merging.
const DAY_PARTS: usize = 16;
/// Inputs of one merge: each holds a file and a stretch of keys.
const MERGE_INPUTS: usize = 32;
/// Rows of a part at most: the trace index counts them in 32 bits, and retention removes whole parts.
const MAX_PART_ROWS: u64 = 64_000_000;
/// A day that got nothing for this long is tidied even if its parts are few.
const QUIET_NANOS: u64 = 5 * 60 * 1_000_000_000;
/// Small parts that such tidying is worth.
const QUIET_PARTS: usize = 4;
/// Late rows of a sealed day are sealed after this long at the latest, even if more keep coming.
const SEAL_LATEST_NANOS: u64 = 24 * 3600 * 1_000_000_000;

impl Core {
    pub fn maintain(&self) -> Result<(), FlushError> {
        let _one = lock(&self.merging);
        let settings = &self.shared.settings;
        self.shared
            .removed
            .forget(settings.remembered, settings.clock.now_unix_nano());
        for dataset in Dataset::ALL {
            self.retain(dataset)?;
            while let Some(parts) = self.pick(dataset) {
                if !self.merge(dataset, &parts, false)? {
                    break;
                }
                self.retain(dataset)?;
            }
            self.seal(dataset)?;
        }
        Ok(())
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn live(&self, dataset: Dataset) -> Vec<Arc<Part>> {
        let snapshot = self.shared.snapshot();
        snapshot.parts_of(dataset).filter(|p| !p.is_bad()).cloned().collect()
    }

    /// Removes whole parts: those too old, then the oldest while there are too many bytes. Which traces they held is noted first.
    fn retain(&self, dataset: Dataset) -> Result<(), FlushError> {
        let retention = self.shared.settings.retention(dataset);
        let now = self.shared.settings.clock.now_unix_nano();
        let age = u64::try_from(retention.age.as_nanos()).unwrap_or(u64::MAX);
        let cutoff = now.saturating_sub(age);
        let mut parts: Vec<Arc<Part>> = self.shared.snapshot().parts_of(dataset).cloned().collect();
        parts.sort_by_key(|p| newest(&p.entry));
        let mut bytes: u64 = parts.iter().map(|p| p.entry.bytes).sum();
        let mut going: BTreeMap<(Day, Rule), Vec<Arc<Part>>> = BTreeMap::new();
        let mut removed = Vec::new();
        let mut horizon = 0;
        for part in parts {
            let too_old = newest(&part.entry) < cutoff;
            let rule = match retention.bytes {
                _ if too_old => Rule::Age(retention.age),
                Some(bound) if bytes > bound => Rule::Bytes(bound),
                _ => break,
            };
            horizon = horizon.max(if too_old { cutoff } else { newest(&part.entry) + 1 });
            bytes -= part.entry.bytes;
            removed.push(part.entry.id);
            going.entry((part.entry.day, rule)).or_default().push(part);
        }
        if removed.is_empty() {
            return Ok(());
        }
        let mut lost = 0;
        for ((day, rule), parts) in going {
            match self.note_traces(Removal { dataset, day, rule }, &parts) {
                Some(without_note) => lost += without_note,
                // The store closes; the next start begins again.
                None => return Ok(()),
            }
        }
        tracing::info!(
            dataset = dataset.as_str(),
            parts = removed.len(),
            "retention removes parts"
        );
        self.replace(Commit {
            removed: removed.clone(),
            horizon: vec![(dataset, horizon)],
            ..Commit::default()
        })?;
        self.shared.removed.committed(&removed, lost);
        Ok(())
    }

    /// Notes the traces of parts that are about to go. Returns how many parts will go without a note: retention frees a full disk, so that nothing here
    /// may stop it. `None` if the store closes.
    fn note_traces(&self, removal: Removal, parts: &[Arc<Part>]) -> Option<u64> {
        let known = &self.shared.removed;
        let fresh: Vec<&Arc<Part>> = parts.iter().filter(|p| !known.is_noted(p.entry.id)).collect();
        let mut note = known.note(removal);
        let mut unread = 0;
        for part in &fresh {
            match self.note_part(&mut note, part) {
                Ok(()) => {}
                Err(NoteError::Stopped) => return None,
                Err(NoteError::Read(error)) => {
                    tracing::warn!(%error, "some traces of a part will not be remembered as removed");
                    unread += 1;
                }
                Err(NoteError::Write(error)) => {
                    tracing::warn!(%error, "cannot note which traces retention removes");
                    return Some(fresh.len() as u64);
                }
            }
        }
        if let Err(error) = note.finish() {
            tracing::warn!(%error, "cannot note which traces retention removes");
            return Some(fresh.len() as u64);
        }
        for part in fresh {
            known.set_noted(part.entry.id);
        }
        Some(unread)
    }

    fn note_part(&self, note: &mut Note<'_>, part: &Part) -> Result<(), NoteError> {
        let opened = self.shared.open_part(part).map_err(NoteError::Read)?;
        let Some(column) = opened
            .directory
            .column(part.entry.dataset.fixed()[fixed::TRACE_ID].name)
        else {
            return Ok(());
        };
        for (index, group) in opened.directory.groups.iter().enumerate() {
            if self.stopped() {
                return Err(NoteError::Stopped);
            }
            let ids = opened
                .column(index, column, 0..group.rows as usize)
                .map_err(NoteError::Read)?;
            for row in 0..group.rows as usize {
                if let Some(id) = ids.id(row).and_then(|id| id.try_into().ok()) {
                    note.push(&TraceId(id)).map_err(NoteError::Write)?;
                }
            }
        }
        Ok(())
    }

    /// Parts of one day that are worth merging now.
    fn pick(&self, dataset: Dataset) -> Option<Vec<Arc<Part>>> {
        let now = self.shared.settings.clock.now_unix_nano();
        let mut days: BTreeMap<Day, Vec<Arc<Part>>> = BTreeMap::new();
        for part in self.live(dataset) {
            if !part.entry.sealed {
                days.entry(part.entry.day).or_default().push(part);
            }
        }
        days.into_values().rev().find_map(|parts| worth_merging(parts, now))
    }

    /// Merges parts of one day into one; `false` if nothing came of it.
    fn merge(&self, dataset: Dataset, parts: &[Arc<Part>], sealed: bool) -> Result<bool, FlushError> {
        let Some(day) = parts.first().map(|p| p.entry.day) else {
            return Ok(false);
        };
        let mut open = Vec::with_capacity(parts.len());
        for part in parts {
            match self.shared.open_part(part) {
                Ok(opened) => open.push(opened),
                Err(error) => return self.unreadable(part, error),
            }
        }
        let mut bytes = merge_bytes(&open);
        while bytes > self.shared.settings.merge_bytes && open.len() > 2 {
            open.pop();
            bytes = merge_bytes(&open);
        }
        if bytes > self.shared.settings.merge_bytes {
            tracing::debug!(
                ?day,
                bytes,
                "two parts are too large to be merged within the bound of memory"
            );
            return Ok(false);
        }
        let parts = &parts[..open.len()];
        let _held = self.shared.memory.merge.hold(bytes);
        let mut outcome = None;
        let written = self.write_part(dataset, day, sealed, |file| {
            match merge_parts(file, &open, dataset, day, &|| self.stopped()) {
                Ok((made, dropped)) => {
                    outcome = Some(Ok(dropped));
                    Ok((made, Names::default()))
                }
                Err(MergeError::Write(error)) => Err(error),
                Err(other) => {
                    outcome = Some(Err(other));
                    Err(std::io::Error::other("the merge was given up"))
                }
            }
        });
        let mut entry = match (written, outcome) {
            (Ok(entry), Some(Ok(_))) => entry,
            (_, Some(Err(MergeError::Read(input, error)))) => return self.unreadable(&parts[input], error),
            (_, Some(Err(MergeError::Stopped))) => return Ok(false),
            (Err(error), _) => return Err(error),
            (Ok(_), _) => return Ok(false),
        };
        entry.names = merged_names(parts.iter().map(|p| &p.entry.names));
        entry.created_unix_nano = parts.iter().map(|p| p.entry.created_unix_nano).max().unwrap_or(0);
        self.replace(Commit {
            added: vec![entry],
            removed: parts.iter().map(|p| p.entry.id).collect(),
            ..Commit::default()
        })?;
        Ok(true)
    }

    /// A damaged input is set aside, so that the next round goes on without it.
    fn unreadable(&self, part: &Part, error: ReadError) -> Result<bool, FlushError> {
        if let ReadError::Corrupt { .. } = error {
            self.shared.set_aside(part, &error);
            return Ok(true);
        }
        Err(error.into())
    }

    /// Seals days that ended long enough ago. What is sealed is only ever added to: rows that come later are sealed in parts of their own.
    fn seal(&self, dataset: Dataset) -> Result<(), FlushError> {
        let now = self.shared.settings.clock.now_unix_nano();
        let wait = u64::try_from(self.shared.settings.seal_after.as_nanos()).unwrap_or(u64::MAX);
        let days: BTreeSet<Day> = self
            .live(dataset)
            .iter()
            .filter(|p| !p.entry.sealed && p.entry.day.end_unix_nano().saturating_add(wait) <= now)
            .map(|p| p.entry.day)
            .collect();
        for day in days {
            let parts = || -> Vec<Arc<Part>> {
                let mut parts = self.live(dataset);
                parts.retain(|p| !p.entry.sealed && p.entry.day == day);
                parts
            };
            let created: Vec<u64> = parts().iter().map(|p| p.entry.created_unix_nano).collect();
            let newest = created.iter().copied().max().unwrap_or(now);
            let oldest = created.iter().copied().min().unwrap_or(now);
            let quiet = newest.saturating_add(wait) <= now;
            let overdue = oldest.saturating_add(wait).saturating_add(SEAL_LATEST_NANOS) <= now;
            if !quiet && !overdue {
                continue;
            }
            // Small parts are merged into a sealed one; large ones are moved as they are.
            loop {
                let mut small = parts();
                small.retain(|p| p.entry.rows < LARGE_ROWS);
                small.truncate(MERGE_INPUTS);
                if small.len() < 2 || !self.merge(dataset, &small, true)? || self.stopped() {
                    break;
                }
            }
            for part in parts() {
                self.move_to_sealed(&part)?;
            }
        }
        Ok(())
    }

    /// Moves a part under `sealed/`: rename, then commit. An open that finds the one without the other undoes the rename.
    fn move_to_sealed(&self, part: &Part) -> Result<(), FlushError> {
        let disk = &self.shared.settings.disk;
        let entry = PartEntry {
            sealed: true,
            ..part.entry.clone()
        };
        let (from, to) = (part.path(), entry.path(&self.shared.dir));
        let folder = to.parent().map(Path::to_owned).unwrap_or_default();
        self.make_folder(&folder)?;
        disk.rename(from, &to).map_err(failed("rename", from))?;
        let committed = disk.sync_dir(&folder).map_err(failed("sync", &folder)).and_then(|()| {
            self.replace(Commit {
                added: vec![entry.clone()],
                removed: vec![entry.id],
                ..Commit::default()
            })
        });
        if committed.is_err() {
            // Back, so that readers find it; should this fail too, they look in both places.
            let _ = disk.rename(&to, from);
        }
        committed
    }
}

/// Why a part's traces were not noted.
enum NoteError {
    Stopped,
    Read(ReadError),
    Write(std::io::Error),
}

/// The newest instant that a part counts as, for retention: its newest row, but no other day than its own.
fn newest(part: &PartEntry) -> u64 {
    part.max_time
        .clamp(part.day.start_unix_nano(), part.day.end_unix_nano())
}

/// Which of a day's parts to merge, if any.
fn worth_merging(mut parts: Vec<Arc<Part>>, now: u64) -> Option<Vec<Arc<Part>>> {
    parts.sort_by_key(|p| p.entry.rows);
    let total = parts.len();
    let small = parts.partition_point(|p| p.entry.rows < LARGE_ROWS);
    let small_rows: u64 = parts[..small].iter().map(|p| p.entry.rows).sum();
    let last_created = parts.iter().map(|p| p.entry.created_unix_nano).max().unwrap_or(0);
    let quiet = last_created.saturating_add(QUIET_NANOS) <= now;
    let take = if small >= MERGE_PARTS && small_rows >= LARGE_ROWS {
        small.min(MERGE_INPUTS)
    } else if total > DAY_PARTS {
        MERGE_PARTS.max(total - DAY_PARTS + 1).min(MERGE_INPUTS)
    } else if quiet && small >= QUIET_PARTS {
        small
    } else {
        return None;
    };
    let mut rows = 0;
    parts.truncate(take);
    parts.retain(|p| {
        rows += p.entry.rows;
        rows <= MAX_PART_ROWS
    });
    (parts.len() >= 2).then_some(parts)
}
