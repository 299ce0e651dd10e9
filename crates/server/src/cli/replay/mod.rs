//! `trackline replay`: sends again what a journal or recorded files hold, at its own speed or another, with its own times or shifted ones.
//!
//! A thread reads, in order; one request at a time is sent, and how far it got is written to a small file after each answer. What was delivered is
//! therefore not sent again by `--resume`, but for the one request whose answer was still out when the process was killed.

mod settings;
mod source;
mod state;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use exporters::otlp::Otlp;
use exporters::otlphttp::OtlpHttp;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use model::canonical::canonicalize;
use model::edit::shift;
use model::{Batch, Signal};
use pipeline::{Exporter, Outcome};
use query::instant::{duration_text, now_unix_nano, rfc3339};
use serde::Serialize;
use tokio::time::Instant;

use self::settings::{Protocol, Settings, Speed};
use self::source::{Item, Source};
use self::state::State;
use super::{FOUND, Failure, NOT_FOUND, UNREACHABLE, finish};

pub use self::settings::ReplayArgs;

/// The first wait after a refusal that names none, and the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long an interrupted attempt is waited for.
const LAST_ANSWER: Duration = Duration::from_secs(5);
/// What a shell says of a process that Ctrl-C ended.
const INTERRUPTED: u8 = 130;
/// Batches that wait to be sent: enough that reading is not what is waited for.
const READ_AHEAD: usize = 2;

/// What became of it.
#[derive(Debug, Default, Serialize)]
struct Summary {
    finished: bool,
    sent_requests: u64,
    sent_spans: u64,
    sent_log_records: u64,
    sent_data_points: u64,
    /// Items that the endpoint will never take.
    rejected_items: u64,
    /// Why, in its words.
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected_because: Option<String>,
    retries: u64,
    /// Records and lines that could not be read.
    unreadable: u64,
    shifted_by_ns: i64,
    took_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// The file from which `--resume` goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
}

impl ReplayArgs {
    pub fn run(self) -> ExitCode {
        let as_json = self.json;
        finish(self.settings().and_then(|settings| {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .map_err(|error| unreachable(error.to_string()))?;
            let (summary, code) = runtime.block_on(replay(&settings))?;
            // The thread that reads may be in the middle of a large record.
            runtime.shutdown_background();
            let text = match as_json {
                true => format!(
                    "{}\n",
                    serde_json::to_string(&summary).map_err(|error| unreachable(error.to_string()))?
                ),
                false => told(&summary, &settings),
            };
            Ok((text, code))
        }))
    }
}

fn unreachable(text: String) -> Failure {
    Failure {
        code: UNREACHABLE,
        text,
    }
}

/// The summary in words.
fn told(summary: &Summary, settings: &Settings) -> String {
    let mut parts = Vec::new();
    for (count, what) in [
        (summary.sent_spans, "spans"),
        (summary.sent_log_records, "log records"),
        (summary.sent_data_points, "data points"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    if parts.is_empty() {
        parts.push("nothing".to_owned());
    }
    let took = duration_text(summary.took_ms.saturating_mul(1_000_000));
    let mut text = format!("sent {} to {} in {took}\n", parts.join(", "), settings.endpoint);
    if summary.rejected_items > 0 {
        let why = summary.rejected_because.as_deref().unwrap_or("no reason given");
        text.push_str(&format!(
            "{} items were refused for good: {why}\n",
            summary.rejected_items
        ));
    }
    if summary.unreadable > 0 {
        text.push_str(&format!("{} records could not be read\n", summary.unreadable));
    }
    if let Some(problem) = &summary.problem {
        text.push_str(&format!("not finished: {problem}\n"));
    }
    if let Some(state) = &summary.state {
        text.push_str(&format!(
            "to go on from here, repeat the command with --resume (it reads {state})\n"
        ));
    }
    text
}

async fn replay(settings: &Settings) -> Result<(Summary, u8), Failure> {
    let source = Source::open(settings)?;
    let mut state = State::begin(settings, &source)?;
    let exporter = exporter(settings)?;
    let (sender, mut items) = tokio::sync::mpsc::channel(READ_AHEAD);
    let after = state.position();
    let reader = {
        let (source, settings) = (source.clone(), settings.clone());
        tokio::task::spawn_blocking(move || source.read(&settings, after, &sender))
    };
    let bar = bar(settings, &source);
    let began = Instant::now();
    let mut summary = Summary::default();
    let mut first = None;
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let mut code = FOUND;
    loop {
        let item = tokio::select! {
            item = items.recv() => item,
            _ = &mut interrupted => {
                (summary.problem, code) = (Some("interrupted".to_owned()), INTERRUPTED);
                break;
            }
        };
        let Some(Item {
            position,
            at_unix_nano,
            progress,
            batch,
        }) = item
        else {
            break;
        };
        let (first_at, started) = *first.get_or_insert((at_unix_nano, Instant::now()));
        // Where times are shifted to now, the newest is to be new when it is sent.
        let shift_nanos = *state
            .shift_nanos
            .get_or_insert_with(|| settings.shift(first_at, source.last_unix_nano(settings), now_unix_nano()));
        summary.shifted_by_ns = shift_nanos;
        if let Speed::Times(times) = settings.speed {
            let due = started + Duration::from_nanos(at_unix_nano.saturating_sub(first_at)).div_f64(times);
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                _ = &mut interrupted => {
                    (summary.problem, code) = (Some("interrupted".to_owned()), INTERRUPTED);
                    break;
                }
            }
        }
        bar.set_position(progress);
        bar.set_message(rfc3339(at_unix_nano, 0));
        if let Some(batch) = chosen(&batch, settings) {
            let batch = shift(&batch, shift_nanos);
            let (sent, is_last) = {
                let sending = send(&*exporter, &batch, settings, &mut summary, &bar);
                tokio::pin!(sending);
                tokio::select! {
                    sent = &mut sending => (sent, false),
                    // What is under way is waited for, so that it is known what became of it.
                    _ = &mut interrupted => match tokio::time::timeout(LAST_ANSWER, sending).await {
                        Ok(sent) => (sent, true),
                        Err(_) => (Err(("interrupted".to_owned(), INTERRUPTED)), true),
                    },
                }
            };
            if let Err((problem, ends_with)) = sent {
                (summary.problem, code) = (Some(problem), ends_with);
                break;
            }
            if is_last {
                (summary.problem, code) = (Some("interrupted".to_owned()), INTERRUPTED);
            }
            count(&mut summary, &batch);
        }
        state
            .passed(position)
            .map_err(|error| unreachable(format!("{}: {error}", settings.state.display())))?;
        if summary.problem.is_some() {
            break;
        }
    }
    bar.finish_and_clear();
    // A reader whose channel is closed comes to its end.
    drop(items);
    exporter.close().await;
    if summary.problem.is_none() {
        summary.unreadable = reader.await.map_err(|error| unreachable(error.to_string()))??;
        summary.finished = true;
    }
    summary.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    match summary.finished {
        true => state.done(),
        false => summary.state = Some(settings.state.display().to_string()),
    }
    if summary.finished && summary.sent_requests == 0 {
        code = NOT_FOUND;
    }
    Ok((summary, code))
}

fn exporter(settings: &Settings) -> Result<Box<dyn Exporter>, Failure> {
    let usage = |error: String| Failure::usage(format!("--endpoint: {error}"));
    let shared = settings.shared.clone();
    match settings.protocol {
        Protocol::Grpc => {
            let own = exporters::otlp::Settings {
                endpoint: settings.endpoint.clone(),
            };
            let exporter =
                Otlp::new(&exporters::sender::Sender { own, shared }).map_err(|error| usage(error.to_string()))?;
            Ok(Box::new(exporter))
        }
        Protocol::Http => {
            let own = exporters::otlphttp::Settings {
                endpoint: Some(settings.endpoint.clone()),
                traces_endpoint: None,
                logs_endpoint: None,
                metrics_endpoint: None,
                encoding: exporters::otlphttp::Encoding::Proto,
                proxy_url: None,
            };
            let exporter =
                OtlpHttp::new(&exporters::sender::Sender { own, shared }).map_err(|error| usage(error.to_string()))?;
            Ok(Box::new(exporter))
        }
    }
}

/// Sends one request, as often as it takes. An attempt that is interrupted may have been delivered; nobody knows.
async fn send(
    exporter: &dyn Exporter,
    batch: &Batch,
    settings: &Settings,
    summary: &mut Summary,
    bar: &ProgressBar,
) -> Result<(), (String, u8)> {
    let began = Instant::now();
    let mut wait = FIRST_WAIT;
    loop {
        let outcome = match tokio::time::timeout(settings.timeout, exporter.export(batch.clone())).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::retry(wait, pipeline::Reason::BackendUnavailable),
        };
        match outcome {
            Outcome::Delivered => return Ok(()),
            Outcome::Rejected { reason, items } => {
                summary.rejected_items += u64::from(items);
                summary
                    .rejected_because
                    .get_or_insert_with(|| reason.message.to_string());
                return Ok(());
            }
            // Whoever replays is there to see to it, and goes on from here.
            Outcome::Retry {
                reason: reason @ pipeline::Reason::BackendUnauthorized,
                ..
            } => {
                let problem = format!("{}: {}; see `--header`", settings.endpoint, reason.explanation());
                return Err((problem, UNREACHABLE));
            }
            Outcome::Retry { after, reason } => {
                summary.retries += 1;
                if began.elapsed() >= settings.max_wait {
                    let waited = duration_text(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
                    let problem = format!(
                        "{} took nothing for {waited}: {}",
                        settings.endpoint,
                        reason.explanation()
                    );
                    return Err((problem, UNREACHABLE));
                }
                bar.set_message(format!("{}; trying again", reason.explanation()));
                tokio::time::sleep(after.clamp(FIRST_WAIT, LONGEST_WAIT).max(wait)).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }
}

fn count(summary: &mut Summary, batch: &Batch) {
    summary.sent_requests += 1;
    let items = u64::from(batch.items);
    match batch.signal {
        Signal::Traces => summary.sent_spans += items,
        Signal::Logs => summary.sent_log_records += items,
        Signal::Metrics => summary.sent_data_points += items,
    }
}

/// The resources of a batch that the filters take; `None` if there are none.
fn chosen(batch: &Batch, settings: &Settings) -> Option<Batch> {
    use model::view::{Resource, View};
    use model::wire::{Fields, Payload, put_bytes};
    if settings.filters.is_empty() {
        return (batch.items > 0).then(|| batch.clone());
    }
    let mut kept = Vec::new();
    for (number, group) in Fields::new(&batch.payload) {
        let (1, Payload::Bytes(group)) = (number, group) else {
            continue;
        };
        let resource = Fields::new(group).find_map(|(number, payload)| match (number, payload) {
            (1, Payload::Bytes(resource)) => Some(Resource::read(resource)),
            _ => None,
        });
        let has = |key: &str, value: &str| {
            resource.is_some_and(|resource: Resource<'_>| {
                resource
                    .attributes
                    .iter()
                    .any(|pair| pair.key == key && text_of(&pair.value) == value)
            })
        };
        if settings
            .filters
            .iter()
            .all(|(keys, value)| keys.iter().any(|key| has(key, value)))
        {
            put_bytes(&mut kept, 1, group);
        }
    }
    if kept.len() == batch.payload.len() {
        return Some(batch.clone());
    }
    let canonical = canonicalize(batch.signal, Bytes::from(kept))
        .ok()
        .filter(|canonical| canonical.items > 0)?;
    Some(batch.edited(canonical.payload, canonical.items))
}

fn text_of(value: &model::view::AnyValue<'_>) -> String {
    let mut text = Vec::new();
    codec::value_text::write_text(value, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Only on a terminal, and on stderr, so that what is printed at the end stands alone.
fn bar(settings: &Settings, source: &Source) -> ProgressBar {
    if settings.is_quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let bar = ProgressBar::new(source.length(settings));
    // The template is a constant, and right.
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent}% {eta} left · {msg}") {
        bar.set_style(style);
    }
    bar
}
