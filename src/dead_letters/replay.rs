//! Replaying: a dead letter becomes a delivery again.
//!
//! [`plan`] is the rule and is pure; [`Replay::run`] carries it out in batches. A letter leaves the store only when the
//! broker has confirmed its message, and only if it is still the burial that was replayed: the same delivery may already
//! have died again, and that newer death must stay.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use super::{Burial, DeadLetter, DeadLetterError, LetterId, Store};
use crate::{
    broker::{Broker, Destination, Message, Queue},
    delivery_log::DeliveryLog,
    model::{ChannelId, Clock, Decision, Delivery, Timestamp},
};

/// Letters that are published together: the publisher's barrier batch. A replay waits for the confirms of one before it reads the
/// next, so however many letters there are, live deliveries wait behind one batch at most, and the memory is that of one.
pub const BATCH_LETTERS: usize = 256;
/// Letters that are read together, and the bytes after which a batch is full before it has all its letters: bodies may be large.
const READ_LETTERS: usize = 16;
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Failures that the report explains.
const FAILURES_NAMED_MAX: usize = 100;

/// How the notes on letters begin that did not fail.
const SKIPPED: &str = "skipped: ";

/// What a replay of one letter means.
#[derive(Clone, Debug)]
pub enum Plan {
    /// Publish this, then remove the letter.
    Publish {
        /// What is published.
        message: Message,
        /// Whether it is a decision. What is none is decoded again all the same: a later version may read it.
        readable: bool,
    },
    /// Leave the letter where it is.
    Skip(Skip),
}

/// Why a letter is not replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Skip {
    /// The approval that it asks for has expired: the card would have no live buttons, and nobody waits for the answer.
    Expired,
    /// Its channel is not in the configuration.
    NoChannel,
    /// Its body is no decision, though it was a delivery once: nothing that the lane could send.
    Unreadable,
}

/// What replaying `letter` means. A delivery starts afresh in its lane: no attempts, the rich form, and a `first_at` of now,
/// or `max_age` would kill it at once. What never was a delivery goes where it came from, and is decoded and routed again.
pub fn plan(letter: &DeadLetter, known: impl FnOnce(&ChannelId) -> bool, now: Timestamp) -> Plan {
    // Stable across retries, so that a broker or a person can tell one replay from another.
    let id = letter.id.to_string();
    let decision = Decision::decode(Bytes::clone(&letter.body));
    let expires_at = decision.as_ref().ok().and_then(Decision::approval_asked).and_then(|asked| asked.expires_at);
    if expires_at.is_some_and(|expires_at| expires_at <= now) {
        return Plan::Skip(Skip::Expired);
    }
    match (&letter.channel, decision) {
        (None, decision) => {
            let message = Message { to: Destination::DecisionsExchange, id, body: Bytes::clone(&letter.body) };
            Plan::Publish { message, readable: decision.is_ok() }
        }
        (Some(channel), _) if !known(channel) => Plan::Skip(Skip::NoChannel),
        (Some(_), Err(_)) => Plan::Skip(Skip::Unreadable),
        (Some(channel), Ok(decision)) => {
            let delivery = Delivery::new(Arc::new(decision), channel.clone(), now);
            let queue = if delivery.is_urgent() { Queue::Urgent } else { Queue::Lane };
            let message = Message { to: Destination::Queue(queue(channel.clone())), id, body: delivery.to_bytes() };
            Plan::Publish { message, readable: true }
        }
    }
}

/// What a replay did, or with `dry_run` would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReplayReport {
    /// Published, confirmed, and no longer in the store.
    pub replayed: u64,
    /// Approvals that have expired.
    pub skipped_expired: u64,
    /// Letters of channels that are not in the configuration.
    pub skipped_no_channel: u64,
    /// Letters that could not be replayed; they stay.
    pub failed: u64,
    /// Letters that were gone when their turn came: somebody else replayed or purged them.
    pub gone: u64,
    /// Those among the replayed that are no decisions for this version: they are decoded again, and die again as malformed.
    pub unreadable: u64,
    /// The letters that were skipped or failed, and why, for people; the first 100.
    pub notes: Vec<(LetterId, String)>,
    /// Replayed letters by channel, for `replayed_total{channel}`; without one, they went to the decisions exchange.
    #[serde(skip)]
    pub by_channel: std::collections::BTreeMap<Option<ChannelId>, u64>,
}

impl ReplayReport {
    /// Letters that were looked at so far.
    pub fn seen(&self) -> u64 {
        self.replayed + self.skipped_expired + self.skipped_no_channel + self.failed + self.gone
    }

    /// Adds what another worker did.
    pub fn add(&mut self, other: &Self) {
        self.replayed += other.replayed;
        self.skipped_expired += other.skipped_expired;
        self.skipped_no_channel += other.skipped_no_channel;
        self.failed += other.failed;
        self.gone += other.gone;
        self.unreadable += other.unreadable;
        self.notes.extend_from_slice(&other.notes);
    }

    /// Why a letter failed, of those that the notes tell of.
    pub fn first_failure(&self) -> Option<&str> {
        self.notes.iter().map(|(_, why)| &**why).find(|why| !why.starts_with(SKIPPED))
    }

    fn note(&mut self, id: LetterId, why: impl FnOnce() -> String) {
        if self.notes.len() < FAILURES_NAMED_MAX {
            self.notes.push((id, why()));
        }
    }

    fn fail(&mut self, id: LetterId, why: impl FnOnce() -> String) {
        self.failed += 1;
        self.note(id, why);
    }

    fn skip(&mut self, id: LetterId, skip: Skip) {
        match skip {
            Skip::Expired => {
                self.skipped_expired += 1;
                self.note(id, || format!("{SKIPPED}its approval has expired"));
            }
            Skip::NoChannel => {
                self.skipped_no_channel += 1;
                self.note(id, || format!("{SKIPPED}its channel is not in the configuration"));
            }
            Skip::Unreadable => self.fail(id, || "its body is not a decision".to_owned()),
        }
    }
}

/// A letter whose message is under way.
struct Sent {
    id: LetterId,
    burial: Burial,
    channel: Option<ChannelId>,
    decision_id: Option<String>,
    readable: bool,
}

/// How letters are replayed.
pub struct Replay<'a> {
    /// Where they are.
    pub store: &'a Store,
    /// Only burials up to this one, as [`super::LetterFilter::up_to`] means: who has died again since is passed over as gone.
    pub up_to: Option<u64>,
    /// Where they go.
    pub broker: &'a dyn Broker,
    /// Whether a channel is in the configuration.
    pub known: &'a (dyn Fn(&ChannelId) -> bool + Sync),
    /// Where it is written down that they were sent again.
    pub deliveries: &'a DeliveryLog,
    /// What time it is.
    pub clock: Clock,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

impl Replay<'_> {
    /// Replays `ids` in their order and tells `progress` after each batch. An error is the store's: what was confirmed until
    /// then may be replayed again, at least once is the promise.
    pub async fn run(
        &self,
        ids: &[LetterId],
        mut progress: impl FnMut(&ReplayReport) + Send,
    ) -> Result<ReplayReport, DeadLetterError> {
        let go_on = |report: &ReplayReport| {
            progress(report);
            true
        };
        self.run_while(ids, go_on).await
    }

    /// The same until `go_on` says no after a batch. What was confirmed by then is out of the store, the rest is untouched.
    pub async fn run_while(
        &self,
        ids: &[LetterId],
        mut go_on: impl FnMut(&ReplayReport) -> bool + Send,
    ) -> Result<ReplayReport, DeadLetterError> {
        let mut report = ReplayReport::default();
        let (mut batch, mut bytes, mut in_batch) = (Vec::new(), 0, 0);
        let mut parts = ids.chunks(READ_LETTERS).peekable();
        while let Some(ids) = parts.next() {
            for (id, kept) in ids.iter().zip(self.store.fetch(ids.to_vec()).await?) {
                match kept {
                    Ok(kept) if self.up_to.is_some_and(|up_to| kept.burial.0 > up_to) => report.gone += 1,
                    Ok(kept) => match plan(&kept.letter, |channel| (self.known)(channel), self.clock.now()) {
                        Plan::Publish { message, readable } => {
                            bytes += message.body.len();
                            let (burial, DeadLetter { channel, decision_id, .. }) = (kept.burial, kept.letter);
                            batch.push((Sent { id: *id, burial, channel, decision_id, readable }, message));
                        }
                        Plan::Skip(skip) => report.skip(*id, skip),
                    },
                    Err(DeadLetterError::NotFound { .. }) => report.gone += 1,
                    Err(error) => report.fail(*id, || error.to_string()),
                }
            }
            in_batch += ids.len();
            if in_batch >= BATCH_LETTERS || bytes >= BATCH_BYTES || parts.peek().is_none() {
                self.publish(std::mem::take(&mut batch), &mut report).await?;
                (bytes, in_batch) = (0, 0);
                if !go_on(&report) {
                    break;
                }
            }
        }
        Ok(report)
    }

    async fn publish(&self, letters: Vec<(Sent, Message)>, report: &mut ReplayReport) -> Result<(), DeadLetterError> {
        // Before any of them is on its way: one may die again before the last of them is confirmed, and that is later than this.
        let now = self.clock.now();
        // Asked for together, so that the broker's publisher can confirm them together.
        let confirms =
            letters.iter().filter(|_| !self.dry_run).map(|(_, message)| self.broker.publish(message.clone()));
        let mut confirms = join_all(confirms).await.into_iter();
        let mut confirmed = Vec::new();
        for (Sent { id, burial, channel, decision_id, readable }, _) in letters {
            if let Some(Err(error)) = confirms.next() {
                report.fail(id, || error.to_string());
                continue;
            }
            report.replayed += 1;
            if let (Some(decision), Some(channel), false) = (&decision_id, &channel, self.dry_run) {
                self.deliveries.sent_again(decision, channel, now);
            }
            report.unreadable += u64::from(!readable);
            *report.by_channel.entry(channel).or_default() += 1;
            confirmed.push((id, burial));
        }
        if !self.dry_run && !confirmed.is_empty() {
            self.store.remove_seen(confirmed).await?;
        }
        Ok(())
    }
}
