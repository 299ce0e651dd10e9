//! Why: the OpenTelemetry Collector's YAML is the configuration. Reading goes in steps: text → tree with places ([`yaml`]) → variables expanded
//! (`variables`) → [`Config`] with its components and pipelines ([`document`]) → settings of each component (`de`).

mod de;
pub mod diagnostic;
pub mod document;
mod secrets;
mod section;
mod show;
pub mod telemetry;
pub mod units;
mod variables;
pub mod yaml;

pub use diagnostic::{Problem, Problems, Source, Span, Told, suggest};
pub use document::{Component, Config, Fsync, Id, Journal, JournalSettings, Pipeline, Reference};
pub use section::Section;
pub use telemetry::Telemetry;
pub use units::{duration, optional_duration, optional_size, present, size};
pub use variables::open_to_all;

/// Reads YAML that is no part of the configuration itself, such as a file of targets: no variables, and as much as [`yaml::MAX_SOURCE_BYTES`] and its
/// fellows allow. JSON is YAML.
pub fn read<T: serde::de::DeserializeOwned>(source: Source) -> Result<T, Problems> {
    let read = yaml::parse(&source, 0).map_err(|problem| vec![problem]);
    let read = read.and_then(|node| de::read(&node));
    read.map_err(|list| Problems::new(diagnostic::Sources::new(vec![source], Vec::new()), list))
}
