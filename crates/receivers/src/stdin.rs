//! Log lines from standard input, as in `service | trackline collect --config FILE`.
//!
//! ```yaml
//! receivers:
//!   stdin:
//! ```
//!
//! A line becomes a record as with the receiver `filelog`. While a pipeline refuses, nothing is read, and the pipe makes the writer wait.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use codec::log_line::Request;
use memchr::{memchr, memrchr};
use model::canonical::canonicalize;
use model::{Batch, Meta, Signal};
use net::Doors;
use pipeline::config::{Problems, Section};
use pipeline::{Intake, Reason};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Deserializer};
use tokio::runtime::Handle;

use crate::filelog::push_until_taken;
use crate::lines::{Lines, Values, encoded, now_unix_nano};
use crate::settings::{self, Counters, Mounted, Stop};

/// The only signal that standard input has.
pub const SIGNALS: [Signal; 1] = [Signal::Logs];

/// What is read at once, and so the lines of one batch: the size of a Linux pipe.
const WINDOW_BYTES: usize = 64 << 10;
/// How long a stop may go unnoticed while nothing is written.
const LOOK_UP: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};
/// How long an unfinished line is waited for.
const FLUSH_AFTER: Duration = Duration::from_millis(500);

/// Log lines from standard input, as in `service | trackline collect --config FILE`.
///
/// A line becomes a record as with the receiver `filelog`. While a pipeline refuses, nothing is read, and the pipe makes the writer wait.
///
/// ```yaml
/// receivers:
///   stdin:
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether lines in our log schema become proper records. Default: yes.
    pub parse_log_schema: bool,
    /// Bytes of a line. Default 1 MiB; at most 64 MiB. A longer one becomes several.
    #[serde(deserialize_with = "log_size")]
    pub max_log_size: u64,
    /// Attributes that every record gets. Default: none.
    pub attributes: Values,
    /// Attributes that the resource gets. Default: none; what a line says of its service goes before them.
    pub resource: Values,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            parse_log_schema: true,
            max_log_size: 1 << 20,
            attributes: Values::new(),
            resource: Values::new(),
        }
    }
}

fn log_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    crate::filelog::log_size(deserializer)
}

impl Config {
    /// Reads and checks the settings; mistakes come with their places.
    pub fn parse(section: &Section<'_>) -> Result<Self, Problems> {
        section.parse()
    }
}

impl settings::Settings for Config {
    fn mount(self: Box<Self>, intake: Intake, _doors: &mut Doors) -> Result<Mounted, settings::MountError> {
        let mut mounted = Mounted::default();
        let reader = Reader {
            lines: Lines {
                reads_schema: self.parse_log_schema,
                keeps_leading_spaces: false,
                keeps_trailing_spaces: false,
                operators: Default::default(),
                resource: encoded(&self.resource, 1),
            },
            attributes: encoded(&self.attributes, 6),
            max_log_size: self.max_log_size as usize,
            intake,
            counters: Arc::clone(&mounted.counters),
        };
        mounted.work = Some(Box::new(move |stop| {
            Box::pin(async move {
                let runtime = Handle::current();
                let work = tokio::task::spawn_blocking(move || reader.run(io::stdin(), stop, &runtime));
                if let Err(error) = work.await {
                    tracing::error!("reading standard input broke: {error}");
                }
            })
        }));
        Ok(mounted)
    }
}

struct Reader {
    lines: Lines,
    attributes: Vec<u8>,
    max_log_size: usize,
    intake: Intake,
    counters: Arc<Counters>,
}

impl Reader {
    /// Reads until the input ends or it is told to stop. What was read by then is pushed, unfinished or not: nobody can read it again.
    fn run(&self, mut input: impl Read + AsFd, mut stop: Stop, runtime: &Handle) {
        let (mut buffer, mut window) = (Vec::new(), vec![0; WINDOW_BYTES]);
        let mut last = std::time::Instant::now();
        loop {
            let is_over = *stop.borrow();
            let got = match is_over {
                true => Ok(None),
                false => self.read(&mut input, &mut window),
            };
            let ends = match got {
                Ok(Some(0)) => true,
                Ok(Some(got)) => {
                    buffer.extend_from_slice(&window[..got]);
                    last = std::time::Instant::now();
                    false
                }
                Ok(None) => is_over,
                Err(error) => {
                    tracing::warn!(receiver = %self.intake.receiver(), "standard input cannot be read: {error}");
                    true
                }
            };
            let is_due = ends || last.elapsed() >= FLUSH_AFTER;
            let whole = match memrchr(b'\n', &buffer) {
                _ if is_due => buffer.len(),
                Some(at) => at + 1,
                None if buffer.len() > self.max_log_size => buffer.len(),
                None => 0,
            };
            if whole > 0 {
                if !self.push(&buffer[..whole], &mut stop, runtime) {
                    let lost = buffer.iter().filter(|byte| **byte == b'\n').count() as u64;
                    tracing::warn!(receiver = %self.intake.receiver(), lines = lost, "the last lines of standard input were not taken before the stop");
                    return;
                }
                buffer.drain(..whole);
            }
            if ends {
                return;
            }
        }
    }

    /// What there is to read, within a moment; `None` for nothing yet.
    fn read(&self, input: &mut (impl Read + AsFd), window: &mut [u8]) -> io::Result<Option<usize>> {
        let mut ready = [PollFd::new(input, PollFlags::IN)];
        match poll(&mut ready, Some(&LOOK_UP)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        match input.read(window) {
            Ok(got) => Ok(Some(got)),
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn push(&self, mut rest: &[u8], stop: &mut Stop, runtime: &Handle) -> bool {
        let mut request = Request::default();
        let now = now_unix_nano();
        while !rest.is_empty() {
            let end = memchr(b'\n', rest).unwrap_or(rest.len()).min(self.max_log_size);
            let line = self.lines.trim(&rest[..end]);
            rest = rest[end..].strip_prefix(b"\n").unwrap_or(&rest[end..]);
            if !line.is_empty()
                && self
                    .lines
                    .push(line, &self.attributes, None, None, now, &mut request)
                    .is_mended
            {
                self.counters.repaired_text.fetch_add(1, Ordering::Relaxed);
            }
        }
        let records = u64::from(request.records());
        if records == 0 {
            return true;
        }
        let canonical = match canonicalize(Signal::Logs, Bytes::from(request.finish())) {
            Ok(canonical) => canonical,
            Err(malformed) => {
                tracing::error!(receiver = %self.intake.receiver(), "lines could not be encoded: {malformed}");
                self.intake.rejected(Signal::Logs, records, Reason::Malformed);
                return true;
            }
        };
        let meta = Meta {
            received_at_unix_nano: now,
            receiver: Arc::clone(self.intake.receiver()),
            peer: None,
            headers: Vec::new(),
            source_offset: None,
        };
        let batch = Batch::from_canonical(Signal::Logs, canonical, None, Arc::new(meta));
        push_until_taken(&self.intake, &batch, stop, runtime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::view::AnyValue;
    use model::view::logs::log_records;
    use pipeline::{Ack, Budget, Entry, Ledger, Outcome};
    use std::io::Write;
    use std::sync::Mutex;

    #[test]
    fn lines_of_a_pipe_become_records_and_its_end_ends_the_work() {
        let batches = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&batches);
        let entry: Arc<dyn Entry> = Arc::new(move |batch: Batch, ack: Ack| {
            kept.lock().unwrap().push(batch);
            ack.resolve(Outcome::Delivered);
        });
        let intake = Intake::new(
            "stdin",
            &Ledger::new(),
            Budget::root("test", 8 << 20),
            vec![(Signal::Logs, entry)],
        );
        let reader = Reader {
            lines: Lines {
                reads_schema: true,
                keeps_leading_spaces: false,
                keeps_trailing_spaces: false,
                operators: Default::default(),
                resource: Vec::new(),
            },
            attributes: Vec::new(),
            max_log_size: 100,
            intake,
            counters: Arc::default(),
        };
        let (input, mut output) = io::pipe().unwrap();
        let writer = std::thread::spawn(move || {
            let long = "x".repeat(250);
            let json = r#"{"level":"INFO","message":"from json"}"#;
            write!(output, "one\n\n{json}\n{long}\nno end").unwrap();
        });
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        reader.run(input, stopped, runtime.handle());
        writer.join().unwrap();
        let batches = batches.lock().unwrap();
        let bodies: Vec<String> = batches
            .iter()
            .flat_map(|batch| log_records(&batch.payload))
            .map(|record| match record.body {
                AnyValue::Str(text) => text.to_owned(),
                other => format!("{other:?}"),
            })
            .collect();
        let (x, y) = ("x".repeat(100), "x".repeat(50));
        assert_eq!(bodies, ["one", "from json", &x, &x, &y, "no end"]);
    }
}
