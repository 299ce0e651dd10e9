//! The journal's simulated disk under the store: one place where writes tear, bits flip and power goes, for both.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use journal::simulated::SimulatedDisk;
use journal::{Disk as _, DiskFile, Lock, Locked, Open};
use store::{Disk, Entry, FileRead, FileWrite, LockError};

/// The store's view of a simulated disk.
#[derive(Clone)]
pub struct Simulated(pub SimulatedDisk);

struct Writing {
    file: Arc<dyn DiskFile>,
    offset: u64,
}

impl FileWrite for Writing {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(&mut [IoSlice::new(bytes)], self.offset)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

struct Reading(Arc<dyn DiskFile>);

impl FileRead for Reading {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self.0.read_at(buffer, offset)? {
            read if read == buffer.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn bytes(&self) -> io::Result<u64> {
        self.0.length()
    }
}

/// Kept for its drop.
struct Held(#[allow(dead_code)] Box<dyn Lock>);

impl Disk for Simulated {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let names = match self.0.list(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            names => names?,
        };
        let mut entries = Vec::new();
        for name in names {
            let path = path.join(&name);
            let is_dir = self.0.is_directory(&path);
            let bytes = if is_dir {
                0
            } else {
                self.0.open(&path, Open::Read)?.length()?
            };
            entries.push(Entry { name, bytes, is_dir });
        }
        entries.sort();
        Ok(entries)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        let file = match self.0.open(path, Open::New) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let file = self.0.open(path, Open::Write)?;
                file.set_len(0)?;
                file
            }
            file => file?,
        };
        Ok(Box::new(Writing { file, offset: 0 }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileRead>> {
        Ok(Arc::new(Reading(self.0.open(path, Open::Read)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.0.remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.sync_dir(path)
    }

    fn lock(&self, path: &Path, owner: &str) -> Result<Box<dyn Send + Sync>, LockError> {
        match self.0.lock(path, owner) {
            Ok(Locked::Ours(held)) => Ok(Box::new(Held(held))),
            Ok(Locked::Theirs(owner)) => Err(LockError::Held(owner.trim().to_owned())),
            Err(error) => Err(LockError::Io(error)),
        }
    }
}
