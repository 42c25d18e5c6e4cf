//! Telling what happens: the catalogue of metrics, and how log lines are written.

pub mod logging;
pub mod metrics;

pub use metrics::{ChannelMetrics, Metrics};
