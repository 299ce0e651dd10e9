//! Why: a backend that is away is asked by one request at a time, not by a window of them that each wait for their timeout again and again.
//!
//! Closed, everything goes through. After some failures in a row the circuit opens: everybody waits, and after the waits of `retry_on_failure` one request
//! goes to see (half-open). If it gets through, all do; if not, the next wait begins. So nobody learns later that the backend is back than by repeating on
//! their own: no wait is longer than `max_interval` and its jitter, or than the backend asks for.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::sending::{Backoff, Retry};

/// Failures in a row that open a circuit: half a window of requests, so that a single slow answer does not.
const OPENING_FAILURES: u32 = 5;

/// How a circuit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CircuitState {
    /// Everything goes through.
    #[default]
    Closed,
    /// One request is on its way to see.
    HalfOpen,
    /// Everybody waits.
    Open,
}

/// Where a circuit shows its state to others.
#[derive(Debug, Clone, Default)]
pub struct Shown(Arc<AtomicU8>);

impl Shown {
    pub fn get(&self) -> CircuitState {
        match self.0.load(Ordering::Relaxed) {
            0 => CircuitState::Closed,
            1 => CircuitState::HalfOpen,
            _ => CircuitState::Open,
        }
    }

    fn set(&self, state: CircuitState) {
        self.0.store(state as u8, Ordering::Relaxed);
    }
}

/// The circuit before one backend.
#[derive(Debug)]
pub struct Circuit {
    /// Whom the log is about.
    name: String,
    retry: Retry,
    shown: Shown,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// In a row.
    failures: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    since: Instant,
    /// When the next request may go to see.
    next: Instant,
    /// Before jitter, the wait after that.
    next_wait: Duration,
    is_probing: bool,
}

impl Circuit {
    /// `name` is the backend's, for the log; `retry` says how long to wait between two looks.
    pub fn new(name: impl Into<String>, retry: Retry, shown: Shown) -> Circuit {
        Circuit {
            name: name.into(),
            retry,
            shown,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_closed(&self) -> bool {
        self.state().open.is_none()
    }

    /// Waits until a request may go. Dropping the future gives up the turn.
    pub async fn enter(&self) -> Pass<'_> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            let until = match self.try_enter() {
                Ok(pass) => return pass,
                Err(until) => until,
            };
            match until {
                Some(until) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(until) => {}
                },
                None => changed.await,
            }
        }
    }

    /// Lets a request go if it may; else says when to ask again, unless that depends on the request that is on its way.
    pub fn try_enter(&self) -> Result<Pass<'_>, Option<Instant>> {
        self.try_enter_at(Instant::now())
    }

    fn try_enter_at(&self, now: Instant) -> Result<Pass<'_>, Option<Instant>> {
        let mut state = self.state();
        let is_probe = match &mut state.open {
            None => false,
            Some(open) if open.is_probing => return Err(None),
            Some(open) if now < open.next => return Err(Some(open.next)),
            Some(open) => {
                open.is_probing = true;
                self.shown.set(CircuitState::HalfOpen);
                true
            }
        };
        Ok(Pass {
            circuit: self,
            is_probe,
            is_told: false,
        })
    }

    fn succeeded(&self) {
        let mut state = self.state();
        state.failures = 0;
        let Some(open) = state.open.take() else { return };
        drop(state);
        self.shown.set(CircuitState::Closed);
        tracing::info!(backend = self.name, after = ?open.since.elapsed(), "the backend is back");
        self.changed.notify_waiters();
    }

    /// `asked` is how long the backend wants to be left alone.
    fn failed(&self, is_probe: bool, asked: Duration, now: Instant) {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        let failures = state.failures;
        match &mut state.open {
            Some(open) => {
                // Requests that were on their way when it opened say nothing new.
                if is_probe {
                    open.is_probing = false;
                    open.wait(&self.retry, asked, now);
                }
            }
            None if failures < OPENING_FAILURES => return,
            opened @ None => {
                let mut open = Open {
                    since: now,
                    next: now,
                    next_wait: self.retry.initial_interval,
                    is_probing: false,
                };
                open.wait(&self.retry, asked, now);
                *opened = Some(open);
                tracing::warn!(
                    backend = self.name,
                    "{failures} requests in a row failed: from now on one at a time goes to see"
                );
            }
        }
        let is_probing = state.open.as_ref().is_some_and(|open| open.is_probing);
        drop(state);
        if !is_probing {
            self.shown.set(CircuitState::Open);
        }
        self.changed.notify_waiters();
    }

    /// A probe was given up before it had an answer: the next one may go at once.
    fn given_up(&self) {
        if let Some(open) = &mut self.state().open {
            open.is_probing = false;
            open.next = Instant::now();
        }
        self.shown.set(CircuitState::Open);
        self.changed.notify_waiters();
    }
}

impl Open {
    fn wait(&mut self, retry: &Retry, asked: Duration, now: Instant) {
        let (wait, next_wait) = Backoff::step(retry, self.next_wait, asked);
        self.next = now + wait;
        self.next_wait = next_wait;
    }
}

/// The leave to send one request, and the duty to say how it went.
#[derive(Debug)]
pub struct Pass<'c> {
    circuit: &'c Circuit,
    is_probe: bool,
    is_told: bool,
}

impl Pass<'_> {
    /// The backend answered, whatever it said about the items.
    pub fn succeeded(mut self) {
        self.is_told = true;
        self.circuit.succeeded();
    }

    /// It did not, or is not able to take anything now.
    pub fn failed(self, asked: Duration) {
        self.failed_at(asked, Instant::now());
    }

    fn failed_at(mut self, asked: Duration, now: Instant) {
        self.is_told = true;
        self.circuit.failed(self.is_probe, asked, now);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.is_probe && !self.is_told {
            self.circuit.given_up();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circuit(retry: Retry) -> (Circuit, Shown) {
        let shown = Shown::default();
        (Circuit::new("backend", retry, shown.clone()), shown)
    }

    fn even() -> Retry {
        Retry {
            randomization_factor: 0.0,
            ..Retry::default()
        }
    }

    fn open(circuit: &Circuit, now: Instant) {
        for _ in 0..OPENING_FAILURES {
            circuit.try_enter().expect("is closed").failed_at(Duration::ZERO, now);
        }
    }

    /// When a request may go; none may before.
    fn next(circuit: &Circuit) -> Instant {
        let state = circuit.state();
        state.open.as_ref().expect("is open").next
    }

    fn seconds(count: f32) -> Duration {
        Duration::from_secs_f32(count)
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_one_goes_to_see() {
        let (circuit, shown) = circuit(even());
        for _ in 0..3 {
            for _ in 1..OPENING_FAILURES {
                circuit.try_enter().expect("is closed").failed(Duration::ZERO);
            }
            circuit.try_enter().expect("is closed").succeeded();
        }
        let now = Instant::now();
        open(&circuit, now);
        assert_eq!(shown.get(), CircuitState::Open);
        assert_eq!(
            next(&circuit),
            now + seconds(5.0),
            "the first wait of `retry_on_failure`"
        );
        let too_soon = circuit.try_enter_at(now + seconds(4.9));
        assert_eq!(too_soon.expect_err("too soon"), Some(now + seconds(5.0)));
        let now = now + seconds(5.0);
        let probe = circuit.try_enter_at(now).expect("its turn");
        assert_eq!(shown.get(), CircuitState::HalfOpen);
        assert_eq!(circuit.try_enter_at(now).expect_err("one at a time"), None);
        probe.failed_at(Duration::ZERO, now);
        assert_eq!(shown.get(), CircuitState::Open);
        assert_eq!(next(&circuit), now + seconds(7.5));
        circuit.try_enter_at(now + seconds(7.5)).expect("its turn").succeeded();
        assert_eq!(shown.get(), CircuitState::Closed);
        assert!(circuit.try_enter().is_ok() && circuit.try_enter().is_ok());
    }

    #[test]
    fn waits_grow_no_longer_than_the_backoff_allows_or_the_backend_asks() {
        let (circuit, _) = circuit(even());
        let mut now = Instant::now();
        open(&circuit, now);
        for _ in 0..20 {
            assert!(next(&circuit) - now <= seconds(30.0));
            now = next(&circuit);
            circuit
                .try_enter_at(now)
                .expect("its turn")
                .failed_at(Duration::ZERO, now);
        }
        now = next(&circuit);
        circuit
            .try_enter_at(now)
            .expect("its turn")
            .failed_at(seconds(90.0), now);
        assert_eq!(next(&circuit), now + seconds(90.0));
        drop(circuit.try_enter_at(next(&circuit)).expect("its turn"));
        assert!(
            circuit.try_enter().is_ok(),
            "a probe that was given up is followed at once"
        );
    }

    #[tokio::test]
    async fn all_who_wait_go_when_one_got_through() {
        let retry = Retry {
            initial_interval: Duration::from_millis(1),
            ..even()
        };
        let circuit = Arc::new(circuit(retry).0);
        open(&circuit, Instant::now());
        let together = Arc::new(tokio::sync::Barrier::new(10));
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..11 {
            let (circuit, together) = (Arc::clone(&circuit), Arc::clone(&together));
            waiting.spawn(async move {
                let pass = circuit.enter().await;
                if pass.is_probe {
                    return pass.succeeded();
                }
                // Each holds its pass until all others have theirs.
                together.wait().await;
                pass.succeeded();
            });
        }
        waiting.join_all().await;
        assert!(circuit.is_closed());
    }

    #[test]
    fn late_answers_of_before_say_nothing_new_unless_they_are_good() {
        let (circuit, shown) = circuit(even());
        let late: Vec<Pass<'_>> = (0..3).map(|_| circuit.try_enter().expect("is closed")).collect();
        open(&circuit, Instant::now());
        let probe = circuit.try_enter_at(next(&circuit)).expect("its turn");
        let mut late = late.into_iter();
        late.next().expect("three").failed(Duration::from_secs(60));
        assert_eq!(circuit.try_enter().expect_err("the probe is still on its way"), None);
        assert_eq!(shown.get(), CircuitState::HalfOpen);
        late.next().expect("three").succeeded();
        assert_eq!(shown.get(), CircuitState::Closed);
        probe.failed(Duration::ZERO);
        assert!(circuit.is_closed(), "one failure since");
    }
}
