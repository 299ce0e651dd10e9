//! Wall-clock time, handed in so that tests of ages and grace times need not wait.

use std::time::{SystemTime, UNIX_EPOCH};

/// The time of day.
pub trait Clock: Send + Sync {
    fn now_unix_nano(&self) -> u64;
}

/// The operating system's.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_unix_nano(&self) -> u64 {
        // A clock set before 1970 reads as 1970; one beyond 2554 as the end of what fits.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}
