//! Four small AI-workflow services, a stand-in LLM API and the traffic that keeps them busy.
//!
//! They exist to be looked at: instrumented with nothing but the SDK, failing and slow now and then, on purpose.

pub mod database;
pub mod environment;
pub mod failure;
pub mod lifetime;
pub mod llm;
pub mod prompt;
pub mod workflow;
