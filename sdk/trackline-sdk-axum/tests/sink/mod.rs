//! A collector for tests on a real socket: takes OTLP over gRPC and HTTP, decodes it with `opentelemetry-proto` and keeps
//! it.

// Each test program compiles this for itself and uses its own part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::serve::Listener;
use axum::{Router, extract::DefaultBodyLimit};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

/// A span as it arrived.
#[derive(Debug, Clone)]
pub struct SpanAt {
    pub resource: BTreeMap<String, String>,
    pub span: Span,
}

/// A log record as it arrived.
#[derive(Debug, Clone)]
pub struct LogAt {
    pub resource: BTreeMap<String, String>,
    pub record: LogRecord,
}

#[derive(Debug, Default)]
struct Taken {
    spans: Vec<SpanAt>,
    logs: Vec<LogAt>,
    raw: Vec<u8>,
    headers: Vec<HeaderMap>,
}

#[derive(Clone)]
pub struct Sink {
    pub url: String,
    taken: Arc<Mutex<Taken>>,
}

impl Sink {
    pub async fn start() -> Sink {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        Sink::on(listener, url)
    }

    /// Behind TLS, at `https://localhost:…`.
    pub async fn start_tls(config: rustls::ServerConfig) -> Sink {
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://localhost:{}", tcp.local_addr().expect("an address").port());
        let acceptor = Arc::new(config).into();
        Sink::on(TlsListener { tcp, acceptor }, url)
    }

    fn on<L>(listener: L, url: String) -> Sink
    where
        L: Listener,
        L::Addr: std::fmt::Debug,
    {
        let taken: Arc<Mutex<Taken>> = Arc::default();
        let store = taken.clone();
        let app = Router::new()
            .fallback(any(async move |uri: Uri, headers: HeaderMap, body: Bytes| {
                store_request(&store, &uri, headers, body)
            }))
            .layer(DefaultBodyLimit::disable());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Sink { url, taken }
    }

    /// The value of the header `name` in each request, empty where it has none.
    pub fn header(&self, name: &str) -> Vec<String> {
        let taken = self.taken.lock().expect("no test panics inside");
        let value = |headers: &HeaderMap| headers.get(name).map(|v| v.to_str().expect("ASCII").to_owned());
        taken.headers.iter().map(|h| value(h).unwrap_or_default()).collect()
    }

    pub fn spans(&self) -> Vec<SpanAt> {
        self.taken.lock().expect("no test panics inside").spans.clone()
    }

    pub fn logs(&self) -> Vec<LogAt> {
        self.taken.lock().expect("no test panics inside").logs.clone()
    }

    /// Whether any byte that arrived contains `text`.
    pub fn saw(&self, text: &str) -> bool {
        let taken = self.taken.lock().expect("no test panics inside");
        taken.raw.windows(text.len()).any(|part| part == text.as_bytes())
    }

    /// The one span called `name`.
    pub fn span(&self, name: &str) -> SpanAt {
        let mut found: Vec<_> = self.spans().into_iter().filter(|s| s.span.name == name).collect();
        let names: Vec<_> = self.spans().into_iter().map(|s| s.span.name).collect();
        assert_eq!(found.len(), 1, "{name} in {names:?}");
        found.remove(0)
    }
}

/// Accepts TLS; who fails the handshake is not heard of.
struct TlsListener {
    tcp: tokio::net::TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (tcp, from) = self.tcp.accept().await.expect("a connection");
            if let Ok(stream) = self.acceptor.accept(tcp).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

/// A client that no telemetry knows of.
pub fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .timeout(std::time::Duration::from_secs(60))
        .tls_backend_preconfigured(trackline_sdk::tls::client_config())
        .build()
        .expect("a client")
}

fn store_request(store: &Mutex<Taken>, uri: &Uri, headers: HeaderMap, body: Bytes) -> Response {
    let mut taken = store.lock().expect("no test panics inside");
    taken.headers.push(headers);
    taken.raw.extend_from_slice(&body);
    let grpc = uri.path().ends_with("/Export");
    let message = if grpc { &body[5..] } else { &body[..] };
    if uri.path().contains("trace") {
        let request = ExportTraceServiceRequest::decode(message).expect("a trace request");
        for resource in request.resource_spans {
            let about = texts(&resource.resource.unwrap_or_default().attributes);
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                taken.spans.push(SpanAt {
                    resource: about.clone(),
                    span,
                });
            }
        }
    } else {
        let request = ExportLogsServiceRequest::decode(message).expect("a log request");
        for resource in request.resource_logs {
            let about = texts(&resource.resource.unwrap_or_default().attributes);
            for record in resource.scope_logs.into_iter().flat_map(|scope| scope.log_records) {
                taken.logs.push(LogAt {
                    resource: about.clone(),
                    record,
                });
            }
        }
    }
    if grpc {
        // An empty message: five bytes of frame head and nothing behind it.
        let headers = [("content-type", "application/grpc"), ("grpc-status", "0")];
        (headers, vec![0u8; 5]).into_response()
    } else {
        [("content-type", "application/x-protobuf")].into_response()
    }
}

impl SpanAt {
    pub fn attributes(&self) -> BTreeMap<String, String> {
        texts(&self.span.attributes)
    }

    pub fn trace_id(&self) -> String {
        hex(&self.span.trace_id)
    }

    pub fn service(&self) -> &str {
        &self.resource["service.name"]
    }

    /// Attributes of the events called `name`.
    pub fn events(&self, name: &str) -> Vec<BTreeMap<String, String>> {
        let events = self.span.events.iter().filter(|event| event.name == name);
        events.map(|event| texts(&event.attributes)).collect()
    }

    /// 0 unset, 1 ok, 2 error; and the message.
    pub fn status(&self) -> (i32, String) {
        let status = self.span.status.clone().unwrap_or_default();
        (status.code, status.message)
    }
}

impl LogAt {
    pub fn body(&self) -> String {
        text(self.record.body.as_ref())
    }

    pub fn attributes(&self) -> BTreeMap<String, String> {
        texts(&self.record.attributes)
    }

    pub fn trace_id(&self) -> String {
        hex(&self.record.trace_id)
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn texts(pairs: &[KeyValue]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|pair| (pair.key.clone(), text(pair.value.as_ref())))
        .collect()
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(Value::BoolValue(truth)) => truth.to_string(),
        other => format!("{other:?}"),
    }
}
