//! Merges sorted parts of one day into one: first the order of the rows, a row group at a time, then every column along that order.
//!
//! Memory is one row group of one column and a stretch of keys per input; identical spans are written once.

use std::cmp::Ordering;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::catalog::Names;
use crate::column::{Kind, Spec, fixed};
use crate::directory::Chunk;
use crate::disk::FileWrite;
use crate::error::ReadError;
use crate::flush::{MINUTE_NANOS, Union, unite};
use crate::frame::Data;
use crate::make::{Made, Maker, spill};
use crate::part::OpenPart;
use crate::part_writer::GROUP_ROWS;
use crate::rows::span_records;
use crate::texts::{Interner, Texts};
use crate::trace_index::BUCKET_ENTRIES;
use crate::{Dataset, Day};

/// Rows of keys that each input holds.
const KEY_ROWS: usize = 16 * 1024;
/// Bytes of a row group before encoding; rows of large texts make smaller groups.
const GROUP_BYTES: u64 = 24 << 20;
/// An entry of the trace index while it is collected, and as it is written: a fingerprint, a row and a count of 4 bytes each, and some 8 packed.
const INDEX_ENTRY_BYTES: u64 = 20;
/// The fewest rows of a group, however large they are.
const MIN_GROUP_ROWS: usize = 256;

/// Why a merge did not happen.
#[derive(Debug)]
pub enum MergeError {
    /// An input could not be read: which, and why.
    Read(usize, ReadError),
    /// The output could not be written.
    Write(io::Error),
    /// The store is closing.
    Stopped,
}

/// What rows are sorted by: (minute, trace id, start) or (stream, time).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key(u64, u128, u64);

/// The sorted rows of an input, a stretch of keys at a time.
struct Keys<'a> {
    part: &'a OpenPart,
    dataset: Dataset,
    columns: [usize; 3],
    group: usize,
    /// Row in the group after the stretch.
    next: usize,
    keys: Vec<(Key, u64)>,
    at: usize,
    /// Group and row in it of `keys[0]`.
    first: (usize, usize),
}

impl<'a> Keys<'a> {
    fn new(part: &'a OpenPart) -> Result<Self, ReadError> {
        let dataset = part.directory.dataset;
        let own = |index: usize| part.directory.column(dataset.fixed()[index].name).unwrap_or(0);
        let columns = match dataset {
            Dataset::Traces => [own(fixed::TIME), own(fixed::TRACE_ID), own(fixed::SPAN_ID)],
            Dataset::Logs => [own(fixed::TIME), own(fixed::STREAM), 0],
        };
        let mut keys = Self {
            part,
            dataset,
            columns,
            group: 0,
            next: 0,
            keys: Vec::new(),
            at: 0,
            first: (0, 0),
        };
        keys.fill()?;
        Ok(keys)
    }

    fn fill(&mut self) -> Result<(), ReadError> {
        self.keys.clear();
        self.at = 0;
        let groups = &self.part.directory.groups;
        while self.group < groups.len() && self.next >= groups[self.group].rows as usize {
            self.group += 1;
            self.next = 0;
        }
        if self.group >= groups.len() {
            return Ok(());
        }
        let end = (self.next + KEY_ROWS).min(groups[self.group].rows as usize);
        self.first = (self.group, self.next);
        let rows = self.next..end;
        let times = self.part.column(self.group, self.columns[0], rows.clone())?;
        let second = self.part.column(self.group, self.columns[1], rows.clone())?;
        match self.dataset {
            Dataset::Traces => {
                let span_ids = self.part.column(self.group, self.columns[2], rows.clone())?;
                for row in 0..rows.len() {
                    let time = times.word(row).unwrap_or(0);
                    let id = second
                        .id(row)
                        .and_then(|i| i.try_into().ok())
                        .map_or(0, u128::from_be_bytes);
                    let span = span_ids
                        .id(row)
                        .and_then(|i| i.try_into().ok())
                        .map_or(0, u64::from_be_bytes);
                    self.keys.push((Key(time / MINUTE_NANOS, id, time), span));
                }
            }
            Dataset::Logs => {
                for row in 0..rows.len() {
                    let time = times.word(row).unwrap_or(0);
                    self.keys.push((Key(second.word(row).unwrap_or(0), 0, time), 0));
                }
            }
        }
        self.next = end;
        Ok(())
    }

    fn peek(&self) -> Option<(Key, u64)> {
        self.keys.get(self.at).copied()
    }

    /// Group and row in it of the next key.
    fn place(&self) -> (usize, usize) {
        (self.first.0, self.first.1 + self.at)
    }

    fn advance(&mut self) -> Result<(), ReadError> {
        self.at += 1;
        if self.at >= self.keys.len() {
            self.fill()
        } else {
            Ok(())
        }
    }
}

/// Successive rows of one row group of an input that lie together in the output.
#[derive(Clone, Copy, Debug)]
struct Run {
    input: u32,
    group: u32,
    /// First row in the group.
    row: u32,
    rows: u32,
}

/// Merges open parts of one dataset and day into `file`.
pub fn merge_parts(
    file: Box<dyn FileWrite>,
    parts: &[Arc<OpenPart>],
    dataset: Dataset,
    day: Day,
    stopped: &dyn Fn() -> bool,
) -> Result<(Made, u64), MergeError> {
    let counted = parts.iter().flat_map(|p| {
        p.directory.columns.iter().enumerate().map(|(index, spec)| {
            let count = p
                .directory
                .groups
                .iter()
                .map(|g| u64::from(g.chunks[index].present))
                .sum();
            (spec, count)
        })
    });
    let Union { columns, spilled } = unite(dataset, counted);
    let group_rows = group_rows(parts);
    let mut keys = Vec::with_capacity(parts.len());
    for (input, part) in parts.iter().enumerate() {
        keys.push(Keys::new(part).map_err(|e| MergeError::Read(input, e))?);
    }
    let mut maker = Maker::new(file, dataset, day, columns).map_err(MergeError::Write)?;
    maker.filter_words();
    let rest_name = dataset.fixed()[fixed::REST].name;
    let mut dropped = 0;
    let mut last: Option<Placed> = None;
    loop {
        if stopped() {
            return Err(MergeError::Stopped);
        }
        let runs = next_runs(&mut keys, parts, group_rows, &mut last, &mut dropped)?;
        let rows: usize = runs.iter().map(|r| r.rows as usize).sum();
        if rows == 0 {
            break;
        }
        let mut read_error = None;
        let result = maker.group(rows, |spec| {
            let gathered = gather(parts, &runs, rows, spec).and_then(|data| {
                if &*spec.name != rest_name || spilled.is_empty() {
                    return Ok(data);
                }
                let mut columns = Vec::with_capacity(spilled.len());
                for spec in &spilled {
                    columns.push((spec.clone(), gather(parts, &runs, rows, spec)?));
                }
                Ok(spill(Some(&data), &columns, rows))
            });
            match gathered {
                Ok(data) => Ok((data, 0)),
                Err(error) => {
                    read_error = Some(error);
                    Err(io::Error::other("an input could not be read"))
                }
            }
        });
        if let Some((input, error)) = read_error {
            return Err(MergeError::Read(input, error));
        }
        result.map_err(MergeError::Write)?;
        // Merging gives way to everything else at every row group.
        std::thread::yield_now();
    }
    let made = maker.finish().map_err(MergeError::Write)?;
    Ok((made, dropped))
}

/// What merging these parts takes, about: a stretch of keys per input, the trace index of the output, and the largest column of a row group as it is
/// read and as it is gathered.
pub fn merge_bytes(parts: &[Arc<OpenPart>]) -> u64 {
    let keys = parts.len() * KEY_ROWS * size_of::<(Key, u64)>();
    let entries: u64 = parts
        .iter()
        .filter_map(|part| part.directory.traces.as_ref())
        .map(|traces| u64::from(traces.buckets) * BUCKET_ENTRIES as u64)
        .sum();
    let columns = parts.iter().flat_map(|part| &part.directory.groups).flat_map(|group| {
        let raw = |chunk: &Chunk| {
            chunk
                .pages
                .iter()
                .chain(&chunk.dictionary)
                .map(|page| u64::from(page.raw))
                .sum()
        };
        group.chunks.iter().map(raw)
    });
    keys as u64 + entries * INDEX_ENTRY_BYTES + 2 * columns.max().unwrap_or(0)
}

/// What the catalog knows of the names of all inputs.
pub fn merged_names<'a>(names: impl Iterator<Item = &'a Names>) -> Names {
    let mut all = Names::default();
    names.for_each(|n| all.merge(n));
    all
}

fn group_rows(parts: &[Arc<OpenPart>]) -> usize {
    let (mut rows, mut bytes) = (0u64, 0u64);
    for group in parts.iter().flat_map(|p| &p.directory.groups) {
        rows += u64::from(group.rows);
        bytes += group
            .chunks
            .iter()
            .flat_map(|c| c.pages.iter().chain(&c.dictionary))
            .map(|p| u64::from(p.raw))
            .sum::<u64>();
    }
    let per_row = (bytes / rows.max(1)).max(1);
    ((GROUP_BYTES / per_row) as usize).clamp(MIN_GROUP_ROWS, GROUP_ROWS)
}

/// The row placed last, for finding spans that were sent twice.
#[derive(Clone, Copy)]
struct Placed {
    key: Key,
    span: u64,
    input: usize,
    place: (usize, usize),
}

/// The runs of the next row group.
fn next_runs(
    keys: &mut [Keys<'_>],
    parts: &[Arc<OpenPart>],
    group_rows: usize,
    last: &mut Option<Placed>,
    dropped: &mut u64,
) -> Result<Vec<Run>, MergeError> {
    let mut runs: Vec<Run> = Vec::new();
    let mut rows = 0;
    while rows < group_rows {
        // The input with the smallest key, and how far it may run: up to the smallest key of the others.
        let mut best: Option<(usize, (Key, u64))> = None;
        let mut second: Option<(Key, u64)> = None;
        for (input, k) in keys.iter().enumerate() {
            let Some(key) = k.peek() else { continue };
            match best {
                Some((_, known)) if known <= key => {
                    if second.is_none_or(|s| key < s) {
                        second = Some(key);
                    }
                }
                _ => {
                    second = best.map(|b| b.1).or(second);
                    best = Some((input, key));
                }
            }
        }
        let Some((input, _)) = best else { break };
        while rows < group_rows {
            let Some((key, span)) = keys[input].peek() else { break };
            if second.is_some_and(|s| (key, span).cmp(&s) == Ordering::Greater) {
                break;
            }
            let place = keys[input].place();
            let here = Placed {
                key,
                span,
                input,
                place,
            };
            let twin = last.is_some_and(|l| l.key == key && l.span == span);
            let is_span = keys[input].dataset == Dataset::Traces;
            if twin
                && is_span
                && let Some(before) = *last
                && same_span(parts, before, here)?
            {
                *dropped += 1;
            } else {
                let (group, row) = (place.0 as u32, place.1 as u32);
                match runs.last_mut() {
                    Some(run) if run.input == input as u32 && run.group == group && run.row + run.rows == row => {
                        run.rows += 1
                    }
                    _ => runs.push(Run {
                        input: input as u32,
                        group,
                        row,
                        rows: 1,
                    }),
                }
                rows += 1;
                *last = Some(here);
            }
            keys[input].advance().map_err(|e| MergeError::Read(input, e))?;
        }
    }
    Ok(runs)
}

/// Whether two rows are one span, in every column.
fn same_span(parts: &[Arc<OpenPart>], a: Placed, b: Placed) -> Result<bool, MergeError> {
    let read = |placed: Placed| {
        let (group, row) = placed.place;
        parts[placed.input]
            .frame(group, row..row + 1, |_| true)
            .map(|frame| span_records(&frame))
            .map_err(|e| MergeError::Read(placed.input, e))
    };
    Ok(read(a)? == read(b)?)
}

/// Values of some rows of one row group of an input's column.
struct Piece {
    /// First row in the group.
    first: usize,
    data: Data,
    /// Code in the piece to code in the output; 0 is not yet known.
    map: Vec<u32>,
}

/// The pieces of one input that a row group needs, by group; `None` where the column has no values.
#[derive(Default)]
struct Pieces {
    first_group: usize,
    by_group: Vec<Option<Piece>>,
}

impl Pieces {
    #[inline]
    fn of(&mut self, run: Run) -> Option<(&mut Piece, Range<usize>)> {
        let piece = self.by_group.get_mut(run.group as usize - self.first_group)?.as_mut()?;
        let from = run.row as usize - piece.first;
        Some((piece, from..from + run.rows as usize))
    }
}

fn pieces(part: &OpenPart, spec: &Spec, first_group: usize, rows: &[Range<usize>]) -> Result<Pieces, ReadError> {
    let mut out = Pieces {
        first_group,
        by_group: Vec::with_capacity(rows.len()),
    };
    let Some(column) = part.directory.column(&spec.name) else {
        return Ok(out);
    };
    for (index, rows) in rows.iter().enumerate() {
        let group = first_group + index;
        out.by_group.push(
            if rows.is_empty() || part.directory.groups[group].chunks[column].present == 0 {
                None
            } else {
                let data = part.column(group, column, rows.clone())?;
                let map = match &data {
                    Data::Text { texts, .. } => vec![0; texts.len() + 1],
                    _ => Vec::new(),
                };
                Some(Piece {
                    first: rows.start,
                    data,
                    map,
                })
            },
        );
    }
    Ok(out)
}

/// One column of a row group, gathered along the runs.
fn gather(parts: &[Arc<OpenPart>], runs: &[Run], rows: usize, spec: &Spec) -> Result<Data, (usize, ReadError)> {
    // For each input the first group and the rows of each group that the runs touch.
    let mut spans: Vec<(usize, Vec<Range<usize>>)> = vec![(0, Vec::new()); parts.len()];
    for run in runs {
        let (first_group, ranges) = &mut spans[run.input as usize];
        if ranges.is_empty() {
            *first_group = run.group as usize;
        }
        let at = run.group as usize - *first_group;
        if ranges.len() <= at {
            ranges.resize(at + 1, 0..0);
        }
        let end = (run.row + run.rows) as usize;
        if ranges[at].is_empty() {
            ranges[at] = run.row as usize..end;
        } else {
            ranges[at].end = end;
        }
    }
    let mut inputs = Vec::with_capacity(parts.len());
    for (input, (part, (first_group, ranges))) in parts.iter().zip(spans).enumerate() {
        inputs.push(pieces(part, spec, first_group, &ranges).map_err(|e| (input, e))?);
    }
    Ok(match spec.kind {
        Kind::Text | Kind::Json => gather_texts(&mut inputs, runs, rows),
        Kind::Id8 | Kind::Id16 => gather_ids(&mut inputs, runs, rows, spec),
        _ => gather_words(&mut inputs, runs, rows, spec),
    })
}

fn gather_texts(inputs: &mut [Pieces], runs: &[Run], rows: usize) -> Data {
    let (mut unique, mut all) = (0, 0);
    for piece in inputs.iter().flat_map(|p| p.by_group.iter().flatten()) {
        all += piece.data.rows();
        if let Data::Text { plain: true, .. } = piece.data {
            unique += piece.data.rows();
        }
    }
    let plain = unique * 2 > all;
    let mut codes: Vec<u32> = Vec::with_capacity(rows);
    let mut interner = Interner::default();
    let mut texts_out = Texts::default();
    for run in runs {
        let Some((piece, range)) = inputs[run.input as usize].of(*run) else {
            codes.resize(codes.len() + run.rows as usize, 0);
            continue;
        };
        let Piece { data, map, .. } = piece;
        let Data::Text { codes: from, texts, .. } = &*data else {
            codes.resize(codes.len() + run.rows as usize, 0);
            continue;
        };
        for &code in &from[range] {
            if code == 0 {
                codes.push(0);
                continue;
            }
            let known = &mut map[code as usize];
            if *known == 0 {
                let text = texts.get(code as usize - 1);
                *known = if plain {
                    texts_out.push(text);
                    texts_out.len() as u32
                } else {
                    interner.code_exact(text)
                };
            }
            codes.push(*known);
        }
    }
    Data::Text {
        codes,
        texts: Arc::new(if plain { texts_out } else { interner.take() }),
        plain,
    }
}

/// Adds the presence of a stretch.
fn put_presence(present: &mut Vec<bool>, here: Option<&Vec<bool>>, range: Range<usize>) {
    match here {
        Some(here) => present.extend_from_slice(&here[range]),
        None => present.resize(present.len() + range.len(), true),
    }
}

fn gather_words(inputs: &mut [Pieces], runs: &[Run], rows: usize, spec: &Spec) -> Data {
    let mut values: Vec<u64> = Vec::with_capacity(rows);
    let mut present: Vec<bool> = Vec::with_capacity(rows);
    for run in runs {
        match inputs[run.input as usize].of(*run) {
            Some((
                Piece {
                    data:
                        Data::Words {
                            values: from,
                            present: here,
                        },
                    ..
                },
                range,
            )) => {
                values.extend_from_slice(&from[range.clone()]);
                put_presence(&mut present, here.as_ref(), range);
            }
            _ => {
                values.resize(values.len() + run.rows as usize, 0);
                present.resize(present.len() + run.rows as usize, false);
            }
        }
    }
    Data::Words {
        values,
        present: (!spec.required).then_some(present),
    }
}

fn gather_ids(inputs: &mut [Pieces], runs: &[Run], rows: usize, spec: &Spec) -> Data {
    let width = spec.kind.id_width();
    let mut bytes: Vec<u8> = Vec::with_capacity(rows * width);
    let mut present: Vec<bool> = Vec::with_capacity(rows);
    for run in runs {
        match inputs[run.input as usize].of(*run) {
            Some((
                Piece {
                    data:
                        Data::Ids {
                            bytes: from,
                            present: here,
                            ..
                        },
                    ..
                },
                range,
            )) => {
                bytes.extend_from_slice(&from[range.start * width..range.end * width]);
                put_presence(&mut present, here.as_ref(), range);
            }
            _ => {
                bytes.resize(bytes.len() + run.rows as usize * width, 0);
                present.resize(present.len() + run.rows as usize, false);
            }
        }
    }
    Data::Ids {
        width,
        bytes,
        present: (!spec.required).then_some(present),
    }
}
