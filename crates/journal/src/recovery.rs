//! Opens a directory: takes the lock, reads what is there, cuts off what a crash left half written, and finds every
//! reader's place. It never appends to a segment of an earlier run: what lies behind a crash cannot be told from what
//! would be written there.

use std::path::Path;
use std::sync::Arc;

use crate::clock::Clock;
use crate::commit::{Engine, Trouble, write_seal};
use crate::cursors::{CURSOR_FILE, CURSOR_VERSION, CursorFault, Cursors};
use crate::disk::{Disk, DiskFile, Locked, Open};
use crate::error::OpenError;
use crate::format::{
    FORMAT_VERSION, HeaderFault, SEGMENT_HEADER_BYTES, Seal, SegmentHeader, Summary, TRAILER_BYTES, segment_name,
    segment_number,
};
use crate::seek::seek;
use crate::settings::*;
use crate::shared::Shared;
use crate::state::{ReaderState, Segment, State};
use crate::status::{Damage, Health, Recovery};
use crate::walk::{Bodies, Extent, Rest, Step, Unfinished, Walk};

pub(crate) const LOCK_FILE: &str = "lock";
/// After a stop that was not orderly, numbers go on this much higher: a reader may have been given, and may have stored,
/// records that the disk then lost, and a number must not mean two things. More records than any segment holds.
pub(crate) const SEQ_JUMP: Seq = 1 << 24;
const _: () = assert!(SEGMENT_LIMIT_MAX_BYTES / (crate::format::HEAD_BYTES as u64) < SEQ_JUMP);

pub(crate) fn open(
    settings: Settings,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
) -> Result<(Arc<Shared>, Engine, Recovery), OpenError> {
    let directory = settings.directory.clone();
    disk.create_dir_all(&directory)
        .map_err(|error| OpenError::io("make the journal directory", &directory, error))?;
    let lock_path = directory.join(LOCK_FILE);
    let held = match disk.lock(&lock_path, &format!("{}\n", std::process::id())) {
        Ok(Locked::Ours(held)) => held,
        Ok(Locked::Theirs(owner)) => {
            return Err(OpenError::InUse {
                path: directory,
                pid: owner.trim().parse().ok(),
            });
        }
        Err(error) => return Err(OpenError::io("lock the journal directory", &directory, error)),
    };
    let stored = match Cursors::read(&*disk, &directory) {
        Ok(stored) => Ok(stored),
        Err(CursorFault::Newer(found)) => {
            return Err(OpenError::NewerVersion {
                path: directory.join(CURSOR_FILE),
                found,
                known: CURSOR_VERSION,
            });
        }
        Err(CursorFault::Io(error)) => return Err(OpenError::io("read", directory.join(CURSOR_FILE), error)),
        Err(CursorFault::Missing) => Err("the file is missing".to_owned()),
        Err(CursorFault::Corrupt(what)) => Err(what.to_owned()),
    };
    let found = find_segments(&*disk, &directory)?;
    let id = identity(&found, stored.as_ref().ok().map(|stored| stored.id), &directory)?;
    let created = found.is_empty() && stored.is_err();
    let last_number = found.last().map_or(0, |last| last.number);
    let (stored, mut cursors_lost) = match stored {
        Ok(stored) if Some(stored.id) == id => (Some(stored), None),
        Ok(stored) => (None, Some(format!("it belongs to journal {}", stored.id))),
        Err(_) if created => (None, None),
        Err(what) => (None, Some(what)),
    };
    let clean = created
        || stored
            .as_ref()
            .is_some_and(|stored| stored.clean_segment == Some(last_number) && last_number > 0);

    let mut state = State::new(id.unwrap_or_else(JournalId::random), 1);
    let mut torn_bytes = 0;
    let mut empty = Vec::new();
    let mut highest_first = 1;
    for (at, file) in found.iter().enumerate() {
        let below_seq = found[at + 1..]
            .iter()
            .find_map(|next| next.header.map(|header| header.first_seq))
            .unwrap_or(Seq::MAX);
        highest_first = highest_first.max(file.header.map_or(1, |header| header.first_seq));
        let torn_before = torn_bytes;
        let segment = recover_segment(
            &directory,
            &mut state,
            file,
            below_seq,
            clock.now_unix_nano(),
            &mut torn_bytes,
        )?;
        if segment.first_seq == segment.next_seq {
            // Behind a header that cannot be read, something was written that nothing of can be read: somebody may want to
            // look at it.
            if file.header.is_none() && torn_bytes > torn_before {
                set_aside(&*disk, &directory, file.number)?;
            } else {
                empty.push(segment.number);
            }
            continue;
        }
        state.next_seq = segment.next_seq;
        state.segments.push_back(segment);
    }
    let found_next = state.next_seq;
    let promised = stored.as_ref().map_or(1, |stored| stored.next_seq);
    if let Some(last) = found.last()
        && promised > found_next.max(highest_first)
    {
        // The cursor file saw numbers go to readers that no segment holds any more.
        let lost_records = promised - found_next.max(highest_first);
        let offset = state.segments.back().map_or(0, |segment| segment.data_end);
        state.note_damage(Damage {
            segment: segment_name(last.number),
            offset,
            bytes: last.length.saturating_sub(offset),
            lost_records,
            acknowledged: true,
        });
    }
    let clean = clean && promised == found_next.max(highest_first);
    let next_seq = found_next.max(highest_first).max(promised) + if clean { 0 } else { SEQ_JUMP };
    let records = state.segments.iter().map(|segment| segment.summary.records()).sum();
    let segments = state.segments.len() as u64;
    state.next_seq = next_seq;
    state.cursors_lost = cursors_lost.is_some();

    let now = clock.now_unix_nano();
    for mut reader in stored.into_iter().flat_map(|stored| stored.readers) {
        reader.orphan_since_unix_nano.get_or_insert(now);
        let seek = seek(&*disk, &directory, &state, &reader.stream, reader.acked.clone())
            .map_err(|error| OpenError::io("find a reader's place in", &directory, error))?;
        let generation = state.next_generation();
        state
            .readers
            .insert(reader.name.clone(), ReaderState::new(&reader, seek, generation));
    }
    let recovery = Recovery {
        id: state.id,
        created,
        clean,
        segments,
        records,
        next_seq,
        torn_bytes,
        damage: state.damage.clone(),
        damage_count: state.damage_count,
        cursors_lost: cursors_lost.take(),
        readers: state
            .readers
            .values()
            .map(|reader| state.reader_status(reader))
            .collect(),
    };
    let shared = Arc::new(Shared::new(settings, disk.clone(), clock, state, held));
    let mut engine = Engine::new(shared.clone(), last_number, next_seq);
    // Before anything is appended the clean mark has to go, and the readers to be known again.
    shared
        .write_cursors(None)
        .map_err(|error| OpenError::io("write", directory.join(CURSOR_FILE), error))?;
    match engine.create_segment(0, false) {
        Ok(()) => {
            for number in empty {
                // The new segment says how far numbers were used; these hold nothing else. One that stays is found again.
                let _ = disk.remove_file(&directory.join(segment_name(number)));
            }
        }
        // What is there can be read and given back, which is what makes room.
        Err(Trouble::Full(reason)) => shared.set_health(Health::Refusing { reason }),
        Err(Trouble::Disk(error)) => return Err(OpenError::io("start a segment in", &directory, error)),
    }
    Ok((shared, engine, recovery))
}

struct Found {
    number: u64,
    length: u64,
    file: Arc<dyn DiskFile>,
    /// None if the header cannot be read; the records behind it may still be good.
    header: Option<SegmentHeader>,
}

fn find_segments(disk: &dyn Disk, directory: &Path) -> Result<Vec<Found>, OpenError> {
    let names = disk
        .list(directory)
        .map_err(|error| OpenError::io("list the journal directory", directory, error))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    let mut found = Vec::with_capacity(numbers.len());
    for number in numbers {
        let path = directory.join(segment_name(number));
        let io = |error| OpenError::io("open", &path, error);
        let file = disk.open(&path, Open::Write).map_err(io)?;
        let length = file.length().map_err(io)?;
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        let read = file.read_at(&mut bytes, 0).unwrap_or(0);
        let header = match SegmentHeader::decode(&bytes[..read]) {
            Ok(header) => Some(header),
            Err(HeaderFault::Newer(found)) => {
                return Err(OpenError::NewerVersion {
                    path,
                    found,
                    known: FORMAT_VERSION,
                });
            }
            Err(HeaderFault::NotOurs | HeaderFault::Corrupt) => None,
        };
        found.push(Found {
            number,
            length,
            file,
            header,
        });
    }
    Ok(found)
}

/// The journal's id: what the segments say, else the cursor file.
fn identity(found: &[Found], stored: Option<JournalId>, directory: &Path) -> Result<Option<JournalId>, OpenError> {
    let mut id = None;
    for file in found {
        let Some(header) = file.header else { continue };
        match id {
            None => id = Some(header.id),
            Some(expected) if expected != header.id => {
                let path = directory.join(segment_name(file.number));
                return Err(OpenError::Foreign {
                    path,
                    found: header.id,
                    expected,
                });
            }
            Some(_) => {}
        }
    }
    Ok(id.or(stored))
}

fn recover_segment(
    directory: &Path,
    state: &mut State,
    found: &Found,
    below_seq: Seq,
    now: u64,
    torn_bytes: &mut u64,
) -> Result<Segment, OpenError> {
    let name = segment_name(found.number);
    let first_seq = found.header.map_or(state.next_seq, |header| header.first_seq);
    let mut segment = Segment {
        number: found.number,
        first_seq,
        next_seq: first_seq,
        data_end: SEGMENT_HEADER_BYTES as u64,
        file_bytes: found.length,
        summary: Summary::default(),
    };
    if let Some((offset, seal)) = read_seal(&*found.file, &state.id, found.length)
        && seal.next_seq <= below_seq
        && found.header.is_some()
    {
        segment.next_seq = seal.next_seq.max(first_seq);
        segment.data_end = offset;
        segment.summary = seal.summary;
        state.unverified.push_back(found.number);
        return Ok(segment);
    }
    let length = found.length;
    let mut walk = Walk::new(
        &*found.file,
        state.id,
        Extent::whole(length, first_seq, below_seq),
        Bodies::Check,
    );
    let mut broken: Option<(u64, u64)> = None;
    let mut unfinished = Unfinished::default();
    let rest = loop {
        match walk.step() {
            Step::Record { head, stream, .. } => {
                if found.header.is_none() && segment.summary.records() == 0 {
                    segment.first_seq = head.seq;
                    segment.next_seq = head.seq;
                }
                if let Some((offset, bytes)) = broken.take() {
                    let lost_records = head.seq - segment.next_seq;
                    let acknowledged = head.acked_below > segment.next_seq;
                    state.note_damage(Damage {
                        segment: name.clone(),
                        offset,
                        bytes,
                        lost_records,
                        acknowledged,
                    });
                }
                unfinished.found(&head, &segment);
                segment.next_seq = head.seq + 1;
                segment.data_end = walk.offset();
                // A name that passed its checksum was a str when it was written.
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
            Step::End { rest, .. } => break rest,
        }
    };
    let torn = match rest {
        Rest::Torn { bytes } => bytes,
        Rest::Nothing | Rest::Sealed => 0,
    };
    let unfinished = unfinished.cut(&mut segment);
    *torn_bytes += unfinished + torn + broken.map_or(0, |(_, bytes)| bytes);
    if found.header.is_none() && (segment.summary.records() > 0 || torn > 0) {
        state.note_damage(Damage {
            segment: name.clone(),
            offset: 0,
            bytes: SEGMENT_HEADER_BYTES as u64,
            lost_records: 0,
            acknowledged: false,
        });
    }
    // A disk that cannot read here today may tomorrow, and a segment without records goes altogether.
    if walk.unreadable.is_none() && found.header.is_some() && segment.summary.records() > 0 {
        let sealed = write_seal(
            &*found.file,
            &state.id,
            segment.data_end,
            segment.next_seq,
            segment.summary.clone(),
            now,
        );
        segment.file_bytes =
            sealed.map_err(|error| OpenError::io("cut off what was half written of", directory.join(&name), error))?;
    }
    Ok(segment)
}

/// The seal, if the segment was closed in order.
pub(crate) fn read_seal(file: &dyn DiskFile, id: &JournalId, length: u64) -> Option<(u64, Seal)> {
    let at = length.checked_sub(TRAILER_BYTES as u64)?;
    let mut trailer = [0; TRAILER_BYTES];
    (file.read_at(&mut trailer, at).ok()? == TRAILER_BYTES).then_some(())?;
    let offset = Seal::offset(id, &trailer)?;
    let mut bytes = vec![0; usize::try_from(at.checked_sub(offset)?).ok()?];
    (file.read_at(&mut bytes, offset).ok()? == bytes.len()).then_some(())?;
    Some((offset, Seal::decode(id, &bytes)?))
}

fn set_aside(disk: &dyn Disk, directory: &Path, number: u64) -> Result<(), OpenError> {
    let path = directory.join(segment_name(number));
    let aside = directory.join(format!("{}.damaged", segment_name(number)));
    tracing::error!(path = %aside.display(), "nothing of a journal segment can be read; it is kept under this name");
    disk.rename(&path, &aside)
        .map_err(|error| OpenError::io("set aside", path, error))
}
