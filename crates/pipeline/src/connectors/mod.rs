//! Why: one file per connector, each named as its key in the configuration. A connector ends some pipelines and begins others; it is a
//! [`Stage`](crate::stage::Stage) behind the journal. This file holds only what they have in common.

pub mod forward;
mod histogram;
mod series;
pub mod servicegraph;
pub mod spanmetrics;
#[cfg(test)]
mod testing;

/// How far back a wall clock may be set without the stages noticing, in ns: within it time stands still for them, beyond it they believe the new time. What
/// arrives at several doors is never this much out of order.
const MAX_STEP_BACK_NANOS: u64 = 600_000_000_000;

/// The time of a stream: what its batches and the ticks between them say, in ns since 1970. A stage that reads no other clock does the same again after a
/// crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct StreamClock(u64);

impl StreamClock {
    /// Goes on to the time that is said, and returns it. It does not go back, unless the wall clock was set back.
    fn advance(&mut self, said_unix_nano: u64) -> u64 {
        if said_unix_nano >= self.0 || self.0 - said_unix_nano > MAX_STEP_BACK_NANOS {
            self.0 = said_unix_nano;
        }
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_stands_still_for_what_is_out_of_order_and_follows_one_that_was_set_back() {
        let mut clock = StreamClock::default();
        assert_eq!(clock.advance(1 << 60), 1 << 60);
        assert_eq!(clock.advance((1 << 60) - 5), 1 << 60);
        assert_eq!(clock.advance((1 << 60) + 1), (1 << 60) + 1);
        assert_eq!(clock.advance(1 << 59), 1 << 59);
    }
}
