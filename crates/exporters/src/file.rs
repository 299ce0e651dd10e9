//! Why: telemetry in files that anything can read: one line of OTLP/JSON per request.
//!
//! ```yaml
//! exporters:
//!   file: { path: ./traces.jsonl, rotation: { max_megabytes: 100, max_backups: 5 } }
//!   file/small: { path: ./traces.bin, format: proto, compression: zstd }
//! ```
//!
//! With `format: proto` or a `compression` there are no lines: each request is preceded by its length in bytes, as four bytes with the highest first, and
//! compressed by itself, so that a file that was cut off is read up to there.
//!
//! A full file is renamed to `NAME-<time>.EXT`; the oldest beyond `max_backups` go.

use std::fs::{File as DiskFile, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
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
    /// `json` (default) or `proto`.
    #[serde(default)]
    pub format: Format,
    /// `zstd`. Default: none.
    #[serde(default)]
    pub compression: Option<Compression>,
    /// Whether a file that is there is continued. Default: yes; what was acknowledged is not cut off.
    #[serde(default = "yes")]
    pub append: bool,
    /// `{ enabled: true }` makes the directories of `path`. Default: no.
    #[serde(default, deserialize_with = "create_directory")]
    pub create_directory: bool,
    /// The collector's wait between flushes; here every request is on the disk before it counts as delivered. Without effect.
    #[serde(default, deserialize_with = "pipeline::config::optional_duration")]
    pub flush_interval: Option<Duration>,
    /// Must be absent: what goes to several files goes through several exporters.
    #[serde(default, deserialize_with = "no_groups")]
    pub group_by: (),
    /// Must be absent: `format` says how telemetry is encoded.
    #[serde(default, deserialize_with = "no_encoding")]
    pub encoding: (),
}

fn no_groups<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    /// The rest of it says how.
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct GroupBy {
        enabled: bool,
    }
    match GroupBy::deserialize(deserializer)?.enabled {
        false => Ok(()),
        true => Err(serde::de::Error::custom(
            "one exporter writes one file: divide telemetry with the processor `filter` in a pipeline for each",
        )),
    }
}

fn no_encoding<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer)?;
    Err(serde::de::Error::custom(
        "there are no encoding extensions here: `format` is json or proto",
    ))
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
    Proto,
}

/// `compression`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    Zstd,
}

/// Level of zstd that packs telemetry well without being what the machine is busy with.
const ZSTD_LEVEL: i32 = 3;

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

/// Writes requests, as lines or with their length before them.
pub struct File {
    writer: Arc<Mutex<Writer>>,
    format: Format,
    compression: Option<Compression>,
}

/// A request as it stands in the file.
fn entry(batch: &Batch, format: Format, compression: Option<Compression>) -> io::Result<Vec<u8>> {
    let json = || codec::otlp_json::from_protobuf(batch.signal, &batch.payload);
    if is_lines(format, compression) {
        let mut line = json();
        line.push('\n');
        return Ok(line.into_bytes());
    }
    let plain = match format {
        Format::Json => json().into_bytes().into(),
        Format::Proto => batch.payload.bytes(),
    };
    let packed = match compression {
        Some(Compression::Zstd) => zstd::bulk::compress(&plain, ZSTD_LEVEL)?.into(),
        None => plain,
    };
    let length = u32::try_from(packed.len()).map_err(io::Error::other)?;
    Ok([&length.to_be_bytes()[..], &packed].concat())
}

fn is_lines(format: Format, compression: Option<Compression>) -> bool {
    format == Format::Json && compression.is_none()
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
        writer.end_torn_entry(is_lines(config.format, config.compression))?;
        Ok(File {
            writer: Arc::new(Mutex::new(writer)),
            format: config.format,
            compression: config.compression,
        })
    }
}

impl Exporter for File {
    fn takes(&self, _signal: Signal) -> bool {
        true
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        let (writer, format, compression) = (Arc::clone(&self.writer), self.format, self.compression);
        Box::pin(async move {
            let written = tokio::task::spawn_blocking(move || {
                let entry = entry(&batch, format, compression)?;
                writer.lock().unwrap_or_else(PoisonError::into_inner).put(&entry)
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
    /// Bytes that are whole entries.
    length: u64,
}

impl Writer {
    /// Writes an entry so that it is on the disk, or not at all.
    fn put(&mut self, entry: &[u8]) -> io::Result<()> {
        if self
            .limit
            .is_some_and(|limit| self.length > 0 && self.length + entry.len() as u64 > limit)
        {
            self.rotate()?;
        }
        let written = self
            .file
            .seek(SeekFrom::Start(self.length))
            .and_then(|_| self.file.write_all(entry))
            .and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.length += entry.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Half an entry would spoil the next one; if it cannot be cut off, the next write goes over it.
                let _ = self.file.set_len(self.length);
                Err(error)
            }
        }
    }

    /// A crash may have left half an entry; it was not acknowledged, and comes again. A file in which there is none is of another kind, and put aside.
    fn end_torn_entry(&mut self, is_lines: bool) -> io::Result<()> {
        let end = match is_lines {
            true => last_line_end(&self.path, self.length)?,
            false => last_frame_end(&self.path, self.length)?,
        };
        if end == 0 && self.length > 0 {
            return self.rotate();
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

/// Where the last whole line ends.
fn last_line_end(path: &Path, length: u64) -> io::Result<u64> {
    const STEP_BYTES: u64 = 64 << 10;
    let mut reader = DiskFile::open(path)?;
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(STEP_BYTES);
        let mut bytes = vec![0; (end - start) as usize];
        reader.seek(SeekFrom::Start(start))?;
        reader.read_exact(&mut bytes)?;
        if let Some(at) = bytes.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Where the last whole request with a length before it ends.
fn last_frame_end(path: &Path, length: u64) -> io::Result<u64> {
    let mut reader = io::BufReader::new(DiskFile::open(path)?);
    let mut end = 0;
    while end + 4 <= length {
        let mut frame = [0; 4];
        reader.read_exact(&mut frame)?;
        let frame = u32::from_be_bytes(frame);
        if end + 4 + u64::from(frame) > length {
            break;
        }
        reader.seek_relative(i64::from(frame))?;
        end += 4 + u64::from(frame);
    }
    Ok(end)
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
            compression: None,
            group_by: (),
            encoding: (),
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

    /// The requests of a file that has no lines.
    fn framed(path: &Path, compression: Option<Compression>) -> Vec<Vec<u8>> {
        let bytes = std::fs::read(path).expect("reads");
        let mut rest = &bytes[..];
        let mut all = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (packed, after) = after.split_at(u32::from_be_bytes(*length) as usize);
            all.push(match compression {
                Some(Compression::Zstd) => zstd::bulk::decompress(packed, 1 << 20).expect("zstd"),
                None => packed.to_vec(),
            });
            rest = after;
        }
        all
    }

    #[tokio::test]
    async fn without_lines_each_request_has_its_length_before_it() {
        for (format, compression) in [
            (Format::Proto, None),
            (Format::Proto, Some(Compression::Zstd)),
            (Format::Json, Some(Compression::Zstd)),
        ] {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("traces.bin");
            let open = || {
                let config = Config {
                    format,
                    compression,
                    ..config(path.clone())
                };
                File::open(config).expect("opens")
            };
            let (one, two) = (spans(&["one"]), spans(&["two"]));
            assert_eq!(open().export(one.clone()).await, Outcome::Delivered);
            let mut torn = OpenOptions::new().append(true).open(&path).expect("opens");
            torn.write_all(&[0, 0, 1, 0, 42]).expect("writes");
            assert_eq!(open().export(two.clone()).await, Outcome::Delivered);
            let expect = [one, two].map(|batch| match format {
                Format::Json => codec::otlp_json::from_protobuf(Signal::Traces, &batch.payload).into_bytes(),
                Format::Proto => batch.payload.to_vec(),
            });
            assert_eq!(framed(&path, compression), expect);
        }
    }

    #[tokio::test]
    async fn a_file_of_another_kind_is_put_aside() {
        for format in [Format::Json, Format::Proto] {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("notes.txt");
            std::fs::write(&path, "no line end, and no length").expect("writes");
            let file = File::open(Config {
                format,
                ..config(path.clone())
            })
            .expect("opens");
            assert_eq!(file.export(spans(&["one"])).await, Outcome::Delivered);
            let files = std::fs::read_dir(directory.path()).expect("lists");
            let files: Vec<Vec<u8>> = files
                .map(|file| std::fs::read(file.expect("one").path()).expect("reads"))
                .collect();
            assert_eq!(files.len(), 2);
            assert!(files.contains(&b"no line end, and no length".to_vec()));
        }
    }

    #[test]
    fn settings_of_the_collectors() {
        let parse = |settings: &str| {
            let text = format!(
                "exporters:\n  file: {{ path: x, {settings} }}\nservice: {{ pipelines: {{ traces: {{}} }} }}\n"
            );
            let source = pipeline::config::Source::new("test.yaml", text);
            let config = pipeline::config::Config::load(vec![source], &|_| None).expect("is YAML");
            super::parse(&config.section(&config.exporters[0])).map_err(|problems| problems.to_string())
        };
        let all = "rotation: { max_megabytes: 10, max_days: 3, max_backups: 3, localtime: true }, format: proto, compression: zstd, flush_interval: 1s, \
                   group_by: { enabled: false }, append: false, create_directory: { enabled: true }";
        let config = parse(all).expect("is right");
        assert_eq!(
            (config.format, config.compression),
            (Format::Proto, Some(Compression::Zstd))
        );
        for (settings, words) in [
            (
                "group_by: { enabled: true, resource_attribute: x }",
                "one exporter writes one file",
            ),
            ("encoding: otlp", "`format` is json or proto"),
            ("compression: gzip", "zstd"),
            ("rotation: { max_megabytes: 0 }", "holds nothing"),
        ] {
            let said = parse(settings).expect_err(settings);
            assert!(said.contains(words), "{said}");
        }
    }
}
