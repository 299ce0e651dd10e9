//! From fresh blocks to one part: unify dictionaries, sort by index, write.

use std::sync::Arc;

use crate::Dataset;
use crate::block::{At, Block, BlockColumn, Values};
use crate::column::{Kind, MAX_COLUMNS, Spec, fixed};
use crate::frame::Data;
use crate::texts::{Interner, Texts};

/// Columns that some sources together have, the dataset's own first, the others by name. `spilled` go to `rest:json`.
pub struct Union {
    pub columns: Vec<Spec>,
    pub spilled: Vec<Spec>,
}

/// Unites columns; beyond `MAX_COLUMNS` those with the fewest values are spilled. `counted` gives each source's columns and values.
pub fn unite<'a>(dataset: Dataset, counted: impl Iterator<Item = (&'a Spec, u64)>) -> Union {
    let mut seen: std::collections::HashMap<&str, (usize, u64)> = std::collections::HashMap::new();
    let mut specs: Vec<&Spec> = Vec::new();
    for (spec, count) in counted {
        if count == 0 && !spec.required {
            continue;
        }
        let entry = seen.entry(&spec.name).or_insert_with(|| {
            specs.push(spec);
            (specs.len() - 1, 0)
        });
        entry.1 += count;
    }
    let own = |name: &str| dataset.fixed().iter().position(|f| f.name == name);
    let mut others: Vec<(&Spec, u64)> = Vec::new();
    let mut columns: Vec<Spec> = Vec::new();
    let mut has_rest = false;
    for (index, f) in dataset.fixed().iter().enumerate() {
        let present = seen.contains_key(f.name);
        has_rest |= present && index == fixed::REST;
        if present || f.required {
            columns.push(Spec {
                name: Arc::from(f.name),
                kind: f.kind,
                required: f.required,
            });
        }
    }
    for spec in specs {
        if own(&spec.name).is_none() {
            // A column that stands for the trace id says nothing in the rest, where there is no row to look at.
            let count = match spec.kind {
                Kind::TraceHex => u64::MAX,
                _ => seen.get(&*spec.name).map_or(0, |s| s.1),
            };
            others.push((spec, count));
        }
    }
    let room = MAX_COLUMNS - columns.len();
    let mut spilled = Vec::new();
    if others.len() > room {
        let room = room - usize::from(!has_rest);
        others.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.name.cmp(&b.0.name)));
        spilled = others.split_off(room).into_iter().map(|(s, _)| s.clone()).collect();
        if !has_rest {
            let f = &dataset.fixed()[fixed::REST];
            columns.push(Spec {
                name: Arc::from(f.name),
                kind: f.kind,
                required: false,
            });
        }
    }
    others.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    columns.extend(others.into_iter().map(|(spec, _)| spec.clone()));
    Union { columns, spilled }
}

/// Blocks of one dataset and day, and the order in which their rows will lie.
pub struct Sorted<'a> {
    pub blocks: &'a [Arc<Block>],
    /// First row of each block in the concatenation.
    bases: Vec<u32>,
    /// Sorted position of each concatenated row.
    rank: Vec<u32>,
    pub rows: usize,
}

/// What a row takes while rows are sorted: its key, its place in the order and its rank.
const SORT_ROW_BYTES: u64 = 40;

/// What writing blocks takes beside them: all columns once more, in order, and the sorting.
pub fn flush_bytes(blocks: &[Arc<Block>]) -> u64 {
    blocks
        .iter()
        .map(|block| block.memory_bytes + block.rows as u64 * SORT_ROW_BYTES)
        .sum()
}

/// Nanoseconds of the minute that spans are sorted by first.
pub const MINUTE_NANOS: u64 = 60_000_000_000;

impl<'a> Sorted<'a> {
    pub fn new(blocks: &'a [Arc<Block>]) -> Self {
        let mut bases = Vec::with_capacity(blocks.len());
        let mut rows = 0usize;
        for block in blocks {
            bases.push(rows as u32);
            rows += block.rows;
        }
        let order = match blocks.first().map(|b| b.dataset) {
            Some(Dataset::Traces) => span_order(blocks, &bases, rows),
            _ => log_order(blocks, &bases, rows),
        };
        let mut rank = vec![0u32; rows];
        for (position, row) in order.into_iter().enumerate() {
            rank[row as usize] = position as u32;
        }
        Self {
            blocks,
            bases,
            rank,
            rows,
        }
    }

    /// A column of all rows, sorted.
    pub fn column(&self, spec: &Spec) -> Data {
        match spec.kind {
            Kind::Text | Kind::Json => self.text(spec),
            Kind::Id8 => self.ids::<8>(spec, |v| match v {
                Values::Id8(ids) => ids,
                _ => &[],
            }),
            Kind::Id16 => self.ids::<16>(spec, |v| match v {
                Values::Id16(ids) => ids,
                _ => &[],
            }),
            _ => {
                let mut values = vec![0u64; self.rows];
                let present = self.scatter(
                    spec,
                    &mut values,
                    |v| match v {
                        Values::Words(words) => words,
                        _ => &[],
                    },
                    |_, word| word,
                );
                Data::Words { values, present }
            }
        }
    }

    fn ids<const N: usize>(&self, spec: &Spec, get: impl Fn(&Values) -> &[[u8; N]]) -> Data {
        let mut out = vec![[0u8; N]; self.rows];
        let present = self.scatter(spec, &mut out, get, |_, id| id);
        Data::Ids {
            width: N,
            bytes: out.into_flattened(),
            present,
        }
    }

    fn text(&self, spec: &Spec) -> Data {
        // Where most values are unique, looking for equal ones across blocks costs a hash each and finds nothing.
        let (mut texts, mut values) = (0usize, 0usize);
        for column in self.blocks.iter().filter_map(|b| b.find(&spec.name)) {
            if let Values::Codes(codes, pool) = &column.values {
                texts += pool.len();
                values += codes.len();
            }
        }
        let plain = texts * 2 > values && texts > 4096;
        let mut all = Texts::default();
        let mut interner = Interner::default();
        let mut maps: Vec<Vec<u32>> = Vec::with_capacity(self.blocks.len());
        for block in self.blocks {
            let map = match block.find(&spec.name).map(|c| &c.values) {
                Some(Values::Codes(_, pool)) if plain => {
                    let base = all.len() as u32;
                    all.extend(pool);
                    (0..=pool.len() as u32)
                        .map(|c| if c == 0 { 0 } else { base + c })
                        .collect()
                }
                Some(Values::Codes(_, pool)) => std::iter::once(0)
                    .chain(pool.iter().map(|text| interner.code_exact(text)))
                    .collect(),
                _ => Vec::new(),
            };
            maps.push(map);
        }
        let mut codes = vec![0u32; self.rows];
        self.scatter(
            spec,
            &mut codes,
            |v| match v {
                Values::Codes(codes, _) => codes,
                _ => &[],
            },
            |block, code| maps[block][code as usize],
        );
        Data::Text {
            codes,
            texts: Arc::new(if plain { all } else { interner.take() }),
            plain,
        }
    }

    /// Puts every value where its row lies; returns which rows have one unless all do.
    fn scatter<T: Copy>(
        &self,
        spec: &Spec,
        out: &mut [T],
        get: impl Fn(&Values) -> &[T],
        map: impl Fn(usize, T) -> T,
    ) -> Option<Vec<bool>> {
        let mut present = if spec.required || spec.kind.is_text() {
            None
        } else {
            Some(vec![false; self.rows])
        };
        let mut spread: Vec<Option<T>> = Vec::new();
        for (index, block) in self.blocks.iter().enumerate() {
            let Some(BlockColumn { at, values, .. }) = block.find(&spec.name) else {
                continue;
            };
            let values = get(values);
            let rank = &self.rank[self.bases[index] as usize..self.bases[index] as usize + block.rows];
            match at {
                At::Every => {
                    for (&position, &value) in rank.iter().zip(values) {
                        out[position as usize] = map(index, value);
                    }
                }
                At::Rows(rows) => {
                    for (&row, &value) in rows.iter().zip(values) {
                        let position = rank[row as usize] as usize;
                        out[position] = map(index, value);
                        if let Some(present) = &mut present {
                            present[position] = true;
                        }
                    }
                }
                At::Contexts(contexts) => {
                    spread.clear();
                    spread.resize(block.context_count, None);
                    for (&context, &value) in contexts.iter().zip(values) {
                        spread[context as usize] = Some(map(index, value));
                    }
                    for (&position, &context) in rank.iter().zip(&block.contexts) {
                        if let Some(value) = spread[context as usize] {
                            out[position as usize] = value;
                            if let Some(present) = &mut present {
                                present[position as usize] = true;
                            }
                        }
                    }
                }
            }
        }
        present
    }
}

/// (minute, trace id, start), ties in order of arrival.
fn span_order(blocks: &[Arc<Block>], bases: &[u32], rows: usize) -> Vec<u32> {
    let mut keys: Vec<(u128, u64, u32)> = Vec::with_capacity(rows);
    for (block, base) in blocks.iter().zip(bases) {
        let ids = block.trace_ids().map_or(&[][..], |(_, ids)| ids);
        for (row, (id, &time)) in ids.iter().zip(block.times()).enumerate() {
            // The minute takes the place of the id's last 32 bits, which are compared only where everything before them is equal.
            let id = u128::from_be_bytes(*id);
            let minute = u128::from(time / MINUTE_NANOS) & 0xffff_ffff;
            keys.push((minute << 96 | id >> 32, time, base + row as u32));
        }
    }
    keys.sort_unstable();
    // Ids that agree in 96 bits and differ after: rare, and put right by comparing in full.
    let full = |row: u32| {
        let block = bases.partition_point(|b| *b <= row) - 1;
        let row = (row - bases[block]) as usize;
        blocks[block].trace_ids().map_or([0; 16], |(_, ids)| ids[row])
    };
    let mut at = 0;
    while at < keys.len() {
        let mut end = at + 1;
        while end < keys.len() && keys[end].0 == keys[at].0 {
            end += 1;
        }
        if end - at > 1 {
            let first = full(keys[at].2);
            if keys[at..end].iter().any(|k| full(k.2) != first) {
                keys[at..end].sort_by_cached_key(|k| (full(k.2), k.1, k.2));
            }
        }
        at = end;
    }
    keys.into_iter().map(|k| k.2).collect()
}

/// (stream, time), ties in order of arrival.
fn log_order(blocks: &[Arc<Block>], bases: &[u32], rows: usize) -> Vec<u32> {
    let mut keys: Vec<(u64, u64, u32)> = Vec::with_capacity(rows);
    for (block, base) in blocks.iter().zip(bases) {
        let streams = block.dense(&block.columns[fixed::STREAM]);
        for (row, &time) in block.times().iter().enumerate() {
            keys.push((streams.word(row).unwrap_or(0), time, base + row as u32));
        }
    }
    keys.sort_unstable();
    keys.into_iter().map(|k| k.2).collect()
}
