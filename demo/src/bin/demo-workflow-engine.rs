//! `workflow-engine`: runs a workflow node by node: LLM calls, external calls, database rows.

use anyhow::Result;
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use demo::database::Tables;
use demo::failure::{Failure, Inject};
use demo::llm::Llm;
use demo::workflow::{Node, NodeType};
use demo::{environment, lifetime, workflow};
use serde::Deserialize;
use serde_json::{Value, json};
use trackline_sdk::{set_attribute, span, tracking_id};
use trackline_sdk_axum::http::Client;

const MODEL: &str = "gpt-4o-mini";
/// Tries of an external call, the first included.
const EXTERNAL_TRIES: usize = 2;

#[derive(Clone)]
struct Engine {
    tables: Tables,
    llm: Llm,
    http: Client,
    external: String,
}

#[derive(Deserialize)]
struct Execute {
    workflow_id: String,
    nodes: Vec<Node>,
    #[serde(default)]
    inject: Option<Inject>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let telemetry = trackline_sdk::init("workflow-engine");
    let http = Client::new();
    let engine = Engine {
        tables: Tables::open().await?,
        llm: Llm::from_environment(http.clone()),
        http,
        external: format!("{}/external/v2/messages", environment::url("LLM_URL", 8004)),
    };
    let router = Router::new().route("/v1/execute", post(execute)).with_state(engine);
    let served = lifetime::serve(environment::address(8002), trackline_sdk_axum::instrument(router)).await;
    telemetry.shutdown().await;
    served
}

async fn execute(State(engine): State<Engine>, Json(request): Json<Execute>) -> Result<Json<Value>, Failure> {
    let kind = workflow::kind(&request.nodes);
    let execution = engine.tables.begin_execution(&request.workflow_id).await?;
    let run = span("workflow_execution")
        .attr("workflow.id", request.workflow_id.clone())
        .attr("workflow.type", kind)
        .attr("workflow.node_count", request.nodes.len() as i64)
        .start();
    let outcome = run.run(engine.run(&request, &execution)).await;
    let status = if outcome.is_ok() { "completed" } else { "failed" };
    run.set("workflow.status", status);
    if let Err(failure) = &outcome {
        run.fail("WorkflowFailed", failure.message());
    }
    run.end();
    engine.tables.end_execution(&execution, status).await?;
    tracing::info!(
        workflow.id = request.workflow_id,
        workflow.r#type = kind,
        workflow.status = status,
        "workflow {status}"
    );
    outcome?;
    Ok(Json(
        json!({ "execution_id": execution, "status": status, "tracking_id": tracking_id().to_string() }),
    ))
}

impl Engine {
    async fn run(&self, request: &Execute, execution: &str) -> Result<(), Failure> {
        for node in &request.nodes {
            let kind = node.node_type.as_str();
            let step = span(format!("execute_node[{kind}]"))
                .attr("node.id", node.id.clone())
                .attr("node.type", kind)
                .attr("node.name", node.name.clone())
                .start();
            let outcome = step.run(self.node(node, request.inject, execution)).await;
            step.set("node.status", if outcome.is_ok() { "completed" } else { "failed" });
            if let Err(failure) = &outcome {
                step.fail("NodeFailed", failure.message());
            }
            outcome?;
        }
        Ok(())
    }

    async fn node(&self, node: &Node, inject: Option<Inject>, execution: &str) -> Result<(), Failure> {
        match node.node_type {
            NodeType::Trigger => tracing::info!(node = node.name, "triggered"),
            NodeType::AiAgent => {
                let prompt = format!("Summarise the input of \"{}\"", node.name);
                self.llm.ask(MODEL, &prompt, inject).await?;
            }
            NodeType::ExternalAction => {
                assert!(
                    inject != Some(Inject::Crash),
                    "the engine stumbled over \"{}\", as it was told to",
                    node.name
                );
                self.deliver(inject).await?;
            }
        }
        self.tables.record_node(execution, inject).await
    }

    /// Posts to the external API, once more if it refuses.
    async fn deliver(&self, inject: Option<Inject>) -> Result<(), Failure> {
        let fails = (inject == Some(Inject::External)).then_some("refused");
        let message = json!({ "channel": "#workflows", "text": "done", "inject": fails });
        for attempt in 1..=EXTERNAL_TRIES {
            let sent = self
                .http
                .post(&self.external)
                .template("/external/v2/messages")
                .json(&message)
                .send()
                .await;
            match sent {
                Ok(response) if response.status().is_success() => {
                    set_attribute("delivery.attempts", attempt as i64);
                    return Ok(());
                }
                Ok(response) => tracing::warn!(attempt, "the messenger answered {}", response.status()),
                Err(error) => tracing::warn!(attempt, "the messenger cannot be reached: {error}"),
            }
        }
        Err(Failure::upstream(
            "the messenger",
            format_args!("refused {EXTERNAL_TRIES} times"),
        ))
    }
}
