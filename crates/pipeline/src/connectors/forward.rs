//! Why: several pipelines flow into one, or one into several, without anything happening on the way: what they have in common is then written once.
//!
//! ```yaml
//! connectors:
//!   forward:
//! service:
//!   pipelines:
//!     traces/web: { receivers: [otlp/web], processors: [redaction], exporters: [forward] }
//!     traces/internal: { receivers: [otlp], exporters: [forward] }
//!     traces: { receivers: [forward], processors: [batch], exporters: [otlp] }
//! ```

use std::sync::Arc;

use bytes::Bytes;
use model::Batch;
use serde::Deserialize;

use crate::config::{Problems, Section};
use crate::stage::{BadState, MakeStage, Stage, State};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {}

pub fn parse(section: &Section<'_>) -> Result<MakeStage, Problems> {
    let _: Config = section.parse()?;
    Ok(Arc::new(|| Box::new(Forward)))
}

struct Forward;

impl Stage for Forward {
    fn restore(&mut self, _: &State) -> Result<(), BadState> {
        Ok(())
    }

    fn take(&mut self, batch: Batch, out: &mut Vec<Batch>) {
        out.push(batch);
    }

    fn state(&mut self, _: bool) -> State {
        State::Whole(Bytes::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::testing::stage;
    use crate::testing;

    #[test]
    fn what_comes_in_goes_out() {
        let mut forward = stage(parse, "{}");
        let mut out = Vec::new();
        for batch in [testing::batch_of(3), testing::logs()] {
            forward.take(batch, &mut out);
        }
        assert_eq!(testing::ids(&out[0]), [0, 1, 2]);
        assert_eq!((out.len(), out[1].items), (2, 2));
        let state = forward.state(false);
        stage(parse, "").restore(&state).expect("it remembers nothing");
        assert_eq!(forward.state(false), state);
    }
}
