//! The steward: the one task that starts, renews, stops and retires lanes.
//!
//! It hears two voices, and does what they say one after the other: new configurations (`reload.rs`) and what operators decide
//! about channels (`made.rs`), as the log of the channels tells it to every worker of the pool.
//!
//! Lanes and intake start when the log has been read, so that a channel that an operator paused sends nothing, not even in the
//! first moment after a restart, and one that an operator made gets every decision that it wants. Where the log cannot be read
//! [`KNOWN_MAX`] after the broker is there, two things differ:
//! - Deliveries matter more than pauses: the lanes of the file's channels start, loudly, and tell what waits for them. The pauses are
//!   done when the log can be read.
//! - A decision that is acknowledged without a channel that should have had it is lost to that channel, silently. So the intake goes
//!   on waiting, loudly, for as long as it takes, and decisions wait in their queue. Only a worker without a key takes them in: in
//!   its pool no channel can have been made over the API, so nothing in the log can want them.

use std::{
    collections::BTreeSet,
    num::NonZeroU16,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info};

use super::{
    orphans::Census,
    reload::{Fixed, ReloadError, Reloaded},
};
use crate::{
    broker::{Health, Queue},
    channel_log::{Change, News, Standing},
    channels::Links,
    config::{AccessPlan, ChannelPlan, Plan},
    http::{Shown, Terms, Tokens},
    intake::{Intake, OwnTerms, Router},
    interactions::Answerable,
    lane::{self, LaneHandle, LanePlan, LaneTools},
    managed::{Book, Present},
    model::{ChannelId, Egress},
    route::Routes,
    sealing::Key,
    telemetry::Metrics,
};

/// How long lanes wait for the log of the channels, from when the broker is there.
const KNOWN_MAX: Duration = Duration::from_secs(10);

/// How often it is said that the log still cannot be read, and how often a queue that could not be made is tried again.
const REMIND_EVERY: Duration = Duration::from_mins(1);
pub(super) const REMAKE_EVERY: Duration = Duration::from_secs(30);

/// How many records are taken in at once.
const BATCH: usize = 256;

/// A wish for another configuration.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) plan: Box<Plan>,
    pub(super) done: oneshot::Sender<Result<Reloaded, ReloadError>>,
}

/// What the steward lets others see. Who looks holds a receiver, and always sees the present.
pub(super) struct Boards {
    /// Where decisions go.
    pub(super) routing: watch::Sender<Arc<Router>>,
    /// The channels, for the API.
    pub(super) shown: watch::Sender<Arc<[Shown]>>,
    /// Those of them whose cards can be answered in place.
    pub(super) answerable: watch::Sender<Arc<Answerable>>,
    /// What operators decided, as far as the lanes were told.
    pub(super) standing: watch::Sender<Arc<Standing>>,
    /// What the desk sees, where channels of the log are changed.
    pub(super) present: watch::Sender<Option<Arc<Present>>>,
    /// Which lanes are ours.
    pub(super) census: Arc<watch::Sender<Census>>,
    /// Who may call the API.
    pub(super) tokens: watch::Sender<Tokens>,
    /// On what terms the API is reached.
    pub(super) terms: watch::Sender<Arc<Terms>>,
    /// Whether lanes and intake run.
    pub(super) opened: watch::Sender<bool>,
}

impl Boards {
    /// Boards that show these lanes as ours, and nothing else yet.
    pub(super) fn new(lanes: Vec<ChannelId>) -> Self {
        Self {
            routing: watch::Sender::new(Arc::new(Router::new(Routes::new(Vec::new()), Vec::new()))),
            shown: watch::Sender::new(Arc::from([])),
            answerable: watch::Sender::new(Arc::new(Answerable::new([], Arc::new(Links::none())))),
            standing: watch::Sender::default(),
            present: watch::Sender::new(None),
            census: Arc::new(watch::Sender::new(Census::of(lanes))),
            tokens: watch::Sender::new(Arc::from([])),
            terms: watch::Sender::default(),
            opened: watch::Sender::new(false),
        }
    }
}

/// See the module.
pub(super) struct Steward {
    pub(super) fixed: Fixed,
    pub(super) prefetch: NonZeroU16,
    pub(super) tools: LaneTools,
    pub(super) links: Arc<Links>,
    pub(super) egress: Egress,
    /// The channels of the file.
    pub(super) file: Vec<ChannelPlan>,
    /// Those of the log.
    pub(super) book: Book,
    /// Those that are run: the file's, then those of the log whose ids the file does not have.
    pub(super) channels: Vec<ChannelPlan>,
    /// Channels of the log whose queues could not be made yet.
    pub(super) unmade: BTreeSet<ChannelId>,
    /// Channels of the log that the file is known to hide.
    pub(super) hidden: BTreeSet<ChannelId>,
    /// In the order of the channels; none before the intake runs.
    pub(super) lanes: Vec<LaneHandle>,
    /// The intake until it runs.
    intake: Option<Intake>,
    /// Whether the lanes run.
    lanes_run: bool,
    pub(super) standing: Standing,
    pub(super) boards: Boards,
    pub(super) metrics: Metrics,
    pub(super) tasks: Tasks,
}

/// Where the steward's tasks run, and what ends them.
pub(super) struct Tasks {
    /// Intake, lanes and the steward itself.
    pub(super) intake_and_lanes: TaskTracker,
    /// How many of them there are while all is well.
    pub(super) whole: Arc<AtomicUsize>,
    /// What nobody waits for.
    pub(super) background: TaskTracker,
    /// The stop of the worker.
    pub(super) stop: CancellationToken,
}

impl Steward {
    pub(super) fn new(
        plan: Plan,
        prefetch: NonZeroU16,
        tools: LaneTools,
        intake: Intake,
        boards: Boards,
        tasks: Tasks,
        key: Option<Key>,
    ) -> Self {
        let (fixed, metrics) = (Fixed::of(&plan), intake.metrics.clone());
        let Plan { access, egress, links, peers, channels, .. } = plan;
        let steward = Self {
            fixed,
            prefetch,
            tools,
            links: Arc::new(links),
            egress,
            file: channels.clone(),
            book: Book::new(key),
            channels,
            unmade: BTreeSet::new(),
            hidden: BTreeSet::new(),
            lanes: Vec::new(),
            intake: Some(intake),
            lanes_run: false,
            standing: Standing::default(),
            boards,
            metrics,
            tasks,
        };
        for channel in &steward.channels {
            steward.metrics.channel(&channel.id);
        }
        steward.metrics.prefetch.set(prefetch.get().into());
        steward.metrics.config_reloaded.set(steward.now());
        steward.admit(&access, &steward.links, &peers);
        steward.show();
        steward
    }

    /// Does what it hears, until the worker stops. The handles of the lanes go with it.
    pub(super) async fn run(mut self, mut asks: mpsc::Receiver<Ask>, mut news: mpsc::Receiver<News>) {
        let stop = self.tasks.stop.clone();
        let ended = stop.run_until_cancelled(self.serve(&mut asks, &mut news)).await.is_some();
        // What it hears ends with the worker, too, and it may notice that first.
        if ended && !stop.is_cancelled() {
            // A part of the worker has died. The router stays as it is: by an empty one, decisions would be settled untold.
            return;
        }
        self.lanes.clear();
        self.channels.clear();
        self.show();
    }

    async fn serve(&mut self, asks: &mut mpsc::Receiver<Ask>, news: &mut mpsc::Receiver<News>) {
        let mut late: BoxFuture<'static, ()> = Box::pin(late(self.tools.broker.health()));
        let mut heard = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                count = news.recv_many(&mut heard, BATCH) => {
                    if count == 0 {
                        // The follower has died, which it never should: the worker is broken, and `Worker::broken` sees it.
                        return;
                    }
                    self.hear(heard.drain(..)).await;
                }
                Some(Ask { plan, done }) = asks.recv() => {
                    // Whoever asked may have gone; what was done is in the log lines.
                    drop(done.send(self.reload(*plan).await));
                }
                () = &mut late, if !self.standing.is_known() => {
                    self.go_on_without_the_log();
                    late = Box::pin(tokio::time::sleep(REMIND_EVERY));
                }
                () = tokio::time::sleep(REMAKE_EVERY), if !self.unmade.is_empty() => self.make_queues_again().await,
            }
        }
    }

    /// Whether the lanes run.
    pub(super) fn is_open(&self) -> bool {
        self.lanes_run
    }

    fn go_on_without_the_log(&mut self) {
        let hint = "look at the broker's log: the stream may be without a majority of its nodes";
        if self.book.has_key() {
            error!(
                hint,
                "the log of the channels cannot be read: the lanes run without knowing which channels are paused, and no decision is taken in, because a channel of the log may want it"
            );
            self.open_lanes();
        } else {
            error!(
                hint,
                "the log of the channels cannot be read: the lanes run without knowing which channels are paused"
            );
            self.open_lanes();
            self.open_intake();
        }
    }

    async fn hear(&mut self, news: impl Iterator<Item = News>) {
        let mut made = BTreeSet::new();
        for one in news {
            let changes = match one {
                News::Whole(whole) => self.standing.catch_up(whole),
                News::Entry(entry) => self.standing.apply(entry).into_iter().collect(),
            };
            for change in changes {
                match change {
                    Change::Paused(id) => self.tell(&id, true).await,
                    Change::Resumed(id) => self.tell(&id, false).await,
                    Change::Channel(id) => drop(made.insert(id)),
                    Change::Forgotten(id) => self.write_again(&id),
                }
            }
        }
        self.take_over(made).await;
        if self.standing.is_known() {
            self.open_lanes();
            self.open_intake();
        }
        // After the lanes were told, so that whoever waits for a record finds it done.
        self.boards.standing.send_replace(Arc::new(self.standing.clone()));
    }

    async fn tell(&self, id: &ChannelId, paused: bool) {
        // A lane that has not started yet starts as the log says.
        let Some(lane) = self.lanes.iter().find(|lane| lane.id() == id) else { return };
        if paused {
            lane.stop_sending().await;
        } else if !self.is_locked(id) {
            lane.resume().await;
        }
    }

    fn open_lanes(&mut self) {
        if !std::mem::replace(&mut self.lanes_run, true) {
            self.lanes = self.channels.iter().map(|channel| self.start_lane(channel)).collect();
            self.show();
            self.count();
            self.boards.opened.send_replace(true);
        }
    }

    fn open_intake(&mut self) {
        let Some(intake) = self.intake.take() else { return };
        let (tasks, broker) = (&self.tasks, &self.tools.broker);
        let arrivals = broker.consume(Queue::Decisions, self.prefetch);
        tasks.intake_and_lanes.spawn(intake.run(arrivals, tasks.stop.clone()));
        self.count();
        let paused = self.channels.iter().filter(|channel| self.standing.pause(&channel.id).is_some()).count();
        info!(lanes = self.lanes.len(), paused, "decisions are taken in");
    }

    pub(super) fn start_lane(&self, channel: &ChannelPlan) -> LaneHandle {
        let stopped = self.standing.pause(&channel.id).is_some() || self.is_locked(&channel.id);
        let start = if stopped { lane::start_stopped } else { lane::start };
        let metrics = self.metrics.channel(&channel.id);
        let (tracker, stop) = (&self.tasks.intake_and_lanes, self.tasks.stop.clone());
        start(self.lane_plan(channel), self.tools.clone(), metrics, tracker, stop)
    }

    pub(super) fn lane_plan(&self, channel: &ChannelPlan) -> LanePlan {
        LanePlan {
            id: channel.id.clone(),
            channel: Arc::clone(&channel.channel),
            chat: channel.kind.chat,
            pace: channel.pace.clone(),
            timeout: channel.timeout,
            concurrency: channel.concurrency,
            digest: channel.digest.map(|digest| digest.over),
            retry: channel.retry,
            links: Arc::clone(&self.links),
            memory: usize::from(self.prefetch.get()),
        }
    }

    /// Puts the present channels and lanes where others look; returns the router that went by the old ones.
    pub(super) fn show(&self) -> Arc<Router> {
        for channel in &self.channels {
            self.metrics.show_canary(&channel.id, channel.canary);
        }
        let shown = self.channels.iter().zip(self.lanes.iter().map(Some).chain(std::iter::repeat(None)));
        self.boards.shown.send_replace(shown.map(|(channel, lane)| self.shown(channel, lane.cloned())).collect());
        self.show_present();
        // At a stop there are no channels any more, but clicks under way are still answered.
        if !self.tasks.stop.is_cancelled() {
            let channels = self.channels.iter().map(|channel| (channel.id.clone(), Arc::clone(&channel.channel)));
            self.boards.answerable.send_replace(Arc::new(Answerable::new(channels, Arc::clone(&self.links))));
        }
        let filters = self.channels.iter().take(self.lanes.len()).map(|channel| channel.filter.clone()).collect();
        let own = self.channels.iter().take(self.lanes.len());
        let own = own.map(|channel| OwnTerms { notices: channel.notices, canary: channel.canary }).collect();
        let router = Router::new(Routes::new(filters), self.lanes.clone()).with_own(own);
        self.boards.routing.send_replace(Arc::new(router))
    }

    /// From now on these may call the API, and nobody else.
    pub(super) fn admit(&self, access: &AccessPlan, links: &Links, peers: &[url::Url]) {
        let terms =
            Terms::new(&links.public, access.session, access.trusted_proxies.clone()).with_peers(peers.to_vec());
        self.boards.terms.send_replace(Arc::new(terms));
        let tokens = access.tokens.iter().map(|token| (token.name.clone(), token.role, token.sha256));
        self.boards.tokens.send_replace(tokens.collect());
    }

    /// Tells how many tasks there are while all is well: the lanes, the steward, and the intake once it runs.
    pub(super) fn count(&self) {
        self.tasks.whole.store(self.lanes.len() + 1 + usize::from(self.intake.is_none()), Ordering::Release);
    }

    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are exact in a double for 285 million years")]
    pub(super) fn now(&self) -> f64 {
        self.tools.clock.now().unix_seconds() as f64
    }
}

/// Comes [`KNOWN_MAX`] after the broker is there.
async fn late(mut health: watch::Receiver<Health>) {
    if health.wait_for(|health| health.connected).await.is_err() {
        // The broker was closed; the worker stops.
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(KNOWN_MAX).await;
}
