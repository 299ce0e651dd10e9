//! What counts as one failure, case by case: spans and logs in, faults with their layers out.

use model::record::{EventRecord, LogRecord, SpanRecord, Value};

use crate::faults::{MAX_FAULTS, MAX_SEEN_IN, faults};
use crate::story::Fault;
use crate::testing::{attributes, log, resource, span, span_id};
use crate::tree::Tree;

const STATUS_OK: u8 = 1;
const STATUS_ERROR: u8 = 2;
const MS: u64 = 1_000_000;

fn exception(kind: &str, message: &str, at: u64) -> EventRecord {
    EventRecord {
        time_unix_nano: at,
        name: "exception".into(),
        attributes: attributes(&[
            ("exception.type", kind),
            ("exception.message", message),
            ("exception.stacktrace", "at main"),
        ]),
        ..EventRecord::default()
    }
}

fn error_log(message: &str, at: u64) -> EventRecord {
    EventRecord {
        time_unix_nano: at,
        name: "error_log".into(),
        attributes: attributes(&[("log.message", message), ("error.type", "UnknownError")]),
        ..EventRecord::default()
    }
}

/// A span that failed, in ms; its status has a message where one is given.
fn failed(id: u8, parent: u8, from: u64, to: u64, message: &str) -> SpanRecord {
    SpanRecord {
        status_code: STATUS_ERROR,
        status_message: message.to_owned(),
        ..span(id, parent, from * MS, to * MS)
    }
}

/// One line per fault, `span source type: message`, with the layers behind it: ` < span message`.
fn told(found: &[Fault]) -> Vec<String> {
    let id = |id: Option<model::SpanId>| id.map_or(0, |id| id.0[7]);
    let line = |fault: &Fault| {
        let layers: String = fault
            .seen_in
            .iter()
            .map(|seen| format!(" < {} {}", id(seen.span_id), seen.message))
            .collect();
        format!(
            "{} {:?} {}: {}{layers}",
            id(fault.span_id),
            fault.source,
            fault.kind,
            fault.message
        )
    };
    found.iter().map(line).collect()
}

fn check(spans: &[SpanRecord], logs: &[LogRecord], expect: &[&str]) {
    let (found, cut) = faults(spans, &Tree::build(spans), &[], logs, 0);
    assert_eq!(told(&found), expect);
    assert_eq!(cut, 0);
}

#[test]
fn four_marks_of_one_span_are_one_fault() {
    let mut failing = failed(1, 0, 0, 50, "");
    failing.events = vec![
        error_log("the model did not answer", 40),
        exception("Timeout", "deadline of 30s passed", 40),
    ];
    check(
        &[failing],
        &[log(1, 40, 17, "the model did not answer")],
        &["1 Event Timeout: deadline of 30s passed < 1 the model did not answer"],
    );
}

#[test]
fn ancestors_that_repeat_it_or_say_nothing_are_layers() {
    let mut spans = [
        failed(1, 0, 0, 90, ""),
        failed(2, 1, 10, 80, ""),
        failed(3, 2, 20, 70, ""),
    ];
    spans[1].events = vec![exception("Refused", "no route", 75 * MS)];
    spans[2].events = vec![exception("Refused", "no route", 65 * MS)];
    check(&spans, &[], &["3 Event Refused: no route < 2 no route < 1 "]);
}

#[test]
fn a_failure_that_crosses_services_in_other_words_is_one() {
    let mut spans = [
        failed(1, 0, 0, 1000, "502: Bad Gateway"),
        failed(2, 1, 10, 990, "502 Bad Gateway"),
        failed(3, 2, 20, 980, ""),
        failed(4, 3, 30, 900, ""),
        failed(5, 4, 40, 800, ""),
    ];
    for engine in &mut spans[2..] {
        engine.resource = resource("workflow-engine");
    }
    spans[4].events = vec![exception("reqwest::Error", "connection refused", 790 * MS)];
    spans[3].events = vec![exception(
        "NodeFailed",
        "node summarise gave up: connection refused",
        801 * MS,
    )];
    // The rows are closed between the failure and what is made of it.
    let clean_up = span(6, 3, 905 * MS, 970 * MS);
    let spans: Vec<SpanRecord> = spans.into_iter().chain([clean_up]).collect();
    check(
        &spans,
        &[
            log(
                3,
                975 * MS,
                17,
                "workflow failed: node summarise gave up: connection refused",
            ),
            log(3, 979 * MS, 17, "POST /v1/execute - 502"),
            log(1, 995 * MS, 17, "the engine: upstream returned 502"),
        ],
        &["5 Event reqwest::Error: connection refused \
           < 4 node summarise gave up: connection refused \
           < 3 workflow failed: node summarise gave up: connection refused \
           < 3 POST /v1/execute - 502 < 2 502 Bad Gateway \
           < 1 the engine: upstream returned 502 < 1 502: Bad Gateway"],
    );
}

#[test]
fn words_of_their_own_right_after_the_failure_are_a_layer() {
    let spans = [
        failed(1, 0, 0, 90, "gave up after 3 tries"),
        failed(2, 1, 10, 80, "no space left"),
    ];
    check(&spans, &[], &["2 Status : no space left < 1 gave up after 3 tries"]);
}

#[test]
fn an_error_of_its_own_after_a_handled_one_stays() {
    // The cache fails, the database answers, and then the answer is not valid.
    let mut root = failed(1, 0, 0, 900, "");
    root.events = vec![exception("InvalidInvoice", "total is negative", 890 * MS)];
    let spans = [
        root,
        failed(2, 1, 10, 20, "cache is cold"),
        span(3, 1, 21 * MS, 880 * MS),
    ];
    check(
        &spans,
        &[],
        &["2 Status : cache is cold", "1 Event InvalidInvoice: total is negative"],
    );
}

#[test]
fn much_later_words_of_their_own_stay() {
    let spans = [
        failed(1, 0, 0, 5000, "quota is used up"),
        failed(2, 1, 10, 80, "no space left"),
    ];
    check(
        &spans,
        &[],
        &["2 Status : no space left", "1 Status : quota is used up"],
    );
}

#[test]
fn what_an_ancestor_said_before_is_no_layer() {
    let mut root = failed(1, 0, 0, 900, "");
    root.events = vec![exception("Timeout", "waited 300 ms for the engine", 300 * MS)];
    let spans = [root, failed(2, 1, 10, 800, "the caller has left")];
    check(
        &spans,
        &[],
        &[
            "1 Event Timeout: waited 300 ms for the engine",
            "2 Status : the caller has left",
        ],
    );
}

#[test]
fn a_span_that_ended_well_passes_nothing_on() {
    for status in [0, STATUS_OK] {
        let mut middle = span(2, 1, 10 * MS, 85 * MS);
        middle.status_code = status;
        let spans = [failed(1, 0, 0, 90, ""), middle, failed(3, 2, 20, 80, "no space left")];
        check(
            &spans,
            &[],
            &[
                "3 Status : no space left",
                "1 Status : the span ended with status ERROR and no message",
            ],
        );
    }
}

#[test]
fn a_span_without_a_status_passes_on_what_is_repeated_above_it() {
    let spans = [
        failed(1, 0, 0, 90, "saving: no space left"),
        span(2, 1, 10 * MS, 85 * MS),
        failed(3, 2, 20, 80, "no space left"),
    ];
    check(&spans, &[], &["3 Status : no space left < 1 saving: no space left"]);
}

#[test]
fn what_is_repeated_has_arrived_for_the_spans_above_too() {
    let mut served = failed(2, 1, 10, 90, "");
    served.events = vec![error_log("POST /generate - 502", 80 * MS)];
    let spans = [
        failed(1, 0, 0, 100, "502: Bad Gateway"),
        served,
        span(3, 2, 20 * MS, 75 * MS),
        failed(4, 3, 30, 70, "the model is overloaded"),
    ];
    check(
        &spans,
        &[log(2, 85 * MS, 17, "LlmError: the model is overloaded")],
        &["4 Status : the model is overloaded < 2 POST /generate - 502 \
           < 2 LlmError: the model is overloaded < 1 502: Bad Gateway"],
    );
}

#[test]
fn what_a_span_says_in_other_words_of_its_own_is_heard() {
    // The request line and the status are of one moment, so they are one mark; only one of them repeats the cause.
    let mut served = failed(1, 0, 0, 90, "the engine stumbled");
    served.events = vec![error_log("POST /execute - 500", 90 * MS)];
    let mut node = failed(3, 2, 20, 80, "");
    node.events = vec![exception("panic", "the engine stumbled", 79 * MS)];
    let spans = [served, span(2, 1, 10 * MS, 85 * MS), node];
    check(
        &spans,
        &[],
        &["3 Event panic: the engine stumbled < 1 POST /execute - 500 < 1 the engine stumbled"],
    );
}

#[test]
fn an_http_status_repeated_by_the_caller_is_a_layer() {
    let mut call = failed(2, 1, 10, 20, "the model is busy");
    call.attributes = vec![("http.response.status_code".into(), Value::Int(429))];
    let spans = [failed(1, 0, 0, 900, "LlmError: it said 429"), call];
    check(&spans, &[], &["2 Status : the model is busy < 1 LlmError: it said 429"]);
}

#[test]
fn two_failures_of_one_span_stay_two() {
    let mut failing = span(1, 0, 0, 90 * MS);
    failing.events = vec![exception("A", "first", 10), exception("B", "second", 50 * MS)];
    check(&[failing], &[], &["1 Event A: first", "1 Event B: second"]);
}

#[test]
fn siblings_and_tries_stay_apart_and_the_last_one_has_the_layers() {
    let spans = [
        failed(1, 0, 0, 60, "gave up"),
        failed(2, 1, 10, 20, "refused"),
        failed(3, 1, 30, 40, "refused"),
    ];
    check(&spans, &[], &["2 Status : refused", "3 Status : refused < 1 gave up"]);
}

#[test]
fn clocks_that_disagree_do_not_part_cause_and_layer() {
    // The callee's clock is an hour ahead.
    let ahead = 3_600_000;
    let spans = [
        failed(1, 0, 0, 90, "gave up"),
        failed(2, 1, ahead + 10, ahead + 80, "no space left"),
    ];
    let skew = [0, -((ahead * MS) as i64)];
    let (found, _) = faults(&spans, &Tree::build(&spans), &skew, &[], 0);
    assert_eq!(told(&found), ["2 Status : no space left < 1 gave up"]);
}

#[test]
fn an_error_log_without_its_span_is_told() {
    check(&[], &[log(9, 5, 17, "lost"), log(9, 6, 9, "fine")], &["9 Log : lost"]);
    assert_eq!(span_id(9).0[7], 9);
}

#[test]
fn a_chain_in_which_all_fails_is_one_fault_and_counts_its_layers() {
    let mut spans = Vec::new();
    for i in 1..=5_000u64 {
        let mut link = failed(1, 0, i, 10_000 - i, "no space left");
        link.span_id = model::SpanId(i.to_be_bytes());
        link.parent_span_id = (i > 1).then(|| model::SpanId((i - 1).to_be_bytes()));
        spans.push(link);
    }
    let (found, cut) = faults(&spans, &Tree::build(&spans), &[], &[], 0);
    assert_eq!((found.len(), cut), (1, 0));
    assert_eq!(found[0].span_id, Some(model::SpanId(5_000u64.to_be_bytes())));
    assert_eq!(found[0].seen_in.len(), MAX_SEEN_IN);
    assert_eq!(found[0].seen_in_cut, 4_999 - MAX_SEEN_IN);
}

#[test]
fn what_the_bound_leaves_out_is_counted() {
    let mut spans = vec![span(1, 0, 0, 90 * MS)];
    for i in 0..1_500u64 {
        let mut item = failed(2, 1, i, i + 1, &format!("item {i} was refused"));
        item.span_id = model::SpanId((1_000 + i).to_be_bytes());
        spans.push(item);
    }
    let (found, cut) = faults(&spans, &Tree::build(&spans), &[], &[], 0);
    assert_eq!((found.len(), cut), (MAX_FAULTS, 500));
}
