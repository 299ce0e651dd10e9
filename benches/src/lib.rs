//! The load generator and the end-to-end benchmarks behind the README's numbers.
//!
//! Cost is counted in CPU-seconds of the process under test, so that neither this generator nor a noisy neighbour
//! blurs it.

pub mod client;
pub mod logs;
pub mod measure;
pub mod numbered;
pub mod points;
pub mod process;
pub mod report;
pub mod scenario;
pub mod sink;
pub mod spans;
pub mod usage;
