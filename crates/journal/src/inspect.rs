//! Looks at a journal from outside: reads only, takes no lock, and so works beside the process that owns it. What that
//! process has in memory (acknowledgements of the last second) is not seen.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cursors::{CURSOR_FILE, CURSOR_VERSION, CursorFault, Cursors};
use crate::disk::{Disk, DiskFile, Open, RealDisk};
use crate::format::{
    FORMAT_VERSION, HeaderFault, SEGMENT_HEADER_BYTES, SegmentHeader, Summary, segment_name, segment_number,
};
use crate::recovery::{LOCK_FILE, read_seal};
use crate::seek::seek;
use crate::settings::{JournalId, Seq};
use crate::state::{ReaderState, Segment, State};
use crate::status::{DAMAGE_LIMIT, Damage, ReaderStatus};
use crate::walk::{Bodies, Extent, Rest, Step, Unfinished, Walk};

/// A journal's files and readers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    pub directory: PathBuf,
    pub id: JournalId,
    pub format_version: u32,
    /// The process that has it open, as far as that can be known without disturbing it.
    pub owner_pid: Option<u32>,
    /// Whether it was closed in order; not while it is open.
    pub clean: bool,
    pub next_seq: Seq,
    pub records: u64,
    pub disk_bytes: u64,
    pub segments: Vec<SegmentInfo>,
    pub readers: Vec<ReaderStatus>,
    /// Why the readers' positions are not known, if so.
    pub cursors_fault: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SegmentInfo {
    pub name: String,
    pub first_seq: Seq,
    /// The number after its last record.
    pub next_seq: Seq,
    pub records: u64,
    /// Up to the end of the last record.
    pub data_bytes: u64,
    /// The file with what is reserved in it.
    pub file_bytes: u64,
    pub sealed: bool,
    pub header_fault: Option<String>,
    pub streams: Vec<StreamInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamInfo {
    pub stream: String,
    pub records: u64,
    pub bytes: u64,
    pub first_unix_nano: u64,
    pub last_unix_nano: u64,
}

/// What reading every byte found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub directory: PathBuf,
    pub id: JournalId,
    pub segments: u64,
    pub records: u64,
    pub bytes: u64,
    /// Bytes of a write that did not finish; beside a running owner, of one that is under way.
    pub torn_bytes: u64,
    pub damage: Vec<Damage>,
    pub damage_count: u64,
    pub lost_records: u64,
    pub cursors_fault: Option<String>,
}

impl Check {
    pub fn is_good(&self) -> bool {
        self.damage_count == 0 && self.cursors_fault.is_none()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error("{} holds no journal; name the directory that service.journal.directory names", path.display())]
    NotAJournal { path: PathBuf },
    #[error("{} was written in journal format {found}, this program knows {known}; use the newer program", path.display())]
    NewerVersion { path: PathBuf, found: u32, known: u32 },
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Lists segments and readers. Reads the heads of the segment being written, and the summaries of the others.
pub fn inspect(directory: &Path) -> Result<Inspection, InspectError> {
    let files = Files::find(directory)?;
    let mut segments = Vec::new();
    let mut state = State::new(files.id, 1);
    for (at, file) in files.segments.iter().enumerate() {
        let below_seq = files.below_seq(at);
        let (segment, sealed) = match read_seal(&*file.file, &files.id, file.length) {
            Some((data_end, seal)) if seal.next_seq <= below_seq => (
                file.segment(state.next_seq, seal.next_seq, data_end, seal.summary),
                true,
            ),
            _ => (
                file.walk(&files.id, state.next_seq, below_seq, Bodies::Skip, |_| {}).0,
                false,
            ),
        };
        segments.push(SegmentInfo {
            name: segment_name(segment.number),
            first_seq: segment.first_seq,
            next_seq: segment.next_seq,
            records: segment.summary.records(),
            data_bytes: segment.data_end,
            file_bytes: segment.file_bytes,
            sealed,
            header_fault: file.header.as_ref().err().cloned(),
            streams: segment.summary.streams.iter().map(StreamInfo::from).collect(),
        });
        state.next_seq = segment.next_seq;
        state.segments.push_back(segment);
    }
    let (cursors, cursors_fault) = match files.cursors {
        Ok(cursors) => (Some(cursors), None),
        Err(fault) => (None, Some(fault)),
    };
    let mut clean = false;
    let mut readers = Vec::new();
    if let Some(cursors) = cursors {
        clean =
            cursors.clean_segment.is_some() && cursors.clean_segment == files.segments.last().map(|last| last.number);
        state.next_seq = state.next_seq.max(cursors.next_seq);
        for stored in &cursors.readers {
            let place = seek(&RealDisk, directory, &state, &stored.stream, stored.acked.clone());
            let place = place.map_err(|source| InspectError::Io {
                path: directory.to_owned(),
                source,
            })?;
            let reader = ReaderState::new(stored, place, 0);
            readers.push(state.reader_status(&reader));
        }
    }
    Ok(Inspection {
        directory: directory.to_owned(),
        id: files.id,
        format_version: FORMAT_VERSION,
        owner_pid: files.owner_pid,
        clean,
        next_seq: state.next_seq,
        records: segments.iter().map(|segment| segment.records).sum(),
        disk_bytes: segments.iter().map(|segment| segment.file_bytes).sum(),
        segments,
        readers,
        cursors_fault,
    })
}

/// Reads every record and compares its checksum.
pub fn check(directory: &Path) -> Result<Check, InspectError> {
    let files = Files::find(directory)?;
    let mut check = Check {
        directory: directory.to_owned(),
        id: files.id,
        segments: files.segments.len() as u64,
        records: 0,
        bytes: 0,
        torn_bytes: 0,
        damage: Vec::new(),
        damage_count: 0,
        lost_records: 0,
        cursors_fault: files.cursors.as_ref().err().cloned(),
    };
    let mut next_seq = 1;
    for (at, file) in files.segments.iter().enumerate() {
        let below_seq = files.below_seq(at);
        let seal = read_seal(&*file.file, &files.id, file.length).filter(|(_, seal)| seal.next_seq <= below_seq);
        let name = segment_name(file.number);
        let mut damage = Vec::new();
        if file.header.is_err() {
            damage.push(Damage {
                segment: name.clone(),
                offset: 0,
                bytes: SEGMENT_HEADER_BYTES as u64,
                lost_records: 0,
                acknowledged: false,
            });
        }
        let (segment, rest) = file.walk(&files.id, next_seq, below_seq, Bodies::Check, |found| {
            damage.push(found)
        });
        match (seal, rest) {
            // The seal says how far the segment went.
            (Some((data_end, seal)), _) if seal.next_seq > segment.next_seq => damage.push(Damage {
                segment: name,
                offset: segment.data_end,
                bytes: data_end.saturating_sub(segment.data_end),
                lost_records: seal.next_seq - segment.next_seq,
                acknowledged: true,
            }),
            (None, Rest::Torn { bytes }) => check.torn_bytes += bytes,
            _ => {}
        }
        for found in damage {
            check.damage_count += 1;
            check.lost_records += found.lost_records;
            if check.damage.len() < DAMAGE_LIMIT {
                check.damage.push(found);
            }
        }
        check.records += segment.summary.records();
        check.bytes += segment.data_end;
        next_seq = segment.next_seq;
    }
    Ok(check)
}

impl From<&crate::format::StreamSummary> for StreamInfo {
    fn from(summary: &crate::format::StreamSummary) -> StreamInfo {
        StreamInfo {
            stream: summary.stream.to_string(),
            records: summary.records,
            bytes: summary.bytes,
            first_unix_nano: summary.first_unix_nano,
            last_unix_nano: summary.last_unix_nano,
        }
    }
}

pub(crate) struct SegmentFile {
    pub(crate) number: u64,
    pub(crate) length: u64,
    pub(crate) file: std::sync::Arc<dyn DiskFile>,
    pub(crate) header: Result<SegmentHeader, String>,
}

impl SegmentFile {
    fn segment(&self, next_seq: Seq, sealed_next_seq: Seq, data_end: u64, summary: Summary) -> Segment {
        let first_seq = self.header.as_ref().map_or(next_seq, |header| header.first_seq);
        Segment {
            number: self.number,
            first_seq,
            next_seq: sealed_next_seq.max(first_seq),
            data_end,
            file_bytes: self.length,
            summary,
        }
    }

    fn walk(
        &self,
        id: &JournalId,
        next_seq: Seq,
        below_seq: Seq,
        bodies: Bodies,
        mut damage: impl FnMut(Damage),
    ) -> (Segment, Rest) {
        let mut segment = self.segment(next_seq, 0, SEGMENT_HEADER_BYTES as u64, Summary::default());
        let extent = Extent::whole(self.length, segment.first_seq, below_seq);
        let mut walk = Walk::new(&*self.file, *id, extent, bodies);
        let mut broken: Option<(u64, u64)> = None;
        let mut unfinished = Unfinished::default();
        loop {
            match walk.step() {
                Step::Record { head, stream, .. } => {
                    if let Some((offset, bytes)) = broken.take() {
                        let lost_records = head.seq.saturating_sub(segment.next_seq);
                        let acknowledged = head.acked_below > segment.next_seq;
                        damage(Damage {
                            segment: segment_name(self.number),
                            offset,
                            bytes,
                            lost_records,
                            acknowledged,
                        });
                    }
                    unfinished.found(&head, &segment);
                    segment.next_seq = head.seq + 1;
                    segment.data_end = walk.offset();
                    segment.summary.add(
                        &String::from_utf8_lossy(&stream),
                        head.frame_bytes(),
                        head.appended_at_unix_nano,
                    );
                }
                Step::Damaged { offset, bytes } => {
                    let so_far = broken.get_or_insert((offset, 0));
                    so_far.1 = offset + bytes - so_far.0;
                }
                Step::End { rest, .. } => {
                    let rest = match (broken, rest) {
                        (Some((_, bytes)), Rest::Nothing | Rest::Torn { .. }) => Rest::Torn { bytes },
                        _ => rest,
                    };
                    let rest = match (unfinished.cut(&mut segment), rest) {
                        (0, rest) => rest,
                        (cut, Rest::Torn { bytes }) => Rest::Torn { bytes: bytes + cut },
                        (cut, Rest::Nothing | Rest::Sealed) => Rest::Torn { bytes: cut },
                    };
                    return (segment, rest);
                }
            }
        }
    }
}

pub(crate) struct Files {
    pub(crate) id: JournalId,
    owner_pid: Option<u32>,
    pub(crate) segments: Vec<SegmentFile>,
    cursors: Result<Cursors, String>,
}

impl Files {
    pub(crate) fn find(directory: &Path) -> Result<Files, InspectError> {
        let io_error = |path: PathBuf| move |source| InspectError::Io { path, source };
        let not_a_journal = || InspectError::NotAJournal {
            path: directory.to_owned(),
        };
        let names = match RealDisk.list(directory) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(not_a_journal());
            }
            names => names.map_err(io_error(directory.to_owned()))?,
        };
        let cursors = match Cursors::read(&RealDisk, directory) {
            Ok(cursors) => Ok(cursors),
            Err(CursorFault::Newer(found)) => {
                return Err(InspectError::NewerVersion {
                    path: directory.join(CURSOR_FILE),
                    found,
                    known: CURSOR_VERSION,
                });
            }
            Err(CursorFault::Missing) => Err("the file of reader positions is missing".to_owned()),
            Err(CursorFault::Corrupt(what)) => Err(format!("the file of reader positions is damaged: {what}")),
            Err(CursorFault::Io(error)) => Err(format!("the file of reader positions cannot be read: {error}")),
        };
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
        numbers.sort_unstable();
        let mut segments = Vec::new();
        for number in numbers {
            let path = directory.join(segment_name(number));
            let file = match RealDisk.open(&path, Open::Read) {
                // Its owner removed it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file.map_err(io_error(path.clone()))?,
            };
            let length = file.length().map_err(io_error(path.clone()))?;
            let mut bytes = [0; SEGMENT_HEADER_BYTES];
            let read = file.read_at(&mut bytes, 0).map_err(io_error(path.clone()))?;
            let header = match SegmentHeader::decode(&bytes[..read]) {
                Ok(header) => Ok(header),
                Err(HeaderFault::Newer(found)) => {
                    return Err(InspectError::NewerVersion {
                        path,
                        found,
                        known: FORMAT_VERSION,
                    });
                }
                Err(HeaderFault::NotOurs) => Err("it does not begin like a journal segment".to_owned()),
                Err(HeaderFault::Corrupt) => Err("its header's checksum does not match".to_owned()),
            };
            segments.push(SegmentFile {
                number,
                length,
                file,
                header,
            });
        }
        let from_header = segments
            .iter()
            .find_map(|file| file.header.as_ref().ok())
            .map(|header| header.id);
        let id = from_header
            .or(cursors.as_ref().ok().map(|cursors| cursors.id))
            .ok_or_else(not_a_journal)?;
        let owner = std::fs::read_to_string(directory.join(LOCK_FILE)).unwrap_or_default();
        let owner_pid = owner.trim().parse().ok().filter(|pid: &u32| is_running(*pid));
        Ok(Files {
            id,
            owner_pid,
            segments,
            cursors,
        })
    }

    pub(crate) fn below_seq(&self, at: usize) -> Seq {
        let later = self.segments[at + 1..]
            .iter()
            .find_map(|file| file.header.as_ref().ok());
        later.map_or(Seq::MAX, |header| header.first_seq)
    }
}

/// A process that was killed leaves its number in the lock file; where there is no `/proc`, that is believed.
fn is_running(pid: u32) -> bool {
    !Path::new("/proc/self").exists() || Path::new(&format!("/proc/{pid}")).exists()
}
