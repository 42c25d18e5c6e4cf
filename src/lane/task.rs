//! The loop of a lane: it waits, sends, asks `step::decide`, and does what it says. No rule lives here.
//!
//! Where a delivery can be in a lane: `ready` (to be sent as soon as pace and state allow), `later` (its own wait is not over),
//! `forming` (rendered, waiting for company in a batch), or under way in `sends`. Each of them is bounded: by the inbox, by the
//! window of the lane queue's consumer, by the concurrency.
//!
//! Start with [`Lane::run`]. What comes in is in `taking.rs`, what a try leads to in `outcome.rs`.

mod batching;
mod folding;
mod oldest;
mod orders;
mod outcome;
mod ready;
mod recent;
mod taking;
mod window;

use std::{
    collections::BTreeMap,
    num::NonZeroU16,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::{folding::Folding, oldest::Sending, ready::Ready, recent::Recent, window::window};
use crate::{
    broker::{Arrivals, Queue},
    channels::{BatchLimits, Channel, Occasion, Parcel},
    lane::{Errand, LanePlan, LaneState, LaneTools, backoff::Backoff, order::Order, pace::Pace, state::Told, step},
    model::{Reply, Trouble},
    telemetry::ChannelMetrics,
};

/// Deliveries from memory whose own wait is longer than this wait on the broker.
const WAIT_IN_MEMORY_MAX: Duration = Duration::from_secs(5);

/// How often a wait that goes on is added to the metrics, and the oldest delivery is looked for.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// How many deliveries may wait in memory for a later try.
const LATER_MAX: usize = 64;

/// A delivery from memory that has waited longer for its turn shows that the lane has fallen behind.
const TURN_MAX: Duration = Duration::from_millis(500);

/// A lane that had fallen behind has caught up when it has had nothing to do for so long.
const CAUGHT_UP_AFTER: Duration = Duration::from_secs(1);

/// Nothing taken from the lane's queue stays unacknowledged longer: the broker closes the channel of a consumer that holds on
/// for 30 minutes (`consumer_timeout`), and a send may still be under way. Source: broker.md.
const HOLD_MAX: Duration = Duration::from_mins(15);

/// How many deliveries are taken from the lane's queue in one turn.
const TAKEN_AT_ONCE_MAX: usize = 64;

/// The lane's task.
pub(super) struct Lane {
    plan: LanePlan,
    batching: Option<BatchLimits>,
    tools: LaneTools,
    metrics: ChannelMetrics,
    inbox: mpsc::Receiver<Errand>,
    orders: mpsc::Receiver<Order>,
    arrivals: Arrivals,
    consuming_since: Instant,
    window: NonZeroU16,
    open: Arc<AtomicBool>,
    announce: watch::Sender<Told>,
    state: LaneState,
    failures: u32,
    pauses: u32,
    holds: u32,
    detour: Option<String>,
    pace: Pace,
    backoff: Backoff,
    ready: Ready,
    later: BTreeMap<(Instant, u64), Errand>,
    later_count: u64,
    forming: Option<Forming>,
    folding: Folding,
    /// Until when the endpoint asked to be left alone: a new configuration does not change that.
    asked_until: Option<Instant>,
    /// How many orders the lane has taken.
    told: u64,
    /// Since when there is room for nothing more.
    full_since: Option<Instant>,
    /// Whether the last arrival had been handed out before: to this worker, or to another one that sent with a pace of its own.
    /// `None` before the first one.
    taken_over: Option<bool>,
    recent: Recent,
    /// Whether the lane has fallen behind: then what comes waits on the broker, until the lane has caught up.
    overloaded: bool,
    /// Since when a lane that had fallen behind has nothing to do.
    idle_since: Option<Instant>,
    /// When the present wait was last added to the metrics.
    waiting_since: Instant,
}

/// The lane's ends of what its handle holds.
pub(super) struct Doors {
    /// Deliveries straight from the intake.
    pub(super) inbox: mpsc::Receiver<Errand>,
    /// What the lane is told to do.
    pub(super) orders: mpsc::Receiver<Order>,
    /// Whether the inbox is open at present.
    pub(super) open: Arc<AtomicBool>,
    /// Where the lane says what it does.
    pub(super) announce: watch::Sender<Told>,
}

/// A batch that waits for company.
struct Forming {
    errands: Vec<Errand>,
    records: Vec<Bytes>,
    bytes: usize,
    due: Instant,
}

/// What one request tells.
struct Load {
    errands: Vec<Errand>,
    /// Where it is a digest of them all: whether in plain text.
    digest: Option<bool>,
}

/// A try that has come back.
struct Sent {
    load: Load,
    /// Who made the request and knows what the reply means.
    channel: Arc<dyn Channel>,
    /// How many orders the lane had taken by then.
    told: u64,
    result: Result<Reply, Trouble>,
    took: Duration,
    probe: bool,
    detoured: bool,
}

type Sends = FuturesUnordered<Sending>;

impl Lane {
    pub(super) fn new(
        first: LaneState,
        plan: LanePlan,
        tools: LaneTools,
        metrics: ChannelMetrics,
        doors: Doors,
    ) -> Self {
        let Doors { inbox, orders, open, announce } = doors;
        let pace = Pace::new(&plan.pace);
        let batching = plan.channel.batcher().map(crate::channels::Batcher::limits).filter(|limits| limits.events > 1);
        let window = window(&plan, batching);
        let arrivals = match first {
            LaneState::Stopped => Arrivals::nothing(),
            LaneState::Flowing | LaneState::Paused { .. } | LaneState::Probing { .. } | LaneState::Held { .. } => {
                tools.broker.consume(Queue::Lane(plan.id.clone()), window)
            }
        };
        let now = Instant::now();
        let mut lane = Self {
            plan,
            batching,
            tools,
            metrics,
            inbox,
            orders,
            arrivals,
            consuming_since: now,
            window,
            open,
            announce,
            state: LaneState::Flowing,
            failures: 0,
            pauses: 0,
            holds: 0,
            detour: None,
            pace,
            backoff: Backoff::new(),
            ready: Ready::default(),
            later: BTreeMap::new(),
            later_count: 0,
            forming: None,
            folding: Folding::default(),
            asked_until: None,
            told: 0,
            full_since: None,
            taken_over: None,
            recent: Recent::default(),
            overloaded: false,
            idle_since: None,
            waiting_since: now,
        };
        lane.enter(first);
        lane
    }

    /// Runs until `stop`. A send under way is always finished: the endpoint may already have it, so dropping it here would mean
    /// a duplicate later.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut sends = Sends::new();
        let (mut fresh, mut arrived) = (Vec::new(), Vec::new());
        let mut retired: Option<oneshot::Sender<()>> = None;
        let mut looks = tokio::time::interval(COUNT_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            let now = Instant::now();
            self.wake_up(now).await;
            self.send_what_may_go(now, &mut sends).await;
            self.show_whether_it_tries(!sends.is_empty());
            self.catch_up(now, sends.len());
            let free = self.capacity().saturating_sub(self.ready.len() + sends.len());
            self.watch_the_inbox(now, free);
            let wake = self.next_wake(now, sends.len());
            let take_memory = free > 0 || self.overloaded || !self.flows();
            // A lane that flows takes as much as it can send; one that does not hands everything on, but bit by bit.
            let most = if self.flows() && !self.overloaded { free } else { 1 };
            let queue_room = self.queue_room(sends.len());
            let waits_for = self.waits_for(sends.len());
            // Every arm is cancel-safe; what follows a won race is not, and is done outside of it.
            tokio::select! {
                () = stop.cancelled() => {}
                Some(order) = self.orders.recv() => {
                    self.told += 1;
                    retired = self.obey(order).await;
                    if retired.is_some() {
                        break;
                    }
                }
                Some(sent) = sends.next(), if !sends.is_empty() => self.conclude(sent).await,
                1.. = self.inbox.recv_many(&mut fresh, most), if take_memory => {
                    for errand in fresh.drain(..) {
                        self.take_errand(errand, sends.len()).await;
                    }
                }
                taken = self.arrivals.recv_many(&mut arrived, queue_room), if queue_room > 0 => {
                    if taken == 0 {
                        // The broker was closed, or the consumer has died: a lane that ends is noticed, one that waits is not.
                        break;
                    }
                    for arrival in arrived.drain(..) {
                        self.take_arrival(arrival).await;
                    }
                },
                () = tokio::time::sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
                _ = looks.tick(), if self.has_an_oldest(sends.len()) => self.show_oldest(&sends),
            }
            self.count_wait(waits_for);
        }
        self.wind_up(sends).await;
        if let Some(done) = retired {
            // Whoever ordered it may have been dropped since; then nobody needs to know.
            let _ended = done.send(());
        }
    }

    fn flows(&self) -> bool {
        matches!(self.state, LaneState::Flowing)
    }

    /// How many deliveries may be in hand: enough to keep every send busy and to fill a batch.
    fn capacity(&self) -> usize {
        usize::from(self.plan.concurrency.get()).max(self.batching.map_or(1, |limits| limits.events))
    }

    /// How many deliveries may be taken from the lane's queue now. One that folds takes what its window holds: only what it has
    /// seen can it count. What is urgent is taken in any case, and bounded by its own window.
    fn queue_room(&self, under_way: usize) -> usize {
        let in_hand = self.ready.len() + under_way;
        let most = if self.plan.digest.is_some() { self.window.get().into() } else { self.capacity() };
        match self.state {
            LaneState::Flowing if self.arrivals.has_urgent() => {
                most.saturating_sub(in_hand).clamp(1, TAKEN_AT_ONCE_MAX)
            }
            LaneState::Flowing => most.saturating_sub(in_hand).min(TAKEN_AT_ONCE_MAX),
            LaneState::Probing { .. } if under_way > 0 => 0,
            LaneState::Probing { .. } => usize::from(self.ready.is_empty() || self.arrivals.has_urgent()),
            LaneState::Paused { .. } | LaneState::Held { .. } | LaneState::Stopped => 0,
        }
    }

    /// What time has brought about: waits that are over, a pause that ends in a probe, a window that must be given back.
    async fn wake_up(&mut self, now: Instant) {
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= now) {
            self.ready.push_back(entry.remove());
        }
        match &self.state {
            LaneState::Paused { until, why } if *until <= now => {
                self.enter(LaneState::Probing { held: false, trying: false, why: why.clone() });
            }
            LaneState::Held { until, why } if *until <= now => {
                self.enter(LaneState::Probing { held: true, trying: false, why: why.clone() });
            }
            LaneState::Flowing
            | LaneState::Paused { .. }
            | LaneState::Probing { .. }
            | LaneState::Held { .. }
            | LaneState::Stopped => {}
        }
        if self.hold_ends().is_some_and(|end| end <= now) {
            self.renew_window(now).await;
        }
    }

    /// When the loop must turn again without anything arriving.
    fn next_wake(&self, now: Instant, under_way: usize) -> Option<Instant> {
        let state = match &self.state {
            LaneState::Paused { until, .. } | LaneState::Held { until, .. } => Some(*until),
            LaneState::Flowing | LaneState::Probing { .. } | LaneState::Stopped => None,
        };
        let sendable = !self.ready.is_empty() || self.forming.is_some();
        let most = match self.state {
            LaneState::Flowing => usize::from(self.plan.concurrency.get()),
            LaneState::Probing { .. } => 1,
            LaneState::Paused { .. } | LaneState::Held { .. } | LaneState::Stopped => 0,
        };
        let pace = (sendable && under_way < most).then(|| self.pace.next(now)).filter(|at| *at > now);
        let later = self.later.first_key_value().map(|((due, _), _)| *due);
        let forming = self.forming.as_ref().map(|forming| forming.due);
        // A wake in the past would spin: what is due by now was dealt with, or waits for something else.
        let caught_up = self.idle_since.filter(|_| self.overloaded).map(|since| since + CAUGHT_UP_AFTER);
        let behind = self.full_since.map(|since| since + TURN_MAX);
        // So that whoever looks at the numbers sees a long wait grow.
        let counted = self.waits_for(under_way).map(|_| now + COUNT_EVERY);
        [state, pace, later, forming, caught_up, behind, counted, self.hold_ends()]
            .into_iter()
            .flatten()
            .filter(|at| *at > now)
            .min()
    }

    async fn send_what_may_go(&mut self, now: Instant, sends: &mut Sends) {
        loop {
            let (limit, probe) = match self.state {
                LaneState::Flowing => (usize::from(self.plan.concurrency.get()), false),
                LaneState::Probing { .. } => (1, true),
                LaneState::Paused { .. } | LaneState::Held { .. } | LaneState::Stopped => return,
            };
            if sends.len() >= limit || self.pace.next(now) > now {
                return;
            }
            let Some((load, parcel)) = self.next_parcel(now, probe).await else { return };
            // Not `now`: rendering a digest of thousands takes its time, and the endpoint counts from when it sees the request.
            self.pace.take(Instant::now());
            self.folding.last = load.digest.is_some();
            sends.push(self.send(load, parcel, probe));
        }
    }

    /// The next request to send, if one is due.
    async fn next_parcel(&mut self, now: Instant, probe: bool) -> Option<(Load, Parcel)> {
        if let Some(digest) = self.next_digest(probe).await {
            return Some(digest);
        }
        let (errands, parcel) = self.next_telling(now, probe).await?;
        Some((Load { errands, digest: None }, parcel))
    }

    async fn next_telling(&mut self, now: Instant, probe: bool) -> Option<(Vec<Errand>, Parcel)> {
        match self.batching {
            None => loop {
                let errand = self.next_in_time().await?;
                if let Some(ready) = self.render(errand).await {
                    return Some(ready);
                }
            },
            Some(limits) => self.next_batch(now, limits, probe).await,
        }
    }

    /// The next ready delivery that is not too late; those that are end here.
    async fn next_in_time(&mut self) -> Option<Errand> {
        loop {
            let errand = self.ready.pop_front()?;
            if errand.comes_again() {
                continue;
            }
            if self.is_known(&errand) {
                self.conclude_known(errand);
                continue;
            }
            let now = self.tools.clock.now();
            match step::too_late(&errand.delivery, self.plan.chat, self.plan.retry.max_age(), now) {
                None => return Some(errand),
                Some(reason) => self.bury(errand, reason, "its time had passed", None).await,
            }
        }
    }

    async fn render(&mut self, errand: Errand) -> Option<(Vec<Errand>, Parcel)> {
        let occasion =
            Occasion { now: self.tools.clock.now(), links: &self.plan.links, detour: self.detour.as_deref() };
        let channel = &self.plan.channel;
        // A panic of our own on some text would come back with every redelivery: it ends as a dead letter.
        let parcel = std::panic::catch_unwind(AssertUnwindSafe(|| channel.render(&errand.delivery, &occasion)));
        match parcel {
            Ok(parcel) => Some((vec![errand], parcel)),
            Err(_panic) => {
                self.bury_poison(errand).await;
                None
            }
        }
    }

    fn send(&self, load: Load, parcel: Parcel, probe: bool) -> Sending {
        let (post, limit, detoured) = (Arc::clone(&self.tools.post), self.plan.timeout, self.detour.is_some());
        // From here on, and not from the first poll: a loop that is busy with arrivals may come to it later.
        let started = Instant::now();
        let (channel, told) = (Arc::clone(&self.plan.channel), self.told);
        let oldest = Sending::oldest_of(&load.errands);
        let sent = async move {
            let result = post.post(parcel, limit).await;
            Sent { load, channel, told, result, took: started.elapsed(), probe, detoured }
        };
        Sending::new(oldest, Box::pin(sent))
    }

    fn enter(&mut self, state: LaneState) {
        // A probing lane takes one from memory too: its queue may be another worker's to consume.
        let open = match state {
            LaneState::Probing { .. } => !self.pace.is_limited(),
            LaneState::Flowing => !self.pace.is_limited() && !self.overloaded,
            LaneState::Paused { .. } | LaneState::Held { .. } | LaneState::Stopped => false,
        };
        self.open.store(open, Ordering::Relaxed);
        self.metrics.show_state(state.index());
        if let LaneState::Paused { until, why } = &state {
            warn!(channel = %self.plan.id, why, wait = ?until.saturating_duration_since(Instant::now()), "the lane is paused");
        }
        self.announce.send_modify(|told| told.turn(state.clone()));
        self.state = state;
    }

    /// A lane that was held and has nothing to try with has found nothing out: it is not to look as if it were about to.
    fn show_whether_it_tries(&mut self, tries: bool) {
        if let LaneState::Probing { trying, .. } = &mut self.state
            && *trying != tries
        {
            *trying = tries;
            self.metrics.show_state(self.state.index());
            self.announce.send_modify(|told| told.turn(self.state.clone()));
        }
    }

    /// Adds the time since the last turn to the wait that the lane was in then.
    fn count_wait(&mut self, why: Option<usize>) {
        let now = Instant::now();
        let time = now.saturating_duration_since(self.waiting_since);
        self.waiting_since = now;
        if let Some(why) = why {
            self.metrics.waited(why, time);
        }
    }

    /// What the lane waits for, if it has work: an index of [`crate::telemetry::metrics::LANE_WAITS`].
    fn waits_for(&self, under_way: usize) -> Option<usize> {
        match &self.state {
            LaneState::Paused { .. } => Some(2),
            LaneState::Held { .. } => Some(3),
            LaneState::Flowing if under_way == 0 && !self.ready.is_empty() => Some(0),
            LaneState::Flowing if under_way == 0 && !self.later.is_empty() => Some(1),
            LaneState::Flowing | LaneState::Probing { .. } | LaneState::Stopped => None,
        }
    }

    /// Finishes what is under way and gives back the rest: memory to the lane's queue, the lane's queue to itself.
    async fn wind_up(mut self, mut sends: Sends) {
        self.inbox.close();
        while let Some(errand) = self.inbox.recv().await {
            self.ready.push_back(errand);
        }
        // First what need not wait for an endpoint that may hang.
        self.rest_in(self.state.clone()).await;
        while let Some(sent) = sends.next().await {
            self.conclude(sent).await;
        }
        self.rest_in(self.state.clone()).await;
        self.open.store(false, Ordering::Relaxed);
        self.metrics.oldest_waiting.set(0);
        let given_back = self.ready.len() + self.later.len();
        debug!(channel = %self.plan.id, given_back, "the lane has stopped");
        // The consumer goes before the receipts, so that what is given back comes not again to us.
        drop(self.arrivals);
    }
}
