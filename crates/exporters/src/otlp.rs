//! Why: to hand everything on to another collector or a backend, over OTLP/gRPC.
//!
//! ```yaml
//! exporters:
//!   otlp/backend:
//!     endpoint: backend:4317
//!     tls: { insecure: true }
//!     headers: { authorization: "Bearer ${TOKEN}" }
//!     compression: gzip
//!     timeout: 5s
//! ```
//!
//! Source: the OpenTelemetry Protocol Specification, "OTLP/gRPC".

use std::sync::Arc;
use std::time::Duration;

use model::{Batch, Compression, Signal};
use pipeline::config::{Problems, Section};
use pipeline::{BoxFuture, Exporter, Outcome};
use serde::Deserialize;

use crate::grpc::{self, Calls};
use crate::otlp_request::{outcome_of, service};
use crate::request::{BuildError, Packing, pack};
use crate::sender::{Own, Sender};

/// The port of OTLP/gRPC where none is written.
const DEFAULT_PORT: u16 = 4317;

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
    grpc::check_endpoint(section, &config.own.endpoint, "`otlphttp` is the exporter with one")?;
    Ok(config)
}

/// Sends over OTLP/gRPC.
pub struct Otlp {
    calls: Calls,
    packing: Packing,
}

impl Otlp {
    /// Reads certificates; connects with the first request.
    pub fn new(config: &Config) -> Result<Otlp, BuildError> {
        Ok(Otlp {
            calls: Calls::new(&config.own.endpoint, DEFAULT_PORT, &config.shared)?,
            packing: config.shared.compression,
        })
    }

    async fn call(&self, batch: Batch) -> Outcome {
        let method = format!("{}/Export", service(batch.signal));
        let packed = pack(&batch, self.packing);
        match self.calls.call(&method, packed, &batch.meta, batch.items).await {
            Ok(message) => outcome_of(&message),
            Err(outcome) => outcome,
        }
    }
}

impl Exporter for Otlp {
    fn takes(&self, _signal: Signal) -> bool {
        true
    }

    fn packs(&self) -> Option<Compression> {
        self.packing.compression()
    }

    fn metadata_keys(&self) -> Vec<Arc<str>> {
        self.calls.metadata_keys()
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        Box::pin(self.call(batch))
    }
}
