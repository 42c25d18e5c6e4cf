//! What "done" means: a message may be forgotten by the broker only when what it stood for rests somewhere that cannot lose it.
//!
//! Three resting places take time to reach: a lane's queue on the broker, the decisions log, and the dead-letter store. The
//! [`Settler`] carries things there and settles their receipts only on arrival. It tries for as long as the worker runs: a broker
//! that is away or a full disk makes things wait, with their receipts unsettled, and never drops them.
//!
//! One lane's queue must not hold up the others. Where the broker is there and says no to one queue for [`PATIENCE`] (its length
//! limit is reached, somebody deleted it), or one queue alone says nothing (its leader is gone), what was meant for it goes to the
//! dead-letter store, `broker_gave_up`, until the queue takes messages again: else its decisions would fill the intake's window,
//! and nothing would come in for anybody.
//!
//! Bounded: at most [`UNDER_WAY_MAX`] at a time, and whoever hands over more waits. The decisions that can be out are bounded by
//! `prefetch` in any case.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, error, warn};

use crate::{
    broker::{Broker, Destination, Log, Message, PublishError, Queue, Receipt},
    dead_letters::{DeadLetter, Keeper},
    delivery_log::{DeliveryLog, Ended},
    model::{ChannelId, Clock, DeathReason, Decision, Delivery, Ending, Own},
    telemetry::{Metrics, Stake},
};

/// How many things are on their way to a resting place at once: enough to fill the publisher's batches.
const UNDER_WAY_MAX: usize = 512;

/// Waits between tries to reach a resting place.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// While a resting place is out of reach, it is said so often, and not for each thing that is on its way there.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// How long a lane's queue may say no before what was meant for it is buried: long enough to make a queue again or to move its
/// leader, short enough that the other lanes hardly notice.
const PATIENCE: Duration = Duration::from_secs(30);

/// Carries things to where they can rest. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Settler {
    jobs: mpsc::Sender<Job>,
}

/// One thing on its way to where it can rest.
#[derive(Debug)]
pub(crate) enum Job {
    Publish { message: Message, receipt: Receipt, stake: Option<Stake> },
    Bury { letter: Box<DeadLetter>, receipt: Receipt, stake: Option<Stake> },
}

impl Settler {
    /// Starts the carrier. When `give_up` is cancelled, what has not arrived is dropped unsettled and the broker keeps it.
    pub fn start(
        broker: Arc<dyn Broker>,
        keeper: Arc<Keeper>,
        metrics: Metrics,
        deliveries: DeliveryLog,
        clock: Clock,
        tracker: &TaskTracker,
        give_up: CancellationToken,
    ) -> Self {
        let (jobs, inbox) = mpsc::channel(UNDER_WAY_MAX);
        let (refusals, told) = (Refusals::default(), Mutex::default());
        let carrier = Carrier { broker, keeper, metrics, deliveries, clock, refusals, told };
        tracker.spawn(async move { give_up.run_until_cancelled(carrier.run(inbox)).await });
        Self { jobs }
    }

    /// A settler whose jobs a test carries out itself.
    #[cfg(test)]
    pub(crate) fn by_hand() -> (Self, mpsc::Receiver<Job>) {
        let (jobs, inbox) = mpsc::channel(UNDER_WAY_MAX);
        (Self { jobs }, inbox)
    }

    /// Lets a delivery wait in its lane's queue, an urgent one before all others; its receipt is settled when the broker has confirmed it.
    pub async fn park(&self, delivery: &Delivery, receipt: Receipt, stake: Stake) {
        let channel = delivery.channel.clone();
        let queue = if delivery.is_urgent() { Queue::Urgent(channel) } else { Queue::Lane(channel) };
        let message =
            Message { to: Destination::Queue(queue), id: delivery.id().to_string(), body: delivery.to_bytes() };
        self.send(Job::Publish { message, receipt, stake: Some(stake) }).await;
    }

    /// Appends a decision to the decisions log.
    pub async fn log(&self, decision: &Decision, receipt: Receipt) {
        let message =
            Message { to: Destination::Log(Log::Decisions), id: decision.id.to_string(), body: decision.raw().clone() };
        self.send(Job::Publish { message, receipt, stake: None }).await;
    }

    /// Appends a record to a log that has no other resting place; its receipt is settled when the broker has confirmed it. `id` is
    /// unique among the messages under way.
    pub async fn append(&self, log: Log, id: String, record: Bytes, receipt: Receipt) {
        let message = Message { to: Destination::Log(log), id, body: record };
        self.send(Job::Publish { message, receipt, stake: None }).await;
    }

    /// Buries a letter; its receipt is settled when it is on the platter. `stake` is of the delivery that has ended with it.
    pub async fn bury(&self, letter: DeadLetter, receipt: Receipt, stake: Option<Stake>) {
        self.send(Job::Bury { letter: Box::new(letter), receipt, stake }).await;
    }

    async fn send(&self, job: Job) {
        // Closed only after `give_up`; then the receipt inside drops unsettled, as it must.
        if self.jobs.send(job).await.is_err() {
            warn!("stopping before everything could be handed to the broker; it keeps the rest");
        }
    }
}

struct Carrier {
    broker: Arc<dyn Broker>,
    keeper: Arc<Keeper>,
    metrics: Metrics,
    deliveries: DeliveryLog,
    clock: Clock,
    refusals: Refusals,
    told: Mutex<Told>,
}

/// When trouble was told last, by place (`None`: the graves), and how often it was not told since.
type Told = HashMap<Option<Destination>, (Option<Instant>, u64)>;

impl Carrier {
    /// Whether trouble with this place (`None`: the graves) may be told now, and how often it was not since the last time.
    fn may_tell(&self, place: Option<&Destination>) -> Option<u64> {
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, untold) = told.entry(place.cloned()).or_default();
        if at.is_some_and(|at| now.duration_since(at) < TELL_EVERY) {
            *untold += 1;
            return None;
        }
        *at = Some(now);
        Some(std::mem::take(untold))
    }

    /// Runs until every [`Settler`] is gone and all they handed over has arrived.
    async fn run(self, mut inbox: mpsc::Receiver<Job>) {
        let mut under_way: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
        loop {
            tokio::select! {
                job = inbox.recv(), if under_way.len() < UNDER_WAY_MAX => match job {
                    Some(job) => under_way.push(Box::pin(self.carry(job))),
                    None => break,
                },
                Some(()) = under_way.next() => {}
            }
        }
        while let Some(()) = under_way.next().await {}
    }

    async fn carry(&self, job: Job) {
        match job {
            Job::Publish { message, receipt, stake } => match self.publish(&message).await {
                Ok(()) => receipt.settle(),
                Err(letter) => self.bury(*letter, receipt, stake).await,
            },
            Job::Bury { letter, receipt, stake } => self.bury(*letter, receipt, stake).await,
        }
    }

    /// Publishes until it is confirmed. Where the queue of a lane says no for too long, the dead letter that is left to make.
    async fn publish(&self, message: &Message) -> Result<(), Box<DeadLetter>> {
        let mut wait = RETRY_FIRST;
        loop {
            let error = match self.broker.publish(message.clone()).await {
                Ok(()) => {
                    self.refusals.accepted(&message.to);
                    return Ok(());
                }
                Err(error) => error,
            };
            if let Some(lane) = self.refusals.given_up(&message.to, &error, Instant::now()) {
                error!(%lane, id = message.id, %error, hint = error.hint(), "the lane's queue takes nothing: its delivery is kept as a dead letter");
                return Err(Box::new(self.letter(lane, message, &error)));
            }
            if let Some(untold) = self.may_tell(Some(&message.to)) {
                if message.to == Destination::Log(Log::Decisions) {
                    warn!(%error, hint = error.hint(), retry_in = ?wait, untold, "the decisions log takes nothing: decisions are told all the same, and are acknowledged only when it does; when `prefetch` of them wait (`acks_waiting`), no more come in");
                } else {
                    warn!(to = ?message.to, %error, hint = error.hint(), retry_in = ?wait, untold, "could not hand over to the broker");
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_LONGEST);
        }
    }

    fn letter(&self, lane: &ChannelId, message: &Message, error: &PublishError) -> DeadLetter {
        let (reason, detail, now) = (DeathReason::BrokerGaveUp, error.to_string(), self.clock.now());
        match Delivery::from_bytes(&message.body) {
            Ok(delivery) => DeadLetter::of_delivery(&delivery, reason, &detail, None, now),
            // Of our own making, so it reads back; if ever it does not, its bytes are kept.
            Err(_) => DeadLetter {
                channel: Some(lane.clone()),
                ..DeadLetter::of_message(message.body.clone(), reason, &detail, now)
            },
        }
    }

    async fn bury(&self, letter: DeadLetter, receipt: Receipt, stake: Option<Stake>) {
        let own = own_word(&letter);
        if let Some(Own::Canary(channel)) = own {
            debug!(%channel, detail = letter.detail, "a canary did not arrive");
            receipt.settle();
            return;
        }
        let mut wait = RETRY_FIRST;
        while let Err(cause) = self.keeper.bury(letter.clone()).await {
            if let Some(untold) = self.may_tell(None) {
                error!(letter = %letter.id, error = %cause, hint = cause.store.hint(), retry_in = ?wait, untold, "could not keep a dead letter anywhere");
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_LONGEST);
        }
        self.metrics.wrote_letter(letter.reason, letter.channel.as_ref(), own == Some(Own::Notice));
        if let Some(stake) = stake {
            died(stake, &letter, &self.deliveries);
        }
        receipt.settle();
    }
}

/// A delivery has ended as this letter: counts it, and writes it down.
pub fn died(stake: Stake, letter: &DeadLetter, deliveries: &DeliveryLog) {
    stake.died();
    if let (Some(decision), Some(channel)) = (&letter.decision_id, &letter.channel) {
        let (at, tries, reason) = (letter.died_at, letter.attempts, Some(letter.reason));
        deliveries.ended(decision, channel, Ended { ending: Ending::Dead, at, tries, reason });
    }
}

/// What kind of a word of the worker's own has died, if it is one. Read from the whole decision: an id alone proves nothing.
fn own_word(letter: &DeadLetter) -> Option<Own> {
    let id = letter.decision_id.as_deref()?;
    (id.starts_with("canary-") || id.starts_with("notice-")).then_some(())?;
    Own::of(&Decision::decode(letter.body.clone()).ok()?)
}

/// Since when the broker has said no to which lane's queue. Bounded by the number of lanes.
#[derive(Default)]
struct Refusals {
    since: Mutex<HashMap<Queue, Instant>>,
}

/// The queue of a lane that a message goes to, and the lane.
fn lane_of(to: &Destination) -> Option<(&Queue, &ChannelId)> {
    match to {
        Destination::Queue(queue @ (Queue::Lane(lane) | Queue::Urgent(lane))) => Some((queue, lane)),
        Destination::Queue(Queue::Decisions | Queue::Dead)
        | Destination::DecisionsExchange
        | Destination::ApprovalsExchange(_)
        | Destination::Log(_) => None,
    }
}

impl Refusals {
    fn accepted(&self, to: &Destination) {
        if let Some((queue, _)) = lane_of(to) {
            self.since.lock().unwrap_or_else(PoisonError::into_inner).remove(queue);
        }
    }

    /// The lane whose queue is given up for now. A broker that is away, blocked or out of disk is waited for, however long:
    /// only a clear no to this one queue counts.
    fn given_up<'to>(&self, to: &'to Destination, error: &PublishError, now: Instant) -> Option<&'to ChannelId> {
        let (queue, lane) = lane_of(to)?;
        let patience = match error {
            PublishError::Unroutable { .. } | PublishError::Rejected { .. } | PublishError::Silent { .. } => PATIENCE,
            // It will not become smaller, and says nothing of the queue.
            PublishError::TooLarge { .. } => return Some(lane),
            PublishError::Forbidden { .. }
            | PublishError::Disconnected
            | PublishError::Timeout { .. }
            | PublishError::Storage { .. } => {
                // What it said before, it may have said because it was going down.
                self.accepted(to);
                return None;
            }
        };
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let first = *since.entry(queue.clone()).or_insert(now);
        (now.saturating_duration_since(first) >= patience).then_some(lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::own;

    fn lane(id: &str) -> Destination {
        Destination::Queue(Queue::Lane(id.parse().unwrap()))
    }

    fn rejected() -> PublishError {
        PublishError::Rejected { to: String::from("soc") }
    }

    #[test]
    fn a_lane_queue_that_says_no_is_given_up_after_a_while_and_taken_up_again_when_it_says_yes() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        assert_eq!(refusals.given_up(&lane("soc"), &rejected(), start), None);
        assert_eq!(refusals.given_up(&lane("soc"), &rejected(), start + PATIENCE / 2), None);
        assert!(refusals.given_up(&lane("soc"), &rejected(), start + PATIENCE).is_some());
        assert_eq!(
            refusals.given_up(&lane("other"), &rejected(), start + PATIENCE),
            None,
            "each lane has its own time"
        );
        refusals.accepted(&lane("soc"));
        assert_eq!(refusals.given_up(&lane("soc"), &rejected(), start + PATIENCE), None);
    }

    #[test]
    fn a_broker_that_is_away_is_waited_for_however_long() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        for error in [
            PublishError::Disconnected,
            PublishError::Timeout { seconds: 30 },
            PublishError::Storage { why: String::from("full") },
        ] {
            for minutes in [0, 600] {
                let now = start + Duration::from_mins(minutes);
                assert_eq!(refusals.given_up(&lane("soc"), &error, now), None, "{error}");
            }
        }
        let log = Destination::Log(Log::Decisions);
        assert_eq!(
            refusals.given_up(&log, &rejected(), start + PATIENCE * 2),
            None,
            "a log has no other resting place"
        );
    }

    #[test]
    fn a_letter_is_a_word_of_our_own_by_its_whole_decision_and_not_by_its_id() {
        let (channel, now) = ("soc".parse::<ChannelId>().unwrap(), Clock::System.now());
        let of = |decision: Decision| {
            let delivery = Delivery::new(Arc::new(decision), channel.clone(), now);
            own_word(&DeadLetter::of_delivery(&delivery, DeathReason::BrokerGaveUp, "", None, now))
        };
        let canary = own::canary(&channel, 1, now);
        let forged = String::from_utf8(canary.raw().to_vec()).unwrap().replace("ALLOW", "DENY");
        assert_eq!(of(canary), Some(Own::Canary(channel.clone())));
        assert_eq!(of(own::notice("held", None, 1, now, "held", &[])), Some(Own::Notice));
        assert_eq!(of(Decision::decode(forged.into()).unwrap()), None);
        let malformed = DeadLetter::of_message("canary-soc-1".into(), DeathReason::Malformed, "", now);
        assert_eq!(own_word(&malformed), None);
    }

    #[test]
    fn what_is_too_large_for_the_broker_does_not_wait_for_it_to_change_its_mind() {
        let error = PublishError::TooLarge { bytes: 1 << 30 };
        assert!(Refusals::default().given_up(&lane("soc"), &error, Instant::now()).is_some());
    }
}
