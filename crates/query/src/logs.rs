//! Log records as lines that a person reads: when, how bad, and in which words.

use model::record::{LogRecord, Value};

use crate::fields::{self, service_name};
use crate::json;
use crate::story::Log;

/// The first severity number of ERROR in OTLP's scale.
pub const SEVERITY_ERROR: u8 = 17;

/// One record as a line of a story.
pub fn log(record: LogRecord, start: u64) -> Log {
    let time_unix_nano = log_time(&record);
    let message = message(&record);
    let logger = fields::of_log(&record.attributes, &record.body, "logger").and_then(Value::as_str);
    Log {
        time_unix_nano,
        offset_ns: offset(time_unix_nano, start),
        service: service_name(&record.resource).to_owned(),
        level: level(&record),
        logger: logger.unwrap_or(&record.scope.name).to_owned(),
        span_id: record.span_id,
        attributes: record.attributes,
        body: match record.body {
            Value::Str(text) if text == message => Value::Null,
            body => body,
        },
        message,
    }
}

/// The level's short name, by number as OTLP defines the ranges, else as it was written.
pub fn level(log: &LogRecord) -> String {
    let by_number = match log.severity_number {
        1..=4 => "TRACE",
        5..=8 => "DEBUG",
        9..=12 => "INFO",
        13..=16 => "WARN",
        17..=20 => "ERROR",
        21..=24 => "FATAL",
        _ => return log.severity_text.to_ascii_uppercase(),
    };
    by_number.to_owned()
}

/// What a log says in words: its body where that is text, else the body's message field, else the body as JSON.
pub fn message(log: &LogRecord) -> String {
    match &log.body {
        Value::Str(text) => text.clone(),
        Value::Null => log.event_name.clone(),
        body => ["message", "@message", "msg"]
            .into_iter()
            .find_map(|key| fields::of_log(&[], body, key).and_then(Value::as_str))
            .map_or_else(|| json::text(body), str::to_owned),
    }
}

/// When a log was written, or where its sender did not say, when it was seen.
pub fn log_time(log: &LogRecord) -> u64 {
    if log.time_unix_nano > 0 {
        log.time_unix_nano
    } else {
        log.observed_unix_nano
    }
}

/// `at − start`, held within `i64`.
pub fn offset(at: u64, start: u64) -> i64 {
    (i128::from(at) - i128::from(start)).clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}
