//! The tracking ID in handlers: an extractor, a request extension, and the response header's name.

use std::convert::Infallible;
use std::fmt;
use std::ops::Deref;

use axum::extract::FromRequestParts;
use http::HeaderName;
use http::request::Parts;
use serde::Serialize;

/// The header that carries the tracking ID back to the caller, and that a caller may suggest one in.
pub const X_TRACKING_ID: HeaderName = HeaderName::from_static("x-tracking-id");

/// The tracking ID of the request being handled: `async fn handler(id: TrackingId)`. Displays and serialises as 32 hex
/// digits, or as `no-trace` where no [`crate::TrackingLayer`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct TrackingId(pub trackline_sdk::TrackingId);

impl TrackingId {
    /// The id of what is running now, for code that has no request at hand.
    pub fn current() -> TrackingId {
        TrackingId(trackline_sdk::TrackingId::current())
    }
}

impl Deref for TrackingId {
    type Target = trackline_sdk::TrackingId;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl fmt::Display for TrackingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<S: Sync> FromRequestParts<S> for TrackingId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let found = parts.extensions.get::<TrackingId>().copied();
        Ok(found.unwrap_or_else(TrackingId::current))
    }
}
