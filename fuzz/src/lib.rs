//! What the targets share: the generators and the slow models of `model`'s property tests, so that fuzzing and
//! property testing ask the same questions.

#![allow(dead_code, unused_imports)]

#[path = "../../crates/model/tests/otlp/arbitrary.rs"]
pub mod arbitrary;
#[path = "../../crates/model/tests/otlp/canonical.rs"]
pub mod canonical;
#[path = "../../crates/model/tests/otlp/edits.rs"]
pub mod edits;
#[path = "../../crates/model/tests/otlp/normal.rs"]
pub mod normal;
#[path = "../../crates/model/tests/otlp/scramble.rs"]
pub mod scramble;
#[path = "../../crates/model/tests/otlp/views.rs"]
pub mod views;

use model::Signal;

/// The first byte of an input chooses the signal.
pub fn signal(data: &[u8]) -> Option<(Signal, &[u8])> {
    let (first, rest) = data.split_first()?;
    Some((Signal::ALL[usize::from(*first) % Signal::ALL.len()], rest))
}

/// Cuts an input into what messages are made of and how they are scrambled.
pub fn halves(data: &[u8]) -> (&[u8], &[u8]) {
    data.split_at(data.len() / 2)
}
