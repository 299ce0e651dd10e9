//! The bytes of a segment file, laid out and read back; the page `docs/format/journal.md` says the same in prose.
//!
//! Every checksum over a head starts from the journal's random id: a payload that imitates a record, or a file of
//! another journal, does not pass for one of ours.

use bytes::{Buf, BufMut};

use crate::settings::{HEADER_LIMIT_BYTES, JournalId, PAYLOAD_LIMIT_BYTES, STREAM_NAME_LIMIT_BYTES, Seq};

pub(crate) const MAGIC: [u8; 8] = *b"TLJOURNL";
/// Raised when a file can no longer be read by a program that knows only the number before.
pub const FORMAT_VERSION: u32 = 2;
pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;
pub(crate) const HEAD_BYTES: usize = 48;
pub(crate) const TRAILER_BYTES: usize = 16;
/// Frames start at multiples of this, so that a search for the next one after damage looks at few places.
pub(crate) const ALIGN_BYTES: u64 = 8;
pub(crate) const FRAME_MARKER: [u8; 4] = *b"TLrc";
const TRAILER_MARKER: [u8; 4] = *b"TLse";

/// What opens a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub id: JournalId,
    pub number: u64,
    pub first_seq: Seq,
    pub created_unix_nano: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    NotOurs,
    Newer(u32),
    Corrupt,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        let mut out = &mut bytes[..];
        out.put_slice(&MAGIC);
        out.put_u32_le(FORMAT_VERSION);
        out.put_u32_le(SEGMENT_HEADER_BYTES as u32);
        out.put_slice(&self.id.0);
        out.put_u64_le(self.number);
        out.put_u64_le(self.first_seq);
        out.put_u64_le(self.created_unix_nano);
        let sum = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, HeaderFault> {
        if bytes.len() < SEGMENT_HEADER_BYTES || bytes[..8] != MAGIC {
            return Err(HeaderFault::NotOurs);
        }
        let sum = u32::from_le_bytes(bytes[60..64].try_into().expect("four bytes"));
        if sum != crc32c::crc32c(&bytes[..60]) {
            return Err(HeaderFault::Corrupt);
        }
        let mut rest = &bytes[8..];
        // Every version keeps magic, version and checksum in these places, so a newer one is told from a broken one.
        let version = rest.get_u32_le();
        if version > FORMAT_VERSION {
            return Err(HeaderFault::Newer(version));
        }
        if rest.get_u32_le() as usize != SEGMENT_HEADER_BYTES {
            return Err(HeaderFault::Corrupt);
        }
        let mut id = [0; 16];
        rest.copy_to_slice(&mut id);
        Ok(SegmentHeader {
            id: JournalId(id),
            number: rest.get_u64_le(),
            first_seq: rest.get_u64_le(),
            created_unix_nano: rest.get_u64_le(),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Record,
    Seal,
}

/// The fixed part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub body_crc: u32,
    pub seq: Seq,
    pub appended_at_unix_nano: u64,
    /// Every sequence number below this had been acknowledged when the frame was written: what is missing below it
    /// was lost, what is missing above it may never have been promised.
    pub acked_below: Seq,
    pub payload_bytes: u32,
    pub header_bytes: u32,
    pub stream_bytes: u8,
    pub kind: Kind,
    /// It was appended together with the record before it…
    pub follows: bool,
    /// …and with the one behind it: they count together or not at all.
    pub more_follow: bool,
}

impl Head {
    /// Appends the head and the stream's name, which its checksum covers.
    pub(crate) fn encode(&self, id: &JournalId, stream: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.put_slice(&FRAME_MARKER);
        out.put_u32_le(self.body_crc);
        out.put_u64_le(self.seq);
        out.put_u64_le(self.appended_at_unix_nano);
        out.put_u64_le(self.acked_below);
        out.put_u32_le(self.payload_bytes);
        out.put_u32_le(self.header_bytes);
        out.put_u8(self.stream_bytes);
        out.put_u8(match self.kind {
            Kind::Record => 1,
            Kind::Seal => 2,
        });
        out.put_u16_le(u16::from(self.more_follow) | u16::from(self.follows) << 1);
        let sum = head_crc(id, &out[start..], stream);
        out.put_u32_le(sum);
        out.put_slice(stream);
    }

    /// Reads the head at the start of `bytes`, which must hold the stream's name as well. `None` if there is none.
    pub(crate) fn decode(id: &JournalId, bytes: &[u8]) -> Option<Head> {
        if bytes.len() < HEAD_BYTES || bytes[..4] != FRAME_MARKER {
            return None;
        }
        let mut rest = &bytes[4..];
        let mut head = Head {
            body_crc: rest.get_u32_le(),
            seq: rest.get_u64_le(),
            appended_at_unix_nano: rest.get_u64_le(),
            acked_below: rest.get_u64_le(),
            payload_bytes: rest.get_u32_le(),
            header_bytes: rest.get_u32_le(),
            stream_bytes: rest.get_u8(),
            kind: match rest.get_u8() {
                1 => Kind::Record,
                2 => Kind::Seal,
                _ => return None,
            },
            follows: false,
            more_follow: false,
        };
        let together = rest.get_u16_le();
        head.more_follow = together & 1 != 0;
        head.follows = together & 2 != 0;
        if together > 3
            || usize::from(head.stream_bytes) > STREAM_NAME_LIMIT_BYTES
            || head.header_bytes as usize > HEADER_LIMIT_BYTES
            || head.payload_bytes as usize > PAYLOAD_LIMIT_BYTES
        {
            return None;
        }
        let sum = rest.get_u32_le();
        let stream = bytes.get(HEAD_BYTES..HEAD_BYTES + usize::from(head.stream_bytes))?;
        (sum == head_crc(id, &bytes[..HEAD_BYTES - 4], stream)).then_some(head)
    }

    /// From the start of the head to the start of the next frame.
    pub(crate) fn frame_bytes(&self) -> u64 {
        frame_bytes(
            usize::from(self.stream_bytes),
            self.header_bytes as usize,
            self.payload_bytes as usize,
        )
    }
}

pub(crate) fn frame_bytes(stream: usize, header: usize, payload: usize) -> u64 {
    ((HEAD_BYTES + stream + header + payload) as u64).next_multiple_of(ALIGN_BYTES)
}

fn head_crc(id: &JournalId, head: &[u8], stream: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&id.0), head), stream)
}

pub(crate) fn body_crc(header: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(header), payload)
}

/// What a segment holds of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamSummary {
    pub stream: std::sync::Arc<str>,
    pub records: u64,
    /// Frames with their heads and padding: what they take on disk.
    pub bytes: u64,
    pub first_unix_nano: u64,
    pub last_unix_nano: u64,
}

/// What a whole segment holds; written behind the last record so that opening a journal need not read it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub streams: Vec<StreamSummary>,
}

impl Summary {
    pub(crate) fn add(&mut self, stream: &str, bytes: u64, at: u64) {
        // A journal has a handful of streams, so looking through them beats hashing.
        match self.streams.iter_mut().find(|entry| &*entry.stream == stream) {
            Some(entry) => {
                entry.records += 1;
                entry.bytes += bytes;
                entry.last_unix_nano = at;
            }
            None => self.streams.push(StreamSummary {
                stream: stream.into(),
                records: 1,
                bytes,
                first_unix_nano: at,
                last_unix_nano: at,
            }),
        }
    }

    pub(crate) fn of(&self, stream: &str) -> Option<&StreamSummary> {
        self.streams.iter().find(|entry| &*entry.stream == stream)
    }

    pub(crate) fn records(&self) -> u64 {
        self.streams.iter().map(|entry| entry.records).sum()
    }

    pub(crate) fn last_unix_nano(&self) -> Option<u64> {
        self.streams.iter().map(|entry| entry.last_unix_nano).max()
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u32_le(self.streams.len() as u32);
        for entry in &self.streams {
            out.put_u8(entry.stream.len() as u8);
            out.put_slice(entry.stream.as_bytes());
            out.put_u64_le(entry.records);
            out.put_u64_le(entry.bytes);
            out.put_u64_le(entry.first_unix_nano);
            out.put_u64_le(entry.last_unix_nano);
        }
        out
    }

    fn decode(mut bytes: &[u8]) -> Option<Summary> {
        let count = bytes.try_get_u32_le().ok()?;
        let mut streams = Vec::new();
        for _ in 0..count {
            let length = usize::from(bytes.try_get_u8().ok()?);
            let name = std::str::from_utf8(bytes.split_off(..length)?).ok()?;
            if bytes.len() < 32 {
                return None;
            }
            streams.push(StreamSummary {
                stream: name.into(),
                records: bytes.get_u64_le(),
                bytes: bytes.get_u64_le(),
                first_unix_nano: bytes.get_u64_le(),
                last_unix_nano: bytes.get_u64_le(),
            });
        }
        bytes.is_empty().then_some(Summary { streams })
    }
}

/// What closes a segment: its summary, and at the very end of the file where that lies.
pub(crate) struct Seal {
    /// The number after the segment's last.
    pub next_seq: Seq,
    pub sealed_unix_nano: u64,
    pub summary: Summary,
}

impl Seal {
    /// The frame and the trailer, to be written at `offset`; the file ends behind them.
    pub(crate) fn encode(&self, id: &JournalId, offset: u64) -> Vec<u8> {
        let summary = self.summary.encode();
        let head = Head {
            body_crc: body_crc(&[], &summary),
            seq: self.next_seq,
            appended_at_unix_nano: self.sealed_unix_nano,
            acked_below: self.next_seq,
            payload_bytes: summary.len() as u32,
            header_bytes: 0,
            stream_bytes: 0,
            kind: Kind::Seal,
            follows: false,
            more_follow: false,
        };
        let mut out = Vec::with_capacity(HEAD_BYTES + summary.len() + TRAILER_BYTES + ALIGN_BYTES as usize);
        head.encode(id, &[], &mut out);
        out.put_slice(&summary);
        out.resize(out.len().next_multiple_of(ALIGN_BYTES as usize), 0);
        out.put_u64_le(offset);
        out.put_slice(&TRAILER_MARKER);
        let sum = crc32c::crc32c_append(crc32c::crc32c(&id.0), &out[out.len() - 12..]);
        out.put_u32_le(sum);
        out
    }

    /// Where the seal lies, from the last bytes of the file.
    pub(crate) fn offset(id: &JournalId, trailer: &[u8; TRAILER_BYTES]) -> Option<u64> {
        let sum = u32::from_le_bytes(trailer[12..].try_into().expect("four bytes"));
        let good =
            trailer[8..12] == TRAILER_MARKER && sum == crc32c::crc32c_append(crc32c::crc32c(&id.0), &trailer[..12]);
        good.then(|| u64::from_le_bytes(trailer[..8].try_into().expect("eight bytes")))
    }

    /// Reads the seal that starts at the start of `bytes`.
    pub(crate) fn decode(id: &JournalId, bytes: &[u8]) -> Option<Seal> {
        let head = Head::decode(id, bytes)?;
        let payload = bytes.get(HEAD_BYTES..HEAD_BYTES + head.payload_bytes as usize)?;
        if head.kind != Kind::Seal || head.body_crc != body_crc(&[], payload) {
            return None;
        }
        Some(Seal {
            next_seq: head.seq,
            sealed_unix_nano: head.appended_at_unix_nano,
            summary: Summary::decode(payload)?,
        })
    }
}

const SEGMENT_SUFFIX: &str = ".segment";

pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:010}{SEGMENT_SUFFIX}")
}

pub(crate) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SEGMENT_SUFFIX)?;
    let number = digits.parse().ok()?;
    (segment_name(number) == name).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: JournalId = JournalId([7; 16]);

    #[test]
    fn a_segment_header_reads_back_and_no_flipped_bit_passes() {
        let header = SegmentHeader {
            id: ID,
            number: 3,
            first_seq: 99,
            created_unix_nano: 5,
        };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes;
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(
                matches!(
                    SegmentHeader::decode(&broken),
                    Err(HeaderFault::NotOurs | HeaderFault::Corrupt)
                ),
                "bit {bit}"
            );
        }
        let mut newer = bytes;
        newer[8] = FORMAT_VERSION as u8 + 1;
        let sum = crc32c::crc32c(&newer[..60]).to_le_bytes();
        newer[60..].copy_from_slice(&sum);
        assert_eq!(
            SegmentHeader::decode(&newer),
            Err(HeaderFault::Newer(FORMAT_VERSION + 1))
        );
    }

    #[test]
    fn a_head_reads_back_and_neither_a_flipped_bit_nor_another_journal_passes() {
        let head = Head {
            body_crc: 1,
            seq: 2,
            appended_at_unix_nano: 3,
            acked_below: 2,
            payload_bytes: 5,
            header_bytes: 6,
            stream_bytes: 4,
            kind: Kind::Record,
            follows: true,
            more_follow: true,
        };
        let mut bytes = Vec::new();
        head.encode(&ID, b"logs", &mut bytes);
        assert_eq!(Head::decode(&ID, &bytes), Some(head));
        assert_eq!(Head::decode(&JournalId([8; 16]), &bytes), None);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::decode(&ID, &bytes), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for length in 0..bytes.len() {
            assert_eq!(Head::decode(&ID, &bytes[..length]), None);
        }
    }

    #[test]
    fn a_seal_is_found_from_the_end_of_the_file() {
        let mut summary = Summary::default();
        summary.add("traces", 80, 10);
        summary.add("logs", 8, 11);
        summary.add("traces", 16, 12);
        let seal = Seal {
            next_seq: 4,
            sealed_unix_nano: 13,
            summary,
        };
        let bytes = seal.encode(&ID, 1234);
        assert_eq!(bytes.len() % ALIGN_BYTES as usize, 0);
        let trailer = bytes[bytes.len() - TRAILER_BYTES..].try_into().unwrap();
        assert_eq!(Seal::offset(&ID, &trailer), Some(1234));
        let back = Seal::decode(&ID, &bytes).unwrap();
        assert_eq!(
            (back.next_seq, back.sealed_unix_nano, &back.summary),
            (4, 13, &seal.summary)
        );
        assert_eq!(back.summary.records(), 3);
        assert_eq!(
            back.summary.of("traces").map(|entry| (entry.records, entry.bytes)),
            Some((2, 96))
        );
        assert_eq!(back.summary.last_unix_nano(), Some(12));
    }

    #[test]
    fn only_our_own_names_are_segments() {
        assert_eq!(segment_number(&segment_name(12)), Some(12));
        assert_eq!(segment_number(&segment_name(u64::MAX)), Some(u64::MAX));
        for other in [
            "12.segment",
            "cursors",
            "+000000012.segment",
            "0000000012.segment.old",
            ".segment",
        ] {
            assert_eq!(segment_number(other), None, "{other}");
        }
    }
}
