//! Builds the rooms from a plan, and starts and stops them in the order in which decisions flow.
//!
//! Start: store, broker, settler, lanes, intake, HTTP. A broker that is away does not stop the start: the worker says that it is
//! not ready and goes on trying.
//!
//! Stop: the intake stops taking decisions; the lanes finish what is under way and hand the rest to the broker; the settler
//! carries the last of it; acknowledgements are flushed; the connections close. What the grace does not suffice for is dropped
//! unsettled, so the broker hands it out again: a duplicate at worst, never a loss.

use std::{net::SocketAddr, num::NonZeroU16, sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    broker::{
        Broker, BrokerError, Queue,
        embedded::{Embedded, EmbeddedSettings},
        rabbitmq::{RabbitMq, RabbitSettings},
    },
    canary,
    config::{BrokerPlan, ChannelPlan, Plan},
    dead_letters::{DeadLetterError, Keeper, Store, StoreOptions},
    http::{self, Doors},
    intake::{Intake, OwnTerms, Router},
    lane::{self, ClientError, HttpPost, LaneHandle, LanePlan, LaneTools, Post},
    model::{ChannelId, Clock},
    notices,
    route::Routes,
    settle::Settler,
    telemetry::Metrics,
};

/// How often the depth of the lanes' queues is asked for.
const DEPTH_EVERY: Duration = Duration::from_secs(5);

/// How long the last flush of acknowledgements may take, after the grace.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// How long a command waits for the broker before it gives up.
const READY_MAX: Duration = Duration::from_secs(15);

/// The name of the dead-letter store below `data_dir`.
pub const DEAD_LETTERS_DIR: &str = "dead-letters";

/// The name of the embedded broker below `data_dir`.
pub const BROKER_DIR: &str = "broker";

/// Why a worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The dead-letter store.
    #[error("the dead-letter store could not be opened")]
    Store(#[from] DeadLetterError),
    /// The broker, where trying again cannot help.
    #[error("the broker could not be set up")]
    Broker(#[from] BrokerError),
    /// The root certificates.
    #[error("endpoints cannot be posted to")]
    Client(#[from] ClientError),
    /// A port.
    #[error("could not listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl StartError {
    /// What the operator can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Store(cause) => cause.hint(),
            Self::Broker(cause) => cause.hint,
            Self::Client(_) => "install the package `ca-certificates`",
            Self::Listen { .. } => "another program listens there: set `[http] listen` and `metrics_listen`",
        }
    }
}

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    stop: CancellationToken,
    give_up: CancellationToken,
    closing: CancellationToken,
    intake_and_lanes: TaskTracker,
    carrier: TaskTracker,
    carriers: usize,
    background: TaskTracker,
    broker: Arc<dyn Broker>,
    store: Store,
    routing: watch::Sender<Arc<Router>>,
    metrics: Metrics,
    doors: Option<Doors>,
    grace: Duration,
}

impl Worker {
    /// Starts a worker as `plan` says.
    pub async fn start(plan: Plan, clock: Clock) -> Result<Self, StartError> {
        crate::tls::install();
        let metrics = Metrics::new();
        let background = TaskTracker::new();
        let lanes: Vec<ChannelId> = plan.channels.iter().map(|channel| channel.id.clone()).collect();
        let store = open_store(&plan, clock, &metrics).await?;
        let broker = open_broker(&plan, lanes, clock, &background).await?;
        let (prefetch, keep_decisions) = intake_terms(&plan.broker);
        let [stop, give_up, closing] = std::array::from_fn(|_| CancellationToken::new());

        let carrier = TaskTracker::new();
        let keeper = Arc::new(Keeper::new(store.clone(), Arc::clone(&broker), clock));
        let (draining, until) = (Arc::clone(&keeper), stop.clone());
        background.spawn(async move { draining.drain(until).await });
        let start_settler = || {
            Settler::start(Arc::clone(&broker), Arc::clone(&keeper), metrics.clone(), clock, &carrier, give_up.clone())
        };
        // The log has a carrier of its own: one that cannot be written holds up acknowledgements, and not the lanes.
        let (settler, logger) = (start_settler(), start_settler());

        let post = HttpPost::new(Arc::new(plan.egress.clone()), clock)?;
        let tools = LaneTools {
            post: Arc::new(post) as Arc<dyn Post>,
            broker: Arc::clone(&broker),
            settler: settler.clone(),
            clock,
            scrubber: plan.scrubber(),
        };
        let links = Arc::new(plan.links.clone());
        let intake_and_lanes = TaskTracker::new();
        let handles: Vec<LaneHandle> = plan
            .channels
            .iter()
            .map(|channel| {
                let lane_plan = lane_plan(channel, &links, prefetch);
                lane::start(lane_plan, tools.clone(), metrics.channel(&channel.id), &intake_and_lanes, stop.clone())
            })
            .collect();
        let filters = plan.channels.iter().map(|channel| channel.filter.clone()).collect();
        let own = plan.channels.iter().map(|one| OwnTerms { notices: one.notices, canary: one.canary }).collect();
        let router = Arc::new(Router::new(Routes::new(filters), handles).with_own(own));

        let (present, routing) = watch::channel(Arc::clone(&router));
        let intake = Intake {
            router: routing,
            settler: settler.clone(),
            logger: keep_decisions.then_some(logger),
            clock,
            metrics: metrics.clone(),
        };
        intake_and_lanes.spawn(intake.run(broker.consume(Queue::Decisions, prefetch), stop.clone()));
        drop(tools);
        drop(settler);

        let terms = notices::Terms::default();
        background.spawn(notices::watch(present.subscribe(), metrics.clone(), clock, terms, stop.clone()));
        background.spawn(canary::send(present.subscribe(), Arc::clone(&broker), clock, stop.clone()));
        watch_health(Arc::clone(&broker), metrics.clone(), &background, stop.clone());
        watch_depths(Arc::clone(&broker), &router, metrics.clone(), &background, stop.clone());
        metrics.config_reloaded.set(seconds(clock.now().unix_seconds()));

        let mut worker = Self {
            stop,
            give_up,
            closing,
            intake_and_lanes,
            carrier,
            carriers: 1 + usize::from(keep_decisions),
            background,
            broker,
            store,
            routing: present,
            metrics,
            doors: None,
            grace: plan.shutdown_grace,
        };
        match worker.open_doors(&plan).await {
            Ok(doors) => worker.doors = Some(doors),
            Err(error) => {
                worker.stop().await;
                return Err(error);
            }
        }
        info!(version = env!("CARGO_PKG_VERSION"), channels = plan.channels.len(), "the worker has started");
        Ok(worker)
    }

    async fn open_doors(&self, plan: &Plan) -> Result<Doors, StartError> {
        let inside = http::Inside {
            metrics: self.metrics.clone(),
            store: self.store.clone(),
            broker: Arc::clone(&self.broker),
            draining: self.stop.clone(),
            closing: self.closing.clone(),
            tokens: plan.access.tokens.iter().map(|token| (token.name.clone(), token.role, token.sha256)).collect(),
        };
        http::open(plan.http.listen, plan.http.metrics_listen, inside, &self.background)
            .await
            .map_err(|(address, source)| StartError::Listen { address, source })
    }

    /// Where the HTTP side listens: the API, then the metrics. With port 0 in the configuration, these are the real ports.
    pub fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.doors.as_ref().map(|doors| (doors.api, doors.metrics))
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The lanes, in the order of the configuration.
    pub fn lanes(&self) -> Vec<LaneHandle> {
        self.routing.borrow().lanes().to_vec()
    }

    /// The broker, to publish to.
    pub fn broker(&self) -> Arc<dyn Broker> {
        Arc::clone(&self.broker)
    }

    /// The dead-letter store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Resolves when a part of the worker has ended that never should: then it must be stopped and started again.
    pub async fn broken(&self) {
        // Lanes, intake and carriers end only on `stop`. A tracker cannot tell which task ended, but their number can.
        let whole = || self.routing.borrow().lanes().len() + 1;
        while (self.intake_and_lanes.len() >= whole() && self.carrier.len() >= self.carriers)
            || self.stop.is_cancelled()
        {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Stops in order, within the grace.
    pub async fn stop(self) {
        info!(grace = ?self.grace, "stopping: finishing what is under way, handing the rest to the broker");
        self.stop.cancel();
        self.intake_and_lanes.close();
        // The router's handles hold the settler open; the carrier ends when the last of them is gone.
        drop(self.routing);
        let in_order = async {
            self.intake_and_lanes.wait().await;
            self.carrier.close();
            self.carrier.wait().await;
        };
        if tokio::time::timeout(self.grace, in_order).await.is_err() {
            warn!("the grace was too short for everything; the broker will hand the rest out again");
        }
        self.give_up.cancel();
        if tokio::time::timeout(CLOSE_MAX, self.broker.close()).await.is_err() {
            warn!("the broker did not confirm the last acknowledgements in time; what they were for will come again");
        }
        // Probes and metrics answer until here: `/readyz` says that the worker drains, and nobody takes silence for a crash.
        self.closing.cancel();
        self.background.close();
        if tokio::time::timeout(CLOSE_MAX, self.background.wait()).await.is_err() {
            warn!("some background tasks did not stop in time");
        }
        self.store.close().await;
        info!("stopped");
    }
}

fn lane_plan(channel: &ChannelPlan, links: &Arc<crate::channels::Links>, prefetch: NonZeroU16) -> LanePlan {
    LanePlan {
        id: channel.id.clone(),
        channel: Arc::clone(&channel.channel),
        chat: channel.kind.chat,
        pace: channel.pace.clone(),
        timeout: channel.timeout,
        concurrency: channel.concurrency,
        digest: channel.digest.map(|digest| digest.over),
        retry: channel.retry,
        links: Arc::clone(links),
        memory: usize::from(prefetch.get()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are exact in a double for 285 million years")]
fn seconds(seconds: i64) -> f64 {
    seconds as f64
}

/// How many unsettled decisions a worker holds, and whether decisions are logged.
fn intake_terms(plan: &BrokerPlan) -> (NonZeroU16, bool) {
    match plan {
        BrokerPlan::RabbitMq { prefetch, keep_decisions, .. } | BrokerPlan::Embedded { prefetch, keep_decisions } => {
            (*prefetch, keep_decisions.is_some())
        }
    }
}

async fn open_store(plan: &Plan, clock: Clock, metrics: &Metrics) -> Result<Store, StartError> {
    let dir = plan.data_dir.join(DEAD_LETTERS_DIR);
    let options = StoreOptions { clock, ..StoreOptions::default() };
    let opened = tokio::task::spawn_blocking(move || Store::open(&dir, options)).await;
    let (store, report) = opened.map_err(|_| DeadLetterError::Closed)??;
    for incident in &report.incidents {
        metrics.store_damaged.inc();
        warn!(
            incident,
            "the dead-letter store was damaged; what was damaged is kept aside, every intact letter is there"
        );
    }
    if let Some(why) = &report.down {
        warn!(why, "the dead-letter store cannot be opened yet: letters wait on the broker until it can");
    }
    info!(
        letters = report.letters,
        replayed = report.replayed,
        recovered = report.recovered,
        "the dead-letter store is open"
    );
    Ok(store)
}

async fn open_broker(
    plan: &Plan,
    lanes: Vec<ChannelId>,
    clock: Clock,
    tracker: &TaskTracker,
) -> Result<Arc<dyn Broker>, BrokerError> {
    match &plan.broker {
        BrokerPlan::RabbitMq { urls, prefix, declare, keep_decisions, prefetch: _ } => {
            let settings = RabbitSettings {
                urls: urls.clone(),
                prefix: prefix.clone(),
                declare: *declare,
                keep_decisions: *keep_decisions,
                lanes,
            };
            Ok(Arc::new(RabbitMq::connect(settings, tracker)?))
        }
        BrokerPlan::Embedded { keep_decisions, prefetch: _ } => {
            let settings =
                EmbeddedSettings { dir: plan.data_dir.join(BROKER_DIR), keep_decisions: *keep_decisions, lanes };
            Ok(Arc::new(Embedded::open(settings, clock, tracker).await?))
        }
    }
}

/// Connects to the plan's broker for a command, and waits until it is there.
pub async fn connect(plan: &Plan, clock: Clock, tracker: &TaskTracker) -> Result<Arc<dyn Broker>, StartError> {
    crate::tls::install();
    let lanes = plan.channels.iter().map(|channel| channel.id.clone()).collect();
    let broker = open_broker(plan, lanes, clock, tracker).await?;
    if let Err(error) = broker.ready(READY_MAX).await {
        broker.close().await;
        return Err(error.into());
    }
    Ok(broker)
}

/// Shows what the broker says of itself.
fn watch_health(broker: Arc<dyn Broker>, metrics: Metrics, tracker: &TaskTracker, stop: CancellationToken) {
    tracker.spawn(async move {
        let mut health = broker.health();
        loop {
            let now = *health.borrow_and_update();
            metrics.broker_connected.set(i64::from(now.connected));
            metrics.broker_reconnects.inc_by(now.reconnects.saturating_sub(metrics.broker_reconnects.get()));
            tokio::select! {
                () = stop.cancelled() => return,
                changed = health.changed() => if changed.is_err() { return },
            }
        }
    });
}

/// Asks now and then how much waits on the broker. A broker that is away leaves the last numbers as they were.
fn watch_depths(
    broker: Arc<dyn Broker>,
    router: &Router,
    metrics: Metrics,
    tracker: &TaskTracker,
    stop: CancellationToken,
) {
    // Ids and gauges, and not the lanes themselves: a handle of a lane would keep the settler from ending.
    let lanes: Vec<_> =
        router.lanes().iter().map(|lane| (lane.id().clone(), lane.metrics().in_lane_queue.clone())).collect();
    let asking = async move {
        let mut ticks = tokio::time::interval(DEPTH_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !broker.health().borrow().connected {
                continue;
            }
            for (id, gauge) in &lanes {
                if let Ok(depth) = broker.waiting(Queue::Lane(id.clone())).await {
                    gauge.set(i64::try_from(depth).unwrap_or(i64::MAX));
                }
            }
            if let Ok(depth) = broker.waiting(Queue::Dead).await {
                metrics.dead_letters_waiting.set(i64::try_from(depth).unwrap_or(i64::MAX));
            }
        }
    };
    // A stop must not wait for the answers of a thousand queues.
    tracker.spawn(async move { stop.run_until_cancelled(asking).await });
}
