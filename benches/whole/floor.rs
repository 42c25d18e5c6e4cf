//! The floor: consume, post, acknowledge. As fast as these two libraries allow, and careless of everything else.

use std::{collections::BTreeSet, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};

/// Acknowledgements are sent for this many settled messages at once, or when nothing has come for a moment.
const ACK_EVERY: usize = 128;
const ACK_AFTER: Duration = Duration::from_millis(5);

pub(super) fn main(arguments: &[String]) {
    let [amqp, queue, sink, prefetch, concurrency, batch] = arguments else { panic!("six arguments") };
    let number = |text: &String| text.parse::<u16>().expect("a number");
    interven_alerts::tls::install();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(drain(amqp, queue, sink, number(prefetch), number(concurrency), number(batch)));
}

async fn drain(amqp: &str, queue: &str, sink: &str, prefetch: u16, concurrency: u16, batch: u16) {
    let connection = Connection::connect(amqp, ConnectionProperties::default()).await.expect("the broker is there");
    let channel = connection.create_channel().await.expect("a channel");
    channel.basic_qos(prefetch, BasicQosOptions::default()).await.expect("a window");
    let mut deliveries = channel
        .basic_consume(queue.into(), "floor".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await
        .expect("the queue is there");
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let url: reqwest::Url = sink.parse().expect("a URL");
    let mut posts = FuturesUnordered::new();
    let mut acks = Acks { channel, settled: BTreeSet::new(), next: 1 };
    loop {
        let room = posts.len() < usize::from(concurrency);
        tokio::select! {
            Some(tags) = posts.next(), if !posts.is_empty() => acks.settle(tags).await,
            Some(delivery) = deliveries.next(), if room => {
                let delivery = delivery.expect("the connection holds");
                let mut tags = vec![delivery.delivery_tag];
                let body = if batch == 1 {
                    Bytes::from(delivery.data)
                } else {
                    let mut joined = BytesMut::from(&delivery.data[..]);
                    while tags.len() < usize::from(batch) {
                        let more = deliveries.next().await.expect("the queue is there").expect("the connection holds");
                        joined.put_u8(b'\n');
                        joined.extend_from_slice(&more.data);
                        tags.push(more.delivery_tag);
                    }
                    joined.freeze()
                };
                let request = client.post(url.clone()).header("content-type", "application/json").body(body);
                posts.push(async move {
                    let reply = request.send().await.expect("the sink answers");
                    assert!(reply.status().is_success());
                    reply.bytes().await.expect("the sink answers whole");
                    tags
                });
            }
            () = tokio::time::sleep(ACK_AFTER), if acks.pending() => acks.flush().await,
        }
    }
}

/// Settled tags, acknowledged by their prefix.
struct Acks {
    channel: Channel,
    settled: BTreeSet<u64>,
    next: u64,
}

impl Acks {
    fn pending(&self) -> bool {
        self.settled.first() == Some(&self.next)
    }

    async fn settle(&mut self, tags: Vec<u64>) {
        self.settled.extend(tags);
        if self.settled.len() >= ACK_EVERY {
            self.flush().await;
        }
    }

    async fn flush(&mut self) {
        let first = self.next;
        while self.settled.remove(&self.next) {
            self.next += 1;
        }
        if self.next > first {
            self.channel
                .basic_ack(self.next - 1, BasicAckOptions { multiple: true })
                .await
                .expect("the connection holds");
        }
    }
}
