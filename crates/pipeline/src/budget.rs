//! Why: memory is a resource that is asked for before it is used. Whoever reads a body, inflates it or holds rows reserves the bytes first
//! and answers "later" when they are not to be had, so that overload is a refusal rather than a death by memory.
//!
//! A budget is a node of a tree; reserving counts in the node and in all nodes above it, and succeeds only if all of them allow it. Who keeps a bound of
//! his own, as the store does, is watched: what he holds leaves the others so much less.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use serde::Serialize;

/// What a part of the tree holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    pub used_bytes: u64,
    pub limit_bytes: u64,
    /// The most that was held at once since the start.
    pub peak_bytes: u64,
}

/// A node with everything below it, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    pub name: String,
    #[serde(flatten)]
    pub usage: Usage,
    /// How often somebody was turned away here.
    pub refusals: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Report>,
}

/// Somebody who counts by himself. Asked at every reservation, so it loads counters and takes no lock.
pub struct Watched {
    pub name: &'static str,
    pub usage: Box<dyn Fn() -> Usage + Send + Sync>,
}

/// A node of the tree. Clones are the same node.
#[derive(Debug, Clone)]
pub struct Budget {
    node: Arc<Node>,
}

struct Node {
    name: Arc<str>,
    limit_bytes: AtomicU64,
    used_bytes: AtomicU64,
    peak_bytes: AtomicU64,
    refusals: AtomicU64,
    parent: Option<Budget>,
    children: Mutex<Vec<Weak<Node>>>,
    watched: OnceLock<Vec<Watched>>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Node {
    fn watched_bytes(&self) -> u64 {
        let watched = self.watched.get().map_or(&[][..], Vec::as_slice);
        watched.iter().map(|watched| (watched.usage)().used_bytes).sum()
    }

    /// `above_bytes` is what the nodes above allow.
    fn report(&self, above_bytes: u64) -> Report {
        let limit_bytes = self.limit_bytes.load(Ordering::Relaxed).min(above_bytes);
        let children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        let watched = self.watched.get().map_or(&[][..], Vec::as_slice).iter();
        let used_bytes = self.used_bytes.load(Ordering::Relaxed) + self.watched_bytes();
        Report {
            name: self.name.to_string(),
            usage: Usage {
                used_bytes,
                limit_bytes,
                peak_bytes: self.peak_bytes.fetch_max(used_bytes, Ordering::Relaxed).max(used_bytes),
            },
            refusals: self.refusals.load(Ordering::Relaxed),
            parts: children
                .iter()
                .filter_map(Weak::upgrade)
                .map(|child| child.report(limit_bytes))
                .chain(watched.map(|watched| Report {
                    name: watched.name.into(),
                    usage: (watched.usage)(),
                    refusals: 0,
                    parts: Vec::new(),
                }))
                .collect(),
        }
    }
}

impl Budget {
    /// The root of a tree. `limit_bytes` may be moved later ([`Budget::set_limit`]).
    pub fn root(name: impl Into<Arc<str>>, limit_bytes: u64) -> Budget {
        Budget::node(name.into(), limit_bytes, None)
    }

    /// A part of this budget with a bound of its own; what it uses counts here too.
    pub fn child(&self, name: impl Into<Arc<str>>, limit_bytes: u64) -> Budget {
        let child = Budget::node(name.into(), limit_bytes, Some(self.clone()));
        let mut children = self.node.children.lock().unwrap_or_else(PoisonError::into_inner);
        children.retain(|known| known.strong_count() > 0);
        children.push(Arc::downgrade(&child.node));
        child
    }

    /// Counts here what others hold who keep bounds of their own. To be said once, before the first reservation.
    pub fn watch(&self, watched: Vec<Watched>) {
        let said = self.node.watched.set(watched);
        debug_assert!(said.is_ok(), "who is watched is said once");
    }

    /// This node and all below it.
    pub fn report(&self) -> Report {
        self.node.report(u64::MAX)
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
                children: Mutex::default(),
                watched: OnceLock::new(),
            }),
        }
    }

    pub fn name(&self) -> &str {
        &self.node.name
    }

    pub fn limit_bytes(&self) -> u64 {
        self.node.limit_bytes.load(Ordering::Relaxed)
    }

    /// What is reserved, and what those hold who are watched.
    pub fn used_bytes(&self) -> u64 {
        self.node.used_bytes.load(Ordering::Relaxed) + self.node.watched_bytes()
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

    /// Counts `bytes` whether or not they are within the bound: for work that frees more than it takes, which must not wait.
    pub fn charge(&self, bytes: u64) -> Lease {
        self.add(bytes);
        Lease {
            budget: self.clone(),
            bytes,
        }
    }

    fn add(&self, bytes: u64) {
        let mut next = Some(self);
        while let Some(budget) = next {
            let before = budget.node.used_bytes.fetch_add(bytes, Ordering::Relaxed);
            budget.node.peak_bytes.fetch_max(before + bytes, Ordering::Relaxed);
            next = budget.node.parent.as_ref();
        }
    }

    fn take(&self, bytes: u64) -> bool {
        let node = &self.node;
        let watched = node.watched_bytes();
        let limit = node.limit_bytes.load(Ordering::Relaxed).saturating_sub(watched);
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
        node.peak_bytes.fetch_max(before + bytes + watched, Ordering::Relaxed);
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

    /// Counts `more` on top whether or not they are within the bound, as [`Budget::charge`] does.
    pub fn charge(&mut self, more: u64) {
        self.budget.add(more);
        self.bytes += more;
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

    #[test]
    fn what_is_watched_leaves_less_and_what_is_charged_is_never_refused() {
        let root = Budget::root("process", 100);
        let doors = root.child("doors", 100);
        let held = Arc::new(AtomicU64::new(60));
        let of_store = Arc::clone(&held);
        let usage = move || Usage {
            used_bytes: of_store.load(Ordering::Relaxed),
            limit_bytes: 80,
            peak_bytes: 70,
        };
        root.watch(vec![Watched {
            name: "store",
            usage: Box::new(usage),
        }]);
        assert!(doors.try_reserve(50).is_none(), "60 of 100 are held elsewhere");
        let reader = root.child("readers", 10).charge(30);
        assert_eq!(root.used_bytes(), 90);
        drop(reader);
        held.store(0, Ordering::Relaxed);
        let door = doors.try_reserve(50).expect("the store let go");
        let report = root.report();
        let parts: Vec<_> = report
            .parts
            .iter()
            .map(|part| (part.name.as_str(), part.usage.used_bytes))
            .collect();
        assert_eq!(parts, [("doors", 50), ("store", 0)], "a part that nobody holds is gone");
        assert_eq!((report.usage.used_bytes, report.refusals), (50, 1));
        drop(door);
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
