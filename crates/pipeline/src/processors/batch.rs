//! Why: how much a reader of the journal takes at once. It holds nothing and delays no acknowledgement: the sender has its answer when the bytes are
//! in the journal, and the reader behind it waits for a full batch.
//!
//! ```yaml
//! processors:
//!   batch: { timeout: 200ms, send_batch_size: 8192, send_batch_max_size: 10000 }
//! ```

use std::time::Duration;

use serde::Deserialize;

use super::{Step, Take};
use crate::config::{Problems, Section};

/// The collector's default for `send_batch_size`.
pub const DEFAULT_ITEMS: u32 = 8192;

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long a reader waits for a full batch after its first item. Default 200ms.
    #[serde(deserialize_with = "crate::config::duration")]
    pub timeout: Duration,
    /// How many items make a full batch. Default 8192.
    pub send_batch_size: u32,
    /// The most items in one request; 0 (the default) is no bound of its own.
    pub send_batch_max_size: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            timeout: Duration::from_millis(200),
            send_batch_size: DEFAULT_ITEMS,
            send_batch_max_size: 0,
        }
    }
}

pub fn parse(section: &Section<'_>) -> Result<Step, Problems> {
    let config: Config = section.parse()?;
    let max_items = (config.send_batch_max_size > 0).then_some(config.send_batch_max_size);
    if max_items.is_some_and(|max| max < config.send_batch_size) {
        return Err(section.problem(
            &["send_batch_max_size"],
            format!(
                "send_batch_max_size is smaller than send_batch_size ({})",
                config.send_batch_size
            ),
        ));
    }
    // The collector's 0 means: no waiting for a number, only for the time.
    let items = if config.send_batch_size == 0 {
        u32::MAX
    } else {
        config.send_batch_size
    };
    Ok(Step::Take(Take {
        items,
        max_items,
        wait: config.timeout,
    }))
}
