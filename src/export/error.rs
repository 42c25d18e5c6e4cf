//! Why an export cannot be given, or was not given whole.

use std::time::Duration;

use super::runs::SpillError;
use crate::broker::BrokerError;

/// Why an export cannot be given, or was not given whole.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// There is no decisions log.
    #[error("decisions are not kept")]
    NotKept,
    /// Others are under way.
    #[error("{under_way} exports are under way, and no more are done at once")]
    Busy {
        /// How many.
        under_way: usize,
    },
    /// The broker, which has the log, is away.
    #[error("the decisions log could not be read: the broker is not connected")]
    Away,
    /// The log could not be read.
    #[error("the decisions log could not be read")]
    Broker(#[from] BrokerError),
    /// What does not fit into memory could not be kept on disk.
    #[error(transparent)]
    Spill(#[from] SpillError),
    /// Whoever asked for it takes nothing any more.
    #[error("nothing of the export was taken for {} s", .0.as_secs())]
    Stuck(Duration),
    /// Whoever asked for it is gone.
    #[error("nobody wants the export any more")]
    Gone,
    /// The worker stops.
    #[error("the worker is stopping")]
    Stopping,
    /// The task that does it is gone.
    #[error("the export was cut short")]
    Died,
}

impl ExportError {
    /// What can be done about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotKept => "set `[broker] keep_decisions`: what is decided from then on can be exported",
            Self::Busy { .. } => "ask again in a minute, or ask another worker",
            Self::Away => {
                "check that the broker runs: `interven-alerts doctor` looks at it; the worker reconnects by itself"
            }
            Self::Broker(error) => error.hint,
            Self::Spill(_) => "free space on the disk of `data_dir`, or ask for less at once with `since` and `until`",
            Self::Stuck(_) => "take what is sent, or write it to a file first",
            Self::Gone => "ask again",
            Self::Stopping => "ask another worker, or again when it has started",
            Self::Died => "look at the worker's log",
        }
    }
}
