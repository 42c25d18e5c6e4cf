//! Starting: every room is built here, from its own parameters.

use std::{
    num::NonZeroU16,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use super::{
    BROKER_DIR, DEAD_LETTERS_DIR, KEY_FILE, StartError, Worker, approving, interacting,
    orphans::{Registrar, Undertaker},
    steward::{Boards, Steward, Tasks},
    watching::{watch_depths, watch_health},
};
use crate::{
    broker::{
        Broker, BrokerError,
        embedded::{Embedded, EmbeddedSettings},
        rabbitmq::{RabbitMq, RabbitSettings},
    },
    canary,
    channel_log::{ChannelLog, News},
    config::{BrokerPlan, Plan},
    dead_letters::{DeadLetter, DeadLetterError, Keeper, Store, StoreOptions},
    delivery_log::{self, DeliveryLog},
    export::{self, Exporter},
    http,
    intake::Intake,
    lane::{HttpPost, LaneTools, Post},
    managed::Desk,
    model::{ChannelId, Clock},
    notices,
    sealing::Key,
    settle::{self, Settler},
    telemetry::Metrics,
};

/// How many reloads may wait for their turn.
const ASKS_MAX: usize = 4;

/// How long a caller may take nothing of its export.
const EXPORT_PATIENCE: Duration = Duration::from_mins(1);

/// How many records of the log of the channels are read ahead.
const NEWS_MAX: usize = 256;

impl Worker {
    /// Starts a worker as `plan` says.
    #[expect(clippy::too_many_lines, reason = "one list of rooms, in the order in which they are built")]
    pub async fn start(plan: Plan, clock: Clock) -> Result<Self, StartError> {
        crate::tls::install();
        let metrics = Metrics::new();
        let background = TaskTracker::new();
        let lanes: Vec<ChannelId> = plan.channels.iter().map(|channel| channel.id.clone()).collect();
        let store = open_store(&plan, clock, &metrics).await?;
        let broker = open_broker(&plan, lanes.clone(), clock, &background).await?;
        let key = pools_key(&plan).map_err(|source| StartError::Key { path: plan.data_dir.join(KEY_FILE), source })?;
        let (prefetch, keep_decisions) = intake_terms(&plan.broker);
        let [stop, give_up, closing] = std::array::from_fn(|_| CancellationToken::new());

        let carrier = TaskTracker::new();
        let deliveries =
            if keep_decisions { DeliveryLog::start(Arc::clone(&broker), metrics.clone()) } else { DeliveryLog::none() };
        let told = given_up(metrics.clone(), deliveries.clone());
        let keeper = Keeper::new(store.clone(), Arc::clone(&broker), clock).telling(told);
        let keeper = Arc::new(keeper);
        let (draining, until) = (Arc::clone(&keeper), stop.clone());
        background.spawn(async move { draining.drain(until).await });
        let start_settler = || {
            let (broker, keeper) = (Arc::clone(&broker), Arc::clone(&keeper));
            Settler::start(broker, keeper, metrics.clone(), deliveries.clone(), clock, &carrier, give_up.clone())
        };
        // Each log has a carrier of its own: one that cannot be written holds up acknowledgements, and not the lanes.
        let (settler, logger, clerk) = (start_settler(), start_settler(), start_settler());
        let approving = approving::start(&broker, clock, &metrics, plan.approvals, [&stop, &give_up]);

        let post = HttpPost::new(Arc::new(plan.egress.clone()), clock)?;
        let tools = LaneTools {
            post: Arc::new(post) as Arc<dyn Post>,
            broker: Arc::clone(&broker),
            settler: settler.clone(),
            clock,
            scrubber: plan.scrubber(),
            posted: approving.posted.clone(),
            deliveries: deliveries.clone(),
        };
        let boards = Boards::new(lanes);
        let routing = boards.routing.subscribe();
        let intake = Intake {
            router: routing.clone(),
            settler,
            logger: keep_decisions.then_some(logger),
            asker: clerk,
            deliveries: deliveries.clone(),
            clock,
            metrics: metrics.clone(),
        };
        let slack = interacting::start(&approving, &tools, boards.answerable.subscribe(), &background, &stop);
        let doors = http::Inside {
            metrics: metrics.clone(),
            store: store.clone(),
            broker: Arc::clone(&broker),
            exporter: exporter(&plan, &broker, keep_decisions, &stop, &background),
            deliveries: deliveries.clone(),
            accounts: delivery_log::Reader::new(Arc::clone(&broker), clock, keep_decisions),
            draining: stop.clone(),
            closing: closing.clone(),
            key: key.clone(),
            tokens: boards.tokens.subscribe(),
            terms: boards.terms.subscribe(),
            channels: boards.shown.subscribe(),
            standing: boards.standing.subscribe(),
            log: ChannelLog::new(Arc::clone(&broker)),
            desk: Desk::new(
                key.clone(),
                Arc::clone(&broker),
                clock,
                tools.scrubber.clone(),
                boards.present.subscribe(),
                boards.standing.subscribe(),
            ),
            approvals: approving.approvals,
            slack,
            clock,
        };

        let news = follow_log(&tools, &boards, &metrics, may_remove_queues(&plan.broker), |task| {
            // Each ends at once on `stop`, whatever it does: nothing of theirs is worth waiting for.
            let stop = stop.clone();
            background.spawn(async move { stop.run_until_cancelled(task).await });
        });
        let (whole, opened) = (Arc::new(AtomicUsize::new(1)), boards.opened.subscribe());
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let intake_and_lanes = TaskTracker::new();
        let (address, scrubber, grace) = (plan.http, tools.scrubber.clone(), plan.shutdown_grace);
        let channels = plan.channels.len();
        let tasks = Tasks {
            intake_and_lanes: intake_and_lanes.clone(),
            whole: Arc::clone(&whole),
            background: background.clone(),
            stop: stop.clone(),
        };
        let steward = Steward::new(plan, prefetch, tools, intake, boards, tasks, key);
        intake_and_lanes.spawn(steward.run(asked, news));

        let terms = notices::Terms::default();
        background.spawn(notices::watch(routing.clone(), metrics.clone(), clock, terms, stop.clone()));
        background.spawn(canary::send(routing.clone(), Arc::clone(&broker), clock, stop.clone()));
        watch_health(Arc::clone(&broker), metrics.clone(), &background, stop.clone());
        watch_depths(Arc::clone(&broker), routing.clone(), metrics.clone(), &background, stop.clone());

        let mut worker = Self {
            stop,
            give_up,
            closing,
            intake_and_lanes,
            answers: approving.answers,
            following: approving.following,
            carrier,
            carriers: 2 + usize::from(keep_decisions),
            background,
            broker,
            deliveries,
            store,
            routing,
            whole,
            asks,
            opened,
            scrubber,
            metrics,
            doors: None,
            grace,
        };
        // Whoever holds it keeps the cards from coming to an end, and a start that fails stops what has begun.
        drop(approving.posted);
        match http::open(address.listen, address.metrics_listen, doors, &worker.background).await {
            Ok(doors) => worker.doors = Some(doors),
            Err((address, source)) => {
                worker.stop().await;
                return Err(StartError::Listen { address, source });
            }
        }
        // A broker that is there tells at once what operators decided; one that is away is not waited for.
        if worker.broker.health().borrow().connected {
            worker.opened().await;
        }
        info!(version = env!("CARGO_PKG_VERSION"), channels, "the worker has started");
        Ok(worker)
    }
}

/// Starts what writes down and buries, and follows the log of the channels: what is heard comes out of the receiver.
fn follow_log(
    tools: &LaneTools,
    boards: &Boards,
    metrics: &Metrics,
    may_remove: bool,
    spawn: impl Fn(BoxFuture<'static, ()>),
) -> mpsc::Receiver<News> {
    let (log, clock) = (ChannelLog::new(Arc::clone(&tools.broker)), tools.clock);
    let registrar =
        Registrar { log: log.clone(), clock, census: boards.census.subscribe(), standing: boards.standing.subscribe() };
    let undertaker = Undertaker {
        broker: Arc::clone(&tools.broker),
        settler: tools.settler.clone(),
        log: log.clone(),
        metrics: metrics.clone(),
        clock,
        census: Arc::clone(&boards.census),
        standing: boards.standing.subscribe(),
        may_remove,
    };
    let (heard, news) = mpsc::channel(NEWS_MAX);
    spawn(Box::pin(registrar.run()));
    spawn(Box::pin(undertaker.run()));
    spawn(Box::pin(log.follow(heard)));
    news
}

/// Counts what the broker gave up: a delivery among it has ended.
fn given_up(metrics: Metrics, deliveries: DeliveryLog) -> impl Fn(&DeadLetter) {
    move |letter| {
        metrics.wrote_letter(letter.reason, letter.channel.as_ref(), false);
        if let Some(channel) = &letter.channel {
            settle::died(metrics.stake_of_removed(channel), letter, &deliveries);
        }
    }
}

/// The key that was given, or one of its own for a worker that is alone.
fn pools_key(plan: &Plan) -> std::io::Result<Option<Key>> {
    match (&plan.key, &plan.broker) {
        (Some(key), _) => Ok(Some(key.clone())),
        (None, BrokerPlan::Embedded { .. }) => Key::in_file(&plan.data_dir.join(KEY_FILE)).map(Some),
        (None, BrokerPlan::RabbitMq { .. }) => Ok(None),
    }
}

/// What gives exports: it sorts beside the worker's own data, and ends when the worker begins to stop.
fn exporter(
    plan: &Plan,
    broker: &Arc<dyn Broker>,
    kept: bool,
    stop: &CancellationToken,
    tracker: &TaskTracker,
) -> Exporter {
    let terms = export::Terms {
        broker: Arc::clone(broker),
        kept,
        spill: export::Spill::to(vec![plan.data_dir.clone()]),
        limits: export::Limits::default(),
        patience: Some(EXPORT_PATIENCE),
        stop: stop.clone(),
    };
    Exporter::new(terms, tracker)
}

/// How many unsettled decisions a worker holds, and whether decisions are logged.
fn intake_terms(plan: &BrokerPlan) -> (NonZeroU16, bool) {
    match plan {
        BrokerPlan::RabbitMq { prefetch, keep_decisions, .. } | BrokerPlan::Embedded { prefetch, keep_decisions } => {
            (*prefetch, keep_decisions.is_some())
        }
    }
}

/// Whether queues on the broker are ours to remove: where we may not make them, they are the operator's.
fn may_remove_queues(plan: &BrokerPlan) -> bool {
    match plan {
        BrokerPlan::RabbitMq { declare, .. } => *declare,
        BrokerPlan::Embedded { .. } => true,
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

pub(super) async fn open_broker(
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
