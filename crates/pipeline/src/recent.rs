//! Why: a reader that is near the head should not inflate what a door has just inflated. The newest batches of all streams are kept, by position,
//! within one bound; who misses one reads the record instead.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use journal::Seq;
use model::Batch;

use crate::budget::{Budget, Lease};

/// What is kept of all streams together: about a tenth of a second of traffic at full speed, enough for readers that keep up.
pub const RECENT_BYTES: u64 = 16 << 20;

/// The newest batches. Only worth having for streams that somebody reads at once.
#[derive(Debug)]
pub struct Recent {
    budget: Budget,
    kept: Mutex<VecDeque<Kept>>,
}

#[derive(Debug)]
struct Kept {
    seq: Seq,
    stream: Arc<str>,
    batch: Batch,
    _lease: Lease,
}

impl Recent {
    /// Keeps what fits `budget`, which is this cache's own.
    pub fn new(budget: Budget) -> Recent {
        Recent {
            budget,
            kept: Mutex::default(),
        }
    }

    /// Keeps a batch at the cost of the oldest; positions come in ascending order, those of all streams taken together.
    pub fn put(&self, seq: Seq, stream: &Arc<str>, batch: Batch) {
        let bytes = batch.payload.len() as u64;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let lease = loop {
            match self.budget.try_reserve(bytes) {
                Some(lease) => break lease,
                None if kept.pop_front().is_some() => {}
                // Alone it is too large, or memory is short: its readers find it in the journal.
                None => return,
            }
        };
        kept.push_back(Kept {
            seq,
            stream: Arc::clone(stream),
            batch,
            _lease: lease,
        });
    }

    /// The batch at a position, if it is still there. The only reader of a stream takes it along, and what is older of that stream with it.
    pub fn get(&self, seq: Seq, only_reader_of: Option<&str>) -> Option<Batch> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(stream) = only_reader_of else {
            let at = kept.binary_search_by_key(&seq, |kept| kept.seq).ok()?;
            return kept.get(at).map(|kept| kept.batch.clone());
        };
        let mut at = 0;
        while let Some(next) = kept.get(at).filter(|next| next.seq <= seq) {
            if *next.stream != *stream {
                at += 1;
                continue;
            }
            let taken = kept.remove(at)?;
            if taken.seq == seq {
                return Some(taken.batch);
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
    fn the_newest_of_all_streams_are_found_within_one_bound() {
        let budget = Budget::root("recent", RECENT_BYTES);
        let recent = Recent::new(budget.clone());
        let (a, b): (Arc<str>, Arc<str>) = ("traces".into(), "logs".into());
        let big = |id: u64| {
            let mut batch = spans([id]);
            let mut payload = batch.payload.to_vec();
            payload.resize(RECENT_BYTES as usize / 3, 0);
            batch.payload = payload.into();
            batch
        };
        for (seq, stream) in [(2, &a), (4, &b), (6, &a), (8, &b), (10, &a)] {
            recent.put(seq, stream, big(seq));
        }
        assert!(budget.used_bytes() <= RECENT_BYTES);
        assert!(recent.get(4, None).is_none(), "beyond the bound");
        assert!(recent.get(7, None).is_none(), "never put");
        assert!(
            recent.get(6, None).is_some() && recent.get(6, None).is_some(),
            "several readers find the same"
        );
        assert!(recent.get(10, Some("traces")).is_some());
        assert!(recent.get(6, Some("traces")).is_none(), "the only reader has passed it");
        assert!(recent.get(8, Some("logs")).is_some(), "another stream's stays");
        assert_eq!(budget.used_bytes(), 0);
        recent.put(12, &a, spans([77]));
        assert_eq!(recent.get(12, Some("traces")).map(|batch| ids(&batch)), Some(vec![77]));
        let mut huge = spans([1]);
        huge.payload = vec![0; RECENT_BYTES as usize + 1].into();
        recent.put(14, &a, huge);
        assert!(recent.get(14, None).is_none() && budget.used_bytes() == 0);
    }
}
