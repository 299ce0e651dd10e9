//! Why: what a receiver makes by itself goes to the pipeline in one way, and what the pipeline refuses is said once, not at each interval.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use model::canonical::canonicalize;
use model::write::Metrics;
use model::{Batch, Meta, Signal};
use pipeline::{Intake, Lease, Outcome, Reason};

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

    /// Hands on what was measured and waits for what becomes of it. What is refused is not kept: the next one is newer.
    pub(crate) async fn push(&self, metrics: Metrics) {
        let Some(lease) = self.intake.budget().try_reserve(metrics.len_bytes() as u64) else {
            let points = u64::from(metrics.points());
            self.intake.refused(Signal::Metrics, points, Reason::MemoryLimit);
            self.note(Some(Reason::MemoryLimit.explanation()));
            return;
        };
        if let Some(batch) = metrics.finish(self.meta()) {
            self.push_held(batch, lease).await;
        }
    }

    /// The same with memory that has been reserved.
    pub(crate) async fn push_held(&self, batch: Batch, lease: Lease) {
        debug_assert!(
            canonicalize(Signal::Metrics, batch.payload.bytes())
                .is_ok_and(|it| !it.rewritten && it.items == batch.items),
            "what we write ourselves is canonical"
        );
        match self.intake.push_held(batch, Some(lease)).await {
            Outcome::Delivered => self.note(None),
            Outcome::Retry { reason, .. } => self.note(Some(reason.explanation())),
            Outcome::Rejected { reason, .. } => self.note(Some(&reason.message)),
        }
    }

    /// Of a batch that begins here and now.
    pub(crate) fn meta(&self) -> Arc<Meta> {
        Arc::new(Meta {
            received_at_unix_nano: now_unix_nano(),
            receiver: Arc::clone(self.intake.receiver()),
            peer: None,
            headers: Vec::new(),
            source_offset: None,
        })
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
