//! What can go wrong, one enum per operation, each saying where and what to do.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process writes here.
    #[error("the store at {} is in use by process {pid}; stop it or choose another data directory", dir.display())]
    InUse {
        /// The store's directory.
        dir: PathBuf,
        /// What the other process wrote into the lock file.
        pid: String,
    },
    /// The directory cannot be written.
    #[error("the store's directory {} cannot be written ({source}); make it writable or choose another data directory", dir.display())]
    ReadOnly {
        /// The store's directory.
        dir: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// No space is left.
    #[error("no space is left for the store at {} ({source}); free some or choose another data directory", dir.display())]
    Full {
        /// The store's directory.
        dir: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// A newer version wrote it.
    #[error("the store at {} was written by a newer version (format {found}, this program knows {known}); use that version, or another data directory", dir.display())]
    Newer {
        /// The store's directory.
        dir: PathBuf,
        /// Format number found.
        found: u32,
        /// Newest format number this program knows.
        known: u32,
    },
    /// The catalog cannot be read: which file, and what is wrong with it.
    #[error("the catalog file {} is damaged: {what}", path.display())]
    Catalog {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// Any other failure of the file system.
    #[error("cannot {doing} {} ({source}); clear the way or choose another data directory", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

/// Why rows were not taken. Nothing of the call was taken.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Memory is full because flushing does not keep up or fails; the last failure, if there was one.
    #[error("the store holds {held_bytes} bytes of unwritten rows, its bound is {bound_bytes}{}; try again in {} ms", last_failure.as_ref().map(|f| format!(" (last write failed: {f})")).unwrap_or_default(), retry_after.as_millis())]
    Full {
        /// Bytes held now.
        held_bytes: u64,
        /// The bound.
        bound_bytes: u64,
        /// When to try again.
        retry_after: Duration,
        /// Why the last flush failed, when it did.
        last_failure: Option<String>,
    },
    /// The batch is of a signal that the store does not keep.
    #[error("the store keeps traces and logs, not {0}")]
    Signal(&'static str),
    /// The payload is not the canonical form that the door promises.
    #[error("a batch of {items} items is not canonical: {what}")]
    Malformed {
        /// Items that the batch says it has.
        items: u32,
        /// What the view said.
        what: String,
    },
    /// The writer was closed.
    #[error("the store is closed")]
    Closed,
}

/// Why rows in memory are not yet in parts. They stay in memory and queryable; the same call may be tried again.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// The file system refused.
    #[error("cannot {doing} {}: {source}; the rows stay in memory and are written again later", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// Something read while merging was damaged.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The writer was closed.
    #[error("the store is closed")]
    Closed,
}

/// Why a query did not get an answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The one who asked no longer wants the answer.
    #[error("the read was given up before its end")]
    Stopped,
    /// The file system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// A part does not hold what its checksums promise.
    #[error("the part {} is damaged at byte {offset}: {what}; it is set aside, the rest is served", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong.
        what: String,
    },
}
