//! Reading: what became of a few decisions, gathered from the log.
//!
//! A decision is told within moments of its time, or within what its channels' lanes wait for. So the log is read from about the
//! time of the decisions on, until all of them have come to an end, or until the log ends. Decisions of different times are read of
//! group by group, the newest first, for so long ([`READ_MAX`]): one that is old, or says that it is, costs the newer ones nothing.
//!
//! Where the log ends at present is found out by appending a mark, as the followers of the small logs do: that takes milliseconds, and
//! waiting for silence would take a second at every look at a page. What was once read up to there is not read again.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tracing::warn;
use uuid::Uuid;

use super::{
    Ended, Seldom,
    record::{Entry, decode},
};
use crate::{
    broker::{
        Broker, BrokerError, Destination, End, Log, Message, Start,
        following::{is_mark, mark},
    },
    model::{ChannelId, Clock, Ending, Timestamp},
};

/// How long is read, all groups together.
const READ_MAX: Duration = Duration::from_secs(5);

/// How long appending the mark may take, and how long a log that holds it may give nothing.
const MARK_MAX: Duration = Duration::from_secs(2);
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// The longest record that can be a mark, in bytes.
const MARK_BYTES_MAX: usize = 200;

/// Decisions whose times lie no further apart are read of at once.
const GROUP_SPAN: Duration = Duration::from_mins(10);

/// How far before the decisions' times reading begins: clocks differ a little. Where not all were found so, once more, by a lot.
const AHEAD: [Duration; 2] = [Duration::from_secs(20), Duration::from_mins(15)];

/// What was routed so long after its time said a wrong time: it came then, and not before. A publisher that repeats itself does so
/// sooner.
const LATE: Duration = Duration::from_hours(24);

/// Readings at once.
const READINGS_MAX: usize = 4;

/// What became of decisions, as far as the log tells.
#[derive(Clone, Debug, Default)]
pub struct Accounts(HashMap<Box<str>, Account>);

impl Accounts {
    /// Those of these decisions.
    #[cfg(test)]
    pub(crate) fn by_hand(accounts: impl IntoIterator<Item = (&'static str, Account)>) -> Self {
        Self(accounts.into_iter().map(|(id, account)| (Box::from(id), account)).collect())
    }

    /// What became of this decision; `None` where nobody asked.
    pub fn of(&self, decision: &str) -> Option<&Account> {
        self.0.get(decision)
    }
}

/// What became of one decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// When it was routed first; `None` where that is not recorded, and it may have gone to channels that are not either.
    pub routed_at: Option<Timestamp>,
    channels: BTreeMap<ChannelId, Fate>,
    /// Whether the log was read to where nothing more of it can come.
    pub complete: bool,
}

/// What is known of one delivery. A decision may come twice, and a dead letter may be sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Fate {
    /// The first time that the endpoint took it.
    told: Option<Ended>,
    /// The last time that it died.
    dead: Option<Ended>,
    /// When it was last sent again.
    again: Option<Timestamp>,
}

/// What became of one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    /// It has ended.
    Ended(Ended),
    /// No ending is recorded; since when it waits, where that is known.
    Waiting(Option<Timestamp>),
}

impl Account {
    /// One that was routed, and of which nothing else is known.
    #[cfg(test)]
    pub(crate) fn routed(at: Timestamp, channels: impl Iterator<Item = ChannelId>) -> Self {
        let channels = channels.map(|channel| (channel, Fate::default())).collect();
        Self { routed_at: Some(at), channels, complete: true }
    }

    /// Whether nothing of it was found.
    pub fn is_empty(&self) -> bool {
        self.routed_at.is_none() && self.channels.is_empty()
    }

    /// The channels that it was routed to, or has ended in, by their ids.
    pub fn channels(&self) -> impl Iterator<Item = (&ChannelId, Became)> {
        self.channels.iter().map(|(channel, fate)| (channel, fate.became(self.routed_at)))
    }

    /// Whether it came to an end that nothing can change.
    fn is_settled(&self) -> bool {
        self.routed_at.is_some() && self.channels.values().all(|fate| fate.told.is_some())
    }

    /// Whether it was routed so long after this time that it cannot have come before.
    fn is_later_than(&self, time: Timestamp) -> bool {
        self.routed_at.is_some_and(|routed_at| routed_at.since(time) > LATE)
    }

    /// Takes an entry of it, in whatever order they come.
    fn take(&mut self, entry: &Entry<'_>) {
        match entry {
            Entry::Routed { at, channels, .. } => {
                self.routed_at = Some(self.routed_at.map_or(*at, |first| first.min(*at)));
                for channel in channels {
                    self.channels.entry(channel.clone()).or_default();
                }
            }
            Entry::Ended { channel, ended, .. } => {
                let (fate, ended) = (self.channels.entry(channel.clone()).or_default(), *ended);
                match ended.ending {
                    Ending::Delivered | Ending::Folded if fate.told.is_none_or(|first| ended.at < first.at) => {
                        fate.told = Some(ended);
                    }
                    Ending::Dead if fate.dead.is_none_or(|last| ended.at >= last.at) => fate.dead = Some(ended),
                    Ending::Delivered | Ending::Folded | Ending::Dead => {}
                }
            }
            Entry::Again { channel, at, .. } => {
                let again = &mut self.channels.entry(channel.clone()).or_default().again;
                *again = Some(again.map_or(*at, |last| last.max(*at)));
            }
        }
    }
}

impl Fate {
    fn became(&self, routed_at: Option<Timestamp>) -> Became {
        match (self.told, self.dead, self.again) {
            (Some(told), ..) => Became::Ended(told),
            (None, Some(dead), again) if again.is_none_or(|again| again < dead.at) => Became::Ended(dead),
            (None, _, again) => Became::Waiting(again.or(routed_at)),
        }
    }
}

/// Reads the log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    broker: Arc<dyn Broker>,
    clock: Clock,
    kept: bool,
    places: Arc<Semaphore>,
    tells: Arc<Mutex<Seldom>>,
}

impl Reader {
    /// A reader of the log on this broker; `kept` says whether there is one.
    pub fn new(broker: Arc<dyn Broker>, clock: Clock, kept: bool) -> Self {
        Self { broker, clock, kept, places: Arc::new(Semaphore::new(READINGS_MAX)), tells: Arc::default() }
    }

    /// What became of these decisions, which have these times. Where the log is not there or cannot be read, no account is complete.
    pub async fn accounts(&self, wanted: &[(&str, Timestamp)]) -> Accounts {
        let nothing = Account { complete: !self.kept, ..Account::default() };
        let accounts = wanted.iter().map(|(id, _)| (Box::from(*id), nothing.clone())).collect();
        if wanted.is_empty() || !self.kept || self.broker.lacks(Log::Deliveries) {
            return Accounts(accounts);
        }
        let deadline = Instant::now() + READ_MAX;
        // Nobody closes it; and out of time, nothing is known.
        let Ok(Ok(_place)) = timeout_at(deadline, self.places.acquire()).await else { return Accounts(accounts) };
        let (broker, now) = (&*self.broker, self.clock.now());
        let mark = append_mark(broker, deadline).await;
        let mut reading = Reading { broker, now, deadline, mark, known: None, accounts };
        for group in groups(wanted) {
            match reading.read_of(&group).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.tell(&error);
                    break;
                }
            }
        }
        Accounts(reading.accounts)
    }

    fn tell(&self, error: &BrokerError) {
        if self.tells.lock().unwrap_or_else(PoisonError::into_inner).is_due() {
            warn!(%error, hint = error.hint, "the log of the deliveries could not be read: what became of decisions is unknown");
        }
    }
}

/// The decisions by their times, the newest first, those together that are read of at once.
fn groups<'a>(wanted: &[(&'a str, Timestamp)]) -> Vec<Vec<(&'a str, Timestamp)>> {
    // An id may be there with two times; its account begins with the older one.
    let mut times: HashMap<&str, Timestamp> = HashMap::new();
    for (id, time) in wanted {
        times.entry(id).and_modify(|oldest| *oldest = (*oldest).min(*time)).or_insert(*time);
    }
    let mut wanted: Vec<_> = times.into_iter().collect();
    wanted.sort_unstable_by_key(|(_, time)| Reverse(*time));
    let mut groups: Vec<Vec<(&str, Timestamp)>> = Vec::new();
    for one in wanted {
        match groups.last_mut() {
            Some(group) if group.first().is_some_and(|newest| newest.1.since(one.1) <= GROUP_SPAN) => group.push(one),
            Some(_) | None => groups.push(vec![one]),
        }
    }
    groups
}

/// Appends a mark, so that where the log ends at present can be seen; `None` where that fails.
async fn append_mark(broker: &dyn Broker, deadline: Instant) -> Option<Uuid> {
    let id = Uuid::now_v7();
    let message = Message { to: Destination::Log(Log::Deliveries), id: id.to_string(), body: mark(id) };
    let patience = deadline.min(Instant::now() + MARK_MAX);
    matches!(timeout_at(patience, broker.publish(message)).await, Ok(Ok(()))).then_some(id)
}

/// One reading of the log.
struct Reading<'a> {
    broker: &'a dyn Broker,
    now: Timestamp,
    deadline: Instant,
    mark: Option<Uuid>,
    /// From where on all was read, up to the end.
    known: Option<Known>,
    accounts: HashMap<Box<str>, Account>,
}

/// From where on the log was read up to its end, for all whose accounts are not complete.
#[derive(Clone, Copy)]
struct Known {
    since: Timestamp,
    /// The first record; `None` where there was none.
    offset: Option<u64>,
}

impl Reading<'_> {
    /// Reads of these decisions, the newest of which comes first; false where that takes too long. Those of the groups that come
    /// later are noted on the way.
    async fn read_of(&mut self, group: &[(&str, Timestamp)]) -> Result<bool, BrokerError> {
        let oldest = group.last().map_or(self.now, |(_, time)| self.now.min(*time));
        for ahead in AHEAD {
            let since = oldest.minus(ahead);
            let is_known = self.known.is_some_and(|known| known.since <= since)
                || self.all(group, |account, time| account.is_settled() && account.is_later_than(time));
            if !is_known && !self.read(group, since).await? {
                return Ok(false);
            }
            if self.all(group, |account, _| account.routed_at.is_some()) {
                break;
            }
        }
        for (id, time) in group {
            if let Some(account) = self.accounts.get_mut(*id) {
                // One from the future came at some time in the past, which nothing tells.
                account.complete = account.routed_at.is_some() || *time <= self.now;
            }
        }
        Ok(true)
    }

    fn all(&self, group: &[(&str, Timestamp)], is_so: impl Fn(&Account, Timestamp) -> bool) -> bool {
        group.iter().all(|(id, time)| self.accounts.get(*id).is_some_and(|account| is_so(account, *time)))
    }

    /// Reads from then on, until these decisions are settled or all there is was read; false where that takes too long.
    async fn read(&mut self, group: &[(&str, Timestamp)], since: Timestamp) -> Result<bool, BrokerError> {
        let known = self.known.and_then(|known| known.offset);
        let end = match (known, self.mark) {
            (Some(offset), _) => End::Before(offset),
            (None, Some(_)) => End::Follow,
            (None, None) => End::Present,
        };
        let mut records = self.broker.read(Log::Deliveries, Start::At(since), end);
        let mut first = None;
        // A decision that came twice is not settled by its second coming, which may have been noted already.
        let mut here: HashMap<&str, Account> = group.iter().map(|(id, _)| (*id, Account::default())).collect();
        loop {
            let patience = self.deadline.min(Instant::now() + SILENCE_MAX);
            let Ok(record) = timeout_at(patience, records.recv()).await else { return Ok(false) };
            let Some(record) = record.transpose()? else {
                // A log that is followed ends when the broker is closed.
                if end == End::Follow {
                    return Ok(false);
                }
                break;
            };
            first.get_or_insert(record.offset);
            let may_be_mark = record.body.len() <= MARK_BYTES_MAX;
            if may_be_mark && self.mark.is_some_and(|mark| is_mark(&record.body, mark)) {
                break;
            }
            if self.take(&record.body, &mut here) && here.values().all(Account::is_settled) {
                return Ok(true);
            }
        }
        self.known = Some(Known { since, offset: known.into_iter().chain(first).min() });
        Ok(true)
    }

    /// Notes what a record says; whether that settles any of those `here`.
    fn take(&mut self, record: &[u8], here: &mut HashMap<&str, Account>) -> bool {
        let mut settles = false;
        let wanted = |decision: &str| self.accounts.get(decision).is_some_and(|account| !account.complete);
        for entry in decode(record, wanted) {
            let (Entry::Routed { decision, .. } | Entry::Ended { decision, .. } | Entry::Again { decision, .. }) =
                &entry;
            if let Some(account) = self.accounts.get_mut(&**decision) {
                account.take(&entry);
            }
            if let Some(account) = here.get_mut(&**decision) {
                account.take(&entry);
                settles |= account.is_settled();
            }
        }
        settles
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        delivery_log::record::{HEAD, TAIL, put_again, put_ended, put_routed},
        model::DeathReason,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_millis(1_000 * second)
    }

    fn ended(ending: Ending, second: i64) -> Ended {
        let reason = (ending == Ending::Dead).then_some(DeathReason::Refused);
        Ended { ending, at: at(second), tries: 1, reason }
    }

    /// Writes an entry.
    type Put<'a> = &'a dyn Fn(&mut Vec<u8>);

    fn account(records: &[Put<'_>]) -> Account {
        let mut account = Account::default();
        for put in records {
            let mut bytes = HEAD.to_vec();
            put(&mut bytes);
            bytes.extend_from_slice(TAIL);
            for entry in decode(&bytes, |id| id == "d") {
                account.take(&entry);
            }
        }
        account
    }

    #[test]
    fn the_first_delivery_counts_a_death_gives_way_to_it_and_a_replay_waits_again() {
        let soc: ChannelId = "soc".parse().unwrap();
        let routed = |out: &mut Vec<u8>| put_routed(out, "d", at(1), [&soc].into_iter());
        let end = |ending, second| {
            let soc = soc.clone();
            move |out: &mut Vec<u8>| put_ended(out, "d", &soc, ended(ending, second))
        };
        let again = |out: &mut Vec<u8>| put_again(out, "d", &soc, at(5));
        let became = |records: &[Put<'_>]| account(records).channels().next().map(|(_, became)| became);
        let (delivered, twice) = (end(Ending::Delivered, 2), end(Ending::Delivered, 9));
        let (dead, dead_again) = (end(Ending::Dead, 4), end(Ending::Dead, 6));
        assert_eq!(became(&[&routed]), Some(Became::Waiting(Some(at(1)))));
        let first = Some(Became::Ended(ended(Ending::Delivered, 2)));
        assert_eq!(became(&[&routed, &delivered, &routed, &twice]), first);
        assert_eq!(became(&[&twice, &delivered, &dead]), first);
        assert_eq!(became(&[&routed, &dead]), Some(Became::Ended(ended(Ending::Dead, 4))));
        assert_eq!(became(&[&routed, &dead, &again]), Some(Became::Waiting(Some(at(5)))));
        assert_eq!(became(&[&routed, &dead, &again, &dead_again]), Some(Became::Ended(ended(Ending::Dead, 6))));
        assert_eq!(became(&[&routed, &dead, &again, &twice]), Some(Became::Ended(ended(Ending::Delivered, 9))));
    }

    #[test]
    fn only_what_was_routed_and_taken_by_all_is_settled() {
        let [soc, siem] = ["soc", "siem"].map(|id| id.parse::<ChannelId>().unwrap());
        let both = |out: &mut Vec<u8>| put_routed(out, "d", at(1), [&soc, &siem].into_iter());
        let none = |out: &mut Vec<u8>| put_routed(out, "d", at(1), [].into_iter());
        let told = |channel: &ChannelId| {
            let channel = channel.clone();
            move |out: &mut Vec<u8>| put_ended(out, "d", &channel, ended(Ending::Folded, 2))
        };
        let (by_soc, by_siem) = (told(&soc), told(&siem));
        assert!(account(&[&none]).is_settled(), "nobody wanted it");
        assert!(!account(&[&by_soc]).is_settled(), "where else it went is not recorded");
        assert!(!account(&[&both, &by_soc]).is_settled());
        assert!(account(&[&by_siem, &both, &by_soc]).is_settled());
    }
}
