//! The one queue between a request and everything slow: bounded, never blocking its producers, and when it is full the
//! oldest item makes room, because what happened last explains an incident best.
//!
//! Waking a sleeping thread costs more than the rest of a request's telemetry together. A producer therefore wakes the
//! consumer only when the queue was empty or a full batch is waiting; in between the consumer lingers on a timer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bounds of one queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Items held at most.
    pub capacity: usize,
    /// Bytes held at most, by the weights that producers declare.
    pub max_bytes: usize,
    /// Items the consumer takes at once; reaching it wakes the consumer before its timer does.
    pub batch: usize,
    /// How long the first item waits for company.
    pub linger: Duration,
}

struct State<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    consumer_idle: bool,
    closed: bool,
    finished: bool,
    flush_wanted: u64,
    flush_done: u64,
}

pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
    flushed: Condvar,
    bounds: Bounds,
    dropped: AtomicU64,
}

/// What a consumer got; handed back to [`Queue::done`] when the batch is out of the process.
pub(crate) struct Taken {
    /// The flush requests that this batch completes, if it emptied the queue.
    completes: Option<u64>,
}

impl<T> Queue<T> {
    pub(crate) fn new(bounds: Bounds) -> Queue<T> {
        Queue {
            state: Mutex::new(State {
                items: VecDeque::with_capacity(bounds.capacity.min(INITIAL_ITEMS)),
                bytes: 0,
                consumer_idle: false,
                closed: false,
                finished: false,
                flush_wanted: 0,
                flush_done: 0,
            }),
            ready: Condvar::new(),
            flushed: Condvar::new(),
            bounds,
            dropped: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code that can panic runs under this lock, so a poisoned queue is still a consistent one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one item of about `bytes` bytes. Never waits; pushes the oldest out when full. After [`Queue::close`] the
    /// item itself is dropped and counted.
    pub(crate) fn push(&self, item: T, bytes: usize) {
        let mut evicted: Option<T> = None;
        let wake;
        {
            let mut state = self.lock();
            if state.closed || bytes > self.bounds.max_bytes {
                drop(state);
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            while state.items.len() >= self.bounds.capacity || state.bytes + bytes > self.bounds.max_bytes {
                let Some((old, weight)) = state.items.pop_front() else {
                    break;
                };
                state.bytes -= weight;
                self.dropped.fetch_add(1, Ordering::Relaxed);
                // One evicted item is the usual case; dropping it outside the lock keeps producers short. Should a
                // heavy item push out several, the earlier ones are dropped here.
                evicted = Some(old);
            }
            state.items.push_back((item, bytes));
            state.bytes += bytes;
            wake = state.consumer_idle || state.items.len() == self.bounds.batch;
            if wake {
                state.consumer_idle = false;
            }
        }
        if wake {
            self.ready.notify_one();
        }
        drop(evicted);
    }

    /// Waits for work and moves up to one batch into `out`. `None`: closed and empty.
    pub(crate) fn take(&self, out: &mut Vec<T>) -> Option<Taken> {
        let mut state = self.lock();
        while state.items.is_empty() {
            if state.flush_wanted > state.flush_done {
                return Some(Taken {
                    completes: Some(state.flush_wanted),
                });
            }
            if state.closed {
                return None;
            }
            state.consumer_idle = true;
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.consumer_idle = false;
        let deadline = Instant::now() + self.bounds.linger;
        while state.items.len() < self.bounds.batch && !state.closed && state.flush_wanted == state.flush_done {
            let now = Instant::now();
            if now >= deadline {
                break;
            }
            state = self
                .ready
                .wait_timeout(state, deadline - now)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        let count = state.items.len().min(self.bounds.batch);
        let mut bytes = 0;
        for (item, weight) in state.items.drain(..count) {
            bytes += weight;
            out.push(item);
        }
        state.bytes -= bytes;
        let completes = state.items.is_empty().then_some(state.flush_wanted);
        Some(Taken { completes })
    }

    /// Says that everything of `taken` has been handled.
    pub(crate) fn done(&self, taken: Taken) {
        let Some(upto) = taken.completes else { return };
        let mut state = self.lock();
        if upto > state.flush_done {
            state.flush_done = upto;
            drop(state);
            self.flushed.notify_all();
        }
    }

    /// Says that the consumer has ended; nobody waits for it any more.
    pub(crate) fn finish(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.finished = true;
        drop(state);
        self.flushed.notify_all();
    }

    /// Waits until everything pushed before this call has been handled. False: the time was not enough.
    pub(crate) fn flush(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        if state.finished {
            return state.items.is_empty();
        }
        state.flush_wanted += 1;
        let wanted = state.flush_wanted;
        state.consumer_idle = false;
        self.ready.notify_one();
        while state.flush_done < wanted && !state.finished {
            let now = Instant::now();
            if now >= deadline {
                return false;
            }
            state = self
                .flushed
                .wait_timeout(state, deadline - now)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        state.flush_done >= wanted
    }

    /// Takes nothing more; the consumer empties what is there and ends.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_one();
    }

    /// Items lost to the bound since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Room reserved at the start; the queue grows to its capacity only under load.
const INITIAL_ITEMS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn bounds(capacity: usize, max_bytes: usize, batch: usize) -> Bounds {
        Bounds {
            capacity,
            max_bytes,
            batch,
            linger: Duration::ZERO,
        }
    }

    fn drain(queue: &Queue<u32>) -> Vec<u32> {
        let mut out = Vec::new();
        queue.close();
        while let Some(taken) = queue.take(&mut out) {
            queue.done(taken);
        }
        out
    }

    #[test]
    fn a_full_queue_drops_the_oldest_and_counts() {
        let queue = Queue::new(bounds(3, 100, 2));
        for n in 0..10 {
            queue.push(n, 1);
        }
        assert_eq!(queue.dropped(), 7);
        assert_eq!(drain(&queue), [7, 8, 9]);
    }

    #[test]
    fn bytes_are_a_bound_too() {
        let queue = Queue::new(bounds(100, 10, 4));
        queue.push(1, 4);
        queue.push(2, 4);
        queue.push(3, 8);
        queue.push(4, 11);
        assert_eq!(queue.dropped(), 3, "two evicted, one that can never fit");
        assert_eq!(drain(&queue), [3]);
    }

    #[test]
    fn what_comes_after_close_is_counted_as_lost() {
        let queue = Queue::new(bounds(4, 100, 4));
        queue.push(1, 1);
        queue.close();
        queue.push(2, 1);
        assert_eq!(queue.dropped(), 1);
        assert_eq!(drain(&queue), [1]);
    }

    #[test]
    fn a_flush_returns_after_everything_before_it_was_handled() {
        let queue = Arc::new(Queue::new(Bounds {
            linger: Duration::from_secs(3600),
            ..bounds(1000, 10_000, 7)
        }));
        let handled = Arc::new(AtomicU64::new(0));
        let consumer = std::thread::spawn({
            let (queue, handled) = (queue.clone(), handled.clone());
            move || {
                let mut out = Vec::new();
                while let Some(taken) = queue.take(&mut out) {
                    handled.fetch_add(out.len() as u64, Ordering::SeqCst);
                    out.clear();
                    queue.done(taken);
                }
                queue.finish();
            }
        });
        for n in 0..100 {
            queue.push(n, 1);
        }
        assert!(queue.flush(Duration::from_secs(60)));
        assert_eq!(handled.load(Ordering::SeqCst), 100);
        assert!(queue.flush(Duration::from_secs(60)), "empty queues flush at once");
        queue.close();
        consumer.join().expect("the consumer ends after close");
        assert!(queue.flush(Duration::ZERO), "a finished queue has nothing to wait for");
    }

    #[test]
    fn a_flush_that_nobody_serves_gives_up() {
        let queue: Queue<u32> = Queue::new(bounds(4, 100, 4));
        queue.push(1, 1);
        assert!(!queue.flush(Duration::ZERO));
    }
}
