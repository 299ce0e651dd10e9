//! Where every reader stands, in one small text file that is replaced in one step: a person can read it, and losing its
//! last version costs only a second delivery.

use std::fmt::Write as _;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use crate::Ranges;
use crate::disk::{Disk, Open};
use crate::settings::{JournalId, OnFull, Seq};

pub(crate) const CURSOR_FILE: &str = "cursors";
const CURSOR_TEMPORARY: &str = "cursors.tmp";
const TITLE: &str = "trackline-journal-cursors";
pub(crate) const CURSOR_VERSION: u32 = 1;
/// Acknowledged ranges kept per reader; what lies above them is delivered again after a restart.
const CURSOR_RANGES_LIMIT: usize = 1 << 14;
/// A cursor file larger than this is none of ours: 256 readers of the most ranges of the longest numbers fit.
const CURSOR_FILE_LIMIT_BYTES: u64 = 256 << 20;

/// A reader as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredReader {
    pub name: Arc<str>,
    pub stream: Arc<str>,
    pub on_full: OnFull,
    pub acked: Ranges,
    pub skipped_records: u64,
    pub skipped_bytes: u64,
    pub lost_records: u64,
    /// Since when the journal has been open without anyone opening this reader.
    pub orphan_since_unix_nano: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursors {
    pub id: JournalId,
    /// No number at or above this had been given out.
    pub next_seq: Seq,
    /// The last segment, written only by an orderly close.
    pub clean_segment: Option<u64>,
    pub readers: Vec<StoredReader>,
}

#[derive(Debug)]
pub(crate) enum CursorFault {
    Missing,
    Corrupt(&'static str),
    Newer(u32),
    Io(io::Error),
}

impl Cursors {
    pub(crate) fn encode(&self) -> String {
        let mut out = format!(
            "{TITLE} {CURSOR_VERSION}\njournal {}\nnext {}\n",
            self.id, self.next_seq
        );
        let line = |out: &mut String, text: std::fmt::Arguments<'_>| {
            out.write_fmt(text).expect("a string takes everything");
            out.push('\n');
        };
        if let Some(segment) = self.clean_segment {
            line(&mut out, format_args!("clean {segment}"));
        }
        for reader in &self.readers {
            let on_full = match reader.on_full {
                OnFull::Refuse => "refuse",
                OnFull::SkipOldest => "skip_oldest",
            };
            write!(
                out,
                "reader\t{}\t{}\t{on_full}\t{}\t",
                reader.name,
                reader.stream,
                reader.acked.low()
            )
            .expect("a string takes everything");
            for (at, (first, last)) in reader.acked.ranges().iter().take(CURSOR_RANGES_LIMIT).enumerate() {
                let comma = if at == 0 { "" } else { "," };
                write!(out, "{comma}{first}-{last}").expect("a string takes everything");
            }
            let orphan = reader
                .orphan_since_unix_nano
                .map(|at| at.to_string())
                .unwrap_or_default();
            line(
                &mut out,
                format_args!(
                    "\t{}\t{}\t{}\t{orphan}",
                    reader.skipped_records, reader.skipped_bytes, reader.lost_records
                ),
            );
        }
        let sum = crc32c::crc32c(out.as_bytes());
        line(&mut out, format_args!("end {sum:08x}"));
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Cursors, CursorFault> {
        let corrupt = CursorFault::Corrupt;
        let text = std::str::from_utf8(bytes).map_err(|_| corrupt("it is not text"))?;
        let version = text
            .strip_prefix(TITLE)
            .and_then(|rest| rest.lines().next()?.trim().parse::<u32>().ok());
        let version = version.ok_or(corrupt("it has no title line"))?;
        if version > CURSOR_VERSION {
            return Err(CursorFault::Newer(version));
        }
        let end = text.rfind("end ").ok_or(corrupt("it has no end line"))?;
        let sum =
            u32::from_str_radix(text[end + 4..].trim_end(), 16).map_err(|_| corrupt("its end line has no checksum"))?;
        if sum != crc32c::crc32c(&bytes[..end]) {
            return Err(corrupt("its checksum does not match"));
        }
        let mut cursors = Cursors {
            id: JournalId([0; 16]),
            next_seq: 0,
            clean_segment: None,
            readers: Vec::new(),
        };
        for line in text[..end].lines().skip(1) {
            if let Some(id) = line.strip_prefix("journal ") {
                cursors.id = JournalId::from_hex(id).ok_or(corrupt("its journal id is malformed"))?;
            } else if let Some(seq) = line.strip_prefix("next ") {
                cursors.next_seq = seq.parse().map_err(|_| corrupt("its next number is malformed"))?;
            } else if let Some(segment) = line.strip_prefix("clean ") {
                cursors.clean_segment = Some(segment.parse().map_err(|_| corrupt("its clean line is malformed"))?);
            } else {
                cursors
                    .readers
                    .push(decode_reader(line).ok_or(corrupt("a reader line is malformed"))?);
            }
        }
        Ok(cursors)
    }

    pub(crate) fn read(disk: &dyn Disk, directory: &Path) -> Result<Cursors, CursorFault> {
        let file = match disk.open(&directory.join(CURSOR_FILE), Open::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(CursorFault::Missing),
            Err(error) => return Err(CursorFault::Io(error)),
        };
        let length = file.length().map_err(CursorFault::Io)?;
        if length > CURSOR_FILE_LIMIT_BYTES {
            return Err(CursorFault::Corrupt("it is far too large"));
        }
        let mut bytes = vec![0; length as usize];
        let read = file.read_at(&mut bytes, 0).map_err(CursorFault::Io)?;
        Cursors::decode(&bytes[..read])
    }

    /// Durable when it returns.
    pub(crate) fn write(&self, disk: &dyn Disk, directory: &Path) -> io::Result<()> {
        let temporary = directory.join(CURSOR_TEMPORARY);
        match disk.remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.open(&temporary, Open::New)?;
        file.write_at(&mut [IoSlice::new(self.encode().as_bytes())], 0)?;
        file.sync_data()?;
        disk.rename(&temporary, &directory.join(CURSOR_FILE))?;
        disk.sync_dir(directory)
    }
}

fn decode_reader(line: &str) -> Option<StoredReader> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [
        "reader",
        name,
        stream,
        on_full,
        low,
        ranges,
        skipped_records,
        skipped_bytes,
        lost_records,
        orphan,
    ] = fields[..]
    else {
        return None;
    };
    let mut acked = Ranges::below(low.parse().ok()?);
    for range in ranges.split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-')?;
        acked.insert_range(first.parse().ok()?, last.parse().ok()?);
    }
    Some(StoredReader {
        name: name.into(),
        stream: stream.into(),
        on_full: match on_full {
            "refuse" => OnFull::Refuse,
            "skip_oldest" => OnFull::SkipOldest,
            _ => return None,
        },
        acked,
        skipped_records: skipped_records.parse().ok()?,
        skipped_bytes: skipped_bytes.parse().ok()?,
        lost_records: lost_records.parse().ok()?,
        orphan_since_unix_nano: if orphan.is_empty() {
            None
        } else {
            Some(orphan.parse().ok()?)
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursors() -> Cursors {
        let reader = |name: &str, acked, orphan_since_unix_nano: Option<u64>| StoredReader {
            name: name.into(),
            stream: "traces/backend".into(),
            on_full: if orphan_since_unix_nano.is_some() {
                OnFull::Refuse
            } else {
                OnFull::SkipOldest
            },
            acked,
            skipped_records: 3,
            skipped_bytes: 4,
            lost_records: 5,
            orphan_since_unix_nano,
        };
        Cursors {
            id: JournalId([0xab; 16]),
            next_seq: 77,
            clean_segment: Some(9),
            readers: vec![
                reader("store, the first", Ranges::from_parts(5, [(7, 9), (11, 11)]), None),
                reader("end 00000000", Ranges::below(0), Some(12)),
            ],
        }
    }

    #[test]
    fn a_cursor_file_reads_back() {
        let cursors = cursors();
        assert_eq!(Cursors::decode(cursors.encode().as_bytes()).unwrap(), cursors);
    }

    #[test]
    fn no_flipped_bit_and_no_cut_passes() {
        let bytes = cursors().encode().into_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            // The case of a hexadecimal digit in the checksum and white space behind it carry no meaning.
            assert!(
                Cursors::decode(&broken).map_or(true, |found| found == cursors()),
                "bit {bit}"
            );
        }
        for length in 0..bytes.len() - 1 {
            assert!(Cursors::decode(&bytes[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn a_newer_file_is_told_apart_from_a_broken_one() {
        let newer = cursors().encode().replacen("cursors 1", "cursors 2", 1);
        assert!(matches!(Cursors::decode(newer.as_bytes()), Err(CursorFault::Newer(2))));
    }
}
