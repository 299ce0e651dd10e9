//! Series become requests: written one after the other, until one is full.

use std::mem;

use model::wire;

use super::series::{Exemplar, Native, Sample, Series, SeriesSet};
use super::{Encoded, Options, Request, Version};
use crate::prometheus::Kind;

/// Symbols of a batch that are not in the current request.
const ABSENT: u32 = u32::MAX;

/// Buffers that are kept.
#[derive(Debug, Default)]
pub(super) struct Writer {
    samples: Vec<Sample>,
    natives: Vec<Native>,
    exemplars: Vec<Exemplar>,
    /// 2.0: a symbol of the batch as the current request numbers it.
    local: Vec<u32>,
    /// 2.0: the symbols of the current request.
    listed: Vec<u32>,
    symbols: Vec<u8>,
    refs: Vec<u8>,
    /// 1.0: which families the current request has described.
    described: Vec<bool>,
    metadata: Vec<u8>,
    out: Vec<u8>,
    request: Request,
}

impl Writer {
    pub fn write(&mut self, set: &SeriesSet, options: &Options, encoded: &mut Encoded) {
        self.local.clear();
        self.local.resize(set.symbols.count(), ABSENT);
        self.described.clear();
        self.described.resize(set.families.len(), false);
        self.begin();
        for series in &set.series {
            let mark = (
                self.out.len(),
                self.metadata.len(),
                self.listed.len(),
                self.symbols.len(),
            );
            let before = self.counts();
            let lost = self.series(set, series, options);
            encoded.rejected.duplicate += lost;
            let is_over = options.max_request_bytes > 0 && self.size() > options.max_request_bytes;
            if is_over && mark.0 > 0 {
                // It begins the next request instead.
                self.take_back(set, mark, before);
                self.finish(options, encoded);
                self.series(set, series, options);
            }
        }
        self.finish(options, encoded);
    }

    fn size(&self) -> usize {
        self.out.len() + self.metadata.len() + self.symbols.len()
    }

    fn counts(&self) -> Request {
        Request {
            bytes: Vec::new(),
            ..self.request
        }
    }

    fn begin(&mut self) {
        self.out.clear();
        self.metadata.clear();
        self.symbols.clear();
        self.listed.clear();
        self.request = Request::default();
        // The empty text is symbol 0 of every request.
        if let Some(first) = self.local.first_mut() {
            *first = 0;
            self.listed.push(0);
            wire::put_bytes(&mut self.symbols, 4, b"");
        }
    }

    fn take_back(&mut self, set: &SeriesSet, mark: (usize, usize, usize, usize), before: Request) {
        self.out.truncate(mark.0);
        if self.metadata.len() > mark.1 {
            self.metadata.truncate(mark.1);
        }
        for symbol in self.listed.drain(mark.2..) {
            self.local[symbol as usize] = ABSENT;
        }
        self.symbols.truncate(mark.3);
        debug_assert!(self.local.len() == set.symbols.count());
        self.request = before;
    }

    fn finish(&mut self, options: &Options, encoded: &mut Encoded) {
        if self.out.is_empty() {
            return;
        }
        let mut request = mem::take(&mut self.request);
        request.bytes = Vec::with_capacity(self.size());
        if options.version == Version::V2 {
            request.bytes.extend_from_slice(&self.symbols);
        }
        request.bytes.extend_from_slice(&self.out);
        request.bytes.extend_from_slice(&self.metadata);
        encoded.requests.push(request);
        for symbol in &self.listed {
            self.local[*symbol as usize] = ABSENT;
        }
        self.described.fill(false);
        self.begin();
    }

    /// The number of a symbol in the current request.
    fn symbol(&mut self, set: &SeriesSet, symbol: u32) -> u32 {
        let local = self.local[symbol as usize];
        if local != ABSENT {
            return local;
        }
        let local = self.listed.len() as u32;
        self.local[symbol as usize] = local;
        self.listed.push(symbol);
        wire::put_bytes(&mut self.symbols, 4, set.symbols.get(symbol).as_bytes());
        local
    }

    /// Labels, whose symbols are numbered by the batch, with the numbers of the request, into `refs`.
    fn refs(&mut self, set: &SeriesSet, mut labels: &[u8]) {
        self.refs.clear();
        while let Some(symbol) = wire::varint(&mut labels) {
            let local = self.symbol(set, symbol as u32);
            wire::put_varint(&mut self.refs, u64::from(local));
        }
    }

    /// How many points were lost to others of the same time.
    fn series(&mut self, set: &SeriesSet, series: &Series, options: &Options) -> u32 {
        let lost = set.samples_of(series, &mut self.samples) + set.natives_of(series, &mut self.natives);
        set.exemplars_of(series, &mut self.exemplars);
        if self.samples.is_empty() && self.natives.is_empty() {
            return lost;
        }
        self.request.points += self.samples.iter().filter(|sample| sample.counts).count() as u32;
        self.request.points += self.natives.len() as u32;
        self.request.samples += self.samples.len() as u64;
        self.request.histograms += self.natives.len() as u64;
        self.request.exemplars += self.exemplars.len() as u64;
        match options.version {
            Version::V1 => self.first_version(set, series, options),
            Version::V2 => self.second_version(set, series),
        }
        lost
    }

    fn first_version(&mut self, set: &SeriesSet, series: &Series, options: &Options) {
        wire::put_tag(&mut self.out, 1, wire::BYTES);
        let open = wire::open_length(&mut self.out, series.labels.len() + SAMPLE_BYTES * self.samples.len());
        self.out.extend_from_slice(&set.bytes[series.labels.clone()]);
        self.put_samples();
        for exemplar in &self.exemplars {
            wire::put_tag(&mut self.out, 3, wire::BYTES);
            let open = wire::open_length(&mut self.out, exemplar.labels.len() + SAMPLE_BYTES);
            self.out.extend_from_slice(&set.bytes[exemplar.labels.clone()]);
            put_value_and_time(&mut self.out, exemplar.value, exemplar.time_ms);
            wire::close_length(&mut self.out, open);
        }
        for native in &self.natives {
            wire::put_bytes(&mut self.out, 4, &set.bytes[native.body.clone()]);
        }
        wire::close_length(&mut self.out, open);
        if options.metadata && !mem::replace(&mut self.described[series.family as usize], true) {
            let family = &set.families[series.family as usize];
            wire::put_tag(&mut self.metadata, 3, wire::BYTES);
            let open = wire::open_length(&mut self.metadata, 100);
            wire::put_tag(&mut self.metadata, 1, wire::VARINT);
            wire::put_varint(&mut self.metadata, type_number(family.kind));
            for (number, symbol) in [(2, family.name), (4, family.help), (5, family.unit)] {
                if symbol != 0 {
                    wire::put_bytes(&mut self.metadata, number, set.symbols.get(symbol).as_bytes());
                }
            }
            wire::close_length(&mut self.metadata, open);
        }
    }

    fn second_version(&mut self, set: &SeriesSet, series: &Series) {
        let family = set.families[series.family as usize];
        self.refs(set, &set.bytes[series.labels.clone()]);
        wire::put_tag(&mut self.out, 5, wire::BYTES);
        let open = wire::open_length(&mut self.out, self.refs.len() + SAMPLE_BYTES * (1 + self.samples.len()));
        wire::put_bytes(&mut self.out, 1, &self.refs);
        self.put_samples();
        for native in &self.natives {
            wire::put_bytes(&mut self.out, 3, &set.bytes[native.body.clone()]);
        }
        for exemplar in mem::take(&mut self.exemplars) {
            self.refs(set, &set.bytes[exemplar.labels.clone()]);
            wire::put_tag(&mut self.out, 4, wire::BYTES);
            let open = wire::open_length(&mut self.out, self.refs.len() + SAMPLE_BYTES);
            wire::put_bytes(&mut self.out, 1, &self.refs);
            put_value_and_time(&mut self.out, exemplar.value, exemplar.time_ms);
            wire::close_length(&mut self.out, open);
        }
        let (help, unit) = (self.symbol(set, family.help), self.symbol(set, family.unit));
        wire::put_tag(&mut self.out, 5, wire::BYTES);
        let metadata = wire::open_length(&mut self.out, 10);
        wire::put_tag(&mut self.out, 1, wire::VARINT);
        wire::put_varint(&mut self.out, type_number(family.kind));
        for (number, symbol) in [(3, help), (4, unit)] {
            if symbol != 0 {
                wire::put_tag(&mut self.out, number, wire::VARINT);
                wire::put_varint(&mut self.out, u64::from(symbol));
            }
        }
        wire::close_length(&mut self.out, metadata);
        if series.start_ms != 0 {
            wire::put_tag(&mut self.out, 6, wire::VARINT);
            wire::put_varint(&mut self.out, series.start_ms as u64);
        }
        wire::close_length(&mut self.out, open);
    }

    fn put_samples(&mut self) {
        for sample in &self.samples {
            let length = 9 + 1 + wire::varint_len(sample.time_ms as u64);
            wire::put_tag(&mut self.out, 2, wire::BYTES);
            wire::put_varint(&mut self.out, length as u64);
            wire::put_fixed64(&mut self.out, 1, sample.value.to_bits());
            wire::put_tag(&mut self.out, 2, wire::VARINT);
            wire::put_varint(&mut self.out, sample.time_ms as u64);
        }
    }
}

/// A sample with its tag and length takes 18 bytes while milliseconds since 1970 have 41 bits.
const SAMPLE_BYTES: usize = 18;

fn put_value_and_time(out: &mut Vec<u8>, value: f64, time_ms: i64) {
    wire::put_fixed64(out, 2, value.to_bits());
    wire::put_tag(out, 3, wire::VARINT);
    wire::put_varint(out, time_ms as u64);
}

/// `MetricMetadata.MetricType` of 1.0 and `Metadata.MetricType` of 2.0 agree.
fn type_number(kind: Kind) -> u64 {
    match kind {
        Kind::Unknown => 0,
        Kind::Counter => 1,
        Kind::Gauge => 2,
        Kind::Histogram => 3,
        Kind::GaugeHistogram => 4,
        Kind::Summary => 5,
        Kind::Info => 6,
        Kind::StateSet => 7,
    }
}
