//! Which of 64 bytes are of an id, letters or vowels, as three words of bits: what the word filter asks of every byte of a text.
//!
//! Without a vector instruction that gathers one bit of each byte this was most of what a filter costs, so on x86-64 it is used; the one
//! `unsafe` is the call of a function that needs SSE2, which every x86-64 target has. Elsewhere the same is done with 64-bit words, and a
//! test holds the two to each other.

/// Bits of 64 bytes by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    /// ASCII letters and digits, `-`, `_`, and every byte of a character that is not ASCII.
    pub ids: u64,
    /// ASCII letters.
    pub letters: u64,
    /// `a e i o u` in either case.
    pub vowels: u64,
}

#[cfg(target_arch = "x86_64")]
#[inline]
pub fn classes_of(bytes: &[u8; 64]) -> Classes {
    const { assert!(cfg!(target_feature = "sse2"), "every x86-64 target has SSE2") };
    // SAFETY: the function is safe but for the feature, which the assertion above holds the target to.
    unsafe { sse2(bytes) }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub fn classes_of(bytes: &[u8; 64]) -> Classes {
    portable(bytes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
#[inline]
fn sse2(bytes: &[u8; 64]) -> Classes {
    use std::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8, _mm_sub_epi8,
    };
    let all = |byte: u8| _mm_set1_epi8(byte as i8);
    let mut out = Classes::default();
    for (index, sixteen) in bytes.as_chunks::<16>().0.iter().enumerate() {
        let word = u128::from_le_bytes(*sixteen);
        let x = _mm_set_epi64x((word >> 64) as i64, word as i64);
        let lower = _mm_or_si128(x, all(0x20));
        // `v - low <= span`, unsigned: the smaller of the two is the difference itself.
        let from_a = _mm_sub_epi8(lower, all(b'a'));
        let letter = _mm_cmpeq_epi8(_mm_min_epu8(from_a, all(25)), from_a);
        let from_0 = _mm_sub_epi8(x, all(b'0'));
        let digit = _mm_cmpeq_epi8(_mm_min_epu8(from_0, all(9)), from_0);
        let dash = _mm_or_si128(_mm_cmpeq_epi8(x, all(b'-')), _mm_cmpeq_epi8(x, all(b'_')));
        let is = |vowel: u8| _mm_cmpeq_epi8(lower, all(vowel));
        let vowel = _mm_or_si128(
            _mm_or_si128(_mm_or_si128(is(b'a'), is(b'e')), _mm_or_si128(is(b'i'), is(b'o'))),
            is(b'u'),
        );
        // What is not ASCII has the bit that is gathered, as it is.
        let id = _mm_or_si128(_mm_or_si128(letter, digit), _mm_or_si128(dash, x));
        let bits = |of| u64::from(_mm_movemask_epi8(of) as u16) << (index * 16);
        out.ids |= bits(id);
        out.letters |= bits(letter);
        out.vowels |= bits(vowel);
    }
    out
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn portable(bytes: &[u8; 64]) -> Classes {
    const IS_ID: u8 = 1;
    const IS_LETTER: u8 = 2;
    const IS_VOWEL: u8 = 4;
    let mut classes = [0u8; 64];
    for (class, &byte) in classes.iter_mut().zip(bytes) {
        let letter = byte.is_ascii_alphabetic();
        let id = byte.is_ascii_alphanumeric() | (byte >= 0x80) | (byte == b'-') | (byte == b'_');
        let vowel = matches!(byte | 0x20, b'a' | b'e' | b'i' | b'o' | b'u');
        *class = (u8::from(id) * IS_ID) | (u8::from(letter) * IS_LETTER) | (u8::from(vowel) * IS_VOWEL);
    }
    let mut out = Classes::default();
    for (index, word) in classes.as_chunks::<8>().0.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let bits = |class: u8| {
            // One bit of each byte, brought together by a multiplication whose terms never meet.
            (((word >> class.trailing_zeros()) & 0x0101_0101_0101_0101).wrapping_mul(0x0102_0408_1020_4080) >> 56)
                << (index * 8)
        };
        out.ids |= bits(IS_ID);
        out.letters |= bits(IS_LETTER);
        out.vowels |= bits(IS_VOWEL);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_say_what_a_plain_loop_says() {
        let mut random = fastrand::Rng::with_seed(5);
        for round in 0..1000usize {
            let mut bytes = [0u8; 64];
            for (at, byte) in bytes.iter_mut().enumerate() {
                *byte = if round < 4 {
                    (round * 64 + at) as u8
                } else {
                    random.u8(..)
                };
            }
            let mut plain = Classes::default();
            for (at, byte) in bytes.iter().enumerate() {
                let id = byte.is_ascii_alphanumeric() || !byte.is_ascii() || b"-_".contains(byte);
                plain.ids |= u64::from(id) << at;
                plain.letters |= u64::from(byte.is_ascii_alphabetic()) << at;
                plain.vowels |= u64::from(b"aeiouAEIOU".contains(byte)) << at;
            }
            assert_eq!(portable(&bytes), plain);
            assert_eq!(classes_of(&bytes), plain);
        }
    }
}
