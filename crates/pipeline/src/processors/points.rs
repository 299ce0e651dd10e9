//! Why: differences and sums of data points, for what turns one into the other: numbers, histograms, exponential histograms. Points are read from and written to
//! their encoded form; whatever senders claim, nothing here grows beyond what they sent.

use model::edit::message::map_fields;
use model::view::View;
use model::view::metrics::{Buckets, ExponentialHistogramPoint, HistogramPoint, Number, NumberPoint};
use model::wire::{self, put_bytes, put_fixed64, put_tag, put_varint};

/// The most buckets of one sign that a sum of exponential histograms has; more precision is given up instead. The SDKs' default, and the Collector's.
const MAX_BUCKETS: i64 = 160;

/// The most buckets of one sign that a point may bring. One of them takes a byte of a request, and eight in memory.
const MAX_READ_BUCKETS: usize = 16 << 10;

/// Bit 0 of a data point's flags: there was nothing to measure (OTLP, `DataPointFlags`).
const NO_RECORDED_VALUE: u32 = 1;

/// What kind of data a metric has, by the number of its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Sum = 7,
    Histogram = 9,
    Exponential = 10,
}

impl Kind {
    pub fn from_field(number: u32) -> Option<Kind> {
        match number {
            7 => Some(Kind::Sum),
            9 => Some(Kind::Histogram),
            10 => Some(Kind::Exponential),
            _ => None,
        }
    }

    /// The field of a point that holds its attributes.
    pub fn attributes(self) -> u32 {
        match self {
            Kind::Sum => 7,
            Kind::Histogram => 9,
            Kind::Exponential => 1,
        }
    }

    /// The fields of a point that [`Point::put`] writes.
    fn written(self) -> &'static [u32] {
        match self {
            Kind::Sum => &[2, 3, 4, 6],
            Kind::Histogram => &[2, 3, 4, 5, 6, 7, 11, 12],
            Kind::Exponential => &[2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14],
        }
    }
}

/// A point without its attributes and exemplars.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    pub start_unix_nano: u64,
    pub time_unix_nano: u64,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Int(i64),
    Double(f64),
    Histogram(Box<Histogram>),
    Exponential(Box<Exponential>),
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Histogram {
    pub count: u64,
    pub sum: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub counts: Vec<u64>,
    pub bounds: Vec<f64>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Exponential {
    pub count: u64,
    pub sum: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub scale: i32,
    pub zero_count: u64,
    pub zero_threshold: f64,
    pub positive: Side,
    pub negative: Side,
}

/// The buckets of one sign.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Side {
    pub offset: i32,
    pub counts: Vec<u64>,
}

/// What lies between two points of a cumulative stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Difference {
    /// The later one counts on from the earlier one.
    Since(Value),
    /// The later one has begun anew.
    Reset,
    /// They cannot be compared: their buckets differ.
    Mismatch,
}

impl Point {
    /// `None` if nothing was measured, or nothing that can be counted.
    pub fn read(kind: Kind, point: &[u8]) -> Option<Point> {
        let (start_unix_nano, time_unix_nano, flags, value) = match kind {
            Kind::Sum => {
                let point = NumberPoint::read(point);
                let value = match point.value {
                    Number::Int(value) => Value::Int(value),
                    Number::Double(value) if !value.is_nan() => Value::Double(value),
                    Number::Double(_) | Number::None => return None,
                };
                (point.start_unix_nano, point.time_unix_nano, point.flags, value)
            }
            Kind::Histogram => {
                let point = HistogramPoint::read(point);
                let histogram = Histogram {
                    count: point.count,
                    sum: point.sum.filter(|sum| !sum.is_nan()),
                    min: point.min,
                    max: point.max,
                    counts: point.bucket_counts.integers().collect(),
                    bounds: point.explicit_bounds.doubles().collect(),
                };
                let value = Value::Histogram(Box::new(histogram));
                (point.start_unix_nano, point.time_unix_nano, point.flags, value)
            }
            Kind::Exponential => {
                let point = ExponentialHistogramPoint::read(point);
                let side = |side: Option<Buckets<'_>>| Side {
                    offset: side.map_or(0, |side| side.offset),
                    counts: side.map_or_else(Vec::new, |side| {
                        side.bucket_counts.iter().take(MAX_READ_BUCKETS + 1).collect()
                    }),
                };
                let histogram = Exponential {
                    count: point.count,
                    sum: point.sum.filter(|sum| !sum.is_nan()),
                    min: point.min,
                    max: point.max,
                    scale: point.scale,
                    zero_count: point.zero_count,
                    zero_threshold: point.zero_threshold,
                    positive: side(point.positive),
                    negative: side(point.negative),
                };
                let most = histogram.positive.counts.len().max(histogram.negative.counts.len());
                if most > MAX_READ_BUCKETS {
                    return None;
                }
                let value = Value::Exponential(Box::new(histogram));
                (point.start_unix_nano, point.time_unix_nano, point.flags, value)
            }
        };
        (flags & NO_RECORDED_VALUE == 0).then_some(Point {
            start_unix_nano,
            time_unix_nano,
            value,
        })
    }

    pub fn kind(&self) -> Kind {
        match self.value {
            Value::Int(_) | Value::Double(_) => Kind::Sum,
            Value::Histogram(_) => Kind::Histogram,
            Value::Exponential(_) => Kind::Exponential,
        }
    }

    /// Writes its fields.
    pub fn put(&self, out: &mut Vec<u8>) {
        put_fixed64(out, 2, self.start_unix_nano);
        put_fixed64(out, 3, self.time_unix_nano);
        let double = |out: &mut Vec<u8>, number, value: Option<f64>| {
            if let Some(value) = value {
                put_fixed64(out, number, value.to_bits());
            }
        };
        match &self.value {
            Value::Int(value) => put_fixed64(out, 6, *value as u64),
            Value::Double(value) => put_fixed64(out, 4, value.to_bits()),
            Value::Histogram(of) => {
                put_fixed64(out, 4, of.count);
                double(out, 5, of.sum);
                put_packed(out, 6, of.counts.iter().copied());
                put_packed(out, 7, of.bounds.iter().map(|bound| bound.to_bits()));
                double(out, 11, of.min);
                double(out, 12, of.max);
            }
            Value::Exponential(of) => {
                put_fixed64(out, 4, of.count);
                double(out, 5, of.sum);
                put_tag(out, 6, wire::VARINT);
                put_varint(out, zigzag(of.scale));
                put_fixed64(out, 7, of.zero_count);
                of.positive.put(out, 8);
                of.negative.put(out, 9);
                double(out, 12, of.min);
                double(out, 13, of.max);
                put_fixed64(out, 14, of.zero_threshold.to_bits());
            }
        }
    }

    /// Writes an encoded point of its kind anew, with its values; attributes, exemplars and flags stay.
    pub fn put_into(&self, point: &[u8], out: &mut Vec<u8>) {
        let written = self.kind().written();
        map_fields(point, out, |number, _, _| written.contains(&number));
        self.put(out);
    }

    /// At most so many bytes are what [`Point::put`] writes.
    pub fn encoded_bytes(&self) -> usize {
        // A number has three fields of nine bytes, a histogram eleven.
        const SCALARS: usize = 128;
        match &self.value {
            Value::Int(_) | Value::Double(_) => 27,
            Value::Histogram(of) => SCALARS + (of.counts.len() + of.bounds.len()) * 8,
            Value::Exponential(of) => SCALARS + (of.positive.counts.len() + of.negative.counts.len()) * 10,
        }
    }
}

impl Value {
    /// Adds what was counted in another span of time. `false` if it cannot be added: other buckets, or another kind.
    pub fn add(&mut self, more: &Value) -> bool {
        match (self, more) {
            (Value::Int(sum), Value::Int(more)) => *sum = sum.saturating_add(*more),
            // Infinities of both signs have no sum.
            (Value::Double(sum), Value::Double(more)) if (*sum + more).is_nan() => return false,
            (Value::Double(sum), Value::Double(more)) => *sum += more,
            (Value::Double(sum), Value::Int(more)) => *sum += *more as f64,
            (sum @ Value::Int(_), Value::Double(more)) => {
                let Value::Int(before) = *sum else { return false };
                *sum = Value::Double(before as f64 + more);
            }
            (Value::Histogram(sum), Value::Histogram(more)) => return sum.add(more),
            (Value::Exponential(sum), Value::Exponential(more)) => sum.add(more),
            _ => return false,
        }
        true
    }

    /// What was counted since `earlier`.
    pub fn since(&self, earlier: &Value) -> Difference {
        match (self, earlier) {
            (Value::Int(now), Value::Int(before)) => match now.checked_sub(*before) {
                Some(more) if more >= 0 => Difference::Since(Value::Int(more)),
                _ => Difference::Reset,
            },
            (Value::Double(now), Value::Double(before)) => match now - before {
                more if more >= 0.0 => Difference::Since(Value::Double(more)),
                _ => Difference::Reset,
            },
            (Value::Histogram(now), Value::Histogram(before)) => now.since(before),
            (Value::Exponential(now), Value::Exponential(before)) => now.since(before),
            _ => Difference::Mismatch,
        }
    }
}

fn merged(one: Option<f64>, other: Option<f64>, merge: impl FnOnce(f64, f64) -> f64) -> Option<f64> {
    one.zip(other).map(|(one, other)| merge(one, other))
}

impl Histogram {
    fn has_buckets_of(&self, other: &Histogram) -> bool {
        self.counts.len() == other.counts.len() && self.bounds == other.bounds
    }

    fn add(&mut self, more: &Histogram) -> bool {
        if !self.has_buckets_of(more) {
            return false;
        }
        self.count = self.count.saturating_add(more.count);
        self.sum = merged(self.sum, more.sum, |one, other| one + other);
        self.min = merged(self.min, more.min, f64::min);
        self.max = merged(self.max, more.max, f64::max);
        for (sum, more) in self.counts.iter_mut().zip(&more.counts) {
            *sum = sum.saturating_add(*more);
        }
        true
    }

    fn since(&self, earlier: &Histogram) -> Difference {
        if !self.has_buckets_of(earlier) {
            return Difference::Mismatch;
        }
        let counts = self.counts.iter().zip(&earlier.counts);
        let counts: Option<Vec<u64>> = counts.map(|(now, before)| now.checked_sub(*before)).collect();
        match (self.count.checked_sub(earlier.count), counts) {
            (Some(count), Some(counts)) => Difference::Since(Value::Histogram(Box::new(Histogram {
                count,
                sum: merged(self.sum, earlier.sum, |now, before| now - before),
                // Of the time between, they are not known.
                min: None,
                max: None,
                counts,
                bounds: self.bounds.clone(),
            }))),
            _ => Difference::Reset,
        }
    }
}

impl Exponential {
    fn add(&mut self, more: &Exponential) {
        let mut more = more.clone();
        self.align(&mut more);
        self.count = self.count.saturating_add(more.count);
        self.sum = merged(self.sum, more.sum, |one, other| one + other);
        self.min = merged(self.min, more.min, f64::min);
        self.max = merged(self.max, more.max, f64::max);
        self.zero_count = self.zero_count.saturating_add(more.zero_count);
        let lost = self
            .positive
            .bits_to_lose(&more.positive)
            .max(self.negative.bits_to_lose(&more.negative));
        self.coarsen(lost);
        more.coarsen(lost);
        self.positive.add(&more.positive);
        self.negative.add(&more.negative);
    }

    /// Gives both the lower scale and the higher threshold of zero.
    fn align(&mut self, other: &mut Exponential) {
        let scale = self.scale.min(other.scale);
        self.coarsen(self.scale.abs_diff(scale));
        other.coarsen(other.scale.abs_diff(scale));
        let threshold = self.zero_threshold.max(other.zero_threshold);
        self.widen_zero(threshold);
        other.widen_zero(threshold);
    }

    /// Each step joins two buckets into one.
    fn coarsen(&mut self, steps: u32) {
        if steps > 0 {
            self.scale = self.scale.saturating_sub_unsigned(steps);
            self.positive.coarsen(steps);
            self.negative.coarsen(steps);
        }
    }

    /// Counts in buckets at or below the threshold as zero. The bucket that it lies in is counted as zero as a whole.
    fn widen_zero(&mut self, threshold: f64) {
        if threshold > self.zero_threshold && threshold.is_finite() {
            self.zero_threshold = threshold;
            // The bucket of index i reaches from 2^(i / 2^scale), exclusive, to 2^((i + 1) / 2^scale) (OpenTelemetry, data model).
            let index = (threshold.log2() * f64::from(self.scale).exp2()).ceil() - 1.0;
            let moved = self
                .positive
                .take_below(index)
                .saturating_add(self.negative.take_below(index));
            self.zero_count = self.zero_count.saturating_add(moved);
        }
    }

    fn since(&self, earlier: &Exponential) -> Difference {
        if self.count < earlier.count {
            return Difference::Reset;
        }
        // Merging only ever makes them coarser: finer ones count something else.
        if self.scale > earlier.scale || self.zero_threshold < earlier.zero_threshold {
            return Difference::Mismatch;
        }
        let mut earlier = earlier.clone();
        earlier.coarsen(earlier.scale.abs_diff(self.scale));
        earlier.widen_zero(self.zero_threshold);
        let sides = self
            .positive
            .since(&earlier.positive)
            .zip(self.negative.since(&earlier.negative));
        match (self.zero_count.checked_sub(earlier.zero_count), sides) {
            (Some(zero_count), Some((positive, negative))) => {
                Difference::Since(Value::Exponential(Box::new(Exponential {
                    count: self.count - earlier.count,
                    sum: merged(self.sum, earlier.sum, |now, before| now - before),
                    min: None,
                    max: None,
                    scale: self.scale,
                    zero_count,
                    zero_threshold: self.zero_threshold,
                    positive,
                    negative,
                })))
            }
            _ => Difference::Reset,
        }
    }
}

impl Side {
    /// Its first and last index, if anything was counted.
    fn range(&self) -> Option<(i64, i64)> {
        let first = self.counts.iter().position(|count| *count > 0)? as i64;
        let last = self.counts.iter().rposition(|count| *count > 0)? as i64;
        Some((i64::from(self.offset) + first, i64::from(self.offset) + last))
    }

    fn counted(&self) -> impl Iterator<Item = (i64, u64)> + Clone + use<'_> {
        let offset = i64::from(self.offset);
        let counts = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        counts.map(move |(index, count)| (offset + index as i64, *count))
    }

    /// What was counted, by index.
    fn of(counted: impl Iterator<Item = (i64, u64)> + Clone) -> Side {
        let Some(first) = counted.clone().map(|(index, _)| index).min() else {
            return Side::default();
        };
        let last = counted.clone().map(|(index, _)| index).max().unwrap_or(first);
        let mut counts = vec![0u64; (last - first) as usize + 1];
        for (index, count) in counted {
            let at = &mut counts[(index - first) as usize];
            *at = at.saturating_add(count);
        }
        Side {
            // Where indices of both are summed they are of this type.
            offset: first.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32,
            counts,
        }
    }

    fn coarsen(&mut self, steps: u32) {
        let steps = steps.min(62);
        *self = Side::of(self.counted().map(|(index, count)| (index >> steps, count)));
    }

    /// By how many steps both have to become coarser for their sum to be within the bound.
    fn bits_to_lose(&self, other: &Side) -> u32 {
        let ranges = [self.range(), other.range()];
        let ranges = ranges.iter().flatten();
        let Some(first) = ranges.clone().map(|(first, _)| *first).min() else {
            return 0;
        };
        let last = ranges.map(|(_, last)| *last).max().unwrap_or(first);
        (0..40)
            .find(|steps| (last >> steps) - (first >> steps) < MAX_BUCKETS)
            .unwrap_or(40)
    }

    fn add(&mut self, more: &Side) {
        *self = Side::of(self.counted().chain(more.counted()));
    }

    /// Takes out what was counted up to an index, and says how much that was.
    fn take_below(&mut self, index: f64) -> u64 {
        let below = |at: i64| at as f64 <= index;
        let taken = self.counted().filter(|(at, _)| below(*at));
        let taken = taken.fold(0u64, |sum, (_, count)| sum.saturating_add(count));
        if taken > 0 {
            *self = Side::of(self.counted().filter(|(at, _)| !below(*at)));
        }
        taken
    }

    /// `None` if less was counted than earlier.
    fn since(&self, earlier: &Side) -> Option<Side> {
        let mut counts = self.counts.clone();
        for (index, before) in earlier.counted() {
            let at = usize::try_from(index - i64::from(self.offset)).ok()?;
            let now = counts.get_mut(at)?;
            *now = now.checked_sub(before)?;
        }
        Some(Side {
            offset: self.offset,
            counts,
        })
    }

    fn put(&self, out: &mut Vec<u8>, number: u32) {
        if self.counts.is_empty() {
            return;
        }
        let (mut side, mut counts) = (Vec::new(), Vec::new());
        put_tag(&mut side, 1, wire::VARINT);
        put_varint(&mut side, zigzag(self.offset));
        self.counts.iter().for_each(|count| put_varint(&mut counts, *count));
        put_bytes(&mut side, 2, &counts);
        put_bytes(out, number, &side);
    }
}

fn zigzag(value: i32) -> u64 {
    u64::from(((value << 1) ^ (value >> 31)) as u32)
}

fn put_packed(out: &mut Vec<u8>, number: u32, values: impl ExactSizeIterator<Item = u64>) {
    if values.len() > 0 {
        put_tag(out, number, wire::BYTES);
        put_varint(out, values.len() as u64 * 8);
        values.for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
    }
}
