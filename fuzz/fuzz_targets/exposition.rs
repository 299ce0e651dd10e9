//! Any bytes as a page that is scraped: an error with its line, or series that become canonical OTLP, and of which none is missing in itself.

#![no_main]

use codec::prometheus::exposition::read;
use codec::prometheus::otlp::{Job, Options, TargetInfo, build, len_at_most};
use codec::prometheus::series::SeriesList;
use codec::prometheus::text::Format;
use libfuzzer_sys::fuzz_target;
use model::Signal;
use model::canonical::canonicalize;

fuzz_target!(|data: &[u8]| {
    let Some((&which, page)) = data.split_first() else {
        return;
    };
    let format = if which & 1 == 0 { Format::Text } else { Format::OpenMetrics };
    let mut list = match read(page, format) {
        Ok(list) => list,
        Err(bad) => {
            assert!(bad.line <= 1 + page.iter().filter(|byte| **byte == b'\n').count());
            return;
        }
    };
    let options = Options {
        time_ms: 1_700_000_000_000,
        job: if which & 2 == 0 { Job::Whole } else { Job::Parted },
        target_info: if which & 4 == 0 { TargetInfo::Moved } else { TargetInfo::Kept },
        max_bytes: 64 << 20,
    };
    let check = |list: &SeriesList| {
        let Ok(built) = build(list, &options) else { return };
        assert!(built.payload.len() as u64 <= len_at_most(list));
        let samples = list.iter().map(|series| series.samples().len() as u64).sum::<u64>();
        assert_eq!(built.samples + built.bad_times, samples);
        let canonical = canonicalize(Signal::Metrics, built.payload.into()).expect("what we write is legal");
        assert!(!canonical.rewritten && u64::from(canonical.items) == built.points);
    };
    check(&list);
    let before = list.clone();
    assert_eq!(list.end_missing(&before), Ok(0));
    list.relabel(|labels| {
        labels.set("job", "fuzz");
        !labels.get("__name__").ends_with('x')
    })
    .expect("a name and a job are labels");
    list.end_missing(&before).expect("labels that were some");
    check(&list);
});
