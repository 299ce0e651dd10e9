//! Why: what the store holds in memory is counted by use, so that whoever shares out the process's memory sees all of it and a merge knows when it is too
//! much at once. Flushes are counted and never refused: they free more than they take.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes held for one use, and the most there ever were.
#[derive(Debug, Default)]
pub struct Gauge {
    held: AtomicU64,
    peak: AtomicU64,
}

/// Bytes that are held; dropping it gives them back.
pub struct Hold<'a> {
    gauge: &'a Gauge,
    bytes: u64,
}

impl Gauge {
    pub fn add(&self, bytes: u64) {
        let before = self.held.fetch_add(bytes, Ordering::AcqRel);
        self.peak.fetch_max(before + bytes, Ordering::Relaxed);
    }

    pub fn sub(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::AcqRel);
    }

    pub fn hold(&self, bytes: u64) -> Hold<'_> {
        self.add(bytes);
        Hold { gauge: self, bytes }
    }

    pub fn bytes(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }

    fn held(&self, limit_bytes: u64) -> Held {
        Held {
            used_bytes: self.bytes(),
            limit_bytes,
            peak_bytes: self.peak.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.gauge.sub(self.bytes);
    }
}

/// What the store holds, by use.
#[derive(Debug, Default)]
pub struct Memory {
    /// Rows that are not in a part yet.
    pub chunks: Gauge,
    /// Those of them that are being written, once more in the order of the part.
    pub flush: Gauge,
    /// Keys, indexes and columns of the merge that runs.
    pub merge: Gauge,
    /// Directories of parts that are open.
    pub open_parts: Gauge,
}

/// What one use of memory holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Now.
    pub used_bytes: u64,
    /// Its bound. Rows of the append that passed it come on top.
    pub limit_bytes: u64,
    /// The most since the start.
    pub peak_bytes: u64,
}

/// The uses of memory by a store, for whoever shares out the process's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryHeld {
    /// Fresh rows.
    pub chunks: Held,
    /// Sorting and encoding them; bound by them.
    pub flush: Held,
    /// Merging parts.
    pub merge: Held,
    /// Directories of open parts.
    pub open_parts: Held,
}

impl Memory {
    pub fn held(&self, chunks: u64, merge: u64, open_parts: u64) -> MemoryHeld {
        MemoryHeld {
            chunks: self.chunks.held(chunks),
            flush: self.flush.held(chunks),
            merge: self.merge.held(merge),
            open_parts: self.open_parts.held(open_parts),
        }
    }
}
