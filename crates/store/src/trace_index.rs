//! From trace id to the rows of a part: buckets of sorted fingerprints, so that a lookup reads one bucket of about 400 bytes.
//!
//! A fingerprint is 32 bits of a fixed hash of the id; the top bits choose the bucket. An entry names a run of rows. A false match costs
//! one page of trace ids, never a wrong answer.

use std::ops::Range;

use model::TraceId;

use crate::encoding::{BadPage, put_varint, take_varint};
use crate::texts::hash_seeded;

/// Entries of a bucket, about.
pub const BUCKET_ENTRIES: usize = 48;
/// Part of the format: changing it makes old indexes unreadable.
const SEED: u64 = 0x7472_6163_6b6c_696e;

fn fingerprint(id: &TraceId) -> u32 {
    (hash_seeded(&id.0, SEED) >> 32) as u32
}

fn bucket_of(fingerprint: u32, buckets: u32) -> u32 {
    ((u64::from(fingerprint) * u64::from(buckets)) >> 32) as u32
}

/// Collects runs of rows while a part is written.
#[derive(Default)]
pub struct TraceIndexBuilder {
    entries: Vec<(u32, u32, u32)>,
    last: Option<TraceId>,
}

impl TraceIndexBuilder {
    /// Row `row` belongs to `id`. Rows come in ascending order; rows apart by less than `gap` of one id in succession make one run.
    pub fn push(&mut self, id: TraceId, row: u32) {
        if self.last == Some(id)
            && let Some((_, first, count)) = self.entries.last_mut()
            && *first + *count == row
        {
            *count += 1;
            return;
        }
        self.last = Some(id);
        self.entries.push((fingerprint(&id), row, 1));
    }

    /// The ends of the buckets (relative to their start) and the buckets.
    pub fn finish(mut self) -> (Vec<u8>, Vec<u8>, u32) {
        self.entries.sort_unstable();
        let buckets = (self.entries.len().div_ceil(BUCKET_ENTRIES)).max(1) as u32;
        let mut ends = Vec::with_capacity(buckets as usize * 4);
        let mut out = Vec::with_capacity(self.entries.len() * 8);
        let mut at = 0;
        for bucket in 0..buckets {
            let start = out.len();
            let mut previous = 0;
            while at < self.entries.len() && bucket_of(self.entries[at].0, buckets) == bucket {
                let (print, row, count) = self.entries[at];
                put_varint(&mut out, u64::from(print - previous));
                put_varint(&mut out, u64::from(row));
                put_varint(&mut out, u64::from(count));
                previous = print;
                at += 1;
            }
            let crc = crc32c::crc32c(&out[start..]);
            out.extend_from_slice(&crc.to_le_bytes());
            ends.extend_from_slice(&(out.len() as u32).to_le_bytes());
        }
        (ends, out, buckets)
    }
}

/// Where the bucket of an id lies inside the buckets.
pub fn bucket_range(ends: &[u8], buckets: u32, id: &TraceId) -> Result<Range<u64>, BadPage> {
    let bucket = bucket_of(fingerprint(id), buckets) as usize;
    let end_at = |bucket: usize| -> Result<u64, BadPage> {
        let bytes = ends
            .get(bucket * 4..bucket * 4 + 4)
            .ok_or(BadPage("the trace index has fewer buckets than it says"))?;
        Ok(u64::from(u32::from_le_bytes(bytes.try_into().unwrap_or_default())))
    };
    let start = if bucket == 0 { 0 } else { end_at(bucket - 1)? };
    let end = end_at(bucket)?;
    if start + 4 > end {
        return Err(BadPage("a bucket of the trace index ends before it starts"));
    }
    Ok(start..end)
}

/// Runs of rows that may belong to the id, ascending.
pub fn find(bucket: &[u8], id: &TraceId) -> Result<Vec<Range<u32>>, BadPage> {
    let (mut entries, crc) = bucket
        .split_last_chunk::<4>()
        .ok_or(BadPage("a bucket of the trace index is cut short"))?;
    if crc32c::crc32c(entries) != u32::from_le_bytes(*crc) {
        return Err(BadPage("a bucket of the trace index does not match its checksum"));
    }
    let wanted = u64::from(fingerprint(id));
    let mut print = 0u64;
    let mut found = Vec::new();
    while !entries.is_empty() {
        print += take_varint(&mut entries)?;
        let row = take_varint(&mut entries)? as u32;
        let count = take_varint(&mut entries)? as u32;
        if print == wanted {
            found.push(row..row.saturating_add(count));
        }
        if print > wanted {
            break;
        }
    }
    found.sort_unstable_by_key(|r| r.start);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_is_found_in_one_bucket() {
        let id = |n: u32| {
            let mut bytes = [7u8; 16];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            TraceId(bytes)
        };
        let mut builder = TraceIndexBuilder::default();
        for row in 0..10_000u32 {
            builder.push(id(row / 13 % 500), row);
        }
        let (ends, buckets, n) = builder.finish();
        for wanted in 0..500 {
            let range = bucket_range(&ends, n, &id(wanted)).unwrap();
            let bucket = &buckets[range.start as usize..range.end as usize];
            let rows: Vec<u32> = find(bucket, &id(wanted)).unwrap().into_iter().flatten().collect();
            let expected: Vec<u32> = (0..10_000).filter(|row| row / 13 % 500 == wanted).collect();
            assert_eq!(rows, expected);
        }
        let range = bucket_range(&ends, n, &id(9999)).unwrap();
        assert!(
            find(&buckets[range.start as usize..range.end as usize], &id(9999))
                .unwrap()
                .is_empty()
        );
    }
}
