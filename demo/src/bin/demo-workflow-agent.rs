//! `workflow-agent`: turns a user's words into answers and workflows by asking an LLM.

use anyhow::Result;
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use demo::failure::{Failure, Inject};
use demo::llm::Llm;
use demo::{environment, lifetime, workflow};
use serde::Deserialize;
use serde_json::{Value, json};
use trackline_sdk::span;
use trackline_sdk_axum::http::Client;

/// The cheap model decides what is asked, the better one answers.
const SMALL_MODEL: &str = "gpt-4o-mini";
const LARGE_MODEL: &str = "gpt-4o";

#[derive(Deserialize)]
struct Generate {
    message: String,
    #[serde(default)]
    inject: Option<Inject>,
}

#[derive(Deserialize)]
struct Plan {
    description: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let telemetry = trackline_sdk::init("workflow-agent");
    let router = Router::new()
        .route("/v1/generate", post(generate))
        .route("/v1/plan", post(plan))
        .with_state(Llm::from_environment(Client::new()));
    let served = lifetime::serve(environment::address(8001), trackline_sdk_axum::instrument(router)).await;
    telemetry.shutdown().await;
    served
}

async fn generate(State(llm): State<Llm>, Json(request): Json<Generate>) -> Result<Json<Value>, Failure> {
    assert!(
        request.inject != Some(Inject::Crash),
        "the agent lost its train of thought, as it was told to"
    );
    let intent = format!("What does this message ask for, in one word? {}", request.message);
    let intent = span("classify_intent").run(llm.ask(SMALL_MODEL, &intent, None)).await?;
    tracing::info!(characters = intent.len(), "intent understood");
    let reply = span("write_reply")
        .run(llm.ask(LARGE_MODEL, &request.message, request.inject))
        .await?;
    Ok(Json(json!({ "reply": reply })))
}

async fn plan(State(llm): State<Llm>, Json(request): Json<Plan>) -> Result<Json<Value>, Failure> {
    let draft = format!("Design a workflow: {}", request.description);
    span("draft_workflow").run(llm.ask(LARGE_MODEL, &draft, None)).await?;
    let nodes = workflow::design(&request.description);
    let check = format!("Is this workflow complete? {}", json!(nodes));
    span("validate_workflow")
        .attr("workflow.node_count", nodes.len() as i64)
        .run(llm.ask(SMALL_MODEL, &check, None))
        .await?;
    tracing::info!(nodes = nodes.len(), "workflow designed");
    Ok(Json(json!({ "nodes": nodes })))
}
