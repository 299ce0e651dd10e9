//! Walks a deflate stream without inflating it: where its blocks and symbols begin and how many bytes they stand for, which is all that is needed to cut
//! and join streams. Source: RFC 1951.
//!
//! The stream has been inflated by somebody who checked it. Whatever is odd here all the same is `None`, and its owner compresses anew.

use std::sync::OnceLock;

/// Codes up to this many bits are looked up at once; longer ones, which are rare, bit by bit.
const LITERAL_BITS: u32 = 11;
const DISTANCE_BITS: u32 = 9;
/// The longest code (RFC 1951 §3.2.7).
const MAX_CODE_BITS: usize = 15;
/// Numbers of codes that a header can define.
const LITERALS: usize = 288;
const DISTANCES: usize = 32;
/// Blocks that are walked for each started MiB of stream. Encoders write one for some ten KiB; a stream of empty ones would cost its tables each time.
const MAX_BLOCKS_PER_MIB: usize = 2048;

/// Bits of a stream, lowest first.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a>(pub(super) &'a [u8]);

impl Bits<'_> {
    /// At least 56 bits from bit `at` on; zeros behind the end.
    #[inline(always)]
    pub(super) fn peek(self, at: usize) -> u64 {
        let byte = at >> 3;
        let word = match self.0.get(byte..byte + 8) {
            Some(bytes) => u64::from_le_bytes(bytes.try_into().unwrap_or_default()),
            None => self.peek_end(byte),
        };
        word >> (at & 7)
    }

    #[cold]
    fn peek_end(self, byte: usize) -> u64 {
        let rest = self.0.get(byte..).unwrap_or_default();
        let bytes = rest.iter().take(8).enumerate();
        bytes.fold(0, |word, (index, byte)| word | u64::from(*byte) << (8 * index))
    }

    fn len(self) -> usize {
        self.0.len() * 8
    }
}

/// Where a block begins. `symbols` is the first bit behind its header.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) at: usize,
    pub(super) symbols: usize,
    pub(super) last: bool,
    /// Its bytes stand in the stream as they are; such a block has been walked already.
    pub(super) stored: bool,
}

/// What one symbol stands for.
#[derive(PartialEq, Eq)]
pub(super) enum Symbol {
    Bytes,
    EndOfBlock,
}

pub(super) struct Walker<'a> {
    bits: Bits<'a>,
    /// The next bit.
    pub(super) at: usize,
    /// Bytes that were walked, as they are when inflated.
    pub(super) out: usize,
    blocks_left: usize,
    literals: Codes<{ 1 << LITERAL_BITS }, LITERALS>,
    distances: Codes<{ 1 << DISTANCE_BITS }, DISTANCES>,
}

impl<'a> Walker<'a> {
    pub(super) fn new(deflate: &'a [u8]) -> Self {
        Walker {
            bits: Bits(deflate),
            at: 0,
            out: 0,
            blocks_left: (deflate.len() >> 20)
                .saturating_add(1)
                .saturating_mul(MAX_BLOCKS_PER_MIB),
            literals: Codes::new(),
            distances: Codes::new(),
        }
    }

    /// Reads the next block's header, and the whole of a stored block.
    pub(super) fn block(&mut self) -> Option<Head> {
        self.blocks_left = self.blocks_left.checked_sub(1)?;
        let at = self.at;
        let head = self.take(3)?;
        let last = head & 1 == 1;
        let stored = match head >> 1 {
            0 => {
                self.stored()?;
                true
            }
            1 => {
                let (literals, distances) = fixed();
                self.literals.clone_from(literals);
                self.distances.clone_from(distances);
                false
            }
            2 => {
                self.dynamic()?;
                false
            }
            _ => return None,
        };
        Some(Head {
            at,
            symbols: self.at,
            last,
            stored,
        })
    }

    fn take(&mut self, count: usize) -> Option<u64> {
        let value = self.bits.peek(self.at) & ((1 << count) - 1);
        self.at += count;
        (self.at <= self.bits.len()).then_some(value)
    }

    fn stored(&mut self) -> Option<()> {
        self.at = self.at.next_multiple_of(8);
        let len = self.take(16)?;
        if len ^ self.take(16)? != 0xffff {
            return None;
        }
        self.at += len as usize * 8;
        self.out += len as usize;
        (self.at <= self.bits.len()).then_some(())
    }

    /// The codes of a block that brings its own (RFC 1951 §3.2.7).
    fn dynamic(&mut self) -> Option<()> {
        const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
        let literals = self.take(5)? as usize + 257;
        let distances = self.take(5)? as usize + 1;
        let count = self.take(4)? as usize + 4;
        let mut lengths = [0; ORDER.len()];
        for place in &ORDER[..count] {
            lengths[*place] = self.take(3)? as u8;
        }
        let mut codes = Codes::<128, { ORDER.len() }>::new();
        codes.build(&lengths, |symbol| Some(symbol as u32))?;
        let mut lengths = [0u8; LITERALS + DISTANCES];
        let mut filled = 0;
        while filled < literals + distances {
            let (symbol, used) = codes.find(self.bits.peek(self.at))?;
            self.take(used as usize)?;
            let (value, times) = match symbol {
                0..=15 => (symbol as u8, 1),
                16 => (*lengths.get(filled.checked_sub(1)?)?, 3 + self.take(2)?),
                17 => (0, 3 + self.take(3)?),
                _ => (0, 11 + self.take(7)?),
            };
            let end = filled + times as usize;
            lengths
                .get_mut(filled..end)
                .filter(|_| end <= literals + distances)?
                .fill(value);
            filled = end;
        }
        self.literals.build(&lengths[..literals], literal)?;
        self.literals.pair();
        self.distances.build(&lengths[literals..literals + distances], distance)
    }

    /// Steps over what is left of a block that is not stored. The same as [`Walker::symbol`] up to the end, with the common symbols, literals in ones
    /// and twos, looked up without asking for bits anew.
    pub(super) fn rest_of_block(&mut self) -> Option<()> {
        loop {
            let bits = self.bits.peek(self.at);
            let mut used = 0;
            for _ in 0..LITERALS_AT_ONCE {
                let entry = self.literals.table[(bits >> used) as usize & ((1 << LITERAL_BITS) - 1)];
                let (means, length) = (entry >> 4, entry & 15);
                if length == 0 || !matches!(means, LITERAL | TWO_LITERALS) {
                    break;
                }
                used += length;
                self.out += means as usize;
            }
            self.at += used as usize;
            // Whatever comes now; it also looks whether the stream is at its end.
            if self.symbol()? == Symbol::EndOfBlock {
                return Some(());
            }
        }
    }

    /// Steps over one symbol of a block that is not stored, or two.
    #[inline(always)]
    pub(super) fn symbol(&mut self) -> Option<Symbol> {
        let bits = self.bits.peek(self.at);
        let (entry, used) = self.literals.find(bits)?;
        self.at += used as usize;
        if matches!(entry, LITERAL | TWO_LITERALS) {
            self.out += entry as usize;
        } else if entry == END {
            return (self.at <= self.bits.len()).then_some(Symbol::EndOfBlock);
        } else {
            let (base, extra) = (entry >> 8, entry & 0xff);
            let bits = bits >> used;
            self.out += base as usize + (bits & ((1 << extra) - 1)) as usize;
            let (distance_extra, used) = self.distances.find(bits >> extra)?;
            self.at += (extra + used + distance_extra) as usize;
        }
        (self.at <= self.bits.len()).then_some(Symbol::Bytes)
    }
}

/// Meanings below every length's: the shortest is 3, shifted by the 8 bits of its extra bits' number.
/// A literal's is the number of bytes it stands for.
const LITERAL: u32 = 1;
const TWO_LITERALS: u32 = 2;
const END: u32 = 3;
/// As many literals as 56 bits surely hold.
const LITERALS_AT_ONCE: u32 = 5;

/// What a symbol of the first alphabet stands for: a byte, the end, or a length's base and extra bits.
fn literal(symbol: usize) -> Option<u32> {
    const BASE: [u16; 29] = [
        3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227,
        258,
    ];
    match symbol {
        0..=255 => Some(LITERAL),
        256 => Some(END),
        257..=284 => {
            let index = symbol - 257;
            let extra = if index < 8 { 0 } else { index / 4 - 1 };
            Some(u32::from(BASE[index]) << 8 | extra as u32)
        }
        285 => Some(u32::from(BASE[28]) << 8),
        _ => None,
    }
}

/// The extra bits behind a symbol of the second alphabet; the distance itself is of no interest.
fn distance(symbol: usize) -> Option<u32> {
    match symbol {
        0..=3 => Some(0),
        4..=29 => Some(symbol as u32 / 2 - 1),
        _ => None,
    }
}

type Fixed = (
    Codes<{ 1 << LITERAL_BITS }, LITERALS>,
    Codes<{ 1 << DISTANCE_BITS }, DISTANCES>,
);

/// The codes of blocks that bring none (RFC 1951 §3.2.6).
fn fixed() -> &'static Fixed {
    static FIXED: OnceLock<Fixed> = OnceLock::new();
    FIXED.get_or_init(|| {
        let mut lengths = [8; LITERALS];
        lengths[144..256].fill(9);
        lengths[256..280].fill(7);
        let (mut literals, mut distances) = (Codes::new(), Codes::new());
        // Symbols that may not be used have codes all the same, and meaning none.
        let built = literals
            .build(&lengths, literal)
            .and(distances.build(&[5; DISTANCES], distance));
        debug_assert!(built.is_some());
        (literals, distances)
    })
}

/// A prefix code: what its symbols mean, by their bits.
#[derive(Clone)]
struct Codes<const TABLE: usize, const SYMBOLS: usize> {
    /// `meaning << 4 | length`, by the next bits; length 0 where the code is longer, or none.
    table: [u32; TABLE],
    /// How many codes there are of each length.
    counts: [u16; MAX_CODE_BITS + 1],
    /// The symbols' meanings, by length and then by symbol, as codes are given out.
    sorted: [Option<u32>; SYMBOLS],
}

impl<const TABLE: usize, const SYMBOLS: usize> Codes<TABLE, SYMBOLS> {
    fn new() -> Self {
        Codes {
            table: [0; TABLE],
            counts: [0; MAX_CODE_BITS + 1],
            sorted: [None; SYMBOLS],
        }
    }

    /// Gives out the codes (RFC 1951 §3.2.2). `None` if there are more than fit.
    fn build(&mut self, lengths: &[u8], meaning: impl Fn(usize) -> Option<u32>) -> Option<()> {
        self.counts = [0; MAX_CODE_BITS + 1];
        for length in lengths {
            *self.counts.get_mut(usize::from(*length))? += 1;
        }
        self.counts[0] = 0;
        let (mut code, mut place) = (0u32, 0u16);
        let mut next_code = [0u32; MAX_CODE_BITS + 1];
        let mut next_place = [0u16; MAX_CODE_BITS + 1];
        for length in 1..=MAX_CODE_BITS {
            code <<= 1;
            (next_code[length], next_place[length]) = (code, place);
            code += u32::from(self.counts[length]);
            place += self.counts[length];
            if code > 1 << length {
                return None;
            }
        }
        self.table.fill(0);
        for (symbol, length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
            let bits = usize::from(*length);
            let means = meaning(symbol);
            *self.sorted.get_mut(usize::from(next_place[bits]))? = means;
            next_place[bits] += 1;
            let code = next_code[bits];
            next_code[bits] += 1;
            if u32::from(*length) <= TABLE.trailing_zeros()
                && let Some(means) = means
            {
                let first = (code.reverse_bits() >> (32 - u32::from(*length))) as usize;
                for slot in self.table[first..].iter_mut().step_by(1 << bits) {
                    *slot = means << 4 | u32::from(*length);
                }
            }
        }
        Some(())
    }

    /// Where two literals' codes fit into one look-up, it finds both.
    fn pair(&mut self) {
        // From the top: what follows a code lies below, and is still single.
        for slot in (1..TABLE).rev() {
            let entry = self.table[slot];
            let length = entry & 15;
            if length == 0 || entry >> 4 != LITERAL {
                continue;
            }
            let next = self.table[slot >> length];
            let both = length + (next & 15);
            if next & 15 != 0 && next >> 4 == LITERAL && both <= TABLE.trailing_zeros() {
                self.table[slot] = TWO_LITERALS << 4 | both;
            }
        }
    }

    /// The meaning of the symbol that the bits begin with, and its length.
    #[inline(always)]
    fn find(&self, bits: u64) -> Option<(u32, u32)> {
        let entry = self.table[bits as usize & (TABLE - 1)];
        if entry & 15 != 0 {
            return Some((entry >> 4, entry & 15));
        }
        self.find_long(bits)
    }

    #[cold]
    fn find_long(&self, mut bits: u64) -> Option<(u32, u32)> {
        let (mut code, mut first, mut place) = (0u32, 0u32, 0u32);
        for length in 1..=MAX_CODE_BITS {
            code |= (bits & 1) as u32;
            bits >>= 1;
            let count = u32::from(self.counts[length]);
            if code < first + count {
                let means = self.sorted.get((place + code - first) as usize).copied()??;
                return Some((means, length as u32));
            }
            place += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }
}
