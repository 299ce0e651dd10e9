//! Any bytes as a broker's answer: an error or something no larger than they were.

#![no_main]

use codec::kafka::{Api, answer, metadata, produced, sasl_authenticate, sasl_handshake};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok((_, body)) = answer(data) else { return };
    if let Ok(metadata) = metadata(body) {
        // The shortest broker has 12 bytes, the shortest topic 9, the shortest partition 18.
        let partitions: usize = metadata.topics.iter().map(|topic| topic.partitions.len()).sum();
        assert!(12 * metadata.brokers.len() + 9 * metadata.topics.len() + 18 * partitions <= body.len());
    }
    for api in [Api::Produce, Api::ProduceZstd] {
        if let Ok((all, _)) = produced(api, body) {
            assert!(22 * all.len() <= body.len());
            // A topic's name stands once, before all of its partitions.
            let names = all.chunk_by(|one, next| std::ptr::eq(&*one.topic, &*next.topic));
            assert!(names.map(|of_topic| of_topic[0].topic.len()).sum::<usize>() < body.len());
        }
    }
    if let Ok((_, mechanisms)) = sasl_handshake(body) {
        assert!(mechanisms.iter().map(|name| 2 + name.len()).sum::<usize>() <= body.len());
    }
    if let Ok((_, words, step)) = sasl_authenticate(body) {
        assert!(words.len() + step.len() < body.len());
    }
});
