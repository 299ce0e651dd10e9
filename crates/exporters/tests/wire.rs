//! The senders on real sockets: what arrives is what was sent, answers mean what the specification says, and a backend that goes away and comes back is
//! found again.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, Full};
use model::{Batch, Encoding, Meta, Signal};
use net::{At, DoorSettings, Doors, Mount, Request, Response, TlsFiles, TlsVersion, full_body, handler_fn};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use pipeline::config::{Config, Source};
use pipeline::{Exporter, Outcome, Reason};
use prost::Message;

const GRACE: Duration = Duration::from_secs(30);

fn spans(count: u64) -> (Batch, ExportTraceServiceRequest) {
    let spans = (1..=count)
        .map(|id| Span {
            trace_id: vec![7; 16],
            span_id: id.to_be_bytes().to_vec(),
            ..Span::default()
        })
        .collect();
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    let meta = Meta {
        received_at_unix_nano: 0,
        receiver: "otlp".into(),
        peer: None,
        headers: Vec::new(),
        source_offset: None,
    };
    let batch = Batch {
        signal: Signal::Traces,
        encoding: Encoding::Otlp,
        payload: request.encode_to_vec().into(),
        items: count as u32,
        wire: None,
        meta: Arc::new(meta),
    };
    (batch, request)
}

/// What a backend saw, and what it is to answer.
#[derive(Default)]
struct Backend {
    seen: Mutex<Vec<(HeaderMap, ExportTraceServiceRequest)>>,
    answers: Mutex<VecDeque<(u16, ExportTraceServiceResponse)>>,
}

impl Backend {
    fn inflate(encoding: Option<&HeaderValue>, bytes: &[u8]) -> Vec<u8> {
        const ROOM_BYTES: usize = 1 << 20;
        match encoding.map(HeaderValue::as_bytes) {
            None => bytes.to_vec(),
            Some(b"gzip") => {
                let mut out = vec![0; ROOM_BYTES];
                let length = libdeflater::Decompressor::new()
                    .gzip_decompress(bytes, &mut out)
                    .expect("gzip");
                out.truncate(length);
                out
            }
            Some(b"zstd") => zstd::bulk::decompress(bytes, ROOM_BYTES).expect("zstd"),
            Some(other) => panic!("unknown encoding {other:?}"),
        }
    }

    fn take(&self, headers: &HeaderMap, encoding: &str, bytes: &[u8]) -> (u16, ExportTraceServiceResponse) {
        let payload = Backend::inflate(headers.get(encoding), bytes);
        let request = ExportTraceServiceRequest::decode(payload.as_slice()).expect("a request");
        self.seen.lock().expect("no panic").push((headers.clone(), request));
        self.answers.lock().expect("no panic").pop_front().unwrap_or_default()
    }

    async fn grpc(self: Arc<Backend>, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        assert_eq!(
            body[0],
            u8::from(head.headers.contains_key("grpc-encoding")),
            "the flag says what the header says"
        );
        assert_eq!(
            u32::from_be_bytes(body[1..5].try_into().expect("4 bytes")) as usize,
            body.len() - 5
        );
        let (status, answer) = self.take(&head.headers, "grpc-encoding", &body[5..]);
        let message = answer.encode_to_vec();
        let frame = [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from(status));
        let body = Full::new(Bytes::from(frame)).with_trailers(async move { Some(Ok(trailers)) });
        let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
        response
            .headers_mut()
            .insert("content-type", HeaderValue::from_static("application/grpc"));
        response
    }

    async fn http(self: Arc<Backend>, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let (status, answer) = self.take(&head.headers, "content-encoding", &body);
        let mut response = Response::new(full_body(answer.encode_to_vec()));
        if status != 0 {
            *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
            response
                .headers_mut()
                .insert("retry-after", HeaderValue::from_static("7"));
        }
        response
    }

    async fn open(self: &Arc<Backend>, port: u16) -> (net::Open, SocketAddr) {
        self.open_with(port, &DoorSettings::default()).await
    }

    async fn open_with(self: &Arc<Backend>, port: u16, settings: &DoorSettings) -> (net::Open, SocketAddr) {
        let mut doors = Doors::new();
        let address = format!("127.0.0.1:{port}").parse().expect("an endpoint");
        let (grpc, http) = (Arc::clone(self), Arc::clone(self));
        let service = handler_fn(move |request| Arc::clone(&grpc).grpc(request));
        let name = "opentelemetry.proto.collector.trace.v1.TraceService";
        doors
            .mount_with(&address, "backend", Mount::Grpc { name, service }, settings.clone())
            .expect("free");
        let service = handler_fn(move |request| Arc::clone(&http).http(request));
        let at = At::Path("/base/v1/traces".to_owned());
        doors
            .mount_with(&address, "backend", Mount::Http { at, service }, settings.clone())
            .expect("free");
        let open = doors.open().await.expect("opens");
        let address = open.address_of("backend").expect("open");
        (open, address)
    }
}

/// Settings as a configuration file would give them.
fn settings<T>(
    exporter: &str,
    parse: impl Fn(&pipeline::config::Section<'_>) -> Result<T, pipeline::config::Problems>,
) -> T {
    let text = format!("exporters: {{ it: {{ {exporter} }} }}\nservice: {{ pipelines: {{ traces: {{}} }} }}\n");
    let config =
        Config::load(vec![Source::new("test.yaml", text)], &|_| None).unwrap_or_else(|error| panic!("{error}"));
    parse(&config.section(&config.exporters[0])).unwrap_or_else(|error| panic!("{error}"))
}

fn otlp(address: SocketAddr, more: &str) -> exporters::otlp::Otlp {
    let text = format!("endpoint: '{address}', tls: {{ insecure: true }}, {more}");
    exporters::otlp::Otlp::new(&settings(&text, exporters::otlp::parse)).expect("made")
}

fn otlphttp(address: SocketAddr, more: &str) -> exporters::otlphttp::OtlpHttp {
    let text = format!("endpoint: 'http://{address}/base/', {more}");
    exporters::otlphttp::OtlpHttp::new(&settings(&text, exporters::otlphttp::parse)).expect("made")
}

#[tokio::test]
async fn what_arrives_is_what_was_sent_in_every_packing() {
    let backend = Arc::new(Backend::default());
    let (_open, address) = backend.open(0).await;
    let (batch, request) = spans(20);
    for packing in ["gzip", "zstd", "none"] {
        let more = format!("compression: {packing}, headers: {{ Authorization: Bearer s3cret }}");
        assert_eq!(
            otlp(address, &more).export(batch.clone()).await,
            Outcome::Delivered,
            "{packing}"
        );
        assert_eq!(
            otlphttp(address, &more).export(batch.clone()).await,
            Outcome::Delivered,
            "{packing}"
        );
    }
    let seen = backend.seen.lock().expect("no panic");
    assert_eq!(seen.len(), 6);
    for (headers, seen) in seen.iter() {
        assert_eq!(seen, &request);
        assert_eq!(headers["authorization"], "Bearer s3cret");
    }
}

#[tokio::test]
async fn answers_mean_what_the_specification_says() {
    let backend = Arc::new(Backend::default());
    let (_open, address) = backend.open(0).await;
    let partial_success = ExportTracePartialSuccess {
        rejected_spans: 2,
        error_message: "no ids".into(),
    };
    let partial = ExportTraceServiceResponse {
        partial_success: Some(partial_success),
    };
    let plain = ExportTraceServiceResponse::default;
    let expect_partial = Outcome::rejected(Reason::BackendRejected, "no ids", 2);

    let grpc = otlp(address, "");
    backend.answers.lock().expect("no panic").extend([
        (0, partial.clone()),
        (16, plain()),
        (7, plain()),
        (14, plain()),
        (3, plain()),
    ]);
    assert_eq!(grpc.export(spans(5).0).await, expect_partial);
    let no_token = |seconds| Outcome::retry(Duration::from_secs(seconds), Reason::BackendUnauthorized);
    assert_eq!(grpc.export(spans(5).0).await, no_token(0));
    assert_eq!(grpc.export(spans(5).0).await, no_token(0));
    assert_eq!(
        grpc.export(spans(5).0).await,
        Outcome::retry(Duration::ZERO, Reason::BackendUnavailable)
    );
    assert!(matches!(
        grpc.export(spans(5).0).await,
        Outcome::Rejected { items: 5, .. }
    ));

    let http = otlphttp(address, "");
    backend.answers.lock().expect("no panic").extend([
        (200, partial),
        (401, plain()),
        (403, plain()),
        (503, plain()),
        (400, plain()),
    ]);
    assert_eq!(http.export(spans(5).0).await, expect_partial);
    assert_eq!(http.export(spans(5).0).await, no_token(7));
    assert_eq!(http.export(spans(5).0).await, no_token(7));
    assert_eq!(
        http.export(spans(5).0).await,
        Outcome::retry(Duration::from_secs(7), Reason::BackendUnavailable)
    );
    assert!(matches!(
        http.export(spans(5).0).await,
        Outcome::Rejected { items: 5, .. }
    ));
}

#[tokio::test]
async fn a_service_that_the_backend_lacks_is_a_rejection() {
    let backend = Arc::new(Backend::default());
    let (_open, address) = backend.open(0).await;
    let logs = Batch {
        signal: Signal::Logs,
        ..spans(3).0
    };
    assert!(matches!(
        otlp(address, "").export(logs.clone()).await,
        Outcome::Rejected { items: 3, .. }
    ));
    assert!(matches!(
        otlphttp(address, "").export(logs).await,
        Outcome::Rejected { items: 3, .. }
    ));
}

#[tokio::test]
async fn a_backend_that_was_away_is_found_again() {
    let backend = Arc::new(Backend::default());
    let (open, address) = backend.open(0).await;
    let (grpc, http) = (otlp(address, ""), otlphttp(address, ""));
    assert_eq!(grpc.export(spans(1).0).await, Outcome::Delivered);
    assert_eq!(http.export(spans(1).0).await, Outcome::Delivered);
    open.shutdown(GRACE).await;
    let away = Outcome::retry(Duration::ZERO, Reason::BackendUnavailable);
    assert_eq!(grpc.export(spans(1).0).await, away);
    assert_eq!(http.export(spans(1).0).await, away);
    let (_open, _) = backend.open(address.port()).await;
    assert_eq!(grpc.export(spans(1).0).await, Outcome::Delivered);
    assert_eq!(http.export(spans(1).0).await, Outcome::Delivered);
}

#[tokio::test]
async fn many_requests_at_once_share_or_keep_connections() {
    let backend = Arc::new(Backend::default());
    let (_open, address) = backend.open(0).await;
    for exporter in [
        Arc::new(otlp(address, "")) as Arc<dyn Exporter>,
        Arc::new(otlphttp(address, "")),
    ] {
        let exports: Vec<_> = (0..50)
            .map(|_| {
                let exporter = Arc::clone(&exporter);
                tokio::spawn(async move { exporter.export(spans(2).0).await })
            })
            .collect();
        for export in exports {
            assert_eq!(export.await.expect("no panic"), Outcome::Delivered);
        }
    }
    assert_eq!(backend.seen.lock().expect("no panic").len(), 100);
}

#[tokio::test]
async fn a_door_that_asks_for_certificates_takes_only_those_of_its_authority() {
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../net/tests/fixtures");
    let (certificate, key) = (fixtures.join("localhost.crt"), fixtures.join("localhost.key"));
    let tls = TlsFiles {
        cert_file: certificate.clone(),
        key_file: key.clone(),
        client_ca_file: Some(certificate.clone()),
        min_version: TlsVersion::Tls13,
    };
    let backend = Arc::new(Backend::default());
    let settings_of_door = DoorSettings {
        tls: Some(tls),
        ..DoorSettings::default()
    };
    let (_open, address) = backend.open_with(0, &settings_of_door).await;
    for (identity, expect) in [
        (
            format!("cert_file: '{}', key_file: '{}'", certificate.display(), key.display()),
            Outcome::Delivered,
        ),
        (
            "min_version: 1.3".to_owned(),
            Outcome::retry(Duration::ZERO, Reason::BackendUnavailable),
        ),
    ] {
        let text = format!(
            "endpoint: 'localhost:{}', tls: {{ ca_file: '{}', {identity} }}",
            address.port(),
            certificate.display()
        );
        let grpc = exporters::otlp::Otlp::new(&settings(&text, exporters::otlp::parse)).expect("made");
        assert_eq!(grpc.export(spans(3).0).await, expect, "{identity}");
    }
    assert_eq!(backend.seen.lock().expect("no panic").len(), 1);
}

#[tokio::test]
async fn tls_is_spoken_and_a_stranger_is_not_trusted() {
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../net/tests/fixtures");
    let certificate = fixtures.join("localhost.crt");
    let tls = TlsFiles {
        cert_file: certificate.clone(),
        key_file: fixtures.join("localhost.key"),
        client_ca_file: None,
        min_version: TlsVersion::default(),
    };
    let backend = Arc::new(Backend::default());
    let (_open, address) = backend
        .open_with(
            0,
            &DoorSettings {
                tls: Some(tls),
                ..DoorSettings::default()
            },
        )
        .await;
    let port = address.port();
    let trust = format!("tls: {{ ca_file: '{}' }}", certificate.display());

    let text = format!("endpoint: 'localhost:{port}', {trust}");
    let grpc = exporters::otlp::Otlp::new(&settings(&text, exporters::otlp::parse)).expect("made");
    assert_eq!(grpc.export(spans(3).0).await, Outcome::Delivered);
    let text = format!("endpoint: 'https://localhost:{port}/base', {trust}");
    let http = exporters::otlphttp::OtlpHttp::new(&settings(&text, exporters::otlphttp::parse)).expect("made");
    assert_eq!(http.export(spans(3).0).await, Outcome::Delivered);

    // The certificate is for localhost; another name is refused before anything is sent.
    let text = format!(
        "endpoint: 'https://localhost:{port}/base', tls: {{ ca_file: '{}', server_name_override: other.example }}",
        certificate.display()
    );
    let wary = exporters::otlphttp::OtlpHttp::new(&settings(&text, exporters::otlphttp::parse)).expect("made");
    assert_eq!(
        wary.export(spans(3).0).await,
        Outcome::retry(Duration::ZERO, Reason::BackendUnavailable)
    );
    assert_eq!(backend.seen.lock().expect("no panic").len(), 2);
}
