//! Which keys of a list of attributes repeat, for any number of attributes: the bound on time and memory that a
//! hostile sender meets.

use std::hash::{BuildHasher, RandomState};

/// Finds repeated keys in time n log n and memory proportional to the *different* keys. Keys are compared by a 64-bit
/// SipHash with a random key, so that a sender cannot aim for a collision.
pub(super) struct KeyIndex {
    hasher: RandomState,
    /// (hash, position), with the last position of a hash kept on compaction.
    seen: Vec<(u64, u32)>,
    compact_at: usize,
    repeats: bool,
}

/// Entries before the first compaction; afterwards it happens whenever the different keys have doubled.
const FIRST_COMPACTION: usize = 1024;

impl KeyIndex {
    pub(super) fn new() -> Self {
        KeyIndex {
            hasher: RandomState::new(),
            seen: Vec::new(),
            compact_at: FIRST_COMPACTION,
            repeats: false,
        }
    }

    /// Notes that the attribute at `position` has this key.
    pub(super) fn insert(&mut self, key: &[u8], position: u32) {
        self.seen.push((self.hasher.hash_one(key), position));
        if self.seen.len() >= self.compact_at {
            self.compact();
            self.compact_at = (self.seen.len() * 2).max(FIRST_COMPACTION);
        }
    }

    /// Whether any key was inserted twice, as far as has been looked.
    pub(super) fn repeats(&self) -> bool {
        self.repeats
    }

    /// Whether any key was inserted twice.
    pub(super) fn finish(mut self) -> bool {
        self.compact();
        self.repeats
    }

    /// The positions that hold the last value of their key, ascending.
    pub(super) fn last_positions(mut self) -> Vec<u32> {
        self.compact();
        let mut positions: Vec<u32> = self.seen.iter().map(|(_, position)| *position).collect();
        positions.sort_unstable();
        positions
    }

    fn compact(&mut self) {
        let before = self.seen.len();
        self.seen.sort_unstable();
        self.seen.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                kept.1 = later.1;
            }
            same
        });
        self.repeats |= self.seen.len() < before;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_last_position_of_each_key(keys in prop::collection::vec(0u16..2000, 0..5000)) {
            let mut index = KeyIndex::new();
            let mut plain = std::collections::BTreeMap::new();
            for (position, key) in (0..).zip(&keys) {
                index.insert(&key.to_le_bytes(), position);
                plain.insert(key, position);
            }
            let mut expected: Vec<u32> = plain.into_values().collect();
            expected.sort_unstable();
            prop_assert_eq!(index.last_positions(), expected);
        }
    }
}
