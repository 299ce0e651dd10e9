//! Any line of a log becomes exactly one record, in a request that the door would take and that is not much longer than the line.
#![no_main]

use codec::log_line::{Record, Request};
use libfuzzer_sys::fuzz_target;
use model::Signal;
use model::canonical::canonicalize;

fuzz_target!(|line: &str| {
    let mut request = Request::default();
    request.push(&Record::of_line(line), &[], 1, &[]);
    let payload = request.finish();
    assert!(payload.len() <= 64 + 16 * line.len(), "{} of {}", payload.len(), line.len());
    let canonical = canonicalize(Signal::Logs, payload.into()).expect("is legal");
    assert_eq!(canonical.items, 1);
    // What a parser of lines hands on is read in the same way, and keeps what was said before.
    let mut record = Record::plain(line);
    record.attributes.push(("level".into(), codec::log_line::Json::Int(1)));
    record.read_body();
    assert!(record.attributes.iter().any(|(key, _)| key == "level"));
});
