//! Reads a segment frame by frame and finds the way again behind damage: recovery, lagging readers and the read-only
//! inspection all see the same records, because all of them walk.

use std::io;

use bytes::Bytes;

use crate::disk::DiskFile;
use crate::format::Summary;
use crate::format::{ALIGN_BYTES, FRAME_MARKER, HEAD_BYTES, Head, Kind, SEGMENT_HEADER_BYTES, body_crc};
use crate::settings::{JournalId, STREAM_NAME_LIMIT_BYTES, Seq};
use crate::state::Segment;

/// How much is read at once when payloads are wanted: a few records of the usual size.
const WINDOW_BYTES: usize = 512 << 10;
/// How much is read at once when only heads are wanted: a page or two of small records, little waste for large ones.
const HEADS_WINDOW_BYTES: usize = 16 << 10;
/// What is read at once around a place that the disk cannot read: its usual unit of failure.
const SECTOR_BYTES: usize = 4096;

const ZEROS: [u8; ALIGN_BYTES as usize] = [0; ALIGN_BYTES as usize];

/// Where to walk.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    /// A frame's start.
    pub from: u64,
    /// Nothing at or behind this is looked at.
    pub end: u64,
    /// A frame's sequence number is at least this…
    pub min_seq: Seq,
    /// …and below this: what an abandoned segment holds beyond it was written again in the next.
    pub below_seq: Seq,
}

impl Extent {
    pub(crate) fn whole(length: u64, first_seq: Seq, below_seq: Seq) -> Extent {
        Extent {
            from: SEGMENT_HEADER_BYTES as u64,
            end: length,
            min_seq: first_seq,
            below_seq,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A record. With [`Bodies::Skip`] its body is neither read nor checked, and both slices are empty.
    Record {
        offset: u64,
        head: Head,
        stream: Bytes,
        header: Bytes,
        payload: Bytes,
    },
    /// Nothing usable from here to the next frame.
    Damaged { offset: u64, bytes: u64 },
    /// Behind the last record: by a seal, by zeros, or by the end of the file.
    End { offset: u64, rest: Rest },
}

/// What lies behind the last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    Sealed,
    Nothing,
    /// Bytes that are no frame, with no frame behind them: a write that did not finish.
    Torn {
        bytes: u64,
    },
}

/// Finds what was appended together and is not whole at the end of a segment: a disk may have kept any part of a write that did not finish.
#[derive(Default)]
pub(crate) struct Unfinished {
    /// Before the first of those whose last has not come yet.
    open: Option<Place>,
    /// Bundles with a hole: the number that is missing, and the place before the bundle. While nothing behind it says that the number had been acknowledged,
    /// neither it nor anything behind it was.
    holes: Vec<(Seq, Place)>,
}

/// How far a segment went.
#[derive(Clone)]
struct Place {
    next_seq: Seq,
    data_end: u64,
    summary: Summary,
}

impl Unfinished {
    /// A record has been found; `segment` does not count it yet.
    pub(crate) fn found(&mut self, head: &Head, segment: &Segment) {
        let here = || Place {
            next_seq: segment.next_seq,
            data_end: segment.data_end,
            summary: segment.summary.clone(),
        };
        if head.seq > segment.next_seq && (head.follows || self.open.is_some()) {
            self.holes
                .push((segment.next_seq, self.open.take().unwrap_or_else(here)));
        }
        self.holes.retain(|(missing, _)| head.acked_below <= *missing);
        match head.more_follow {
            true if self.open.is_none() => self.open = Some(here()),
            true => {}
            false => self.open = None,
        }
    }

    /// Nothing more will come: what is not whole is cut off, with what lies behind it. Returns how many bytes that were.
    pub(crate) fn cut(self, segment: &mut Segment) -> u64 {
        let first_hole = self.holes.into_iter().next().map(|(_, place)| place);
        let Some(place) = first_hole.or(self.open) else {
            return 0;
        };
        let bytes = segment.data_end - place.data_end;
        (segment.next_seq, segment.data_end, segment.summary) = (place.next_seq, place.data_end, place.summary);
        bytes
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bodies {
    Check,
    Skip,
}

pub(crate) struct Walk<'a> {
    file: &'a dyn DiskFile,
    id: JournalId,
    extent: Extent,
    bodies: Bodies,
    window: Bytes,
    window_at: u64,
    /// Whether the disk failed to read somewhere; what it did not give counts as zeros.
    pub unreadable: Option<io::ErrorKind>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(file: &'a dyn DiskFile, id: JournalId, extent: Extent, bodies: Bodies) -> Walk<'a> {
        Walk {
            file,
            id,
            extent,
            bodies,
            window: Bytes::new(),
            window_at: 0,
            unreadable: None,
        }
    }

    /// Where the next frame is looked for.
    pub(crate) fn offset(&self) -> u64 {
        self.extent.from
    }

    pub(crate) fn step(&mut self) -> Step {
        let offset = self.extent.from;
        let Some((head, stream)) = self.head_at(offset) else {
            return self.resynchronise(offset);
        };
        if head.kind == Kind::Seal {
            return Step::End {
                offset,
                rest: Rest::Sealed,
            };
        }
        let frame_bytes = head.frame_bytes();
        self.extent.from = offset + frame_bytes;
        self.extent.min_seq = head.seq + 1;
        if self.bodies == Bodies::Skip {
            return Step::Record {
                offset,
                head,
                stream,
                header: Bytes::new(),
                payload: Bytes::new(),
            };
        }
        let start = HEAD_BYTES + stream.len();
        let middle = start + head.header_bytes as usize;
        let end = middle + head.payload_bytes as usize;
        let frame = self.bytes_at(offset, end);
        if frame.len() < end || body_crc(&frame[start..middle], &frame[middle..end]) != head.body_crc {
            return Step::Damaged {
                offset,
                bytes: frame_bytes,
            };
        }
        Step::Record {
            offset,
            head,
            stream,
            header: frame.slice(start..middle),
            payload: frame.slice(middle..end),
        }
    }

    /// A frame's head, if there is one here that may be here.
    fn head_at(&mut self, offset: u64) -> Option<(Head, Bytes)> {
        let bytes = self.bytes_at(offset, HEAD_BYTES + STREAM_NAME_LIMIT_BYTES);
        let head = Head::decode(&self.id, &bytes)?;
        let fits = offset + head.frame_bytes() <= self.extent.end;
        let ours = match head.kind {
            Kind::Record => head.seq >= self.extent.min_seq && head.seq < self.extent.below_seq,
            Kind::Seal => head.seq >= self.extent.min_seq && head.seq <= self.extent.below_seq,
        };
        (fits && ours).then(|| {
            (
                head,
                bytes.slice(HEAD_BYTES..HEAD_BYTES + usize::from(head.stream_bytes)),
            )
        })
    }

    /// Looks for the next frame behind a place that holds none.
    fn resynchronise(&mut self, offset: u64) -> Step {
        let mut at = offset;
        let mut last_written = None;
        while at < self.extent.end {
            let window = self.bytes_at(at, WINDOW_BYTES);
            if window.is_empty() {
                break;
            }
            for (place, word) in window.chunks(ALIGN_BYTES as usize).enumerate() {
                // Most of what is searched is reserved space, which reads as zeros.
                if word == ZEROS || word.iter().all(|&byte| byte == 0) {
                    continue;
                }
                let here = at + place as u64 * ALIGN_BYTES;
                last_written = Some(here + word.len() as u64);
                if here > offset && word.starts_with(&FRAME_MARKER) && self.head_at(here).is_some() {
                    self.extent.from = here;
                    return Step::Damaged {
                        offset,
                        bytes: here - offset,
                    };
                }
            }
            at += (window.len() as u64).next_multiple_of(ALIGN_BYTES);
        }
        let rest = match last_written {
            Some(end) => Rest::Torn { bytes: end - offset },
            None => Rest::Nothing,
        };
        Step::End { offset, rest }
    }

    /// Up to `wanted` bytes from `offset`, fewer where the extent or the file ends.
    fn bytes_at(&mut self, offset: u64, wanted: usize) -> Bytes {
        let wanted = (self.extent.end.saturating_sub(offset)).min(wanted as u64) as usize;
        let within = offset
            .checked_sub(self.window_at)
            .filter(|&start| start + wanted as u64 <= self.window.len() as u64);
        if let Some(start) = within {
            return self.window.slice(start as usize..start as usize + wanted);
        }
        let size = match self.bodies {
            Bodies::Check => WINDOW_BYTES,
            Bodies::Skip => HEADS_WINDOW_BYTES,
        };
        let size = self.extent.end.saturating_sub(offset).min(size.max(wanted) as u64) as usize;
        let mut buffer = vec![0; size];
        let read = match self.file.read_at(&mut buffer, offset) {
            Ok(read) => read,
            Err(error) => {
                self.unreadable = Some(error.kind());
                self.read_around(&mut buffer, offset)
            }
        };
        buffer.truncate(read);
        self.window = Bytes::from(buffer);
        self.window_at = offset;
        self.window.slice(..wanted.min(self.window.len()))
    }

    /// Reads sector by sector what can be read, so that one bad sector costs one record.
    fn read_around(&self, buffer: &mut [u8], offset: u64) -> usize {
        let size = buffer.len();
        let mut at = 0;
        while at < size {
            let sector_end = (offset + at as u64 + 1).next_multiple_of(SECTOR_BYTES as u64) - offset;
            let piece = &mut buffer[at..size.min(sector_end as usize)];
            match self.file.read_at(piece, offset + at as u64) {
                Ok(read) if read < piece.len() => return at + read,
                Ok(_) => {}
                Err(_) => piece.fill(0),
            }
            at = sector_end as usize;
        }
        size
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::disk::{Disk, Open};
    use crate::simulated::SimulatedDisk;

    const ID: JournalId = JournalId([3; 16]);

    fn segment(random: &mut fastrand::Rng, records: u64) -> (Vec<u8>, Vec<(Seq, Vec<u8>)>) {
        let mut bytes = vec![0; SEGMENT_HEADER_BYTES];
        let mut written = Vec::new();
        for seq in 1..=records {
            let payload: Vec<u8> = (0..random.usize(0..300)).map(|_| random.u8(..)).collect();
            let head = Head {
                body_crc: body_crc(b"h", &payload),
                seq,
                appended_at_unix_nano: 1,
                acked_below: seq,
                payload_bytes: payload.len() as u32,
                header_bytes: 1,
                stream_bytes: 4,
                kind: Kind::Record,
                follows: false,
                more_follow: false,
            };
            head.encode(&ID, b"logs", &mut bytes);
            bytes.push(b'h');
            bytes.extend_from_slice(&payload);
            bytes.resize(bytes.len().next_multiple_of(ALIGN_BYTES as usize), 0);
            written.push((seq, payload));
        }
        bytes.resize(bytes.len() + random.usize(0..2000), 0);
        (bytes, written)
    }

    fn file(bytes: &[u8]) -> Arc<dyn DiskFile> {
        let file = SimulatedDisk::new(1).open(Path::new("/segment"), Open::New).unwrap();
        file.write_at(&mut [IoSlice::new(bytes)], 0).unwrap();
        file
    }

    fn read(bytes: &[u8], bodies: Bodies) -> (Vec<(Seq, Vec<u8>)>, u64) {
        let file = file(bytes);
        let mut walk = Walk::new(&*file, ID, Extent::whole(bytes.len() as u64, 1, Seq::MAX), bodies);
        let (mut found, mut damaged) = (Vec::new(), 0);
        loop {
            match walk.step() {
                Step::Record { head, payload, .. } => found.push((head.seq, payload.to_vec())),
                Step::Damaged { bytes, .. } => damaged += bytes,
                Step::End {
                    rest: Rest::Torn { bytes },
                    ..
                } => return (found, damaged + bytes),
                Step::End { .. } => return (found, damaged),
            }
        }
    }

    #[test]
    fn a_sound_segment_gives_every_record_and_reports_nothing() {
        let mut random = fastrand::Rng::with_seed(5);
        let (bytes, written) = segment(&mut random, 40);
        assert_eq!(read(&bytes, Bodies::Check), (written.clone(), 0));
        let heads: Vec<Seq> = read(&bytes, Bodies::Skip).0.into_iter().map(|(seq, _)| seq).collect();
        assert_eq!(heads, written.into_iter().map(|(seq, _)| seq).collect::<Vec<_>>());
    }

    #[test]
    fn whatever_is_done_to_a_segment_only_what_was_written_is_read_and_in_order() {
        for seed in 0..300 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut bytes, written) = segment(&mut random, 30);
            for _ in 0..random.usize(1..5) {
                let (from, to) = (random.usize(0..bytes.len()), random.usize(0..bytes.len()));
                let count = random.usize(0..600).min(bytes.len() - from.max(to));
                match random.u8(0..5) {
                    0 => bytes[from..from + count].fill(0),
                    1 => bytes[from..from + count]
                        .iter_mut()
                        .for_each(|byte| *byte = random.u8(..)),
                    // A write that went to the wrong place.
                    2 => bytes.copy_within(from..from + count, to),
                    3 => bytes.truncate(from.max(1)),
                    _ => bytes[from] ^= 1 << random.u8(0..8),
                }
            }
            let (found, _) = read(&bytes, Bodies::Check);
            assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0), "seed {seed}");
            assert!(found.iter().all(|record| written.contains(record)), "seed {seed}");
        }
    }

    #[test]
    fn a_payload_that_imitates_a_record_of_another_journal_is_not_taken_for_one() {
        let mut random = fastrand::Rng::with_seed(9);
        let (mut bytes, written) = segment(&mut random, 3);
        let mut imitation = Vec::new();
        let head = Head {
            body_crc: body_crc(&[], &[]),
            seq: 9,
            appended_at_unix_nano: 1,
            acked_below: 9,
            payload_bytes: 0,
            header_bytes: 0,
            stream_bytes: 4,
            kind: Kind::Record,
            follows: false,
            more_follow: false,
        };
        head.encode(&JournalId([4; 16]), b"logs", &mut imitation);
        bytes.extend_from_slice(&imitation);
        let (found, damaged) = read(&bytes, Bodies::Check);
        assert_eq!(found, written);
        assert!(damaged >= imitation.len() as u64);
    }
}
