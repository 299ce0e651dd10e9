//! Users of the demo: a steady mix of sessions, chats and workflows, of which a share fails on purpose.
//!
//! Prints one JSON line per finished request, with the tracking ID from its `X-Tracking-ID` header.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use demo::{environment, lifetime};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// A request that takes this long is called slow.
const SLOW: Duration = Duration::from_millis(1_500);
/// No request of the demo takes longer; past it the user gives up.
const GIVES_UP: Duration = Duration::from_secs(30);
/// A timer of no length does not tick.
const SHORTEST_PAUSE: Duration = Duration::from_micros(1);
const USERS: u32 = 40;
/// Workflows remembered, the newest: enough to choose from.
const WORKFLOWS_KNOWN: usize = 8;
/// Hundredths of a failure owed from which only what can fail is asked for.
const BEHIND: u64 = 200;
const MESSAGES: [&str; 6] = [
    "Summarise the last three tickets of customer 4711",
    "When does the next delivery to Lyon leave?",
    "Draft a friendly reminder about invoice 2026-311",
    "What did we promise in yesterday's call?",
    "Summarise this week's incidents for the board",
    "Is the discount for the spring campaign still valid?",
];
const WORKFLOWS: [(&str, &str); 4] = [
    (
        "ticket triage",
        "a workflow that reads new tickets and tells the right team",
    ),
    ("invoice reminder", "a workflow that reminds customers of open invoices"),
    ("daily digest", "a workflow that summarises yesterday and posts it"),
    ("lead scoring", "a workflow that scores new leads and informs sales"),
];
/// What makes a chat fail, and what makes an execution fail.
const CHAT_FAULTS: [&str; 2] = ["llm", "crash"];
const EXECUTION_FAULTS: [&str; 4] = ["external", "llm", "database", "crash"];

#[tokio::main]
async fn main() -> Result<()> {
    let fail_percent = environment::number("FAIL_PERCENT", 10);
    let users = Users {
        http: Client::builder()
            .timeout(GIVES_UP)
            .tls_backend_preconfigured(trackline_sdk::tls::client_config())
            .build()
            .context("building the HTTP client")?,
        gateway: environment::url("GATEWAY_URL", 8000),
        fail_percent,
        owed: Arc::new(AtomicU64::new(fail_percent)),
        workflows: Arc::default(),
    };
    let end = lifetime::end();
    tokio::pin!(end);
    let rate = environment::number("RATE", 4u32);
    if rate == 0 {
        end.await;
        return Ok(());
    }
    let mut tick = tokio::time::interval((Duration::from_secs(1) / rate).max(SHORTEST_PAUSE));
    let mut acting = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut end => break,
            _ = tick.tick() => {
                let users = users.clone();
                acting.spawn(async move { users.act().await });
            }
            Some(_) = acting.join_next() => {}
        }
    }
    // Nobody leaves in the middle: what was begun is finished, so that the last traces are whole.
    while acting.join_next().await.is_some() {}
    Ok(())
}

#[derive(Clone)]
struct Users {
    http: Client,
    gateway: String,
    fail_percent: u64,
    /// Failures that the requests so far should have had and did not, in hundredths.
    owed: Arc<AtomicU64>,
    /// Ids of workflows that can be executed.
    workflows: Arc<Mutex<VecDeque<String>>>,
}

impl Users {
    /// One user does one thing.
    async fn act(&self) {
        let user = format!("user-{:03}", fastrand::u32(0..USERS));
        if self.owed.load(Ordering::Relaxed) >= BEHIND {
            return self.fail(&user).await;
        }
        match fastrand::u8(0..100) {
            0..15 => {
                self.request(Method::POST, "/api/v1/sessions", Some(json!({ "user_id": user })))
                    .await;
            }
            15..55 => self.chat(&user).await,
            55..65 => {
                self.request(Method::GET, "/api/v1/workflows", None).await;
            }
            _ => self.create_and_execute(&user).await,
        }
    }

    /// Something that can fail on purpose: what else users do would leave a large share of failures unreachable.
    async fn fail(&self, user: &str) {
        let workflow = {
            let known = self.workflows.lock().unwrap_or_else(PoisonError::into_inner);
            (!known.is_empty() && fastrand::bool()).then(|| known[fastrand::usize(0..known.len())].clone())
        };
        match workflow {
            Some(id) => self.execute(user, &id).await,
            None => self.chat(user).await,
        }
    }

    async fn chat(&self, user: &str) {
        let message = MESSAGES[fastrand::usize(0..MESSAGES.len())];
        let body = json!({ "user_id": user, "message": message, "inject": self.fault(&CHAT_FAULTS) });
        self.request(Method::POST, "/api/v1/chat", Some(body)).await;
    }

    async fn create_and_execute(&self, user: &str) {
        let (name, description) = WORKFLOWS[fastrand::usize(0..WORKFLOWS.len())];
        let body = json!({ "user_id": user, "name": name, "description": description });
        let Some(created) = self.request(Method::POST, "/api/v1/workflows", Some(body)).await else {
            return;
        };
        let Some(id) = created["workflow_id"].as_str() else {
            return;
        };
        {
            let mut known = self.workflows.lock().unwrap_or_else(PoisonError::into_inner);
            known.push_back(id.to_owned());
            if known.len() > WORKFLOWS_KNOWN {
                known.pop_front();
            }
        }
        self.execute(user, id).await;
    }

    async fn execute(&self, user: &str, id: &str) {
        let body = json!({ "user_id": user, "inject": self.fault(&EXECUTION_FAULTS) });
        self.request(Method::POST, &format!("/api/v1/workflows/{id}/execute"), Some(body))
            .await;
    }

    /// What is to fail this time, if anything. Not every kind of request can fail on purpose, so those that can make up
    /// for the others: the share of all of them is met by counting, not by chance.
    fn fault(&self, faults: &[&str]) -> Value {
        let take = |owed: u64| owed.checked_sub(100);
        match self.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => json!(faults[fastrand::usize(0..faults.len())]),
            Err(_) => Value::Null,
        }
    }

    async fn request(&self, method: Method, path: &str, body: Option<Value>) -> Option<Value> {
        self.owed.fetch_add(self.fail_percent, Ordering::Relaxed);
        let started = Instant::now();
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.gateway));
        if let Some(body) = &body {
            request = request.json(body);
        }
        let response = request
            .send()
            .await
            .inspect_err(|error| eprintln!("{method} {path}: {error}"))
            .ok()?;
        let status = response.status();
        let tracking_id = response
            .headers()
            .get("x-tracking-id")
            .and_then(|id| id.to_str().ok())
            .unwrap_or("")
            .to_owned();
        let answer = response.json::<Value>().await.ok();
        let took = started.elapsed();
        let kind = match (status.is_server_error(), took > SLOW) {
            (true, _) => "failed",
            (false, true) => "slow",
            (false, false) => "ordinary",
        };
        let ms = (took.as_secs_f64() * 10_000.0).round() / 10.0;
        let what = format!("{method} {path}");
        println!(
            "{}",
            json!({ "kind": kind, "tracking_id": tracking_id, "status": status.as_u16(), "ms": ms, "what": what })
        );
        answer.filter(|_| status.is_success())
    }
}
