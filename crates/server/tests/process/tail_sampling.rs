//! Kills the real process while traces wait for their decision: of each trace that was acknowledged all is there afterwards, or nothing, as the policies say.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

use crate::kill::now;
use crate::running::{Ports, Server, post};

const KILLS: usize = 3;
const SENDERS: usize = 3;
/// Traces that a round waits for before its kill, so that each kill falls into load.
const TRACES_A_ROUND: usize = 60;
const SPANS_A_REQUEST: u64 = 2;
/// One in so many traces fails, in its second request.
const FAILS_EVERY: u64 = 7;
const KEPT_PERCENT: u64 = 30;
/// How long decisions may take to show; generous, because debug builds run beside other tests.
const DECIDED_WITHIN: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);

/// Of a trace: whether each of its requests was acknowledged, and whether all happened within one life of the process.
#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    acked: [bool; 2],
    in_one_life: bool,
}

#[test]
fn a_trace_is_kept_or_dropped_as_a_whole_whatever_is_killed() {
    let directory = tempfile::tempdir().expect("a directory");
    let ports = Ports::free();
    let config = directory.path().join("sampling.yaml");
    let Ports {
        http, query, health, ..
    } = ports;
    let text = format!(
        "receivers: {{ otlp: {{ protocols: {{ http: {{ endpoint: 127.0.0.1:{http} }} }} }} }}
processors:
  tail_sampling:
    decision_wait: 300ms
    policies:
      - {{ name: errors, type: status_code, status_code: {{ status_codes: [ERROR] }} }}
      - {{ name: rest, type: probabilistic, probabilistic: {{ sampling_percentage: {KEPT_PERCENT} }} }}
exporters: {{ store: }}
extensions: {{ query: {{ endpoint: 127.0.0.1:{query} }}, health_check: {{ endpoint: 127.0.0.1:{health} }} }}
service:
  extensions: [query, health_check]
  pipelines:
    traces: {{ receivers: [otlp], processors: [tail_sampling], exporters: [store] }}
"
    );
    std::fs::write(&config, text).expect("writes");
    let data = directory.path().join("data");
    let sent: Mutex<BTreeMap<u64, Sent>> = Mutex::default();
    let next = AtomicU64::new(1);
    for round in 0..KILLS {
        let server = Server::start_with(&data, ports, &config);
        let first = next.load(Ordering::Relaxed);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..SENDERS {
                scope.spawn(|| send_until(&stop, http, &next, &sent));
            }
            let deadline = Instant::now() + DECIDED_WITHIN;
            // Some of the round have been decided about by then, and some wait.
            let is_decided = |sent: &BTreeMap<u64, Sent>| {
                let mut of_round = sent.range(first..).map(|(number, _)| *number);
                of_round.any(|number| is_chosen(number) && spans_of(&server, number) > 0)
            };
            loop {
                let sent = sent.lock().expect("no sender panicked").clone();
                if sent.len() >= TRACES_A_ROUND * (round + 1) && is_decided(&sent) {
                    break;
                }
                assert!(
                    Instant::now() < deadline,
                    "nothing was decided within {DECIDED_WITHIN:?}"
                );
                std::thread::sleep(POLL);
            }
            server.kill();
            stop.store(true, Ordering::Relaxed);
        });
    }

    let server = Server::start_with(&data, ports, &config);
    // Decisions are made in the order of arrival: once a last trace shows, all before it have been made.
    let last = next.fetch_add(1, Ordering::Relaxed).next_multiple_of(FAILS_EVERY);
    for half in 0..2 {
        assert_eq!(post(http, "/v1/traces", &request(last, half)), Some(200));
    }
    let deadline = Instant::now() + DECIDED_WITHIN;
    while spans_of(&server, last) != 2 * SPANS_A_REQUEST {
        assert!(
            Instant::now() < deadline,
            "the last trace was not kept within {DECIDED_WITHIN:?}"
        );
        std::thread::sleep(POLL);
    }
    let sent = sent.into_inner().expect("no sender panicked");
    let (mut kept, mut dropped) = (0, 0);
    for (number, Sent { acked, in_one_life }) in &sent {
        let found = spans_of(&server, *number);
        let acknowledged = acked.iter().filter(|acked| **acked).count() as u64 * SPANS_A_REQUEST;
        let is_failed = number.is_multiple_of(FAILS_EVERY);
        let is_chosen = is_chosen(*number);
        // What was not acknowledged may be there all the same.
        assert!(
            found == 0 || found >= acknowledged,
            "trace {number}: {found} spans, of {acknowledged} that were acknowledged"
        );
        match (is_chosen, is_failed && acked[1]) {
            (true, _) => assert!(
                found >= acknowledged,
                "trace {number} is of the share, with {found} spans"
            ),
            (false, true) if *in_one_life => assert_eq!(found, 2 * SPANS_A_REQUEST, "trace {number} failed"),
            (false, false) if !is_failed => assert_eq!(found, 0, "trace {number} is not of the share"),
            // It failed after it may have been decided about.
            _ => {}
        }
        kept += u64::from(found > 0);
        dropped += u64::from(found == 0);
    }
    assert!(kept > 20 && dropped > 60, "{kept} kept, {dropped} dropped");
    let ledger = server.json("/api/trackline/v1/ledger");
    assert_eq!(ledger["balanced"], true, "{ledger}");
    assert_eq!(server.stop(), Some(0));
}

fn spans_of(server: &Server, number: u64) -> u64 {
    let id = u128::from_be_bytes(id(number));
    let story = server.json(&format!("/api/trackline/v1/tracking/{id:032x}"));
    story["trace"]["span_count"].as_u64().unwrap_or_default()
}

/// Sends traces in two requests each, and notes what was acknowledged.
fn send_until(stop: &AtomicBool, port: u16, next: &AtomicU64, sent: &Mutex<BTreeMap<u64, Sent>>) {
    while !stop.load(Ordering::Relaxed) {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let begun = Instant::now();
        let acked = [0, 1].map(|half| post(port, "/v1/traces", &request(number, half)) == Some(200));
        // The second request came well within the wait of the first.
        let in_one_life = !stop.load(Ordering::Relaxed) && begun.elapsed() < Duration::from_millis(150);
        if acked.contains(&true) {
            let this = Sent { acked, in_one_life };
            sent.lock().expect("no sender panicked").insert(number, this);
        }
    }
}

/// Spread, as ids are.
fn id(number: u64) -> [u8; 16] {
    u128::from(number)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
        .to_be_bytes()
}

/// Whether the Collector's sampler would choose it: FNV-1a of its default salt and the id, against the share of all hashes.
fn is_chosen(number: u64) -> bool {
    let bytes = b"default-hash-seed".iter().copied().chain(id(number));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash <= u64::MAX / 100 * KEPT_PERCENT
}

fn request(number: u64, half: u64) -> Vec<u8> {
    let start = now();
    let spans = (0..SPANS_A_REQUEST).map(|nth| Span {
        trace_id: id(number).to_vec(),
        span_id: (1 + half * SPANS_A_REQUEST + nth).to_be_bytes().to_vec(),
        parent_span_id: if half + nth == 0 {
            Vec::new()
        } else {
            1u64.to_be_bytes().to_vec()
        },
        name: format!("span {nth} of half {half}"),
        start_time_unix_nano: start,
        end_time_unix_nano: start + 1_000,
        status: (half == 1 && number.is_multiple_of(FAILS_EVERY)).then(|| Status {
            code: 2,
            ..Status::default()
        }),
        ..Span::default()
    });
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans: spans.collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    request.encode_to_vec()
}
