//! Which traces are recorded: a share of all trace ids, the same share in every service, decided from the id alone.
//!
//! The decision uses the rightmost 56 bits of the id, as W3C Trace Context level 2 and OpenTelemetry's consistent
//! probability sampling do. (The older "ratio" sampler looks at the bits where a UUID carries its variant, and would
//! never keep a trace whose caller suggested a UUID.)

use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};

/// The number of values that 56 random bits have.
const RANDOMNESS: u64 = 1 << 56;

/// Share of traces kept and whose word counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Share of traces to keep, 0.0 to 1.0.
    pub ratio: f64,
    /// A span inside this process follows its parent. Off only for `OTEL_TRACES_SAMPLER` without `parentbased_`.
    pub follow_parent: bool,
    /// A caller's `sampled` flag decides. On with [`crate::Trust::All`].
    pub follow_remote: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Sampler {
    settings: Sampling,
    /// Ids whose random part is at least this are kept.
    threshold: u64,
}

impl Sampler {
    pub(crate) fn new(settings: Sampling) -> Sampler {
        let ratio = if settings.ratio.is_finite() {
            settings.ratio.clamp(0.0, 1.0)
        } else {
            1.0
        };
        Sampler {
            settings,
            threshold: ((1.0 - ratio) * RANDOMNESS as f64) as u64,
        }
    }

    fn keeps(&self, id: TraceId) -> bool {
        let bytes = id.to_bytes();
        let mut low = [0u8; 8];
        low[1..].copy_from_slice(&bytes[9..]);
        u64::from_be_bytes(low) >= self.threshold
    }
}

impl ShouldSample for Sampler {
    fn should_sample(
        &self,
        parent_context: Option<&Context>,
        trace_id: TraceId,
        _name: &str,
        _kind: &SpanKind,
        _attributes: &[KeyValue],
        _links: &[Link],
    ) -> SamplingResult {
        let span = parent_context.filter(|cx| cx.has_active_span()).map(|cx| cx.span());
        let parent = span
            .as_ref()
            .map(|span| span.span_context())
            .filter(|parent| parent.is_valid());
        let keep = match parent {
            Some(parent) if parent.is_remote() && self.settings.follow_remote => parent.is_sampled(),
            Some(parent) if !parent.is_remote() && self.settings.follow_parent => parent.is_sampled(),
            _ => self.keeps(trace_id),
        };
        SamplingResult {
            decision: if keep {
                SamplingDecision::RecordAndSample
            } else {
                SamplingDecision::Drop
            },
            attributes: Vec::new(),
            trace_state: parent.map(|parent| parent.trace_state().clone()).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceState};

    fn sampler(ratio: f64, follow_remote: bool) -> Sampler {
        Sampler::new(Sampling {
            ratio,
            follow_parent: true,
            follow_remote,
        })
    }

    fn decide(sampler: &Sampler, parent: Option<(bool, bool)>, id: u128) -> bool {
        let id = TraceId::from_bytes(id.to_be_bytes());
        let cx = parent.map(|(remote, sampled)| {
            Context::new().with_remote_span_context(SpanContext::new(
                id,
                SpanId::from_bytes([1; 8]),
                TraceFlags::NOT_SAMPLED.with_sampled(sampled),
                remote,
                TraceState::NONE,
            ))
        });
        sampler
            .should_sample(cx.as_ref(), id, "x", &SpanKind::Server, &[], &[])
            .decision
            == SamplingDecision::RecordAndSample
    }

    #[test]
    fn the_ends_of_the_scale_keep_everything_and_nothing() {
        for id in [1, u128::MAX, 1 << 127, 0xff_ffff_ffff_ffff] {
            assert!(decide(&sampler(1.0, false), None, id));
            assert!(!decide(&sampler(0.0, false), None, id));
        }
    }

    #[test]
    fn uuids_are_kept_as_often_as_other_ids() {
        let mut rng = fastrand::Rng::with_seed(7);
        let ten_percent = sampler(0.1, false);
        let kept = (0..20_000)
            .filter(|_| {
                let uuid_v4 = (rng.u128(..) & !(0xf << 76) & !(0x3 << 62)) | (4 << 76) | (2 << 62);
                decide(&ten_percent, None, uuid_v4)
            })
            .count();
        assert!((1_800..2_200).contains(&kept), "{kept} of 20000");
    }

    #[test]
    fn whose_word_counts() {
        let keep_none = sampler(0.0, false);
        assert!(decide(&keep_none, Some((false, true)), 1), "our own parent's does");
        assert!(
            !decide(&keep_none, Some((true, true)), 1),
            "a caller's does not by default"
        );
        assert!(
            decide(&sampler(0.0, true), Some((true, true)), 1),
            "unless it is trusted"
        );
        assert!(!decide(&sampler(1.0, true), Some((true, false)), 1));
        assert!(decide(&sampler(1.0, false), Some((true, false)), 1));
    }
}
