//! What the journal says about itself: plain values that serialise, for health, the command line and the status page.

use serde::Serialize;

use crate::Ranges;
use crate::error::FullReason;
use crate::settings::{JournalId, OnFull, Seq};

/// How many damaged places are listed one by one; beyond this they are only counted.
pub const DAMAGE_LIMIT: usize = 1000;

/// Whether appends are taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "health")]
pub enum Health {
    Good,
    /// At a bound; goes on by itself once a reader moves or space is freed.
    Refusing {
        reason: FullReason,
    },
    /// The disk failed twice in a row: nothing is taken until a restart.
    Failed {
        what: String,
    },
}

/// A place in a segment file that holds no usable record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The file's name within the journal's directory.
    pub segment: String,
    pub offset: u64,
    pub bytes: u64,
    /// How many records were there, from the gap in the numbers.
    pub lost_records: u64,
    /// Whether those were certainly acknowledged; a crash leaves such places behind for records that were not.
    pub acknowledged: bool,
}

/// A reader and how far it is behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReaderStatus {
    pub name: String,
    pub stream: String,
    pub on_full: OnFull,
    /// Whether somebody has it open.
    pub attached: bool,
    pub orphan_since_unix_nano: Option<u64>,
    pub acked: Ranges,
    /// Records of its stream that it has not acknowledged, and what they take on disk.
    pub lag_records: u64,
    pub lag_bytes: u64,
    /// Of those, how many were delivered.
    pub in_flight_records: u64,
    /// The oldest of them was appended at this time, or a little later when it lies on disk unread.
    pub oldest_unix_nano: Option<u64>,
    /// Removed by a bound before it was acknowledged.
    pub skipped_records: u64,
    pub skipped_bytes: u64,
    /// Unreadable on disk.
    pub lost_records: u64,
}

/// What opening found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recovery {
    pub id: JournalId,
    /// Whether the directory held no journal before.
    pub created: bool,
    /// Whether the last process closed it.
    pub clean: bool,
    pub segments: u64,
    pub records: u64,
    /// The next record gets this number.
    pub next_seq: Seq,
    /// Bytes of a write that did not finish, cut off.
    pub torn_bytes: u64,
    pub damage: Vec<Damage>,
    pub damage_count: u64,
    /// What happened to the stored reader positions, if they could not be used.
    pub cursors_lost: Option<String>,
    pub readers: Vec<ReaderStatus>,
}

/// Counters since the journal was opened, and what it holds now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stats {
    pub id: JournalId,
    pub next_seq: Seq,
    pub segments: u64,
    pub disk_bytes: u64,
    pub oldest_unix_nano: Option<u64>,
    pub queue_bytes: u64,
    pub memory_bytes: u64,
    pub appended_records: u64,
    pub appended_bytes: u64,
    pub refused_records: u64,
    pub groups: u64,
    pub syncs: u64,
    pub damage_count: u64,
    /// Segments of earlier runs that are still to be read through in the background.
    pub unverified_segments: u64,
    #[serde(flatten)]
    pub health: Health,
}
