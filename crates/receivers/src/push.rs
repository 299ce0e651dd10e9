//! Why: what a receiver makes by itself goes to the pipeline in one way, and what the pipeline refuses is said once, not at each interval.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use model::canonical::canonicalize;
use model::{Batch, Meta, Signal};
use pipeline::{Intake, Outcome, Reason};

/// A receiver's way to the pipeline.
pub(crate) struct Pushing {
    intake: Intake,
    is_refused: AtomicBool,
}

impl Pushing {
    pub(crate) fn new(intake: Intake) -> Pushing {
        Pushing {
            intake,
            is_refused: AtomicBool::new(false),
        }
    }

    pub(crate) fn intake(&self) -> &Intake {
        &self.intake
    }

    /// Hands on an OTLP request of metrics and waits for what becomes of it. What is refused is not kept: the next one is newer.
    pub(crate) async fn push(&self, payload: Vec<u8>) {
        let Some(lease) = self.intake.budget().try_reserve(payload.len() as u64) else {
            self.intake.refused(Signal::Metrics, 1, Reason::MemoryLimit);
            self.note(Some(Reason::MemoryLimit.explanation()));
            return;
        };
        self.push_held(payload, lease).await;
    }

    /// The same with memory that has been reserved.
    pub(crate) async fn push_held(&self, payload: Vec<u8>, lease: pipeline::Lease) {
        // What we wrote ourselves is canonical, and the walk that proves it also counts.
        let canonical = match canonicalize(Signal::Metrics, payload.into()) {
            Ok(canonical) if canonical.items > 0 => canonical,
            Ok(_) => return,
            Err(malformed) => {
                self.intake.rejected(Signal::Metrics, 1, Reason::Malformed);
                self.note(Some(&format!("it does not decode: {malformed}")));
                return;
            }
        };
        let meta = Meta {
            received_at_unix_nano: now_unix_nano(),
            receiver: Arc::clone(self.intake.receiver()),
            peer: None,
            headers: Vec::new(),
            source_offset: None,
        };
        let batch = Batch::from_canonical(Signal::Metrics, canonical, None, Arc::new(meta));
        match self.intake.push_held(batch, Some(lease)).await {
            Outcome::Delivered => self.note(None),
            Outcome::Retry { reason, .. } => self.note(Some(reason.explanation())),
            Outcome::Rejected { reason, .. } => self.note(Some(&reason.message)),
        }
    }

    fn note(&self, refusal: Option<&str>) {
        let receiver = self.intake.receiver();
        match (refusal, self.is_refused.swap(refusal.is_some(), Ordering::Relaxed)) {
            (Some(why), false) => {
                tracing::warn!(%receiver, "the pipeline does not take what is measured, which is dropped and counted: {why}");
            }
            (None, true) => tracing::info!(%receiver, "the pipeline takes again what is measured"),
            _ => {}
        }
    }
}

pub(crate) fn now_unix_nano() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}
