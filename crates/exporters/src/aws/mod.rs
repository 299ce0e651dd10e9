//! Why: what every exporter to AWS needs is the same: credentials from where AWS's own clients find them, a region, a signature on each request, and
//! answers told apart into what passes, what does not, and what only needs another key or a clock that is right.
//!
//! - `sign`: Signature Version 4.
//! - `credentials`: whose key it is, and until when; `profile`, `metadata` and `sts` are where it comes from.
//! - `api`: one call of a JSON API, signed; region, endpoint and clock.
//! - `delivery`: events into log streams, which exist on demand.
//!
//! Secrets live in [`credentials::Secret`], which no message and no `Debug` shows.

pub mod api;
pub mod credentials;
pub mod delivery;
mod metadata;
mod profile;
pub(crate) mod settings;
pub mod sign;
mod sts;
