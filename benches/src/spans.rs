//! Spans as four AI-workflow services would write them: about 13 a trace, 12 attributes and 600 bytes each.
//!
//! A request carries one service instance's spans of many traces, as a batching SDK sends them, so a trace arrives
//! in pieces. Values vary as real ones do (ids, paths, statements, sizes, durations); nothing is filled up.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

const SERVICES: [&str; 4] = ["api-gateway", "workflow-agent", "workflow-engine", "workflow-scheduler"];
const GATEWAY: usize = 0;
const AGENT: usize = 1;
const ENGINE: usize = 2;
const SCHEDULER: usize = 3;
/// Replicas of each service.
const INSTANCES: usize = 3;
const MODELS: [(&str, &str); 4] = [
    ("gpt-4o", "openai"),
    ("gpt-4o-mini", "openai"),
    ("claude-sonnet-4", "anthropic"),
    ("mistral-large", "mistral_ai"),
];
const ROUTES: [(&str, &str); 8] = [
    ("POST", "/api/v1/chat"),
    ("POST", "/api/v1/workflows"),
    ("GET", "/api/v1/workflows/{id}"),
    ("POST", "/api/v1/workflows/{id}/execute"),
    ("GET", "/api/v1/sessions/{id}"),
    ("POST", "/api/v1/sessions"),
    ("GET", "/api/v1/workflows"),
    ("DELETE", "/api/v1/sessions/{id}"),
];
const STATEMENTS: [(&str, &str, &str); 6] = [
    (
        "SELECT",
        "sessions",
        "SELECT id, user_id, tracking_id, created_at, status FROM sessions WHERE id = $1",
    ),
    (
        "INSERT",
        "workflow_executions",
        "INSERT INTO workflow_executions (id, workflow_id, tracking_id, status, created_at) VALUES ($1, $2, $3, $4, $5)",
    ),
    (
        "UPDATE",
        "workflow_executions",
        "UPDATE workflow_executions SET status = $1 WHERE id = $2",
    ),
    (
        "SELECT",
        "workflows",
        "SELECT id, name, definition, owner_id, updated_at FROM workflows WHERE id = $1 AND deleted_at IS NULL",
    ),
    (
        "SELECT",
        "workflow_executions",
        "SELECT id, workflow_id, tracking_id, status, created_at FROM workflow_executions WHERE workflow_id = $1 ORDER BY created_at DESC LIMIT $2",
    ),
    (
        "INSERT",
        "sessions",
        "INSERT INTO sessions (id, user_id, tracking_id, created_at, status) VALUES ($1, $2, $3, $4, $5)",
    ),
];
const AGENTS: [&str; 5] = [
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:143.0) Gecko/20100101 Firefox/143.0",
    "starmates-ios/4.18.2 (iPhone; iOS 19.1)",
    "python-httpx/0.28.1",
    "mcp-client/1.6.0",
];
const NODES: [&str; 3] = ["TRIGGER", "AI_AGENT", "EXTERNAL_ACTION"];
const EXTERNAL: [&str; 4] = [
    "api.slack.com",
    "gmail.googleapis.com",
    "api.github.com",
    "hooks.zapier.com",
];

/// Produces export requests of one service instance each.
pub struct SpanSource {
    random: fastrand::Rng,
    queues: Vec<Vec<Span>>,
    /// Start of the next trace, Unix ns.
    clock_ns: u64,
    /// Mean distance between two traces, ns.
    step_ns: u64,
    /// One id in every so many traces, for look-ups afterwards.
    pub sampled_ids: Vec<[u8; 16]>,
    traces: u64,
}

/// Every so many traces one id is kept for look-ups.
const KEEP_ID_EVERY: u64 = 97;

impl SpanSource {
    /// Traces begin at `start_ns` and follow each other by `step_ns` on average.
    pub fn new(seed: u64, start_ns: u64, step_ns: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            queues: vec![Vec::new(); SERVICES.len() * INSTANCES],
            clock_ns: start_ns,
            step_ns,
            sampled_ids: Vec::new(),
            traces: 0,
        }
    }

    /// The next encoded request of exactly `spans` spans.
    pub fn request(&mut self, spans: usize) -> Vec<u8> {
        loop {
            if let Some(full) = self.queues.iter().position(|queue| queue.len() >= spans) {
                let rest = self.queues[full].split_off(spans);
                let batch = std::mem::replace(&mut self.queues[full], rest);
                return encode(full / INSTANCES, full % INSTANCES, batch);
            }
            self.trace();
        }
    }

    fn trace(&mut self) {
        self.clock_ns += self.random.u64(0..=2 * self.step_ns);
        self.traces += 1;
        let id: [u8; 16] = self.random.u128(..).to_be_bytes();
        if self.traces % KEEP_ID_EVERY == 1 {
            self.sampled_ids.push(id);
        }
        let mut trace = Trace {
            id: id.to_vec(),
            tracking_id: hex(&id),
            user: format!("user-{:05}", self.random.u32(0..20_000)),
            session: uuid(&mut self.random),
            failed: self.random.u8(0..100) < 10,
            instance: std::array::from_fn(|_| self.random.usize(0..INSTANCES)),
            spans: Vec::with_capacity(16),
        };
        let start = self.clock_ns;
        let shape = self.random.u8(0..100);
        if shape < 45 {
            chat(&mut trace, &mut self.random, start);
        } else if shape < 90 {
            execute(&mut trace, &mut self.random, start, None);
        } else {
            let parent = scheduled(&mut trace, &mut self.random, start);
            execute(&mut trace, &mut self.random, start + 2_000_000, Some(parent));
        }
        for (service, span) in trace.spans {
            self.queues[service * INSTANCES + trace.instance[service]].push(span);
        }
    }
}

struct Trace {
    id: Vec<u8>,
    tracking_id: String,
    user: String,
    session: String,
    failed: bool,
    instance: [usize; 4],
    spans: Vec<(usize, Span)>,
}

impl Trace {
    #[expect(clippy::too_many_arguments, reason = "a span is that wide")]
    fn span(
        &mut self,
        random: &mut fastrand::Rng,
        service: usize,
        parent: Option<&[u8]>,
        name: &str,
        kind: SpanKind,
        start: u64,
        duration: u64,
        mut attributes: Vec<KeyValue>,
    ) -> Vec<u8> {
        let id = random.u64(1..).to_be_bytes().to_vec();
        attributes.push(text("tracking.id", &self.tracking_id));
        attributes.push(number("thread.id", random.i64(1..9)));
        let failed = self.failed && kind != SpanKind::Internal;
        self.spans.push((
            service,
            Span {
                trace_id: self.id.clone(),
                span_id: id.clone(),
                parent_span_id: parent.unwrap_or_default().to_vec(),
                name: name.to_owned(),
                kind: kind as i32,
                start_time_unix_nano: start,
                end_time_unix_nano: start + duration,
                attributes,
                flags: 1,
                events: if failed && service == ENGINE {
                    vec![exception(start + duration)]
                } else {
                    vec![]
                },
                status: failed.then(|| Status {
                    message: "upstream answered 502 Bad Gateway".to_owned(),
                    code: StatusCode::Error as i32,
                }),
                ..Span::default()
            },
        ));
        id
    }

    fn server(&self, random: &mut fastrand::Rng, service: usize, method: &str, route: &str) -> Vec<KeyValue> {
        let path = route.replace("{id}", &uuid(random));
        vec![
            text("http.request.method", method),
            text("url.path", &path),
            text("http.route", route),
            text("url.scheme", "http"),
            number("http.response.status_code", if self.failed { 502 } else { 200 }),
            number("http.response.body.size", random.i64(80..24_000)),
            text("server.address", &format!("{}.internal", SERVICES[service])),
            number("server.port", 8000 + service as i64),
            text("user.id", &self.user),
            text("session.id", &self.session),
            text("user_agent.original", AGENTS[random.usize(0..AGENTS.len())]),
        ]
    }

    fn client(&self, random: &mut fastrand::Rng, method: &str, host: &str, path: &str) -> Vec<KeyValue> {
        vec![
            text("http.request.method", method),
            text(
                "url.full",
                &format!("https://{host}{path}?correlation={}", &uuid(random)[..13]),
            ),
            text("server.address", host),
            number("server.port", 443),
            number("http.response.status_code", if self.failed { 502 } else { 200 }),
            number("http.response.body.size", random.i64(80..24_000)),
            text("network.protocol.version", "1.1"),
            text(
                "code.function.name",
                "workflow_engine::external::client::send_with_retry",
            ),
            text("user.id", &self.user),
            text("session.id", &self.session),
        ]
    }

    fn database(&self, random: &mut fastrand::Rng, at: usize) -> Vec<KeyValue> {
        let (operation, table, statement) = STATEMENTS[at % STATEMENTS.len()];
        vec![
            text("db.system.name", "postgresql"),
            text("db.namespace", "workflows"),
            text("db.collection.name", table),
            text("db.operation.name", operation),
            text("db.query.text", statement),
            number("db.response.returned_rows", random.i64(0..40)),
            text("server.address", "db-primary.internal"),
            number("server.port", 5432),
            text("user.id", &self.user),
            text(
                "code.function.name",
                "workflow_engine::repository::executions::run_query",
            ),
        ]
    }

    fn ai(&self, random: &mut fastrand::Rng) -> Vec<KeyValue> {
        let (model, provider) = MODELS[random.usize(0..MODELS.len())];
        let (input, output) = (random.i64(120..4_000), random.i64(20..1_200));
        vec![
            text("gen_ai.operation.name", "chat"),
            text("gen_ai.provider.name", provider),
            text("gen_ai.request.model", model),
            text("gen_ai.response.id", &format!("chatcmpl-{}", &uuid(random)[..18])),
            number("gen_ai.usage.input_tokens", input),
            number("gen_ai.usage.output_tokens", output),
            real("cost.usd", (input as f64 * 2.5 + output as f64 * 10.0) / 1e6),
            text("code.function.name", "workflow_agent::llm::completions::ask_with_tools"),
            text("server.address", "llm.internal"),
            text("user.id", &self.user),
            text("session.id", &self.session),
        ]
    }

    fn node(&self, random: &mut fastrand::Rng, at: usize) -> Vec<KeyValue> {
        vec![
            text("workflow.id", &format!("wf-{:04}", random.u32(0..2_000))),
            text(
                "workflow.type",
                ["simple", "complex", "ai-assisted"][random.usize(0..3)],
            ),
            text("node.id", &format!("node-{at}")),
            text("node.type", NODES[at % NODES.len()]),
            text("node.name", ["on message", "summarise", "notify the team"][at % 3]),
            text("node.status", if self.failed { "failed" } else { "completed" }),
            number("node.attempt", 1),
            text("code.function.name", "workflow_engine::engine::scheduler::execute_node"),
            text("user.id", &self.user),
            text("session.id", &self.session),
        ]
    }
}

fn chat(trace: &mut Trace, random: &mut fastrand::Rng, start: u64) {
    let total = latency(random, 400);
    let attributes = trace.server(random, GATEWAY, "POST", ROUTES[0].1);
    let root = trace.span(
        random,
        GATEWAY,
        None,
        "POST /api/v1/chat",
        SpanKind::Server,
        start,
        total,
        attributes,
    );
    let attributes = trace.database(random, 0);
    let took = latency(random, 2);
    trace.span(
        random,
        GATEWAY,
        Some(&root),
        "SELECT sessions",
        SpanKind::Client,
        start + 600_000,
        took,
        attributes,
    );
    let attributes = trace.client(random, "POST", "workflow-agent:8001", "/v1/generate");
    let call = trace.span(
        random,
        GATEWAY,
        Some(&root),
        "POST",
        SpanKind::Client,
        start + total / 8,
        total * 3 / 4,
        attributes,
    );
    let attributes = trace.server(random, AGENT, "POST", "/v1/generate");
    let agent = trace.span(
        random,
        AGENT,
        Some(&call),
        "POST /v1/generate",
        SpanKind::Server,
        start + total / 7,
        total * 5 / 8,
        attributes,
    );
    for step in 0..3 {
        let at = start + total / 6 + step * total / 6;
        let attributes = trace.node(random, step as usize);
        let plan = trace.span(
            random,
            AGENT,
            Some(&agent),
            ["plan", "draft", "validate"][step as usize],
            SpanKind::Internal,
            at,
            total / 7,
            attributes,
        );
        let attributes = trace.ai(random);
        trace.span(
            random,
            AGENT,
            Some(&plan),
            "chat",
            SpanKind::Client,
            at + 300_000,
            total / 8,
            attributes,
        );
    }
    let attributes = trace.database(random, 3);
    let took = latency(random, 3);
    trace.span(
        random,
        AGENT,
        Some(&agent),
        "SELECT workflows",
        SpanKind::Client,
        start + total / 2,
        took,
        attributes,
    );
    let attributes = trace.database(random, 5);
    let took = latency(random, 3);
    trace.span(
        random,
        GATEWAY,
        Some(&root),
        "INSERT sessions",
        SpanKind::Client,
        start + total * 9 / 10,
        took,
        attributes,
    );
}

fn execute(trace: &mut Trace, random: &mut fastrand::Rng, start: u64, parent: Option<Vec<u8>>) {
    let total = latency(random, 900);
    let (method, route) = ROUTES[3];
    let caller = match parent {
        Some(parent) => parent,
        None => {
            let attributes = trace.server(random, GATEWAY, method, route);
            let root = trace.span(
                random,
                GATEWAY,
                None,
                &format!("{method} {route}"),
                SpanKind::Server,
                start,
                total,
                attributes,
            );
            let attributes = trace.client(random, "POST", "workflow-engine:8002", "/v1/execute");
            trace.span(
                random,
                GATEWAY,
                Some(&root),
                "POST",
                SpanKind::Client,
                start + 900_000,
                total * 9 / 10,
                attributes,
            )
        }
    };
    let attributes = trace.server(random, ENGINE, "POST", "/v1/execute");
    let engine = trace.span(
        random,
        ENGINE,
        Some(&caller),
        "POST /v1/execute",
        SpanKind::Server,
        start + 1_400_000,
        total * 8 / 9,
        attributes,
    );
    let attributes = trace.database(random, 1);
    let took = latency(random, 3);
    trace.span(
        random,
        ENGINE,
        Some(&engine),
        "INSERT workflow_executions",
        SpanKind::Client,
        start + 2_000_000,
        took,
        attributes,
    );
    for node in 0..3 + random.u64(0..2) {
        let at = start + 3_000_000 + node * total / 5;
        let kind = NODES[node as usize % 3];
        let attributes = trace.node(random, node as usize);
        let span = trace.span(
            random,
            ENGINE,
            Some(&engine),
            &format!("execute_node[{kind}]"),
            SpanKind::Internal,
            at,
            total / 6,
            attributes,
        );
        match kind {
            "AI_AGENT" => {
                let attributes = trace.ai(random);
                trace.span(
                    random,
                    ENGINE,
                    Some(&span),
                    "chat",
                    SpanKind::Client,
                    at + 200_000,
                    total / 7,
                    attributes,
                );
            }
            "EXTERNAL_ACTION" => {
                let host = EXTERNAL[random.usize(0..EXTERNAL.len())];
                let attributes = trace.client(random, "POST", host, "/v2/messages");
                trace.span(
                    random,
                    ENGINE,
                    Some(&span),
                    "POST",
                    SpanKind::Client,
                    at + 200_000,
                    total / 8,
                    attributes,
                );
            }
            _ => {}
        }
        let attributes = trace.database(random, 2 + node as usize);
        let took = latency(random, 2);
        trace.span(
            random,
            ENGINE,
            Some(&span),
            "UPDATE workflow_executions",
            SpanKind::Client,
            at + total / 7,
            took,
            attributes,
        );
    }
}

fn scheduled(trace: &mut Trace, random: &mut fastrand::Rng, start: u64) -> Vec<u8> {
    let total = latency(random, 900);
    let attributes = trace.node(random, 0);
    let root = trace.span(
        random,
        SCHEDULER,
        None,
        "tick",
        SpanKind::Internal,
        start,
        total,
        attributes,
    );
    let attributes = trace.database(random, 3);
    let took = latency(random, 2);
    trace.span(
        random,
        SCHEDULER,
        Some(&root),
        "SELECT workflows",
        SpanKind::Client,
        start + 300_000,
        took,
        attributes,
    );
    let attributes = trace.client(random, "POST", "workflow-engine:8002", "/v1/execute");
    trace.span(
        random,
        SCHEDULER,
        Some(&root),
        "POST",
        SpanKind::Client,
        start + 1_000_000,
        total * 9 / 10,
        attributes,
    )
}

/// A long-tailed duration around `typical_ms`, in ns.
fn latency(random: &mut fastrand::Rng, typical_ms: u64) -> u64 {
    let tail = 1.0 / (1.0 - random.f64() * 0.97);
    (typical_ms as f64 * 1e6 * (0.4 + 0.3 * tail)) as u64 + random.u64(0..1_000)
}

fn exception(at: u64) -> Event {
    Event {
        time_unix_nano: at,
        name: "exception".to_owned(),
        attributes: vec![
            text("exception.type", "UpstreamError"),
            text(
                "exception.message",
                "upstream answered 502 Bad Gateway after 3 attempts",
            ),
            text(
                "exception.stacktrace",
                "0: engine::external::call\n   at src/external.rs:88\n1: engine::node::execute\n   at src/node.rs:141",
            ),
        ],
        dropped_attributes_count: 0,
    }
}

fn encode(service: usize, instance: usize, spans: Vec<Span>) -> Vec<u8> {
    let resource = Resource {
        attributes: vec![
            text("service.name", SERVICES[service]),
            text("service.version", "1.4.2"),
            text(
                "service.instance.id",
                &format!("{}-7d9f8b6c5-{instance:02}x{service}q", SERVICES[service]),
            ),
            text("deployment.environment", "prod"),
            text("project", "starmates-ai-team"),
            text("host.name", &format!("ip-10-0-{service}-{}", 40 + instance)),
            number("process.pid", 7 + instance as i64),
            text("telemetry.sdk.language", "rust"),
            text("telemetry.sdk.name", "opentelemetry"),
            text("telemetry.sdk.version", "0.33.1"),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "trackline-sdk".to_owned(),
        version: "0.1.0".to_owned(),
        ..InstrumentationScope::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
    .encode_to_vec()
}

pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

pub(crate) fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn real(key: &str, value: f64) -> KeyValue {
    attribute(key, Value::DoubleValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn uuid(random: &mut fastrand::Rng) -> String {
    let digits = hex(&random.u128(..).to_be_bytes());
    format!(
        "{}-{}-4{}-a{}-{}",
        &digits[..8],
        &digits[8..12],
        &digits[13..16],
        &digits[17..20],
        &digits[20..]
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// The README's figures are per span of this shape; a drift in the shape would change them silently.
    #[test]
    fn spans_have_the_promised_shape() {
        let mut source = SpanSource::new(1, 1_000_000_000_000, 1_000_000);
        let (mut spans, mut bytes, mut attributes) = (0, 0, 0);
        let mut traces: HashMap<Vec<u8>, usize> = HashMap::new();
        for _ in 0..40 {
            let request = source.request(1_000);
            bytes += request.len();
            let decoded = ExportTraceServiceRequest::decode(request.as_slice()).expect("what was encoded decodes");
            for span in decoded
                .resource_spans
                .iter()
                .flat_map(|r| &r.scope_spans)
                .flat_map(|s| &s.spans)
            {
                spans += 1;
                attributes += span.attributes.len();
                *traces.entry(span.trace_id.clone()).or_default() += 1;
            }
        }
        assert_eq!(spans, 40_000);
        let per_span = |total: usize| total as f64 / spans as f64;
        assert!(
            (520.0..680.0).contains(&per_span(bytes)),
            "{} bytes a span",
            per_span(bytes)
        );
        assert!(
            (11.0..13.5).contains(&per_span(attributes)),
            "{} attributes a span",
            per_span(attributes)
        );
        let per_trace = spans as f64 / traces.len() as f64;
        assert!((10.0..16.0).contains(&per_trace), "{per_trace} spans a trace");
    }
}
