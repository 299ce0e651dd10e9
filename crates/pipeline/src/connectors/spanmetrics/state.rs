//! Why: what was counted outlives the process. It is told whole, or as what changed since it was last told.

use model::wire::{self, Fields, put_bytes, put_fixed64, put_tag};
use model::write::Exemplar;
use model::{SpanId, TraceId};

use super::SpanMetrics;
use super::counting::{Value, resource_bytes, series_bytes};
use super::settings::Settings;
use crate::connectors::StreamClock;
use crate::connectors::histogram::Histogram;
use crate::connectors::series::{RememberedRow, put_number, put_row};
use crate::stage::BadState;

/// The version of the remembered state, its first byte; what follows are protobuf fields: 1 fingerprint, 2 clock, 3 next flush, 4 last flush, 5 whether
/// exemplars before it are over, 6 resources, 7 series.
const STATE_VERSION: u8 = 1;

impl SpanMetrics {
    pub fn encode(&mut self, is_whole: bool) -> Vec<u8> {
        let mut out = vec![STATE_VERSION];
        if is_whole {
            put_bytes(&mut out, 1, self.settings.fingerprint.as_bytes());
        }
        put_fixed64(&mut out, 2, self.clock.now_unix_nano);
        put_fixed64(&mut out, 3, self.next_flush_unix_nano);
        put_fixed64(&mut out, 4, self.last_flush_unix_nano);
        put_number(&mut out, 5, u64::from(self.has_flushed));
        let indices = |changed: Vec<u32>, len: usize| match is_whole {
            true => (0..len as u32).collect(),
            false => {
                let mut changed = changed;
                // New rows are told in their order, so that each is the next when it is read.
                changed.sort_unstable();
                changed
            }
        };
        let changed = self.resources.take_changed();
        for index in indices(changed, self.resources.len()) {
            let Some(row) = self.resources.get(index as usize) else {
                continue;
            };
            put_row(&mut out, 6, 0, index, row, |out| put_bytes(out, 7, &row.value));
        }
        for (number, tally) in self.tallies.iter_mut().enumerate() {
            let changed = tally.series.take_changed();
            for index in indices(changed, tally.series.len()) {
                let Some(row) = tally.series.get(index as usize) else {
                    continue;
                };
                put_row(&mut out, 7, number, index, row, |out| row.value.encode(out));
            }
        }
        out
    }

    pub fn read(&mut self, state: &[u8], is_whole: bool) -> Result<(), BadState> {
        let broken = || BadState("it is not what this connector remembers".into());
        let (version, fields) = state.split_first().ok_or_else(broken)?;
        if *version != STATE_VERSION {
            let text = format!("it is of version {version}, and this program reads version {STATE_VERSION}");
            return Err(BadState(text));
        }
        if is_whole {
            self.forget();
        }
        for (number, payload) in Fields::new(fields) {
            match number {
                1 if payload.bytes() != self.settings.fingerprint.as_bytes() => {
                    let text = "the dimensions, the histogram or other settings that its series depend on are not those of before";
                    return Err(BadState(text.into()));
                }
                1 => {}
                2 => self.clock = StreamClock::at(payload.fixed64()),
                3 => self.next_flush_unix_nano = payload.fixed64(),
                4 => self.last_flush_unix_nano = payload.fixed64(),
                5 if payload.varint() == 0 => {}
                5 => {
                    for tally in &mut self.tallies {
                        tally.series.each_value(|value| value.exemplars.clear());
                    }
                }
                6 => {
                    let resource = RememberedRow::read(payload.bytes());
                    let attributes = resource.field(7).bytes();
                    let bytes = resource_bytes(resource.key, attributes);
                    let is_known = resource.index < self.resources.len();
                    if !self.resources.restore(resource.index, resource.with(attributes.into())) {
                        return Err(broken());
                    }
                    self.held.charge(if is_known { 0 } else { bytes });
                }
                7 => self.read_series(payload.bytes()).ok_or_else(broken)?,
                _ => return Err(broken()),
            }
        }
        Ok(())
    }

    fn read_series(&mut self, bytes: &[u8]) -> Option<()> {
        let row = RememberedRow::read(bytes);
        let tally = self.tallies.get_mut(row.table)?;
        let is_measured = self.settings.tables.get(row.table)?.measured.is_some();
        let value = Value::decode(bytes, &self.settings, is_measured)?;
        let is_known = row.index < tally.series.len();
        let held = series_bytes(&self.settings, row.key);
        tally.series.restore(row.index, row.with(value)).then_some(())?;
        self.held.charge(if is_known { 0 } else { held });
        self.is_dirty = true;
        Some(())
    }
}

impl Value {
    /// Appends 7 count, 8 histogram, 9 exemplars.
    fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, 7, self.count);
        if let Some(histogram) = &self.histogram {
            put_tag(out, 8, wire::BYTES);
            let open = wire::open_length(out, 64);
            histogram.encode(out);
            wire::close_length(out, open);
        }
        for (_, exemplar) in &self.exemplars {
            put_tag(out, 9, wire::BYTES);
            let open = wire::open_length(out, 48);
            put_fixed64(out, 1, exemplar.time_unix_nano);
            put_fixed64(out, 2, exemplar.value.to_bits());
            put_bytes(out, 3, &exemplar.trace_id.unwrap_or_default().0);
            put_bytes(out, 4, &exemplar.span_id.unwrap_or_default().0);
            wire::close_length(out, open);
        }
    }

    fn decode(row: &[u8], settings: &Settings, is_measured: bool) -> Option<Value> {
        let mut value = Value {
            count: 0,
            histogram: None,
            exemplars: Vec::new(),
        };
        for (number, payload) in Fields::new(row) {
            match number {
                7 => value.count = payload.varint(),
                8 => value.histogram = Some(Histogram::decode(payload.bytes(), &settings.shape)?),
                9 if value.exemplars.len() < settings.max_exemplars => {
                    let exemplar = read_exemplar(payload.bytes());
                    let bucket = Histogram::bucket(&settings.shape, exemplar.value);
                    value.exemplars.push((bucket, exemplar));
                }
                _ => {}
            }
        }
        (value.histogram.is_some() == is_measured).then_some(value)
    }
}

fn read_exemplar(bytes: &[u8]) -> Exemplar {
    let mut exemplar = Exemplar {
        time_unix_nano: 0,
        value: 0.0,
        trace_id: None,
        span_id: None,
    };
    for (number, payload) in Fields::new(bytes) {
        match number {
            1 => exemplar.time_unix_nano = payload.fixed64(),
            2 => exemplar.value = f64::from_bits(payload.fixed64()),
            3 => exemplar.trace_id = TraceId::from_bytes(payload.bytes()),
            4 => exemplar.span_id = SpanId::from_bytes(payload.bytes()),
            _ => {}
        }
    }
    exemplar
}
