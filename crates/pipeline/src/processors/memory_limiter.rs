//! Why: at the memory limit, work is refused with an answer that makes the client come back, and the process does not die.
//!
//! It sets the bound of the memory budget, from which doors reserve before they read a body. As a backstop it looks at the resident size now and then,
//! which also sees what nobody reserved.
//!
//! ```yaml
//! processors:
//!   memory_limiter: { limit_mib: 512, spike_limit_mib: 100 }
//! ```

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use model::Batch;
use serde::Deserialize;
use std::sync::Arc;

use super::Step;
use crate::ack::Outcome;
use crate::budget::Budget;
use crate::component::Processor;
use crate::config::{Problems, Section};
use crate::reason::Reason;

/// What a refused client is told to wait: readers need about that long to make room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The share of the limit that is left for a spike if nothing is said, as in the collector.
const SPIKE_SHARE: u64 = 5;

/// The limit if none is set: enough for a busy sidecar, and what small containers have.
const DEFAULT_LIMIT_MIB: u64 = 512;

const MIB: u64 = 1 << 20;

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How often the resident size is looked at. Default 1s.
    #[serde(deserialize_with = "crate::config::duration")]
    pub check_interval: Duration,
    /// The limit in MiB. Default 512, unless `limit_percentage` is set.
    pub limit_mib: u64,
    /// Refusing begins this much below the limit. Default: a fifth of it.
    pub spike_limit_mib: u64,
    /// The limit as a share of the machine's (or the container's) memory; `limit_mib` goes first.
    pub limit_percentage: u64,
    /// As `spike_limit_mib`, as a share of the memory.
    pub spike_limit_percentage: u64,
    /// A setting of the Go collector's garbage collector; accepted, without effect.
    #[serde(deserialize_with = "crate::config::optional_duration")]
    pub min_gc_interval_when_soft_limited: Option<Duration>,
    /// A setting of the Go collector's garbage collector; accepted, without effect.
    #[serde(deserialize_with = "crate::config::optional_duration")]
    pub min_gc_interval_when_hard_limited: Option<Duration>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            check_interval: Duration::from_secs(1),
            limit_mib: 0,
            spike_limit_mib: 0,
            limit_percentage: 0,
            spike_limit_percentage: 0,
            min_gc_interval_when_soft_limited: None,
            min_gc_interval_when_hard_limited: None,
        }
    }
}

pub fn parse(section: &Section<'_>) -> Result<Step, Problems> {
    let mut config: Config = section.parse()?;
    if config.limit_mib == 0 && config.limit_percentage == 0 {
        config.limit_mib = DEFAULT_LIMIT_MIB;
        section.warn(
            &["limit_mib"],
            format!(
                "no limit is set, so it is {DEFAULT_LIMIT_MIB} MiB; newer files write `limit_mib` or `limit_percentage`"
            ),
        );
    }
    if !section.sets(&["check_interval"]) {
        section.warn(
            &[],
            "without `check_interval` it is 1s; newer files write `check_interval: 1s`",
        );
    }
    for key in ["min_gc_interval_when_soft_limited", "min_gc_interval_when_hard_limited"] {
        if section.sets(&[key]) {
            section.warn(&[key], "there is no garbage collector here; this has no effect");
        }
    }
    for (key, percentage) in [
        ("limit_percentage", config.limit_percentage),
        ("spike_limit_percentage", config.spike_limit_percentage),
    ] {
        if percentage > 100 {
            return Err(section.problem(&[key], format!("{percentage} is more than 100 percent")));
        }
    }
    if config.limit_mib > 0 && config.spike_limit_mib >= config.limit_mib {
        return Err(section.problem(&["spike_limit_mib"], "spike_limit_mib must be smaller than limit_mib"));
    }
    Ok(Step::InRequest(Arc::new(MemoryLimiter::new(config, resident_bytes))))
}

struct MemoryLimiter {
    config: Config,
    /// The bound above which batches are refused, and the budget that is looked at; known at start.
    bound: OnceLock<(u64, Budget)>,
    resident: fn() -> Option<u64>,
    started: Instant,
    checked_at_ms: AtomicU64,
    resident_is_over: AtomicBool,
}

impl MemoryLimiter {
    fn new(config: Config, resident: fn() -> Option<u64>) -> MemoryLimiter {
        MemoryLimiter {
            config,
            bound: OnceLock::new(),
            resident,
            started: Instant::now(),
            checked_at_ms: AtomicU64::new(0),
            resident_is_over: AtomicBool::new(false),
        }
    }

    /// Whether the resident size is over the bound, looked up at most once per interval by whoever comes first.
    fn over_resident(&self, bound: u64) -> bool {
        let now_ms = self.started.elapsed().as_millis() as u64 + 1;
        let last = self.checked_at_ms.load(Ordering::Relaxed);
        let due = last == 0 || now_ms.saturating_sub(last) >= self.config.check_interval.as_millis() as u64;
        if due
            && self
                .checked_at_ms
                .compare_exchange(last, now_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            let over = (self.resident)().is_some_and(|resident| resident > bound);
            self.resident_is_over.store(over, Ordering::Relaxed);
        }
        self.resident_is_over.load(Ordering::Relaxed)
    }
}

impl Processor for MemoryLimiter {
    fn start(&self, budget: &Budget) {
        let share = |percentage: u64| machine_bytes().unwrap_or(u64::MAX / 100) / 100 * percentage;
        let limit = match self.config.limit_mib {
            0 => share(self.config.limit_percentage),
            mib => mib * MIB,
        };
        let spike = match (self.config.spike_limit_mib, self.config.spike_limit_percentage) {
            (0, 0) => limit / SPIKE_SHARE,
            (0, percentage) => share(percentage),
            (mib, _) => mib * MIB,
        };
        budget.set_limit(limit);
        let _ = self.bound.set((limit.saturating_sub(spike), budget.clone()));
    }

    fn process(&self, batch: Batch) -> Result<Batch, Outcome> {
        let Some((bound, budget)) = self.bound.get() else {
            return Ok(batch);
        };
        if budget.used_bytes() > *bound || self.over_resident(*bound) {
            return Err(Outcome::retry(RETRY_AFTER, Reason::MemoryLimit));
        }
        Ok(batch)
    }
}

/// What the kernel counts as ours in memory.
pub fn resident_bytes() -> Option<u64> {
    const PAGE_BYTES: u64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * PAGE_BYTES)
}

/// The container's memory limit, or the machine's memory.
fn machine_bytes() -> Option<u64> {
    let of_file = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total_kib: u64 = meminfo.lines().next()?.split_whitespace().nth(1)?.parse().ok()?;
    let limit = of_file("/sys/fs/cgroup/memory.max")
        .or_else(|| of_file("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
        .unwrap_or(u64::MAX);
    Some(limit.min(total_kib * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::batch_of;

    fn limiter(resident: fn() -> Option<u64>) -> (MemoryLimiter, Budget) {
        let config = Config {
            limit_mib: 10,
            spike_limit_mib: 2,
            check_interval: Duration::ZERO,
            ..Config::default()
        };
        let limiter = MemoryLimiter::new(config, resident);
        let budget = Budget::root("process", u64::MAX);
        limiter.start(&budget);
        (limiter, budget)
    }

    #[test]
    fn it_sets_the_budget_and_refuses_within_the_spike() {
        let (limiter, budget) = limiter(|| Some(0));
        assert_eq!(budget.limit_bytes(), 10 * MIB);
        let lease = budget.try_reserve(8 * MIB).expect("below the limit");
        assert!(limiter.process(batch_of(1)).is_ok(), "at the soft bound");
        let _more = budget.try_reserve(1).expect("still below the limit");
        let refused = limiter.process(batch_of(1)).expect_err("above the soft bound");
        assert_eq!(refused, Outcome::retry(RETRY_AFTER, Reason::MemoryLimit));
        drop(lease);
        assert!(limiter.process(batch_of(1)).is_ok(), "memory was given back");
    }

    #[test]
    fn the_resident_size_is_the_backstop() {
        let (over, _budget) = limiter(|| Some(9 * MIB));
        assert!(over.process(batch_of(1)).is_err());
        let (unknown, _budget) = limiter(|| None);
        assert!(
            unknown.process(batch_of(1)).is_ok(),
            "where the size cannot be known, the budget alone decides"
        );
    }

    #[test]
    fn this_machine_tells_both_sizes() {
        assert!(resident_bytes().expect("statm") > 0);
        assert!(machine_bytes().expect("meminfo") > resident_bytes().expect("statm"));
    }
}
