//! Moving the times of a batch. All of OTLP's times are fixed in width, so that nothing moves but their bytes.

use bytes::Bytes;

use crate::batch::Batch;
use crate::schema::{self, Field, Kind, Message};
use crate::wire::{Payload, varint};

/// The batch with `by_nanos` added to all its times: of spans, events and log records, of data points, when they began, and of exemplars. What has no time
/// (0) is left without one.
pub fn shift(batch: &Batch, by_nanos: i64) -> Batch {
    if by_nanos == 0 {
        return batch.clone();
    }
    let mut shifted = batch.payload.to_vec();
    each_time(batch, &mut |offset, nanos| {
        let moved = nanos.saturating_add_signed(by_nanos).max(1);
        shifted[offset..offset + 8].copy_from_slice(&moved.to_le_bytes());
    });
    batch.edited(Bytes::from(shifted), batch.items)
}

/// The latest of a batch's times; `None` if it has none.
pub fn latest(batch: &Batch) -> Option<u64> {
    let mut latest = None;
    each_time(batch, &mut |_, nanos| latest = latest.max(Some(nanos)));
    latest
}

/// Calls `found` with the place and the value of each time that is not 0.
fn each_time(batch: &Batch, found: &mut dyn FnMut(usize, u64)) {
    walk(schema::request(batch.signal), &batch.payload, 0, found);
}

fn is_time(field: &Field) -> bool {
    matches!(field.kind, Kind::Fixed64) && field.name.to_ascii_lowercase().ends_with("timeunixnano")
}

fn walk(message: &'static Message, bytes: &[u8], base: usize, found: &mut dyn FnMut(usize, u64)) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let Some(tag) = varint(&mut rest) else { return };
        let Some(payload) = Payload::read((tag & 7) as u8, &mut rest) else {
            return;
        };
        let end = base + bytes.len() - rest.len();
        let Some(field) = message.fields.iter().find(|field| u64::from(field.number) == tag >> 3) else {
            continue;
        };
        match (payload, field.kind) {
            (Payload::Fixed64(nanos), _) if nanos > 0 && is_time(field) => found(end - 8, nanos),
            // Values of attributes hold no times.
            (Payload::Bytes(inner), Kind::Message(child)) if child.role != schema::Role::KeyValue => {
                walk(child, inner, end - inner.len(), found);
            }
            _ => {}
        }
    }
}
