//! Why: one file per connector, each named as its key in the configuration. A connector ends some pipelines and begins others; it is a
//! [`Stage`](crate::stage::Stage) behind the journal. This file holds only what they have in common.

pub mod forward;
mod histogram;
mod series;
pub mod servicegraph;
pub mod spanmetrics;
#[cfg(test)]
mod testing;

/// How far back a wall clock may be set without the stages noticing, in ns: within it time stands still for them, beyond it they believe the new time.
const MAX_STEP_BACK_NANOS: u64 = 600_000_000_000;

/// The time of a stream, in ns since 1970: when what is taken arrived, and, where nothing is, what the ticks say. So spans that wait in the journal while the
/// process is away, or behind, are as far apart for a stage as they were for their senders, and what is taken once more after a crash is so at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct StreamClock {
    now_unix_nano: u64,
    /// Whether something was taken since the last tick: then there may be more, and the wall clock is ahead of it.
    is_busy: bool,
}

impl StreamClock {
    fn at(now_unix_nano: u64) -> StreamClock {
        StreamClock {
            now_unix_nano,
            is_busy: false,
        }
    }

    /// A batch is taken. What comes from several pipelines may be out of order: time does not go back for it.
    fn take(&mut self, received_at_unix_nano: u64) -> u64 {
        self.is_busy = true;
        self.now_unix_nano = self.now_unix_nano.max(received_at_unix_nano);
        self.now_unix_nano
    }

    fn tick(&mut self, wall_unix_nano: u64) -> u64 {
        match std::mem::take(&mut self.is_busy) {
            true if self.now_unix_nano.saturating_sub(wall_unix_nano) <= MAX_STEP_BACK_NANOS => self.now_unix_nano,
            _ => self.end(wall_unix_nano),
        }
    }

    /// Everything was taken.
    fn end(&mut self, wall_unix_nano: u64) -> u64 {
        let is_set_back = self.now_unix_nano.saturating_sub(wall_unix_nano) > MAX_STEP_BACK_NANOS;
        if wall_unix_nano > self.now_unix_nano || is_set_back {
            self.now_unix_nano = wall_unix_nano;
        }
        self.now_unix_nano
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_that_of_the_stream_and_that_of_the_wall_where_it_rests() {
        let t = 1 << 60;
        let mut clock = StreamClock::default();
        assert_eq!(clock.take(t), t);
        assert_eq!(clock.take(t - 5), t, "another pipeline is behind");
        assert_eq!(clock.tick(t + 100), t, "there may be more of the time before");
        assert_eq!(clock.tick(t + 101), t + 101);
        assert_eq!(clock.tick(t + 90), t + 101);
        assert_eq!(clock.take(t + 1), t + 101);
        assert_eq!(clock.end(t + 200), t + 200);
        assert_eq!(clock.take(t / 2), t + 200, "however far it is behind");
        assert_eq!(clock.tick(t / 2), t / 2, "the wall clock was set back");
    }
}
