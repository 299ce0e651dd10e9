//! Walks the rows that a scan asks for: newest blocks first, pruned by what catalog, directory and dictionaries know.

use std::rc::Rc;
use std::sync::Arc;

use arrow_array::RecordBatch;

use crate::arrow::batch_of;
use crate::block::Block;
use crate::column::Spec;
use crate::error::ReadError;
use crate::frame::{Data, Frame};
use crate::part::OpenPart;
use crate::reader::pick;
use crate::scan::{Columns, Scan};
use crate::select::{Known, TRACE_ID, is_named, may_match, reads, reads_trace_id, select, services};
use crate::snapshot::{Part, Shared, Snapshot};
use crate::words::WordFilter;

/// Rows of a part that are judged at once: a few pages, so that the first answer comes before a whole group is read.
const STEP_ROWS: usize = 16 * 1024;

/// One stretch of rows to look at.
enum Source {
    Block(Arc<Block>),
    Part(Arc<Part>),
}

struct Todo {
    /// Newest time, for the order.
    min: u64,
    max: u64,
    source: Source,
}

/// A part being walked.
struct Walk {
    part: Arc<Part>,
    open: Arc<OpenPart>,
    /// Groups still to do, the next one last.
    groups: Vec<usize>,
    /// The group being walked and the steps in it still to do, the next one last.
    steps: Vec<(usize, std::ops::Range<usize>)>,
}

/// An iterator of record batches. Dropping it ends the scan.
pub struct Scanner {
    shared: Arc<Shared>,
    scan: Scan,
    /// Keeps replaced parts readable until the scan ends.
    _snapshot: Arc<Snapshot>,
    /// The next one last.
    todo: Vec<Todo>,
    walk: Option<Walk>,
    groups: Groups,
}

/// Row groups that a scan has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// Of these, columns were read.
    pub read: u64,
    /// These were ruled out by a dictionary, by the absence of a column, or by words.
    pub ruled_out: u64,
}

impl Scanner {
    pub(crate) fn new(shared: Arc<Shared>, scan: Scan) -> Scanner {
        let snapshot = shared.snapshot();
        let overlaps = |min: u64, max: u64| min < scan.time.end && max >= scan.time.start;
        let wanted = services(&scan.filter);
        let mut todo = Vec::new();
        for block in snapshot.blocks(scan.dataset) {
            if overlaps(block.min_time, block.max_time) {
                todo.push(Todo {
                    min: block.min_time,
                    max: block.max_time,
                    source: Source::Block(Arc::clone(block)),
                });
            }
        }
        for part in snapshot.parts_of(scan.dataset) {
            let names = &part.entry.names;
            let has_service = names.cut
                || wanted
                    .as_ref()
                    .is_none_or(|w| w.iter().any(|s| names.services.contains_key(*s)));
            if !part.is_bad() && has_service && overlaps(part.entry.min_time, part.entry.max_time) {
                todo.push(Todo {
                    min: part.entry.min_time,
                    max: part.entry.max_time,
                    source: Source::Part(Arc::clone(part)),
                });
            }
        }
        if scan.newest_first {
            todo.sort_by_key(|t| t.max);
        } else {
            todo.sort_by_key(|t| std::cmp::Reverse(t.min));
        }
        Scanner {
            shared,
            scan,
            _snapshot: snapshot,
            todo,
            walk: None,
            groups: Groups::default(),
        }
    }

    /// The row groups of parts that the scan has come to so far.
    pub fn groups(&self) -> Groups {
        self.groups
    }

    fn block(&self, block: &Block) -> Option<RecordBatch> {
        let by_trace = reads_trace_id(&self.scan.filter, block.columns.iter().map(|c| &c.spec));
        let judged = block.frame(|spec| self.judges(spec, by_trace));
        let picks = self.picks(&judged);
        if picks.is_empty() {
            return None;
        }
        let frame = block.frame(|spec| self.returns(spec));
        Some(batch_of(&pick(&frame, &picks)))
    }

    fn judges(&self, spec: &Spec, by_trace: bool) -> bool {
        (by_trace && &*spec.name == TRACE_ID)
            || &*spec.name == self.scan.dataset.time_column()
            || reads(&self.scan.filter, spec)
    }

    fn returns(&self, spec: &Spec) -> bool {
        match &self.scan.columns {
            Columns::All => true,
            Columns::Named(names) => is_named(names, spec),
        }
    }

    fn picks(&self, frame: &Frame) -> Vec<u32> {
        let kept = select(&self.scan.filter, frame);
        let times = match frame.column(self.scan.dataset.time_column()) {
            Some(Data::Words { values, .. }) => values.as_slice(),
            _ => &[],
        };
        (0u32..)
            .zip(kept.iter().zip(times))
            .filter(|(_, (kept, time))| **kept && self.scan.time.contains(time))
            .map(|(row, _)| row)
            .collect()
    }

    fn begin(&self, part: Arc<Part>) -> Result<Walk, ReadError> {
        let open = self.shared.open_part(&part)?;
        let mut groups: Vec<(u64, usize)> = Vec::new();
        for (index, group) in open.directory.groups.iter().enumerate() {
            if group.min_time < self.scan.time.end && group.max_time >= self.scan.time.start {
                let order = if self.scan.newest_first {
                    group.max_time
                } else {
                    u64::MAX - group.min_time
                };
                groups.push((order, index));
            }
        }
        groups.sort_unstable();
        Ok(Walk {
            part,
            open,
            groups: groups.into_iter().map(|(_, index)| index).collect(),
            steps: Vec::new(),
        })
    }

    /// The next batch of a walk; `None` when it is over.
    fn step(&mut self, walk: &mut Walk) -> Result<Option<RecordBatch>, ReadError> {
        loop {
            let Some((group, rows)) = walk.steps.pop() else {
                let Some(group) = walk.groups.pop() else {
                    return Ok(None);
                };
                if !self.group_may_match(&walk.open, group)? {
                    self.groups.ruled_out += 1;
                } else {
                    self.groups.read += 1;
                    let rows = walk.open.directory.groups[group].rows as usize;
                    let mut steps: Vec<_> = (0..rows.div_ceil(STEP_ROWS))
                        .map(|i| (group, i * STEP_ROWS..((i + 1) * STEP_ROWS).min(rows)))
                        .collect();
                    if !self.scan.newest_first {
                        steps.reverse();
                    }
                    walk.steps = steps;
                }
                continue;
            };
            let by_trace = reads_trace_id(&self.scan.filter, walk.open.directory.columns.iter());
            let judged = walk
                .open
                .frame(group, rows.clone(), |spec| self.judges(spec, by_trace))?;
            let picks = self.picks(&judged);
            if picks.is_empty() {
                continue;
            }
            // Columns that were read to judge are not read again.
            let mut frame = Frame {
                rows: picks.len(),
                columns: Vec::new(),
            };
            let (first, last) = (picks[0] as usize, picks[picks.len() - 1] as usize);
            let near = rows.start + first..rows.start + last + 1;
            let moved: Vec<u32> = picks.iter().map(|p| p - first as u32).collect();
            for (index, spec) in walk.open.directory.columns.iter().enumerate() {
                if !self.returns(spec) || walk.open.directory.groups[group].chunks[index].present == 0 {
                    continue;
                }
                let data = match judged.column(&spec.name) {
                    Some(data) => data.pick(&picks),
                    None => walk.open.column(group, index, near.clone())?.pick(&moved),
                };
                frame.columns.push(crate::frame::Column {
                    spec: spec.clone(),
                    data,
                });
            }
            return Ok(Some(batch_of(&frame)));
        }
    }

    fn group_may_match(&self, open: &OpenPart, group: usize) -> Result<bool, ReadError> {
        // Read once, and only if a column without a dictionary is asked for its words.
        let mut words: Option<Option<Rc<WordFilter>>> = None;
        may_match(
            &self.scan.filter,
            &open.directory.columns,
            &mut |column, wants_words| {
                if open.directory.groups[group].chunks[column].present == 0 {
                    return Ok(Known::Absent);
                }
                if let Some(texts) = open.dictionary(group, column)? {
                    return Ok(Known::Texts(texts));
                }
                if !wants_words {
                    return Ok(Known::Anything);
                }
                if words.is_none() {
                    words = Some(open.words(group)?.map(Rc::new));
                }
                Ok(words.clone().flatten().map_or(Known::Anything, Known::Words))
            },
        )
    }
}

impl Iterator for Scanner {
    type Item = Result<RecordBatch, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(mut walk) = self.walk.take() {
                match self.step(&mut walk) {
                    Ok(Some(batch)) => {
                        self.walk = Some(walk);
                        return Some(Ok(batch));
                    }
                    Ok(None) => {}
                    // The rest is served: rows of a damaged part are missing, which `stats` and the log say.
                    Err(error @ ReadError::Corrupt { .. }) => self.shared.set_aside(&walk.part, &error),
                    Err(error) => return Some(Err(error)),
                }
                continue;
            }
            match self.todo.pop()?.source {
                Source::Block(block) => {
                    if let Some(batch) = self.block(&block) {
                        return Some(Ok(batch));
                    }
                }
                Source::Part(part) => match self.begin(Arc::clone(&part)) {
                    Ok(walk) => self.walk = Some(walk),
                    Err(error @ ReadError::Corrupt { .. }) => self.shared.set_aside(&part, &error),
                    Err(error) => return Some(Err(error)),
                },
            }
        }
    }
}
