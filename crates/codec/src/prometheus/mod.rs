//! Prometheus' view of metrics: how OTLP's names, attributes and numbers are spelled there, and its text formats.
//!
//! Source: the OpenTelemetry specification "Prometheus and OpenMetrics Compatibility", Prometheus' own translator of OTLP names (`otlptranslator`), the
//! exposition format 0.0.4 and OpenMetrics 1.0.

pub mod exposition;
pub mod labels;
pub mod naming;
pub mod number;
pub mod otlp;
pub mod protobuf;
pub mod series;
pub mod text;

use model::view::AnyValue;
use model::view::metrics::{Data, Metric};

/// What Prometheus calls a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Unknown,
    Counter,
    Gauge,
    Histogram,
    /// Buckets of what is there now; only OpenMetrics and remote write 2.0 have it.
    GaugeHistogram,
    Summary,
    Info,
    StateSet,
}

/// Where a metric's metadata tells the type it had in Prometheus, if its data does not (OpenTelemetry, "Prometheus and OpenMetrics Compatibility").
pub const TYPE_KEY: &str = "prometheus.type";

impl Kind {
    /// As OpenMetrics writes it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Unknown => "unknown",
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::GaugeHistogram => "gaugehistogram",
            Kind::Summary => "summary",
            Kind::Info => "info",
            Kind::StateSet => "stateset",
        }
    }

    /// From the word; `untyped` is what 0.0.4 says for unknown.
    pub fn from_word(word: &str) -> Option<Kind> {
        Some(match word {
            "counter" => Kind::Counter,
            "gauge" => Kind::Gauge,
            "histogram" => Kind::Histogram,
            "gaugehistogram" => Kind::GaugeHistogram,
            "summary" => Kind::Summary,
            "info" => Kind::Info,
            "stateset" => Kind::StateSet,
            "untyped" | "unknown" => Kind::Unknown,
            _ => return None,
        })
    }

    /// Whether its values are counted from some beginning.
    pub fn counts(self) -> bool {
        matches!(self, Kind::Counter | Kind::Histogram | Kind::Summary)
    }

    /// What a metric of OTLP is: what its data says, and where that is less than what Prometheus said, what its metadata says. `None` without data.
    pub fn of(metric: &Metric<'_>) -> Option<Kind> {
        let (natural, others): (Kind, &[Kind]) = match metric.data {
            Data::None => return None,
            Data::Gauge { .. } => (
                Kind::Gauge,
                &[Kind::Unknown, Kind::Histogram, Kind::GaugeHistogram, Kind::Summary],
            ),
            Data::Sum { is_monotonic: true, .. } => (Kind::Counter, &[Kind::Histogram, Kind::Summary]),
            Data::Sum { .. } => (Kind::Gauge, &[Kind::Info, Kind::StateSet]),
            Data::Histogram { .. } => (Kind::Histogram, &[]),
            Data::ExponentialHistogram { .. } => (Kind::Histogram, &[Kind::Unknown, Kind::GaugeHistogram]),
            Data::Summary { .. } => (Kind::Summary, &[]),
        };
        let told = metric.metadata.iter().find(|pair| pair.key == TYPE_KEY);
        let told = told.and_then(|pair| match pair.value {
            AnyValue::Str(word) => Kind::from_word(word),
            _ => None,
        });
        Some(told.filter(|kind| others.contains(kind)).unwrap_or(natural))
    }
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
