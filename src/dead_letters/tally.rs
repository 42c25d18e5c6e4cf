//! What is known without reading: how many letters of which kind, and how full each journal segment still is.
//!
//! Pure: [`Tally::apply`] is what a record means for the counts, and it is the same when the record is written and when it
//! is read again after a crash.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    journal::Place,
    record::{Gone, Head, Record},
};
use crate::model::{ChannelId, DeathReason};

/// The labels of the gauge `dead_letters{reason,channel}`.
pub(super) type Kind = (DeathReason, Option<ChannelId>);

/// The counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tally {
    #[serde(with = "kinds")]
    pub(super) counts: BTreeMap<Kind, u64>,
    pub(super) segments: BTreeMap<u64, Segment>,
}

/// How full a segment is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Segment {
    /// Its length.
    pub(super) bytes: u64,
    /// Letters whose last record it holds.
    pub(super) live: u64,
    /// The bytes of those.
    pub(super) live_bytes: u64,
    /// The bytes of its stones, needed or not.
    pub(super) stone_bytes: u64,
}

impl Tally {
    /// Counts a record that was appended at `place`.
    pub(super) fn apply(&mut self, place: Place, record: &Record) {
        match record {
            Record::Put(put) => {
                if let Some(gone) = &put.head.replaced {
                    self.end(gone);
                }
                self.begin(&put.head, place);
            }
            Record::Removed { stones, .. } => {
                self.segments.entry(place.segment).or_default().stone_bytes += u64::from(place.bytes);
                for stone in stones {
                    self.end(&stone.gone);
                }
            }
            Record::Carried { .. } => {
                self.segments.entry(place.segment).or_default().stone_bytes += u64::from(place.bytes);
            }
        }
        let segment = self.segments.entry(place.segment).or_default();
        segment.bytes = segment.bytes.max(place.offset + u64::from(place.bytes));
    }

    /// Counts a live letter.
    pub(super) fn begin(&mut self, head: &Head, place: Place) {
        *self.counts.entry((head.reason, head.channel.clone())).or_default() += 1;
        let segment = self.segments.entry(place.segment).or_default();
        segment.live += 1;
        segment.live_bytes += u64::from(place.bytes);
    }

    fn end(&mut self, gone: &Gone) {
        let kind = (gone.reason, gone.channel.clone());
        if let Some(count) = self.counts.get_mut(&kind) {
            *count = count.saturating_sub(1);
            // A kind without letters stays at zero while the worker runs: a gauge that vanishes reads as unknown.
        }
        if let Some(segment) = self.segments.get_mut(&gone.segment) {
            segment.live = segment.live.saturating_sub(1);
            segment.live_bytes = segment.live_bytes.saturating_sub(u64::from(gone.bytes));
        }
    }

    pub(super) fn letters(&self) -> u64 {
        self.counts.values().sum()
    }

    /// The oldest segment that is mostly resolved and worth collecting; never `tip`, which is still written to.
    ///
    /// Stones count as live where they may still be needed, or a segment of needed stones would be copied for ever. Those of
    /// the oldest segment never are: what they ended was in it or in one that is gone.
    pub(super) fn worth_collecting(&self, tip: u64) -> Option<u64> {
        let oldest = self.segments.first_key_value().map(|(number, _)| *number);
        self.segments.iter().filter(|(number, _)| **number != tip).find_map(|(number, segment)| {
            let stones = if Some(*number) == oldest { 0 } else { segment.stone_bytes };
            ((segment.live_bytes + stones) * 3 < segment.bytes || segment.live + stones == 0).then_some(*number)
        })
    }
}

/// A map with a compound key as a list of triples, for JSON.
mod kinds {
    use std::collections::BTreeMap;

    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::Kind;
    use crate::model::{ChannelId, DeathReason};

    pub(super) fn serialize<S: Serializer>(counts: &BTreeMap<Kind, u64>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(counts.iter().map(|((reason, channel), count)| (reason, channel, count)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Kind, u64>, D::Error> {
        let triples = Vec::<(DeathReason, Option<ChannelId>, u64)>::deserialize(deserializer)?;
        Ok(triples.into_iter().map(|(reason, channel, count)| ((reason, channel), count)).collect())
    }
}
