//! Sets of journal positions: what the catalog's commits cover.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// Disjoint inclusive ranges, ascending, never touching.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds a range, joining what it touches.
    pub fn insert(&mut self, range: RangeInclusive<u64>) {
        let (start, end) = (*range.start(), *range.end());
        if start > end {
            return;
        }
        let from = self
            .0
            .partition_point(|r| r.1 < start.saturating_sub(u64::from(start > 0)));
        let to = self.0.partition_point(|r| r.0 <= end.saturating_add(1));
        if from >= to {
            self.0.insert(from, (start, end));
            return;
        }
        let joined = (start.min(self.0[from].0), end.max(self.0[to - 1].1));
        self.0.splice(from..to, [joined]);
    }

    /// Adds all of another set.
    pub fn merge(&mut self, other: &Ranges) {
        for &(start, end) in &other.0 {
            self.insert(start..=end);
        }
    }

    /// Whether a position is in the set.
    pub fn contains(&self, position: u64) -> bool {
        let at = self.0.partition_point(|r| r.1 < position);
        self.0.get(at).is_some_and(|r| r.0 <= position)
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What is durable of one source: everything below `low`, and the ranges (inclusive) above it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Covered {
    /// Positions below this are covered. 0 if position 0 is not.
    pub low: u64,
    /// Covered ranges above `low`, inclusive, ascending.
    pub ranges: Vec<(u64, u64)>,
}

impl From<&Ranges> for Covered {
    fn from(ranges: &Ranges) -> Self {
        let mut covered = Covered::default();
        for (start, end) in ranges.iter() {
            if start == 0 {
                covered.low = end.saturating_add(1);
            } else {
                covered.ranges.push((start, end));
            }
        }
        covered
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_are_the_set_of_what_was_inserted(inserts in proptest::collection::vec((0u64..60, 0u64..9), 0..30)) {
            let mut ranges = Ranges::default();
            let mut set = BTreeSet::new();
            for (start, length) in inserts {
                ranges.insert(start..=start + length);
                set.extend(start..=start + length);
            }
            for position in 0..80 {
                prop_assert_eq!(ranges.contains(position), set.contains(&position));
            }
            let all: Vec<_> = ranges.iter().collect();
            prop_assert!(all.windows(2).all(|w| w[0].1 + 1 < w[1].0), "{:?}", all);
        }
    }
}
