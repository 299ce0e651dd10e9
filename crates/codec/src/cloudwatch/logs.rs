//! OTLP logs to events, as the Collector's `awscloudwatchlogs` exporter writes them.

use model::view::logs::{LogRecord, resource_logs};
use model::view::{AnyValue, Attributes, Resource, Scope};
use serde::Deserialize;

use super::name::{Name, Template, permitted};
use super::{MAX_TRANSLATED_BYTES, Translated, milliseconds};
use crate::value_text::{self, write_json, write_json_object, write_json_text, write_number};

/// What is wanted.
#[derive(Debug, Clone)]
pub struct LogOptions {
    pub group: Template,
    pub stream: Template,
    /// The body alone, as it is; such a line may say itself, in the embedded metric format, where it belongs.
    pub raw: bool,
    /// Leave out what is not in the embedded metric format; with `raw` only.
    pub emf_only: bool,
}

/// The part of the embedded metric format that says where a line belongs. Version 0 has it at the top, version 1 in `_aws`.
#[derive(Debug, Default, Deserialize)]
struct Embedded {
    #[serde(rename = "_aws")]
    aws: Option<EmbeddedAws>,
    log_group_name: Option<String>,
    log_stream_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct EmbeddedAws {
    #[serde(rename = "LogGroupName", alias = "logGroupName")]
    group: Option<String>,
    #[serde(rename = "LogStreamName", alias = "logStreamName")]
    stream: Option<String>,
}

/// About what the events of a logs payload take, at the most what is made of one; reads no record.
pub fn log_bytes(payload: &[u8], raw: bool) -> usize {
    let mut bytes = 0usize;
    for resource_group in resource_logs(payload) {
        let of_resource = resource_group.owner().raw.len();
        for scope_group in resource_group.list() {
            let around = if raw {
                0
            } else {
                of_resource + scope_group.owner().raw.len()
            };
            for record in scope_group.list().raw() {
                bytes = bytes.saturating_add(record.len() + around);
            }
        }
    }
    bytes.min(MAX_TRANSLATED_BYTES)
}

/// The events of a logs payload. A record without a time has that of its arrival.
pub fn log_events(payload: &[u8], received_at_unix_nano: u64, options: &LogOptions) -> Translated {
    let mut out = Translated::default();
    let (mut group, mut name, mut line) = (String::new(), String::new(), Vec::new());
    let mut bytes = 0;
    for resource_group in resource_logs(payload) {
        let resource = resource_group.owner();
        let templates = [&options.group, &options.stream].map(|template| template.settled_by(&resource.attributes));
        templates[0].write(&resource.attributes, &mut group);
        templates[1].write(&resource.attributes, &mut name);
        for scope_group in resource_group.list() {
            let scope = scope_group.owner();
            for record in scope_group.list() {
                if !templates[0].is_settled() {
                    templates[0].write(&record.attributes, &mut group);
                }
                if !templates[1].is_settled() {
                    templates[1].write(&record.attributes, &mut name);
                }
                line.clear();
                bytes += record.raw.len()
                    + if options.raw {
                        0
                    } else {
                        resource.raw.len() + scope.raw.len()
                    };
                if bytes > MAX_TRANSLATED_BYTES {
                    out.reject(1, "resources that are larger together than what is made of one payload");
                    continue;
                }
                let mut own = None;
                if options.raw {
                    value_text::write_text(&record.body, &mut line);
                    own = embedded(&line);
                    if options.emf_only && own.is_none() {
                        out.filtered += 1;
                        continue;
                    }
                } else {
                    write_object(&resource, &scope, &record, &mut line);
                }
                if line.is_empty() {
                    out.reject(1, "CloudWatch Logs takes no empty text");
                    continue;
                }
                let at = match own.and_then(Embedded::place) {
                    Some((own_group, own_name)) => {
                        let (mut its_group, mut its_name) = (String::new(), String::new());
                        permitted(Name::Group, &own_group, &mut its_group);
                        permitted(Name::Stream, own_name.as_deref().unwrap_or(&name), &mut its_name);
                        out.stream(&its_group, &its_name)
                    }
                    None => out.stream(&group, &name),
                };
                let time = [record.time_unix_nano, record.observed_unix_nano, received_at_unix_nano];
                let time = time.into_iter().find(|time| *time > 0).unwrap_or_default();
                out.streams[at].push(milliseconds(time), 1, |text| text.extend_from_slice(&line));
            }
        }
    }
    out
}

impl Embedded {
    /// Group, and stream if it names one.
    fn place(self) -> Option<(String, Option<String>)> {
        let named = |name: Option<String>| name.filter(|name| !name.is_empty());
        let aws = self.aws.unwrap_or_default();
        match (named(aws.group), named(self.log_group_name)) {
            (Some(group), _) => Some((group, named(aws.stream))),
            (None, Some(group)) => Some((group, named(self.log_stream_name))),
            (None, None) => None,
        }
    }
}

/// The line as one of the embedded metric format, if it is one.
fn embedded(line: &[u8]) -> Option<Embedded> {
    // Reading JSON costs more than all the rest: lines without these words are none.
    let names = |word: &[u8]| line.windows(word.len()).any(|at| at == word);
    if line.first() != Some(&b'{') || !(names(b"\"_aws\"") || names(b"\"log_group_name\"")) {
        return None;
    }
    let read: Embedded = serde_json::from_slice(line).ok()?;
    (read.aws.is_some() || read.log_group_name.is_some()).then_some(read)
}

/// The record as one object. Members that say nothing are left out.
fn write_object(resource: &Resource<'_>, scope: &Scope<'_>, record: &LogRecord<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    if !matches!(record.body, AnyValue::Empty) {
        write_key("body", out);
        write_json(&record.body, out);
    }
    let numbers = [
        ("severity_number", i64::from(record.severity_number)),
        ("dropped_attributes_count", i64::from(record.dropped_attributes_count)),
        ("flags", i64::from(record.flags)),
    ];
    for (key, number) in numbers {
        if number != 0 {
            write_key(key, out);
            write_number(number, out);
        }
    }
    if !record.severity_text.is_empty() {
        write_key("severity_text", out);
        write_json_text(record.severity_text, out);
    }
    if let Some(id) = record.trace_id {
        write_key("trace_id", out);
        write_json_text(&id.to_string(), out);
    }
    if let Some(id) = record.span_id {
        write_key("span_id", out);
        write_json_text(&id.to_string(), out);
    }
    write_attributes("attributes", &record.attributes, out);
    if !scope.name.is_empty() {
        write_key("scope", out);
        out.push(b'{');
        write_key("name", out);
        write_json_text(scope.name, out);
        if !scope.version.is_empty() {
            write_key("version", out);
            write_json_text(scope.version, out);
        }
        write_attributes("attributes", &scope.attributes, out);
        out.push(b'}');
    }
    write_attributes("resource", &resource.attributes, out);
    out.push(b'}');
}

fn write_attributes(key: &str, attributes: &Attributes<'_>, out: &mut Vec<u8>) {
    if !attributes.is_empty() {
        write_key(key, out);
        write_json_object(attributes, out);
    }
}

/// A key of an object, with the comma before it where one is needed.
fn write_key(key: &str, out: &mut Vec<u8>) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    write_json_text(key, out);
    out.push(b':');
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::common::v1 as otlp;
    use opentelemetry_proto::tonic::logs::v1 as logs;
    use otlp::any_value::Value;
    use prost::Message;

    fn text(text: &str) -> Option<otlp::AnyValue> {
        Some(otlp::AnyValue {
            value: Some(Value::StringValue(text.into())),
        })
    }

    fn pair(key: &str, value: &str) -> otlp::KeyValue {
        otlp::KeyValue {
            key: key.into(),
            value: text(value),
            ..Default::default()
        }
    }

    fn payload(records: Vec<logs::LogRecord>) -> Vec<u8> {
        ExportLogsServiceRequest {
            resource_logs: vec![logs::ResourceLogs {
                resource: Some(opentelemetry_proto::tonic::resource::v1::Resource {
                    attributes: vec![pair("service.name", "api")],
                    ..Default::default()
                }),
                scope_logs: vec![logs::ScopeLogs {
                    scope: Some(otlp::InstrumentationScope {
                        name: "lib".into(),
                        version: "2".into(),
                        ..Default::default()
                    }),
                    log_records: records,
                    ..Default::default()
                }],
                ..Default::default()
            }],
        }
        .encode_to_vec()
    }

    fn body(line: &str) -> logs::LogRecord {
        logs::LogRecord {
            time_unix_nano: 5_000_000,
            body: text(line),
            ..Default::default()
        }
    }

    fn options(raw: bool, emf_only: bool) -> LogOptions {
        LogOptions {
            group: Template::parse(Name::Group, "/ecs/{environment}").expect("right"),
            stream: Template::parse(Name::Stream, "{service.name}").expect("right"),
            raw,
            emf_only,
        }
    }

    /// Group, stream, time and text of each event.
    fn events(translated: &Translated) -> Vec<String> {
        let of = |stream: &super::super::Stream| {
            let (group, name) = (stream.group.clone(), stream.name.clone());
            stream
                .events()
                .map(|(time, text)| format!("{group} {name} {time} {text}"))
                .collect::<Vec<_>>()
        };
        translated.streams.iter().flat_map(of).collect()
    }

    #[test]
    fn a_record_is_the_collectors_object() {
        let full = logs::LogRecord {
            severity_number: 9,
            severity_text: "INFO".into(),
            attributes: vec![pair("environment", "prod"), pair("@level", "x\"y")],
            flags: 1,
            dropped_attributes_count: 2,
            trace_id: vec![0xab; 16],
            span_id: vec![0xcd; 8],
            ..body("hello")
        };
        let out = log_events(&payload(vec![full, body("")]), 7_000_000, &options(false, false));
        let lines = events(&out);
        let (place, object) = lines[0].split_once(" 5 ").expect("the time");
        assert_eq!(place, "/ecs/prod api");
        let object: serde_json::Value = serde_json::from_str(object).expect("JSON");
        let expect = serde_json::json!({
            "body": "hello", "severity_number": 9, "severity_text": "INFO", "dropped_attributes_count": 2, "flags": 1,
            "trace_id": "ab".repeat(16), "span_id": "cd".repeat(8), "attributes": {"environment": "prod", "@level": "x\"y"},
            "scope": {"name": "lib", "version": "2"}, "resource": {"service.name": "api"},
        });
        assert_eq!(object, expect);
        let expect = r#"/ecs/undefined api 5 {"body":"","scope":{"name":"lib","version":"2"},"resource":{"service.name":"api"}}"#;
        assert_eq!(lines[1], expect);
    }

    #[test]
    fn a_raw_line_stays_as_it_is_and_may_say_where_it_belongs() {
        let none = logs::LogRecord {
            time_unix_nano: 0,
            ..body("no time")
        };
        let observed = logs::LogRecord {
            observed_time_unix_nano: 6_000_000,
            ..none.clone()
        };
        let records = vec![
            body(r#"{"@message":"hello","level":"INFO"}"#),
            none,
            observed,
            body(""),
            body(r#"{"_aws":{"LogGroupName":"/emf","LogStreamName":"one","CloudWatchMetrics":[]}}"#),
            body(r#"{"_aws":{"logGroupName":"/e m:f"}}"#),
            body(r#"{"log_group_name":"/zero"}"#),
            body(r#"{"_aws":{"LogGroupName":7}}"#),
            body(r#"{"_aws": broken"#),
        ];
        let payload = payload(records);
        let out = log_events(&payload, 7_000_000, &options(true, false));
        let expect = [
            r#"/ecs/undefined api 5 {"@message":"hello","level":"INFO"}"#,
            "/ecs/undefined api 7 no time",
            "/ecs/undefined api 6 no time",
            r#"/ecs/undefined api 5 {"_aws":{"LogGroupName":7}}"#,
            r#"/ecs/undefined api 5 {"_aws": broken"#,
            r#"/emf one 5 {"_aws":{"LogGroupName":"/emf","LogStreamName":"one","CloudWatchMetrics":[]}}"#,
            r#"/e_m_f api 5 {"_aws":{"logGroupName":"/e m:f"}}"#,
            r#"/zero api 5 {"log_group_name":"/zero"}"#,
        ];
        assert_eq!(events(&out), expect);
        assert_eq!(out.rejected, [(1, "CloudWatch Logs takes no empty text")]);
        let only = log_events(&payload, 0, &options(true, true));
        assert_eq!((events(&only).len(), only.filtered), (3, 6));
    }
}
