//! A set of sequence numbers as a low-water mark plus ranges above it: acknowledgements arrive nearly in order, so this
//! stays a handful of numbers where a set of every acknowledged number would grow without end.

use serde::{Deserialize, Serialize};

use crate::Seq;

/// Which sequence numbers are done: every one below `low`, and those in `ranges` (inclusive at both ends, ascending,
/// disjoint, not adjacent, all above `low`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranges {
    low: Seq,
    ranges: Vec<(Seq, Seq)>,
}

impl Ranges {
    /// Every number below `low`, nothing else.
    pub fn below(low: Seq) -> Ranges {
        Ranges {
            low,
            ranges: Vec::new(),
        }
    }

    /// Builds the set from parts in any order, overlapping or not; a range whose end lies before its start is empty.
    pub fn from_parts(low: Seq, ranges: impl IntoIterator<Item = (Seq, Seq)>) -> Ranges {
        let mut set = Ranges::below(low);
        for (first, last) in ranges {
            set.insert_range(first, last);
        }
        set
    }

    /// The low-water mark: the smallest number that is not in the set.
    pub fn low(&self) -> Seq {
        self.low
    }

    /// The ranges above the low-water mark, inclusive at both ends, ascending.
    pub fn ranges(&self) -> &[(Seq, Seq)] {
        &self.ranges
    }

    pub fn contains(&self, seq: Seq) -> bool {
        if seq < self.low {
            return true;
        }
        let after = self.ranges.partition_point(|&(first, _)| first <= seq);
        after > 0 && self.ranges[after - 1].1 >= seq
    }

    /// Adds one number; false when it was there already.
    pub fn insert(&mut self, seq: Seq) -> bool {
        if self.contains(seq) {
            return false;
        }
        self.insert_range(seq, seq);
        true
    }

    /// Adds every number from `first` to `last`, both included.
    pub fn insert_range(&mut self, first: Seq, last: Seq) {
        if last < first || last < self.low {
            return;
        }
        if first <= self.low {
            self.raise_low(last.saturating_add(1));
            return;
        }
        // Everything that overlaps or touches [first, last] becomes one range.
        let from = self.ranges.partition_point(|&(_, end)| end.saturating_add(1) < first);
        let to = self
            .ranges
            .partition_point(|&(start, _)| start <= last.saturating_add(1));
        let mut merged = (first, last);
        if from < to {
            merged.0 = merged.0.min(self.ranges[from].0);
            merged.1 = merged.1.max(self.ranges[to - 1].1);
        }
        self.ranges.splice(from..to, [merged]);
    }

    /// Adds every number below `low`.
    pub fn raise_low(&mut self, low: Seq) {
        if low <= self.low {
            return;
        }
        self.low = low;
        let gone = self.ranges.partition_point(|&(first, _)| first <= self.low);
        if let Some(&(_, last)) = self.ranges[..gone].last() {
            self.low = self.low.max(last.saturating_add(1));
        }
        self.ranges.drain(..gone);
        // Raising the mark can only have met ranges from below, so at most the next one touches it now.
        while self.ranges.first().is_some_and(|&(first, _)| first <= self.low) {
            let (_, last) = self.ranges.remove(0);
            self.low = self.low.max(last.saturating_add(1));
        }
    }

    /// Adds everything that `other` holds.
    pub fn merge(&mut self, other: &Ranges) {
        self.raise_low(other.low);
        for &(first, last) in &other.ranges {
            self.insert_range(first, last);
        }
    }

    /// What of the set lies below `end`.
    pub fn below_only(&self, end: Seq) -> Ranges {
        let ranges = self
            .ranges
            .iter()
            .filter(|range| range.0 < end)
            .map(|&(first, last)| (first, last.min(end - 1)));
        Ranges {
            low: self.low.min(end),
            ranges: ranges.filter(|_| self.low < end).collect(),
        }
    }

    /// The smallest number at or above `seq` that is not in the set.
    pub fn next_missing(&self, seq: Seq) -> Seq {
        let seq = seq.max(self.low);
        let after = self.ranges.partition_point(|&(first, _)| first <= seq);
        match after.checked_sub(1).map(|at| self.ranges[at].1) {
            Some(last) if last >= seq => last.saturating_add(1),
            _ => seq,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The slow and obvious model: a set of every number.
    fn check(steps: &[(u8, u8, bool)]) {
        let mut model: BTreeSet<u64> = BTreeSet::new();
        let mut set = Ranges::default();
        for &(first, length, as_low) in steps {
            let (first, last) = (u64::from(first), u64::from(first) + u64::from(length % 9));
            if as_low {
                model.extend(0..first);
                set.raise_low(first);
            } else {
                model.extend(first..=last);
                set.insert_range(first, last);
            }
            for seq in (0..300).step_by(7).chain(first.saturating_sub(2)..last + 3) {
                assert_eq!(set.contains(seq), model.contains(&seq), "{seq} in {set:?}");
                let missing = (seq..).find(|at| !model.contains(at)).unwrap();
                assert_eq!(set.next_missing(seq), missing, "after {seq} in {set:?}");
            }
            assert_eq!(set.low(), (0..).find(|at| !model.contains(at)).unwrap());
            assert!(set.ranges().windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{set:?}");
            assert!(set.ranges().first().is_none_or(|range| range.0 > set.low()), "{set:?}");
        }
        for end in [0, 1, 100, 200, 300] {
            let cut = set.below_only(end);
            assert!(
                (0..300).all(|seq| cut.contains(seq) == (seq < end && model.contains(&seq))),
                "{set:?} below {end}"
            );
        }
        assert_eq!(Ranges::from_parts(set.low(), set.ranges().iter().rev().copied()), set);
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(steps in prop::collection::vec((any::<u8>(), any::<u8>(), prop::bool::weighted(0.1)), 1..40)) {
            check(&steps);
        }
    }

    #[test]
    fn the_last_number_does_not_overflow() {
        let mut set = Ranges::below(5);
        set.insert(u64::MAX);
        assert!(set.contains(u64::MAX) && !set.contains(u64::MAX - 1));
        set.insert_range(5, u64::MAX - 1);
        assert_eq!(set.low(), u64::MAX);
    }
}
