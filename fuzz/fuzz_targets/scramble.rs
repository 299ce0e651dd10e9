//! Well-formed messages in every legal encoding: canonical form and views say what prost says.

#![no_main]

use libfuzzer_sys::fuzz_target;
use model::Signal;
use prost::Message;
use trackline_fuzz::arbitrary::Source;
use trackline_fuzz::canonical::checked;
use trackline_fuzz::views::{same_logs, same_metrics, same_traces};

fuzz_target!(|data: &[u8]| {
    let Some((signal, data)) = trackline_fuzz::signal(data) else {
        return;
    };
    let (bytes, choices) = trackline_fuzz::halves(data);
    match signal {
        Signal::Traces => {
            let payload = checked(signal, &Source(bytes).traces(), choices).payload;
            same_traces(&payload, &Message::decode(&*payload).expect("is legal"));
        }
        Signal::Logs => {
            let payload = checked(signal, &Source(bytes).logs(), choices).payload;
            same_logs(&payload, &Message::decode(&*payload).expect("is legal"));
        }
        Signal::Metrics => {
            let payload = checked(signal, &Source(bytes).metrics(), choices).payload;
            same_metrics(&payload, &Message::decode(&*payload).expect("is legal"));
        }
    }
});
