//! What good senders send, over both transports, on real sockets.

mod support;

use std::time::Duration;

use model::Signal;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use pipeline::{Outcome, Reason};
use prost::Message;
use support::*;

#[tokio::test]
async fn every_transport_and_coding_delivers_the_same_bytes() {
    let running = start().await;
    let (spans, logs) = (spans(3), logs(2));
    let zstd = |data: &[u8]| zstd::bulk::compress(data, 1).unwrap();
    let bodies = |data: &[u8]| [("identity", data.to_vec()), ("gzip", gzip(data)), ("zstd", zstd(data))];

    for (coding, body) in bodies(&spans) {
        let headers = [PROTOBUF, ("content-encoding", coding)];
        let answer = post(running.http, "/v1/traces", &headers, &body).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b""[..]), "{coding}");
        assert_eq!(answer.header("content-type"), Some("application/x-protobuf"));

        let flag = u8::from(coding != "identity");
        let answer = call(
            running.grpc,
            TRACE_EXPORT,
            &[("grpc-encoding", coding)],
            frame(flag, &body),
        )
        .await;
        assert_eq!(
            (answer.http_status, answer.status),
            (200, 0),
            "{coding}: {}",
            answer.message
        );
        assert_eq!(answer.body, b"");
    }
    for (coding, body) in bodies(&logs) {
        let headers = [PROTOBUF, ("content-encoding", coding)];
        assert_eq!(post(running.http, "/v1/logs", &headers, &body).await.status, 200);
        let flag = u8::from(coding != "identity");
        let answer = call(
            running.grpc,
            LOGS_EXPORT,
            &[("grpc-encoding", coding)],
            frame(flag, &body),
        )
        .await;
        assert_eq!(answer.status, 0, "{coding}: {}", answer.message);
    }

    {
        let batches = running.batches.lock().unwrap();
        assert_eq!(batches.len(), 12);
        for batch in batches.iter() {
            let (want, items) = match batch.signal {
                Signal::Traces => (&spans, 3),
                _ => (&logs, 2),
            };
            assert_eq!((&batch.payload[..], batch.items), (&want[..], items));
            assert!(batch.wire.is_some(), "the form it came in is kept");
            assert_eq!(&*batch.meta.receiver, "otlp");
            assert!(batch.meta.peer.is_some_and(|peer| peer.ip().is_loopback()));
        }
    }
    running.finish().await;
}

/// A gzip stream of two members was kept as it came and then read back from the journal up to the end of the first.
#[tokio::test]
async fn a_body_of_several_gzip_members_is_not_kept_as_it_came() {
    let running = start().await;
    let whole = spans(6);
    let (head, tail) = whole.split_at(whole.len() / 2);
    let members = [gzip(head), gzip(tail)].concat();
    let headers = [PROTOBUF, ("content-encoding", "gzip")];
    assert_eq!(post(running.http, "/v1/traces", &headers, &members).await.status, 200);
    {
        let batches = running.batches.lock().unwrap();
        assert_eq!((&batches[0].payload[..], batches[0].items), (&whole[..], 6));
        assert!(batches[0].wire.is_none(), "not every reader goes on after the first");
    }
    running.finish().await;
}

#[tokio::test]
async fn a_message_that_is_not_flagged_is_not_compressed() {
    let running = start().await;
    let answer = call(
        running.grpc,
        TRACE_EXPORT,
        &[("grpc-encoding", "gzip")],
        frame(0, &spans(1)),
    )
    .await;
    assert_eq!(answer.status, 0, "{}", answer.message);
    running.finish().await;
}

#[tokio::test]
async fn a_large_request_goes_through_the_worker_threads() {
    let running = start().await;
    let many = traces((0..20_000u32).map(|i| support::span((i % 250 + 1) as u8)).collect()).encode_to_vec();
    assert!(many.len() > 2 << 20, "larger than what is worked on inline");
    let headers = [PROTOBUF, ("content-encoding", "gzip")];
    assert_eq!(
        post(running.http, "/v1/traces", &headers, &gzip(&many)).await.status,
        200
    );
    let answer = call(running.grpc, TRACE_EXPORT, &[], frame(0, &many)).await;
    assert_eq!(answer.status, 0, "{}", answer.message);
    assert_eq!(running.items(), 40_000);
    running.finish().await;
}

#[tokio::test]
async fn chunked_bodies_need_no_length() {
    let running = start().await;
    let body = spans(2);
    let mut request = b"POST /v1/traces HTTP/1.1\r\nhost: test\r\ncontent-type: application/x-protobuf\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for piece in body.chunks(7) {
        request.extend(format!("{:x}\r\n", piece.len()).bytes());
        request.extend(piece);
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    assert_eq!(raw_http(running.http, &request).await.status, 200);
    assert_eq!(running.items(), 2);
    running.finish().await;
}

#[tokio::test]
async fn an_empty_request_is_a_success() {
    let running = start().await;
    assert_eq!(post(running.http, "/v1/traces", &[PROTOBUF], b"").await.status, 200);
    assert_eq!(call(running.grpc, TRACE_EXPORT, &[], frame(0, b"")).await.status, 0);
    assert_eq!(running.batches.lock().unwrap().len(), 0, "nothing is kept of nothing");
    running.finish().await;
}

#[tokio::test]
async fn items_with_bad_ids_are_a_partial_success() {
    let running = start().await;
    let mut short = support::span(2);
    short.trace_id = vec![1, 2, 3];
    let mut none = support::span(3);
    none.span_id = Vec::new();
    let body = traces(vec![support::span(1), short, none]).encode_to_vec();

    let answer = post(running.http, "/v1/traces", &[PROTOBUF], &body).await;
    assert_eq!(answer.status, 200);
    let partial = ExportTraceServiceResponse::decode(&answer.body[..])
        .unwrap()
        .partial_success
        .unwrap();
    assert_eq!(partial.rejected_spans, 2);
    assert!(
        partial.error_message.contains("1 × span without a valid trace id"),
        "{}",
        partial.error_message
    );
    assert!(
        partial.error_message.contains("1 × span without a valid span id"),
        "{}",
        partial.error_message
    );

    let answer = call(running.grpc, TRACE_EXPORT, &[], frame(0, &body)).await;
    assert_eq!(answer.status, 0);
    let partial = ExportTraceServiceResponse::decode(&answer.body[..])
        .unwrap()
        .partial_success;
    assert_eq!(partial.unwrap().rejected_spans, 2);

    assert_eq!(running.items(), 2);
    assert_eq!(running.turned_away(Signal::Traces, "bad_id"), 4);
    running.finish().await;
}

#[tokio::test]
async fn text_that_is_not_utf8_is_repaired_and_counted() {
    let running = start().await;
    let mut body = spans(1);
    let at = body.windows(9).position(|w| w == b"operation").unwrap();
    body[at] = 0xff;
    assert_eq!(post(running.http, "/v1/traces", &[PROTOBUF], &body).await.status, 200);
    let repaired = running
        .counters
        .repaired_text
        .load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(repaired, 1);
    {
        let batches = running.batches.lock().unwrap();
        assert!(batches[0].wire.is_none(), "what came is not what is kept");
        let text = String::from_utf8_lossy(&batches[0].payload);
        assert!(text.contains("\u{fffd}peration"));
    }
    running.finish().await;
}

#[tokio::test]
async fn a_pipeline_that_asks_to_wait_is_heard_in_both_protocols() {
    let running = start().await;
    *running.outcome.lock().unwrap() = Outcome::retry(Duration::from_millis(2500), Reason::JournalFull);
    let answer = post(running.http, "/v1/traces", &[PROTOBUF], &spans(3)).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("3")));
    assert_eq!(answer.header("content-type"), Some("application/x-protobuf"));

    let answer = call(running.grpc, TRACE_EXPORT, &[], frame(0, &spans(3))).await;
    assert_eq!(answer.status, 14, "UNAVAILABLE");
    assert!(answer.message.contains("the journal is full"), "{}", answer.message);
    let mut details = Vec::new();
    model::base64::decode_into(&answer.details.unwrap(), &mut details).unwrap();
    let retry_info = b"type.googleapis.com/google.rpc.RetryInfo";
    assert!(details.windows(retry_info.len()).any(|w| w == retry_info));
    assert!(
        details.ends_with(&[0x12, 4, 0x0a, 2, 8, 3]),
        "a delay of 3 s: {details:?}"
    );

    assert_eq!(running.turned_away(Signal::Traces, "journal_full"), 6);
    running.finish().await;
}

#[tokio::test]
async fn what_the_pipeline_rejects_is_a_partial_success() {
    let running = start().await;
    *running.outcome.lock().unwrap() = Outcome::rejected(Reason::TooLarge, "a span is larger than a record may be", 1);
    let answer = post(running.http, "/v1/traces", &[PROTOBUF], &spans(3)).await;
    let partial = ExportTraceServiceResponse::decode(&answer.body[..])
        .unwrap()
        .partial_success;
    let partial = partial.unwrap();
    assert_eq!((answer.status, partial.rejected_spans), (200, 1));
    assert_eq!(partial.error_message, "a span is larger than a record may be");
    running.finish().await;
}

#[tokio::test]
async fn browsers_are_told_what_they_may() {
    let mut config = config();
    config.protocols.http.as_mut().unwrap().cors = Some(receivers::otlp::CorsConfig::localhost());
    let running = start_with(&config, BUDGET_BYTES).await;
    let preflight = |origin: &str| {
        format!(
            "OPTIONS /v1/traces HTTP/1.1\r\nhost: test\r\norigin: {origin}\r\naccess-control-request-method: POST\r\naccess-control-request-headers: content-type\r\n\r\n"
        )
    };
    let answer = raw_http(running.http, preflight("http://localhost:5173").as_bytes()).await;
    assert_eq!(answer.status, 204);
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("http://localhost:5173")
    );
    assert_eq!(answer.header("access-control-allow-methods"), Some("POST"));
    assert!(
        answer
            .header("access-control-allow-headers")
            .unwrap()
            .contains("content-type")
    );

    let answer = raw_http(running.http, preflight("https://evil.example").as_bytes()).await;
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (405, None)
    );

    let headers = [PROTOBUF, ("origin", "http://localhost:5173")];
    let answer = post(running.http, "/v1/traces", &headers, &spans(1)).await;
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("http://localhost:5173")
    );
    running.finish().await;
}

#[tokio::test]
async fn json_is_taken_and_answered_in_json() {
    let running = start().await;
    let trace = |trace_id: &str| {
        format!(
            r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":"{trace_id}","spanId":"EEE19B7EC3C1B174","name":"json","startTimeUnixNano":"1544712660000000000"}}]}}]}}]}}"#
        )
    };
    let good = trace("5B8EFFF798038103D269B633813FC60C");
    for (coding, body) in [("identity", good.clone().into_bytes()), ("gzip", gzip(good.as_bytes()))] {
        let headers = [
            ("content-type", "application/json; charset=utf-8"),
            ("content-encoding", coding),
        ];
        let answer = post(running.http, "/v1/traces", &headers, &body).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"{}"[..]), "{coding}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    {
        let batches = running.batches.lock().unwrap();
        let request = ExportTraceServiceRequest::decode(&batches[0].payload[..]).unwrap();
        let span = &request.resource_spans[0].scope_spans[0].spans[0];
        assert_eq!(
            (span.name.as_str(), span.trace_id[0], span.span_id[7]),
            ("json", 0x5b, 0x74)
        );
        assert!(batches[0].wire.is_none(), "the wire form is not the payload's encoding");
    }

    let answer = post(running.http, "/v1/traces", &[JSON], trace("abcd").as_bytes()).await;
    let partial: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(
        (answer.status, &partial["partialSuccess"]["rejectedSpans"]),
        (200, &"1".into())
    );

    for broken in ["", "{", "[]", r#"{"resourceSpans": 7}"#] {
        let answer = post(running.http, "/v1/traces", &[JSON], broken.as_bytes()).await;
        let status: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status, &status["code"]), (400, &3.into()), "{broken}");
        assert!(
            status["message"].as_str().unwrap().contains("does not decode"),
            "{broken}: {status}"
        );
    }

    *running.outcome.lock().unwrap() = Outcome::retry(Duration::from_secs(4), Reason::MemoryLimit);
    let answer = post(running.http, "/v1/traces", &[JSON], good.as_bytes()).await;
    let status: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("4")));
    assert_eq!(status["details"][0]["retryDelay"], "4s");
    running.finish().await;
}
