//! Lanes that are known and not configured here, and what becomes of the deliveries that wait in them.
//!
//! A channel may be gone because of a reload, or because the worker was started with another file. AMQP cannot list queues, so every
//! worker writes down in the log of the channels which lanes it has ([`Registrar`]). A lane that the log knows and this worker does
//! not have is an orphan, and what waits in it becomes dead, `channel_removed`; then its queue goes, and the log says so
//! ([`Undertaker`]). A replay brings a letter back to the lane when the channel is back.
//!
//! Another worker may still have the channel: in a rolling restart the pool has two configurations for a while. So a lane that
//! anybody consumes is left alone; so is, at first, a lane without a consumer, because its worker may just be connecting, as we did a
//! moment ago; and so is one that an operator paused, since a paused lane has no consumer by design. Where this worker itself was
//! told that a channel is gone, by a reload, it waits for the present consumers only.
//!
//! Absent on purpose: certainty. A pool whose workers disagree for good about which channels there are buries, now and then, what
//! another half would have delivered; the letters say so, and can be replayed.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    num::NonZeroU16,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};
use tracing::{debug, info, warn};

use crate::{
    broker::{Arrival, Broker, BrokerError, Health, Queue},
    channel_log::{ChannelLog, Deed, Entry, Standing},
    dead_letters::DeadLetter,
    model::{ChannelId, Clock, DeathReason, Delivery},
    settle::Settler,
    telemetry::Metrics,
};

/// How often orphans are looked at; sooner right after a reload, and while one is being emptied.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const LOOK_SOON: Duration = Duration::from_millis(250);

/// How long after a connection was made nobody's silence means anything.
const CONNECTING: Duration = Duration::from_secs(10);

/// How long a lane that the log knows must have been without a consumer: longer than a worker takes to be started again. And how
/// long after a reload of ours a paused lane is left alone, whose other workers cannot be seen: longer than they take to reload.
const CERTAIN: Duration = Duration::from_secs(10);
const PAUSED_CERTAIN: Duration = Duration::from_secs(10);

/// Deliveries in the undertaker's hands at once.
const WINDOW: NonZeroU16 = NonZeroU16::new(64).expect("64 is not zero");

/// A queue that gives nothing for this long is empty for now, or somebody else's.
const QUIET: Duration = Duration::from_secs(3);

/// How many lanes are written down at once.
const WRITES_MAX: usize = 32;

/// What a worker writes down as its name.
const BY: &str = "worker";

/// What this worker has to do with a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tenure {
    /// Its channel is configured.
    Configured,
    /// Its channel was removed by a reload, and the lane still finishes what is under way.
    Retiring,
    /// Its channel was removed by a reload, at this moment, and its queue is left.
    Removed(Instant),
}

impl Tenure {
    pub(super) fn removed_now() -> Self {
        Self::Removed(Instant::now())
    }
}

/// The lanes that this worker has something to do with.
#[derive(Clone, Debug)]
pub(super) struct Census {
    lanes: BTreeMap<ChannelId, Tenure>,
    /// Held while a queue is removed, so that a channel that comes back at this moment gets its queue afterwards.
    pub(super) removing: Arc<Mutex<()>>,
}

impl Census {
    /// These are configured.
    pub(super) fn of(lanes: impl IntoIterator<Item = ChannelId>) -> Self {
        let lanes = lanes.into_iter().map(|id| (id, Tenure::Configured)).collect();
        Self { lanes, removing: Arc::default() }
    }

    pub(super) fn tenure(&self, id: &ChannelId) -> Option<Tenure> {
        self.lanes.get(id).copied()
    }

    pub(super) fn set(&mut self, id: &ChannelId, tenure: Tenure) {
        self.lanes.insert(id.clone(), tenure);
    }

    /// Makes it what it was in `before`.
    pub(super) fn restore(&mut self, id: &ChannelId, before: &Self) {
        match before.tenure(id) {
            Some(tenure) => self.set(id, tenure),
            None => drop(self.lanes.remove(id)),
        }
    }

    fn configured(&self) -> impl Iterator<Item = &ChannelId> {
        self.lanes.iter().filter(|(_, tenure)| **tenure == Tenure::Configured).map(|(id, _)| id)
    }

    /// The lanes whose channels are gone, and since when where it was a reload of ours.
    fn orphans(&self, known: &BTreeSet<ChannelId>) -> Vec<(ChannelId, Option<Instant>)> {
        let strangers = known.iter().filter(|id| !self.lanes.contains_key(*id)).map(|id| (id.clone(), None));
        let ours = self.lanes.iter().filter_map(|(id, tenure)| match tenure {
            Tenure::Removed(since) => Some((id.clone(), Some(*since))),
            Tenure::Configured | Tenure::Retiring => None,
        });
        ours.chain(strangers).collect()
    }

    fn is_orphan(&self, id: &ChannelId) -> bool {
        !matches!(self.tenure(id), Some(Tenure::Configured | Tenure::Retiring))
    }
}

/// Writes down which lanes there are.
pub(super) struct Registrar {
    pub(super) log: ChannelLog,
    pub(super) clock: Clock,
    pub(super) census: watch::Receiver<Census>,
    pub(super) standing: watch::Receiver<Arc<Standing>>,
}

impl Registrar {
    /// Writes down each lane that the log does not know, for ever.
    pub(super) async fn run(mut self) {
        // What was written and has not been read yet.
        let mut written: HashSet<ChannelId> = HashSet::new();
        loop {
            let standing = Arc::clone(&self.standing.borrow_and_update());
            written.retain(|id| !standing.lanes().contains(id));
            // A log that was not read yet may know them all.
            if standing.is_known() {
                let missing: Vec<ChannelId> = {
                    let census = self.census.borrow_and_update();
                    let news =
                        census.configured().filter(|id| !standing.lanes().contains(*id) && !written.contains(*id));
                    news.cloned().collect()
                };
                let mut writing = stream::iter(missing).map(|id| self.write(id)).buffer_unordered(WRITES_MAX);
                while let Some(done) = writing.next().await {
                    written.extend(done);
                }
            }
            let changed = tokio::select! {
                changed = self.census.changed() => changed,
                changed = self.standing.changed() => changed,
                () = tokio::time::sleep(LOOK_EVERY) => Ok(()),
            };
            if changed.is_err() {
                return;
            }
        }
    }

    async fn write(&self, id: ChannelId) -> Option<ChannelId> {
        let entry = Entry::new(id.clone(), Deed::Lane, BY, None, self.clock.now());
        match self.log.append(&entry).await {
            Ok(()) => Some(id),
            Err(error) => {
                debug!(channel = %id, %error, "a lane could not be written down yet");
                None
            }
        }
    }
}

/// Buries what waits in lanes whose channels are gone.
pub(super) struct Undertaker {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) settler: Settler,
    pub(super) log: ChannelLog,
    pub(super) metrics: Metrics,
    pub(super) clock: Clock,
    pub(super) census: Arc<watch::Sender<Census>>,
    pub(super) standing: watch::Receiver<Arc<Standing>>,
    /// Whether an empty queue is ours to remove.
    pub(super) may_remove: bool,
}

/// What the undertaker remembers between two looks.
#[derive(Default)]
struct Memory {
    /// Since when nobody consumes a lane in which something waits.
    unattended: BTreeMap<ChannelId, Instant>,
    /// Paused orphans that were told already.
    told: HashSet<ChannelId>,
}

impl Undertaker {
    /// Looks after orphans, for ever.
    pub(super) async fn run(self) {
        let mut health = self.broker.health();
        let mut census = self.census.subscribe();
        let mut memory = Memory::default();
        let mut pause = LOOK_SOON;
        loop {
            if health.wait_for(|health| health.connected).await.is_err() {
                return;
            }
            let connection = health.borrow_and_update().reconnects;
            let connected_at = Instant::now();
            memory.unattended.clear();
            let same = |now: Health| now.connected && now.reconnects == connection;
            while same(*health.borrow()) {
                if self.look(connected_at.elapsed() >= CONNECTING, &mut memory).await {
                    pause = LOOK_SOON;
                }
                let changed = tokio::time::timeout(pause, census.changed()).await;
                pause = if changed.is_ok() { LOOK_SOON } else { (pause * 2).min(LOOK_EVERY) };
            }
        }
    }

    /// Looks at every orphan once; whether something was done, so that another look soon is worth it.
    async fn look(&self, settled: bool, memory: &mut Memory) -> bool {
        let standing = Arc::clone(&self.standing.borrow());
        if !standing.is_known() {
            // What the file has lost may be in the log, where a channel of the same id was hidden by it.
            return false;
        }
        let mut orphans = self.census.borrow().orphans(standing.lanes());
        // A channel that the log holds is not gone, whether it can be run here or not.
        orphans.retain(|(lane, _)| standing.channel(lane).is_none());
        let mut busy = false;
        for (lane, removed_at) in orphans {
            let paused = standing.pause(&lane).is_some();
            let may_look = match removed_at {
                Some(since) => !paused || since.elapsed() >= PAUSED_CERTAIN,
                None => settled && !paused,
            };
            if may_look {
                busy |= self.visit(&lane, removed_at.is_some(), memory).await;
            } else if paused && settled && removed_at.is_none() && memory.told.insert(lane.clone()) {
                warn!(channel = %lane, "the channel is paused and not configured here; another worker may have it, so its queue is left alone");
            }
        }
        busy
    }

    /// Sees whether the lane is left alone, buried from, or gone; whether something was done.
    async fn visit(&self, lane: &ChannelId, ours: bool, memory: &mut Memory) -> bool {
        match self.try_to_remove(lane).await {
            None => false,
            Some(Err(error)) => {
                debug!(channel = %lane, %error, "the queue of a channel that is not configured here is left alone");
                memory.unattended.remove(lane);
                false
            }
            Some(Ok(0)) => {
                memory.unattended.remove(lane);
                self.write_off(lane).await
            }
            Some(Ok(waiting)) => {
                let since = *memory.unattended.entry(lane.clone()).or_insert_with(Instant::now);
                let certain = ours || since.elapsed() >= CERTAIN;
                if certain {
                    self.empty(lane, waiting).await;
                }
                certain
            }
        }
    }

    /// Removes the queue if it is empty and nobody consumes it; how many wait. `None` when the channel has come back.
    async fn try_to_remove(&self, lane: &ChannelId) -> Option<Result<u64, BrokerError>> {
        let removing = Arc::clone(&self.census.borrow().removing);
        let _guard = removing.lock().await;
        if !self.census.borrow().is_orphan(lane) {
            return None;
        }
        // The operator's own queue stays; it just must be empty.
        if !self.may_remove && matches!(self.broker.waiting(Queue::Lane(lane.clone())).await, Ok(0)) {
            return Some(Ok(0));
        }
        Some(self.broker.remove_lane(lane.clone()).await)
    }

    /// Writes down that the lane is gone. If that fails, the next look finds no queue and writes it again.
    async fn write_off(&self, lane: &ChannelId) -> bool {
        let entry = Entry::new(lane.clone(), Deed::LaneRemoved, BY, None, self.clock.now());
        if let Err(error) = self.log.append(&entry).await {
            debug!(channel = %lane, %error, "the end of a lane could not be written down yet");
            return false;
        }
        info!(channel = %lane, "the lane of a removed channel is gone");
        let mut standing = self.standing.clone();
        // An error says that the worker stops; a record that does not come back is written again.
        drop(tokio::time::timeout(LOOK_EVERY, standing.wait_for(|standing| standing.has(entry.id))).await);
        self.census.send_if_modified(|census| {
            let gone = matches!(census.tenure(lane), Some(Tenure::Removed(_)));
            if gone {
                census.lanes.remove(lane);
            }
            gone
        });
        true
    }

    /// Buries at most `waiting` deliveries: whoever publishes to the lane all the same may have a worker that wants them.
    async fn empty(&self, lane: &ChannelId, waiting: u64) {
        let mut arrivals = self.broker.consume(Queue::Lane(lane.clone()), WINDOW);
        let mut buried = 0;
        while buried < waiting {
            let Ok(Some(arrival)) = tokio::time::timeout(QUIET, arrivals.recv()).await else { break };
            if !self.census.borrow().is_orphan(lane) {
                // It has come back, and gets this delivery again.
                break;
            }
            self.bury(lane, arrival).await;
            buried += 1;
        }
        if buried > 0 {
            warn!(channel = %lane, buried, "the channel was removed: what waited for it is dead, and can be replayed when it is back");
        }
    }

    async fn bury(&self, lane: &ChannelId, arrival: Arrival) {
        let (Arrival { body, receipt, .. }, now) = (arrival, self.clock.now());
        let letter = match Delivery::from_bytes(&body) {
            Ok(mut delivery) => {
                delivery.channel = lane.clone();
                let why = "the channel is no longer in the configuration";
                DeadLetter::of_delivery(&delivery, DeathReason::ChannelRemoved, why, None, now)
            }
            Err(fault) => DeadLetter {
                channel: Some(lane.clone()),
                ..DeadLetter::of_message(body, DeathReason::Malformed, &fault.to_string(), now)
            },
        };
        self.settler.bury(letter, receipt, Some(self.metrics.stake_of_removed(lane))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_orphan_is_known_to_the_log_and_not_ours_or_was_removed_by_us() {
        let id = |id: &str| id.parse::<ChannelId>().unwrap();
        let mut census = Census::of([id("here"), id("leaving"), id("left")]);
        census.set(&id("leaving"), Tenure::Retiring);
        let since = Instant::now();
        census.set(&id("left"), Tenure::Removed(since));
        let known = ["here", "leaving", "elsewhere"].map(id).into();
        assert_eq!(census.orphans(&known), [(id("left"), Some(since)), (id("elsewhere"), None)]);
        for (lane, orphan) in [("here", false), ("leaving", false), ("left", true), ("elsewhere", true)] {
            assert_eq!(census.is_orphan(&id(lane)), orphan, "{lane}");
        }
        let before = census.clone();
        for lane in ["left", "new"] {
            census.set(&id(lane), Tenure::Configured);
            assert!(!census.is_orphan(&id(lane)));
            census.restore(&id(lane), &before);
        }
        assert_eq!(census.lanes, before.lanes, "a refused reload leaves no trace");
    }
}
