//! Why: each policy, each mistake and each bound is a case of its own here; what holds for all streams stands in `streams`.

mod streams;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as ProtoSpan, Status};
use prost::Message;

use super::*;
use crate::config::{Config as Configuration, Source};
use crate::stage::MakeStage;
use crate::testing::{meta, pairs, traces, with_meta};

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_700_000_000 * SECOND;

fn try_make(settings: &str) -> Result<MakeStage, Problems> {
    let text = format!("processors:\n  tail_sampling: {settings}\n");
    let config = Configuration::load(vec![Source::new("test.yaml", text)], &|_| None)?;
    match parse(&config.section(&config.processors[0]))? {
        Step::Stage(make) => Ok(make),
        Step::InRequest(_) | Step::Take(_) => panic!("it holds data"),
    }
}

fn make(settings: &str) -> MakeStage {
    match try_make(settings) {
        Ok(make) => make,
        Err(problems) => panic!("{problems}"),
    }
}

/// A span of trace 1 from 0 to 1 ms.
fn span() -> ProtoSpan {
    ProtoSpan {
        trace_id: id(1).0.to_vec(),
        span_id: vec![1; 8],
        parent_span_id: vec![2; 8],
        name: "GET /".into(),
        start_time_unix_nano: START,
        end_time_unix_nano: START + 1_000_000,
        ..ProtoSpan::default()
    }
}

fn id(trace: u64) -> TraceId {
    TraceId(u128::from(trace).to_be_bytes())
}

fn value(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn request(resource: Vec<KeyValue>, spans: Vec<ProtoSpan>, arrived_at_unix_nano: u64) -> Batch {
    let items = spans.len() as u32;
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: resource,
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    let batch = crate::testing::spans([]).edited(request.encode_to_vec(), items);
    let meta = model::Meta {
        received_at_unix_nano: arrived_at_unix_nano,
        ..(*meta()).clone()
    };
    with_meta(&batch, meta)
}

/// Shows a stage all batches, then has it take them.
fn run(stage: &mut dyn Stage, batches: &[Batch]) -> Vec<Batch> {
    let mut out = Vec::new();
    batches.iter().for_each(|batch| stage.see(batch));
    batches.iter().for_each(|batch| stage.take(batch.clone(), &mut out));
    out
}

fn keeps(policies: &str, resource: Vec<KeyValue>, spans: Vec<ProtoSpan>) -> bool {
    let mut stage = make(&format!("{{ policies: [{policies}] }}"))();
    let items = spans.len();
    let out = run(&mut *stage, &[request(resource, spans, START)]);
    let kept: u32 = out.iter().map(|batch| batch.items).sum();
    assert!(kept == 0 || kept as usize == items, "a trace goes as a whole");
    kept > 0
}

#[test]
fn each_policy_keeps_what_it_says() {
    let with = |attributes: Vec<KeyValue>| ProtoSpan { attributes, ..span() };
    let int = |number| vec![with(vec![value("n", Value::IntValue(number))])];
    let text = |text: &str| vec![with(pairs(&[("other", "x"), ("k", text)]))];
    let status = |code| {
        vec![
            span(),
            ProtoSpan {
                status: Some(Status {
                    code,
                    ..Status::default()
                }),
                ..span()
            },
        ]
    };
    let lasting = |millis: u64| {
        vec![
            span(),
            ProtoSpan {
                start_time_unix_nano: START + (millis - 1) * 1_000_000,
                end_time_unix_nano: START + millis * 1_000_000,
                ..span()
            },
        ]
    };
    let state = |state: &str| {
        vec![ProtoSpan {
            trace_state: state.into(),
            ..span()
        }]
    };
    let flags = |flags| vec![ProtoSpan { flags, ..span() }];
    let event = |name: &str| {
        let event = Event {
            name: name.into(),
            ..Event::default()
        };
        vec![ProtoSpan {
            events: vec![Event::default(), event],
            ..span()
        }]
    };
    let many = |count: usize| vec![span(); count];
    let latency = "{name: p, type: latency, latency: {threshold_ms: 100}}";
    let between = "{name: p, type: latency, latency: {threshold_ms: 100, upper_threshold_ms: 200}}";
    let numeric = "{name: p, type: numeric_attribute, numeric_attribute: {key: n, min_value: 10, max_value: 20}}";
    let least = "{name: p, type: numeric_attribute, numeric_attribute: {key: n, min_value: 10}}";
    let errors = "{name: p, type: status_code, status_code: {status_codes: [ERROR]}}";
    let strict = "{name: p, type: string_attribute, string_attribute: {key: k, values: [vip, gold]}}";
    let regex = "{name: p, type: string_attribute, string_attribute: {key: k, values: ['^v.p', x+], enabled_regex_matching: true, cache_max_size: 10}}";
    let boolean = "{name: p, type: boolean_attribute, boolean_attribute: {key: b, value: true}}";
    let trace_state = "{name: p, type: trace_state, trace_state: {key: k, values: [a, b]}}";
    let trace_flags = "{name: p, type: trace_flags}";
    let count = "{name: p, type: span_count, span_count: {min_spans: 2, max_spans: 3}}";
    let ottl = r#"{name: p, type: ottl_condition, ottl_condition: {error_mode: ignore, span: ['attributes["k"] == "vip"', 'name == "nothing"'], spanevent: ['name == "exception"']}}"#;
    let bytes = "{name: p, type: bytes_limiting, bytes_limiting: {bytes_per_second: 1, burst_capacity: 200}}";
    let rate = "{name: p, type: rate_limiting, rate_limiting: {spans_per_second: 2}}";
    for (policy, spans, expect) in [
        ("{name: p, type: always_sample}", many(1), true),
        (latency, lasting(99), false),
        (latency, lasting(100), true),
        (between, lasting(100), false),
        (between, lasting(101), true),
        (between, lasting(200), true),
        (between, lasting(201), false),
        (numeric, int(9), false),
        (numeric, int(10), true),
        (numeric, int(20), true),
        (numeric, int(21), false),
        (numeric, text("15"), false),
        (numeric, vec![with(vec![value("n", Value::DoubleValue(15.5))])], true),
        (
            numeric,
            vec![with(vec![value("n", Value::StringValue("15".into()))])],
            false,
        ),
        (least, int(i64::MAX), true),
        (errors, status(2), true),
        (errors, status(1), false),
        (errors, status(99), false),
        (errors, status(-1), false),
        (strict, text("vip"), true),
        (strict, text("vip2"), false),
        (strict, text(""), false),
        (regex, text("the vip"), false),
        (regex, text("vap!"), true),
        (regex, text("axx"), true),
        (boolean, vec![with(vec![value("b", Value::BoolValue(true))])], true),
        (boolean, vec![with(vec![value("b", Value::BoolValue(false))])], false),
        (boolean, text("true"), false),
        (trace_state, state("x=1, k=b"), true),
        (trace_state, state("k=c"), false),
        (trace_state, state("kk=a,k"), false),
        (trace_flags, flags(1), true),
        (trace_flags, flags(0x100), false),
        (count, many(1), false),
        (count, many(2), true),
        (count, many(3), true),
        (count, many(4), false),
        (ottl, text("vip"), true),
        (ottl, text("else"), false),
        (ottl, event("exception"), true),
        (ottl, event("retry"), false),
        (rate, many(4), true),
        (rate, many(5), false),
        (bytes, many(2), true),
        (bytes, many(20), false),
    ] {
        assert_eq!(keeps(policy, Vec::new(), spans.clone()), expect, "{policy} {spans:?}");
    }
}

#[test]
fn attributes_of_the_resource_count_as_those_of_its_spans() {
    for (policy, expect) in [
        (
            "{name: p, type: string_attribute, string_attribute: {key: service.name, values: [shop]}}",
            true,
        ),
        (
            "{name: p, type: string_attribute, string_attribute: {key: service.name, values: [cart]}}",
            false,
        ),
        (
            r#"{name: p, type: ottl_condition, ottl_condition: {span: ['resource.attributes["service.name"] == "shop"']}}"#,
            true,
        ),
    ] {
        assert_eq!(
            keeps(policy, pairs(&[("service.name", "shop")]), vec![span()]),
            expect,
            "{policy}"
        );
    }
}

#[test]
fn verdicts_are_weighed_as_the_collector_does() {
    const YES: &str = "{name: yes, type: always_sample}";
    const NO: &str = "{name: no, type: span_count, span_count: {min_spans: 9}}";
    const INVERTED: &str =
        "{name: inv, type: string_attribute, string_attribute: {key: k, values: [secret], invert_match: true}}";
    const DROP: &str = "{name: drop, type: drop, drop: {drop_sub_policy: [{name: a, type: string_attribute, string_attribute: {key: k, values: [secret]}}, {name: b, type: span_count, span_count: {min_spans: 1}}]}}";
    const NOT: &str = "{name: not, type: not, not: {not_sub_policy: {name: a, type: string_attribute, string_attribute: {key: k, values: [secret]}}}}";
    const AND: &str = "{name: and, type: and, and: {and_sub_policy: [{name: a, type: span_count, span_count: {min_spans: 1}}, {name: b, type: not, not: {not_sub_policy: {name: c, type: string_attribute, string_attribute: {key: k, values: [secret], invert_match: true}}}}]}}";
    let secret = || {
        vec![ProtoSpan {
            attributes: pairs(&[("k", "secret")]),
            ..span()
        }]
    };
    let plain = || vec![span()];
    for (policies, spans, expect) in [
        (&[YES, NO][..], plain(), true),
        (&[NO], plain(), false),
        (&[INVERTED], plain(), true),
        (&[INVERTED], secret(), false),
        (&[INVERTED, NO], plain(), false),
        (&[INVERTED, YES, NO], plain(), true),
        (&[YES, INVERTED], secret(), false),
        (&[YES, DROP], plain(), true),
        (&[YES, DROP], secret(), false),
        (&[NOT], plain(), true),
        (&[NOT], secret(), false),
        (&[AND], secret(), true),
        (&[AND], plain(), false),
    ] {
        let list = policies.join(", ");
        assert_eq!(keeps(&list, Vec::new(), spans.clone()), expect, "{list} {spans:?}");
    }
    // The first that wants it ends the asking, except that dropping goes first.
    let first = |policies: &str, spans| {
        let mut stage = make(&format!("{{ sample_on_first_match: true, policies: [{policies}] }}"))();
        !run(&mut *stage, &[request(Vec::new(), spans, START)]).is_empty()
    };
    assert!(first(&[YES, INVERTED].join(", "), secret()));
    assert!(!first(&[INVERTED, YES].join(", "), secret()));
    assert!(!first(&[YES, DROP].join(", "), secret()));
}

#[test]
fn a_share_is_the_one_that_the_collector_chooses() {
    // The published check values of FNV-1a.
    assert_eq!(policies::hash_of("", b"a"), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(policies::hash_of("foo", b"bar"), 0x8594_4171_f739_67e8);
    let kept = (1..=1000u64).filter(|trace| {
        let spread = u128::from(*trace).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let spans = vec![ProtoSpan {
            trace_id: spread.to_be_bytes().to_vec(),
            ..span()
        }];
        keeps(
            "{name: p, type: probabilistic, probabilistic: {sampling_percentage: 30}}",
            Vec::new(),
            spans,
        )
    });
    let kept = kept.count();
    assert!((250..350).contains(&kept), "{kept} of 1000");
    let with = |share: &str| {
        keeps(
            &format!("{{name: p, type: probabilistic, probabilistic: {{sampling_percentage: {share}}}}}"),
            Vec::new(),
            vec![span()],
        )
    };
    assert!(with("100") && with("250") && !with("0"));
}

#[test]
fn a_composite_gives_each_its_share_of_a_second() {
    let policies = "{name: c, type: composite, composite: {max_total_spans_per_second: 10, policy_order: [errors, rest], \
        composite_sub_policy: [{name: rest, type: always_sample}, {name: errors, type: status_code, status_code: {status_codes: [ERROR]}}], \
        rate_allocation: [{policy: errors, percent: 80}]}}";
    let mut stage = make(&format!("{{ policies: [{policies}] }}"))();
    let trace = |trace: u64, is_error: bool, second: u64| {
        let status = is_error.then(|| Status {
            code: 2,
            ..Status::default()
        });
        let spans = vec![
            ProtoSpan {
                trace_id: id(trace).0.to_vec(),
                status,
                ..span()
            };
            3
        ];
        request(Vec::new(), spans, START + second * SECOND)
    };
    let mut batches = Vec::new();
    for second in 0..2 {
        // Of 8 for errors there is room for two traces; the third is the first's share's end, not the rest's. Of 5 for the rest, and 10 in all, for one.
        for (nth, is_error) in [(1, true), (2, false), (3, true), (4, true), (5, false)] {
            batches.push(trace(second * 10 + nth, is_error, second));
        }
    }
    let out = run(&mut *stage, &batches);
    let kept: Vec<u64> = out.iter().map(|batch| trace_ids(batch)[0]).collect();
    assert_eq!(kept, [1, 2, 3, 11, 12, 13]);
}

fn trace_ids(batch: &Batch) -> Vec<u64> {
    let spans = traces(batch)
        .resource_spans
        .into_iter()
        .flat_map(|resource| resource.scope_spans);
    spans
        .flat_map(|scope| scope.spans)
        .map(|span| u128::from_be_bytes(span.trace_id.try_into().expect("16 bytes")) as u64)
        .collect()
}

#[test]
fn late_spans_follow_the_decision_and_never_change_it() {
    let policies =
        "{ decision_wait: 10s, policies: [{name: e, type: status_code, status_code: {status_codes: [ERROR]}}] }";
    let error = |trace: u64| ProtoSpan {
        status: Some(Status {
            code: 2,
            ..Status::default()
        }),
        trace_id: id(trace).0.to_vec(),
        ..span()
    };
    let plain = |trace: u64| ProtoSpan {
        trace_id: id(trace).0.to_vec(),
        ..span()
    };
    let batches = [
        request(Vec::new(), vec![plain(1), plain(2)], START),
        request(Vec::new(), vec![error(2)], START + 10 * SECOND),
        // Too late for trace 1, and what is late of trace 2 goes on.
        request(Vec::new(), vec![error(1), plain(2)], START + 11 * SECOND),
    ];
    // Whether it is seen long before or only after the decision.
    let mut ahead = make(policies)();
    let out = run(&mut *ahead, &batches);
    assert_eq!(
        out.iter().map(trace_ids).collect::<Vec<_>>(),
        [vec![2], vec![2], vec![2]]
    );
    let mut behind = make(policies)();
    let mut out = Vec::new();
    behind.see(&batches[0]);
    behind.see(&batches[1]);
    behind.take(batches[0].clone(), &mut out);
    behind.see(&batches[2]);
    behind.take(batches[1].clone(), &mut out);
    behind.take(batches[2].clone(), &mut out);
    assert_eq!(
        out.iter().map(trace_ids).collect::<Vec<_>>(),
        [vec![2], vec![2], vec![2]]
    );
}

#[test]
fn what_comes_later_than_asked_for_after_the_root_does_not_count() {
    let settings = "{ decision_wait: 30s, decision_wait_after_root_received: 2s, policies: [{name: e, type: status_code, status_code: {status_codes: [ERROR]}}] }";
    let error = || ProtoSpan {
        status: Some(Status {
            code: 2,
            ..Status::default()
        }),
        ..span()
    };
    let root = || ProtoSpan {
        parent_span_id: Vec::new(),
        ..span()
    };
    let kept = |after: u64| {
        let batches = [
            request(Vec::new(), vec![root()], START),
            request(Vec::new(), vec![error()], START + after * SECOND),
        ];
        run(&mut *make(settings)(), &batches).len()
    };
    assert_eq!((kept(2), kept(3)), (2, 0));
}

#[test]
fn without_a_wait_each_batch_is_decided_about_as_it_comes() {
    let mut stage =
        make("{ decision_wait: 0s, policies: [{name: e, type: status_code, status_code: {status_codes: [ERROR]}}] }")();
    assert!(stage.delay().is_zero());
    let error = ProtoSpan {
        status: Some(Status {
            code: 2,
            ..Status::default()
        }),
        ..span()
    };
    let mut out = Vec::new();
    stage.take(request(Vec::new(), vec![span(), error], START), &mut out);
    assert_eq!(out[0].items, 2);
}

#[test]
fn beyond_num_traces_the_oldest_is_decided_about_early_and_memory_is_bounded() {
    let root = Budget::root("process", 64 << 20);
    let mut stage =
        make("{ num_traces: 100, policies: [{name: two, type: span_count, span_count: {min_spans: 2}}] }")();
    stage.start(&root);
    let book = Arc::clone(stage.book().expect("has a book"));
    // Each trace has two spans; the second comes 150 traces later, when the first has been decided about.
    let of = |trace: u64| ProtoSpan {
        trace_id: id(trace).0.to_vec(),
        ..span()
    };
    let mut batches = Vec::new();
    for trace in 1..=1000u64 {
        let mut spans = vec![of(trace), of(trace)];
        if trace % 2 == 0 {
            spans.pop();
        }
        batches.push(request(Vec::new(), spans, START));
    }
    let mut peak = 0;
    for batch in &batches {
        stage.see(batch);
        peak = peak.max(root.used_bytes());
    }
    let mut out = Vec::new();
    for batch in &batches {
        stage.take(batch.clone(), &mut out);
    }
    // Decisions older than the last hundred of each kind are forgotten, and made again from the batch at hand.
    assert_eq!(out.len(), 500);
    assert!(peak < 100_000, "{peak} bytes");
    let early = book.count(
        "otelcol_processor_tail_sampling_sampling_trace_dropped_too_early_total",
        [],
    );
    assert!(early.load(Ordering::Relaxed) >= 900);
    assert_eq!(book.drops(Signal::Traces).occurred(), [(Reason::NotSampled, 500)]);
    drop(stage);
    assert_eq!(root.used_bytes(), 0);
}

#[test]
fn where_memory_is_short_decisions_are_forgotten_and_nothing_else() {
    let root = Budget::root("process", 200_000);
    let mut stage = make("{ num_traces: 1000000, policies: [{name: all, type: always_sample}] }")();
    stage.start(&root);
    let of = |trace: u64| ProtoSpan {
        trace_id: id(trace).0.to_vec(),
        ..span()
    };
    let mut kept = 0;
    for chunk in 0..200u64 {
        let batch = request(
            Vec::new(),
            (1..=100).map(|nth| of(chunk * 100 + nth)).collect(),
            START + chunk * SECOND,
        );
        stage.see(&batch);
        let mut out = Vec::new();
        stage.take(batch, &mut out);
        kept += out.iter().map(|batch| batch.items).sum::<u32>();
    }
    assert_eq!(kept, 20_000);
    assert!(root.peak_bytes() < 1_000_000, "{} bytes", root.peak_bytes());
}

#[test]
fn a_trace_that_is_too_large_is_dropped() {
    let mut stage = make("{ maximum_trace_size_bytes: 200, policies: [{name: all, type: always_sample}] }")();
    let of = |trace: u64, count| {
        vec![
            ProtoSpan {
                trace_id: id(trace).0.to_vec(),
                ..span()
            };
            count
        ]
    };
    let out = run(
        &mut *stage,
        &[request(Vec::new(), [of(1, 2), of(2, 10)].concat(), START)],
    );
    assert_eq!(trace_ids(&out[0]), [1, 1]);
}

#[test]
fn the_collectors_readme_reads_as_it_is() {
    let all = r#"{
        decision_wait: 10s, num_traces: 100, expected_new_traces_per_sec: 10,
        decision_cache: { sampled_cache_size: 100_000, non_sampled_cache_size: 100_000 },
        policies: [
          { name: test-policy-1, type: always_sample },
          { name: test-policy-2, type: latency, latency: {threshold_ms: 5000, upper_threshold_ms: 10000} },
          { name: test-policy-3, type: numeric_attribute, numeric_attribute: {key: key1, min_value: 50, max_value: 100} },
          { name: test-policy-8, type: rate_limiting, rate_limiting: {spans_per_second: 35} },
          { name: test-policy-9, type: bytes_limiting, bytes_limiting: {bytes_per_second: 1024000, burst_capacity: 2048000} },
          { name: composite-policy-1, type: composite, composite: {
              max_total_spans_per_second: 1000, policy_order: [one, two, three],
              composite_sub_policy: [
                { name: one, type: numeric_attribute, numeric_attribute: {key: key1, min_value: 50} },
                { name: two, type: string_attribute, string_attribute: {key: key2, values: [value1, value2]} },
                { name: three, type: always_sample } ],
              rate_allocation: [ { policy: one, percent: 50 }, { policy: two, percent: 25 } ] } } ] }"#;
    make(&all.replace('\n', " "));
}

#[test]
fn mistakes_are_told() {
    for (settings, expect) in [
        ("{}", "there is no policy; no trace would be kept"),
        ("{ policies: [{name: a, type: allways_sample}] }", "allways_sample"),
        (
            "{ policies: [{name: '', type: always_sample}] }",
            "a policy needs a name",
        ),
        (
            "{ policies: [{name: a, type: always_sample}, {name: a, type: always_sample}] }",
            "there are two policies `a`",
        ),
        (
            "{ policies: [{name: a, type: status_code, status_code: {status_codes: [error]}}] }",
            "`error` is no status; there are `OK`, `ERROR` and `UNSET`",
        ),
        (
            "{ policies: [{name: a, type: string_attribute, string_attribute: {key: k, values: ['('], enabled_regex_matching: true}}] }",
            "is not a pattern",
        ),
        (
            "{ policies: [{name: a, type: string_attribute, string_attribute: {values: [b]}}] }",
            "`key` is needed",
        ),
        (
            "{ policies: [{name: a, type: ottl_condition, ottl_condition: {span: ['nam == 1']}}] }",
            "nam",
        ),
        (
            "{ policies: [{name: a, type: ottl_condition}] }",
            "there is no condition",
        ),
        ("{ policies: [{name: a, type: not}] }", "`not_sub_policy` is needed"),
        ("{ policies: [{name: a, type: and}] }", "`and_sub_policy` is empty"),
        (
            "{ policies: [{name: a, type: and, and: {and_sub_policy: [{name: b, type: drop}]}}] }",
            "stand in no other policy",
        ),
        (
            "{ policies: [{name: a, type: composite, composite: {policy_order: [x], composite_sub_policy: [{name: b, type: always_sample}]}}] }",
            "there is no sub-policy `x`",
        ),
        (
            "{ policies: [{name: a, type: probabilistic, probabilistic: {sampling_percentage: -1}}] }",
            "a percentage is a number from 0",
        ),
        (
            "{ decision_wait: 2h, policies: [{name: a, type: always_sample}] }",
            "an hour at most",
        ),
        (
            "{ sampling_strategy: span-ingest, policies: [{name: a, type: always_sample}] }",
            "only `trace-complete`",
        ),
        (
            "{ num_traces: 0, policies: [{name: a, type: always_sample}] }",
            "at least one trace",
        ),
        (
            "{ decision_waits: 2s, policies: [{name: a, type: always_sample}] }",
            "unknown key `decision_waits`",
        ),
    ] {
        let problems = try_make(settings)
            .err()
            .unwrap_or_else(|| panic!("{settings} is refused"));
        let message = problems.to_string();
        assert!(message.contains(expect), "{settings}: {message}");
    }
    let many: Vec<String> = (0..129)
        .map(|nth| format!("{{name: a{nth}, type: string_attribute, string_attribute: {{key: k, values: [v]}}}}"))
        .collect();
    let problems = try_make(&format!("{{ policies: [{}] }}", many.join(", ")))
        .err()
        .expect("is refused");
    assert!(problems.to_string().contains("more than 128 conditions"));
}

/// What version 1 remembers of one limit, a trace that was kept and one that was not (`docs/format/stages.md`): what was written once is read for ever.
const REMEMBERED: &str =
    "0102000000000000000000000000ac4d32059d971700000000000000000000000000000001010000000000000000000000000000000200";

#[test]
fn what_was_remembered_once_is_read_for_ever() {
    let policies = "{name: a, type: rate_limiting, rate_limiting: {spans_per_second: 1, burst_capacity: 2}}";
    let mut stage = make(&format!("{{ policies: [{policies}] }}"))();
    let other = ProtoSpan {
        trace_id: id(2).0.to_vec(),
        ..span()
    };
    let batch = request(Vec::new(), vec![span(), span(), other], START);
    run(&mut *stage, std::slice::from_ref(&batch));
    let State::Whole(state) = stage.state(true) else {
        panic!("all of it")
    };
    let hex: String = state.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, REMEMBERED);
    let mut again = make("{ policies: [{name: none, type: span_count, span_count: {min_spans: 99}}] }")();
    again.restore(&State::Whole(state)).expect("reads");
    assert_eq!(trace_ids(&run(&mut *again, &[batch])[0]), [1, 1]);
}

#[test]
fn what_was_remembered_by_others_is_refused_or_begun_anew() {
    let with = |policies: &str| make(&format!("{{ policies: [{policies}] }}"))();
    let mut limited = with("{name: a, type: rate_limiting, rate_limiting: {spans_per_second: 1}}");
    run(&mut *limited, &[request(Vec::new(), vec![span()], START)]);
    let State::Whole(state) = limited.state(false) else {
        panic!("the first is whole")
    };
    let mut other = with("{name: a, type: always_sample}");
    other
        .restore(&State::Whole(state.clone()))
        .expect("decisions stay, limits are not its own");
    let mut damaged = state.to_vec();
    damaged[0] = 9;
    assert!(other.restore(&State::Whole(damaged.into())).is_err());
    assert!(other.restore(&State::Change(state.slice(..state.len() - 1))).is_err());
    assert!(other.restore(&State::Change(Bytes::new())).is_err());
}
