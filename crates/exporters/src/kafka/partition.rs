//! Which partition a key belongs to, by the two ways that producers of Kafka have.

use std::num::NonZeroUsize;

use serde::Deserialize;

/// `hasher`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hasher {
    /// FNV-1a as Sarama has it.
    #[default]
    SaramaCompat,
    /// As Kafka's own Java client has it.
    Murmur2,
}

impl Hasher {
    /// The place of a key among so many partitions.
    pub fn place(self, key: &[u8], partitions: NonZeroUsize) -> usize {
        let count = i64::try_from(partitions.get()).unwrap_or(i64::MAX);
        let place = match self {
            Hasher::SaramaCompat => (i64::from(fnv1a(key) as i32) % count).abs(),
            Hasher::Murmur2 => i64::from(murmur2(key) & 0x7fff_ffff) % count,
        };
        place as usize
    }
}

fn fnv1a(key: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    key.iter().fold(0x811c_9dc5, step)
}

fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ key.len() as u32;
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let last = rest.iter().rev().fold(0, |last, byte| last << 8 | u32::from(*byte));
        hash = (hash ^ last).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_as_in_kafkas_own_tests() {
        // Utils' test in Apache Kafka, clients.
        let known: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (key, hash) in known {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn fnv1a_as_published() {
        assert_eq!(fnv1a(b""), 0x811c_9dc5);
        assert_eq!(fnv1a(b"foobar"), 0xbf9c_f968);
        let seven = NonZeroUsize::new(7).expect("is not zero");
        // As a signed number it is negative: Sarama takes the remainder first and then its absolute value.
        assert_eq!(
            Hasher::SaramaCompat.place(b"foobar", seven),
            ((0xbf9c_f968u32 as i32) % 7).unsigned_abs() as usize
        );
    }
}
