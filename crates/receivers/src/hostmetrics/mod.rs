//! What a Linux machine does: processors, load, memory, disks, filesystems, network, paging and processes.
//!
//! ```yaml
//! receivers:
//!   hostmetrics:
//!     collection_interval: 30s
//!     scrapers:
//!       cpu:
//!       memory:
//!       disk: { exclude: { devices: ['^loop'], match_type: regexp } }
//!       filesystem:
//!       network:
//! ```
//!
//! Names, units and attributes are those of the OpenTelemetry Collector's receiver. While a pipeline refuses, the same measurement is offered until the
//! next one is due.

mod encode;
mod metrics;
mod proc;
mod scrape;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::canonical::canonicalize;
use model::{Batch, Meta, Signal};
use net::Doors;
use pipeline::config::{Problems, Section, suggest};
use pipeline::{Intake, Outcome, Reason};
use regex::Regex;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::{Instant, MissedTickBehavior};

use self::encode::{Metric, Request};
use self::scrape::Scraper;
use crate::keys::named;
use crate::lines::now_unix_nano;
use crate::settings::{self, Mounted, Stop};

/// The only signal that a machine has.
pub const SIGNALS: [Signal; 1] = [Signal::Metrics];

/// A collection takes milliseconds; more often than this nobody learns more.
const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// Names in one filter.
const MAX_NAMES: usize = 1_000;

/// What a Linux machine does: processors, load, memory, disks, filesystems, network, paging and processes.
///
/// Names, units and attributes are those of the OpenTelemetry Collector's receiver.
///
/// ```yaml
/// receivers:
///   hostmetrics:
///     collection_interval: 30s
///     scrapers:
///       cpu:
///       memory:
///       disk: { exclude: { devices: ['^loop'], match_type: regexp } }
///       filesystem:
///       network:
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Pause between two collections. Default 1m.
    #[serde(default = "collection_interval", deserialize_with = "pipeline::config::duration")]
    pub collection_interval: Duration,
    /// Pause before the first. Default 1s.
    #[serde(default = "initial_delay", deserialize_with = "pipeline::config::duration")]
    pub initial_delay: Duration,
    /// Where the machine's `/` is mounted, in a container. Default: `/`.
    #[serde(default)]
    pub root_path: Option<PathBuf>,
    /// What to collect.
    pub scrapers: Scrapers,
    /// Accepted with a warning: a collection only reads local files.
    #[serde(default)]
    pub timeout: Option<IgnoredAny>,
    /// Accepted with a warning: events about entities are not made.
    #[serde(default)]
    pub metadata_collection_interval: Option<IgnoredAny>,
}

fn collection_interval() -> Duration {
    Duration::from_secs(60)
}

fn initial_delay() -> Duration {
    Duration::from_secs(1)
}

/// `scrapers:`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scrapers {
    /// Time of each processor by state. Without settings it has its defaults. Default: off, as all of these.
    #[serde(deserialize_with = "named")]
    pub cpu: Option<Plain>,
    /// Bytes, operations and times of block devices.
    #[serde(deserialize_with = "named")]
    pub disk: Option<DiskConfig>,
    /// Space and inodes of mounted filesystems.
    #[serde(deserialize_with = "named")]
    pub filesystem: Option<FilesystemConfig>,
    /// Load averages.
    #[serde(deserialize_with = "named")]
    pub load: Option<LoadConfig>,
    /// Memory by use.
    #[serde(deserialize_with = "named")]
    pub memory: Option<Plain>,
    /// Bytes, packets and errors of interfaces; TCP connections by state.
    #[serde(deserialize_with = "named")]
    pub network: Option<NetworkConfig>,
    /// Page faults and swap space.
    #[serde(deserialize_with = "named")]
    pub paging: Option<Plain>,
    /// How many processes there are, by state.
    #[serde(deserialize_with = "named")]
    pub processes: Option<Plain>,
    /// Processor time, memory and disk use of each process, each a resource.
    #[serde(deserialize_with = "named")]
    pub process: Option<ProcessConfig>,
    /// How long the machine has been up.
    #[serde(deserialize_with = "named")]
    pub system: Option<Plain>,
}

/// A scraper that has only its metrics to set.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plain {
    /// `NAME: { enabled: true }`, for each metric that is not to be as by default.
    pub metrics: Toggles,
}

/// `disk:`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiskConfig {
    /// `NAME: { enabled: true }`, for each metric that is not to be as by default.
    pub metrics: Toggles,
    /// Only these: `{ devices: […], match_type: strict }`, or `regexp`. Default: all.
    pub include: Option<Devices>,
    /// All but these. Default: none.
    pub exclude: Option<Devices>,
}

/// `filesystem:`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilesystemConfig {
    /// `NAME: { enabled: true }`, for each metric that is not to be as by default.
    pub metrics: Toggles,
    /// Only these devices. Default: all.
    pub include_devices: Option<Devices>,
    /// All but these devices. Default: none.
    pub exclude_devices: Option<Devices>,
    /// Only these kinds of filesystems: `{ fs_types: […], match_type: strict }`. Default: all.
    pub include_fs_types: Option<FsTypes>,
    /// All but these kinds of filesystems. Default: none.
    pub exclude_fs_types: Option<FsTypes>,
    /// Only these mount points: `{ mount_points: […], match_type: strict }`. Default: all.
    pub include_mount_points: Option<MountPoints>,
    /// All but these mount points. Default: none.
    pub exclude_mount_points: Option<MountPoints>,
    /// Whether filesystems that lie on no device count too. Default: no.
    pub include_virtual_filesystems: bool,
}

/// `load:`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoadConfig {
    /// `NAME: { enabled: true }`, for each metric that is not to be as by default.
    pub metrics: Toggles,
    /// Divide by the number of processors. Default: no.
    pub cpu_average: bool,
}

/// `network:`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// `NAME: { enabled: true }`, for each metric that is not to be as by default.
    pub metrics: Toggles,
    /// Only these: `{ interfaces: […], match_type: strict }`, or `regexp`. Default: all.
    pub include: Option<Interfaces>,
    /// All but these. Default: none.
    pub exclude: Option<Interfaces>,
}

/// `process:`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessConfig {
    /// `NAME: { enabled: true }`, for each metric that is not to be as by default.
    pub metrics: Toggles,
    /// Only processes of these names: `{ names: […], match_type: strict }`, or `regexp`. Default: all.
    pub include: Option<Names>,
    /// All but these. Default: none.
    pub exclude: Option<Names>,
    /// Leave out processes that are younger. Default 0.
    #[serde(deserialize_with = "pipeline::config::duration")]
    pub scrape_process_delay: Duration,
    /// Accepted, without effect, as the others that begin so: what may not be read of a process is left out in silence.
    pub mute_process_all_errors: bool,
    /// Accepted, without effect.
    pub mute_process_name_error: bool,
    /// Accepted, without effect.
    pub mute_process_exe_error: bool,
    /// Accepted, without effect.
    pub mute_process_io_error: bool,
    /// Accepted, without effect.
    pub mute_process_user_error: bool,
    /// Accepted, without effect.
    pub mute_process_cgroup_error: bool,
}

/// Devices in a filter.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Devices {
    /// Their names, or patterns of them.
    pub devices: Vec<String>,
    /// `strict`, or `regexp` for patterns.
    pub match_type: MatchType,
}

/// Kinds of filesystems in a filter.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FsTypes {
    /// Their names, or patterns of them.
    pub fs_types: Vec<String>,
    /// `strict`, or `regexp` for patterns.
    pub match_type: MatchType,
}

/// Mount points in a filter.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountPoints {
    /// Their paths, or patterns of them.
    pub mount_points: Vec<String>,
    /// `strict`, or `regexp` for patterns.
    pub match_type: MatchType,
}

/// Interfaces in a filter.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interfaces {
    /// Their names, or patterns of them.
    pub interfaces: Vec<String>,
    /// `strict`, or `regexp` for patterns.
    pub match_type: MatchType,
}

/// Processes in a filter.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Names {
    /// Their names, or patterns of them.
    pub names: Vec<String>,
    /// `strict`, or `regexp` for patterns.
    pub match_type: MatchType,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatchType {
    Strict,
    Regexp,
}

/// Which metrics are not as by default.
pub type Toggles = BTreeMap<String, Toggle>;

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Toggle {
    /// Whether it is collected.
    pub enabled: bool,
}

/// What the settings mean.
struct Plan {
    root: PathBuf,
    /// The machine's `/` is not ours.
    has_root: bool,
    cpu: Option<Wanted>,
    disk: Option<Wanted>,
    filesystem: Option<WantedFilesystems>,
    load: Option<WantedLoad>,
    memory: Option<Wanted>,
    network: Option<Wanted>,
    paging: Option<Wanted>,
    processes: Option<Wanted>,
    process: Option<WantedProcesses>,
    system: Option<Wanted>,
}

/// Which metrics, of what.
#[derive(Default)]
struct Wanted {
    metrics: Toggles,
    filter: Filter,
}

impl Wanted {
    fn wants(&self, metric: &Metric) -> bool {
        wants(&self.metrics, metric)
    }
}

fn wants(toggles: &Toggles, metric: &Metric) -> bool {
    toggles
        .get(metric.name)
        .map_or(metric.is_default, |toggle| toggle.enabled)
}

struct WantedLoad {
    metrics: Toggles,
    cpu_average: bool,
}

impl WantedLoad {
    fn wants(&self, metric: &Metric) -> bool {
        wants(&self.metrics, metric)
    }
}

struct WantedFilesystems {
    metrics: Toggles,
    devices: Filter,
    kinds: Filter,
    mount_points: Filter,
    takes_virtual: bool,
}

impl WantedFilesystems {
    fn wants(&self, metric: &Metric) -> bool {
        wants(&self.metrics, metric)
    }
}

struct WantedProcesses {
    metrics: Toggles,
    filter: Filter,
    younger_than_nanos: u64,
}

impl WantedProcesses {
    fn wants(&self, metric: &Metric) -> bool {
        wants(&self.metrics, metric)
    }
}

/// What is included, and not excluded.
#[derive(Default)]
struct Filter {
    include: Option<Comparison>,
    exclude: Option<Comparison>,
}

/// Names, compared or matched.
enum Comparison {
    Strict(Vec<String>),
    Regexp(Vec<Regex>),
}

impl Comparison {
    fn of((list, by): (Vec<String>, MatchType)) -> Result<Comparison, String> {
        if list.len() > MAX_NAMES {
            return Err(format!("more than {MAX_NAMES} names"));
        }
        Ok(match by {
            MatchType::Strict => Comparison::Strict(list),
            MatchType::Regexp => {
                let patterns = list
                    .iter()
                    .map(|pattern| pipeline::processors::actions::compile(pattern));
                Comparison::Regexp(patterns.collect::<Result<_, _>>()?)
            }
        })
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Comparison::Strict(names) => names.iter().any(|known| known == name),
            Comparison::Regexp(patterns) => patterns.iter().any(|pattern| pattern.is_match(name)),
        }
    }
}

/// A list of names and how they are compared.
type Listed = Option<(Vec<String>, MatchType)>;

impl Filter {
    fn of(include: Listed, exclude: Listed) -> Result<Filter, String> {
        Ok(Filter {
            include: include.map(Comparison::of).transpose()?,
            exclude: exclude.map(Comparison::of).transpose()?,
        })
    }

    fn takes(&self, name: &str) -> bool {
        self.include.as_ref().is_none_or(|names| names.has(name))
            && !self.exclude.as_ref().is_some_and(|names| names.has(name))
    }
}

impl Config {
    /// Reads and checks the settings; mistakes come with their places.
    pub fn parse(section: &Section<'_>) -> Result<Self, Problems> {
        let config: Self = section.parse()?;
        if config.collection_interval < MIN_INTERVAL {
            return Err(section.problem(&["collection_interval"], "must be at least 10ms"));
        }
        let scrapers = config.scrapers.list();
        if scrapers.is_empty() {
            return Err(section.problem(&["scrapers"], "name at least one scraper, such as `cpu` or `memory`"));
        }
        for (scraper, toggles, metrics) in scrapers {
            for name in toggles.keys() {
                if metrics.iter().any(|metric| metric.name == name) {
                    continue;
                }
                let path = ["scrapers", scraper, "metrics", name];
                // What upstream collects and we do not is no reason to refuse a file that names it.
                if name.starts_with("system.") || name.starts_with("process.") {
                    let hint = suggest(name, metrics.iter().map(|metric| metric.name)).unwrap_or_default();
                    section.warn(&path, format!("`{name}` is not collected here; {hint}"));
                } else {
                    return Err(section.problem(&path, format!("`{name}` is not a metric of the scraper `{scraper}`")));
                }
            }
        }
        config.plan().map_err(|(path, problem)| {
            let path: Vec<&str> = std::iter::once("scrapers").chain(path.iter().copied()).collect();
            section.problem(&path, problem)
        })?;
        for key in ["timeout", "metadata_collection_interval"] {
            if section.sets(&[key]) {
                section.warn(&[key], format!("`{key}` has no effect here"));
            }
        }
        Ok(config)
    }

    /// The settings compiled, or where what is wrong.
    fn plan(&self) -> Result<Plan, (&'static [&'static str], String)> {
        let scrapers = &self.scrapers;
        let plain = |config: &Option<Plain>| {
            config.as_ref().map(|config| Wanted {
                metrics: config.metrics.clone(),
                filter: Filter::default(),
            })
        };
        let devices = |listed: &Option<Devices>| listed.clone().map(|it| (it.devices, it.match_type));
        let interfaces = |listed: &Option<Interfaces>| listed.clone().map(|it| (it.interfaces, it.match_type));
        let names = |listed: &Option<Names>| listed.clone().map(|it| (it.names, it.match_type));
        let kinds = |listed: &Option<FsTypes>| listed.clone().map(|it| (it.fs_types, it.match_type));
        let points = |listed: &Option<MountPoints>| listed.clone().map(|it| (it.mount_points, it.match_type));
        let filter = |include: Listed, exclude: Listed, at: &'static [&'static str]| {
            Filter::of(include, exclude).map_err(|problem| (at, problem))
        };
        let disk = match &scrapers.disk {
            None => None,
            Some(disk) => Some(Wanted {
                metrics: disk.metrics.clone(),
                filter: filter(devices(&disk.include), devices(&disk.exclude), &["disk"])?,
            }),
        };
        let network = match &scrapers.network {
            None => None,
            Some(network) => Some(Wanted {
                metrics: network.metrics.clone(),
                filter: filter(interfaces(&network.include), interfaces(&network.exclude), &["network"])?,
            }),
        };
        let filesystem = match &scrapers.filesystem {
            None => None,
            Some(it) => Some(WantedFilesystems {
                metrics: it.metrics.clone(),
                devices: filter(
                    devices(&it.include_devices),
                    devices(&it.exclude_devices),
                    &["filesystem"],
                )?,
                kinds: filter(
                    kinds(&it.include_fs_types),
                    kinds(&it.exclude_fs_types),
                    &["filesystem"],
                )?,
                mount_points: filter(
                    points(&it.include_mount_points),
                    points(&it.exclude_mount_points),
                    &["filesystem"],
                )?,
                takes_virtual: it.include_virtual_filesystems,
            }),
        };
        let process = match &scrapers.process {
            None => None,
            Some(it) => Some(WantedProcesses {
                metrics: it.metrics.clone(),
                filter: filter(names(&it.include), names(&it.exclude), &["process"])?,
                younger_than_nanos: u64::try_from(it.scrape_process_delay.as_nanos()).unwrap_or(u64::MAX),
            }),
        };
        Ok(Plan {
            root: self.root_path.clone().unwrap_or_else(|| PathBuf::from("/")),
            has_root: self.root_path.is_some(),
            cpu: plain(&scrapers.cpu),
            disk,
            filesystem,
            load: scrapers.load.as_ref().map(|load| WantedLoad {
                metrics: load.metrics.clone(),
                cpu_average: load.cpu_average,
            }),
            memory: plain(&scrapers.memory),
            network,
            paging: plain(&scrapers.paging),
            processes: plain(&scrapers.processes),
            process,
            system: plain(&scrapers.system),
        })
    }
}

impl Scrapers {
    /// Which are on, with what they are told of their metrics, and the metrics that they have.
    fn list(&self) -> Vec<(&'static str, &Toggles, &'static [&'static Metric])> {
        [
            ("cpu", self.cpu.as_ref().map(|it| &it.metrics), metrics::CPU),
            ("disk", self.disk.as_ref().map(|it| &it.metrics), metrics::DISK),
            (
                "filesystem",
                self.filesystem.as_ref().map(|it| &it.metrics),
                metrics::FILESYSTEM,
            ),
            ("load", self.load.as_ref().map(|it| &it.metrics), metrics::LOAD),
            ("memory", self.memory.as_ref().map(|it| &it.metrics), metrics::MEMORY),
            ("network", self.network.as_ref().map(|it| &it.metrics), metrics::NETWORK),
            ("paging", self.paging.as_ref().map(|it| &it.metrics), metrics::PAGING),
            (
                "processes",
                self.processes.as_ref().map(|it| &it.metrics),
                metrics::PROCESSES,
            ),
            ("process", self.process.as_ref().map(|it| &it.metrics), metrics::PROCESS),
            ("system", self.system.as_ref().map(|it| &it.metrics), metrics::SYSTEM),
        ]
        .into_iter()
        .filter_map(|(name, toggles, metrics)| Some((name, toggles?, metrics)))
        .collect()
    }
}

impl settings::Settings for Config {
    fn mount(self: Box<Self>, intake: Intake, _doors: &mut Doors) -> Result<Mounted, settings::MountError> {
        let plan = self.plan().map_err(|(_, problem)| problem)?;
        let proc = plan.root.join("proc/stat");
        if !proc.exists() {
            return Err(format!(
                "{} is not there; `root_path` names where the machine's / is mounted",
                proc.display()
            )
            .into());
        }
        let work = Collecting {
            scraper: Scraper::new(plan),
            intake,
            interval: self.collection_interval,
            initial_delay: self.initial_delay,
        };
        Ok(Mounted {
            work: Some(Box::new(move |stop| Box::pin(work.run(stop)))),
            ..Mounted::default()
        })
    }
}

struct Collecting {
    scraper: Scraper,
    intake: Intake,
    interval: Duration,
    initial_delay: Duration,
}

impl Collecting {
    async fn run(mut self, mut stop: Stop) {
        let mut ticks = tokio::time::interval_at(Instant::now() + self.initial_delay, self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            // Reading may block, on a filesystem that is away above all.
            let scraped = tokio::task::spawn_blocking(move || {
                let requests = self.scraper.scrape();
                (self, requests)
            });
            let requests;
            (self, requests) = match scraped.await {
                Ok(scraped) => scraped,
                Err(error) => return tracing::error!("collecting the machine's metrics broke: {error}"),
            };
            let until = Instant::now() + self.interval;
            for request in requests {
                if !self.offer(request, until, &mut stop).await {
                    return;
                }
            }
        }
    }

    /// Offers a measurement until the next one is due, which says the same and more; `false` at a stop.
    async fn offer(&self, request: Request, until: Instant, stop: &mut Stop) -> bool {
        let points = u64::from(request.points);
        let canonical = match canonicalize(Signal::Metrics, Bytes::from(request.out)) {
            Ok(canonical) => canonical,
            Err(malformed) => {
                tracing::error!(receiver = %self.intake.receiver(), "metrics could not be encoded: {malformed}");
                self.intake.rejected(Signal::Metrics, points, Reason::Malformed);
                return true;
            }
        };
        let meta = Meta {
            received_at_unix_nano: now_unix_nano(),
            receiver: Arc::clone(self.intake.receiver()),
            peer: None,
            headers: Vec::new(),
            source_offset: None,
        };
        let batch = Batch::from_canonical(Signal::Metrics, canonical, None, Arc::new(meta));
        loop {
            let wait = match self.intake.budget().try_reserve(batch.payload.len() as u64) {
                Some(lease) => match self.intake.push_held(batch.clone(), Some(lease)).await {
                    Outcome::Delivered | Outcome::Rejected { .. } => return true,
                    Outcome::Retry { after, .. } => after,
                },
                None => {
                    self.intake.refused(Signal::Metrics, points, Reason::MemoryLimit);
                    return true;
                }
            };
            if Instant::now() + wait >= until {
                return true;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = stop.wait_for(|stop| *stop) => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests;
