//! Several workers on one broker, as far as approvals go: each has a table of its own, and all say the same.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{testing::decision, *};
use crate::{
    broker::{
        Arrivals, BrokerError, End, Health, Queue, Record, Start,
        embedded::{Embedded, EmbeddedSettings},
    },
    model::{ChannelId, Timestamp},
};

/// An embedded broker whose approvals exchange can refuse, and which notes what is published there.
#[derive(Debug)]
struct Desk {
    broker: Embedded,
    refusals: AtomicU32,
    published: Mutex<Vec<(String, String, Bytes)>>,
    health: watch::Sender<Health>,
}

impl Broker for Desk {
    fn publish(&self, message: Message) -> BoxFuture<'static, Result<(), PublishError>> {
        if let Destination::ApprovalsExchange(key) = &message.to {
            let refused = self.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if refused.is_ok() {
                return Box::pin(async { Err(PublishError::Unroutable { to: String::from("interven.approvals") }) });
            }
            self.published.lock().unwrap().push((key.clone(), message.id.clone(), message.body.clone()));
        }
        self.broker.publish(message)
    }

    fn consume(&self, queue: Queue, window: std::num::NonZeroU16) -> Arrivals {
        self.broker.consume(queue, window)
    }

    fn ensure_lanes(&self, lanes: Vec<ChannelId>) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.broker.ensure_lanes(lanes)
    }

    fn remove_lane(&self, lane: ChannelId) -> BoxFuture<'static, Result<u64, BrokerError>> {
        self.broker.remove_lane(lane)
    }

    fn waiting(&self, queue: Queue) -> BoxFuture<'static, Result<u64, BrokerError>> {
        self.broker.waiting(queue)
    }

    fn read(&self, log: Log, start: Start, end: End) -> mpsc::Receiver<Result<Record, BrokerError>> {
        self.broker.read(log, start, end)
    }

    fn ready(&self, limit: Duration) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.broker.ready(limit)
    }

    fn unsettled(&self) -> u64 {
        self.broker.unsettled()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.broker.close()
    }
}

pub(super) struct Worker {
    pub(super) approvals: Approvals,
    metrics: Metrics,
    stop: CancellationToken,
    tasks: TaskTracker,
}

pub(super) struct House {
    desk: Arc<Desk>,
    _dir: tempfile::TempDir,
}

impl House {
    pub(super) async fn open(refusals: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = EmbeddedSettings { dir: dir.path().to_owned(), keep_decisions: None, lanes: Vec::new() };
        let broker = Embedded::open(settings, Clock::System, &TaskTracker::new()).await.unwrap();
        let (published, health) = (Mutex::default(), watch::Sender::new(Health { connected: true, reconnects: 0 }));
        Self { desk: Arc::new(Desk { broker, refusals: refusals.into(), published, health }), _dir: dir }
    }

    /// One more worker; it knows what the log says when this returns. `publishes`: whether it does its duty.
    pub(super) async fn worker(&self, publishes: bool) -> Worker {
        let worker = self.deaf_worker(publishes);
        TaskTracker::new().spawn(worker.approvals.clone().follow());
        worker.approvals.until_known().await;
        worker
    }

    /// One more worker that does not follow the log yet.
    fn deaf_worker(&self, publishes: bool) -> Worker {
        let (metrics, tasks, stop) = (Metrics::new(), TaskTracker::new(), CancellationToken::new());
        let broker = Arc::clone(&self.desk) as Arc<dyn Broker>;
        let approvals = Approvals::new(broker, Clock::System, metrics.clone(), Terms::default(), tasks.clone());
        if publishes {
            tasks.spawn(approvals.clone().publish_answers(stop.clone()));
        }
        Worker { approvals, metrics, stop, tasks }
    }

    pub(super) async fn ask(&self, approval: &str, expires_at: Option<Timestamp>) {
        let (id, body) = asked(&decision(approval, "slack", expires_at), Clock::System.now());
        let message = Message { to: Destination::Log(Log::Approvals), id: id.to_string(), body };
        self.desk.publish(message).await.unwrap();
    }

    fn published(&self) -> Vec<(String, String, Bytes)> {
        self.desk.published.lock().unwrap().clone()
    }
}

pub(super) fn click(approval: &str, number: usize) -> Click {
    let answer = if number.is_multiple_of(2) { Answer::Approve } else { Answer::Deny };
    let who = format!("user-{number}");
    let by = By { id: who.clone(), name: who, team: None };
    Click::new(Name::of(approval), answer, by, Via::Api, Clock::System.now())
}

/// Waits until `look` gives something.
pub(super) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within a minute");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn answer_of(worker: &Worker, approval: &str) -> Option<Uuid> {
    worker.approvals.get(&Name::of(approval))?.answer.as_ref().map(|click| click.id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_clicks_on_several_workers_one_wins_and_everybody_says_which() {
    let house = House::open(0).await;
    let workers = join_all((0..3).map(|_| house.worker(true))).await;
    house.ask("apr", None).await;
    for worker in &workers {
        until("it is known everywhere", || worker.approvals.get(&Name::of("apr"))).await;
    }
    let clicks: Vec<Click> = (0..60).map(|number| click("apr", number)).collect();
    let outcomes =
        join_all(clicks.iter().enumerate().map(|(at, one)| workers[at % 3].approvals.answer(one.clone()))).await;
    let mut won = Vec::new();
    for (outcome, click) in outcomes.into_iter().zip(&clicks) {
        match outcome.unwrap() {
            Outcome::Won(answered) => won.push(answered.click.id),
            Outcome::Late(answered) => assert_ne!(answered.click.id, click.id),
            other @ (Outcome::Expired | Outcome::Unknown) => panic!("{other:?}"),
        }
    }
    assert_eq!(won.len(), 1);
    for worker in &workers {
        until("everybody knows", || answer_of(worker, "apr").filter(|id| *id == won[0])).await;
        until("it is written down as published", || {
            worker.approvals.get(&Name::of("apr")).filter(|approval| approval.published)
        })
        .await;
    }
    // Who comes later, and whoever answers the same way again, hears the same.
    let fresh = house.worker(true).await;
    assert_eq!(answer_of(&fresh, "apr"), Some(won[0]));
    assert!(matches!(fresh.approvals.answer(click("apr", 99)).await.unwrap(), Outcome::Late(_)));
    let winner = clicks.iter().find(|click| click.id == won[0]).unwrap();
    assert!(matches!(fresh.approvals.answer(winner.clone()).await.unwrap(), Outcome::Won(_)));
    let published = house.published();
    assert_eq!(published.len(), 1, "{published:?}");
    assert_eq!(published[0].0, format!("{}.slack", winner.answer.past()));
    let counted = |worker: &Worker| worker.metrics.approvals.with_label_values(&[winner.answer.as_str(), "api"]).get();
    assert_eq!(workers.iter().map(counted).sum::<u64>(), 1, "counted once in the pool");
    let granted = workers.iter().chain([&fresh]).map(|worker| worker.approvals.list(Some(State::Answered), 9).len());
    assert!(granted.into_iter().all(|count| count == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_certain_is_said_without_a_record_and_nothing_is_unknown_before_the_log_was_read() {
    let house = House::open(0).await;
    let broker = Arc::clone(&house.desk) as Arc<dyn Broker>;
    let unread = Approvals::new(broker, Clock::System, Metrics::new(), Terms::default(), TaskTracker::new());
    assert!(matches!(unread.answer(click("apr", 0)).await, Err(AnswerError::NotRead)));
    let worker = house.worker(true).await;
    house.ask("old", Some(testing::start())).await;
    house.ask("last", None).await;
    until("it is known", || worker.approvals.get(&Name::of("last"))).await;
    let records = || async {
        let mut records = house.desk.read(Log::Approvals, Start::First, End::Present);
        let mut count = 0;
        while records.recv().await.is_some() {
            count += 1;
        }
        count
    };
    let before = records().await;
    assert!(matches!(worker.approvals.answer(click("apr", 0)).await.unwrap(), Outcome::Unknown));
    assert!(matches!(worker.approvals.answer(click("old", 0)).await.unwrap(), Outcome::Expired));
    assert_eq!(records().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_whose_worker_died_is_published_by_another_one() {
    // Goal: a worker that dies between its click and its publishing costs seconds, not the answer. Method: the worker that takes
    // the click never publishes; one is there all the time, and one comes later and finds it done.
    let house = House::open(0).await;
    let (dying, other) = (house.worker(false).await, house.worker(true).await);
    house.ask("apr", None).await;
    until("it is known", || dying.approvals.get(&Name::of("apr"))).await;
    assert!(matches!(dying.approvals.answer(click("apr", 0)).await.unwrap(), Outcome::Won(_)));
    until("it is published", || other.approvals.get(&Name::of("apr")).filter(|approval| approval.published)).await;
    assert_eq!(house.published().len(), 1);
    let fresh = house.worker(true).await;
    assert!(fresh.approvals.get(&Name::of("apr")).unwrap().published);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_nobody_listens_to_answers_publishing_is_tried_again() {
    let house = House::open(2).await;
    let worker = house.worker(true).await;
    house.ask("apr", None).await;
    until("it is known", || worker.approvals.get(&Name::of("apr"))).await;
    let Outcome::Won(answered) = worker.approvals.answer(click("apr", 1)).await.unwrap() else { panic!("not won") };
    assert!(!answered.approval.published);
    until("it is published", || worker.approvals.get(&Name::of("apr")).filter(|approval| approval.published)).await;
    let published = house.published();
    assert_eq!((published.len(), published[0].1.clone()), (1, answer_id(&Name::of("apr")).to_string()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_answers_under_way_and_for_their_publishing() {
    let house = House::open(0).await;
    let worker = house.worker(true).await;
    house.ask("apr", None).await;
    until("it is known", || worker.approvals.get(&Name::of("apr"))).await;
    let approvals = worker.approvals.clone();
    let answering = TaskTracker::new().spawn(async move { approvals.answer(click("apr", 0)).await });
    until("it is under way", || (worker.tasks.len() > 1 || !house.published().is_empty()).then_some(())).await;
    worker.stop.cancel();
    worker.tasks.close();
    tokio::time::timeout(Duration::from_mins(1), worker.tasks.wait()).await.expect("the stop hangs");
    assert!(matches!(answering.await.unwrap().unwrap(), Outcome::Won(_)));
    assert_eq!(house.published().len(), 1);
    assert!(matches!(worker.approvals.answer(click("new", 0)).await.unwrap(), Outcome::Unknown));
    house.ask("new", None).await;
    until("it is known", || worker.approvals.get(&Name::of("new"))).await;
    assert!(matches!(worker.approvals.answer(click("new", 0)).await, Err(AnswerError::Stopping)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_does_not_wait_for_an_answer_of_its_own_that_another_worker_has_published() {
    // Goal: a worker that hears late that its click won, when another one has published it already, still stops.
    // Method: it hears nothing until that is written down, as after a lost connection.
    let house = House::open(0).await;
    let (own, other) = (house.deaf_worker(true), house.worker(false).await);
    let mut sealed = click("apr", 0);
    sealed.claim = Some(Claim { agent: None, tool: Name::of("slack.post_message"), expires_at: None });
    let approvals = own.approvals.clone();
    let answering = TaskTracker::new().spawn(async move { approvals.answer(sealed).await });
    until("the other one hears of it", || answer_of(&other, "apr")).await;
    other.approvals.note(Deed::Published(Name::of("apr"))).await.unwrap();
    TaskTracker::new().spawn(own.approvals.clone().follow());
    assert!(matches!(answering.await.unwrap().unwrap(), Outcome::Won(_)));
    own.stop.cancel();
    own.tasks.close();
    tokio::time::timeout(Duration::from_secs(20), own.tasks.wait()).await.expect("the stop hangs");
    assert_eq!(house.published().len(), 0, "nobody publishes it again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_comes_while_the_lanes_are_drained_is_published_before_the_worker_ends() {
    let house = House::open(0).await;
    let worker = house.worker(true).await;
    house.ask("apr", None).await;
    until("it is known", || worker.approvals.get(&Name::of("apr"))).await;
    worker.stop.cancel();
    // Long enough for what has nothing to do any more to end; no answer can come only when their tracker is closed.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(matches!(worker.approvals.answer(click("apr", 0)).await.unwrap(), Outcome::Won(_)));
    worker.tasks.close();
    tokio::time::timeout(Duration::from_mins(1), worker.tasks.wait()).await.expect("the stop hangs");
    assert_eq!(house.published().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_broker_is_away_nothing_that_the_others_may_know_is_called_unknown() {
    let house = House::open(0).await;
    let worker = house.worker(true).await;
    assert!(matches!(worker.approvals.answer(click("apr", 0)).await.unwrap(), Outcome::Unknown));
    house.desk.health.send_replace(Health { connected: false, reconnects: 0 });
    assert!(matches!(worker.approvals.answer(click("apr", 0)).await, Err(AnswerError::NotRead)));
    let mut listener = worker.approvals.subscribe();
    house.desk.health.send_replace(Health { connected: true, reconnects: 1 });
    let whole = async { while !matches!(listener.recv().await, Some(News::Whole)) {} };
    tokio::time::timeout(Duration::from_mins(1), whole).await.expect("it is read again");
    assert!(matches!(worker.approvals.answer(click("apr", 0)).await.unwrap(), Outcome::Unknown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_hear_of_answers_and_of_times_that_are_over() {
    let house = House::open(0).await;
    let worker = house.worker(true).await;
    let background = TaskTracker::new();
    background.spawn(worker.approvals.clone().watch_expiry());
    let mut listener = worker.approvals.subscribe();
    house.ask("answered", Some(Clock::System.now().plus(Duration::from_mins(9)))).await;
    until("it is known", || worker.approvals.get(&Name::of("answered"))).await;
    worker.approvals.answer(click("answered", 0)).await.unwrap();
    house.ask("expires", Some(Clock::System.now().plus(Duration::from_secs(2)))).await;
    let (mut answered, mut expired) = (Vec::new(), Vec::new());
    let listening = async {
        while expired.is_empty() {
            match listener.recv().await.expect("it goes on") {
                News::Changed(Change::Answered(approval)) => answered.push(approval.id().unwrap().to_owned()),
                News::Expired(approval) => expired.push(approval.id().unwrap().to_owned()),
                News::Changed(Change::Asked(_) | Change::Posted(_) | Change::Noted(_)) | News::Whole => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(1), listening).await.expect("nobody was told");
    assert_eq!((answered, expired), (vec![String::from("answered")], vec![String::from("expires")]));
}
