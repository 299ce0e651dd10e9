//! Why: on streams of all kinds the sampler decides as a model that holds every span, and a crash anywhere changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// A stream of small batches: for each its arrival, and for each of its spans the trace, whether it failed, how long it took and a number.
#[derive(Debug, Clone)]
struct Stream(Vec<Arrived>);

type Arrived = (u64, Vec<(u64, bool, u64, i64)>);

fn streams() -> impl Strategy<Value = Stream> {
    let span = (1u64..30, prop::bool::weighted(0.1), 0u64..200, 0i64..12);
    let batch = (0u64..4, prop::collection::vec(span, 0..6));
    prop::collection::vec(batch, 1..40).prop_map(|batches| {
        let mut at = 0;
        let batches = batches.into_iter().map(|(after, spans)| {
            at += after;
            (at, spans)
        });
        Stream(batches.collect())
    })
}

impl Stream {
    fn batches(&self) -> Vec<Batch> {
        let batches = self.0.iter().map(|(at, spans)| {
            let spans = spans
                .iter()
                .enumerate()
                .map(|(nth, (trace, failed, millis, number))| ProtoSpan {
                    trace_id: id(*trace).0.to_vec(),
                    span_id: vec![nth as u8 + 1; 8],
                    start_time_unix_nano: START + at * SECOND,
                    end_time_unix_nano: START + at * SECOND + millis * 1_000_000,
                    status: failed.then(|| Status {
                        code: 2,
                        ..Status::default()
                    }),
                    attributes: vec![value("n", Value::IntValue(*number))],
                    ..span()
                });
            request(Vec::new(), spans.collect(), START + at * SECOND)
        });
        batches.collect()
    }
}

const WAIT_SECONDS: u64 = 7;

const POLICIES: &str = r#"{ decision_wait: 7s, policies: [
    {name: errors, type: status_code, status_code: {status_codes: [ERROR]}},
    {name: drop, type: drop, drop: {drop_sub_policy: [{name: n, type: numeric_attribute, numeric_attribute: {key: n, min_value: 11}}]}},
    {name: both, type: and, and: {and_sub_policy: [
        {name: slow, type: latency, latency: {threshold_ms: 3000}},
        {name: many, type: span_count, span_count: {min_spans: 3}},
        {name: even, type: ottl_condition, ottl_condition: {span: ['attributes["n"] == 4']}}]}},
    {name: some, type: rate_limiting, rate_limiting: {spans_per_second: 1, burst_capacity: 4}} ] }"#;

/// What stays of each batch, by a model that holds every span and decides with all that arrived in time.
fn naive(stream: &Stream) -> Vec<Vec<u64>> {
    let first = |trace: u64| {
        let (at, _) = stream
            .0
            .iter()
            .find(|(_, spans)| spans.iter().any(|span| span.0 == trace))
            .expect("is there");
        *at
    };
    let mut order = Vec::new();
    for (_, spans) in &stream.0 {
        for span in spans {
            if !order.contains(&span.0) {
                order.push(span.0);
            }
        }
    }
    let (mut tokens, mut filled_at) = (4.0f64, 0u64);
    let mut kept = BTreeSet::new();
    for trace in order {
        let from = first(trace);
        let in_time = stream.0.iter().filter(|(at, _)| *at <= from + WAIT_SECONDS);
        let spans: Vec<_> = in_time
            .flat_map(|(at, spans)| spans.iter().map(move |span| (*at, *span)))
            .filter(|(_, span)| span.0 == trace)
            .collect();
        if spans.iter().any(|(_, span)| span.3 == 11) {
            continue;
        }
        let starts = spans.iter().map(|(at, _)| at * 1000).min().expect("spans");
        let ends = spans.iter().map(|(at, span)| at * 1000 + span.2).max().expect("spans");
        let both = ends - starts >= 3000 && spans.len() >= 3 && spans.iter().any(|(_, span)| span.3 == 4);
        let now = START / SECOND + from + WAIT_SECONDS;
        tokens = (tokens + (now - filled_at) as f64).min(4.0);
        filled_at = now;
        let rate = spans.len() as f64 <= tokens;
        if rate {
            tokens -= spans.len() as f64;
        }
        if spans.iter().any(|(_, span)| span.1) || both || rate {
            kept.insert(trace);
        }
    }
    let of = |(_, spans): &Arrived| {
        spans
            .iter()
            .map(|span| span.0)
            .filter(|trace| kept.contains(trace))
            .collect()
    };
    stream.0.iter().map(of).collect()
}

/// Runs a stage over batches, seeing `ahead` seconds more than it must. At each of `ends` (counted in takes) the process ends without a word; what was committed, every
/// few takes, is what there is afterwards.
fn run_with_crashes(
    make: &MakeStage,
    batches: &[Batch],
    ahead: u64,
    every: usize,
    ends: &[usize],
) -> BTreeMap<usize, Vec<u64>> {
    let at = |batch: &Batch| batch.meta.received_at_unix_nano;
    let mut committed: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    let mut states: Vec<State> = Vec::new();
    let (mut position, mut takes) = (0, 0);
    let mut ends = ends.iter().copied().collect::<BTreeSet<_>>();
    'process: loop {
        let mut stage = make();
        states.iter().for_each(|state| stage.restore(state).expect("reads"));
        let mut pending: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        let mut seen = position;
        for (index, batch) in batches.iter().enumerate().skip(position) {
            while let Some(next) = batches.get(seen)
                && at(next) <= at(batch) + (WAIT_SECONDS + ahead) * SECOND
            {
                stage.see(next);
                seen += 1;
            }
            let mut out = Vec::new();
            stage.take(batch.clone(), &mut out);
            pending.insert(index, out.iter().flat_map(trace_ids).collect());
            takes += 1;
            if ends.remove(&takes) {
                continue 'process;
            }
            if takes % every == 0 {
                match stage.state(false) {
                    whole @ State::Whole(_) => states = vec![whole],
                    change @ State::Change(_) => states.push(change),
                }
                committed.append(&mut pending);
                position = index + 1;
            }
        }
        committed.append(&mut pending);
        return committed;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn it_decides_as_one_that_holds_every_span(stream in streams(), ahead in 0u64..20) {
        let make = make(&POLICIES.replace('\n', " "));
        let kept = run_with_crashes(&make, &stream.batches(), ahead, 3, &[]);
        let kept: Vec<Vec<u64>> = kept.into_values().collect();
        prop_assert_eq!(kept, naive(&stream));
    }

    #[test]
    fn a_crash_anywhere_changes_no_decision(
        stream in streams(),
        ahead in 0u64..20,
        every in 1usize..5,
        ends in prop::collection::vec(1usize..60, 0..4),
    ) {
        let make = make(&POLICIES.replace('\n', " "));
        let undisturbed = run_with_crashes(&make, &stream.batches(), ahead, every, &[]);
        let crashed = run_with_crashes(&make, &stream.batches(), ahead, every, &ends);
        prop_assert_eq!(undisturbed, crashed);
    }

    #[test]
    fn no_bytes_that_are_remembered_break_it(bytes in prop::collection::vec(any::<u8>(), 0..200), versioned: bool) {
        let mut bytes = bytes;
        if versioned && bytes.len() > 4 {
            bytes[..5].copy_from_slice(&[STATE_VERSION, 1, 0, 0, 0]);
        }
        let mut stage = make("{ policies: [{name: a, type: bytes_limiting, bytes_limiting: {bytes_per_second: 1}}] }")();
        let _ = stage.restore(&State::Whole(bytes.clone().into()));
        let _ = stage.restore(&State::Change(bytes.into()));
        run(&mut *stage, &[request(Vec::new(), vec![span()], START)]);
    }

    /// What is not canonical may be read as anything, and breaks nothing.
    #[test]
    fn no_payload_breaks_it(payload in prop::collection::vec(any::<u8>(), 0..300)) {
        let batch = crate::testing::spans([]).edited(payload, 1);
        let mut stage = make(&POLICIES.replace('\n', " "))();
        run(&mut *stage, &[batch]);
    }
}
