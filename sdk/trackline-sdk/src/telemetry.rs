//! A service's telemetry as a whole: what `init` builds, what instrumentation uses, what the guard ends.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::Context;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing::Level;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;

use crate::ai::Prices;
use crate::export::{Counts, Health};
use crate::logs::layer::LogLayer;
use crate::logs::line::Format;
use crate::logs::otlp::{Records, SCOPE};
use crate::logs::stdout::Lines;
use crate::logs::{Entry, Fields, Place, error_span, otlp, stdout, thread_name};
use crate::settings::{Choices, Protocol, Settings, Trust};
use crate::traces::{self, Spans};
use crate::{panics, resource};

/// The telemetry of a service. Cheap to clone; all clones are the same one.
#[derive(Clone)]
pub struct Telemetry {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    filter: Targets,
    provider: Option<SdkTracerProvider>,
    tracer: Option<SdkTracer>,
    spans: Option<Spans>,
    records: Option<Records>,
    lines: Option<Lines>,
    span_counts: Arc<Counts>,
    record_counts: Arc<Counts>,
    lines_written: Arc<AtomicU64>,
    prices: Prices,
    problems: Vec<String>,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry")
            .field("service", &self.inner.settings.service)
            .field("environment", &self.inner.settings.environment)
            .finish_non_exhaustive()
    }
}

static GLOBAL: OnceLock<Telemetry> = OnceLock::new();

impl Telemetry {
    /// Describes the telemetry of the service `name`; [`Builder::init`] turns it on.
    pub fn builder(name: impl Into<String>) -> Builder {
        Builder {
            choices: Choices {
                service: name.into(),
                ..Choices::default()
            },
            sink: None,
        }
    }

    /// The telemetry that [`Builder::init`] turned on for this process; one that does nothing before that.
    pub fn global() -> &'static Telemetry {
        static NOTHING: OnceLock<Telemetry> = OnceLock::new();
        GLOBAL.get().unwrap_or_else(|| NOTHING.get_or_init(Telemetry::nothing))
    }

    fn nothing() -> Telemetry {
        let mut problems = Vec::new();
        let settings = Settings::resolve(Choices::default(), &|_| None, &mut problems);
        Telemetry {
            inner: Arc::new(Inner {
                prices: Prices::built_in(),
                filter: Targets::new(),
                settings,
                provider: None,
                tracer: None,
                spans: None,
                records: None,
                lines: None,
                span_counts: Arc::default(),
                record_counts: Arc::default(),
                lines_written: Arc::default(),
                problems,
            }),
        }
    }

    fn start(choices: Choices, sink: Option<Box<dyn Write + Send>>) -> Telemetry {
        let mut problems = Vec::new();
        let env = |name: &str| std::env::var(name).ok();
        let settings = Settings::resolve(choices, &env, &mut problems);
        let filter = settings.log_filter.parse().unwrap_or_else(|error| {
            problems.push(format!(
                "the log filter {:?} cannot be read ({error}); logging from INFO",
                settings.log_filter
            ));
            Targets::new().with_default(Level::INFO)
        });
        let resource = resource::describe(&settings);
        let lines_written = Arc::new(AtomicU64::new(0));
        let lines = settings.stdout.then(|| {
            let format = Format {
                service: settings.service.clone(),
                environment: settings.environment.clone(),
                max_bytes: settings.line_bytes,
                max_fields: settings.line_fields,
            };
            let sink = sink.unwrap_or_else(|| Box::new(std::io::stdout()));
            stdout::start(format, sink, lines_written.clone())
        });
        let lines = match lines {
            Some(Ok(lines)) => Some(lines),
            Some(Err(error)) => {
                problems.push(format!("cannot start the thread that writes log lines: {error}"));
                None
            }
            None => None,
        };
        let span_counts: Arc<Counts> = Arc::default();
        let record_counts: Arc<Counts> = Arc::default();
        let report = |signal: &'static str| {
            let lines = lines.clone();
            move |health: Health| {
                if let Some(lines) = &lines {
                    let entry = health_entry(signal, health);
                    let weight = entry.weight();
                    lines.push(Arc::new(entry), weight);
                }
            }
        };
        let spans = settings.traces.as_ref().and_then(|target| {
            traces::start(&settings, target, &resource, span_counts.clone(), report("traces"))
                .map_err(|error| problems.push(error.to_string()))
                .ok()
        });
        let records = settings.logs.as_ref().and_then(|target| {
            otlp::start(target, &resource, record_counts.clone(), report("logs"))
                .map_err(|error| problems.push(error.to_string()))
                .ok()
        });
        let prices = Prices::with_overrides(settings.ai_prices.as_deref()).unwrap_or_else(|error| {
            problems.push(error);
            Prices::built_in()
        });
        let provider = traces::provider(&settings, &resource, spans.clone());
        Telemetry {
            inner: Arc::new(Inner {
                tracer: Some(provider.tracer(SCOPE)),
                provider: Some(provider),
                settings,
                filter,
                spans,
                records,
                lines,
                span_counts,
                record_counts,
                lines_written,
                prices,
                problems,
            }),
        }
    }

    /// The layer that feeds `tracing` events into this telemetry. [`Builder::init`] installs it; this is for
    /// programs that compose their own subscriber.
    pub fn layer<S>(&self) -> impl tracing_subscriber::Layer<S> + Send + Sync + 'static
    where
        S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    {
        LogLayer::new(self.clone()).with_filter(self.inner.filter.clone())
    }

    /// The tracer for spans of our own; `None` before `init`.
    pub fn tracer(&self) -> Option<&SdkTracer> {
        self.inner.tracer.as_ref()
    }

    /// Name of the service as its resource says it.
    pub fn service(&self) -> &str {
        &self.inner.settings.service
    }

    /// Short name of the environment.
    pub fn environment(&self) -> &str {
        &self.inner.settings.environment
    }

    /// What of a caller's trace is believed.
    pub fn trust(&self) -> Trust {
        self.inner.settings.trust
    }

    /// What could not be set up as asked, one sentence each. They are logged at the start as well.
    pub fn problems(&self) -> &[String] {
        &self.inner.problems
    }

    pub(crate) fn writes_lines(&self) -> bool {
        self.inner.lines.is_some()
    }

    pub(crate) fn prices(&self) -> &Prices {
        &self.inner.prices
    }

    /// True if every request shall end in a log line, and a line of this level would be written.
    pub fn logs_requests(&self, level: Level) -> bool {
        self.inner.settings.request_log && self.inner.filter.would_enable(REQUEST_LOGGER, &level)
    }

    /// Writes the log line of a finished request (SPEC L6) in the span of `context`.
    pub fn log_request(
        &self,
        context: &Context,
        level: Level,
        message: impl Into<Cow<'static, str>>,
        fields: Vec<(Cow<'static, str>, crate::Field)>,
    ) {
        let entry = Entry {
            time: SystemTime::now(),
            level,
            message: message.into(),
            logger: REQUEST_LOGGER,
            thread: thread_name(),
            module: module_path!(),
            function: Cow::Borrowed("log_request"),
            path: file!(),
            line: line!(),
            place: Place::of(context),
            fields,
        };
        if level == Level::ERROR {
            error_span::record(context, &entry, error_span::Kind::RequestEnd);
        }
        self.emit(entry);
    }

    /// Writes an ERROR log in the current span for a caught panic or another failure that no `tracing` event told of.
    pub(crate) fn log_failure(&self, place: &Location, message: String, fields: Fields) {
        let entry = Entry {
            time: SystemTime::now(),
            level: Level::ERROR,
            message: message.into(),
            logger: place.logger,
            thread: thread_name(),
            module: place.logger,
            function: Cow::Borrowed(""),
            path: place.path,
            line: place.line,
            place: Place::current(),
            fields,
        };
        error_span::record(&Context::current(), &entry, error_span::Kind::Exception);
        self.emit(entry);
    }

    pub(crate) fn emit(&self, entry: Entry) {
        let weight = entry.weight();
        let entry = Arc::new(entry);
        if let Some(lines) = &self.inner.lines {
            lines.push(entry.clone(), weight);
        }
        if let Some(records) = &self.inner.records {
            records.push(entry, weight);
        }
    }

    /// Counters of what was sent, lost to bounds and lost to failures, since the start.
    pub fn stats(&self) -> Stats {
        let inner = &*self.inner;
        let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Stats {
            spans_exported: count(&inner.span_counts.exported),
            spans_failed: count(&inner.span_counts.failed),
            spans_dropped: inner.spans.as_ref().map_or(0, |queue| queue.dropped()),
            logs_exported: count(&inner.record_counts.exported),
            logs_failed: count(&inner.record_counts.failed),
            logs_dropped: inner.records.as_ref().map_or(0, |queue| queue.dropped()),
            lines_written: count(&inner.lines_written),
            lines_dropped: inner.lines.as_ref().map_or(0, |queue| queue.dropped()),
        }
    }

    /// Sends everything recorded so far. Blocks for at most `timeout`; false if that was not enough.
    pub fn flush(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let left = || deadline.saturating_duration_since(Instant::now());
        let inner = &*self.inner;
        let spans = inner.spans.as_ref().is_none_or(|queue| queue.flush(left()));
        let records = inner.records.as_ref().is_none_or(|queue| queue.flush(left()));
        // Last, because failing exports are lines too.
        let lines = inner
            .lines
            .as_ref()
            .is_none_or(|queue| queue.flush(left().max(LINES_GRACE)));
        spans && records && lines
    }

    fn end(&self, timeout: Duration) -> bool {
        let complete = self.flush(timeout);
        let inner = &*self.inner;
        if let Some(provider) = &inner.provider {
            // Everything has been flushed as far as the time allowed; this only closes the door.
            let _ = provider.shutdown_with_timeout(Duration::ZERO);
        }
        if let Some(records) = &inner.records {
            records.close();
        }
        // The line writer stays: what a service says after this is still written.
        complete
    }
}

/// Time for the last lines when exporting has used up all there was: writing to a pipe that someone reads takes less.
const LINES_GRACE: Duration = Duration::from_millis(500);

const REQUEST_LOGGER: &str = "trackline::request";

/// Where a failure was noticed.
pub(crate) struct Location {
    pub logger: &'static str,
    pub path: &'static str,
    pub line: u32,
}

fn health_entry(signal: &'static str, health: Health) -> Entry {
    let (level, message) = match health {
        Health::Failing(reason) => (
            Level::WARN,
            format!(
                "cannot export {signal}: {reason}; the service runs on, telemetry that does not fit its queue is dropped"
            ),
        ),
        Health::Recovered => (Level::INFO, format!("exporting {signal} again")),
    };
    own_entry(level, message)
}

fn own_entry(level: Level, message: String) -> Entry {
    Entry {
        time: SystemTime::now(),
        level,
        message: message.into(),
        logger: "trackline",
        thread: thread_name(),
        module: module_path!(),
        function: Cow::Borrowed(""),
        path: file!(),
        line: line!(),
        place: None,
        fields: Vec::new(),
    }
}

/// See [`Telemetry::stats`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// Spans that the collector took.
    pub spans_exported: u64,
    /// Spans lost because exporting failed after its retries.
    pub spans_failed: u64,
    /// Spans lost because the queue was full.
    pub spans_dropped: u64,
    /// Log records that the collector took.
    pub logs_exported: u64,
    /// Log records lost because exporting failed after its retries.
    pub logs_failed: u64,
    /// Log records lost because the queue was full.
    pub logs_dropped: u64,
    /// Log lines written.
    pub lines_written: u64,
    /// Log lines lost because the reader of stdout was too slow.
    pub lines_dropped: u64,
}

/// Options of a service's telemetry. The `OTEL_*` variables override what is said here.
#[must_use = "nothing is turned on before `init`"]
pub struct Builder {
    choices: Choices,
    sink: Option<Box<dyn Write + Send>>,
}

impl Builder {
    /// Version of the service; `1.0.0` if not said.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.choices.version = Some(version.into());
        self
    }

    /// `dev`, `staging` or `prod`; long names (`production`) are shortened. Otherwise `ENVIRONMENT`, otherwise `dev`.
    pub fn environment(mut self, environment: impl Into<String>) -> Self {
        self.choices.environment = Some(environment.into());
        self
    }

    /// The project label of all signals.
    pub fn project(mut self, project: impl Into<String>) -> Self {
        self.choices.project = Some(project.into());
        self
    }

    /// The collector's address; `http://localhost:4317` if not said.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.choices.endpoint = Some(endpoint.into());
        self
    }

    /// gRPC, or protobuf over HTTP.
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.choices.protocol = Some(protocol);
        self
    }

    /// An attribute of the resource: on everything this process sends.
    pub fn resource(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.choices.resource.push((key.into(), value.into()));
        self
    }

    /// What of a caller's trace is believed; [`Trust::Ids`] if not said.
    pub fn trust(mut self, trust: Trust) -> Self {
        self.choices.trust = trust;
        self
    }

    /// Share of traces recorded, 0.0 to 1.0; if not said 0.1 in `prod` and 1.0 elsewhere.
    pub fn sample_ratio(mut self, ratio: f64) -> Self {
        self.choices.ratio = Some(ratio);
        self
    }

    /// Which events are logged, as `info,my_crate=debug`; `RUST_LOG` overrides it. If not said: from INFO in `prod`,
    /// from DEBUG elsewhere.
    pub fn log_filter(mut self, filter: impl Into<String>) -> Self {
        self.choices.log_filter = Some(filter.into());
        self
    }

    /// Whether log lines are written to stdout; they are if not said.
    pub fn stdout(mut self, on: bool) -> Self {
        self.choices.stdout = Some(on);
        self
    }

    /// Writes log lines here instead of stdout.
    pub fn log_sink(mut self, sink: impl Write + Send + 'static) -> Self {
        self.sink = Some(Box::new(sink));
        self
    }

    /// Bytes of a log line at most (2 KiB to 256 KiB); 16 KiB if not said.
    pub fn line_bytes(mut self, bytes: usize) -> Self {
        self.choices.line_bytes = Some(bytes);
        self
    }

    /// Fields of a log line at most (40 to 900); 200 if not said.
    pub fn line_fields(mut self, fields: usize) -> Self {
        self.choices.line_fields = Some(fields);
        self
    }

    /// Whether every request ends in a log line; it does if not said.
    pub fn request_log(mut self, on: bool) -> Self {
        self.choices.request_log = Some(on);
        self
    }

    /// Whether panics are logged as JSON in place of the default message on stderr; they are if not said.
    pub fn panic_hook(mut self, on: bool) -> Self {
        self.choices.panic_hook = Some(on);
        self
    }

    /// How long the guard waits for the last telemetry to be sent; 5 s if not said.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.choices.shutdown_timeout = Some(timeout);
        self
    }

    /// Prices of AI models beside or instead of the built-in ones: JSON text in the form of `data/ai-prices.json`, or
    /// the path of such a file. `TRACKLINE_AI_PRICES` overrides it.
    pub fn ai_prices(mut self, json_or_path: impl Into<String>) -> Self {
        self.choices.ai_prices = Some(json_or_path.into());
        self
    }

    /// Turns telemetry on for this process. Never fails: what cannot be set up is logged and left out.
    pub fn init(self) -> Guard {
        let telemetry = self.build();
        let inner = &telemetry.inner;
        let mut problems = inner.problems.clone();
        if GLOBAL.set(telemetry.clone()).is_err() {
            problems.push("telemetry was on already; instrumentation keeps using the first one".to_owned());
        } else if inner.settings.panic_hook {
            panics::install(&telemetry);
        }
        let subscriber = tracing_subscriber::registry().with(telemetry.layer());
        if tracing::subscriber::set_global_default(subscriber).is_err() {
            problems.push(
                "another `tracing` subscriber is installed; its events reach telemetry only through \
                 `Telemetry::layer`"
                    .to_owned(),
            );
        }
        for problem in problems {
            telemetry.emit(own_entry(Level::WARN, format!("telemetry set-up: {problem}")));
        }
        Guard {
            telemetry: Some(telemetry),
        }
    }

    /// Starts telemetry without making it the process's own: no `tracing` subscriber, no panic hook. For programs
    /// that hold several services, such as tests.
    pub fn build(self) -> Telemetry {
        Telemetry::start(self.choices, self.sink)
    }
}

/// Keeps telemetry on. Dropping it sends what is left, for at most [`Builder::shutdown_timeout`].
#[must_use = "dropping the guard turns telemetry off"]
#[derive(Debug)]
pub struct Guard {
    telemetry: Option<Telemetry>,
}

impl Guard {
    /// The telemetry that this guard keeps on.
    pub fn telemetry(&self) -> &Telemetry {
        self.telemetry.as_ref().unwrap_or_else(|| Telemetry::global())
    }

    /// Sends what is left without blocking the runtime. False if the time was not enough.
    pub async fn shutdown(mut self) -> bool {
        let Some(telemetry) = self.telemetry.take() else {
            return true;
        };
        let (done, ended) = tokio::sync::oneshot::channel();
        let ending = telemetry.clone();
        let spawned = std::thread::Builder::new()
            .name("trackline-shutdown".to_owned())
            .spawn(move || {
                let _ = done.send(ending.end(ending.inner.settings.shutdown_timeout));
            });
        match spawned {
            Ok(_) => ended.await.unwrap_or(false),
            Err(_) => telemetry.end(telemetry.inner.settings.shutdown_timeout),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(telemetry) = self.telemetry.take() {
            telemetry.end(telemetry.inner.settings.shutdown_timeout);
        }
    }
}
