//! Reading a log: a stream, consumed over AMQP from an offset, without ever taking anything from it.
//!
//! Prefetch is the stream's flow control and the broker's consumer timeout counts for streams too, so every record is
//! acknowledged as soon as it is read. The end of a stream cannot be asked for (the broker's message count is stale), so it is
//! found by reading: `last` gives the last chunk, and the highest offset in it is where the log ends at present. While others append,
//! it never comes to rest; but then a consumer of what is `next`, begun before, has a record: what was there has been seen when that
//! one has been.
//!
//! Silence proves nothing on a broker that is slow, so whether there is nothing more is found out with a witness: a second
//! consumer on the same channel, at a record that is there for sure. The broker serves the consumers of a channel in the order in
//! which they came, so when the witness has its record, the first one would have had its own.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::{
    Channel, Connection,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable, LongString},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    failure::{Failure, NOT_FOUND, limited},
    link::{Backoff, Link},
    topology::{close, look_at_queue, open, short},
};
use crate::broker::{BrokerError, End, Record, Start};

/// Records that the broker sends ahead. More is not faster (measured: 84, 105 and 95 thousand a second at 100, 1000, 5000).
const PREFETCH: u16 = 1000;

/// The longest that a call may take.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// The last chunk has arrived when nothing came for this long.
const QUIET: Duration = Duration::from_millis(250);

/// A stream that gives nothing for this long, and of which the broker counts nothing, is empty.
const EMPTY: Duration = Duration::from_millis(1500);

/// How long the end of a log is looked for at least while somebody appends without a pause: the node that we read from may be a
/// little behind the one that confirms.
const END_LOOK: Duration = Duration::from_secs(2);

/// A stream that must give something and does not for this long is broken for now.
const BROKEN: Duration = Duration::from_secs(20);

/// How long a reader of the present goes on trying after it lost the broker.
const RETRIES: usize = 6;

/// The task behind one `read`.
pub(super) struct Reader {
    pub(super) name: String,
    pub(super) start: Start,
    pub(super) end: End,
    pub(super) link: Link,
    pub(super) stop: CancellationToken,
    pub(super) records: mpsc::Sender<Result<Record, BrokerError>>,
}

/// Where the log ends for a reader of the present.
#[derive(Clone, Copy)]
enum Limit {
    /// At this offset.
    At(u64),
    /// It does not.
    Never,
}

impl Reader {
    /// Reads until the end, or until nobody listens. After a lost connection it goes on where it was.
    pub(super) async fn run(self) {
        // Where it starts at an offset, what comes before it in its chunk counts as seen.
        let mut seen = match self.start {
            Start::Offset(offset) => offset.checked_sub(1),
            Start::First | Start::At(_) | Start::Newest(_) => None,
        };
        let mut limit = None;
        let mut backoff = Backoff::new();
        let mut tries = 0;
        loop {
            let before = seen;
            let outcome = tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.records.closed() => return,
                outcome = self.read(&mut seen, &mut limit) => outcome,
            };
            let Err(failure) = outcome else { return };
            tries = if seen == before { tries + 1 } else { 1 };
            let hopeless = failure.reply_code() == Some(NOT_FOUND);
            if hopeless || (self.end != End::Follow && tries >= RETRIES) {
                // Nobody listening is no problem: then nobody needs the error.
                drop(self.records.send(Err(failure.into())).await);
                return;
            }
            tracing::debug!(log = self.name, %failure, "reading the log again");
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.records.closed() => return,
                () = tokio::time::sleep(backoff.pause()) => {}
            }
        }
    }

    /// Reads on from after `seen` over one connection.
    async fn read(&self, seen: &mut Option<u64>, limit: &mut Option<Limit>) -> Result<(), Failure> {
        let away = || Failure::new("the broker is not connected", "check that the broker runs", false);
        let connection = timeout(CALL_LIMIT, self.link.connection()).await.ok().flatten().ok_or_else(away)?;
        let limit = match (*limit, self.end, self.start) {
            (Some(limit), ..) => limit,
            (None, End::Follow, Start::First | Start::At(_) | Start::Offset(_)) => Limit::Never,
            (None, End::Before(0), _) => return Ok(()),
            (None, End::Before(offset), Start::First | Start::At(_) | Start::Offset(_)) => {
                *limit.insert(Limit::At(offset - 1))
            }
            (None, ..) => {
                let last = self.last(&connection).await?;
                if let (Start::Newest(count), Some(last), None) = (self.start, last, *seen) {
                    // Offsets have gaps, so they may be somewhat fewer. Without enough of them, it begins with the first.
                    *seen = last.checked_sub(count);
                }
                match (self.end, last) {
                    (End::Present | End::Before(_), None) => return Ok(()),
                    (End::Present, Some(last)) => *limit.insert(Limit::At(last)),
                    (End::Before(offset), Some(last)) => *limit.insert(Limit::At(last.min(offset - 1))),
                    (End::Follow, _) => Limit::Never,
                }
            }
        };
        if let (Limit::At(last), Some(seen)) = (limit, *seen)
            && seen >= last
        {
            return Ok(());
        }
        let channel = open(&connection).await?;
        let outcome = self.follow(&channel, seen, limit).await;
        close(&channel).await;
        outcome
    }

    async fn follow(&self, channel: &Channel, seen: &mut Option<u64>, limit: Limit) -> Result<(), Failure> {
        let from = match (*seen, self.start) {
            (Some(offset), _) => at(offset + 1),
            (None, Start::First | Start::Newest(_)) => AMQPValue::LongString(LongString::from("first")),
            (None, Start::Offset(offset)) => at(offset),
            (None, Start::At(time)) => AMQPValue::Timestamp(u64::try_from(time.unix_seconds()).unwrap_or(0)),
        };
        let mut consumer = self.consume(channel, "reader", from, PREFETCH).await?;
        let mut unacknowledged = 0;
        loop {
            let (offset, delivery) = match (limit, *seen) {
                (Limit::Never, _) => self.take(consumer.next().await)?,
                // A time after the last record gives nothing at all, ever.
                (Limit::At(last), None) if matches!(self.start, Start::At(_)) => {
                    match self.next_or_proof(channel, &mut consumer, last).await? {
                        Some(next) => next,
                        None => return Ok(()),
                    }
                }
                (Limit::At(_), None | Some(_)) => {
                    let next = timeout(BROKEN, consumer.next()).await;
                    self.take(next.map_err(|_| self.mute())?)?
                }
            };
            unacknowledged += 1;
            if unacknowledged >= usize::from(PREFETCH / 4) || matches!(limit, Limit::Never) {
                unacknowledged = 0;
                let call = channel.basic_ack(delivery.delivery_tag, BasicAckOptions { multiple: true });
                limited("could not acknowledge a record", "", CALL_LIMIT, call).await?;
            }
            // An offset may lie in the middle of a chunk, and a chunk is sent whole.
            if seen.is_none_or(|seen| offset > seen) {
                *seen = Some(offset);
                let record = Record { offset, body: Bytes::from(delivery.data) };
                if self.records.send(Ok(record)).await.is_err() {
                    return Ok(());
                }
            }
            if let Limit::At(last) = limit
                && offset >= last
            {
                return Ok(());
            }
        }
    }

    /// The offset of the last record; `None` of an empty log.
    async fn last(&self, connection: &Connection) -> Result<Option<u64>, Failure> {
        let channel = open(connection).await?;
        let counted = look_at_queue(&channel, &self.name).await?.message_count();
        let named = |offset| AMQPValue::LongString(LongString::from(offset));
        let mut newer = self.consume(&channel, "newer", named("next"), 1).await?;
        let mut consumer = self.consume(&channel, "last", named("last"), PREFETCH).await?;
        // The count may be stale, but a stream that ever had a record keeps its last one: a count above zero is certain.
        let first = match timeout(if counted > 0 { BROKEN } else { EMPTY }, consumer.next()).await {
            Ok(next) => self.acknowledged(&channel, next).await?.0,
            Err(_) if counted > 0 => return Err(self.mute()),
            Err(_) => {
                close(&channel).await;
                return Ok(None);
            }
        };
        let (mut last, began, mut appended) = (first, Instant::now(), None);
        while appended.is_none_or(|appended| last < appended) || began.elapsed() < END_LOOK {
            let next = tokio::select! {
                biased;
                next = newer.next(), if appended.is_none() => {
                    appended = Some(self.take(next)?.0);
                    continue;
                }
                next = timeout(QUIET, consumer.next()) => next,
            };
            if let Ok(next) = next {
                last = last.max(self.acknowledged(&channel, next).await?.0);
                continue;
            }
            let proving = open(connection).await?;
            let mut beyond = self.consume(&proving, "reader", at(last + 1), PREFETCH).await?;
            match self.next_or_proof(&proving, &mut beyond, last).await? {
                Some((offset, _)) => last = last.max(offset),
                None => break,
            }
            close(&proving).await;
            if began.elapsed() >= BROKEN {
                return Err(self.mute());
            }
        }
        close(&channel).await;
        Ok(Some(last))
    }

    /// What comes next of a consumer that has had nothing yet, or `None`, which is then proven: there is nothing for it. `there`
    /// is the offset of a record that is there.
    async fn next_or_proof(
        &self,
        channel: &Channel,
        consumer: &mut lapin::Consumer,
        there: u64,
    ) -> Result<Option<(u64, Delivery)>, Failure> {
        if let Ok(next) = timeout(QUIET, consumer.next()).await {
            return self.take(next).map(Some);
        }
        let mut witness = self.consume(channel, "witness", at(there), PREFETCH).await?;
        let seen = timeout(BROKEN, witness.next()).await.map_err(|_| self.mute())?;
        self.acknowledged(channel, seen).await?;
        // What both were sent at once may still be on its way through this process.
        match timeout(QUIET, consumer.next()).await {
            Ok(next) => self.take(next).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// The offset and the delivery that came, acknowledged by itself.
    async fn acknowledged(
        &self,
        channel: &Channel,
        next: Option<lapin::Result<Delivery>>,
    ) -> Result<(u64, Delivery), Failure> {
        let (offset, delivery) = self.take(next)?;
        let call = channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default());
        limited("could not acknowledge a record", "", CALL_LIMIT, call).await?;
        Ok((offset, delivery))
    }

    /// Reads from there on, so many records ahead.
    async fn consume(
        &self,
        channel: &Channel,
        tag: &str,
        from: AMQPValue,
        ahead: u16,
    ) -> Result<lapin::Consumer, Failure> {
        let doing = "could not read the log";
        limited(doing, &self.name, CALL_LIMIT, channel.basic_qos(ahead, BasicQosOptions::default())).await?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), from);
        let call = channel.basic_consume(short(&self.name), tag.into(), BasicConsumeOptions::default(), arguments);
        limited(doing, &self.name, CALL_LIMIT, call).await
    }

    fn take(&self, next: Option<lapin::Result<Delivery>>) -> Result<(u64, Delivery), Failure> {
        let doing = || format!("reading the log `{}` was cut short", self.name);
        match next {
            Some(Ok(delivery)) => {
                let headers = delivery.properties.headers().as_ref();
                let offset = match headers.and_then(|headers| headers.inner().get("x-stream-offset")) {
                    Some(AMQPValue::LongLongInt(offset)) => u64::try_from(*offset).ok(),
                    _ => None,
                };
                let not_a_stream = || {
                    Failure::new(
                        format!("`{}` is not a stream", self.name),
                        "delete the queue of this name, or set another `[broker] prefix`",
                        true,
                    )
                };
                Ok((offset.ok_or_else(not_a_stream)?, delivery))
            }
            Some(Err(error)) => Err(Failure::of(doing(), error)),
            None => Err(Failure::new(doing(), "it may have been deleted; it is made again at the next connect", false)),
        }
    }

    fn mute(&self) -> Failure {
        Failure::timeout(format_args!("reading the log `{}`", self.name), BROKEN)
    }
}

/// An offset as the broker reads it.
fn at(offset: u64) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(offset).unwrap_or(i64::MAX))
}

/// A reader of a log that is not kept: it ends at once, or never.
pub(super) async fn read_nothing(
    end: End,
    records: mpsc::Sender<Result<Record, BrokerError>>,
    stop: CancellationToken,
) {
    if end == End::Follow {
        tokio::select! {
            () = stop.cancelled() => {}
            () = records.closed() => {}
        }
    }
}
