//! Why: the collector keeps its queues in the folder of this extension. Here the queue is the journal, so the folder is the journal's; a file that names one
//! and says nothing of `service.journal` has its data where its volume is mounted.
//!
//! ```yaml
//! extensions:
//!   file_storage: { directory: /var/lib/otelcol/file_storage }
//! ```

use std::path::PathBuf;

use pipeline::config::{Problems, Section};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// What stands in the collector's documentation.
const DIRECTORY: &str = "/var/lib/otelcol/file_storage";

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileStorage {
    /// The journal lies in `journal` below it. Default /var/lib/otelcol/file_storage.
    pub directory: PathBuf,
    /// Accepted, without effect: the directory is made if it is missing.
    pub create_directory: Option<bool>,
    /// Accepted, without effect.
    pub directory_permissions: Option<IgnoredAny>,
    /// Accepted, without effect.
    pub timeout: Option<IgnoredAny>,
    /// Accepted, without effect: the journal frees its segments by itself.
    pub compaction: Option<IgnoredAny>,
    /// Accepted, without effect: `service.journal.fsync` decides, and its default is to sync.
    pub fsync: Option<bool>,
    /// Accepted, without effect: what is damaged is passed over and counted.
    pub recreate: Option<bool>,
}

impl Default for FileStorage {
    fn default() -> FileStorage {
        FileStorage {
            directory: DIRECTORY.into(),
            create_directory: None,
            directory_permissions: None,
            timeout: None,
            compaction: None,
            fsync: None,
            recreate: None,
        }
    }
}

impl FileStorage {
    pub fn parse(section: &Section<'_>) -> Result<FileStorage, Problems> {
        let storage: FileStorage = section.parse()?;
        if storage.directory.as_os_str().is_empty() {
            return Err(section.problem(&["directory"], "the directory is empty"));
        }
        for key in ["directory_permissions", "timeout", "compaction", "fsync", "recreate"] {
            if section.sets(&[key]) {
                section.warn(
                    &[key],
                    format!("`{key}` has no effect: the queue is the journal, which `service.journal` sets up"),
                );
            }
        }
        Ok(storage)
    }

    /// Where the journal lies.
    pub fn journal(&self) -> PathBuf {
        self.directory.join("journal")
    }
}
