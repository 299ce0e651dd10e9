//! The part's own table of contents: where each page lies and what it checks to. One small blob instead of Parquet's footer and page
//! indexes, so that opening a part costs one read. See `docs/format/part.md`.

use std::sync::Arc;

use crate::column::{Kind, Spec};
use crate::encoding::{BadPage, put_varint, take_varint};
use crate::{Dataset, Day};

/// The last eight bytes of the trailer, which lies right before the Parquet footer.
pub const TRAILER_MAGIC: &[u8; 8] = b"TRKLPRT1";
/// Offset, length, checksum, magic.
pub const TRAILER_BYTES: u64 = 24;

/// How a chunk's values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encoding {
    Dictionary = 0,
    DeltaLength = 1,
    Delta = 2,
    Plain = 3,
}

impl Encoding {
    /// Parquet's number for it.
    pub fn parquet(self, _kind: Kind) -> i32 {
        match self {
            Encoding::Dictionary => 8,
            Encoding::DeltaLength => 6,
            Encoding::Delta => 5,
            Encoding::Plain => 0,
        }
    }
}

/// A page's body, without its Parquet header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub offset: u64,
    pub stored: u32,
    pub raw: u32,
    /// Rows of a data page, entries of a dictionary.
    pub rows: u32,
    pub crc: u32,
}

/// One column of one row group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub encoding: Encoding,
    pub zstd: bool,
    /// Rows that have a value.
    pub present: u32,
    pub dictionary: Option<Page>,
    pub dictionary_entries: u32,
    pub pages: Vec<Page>,
}

/// A row group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub rows: u32,
    pub min_time: u64,
    pub max_time: u64,
    pub chunks: Vec<Chunk>,
    /// Where its word filter lies.
    pub words: Option<Blob>,
}

/// A checked stretch of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    pub offset: u64,
    pub bytes: u32,
    pub crc: u32,
}

/// Where the index from trace id to rows lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceIndexAt {
    /// Ends of the buckets, 4 bytes each.
    pub ends: Blob,
    /// The buckets; each checks itself.
    pub buckets_offset: u64,
    pub buckets: u32,
}

/// The whole table of contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    pub dataset: Dataset,
    pub day: Day,
    pub rows: u64,
    pub columns: Vec<Spec>,
    pub groups: Vec<Group>,
    pub traces: Option<TraceIndexAt>,
}

impl Directory {
    pub fn new(dataset: Dataset, day: Day, columns: Vec<Spec>) -> Self {
        Self {
            dataset,
            day,
            rows: 0,
            columns,
            groups: Vec::new(),
            traces: None,
        }
    }

    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| &*c.name == name)
    }

    /// Bytes held in memory, about.
    pub fn memory_bytes(&self) -> usize {
        let pages: usize = self.groups.iter().flat_map(|g| &g.chunks).map(|c| c.pages.len()).sum();
        let chunks = self.groups.len() * self.columns.len();
        pages * size_of::<Page>() + chunks * size_of::<Chunk>() + self.columns.len() * 64
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.push(match self.dataset {
            Dataset::Traces => 0,
            Dataset::Logs => 1,
        });
        put_varint(&mut out, u64::from(self.day.0));
        put_varint(&mut out, self.rows);
        put_varint(&mut out, self.columns.len() as u64);
        for spec in &self.columns {
            put_varint(&mut out, spec.name.len() as u64);
            out.extend_from_slice(spec.name.as_bytes());
            out.push((spec.kind as u8) << 1 | u8::from(spec.required));
        }
        put_varint(&mut out, self.groups.len() as u64);
        for group in &self.groups {
            put_varint(&mut out, u64::from(group.rows));
            put_varint(&mut out, group.min_time);
            put_varint(&mut out, group.max_time);
            put_blob(&mut out, group.words.as_ref());
            for chunk in &group.chunks {
                out.push(
                    (chunk.encoding as u8) << 2 | u8::from(chunk.zstd) << 1 | u8::from(chunk.dictionary.is_some()),
                );
                put_varint(&mut out, u64::from(chunk.present));
                if let Some(page) = &chunk.dictionary {
                    put_page(&mut out, page);
                    put_varint(&mut out, u64::from(chunk.dictionary_entries));
                }
                put_varint(&mut out, chunk.pages.len() as u64);
                for page in &chunk.pages {
                    put_page(&mut out, page);
                }
            }
        }
        match &self.traces {
            None => out.push(0),
            Some(at) => {
                out.push(1);
                put_blob(&mut out, Some(&at.ends));
                put_varint(&mut out, at.buckets_offset);
                put_varint(&mut out, u64::from(at.buckets));
            }
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Directory, BadPage> {
        let input = &mut &bytes[..];
        let dataset = match byte(input)? {
            0 => Dataset::Traces,
            1 => Dataset::Logs,
            _ => return Err(BadPage("an unknown dataset")),
        };
        let day = Day(number(input)?);
        let rows = take_varint(input)?;
        let columns = (0..count(input)?)
            .map(|_| {
                let length = count(input)?;
                let (name, rest) = input
                    .split_at_checked(length)
                    .ok_or(BadPage("a column name is cut short"))?;
                *input = rest;
                let name = std::str::from_utf8(name).map_err(|_| BadPage("a column name is not UTF-8"))?;
                let flags = byte(input)?;
                Ok(Spec {
                    name: Arc::from(name),
                    kind: Kind::from_u8(flags >> 1).ok_or(BadPage("an unknown kind of column"))?,
                    required: flags & 1 == 1,
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let groups = (0..count(input)?)
            .map(|_| {
                let rows = number(input)?;
                let min_time = take_varint(input)?;
                let max_time = take_varint(input)?;
                let words = take_blob(input)?;
                let chunks = columns
                    .iter()
                    .map(|_| take_chunk(input))
                    .collect::<Result<Vec<_>, _>>()?;
                if chunks
                    .iter()
                    .any(|c| c.pages.iter().map(|p| u64::from(p.rows)).sum::<u64>() != u64::from(rows))
                {
                    return Err(BadPage("pages do not add up to the rows of their group"));
                }
                Ok(Group {
                    rows,
                    min_time,
                    max_time,
                    chunks,
                    words,
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let traces = match byte(input)? {
            0 => None,
            _ => Some(TraceIndexAt {
                ends: take_blob(input)?.ok_or(BadPage("a trace index without buckets"))?,
                buckets_offset: take_varint(input)?,
                buckets: number(input)?,
            }),
        };
        if groups.iter().map(|g| u64::from(g.rows)).sum::<u64>() != rows {
            return Err(BadPage("groups do not add up to the rows of the part"));
        }
        Ok(Directory {
            dataset,
            day,
            rows,
            columns,
            groups,
            traces,
        })
    }
}

fn put_page(out: &mut Vec<u8>, page: &Page) {
    put_varint(out, page.offset);
    put_varint(out, u64::from(page.stored));
    put_varint(out, u64::from(page.raw));
    put_varint(out, u64::from(page.rows));
    out.extend_from_slice(&page.crc.to_le_bytes());
}

fn take_page(input: &mut &[u8]) -> Result<Page, BadPage> {
    Ok(Page {
        offset: take_varint(input)?,
        stored: number(input)?,
        raw: number(input)?,
        rows: number(input)?,
        crc: crc(input)?,
    })
}

fn take_chunk(input: &mut &[u8]) -> Result<Chunk, BadPage> {
    let flags = byte(input)?;
    let encoding = match flags >> 2 {
        0 => Encoding::Dictionary,
        1 => Encoding::DeltaLength,
        2 => Encoding::Delta,
        3 => Encoding::Plain,
        _ => return Err(BadPage("an unknown encoding")),
    };
    let present = number(input)?;
    let (dictionary, dictionary_entries) = if flags & 1 == 1 {
        (Some(take_page(input)?), number(input)?)
    } else {
        (None, 0)
    };
    let pages = (0..count(input)?)
        .map(|_| take_page(input))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Chunk {
        encoding,
        zstd: flags & 2 == 2,
        present,
        dictionary,
        dictionary_entries,
        pages,
    })
}

fn put_blob(out: &mut Vec<u8>, blob: Option<&Blob>) {
    match blob {
        None => out.push(0),
        Some(blob) => {
            out.push(1);
            put_varint(out, blob.offset);
            put_varint(out, u64::from(blob.bytes));
            out.extend_from_slice(&blob.crc.to_le_bytes());
        }
    }
}

fn take_blob(input: &mut &[u8]) -> Result<Option<Blob>, BadPage> {
    if byte(input)? == 0 {
        return Ok(None);
    }
    Ok(Some(Blob {
        offset: take_varint(input)?,
        bytes: number(input)?,
        crc: crc(input)?,
    }))
}

fn byte(input: &mut &[u8]) -> Result<u8, BadPage> {
    let (&first, rest) = input.split_first().ok_or(BadPage("the directory is cut short"))?;
    *input = rest;
    Ok(first)
}

fn crc(input: &mut &[u8]) -> Result<u32, BadPage> {
    let (bytes, rest) = input
        .split_first_chunk::<4>()
        .ok_or(BadPage("the directory is cut short"))?;
    *input = rest;
    Ok(u32::from_le_bytes(*bytes))
}

fn number(input: &mut &[u8]) -> Result<u32, BadPage> {
    u32::try_from(take_varint(input)?).map_err(|_| BadPage("a number is too large"))
}

/// A count of things that each take at least a byte, so that a damaged one cannot ask for memory.
fn count(input: &mut &[u8]) -> Result<usize, BadPage> {
    let n = take_varint(input)?;
    if n > input.len() as u64 {
        return Err(BadPage("a count is larger than what is left"));
    }
    Ok(n as usize)
}
