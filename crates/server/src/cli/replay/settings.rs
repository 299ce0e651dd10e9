//! What `trackline replay` is asked for.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use exporters::request::Packing;
use exporters::sender::Shared;
use model::Signal;
use net::ClientTls;
use query::instant::{now_unix_nano, parse_duration, parse_rfc3339};

use super::super::Failure;

/// Send again what a journal or recorded files hold
///
/// The journal keeps what was accepted until its segments are freed, whether or not it was delivered. Files are those of the `file` exporter: a line of
/// OTLP/JSON per request. Ctrl-C stops after the request that is under way; the same command with --resume goes on from there.
///
/// Exit codes: 0 sent, 1 there was nothing to send, 2 usage, 3 the journal, the files or the endpoint cannot be reached, 130 interrupted.
#[derive(clap::Args, Clone, Debug)]
pub struct ReplayArgs {
    /// Where to send: `http://host:4317` for OTLP/gRPC, `http://host:4318` for OTLP/HTTP; https for TLS
    #[arg(long, value_name = "URL")]
    endpoint: String,
    /// From when on: RFC 3339, or how long ago, such as `2h`. When it was received; in files, the newest time of a request
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Until when: RFC 3339, `now`, or how long ago
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// How fast: `1x` is as it came, `10x` ten times that, `max` as fast as it is taken
    #[arg(long, value_name = "SPEED", default_value = "1x")]
    speed: String,
    /// Only resources with this attribute; `service` and `environment` are understood. May be repeated: all must hold
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Move all times: `now` makes the newest new, a duration such as `24h` or `-30m` is added
    #[arg(long, value_name = "now|DURATION", allow_hyphen_values = true)]
    shift: Option<String>,
    /// Only this signal: traces, logs or metrics. May be repeated
    #[arg(long, value_name = "SIGNAL")]
    signal: Vec<String>,
    /// Go on where the same command stopped
    #[arg(long)]
    resume: bool,
    /// The file that says how far it got
    #[arg(long, value_name = "FILE", default_value = "./trackline-replay.state")]
    state: PathBuf,
    /// A recorded file instead of the journal. May be repeated: one after the other
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data_dir", "directory", "pipeline"])]
    file: Vec<PathBuf>,
    /// The server's data directory, whose journal is read
    #[arg(long, value_name = "DIR", default_value = "./trackline-data")]
    data_dir: PathBuf,
    /// The journal's own directory, where the configuration puts it outside of the data directory
    #[arg(long, value_name = "DIR", conflicts_with = "data_dir")]
    directory: Option<PathBuf>,
    /// Only what this pipeline accepted. Needed where several pipelines of a signal have the same receivers. May be repeated
    #[arg(long, value_name = "NAME")]
    pipeline: Vec<String>,
    /// A header of each request, `name: value`; `name: @FILE` reads the value from a file, which keeps it out of the list of processes
    #[arg(long, value_name = "HEADER")]
    header: Vec<String>,
    /// `grpc` or `http`, where the port does not say it
    #[arg(long, value_name = "PROTOCOL")]
    protocol: Option<String>,
    /// How long the endpoint may refuse or be away before it is given up
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    max_wait: String,
    /// Print a summary in JSON, and no progress
    #[arg(long)]
    pub(super) json: bool,
}

/// How fast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    Times(f64),
    Max,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    Http,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shift {
    None,
    Now,
    By(i64),
}

/// Where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    Journal { directory: PathBuf, pipelines: Vec<String> },
    Files(Vec<PathBuf>),
}

/// The arguments, understood.
#[derive(Debug, Clone)]
pub struct Settings {
    pub from: From,
    pub from_unix_nano: u64,
    pub to_unix_nano: u64,
    pub speed: Speed,
    /// Names of a resource's attribute, any of which must have the value.
    pub filters: Vec<(Vec<String>, String)>,
    shift: Shift,
    pub signals: Vec<Signal>,
    pub endpoint: String,
    pub protocol: Protocol,
    pub shared: Shared,
    pub timeout: Duration,
    pub max_wait: Duration,
    pub resume: bool,
    pub state: PathBuf,
    pub is_quiet: bool,
    /// What must be the same for `--resume`.
    pub request: String,
}

/// For one attempt, as the exporter `otlphttp` has it.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Faster than this is `max`.
const MAX_SPEED: f64 = 1e9;

impl ReplayArgs {
    /// Reads the arguments; mistakes name theirs.
    pub(super) fn settings(&self) -> Result<Settings, Failure> {
        let now = now_unix_nano();
        let from_unix_nano = time("--from", self.from.as_deref(), now)?.unwrap_or(0);
        let to_unix_nano = time("--to", self.to.as_deref(), now)?.unwrap_or(now);
        if from_unix_nano > to_unix_nano {
            return Err(Failure::usage("--from lies behind --to"));
        }
        let mut signals = Vec::new();
        for name in &self.signal {
            signals.push(
                name.parse()
                    .map_err(|error| Failure::usage(format!("--signal: {error}")))?,
            );
        }
        if signals.is_empty() {
            signals.extend(Signal::ALL);
        }
        let (endpoint, protocol, is_secure) = endpoint(&self.endpoint, self.protocol.as_deref())?;
        let max_wait = parse_duration(&self.max_wait).ok_or_else(|| {
            Failure::usage(format!(
                "--max-wait: `{}` is not a duration such as `5m`",
                self.max_wait
            ))
        })?;
        let shared = Shared {
            headers: headers(&self.header)?,
            compression: Packing::Gzip,
            tls: (!is_secure).then(|| ClientTls {
                insecure: true,
                ..ClientTls::default()
            }),
            ..Shared::default()
        };
        let from = match self.file.is_empty() {
            false => From::Files(self.file.clone()),
            true => From::Journal {
                directory: self.directory.clone().unwrap_or_else(|| self.data_dir.join("journal")),
                pipelines: self.pipeline.clone(),
            },
        };
        let request = format!(
            "{from:?} from {:?} to {:?} filter {:?} shift {:?} signals {signals:?} endpoint {endpoint}",
            self.from, self.to, self.filter, self.shift
        );
        Ok(Settings {
            from,
            from_unix_nano,
            to_unix_nano,
            speed: speed(&self.speed)?,
            filters: filters(&self.filter)?,
            shift: shift(self.shift.as_deref())?,
            signals,
            endpoint,
            protocol,
            shared,
            timeout: TIMEOUT,
            max_wait,
            resume: self.resume,
            state: self.state.clone(),
            is_quiet: self.json,
            request,
        })
    }
}

impl Settings {
    /// By how much times move, if the first request is of then and is sent now.
    pub fn shift(&self, first_unix_nano: u64, last_unix_nano: u64, now_unix_nano: u64) -> i64 {
        match self.shift {
            Shift::None => 0,
            Shift::By(nanos) => nanos,
            Shift::Now => {
                let span = last_unix_nano.saturating_sub(first_unix_nano);
                let takes = match self.speed {
                    Speed::Max => 0,
                    Speed::Times(times) => (span as f64 / times) as u64,
                };
                let sent_at = i128::from(now_unix_nano) + i128::from(takes);
                let by = sent_at - i128::from(last_unix_nano.max(first_unix_nano));
                by.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
            }
        }
    }

    /// Whether only moving to now needs to know the newest time before the first is sent.
    pub fn wants_last(&self) -> bool {
        self.shift == Shift::Now
    }
}

fn time(name: &str, text: Option<&str>, now: u64) -> Result<Option<u64>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let text = text.trim();
    let ago = || parse_duration(text.strip_prefix('-').unwrap_or(text));
    match text {
        "now" => Ok(Some(now)),
        _ => parse_rfc3339(text)
            .or_else(|| ago().map(|ago| now.saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX))))
            .map(Some)
            .ok_or_else(|| {
                Failure::usage(format!(
                    "{name}: `{text}` is neither a time such as 2026-11-20T19:04:05Z nor how long ago, such as 2h"
                ))
            }),
    }
}

fn speed(text: &str) -> Result<Speed, Failure> {
    if matches!(text, "max" | "0") {
        return Ok(Speed::Max);
    }
    let number = text.strip_suffix('x').unwrap_or(text).parse::<f64>().ok();
    match number.filter(|times| *times > 0.0 && *times <= MAX_SPEED) {
        Some(times) => Ok(Speed::Times(times)),
        None => Err(Failure::usage(format!(
            "--speed: `{text}` is not a speed such as `1x`, `10x` or `max`"
        ))),
    }
}

fn shift(text: Option<&str>) -> Result<Shift, Failure> {
    let Some(text) = text else { return Ok(Shift::None) };
    if text == "now" {
        return Ok(Shift::Now);
    }
    let (sign, size) = match text.strip_prefix('-') {
        Some(size) => (-1, size),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let nanos = parse_duration(size).and_then(|by| i64::try_from(by.as_nanos()).ok());
    match nanos {
        Some(nanos) => Ok(Shift::By(sign * nanos)),
        None => Err(Failure::usage(format!(
            "--shift: `{text}` is neither `now` nor a duration such as `24h` or `-30m`"
        ))),
    }
}

fn filters(texts: &[String]) -> Result<Vec<(Vec<String>, String)>, Failure> {
    let read = |text: &String| {
        let (key, value) = text
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| Failure::usage(format!("--filter: `{text}` is not of the form key=value")))?;
        let keys: &[&str] = match key {
            "service" => &["service.name"],
            "environment" | "env" => &["deployment.environment.name", "deployment.environment"],
            key => &[key],
        };
        Ok((keys.iter().map(|key| (*key).to_owned()).collect(), value.to_owned()))
    };
    texts.iter().map(read).collect()
}

/// The endpoint with a scheme, how to speak to it, and whether over TLS.
fn endpoint(text: &str, protocol: Option<&str>) -> Result<(String, Protocol, bool), Failure> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let host_and_port = rest.split('/').next().unwrap_or_default();
    let (host, port) = host_and_port.rsplit_once(':').unwrap_or((host_and_port, ""));
    if host.is_empty() {
        return Err(Failure::usage(format!(
            "--endpoint: `{text}` has no host; write it like http://127.0.0.1:4317"
        )));
    }
    let is_loopback = host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
    let is_secure = match scheme {
        "https" | "grpcs" => true,
        "http" | "grpc" => false,
        "" => !is_loopback,
        other => {
            return Err(Failure::usage(format!(
                "--endpoint: `{other}` is neither http nor https"
            )));
        }
    };
    let has_path = rest.contains('/') && !rest.ends_with(&format!("{host_and_port}/"));
    let protocol = match protocol {
        Some("grpc") => Protocol::Grpc,
        Some("http") => Protocol::Http,
        Some(other) => {
            return Err(Failure::usage(format!(
                "--protocol: `{other}` is neither grpc nor http"
            )));
        }
        None if scheme.starts_with("grpc") || port == "4317" => Protocol::Grpc,
        None if port == "4318" || has_path => Protocol::Http,
        None if scheme.is_empty() => Protocol::Grpc,
        None => Protocol::Http,
    };
    let scheme = if is_secure { "https" } else { "http" };
    Ok((
        format!("{scheme}://{}", rest.trim_end_matches('/')),
        protocol,
        is_secure,
    ))
}

fn headers(texts: &[String]) -> Result<exporters::sender::Headers, Failure> {
    let read = |text: &String| {
        // A mistake must not show the value.
        let wrong = || Failure::usage("--header: write it like `name: value` or `name: @FILE`");
        let (name, value) = text.split_once(':').ok_or_else(wrong)?;
        let value = match value.trim().strip_prefix('@') {
            None => value.trim().to_owned(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| Failure::usage(format!("--header: {path}: {error}")))?
                .trim()
                .to_owned(),
        };
        Ok((name.trim().to_ascii_lowercase(), value))
    };
    let headers: exporters::sender::Headers = texts.iter().map(read).collect::<Result<_, Failure>>()?;
    net::dial::headers(&headers).map_err(|why| Failure::usage(format!("--header: {why}")))?;
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: ReplayArgs,
    }

    fn settings(arguments: &str) -> Result<Settings, String> {
        let words = std::iter::once("replay").chain(arguments.split(' '));
        let command = Command::try_parse_from(words).map_err(|error| error.to_string())?;
        command.args.settings().map_err(|failure| failure.text)
    }

    #[test]
    fn endpoints_say_how_they_are_spoken_to() {
        for (text, expect) in [
            (
                "http://collector:4317",
                ("http://collector:4317", Protocol::Grpc, false),
            ),
            (
                "https://collector:4317/",
                ("https://collector:4317", Protocol::Grpc, true),
            ),
            (
                "http://collector:4318",
                ("http://collector:4318", Protocol::Http, false),
            ),
            (
                "https://cloud.example/otlp",
                ("https://cloud.example/otlp", Protocol::Http, true),
            ),
            ("localhost:4317", ("http://localhost:4317", Protocol::Grpc, false)),
            ("collector:4317", ("https://collector:4317", Protocol::Grpc, true)),
            ("grpc://[::1]:9", ("http://[::1]:9", Protocol::Grpc, false)),
        ] {
            let (url, protocol, is_secure) = endpoint(text, None).unwrap();
            assert_eq!((url.as_str(), protocol, is_secure), expect, "{text}");
        }
    }

    #[test]
    fn times_shifted_to_now_are_never_of_the_future() {
        let at = |speed: &str| settings(&format!("--endpoint http://a:4317 --shift now --speed {speed}")).unwrap();
        // A thousand seconds of data, sent from the second 5000 on.
        let (first, last, now) = (1_000_000_000_000, 2_000_000_000_000, 5_000_000_000_000);
        assert_eq!(at("1x").shift(first, last, now), 4_000_000_000_000);
        assert_eq!(at("10x").shift(first, last, now), 3_100_000_000_000);
        assert_eq!(at("max").shift(first, last, now), 3_000_000_000_000);
        let fixed = settings("--endpoint http://a:4317 --shift -30m").unwrap();
        assert_eq!(fixed.shift(first, last, now), -1_800_000_000_000);
    }

    #[test]
    fn mistakes_name_their_argument() {
        for (arguments, expect) in [
            ("--endpoint http://a:4317 --speed fast", "--speed: `fast`"),
            ("--endpoint http://a:4317 --from yesterday", "--from: `yesterday`"),
            ("--endpoint http://a:4317 --from 1h --to 2h", "--from lies behind --to"),
            ("--endpoint http://a:4317 --filter service", "--filter: `service`"),
            ("--endpoint http://a:4317 --shift later", "--shift: `later`"),
            ("--endpoint http://a:4317 --signal spans", "--signal: unknown signal"),
            ("--endpoint ftp://a:4317", "`ftp` is neither"),
            ("--endpoint http://", "has no host"),
            ("--endpoint http://a:4317 --header secret", "--header: write it like"),
            ("--endpoint http://a:4317 --max-wait long", "--max-wait"),
        ] {
            let said = settings(arguments).err().unwrap_or_default();
            assert!(said.contains(expect), "{arguments}: {said}");
            assert!(!said.contains("secret"), "{said}");
        }
    }
}
