//! Why: how a batch lies in the journal, which knows nothing of batches. The payload is the batch's wire form: the request's own compressed bytes, also
//! where an edit could keep most of them. Without one it is packed with fast zstd. Everything else is a small header.
//!
//! Header, version 1, all numbers little-endian: version `u8`, signal `u8`, encoding `u8`, compression of the payload `u8`, items `u32`, bytes of the
//! payload when inflated `u32`, arrival `u64` (ns since 1970), flags `u8` (1: peer, 2: source offset), receiver (`u16` length, text), peer (`u16`
//! length, text) and source offset `u64` if flagged, number of headers `u16`, and for each its key (`u16` length, text) and value (`u32` length, text).

use std::cell::RefCell;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use journal::Record;
use model::{Batch, Compression, Encoding, Meta, Signal, Wire};

/// The version that is written. A reader refuses what it does not know, rather than guess.
const VERSION: u8 = 1;

/// The most a record may inflate to: four times what a door accepts in one request by default.
pub const MAX_INFLATED_BYTES: usize = 256 << 20;

/// Fast: 1.2 GB/s in, and a ratio near that of gzip 6 on telemetry.
const ZSTD_LEVEL: i32 = 1;

const HAS_PEER: u8 = 1;
const HAS_OFFSET: u8 = 2;

/// Why a record is not a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("the record was written by a newer version (format {0}, this version reads up to {VERSION})")]
    Newer(u8),
    #[error("the record's header is damaged: {0}")]
    Header(&'static str),
    #[error("the record's payload does not inflate: {0}")]
    Payload(String),
    #[error("the batch cannot be packed: {0}")]
    Pack(String),
}

/// The record of a batch in the stream of a pipeline.
pub fn from_batch(stream: &Arc<str>, batch: &Batch) -> Result<Record, RecordError> {
    let inflated = u32::try_from(batch.payload.len())
        .ok()
        .filter(|_| batch.payload.len() <= MAX_INFLATED_BYTES)
        .ok_or_else(|| RecordError::Pack(format!("{} bytes are more than a record holds", batch.payload.len())))?;
    let (compression, payload) = match &batch.wire {
        Some(Wire { compression, bytes }) if *compression != Compression::None => (*compression, bytes.clone()),
        _ => (Compression::Zstd, pack(&batch.payload)?),
    };
    Ok(Record {
        stream: Arc::clone(stream),
        header: header(batch, compression, inflated),
        payload,
    })
}

/// The batch of a record. `wire` is what the record held, so that an exporter of the same compression need not pack again.
pub fn to_batch(record: &Record) -> Result<Batch, RecordError> {
    let Header {
        signal,
        encoding,
        compression,
        items,
        inflated,
        meta,
    } = parse_header(record.header.clone())?;
    let payload = match compression {
        Compression::None => record.payload.clone(),
        Compression::Gzip => inflate_gzip(&record.payload, inflated)?,
        Compression::Zstd => inflate_zstd(&record.payload, inflated)?,
    };
    let wire = (compression != Compression::None).then(|| Wire {
        compression,
        bytes: record.payload.clone(),
    });
    Ok(Batch {
        signal,
        encoding,
        payload: payload.into(),
        items,
        wire,
        meta: Arc::new(meta),
    })
}

/// What a record inflates to, in bytes, as its header announces; 0 if that cannot be read, in which case it is not inflated either.
pub fn inflated_bytes(record: &Record) -> u64 {
    const AT: std::ops::Range<usize> = 8..12;
    let announced = record.header.get(AT).and_then(|bytes| bytes.try_into().ok());
    announced.map_or(0, |bytes| u64::from(u32::from_le_bytes(bytes)))
}

/// When a record's batch arrived at its door, in ns since 1970; 0 if that cannot be read.
pub fn received_at_unix_nano(record: &Record) -> u64 {
    const AT: std::ops::Range<usize> = 12..20;
    let bytes = record.header.get(AT).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_le_bytes)
}

/// How many items a record holds, without inflating it. `None` if it is no batch that this version can read.
pub fn items(record: &Record) -> Option<u32> {
    parse_header(record.header.clone()).ok().map(|header| header.items)
}

thread_local! {
    /// Packing needs about 1 MB of working memory, which is worth keeping per thread.
    static PACKER: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static ZSTD_INFLATER: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
    static GZIP_INFLATER: RefCell<libdeflater::Decompressor> = RefCell::new(libdeflater::Decompressor::new());
}

fn pack(payload: &[u8]) -> Result<Bytes, RecordError> {
    PACKER.with_borrow_mut(|packer| {
        let packer = match packer {
            Some(packer) => packer,
            None => packer
                .insert(zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(|error| RecordError::Pack(error.to_string()))?),
        };
        packer
            .compress(payload)
            .map(Bytes::from)
            .map_err(|error| RecordError::Pack(error.to_string()))
    })
}

fn inflate_zstd(packed: &[u8], inflated: usize) -> Result<Bytes, RecordError> {
    ZSTD_INFLATER.with_borrow_mut(|inflater| {
        let inflater = match inflater {
            Some(inflater) => inflater,
            None => inflater
                .insert(zstd::bulk::Decompressor::new().map_err(|error| RecordError::Payload(error.to_string()))?),
        };
        let bytes = inflater
            .decompress(packed, inflated)
            .map_err(|error| RecordError::Payload(error.to_string()))?;
        exactly(bytes, inflated)
    })
}

fn inflate_gzip(packed: &[u8], inflated: usize) -> Result<Bytes, RecordError> {
    GZIP_INFLATER.with_borrow_mut(|inflater| {
        let mut bytes = vec![0; inflated];
        let length = inflater
            .gzip_decompress(packed, &mut bytes)
            .map_err(|error| RecordError::Payload(format!("gzip: {error}")))?;
        bytes.truncate(length);
        exactly(bytes, inflated)
    })
}

fn exactly(bytes: Vec<u8>, inflated: usize) -> Result<Bytes, RecordError> {
    if bytes.len() != inflated {
        return Err(RecordError::Payload(format!(
            "{} bytes came out where {inflated} were announced",
            bytes.len()
        )));
    }
    Ok(Bytes::from(bytes))
}

struct Header {
    signal: Signal,
    encoding: Encoding,
    compression: Compression,
    items: u32,
    inflated: usize,
    meta: Meta,
}

fn header(batch: &Batch, compression: Compression, inflated: u32) -> Bytes {
    let meta = &batch.meta;
    let mut out = Vec::with_capacity(64 + meta.receiver.len());
    out.put_u8(VERSION);
    out.put_u8(match batch.signal {
        Signal::Traces => 1,
        Signal::Logs => 2,
        Signal::Metrics => 3,
    });
    out.put_u8(match batch.encoding {
        Encoding::Otlp => 1,
    });
    out.put_u8(match compression {
        Compression::None => 0,
        Compression::Gzip => 1,
        Compression::Zstd => 2,
    });
    out.put_u32_le(batch.items);
    out.put_u32_le(inflated);
    out.put_u64_le(meta.received_at_unix_nano);
    let peer = meta.peer.map(|peer| peer.to_string());
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    out.put_u8(flag(peer.is_some(), HAS_PEER) | flag(meta.source_offset.is_some(), HAS_OFFSET));
    put_short(&mut out, &meta.receiver);
    if let Some(peer) = peer {
        put_short(&mut out, &peer);
    }
    if let Some(offset) = meta.source_offset {
        out.put_u64_le(offset);
    }
    // What does not fit its length is left out: headers are an extra, and a door bounds them far below this.
    let kept = || {
        meta.headers
            .iter()
            .filter(|(key, value)| key.len() <= usize::from(u16::MAX) && value.len() <= usize::from(u16::MAX))
    };
    let count = kept().count().min(usize::from(u16::MAX));
    out.put_u16_le(count as u16);
    for (key, value) in kept().take(count) {
        put_short(&mut out, key);
        out.put_u32_le(value.len() as u32);
        out.extend_from_slice(value.as_bytes());
    }
    Bytes::from(out)
}

fn put_short(out: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.put_u16_le(end as u16);
    out.extend_from_slice(&text.as_bytes()[..end]);
}

fn parse_header(mut from: Bytes) -> Result<Header, RecordError> {
    let cut = |_| RecordError::Header("it is cut short");
    let version = from.try_get_u8().map_err(cut)?;
    if version > VERSION {
        return Err(RecordError::Newer(version));
    }
    let signal = match from.try_get_u8().map_err(cut)? {
        1 => Signal::Traces,
        2 => Signal::Logs,
        3 => Signal::Metrics,
        _ => return Err(RecordError::Header("unknown signal")),
    };
    let encoding = match from.try_get_u8().map_err(cut)? {
        1 => Encoding::Otlp,
        _ => return Err(RecordError::Header("unknown encoding")),
    };
    let compression = match from.try_get_u8().map_err(cut)? {
        0 => Compression::None,
        1 => Compression::Gzip,
        2 => Compression::Zstd,
        _ => return Err(RecordError::Header("unknown compression")),
    };
    let items = from.try_get_u32_le().map_err(cut)?;
    let inflated = from.try_get_u32_le().map_err(cut)? as usize;
    if inflated > MAX_INFLATED_BYTES {
        return Err(RecordError::Header("it announces more bytes than a record holds"));
    }
    let received_at_unix_nano = from.try_get_u64_le().map_err(cut)?;
    let flags = from.try_get_u8().map_err(cut)?;
    let receiver = short(&mut from)?;
    let peer = match flags & HAS_PEER {
        0 => None,
        _ => Some(
            short(&mut from)?
                .parse()
                .map_err(|_| RecordError::Header("the peer is no address"))?,
        ),
    };
    let source_offset = match flags & HAS_OFFSET {
        0 => None,
        _ => Some(from.try_get_u64_le().map_err(cut)?),
    };
    let count = from.try_get_u16_le().map_err(cut)?;
    let mut headers = Vec::new();
    for _ in 0..count {
        let key = short(&mut from)?;
        let length = from.try_get_u32_le().map_err(cut)? as usize;
        headers.push((key, text(&mut from, length)?));
    }
    let meta = Meta {
        received_at_unix_nano,
        receiver,
        peer,
        headers,
        source_offset,
    };
    Ok(Header {
        signal,
        encoding,
        compression,
        items,
        inflated,
        meta,
    })
}

fn short(from: &mut Bytes) -> Result<Arc<str>, RecordError> {
    let length = from
        .try_get_u16_le()
        .map_err(|_| RecordError::Header("it is cut short"))?;
    text(from, usize::from(length))
}

fn text(from: &mut Bytes, length: usize) -> Result<Arc<str>, RecordError> {
    if from.len() < length {
        return Err(RecordError::Header("it is cut short"));
    }
    let bytes = from.split_to(length);
    std::str::from_utf8(&bytes)
        .map(Arc::from)
        .map_err(|_| RecordError::Header("a text is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ids, spans};
    use proptest::prelude::*;

    fn gzip(bytes: &[u8]) -> Bytes {
        let mut packer = libdeflater::Compressor::new(libdeflater::CompressionLvl::fastest());
        let mut out = vec![0; packer.gzip_compress_bound(bytes.len())];
        let length = packer.gzip_compress(bytes, &mut out).expect("room");
        out.truncate(length);
        Bytes::from(out)
    }

    proptest! {
        #[test]
        fn there_and_back_is_identity(
            items in 0u64..40,
            wire in 0u8..3,
            at in any::<u64>(),
            peer in any::<Option<std::net::SocketAddrV6>>(),
            headers in proptest::collection::vec((".{0,20}", ".{0,200}"), 0..4),
            source_offset in any::<Option<u64>>(),
        ) {
            let mut batch = spans(0..items);
            batch.wire = match wire {
                0 => None,
                1 => Some(Wire { compression: Compression::None, bytes: batch.payload.bytes() }),
                _ => Some(Wire { compression: Compression::Gzip, bytes: gzip(&batch.payload) }),
            };
            batch.meta = Arc::new(Meta {
                received_at_unix_nano: at,
                receiver: "otlp/edge".into(),
                // Scope and flow are not part of a peer's identity in text, so they are not kept.
                peer: peer.map(|peer| std::net::SocketAddr::from((*peer.ip(), peer.port()))),
                headers: headers.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
                source_offset,
            });
            let record = from_batch(&"traces".into(), &batch).expect("packs");
            prop_assert_eq!(super::items(&record), Some(batch.items));
            let back = to_batch(&record).expect("reads");
            prop_assert_eq!(&back.payload, &batch.payload);
            prop_assert_eq!((back.signal, back.items, &back.meta), (batch.signal, batch.items, &batch.meta));
            if wire == 2 {
                prop_assert_eq!(&record.payload, &batch.wire.as_ref().expect("wire").bytes, "the request's own bytes are kept");
            }
            prop_assert_eq!(ids(&back), (0..items).collect::<Vec<_>>());
            let wire = back.wire.expect("what the record held");
            prop_assert_eq!(wire.bytes, record.payload);
        }

        /// Damage is an error or another batch, never a panic, and never more memory than announced.
        #[test]
        fn damage_is_an_error(flip in any::<prop::sample::Index>(), bit in 0u8..8, in_header in any::<bool>(), cut in any::<prop::sample::Index>()) {
            let mut record = from_batch(&"traces".into(), &spans(0..20)).expect("packs");
            let damaged = if in_header { &mut record.header } else { &mut record.payload };
            let mut bytes = damaged.to_vec();
            let at = flip.index(bytes.len());
            bytes[at] ^= 1 << bit;
            bytes.truncate(1 + cut.index(bytes.len()));
            *damaged = Bytes::from(bytes);
            if let Ok(batch) = to_batch(&record) {
                prop_assert!(batch.payload.len() <= MAX_INFLATED_BYTES);
            }
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut record = from_batch(&"traces".into(), &spans(0..1)).expect("packs");
        let mut header = record.header.to_vec();
        header[0] = 9;
        record.header = Bytes::from(header);
        assert_eq!(to_batch(&record).expect_err("newer"), RecordError::Newer(9));
    }

    #[test]
    fn a_bomb_is_stopped_at_what_was_announced() {
        let mut record = from_batch(&"traces".into(), &spans(0..1)).expect("packs");
        record.payload = pack(&vec![0; 50 << 20]).expect("packs");
        assert!(matches!(to_batch(&record), Err(RecordError::Payload(_))));
    }
}
