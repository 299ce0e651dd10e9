//! The file system as the journal needs it, handed in so that tests can break it; and the real one.
//!
//! It knows nothing of journals: whoever else keeps files that must survive a crash can run on the same simulated disk.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A new file, for reading and writing; fails if the name is taken.
    New,
}

/// Held as long as the directory is ours; dropping it gives it up.
pub trait Lock: Send + Sync {}

/// Whether a lock was given.
pub enum Locked {
    Ours(Box<dyn Lock>),
    /// Someone else has it, who wrote this into the lock file.
    Theirs(String),
}

/// A file system. Names become durable by [`Disk::sync_dir`], contents by [`DiskFile::sync_data`].
pub trait Disk: Send + Sync {
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in any order.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    fn open(&self, path: &Path, open: Open) -> io::Result<Arc<dyn DiskFile>>;
    /// Replaces `to` in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// What an ordinary user may still write on the file system of `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Locks by the file `path`, into which `owner` is written for others to read; never waits.
    fn lock(&self, path: &Path, owner: &str) -> io::Result<Locked>;
}

/// An open file. Reading may go on beside writing; there is one writer at a time.
pub trait DiskFile: Send + Sync {
    /// Reads what there is, up to the buffer's length; less only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of the slices, one after the other; the slices are used up.
    fn write_at(&self, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Makes the contents durable, and of the metadata what is needed to read them.
    fn sync_data(&self) -> io::Result<()>;
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Reserves space and grows the file to `length`, reading as zeros.
    fn allocate(&self, length: u64) -> io::Result<()>;
    fn length(&self) -> io::Result<u64>;
}

/// The operating system's.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

struct RealLock {
    file: File,
}

impl Lock for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        // The kernel gives the lock up with the file; an empty file tells onlookers that its owner left in order.
        let _ = self.file.set_len(0);
    }
}

impl Disk for RealDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, path: &Path, open: Open) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(open != Open::Read)
            .create_new(open == Open::New)
            .open(path)?;
        Ok(Arc::new(RealFile { file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stats = rustix::fs::statvfs(path)?;
        Ok(stats.f_bavail.saturating_mul(stats.f_frsize))
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Locked> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Ok(Locked::Theirs(std::fs::read_to_string(path).unwrap_or_default()));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        file.set_len(0)?;
        file.write_all(owner.as_bytes())?;
        Ok(Locked::Ours(Box::new(RealLock { file })))
    }
}

struct RealFile {
    file: File,
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match self.file.read_at(&mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, mut slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        // The file's own position belongs to its one writer; reads name their offset.
        let mut file = &self.file;
        file.seek(SeekFrom::Start(offset))?;
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            let count = slices.len().min(IOV_LIMIT);
            match file.write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut slices, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::empty(), 0, length) {
            // A file system without reservation can still hold the file; it may then fill up while we write.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => self.file.set_len(length),
            result => Ok(result?),
        }
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

/// `IOV_MAX` of Linux and the BSDs: more slices in one call are refused by some and cut by others.
const IOV_LIMIT: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectored_writes_beyond_the_kernels_limit_arrive_whole() {
        let directory = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&directory.path().join("a"), Open::New).unwrap();
        let parts: Vec<Vec<u8>> = (0..3 * IOV_LIMIT + 7).map(|at| vec![at as u8; at % 5]).collect();
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        file.write_at(&mut slices, 11).unwrap();
        let expect = parts.concat();
        let mut found = vec![1; expect.len() + 20];
        assert_eq!(file.read_at(&mut found, 11).unwrap(), expect.len());
        assert_eq!(&found[..expect.len()], &expect);
    }

    #[test]
    fn the_second_to_lock_reads_who_was_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let first = RealDisk.lock(&path, "7\n").unwrap();
        assert!(matches!(RealDisk.lock(&path, "8\n").unwrap(), Locked::Theirs(owner) if owner == "7\n"));
        drop(first);
        assert!(matches!(RealDisk.lock(&path, "8\n").unwrap(), Locked::Ours(_)));
    }

    #[test]
    fn allocated_space_reads_as_zeros() {
        let directory = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&directory.path().join("a"), Open::New).unwrap();
        file.allocate(10_000).unwrap();
        assert_eq!(file.length().unwrap(), 10_000);
        let mut found = vec![1; 10_000];
        assert_eq!(file.read_at(&mut found, 0).unwrap(), 10_000);
        assert!(found.iter().all(|&byte| byte == 0));
        assert!(RealDisk.free_bytes(directory.path()).unwrap() > 0);
    }
}
