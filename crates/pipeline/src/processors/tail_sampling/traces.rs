//! Why: what is known of each trace, small and bounded: of one that waits what its policies need, of one that is decided about a bit and its id.

use std::collections::VecDeque;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use model::id::TraceId;

use super::policies::Bits;
use crate::budget::{Budget, Lease};

/// What policies need to know of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trace {
    pub id: TraceId,
    /// Which conditions one of its spans met.
    pub bits: Bits,
    /// What arrives later comes too late to count.
    pub closes_at_unix_nano: u64,
    /// The first start of a span.
    pub start_unix_nano: u64,
    /// The last end of one.
    pub end_unix_nano: u64,
    /// 0 once it is decided about.
    pub spans: u32,
    pub bytes: u32,
}

/// How it stands with a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Unknown,
    /// At this place among those that wait.
    Waiting(usize),
    Kept,
    Dropped,
}

/// A number of those that wait, or a decision. Numbers begin again after 2^30, of which far fewer wait.
type Slot = u32;
const KEPT: Slot = 3 << 30;
const DROPPED: Slot = 2 << 30;
const NUMBER: Slot = (1 << 30) - 1;

pub(super) struct Traces {
    /// Hashed with a seed of this process, so that nobody can choose ids that collide.
    slots: HashMap<TraceId, Slot, RandomState>,
    /// In the order in which they were first seen. The first one is never decided about.
    waiting: VecDeque<Trace>,
    /// The number of the first.
    first: Slot,
    /// In the order in which they were decided about.
    dropped: VecDeque<TraceId>,
    kept: VecDeque<TraceId>,
    max_waiting: usize,
    max_kept: usize,
    max_dropped: usize,
    lease: Option<Lease>,
}

impl Traces {
    pub fn new(max_waiting: usize, max_kept: usize, max_dropped: usize) -> Traces {
        Traces {
            slots: HashMap::default(),
            waiting: VecDeque::new(),
            first: 0,
            dropped: VecDeque::new(),
            kept: VecDeque::new(),
            max_waiting,
            max_kept,
            max_dropped,
            lease: None,
        }
    }

    /// From now on what it holds is counted here.
    pub fn count_in(&mut self, budget: &Budget) {
        self.lease = Some(budget.charge(self.size_bytes()));
    }

    pub fn size_bytes(&self) -> u64 {
        let ids = (self.dropped.capacity() + self.kept.capacity()) * size_of::<TraceId>();
        (self.slots.allocation_size() + self.waiting.capacity() * size_of::<Trace>() + ids) as u64
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub fn decided(&self) -> usize {
        self.kept.len() + self.dropped.len()
    }

    pub fn is_full(&self) -> bool {
        self.waiting.len() >= self.max_waiting
    }

    pub fn fate(&self, id: &TraceId) -> Fate {
        match self.slots.get(id) {
            None => Fate::Unknown,
            Some(&KEPT) => Fate::Kept,
            Some(&DROPPED) => Fate::Dropped,
            Some(number) => Fate::Waiting((number.wrapping_sub(self.first) & NUMBER) as usize),
        }
    }

    pub fn at(&mut self, place: usize) -> Option<&mut Trace> {
        self.waiting.get_mut(place)
    }

    /// Has an unknown trace wait; its place. Whether there is room is for the caller to ask.
    pub fn wait(&mut self, trace: Trace) -> usize {
        self.make_room();
        let place = self.waiting.len();
        let number = self.first.wrapping_add(place as u32) & NUMBER;
        self.slots.insert(trace.id, number);
        self.waiting.push_back(trace);
        place
    }

    /// A trace that waits is decided about: it is remembered, and waits no longer.
    pub fn decide(&mut self, place: usize, keep: bool) {
        let Some(trace) = self.waiting.get_mut(place) else {
            return;
        };
        trace.spans = 0;
        let id = trace.id;
        while self.waiting.front().is_some_and(|trace| trace.spans == 0) {
            self.waiting.pop_front();
            self.first = self.first.wrapping_add(1) & NUMBER;
        }
        self.remember(id, keep);
    }

    /// Remembers a decision, until there are too many and [`Traces::trim`] is called.
    pub fn remember(&mut self, id: TraceId, keep: bool) {
        let (decided, slot) = match keep {
            true => (&mut self.kept, KEPT),
            false => (&mut self.dropped, DROPPED),
        };
        // What is said twice by what was remembered has its place already.
        if self.slots.insert(id, slot) != Some(slot) {
            decided.push_back(id);
        }
    }

    /// Forgets the oldest decisions of which there are too many. Not done while a batch is looked at, whose spans need them.
    pub fn trim(&mut self) {
        let beyond = [
            self.kept.len().saturating_sub(self.max_kept),
            self.dropped.len().saturating_sub(self.max_dropped),
        ];
        self.forget(beyond);
        self.settle();
    }

    pub fn forget_decisions(&mut self) {
        for id in self.kept.drain(..).chain(self.dropped.drain(..)) {
            self.slots.remove(&id);
        }
    }

    /// All decisions, the oldest of each kind first.
    pub fn decisions(&self) -> impl Iterator<Item = (TraceId, bool)> {
        let kept = self.kept.iter().map(|id| (*id, true));
        kept.chain(self.dropped.iter().map(|id| (*id, false)))
    }

    /// If the table would have to grow and memory is short, half of the decisions are forgotten instead.
    fn make_room(&mut self) {
        let Some(lease) = &mut self.lease else { return };
        if self.slots.len() < self.slots.capacity() || lease.grow(self.slots.allocation_size() as u64) {
            return;
        }
        self.forget([self.kept.len().div_ceil(2), self.dropped.len().div_ceil(2)]);
    }

    /// Forgets so many of the oldest that were kept, and that were dropped.
    fn forget(&mut self, [kept, dropped]: [usize; 2]) {
        let kept = self.kept.drain(..kept).map(|id| (id, KEPT));
        for (id, slot) in kept.chain(self.dropped.drain(..dropped).map(|id| (id, DROPPED))) {
            // What was decided about again, the other way, is still remembered.
            if self.slots.get(&id) == Some(&slot) {
                self.slots.remove(&id);
            }
        }
    }

    /// Makes what is counted what is held. Bounded by the numbers of traces, so it is not refused here.
    fn settle(&mut self) {
        let held = self.size_bytes();
        if let Some(lease) = &mut self.lease {
            match held.checked_sub(lease.bytes()) {
                Some(0) => {}
                Some(more) => lease.charge(more),
                None => lease.shrink(held),
            }
        }
    }
}
