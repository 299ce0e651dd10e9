//! Any request through the stages that hold data, and any bytes as what they remember: what comes out is canonical, and what they say they remember they read.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use model::canonical::canonicalize;
use model::{Batch, Meta, Signal};
use pipeline::config::{Config, Problems, Section, Source};
use pipeline::processors::{Step, cumulativetodelta, deltatocumulative, tail_sampling};
use pipeline::{MakeStage, State};

const SETTINGS: &str = "processors:
  tail_sampling:
    decision_wait: 1s
    num_traces: 3
    policies:
      - { name: errors, type: status_code, status_code: { status_codes: [ERROR] } }
      - { name: slow, type: latency, latency: { threshold_ms: 1000 } }
      - { name: text, type: string_attribute, string_attribute: { key: k, values: ['a+'], enabled_regex_matching: true } }
      - { name: rate, type: rate_limiting, rate_limiting: { spans_per_second: 1 } }
  deltatocumulative:
  cumulativetodelta: { initial_value: keep }
";

static STAGES: LazyLock<Vec<MakeStage>> = LazyLock::new(|| {
    let parse: [fn(&Section<'_>) -> Result<Step, Problems>; 3] =
        [tail_sampling::parse, deltatocumulative::parse, cumulativetodelta::parse];
    let config = Config::load(vec![Source::new("fuzz.yaml", SETTINGS)], &|_| None).expect("reads");
    let make = config.processors.iter().zip(parse).map(|(component, parse)| match parse(&config.section(component)) {
        Ok(Step::Stage(make)) => make,
        _ => panic!("they are stages"),
    });
    make.collect()
});

fuzz_target!(|data: &[u8]| {
    let Some((&way, data)) = data.split_first() else { return };
    for make in STAGES.iter() {
        let mut stage = make();
        if way & 1 == 1 {
            let bytes = bytes::Bytes::copy_from_slice(data);
            let _ = stage.restore(&if way & 2 == 2 { State::Whole(bytes) } else { State::Change(bytes) });
            continue;
        }
        let signal = Signal::ALL[usize::from(way >> 2) % Signal::ALL.len()];
        let Ok(canonical) = canonicalize(signal, bytes::Bytes::copy_from_slice(data)) else { return };
        let meta = Meta {
            received_at_unix_nano: 1,
            receiver: "otlp".into(),
            peer: None,
            headers: Vec::new(),
            source_offset: None,
        };
        let batch = Batch::from_canonical(signal, canonical, None, Arc::new(meta));
        let mut out = Vec::new();
        stage.see(&batch);
        stage.take(batch.clone(), &mut out);
        stage.take(batch, &mut out);
        for batch in out {
            let again = canonicalize(signal, batch.payload.bytes()).expect("what comes out is legal");
            assert!(!again.rewritten && again.items == batch.items);
        }
        make().restore(&stage.state(true)).expect("what it says it reads");
    }
});
