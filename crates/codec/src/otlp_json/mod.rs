//! OTLP/JSON (OTLP specification, "JSON Protobuf Encoding"): protobuf's JSON mapping with ids in hex, enums as integers
//! only, and names in lowerCamelCase only. Both directions work from `model::schema`, a field at a time, without a tree
//! in between.

mod read;
mod write;

pub use read::{BadJson, to_protobuf};
pub use write::from_protobuf;
