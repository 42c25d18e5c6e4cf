//! Lanes: one per channel, and the only place where a decision leaves the house.
//!
//! A lane takes deliveries in order, waits until the endpoint's pace allows a send, posts the rendered parcel, and asks the
//! channel what the reply means. [`step::decide`] then says what comes next: done, again, pause, hold, bury.
//!
//! Why one lane per channel: a slow endpoint may hurt only itself. Deliveries come by two ways. An unlimited lane that flows
//! takes them straight from the intake's memory. All others (limited, paused, held, or simply full) wait in the lane's queue on
//! the broker, which has one consumer in the whole pool, so that a limit holds exactly and a dead endpoint fills a disk and not
//! this process.
//!
//! Absent on purpose: a lane knows nothing of AMQP, routes or configuration files. It is built from plain parameters.
//!
//! Start with `step.rs`: it is pure and holds every rule. `task.rs` only carries them out.

pub mod backoff;
mod order;
pub mod pace;
pub mod post;
pub mod state;
pub mod step;
mod task;
#[cfg(test)]
mod tests;

use std::{
    num::{NonZeroU16, NonZeroU32},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use self::{
    order::{Order, Orders},
    state::Told,
};
use crate::{
    broker::{Broker, Receipt},
    channels::{Channel, Links, PostedCard, Rate},
    delivery_log::DeliveryLog,
    model::{ChannelId, Clock, Delivery, Own, RetryPlan, Scrubber},
    settle::Settler,
    telemetry::{ChannelMetrics, InMemory},
};
pub use post::{ClientError, HttpPost, Post};
pub use state::LaneState;

/// What an operator decided about one channel, as far as its lane cares.
#[derive(Clone, Debug)]
pub struct LanePlan {
    /// Whose lane it is.
    pub id: ChannelId,
    /// How to say it.
    pub channel: Arc<dyn Channel>,
    /// Whether people read it: a card whose approval has expired is then not posted.
    pub chat: bool,
    /// How fast; empty is as fast as can be.
    pub pace: Vec<Rate>,
    /// How long one try may take.
    pub timeout: Duration,
    /// Tries under way at once.
    pub concurrency: NonZeroU16,
    /// How often, and for how long.
    pub retry: RetryPlan,
    /// Where links point.
    pub links: Arc<Links>,
    /// When more than this many wait, they are folded into digests; `None` never folds.
    pub digest: Option<NonZeroU32>,
    /// Deliveries that may be in memory at once: as many as there can be decisions, since a lane that is merely busy should not
    /// send its work around by the broker. One that falls behind does so for another reason: see `task.rs`, `overloaded`.
    pub memory: usize,
}

/// What every lane of a worker shares.
#[derive(Clone)]
pub struct LaneTools {
    /// The socket.
    pub post: Arc<dyn Post>,
    /// The broker, for the lane's queue.
    pub broker: Arc<dyn Broker>,
    /// Where what cannot be sent now is carried.
    pub settler: Settler,
    /// The time.
    pub clock: Clock,
    /// What removes secrets from what endpoints say.
    pub scrubber: Scrubber,
    /// Who is told of approval cards that can be changed later.
    pub posted: mpsc::Sender<CardPosted>,
    /// Where it is written down how deliveries ended.
    pub deliveries: DeliveryLog,
}

/// An approval card that was posted and can be changed later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardPosted {
    /// The approval's id.
    pub approval: Box<str>,
    /// The channel that it was posted to.
    pub channel: ChannelId,
    /// The message.
    pub card: PostedCard,
}

/// One delivery in a lane's hands.
#[derive(Debug)]
struct Errand {
    delivery: Delivery,
    receipt: Receipt,
    /// Where it came from, and so how it is given back.
    origin: Origin,
    /// Counts it as waiting in memory, where it came from there: it goes wherever the receipt goes.
    in_memory: Option<InMemory>,
    /// Whether the broker handed it out before.
    redelivered: bool,
    /// When this lane got it.
    taken_at: tokio::time::Instant,
}

impl Errand {
    /// Whether it came from the lane's queue by a connection that was lost since. The broker hands it out again, and to go on with
    /// this copy too would only double it.
    fn comes_again(&self) -> bool {
        self.origin == Origin::LaneQueue && self.receipt.is_void()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Straight from the intake: the receipt is the decision's.
    Memory,
    /// From the lane's queue: the receipt is the waiting delivery's own.
    LaneQueue,
}

/// How the rest of the worker speaks to a lane. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LaneHandle {
    id: ChannelId,
    inbox: mpsc::Sender<Errand>,
    orders: Orders,
    /// Whether the lane takes deliveries straight from memory at present.
    open: Arc<AtomicBool>,
    told: watch::Receiver<Told>,
    settler: Settler,
    metrics: ChannelMetrics,
}

impl LaneHandle {
    /// Whose lane it is.
    pub fn id(&self) -> &ChannelId {
        &self.id
    }

    /// What the lane does at present.
    pub fn state(&self) -> LaneState {
        self.told.borrow().state.clone()
    }

    /// Since when it flows, or does not.
    pub fn since(&self) -> tokio::time::Instant {
        self.told.borrow().since
    }

    /// What is counted of it.
    pub fn metrics(&self) -> &ChannelMetrics {
        &self.metrics
    }

    /// A lane without a task, whose memory has room for `room` deliveries: they stay in what is returned with it.
    #[cfg(test)]
    pub(crate) fn by_hand(id: ChannelId, room: usize, settler: Settler, metrics: ChannelMetrics) -> (Self, impl Sized) {
        let (inbox, kept) = mpsc::channel(room);
        let (announce, told) = watch::channel(Told::now(LaneState::Flowing));
        let (orders, ordered) = Orders::new();
        let handle = Self { id, inbox, orders, open: Arc::new(AtomicBool::new(true)), told, settler, metrics };
        (handle, (kept, announce, ordered))
    }

    /// The channel's configuration has changed: from now on the lane does as `plan` says, for what waits already too. A pause or
    /// hold ends, because it was about the old configuration; an operator's stop does not.
    pub async fn renew(&self, plan: LanePlan, tools: LaneTools) {
        self.orders.give(Order::Renew(Box::new((plan, tools)))).await;
    }

    /// An operator pauses the channel: nothing is sent until [`Self::resume`], and everything waits on the broker.
    pub async fn stop_sending(&self) {
        self.orders.give(Order::Stop).await;
    }

    /// An operator resumes the channel: whatever kept it from flowing is over.
    pub async fn resume(&self) {
        self.orders.give(Order::Resume).await;
    }

    /// Ends the lane: when this returns, nothing is under way, everything it had waits in its queue on the broker (or is on the
    /// way there), and it consumes the queue no longer. What is handed over afterwards goes to the queue as well.
    pub async fn retire(&self) {
        let (done, ended) = oneshot::channel();
        self.orders.give(Order::Retire(done)).await;
        // An error says that the lane had ended already.
        drop(ended.await);
    }

    /// Hands a delivery over: to the lane's memory where it takes any now, else to its queue on the broker.
    pub async fn hand_over(&self, delivery: Delivery, receipt: Receipt, redelivered: bool) {
        if let Some(own) = delivery.own() {
            return self.hand_over_own(&own, &delivery, receipt).await;
        }
        self.metrics.matched.inc();
        let mut errand = Errand {
            delivery,
            receipt,
            origin: Origin::Memory,
            in_memory: Some(self.metrics.hold_in_memory()),
            redelivered,
            taken_at: tokio::time::Instant::now(),
        };
        if self.open.load(Ordering::Relaxed) {
            match self.inbox.try_send(errand) {
                Ok(()) => return,
                Err(mpsc::error::TrySendError::Full(back) | mpsc::error::TrySendError::Closed(back)) => errand = back,
            }
        }
        let stake = self.metrics.stake(errand.in_memory);
        self.settler.park(&errand.delivery, errand.receipt, stake).await;
    }

    /// Hands over what the worker itself says. Every worker of a pool may say the same, so it goes by the lane's queue, whose one
    /// consumer tells it once. A canary that finds its lane at rest is not kept: there is nothing to find out.
    async fn hand_over_own(&self, own: &Own, delivery: &Delivery, receipt: Receipt) {
        let in_memory = match own {
            Own::Notice => {
                self.metrics.matched.inc();
                Some(self.metrics.hold_in_memory())
            }
            Own::Canary(_) => match self.told.borrow().state {
                LaneState::Flowing | LaneState::Probing { .. } => None,
                LaneState::Paused { .. } | LaneState::Held { .. } | LaneState::Stopped => {
                    debug!(channel = %self.id, canary = %delivery.decision.id, "the lane rests: no canary is sent");
                    receipt.settle();
                    return;
                }
            },
        };
        self.settler.park(delivery, receipt, self.metrics.stake(in_memory)).await;
    }
}

/// Starts the lane's task. It runs until `stop`; then it finishes what is under way and gives back the rest.
pub fn start(
    plan: LanePlan,
    tools: LaneTools,
    metrics: ChannelMetrics,
    tracker: &TaskTracker,
    stop: CancellationToken,
) -> LaneHandle {
    start_in(LaneState::Flowing, plan, tools, metrics, tracker, stop)
}

/// The same for a channel that an operator has paused: nothing is sent and the queue is not touched until [`LaneHandle::resume`].
pub fn start_stopped(
    plan: LanePlan,
    tools: LaneTools,
    metrics: ChannelMetrics,
    tracker: &TaskTracker,
    stop: CancellationToken,
) -> LaneHandle {
    start_in(LaneState::Stopped, plan, tools, metrics, tracker, stop)
}

fn start_in(
    first: LaneState,
    plan: LanePlan,
    tools: LaneTools,
    metrics: ChannelMetrics,
    tracker: &TaskTracker,
    stop: CancellationToken,
) -> LaneHandle {
    let (sender, inbox) = mpsc::channel(plan.memory.max(1));
    let open = Arc::new(AtomicBool::new(false));
    let (announce, told) = watch::channel(Told::now(first.clone()));
    let (orders, ordered) = Orders::new();
    let handle = LaneHandle {
        id: plan.id.clone(),
        inbox: sender,
        orders,
        open: Arc::clone(&open),
        told,
        settler: tools.settler.clone(),
        metrics: metrics.clone(),
    };
    let lane = task::Lane::new(first, plan, tools, metrics, task::Doors { inbox, orders: ordered, open, announce });
    tracker.spawn(lane.run(stop));
    handle
}
