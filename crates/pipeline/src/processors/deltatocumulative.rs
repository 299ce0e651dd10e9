//! Why: some senders count anew with each point, and backends such as Prometheus want what was counted in all. The points of each stream are added up: sums, histograms
//! and exponential histograms of delta temporality become cumulative; all else goes on as it is.
//!
//! ```yaml
//! processors:
//!   deltatocumulative: { max_stale: 5m, max_streams: 100000 }
//! ```
//!
//! A stream is told from others by its resource, scope, metric (name, unit, kind) and attributes. A point that is not later than the one before, or that begins before
//! its stream, is dropped and counted (`out_of_order`). A histogram with other bounds than before begins its stream anew; exponential histograms take the lower scale, and at most
//! 160 buckets of one sign. What streams have counted is on disk together with the points that it was added up from, so that a crash counts nothing twice and leaves
//! nothing out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::{Batch, Signal};
use serde::Deserialize;

use super::Step;
use super::points::{Kind, Point};
use super::streams::{CUMULATIVE, Convert, DELTA, Id, Streams, convert};
use crate::budget::Budget;
use crate::config::{Problems, Section};
use crate::ledger::StepBook;
use crate::reason::Reason;
use crate::stage::{BadState, Stage, State};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A stream of which nothing came for this long has ended; 0 is never. Default `5m`.
    #[serde(deserialize_with = "crate::config::duration")]
    pub max_stale: Duration,
    /// How many streams are added up; points of new ones beyond are dropped and counted (`stream_limit`). 0 is as many as memory and one record of the journal
    /// (64 MiB, at some 75 bytes for a sum) hold. Default 0.
    pub max_streams: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            max_stale: Duration::from_secs(300),
            max_streams: 0,
        }
    }
}

pub fn parse(section: &Section<'_>) -> Result<Step, Problems> {
    let config: Config = section.parse()?;
    let book = StepBook::new(section.component.id.as_str());
    Ok(Step::Stage(Arc::new(move || {
        let max_streams = match config.max_streams {
            0 => usize::MAX,
            most => usize::try_from(most).unwrap_or(usize::MAX),
        };
        Box::new(Adding {
            adder: Adder {
                streams: Streams::new(config.max_stale, max_streams),
            },
            tracked: book.count("otelcol_deltatocumulative_streams_tracked", []),
            book: Arc::clone(&book),
        })
    })))
}

struct Adding {
    adder: Adder,
    tracked: Arc<AtomicU64>,
    book: Arc<StepBook>,
}

struct Adder {
    streams: Streams,
}

impl Convert for Adder {
    const FROM: u64 = DELTA;
    const TO: u64 = CUMULATIVE;

    fn wants(&self, _: &str, _: Kind, _: bool) -> bool {
        true
    }

    fn point(&mut self, id: Id, point: Point) -> Result<Point, Reason> {
        let sum = match self.streams.get(&id) {
            None => point,
            Some(sum) if point.start_unix_nano < sum.start_unix_nano => return Err(Reason::OutOfOrder),
            Some(sum) if point.time_unix_nano <= sum.time_unix_nano => return Err(Reason::OutOfOrder),
            Some(sum) => {
                let mut sum = sum.clone();
                match sum.value.add(&point.value) {
                    true => {
                        sum.time_unix_nano = point.time_unix_nano;
                        sum
                    }
                    false => point,
                }
            }
        };
        match self.streams.set(id, sum.clone()) {
            true => Ok(sum),
            false => Err(Reason::StreamLimit),
        }
    }
}

impl Stage for Adding {
    fn start(&mut self, budget: &Budget) {
        let part = budget.child(Arc::clone(&self.book.processor), budget.limit_bytes());
        self.adder.streams.count_in(&part);
    }

    fn restore(&mut self, state: &State) -> Result<(), BadState> {
        self.adder.streams.restore(state)
    }

    fn take(&mut self, batch: Batch, out: &mut Vec<Batch>) {
        if batch.signal != Signal::Metrics {
            out.push(batch);
            return;
        }
        self.adder.streams.at(batch.meta.received_at_unix_nano);
        let converted = convert(&batch, &mut self.adder, &self.book);
        if converted.items > 0 || batch.items == 0 {
            out.push(converted);
        }
        self.tracked.store(self.adder.streams.len() as u64, Ordering::Relaxed);
    }

    fn state(&mut self, whole: bool) -> State {
        self.adder.streams.state(whole)
    }

    fn book(&self) -> Option<&Arc<StepBook>> {
        Some(&self.book)
    }
}

#[cfg(test)]
mod tests;
