//! Pools of text and the interner that gives equal texts one code: the dictionaries of a block, a flush and a merge.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;

/// Texts one after another in one buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    ends: Vec<u32>,
    text: String,
}

impl Texts {
    pub fn with_capacity(texts: usize, bytes: usize) -> Self {
        Self {
            ends: Vec::with_capacity(texts),
            text: String::with_capacity(bytes),
        }
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of all texts together.
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }

    /// Bytes held in memory.
    pub fn memory_bytes(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * 4
    }

    #[inline]
    pub fn get(&self, index: usize) -> &str {
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.text[start..self.ends[index] as usize]
    }

    #[inline]
    pub fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len() as u32);
    }

    /// All texts of another pool, behind the ones here.
    pub fn extend(&mut self, other: &Texts) {
        let base = self.text.len() as u32;
        self.text.push_str(&other.text);
        self.ends.extend(other.ends.iter().map(|end| end + base));
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|i| self.get(i))
    }
}

/// Random per process, so that nobody can choose texts that collide.
fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| RandomState::new().build_hasher().finish())
}

/// Both halves of a product, folded.
#[inline]
pub fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

#[inline]
fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default())
}

/// A folded-multiply hash (as in wyhash) under a given seed.
#[inline]
pub fn hash_seeded(bytes: &[u8], seed: u64) -> u64 {
    const A: u64 = 0x9e37_79b9_7f4a_7c15;
    const B: u64 = 0xd6e8_feb8_6659_fd93;
    let n = bytes.len();
    let mut h = seed ^ (n as u64).wrapping_mul(A);
    if n >= 8 {
        let mut at = 0;
        while at + 8 < n {
            h = fold(h ^ word(bytes, at), A);
            at += 8;
        }
        h = fold(h ^ word(bytes, n - 8), B);
    } else {
        let mut tail = [0u8; 8];
        tail[..n].copy_from_slice(bytes);
        h = fold(h ^ u64::from_le_bytes(tail), B);
    }
    fold(h, A)
}

/// The hash of this process: never stored.
#[inline]
pub fn hash(bytes: &[u8]) -> u64 {
    hash_seeded(bytes, seed())
}

/// Values looked at before an interner may decide that hashing them is wasted.
const PLAIN_AFTER: usize = 256;

/// Gives equal texts one code. Codes start at 1: 0 means "absent" in every column of codes.
#[derive(Debug, Default)]
pub struct Interner {
    texts: Texts,
    /// High 32 bits of the hash, then the code; 0 is free.
    slots: Vec<u64>,
    seen: usize,
    last: u32,
    /// Nearly every value is new: later values are pushed without a look.
    plain: bool,
}

impl Interner {
    /// An interner that never gives up: equal texts always have one code.
    pub fn code_exact(&mut self, text: &str) -> u32 {
        self.seen += 1;
        self.look_up(text)
    }

    /// The code of a text. Once most values turned out to be new, equal texts may get different codes.
    #[inline]
    pub fn code(&mut self, text: &str) -> u32 {
        self.seen += 1;
        if self.last != 0 && self.texts.get(self.last as usize - 1) == text {
            return self.last;
        }
        if self.plain {
            self.texts.push(text);
            self.last = self.texts.len() as u32;
            return self.last;
        }
        let code = self.look_up(text);
        if self.texts.len() >= PLAIN_AFTER && self.texts.len() * 2 > self.seen {
            self.plain = true;
        }
        code
    }

    fn look_up(&mut self, text: &str) -> u32 {
        if self.slots.len() < (self.texts.len() + 1) * 2 {
            self.grow();
        }
        let h = hash(text.as_bytes());
        let mask = self.slots.len() - 1;
        let mut at = h as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                self.texts.push(text);
                let code = self.texts.len() as u32;
                self.slots[at] = (h & 0xffff_ffff_0000_0000) | u64::from(code);
                self.last = code;
                return code;
            }
            let code = slot as u32;
            if slot >> 32 == h >> 32 && self.texts.get(code as usize - 1) == text {
                self.last = code;
                return code;
            }
            at = (at + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(16);
        self.slots.clear();
        self.slots.resize(size, 0);
        let mask = size - 1;
        for index in 0..self.texts.len() {
            let h = hash(self.texts.get(index).as_bytes());
            let mut at = h as usize & mask;
            while self.slots[at] != 0 {
                at = (at + 1) & mask;
            }
            self.slots[at] = (h & 0xffff_ffff_0000_0000) | (index as u64 + 1);
        }
    }

    /// The texts by code, leaving the interner empty but with its table.
    pub fn take(&mut self) -> Texts {
        /// A table larger than this is given back rather than cleared for every append.
        const KEEP_SLOTS: usize = 4096;
        let texts = std::mem::take(&mut self.texts);
        self.texts = Texts::with_capacity(texts.len(), texts.text_bytes());
        if self.slots.len() > KEEP_SLOTS {
            self.slots = Vec::new();
        } else {
            self.slots.fill(0);
        }
        self.seen = 0;
        self.last = 0;
        self.plain = false;
        texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_have_one_code_and_come_back() {
        let mut interner = Interner::default();
        let words: Vec<String> = (0..5000).map(|i| format!("value {}", i % 97)).collect();
        let codes: Vec<u32> = words.iter().map(|w| interner.code(w)).collect();
        assert_eq!(interner.texts.len(), 97);
        for (word, code) in words.iter().zip(&codes) {
            assert_eq!(interner.texts.get(*code as usize - 1), word);
        }
    }

    #[test]
    fn unique_texts_stop_being_hashed_and_still_come_back() {
        let mut interner = Interner::default();
        let words: Vec<String> = (0..3000).map(|i| format!("id-{i}")).collect();
        let codes: Vec<u32> = words.iter().map(|w| interner.code(w)).collect();
        assert!(interner.plain);
        let texts = interner.take();
        for (word, code) in words.iter().zip(&codes) {
            assert_eq!(texts.get(*code as usize - 1), word);
        }
        assert_eq!(interner.code("again"), 1);
    }
}
