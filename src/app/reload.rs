//! Taking a new configuration over while decisions flow.
//!
//! An added channel gets its queue, then its lane, then its decisions. A changed one keeps its lane and all that waits in it, and does
//! as the new configuration says from now on. A removed one gets no more decisions; its lane finishes what is under way and ends,
//! and what waits in its queue is the undertaker's (`orphans.rs`). A lane whose channel did not change is not touched: its pauses,
//! failures and pace stay as they are. Links in cards and `[egress]` concern every channel, so when they change, all have changed.
//!
//! Channels that were made over the API are not in the file and stay as they are, but for two reasons to change: the file may begin
//! or cease to hide one (see `made.rs`), and another `[egress]` may forbid one, or allow it.
//!
//! Everything that can fail comes before the first change, so a configuration is taken over whole or not at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::{
    orphans::{Census, Tenure},
    steward::Steward,
};
use crate::{
    approvals::Terms,
    broker::{BrokerError, Queue},
    config::{BrokerPlan, ChannelPlan, HttpPlan, Plan},
    intake::Router,
    lane::{ClientError, HttpPost, LaneHandle, LaneState, Post},
    model::ChannelId,
    telemetry::Metrics,
};

/// How long the queues of added channels may take to be made: this, and so much more for each.
pub(super) const ENSURE_MAX: Duration = Duration::from_secs(15);
const ENSURE_EACH: Duration = Duration::from_millis(100);

/// How long what was on its way to a removed lane's queue is waited for.
const SETTLE_MAX: Duration = Duration::from_mins(5);
const SETTLE_LOOK: Duration = Duration::from_millis(50);

/// Why a configuration was not taken over. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The queues of added channels.
    #[error("the queues of added channels could not be made")]
    Broker(#[from] BrokerError),
    /// The root certificates.
    #[error("endpoints cannot be posted to")]
    Client(#[from] ClientError),
    /// The worker stops.
    #[error("the worker stops")]
    Stopping,
}

impl ReloadError {
    /// What the operator can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Broker(cause) => cause.hint,
            Self::Client(_) => "install the package `ca-certificates`",
            Self::Stopping => "the configuration is read again at the next start",
        }
    }
}

/// What a reload came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Channels that are new.
    pub added: BTreeSet<ChannelId>,
    /// Channels that are configured otherwise.
    pub changed: BTreeSet<ChannelId>,
    /// Channels that are gone.
    pub removed: BTreeSet<ChannelId>,
    /// Sections that differ and that only a restart takes over.
    pub needs_restart: Vec<&'static str>,
}

impl Reloaded {
    /// What leads from the channels of `old` to those of `new`; with `all`, every channel that stays has changed.
    pub(super) fn between(old: &[ChannelPlan], new: &[ChannelPlan], all: bool) -> Self {
        let before: BTreeMap<&ChannelId, &str> =
            old.iter().map(|channel| (&channel.id, channel.fingerprint.as_str())).collect();
        let mut difference = Self::default();
        for ChannelPlan { id, fingerprint, .. } in new {
            match before.get(id) {
                None => drop(difference.added.insert(id.clone())),
                Some(before) if all || before != fingerprint => drop(difference.changed.insert(id.clone())),
                Some(_) => {}
            }
        }
        let after: BTreeSet<&ChannelId> = new.iter().map(|channel| &channel.id).collect();
        difference.removed = before.into_keys().filter(|id| !after.contains(id)).cloned().collect();
        difference
    }
}

/// What the worker was started with and a reload cannot change.
#[derive(Debug)]
pub(super) struct Fixed {
    data_dir: PathBuf,
    broker: BrokerPlan,
    http: HttpPlan,
    approvals: Terms,
    grace: Duration,
}

impl Fixed {
    pub(super) fn of(plan: &Plan) -> Self {
        let Plan { data_dir, broker, http, approvals, shutdown_grace, .. } = plan;
        let (data_dir, broker) = (data_dir.clone(), broker.clone());
        Self { data_dir, broker, http: *http, approvals: *approvals, grace: *shutdown_grace }
    }

    /// What of it differs in `plan`.
    fn differences(&self, plan: &Plan) -> Vec<&'static str> {
        let all = [
            ("data_dir", self.data_dir != plan.data_dir),
            ("[broker]", self.broker != plan.broker),
            ("[http] listen, metrics_listen", self.http != plan.http),
            ("[approvals]", self.approvals != plan.approvals),
            ("[shutdown]", self.grace != plan.shutdown_grace),
        ];
        all.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}

impl Steward {
    /// Takes `plan` over, or changes nothing.
    pub(super) async fn reload(&mut self, plan: Plan) -> Result<Reloaded, ReloadError> {
        let everybody = *self.links != plan.links || self.egress != plan.egress;
        let book = self.book_with(&plan.egress);
        let all = Self::all(&plan.channels, &book);
        let mut reloaded = Reloaded::between(&self.channels, &all, everybody);
        let post = if self.egress == plan.egress {
            Arc::clone(&self.tools.post)
        } else {
            Arc::new(HttpPost::new(Arc::new(plan.egress.clone()), self.tools.clock)?) as Arc<dyn Post>
        };
        self.enrol(&reloaded.added, false).await?;

        reloaded.needs_restart = self.fixed.differences(&plan);
        self.admit(&plan.access, &plan.links, &plan.peers);
        self.tools.post = post;
        let Plan { egress, links, channels, .. } = plan;
        (self.egress, self.links, self.file, self.book) = (egress, Arc::new(links), channels, book);
        self.install(all, &reloaded).await;
        self.metrics.config_reloaded.set(self.now());
        self.metrics.config_sound.set(1);
        self.tell_reloaded(&reloaded);
        Ok(reloaded)
    }

    fn tell_reloaded(&self, reloaded: &Reloaded) {
        let Reloaded { added, changed, removed, needs_restart } = reloaded;
        let channels = self.channels.len();
        info!(channels, ?added, ?changed, ?removed, "the new configuration was taken over");
        if !needs_restart.is_empty() {
            let sections = needs_restart.join(", ");
            warn!(sections, "these sections have changed too and are taken over by a restart only: restart the worker");
        }
    }

    /// Makes the queues of added channels. From here on nobody removes them; on an error too, where they are `surely` added.
    pub(super) async fn enrol(&self, added: &BTreeSet<ChannelId>, surely: bool) -> Result<(), ReloadError> {
        if added.is_empty() {
            return Ok(());
        }
        let census = &self.boards.census;
        let before = census.borrow().clone();
        let removing = Arc::clone(&before.removing);
        // A queue that is being removed at this moment is removed first.
        let _nobody_removes = removing.lock().await;
        census.send_modify(|census| added.iter().for_each(|id| census.set(id, Tenure::Configured)));
        let broker = &self.tools.broker;
        let limit = ENSURE_MAX + ENSURE_EACH * u32::try_from(added.len()).unwrap_or(u32::MAX);
        let ensured = tokio::time::timeout(limit, broker.ensure_lanes(added.iter().cloned().collect())).await;
        let connected = broker.health().borrow().connected;
        match ensured {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if connected => {
                for id in added {
                    // The broker must not ask for a queue that is not there at every reconnect. One that is there stays.
                    if broker.waiting(Queue::Lane(id.clone())).await.is_err() {
                        broker.forget_lane(id);
                    }
                }
                if !surely {
                    census.send_modify(|census| added.iter().for_each(|id| census.restore(id, &before)));
                }
                Err(error.into())
            }
            Ok(Err(_)) | Err(_) => {
                warn!("the queues of added channels could not be made yet; they are when the broker is there");
                Ok(())
            }
        }
    }

    /// Gives every present channel its lane; returns the lanes of those that are gone.
    pub(super) async fn rearrange(&mut self, changed: &BTreeSet<ChannelId>) -> Vec<LaneHandle> {
        let mut old: BTreeMap<ChannelId, LaneHandle> =
            std::mem::take(&mut self.lanes).into_iter().map(|lane| (lane.id().clone(), lane)).collect();
        let mut lanes = Vec::with_capacity(self.channels.len());
        for channel in &self.channels {
            let lane = match old.remove(&channel.id) {
                Some(lane) => {
                    if changed.contains(&channel.id) {
                        lane.renew(self.lane_plan(channel), self.tools.clone()).await;
                        self.stop_or_start(&lane).await;
                    }
                    lane
                }
                None => self.start_lane(channel),
            };
            lanes.push(lane);
        }
        self.lanes = lanes;
        old.into_values().collect()
    }

    /// A channel that cannot be read any more stops; one that can be read again, and that nobody paused, goes on.
    async fn stop_or_start(&self, lane: &LaneHandle) {
        if self.is_locked(lane.id()) {
            lane.stop_sending().await;
        } else if lane.state() == LaneState::Stopped && self.standing.pause(lane.id()).is_none() {
            lane.resume().await;
        }
    }

    /// Lets removed lanes end; nothing is routed to them any more.
    pub(super) fn dismiss(&self, removed: &BTreeSet<ChannelId>, lanes: Vec<LaneHandle>, before: &Weak<Router>) {
        let census = &self.boards.census;
        let of = |id: &ChannelId| lanes.iter().any(|lane| lane.id() == id);
        census.send_modify(|census| {
            for id in removed {
                if of(id) {
                    census.set(id, Tenure::Retiring);
                } else {
                    // Its lane had not started yet.
                    self.metrics.remove_gauges(id);
                    census.set(id, Tenure::removed_now());
                }
            }
        });
        for lane in lanes {
            let end = retire(lane, before.clone(), Arc::clone(census), self.metrics.clone());
            let stop = self.tasks.stop.clone();
            self.tasks.background.spawn(async move { stop.run_until_cancelled(end).await });
        }
    }
}

/// Lets a lane end, and hands what waits in its queue over to the undertaker.
async fn retire(lane: LaneHandle, before: Weak<Router>, census: Arc<watch::Sender<Census>>, metrics: Metrics) {
    lane.retire().await;
    // The intake may be in the middle of a batch that goes by the old router, and deliveries may be on their way to the queue.
    let settled = async {
        while before.strong_count() > 0 || lane.metrics().in_memory.get() > 0 {
            tokio::time::sleep(SETTLE_LOOK).await;
        }
    };
    if tokio::time::timeout(SETTLE_MAX, settled).await.is_err() {
        debug!(channel = %lane.id(), "something is still on its way to the queue of a removed channel");
    }
    census.send_modify(|census| {
        // Unless the channel has come back meanwhile.
        if census.tenure(lane.id()) == Some(Tenure::Retiring) {
            metrics.remove_gauges(lane.id());
            census.set(lane.id(), Tenure::removed_now());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::plan;

    #[test]
    fn what_has_changed_is_told_by_channel_and_nothing_else_is_touched() {
        let channel =
            |id: &str, url: &str| format!("[[channel]]\nid = \"{id}\"\nkind = \"discord\"\nwebhook_url = \"{url}\"\n");
        let (one, two) = ("https://discord.com/api/webhooks/1/aaaa", "https://discord.com/api/webhooks/1/bbbb");
        let before = plan(&[channel("a", one), channel("b", one), channel("c", one)].concat());
        let after = plan(&[channel("d", one), channel("b", two), channel("a", one)].concat());
        let ids = |ids: &[&str]| ids.iter().map(|id| id.parse().unwrap()).collect::<BTreeSet<ChannelId>>();
        let difference = Reloaded::between(&before.channels, &after.channels, false);
        assert_eq!((difference.added, difference.changed, difference.removed), (ids(&["d"]), ids(&["b"]), ids(&["c"])));
        let difference = Reloaded::between(&before.channels, &after.channels, true);
        assert_eq!(difference.changed, ids(&["a", "b"]), "links concern every channel that stays");
        assert_eq!(Reloaded::between(&before.channels, &before.channels, false), Reloaded::default());
    }

    #[test]
    fn what_only_a_restart_takes_over_is_named() {
        let before = plan("data_dir = \"/one\"\n");
        let after = plan(
            "data_dir = \"/two\"\n[shutdown]\ngrace = \"1s\"\n[approvals]\ngrant = \"1s\"\n[broker]\nurl = \"amqp://localhost\"\n",
        );
        assert_eq!(Fixed::of(&before).differences(&after), ["data_dir", "[broker]", "[approvals]", "[shutdown]"]);
        assert_eq!(Fixed::of(&before).differences(&before), Vec::<&str>::new());
    }
}
