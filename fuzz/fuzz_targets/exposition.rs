//! Any bytes as a page that is scraped, in text or protobuf: an error with its line or family, or series that become canonical OTLP, and of which none is missing in itself.

#![no_main]

use codec::prometheus::exposition::read;
use codec::prometheus::otlp::{Job, Options, TargetInfo, build, len_at_most};
use codec::prometheus::protobuf::{self, Wanted};
use codec::prometheus::series::SeriesList;
use codec::prometheus::text::Format;
use libfuzzer_sys::fuzz_target;
use model::Signal;
use model::canonical::canonicalize;

fuzz_target!(|data: &[u8]| {
    let Some((&which, page)) = data.split_first() else {
        return;
    };
    let format = if which & 1 == 0 {
        Format::Text
    } else {
        Format::OpenMetrics
    };
    let wanted = Wanted {
        natives: which & 16 != 0,
        classics_beside: which & 32 != 0,
    };
    let mut list = match read(page, format) {
        _ if which & 8 != 0 => {
            let size = protobuf::size(page);
            // What a target may send is reserved for before it is read, and what is too much is not.
            if size.labels > 1 << 20 || size.bytes > 64 << 20 {
                return;
            }
            let Ok(list) = protobuf::read(page, wanted) else { return };
            assert!(list.len() as u64 <= size.series);
            assert!(list.native_bytes() as u64 <= size.bytes);
            // An empty list holds a little as well.
            let said = 4096 + 2 * (page.len() as u64 + size.bytes) + 16 * size.labels + 96 * size.series;
            assert!(list.bytes_held() as u64 <= said);
            list
        }
        Ok(list) => list,
        Err(bad) => {
            assert!(bad.line <= 1 + page.iter().filter(|byte| **byte == b'\n').count());
            return;
        }
    };
    let options = Options {
        time_ms: 1_700_000_000_000,
        job: if which & 2 == 0 { Job::Whole } else { Job::Parted },
        target_info: if which & 4 == 0 {
            TargetInfo::Moved
        } else {
            TargetInfo::Kept
        },
        max_bytes: 64 << 20,
    };
    let check = |list: &SeriesList| {
        let Ok(built) = build(list, &options) else { return };
        assert!(built.payload.len() as u64 <= len_at_most(list));
        let samples = list.iter().map(|series| series.samples().len() as u64).sum::<u64>();
        let natives = list.iter().map(|series| series.histograms() as u64).sum::<u64>();
        assert_eq!(built.samples + built.histograms + built.bad_times, samples + natives);
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
