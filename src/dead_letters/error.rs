//! What can go wrong with the store: for callers ([`DeadLetterError`]) and, inside, for the owner thread ([`Fault`]).

use std::{io, path::PathBuf};

use super::LetterId;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// Another process has the store open.
    #[error("the dead-letter store at `{}` is in use", .path.display())]
    InUse {
        /// The store's directory.
        path: PathBuf,
    },
    /// The directory could not be opened at all.
    #[error("could not open the dead-letter store at `{}`", .path.display())]
    Open {
        /// The store's directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no room on the disk. Nothing was kept: the caller must keep the letter elsewhere.
    #[error("the disk of the dead-letter store is full")]
    Full,
    /// The store cannot be used right now; it keeps trying to come back by itself.
    #[error("the dead-letter store is not available: {why}")]
    Down {
        /// What it said last.
        why: String,
    },
    /// There is no such letter.
    #[error("dead letter {id} is not in the store")]
    NotFound {
        /// The letter asked for.
        id: LetterId,
    },
    /// The letter is there, but its bytes are damaged on disk and no second copy is whole.
    #[error("dead letter {id} is damaged on disk")]
    Damaged {
        /// The letter asked for.
        id: LetterId,
    },
    /// The letter is larger than anything the worker makes.
    #[error("the dead letter has {bytes} bytes, more than the store takes")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Reading or writing an export failed.
    #[error("could not {what}")]
    Transfer {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The store was closed.
    #[error("the dead-letter store is closed")]
    Closed,
}

impl DeadLetterError {
    /// What the operator can do about it; printed under the error as `hint: ...`.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::InUse { .. } => "a worker may be using this directory: stop it first, or set another `data_dir`",
            Self::Open { .. } => "check that `data_dir` exists and that this user may write to it",
            Self::Full => "free space on the disk of `data_dir`; the store comes back by itself",
            Self::Down { .. } => {
                "look at the worker's log and at the disk of `data_dir`; the store comes back by itself"
            }
            Self::NotFound { .. } => "it may have been replayed or purged: run `interven-alerts dead-letters list`",
            Self::Damaged { .. } => {
                "run `interven-alerts dead-letters verify`, and restore the letter with `import` from an export"
            }
            Self::TooLarge { .. } => "decisions are at most 256 KiB",
            Self::Transfer { .. } => "check the file or the other end of the pipe",
            Self::Closed => "the worker is stopping: try again when it runs",
        }
    }
}

/// What went wrong underneath, and so what the owner does next.
#[derive(Debug)]
pub(super) enum Fault {
    /// The operating system refused a read or write: drop everything, wait, open again.
    Disk {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// sled found its files damaged, or panicked over them: set the index aside and rebuild it from the journal.
    Index {
        /// What sled said.
        why: String,
    },
}

impl Fault {
    /// Gives an I/O error its place.
    pub(super) fn disk(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Disk { what, source }
    }

    /// Whether the disk, a quota or a file-size limit is exhausted.
    pub(super) fn is_full(&self) -> bool {
        match self {
            Self::Disk { source, .. } => is_full(source),
            Self::Index { .. } => false,
        }
    }

    /// The same for the caller; one fault may have to be told to many.
    pub(super) fn told(&self) -> DeadLetterError {
        match self {
            fault if fault.is_full() => DeadLetterError::Full,
            fault => DeadLetterError::Down { why: fault.to_string() },
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Disk { what, source } => write!(f, "could not {what}: {source}"),
            Self::Index { why } => write!(f, "the index is damaged: {why}"),
        }
    }
}

/// Whether an I/O error means that there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}
