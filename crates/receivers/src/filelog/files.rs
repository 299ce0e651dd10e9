//! Files as they lie there: opened without blocking, asked for their beginnings, found beside others.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::positions::{Fingerprint, Inode};

/// Files beside a rotated one that are looked at for what was not yet read of it.
const MAX_SIBLINGS: usize = 10_000;

pub fn inode_of(metadata: &Metadata) -> Inode {
    Inode {
        device: metadata.dev(),
        inode: metadata.ino(),
    }
}

/// When a file was last written to, in nanoseconds.
pub fn changed(metadata: &Metadata) -> i128 {
    i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
}

/// Opens a file that is to be this inode. Without blocking: what was a file a moment ago may be a pipe by now.
pub fn open_file(path: &Path, inode: Inode) -> io::Result<File> {
    let file = open_quietly(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || inode_of(&metadata) != inode {
        // The next look finds what is there now.
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(file)
}

fn open_quietly(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path)
}

/// Whether the file begins as that one did.
pub fn begins(file: &File, print: &Fingerprint) -> bool {
    head_of(file, print.len as usize).is_ok_and(|head| print.begins(&head))
}

pub fn head_of(file: &File, len: usize) -> io::Result<Vec<u8>> {
    let mut head = vec![0; len];
    let got = read_at(file, &mut head, 0)?;
    head.truncate(got);
    Ok(head)
}

/// Fills the buffer as far as the file goes.
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The file in the same folder that is meant.
pub fn sibling(path: &Path, mut is_meant: impl FnMut(&File, &Metadata) -> bool) -> Option<File> {
    let folder = path.parent()?;
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .take(MAX_SIBLINGS)
        .find_map(|entry| {
            if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
                return None;
            }
            let file = open_quietly(&entry.path()).ok()?;
            let metadata = file.metadata().ok()?;
            (metadata.is_file() && is_meant(&file, &metadata)).then_some(file)
        })
}
