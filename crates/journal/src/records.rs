//! All records of a journal in their order, whether or not their readers have done with them, read beside the process that owns it: what was accepted can
//! be sent again as long as its segment is there.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use crate::inspect::{Files, InspectError};
use crate::recovery::read_seal;
use crate::settings::{JournalId, Record, Seq};
use crate::walk::{Bodies, Extent, Step, Walk};

/// Which records are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// Only records behind this one.
    pub after: Seq,
    /// Only records that were appended then or later, in ns since 1970…
    pub from_unix_nano: u64,
    /// …and up to then.
    pub to_unix_nano: u64,
}

/// A record and where it stands.
#[derive(Debug, Clone)]
pub struct Found {
    pub journal: JournalId,
    pub seq: Seq,
    pub appended_at_unix_nano: u64,
    pub record: Record,
}

/// What a reading came across besides records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed {
    /// Places that were passed over because nothing could be read there.
    pub damaged_places: u64,
}

/// Reads the records of a range, in the order in which they were appended, until `visit` has had enough.
pub fn records(
    directory: &Path,
    range: Range,
    mut visit: impl FnMut(Found) -> ControlFlow<()>,
) -> Result<Passed, InspectError> {
    let files = Files::find(directory)?;
    let mut passed = Passed::default();
    let mut next_seq = 1;
    for (at, file) in files.segments.iter().enumerate() {
        let below_seq = files.below_seq(at);
        let first_seq = file.header.as_ref().map_or(next_seq, |header| header.first_seq);
        next_seq = next_seq.max(first_seq);
        // A sealed segment says when its records came; most need not be read.
        if let Some((_, seal)) =
            read_seal(&*file.file, &files.id, file.length).filter(|(_, seal)| seal.next_seq <= below_seq)
        {
            let mut streams = seal.summary.streams.iter();
            let is_wanted = streams.any(|stream| {
                stream.last_unix_nano >= range.from_unix_nano && stream.first_unix_nano <= range.to_unix_nano
            });
            if !is_wanted || seal.next_seq <= range.after {
                next_seq = seal.next_seq;
                continue;
            }
        }
        let extent = Extent::whole(file.length, first_seq, below_seq);
        let mut walk = Walk::new(&*file.file, files.id, extent, Bodies::Check);
        loop {
            match walk.step() {
                Step::Record {
                    head,
                    stream,
                    header,
                    payload,
                    ..
                } => {
                    next_seq = head.seq + 1;
                    let is_wanted = head.seq > range.after
                        && (range.from_unix_nano..=range.to_unix_nano).contains(&head.appended_at_unix_nano);
                    if !is_wanted {
                        continue;
                    }
                    let found = Found {
                        journal: files.id,
                        seq: head.seq,
                        appended_at_unix_nano: head.appended_at_unix_nano,
                        record: Record {
                            stream: Arc::from(&*String::from_utf8_lossy(&stream)),
                            header,
                            payload,
                        },
                    };
                    if visit(found).is_break() {
                        return Ok(passed);
                    }
                }
                Step::Damaged { .. } => passed.damaged_places += 1,
                Step::End { .. } => break,
            }
        }
    }
    Ok(passed)
}
