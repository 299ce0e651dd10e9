//! Why: "accepted" must be something that a batch carries and that cannot be forgotten.
//!
//! An [`Ack`] is the duty to say, exactly once, what became of a batch. It moves with the batch and cannot be copied. Whoever loses it
//! (an early return, a panic, a task that is dropped) has thereby said *retry*: silence never turns into success.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use std::num::NonZeroUsize;
use tokio::sync::oneshot;

use crate::reason::Reason;

/// What a sender is told to wait when a batch got lost on our side: long enough to let a restart pass, short enough to go unnoticed.
pub const LOST_RETRY_AFTER: Duration = Duration::from_secs(1);

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Its bytes are durable where the answer came from: in the journal, or at the exporter's backend when there is no journal.
    Delivered,
    /// Nothing is known to have been kept; the same bytes may be sent again after `after`.
    Retry { after: Duration, reason: Reason },
    /// `items` of it will never be taken, and sending them again changes nothing; the others are delivered.
    Rejected { reason: Rejection, items: u32 },
}

/// Why items are refused for good: a counted reason and a sentence for their sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub kind: Reason,
    pub message: Arc<str>,
}

impl Rejection {
    pub fn new(kind: Reason, message: impl Into<Arc<str>>) -> Rejection {
        Rejection {
            kind,
            message: message.into(),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Reason> for Rejection {
    fn from(kind: Reason) -> Rejection {
        Rejection {
            kind,
            message: kind.explanation().into(),
        }
    }
}

impl Outcome {
    pub fn retry(after: Duration, reason: Reason) -> Outcome {
        Outcome::Retry { after, reason }
    }

    pub fn rejected(kind: Reason, message: impl Into<Arc<str>>, items: u32) -> Outcome {
        Outcome::Rejected {
            reason: Rejection::new(kind, message),
            items,
        }
    }

    pub fn is_delivered(&self) -> bool {
        matches!(self, Outcome::Delivered)
    }

    /// The outcome of one batch that went to several places. `Retry` wins over `Rejected` (a retry may still be accepted everywhere),
    /// `Rejected` over `Delivered`. Of two retries the longer wait counts; of two rejections the one that lost more.
    #[must_use]
    pub fn worst(self, other: Outcome) -> Outcome {
        use Outcome::{Delivered, Rejected, Retry};
        match (self, other) {
            (
                Retry { after: a, reason },
                Retry {
                    after: b,
                    reason: other,
                },
            ) => {
                if a >= b {
                    Retry { after: a, reason }
                } else {
                    Retry {
                        after: b,
                        reason: other,
                    }
                }
            }
            (retry @ Retry { .. }, _) | (_, retry @ Retry { .. }) => retry,
            (
                Rejected { reason, items: a },
                Rejected {
                    reason: other,
                    items: b,
                },
            ) => {
                if a >= b {
                    Rejected { reason, items: a }
                } else {
                    Rejected {
                        reason: other,
                        items: b,
                    }
                }
            }
            (rejected @ Rejected { .. }, Delivered) | (Delivered, rejected @ Rejected { .. }) => rejected,
            (Delivered, Delivered) => Delivered,
        }
    }
}

/// The duty to say what became of a batch. See the module's text.
#[must_use = "an ack that is dropped tells the sender to retry"]
pub struct Ack {
    then: Option<Box<dyn FnOnce(Outcome) + Send>>,
}

impl Ack {
    /// An ack and the future that yields what it is resolved with.
    pub fn new() -> (Ack, AckFuture) {
        let (sender, receiver) = oneshot::channel();
        // A receiver that is gone is a client that left: what it sent is kept all the same.
        let ack = Ack::from_fn(move |outcome| drop(sender.send(outcome)));
        (ack, AckFuture { receiver })
    }

    /// An ack that calls `then` with its outcome, on the thread that resolves it: `then` must be short and must not block.
    pub fn from_fn(then: impl FnOnce(Outcome) + Send + 'static) -> Ack {
        Ack {
            then: Some(Box::new(then)),
        }
    }

    pub fn resolve(mut self, outcome: Outcome) {
        if let Some(then) = self.then.take() {
            then(outcome);
        }
    }

    pub fn delivered(self) {
        self.resolve(Outcome::Delivered);
    }

    /// One duty becomes `n`, for a batch that goes to `n` places; this ack resolves, with the worst outcome, when all parts have.
    pub fn split(self, n: NonZeroUsize) -> Vec<Ack> {
        if n.get() == 1 {
            return vec![self];
        }
        let fork = Arc::new(Fork {
            state: Mutex::new(ForkState {
                waiting: n.get(),
                worst: Outcome::Delivered,
                whole: Some(self),
            }),
        });
        (0..n.get())
            .map(|_| {
                let fork = Arc::clone(&fork);
                Ack::from_fn(move |outcome| fork.part_resolved(outcome))
            })
            .collect()
    }

    /// Several duties become one, for batches that were made into one: each gets the one outcome.
    pub fn join(acks: Vec<Ack>) -> Ack {
        Ack::from_fn(move |outcome| {
            for ack in acks {
                ack.resolve(outcome.clone());
            }
        })
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if let Some(then) = self.then.take() {
            then(Outcome::Retry {
                after: LOST_RETRY_AFTER,
                reason: Reason::Lost,
            });
        }
    }
}

impl fmt::Debug for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ack")
    }
}

struct Fork {
    state: Mutex<ForkState>,
}

struct ForkState {
    waiting: usize,
    worst: Outcome,
    whole: Option<Ack>,
}

impl Fork {
    fn part_resolved(&self, outcome: Outcome) {
        let last = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
            let so_far = std::mem::replace(&mut state.worst, Outcome::Delivered);
            state.worst = so_far.worst(outcome);
            (state.waiting == 0).then(|| {
                (
                    state.whole.take(),
                    std::mem::replace(&mut state.worst, Outcome::Delivered),
                )
            })
        };
        // Outside the lock: what follows is somebody else's code.
        if let Some((Some(whole), worst)) = last {
            whole.resolve(worst);
        }
    }
}

/// Yields what an [`Ack`] was resolved with. Dropping it cancels nothing.
#[derive(Debug)]
pub struct AckFuture {
    receiver: oneshot::Receiver<Outcome>,
}

impl Future for AckFuture {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let outcome = ready!(Pin::new(&mut self.receiver).poll(context));
        Poll::Ready(outcome.unwrap_or(Outcome::Retry {
            after: LOST_RETRY_AFTER,
            reason: Reason::Lost,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a random graph does with an ack.
    #[derive(Debug, Clone)]
    enum Step {
        Split { ack: usize, ways: usize },
        Join { first: usize, second: usize },
        Resolve { ack: usize, outcome: Outcome },
        Drop { ack: usize },
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            4 => Just(Outcome::Delivered),
            1 => (0u64..9).prop_map(|seconds| Outcome::retry(Duration::from_secs(seconds), Reason::JournalFull)),
            1 => (1u32..9).prop_map(|items| Outcome::rejected(Reason::TooLarge, "too large", items)),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        let ack = 0usize..1000;
        prop_oneof![
            3 => (ack.clone(), 1usize..4).prop_map(|(ack, ways)| Step::Split { ack, ways }),
            2 => (ack.clone(), 0usize..1000).prop_map(|(first, second)| Step::Join { first, second }),
            4 => (ack.clone(), outcome()).prop_map(|(ack, outcome)| Step::Resolve { ack, outcome }),
            1 => ack.prop_map(|ack| Step::Drop { ack }),
        ]
    }

    /// The slow and obvious model: which roots each live ack answers for, and per root the worst of all that was said.
    struct Model {
        live: Vec<(Ack, Vec<usize>)>,
        expected: Vec<Outcome>,
        open: Vec<usize>,
    }

    impl Model {
        fn said(&mut self, roots: &[usize], outcome: &Outcome) {
            for root in roots {
                let so_far = std::mem::replace(&mut self.expected[*root], Outcome::Delivered);
                self.expected[*root] = so_far.worst(outcome.clone());
                self.open[*root] -= 1;
            }
        }
    }

    fn severity(outcome: &Outcome) -> u8 {
        match outcome {
            Outcome::Delivered => 0,
            Outcome::Rejected { .. } => 1,
            Outcome::Retry { .. } => 2,
        }
    }

    proptest! {
        #[test]
        fn in_any_graph_every_ack_resolves_once_and_with_the_worst(roots in 1usize..5, steps in proptest::collection::vec(step(), 0..60)) {
            let heard: Arc<Mutex<Vec<Vec<Outcome>>>> = Arc::new(Mutex::new(vec![Vec::new(); roots]));
            let mut model = Model { live: Vec::new(), expected: vec![Outcome::Delivered; roots], open: vec![1; roots] };
            for root in 0..roots {
                let heard = Arc::clone(&heard);
                let ack = Ack::from_fn(move |outcome| heard.lock().expect("no panics").get_mut(root).expect("a root").push(outcome));
                model.live.push((ack, vec![root]));
            }
            for step in steps {
                if model.live.is_empty() {
                    break;
                }
                let count = model.live.len();
                match step {
                    Step::Split { ack, ways } => {
                        let (ack, answers_for) = model.live.swap_remove(ack % count);
                        for root in &answers_for {
                            model.open[*root] += ways - 1;
                        }
                        let parts = ack.split(NonZeroUsize::new(ways).expect("at least one"));
                        model.live.extend(parts.into_iter().map(|part| (part, answers_for.clone())));
                    }
                    Step::Join { first, second } => {
                        let (one, mut answers_for) = model.live.swap_remove(first % count);
                        let mut acks = vec![one];
                        if count > 1 {
                            let (other, more) = model.live.swap_remove(second % (count - 1));
                            acks.push(other);
                            answers_for.extend(more);
                        }
                        model.live.push((Ack::join(acks), answers_for));
                    }
                    Step::Resolve { ack, outcome } => {
                        let (ack, answers_for) = model.live.swap_remove(ack % count);
                        model.said(&answers_for, &outcome);
                        ack.resolve(outcome);
                    }
                    Step::Drop { ack } => {
                        let (ack, answers_for) = model.live.swap_remove(ack % count);
                        model.said(&answers_for, &Outcome::retry(LOST_RETRY_AFTER, Reason::Lost));
                        drop(ack);
                    }
                }
                for (root, said) in heard.lock().expect("no panics").iter().enumerate() {
                    prop_assert_eq!(said.len(), usize::from(model.open[root] == 0), "root {} with {} parts open", root, model.open[root]);
                }
            }
            // What is left is lost, as in a panic.
            while let Some((ack, answers_for)) = model.live.pop() {
                model.said(&answers_for, &Outcome::retry(LOST_RETRY_AFTER, Reason::Lost));
                drop(ack);
            }
            for (root, said) in heard.lock().expect("no panics").iter().enumerate() {
                prop_assert_eq!(said.len(), 1);
                prop_assert_eq!(severity(&said[0]), severity(&model.expected[root]));
            }
        }
    }

    #[test]
    fn a_panic_in_between_says_retry() {
        let (ack, mut future) = Ack::new();
        let parts = ack.split(NonZeroUsize::new(2).expect("two"));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let mut parts = parts.into_iter();
            parts.next().expect("first").delivered();
            let _second = parts.next();
            panic!("a component broke");
        }));
        assert!(panicked.is_err());
        let outcome = future.receiver.try_recv().expect("resolved");
        assert_eq!(outcome, Outcome::retry(LOST_RETRY_AFTER, Reason::Lost));
    }

    #[test]
    fn a_client_that_left_changes_nothing() {
        let (ack, future) = Ack::new();
        drop(future);
        ack.delivered();
    }
}
