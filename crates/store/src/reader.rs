//! The reading handle: traces by id, scans, names and statistics. Every answer is of one snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use model::TraceId;
use model::record::{LogRecord, SpanRecord};

use crate::block::{At, Block, Values};
use crate::column::fixed;
use crate::error::ReadError;
use crate::frame::Frame;
use crate::limit::{Filling, Found, Limit, Weigh};
use crate::memory::MemoryHeld;
use crate::removed::{Removal, RemovedStats};
use crate::scanner::Scanner;
use crate::snapshot::{OPEN_PARTS_BYTES, Part, Quarantined, Shared, Snapshot};
use crate::{Dataset, Scan, rows};

/// Spans of one id and start that are compared with a further one: a sender that tries again sends a handful.
const TWINS_COMPARED: usize = 256;

/// The reading handle. Cloning is cheap.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

/// What one dataset holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatasetStats {
    /// Rows in parts.
    pub rows: u64,
    /// Bytes of the parts' files.
    pub bytes: u64,
    /// Live parts.
    pub parts: u64,
    /// Parts under `sealed/`.
    pub sealed_parts: u64,
    /// Rows in memory only.
    pub fresh_rows: u64,
    /// Memory that they take.
    pub fresh_bytes: u64,
    /// Time of the oldest and the newest row; `None` without rows.
    pub oldest_unix_nano: Option<u64>,
    /// See `oldest_unix_nano`.
    pub newest_unix_nano: Option<u64>,
    /// Rows before this instant may have been removed by retention. 0 if retention has never removed any and none is due.
    pub horizon_unix_nano: u64,
}

/// What the store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Spans.
    pub traces: DatasetStats,
    /// Log records.
    pub logs: DatasetStats,
    /// What is remembered of traces that retention removed.
    pub removed: RemovedStats,
    /// Files that are damaged or gone, with the reason.
    pub quarantined: Vec<Quarantined>,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Reader {
        Reader { shared }
    }

    /// The spans of a trace, by start; identical ones once. Where the limit is too small, the oldest data comes first.
    pub fn trace(&self, id: TraceId, limit: &Limit<'_>) -> Result<Found<SpanRecord>, ReadError> {
        let mut found = self.rows_of_trace(Dataset::Traces, id, limit, rows::span_records)?;
        found
            .records
            .sort_by_key(|s: &SpanRecord| (s.start_unix_nano, s.span_id));
        collapse(&mut found.records);
        Ok(found)
    }

    /// The log records that carry a trace id, by time. Where the limit is too small, the oldest data comes first.
    pub fn logs_of_trace(&self, id: TraceId, limit: &Limit<'_>) -> Result<Found<LogRecord>, ReadError> {
        let mut found = self.rows_of_trace(Dataset::Logs, id, limit, rows::log_records)?;
        found.records.sort_by_key(|r: &LogRecord| match r.time_unix_nano {
            0 => r.observed_unix_nano,
            time => time,
        });
        Ok(found)
    }

    /// What retention has removed of a trace: which days of which dataset, and by which rule, as far back as is remembered. Rows that are still here
    /// say nothing of it, and the other way round: a trace may be here and removed in parts.
    pub fn removed(&self, id: TraceId) -> Vec<Removal> {
        self.shared
            .removed
            .find(&id, &mut |path, reason| self.shared.report(path, reason))
    }

    fn rows_of_trace<T: Weigh>(
        &self,
        dataset: Dataset,
        id: TraceId,
        limit: &Limit<'_>,
        records: fn(&Frame) -> Vec<T>,
    ) -> Result<Found<T>, ReadError> {
        let snapshot = self.shared.snapshot();
        let mut filling = Filling::new(limit);
        let mut parts: Vec<&Arc<Part>> = snapshot.parts_of(dataset).filter(|p| !p.is_bad()).collect();
        parts.sort_by_key(|part| part.entry.min_time);
        for part in parts {
            filling.check()?;
            match self.part_rows_of_trace(part, id, &mut filling, records) {
                Err(error @ ReadError::Corrupt { .. }) => self.shared.set_aside(part, &error),
                read => read?,
            }
        }
        for block in snapshot.blocks(dataset) {
            let picks = block_rows_of_trace(block, id);
            if !picks.is_empty() {
                let frame = block.frame(|_| true);
                filling.add(&picks, |picks| Ok(records(&pick(&frame, picks))))?;
            }
        }
        Ok(filling.found)
    }

    fn part_rows_of_trace<T: Weigh>(
        &self,
        part: &Part,
        id: TraceId,
        filling: &mut Filling<'_, T>,
        records: fn(&Frame) -> Vec<T>,
    ) -> Result<(), ReadError> {
        let open = self.shared.open_part(part)?;
        let runs = open.trace_rows(&id)?;
        if runs.is_empty() {
            return Ok(());
        }
        let mut first = 0u32;
        for (index, group) in open.directory.groups.iter().enumerate() {
            let last = first + group.rows;
            // Runs that are close together are read at once: they share pages anyway.
            for range in near(&runs, first..last) {
                filling.check()?;
                let rows = (range.start - first) as usize..(range.end - first) as usize;
                let ids = open.column(
                    index,
                    fixed_column(&open.directory.columns, part.entry.dataset),
                    rows.clone(),
                )?;
                let picks: Vec<u32> = (0..rows.len() as u32)
                    .filter(|row| ids.id(*row as usize) == Some(&id.0[..]))
                    .collect();
                filling.add(&picks, |picks| {
                    let (from, to) = (picks[0], picks[picks.len() - 1] + 1);
                    let frame = open.frame(index, rows.start + from as usize..rows.start + to as usize, |_| true)?;
                    if picks.len() == frame.rows {
                        return Ok(records(&frame));
                    }
                    let moved: Vec<u32> = picks.iter().map(|pick| pick - from).collect();
                    Ok(records(&pick(&frame, &moved)))
                })?;
            }
            first = last;
        }
        Ok(())
    }

    /// Rows that a question asks for, block after block. The iterator pins its snapshot.
    pub fn scan(&self, scan: Scan) -> Scanner {
        Scanner::new(Arc::clone(&self.shared), scan)
    }

    /// Names of services that have spans or records in a range of time. By part and block, so a little more than exact at its ends.
    pub fn services(&self, time: Range<u64>) -> Vec<String> {
        let mut names = BTreeSet::new();
        self.names(&time, &mut |service, _| {
            names.insert(service.to_owned());
        });
        names.into_iter().collect()
    }

    /// Names of a service's operations in a range of time.
    pub fn operations(&self, service: &str, time: Range<u64>) -> Vec<String> {
        let mut names = BTreeSet::new();
        self.names(&time, &mut |s, operation| {
            if let (true, Some(operation)) = (s == service, operation) {
                names.insert(operation.to_owned());
            }
        });
        names.into_iter().collect()
    }

    fn names(&self, time: &Range<u64>, see: &mut dyn FnMut(&str, Option<&str>)) {
        let snapshot = self.shared.snapshot();
        for part in snapshot.parts.values() {
            if part.entry.min_time < time.end && part.entry.max_time >= time.start {
                for (service, operations) in &part.entry.names.services {
                    see(service, None);
                    operations.iter().for_each(|o| see(service, Some(o)));
                }
            }
        }
        for block in snapshot.traces.iter().chain(&snapshot.logs) {
            if block.min_time < time.end && block.max_time >= time.start {
                block.names(see);
            }
        }
    }

    /// What the store holds now.
    pub fn stats(&self) -> Stats {
        let snapshot = self.shared.snapshot();
        Stats {
            traces: self.dataset_stats(&snapshot, Dataset::Traces),
            logs: self.dataset_stats(&snapshot, Dataset::Logs),
            removed: self.shared.removed.stats(),
            quarantined: self.shared.quarantined(),
        }
    }

    /// What the store holds in memory, by use. Loads counters only.
    pub fn memory(&self) -> MemoryHeld {
        let settings = &self.shared.settings;
        self.shared
            .memory
            .held(settings.memory_bytes, settings.merge_bytes, OPEN_PARTS_BYTES)
    }

    fn dataset_stats(&self, snapshot: &Snapshot, dataset: Dataset) -> DatasetStats {
        let mut stats = DatasetStats::default();
        let mut see = |min: u64, max: u64| {
            stats.oldest_unix_nano = Some(stats.oldest_unix_nano.map_or(min, |o| o.min(min)));
            stats.newest_unix_nano = Some(stats.newest_unix_nano.map_or(max, |n| n.max(max)));
        };
        for part in snapshot.parts_of(dataset) {
            see(part.entry.min_time, part.entry.max_time);
        }
        for block in snapshot.blocks(dataset) {
            see(block.min_time, block.max_time);
        }
        for part in snapshot.parts_of(dataset) {
            stats.rows += part.entry.rows;
            stats.bytes += part.entry.bytes;
            stats.parts += 1;
            stats.sealed_parts += u64::from(part.entry.sealed);
        }
        for block in snapshot.blocks(dataset) {
            stats.fresh_rows += block.rows as u64;
            stats.fresh_bytes += block.memory_bytes;
        }
        stats.horizon_unix_nano = snapshot.horizon.get(&dataset).copied().unwrap_or(0);
        stats
    }

    /// Bytes of rows in memory, both datasets, those being flushed included.
    pub fn memory_bytes(&self) -> u64 {
        self.shared.memory.chunks.bytes()
    }
}

/// Removes spans that equal one before them. Equal spans have equal ids and starts, so they are neighbours after sorting.
/// Spans that share both and differ otherwise are somebody's doing; so many of them are compared and no more.
fn collapse(spans: &mut Vec<SpanRecord>) {
    let mut seen: BTreeMap<(u64, [u8; 8]), Vec<usize>> = BTreeMap::new();
    let mut drop = vec![false; spans.len()];
    for (index, span) in spans.iter().enumerate() {
        let same = seen.entry((span.start_unix_nano, span.span_id.0)).or_default();
        if same.iter().rev().take(TWINS_COMPARED).any(|i| spans[*i] == *span) {
            drop[index] = true;
        } else {
            same.push(index);
        }
    }
    let mut index = 0;
    spans.retain(|_| {
        index += 1;
        !drop[index - 1]
    });
}

fn fixed_column(columns: &[crate::column::Spec], dataset: Dataset) -> usize {
    let name = dataset.fixed()[fixed::TRACE_ID].name;
    columns.iter().position(|c| &*c.name == name).unwrap_or(0)
}

fn block_rows_of_trace(block: &Block, id: TraceId) -> Vec<u32> {
    match block.trace_ids() {
        Some((At::Every, ids)) => (0u32..).zip(ids).filter(|(_, i)| **i == id.0).map(|(r, _)| r).collect(),
        Some((At::Rows(rows), ids)) => rows
            .iter()
            .zip(ids)
            .filter(|(_, i)| **i == id.0)
            .map(|(r, _)| *r)
            .collect(),
        _ => Vec::new(),
    }
}

/// The rows of a frame at `picks`.
pub fn pick(frame: &Frame, picks: &[u32]) -> Frame {
    Frame {
        rows: picks.len(),
        columns: frame
            .columns
            .iter()
            .map(|c| crate::frame::Column {
                spec: c.spec.clone(),
                data: c.data.pick(picks),
            })
            .collect(),
    }
}

/// Runs cut to a group, those closer than a page joined.
fn near(runs: &[Range<u32>], group: Range<u32>) -> Vec<Range<u32>> {
    const NEAR_ROWS: u32 = 1024;
    let mut out: Vec<Range<u32>> = Vec::new();
    for run in runs {
        let cut = run.start.max(group.start)..run.end.min(group.end);
        if cut.is_empty() {
            continue;
        }
        match out.last_mut() {
            Some(last) if cut.start < last.end.saturating_add(NEAR_ROWS) => last.end = last.end.max(cut.end),
            _ => out.push(cut),
        }
    }
    out
}

impl Block {
    /// Pairs of service and operation of the rows, a pair perhaps more than once.
    fn names(&self, see: &mut dyn FnMut(&str, Option<&str>)) {
        let service = self.find("resource.service.name").map(|c| self.dense(c));
        let operation = match self.columns[fixed::NAME].values {
            Values::Codes(..) => Some(self.dense(&self.columns[fixed::NAME])),
            _ => None,
        };
        let mut names = crate::catalog::Names::default();
        crate::make::collect_names(&mut names, service.as_ref(), operation.as_ref(), self.rows);
        for (service, operations) in &names.services {
            see(service, None);
            operations.iter().for_each(|o| see(service, Some(o)));
        }
    }
}
