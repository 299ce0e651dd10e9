//! Spans of which each is one of a kind: prepared requests whose ids are set anew for each sending, so that a sink can say which of them arrived, which
//! did not, and which came twice.

use bytes::Bytes;

use crate::client::frame_at;
use crate::spans::SpanSource;

/// Fast: what is measured is the process that inflates it.
const GZIP_LEVEL: i32 = 1;
/// Field numbers: resource spans, scope spans, spans.
const SPANS: [u32; 3] = [1, 2, 2];
const TRACE_ID: u32 = 1;
const SPAN_ID: u32 = 2;

/// A request with the places of its spans' ids.
pub struct Numbered {
    payload: Vec<u8>,
    /// Where each span's trace id and own id begin.
    ids: Vec<(usize, usize)>,
}

impl Numbered {
    pub fn new(source: &mut SpanSource, spans: usize) -> Self {
        let payload = source.request(spans);
        let mut ids = Vec::with_capacity(spans);
        places(&payload, 0, &SPANS, &mut ids);
        assert_eq!(ids.len(), spans, "every span has its ids");
        Self { payload, ids }
    }

    /// As a gzipped frame, its spans numbered from `first`. `cycle` makes other traces of them, each with the same spans as before.
    pub fn frame(&self, first: u64, cycle: u64) -> Bytes {
        let mut payload = self.payload.clone();
        for (number, (trace_id, span_id)) in (first..).zip(&self.ids) {
            payload[*span_id..span_id + 8].copy_from_slice(&(number + 1).to_be_bytes());
            for (byte, mix) in payload[*trace_id..trace_id + 8].iter_mut().zip(cycle.to_be_bytes()) {
                *byte ^= mix;
            }
        }
        frame_at(&payload, GZIP_LEVEL)
    }
}

/// The number that a span id stands for.
pub fn number_of(span_id: &[u8]) -> Option<u64> {
    u64::from_be_bytes(span_id.try_into().ok()?).checked_sub(1)
}

/// Calls back with the id of every span of a request.
pub fn span_ids(payload: &[u8], mut found: impl FnMut(&[u8])) {
    let mut ids = Vec::new();
    places(payload, 0, &SPANS, &mut ids);
    for (_, at) in ids {
        found(&payload[at..at + 8]);
    }
}

/// Walks down `path` and notes where the ids of the messages at its end begin. Not the product's own walk, which is under test.
fn places(message: &[u8], offset: usize, path: &[u32], ids: &mut Vec<(usize, usize)>) {
    let (mut at, mut trace_id, mut span_id) = (0, None, None);
    while at < message.len() {
        let tag = varint(message, &mut at);
        let length = match tag & 7 {
            0 => {
                varint(message, &mut at);
                0
            }
            1 => 8,
            5 => 4,
            _ => varint(message, &mut at) as usize,
        };
        let number = (tag >> 3) as u32;
        match path.split_first() {
            Some((first, rest)) if *first == number => {
                places(&message[at..at + length], offset + at, rest, ids);
            }
            None if number == TRACE_ID => trace_id = Some(offset + at),
            None if number == SPAN_ID => span_id = Some(offset + at),
            _ => {}
        }
        at += length;
    }
    if let (Some(trace_id), Some(span_id)) = (trace_id, span_id) {
        ids.push((trace_id, span_id));
    }
}

fn varint(bytes: &[u8], at: &mut usize) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes[*at];
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_span_has_the_number_that_it_was_given() {
        let request = Numbered::new(&mut SpanSource::new(1, 1_000_000_000_000, 1_000), 50);
        let framed = request.frame(1_000, 3);
        let size = u32::from_le_bytes(*framed.last_chunk().expect("a trailer")) as usize;
        let mut payload = vec![0; size];
        libdeflater::Decompressor::new()
            .gzip_decompress(&framed[5..], &mut payload)
            .expect("gzip");
        let mut numbers = Vec::new();
        span_ids(&payload, |id| numbers.extend(number_of(id)));
        assert_eq!(numbers, (1_000..1_050).collect::<Vec<u64>>());
    }
}
