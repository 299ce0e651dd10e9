//! Reads one part: its directory, its trace index, and the pages of a column that hold some rows. By `pread`, checked, never mapped.

use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use model::TraceId;

use crate::column::{Kind, Spec};
use crate::directory::{Blob, Chunk, Directory, Encoding, Page, TRAILER_BYTES, TRAILER_MAGIC};
use crate::disk::{Disk, FileRead};
use crate::encoding::{BadPage, take_delta, take_hybrid, take_levels};
use crate::error::ReadError;
use crate::frame::{Column, Data, Frame};
use crate::texts::Texts;
use crate::trace_index;
use crate::words::WordFilter;

/// A page or blob larger than this was never written: a damaged directory must not ask for the memory.
const MAX_READ_BYTES: u32 = 1 << 30;

/// A part whose directory is read.
pub struct OpenPart {
    path: PathBuf,
    file: Arc<dyn FileRead>,
    pub directory: Directory,
    trace_ends: OnceLock<Vec<u8>>,
}

impl OpenPart {
    /// Opens a part; `directory` says where its directory lies, else the trailer does.
    pub fn open(disk: &dyn Disk, path: &Path, directory: Option<Blob>) -> Result<OpenPart, ReadError> {
        let failed = |source| ReadError::Io {
            path: path.to_owned(),
            source,
        };
        let file = disk.open(path).map_err(failed)?;
        let mut part = OpenPart {
            path: path.to_owned(),
            file,
            directory: Directory::new(crate::Dataset::Traces, crate::Day(0), Vec::new()),
            trace_ends: OnceLock::new(),
        };
        let at = match directory {
            Some(at) => at,
            None => part.trailer()?,
        };
        let bytes = part.blob(&at)?;
        part.directory = Directory::decode(&bytes).map_err(|bad| part.corrupt(at.offset, bad))?;
        Ok(part)
    }

    /// Reads the whole file; returns its length and its checksum.
    pub fn checksum(&self) -> Result<(u64, u32), ReadError> {
        /// Bytes read at once.
        const STEP_BYTES: u64 = 1 << 20;
        let bytes = self.file.bytes().map_err(|e| self.failed(e))?;
        let mut buffer = vec![0; STEP_BYTES.min(bytes) as usize];
        let (mut at, mut crc) = (0, 0);
        while at < bytes {
            let piece = &mut buffer[..STEP_BYTES.min(bytes - at) as usize];
            self.read(piece, at)?;
            crc = crc32c::crc32c_append(crc, piece);
            at += piece.len() as u64;
        }
        Ok((bytes, crc))
    }

    fn trailer(&self) -> Result<Blob, ReadError> {
        let bytes = self.file.bytes().map_err(|e| self.failed(e))?;
        let cut = || self.corrupt(bytes, BadPage("the file is cut short"));
        let mut end = [0u8; 8];
        self.read(&mut end, bytes.checked_sub(8).ok_or_else(cut)?)?;
        if &end[4..] != b"PAR1" {
            return Err(self.corrupt(bytes - 4, BadPage("the file does not end as Parquet does")));
        }
        let footer = u64::from(u32::from_le_bytes([end[0], end[1], end[2], end[3]]));
        let at = bytes.checked_sub(8 + footer + TRAILER_BYTES).ok_or_else(cut)?;
        let mut trailer = [0u8; TRAILER_BYTES as usize];
        self.read(&mut trailer, at)?;
        if &trailer[16..] != TRAILER_MAGIC {
            return Err(self.corrupt(at, BadPage("there is no trailer before the footer")));
        }
        let word = |i: usize| u32::from_le_bytes([trailer[i], trailer[i + 1], trailer[i + 2], trailer[i + 3]]);
        Ok(Blob {
            offset: u64::from(word(0)) | u64::from(word(4)) << 32,
            bytes: word(8),
            crc: word(12),
        })
    }

    fn failed(&self, source: io::Error) -> ReadError {
        ReadError::Io {
            path: self.path.clone(),
            source,
        }
    }

    fn corrupt(&self, offset: u64, bad: BadPage) -> ReadError {
        ReadError::Corrupt {
            path: self.path.clone(),
            offset,
            what: bad.0.to_owned(),
        }
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), ReadError> {
        self.file.read_exact_at(buffer, offset).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                self.corrupt(offset, BadPage("the file is cut short"))
            } else {
                self.failed(error)
            }
        })
    }

    fn stored(&self, offset: u64, bytes: u32, crc: u32) -> Result<Vec<u8>, ReadError> {
        if bytes > MAX_READ_BYTES {
            return Err(self.corrupt(offset, BadPage("a length is beyond reason")));
        }
        let mut buffer = vec![0; bytes as usize];
        self.read(&mut buffer, offset)?;
        if crc32c::crc32c(&buffer) != crc {
            return Err(self.corrupt(offset, BadPage("the bytes do not match their checksum")));
        }
        Ok(buffer)
    }

    /// An index blob, checked.
    pub fn blob(&self, at: &Blob) -> Result<Vec<u8>, ReadError> {
        self.stored(at.offset, at.bytes, at.crc)
    }

    fn page(&self, page: &Page, zstd: bool) -> Result<Vec<u8>, ReadError> {
        let stored = self.stored(page.offset, page.stored, page.crc)?;
        if !zstd {
            return Ok(stored);
        }
        if page.raw > MAX_READ_BYTES {
            return Err(self.corrupt(page.offset, BadPage("a length is beyond reason")));
        }
        let raw = inflate(&stored, page.raw as usize)
            .map_err(|_| self.corrupt(page.offset, BadPage("a page does not inflate")))?;
        if raw.len() != page.raw as usize {
            return Err(self.corrupt(page.offset, BadPage("a page inflates to another length")));
        }
        Ok(raw)
    }

    /// Runs of rows that may belong to a trace, ascending.
    pub fn trace_rows(&self, id: &TraceId) -> Result<Vec<Range<u32>>, ReadError> {
        let Some(at) = self.directory.traces else {
            return Ok(Vec::new());
        };
        let ends = match self.trace_ends.get() {
            Some(ends) => ends,
            None => {
                let ends = self.blob(&at.ends)?;
                self.trace_ends.get_or_init(|| ends)
            }
        };
        let range = trace_index::bucket_range(ends, at.buckets, id).map_err(|bad| self.corrupt(at.ends.offset, bad))?;
        if range.end - range.start > u64::from(MAX_READ_BYTES) {
            return Err(self.corrupt(at.ends.offset, BadPage("a length is beyond reason")));
        }
        let mut bucket = vec![0; (range.end - range.start) as usize];
        let offset = at.buckets_offset + range.start;
        self.read(&mut bucket, offset)?;
        trace_index::find(&bucket, id).map_err(|bad| self.corrupt(offset, bad))
    }

    /// Reads and checks every bucket of the trace index.
    pub fn check_trace_index(&self) -> Result<(), ReadError> {
        let Some(at) = self.directory.traces else {
            return Ok(());
        };
        let ends = self.blob(&at.ends)?;
        let mut start = 0u64;
        for end in ends.as_chunks::<4>().0 {
            let end = u64::from(u32::from_le_bytes(*end));
            if end < start {
                return Err(self.corrupt(
                    at.ends.offset,
                    BadPage("a bucket of the trace index ends before it starts"),
                ));
            }
            let mut bucket = vec![0; (end - start) as usize];
            self.read(&mut bucket, at.buckets_offset + start)?;
            trace_index::find(&bucket, &TraceId::default())
                .map_err(|bad| self.corrupt(at.buckets_offset + start, bad))?;
            start = end;
        }
        Ok(())
    }

    /// Rows `rows` of a group's column.
    pub fn column(&self, group: usize, column: usize, rows: Range<usize>) -> Result<Data, ReadError> {
        let spec = &self.directory.columns[column];
        let chunk = &self.directory.groups[group].chunks[column];
        let mut decoder = Decoder::new(spec, chunk);
        let entries = chunk.dictionary_entries as usize;
        let sparse = spec.kind.is_text() && rows.len() < entries;
        let mut later = None;
        if let Some(page) = &chunk.dictionary {
            let body = self.page(page, chunk.zstd)?;
            if sparse {
                decoder.entries = entries;
                later = Some((body, page.offset));
            } else {
                decoder
                    .dictionary(body, entries)
                    .map_err(|bad| self.corrupt(page.offset, bad))?;
            }
        }
        let mut first = 0usize;
        for page in &chunk.pages {
            let last = first + page.rows as usize;
            if last > rows.start && first < rows.end {
                let body = self.page(page, chunk.zstd)?;
                let from = rows.start.max(first) - first;
                let to = rows.end.min(last) - first;
                decoder
                    .page(&body, page.rows as usize, from..to)
                    .map_err(|bad| self.corrupt(page.offset, bad))?;
            }
            first = last;
        }
        if let Some((body, offset)) = later {
            decoder.texts = used_texts(&body, entries, &mut decoder.codes).map_err(|bad| self.corrupt(offset, bad))?;
        }
        Ok(decoder.finish())
    }

    /// The distinct texts of a group's column if it has a dictionary: what a scan prunes by.
    pub fn dictionary(&self, group: usize, column: usize) -> Result<Option<Texts>, ReadError> {
        let chunk = &self.directory.groups[group].chunks[column];
        match &chunk.dictionary {
            Some(page) if self.directory.columns[column].kind.is_text() => {
                let body = self.page(page, chunk.zstd)?;
                let texts = texts_of(&body, chunk.dictionary_entries as usize);
                texts.map(Some).map_err(|bad| self.corrupt(page.offset, bad))
            }
            _ => Ok(None),
        }
    }

    /// The word filter of a group, if it has one.
    pub fn words(&self, group: usize) -> Result<Option<WordFilter>, ReadError> {
        let Some(at) = self.directory.groups[group].words else {
            return Ok(None);
        };
        WordFilter::decode(self.blob(&at)?).map_err(|bad| self.corrupt(at.offset, bad))
    }

    /// Rows of a group: the wanted columns that have a value in it.
    pub fn frame(&self, group: usize, rows: Range<usize>, wanted: impl Fn(&Spec) -> bool) -> Result<Frame, ReadError> {
        let mut columns = Vec::new();
        for (index, spec) in self.directory.columns.iter().enumerate() {
            if self.directory.groups[group].chunks[index].present > 0 && wanted(spec) {
                columns.push(Column {
                    spec: spec.clone(),
                    data: self.column(group, index, rows.clone())?,
                });
            }
        }
        Ok(Frame {
            rows: rows.len(),
            columns,
        })
    }
}

/// Inflates with this thread's context: a new one costs more than most pages.
fn inflate(stored: &[u8], raw: usize) -> io::Result<Vec<u8>> {
    thread_local! {
        static INFLATER: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
    }
    INFLATER.with_borrow_mut(|inflater| {
        let inflater = match inflater {
            Some(inflater) => inflater,
            none => none.insert(zstd::bulk::Decompressor::new()?),
        };
        inflater.decompress(stored, raw)
    })
}

/// The entries of a dictionary that `codes` (0 is absent) use, renumbering the codes: a lookup of a few rows does not read the rest.
fn used_texts(mut body: &[u8], entries: usize, codes: &mut [u32]) -> Result<Texts, BadPage> {
    let mut used: Vec<u32> = codes.iter().copied().filter(|c| *c != 0).collect();
    used.sort_unstable();
    used.dedup();
    let mut texts = Texts::default();
    let mut wanted = used.iter().peekable();
    for code in 1..=entries as u32 {
        let Some(next) = wanted.peek() else { break };
        let (length, rest) = body
            .split_first_chunk::<4>()
            .ok_or(BadPage("a dictionary is cut short"))?;
        let (text, rest) = rest
            .split_at_checked(u32::from_le_bytes(*length) as usize)
            .ok_or(BadPage("a dictionary is cut short"))?;
        if **next == code {
            texts.push(std::str::from_utf8(text).map_err(|_| BadPage("a text is not UTF-8"))?);
            wanted.next();
        }
        body = rest;
    }
    if texts.len() != used.len() {
        return Err(BadPage("a dictionary is cut short"));
    }
    for code in codes.iter_mut().filter(|c| **c != 0) {
        *code = used.binary_search(code).map_or(0, |at| at as u32 + 1);
    }
    Ok(texts)
}

fn texts_of(mut body: &[u8], entries: usize) -> Result<Texts, BadPage> {
    let mut texts = Texts::with_capacity(entries.min(body.len()), body.len());
    for _ in 0..entries {
        let (length, rest) = body
            .split_first_chunk::<4>()
            .ok_or(BadPage("a dictionary is cut short"))?;
        let (text, rest) = rest
            .split_at_checked(u32::from_le_bytes(*length) as usize)
            .ok_or(BadPage("a dictionary is cut short"))?;
        texts.push(std::str::from_utf8(text).map_err(|_| BadPage("a text is not UTF-8"))?);
        body = rest;
    }
    Ok(texts)
}

/// Collects the values of some rows of one column, page by page.
struct Decoder<'a> {
    spec: &'a Spec,
    encoding: Encoding,
    all_present: bool,
    texts: Texts,
    dictionary_words: Vec<u64>,
    entries: usize,
    codes: Vec<u32>,
    words: Vec<u64>,
    ids: Vec<u8>,
    present: Vec<bool>,
    levels: Vec<u8>,
    scratch_codes: Vec<u32>,
    scratch_words: Vec<u64>,
}

impl<'a> Decoder<'a> {
    fn new(spec: &'a Spec, chunk: &Chunk) -> Self {
        Self {
            spec,
            encoding: chunk.encoding,
            all_present: spec.required,
            texts: Texts::default(),
            dictionary_words: Vec::new(),
            entries: 0,
            codes: Vec::new(),
            words: Vec::new(),
            ids: Vec::new(),
            present: Vec::new(),
            levels: Vec::new(),
            scratch_codes: Vec::new(),
            scratch_words: Vec::new(),
        }
    }

    fn dictionary(&mut self, body: Vec<u8>, entries: usize) -> Result<(), BadPage> {
        self.entries = entries;
        if self.spec.kind.is_text() {
            self.texts = texts_of(&body, entries)?;
        } else {
            let (words, rest) = body.as_chunks::<8>();
            if words.len() != entries || !rest.is_empty() {
                return Err(BadPage("a dictionary has another length"));
            }
            self.dictionary_words = words.iter().map(|w| u64::from_le_bytes(*w)).collect();
        }
        Ok(())
    }

    fn page(&mut self, mut body: &[u8], rows: usize, wanted: Range<usize>) -> Result<(), BadPage> {
        self.levels.clear();
        if !self.spec.required {
            let (length, rest) = body.split_first_chunk::<4>().ok_or(BadPage("levels are cut short"))?;
            let (levels, rest) = rest
                .split_at_checked(u32::from_le_bytes(*length) as usize)
                .ok_or(BadPage("levels are cut short"))?;
            take_levels(levels, rows, &mut self.levels)?;
            body = rest;
        }
        let levels = &self.levels;
        let count = |range: Range<usize>| {
            if levels.is_empty() {
                range.len()
            } else {
                levels[range].iter().filter(|l| **l == 1).count()
            }
        };
        let before = count(0..wanted.start);
        let here = count(wanted.clone());
        let total = before + here + count(wanted.end..rows);
        if here == 0 {
            self.absent(wanted.len());
            Ok(())
        } else if self.spec.kind.is_text() {
            self.page_texts(body, wanted, before, here, total)
        } else if self.spec.kind.id_width() > 0 {
            let width = self.spec.kind.id_width();
            if body.len() != total * width {
                return Err(BadPage("ids are cut short"));
            }
            let body = &body[before * width..(before + here) * width];
            if here == wanted.len() {
                self.ids.extend_from_slice(body);
                self.present.resize(self.present.len() + here, true);
                return Ok(());
            }
            let mut values = body.chunks_exact(width);
            for row in wanted {
                if self.levels.get(row).is_none_or(|l| *l == 1) {
                    self.ids.extend_from_slice(values.next().unwrap_or_default());
                    self.present.push(true);
                } else {
                    self.ids.resize(self.ids.len() + width, 0);
                    self.present.push(false);
                }
            }
            Ok(())
        } else {
            self.page_words(body, wanted, before, here, total)
        }
    }

    fn absent(&mut self, rows: usize) {
        if self.spec.kind.is_text() {
            self.codes.resize(self.codes.len() + rows, 0);
            return;
        }
        self.present.resize(self.present.len() + rows, false);
        match self.spec.kind.id_width() {
            0 => self.words.resize(self.words.len() + rows, 0),
            width => self.ids.resize(self.ids.len() + rows * width, 0),
        }
    }

    fn page_texts(
        &mut self,
        mut body: &[u8],
        wanted: Range<usize>,
        before: usize,
        here: usize,
        total: usize,
    ) -> Result<(), BadPage> {
        let base = match self.encoding {
            Encoding::Dictionary => {
                self.take_codes(body, before, here)?;
                None
            }
            Encoding::DeltaLength => {
                self.scratch_words.clear();
                take_delta(&mut body, total, &mut self.scratch_words)?;
                let base = self.texts.len() as u32;
                let mut at = 0usize;
                for (index, &length) in self.scratch_words.iter().enumerate().take(before + here) {
                    let end = usize::try_from(length)
                        .ok()
                        .and_then(|length| at.checked_add(length))
                        .filter(|end| *end <= body.len())
                        .ok_or(BadPage("texts are cut short"))?;
                    if index >= before {
                        let text = std::str::from_utf8(&body[at..end]).map_err(|_| BadPage("a text is not UTF-8"))?;
                        self.texts.push(text);
                    }
                    at = end;
                }
                Some(base)
            }
            _ => return Err(BadPage("texts in an encoding that texts do not have")),
        };
        let mut next = 0usize;
        if here == wanted.len() {
            match base {
                None => self.codes.extend(self.scratch_codes.iter().map(|c| c + 1)),
                Some(base) => self.codes.extend(base + 1..=base + here as u32),
            }
            return Ok(());
        }
        for row in wanted {
            if self.levels.get(row).is_none_or(|l| *l == 1) {
                self.codes.push(match base {
                    None => self.scratch_codes[next] + 1,
                    Some(base) => base + next as u32 + 1,
                });
                next += 1;
            } else {
                self.codes.push(0);
            }
        }
        Ok(())
    }

    /// Decodes the dictionary codes `skip..skip + count` of a page into `scratch_codes`.
    fn take_codes(&mut self, body: &[u8], skip: usize, count: usize) -> Result<(), BadPage> {
        self.scratch_codes.clear();
        if count == 0 {
            return Ok(());
        }
        let (&width, codes) = body.split_first().ok_or(BadPage("codes are cut short"))?;
        take_hybrid(codes, u32::from(width), skip, count, &mut self.scratch_codes)?;
        if self.scratch_codes.iter().any(|c| *c as usize >= self.entries) {
            return Err(BadPage("a code is beyond its dictionary"));
        }
        Ok(())
    }

    fn page_words(
        &mut self,
        mut body: &[u8],
        wanted: Range<usize>,
        before: usize,
        here: usize,
        total: usize,
    ) -> Result<(), BadPage> {
        self.scratch_words.clear();
        let mut before = before;
        match self.encoding {
            Encoding::Dictionary => {
                self.take_codes(body, before, here)?;
                // Only what is wanted was decoded.
                before = 0;
                let words = &self.dictionary_words;
                self.scratch_words
                    .extend(self.scratch_codes.iter().map(|c| words[*c as usize]));
            }
            Encoding::Delta => take_delta(&mut body, total, &mut self.scratch_words)?,
            Encoding::Plain if matches!(self.spec.kind, Kind::Bool | Kind::TraceHex) => {
                if body.len() * 8 < total {
                    return Err(BadPage("booleans are cut short"));
                }
                self.scratch_words
                    .extend((0..total).map(|i| u64::from(body[i / 8] >> (i % 8) & 1)));
            }
            Encoding::Plain => {
                if body.len() != total * 8 {
                    return Err(BadPage("numbers are cut short"));
                }
                self.scratch_words
                    .extend(body.as_chunks::<8>().0.iter().map(|w| u64::from_le_bytes(*w)));
            }
            Encoding::DeltaLength => return Err(BadPage("numbers in an encoding that numbers do not have")),
        }
        if here == wanted.len() {
            self.words.extend_from_slice(&self.scratch_words[before..before + here]);
            self.present.resize(self.present.len() + here, true);
            return Ok(());
        }
        let mut next = before;
        for row in wanted {
            if self.levels.get(row).is_none_or(|l| *l == 1) {
                self.words.push(self.scratch_words[next]);
                self.present.push(true);
                next += 1;
            } else {
                self.words.push(0);
                self.present.push(false);
            }
        }
        Ok(())
    }

    fn finish(self) -> Data {
        let present = if self.all_present { None } else { Some(self.present) };
        if self.spec.kind.is_text() {
            Data::Text {
                codes: self.codes,
                texts: Arc::new(self.texts),
                plain: self.encoding == Encoding::DeltaLength,
            }
        } else if self.spec.kind.id_width() > 0 {
            Data::Ids {
                width: self.spec.kind.id_width(),
                bytes: self.ids,
                present,
            }
        } else {
            Data::Words {
                values: self.words,
                present,
            }
        }
    }
}
