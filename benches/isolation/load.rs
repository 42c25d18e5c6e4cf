//! What is published, at a pace or as fast as may be, and what is made of the times at which it arrived.

use std::{cell::Cell, collections::HashMap, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use interven_alerts::{
    broker::{
        Broker as _, Destination, Message, Queue,
        rabbitmq::{RabbitMq, RabbitSettings},
    },
    stand_ins::Stamp,
};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::{Rabbit, worker::SICK};

/// Publishes under way at once where it is to be fast.
const UNDER_WAY: usize = 500;

/// The firewall's side of one run.
pub(super) struct Load {
    broker: RabbitMq,
    prefix: String,
    /// Numbers the decisions.
    made: Cell<u64>,
}

impl Load {
    pub(super) async fn connect(rabbit: &Rabbit, prefix: &str) -> Self {
        let settings = RabbitSettings {
            urls: vec![rabbit.url()],
            prefix: prefix.to_owned(),
            declare: true,
            keep_decisions: None,
            lanes: Vec::new(),
        };
        let broker = RabbitMq::connect(settings, &TaskTracker::new()).expect("the URL is sound");
        broker.ready(Duration::from_mins(1)).await.expect("the broker is there");
        Self { broker, prefix: prefix.to_owned(), made: Cell::new(0) }
    }

    fn decision(&self, agent: &str) -> (String, Message) {
        let number = self.made.get();
        self.made.set(number + 1);
        let id = format!("{number:08}-5b6a-4788-99aa-bbccddeeff00");
        let json = format!(
            r#"{{"id":"{id}","time":"2026-06-01T12:00:00.123Z","decision":"DENY","severity":"HIGH","risk":0.71,"title":"Secret egress blocked","agent":{{"id":"{agent}"}},"tool":"slack","operation":"post_message","reasons":["PII_EGRESS","SENSITIVE_DATA_EGRESS"],"src":"10.0.0.42"}}"#
        );
        let message = Message { to: Destination::DecisionsExchange, id: id.clone(), body: Bytes::from(json) };
        (id, message)
    }

    /// Publishes `count` decisions of this agent as fast as the broker confirms them, and waits until `done`.
    pub(super) async fn drain(&self, agent: &str, count: u64, done: impl FnMut() -> bool) {
        let publishes = (0..count).map(|_| self.broker.publish(self.decision(agent).1));
        let mut confirms = stream::iter(publishes).buffer_unordered(UNDER_WAY);
        while let Some(confirm) = confirms.next().await {
            confirm.expect("the broker takes it");
        }
        wait_for("what was published has arrived", done).await;
    }

    /// Publishes `count` decisions of this agent, so many a second, whatever becomes of them; when each was due.
    pub(super) async fn paced(&self, agent: &str, per_second: u64, count: u64) -> HashMap<String, Instant> {
        let every = Duration::from_secs(1) / u32::try_from(per_second).expect("a small number");
        let (mut ticks, tracker, mut published) = (tokio::time::interval(every), TaskTracker::new(), HashMap::new());
        for _ in 0..count {
            // Burst is the default for what was missed, and a decision counts from when it was due: an open loop.
            let due = ticks.tick().await;
            let (id, message) = self.decision(agent);
            published.insert(id, due);
            let publish = self.broker.publish(message);
            tracker.spawn(async move { publish.await.expect("confirmed") });
        }
        tracker.close();
        tracker.wait().await;
        published
    }

    /// Waits until the worker has handed every decision on.
    pub(super) async fn until_taken_in(&self) {
        let deadline = Instant::now() + Duration::from_mins(1);
        while self.broker.waiting(Queue::Decisions).await.expect("the queue is there") > 0 {
            assert!(Instant::now() < deadline, "decisions are left after a minute");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Removes what the sick lanes leave behind, so that the next run does not carry it.
    pub(super) async fn clear(self, rabbit: &Rabbit) {
        self.broker.close().await;
        let queues = rabbit.ctl(&["-q", "list_queues", "--no-table-headers", "name"]).await;
        let lanes = format!("{}.alerts.lane.", self.prefix);
        for queue in queues.lines().filter(|name| name.starts_with(&lanes) && SICK.iter().any(|id| name.contains(id))) {
            rabbit.ctl(&["-q", "delete_queue", queue]).await;
        }
    }
}

pub(super) async fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(2);
    while !holds() {
        assert!(Instant::now() < deadline, "not within two minutes: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// p50 and p99 of the time from when a decision was due to when it arrived, in seconds; each arrival counts.
pub(super) fn quantiles(stamps: &[Stamp], published: &HashMap<String, Instant>) -> (f64, f64) {
    let mut waits: Vec<f64> = stamps
        .iter()
        .filter_map(|stamp| Some(stamp.at.saturating_duration_since(*published.get(&*stamp.id)?).as_secs_f64()))
        .collect();
    waits.sort_by(f64::total_cmp);
    (waits[waits.len() / 2], waits[waits.len() * 99 / 100])
}
