//! Telling what happens: the catalogue of metrics. Log lines are started by the command line.

pub mod metrics;
mod untaken;

pub use metrics::{ChannelMetrics, InMemory, Metrics, Stake};
pub use untaken::Untaken;
