//! Why: CloudWatch Logs takes texts with a time, in streams of groups, in requests of a certain size. What becomes such a text (a log record, or metrics in
//! the embedded metric format), which stream it belongs to and how streams are cut into requests is decided here, without a socket.
//!
//! Source: Amazon CloudWatch Logs API Reference, "PutLogEvents"; the Collector's exporters `awscloudwatchlogs` and `awsemf` for what the texts look like.

pub mod emf;
mod logs;
mod name;
mod put;

use std::collections::HashMap;

pub use logs::{LogOptions, log_bytes, log_events};
pub use name::{Name, NameError, Template};
pub use put::{MAX_EVENT_BYTES, Put, puts};

/// What is made of one payload at the most: a resource is written with each of its records, and a hostile one is large. It is twenty times a full request.
pub(crate) const MAX_TRANSLATED_BYTES: usize = 64 << 20;

/// Events of one stream; their texts lie one behind the other.
#[derive(Debug, Default)]
pub struct Stream {
    pub group: String,
    pub name: String,
    text: Vec<u8>,
    events: Vec<Event>,
}

/// A text with its time.
#[derive(Debug, Clone, Copy)]
struct Event {
    time_unix_milli: i64,
    start: usize,
    end: usize,
    /// Log records or data points that it stands for.
    items: u32,
}

impl Stream {
    /// Times and texts, in the order in which they came.
    pub fn events(&self) -> impl Iterator<Item = (i64, &str)> {
        self.events
            .iter()
            .map(|event| (event.time_unix_milli, self.text_of(event)))
    }

    fn text_of(&self, event: &Event) -> &str {
        std::str::from_utf8(&self.text[event.start..event.end]).unwrap_or_default()
    }

    fn push(&mut self, time_unix_milli: i64, items: u32, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.text.len();
        write(&mut self.text);
        self.events.push(Event {
            time_unix_milli,
            start,
            end: self.text.len(),
            items,
        });
    }
}

/// What a payload became.
#[derive(Debug, Default)]
pub struct Translated {
    pub streams: Vec<Stream>,
    /// What no event could be made of: how many items, and why.
    pub rejected: Vec<(u32, &'static str)>,
    /// Items that the configuration leaves out.
    pub filtered: u32,
    known: HashMap<(String, String), usize>,
}

impl Translated {
    /// The stream of this name, a new one if there is none yet.
    fn stream(&mut self, group: &str, name: &str) -> usize {
        // Most payloads have one stream, which is then also the last.
        if let Some(last) = self.streams.last()
            && last.group == group
            && last.name == name
        {
            return self.streams.len() - 1;
        }
        let streams = &mut self.streams;
        *self
            .known
            .entry((group.to_owned(), name.to_owned()))
            .or_insert_with(|| {
                streams.push(Stream {
                    group: group.to_owned(),
                    name: name.to_owned(),
                    ..Stream::default()
                });
                streams.len() - 1
            })
    }

    fn reject(&mut self, items: u32, why: &'static str) {
        match self.rejected.iter_mut().find(|(_, known)| *known == why) {
            Some((count, _)) => *count = count.saturating_add(items),
            None => self.rejected.push((items, why)),
        }
    }
}

/// A time of OTLP in milliseconds.
fn milliseconds(unix_nano: u64) -> i64 {
    // It fits: a 64-bit count of nanoseconds has 45 bits of milliseconds.
    (unix_nano / 1_000_000) as i64
}
