//! The firewall's side of the broker: publishes decisions as the firewall does, with confirms, and shares no code with the
//! worker, so that both agree on the contract and not on a bug.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, future::join_all};
use interven_alerts::model::Secret;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::time::{Instant, timeout};

/// How long one batch may take until it is confirmed.
const BATCH_LIMIT: Duration = Duration::from_secs(10);

/// How long a node may take to let us in.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A publisher that connects again by itself.
pub(crate) struct Publisher {
    urls: Vec<Secret>,
    turn: usize,
    prefix: String,
    connection: Option<(Connection, Channel)>,
}

impl Publisher {
    pub(crate) fn new(url: Secret, prefix: &str) -> Self {
        Self::to_any(vec![url], prefix)
    }

    /// A publisher to a cluster, which goes to the next node when one does not do its work.
    pub(crate) fn to_any(urls: Vec<Secret>, prefix: &str) -> Self {
        Self { urls, turn: 0, prefix: prefix.to_owned(), connection: None }
    }

    async fn channel(&mut self) -> lapin::Result<Channel> {
        if let Some((connection, channel)) = &self.connection
            && connection.status().connected()
            && channel.status().connected()
        {
            return Ok(channel.clone());
        }
        let url = &self.urls[self.turn % self.urls.len()];
        self.turn += 1;
        let connecting = Connection::connect(url.expose(), ConnectionProperties::default());
        let silent = || lapin::Error::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        let connection = timeout(CONNECT_LIMIT, connecting).await.map_err(|_| silent())??;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        self.connection = Some((connection, channel.clone()));
        Ok(channel)
    }

    /// Publishes all of `bodies` to the decisions exchange; whether the broker has confirmed that all of them are in a queue.
    /// With `false`, nothing is known of any.
    pub(crate) async fn publish(&mut self, bodies: &[Bytes]) -> bool {
        let confirmed = timeout(BATCH_LIMIT, self.try_publish(bodies)).await;
        let confirmed = matches!(confirmed, Ok(Ok(true)));
        if !confirmed {
            self.connection = None;
        }
        confirmed
    }

    async fn try_publish(&mut self, bodies: &[Bytes]) -> lapin::Result<bool> {
        const KEYS: [&str; 3] = ["decision", "decision.deny.high", "acme"];
        let exchange = format!("{}.decisions", self.prefix);
        let keyed = bodies.iter().enumerate().map(|(at, body)| (KEYS[at % 3], body));
        self.send(&exchange, keyed).await
    }

    /// Declares a queue that gets every answer to an approval, as the firewall does. The exchange must be there.
    pub(crate) async fn listen_for_answers(&mut self, queue: &str) {
        let channel = self.channel().await.unwrap();
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.into(), options, arguments).await.unwrap();
        let exchange = format!("{}.approvals", self.prefix);
        let binding = QueueBindOptions::default();
        channel
            .queue_bind(queue.into(), exchange.as_str().into(), "#".into(), binding, FieldTable::default())
            .await
            .unwrap();
    }

    /// Puts one message straight into a queue of the worker's, as nobody but an operator by mistake would.
    pub(crate) async fn put_into_ours(&mut self, queue: &str, body: &Bytes) {
        let queue = format!("{}.alerts.{queue}", self.prefix);
        assert!(self.send("", [(&*queue, body)]).await.unwrap(), "not confirmed");
    }

    async fn send<'a>(
        &mut self,
        exchange: &str,
        messages: impl IntoIterator<Item = (&'a str, &'a Bytes)>,
    ) -> lapin::Result<bool> {
        let channel = self.channel().await?;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sends = messages.into_iter().map(|(key, body)| {
            let properties = BasicProperties::default().with_delivery_mode(2);
            channel.basic_publish(exchange.into(), key.into(), options, body, properties)
        });
        let confirms = join_all(sends).await.into_iter().collect::<lapin::Result<Vec<_>>>()?;
        let confirms = join_all(confirms).await.into_iter().collect::<lapin::Result<Vec<_>>>()?;
        Ok(confirms.into_iter().all(|confirm| confirm.is_ack() && confirm.take_message().is_none()))
    }

    /// Publishes until confirmed, for at most `limit`.
    pub(crate) async fn publish_surely(&mut self, bodies: &[Bytes], limit: Duration) {
        let deadline = Instant::now() + limit;
        while !self.publish(bodies).await {
            assert!(Instant::now() < deadline, "not published within {limit:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Takes everything that is ready out of a queue; `None`: no such queue, or no broker. Nobody else may consume it any more.
    pub(crate) async fn take_all(&mut self, queue: &str) -> Option<Vec<Bytes>> {
        let count = self.ready_in(queue).await?;
        let take = async {
            let channel = self.channel().await?;
            // Consumed and not got one by one: a queue with a single active consumer refuses the latter.
            let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
            let consumer = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;
            let bodies = consumer.map_ok(|message| Bytes::from(message.data));
            bodies.take(usize::try_from(count).expect("a count of messages")).try_collect().await
        };
        timeout(BATCH_LIMIT, take).await.ok()?.map_err(|error: lapin::Error| eprintln!("{error}")).ok()
    }

    /// How many messages are ready in a queue; nobody holds those. `None`: no such queue, or no broker.
    pub(crate) async fn ready_in(&mut self, queue: &str) -> Option<u32> {
        let look = async {
            self.channel().await?;
            let (connection, _) = self.connection.as_ref().expect("it was just made");
            // A missing queue costs the channel, so this one is nobody else's.
            let channel = connection.create_channel().await?;
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let found = channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
            channel.close(200, "done".into()).await?;
            Ok::<_, lapin::Error>(found.message_count())
        };
        timeout(BATCH_LIMIT, look).await.ok()?.ok()
    }

    /// Those of these queues in which messages are ready, and how many.
    pub(crate) async fn ready_in_each<'q>(&mut self, queues: &'q [String]) -> Option<Vec<(&'q str, u32)>> {
        let mut counts = Vec::new();
        for queue in queues {
            let count = self.ready_in(queue).await?;
            if count > 0 {
                counts.push((queue.as_str(), count));
            }
        }
        Some(counts)
    }

    /// How many messages are ready in all of our queues: decisions, dead letters, and the lanes of `channels`.
    pub(crate) async fn ready_in_all(&mut self, channels: &[&str]) -> Option<u32> {
        let prefix = self.prefix.clone();
        let lanes = channels.iter().map(|channel| format!("{prefix}.alerts.lane.{channel}"));
        let mut sum = 0;
        for queue in lanes.chain([format!("{prefix}.alerts.decisions"), format!("{prefix}.alerts.dead")]) {
            sum += self.ready_in(&queue).await?;
        }
        Some(sum)
    }
}
