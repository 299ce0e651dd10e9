//! Why: what a reader has taken from the journal and not yet put into a request. Batches whose records carry different metadata wait apart, each value with
//! its own size and time, so that no request mixes two and a value of which little comes does not wait for the others.

use std::collections::{HashMap, VecDeque};

use journal::{Delivery, Seq};
use model::{Batch, Headers};
use tokio::time::Instant;

use super::MAX_REQUEST_BYTES;
use crate::budget::Lease;
use crate::processors::Take;

/// What waits for all values together, inflated: five full requests. At this the oldest is sent, be it full or not.
const MAX_WAITING_BYTES: u64 = 5 * MAX_REQUEST_BYTES as u64;

/// Records that wait for all values together. They are acknowledged out of their order, and a cursor remembers twice as many ranges.
const MAX_WAITING_RECORDS: usize = 8 * 1024;

/// What was delivered and is in no request yet.
pub(super) struct Waiting {
    /// Not yet inflated.
    pub raw: VecDeque<Delivery>,
    /// Without metadata: everything, where none is kept.
    plain: Queue,
    /// By their metadata; none of them is empty.
    apart: HashMap<Headers, Queue>,
    records: usize,
    /// Whether a queue is full, or all together are.
    is_enough: bool,
    held: Lease,
}

/// Batches that may be sent together.
#[derive(Default)]
struct Queue {
    batches: VecDeque<(Seq, Batch)>,
    items: u64,
    bytes: u64,
    /// When the first came, or the last request was made of it. None while it is empty.
    since: Option<Instant>,
}

impl Queue {
    fn is_full(&self, take: &Take) -> bool {
        self.items >= u64::from(take.items) || self.bytes >= MAX_REQUEST_BYTES as u64
    }

    fn pop(&mut self) -> Option<(Seq, Batch)> {
        let (seq, batch) = self.batches.pop_front()?;
        self.items -= u64::from(batch.items);
        self.bytes -= batch.payload.len() as u64;
        if self.batches.is_empty() {
            self.since = None;
        }
        Some((seq, batch))
    }

    /// Its first batches that fit a request, at least one.
    fn request(&mut self, take: &Take) -> Vec<(Seq, Batch)> {
        let mut taken: Vec<(Seq, Batch)> = Vec::new();
        let (mut items, mut bytes) = (0u64, 0usize);
        let max_items = u64::from(take.max_items.unwrap_or(u32::MAX));
        while let Some((_, batch)) = self.batches.front() {
            let full = items >= u64::from(take.items);
            let over = items + u64::from(batch.items) > max_items || bytes + batch.payload.len() > MAX_REQUEST_BYTES;
            if !taken.is_empty() && (full || over) {
                break;
            }
            items += u64::from(batch.items);
            bytes += batch.payload.len();
            taken.extend(self.pop());
        }
        if self.since.is_some() {
            self.since = Some(Instant::now());
        }
        taken
    }
}

impl Waiting {
    /// `held` counts what is inflated.
    pub fn new(held: Lease) -> Waiting {
        Waiting {
            raw: VecDeque::new(),
            plain: Queue::default(),
            apart: HashMap::new(),
            records: 0,
            is_enough: false,
            held,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Whether a request is to be sent now, however short the time was.
    pub fn is_enough(&self) -> bool {
        self.is_enough
    }

    pub fn push(&mut self, take: &Take, seq: Seq, batch: Batch) {
        let headers = &batch.meta.headers;
        let queue = if headers.is_empty() {
            &mut self.plain
        } else {
            if !self.apart.contains_key(headers) {
                self.apart.insert(headers.clone(), Queue::default());
            }
            self.apart.get_mut(headers).expect("just put there")
        };
        let bytes = batch.payload.len() as u64;
        queue.since.get_or_insert_with(Instant::now);
        queue.items += u64::from(batch.items);
        queue.bytes += bytes;
        queue.batches.push_back((seq, batch));
        let is_full = queue.is_full(take);
        self.records += 1;
        self.held.charge(bytes);
        self.is_enough |= is_full || self.is_at_bound();
    }

    /// When the time of the one that waits longest is up.
    pub fn deadline(&self, take: &Take) -> Option<Instant> {
        self.queues()
            .filter_map(|queue| queue.since)
            .min()
            .map(|since| since + take.wait)
    }

    /// The oldest batch of all.
    pub fn pop_oldest(&mut self, take: &Take) -> Option<(Seq, Batch)> {
        let first = |queue: &Queue| queue.batches.front().map(|(seq, _)| *seq);
        let least = self.queues().filter_map(first).min()?;
        let headers = self.which(|queue| first(queue) == Some(least));
        let popped = self.with_queue(headers, take, Queue::pop);
        self.held
            .shrink(self.held.bytes() - popped.as_ref().map_or(0, |(_, batch)| batch.payload.len() as u64));
        popped
    }

    /// The batches of the next request: of those values that fill one or whose time is up, that which waits longest; else of all.
    pub fn next_request(&mut self, take: &Take) -> Vec<(Seq, Batch)> {
        let now = Instant::now();
        let is_due = |queue: &&Queue| queue.is_full(take) || queue.since.is_some_and(|since| since + take.wait <= now);
        let due = self.queues().filter(is_due).filter_map(|queue| queue.since).min();
        let longest = due.or_else(|| self.queues().filter_map(|queue| queue.since).min());
        let headers =
            self.which(|queue| queue.since.is_some() && queue.since == longest && (due.is_none() || is_due(&queue)));
        let taken = self.with_queue(headers, take, |queue| queue.request(take));
        let bytes: u64 = taken.iter().map(|(_, batch)| batch.payload.len() as u64).sum();
        self.held.shrink(self.held.bytes() - bytes);
        taken
    }

    fn queues(&self) -> impl Iterator<Item = &Queue> {
        std::iter::once(&self.plain).chain(self.apart.values())
    }

    /// The metadata of the first queue that is meant; that without, if none is.
    fn which(&self, is_it: impl Fn(&Queue) -> bool) -> Headers {
        if is_it(&self.plain) {
            return Headers::new();
        }
        let found = self.apart.iter().find(|(_, queue)| is_it(queue));
        found.map(|(headers, _)| headers.clone()).unwrap_or_default()
    }

    /// Takes something out of a queue.
    fn with_queue<T>(&mut self, headers: Headers, take: &Take, act: impl FnOnce(&mut Queue) -> T) -> T {
        let queue = match self.apart.get_mut(&headers) {
            Some(queue) => queue,
            None => &mut self.plain,
        };
        let before = queue.batches.len();
        let taken = act(queue);
        self.records -= before - queue.batches.len();
        if queue.batches.is_empty() {
            self.apart.remove(&headers);
        }
        self.is_enough = self.is_at_bound() || self.queues().any(|queue| queue.is_full(take));
        taken
    }

    fn is_at_bound(&self) -> bool {
        !self.apart.is_empty() && (self.held.bytes() >= MAX_WAITING_BYTES || self.records >= MAX_WAITING_RECORDS)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use model::Meta;

    use super::*;
    use crate::budget::Budget;
    use crate::testing::spans;

    /// Two spans of a tenant.
    fn of(tenant: &str) -> Batch {
        let batch = spans(0..2);
        let headers = vec![("x-tenant".into(), tenant.into())];
        let meta = Meta {
            headers,
            ..Meta::clone(&batch.meta)
        };
        Batch {
            meta: Arc::new(meta),
            ..batch
        }
    }

    fn take(items: u32, wait: Duration) -> Take {
        Take {
            items,
            wait,
            ..Take::default()
        }
    }

    fn seqs(taken: &[(Seq, Batch)]) -> Vec<Seq> {
        taken.iter().map(|(seq, _)| *seq).collect()
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_full_value_does_not_wait_for_those_that_are_not() {
        let (budget, take) = (Budget::root("test", u64::MAX), take(4, HOUR));
        let mut waiting = Waiting::new(budget.charge(0));
        waiting.push(&take, 1, of("a"));
        waiting.push(&take, 2, spans(0..2));
        waiting.push(&take, 3, of("b"));
        assert!(!waiting.is_enough());
        waiting.push(&take, 4, of("b"));
        assert!(waiting.is_enough());
        assert_eq!(seqs(&waiting.next_request(&take)), [3, 4]);
        assert!(!waiting.is_enough() && !waiting.is_empty());
        // Nothing is full and no time is up, but the graph wants all that is left.
        let rest = [waiting.next_request(&take), waiting.next_request(&take)];
        assert_eq!(rest.map(|taken| seqs(&taken)), [[1], [2]]);
        assert!(waiting.is_empty() && waiting.next_request(&take).is_empty());
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn whose_time_is_up_goes_before_one_that_is_full_and_came_later() {
        let (budget, take) = (Budget::root("test", u64::MAX), take(4, Duration::ZERO));
        let mut waiting = Waiting::new(budget.charge(0));
        for (seq, tenant) in [(1, "rare"), (2, "often"), (3, "often"), (4, "often"), (5, "often")] {
            waiting.push(&take, seq, of(tenant));
        }
        let taken = [(); 3].map(|()| seqs(&waiting.next_request(&take)));
        assert_eq!(taken, [vec![1], vec![2, 3], vec![4, 5]]);
    }

    #[test]
    fn all_together_are_bounded_and_the_oldest_is_given_up_first() {
        let (budget, take) = (Budget::root("test", u64::MAX), take(4, HOUR));
        let mut waiting = Waiting::new(budget.charge(0));
        let records = MAX_WAITING_RECORDS as u64;
        for seq in 1..records {
            waiting.push(&take, seq, of(&format!("tenant {seq}")));
        }
        assert!(!waiting.is_enough());
        waiting.push(&take, records, of("one more"));
        assert!(waiting.is_enough());
        assert_eq!(waiting.pop_oldest(&take).map(|(seq, _)| seq), Some(1));
        assert!(!waiting.is_enough());
        assert_eq!(seqs(&waiting.next_request(&take)), [2]);
    }
}
