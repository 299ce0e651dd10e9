//! Any text: an error, or legal protobuf, whose own JSON means the same.

#![no_main]

use codec::otlp_json::{from_protobuf, to_protobuf};
use libfuzzer_sys::fuzz_target;
use model::canonical::canonicalize;

fuzz_target!(|data: &[u8]| {
    let Some((signal, json)) = trackline_fuzz::signal(data) else {
        return;
    };
    let Ok(payload) = to_protobuf(signal, json) else { return };
    let payload = canonicalize(signal, payload.into())
        .expect("JSON becomes legal protobuf")
        .payload;
    let json = from_protobuf(signal, &payload);
    let back = to_protobuf(signal, json.as_bytes()).expect("what we write, we read");
    let back = canonicalize(signal, back.into())
        .expect("JSON becomes legal protobuf")
        .payload;
    assert_eq!(from_protobuf(signal, &back), json);
    serde_json::from_str::<serde_json::Value>(&json).expect("what we write is JSON");
});
