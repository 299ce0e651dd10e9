//! What a journal is opened with and what is appended to it, with every bound that is not a setting named beside it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The position of a record: shared by all streams of a journal, ascending without gaps while a process runs, never
/// used twice. The first record of a journal is 1. After a stop that was not orderly, numbering goes on above every
/// number that could have been given out before.
pub type Seq = u64;

/// The longest stream name: a pipeline's and a component's, and it fits one byte in a record's head.
pub const STREAM_NAME_LIMIT_BYTES: usize = 160;
/// The longest reader name: it is shown in tables and written on a line of the cursor file.
pub const READER_NAME_LIMIT_BYTES: usize = 256;
/// The longest opaque header: it holds a batch's metadata, not data.
pub const HEADER_LIMIT_BYTES: usize = 1 << 20;
/// The longest payload: twice what a door accepts in one request by default.
pub const PAYLOAD_LIMIT_BYTES: usize = 128 << 20;
/// What may wait for the commit thread, in bytes of records: at a slow 200 MB/s disk this is a sixth of a second.
pub const APPEND_QUEUE_BYTES: usize = 32 << 20;
/// What a record counts for in memory beside its bytes: its place in a queue, its callback, its head. With it, the
/// bounds in bytes hold for tiny records too.
pub const RECORD_OVERHEAD_BYTES: usize = 256;
/// What is kept in memory for readers near the head: half a queue, so that a reader may lag one group behind the disk.
pub const MEMORY_BYTES: usize = 16 << 20;
/// How many records a reader may hold unacknowledged before it is given no more; 24 bytes of memory each.
pub const UNACKED_LIMIT_RECORDS: usize = 1 << 20;
/// How long cursors may stay unwritten after an acknowledgement: losing them costs one re-delivery of that much.
pub const CURSOR_DELAY: Duration = Duration::from_secs(1);
/// What a refused sender is told to wait when the append queue is full: the queue drains within this.
pub const RETRY_AFTER_QUEUE: Duration = Duration::from_secs(1);
/// What a refused sender is told to wait when the disk or the journal's bound is full: a reader has to move first.
pub const RETRY_AFTER_FULL: Duration = Duration::from_secs(5);
/// The smallest segment: below this, file creation outweighs writing.
pub const SEGMENT_LIMIT_MIN_BYTES: u64 = 16 << 10;
/// The largest segment: what one can hold must stay below the jump in numbering after a crash.
pub const SEGMENT_LIMIT_MAX_BYTES: u64 = 512 << 20;
/// How far records that are appended together may exceed `max_bytes`, in segments: who appends so gives back by it what it has read, and must not wait
/// for room that only it can make.
pub const RELIEF_SEGMENTS: u64 = 2;
/// How many segments the size bound is cut into at least, since space is given back by whole segments.
pub const SEGMENTS_PER_BOUND: u64 = 8;

/// When an append counts as durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Acknowledged after `fdatasync`. Survives the loss of power.
    Always,
    /// Acknowledged once written, synchronised at most this much later. Survives the end of the process; the loss of
    /// power may take this much.
    Interval(Duration),
    /// Acknowledged once written; the kernel decides when it reaches the disk.
    Off,
}

/// How a journal is kept.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where its files lie; made if missing. One process at a time.
    pub directory: PathBuf,
    /// All segments together; at this bound each reader's [`OnFull`] decides.
    pub max_bytes: u64,
    /// Records older than this are skipped for readers with [`OnFull::SkipOldest`].
    pub max_age: Option<Duration>,
    /// The size of one file; lowered to an eighth of `max_bytes`, raised for a record that is larger.
    pub segment_bytes: u64,
    pub fsync: Fsync,
    /// What must stay free on the file system; below it appends are refused, and readers of either policy keep what they have.
    pub min_free_bytes: u64,
    /// How long a stored reader that nobody opens keeps its data.
    pub orphan_grace: Duration,
}

impl Settings {
    /// 8 GiB in segments of 64 MiB, `fsync: always`, 256 MiB kept free, a day of grace for orphans.
    pub fn new(directory: impl Into<PathBuf>) -> Settings {
        Settings {
            directory: directory.into(),
            max_bytes: 8 << 30,
            max_age: None,
            segment_bytes: 64 << 20,
            fsync: Fsync::Always,
            min_free_bytes: 256 << 20,
            orphan_grace: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// One entry. The journal looks into neither `header` nor `payload`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose record it is, e.g. `traces/backend`; 1 to [`STREAM_NAME_LIMIT_BYTES`] bytes.
    pub stream: Arc<str>,
    /// Small and opaque.
    pub header: Bytes,
    /// Opaque, compressed by the caller if at all.
    pub payload: Bytes,
}

impl Record {
    /// What its caller handed over, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.stream.len() + self.header.len() + self.payload.len()
    }

    /// What it counts for while it is held in memory.
    pub(crate) fn held_bytes(&self) -> usize {
        self.size_bytes() + RECORD_OVERHEAD_BYTES
    }
}

/// A record as a reader gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub seq: Seq,
    pub record: Record,
    pub appended_at_unix_nano: u64,
}

/// What happens at the journal's bounds while this reader still needs the oldest data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// Appends are refused; nothing of this reader is lost.
    Refuse,
    /// The oldest data is removed, counted as skipped for this reader.
    SkipOldest,
}

/// Where a reader begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// Where it was; at the head if it is new.
    Stored,
    /// After the newest record: it gets only what is appended from now on.
    Head,
    /// At the oldest record that is kept.
    Tail,
    /// These are done (because the reader's own storage says so); everything else that is kept is delivered.
    At(crate::Ranges),
}

#[derive(Debug, Clone)]
pub struct ReaderOptions {
    /// Only records of this stream are delivered; those of others count as acknowledged.
    pub stream: Arc<str>,
    pub on_full: OnFull,
    pub start: Start,
}

/// Random, made with the journal: tells two journals apart that were in the same directory one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JournalId(pub [u8; 16]);

impl JournalId {
    pub(crate) fn random() -> JournalId {
        let mut id = [0; 16];
        fastrand::Rng::new().fill(&mut id);
        JournalId(id)
    }

    pub(crate) fn from_hex(text: &str) -> Option<JournalId> {
        let mut id = [0; 16];
        if text.len() != 32 || !text.is_ascii() {
            return None;
        }
        for (at, byte) in id.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()?;
        }
        Some(JournalId(id))
    }
}

impl fmt::Display for JournalId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for JournalId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "JournalId({self})")
    }
}

impl Serialize for JournalId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
