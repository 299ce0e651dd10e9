//! The Parquet encodings that parts use, both ways: the RLE/bit-packed hybrid, DELTA_BINARY_PACKED and plain values.
//! <https://parquet.apache.org/docs/file-format/data-pages/encodings/>

/// A page body that is shorter or stranger than its header promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPage(pub &'static str);

type Result<T> = std::result::Result<T, BadPage>;

/// Bits needed for values up to `max`.
pub fn bit_width(max: u32) -> u32 {
    32 - max.leading_zeros()
}

pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a varint and advances.
pub fn take_varint(input: &mut &[u8]) -> Result<u64> {
    let mut value = 0u64;
    for (i, &byte) in input.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *input = &input[i + 1..];
            return Ok(value);
        }
    }
    Err(BadPage("a number runs past the end"))
}

pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Packs values of `width` bits, least significant first.
struct BitPacker<'a> {
    out: &'a mut Vec<u8>,
    held: u128,
    bits: u32,
}

impl<'a> BitPacker<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, held: 0, bits: 0 }
    }

    #[inline]
    fn put(&mut self, value: u64, width: u32) {
        self.held |= u128::from(value) << self.bits;
        self.bits += width;
        if self.bits >= 64 {
            self.out.extend_from_slice(&(self.held as u64).to_le_bytes());
            self.held >>= 64;
            self.bits -= 64;
        }
    }

    fn finish(self) {
        let bytes = self.bits.div_ceil(8) as usize;
        self.out.extend_from_slice(&(self.held as u64).to_le_bytes()[..bytes]);
    }
}

/// Reads `width` bits at a bit position; bytes past the end read as zero.
#[inline]
fn bits_at(input: &[u8], bit: usize, width: u32) -> u64 {
    if width == 0 {
        return 0;
    }
    let at = bit >> 3;
    let shift = (bit & 7) as u32;
    let low = if at + 8 <= input.len() {
        u64::from_le_bytes(input[at..at + 8].try_into().unwrap_or_default())
    } else {
        let mut tail = [0u8; 8];
        if at < input.len() {
            let n = input.len() - at;
            tail[..n].copy_from_slice(&input[at..]);
        }
        u64::from_le_bytes(tail)
    };
    let mut value = low >> shift;
    if shift + width > 64 {
        let high = input.get(at + 8).copied().unwrap_or(0);
        value |= u64::from(high) << (64 - shift);
    }
    if width == 64 { value } else { value & ((1 << width) - 1) }
}

/// The RLE/bit-packed hybrid of values below `1 << width`.
pub fn put_hybrid(out: &mut Vec<u8>, values: &[u32], width: u32) {
    /// A run shorter than this costs more as a run than packed, for the widths seen here.
    const RUN: usize = 16;
    let mut packed_from = 0;
    let mut at = 0;
    while at < values.len() {
        let value = values[at];
        let mut end = at + 1;
        while end < values.len() && values[end] == value {
            end += 1;
        }
        if end - at >= RUN {
            // A packed stretch must be a multiple of eight long, so it borrows from the run.
            let borrowed = (at - packed_from).wrapping_neg() & 7;
            if end - at - borrowed >= 8 {
                put_packed(out, &values[packed_from..at + borrowed], width);
                let run = end - at - borrowed;
                put_varint(out, (run as u64) << 1);
                out.extend_from_slice(&value.to_le_bytes()[..width.div_ceil(8) as usize]);
                packed_from = end;
            }
        }
        at = end;
    }
    put_packed(out, &values[packed_from..], width);
}

fn put_packed(out: &mut Vec<u8>, values: &[u32], width: u32) {
    if values.is_empty() {
        return;
    }
    let groups = values.len().div_ceil(8);
    put_varint(out, (groups as u64) << 1 | 1);
    let mut packer = BitPacker::new(out);
    for &value in values {
        packer.put(u64::from(value), width);
    }
    for _ in values.len()..groups * 8 {
        packer.put(0, width);
    }
    packer.finish();
}

/// Presence levels of some rows, as a hybrid of width 1: one run if all are alike, else packed.
pub fn put_levels(out: &mut Vec<u8>, rows: std::ops::Range<usize>, here: impl Fn(usize) -> bool) {
    let count = rows.len();
    let groups = count.div_ceil(8);
    let header = out.len();
    put_varint(out, (groups as u64) << 1 | 1);
    let first = out.len();
    let (mut any, mut all) = (0u8, 0xffu8);
    let mut row = rows.start;
    for _ in 0..count / 8 {
        let mut byte = 0u8;
        for bit in 0..8 {
            byte |= u8::from(here(row + bit)) << bit;
        }
        any |= byte;
        all &= byte;
        out.push(byte);
        row += 8;
    }
    if row < rows.end {
        let bits = rows.end - row;
        let mut byte = 0u8;
        for bit in 0..bits {
            byte |= u8::from(here(row + bit)) << bit;
        }
        any |= byte;
        all &= byte | (0xff << bits);
        out.push(byte);
    }
    debug_assert_eq!(out.len() - first, groups);
    if any == 0 || all == 0xff {
        out.truncate(header);
        put_varint(out, (count as u64) << 1);
        out.push(u8::from(any != 0));
    }
}

/// Unpacks `n` values of `width` bits from value `from` on.
fn unpack(input: &[u8], width: u32, from: usize, n: usize, out: &mut Vec<u32>) {
    let width_bits = width as usize;
    let end = from + n;
    let mut at = from;
    if (1..=16).contains(&width) {
        // Eight values fill `width` bytes, which one load holds.
        let mask = (1u128 << width) - 1;
        while at < end && !at.is_multiple_of(8) {
            out.push(bits_at(input, at * width_bits, width) as u32);
            at += 1;
        }
        while at + 8 <= end {
            let first = at / 8 * width_bits;
            let Some(bytes) = input.get(first..first + 16) else {
                break;
            };
            let mut word = u128::from_le_bytes(bytes.try_into().unwrap_or_default());
            if width <= 8 {
                let (mut low, mask) = (word as u64, mask as u64);
                out.extend([(); 8].map(|()| {
                    let value = (low & mask) as u32;
                    low >>= width;
                    value
                }));
            } else {
                out.extend([(); 8].map(|()| {
                    let value = (word & mask) as u32;
                    word >>= width;
                    value
                }));
            }
            at += 8;
        }
    }
    out.extend((at..end).map(|i| bits_at(input, i * width_bits, width) as u32));
}

/// The bits of each byte, least significant first, as bytes.
static SPREAD: [[u8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut bit = 0;
        while bit < 8 {
            table[byte][bit] = (byte >> bit & 1) as u8;
            bit += 1;
        }
        byte += 1;
    }
    table
};

/// Decodes presence levels, a hybrid of width 1, as zeros and ones.
pub fn take_levels(mut input: &[u8], count: usize, out: &mut Vec<u8>) -> Result<()> {
    let target = out.len() + count;
    while out.len() < target {
        let header = take_varint(&mut input)?;
        let left = target - out.len();
        let length = usize::try_from(header >> 1).map_err(|_| BadPage("levels are too long"))?;
        if header & 1 == 0 {
            let (&level, rest) = input.split_first().ok_or(BadPage("levels are cut short"))?;
            if length == 0 || level > 1 {
                return Err(BadPage("levels that are neither 0 nor 1"));
            }
            out.resize(out.len() + length.min(left), level);
            input = rest;
        } else {
            let (bytes, rest) = input.split_at_checked(length).ok_or(BadPage("levels are cut short"))?;
            if length == 0 {
                return Err(BadPage("levels are cut short"));
            }
            out.reserve(bytes.len().min(left.div_ceil(8)) * 8);
            for &byte in bytes.iter().take(left.div_ceil(8)) {
                out.extend_from_slice(&SPREAD[usize::from(byte)]);
            }
            out.truncate(target);
            input = rest;
        }
    }
    Ok(())
}

/// Decodes values `skip..skip + count` of a hybrid.
pub fn take_hybrid(mut input: &[u8], width: u32, mut skip: usize, count: usize, out: &mut Vec<u32>) -> Result<()> {
    if width > 32 {
        return Err(BadPage("a code is wider than 32 bits"));
    }
    let target = out.len() + count;
    while out.len() < target {
        let header = take_varint(&mut input)?;
        let left = target - out.len();
        if header & 1 == 0 {
            let run = usize::try_from(header >> 1).map_err(|_| BadPage("a run is too long"))?;
            let bytes = width.div_ceil(8) as usize;
            if input.len() < bytes || run == 0 {
                return Err(BadPage("a run is cut short"));
            }
            let mut value = [0u8; 4];
            value[..bytes].copy_from_slice(&input[..bytes]);
            input = &input[bytes..];
            let skipped = skip.min(run);
            skip -= skipped;
            out.resize(out.len() + (run - skipped).min(left), u32::from_le_bytes(value));
        } else {
            let groups = usize::try_from(header >> 1).map_err(|_| BadPage("a stretch is too long"))?;
            let bytes = groups
                .checked_mul(width as usize)
                .ok_or(BadPage("a stretch is too long"))?;
            if groups == 0 || input.len() < bytes {
                return Err(BadPage("a packed stretch is cut short"));
            }
            let values = groups.saturating_mul(8);
            let skipped = skip.min(values);
            skip -= skipped;
            // A load may look past the stretch; what it finds there is masked away.
            unpack(input, width, skipped, (values - skipped).min(left), out);
            input = &input[bytes..];
        }
    }
    Ok(())
}

const DELTA_BLOCK: usize = 128;
const DELTA_MINIBLOCK: usize = 32;

/// DELTA_BINARY_PACKED of 64-bit integers, wrapping.
pub fn put_delta(out: &mut Vec<u8>, values: &[u64]) {
    put_varint(out, DELTA_BLOCK as u64);
    put_varint(out, (DELTA_BLOCK / DELTA_MINIBLOCK) as u64);
    put_varint(out, values.len() as u64);
    let Some((&first, rest)) = values.split_first() else {
        put_varint(out, 0);
        return;
    };
    put_varint(out, zigzag(first as i64));
    let mut previous = first;
    let mut deltas = [0i64; DELTA_BLOCK];
    for block in rest.chunks(DELTA_BLOCK) {
        for (delta, &value) in deltas.iter_mut().zip(block) {
            *delta = value.wrapping_sub(previous) as i64;
            previous = value;
        }
        let deltas = &deltas[..block.len()];
        let min = deltas.iter().copied().min().unwrap_or(0);
        put_varint(out, zigzag(min));
        let mut widths = [0u8; DELTA_BLOCK / DELTA_MINIBLOCK];
        for (width, mini) in widths.iter_mut().zip(deltas.chunks(DELTA_MINIBLOCK)) {
            let all = mini.iter().fold(0u64, |all, d| all | d.wrapping_sub(min) as u64);
            *width = (64 - all.leading_zeros()) as u8;
        }
        out.extend_from_slice(&widths);
        for (width, mini) in widths.iter().zip(deltas.chunks(DELTA_MINIBLOCK)) {
            let mut packer = BitPacker::new(out);
            for d in mini {
                packer.put(d.wrapping_sub(min) as u64, u32::from(*width));
            }
            for _ in mini.len()..DELTA_MINIBLOCK {
                packer.put(0, u32::from(*width));
            }
            packer.finish();
        }
    }
}

/// Decodes a DELTA_BINARY_PACKED of exactly `count` values and advances past it.
pub fn take_delta(input: &mut &[u8], count: usize, out: &mut Vec<u64>) -> Result<()> {
    if take_varint(input)? != DELTA_BLOCK as u64 || take_varint(input)? != (DELTA_BLOCK / DELTA_MINIBLOCK) as u64 {
        return Err(BadPage("deltas in blocks of another size"));
    }
    if take_varint(input)? != count as u64 {
        return Err(BadPage("another number of deltas"));
    }
    let mut previous = unzigzag(take_varint(input)?) as u64;
    if count == 0 {
        return Ok(());
    }
    out.push(previous);
    let mut left = count - 1;
    while left > 0 {
        let min = unzigzag(take_varint(input)?) as u64;
        let (widths, rest) = input
            .split_at_checked(DELTA_BLOCK / DELTA_MINIBLOCK)
            .ok_or(BadPage("deltas are cut short"))?;
        *input = rest;
        for &width in widths {
            if left == 0 {
                break;
            }
            if width > 64 {
                return Err(BadPage("a delta is wider than 64 bits"));
            }
            let bytes = DELTA_MINIBLOCK * usize::from(width) / 8;
            if input.len() < bytes {
                return Err(BadPage("deltas are cut short"));
            }
            let n = left.min(DELTA_MINIBLOCK);
            for i in 0..n {
                let delta = bits_at(&input[..bytes], i * usize::from(width), u32::from(width)).wrapping_add(min);
                previous = previous.wrapping_add(delta);
                out.push(previous);
            }
            *input = &input[bytes..];
            left -= n;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn hybrid_comes_back(runs in proptest::collection::vec((0u32..5000, 1usize..60), 0..40), narrow in any::<bool>()) {
            let values: Vec<u32> = runs.iter().flat_map(|&(v, n)| std::iter::repeat_n(if narrow { v & 1 } else { v }, n)).collect();
            let width = bit_width(values.iter().copied().max().unwrap_or(0));
            let mut bytes = Vec::new();
            put_hybrid(&mut bytes, &values, width);
            let mut back = Vec::new();
            take_hybrid(&bytes, width, 0, values.len(), &mut back).unwrap();
            prop_assert_eq!(&values, &back);
            let skip = values.len() / 3;
            back.clear();
            take_hybrid(&bytes, width, skip, values.len() / 2, &mut back).unwrap();
            prop_assert_eq!(&values[skip..skip + values.len() / 2], &back[..]);
        }

        #[test]
        fn levels_come_back(levels in proptest::collection::vec(any::<bool>(), 1..100), alike in any::<bool>()) {
            let levels: Vec<bool> = levels.iter().map(|l| if alike { levels[0] } else { *l }).collect();
            let mut bytes = Vec::new();
            put_levels(&mut bytes, 0..levels.len(), |row| levels[row]);
            let mut back = Vec::new();
            take_levels(&bytes, levels.len(), &mut back).unwrap();
            prop_assert_eq!(levels, back.iter().map(|l| *l == 1).collect::<Vec<_>>());
        }

        #[test]
        fn deltas_come_back(values in proptest::collection::vec(prop_oneof![any::<u64>(), 1000u64..2000], 0..400)) {
            let mut bytes = Vec::new();
            put_delta(&mut bytes, &values);
            let mut back = Vec::new();
            let mut input = bytes.as_slice();
            take_delta(&mut input, values.len(), &mut back).unwrap();
            prop_assert!(input.is_empty());
            prop_assert_eq!(values, back);
        }

        #[test]
        fn garbage_is_an_error_or_values_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), width in 0u32..40) {
            let mut out = Vec::new();
            let _ = take_hybrid(&bytes, width, 100, 1000, &mut out);
            prop_assert!(out.len() <= 1000);
            let mut out = Vec::new();
            let _ = take_levels(&bytes, 1000, &mut out);
            prop_assert!(out.len() <= 1000);
            let mut out = Vec::new();
            let _ = take_delta(&mut bytes.as_slice(), 1000, &mut out);
            prop_assert!(out.len() <= 1000);
        }
    }
}
