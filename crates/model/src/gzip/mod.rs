//! Gzip streams edited without compressing them again: compressing is by far the dearest step of passing telemetry on, and nearly all of what passes
//! through is as it came.
//!
//! A deflate stream refers to what it repeats by distance, at most 32 KiB back. So behind a change it may stay bit for bit as it was, from 32 KiB on:
//! [`graft`] compresses the beginning anew and puts the rest of the old stream behind it. And streams that follow each other are one stream if only the
//! last says that it ends: [`join`] makes one gzip member of several. Both only copy bytes, because an empty block can bring a stream to any even
//! alignment.
//!
//! Sources: RFC 1951 (deflate), RFC 1952 (gzip).

mod blocks;

use std::cell::RefCell;

use blocks::{Bits, Symbol, Walker};
use libdeflater::{CompressionLvl, Compressor};

/// How far back a deflate stream may refer, in bytes (RFC 1951 §2).
const WINDOW_BYTES: usize = 32 * 1024;
/// Compressing the whole anew is simpler than for more than this share of it.
const MAX_SHARE: usize = 2;
/// What is compressed anew is a small part; the fastest level is good enough for it.
const LEVEL: i32 = 1;
/// Symbols that are tried for a place that can be aligned. Every second one can, on average.
const MAX_TRIES: usize = 4096;
/// Length and checksum at the end of a member.
const TRAILER_BYTES: usize = 8;
/// What [`reopen`] adds at most.
const REOPENED_BYTES: usize = 5;
/// A header that says nothing but the method; nobody's clock and no system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

thread_local! {
    static COMPRESSOR: RefCell<Compressor> =
        RefCell::new(Compressor::new(CompressionLvl::new(LEVEL).unwrap_or_default()));
}

/// The gzip of `edited`, made from that of what it was edited from: `old_len` bytes, changed only before `changed`. `None` where compressing anew is the
/// way to go: the change reaches too far, or the stream is too short or unusual.
pub fn graft(packed: &[u8], old_len: usize, changed: usize, edited: &[u8]) -> Option<Vec<u8>> {
    let most = old_len / MAX_SHARE;
    let keep_from = changed + WINDOW_BYTES;
    if keep_from >= most {
        return None;
    }
    let deflate = body(packed)?;
    let cut = cut(deflate, keep_from, most)?;
    let fresh = edited.get(..(edited.len() + cut.out).checked_sub(old_len)?)?;
    let tail = &deflate[cut.at / 8..];
    let mut out = COMPRESSOR.with_borrow_mut(|compressor| {
        let mut out = vec![0; HEADER.len() + compressor.deflate_compress_bound(fresh.len())];
        out[..HEADER.len()].copy_from_slice(&HEADER);
        let len = compressor.deflate_compress(fresh, &mut out[HEADER.len()..]).ok()?;
        out.truncate(HEADER.len() + len);
        Some(out)
    })?;
    reopen(&mut out, HEADER.len())?;
    let mut writer = Writer { out, open: 0, count: 0 };
    for _ in 0..cut.fillers {
        // A block with the fixed codes that ends at once: type 1, and seven zeros.
        writer.put(1 << 1, 10);
    }
    let head = Bits(deflate);
    let mut at = cut.head.start;
    while at < cut.head.end {
        let count = (cut.head.end - at).min(32);
        writer.put(head.peek(at) & ((1 << count) - 1), count as u32);
        at += count;
    }
    debug_assert_eq!(writer.count as usize, cut.at % 8);
    let (first, rest) = tail.split_first()?;
    let Writer { mut out, open, count } = writer;
    out.reserve_exact(tail.len() + TRAILER_BYTES);
    out.push(open as u8 | first & (0xffu32 << count) as u8);
    out.extend_from_slice(rest);
    finish(&mut out, edited);
    Some(out)
}

/// One gzip member of several that follow each other. Nothing is inflated: their checksums make the checksum of the whole. `None` if one of them is
/// unusual.
pub fn join(members: &[&[u8]]) -> Option<Vec<u8>> {
    let (last, others) = members.split_last()?;
    let mut out = Vec::with_capacity(members.iter().map(|member| member.len() + REOPENED_BYTES).sum());
    out.extend_from_slice(&HEADER);
    for member in others {
        let begin = out.len();
        out.extend_from_slice(body(member)?);
        reopen(&mut out, begin)?;
    }
    out.extend_from_slice(body(last)?);
    let mut checksum = crc32fast::Hasher::new();
    let mut len = 0u32;
    for member in members {
        let (_, [c0, c1, c2, c3, l0, l1, l2, l3]) = member.split_last_chunk::<TRAILER_BYTES>()?;
        let member_len = u32::from_le_bytes([*l0, *l1, *l2, *l3]);
        let of_member = u32::from_le_bytes([*c0, *c1, *c2, *c3]);
        checksum.combine(&crc32fast::Hasher::new_with_initial_len(
            of_member,
            u64::from(member_len),
        ));
        len = len.wrapping_add(member_len);
    }
    out.extend_from_slice(&checksum.finalize().to_le_bytes());
    out.extend_from_slice(&len.to_le_bytes());
    Some(out)
}

/// The deflate stream in a gzip member.
fn body(packed: &[u8]) -> Option<&[u8]> {
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    const CHECKSUM: u8 = 2;
    let (head, mut rest) = packed.split_at_checked(HEADER.len())?;
    let flags = head[3];
    if head[..3] != HEADER[..3] || flags & 0xe0 != 0 {
        return None;
    }
    if flags & EXTRA != 0 {
        let (len, behind) = rest.split_first_chunk::<2>()?;
        rest = behind.get(usize::from(u16::from_le_bytes(*len))..)?;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let end = rest.iter().position(|byte| *byte == 0)?;
            rest = &rest[end + 1..];
        }
    }
    if flags & CHECKSUM != 0 {
        rest = rest.get(2..)?;
    }
    rest.get(..rest.len().checked_sub(TRAILER_BYTES)?)
}

fn finish(out: &mut Vec<u8>, whole: &[u8]) {
    out.extend_from_slice(&libdeflater::crc32(whole).to_le_bytes());
    out.extend_from_slice(&(whole.len() as u32).to_le_bytes());
}

/// Where an old stream is taken up again.
struct Cut {
    /// The first byte, inflated, that is taken from it.
    out: usize,
    /// The bits of the header of the block that it lies in, which are repeated.
    head: std::ops::Range<usize>,
    /// The first bit that is taken.
    at: usize,
    /// Empty blocks of ten bits before the header, so that `at` keeps its place within a byte.
    fillers: usize,
}

/// The first symbol boundary from byte `from` on where a header put before it can be aligned; none beyond byte `most`.
fn cut(deflate: &[u8], from: usize, most: usize) -> Option<Cut> {
    let mut walker = Walker::new(deflate);
    let mut tries = 0;
    loop {
        let head = walker.block()?;
        // A stored block has been walked with its header.
        let mut ended = head.stored;
        while !ended {
            if walker.out >= from {
                // The header begins a byte; each filler moves it by two bits.
                let off = walker.at.wrapping_sub(head.symbols - head.at) & 7;
                if off % 2 == 0 {
                    return Some(Cut {
                        out: walker.out,
                        head: head.at..head.symbols,
                        at: walker.at,
                        fillers: off / 2,
                    });
                }
                tries += 1;
            }
            if walker.out > most || tries > MAX_TRIES {
                return None;
            }
            ended = walker.symbol()? == Symbol::EndOfBlock;
        }
        if head.last {
            return None;
        }
    }
}

/// Takes back that the deflate stream from `begin` to the end of `out` ends there, and brings it to a full byte.
fn reopen(out: &mut Vec<u8>, begin: usize) -> Option<()> {
    let mut walker = Walker::new(&out[begin..]);
    let last = loop {
        let head = walker.block()?;
        if !head.stored {
            walker.rest_of_block()?;
        }
        if head.last {
            break head.at;
        }
    };
    let end = walker.at;
    if end.div_ceil(8) != out.len() - begin {
        return None;
    }
    out[begin + last / 8] &= !(1 << (last % 8));
    let used = end % 8;
    if used > 0 {
        let at = out.len() - 1;
        out[at] &= (1 << used) - 1;
    }
    // An empty stored block, which ends on a full byte: three zeros, zeros up to there, no bytes and their complement.
    if used == 0 || used > 5 {
        out.push(0);
    }
    out.extend_from_slice(&[0, 0, 0xff, 0xff]);
    Some(())
}

/// Appends bits, lowest first.
struct Writer {
    out: Vec<u8>,
    /// Bits of a byte that is not full yet.
    open: u64,
    count: u32,
}

impl Writer {
    /// At most 32 bits.
    fn put(&mut self, bits: u64, count: u32) {
        self.open |= bits << self.count;
        self.count += count;
        while self.count >= 8 {
            self.out.push(self.open as u8);
            self.open >>= 8;
            self.count -= 8;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that compress about as telemetry does: words from a list, and numbers.
    fn text(seed: u64, len: usize) -> Vec<u8> {
        const WORDS: [&str; 8] = [
            "http.request.method",
            "GET",
            "service.name",
            "api-gateway",
            "SELECT id FROM sessions",
            "trace",
            "\u{0}\u{8}",
            "\"user\":",
        ];
        let (mut state, mut out) = (seed | 1, Vec::new());
        while out.len() < len {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let pick = (state >> 33) as usize;
            match pick % 11 {
                word @ 0..=7 => out.extend_from_slice(WORDS[word].as_bytes()),
                8 => out.extend_from_slice(&state.to_le_bytes()),
                _ => out.extend_from_slice(pick.to_string().as_bytes()),
            }
        }
        out.truncate(len);
        out
    }

    fn pack(bytes: &[u8], level: i32) -> Vec<u8> {
        let mut compressor = Compressor::new(CompressionLvl::new(level).unwrap());
        let mut out = vec![0; compressor.gzip_compress_bound(bytes.len())];
        let len = compressor.gzip_compress(bytes, &mut out).unwrap();
        out.truncate(len);
        out
    }

    /// As streaming libraries write it, with a flush now and then.
    fn pack_in_pieces(bytes: &[u8], level: u32, piece: usize) -> Vec<u8> {
        use std::io::Write;
        let mut encoder = flate2::GzBuilder::new()
            .filename("spans")
            .comment("for a test")
            .extra([1, 2, 3])
            .write(Vec::new(), flate2::Compression::new(level));
        for piece in bytes.chunks(piece) {
            encoder.write_all(piece).unwrap();
            encoder.flush().unwrap();
        }
        encoder.finish().unwrap()
    }

    /// Two decoders read what is expected and nothing behind it.
    fn check(packed: &[u8], expect: &[u8]) {
        use std::io::Read;
        let mut out = vec![0; expect.len()];
        let len = libdeflater::Decompressor::new()
            .gzip_decompress(packed, &mut out)
            .expect("inflates");
        assert!(len == expect.len() && out == expect);
        let (mut out, mut other) = (Vec::new(), flate2::bufread::GzDecoder::new(packed));
        other.read_to_end(&mut out).expect("inflates");
        assert!(out == expect && other.into_inner().is_empty());
    }

    fn edit(bytes: &[u8], at: usize, remove: usize, insert: &[u8]) -> Vec<u8> {
        [&bytes[..at], insert, &bytes[at + remove..]].concat()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn grafts_and_joins_inflate_to_what_was_edited(
            seeds in prop::collection::vec(any::<u64>(), 1..4),
            len in 0usize..300_000,
            level in 0i32..=12,
            streamed in any::<bool>(),
            piece in 100usize..90_000,
            (at, remove) in (0usize..3000, 0usize..300),
            insert in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let (mut members, mut whole) = (Vec::new(), Vec::new());
            for seed in seeds {
                let bytes = text(seed, len);
                let packed = match streamed {
                    true => pack_in_pieces(&bytes, level.min(9) as u32, piece),
                    false => pack(&bytes, level),
                };
                if at + remove <= len {
                    let edited = edit(&bytes, at, remove, &insert);
                    if let Some(grafted) = graft(&packed, bytes.len(), at + remove, &edited) {
                        check(&grafted, &edited);
                        // And again, on what was grafted before.
                        let twice = edit(&edited, 0, 0, b"more");
                        if let Some(again) = graft(&grafted, edited.len(), 0, &twice) {
                            check(&again, &twice);
                        }
                        whole.extend(&edited);
                        members.push(grafted);
                    }
                }
                whole.extend(&bytes);
                members.push(packed);
            }
            let members: Vec<&[u8]> = members.iter().map(Vec::as_slice).collect();
            check(&join(&members).expect("nothing is unusual"), &whole);
        }

        /// Whatever the bytes are: an answer, and in bounded time.
        #[test]
        fn damage_does_not_panic(seed in any::<u64>(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20), cut in any::<prop::sample::Index>()) {
            let bytes = text(seed, 100_000);
            let mut packed = pack(&bytes, 6);
            for (at, with) in flips {
                let at = at.index(packed.len());
                packed[at] ^= with;
            }
            packed.truncate(cut.index(packed.len()) + 1);
            let _ = graft(&packed, bytes.len(), 10, &bytes);
            let _ = join(&[&packed, &packed]);
        }
    }

    #[test]
    fn the_usual_request_is_grafted_and_little_of_it_compressed() {
        for level in 1..=9 {
            let bytes = text(7, 600_000);
            let packed = pack(&bytes, level);
            let edited = edit(&bytes, 3, 1, b"deployment.environment");
            let grafted = graft(&packed, bytes.len(), 4, &edited).expect("is usual");
            check(&grafted, &edited);
            assert!(
                grafted.len() < packed.len() + packed.len() / 20,
                "{} and {}",
                grafted.len(),
                packed.len()
            );
        }
    }

    #[test]
    fn what_is_changed_far_inside_or_short_is_not_for_us() {
        let bytes = text(7, 200_000);
        let packed = pack(&bytes, 6);
        assert!(graft(&packed, bytes.len(), 100_000, &bytes).is_none());
        let short = text(7, 40_000);
        assert!(graft(&pack(&short, 6), short.len(), 10, &short).is_none());
        // Nothing but stored blocks has no symbols to cut at.
        assert!(graft(&pack(&bytes, 0), bytes.len(), 10, &bytes).is_none());
    }
}
