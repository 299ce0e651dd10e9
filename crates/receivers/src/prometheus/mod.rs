//! Scrapes metrics as Prometheus does, from a configuration as it is in a `prometheus.yml`.
//!
//! ```yaml
//! receivers:
//!   prometheus:
//!     config:
//!       global: { scrape_interval: 15s }
//!       scrape_configs:
//!         - job_name: api-gateway
//!           static_configs: [ { targets: [ "127.0.0.1:8000" ] } ]
//! ```
//!
//! Each job has a task that keeps its targets, from what its sources of discovery name; each target has a task that asks it at its moments of the interval.
//! A scrape becomes one batch; what the pipeline refuses is dropped and counted, because the next scrape is newer.
//!
//! **What it costs.** 10,000 series of four labels (1.1 MB in text) take 27 ms of a core from page to OTLP, or 22 ms in protobuf, and 450 bytes a series until the
//! next scrape, which tells by them what has ended: 4.5 MB for such a target. Measured on a busy virtual core; `cargo bench -p receivers --bench prometheus` prints it.

mod config;
mod discovery;
mod job;
mod relabel;
mod scrape;
mod target;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use codec::prometheus::series::SeriesList;
use model::Signal;
use net::Doors;
use pipeline::Intake;
use pipeline::config::yaml::MAX_SOURCE_BYTES;
use pipeline::config::{Problems, Section, Source, read};
use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};

use self::config::{PrometheusYml, ScrapeConfig};
use self::discovery::{Files, Found, Group, Service};
use self::job::{Job, Mistake};
use self::scrape::{Ending, Scraper, Shared};
use self::target::Target;
use crate::client::{Asked, Asking};
use crate::push::Pushing;
use crate::settings::{self, MountError, Mounted, Stop};

/// The only signal that it makes.
pub const SIGNALS: [Signal; 1] = [Signal::Metrics];

/// Targets of one job. Each has a task, a connection and the labels of its last scrape; who has more shares them among several processes.
const MAX_TARGETS: usize = 10_000;

/// Bytes of the labels of all targets of one job, so that a discovery with long labels takes no more than one with many targets.
const MAX_TARGETS_BYTES: usize = 32 << 20;

/// Mistakes in targets that are told in the log; the others are counted there.
const MAX_MISTAKES: usize = 20;

/// News of discovery that wait until a job has taken them in.
const MAX_NEWS: usize = 16;

/// Metrics of targets that expose them in Prometheus' text format, OpenMetrics or Prometheus' protobuf.
///
/// ```yaml
/// receivers:
///   prometheus:
///     config:
///       global: { scrape_interval: 15s }
///       scrape_configs:
///         - job_name: api-gateway
///           static_configs: [ { targets: [ "127.0.0.1:8000" ] } ]
/// ```
///
/// `config` is what stands in a `prometheus.yml`; `config: ${file:/etc/prometheus/prometheus.yml}` takes it from there. Written here, a `$` is `$$`, as in
/// `replacement: $$1`. Beside its own series each target has `up`, `scrape_duration_seconds`, `scrape_samples_scraped`,
/// `scrape_samples_post_metric_relabeling` and `scrape_series_added`. A series that is not there any more ends with a point that says so, and so do all of a
/// target that is down or not named any more.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A `prometheus.yml`.
    pub config: PrometheusYml,
    /// Whether each scrape also tells `scrape_timeout_seconds`, `scrape_sample_limit` and `scrape_body_size_bytes`. Default false.
    #[serde(default)]
    pub report_extra_scrape_metrics: bool,
    /// Must be false: names stay as they are.
    #[serde(default, deserialize_with = "no_trimming")]
    pub trim_metric_suffixes: bool,
    /// Without effect, as all below: counters start when a page of OpenMetrics says so.
    #[serde(default)]
    pub use_start_time_metric: Option<IgnoredAny>,
    /// Without effect.
    #[serde(default)]
    pub start_time_metric_regex: Option<IgnoredAny>,
    /// Without effect.
    #[serde(default)]
    pub buffer_period: Option<IgnoredAny>,
    /// Without effect.
    #[serde(default)]
    pub buffer_count: Option<IgnoredAny>,
    /// Must be absent: targets come from files, or from services over HTTP.
    #[serde(default, deserialize_with = "no_allocator")]
    pub target_allocator: (),
}

fn no_trimming<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    if bool::deserialize(deserializer)? {
        return Err(D::Error::custom("names stay as targets write them; leave it out"));
    }
    Ok(false)
}

fn no_allocator<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(deserializer)?;
    Err(D::Error::custom(
        "targets are not taken from an allocator; its `/jobs/…/targets` can be asked with `http_sd_configs`",
    ))
}

/// Keys of a `prometheus.yml` that mean something which does not happen here, at its top and in its jobs.
const REFUSED: [(&str, &str); 3] = [
    (
        "rule_files",
        "rules are not evaluated here; give them to what stores the metrics",
    ),
    ("remote_write", "write with the exporter `prometheusremotewrite`"),
    ("remote_read", "nothing is read from elsewhere here; leave it out"),
];
const REFUSED_IN_JOBS: [(&str, &str); 5] = [
    (
        "oauth2",
        "tokens are not fetched here; write them to a file for `authorization.credentials_file`",
    ),
    ("proxy_url", "targets cannot be asked through a proxy"),
    ("proxy_from_environment", "targets cannot be asked through a proxy"),
    ("proxy_connect_header", "targets cannot be asked through a proxy"),
    ("no_proxy", "targets cannot be asked through a proxy; leave it out"),
];

/// What discovery Prometheus has beside that.
const DISCOVERIES_ELSEWHERE: [&str; 25] = [
    "azure_sd_configs",
    "consul_sd_configs",
    "digitalocean_sd_configs",
    "dns_sd_configs",
    "docker_sd_configs",
    "dockerswarm_sd_configs",
    "ec2_sd_configs",
    "eureka_sd_configs",
    "gce_sd_configs",
    "hetzner_sd_configs",
    "ionos_sd_configs",
    "kubernetes_sd_configs",
    "kuma_sd_configs",
    "lightsail_sd_configs",
    "linode_sd_configs",
    "marathon_sd_configs",
    "nerve_sd_configs",
    "nomad_sd_configs",
    "openstack_sd_configs",
    "ovhcloud_sd_configs",
    "puppetdb_sd_configs",
    "scaleway_sd_configs",
    "serverset_sd_configs",
    "triton_sd_configs",
    "uyuni_sd_configs",
];

impl Config {
    /// Reads and checks the settings; mistakes come with their places.
    pub fn parse(section: &Section<'_>) -> Result<Self, Problems> {
        // Looked at as it is before it is read as what it should be, where these keys would only be unknown.
        if let Ok(settings) = section.parse::<Value>()
            && let Some((path, why)) = refused(&settings)
        {
            return Err(section.problem(&borrowed(&path), why));
        }
        let config: Self = section.parse()?;
        let yml = &config.config;
        let at = |path: &[&str], wrong: Mistake| {
            let path: Vec<&str> = path.iter().copied().chain(borrowed(&wrong.path)).collect();
            section.problem(&path, wrong.message)
        };
        if yml.scrape_configs.is_empty() && yml.scrape_config_files.is_empty() {
            return Err(section.problem(&["config"], "there is nothing to scrape; write `scrape_configs`"));
        }
        if !yml.alerting.alertmanagers.is_empty() || !yml.alerting.alert_relabel_configs.is_empty() {
            let why = "rules are not evaluated here, so nobody is alerted; leave it out";
            return Err(section.problem(&["config", "alerting"], why));
        }
        yml.global.check().map_err(|wrong| at(&["config", "global"], wrong))?;
        for (number, job) in yml.scrape_configs.iter().enumerate() {
            let number = number.to_string();
            let path = ["config", "scrape_configs", &number];
            job.compile(&yml.global).map_err(|wrong| at(&path, wrong))?;
            for key in job.without_effect() {
                section.warn(&[&path[..], &[key]].concat(), format!("`{key}` has no effect"));
            }
        }
        if let Some(twice) = twice(&yml.scrape_configs) {
            let path = ["config", "scrape_configs", &twice.to_string(), "job_name"];
            let name = &yml.scrape_configs[twice].job_name;
            return Err(section.problem(&path, format!("there is another job called `{name}`")));
        }
        for key in yml.global.without_effect() {
            section.warn(&["config", "global", key], format!("`{key}` has no effect"));
        }
        for key in yml.without_effect() {
            section.warn(
                &["config", key],
                format!("`{key}` has no effect; it is about Prometheus itself"),
            );
        }
        for (key, is_set) in [
            ("use_start_time_metric", config.use_start_time_metric.is_some()),
            ("start_time_metric_regex", config.start_time_metric_regex.is_some()),
            ("buffer_period", config.buffer_period.is_some()),
            ("buffer_count", config.buffer_count.is_some()),
        ] {
            if is_set {
                section.warn(
                    &[key],
                    format!("`{key}` has no effect; newer collectors do not have it"),
                );
            }
        }
        Ok(config)
    }

    /// All jobs, those of `scrape_config_files` too.
    fn jobs(&self) -> Result<Vec<Job>, MountError> {
        let global = &self.config.global;
        let mut configs = self.config.scrape_configs.clone();
        for path in discovery::paths(&self.config.scrape_config_files) {
            let named = |why: String| format!("{}: {why}", path.display());
            let size = std::fs::metadata(&path)
                .map_err(|error| named(error.to_string()))?
                .len();
            if size > MAX_SOURCE_BYTES as u64 {
                return Err(named(format!("it is larger than {MAX_SOURCE_BYTES} bytes")).into());
            }
            let text = std::fs::read_to_string(&path).map_err(|error| named(error.to_string()))?;
            let file: JobsFile = read(Source::new(path.display().to_string(), text))?;
            for job in file.scrape_configs {
                job.compile(global).map_err(|wrong| {
                    named(format!(
                        "job `{}`: {}: {}",
                        job.job_name,
                        wrong.path.join("."),
                        wrong.message
                    ))
                })?;
                configs.push(job);
            }
        }
        if let Some(twice) = twice(&configs) {
            let name = &configs[twice].job_name;
            return Err(format!("several jobs are called `{name}`").into());
        }
        let compiled = configs.iter().map(|job| job.compile(global));
        compiled
            .collect::<Result<_, _>>()
            .map_err(|wrong| format!("{}: {}", wrong.path.join("."), wrong.message).into())
    }
}

/// One of `scrape_config_files`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct JobsFile {
    scrape_configs: Vec<ScrapeConfig>,
}

/// The first job whose name another one before it has.
fn twice(configs: &[ScrapeConfig]) -> Option<usize> {
    (0..configs.len()).find(|at| {
        configs[..*at]
            .iter()
            .any(|other| other.job_name == configs[*at].job_name)
    })
}

fn borrowed(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}

/// The first key that is known and not possible, and why.
fn refused(settings: &Value) -> Option<(Vec<String>, String)> {
    let yml = settings.get("config")?;
    let path = |more: &[&str]| ["config"].iter().chain(more).map(|&key| key.to_owned()).collect();
    for (key, why) in REFUSED {
        if yml.get(key).is_some_and(|value| !value.is_null()) {
            return Some((path(&[key]), why.to_owned()));
        }
    }
    for (number, job) in yml.get("scrape_configs")?.as_array()?.iter().enumerate() {
        let number = number.to_string();
        let services = job.get("http_sd_configs").and_then(Value::as_array);
        for (key, why) in REFUSED_IN_JOBS {
            if job.get(key).is_some() {
                return Some((path(&["scrape_configs", &number, key]), why.to_owned()));
            }
            if let Some(at) = services.and_then(|list| list.iter().position(|it| it.get(key).is_some())) {
                let at = at.to_string();
                return Some((
                    path(&["scrape_configs", &number, "http_sd_configs", &at, key]),
                    why.to_owned(),
                ));
            }
        }
        let mut keys = job.as_object().into_iter().flat_map(|job| job.keys());
        if let Some(key) = keys.find(|key| DISCOVERIES_ELSEWHERE.contains(&key.as_str())) {
            let why = format!(
                "`{key}` is not available; let something write targets to a file for `file_sd_configs`, or serve them for `http_sd_configs`"
            );
            return Some((path(&["scrape_configs", &number, key]), why));
        }
    }
    None
}

impl settings::Settings for Config {
    fn mount(self: Box<Self>, intake: Intake, _doors: &mut Doors) -> Result<Mounted, MountError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = Arc::new(Semaphore::new(cores));
        let pushing = Arc::new(Pushing::new(intake));
        let mut jobs = Vec::new();
        for job in self.jobs()? {
            let shared = Shared {
                job,
                pushing: Arc::clone(&pushing),
                workers: Arc::clone(&workers),
                is_crowded: AtomicBool::new(false),
                tells_extra: self.report_extra_scrape_metrics,
            };
            jobs.push(RunningJob::new(shared)?);
        }
        let work: settings::Work = Box::new(move |stop| {
            Box::pin(async move {
                let mut running = JoinSet::new();
                for job in jobs {
                    running.spawn(job.run(stop.clone()));
                }
                while running.join_next().await.is_some() {}
            })
        });
        Ok(Mounted {
            work: Some(work),
            ..Mounted::default()
        })
    }
}

/// A job and its targets.
struct RunningJob {
    shared: Arc<Shared>,
    asking: Arc<Asking>,
    services: Vec<Service>,
    /// What each source names.
    found: Vec<Vec<Group>>,
    /// How each target's task is told to end, and which one it is.
    running: HashMap<Arc<TargetKey>, (watch::Sender<Ending>, Id)>,
    scrapes: JoinSet<()>,
    /// What was wrong with targets when it was last said, so that it is not said again.
    told: Vec<String>,
}

/// What makes a target the same one.
#[derive(PartialEq, Eq, Hash)]
struct TargetKey {
    url: String,
    labels: Vec<(String, String)>,
    interval_nanos: u128,
    timeout_nanos: u128,
}

impl RunningJob {
    /// Reads certificates.
    fn new(shared: Shared) -> Result<RunningJob, MountError> {
        let job = &shared.job;
        let mut asking = Asking::new(&job.way.tls, job.way.login.clone(), job.way.headers.clone())
            .map_err(|error| format!("job `{}`: {error}", job.name))?;
        asking.follows_redirects = job.way.follows_redirects;
        let first = 1 + job.files.len();
        let budget = shared.pushing.intake().budget();
        let services = job.services.iter().enumerate();
        let services = services
            .map(|(at, service)| Service::new(first + at, service, budget.clone()))
            .collect::<Result<Vec<_>, _>>()?;
        let mut found = vec![Vec::new(); first + services.len()];
        found[0] = job.fixed.iter().map(|group| Group::new(group.clone(), None)).collect();
        Ok(RunningJob {
            shared: Arc::new(shared),
            asking: Arc::new(asking),
            services,
            found,
            running: HashMap::new(),
            scrapes: JoinSet::new(),
            told: Vec::new(),
        })
    }

    async fn run(mut self, mut stop: Stop) {
        let (to, mut news) = mpsc::channel::<Found>(MAX_NEWS);
        let mut discoveries = JoinSet::new();
        for (at, (patterns, refresh)) in self.shared.job.files.iter().enumerate() {
            let files = Files {
                source: 1 + at,
                patterns: patterns.clone(),
                refresh: *refresh,
            };
            discoveries.spawn(files.watch(to.clone()));
        }
        for service in std::mem::take(&mut self.services) {
            discoveries.spawn(service.watch(to.clone()));
        }
        self.sync();
        loop {
            tokio::select! {
                // The sender gone is a stop as well.
                _ = stop.wait_for(|stop| *stop) => break,
                Some(found) = news.recv() => {
                    self.found[found.source] = found.groups;
                    self.sync();
                }
                Some(ended) = self.scrapes.join_next() => {
                    if let Err(error) = ended {
                        self.again(&error);
                    }
                }
            }
        }
        discoveries.shutdown().await;
        for (ending, _) in self.running.values() {
            ending.send_replace(Ending::Stop);
        }
        while self.scrapes.join_next().await.is_some() {}
    }

    /// A task that broke is a bug, and no reason not to look at its target again.
    fn again(&mut self, error: &JoinError) {
        tracing::error!("a scrape of the job {} broke: {error}", self.shared.job.name);
        self.running.retain(|_, (_, task)| *task != error.id());
        self.sync();
    }

    /// Starts what is new among the targets and ends what is gone.
    fn sync(&mut self) {
        let (targets, mistakes) = self.targets();
        if mistakes != self.told {
            for mistake in mistakes.iter().take(MAX_MISTAKES) {
                tracing::warn!("{mistake}");
            }
            if let Some(more @ 1..) = mistakes.len().checked_sub(MAX_MISTAKES) {
                tracing::warn!("job {}: {more} more targets are none", self.shared.job.name);
            }
            self.told = mistakes;
        }
        let Some(targets) = targets else { return };
        let crowded = self.shared.job.max_targets.is_some_and(|limit| targets.len() > limit);
        self.shared.is_crowded.store(crowded, Ordering::Relaxed);
        self.running.retain(|key, (ending, _)| {
            let is_named = targets.contains_key(key);
            if !is_named {
                ending.send_replace(Ending::Vanished);
            }
            is_named
        });
        for (key, target) in targets {
            let Entry::Vacant(free) = self.running.entry(key) else {
                continue;
            };
            // It was proven to be one.
            let Ok(asked) = Asked::new(Arc::clone(&self.asking), &target.url) else {
                continue;
            };
            let (ending, ended) = watch::channel(Ending::Not);
            let scraper = Scraper {
                shared: Arc::clone(&self.shared),
                target: Arc::new(target),
                asked,
                before: SeriesList::new(),
                held: None,
                was_up: true,
            };
            let task = self.scrapes.spawn(scraper.run(ended));
            free.insert((ending, task.id()));
        }
    }

    /// All targets that are named, each once, and what is wrong with the others; `None` if they are more than can be.
    fn targets(&self) -> (Option<HashMap<Arc<TargetKey>, Target>>, Vec<String>) {
        let job = &self.shared.job;
        let mut targets = HashMap::new();
        let mut mistakes = Vec::new();
        let mut size = 0;
        let named = self.found.iter().flatten();
        let named = named.flat_map(|group| group.targets.iter().map(move |address| (address, &group.labels)));
        for (address, labels) in named {
            match target::make(job, labels, address) {
                Ok(None) => {}
                Ok(Some(target)) => {
                    // Without certificates to trust, TLS cannot even begin.
                    if let Err(error) = Asked::new(Arc::clone(&self.asking), &target.url) {
                        mistakes.push(format!("job {}: the target {}: {error}", job.name, target.url));
                        continue;
                    }
                    let key = TargetKey {
                        url: target.url.clone(),
                        labels: target.labels.clone(),
                        interval_nanos: target.interval.as_nanos(),
                        timeout_nanos: target.timeout.as_nanos(),
                    };
                    size += target
                        .pairs()
                        .map(|(name, value)| name.len() + value.len())
                        .sum::<usize>();
                    targets.insert(Arc::new(key), target);
                }
                Err(why) => mistakes.push(format!("job {}: the target {address}: {why}", job.name)),
            }
            if targets.len() > MAX_TARGETS || mistakes.len() > MAX_TARGETS || size > MAX_TARGETS_BYTES {
                let why = format!(
                    "job {}: discovery names more than {MAX_TARGETS} targets, or such with labels of more than {MAX_TARGETS_BYTES} bytes; those from before \
                     stay",
                    job.name
                );
                return (None, vec![why]);
            }
        }
        (Some(targets), mistakes)
    }
}

#[cfg(test)]
mod tests;
