//! RabbitMQ as a [`Broker`], and the only place that names its client library.
//!
//! One worker has two connections, each with a supervisor that makes it again whenever it is lost ([`link`]): one consumes and
//! acknowledges, one publishes. Publishes go through one task per AMQP channel ([`publisher`], [`line`](mod@line), and
//! [`quarantine`] for what does not confirm); each consumer is a task with an AMQP channel of its own ([`consumer`]), whose
//! receipts come back to a desk ([`session`]) that acknowledges them in batches ([`ledger`]). What overtakes everything else in a
//! lane is told in [`urgent`] and [`side`]. Logs are streams ([`reader`]). The names and arguments of it all are in [`topology`].
//!
//! What was measured of RabbitMQ and of the client library, and why this looks as it does: `shared/reference/broker.md`.
//!
//! Absent on purpose: requeueing by hand, the client library's own recovery, and TTL queues.
//!
//! Start with [`ledger`], which is pure, then [`consumer`] and [`publisher`].

mod consumer;
mod endpoint;
mod failure;
mod lanes;
mod ledger;
mod line;
mod link;
mod publisher;
mod quarantine;
mod reader;
mod session;
mod side;
mod topology;
mod urgent;

use std::{
    fmt,
    num::NonZeroU16,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use lapin::Connection;
use tokio::sync::{Mutex as AsyncMutex, OnceCell, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    consumer::Consumer,
    endpoint::Endpoint,
    failure::Failure,
    link::{Condition, Link, Role, Supervisor},
    publisher::Publishers,
    reader::Reader,
    session::Session,
    topology::Topology,
    urgent::Tools,
};
use super::{
    Arrivals, Broker, BrokerError, Destination, End, Health, Log, Message, PublishError, Queue, Record, Start,
};
use crate::model::{ChannelId, Secret};

/// The longest that an operation waits for a connection.
const CONNECTION_LIMIT: Duration = Duration::from_secs(15);

/// The longest that closing may take: publishes under way, receipts that are out, and two connections.
const CLOSE_LIMIT: Duration = Duration::from_secs(20);

/// Records that a reader may be behind its log in memory.
const READ_AHEAD: usize = 1000;

/// How to reach RabbitMQ and what to call things there.
#[derive(Clone, Debug)]
pub struct RabbitSettings {
    /// The nodes of one cluster, tried in turn: `amqp://user:password@host:5672/%2f`, or `amqps://`. At least one.
    pub urls: Vec<Secret>,
    /// What every name begins with: `interven`.
    pub prefix: String,
    /// Whether to declare queues, streams and exchanges; else they are only checked.
    pub declare: bool,
    /// How long the decisions log keeps its records. With `None` there is no such log, nor one of deliveries: publishing
    /// to [`Log::Decisions`] or [`Log::Deliveries`] does nothing and is `Ok`, and reading them finds nothing.
    pub keep_decisions: Option<Duration>,
    /// The lanes whose queues are needed from the beginning.
    pub lanes: Vec<ChannelId>,
}

/// RabbitMQ. Cheap to clone.
#[derive(Clone)]
pub struct RabbitMq(Arc<Inner>);

struct Inner {
    topology: Arc<Topology>,
    condition: Arc<Condition>,
    consuming: Link,
    publishers: Publishers,
    sessions: Arc<Sessions>,
    /// Consumers, readers and publishers.
    workers: Arc<Tasks>,
    /// The supervisors of the connections.
    supervisors: Tasks,
    /// Ends consumers, readers and publishers.
    stop: CancellationToken,
    /// Ends the connections.
    end: CancellationToken,
    closed: OnceCell<()>,
}

/// Tasks that closing waits for; the process's tracker has them too.
struct Tasks {
    ours: TaskTracker,
    process: TaskTracker,
}

impl Tasks {
    fn new(process: &TaskTracker) -> Self {
        Self { ours: TaskTracker::new(), process: process.clone() }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.process.spawn(self.ours.track_future(task));
    }

    async fn ended(&self) {
        self.ours.close();
        self.ours.wait().await;
    }
}

/// The sessions of this worker by queue, for [`Broker::waiting`].
#[derive(Default)]
struct Sessions(Mutex<Vec<(Queue, Weak<Session>)>>);

impl Sessions {
    fn add(&self, queue: &Queue, session: &Arc<Session>) {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|(_, session)| session.strong_count() > 0);
        sessions.push((queue.clone(), Arc::downgrade(session)));
    }

    fn unacknowledged(&self, queue: Option<&Queue>) -> u64 {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = sessions.iter().filter(|(of, _)| queue.is_none_or(|queue| of == queue));
        ours.filter_map(|(_, session)| session.upgrade()).map(|session| session.unacknowledged() as u64).sum()
    }

    /// Whether one of ours consumes the urgent queue beside `queue`.
    fn has_urgent(&self, queue: &Queue) -> bool {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ours = sessions.iter().filter(|(of, _)| of == queue).filter_map(|(_, session)| session.upgrade());
        ours.any(|session| session.has_urgent())
    }
}

impl RabbitMq {
    /// A broker that connects, and connects again, by itself. Returns at once; only a faulty URL is an error.
    pub fn connect(settings: RabbitSettings, tracker: &TaskTracker) -> Result<Self, BrokerError> {
        if settings.urls.is_empty() {
            return Err(BrokerError {
                what: "no broker URL is given".into(),
                hint: "set `[broker] url`",
                source: None,
            });
        }
        let RabbitSettings { urls, prefix, declare, keep_decisions, lanes } = settings;
        let topology = Arc::new(Topology::new(prefix, declare, keep_decisions, lanes));
        let condition = Arc::new(Condition::new());
        let turnstile = Arc::new(AsyncMutex::new(()));
        let (stop, end) = (CancellationToken::new(), CancellationToken::new());
        let (workers, supervisors) = (Arc::new(Tasks::new(tracker)), Tasks::new(tracker));
        let link = |role| -> Result<Link, BrokerError> {
            let supervisor = Supervisor {
                role,
                endpoints: urls.iter().map(Endpoint::parse).collect::<Result<_, _>>()?,
                topology: Arc::clone(&topology),
                condition: Arc::clone(&condition),
                turnstile: Arc::clone(&turnstile),
                end: end.clone(),
            };
            let (link, task) = supervisor.start();
            supervisors.spawn(task);
            Ok(link)
        };
        let (consuming, publishing) = (link(Role::Consume)?, link(Role::Publish)?);
        let publishers = Publishers::start(publishing, Arc::clone(&topology), &workers, &stop);
        let (sessions, closed) = (Arc::default(), OnceCell::new());
        Ok(Self(Arc::new(Inner {
            topology,
            condition,
            consuming,
            publishers,
            sessions,
            workers,
            supervisors,
            stop,
            end,
            closed,
        })))
    }

    /// Waits until the broker is there with everything that we need. A failure that waiting cannot mend (a refused login, a
    /// missing queue with `declare = false`) is told at once, any other one after `limit`.
    pub async fn ready(&self, limit: Duration) -> Result<(), BrokerError> {
        let mut health = self.0.condition.health();
        let mut failure = self.0.condition.failure();
        let ready = async { health.wait_for(|health| health.connected).await.is_ok() };
        let hopeless = async { failure.wait_for(|f| f.as_ref().is_some_and(|f| f.lasting)).await.is_ok() };
        tokio::select! {
            biased;
            true = ready => return Ok(()),
            true = hopeless => {}
            () = tokio::time::sleep(limit) => {}
        }
        let last = self.0.condition.failure().borrow().clone();
        Err(last.unwrap_or_else(|| Failure::timeout("the broker is not connected", limit)).into())
    }

    /// How many messages this worker holds unacknowledged, over all queues.
    pub fn unacknowledged(&self) -> u64 {
        self.0.sessions.unacknowledged(None)
    }
}

impl Inner {
    async fn connection(&self) -> Result<Arc<Connection>, Failure> {
        let connection = tokio::time::timeout(CONNECTION_LIMIT, self.consuming.connection()).await.ok().flatten();
        connection.ok_or_else(|| {
            let last = self.condition.failure().borrow().clone();
            last.unwrap_or_else(|| Failure::new("the broker is not connected", "check that the broker runs", false))
        })
    }

    async fn ensure_lanes(&self, lanes: Vec<ChannelId>) -> Result<(), Failure> {
        self.topology.add_lanes(lanes.iter().cloned());
        self.topology.establish_lanes(&*self.connection().await?, &lanes).await
    }

    async fn close(&self) {
        self.stop.cancel();
        let stopped = async {
            // The connections end last: consumers and publishers still need them for what is under way.
            self.workers.ended().await;
            self.end.cancel();
            self.supervisors.ended().await;
        };
        if tokio::time::timeout(CLOSE_LIMIT, stopped).await.is_err() {
            self.end.cancel();
            tracing::warn!("the broker did not let itself be closed in time; what was not acknowledged comes again");
        }
    }
}

impl Broker for RabbitMq {
    fn publish(&self, message: Message) -> BoxFuture<'static, Result<(), PublishError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            match message.to.clone() {
                Destination::Queue(Queue::Urgent(lane)) => {
                    urgent::publish(&inner.publishers, &inner.topology, message, &lane).await
                }
                Destination::DecisionsExchange
                | Destination::ApprovalsExchange(_)
                | Destination::Queue(Queue::Decisions | Queue::Lane(_) | Queue::Dead)
                | Destination::Log(_) => inner.publishers.publish(message).await,
            }
        })
    }

    fn consume(&self, queue: Queue, window: NonZeroU16) -> Arrivals {
        let inner = &self.0;
        let (near, far) = mpsc::channel(usize::from(window.get()));
        let (urgent, all) = match &queue {
            Queue::Lane(lane) => {
                let (near, urgent) = mpsc::channel(usize::from(side::WINDOW));
                let (topology, link) = (Arc::clone(&inner.topology), inner.consuming.clone());
                let tools = Tools::new(lane.clone(), inner.publishers.clone(), topology, link);
                (Some((Arc::new(tools), near)), Arrivals::with_urgent(urgent, far))
            }
            Queue::Decisions | Queue::Urgent(_) | Queue::Dead => (None, Arrivals::new(far)),
        };
        let consumer = Consumer {
            queue,
            window,
            link: inner.consuming.clone(),
            topology: Arc::clone(&inner.topology),
            sessions: Arc::clone(&inner.sessions),
            stop: inner.stop.clone(),
            arrivals: near,
            urgent,
        };
        if !inner.stop.is_cancelled() {
            inner.workers.spawn(consumer.run());
        }
        all
    }

    fn ensure_lanes(&self, lanes: Vec<ChannelId>) -> BoxFuture<'static, Result<(), BrokerError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { Ok(inner.ensure_lanes(lanes).await?) })
    }

    fn forget_lane(&self, lane: &ChannelId) {
        self.0.topology.forget_lane(lane);
    }

    fn remove_lane(&self, lane: ChannelId) -> BoxFuture<'static, Result<u64, BrokerError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { Ok(inner.remove_lane(lane).await?) })
    }

    /// Counts what is ready on the broker and what **this** worker holds unacknowledged. What other workers hold is not in it:
    /// AMQP does not tell. Of a lane, which one worker consumes at a time, that worker sees the whole, and may count markers
    /// ([`urgent`]) that wait behind others in the lane's queue; other workers may count too few where ready urgent messages and
    /// ready others wait together, because each urgent one has its marker among those.
    fn waiting(&self, queue: Queue) -> BoxFuture<'static, Result<u64, BrokerError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { Ok(inner.waiting(queue).await?) })
    }

    fn read(&self, log: Log, start: Start, end: End) -> mpsc::Receiver<Result<Record, BrokerError>> {
        let (records, far) = mpsc::channel(READ_AHEAD);
        let stop = self.0.stop.clone();
        match self.0.topology.log(log) {
            Some(name) if !stop.is_cancelled() => {
                let link = self.0.consuming.clone();
                self.0.workers.spawn(Reader { name, start, end, link, stop, records }.run());
            }
            Some(_) => {}
            None => self.0.workers.spawn(reader::read_nothing(end, records, stop)),
        }
        far
    }

    fn ready(&self, limit: Duration) -> BoxFuture<'static, Result<(), BrokerError>> {
        let broker = self.clone();
        Box::pin(async move { Self::ready(&broker, limit).await })
    }

    fn unsettled(&self) -> u64 {
        self.unacknowledged()
    }

    fn lacking(&self) -> Vec<String> {
        self.0.topology.lacking()
    }

    fn lacks(&self, log: Log) -> bool {
        log == Log::Deliveries && self.0.topology.lacks_deliveries()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.0.condition.health()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            inner.closed.get_or_init(|| inner.close()).await;
        })
    }
}

impl fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMq").field("health", &*self.0.condition.health().borrow()).finish_non_exhaustive()
    }
}
