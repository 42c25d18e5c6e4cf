//! What must be on the broker: names and arguments of contract 4, declared or, with `declare = false`, checked.
//!
//! A queue that is already there with other arguments (an operator made it) is taken as it is, after one warning: arguments
//! cannot be changed, and refusing to work would help nobody.
//!
//! The urgent queue of a lane is more than contract 4 asks an operator for. Where it is not there and may not be made, the lane
//! does without, after one warning: what is urgent then waits in the lane's own queue like the rest. So is the log of the
//! deliveries: without it, nothing is written down of what became of them.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lapin::{
    Channel, Connection, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, LongString, ShortString},
};

use super::failure::{ACCESS_REFUSED, Failure, NOT_FOUND, PRECONDITION_FAILED, limited};
use crate::{
    broker::{Destination, Log, Queue},
    model::ChannelId,
};

/// The longest that a declaration may take. A new quorum queue elects a leader first.
const DECLARE_LIMIT: Duration = Duration::from_secs(15);

/// Redeliveries after which RabbitMQ gives a message up to the dead-letter exchange. Every lost connection counts one for
/// every prefetched message, so the limit must be far away; poison is our own matter.
const DELIVERY_LIMIT: i64 = 1_000_000;

/// A segment of the decisions log, in bytes: retention drops whole segments.
const DECISIONS_SEGMENT_BYTES: i64 = 64 << 20;

/// A segment of the small logs, in bytes. The last segment is always kept, so the last record survives any retention.
const SMALL_SEGMENT_BYTES: i64 = 4 << 20;

/// The most that a small log keeps, in bytes: millions of answers.
const SMALL_LOG_BYTES: i64 = 1 << 30;

/// The most that the log of the deliveries keeps, in bytes, whatever its age: what became of some fifty million decisions.
const DELIVERIES_LOG_BYTES: i64 = 8 << 30;

/// The names and arguments of everything that we use on the broker.
#[derive(Debug)]
pub(super) struct Topology {
    prefix: String,
    declare: bool,
    keep_decisions: Option<Duration>,
    lanes: Mutex<BTreeSet<ChannelId>>,
    /// Queues that were found with other arguments than ours, so that each is warned of once.
    foreign: Mutex<HashSet<String>>,
    /// Lanes whose urgent queue is not there and cannot be made.
    without_urgent: Mutex<HashSet<ChannelId>>,
    /// Whether the log of the deliveries is not there and cannot be made.
    without_deliveries: AtomicBool,
}

/// One thing on the broker.
enum Part {
    Exchange(String),
    Queue(String, FieldTable),
    /// The urgent queue of a lane.
    Urgent(ChannelId, FieldTable),
    /// The log of the deliveries.
    Deliveries(String, FieldTable),
    /// A queue, and the exchange that it is bound to with `#`.
    Binding(String, String),
}

impl Part {
    fn is_queue(&self) -> bool {
        matches!(self, Self::Queue(..) | Self::Urgent(..) | Self::Deliveries(..))
    }
}

impl Topology {
    pub(super) fn new(
        prefix: String,
        declare: bool,
        keep_decisions: Option<Duration>,
        lanes: impl IntoIterator<Item = ChannelId>,
    ) -> Self {
        let lanes = Mutex::new(lanes.into_iter().collect());
        let (foreign, without_urgent) = (Mutex::default(), Mutex::default());
        let without_deliveries = AtomicBool::new(false);
        Self { prefix, declare, keep_decisions, lanes, foreign, without_urgent, without_deliveries }
    }

    /// The name of a queue.
    pub(super) fn queue(&self, queue: &Queue) -> String {
        match queue {
            Queue::Decisions => format!("{}.alerts.decisions", self.prefix),
            Queue::Lane(channel) => format!("{}.alerts.lane.{channel}", self.prefix),
            Queue::Urgent(channel) => format!("{}.alerts.lane.{channel}.urgent", self.prefix),
            Queue::Dead => format!("{}.alerts.dead", self.prefix),
        }
    }

    /// The name of a log, or `None` for a log that is not kept.
    pub(super) fn log(&self, log: Log) -> Option<String> {
        match log {
            Log::Decisions => self.keep_decisions.map(|_| format!("{}.alerts.log.decisions", self.prefix)),
            Log::Channels => Some(format!("{}.alerts.log.channels", self.prefix)),
            Log::Approvals => Some(format!("{}.alerts.log.approvals", self.prefix)),
            Log::Deliveries => self.keep_decisions.map(|_| format!("{}.alerts.log.deliveries", self.prefix)),
        }
    }

    /// Exchange and routing key of a destination, or `None` where nothing is kept.
    pub(super) fn address(&self, to: &Destination) -> Option<(ShortString, ShortString)> {
        let (exchange, key) = match to {
            Destination::DecisionsExchange => (format!("{}.decisions", self.prefix), String::from("decision")),
            Destination::ApprovalsExchange(key) => (format!("{}.approvals", self.prefix), key.clone()),
            Destination::Queue(queue) => (String::new(), self.queue(queue)),
            Destination::Log(log) => (String::new(), self.log(*log)?),
        };
        Some((short(&exchange), short(&key)))
    }

    /// Adds lanes, to be declared now by [`Self::establish_lanes`] and after each reconnect by [`Self::establish`].
    pub(super) fn add_lanes(&self, lanes: impl IntoIterator<Item = ChannelId>) {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).extend(lanes);
    }

    /// Forgets a lane.
    pub(super) fn forget_lane(&self, lane: &ChannelId) {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).remove(lane);
        self.without_urgent.lock().unwrap_or_else(PoisonError::into_inner).remove(lane);
    }

    /// Whether a lane has an urgent queue, as far as is known.
    pub(super) fn has_urgent(&self, lane: &ChannelId) -> bool {
        !self.without_urgent.lock().unwrap_or_else(PoisonError::into_inner).contains(lane)
    }

    /// A lane has no urgent queue that could be used, and why. The next declaration or check tries again.
    pub(super) fn lacks_urgent(&self, lane: &ChannelId, why: &Failure) {
        if self.without_urgent.lock().unwrap_or_else(PoisonError::into_inner).insert(lane.clone()) {
            tracing::warn!(
                %lane, %why,
                "the lane has no urgent queue and does without: approvals wait in the lane's queue like everything else"
            );
        }
    }

    /// Whether the log of the deliveries was not there at the last connect.
    pub(super) fn lacks_deliveries(&self) -> bool {
        self.without_deliveries.load(Ordering::Relaxed)
    }

    /// The names of what is not there and done without.
    pub(super) fn lacking(&self) -> Vec<String> {
        let lanes = self.without_urgent.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<String> = lanes.iter().map(|lane| self.queue(&Queue::Urgent(lane.clone()))).collect();
        names.sort();
        names.extend(self.log(Log::Deliveries).filter(|_| self.lacks_deliveries()));
        names
    }

    /// Declares or checks everything.
    pub(super) async fn establish(&self, connection: &Connection) -> Result<(), Failure> {
        let lanes: Vec<_> = self.lanes.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        let mut parts = vec![
            Part::Exchange(format!("{}.decisions", self.prefix)),
            Part::Exchange(format!("{}.approvals", self.prefix)),
        ];
        parts.extend(self.parts_of(&Queue::Dead));
        parts.extend(self.parts_of(&Queue::Decisions));
        for log in Log::ALL {
            let part = if log == Log::Deliveries { Part::Deliveries } else { Part::Queue };
            parts.extend(self.log(log).map(|name| part(name, self.log_arguments(log))));
        }
        parts.extend(lanes.iter().flat_map(|lane| self.parts_of_lane(lane)));
        self.put(connection, parts).await
    }

    /// Declares or checks one queue.
    pub(super) async fn establish_queue(&self, connection: &Connection, queue: &Queue) -> Result<(), Failure> {
        self.put(connection, self.parts_of(queue)).await
    }

    /// Declares or checks some lanes.
    pub(super) async fn establish_lanes(&self, connection: &Connection, lanes: &[ChannelId]) -> Result<(), Failure> {
        self.put(connection, lanes.iter().flat_map(|lane| self.parts_of_lane(lane)).collect()).await
    }

    fn parts_of_lane(&self, lane: &ChannelId) -> Vec<Part> {
        [Queue::Lane(lane.clone()), Queue::Urgent(lane.clone())].iter().flat_map(|queue| self.parts_of(queue)).collect()
    }

    fn parts_of(&self, queue: &Queue) -> Vec<Part> {
        let name = self.queue(queue);
        let mut arguments = table([text("x-queue-type", "quorum"), number("x-delivery-limit", DELIVERY_LIMIT)]);
        match queue {
            Queue::Decisions | Queue::Lane(_) | Queue::Urgent(_) => {
                arguments.insert("x-dead-letter-exchange".into(), string(""));
                arguments.insert("x-dead-letter-routing-key".into(), string(&self.queue(&Queue::Dead)));
            }
            Queue::Dead => {}
        }
        match queue {
            Queue::Decisions => {
                let exchange = format!("{}.decisions", self.prefix);
                vec![Part::Queue(name.clone(), arguments), Part::Binding(name, exchange)]
            }
            Queue::Lane(_) => {
                arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
                vec![Part::Queue(name, arguments)]
            }
            Queue::Urgent(lane) => {
                arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
                vec![Part::Urgent(lane.clone(), arguments)]
            }
            Queue::Dead => vec![Part::Queue(name, arguments)],
        }
    }

    fn log_arguments(&self, log: Log) -> FieldTable {
        let kind = text("x-queue-type", "stream");
        match (log, self.keep_decisions) {
            (Log::Decisions, Some(keep)) => table([
                kind,
                text("x-max-age", &max_age(keep)),
                number("x-stream-max-segment-size-bytes", DECISIONS_SEGMENT_BYTES),
            ]),
            (Log::Deliveries, Some(keep)) => table([
                kind,
                text("x-max-age", &max_age(keep)),
                number("x-max-length-bytes", DELIVERIES_LOG_BYTES),
                number("x-stream-max-segment-size-bytes", DECISIONS_SEGMENT_BYTES),
            ]),
            (Log::Decisions | Log::Deliveries, None) => table([kind]),
            (Log::Channels | Log::Approvals, _) => table([
                kind,
                number("x-max-length-bytes", SMALL_LOG_BYTES),
                number("x-stream-max-segment-size-bytes", SMALL_SEGMENT_BYTES),
            ]),
        }
    }

    async fn put(&self, connection: &Connection, parts: Vec<Part>) -> Result<(), Failure> {
        // A refused declaration costs the channel, so the next one opens another.
        let mut spare = None;
        for part in parts {
            let channel = match spare.take() {
                Some(channel) => channel,
                None => open(connection).await?,
            };
            match self.put_part(&channel, &part).await {
                Ok(()) => {
                    match &part {
                        Part::Urgent(lane, _) => {
                            self.without_urgent.lock().unwrap_or_else(PoisonError::into_inner).remove(lane);
                        }
                        Part::Deliveries(..) => self.without_deliveries.store(false, Ordering::Relaxed),
                        Part::Exchange(_) | Part::Queue(..) | Part::Binding(..) => {}
                    }
                    spare = Some(channel);
                }
                Err(failure) if self.declare && failure.reply_code() == Some(PRECONDITION_FAILED) => {
                    let name = match &part {
                        Part::Queue(name, _) | Part::Deliveries(name, _) => name.clone(),
                        Part::Urgent(lane, _) => self.queue(&Queue::Urgent(lane.clone())),
                        Part::Exchange(_) | Part::Binding(..) => return Err(failure),
                    };
                    let channel = open(connection).await?;
                    check_queue(&channel, &name).await?;
                    let is_log = Log::ALL.into_iter().any(|log| self.log(log).as_ref() == Some(&name));
                    let is_news = self.foreign.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
                    if is_news && is_log {
                        tracing::warn!(
                            log = name,
                            "the log is there with other arguments than ours and is used as it is: a changed `keep_decisions` counts for \
                             a log that is made anew; set a policy with `max-age` on the broker, or delete the log and what is in it"
                        );
                    } else if is_news {
                        tracing::warn!(
                            queue = name,
                            "the queue is there with other arguments than ours and is used as it is; \
                             if it has no high x-delivery-limit and no dead-letter exchange, many lost connections can cost messages"
                        );
                    }
                    spare = Some(channel);
                }
                // A declaration cannot miss what it declares: so says the broker of a queue or stream whose node is down, or that
                // is still waking up. The others work, and publishes to this one say for themselves that it does not.
                Err(failure) if self.declare && failure.reply_code() == Some(NOT_FOUND) && part.is_queue() => {
                    tracing::warn!(%failure, "a queue or log is there but does not answer; going on without it");
                }
                Err(failure) => match &part {
                    Part::Urgent(lane, _) if matches!(failure.reply_code(), Some(NOT_FOUND | ACCESS_REFUSED)) => {
                        self.lacks_urgent(lane, &failure);
                    }
                    Part::Deliveries(name, _) if matches!(failure.reply_code(), Some(NOT_FOUND | ACCESS_REFUSED)) => {
                        if !self.without_deliveries.swap(true, Ordering::Relaxed) {
                            tracing::warn!(
                                log = name, %failure,
                                "the log of the deliveries is not there: all is delivered, and nobody writes down what became of it"
                            );
                        }
                    }
                    Part::Urgent(..)
                    | Part::Deliveries(..)
                    | Part::Exchange(_)
                    | Part::Queue(..)
                    | Part::Binding(..) => return Err(failure),
                },
            }
        }
        if let Some(channel) = spare {
            close(&channel).await;
        }
        Ok(())
    }

    async fn put_part(&self, channel: &Channel, part: &Part) -> Result<(), Failure> {
        match part {
            Part::Exchange(name) if self.declare => {
                let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
                let call = channel.exchange_declare(short(name), ExchangeKind::Topic, options, FieldTable::default());
                limited("could not declare the exchange", name, DECLARE_LIMIT, call).await
            }
            Part::Exchange(name) => {
                let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
                let call = channel.exchange_declare(short(name), ExchangeKind::Topic, options, FieldTable::default());
                limited("could not find the exchange", name, DECLARE_LIMIT, call).await.map_err(missing)
            }
            Part::Queue(name, arguments) | Part::Deliveries(name, arguments) => {
                self.put_queue(channel, name, arguments).await
            }
            Part::Urgent(lane, arguments) => {
                self.put_queue(channel, &self.queue(&Queue::Urgent(lane.clone())), arguments).await
            }
            Part::Binding(queue, exchange) if self.declare => {
                let call = channel.queue_bind(
                    short(queue),
                    short(exchange),
                    "#".into(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                );
                limited("could not bind the queue", queue, DECLARE_LIMIT, call).await
            }
            // AMQP has no way to look at a binding; a mandatory publish tells when it is missing.
            Part::Binding(..) => Ok(()),
        }
    }
}

impl Topology {
    async fn put_queue(&self, channel: &Channel, name: &str, arguments: &FieldTable) -> Result<(), Failure> {
        if !self.declare {
            return check_queue(channel, name).await.map_err(missing);
        }
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let call = channel.queue_declare(short(name), options, arguments.clone());
        limited("could not declare the queue", name, DECLARE_LIMIT, call).await.map(drop)
    }
}

fn max_age(keep: Duration) -> String {
    format!("{}s", keep.as_secs().max(1))
}

fn missing(failure: Failure) -> Failure {
    if failure.reply_code() == Some(NOT_FOUND) {
        failure.hint("make it on the broker as the README's table says, or set `declare = true` in `[broker]`")
    } else {
        failure
    }
}

/// Checks that a queue or stream is there, which costs the channel if it is not, and says how many messages are ready.
pub(super) async fn look_at_queue(channel: &Channel, name: &str) -> Result<lapin::Queue, Failure> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let call = channel.queue_declare(short(name), options, FieldTable::default());
    limited("could not find the queue", name, DECLARE_LIMIT, call).await
}

async fn check_queue(channel: &Channel, name: &str) -> Result<(), Failure> {
    look_at_queue(channel, name).await.map(drop)
}

/// Opens an AMQP channel.
pub(super) async fn open(connection: &Connection) -> Result<Channel, Failure> {
    limited("could not open an AMQP channel", "", DECLARE_LIMIT, connection.create_channel()).await
}

/// Closes an AMQP channel, as far as it lets itself be closed in time.
pub(super) async fn close(channel: &Channel) {
    if channel.status().connected()
        && let Err(failure) = limited("closing", "", Duration::from_secs(3), channel.close(200, "done".into())).await
    {
        tracing::debug!(%failure, "could not close an AMQP channel");
    }
}

/// `text` as AMQP's short string: cut to 255 bytes at a character's edge, because the client library panics on longer ones.
pub(super) fn short(text: &str) -> ShortString {
    text[..text.floor_char_boundary(255)].into()
}

fn string(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

fn text(key: &str, value: &str) -> (ShortString, AMQPValue) {
    (key.into(), string(value))
}

fn number(key: &str, value: i64) -> (ShortString, AMQPValue) {
    (key.into(), AMQPValue::LongLongInt(value))
}

fn table<const N: usize>(pairs: [(ShortString, AMQPValue); N]) -> FieldTable {
    std::collections::BTreeMap::from(pairs).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_contract() {
        let topology = Topology::new("interven".into(), true, Some(Duration::from_mins(1)), []);
        assert_eq!(topology.queue(&Queue::Decisions), "interven.alerts.decisions");
        assert_eq!(topology.queue(&Queue::Lane("soc-slack".parse().unwrap())), "interven.alerts.lane.soc-slack");
        assert_eq!(topology.queue(&Queue::Urgent("soc".parse().unwrap())), "interven.alerts.lane.soc.urgent");
        assert_eq!(topology.queue(&Queue::Dead), "interven.alerts.dead");
        assert_eq!(topology.log(Log::Decisions).unwrap(), "interven.alerts.log.decisions");
        assert_eq!(topology.log(Log::Approvals).unwrap(), "interven.alerts.log.approvals");
        assert_eq!(topology.log(Log::Deliveries).unwrap(), "interven.alerts.log.deliveries");
        let (exchange, key) = topology.address(&Destination::ApprovalsExchange("approved.slack".into())).unwrap();
        assert_eq!((exchange.as_str(), key.as_str()), ("interven.approvals", "approved.slack"));
    }

    #[test]
    fn a_decisions_log_that_is_not_kept_has_no_address() {
        let topology = Topology::new("interven".into(), true, None, []);
        assert!(topology.address(&Destination::Log(Log::Decisions)).is_none());
        assert!(topology.address(&Destination::Log(Log::Deliveries)).is_none());
        assert!(topology.address(&Destination::Log(Log::Channels)).is_some());
    }

    #[test]
    fn hostile_text_is_cut_where_the_client_library_would_panic() {
        let key = short(&"é".repeat(200));
        assert_eq!(key.as_str().len(), 254);
    }
}
