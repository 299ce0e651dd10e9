//! Why: the backend is an exporter like any other, except that it keeps the journal's positions itself: one commit of its catalog names rows and positions
//! together, so that a restart neither loses nor repeats.
//!
//! ```yaml
//! exporters:
//!   store:
//!     directory: /var/lib/trackline/store
//!     retention: { traces: { age: 7d, bytes: 50GiB }, logs: { age: 14d } }
//! ```

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::{Batch, Signal};
use pipeline::config::{Problems, Section};
use pipeline::{JournalId, KeepError, Keeper, OnKept};
use serde::Deserialize;
use store::{AppendError, OpenError, Reader, Retention, Settings, Store as Directory, Writer};

/// What the store takes.
pub const SIGNALS: [Signal; 2] = [Signal::Traces, Signal::Logs];

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where parts and catalog lie. Default: `store` in the data directory.
    pub directory: Option<PathBuf>,
    /// How long and how much is kept.
    #[serde(deserialize_with = "pipeline::config::present")]
    pub retention: Option<Retentions>,
    /// Memory for rows that are in no part yet. Default 150MiB.
    #[serde(deserialize_with = "pipeline::config::optional_size")]
    pub memory: Option<u64>,
    /// How long a row may wait in memory for its part. Default 60s.
    #[serde(deserialize_with = "pipeline::config::optional_duration")]
    pub flush_after: Option<Duration>,
}

/// `retention`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retentions {
    pub traces: Keep,
    pub logs: Keep,
}

/// What is kept of one dataset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keep {
    /// Older data goes. Default 7d.
    #[serde(deserialize_with = "pipeline::config::optional_duration")]
    pub age: Option<Duration>,
    /// Beyond this, the oldest day goes. Default: no bound.
    #[serde(deserialize_with = "pipeline::config::optional_size")]
    pub bytes: Option<u64>,
}

impl Keep {
    fn retention(&self) -> Retention {
        let default = Retention::default();
        Retention { age: self.age.unwrap_or(default.age), bytes: self.bytes.or(default.bytes) }
    }
}

pub fn parse(section: &Section<'_>) -> Result<Config, Problems> {
    section.parse()
}

/// The store behind the journal.
pub struct Store {
    writer: Writer,
}

impl Store {
    /// Opens the directory, which is `default_directory` unless the configuration says another. The reader is for queries.
    pub fn open(config: &Config, default_directory: &Path) -> Result<(Arc<Store>, Reader), OpenError> {
        let directory = config.directory.as_deref().unwrap_or(default_directory);
        let defaults = Settings::default();
        let retention = config.retention.clone().unwrap_or_default();
        let settings = Settings {
            traces: retention.traces.retention(),
            logs: retention.logs.retention(),
            memory_bytes: config.memory.unwrap_or(defaults.memory_bytes),
            flush_after: config.flush_after.unwrap_or(defaults.flush_after),
            ..defaults
        };
        Store::open_with(directory, settings)
    }

    /// As [`Store::open`], with all settings in the caller's hand.
    pub fn open_with(directory: &Path, settings: Settings) -> Result<(Arc<Store>, Reader), OpenError> {
        let (writer, reader) = Directory::open(directory, settings)?;
        Ok((Arc::new(Store { writer }), reader))
    }

    /// The writing handle, for upkeep by hand in tests and for the end: after it is closed, nothing more is kept.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }
}

impl Keeper for Store {
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
            Err(error @ (AppendError::Full { .. } | AppendError::Closed)) => Err(KeepError::Later(error.to_string())),
            Err(error @ (AppendError::Signal(_) | AppendError::Malformed { .. })) => Err(KeepError::Never(error.to_string())),
        }
    }

    fn on_kept(&self, on_kept: OnKept) {
        self.writer.on_commit(move |source, journal, ranges| {
            for (first, last) in ranges.iter() {
                on_kept(source, journal, first..=last);
            }
        });
    }

    fn flush(&self) -> Result<(), KeepError> {
        self.writer.flush().map_err(|error| KeepError::Later(error.to_string()))
    }
}
