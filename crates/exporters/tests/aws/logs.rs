//! `awscloudwatchlogs` against the stand-in.

use pipeline::{Exporter, Outcome, Reason};

use super::stand_in::StandIn;
use super::*;

const GROUP: &str = "/ecs/ai-teams-dev";

fn later(seconds: u64) -> Outcome {
    Outcome::retry(Duration::from_secs(seconds), Reason::BackendUnavailable)
}

#[tokio::test]
async fn groups_and_streams_are_made_as_they_are_needed() {
    let (aws, _open, address) = StandIn::open().await;
    let exporter = exporter(
        &format!("endpoint: 'http://{address}', region: us-east-1, raw_log: true, tags: {{ team: ai }}"),
        keys(),
    );
    let batch = logs("api", &[(0, r#"{"level":"INFO"}"#), (-5, "old")]);
    assert_eq!(exporter.export(batch).await, Outcome::Delivered);
    assert_eq!(
        aws.messages(GROUP, "api"),
        ["old", r#"{"level":"INFO"}"#],
        "in order of time"
    );
    {
        let mut state = aws.state();
        let calls = std::mem::take(&mut state.calls);
        let expect = [
            "PutLogEvents",
            "CreateLogStream",
            "CreateLogGroup",
            "PutRetentionPolicy",
            "PutIndexPolicy",
            "CreateLogStream",
            "PutLogEvents",
        ];
        assert_eq!(calls, expect);
        let group = &state.groups[GROUP];
        assert_eq!(
            (group.retention, &group.tags),
            (Some(7), &serde_json::json!({"team": "ai"}))
        );
        let fields = ["tracking_id", "service", "request.method", "response.status"];
        assert_eq!(group.index, Some(serde_json::json!({ "Fields": fields })));
    }
    // A second stream needs no group, and what is there needs nothing.
    assert_eq!(exporter.export(logs("engine", &[(0, "a")])).await, Outcome::Delivered);
    assert_eq!(exporter.export(logs("api", &[(0, "b")])).await, Outcome::Delivered);
    let calls = std::mem::take(&mut aws.state().calls);
    assert_eq!(
        calls,
        ["PutLogEvents", "CreateLogStream", "PutLogEvents", "PutLogEvents"]
    );
    // Somebody removes it all.
    aws.state().groups.clear();
    assert_eq!(exporter.export(logs("api", &[(0, "c")])).await, Outcome::Delivered);
    assert_eq!(aws.messages(GROUP, "api"), ["c"]);
}

#[tokio::test]
async fn what_a_group_is_to_have_may_be_refused() {
    let (aws, _open, address) = StandIn::open().await;
    let settings = format!("endpoint: 'http://{address}', region: us-east-1, log_retention: 0, index_fields: []");
    assert_eq!(
        exporter(&settings, keys()).export(logs("a", &[(0, "x")])).await,
        Outcome::Delivered
    );
    assert_eq!((aws.count("PutRetentionPolicy"), aws.count("PutIndexPolicy")), (0, 0));
    aws.state().groups.clear();
    aws.fault("PutRetentionPolicy", 503, "ServiceUnavailableException");
    aws.fault("PutIndexPolicy", 400, "AccessDeniedException");
    let settings = format!("endpoint: 'http://{address}', region: us-east-1");
    assert_eq!(
        exporter(&settings, keys()).export(logs("a", &[(0, "x")])).await,
        Outcome::Delivered
    );
    assert_eq!(aws.state().groups[GROUP].retention, Some(7), "asked again");
    assert_eq!(aws.state().groups[GROUP].index, None);
}

#[tokio::test]
async fn a_large_batch_goes_as_several_requests_and_only_what_is_open_is_repeated() {
    let (aws, _open, address) = StandIn::open().await;
    let exporter = exporter(
        &format!("endpoint: 'http://{address}', region: us-east-1, raw_log: true"),
        keys(),
    );
    let texts: Vec<String> = (0..12).map(|at| format!("{at}:{}", "x".repeat(250_000))).collect();
    let records: Vec<(i64, &str)> = texts.iter().map(|text| (0, text.as_str())).collect();
    let batch = logs("api", &records);
    // The stream is there, so that faults meet the requests in between.
    assert_eq!(exporter.export(logs("api", &[(0, "first")])).await, Outcome::Delivered);
    aws.state().calls.clear();
    aws.state().faults.extend([
        ("PutLogEvents", 400, "ThrottlingException"),
        ("PutLogEvents", 503, "ServiceUnavailableException"),
    ]);
    assert_eq!(exporter.export(batch.clone()).await, later(0));
    assert_eq!(exporter.export(batch.clone()).await, later(0));
    // One passes, the next does not.
    let before = aws.messages(GROUP, "api").len();
    aws.state().keys.clear();
    assert_eq!(exporter.export(batch.clone()).await, later(30), "nobody is known");
    assert_eq!(aws.messages(GROUP, "api").len(), before);
    aws.state().keys.insert(ID.to_owned(), SECRET.to_owned());
    assert_eq!(exporter.export(batch).await, Outcome::Delivered);
    let mut got = aws.messages(GROUP, "api");
    assert_eq!(got.remove(0), "first");
    assert!(got == texts, "each once, in order");
}

#[tokio::test]
async fn what_was_taken_is_not_sent_again() {
    let (aws, _open, address) = StandIn::open().await;
    let exporter = exporter(
        &format!(
            "endpoint: 'http://{address}', region: us-east-1, raw_log: true, log_stream_name: '{{k}}', log_group_name: g"
        ),
        keys(),
    );
    const HOUR: i64 = 3600 * 1000;
    let batch = logs("api", &[(0, "a"), (-30 * HOUR, "b"), (-60 * HOUR, "c")]);
    assert_eq!(exporter.export(logs("api", &[(0, "first")])).await, Outcome::Delivered);
    aws.state().calls.clear();
    // Times lie further apart than one request may span: three requests.
    aws.pass("PutLogEvents");
    aws.fault("PutLogEvents", 500, "InternalFailure");
    assert_eq!(exporter.export(batch.clone()).await, later(0));
    assert_eq!(aws.messages("g", "undefined"), ["first", "c"]);
    assert_eq!(exporter.export(batch).await, Outcome::Delivered);
    assert_eq!(aws.messages("g", "undefined"), ["first", "c", "b", "a"]);
    assert_eq!(aws.count("PutLogEvents"), 4, "one that failed, and one for each part");
}

#[tokio::test]
async fn what_is_too_old_or_too_new_is_counted() {
    let (aws, _open, address) = StandIn::open().await;
    let exporter = exporter(
        &format!("endpoint: 'http://{address}', region: us-east-1, raw_log: true"),
        keys(),
    );
    const HOUR: i64 = 3600 * 1000;
    let batch = logs(
        "api",
        &[
            (0, "now"),
            (-15 * 24 * HOUR, "old"),
            (-8 * 24 * HOUR, "expired"),
            (3 * HOUR, "new"),
            (HOUR, "soon"),
        ],
    );
    let outcome = exporter.export(batch).await;
    let Outcome::Rejected { reason, items } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!((reason.kind, items), (Reason::BackendRejected, 3));
    for words in [
        "1 older than 14 days",
        "1 older than the group's retention",
        "1 more than 2 hours ahead",
    ] {
        assert!(reason.message.contains(words), "{reason}");
    }
    assert_eq!(aws.messages(GROUP, "api"), ["now", "soon"]);
}

#[tokio::test]
async fn data_that_aws_never_takes_is_rejected_and_everything_else_waits() {
    let (aws, _open, address) = StandIn::open().await;
    let exporter = exporter(&format!("endpoint: 'http://{address}', region: us-east-1"), keys());
    let after = async |status: u16, code: &'static str| {
        aws.fault("PutLogEvents", status, code);
        exporter.export(logs("api", &[(0, "x")])).await
    };
    let expect = "HTTP 400 InvalidParameterException: as the test asked";
    assert_eq!(
        after(400, "InvalidParameterException").await,
        Outcome::rejected(Reason::BackendRejected, expect, 1)
    );
    assert_eq!(after(400, "DataAlreadyAcceptedException").await, Outcome::Delivered);
    for (status, code) in [
        (400, "AccessDeniedException"),
        (403, ""),
        (400, "SomethingNewException"),
        (404, ""),
    ] {
        assert_eq!(after(status, code).await, later(30), "{code}");
    }
    for (status, code) in [
        (400, "ThrottlingException"),
        (429, ""),
        (500, "InternalFailure"),
        (400, "LimitExceededException"),
    ] {
        assert_eq!(after(status, code).await, later(0), "{code}");
    }
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("bound");
    let exporter = super::exporter(&format!("endpoint: 'http://{nowhere}', region: us-east-1"), keys());
    assert_eq!(exporter.export(logs("api", &[(0, "x")])).await, later(0));
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_set_by_theirs() {
    let (aws, _open, address) = StandIn::open().await;
    aws.state().ahead_seconds = 7200;
    let exporter = exporter(
        &format!("endpoint: 'http://{address}', region: us-east-1, raw_log: true"),
        keys(),
    );
    assert_eq!(exporter.export(logs("api", &[(0, "a")])).await, Outcome::Delivered);
    let calls = std::mem::take(&mut aws.state().calls);
    assert_eq!(
        calls.iter().filter(|call| *call == "PutLogEvents").count(),
        3,
        "one with the wrong clock"
    );
    assert_eq!(exporter.export(logs("api", &[(0, "b")])).await, Outcome::Delivered);
    assert_eq!(aws.count("PutLogEvents"), 1, "it is remembered");
}

#[tokio::test]
async fn a_stand_in_that_still_wants_tokens_gets_them() {
    let (aws, _open, address) = StandIn::open().await;
    aws.state().wants_token = true;
    let exporter = exporter(
        &format!("endpoint: 'http://{address}', region: us-east-1, raw_log: true"),
        keys(),
    );
    for text in ["a", "b", "c"] {
        assert_eq!(exporter.export(logs("api", &[(0, text)])).await, Outcome::Delivered);
    }
    assert_eq!(aws.messages(GROUP, "api"), ["a", "b", "c"]);
}

#[tokio::test]
async fn compressed_where_it_is_written_and_not_otherwise() {
    let (aws, _open, address) = StandIn::open().await;
    let common = format!(
        "endpoint: 'http://{address}', region: us-east-1, raw_log: true, headers: {{ x-team: ai, host: no, Authorization: no }}"
    );
    assert_eq!(
        exporter(&common, keys()).export(logs("api", &[(0, "a")])).await,
        Outcome::Delivered
    );
    let gzip = format!("{common}, compression: gzip");
    assert_eq!(
        exporter(&gzip, keys()).export(logs("api", &[(0, "b")])).await,
        Outcome::Delivered
    );
    assert_eq!(aws.messages(GROUP, "api"), ["a", "b"]);
    let state = aws.state();
    let (first, last) = (&state.headers[0], &state.headers[state.headers.len() - 1]);
    assert_eq!(
        (&first["x-team"], &first["host"]),
        (&"ai".parse().unwrap(), &address.to_string().parse().unwrap())
    );
    assert!(!first.contains_key("content-encoding") && last["content-encoding"] == "gzip");
}

#[tokio::test]
async fn a_text_without_content_and_other_signals() {
    let (_aws, _open, address) = StandIn::open().await;
    let exporter = exporter(
        &format!("endpoint: 'http://{address}', region: us-east-1, raw_log: true, emf_only: true"),
        keys(),
    );
    let outcome = exporter
        .export(logs("api", &[(0, "plain"), (0, r#"{"_aws":{}}"#)]))
        .await;
    assert_eq!(
        outcome,
        Outcome::rejected(Reason::Filtered, "not in the embedded metric format", 1)
    );
    let exporter = super::exporter(
        &format!("endpoint: 'http://{address}', region: us-east-1, raw_log: true"),
        keys(),
    );
    let outcome = exporter.export(logs("api", &[(0, "")])).await;
    assert_eq!(
        outcome,
        Outcome::rejected(Reason::BadItem, "CloudWatch Logs takes no empty text", 1)
    );
    let spans = batch(Signal::Traces, Vec::new(), 3);
    assert!(matches!(
        exporter.export(spans).await,
        Outcome::Rejected { items: 3, .. }
    ));
}
