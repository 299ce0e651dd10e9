//! Any pasted text: an error that does not repeat much of it, or an id that is read back from how it is shown.

#![no_main]

use libfuzzer_sys::fuzz_target;
use model::{SpanId, TraceId};

fuzz_target!(|text: &str| {
    match TraceId::parse(text) {
        Ok(id) => assert_eq!(TraceId::parse(&format!("X-Tracking-ID: {id}")), Ok(id)),
        Err(error) => assert!(error.to_string().len() < 1000),
    }
    if let Ok(id) = SpanId::parse(text) {
        assert_eq!(SpanId::from_hex(&id.to_string()), Ok(id));
    }
});
