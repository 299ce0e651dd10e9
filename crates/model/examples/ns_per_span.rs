//! What a span costs at the door and behind it, in nanoseconds: `cargo run --release -p model --example ns_per_span`.
//! One number a line; nothing is asserted.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use model::canonical::canonicalize;
use model::edit::{self, Level};
use model::view::{AnyValue, traces};
use model::wire::{put_bytes, put_fixed32, put_fixed64, put_message, put_tag, put_varint};
use model::{Batch, Meta, Signal};

/// Spans in a request, as SDKs' batches have them.
const SPANS: u64 = 1000;

fn main() {
    // For a profiler: the number of rounds, and how the only line to run begins.
    let rounds = std::env::args()
        .nth(1)
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(500);
    let only = std::env::args().nth(2).unwrap_or_default();
    let time = |what: &str, run: &mut dyn FnMut()| {
        if what.starts_with(&only) {
            measure(what, rounds, run);
        }
    };
    let payload = request();
    println!("{} bytes a span", payload.len() as u64 / SPANS);
    let canonical = canonicalize(Signal::Traces, payload.clone()).expect("the request is legal");
    assert!(!canonical.rewritten && u64::from(canonical.items) == SPANS);
    let meta = Meta {
        received_at_unix_nano: 0,
        receiver: "otlp".into(),
        peer: None,
        headers: Vec::new(),
        source_offset: None,
    };
    let batch = Batch::from_canonical(Signal::Traces, canonical, None, Arc::new(meta));

    time("validate", &mut || {
        drop(black_box(canonicalize(Signal::Traces, payload.clone())))
    });
    time("view: scalars", &mut || {
        black_box(traces::spans(&payload).fold(0, |sum, span| sum ^ span.end_unix_nano));
    });
    time("view: scalars, attributes and events", &mut || {
        black_box(traces::spans(&payload).fold(0, |sum, span| sum ^ read(&span)));
    });
    time("edit: upsert a resource attribute", &mut || {
        let upsert = |changes: &mut edit::Changes| changes.set("environment", AnyValue::Str("dev"));
        black_box(edit::edit_attributes(&batch, Level::Resource, |_, changes| {
            upsert(changes)
        }));
    });
    time("edit: upsert a span attribute", &mut || {
        let upsert = |changes: &mut edit::Changes| changes.set("http.route", AnyValue::Str("/"));
        black_box(edit::edit_attributes(&batch, Level::Item, |_, changes| upsert(changes)));
    });
    time("edit: select every second span", &mut || {
        drop(black_box(edit::select(&batch, |index| index % 2 == 0)))
    });
    time("edit: split in ten", &mut || {
        drop(black_box(edit::split(&batch, (SPANS / 10) as u32, usize::MAX)))
    });

    // A singular field given twice in the first span sends the whole request down the slow path.
    let mut scrambled = Vec::new();
    put_bytes(&mut scrambled, 1, &[0x12, 8, 0x12, 6, 0x2a, 1, b'a', 0x2a, 1, b'b']);
    scrambled.extend_from_slice(&payload);
    let scrambled = Bytes::from(scrambled);
    time("rewrite: validate first", &mut || {
        drop(black_box(canonicalize(Signal::Traces, scrambled.clone())))
    });

    // What a hostile sender can make of it: every span says a hundred keys twice.
    let doubled = doubled();
    time("rewrite: a hundred keys twice", &mut || {
        drop(black_box(canonicalize(Signal::Traces, doubled.clone())))
    });
}

/// Spans of a hundred attributes, each given twice.
fn doubled() -> Bytes {
    let mut scope_spans = Vec::new();
    for index in 1..=SPANS {
        let mut span = Vec::new();
        put_bytes(&mut span, 1, &u128::from(index).to_be_bytes());
        put_bytes(&mut span, 2, &index.to_be_bytes());
        for key in 0..200 {
            text(&mut span, 9, &format!("key.{}", key % 100), "value");
        }
        put_bytes(&mut scope_spans, 2, &span);
    }
    let mut resource_spans = Vec::new();
    put_bytes(&mut resource_spans, 2, &scope_spans);
    let mut request = Vec::new();
    put_bytes(&mut request, 1, &resource_spans);
    Bytes::from(request)
}

/// Touches everything that an ingest needs.
fn read(span: &traces::Span<'_>) -> u64 {
    let mut sum = span.start_unix_nano ^ span.name.len() as u64 ^ u64::from(span.trace_id.0[3]);
    for pair in span.attributes {
        sum ^= pair.key.len() as u64;
        sum ^= match pair.value {
            AnyValue::Str(text) => text.len() as u64,
            AnyValue::Int(value) => value as u64,
            _ => 1,
        };
    }
    for event in span.events {
        sum ^= event.time_unix_nano;
    }
    sum
}

fn measure(what: &str, rounds: u32, run: &mut dyn FnMut()) {
    run();
    let start = Instant::now();
    for _ in 0..rounds {
        run();
    }
    let ns = start.elapsed().as_nanos() as f64 / f64::from(rounds.max(1)) / SPANS as f64;
    println!("{ns:7.1} ns a span  {what}");
}

fn text(out: &mut Vec<u8>, number: u32, key: &str, value: &str) {
    let pair = |out: &mut Vec<u8>| {
        put_bytes(out, 1, key.as_bytes());
        put_message(out, 2, 0, |out| {
            put_bytes(out, 1, value.as_bytes());
            Ok::<(), ()>(())
        })
    };
    put_message(out, number, 0, pair).expect("cannot fail");
}

fn integer(out: &mut Vec<u8>, number: u32, key: &str, value: u64) {
    let pair = |out: &mut Vec<u8>| {
        put_bytes(out, 1, key.as_bytes());
        put_message(out, 2, 0, |out| {
            put_tag(out, 3, 0);
            put_varint(out, value);
            Ok::<(), ()>(())
        })
    };
    put_message(out, number, 0, pair).expect("cannot fail");
}

/// Spans of some 600 bytes with 12 attributes, one in eight with an event.
fn request() -> Bytes {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut resource = Vec::new();
    text(&mut resource, 1, "service.name", "workflow-engine");
    text(
        &mut resource,
        1,
        "service.instance.id",
        "workflow-engine-7d9f6c5b8-x2x4q",
    );
    text(&mut resource, 1, "telemetry.sdk.language", "rust");
    text(&mut resource, 1, "environment", "production");
    let mut scope = Vec::new();
    put_bytes(&mut scope, 1, b"workflow_engine::http");
    let mut scope_spans = Vec::new();
    put_bytes(&mut scope_spans, 1, &scope);
    for index in 0..SPANS {
        let mut span = Vec::new();
        put_bytes(
            &mut span,
            1,
            &(u128::from(next()) << 64 | u128::from(next())).to_be_bytes(),
        );
        put_bytes(&mut span, 2, &next().to_be_bytes());
        put_bytes(&mut span, 4, &next().to_be_bytes());
        put_bytes(&mut span, 5, b"POST /api/v1/workflows/{id}/execute");
        put_tag(&mut span, 6, 0);
        put_varint(&mut span, 2);
        put_fixed64(&mut span, 7, 1_700_000_000_000_000_000 + index);
        put_fixed64(&mut span, 8, 1_700_000_000_000_000_000 + index + next() % 1_000_000);
        text(&mut span, 9, "http.request.method", "POST");
        text(&mut span, 9, "http.route", "/api/v1/workflows/{id}/execute");
        text(
            &mut span,
            9,
            "url.path",
            &format!("/api/v1/workflows/{:08x}/execute", next() as u32),
        );
        integer(&mut span, 9, "http.response.status_code", 200);
        integer(&mut span, 9, "server.port", 8002);
        text(&mut span, 9, "server.address", "workflow-engine.internal");
        text(
            &mut span,
            9,
            "user_agent.original",
            "trackline-load/1.0 (linux; x86_64)",
        );
        text(
            &mut span,
            9,
            "client.address",
            &format!("10.0.{}.{}", next() % 256, next() % 256),
        );
        text(&mut span, 9, "network.protocol.version", "1.1");
        text(&mut span, 9, "session.id", &format!("{:016x}", next()));
        text(&mut span, 9, "thread.name", "tokio-runtime-worker");
        integer(&mut span, 9, "code.line.number", next() % 1000);
        if index % 8 == 0 {
            let mut event = Vec::new();
            put_fixed64(&mut event, 1, 1_700_000_000_000_000_000 + index);
            put_bytes(&mut event, 2, b"exception");
            text(&mut event, 3, "exception.type", "TimeoutError");
            text(
                &mut event,
                3,
                "exception.message",
                "the model did not answer within 30 s",
            );
            put_bytes(&mut span, 11, &event);
        }
        put_bytes(&mut span, 15, &[0x18, 1]);
        put_fixed32(&mut span, 16, 0x101);
        put_bytes(&mut scope_spans, 2, &span);
    }
    let mut resource_spans = Vec::new();
    put_bytes(&mut resource_spans, 1, &resource);
    put_bytes(&mut resource_spans, 2, &scope_spans);
    let mut request = Vec::new();
    put_bytes(&mut request, 1, &resource_spans);
    Bytes::from(request)
}
