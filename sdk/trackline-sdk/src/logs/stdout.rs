//! Log lines to stdout from a thread of their own, so that a slow pipe never holds up a request (SPEC S4).

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Entry;
use super::line::Format;
use crate::queue::{Bounds, Queue};

/// Entries waiting for the writer; at usual sizes a second's worth of a busy service.
const QUEUE_ENTRIES: usize = 8_192;
/// Their memory.
const QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// Entries written with one call.
const BATCH_ENTRIES: usize = 256;
/// Nobody notices a line this late, and it spares a wake-up per line.
const LINGER: Duration = Duration::from_millis(10);
/// A buffer that grew beyond this for one burst is given back.
const KEPT_BUFFER_BYTES: usize = 1024 * 1024;

pub(crate) type Lines = Arc<Queue<Arc<Entry>>>;

/// Starts the thread that writes lines to `sink`.
pub(crate) fn start(
    format: Format,
    mut sink: Box<dyn Write + Send>,
    written: Arc<AtomicU64>,
) -> std::io::Result<Lines> {
    let lines: Lines = Arc::new(Queue::new(Bounds {
        capacity: QUEUE_ENTRIES,
        max_bytes: QUEUE_BYTES,
        batch: BATCH_ENTRIES,
        linger: LINGER,
    }));
    let queue = lines.clone();
    std::thread::Builder::new()
        .name("trackline-lines".to_owned())
        .spawn(move || {
            let mut batch = Vec::with_capacity(BATCH_ENTRIES);
            let mut buffer = Vec::new();
            while let Some(taken) = queue.take(&mut batch) {
                let count = batch.len() as u64;
                for entry in batch.drain(..) {
                    format.write(&entry, &mut buffer);
                }
                // A closed pipe is no reason to stop the service; nor is there anywhere to say so.
                if sink.write_all(&buffer).and_then(|()| sink.flush()).is_ok() {
                    written.fetch_add(count, Ordering::Relaxed);
                }
                buffer.clear();
                buffer.shrink_to(KEPT_BUFFER_BYTES);
                queue.done(taken);
            }
            queue.finish();
        })?;
    Ok(lines)
}
