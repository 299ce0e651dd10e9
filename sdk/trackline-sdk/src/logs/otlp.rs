//! Log entries to the collector as OTLP log records with the ids of their span.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry::logs::{AnyValue, LogRecord, Logger, LoggerProvider, Severity};
use opentelemetry_otlp::LogExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{LogBatch, LogExporter as _, SdkLogRecord, SdkLogger, SdkLoggerProvider};
use tracing::Level;

use super::names::canonical;
use super::{Entry, Field, level_name};
use crate::export::{self, AsyncSend, Built, Counts, Health, SetUpError};
use crate::queue::{Bounds, Queue};
use crate::reach::Reach;
use crate::settings::Target;

/// Records in one export, waiting at most, their memory and the waiting time of the first: as for spans.
const BATCH_RECORDS: usize = 512;
const QUEUE_RECORDS: usize = 2_048;
const QUEUE_BYTES: usize = 8 * 1024 * 1024;
const LINGER: Duration = Duration::from_secs(1);

const SIGNAL: &str = "logs";

pub(crate) type Records = Arc<Queue<Arc<Entry>>>;

pub(crate) fn start(
    target: &Target,
    resource: &Resource,
    counts: Arc<Counts>,
    report: impl FnMut(Health) + Send + 'static,
) -> Result<Records, SetUpError> {
    let runtime = export::runtime(SIGNAL)?;
    let built = {
        let _inside = runtime.enter();
        export::log_exporter(target)
    };
    let Built { mut exporter, reach } = match built {
        Ok(built) => built,
        Err(reason) => {
            runtime.shutdown_background();
            return Err(SetUpError::Endpoint {
                signal: SIGNAL,
                endpoint: target.endpoint.clone(),
                reason,
            });
        }
    };
    exporter.set_resource(resource);
    let records = Arc::new(Queue::new(Bounds {
        capacity: QUEUE_RECORDS,
        max_bytes: QUEUE_BYTES,
        batch: BATCH_RECORDS,
        linger: LINGER,
    }));
    let sender = Sender {
        exporter,
        reach,
        logger: SdkLoggerProvider::builder().build().logger(SCOPE),
        scope: InstrumentationScope::builder(SCOPE)
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    };
    export::start(SIGNAL, records.clone(), counts, runtime, sender, report)?;
    Ok(records)
}

/// The instrumentation scope of everything this SDK makes.
pub(crate) const SCOPE: &str = "trackline-sdk";

struct Sender {
    exporter: LogExporter,
    reach: Reach,
    /// Only a logger can make an empty record.
    logger: SdkLogger,
    scope: InstrumentationScope,
}

impl AsyncSend<Arc<Entry>> for Sender {
    async fn send(&mut self, batch: Vec<Arc<Entry>>) -> Result<(), String> {
        let records: Vec<SdkLogRecord> = batch
            .iter()
            .map(|entry| record(entry, self.logger.create_log_record()))
            .collect();
        let pairs: Vec<_> = records.iter().map(|record| (record, &self.scope)).collect();
        let sent = self.exporter.export(LogBatch::new(&pairs)).await;
        sent.map_err(|error| self.reach.explain(&error))
    }
}

fn record(entry: &Entry, mut record: SdkLogRecord) -> SdkLogRecord {
    record.set_timestamp(entry.time);
    record.set_observed_timestamp(entry.time);
    record.set_severity_text(level_name(entry.level));
    record.set_severity_number(match entry.level {
        Level::ERROR => Severity::Error,
        Level::WARN => Severity::Warn,
        Level::INFO => Severity::Info,
        Level::DEBUG => Severity::Debug,
        Level::TRACE => Severity::Trace,
    });
    record.set_body(AnyValue::from(entry.message.clone()));
    if let Some(place) = entry.place {
        record.set_trace_context(place.trace_id, place.span_id, Some(place.flags));
    }
    record.add_attribute("logger", entry.logger);
    record.add_attribute("code.file.path", entry.path);
    record.add_attribute("code.line.number", i64::from(entry.line));
    if !entry.function.is_empty() {
        record.add_attribute("code.function.name", entry.function.clone());
    }
    record.add_attribute("thread.name", entry.thread.to_string());
    for (name, value) in &entry.fields {
        record.add_attribute(canonical(name).into_owned(), any_value(value));
    }
    record
}

fn any_value(field: &Field) -> AnyValue {
    match field {
        Field::Str(text) => AnyValue::from(text.clone()),
        Field::Shared(text) => AnyValue::String(text.clone().into()),
        Field::Int(number) => AnyValue::Int(*number),
        Field::Uint(number) => match i64::try_from(*number) {
            Ok(number) => AnyValue::Int(number),
            Err(_) => AnyValue::from(number.to_string()),
        },
        Field::Float(number) => AnyValue::Double(*number),
        Field::Bool(truth) => AnyValue::Boolean(*truth),
    }
}
