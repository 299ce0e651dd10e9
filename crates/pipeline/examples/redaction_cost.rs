//! What `redaction` costs with all ready-made sets: `cargo run --release -p pipeline --example redaction_cost [ROUNDS]`. Megabytes of attribute text a second of one
//! thread, on spans as services write them, once without anything to find and once with something in every tenth span.

use std::sync::Arc;
use std::time::Instant;

use model::wire::{put_bytes, put_fixed64};
use model::{Batch, Encoding, Meta, Signal};
use pipeline::Processor;
use pipeline::config::{Config, Source};
use pipeline::processors::{Step, redaction};

const SETTINGS: &str = "processors:
  redaction: { presets: [email, phone, ssn, card, bearer, aws_key, jwt, password] }
";
const SPANS: u64 = 1000;

fn main() {
    let rounds: u64 = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(300);
    let config = Config::load(vec![Source::new("cost.yaml", SETTINGS)], &|_| None).expect("reads");
    let Ok(Step::InRequest(processor)) = redaction::parse(&config.section(&config.processors[0])) else {
        unreachable!("redaction runs in the request");
    };
    for (what, every) in [("nothing to find", u64::MAX), ("something in every tenth span", 10)] {
        let (batch, text_bytes) = spans(every);
        // Patterns compile their states as they meet text.
        run(&*processor, &batch, 3);
        let started = Instant::now();
        let changed = run(&*processor, &batch, rounds);
        let seconds = started.elapsed().as_secs_f64();
        let text_mb = (text_bytes * rounds) as f64 / 1e6;
        println!(
            "{what}: {:.0} MB of attribute text a second, {:.0} ns a span of {} bytes, {} of text{}",
            text_mb / seconds,
            seconds * 1e9 / (rounds * SPANS) as f64,
            batch.payload.len() as u64 / SPANS,
            text_bytes / SPANS,
            if changed { "" } else { "; unchanged" },
        );
    }
}

/// Whether anything was changed.
fn run(processor: &dyn Processor, batch: &Batch, rounds: u64) -> bool {
    let mut changed = false;
    for _ in 0..rounds {
        let redacted = processor.process(batch.clone()).expect("redaction refuses nothing");
        changed |= redacted.payload != batch.payload;
    }
    changed
}

/// Spans, and how many bytes of attribute text they hold: values, not keys.
fn spans(found_every: u64) -> (Batch, u64) {
    let mut text_bytes = 0;
    let mut scope = Vec::new();
    for index in 0..SPANS {
        let mut span = Vec::new();
        put_bytes(&mut span, 1, &[7; 16]);
        put_bytes(&mut span, 2, &(index + 1).to_be_bytes());
        put_bytes(&mut span, 5, b"POST /api/v1/workflows/{id}/execute");
        put_fixed64(&mut span, 7, 1_700_000_000_000_000_000 + index);
        put_fixed64(&mut span, 8, 1_700_000_000_900_000_000 + index);
        let user = match index % found_every {
            0 if found_every != u64::MAX => format!("jane.doe+{index}@example.com"),
            _ => format!("user-{index:05}"),
        };
        let attributes = [
            ("user.id", user),
            ("session.id", format!("5f0c{index:04x}-9a1b-4c3d-8e2f-a1b2c3d4e5f6")),
            ("url.path", format!("/api/v1/workflows/wf-{index:06x}/execute")),
            ("http.route", "/api/v1/workflows/{id}/execute".to_owned()),
            ("http.request.method", "POST".to_owned()),
            ("server.address", "workflow-engine.internal".to_owned()),
            ("user_agent.original", "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:143.0) Gecko/20100101 Firefox/143.0".to_owned()),
            ("db.query.text", "SELECT id, workflow_id, tracking_id, status, created_at FROM workflow_executions WHERE workflow_id = $1 ORDER BY created_at DESC LIMIT $2".to_owned()),
            ("gen_ai.request.model", "gpt-4o-mini".to_owned()),
            ("tracking.id", format!("{:032x}", u128::from(index) << 77 | 0x9e37_79b9_7f4a_7c15)),
        ];
        for (key, value) in &attributes {
            text_bytes += value.len() as u64;
            let (mut any, mut pair) = (Vec::new(), Vec::new());
            put_bytes(&mut any, 1, value.as_bytes());
            put_bytes(&mut pair, 1, key.as_bytes());
            put_bytes(&mut pair, 2, &any);
            put_bytes(&mut span, 9, &pair);
        }
        put_bytes(&mut scope, 2, &span);
    }
    let (mut resource, mut payload) = (Vec::new(), Vec::new());
    put_bytes(&mut resource, 2, &scope);
    put_bytes(&mut payload, 1, &resource);
    let batch = Batch {
        signal: Signal::Traces,
        encoding: Encoding::Otlp,
        payload: payload.into(),
        items: SPANS as u32,
        wire: None,
        meta: Arc::new(Meta {
            received_at_unix_nano: 1,
            receiver: "otlp".into(),
            peer: None,
            headers: Vec::new(),
            source_offset: None,
        }),
    };
    (batch, text_bytes)
}
