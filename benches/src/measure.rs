//! Percentiles of what was timed.

use std::time::Duration;

/// The value below which `share` of the sorted samples lie.
pub fn percentile(samples: &mut [Duration], share: f64) -> Duration {
    if samples.is_empty() {
        return Duration::ZERO;
    }
    samples.sort_unstable();
    let at = ((samples.len() - 1) as f64 * share).round() as usize;
    samples[at]
}

/// A duration in milliseconds, for reports.
pub fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
