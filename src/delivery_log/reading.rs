//! Reading: what became of a few decisions, gathered from the log.
//!
//! A decision is told within moments of its time, or within what its channels' lanes wait for. So the log is read from the time of
//! the oldest of them on, until all of them have come to an end, or until the log ends, or for so long ([`READ_MAX`]).
//!
//! Where the log ends at present is found out by appending a mark, as the followers of the small logs do: that takes milliseconds, and
//! waiting for silence would take a second at every look at a page.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use super::{
    Ended,
    record::{Entry, decode},
};
use crate::{
    broker::{
        Broker, BrokerError, Destination, End, Log, Message, Start,
        following::{is_mark, mark},
    },
    model::{ChannelId, Clock, Ending, Timestamp},
};

/// How long is read.
const READ_MAX: Duration = Duration::from_secs(5);

/// How long appending the mark may take, and how long a log that holds it may give nothing.
const MARK_MAX: Duration = Duration::from_secs(2);
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// The longest record that can be a mark, in bytes.
const MARK_BYTES_MAX: usize = 200;

/// How far before the decisions' times reading begins: clocks differ a little. Where not all were found so, once more, by a lot.
const AHEAD: [Duration; 2] = [Duration::from_secs(20), Duration::from_mins(15)];

/// Readings at once.
const READINGS_MAX: usize = 4;

/// What became of decisions, as far as the log tells.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    accounts: HashMap<Box<str>, Account>,
    /// Whether the log was read to its end, or to where nothing more can come.
    pub complete: bool,
}

impl Accounts {
    /// What a log tells that says nothing of them.
    #[cfg(test)]
    pub(crate) fn of_nothing(complete: bool) -> Self {
        Self { accounts: HashMap::new(), complete }
    }

    /// What became of this decision; `None` where nothing is recorded.
    pub fn of(&self, decision: &str) -> Option<&Account> {
        self.accounts.get(decision)
    }
}

/// What became of one decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// When it was routed first; `None` where that is not recorded, and it may have gone to channels that are not either.
    pub routed_at: Option<Timestamp>,
    channels: BTreeMap<ChannelId, Fate>,
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
        Self { routed_at: Some(at), channels: channels.map(|channel| (channel, Fate::default())).collect() }
    }

    /// The channels that it was routed to, or has ended in, by their ids.
    pub fn channels(&self) -> impl Iterator<Item = (&ChannelId, Became)> {
        self.channels.iter().map(|(channel, fate)| (channel, fate.became(self.routed_at)))
    }

    /// Whether it came to an end that nothing can change.
    fn is_settled(&self) -> bool {
        self.routed_at.is_some() && self.channels.values().all(|fate| fate.told.is_some())
    }

    fn take(&mut self, entry: Entry<'_>) {
        match entry {
            Entry::Routed { at, channels, .. } => {
                self.routed_at = Some(self.routed_at.map_or(at, |first| first.min(at)));
                for channel in channels {
                    self.channels.entry(channel).or_default();
                }
            }
            Entry::Ended { channel, ended, .. } => {
                let fate = self.channels.entry(channel).or_default();
                match ended.ending {
                    Ending::Delivered | Ending::Folded if fate.told.is_none_or(|first| ended.at < first.at) => {
                        fate.told = Some(ended);
                    }
                    Ending::Dead if fate.dead.is_none_or(|last| ended.at >= last.at) => fate.dead = Some(ended),
                    Ending::Delivered | Ending::Folded | Ending::Dead => {}
                }
            }
            Entry::Again { channel, at, .. } => {
                let again = &mut self.channels.entry(channel).or_default().again;
                *again = Some(again.map_or(at, |last| last.max(at)));
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
}

impl Reader {
    /// A reader of the log on this broker; `kept` says whether there is one.
    pub fn new(broker: Arc<dyn Broker>, clock: Clock, kept: bool) -> Self {
        Self { broker, clock, kept, places: Arc::new(Semaphore::new(READINGS_MAX)) }
    }

    /// What became of these decisions, which have these times.
    ///
    /// # Errors
    /// Where the log is not there or cannot be read: then nothing is known.
    pub async fn accounts(&self, wanted: &[(&str, Timestamp)]) -> Result<Accounts, BrokerError> {
        let mut found = Accounts { accounts: HashMap::new(), complete: true };
        let oldest = wanted.iter().map(|(_, time)| *time).min();
        let Some(oldest) = oldest.filter(|_| self.kept) else { return Ok(found) };
        let deadline = Instant::now() + READ_MAX;
        // Nobody closes it; and out of time, nothing is known.
        let Ok(Ok(_place)) = timeout_at(deadline, self.places.acquire()).await else {
            return Ok(Accounts { complete: false, ..found });
        };
        for ahead in AHEAD {
            found = Accounts {
                accounts: wanted.iter().map(|(id, _)| (Box::from(*id), Account::default())).collect(),
                complete: false,
            };
            let start = Start::At(oldest.min(self.clock.now()).minus(ahead));
            found.complete = self.read(start, deadline, &mut found.accounts).await?;
            if !found.complete || found.accounts.values().all(|account| account.routed_at.is_some()) {
                break;
            }
        }
        found.accounts.retain(|_, account| *account != Account::default());
        Ok(found)
    }

    /// Reads from there on; whether everything was read that can matter.
    async fn read(
        &self,
        start: Start,
        deadline: Instant,
        accounts: &mut HashMap<Box<str>, Account>,
    ) -> Result<bool, BrokerError> {
        let id = Uuid::now_v7();
        let message = Message { to: Destination::Log(Log::Deliveries), id: id.to_string(), body: mark(id) };
        let patience = deadline.min(Instant::now() + MARK_MAX);
        let marked = matches!(timeout_at(patience, self.broker.publish(message)).await, Ok(Ok(())));
        let end = if marked { End::Follow } else { End::Present };
        let mut records = self.broker.read(Log::Deliveries, start, end);
        loop {
            let patience = deadline.min(Instant::now() + SILENCE_MAX);
            let Ok(record) = timeout_at(patience, records.recv()).await else { return Ok(false) };
            // A log that is followed ends when the broker is closed.
            let Some(record) = record else { return Ok(!marked) };
            let record = record?;
            if marked && record.body.len() <= MARK_BYTES_MAX && is_mark(&record.body, id) {
                return Ok(true);
            }
            let mut settles = false;
            for entry in decode(&record.body, |decision| accounts.contains_key(decision)) {
                let (Entry::Routed { decision, .. } | Entry::Ended { decision, .. } | Entry::Again { decision, .. }) =
                    &entry;
                if let Some(account) = accounts.get_mut(&**decision) {
                    account.take(entry);
                    settles |= account.is_settled();
                }
            }
            if settles && accounts.values().all(Account::is_settled) {
                return Ok(true);
            }
        }
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
                account.take(entry);
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
