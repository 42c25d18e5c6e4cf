//! Lanes as a whole: how much waits in one, and how one is removed.
//!
//! RabbitMQ deletes a quorum queue without asking whether it is empty or in use: both flags of `queue.delete` are refused for
//! this kind, and the refusal costs the connection. So a lane is *claimed* before it is removed: we consume its queues, as their
//! single active consumer, and know that we are by a marker of our own that comes back to us. From then on nobody else gets
//! anything from the lane, what is there comes to us and is only borrowed, and a worker that begins to consume the lane meanwhile
//! stands by; it is told when the queue is deleted, and makes it again.
//!
//! What AMQP leaves open: a message that is published between the last look and the deletion goes with the queue, and so does
//! one that another worker has out after it stopped consuming. So nobody may publish to the lane any more, and whoever consumed
//! it must be done with what it got.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::{
    Channel,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeleteOptions},
    types::FieldTable,
};
use tokio::time::{Instant, timeout_at};

use super::{
    CONNECTION_LIMIT, Inner,
    failure::{Failure, NOT_FOUND, limited},
    side::is_marker,
    topology::{close, look_at_queue, open, short},
    urgent::MARKER,
};
use crate::{broker::Queue, model::ChannelId};

/// The longest that our own marker may take to come back.
const CLAIM_LIMIT: Duration = Duration::from_secs(10);

/// Messages that are borrowed at a time while a lane is claimed.
const BORROWED_MAX: u16 = 64;

/// What is ready in a queue, and who consumes it.
struct Found {
    ready: u64,
    consumers: u32,
}

impl Inner {
    /// How many messages wait in `queue`; see [`Broker::waiting`](crate::broker::Broker::waiting).
    pub(super) async fn waiting(&self, queue: Queue) -> Result<u64, Failure> {
        let connection = self.connection().await?;
        // A missing queue costs the channel, so this one is nobody else's.
        let channel = open(&connection).await?;
        let name = self.topology.queue(&queue);
        let ready = u64::from(look_at_queue(&channel, &name).await?.message_count());
        let ours = self.sessions.unacknowledged(Some(&queue));
        let urgent = match &queue {
            Queue::Lane(lane) if self.topology.has_urgent(lane) => {
                look(&channel, &self.topology.queue(&Queue::Urgent(lane.clone()))).await?.map_or(0, |found| found.ready)
            }
            Queue::Lane(_) | Queue::Decisions | Queue::Urgent(_) | Queue::Dead => 0,
        };
        close(&channel).await;
        Ok(ours + if self.sessions.has_urgent(&queue) { ready + urgent } else { ready.max(urgent) })
    }

    /// Removes a lane that is empty and that nobody consumes; see [`Broker::remove_lane`](crate::broker::Broker::remove_lane).
    pub(super) async fn remove_lane(&self, lane: ChannelId) -> Result<u64, Failure> {
        let (queue, urgent) = (Queue::Lane(lane.clone()), Queue::Urgent(lane.clone()));
        let (name, urgent_name) = (self.topology.queue(&queue), self.topology.queue(&urgent));
        let connection = self.connection().await?;
        let looks = open(&connection).await?;
        let in_lane = look(&looks, &name).await?;
        // A missing queue costs the channel.
        let looks = if in_lane.is_some() { looks } else { open(&connection).await? };
        let in_urgent = look(&looks, &urgent_name).await?;
        close(&looks).await;
        if [&in_lane, &in_urgent].into_iter().flatten().any(|found| found.consumers > 0) {
            return Err(still_consumed(&name));
        }
        let ready = |found: &Option<Found>| found.as_ref().map_or(0, |found| found.ready);
        let ours = self.sessions.unacknowledged(Some(&queue));
        let waiting = ready(&in_lane).max(ready(&in_urgent)) + ours;
        if ours > 0 {
            return Ok(waiting);
        }
        let channel = open(&connection).await?;
        let outcome = async {
            // What is ready may be nothing but markers. The urgent queue first: while anything is in it, the lane keeps its own.
            for (queue, there) in [(&urgent, in_urgent.is_some()), (&queue, in_lane.is_some())] {
                if there && !self.claim(&channel, queue).await? {
                    return Ok(waiting.max(1));
                }
            }
            if in_urgent.is_some() {
                delete(&channel, &urgent_name).await?;
            }
            if in_lane.is_some() {
                delete(&channel, &name).await?;
            }
            self.topology.forget_lane(&lane);
            Ok(0)
        };
        let outcome = outcome.await;
        // What was borrowed goes back.
        close(&channel).await;
        outcome
    }

    /// Becomes the one consumer of a queue of a lane, and swallows its markers. Whether nothing else is in it.
    async fn claim(&self, channel: &Channel, queue: &Queue) -> Result<bool, Failure> {
        let (doing, name) = ("could not claim the queue", &self.topology.queue(queue));
        let call = async {
            channel.basic_qos(BORROWED_MAX, BasicQosOptions::default()).await?;
            channel.basic_consume(short(name), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await
        };
        let mut consumer = limited(doing, name, CONNECTION_LIMIT, call).await?;
        let id = format!("claim-{:016x}", fastrand::u64(..));
        let signal = self.publishers.signal(queue.clone(), MARKER, id.clone());
        let refused = |error| Failure::new(format!("{doing} `{name}`: {error}"), "look at the broker's log", false);
        signal.await.map_err(refused)?;
        let deadline = Instant::now() + CLAIM_LIMIT;
        loop {
            // Nothing comes to a consumer that is not the active one: somebody was faster.
            let next = timeout_at(deadline, consumer.next()).await.map_err(|_| still_consumed(name))?;
            let delivery = match next {
                Some(Ok(delivery)) => delivery,
                Some(Err(error)) => return Err(Failure::of(format!("{doing} `{name}`"), error)),
                None => return Err(Failure::new(format!("{doing} `{name}`: it was deleted"), "try again", false)),
            };
            if !is_marker(&delivery) {
                return Ok(false);
            }
            let call = channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default());
            limited(doing, name, CONNECTION_LIMIT, call).await?;
            if delivery.properties.message_id().as_ref().is_some_and(|found| found.as_str() == id) {
                return Ok(true);
            }
        }
    }
}

/// What is in a queue; `None`, and the channel is gone, if there is no such queue.
async fn look(channel: &Channel, name: &str) -> Result<Option<Found>, Failure> {
    match look_at_queue(channel, name).await {
        Ok(found) => Ok(Some(Found { ready: u64::from(found.message_count()), consumers: found.consumer_count() })),
        Err(failure) if failure.reply_code() == Some(NOT_FOUND) => Ok(None),
        Err(failure) => Err(failure),
    }
}

async fn delete(channel: &Channel, name: &str) -> Result<(), Failure> {
    let call = channel.queue_delete(short(name), QueueDeleteOptions::default());
    let gone = limited("could not delete the queue", name, CONNECTION_LIMIT, call).await?;
    if gone > 0 {
        tracing::error!(queue = name, messages = gone, "messages came into a lane while it was being removed");
    }
    Ok(())
}

fn still_consumed(name: &str) -> Failure {
    let what = format!("the queue `{name}` is still consumed and was not removed");
    Failure::new(what, "try again when every worker has the new configuration", false)
}
