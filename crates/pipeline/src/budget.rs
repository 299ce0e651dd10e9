//! Why: memory is a resource that is asked for before it is used. Whoever reads a body, inflates it or holds rows reserves the bytes first
//! and answers "later" when they are not to be had, so that overload is a refusal rather than a death by memory.
//!
//! A budget is a node of a tree; reserving counts in the node and in all nodes above it, and succeeds only if all of them allow it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A node of the tree. Clones are the same node.
#[derive(Debug, Clone)]
pub struct Budget {
    node: Arc<Node>,
}

#[derive(Debug)]
struct Node {
    name: Arc<str>,
    limit_bytes: AtomicU64,
    used_bytes: AtomicU64,
    peak_bytes: AtomicU64,
    refusals: AtomicU64,
    parent: Option<Budget>,
}

impl Budget {
    /// The root of a tree. `limit_bytes` may be moved later ([`Budget::set_limit`]).
    pub fn root(name: impl Into<Arc<str>>, limit_bytes: u64) -> Budget {
        Budget::node(name.into(), limit_bytes, None)
    }

    /// A part of this budget with a bound of its own; what it uses counts here too.
    pub fn child(&self, name: impl Into<Arc<str>>, limit_bytes: u64) -> Budget {
        Budget::node(name.into(), limit_bytes, Some(self.clone()))
    }

    fn node(name: Arc<str>, limit_bytes: u64, parent: Option<Budget>) -> Budget {
        Budget {
            node: Arc::new(Node {
                name,
                limit_bytes: AtomicU64::new(limit_bytes),
                used_bytes: AtomicU64::new(0),
                peak_bytes: AtomicU64::new(0),
                refusals: AtomicU64::new(0),
                parent,
            }),
        }
    }

    pub fn name(&self) -> &str {
        &self.node.name
    }

    pub fn limit_bytes(&self) -> u64 {
        self.node.limit_bytes.load(Ordering::Relaxed)
    }

    pub fn used_bytes(&self) -> u64 {
        self.node.used_bytes.load(Ordering::Relaxed)
    }

    /// The most that was reserved at once since the start.
    pub fn peak_bytes(&self) -> u64 {
        self.node.peak_bytes.load(Ordering::Relaxed)
    }

    /// How often somebody was turned away here.
    pub fn refusals(&self) -> u64 {
        self.node.refusals.load(Ordering::Relaxed)
    }

    /// Moves the bound. What is reserved beyond a lowered bound stays; new reservations wait until it is used up no more.
    pub fn set_limit(&self, limit_bytes: u64) {
        self.node.limit_bytes.store(limit_bytes, Ordering::Relaxed);
    }

    /// Reserves `bytes`, or says no at once. The lease gives them back when it is dropped.
    pub fn try_reserve(&self, bytes: u64) -> Option<Lease> {
        self.take(bytes).then(|| Lease {
            budget: self.clone(),
            bytes,
        })
    }

    fn take(&self, bytes: u64) -> bool {
        let node = &self.node;
        let limit = node.limit_bytes.load(Ordering::Relaxed);
        let taken = node
            .used_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= limit)
            });
        let Ok(before) = taken else {
            node.refusals.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        if let Some(parent) = &node.parent
            && !parent.take(bytes)
        {
            node.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        node.peak_bytes.fetch_max(before + bytes, Ordering::Relaxed);
        true
    }

    fn give_back(&self, bytes: u64) {
        let mut next = Some(self);
        while let Some(budget) = next {
            budget.node.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
            next = budget.node.parent.as_ref();
        }
    }
}

/// Reserved bytes; dropping it gives them back.
#[derive(Debug)]
#[must_use = "a lease that is dropped gives its bytes back"]
pub struct Lease {
    budget: Budget,
    bytes: u64,
}

impl Lease {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reserves `more` on top; on `false` nothing has changed.
    #[must_use]
    pub fn grow(&mut self, more: u64) -> bool {
        let grown = self.budget.take(more);
        if grown {
            self.bytes += more;
        }
        grown
    }

    /// Gives back all but `to` bytes. Asking for more than is held changes nothing.
    pub fn shrink(&mut self, to: u64) {
        if let Some(less) = self.bytes.checked_sub(to) {
            self.bytes = to;
            self.budget.give_back(less);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_child_is_bound_by_itself_and_by_all_above() {
        let root = Budget::root("process", 100);
        let doors = root.child("doors", 80);
        let queries = root.child("queries", 80);
        let door = doors.try_reserve(70).expect("within both bounds");
        assert!(doors.try_reserve(20).is_none(), "its own bound");
        assert!(queries.try_reserve(40).is_none(), "the root's bound");
        assert_eq!(
            (queries.used_bytes(), root.used_bytes()),
            (0, 70),
            "a refusal leaves nothing behind"
        );
        drop(door);
        assert_eq!((doors.used_bytes(), root.used_bytes(), root.peak_bytes()), (0, 0, 70));
    }

    #[test]
    fn an_absurd_length_is_a_refusal_not_an_overflow() {
        let root = Budget::root("process", u64::MAX);
        let mut one = root.try_reserve(1).expect("one byte");
        assert!(!one.grow(u64::MAX));
        assert_eq!(one.bytes(), 1);
    }

    proptest! {
        /// Whatever is reserved, grown, shrunk and dropped: the counts equal the sum of what is held, and no bound is passed.
        #[test]
        fn counts_equal_what_is_held(steps in proptest::collection::vec((0u8..4, 0usize..2, 0u64..60), 1..200)) {
            let root = Budget::root("process", 100);
            let children = [root.child("a", 70), root.child("b", 70)];
            let mut held: Vec<(usize, Lease)> = Vec::new();
            for (step, child, bytes) in steps {
                match step {
                    0 => held.extend(children[child].try_reserve(bytes).map(|lease| (child, lease))),
                    1 => if let Some((_, lease)) = held.first_mut() { let _ = lease.grow(bytes); },
                    2 => if let Some((_, lease)) = held.last_mut() { lease.shrink(bytes); },
                    _ => drop(held.pop()),
                }
                let sum = |c: usize| held.iter().filter(|(of, _)| *of == c).map(|(_, lease)| lease.bytes()).sum::<u64>();
                prop_assert_eq!(children[0].used_bytes(), sum(0));
                prop_assert_eq!(children[1].used_bytes(), sum(1));
                prop_assert_eq!(root.used_bytes(), sum(0) + sum(1));
                prop_assert!(sum(0) <= 70 && sum(1) <= 70 && sum(0) + sum(1) <= 100);
            }
        }
    }
}
