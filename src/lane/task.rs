//! The loop of a lane: it waits, sends, asks `step::decide`, and does what it says. No rule lives here.
//!
//! Where a delivery can be in a lane: `ready` (to be sent as soon as pace and state allow), `later` (its own wait is not over),
//! `forming` (rendered, waiting for company in a batch), or under way in `sends`. Each of them is bounded: by the inbox, by the
//! window of the lane queue's consumer, by the concurrency.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    num::NonZeroU16,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{
    Errand, LanePlan, LaneState, LaneTools, Origin,
    backoff::Backoff,
    pace::Pace,
    step::{self, Answer, Course, Fate, Form, Standing, Step, Tried},
};
use crate::{
    broker::{Arrival, Arrivals, Queue},
    channels::{BatchLimits, Occasion, Parcel},
    dead_letters::{DeadLetter, LastReply},
    model::{DeathReason, Delivery, DeliveryId, Ending, Reply, Trouble, Verdict},
    telemetry::ChannelMetrics,
};

/// Deliveries from memory whose own wait is longer than this wait on the broker.
const WAIT_IN_MEMORY_MAX: Duration = Duration::from_secs(5);

/// How many deliveries may wait in memory for a later try.
const LATER_MAX: usize = 64;

/// A delivery from memory that has waited longer for its turn shows that the lane has fallen behind.
const TURN_MAX: Duration = Duration::from_millis(500);

/// A lane that had fallen behind has caught up when it has had nothing to do for so long.
const CAUGHT_UP_AFTER: Duration = Duration::from_secs(1);

/// Nothing taken from the lane's queue stays unacknowledged longer: the broker closes the channel of a consumer that holds on
/// for 30 minutes (`consumer_timeout`), and a send may still be under way. Source: broker.md.
const HOLD_MAX: Duration = Duration::from_mins(15);

/// How many delivered ids a lane remembers, so that a redelivery after a lost connection is no duplicate.
const RECENT_MAX: usize = 4096;

/// The lane's task.
pub(super) struct Lane {
    plan: LanePlan,
    batching: Option<BatchLimits>,
    tools: LaneTools,
    metrics: ChannelMetrics,
    inbox: mpsc::Receiver<Errand>,
    arrivals: Arrivals,
    consuming_since: Instant,
    window: NonZeroU16,
    open: Arc<AtomicBool>,
    announce: watch::Sender<LaneState>,
    state: LaneState,
    failures: u32,
    pauses: u32,
    holds: u32,
    detour: Option<String>,
    pace: Pace,
    backoff: Backoff,
    ready: VecDeque<Errand>,
    later: BTreeMap<(Instant, u64), Errand>,
    later_count: u64,
    forming: Option<Forming>,
    recent: Recent,
    /// Whether the lane has fallen behind: then what comes waits on the broker, until the lane has caught up.
    overloaded: bool,
    /// Since when a lane that had fallen behind has nothing to do.
    idle_since: Option<Instant>,
    /// When the present wait was last added to the metrics.
    waiting_since: Instant,
}

/// A batch that waits for company.
struct Forming {
    errands: Vec<Errand>,
    records: Vec<Bytes>,
    bytes: usize,
    due: Instant,
}

/// A try that has come back.
struct Sent {
    errands: Vec<Errand>,
    result: Result<Reply, Trouble>,
    took: Duration,
    probe: bool,
    detoured: bool,
}

type Sends = FuturesUnordered<BoxFuture<'static, Sent>>;

impl Lane {
    pub(super) fn new(
        plan: LanePlan,
        tools: LaneTools,
        metrics: ChannelMetrics,
        inbox: mpsc::Receiver<Errand>,
        open: Arc<AtomicBool>,
        announce: watch::Sender<LaneState>,
    ) -> Self {
        let pace = Pace::new(&plan.pace);
        let batching = plan.channel.batcher().map(crate::channels::Batcher::limits).filter(|limits| limits.events > 1);
        let window = window(&plan, batching);
        let arrivals = tools.broker.consume(Queue::Lane(plan.id.clone()), window);
        let now = Instant::now();
        let mut lane = Self {
            plan,
            batching,
            tools,
            metrics,
            inbox,
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
            ready: VecDeque::new(),
            later: BTreeMap::new(),
            later_count: 0,
            forming: None,
            recent: Recent::default(),
            overloaded: false,
            idle_since: None,
            waiting_since: now,
        };
        lane.enter(LaneState::Flowing);
        lane
    }

    /// Runs until `stop`. A send under way is always finished: the endpoint may already have it, so dropping it here would mean
    /// a duplicate later.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut sends = Sends::new();
        let mut fresh = Vec::new();
        while !stop.is_cancelled() {
            let now = Instant::now();
            self.wake_up(now).await;
            self.send_what_may_go(now, &mut sends).await;
            self.catch_up(now, sends.len());
            let wake = self.next_wake(now, sends.len());
            let free = self.capacity().saturating_sub(self.ready.len() + sends.len());
            let room = free > 0;
            let take_memory = room || self.overloaded || !self.flows();
            // A lane that flows takes as much as it can send; one that does not hands everything on, but bit by bit.
            let most = if self.flows() && !self.overloaded { free } else { 1 };
            let take_queue = room && self.may_take_from_queue(sends.len());
            // Every arm is cancel-safe; what follows a won race is not, and is done outside of it.
            tokio::select! {
                () = stop.cancelled() => {}
                Some(sent) = sends.next(), if !sends.is_empty() => self.conclude(sent).await,
                1.. = self.inbox.recv_many(&mut fresh, most), if take_memory => {
                    for errand in fresh.drain(..) {
                        self.take_errand(errand, sends.len()).await;
                    }
                }
                arrival = self.arrivals.recv(), if take_queue => match arrival {
                    Some(arrival) => self.take_arrival(arrival).await,
                    // The broker was closed, or the consumer has died: a lane that ends is noticed, one that waits is not.
                    None => break,
                },
                () = tokio::time::sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
            }
            self.count_wait(sends.len());
        }
        self.wind_up(sends).await;
    }

    fn flows(&self) -> bool {
        matches!(self.state, LaneState::Flowing)
    }

    /// How many deliveries may be in hand: enough to keep every send busy and to fill a batch.
    fn capacity(&self) -> usize {
        usize::from(self.plan.concurrency.get()).max(self.batching.map_or(1, |limits| limits.events))
    }

    fn may_take_from_queue(&self, under_way: usize) -> bool {
        match self.state {
            LaneState::Flowing => true,
            LaneState::Probing { .. } => under_way == 0 && self.ready.is_empty(),
            LaneState::Paused { .. } | LaneState::Held { .. } | LaneState::Stopped => false,
        }
    }

    /// What time has brought about: waits that are over, a pause that ends in a probe, a window that must be given back.
    async fn wake_up(&mut self, now: Instant) {
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= now) {
            self.ready.push_back(entry.remove());
        }
        match &self.state {
            LaneState::Paused { until, why } if *until <= now => {
                self.enter(LaneState::Probing { held: false, why: why.clone() });
            }
            LaneState::Held { until, why } if *until <= now => {
                self.enter(LaneState::Probing { held: true, why: why.clone() });
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

    /// When the window of the lane's queue must be given back, if anything of it may be held for long.
    fn hold_ends(&self) -> Option<Instant> {
        if !self.flows() {
            return Some(self.consuming_since + HOLD_MAX);
        }
        let held = self.ready.iter().chain(self.later.values()).filter(|errand| errand.origin == Origin::LaneQueue);
        held.map(|errand| errand.taken_at + HOLD_MAX).min()
    }

    /// Gives back what was taken from the lane's queue and is not under way: it comes again at once.
    ///
    /// To consume anew is the cheap way, and makes another worker the queue's one consumer. Where the lane is limited that
    /// worker's pace would know nothing of what was sent here, so each delivery goes back as a message of its own instead.
    async fn renew_window(&mut self, now: Instant) {
        self.consuming_since = now;
        if self.pace.is_limited() {
            self.requeue_window().await;
            return;
        }
        self.arrivals = self.tools.broker.consume(Queue::Lane(self.plan.id.clone()), self.window);
        let before = self.ready.len() + self.later.len();
        self.ready.retain(|errand| errand.origin == Origin::Memory);
        self.later.retain(|_, errand| errand.origin == Origin::Memory);
        let given_back = before - self.ready.len() - self.later.len();
        debug!(channel = %self.plan.id, given_back, "gave the lane queue's window back");
    }

    async fn requeue_window(&mut self) {
        // What the consumer has buffered is held as well. No more than a window, or what goes back would be taken again.
        for _ in 0..self.window.get() {
            let Some(Some(arrival)) = self.arrivals.recv().now_or_never() else { break };
            self.take_arrival(arrival).await;
        }
        let (now, ready) = (Instant::now(), std::mem::take(&mut self.ready));
        let later = std::mem::take(&mut self.later);
        let all = ready.into_iter().map(|errand| (None, errand));
        let all: Vec<_> = all.chain(later.into_iter().map(|(key, errand)| (Some(key), errand))).collect();
        debug!(channel = %self.plan.id, held = all.len(), "gives the lane queue's window back, one message each");
        for (key, mut errand) in all {
            match (errand.origin, key) {
                (Origin::Memory, None) => self.ready.push_back(errand),
                (Origin::Memory, Some(key)) => {
                    self.later.insert(key, errand);
                }
                (Origin::LaneQueue, key) => {
                    let wait = key.map(|(due, _)| due.saturating_duration_since(now));
                    errand.delivery.not_before = wait.map(|wait| self.tools.clock.now().plus(wait));
                    self.park(errand).await;
                }
            }
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
        [state, pace, later, forming, caught_up, self.hold_ends()].into_iter().flatten().filter(|at| *at > now).min()
    }

    async fn take_errand(&mut self, errand: Errand, under_way: usize) {
        let idle = under_way == 0 && self.ready.is_empty();
        let wanted_for_probe = matches!(self.state, LaneState::Probing { .. }) && idle;
        if self.flows() && !self.overloaded && errand.taken_at.elapsed() > TURN_MAX {
            // A slow endpoint must hold no more decisions than it can take in a moment: the intake's window is everybody's.
            warn!(channel = %self.plan.id, waiting = self.inbox.len(), "the lane has fallen behind; what comes waits on the broker");
            self.overloaded = true;
            self.open.store(false, Ordering::Relaxed);
        }
        let room = self.ready.len() + under_way < self.capacity();
        if (self.flows() && (room || !self.overloaded)) || wanted_for_probe {
            self.accept(errand);
        } else {
            // The lane cannot deliver now: the broker keeps it, and the decision is free.
            self.park(errand).await;
        }
    }

    async fn take_arrival(&mut self, arrival: Arrival) {
        match Delivery::from_bytes(&arrival.body) {
            Ok(mut delivery) => {
                delivery.channel = self.plan.id.clone();
                let errand = Errand {
                    delivery,
                    receipt: arrival.receipt,
                    origin: Origin::LaneQueue,
                    in_memory: None,
                    redelivered: arrival.redelivered,
                    taken_at: Instant::now(),
                };
                self.accept(errand);
            }
            Err(fault) => {
                warn!(channel = %self.plan.id, error = %fault, "a message in the lane's queue is no delivery; it is kept as a dead letter");
                let now = self.tools.clock.now();
                let letter = DeadLetter::of_message(arrival.body, DeathReason::Malformed, &fault.to_string(), now);
                self.tools.settler.bury(letter, arrival.receipt, None).await;
            }
        }
    }

    /// A lane that had fallen behind takes from memory again when it has had nothing to do for a while. What it handed to the
    /// broker comes back to it, so as long as there is a backlog it has.
    fn catch_up(&mut self, now: Instant, under_way: usize) {
        let idle = self.flows()
            && under_way == 0
            && self.ready.is_empty()
            && self.forming.is_none()
            && self.arrivals.is_empty()
            && self.inbox.is_empty();
        if !self.overloaded || !idle {
            self.idle_since = None;
        } else if *self.idle_since.get_or_insert(now) + CAUGHT_UP_AFTER <= now {
            info!(channel = %self.plan.id, "the lane has caught up");
            self.overloaded = false;
            self.enter(LaneState::Flowing);
        }
    }

    fn accept(&mut self, errand: Errand) {
        if self.is_known(&errand) {
            self.conclude_known(errand);
            return;
        }
        let wait = errand.delivery.not_before.map_or(Duration::ZERO, |due| due.since(self.tools.clock.now()));
        // Nobody writes down a longer wait than this: what says so was written, or is read, by a clock that is wrong.
        let longest = self.plan.retry.longest().max(step::ASKED_WAIT_MAX);
        if wait.is_zero() || wait > longest {
            self.ready.push_back(errand);
        } else {
            self.keep_for_later(errand, wait);
        }
    }

    /// Whether it was delivered before a connection was lost, and the broker had not heard of it.
    fn is_known(&self, errand: &Errand) -> bool {
        errand.redelivered && self.recent.contains(errand.delivery.id())
    }

    fn conclude_known(&self, errand: Errand) {
        debug!(channel = %self.plan.id, delivery = %errand.delivery.id(), "already delivered; the broker had not heard of it");
        if errand.origin == Origin::Memory {
            self.metrics.ended(Ending::Delivered, 1);
        }
        errand.receipt.settle();
    }

    fn keep_for_later(&mut self, errand: Errand, wait: Duration) {
        self.later_count += 1;
        self.later.insert((Instant::now() + wait, self.later_count), errand);
    }

    async fn park(&mut self, errand: Errand) {
        if errand.comes_again() {
            return;
        }
        let stake = self.metrics.stake(errand.in_memory);
        self.tools.settler.park(&errand.delivery, errand.receipt, stake).await;
    }

    /// Keeps a delivery to be tried as soon as may be: here, or on the broker where the lane rests and the delivery came from
    /// memory, so that no decision waits unacknowledged behind a pause.
    async fn keep(&mut self, errand: Errand) {
        if self.flows() || errand.origin == Origin::LaneQueue {
            self.ready.push_back(errand);
        } else {
            self.park(errand).await;
        }
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
            let Some((errands, parcel)) = self.next_parcel(now, probe).await else { return };
            self.pace.take(now);
            sends.push(self.send(errands, parcel, probe));
        }
    }

    /// The next request to send, if one is due.
    async fn next_parcel(&mut self, now: Instant, probe: bool) -> Option<(Vec<Errand>, Parcel)> {
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

    async fn next_batch(&mut self, now: Instant, limits: BatchLimits, probe: bool) -> Option<(Vec<Errand>, Parcel)> {
        loop {
            let batch = self.next_due_batch(now, limits, probe).await?;
            // Where all of a batch was poison, the next one may be due as well.
            if let Some(ready) = self.pack(batch).await {
                return Some(ready);
            }
        }
    }

    async fn next_due_batch(&mut self, now: Instant, limits: BatchLimits, probe: bool) -> Option<Forming> {
        loop {
            let forming_full = self.forming.as_ref().is_some_and(|forming| {
                probe || forming.errands.len() >= limits.events || forming.bytes >= limits.bytes || forming.due <= now
            });
            if forming_full {
                break;
            }
            let Some(errand) = self.next_in_time().await else { break };
            // What was refused once goes alone, so that it cannot drag others down again.
            let alone = errand.delivery.plain;
            if alone && self.forming.is_some() {
                self.ready.push_front(errand);
                break;
            }
            let occasion = Occasion { now: self.tools.clock.now(), links: &self.plan.links, detour: None };
            let batcher = self.plan.channel.batcher()?;
            let record = std::panic::catch_unwind(AssertUnwindSafe(|| batcher.record(&errand.delivery, &occasion)));
            let Ok(record) = record else {
                self.bury_poison(errand).await;
                continue;
            };
            let due = if alone { now } else { now + limits.wait };
            let forming =
                self.forming.get_or_insert_with(|| Forming { errands: Vec::new(), records: Vec::new(), bytes: 0, due });
            if !forming.records.is_empty() && forming.bytes + record.len() > limits.bytes {
                // It would not fit: this batch goes now, and the delivery is first in the next one.
                self.ready.push_front(errand);
                break;
            }
            forming.bytes += record.len();
            forming.records.push(record);
            forming.errands.push(errand);
        }
        let forming = self.forming.as_ref()?;
        let would_overflow = !self.ready.is_empty();
        let due =
            probe || forming.errands.len() >= limits.events || forming.bytes >= limits.bytes || forming.due <= now;
        if !due && !would_overflow {
            return None;
        }
        self.forming.take()
    }

    async fn pack(&mut self, mut forming: Forming) -> Option<(Vec<Errand>, Parcel)> {
        loop {
            let occasion = Occasion { now: self.tools.clock.now(), links: &self.plan.links, detour: None };
            let batcher = self.plan.channel.batcher()?;
            let packed = std::panic::catch_unwind(AssertUnwindSafe(|| batcher.pack(&forming.records, &occasion)));
            if let Ok(parcel) = packed {
                return Some((forming.errands, parcel));
            }
            // Halves find out whose fault it is; the loop ends at one.
            if forming.errands.len() > 1 {
                let half = forming.errands.len().div_ceil(2);
                self.split(std::mem::take(&mut forming.errands), half).await;
            } else if let Some(errand) = forming.errands.pop() {
                self.bury_poison(errand).await;
            }
            forming = self.forming.take()?;
        }
    }

    fn send(&self, errands: Vec<Errand>, parcel: Parcel, probe: bool) -> BoxFuture<'static, Sent> {
        let (post, limit, detoured) = (Arc::clone(&self.tools.post), self.plan.timeout, self.detour.is_some());
        Box::pin(async move {
            let started = Instant::now();
            let result = post.post(parcel, limit).await;
            Sent { errands, result, took: started.elapsed(), probe, detoured }
        })
    }

    /// Does what the rules say about a try that has come back.
    async fn conclude(&mut self, sent: Sent) {
        let Sent { errands, result, took, probe, detoured } = sent;
        let answer = match &result {
            Ok(reply) => Answer::Reply(self.judge(reply)),
            Err(trouble) => Answer::Silence(*trouble),
        };
        let Some(first) = errands.first() else { return };
        let attempts = errands.iter().map(|errand| errand.delivery.attempts).min().unwrap_or(0);
        let tried = Tried { attempts, plain: first.delivery.plain, detoured, batch: errands.len() };
        let resting = !probe
            && matches!(self.state, LaneState::Paused { .. } | LaneState::Held { .. } | LaneState::Probing { .. });
        let standing = Standing { probe, resting, failures: self.failures, pauses: self.pauses, holds: self.holds };
        let step = step::decide(&answer, tried, standing, &self.plan.retry, &mut self.backoff);
        let verdict = match answer {
            Answer::Reply(verdict) => verdict,
            Answer::Silence(trouble) => trouble.into(),
        };
        self.metrics.attempt_duration.observe(took.as_secs_f64());
        self.metrics.tried(verdict.outcome(), 1);
        let why = self.tools.scrubber.scrub(verdict.why());
        let status = result.as_ref().ok().map(|reply| reply.status.as_u16());
        self.tell(&errands, &verdict, status, &why, took, &step);
        let last = (!why.is_empty()).then(|| LastReply { status, text: why.clone(), at: self.tools.clock.now() });
        self.take_course(step.course, why, probe).await;
        self.carry_out(errands, step.fate, last).await;
    }

    fn judge(&self, reply: &Reply) -> Verdict {
        std::panic::catch_unwind(AssertUnwindSafe(|| self.plan.channel.judge(reply))).unwrap_or_else(|_panic| {
            error!(channel = %self.plan.id, status = reply.status.as_u16(), "judging a reply panicked: please report it");
            crate::channels::judging::by_status(reply)
        })
    }

    /// The one line of a try.
    fn tell(&self, errands: &[Errand], verdict: &Verdict, status: Option<u16>, why: &str, took: Duration, step: &Step) {
        let Some(first) = errands.first() else { return };
        // The firehose is counted, not narrated, and so it does not pay for words that nobody reads.
        let quiet = matches!(step.fate, Fate::Delivered) && !self.pace.is_limited();
        if quiet && !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let (channel, outcome, next) = (&self.plan.id, verdict.outcome().as_str(), step.in_words());
        let (took_ms, count) = (took.as_millis(), errands.len());
        let (id, decision, attempt) = (first.delivery.id(), &first.delivery.decision.id, first.delivery.attempts + 1);
        match (&step.fate, step.course) {
            (Fate::Delivered, _) if quiet => {
                debug!(%channel, delivery = %id, decision = %decision, count, outcome, status, took_ms, attempt, next, "attempt");
            }
            (Fate::Delivered, _) => {
                info!(%channel, delivery = %id, decision = %decision, count, outcome, status, took_ms, attempt, next, "attempt");
            }
            (Fate::Bury(_) | Fate::BuryOne { .. }, _) | (_, Course::Hold { .. }) => {
                error!(%channel, delivery = %id, decision = %decision, count, outcome, status, took_ms, attempt, why, next, "attempt");
            }
            (Fate::Again { .. } | Fate::Split, _) => {
                warn!(%channel, delivery = %id, decision = %decision, count, outcome, status, took_ms, attempt, why, next, "attempt");
            }
        }
    }

    async fn carry_out(&mut self, errands: Vec<Errand>, fate: Fate, last: Option<LastReply>) {
        match fate {
            Fate::Delivered => errands.into_iter().for_each(|errand| self.delivered(errand)),
            Fate::Again { after, counts, form } => {
                if let Form::Detour(to) = &form {
                    warn!(channel = %self.plan.id, "the destination has moved; following it, but the configuration should be changed");
                    self.detour = Some(to.clone());
                }
                for mut errand in errands {
                    errand.delivery.attempts += u32::from(counts);
                    errand.delivery.plain |= form == Form::Plain;
                    if step::is_exhausted(errand.delivery.attempts, &self.plan.retry) {
                        // Of a batch, some may have been tried more often than others.
                        let detail = last.as_ref().map_or(String::new(), |last| last.text.clone());
                        self.bury(errand, DeathReason::Exhausted, &detail, last.clone()).await;
                    } else {
                        self.again(errand, after, counts).await;
                    }
                }
            }
            Fate::Bury(reason) => {
                let detail = last.as_ref().map_or(String::new(), |last| last.text.clone());
                for mut errand in errands {
                    errand.delivery.attempts += u32::from(reason == DeathReason::Exhausted);
                    self.bury(errand, reason, &detail, last.clone()).await;
                }
            }
            Fate::BuryOne { accepted } => {
                let detail = last.as_ref().map_or(String::new(), |last| last.text.clone());
                for (at, errand) in errands.into_iter().enumerate() {
                    match at.cmp(&accepted) {
                        std::cmp::Ordering::Less => self.delivered(errand),
                        std::cmp::Ordering::Equal => {
                            self.bury(errand, DeathReason::Refused, &detail, last.clone()).await;
                        }
                        std::cmp::Ordering::Greater => self.keep(errand).await,
                    }
                }
            }
            Fate::Split => {
                let half = errands.len().div_ceil(2);
                self.split(errands, half).await;
            }
        }
    }

    /// Sends the first half as soon as it may go, as one batch; the second half forms the next.
    async fn split(&mut self, mut errands: Vec<Errand>, half: usize) {
        if matches!(self.state, LaneState::Paused { .. } | LaneState::Held { .. } | LaneState::Stopped) {
            // It was sent before the lane came to rest: the next batch after it is made of whatever is there by then.
            for errand in errands {
                self.keep(errand).await;
            }
            return;
        }
        let rest = errands.split_off(half);
        let now = Instant::now();
        if let Some(forming) = self.forming.take() {
            forming.errands.into_iter().rev().for_each(|errand| self.ready.push_front(errand));
        }
        rest.into_iter().rev().for_each(|errand| self.ready.push_front(errand));
        let occasion = Occasion { now: self.tools.clock.now(), links: &self.plan.links, detour: None };
        let Some(batcher) = self.plan.channel.batcher() else { return };
        let records: Vec<Bytes> = errands.iter().map(|errand| batcher.record(&errand.delivery, &occasion)).collect();
        let bytes = records.iter().map(Bytes::len).sum();
        self.forming = Some(Forming { errands, records, bytes, due: now });
    }

    fn delivered(&mut self, errand: Errand) {
        let now = self.tools.clock.now();
        self.metrics.delivery_latency.observe(now.since(errand.delivery.decision.time).as_secs_f64());
        self.metrics.ended(Ending::Delivered, 1);
        self.recent.insert(errand.delivery.id());
        errand.receipt.settle();
    }

    async fn again(&mut self, mut errand: Errand, after: Duration, counted: bool) {
        let stays = match errand.origin {
            Origin::Memory => self.flows() && after <= WAIT_IN_MEMORY_MAX && self.later.len() < LATER_MAX,
            // A counted attempt is written down, so that it survives this worker.
            Origin::LaneQueue => !counted,
        };
        if stays && after.is_zero() {
            self.ready.push_front(errand);
        } else if stays && !self.flows() {
            // The lane's own rest comes first; the delivery is the next to be tried after it.
            self.ready.push_back(errand);
        } else if stays {
            self.keep_for_later(errand, after);
        } else {
            // Where the lane itself rests, the delivery has no wait of its own: it would outlive a rest that an operator, a
            // restart or another worker ends early.
            errand.delivery.not_before = self.flows().then(|| self.tools.clock.now().plus(after));
            self.park(errand).await;
        }
    }

    async fn bury(&mut self, errand: Errand, reason: DeathReason, detail: &str, last: Option<LastReply>) {
        if errand.comes_again() {
            return;
        }
        let now = self.tools.clock.now();
        warn!(channel = %self.plan.id, delivery = %errand.delivery.id(), decision = %errand.delivery.decision.id, %reason, detail, "dead letter");
        let letter = DeadLetter::of_delivery(&errand.delivery, reason, detail, last, now);
        let stake = self.metrics.stake(errand.in_memory);
        self.tools.settler.bury(letter, errand.receipt, Some(stake)).await;
    }

    async fn bury_poison(&mut self, errand: Errand) {
        error!(channel = %self.plan.id, decision = %errand.delivery.decision.id, "rendering a decision panicked: please report it");
        self.bury(errand, DeathReason::Poison, "rendering it panicked", None).await;
    }

    async fn take_course(&mut self, course: Course, why: String, probe: bool) {
        let now = Instant::now();
        match course {
            Course::Flow { breathe } => {
                (self.failures, self.pauses, self.holds) = (0, 0, 0);
                self.pace.rest(now, breathe);
                if breathe > WAIT_IN_MEMORY_MAX {
                    // Too long to wait for in memory, so it is a pause like any other.
                    let why = String::from("the endpoint asked to be left alone for a while");
                    self.rest_in(LaneState::Paused { until: now + breathe, why }).await;
                } else if !self.flows() {
                    info!(channel = %self.plan.id, was = self.state.as_str(), "the lane flows again");
                    self.enter(LaneState::Flowing);
                }
            }
            // What was sent before the lane came to rest is no new failure.
            Course::Stay => self.failures = self.failures.saturating_add(u32::from(self.flows())),
            Course::Pause { wait } => {
                self.failures = self.failures.saturating_add(1);
                let until = now + wait;
                match &self.state {
                    // What was sent before the pause can prolong it, and begins no new one.
                    LaneState::Paused { until: present, .. } if !probe => {
                        let until = (*present).max(until);
                        self.enter(LaneState::Paused { until, why });
                    }
                    LaneState::Held { .. } | LaneState::Probing { .. } | LaneState::Stopped if !probe => {}
                    LaneState::Flowing
                    | LaneState::Paused { .. }
                    | LaneState::Probing { .. }
                    | LaneState::Held { .. }
                    | LaneState::Stopped => {
                        self.pauses = self.pauses.saturating_add(1);
                        self.rest_in(LaneState::Paused { until, why }).await;
                    }
                }
            }
            Course::Hold { wait } => {
                let already = matches!(self.state, LaneState::Held { .. } | LaneState::Stopped) && !probe;
                if !already {
                    self.holds = self.holds.saturating_add(1);
                    error!(channel = %self.plan.id, why, next_probe_in = ?wait, "the lane is held: its destination is broken until somebody acts");
                    self.rest_in(LaneState::Held { until: now + wait, why }).await;
                }
            }
        }
    }

    /// Comes to rest: what came from memory is handed to the broker, so that nothing but the broker waits.
    async fn rest_in(&mut self, state: LaneState) {
        if self.flows() {
            // Only then: a probe that fails must not make the lane forget since when it holds its window.
            self.consuming_since = Instant::now();
        }
        self.enter(state);
        if let Some(forming) = self.forming.take() {
            self.ready.extend(forming.errands);
        }
        for errand in std::mem::take(&mut self.ready) {
            match errand.origin {
                Origin::Memory => self.park(errand).await,
                Origin::LaneQueue => self.ready.push_back(errand),
            }
        }
        let (memory, queue) =
            std::mem::take(&mut self.later).into_iter().partition(|(_, errand)| errand.origin == Origin::Memory);
        self.later = queue;
        let memory: BTreeMap<_, Errand> = memory;
        for ((due, _), mut errand) in memory {
            errand.delivery.not_before =
                Some(self.tools.clock.now().plus(due.saturating_duration_since(Instant::now())));
            self.park(errand).await;
        }
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
        self.announce.send_replace(state.clone());
        self.state = state;
    }

    /// Adds the time since the last turn to the wait that the lane was in, if it had work.
    fn count_wait(&mut self, under_way: usize) {
        let now = Instant::now();
        let time = now.saturating_duration_since(self.waiting_since);
        self.waiting_since = now;
        let why = match &self.state {
            LaneState::Paused { .. } => Some(2),
            LaneState::Held { .. } => Some(3),
            LaneState::Flowing if under_way == 0 && !self.ready.is_empty() => Some(0),
            LaneState::Flowing if under_way == 0 && !self.later.is_empty() => Some(1),
            LaneState::Flowing | LaneState::Probing { .. } | LaneState::Stopped => None,
        };
        if let Some(why) = why {
            self.metrics.waited(why, time);
        }
    }

    /// Finishes what is under way and gives back the rest: memory to the lane's queue, the lane's queue to itself.
    async fn wind_up(mut self, mut sends: Sends) {
        self.open.store(false, Ordering::Relaxed);
        while let Some(sent) = sends.next().await {
            self.conclude(sent).await;
        }
        self.inbox.close();
        while let Some(errand) = self.inbox.recv().await {
            self.ready.push_back(errand);
        }
        self.rest_in(self.state.clone()).await;
        let given_back = self.ready.len() + self.later.len();
        debug!(channel = %self.plan.id, given_back, "the lane has stopped");
        // The consumer goes before the receipts, so that what is given back comes not again to us.
        drop(self.arrivals);
    }
}

/// How many deliveries of the lane's queue are held at once: enough to keep the sends busy, few enough that at the lane's pace
/// the last of them is sent long before the broker loses patience.
fn window(plan: &LanePlan, batching: Option<BatchLimits>) -> NonZeroU16 {
    // The broker takes most of a tenth of a second to send more after acknowledgements (measured: quorum queue, 3.10): a backlog
    // is drained at a window in that time.
    let busy = u32::from(plan.concurrency.get()) * 32;
    let busy =
        busy.max(batching.map_or(1, |limits| u32::try_from(limits.events * 2).unwrap_or(u32::MAX))).clamp(64, 2_000);
    let by_pace = plan.pace.iter().map(|rate| {
        let in_ten_minutes =
            Duration::from_mins(10).as_secs_f64() / rate.per.as_secs_f64().max(1e-9) * f64::from(rate.count);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range first")]
        let deliveries = in_ten_minutes.clamp(1.0, 2_000.0) as u32;
        deliveries
    });
    let window = by_pace.fold(busy, u32::min);
    u16::try_from(window).ok().and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN)
}

/// The deliveries that were delivered last.
#[derive(Default)]
struct Recent {
    order: VecDeque<DeliveryId>,
    known: HashSet<DeliveryId>,
}

impl Recent {
    fn insert(&mut self, id: DeliveryId) {
        if self.known.insert(id) {
            self.order.push_back(id);
            if self.order.len() > RECENT_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }

    fn contains(&self, id: DeliveryId) -> bool {
        self.known.contains(&id)
    }
}
