//! Bytes to text, as fast as telemetry needs it: its keys and values are short and nearly always ASCII, and a view hands
//! out some thirty of them a span. The standard library checks a short text byte by byte until it is aligned, which was
//! measured as a third of what walking a span costs; a check of whole words followed by an unchecked conversion is not.
//!
//! This module has the crate's only `unsafe`. Its proof needs nothing from outside: what is converted unchecked has
//! just been seen to be ASCII, and ASCII is UTF-8.

/// The high bit of each byte in a word; a byte is ASCII if it is off.
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Texts from this length on are left to the standard library, which then uses wide registers.
const LONG_BYTES: usize = 64;

/// Whether all bytes are ASCII.
#[inline(always)]
pub(crate) fn is_ascii(bytes: &[u8]) -> bool {
    if bytes.len() >= LONG_BYTES {
        return bytes.is_ascii();
    }
    // The last word overlaps the one before, so that no byte is looked at alone.
    if let Some(last) = bytes.last_chunk::<8>() {
        let words = bytes.as_chunks::<8>().0;
        let all = words
            .iter()
            .fold(u64::from_ne_bytes(*last), |all, word| all | u64::from_ne_bytes(*word));
        return all & HIGH == 0;
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        return (u32::from_ne_bytes(*first) | u32::from_ne_bytes(*last)) & HIGH as u32 == 0;
    }
    bytes.iter().fold(0, |all, byte| all | byte) < 0x80
}

/// Text of a canonical payload. Behind the door it is UTF-8; of anything else, the part before the first bad byte.
#[inline(always)]
pub(crate) fn text(bytes: &[u8]) -> &str {
    if is_ascii(bytes) {
        // SAFETY: `is_ascii` has looked at every byte of this same slice and found none above 0x7f. Every sequence of
        // such bytes is valid UTF-8, one character a byte.
        return unsafe { std::str::from_utf8_unchecked(bytes) };
    }
    beyond_ascii(bytes)
}

#[cold]
fn beyond_ascii(bytes: &[u8]) -> &str {
    match simdutf8::compat::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_high_byte_anywhere_is_seen() {
        for len in 0..200 {
            let mut bytes = vec![b'a'; len];
            assert!(is_ascii(&bytes));
            assert_eq!(text(&bytes).as_bytes(), bytes);
            for at in 0..len {
                for high in [0x80, 0xff] {
                    bytes[at] = high;
                    assert!(!is_ascii(&bytes), "{len} {at}");
                    assert_eq!(text(&bytes).len(), at);
                }
                bytes[at] = 0x7f;
            }
        }
    }

    #[test]
    fn text_beyond_ascii_is_read_whole() {
        for expect in [
            "ä",
            "größe",
            "🦀",
            "a text of more than sixty-four bytes, at the end of which there is an ß",
        ] {
            assert_eq!(text(expect.as_bytes()), expect);
        }
    }
}
