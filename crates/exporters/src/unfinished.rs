//! Why: some requests are answered in parts, by several brokers or backends. What one of them took is not to be sent again when the rest is repeated, so
//! what is left of a batch is kept between the attempts.
//!
//! It is kept in memory: after a crash, or when more batches are partly delivered than are remembered, the whole batch is sent again.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use model::Payload;
use pipeline::sending::MAX_CONSUMERS;

/// What is left of batches between two attempts. `W` is what an exporter makes of a batch and then works off.
pub struct Unfinished<W> {
    /// A repetition has the same bytes at the same place, and holding them keeps the place theirs.
    parked: Mutex<VecDeque<(Payload, W)>>,
}

impl<W> Default for Unfinished<W> {
    fn default() -> Unfinished<W> {
        Unfinished {
            parked: Mutex::default(),
        }
    }
}

impl<W> Unfinished<W> {
    /// What an earlier attempt left of this payload, or all of it as `make` has it.
    pub fn resume(&self, payload: &Payload, make: impl FnOnce() -> W) -> Attempt<'_, W> {
        Attempt {
            unfinished: self,
            payload: payload.clone(),
            work: Some(self.take(payload).unwrap_or_else(make)),
        }
    }

    /// What an earlier attempt left of this payload, which then is nobody's but the caller's.
    pub fn take(&self, payload: &Payload) -> Option<W> {
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |(known, _): &(Payload, W)| known.as_ptr() == payload.as_ptr() && known.len() == payload.len();
        let at = parked.iter().position(same)?;
        parked.remove(at).map(|(_, work)| work)
    }
}

/// One attempt at a batch. Dropped before [`finish`](Attempt::finish), as when its time is up, it leaves the rest to the next.
pub struct Attempt<'a, W> {
    unfinished: &'a Unfinished<W>,
    payload: Payload,
    work: Option<W>,
}

impl<W> Attempt<'_, W> {
    pub fn work(&mut self) -> &mut W {
        self.work
            .as_mut()
            .expect("only `finish` takes it, which consumes the attempt")
    }

    /// There will be no further attempt.
    pub fn finish(mut self) -> W {
        self.work.take().expect("only this takes it")
    }
}

impl<W> Drop for Attempt<'_, W> {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        let mut parked = self.unfinished.parked.lock().unwrap_or_else(PoisonError::into_inner);
        // As many as may be in flight for one pipeline; what is forgotten is sent again as a whole.
        if parked.len() == MAX_CONSUMERS {
            parked.pop_front();
        }
        parked.push_back((self.payload.clone(), work));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_found_again_by_the_place_of_the_bytes() {
        let unfinished = Unfinished::default();
        let payload = Payload::from(b"abc".to_vec());
        let equal = Payload::from(b"abc".to_vec());
        let mut attempt = unfinished.resume(&payload, || vec![1, 2, 3]);
        attempt.work().pop();
        drop(attempt);
        assert_eq!(unfinished.resume(&equal, || vec![9]).finish(), [9], "other bytes");
        let clone = payload.clone();
        assert_eq!(unfinished.resume(&clone, Vec::new).finish(), [1, 2]);
        assert_eq!(unfinished.resume(&payload, || vec![7]).finish(), [7], "it was finished");
    }

    #[test]
    fn the_oldest_are_forgotten_at_the_bound() {
        let unfinished = Unfinished::default();
        let payloads: Vec<Payload> = (0..=MAX_CONSUMERS).map(|_| Payload::from(vec![0; 8])).collect();
        for payload in &payloads {
            drop(unfinished.resume(payload, || 1));
        }
        assert_eq!(unfinished.resume(&payloads[0], || 2).finish(), 2);
        assert_eq!(unfinished.resume(&payloads[1], || 2).finish(), 1);
    }
}
