//! A stand-in for an LLM API: OpenAI-compatible chat completions, plain and streaming, with believable latencies and
//! token counts, and an error now and then; beside it the external API that workflows post to. It thinks nothing; every answer says so in `system_fingerprint`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::extract::{Json, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use demo::{environment, lifetime, prompt};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};

/// Says in every answer that no model wrote it.
const FINGERPRINT: &str = "stand-in";
/// Share of requests answered with 429 or 500, in percent.
const ERROR_PERCENT: u8 = 3;
/// One in this many requests takes much longer. Counted rather than drawn, so that whoever starts the demo soon sees one.
const SLOW_ONE_IN: u64 = 20;
/// The first slow one: late enough that an ordinary request is seen before it.
const FIRST_SLOW: u64 = 6;
/// Time to the first token, ms.
const FIRST_TOKEN_MS: std::ops::Range<u64> = 60..240;
/// The same of a slow request.
const SLOW_FIRST_TOKEN_MS: std::ops::Range<u64> = 1_500..2_500;
/// Time per piece of the answer, ms.
const PIECE_MS: std::ops::Range<u64> = 1..4;
/// How long the external API takes, ms.
const EXTERNAL_MS: std::ops::Range<u64> = 30..160;

/// Completions asked for so far.
type Asked = Arc<AtomicU64>;

#[derive(Deserialize)]
struct Completion {
    model: String,
    messages: Vec<Message>,
    #[serde(default)]
    stream: bool,
    /// Any value makes the request fail, so that a failure can be asked for.
    #[serde(default)]
    inject: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let router = Router::new()
        .route("/health", get(|| async { Json(json!({ "status": "ok" })) }))
        .route("/v1/models", get(models))
        .route("/v1/chat/completions", post(complete))
        .route("/external/v2/messages", post(deliver))
        .with_state(Asked::default());
    lifetime::serve(environment::address(8004), router).await
}

/// Stands in for the external API that workflows post to.
async fn deliver(Json(message): Json<Value>) -> Response {
    tokio::time::sleep(Duration::from_millis(fastrand::u64(EXTERNAL_MS))).await;
    if message["inject"].is_string() {
        let body = json!({ "error": "the channel is being migrated" });
        return (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response();
    }
    Json(json!({ "id": format!("msg-{:08x}", fastrand::u32(..)), "delivered": true })).into_response()
}

async fn models() -> Json<Value> {
    let ids = ["gpt-4o", "gpt-4o-mini", "claude-sonnet-4"];
    let data: Vec<Value> = ids
        .iter()
        .map(|id| json!({ "id": id, "object": "model", "owned_by": FINGERPRINT }))
        .collect();
    Json(json!({ "object": "list", "data": data }))
}

async fn complete(State(asked): State<Asked>, Json(request): Json<Completion>) -> Response {
    let number = asked.fetch_add(1, Ordering::Relaxed) + 1;
    let first_token_ms = if number % SLOW_ONE_IN == FIRST_SLOW {
        SLOW_FIRST_TOKEN_MS
    } else {
        FIRST_TOKEN_MS
    };
    tokio::time::sleep(Duration::from_millis(fastrand::u64(first_token_ms))).await;
    if request.inject.is_some() || environment::happens("LLM_ERROR_PERCENT", ERROR_PERCENT) {
        return refusal();
    }
    let question = request
        .messages
        .last()
        .map(|message| message.content.as_str())
        .unwrap_or_default();
    let answer = prompt::answer(question);
    let usage = usage(&request.messages, &answer);
    let id = format!("chatcmpl-{:016x}", fastrand::u64(..));
    if request.stream {
        return streamed(id, request.model, answer, usage);
    }
    let pieces = prompt::pieces(&answer).count() as u64;
    tokio::time::sleep(Duration::from_millis(fastrand::u64(PIECE_MS) * pieces)).await;
    Json(json!({
        "id": id,
        "object": "chat.completion",
        "model": request.model,
        "system_fingerprint": FINGERPRINT,
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": answer }, "finish_reason": "stop" }],
        "usage": usage,
    }))
    .into_response()
}

fn usage(messages: &[Message], answer: &str) -> Value {
    let input: u64 = messages.iter().map(|message| prompt::tokens(&message.content)).sum();
    let output = prompt::tokens(answer);
    json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output })
}

/// Server-sent events: a chunk a piece, one with the usage, then `[DONE]`.
fn streamed(id: String, model: String, answer: String, usage: Value) -> Response {
    let chunk = move |delta: Value, finish: Value, usage: Value| {
        let choices = json!([{ "index": 0, "delta": delta, "finish_reason": finish }]);
        json!({
            "id": id, "object": "chat.completion.chunk", "model": model, "system_fingerprint": FINGERPRINT,
            "choices": choices, "usage": usage,
        })
        .to_string()
    };
    let mut events: Vec<String> = prompt::pieces(&answer)
        .map(|piece| chunk(json!({ "content": piece }), Value::Null, Value::Null))
        .collect();
    events.push(chunk(json!({}), json!("stop"), usage));
    events.push("[DONE]".to_owned());
    let events = stream::unfold(events.into_iter(), |mut left| async move {
        let data = left.next()?;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(PIECE_MS))).await;
        Some((Ok::<_, std::convert::Infallible>(Event::default().data(data)), left))
    });
    Sse::new(events).into_response()
}

fn refusal() -> Response {
    if fastrand::bool() {
        let body = json!({ "error": { "type": "rate_limit_exceeded", "message": "Rate limit reached for requests" } });
        (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")], Json(body)).into_response()
    } else {
        let body = json!({ "error": { "type": "server_error", "message": "The model is overloaded" } });
        (StatusCode::INTERNAL_SERVER_ERROR, Json(body)).into_response()
    }
}
