//! Any line of a log becomes exactly one record, in a request that the door would take.
#![no_main]

use codec::log_line::{Record, Request};
use libfuzzer_sys::fuzz_target;
use model::Signal;
use model::canonical::canonicalize;

fuzz_target!(|line: &str| {
    let mut request = Request::default();
    request.push(&Record::of_line(line), &[], 1, &[]);
    let canonical = canonicalize(Signal::Logs, request.finish().into()).expect("is legal");
    assert_eq!(canonical.items, 1);
});
