//! Why: how much a reader of the journal takes at once. It holds nothing and delays no acknowledgement: the sender has its answer when the bytes are
//! in the journal, and the reader behind it waits for a full batch.
//!
//! ```yaml
//! processors:
//!   batch: { timeout: 200ms, send_batch_size: 8192, send_batch_max_size: 10000 }
//!   batch/tenants: { metadata_keys: [x-tenant], metadata_cardinality_limit: 100 }
//! ```
//!
//! With `metadata_keys` it also says which of a request's headers travel with it through the journal, and only requests of the same values are put into one
//! batch. As in the collector, all other headers end here: a `batch` without keys keeps none.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::{Step, Take};
use crate::config::{Problems, Section};
use crate::ledger::StepBook;
use crate::metadata::{self, Apart, DEFAULT_CARDINALITY_LIMIT, MAX_KEYS};

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
    /// Requests that differ in one of these headers are never sent together, and exporters can send them on. The receiver has to have `include_metadata`.
    /// Case does not matter; at most 32. Default: none.
    pub metadata_keys: Vec<String>,
    /// How many different values of `metadata_keys` a pipeline takes before it refuses requests with yet another, for good and counted (`metadata_limit`),
    /// until the next start or reload; 0 is no limit. Default 1000.
    pub metadata_cardinality_limit: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            timeout: Duration::from_millis(200),
            send_batch_size: DEFAULT_ITEMS,
            send_batch_max_size: 0,
            metadata_keys: Vec::new(),
            metadata_cardinality_limit: DEFAULT_CARDINALITY_LIMIT,
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
    let keys = keys(section, &config.metadata_keys)?;
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
        apart: Some(Apart {
            keys: keys.into(),
            limit: config.metadata_cardinality_limit,
            book: StepBook::new(section.component.id.as_str()),
        }),
    }))
}

fn keys(section: &Section<'_>, names: &[String]) -> Result<Vec<Arc<str>>, Problems> {
    const KEY: &str = "metadata_keys";
    if names.len() > MAX_KEYS {
        let message = format!(
            "{} names are more than the {MAX_KEYS} that a record carries",
            names.len()
        );
        return Err(section.problem(&[KEY], message));
    }
    let mut keys: Vec<Arc<str>> = Vec::with_capacity(names.len());
    for (at, name) in names.iter().enumerate() {
        let key = metadata::key(name);
        let wrong = match &*key {
            "" => "a header has a name".to_owned(),
            _ if keys.contains(&key) => format!("`{name}` is there twice; case does not matter"),
            _ => {
                keys.push(key);
                continue;
            }
        };
        return Err(section.problem(&[KEY, &at.to_string()], wrong));
    }
    Ok(keys)
}
