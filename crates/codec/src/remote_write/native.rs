//! Exponential histograms as Prometheus' native ones: the same buckets, counted from the other end of their bounds, written as spans and differences.
//!
//! OTLP's bucket `i` is (base^i, base^(i+1)], Prometheus' bucket `i` ends at base^i, so the indices differ by one. The message is the same in both versions
//! of remote write.

use model::view::metrics::{Buckets, ExponentialHistogramPoint};
use model::wire;

use crate::prometheus::{FLAG_NO_RECORDED_VALUE, STALE_NAN, millis};

/// Prometheus' finest resolution; a finer histogram is merged down to it.
const MAX_SCHEMA: i32 = 8;
/// Its coarsest; a coarser histogram cannot be told.
const MIN_SCHEMA: i32 = -4;
/// What counts as zero where the sender did not say, as OpenTelemetry's translation has it.
const DEFAULT_ZERO_THRESHOLD: f64 = 1e-128;
/// So many empty buckets are written as zeros; a longer gap begins a new span, which is shorter then.
const MAX_GAP: i64 = 2;

/// A histogram that Prometheus has no form for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inexpressible;

/// Appends the message `Histogram`. What was written before an error is the caller's to take back.
pub(super) fn write(out: &mut Vec<u8>, point: &ExponentialHistogramPoint<'_>) -> Result<(), Inexpressible> {
    let ended = point.flags & FLAG_NO_RECORDED_VALUE != 0;
    if point.scale < MIN_SCHEMA {
        return Err(Inexpressible);
    }
    let schema = point.scale.min(MAX_SCHEMA);
    let shift = (i64::from(point.scale) - i64::from(schema)).min(i64::from(i32::BITS)) as u32;
    let count = if ended { 0 } else { point.count };
    wire::put_tag(out, 1, wire::VARINT);
    wire::put_varint(out, count);
    let sum = if ended {
        STALE_NAN
    } else {
        point.sum.unwrap_or_default()
    };
    wire::put_fixed64(out, 3, sum.to_bits());
    wire::put_tag(out, 4, wire::VARINT);
    wire::put_varint(out, zigzag(i64::from(schema)));
    let threshold = if point.zero_threshold > 0.0 {
        point.zero_threshold
    } else {
        DEFAULT_ZERO_THRESHOLD
    };
    wire::put_fixed64(out, 5, threshold.to_bits());
    wire::put_tag(out, 6, wire::VARINT);
    wire::put_varint(out, if ended { 0 } else { point.zero_count });
    if !ended {
        buckets(out, 8, point.negative, shift)?;
        buckets(out, 11, point.positive, shift)?;
    }
    wire::put_tag(out, 15, wire::VARINT);
    wire::put_varint(out, millis(point.time_unix_nano) as u64);
    Ok(())
}

/// Writes spans in field `number` and differences in the one after it.
fn buckets(out: &mut Vec<u8>, number: u32, buckets: Option<Buckets<'_>>, shift: u32) -> Result<(), Inexpressible> {
    let Some(buckets) = buckets else { return Ok(()) };
    let mut spans = Spans::default();
    // The bucket that is being summed up, and its count.
    let mut open: Option<(i64, u64)> = None;
    for (at, count) in buckets.bucket_counts.iter().enumerate() {
        if count == 0 {
            continue;
        }
        let index = ((i64::from(buckets.offset) + at as i64) >> shift.min(i64::BITS - 1)) + 1;
        match &mut open {
            Some((same, sum)) if *same == index => *sum = sum.saturating_add(count),
            _ => {
                if let Some((index, sum)) = open.replace((index, count)) {
                    spans.push(index, sum)?;
                }
            }
        }
    }
    if let Some((index, sum)) = open {
        spans.push(index, sum)?;
    }
    spans.write(out, number);
    Ok(())
}

#[derive(Default)]
struct Spans {
    spans: Vec<(i32, u32)>,
    /// As they are encoded.
    deltas: Vec<u8>,
    /// The index behind the last bucket.
    next: i64,
    last_count: i64,
}

impl Spans {
    fn push(&mut self, index: i64, count: u64) -> Result<(), Inexpressible> {
        let count = i64::try_from(count).map_err(|_| Inexpressible)?;
        let gap = index - self.next;
        match self.spans.last_mut() {
            Some((_, length)) if gap <= MAX_GAP => {
                for _ in 0..gap {
                    *length += 1;
                    wire::put_varint(&mut self.deltas, zigzag(-self.last_count));
                    self.last_count = 0;
                }
                *length += 1;
            }
            _ => self.spans.push((i32::try_from(gap).map_err(|_| Inexpressible)?, 1)),
        }
        wire::put_varint(&mut self.deltas, zigzag(count - self.last_count));
        self.last_count = count;
        self.next = index + 1;
        Ok(())
    }

    fn write(&self, out: &mut Vec<u8>, number: u32) {
        if self.spans.is_empty() {
            return;
        }
        for (offset, length) in &self.spans {
            let offset = zigzag(i64::from(*offset));
            let length = u64::from(*length);
            wire::put_tag(out, number, wire::BYTES);
            wire::put_varint(out, (2 + wire::varint_len(offset) + wire::varint_len(length)) as u64);
            wire::put_tag(out, 1, wire::VARINT);
            wire::put_varint(out, offset);
            wire::put_tag(out, 2, wire::VARINT);
            wire::put_varint(out, length);
        }
        wire::put_bytes(out, number + 1, &self.deltas);
    }
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}
