//! Which keys of a list of attributes repeat, however many there are: the bound on time and memory that a hostile sender
//! meets.

use std::hash::{BuildHasher, RandomState};

use super::MAX_ATTRIBUTES;

/// Finds repeated keys in time n log n. Keys are compared by a 64-bit SipHash with a random key, so that a sender cannot
/// aim for a collision. Kept from list to list for its memory, which [`MAX_ATTRIBUTES`] bounds at 16 MiB.
#[derive(Default)]
pub(super) struct KeyIndex {
    hasher: RandomState,
    /// (hash, position)
    seen: Vec<(u64, u32)>,
}

/// A list has more attributes than the bound.
pub(super) struct TooMany;

impl KeyIndex {
    /// Notes that the attribute at `position` has this key. Positions ascend.
    pub(super) fn insert(&mut self, key: &[u8], position: u32) -> Result<(), TooMany> {
        if self.seen.len() == MAX_ATTRIBUTES {
            return Err(TooMany);
        }
        self.seen.push((self.hasher.hash_one(key), position));
        Ok(())
    }

    /// Whether any key was inserted twice.
    pub(super) fn repeats(&mut self) -> bool {
        self.seen.sort_unstable();
        self.seen.array_windows().any(|[one, next]| one.0 == next.0)
    }

    /// The positions that hold the last value of their key, ascending. The index is empty afterwards.
    pub(super) fn last_positions(&mut self) -> Vec<u32> {
        self.seen.sort_unstable();
        let mut positions: Vec<u32> = Vec::with_capacity(self.seen.len());
        for (at, (hash, position)) in self.seen.iter().enumerate() {
            if self.seen.get(at + 1).is_none_or(|next| next.0 != *hash) {
                positions.push(*position);
            }
        }
        positions.sort_unstable();
        self.seen.clear();
        positions
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_last_position_of_each_key(keys in prop::collection::vec(0u16..2000, 0..5000)) {
            let mut index = KeyIndex::default();
            let mut plain = std::collections::BTreeMap::new();
            for (position, key) in (0..).zip(&keys) {
                prop_assert!(index.insert(&key.to_le_bytes(), position).is_ok());
                plain.insert(key, position);
            }
            let mut expected: Vec<u32> = plain.into_values().collect();
            expected.sort_unstable();
            prop_assert_eq!(index.last_positions(), expected);
        }
    }
}
