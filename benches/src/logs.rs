//! JSON log lines of about 800 bytes in the product's log schema, as a shipper sends them: the line is the body.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use crate::spans::{hex, text, uuid};

const SERVICES: [&str; 4] = ["api-gateway", "workflow-agent", "workflow-engine", "workflow-scheduler"];
const PATHS: [&str; 4] = ["/api/v1/chat", "/api/v1/workflows", "/api/v1/sessions", "/v1/execute"];
const MODULES: [&str; 4] = ["handlers::chat", "handlers::workflows", "engine::nodes", "db::sessions"];

/// Produces export requests of one service each.
pub struct LogSource {
    random: fastrand::Rng,
    clock_ns: u64,
    step_ns: u64,
}

impl LogSource {
    pub fn new(seed: u64, start_ns: u64, step_ns: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            clock_ns: start_ns,
            step_ns,
        }
    }

    /// The next encoded request of exactly `records` records.
    pub fn request(&mut self, records: usize) -> Vec<u8> {
        let service = self.random.usize(0..SERVICES.len());
        let log_records = (0..records).map(|_| self.record(SERVICES[service])).collect();
        ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                resource: Some(Resource {
                    attributes: vec![
                        text("service.name", SERVICES[service]),
                        text("service.version", "1.4.2"),
                        text("deployment.environment", "prod"),
                        text("project", "starmates-ai-team"),
                    ],
                    ..Resource::default()
                }),
                scope_logs: vec![ScopeLogs {
                    scope: Some(InstrumentationScope {
                        name: "stdout".to_owned(),
                        ..InstrumentationScope::default()
                    }),
                    log_records,
                    ..ScopeLogs::default()
                }],
                ..ResourceLogs::default()
            }],
        }
        .encode_to_vec()
    }

    fn record(&mut self, service: &str) -> LogRecord {
        let random = &mut self.random;
        self.clock_ns += random.u64(0..=2 * self.step_ns);
        let (trace, span): ([u8; 16], [u8; 8]) = (random.u128(..).to_be_bytes(), random.u64(1..).to_be_bytes());
        let (id, span_id) = (hex(&trace), hex(&span));
        let failed = random.u8(0..100) < 8;
        let (level, status) = if failed { ("ERROR", 502) } else { ("INFO", 200) };
        let (path, module, line) = (
            PATHS[random.usize(0..4)],
            MODULES[random.usize(0..4)],
            random.u32(20..600),
        );
        let (size, duration, user) = (random.u32(80..24_000), random.f64() * 1.8, random.u32(0..20_000));
        let body = format!(
            concat!(
                r#"{{"level":"{level}","message":"POST {path} - {status}","service":"{service}","environment":"prod","#,
                r#""tracking_id":"{id}","@level":"{level}","@logger":"{module}","@thread":"tokio-runtime-worker","#,
                r#""file":"main.rs:{line}","source":{{"module":"{module}","function":"handle","line":{line},"filename":"main.rs","#,
                r#""pathname":"src/main.rs"}},"tracing":{{"trace_id":"{id}","span_id":"{span_id}"}},"traceId":"{id}","#,
                r#""request":{{"method":"POST","path":"{path}","size":{size},"duration":{duration:.6},"ip":"10.0.3.0"}},"#,
                r#""response":{{"status":{status},"size":{size},"content_type":"application/json"}},"#,
                r#""user":{{"id":"user-{user:05}","segment":"premium"}},"session":{{"id":"{session}"}}}}"#
            ),
            level = level,
            path = path,
            status = status,
            service = service,
            id = id,
            module = module,
            line = line,
            span_id = span_id,
            size = size,
            duration = duration,
            user = user,
            session = uuid(random),
        );
        LogRecord {
            time_unix_nano: self.clock_ns,
            observed_time_unix_nano: self.clock_ns + 1_000_000,
            severity_number: if failed { 17 } else { 9 },
            severity_text: level.to_owned(),
            body: Some(AnyValue {
                value: Some(Value::StringValue(body)),
            }),
            trace_id: trace.to_vec(),
            span_id: span.to_vec(),
            flags: 1,
            ..LogRecord::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_json_of_about_800_bytes() {
        let mut source = LogSource::new(1, 1_000_000_000_000, 1_000);
        let request = source.request(1_000);
        assert!(
            (800_000..950_000).contains(&request.len()),
            "{} bytes in a request",
            request.len()
        );
        let decoded = ExportLogsServiceRequest::decode(request.as_slice()).expect("what was encoded decodes");
        let body = decoded.resource_logs[0].scope_logs[0].log_records[7].body.clone();
        let Some(Value::StringValue(line)) = body.and_then(|body| body.value) else {
            panic!("the body is a string")
        };
        let parsed: serde_json::Value = serde_json::from_str(&line).expect("the line is JSON");
        assert!((740..900).contains(&line.len()), "{} bytes in a line", line.len());
        assert_eq!(parsed["tracking_id"], parsed["tracing"]["trace_id"]);
    }
}
