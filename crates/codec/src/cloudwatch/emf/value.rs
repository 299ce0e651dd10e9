//! Values as CloudWatch takes them.

use model::view::AnyValue;
use model::view::metrics::{Buckets, ExponentialHistogramPoint, HistogramPoint, SummaryPoint};

use crate::value_text;

/// CloudWatch takes no larger values, positive or negative: 2^360.
const MAX_VALUE: f64 = 2.348_542_582_773_833_3e108;

/// Values of one distribution; CloudWatch takes so many in an event.
const MAX_VALUES: usize = 100;

/// Buckets of one histogram that are remembered, to know the extremes of what is added. More buckets than this do without.
const MAX_BUCKETS: usize = 512;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Number(f64),
    Statistics(Statistics),
    /// How often which value was observed.
    Distribution(Statistics, Vec<(f64, f64)>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Statistics {
    pub min: f64,
    pub max: f64,
    pub count: u64,
    pub sum: f64,
}

impl Value {
    /// Whether CloudWatch takes it, and JSON can say it.
    pub fn is_taken(&self) -> bool {
        let right = |value: f64| value.abs() <= MAX_VALUE;
        let rights = |of: &Statistics| right(of.min) && right(of.max) && right(of.sum);
        match self {
            Value::Number(number) => right(*number),
            Value::Statistics(statistics) => rights(statistics),
            Value::Distribution(statistics, values) => {
                rights(statistics) && values.iter().all(|(value, _)| right(*value))
            }
        }
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Value::Number(number) => write_number(*number, out),
            Value::Statistics(statistics) => {
                out.push(b'{');
                statistics.write(out);
                out.push(b'}');
            }
            Value::Distribution(statistics, values) => {
                out.extend_from_slice(b"{\"Values\":[");
                write_list(values.iter().map(|(value, _)| *value), out);
                out.extend_from_slice(b"],\"Counts\":[");
                write_list(values.iter().map(|(_, count)| *count), out);
                out.extend_from_slice(b"],");
                statistics.write(out);
                out.push(b'}');
            }
        }
    }
}

impl Statistics {
    fn write(&self, out: &mut Vec<u8>) {
        for (key, value) in [("\"Max\":", self.max), (",\"Min\":", self.min), (",\"Sum\":", self.sum)] {
            out.extend_from_slice(key.as_bytes());
            write_number(value, out);
        }
        out.extend_from_slice(b",\"Count\":");
        value_text::write_number(i64::try_from(self.count).unwrap_or(i64::MAX), out);
    }
}

fn write_number(number: f64, out: &mut Vec<u8>) {
    value_text::write_json(&AnyValue::Double(number), out);
}

fn write_list(numbers: impl Iterator<Item = f64>, out: &mut Vec<u8>) {
    for (index, number) in numbers.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_number(number, out);
    }
}

/// What a histogram or summary has observed, as far as it can be subtracted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Observed {
    pub count: u64,
    pub sum: f64,
    pub min: Option<f64>,
    pub max: Option<f64>,
    /// One more than the bounds, or none.
    pub counts: Vec<u64>,
    pub bounds: Vec<f64>,
}

impl Observed {
    pub fn of_histogram(point: &HistogramPoint<'_>) -> Observed {
        let mut counts: Vec<u64> = point.bucket_counts.integers().take(MAX_BUCKETS + 1).collect();
        let mut bounds: Vec<f64> = point.explicit_bounds.doubles().take(MAX_BUCKETS).collect();
        if counts.len() > MAX_BUCKETS || counts.len() != bounds.len() + 1 {
            counts = Vec::new();
            bounds = Vec::new();
        }
        Observed {
            count: point.count,
            sum: point.sum.unwrap_or_default(),
            min: point.min,
            max: point.max,
            counts,
            bounds,
        }
    }

    pub fn of_exponential(point: &ExponentialHistogramPoint<'_>) -> Observed {
        Observed {
            count: point.count,
            sum: point.sum.unwrap_or_default(),
            min: point.min,
            max: point.max,
            counts: Vec::new(),
            bounds: Vec::new(),
        }
    }

    /// The extremes of a summary are its outermost quantiles.
    pub fn of_summary(point: &SummaryPoint<'_>) -> Observed {
        let values = || {
            point
                .quantiles
                .iter()
                .map(|quantile| quantile.value)
                .filter(|value| value.is_finite())
        };
        Observed {
            count: point.count,
            sum: point.sum,
            min: values().reduce(f64::min),
            max: values().reduce(f64::max),
            counts: Vec::new(),
            bounds: Vec::new(),
        }
    }

    /// What was added since `before`; `None` if it does not go on from there.
    pub fn since(&self, before: &Observed) -> Option<Observed> {
        let same = self.bounds == before.bounds && self.counts.len() == before.counts.len();
        if !same {
            return None;
        }
        let counts: Option<Vec<u64>> = self
            .counts
            .iter()
            .zip(&before.counts)
            .map(|(now, then)| now.checked_sub(*then))
            .collect();
        Some(Observed {
            count: self.count.checked_sub(before.count)?,
            sum: self.sum - before.sum,
            min: self.min,
            max: self.max,
            counts: counts?,
            bounds: self.bounds.clone(),
        })
    }

    /// As CloudWatch wants it; `None` where nothing was observed.
    pub fn statistics(&self) -> Option<Value> {
        if self.count == 0 {
            return None;
        }
        let mean = self.sum / self.count as f64;
        let first = self.counts.iter().position(|count| *count > 0);
        let last = self.counts.iter().rposition(|count| *count > 0);
        // Below the first bound and above the last there is no other bound: what was observed is about there.
        let low = first.and_then(|at| match at {
            0 => self.bounds.first().map(|bound| bound.min(0.0)),
            at => self.bounds.get(at - 1).copied(),
        });
        let high = last.and_then(|at| self.bounds.get(at).or(self.bounds.last()).copied());
        // Of a point's own extremes and the bounds of its buckets the narrower count: the first may be of all times.
        let (min, max) = (
            narrower(low, self.min, f64::max).unwrap_or(mean),
            narrower(high, self.max, f64::min).unwrap_or(mean),
        );
        Some(Value::Statistics(Statistics {
            min: min.min(max),
            max: max.max(min),
            count: self.count,
            sum: self.sum,
        }))
    }
}

fn narrower(one: Option<f64>, other: Option<f64>, of: impl Fn(f64, f64) -> f64) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(of(one, other)),
        (one, other) => one.or(other),
    }
}

/// An exponential histogram with the middle of each bucket as its value. Where there are more than CloudWatch takes, neighbours become one.
pub(super) fn distribution(point: &ExponentialHistogramPoint<'_>) -> Option<Value> {
    if point.count == 0 {
        return None;
    }
    let mut values: Vec<(f64, f64)> = Vec::new();
    if let Some(negative) = &point.negative {
        values.extend(middles(negative, point.scale).map(|(value, count)| (-value, count)));
        values.reverse();
    }
    if point.zero_count > 0 {
        values.push((0.0, point.zero_count as f64));
    }
    if let Some(positive) = &point.positive {
        values.extend(middles(positive, point.scale));
    }
    while values.len() > MAX_VALUES {
        values = values
            .chunks(2)
            .map(|pair| {
                let count: f64 = pair.iter().map(|(_, count)| count).sum();
                (pair.iter().map(|(value, of)| value * (of / count)).sum(), count)
            })
            .collect();
    }
    let whole = Observed::of_exponential(point);
    let ends = values.first().zip(values.last());
    let (low, high) = ends.map_or((None, None), |(first, last)| (Some(first.0), Some(last.0)));
    let statistics = Statistics {
        min: point.min.or(low).unwrap_or_default(),
        max: point.max.or(high).unwrap_or_default(),
        count: point.count,
        sum: whole.sum,
    };
    if values.is_empty() {
        return whole.statistics();
    }
    Some(Value::Distribution(statistics, values))
}

/// The middles of the buckets that are not empty, and their counts, upwards.
fn middles<'a>(buckets: &Buckets<'a>, scale: i32) -> impl Iterator<Item = (f64, f64)> + use<'a> {
    let offset = i64::from(buckets.offset);
    // Bucket `i` lies between base^i and base^(i+1), with base = 2^(2^-scale).
    let factor = f64::exp2(-f64::from(scale));
    let bound = move |index: i64| f64::exp2(index as f64 * factor).min(MAX_VALUE);
    buckets
        .bucket_counts
        .iter()
        .enumerate()
        .filter(|(_, count)| *count > 0)
        .map(move |(at, count)| {
            let index = offset + at as i64;
            ((bound(index) + bound(index + 1)) / 2.0, count as f64)
        })
}
