//! Why: both connectors that count spans also say how long they took, in one of OTLP's two forms of a histogram. What they have seen is kept here, goes into
//! a point and into a remembered state, and comes back from it.

use std::sync::Arc;
use std::time::Duration;

use model::wire::{self, Fields, put_fixed64, put_tag, put_varint};
use model::write::{Attributes, Exemplar, ExponentialPoint, HistogramPoint, Points};
use serde::Deserialize;

use crate::config::{Problems, Section, duration};

/// The finest scale that is begun with; a histogram that gets wider becomes coarser. The OpenTelemetry SDKs begin with it too.
const FINEST_SCALE: i32 = 20;

/// The scales there are: at the coarsest, two buckets hold all numbers.
const SCALES: std::ops::RangeInclusive<i32> = -11..=FINEST_SCALE;

/// How many buckets an exponential histogram has at most, unless told otherwise: the collector's and the SDKs' number.
pub const DEFAULT_MAX_SIZE: u32 = 160;

/// Fewer buckets cannot hold two values, and more than these are no summary: the bounds of the library that the collector uses.
pub const MAX_SIZES: std::ops::RangeInclusive<u32> = 2..=16_384;

/// Explicit bounds that a histogram has at most: each series holds a count for each, and a point carries them all.
pub const MAX_BOUNDS: usize = 200;

/// A duration in a list.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(transparent)]
pub struct Bound(#[serde(deserialize_with = "duration")] pub Duration);

/// Bounds ascend, and are not too many.
pub fn check_bounds(section: &Section<'_>, path: &[&str], buckets: &[Bound]) -> Result<(), Problems> {
    if buckets.len() > MAX_BOUNDS {
        return Err(section.problem(path, format!("a histogram has at most {MAX_BOUNDS} bounds")));
    }
    match buckets.is_sorted_by(|one, next| one.0 < next.0) {
        true => Ok(()),
        false => Err(section.problem(path, "the bounds of buckets ascend")),
    }
}

/// The collector's bounds, in ms.
const DEFAULT_BOUNDS_MS: [u64; 16] = [
    2, 4, 6, 8, 10, 50, 100, 200, 400, 800, 1000, 1400, 2000, 5000, 10_000, 15_000,
];

/// The upper bounds of buckets in a unit, from durations or the collector's defaults.
pub fn bounds(buckets: Option<&[Bound]>, ns_per_unit: f64) -> Arc<[f64]> {
    let in_unit = |bound: Duration| bound.as_nanos() as f64 / ns_per_unit;
    match buckets {
        Some(buckets) => buckets.iter().map(|bound| in_unit(bound.0)).collect(),
        None => DEFAULT_BOUNDS_MS.map(|ms| in_unit(Duration::from_millis(ms))).into(),
    }
}

/// The form of all histograms of a metric.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// Ascending upper bounds, each inside its bucket.
    Explicit(Arc<[f64]>),
    Exponential {
        max_size: u32,
    },
}

impl Shape {
    /// Bytes that a histogram of this shape holds at most.
    pub fn held_bytes(&self) -> usize {
        let buckets = match self {
            Shape::Explicit(bounds) => bounds.len() + 1,
            Shape::Exponential { max_size } => *max_size as usize,
        };
        size_of::<Histogram>() + buckets * size_of::<u64>()
    }
}

/// What was observed.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    pub count: u64,
    pub sum: f64,
    buckets: Buckets,
}

#[derive(Debug, Clone, PartialEq)]
enum Buckets {
    Explicit(Box<[u64]>),
    Exponential(Exponential),
}

#[derive(Debug, Clone, PartialEq)]
struct Exponential {
    scale: i32,
    zeros: u64,
    min: f64,
    max: f64,
    /// The index of the first bucket.
    offset: i32,
    counts: Vec<u64>,
}

impl Histogram {
    pub fn new(shape: &Shape) -> Histogram {
        let buckets = match shape {
            Shape::Explicit(bounds) => Buckets::Explicit(vec![0; bounds.len() + 1].into()),
            Shape::Exponential { .. } => Buckets::Exponential(Exponential {
                scale: FINEST_SCALE,
                zeros: 0,
                min: f64::INFINITY,
                max: f64::NEG_INFINITY,
                offset: 0,
                counts: Vec::new(),
            }),
        };
        Histogram {
            count: 0,
            sum: 0.0,
            buckets,
        }
    }

    /// The bucket of a value, among those that the shape says; 0 for a shape that finds its own.
    pub fn bucket(shape: &Shape, value: f64) -> usize {
        match shape {
            Shape::Explicit(bounds) => bounds.partition_point(|bound| *bound < value),
            Shape::Exponential { .. } => 0,
        }
    }

    /// Takes a value, which is not below zero and finite, as durations are.
    pub fn observe(&mut self, shape: &Shape, value: f64) {
        self.count += 1;
        self.sum += value;
        match (&mut self.buckets, shape) {
            (Buckets::Explicit(counts), _) => {
                if let Some(count) = counts.get_mut(Histogram::bucket(shape, value)) {
                    *count += 1;
                }
            }
            (Buckets::Exponential(exponential), Shape::Exponential { max_size }) => {
                exponential.observe(value, i64::from(*max_size));
            }
            (Buckets::Exponential(_), Shape::Explicit(_)) => debug_assert!(false, "one shape for all"),
        }
    }

    /// Writes it as a point.
    pub fn write(
        &self,
        points: &mut Points<'_>,
        shape: &Shape,
        start_unix_nano: u64,
        time_unix_nano: u64,
        exemplars: &[Exemplar],
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) {
        match (&self.buckets, shape) {
            (Buckets::Explicit(counts), Shape::Explicit(bounds)) => {
                let point = HistogramPoint {
                    start_unix_nano,
                    time_unix_nano,
                    count: self.count,
                    sum: Some(self.sum),
                    min: None,
                    max: None,
                    bounds,
                    counts,
                };
                points.histogram(&point, exemplars, attributes);
            }
            (Buckets::Exponential(exponential), _) => {
                let any = self.count > 0;
                let point = ExponentialPoint {
                    start_unix_nano,
                    time_unix_nano,
                    count: self.count,
                    sum: Some(self.sum),
                    min: any.then_some(exponential.min),
                    max: any.then_some(exponential.max),
                    scale: exponential.scale,
                    zero_count: exponential.zeros,
                    zero_threshold: 0.0,
                    positive: (exponential.offset, &exponential.counts),
                    negative: (0, &[]),
                };
                points.exponential(&point, exemplars, attributes);
            }
            (Buckets::Explicit(_), Shape::Exponential { .. }) => debug_assert!(false, "one shape for all"),
        }
    }

    /// Appends it as fields of a message: 1 count, 2 sum, 3 counts; and 4 scale, 5 zeros, 6 offset, 7 min, 8 max of an exponential one.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, 1, self.count);
        put_fixed64(out, 2, self.sum.to_bits());
        let counts: &[u64] = match &self.buckets {
            Buckets::Explicit(counts) => counts,
            Buckets::Exponential(exponential) => {
                put_number(out, 4, exponential.scale as u64);
                put_number(out, 5, exponential.zeros);
                put_number(out, 6, exponential.offset as u64);
                put_fixed64(out, 7, exponential.min.to_bits());
                put_fixed64(out, 8, exponential.max.to_bits());
                &exponential.counts
            }
        };
        put_tag(out, 3, wire::BYTES);
        let open = wire::open_length(out, counts.len());
        for count in counts {
            put_varint(out, *count);
        }
        wire::close_length(out, open);
    }

    /// Reads what [`Histogram::encode`] wrote; `None` if it is of another shape.
    pub fn decode(bytes: &[u8], shape: &Shape) -> Option<Histogram> {
        let mut histogram = Histogram::new(shape);
        let mut counts: Vec<u64> = Vec::new();
        for (number, payload) in Fields::new(bytes) {
            match (number, &mut histogram.buckets) {
                (1, _) => histogram.count = payload.varint(),
                (2, _) => histogram.sum = f64::from_bits(payload.fixed64()),
                (3, _) => counts.extend(varints(payload.bytes())),
                (4, Buckets::Exponential(exponential)) => exponential.scale = payload.varint() as i32,
                (5, Buckets::Exponential(exponential)) => exponential.zeros = payload.varint(),
                (6, Buckets::Exponential(exponential)) => exponential.offset = payload.varint() as i32,
                (7, Buckets::Exponential(exponential)) => exponential.min = f64::from_bits(payload.fixed64()),
                (8, Buckets::Exponential(exponential)) => exponential.max = f64::from_bits(payload.fixed64()),
                _ => return None,
            }
        }
        match (&mut histogram.buckets, shape) {
            (Buckets::Explicit(own), _) if own.len() == counts.len() => *own = counts.into(),
            (Buckets::Exponential(own), Shape::Exponential { max_size })
                if counts.len() <= *max_size as usize && SCALES.contains(&own.scale) =>
            {
                own.counts = counts;
            }
            _ => return None,
        }
        Some(histogram)
    }
}

fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_tag(out, number, wire::VARINT);
    put_varint(out, value);
}

fn varints(mut bytes: &[u8]) -> impl Iterator<Item = u64> {
    std::iter::from_fn(move || wire::varint(&mut bytes))
}

impl Exponential {
    fn observe(&mut self, value: f64, max_size: i64) {
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        if value <= 0.0 {
            self.zeros += 1;
            return;
        }
        let index = i64::from(index(value, self.scale));
        let first = i64::from(self.offset);
        let (low, high) = match self.counts.len() as i64 {
            0 => (index, index),
            len => (first.min(index), (first + len - 1).max(index)),
        };
        let mut by = 0;
        while (high >> by) - (low >> by) >= max_size {
            by += 1;
        }
        self.coarsen(by);
        let index = index >> by;
        if self.counts.is_empty() {
            self.offset = index as i32;
        }
        let before = i64::from(self.offset) - index;
        if before > 0 {
            self.counts.splice(0..0, std::iter::repeat_n(0, before as usize));
            self.offset = index as i32;
        }
        let at = (index - i64::from(self.offset)) as usize;
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += 1;
    }

    /// Lowers the scale by `by`: 2^by neighbours become one bucket each time.
    fn coarsen(&mut self, by: i32) {
        if by == 0 {
            return;
        }
        self.scale -= by;
        let offset = self.offset >> by;
        for at in 0..self.counts.len() {
            let count = std::mem::take(&mut self.counts[at]);
            let to = ((i64::from(self.offset) + at as i64) >> by) - i64::from(offset);
            self.counts[to as usize] += count;
        }
        let used = self
            .counts
            .iter()
            .rposition(|count| *count > 0)
            .map_or(0, |last| last + 1);
        self.counts.truncate(used);
        self.offset = offset;
    }
}

/// The bucket of a positive value: that with base^index < value ≤ base^(index + 1), where the base is 2^(2^-scale) (OpenTelemetry data model, "Exponential
/// Buckets").
fn index(value: f64, scale: i32) -> i32 {
    let bits = value.max(f64::MIN_POSITIVE).to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32 - 1023;
    // A power of two is the upper bound of its bucket.
    let is_power = bits & ((1 << 52) - 1) == 0;
    match scale {
        ..=0 => (exponent - i32::from(is_power)) >> (-scale).min(31),
        _ if is_power => (exponent << scale) - 1,
        _ => {
            let factor = f64::from(scale).exp2() * std::f64::consts::LOG2_E;
            let index = (value.ln() * factor).ceil() as i32 - 1;
            // Rounding must not carry it over a power of two.
            index.clamp(exponent << scale, ((exponent + 1) << scale) - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn there_and_back(histogram: &Histogram, shape: &Shape) {
        let mut out = Vec::new();
        histogram.encode(&mut out);
        assert_eq!(Histogram::decode(&out, shape).as_ref(), Some(histogram));
    }

    #[test]
    fn a_bound_is_inside_its_bucket() {
        let shape = Shape::Explicit([2.0, 4.0].into());
        let mut histogram = Histogram::new(&shape);
        for value in [0.0, 2.0, 2.1, 4.0, 4.1, 1e9] {
            histogram.observe(&shape, value);
        }
        assert_eq!(histogram.buckets, Buckets::Explicit([2, 2, 2].into()));
        there_and_back(&histogram, &shape);
        let other = Shape::Explicit([2.0].into());
        let mut out = Vec::new();
        histogram.encode(&mut out);
        assert_eq!(Histogram::decode(&out, &other), None, "another number of buckets");
    }

    proptest! {
        /// Every value lies in the bucket that counts it, the buckets are few enough, and nothing is lost, whatever order they come in.
        #[test]
        fn an_exponential_histogram_holds_what_it_was_given(
            values in proptest::collection::vec(prop_oneof![Just(0.0), 1e-9..1e-6, 0.001..1000.0, 1.0..1e12, Just(1.0), Just(0.5), Just(1024.0)], 1..200),
            max_size in prop_oneof![Just(2u32), Just(7), Just(160)],
        ) {
            let shape = Shape::Exponential { max_size };
            let mut histogram = Histogram::new(&shape);
            for value in &values {
                histogram.observe(&shape, *value);
            }
            there_and_back(&histogram, &shape);
            let Buckets::Exponential(exponential) = &histogram.buckets else { panic!("exponential") };
            prop_assert!(exponential.counts.len() <= max_size as usize);
            let in_buckets: u64 = exponential.counts.iter().sum();
            prop_assert_eq!(in_buckets + exponential.zeros, values.len() as u64);
            let base = (-f64::from(exponential.scale)).exp2().exp2();
            for (at, count) in exponential.counts.iter().enumerate() {
                let lower = base.powi(exponential.offset + at as i32);
                let upper = base.powi(exponential.offset + at as i32 + 1);
                // The slack is for the powers that this test computes, at the finest scales.
                let within = values.iter().filter(|value| **value > lower * (1.0 + 1e-6) && **value <= upper * (1.0 - 1e-6)).count();
                let around = values.iter().filter(|value| **value > lower * (1.0 - 1e-6) && **value <= upper * (1.0 + 1e-6)).count();
                prop_assert!((within as u64..=around as u64).contains(count), "{} to {}: {}", lower, upper, count);
            }
        }
    }
}
