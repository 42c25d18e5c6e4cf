//! Log lines on standard error, for people or for machines.
//!
//! lapin logs returned messages with their bodies, and calls what we mend an ERROR, so it is silent whatever the operator asks for: a
//! decision's text does not belong into a log, a log line must not be of a decision's making, and what went wrong is said by us.

use tracing_subscriber::EnvFilter;

use super::Global;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line, for collectors.
    Json,
}

/// The levels that there are.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Checks a level or a list of directives, so that a typing error is a usage error and not silence: a word alone would be taken for
/// the name of a module, of which everything is logged, and nothing of all others.
pub(super) fn parse_level(text: &str) -> Result<String, String> {
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    let strange = text
        .split(',')
        .map(str::trim)
        .find(|part| !part.is_empty() && !part.contains(['=', '[']) && !part.contains("::") && !is_level(part));
    if let Some(strange) = strange {
        return Err(format!("`{strange}` is no level: write one of {}, or MODULE=LEVEL", LEVELS.join(", ")));
    }
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Starts logging. A second call in one process (tests) changes nothing.
pub(super) fn init(global: &Global, unless_said: &str, color: bool) {
    let asked = global.log_level.as_deref().unwrap_or(unless_said);
    let filter = EnvFilter::builder().parse_lossy(format!("{asked},lapin=off,sled=error"));
    // A line that cannot be written is lost; to say so on the same standard error would be a panic.
    let lines =
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).log_internal_errors(false);
    let started = match global.log_format {
        LogFormat::Human => lines.with_ansi(color).with_target(false).try_init(),
        LogFormat::Json => lines.with_ansi(false).json().flatten_event(true).try_init(),
    };
    drop(started);
}
