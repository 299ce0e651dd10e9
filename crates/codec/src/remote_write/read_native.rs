//! Native histograms as OTLP's points: exponential ones with the indices that OTLP counts, those with buckets of their own as histograms with bounds.

use model::wire::{self, BYTES, Payload, VARINT};

use super::read::{BadRequest, fields};
use crate::prometheus::FLAG_NO_RECORDED_VALUE;
use crate::prometheus::series::{NativeForm, is_stale};

/// What Prometheus calls the schema of buckets that the sender chose.
const CUSTOM_BUCKETS: i64 = -53;

/// Prometheus' coarsest and finest schema.
const SCHEMAS: std::ops::RangeInclusive<i64> = -4..=8;

/// From the first bucket to the last of one sign. OTLP has the empty ones between as well; the finest schema takes so many for 64 powers of two.
const MAX_BUCKETS: i64 = 16_384;

/// A histogram that OTLP has no point for, or that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadNative {
    #[error("the schema {0} of a native histogram is not known")]
    Schema(i64),
    #[error("a native histogram has counts that are no whole numbers, which OTLP does not have")]
    Fraction,
    #[error("a native histogram has a negative count")]
    Negative,
    #[error("the spans of a native histogram name another number of buckets than it has")]
    Spans,
    #[error("a native histogram spans more than {MAX_BUCKETS} buckets")]
    TooWide,
    #[error("a native histogram has less observations than its buckets together")]
    Count,
    #[error("the bounds of a native histogram do not ascend")]
    Bounds,
}

/// What of a histogram is not in the body that was written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub form: NativeForm,
    pub time_ms: i64,
    pub start_ms: i64,
}

/// The message, as it is encoded.
#[derive(Default)]
pub(crate) struct Histogram {
    pub count: Number,
    pub sum: f64,
    pub schema: i64,
    pub zero_threshold: f64,
    pub zero_count: Number,
    pub negative: Side,
    pub positive: Side,
    custom_values: Vec<f64>,
    time_ms: i64,
    start_ms: i64,
}

#[derive(Default, Clone, Copy)]
pub(crate) enum Number {
    #[default]
    None,
    Int(u64),
    Float(f64),
}

impl Number {
    /// As a sample has it.
    pub fn approximately(self) -> f64 {
        match self {
            Number::None => 0.0,
            Number::Int(value) => value as f64,
            Number::Float(value) => value,
        }
    }

    fn whole(self) -> Result<u64, BadNative> {
        match self {
            Number::None => Ok(0),
            Number::Int(value) => Ok(value),
            Number::Float(value) => whole(value),
        }
    }
}

/// Buckets of one sign.
#[derive(Default)]
pub(crate) struct Side {
    /// Offset and length.
    pub spans: Vec<(i64, u64)>,
    /// Differences, where counts are whole.
    pub deltas: Vec<i64>,
    /// Counts, where they are floats.
    pub counts: Vec<f64>,
}

/// How much memory reading a message takes at most, what is written of it among it. `spans` are the numbers of its fields of spans.
pub(crate) fn bytes_at_most(message: &[u8], spans: [u64; 2]) -> u64 {
    // A span takes two bytes at least and becomes sixteen, a difference one byte and becomes eight, and a bucket sixteen.
    const GROWTH: u64 = 24;
    let mut gaps = 0u64;
    for (number, payload) in fields(message, "").map_while(Result::ok) {
        if let Payload::Bytes(span) = payload
            && spans.contains(&number)
        {
            let offset = span_of(span).map_or(0, |(offset, _)| offset);
            gaps = gaps.saturating_add(offset.unsigned_abs());
        }
    }
    GROWTH * message.len() as u64 + gaps.min(2 * MAX_BUCKETS as u64)
}

/// Appends the fields of a point that are neither attributes nor times. What was written before an error is the caller's to take back.
pub(super) fn read(out: &mut Vec<u8>, message: &[u8]) -> Result<Result<Told, BadNative>, BadRequest> {
    let histogram = parse(message)?;
    let told = |form| Told {
        form,
        time_ms: histogram.time_ms,
        start_ms: histogram.start_ms,
    };
    Ok(write(out, &histogram).map(told))
}

/// The same of a histogram that was read already.
pub(crate) fn write(out: &mut Vec<u8>, histogram: &Histogram) -> Result<NativeForm, BadNative> {
    if histogram.schema == CUSTOM_BUCKETS {
        explicit(out, histogram).map(|()| NativeForm::Explicit)
    } else {
        exponential(out, histogram).map(|()| NativeForm::Exponential)
    }
}

fn parse(message: &[u8]) -> Result<Histogram, BadRequest> {
    const WHAT: &str = "Histogram";
    let mut histogram = Histogram::default();
    for field in fields(message, WHAT) {
        match field? {
            (1, Payload::Varint(count)) => histogram.count = Number::Int(count),
            (2, Payload::Fixed64(bits)) => histogram.count = Number::Float(f64::from_bits(bits)),
            (3, Payload::Fixed64(bits)) => histogram.sum = f64::from_bits(bits),
            (4, Payload::Varint(schema)) => histogram.schema = unzigzag(schema),
            (5, Payload::Fixed64(bits)) => histogram.zero_threshold = f64::from_bits(bits),
            (6, Payload::Varint(count)) => histogram.zero_count = Number::Int(count),
            (7, Payload::Fixed64(bits)) => histogram.zero_count = Number::Float(f64::from_bits(bits)),
            (8, Payload::Bytes(span)) => histogram.negative.spans.push(span_of(span)?),
            (9, payload) => deltas(&mut histogram.negative.deltas, payload)?,
            (10, payload) => doubles(&mut histogram.negative.counts, payload)?,
            (11, Payload::Bytes(span)) => histogram.positive.spans.push(span_of(span)?),
            (12, payload) => deltas(&mut histogram.positive.deltas, payload)?,
            (13, payload) => doubles(&mut histogram.positive.counts, payload)?,
            (15, Payload::Varint(time)) => histogram.time_ms = time as i64,
            (16, payload) => doubles(&mut histogram.custom_values, payload)?,
            (17, Payload::Varint(time)) => histogram.start_ms = time as i64,
            _ => {}
        }
    }
    Ok(histogram)
}

pub(crate) fn span_of(message: &[u8]) -> Result<(i64, u64), BadRequest> {
    let (mut offset, mut length) = (0, 0);
    for field in fields(message, "BucketSpan") {
        match field? {
            (1, Payload::Varint(value)) => offset = unzigzag(value),
            (2, Payload::Varint(value)) => length = value,
            _ => {}
        }
    }
    Ok((offset, length))
}

/// Packed or one by one.
pub(crate) fn deltas(out: &mut Vec<i64>, payload: Payload<'_>) -> Result<(), BadRequest> {
    match payload {
        Payload::Varint(value) => out.push(unzigzag(value)),
        Payload::Bytes(mut packed) => {
            while !packed.is_empty() {
                let value = wire::varint(&mut packed).ok_or(BadRequest::Protobuf("a bucket's count"))?;
                out.push(unzigzag(value));
            }
        }
        _ => {}
    }
    Ok(())
}

pub(crate) fn doubles(out: &mut Vec<f64>, payload: Payload<'_>) -> Result<(), BadRequest> {
    match payload {
        Payload::Fixed64(bits) => out.push(f64::from_bits(bits)),
        Payload::Bytes(mut packed) => {
            while !packed.is_empty() {
                let bits = wire::fixed64(&mut packed).ok_or(BadRequest::Protobuf("a list of doubles"))?;
                out.push(f64::from_bits(bits));
            }
        }
        _ => {}
    }
    Ok(())
}

fn exponential(out: &mut Vec<u8>, histogram: &Histogram) -> Result<(), BadNative> {
    if !SCHEMAS.contains(&histogram.schema) {
        return Err(BadNative::Schema(histogram.schema));
    }
    let ended = is_stale(histogram.sum);
    let count = if ended { 0 } else { histogram.count.whole()? };
    let zero_count = if ended { 0 } else { histogram.zero_count.whole()? };
    put_count_and_sum(out, count, if ended { 0.0 } else { histogram.sum });
    if histogram.schema != 0 {
        wire::put_tag(out, 6, VARINT);
        wire::put_varint(out, (histogram.schema << 1 ^ histogram.schema >> 63) as u64);
    }
    if zero_count > 0 {
        wire::put_fixed64(out, 7, zero_count);
    }
    if ended {
        wire::put_tag(out, 10, VARINT);
        wire::put_varint(out, u64::from(FLAG_NO_RECORDED_VALUE));
    } else {
        let mut all = zero_count;
        for (number, side) in [(8, &histogram.positive), (9, &histogram.negative)] {
            let buckets = side.buckets()?;
            let Some((first, _)) = buckets.first() else { continue };
            // OTLP's bucket 0 begins where Prometheus' ends.
            let offset = first.checked_sub(1).filter(|offset| i32::try_from(*offset).is_ok());
            let offset = offset.ok_or(BadNative::TooWide)?;
            wire::put_tag(out, number, BYTES);
            let open = wire::open_length(out, 2 * buckets.len());
            wire::put_tag(out, 1, VARINT);
            wire::put_varint(out, (offset << 1 ^ offset >> 63) as u64 & u64::from(u32::MAX));
            wire::put_tag(out, 2, BYTES);
            let counts = wire::open_length(out, buckets.len());
            let mut next = *first;
            for (index, count) in buckets {
                // The gap is not wider than was checked.
                out.extend(std::iter::repeat_n(0, (index - next) as usize));
                wire::put_varint(out, count);
                all = all.checked_add(count).ok_or(BadNative::Count)?;
                next = index + 1;
            }
            wire::close_length(out, counts);
            wire::close_length(out, open);
        }
        if all > count {
            return Err(BadNative::Count);
        }
    }
    if histogram.zero_threshold != 0.0 {
        wire::put_fixed64(out, 14, histogram.zero_threshold.to_bits());
    }
    Ok(())
}

fn explicit(out: &mut Vec<u8>, histogram: &Histogram) -> Result<(), BadNative> {
    let bounds = &histogram.custom_values;
    let ascend = bounds.windows(2).all(|two| two[0] < two[1]);
    if !ascend || bounds.iter().any(|bound| !bound.is_finite()) {
        return Err(BadNative::Bounds);
    }
    let ended = is_stale(histogram.sum);
    let count = if ended { 0 } else { histogram.count.whole()? };
    put_count_and_sum(out, count, if ended { 0.0 } else { histogram.sum });
    let mut counts = vec![0; bounds.len() + 1];
    if ended {
        wire::put_tag(out, 10, VARINT);
        wire::put_varint(out, u64::from(FLAG_NO_RECORDED_VALUE));
    } else {
        let mut all = 0u64;
        for (index, count) in histogram.positive.buckets()? {
            let bucket = usize::try_from(index).ok().and_then(|at| counts.get_mut(at));
            *bucket.ok_or(BadNative::Spans)? = count;
            all = all.checked_add(count).ok_or(BadNative::Count)?;
        }
        if all > count {
            return Err(BadNative::Count);
        }
    }
    wire::put_tag(out, 6, BYTES);
    wire::put_varint(out, 8 * counts.len() as u64);
    for count in counts {
        out.extend_from_slice(&u64::to_le_bytes(count));
    }
    if !bounds.is_empty() {
        wire::put_tag(out, 7, BYTES);
        wire::put_varint(out, 8 * bounds.len() as u64);
        for bound in bounds {
            out.extend_from_slice(&bound.to_bits().to_le_bytes());
        }
    }
    Ok(())
}

fn put_count_and_sum(out: &mut Vec<u8>, count: u64, sum: f64) {
    wire::put_fixed64(out, 4, count);
    wire::put_fixed64(out, 5, sum.to_bits());
}

impl Side {
    /// Prometheus' indices with their counts, the empty ones at both ends left out.
    fn buckets(&self) -> Result<Vec<(i64, u64)>, BadNative> {
        let length = self.deltas.len().max(self.counts.len());
        let named = self
            .spans
            .iter()
            .try_fold(0u64, |all, (_, length)| all.checked_add(*length));
        if named != Some(length as u64) || (!self.deltas.is_empty() && !self.counts.is_empty()) {
            return Err(BadNative::Spans);
        }
        let mut buckets: Vec<(i64, u64)> = Vec::with_capacity(length);
        let (mut index, mut count, mut at) = (0i64, 0i64, 0);
        for (number, (offset, length)) in self.spans.iter().enumerate() {
            if number > 0 && *offset < 0 {
                return Err(BadNative::Spans);
            }
            index = index.checked_add(*offset).ok_or(BadNative::TooWide)?;
            for _ in 0..*length {
                let whole = match self.deltas.get(at) {
                    Some(delta) => {
                        count = count.checked_add(*delta).ok_or(BadNative::Negative)?;
                        u64::try_from(count).map_err(|_| BadNative::Negative)?
                    }
                    None => whole(self.counts[at])?,
                };
                if whole > 0 {
                    buckets.push((index, whole));
                }
                at += 1;
                index = index.checked_add(1).ok_or(BadNative::TooWide)?;
            }
        }
        if let (Some((first, _)), Some((last, _))) = (buckets.first(), buckets.last())
            && last.checked_sub(*first).is_none_or(|width| width >= MAX_BUCKETS)
        {
            return Err(BadNative::TooWide);
        }
        Ok(buckets)
    }
}

fn whole(value: f64) -> Result<u64, BadNative> {
    const END: f64 = 18_446_744_073_709_551_616.0;
    if value < 0.0 {
        Err(BadNative::Negative)
    } else if value < END && value.fract() == 0.0 {
        Ok(value as u64)
    } else {
        Err(BadNative::Fraction)
    }
}

pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_at_the_end_of_all_numbers_is_too_wide() {
        for offset in [i64::MIN, i64::MIN + 1, i64::from(i32::MIN), i64::from(i32::MAX) + 2] {
            let positive = Side {
                spans: vec![(offset, 1)],
                deltas: vec![1],
                counts: Vec::new(),
            };
            let histogram = Histogram {
                count: Number::Int(1),
                positive,
                ..Histogram::default()
            };
            assert_eq!(
                exponential(&mut Vec::new(), &histogram),
                Err(BadNative::TooWide),
                "{offset}"
            );
        }
    }
}
