//! The LLM client of the services: a call is a span with its model, tokens and cost; what may pass is tried again.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use trackline_sdk::ai::{self, Usage};
use trackline_sdk::{SpanKind, span};
use trackline_sdk_axum::http::Client;

use crate::environment;
use crate::failure::{Failure, Inject};

const PROVIDER: &str = "openai";
/// Tries of one call, the first included.
const TRIES: u32 = 3;
/// Pause before the second try; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(80);

/// What a model is told before every question. Real ones are longer still; most of a call's tokens are such text.
const INSTRUCTIONS: &str = include_str!("instructions.txt");

#[derive(Clone)]
pub struct Llm {
    http: Client,
    url: String,
}

#[derive(Deserialize)]
struct Completion {
    model: String,
    choices: Vec<Choice>,
    usage: Tokens,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    content: String,
}

#[derive(Deserialize)]
struct Tokens {
    prompt_tokens: u64,
    completion_tokens: u64,
}

impl Llm {
    pub fn from_environment(http: Client) -> Self {
        Self {
            http,
            url: environment::url("LLM_URL", 8004),
        }
    }

    /// Asks `model`; 429 and 5xx are tried again.
    pub async fn ask(&self, model: &str, prompt: &str, inject: Option<Inject>) -> Result<String, Failure> {
        let call = span(format!("chat {model}"))
            .kind(SpanKind::Client)
            .attr("gen_ai.operation.name", "chat")
            .attr("gen_ai.provider.name", PROVIDER)
            .attr("gen_ai.request.model", model.to_owned())
            .start();
        let attempts = async {
            let mut pause = FIRST_PAUSE;
            for attempt in 1.. {
                match self.attempt(model, prompt, inject).await {
                    Ok(answer) => return Ok(answer),
                    Err(failure) if attempt == TRIES => return Err(failure),
                    Err(failure) => tracing::warn!(attempt, "{}; trying again", failure.message()),
                }
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            unreachable!("the last attempt returns")
        };
        let outcome = call.run(attempts).await;
        if let Err(failure) = &outcome {
            call.fail("LlmError", failure.message());
        }
        outcome
    }

    async fn attempt(&self, model: &str, prompt: &str, inject: Option<Inject>) -> Result<String, Failure> {
        let mut request = json!({
            "model": model,
            "messages": [{ "role": "system", "content": INSTRUCTIONS }, { "role": "user", "content": prompt }],
        });
        if inject == Some(Inject::Llm) {
            request["inject"] = json!("error");
        }
        let response = self
            .http
            .post(format!("{}/v1/chat/completions", self.url))
            .template("/v1/chat/completions")
            .json(&request)
            .send()
            .await
            .map_err(|error| Failure::upstream("the LLM", error))?;
        let status = response.status();
        if !status.is_success() {
            return Err(Failure::upstream("the LLM", format_args!("answered {status}")));
        }
        let completion: Completion = response
            .json()
            .await
            .map_err(|error| Failure::upstream("the LLM", error))?;
        let usage = Usage::new(PROVIDER, &completion.model)
            .tokens(completion.usage.prompt_tokens, completion.usage.completion_tokens);
        ai::record_usage(&usage);
        let answer = completion
            .choices
            .into_iter()
            .next()
            .map(|choice| choice.message.content);
        answer.ok_or_else(|| Failure::upstream("the LLM", "answered with no choice"))
    }
}
