//! Gzip streams that are grafted and joined: what they inflate to is what was meant, and no bytes make it panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use model::gzip::{graft, join};

fuzz_target!(|data: &[u8]| {
    let (seed, choices) = trackline_fuzz::halves(data);
    // As if it were gzip itself: any bytes behind a header.
    let raw = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], data].concat();
    let _ = graft(&raw, 1 << 20, choices.len(), &[0; 4096]);
    let _ = join(&[&raw, &raw]);

    let mut whole = Vec::new();
    while !seed.is_empty() && whole.len() < 150_000 {
        whole.extend_from_slice(&seed[..seed.len() - whole.len() % seed.len()]);
    }
    let level = i32::from(choices.first().copied().unwrap_or(1) % 13);
    let packed = pack(&whole, level);
    let edited = [choices, &whole[choices.len().min(whole.len())..]].concat();
    if choices.len() <= whole.len()
        && let Some(grafted) = graft(&packed, whole.len(), choices.len(), &edited)
    {
        assert!(unpack(&grafted, edited.len()) == edited);
        let both = [&edited[..], &whole, &edited].concat();
        let joined = join(&[&grafted, &packed, &grafted]).expect("both are sound");
        assert!(unpack(&joined, both.len()) == both);
    }
});

fn pack(bytes: &[u8], level: i32) -> Vec<u8> {
    let level = libdeflater::CompressionLvl::new(level).expect("a level that libdeflate knows");
    let mut compressor = libdeflater::Compressor::new(level);
    let mut out = vec![0; compressor.gzip_compress_bound(bytes.len())];
    let len = compressor.gzip_compress(bytes, &mut out).expect("room for the worst case");
    out.truncate(len);
    out
}

fn unpack(packed: &[u8], len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    let got = libdeflater::Decompressor::new()
        .gzip_decompress(packed, &mut out)
        .expect("it inflates");
    out.truncate(got);
    out
}
