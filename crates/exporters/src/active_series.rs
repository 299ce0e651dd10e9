//! Why: backends are paid by the series that they see at once, so somebody should know how many these are before the backend does.
//!
//! An estimate in 8 KiB, whatever the number: HyperLogLog of two generations, one of which is filled while the other is still believed. Its standard error is
//! 1.6 %. Source: Flajolet, Fusy, Gandouet, Meunier, "HyperLogLog: the analysis of a near-optimal cardinality estimation algorithm", 2007.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bits of a number that choose its register.
const INDEX_BITS: u32 = 12;
const REGISTERS: usize = 1 << INDEX_BITS;
/// The bits that are left, all of them zero, and one.
const MAX_RANK: u32 = u64::BITS - INDEX_BITS + 1;

/// A series counts for one to two of these after its last sample, as backends count them.
const GENERATION: Duration = Duration::from_secs(15 * 60);

/// The series that were seen lately.
pub struct ActiveSeries {
    inner: Mutex<Inner>,
}

struct Inner {
    now: Box<[u8; REGISTERS]>,
    before: Box<[u8; REGISTERS]>,
    began: Instant,
}

impl Default for ActiveSeries {
    fn default() -> ActiveSeries {
        ActiveSeries {
            inner: Mutex::new(Inner {
                now: Box::new([0; REGISTERS]),
                before: Box::new([0; REGISTERS]),
                began: Instant::now(),
            }),
        }
    }
}

impl Inner {
    fn turn(&mut self, at: Instant) {
        match at.saturating_duration_since(self.began) {
            elapsed if elapsed >= 2 * GENERATION => {
                self.before.fill(0);
                self.now.fill(0);
            }
            elapsed if elapsed >= GENERATION => {
                std::mem::swap(&mut self.now, &mut self.before);
                self.now.fill(0);
            }
            _ => return,
        }
        self.began = at;
    }
}

impl ActiveSeries {
    /// Series have been seen, each a number that stands for its labels.
    pub fn saw(&self, series: &[u64]) {
        self.saw_at(series, Instant::now());
    }

    fn saw_at(&self, series: &[u64], at: Instant) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.turn(at);
        for number in series {
            let mixed = mixed(*number);
            let register = (mixed >> (u64::BITS - INDEX_BITS)) as usize;
            let rank = ((mixed << INDEX_BITS).leading_zeros() + 1).min(MAX_RANK) as u8;
            inner.now[register] = inner.now[register].max(rank);
        }
    }

    /// About how many there are.
    pub fn count(&self) -> u64 {
        self.count_at(Instant::now())
    }

    fn count_at(&self, at: Instant) -> u64 {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.turn(at);
        // Counted by rank first: 4096 powers of two would cost a small request more than its sending.
        let mut ranks = [0u32; MAX_RANK as usize + 1];
        for (now, before) in inner.now.iter().zip(inner.before.iter()) {
            ranks[usize::from(*now.max(before))] += 1;
        }
        let size = REGISTERS as f64;
        let sum: f64 = (0..)
            .zip(ranks)
            .map(|(rank, many)| f64::from(many) * 0.5f64.powi(rank))
            .sum();
        let raw = 0.7213 / (1.0 + 1.079 / size) * size * size / sum;
        let empty = ranks[0];
        // Few are counted better by the registers that they left empty.
        let estimate = match empty {
            1.. if raw <= 2.5 * size => size * (size / f64::from(empty)).ln(),
            _ => raw,
        };
        estimate.round() as u64
    }
}

/// Spreads a number over all bits.
fn mixed(mut number: u64) -> u64 {
    number = (number ^ (number >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    number = (number ^ (number >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    number ^ (number >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_is_within_its_error_and_seeing_again_changes_nothing() {
        for count in [0u64, 1, 10, 500, 10_000, 1_000_000] {
            let series = ActiveSeries::default();
            let numbers: Vec<u64> = (0..count).map(|number| number.wrapping_mul(0x9e37_79b9)).collect();
            series.saw(&numbers);
            series.saw(&numbers);
            let (got, error) = (series.count(), count / 15);
            assert!(got.abs_diff(count) <= error, "{got} of {count}");
        }
    }

    #[test]
    fn what_is_not_seen_any_more_is_forgotten() {
        let series = ActiveSeries::default();
        let start = Instant::now();
        let many: Vec<u64> = (0..1000).collect();
        series.saw_at(&many, start);
        series.saw_at(&many[..10], start + GENERATION);
        assert!(
            series.count_at(start + GENERATION) > 900,
            "the generation before still counts"
        );
        series.saw_at(&many[..10], start + 2 * GENERATION);
        assert_eq!(series.count_at(start + 2 * GENERATION), 10);
        assert_eq!(series.count_at(start + 4 * GENERATION), 0);
    }
}
