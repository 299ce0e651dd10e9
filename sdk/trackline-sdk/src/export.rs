//! Sending batches to the collector, away from the application: one thread per signal with its own small runtime, so
//! that neither a stalled collector nor a stalled application holds up the other.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http::uri::Scheme;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{LogExporter, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

use crate::queue::Queue;
use crate::reach::Reach;
use crate::settings::{Protocol, Target};
use crate::tls::TlsError;

/// Why exporting of one signal could not be set up. The service runs on without it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetUpError {
    #[error("cannot start the export thread for {signal}: {source}")]
    Thread {
        signal: &'static str,
        source: std::io::Error,
    },
    #[error("cannot export {signal} to {endpoint}: {reason}")]
    Endpoint {
        signal: &'static str,
        endpoint: String,
        reason: Unusable,
    },
}

/// Why an endpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error(
        "{0} (set OTEL_EXPORTER_OTLP_ENDPOINT to the collector's address, such as http://localhost:4317 or \
         https://collector.example.com:4317)"
    )]
    Address(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{0}")]
    Exporter(String),
}

/// Attempts after the first one; the export's own timeout ends them earlier. A collector that restarts within it
/// costs nothing.
const RETRIES: usize = 20;
const RETRY_DELAY: Duration = Duration::from_millis(100);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(1);
/// Bytes of a collector's answer that are read: partial-success messages are short.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

fn retries() -> RetryPolicy {
    RetryPolicy::recommended()
        .with_max_retries(RETRIES)
        .with_initial_delay(RETRY_DELAY)
        .with_max_delay(MAX_RETRY_DELAY)
}

/// An exporter and the way that its requests take.
pub(crate) struct Built<E> {
    pub exporter: E,
    pub reach: Reach,
}

macro_rules! build_exporter {
    ($kind:ident, $target:expr) => {{
        let target: &Target = $target;
        let address = address(target)?;
        let reach = Reach::new(&address, target.protocol, &target.tls, target.timeout)?;
        let exporter = match target.protocol {
            // gRPC headers come from the same variables, which the exporter reads by itself.
            Protocol::Grpc => $kind::builder()
                .with_tonic()
                .with_channel(channel(address, target, &reach)?)
                .with_timeout(target.timeout)
                .with_retry_policy(retries())
                .build(),
            Protocol::Http => $kind::builder()
                .with_http()
                .with_http_client(Hyper::new(target.timeout, reach.clone()))
                .with_endpoint(target.endpoint.clone())
                .with_timeout(target.timeout)
                .with_headers(target.headers.iter().cloned().collect())
                .with_retry_policy(retries())
                .build(),
        }
        .map_err(|error| Unusable::Exporter(error.to_string()))?;
        Ok(Built { exporter, reach })
    }};
}

pub(crate) fn span_exporter(target: &Target) -> Result<Built<SpanExporter>, Unusable> {
    build_exporter!(SpanExporter, target)
}

pub(crate) fn log_exporter(target: &Target) -> Result<Built<LogExporter>, Unusable> {
    build_exporter!(LogExporter, target)
}

fn address(target: &Target) -> Result<Uri, Unusable> {
    let uri: Uri = target
        .endpoint
        .parse()
        .map_err(|error| Unusable::Address(format!("not a URL: {error}")))?;
    match uri.scheme_str() {
        Some("http" | "https") => Ok(uri),
        _ => Err(Unusable::Address(
            "the URL must begin with http:// or https://".to_owned(),
        )),
    }
}

/// tonic is told a plain address, because TLS is [`Reach`]'s; what its requests say about themselves stays true.
fn channel(address: Uri, target: &Target, reach: &Reach) -> Result<Channel, Unusable> {
    let mut parts = address.clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    let plain = Uri::from_parts(parts).map_err(|error| Unusable::Address(error.to_string()))?;
    Ok(Endpoint::from(plain)
        .origin(address)
        .timeout(target.timeout)
        .connect_with_connector_lazy(reach.clone()))
}

/// OTLP/HTTP over hyper.
struct Hyper {
    client: Client<Reach, Full<Bytes>>,
    timeout: Duration,
}

impl Hyper {
    fn new(timeout: Duration, reach: Reach) -> Hyper {
        Hyper {
            client: Client::builder(TokioExecutor::new()).build(reach),
            timeout,
        }
    }
}

impl fmt::Debug for Hyper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hyper").finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl HttpClient for Hyper {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let exchange = async {
            let answer = self.client.request(request.map(Full::new)).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        tokio::time::timeout(self.timeout, exchange).await?
    }
}

/// What became of a signal's items.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub exported: AtomicU64,
    pub failed: AtomicU64,
}

/// Starts the thread that takes batches from `queue` and gives them to `send` until the queue closes.
pub(crate) fn start<T, S>(
    signal: &'static str,
    queue: Arc<Queue<T>>,
    counts: Arc<Counts>,
    runtime: Runtime,
    mut send: S,
    mut report: impl FnMut(Health) + Send + 'static,
) -> Result<(), SetUpError>
where
    T: Send + 'static,
    S: AsyncSend<T> + Send + 'static,
{
    std::thread::Builder::new()
        .name(format!("trackline-{signal}"))
        .spawn(move || {
            // Exporting must not produce telemetry about itself, or it would never end.
            let _quiet = opentelemetry::Context::enter_telemetry_suppressed_scope();
            let mut healthy = true;
            let mut batch = Vec::new();
            while let Some(taken) = queue.take(&mut batch) {
                let count = batch.len() as u64;
                if count > 0 {
                    let result = runtime.block_on(send.send(std::mem::take(&mut batch)));
                    match result {
                        Ok(()) => {
                            counts.exported.fetch_add(count, Ordering::Relaxed);
                            if !healthy {
                                report(Health::Recovered);
                            }
                            healthy = true;
                        }
                        Err(error) => {
                            counts.failed.fetch_add(count, Ordering::Relaxed);
                            if healthy {
                                report(Health::Failing(error));
                            }
                            healthy = false;
                        }
                    }
                }
                queue.done(taken);
            }
            queue.finish();
            runtime.shutdown_background();
        })
        .map(drop)
        .map_err(|source| SetUpError::Thread { signal, source })
}

/// A change in how exporting goes; said once per change, not once per failure.
pub(crate) enum Health {
    Failing(String),
    Recovered,
}

/// Something that can send one batch of a signal; its error is for people.
pub(crate) trait AsyncSend<T> {
    fn send(&mut self, batch: Vec<T>) -> impl Future<Output = Result<(), String>>;
}

pub(crate) fn runtime(signal: &'static str) -> Result<Runtime, SetUpError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|source| SetUpError::Thread { signal, source })
}
