//! Why: one file per processor, each named as its key in the configuration. This file holds only what they have in common with the planner.

pub mod actions;
pub mod attributes;
pub mod batch;
pub mod cumulativetodelta;
pub mod deltatocumulative;
pub mod filter;
pub mod groupbyattrs;
pub mod matching;
pub mod memory_limiter;
pub mod points;
pub mod probabilistic_sampler;
pub mod redaction;
pub mod resource;
pub mod streams;
pub mod tail_sampling;
pub mod transform;

use std::sync::Arc;
use std::time::Duration;

use crate::component::Processor;
use crate::metadata::Apart;
use crate::stage::MakeStage;

/// What a processor in the configuration is to the planner.
#[derive(Clone)]
pub enum Step {
    /// Stateless: it runs in the request, before the journal.
    InRequest(Arc<dyn Processor>),
    /// It says how much a reader of the journal takes at once; it is not a station of its own.
    Take(Take),
    /// It holds data: it stands behind the journal, and another stream of the journal behind it.
    Stage(MakeStage),
}

/// How much a reader takes at once, in items of the signal.
#[derive(Debug, Clone)]
pub struct Take {
    /// Enough for a request to be sent.
    pub items: u32,
    /// What a request never exceeds.
    pub max_items: Option<u32>,
    /// How long to wait for `items` after the first came.
    pub wait: Duration,
    /// What is kept of requests' metadata, if a `batch` processor says so; without one it is what exporters name.
    pub apart: Option<Apart>,
}

impl Default for Take {
    /// Without a `batch` processor: what is there, at once, within the collector's usual size of a batch.
    fn default() -> Take {
        Take {
            items: batch::DEFAULT_ITEMS,
            max_items: None,
            wait: Duration::ZERO,
            apart: None,
        }
    }
}
