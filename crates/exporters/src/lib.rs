//! **What:** whom we send to. One file per exporter, named as its key in the configuration; the store is one of them.
//!
//! **In:** batches in canonical form, one request at a time; the graph of `pipeline` reads the journal, forms the requests, repeats and moves the cursor.
//!
//! **Out:** one [`pipeline::Outcome`] per request: delivered, to be repeated, or rejected for good.
//!
//! **Invariants:**
//! - *Delivered* is said only when the other side has said so, or the bytes are on the disk.
//! - What cannot be known is *retry*: an answer that was lost, a connection that broke.
//! - No exporter holds a queue of its own.

mod active_series;
pub mod authenticator;
pub mod aws;
pub mod awscloudwatchlogs;
pub mod awsemf;
pub mod debug;
pub mod file;
pub mod grpc;
pub mod jaeger;
pub mod kafka;
pub mod loadbalancing;
pub mod loki;
pub mod otlp;
mod otlp_request;
pub mod otlphttp;
pub mod prometheus;
pub mod prometheusremotewrite;
pub mod request;
pub mod sender;
pub mod settings;
pub mod store;
#[cfg(test)]
mod testing;
mod unfinished;

pub use settings::{OpenError, Opening, Settings};
