//! Any payload that the door lets in becomes series: whatever its names hold, and however it is cut, both versions of remote write have as many samples.

#![no_main]

use codec::remote_write::{Encoder, Options, Version};
use libfuzzer_sys::fuzz_target;
use model::Signal;
use model::canonical::canonicalize;

fuzz_target!(|data: &[u8]| {
    let Ok(canonical) = canonicalize(Signal::Metrics, data.to_vec().into()) else {
        return;
    };
    let samples = |version, max_request_bytes| {
        let options = Options {
            version,
            max_request_bytes,
            target_info: true,
            created: true,
            ..Options::default()
        };
        let encoded = Encoder::new(options).encode(&canonical.payload);
        let counts = encoded
            .requests
            .iter()
            .map(|request| request.samples + request.histograms)
            .sum::<u64>();
        (counts, encoded.rejected)
    };
    let expect = samples(Version::V1, 0);
    // Labels that 1.0 writes out for each series stand once in 2.0, which has room for more.
    if expect.1.too_large > 0 {
        return;
    }
    assert_eq!(samples(Version::V2, 0), expect);
    assert_eq!(samples(Version::V2, 100), expect);
});
