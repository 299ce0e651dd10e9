//! A reader's handle: receive, acknowledge, and be told apart from an older handle of the same name.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::backlog::{Backlog, Read};
use crate::settings::{Delivery, Seq};
use crate::shared::Shared;
use crate::state::Next;

/// An open reader. Dropping it keeps its position: whoever opens it next gets what was not acknowledged.
pub struct Reader {
    backlog: Arc<Backlog>,
    acker: Acker,
    stream: Arc<str>,
}

/// Acknowledges for a reader from elsewhere.
#[derive(Clone)]
pub struct Acker {
    shared: Arc<Shared>,
    name: Arc<str>,
    handle: u64,
}

impl Reader {
    pub(crate) fn new(
        shared: Arc<Shared>,
        backlog: Arc<Backlog>,
        name: Arc<str>,
        stream: Arc<str>,
        handle: u64,
    ) -> Reader {
        Reader {
            backlog,
            acker: Acker { shared, name, handle },
            stream,
        }
    }

    pub fn name(&self) -> &str {
        &self.acker.name
    }

    pub fn stream(&self) -> &str {
        &self.stream
    }

    pub fn acker(&self) -> Acker {
        self.acker.clone()
    }

    /// The next records of the stream, in order: as many as are there, at least one, at most `max_records` and, unless
    /// the first alone is larger, `max_bytes` of stream names, headers and payloads. Waits while there is none, or while
    /// [`UNACKED_LIMIT_RECORDS`](crate::UNACKED_LIMIT_RECORDS) are unacknowledged. `None` once the journal is closed or
    /// the reader dropped from it. Dropping the future loses nothing.
    pub async fn recv(&self, max_records: usize, max_bytes: usize) -> Option<Vec<Delivery>> {
        poll_fn(|context| self.poll_recv(context, max_records, max_bytes)).await
    }

    /// [`recv`](Reader::recv) for hand-written futures.
    pub fn poll_recv(
        &self,
        context: &mut Context<'_>,
        max_records: usize,
        max_bytes: usize,
    ) -> Poll<Option<Vec<Delivery>>> {
        let Acker { shared, name, handle } = &self.acker;
        let mut state = shared.state();
        let next = state.next(name, *handle, max_records, max_bytes);
        match next {
            Next::Deliver(deliveries) => return Poll::Ready(Some(deliveries)),
            Next::Gone => return Poll::Ready(None),
            Next::Wait | Next::Read { .. } => {}
        }
        if let Some(reader) = state.readers.get_mut(name)
            && !reader.wakers.iter().any(|waker| waker.will_wake(context.waker()))
        {
            reader.wakers.push(context.waker().clone());
        }
        drop(state);
        if let Next::Read { generation } = next {
            self.backlog.submit(Read {
                name: name.clone(),
                generation,
                max_records: max_records.max(1),
                max_bytes,
            });
        }
        Poll::Pending
    }

    pub fn ack(&self, seq: Seq) {
        self.acker.ack_many(&[seq]);
    }

    pub fn ack_many(&self, seqs: &[Seq]) {
        self.acker.ack_many(seqs);
    }
}

impl Acker {
    pub fn ack(&self, seq: Seq) {
        self.ack_many(&[seq]);
    }

    /// In any order; what was not delivered by this reader, or was acknowledged before, has no effect.
    pub fn ack_many(&self, seqs: &[Seq]) {
        let mut state = self.shared.state();
        let Some(reader) = state
            .readers
            .get_mut(&self.name)
            .filter(|reader| reader.handle == Some(self.handle))
        else {
            return;
        };
        let was_full = reader.holds_its_fill();
        let low = reader.low();
        let mut any = false;
        for &seq in seqs {
            any |= reader.ack(seq);
        }
        let wakers = if was_full && !reader.holds_its_fill() {
            std::mem::take(&mut reader.wakers)
        } else {
            Vec::new()
        };
        let moved = reader.low() > low;
        let newly_dirty = any && !std::mem::replace(&mut state.cursors_dirty, true);
        let segment_free = moved && state.passed_segments() > 0;
        drop(state);
        wakers.into_iter().for_each(std::task::Waker::wake);
        self.shared.reader_moved(newly_dirty, segment_free);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.acker.shared.state();
        if let Some(reader) = state
            .readers
            .get_mut(&self.acker.name)
            .filter(|reader| reader.handle == Some(self.acker.handle))
        {
            reader.handle = None;
            state.trim_memory();
        }
    }
}
