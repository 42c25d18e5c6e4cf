//! What the log amounts to: which channels operators have paused, and which lanes there are. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use uuid::Uuid;

use super::record::{Deed, Entry};
use crate::model::{ChannelId, Timestamp};

/// How many records are remembered by their ids: whoever waits for one waits for seconds, and people write them.
const RECENT_MAX: usize = 256;

/// Who paused a channel, when and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Pause {
    /// The name of the operator's token.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Why, in the operator's words.
    pub why: Option<String>,
}

/// What a lane must be told because the log has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An operator paused the channel.
    Paused(ChannelId),
    /// An operator resumed it.
    Resumed(ChannelId),
}

/// What the log amounts to. Bounded by the number of channels that there ever were.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    known: bool,
    paused: BTreeMap<ChannelId, Pause>,
    lanes: BTreeSet<ChannelId>,
    /// The last pause or resume of each channel.
    last: BTreeMap<ChannelId, Uuid>,
    recent: VecDeque<Uuid>,
}

impl Standing {
    /// Takes the next record of the log in.
    pub fn apply(&mut self, entry: Entry) -> Option<Change> {
        let Entry { id, at, by, channel, deed, why } = entry;
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(id);
        match deed {
            Deed::Pause => {
                self.last.insert(channel.clone(), id);
                // Who pauses what is paused and gives no reason takes nobody's reason away.
                if why.is_some() || !self.paused.contains_key(&channel) {
                    self.paused.insert(channel.clone(), Pause { by, at, why });
                }
                Some(Change::Paused(channel))
            }
            Deed::Resume => {
                self.last.insert(channel.clone(), id);
                self.paused.remove(&channel);
                Some(Change::Resumed(channel))
            }
            Deed::Lane => {
                self.lanes.insert(channel);
                None
            }
            Deed::LaneRemoved => {
                self.lanes.remove(&channel);
                None
            }
        }
    }

    /// Takes over what the log amounts to when it is read again from its beginning, and says what has changed since.
    ///
    /// A pause of which the log knows nothing any more (its broker was made anew) still holds: only an operator ends a pause.
    pub fn catch_up(&mut self, whole: Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (channel, id) in whole.last {
            if self.last.get(&channel) == Some(&id) {
                continue;
            }
            if let Some(pause) = whole.paused.get(&channel) {
                self.paused.insert(channel.clone(), pause.clone());
                changes.push(Change::Paused(channel.clone()));
            } else if self.paused.remove(&channel).is_some() || self.last.contains_key(&channel) {
                changes.push(Change::Resumed(channel.clone()));
            }
            self.last.insert(channel, id);
        }
        self.lanes = whole.lanes;
        self.recent.extend(whole.recent);
        let surplus = self.recent.len().saturating_sub(RECENT_MAX);
        self.recent.drain(..surplus);
        self.known = true;
        changes
    }

    /// Whether the log has been read to its end at least once.
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// The pause of this channel, if an operator paused it.
    pub fn pause(&self, channel: &ChannelId) -> Option<&Pause> {
        self.paused.get(channel)
    }

    /// The lanes that some worker had and that were not removed since.
    pub fn lanes(&self) -> &BTreeSet<ChannelId> {
        &self.lanes
    }

    /// Whether the record with this id was taken in lately.
    pub fn has(&self, id: Uuid) -> bool {
        self.recent.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(channel: &str, deed: Deed) -> Entry {
        Entry::new(channel.parse().unwrap(), deed, "someone", None, Timestamp::UNIX_EPOCH)
    }

    fn whole(entries: &[Entry]) -> Standing {
        let mut standing = Standing::default();
        for entry in entries {
            standing.apply(entry.clone());
        }
        standing
    }

    #[test]
    fn the_last_record_of_a_channel_counts() {
        let soc: ChannelId = "soc".parse().unwrap();
        let mut standing = whole(&[entry("soc", Deed::Pause), entry("soc", Deed::Resume), entry("soc", Deed::Lane)]);
        assert!(standing.pause(&soc).is_none() && standing.lanes().contains(&soc));
        let last = entry("soc", Deed::Pause);
        assert_eq!(standing.apply(last.clone()), Some(Change::Paused(soc.clone())));
        assert!(standing.pause(&soc).is_some() && standing.has(last.id));
        standing.apply(entry("soc", Deed::LaneRemoved));
        assert!(standing.lanes().is_empty() && standing.pause(&soc).is_some(), "a lane's end ends no pause");
    }

    #[test]
    fn a_second_pause_without_a_reason_leaves_the_first_one_its_reason() {
        let soc: ChannelId = "soc".parse().unwrap();
        let pause = |by: &str, why: Option<&str>| {
            Entry::new(soc.clone(), Deed::Pause, by, why.map(str::to_owned), Timestamp::UNIX_EPOCH)
        };
        let told = |entries: &[Entry]| {
            let standing = whole(entries);
            let pause = standing.pause(&soc).unwrap();
            (pause.by.clone(), pause.why.clone())
        };
        let first = pause("ann", Some("maintenance"));
        let said = |by: &str, why: &str| (by.to_owned(), Some(why.to_owned()));
        assert_eq!(told(&[first.clone(), pause("bob", None)]), said("ann", "maintenance"));
        assert_eq!(told(&[first.clone(), pause("bob", Some("incident"))]), said("bob", "incident"));
        assert_eq!(told(&[first, entry("soc", Deed::Resume), pause("bob", None)]), (String::from("bob"), None));
    }

    #[test]
    fn reading_the_log_again_tells_only_what_is_new() {
        let mut entries = vec![entry("a", Deed::Pause), entry("b", Deed::Pause), entry("b", Deed::Resume)];
        let mut standing = Standing::default();
        let changes = standing.catch_up(whole(&entries));
        assert_eq!(changes, [Change::Paused("a".parse().unwrap())], "a resume of what was never paused is no news");
        assert_eq!(standing.catch_up(whole(&entries)), []);
        entries.extend([entry("a", Deed::Resume), entry("c", Deed::Pause), entry("b", Deed::Resume)]);
        let changes = standing.catch_up(whole(&entries));
        let id = |id: &str| id.parse().unwrap();
        assert_eq!(changes, [Change::Resumed(id("a")), Change::Resumed(id("b")), Change::Paused(id("c"))]);
    }

    #[test]
    fn a_log_that_was_lost_ends_no_pause() {
        let mut standing = Standing::default();
        standing.catch_up(whole(&[entry("a", Deed::Pause), entry("a", Deed::Lane)]));
        assert_eq!(standing.catch_up(whole(&[])), []);
        assert!(standing.pause(&"a".parse().unwrap()).is_some());
        assert!(standing.lanes().is_empty(), "the lane is told again");
    }
}
