//! Who sends to us.
//!
//! **What.** One module per protocol that others push with, named as its configuration key. A receiver mounts its routes on the
//! process's [`net::Doors`], turns requests into [`model::Batch`]es and hands them to its [`pipeline::Intake`].
//!
//! **In.** Requests from the network, all of them hostile until proven otherwise.
//! **Out.** Batches in canonical form; answers in the sender's own protocol, given when the pipeline's outcome is known.
//!
//! **Invariants.**
//! - Memory is reserved before it is used: as a body arrives, and again before it is inflated.
//! - Success is answered only after the pipeline said *delivered*.
//! - Whatever is turned away is counted, with its reason, at the intake.

mod admit;
mod answer;
mod body;
mod client;
mod cookies;
pub mod filelog;
mod guard;
pub mod hostmetrics;
pub mod httpcheck;
pub mod inflate;
pub mod jaeger;
pub mod keys;
mod lines;
pub mod loki;
mod metadata;
pub mod otlp;
mod post;
pub mod prometheus;
pub mod prometheusremotewrite;
mod push;
pub mod settings;
pub mod stdin;
mod unary;

pub use settings::{Counters, Mounted, Settings, Stop, Work};
