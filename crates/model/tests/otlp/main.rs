//! Views, canonical form and edits against `opentelemetry-proto` and `prost`: a slow and obvious model of each, for
//! messages and wire forms that no SDK would send.

mod arbitrary;
mod canonical;
mod edits;
mod normal;
mod scramble;
mod shifts;
mod views;
mod visits;
