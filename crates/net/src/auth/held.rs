//! What an authenticator knows, from its settings or from a file that may change: an orchestrator renews tokens by writing a file anew.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The largest file that is read: ten thousand users with their hashes.
pub(super) const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why a file of credentials cannot be used. Nothing of what it holds is told.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct FileError {
    path: PathBuf,
    why: String,
}

/// A value of the settings, or what a file means at the moment.
pub(super) enum Held<T> {
    Fixed(Arc<T>),
    File(Box<Watched<T>>),
}

type Parse<T> = Box<dyn Fn(&str) -> Result<T, String> + Send + Sync>;

pub(super) struct Watched<T> {
    path: PathBuf,
    parse: Parse<T>,
    now: Mutex<Now<T>>,
}

struct Now<T> {
    /// Which state of the file was looked at last, whether it could be used or not.
    stamp: Option<Stamp>,
    value: Arc<T>,
}

/// What changes when a file is written or another takes its place.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl<T> Held<T> {
    pub fn fixed(value: T) -> Held<T> {
        Held::Fixed(Arc::new(value))
    }

    /// Reads the file; one that cannot be used at the start is an error.
    pub fn file(
        path: &Path,
        parse: impl Fn(&str) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Held<T>, FileError> {
        let error = |why: String| FileError {
            path: path.to_owned(),
            why,
        };
        // Looked at before it is read: what is written in between is read once more.
        let stamp = Stamp::of(path).map_err(|why| error(why.to_string()))?;
        let value = read(path).and_then(|text| parse(&text)).map_err(error)?;
        let now = Now {
            stamp: Some(stamp),
            value: Arc::new(value),
        };
        Ok(Held::File(Box::new(Watched {
            path: path.to_owned(),
            parse: Box::new(parse),
            now: Mutex::new(now),
        })))
    }

    /// The value; of a file that has changed, the new one, or the old one as long as the new one cannot be used. Asking whether the file has changed
    /// takes microseconds, so it is asked each time.
    pub fn current(&self) -> Arc<T> {
        match self {
            Held::Fixed(value) => Arc::clone(value),
            Held::File(watched) => watched.current(),
        }
    }
}

impl<T> Watched<T> {
    fn current(&self) -> Arc<T> {
        let found = Stamp::of(&self.path);
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = found.as_ref().ok().copied();
        if now.stamp != stamp {
            now.stamp = stamp;
            let text = match found {
                Ok(_) => read(&self.path),
                Err(error) => Err(error.to_string()),
            };
            match text.and_then(|text| (self.parse)(&text)) {
                Ok(value) => {
                    now.value = Arc::new(value);
                    tracing::info!("{} has changed and was read again", self.path.display());
                }
                Err(why) => {
                    let path = self.path.display();
                    tracing::warn!("{path} has changed and cannot be used, what it said before stays valid: {why}");
                }
            }
        }
        Arc::clone(&now.value)
    }
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Stamp> {
        let found = fs::metadata(path)?;
        Ok(Stamp {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.size(),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut bounded = file.take(MAX_FILE_BYTES + 1);
    bounded.read_to_string(&mut text).map_err(|error| error.to_string())?;
    match text.len() as u64 > MAX_FILE_BYTES {
        true => Err(format!("it is larger than {MAX_FILE_BYTES} bytes")),
        false => Ok(text),
    }
}

impl<T> fmt::Debug for Held<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Held::Fixed(_) => f.write_str("Fixed(…)"),
            Held::File(watched) => write!(f, "File({})", watched.path.display()),
        }
    }
}
