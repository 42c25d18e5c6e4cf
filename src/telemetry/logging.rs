//! How log lines are written: one filter, one format, on standard error.
//!
//! lapin logs returned messages with their bodies at WARN, so it is held at ERROR whatever the operator asks for: a decision's
//! text does not belong into a log, and a log line must not be of a decision's making.

use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people at a terminal.
    Human,
    /// One JSON object a line, for collectors.
    Json,
}

/// Crates whose own chatter is never wanted, whatever the level.
const QUIET: [&str; 3] = ["lapin=error", "sled=error", "hyper=warn"];

/// Starts logging to standard error. `level` is a level (`info`) or a filter as `tracing` reads it
/// (`info,interven_alerts::lane=debug`); what cannot be read is an error that says so.
pub fn start(format: LogFormat, level: &str, color: bool) -> Result<(), String> {
    let mut filter =
        EnvFilter::try_new(level).map_err(|error| format!("`{level}` is not a log level or filter: {error}"))?;
    for quiet in QUIET {
        filter = filter.add_directive(quiet.parse().map_err(|error| format!("`{quiet}`: {error}"))?);
    }
    let registry = tracing_subscriber::registry().with(filter);
    let result = match format {
        LogFormat::Human => registry
            .with(tracing_subscriber::fmt::layer().with_ansi(color).with_target(false).with_writer(std::io::stderr))
            .try_init(),
        LogFormat::Json => registry
            .with(tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr))
            .try_init(),
    };
    result.map_err(|error| format!("logging could not be started: {error}"))
}
