//! What the process is doing, on one page for people and programs: where everything stands, how far readers are behind, whether the books balance.
//!
//! ```yaml
//! extensions:
//!   zpages: { endpoint: 127.0.0.1:55679 }
//! ```
//!
//! The collector's zPages are made of samples of its own spans; the page here is made of what is counted anyway, so it costs nothing until it is asked for.

use std::fmt::{self, Display, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use journal::ReaderStatus;
use net::{At, DoorSettings, Doors, Endpoint, Mount};
use pipeline::budget::Report;
use pipeline::config::{Problems, Section};
use pipeline::ledger::{Reasons, Snapshot};
use pipeline::processors::memory_limiter::resident_bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::extensions::{Shown, check_reading, read_access};
use crate::usage;

/// Nothing but the page itself and its own style: it has no scripts, and nothing that it shows may become one.
const CONTENT_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the collector's page of traces is asked for, and is not here.
const NO_TRACES: &str = "No spans are sampled for this page. `trackline serve`, or any configuration with the exporter `store`, keeps them all: \
    its UI and `trackline trace ID` show them. What the process counts of itself is at /, and as metrics where `service.telemetry.metrics` says.\n";

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2330;--dim:#5b6472;--line:#d9dde3;--paper:#fff;--panel:#f6f7f9;--good:#17703c;--bad:#b3261e}\
@media(prefers-color-scheme:dark){:root{--ink:#e4e8ee;--dim:#98a2b0;--line:#333b47;--paper:#14181e;--panel:#1b2129;--good:#5fd08f;--bad:#ff8a80}}\
*{box-sizing:border-box}body{margin:0 auto;max-width:76rem;padding:1.5rem;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}\
h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .5rem}p{margin:.25rem 0}a{color:inherit}nav a{margin-right:1rem}\
.dim,th,nav{color:var(--dim)}.good{color:var(--good)}.bad{color:var(--bad)}.scroll{overflow-x:auto}\
pre{background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:.75rem 1rem;overflow-x:auto;margin:0}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th{font-weight:500;text-align:left}\
th,td{padding:.3rem .8rem .3rem 0;border-bottom:1px solid var(--line);white-space:nowrap;vertical-align:top}td.n,th.n{text-align:right}meter{width:8rem}";

/// A page with the state of the process: pipelines, how far readers of the journal are behind, the books, memory.
///
/// ```yaml
/// extensions:
///   zpages: { endpoint: 127.0.0.1:55679 }
/// ```
///
/// `/` is the page, or JSON for who accepts only that; `/status.json` is always JSON. The collector's `/debug/servicez`, `/debug/pipelinez` and
/// `/debug/extensionz` lead to its parts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Zpages {
    /// Where it listens. Default localhost:55679.
    pub endpoint: String,
    /// Bearer tokens that callers must send one of. Needed beyond loopback. Default: none.
    pub tokens: Vec<String>,
    /// Listen beyond loopback without tokens: whoever reaches the door may read. Default `false`.
    pub insecure: bool,
    /// Host names, beside localhost and addresses, under which browsers reach the door. Default: none.
    pub hosts: Vec<String>,
    /// Accepted with a warning: there are no variables of a Go program.
    pub expvar: Option<IgnoredAny>,
}

impl Default for Zpages {
    fn default() -> Zpages {
        Zpages {
            endpoint: "localhost:55679".to_owned(),
            tokens: Vec::new(),
            insecure: false,
            hosts: Vec::new(),
            expvar: None,
        }
    }
}

impl Zpages {
    pub fn parse(section: &Section<'_>) -> Result<Zpages, Problems> {
        let zpages: Zpages = section.parse::<Option<Zpages>>()?.unwrap_or_default();
        let access = read_access(&zpages.tokens, zpages.insecure, &zpages.hosts);
        check_reading(section, &zpages.endpoint, &zpages.tokens, &access)?;
        if zpages.expvar.is_some() {
            section.warn(&["expvar"], "without effect: it shows variables of Go programs");
        }
        Ok(zpages)
    }

    pub fn mount(&self, name: &str, shown: &Shown, doors: &mut Doors) -> Result<()> {
        let service = net::from_tower(tower::ServiceExt::map_request(
            router(shown.clone()),
            |request: net::Request| request.map(axum::body::Body::new),
        ));
        let settings = DoorSettings {
            read: Some(read_access(&self.tokens, self.insecure, &self.hosts)),
            ..DoorSettings::default()
        };
        let endpoint: Endpoint = self.endpoint.parse()?;
        doors.mount_with(
            &endpoint,
            &format!("extension {name}"),
            Mount::Http { at: At::Rest, service },
            settings,
        )?;
        Ok(())
    }
}

fn router(shown: Shown) -> Router {
    let to = |part: &'static str| get(move || std::future::ready(Redirect::to(part)));
    Router::new()
        .route("/", get(page))
        .route("/status.json", get(status))
        .route("/debug/servicez", to("/#service"))
        .route("/debug/pipelinez", to("/#pipelines"))
        .route("/debug/extensionz", to("/#extensions"))
        .route(
            "/debug/tracez",
            get(|| std::future::ready((StatusCode::NOT_FOUND, NO_TRACES))),
        )
        .with_state(Arc::new(shown))
}

async fn page(State(shown): State<Arc<Shown>>, headers: HeaderMap) -> Response {
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let accepts = accepts.unwrap_or_default();
    match accepts.contains("application/json") && !accepts.contains("text/html") {
        true => fresh(axum::Json(Standing::of(&shown).json(&shown))),
        false => fresh(Html(Standing::of(&shown).html(&shown))),
    }
}

async fn status(State(shown): State<Arc<Shown>>) -> Response {
    fresh(axum::Json(Standing::of(&shown).json(&shown)))
}

fn fresh(answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (header::VARY, "accept"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// What is true at the moment of a request; page and JSON are two ways to tell it.
struct Standing {
    is_healthy: bool,
    health: &'static str,
    uptime: Duration,
    books: Snapshot,
    imbalance: Option<String>,
    readers: Vec<ReaderStatus>,
    memory: Report,
    resident_bytes: Option<u64>,
    usage: Vec<usage::Shown>,
    now_unix_nano: u64,
}

impl Standing {
    fn of(shown: &Shown) -> Standing {
        let (is_healthy, health) = shown.health();
        let books = shown.ledger.snapshot();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Standing {
            is_healthy,
            health,
            uptime: shown.started.elapsed(),
            imbalance: books.balance().err().map(|imbalance| imbalance.to_string()),
            books,
            readers: shown
                .journal
                .as_ref()
                .map(|journal| journal.readers())
                .unwrap_or_default(),
            memory: shown.budget.report(),
            resident_bytes: resident_bytes(),
            usage: shown.usage.shown(now.as_secs()),
            now_unix_nano: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// How long the oldest record that a reader has not acknowledged has waited.
    fn age(&self, reader: &ReaderStatus) -> Option<Duration> {
        let oldest = reader.oldest_unix_nano?;
        Some(Duration::from_nanos(self.now_unix_nano.saturating_sub(oldest)))
    }

    fn json(&self, shown: &Shown) -> Value {
        let reader = |reader: &ReaderStatus| {
            json!({
                "name": reader.name,
                "stream": reader.stream,
                "attached": reader.attached,
                "lag_records": reader.lag_records,
                "lag_bytes": reader.lag_bytes,
                "in_flight_records": reader.in_flight_records,
                "oldest_age_seconds": self.age(reader).map(|age| age.as_secs_f64()),
                "skipped_records": reader.skipped_records,
                "lost_records": reader.lost_records,
            })
        };
        let journal = shown.journal.as_ref().map(|journal| {
            let readers: Vec<Value> = self.readers.iter().map(reader).collect();
            json!({ "stats": journal.stats(), "readers": readers })
        });
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": self.uptime.as_secs_f64(),
            "healthy": self.is_healthy,
            "health": self.health,
            "pipelines": shown.picture.lines().collect::<Vec<_>>(),
            "extensions": shown.extensions.iter().map(|name| &**name).collect::<Vec<_>>(),
            "journal": journal,
            "without_journal": shown.without_journal.as_deref(),
            "ledger": self.books,
            "balanced": self.imbalance.is_none(),
            "imbalance": self.imbalance,
            "usage": self.usage,
            "memory": { "resident_bytes": self.resident_bytes, "budget": self.memory },
        })
    }

    fn html(&self, shown: &Shown) -> String {
        let mut page = Page::default();
        let version = env!("CARGO_PKG_VERSION");
        page.raw("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Trackline</title>");
        page.raw("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><style>");
        page.raw(STYLE);
        page.raw("</style></head><body><h1 id=\"service\">Trackline</h1>");
        let health = Said(self.is_healthy, self.health);
        page.raw(&format!(
            "<p>{health} · up {} · version {version}</p>",
            Span(self.uptime)
        ));
        page.raw(
            "<nav><a href=\"#pipelines\">Pipelines</a><a href=\"#journal\">Journal</a><a href=\"#books\">Books</a>",
        );
        page.raw("<a href=\"#usage\">Usage</a><a href=\"#memory\">Memory</a><a href=\"#extensions\">Extensions</a><a href=\"/status.json\">JSON</a></nav>");

        page.heading("pipelines", "Pipelines");
        page.raw(&format!("<pre>{}</pre>", Text(&shown.picture)));
        page.heading("journal", "Journal");
        match (&shown.journal, &shown.without_journal) {
            (Some(journal), _) => self.journal(&mut page, &journal.stats()),
            (None, Some(why)) => page.raw(&format!("<p class=\"bad\">None: {}</p>", Text(why))),
            (None, None) => {
                page.raw("<p>None, as configured: a sender hears “accepted” when the exporters have it.</p>")
            }
        }
        page.heading("books", "Books");
        self.books(&mut page);
        page.heading("usage", "Sent this month");
        self.used(&mut page);
        page.heading("memory", "Memory");
        if let Some(bytes) = self.resident_bytes {
            page.raw(&format!("<p>The process has {} resident.</p>", Size(bytes)));
        }
        page.table(&["Part", "#Used", "#Limit", "#Peak", "#Turned away", ""]);
        budgets(&mut page, &self.memory, 0);
        page.end();
        page.heading("extensions", "Extensions");
        let names = shown.extensions.join(", ");
        page.raw(&format!("<p>{}</p></body></html>\n", Text(&names)));
        page.0
    }

    fn journal(&self, page: &mut Page, stats: &journal::Stats) {
        page.raw(&format!(
            "<p>{} in {} segments on disk; {} records appended since the start.</p>",
            Size(stats.disk_bytes),
            stats.segments,
            stats.appended_records
        ));
        page.table(&[
            "Reader",
            "#Behind, records",
            "#Behind, bytes",
            "#Oldest",
            "#On its way",
            "#Skipped",
            "#Lost",
            "",
        ]);
        for reader in &self.readers {
            let age = self
                .age(reader)
                .map_or_else(|| "–".to_owned(), |age| Span(age).to_string());
            page.row(&[
                Cell::Text(reader.name.clone()),
                Cell::Number(reader.lag_records.to_string()),
                Cell::Number(Size(reader.lag_bytes).to_string()),
                Cell::Number(age),
                Cell::Number(reader.in_flight_records.to_string()),
                Cell::Lost(reader.skipped_records),
                Cell::Lost(reader.lost_records),
                Cell::Text(if reader.attached { "" } else { "nobody reads" }.to_owned()),
            ]);
        }
        page.end();
    }

    fn used(&self, page: &mut Page) {
        page.raw("<p class=\"dim\">Bytes of OTLP before compression; the forecast goes on at the rate so far.</p>");
        page.table(&["Exporter", "Signal", "#Items", "#Sent", "#Forecast", "#Budget", ""]);
        for used in &self.usage {
            let budget = used.budget_bytes;
            page.row(&[
                Cell::Text(used.exporter.clone()),
                Cell::Text(used.signal.clone()),
                Cell::Number(used.items.to_string()),
                Cell::Number(Size(used.bytes).to_string()),
                Cell::Number(Size(used.forecast_bytes).to_string()),
                Cell::Number(budget.map_or_else(|| "–".to_owned(), |bytes| Size(bytes).to_string())),
                budget.map_or(Cell::Text(String::new()), |bytes| Cell::Share(used.bytes, bytes)),
            ]);
        }
        page.end();
    }

    fn books(&self, page: &mut Page) {
        let verdict = match &self.imbalance {
            None => Said(true, "They balance: every item that came in is accounted for.").to_string(),
            // Items are counted where they are, one after the other, so those on their way may be seen twice.
            Some(why) => {
                Said(false, why).to_string() + " <span class=\"dim\">(while items move this may last a moment)</span>"
            }
        };
        page.raw(&format!("<p>{verdict}</p>"));
        let number = |count: u64| Cell::Number(count.to_string());
        page.table(&[
            "Door",
            "Signal",
            "#Requests",
            "#Received",
            "#Acknowledged",
            "#In flight",
            "Refused",
            "Rejected",
        ]);
        for door in &self.books.doors {
            page.row(&[
                Cell::Text(door.receiver.clone()),
                Cell::Text(door.signal.to_owned()),
                number(door.requests),
                number(door.received),
                number(door.acked),
                number(door.in_flight),
                Cell::Reasons(door.refused.clone()),
                Cell::Reasons(door.rejected.clone()),
            ]);
        }
        page.end();
        if !self.books.processors.is_empty() {
            page.table(&[
                "Processor",
                "Signal",
                "#Incoming",
                "#Outgoing",
                "#Faults",
                "Dropped",
                "Rejected",
            ]);
            for step in &self.books.processors {
                page.row(&[
                    Cell::Text(step.processor.clone()),
                    Cell::Text(step.signal.to_owned()),
                    number(step.incoming),
                    number(step.outgoing),
                    number(step.faults),
                    Cell::Reasons(step.dropped.clone()),
                    Cell::Reasons(step.rejected.clone()),
                ]);
            }
            page.end();
        }
        page.table(&[
            "Pipeline",
            "Exporter",
            "#Accepted",
            "#Carried",
            "#Delivered",
            "#Pending",
            "#Retries",
            "#Sent",
            "Dropped",
            "Circuit",
        ]);
        for reader in &self.books.readers {
            let circuit = serde_json::to_value(reader.circuit).unwrap_or_default();
            page.row(&[
                Cell::Text(reader.pipeline.clone()),
                Cell::Text(reader.exporter.clone()),
                number(reader.accepted),
                number(reader.carried),
                number(reader.delivered),
                Cell::Number(reader.pending.to_string()),
                number(reader.retries),
                Cell::Number(Size(reader.sent_bytes).to_string()),
                Cell::Reasons(reader.dropped.clone()),
                Cell::Text(circuit.as_str().unwrap_or_default().replace('_', " ")),
            ]);
        }
        page.end();
    }
}

fn budgets(page: &mut Page, report: &Report, depth: usize) {
    let usage = &report.usage;
    page.row(&[
        Cell::Text(format!("{}{}", "\u{2003}".repeat(depth), report.name)),
        Cell::Number(Size(usage.used_bytes).to_string()),
        Cell::Number(Size(usage.limit_bytes).to_string()),
        Cell::Number(Size(usage.peak_bytes).to_string()),
        Cell::Lost(report.refusals),
        Cell::Share(usage.used_bytes, usage.limit_bytes),
    ]);
    for part in &report.parts {
        budgets(page, part, depth + 1);
    }
}

/// HTML as it is written.
#[derive(Default)]
struct Page(String);

enum Cell {
    Text(String),
    Number(String),
    /// A count that should be zero.
    Lost(u64),
    Reasons(Reasons),
    Share(u64, u64),
}

impl Page {
    fn raw(&mut self, html: &str) {
        self.0.push_str(html);
    }

    fn heading(&mut self, id: &str, text: &str) {
        self.raw(&format!("<h2 id=\"{id}\">{text}</h2>"));
    }

    /// Columns of numbers have a `#` before their names.
    fn table(&mut self, columns: &[&str]) {
        self.raw("<div class=\"scroll\"><table><thead><tr>");
        for column in columns {
            match column.strip_prefix('#') {
                Some(column) => self.raw(&format!("<th class=\"n\">{column}</th>")),
                None => self.raw(&format!("<th>{column}</th>")),
            }
        }
        self.raw("</tr></thead><tbody>");
    }

    fn row(&mut self, cells: &[Cell]) {
        self.raw("<tr>");
        for cell in cells {
            let html = match cell {
                Cell::Text(text) => format!("<td>{}</td>", Text(text)),
                Cell::Number(text) => format!("<td class=\"n\">{}</td>", Text(text)),
                Cell::Lost(0) => "<td class=\"n\">0</td>".to_owned(),
                Cell::Lost(count) => format!("<td class=\"n bad\">{count}</td>"),
                Cell::Reasons(reasons) => {
                    let each = reasons.0.iter().map(|(reason, count)| format!("{count} {reason}"));
                    format!("<td>{}</td>", Text(&each.collect::<Vec<_>>().join(", ")))
                }
                Cell::Share(used, limit) => {
                    format!("<td><meter max=\"{}\" value=\"{used}\"></meter></td>", limit.max(&1))
                }
            };
            self.raw(&html);
        }
        self.raw("</tr>");
    }

    fn end(&mut self) {
        self.raw("</tbody></table></div>");
    }
}

/// Text that is no markup, whatever is in it: names come from configurations, and those from variables.
struct Text<'t>(&'t str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            c => f.write_char(c),
        })
    }
}

/// A verdict.
struct Said<'t>(bool, &'t str);

impl Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = if self.0 { "good" } else { "bad" };
        write!(f, "<strong class=\"{class}\">{}</strong>", Text(self.1))
    }
}

/// A number of bytes.
struct Size(u64);

impl Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let at = (self.0.ilog2() as usize / 10).min(UNITS.len());
        write!(f, "{:.1} {}", self.0 as f64 / (1u64 << (10 * at)) as f64, UNITS[at - 1])
    }
}

/// A length of time, in its two largest units.
struct Span(Duration);

impl Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0 => write!(f, "{} ms", self.0.as_millis()),
            1..60 => write!(f, "{seconds} s"),
            60..3600 => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            3600..86_400 => write!(f, "{} h {} min", seconds / 3600, seconds / 60 % 60),
            _ => write!(f, "{} d {} h", seconds / 86_400, seconds / 3600 % 24),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::Instant;

    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use model::Signal;
    use pipeline::config::Source;
    use pipeline::config::telemetry::UsageBudget;
    use pipeline::{Budget, Ledger, Reason};
    use tower::ServiceExt;

    use super::*;

    fn shown() -> Shown {
        let ledger = Ledger::new();
        let door = ledger.door("otlp/<b>", Signal::Logs);
        door.rejected(3, Reason::Unauthorized);
        Shown {
            receivers: Vec::new(),
            reader: None,
            retention: Duration::ZERO,
            journal: None,
            without_journal: None,
            ledger,
            budget: Budget::root("process", 1 << 20),
            ready: Arc::new(AtomicBool::new(true)),
            started: Instant::now(),
            usage: usage::Usage::open(
                None,
                vec![UsageBudget {
                    exporter: "otlp/<b>".to_owned(),
                    signal: Signal::Logs,
                    bytes_per_month: 3 << 20,
                    active_series: 0,
                }],
                0,
            ),
            picture: "logs\n  otlp/<b> ─► debug\n".into(),
            extensions: vec!["zpages".into()].into(),
        }
    }

    async fn ask(path: &str, accept: &str) -> (StatusCode, HeaderMap, String) {
        let request = Request::get(path).header("accept", accept).body(Body::empty()).unwrap();
        let response = router(shown()).oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn one_page_for_people_and_programs() {
        let (status, headers, html) = ask("/", "text/html,application/json;q=0.9").await;
        assert_eq!(
            (status, &headers["content-type"]),
            (StatusCode::OK, &HeaderValue::from_static("text/html; charset=utf-8"))
        );
        assert!(
            headers["content-security-policy"]
                .to_str()
                .unwrap()
                .starts_with("default-src 'none'")
        );
        for expect in [
            "otlp/&lt;b&gt; ─► debug",
            "3 unauthorized",
            "They balance",
            "Server available",
            "None, as configured",
            "3.0 MiB",
        ] {
            assert!(html.contains(expect), "{expect}\n{html}");
        }
        assert!(!html.contains("<b>") && !html.contains("<script"), "{html}");
        for (path, accept) in [("/", "application/json"), ("/status.json", "*/*")] {
            let (_, _, text) = ask(path, accept).await;
            let told: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(told["ledger"]["doors"][0]["rejected"]["unauthorized"], 3, "{text}");
            assert_eq!((&told["balanced"], &told["healthy"]), (&json!(true), &json!(true)));
            assert_eq!(told["pipelines"][0], "logs");
            assert_eq!(told["memory"]["budget"]["limit_bytes"], 1 << 20);
        }
    }

    #[tokio::test]
    async fn the_collectors_paths_lead_somewhere() {
        for (path, to) in [
            ("/debug/servicez", "/#service"),
            ("/debug/pipelinez", "/#pipelines"),
            ("/debug/extensionz", "/#extensions"),
        ] {
            let (status, headers, _) = ask(path, "*/*").await;
            assert_eq!(
                (status, headers["location"].to_str().unwrap()),
                (StatusCode::SEE_OTHER, to)
            );
        }
        let (status, _, said) = ask("/debug/tracez", "*/*").await;
        assert!(
            status == StatusCode::NOT_FOUND && said.contains("trackline trace ID"),
            "{said}"
        );
    }

    #[test]
    fn settings_and_their_mistakes() {
        let read = |settings: &str| {
            let text = format!("extensions:\n  zpages: {settings}\nservice: {{ pipelines: {{ traces: {{}} }} }}\n");
            let config = pipeline::config::Config::load(vec![Source::new("test", text)], &|_| None).unwrap();
            Zpages::parse(&config.section(&config.extensions[0])).map_err(|problems| problems.to_string())
        };
        assert_eq!(read("").unwrap().endpoint, "localhost:55679");
        assert!(read("{ endpoint: '0.0.0.0:55679', tokens: [s3cret] }").is_ok());
        assert!(read("{ endpoint: '0.0.0.0:55679', insecure: true, expvar: { enabled: true } }").is_ok());
        for (settings, expect) in [
            (
                "{ endpoint: '0.0.0.0:55679' }",
                "test:2:23: reading beyond loopback needs `tokens`",
            ),
            ("{ endpoint: nowhere }", "it has no port"),
            ("{ tokens: [''] }", "token 1 is empty"),
            ("{ endpiont: x }", "did you mean `endpoint`?"),
        ] {
            let said = read(settings).unwrap_err();
            assert!(said.contains(expect), "{settings}: {said}");
        }
    }

    #[test]
    fn figures_for_people() {
        let sizes = [0, 1023, 1024, 1536, 512 << 20, 5 << 40, u64::MAX].map(|bytes| Size(bytes).to_string());
        assert_eq!(
            sizes,
            [
                "0 B",
                "1023 B",
                "1.0 KiB",
                "1.5 KiB",
                "512.0 MiB",
                "5.0 TiB",
                "16777216.0 TiB"
            ]
        );
        let spans = [0, 59, 61, 3661, 90_000].map(|seconds| Span(Duration::from_secs(seconds)).to_string());
        assert_eq!(spans, ["0 ms", "59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
    }
}
