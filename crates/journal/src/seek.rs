//! Finds the place from which a reader goes on, and counts what lies before it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::Ranges;
use crate::disk::{Disk, Open};
use crate::format::{SEGMENT_HEADER_BYTES, segment_name};
use crate::state::{Amount, Position, Seek, Segment, State};
use crate::walk::{Bodies, Extent, Step, Walk};

/// Segments that are wholly unacknowledged are counted from their summaries; only those that a boundary runs through
/// are walked, by their heads.
pub(crate) fn seek(disk: &dyn Disk, directory: &Path, state: &State, stream: &str, acked: Ranges) -> io::Result<Seek> {
    // A number that was not given out yet cannot be done, whoever says so.
    let acked = acked.below_only(state.next_seq);
    let low = acked.low();
    let mut position = None;
    let mut undelivered = BTreeMap::new();
    for segment in state.segments.iter().filter(|segment| segment.next_seq > low) {
        let touched = low > segment.first_seq
            || acked
                .ranges()
                .iter()
                .any(|&(first, last)| first < segment.next_seq && last >= segment.first_seq);
        let mut offset = SEGMENT_HEADER_BYTES as u64;
        let mut amount = Amount::default();
        if touched {
            (offset, amount) = walk(disk, directory, state, segment, stream, &acked, low)?;
        } else if let Some(summary) = segment.summary.of(stream) {
            amount = Amount {
                records: summary.records,
                bytes: summary.bytes,
            };
        }
        position.get_or_insert(Position {
            seq: low.max(segment.first_seq),
            segment: segment.number,
            offset,
        });
        if amount.records > 0 {
            undelivered.insert(segment.number, amount);
        }
    }
    let at_head = || {
        let last = state.segments.back();
        let (segment, offset) = last.map_or((0, 0), |last| (last.number, last.data_end));
        Position {
            seq: state.next_seq,
            segment,
            offset,
        }
    };
    Ok(Seek {
        position: position.unwrap_or_else(at_head),
        undelivered,
        acked,
    })
}

/// Where the first record at or above `low` starts, and what from there on is of the stream and not acknowledged.
fn walk(
    disk: &dyn Disk,
    directory: &Path,
    state: &State,
    segment: &Segment,
    stream: &str,
    acked: &Ranges,
    low: u64,
) -> io::Result<(u64, Amount)> {
    let file = disk.open(&directory.join(segment_name(segment.number)), Open::Read)?;
    let extent = Extent::whole(segment.data_end, segment.first_seq, segment.next_seq);
    let mut walk = Walk::new(&*file, state.id, extent, Bodies::Skip);
    let mut from = None;
    let mut amount = Amount::default();
    loop {
        match walk.step() {
            Step::Record {
                offset,
                head,
                stream: found,
                ..
            } => {
                if head.seq < low {
                    continue;
                }
                from.get_or_insert(offset);
                if found == stream.as_bytes() && !acked.contains(head.seq) {
                    amount.add(head.frame_bytes());
                }
            }
            Step::Damaged { .. } => {}
            Step::End { offset, .. } => return Ok((from.unwrap_or(offset), amount)),
        }
    }
}
