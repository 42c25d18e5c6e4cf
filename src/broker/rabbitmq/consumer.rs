//! A consumer that outlives channels, connections and its queue.
//!
//! Each consumer has an AMQP channel of its own, so that what happens to one (a deleted queue, a time-out of the broker, a lost
//! receipt) happens to no other. A connection carries about 2,000 channels (`channel_max` of the broker, 2047 by default): that
//! many lanes one worker can consume, and the next one waits with a warning.
//!
//! What a receipt that is dropped unsettled needs is a redelivery, and the only one that keeps the queue's order is to close the
//! channel: an explicit requeue may send the message to the tail. So the channel is closed after a moment, in which siblings can
//! finish, and opened again; the moment grows while losses go on, against a loop that would burn the machine.

use std::{collections::VecDeque, num::NonZeroU16, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use lapin::{
    Channel,
    message::Delivery,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Sessions,
    failure::{Failure, NOT_FOUND, limited},
    link::{Backoff, Link},
    session::{Schedule, Session},
    side::{Event, Side, is_marker},
    topology::{Topology, close, open, short},
    urgent::Tools,
};
use crate::broker::{Arrival, Queue, Receipt};

/// The longest that a call on the channel may take.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// How long receipts that are still out may be settled after their consumer was dropped: longer than any send takes.
const PARTING: Duration = Duration::from_mins(6);

/// The same when everything closes.
const CLOSING: Duration = Duration::from_secs(3);

/// The pause between a lost receipt and the redelivery: the first one, and the longest.
const RECYCLE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// After this long without a loss the pause is the first one again.
const RECYCLE_CALM: Duration = Duration::from_mins(1);

/// How many deliveries are handed over before anything else is looked at.
const BURST: usize = 64;

/// The task behind one `Arrivals`.
pub(super) struct Consumer {
    pub(super) queue: Queue,
    pub(super) window: NonZeroU16,
    pub(super) link: Link,
    pub(super) topology: Arc<Topology>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) stop: CancellationToken,
    pub(super) arrivals: mpsc::Sender<Arrival>,
    /// Of a lane: what its urgent queue needs, and where it is handed over to.
    pub(super) urgent: Option<(Arc<Tools>, mpsc::Sender<Arrival>)>,
}

/// Arrivals for which there is no room yet. The buffers are as large as the windows, so it takes void arrivals of an earlier channel,
/// which nobody has taken, to fill one. No more can wait here than the broker hands out at once.
///
/// They wait beside the loop and not in it: they are counted as ours, and acknowledgements, orders and the end of the channel are
/// seen to meanwhile. A lane that is held takes nothing for an hour.
#[derive(Default)]
struct Backlog {
    ordinary: VecDeque<Arrival>,
    urgent: VecDeque<Arrival>,
}

/// Why a session ended.
enum Over {
    /// Nobody takes arrivals any more.
    Dropped,
    /// The broker is being closed.
    Stopped,
    /// A receipt was dropped unsettled: its message must come again.
    Lost,
    /// The channel, the queue or the connection is gone.
    Failed(Failure),
}

impl Consumer {
    /// Consumes until the other end is gone or the broker is closed.
    pub(super) async fn run(self) {
        let name = self.topology.queue(&self.queue);
        let mut backoff = Backoff::new();
        let mut recycle = RECYCLE.0;
        let mut told = String::new();
        loop {
            let connection = tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.arrivals.closed() => return,
                connection = self.link.connection() => match connection {
                    Some(connection) => connection,
                    None => return,
                },
            };
            let since = Instant::now();
            let session = Arc::new(Session::new(self.window.get()));
            let over = match self.open(&connection, &name).await {
                Ok((channel, consumer)) => {
                    self.sessions.add(&self.queue, &session);
                    let over = self.serve(&channel, consumer, &session).await;
                    self.finish(&channel, &session, &over, recycle).await;
                    over
                }
                Err(failure) => Over::Failed(failure),
            };
            session.end();
            let pause = match over {
                Over::Dropped | Over::Stopped => return,
                Over::Lost => {
                    if since.elapsed() > RECYCLE_CALM {
                        recycle = RECYCLE.0;
                    }
                    tracing::warn!(queue = name, "a receipt was dropped unsettled, its message is asked for again");
                    recycle = (recycle * 2).min(RECYCLE.1);
                    continue;
                }
                Over::Failed(failure) => {
                    if since.elapsed() > Duration::from_secs(5) {
                        backoff.reset();
                    }
                    let text = failure.to_string();
                    if text == told {
                        tracing::debug!(queue = name, why = text, late = session.late(), "not consuming");
                    } else {
                        tracing::warn!(queue = name, why = text, "stopped consuming, beginning again");
                        told = text;
                    }
                    backoff.pause()
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.arrivals.closed() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Opens a channel and consumes. A queue that is gone is made again.
    async fn open(&self, connection: &lapin::Connection, name: &str) -> Result<(Channel, lapin::Consumer), Failure> {
        match self.consume(connection, name).await {
            Err(failure) if failure.reply_code() == Some(NOT_FOUND) => {
                self.topology.establish_queue(connection, &self.queue).await?;
                self.consume(connection, name).await
            }
            outcome => outcome,
        }
    }

    async fn consume(&self, connection: &lapin::Connection, name: &str) -> Result<(Channel, lapin::Consumer), Failure> {
        let channel = open(connection).await?;
        let doing = "could not consume the queue";
        let call = channel.basic_qos(self.window.get(), BasicQosOptions::default());
        limited(doing, name, CALL_LIMIT, call).await?;
        let call = channel.basic_consume(short(name), "".into(), BasicConsumeOptions::default(), FieldTable::default());
        let consumer = limited(doing, name, CALL_LIMIT, call).await?;
        Ok((channel, consumer))
    }

    /// Hands deliveries over and acknowledges what is settled, until something ends it.
    async fn serve(&self, channel: &Channel, mut consumer: lapin::Consumer, session: &Arc<Session>) -> Over {
        let tag = consumer.tag();
        let mut schedule = Schedule::default();
        let mut side = Side::new(self.urgent.as_ref().map(|(tools, _)| Arc::clone(tools)), Arc::clone(session));
        let mut backlog = Backlog::default();
        let urgent = self.urgent.as_ref().map_or(&self.arrivals, |(_, arrivals)| arrivals);
        let over = loop {
            let due = schedule.at;
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break Over::Stopped,
                () = self.arrivals.closed() => break Over::Dropped,
                () = session.news.notified() => {
                    if session.has_lost() {
                        // Whoever drops its arrivals drops the buffered ones with them: that is no loss.
                        break if self.arrivals.is_closed() { Over::Dropped } else { Over::Lost };
                    }
                    session.plan(&mut schedule);
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if let Err(failure) = session.flush(channel, &mut schedule, false).await {
                        break Over::Failed(failure);
                    }
                }
                room = urgent.reserve(), if !backlog.urgent.is_empty() => {
                    let Ok(room) = room else { break Over::Dropped };
                    if let Some(arrival) = backlog.urgent.pop_front() {
                        room.send(arrival);
                    }
                }
                room = self.arrivals.reserve(), if !backlog.ordinary.is_empty() => {
                    let Ok(room) = room else { break Over::Dropped };
                    if let Some(arrival) = backlog.ordinary.pop_front() {
                        room.send(arrival);
                    }
                }
                event = side.next() => {
                    if let Err(over) = self.attend(event, &mut side, &mut backlog, channel, session).await {
                        break over;
                    }
                }
                delivery = consumer.next() => {
                    let handed = self.hand_over(delivery, &mut consumer, &mut side, &mut backlog, channel, session);
                    if let Err(over) = handed.await {
                        break over;
                    }
                }
            }
        };
        if channel.status().connected() {
            // The broker may hand the rest to others at once.
            let call = channel.basic_cancel(tag, BasicCancelOptions::default());
            if let Err(failure) = limited("could not cancel", "", CALL_LIMIT, call).await {
                tracing::debug!(%failure, "the consumer was not cancelled");
            }
        }
        side.end(channel).await;
        over
    }

    /// Deals with what happened at the urgent queue.
    async fn attend(
        &self,
        event: Event,
        side: &mut Side,
        backlog: &mut Backlog,
        channel: &Channel,
        session: &Arc<Session>,
    ) -> Result<(), Over> {
        match event {
            Event::Came(Some(Ok(delivery))) => self.pass_urgent(*delivery, backlog, session)?,
            Event::Came(Some(Err(error))) => return Err(Over::Failed(Failure::of("the consumer was ended", error))),
            Event::Came(None) => side.gone(),
            Event::Due => side.due(),
            Event::Marked(confirmed) => side.marked(confirmed),
            Event::Looked(outcome) => {
                for delivery in side.looked(outcome, channel).await.map_err(Over::Failed)? {
                    self.pass_urgent(delivery, backlog, session)?;
                }
            }
        }
        Ok(())
    }

    /// Hands over one delivery and those that are there already.
    async fn hand_over(
        &self,
        first: Option<lapin::Result<Delivery>>,
        consumer: &mut lapin::Consumer,
        side: &mut Side,
        backlog: &mut Backlog,
        channel: &Channel,
        session: &Arc<Session>,
    ) -> Result<(), Over> {
        let mut next = first;
        for left in (0..BURST).rev() {
            let delivery = match next {
                Some(Ok(delivery)) => delivery,
                Some(Err(error)) => return Err(Over::Failed(Failure::of("the consumer was ended", error))),
                None => {
                    let why = "the consumer was cancelled by the broker: its queue was deleted or moved";
                    return Err(Over::Failed(Failure::new(why, "", false)));
                }
            };
            if !side.owns() {
                for urgent in side.own(channel).await.map_err(Over::Failed)? {
                    self.pass_urgent(urgent, backlog, session)?;
                }
            }
            if is_marker(&delivery) {
                side.keep(delivery.delivery_tag);
            } else {
                let receipt = session.delivered(delivery.delivery_tag);
                pass(&self.arrivals, &mut backlog.ordinary, delivery, receipt)?;
            }
            if left == 0 {
                break;
            }
            match consumer.next().now_or_never() {
                Some(delivery) => next = delivery,
                None => break,
            }
        }
        Ok(())
    }

    fn pass_urgent(&self, delivery: Delivery, backlog: &mut Backlog, session: &Arc<Session>) -> Result<(), Over> {
        let Some((_, arrivals)) = &self.urgent else { return Ok(()) };
        match Side::urgent(session, &delivery) {
            Some(receipt) => pass(arrivals, &mut backlog.urgent, delivery, receipt),
            None => Ok(()),
        }
    }

    /// Lets receipts that are still out be settled, as long as that is of use, and closes the channel.
    async fn finish(&self, channel: &Channel, session: &Session, over: &Over, recycle: Duration) {
        let patience = match over {
            Over::Dropped => PARTING,
            Over::Stopped => CLOSING,
            Over::Lost => recycle,
            Over::Failed(_) => Duration::ZERO,
        };
        let deadline = Instant::now() + patience;
        let mut schedule = Schedule::default();
        while session.out() > 0 && channel.status().connected() {
            session.plan(&mut schedule);
            let at = schedule.at.map_or(deadline, |at| at.min(deadline));
            tokio::select! {
                () = session.news.notified() => {}
                () = self.stop.cancelled(), if patience > CLOSING => break,
                () = tokio::time::sleep_until(at) => {
                    if Instant::now() >= deadline || session.flush(channel, &mut schedule, false).await.is_err() {
                        break;
                    }
                }
            }
        }
        if matches!(over, Over::Lost) {
            // The pause is against a hot loop, so it is kept even when no sibling needs it.
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
        if let Err(failure) = session.flush(channel, &mut schedule, true).await {
            tracing::debug!(%failure, "the last acknowledgements were not sent, their messages come again");
        }
        if channel.status().connected() {
            session.caught_up().await;
        }
        session.end();
        close(channel).await;
    }
}

/// Hands one delivery over, or leaves it behind those that wait already.
fn pass(
    to: &mpsc::Sender<Arrival>,
    waiting: &mut VecDeque<Arrival>,
    delivery: Delivery,
    receipt: Receipt,
) -> Result<(), Over> {
    let arrival = Arrival { body: Bytes::from(delivery.data), redelivered: delivery.redelivered, receipt };
    if !waiting.is_empty() {
        waiting.push_back(arrival);
        return Ok(());
    }
    match to.try_send(arrival) {
        Ok(()) => Ok(()),
        Err(mpsc::error::TrySendError::Full(arrival)) => {
            waiting.push_back(arrival);
            Ok(())
        }
        Err(mpsc::error::TrySendError::Closed(_)) => Err(Over::Dropped),
    }
}
