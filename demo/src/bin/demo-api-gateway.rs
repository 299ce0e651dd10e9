//! `api-gateway`: the public API of the demo. Sessions are its own; chats go to the agent, executions to the engine.

use anyhow::Result;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use demo::database::{Session, Tables, Workflow};
use demo::failure::{Failure, Inject};
use demo::workflow::Node;
use demo::{environment, lifetime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use trackline_sdk::{set_user, tracking_id};
use trackline_sdk_axum::http::Client;

#[derive(Clone)]
struct Gateway {
    tables: Tables,
    http: Client,
    agent: String,
    engine: String,
}

#[derive(Deserialize)]
struct NewSession {
    user_id: String,
}

#[derive(Deserialize)]
struct Chat {
    user_id: String,
    message: String,
    #[serde(default)]
    inject: Option<Inject>,
}

#[derive(Deserialize)]
struct NewWorkflow {
    user_id: String,
    name: String,
    description: String,
}

#[derive(Deserialize)]
struct Execute {
    #[serde(default)]
    user_id: Option<String>,
    #[serde(default)]
    inject: Option<Inject>,
}

#[derive(Deserialize)]
struct Plan {
    nodes: Vec<Node>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let telemetry = trackline_sdk::init("api-gateway");
    let gateway = Gateway {
        tables: Tables::open().await?,
        http: Client::new(),
        agent: environment::url("AGENT_URL", 8001),
        engine: environment::url("ENGINE_URL", 8002),
    };
    let router = Router::new()
        .route("/api/v1/sessions", post(new_session))
        .route("/api/v1/sessions/{id}", get(session))
        .route("/api/v1/chat", post(chat))
        .route("/api/v1/workflows", post(new_workflow).get(workflows))
        .route("/api/v1/workflows/{id}", get(workflow))
        .route("/api/v1/workflows/{id}/execute", post(execute))
        .with_state(gateway);
    let served = lifetime::serve(environment::address(8000), trackline_sdk_axum::instrument(router)).await;
    telemetry.shutdown().await;
    served
}

async fn new_session(
    State(gateway): State<Gateway>,
    Json(request): Json<NewSession>,
) -> Result<(StatusCode, Json<Session>), Failure> {
    set_user(&request.user_id, Some(segment(&request.user_id)));
    let session = gateway.tables.new_session(&request.user_id).await?;
    tracing::info!(session.id = session.session_id, "session opened");
    Ok((StatusCode::CREATED, Json(session)))
}

async fn session(State(gateway): State<Gateway>, Path(id): Path<String>) -> Result<Json<Session>, Failure> {
    gateway.tables.session(&id).await.map(Json)
}

async fn chat(State(gateway): State<Gateway>, Json(request): Json<Chat>) -> Result<Json<Value>, Failure> {
    set_user(&request.user_id, Some(segment(&request.user_id)));
    let body = json!({ "message": request.message, "inject": request.inject });
    let answer: Value = gateway.call("the agent", &gateway.agent, "/v1/generate", &body).await?;
    Ok(Json(
        json!({ "reply": answer["reply"], "tracking_id": tracking_id().to_string() }),
    ))
}

async fn new_workflow(
    State(gateway): State<Gateway>,
    Json(request): Json<NewWorkflow>,
) -> Result<(StatusCode, Json<Workflow>), Failure> {
    set_user(&request.user_id, Some(segment(&request.user_id)));
    let body = json!({ "description": request.description });
    let plan: Plan = gateway.call("the agent", &gateway.agent, "/v1/plan", &body).await?;
    let workflow = gateway.tables.new_workflow(&request.name, plan.nodes).await?;
    tracing::info!(
        workflow.id = workflow.workflow_id,
        nodes = workflow.nodes.len(),
        "workflow created"
    );
    Ok((StatusCode::CREATED, Json(workflow)))
}

async fn workflows(State(gateway): State<Gateway>) -> Result<Json<Value>, Failure> {
    let workflows = gateway.tables.workflows().await?;
    Ok(Json(json!({ "workflows": workflows })))
}

async fn workflow(State(gateway): State<Gateway>, Path(id): Path<String>) -> Result<Json<Workflow>, Failure> {
    gateway.tables.workflow(&id).await.map(Json)
}

async fn execute(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
    Json(request): Json<Execute>,
) -> Result<Json<Value>, Failure> {
    if let Some(user) = &request.user_id {
        set_user(user, Some(segment(user)));
    }
    let workflow = gateway.tables.workflow(&id).await?;
    let body = json!({ "workflow_id": id, "nodes": workflow.nodes, "inject": request.inject });
    gateway
        .call("the engine", &gateway.engine, "/v1/execute", &body)
        .await
        .map(Json)
}

impl Gateway {
    /// Posts to another service; anything but success is an upstream failure.
    async fn call<A: DeserializeOwned>(
        &self,
        who: &str,
        base: &str,
        path: &'static str,
        body: &impl Serialize,
    ) -> Result<A, Failure> {
        let request = self.http.post(format!("{base}{path}")).template(path).json(body);
        let response = request.send().await.map_err(|error| Failure::upstream(who, error))?;
        let status = response.status();
        if !status.is_success() {
            let answer: Value = response.json().await.unwrap_or_default();
            let reason = answer["error"].as_str().unwrap_or("no reason given");
            return Err(Failure::upstream(who, format_args!("answered {status}: {reason}")));
        }
        response.json().await.map_err(|error| Failure::upstream(who, error))
    }
}

/// Customers are told apart by their number.
fn segment(user: &str) -> &'static str {
    match user.bytes().last().unwrap_or_default() % 3 {
        0 => "free",
        1 => "premium",
        _ => "enterprise",
    }
}
