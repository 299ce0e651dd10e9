//! Bodies out of their compression: in one go, into a buffer that was reserved, never beyond a limit.
//!
//! `libdeflate` is about twice as fast as a streaming inflater but wants the whole output buffer. The gzip trailer and the
//! zstd header tell its size; both may lie, so the size they name is a first guess and the limit is what holds.

use std::cell::RefCell;

use libdeflater::{DecompressionError, Decompressor};
use memchr::memmem;
use model::Compression;
use pipeline::Lease;

/// How a body is compressed, by the names of HTTP's `content-encoding` and gRPC's `grpc-encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Identity,
    Gzip,
    Zstd,
    /// HTTP's `deflate`, which is zlib (RFC 9110 §8.4.1.2).
    Deflate,
    /// One block of snappy, as Loki's pushes are. Not among what OTLP's doors take.
    Snappy,
}

/// What a sender may use; the answer to one that used something else.
pub const ACCEPTED: &str = "gzip, zstd, deflate, identity";

/// Deflate cannot do better than this (RFC 1951: 258 bytes from two bits).
const DEFLATE_MAX_RATIO: usize = 1032;

/// Snappy cannot do better than this (its format: 64 bytes from a copy of three).
const SNAPPY_MAX_RATIO: usize = 22;

/// First guess where the data does not say what it inflates to. Telemetry is mostly between 4:1 and 10:1.
const USUAL_RATIO: usize = 8;

/// Buffer growth where the guess was too small. Each step inflates from the start, so steps are large.
const GROWTH: usize = 4;

/// Bytes of gzip's smallest member: header, an empty block, trailer.
const GZIP_MEMBER_MIN_BYTES: usize = 20;

/// How a gzip member with the only method there is begins (RFC 1952 §2.3.1).
const GZIP_MAGIC: [u8; 3] = [0x1f, 0x8b, 8];

/// Why a body did not inflate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InflateError {
    /// It would be larger than the limit.
    TooLarge,
    /// The memory budget has no room for it now.
    NoMemory,
    /// It is not what it says it is.
    Malformed(&'static str),
}

impl Coding {
    /// The coding called `name`; `None` for one that we do not take.
    pub fn parse(name: &str) -> Option<Self> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("identity") || name.is_empty() {
            Some(Self::Identity)
        } else if is("gzip") || is("x-gzip") {
            Some(Self::Gzip)
        } else if is("zstd") {
            Some(Self::Zstd)
        } else if is("deflate") {
            Some(Self::Deflate)
        } else {
            None
        }
    }

    /// The name under which a batch keeps its wire form; `None` if it cannot keep it in this one.
    pub fn wire(self) -> Option<Compression> {
        match self {
            Self::Identity => Some(Compression::None),
            Self::Gzip => Some(Compression::Gzip),
            Self::Zstd => Some(Compression::Zstd),
            Self::Deflate | Self::Snappy => None,
        }
    }

    /// What `bytes` will probably inflate to, in bytes.
    pub fn expected_len(self, bytes: &[u8]) -> usize {
        match self {
            Self::Identity => bytes.len(),
            Self::Gzip => match bytes.last_chunk::<4>() {
                Some(tail) => (u32::from_le_bytes(*tail) as usize).min(bytes.len() * DEFLATE_MAX_RATIO),
                None => 0,
            },
            Self::Zstd => match zstd::zstd_safe::get_frame_content_size(bytes) {
                Ok(Some(len)) => usize::try_from(len).unwrap_or(usize::MAX),
                _ => bytes.len() * USUAL_RATIO,
            },
            Self::Deflate => bytes.len() * USUAL_RATIO,
            Self::Snappy => snap::raw::decompress_len(bytes).unwrap_or(0),
        }
    }
}

thread_local! {
    /// A decompressor's tables cost more to set up than a small body to inflate.
    static DEFLATE: RefCell<Decompressor> = RefCell::new(Decompressor::new());
    static ZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// What a body inflated to.
#[derive(Debug, PartialEq, Eq)]
pub struct Inflated {
    pub bytes: Vec<u8>,
    /// It was a gzip stream of several members. Readers that stop after the first would lose the others, so such a body is
    /// not kept in the form it came in.
    pub several: bool,
}

/// Inflates `bytes` to at most `limit` bytes. What the result takes is added to `lease` before it is allocated.
pub fn inflate(coding: Coding, bytes: &[u8], limit: usize, lease: &mut Lease) -> Result<Inflated, InflateError> {
    let mut capacity = coding.expected_len(bytes);
    if capacity > limit && matches!(coding, Coding::Gzip | Coding::Zstd | Coding::Snappy) {
        // Its own announcement is too large; one that exaggerates does not check out either.
        return Err(InflateError::TooLarge);
    }
    let before = lease.bytes();
    capacity = capacity.clamp(1, limit);
    loop {
        let needed = before + capacity as u64;
        if lease.bytes() < needed && !lease.grow(needed - lease.bytes()) {
            lease.shrink(before);
            return Err(InflateError::NoMemory);
        }
        match attempt(coding, bytes, capacity) {
            Ok(inflated) => {
                return Ok(inflated);
            }
            Err(Attempt::Small) if capacity == limit => {
                lease.shrink(before);
                return Err(InflateError::TooLarge);
            }
            Err(Attempt::Small) => capacity = capacity.saturating_mul(GROWTH).min(limit),
            Err(Attempt::Malformed(what)) => {
                lease.shrink(before);
                return Err(InflateError::Malformed(what));
            }
        }
    }
}

/// Why one attempt did not give the whole.
enum Attempt {
    /// The buffer was too small.
    Small,
    Malformed(&'static str),
}

fn attempt(coding: Coding, bytes: &[u8], capacity: usize) -> Result<Inflated, Attempt> {
    let one = |bytes| Inflated { bytes, several: false };
    match coding {
        Coding::Identity => Ok(one(bytes.to_vec())),
        Coding::Gzip => DEFLATE.with_borrow_mut(|d| gunzip(d, bytes, capacity)),
        Coding::Deflate => {
            let mut out = vec![0; capacity];
            let len = DEFLATE
                .with_borrow_mut(|d| d.zlib_decompress(bytes, &mut out))
                .map_err(|e| deflate_error(e, "it is not valid zlib data"))?;
            out.truncate(len);
            Ok(one(out))
        }
        Coding::Zstd => ZSTD.with_borrow_mut(|slot| unzstd(slot, bytes, capacity)).map(one),
        Coding::Snappy => unsnap(bytes, capacity).map(one),
    }
}

fn deflate_error(error: DecompressionError, what: &'static str) -> Attempt {
    match error {
        DecompressionError::InsufficientSpace => Attempt::Small,
        DecompressionError::BadData => Attempt::Malformed(what),
    }
}

/// All members of a gzip stream. `libdeflate` inflates the first and is silent about what follows, so the end of a member is
/// found by its own trailer.
fn gunzip(inflater: &mut Decompressor, mut bytes: &[u8], capacity: usize) -> Result<Inflated, Attempt> {
    let mut out = vec![0; capacity];
    let mut len = 0;
    let mut several = false;
    loop {
        let member = inflater
            .gzip_decompress(bytes, &mut out[len..])
            .map_err(|e| deflate_error(e, "it is not valid gzip data"))?;
        let inflated = &out[len..len + member];
        len += member;
        match end_of_member(bytes, inflated) {
            None => return Err(Attempt::Malformed("bytes follow the gzip data")),
            Some(end) if end == bytes.len() => {
                out.truncate(len);
                return Ok(Inflated { bytes: out, several });
            }
            Some(end) => {
                bytes = &bytes[end..];
                several = true;
            }
        }
    }
}

/// Where the first member of `bytes` ends, given what it inflated to.
fn end_of_member(bytes: &[u8], inflated: &[u8]) -> Option<usize> {
    let length = (inflated.len() as u32).to_le_bytes();
    let another = bytes
        .get(GZIP_MEMBER_MIN_BYTES..)
        .and_then(|rest| memmem::find(rest, &GZIP_MAGIC));
    // Nothing in it begins another member, and it ends with the length that came out: the usual case, without a checksum.
    if another.is_none() && bytes.ends_with(&length) {
        return Some(bytes.len());
    }
    let mut trailer = [0; 8];
    trailer[..4].copy_from_slice(&libdeflater::crc32(inflated).to_le_bytes());
    trailer[4..].copy_from_slice(&length);
    memmem::find_iter(bytes, &trailer)
        .map(|at| at + trailer.len())
        .find(|&end| end == bytes.len() || bytes[end..].starts_with(&GZIP_MAGIC))
}

/// The block says its length; a length that so few bytes cannot have is not allocated.
fn unsnap(bytes: &[u8], capacity: usize) -> Result<Vec<u8>, Attempt> {
    const MALFORMED: Attempt = Attempt::Malformed("it is not valid snappy data");
    match snap::raw::decompress_len(bytes) {
        Ok(len) if len > capacity => Err(Attempt::Small),
        Ok(len) if len > bytes.len() * SNAPPY_MAX_RATIO => Err(MALFORMED),
        Ok(_) => snap::raw::Decoder::new().decompress_vec(bytes).map_err(|_| MALFORMED),
        Err(_) => Err(MALFORMED),
    }
}

fn unzstd(
    slot: &mut Option<zstd::bulk::Decompressor<'static>>,
    bytes: &[u8],
    capacity: usize,
) -> Result<Vec<u8>, Attempt> {
    const MALFORMED: Attempt = Attempt::Malformed("it is not valid zstd data");
    if bytes.is_empty() {
        return Err(MALFORMED);
    }
    if slot.is_none() {
        *slot = zstd::bulk::Decompressor::new().ok();
    }
    let Some(inflater) = slot else {
        return Err(Attempt::Malformed("no zstd decompressor could be made"));
    };
    let mut out = Vec::with_capacity(capacity);
    // In one go there is no window beside the output, whatever window the frame asks for.
    match inflater.decompress_to_buffer(bytes, &mut out) {
        Ok(_) => Ok(out),
        Err(error) if error.to_string().contains("Destination buffer is too small") => Err(Attempt::Small),
        Err(_) => Err(MALFORMED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libdeflater::{CompressionLvl, Compressor};
    use pipeline::Budget;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut compressor = Compressor::new(CompressionLvl::default());
        let mut out = vec![0; compressor.gzip_compress_bound(data.len())];
        let len = compressor.gzip_compress(data, &mut out).unwrap();
        out.truncate(len);
        out
    }

    fn zlib(data: &[u8]) -> Vec<u8> {
        let mut compressor = Compressor::new(CompressionLvl::default());
        let mut out = vec![0; compressor.zlib_compress_bound(data.len())];
        let len = compressor.zlib_compress(data, &mut out).unwrap();
        out.truncate(len);
        out
    }

    /// zstd as streaming encoders write it: without the content size.
    fn zstd_stream(data: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    const LIMIT: usize = 1 << 20;

    fn check(coding: Coding, bytes: &[u8], want: Result<&[u8], InflateError>) {
        let budget = Budget::root("test", 16 << 20);
        let mut lease = budget.try_reserve(bytes.len() as u64).unwrap();
        let got = inflate(coding, bytes, LIMIT, &mut lease).map(|inflated| inflated.bytes);
        match (&got, &want) {
            (Ok(got), Ok(want)) => {
                assert!(got == want, "{coding:?}: {} bytes instead of {}", got.len(), want.len());
                assert!(
                    lease.bytes() >= (bytes.len() + got.len()) as u64,
                    "reserved what it holds"
                );
            }
            (Err(got), Err(want)) => {
                assert_eq!(got, want, "{coding:?}");
                assert_eq!(lease.bytes(), bytes.len() as u64, "a failure gives back what it took");
            }
            _ => panic!("{coding:?}: {got:?} instead of {want:?}"),
        }
    }

    #[test]
    fn every_coding_gives_back_what_went_in() {
        let texts: [&[u8]; 4] = [b"", b"x", &[7; 100_000], &b"telemetry ".repeat(9999)];
        for text in texts {
            check(Coding::Identity, text, Ok(text));
            check(Coding::Gzip, &gzip(text), Ok(text));
            check(Coding::Deflate, &zlib(text), Ok(text));
            check(Coding::Zstd, &zstd::bulk::compress(text, 1).unwrap(), Ok(text));
            check(Coding::Zstd, &zstd_stream(text), Ok(text));
            check(
                Coding::Snappy,
                &snap::raw::Encoder::new().compress_vec(text).unwrap(),
                Ok(text),
            );
        }
    }

    #[test]
    fn all_members_of_a_gzip_stream_are_read() {
        let members: [&[u8]; 5] = [b"one", b"two", b"two", b"", &[0; 70_000]];
        let (mut stream, mut whole) = (Vec::new(), Vec::new());
        for member in members {
            stream.extend(gzip(member));
            whole.extend(member);
            check(Coding::Gzip, &stream, Ok(&whole));
        }
        let frames = [zstd::bulk::compress(b"one", 1).unwrap(), zstd_stream(&[1; 9000])].concat();
        check(Coding::Zstd, &frames, Ok(&[b"one".as_slice(), &[1; 9000]].concat()));
    }

    #[test]
    fn the_magic_of_gzip_inside_the_data_is_no_member() {
        // Stored blocks carry the magic through uncompressed.
        let mut compressor = Compressor::new(CompressionLvl::new(0).unwrap());
        let data = GZIP_MAGIC.repeat(1000);
        let mut out = vec![0; compressor.gzip_compress_bound(data.len())];
        let len = compressor.gzip_compress(&data, &mut out).unwrap();
        check(Coding::Gzip, &out[..len], Ok(&data));
    }

    /// Streams of random members, some of which hold gzip streams themselves, uncompressed, so that headers and trailers
    /// stand everywhere.
    #[test]
    fn members_are_told_from_what_looks_like_them() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut seen: Vec<Vec<u8>> = vec![gzip(b"first")];
        for _ in 0..300 {
            let (mut stream, mut whole) = (Vec::new(), Vec::new());
            for _ in 0..random.usize(1..5) {
                let mut member: Vec<u8> = (0..random.usize(0..50)).map(|_| random.u8(..)).collect();
                if random.bool() {
                    member.extend(random.choice(&seen).unwrap());
                }
                let level = CompressionLvl::new(random.i32(0..3)).unwrap();
                let mut compressor = Compressor::new(level);
                let mut out = vec![0; compressor.gzip_compress_bound(member.len())];
                let len = compressor.gzip_compress(&member, &mut out).unwrap();
                stream.extend(&out[..len]);
                whole.extend(member);
            }
            check(Coding::Gzip, &stream, Ok(&whole));
            if stream.len() < 2000 {
                seen.push(stream);
            }
        }
    }

    #[test]
    fn bombs_stop_at_the_limit() {
        let bomb = vec![0; LIMIT + 1];
        let just = vec![0; LIMIT];
        check(Coding::Gzip, &gzip(&bomb), Err(InflateError::TooLarge));
        check(Coding::Gzip, &gzip(&just), Ok(&just));
        let mut liar = gzip(&bomb);
        let len = liar.len();
        liar[len - 4..].copy_from_slice(&10u32.to_le_bytes());
        check(Coding::Gzip, &liar, Err(InflateError::TooLarge));
        check(
            Coding::Gzip,
            &gzip(&just[..LIMIT / 2 + 1]).repeat(2),
            Err(InflateError::TooLarge),
        );
        check(Coding::Deflate, &zlib(&bomb), Err(InflateError::TooLarge));
        check(
            Coding::Zstd,
            &zstd::bulk::compress(&bomb, 1).unwrap(),
            Err(InflateError::TooLarge),
        );
        check(Coding::Zstd, &zstd_stream(&bomb), Err(InflateError::TooLarge));
        let snappy = snap::raw::Encoder::new().compress_vec(&bomb).unwrap();
        check(Coding::Snappy, &snappy, Err(InflateError::TooLarge));
    }

    #[test]
    fn what_is_broken_is_named() {
        let whole = gzip(b"some telemetry");
        let bad = |what| Err(InflateError::Malformed(what));
        check(Coding::Gzip, b"", bad("it is not valid gzip data"));
        check(Coding::Gzip, b"plain text, no gzip", bad("it is not valid gzip data"));
        check(
            Coding::Gzip,
            &whole[..whole.len() - 9],
            bad("it is not valid gzip data"),
        );
        check(
            Coding::Gzip,
            &[&whole[..], b"tail"].concat(),
            bad("bytes follow the gzip data"),
        );
        check(Coding::Deflate, b"no", bad("it is not valid zlib data"));
        check(Coding::Zstd, b"", bad("it is not valid zstd data"));
        check(Coding::Snappy, b"", bad("it is not valid snappy data"));
        // It says half a megabyte and has two bytes.
        check(Coding::Snappy, b"\x80\x80\x20\x00", bad("it is not valid snappy data"));
        check(
            Coding::Zstd,
            b"\x28\xb5\x2f\xfdnonsense",
            bad("it is not valid zstd data"),
        );
    }

    #[test]
    fn a_full_budget_refuses_before_allocating() {
        let budget = Budget::root("test", 1000);
        let bytes = gzip(&[0; 10_000]);
        let mut lease = budget.try_reserve(bytes.len() as u64).unwrap();
        assert_eq!(
            inflate(Coding::Gzip, &bytes, LIMIT, &mut lease),
            Err(InflateError::NoMemory)
        );
        assert_eq!(budget.used_bytes(), bytes.len() as u64);
    }
}
