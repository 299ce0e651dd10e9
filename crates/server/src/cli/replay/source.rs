//! Where replayed requests come from: a journal that may be in use, or files with a line of OTLP/JSON per request.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use journal::Inspection;
use model::canonical::canonicalize;
use model::edit::latest;
use model::{Batch, Meta, Signal};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::Sender;

use super::super::{Failure, UNREACHABLE};
use super::settings::{From, Settings};

/// The longest line of a recorded file: the JSON of the largest request that a door takes.
const MAX_LINE_BYTES: u64 = 512 << 20;

/// A place behind which nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Position {
    /// A journal's record, or which file, counted from 0.
    number: u64,
    /// In a file, the first byte behind the line.
    offset: u64,
}

/// A request to be sent again.
#[derive(Debug)]
pub struct Item {
    pub position: Position,
    /// When it was received; in files, its newest time.
    pub at_unix_nano: u64,
    /// Out of [`Source::length`].
    pub progress: u64,
    pub batch: Batch,
}

#[derive(Debug, Clone)]
pub enum Source {
    Journal {
        directory: PathBuf,
        found: Arc<Inspection>,
        streams: Vec<String>,
    },
    Files {
        paths: Vec<PathBuf>,
        lengths: Vec<u64>,
        last_unix_nano: u64,
    },
}

impl Source {
    pub fn open(settings: &Settings) -> Result<Source, Failure> {
        match &settings.from {
            From::Journal { directory, pipelines } => {
                let found = journal::inspect(directory).map_err(|error| unreadable(error.to_string()))?;
                let streams = chosen_streams(&found, pipelines, settings)?;
                Ok(Source::Journal {
                    directory: directory.clone(),
                    found: Arc::new(found),
                    streams,
                })
            }
            From::Files(paths) => {
                let length = |path: &PathBuf| {
                    let metadata =
                        std::fs::metadata(path).map_err(|error| unreadable(format!("{}: {error}", path.display())))?;
                    match metadata.is_file() {
                        true => Ok(metadata.len()),
                        false => Err(unreadable(format!("{} is not a file", path.display()))),
                    }
                };
                let lengths = paths.iter().map(length).collect::<Result<Vec<_>, _>>()?;
                let mut last_unix_nano = 0;
                let mut source = Source::Files {
                    paths: paths.clone(),
                    lengths,
                    last_unix_nano,
                };
                if settings.wants_last() {
                    source.lines(settings, Position::default(), &mut |item| {
                        last_unix_nano = last_unix_nano.max(item.at_unix_nano);
                        ControlFlow::Continue(())
                    })?;
                    if let Source::Files {
                        last_unix_nano: last, ..
                    } = &mut source
                    {
                        *last = last_unix_nano;
                    }
                }
                Ok(source)
            }
        }
    }

    /// What must be the same for `--resume`.
    pub fn identity(&self) -> String {
        match self {
            Source::Journal { found, streams, .. } => format!("journal {} {streams:?}", found.id),
            Source::Files { paths, .. } => format!("files {paths:?}"),
        }
    }

    /// When the newest request was received that will be sent.
    pub fn last_unix_nano(&self, settings: &Settings) -> u64 {
        let last = match self {
            Source::Journal { found, streams, .. } => last_of(found, streams),
            Source::Files { last_unix_nano, .. } => *last_unix_nano,
        };
        last.min(settings.to_unix_nano)
    }

    /// What there is to be done, in the unit of [`Item::progress`].
    pub fn length(&self, settings: &Settings) -> u64 {
        match self {
            Source::Journal { .. } => {
                self.last_unix_nano(settings)
                    .saturating_sub(self.first_unix_nano(settings))
                    / 1_000_000
            }
            Source::Files { lengths, .. } => lengths.iter().sum(),
        }
    }

    fn first_unix_nano(&self, settings: &Settings) -> u64 {
        let first = match self {
            Source::Journal { found, streams, .. } => {
                let infos = found.segments.iter().flat_map(|segment| &segment.streams);
                let chosen = infos.filter(|info| streams.contains(&info.stream));
                chosen.map(|info| info.first_unix_nano).min().unwrap_or(0)
            }
            Source::Files { .. } => 0,
        };
        first.max(settings.from_unix_nano)
    }

    /// Reads everything behind `after` to whoever takes it; how much could not be read.
    pub fn read(&self, settings: &Settings, after: Position, to: &Sender<Item>) -> Result<u64, Failure> {
        let mut hand_on = |item: Item| match to.blocking_send(item) {
            Ok(()) => ControlFlow::Continue(()),
            // Nobody wants more.
            Err(_) => ControlFlow::Break(()),
        };
        match self {
            Source::Journal { directory, streams, .. } => {
                let range = journal::Range {
                    after: after.number,
                    from_unix_nano: settings.from_unix_nano,
                    to_unix_nano: settings.to_unix_nano,
                };
                let first = self.first_unix_nano(settings);
                let mut unreadable_records = 0;
                let passed = journal::records(directory, range, |found| {
                    if !streams.iter().any(|stream| **stream == *found.record.stream) {
                        return ControlFlow::Continue(());
                    }
                    match pipeline::record::to_batch(&found.record) {
                        Ok(batch) if settings.signals.contains(&batch.signal) => hand_on(Item {
                            position: Position {
                                number: found.seq,
                                offset: 0,
                            },
                            at_unix_nano: found.appended_at_unix_nano,
                            progress: found.appended_at_unix_nano.saturating_sub(first) / 1_000_000,
                            batch,
                        }),
                        Ok(_) => ControlFlow::Continue(()),
                        Err(_) => {
                            unreadable_records += 1;
                            ControlFlow::Continue(())
                        }
                    }
                })
                .map_err(|error| unreadable(error.to_string()))?;
                Ok(unreadable_records + passed.damaged_places)
            }
            Source::Files { .. } => self.lines(settings, after, &mut hand_on),
        }
    }

    /// Reads the lines of files.
    fn lines(
        &self,
        settings: &Settings,
        after: Position,
        visit: &mut dyn FnMut(Item) -> ControlFlow<()>,
    ) -> Result<u64, Failure> {
        let Source::Files { paths, lengths, .. } = self else {
            return Ok(0);
        };
        let mut unreadable_lines = 0;
        let mut passed_bytes = 0;
        for (at, path) in paths.iter().enumerate() {
            let failed = |error: std::io::Error| unreadable(format!("{}: {error}", path.display()));
            let number = at as u64;
            let length = lengths.get(at).copied().unwrap_or(0);
            if number < after.number {
                passed_bytes += length;
                continue;
            }
            let mut offset = if number == after.number { after.offset } else { 0 };
            let mut file = File::open(path).map_err(failed)?;
            file.seek(SeekFrom::Start(offset)).map_err(failed)?;
            let mut reader = BufReader::new(file);
            let mut line = Vec::new();
            // The newest time so far: requests of the past are sent at once, not back in time.
            let mut newest = 0;
            loop {
                line.clear();
                let got = reader
                    .by_ref()
                    .take(MAX_LINE_BYTES)
                    .read_until(b'\n', &mut line)
                    .map_err(failed)?;
                if got == 0 {
                    break;
                }
                offset += got as u64;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                let Some(batch) = batch_of(&line) else {
                    unreadable_lines += 1;
                    continue;
                };
                let time = latest(&batch);
                let is_wanted = settings.signals.contains(&batch.signal)
                    && time.is_none_or(|time| (settings.from_unix_nano..=settings.to_unix_nano).contains(&time));
                if !is_wanted {
                    continue;
                }
                newest = newest.max(time.unwrap_or(0));
                let item = Item {
                    position: Position { number, offset },
                    at_unix_nano: newest,
                    progress: passed_bytes + offset,
                    batch,
                };
                if visit(item).is_break() {
                    return Ok(unreadable_lines);
                }
            }
            passed_bytes += length;
        }
        Ok(unreadable_lines)
    }
}

fn unreadable(text: String) -> Failure {
    Failure {
        code: UNREACHABLE,
        text,
    }
}

fn last_of(found: &Inspection, streams: &[String]) -> u64 {
    let infos = found.segments.iter().flat_map(|segment| &segment.streams);
    let chosen = infos.filter(|info| streams.contains(&info.stream));
    chosen.map(|info| info.last_unix_nano).max().unwrap_or(0)
}

/// The pipelines whose records are sent. A request that went to two pipelines of one signal is there twice, and is not to be sent twice.
fn chosen_streams(found: &Inspection, asked: &[String], settings: &Settings) -> Result<Vec<String>, Failure> {
    let mut known: Vec<String> = found
        .segments
        .iter()
        .flat_map(|segment| &segment.streams)
        .map(|info| info.stream.clone())
        .collect();
    known.sort();
    known.dedup();
    if let Some(missing) = asked.iter().find(|name| !known.contains(name)) {
        return Err(Failure::usage(format!(
            "--pipeline: the journal holds nothing of `{missing}`; it has {}",
            list(&known)
        )));
    }
    if !asked.is_empty() {
        return Ok(asked.to_vec());
    }
    let mut chosen = Vec::new();
    for signal in &settings.signals {
        let of_signal: Vec<&String> = known.iter().filter(|name| signal_of(name) == Some(*signal)).collect();
        if of_signal.len() > 1 {
            let names: Vec<String> = of_signal.into_iter().cloned().collect();
            return Err(Failure::usage(format!(
                "the journal holds {signal} of several pipelines, {}, and what went to two of them is there twice; choose with --pipeline",
                list(&names)
            )));
        }
        chosen.extend(of_signal.into_iter().cloned());
    }
    Ok(chosen)
}

/// The signal of a pipeline's stream. What a stage let through lies in another, behind a colon, and came from the pipeline's own.
fn signal_of(stream: &str) -> Option<Signal> {
    let is_own = !stream.contains(':');
    stream.split('/').next().filter(|_| is_own)?.parse().ok()
}

fn list(names: &[String]) -> String {
    match names.is_empty() {
        true => "nothing".to_owned(),
        false => names
            .iter()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

/// One line as the `file` exporter writes them; its first key tells the signal.
fn batch_of(line: &[u8]) -> Option<Batch> {
    let start = line.iter().position(|byte| *byte == b'"')? + 1;
    let rest = line.get(start..)?;
    let signal = [
        (&b"resourceSpans\""[..], Signal::Traces),
        (b"resourceLogs\"", Signal::Logs),
        (b"resourceMetrics\"", Signal::Metrics),
    ]
    .into_iter()
    .find_map(|(key, signal)| rest.starts_with(key).then_some(signal))?;
    let payload = codec::otlp_json::to_protobuf(signal, line).ok()?;
    let canonical = canonicalize(signal, Bytes::from(payload)).ok()?;
    let meta = Meta {
        received_at_unix_nano: 0,
        receiver: "replay".into(),
        peer: None,
        headers: Vec::new(),
        source_offset: None,
    };
    Some(Batch::from_canonical(signal, canonical, None, Arc::new(meta)))
}
