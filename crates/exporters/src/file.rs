//! Why: telemetry in files that anything can read: one line of OTLP/JSON per request.
//!
//! ```yaml
//! exporters:
//!   file: { path: ./traces.jsonl, rotation: { max_megabytes: 100, max_backups: 5 } }
//! ```
//!
//! A full file is renamed to `NAME-<time>.EXT`; the oldest beyond `max_backups` go.

use std::fs::{File as DiskFile, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::{Batch, Signal};
use pipeline::config::{Problems, Section};
use pipeline::{BoxFuture, Exporter, Outcome, Reason};
use serde::Deserialize;

/// What a failed write waits before it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to write. Directories are made with `create_directory`.
    pub path: PathBuf,
    /// When to begin a new file. Default: never.
    #[serde(default, deserialize_with = "pipeline::config::present")]
    pub rotation: Option<Rotation>,
    /// Only `json`, the default.
    #[serde(default)]
    pub format: Format,
    /// Whether a file that is there is continued. Default: yes; what was acknowledged is not cut off.
    #[serde(default = "yes")]
    pub append: bool,
    /// `{ enabled: true }` makes the directories of `path`. Default: no.
    #[serde(default, deserialize_with = "create_directory")]
    pub create_directory: bool,
    /// The collector's wait between flushes; here every request is on the disk before it counts as delivered. Without effect.
    #[serde(default, deserialize_with = "pipeline::config::optional_duration")]
    pub flush_interval: Option<Duration>,
}

fn yes() -> bool {
    true
}

/// The collector writes `create_directory: { enabled: true, directory_permissions: "0755" }`.
fn create_directory<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct CreateDirectory {
        enabled: bool,
        #[serde(default)]
        #[allow(dead_code, reason = "accepted: the process's umask decides")]
        directory_permissions: Option<String>,
    }
    CreateDirectory::deserialize(deserializer).map(|create| create.enabled)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    #[default]
    Json,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rotation {
    /// The size of a full file. Default 100.
    pub max_megabytes: u64,
    /// Full files that are kept. Default 100.
    pub max_backups: usize,
    /// Full files older than this many days go too. Default 0: their age does not matter.
    pub max_days: u64,
    /// Accepted, without effect: times in names are nanoseconds since 1970.
    pub localtime: bool,
}

impl Default for Rotation {
    fn default() -> Rotation {
        Rotation {
            max_megabytes: 100,
            max_backups: 100,
            max_days: 0,
            localtime: false,
        }
    }
}

pub fn parse(section: &Section<'_>) -> Result<Config, Problems> {
    let config: Config = section.parse()?;
    if config.path.as_os_str().is_empty() {
        return Err(section.problem(&["path"], "`path` is empty"));
    }
    if config
        .rotation
        .as_ref()
        .is_some_and(|rotation| rotation.max_megabytes == 0)
    {
        return Err(section.problem(&["rotation", "max_megabytes"], "a file of 0 megabytes holds nothing"));
    }
    Ok(config)
}

/// Writes lines of OTLP/JSON.
pub struct File {
    writer: Arc<Mutex<Writer>>,
}

impl File {
    pub fn open(config: Config) -> io::Result<File> {
        if config.create_directory
            && let Some(directory) = config.path.parent()
        {
            std::fs::create_dir_all(directory)?;
        }
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(!config.append)
            .open(&config.path)?;
        let length = file.metadata()?.len();
        let limit = config
            .rotation
            .as_ref()
            .map(|rotation| rotation.max_megabytes * 1_000_000);
        let mut writer = Writer {
            path: config.path,
            rotation: config.rotation,
            limit,
            file,
            length,
        };
        writer.end_torn_line()?;
        Ok(File {
            writer: Arc::new(Mutex::new(writer)),
        })
    }
}

impl Exporter for File {
    fn takes(&self, _signal: Signal) -> bool {
        true
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        let writer = Arc::clone(&self.writer);
        Box::pin(async move {
            let written = tokio::task::spawn_blocking(move || {
                let mut line = codec::otlp_json::from_protobuf(batch.signal, &batch.payload);
                line.push('\n');
                writer
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .put(line.as_bytes())
            });
            match written.await {
                Ok(Ok(())) => Outcome::Delivered,
                Ok(Err(error)) => {
                    tracing::warn!("file exporter: {error}");
                    Outcome::retry(RETRY_AFTER, Reason::BackendUnavailable)
                }
                Err(_) => Outcome::retry(RETRY_AFTER, Reason::Lost),
            }
        })
    }
}

struct Writer {
    path: PathBuf,
    rotation: Option<Rotation>,
    /// Bytes of a full file.
    limit: Option<u64>,
    file: DiskFile,
    /// Bytes that are whole lines.
    length: u64,
}

impl Writer {
    /// Writes a line so that it is on the disk, or not at all.
    fn put(&mut self, line: &[u8]) -> io::Result<()> {
        if self
            .limit
            .is_some_and(|limit| self.length > 0 && self.length + line.len() as u64 > limit)
        {
            self.rotate()?;
        }
        let written = io::Seek::seek(&mut self.file, io::SeekFrom::Start(self.length))
            .and_then(|_| self.file.write_all(line))
            .and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.length += line.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Half a line would spoil the next one; if it cannot be cut off, the next write goes over it.
                let _ = self.file.set_len(self.length);
                Err(error)
            }
        }
    }

    /// A crash may have left half a line; it was not acknowledged, and comes again.
    fn end_torn_line(&mut self) -> io::Result<()> {
        use std::io::{Read, Seek, SeekFrom};
        const STEP_BYTES: u64 = 64 << 10;
        let mut reader = DiskFile::open(&self.path)?;
        let mut end = self.length;
        while end > 0 {
            let start = end.saturating_sub(STEP_BYTES);
            let mut bytes = vec![0; (end - start) as usize];
            reader.seek(SeekFrom::Start(start))?;
            reader.read_exact(&mut bytes)?;
            if let Some(at) = bytes.iter().rposition(|byte| *byte == b'\n') {
                end = start + at as u64 + 1;
                break;
            }
            end = start;
        }
        if end < self.length {
            self.file.set_len(end)?;
            self.length = end;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let nanos = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos());
        std::fs::rename(&self.path, backup_path(&self.path, nanos))?;
        self.file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(&self.path)?;
        self.length = 0;
        if let Some(rotation) = &self.rotation {
            remove_old(&self.path, rotation, nanos)?;
        }
        Ok(())
    }
}

fn parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    (text(path.file_stem()), text(path.extension()))
}

fn backup_path(path: &Path, nanos: u128) -> PathBuf {
    let (stem, extension) = parts(path);
    let dot = if extension.is_empty() { "" } else { "." };
    path.with_file_name(format!("{stem}-{nanos}{dot}{extension}"))
}

/// Removes full files beyond the number or age that is kept. Only names that [`backup_path`] makes are touched.
fn remove_old(path: &Path, rotation: &Rotation, now_nanos: u128) -> io::Result<()> {
    const DAY_NANOS: u128 = 86_400_000_000_000;
    let (stem, extension) = parts(path);
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut backups: Vec<(u128, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let file = entry?.path();
        let (of, its_extension) = parts(&file);
        let nanos = of
            .strip_prefix(&format!("{stem}-"))
            .and_then(|nanos| nanos.parse().ok());
        if let Some(nanos) = nanos.filter(|_| its_extension == extension) {
            backups.push((nanos, file));
        }
    }
    backups.sort();
    let too_many = backups.len().saturating_sub(rotation.max_backups);
    let too_old = now_nanos.saturating_sub(u128::from(rotation.max_days) * DAY_NANOS);
    for (index, (nanos, file)) in backups.iter().enumerate() {
        if index < too_many || (rotation.max_days > 0 && *nanos < too_old) {
            std::fs::remove_file(file)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spans;

    fn config(path: PathBuf) -> Config {
        Config {
            path,
            rotation: None,
            format: Format::Json,
            append: true,
            create_directory: false,
            flush_interval: None,
        }
    }

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).expect("reads");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    #[tokio::test]
    async fn a_line_a_request_and_a_torn_line_is_cut_off_at_start() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("traces.jsonl");
        let file = File::open(config(path.clone())).expect("opens");
        assert_eq!(file.export(spans(&["one"])).await, Outcome::Delivered);
        drop(file);
        let mut torn = OpenOptions::new().append(true).open(&path).expect("opens");
        torn.write_all(br#"{"resourceSpans":[{"sco"#).expect("writes");
        let file = File::open(config(path.clone())).expect("opens");
        assert_eq!(file.export(spans(&["two"])).await, Outcome::Delivered);
        let name = |line: &serde_json::Value| line["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"].clone();
        assert_eq!(lines(&path).iter().map(name).collect::<Vec<_>>(), ["one", "two"]);
    }

    #[tokio::test]
    async fn full_files_are_put_aside_and_the_oldest_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("traces.jsonl");
        let stranger = directory.path().join("traces-mine.jsonl");
        std::fs::write(&stranger, "keep").expect("writes");
        let rotation = Rotation {
            max_backups: 2,
            ..Rotation::default()
        };
        let file = File::open(Config {
            rotation: Some(rotation),
            ..config(path.clone())
        })
        .expect("opens");
        let batch = spans(&["one"]);
        let length = codec::otlp_json::from_protobuf(Signal::Traces, &batch.payload).len() as u64 + 1;
        file.writer.lock().expect("no panic").limit = Some(length * 2);
        for _ in 0..9 {
            assert_eq!(file.export(batch.clone()).await, Outcome::Delivered);
        }
        assert_eq!(lines(&path).len(), 1);
        let names = std::fs::read_dir(directory.path()).expect("lists").count();
        assert_eq!(names, 4, "the file, two full ones, and what is not ours");
        assert_eq!(std::fs::read_to_string(stranger).expect("reads"), "keep");
    }
}
