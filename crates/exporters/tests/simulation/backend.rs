//! A backend beside the store that is as backends are: it asks to come back, does not answer at all, refuses some for good.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::{Batch, Signal};
use pipeline::{BoxFuture, Exporter, Outcome, Reason};

use crate::load;

/// Of a hundred requests, how many end how.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mood {
    pub fails: u8,
    pub stalls: u8,
    pub rejects: u8,
}

#[derive(Default)]
struct State {
    mood: Mood,
    random: fastrand::Rng,
    taken: BTreeSet<u64>,
    rejected: BTreeSet<u64>,
}

/// It outlives the machine; clones are the same backend.
#[derive(Clone, Default)]
pub struct Backend(Arc<Mutex<State>>);

impl Backend {
    pub fn new(seed: u64) -> Backend {
        let backend = Backend::default();
        backend.0.lock().expect("no panic").random = fastrand::Rng::with_seed(seed);
        backend
    }

    pub fn set_mood(&self, mood: Mood) {
        self.0.lock().expect("no panic").mood = mood;
    }

    /// What it took or refused for good.
    pub fn settled(&self) -> BTreeSet<u64> {
        let state = self.0.lock().expect("no panic");
        state.taken.union(&state.rejected).copied().collect()
    }

    pub fn taken(&self) -> BTreeSet<u64> {
        self.0.lock().expect("no panic").taken.clone()
    }
}

impl Exporter for Backend {
    fn takes(&self, _: Signal) -> bool {
        true
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let stalls = {
                let mut state = self.0.lock().expect("no panic");
                let (mood, dice) = (state.mood, state.random.u8(..100));
                if dice < mood.fails {
                    return Outcome::retry(Duration::ZERO, Reason::BackendUnavailable);
                }
                let ids = load::ids(batch.signal, batch.payload.bytes());
                if dice < mood.fails + mood.rejects {
                    let count = state.random.usize(1..=ids.len());
                    let (refused, taken) = ids.split_at(count);
                    state.rejected.extend(refused);
                    state.taken.extend(taken);
                    return Outcome::rejected(Reason::BackendRejected, "not these", count as u32);
                }
                state.taken.extend(ids);
                dice < mood.fails + mood.rejects + mood.stalls
            };
            // It took them, and nobody hears of it.
            if stalls {
                std::future::pending::<()>().await;
            }
            Outcome::Delivered
        })
    }
}
