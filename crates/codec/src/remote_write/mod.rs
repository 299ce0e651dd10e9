//! OTLP metrics as Prometheus remote-write requests, 1.0 and 2.0.
//!
//! A request holds each label set once, with its samples in the order of time; what does not fit into one request goes into the next, and no series is
//! in two of them. So the requests of one batch may be sent side by side, and batches one after the other, without a sample overtaking one of its series.
//!
//! Source: "Prometheus Remote-Write 1.0" and "2.0" (prometheus.io/docs/specs), `prompb/types.proto` and `io/prometheus/write/v2/types.proto`; the mapping is
//! OpenTelemetry's "Prometheus and OpenMetrics Compatibility".

mod flatten;
mod native;
pub mod read;
pub(crate) mod read_native;
mod request;
mod series;

pub use flatten::Encoder;

use crate::prometheus::labels;

/// What a request is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// `prometheus.WriteRequest`
    #[default]
    V1,
    /// `io.prometheus.write.v2.Request`
    V2,
}

/// How metrics become series.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub version: Version,
    pub labels: labels::Options,
    /// Put before every name.
    pub namespace: String,
    /// Whether resources are told as `target_info`.
    pub target_info: bool,
    /// Whether counters, histograms and summaries tell when they began, as `…_created`.
    pub created: bool,
    /// Whether 1.0 requests tell types, help and units. 2.0 always does.
    pub metadata: bool,
    /// Uncompressed size at which the next request begins; 0 means that all is one.
    pub max_request_bytes: usize,
}

/// One request, not yet compressed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    pub bytes: Vec<u8>,
    /// OTLP's data points in it. One that became several series counts where its count or value is.
    pub points: u32,
    pub samples: u64,
    pub histograms: u64,
    pub exemplars: u64,
}

/// Points that cannot be told to Prometheus, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rejected {
    /// Delta or of no said temporality: Prometheus counts from the beginning.
    pub temporality: u32,
    /// Without a value, and not marked as ended.
    pub no_value: u32,
    /// Another value for the same series at the same millisecond.
    pub duplicate: u32,
    /// Exponential histograms coarser than Prometheus has them, or with buckets beyond any number.
    pub scale: u32,
    /// With labels that, written out for each series, are more than is made of one payload.
    pub too_large: u32,
}

impl Rejected {
    pub fn total(&self) -> u32 {
        self.temporality + self.no_value + self.duplicate + self.scale + self.too_large
    }

    /// Those of another part of the same batch as well.
    pub fn add(&mut self, more: &Rejected) {
        self.temporality += more.temporality;
        self.no_value += more.no_value;
        self.duplicate += more.duplicate;
        self.scale += more.scale;
        self.too_large += more.too_large;
    }

    /// In words, for the sender.
    pub fn message(&self) -> String {
        let reasons = [
            (
                self.temporality,
                "of delta or unknown temporality, which Prometheus does not have (the processor `deltatocumulative` changes it)",
            ),
            (self.no_value, "without a value"),
            (
                self.duplicate,
                "with another value for a series and millisecond that has one",
            ),
            (
                self.scale,
                "of an exponential histogram whose scale Prometheus does not have",
            ),
            (
                self.too_large,
                "with labels that, written out for each series, are larger than what is made of one batch",
            ),
        ];
        let said: Vec<String> = reasons
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, why)| format!("{count} points {why}"))
            .collect();
        said.join("; ")
    }
}

/// What became of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    pub requests: Vec<Request>,
    pub rejected: Rejected,
    /// A number for each series that is in the requests, the same for the same labels in every batch of an encoder.
    pub series: Vec<u64>,
}
