//! What the store tells: plain values for logs, metrics, `--json` and the API.

use serde::{Deserialize, Serialize};

use super::{DeadLetter, LetterId};
use crate::model::{ChannelId, DeathReason, Timestamp};

/// Which burial of a letter is meant. A subject that dies again keeps its letter's id, but this number grows: a removal that
/// names it cannot take away the newer death.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Burial(pub(super) u64);

/// A letter as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kept {
    /// The letter.
    #[serde(flatten)]
    pub letter: DeadLetter,
    /// Which burial this is.
    #[serde(skip)]
    pub burial: Burial,
}

/// Some letters, newest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Page {
    /// The letters.
    pub letters: Vec<DeadLetter>,
    /// Letters that match but whose bytes are damaged on disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<LetterId>,
    /// Where the next page starts; none at the end.
    pub next: Option<LetterId>,
}

/// Letters that died of the same thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Why.
    pub reason: DeathReason,
    /// Of which channel.
    pub channel: Option<ChannelId>,
    /// The detail without its numbers and ids, at most 120 characters.
    pub detail: String,
    /// How many.
    pub count: u64,
    /// When the first of them died.
    pub oldest: Timestamp,
    /// When the last of them died.
    pub newest: Timestamp,
}

/// Causes, and which letters are among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Causes {
    /// Most letters first.
    pub causes: Vec<Cause>,
    /// How many letters there are, those of causes too that did not fit.
    pub count: u64,
    /// Those that were buried up to this, for [`super::LetterFilter::up_to`], and no later one.
    pub up_to: u64,
}

/// What opening the store found and did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OpenReport {
    /// Letters in the store.
    pub letters: u64,
    /// Journal records after the last checkpoint that were read again.
    pub replayed: u64,
    /// Bytes of an unfinished write that were cut from the journal's end: nobody was told that they are safe.
    pub torn_bytes: u64,
    /// Letters that the index had lost and the journal gave back.
    pub recovered: u64,
    /// Letters that the journal had lost and the index gave back.
    pub rejournaled: u64,
    /// Letters whose bytes are damaged in both.
    pub damaged: u64,
    /// Damage, in words, with what was set aside.
    pub incidents: Vec<String>,
    /// Why the store could not be opened yet; it keeps trying.
    pub down: Option<String>,
}

/// What a deep check of every byte found. What could be mended was mended; nothing damaged was deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Letters read.
    pub letters: u64,
    /// Letters whose copy in the index was damaged and was restored from the journal.
    pub mended: u64,
    /// Letters that no whole copy is left of.
    pub damaged: Vec<LetterId>,
    /// Journal segments read.
    pub segments: u64,
    /// Journal segments that were damaged, and set aside after their letters were written again.
    pub segments_mended: u64,
    /// Letters written to the journal again.
    pub rejournaled: u64,
    /// Files in `blobs/` that no letter needs; harmless.
    pub stray_blobs: u64,
    /// Damage in words.
    pub incidents: Vec<String>,
}

impl VerifyReport {
    /// Whether everything was whole.
    pub fn is_clean(&self) -> bool {
        self.mended == 0 && self.damaged.is_empty() && self.segments_mended == 0 && self.incidents.is_empty()
    }
}

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ImportReport {
    /// Letters added.
    pub imported: u64,
    /// Letters that the store already had.
    pub already_there: u64,
    /// Lines that are no letters: their number and what is wrong; the first 100.
    pub faulty: Vec<(u64, String)>,
    /// How many lines are no letters.
    pub faulty_total: u64,
}
