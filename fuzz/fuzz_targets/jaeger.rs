//! Any bytes at Jaeger's doors: an error, or legal OTLP not much longer than they were, which becomes Jaeger's again.

#![no_main]

use codec::jaeger::{from_protobuf, from_thrift, posts};
use libfuzzer_sys::fuzz_target;
use model::Signal;
use model::canonical::canonicalize;

fuzz_target!(|data: &[u8]| {
    let Some((&which, message)) = data.split_first() else {
        return;
    };
    let read = if which & 1 == 0 { from_protobuf } else { from_thrift };
    let Ok(payload) = read(message) else { return };
    assert!(payload.len() <= 64 + 4 * message.len(), "{} of {}", payload.len(), message.len());
    let canonical = canonicalize(Signal::Traces, payload.into()).expect("what we write is legal");
    // The second bit makes each span a call of its own.
    let posts = posts(&canonical.payload, if which & 2 == 0 { 4 << 20 } else { 1 });
    assert_eq!(posts.all.iter().map(|post| post.spans).sum::<u32>() + posts.rejected, canonical.items);
    for post in posts.all {
        let back = from_protobuf(&post.message).expect("what we write, we read");
        let back = canonicalize(Signal::Traces, back.into()).expect("what we write is legal");
        assert_eq!(back.items, post.spans);
    }
});
