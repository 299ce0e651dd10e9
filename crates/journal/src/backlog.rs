//! Reads for readers that lag behind memory, on a thread of its own: waiting for a disk would stand in the way of a
//! runtime's other tasks.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::disk::Open;
use crate::format::segment_name;
use crate::settings::{Delivery, Record};
use crate::shared::{Shared, lock};
use crate::state::{Entry, Position};
use crate::status::Damage;
use crate::walk::{Bodies, Extent, Step, Walk};

/// The most that one read brings into memory, whatever its reader asks for; a single larger record still comes.
const READ_LIMIT_BYTES: usize = 8 << 20;

pub(crate) struct Read {
    pub name: Arc<str>,
    pub generation: u64,
    pub max_records: usize,
    pub max_bytes: usize,
}

#[derive(Default)]
struct Reads {
    waiting: VecDeque<Read>,
    closed: bool,
}

/// The reads that wait; one per reader at most.
#[derive(Default)]
pub(crate) struct Backlog {
    reads: Mutex<Reads>,
    work: Condvar,
}

impl Backlog {
    pub(crate) fn submit(&self, read: Read) {
        lock(&self.reads).waiting.push_back(read);
        self.work.notify_one();
    }

    pub(crate) fn close(&self) {
        lock(&self.reads).closed = true;
        self.work.notify_one();
    }

    #[cfg(test)]
    pub(crate) fn perform_one(&self, shared: &Shared) -> bool {
        let read = lock(&self.reads).waiting.pop_front();
        read.map(|read| perform(shared, &read)).is_some()
    }

    /// Until closed.
    pub(crate) fn run(&self, shared: &Shared) {
        loop {
            let read = {
                let mut reads = lock(&self.reads);
                loop {
                    if reads.closed {
                        return;
                    }
                    match reads.waiting.pop_front() {
                        Some(read) => break read,
                        None => reads = self.work.wait(reads).unwrap_or_else(PoisonError::into_inner),
                    }
                }
            };
            perform(shared, &read);
        }
    }
}

fn perform(shared: &Shared, read: &Read) {
    let (position, stream, done, segment, id) = {
        let state = shared.state();
        let Some(reader) = state
            .readers
            .get(&read.name)
            .filter(|reader| reader.generation == read.generation)
        else {
            return;
        };
        let segment = state.segment(reader.position.segment).cloned();
        (
            reader.position,
            reader.stream.clone(),
            reader.done.clone(),
            segment,
            state.id,
        )
    };
    let mut entries = VecDeque::new();
    let mut end = position;
    let mut exhausted = true;
    let mut damage = Vec::new();
    let file = segment.and_then(|segment| {
        let path = shared.path(&segment_name(segment.number));
        match shared.disk.open(&path, Open::Read) {
            Ok(file) => Some((segment, file)),
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "a journal segment could not be opened; its records are passed over");
                None
            }
        }
    });
    if let Some((segment, file)) = file {
        let max_bytes = read.max_bytes.min(READ_LIMIT_BYTES);
        let mut expected = position.seq.max(segment.first_seq);
        let extent = Extent {
            from: position.offset,
            end: segment.data_end,
            min_seq: expected,
            below_seq: segment.next_seq,
        };
        let mut walk = Walk::new(&*file, id, extent, Bodies::Check);
        let mut broken: Option<(u64, u64)> = None;
        let mut bytes = 0;
        let mut note = |broken: &mut Option<(u64, u64)>, lost_records| {
            if let Some((offset, bytes)) = broken.take() {
                damage.push(Damage {
                    segment: segment_name(segment.number),
                    offset,
                    bytes,
                    lost_records,
                    acknowledged: true,
                });
            }
        };
        loop {
            if entries.len() >= read.max_records {
                exhausted = false;
                break;
            }
            match walk.step() {
                Step::Record {
                    head,
                    stream: found,
                    header,
                    payload,
                    ..
                } => {
                    note(&mut broken, head.seq - expected);
                    let wanted = found == stream.as_bytes() && !done.contains(head.seq);
                    let size = stream.len() + header.len() + payload.len();
                    if wanted && !entries.is_empty() && bytes + size > max_bytes {
                        exhausted = false;
                        break;
                    }
                    expected = head.seq + 1;
                    end = Position {
                        seq: expected,
                        segment: segment.number,
                        offset: walk.offset(),
                    };
                    if wanted {
                        bytes += size;
                        entries.push_back(Entry {
                            delivery: Delivery {
                                seq: head.seq,
                                record: Record {
                                    stream: stream.clone(),
                                    header,
                                    payload,
                                },
                                appended_at_unix_nano: head.appended_at_unix_nano,
                            },
                            segment: segment.number,
                            end_offset: walk.offset(),
                            frame_bytes: head.frame_bytes(),
                        });
                    }
                }
                Step::Damaged { offset, bytes } => {
                    let so_far = broken.get_or_insert((offset, 0));
                    so_far.1 = offset + bytes - so_far.0;
                }
                Step::End { offset, .. } => {
                    if offset < segment.data_end || broken.is_some() {
                        let so_far = broken.get_or_insert((offset, 0));
                        so_far.1 = segment.data_end - so_far.0;
                        note(&mut broken, segment.next_seq - expected);
                    }
                    end = Position {
                        seq: segment.next_seq,
                        segment: segment.number,
                        offset: segment.data_end,
                    };
                    break;
                }
            }
        }
    }
    let wakers = {
        let mut state = shared.state();
        for damage in damage {
            if state.note_damage(damage.clone()) {
                tracing::error!(?damage, "a journal segment is damaged; its other records are delivered");
            }
        }
        state.finish_read(&read.name, read.generation, entries, end, exhausted);
        let reader = state.readers.get_mut(&read.name);
        reader
            .map(|reader| std::mem::take(&mut reader.wakers))
            .unwrap_or_default()
    };
    wakers.into_iter().for_each(std::task::Waker::wake);
}
