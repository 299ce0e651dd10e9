//! Why: a sender of remote write tells of a resource in one request of many, and the others are of that resource too.

use std::collections::HashMap;

use super::TARGET_INFO;
use crate::prometheus::number;
use crate::prometheus::series::{NAME, SeriesList, is_stale};

/// What `target_info` said of resources, by `job` and `instance`: a sender of remote write says it once per scrape, in one request of many.
#[derive(Debug, Clone, Default)]
pub struct Targets {
    by_identity: HashMap<String, Vec<(String, String)>>,
    bytes: usize,
}

/// What is remembered of resources at most, in bytes of their labels: some ten thousand. Beyond it all are forgotten; senders repeat them at each scrape.
pub const MAX_TARGETS_BYTES: usize = 16 << 20;

/// What an entry takes beside its texts, and each label.
const ENTRY_BYTES: usize = 96;

impl Targets {
    /// Whether a list says anything of resources.
    pub fn are_in(list: &SeriesList) -> bool {
        list.iter().any(|series| series.name() == TARGET_INFO)
    }

    /// Remembers what it says.
    pub fn learn(&mut self, list: &SeriesList) {
        let mut key = String::new();
        for series in list.iter().filter(|series| series.name() == TARGET_INFO) {
            if !series.samples().iter().any(|sample| !is_stale(sample.value)) {
                continue;
            }
            write_identity(&mut key, series.label("job"), series.label("instance"));
            let labels = series
                .labels()
                .filter(|(name, _)| !matches!(*name, NAME | "job" | "instance"));
            let labels: Vec<(String, String)> = labels.map(|(name, value)| (name.into(), value.into())).collect();
            let sizes = labels
                .iter()
                .map(|(name, value)| name.len() + value.len() + ENTRY_BYTES);
            let size = sizes.sum::<usize>() + key.len() + ENTRY_BYTES;
            if self.by_identity.get(&key) == Some(&labels) || size > MAX_TARGETS_BYTES {
                continue;
            }
            if self.bytes + size > MAX_TARGETS_BYTES {
                *self = Targets::default();
            }
            // What is replaced stays counted; it is forgotten with the rest.
            self.bytes += size;
            self.by_identity.insert(key.clone(), labels);
        }
    }

    pub(super) fn of(&self, job: &str, instance: &str) -> &[(String, String)] {
        if self.by_identity.is_empty() {
            return &[];
        }
        let mut key = String::new();
        write_identity(&mut key, job, instance);
        self.by_identity.get(&key).map_or(&[], Vec::as_slice)
    }

    /// What they add to the result of [`build_with`] at most, beside [`len_at_most`].
    pub fn len_at_most(&self, list: &SeriesList) -> u64 {
        let mut bytes = 0;
        let mut last = None;
        for series in list.iter().filter(|_| !self.by_identity.is_empty()) {
            let identity = (series.label("job"), series.label("instance"));
            if last != Some(identity) {
                last = Some(identity);
                let labels = self.of(identity.0, identity.1).iter();
                bytes += labels
                    .map(|(name, value)| (name.len() + value.len() + ENTRY_BYTES) as u64)
                    .sum::<u64>();
            }
        }
        bytes
    }
}

/// Writes a key that no other `job` and `instance` have.
fn write_identity(key: &mut String, job: &str, instance: &str) {
    key.clear();
    number::integer(key, job.len() as i64);
    key.push(':');
    key.push_str(job);
    key.push_str(instance);
}
