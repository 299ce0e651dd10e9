//! Why: the backend is an exporter like any other, except that it keeps the journal's positions itself: one commit of its catalog names rows and
//! positions together, so that a restart neither loses nor repeats.
//!
//! ```yaml
//! exporters:
//!   store:
//!     retention: 7d                    # of everything
//!     max_bytes: 20GiB                 # of each dataset
//!     logs: { retention: 3d }          # and what differs for one
//! ```

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::{Batch, Signal};
use pipeline::config::{Problems, Section};
use pipeline::{JournalId, KeepError, Keeper, OnKept};
use serde::Deserialize;
use store::{AppendError, RETENTION_AGE, Retention, Settings, Writer};

/// What the store takes.
pub const SIGNALS: [Signal; 2] = [Signal::Traces, Signal::Logs];

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where parts and catalog lie. Default: `store` in the data directory.
    pub directory: Option<PathBuf>,
    /// Older rows are removed, by whole parts. Default 7d.
    #[serde(deserialize_with = "pipeline::config::duration")]
    pub retention: Duration,
    /// Bound of each dataset on disk; the oldest parts go first. Default: none.
    #[serde(deserialize_with = "pipeline::config::optional_size")]
    pub max_bytes: Option<u64>,
    /// What differs for traces. Default: nothing.
    pub traces: Bounds,
    /// What differs for logs. Default: nothing.
    pub logs: Bounds,
}

/// The bounds of one dataset, where they differ.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bounds {
    /// As `retention` above.
    #[serde(deserialize_with = "pipeline::config::optional_duration")]
    pub retention: Option<Duration>,
    /// As `max_bytes` above.
    #[serde(deserialize_with = "pipeline::config::optional_size")]
    pub max_bytes: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            directory: None,
            retention: RETENTION_AGE,
            max_bytes: None,
            traces: Bounds::default(),
            logs: Bounds::default(),
        }
    }
}

impl Config {
    /// Reads the section; a retention of nothing is a mistake.
    pub fn parse(section: &Section<'_>) -> Result<Self, Problems> {
        let config: Self = section.parse()?;
        let named = [
            (vec!["retention"], Some(config.retention)),
            (vec!["traces", "retention"], config.traces.retention),
            (vec!["logs", "retention"], config.logs.retention),
        ];
        match named.into_iter().find(|(_, age)| age.is_some_and(|age| age.is_zero())) {
            Some((path, _)) => Err(section.problem(&path, "a retention of 0 would keep nothing")),
            None => Ok(config),
        }
    }

    /// What the store is opened with.
    pub fn settings(&self) -> Settings {
        let retention = |bounds: &Bounds| Retention {
            age: bounds.retention.unwrap_or(self.retention),
            bytes: bounds.max_bytes.or(self.max_bytes),
        };
        Settings {
            traces: retention(&self.traces),
            logs: retention(&self.logs),
            ..Settings::default()
        }
    }
}

/// The store at the end of a pipeline.
pub struct StoreExporter {
    writer: Arc<Writer>,
}

impl StoreExporter {
    /// Writes to a store that is open.
    pub fn new(writer: Arc<Writer>) -> Self {
        Self { writer }
    }
}

impl Keeper for StoreExporter {
    fn takes(&self, signal: Signal) -> bool {
        SIGNALS.contains(&signal)
    }

    fn covered(&self, source: &str, journal: JournalId) -> (u64, Vec<(u64, u64)>) {
        let covered = self.writer.covered(source, journal);
        (covered.low, covered.ranges)
    }

    fn keep(
        &self,
        source: &str,
        journal: JournalId,
        positions: RangeInclusive<u64>,
        batches: &[Batch],
    ) -> Result<(), KeepError> {
        match self.writer.append(source, journal, positions, batches) {
            Ok(_) => Ok(()),
            Err(error @ (AppendError::Malformed { .. } | AppendError::Signal(_))) => {
                Err(KeepError::Never(error.to_string()))
            }
            Err(error) => Err(KeepError::Later(error.to_string())),
        }
    }

    fn on_kept(&self, on_kept: OnKept) {
        self.writer.on_commit(move |source, journal, positions| {
            for (first, last) in positions.iter() {
                on_kept(source, journal, first..=last);
            }
        });
    }

    fn flush(&self) -> Result<(), KeepError> {
        self.writer.flush().map_err(|error| KeepError::Later(error.to_string()))
    }
}
