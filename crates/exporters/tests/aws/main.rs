//! The exporters to AWS: against a stand-in that checks signatures and limits by its own reading of the rules, against stand-ins for what hands out
//! credentials, and, where Python has it, against moto with boto3 reading back.

mod credentials;
mod emf;
mod logs;
mod mistakes;
mod moto;
mod stand_in;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use exporters::aws::credentials::Surroundings;
use exporters::awscloudwatchlogs::{self, CloudWatchLogs};
use model::{Batch, Encoding, Meta, Signal};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use pipeline::config::{Config, Section, Source};
use prost::Message;

const ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// How long a test waits for something that must happen; only a failure waits that long.
const PATIENCE: Duration = Duration::from_secs(60);

fn now_milli() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_millis() as i64
}

fn pairs(of: &[(&str, &str)]) -> Vec<KeyValue> {
    let pair = |(key, text): &(&str, &str)| KeyValue {
        key: (*key).into(),
        value: any(text),
        ..KeyValue::default()
    };
    of.iter().map(pair).collect()
}

fn any(text: &str) -> Option<AnyValue> {
    Some(AnyValue {
        value: Some(Value::StringValue(text.into())),
    })
}

fn batch(signal: Signal, payload: Vec<u8>, items: usize) -> Batch {
    Batch {
        signal,
        encoding: Encoding::Otlp,
        payload: payload.into(),
        items: items as u32,
        wire: None,
        meta: Arc::new(Meta {
            received_at_unix_nano: now_milli() as u64 * 1_000_000,
            receiver: "otlp".into(),
            peer: None,
            headers: Vec::new(),
            source_offset: None,
        }),
    }
}

/// Records of a service: milliseconds from now, and a body.
fn logs(service: &str, records: &[(i64, &str)]) -> Batch {
    let now = now_milli();
    let record = |(from_now, body): &(i64, &str)| LogRecord {
        time_unix_nano: (now + from_now) as u64 * 1_000_000,
        body: any(body),
        ..LogRecord::default()
    };
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource {
                attributes: pairs(&[("service.name", service), ("deployment.environment", "dev")]),
                ..Resource::default()
            }),
            scope_logs: vec![ScopeLogs {
                log_records: records.iter().map(record).collect(),
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    };
    batch(Signal::Logs, request.encode_to_vec(), records.len())
}

fn read<T>(
    kind: &str,
    settings: &str,
    parse: impl Fn(&Section<'_>) -> Result<T, pipeline::config::Problems>,
) -> Result<T, String> {
    let text = format!("exporters:\n  {kind}: {{ {settings} }}\nservice: {{ pipelines: {{ logs: {{}} }} }}\n");
    let config = Config::load(vec![Source::new("test.yaml", text)], &|_| None).map_err(|error| error.to_string())?;
    parse(&config.section(&config.exporters[0])).map_err(|error| error.to_string())
}

fn keys() -> Surroundings {
    Surroundings::of(&[("AWS_ACCESS_KEY_ID", ID), ("AWS_SECRET_ACCESS_KEY", SECRET)])
}

fn exporter(settings: &str, surroundings: Surroundings) -> CloudWatchLogs {
    let config = read("awscloudwatchlogs", settings, awscloudwatchlogs::parse);
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    CloudWatchLogs::new(&config, surroundings).expect("made")
}
