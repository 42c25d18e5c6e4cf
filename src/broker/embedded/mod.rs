//! The embedded broker: the promises of [`Broker`] for a single worker, out of a directory.
//!
//! One thread, the [`keeper`], owns a sled database and everything in it; all others leave their wishes in its [`desk`]'s
//! inbox. A publish is answered after a sync that covers it; messages are removed when they are settled. The hardening of sled
//! is in [`vault`], the layout of a message in [`records`], the rules of a queue in [`queue`].
//!
//! Differences to RabbitMQ that a reader should know: what is published to the approvals exchange is kept as a log of the last
//! 10,000 answers, because nobody can consume it here; after a restart every message reads as redelivered, because nothing
//! records what was handed out; and a message whose receipt was dropped comes again by itself, without its siblings.
//!
//! Start with [`queue`], then [`keeper`].

mod desk;
mod keeper;
mod queue;
mod records;
pub(crate) mod vault;

use std::{
    collections::HashMap,
    fmt,
    num::NonZeroU16,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::sync::{OnceCell, Semaphore, mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    desk::{Ask, Inbox, Job, Page, Place},
    keeper::{Book, Keeper},
    vault::OPEN_LIMIT,
};
use super::{Arrival, Arrivals, Broker, BrokerError, End, Health, Log, Message, PublishError, Queue, Record, Start};
use crate::model::{ChannelId, Clock};

/// The most publishes under way.
const PUBLISHES_MAX: usize = 1024;

/// The longest that a publish may take.
const PUBLISH_LIMIT: Duration = Duration::from_secs(20);

/// The largest body, in bytes.
const BODY_BYTES_MAX: usize = 16 << 20;

/// Urgent messages that may be out besides a lane's window.
const URGENT_WINDOW: u16 = 64;

/// Records that are read from the database at once.
const PAGE: usize = 200;

/// Where the embedded broker keeps its messages.
#[derive(Clone, Debug)]
pub struct EmbeddedSettings {
    /// Its directory; made when it is not there. One process may use it at a time.
    pub dir: PathBuf,
    /// How long the decisions log keeps its records. With `None` publishing to [`Log::Decisions`] or
    /// [`Log::Deliveries`] does nothing and is `Ok`.
    pub keep_decisions: Option<Duration>,
    /// The lanes that are needed from the beginning. Lanes of earlier runs are still there too.
    pub lanes: Vec<ChannelId>,
}

/// The embedded broker. Cheap to clone.
#[derive(Clone)]
pub struct Embedded(Arc<Inner>);

struct Inner {
    inbox: Arc<Inbox>,
    permits: Arc<Semaphore>,
    grown: HashMap<Book, watch::Receiver<u64>>,
    keep_decisions: bool,
    health: watch::Receiver<Health>,
    consumers: AtomicU64,
    tracker: TaskTracker,
    /// Tells consumers and readers that the broker is being closed.
    stop: CancellationToken,
    /// Tells that the thread has ended.
    over: watch::Receiver<bool>,
    closed: OnceCell<()>,
}

impl Embedded {
    /// Opens the store, which takes as long as reading it once.
    pub async fn open(settings: EmbeddedSettings, clock: Clock, tracker: &TaskTracker) -> Result<Self, BrokerError> {
        let inbox = Arc::new(Inbox::default());
        let (health, health_seen) = watch::channel(Health { connected: false, reconnects: 0 });
        let growers: HashMap<_, _> = Book::ALL.into_iter().map(|book| (book, watch::Sender::new(0))).collect();
        let grown = growers.iter().map(|(book, sender)| (*book, sender.subscribe())).collect();
        let keep_decisions = settings.keep_decisions.is_some();
        let (over, over_seen) = watch::channel(false);
        let (opened, outcome) = oneshot::channel();
        let post = Arc::clone(&inbox);
        let thread = move || {
            match Keeper::open(settings, clock, post, health, &growers) {
                Ok(keeper) => {
                    drop(growers);
                    // If nobody waits any more, the inbox is told to stop by the guard that was dropped.
                    drop(opened.send(Ok(())));
                    keeper.run();
                }
                Err(error) => drop(opened.send(Err(error))),
            }
            over.send_replace(true);
        };
        let failed = |why: String| BrokerError { what: why, hint: "look at the log", source: None };
        let spawned = std::thread::Builder::new().name("embedded-broker".into()).spawn(thread);
        spawned.map_err(|error| failed(format!("could not start a thread: {error}")))?;
        let inner = Inner {
            inbox,
            permits: Arc::new(Semaphore::new(PUBLISHES_MAX)),
            grown,
            keep_decisions,
            health: health_seen,
            consumers: AtomicU64::new(0),
            tracker: tracker.clone(),
            stop: CancellationToken::new(),
            over: over_seen,
            closed: OnceCell::new(),
        };
        let opened = tokio::time::timeout(OPEN_LIMIT, outcome).await;
        let opened =
            opened.map_err(|_| failed("the embedded broker's database does not open: it may be damaged".into()))?;
        opened.map_err(|_| failed("the embedded broker's thread died while opening".into()))??;
        Ok(Self(Arc::new(inner)))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.begin_to_stop();
    }
}

impl Inner {
    fn begin_to_stop(&self) {
        self.stop.cancel();
        self.inbox.stop();
    }

    /// Lets a consumer join a queue.
    fn join(&self, id: u64, queue: Queue, window: u16) -> mpsc::Receiver<Arrival> {
        let (arrivals, far) = mpsc::channel(usize::from(window));
        if !self.stop.is_cancelled() {
            let (inbox, watched) = (Arc::clone(&self.inbox), arrivals.clone());
            inbox.ask(Ask::Consume { id, queue: queue.clone(), window, arrivals });
            self.tracker.spawn(watch_consumer(inbox, id, queue, watched, self.stop.clone()));
        }
        far
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<Result<T, BrokerError>>) -> Ask) -> Result<T, BrokerError> {
        let (done, outcome) = oneshot::channel();
        self.inbox.ask(ask(done));
        outcome.await.unwrap_or_else(|_| {
            Err(BrokerError {
                what: "the embedded broker is closed".into(),
                hint: "start the worker again",
                source: None,
            })
        })
    }

    async fn read(&self, log: Log, start: Start, end: End, records: mpsc::Sender<Result<Record, BrokerError>>) {
        let Some(mut grown) = self.grown.get(&Book::Log(log)).cloned() else { return };
        if log.is_of_decisions() && !self.keep_decisions && end != End::Follow {
            return;
        }
        let mut from = Place::Start(start);
        let mut limit = None;
        loop {
            grown.mark_unchanged();
            let page: Page = match self.ask(|done| Ask::Read { log, from, most: PAGE, done }).await {
                Ok(page) => page,
                Err(error) => {
                    // Nobody listening is no problem: then nobody needs the error.
                    drop(records.send(Err(error)).await);
                    return;
                }
            };
            let limit = *limit.get_or_insert(match end {
                End::Before(offset) => offset.min(page.end),
                End::Present | End::Follow => page.end,
            });
            let was_all = page.records.is_empty();
            for record in page.records {
                if end != End::Follow && record.offset >= limit {
                    return;
                }
                from = Place::From(record.offset + 1);
                if records.send(Ok(record)).await.is_err() {
                    return;
                }
            }
            if !was_all {
                continue;
            }
            if let Place::Start(_) = from {
                // A time after the last record: what follows is at or after it.
                from = Place::From(page.end);
            }
            match end {
                End::Present | End::Before(_) => return,
                End::Follow => tokio::select! {
                    () = records.closed() => return,
                    () = self.stop.cancelled() => return,
                    changed = grown.changed() => if changed.is_err() { return },
                },
            }
        }
    }
}

impl Broker for Embedded {
    fn publish(&self, message: Message) -> BoxFuture<'static, Result<(), PublishError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            if message.body.len() > BODY_BYTES_MAX {
                return Err(PublishError::TooLarge { bytes: message.body.len() });
            }
            let publish = async {
                let _permit = inner.permits.acquire().await.map_err(|_| PublishError::Disconnected)?;
                let (done, outcome) = oneshot::channel();
                inner.inbox.publish(Job { message, done });
                outcome.await.unwrap_or(Err(PublishError::Disconnected))
            };
            let late = |_| Err(PublishError::Timeout { seconds: PUBLISH_LIMIT.as_secs() });
            tokio::time::timeout(PUBLISH_LIMIT, publish).await.unwrap_or_else(late)
        })
    }

    fn consume(&self, queue: Queue, window: NonZeroU16) -> Arrivals {
        let id = self.0.consumers.fetch_add(1, Ordering::Relaxed);
        // The urgent queue first, so that the first that is handed out is urgent if anything is. The same consumer is the active
        // one of both: it joins both, and leaves both, in one order with all others.
        let urgent = match &queue {
            Queue::Lane(lane) => Some(self.0.join(id, Queue::Urgent(lane.clone()), URGENT_WINDOW)),
            Queue::Decisions | Queue::Urgent(_) | Queue::Dead => None,
        };
        let arrivals = self.0.join(id, queue, window.get());
        match urgent {
            Some(urgent) => Arrivals::with_urgent(urgent, arrivals),
            None => Arrivals::new(arrivals),
        }
    }

    fn ensure_lanes(&self, lanes: Vec<ChannelId>) -> BoxFuture<'static, Result<(), BrokerError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.ask(|done| Ask::EnsureLanes { lanes, done }).await })
    }

    fn remove_lane(&self, lane: ChannelId) -> BoxFuture<'static, Result<u64, BrokerError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.ask(|done| Ask::RemoveLane { lane, done }).await })
    }

    fn waiting(&self, queue: Queue) -> BoxFuture<'static, Result<u64, BrokerError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.ask(|done| Ask::Waiting { queue, done }).await })
    }

    fn read(&self, log: Log, start: Start, end: End) -> mpsc::Receiver<Result<Record, BrokerError>> {
        let (records, far) = mpsc::channel(PAGE);
        let inner = Arc::clone(&self.0);
        self.0.tracker.spawn(async move { inner.read(log, start, end, records).await });
        far
    }

    fn ready(&self, _: Duration) -> BoxFuture<'static, Result<(), BrokerError>> {
        // It is there as soon as it is open, and it opens before there is a handle to ask.
        Box::pin(std::future::ready(Ok(())))
    }

    fn unsettled(&self) -> u64 {
        self.0.inbox.unsettled()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.0.health.clone()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let close = || async {
                inner.begin_to_stop();
                let mut over = inner.over.clone();
                // An error means that the thread is gone, which is what we wait for.
                drop(over.wait_for(|over| *over).await);
            };
            inner.closed.get_or_init(close).await;
        })
    }
}

/// Tells the keeper when a consumer's other end is gone.
async fn watch_consumer(
    inbox: Arc<Inbox>,
    id: u64,
    queue: Queue,
    arrivals: mpsc::Sender<Arrival>,
    stop: CancellationToken,
) {
    tokio::select! {
        () = arrivals.closed() => inbox.ask(Ask::Gone { id, queue }),
        () = stop.cancelled() => {}
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("health", &*self.0.health.borrow()).finish_non_exhaustive()
    }
}
