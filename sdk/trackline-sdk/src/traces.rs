//! From an ended span to the collector: the span processor that queues, and the thread that sends.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SdkTracerProvider, Span, SpanData, SpanExporter as _, SpanProcessor};

use crate::export::{self, AsyncSend, Built, Counts, Health, SetUpError};
use crate::ids::Ids;
use crate::queue::{Bounds, Queue};
use crate::reach::Reach;
use crate::sampler::Sampler;
use crate::settings::{Settings, Target};

pub(crate) type Spans = Arc<Queue<SpanData>>;

/// The provider whose spans end up in `spans`; without a queue they are only context.
pub(crate) fn provider(settings: &Settings, resource: &Resource, spans: Option<Spans>) -> SdkTracerProvider {
    let builder = SdkTracerProvider::builder()
        .with_resource(resource.clone())
        .with_id_generator(Ids::default())
        .with_sampler(Sampler::new(settings.sampling));
    match spans {
        Some(spans) => builder.with_span_processor(Queueing { spans }).build(),
        None => builder.build(),
    }
}

/// Starts exporting and returns the queue that feeds it.
pub(crate) fn start(
    settings: &Settings,
    target: &Target,
    resource: &Resource,
    counts: Arc<Counts>,
    report: impl FnMut(Health) + Send + 'static,
) -> Result<Spans, SetUpError> {
    let runtime = export::runtime(SIGNAL)?;
    let built = {
        let _inside = runtime.enter();
        export::span_exporter(target)
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
    let spans = Arc::new(Queue::new(Bounds {
        capacity: settings.batch.queue,
        max_bytes: usize::MAX,
        batch: settings.batch.spans,
        linger: settings.batch.delay,
    }));
    let sender = Sender { exporter, reach };
    export::start(SIGNAL, spans.clone(), counts, runtime, sender, report)?;
    Ok(spans)
}

const SIGNAL: &str = "traces";

struct Sender {
    exporter: SpanExporter,
    reach: Reach,
}

impl AsyncSend<SpanData> for Sender {
    async fn send(&mut self, batch: Vec<SpanData>) -> Result<(), String> {
        let sent = self.exporter.export(batch).await;
        sent.map_err(|error| self.reach.explain(&error))
    }
}

/// Hands each ended span to the queue: one short lock, no waiting.
struct Queueing {
    spans: Spans,
}

impl fmt::Debug for Queueing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queueing").finish_non_exhaustive()
    }
}

impl SpanProcessor for Queueing {
    fn on_start(&self, _span: &mut Span, _cx: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            // The span limits (128 attributes, events, links each) bound a span; the queue counts them only.
            self.spans.push(span, 0);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        flushed(self.spans.flush(FLUSH_TIMEOUT), FLUSH_TIMEOUT)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.spans.close();
        flushed(self.spans.flush(timeout), timeout)
    }
}

/// For flushes asked for through OpenTelemetry's own interface, which names no time.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

fn flushed(complete: bool, timeout: Duration) -> OTelSdkResult {
    if complete {
        Ok(())
    } else {
        Err(OTelSdkError::Timeout(timeout))
    }
}
