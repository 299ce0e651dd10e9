//! What can go wrong, per operation, worded for the person who has to act on it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::settings::{HEADER_LIMIT_BYTES, PAYLOAD_LIMIT_BYTES, READER_NAME_LIMIT_BYTES, STREAM_NAME_LIMIT_BYTES};

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the journal directory {} is in use by {}; stop it, or give this one another directory", path.display(), owner(pid))]
    InUse { path: PathBuf, pid: Option<u32> },
    #[error("the journal directory {} cannot be written ({source}); make it writable for this user, or name another directory", path.display())]
    ReadOnly { path: PathBuf, source: io::Error },
    #[error("{} was written in journal format {found}, this program knows {known}; run the newer program, or name another directory", path.display())]
    NewerVersion { path: PathBuf, found: u32, known: u32 },
    #[error("{} belongs to journal {found}, the other files here to {expected}; move the files that do not belong here away", path.display())]
    Foreign {
        path: PathBuf,
        found: crate::JournalId,
        expected: crate::JournalId,
    },
    #[error("the file system of the journal directory {} is full ({source}); free some space, or name another directory", path.display())]
    DiskFull { path: PathBuf, source: io::Error },
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

fn owner(pid: &Option<u32>) -> String {
    match pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

impl OpenError {
    /// The variant that tells the person most about an I/O error.
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> OpenError {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => OpenError::ReadOnly { path, source },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => OpenError::DiskFull { path, source },
            _ => OpenError::Io { doing, path, source },
        }
    }
}

/// Why a record was not taken. Nothing of it will be delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error("the journal takes no more now: {reason}; retry after {retry_after:?}")]
    Full { retry_after: Duration, reason: FullReason },
    #[error("the journal cannot write to its disk any more; see its health, then restart")]
    Failed,
    #[error("the record has {what}")]
    TooLarge { what: TooLarge },
    #[error("the journal is closed")]
    Closed,
}

/// Which bound was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FullReason {
    #[error("appends arrive faster than the disk takes them")]
    Queue,
    #[error("its size bound is reached and a reader that refuses to lose data stands still")]
    MaxBytes,
    #[error("the file system has less free space than is to be kept")]
    MinFree,
    #[error("the file system is full")]
    DiskFull,
}

/// What is wrong with a record's measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    #[error("a stream name of {0} bytes, which must be 1 to {STREAM_NAME_LIMIT_BYTES}")]
    Stream(usize),
    #[error("a header of {0} bytes, the bound is {HEADER_LIMIT_BYTES}")]
    Header(usize),
    #[error("a payload of {0} bytes, the bound is {PAYLOAD_LIMIT_BYTES}")]
    Payload(usize),
    #[error("{0} bytes, more than an eighth of the whole journal may hold")]
    Journal(usize),
}

/// Why a reader could not be opened, moved or dropped.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
    #[error("reader name {name:?} must be 1 to {READER_NAME_LIMIT_BYTES} bytes without control characters")]
    BadName { name: String },
    #[error("stream name {name:?} must be 1 to {STREAM_NAME_LIMIT_BYTES} bytes without control characters")]
    BadStream { name: String },
    #[error("reader {name:?} is open already; close it first")]
    InUse { name: String },
    #[error("there is no reader {name:?}")]
    Unknown { name: String },
    #[error("the position of reader {name:?} cannot be written to {}: {source}", path.display())]
    Io {
        name: String,
        path: PathBuf,
        source: io::Error,
    },
    #[error("the journal is closed")]
    Closed,
}
