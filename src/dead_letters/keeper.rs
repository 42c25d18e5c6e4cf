//! The keeper: what a lane gives a dead letter to, so that it is safe before its receipt is settled.
//!
//! The store first. While the store cannot be written (a full disk, most often) the letter goes to the broker's dead queue,
//! confirmed, which is as safe, and a drain brings it into a store when one can be written again. Only when both fail does
//! the caller keep its receipt.
//!
//! The dead queue also holds what the broker itself gave up; the drain makes letters of that, with reason
//! `broker_gave_up`.

use std::{
    num::NonZeroU16,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{DeadLetter, DeadLetterError, LetterId, Store};
use crate::{
    broker::{Arrival, Broker, Destination, Message, PublishError, Queue},
    model::{Clock, DeathReason, Decision, Delivery, Timestamp},
};

/// Letters that the drain holds at once.
const WINDOW: NonZeroU16 = NonZeroU16::new(64).unwrap();
/// A store that has not answered by then hangs, and the broker is asked.
const STORE_LIMIT: Duration = Duration::from_secs(30);
/// How often the same trouble is logged at most.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// The wait of a drain after a burial failed.
const DRAIN_PAUSE_FIRST: Duration = Duration::from_secs(1);
const DRAIN_PAUSE_LONGEST: Duration = Duration::from_secs(30);
/// What a letter of the drain says of itself.
const GAVE_UP: &str = "the broker gave this message up: its delivery limit or its queue's length limit was reached";

/// Where a letter came to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resting {
    /// In the store, under this id.
    Store(LetterId),
    /// In the broker's dead queue, until a store can be written.
    Broker,
}

/// Neither the store nor the broker took the letter. The caller must not settle its receipt.
#[derive(Debug, thiserror::Error)]
#[error("a dead letter could be kept neither in the store nor on the broker ({broker})")]
pub struct BuryError {
    /// Why the store did not.
    #[source]
    pub store: DeadLetterError,
    /// Why the broker did not.
    pub broker: PublishError,
}

/// Is told of every letter that the drain made, once it is in the store.
type Told = Box<dyn Fn(&DeadLetter) + Send + Sync>;

/// See the module. Share it in an `Arc`.
pub struct Keeper {
    store: Store,
    broker: Arc<dyn Broker>,
    clock: Clock,
    told: Told,
    /// When trouble was logged last, and how much was not logged since.
    logged: Mutex<(Option<Instant>, u64)>,
}

impl Keeper {
    /// A keeper of `store`, with the dead queue of `broker` behind it.
    pub fn new(store: Store, broker: Arc<dyn Broker>, clock: Clock) -> Self {
        Self { store, broker, clock, told: Box::new(|_| ()), logged: Mutex::new((None, 0)) }
    }

    /// The same, telling `told` of every letter that the drain made of what the broker gave up. Whoever buries a letter counts it;
    /// nobody buried these.
    #[must_use]
    pub fn telling(self, told: impl Fn(&DeadLetter) + Send + Sync + 'static) -> Self {
        Self { told: Box::new(told), ..self }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Brings `letter` to rest. When this returns `Ok`, nothing can lose it any more.
    pub async fn bury(&self, letter: DeadLetter) -> Result<Resting, BuryError> {
        let store = match self.to_store(letter.clone()).await {
            Ok(id) => return Ok(Resting::Store(id)),
            Err(error) => error,
        };
        let body = serde_json::to_vec(&letter).unwrap_or_default();
        let message =
            Message { to: Destination::Queue(Queue::Dead), id: letter.id.to_string(), body: Bytes::from(body) };
        let broker = self.broker.publish(message).await;
        if let Some(unlogged) = self.may_log() {
            let kept_by_broker = broker.is_ok();
            tracing::error!(
                letter = %letter.id, reason = %letter.reason, %store, hint = store.hint(), kept_by_broker, unlogged,
                "the dead-letter store cannot be written: dead letters go to the broker's dead queue"
            );
        }
        broker.map(|()| Resting::Broker).map_err(|broker| BuryError { store, broker })
    }

    async fn to_store(&self, letter: DeadLetter) -> Result<LetterId, DeadLetterError> {
        // Out of time, the letter may be in the store too; one subject is one letter, so nothing doubles.
        match tokio::time::timeout(STORE_LIMIT, self.store.bury(letter)).await {
            Ok(buried) => buried,
            Err(_) => Err(DeadLetterError::Down { why: format!("no answer in {} s", STORE_LIMIT.as_secs()) }),
        }
    }

    /// Brings what waits in the broker's dead queue into the store, whenever that can be written, until `stop`. Run it as a
    /// task of its own.
    pub async fn drain(&self, stop: CancellationToken) {
        let mut writable = self.store.watch_writable();
        let mut pause = DRAIN_PAUSE_FIRST;
        loop {
            // While the store cannot be written, nothing is consumed: another worker's store may take it.
            tokio::select! {
                () = stop.cancelled() => return,
                changed = writable.wait_for(|writable| *writable) => if changed.is_err() { return },
            }
            let took = tokio::select! {
                () = stop.cancelled() => return,
                took = self.drain_while_writable(&mut pause) => took,
            };
            if took == Drained::Closed {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(DRAIN_PAUSE_LONGEST),
            }
        }
    }

    /// Cancelling this loses nothing: receipts that are dropped bring their messages back, and one subject is one letter.
    async fn drain_while_writable(&self, pause: &mut Duration) -> Drained {
        let mut arrivals = self.broker.consume(Queue::Dead, WINDOW);
        let mut writable = self.store.watch_writable();
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                biased;
                changed = writable.wait_for(|writable| !*writable) => {
                    return if changed.is_err() { Drained::Closed } else { Drained::Failed };
                }
                received = arrivals.recv_many(&mut batch, usize::from(WINDOW.get())) => {
                    if received == 0 {
                        return Drained::Closed;
                    }
                }
            }
            let buried = join_all(batch.drain(..).map(|arrival| self.drain_one(arrival))).await;
            if buried.contains(&false) {
                return Drained::Failed;
            }
            *pause = DRAIN_PAUSE_FIRST;
        }
    }

    async fn drain_one(&self, arrival: Arrival) -> bool {
        let (letter, maker) = letter_of(arrival.body, self.clock.now());
        match self.to_store(letter.clone()).await {
            Ok(_) => {
                if maker == Maker::Drain {
                    (self.told)(&letter);
                }
                arrival.receipt.settle();
                true
            }
            Err(error) => {
                // The receipt is dropped: the message stays in the dead queue.
                if let Some(unlogged) = self.may_log() {
                    tracing::error!(%error, unlogged, "a dead letter stays in the broker's dead queue");
                }
                false
            }
        }
    }

    /// Whether trouble may be logged now, and how much was not since the last time.
    fn may_log(&self) -> Option<u64> {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, unlogged) = *logged;
        if at.is_some_and(|at| at.elapsed() < LOG_EVERY) {
            *logged = (at, unlogged + 1);
            return None;
        }
        *logged = (Some(Instant::now()), 0);
        Some(unlogged)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drained {
    /// The store or a burial failed: wait, then go on.
    Failed,
    /// The broker or the store was closed.
    Closed,
}

/// Who made a letter that comes out of the dead queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maker {
    /// Whoever gave it to a keeper, which could not write its store. It was counted then.
    Keeper,
    /// The drain, of what the broker gave up.
    Drain,
}

/// The letter of a message of the dead queue. What the broker gave up is looked for first, so that a decision whose fields
/// imitate a letter's stays a decision.
fn letter_of(body: Bytes, now: Timestamp) -> (DeadLetter, Maker) {
    if let Ok(delivery) = Delivery::from_bytes(&body) {
        return (DeadLetter::of_delivery(&delivery, DeathReason::BrokerGaveUp, GAVE_UP, None, now), Maker::Drain);
    }
    if let Ok(decision) = Decision::decode(Bytes::clone(&body)) {
        let letter = DeadLetter::of_message(body, DeathReason::BrokerGaveUp, GAVE_UP, now);
        let (kind, severity) = (Some(decision.kind), Some(decision.severity));
        let letter = DeadLetter { decision_id: Some(decision.id.into()), decision: kind, severity, ..letter };
        return (letter, Maker::Drain);
    }
    serde_json::from_slice(&body).map_or_else(
        |_| (DeadLetter::of_message(body.clone(), DeathReason::BrokerGaveUp, GAVE_UP, now), Maker::Drain),
        |letter| (letter, Maker::Keeper),
    )
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("store", &self.store).finish_non_exhaustive()
    }
}
