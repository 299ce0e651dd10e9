//! Where questions run: on threads of their own, few at a time, with a deadline, and not for a client that has left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// Questions at a time per core: reading overlaps with computing, but ingest comes first.
const PER_CORE: usize = 2;
/// Questions that may wait for their turn; a page asks a handful at once.
const MAX_WAITING: usize = 64;
/// How long one question may take, waiting included: longer than any that makes sense, shorter than people's patience.
pub const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error("{MAX_WAITING} questions are waiting already; try again in a moment")]
    Busy,
    #[error("the question took longer than {} s; ask about less time or fewer services", TIME_LIMIT.as_secs())]
    TimedOut,
    /// Nobody reads this: the client has left.
    #[error("the client left before the answer")]
    Cancelled,
    #[error(transparent)]
    Read(store::ReadError),
    /// A bug here; the question's thread is gone, nothing else is.
    #[error("the question failed inside: {0}")]
    Failed(String),
}

impl From<store::ReadError> for QueryError {
    fn from(error: store::ReadError) -> QueryError {
        match error {
            // Reads of the store stop when their deadline says so; who is still here learns of the time.
            store::ReadError::Stopped => QueryError::TimedOut,
            error => QueryError::Read(error),
        }
    }
}

/// Lets questions in.
#[derive(Clone, Debug)]
pub struct Gate {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    time_limit: Duration,
}

/// The bound on one question's time; long loops ask it now and then.
#[derive(Clone, Debug)]
pub struct Deadline {
    at: Instant,
    left: Arc<AtomicBool>,
}

impl Deadline {
    pub fn check(&self) -> Result<(), QueryError> {
        if self.left.load(Ordering::Relaxed) {
            Err(QueryError::Cancelled)
        } else if Instant::now() >= self.at {
            Err(QueryError::TimedOut)
        } else {
            Ok(())
        }
    }
}

/// Tells the question's thread when the one who asked drops the future.
struct Leaving(Arc<AtomicBool>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Gate {
    pub fn new() -> Gate {
        let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get());
        Gate::with(cores * PER_CORE, MAX_WAITING, TIME_LIMIT)
    }

    fn with(running: usize, waiting: usize, time_limit: Duration) -> Gate {
        Gate {
            running: Arc::new(Semaphore::new(running)),
            waiting: Arc::new(Semaphore::new(running + waiting)),
            time_limit,
        }
    }

    /// Runs a question on a thread where blocking harms nobody. Dropping the future cancels it at its next check.
    pub async fn run<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Deadline) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let place = self.waiting.clone().try_acquire_owned().map_err(|_| QueryError::Busy)?;
        let left = Arc::new(AtomicBool::new(false));
        let deadline = Deadline {
            at: Instant::now() + self.time_limit,
            left: left.clone(),
        };
        let _leaving = Leaving(left);
        let turn = tokio::time::timeout(self.time_limit, self.running.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| QueryError::TimedOut)?.map_err(|_| QueryError::Busy)?;
        let run = move || {
            // Held by the thread, not the future: a question that was left still takes its place until it notices.
            let _held = (place, turn);
            deadline.check()?;
            question(&deadline)
        };
        match tokio::task::spawn_blocking(run).await {
            Ok(answer) => answer,
            Err(error) => Err(QueryError::Failed(error.to_string())),
        }
    }
}

impl Default for Gate {
    fn default() -> Gate {
        Gate::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn who_leaves_cancels_and_frees_the_place() {
        let gate = Gate::with(1, 0, Duration::from_secs(60));
        let (started, has_started) = tokio::sync::oneshot::channel();
        let (ended, has_ended) = mpsc::channel();
        let question = gate.run(move |deadline| {
            started.send(()).unwrap();
            let reason = loop {
                if let Err(reason) = deadline.check() {
                    break reason;
                }
                std::thread::yield_now();
            };
            ended.send(reason.to_string()).unwrap();
            Err::<(), _>(reason)
        });
        tokio::select! {
            _ = question => panic!("the question ends only when it is left"),
            _ = has_started => {}
        }
        let reason = tokio::task::spawn_blocking(move || has_ended.recv().unwrap())
            .await
            .unwrap();
        assert_eq!(reason, QueryError::Cancelled.to_string());
        // The place is free again as soon as the thread has ended.
        let answer = loop {
            match gate.run(|_| Ok(7)).await {
                Err(QueryError::Busy) => tokio::task::yield_now().await,
                other => break other,
            }
        };
        assert_eq!(answer.unwrap(), 7);
    }

    #[tokio::test]
    async fn at_the_bound_questions_are_refused_not_queued() {
        let gate = Gate::with(1, 0, Duration::from_secs(60));
        let (go, wait) = mpsc::channel::<()>();
        let other = gate.clone();
        let first = tokio::spawn(async move { other.run(move |_| Ok(wait.recv().is_ok())).await });
        while gate.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(gate.run(|_| Ok(())).await, Err(QueryError::Busy)));
        go.send(()).unwrap();
        assert!(first.await.unwrap().unwrap());
    }

    #[tokio::test]
    async fn time_runs_out() {
        let gate = Gate::with(1, 0, Duration::ZERO);
        assert!(matches!(gate.run(|_| Ok(())).await, Err(QueryError::TimedOut)));
    }

    #[tokio::test]
    async fn a_question_that_panics_harms_nobody() {
        let gate = Gate::with(1, 0, Duration::from_secs(60));
        let answer = gate.run(|_| -> Result<(), QueryError> { panic!("a bug") }).await;
        assert!(matches!(answer, Err(QueryError::Failed(_))));
        assert_eq!(gate.run(|_| Ok(1)).await.unwrap(), 1);
    }
}
