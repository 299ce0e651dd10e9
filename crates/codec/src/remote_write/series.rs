//! The series of a batch while it is translated: each label set once, its samples, histograms and exemplars as chains, in buffers that are kept between
//! batches.

use std::hash::BuildHasher;
use std::ops::Range;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use model::wire;

use super::Version;
use crate::prometheus::Kind;

/// The tags of `TimeSeries.labels`, `Label.name` and `Label.value`.
const LABEL: u8 = 1 << 3 | wire::BYTES;
const LABEL_NAME: u8 = 1 << 3 | wire::BYTES;
const LABEL_VALUE: u8 = 2 << 3 | wire::BYTES;

/// No element: the end of a chain.
const NONE: u32 = u32::MAX;

/// Texts, each once, by number; number 0 is the empty one.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    text: String,
    spans: Vec<Range<usize>>,
    /// Of the texts, by number.
    hashes: Vec<u64>,
    table: HashTable<u32>,
    hasher: RandomState,
}

impl Symbols {
    pub fn clear(&mut self) {
        self.text.clear();
        self.spans.clear();
        self.spans.push(0..0);
        self.hashes.clear();
        self.hashes.push(0);
        self.table.clear();
    }

    pub fn intern(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let Symbols {
            text: all,
            spans,
            hashes,
            table,
            hasher,
        } = self;
        let hash = hasher.hash_one(text);
        if let Some(known) = table.find(hash, |at| all[spans[*at as usize].clone()] == *text) {
            return *known;
        }
        let number = spans.len() as u32;
        spans.push(all.len()..all.len() + text.len());
        hashes.push(hash);
        all.push_str(text);
        table.insert_unique(hash, number, |at| hasher.hash_one(&all[spans[*at as usize].clone()]));
        number
    }

    pub fn get(&self, number: u32) -> &str {
        &self.text[self.spans[number as usize].clone()]
    }

    pub fn count(&self) -> usize {
        self.spans.len()
    }
}

/// What is said about a metric.
#[derive(Debug, Clone, Copy)]
pub(super) struct Family {
    pub kind: Kind,
    pub name: u32,
    pub help: u32,
    pub unit: u32,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub time_ms: i64,
    pub value: f64,
    /// Whether it stands for its point.
    pub counts: bool,
    next: u32,
}

/// A stretch of `bytes` with its time: a native histogram.
#[derive(Debug, Clone)]
pub(super) struct Native {
    pub time_ms: i64,
    pub body: Range<usize>,
    next: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Exemplar {
    pub time_ms: i64,
    pub value: f64,
    pub labels: Range<usize>,
    next: u32,
}

#[derive(Debug, Clone, Copy)]
struct Chain {
    first: u32,
    last: u32,
}

impl Default for Chain {
    fn default() -> Chain {
        Chain {
            first: NONE,
            last: NONE,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Series {
    hash: u64,
    /// The encoded labels.
    pub labels: Range<usize>,
    pub family: u32,
    /// When it began, in ms; 0 if nobody said.
    pub start_ms: i64,
    samples: Chain,
    natives: Chain,
    exemplars: Chain,
}

/// All of a batch.
#[derive(Debug, Default)]
pub(super) struct SeriesSet {
    pub version: Version,
    pub symbols: Symbols,
    pub families: Vec<Family>,
    by_name: HashTable<u32>,
    pub series: Vec<Series>,
    table: HashTable<u32>,
    hasher: RandomState,
    /// Encoded labels and histograms.
    pub bytes: Vec<u8>,
    samples: Vec<Sample>,
    natives: Vec<Native>,
    exemplars: Vec<Exemplar>,
}

impl SeriesSet {
    pub fn new(version: Version) -> SeriesSet {
        SeriesSet {
            version,
            ..SeriesSet::default()
        }
    }

    pub fn clear(&mut self) {
        self.symbols.clear();
        self.families.clear();
        self.by_name.clear();
        self.series.clear();
        self.table.clear();
        self.bytes.clear();
        self.samples.clear();
        self.natives.clear();
        self.exemplars.clear();
    }

    /// Appends a label as the version has it: a message with both texts, or two numbers of symbols.
    #[inline]
    pub fn put_label(&mut self, out: &mut Vec<u8>, name: &str, value: &str) {
        match self.version {
            Version::V1 => {
                let length = |text: &str| 1 + wire::varint_len(text.len() as u64) + text.len();
                let whole = length(name) + length(value);
                if whole < 128 {
                    // All lengths are one byte, as they nearly always are.
                    out.reserve(2 + whole);
                    out.extend_from_slice(&[LABEL, whole as u8, LABEL_NAME, name.len() as u8]);
                    out.extend_from_slice(name.as_bytes());
                    out.extend_from_slice(&[LABEL_VALUE, value.len() as u8]);
                    out.extend_from_slice(value.as_bytes());
                } else {
                    wire::put_tag(out, 1, wire::BYTES);
                    wire::put_varint(out, whole as u64);
                    wire::put_bytes(out, 1, name.as_bytes());
                    wire::put_bytes(out, 2, value.as_bytes());
                }
            }
            Version::V2 => {
                wire::put_varint(out, u64::from(self.symbols.intern(name)));
                wire::put_varint(out, u64::from(self.symbols.intern(value)));
            }
        }
    }

    /// The number of a metric's description. In 1.0 the first that is given under a name counts; in 2.0 each series has its own.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str, unit: &str) -> u32 {
        let [name, help, unit] = [name, help, unit].map(|text| self.symbols.intern(text));
        let SeriesSet {
            version,
            families,
            by_name,
            hasher,
            ..
        } = self;
        let hash = hasher.hash_one(name);
        let is_it = |at: &u32| {
            let known = &families[*at as usize];
            let is_alike = (known.kind, known.help, known.unit) == (kind, help, unit);
            known.name == name && (is_alike || *version == Version::V1)
        };
        if let Some(known) = by_name.find(hash, is_it) {
            return *known;
        }
        let number = families.len() as u32;
        by_name.insert_unique(hash, number, |at| hasher.hash_one(families[*at as usize].name));
        self.families.push(Family { kind, name, help, unit });
        number
    }

    /// The series with these encoded labels.
    pub fn series(&mut self, labels: &[u8], family: u32, start_ms: i64) -> u32 {
        let SeriesSet {
            series,
            table,
            bytes,
            hasher,
            ..
        } = self;
        let hash = hasher.hash_one(labels);
        let same = |at: &u32| {
            let known = &series[*at as usize];
            known.hash == hash && bytes[known.labels.clone()] == *labels
        };
        if let Some(known) = table.find(hash, same) {
            return *known;
        }
        let number = series.len() as u32;
        let start = bytes.len();
        bytes.extend_from_slice(labels);
        series.push(Series {
            hash,
            labels: start..bytes.len(),
            family,
            start_ms,
            samples: Chain::default(),
            natives: Chain::default(),
            exemplars: Chain::default(),
        });
        table.insert_unique(hash, number, |at| series[*at as usize].hash);
        number
    }

    /// A number for each series, the same for the same labels in every batch of this set.
    pub fn identities(&self) -> Vec<u64> {
        let identity = |series: &Series| match self.version {
            Version::V1 => series.hash,
            // The numbers of symbols are another batch's others; their texts' hashes are not.
            Version::V2 => {
                let mut labels = &self.bytes[series.labels.clone()];
                let mut identity = 0u64;
                while let Some(symbol) = wire::varint(&mut labels) {
                    let hash = self.symbols.hashes[symbol as usize];
                    identity = (identity.rotate_left(5) ^ hash).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                }
                identity
            }
        };
        self.series.iter().map(identity).collect()
    }

    pub fn sample(&mut self, series: u32, time_ms: i64, value: f64, counts: bool) {
        let at = self.samples.len() as u32;
        self.samples.push(Sample {
            time_ms,
            value,
            counts,
            next: NONE,
        });
        let chain = &mut self.series[series as usize].samples;
        match chain.last {
            NONE => chain.first = at,
            last => self.samples[last as usize].next = at,
        }
        chain.last = at;
    }

    /// `body` is a stretch of `bytes`.
    pub fn native(&mut self, series: u32, time_ms: i64, body: Range<usize>) {
        let at = self.natives.len() as u32;
        self.natives.push(Native {
            time_ms,
            body,
            next: NONE,
        });
        let chain = &mut self.series[series as usize].natives;
        match chain.last {
            NONE => chain.first = at,
            last => self.natives[last as usize].next = at,
        }
        chain.last = at;
    }

    pub fn exemplar(&mut self, series: u32, time_ms: i64, value: f64, labels: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(labels);
        let at = self.exemplars.len() as u32;
        let labels = start..self.bytes.len();
        self.exemplars.push(Exemplar {
            time_ms,
            value,
            labels,
            next: NONE,
        });
        let chain = &mut self.series[series as usize].exemplars;
        match chain.last {
            NONE => chain.first = at,
            last => self.exemplars[last as usize].next = at,
        }
        chain.last = at;
    }

    /// The samples of a series by time, into `out`. Of those with one time the last counts; how many points differ from it is returned.
    pub fn samples_of(&self, series: &Series, out: &mut Vec<Sample>) -> u32 {
        out.clear();
        let mut at = series.samples.first;
        while at != NONE {
            let sample = self.samples[at as usize];
            out.push(sample);
            at = sample.next;
        }
        if out.len() < 2 {
            return 0;
        }
        out.sort_by_key(|sample| sample.time_ms);
        let mut lost = 0;
        out.dedup_by(|later, kept| {
            let same = later.time_ms == kept.time_ms;
            if same {
                lost += u32::from(kept.counts && kept.value.to_bits() != later.value.to_bits());
                *kept = *later;
            }
            same
        });
        lost
    }

    /// The native histograms of a series by time, the last of each time, and how many points differ from it.
    pub fn natives_of(&self, series: &Series, out: &mut Vec<Native>) -> u32 {
        out.clear();
        let mut at = series.natives.first;
        while at != NONE {
            let native = &self.natives[at as usize];
            out.push(native.clone());
            at = native.next;
        }
        out.sort_by_key(|native| native.time_ms);
        let mut lost = 0;
        out.dedup_by(|later, kept| {
            let same = later.time_ms == kept.time_ms;
            if same {
                lost += u32::from(self.bytes[kept.body.clone()] != self.bytes[later.body.clone()]);
                *kept = later.clone();
            }
            same
        });
        lost
    }

    /// The exemplars of a series by time.
    pub fn exemplars_of(&self, series: &Series, out: &mut Vec<Exemplar>) {
        out.clear();
        let mut at = series.exemplars.first;
        while at != NONE {
            let exemplar = &self.exemplars[at as usize];
            out.push(exemplar.clone());
            at = exemplar.next;
        }
        out.sort_by_key(|exemplar| exemplar.time_ms);
    }
}
