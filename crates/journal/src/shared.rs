//! What the handles, the commit thread and the reading thread share: the append queue under one lock, the bookkeeping
//! under another, and the cursor file. No lock is held while a callback or a waker runs.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::disk::{Disk, Lock};
use crate::error::{AppendError, FullReason, TooLarge};
use crate::format::{body_crc, frame_bytes};
use crate::settings::*;
use crate::state::State;
use crate::status::Health;

pub(crate) type Done = Box<dyn FnOnce(Result<Seq, AppendError>) + Send>;

/// After a failure to write cursors, the next attempt comes after this.
const CURSOR_RETRY: Duration = Duration::from_secs(10);
/// How long a refusal stands before an append is let through to look again.
const REFUSAL_RECHECK: Duration = Duration::from_millis(500);

/// A record that waits for the commit thread.
pub(crate) struct Pending {
    pub record: Record,
    pub body_crc: u32,
    /// The one behind it is written with it or not at all.
    pub more_follow: bool,
    /// May go past the bound, see [`RELIEF_SEGMENTS`].
    pub is_relief: bool,
    done: Option<Done>,
}

impl Pending {
    /// The last of what is appended together has the callback; the others have those behind them.
    fn new(record: Record, is_relief: bool, done: Option<Done>) -> Pending {
        // Summed up here, on its sender's thread, where the bytes are in the processor's cache.
        let body_crc = body_crc(&record.header, &record.payload);
        Pending {
            record,
            body_crc,
            more_follow: done.is_none(),
            is_relief,
            done,
        }
    }

    pub(crate) fn frame_bytes(&self) -> u64 {
        frame_bytes(
            self.record.stream.len(),
            self.record.header.len(),
            self.record.payload.len(),
        )
    }

    pub(crate) fn resolve(mut self, result: Result<Seq, AppendError>) {
        if let Some(done) = self.done.take() {
            call(done, result);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            call(done, Err(AppendError::Failed));
        }
    }
}

/// A callback that panics must not take the records behind it along.
pub(crate) fn call(done: Done, result: Result<Seq, AppendError>) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| done(result))).is_err() {
        tracing::error!("a callback of an append panicked; the journal goes on");
    }
}

/// What waits for the commit thread.
#[derive(Default)]
pub(crate) struct Queue {
    pub pending: VecDeque<Pending>,
    /// Of what waits and of what is being written.
    pub bytes: usize,
    /// Until then the commit thread need not look at the cursor file again; none when it is up to date.
    pub cursors_due: Option<Instant>,
    /// Whether segments may have become free.
    pub housekeeping: bool,
    pub closing: bool,
    /// Why appends are refused, and since when.
    pub refusing: Option<(FullReason, Instant)>,
    pub failed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub appended_records: AtomicU64,
    pub appended_bytes: AtomicU64,
    pub refused_records: AtomicU64,
    pub groups: AtomicU64,
    pub syncs: AtomicU64,
}

pub(crate) struct Shared {
    pub settings: Settings,
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    queue: Mutex<Queue>,
    /// Signalled when the commit thread has something to do.
    pub work: Condvar,
    state: Mutex<State>,
    /// Held while the cursor file is replaced.
    cursor_file: Mutex<()>,
    pub counters: Counters,
    /// Kept until the journal is closed, so that nobody else opens the directory.
    held: Mutex<Option<Box<dyn Lock>>>,
}

/// A panic while a lock is held is a bug that was reported by its own thread; the data behind it is still the best we have.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(
        settings: Settings,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        state: State,
        held: Box<dyn Lock>,
    ) -> Shared {
        Shared {
            settings,
            disk,
            clock,
            queue: Mutex::new(Queue::default()),
            work: Condvar::new(),
            state: Mutex::new(state),
            cursor_file: Mutex::new(()),
            counters: Counters::default(),
            held: Mutex::new(Some(held)),
        }
    }

    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.settings.directory.join(name)
    }

    /// The size a segment is planned with.
    pub(crate) fn segment_bytes(&self) -> u64 {
        let upper =
            (self.settings.max_bytes / SEGMENTS_PER_BOUND).clamp(SEGMENT_LIMIT_MIN_BYTES, SEGMENT_LIMIT_MAX_BYTES);
        self.settings.segment_bytes.clamp(SEGMENT_LIMIT_MIN_BYTES, upper)
    }

    /// The most that is appended at once, with its frames.
    pub(crate) fn together_limit_bytes(&self) -> u64 {
        (self.settings.max_bytes / SEGMENTS_PER_BOUND).max(SEGMENT_LIMIT_MIN_BYTES / 2)
    }

    /// Refuses by measures before anything is queued.
    pub(crate) fn measure(&self, records: &[Record]) -> Result<(), TooLarge> {
        let mut frames = 0;
        for record in records {
            let (stream, header, payload) = (record.stream.len(), record.header.len(), record.payload.len());
            if stream == 0 || stream > STREAM_NAME_LIMIT_BYTES {
                return Err(TooLarge::Stream(stream));
            }
            if header > HEADER_LIMIT_BYTES {
                return Err(TooLarge::Header(header));
            }
            if payload > PAYLOAD_LIMIT_BYTES {
                return Err(TooLarge::Payload(payload));
            }
            frames += frame_bytes(stream, header, payload);
        }
        if frames > self.together_limit_bytes() {
            return Err(TooLarge::Journal(frames as usize));
        }
        Ok(())
    }

    /// One record, or several that are there together or not at all; `done` is told the number of the last.
    pub(crate) fn append(&self, mut records: Vec<Record>, is_relief: bool, done: Done) {
        if let Err(what) = self.measure(&records) {
            return self.refuse(done, AppendError::TooLarge { what });
        }
        let bytes = records.iter().map(Record::held_bytes).sum();
        // Whether there is room is asked before the checksum is computed, and room taken after.
        if let Err(error) = self.admit(&mut self.queue(), bytes, is_relief) {
            return self.refuse(done, error);
        }
        let last = Pending::new(records.pop().expect("at least one"), is_relief, Some(done));
        let followed: Vec<Pending> = records
            .into_iter()
            .map(|record| Pending::new(record, is_relief, None))
            .collect();
        let mut queue = self.queue();
        if let Err(error) = self.admit(&mut queue, bytes, is_relief) {
            drop(queue);
            self.counters.refused_records.fetch_add(1, Relaxed);
            return last.resolve(Err(error));
        }
        queue.bytes += bytes;
        let idle = queue.pending.is_empty();
        queue.pending.extend(followed);
        queue.pending.push_back(last);
        drop(queue);
        if idle {
            self.work.notify_one();
        }
    }

    fn admit(&self, queue: &mut Queue, bytes: usize, is_relief: bool) -> Result<(), AppendError> {
        if queue.closing {
            return Err(AppendError::Closed);
        }
        if queue.failed {
            return Err(AppendError::Failed);
        }
        if let Some((reason, since)) = queue.refusing
            && since.elapsed() < REFUSAL_RECHECK
            && !is_relief
        {
            return Err(AppendError::Full {
                retry_after: RETRY_AFTER_FULL,
                reason,
            });
        }
        // A record larger than the whole queue goes through an empty one.
        if queue.bytes > 0 && queue.bytes + bytes > APPEND_QUEUE_BYTES {
            return Err(AppendError::Full {
                retry_after: RETRY_AFTER_QUEUE,
                reason: FullReason::Queue,
            });
        }
        Ok(())
    }

    fn refuse(&self, done: Done, error: AppendError) {
        self.counters.refused_records.fetch_add(1, Relaxed);
        call(done, Err(error));
    }

    /// Lets another process have the directory; nothing is written from here on.
    pub(crate) fn release(&self) {
        let _writing = lock(&self.cursor_file);
        lock(&self.held).take();
    }

    /// Says whether appends are taken; logs when that changes.
    pub(crate) fn set_health(&self, health: Health) {
        {
            let mut queue = self.queue();
            queue.failed = matches!(health, Health::Failed { .. });
            queue.refusing = match health {
                Health::Refusing { reason } => Some((reason, Instant::now())),
                _ => None,
            };
        }
        let mut state = self.state();
        if state.health == health {
            return;
        }
        match &health {
            Health::Good => tracing::info!("the journal takes records again"),
            Health::Refusing { reason } => tracing::warn!(%reason, "the journal takes no records"),
            Health::Failed { what } => {
                tracing::error!(%what, "the journal failed and takes no records until a restart")
            }
        }
        state.health = health;
    }

    /// Notes that a reader moved; the commit thread writes that down a little later, and looks at once whether a segment
    /// became free.
    pub(crate) fn reader_moved(&self, newly_dirty: bool, segment_free: bool) {
        if !newly_dirty && !segment_free {
            return;
        }
        let mut queue = self.queue();
        queue.cursors_due.get_or_insert_with(|| Instant::now() + CURSOR_DELAY);
        queue.housekeeping |= segment_free;
        drop(queue);
        self.work.notify_one();
    }

    /// Durable when it returns.
    pub(crate) fn write_cursors(&self, clean_segment: Option<u64>) -> io::Result<()> {
        let _writing = lock(&self.cursor_file);
        if lock(&self.held).is_none() {
            return Err(io::Error::other("the journal is closed"));
        }
        // In this order: an acknowledgement that comes later than the copy finds the file up to date and asks again.
        self.queue().cursors_due = None;
        let cursors = {
            let mut state = self.state();
            state.cursors_dirty = false;
            state.cursors(clean_segment)
        };
        let result = cursors.write(&*self.disk, &self.settings.directory);
        if result.is_err() {
            self.state().cursors_dirty = true;
            self.queue().cursors_due = Some(Instant::now() + CURSOR_RETRY);
        }
        result
    }
}
