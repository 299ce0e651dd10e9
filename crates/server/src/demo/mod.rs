//! `trackline demo`: the server, four instrumented services, a stand-in LLM API and traffic, in the foreground.
//!
//! The services are processes of their own (`demo/` in the source tree). Each is told to end by closing its standard
//! input, so that they end in order, flush what they have, and none outlives this command.

mod binaries;
mod children;
mod show;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::serve;
use children::{Children, Service};

/// Requests a second that one user simulator can honestly send; beyond it, ticks only pile up.
const MAX_RATE: i64 = 1_000;

/// How long a service may take until its health check answers.
const HEALTHY_WITHIN: Duration = Duration::from_secs(20);

/// Run everything on this machine: server, four services, a stand-in LLM and steady traffic.
///
/// A tenth of the requests fails on purpose. Tracking IDs to try are printed as they come.
#[derive(Debug, clap::Args)]
#[group(id = "demo")]
pub struct Args {
    #[command(flatten)]
    serve: serve::Args,
    /// First of five ports: gateway, agent, engine, scheduler, stand-in LLM.
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    services_from: u16,
    /// Requests a second that the traffic sends; 0 sends none.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=MAX_RATE))]
    rate: u32,
    /// Share of requests that fail on purpose.
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=100))]
    fail_percent: u8,
    /// Database of the services: SQLite in the data directory unless given (sqlite:… or postgres://…).
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// End by itself after this many seconds.
    #[arg(long, value_name = "SECONDS")]
    run_for: Option<u64>,
}

/// The names and what each listens for, in the order of their ports.
const SERVICES: [(&str, &str); 5] = [
    ("api-gateway", "demo-api-gateway"),
    ("workflow-agent", "demo-workflow-agent"),
    ("workflow-engine", "demo-workflow-engine"),
    ("workflow-scheduler", "demo-workflow-scheduler"),
    ("stand-in LLM", "demo-llm"),
];

pub fn run(args: Args) -> Result<()> {
    serve::log_to_stderr_from("warn");
    serve::runtime()?.block_on(everything(args))
}

async fn everything(args: Args) -> Result<()> {
    ports_are_free(&args)?;
    let folder = binaries::ready().await?;
    let directory = args.serve.data_dir().join("demo");
    std::fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    let database = match &args.database_url {
        Some(url) => url.clone(),
        None => format!("sqlite:{}?mode=rwc", directory.join("demo.sqlite").display()),
    };

    show::step("server", "starting");
    let server = serve::start(&args.serve.with_database(&database)).await?;
    show::step("server", &format!("ready in {} ms", server.ready_after().as_millis()));

    let environment = environment(&args, &database);
    let mut children = Children::new(&directory);
    for (port, (name, binary)) in (args.services_from..).zip(SERVICES) {
        let service = Service {
            name,
            binary: &folder.join(binary),
            port: Some(port),
        };
        children.start(&service, &environment)?;
    }
    for (port, (name, _)) in (args.services_from..).zip(SERVICES) {
        children.healthy(name, port, HEALTHY_WITHIN).await?;
        show::step(name, &format!("http://127.0.0.1:{port}"));
    }
    let traffic = Service {
        name: "traffic",
        binary: &folder.join("demo-traffic"),
        port: None,
    };
    let lines = children.start_speaking(&traffic, &environment)?;

    let ended = show::live(
        &server,
        &mut children,
        lines,
        args.services_from,
        args.rate > 0,
        args.run_for.map(Duration::from_secs),
    )
    .await;
    show::step("demo", "stopping: traffic, services, server");
    let left = children.stop().await;
    server.stop().await?;
    show::step(
        "demo",
        &format!("stopped; its data stays in {}", args.serve.data_dir().display()),
    );
    left?;
    ended
}

/// What every service is told; each reads what concerns it.
fn environment(args: &Args, database: &str) -> Vec<(&'static str, String)> {
    let url = |offset: u16| format!("http://127.0.0.1:{}", args.services_from + offset);
    vec![
        ("GATEWAY_URL", url(0)),
        ("AGENT_URL", url(1)),
        ("ENGINE_URL", url(2)),
        ("SCHEDULER_URL", url(3)),
        ("LLM_URL", url(4)),
        ("DATABASE_URL", database.to_owned()),
        ("FAIL_PERCENT", args.fail_percent.to_string()),
        ("RATE", args.rate.to_string()),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("http://{}", args.serve.otlp_grpc()),
        ),
        ("DEMO_SUPERVISED", "1".to_owned()),
        // A call stack for every ERROR line takes a tenth of a second each; panics have theirs anyway.
        ("RUST_LIB_BACKTRACE", "0".to_owned()),
    ]
}

/// One clear line for the first port that somebody else has, before anything is started.
fn ports_are_free(args: &Args) -> Result<()> {
    let Some(last) = args.services_from.checked_add(SERVICES.len() as u16 - 1) else {
        bail!(
            "--services-from {}: five ports from there on pass 65535",
            args.services_from
        );
    };
    for (address, who, flag) in args.serve.doors() {
        is_free(address, who, flag)?;
    }
    for (port, (name, _)) in (args.services_from..=last).zip(SERVICES) {
        is_free(
            SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            &format!("the demo's {name}"),
            "--services-from",
        )?;
    }
    Ok(())
}

fn is_free(address: SocketAddr, who: &str, flag: &str) -> Result<()> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            bail!(
                "port {} is already in use; {who} needs it: move it with {flag}",
                address.port()
            )
        }
        Err(error) => bail!("{who} cannot listen on {address}: {error}; move it with {flag}"),
    }
}
