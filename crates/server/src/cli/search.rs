//! `trackline search` and `trackline services`.

use std::process::ExitCode;
use std::time::Duration;

use query::instant::{duration_text, rfc3339};
use serde::Deserialize;

use super::client::{Server, encode};
use super::terminal::{Ink, Terminal, pad_left};
use super::trace::duration;
use super::{FOUND, Failure, NOT_FOUND, ServerArg, UNREACHABLE, finish};

/// A trace takes one line from so many columns on: id, time and counts are 75, names want the rest.
const ONE_LINE_COLUMNS: usize = 100;

/// Find traces by service, operation, tags, duration, time and errors.
#[derive(clap::Args, Clone, Debug)]
pub struct SearchArgs {
    /// Traces with a span of this service
    #[arg(long)]
    service: Option<String>,
    /// Traces with a span of this name
    #[arg(long)]
    operation: Option<String>,
    /// Traces with a span that has this attribute, e.g. http.status_code=500, or user.id with any value; repeat for more
    #[arg(long = "tag", value_name = "KEY[=VALUE]", value_parser = tag)]
    tags: Vec<String>,
    /// Only spans that took at least this long, e.g. 100ms
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    min_duration: Option<Duration>,
    /// Only spans that took at most this long
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    max_duration: Option<Duration>,
    /// How far back to look
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1h")]
    lookback: Duration,
    /// Only spans that failed
    #[arg(long)]
    errors: bool,
    /// How many traces to show, newest first
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=query::MAX_TRACES as u64))]
    limit: u64,
    /// Print the server's JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArg,
}

/// List the services that sent spans.
#[derive(clap::Args, Clone, Debug)]
pub struct ServicesArgs {
    /// Print the server's JSON instead of a list
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArg,
}

fn tag(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some(("", _)) => Err("there is no key before the `=`".to_owned()),
        None if text.is_empty() => Err("a tag is KEY=VALUE, or KEY for any value".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

#[derive(Deserialize)]
struct Found {
    traces: Vec<Summary>,
    #[serde(default)]
    cut: bool,
}

#[derive(Deserialize)]
struct Summary {
    tracking_id: String,
    root: Option<query::story::Root>,
    #[serde(with = "query::json::decimal")]
    start_unix_nano: u64,
    duration_ns: u64,
    span_count: usize,
    error_count: usize,
    services: Vec<String>,
}

impl SearchArgs {
    pub fn run(self) -> ExitCode {
        finish(self.answer())
    }

    fn answer(self) -> Result<(String, u8), Failure> {
        if let (Some(least), Some(most)) = (self.min_duration, self.max_duration)
            && most < least
        {
            return Err(Failure::usage(
                "--max-duration is shorter than --min-duration: no span is both",
            ));
        }
        let server = Server::of(&self.server)?;
        let answer = server.ask(&self.path())?;
        let found: Found = read(&server, &answer.body)?;
        let code = if found.traces.is_empty() { NOT_FOUND } else { FOUND };
        if self.json {
            return Ok((String::from_utf8_lossy(&answer.body).into_owned() + "\n", code));
        }
        if found.traces.is_empty() {
            let back = duration_text(self.lookback.as_nanos() as u64);
            return Ok((
                format!("No trace of the last {back} matches; --lookback 1d looks further back.\n"),
                code,
            ));
        }
        let mut out = table(&found.traces, &Terminal::of_stdout());
        if found.cut {
            out.push_str("The server's bound on one answer left out further traces that match; ask for fewer.\n");
        }
        Ok((out, code))
    }

    fn path(&self) -> String {
        let mut parts = vec![format!("limit={}", self.limit)];
        let nanos = |duration: Duration| format!("{}ns", duration.as_nanos());
        let mut add = |name: &str, value: Option<String>| {
            parts.extend(value.map(|value| format!("{name}={}", encode(&value))));
        };
        add("service", self.service.clone());
        add("operation", self.operation.clone());
        for tag in &self.tags {
            add("tag", Some(tag.clone()));
        }
        add("min_duration", self.min_duration.map(nanos));
        add("max_duration", self.max_duration.map(nanos));
        add("lookback", Some(nanos(self.lookback)));
        add("errors", self.errors.then(|| "true".to_owned()));
        format!("/api/trackline/v1/search?{}", parts.join("&"))
    }
}

fn table(traces: &[Summary], terminal: &Terminal) -> String {
    let mut out = String::new();
    for trace in traces {
        let time = rfc3339(trace.start_unix_nano, 0);
        let errors = match trace.error_count {
            0 => String::new(),
            n => terminal.ink(Ink::Error, &format!("{n} failed ")),
        };
        let (service, operation) = trace
            .root
            .as_ref()
            .map_or(("?", "?"), |root| (&root.service, &root.operation));
        let others = match trace.services.len() {
            0..=1 => String::new(),
            2 => terminal.ink(Ink::Faint, " +1 service"),
            n => terminal.ink(Ink::Faint, &format!(" +{} services", n - 1)),
        };
        // Where the line would wrap anywhere, it does so after the time.
        let between = if terminal.columns < ONE_LINE_COLUMNS {
            "\n "
        } else {
            " "
        };
        out.push_str(&format!(
            "{}  {}{between}{} {} spans  {errors}{} {}{others}\n",
            terminal.ink(Ink::Bold, &trace.tracking_id),
            terminal.ink(Ink::Faint, &time),
            pad_left(&duration_text(trace.duration_ns), 7),
            pad_left(&trace.span_count.to_string(), 4),
            terminal.ink(Ink::Service(0), &terminal.clean(service)),
            terminal.clean(operation),
        ));
    }
    out
}

impl ServicesArgs {
    pub fn run(self) -> ExitCode {
        finish(self.answer())
    }

    fn answer(self) -> Result<(String, u8), Failure> {
        #[derive(Deserialize)]
        struct Services {
            services: Vec<Service>,
        }
        #[derive(Deserialize)]
        struct Service {
            name: String,
        }
        let server = Server::of(&self.server)?;
        let answer = server.ask("/api/trackline/v1/services")?;
        let found: Services = read(&server, &answer.body)?;
        let code = if found.services.is_empty() { NOT_FOUND } else { FOUND };
        if self.json {
            return Ok((String::from_utf8_lossy(&answer.body).into_owned() + "\n", code));
        }
        if found.services.is_empty() {
            return Ok(("No service has sent spans yet.\n".to_owned(), code));
        }
        let terminal = Terminal::of_stdout();
        let lines = found
            .services
            .iter()
            .map(|service| terminal.clean(&service.name) + "\n");
        Ok((lines.collect(), code))
    }
}

fn read<T: for<'de> Deserialize<'de>>(server: &Server, body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure {
        code: UNREACHABLE,
        text: format!("the answer of {} is not readable: {error}", server.address()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_becomes_one_encoded_query_string() {
        let args = SearchArgs {
            service: Some("api gateway".into()),
            operation: None,
            tags: vec!["a=b&c".into(), "d=e".into()],
            min_duration: Some(Duration::from_millis(100)),
            max_duration: None,
            lookback: Duration::from_secs(60),
            errors: true,
            limit: 5,
            json: false,
            server: ServerArg { server: String::new() },
        };
        assert_eq!(
            args.path(),
            "/api/trackline/v1/search?limit=5&service=api%20gateway&tag=a%3Db%26c&tag=d%3De&min_duration=100000000ns&lookback=60000000000ns&errors=true"
        );
    }
}
