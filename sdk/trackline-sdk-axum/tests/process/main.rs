//! A whole service as a process of its own: set up with one call, watched through its stdout and its collector, ended
//! in order. This test has no harness, because a harness would write to the same stdout.

#[path = "../sink/mod.rs"]
mod sink;
mod tls;

use std::io::{BufRead, BufReader, Lines, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::Value;
use sink::Sink;

/// Says which service this process shall be.
const ROLE: &str = "TRACKLINE_TEST_ROLE";
/// Longer than any machine takes; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match std::env::var(ROLE) {
        Ok(role) => runtime.block_on(service(&role)),
        Err(_) => {
            runtime.block_on(a_service_from_start_to_end());
            println!("test a_service_from_start_to_end ... ok");
            runtime.block_on(a_service_that_cannot_export_starts_and_logs());
            println!("test a_service_that_cannot_export_starts_and_logs ... ok");
            runtime.block_on(a_reader_that_sleeps_blocks_no_request());
            println!("test a_reader_that_sleeps_blocks_no_request ... ok");
            tls::run(&runtime);
        }
    }
}

/// The service: asked to stop, it ends as `main` of a service would.
async fn service(role: &str) {
    let guard = trackline_sdk::Telemetry::builder(role).environment("staging").init();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stop = std::sync::Arc::new(std::sync::Mutex::new(Some(stop)));
    let app = Router::new()
        .route("/hello", get(async || "hello"))
        .route(
            "/trouble",
            get(async || {
                trackline_sdk::span("inner")
                    .run(async { tracing::error!(error_type = "Trouble", user_id = "u-1", "trouble\nin two lines") })
                    .await;
            }),
        )
        .route("/flush", get(flush))
        .route("/call", get(call))
        .route("/panic", get(async || -> () { panic!("by design") }))
        .route(
            "/stop",
            post(async move || drop(stop.lock().expect("unpoisoned").take())),
        );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    tracing::info!(address = %listener.local_addr().expect("an address"), "listening");
    axum::serve(listener, trackline_sdk_axum::instrument(app))
        .with_graceful_shutdown(async { drop(stopped.await) })
        .await
        .expect("serving");
    tracing::info!("the last words");
    if role == "dropped" {
        drop(guard);
    } else {
        assert!(guard.shutdown().await, "everything was sent");
    }
}

/// Sends what there is and says whether all of it arrived.
async fn flush() -> Json<bool> {
    let flushing = tokio::task::spawn_blocking(|| trackline_sdk::Telemetry::global().flush(PATIENCE));
    assert!(flushing.await.expect("the flush ends"));
    Json(trackline_sdk::Telemetry::global().stats().spans_failed == 0)
}

/// Calls the address in `TRACKLINE_TEST_CALL` as a service would.
async fn call() -> String {
    let url = std::env::var("TRACKLINE_TEST_CALL").expect("set by the test");
    match trackline_sdk_axum::http::Client::new().post(url).send().await {
        Ok(answer) => answer.status().to_string(),
        Err(error) => format!("{error:?}"),
    }
}

struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    before: Vec<String>,
    url: String,
}

impl Running {
    /// Starts this program as a service and reads its lines until it listens.
    fn start(role: &str, env: &[(&str, &str)]) -> Running {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.env(ROLE, role).envs(env.iter().copied());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut before = Vec::new();
        let url = loop {
            let line = lines.next().expect("it says that it listens").expect("UTF-8");
            let value: Value = serde_json::from_str(&line).expect("JSON");
            before.push(line);
            if let Some(address) = value["address"].as_str() {
                break format!("http://{address}");
            }
        };
        Running {
            child,
            lines,
            before,
            url,
        }
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        sink::client()
            .get(format!("{}{path}", self.url))
            .send()
            .await
            .expect("an answer")
    }

    /// Asks it to stop and returns everything that it wrote to stdout.
    async fn stop(mut self) -> Vec<Value> {
        sink::client()
            .post(format!("{}/stop", self.url))
            .send()
            .await
            .expect("an answer");
        let mut all = self.before;
        all.extend(self.lines.map(|line| line.expect("UTF-8")));
        let status = self.child.wait().expect("its end");
        let mut errors = String::new();
        self.child
            .stderr
            .take()
            .expect("piped")
            .read_to_string(&mut errors)
            .expect("UTF-8");
        assert!(status.success() && errors.is_empty(), "{status} {errors}");
        all.iter()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }
}

async fn a_service_from_start_to_end() {
    for role in ["awaited", "dropped"] {
        let sink = Sink::start().await;
        let env = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", sink.url.as_str()),
            ("OTEL_RESOURCE_ATTRIBUTES", "team=blue"),
            // Nothing leaves by itself: what arrives, the end has sent.
            ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
        ];
        let service = Running::start(role, &env);
        let hello = service.get("/hello").await;
        let id = hello.headers()["x-tracking-id"].to_str().expect("ASCII").to_owned();
        assert_eq!(service.get("/trouble").await.status(), 200);
        let broken = service.get("/panic").await;
        assert_eq!(broken.status(), 500);
        let broken_id = broken.headers()["x-tracking-id"].to_str().expect("ASCII").to_owned();
        for path in ["/health", "/api/public/health"] {
            let health = service.get(path).await;
            assert_eq!(health.status(), 200);
            let said: Value = health.json().await.expect("JSON");
            assert_eq!(said["status"], "healthy");
            assert_eq!(said["service"], role);
        }
        let lines = service.stop().await;
        for line in &lines {
            check_schema(line, role);
        }
        let with = |message: &str| {
            let found: Vec<_> = lines.iter().filter(|line| line["message"] == message).collect();
            assert_eq!(found.len(), 1, "{message} in {lines:#?}");
            found[0]
        };
        assert_eq!(with("GET /hello - 200")["tracking_id"], id);
        let trouble = with("trouble\nin two lines");
        assert_eq!(trouble["user"]["id"], "u-1");
        assert_eq!(trouble["error"]["type"], "Trouble");
        let panic = with("panic: by design");
        assert_eq!(panic["tracking_id"], broken_id);
        assert_eq!(panic["exception"]["message"], "by design");
        assert!(
            panic["exception"]["file"]
                .as_str()
                .expect("a file")
                .ends_with("process/main.rs")
        );
        assert!(
            panic["exception"]["stack_trace"]
                .as_str()
                .expect("a stack")
                .contains("service")
        );
        with("the last words");

        let spans = sink.spans();
        let names: Vec<_> = spans.iter().map(|s| s.span.name.as_str()).collect();
        for name in [
            "GET /hello",
            "GET /trouble",
            "inner",
            "GET /panic",
            "GET /health",
            "POST /stop",
        ] {
            assert!(names.contains(&name), "{name} in {names:?}");
        }
        assert!(
            spans
                .iter()
                .all(|s| s.resource["team"] == "blue" && s.service() == role)
        );
        assert_eq!(sink.span("inner").events("error_log")[0]["error.type"], "Trouble");
        let mut records: Vec<String> = sink.logs().iter().map(|log| log.body()).collect();
        let mut messages: Vec<String> = lines
            .iter()
            .map(|line| line["message"].as_str().expect("text").to_owned())
            .collect();
        records.sort();
        messages.sort();
        assert_eq!(records, messages, "each line is a record too");
    }
}

async fn a_service_that_cannot_export_starts_and_logs() {
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://collector:4317"),
        ("OTEL_TRACES_SAMPLER", "often"),
    ];
    let service = Running::start("alone", &env);
    assert_eq!(service.get("/hello").await.status(), 200);
    let lines = service.stop().await;
    let warnings: Vec<_> = lines.iter().filter(|line| line["level"] == "WARN").collect();
    let told = |part: &str| {
        warnings
            .iter()
            .any(|line| line["message"].as_str().expect("text").contains(part))
    };
    assert!(told("cannot export traces to ftp://collector:4317"), "{warnings:#?}");
    assert!(told("cannot export logs to ftp://collector:4317"), "{warnings:#?}");
    assert!(told("OTEL_TRACES_SAMPLER=often"), "{warnings:#?}");
    assert!(lines.iter().any(|line| line["message"] == "GET /hello - 200"));
}

async fn a_reader_that_sleeps_blocks_no_request() {
    /// At 700 bytes a line, many times what a pipe holds.
    const REQUESTS: usize = 2_000;
    let service = Running::start("unread", &[("OTEL_SDK_DISABLED", "true")]);
    let client = sink::client();
    for _ in 0..REQUESTS {
        let answer = client
            .get(format!("{}/hello", service.url))
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["x-tracking-id"].len(), 32);
    }
    let lines = service.stop().await;
    let written = lines
        .iter()
        .filter(|line| line["message"] == "GET /hello - 200")
        .count();
    assert_eq!(written, REQUESTS, "the queue held them all until someone read");
}

/// SPEC L2: what every line has, of which kind, and essential fields first.
fn check_schema(line: &Value, service: &str) {
    let text = |key: &str| line[key].as_str().unwrap_or_else(|| panic!("{key} in {line}"));
    assert!(matches!(text("@level"), "DEBUG" | "INFO" | "WARN" | "ERROR"));
    for (a, b) in [
        ("@timestamp", "timestamp"),
        ("@level", "level"),
        ("@message", "message"),
    ] {
        assert_eq!(text(a), text(b));
    }
    let time = text("@timestamp").as_bytes();
    assert!(time.len() == 24 && time[10] == b'T' && time[23] == b'Z', "{line}");
    assert_eq!((text("service"), text("environment")), (service, "staging"));
    assert!(!text("@logger").is_empty() && !text("@thread").is_empty());
    let (file, number) = text("file").split_once(':').expect("file:line");
    assert_eq!(line["source"]["filename"], file);
    assert_eq!(line["source"]["line"].to_string(), number);
    for key in ["module", "function", "pathname"] {
        assert!(line["source"][key].is_string(), "{key} in {line}");
    }
    let id = text("tracking_id");
    assert!(id == "no-trace" || id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()));
    assert_eq!(text("traceId"), id);
    assert_eq!(line["tracing"]["trace_id"], id);
    assert!(line["tracing"]["span_id"].is_string());
}
