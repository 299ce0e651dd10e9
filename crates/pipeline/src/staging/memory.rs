//! Why: what a stage remembers lies in the journal too, in a stream of its own, so that it is one commit with what the stage gave out. The stream holds one
//! whole state and the changes since; a new whole state makes the older records superfluous.
//!
//! A record's header, version 1, all numbers little-endian: version `u8`, kind `u8` (0 whole, 1 change), bytes of the state when inflated `u32`, number of
//! places `u16`, and for each the reader's name (`u16` length, text) and the position `u64` below which everything is taken. The payload is the state,
//! packed with zstd.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes};
use journal::{Journal, OnFull, Ranges, Reader, ReaderError, ReaderOptions, Record, Seq, Start};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::reader::{Phase, Source, reached};
use crate::stage::{MAX_STATE_BYTES, State};

const VERSION: u8 = 1;

/// Fast: states are written often and read at a start.
const ZSTD_LEVEL: i32 = 1;

/// When this much was appended to the journal since the last whole state, the next commit writes one, or an idle stage would hold old segments for ever.
const TRAIL_BYTES: u64 = 64 << 20;

/// How often the reader of the states is moved at most: each move is a write of its own.
const MOVE_INTERVAL: Duration = Duration::from_secs(1);

/// Below which position everything is taken, for each source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Places(Vec<(Arc<str>, Seq)>);

impl Places {
    pub fn of(&self, reader: &str) -> Option<Seq> {
        self.0
            .iter()
            .find(|(name, _)| **name == *reader)
            .map(|(_, place)| *place)
    }

    /// The same, for these sources in their order. One that is new begins where its reader stands.
    pub fn within(&self, sources: &[Source]) -> Places {
        let readers = sources
            .first()
            .map(|source| source.journal.readers())
            .unwrap_or_default();
        let places = sources.iter().map(|source| {
            let name = source.reader.name();
            let stands = || {
                readers
                    .iter()
                    .find(|status| status.name == name)
                    .map_or(0, |status| status.acked.low())
            };
            (name.into(), self.of(name).unwrap_or_else(stands))
        });
        Places(places.collect())
    }

    pub fn set(&mut self, at: usize, below: Seq) {
        self.0[at].1 = below;
    }
}

/// The stream of what a stage remembers.
pub(crate) struct Memory {
    stream: Arc<str>,
    reader: Reader,
    /// What had been appended to the journal when the last whole state was written; none if there is none.
    whole_at_bytes: Option<u64>,
    /// Where the last whole state lies, if the reader does not stand there yet.
    whole_at: Option<Seq>,
    moved: Option<Instant>,
}

impl Memory {
    /// Opens the stream of the stage `name`.
    pub fn open(journal: &Journal, name: &str) -> Result<Memory, ReaderError> {
        let stream: Arc<str> = format!("state:{name}").into();
        let options = ReaderOptions {
            stream: Arc::clone(&stream),
            on_full: OnFull::Refuse,
            start: Start::Stored,
        };
        let reader = journal.reader(&stream, options)?;
        Ok(Memory {
            stream,
            reader,
            whole_at_bytes: None,
            whole_at: None,
            moved: None,
        })
    }

    /// What was remembered when the process ended, oldest first, and how far the stage had come; none if everything is to stop before that is known, as when
    /// the disk does not give it. Called once, before anything is committed.
    pub fn read_back(
        &mut self,
        journal: &Journal,
        runtime: &Handle,
        phase: &watch::Receiver<Phase>,
    ) -> Option<(Vec<State>, Places)> {
        let (mut states, mut places) = (Vec::new(), Places::default());
        while has_more(journal, &self.reader) {
            let deliveries = runtime.block_on(async {
                tokio::select! {
                    deliveries = self.reader.recv(usize::MAX, MAX_STATE_BYTES) => deliveries,
                    () = reached(phase.clone(), Phase::Abandoned) => None,
                }
            })?;
            for delivery in deliveries {
                match read(&delivery.record) {
                    Ok((state, of_record)) => {
                        if matches!(state, State::Whole(_)) {
                            states.clear();
                        }
                        states.push(state);
                        places = of_record;
                    }
                    Err(error) => {
                        let seq = delivery.seq;
                        tracing::error!(
                            stream = &*self.stream,
                            seq,
                            "a remembered state is passed over: {error}"
                        );
                    }
                }
            }
        }
        // Changes to something that is not there mean nothing.
        if !matches!(states.first(), Some(State::Whole(_))) {
            states.clear();
        }
        self.whole_at_bytes = (!states.is_empty()).then_some(0);
        Some((states, places))
    }

    pub fn record(&self, state: &State, places: &Places) -> Record {
        let (kind, state) = match state {
            State::Whole(state) => (0, state),
            State::Change(state) => (1, state),
        };
        let mut header = Vec::with_capacity(64);
        header.put_u8(VERSION);
        header.put_u8(kind);
        header.put_u32_le(state.len() as u32);
        header.put_u16_le(places.0.len() as u16);
        for (name, place) in &places.0 {
            header.put_u16_le(name.len() as u16);
            header.put_slice(name.as_bytes());
            header.put_u64_le(*place);
        }
        let payload = zstd::bulk::compress(state, ZSTD_LEVEL).expect("zstd packs what fits memory");
        Record {
            stream: Arc::clone(&self.stream),
            header: header.into(),
            payload: payload.into(),
        }
    }

    /// Whether the next state must be whole, because there is none or the last such lies far behind.
    pub fn wants_whole(&self, journal: &Journal) -> bool {
        self.whole_at_bytes
            .is_none_or(|at| journal.stats().appended_bytes - at >= TRAIL_BYTES)
    }

    /// A state has become durable at `seq`.
    pub fn committed(&mut self, state: &State, seq: Seq, journal: &Journal) {
        if matches!(state, State::Whole(_)) {
            self.whole_at = Some(seq);
            self.whole_at_bytes = Some(journal.stats().appended_bytes);
        }
        if self.moved.is_none_or(|at| at.elapsed() >= MOVE_INTERVAL) {
            self.let_go(journal);
        }
    }

    /// What is older than the last whole state may go.
    pub fn let_go(&mut self, journal: &Journal) {
        let Some(whole_at) = self.whole_at.take() else { return };
        self.moved = Some(Instant::now());
        let start = Start::At(Ranges::below(whole_at));
        if let Err(error) = journal.move_reader(self.reader.name(), start) {
            // It costs space; the next one is as good.
            tracing::warn!(stream = &*self.stream, "old states stay for now: {error}");
        }
    }
}

/// Whether the reader has been given everything that is there for it.
fn has_more(journal: &Journal, reader: &Reader) -> bool {
    let readers = journal.readers();
    let status = readers.iter().find(|status| status.name == reader.name());
    status.is_some_and(|status| status.lag_records > status.in_flight_records)
}

/// Why a record is no state.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum ReadError {
    #[error("it was written by a newer version (format {0}, this version reads {VERSION})")]
    Newer(u8),
    #[error("its header is damaged")]
    Header,
    #[error("its payload does not inflate: {0}")]
    Payload(String),
}

fn read(record: &Record) -> Result<(State, Places), ReadError> {
    let mut header = record.header.clone();
    match header.try_get_u8() {
        Ok(VERSION) => {}
        Ok(newer) => return Err(ReadError::Newer(newer)),
        Err(_) => return Err(ReadError::Header),
    }
    let (kind, inflated, places) = read_rest(&mut header).ok_or(ReadError::Header)?;
    if inflated > MAX_STATE_BYTES {
        return Err(ReadError::Payload(format!("{inflated} bytes are announced")));
    }
    let state = zstd::bulk::decompress(&record.payload, inflated)
        .map(Bytes::from)
        .map_err(|error| ReadError::Payload(error.to_string()))?;
    let state = match kind {
        0 => State::Whole(state),
        1 => State::Change(state),
        _ => return Err(ReadError::Header),
    };
    Ok((state, places))
}

fn read_rest(header: &mut Bytes) -> Option<(u8, usize, Places)> {
    let kind = header.try_get_u8().ok()?;
    let inflated = header.try_get_u32_le().ok()? as usize;
    let mut places = Vec::new();
    for _ in 0..header.try_get_u16_le().ok()? {
        let length = usize::from(header.try_get_u16_le().ok()?);
        let name = (header.len() >= length).then(|| header.split_to(length))?;
        places.push((std::str::from_utf8(&name).ok()?.into(), header.try_get_u64_le().ok()?));
    }
    Some((kind, inflated, Places(places)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_reads_back_and_one_that_is_cut_or_newer_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let settings = journal::Settings::new(directory.path());
        let (journal, _) = Journal::open(settings, Arc::new(journal::RealDisk)).expect("a journal");
        let reader = ReaderOptions {
            stream: "state:x".into(),
            on_full: OnFull::Refuse,
            start: Start::Stored,
        };
        let memory = Memory {
            stream: "state:x".into(),
            reader: journal.reader("state:x", reader).expect("a reader"),
            whole_at_bytes: None,
            whole_at: None,
            moved: None,
        };
        let places = Places(vec![("traces:tail_sampling".into(), 7), ("b".into(), u64::MAX)]);
        for state in [State::Whole(Bytes::new()), State::Change("some".into())] {
            let record = memory.record(&state, &places);
            assert_eq!(read(&record), Ok((state, places.clone())));
            for length in 0..record.header.len() {
                let cut = Record {
                    header: record.header.slice(..length),
                    ..record.clone()
                };
                assert_eq!(read(&cut), Err(ReadError::Header), "{length}");
            }
            let mut newer = record.header.to_vec();
            newer[0] = 2;
            let newer = Record {
                header: newer.into(),
                ..record
            };
            assert_eq!(read(&newer), Err(ReadError::Newer(2)));
        }
    }
}
