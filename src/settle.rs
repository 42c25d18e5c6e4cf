//! What "done" means: a message may be forgotten by the broker only when what it stood for rests somewhere that cannot lose it.
//!
//! Three resting places take time to reach: a lane's queue on the broker, the decisions log, and the dead-letter store. The
//! [`Settler`] carries things there and settles their receipts only on arrival. It tries for as long as the worker runs: a broker
//! that is away or a full disk makes things wait, with their receipts unsettled, and never drops them.
//!
//! Bounded: at most [`UNDER_WAY_MAX`] at a time, and whoever hands over more waits. The decisions that can be out are bounded by
//! `prefetch` in any case.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, warn};

use crate::{
    broker::{Broker, Destination, Log, Message, Queue, Receipt},
    dead_letters::{DeadLetter, Keeper},
    model::{Decision, Delivery, Ending},
    telemetry::{ChannelMetrics, Metrics},
};

/// How many things are on their way to a resting place at once: enough to fill the publisher's batches.
const UNDER_WAY_MAX: usize = 512;

/// Waits between tries to reach a resting place.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// Carries things to where they can rest. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Settler {
    jobs: mpsc::Sender<Job>,
}

/// One thing on its way to where it can rest.
#[derive(Debug)]
pub(crate) enum Job {
    Publish { message: Message, receipt: Receipt },
    Bury { letter: Box<DeadLetter>, receipt: Receipt, channel: Option<ChannelMetrics> },
}

impl Settler {
    /// Starts the carrier. When `give_up` is cancelled, what has not arrived is dropped unsettled and the broker keeps it.
    pub fn start(
        broker: Arc<dyn Broker>,
        keeper: Arc<Keeper>,
        metrics: Metrics,
        tracker: &TaskTracker,
        give_up: CancellationToken,
    ) -> Self {
        let (jobs, inbox) = mpsc::channel(UNDER_WAY_MAX);
        let carrier = Carrier { broker, keeper, metrics };
        tracker.spawn(async move { give_up.run_until_cancelled(carrier.run(inbox)).await });
        Self { jobs }
    }

    /// A settler whose jobs a test carries out itself.
    #[cfg(test)]
    pub(crate) fn by_hand() -> (Self, mpsc::Receiver<Job>) {
        let (jobs, inbox) = mpsc::channel(UNDER_WAY_MAX);
        (Self { jobs }, inbox)
    }

    /// Lets a delivery wait in its lane's queue; its receipt is settled when the broker has confirmed it.
    pub async fn park(&self, delivery: &Delivery, receipt: Receipt) {
        let message = Message {
            to: Destination::Queue(Queue::Lane(delivery.channel.clone())),
            id: delivery.id().to_string(),
            body: delivery.to_bytes(),
        };
        self.send(Job::Publish { message, receipt }).await;
    }

    /// Appends a decision to the decisions log.
    pub async fn log(&self, decision: &Decision, receipt: Receipt) {
        let message =
            Message { to: Destination::Log(Log::Decisions), id: decision.id.to_string(), body: decision.raw().clone() };
        self.send(Job::Publish { message, receipt }).await;
    }

    /// Buries a letter; its receipt is settled when it is on the platter. `channel` is whose delivery has ended with it.
    pub async fn bury(&self, letter: DeadLetter, receipt: Receipt, channel: Option<&ChannelMetrics>) {
        self.send(Job::Bury { letter: Box::new(letter), receipt, channel: channel.cloned() }).await;
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
}

impl Carrier {
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
            Job::Publish { message, receipt } => {
                let mut wait = RETRY_FIRST;
                while let Err(error) = self.broker.publish(message.clone()).await {
                    warn!(to = ?message.to, %error, hint = error.hint(), retry_in = ?wait, "could not hand over to the broker");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(RETRY_LONGEST);
                }
                receipt.settle();
            }
            Job::Bury { letter, receipt, channel } => {
                let (reason, of_channel) = (letter.reason, letter.channel.clone());
                let mut wait = RETRY_FIRST;
                while let Err(cause) = self.keeper.bury((*letter).clone()).await {
                    error!(letter = %letter.id, error = %cause, hint = cause.store.hint(), retry_in = ?wait, "could not keep a dead letter anywhere");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(RETRY_LONGEST);
                }
                let of_channel = of_channel.as_ref().map_or("", |id| id.as_str());
                self.metrics.dead_letters_written.with_label_values(&[reason.as_str(), of_channel]).inc();
                if let Some(channel) = channel {
                    channel.ended(Ending::Dead, 1);
                }
                receipt.settle();
            }
        }
    }
}
