//! Why: dashboards for the Collector's tail sampling show its counters, so ours have their names.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::policies::{Decision, Policies, Verdict};
use crate::ledger::StepBook;

/// What it counts beside the book, under the Collector's names.
pub(super) struct Counts {
    /// For each policy: what it wanted, what it did not, what it dropped.
    policies: Vec<[Arc<AtomicU64>; 3]>,
    /// The same of all policies together.
    decisions: [Arc<AtomicU64>; 3],
    pub new: Arc<AtomicU64>,
    pub waiting: Arc<AtomicU64>,
    pub too_early: Arc<AtomicU64>,
    pub too_large: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl Counts {
    pub fn new(book: &StepBook, policies: &Policies) -> Counts {
        let by_decision = |name, policy: Option<&str>| {
            [("true", "sampled"), ("false", "not_sampled"), ("false", "dropped")].map(|(sampled, decision)| {
                let policy = policy.map(|policy| ("policy", policy));
                let labels = policy.into_iter().chain([("sampled", sampled), ("decision", decision)]);
                book.count(name, labels)
            })
        };
        Counts {
            policies: policies
                .names()
                .map(|name| by_decision("otelcol_processor_tail_sampling_count_traces_sampled_total", Some(name)))
                .collect(),
            decisions: by_decision(
                "otelcol_processor_tail_sampling_global_count_traces_sampled_total",
                None,
            ),
            new: book.count("otelcol_processor_tail_sampling_new_trace_id_received_total", []),
            waiting: book.count("otelcol_processor_tail_sampling_sampling_traces_on_memory", []),
            too_early: book.count(
                "otelcol_processor_tail_sampling_sampling_trace_dropped_too_early_total",
                [],
            ),
            too_large: book.count("otelcol_processor_tail_sampling_traces_dropped_too_large_total", []),
            failed: book.count(
                "otelcol_processor_tail_sampling_sampling_policy_evaluation_error_total",
                [],
            ),
        }
    }

    pub fn verdict(&self, policy: usize, verdict: Verdict) {
        let index = match verdict {
            Verdict::Keep | Verdict::KeepInverted => 0,
            Verdict::Pass | Verdict::PassInverted => 1,
            Verdict::Drop => 2,
            Verdict::Failed => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                return;
            }
        };
        if let Some(counts) = self.policies.get(policy) {
            counts[index].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn decision(&self, decision: Decision) {
        self.decisions[decision as usize].fetch_add(1, Ordering::Relaxed);
    }
}
