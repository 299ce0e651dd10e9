//! Why: to hand spans to a Jaeger over its own gRPC, `jaeger.api_v2.CollectorService/PostSpans`, as the collector's `jaeger` exporter did until it was
//! removed there. A Jaeger that takes OTLP is better served by `otlp`, which carries everything.
//!
//! ```yaml
//! exporters:
//!   jaeger:
//!     endpoint: jaeger:14250
//!     tls: { insecure: true }
//! ```
//!
//! Sources: the OpenTelemetry specification, "OpenTelemetry to Jaeger Transformation"; jaeger-idl, `proto/api_v2/collector.proto`.

use std::sync::Arc;
use std::time::Duration;

use codec::jaeger::posts;
use model::{Batch, Signal};
use pipeline::config::{Problems, Section};
use pipeline::{BoxFuture, Exporter, Outcome, Reason};
use serde::Deserialize;

use crate::grpc::{self, Calls};
use crate::request::{BuildError, Packing, pack_text, together};
use crate::sender::{Own, Sender};

/// Where Jaeger's collector listens for its own gRPC.
const DEFAULT_PORT: u16 = 14250;

const METHOD: &str = "jaeger.api_v2.CollectorService/PostSpans";

/// What it takes.
pub const SIGNALS: [Signal; 1] = [Signal::Traces];

/// Jaeger's servers refuse messages above gRPC's default of 4 MiB, inflated; what is refused for its size is lost.
const MAX_MESSAGE_BYTES: usize = (4 << 20) - 64 * 1024;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where to: `host:port`, or with `http://` (no TLS) or `https://`. Without a scheme it is TLS unless `tls` says `insecure`.
    pub endpoint: String,
}

/// Everything about one of these exporters.
pub type Config = Sender<Settings>;

impl Own for Settings {
    const TIMEOUT: Duration = Duration::from_secs(5);
}

pub fn parse(section: &Section<'_>) -> Result<Config, Problems> {
    let config = Config::parse(section)?;
    let instead = "`otlphttp` sends to a Jaeger by OTLP over HTTP";
    grpc::check_endpoint(section, &config.own.endpoint, instead)?;
    Ok(config)
}

/// Sends to a Jaeger.
pub struct Jaeger {
    calls: Calls,
    packing: Packing,
}

impl Jaeger {
    /// Reads certificates; connects with the first request.
    pub fn new(config: &Config) -> Result<Jaeger, BuildError> {
        Ok(Jaeger {
            calls: Calls::new(&config.own.endpoint, DEFAULT_PORT, &config.shared)?,
            packing: config.shared.compression,
        })
    }

    /// One call after the other. If one is to be repeated, all are, so that what an earlier one delivered arrives again: better twice than not.
    async fn send(&self, batch: Batch) -> Outcome {
        if batch.signal != Signal::Traces {
            let message = format!("Jaeger takes traces, not {}", batch.signal);
            return Outcome::rejected(Reason::Unsupported, message, batch.items);
        }
        let mut all = Outcome::Delivered;
        let posts = posts(&batch.payload, MAX_MESSAGE_BYTES);
        if posts.rejected > 0 {
            let message = "scopes and resources that in Jaeger's form, where each span repeats them, are larger than what is made of one batch";
            all = Outcome::rejected(Reason::TooLarge, message, posts.rejected);
        }
        for post in posts.all {
            let packed = pack_text(post.message, self.packing);
            if let Err(outcome) = self.calls.call(METHOD, packed, &batch.meta, post.spans).await {
                all = together(all, outcome);
            }
            if matches!(all, Outcome::Retry { .. }) {
                break;
            }
        }
        all
    }
}

impl Exporter for Jaeger {
    fn takes(&self, signal: Signal) -> bool {
        SIGNALS.contains(&signal)
    }

    fn metadata_keys(&self) -> Vec<Arc<str>> {
        self.calls.metadata_keys()
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        Box::pin(self.send(batch))
    }
}
