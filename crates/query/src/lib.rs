//! **What:** what a question means: the whole story of a tracking ID, and searches for traces.
//!
//! **In:** a store's `Reader`, optionally databases whose rows carry tracking ids, and questions.
//!
//! **Out:** a `Story` (spans in tree order, logs, faults, AI calls, rows, and how complete all that is), trace summaries,
//! names of services and operations, edges between services.
//!
//! **Invariants:** every question is bounded in rows, memory and time, and says what a bound left out; nothing here
//! writes to a store or a database; questions run on threads that no socket waits for.

mod ai;
pub mod assemble;
mod causes;
mod faults;
#[cfg(test)]
mod faults_test;
pub mod fields;
mod gate;
pub mod instant;
pub mod json;
pub mod logs;
mod querier;
pub mod rows;
pub mod search;
mod skew;
pub mod story;
#[cfg(test)]
mod testing;
mod tree;

pub use assemble::{Material, Reach, Wanted};
pub use gate::{Deadline, Gate, QueryError, TIME_LIMIT};
pub use querier::{Dependencies, Edge, Listed, MAX_TRACES, Querier, Question};
pub use story::Story;
