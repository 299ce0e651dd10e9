//! Prometheus' view of metrics: how OTLP's names, attributes and numbers are spelled there, and its text formats.
//!
//! Source: the OpenTelemetry specification "Prometheus and OpenMetrics Compatibility", Prometheus' own translator of OTLP names (`otlptranslator`), the
//! exposition format 0.0.4 and OpenMetrics 1.0.

pub mod labels;
pub mod naming;
pub mod number;
pub mod text;

/// What Prometheus calls a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Unknown,
    Counter,
    Gauge,
    Histogram,
    Summary,
    Info,
}

/// The flag of a point that says that there is nothing any more (OTLP, `DataPointFlags`).
pub const FLAG_NO_RECORDED_VALUE: u32 = 1;

/// The one NaN that means "this series has ended"; all others are numbers like any other (Prometheus, `model/value`).
pub const STALE_NAN: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// OTLP's temporality as it is encoded.
pub const TEMPORALITY_DELTA: i32 = 1;
pub const TEMPORALITY_CUMULATIVE: i32 = 2;

/// OTLP's nanoseconds as the milliseconds that Prometheus counts in.
pub fn millis(unix_nano: u64) -> i64 {
    (unix_nano / 1_000_000) as i64
}
