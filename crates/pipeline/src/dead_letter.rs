//! Why: what a backend refuses for good is not thrown away unseen, where the configuration names a directory for it: one file per request, its bytes
//! as they would be sent (`curl --data-binary @FILE` sends one again), its name telling when, what and why.

use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{SystemTime, UNIX_EPOCH};

use model::Batch;

use crate::reason::Reason;

/// What one directory may hold: enough to see what is wrong, not enough to fill a disk. Beyond it, requests are only counted.
pub const MAX_BYTES: u64 = 256 << 20;

/// A directory of refused requests.
#[derive(Debug)]
pub struct DeadLetter {
    directory: PathBuf,
    used_bytes: Mutex<u64>,
}

impl DeadLetter {
    /// Makes the directory if it is missing.
    pub fn open(directory: PathBuf) -> io::Result<DeadLetter> {
        std::fs::create_dir_all(&directory)?;
        let mut used = 0;
        for entry in std::fs::read_dir(&directory)? {
            used += entry?.metadata()?.len();
        }
        Ok(DeadLetter {
            directory,
            used_bytes: Mutex::new(used),
        })
    }

    /// Writes a request down; `false` if the directory is at its bound. Blocks on the disk.
    pub fn put(&self, batch: &Batch, reason: Reason) -> io::Result<bool> {
        let length = batch.payload.len() as u64;
        // Held while writing: refused requests are rare, and their names must differ.
        let mut used = self.used_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if *used + length > MAX_BYTES {
            return Ok(false);
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos());
        let mut nanos = now;
        loop {
            let path = self.directory.join(format!("{nanos}-{}-{reason}.pb", batch.signal));
            match std::fs::OpenOptions::new().write(true).create_new(true).open(path) {
                Ok(mut file) => {
                    io::Write::write_all(&mut file, &batch.payload)?;
                    *used += length;
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => nanos += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spans;

    #[test]
    fn requests_are_written_until_the_bound() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("dead");
        let letters = DeadLetter::open(path.clone()).expect("opens");
        let batch = spans(0..3);
        assert!(letters.put(&batch, Reason::BackendRejected).expect("writes"));
        assert!(letters.put(&batch, Reason::BackendRejected).expect("writes"));
        let files: Vec<_> = std::fs::read_dir(&path)
            .expect("lists")
            .map(|entry| entry.expect("entry").path())
            .collect();
        assert_eq!(files.len(), 2);
        assert_eq!(std::fs::read(&files[0]).expect("reads"), batch.payload.bytes());
        let reopened = DeadLetter::open(path).expect("opens");
        *reopened.used_bytes.lock().expect("no panic") += MAX_BYTES - 3 * batch.payload.len() as u64 + 1;
        assert!(!reopened.put(&batch, Reason::BackendRejected).expect("bounded"));
    }
}
