//! The journal's handle: open, append, readers, close.

use std::fmt;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{JoinHandle, ThreadId};

use crate::Ranges;
use crate::backlog::Backlog;
use crate::clock::{Clock, SystemClock};
use crate::commit::Engine;
use crate::cursors::StoredReader;
use crate::disk::Disk;
use crate::error::{AppendError, OpenError, ReaderError};
use crate::reader::Reader;
use crate::recovery;
use crate::seek::seek;
use crate::settings::*;
use crate::shared::{Shared, lock};
use crate::state::ReaderState;
use crate::status::{Damage, Health, ReaderStatus, Recovery, Stats};
use crate::verify::{self, Pace};

/// An open journal; clones are the same journal. It closes when [`Journal::close`] is called or the last clone goes.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    backlog: Arc<Backlog>,
    verification: Arc<Pace>,
    writer: OnceLock<ThreadId>,
    /// None once joined.
    threads: Mutex<Option<Threads>>,
}

struct Threads {
    writer: JoinHandle<()>,
    reader: JoinHandle<()>,
    /// None if there was nothing to verify.
    verifier: Option<JoinHandle<()>>,
}

impl fmt::Debug for Journal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Journal")
            .field("directory", &self.inner.shared.settings.directory)
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// Takes the directory, repairs what a crash left behind, and starts the commit thread and the reading thread; and one
    /// that reads through what was sealed before, and ends.
    pub fn open(settings: Settings, disk: Arc<dyn Disk>) -> Result<(Journal, Recovery), OpenError> {
        Journal::open_with_clock(settings, disk, Arc::new(SystemClock))
    }

    pub fn open_with_clock(
        settings: Settings,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Journal, Recovery), OpenError> {
        let (shared, engine, recovery) = recovery::open(settings, disk, clock)?;
        let backlog = Arc::new(Backlog::default());
        let verification = Arc::new(Pace::default());
        let inner = Inner {
            shared: shared.clone(),
            backlog: backlog.clone(),
            verification: verification.clone(),
            writer: OnceLock::new(),
            threads: Mutex::default(),
        };
        let journal = Journal { inner: Arc::new(inner) };
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
            thread.map_err(|error| OpenError::io("start a thread for", shared.settings.directory.clone(), error))
        };
        let (reading, reads) = (shared.clone(), backlog.clone());
        let reader = spawn("journal-read", Box::new(move || reads.run(&reading)))?;
        let writing = shared.clone();
        let pace = verification.clone();
        let writer = spawn(
            "journal-commit",
            Box::new(move || commit(engine, &writing, &backlog, &pace)),
        )?;
        let _ = journal.inner.writer.set(writer.thread().id());
        let verifying = shared.clone();
        let nothing = shared.state().unverified.is_empty();
        let verifier = match nothing {
            true => None,
            false => Some(spawn(
                "journal-verify",
                Box::new(move || verify::run(&verifying, &verification)),
            )?),
        };
        *lock(&journal.inner.threads) = Some(Threads {
            writer,
            reader,
            verifier,
        });
        Ok((journal, recovery))
    }

    /// For tests that do the threads' work themselves, one step after the other.
    #[cfg(test)]
    pub(crate) fn open_without_threads(
        settings: Settings,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Journal, Engine, Recovery), OpenError> {
        let (shared, engine, recovery) = recovery::open(settings, disk, clock)?;
        let inner = Inner {
            shared,
            backlog: Arc::default(),
            verification: Arc::default(),
            writer: OnceLock::new(),
            threads: Mutex::default(),
        };
        Ok((Journal { inner: Arc::new(inner) }, engine, recovery))
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    /// False if none waits.
    #[cfg(test)]
    pub(crate) fn perform_one_read(&self) -> bool {
        self.inner.backlog.perform_one(&self.inner.shared)
    }

    pub fn id(&self) -> JournalId {
        self.inner.shared.state().id
    }

    /// Queues a record and returns; `done` runs once it is durable, on the commit thread, so it must be short. A refusal
    /// that needs no disk to know runs `done` before this returns. What no reader is there for is not kept, so open the
    /// readers first.
    pub fn append(&self, record: Record, done: impl FnOnce(Result<Seq, AppendError>) + Send + 'static) {
        self.inner.shared.append(vec![record], false, Box::new(done));
    }

    /// The most that one record, or records that are appended together, may take on disk.
    pub fn together_limit_bytes(&self) -> u64 {
        self.inner.shared.together_limit_bytes()
    }

    /// Queues records that become durable together or not at all, whatever happens meanwhile; their numbers follow one another, and `done` is told them.
    /// They may exceed the journal's bound a little ([`RELIEF_SEGMENTS`](crate::RELIEF_SEGMENTS)). Otherwise as [`append`](Journal::append). At least one
    /// record.
    pub fn append_together(
        &self,
        records: Vec<Record>,
        done: impl FnOnce(Result<RangeInclusive<Seq>, AppendError>) + Send + 'static,
    ) {
        assert!(
            !records.is_empty(),
            "records that are appended together are at least one"
        );
        let before_last = records.len() as u64 - 1;
        let done = move |appended: Result<Seq, AppendError>| done(appended.map(|last| last - before_last..=last));
        self.inner.shared.append(records, true, Box::new(done));
    }

    /// Opens a reader. The position of a new or moved one is durable when this returns, so that what is acknowledged to
    /// a sender from then on reaches this reader even after a crash. Waits for the disk.
    pub fn reader(&self, name: &str, options: ReaderOptions) -> Result<Reader, ReaderError> {
        let shared = &self.inner.shared;
        let plain = |text: &str| !text.chars().any(char::is_control);
        if name.is_empty() || name.len() > READER_NAME_LIMIT_BYTES || !plain(name) {
            return Err(ReaderError::BadName { name: name.to_owned() });
        }
        let ReaderOptions { stream, on_full, start } = options;
        if stream.is_empty() || stream.len() > STREAM_NAME_LIMIT_BYTES || !plain(&stream) {
            return Err(ReaderError::BadStream {
                name: stream.to_string(),
            });
        }
        let name: Arc<str> = name.into();
        let mut state = shared.state();
        if state.closed {
            return Err(ReaderError::Closed);
        }
        let known = state.readers.get(&name);
        if known.is_some_and(|reader| reader.handle.is_some()) {
            return Err(ReaderError::InUse { name: name.to_string() });
        }
        let is_new = known.is_none();
        let unmoved =
            known.is_some_and(|reader| start == Start::Stored && reader.stream == stream && reader.on_full == on_full);
        let acked = match (start, known) {
            (Start::Stored, Some(reader)) => reader.acked(),
            // A reader that seems new may be one whose position was lost: twice is better than never.
            (Start::Stored, None) if state.cursors_lost => Ranges::default(),
            (Start::Stored, None) | (Start::Head, _) => Ranges::below(state.next_seq),
            (Start::Tail, _) => Ranges::default(),
            (Start::At(acked), _) => acked,
        };
        let io = |source| ReaderError::Io {
            name: name.to_string(),
            path: shared.settings.directory.clone(),
            source,
        };
        let seek = seek(&*shared.disk, &shared.settings.directory, &state, &stream, acked).map_err(io)?;
        let handle = state.next_generation();
        let reader = state.readers.entry(name.clone()).or_insert_with(|| {
            let stored = StoredReader {
                name: name.clone(),
                stream: stream.clone(),
                on_full,
                acked: Ranges::default(),
                skipped_records: 0,
                skipped_bytes: 0,
                lost_records: 0,
                orphan_since_unix_nano: None,
            };
            ReaderState::new(&stored, seek.clone(), handle)
        });
        reader.reset(seek, handle);
        reader.stream = stream.clone();
        reader.on_full = on_full;
        reader.handle = Some(handle);
        reader.ever_attached = true;
        reader.orphan_since_unix_nano = None;
        let newly_dirty = !std::mem::replace(&mut state.cursors_dirty, true);
        drop(state);
        if unmoved {
            shared.reader_moved(newly_dirty, false);
        } else if let Err(error) = shared.write_cursors(None) {
            let mut state = shared.state();
            if is_new {
                state.readers.remove(&name);
            } else if let Some(reader) = state.readers.get_mut(&name) {
                reader.handle = None;
            }
            return Err(io(error));
        }
        Ok(Reader::new(
            shared.clone(),
            self.inner.backlog.clone(),
            name,
            stream,
            handle,
        ))
    }

    /// Every reader, open or stored.
    pub fn readers(&self) -> Vec<ReaderStatus> {
        let state = self.inner.shared.state();
        state
            .readers
            .values()
            .map(|reader| state.reader_status(reader))
            .collect()
    }

    /// Forgets a reader and its backlog; an open handle gets nothing any more.
    pub fn drop_reader(&self, name: &str) -> Result<(), ReaderError> {
        let mut state = self.inner.shared.state();
        let Some(mut reader) = state.readers.remove(name) else {
            return Err(ReaderError::Unknown { name: name.to_owned() });
        };
        state.cursors_dirty = true;
        drop(state);
        reader.wakers.drain(..).for_each(std::task::Waker::wake);
        self.position_changed(name)
    }

    /// Sets a reader, open or not, to another place. What a move to the head leaves behind counts
    /// as skipped; with [`Start::At`] it counts as acknowledged.
    pub fn move_reader(&self, name: &str, start: Start) -> Result<(), ReaderError> {
        let shared = &self.inner.shared;
        let mut state = shared.state();
        let Some(reader) = state.readers.get(name) else {
            return Err(ReaderError::Unknown { name: name.to_owned() });
        };
        let to_head = start == Start::Head;
        let acked = match start {
            Start::Stored => reader.acked(),
            Start::Head => Ranges::below(state.next_seq),
            Start::Tail => Ranges::default(),
            Start::At(acked) => acked,
        };
        let stream = reader.stream.clone();
        let seek = seek(&*shared.disk, &shared.settings.directory, &state, &stream, acked).map_err(|source| {
            ReaderError::Io {
                name: name.to_owned(),
                path: shared.settings.directory.clone(),
                source,
            }
        })?;
        let generation = state.next_generation();
        let reader = state.readers.get_mut(name).expect("looked up above");
        if to_head {
            reader.skip_to_head(seek, generation);
        } else {
            reader.reset(seek, generation);
        }
        let wakers = std::mem::take(&mut reader.wakers);
        state.cursors_dirty = true;
        drop(state);
        wakers.into_iter().for_each(std::task::Waker::wake);
        self.position_changed(name)
    }

    /// Writes the cursors down and lets the commit thread see whether segments became free.
    fn position_changed(&self, name: &str) -> Result<(), ReaderError> {
        let shared = &self.inner.shared;
        let result = shared.write_cursors(None);
        shared.reader_moved(false, true);
        result.map_err(|source| ReaderError::Io {
            name: name.to_owned(),
            path: shared.settings.directory.clone(),
            source,
        })
    }

    pub fn health(&self) -> Health {
        self.inner.shared.state().health.clone()
    }

    /// Damaged places found since the journal was opened, the first of them one by one.
    pub fn damage(&self) -> Vec<Damage> {
        self.inner.shared.state().damage.clone()
    }

    pub fn stats(&self) -> Stats {
        let shared = &self.inner.shared;
        let queue_bytes = shared.queue().bytes as u64;
        let state = shared.state();
        let counters = &shared.counters;
        Stats {
            id: state.id,
            next_seq: state.next_seq,
            segments: state.segments.len() as u64,
            disk_bytes: state.segments.iter().map(|segment| segment.file_bytes).sum(),
            oldest_unix_nano: state.oldest_unix_nano(),
            queue_bytes,
            memory_bytes: state.memory_bytes() as u64,
            appended_records: counters.appended_records.load(Relaxed),
            appended_bytes: counters.appended_bytes.load(Relaxed),
            refused_records: counters.refused_records.load(Relaxed),
            groups: counters.groups.load(Relaxed),
            syncs: counters.syncs.load(Relaxed),
            damage_count: state.damage_count,
            unverified_segments: state.unverified.len() as u64,
            health: state.health.clone(),
        }
    }

    /// Refuses new appends, makes what waits durable, writes the cursors down and lets go of the directory once the last
    /// handle is gone. Waits for the disk. Readers get `None` from then on.
    pub fn close(&self) {
        self.inner.close();
    }
}

/// The commit thread, to its end.
fn commit(engine: Engine, shared: &Shared, backlog: &Backlog, verification: &Pace) {
    let ran = catch_unwind(AssertUnwindSafe(|| engine.run()));
    if ran.is_err() {
        shared.set_health(Health::Failed {
            what: "the commit thread panicked".to_owned(),
        });
        // Nobody will write these; dropping them says so to their senders. Readers go on with what is there.
        let pending = std::mem::take(&mut shared.queue().pending);
        drop(pending);
        let mut queue = shared.queue();
        while !queue.closing {
            queue = shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
    finish(shared, backlog, verification);
}

/// Nothing is written from here on: readers are told, and the directory is given up.
fn finish(shared: &Shared, backlog: &Backlog, verification: &Pace) {
    let wakers: Vec<_> = {
        let mut state = shared.state();
        state.closed = true;
        state
            .readers
            .values_mut()
            .flat_map(|reader| std::mem::take(&mut reader.wakers))
            .collect()
    };
    wakers.into_iter().for_each(std::task::Waker::wake);
    backlog.close();
    verification.close();
    shared.release();
}

impl Inner {
    fn close(&self) {
        self.shared.queue().closing = true;
        self.shared.work.notify_one();
        // A callback that closes the journal runs on the thread that it would wait for.
        if self.writer.get() == Some(&std::thread::current().id()) {
            return;
        }
        // Whoever closes second waits here until the first is done.
        let mut threads = lock(&self.threads);
        match threads.take() {
            Some(Threads {
                writer,
                reader,
                verifier,
            }) => {
                let verified = verifier.map_or(Ok(()), JoinHandle::join);
                if writer.join().is_err() | reader.join().is_err() | verified.is_err() {
                    tracing::error!("a thread of the journal panicked");
                }
            }
            // Opened without threads, or closed before.
            None => finish(&self.shared, &self.backlog, &self.verification),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}
