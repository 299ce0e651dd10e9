//! `trackline serve` and `trackline config`: load, build, start in order, wait, stop in reverse.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use net::Listeners;
use pipeline::Ledger;
use pipeline::config::{Config, Source};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::assemble::{self, DataDir, Running};
use crate::check;
use crate::config::Files;
use crate::tables::{self, ServerPlan};

const DATA_DIR: &str = "trackline-data";
const OTLP_GRPC: &str = "127.0.0.1:4317";
const OTLP_HTTP: &str = "127.0.0.1:4318";
const JAEGER_GRPC: &str = "127.0.0.1:14250";
const JAEGER_THRIFT: &str = "127.0.0.1:14268";
const UI: &str = "127.0.0.1:16686";
const HEALTH: &str = "127.0.0.1:13133";
/// How often the old configuration is started again after a new one failed, and the pause in between: threads of what failed may hold a directory's lock for
/// a moment.
const RETURN_ATTEMPTS: usize = 20;
const RETURN_PAUSE: Duration = Duration::from_millis(100);

/// A door that the built-in configuration can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Door(Option<SocketAddr>);

impl std::str::FromStr for Door {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self(None)),
            address => address.parse().map(|address| Self(Some(address))),
        }
    }
}

/// Run the server alone: OTLP in, everything kept, APIs and UI out.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    files: Files,
    /// Where journal and store lie [default: trackline-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Move OTLP over gRPC (receiver `otlp`).
    #[arg(
        long,
        value_name = "ADDRESS",
        help_heading = "Doors of the built-in configuration",
        conflicts_with = "config"
    )]
    otlp_grpc: Option<SocketAddr>,
    /// Move OTLP over HTTP (receiver `otlp`).
    #[arg(
        long,
        value_name = "ADDRESS",
        help_heading = "Doors of the built-in configuration",
        conflicts_with = "config"
    )]
    otlp_http: Option<SocketAddr>,
    /// Move Jaeger's gRPC (receiver `jaeger`), or close it.
    #[arg(
        long,
        value_name = "ADDRESS|none",
        help_heading = "Doors of the built-in configuration",
        conflicts_with = "config",
        default_value = JAEGER_GRPC,
        hide_default_value = true
    )]
    jaeger_grpc: Door,
    /// Move Jaeger's Thrift over HTTP (receiver `jaeger`), or close it.
    #[arg(
        long,
        value_name = "ADDRESS|none",
        help_heading = "Doors of the built-in configuration",
        conflicts_with = "config",
        default_value = JAEGER_THRIFT,
        hide_default_value = true
    )]
    jaeger_thrift: Door,
    /// Move UI and APIs (extension `query`).
    #[arg(
        long,
        value_name = "ADDRESS",
        help_heading = "Doors of the built-in configuration",
        conflicts_with = "config"
    )]
    ui: Option<SocketAddr>,
    /// Move the health check (extension `health_check`).
    #[arg(
        long,
        value_name = "ADDRESS",
        help_heading = "Doors of the built-in configuration",
        conflicts_with = "config"
    )]
    health: Option<SocketAddr>,
    /// A database in which rows of a request are looked up (sqlite:… or postgres://…).
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    database: Vec<String>,
}

/// Print the effective configuration and where the journal stands in it.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "config_command")]
pub struct ConfigArgs {
    #[command(flatten)]
    serve: Args,
}

/// Run a collector: what the configuration says, and nothing else; the same as `trackline --config FILE`.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "collect_command")]
pub struct CollectArgs {
    #[command(flatten)]
    files: Files,
    /// Where the journal lies, if the configuration does not say [default: trackline-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl CollectArgs {
    /// `earlier` is what was written before the command.
    pub fn run(self, earlier: Files) -> Result<()> {
        let args = Args {
            data_dir: self.data_dir,
            ..Args::of(self.files.after(earlier))
        };
        ensure!(
            !args.files.config.is_empty(),
            "`collect` needs --config FILE; `trackline serve` runs the built-in all-in-one"
        );
        run(args)
    }
}

impl Args {
    /// `trackline --config FILE`, as an image's command has it.
    pub fn of(files: Files) -> Self {
        Self {
            files,
            data_dir: None,
            otlp_grpc: None,
            otlp_http: None,
            jaeger_grpc: Door(Some(default(JAEGER_GRPC))),
            jaeger_thrift: Door(Some(default(JAEGER_THRIFT))),
            ui: None,
            health: None,
            database: Vec::new(),
        }
    }

    /// Adds what was written before the command.
    pub fn after(mut self, earlier: Files) -> Self {
        self.files = self.files.after(earlier);
        self
    }

    pub fn with_database(&self, url: &str) -> Self {
        let mut args = self.clone();
        args.database.push(url.to_owned());
        args
    }

    pub fn data_dir(&self) -> &Path {
        self.data_dir.as_deref().unwrap_or(Path::new(DATA_DIR))
    }

    fn place(&self) -> DataDir {
        DataDir {
            path: self.data_dir().to_owned(),
            is_asked: self.data_dir.is_some(),
        }
    }

    pub fn otlp_grpc(&self) -> SocketAddr {
        self.otlp_grpc.unwrap_or_else(|| default(OTLP_GRPC))
    }

    fn ui(&self) -> SocketAddr {
        self.ui.unwrap_or_else(|| default(UI))
    }

    /// Every address of the built-in configuration, who wants it, and the flag that moves it.
    pub fn doors(&self) -> Vec<(SocketAddr, &'static str, &'static str)> {
        let doors = [
            (
                Some(self.otlp_grpc()),
                "the server's OTLP/gRPC receiver",
                "--otlp-grpc ADDRESS",
            ),
            (
                Some(self.otlp_http.unwrap_or_else(|| default(OTLP_HTTP))),
                "the server's OTLP/HTTP receiver",
                "--otlp-http ADDRESS",
            ),
            (
                self.jaeger_grpc.0,
                "the server's Jaeger receiver",
                "--jaeger-grpc ADDRESS, close it with --jaeger-grpc none",
            ),
            (
                self.jaeger_thrift.0,
                "the server's Jaeger receiver",
                "--jaeger-thrift ADDRESS, close it with --jaeger-thrift none",
            ),
            (Some(self.ui()), "the server's UI", "--ui ADDRESS"),
            (
                Some(self.health.unwrap_or_else(|| default(HEALTH))),
                "the server's health check",
                "--health ADDRESS",
            ),
        ];
        let open = |(address, who, flag): (Option<SocketAddr>, _, _)| address.map(|address| (address, who, flag));
        doors.into_iter().filter_map(open).collect()
    }

    /// What the flags lay over the configuration.
    fn overlays(&self) -> Vec<Source> {
        let mut overlays = Vec::new();
        let mut lay = |flag: &str, yaml: String| overlays.push(Source::new(flag, yaml));
        if let Some(address) = self.otlp_grpc {
            lay(
                "--otlp-grpc",
                format!("receivers: {{ otlp: {{ protocols: {{ grpc: {{ endpoint: \"{address}\" }} }} }} }}"),
            );
        }
        if let Some(address) = self.otlp_http {
            lay(
                "--otlp-http",
                format!("receivers: {{ otlp: {{ protocols: {{ http: {{ endpoint: \"{address}\" }} }} }} }}"),
            );
        }
        if self.jaeger_grpc.0.or(self.jaeger_thrift.0).is_none() {
            let yaml = "receivers: { jaeger: null }\nservice: { pipelines: { traces: { receivers: [otlp] } } }";
            lay("--jaeger-grpc none --jaeger-thrift none", yaml.to_owned());
        } else {
            for (flag, protocol, door, usual) in [
                ("--jaeger-grpc", "grpc", self.jaeger_grpc, JAEGER_GRPC),
                ("--jaeger-thrift", "thrift_http", self.jaeger_thrift, JAEGER_THRIFT),
            ] {
                let settings = match door.0 {
                    Some(address) if address == default(usual) => continue,
                    Some(address) => format!("{{ endpoint: \"{address}\" }}"),
                    None => "null".to_owned(),
                };
                lay(
                    flag,
                    format!("receivers: {{ jaeger: {{ protocols: {{ {protocol}: {settings} }} }} }}"),
                );
            }
        }
        if let Some(address) = self.ui {
            lay(
                "--ui",
                format!("extensions: {{ query: {{ endpoint: \"{address}\" }} }}"),
            );
        }
        if let Some(address) = self.health {
            lay(
                "--health",
                format!("extensions: {{ health_check: {{ endpoint: \"{address}\" }} }}"),
            );
        }
        if !self.database.is_empty() {
            // `$` would begin a variable, and a quote would end the text.
            let urls: Vec<String> = self
                .database
                .iter()
                .map(|url| format!("{{ url: '{}' }}", url.replace('$', "$$").replace('\'', "''")))
                .collect();
            lay(
                "--database",
                format!("extensions: {{ query: {{ databases: [{}] }} }}", urls.join(", ")),
            );
        }
        overlays
    }

    /// An address that could not be had, and which flag or setting moves its door.
    fn with_way_out(&self, error: anyhow::Error) -> anyhow::Error {
        let Some(net::OpenError::Bind { address, .. }) = error.downcast_ref() else {
            return error;
        };
        let address = address.to_string();
        let flag = match self.files.config.is_empty() {
            true => self.doors().into_iter().find(|(door, ..)| door.to_string() == address),
            false => None,
        };
        match flag {
            Some((_, _, flag)) => anyhow!("{error}; move it with {flag}, or stop who is there"),
            None => anyhow!("{error}; move it with its `endpoint` in the configuration, or stop who is there"),
        }
    }

    fn plan(&self) -> Result<(Config, ServerPlan)> {
        let config = self.files.load(self.overlays())?;
        let plan = tables::plan(&config).map_err(|problems| anyhow::anyhow!("{problems}"))?;
        Ok((config, plan))
    }
}

fn default(address: &str) -> SocketAddr {
    address.parse().expect("the built-in addresses are addresses")
}

/// The server as the demo sees it.
pub struct Server {
    running: Running,
    ready_after: Duration,
    ui: SocketAddr,
    otlp: SocketAddr,
}

impl Server {
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    pub fn ui_url(&self) -> String {
        format!("http://{}", self.ui)
    }

    pub fn otlp_url(&self) -> String {
        format!("http://{}", self.otlp)
    }

    /// Spans and log records acknowledged so far.
    pub fn accepted(&self) -> (u64, u64) {
        accepted(&self.running.ledger)
    }

    pub async fn stop(self) -> Result<()> {
        self.running.stop().await
    }
}

fn accepted(ledger: &Ledger) -> (u64, u64) {
    let doors = ledger.snapshot().doors;
    let of = |signal: &str| {
        doors
            .iter()
            .filter(|door| door.signal == signal)
            .map(|door| door.acked)
            .sum()
    };
    (of("traces"), of("logs"))
}

/// Starts everything and waits until answers are complete.
pub async fn start(args: &Args) -> Result<Server> {
    let begun = Instant::now();
    let mut running = start_planned(args, args.plan()?.1, &mut Listeners::default()).await?;
    running.ready().await;
    Ok(Server {
        running,
        ready_after: begun.elapsed(),
        ui: args.ui(),
        otlp: args.otlp_grpc(),
    })
}

async fn start_planned(args: &Args, plan: ServerPlan, listeners: &mut Listeners) -> Result<Running> {
    for warning in plan.warnings.told() {
        tracing::warn!("{warning}");
    }
    Running::start(plan, &args.place(), listeners)
        .await
        .map_err(|error| args.with_way_out(error))
}

/// `trackline serve`.
pub fn run(args: Args) -> Result<()> {
    let (mut config, plan) = args.plan()?;
    log_to_stderr_from(plan.telemetry.logs.level.map_or("info", |level| level.as_str()));
    runtime()?.block_on(async {
        let mut stop = std::pin::pin!(stop_signal());
        let mut hangup = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
        let mut begun = Instant::now();
        let mut running = start_planned(&args, plan, &mut Listeners::default()).await?;
        loop {
            tokio::select! {
                () = &mut stop => break,
                () = running.ready(), if !running.is_ready() => {
                    tracing::info!("ready after {} ms", begun.elapsed().as_millis());
                }
                Some(()) = hangup.recv() => {
                    begun = Instant::now();
                    (running, config) = reload(&args, running, config).await?;
                }
            }
        }
        tracing::info!("stopping");
        running.stop().await
    })
}

/// Reads the configuration again and, if nothing is wrong with it, runs it instead, on the sockets that are open. What cannot run changes nothing.
async fn reload(args: &Args, running: Running, config: Config) -> Result<(Running, Config)> {
    let refused =
        |why: &dyn std::fmt::Display| tracing::error!("the new configuration is refused, the old one stays:\n{why}");
    let checked = args.plan().and_then(|(new, plan)| {
        let mistakes = check::check_doors(plan, &new).mistakes;
        ensure!(mistakes.is_empty(), "{}", new.problems(mistakes));
        let plan = tables::plan(&new).map_err(|problems| anyhow!("{problems}"))?;
        Ok((new, plan))
    });
    let (new, plan) = match checked {
        Ok(checked) => checked,
        Err(error) => {
            refused(&error);
            return Ok((running, config));
        }
    };
    if new.says_the_same(&config) {
        tracing::info!("the configuration has not changed");
        return Ok((running, config));
    }
    let mut listeners = running.make_way().await?;
    match start_planned(args, plan, &mut listeners).await {
        Ok(running) => {
            tracing::info!("the new configuration runs");
            Ok((running, new))
        }
        Err(error) => {
            refused(&error);
            let mut last = error;
            for _ in 0..RETURN_ATTEMPTS {
                let plan = tables::plan(&config).map_err(|problems| anyhow!("{problems}"))?;
                match start_planned(args, plan, &mut listeners).await {
                    Ok(running) => return Ok((running, config)),
                    Err(error) => last = error,
                }
                tokio::time::sleep(RETURN_PAUSE).await;
            }
            Err(last)
        }
    }
}

/// `trackline config`.
pub fn show_config(args: ConfigArgs, earlier: Files) -> Result<String> {
    let serve = args.serve.after(earlier);
    let (config, plan) = serve.plan()?;
    let mut text = config.to_yaml();
    let place = assemble::journal_place(&plan, &serve.place()).map(|place| place.directory.display().to_string());
    for line in plan.describe(place.as_deref()).lines() {
        text += &format!("# {line}\n");
    }
    if !plan.warnings.list.is_empty() {
        eprint!("{}", plan.warnings);
    }
    Ok(text)
}

pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")
}

/// Our own log lines from a level on; `RUST_LOG` selects otherwise.
pub fn log_to_stderr_from(level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    // Fails only if somebody set one before, who then has the lines.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
}

/// Resolves at SIGINT or SIGTERM. Made before anything starts, so that no signal is missed.
pub fn stop_signal() -> impl Future<Output = ()> {
    let signals = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    async move {
        let [interrupt, terminate] = signals;
        let (Ok(mut interrupt), Ok(mut terminate)) = (interrupt, terminate) else {
            // Without handlers the signals end the process by themselves.
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}
