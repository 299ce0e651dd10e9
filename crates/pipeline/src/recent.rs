//! Why: a reader that is near the head should not inflate what a door has just inflated. The newest batches of a stream are kept, by position, within
//! a bound; who misses one reads the record instead.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use journal::Seq;
use model::Batch;

/// What is kept per stream: about a tenth of a second of traffic at full speed, enough for readers that keep up.
pub const RECENT_BYTES: usize = 16 << 20;

/// The newest batches of one stream. Only worth having for a stream that somebody reads at once.
#[derive(Debug, Default)]
pub struct Recent {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: usize,
    batches: VecDeque<(Seq, Batch)>,
}

impl Recent {
    /// Keeps a batch; positions come in ascending order.
    pub fn put(&self, seq: Seq, batch: Batch) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += batch.payload.len();
        kept.batches.push_back((seq, batch));
        while kept.bytes > RECENT_BYTES {
            let Some((_, oldest)) = kept.batches.pop_front() else {
                break;
            };
            kept.bytes -= oldest.payload.len();
        }
    }

    /// The batch at a position, if it is still there. The only reader of a stream takes it along, and what is older with it.
    pub fn get(&self, seq: Seq, only_reader: bool) -> Option<Batch> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !only_reader {
            let at = kept.batches.binary_search_by_key(&seq, |(seq, _)| *seq).ok()?;
            return kept.batches.get(at).map(|(_, batch)| batch.clone());
        }
        while kept.batches.front().is_some_and(|(oldest, _)| *oldest <= seq) {
            let (found, batch) = kept.batches.pop_front()?;
            kept.bytes -= batch.payload.len();
            if found == seq {
                return Some(batch);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ids, spans};

    #[test]
    fn the_newest_are_found_within_the_bound() {
        let recent = Recent::default();
        let big = |id: u64| {
            let mut batch = spans([id]);
            let mut payload = batch.payload.to_vec();
            payload.resize(RECENT_BYTES / 3, 0);
            batch.payload = payload.into();
            batch
        };
        for seq in 1..=5 {
            recent.put(seq * 2, big(seq));
        }
        assert!(recent.get(4, false).is_none(), "beyond the bound");
        assert!(recent.get(7, false).is_none(), "another stream's");
        assert!(
            recent.get(6, false).is_some() && recent.get(6, false).is_some(),
            "several readers find the same"
        );
        assert!(recent.get(8, true).is_some());
        assert!(recent.get(6, false).is_none(), "the only reader has passed it");
        recent.put(12, spans([77]));
        assert_eq!(recent.get(12, true).map(|batch| ids(&batch)), Some(vec![77]));
    }
}
