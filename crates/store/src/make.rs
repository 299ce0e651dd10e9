//! Makes a part out of sorted columns, whoever sorted them: a flush gives all rows at once, a merge one group after another.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use model::TraceId;

use crate::catalog::{MAX_PAIRS, Names};
use crate::column::{Level, Spec, fixed, parse_column_name};
use crate::directory::{Blob, Directory, TraceIndexAt};
use crate::disk::FileWrite;
use crate::flush::{Sorted, Union};
use crate::frame::Data;
use crate::part_writer::{GROUP_ROWS, PartWriter, Written};
use crate::texts::Interner;
use crate::trace_index::TraceIndexBuilder;
use crate::{Dataset, Day, json};

/// A part under way: row groups in, file out.
pub struct Maker {
    dataset: Dataset,
    writer: PartWriter,
    traces: TraceIndexBuilder,
    rows: u32,
    pub min_time: u64,
    pub max_time: u64,
}

/// A made part: what the catalog wants to know.
pub struct Made {
    pub rows: u64,
    pub bytes: u64,
    pub min_time: u64,
    pub max_time: u64,
    pub directory: Blob,
    /// Checksum of the whole file.
    pub crc: u32,
}

impl Maker {
    pub fn new(file: Box<dyn FileWrite>, dataset: Dataset, day: Day, columns: Vec<Spec>) -> io::Result<Self> {
        Ok(Self {
            dataset,
            writer: PartWriter::new(file, Directory::new(dataset, day, columns))?,
            traces: TraceIndexBuilder::default(),
            rows: 0,
            min_time: u64::MAX,
            max_time: 0,
        })
    }

    /// The part gets word filters: texts are looked at for them, which a part that is soon merged is not worth.
    pub fn filter_words(&mut self) {
        self.writer.filter_words();
    }

    /// Writes one row group; `column` gives a column's data and the stretch of it that is the group.
    pub fn group<D: std::borrow::Borrow<Data>>(
        &mut self,
        rows: usize,
        mut column: impl FnMut(&Spec) -> io::Result<(D, usize)>,
    ) -> io::Result<()> {
        let time_column = self.dataset.time_column();
        let specs = self.writer.columns().to_vec();
        let time_at = specs
            .iter()
            .position(|s| &*s.name == time_column)
            .ok_or_else(|| io::Error::other("a part without a time column"))?;
        let (times, from) = column(&specs[time_at])?;
        let (mut min, mut max) = (u64::MAX, 0);
        if let Data::Words { values, .. } = times.borrow() {
            for &time in &values[from..from + rows] {
                min = min.min(time);
                max = max.max(time);
            }
        }
        self.min_time = self.min_time.min(min);
        self.max_time = self.max_time.max(max);
        self.writer.begin_group(rows, min, max);
        let mut times = Some((times, from));
        for (index, spec) in specs.iter().enumerate() {
            let (data, from) = match (index == time_at, times.take()) {
                (true, Some(times)) => times,
                (_, kept) => {
                    times = kept;
                    column(spec)?
                }
            };
            let data = data.borrow();
            if &*spec.name == self.dataset.fixed()[fixed::TRACE_ID].name {
                self.index_traces(data, from, rows);
            }
            self.writer.column(data, from, from + rows)?;
            if index == time_at {
                self.writer.bounds(min, max);
            }
        }
        self.rows += rows as u32;
        Ok(())
    }

    fn index_traces(&mut self, data: &Data, from: usize, rows: usize) {
        for row in 0..rows {
            if let Some(id) = data.id(from + row).and_then(TraceId::from_bytes) {
                self.traces.push(id, self.rows + row as u32);
            }
        }
    }

    /// Writes the indexes and the footer.
    pub fn finish(mut self) -> io::Result<Made> {
        let (ends, buckets, n) = self.traces.finish();
        let ends_at = self.writer.blob(&ends)?;
        let buckets_offset = self.writer.blob(&buckets)?;
        self.writer.directory_mut().traces = Some(TraceIndexAt {
            ends: Blob {
                offset: ends_at,
                bytes: ends.len() as u32,
                crc: crc32c::crc32c(&ends),
            },
            buckets_offset,
            buckets: n,
        });
        let Written {
            bytes,
            rows,
            directory,
            crc,
        } = self.writer.finish()?;
        Ok(Made {
            rows,
            bytes,
            min_time: self.min_time,
            max_time: self.max_time,
            directory,
            crc,
        })
    }
}

/// Puts the columns that found no room into the rest: text of one JSON object per row.
pub fn spill(rest: Option<&Data>, spilled: &[(Spec, Data)], rows: usize) -> Data {
    let mut interner = Interner::default();
    let mut codes = Vec::with_capacity(rows);
    let mut text = String::new();
    for row in 0..rows {
        text.clear();
        if let Some(rest) = rest.and_then(|rest| rest.text(row)) {
            text.push_str(rest.strip_suffix('}').unwrap_or(rest));
        }
        for (spec, data) in spilled {
            if !data.is_present(row) {
                continue;
            }
            let (level, key, kind) = parse_column_name(&spec.name).unwrap_or((Level::Attr, &spec.name, spec.kind));
            text.push(if text.is_empty() { '{' } else { ',' });
            json::write_key(&mut text, &format!("{}{key}", level.prefix()));
            match (data.text(row), data.word(row)) {
                (Some(value), _) if spec.kind == crate::column::Kind::Json => text.push_str(value),
                (Some(value), _) => json::write_text(&mut text, value),
                (_, Some(word)) => json::write_value(&mut text, &crate::column::word_value(kind, word)),
                _ => text.push_str("null"),
            }
        }
        if text.is_empty() {
            codes.push(0);
        } else {
            text.push('}');
            codes.push(interner.code(&text));
        }
    }
    Data::Text {
        codes,
        texts: Arc::new(interner.take()),
        plain: false,
    }
}

/// Makes a part of fresh blocks of one dataset and day.
pub fn make_from_blocks(
    file: Box<dyn FileWrite>,
    sorted: &Sorted<'_>,
    union: Union,
    dataset: Dataset,
    day: Day,
) -> io::Result<(Made, Names)> {
    let rest_name = dataset.fixed()[fixed::REST].name;
    let mut names = Names::default();
    let mut service: Option<Data> = None;
    let mut operation: Option<Data> = None;
    let spilled: Vec<(Spec, Data)> = union
        .spilled
        .into_iter()
        .map(|s| (s.clone(), sorted.column(&s)))
        .collect();
    let mut columns: Vec<(Spec, Data)> = Vec::with_capacity(union.columns.len());
    for spec in &union.columns {
        let mut data = sorted.column(spec);
        if &*spec.name == rest_name && !spilled.is_empty() {
            data = spill(Some(&data), &spilled, sorted.rows);
        }
        match &*spec.name {
            "resource.service.name" => service = Some(data.clone()),
            "name" => operation = Some(data.clone()),
            _ => {}
        }
        columns.push((spec.clone(), data));
    }
    collect_names(&mut names, service.as_ref(), operation.as_ref(), sorted.rows);
    let mut maker = Maker::new(file, dataset, day, union.columns)?;
    let mut from = 0;
    // Groups of about equal size: a last group of a few rows would cost a footer entry per column for nothing.
    let groups = sorted.rows.div_ceil(GROUP_ROWS).max(1);
    for group in 0..groups {
        let to = sorted.rows * (group + 1) / groups;
        let mut index = 0;
        maker.group(to - from, |spec| {
            // The maker asks for the time column first, then for all the others in order.
            if columns.get(index).is_none_or(|(s, _)| s != spec) {
                index = columns.iter().position(|(s, _)| s == spec).unwrap_or(index);
            }
            let found = &columns[index].1;
            index += 1;
            Ok((found, from))
        })?;
        from = to;
    }
    Ok((maker.finish()?, names))
}

/// Adds the pairs of service and operation that some rows have.
pub fn collect_names(names: &mut Names, service: Option<&Data>, operation: Option<&Data>, rows: usize) {
    let code = |data: Option<&Data>, row: usize| match data {
        Some(Data::Text { codes, .. }) => codes[row],
        _ => 0,
    };
    let mut seen: HashSet<u64> = HashSet::new();
    let mut last = 0;
    for row in 0..rows {
        let pair = u64::from(code(service, row)) << 32 | u64::from(code(operation, row));
        if pair == last || pair >> 32 == 0 {
            continue;
        }
        last = pair;
        if seen.len() <= MAX_PAIRS * 4 && seen.insert(pair) {
            let name = service.and_then(|s| s.text(row)).unwrap_or_default();
            names.insert(name, operation.and_then(|o| o.text(row)));
        }
    }
}
