//! Edits of any batch: what comes out is canonical, counts its items, and keeps within the limits of a split.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use model::canonical::canonicalize;
use model::edit::{Level, concat, edit_attributes, select, split};
use model::view::AnyValue;
use model::{Batch, Signal};
use prost::Message;
use trackline_fuzz::arbitrary::Source;
use trackline_fuzz::edits::batch;

fuzz_target!(|data: &[u8]| {
    let Some((signal, data)) = trackline_fuzz::signal(data) else {
        return;
    };
    let (bytes, choices) = trackline_fuzz::halves(data);
    let message = match signal {
        Signal::Traces => Source(bytes).traces().encode_to_vec(),
        Signal::Logs => Source(bytes).logs().encode_to_vec(),
        Signal::Metrics => Source(bytes).metrics().encode_to_vec(),
    };
    // Half of the inputs are edited as raw bytes, where they are legal.
    let mut choices = Source(choices);
    let payload = if choices.one_in(2) { bytes.to_vec() } else { message };
    if canonicalize(signal, payload.clone().into()).is_err() {
        return;
    }
    let batch = batch(signal, Bytes::from(payload));
    let keep: Vec<bool> = (0..batch.items).map(|_| choices.one_in(2)).collect();
    check(
        &select(&batch, |index| keep[index as usize]),
        keep.iter().filter(|keep| **keep).count() as u32,
    );
    for level in [Level::Resource, Level::Scope, Level::Item] {
        let edited = edit_attributes(&batch, level, |owner, changes| {
            for pair in owner.attributes {
                match choices.below(4) {
                    0 => changes.remove(pair.key),
                    1 => changes.set(pair.key, AnyValue::Int(7)),
                    2 => changes.set("a", pair.value),
                    _ => {}
                }
            }
        });
        check(&edited, batch.items);
    }
    let max_items = u32::from(choices.byte());
    let parts = split(&batch, max_items, usize::from(choices.byte()) * 16);
    for part in &parts {
        check(part, part.items);
        assert!(part.items <= max_items.max(1));
    }
    if let Some(joined) = concat(&parts) {
        check(&joined, batch.items);
    }
});

fn check(batch: &Batch, items: u32) {
    let canonical = canonicalize(batch.signal, batch.payload.bytes()).expect("what is edited is legal");
    assert!(!canonical.rewritten, "what is edited is canonical");
    assert_eq!((canonical.items, batch.items), (items, items));
}
