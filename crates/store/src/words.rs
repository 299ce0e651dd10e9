//! The word filter of a row group: says of a text that no value of the group contains it, from a few bits per id and word.
//!
//! What is remembered of a value is chosen by its own bytes alone, never by what stands around them, so that a needle finds in itself
//! exactly what a value that contains it has left in the filter: there are no false negatives, wherever in a word a needle begins or ends.
//! See `docs/format/part.md`.

use crate::classes::{Classes, classes_of};
use crate::encoding::BadPage;
use crate::texts::{fold, hash_seeded};

/// Bytes of an id that always leave a trace: a span id in hex, or any 16 bytes of letters, digits, `-`, `_` and what is not ASCII.
const WINDOW: usize = 16;
/// Bytes of a piece of an id. Of the nine pieces in a window one is remembered: the one with the smallest hash.
const PIECE: usize = 8;
/// Windows of one run that are looked at together: bounds the scratch memory, however long a value is.
const RUN_WINDOWS: usize = 4096;
/// Letters of a piece of a word.
const GRAM: usize = 4;
/// Bits for pieces of words. A group of prose sets a few thousand of them, one of JSON lines a few hundred.
const GRAM_BITS: usize = 1 << 16;
/// A value without an id that is no longer than this is remembered whole, for equality.
const WHOLE_BYTES: usize = 128;
/// A longer value leaves its ids and not its words: looking at each letter of long lines costs more than their search is worth. A group that
/// has one says nothing of words.
const WORDS_BYTES: usize = 256;
/// Bits of the filter per id piece: with two bits set for each, one in six or seven that are not there seems to be. An id of 32 digits has
/// five pieces, which must all seem to be there.
const BITS_PER_KEY: usize = 4;
/// Pieces of a group beyond which it gets no filter: 8 MiB of scratch memory, 1 MiB of filter.
const MAX_KEYS: usize = 1 << 21;
/// Texts of a group that are worth a filter: reading fewer takes less than a millisecond.
const MIN_TEXT_BYTES: usize = 256 * 1024;
/// Bytes of text a row, on average, up to which a group gets a filter. JSON lines of 800 bytes pay a quarter of their merge for it, about a
/// twelfth of their way in, so that an id in them is found without reading every line.
const ROW_BYTES: usize = 1024;
/// Keys remembered to leave out most repetitions: they fit the first cache.
const RECENT_KEYS: usize = 4096;
/// Nothing is remembered: no key belongs where it stands.
static NO_RECENT: [u32; RECENT_KEYS] = {
    let mut keys = [0; RECENT_KEYS];
    let mut at = 0;
    while at < RECENT_KEYS {
        keys[at] = at as u32 ^ 1;
        at += 1;
    }
    keys
};
/// The first byte of a filter.
const VERSION: u8 = 1;
/// Bytes before the blocks.
const HEAD_BYTES: usize = 1 + GRAM_BITS / 8;

const PIECE_SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const GRAM_SEED: u32 = 0x9e37_79b1;
const WHOLE_SEED: u64 = 0x7468_6520_776f_7264;
const BLOCK_SEED: u64 = 0xd6e8_feb8_6659_fd93;
/// Makes upper case lower in eight bytes at once, and maps the other bytes of an id in a way of their own.
const LOWER: u64 = 0x2020_2020_2020_2020;

/// Takes what a text leaves in a filter.
trait Traces {
    fn key(&mut self, key: u32);
    fn gram(&mut self, bit: usize);
}

/// Finds the pieces of texts; holds the scratch memory for it.
#[derive(Default)]
struct Pieces {
    /// A bit per byte: whether a window begins there.
    windows: Vec<u64>,
    hashes: Vec<u32>,
}

/// The 64 bytes from `at` on; what lies behind the end is 0, which is of no class.
#[inline]
fn block_of(text: &[u8], at: usize) -> Classes {
    match text.get(at..at + 64).and_then(|bytes| bytes.try_into().ok()) {
        Some(bytes) => classes_of(bytes),
        None => {
            let tail = text.get(at..).unwrap_or_default();
            if tail.is_empty() {
                return Classes::default();
            }
            let mut padded = [0; 64];
            padded[..tail.len()].copy_from_slice(tail);
            classes_of(&padded)
        }
    }
}

impl Pieces {
    /// Gives the pieces of a text's ids, and those of its words if `WORDS`; returns whether it has an id.
    fn of<const WORDS: bool>(&mut self, text: &[u8], traces: &mut impl Traces) -> bool {
        self.windows.clear();
        let mut any = 0;
        let mut next = block_of(text, 0);
        let mut at = 0;
        while at < text.len() {
            let here = next;
            next = block_of(text, at + 64);
            let ids = u128::from(here.ids) | u128::from(next.ids) << 64;
            let two = ids & ids >> 1;
            let four = two & two >> 2;
            let eight = four & four >> 4;
            let windows = (eight & eight >> 8) as u64;
            any |= windows;
            self.windows.push(windows);
            at += 64;
            if !WORDS {
                continue;
            }
            let letters = u128::from(here.letters) | u128::from(next.letters) << 64;
            let two = letters & letters >> 1;
            let mut starts = (two & two >> 2) as u64 & here.vowels;
            while starts != 0 {
                let start = at - 64 + starts.trailing_zeros() as usize;
                starts &= starts - 1;
                traces.gram(gram_at(text, start));
            }
        }
        if any == 0 {
            return false;
        }
        let mut from = 0;
        // A record often says its trace id several times: the last two ids of this text are not cut up again.
        let mut known: [&[u8]; 2] = [&[]; 2];
        while let Some(start) = self.first(from, 0) {
            let end = self.first(start, u64::MAX).unwrap_or(self.windows.len() * 64);
            from = end;
            let run = &text[start..end - 1 + WINDOW];
            if known.contains(&run) {
                continue;
            }
            known = [run, known[0]];
            let mut at = start;
            while at < end {
                let to = end.min(at + RUN_WINDOWS);
                self.run(text, at, to, traces);
                at = to;
            }
        }
        true
    }

    /// The first window from `from` on, or with all bits flipped the first byte where none begins.
    fn first(&self, from: usize, flip: u64) -> Option<usize> {
        let mut index = from / 64;
        let mut bits = (self.windows.get(index)? ^ flip) & u64::MAX << (from % 64);
        while bits == 0 {
            index += 1;
            bits = self.windows.get(index)? ^ flip;
        }
        Some(index * 64 + bits.trailing_zeros() as usize)
    }

    /// The smallest hash of each of the windows that begin at `start..end`.
    fn run(&mut self, text: &[u8], start: usize, end: usize, traces: &mut impl Traces) {
        let pieces = &text[start..end - 1 + WINDOW];
        self.hashes.clear();
        self.hashes.extend(pieces.windows(PIECE).map(|piece| {
            let word = u64::from_le_bytes(piece.try_into().unwrap_or_default()) | LOWER;
            (word.wrapping_mul(PIECE_SEED) >> 32) as u32
        }));
        // Minima of two, four, eight and nine neighbours, in place.
        let mut n = self.hashes.len();
        for step in [1, 2, 4, 1] {
            let hashes = &mut self.hashes[..n];
            n -= step;
            for at in 0..hashes.len() - step {
                hashes[at] = hashes[at].min(hashes[at + step]);
            }
        }
        let mut last = None;
        for &key in &self.hashes[..n] {
            if last != Some(key) {
                last = Some(key);
                traces.key(key);
            }
        }
    }
}

#[inline]
fn gram_at(text: &[u8], at: usize) -> usize {
    let bytes: [u8; GRAM] = text[at..at + GRAM].try_into().unwrap_or_default();
    ((u32::from_le_bytes(bytes) | LOWER as u32).wrapping_mul(GRAM_SEED) >> 16) as usize
}

/// The key of a whole value that has no id.
fn whole_key(text: &str) -> Option<u32> {
    (text.len() <= WHOLE_BYTES).then(|| (hash_seeded(text.as_bytes(), WHOLE_SEED) >> 32) as u32)
}

/// The block of a key, and its bits in it.
#[inline]
fn place(key: u32, blocks: usize) -> (usize, u64) {
    let mixed = fold(u64::from(key) ^ PIECE_SEED, BLOCK_SEED);
    let block = ((mixed >> 32) * blocks as u64) >> 32;
    (block as usize, 1 << (mixed & 63) | 1 << (mixed >> 6 & 63))
}

/// Collects what the texts of a row group leave.
pub struct Builder {
    pieces: Pieces,
    found: Found,
    text_bytes: usize,
    /// The group has more text than a filter is worth.
    given_up: bool,
    /// There was a value whose words were not looked at.
    has_long: bool,
}

struct Found {
    keys: Vec<u32>,
    recent: Vec<u32>,
    grams: Vec<u64>,
}

impl Traces for Found {
    #[inline]
    fn key(&mut self, key: u32) {
        let recent = &mut self.recent[key as usize % RECENT_KEYS];
        if *recent != key && self.keys.len() <= MAX_KEYS {
            *recent = key;
            self.keys.push(key);
        }
    }

    #[inline]
    fn gram(&mut self, bit: usize) {
        self.grams[bit / 64] |= 1 << (bit % 64);
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            pieces: Pieces::default(),
            found: Found {
                keys: Vec::new(),
                recent: NO_RECENT.to_vec(),
                grams: vec![0; GRAM_BITS / 64],
            },
            text_bytes: 0,
            given_up: false,
            has_long: false,
        }
    }
}

impl Builder {
    /// Announces the texts of a column; whether they are to be added.
    pub fn begin(&mut self, bytes: usize, rows: usize) -> bool {
        self.text_bytes += bytes;
        self.given_up |= self.text_bytes > rows * ROW_BYTES;
        !self.given_up
    }

    /// Adds a value.
    #[inline]
    pub fn add(&mut self, text: &str) {
        let has_id = if text.len() <= WORDS_BYTES {
            self.pieces.of::<true>(text.as_bytes(), &mut self.found)
        } else {
            self.has_long = true;
            self.pieces.of::<false>(text.as_bytes(), &mut self.found)
        };
        if !has_id && let Some(key) = whole_key(text) {
            self.found.key(key);
        }
    }

    /// The filter of what was added, if it is worth one; begins anew.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        let Found { keys, recent, grams } = &mut self.found;
        let worth = !self.given_up && self.text_bytes >= MIN_TEXT_BYTES && keys.len() <= MAX_KEYS;
        if self.has_long {
            grams.fill(u64::MAX);
        }
        let filter = worth.then(|| {
            let mut blocks = vec![0u64; (keys.len() * BITS_PER_KEY).div_ceil(64)];
            for &key in keys.iter() {
                let (block, bits) = place(key, blocks.len());
                blocks[block] |= bits;
            }
            let mut out = Vec::with_capacity(HEAD_BYTES + blocks.len() * 8);
            out.push(VERSION);
            for word in grams.iter().chain(&blocks) {
                out.extend_from_slice(&word.to_le_bytes());
            }
            out
        });
        keys.clear();
        recent.copy_from_slice(&NO_RECENT);
        grams.fill(0);
        self.text_bytes = 0;
        self.has_long = false;
        self.given_up = false;
        filter
    }
}

/// A filter as it was read.
pub struct WordFilter(Vec<u8>);

/// Looks up instead of adding; `false` once something is not there.
struct LookUp<'a> {
    filter: &'a WordFilter,
    all_there: bool,
}

impl Traces for LookUp<'_> {
    fn key(&mut self, key: u32) {
        self.all_there &= self.filter.has_key(key);
    }

    fn gram(&mut self, bit: usize) {
        self.all_there &= self.filter.0[1 + bit / 8] >> (bit % 8) & 1 == 1;
    }
}

impl WordFilter {
    /// A filter of this version; `None` is one of another, which says nothing.
    pub fn decode(bytes: Vec<u8>) -> Result<Option<WordFilter>, BadPage> {
        if bytes.first().is_none_or(|version| *version != VERSION) {
            return Ok(None);
        }
        if bytes.len() < HEAD_BYTES || !(bytes.len() - HEAD_BYTES).is_multiple_of(8) {
            return Err(BadPage("a word filter has another length"));
        }
        Ok(Some(WordFilter(bytes)))
    }

    fn has_key(&self, key: u32) -> bool {
        let blocks = self.0[HEAD_BYTES..].as_chunks::<8>().0;
        let (block, bits) = place(key, blocks.len());
        blocks
            .get(block)
            .is_some_and(|block| u64::from_le_bytes(*block) & bits == bits)
    }

    fn look_up(&self, text: &str) -> (bool, bool) {
        let mut look_up = LookUp {
            filter: self,
            all_there: true,
        };
        let has_id = Pieces::default().of::<true>(text.as_bytes(), &mut look_up);
        (look_up.all_there, has_id)
    }

    /// Whether a value may contain this text.
    pub fn may_contain(&self, text: &str) -> bool {
        self.look_up(text).0
    }

    /// Whether a value may be this text.
    pub fn may_equal(&self, text: &str) -> bool {
        let (all_there, has_id) = self.look_up(text);
        all_there && (has_id || whole_key(text).is_none_or(|key| self.has_key(key)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter_of(texts: &[String]) -> WordFilter {
        let mut builder = Builder::default();
        texts.iter().for_each(|text| builder.add(text));
        // Small groups get no filter; this one is asked for anyway.
        builder.text_bytes = MIN_TEXT_BYTES;
        WordFilter::decode(builder.take().unwrap()).unwrap().unwrap()
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}",
            "[a-zA-Z ,.:/=_-]{0,200}",
            "[a-zäöüßéàλжя日本語 0-9-]{0,120}",
            ".{0,100}",
            "[a-zA-Z0-9_]{50,90}",
            "(\\{\"[a-z]{2,9}\":\"[a-f0-9]{16,40}\"\\},?){0,6}",
            "[ -~]{0,300}",
        ]
    }

    proptest! {
        #[test]
        fn what_is_there_is_never_ruled_out(
            texts in proptest::collection::vec(text(), 1..20),
            cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 20),
        ) {
            let filter = filter_of(&texts);
            for text in &texts {
                prop_assert!(filter.may_equal(text), "{text:?}");
                let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
                for (from, to) in &cuts {
                    let (from, to) = (*from.get(&ends), *to.get(&ends));
                    let part = &text[from.min(to)..from.max(to)];
                    prop_assert!(filter.may_contain(part), "{part:?} of {text:?}");
                }
            }
        }

        #[test]
        fn every_piece_of_sixteen_bytes_of_an_id_can_be_found_missing(id in "[a-zA-Z0-9_-]{16}", around in "[ -,./:-?]{0,9}") {
            let empty = filter_of(&[]);
            let needle = format!("{around}{id}{around}");
            prop_assert!(!empty.may_contain(&needle));
        }

        #[test]
        fn garbage_is_an_error_or_a_filter_never_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..40), pad in 0usize..3, needle in ".*") {
            bytes.resize(bytes.len() + pad * HEAD_BYTES, 7);
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            if let Ok(Some(filter)) = WordFilter::decode(bytes) {
                filter.may_contain(&needle);
                filter.may_equal(&needle);
            }
        }
    }

    #[test]
    fn a_run_longer_than_what_is_looked_at_together_has_no_gap() {
        let mut random = fastrand::Rng::with_seed(3);
        let long: String = (0..3 * RUN_WINDOWS + 777).map(|_| random.alphanumeric()).collect();
        let filter = filter_of(std::slice::from_ref(&long));
        for at in 0..long.len() - 40 {
            assert!(filter.may_contain(&long[at..at + 40]), "at {at}");
        }
    }

    #[test]
    fn the_words_of_a_long_value_are_not_ruled_out_and_its_missing_ids_are() {
        let long = format!("{} deadlock {}", "- ".repeat(WORDS_BYTES), "0123456789abcdef".repeat(2));
        let filter = filter_of(&[long, "short".to_owned()]);
        assert!(filter.may_contain("deadlock"));
        assert!(filter.may_contain("9abcdef012345678"));
        assert!(!filter.may_contain("fedcba98-76543210-fedcba98"));
    }

    /// The rates that `docs/format/part.md` states.
    #[test]
    fn what_is_missing_is_mostly_ruled_out() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut hex = |digits: usize| -> String { (0..digits).map(|_| random.digit(16)).collect() };
        let mut uuid = || format!("{}-{}-{}-{}-{}", hex(8), hex(4), hex(4), hex(4), hex(12));
        let bodies: Vec<String> = (0..20_000)
            .map(|i| {
                let session = uuid();
                format!("request {session} of user-{i:05} answered 200 by the workflow engine")
            })
            .collect();
        let filter = filter_of(&bodies);
        let seen = |needles: Vec<String>| {
            let n = needles.len();
            needles.into_iter().filter(|needle| filter.may_contain(needle)).count() * 1000 / n
        };
        let uuids: Vec<String> = (0..2000).map(|_| uuid()).collect();
        let dashless: Vec<String> = uuids.iter().map(|u| u.replace('-', "")).collect();
        let halves: Vec<String> = dashless.iter().map(|d| d[..16].to_owned()).collect();
        assert!(seen(uuids) <= 3, "per mille of uuids");
        assert!(seen(dashless) <= 5, "per mille of 32 digits");
        assert!(seen(halves) <= 200, "per mille of 16 digits");
        for word in [
            "deadlock",
            "panic",
            "segfault",
            "OutOfMemoryError",
            "timeout",
            "connection refused",
        ] {
            assert!(!filter.may_contain(word), "{word}");
        }
        let equal = (0..2000)
            .filter(|i| filter.may_equal(&format!("user-{:05}", i + 50_000)))
            .count();
        assert!(equal <= 400, "{equal} of 2000 short values");
    }
}
