//! What a handler knows about its request and the layer around it does not: who the user is, which session it is.

use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::Context;

use crate::telemetry::Telemetry;

/// Whom a request is for, as the handlers found out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Identity {
    /// User id.
    pub user_id: Option<String>,
    /// `free`, `premium` or `enterprise`.
    pub user_segment: Option<String>,
    /// Session id.
    pub session_id: Option<String>,
    /// How long the session has lasted, in seconds.
    pub session_seconds: Option<f64>,
}

/// What travels in a request's context: the telemetry it is recorded by, and the place where its identity is collected.
#[derive(Debug, Clone)]
pub struct RequestState {
    telemetry: Telemetry,
    quiet: bool,
    identity: Arc<Mutex<Identity>>,
}

impl RequestState {
    /// The state of a request that begins now. In a `quiet` one only WARN and ERROR are logged (SPEC L5).
    pub fn new(telemetry: Telemetry, quiet: bool) -> RequestState {
        RequestState {
            telemetry,
            quiet,
            identity: Arc::default(),
        }
    }

    /// The telemetry that records what happens in `context`.
    pub(crate) fn telemetry_of(context: &Context) -> &Telemetry {
        match context.get::<RequestState>() {
            Some(state) => &state.telemetry,
            None => Telemetry::global(),
        }
    }

    /// Whether the request that `context` is in logs nothing below WARN.
    pub fn is_quiet(context: &Context) -> bool {
        context.get::<RequestState>().is_some_and(|state| state.quiet)
    }

    /// What has been said about the request; asked at its end, which leaves nothing behind.
    pub fn take_identity(&self) -> Identity {
        self.with(std::mem::take)
    }

    fn with<T>(&self, change: impl FnOnce(&mut Identity) -> T) -> T {
        change(&mut self.identity.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn note(change: impl FnOnce(&mut Identity)) {
    Context::map_current(|context| {
        if let Some(state) = context.get::<RequestState>() {
            state.with(change);
        }
    });
}

/// Says whose request is being handled: on its span as `user.id`, in its log line as `user`. Outside a request it does
/// nothing.
pub fn set_user(id: impl Into<String>, segment: Option<&str>) {
    note(|identity| {
        identity.user_id = Some(id.into());
        identity.user_segment = segment.map(str::to_owned);
    });
}

/// Says which session the current request belongs to: on its span as `session.id`, in its log line as `session`.
pub fn set_session(id: impl Into<String>) {
    note(|identity| identity.session_id = Some(id.into()));
}
