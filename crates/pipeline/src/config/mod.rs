//! Why: the OpenTelemetry Collector's YAML is the configuration. Reading goes in steps: text → tree with places ([`yaml`]) → variables expanded
//! (`variables`) → [`Config`] with its components and pipelines ([`document`]) → settings of each component (`de`).

mod de;
pub mod diagnostic;
pub mod document;
mod show;
pub mod units;
mod variables;
pub mod yaml;

pub use diagnostic::{Problem, Problems, Source, Span, suggest};
pub use document::{Component, Config, Fsync, Id, Journal, JournalSettings, Pipeline, Reference, Section};
pub use units::{duration, optional_duration, optional_size, present, size};
