//! A real disk that refuses some paths, so that a test can stop a store between two writes.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use store::{Disk, Entry, FileRead, FileWrite, LockError, RealDisk};

/// The machine's disk, but for what a test makes it refuse to create or rename to.
#[derive(Clone, Default)]
pub struct Refusing(Arc<Mutex<Option<&'static str>>>);

impl Refusing {
    /// From now on; `None` ends it.
    pub fn refuse(&self, part_of_path: Option<&'static str>) {
        *self.0.lock().unwrap() = part_of_path;
    }

    fn ask(&self, path: &Path) -> io::Result<()> {
        match *self.0.lock().unwrap() {
            Some(refused) if path.to_string_lossy().contains(refused) => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

impl Disk for Refusing {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        RealDisk.list(path)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        self.ask(path)?;
        RealDisk.create(path)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileRead>> {
        RealDisk.open(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.ask(to)?;
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
    fn lock(&self, path: &Path, owner: &str) -> Result<Box<dyn Send + Sync>, LockError> {
        RealDisk.lock(path, owner)
    }
}
