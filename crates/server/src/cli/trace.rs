//! `trackline trace`: one tracking ID, the whole story.

use std::io::Read;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use model::TraceId;
use query::Story;
use query::instant::{now_unix_nano, parse_duration};
use query::story::Status;

use super::client::Server;
use super::terminal::Terminal;
use super::{FOUND, Failure, NOT_FOUND, ServerArg, UNREACHABLE, finish, tree};

/// Between two questions while waiting: short to a person, no load to a server.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// A trace that ended this long ago has arrived: services send every second.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
/// What is read of stdin in search of an id: the headers and body of any sensible response.
const MAX_STDIN_BYTES: u64 = 1 << 20;

/// Show everything about one request: its trace, logs, errors, AI calls and database rows.
#[derive(clap::Args, Clone, Debug)]
pub struct TraceArgs {
    /// The tracking ID: hex, UUID, traceparent, base64, or a whole `X-Tracking-ID: …` line; `-` looks for one in stdin
    #[arg(required = true, value_name = "ID")]
    id: Vec<String>,
    /// Print the server's JSON instead of a tree: at most 50,000 spans, `more` counts the rest
    #[arg(long)]
    json: bool,
    /// Show every span, log line and stack line, and cut none: up to 250,000 spans (beyond 50,000 without their
    /// attributes) and 10,000 log lines, the server's bounds; what is left out is counted
    #[arg(long)]
    all: bool,
    /// Wait this long until the trace is there and complete, e.g. 5s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait: Option<Duration>,
    #[command(flatten)]
    server: ServerArg,
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("`{text}` is not a duration such as 100ms, 5s or 1h30m"))
}

impl TraceArgs {
    pub fn run(self) -> ExitCode {
        finish(self.answer())
    }

    fn answer(self) -> Result<(String, u8), Failure> {
        let id = self.id()?;
        let server = Server::of(&self.server)?;
        let detail = if self.json || self.all { "full" } else { "auto" };
        let path = format!("/api/trackline/v1/tracking/{id}?detail={detail}");
        let (mut body, mut story) = match self.wait {
            None => ask(&server, &path)?,
            Some(wait) => wait_for(&server, &path, wait)?,
        };
        // An outline holds more spans than a full answer, and a tree shows little of what it lacks.
        if self.all && !self.json && story.more.spans_cut > 0 {
            (body, story) = ask(&server, &format!("/api/trackline/v1/tracking/{id}?detail=outline"))?;
        }
        let code = match story.status {
            Status::Found | Status::Partial | Status::NotSampled => FOUND,
            Status::Expired | Status::Unknown => NOT_FOUND,
        };
        let output = if self.json {
            body + "\n"
        } else {
            tree::draw(&story, &Terminal::of_stdout(), self.all)
        };
        Ok((output, code))
    }

    fn id(&self) -> Result<TraceId, Failure> {
        // A header line pasted without quotes arrives as two arguments.
        let pasted = self.id.join(" ");
        if pasted.trim() != "-" {
            return TraceId::parse(&pasted)
                .or_else(|error| find_id(&pasted).ok_or(error))
                .map_err(|error| Failure::usage(format!("{error}")));
        }
        let mut text = String::new();
        let read = std::io::stdin().lock().take(MAX_STDIN_BYTES).read_to_string(&mut text);
        read.map_err(|error| Failure::usage(format!("cannot read stdin: {error}")))?;
        find_id(&text).ok_or_else(|| {
            Failure::usage("there is no tracking ID in stdin; `curl -si URL | trackline trace -` passes the headers on")
        })
    }
}

/// The id in a text such as a whole HTTP response: what follows a name that announces one, else a lone id.
fn find_id(text: &str) -> Option<TraceId> {
    const NAMES: [&str; 5] = ["x-tracking-id", "tracking_id", "traceparent", "trace_id", "traceid"];
    let part_of_id = |c: char| c.is_ascii_alphanumeric() || "-_.+/=".contains(c);
    let mut words = text
        .split(|c: char| !part_of_id(c))
        .filter(|word| !word.is_empty())
        .peekable();
    let mut lone = None;
    while let Some(word) = words.next() {
        if NAMES.iter().any(|name| word.eq_ignore_ascii_case(name))
            && let Some(id) = words.peek().and_then(|value| TraceId::parse(value).ok())
        {
            return Some(id);
        }
        // Without a name only a full-length id counts: `content-length: 12` is one by the letter.
        if word.len() >= 32 {
            lone = lone.or_else(|| TraceId::parse(word).ok());
        }
    }
    lone.or_else(|| TraceId::parse(text).ok())
}

fn ask(server: &Server, path: &str) -> Result<(String, Story), Failure> {
    let answer = server.ask(path)?;
    let broken = |why: String| Failure {
        code: UNREACHABLE,
        text: format!("the answer of {} is not readable: {why}", server.address()),
    };
    let body = String::from_utf8(answer.body.to_vec()).map_err(|error| broken(error.to_string()))?;
    let story = serde_json::from_str(&body).map_err(|error| broken(error.to_string()))?;
    Ok((body, story))
}

/// Asks until the trace is complete: found, and either over for a while or unchanged since then. At the end of the
/// wait whatever is there is the answer, a failure to answer included.
fn wait_for(server: &Server, path: &str, wait: Duration) -> Result<(String, Story), Failure> {
    let started = Instant::now();
    let mut seen: Option<(usize, usize, Instant)> = None;
    loop {
        let asked = ask(server, path);
        let now = Instant::now();
        if let Ok((_, story)) = &asked {
            let size = (story.trace.span_count, story.logs.len());
            let since = match seen {
                Some((spans, logs, since)) if (spans, logs) == size => since,
                _ => now,
            };
            seen = Some((size.0, size.1, since));
            let end = story.trace.start_unix_nano.saturating_add(story.trace.duration_ns);
            let over = now_unix_nano().saturating_sub(end) >= SETTLED_AFTER.as_nanos() as u64;
            if story.status == Status::Found && (over || now - since >= SETTLED_AFTER) {
                return asked;
            }
        }
        // Usage does not mend itself; a server that is starting does.
        if matches!(&asked, Err(failure) if failure.code != UNREACHABLE) || now - started >= wait {
            return asked;
        }
        std::thread::sleep(ASK_EVERY.min(wait.saturating_sub(now - started)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn an_id_is_found_in_what_curl_prints() {
        let response = format!(
            "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 12\r\nx-request: 00000000000000000000000000000009\r\nX-Tracking-ID: {ID}\r\n\r\nbad gateway"
        );
        assert_eq!(find_id(&response).unwrap().to_string(), ID);
        let body = format!(r#"{{"execution_id":"7","tracking_id":"{ID}"}}"#);
        assert_eq!(find_id(&body).unwrap().to_string(), ID);
        assert_eq!(find_id(&format!("see {ID} please")).unwrap().to_string(), ID);
        assert_eq!(
            find_id("4bf92f35-77b3-4da6-a3ce-929d0e0e4736\n").unwrap().to_string(),
            ID
        );
    }

    #[test]
    fn small_numbers_in_headers_are_not_ids() {
        assert_eq!(find_id("content-length: 12\r\nage: 5\r\n\r\nok then"), None);
    }

    fn ask_running(url: &str, id: &[&str], json: bool) -> (String, u8) {
        let args = TraceArgs {
            id: id.iter().map(|&part| part.to_owned()).collect(),
            json,
            all: false,
            wait: None,
            server: ServerArg { server: url.to_owned() },
        };
        args.answer().unwrap_or_else(|failure| (failure.text, failure.code))
    }

    #[test]
    fn a_running_server_is_asked_and_the_exit_code_tells() {
        let running = crate::api::over_http::run();
        let (drawn, code) = ask_running(&running.url, &["X-Tracking-ID:", ID], false);
        assert_eq!(code, FOUND, "{drawn}");
        for part in [
            "found",
            "gateway POST /chat",
            "engine run",
            "rolling dice",
            "out of luck",
        ] {
            assert!(drawn.contains(part), "{part} is missing in:\n{drawn}");
        }
        let (json, _) = ask_running(&running.url, &[ID], true);
        assert_eq!(serde_json::from_str::<Story>(&json).unwrap().trace.span_count, 3);
        assert_eq!(ask_running(&running.url, &["abc"], false).1, NOT_FOUND);
        assert_eq!(ask_running(&running.url, &["no-trace"], false).1, super::super::USAGE);
        assert_eq!(ask_running("https://x", &[ID], false).1, super::super::USAGE);
        drop(running);
    }

    #[test]
    fn a_wait_ends_when_the_trace_is_there() {
        let running = crate::api::over_http::run();
        let server = Server::parse(&running.url).unwrap();
        let path = format!("/api/trackline/v1/tracking/{ID}");
        let (_, story) =
            wait_for(&server, &path, Duration::from_secs(3600)).unwrap_or_else(|failure| panic!("{}", failure.text));
        assert_eq!(story.status, Status::Found);
    }
}
