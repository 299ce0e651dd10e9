//! Durable columnar rows of spans and log records.
//!
//! What: parts are immutable Parquet files of one dataset and one day; fresh rows are answered from memory until they are in a part; a
//! catalog of numbered commits says which parts are live and which journal positions they cover.
//! In: canonical OTLP batches with their journal positions (`Writer::append`).
//! Out: record batches, whole traces, names of services and operations, statistics (`Reader`).
//! Invariants: a commit names parts and journal ranges together, so that a restart neither loses nor repeats; a query sees one snapshot from
//! its start to its end; a failed write loses nothing in memory; a damaged part is set aside and reported, the rest is served.

mod dataset;
mod disk;
mod error;
mod filter;
mod scan;
mod settings;

pub use dataset::{DAY_NANOS, Dataset, Day};
pub use disk::{Disk, Entry, FileRead, FileWrite, LockError, RealDisk};
pub use error::{AppendError, FlushError, OpenError, ReadError};
pub use filter::{Field, Filter, Op};
pub use scan::{Columns, Scan};
pub use settings::{
    APPEND_WAIT, Clock, FLUSH_AFTER, FLUSH_BYTES, FLUSH_ROWS, MEMORY_BYTES, RETENTION_AGE, Retention, SEAL_AFTER,
    Settings, Upkeep,
};
