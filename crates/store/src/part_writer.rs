//! Writes one part: Parquet pages made straight from codes, our indexes, and the Parquet footer. See `docs/format/part.md`.

use std::io;

use crate::column::{Kind, Spec};
use crate::directory::{Blob, Chunk, Directory, Encoding, Group, Page, TRAILER_MAGIC};
use crate::disk::FileWrite;
use crate::encoding::{bit_width, put_delta, put_hybrid, put_levels};
use crate::frame::Data;
use crate::texts::Texts;
use crate::thrift::{Element, Thrift};
use crate::words;

/// Rows of a row group: a group is what a scan prunes and what a merge holds at once.
pub const GROUP_ROWS: usize = 64 * 1024;
/// Rows of a page at most: a lookup decodes one page of each column.
pub const PAGE_ROWS: usize = 4096;
/// Bytes of a page, about, before compression.
const PAGE_BYTES: usize = 64 * 1024;
/// A column whose group is smaller than this is one page: opening twelve pages of 100 bytes costs more than reading one of 1,200.
const ONE_PAGE_BYTES: usize = 2048;
/// Texts of a dictionary: a lookup reads the whole dictionary for one value.
const DICTIONARY_BYTES: usize = 64 * 1024;
/// Distinct integers that still make a dictionary.
const DICTIONARY_WORDS: usize = 256;
/// Bytes collected before they are handed to the file.
const WRITE_BYTES: usize = 1 << 20;
/// The level DESIGN measured: 1.2 GB/s at a ratio that level 3 hardly betters on such columns.
const ZSTD_LEVEL: i32 = 1;
/// A page smaller than this is not worth a compressor's fixed cost.
const COMPRESS_BYTES: usize = 64;

const PARQUET_MAGIC: &[u8; 4] = b"PAR1";

/// A part being written. Row groups are given column by column, then `finish`.
pub struct PartWriter {
    file: Box<dyn FileWrite>,
    buffer: Vec<u8>,
    written: u64,
    /// Checksum of what was written.
    crc: u32,
    directory: Directory,
    footers: Vec<GroupFooter>,
    compressor: zstd::bulk::Compressor<'static>,
    body: Vec<u8>,
    packed: Vec<u8>,
    values: Vec<u32>,
    words: Vec<u64>,
    /// Code in the column's dictionary to code in the chunk's.
    local: Vec<u32>,
    order: Vec<u32>,
    /// Makes the word filters, if the part is to have any.
    filters: Option<words::Builder>,
}

/// What the footer says of a row group.
struct GroupFooter {
    rows: usize,
    columns: Vec<ColumnFooter>,
}

struct ColumnFooter {
    values_encoding: i32,
    dictionary_offset: Option<u64>,
    data_offset: u64,
    stored_bytes: u64,
    raw_bytes: u64,
    nulls: u64,
    bounds: Option<(u64, u64)>,
    zstd: bool,
}

/// A written part: what the catalog keeps of it.
pub struct Written {
    pub bytes: u64,
    pub rows: u64,
    pub directory: Blob,
    /// Checksum of the whole file: page headers and the footer, which only others read, lie under no other.
    pub crc: u32,
}

struct PageOut {
    raw: usize,
    page: Page,
}

impl PartWriter {
    pub fn new(file: Box<dyn FileWrite>, directory: Directory) -> io::Result<Self> {
        Ok(Self {
            file,
            buffer: PARQUET_MAGIC.to_vec(),
            written: 0,
            crc: 0,
            directory,
            footers: Vec::new(),
            compressor: zstd::bulk::Compressor::new(ZSTD_LEVEL)?,
            body: Vec::new(),
            packed: Vec::new(),
            values: Vec::new(),
            words: Vec::new(),
            local: Vec::new(),
            order: Vec::new(),
            filters: None,
        })
    }

    /// The part gets word filters.
    pub fn filter_words(&mut self) {
        self.filters = Some(words::Builder::default());
    }

    pub fn columns(&self) -> &[Spec] {
        &self.directory.columns
    }

    fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn drain(&mut self, at_least: usize) -> io::Result<()> {
        if self.buffer.len() >= at_least && !self.buffer.is_empty() {
            self.file.write_all(&self.buffer)?;
            self.written += self.buffer.len() as u64;
            self.crc = crc32c::crc32c_append(self.crc, &self.buffer);
            self.buffer.clear();
        }
        Ok(())
    }

    /// Begins a row group of `rows` rows.
    pub fn begin_group(&mut self, rows: usize, min_time: u64, max_time: u64) {
        self.directory.rows += rows as u64;
        self.directory.groups.push(Group {
            rows: rows as u32,
            min_time,
            max_time,
            chunks: Vec::with_capacity(self.directory.columns.len()),
            words: None,
        });
        self.footers.push(GroupFooter {
            rows,
            columns: Vec::with_capacity(self.directory.columns.len()),
        });
    }

    /// The next column of the current row group: rows `from..to` of `data`.
    pub fn column(&mut self, data: &Data, from: usize, to: usize) -> io::Result<()> {
        let index = self.footers.last().map_or(0, |g| g.columns.len());
        let spec = self.directory.columns[index].clone();
        let (chunk, footer) = match data {
            Data::Text { codes, texts, plain } => self.text(&spec, &codes[from..to], texts, *plain)?,
            Data::Words { values, present } => {
                self.integers(&spec, &values[from..to], present.as_ref().map(|p| &p[from..to]))?
            }
            Data::Ids { width, bytes, present } => self.ids(
                &spec,
                *width,
                &bytes[from * width..to * width],
                present.as_ref().map(|p| &p[from..to]),
            )?,
        };
        if let (Some(group), Some(foot)) = (self.directory.groups.last_mut(), self.footers.last_mut()) {
            group.chunks.push(chunk);
            foot.columns.push(footer);
        }
        if index + 1 == self.directory.columns.len()
            && let Some(filter) = self.filters.as_mut().and_then(words::Builder::take)
        {
            let offset = self.blob(&filter)?;
            if let Some(group) = self.directory.groups.last_mut() {
                group.words = Some(Blob {
                    offset,
                    bytes: filter.len() as u32,
                    crc: crc32c::crc32c(&filter),
                });
            }
        }
        self.drain(WRITE_BYTES)
    }

    fn text(&mut self, spec: &Spec, codes: &[u32], texts: &Texts, plain: bool) -> io::Result<(Chunk, ColumnFooter)> {
        // First sight of each code makes the chunk's own dictionary, unless that would be too large.
        self.local.clear();
        self.order.clear();
        let mut bytes = 0usize;
        let mut present = 0usize;
        let mut fits = true;
        if plain {
            fits = false;
            for &code in codes {
                if code != 0 {
                    present += 1;
                    bytes += texts.get(code as usize - 1).len();
                }
            }
        } else {
            self.local.resize(texts.len() + 1, 0);
            for &code in codes {
                if code == 0 {
                    continue;
                }
                present += 1;
                if self.local[code as usize] == 0 {
                    self.order.push(code);
                    self.local[code as usize] = self.order.len() as u32;
                    bytes += texts.get(code as usize - 1).len() + 4;
                }
            }
            if bytes > DICTIONARY_BYTES || (self.order.len() * 2 > present && self.order.len() > 16) {
                fits = false;
                bytes = codes
                    .iter()
                    .filter(|c| **c != 0)
                    .map(|c| texts.get(*c as usize - 1).len())
                    .sum();
            }
        }
        if !fits {
            // A dictionary prunes by itself; what has none goes into the word filter.
            if let Some(filters) = &mut self.filters
                && filters.begin(bytes, codes.len())
            {
                let distinct = if plain { codes } else { &self.order };
                for &code in distinct.iter().filter(|code| **code != 0) {
                    filters.add(texts.get(code as usize - 1));
                }
            }
            return self.pages(
                spec,
                codes.len(),
                present,
                bytes + present * 2,
                Encoding::DeltaLength,
                None,
                |row| codes[row] != 0,
                |_, range, body, words| {
                    words.clear();
                    let present = codes[range.clone()].iter().filter(|c| **c != 0);
                    words.extend(present.clone().map(|c| texts.get(*c as usize - 1).len() as u64));
                    put_delta(body, words);
                    for code in present {
                        body.extend_from_slice(texts.get(*code as usize - 1).as_bytes());
                    }
                },
            );
        }
        let mut dictionary = Vec::with_capacity(bytes);
        for &code in &self.order {
            let text = texts.get(code as usize - 1);
            dictionary.extend_from_slice(&(text.len() as u32).to_le_bytes());
            dictionary.extend_from_slice(text.as_bytes());
        }
        let entries = self.order.len();
        let width = bit_width((entries as u32).saturating_sub(1));
        let local = std::mem::take(&mut self.local);
        let result = self.pages(
            spec,
            codes.len(),
            present,
            present * width as usize / 8 + 1,
            Encoding::Dictionary,
            Some((&dictionary, entries)),
            |row| codes[row] != 0,
            |values, range, body, _| {
                values.clear();
                values.extend(codes[range].iter().filter(|c| **c != 0).map(|c| local[*c as usize] - 1));
                body.push(width as u8);
                put_hybrid(body, values, width);
            },
        );
        self.local = local;
        result
    }

    fn integers(&mut self, spec: &Spec, values: &[u64], present: Option<&[bool]>) -> io::Result<(Chunk, ColumnFooter)> {
        let here = |row: usize| present.is_none_or(|p| p[row]);
        let count = present.map_or(values.len(), |p| p.iter().filter(|p| **p).count());
        if matches!(spec.kind, Kind::Bool | Kind::TraceHex) {
            return self.pages(
                spec,
                values.len(),
                count,
                count / 8 + 1,
                Encoding::Plain,
                None,
                here,
                |_, range, body, _| {
                    let mut byte = 0u8;
                    let mut bits = 0;
                    for row in range.filter(|row| here(*row)) {
                        byte |= (values[row] as u8 & 1) << bits;
                        bits += 1;
                        if bits == 8 {
                            body.push(byte);
                            byte = 0;
                            bits = 0;
                        }
                    }
                    if bits > 0 {
                        body.push(byte);
                    }
                },
            );
        }
        if let Some((distinct, codes)) = few_distinct(values, here) {
            let dictionary: Vec<u8> = distinct.iter().flat_map(|v| v.to_le_bytes()).collect();
            let width = bit_width((distinct.len() as u32).saturating_sub(1));
            return self.pages(
                spec,
                values.len(),
                count,
                count * width as usize / 8 + 1,
                Encoding::Dictionary,
                Some((&dictionary, distinct.len())),
                here,
                |scratch, range, body, _| {
                    scratch.clear();
                    scratch.extend(range.filter(|row| here(*row)).map(|row| u32::from(codes[row])));
                    body.push(width as u8);
                    put_hybrid(body, scratch, width);
                },
            );
        }
        let encoding = if spec.kind == Kind::Double {
            Encoding::Plain
        } else {
            Encoding::Delta
        };
        self.pages(
            spec,
            values.len(),
            count,
            count * 6,
            encoding,
            None,
            here,
            |_, range, body, words| {
                words.clear();
                words.extend(range.filter(|row| here(*row)).map(|row| values[row]));
                if encoding == Encoding::Delta {
                    put_delta(body, words);
                } else {
                    for value in words.iter() {
                        body.extend_from_slice(&value.to_le_bytes());
                    }
                }
            },
        )
    }

    fn ids(
        &mut self,
        spec: &Spec,
        width: usize,
        bytes: &[u8],
        present: Option<&[bool]>,
    ) -> io::Result<(Chunk, ColumnFooter)> {
        let rows = bytes.len() / width;
        let here = |row: usize| present.is_none_or(|p| p[row]);
        let count = present.map_or(rows, |p| p.iter().filter(|p| **p).count());
        self.pages(
            spec,
            rows,
            count,
            count * width,
            Encoding::Plain,
            None,
            here,
            |_, range, body, _| {
                if present.is_none() {
                    body.extend_from_slice(&bytes[range.start * width..range.end * width]);
                } else {
                    for row in range.filter(|row| here(*row)) {
                        body.extend_from_slice(&bytes[row * width..(row + 1) * width]);
                    }
                }
            },
        )
    }

    /// Writes the dictionary page, if any, and the data pages of a chunk; `fill` appends the values of a range of rows to a page's body.
    #[allow(clippy::too_many_arguments)]
    fn pages(
        &mut self,
        spec: &Spec,
        rows: usize,
        present: usize,
        estimate_bytes: usize,
        encoding: Encoding,
        dictionary: Option<(&[u8], usize)>,
        here: impl Fn(usize) -> bool,
        mut fill: impl FnMut(&mut Vec<u32>, std::ops::Range<usize>, &mut Vec<u8>, &mut Vec<u64>),
    ) -> io::Result<(Chunk, ColumnFooter)> {
        let sparse_bytes = if spec.required || present == rows { 0 } else { rows / 8 };
        let total = estimate_bytes + sparse_bytes;
        let page_rows = if total <= ONE_PAGE_BYTES {
            rows
        } else {
            let per_row = (total / rows.max(1)).max(1);
            (PAGE_BYTES / per_row)
                .clamp(256, PAGE_ROWS)
                .next_power_of_two()
                .min(PAGE_ROWS)
        };
        let start = self.position();
        let mut raw_bytes = 0u64;
        // One codec per chunk: decided by the first page that is large enough to tell.
        let mut zstd = None;
        let mut values = std::mem::take(&mut self.values);
        let mut words = std::mem::take(&mut self.words);
        let mut first_body = std::mem::take(&mut self.body);
        let page_encoding = encoding.parquet(spec.kind);

        // The first data page's body decides, so it is made before the dictionary page is written.
        let mut at = 0;
        let mut pages = Vec::with_capacity(rows.div_ceil(page_rows.max(1)));
        let mut dictionary_page = None;
        let mut data_offset = start;
        while at < rows || pages.is_empty() {
            let end = (at + page_rows).min(rows);
            first_body.clear();
            if !spec.required {
                first_body.extend_from_slice(&[0; 4]);
                put_levels(&mut first_body, at..end, &here);
                let bytes = (first_body.len() - 4) as u32;
                first_body[..4].copy_from_slice(&bytes.to_le_bytes());
            }
            fill(&mut values, at..end, &mut first_body, &mut words);
            if zstd.is_none() {
                let probe = match dictionary {
                    Some((bytes, _)) if bytes.len() > first_body.len() => bytes,
                    _ => &first_body,
                };
                zstd = Some(self.saves(probe)?);
                if let Some((bytes, entries)) = dictionary {
                    let out = self.page(bytes, entries, None, zstd == Some(true))?;
                    raw_bytes += out.raw as u64;
                    dictionary_page = Some(out.page);
                    data_offset = self.position();
                }
            }
            let out = self.page(&first_body, end - at, Some(page_encoding), zstd == Some(true))?;
            raw_bytes += out.raw as u64;
            pages.push(out.page);
            at = end;
            if rows == 0 {
                break;
            }
        }
        self.values = values;
        self.words = words;
        self.body = first_body;
        let zstd = zstd.unwrap_or(false);
        let footer = ColumnFooter {
            values_encoding: page_encoding,
            dictionary_offset: dictionary_page.as_ref().map(|_| start),
            data_offset,
            stored_bytes: self.position() - start,
            raw_bytes,
            nulls: (rows - present) as u64,
            bounds: None,
            zstd,
        };
        let chunk = Chunk {
            encoding,
            zstd,
            present: present as u32,
            dictionary: dictionary_page,
            dictionary_entries: dictionary.map_or(0, |(_, n)| n as u32),
            pages,
        };
        Ok((chunk, footer))
    }

    /// Whether compressing a page like this one saves at least a sixteenth.
    fn saves(&mut self, body: &[u8]) -> io::Result<bool> {
        if body.len() < COMPRESS_BYTES {
            return Ok(false);
        }
        let n = self.compress(body)?;
        Ok(n + n / 16 < body.len())
    }

    fn compress(&mut self, body: &[u8]) -> io::Result<usize> {
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(body.len()));
        self.compressor.compress_to_buffer(body, &mut self.packed)
    }

    /// Appends one page; `encoding` is `None` for a dictionary.
    fn page(&mut self, body: &[u8], values: usize, encoding: Option<i32>, zstd: bool) -> io::Result<PageOut> {
        let stored = if zstd { self.compress(body)? } else { body.len() };
        let mut header = Thrift::default();
        header.i32(1, if encoding.is_some() { 0 } else { 2 });
        header.i32(2, body.len() as i32);
        header.i32(3, stored as i32);
        match encoding {
            Some(encoding) => {
                header.open(5);
                header.i32(1, values as i32);
                header.i32(2, encoding);
                header.i32(3, 3);
                header.i32(4, 3);
                header.close();
            }
            None => {
                header.open(7);
                header.i32(1, values as i32);
                header.i32(2, 0);
                header.close();
            }
        }
        header.stop();
        let header = header.into_bytes();
        let offset = self.position();
        let bytes = if zstd { self.packed.as_slice() } else { body };
        self.buffer.extend_from_slice(&header);
        self.buffer.extend_from_slice(bytes);
        Ok(PageOut {
            raw: header.len() + body.len(),
            page: Page {
                offset: offset + header.len() as u64,
                stored: stored as u32,
                raw: body.len() as u32,
                rows: values as u32,
                crc: crc32c::crc32c(bytes),
            },
        })
    }

    /// Bounds of an integer column's chunk, for other readers to prune by.
    pub fn bounds(&mut self, min: u64, max: u64) {
        if let Some(column) = self.footers.last_mut().and_then(|g| g.columns.last_mut()) {
            column.bounds = Some((min, max));
        }
    }

    /// Appends an index blob; returns where it lies.
    pub fn blob(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let at = self.position();
        self.buffer.extend_from_slice(bytes);
        self.drain(WRITE_BYTES)?;
        Ok(at)
    }

    pub fn directory_mut(&mut self) -> &mut Directory {
        &mut self.directory
    }

    /// Writes directory, trailer and footer, and makes the file durable.
    pub fn finish(mut self) -> io::Result<Written> {
        let directory = self.directory.encode();
        let at = self.blob(&directory)?;
        let mut trailer = Vec::with_capacity(24);
        trailer.extend_from_slice(&at.to_le_bytes());
        trailer.extend_from_slice(&(directory.len() as u32).to_le_bytes());
        trailer.extend_from_slice(&crc32c::crc32c(&directory).to_le_bytes());
        trailer.extend_from_slice(TRAILER_MAGIC);
        self.blob(&trailer)?;
        let footer = self.footer();
        self.blob(&footer)?;
        self.blob(&(footer.len() as u32).to_le_bytes())?;
        self.blob(PARQUET_MAGIC)?;
        self.drain(0)?;
        self.file.sync()?;
        Ok(Written {
            bytes: self.written,
            rows: self.directory.rows,
            directory: Blob {
                offset: at,
                bytes: directory.len() as u32,
                crc: crc32c::crc32c(&directory),
            },
            crc: self.crc,
        })
    }

    fn footer(&self) -> Vec<u8> {
        let columns = &self.directory.columns;
        let mut t = Thrift::default();
        t.i32(1, 2);
        t.list(2, Element::Struct, columns.len() + 1);
        t.open_element();
        t.binary(4, b"schema");
        t.i32(5, columns.len() as i32);
        t.close();
        for spec in columns {
            schema_element(&mut t, spec);
        }
        t.i64(3, self.directory.rows as i64);
        t.list(4, Element::Struct, self.footers.len());
        for group in &self.footers {
            row_group(&mut t, group, columns);
        }
        t.binary(6, concat!("trackline ", env!("CARGO_PKG_VERSION")).as_bytes());
        t.list(7, Element::Struct, columns.len());
        for _ in columns {
            t.open_element();
            t.open(1);
            t.close();
            t.close();
        }
        t.stop();
        t.into_bytes()
    }
}

/// Codes of the values if few are distinct. Absent rows have code 0, which nobody reads.
fn few_distinct(values: &[u64], here: impl Fn(usize) -> bool) -> Option<(Vec<u64>, Vec<u8>)> {
    const SLOTS: usize = 1024;
    let mut slots = [0u16; SLOTS];
    let mut distinct: Vec<u64> = Vec::new();
    let mut codes = vec![0u8; values.len()];
    let mut last = None;
    for (row, &value) in values.iter().enumerate() {
        if !here(row) {
            continue;
        }
        if let Some((known, code)) = last
            && known == value
        {
            codes[row] = code;
            continue;
        }
        let mut at = (value.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize;
        let code = loop {
            match slots[at] {
                0 => {
                    if distinct.len() == DICTIONARY_WORDS {
                        return None;
                    }
                    distinct.push(value);
                    slots[at] = distinct.len() as u16;
                    break (distinct.len() - 1) as u8;
                }
                slot if distinct[usize::from(slot) - 1] == value => break (slot - 1) as u8,
                _ => at = (at + 1) % SLOTS,
            }
        };
        codes[row] = code;
        last = Some((value, code));
    }
    Some((distinct, codes))
}

fn schema_element(t: &mut Thrift, spec: &Spec) {
    let (physical, width) = match spec.kind {
        Kind::Bool | Kind::TraceHex => (0, 0),
        Kind::Int | Kind::Uint => (2, 0),
        Kind::Double => (5, 0),
        Kind::Text | Kind::Json => (6, 0),
        Kind::Id8 | Kind::Id16 => (7, spec.kind.id_width()),
    };
    t.open_element();
    t.i32(1, physical);
    if width > 0 {
        t.i32(2, width as i32);
    }
    t.i32(3, i32::from(!spec.required));
    t.binary(4, spec.name.as_bytes());
    match spec.kind {
        Kind::Text | Kind::Json => {
            t.i32(6, 0);
            t.open(10);
            t.open(1);
            t.close();
            t.close();
        }
        Kind::Uint => {
            t.i32(6, 14);
            t.open(10);
            t.open(10);
            t.i8(1, 64);
            t.bool(2, false);
            t.close();
            t.close();
        }
        _ => {}
    }
    t.close();
}

fn row_group(t: &mut Thrift, group: &GroupFooter, columns: &[Spec]) {
    let raw: u64 = group.columns.iter().map(|c| c.raw_bytes).sum();
    let stored: u64 = group.columns.iter().map(|c| c.stored_bytes).sum();
    let first = group
        .columns
        .first()
        .map_or(4, |c| c.dictionary_offset.unwrap_or(c.data_offset));
    t.open_element();
    t.list(1, Element::Struct, columns.len());
    for (spec, column) in columns.iter().zip(&group.columns) {
        t.open_element();
        t.i64(2, column.dictionary_offset.unwrap_or(column.data_offset) as i64);
        t.open(3);
        column_meta(t, spec, column, group.rows);
        t.close();
        t.close();
    }
    t.i64(2, raw as i64);
    t.i64(3, group.rows as i64);
    t.i64(5, first as i64);
    t.i64(6, stored as i64);
    t.close();
}

fn column_meta(t: &mut Thrift, spec: &Spec, column: &ColumnFooter, rows: usize) {
    let physical = match spec.kind {
        Kind::Bool | Kind::TraceHex => 0,
        Kind::Int | Kind::Uint => 2,
        Kind::Double => 5,
        Kind::Text | Kind::Json => 6,
        Kind::Id8 | Kind::Id16 => 7,
    };
    t.i32(1, physical);
    // PLAIN for a dictionary's own page, RLE for the levels, then the values' encoding.
    t.list(2, Element::I32, 3);
    t.i32_element(0);
    t.i32_element(3);
    t.i32_element(column.values_encoding);
    t.list(3, Element::Binary, 1);
    t.binary_element(spec.name.as_bytes());
    t.i32(4, if column.zstd { 6 } else { 0 });
    t.i64(5, rows as i64);
    t.i64(6, column.raw_bytes as i64);
    t.i64(7, column.stored_bytes as i64);
    t.i64(9, column.data_offset as i64);
    if let Some(offset) = column.dictionary_offset {
        t.i64(11, offset as i64);
    }
    t.open(12);
    t.i64(3, column.nulls as i64);
    if let Some((min, max)) = column.bounds {
        t.binary(5, &max.to_le_bytes());
        t.binary(6, &min.to_le_bytes());
    }
    t.close();
}
