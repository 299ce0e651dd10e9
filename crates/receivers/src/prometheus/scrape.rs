//! Why: one target, asked again and again. What it answers becomes series, relabelled and bounded; what it does not answer is told as well, by `up` and by
//! the end of the series that it had.
//!
//! Source: Prometheus, `scrape/scrape.go`; "Jobs and instances"; "Staleness".

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use codec::prometheus::exposition::{self, BadPage};
use codec::prometheus::otlp::{self, Options};
use codec::prometheus::protobuf::{self, BadFamily};
use codec::prometheus::series::{BadLabels, LabelSet, NAME, SeriesList};
use codec::prometheus::text::Format;
use codec::prometheus::{Kind, STALE_NAN};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use memchr::memchr_iter;
use model::{Batch, Encoding, Signal};
use net::dial::{DialError, Reading};
use pipeline::Lease;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};

use super::job::{Job, Protocol};
use super::relabel;
use super::target::{Target, next_at};
use crate::client::{Asked, FetchError};
use crate::inflate::{Coding, InflateError, inflate};
use crate::push::{Pushing, now_unix_nano};

/// A longer page is read by a thread of its own, so that the sockets of this one are not kept waiting.
const INLINE_BYTES: usize = 128 * 1024;

/// What the list of series keeps of each line beside its text, in bytes: a series, a sample, and a label for the name; buffers double as they grow.
const LINE_BYTES: u64 = 256;

/// The same of each label.
const LABEL_BYTES: u64 = 32;

/// Bytes of OTLP that a scrape may take beyond what its series and its page do: those of a page without series.
const LEAST_OTLP_BYTES: u64 = 4096;

/// How far from its moment a scrape may begin and still have it as its time, so that series have the same distance from scrape to scrape. Prometheus' own.
const TOLERANCE: Duration = Duration::from_millis(2);

/// The series that tell of a scrape, whatever became of it.
const UP: &str = "up";
const DURATION: &str = "scrape_duration_seconds";
const SCRAPED: &str = "scrape_samples_scraped";
const RELABELLED: &str = "scrape_samples_post_metric_relabeling";
const ADDED: &str = "scrape_series_added";
/// Those that are told on demand.
const TIMEOUT: &str = "scrape_timeout_seconds";
const SAMPLE_LIMIT: &str = "scrape_sample_limit";
const BODY_SIZE: &str = "scrape_body_size_bytes";

/// Why a target is not asked any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Not,
    /// The process stops; the target is as it was.
    Stop,
    /// Nobody names it any more, so its series end.
    Vanished,
}

/// Why a scrape failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Fetch(#[from] FetchError),
    #[error("no answer in {0:?}")]
    Slow(Duration),
    #[error("HTTP {}", .0.as_u16())]
    Status(StatusCode),
    #[error("it compresses with `{0}`, which was not asked for")]
    Coding(String),
    #[error("the page does not decompress: {0}")]
    Malformed(&'static str),
    #[error("the page is larger than body_size_limit, {0} bytes")]
    TooLarge(usize),
    #[error("there is no memory for the page now")]
    NoMemory,
    #[error("the page cannot be read: {0}")]
    Page(#[from] BadPage),
    #[error("the page cannot be read: {0}")]
    Family(#[from] BadFamily),
    #[error("{0}")]
    Labels(#[from] BadLabels),
    #[error("a series has more than label_limit, {0} labels: {1}")]
    ManyLabels(usize, String),
    #[error("the name of a label is longer than label_name_length_limit, {0} bytes: {1}")]
    LongName(usize, String),
    #[error("the value of a label is longer than label_value_length_limit, {0} bytes: {1}")]
    LongValue(usize, String),
    #[error("there are more samples than sample_limit, {0}")]
    ManySamples(usize),
    #[error("the job has more targets than target_limit, {0}")]
    ManyTargets(usize),
    #[error("as OTLP the page would take more memory than was reserved for it")]
    Growth,
    #[error("the work on the page was lost")]
    Lost,
}

/// What all scrapes of a job share.
pub(crate) struct Shared {
    pub(crate) job: Job,
    pub(crate) pushing: Arc<Pushing>,
    /// One permit per core: more threads would only take turns.
    pub(crate) workers: Arc<Semaphore>,
    /// The job has more targets than it may.
    pub(crate) is_crowded: AtomicBool,
    /// Whether the series on demand are told.
    pub(crate) tells_extra: bool,
}

/// A target and what is known of it from one scrape to the next.
pub(crate) struct Scraper {
    pub(crate) shared: Arc<Shared>,
    pub(crate) target: Arc<Target>,
    pub(crate) asked: Asked,
    /// The series of the last scrape.
    pub(crate) before: SeriesList,
    /// What they take.
    pub(crate) held: Option<Lease>,
    pub(crate) was_up: bool,
}

/// A page as it came.
struct Page {
    bytes: Bytes,
    format: PageFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PageFormat {
    Text(Format),
    Protobuf,
}

/// What was made of a page.
#[derive(Default)]
struct Read {
    list: SeriesList,
    scraped: usize,
    size_bytes: usize,
}

impl Scraper {
    pub(crate) async fn run(mut self, mut ending: watch::Receiver<Ending>) {
        let mut last = 0;
        let ending = loop {
            let now = now_unix_nano();
            let (interval, hash) = (self.target.interval, self.target.hash);
            // A sleep may end a little early; a clock that was set back by more than that is believed.
            let from = if last >= now && last - now < 1_000_000_000 {
                last
            } else {
                now
            };
            let moment = next_at(from, interval, hash);
            last = moment;
            let wait = tokio::time::sleep(Duration::from_nanos(moment - now));
            tokio::select! {
                ended = ending.wait_for(|ending| *ending != Ending::Not) => break ended.map_or(Ending::Stop, |ending| *ending),
                () = wait => {}
            }
            let stopped = async {
                let ended = ending.wait_for(|ending| *ending != Ending::Not).await;
                ended.map_or(Ending::Stop, |ending| *ending)
            };
            tokio::select! {
                ended = stopped => break ended,
                () = self.scrape(moment) => {}
            }
        };
        if ending == Ending::Vanished {
            self.end().await;
        }
    }

    async fn scrape(&mut self, moment: u64) {
        let shared = Arc::clone(&self.shared);
        let now = now_unix_nano();
        let tolerance = u64::try_from(TOLERANCE.as_nanos()).unwrap_or(u64::MAX);
        let time = if now.abs_diff(moment) <= tolerance { moment } else { now };
        let start = Instant::now();
        let mut lease = shared.pushing.intake().budget().charge(0);
        let asked = timeout(self.target.timeout, self.page(&mut lease)).await;
        let read = match asked.unwrap_or(Err(Failure::Slow(self.target.timeout))) {
            Ok(page) => read(&shared, &self.target, page, &mut lease).await,
            Err(failure) => Err(failure),
        };
        let told = read.and_then(|read| self.tell(Some(read), start.elapsed(), time, &mut lease));
        let failure = told.as_ref().err();
        self.note(failure);
        let batch = match told {
            Ok(batch) => batch,
            Err(_) => self.tell(None, start.elapsed(), time, &mut lease).ok().flatten(),
        };
        if let Some(batch) = batch {
            let pushing = Arc::clone(&shared.pushing);
            let pushed = tokio::spawn(async move { pushing.push_held(batch, lease).await });
            // Nobody waits for longer than until the next scrape, but it goes on.
            let patience = self.target.interval.saturating_sub(start.elapsed());
            let _ = timeout(patience, pushed).await;
        }
    }

    /// Asks for the page. Memory is reserved as it arrives.
    async fn page(&self, lease: &mut Lease) -> Result<Page, Failure> {
        let job = &self.shared.job;
        if self.shared.is_crowded.load(Ordering::Relaxed) {
            return Err(Failure::ManyTargets(job.max_targets.unwrap_or(0)));
        }
        let limit_bytes = job.max_body_bytes;
        let mut headers = HeaderMap::new();
        let text = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
        headers.insert(header::ACCEPT, text(&job.accept));
        let coding = if job.compresses { "gzip" } else { "identity" };
        headers.insert(header::ACCEPT_ENCODING, text(coding));
        headers.insert(
            HeaderName::from_static("x-prometheus-scrape-timeout-seconds"),
            text(&self.target.timeout.as_secs_f64().to_string()),
        );
        let mut room = |bytes: u64| lease.grow(bytes);
        let keep = Reading::Keep {
            limit_bytes,
            room: &mut room,
        };
        let answer = match self.asked.ask(&Method::GET, &headers, Bytes::new(), keep).await {
            Ok(answer) => answer,
            Err(FetchError::Dial(DialError::TooLarge { .. })) => return Err(Failure::TooLarge(limit_bytes)),
            Err(FetchError::Dial(DialError::NoRoom { .. })) => return Err(Failure::NoMemory),
            Err(error) => return Err(error.into()),
        };
        if answer.status != StatusCode::OK {
            return Err(Failure::Status(answer.status));
        }
        let said = |name| answer.headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let bytes = match said(header::CONTENT_ENCODING).unwrap_or_default() {
            name if name.is_empty() || name.eq_ignore_ascii_case("identity") => answer.body.clone(),
            name if name.eq_ignore_ascii_case("gzip") => {
                match inflate(Coding::Gzip, &answer.body, limit_bytes, lease) {
                    Ok(inflated) => inflated.bytes.into(),
                    Err(InflateError::TooLarge) => return Err(Failure::TooLarge(limit_bytes)),
                    Err(InflateError::NoMemory) => return Err(Failure::NoMemory),
                    Err(InflateError::Malformed(what)) => return Err(Failure::Malformed(what)),
                }
            }
            other => return Err(Failure::Coding(other.chars().take(32).collect())),
        };
        let named = said(header::CONTENT_TYPE).filter(|kind| !kind.is_empty());
        let format = named.and_then(|kind| match protobuf::is_it(kind) {
            true => Some(PageFormat::Protobuf),
            false => exposition::format(kind).map(PageFormat::Text),
        });
        let format = format.unwrap_or(match job.fallback {
            Protocol::OpenMetrics1 | Protocol::OpenMetrics0 => PageFormat::Text(Format::OpenMetrics),
            Protocol::Text1 | Protocol::Text0 => PageFormat::Text(Format::Text),
            Protocol::Protobuf => PageFormat::Protobuf,
        });
        Ok(Page { bytes, format })
    }

    /// Says once that a target is away, and once that it is back.
    fn note(&mut self, failure: Option<&Failure>) {
        let Target { url, .. } = &*self.target;
        let job = &self.shared.job.name;
        match (failure, std::mem::replace(&mut self.was_up, failure.is_none())) {
            (Some(why), true) => tracing::warn!("the target {url} of the job {job} is down: {why}"),
            (Some(why), false) => tracing::debug!("the target {url} of the job {job} is still down: {why}"),
            (None, false) => tracing::info!("the target {url} of the job {job} is up"),
            (None, true) => {}
        }
    }

    /// The request that tells of a scrape, a failed one if nothing was read.
    fn tell(
        &mut self,
        read: Option<Read>,
        took: Duration,
        time: u64,
        lease: &mut Lease,
    ) -> Result<Option<Batch>, Failure> {
        let shared = Arc::clone(&self.shared);
        let is_up = read.is_some();
        let Read {
            mut list,
            scraped,
            size_bytes,
        } = read.unwrap_or_default();
        let kept = list.len();
        let ended = list.end_missing(&self.before)?;
        let added = kept.saturating_sub(self.before.len().saturating_sub(ended));
        let mut report = vec![
            (UP, f64::from(u8::from(is_up))),
            (DURATION, took.as_secs_f64()),
            (SCRAPED, scraped as f64),
            (RELABELLED, kept as f64),
            (ADDED, added as f64),
        ];
        if shared.tells_extra {
            report.extend([
                (TIMEOUT, self.target.timeout.as_secs_f64()),
                (SAMPLE_LIMIT, shared.job.limits.samples.unwrap_or(0) as f64),
                (BODY_SIZE, size_bytes as f64),
            ]);
        }
        self.report(&mut list, &report);
        // What ends is told even where there is no room for it: it takes less than the series that it lets go.
        let room = list_bytes(&list) + 2 * size_bytes as u64 + LEAST_OTLP_BYTES;
        if !is_up {
            lease.charge(room);
        } else if !lease.grow(room) {
            return Err(Failure::NoMemory);
        }
        let batch = self.build(&list, time, room)?;
        lease.shrink(batch.as_ref().map_or(0, |batch| batch.payload.len() as u64));
        // What the target itself sent is what may be missing the next time. It is in memory already.
        let mut at = 0;
        list.relabel(|_| {
            at += 1;
            at <= kept
        })?;
        list.forget_samples();
        self.held = (!list.is_empty()).then(|| shared.pushing.intake().budget().charge(list_bytes(&list)));
        self.before = list;
        Ok(batch)
    }

    fn report(&self, list: &mut SeriesList, report: &[(&str, f64)]) {
        let external = &self.shared.job.external_labels;
        for (name, value) in report {
            let mut labels = LabelSet::default();
            for (label, value) in self.target.pairs() {
                labels.set(label, value);
            }
            labels.set(NAME, name);
            external.iter().for_each(|(label, value)| labels.set(label, value));
            if let Err(error) = list.push(labels.iter(), Kind::Gauge, *value) {
                tracing::debug!("{name} of {} is not told: {error}", self.target.url);
            }
        }
    }

    /// The series as OTLP of at most so many bytes; `None` if there are no points.
    fn build(&self, list: &SeriesList, time: u64, max_bytes: u64) -> Result<Option<Batch>, Failure> {
        let options = Options {
            time_ms: i64::try_from(time / 1_000_000).unwrap_or(i64::MAX),
            job: otlp::Job::Whole,
            target_info: otlp::TargetInfo::Moved,
            max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX),
        };
        let built = otlp::build(list, &options).map_err(|_| Failure::Growth)?;
        let items = u32::try_from(built.points).map_err(|_| Failure::Growth)?;
        Ok((items > 0).then(|| Batch {
            signal: Signal::Metrics,
            encoding: Encoding::Otlp,
            payload: built.payload.into(),
            items,
            wire: None,
            meta: self.shared.pushing.meta(),
        }))
    }

    /// The target is gone: all that it had ends.
    async fn end(&mut self) {
        let mut list = SeriesList::new();
        let ended = list.end_missing(&self.before);
        let mut report = vec![UP, DURATION, SCRAPED, RELABELLED, ADDED];
        if self.shared.tells_extra {
            report.extend([TIMEOUT, SAMPLE_LIMIT, BODY_SIZE]);
        }
        let stale: Vec<(&str, f64)> = report.into_iter().map(|name| (name, STALE_NAN)).collect();
        self.report(&mut list, &stale);
        if let Err(error) = ended {
            tracing::debug!("{}: {error}", self.target.url);
        }
        let room = list_bytes(&list) + LEAST_OTLP_BYTES;
        let mut lease = self.shared.pushing.intake().budget().charge(room);
        match self.build(&list, now_unix_nano(), room) {
            Ok(Some(batch)) => {
                lease.shrink(batch.payload.len() as u64);
                self.shared.pushing.push_held(batch, lease).await;
            }
            Ok(None) => {}
            Err(error) => tracing::warn!("the end of {} is not told: {error}", self.target.url),
        }
    }
}

/// What a list of series takes, in bytes.
fn list_bytes(list: &SeriesList) -> u64 {
    let of = |name: &str, value: &str| (name.len() + value.len()) as u64 + LABEL_BYTES;
    let labels = list.iter().flat_map(|series| series.labels());
    let labels: u64 = labels.map(|(name, value)| of(name, value)).sum();
    labels + list.len() as u64 * LINE_BYTES + list.native_bytes() as u64
}

/// Reads a page and does with its series what the job says.
async fn read(shared: &Arc<Shared>, target: &Arc<Target>, page: Page, lease: &mut Lease) -> Result<Read, Failure> {
    let (lines, labels, more) = match page.format {
        PageFormat::Text(_) => {
            let lines = memchr_iter(b'\n', &page.bytes).count() as u64;
            (lines, memchr_iter(b'=', &page.bytes).count() as u64, 0)
        }
        PageFormat::Protobuf => {
            let size = protobuf::size(&page.bytes);
            (size.series, size.labels, size.bytes)
        }
    };
    let added = target.labels.len() + shared.job.external_labels.len();
    let text: usize = target.pairs().map(|(name, value)| name.len() + value.len()).sum();
    // Labels are written once as they came and once as they are relabelled, and again as OTLP.
    let list = 2 * (page.bytes.len() as u64 + more)
        + labels * 2 * LABEL_BYTES
        + lines * (LINE_BYTES + (added as u64) * LABEL_BYTES + text as u64);
    if !lease.grow(list) {
        return Err(Failure::NoMemory);
    }
    if page.bytes.len() <= INLINE_BYTES {
        return process(&page, &shared.job, target);
    }
    let (shared, target) = (Arc::clone(shared), Arc::clone(target));
    // The semaphore is never closed.
    let Ok(permit) = Arc::clone(&shared.workers).acquire_owned().await else {
        return Err(Failure::Lost);
    };
    let work = tokio::task::spawn_blocking(move || {
        let read = process(&page, &shared.job, &target);
        drop(permit);
        read
    });
    work.await.unwrap_or(Err(Failure::Lost))
}

fn process(page: &Page, job: &Job, target: &Target) -> Result<Read, Failure> {
    let mut list = match page.format {
        PageFormat::Text(format) => exposition::read(&page.bytes, format)?,
        PageFormat::Protobuf => protobuf::read(&page.bytes, job.histograms)?,
    };
    let scraped = list.len();
    if !job.honors_times {
        list.forget_times();
    }
    let mut failure = None;
    let mut kept = 0;
    let relabelled = list.relabel(|labels| {
        if failure.is_some() {
            return false;
        }
        match series(job, target, labels) {
            Ok(is_kept) => {
                kept += usize::from(is_kept);
                if let Some(limit) = job.limits.samples
                    && kept > limit
                {
                    failure = Some(Failure::ManySamples(limit));
                }
                is_kept
            }
            Err(wrong) => {
                failure = Some(wrong);
                false
            }
        }
    });
    match failure {
        Some(failure) => Err(failure),
        None => {
            relabelled?;
            Ok(Read {
                list,
                scraped,
                size_bytes: page.bytes.len(),
            })
        }
    }
}

/// The labels of one series: those of its target, relabelling, bounds. Whether it stays.
fn series(job: &Job, target: &Target, labels: &mut LabelSet) -> Result<bool, Failure> {
    with_target(job.honors_labels, target, labels);
    if !relabel::apply(&job.metric_relabel, labels) {
        return Ok(false);
    }
    if labels.get(NAME).is_empty() {
        return Err(BadLabels::NoName.into());
    }
    let limits = &job.limits;
    let shown = |labels: &LabelSet| labels.get(NAME).chars().take(100).collect::<String>();
    if let Some(limit) = limits.labels
        && labels.len() > limit
    {
        return Err(Failure::ManyLabels(limit, shown(labels)));
    }
    if limits.label_name_bytes.is_some() || limits.label_value_bytes.is_some() {
        for (name, value) in labels.iter() {
            if let Some(limit) = limits.label_name_bytes
                && name.len() > limit
            {
                return Err(Failure::LongName(limit, shown(labels)));
            }
            if let Some(limit) = limits.label_value_bytes
                && value.len() > limit
            {
                return Err(Failure::LongValue(limit, shown(labels)));
            }
        }
    }
    for (name, value) in &job.external_labels {
        labels.set(name, value);
    }
    Ok(true)
}

/// Adds the labels of the target. What the series has under the same name wins where labels are honoured, and else moves to `exported_…`.
fn with_target(honors_labels: bool, target: &Target, labels: &mut LabelSet) {
    let mut moved: Vec<(String, String)> = Vec::new();
    for (name, value) in target.pairs() {
        let own = labels.get(name);
        if honors_labels {
            if own.is_empty() {
                labels.set(name, value);
            }
            continue;
        }
        if !own.is_empty() {
            moved.push((name.to_owned(), own.to_owned()));
        }
        labels.set(name, value);
    }
    for (name, value) in moved {
        let mut new = format!("exported_{name}");
        while !labels.get(&new).is_empty() {
            new.insert_str(0, "exported_");
        }
        labels.set(&new, &value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> LabelSet {
        let mut set = LabelSet::default();
        pairs.iter().for_each(|(name, value)| set.set(name, value));
        set
    }

    fn check(honors: bool, own: &[(&str, &str)], expect: &str) {
        let target = Target {
            url: String::new(),
            labels: vec![("instance".into(), "h:1".into()), ("job".into(), "j".into())],
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            hash: 0,
        };
        let mut set = labels(own);
        with_target(honors, &target, &mut set);
        let mut got: Vec<String> = set.iter().map(|(name, value)| format!("{name}={value}")).collect();
        got.sort();
        assert_eq!(got.join(" "), expect);
    }

    #[test]
    fn the_targets_labels_and_the_series_own() {
        check(false, &[("a", "b")], "a=b instance=h:1 job=j");
        check(false, &[("job", "x")], "exported_job=x instance=h:1 job=j");
        check(true, &[("job", "x")], "instance=h:1 job=x");
        check(
            false,
            &[("job", "x"), ("exported_job", "y")],
            "exported_exported_job=x exported_job=y instance=h:1 job=j",
        );
    }
}
