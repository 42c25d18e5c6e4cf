//! Where durable things wait: queues and logs, on RabbitMQ or in an embedded store.
//!
//! The seam promises the same of both brokers:
//! - a publish that returns `Ok` is on the platter and in every queue or log that it names; nothing else is `Ok`;
//! - what was consumed and not settled comes again, after a crash too;
//! - connections recover by themselves; a consumer just goes on.
//!
//! A conformance suite (`tests/it/broker.rs`) holds both to it.
//!
//! Absent on purpose: what a message means. Bodies are bytes here.
//!
//! Start with [`Broker`], then [`receipt`], then [`rabbitmq`] and [`embedded`], which keep the promises.

pub mod embedded;
pub mod following;
pub mod rabbitmq;
pub mod receipt;

use std::{fmt, num::NonZeroU16, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use crate::model::{ChannelId, Timestamp};
pub use receipt::Receipt;

/// A queue that workers consume.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Queue {
    /// `interven.alerts.decisions`: all workers consume it.
    Decisions,
    /// `interven.alerts.lane.<channel>`: one consumer at a time in the whole pool.
    ///
    /// Whoever consumes it gets what waits in [`Queue::Urgent`] of the same channel too, and first.
    Lane(ChannelId),
    /// `interven.alerts.lane.<channel>.urgent`: what goes before everything else that waits in the lane. It is published to, and
    /// never consumed by itself. Where it cannot be had, what is published to it goes to the lane's own queue.
    Urgent(ChannelId),
    /// `interven.alerts.dead`: dead letters on their way into a store.
    Dead,
}

/// A log: ordered, kept, read from any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Log {
    /// `interven.alerts.log.decisions`: every decision.
    Decisions,
    /// `interven.alerts.log.channels`: channels made in the console; the last record counts.
    Channels,
    /// `interven.alerts.log.approvals`: answers in one order for the whole pool.
    Approvals,
    /// `interven.alerts.log.deliveries`: what became of every delivery. More than contract 4 asks an operator for: where it is not
    /// there and may not be made, publishing to it fails, and all else works.
    Deliveries,
}

impl Log {
    /// Every log.
    pub const ALL: [Self; 4] = [Self::Decisions, Self::Channels, Self::Approvals, Self::Deliveries];

    /// Whether it is kept for as long as `[broker] keep_decisions` says, and not at all where that says so.
    pub fn is_of_decisions(self) -> bool {
        match self {
            Self::Decisions | Self::Deliveries => true,
            Self::Channels | Self::Approvals => false,
        }
    }
}

/// Where a message is published to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// The exchange that the firewall publishes decisions to.
    DecisionsExchange,
    /// The exchange that answers are published to, with this routing key.
    ApprovalsExchange(String),
    /// A queue, directly.
    Queue(Queue),
    /// A log, directly.
    Log(Log),
}

/// A message to publish.
#[derive(Clone, Debug)]
pub struct Message {
    /// Where to.
    pub to: Destination,
    /// The message id on the wire; unique among the messages of one batch, stable across retries.
    pub id: String,
    /// The body.
    pub body: Bytes,
}

/// Which rights the user needs on RabbitMQ. What goes to a queue or a log goes through the default exchange, `amq.default`.
pub(crate) const RIGHTS: &str = "check user and password in `[broker] url`; with the prefix `interven` the user needs `rabbitmqctl set_permissions -p / USER \
     'interven\\..*' '(interven\\..*|amq\\.default)' 'interven\\..*'`; without the right to configure set `declare = false`";

/// Why a publish did not come to rest. Whether the broker has the message all the same is unknown but for `Unroutable` and
/// `TooLarge`: publish again, at least once is the promise.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    /// The broker knows no queue for it.
    #[error("the broker has no queue for `{to}`")]
    Unroutable {
        /// The exchange or queue.
        to: String,
    },
    /// The broker said no.
    #[error("the broker refused the message for `{to}`")]
    Rejected {
        /// The exchange or queue.
        to: String,
    },
    /// The broker's user has not the right to.
    #[error("the broker's user may not publish to `{to}`")]
    Forbidden {
        /// The exchange or queue.
        to: String,
    },
    /// There is no connection, or it was lost before the confirm.
    #[error("the broker is not connected")]
    Disconnected,
    /// No confirm came in time; a broker under memory or disk alarm blocks publishers so.
    #[error("the broker did not confirm within {seconds} s")]
    Timeout {
        /// The limit.
        seconds: u64,
    },
    /// This destination has not confirmed anything for a while, though the broker confirms what goes elsewhere.
    #[error("`{to}` confirms nothing, while the rest of the broker works")]
    Silent {
        /// The exchange or queue.
        to: String,
    },
    /// Larger than the broker takes.
    #[error("the message has {bytes} bytes, more than the broker takes")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The embedded broker could not write.
    #[error("the embedded broker could not write: {why}")]
    Storage {
        /// What the store said.
        why: String,
    },
}

impl PublishError {
    /// What the operator can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unroutable { .. } => {
                "run `interven-alerts doctor`, which checks the topology; with `declare = false` it must be made first"
            }
            Self::Rejected { .. } => {
                "look at the broker's log: a queue may be at its length limit or without a majority of its nodes"
            }
            Self::Forbidden { .. } => RIGHTS,
            Self::Disconnected => {
                "check that the broker runs and that `[broker] url` is right; the worker reconnects by itself"
            }
            Self::Timeout { .. } => "look for a memory or disk alarm on the broker (`rabbitmqctl status`)",
            Self::Silent { .. } => {
                "look whether the queue has a leader and a majority of its nodes (`rabbitmq-queues quorum_status`)"
            }
            Self::TooLarge { .. } => "decisions are at most 256 KiB",
            Self::Storage { .. } => "free space on the disk of `data_dir`",
        }
    }
}

/// Why the broker could not be reached or does not hold what it must.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct BrokerError {
    /// What went wrong, with the name of the thing.
    pub what: String,
    /// What the operator can do.
    pub hint: &'static str,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// One message that arrived. Settle the receipt when nothing can lose the message any more.
#[derive(Debug)]
pub struct Arrival {
    /// The body as it was published.
    pub body: Bytes,
    /// Whether the broker handed it out before: then an earlier worker may have delivered some of it.
    pub redelivered: bool,
    /// What to settle.
    pub receipt: Receipt,
}

/// A consumer. It outlives lost connections: after a reconnect, what was not settled just arrives again. Dropping it gives back
/// what was not handed out; receipts that are still out may be settled later.
///
/// What is urgent is handed out before all else, also before what arrived earlier and was not received yet.
#[derive(Debug)]
pub struct Arrivals {
    /// What is urgent. Closed for a queue that has nothing such.
    urgent: Line,
    ordinary: Line,
    /// Keeps a consumer of nothing from reading as closed.
    _open: Option<mpsc::Sender<Arrival>>,
}

impl Arrivals {
    /// A consumer fed through `ordinary`. The feeder must stop, and cancel at the broker, when the other end is gone.
    pub fn new(ordinary: mpsc::Receiver<Arrival>) -> Self {
        let (_, urgent) = mpsc::channel(1);
        Self::with_urgent(urgent, ordinary)
    }

    /// The same for a lane, whose urgent messages come by a way of their own.
    pub fn with_urgent(urgent: mpsc::Receiver<Arrival>, ordinary: mpsc::Receiver<Arrival>) -> Self {
        Self { urgent: Line::of(urgent), ordinary: Line::of(ordinary), _open: None }
    }

    /// A consumer of nothing: no message ever arrives, and the broker's end does not show.
    pub fn nothing() -> Self {
        let (feeder, ordinary) = mpsc::channel(1);
        Self { _open: Some(feeder), ..Self::new(ordinary) }
    }

    /// The next message; `None` when the broker was closed. Cancel-safe.
    ///
    /// Messages of a connection that was lost meanwhile are passed over: the broker hands them out again.
    pub async fn recv(&mut self) -> Option<Arrival> {
        loop {
            let arrival = tokio::select! {
                biased;
                Some(arrival) = self.urgent.recv() => arrival,
                arrival = self.ordinary.recv() => arrival?,
            };
            if !arrival.receipt.is_void() {
                return Some(arrival);
            }
        }
    }

    /// Whether nothing has arrived that was not received yet.
    pub fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.ordinary.is_empty()
    }

    /// The messages that come next, of the urgent and of the others: to be looked at, and received as if nobody had.
    pub fn next_ones(&mut self) -> impl Iterator<Item = &Arrival> {
        [self.urgent.look(), self.ordinary.look()].into_iter().flatten()
    }

    /// Whether an urgent message has arrived that was not received yet; it comes next.
    pub fn has_urgent(&self) -> bool {
        !self.urgent.is_empty()
    }

    /// At least one and at most `limit` messages, appended to `batch`; zero when the broker was closed. Cancel-safe.
    pub async fn recv_many(&mut self, batch: &mut Vec<Arrival>, limit: usize) -> usize {
        loop {
            let before = batch.len();
            let received = self.receive(batch, limit).await;
            let mut place = 0;
            batch.retain(|arrival| {
                place += 1;
                place <= before || !arrival.receipt.is_void()
            });
            if received == 0 || batch.len() > before {
                return batch.len() - before;
            }
        }
    }

    /// What is there, the urgent first, or else what comes next. Cancel-safe: once something was taken, nothing is awaited.
    async fn receive(&mut self, batch: &mut Vec<Arrival>, limit: usize) -> usize {
        let before = batch.len();
        for from in [&mut self.urgent, &mut self.ordinary] {
            while batch.len() - before < limit
                && let Some(arrival) = from.try_recv()
            {
                batch.push(arrival);
            }
        }
        if batch.len() > before {
            return batch.len() - before;
        }
        tokio::select! {
            biased;
            Some(arrival) = self.urgent.recv() => {
                batch.push(arrival);
                1
            }
            // Nobody has looked at the first of these, or it would have been taken above.
            received = self.ordinary.rest.recv_many(batch, limit) => received,
        }
    }
}

/// One of the two lines of a consumer: its first message can be looked at before it is taken.
#[derive(Debug)]
struct Line {
    /// The one that was looked at.
    first: Option<Arrival>,
    rest: mpsc::Receiver<Arrival>,
}

impl Line {
    fn of(rest: mpsc::Receiver<Arrival>) -> Self {
        Self { first: None, rest }
    }

    /// The next message, if it is there. Those of a lost connection are passed over.
    fn look(&mut self) -> Option<&Arrival> {
        while self.first.as_ref().is_none_or(|arrival| arrival.receipt.is_void()) {
            self.first = None;
            self.first = Some(self.rest.try_recv().ok()?);
        }
        self.first.as_ref()
    }

    /// Cancel-safe: what was looked at is taken only when it is handed out.
    async fn recv(&mut self) -> Option<Arrival> {
        match self.first.take() {
            Some(arrival) => Some(arrival),
            None => self.rest.recv().await,
        }
    }

    fn try_recv(&mut self) -> Option<Arrival> {
        self.first.take().or_else(|| self.rest.try_recv().ok())
    }

    fn is_empty(&self) -> bool {
        self.first.is_none() && self.rest.is_empty()
    }
}

/// A record of a log.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its place: greater than that of every earlier record, not contiguous.
    pub offset: u64,
    /// The body as it was appended.
    pub body: Bytes,
}

/// Where reading a log starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At its first record.
    First,
    /// At or somewhat before the first record that was appended at this time or later.
    At(Timestamp),
    /// At the last so many records, or somewhat fewer. At the first where there are no more.
    Newest(u64),
    /// At the record with this offset, or the first one after it.
    Offset(u64),
}

/// Where reading a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// After the last record that was there when reading began.
    Present,
    /// Before the record with this offset, which must be there, or one after it. Records at it or after it may come all the same.
    Before(u64),
    /// Never: new records follow as they are appended.
    Follow,
}

/// What a running broker connection says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether the broker is there and every queue that we need with it.
    pub connected: bool,
    /// How often the connection was made again since the start.
    pub reconnects: u64,
}

/// A broker: RabbitMQ, or the embedded one.
pub trait Broker: Send + Sync + fmt::Debug + 'static {
    /// Publishes `message` and waits until the broker has confirmed that it is durable and routed. Has its own time limit.
    fn publish(&self, message: Message) -> BoxFuture<'static, Result<(), PublishError>>;

    /// Consumes `queue`, with at most `window` messages out and unsettled.
    fn consume(&self, queue: Queue, window: NonZeroU16) -> Arrivals;

    /// Makes sure that these lanes have their queues (or, with `declare = false`, checks it), now and after each reconnect.
    fn ensure_lanes(&self, lanes: Vec<ChannelId>) -> BoxFuture<'static, Result<(), BrokerError>>;

    /// From now on nobody asks for the lane's queues at a reconnect, whether [`Self::ensure_lanes`] found them or not. What is there
    /// stays. A broker that asks for nothing at a reconnect has nothing to forget.
    fn forget_lane(&self, _lane: &ChannelId) {}

    /// Removes a lane's queues if nothing waits in them; returns how many messages wait, 0 when they are gone. An error while
    /// anybody consumes the lane. Nobody may publish to it any more.
    fn remove_lane(&self, lane: ChannelId) -> BoxFuture<'static, Result<u64, BrokerError>>;

    /// How many messages wait in `queue`, handed out or not; in a lane with the urgent ones.
    fn waiting(&self, queue: Queue) -> BoxFuture<'static, Result<u64, BrokerError>>;

    /// Reads a log. The stream ends at `end`, or with an error after which reading may be begun again.
    fn read(&self, log: Log, start: Start, end: End) -> mpsc::Receiver<Result<Record, BrokerError>>;

    /// Waits until it is there with everything that we need. What waiting cannot mend (a refused login, a missing queue with
    /// `declare = false`) is told at once, anything else after `limit`.
    fn ready(&self, limit: Duration) -> BoxFuture<'static, Result<(), BrokerError>>;

    /// How many messages this worker holds unsettled, over all queues.
    fn unsettled(&self) -> u64;

    /// The names of what it does without: what is not there, may not be made, and is not needed for a decision to be told.
    fn lacking(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether this log is one of these.
    fn lacks(&self, _log: Log) -> bool {
        false
    }

    /// What it says of itself, as it changes.
    fn health(&self) -> watch::Receiver<Health>;

    /// Stops consuming, waits for publishes and acknowledgements under way, and closes. Idempotent.
    fn close(&self) -> BoxFuture<'static, ()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl receipt::Desk for Nobody {
        fn close(&self, _: u64, _: bool) {}
    }

    fn arrival(text: &'static str) -> Arrival {
        Arrival {
            body: Bytes::from_static(text.as_bytes()),
            redelivered: false,
            receipt: Receipt::new(0, std::sync::Arc::new(Nobody)),
        }
    }

    #[tokio::test]
    async fn what_is_urgent_is_handed_out_first_also_when_it_arrived_last() {
        let ((urgent, urgent_end), (ordinary, end)) = (mpsc::channel(8), mpsc::channel(8));
        let mut arrivals = Arrivals::with_urgent(urgent_end, end);
        let put = async |to: &mpsc::Sender<Arrival>, text| to.send(arrival(text)).await.unwrap();
        assert!(arrivals.is_empty());
        put(&ordinary, "a").await;
        put(&ordinary, "b").await;
        assert!(!arrivals.has_urgent());
        put(&urgent, "U").await;
        assert!(arrivals.has_urgent());
        assert_eq!(arrivals.recv().await.unwrap().body, "U");
        put(&urgent, "V").await;
        let mut batch = Vec::new();
        assert_eq!(arrivals.recv_many(&mut batch, 2).await, 2);
        assert_eq!(batch.iter().map(|arrival| &arrival.body[..]).collect::<Vec<_>>(), [b"V", b"a"]);
        put(&urgent, "W").await;
        assert!(!arrivals.is_empty());
        assert_eq!(arrivals.recv_many(&mut batch, 1).await, 1);
        assert_eq!(batch[2].body, "W");
        assert_eq!(arrivals.recv().await.unwrap().body, "b");
        drop((urgent, ordinary));
        assert_eq!(arrivals.recv_many(&mut batch, 9).await, 0);
        assert!(arrivals.recv().await.is_none());
    }

    #[tokio::test]
    async fn what_was_looked_at_is_received_as_if_nobody_had() {
        let ((urgent, urgent_end), (ordinary, end)) = (mpsc::channel(8), mpsc::channel(8));
        let mut arrivals = Arrivals::with_urgent(urgent_end, end);
        assert_eq!(arrivals.next_ones().count(), 0);
        for (to, text) in [(&ordinary, "a"), (&ordinary, "b"), (&urgent, "U"), (&ordinary, "c")] {
            to.send(arrival(text)).await.unwrap();
        }
        let looked = |arrivals: &mut Arrivals| arrivals.next_ones().map(|one| one.body.clone()).collect::<Vec<_>>();
        for _ in 0..2 {
            assert_eq!(looked(&mut arrivals), ["U", "a"]);
        }
        assert!(arrivals.has_urgent());
        assert_eq!(arrivals.recv().await.unwrap().body, "U");
        let mut batch = Vec::new();
        assert_eq!(arrivals.recv_many(&mut batch, 2).await, 2);
        assert_eq!(batch.iter().map(|arrival| &arrival.body[..]).collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(looked(&mut arrivals), ["c"]);
        drop((urgent, ordinary));
        assert!(!arrivals.is_empty());
        assert_eq!(arrivals.recv().await.unwrap().body, "c");
        assert!(arrivals.recv().await.is_none());
    }
}
