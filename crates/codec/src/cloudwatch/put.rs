//! Streams of events cut into the bodies of `PutLogEvents`.

use super::{Event, Stream};
use crate::value_text;

/// The most that a request may hold, as AWS counts: the UTF-8 bytes of its texts and [`EVENT_OVERHEAD_BYTES`] for each event.
const MAX_PUT_BYTES: usize = 1_048_576;
const EVENT_OVERHEAD_BYTES: usize = 26;

/// The most that one event may hold: the largest that fits into a request. (AWS takes events of 1 MiB since April 2025, and took 256 KiB before.)
pub const MAX_EVENT_BYTES: usize = MAX_PUT_BYTES - EVENT_OVERHEAD_BYTES;

/// And so many events.
const MAX_PUT_EVENTS: usize = 10_000;

/// And from the first to the last no more time than this.
const MAX_PUT_SPAN_MILLI: i64 = 24 * 3600 * 1000;

/// What ends a text that was cut; the Collector's words.
const CUT: &str = "[Truncated...]";

/// One request.
#[derive(Debug)]
pub struct Put {
    /// The JSON body.
    pub body: Vec<u8>,
    /// Items of each event, in the request's order.
    pub items: Vec<u32>,
}

/// The requests for a stream: in order of time, and each within AWS's limits. Texts that are too long are cut.
pub fn puts(stream: &Stream) -> Vec<Put> {
    let mut events: Vec<&Event> = stream.events.iter().collect();
    // Stable: what has the same time stays in the order of its source.
    events.sort_by_key(|event| event.time_unix_milli);
    let mut puts = Vec::new();
    let mut rest = events.as_slice();
    while let Some(first) = rest.first() {
        let mut bytes = 0;
        let fits = |event: &&&Event| {
            bytes += (event.end - event.start).min(MAX_EVENT_BYTES) + EVENT_OVERHEAD_BYTES;
            // Times of hostile sources may lie centuries apart.
            let span = event.time_unix_milli.saturating_sub(first.time_unix_milli);
            bytes <= MAX_PUT_BYTES && span <= MAX_PUT_SPAN_MILLI
        };
        let count = rest.iter().take(MAX_PUT_EVENTS).take_while(fits).count();
        // The first one always fits.
        let (now, later) = rest.split_at(count.max(1));
        puts.push(put(stream, now));
        rest = later;
    }
    puts
}

fn put(stream: &Stream, events: &[&Event]) -> Put {
    let bytes: usize = events.iter().map(|event| event.end - event.start + 64).sum();
    let mut body = Vec::with_capacity(bytes + bytes / 8);
    body.extend_from_slice(b"{\"logGroupName\":");
    value_text::write_json_text(&stream.group, &mut body);
    body.extend_from_slice(b",\"logStreamName\":");
    value_text::write_json_text(&stream.name, &mut body);
    body.extend_from_slice(b",\"logEvents\":[");
    for (index, event) in events.iter().enumerate() {
        body.extend_from_slice(if index > 0 {
            b",{\"timestamp\":"
        } else {
            b"{\"timestamp\":"
        });
        value_text::write_number(event.time_unix_milli, &mut body);
        body.extend_from_slice(b",\"message\":");
        let text = stream.text_of(event);
        match cut(text) {
            Some(start) => value_text::write_json_text(&format!("{start}{CUT}"), &mut body),
            None => value_text::write_json_text(text, &mut body),
        }
        body.push(b'}');
    }
    body.extend_from_slice(b"]}");
    Put {
        body,
        items: events.iter().map(|event| event.items).collect(),
    }
}

/// What is left of a text that is too long.
fn cut(text: &str) -> Option<&str> {
    if text.len() <= MAX_EVENT_BYTES {
        return None;
    }
    let mut end = MAX_EVENT_BYTES - CUT.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Some(&text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn stream(events: &[(i64, &str)]) -> Stream {
        let mut stream = Stream {
            group: "g".into(),
            name: "s".into(),
            ..Stream::default()
        };
        for (time, text) in events {
            stream.push(*time, 1, |out| out.extend_from_slice(text.as_bytes()));
        }
        stream
    }

    fn read(put: &Put) -> Vec<(i64, String)> {
        let body: Value = serde_json::from_slice(&put.body).expect("JSON");
        assert_eq!(
            (&body["logGroupName"], &body["logStreamName"]),
            (&"g".into(), &"s".into())
        );
        let events = body["logEvents"].as_array().expect("a list");
        let event = |event: &Value| {
            (
                event["timestamp"].as_i64().expect("a number"),
                event["message"].as_str().expect("a text").to_owned(),
            )
        };
        events.iter().map(event).collect()
    }

    /// What AWS says a request may be.
    fn obeys(events: &[(i64, String)]) {
        assert!(!events.is_empty() && events.len() <= 10_000);
        assert!(events.is_sorted_by_key(|(time, _)| *time));
        let bytes: usize = events.iter().map(|(_, text)| text.len() + 26).sum();
        assert!(bytes <= 1_048_576, "{bytes}");
        let span = events[events.len() - 1].0 - events[0].0;
        assert!(span <= 24 * 3600 * 1000, "{span}");
    }

    proptest! {
        // A case moves megabytes through an unoptimised reader of JSON.
        #![proptest_config(ProptestConfig::with_cases(12))]
        /// Every event is in exactly one request, none is cut that need not be, and each request is within the limits.
        #[test]
        fn requests_are_within_limits(
            shape in proptest::collection::vec((0i64..200_000_000, prop_oneof![3 => 0usize..50, 1 => 200_000usize..500_000]), 0..20),
            many in any::<bool>(),
        ) {
            let mut events: Vec<(i64, String)> = shape.into_iter().enumerate().map(|(at, (time, length))| (time, format!("{at}\"{}", "é".repeat(length)))).collect();
            if many {
                events.extend((0..10_050).map(|at| (at, at.to_string())));
            }
            let borrowed: Vec<(i64, &str)> = events.iter().map(|(time, text)| (*time, text.as_str())).collect();
            let puts = puts(&stream(&borrowed));
            let mut got = Vec::new();
            for put in &puts {
                let events = read(put);
                obeys(&events);
                prop_assert_eq!(put.items.len(), events.len());
                got.extend(events);
            }
            let mut expect = events;
            expect.sort();
            got.sort();
            prop_assert_eq!(got.len(), expect.len());
            for (got, expect) in got.iter().zip(&expect) {
                prop_assert_eq!(got.0, expect.0);
                prop_assert!(got.1 == expect.1, "another text");
            }
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_and_marked() {
        let long = "é".repeat(600_000);
        let puts = puts(&stream(&[(0, &long), (0, "short")]));
        let first = read(&puts[0]);
        obeys(&first);
        assert!(first[0].1.ends_with("é[Truncated...]"));
        assert!(first[0].1.len() > MAX_EVENT_BYTES - 2);
        assert_eq!(read(&puts[1]), [(0, "short".to_owned())]);
    }

    #[test]
    fn times_at_the_ends_of_the_world() {
        let puts = puts(&stream(&[(i64::MAX, "b"), (0, "a")]));
        assert_eq!(puts.len(), 2);
    }
}
