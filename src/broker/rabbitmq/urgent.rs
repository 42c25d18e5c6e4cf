//! What goes before everything else that waits in a lane: a second queue beside the lane's, served by the same worker.
//!
//! Quorum queues have no priorities (RabbitMQ 3.10), so what is urgent has a queue of its own, read beside the lane's and handed
//! out first. Both have a single active consumer, and it must be the same one: the lane's owner, whose bucket is the limit of the
//! whole pool. But AMQP tells no consumer that it is the active one. Three things see to it:
//!
//! - **A delivery from the lane's queue proves that we own it.** On the first one a session consumes the urgent queue too, on the
//!   same AMQP channel: both consumers live and die together, so a standby never has the urgent queue of a lane that another owns.
//!   (While a dead owner's channel is being taken apart, the next one waits in the urgent queue's own line for a moment.) It
//!   publishes a marker to the urgent queue first, a *probe*: a queue that does not confirm that one would hold up the channel,
//!   and the lane with it, if it were consumed. When the probe comes back, all that was urgent until then has come too, and is
//!   handed out before the delivery that began it.
//! - **Who publishes something urgent then publishes a marker to the lane's queue**, so that an idle owner learns that it is one. A
//!   marker is swallowed here; no lane ever sees one. The urgent message is confirmed first: whoever gets the marker finds it.
//! - **The owner holds the newest marker** unacknowledged until nothing urgent is left, so that its successor gets it. It is
//!   released when two looks, a second apart, both begun after it came, found the urgent queue empty, ourselves its consumer, and
//!   no urgent receipt out. What the marker stands for was in the queue before it: so it was seen ready, or is out with us and
//!   counted, or was on the wire between the queue and us, which is why there are two looks. A newer marker takes the older one's
//!   place at once. A session that ends gives the marker back before anything else, because its last receipts may take a while.
//!
//! The publisher's part is here, the session's part is in [`side`](super::side).
//!
//! What can go wrong, and what happens then:
//! - The publisher dies between message and marker: nothing was promised, it is published again, with a marker.
//! - The marker is not confirmed though the message is: the publish is `Ok` all the same, after some tries. The message is as safe
//!   as it can be, and to publish it again would only deliver it twice. This, a purged lane queue, and whatever else leaves
//!   something urgent behind without a marker is found by a slow look: a session that does not consume the urgent queue looks
//!   into both soon after it began and every half minute; where something urgent is ready and the lane's queue is empty, it
//!   publishes a marker.
//! - A marker is held for ten minutes: the broker would close the channel after thirty. A new one is published and confirmed, then
//!   the old one is released.
//! - The urgent queue is deleted: the session goes on without it, a look makes it again if it may, and what is published meanwhile
//!   goes to the lane's queue. The publisher does not make it again: RabbitMQ 3.10 takes a consumer over to a queue of the same
//!   name that is made in the moment of the deletion, and then passes nothing on that this one gives it.
//! - The urgent queue has no leader: looks say 0 ready and 0 consumers then, which does not count as empty. The lane goes on, and
//!   what is urgent waits with its publisher.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    failure::{Failure, NOT_FOUND},
    link::Link,
    publisher::Publishers,
    topology::{Topology, close, look_at_queue, open},
};
use crate::{
    broker::{Destination, Message, PublishError, Queue},
    model::ChannelId,
};

/// The AMQP property `type` of a marker.
pub(super) const MARKER: &str = "urgent-marker";

/// The longest that taking or making the urgent queue may hold up anything else.
pub(super) const TAKE_LIMIT: Duration = Duration::from_secs(5);

/// After the broker refused to let us consume the urgent queue, which costs the lane's session, it is left alone for so long.
const REFUSED_FOR: Duration = Duration::from_mins(10);

/// Pauses before a marker that was not confirmed is published again.
const MARK_AGAIN: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];

/// Publishes something urgent, and a marker; to the lane's queue where there is no urgent one.
pub(super) async fn publish(
    publishers: &Publishers,
    topology: &Topology,
    message: Message,
    lane: &ChannelId,
) -> Result<(), PublishError> {
    if topology.has_urgent(lane) {
        match publishers.publish(message.clone()).await {
            Ok(()) => {
                mark(publishers, lane).await;
                return Ok(());
            }
            Err(PublishError::Unroutable { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    publishers.publish(Message { to: Destination::Queue(Queue::Lane(lane.clone())), ..message }).await
}

/// Publishes a marker. Whether it was confirmed.
pub(super) async fn mark(publishers: &Publishers, lane: &ChannelId) -> bool {
    for pause in MARK_AGAIN.into_iter().map(Some).chain([None]) {
        // One and the same id in a batch would share the blame if one of them was returned.
        let id = format!("marker-{:016x}", fastrand::u64(..));
        match (publishers.signal(Queue::Lane(lane.clone()), MARKER, id).await, pause) {
            (Ok(()), _) => return true,
            (Err(error), Some(pause)) => {
                tracing::debug!(%lane, %error, "a marker was not confirmed");
                tokio::time::sleep(pause).await;
            }
            (Err(error), None) => tracing::debug!(%lane, %error, "a marker was not confirmed, the next look finds out"),
        }
    }
    false
}

/// What a consumer of a lane needs for the lane's urgent queue.
pub(super) struct Tools {
    pub(super) lane: ChannelId,
    pub(super) publishers: Publishers,
    pub(super) topology: Arc<Topology>,
    pub(super) link: Link,
    /// Until when the urgent queue is left alone, because consuming it cost the channel.
    refused_until: Mutex<Option<Instant>>,
}

/// What a look found.
pub(super) struct Seen {
    /// Ready in the urgent queue, and its consumers.
    pub(super) urgent: (u32, u32),
    /// Ready in the lane's queue.
    pub(super) lane: u32,
    /// The id of the marker that was published to the urgent queue to see that it works.
    pub(super) probe: Option<String>,
}

impl Tools {
    pub(super) fn new(lane: ChannelId, publishers: Publishers, topology: Arc<Topology>, link: Link) -> Self {
        Self { lane, publishers, topology, link, refused_until: Mutex::default() }
    }

    pub(super) fn name(&self) -> String {
        self.topology.queue(&Queue::Urgent(self.lane.clone()))
    }

    pub(super) fn is_refused(&self) -> bool {
        let until = self.refused_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    pub(super) fn refused(&self) {
        let until = Instant::now() + REFUSED_FOR;
        *self.refused_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    /// Looks into both queues. An urgent queue that is not there is made, if it may be. With `probe` it must take a marker too,
    /// which comes back to whoever consumes it.
    pub(super) async fn look(&self, probe: bool) -> Result<Seen, Failure> {
        let lost = || Failure::new("the broker is not connected", "", false);
        let connection = self.link.now().ok_or_else(lost)?;
        // A missing queue costs the channel, and a queue without a leader holds it up: so it is nobody else's.
        let channel = open(&connection).await?;
        let urgent = match look_at_queue(&channel, &self.name()).await {
            Ok(found) => found,
            Err(failure) if failure.reply_code() == Some(NOT_FOUND) => {
                self.topology.establish_queue(&connection, &Queue::Urgent(self.lane.clone())).await?;
                return Err(failure);
            }
            Err(failure) => {
                close(&channel).await;
                return Err(failure);
            }
        };
        if !self.topology.has_urgent(&self.lane) {
            // Somebody has made it.
            self.topology.establish_queue(&connection, &Queue::Urgent(self.lane.clone())).await?;
        }
        let lane = look_at_queue(&channel, &self.topology.queue(&Queue::Lane(self.lane.clone()))).await?;
        close(&channel).await;
        let probe = probe.then(|| format!("probe-{:016x}", fastrand::u64(..)));
        if let Some(id) = probe.clone() {
            let signal = self.publishers.signal(Queue::Urgent(self.lane.clone()), MARKER, id);
            let silent = |error| Failure::new(format!("the urgent queue takes nothing: {error}"), "", false);
            signal.await.map_err(silent)?;
        }
        let urgent = (urgent.message_count(), urgent.consumer_count());
        Ok(Seen { urgent, lane: lane.message_count(), probe })
    }
}
