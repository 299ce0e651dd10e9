//! Any bytes as a request of remote write: an error, or series that take no more memory than was said before, and canonical OTLP no longer than was said.

#![no_main]

use codec::prometheus::otlp::{Job, Options, TargetInfo, Targets, build_with, len_at_most};
use codec::remote_write::Version;
use codec::remote_write::read::{Families, bytes_at_most, first_version, second_version};
use libfuzzer_sys::fuzz_target;
use model::Signal;
use model::canonical::canonicalize;

fuzz_target!(|data: &[u8]| {
    let Some((&which, message)) = data.split_first() else {
        return;
    };
    let version = if which & 1 == 0 { Version::V1 } else { Version::V2 };
    let mut families = Families::default();
    let read = match version {
        Version::V1 => {
            if families.learn(message).is_err() {
                return;
            }
            first_version(message, &families)
        }
        Version::V2 => second_version(message),
    };
    let Ok(read) = read else { return };
    assert!(read.list.bytes_held() as u64 <= bytes_at_most(message, version) + families.bytes() as u64);
    let mut targets = Targets::default();
    targets.learn(&read.list);
    let options = Options {
        time_ms: 0,
        job: Job::Parted,
        target_info: TargetInfo::Kept,
        max_bytes: 64 << 20,
    };
    let Ok(built) = build_with(&read.list, &options, &targets) else {
        return;
    };
    assert!(built.payload.len() as u64 <= len_at_most(&read.list) + targets.len_at_most(&read.list));
    let canonical = canonicalize(Signal::Metrics, built.payload.into()).expect("what we write is legal");
    assert!(!canonical.rewritten && u64::from(canonical.items) == built.points);
});
