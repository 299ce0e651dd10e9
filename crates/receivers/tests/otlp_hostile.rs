//! What bad senders send. Each gets the exact answer of its protocol, a counted reason, and changes nothing else.

mod support;

use std::time::Duration;

use model::Signal;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const INVALID_ARGUMENT: u32 = 3;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;
const UNAVAILABLE: u32 = 14;

/// `google.rpc.Status` with a code and no details.
fn is_status(body: &[u8], code: u8, message: &str) -> bool {
    let text = String::from_utf8_lossy(body);
    body.starts_with(&[8, code, 0x12]) && text.contains(message) && !text.contains("RetryInfo")
}

/// Protobuf that no walk should follow: messages inside messages, `depth` times.
fn nested(depth: usize) -> Vec<u8> {
    let mut value = Vec::new();
    for _ in 0..depth {
        // AnyValue.array_value { values: [ … ] }
        let inner = field(1, &value);
        value = field(5, &inner);
    }
    let key_value = [field(1, b"k"), field(2, &value)].concat();
    // ResourceSpans.resource.attributes
    field(1, &field(1, &field(1, &key_value)))
}

/// A length-delimited field.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut len = bytes.len();
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend_from_slice(bytes);
    out
}

#[tokio::test]
async fn protobuf_that_does_not_decode() {
    let running = start().await;
    let whole = spans(3);
    let cases: [(&str, Vec<u8>); 6] = [
        ("cut short", whole[..whole.len() - 3].to_vec()),
        ("deep nesting", nested(500)),
        ("a length of 4 GiB", vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 1]),
        ("a length that overflows", [&[0x0a][..], &[0xff; 9], &[1]].concat()),
        ("a group", vec![0x0b, 0x0c]),
        ("text", b"SELECT * FROM spans".to_vec()),
    ];
    for (name, body) in &cases {
        let answer = post(running.http, "/v1/traces", &[PROTOBUF], body).await;
        assert_eq!(answer.status, 400, "{name}");
        assert_eq!(answer.header("content-type"), Some("application/x-protobuf"), "{name}");
        assert!(
            is_status(&answer.body, 3, "does not decode"),
            "{name}: {:?}",
            answer.body
        );

        let answer = call(running.grpc, TRACE_EXPORT, &[], frame(0, body)).await;
        assert_eq!(answer.status, INVALID_ARGUMENT, "{name}: {}", answer.message);
        assert_eq!(answer.details, None, "{name}: not to be sent again");
    }
    assert_eq!(running.turned_away(Signal::Traces, "malformed"), 2 * cases.len() as u64);
    assert_eq!(running.items(), 0);
    running.finish().await;
}

#[tokio::test]
async fn singular_fields_that_repeat_are_made_canonical() {
    let running = start().await;
    // A span in which every singular field stands twice is legal; the last one counts.
    let span = [
        field(1, &[9; 16]),
        field(2, &[9; 8]),
        field(5, b"first"),
        field(1, &[1; 16]),
        field(2, &[1; 8]),
        field(5, b"last"),
    ]
    .concat();
    let body = field(1, &field(2, &field(2, &span)));
    assert_eq!(post(running.http, "/v1/traces", &[PROTOBUF], &body).await.status, 200);
    {
        let batches = running.batches.lock().unwrap();
        let payload = &batches[0].payload;
        assert!(
            !payload.windows(5).any(|w| w == b"first"),
            "nothing can hide behind the last value"
        );
        assert!(payload.windows(4).any(|w| w == b"last"));
    }
    let rewritten = &running.counters.rewritten;
    assert_eq!(rewritten.load(std::sync::atomic::Ordering::Relaxed), 1);
    running.finish().await;
}

#[tokio::test]
async fn bombs_and_giants() {
    let running = start().await;
    let limit = 64 << 20;
    let gzip_bomb = gzip(&vec![0; limit + 1]);
    let zstd_bomb = zstd::bulk::compress(&vec![0; limit + 1], 1).unwrap();
    for (coding, bomb) in [("gzip", gzip_bomb), ("zstd", zstd_bomb)] {
        let headers = [PROTOBUF, ("content-encoding", coding)];
        let answer = post(running.http, "/v1/traces", &headers, &bomb).await;
        assert_eq!(answer.status, 413, "{coding}");
        assert!(is_status(&answer.body, 8, "larger than 67108864 bytes"), "{coding}");
        assert_eq!(answer.header("retry-after"), None);

        let answer = call(
            running.grpc,
            TRACE_EXPORT,
            &[("grpc-encoding", coding)],
            frame(1, &bomb),
        )
        .await;
        assert_eq!(
            (answer.status, answer.details),
            (RESOURCE_EXHAUSTED, None),
            "{coding}: {}",
            answer.message
        );
    }

    // An announcement alone is refused, before a byte of the body is there.
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: test\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
        limit + 1
    );
    assert_eq!(raw_http(running.http, head.as_bytes()).await.status, 413);
    let announced = [&[0][..], &u32::MAX.to_be_bytes()].concat();
    let answer = call(running.grpc, TRACE_EXPORT, &[], announced).await;
    assert_eq!(answer.status, RESOURCE_EXHAUSTED, "{}", answer.message);

    assert_eq!(running.turned_away(Signal::Traces, "too_large"), 6);
    assert!(
        running.budget.peak_bytes() < 80 << 20,
        "bombs cost at most the limit each"
    );
    running.finish().await;
}

#[tokio::test]
async fn compressed_data_that_is_none() {
    let running = start().await;
    for coding in ["gzip", "zstd", "deflate"] {
        let headers = [PROTOBUF, ("content-encoding", coding)];
        let answer = post(running.http, "/v1/traces", &headers, b"not compressed at all").await;
        assert_eq!(answer.status, 400, "{coding}");
        assert!(is_status(&answer.body, 3, "does not decompress"), "{coding}");
    }
    let answer = call(
        running.grpc,
        TRACE_EXPORT,
        &[("grpc-encoding", "gzip")],
        frame(1, b"plain"),
    )
    .await;
    assert_eq!(answer.status, INVALID_ARGUMENT, "{}", answer.message);

    let answer = post(
        running.http,
        "/v1/traces",
        &[PROTOBUF, ("content-encoding", "br")],
        b"x",
    )
    .await;
    assert_eq!(answer.status, 415);
    assert_eq!(answer.header("accept-encoding"), Some("gzip, zstd, deflate, identity"));
    let answer = call(
        running.grpc,
        TRACE_EXPORT,
        &[("grpc-encoding", "snappy")],
        frame(1, b"x"),
    )
    .await;
    assert_eq!(answer.status, UNIMPLEMENTED);
    assert_eq!(
        answer.message,
        "grpc-encoding snappy is not supported; use gzip, zstd or identity"
    );
    running.finish().await;
}

#[tokio::test]
async fn grpc_frames_that_break_the_rules() {
    let running = start().await;
    let good = spans(1);
    let cases: [(&str, Vec<u8>); 6] = [
        ("no message", Vec::new()),
        ("half a prefix", vec![0, 0, 0]),
        ("cut short", frame(0, &good)[..20].to_vec()),
        ("two messages", [frame(0, &good), frame(0, &good)].concat()),
        ("a flag of 2", frame(2, &good)),
        ("compressed with nothing", frame(1, &good)),
    ];
    for (name, body) in cases {
        let answer = call(running.grpc, TRACE_EXPORT, &[], body).await;
        assert_eq!(
            (answer.http_status, answer.status),
            (200, INTERNAL),
            "{name}: {}",
            answer.message
        );
    }
    assert_eq!(running.items(), 0);
    running.finish().await;
}

#[tokio::test]
async fn what_nobody_offers() {
    let running = start().await;
    let body = spans(1);
    assert_eq!(post(running.http, "/v2/traces", &[PROTOBUF], &body).await.status, 404);
    assert_eq!(post(running.http, "/", &[PROTOBUF], &body).await.status, 404);

    let answer = raw_http(running.http, b"GET /v1/traces HTTP/1.1\r\nhost: test\r\n\r\n").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST, OPTIONS")));

    for content_type in ["text/plain", "application/xml", "application/x-protobuffer"] {
        let answer = post(running.http, "/v1/traces", &[("content-type", content_type)], &body).await;
        assert_eq!(answer.status, 415, "{content_type}");
        let status: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(status["code"], UNIMPLEMENTED);
    }
    assert_eq!(post(running.http, "/v1/traces", &[], &body).await.status, 415);

    // A signal that no pipeline takes.
    let answer = post(running.http, "/v1/metrics", &[PROTOBUF], b"").await;
    assert_eq!(answer.status, 404);
    assert!(is_status(
        &answer.body,
        12,
        "no pipeline takes metrics from the receiver otlp"
    ));
    let answer = call(running.grpc, METRICS_EXPORT, &[], frame(0, b"")).await;
    assert_eq!(answer.status, UNIMPLEMENTED, "{}", answer.message);
    assert_eq!(running.turned_away(Signal::Metrics, "no_pipeline"), 2);

    let method = TRACE_EXPORT.replace("Export", "Import");
    let answer = call(running.grpc, &method, &[], frame(0, &body)).await;
    assert_eq!(answer.status, UNIMPLEMENTED);
    assert!(
        answer.message.ends_with("has no method Import; it has Export"),
        "{}",
        answer.message
    );
    let answer = call(running.grpc, "/grpc.health.v1.Health/Check", &[], frame(0, b"")).await;
    assert_eq!((answer.http_status, answer.status), (200, UNIMPLEMENTED));
    running.finish().await;
}

#[tokio::test]
async fn the_wrong_protocol_on_a_port() {
    let running = start().await;
    let answer = post(running.grpc, "/v1/traces", &[PROTOBUF], &spans(1)).await;
    assert_eq!(answer.status, 415);
    assert!(String::from_utf8_lossy(&answer.body).contains("this port speaks gRPC"));
    let answer = call(running.http, TRACE_EXPORT, &[], frame(0, &spans(1))).await;
    assert_eq!((answer.http_status, answer.status), (200, UNIMPLEMENTED));
    running.finish().await;
}

/// Sends bytes and returns everything that comes back until the door closes.
async fn until_closed(address: std::net::SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let mut seen = Vec::new();
    // A reset is a close as well.
    let _ = stream.read_to_end(&mut seen).await;
    seen
}

#[tokio::test]
async fn garbage_closes_its_own_connection_only() {
    let running = start().await;
    let mut good = TcpStream::connect(running.http).await.unwrap();
    for address in [running.http, running.grpc] {
        for garbage in [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello on a plain port"[..],
            b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            b"EHLO mail.example\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
        ] {
            let answer = until_closed(address, garbage).await;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(
                answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
                "{garbage:?}: {answer:?}"
            );
        }
        let http2 = until_closed(
            address,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        )
        .await;
        let goaway = http2.windows(4).any(|w| w[3] == 7);
        assert!(goaway, "GOAWAY, then the end: {http2:?}");
        let long_head = [b"POST / HTTP/1.1\r\nx: ".as_slice(), &[b'a'; 100_000]].concat();
        let answer = until_closed(address, &long_head).await;
        assert!(
            answer.starts_with(b"HTTP/1.1 431 "),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
    }
    good.write_all(b"GET /v1/traces HTTP/1.1\r\nhost: test\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(
        read_answer(&mut good).await.status,
        405,
        "a neighbour's connection still works"
    );
    drop(good);
    running.finish().await;
}

/// Its sender was told that it had left before the body was complete.
#[tokio::test]
async fn a_chunk_without_a_size_is_not_a_sender_that_left() {
    let running = start().await;
    let head =
        b"POST /v1/logs HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = until_closed(running.http, &[head, &b"no size\r\n{}\r\n"[..]].concat()).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("the body is not framed as HTTP has it"), "{answer}");
    running.finish().await;
}

#[tokio::test]
async fn a_hundred_giants_that_stall_take_no_memory_and_block_nobody() {
    const GIANTS: u64 = 100;
    // What a body whose first bytes are there has reserved.
    const EACH: u64 = 16 * 1024;
    let running = start_with(&config(), 8 << 20).await;
    let head = "POST /v1/traces HTTP/1.1\r\nhost: test\r\ncontent-type: application/x-protobuf\r\ncontent-length: 67108864\r\n\r\n0123456789";
    let mut giants = Vec::new();
    for _ in 0..GIANTS {
        let mut stream = TcpStream::connect(running.http).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        giants.push(stream);
    }
    while running.budget.used_bytes() < GIANTS * EACH {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(running.budget.used_bytes(), GIANTS * EACH);

    assert_eq!(
        post(running.http, "/v1/traces", &[PROTOBUF], &spans(5)).await.status,
        200
    );
    assert_eq!(
        call(running.grpc, TRACE_EXPORT, &[], frame(0, &spans(5))).await.status,
        0
    );

    drop(giants);
    while running.budget.used_bytes() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    running.finish().await;
}

#[tokio::test]
async fn without_memory_senders_are_asked_to_wait() {
    // Enough to read either body, not enough to inflate it.
    let body = gzip(&traces((0..2000u32).map(|i| span((i % 250 + 1) as u8)).collect::<Vec<_>>()).encode());
    let running = start_with(&config(), body.len() as u64 + 4096).await;
    let headers = [PROTOBUF, ("content-encoding", "gzip")];
    let answer = post(running.http, "/v1/traces", &headers, &body).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    let answer = call(
        running.grpc,
        TRACE_EXPORT,
        &[("grpc-encoding", "gzip")],
        frame(1, &body),
    )
    .await;
    assert_eq!(answer.status, UNAVAILABLE, "{}", answer.message);
    assert!(answer.details.is_some(), "with RetryInfo");
    // Not enough to read this one.
    let plain = spans(200);
    assert!(plain.len() > body.len() + 4096);
    assert_eq!(post(running.http, "/v1/traces", &[PROTOBUF], &plain).await.status, 503);
    assert_eq!(running.turned_away(Signal::Traces, "memory_limit"), 3);
    running.finish().await;
}

#[tokio::test]
async fn a_million_attributes_are_only_large() {
    let running = start().await;
    let mut attributes = Vec::new();
    for i in 0..1_000_000u32 {
        // KeyValue { key, value: AnyValue { bool_value: true } }
        let pair = [field(1, format!("k{i}").as_bytes()), vec![0x12, 2, 0x10, 1]].concat();
        attributes.extend(field(9, &pair));
    }
    let span = [field(1, &[1; 16]), field(2, &[1; 8]), attributes].concat();
    let body = field(1, &field(2, &field(2, &span)));
    let answer = post(running.http, "/v1/traces", &[PROTOBUF], &body).await;
    assert_eq!((answer.status, running.items()), (200, 1));
    running.finish().await;
}

trait Encode {
    fn encode(&self) -> Vec<u8>;
}

impl<M: prost::Message> Encode for M {
    fn encode(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}
