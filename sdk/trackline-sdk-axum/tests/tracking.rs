//! Services with the layer on real sockets, exporting to a real collector: what comes back, what goes on, what arrives.

mod sink;

use std::convert::Infallible;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use sink::Sink;
use tracing_subscriber::layer::SubscriberExt;
use trackline_sdk::{Builder, Protocol, Telemetry, Trust};
use trackline_sdk_axum::{TrackingId, TrackingLayer, http::Client};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
/// Longer than any machine takes; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Log lines as they were written.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("unpoisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn json(&self) -> Vec<Value> {
        let bytes = self.0.lock().expect("unpoisoned");
        let text = std::str::from_utf8(&bytes).expect("UTF-8");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }
}

/// One service: its telemetry, its lines, its address.
struct Service {
    telemetry: Telemetry,
    lines: Lines,
    url: String,
}

impl Service {
    async fn start(sink: &Sink, name: &str, app: Router) -> Service {
        Service::with(Telemetry::builder(name).endpoint(&sink.url), app).await
    }

    async fn with(builder: Builder, app: Router) -> Service {
        let lines = Lines::default();
        let telemetry = builder.log_sink(lines.clone()).build();
        let url = serve(app.layer(TrackingLayer::with(telemetry.clone()))).await;
        Service { telemetry, lines, url }
    }

    async fn flush(&self) {
        let telemetry = self.telemetry.clone();
        let flushed = tokio::task::spawn_blocking(move || telemetry.flush(PATIENCE)).await;
        assert!(flushed.expect("the flush ends"), "{:?}", self.telemetry.stats());
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, String) {
        let mut request = sink::client().get(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status(), response.headers().clone());
        (status, headers, response.text().await.expect("a body"))
    }
}

async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

fn tracking_id(headers: &HeaderMap) -> String {
    let all: Vec<_> = headers.get_all("x-tracking-id").iter().collect();
    assert_eq!(all.len(), 1, "{headers:?}");
    all[0].to_str().expect("ASCII").to_owned()
}

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{SPAN}-{flags}")
}

#[tokio::test]
async fn a_trace_runs_through_two_services() {
    let sink = Sink::start().await;
    let back = Service::start(
        &sink,
        "workflow-agent",
        Router::new().route("/jobs/{id}", get(async |id: TrackingId| Json(json!({ "seen": id })))),
    )
    .await;
    let url = format!("{}/jobs/7?token=hidden", back.url);
    let front = Service::start(
        &sink,
        "api-gateway",
        Router::new().route(
            "/sessions/{id}",
            get(async move || {
                trackline_sdk::set_user("u-1", Some("premium"));
                trackline_sdk::set_session("s-1");
                let answer = Client::new().get(&url).template("/jobs/{id}").send().await;
                answer.expect("the other service").text().await.expect("its body")
            }),
        ),
    )
    .await;

    let (status, headers, body) = front.get("/sessions/9?q=1", &[("user-agent", "test/1")]).await;
    assert_eq!(status, 200);
    let id = tracking_id(&headers);
    assert_eq!(
        body,
        format!("{{\"seen\":\"{id}\"}}"),
        "the other service saw the same id"
    );
    front.flush().await;
    back.flush().await;

    let spans = sink.spans();
    let named = |service: &str, name: &str| {
        let found = spans.iter().find(|s| s.service() == service && s.span.name == name);
        found.unwrap_or_else(|| panic!("{service} {name} in {spans:#?}"))
    };
    assert_eq!(spans.len(), 3);
    let server = named("api-gateway", "GET /sessions/{id}");
    let client = named("api-gateway", "GET /jobs/{id}");
    let other = named("workflow-agent", "GET /jobs/{id}");
    for span in &spans {
        assert_eq!(span.trace_id(), id);
    }
    assert!(server.span.parent_span_id.is_empty());
    assert_eq!(client.span.parent_span_id, server.span.span_id);
    assert_eq!(other.span.parent_span_id, client.span.span_id);

    let about = server.attributes();
    for (key, value) in [
        ("http.request.method", "GET"),
        ("url.path", "/sessions/9"),
        ("http.route", "/sessions/{id}"),
        ("http.response.status_code", "200"),
        ("user_agent.original", "test/1"),
        ("user.id", "u-1"),
        ("session.id", "s-1"),
        ("tracking.id", &id),
    ] {
        assert_eq!(about.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert_eq!(about["http.response.body.size"], body.len().to_string());
    let about = client.attributes();
    assert_eq!(about["http.response.status_code"], "200");
    assert!(about["url.full"].ends_with("/jobs/7?token=REDACTED"), "{about:?}");
    assert!(!sink.saw("hidden"));

    let logs = sink.logs();
    let line = logs
        .iter()
        .find(|log| log.body() == "GET /sessions/9 - 200")
        .expect("a request line");
    assert_eq!(line.trace_id(), id);
    assert_eq!(line.record.span_id, server.span.span_id);
    assert_eq!(line.attributes()["user.segment"], "premium");
    let lines = front.lines.json();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["message"], "GET /sessions/9 - 200");
    assert_eq!(lines[0]["tracking_id"], id);
    assert_eq!(lines[0]["request"]["method"], "GET");
    assert_eq!(lines[0]["request"]["user_agent"], "test/1");
    assert_eq!(lines[0]["response"]["status"], 200);
    assert_eq!(lines[0]["response"]["size"], body.len());
    assert_eq!(lines[0]["user"], json!({"id": "u-1", "segment": "premium"}));
    assert_eq!(lines[0]["session"], json!({"id": "s-1"}));
}

#[tokio::test]
async fn whose_trace_it_is() {
    let sink = Sink::start().await;
    let uuid = "6f1e1f0e-7d27-4c7b-9c3a-0d2b5f6a7c8d";
    let unsampled = traceparent("00");
    // Trust, headers, expected trace (`None`: a new one), parent span continued, link, spans exported.
    type Case<'h> = (Trust, Vec<(&'h str, &'h str)>, Option<String>, bool, bool, bool);
    let cases: Vec<Case<'_>> = vec![
        (Trust::Ids, vec![], None, false, false, true),
        (
            Trust::Ids,
            vec![("traceparent", &unsampled)],
            Some(TRACE.into()),
            true,
            false,
            true,
        ),
        (
            Trust::All,
            vec![("traceparent", &unsampled)],
            Some(TRACE.into()),
            true,
            false,
            false,
        ),
        (Trust::None, vec![("traceparent", &unsampled)], None, false, true, true),
        (
            Trust::Ids,
            vec![("x-tracking-id", TRACE)],
            Some(TRACE.into()),
            false,
            false,
            true,
        ),
        (
            Trust::All,
            vec![("x-tracking-id", uuid)],
            Some(uuid.replace('-', "")),
            false,
            false,
            true,
        ),
        (Trust::None, vec![("x-tracking-id", TRACE)], None, false, false, true),
        (Trust::Ids, vec![("x-tracking-id", "mine")], None, false, false, true),
        (
            Trust::Ids,
            vec![("x-tracking-id", TRACE), ("x-tracking-id", TRACE)],
            None,
            false,
            false,
            true,
        ),
        (
            Trust::Ids,
            vec![("traceparent", &unsampled), ("x-tracking-id", uuid)],
            Some(TRACE.into()),
            true,
            false,
            true,
        ),
    ];
    for (at, (trust, headers, expect, continued, linked, exported)) in cases.into_iter().enumerate() {
        let name = format!("case-{at}");
        let builder = Telemetry::builder(&name).endpoint(&sink.url).trust(trust);
        let service = Service::with(builder, Router::new().route("/", get(async || "x"))).await;
        let (_, answer, _) = service.get("/", &headers).await;
        let id = tracking_id(&answer);
        service.flush().await;
        let spans: Vec<_> = sink.spans().into_iter().filter(|s| s.service() == name).collect();
        let case = format!("{trust:?} {headers:?}");
        match expect {
            Some(expect) => assert_eq!(id, expect, "{case}"),
            None => assert!(id != TRACE && id != uuid.replace('-', "") && id.len() == 32, "{case}"),
        }
        assert_eq!(spans.len(), usize::from(exported), "{case}");
        for span in spans {
            assert_eq!(span.trace_id(), id, "{case}");
            assert_eq!(sink::hex(&span.span.parent_span_id) == SPAN, continued, "{case}");
            assert_eq!(span.span.links.len(), usize::from(linked), "{case}");
        }
    }
}

#[tokio::test]
async fn what_is_not_sampled_keeps_its_id_and_its_logs() {
    let sink = Sink::start().await;
    let builder = Telemetry::builder("sampled-out").endpoint(&sink.url).sample_ratio(0.0);
    let service = Service::with(builder, Router::new().route("/", get(async || "x"))).await;
    let (_, answer, _) = service.get("/", &[]).await;
    service.flush().await;
    assert_eq!(sink.spans().len(), 0);
    let logs = sink.logs();
    assert_eq!(logs.len(), 1);
    assert_eq!(logs[0].trace_id(), tracking_id(&answer));
    assert_eq!(
        logs[0].record.flags & 1,
        0,
        "the record says that its trace is not recorded"
    );
}

#[tokio::test]
async fn panics_are_answered_and_recorded() {
    async fn at_once() -> &'static str {
        panic!("lost the plot")
    }
    async fn after_waiting() -> &'static str {
        tokio::task::yield_now().await;
        panic!("lost the plot")
    }
    let sink = Sink::start().await;
    let app = Router::new()
        .route("/at-once", get(at_once))
        .route("/later", get(after_waiting));
    let service = Service::start(&sink, "panics", app).await;
    for path in ["/at-once", "/later"] {
        let (status, headers, body) = service.get(path, &[]).await;
        assert_eq!(status, 500);
        let id = tracking_id(&headers);
        assert_eq!(
            serde_json::from_str::<Value>(&body).expect("JSON"),
            json!({"error": "internal server error", "tracking_id": id})
        );
        assert!(!body.contains("plot"), "inner workings stay inside");
        service.flush().await;
        let span = sink.span(&format!("GET {path}"));
        assert_eq!(span.trace_id(), id);
        assert_eq!(span.status(), (2, "lost the plot".to_owned()));
        assert_eq!(span.attributes()["error.type"], "panic");
        assert_eq!(span.attributes()["http.response.status_code"], "500");
        let exceptions = span.events("exception");
        assert_eq!(exceptions.len(), 1);
        assert_eq!(exceptions[0]["exception.message"], "lost the plot");
        let errors: Vec<_> = sink.logs().into_iter().filter(|log| log.trace_id() == id).collect();
        let bodies: Vec<_> = errors.iter().map(|log| log.body()).collect();
        assert_eq!(bodies, ["panic: lost the plot".to_owned(), format!("GET {path} - 500")]);
        assert_eq!(span.events("error_log").len(), 2, "each ERROR line is on the span");
    }
}

#[tokio::test]
async fn error_logs_are_on_the_span() {
    #[derive(Debug, thiserror::Error)]
    #[error("no such order")]
    struct OrderMissing(#[source] std::fmt::Error);

    let sink = Sink::start().await;
    let lines = Lines::default();
    let telemetry = Telemetry::builder("orders")
        .endpoint(&sink.url)
        .log_sink(lines.clone())
        .build();
    // The thread's own subscriber, because tests share the process's. The runtime of this test has this one thread.
    let _here = tracing::subscriber::set_default(tracing_subscriber::registry().with(telemetry.layer()));
    let app = Router::new().route(
        "/orders",
        get(async || {
            tracing::info!(order_id = 7, workflow_id = "w-1", "looking");
            let error = OrderMissing(std::fmt::Error);
            tracing::error!(error = &error as &dyn std::error::Error, "cannot load");
            (StatusCode::BAD_GATEWAY, "sorry")
        }),
    );
    let url = serve(app.layer(TrackingLayer::with(telemetry.clone()))).await;
    let service = Service { telemetry, lines, url };
    let (_, headers, _) = service.get("/orders", &[]).await;
    let id = tracking_id(&headers);
    service.flush().await;

    let span = sink.span("GET /orders");
    assert_eq!(span.status(), (2, "no such order".to_owned()));
    let logs = span.events("error_log");
    assert_eq!(logs.len(), 2, "the error and the request's own line");
    for (key, value) in [
        ("log.level", "ERROR"),
        ("log.message", "cannot load"),
        ("log.logger", "tracking"),
        ("log.module", "tracking"),
        ("tracking.id", &id),
        ("error.type", "OrderMissing"),
    ] {
        assert_eq!(logs[0].get(key).map(String::as_str), Some(value), "{key}");
    }
    assert!(logs[0].contains_key("log.function") && logs[0]["log.line"].parse::<u32>().is_ok());
    assert_eq!(logs[1]["error.type"], "UnknownError");
    let exception = &span.events("exception")[0];
    assert_eq!(exception["exception.type"], "OrderMissing");
    assert!(exception["exception.stacktrace"].contains("caused by: an error occurred"));
    assert!(exception["exception.stacktrace"].contains("tests/tracking.rs:"));

    let lines = service.lines.json();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["order_id"], 7);
    assert_eq!(lines[0]["workflow"], json!({"id": "w-1"}));
    assert_eq!(
        lines[1]["error"],
        json!({"message": "no such order", "type": "OrderMissing"})
    );
    for line in &lines {
        assert_eq!(line["tracking_id"], id);
        assert_eq!(line["tracing"]["span_id"], sink::hex(&span.span.span_id));
    }
    let records = sink.logs();
    assert_eq!(records[1].attributes()["error.message"], "no such order");
    assert_eq!(records[1].record.severity_text, "ERROR");
    assert!(records[1].attributes()["code.file.path"].ends_with("tests/tracking.rs"));
}

#[tokio::test]
async fn a_streamed_response_is_measured_to_its_end() {
    let sink = Sink::start().await;
    let (send, receive) = tokio::sync::mpsc::channel::<Bytes>(1);
    let receive = Arc::new(Mutex::new(Some(receive)));
    let app = Router::new().route(
        "/stream",
        get(async move || {
            let receive = receive.lock().expect("unpoisoned").take().expect("asked once");
            Body::new(Channel(receive)).into_response()
        }),
    );
    let service = Service::start(&sink, "streams", app).await;
    let url = format!("{}/stream", service.url);
    let mut response = sink::client().get(url).send().await.expect("an answer");
    send.send(Bytes::from_static(b"first")).await.expect("read");
    assert_eq!(response.chunk().await.expect("a chunk").as_deref(), Some(&b"first"[..]));
    service.flush().await;
    assert_eq!(sink.spans().len(), 0, "the head and a part are not the end");
    send.send(Bytes::from_static(b"second")).await.expect("read");
    drop(send);
    while response.chunk().await.expect("a chunk").is_some() {}
    service.flush().await;
    let span = sink.span("GET /stream");
    assert_eq!(span.attributes()["http.response.body.size"], "11");
    assert_eq!(span.status(), (0, String::new()));
}

/// A body that yields what a channel brings.
struct Channel(tokio::sync::mpsc::Receiver<Bytes>);

impl http_body::Body for Channel {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        task: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(task)
            .map(|data| data.map(|data| Ok(http_body::Frame::data(data))))
    }
}

#[tokio::test]
async fn callers_who_leave_are_seen() {
    use tower::{Service as _, ServiceExt};
    let sink = Sink::start().await;
    let lines = Lines::default();
    let telemetry = Telemetry::builder("left")
        .endpoint(&sink.url)
        .log_sink(lines.clone())
        .build();
    let app: Router = Router::new().route(
        "/slow",
        get(async || {
            std::future::pending::<()>().await;
            "never"
        }),
    );
    let mut app = app.layer(TrackingLayer::with(telemetry.clone()));
    let request = axum::http::Request::get("/slow")
        .body(Body::empty())
        .expect("a request");
    let app = ServiceExt::<axum::http::Request<Body>>::ready(&mut app)
        .await
        .expect("ready");
    let mut call = Box::pin(app.call(request));
    let polled = std::future::poll_fn(|task| std::task::Poll::Ready(call.as_mut().poll(task))).await;
    assert!(polled.is_pending());
    drop(call);
    let service = Service {
        telemetry,
        lines,
        url: String::new(),
    };
    service.flush().await;
    let span = sink.span("GET /slow");
    assert_eq!(span.attributes()["error.type"], "cancelled");
    assert!(!span.attributes().contains_key("http.response.status_code"));
    assert_eq!(service.lines.json()[0]["message"], "GET /slow - 499");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_tracked_too() {
    let sink = Sink::start().await;
    let service = Service::start(&sink, "edges", Router::new().route("/known", get(async || "x"))).await;
    let (status, headers, _) = service.get("/unknown/123", &[]).await;
    assert_eq!(status, 404);
    assert_eq!(tracking_id(&headers).len(), 32);
    let url = format!("{}/known", service.url);
    let strange = reqwest::Method::from_bytes(b"BREW").expect("a token");
    let answer = sink::client().request(strange, url).send().await.expect("an answer");
    assert_eq!(answer.status(), 405);
    assert_eq!(tracking_id(answer.headers()).len(), 32);
    service.flush().await;
    let span = sink.span("GET");
    assert_eq!(span.attributes()["url.path"], "/unknown/123");
    assert_eq!(span.status().0, 0, "the caller's mistake is not the server's error");
    assert_eq!(sink.span("_OTHER /known").attributes()["http.request.method"], "_OTHER");
    assert_eq!(service.lines.json()[0]["level"], "WARN");
}

#[tokio::test]
async fn retries_are_spans_of_their_own() {
    let sink = Sink::start().await;
    let left = Arc::new(Mutex::new(2));
    let flaky = serve(Router::new().route(
        "/flaky",
        get(async move || {
            let mut left = left.lock().expect("unpoisoned");
            if *left > 0 {
                *left -= 1;
                return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")], "not yet");
            }
            (StatusCode::OK, [("retry-after", "0")], "now")
        }),
    ))
    .await;
    let nobody = "http://127.0.0.1:1/".to_owned();
    let app = Router::new().route(
        "/",
        get(async move || {
            let client = Client::new().retries(3);
            let answer = client.get(format!("{flaky}/flaky")).send().await.expect("an answer");
            let failed = client.get(&nobody).retries(0).send().await;
            format!("{} {}", answer.text().await.expect("a body"), failed.is_err())
        }),
    );
    let service = Service::start(&sink, "retrying", app).await;
    let (_, _, body) = service.get("/", &[]).await;
    assert_eq!(body, "now true");
    service.flush().await;
    let attempts: Vec<_> = sink.spans().into_iter().filter(|s| s.span.name == "GET").collect();
    let told: Vec<_> = attempts
        .iter()
        .map(|span| {
            let about = span.attributes();
            let get = |key: &str| about.get(key).cloned().unwrap_or_default();
            (
                get("http.response.status_code"),
                get("http.request.resend_count"),
                get("error.type"),
                span.status().0,
            )
        })
        .collect();
    let tuple = |a: &str, b: &str, c: &str, d| (a.to_owned(), b.to_owned(), c.to_owned(), d);
    assert_eq!(
        told,
        [
            tuple("503", "", "503", 2),
            tuple("503", "1", "503", 2),
            tuple("200", "2", "", 0),
            tuple("", "", "connection_failed", 2),
        ]
    );
}

#[tokio::test]
async fn baggage_and_state_travel_on() {
    let sink = Sink::start().await;
    let echo = Router::new().route(
        "/echo",
        get(async |headers: HeaderMap| {
            let text = |name: &str| headers[name].to_str().expect("ASCII").to_owned();
            format!("{} {} {}", text("traceparent"), text("tracestate"), text("baggage"))
        }),
    );
    let url = format!("{}/echo", serve(echo).await);
    let app = Router::new().route(
        "/",
        get(async move || {
            Client::new()
                .get(&url)
                .send()
                .await
                .expect("an answer")
                .text()
                .await
                .expect("a body")
        }),
    );
    let service = Service::start(&sink, "passing-on", app).await;
    let headers = [
        ("traceparent", traceparent("03")),
        ("tracestate", "a@@b=1, c=2".to_owned()),
        ("baggage", "batch.id=b%201;p".to_owned()),
    ];
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (_, _, body) = service.get("/", &headers).await;
    service.flush().await;
    let client = sink
        .spans()
        .into_iter()
        .find(|s| s.span.name == "GET")
        .expect("a client span");
    let span = sink::hex(&client.span.span_id);
    assert_eq!(body, format!("00-{TRACE}-{span}-03 a@@b=1,c=2 batch.id=b%201;p"));
}

#[tokio::test]
async fn otlp_over_http_arrives_too() {
    let sink = Sink::start().await;
    let builder = Telemetry::builder("over-http")
        .endpoint(&sink.url)
        .protocol(Protocol::Http)
        .environment("production")
        .sample_ratio(1.0)
        .project("starmates-ai-team")
        .version("2.3.4");
    let service = Service::with(builder, Router::new().route("/", get(async || "x"))).await;
    service.get("/", &[]).await;
    service.flush().await;
    let span = sink.span("GET /");
    for (key, value) in [
        ("service.name", "over-http"),
        ("service.version", "2.3.4"),
        ("deployment.environment", "prod"),
        ("deployment.environment.name", "prod"),
        ("project", "starmates-ai-team"),
        ("telemetry.sdk.language", "rust"),
    ] {
        assert_eq!(span.resource.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert_eq!(span.resource["service.instance.id"].len(), 36);
    let logs = sink.logs();
    assert_eq!(logs.len(), 1);
    assert_eq!(
        logs[0].resource, span.resource,
        "logs and spans say the same about their process"
    );
}

#[tokio::test]
async fn a_collector_that_is_away_harms_nobody() {
    let endpoints = ["http://127.0.0.1:1", "https://127.0.0.1:1", "not a url", ""];
    for endpoint in endpoints {
        let builder = Telemetry::builder("alone").endpoint(endpoint);
        let service = Service::with(builder, Router::new().route("/", get(async || "fine"))).await;
        for _ in 0..100 {
            let (status, headers, body) = service.get("/", &[]).await;
            assert_eq!((status, body.as_str()), (StatusCode::OK, "fine"));
            assert_eq!(tracking_id(&headers).len(), 32, "{endpoint}");
        }
        assert_eq!(service.telemetry.stats().spans_exported, 0);
        if endpoint.starts_with("http") {
            assert_eq!(service.telemetry.problems(), [] as [&str; 0]);
        } else {
            let problems = service.telemetry.problems().join("\n");
            assert!(problems.contains("cannot export traces"), "{endpoint}: {problems}");
            service.flush().await;
            assert_eq!(service.lines.json().len(), 100);
        }
    }
}

#[tokio::test]
async fn busy_endpoints_can_be_quiet() {
    let sink = Sink::start().await;
    let lines = Lines::default();
    let telemetry = Telemetry::builder("busy")
        .endpoint(&sink.url)
        .log_sink(lines.clone())
        .build();
    let _here = tracing::subscriber::set_default(tracing_subscriber::registry().with(telemetry.layer()));
    let app = Router::new()
        .route(
            "/poll/{id}",
            get(async || {
                tracing::info!("polled");
                tracing::warn!("odd");
            }),
        )
        .route("/other", get(async || tracing::info!("said")));
    let layer = TrackingLayer::with(telemetry.clone()).sample_logs("/poll/{id}", 0.0);
    let url = serve(app.layer(layer)).await;
    let service = Service { telemetry, lines, url };
    service.get("/poll/7", &[]).await;
    service.get("/other", &[]).await;
    service.flush().await;
    let lines = service.lines.json();
    let messages: Vec<_> = lines
        .iter()
        .map(|line| line["message"].as_str().expect("text"))
        .collect();
    assert_eq!(messages, ["odd", "said", "GET /other - 200"]);
    assert_eq!(sink.spans().len(), 2, "spans stay");
}
