//! How bytes become durable and are read again.
//!
//! *What*: one write-ahead log for all streams of a process. Records are appended in groups, made durable, acknowledged,
//! and read by any number of named readers, each with its own position that outlives the process.
//! *In*: records of opaque bytes with a stream's name; a directory; a [`Disk`].
//! *Out*: a callback per record once it is durable; deliveries in order per reader; statistics; read-only inspection.
//! *Invariants*: a record is acknowledged only when it is as durable as [`Fsync`] says; sequence numbers ascend and are
//! never used twice; a reader gets each record of its stream at least once and, while the process runs, once; what is
//! removed before a reader acknowledged it is counted for that reader; every queue and cache has a named bound.

mod backlog;
mod clock;
mod commit;
mod cursors;
mod disk;
mod error;
mod format;
mod inspect;
mod journal;
mod ranges;
mod reader;
mod records;
mod recovery;
mod seek;
mod settings;
mod shared;
pub mod simulated;
#[cfg(test)]
mod simulation;
mod state;
mod status;
mod verify;
mod walk;

pub use clock::{Clock, SystemClock};
pub use disk::{Disk, DiskFile, Lock, Locked, Open, RealDisk};
pub use error::{AppendError, FullReason, OpenError, ReaderError, TooLarge};
pub use format::FORMAT_VERSION;
pub use inspect::{Check, InspectError, Inspection, SegmentInfo, StreamInfo, check, inspect};
pub use journal::Journal;
pub use ranges::Ranges;
pub use reader::{Acker, Reader};
pub use records::{Found, Passed, Range, records};
pub use settings::*;
pub use status::{DAMAGE_LIMIT, Damage, Health, ReaderStatus, Recovery, Stats};
