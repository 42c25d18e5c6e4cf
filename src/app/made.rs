//! Channels of the log: how the steward takes over what operators make, and what it shows of it.
//!
//! Every worker hears of a change by the log and takes it over by the way of a reload: queues, lanes, and the end of what is gone.
//! A reload can be refused; a record cannot, because the other workers have it too. So where a queue cannot be made, the channel is
//! run all the same, the queue is tried again, and what cannot rest in it meanwhile dies with its reason (`settle`).
//!
//! The file wins: a channel of the log whose id the file has is kept and not run, and both the log and the API say so.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};
use tracing::{debug, error, info, warn};

use super::{reload::Reloaded, steward::Steward};
use crate::{
    broker::Queue,
    channel_log::ChannelLog,
    config::{self, ChannelPlan},
    http::Shown,
    lane::LaneHandle,
    managed::{Book, Kept, Present},
    model::{ChannelId, Egress},
};

impl Steward {
    /// The channels that are run with this file and this book.
    pub(super) fn all(file: &[ChannelPlan], book: &Book) -> Vec<ChannelPlan> {
        let ids: BTreeSet<&ChannelId> = file.iter().map(|channel| &channel.id).collect();
        let made = book.channels().values().map(|kept| kept.plan()).filter(|plan| !ids.contains(&plan.id));
        file.iter().chain(made).cloned().collect()
    }

    /// The book as it reads with another guard.
    pub(super) fn book_with(&self, egress: &Egress) -> Book {
        let mut book = self.book.clone();
        if self.egress != *egress {
            for (id, made) in self.standing.channels() {
                book.take(id, Some(made), egress, &self.tools.scrubber);
            }
        }
        book
    }

    /// The channel of the log with this id, unless the file has one.
    fn kept(&self, id: &ChannelId) -> Option<&Arc<Kept>> {
        self.book.channels().get(id).filter(|_| !self.file.iter().any(|channel| channel.id == *id))
    }

    /// Whether the channel cannot be read here, so that its lane may only hold what it wants.
    pub(super) fn is_locked(&self, id: &ChannelId) -> bool {
        self.kept(id).is_some_and(|kept| kept.locked().is_some())
    }

    /// Does what operators decided about these channels of the log.
    pub(super) async fn take_over(&mut self, ids: BTreeSet<ChannelId>) {
        if ids.is_empty() {
            return;
        }
        for id in &ids {
            self.book.take(id, self.standing.channel(id), &self.egress, &self.tools.scrubber);
        }
        let channels = Self::all(&self.file, &self.book);
        let changes = Reloaded::between(&self.channels, &channels, false);
        if let Err(problem) = self.enrol(&changes.added, true).await {
            error!(%problem, hint = problem.hint(), channels = ?changes.added, again_in = ?super::steward::REMAKE_EVERY, "the queue of a channel that was made over the API could not be made");
            self.unmade.extend(changes.added.iter().cloned());
        }
        self.install(channels, &changes).await;
        let Reloaded { added, changed, removed, needs_restart: _ } = changes;
        info!(?added, ?changed, ?removed, "channels that are made over the API have changed");
    }

    /// Gives present channels their lanes, and lets removed ones end.
    pub(super) async fn install(&mut self, channels: Vec<ChannelPlan>, changes: &Reloaded) {
        self.channels = channels;
        let dismissed = if self.is_open() { self.rearrange(&changes.changed).await } else { Vec::new() };
        let before = self.show();
        if self.is_open() {
            self.count();
        }
        self.dismiss(&changes.removed, dismissed, &Arc::downgrade(&before));
        self.unmade.retain(|id| self.channels.iter().any(|channel| channel.id == *id));
        self.tell_hidden();
    }

    /// Says which channels of the log the file hides, once for each time that it begins to.
    fn tell_hidden(&mut self) {
        let of_file = self.file.iter().map(|channel| &channel.id);
        let hidden: BTreeSet<ChannelId> =
            of_file.filter(|id| self.book.channels().contains_key(*id)).cloned().collect();
        for id in hidden.difference(&self.hidden) {
            warn!(channel = %id, hint = "DELETE the one of the API, or take the other one out of the file", "a channel was made over the API with the id of a channel of the file: the file's is run, the other one is not");
        }
        self.hidden = hidden;
    }

    /// Tries once more to make the queues that could not be made.
    pub(super) async fn make_queues_again(&mut self) {
        let broker = Arc::clone(&self.tools.broker);
        for id in self.unmade.clone() {
            match tokio::time::timeout(super::reload::ENSURE_MAX, broker.ensure_lanes(vec![id.clone()])).await {
                Ok(Ok(())) => {
                    self.unmade.remove(&id);
                    info!(channel = %id, "the queue of the channel is there now");
                }
                Ok(Err(problem)) => {
                    error!(channel = %id, %problem, hint = problem.hint, "the queue of a channel that was made over the API still cannot be made");
                    if broker.waiting(Queue::Lane(id.clone())).await.is_err() {
                        broker.forget_lane(&id);
                    }
                }
                Err(_) => debug!(channel = %id, "the broker does not say whether the queue can be made"),
            }
        }
    }

    /// Writes a channel down again of which the log knows nothing any more.
    pub(super) fn write_again(&self, id: &ChannelId) {
        let Some(made) = self.standing.channel(id) else { return };
        warn!(channel = %id, "the log of the channels has lost a channel that was made over the API: it is written again");
        let (log, entry) = (ChannelLog::new(Arc::clone(&self.tools.broker)), made.again(id.clone()));
        let stop = self.tasks.stop.clone();
        let write = async move {
            if let Err(problem) = log.append(&entry).await {
                error!(channel = %entry.channel, %problem, hint = "PUT the channel again: after a restart of all workers it would be gone", "a channel that the log has lost could not be written again");
            }
        };
        self.tasks.background.spawn(async move { stop.run_until_cancelled(write).await });
    }

    /// A channel as the API shows it.
    pub(super) fn shown(&self, channel: &ChannelPlan, lane: Option<LaneHandle>) -> Shown {
        let kept = self.kept(&channel.id);
        let view = config::view(channel, &self.links, self.tools.clock.now());
        let mut configured = serde_json::to_value(view).unwrap_or_default();
        if let Some(fields) = configured.as_object_mut() {
            match (kept, self.book.channels().get(&channel.id)) {
                (Some(kept), _) => {
                    fields.extend(kept.told());
                    if let Some(why) = kept.locked() {
                        fields.extend([
                            (String::from("endpoint"), Value::Null),
                            (String::from("unreadable"), json!(why)),
                        ]);
                    }
                }
                (None, behind) => {
                    fields.insert(String::from("source"), json!("file"));
                    if let Some(behind) = behind {
                        fields.insert(String::from("shadows"), behind.told().into());
                    }
                }
            }
        }
        let unreadable = kept.is_some_and(|kept| kept.locked().is_some());
        let (id, filter, version) = (channel.id.clone(), channel.filter.clone(), kept.map(|kept| kept.version()));
        Shown { id, configured, filter, max_age: channel.retry.max_age(), version, unreadable, lane }
    }

    /// Lets the desk see the present.
    pub(super) fn show_present(&self) {
        let present = Present {
            egress: self.egress.clone(),
            links: Arc::clone(&self.links),
            post: Arc::clone(&self.tools.post),
            channels: self.channels.clone(),
            file: self.file.iter().map(|channel| channel.id.clone()).collect(),
            book: self.book.clone(),
        };
        self.metrics.channels_unreadable.set(i64::try_from(self.book.locked()).unwrap_or(i64::MAX));
        self.boards.present.send_replace(Some(Arc::new(present)));
    }
}
