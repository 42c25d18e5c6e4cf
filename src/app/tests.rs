//! The steward and the undertaker in virtual time, on a broker of which a test says what it answers.

mod made;

use std::{
    collections::VecDeque,
    num::NonZeroU16,
    sync::{Arc, Mutex, atomic::AtomicUsize},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    orphans::{Census, Tenure, Undertaker},
    reload::{ReloadError, Reloaded},
    steward::{Ask, Boards, Steward, Tasks},
};
use crate::{
    broker::{
        Arrival, Arrivals, Broker, BrokerError, Destination, End, Health, Log, Message, PublishError, Queue, Receipt,
        Record, Start, receipt::Desk,
    },
    channel_log::{ChannelLog, Deed, Entry, News, Standing},
    config::testing::plan,
    delivery_log::DeliveryLog,
    intake::Intake,
    lane::{LaneState, LaneTools, Post},
    model::{ChannelId, Clock, DeathReason, Reply, Scrubber, Timestamp, Trouble},
    sealing::Key,
    settle::{Job, Settler},
    telemetry::Metrics,
};

/// A broker that is there, notes what it is asked, and answers as it is told.
#[derive(Debug)]
struct Told {
    health: watch::Sender<Health>,
    /// What each asking for a lane's removal is answered: `None` is "somebody consumes it".
    removals: Mutex<VecDeque<Option<u64>>>,
    refuses_lanes: Mutex<bool>,
    /// What waits in every lane's queue.
    waiting: Mutex<VecDeque<Arrival>>,
    asked: Mutex<Vec<(Instant, String)>>,
}

impl Told {
    fn new(connected: bool) -> Arc<Self> {
        Arc::new(Self {
            health: watch::Sender::new(Health { connected, reconnects: 0 }),
            removals: Mutex::default(),
            refuses_lanes: Mutex::new(false),
            waiting: Mutex::default(),
            asked: Mutex::default(),
        })
    }

    fn note(&self, what: String) {
        self.asked.lock().unwrap().push((Instant::now(), what));
    }

    fn asked(&self, what: &str) -> Vec<Instant> {
        self.asked.lock().unwrap().iter().filter(|(_, asked)| asked == what).map(|(at, _)| *at).collect()
    }
}

fn now_so<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}

fn error(what: &str) -> BrokerError {
    BrokerError { what: what.to_owned(), hint: "", source: None }
}

impl Broker for Told {
    fn publish(&self, message: Message) -> BoxFuture<'static, Result<(), PublishError>> {
        if message.to == Destination::Log(Log::Channels) {
            let entry = Entry::decode(&message.body).unwrap().unwrap();
            self.note(format!("{:?} {}", entry.deed, entry.channel));
        }
        now_so(Ok(()))
    }

    fn consume(&self, queue: Queue, _: NonZeroU16) -> Arrivals {
        self.note(format!("consume {queue:?}"));
        let waiting: Vec<Arrival> = match queue {
            Queue::Lane(_) => self.waiting.lock().unwrap().drain(..).collect(),
            Queue::Decisions | Queue::Urgent(_) | Queue::Dead => Vec::new(),
        };
        if waiting.is_empty() {
            return Arrivals::nothing();
        }
        let (sender, arrivals) = mpsc::channel(waiting.len());
        for arrival in waiting {
            sender.try_send(arrival).unwrap();
        }
        Arrivals::new(arrivals)
    }

    fn ensure_lanes(&self, lanes: Vec<ChannelId>) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.note(format!("ensure {lanes:?}"));
        now_so(if *self.refuses_lanes.lock().unwrap() { Err(error("no such queue")) } else { Ok(()) })
    }

    fn forget_lane(&self, lane: &ChannelId) {
        self.note(format!("forget {lane}"));
    }

    fn remove_lane(&self, lane: ChannelId) -> BoxFuture<'static, Result<u64, BrokerError>> {
        self.note(format!("remove {lane}"));
        let answer = self.removals.lock().unwrap().pop_front().unwrap_or(Some(0));
        now_so(answer.ok_or_else(|| error("it is consumed")))
    }

    fn waiting(&self, _: Queue) -> BoxFuture<'static, Result<u64, BrokerError>> {
        now_so(Err(error("there is no such queue")))
    }

    fn read(&self, _: Log, _: Start, _: End) -> mpsc::Receiver<Result<Record, BrokerError>> {
        mpsc::channel(1).1
    }

    fn ready(&self, _: Duration) -> BoxFuture<'static, Result<(), BrokerError>> {
        now_so(Ok(()))
    }

    fn unsettled(&self) -> u64 {
        0
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        now_so(())
    }
}

struct Silent;

impl Post for Silent {
    fn post(&self, _: crate::channels::Parcel, _: Duration) -> BoxFuture<'_, Result<Reply, Trouble>> {
        Box::pin(std::future::pending())
    }
}

struct Nobody;

impl Desk for Nobody {
    fn close(&self, _: u64, _: bool) {}
}

fn id(text: &str) -> ChannelId {
    text.parse().unwrap()
}

fn channel(id: &str, hook: &str) -> String {
    format!(
        "[[channel]]\nid = \"{id}\"\nkind = \"discord\"\nwebhook_url = \"https://discord.com/api/webhooks/1/{hook}\"\n"
    )
}

fn entry(channel: &str, deed: Deed) -> Entry {
    Entry::new(id(channel), deed, "someone", None, Timestamp::UNIX_EPOCH)
}

fn whole(entries: impl IntoIterator<Item = Entry>) -> News {
    let mut standing = Standing::default();
    for entry in entries {
        standing.apply(entry);
    }
    News::Whole(standing)
}

/// A steward at work.
struct House {
    broker: Arc<Told>,
    asks: mpsc::Sender<Ask>,
    news: mpsc::Sender<News>,
    routing: crate::intake::Routing,
    census: Arc<watch::Sender<Census>>,
    opened: watch::Receiver<bool>,
    metrics: Metrics,
    _jobs: mpsc::Receiver<Job>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl House {
    fn new(config: &str, connected: bool) -> Self {
        Self::with_key(config, connected, None)
    }

    fn with_key(config: &str, connected: bool, key: Option<Key>) -> Self {
        let (broker, (settler, jobs)) = (Told::new(connected), Settler::by_hand());
        let (metrics, clock, plan) = (Metrics::new(), Clock::System, plan(config));
        let tools = LaneTools {
            post: Arc::new(Silent),
            broker: Arc::clone(&broker) as Arc<dyn Broker>,
            settler: settler.clone(),
            clock,
            scrubber: Scrubber::default(),
            posted: mpsc::channel(1).0,
            deliveries: DeliveryLog::none(),
        };
        let boards = Boards::new(plan.channels.iter().map(|channel| channel.id.clone()).collect());
        let (routing, census, opened) =
            (boards.routing.subscribe(), Arc::clone(&boards.census), boards.opened.subscribe());
        let intake = Intake {
            router: routing.clone(),
            asker: settler.clone(),
            settler,
            logger: None,
            deliveries: DeliveryLog::none(),
            clock,
            metrics: metrics.clone(),
        };
        let (stop, intake_and_lanes) = (CancellationToken::new(), TaskTracker::new());
        let tasks = Tasks {
            intake_and_lanes: intake_and_lanes.clone(),
            whole: Arc::new(AtomicUsize::new(1)),
            background: TaskTracker::new(),
            stop: stop.clone(),
        };
        let steward = Steward::new(plan, NonZeroU16::MIN, tools, intake, boards, tasks, key);
        let ((asks, asked), (news, heard)) = (mpsc::channel(4), mpsc::channel(4));
        intake_and_lanes.spawn(steward.run(asked, heard));
        let tasks = intake_and_lanes;
        Self { broker, asks, news, routing, census, opened, metrics, _jobs: jobs, stop, tasks }
    }

    async fn opens(&mut self) {
        self.opened.wait_for(|opened| *opened).await.unwrap();
    }

    fn state(&self, channel: &str) -> Option<LaneState> {
        self.routing.borrow().lanes().iter().find(|lane| lane.id() == &id(channel)).map(crate::lane::LaneHandle::state)
    }

    async fn until(&self, channel: &str, state: &LaneState) {
        while self.state(channel).as_ref() != Some(state) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn reload(&self, config: &str) -> Result<Reloaded, ReloadError> {
        let (done, outcome) = oneshot::channel();
        self.asks.send(Ask { plan: Box::new(plan(config)), done }).await.unwrap();
        outcome.await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn lanes_wait_for_the_log_and_a_paused_one_never_touches_its_queue() {
    let mut house = House::new(&[channel("soc", "a"), channel("other", "b")].concat(), true);
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert!(house.broker.asked.lock().unwrap().is_empty(), "something was consumed before the pauses were known");
    house.news.send(whole([entry("soc", Deed::Pause)])).await.unwrap();
    house.opens().await;
    assert_eq!((house.state("soc"), house.state("other")), (Some(LaneState::Stopped), Some(LaneState::Flowing)));
    house.news.send(News::Entry(entry("other", Deed::Pause))).await.unwrap();
    house.until("other", &LaneState::Stopped).await;
    assert_eq!(house.broker.asked("consume Lane(\"soc\")").len(), 0);
    house.news.send(News::Entry(entry("soc", Deed::Resume))).await.unwrap();
    house.until("soc", &LaneState::Flowing).await;
    assert_eq!(house.broker.asked("consume Lane(\"soc\")").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_cannot_be_read_keeps_the_lanes_for_ten_seconds_from_when_the_broker_is_there_and_no_longer() {
    let mut house = House::new(&channel("soc", "a"), false);
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert!(house.state("soc").is_none());
    let began = Instant::now();
    house.broker.health.send_replace(Health { connected: true, reconnects: 1 });
    house.opens().await;
    assert_eq!(began.elapsed().as_secs(), 10);
    assert_eq!(house.state("soc"), Some(LaneState::Flowing));
    // When it can be read at last, the pause is done.
    house.news.send(whole([entry("soc", Deed::Pause)])).await.unwrap();
    house.until("soc", &LaneState::Stopped).await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_whose_queues_cannot_be_made_changes_nothing_and_one_while_the_broker_is_away_is_taken_over() {
    let mut house = House::new(&channel("soc", "a"), true);
    house.news.send(whole([])).await.unwrap();
    house.opens().await;
    *house.broker.refuses_lanes.lock().unwrap() = true;
    let both = [channel("soc", "b"), channel("new", "c")].concat();
    let refused = house.reload(&both).await;
    assert!(matches!(refused, Err(ReloadError::Broker(_))), "{refused:?}");
    assert!(house.state("new").is_none() && house.census.borrow().tenure(&id("new")).is_none());
    assert_eq!(house.broker.asked("forget new").len(), 1, "the broker goes on asking for a queue that is not there");

    house.broker.health.send_replace(Health { connected: false, reconnects: 0 });
    let reloaded = house.reload(&both).await.unwrap();
    assert_eq!((reloaded.added, reloaded.changed), ([id("new")].into(), [id("soc")].into()));
    assert!(house.state("new").is_some());
    assert_eq!(house.tasks.len(), 4, "two lanes, the intake, the steward");

    let reloaded = house.reload(&channel("new", "c")).await.unwrap();
    assert_eq!(reloaded.removed, [id("soc")].into());
    while !matches!(house.census.borrow().tenure(&id("soc")), Some(Tenure::Removed(_))) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!house.metrics.encode().contains("lane_state{channel=\"soc\""), "a gauge of a lane that is gone");
    house.stop.cancel();
    house.tasks.close();
    house.tasks.wait().await;
    assert!(house.routing.borrow().lanes().is_empty(), "a handle of a lane would keep the worker from stopping");
}

/// An undertaker at work, in a pool whose log knows `lane` and whose configuration here knows nothing.
struct Grave {
    broker: Arc<Told>,
    census: Arc<watch::Sender<Census>>,
    standing: watch::Sender<Arc<Standing>>,
    jobs: mpsc::Receiver<Job>,
    began: Instant,
    _tasks: TaskTracker,
}

impl Grave {
    fn new(lane: &str, more: Option<Deed>, removals: impl IntoIterator<Item = Option<u64>>) -> Self {
        let (broker, (settler, jobs)) = (Told::new(true), Settler::by_hand());
        *broker.removals.lock().unwrap() = removals.into_iter().collect();
        for (tag, body) in (0..).zip([delivery(), bytes::Bytes::from_static(b"no delivery")]) {
            let receipt = Receipt::new(tag, Arc::new(Nobody) as Arc<dyn Desk>);
            broker.waiting.lock().unwrap().push_back(Arrival { body, redelivered: true, receipt });
        }
        let (mut whole, mut standing) = (Standing::default(), Standing::default());
        [Some(Deed::Lane), more].into_iter().flatten().for_each(|deed| drop(whole.apply(entry(lane, deed))));
        standing.catch_up(whole);
        let (census, standing) = (Arc::new(watch::Sender::new(Census::of([]))), watch::Sender::new(Arc::new(standing)));
        let shared = Arc::clone(&broker) as Arc<dyn Broker>;
        let undertaker = Undertaker {
            log: ChannelLog::new(Arc::clone(&shared)),
            broker: shared,
            settler,
            metrics: Metrics::new(),
            clock: Clock::System,
            census: Arc::clone(&census),
            standing: standing.subscribe(),
            may_remove: true,
        };
        let tasks = TaskTracker::new();
        tasks.spawn(undertaker.run());
        Self { broker, census, standing, jobs, began: Instant::now(), _tasks: tasks }
    }

    async fn buried(&mut self) -> Vec<(DeathReason, Option<ChannelId>)> {
        let mut buried = Vec::new();
        while buried.len() < 2 {
            let Job::Bury { letter, receipt, stake } = self.jobs.recv().await.unwrap() else { panic!("not buried") };
            receipt.settle();
            stake.unwrap().died();
            buried.push((letter.reason, letter.channel));
        }
        buried
    }
}

fn delivery() -> bytes::Bytes {
    let json = serde_json::json!({
        "id": "d", "time": "2026-06-01T12:00:00Z", "decision": "DENY", "severity": "LOW", "agent": {"id": "a"}, "tool": "t",
    });
    let decision = crate::model::Decision::decode(json.to_string().into()).unwrap();
    crate::model::Delivery::new(Arc::new(decision), id("other"), Timestamp::UNIX_EPOCH).to_bytes()
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_a_lane_that_nobody_has_is_buried_with_its_channel_and_not_before_everybody_could_have_come() {
    let mut grave = Grave::new("gone", None, std::iter::repeat_n(Some(2), 4));
    let buried = grave.buried().await;
    assert!(grave.began.elapsed() >= Duration::from_secs(20), "after {:?}", grave.began.elapsed());
    let gone = Some(id("gone"));
    assert_eq!(buried, [(DeathReason::ChannelRemoved, gone.clone()), (DeathReason::Malformed, gone)]);
    while grave.broker.asked("LaneRemoved gone").is_empty() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_somebody_consumes_or_that_an_operator_paused_is_left_alone() {
    // It is consumed at every other look, so never long enough without a consumer.
    let grave = Grave::new("shared", None, [Some(2), None].into_iter().cycle().take(1_000));
    tokio::time::sleep(Duration::from_mins(30)).await;
    assert!(grave.broker.asked("remove shared").len() > 100, "it was not looked at");
    assert!(grave.broker.asked("consume Lane(\"shared\")").is_empty() && grave.jobs.is_empty());

    let grave = Grave::new("paused", Some(Deed::Pause), []);
    tokio::time::sleep(Duration::from_mins(30)).await;
    assert!(grave.broker.asked("remove paused").is_empty(), "its queue would be gone");
    // Resumed and still nobody's: now it is an orphan like any other.
    grave.standing.send_modify(|standing| drop(Arc::make_mut(standing).apply(entry("paused", Deed::Resume))));
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(!grave.broker.asked("remove paused").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_made_again_gives_everybody_the_time_to_come_back() {
    let grave = Grave::new("shared", None, std::iter::repeat_n(Some(2), 1_000));
    for reconnects in 1..20 {
        tokio::time::sleep(Duration::from_secs(15)).await;
        grave.broker.health.send_replace(Health { connected: true, reconnects });
    }
    assert!(grave.jobs.is_empty(), "it was buried although its worker may have been connecting all the time");
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_our_own_reload_removed_is_buried_at_once_and_a_paused_one_a_little_later() {
    for (more, least, most) in [(None, 0, 5), (Some(Deed::Pause), 10, 30)] {
        let mut grave = Grave::new("gone", more, [None, Some(2)]);
        grave.census.send_modify(|census| census.set(&id("gone"), Tenure::removed_now()));
        assert_eq!(grave.buried().await.len(), 2);
        let took = grave.began.elapsed().as_secs();
        assert!((least..=most).contains(&took), "{more:?} took {took} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_our_own_reload_removed_is_left_alone_while_nobody_knows_whether_the_log_has_its_channel() {
    let mut grave = Grave::new("gone", None, [Some(2)]);
    let known = grave.standing.send_replace(Arc::default());
    grave.census.send_modify(|census| census.set(&id("gone"), Tenure::removed_now()));
    tokio::time::sleep(Duration::from_mins(30)).await;
    assert!(grave.broker.asked("remove gone").is_empty() && grave.jobs.is_empty());
    grave.standing.send_replace(known);
    assert_eq!(grave.buried().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_comes_back_gets_what_is_left() {
    let mut grave = Grave::new("gone", None, std::iter::repeat_n(Some(1_000_000), 1_000));
    grave.census.send_modify(|census| census.set(&id("gone"), Tenure::removed_now()));
    assert_eq!(grave.buried().await.len(), 2);
    grave.census.send_modify(|census| census.set(&id("gone"), Tenure::Configured));
    tokio::time::sleep(Duration::from_mins(1)).await;
    let looks = grave.broker.asked("remove gone").len();
    tokio::time::sleep(Duration::from_mins(30)).await;
    assert_eq!(
        grave.broker.asked("remove gone").len(),
        looks,
        "the queue of a configured channel was about to be removed"
    );
}

#[tokio::test]
async fn what_the_broker_gave_up_is_counted_where_it_ends() {
    // In real time: the store is a thread of its own.
    let dir = tempfile::tempdir().unwrap();
    let doors = "[http]\nlisten = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\n";
    let config = format!("data_dir = \"{}\"\n{doors}", dir.path().display());
    let worker = super::Worker::start(plan(&config), Clock::System).await.unwrap();
    let to = Destination::Queue(Queue::Dead);
    worker.broker().publish(Message { to, id: String::from("1"), body: delivery() }).await.unwrap();
    let wanted = [
        "interven_alerts_dead_letters_total{channel=\"other\",reason=\"broker_gave_up\"} 1",
        "interven_alerts_deliveries_total{channel=\"other\",ending=\"dead\"} 1",
    ];
    let counted = async {
        while !wanted.iter().all(|series| worker.metrics().encode().contains(series)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), counted).await.expect("it is not counted");
    worker.stop().await;
}
