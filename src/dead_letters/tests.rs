//! The keeper and the replay against a broker in memory: what they promise, not what a broker promises. Real brokers are
//! held to that in `tests/it`.

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU16,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    DeadLetter, Keeper, LetterFilter, Replay, Resting, Store, StoreOptions,
    replay::{Plan, Skip, plan},
};
use crate::{
    broker::{
        Arrival, Arrivals, Broker, BrokerError, Destination, End, Health, Log, Message, PublishError, Queue, Receipt,
        Record, Start, receipt::Desk,
    },
    delivery_log::DeliveryLog,
    model::{ChannelId, Clock, DeathReason, Decision, Delivery, Timestamp},
};

/// Queues in memory; what is not settled goes back to the head of its queue.
#[derive(Debug, Default)]
struct MemoryBroker {
    state: Arc<State>,
    tasks: TaskTracker,
    /// Whether publishes fail.
    down: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    waiting: Mutex<HashMap<Destination, VecDeque<Message>>>,
    out: Mutex<HashMap<u64, Message>>,
    tags: AtomicU64,
    more: Notify,
}

impl Desk for State {
    fn close(&self, tag: u64, settled: bool) {
        let message = self.out.lock().unwrap().remove(&tag).unwrap();
        if !settled {
            self.waiting.lock().unwrap().entry(message.to.clone()).or_default().push_front(message);
            self.more.notify_waiters();
        }
    }
}

impl MemoryBroker {
    fn published(&self, to: &Destination) -> Vec<Message> {
        self.state.waiting.lock().unwrap().get(to).map(|waiting| waiting.iter().cloned().collect()).unwrap_or_default()
    }

    fn put(&self, body: Bytes) {
        let message = Message { to: Destination::Queue(Queue::Dead), id: body.len().to_string(), body };
        self.state.waiting.lock().unwrap().entry(message.to.clone()).or_default().push_back(message);
        self.state.more.notify_waiters();
    }

    fn is_empty(&self) -> bool {
        self.state.waiting.lock().unwrap().values().all(VecDeque::is_empty) && self.state.out.lock().unwrap().is_empty()
    }
}

impl Broker for MemoryBroker {
    fn publish(&self, message: Message) -> BoxFuture<'static, Result<(), PublishError>> {
        if self.down.load(Ordering::Relaxed) {
            return async { Err(PublishError::Disconnected) }.boxed();
        }
        self.state.waiting.lock().unwrap().entry(message.to.clone()).or_default().push_back(message);
        self.state.more.notify_waiters();
        async { Ok(()) }.boxed()
    }

    fn consume(&self, queue: Queue, window: NonZeroU16) -> Arrivals {
        let (arrivals, taken) = mpsc::channel(usize::from(window.get()));
        let (state, from) = (Arc::clone(&self.state), Destination::Queue(queue));
        self.tasks.spawn(async move {
            loop {
                let more = state.more.notified();
                let next = state.waiting.lock().unwrap().get_mut(&from).and_then(VecDeque::pop_front);
                let Some(message) = next else {
                    tokio::select! {
                        () = more => continue,
                        () = arrivals.closed() => return,
                    }
                };
                let tag = state.tags.fetch_add(1, Ordering::Relaxed);
                let body = message.body.clone();
                state.out.lock().unwrap().insert(tag, message);
                let receipt = Receipt::new(tag, Arc::clone(&state) as Arc<dyn Desk>);
                if arrivals.send(Arrival { body, redelivered: false, receipt }).await.is_err() {
                    return;
                }
            }
        });
        Arrivals::new(taken)
    }

    fn ensure_lanes(&self, _lanes: Vec<ChannelId>) -> BoxFuture<'static, Result<(), BrokerError>> {
        async { Ok(()) }.boxed()
    }

    fn remove_lane(&self, _lane: ChannelId) -> BoxFuture<'static, Result<u64, BrokerError>> {
        async { Ok(0) }.boxed()
    }

    fn waiting(&self, queue: Queue) -> BoxFuture<'static, Result<u64, BrokerError>> {
        let waiting = self.published(&Destination::Queue(queue)).len() as u64;
        async move { Ok(waiting) }.boxed()
    }

    fn read(&self, _log: Log, _start: Start, _end: End) -> mpsc::Receiver<Result<Record, BrokerError>> {
        mpsc::channel(1).1
    }

    fn ready(&self, _limit: Duration) -> BoxFuture<'static, Result<(), BrokerError>> {
        async { Ok(()) }.boxed()
    }

    fn unsettled(&self) -> u64 {
        self.state.out.lock().unwrap().len() as u64
    }

    fn health(&self) -> watch::Receiver<Health> {
        watch::channel(Health { connected: true, reconnects: 0 }).1
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        async {}.boxed()
    }
}

const NOW_MS: i64 = 1_780_315_200_000;

fn now() -> Timestamp {
    Timestamp::from_unix_millis(NOW_MS)
}

fn decision(id: &str, expires_at: Option<&str>) -> Bytes {
    let kind = if expires_at.is_some() { "REQUIRE_APPROVAL" } else { "DENY" };
    let mut value = serde_json::json!({
        "id": id, "time": "2026-06-01T12:00:00Z", "decision": kind, "severity": "HIGH", "agent": {"id": "a"}, "tool": "t",
    });
    if let Some(expires_at) = expires_at {
        value["approval"] = serde_json::json!({"id": "apr", "expires_at": expires_at});
    }
    value.to_string().into()
}

fn delivery(id: &str, expires_at: Option<&str>) -> Delivery {
    let decision = Arc::new(Decision::decode(decision(id, expires_at)).unwrap());
    let mut delivery = Delivery::new(decision, "soc".parse().unwrap(), Timestamp::UNIX_EPOCH);
    (delivery.attempts, delivery.plain) = (10, true);
    delivery
}

fn dead(id: &str) -> DeadLetter {
    DeadLetter::of_delivery(&delivery(id, None), DeathReason::Exhausted, "HTTP 503", None, now())
}

fn lane() -> Destination {
    Destination::Queue(Queue::Lane("soc".parse().unwrap()))
}

fn open(dir: &Path, free_bytes_min: u64) -> Store {
    let options = StoreOptions { free_bytes_min, cache_bytes: 4 * 1024 * 1024, ..StoreOptions::default() };
    Store::open(dir, options).unwrap().0
}

fn keeper(store: Store, broker: &Arc<MemoryBroker>) -> Keeper {
    Keeper::new(store, Arc::clone(broker) as Arc<dyn Broker>, Clock::starting_at(now()))
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = tokio::time::Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(tokio::time::Instant::now() < limit, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn a_replayed_delivery_starts_afresh_in_its_lane() {
    let letter = dead("d");
    let Plan::Publish { message, readable: true } = plan(&letter, |_| true, now()) else { panic!("skipped") };
    assert_eq!(message.to, lane());
    let sent = Delivery::from_bytes(&message.body).unwrap();
    // `first_at` is now: with the old one, `max_age` would kill it at once.
    assert_eq!((sent.attempts, sent.plain, sent.first_at), (0, false, now()));
    assert_eq!(sent.id().uuid(), letter.subject);
}

#[test]
fn what_cannot_be_replayed_is_skipped_with_its_reason() {
    let approval = |at| DeadLetter::of_delivery(&delivery("d", Some(at)), DeathReason::Expired, "", None, now());
    let skip_of = |letter: &DeadLetter, known: bool| match plan(letter, |_| known, now()) {
        Plan::Skip(skip) => Some(skip),
        Plan::Publish { .. } => None,
    };
    assert_eq!(skip_of(&approval("2026-06-01T11:59:59Z"), true), Some(Skip::Expired));
    assert_eq!(skip_of(&approval("2026-06-01T12:00:01Z"), true), None);
    assert_eq!(skip_of(&dead("d"), false), Some(Skip::NoChannel));
    let unreadable = DeadLetter { body: Bytes::from_static(b"{}"), ..dead("d") };
    assert_eq!(skip_of(&unreadable, true), Some(Skip::Unreadable));
    // What never was a delivery goes where it came from.
    let malformed = DeadLetter::of_message(Bytes::from_static(b"{"), DeathReason::Malformed, "no", now());
    let Plan::Publish { message, readable: false } = plan(&malformed, |_| false, now()) else { panic!("skipped") };
    assert_eq!((message.to, &message.body[..]), (Destination::DecisionsExchange, &b"{"[..]));
}

#[tokio::test]
async fn a_letter_leaves_the_store_only_when_the_broker_has_its_message() {
    let dir = tempfile::tempdir().unwrap();
    let (store, broker) = (open(dir.path(), 0), MemoryBroker::default());
    for n in 0..300 {
        store.bury(dead(&n.to_string())).await.unwrap();
    }
    let other = DeadLetter { channel: Some("gone".parse().unwrap()), ..dead("other") };
    store.bury(other).await.unwrap();
    let ids = store.select(&LetterFilter::default()).await.unwrap();
    let known = |channel: &ChannelId| channel.as_str() == "soc";
    let deliveries = DeliveryLog::none();
    let replay = |dry_run| Replay {
        up_to: None,
        store: &store,
        broker: &broker,
        known: &known,
        deliveries: &deliveries,
        clock: Clock::starting_at(now()),
        dry_run,
    };

    let report = replay(true).run(&ids, |_| ()).await.unwrap();
    assert_eq!((report.replayed, report.skipped_no_channel), (300, 1));
    assert!(
        broker.is_empty() && store.count(&LetterFilter::default()).await.unwrap() == 301,
        "a dry run did something"
    );

    broker.down.store(true, Ordering::Relaxed);
    let report = replay(false).run(&ids, |_| ()).await.unwrap();
    assert_eq!((report.replayed, report.failed, report.skipped_no_channel), (0, 300, 1));
    let why = report.first_failure().unwrap();
    assert!(why.contains("broker") && !why.contains("skipped"), "{why}");
    assert_eq!(store.count(&LetterFilter::default()).await.unwrap(), 301);

    broker.down.store(false, Ordering::Relaxed);
    let mut seen = Vec::new();
    let report = replay(false).run(&ids, |report| seen.push(report.seen())).await.unwrap();
    assert_eq!((report.replayed, report.failed, report.skipped_no_channel), (300, 0, 1));
    assert_eq!((seen, report.notes.len()), (vec![256, 301], 1));
    assert_eq!(report.first_failure(), None);
    assert_eq!(broker.published(&lane()).len(), 300);
    assert_eq!(store.count(&LetterFilter::default()).await.unwrap(), 1);
    let report = replay(false).run(&ids, |_| ()).await.unwrap();
    assert_eq!((report.gone, report.skipped_no_channel), (300, 1), "a second replay finds nothing to do");
}

#[tokio::test]
async fn a_replay_that_is_told_to_stop_has_done_its_batch_and_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let (store, broker) = (open(dir.path(), 0), MemoryBroker::default());
    for n in 0..600 {
        store.bury(dead(&n.to_string())).await.unwrap();
    }
    let ids = store.select(&LetterFilter::default()).await.unwrap();
    let clock = Clock::starting_at(now());
    let deliveries = DeliveryLog::none();
    let replay = Replay {
        up_to: None,
        store: &store,
        broker: &broker,
        known: &|_| true,
        deliveries: &deliveries,
        clock,
        dry_run: false,
    };
    let report = replay.run_while(&ids, |_| false).await.unwrap();
    assert_eq!((report.replayed, report.seen()), (256, 256));
    assert_eq!(broker.published(&lane()).len(), 256);
    let left = store.select(&LetterFilter::default()).await.unwrap();
    assert_eq!(left, ids[256..], "what was confirmed is out of the store, and the rest is in it");
}

#[tokio::test]
async fn a_letter_that_the_store_cannot_take_rests_on_the_broker_and_comes_back() {
    // Method: a store that wants more free space than any disk has is a store on a full disk.
    let (full, ample) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let broker = Arc::new(MemoryBroker::default());
    let keeper_full = keeper(open(full.path(), u64::MAX / 2), &broker);
    assert!(!keeper_full.store().writable());
    let letter = dead("one");
    assert_eq!(keeper_full.bury(letter.clone()).await.unwrap(), Resting::Broker);
    assert_eq!(broker.published(&Destination::Queue(Queue::Dead)).len(), 1);

    // The keeper of the full store leaves the queue alone, however long it waits.
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let (stopped, drain) = (stop.clone(), Arc::new(keeper_full));
    let draining = Arc::clone(&drain);
    tasks.spawn(async move { draining.drain(stopped).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(broker.published(&Destination::Queue(Queue::Dead)).len(), 1);

    // Another worker's store takes it, with the same id and bytes.
    let keeper_ample = Arc::new(keeper(open(ample.path(), 0), &broker));
    let (stopped, draining) = (stop.clone(), Arc::clone(&keeper_ample));
    tasks.spawn(async move { draining.drain(stopped).await });
    eventually("the letter was not drained", || broker.is_empty()).await;
    assert_eq!(keeper_ample.store().get(letter.id).await.unwrap(), letter);

    broker.down.store(true, Ordering::Relaxed);
    let error = drain.bury(dead("two")).await.unwrap_err();
    assert!(matches!(error.broker, PublishError::Disconnected), "{error}");
    stop.cancel();
    tasks.close();
    tokio::time::timeout(Duration::from_secs(10), tasks.wait()).await.unwrap();
}

#[tokio::test]
async fn what_the_broker_gave_up_becomes_a_letter_that_says_what_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Arc::new(MemoryBroker::default());
    let counted = Arc::new(std::sync::Mutex::new(Vec::new()));
    let count = Arc::clone(&counted);
    let keeper = keeper(open(dir.path(), 0), &broker);
    let keeper = Arc::new(keeper.telling(move |letter| count.lock().unwrap().push(letter.reason)));
    // One that a keeper brought here because its store was full was counted then.
    broker.put(serde_json::to_vec(&DeadLetter { reason: DeathReason::Refused, ..dead("counted") }).unwrap().into());
    broker.put(delivery("of-a-lane", None).to_bytes());
    broker.put(decision("of-the-intake", None));
    broker.put(Bytes::from_static(b"\xffnoise"));
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let (stopped, draining) = (stop.clone(), Arc::clone(&keeper));
    tasks.spawn(async move { draining.drain(stopped).await });
    eventually("not everything was drained", || broker.is_empty()).await;
    stop.cancel();
    tasks.close();
    tasks.wait().await;

    let letters = keeper.store().list(&LetterFilter::default(), None).await.unwrap().letters;
    assert_eq!(letters.len(), 4);
    let given_up = letters.iter().filter(|letter| letter.reason == DeathReason::BrokerGaveUp).count();
    assert_eq!((given_up, counted.lock().unwrap().as_slice()), (3, &[DeathReason::BrokerGaveUp; 3][..]));
    let of = |id: Option<&str>| letters.iter().find(|letter| letter.decision_id.as_deref() == id).unwrap();
    let lane = of(Some("of-a-lane"));
    assert_eq!((lane.channel.as_ref().map(ChannelId::as_str), lane.attempts), (Some("soc"), 10));
    assert_eq!(lane.subject, delivery("of-a-lane", None).id().uuid());
    assert_eq!(of(Some("of-the-intake")).channel, None);
    assert_eq!(&of(None).body[..], b"\xffnoise");
}
