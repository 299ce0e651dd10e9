//! Any bytes as a push: an error, or legal OTLP not much longer than they were, whose records a push carries on.

#![no_main]

use codec::loki::{DefaultLabels, Encoding, Format, Options, from_json, from_protobuf, pushes};
use libfuzzer_sys::fuzz_target;
use model::Signal;
use model::canonical::canonicalize;

fuzz_target!(|data: &[u8]| {
    let Some((&which, message)) = data.split_first() else {
        return;
    };
    let read = if which & 1 == 0 { from_protobuf } else { from_json };
    let Ok(payload) = read(message, 1) else { return };
    assert!(payload.len() <= 64 + 8 * message.len(), "{} of {}", payload.len(), message.len());
    let canonical = canonicalize(Signal::Logs, payload.into()).expect("what we write is legal");
    let on = which & 2 == 0;
    let options = Options {
        encoding: if which & 4 == 0 { Encoding::Protobuf } else { Encoding::Json },
        format: match which >> 3 & 3 {
            0 => Format::Json,
            1 => Format::Logfmt,
            _ => Format::Raw,
        },
        default_labels: DefaultLabels { exporter: on, job: on, instance: on, level: on },
        structured_metadata: on,
        received_at_unix_nano: 1,
    };
    let pushes = pushes(&canonical.payload, &options);
    assert_eq!(pushes.all.iter().map(|push| push.records).sum::<u32>() + pushes.rejected, canonical.items);
    for push in pushes.all {
        let back = if which & 4 == 0 { from_protobuf(&push.body, 1) } else { from_json(&push.body, 1) };
        let back = back.expect("what we write, we read");
        let back = canonicalize(Signal::Logs, back.into()).expect("what we write is legal");
        assert_eq!(back.items, push.records);
    }
});
