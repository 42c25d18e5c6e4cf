//! What the log amounts to: which channels operators have made and paused, and which lanes there are. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use uuid::Uuid;

use super::record::{Content, Deed, Entry};
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
    /// An operator made the channel, made it anew, or removed it: see [`Standing::channel`].
    Channel(ChannelId),
    /// The log knows nothing any more of this channel, which still stands: its broker was made anew.
    Forgotten(ChannelId),
}

/// A channel that an operator made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The record that made it so, which is its version.
    pub version: Uuid,
    /// Who made it so.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// What it is.
    pub content: Content,
}

impl Made {
    /// The record again, for a log that has lost it. It counts only where the channel was not made again meanwhile.
    pub fn again(&self, channel: ChannelId) -> Entry {
        let Self { version, by, at, content } = self.clone();
        let entry = Entry::put(channel, content, &by, at).only_after(Some(Uuid::nil()));
        Entry { id: version, ..entry }
    }
}

/// What the log amounts to. Bounded by the number of channels that there ever were.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    known: bool,
    paused: BTreeMap<ChannelId, Pause>,
    lanes: BTreeSet<ChannelId>,
    channels: BTreeMap<ChannelId, Made>,
    /// The last put or delete of each channel.
    versions: BTreeMap<ChannelId, Uuid>,
    /// The last pause or resume of each channel.
    last: BTreeMap<ChannelId, Uuid>,
    /// The records taken in lately, and whether each did anything: see [`Self::was_void`].
    recent: VecDeque<(Uuid, bool)>,
}

impl Standing {
    /// Takes the next record of the log in.
    pub fn apply(&mut self, entry: Entry) -> Option<Change> {
        let Entry { id, at, by, channel, deed, why, content, after } = entry;
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        let counts = match deed {
            Deed::Put | Deed::Delete => after.is_none_or(|after| after == self.version(&channel)),
            Deed::Pause | Deed::Resume | Deed::Lane | Deed::LaneRemoved => true,
        };
        self.recent.push_back((id, counts));
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
            Deed::Put | Deed::Delete => {
                if !counts {
                    return None;
                }
                self.versions.insert(channel.clone(), id);
                match content {
                    Some(content) if deed == Deed::Put => {
                        self.channels.insert(channel.clone(), Made { version: id, by, at, content });
                    }
                    Some(_) | None => drop(self.channels.remove(&channel)),
                }
                Some(Change::Channel(channel))
            }
        }
    }

    /// Takes over what the log amounts to when it is read again from its beginning, and says what has changed since.
    ///
    /// A pause or a channel of which the log knows nothing any more (its broker was made anew) still stands: only an operator ends
    /// those.
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
        for channel in self.channels.keys() {
            if !whole.versions.contains_key(channel) {
                changes.push(Change::Forgotten(channel.clone()));
            }
        }
        let mut channels = whole.channels;
        for (channel, version) in whole.versions {
            if self.versions.get(&channel) == Some(&version) {
                continue;
            }
            match channels.remove(&channel) {
                Some(made) => drop(self.channels.insert(channel.clone(), made)),
                None => drop(self.channels.remove(&channel)),
            }
            self.versions.insert(channel.clone(), version);
            changes.push(Change::Channel(channel));
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

    /// The channel that operators made with this id.
    pub fn channel(&self, channel: &ChannelId) -> Option<&Made> {
        self.channels.get(channel)
    }

    /// All channels that operators made.
    pub fn channels(&self) -> &BTreeMap<ChannelId, Made> {
        &self.channels
    }

    /// The lanes that some worker had and that were not removed since.
    pub fn lanes(&self) -> &BTreeSet<ChannelId> {
        &self.lanes
    }

    /// Whether the record with this id was taken in lately.
    pub fn has(&self, id: Uuid) -> bool {
        self.recent.iter().any(|(recent, _)| *recent == id)
    }

    /// Whether that record was taken in lately and did nothing, because it was written upon an older state.
    pub fn was_void(&self, id: Uuid) -> bool {
        self.recent.contains(&(id, false))
    }

    /// The version of the channel; nil where it is not there.
    fn version(&self, channel: &ChannelId) -> Uuid {
        self.channels.get(channel).map_or(Uuid::nil(), |made| made.version)
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

    fn put(channel: &str, sealed: &str) -> Entry {
        let content = Content { sealed: sealed.into(), open: std::sync::Arc::default() };
        Entry::put(channel.parse().unwrap(), content, "someone", Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_last_put_of_a_channel_counts_and_one_upon_an_older_state_does_nothing() {
        let soc: ChannelId = "soc".parse().unwrap();
        let (first, second) = (put("soc", "one"), put("soc", "two"));
        let mut standing = whole(&[first.clone(), second.clone()]);
        let sealed = |standing: &Standing| standing.channel(&soc).map(|made| made.content.sealed.to_string());
        assert_eq!(sealed(&standing).as_deref(), Some("two"));
        let late = put("soc", "three").only_after(Some(first.id));
        assert_eq!(standing.apply(late.clone()), None);
        assert_eq!(standing.apply(put("soc", "four").only_after(Some(Uuid::nil()))), None, "it is there");
        assert_eq!(standing.apply(entry("soc", Deed::Delete).only_after(Some(first.id))), None);
        assert!(standing.has(late.id) && standing.was_void(late.id), "whoever wrote it hears what became of it");
        assert_eq!(sealed(&standing).as_deref(), Some("two"));
        let in_time = put("soc", "five").only_after(Some(second.id));
        assert_eq!(standing.apply(in_time), Some(Change::Channel(soc.clone())));
        assert_eq!(sealed(&standing).as_deref(), Some("five"));
        assert_eq!(standing.apply(entry("soc", Deed::Delete)), Some(Change::Channel(soc.clone())));
        assert_eq!(sealed(&standing), None);
        assert_eq!(standing.apply(put("soc", "six").only_after(Some(Uuid::nil()))), Some(Change::Channel(soc)));
    }

    #[test]
    fn a_log_that_was_lost_removes_no_channel_and_a_delete_that_was_missed_does() {
        let (a, b) = (put("a", "1"), put("b", "2"));
        let id = |id: &str| id.parse::<ChannelId>().unwrap();
        let mut standing = Standing::default();
        let changes = standing.catch_up(whole(&[a.clone(), b.clone()]));
        assert_eq!(changes, [Change::Channel(id("a")), Change::Channel(id("b"))]);
        assert_eq!(standing.catch_up(whole(&[a.clone(), b.clone()])), []);
        let changes = standing.catch_up(whole(&[a, entry("a", Deed::Delete)]));
        assert_eq!(changes, [Change::Forgotten(id("b")), Change::Channel(id("a"))]);
        assert!(standing.channel(&id("a")).is_none());
        // The record that is written again is the same one, and does not undo what was put meanwhile.
        let again = standing.channel(&id("b")).unwrap().again(id("b"));
        assert_eq!((again.id, &again.content), (b.id, &b.content));
        assert_eq!(standing.catch_up(whole(std::slice::from_ref(&again))), []);
        let newer = put("b", "3");
        assert_eq!(standing.catch_up(whole(&[newer.clone(), again])), [Change::Channel(id("b"))]);
        assert_eq!(standing.channel(&id("b")).unwrap().version, newer.id);
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
