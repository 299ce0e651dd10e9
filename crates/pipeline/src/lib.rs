//! **What:** how batches move: the contracts of components, acknowledgements, the memory budget, the books, the graph and its configuration.
//!
//! **In:** encoded batches from receivers, through an [`Intake`]; a configuration in the OpenTelemetry Collector's YAML.
//!
//! **Out:** batches to exporters, an [`Outcome`] to whoever sent them, counts in the [`Ledger`].
//!
//! **Invariants:**
//! - Every [`Ack`] resolves exactly once; one that is lost says *retry*. None says *delivered* before its bytes are durable.
//! - The books balance (see [`ledger`]); everything that is refused, rejected or dropped has a [`Reason`].
//! - No component is known here by name: names live in the tables that the caller hands to the planner.

pub mod ack;
pub mod budget;
pub mod circuit;
pub mod component;
pub mod config;
pub mod connectors;
mod dead_letter;
mod direct;
pub mod graph;
pub mod intake;
mod keeping;
pub mod ledger;
mod line;
pub mod metadata;
pub mod ottl;
pub mod plan;
pub mod processors;
mod reader;
pub mod reason;
mod recent;
pub mod record;
pub mod sending;
pub mod stage;
mod staging;
#[cfg(test)]
mod testing;

pub use ack::{Ack, AckFuture, Outcome, Rejection};
pub use budget::{Budget, Lease, Usage, Watched};
pub use component::{BoxFuture, Entry, Exporter, JournalId, KeepError, Keeper, OnKept, Processor, Sink};
pub use graph::Graph;
pub use intake::Intake;
pub use ledger::Ledger;
pub use reason::Reason;
pub use stage::{BadState, MakeStage, Stage, State};
