//! Why: how an exporter's requests are sent (how many at once, how often tried again, what happens to those that are refused) is the same for all
//! exporters, and is written in the collector's keys.
//!
//! ```yaml
//! exporters:
//!   otlp:
//!     endpoint: backend:4317
//!     timeout: 5s
//!     retry_on_failure: { initial_interval: 5s, max_interval: 30s, max_elapsed_time: 10m }
//!     sending_queue: { num_consumers: 10, queue_size: 5000 }
//!     on_full: skip_oldest          # of the journal: or `refuse`
//!     dead_letter: /var/lib/trackline/dead
//! ```

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// Requests in flight at once if nothing is said, as in the collector.
pub const DEFAULT_CONSUMERS: usize = 10;

/// No exporter may hold more requests than this in memory; each is a few MiB at most.
pub const MAX_CONSUMERS: usize = 256;

/// `retry_on_failure`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// With `false`, what a backend refuses for now is dropped and counted. Default `true`. A backend that does not accept our credentials (401, 403, 407)
    /// refuses for now: what is to be sent waits for a token that is valid.
    pub enabled: bool,
    /// The wait before the first repetition, give or take `randomization_factor`. Default 5s.
    #[serde(deserialize_with = "crate::config::duration")]
    pub initial_interval: Duration,
    /// What each further wait is multiplied by. Default 1.5.
    pub multiplier: f64,
    /// Default 0.5: a wait of 5 s is between 2.5 and 7.5 s, so that clients of one backend do not return in step.
    pub randomization_factor: f64,
    /// The longest wait. Default 30s.
    #[serde(deserialize_with = "crate::config::duration")]
    pub max_interval: Duration,
    /// After this long a request is given up, dropped and counted. Default: never; the journal's bounds apply.
    #[serde(deserialize_with = "crate::config::optional_duration")]
    pub max_elapsed_time: Option<Duration>,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            enabled: true,
            initial_interval: Duration::from_secs(5),
            multiplier: 1.5,
            randomization_factor: 0.5,
            max_interval: Duration::from_secs(30),
            max_elapsed_time: None,
        }
    }
}

/// `sending_queue`. The queue is the journal; these are its bounds for one exporter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// With `false`, one request is in flight at a time. Default `true`.
    pub enabled: bool,
    /// Requests in flight at once. Default 10.
    pub num_consumers: usize,
    /// Requests that may wait before the oldest are given up. Default: none; the journal's bounds apply.
    pub queue_size: Option<u64>,
    /// The collector's way to make its queue durable. Ours is anyway; accepted, without effect.
    pub storage: Option<String>,
    /// The collector's choice to block senders at a full queue, which `on_full: refuse` is here; accepted, without effect.
    pub block_on_overflow: Option<bool>,
}

impl Default for Queue {
    fn default() -> Queue {
        Queue {
            enabled: true,
            num_consumers: DEFAULT_CONSUMERS,
            queue_size: None,
            storage: None,
            block_on_overflow: None,
        }
    }
}

/// `on_full`: what the journal does at its bound while this exporter stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// This exporter's oldest records are given up and counted; nobody else is harmed.
    #[default]
    SkipOldest,
    /// New data is refused at the door; nothing of this exporter is lost.
    Refuse,
}

/// How one exporter's requests are sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Sending {
    /// One attempt may take this long.
    pub timeout: Duration,
    pub retry: Retry,
    /// Requests in flight at once.
    pub in_flight: usize,
    pub queue_size: Option<u64>,
    pub on_full: OnFull,
    /// Where requests go that are given up, one file each. Default: nowhere, they are only counted.
    pub dead_letter: Option<PathBuf>,
}

impl Sending {
    pub fn new(timeout: Duration, retry: Retry, queue: &Queue) -> Sending {
        let consumers = if queue.enabled {
            queue.num_consumers.clamp(1, MAX_CONSUMERS)
        } else {
            1
        };
        Sending {
            timeout,
            retry,
            in_flight: consumers,
            queue_size: queue.queue_size,
            on_full: OnFull::default(),
            dead_letter: None,
        }
    }

    /// For exporters on this machine: in order, one at a time, and nothing is given up.
    pub fn local() -> Sending {
        let queue = Queue {
            enabled: false,
            ..Queue::default()
        };
        let timeout = Duration::from_secs(60);
        Sending {
            on_full: OnFull::Refuse,
            ..Sending::new(timeout, Retry::default(), &queue)
        }
    }
}

/// The waits between the attempts of one request.
#[derive(Debug)]
pub struct Backoff<'a> {
    retry: &'a Retry,
    next: Duration,
}

impl<'a> Backoff<'a> {
    pub fn new(retry: &'a Retry) -> Backoff<'a> {
        Backoff {
            retry,
            next: retry.initial_interval,
        }
    }

    /// The next wait: ours, or longer if the backend asked for longer.
    pub fn wait(&mut self, asked: Duration) -> Duration {
        let (wait, next) = Backoff::step(self.retry, self.next, asked);
        self.next = next;
        wait
    }

    /// `next` with its jitter, or longer if the backend asked for longer; and what comes after it.
    pub(crate) fn step(retry: &Retry, next: Duration, asked: Duration) -> (Duration, Duration) {
        let factor = retry.randomization_factor.clamp(0.0, 1.0);
        let jittered = next.mul_f64(1.0 + factor * (fastrand::f64() * 2.0 - 1.0));
        let multiplier = retry.multiplier.clamp(1.0, 100.0);
        (jittered.max(asked), next.mul_f64(multiplier).min(retry.max_interval))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_bound_and_heed_the_backend() {
        let retry = Retry {
            randomization_factor: 0.0,
            ..Retry::default()
        };
        let mut backoff = Backoff::new(&retry);
        let waits: Vec<f32> = (0..6).map(|_| backoff.wait(Duration::ZERO).as_secs_f32()).collect();
        assert_eq!(waits, [5.0, 7.5, 11.25, 16.875, 25.3125, 30.0]);
        assert_eq!(backoff.wait(Duration::from_secs(90)), Duration::from_secs(90));
    }

    #[test]
    fn waits_are_spread() {
        let retry = Retry::default();
        let waits: Vec<Duration> = (0..100).map(|_| Backoff::new(&retry).wait(Duration::ZERO)).collect();
        assert!(waits.iter().all(|wait| (2.5..=7.5).contains(&wait.as_secs_f64())));
        assert!(waits.iter().any(|wait| *wait != waits[0]));
    }
}
