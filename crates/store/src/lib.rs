//! Durable columnar rows of spans and log records.
//!
//! What: parts are immutable Parquet files of one dataset and one day; fresh rows are answered from memory until they are in a part; a
//! catalog of numbered commits says which parts are live and which journal positions they cover.
//! In: canonical OTLP batches with their journal positions (`Writer::append`).
//! Out: record batches, whole traces, what retention removed of a trace, names of services and operations, statistics (`Reader`).
//! Invariants: a commit names parts and journal ranges together, so that a restart neither loses nor repeats; a query sees one snapshot from
//! its start to its end; a failed write loses nothing in memory; a damaged part is set aside and reported, the rest is served; a damaged file of the
//! catalog is read from its copy.

mod append;
mod arrow;
mod block;
mod catalog;
mod check;
mod classes;
mod column;
mod dataset;
mod directory;
mod disk;
mod encoding;
mod error;
mod filter;
mod flush;
mod frame;
mod json;
mod limit;
mod make;
mod memory;
mod merge;
mod nested;
mod part;
mod part_writer;
mod ranges;
mod reader;
mod removed;
pub mod rows;
mod scan;
mod scanner;
mod select;
mod settings;
mod snapshot;
mod store;
mod texts;
mod thrift;
mod trace_index;
mod upkeep;
mod words;
mod writer;

pub use check::{Problem, Report, check, check_on};
pub use dataset::{DAY_NANOS, Dataset, Day};
pub use disk::{Disk, Entry, FileRead, FileWrite, LockError, RealDisk};
pub use error::{AppendError, FlushError, OpenError, ReadError};
pub use filter::{Field, Filter, Op};
pub use limit::{Found, Limit, Weigh};
pub use memory::{Held, MemoryHeld};
pub use ranges::{Covered, Ranges};
pub use reader::{DatasetStats, Reader, Stats};
pub use removed::{Removal, RemovedStats, Rule};
pub use scan::{Columns, Scan};
pub use scanner::{Groups, Scanner};
pub use settings::{
    APPEND_WAIT, Clock, FLUSH_AFTER, FLUSH_BYTES, FLUSH_ROWS, MEMORY_BYTES, MERGE_BYTES, REMEMBERED_AGE,
    REMEMBERED_BYTES, RETENTION_AGE, Retention, SEAL_AFTER, Settings, Upkeep,
};
pub use snapshot::Quarantined;
pub use store::{FORMAT, Store};
pub use writer::{Ticket, Writer};
