//! A broker of either kind, with names of its own, that can be closed and opened again on the same data.

use std::{
    collections::BTreeSet,
    num::NonZeroU16,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use interven_alerts::{
    broker::{
        Arrival, Arrivals, Broker, Destination, End, Log, Message, PublishError, Queue, Record, Start,
        embedded::{Embedded, EmbeddedSettings},
        rabbitmq::{RabbitMq, RabbitSettings},
    },
    model::{ChannelId, Clock, Secret},
};
use tokio_util::task::TaskTracker;

use crate::support::rabbit::Rabbit;

/// The longest that anything may take here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long nothing must come before we believe that nothing does.
pub(crate) const QUIET: Duration = Duration::from_millis(300);

/// Which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    RabbitMq,
    Embedded,
}

/// Where a broker of this kind keeps what it is given.
pub(crate) struct Bench {
    pub(crate) kind: Kind,
    pub(crate) prefix: String,
    dir: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, prefix: unique_prefix(), dir: tempfile::tempdir().unwrap() }
    }

    /// A broker on this bench; the second one finds what the first one left.
    pub(crate) async fn open(&self) -> Arc<dyn Broker> {
        let lanes = vec![lane("soc")];
        match self.kind {
            Kind::RabbitMq => {
                let broker = rabbit(Rabbit::shared().url(), &self.prefix);
                broker.ready(PATIENCE).await.unwrap();
                broker.ensure_lanes(lanes).await.unwrap();
                Arc::new(broker)
            }
            Kind::Embedded => {
                let dir = self.dir.path().join("broker");
                let settings = EmbeddedSettings { dir, keep_decisions: Some(Duration::from_hours(1)), lanes };
                Arc::new(Embedded::open(settings, Clock::System, &TaskTracker::new()).await.unwrap())
            }
        }
    }
}

/// A prefix that no other test has.
pub(crate) fn unique_prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// RabbitMQ settings with everything on.
pub(crate) fn settings(url: Secret, prefix: &str) -> RabbitSettings {
    let keep_decisions = Some(Duration::from_hours(1));
    RabbitSettings { urls: vec![url], prefix: prefix.into(), declare: true, keep_decisions, lanes: vec![lane("soc")] }
}

/// A RabbitMQ with everything on.
pub(crate) fn rabbit(url: Secret, prefix: &str) -> RabbitMq {
    RabbitMq::connect(settings(url, prefix), &TaskTracker::new()).unwrap()
}

pub(crate) fn lane(id: &str) -> ChannelId {
    id.parse().unwrap()
}

pub(crate) fn window(size: u16) -> NonZeroU16 {
    NonZeroU16::new(size).unwrap()
}

pub(crate) fn message(to: Destination, id: usize) -> Message {
    let id = id.to_string();
    Message { to, body: Bytes::from(format!("body of {id}")), id }
}

/// Publishes messages with these ids all at once; every one must be confirmed.
pub(crate) async fn publish(broker: &dyn Broker, to: &Destination, ids: std::ops::Range<usize>) {
    let outcomes = try_publish(broker, to, ids).await;
    let failed: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

pub(crate) async fn try_publish(
    broker: &dyn Broker,
    to: &Destination,
    ids: std::ops::Range<usize>,
) -> Vec<Result<(), PublishError>> {
    futures_util::future::join_all(ids.map(|id| broker.publish(message(to.clone(), id)))).await
}

/// The next arrival, in time.
pub(crate) async fn next(arrivals: &mut Arrivals) -> Arrival {
    let arrival = tokio::time::timeout(PATIENCE, arrivals.recv()).await.expect("a message arrives in time");
    arrival.expect("the consumer goes on")
}

/// The next arrivals, in time.
pub(crate) async fn take(arrivals: &mut Arrivals, count: usize) -> Vec<Arrival> {
    let mut taken = Vec::with_capacity(count);
    while taken.len() < count {
        taken.push(next(arrivals).await);
    }
    taken
}

/// Whether nothing arrives for a while.
pub(crate) async fn is_quiet(arrivals: &mut Arrivals) -> bool {
    tokio::time::timeout(QUIET, arrivals.recv()).await.is_err()
}

/// The id of an arrival's message.
pub(crate) fn id(body: &Bytes) -> usize {
    std::str::from_utf8(body).unwrap().strip_prefix("body of ").unwrap().parse().unwrap()
}

pub(crate) fn ids(arrivals: &[Arrival]) -> Vec<usize> {
    arrivals.iter().map(|arrival| id(&arrival.body)).collect()
}

pub(crate) fn settle_all(arrivals: impl IntoIterator<Item = Arrival>) {
    for arrival in arrivals {
        arrival.receipt.settle();
    }
}

/// Consumes and settles until every one of `expected` was seen. Duplicates are no fault.
pub(crate) async fn drain(arrivals: &mut Arrivals, expected: impl IntoIterator<Item = usize>) {
    let mut missing: BTreeSet<_> = expected.into_iter().collect();
    while !missing.is_empty() {
        let arrival = next(arrivals).await;
        missing.remove(&id(&arrival.body));
        arrival.receipt.settle();
    }
}

/// Waits until the broker counts this many messages in a queue.
pub(crate) async fn waits(broker: &dyn Broker, queue: &Queue, expected: u64) {
    let look = async || {
        let found = broker.waiting(queue.clone()).await.unwrap();
        (found == expected).then_some(())
    };
    crate::support::eventually(&format!("{expected} wait in {queue:?}"), PATIENCE, look).await;
}

/// Everything that is in a log at present.
pub(crate) async fn read(broker: &dyn Broker, log: Log, start: Start) -> Vec<Record> {
    let mut records = broker.read(log, start, End::Present);
    let mut found = Vec::new();
    while let Some(record) = tokio::time::timeout(PATIENCE, records.recv()).await.expect("the log ends in time") {
        found.push(record.unwrap());
    }
    found
}
