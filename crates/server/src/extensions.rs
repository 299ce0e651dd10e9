//! What listens beside the receivers: the query door with its APIs and pages, and the health check.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use journal::Journal;
use net::access::{ReadAccess, Token};
use net::{At, DoorSettings, Doors, Endpoint, Mount};
use pipeline::config::{Problems, Section};
use pipeline::processors::memory_limiter::resident_bytes;
use pipeline::{Budget, Ledger};
use query::Querier;
use query::rows::{DatabaseSettings, Rows};
use receivers::Counters;
use serde::Deserialize;
use serde_json::{Value, json};
use store::{Reader, Stats};

use crate::api::{self, ApiState};
use crate::usage::Usage;

/// What the extensions are given to show.
#[derive(Clone)]
pub struct Shown {
    /// What doors mended in what they took, by receiver.
    pub receivers: Vec<(Arc<str>, Arc<Counters>)>,
    pub reader: Option<Reader>,
    pub retention: Duration,
    pub journal: Option<Journal>,
    /// Why there is no journal although there should be one.
    pub without_journal: Option<Arc<str>>,
    pub ledger: Ledger,
    pub budget: Budget,
    pub ready: Arc<AtomicBool>,
    pub started: Instant,
    pub usage: Usage,
    /// Where everything stands, as `trackline config` draws it.
    pub picture: Arc<str>,
    /// The names of those that run.
    pub extensions: Arc<[Arc<str>]>,
}

impl Shown {
    /// Whether data is taken and questions are answered completely, and in words.
    pub fn health(&self) -> (bool, &'static str) {
        let failed = |journal: &Journal| matches!(journal.health(), journal::Health::Failed { .. });
        match (
            self.journal.as_ref().is_some_and(failed),
            self.ready.load(Ordering::Acquire),
        ) {
            (true, _) => (false, "the journal's disk failed; restart after mending it"),
            (false, false) => (false, "reading the journal"),
            (false, true) => (true, "Server available"),
        }
    }
}

/// How a door that hands data out is protected.
pub fn read_access(tokens: &[String], insecure: bool, hosts: &[String]) -> ReadAccess {
    ReadAccess {
        tokens: tokens.iter().filter_map(|token| Token::new(token)).collect(),
        insecure,
        hosts: hosts.to_vec(),
    }
}

/// Says what is wrong with the keys `endpoint` and `tokens` of such a door.
pub fn check_reading(
    section: &Section<'_>,
    address: &str,
    tokens: &[String],
    access: &ReadAccess,
) -> Result<(), Problems> {
    let endpoint = endpoint(section, address)?;
    if let Some(short) = tokens.iter().position(|token| Token::new(token).is_none()) {
        return Err(section.problem(&["tokens"], format!("token {} is empty", short + 1)));
    }
    if !access.may_open(&endpoint) {
        let problem = "reading beyond loopback needs `tokens`, or `insecure: true` if whoever reaches it may read";
        return Err(section.problem(&["endpoint"], problem));
    }
    Ok(())
}

/// The APIs and the web UI.
///
/// ```yaml
/// extensions:
///   query:
///     endpoint: 127.0.0.1:16686
///     databases: [{ url: "postgres://reader@db/workflows" }]
/// ```
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// Where it listens. Default 127.0.0.1:16686.
    #[serde(default = "Query::default_endpoint")]
    pub endpoint: String,
    /// Bearer tokens that callers must send one of. Needed beyond loopback. Default: none.
    #[serde(default)]
    pub tokens: Vec<String>,
    /// Listen beyond loopback without tokens: whoever reaches the door may read. Default `false`.
    #[serde(default)]
    pub insecure: bool,
    /// Host names, beside localhost and addresses, under which browsers reach the door. Default: none.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Databases in which rows of a request are looked up. Default: none.
    #[serde(default)]
    pub databases: Vec<Database>,
}

/// One database of the services.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// `sqlite:…` or `postgres://…`; it is only read.
    pub url: String,
    /// Where rows are looked for. Default: every table with a `tracking_id` column.
    #[serde(default)]
    pub tables: Vec<String>,
}

impl Query {
    fn default_endpoint() -> String {
        "127.0.0.1:16686".to_owned()
    }

    pub fn parse(section: &Section<'_>) -> Result<Self, Problems> {
        let query: Self = section.parse()?;
        check_reading(section, &query.endpoint, &query.tokens, &query.access())?;
        Ok(query)
    }

    fn access(&self) -> ReadAccess {
        read_access(&self.tokens, self.insecure, &self.hosts)
    }

    pub fn mount(&self, name: &str, shown: &Shown, doors: &mut Doors) -> Result<()> {
        let reader = shown.reader.clone().with_context(|| {
            format!("the extension `{name}` answers from the store, and no pipeline has the exporter `store`")
        })?;
        let rows = match self.databases.as_slice() {
            [] => None,
            databases => {
                let settings = databases
                    .iter()
                    .map(|database| DatabaseSettings {
                        url: database.url.clone(),
                        tables: database.tables.clone(),
                    })
                    .collect();
                Some(Rows::new(settings)?)
            }
        };
        let querier = Querier::new(reader.clone(), rows).with_retention(shown.retention);
        let (ready, ledger) = (shown.ready.clone(), shown.ledger.clone());
        let state = ApiState {
            querier,
            status: status_source(shown, reader),
            ledger: Arc::new(move || {
                let mut books = ledger.json();
                books["balanced"] = json!(ledger.balance().is_ok());
                books
            }),
            ready: Arc::new(move || ready.load(Ordering::Acquire)),
        };
        let settings = DoorSettings {
            read: Some(self.access()),
            ..DoorSettings::default()
        };
        let service = net::from_tower(tower::ServiceExt::map_request(
            api::router(state),
            |request: net::Request| request.map(axum::body::Body::new),
        ));
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

/// What `/api/trackline/v1/status` says beside `ready`.
fn status_source(shown: &Shown, reader: Reader) -> api::JsonSource {
    let (journal, budget, started) = (shown.journal.clone(), shown.budget.clone(), shown.started);
    let receivers = shown.receivers.clone();
    Arc::new(move || {
        let mended: serde_json::Map<String, Value> = receivers
            .iter()
            .map(|(name, counters)| (name.to_string(), mended(counters)))
            .collect();
        let journal = journal.as_ref().map(
            |journal| json!({ "health": journal.health(), "stats": journal.stats(), "readers": journal.readers() }),
        );
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": started.elapsed().as_secs(),
            "receivers": mended,
            "store": store_status(&reader.stats()),
            "journal": journal,
            "memory": {
                "resident_bytes": resident_bytes(),
                "budget_used_bytes": budget.used_bytes(),
                "budget_limit_bytes": budget.limit_bytes(),
                "budget": budget.report(),
            },
        })
    })
}

fn mended(counters: &Counters) -> Value {
    json!({
        "repaired_texts": counters.repaired_text.load(Ordering::Relaxed),
        "repaired_ids": counters.repaired_ids.load(Ordering::Relaxed),
        "rewritten_requests": counters.rewritten.load(Ordering::Relaxed),
    })
}

/// Damaged files that the status names; `trackline store check` names all.
const DAMAGE_SHOWN: usize = 20;

fn store_status(stats: &Stats) -> Value {
    let dataset = |stats: &store::DatasetStats| {
        json!({
            "rows": stats.rows,
            "bytes": stats.bytes,
            "parts": stats.parts,
            "sealed_parts": stats.sealed_parts,
            "fresh_rows": stats.fresh_rows,
            "fresh_bytes": stats.fresh_bytes,
            "oldest_unix_nano": stats.oldest_unix_nano.map(|at| at.to_string()),
            "newest_unix_nano": stats.newest_unix_nano.map(|at| at.to_string()),
        })
    };
    let is_part = |q: &&store::Quarantined| q.path.extension().is_some_and(|e| e == "parquet");
    let damage: Vec<Value> = stats
        .quarantined
        .iter()
        .take(DAMAGE_SHOWN)
        .map(|q| json!({ "path": q.path.display().to_string(), "reason": q.reason }))
        .collect();
    json!({
        "traces": dataset(&stats.traces),
        "logs": dataset(&stats.logs),
        "fresh_rows": stats.traces.fresh_rows + stats.logs.fresh_rows,
        "removed_traces": {
            "files": stats.removed.files,
            "bytes": stats.removed.bytes,
            "parts_without_note": stats.removed.parts_without_note,
        },
        "quarantined_parts": stats.quarantined.iter().filter(is_part).count(),
        "damaged_files": stats.quarantined.len(),
        "damage": damage,
    })
}

/// Answers 200 once the journal has been replayed, 503 before, as orchestrators expect.
///
/// ```yaml
/// extensions:
///   health_check: { endpoint: 127.0.0.1:13133, path: / }
/// ```
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// Where it listens. Default 127.0.0.1:13133.
    #[serde(default = "HealthCheck::default_endpoint")]
    pub endpoint: String,
    /// The path that answers. Default `/`.
    #[serde(default = "HealthCheck::default_path")]
    pub path: String,
}

impl HealthCheck {
    fn default_endpoint() -> String {
        "127.0.0.1:13133".to_owned()
    }

    fn default_path() -> String {
        "/".to_owned()
    }

    pub fn parse(section: &Section<'_>) -> Result<Self, Problems> {
        let health: Self = section.parse()?;
        endpoint(section, &health.endpoint)?;
        if !health.path.starts_with('/') {
            return Err(section.problem(&["path"], "a path begins with `/`"));
        }
        Ok(health)
    }

    pub fn mount(&self, name: &str, shown: &Shown, doors: &mut Doors) -> Result<()> {
        let shown = shown.clone();
        let answer = move || {
            let (is_healthy, said) = shown.health();
            let status = match is_healthy {
                true => StatusCode::OK,
                false => StatusCode::SERVICE_UNAVAILABLE,
            };
            let up: Duration = shown.started.elapsed();
            let mut body = json!({ "status": said, "upSince": up.as_secs_f64() });
            if let Some(why) = &shown.without_journal {
                body["journal"] = format!("none: {why}").into();
            }
            std::future::ready((status, Json(body)))
        };
        let router = Router::new().route(&self.path, get(answer));
        let service = net::from_tower(tower::ServiceExt::map_request(router, |request: net::Request| {
            request.map(axum::body::Body::new)
        }));
        let address: Endpoint = self.endpoint.parse()?;
        doors.mount(
            &address,
            &format!("extension {name}"),
            Mount::Http { at: At::Rest, service },
        )?;
        Ok(())
    }
}

fn endpoint(section: &Section<'_>, text: &str) -> Result<Endpoint, Problems> {
    text.parse()
        .map_err(|bad: net::BadEndpoint| section.problem(&["endpoint"], bad.to_string()))
}
