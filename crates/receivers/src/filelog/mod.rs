//! Log lines from files that others write.
//!
//! ```yaml
//! receivers:
//!   filelog:
//!     include: [/var/log/app/*.log]
//!     exclude: [/var/log/app/debug.log]
//! ```
//!
//! A line that is JSON in our log schema (`docs/log-schema.md`) becomes the record that the service's SDK would have sent: time, level, message, ids, service and
//! groups under their names. Any other line is the body of a record. Empty lines are passed over.
//!
//! **What holds.** Positions are written down, in the journal's folder, after the journal acknowledged what was read. A process that is killed at any moment
//! loses no line that was in a file, and reads at most the lines of one batch (1 MiB) twice, if it died between the two. While a pipeline refuses, the
//! reader stands still. Without a journal positions are in memory only.
//!
//! **Lines that become one.** `multiline`, the operators `recombine` and `container`: an entry is handed over when it is finished, in the order of first lines, and
//! the position that is remembered is never past the first line of one that is not. After a restart it is read again from there, so nothing of it is lost, and
//! its lines come twice only where the process died between an acknowledgement and its writing down, as above.
//!
//! **Rotation.** A file is known by its inode and its first `fingerprint_size` bytes. One that was renamed is read to its end, whether or not a pattern names it
//! still; one that was copied and cut off begins anew, and what had not been read of it is read from the copy in the same folder. What came and went while
//! the process was down is read where a pattern names the rotated file, so let `include` name those too. Two files that begin
//! with the same `fingerprint_size` bytes are taken for one and its copy: raise it where files have a long common head.

mod files;
mod glob;
mod operators;
mod positions;
mod reader;
mod split;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use codec::log_line::{Json, Members, write_attributes};
use model::Signal;
use net::Doors;
use pipeline::Intake;
use pipeline::config::{Problems, Section};
use regex::bytes::{Regex, RegexBuilder};
use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer};

use self::glob::Glob;
use self::operators::Operator;
pub(crate) use self::operators::{Entry, Held, Operators};
pub(crate) use self::reader::push_until_taken;
use self::split::{Ends, Splitter};
use crate::lines::{Lines, Values, encoded};
use crate::settings::{self, Mounted};

/// The only signal that files have.
pub const SIGNALS: [Signal; 1] = [Signal::Logs];

/// The longest entry that may be configured: a window of it is held in memory.
pub(crate) const MAX_LOG_SIZE: u64 = 64 << 20;
/// The longest beginning that may be configured: it is read whenever a file has changed.
const MAX_FINGERPRINT: u64 = 64 << 10;
/// The collector's bounds: fewer bytes tell too few files apart.
const MIN_FINGERPRINT: u64 = 16;
/// What one pattern may take once compiled.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// Log lines from files that others write.
///
/// A line that is JSON in our log schema becomes the record that the service's SDK would have sent; any other line is a body. Files are followed through
/// rotation by rename and by copy, and positions survive a `kill -9` in the journal's folder: no line is lost, and at most one batch is read twice.
///
/// ```yaml
/// receivers:
///   filelog:
///     include: [/var/log/app/*.log]
///     exclude: [/var/log/app/debug.log]
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Patterns of the files to read: `*`, `?`, `[…]`, `{a,b}`, and `**` for any folders. At most 100,000 files.
    pub include: Vec<String>,
    /// Patterns of files to leave out. Default: none.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Files that were not written to for longer are not begun. Default: their age does not matter.
    #[serde(default, deserialize_with = "pipeline::config::optional_duration")]
    pub exclude_older_than: Option<Duration>,
    /// Where to begin a file that is there at the very first start: `end`, the default, or `beginning`. Files that appear later are read from their beginning.
    #[serde(default)]
    pub start_at: StartAt,
    /// How an entry of several lines is told from the next. Default: an entry is a line.
    #[serde(default)]
    pub multiline: Option<Multiline>,
    /// How long an unfinished entry at the end of a file is waited for. Default 500ms; 0 waits for ever.
    #[serde(default = "force_flush_period", deserialize_with = "pipeline::config::duration")]
    pub force_flush_period: Duration,
    /// Only `utf-8`, the default. Bytes that are not UTF-8 are replaced by U+FFFD, and counted.
    #[serde(default, deserialize_with = "utf8")]
    pub encoding: (),
    /// Whether lines in our log schema become proper records, after the operators. Default: yes, unless an operator parses lines itself.
    #[serde(default)]
    pub parse_log_schema: Option<bool>,
    /// Keep the spaces at the beginning of an entry. Default: no.
    #[serde(default)]
    pub preserve_leading_whitespaces: bool,
    /// Keep the spaces at the end of an entry. Default: no.
    #[serde(default)]
    pub preserve_trailing_whitespaces: bool,
    /// Add the attribute `log.file.name`. Default: yes.
    #[serde(default = "yes")]
    pub include_file_name: bool,
    /// Add the attribute `log.file.path`. Default: no.
    #[serde(default)]
    pub include_file_path: bool,
    /// Add the attribute `log.file.name_resolved`, the name after links. Default: no.
    #[serde(default)]
    pub include_file_name_resolved: bool,
    /// Add the attribute `log.file.path_resolved`, the path after links. Default: no.
    #[serde(default)]
    pub include_file_path_resolved: bool,
    /// Add the attribute `log.file.record_offset`, the entry's first byte in its file. Default: no.
    #[serde(default)]
    pub include_file_record_offset: bool,
    /// Must be false: lines are not numbered, because they are not counted from a file's beginning.
    #[serde(default, deserialize_with = "no_record_number")]
    pub include_file_record_number: (),
    /// Must be false.
    #[serde(default, deserialize_with = "no_owner")]
    pub include_file_owner_name: (),
    /// Must be false.
    #[serde(default, deserialize_with = "no_owner")]
    pub include_file_owner_group_name: (),
    /// Attributes that every record gets. Default: none.
    #[serde(default)]
    pub attributes: Values,
    /// Attributes that the resource gets. Default: none; what a line says of its service goes before them.
    #[serde(default)]
    pub resource: Values,
    /// Pause between two looks at the files. Default 200ms.
    #[serde(default = "poll_interval", deserialize_with = "pipeline::config::duration")]
    pub poll_interval: Duration,
    /// Bytes of a file's beginning that it is known by. Default 1000 bytes; 16 bytes to 64 KiB.
    #[serde(default = "fingerprint_size", deserialize_with = "fingerprint")]
    pub fingerprint_size: u64,
    /// Bytes of an entry. Default 1 MiB; at most 64 MiB. A longer one becomes several.
    #[serde(default = "max_log_size", deserialize_with = "log_size")]
    pub max_log_size: u64,
    /// Files that are held open; the others are opened to be read. Default 1024.
    #[serde(default = "max_concurrent_files", deserialize_with = "concurrent_files")]
    pub max_concurrent_files: usize,
    /// Accepted, without effect: positions are kept in the journal's folder, to which the extension `file_storage` leads.
    #[serde(default)]
    pub storage: Option<String>,
    /// Must be false: a file is removed by whoever writes it.
    #[serde(default, deserialize_with = "no_delete")]
    pub delete_after_read: (),
    /// What is done with an entry before it is a record. Default: nothing, which is enough for lines in our log schema.
    #[serde(default)]
    pub operators: Vec<Operator>,
    /// Must be absent.
    #[serde(default, deserialize_with = "no_header")]
    pub header: (),
    /// Must be absent.
    #[serde(default, deserialize_with = "no_ordering")]
    pub ordering_criteria: (),
    /// Must be absent or empty.
    #[serde(default, deserialize_with = "no_compression")]
    pub compression: (),
    /// Accepted with a warning: what a pipeline refuses is always sent again.
    #[serde(default)]
    pub retry_on_failure: Option<IgnoredAny>,
    /// Accepted with a warning: files take turns, and all are read in each poll.
    #[serde(default)]
    pub max_batches: Option<u64>,
    /// Accepted with a warning: 10,000 files that are gone are remembered.
    #[serde(default)]
    pub polls_to_archive: Option<u64>,
    /// Accepted with a warning: no lock is taken on a file.
    #[serde(default)]
    pub acquire_fs_lock: Option<bool>,
    /// Accepted, without effect: the buffer grows as it must.
    #[serde(default)]
    pub initial_buffer_size: Option<IgnoredAny>,
}

/// `start_at:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartAt {
    #[default]
    End,
    Beginning,
}

/// `multiline:`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Multiline {
    /// What an entry begins with: a regular expression, in which `^` is the beginning of a line.
    pub line_start_pattern: Option<String>,
    /// What an entry ends with. One of the two.
    pub line_end_pattern: Option<String>,
    /// Leave out what the pattern matched. Default: no.
    pub omit_pattern: bool,
}

fn yes() -> bool {
    true
}

fn force_flush_period() -> Duration {
    Duration::from_millis(500)
}

fn poll_interval() -> Duration {
    Duration::from_millis(200)
}

fn fingerprint_size() -> u64 {
    1_000
}

fn max_log_size() -> u64 {
    1 << 20
}

fn max_concurrent_files() -> usize {
    1_024
}

fn fingerprint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match pipeline::config::size(deserializer)? {
        bytes if (MIN_FINGERPRINT..=MAX_FINGERPRINT).contains(&bytes) => Ok(bytes),
        _ => Err(D::Error::custom("must be from 16 bytes to 64KiB")),
    }
}

pub(crate) fn log_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match pipeline::config::size(deserializer)? {
        bytes if (1..=MAX_LOG_SIZE).contains(&bytes) => Ok(bytes),
        _ => Err(D::Error::custom("must be from 1 byte to 64MiB")),
    }
}

fn concurrent_files<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    match u64::deserialize(deserializer)? {
        files if files > 1 => Ok(usize::try_from(files).unwrap_or(usize::MAX)),
        _ => Err(D::Error::custom("must be at least 2")),
    }
}

fn utf8<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    let name = String::deserialize(deserializer)?;
    match name.to_ascii_lowercase().as_str() {
        "" | "utf-8" | "utf8" | "utf8-raw" | "ascii" | "us-ascii" | "nop" => Ok(()),
        _ => Err(D::Error::custom(format!(
            "`{name}` is not read; only utf-8 is. Let the program write UTF-8, or convert the file first"
        ))),
    }
}

fn refused<'de, D: Deserializer<'de>>(deserializer: D, why: &str) -> Result<(), D::Error> {
    match Option::<IgnoredAny>::deserialize(deserializer)? {
        None => Ok(()),
        Some(_) => Err(D::Error::custom(why)),
    }
}

fn only_false<'de, D: Deserializer<'de>>(deserializer: D, why: &str) -> Result<(), D::Error> {
    match bool::deserialize(deserializer)? {
        false => Ok(()),
        true => Err(D::Error::custom(why)),
    }
}

fn no_delete<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    only_false(
        deserializer,
        "files are not deleted here; leave delete_after_read out and let the file's rotation remove it",
    )
}

fn no_record_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    only_false(
        deserializer,
        "lines are not numbered; write include_file_record_offset, which is exact after a restart too",
    )
}

fn no_owner<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    only_false(deserializer, "a file's owner is not looked up; leave it out")
}

fn no_header<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    refused(deserializer, "headers of files are not read; leave `header` out")
}

fn no_ordering<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    refused(
        deserializer,
        "all files that match are read; leave ordering_criteria out and name the files in `include`",
    )
}

fn no_compression<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    match Option::<String>::deserialize(deserializer)?.as_deref() {
        None | Some("" | "none") => Ok(()),
        Some(_) => Err(D::Error::custom(
            "compressed files are not read; exclude them: their lines were read before they were compressed",
        )),
    }
}

impl Config {
    /// Reads and checks the settings; mistakes come with their places.
    pub fn parse(section: &Section<'_>) -> Result<Self, Problems> {
        let config: Self = section.parse()?;
        if config.include.is_empty() {
            return Err(section.problem(&["include"], "name at least one pattern of files under `include`"));
        }
        for (key, patterns) in [("include", &config.include), ("exclude", &config.exclude)] {
            for (at, pattern) in patterns.iter().enumerate() {
                Glob::parse(pattern).map_err(|problem| section.problem(&[key, &at.to_string()], problem))?;
            }
        }
        if config.poll_interval.is_zero() {
            return Err(section.problem(&["poll_interval"], "must be more than 0"));
        }
        if let Some(multiline) = &config.multiline {
            multiline
                .ends()
                .map_err(|(key, problem)| section.problem(&["multiline", key], problem))?;
        }
        Operators::compile(&config.operators)
            .map_err(|(at, key, problem)| section.problem(&["operators", &at.to_string(), key], problem))?;
        for (key, what) in [
            ("retry_on_failure", "what a pipeline refuses is always sent again"),
            ("max_batches", "files take turns, and all are read in each poll"),
            ("polls_to_archive", "10,000 files that are gone are remembered"),
            ("acquire_fs_lock", "no lock is taken on a file"),
        ] {
            if section.sets(&[key]) {
                section.warn(&[key], format!("`{key}` has no effect: {what}"));
            }
        }
        Ok(config)
    }

    fn plan(&self) -> Result<Plan, settings::MountError> {
        let globs = |patterns: &[String]| -> Result<Vec<Glob>, String> {
            let globs: Result<Vec<Vec<Glob>>, String> = patterns.iter().map(|pattern| Glob::parse(pattern)).collect();
            Ok(globs?.into_iter().flatten().collect())
        };
        let (ends, omits_pattern) = match &self.multiline {
            None => (Ends::Newline, false),
            Some(multiline) => (
                multiline.ends().map_err(|(_, problem)| problem)?,
                multiline.omit_pattern,
            ),
        };
        let operators = Operators::compile(&self.operators).map_err(|(_, _, problem)| problem)?;
        Ok(Plan {
            include: globs(&self.include)?,
            exclude: globs(&self.exclude)?,
            exclude_older_than: self.exclude_older_than.filter(|age| !age.is_zero()),
            from_beginning: self.start_at == StartAt::Beginning,
            splitter: Splitter {
                ends,
                omits_pattern,
                max_log_size: self.max_log_size as usize,
            },
            force_flush_period: Some(self.force_flush_period).filter(|period| !period.is_zero()),
            lines: Lines {
                reads_schema: self.parse_log_schema.unwrap_or(!operators.parse()),
                operators,
                keeps_leading_spaces: self.preserve_leading_whitespaces,
                keeps_trailing_spaces: self.preserve_trailing_whitespaces,
                resource: encoded(&self.resource, 1),
            },
            attributes: encoded(&self.attributes, 6),
            names: [
                (self.include_file_name, "log.file.name"),
                (self.include_file_path, "log.file.path"),
                (self.include_file_name_resolved, "log.file.name_resolved"),
                (self.include_file_path_resolved, "log.file.path_resolved"),
            ]
            .into_iter()
            .filter_map(|(is_wanted, name)| is_wanted.then_some(name))
            .collect(),
            includes_offset: self.include_file_record_offset,
            poll_interval: self.poll_interval,
            fingerprint_size: self.fingerprint_size as usize,
            max_open_files: self.max_concurrent_files,
        })
    }
}

impl Multiline {
    /// The compiled pattern, or which key is wrong and how.
    fn ends(&self) -> Result<Ends, (&'static str, String)> {
        let compiled = |key, pattern: &str| -> Result<Regex, (&'static str, String)> {
            RegexBuilder::new(pattern)
                .multi_line(true)
                .size_limit(MAX_PATTERN_BYTES)
                .build()
                .map_err(|error| {
                    let message = error.to_string();
                    let last = message.lines().last().unwrap_or_default().trim_start_matches("error: ");
                    (key, format!("`{pattern}` is not a pattern: {last}"))
                })
        };
        match (&self.line_start_pattern, &self.line_end_pattern) {
            (Some(start), None) => compiled("line_start_pattern", start).map(Ends::Start),
            (None, Some(end)) => compiled("line_end_pattern", end).map(Ends::End),
            (None, None) => Ok(Ends::Newline),
            (Some(_), Some(_)) => Err((
                "line_end_pattern",
                "only one of line_start_pattern and line_end_pattern can tell entries apart".to_owned(),
            )),
        }
    }
}

/// What the settings mean.
struct Plan {
    include: Vec<Glob>,
    exclude: Vec<Glob>,
    exclude_older_than: Option<Duration>,
    from_beginning: bool,
    splitter: Splitter,
    force_flush_period: Option<Duration>,
    lines: Lines,
    /// Attributes of every record, encoded.
    attributes: Vec<u8>,
    /// Which attributes tell the file.
    names: Vec<&'static str>,
    includes_offset: bool,
    poll_interval: Duration,
    fingerprint_size: usize,
    max_open_files: usize,
}

impl Plan {
    /// What all records of a file have, encoded.
    fn attributes_of(&self, path: &Path) -> Vec<u8> {
        let resolved = || std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let members: Members<'_> = self
            .names
            .iter()
            .map(|key| {
                let value = match *key {
                    "log.file.name" => name(path),
                    "log.file.path" => path.to_string_lossy().into_owned(),
                    "log.file.name_resolved" => name(&resolved()),
                    _ => resolved().to_string_lossy().into_owned(),
                };
                ((*key).into(), Json::Text(value.into()))
            })
            .collect();
        let mut attributes = self.attributes.clone();
        write_attributes(6, &members, &mut attributes);
        attributes
    }
}

/// The settings, and where positions may be kept.
pub struct Filelog {
    pub config: Config,
    directory: Option<PathBuf>,
}

impl Filelog {
    pub fn parse(section: &Section<'_>) -> Result<Self, Problems> {
        Config::parse(section).map(|config| Filelog {
            config,
            directory: None,
        })
    }
}

impl settings::Settings for Filelog {
    fn remember_in(&mut self, directory: &Path) {
        self.directory = Some(directory.to_owned());
    }

    fn mount(self: Box<Self>, intake: Intake, _doors: &mut Doors) -> Result<Mounted, settings::MountError> {
        let mut mounted = Mounted::default();
        let receiver = Arc::clone(intake.receiver());
        let positions = self
            .directory
            .as_ref()
            .map(|directory| directory.join(positions::file_name(&receiver)));
        if positions.is_none() {
            mounted.forgets = Some(format!(
                "receiver {receiver}: there is no journal, so positions in files are in memory only; after a restart files are read as `start_at` says, and lines may be missed or come twice"
            ));
        }
        let reader = reader::Reader::open(
            self.config.plan()?,
            intake,
            Arc::clone(&mounted.counters),
            positions.clone(),
        )
        .map_err(|error| match positions {
            Some(path) => format!("positions in files cannot be kept in {}: {error}", path.display()),
            None => error.to_string(),
        })?;
        mounted.work = Some(Box::new(move |stop| {
            Box::pin(async move {
                let runtime = tokio::runtime::Handle::current();
                let work = tokio::task::spawn_blocking(move || reader.run(stop, &runtime));
                if let Err(error) = work.await {
                    tracing::error!("receiver {receiver}: reading files broke: {error}");
                }
            })
        }));
        Ok(mounted)
    }
}

#[cfg(test)]
mod tests;
