//! What a store is opened with: bounds with their units and reasons, and the clock and disk that tests break.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::disk::{Disk, RealDisk};

/// Rows of one dataset held in memory before they become a part: about 6 MB on disk, replayed in well under a second.
pub const FLUSH_ROWS: u64 = 128 * 1024;
/// Memory of one dataset's rows before they become a part.
pub const FLUSH_BYTES: u64 = 32 << 20;
/// How long the oldest row may wait in memory: bounds what a crash has to replay when little arrives.
pub const FLUSH_AFTER: Duration = Duration::from_secs(60);
/// Memory of all chunks, those being flushed included; at this bound `append` waits, then refuses.
pub const MEMORY_BYTES: u64 = 112 << 20;
/// Memory of a merge: the keys of its inputs, the index of its output and a row group of its largest column. Inputs that would need more are merged
/// fewer at a time.
pub const MERGE_BYTES: u64 = 96 << 20;
/// How long `append` waits for memory before it refuses with a retryable error.
pub const APPEND_WAIT: Duration = Duration::from_secs(5);
/// A day is sealed this long after its end, when nearly everything late has arrived.
pub const SEAL_AFTER: Duration = Duration::from_secs(6 * 3600);
/// How long traces and logs are kept unless the configuration says otherwise.
pub const RETENTION_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long after a day a trace of it is still known to have been removed.
pub const REMEMBERED_AGE: Duration = Duration::from_secs(90 * 24 * 3600);
/// What that may take on disk: the fingerprints of about sixty million traces.
pub const REMEMBERED_BYTES: u64 = 256 << 20;

/// How long and how much of one dataset is kept. Whole parts go, oldest day first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Parts whose newest row is older than this go.
    pub age: Duration,
    /// Bytes of all parts of the dataset; `None` is unbounded.
    pub bytes: Option<u64>,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            age: RETENTION_AGE,
            bytes: None,
        }
    }
}

/// Where the time of day comes from: the system, or a test's hand.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Arc::new(|| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
        }))
    }

    /// A clock that a test moves.
    pub fn from_fn(now_unix_nano: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_unix_nano))
    }

    /// Nanoseconds since 1970-01-01 UTC.
    pub fn now_unix_nano(&self) -> u64 {
        (self.0)()
    }
}

/// Who runs flushes, merges, retention and sealing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Upkeep {
    /// Two threads of the store: one flushes, one merges.
    #[default]
    Threads,
    /// The caller, through `Writer::flush` and `Writer::maintain`: deterministic, for simulation.
    ByHand,
}

/// Everything a store is opened with. `Default` is production.
#[derive(Clone)]
pub struct Settings {
    /// Retention of spans.
    pub traces: Retention,
    /// Retention of log records.
    pub logs: Retention,
    /// How long and in how many bytes it is remembered which traces retention removed; the oldest days are forgotten first.
    pub remembered: Retention,
    /// Rows of a dataset in memory before a flush.
    pub flush_rows: u64,
    /// Bytes of a dataset in memory before a flush.
    pub flush_bytes: u64,
    /// Age of the oldest row in memory before a flush.
    pub flush_after: Duration,
    /// Bound of all rows in memory.
    pub memory_bytes: u64,
    /// Bound of a merge's memory.
    pub merge_bytes: u64,
    /// How long `append` waits at that bound before it refuses.
    pub append_wait: Duration,
    /// How long after its end a day is sealed.
    pub seal_after: Duration,
    /// Who does the work in the background.
    pub upkeep: Upkeep,
    /// Time of day.
    pub clock: Clock,
    /// File system.
    pub disk: Arc<dyn Disk>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            traces: Retention::default(),
            logs: Retention::default(),
            remembered: Retention {
                age: REMEMBERED_AGE,
                bytes: Some(REMEMBERED_BYTES),
            },
            flush_rows: FLUSH_ROWS,
            flush_bytes: FLUSH_BYTES,
            flush_after: FLUSH_AFTER,
            memory_bytes: MEMORY_BYTES,
            merge_bytes: MERGE_BYTES,
            append_wait: APPEND_WAIT,
            seal_after: SEAL_AFTER,
            upkeep: Upkeep::default(),
            clock: Clock::system(),
            disk: Arc::new(RealDisk),
        }
    }
}

impl Settings {
    pub(crate) fn retention(&self, dataset: crate::Dataset) -> Retention {
        match dataset {
            crate::Dataset::Traces => self.traces,
            crate::Dataset::Logs => self.logs,
        }
    }
}
