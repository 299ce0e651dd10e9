//! Any payload as logs and as metrics for CloudWatch: each item is in an event, rejected or remembered, and each request is one that CloudWatch takes.

#![no_main]

use codec::cloudwatch::emf::{Encoder, Options, Rollup, Version};
use codec::cloudwatch::{LogOptions, Name, Template, Translated, log_events, puts};
use libfuzzer_sys::fuzz_target;
use model::Signal;
use model::canonical::canonicalize;

fn check(translated: &Translated) -> u32 {
    let mut items = 0;
    for stream in &translated.streams {
        for put in puts(stream) {
            let body: serde_json::Value = serde_json::from_slice(&put.body).expect("JSON");
            let events = body["logEvents"].as_array().expect("a list");
            assert!(!events.is_empty() && events.len() <= 10_000 && events.len() == put.items.len());
            let text = |event: &serde_json::Value| event["message"].as_str().expect("a text").len() + 26;
            assert!(events.iter().map(text).sum::<usize>() <= 1 << 20);
            items += put.items.iter().sum::<u32>();
        }
    }
    items + translated.rejected.iter().map(|(items, _)| *items).sum::<u32>() + translated.filtered
}

fuzz_target!(|data: &[u8]| {
    let Some((&which, payload)) = data.split_first() else {
        return;
    };
    let on = |bit: u8| which & bit != 0;
    let template = |of, text| Template::parse(of, text).expect("right");
    let (group, stream) = (template(Name::Group, "/g/{a}"), template(Name::Stream, "{service.name}-{a}"));
    if let Ok(canonical) = canonicalize(Signal::Logs, payload.to_vec().into()) {
        let options = LogOptions { group: group.clone(), stream: stream.clone(), raw: on(1), emf_only: on(2) };
        assert_eq!(check(&log_events(&canonical.payload, 1, &options)), canonical.items);
    }
    if let Ok(canonical) = canonicalize(Signal::Metrics, payload.to_vec().into()) {
        let options = Options {
            namespace: String::new(),
            group: on(4).then_some(group),
            stream,
            rollup: if on(8) { Rollup::None } else { Rollup::ZeroAndSingle },
            version: if on(16) { Version::V0 } else { Version::V1 },
            extracts: true,
            resource_labels: on(32),
            leaves_out_service: false,
            retains_initial: on(64),
            is_detailed: on(128),
            json_labels: vec!["json".to_owned()],
            declarations: Vec::new(),
            units: Vec::new(),
        };
        let translated = Encoder::new(options).encode(&canonical.payload, 1, "prometheus");
        for (_, text) in translated.streams.iter().flat_map(|stream| stream.events()) {
            serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        }
        assert!(check(&translated) <= canonical.items);
    }
});
