//! What `tail_sampling` costs, in nanoseconds a span and bytes a trace: `cargo run --release -p pipeline --example tail_sampling_cost [SECONDS]`.
//!
//! A stream of 100,000 spans a second, traces of ten spans that come in ten batches, as long as given (60 s) and as fast as it goes: at every moment 300,000 traces
//! wait for their 30 s. One in ten is kept. Batches are made while the clock stands still.

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::view::AnyValue;
use model::wire::{put_bytes, put_fixed64, put_tag, put_varint};
use model::{Batch, Encoding, Meta, Signal};
use pipeline::config::{Config, Source};
use pipeline::processors::{Step, tail_sampling};
use pipeline::{Budget, State};

const SETTINGS: &str = "processors:
  tail_sampling:
    decision_wait: 30s
    num_traces: 300000
    policies:
      - { name: errors, type: status_code, status_code: { status_codes: [ERROR] } }
      - { name: slow, type: latency, latency: { threshold_ms: 1000 } }
      - { name: vip, type: string_attribute, string_attribute: { key: user.tier, values: [vip] } }
      - { name: rest, type: probabilistic, probabilistic: { sampling_percentage: 10 } }
";
const WAIT_SECONDS: u64 = 30;
const BATCHES_PER_SECOND: u64 = 100;
const SPANS: u64 = 1000;
const SPANS_PER_TRACE: u64 = 10;
const START_UNIX_NANO: u64 = 1_700_000_000_000_000_000;

fn main() {
    let seconds: u64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(60);
    let config = Config::load(vec![Source::new("cost.yaml", SETTINGS)], &|_| None).expect("reads");
    let Ok(Step::Stage(make)) = tail_sampling::parse(&config.section(&config.processors[0])) else {
        unreachable!("tail_sampling is a stage");
    };
    let budget = Budget::root("process", 1 << 30);
    let mut stage = make();
    stage.start(&budget);
    let template = Template::new();
    println!("{} bytes a span", template.payload.len() as u64 / SPANS);

    let (mut see, mut take, mut say) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let (mut taken, mut kept, mut whole_bytes, mut change_bytes) = (0u64, 0u64, 0usize, 0usize);
    let mut out = Vec::new();
    let behind = WAIT_SECONDS * BATCHES_PER_SECOND;
    for index in 0..(seconds + WAIT_SECONDS) * BATCHES_PER_SECOND {
        if index < seconds * BATCHES_PER_SECOND {
            let batch = template.batch(index);
            time(&mut see, || stage.see(&batch));
        }
        if let Some(index) = index.checked_sub(behind) {
            let batch = template.batch(index);
            time(&mut take, || stage.take(batch, &mut out));
            taken += SPANS;
            kept += out.drain(..).map(|batch| u64::from(batch.items)).sum::<u64>();
        }
        if index % BATCHES_PER_SECOND == 0 {
            time(&mut say, || match stage.state(false) {
                State::Whole(bytes) => whole_bytes += bytes.len(),
                State::Change(bytes) => change_bytes += bytes.len(),
            });
        }
    }
    let per_span = |time: Duration| time.as_nanos() as f64 / taken as f64;
    let all = per_span(see + take + say);
    println!("see   {:7.1} ns a span", per_span(see));
    println!("take  {:7.1} ns a span", per_span(take));
    println!(
        "state {:7.1} ns a span, {:.1} bytes a span",
        per_span(say),
        (whole_bytes + change_bytes) as f64 / taken as f64
    );
    println!(
        "all   {all:7.1} ns a span, {:.2} million spans a second, {:.1} % kept",
        1e3 / all,
        kept as f64 * 100.0 / taken as f64
    );
    let peak = budget.peak_bytes() as f64;
    println!(
        "at most {:.1} MiB, {:.0} bytes for each trace that waits",
        peak / f64::from(1 << 20),
        peak / 300_000.0
    );
}

fn time(sum: &mut Duration, run: impl FnOnce()) {
    let start = Instant::now();
    run();
    *sum += start.elapsed();
}

/// An encoded request, and where its trace ids lie.
struct Template {
    payload: Vec<u8>,
    ids: Vec<usize>,
}

impl Template {
    fn new() -> Template {
        let (mut spans, mut ids) = (Vec::new(), Vec::new());
        for _ in 0..SPANS {
            let mut span = Vec::new();
            put_bytes(&mut span, 1, &[1; 16]);
            put_bytes(&mut span, 2, &[2; 8]);
            put_bytes(&mut span, 4, &[3; 8]);
            put_bytes(&mut span, 5, b"POST /api/v1/workflows/{id}/steps");
            put_tag(&mut span, 6, 0);
            put_varint(&mut span, 2);
            put_fixed64(&mut span, 7, START_UNIX_NANO);
            put_fixed64(&mut span, 8, START_UNIX_NANO + 12_000_000);
            for key in [
                "http.request.method",
                "http.route",
                "url.scheme",
                "user_agent.original",
                "user.tier",
                "server.address",
            ] {
                put_pair(&mut span, 9, key, AnyValue::Str("some value of a usual length"));
            }
            for key in [
                "http.response.status_code",
                "server.port",
                "thread.id",
                "code.line.number",
            ] {
                put_pair(&mut span, 9, key, AnyValue::Int(200));
            }
            put_tag(&mut spans, 2, 2);
            put_varint(&mut spans, span.len() as u64);
            ids.push(spans.len() + 2);
            spans.extend_from_slice(&span);
        }
        let mut resource = Vec::new();
        put_pair(&mut resource, 1, "service.name", AnyValue::Str("workflow-engine"));
        let mut group = Vec::new();
        put_bytes(&mut group, 1, &resource);
        put_bytes(&mut group, 2, &spans);
        let mut payload = Vec::new();
        put_bytes(&mut payload, 1, &group);
        // Spans are the end of everything.
        let before = payload.len() - spans.len();
        ids.iter_mut().for_each(|at| *at += before);
        Template { payload, ids }
    }

    /// The batch of this number: of each of the last ten hundred traces one span.
    fn batch(&self, index: u64) -> Batch {
        let mut payload = self.payload.clone();
        for (nth, at) in (0..SPANS).zip(&self.ids) {
            let new_per_batch = SPANS / SPANS_PER_TRACE;
            let trace = (index + SPANS_PER_TRACE) * new_per_batch - nth;
            let id = u128::from(trace).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            payload[*at..at + 16].copy_from_slice(&id.to_be_bytes());
        }
        let meta = Meta {
            received_at_unix_nano: START_UNIX_NANO + index * (1_000_000_000 / BATCHES_PER_SECOND),
            receiver: "otlp".into(),
            peer: None,
            headers: Vec::new(),
            source_offset: None,
        };
        Batch {
            signal: Signal::Traces,
            encoding: Encoding::Otlp,
            payload: payload.into(),
            items: SPANS as u32,
            wire: None,
            meta: Arc::new(meta),
        }
    }
}

fn put_pair(out: &mut Vec<u8>, number: u32, key: &str, value: AnyValue<'_>) {
    let mut encoded = Vec::new();
    model::edit::put_value(&mut encoded, value);
    model::edit::message::put_pair(out, number, key, &encoded);
}
