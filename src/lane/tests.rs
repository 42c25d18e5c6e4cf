//! A lane in virtual time: a scripted endpoint, a lane queue made of a channel, and a settler that notes what it is given.

use std::{
    collections::VecDeque,
    sync::{Mutex, atomic::AtomicU64},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

mod folds;
mod hands;
mod oldest;
mod orders;
mod own;
mod rests;

use super::*;
use crate::{
    broker::{
        Arrival, Arrivals, BrokerError, Destination, End, Health, Log, Message, PublishError, Queue, Record, Start,
        receipt::Desk,
    },
    channels::{BatchLimits, Batcher, Endpoint, Occasion, Parcel, PostedCard, judging},
    dead_letters::DeadLetter,
    model::{DeathReason, Decision, Digest, Ending, Reply, RetryPlan, Secret, Timestamp, Trouble, Verdict},
    settle::Job,
    telemetry::Metrics,
};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An endpoint that answers as scripted; when the script is over, with 200. A header `takes` says how many seconds a reply takes.
#[derive(Default)]
struct ScriptedPost {
    script: Mutex<VecDeque<Result<Reply, Trouble>>>,
    takes: Duration,
    seen: Mutex<Vec<(Instant, String)>>,
}

impl ScriptedPost {
    fn new(script: impl IntoIterator<Item = Result<Reply, Trouble>>) -> Arc<Self> {
        Arc::new(Self { script: Mutex::new(script.into_iter().collect()), ..Self::default() })
    }

    fn seen(&self) -> Vec<(Instant, String)> {
        self.seen.lock().unwrap().clone()
    }
}

impl Post for ScriptedPost {
    fn post(&self, parcel: Parcel, _limit: Duration) -> BoxFuture<'_, Result<Reply, Trouble>> {
        self.seen.lock().unwrap().push((Instant::now(), String::from_utf8(parcel.body.to_vec()).unwrap()));
        let reply = self.script.lock().unwrap().pop_front().unwrap_or_else(|| Ok(Reply::new(200, "")));
        let takes =
            reply.as_ref().ok().and_then(|reply| reply.header("takes")).map(|takes| secs(takes.parse().unwrap()));
        Box::pin(async move {
            tokio::time::sleep(takes.unwrap_or(self.takes)).await;
            reply
        })
    }
}

/// A channel that says the decision's id, and `plain:` before it in its plain form; in a batch, one id a line.
#[derive(Debug)]
struct Plainly {
    batch: Option<BatchLimits>,
}

impl Plainly {
    fn parcel(body: String) -> Parcel {
        let endpoint = Endpoint::new("http://127.0.0.1:1/".parse().unwrap());
        Parcel { endpoint, headers: http::HeaderMap::new(), body: body.into() }
    }
}

impl Channel for Plainly {
    fn render(&self, delivery: &Delivery, _: &Occasion<'_>) -> Parcel {
        assert_ne!(&*delivery.decision.id, "panic", "on purpose");
        let plain = if delivery.plain { "plain:" } else { "" };
        Self::parcel(format!("{plain}{}", delivery.decision.id))
    }

    fn render_digest(&self, digest: &Digest, plain: bool, _: &Occasion<'_>) -> Option<Parcel> {
        let possible = !digest.worst.iter().any(|decision| &*decision.id == "no-digest");
        let plain = if plain { "plain:" } else { "" };
        possible.then(|| Self::parcel(format!("{plain}digest of {}", digest.total)))
    }

    fn judge(&self, reply: &Reply) -> Verdict {
        match reply.header("accepted") {
            Some(accepted) => Verdict::RefusedOne { accepted: accepted.parse().unwrap(), why: String::new() },
            None => match (judging::by_status(reply), reply.header("breathe")) {
                (Verdict::Delivered { .. }, Some(wait)) => {
                    Verdict::Delivered { confirmed: true, breathe: Some(secs(wait.parse().unwrap())) }
                }
                (verdict, _) => verdict,
            },
        }
    }

    fn secrets(&self) -> Vec<Secret> {
        Vec::new()
    }

    fn posted(&self, reply: &Reply) -> Option<PostedCard> {
        let ts = reply.header("ts")?;
        assert_ne!(ts, "panic", "on purpose");
        Some(PostedCard { conversation: String::from("C1"), ts: ts.to_owned() })
    }

    fn batcher(&self) -> Option<&dyn Batcher> {
        self.batch.is_some().then_some(self as &dyn Batcher)
    }
}

impl Batcher for Plainly {
    fn limits(&self) -> BatchLimits {
        self.batch.unwrap()
    }

    fn record(&self, delivery: &Delivery, _: &Occasion<'_>) -> Bytes {
        Bytes::from(delivery.decision.id.to_string())
    }

    fn pack(&self, records: &[Bytes], _: &Occasion<'_>) -> Parcel {
        assert!(!records.iter().any(|record| record == "unpackable"), "on purpose");
        Self::parcel(records.iter().map(|record| String::from_utf8_lossy(record)).collect::<Vec<_>>().join(" "))
    }
}

/// A broker of which only the lane's queue is used, fed by the test.
#[derive(Debug)]
struct LaneQueue {
    /// The end that the test feeds: of the lane's present consumer.
    feed: Feed,
    consumed: Arc<AtomicU64>,
}

type Feed = Arc<Mutex<mpsc::Sender<Arrival>>>;

impl Broker for LaneQueue {
    fn consume(&self, _: Queue, _: NonZeroU16) -> Arrivals {
        self.consumed.fetch_add(1, Ordering::Relaxed);
        // A lane that renews its window finds an empty queue: what it gave back, the test puts in again.
        let (sender, receiver) = mpsc::channel(1_000);
        *self.feed.lock().unwrap() = sender;
        Arrivals::new(receiver)
    }

    fn publish(&self, _: Message) -> BoxFuture<'static, Result<(), PublishError>> {
        unreachable!("the settler publishes")
    }

    fn ensure_lanes(&self, _: Vec<ChannelId>) -> BoxFuture<'static, Result<(), BrokerError>> {
        unreachable!()
    }

    fn remove_lane(&self, _: ChannelId) -> BoxFuture<'static, Result<u64, BrokerError>> {
        unreachable!()
    }

    fn waiting(&self, _: Queue) -> BoxFuture<'static, Result<u64, BrokerError>> {
        unreachable!()
    }

    fn read(&self, _: Log, _: Start, _: End) -> mpsc::Receiver<Result<Record, BrokerError>> {
        unreachable!()
    }

    fn ready(&self, _: Duration) -> BoxFuture<'static, Result<(), BrokerError>> {
        unreachable!()
    }

    fn unsettled(&self) -> u64 {
        unreachable!()
    }

    fn health(&self) -> watch::Receiver<Health> {
        unreachable!()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        unreachable!()
    }
}

/// Counts receipts: settled, and dropped unsettled. `void` once their connection is lost.
#[derive(Default)]
struct Counts {
    settled: AtomicU64,
    dropped: AtomicU64,
    void: AtomicBool,
}

impl Desk for Counts {
    fn close(&self, _: u64, settled: bool) {
        if settled { &self.settled } else { &self.dropped }.fetch_add(1, Ordering::Relaxed);
    }

    fn is_void(&self) -> bool {
        self.void.load(Ordering::Relaxed)
    }
}

/// A lane on a bench.
struct Bench {
    post: Arc<ScriptedPost>,
    handle: LaneHandle,
    tools: LaneTools,
    queue: Feed,
    jobs: mpsc::Receiver<Job>,
    /// Where approval cards were posted.
    cards: mpsc::Receiver<CardPosted>,
    receipts: Arc<Counts>,
    /// How often the lane began to consume its queue.
    consumed: Arc<AtomicU64>,
    stop: CancellationToken,
    tracker: TaskTracker,
    clock: Clock,
    began: Instant,
}

fn plan(channel: Plainly) -> LanePlan {
    let links = Links { public: String::from("http://a"), console: String::from("http://b") };
    LanePlan {
        id: "soc".parse().unwrap(),
        channel: Arc::new(channel),
        chat: true,
        pace: Vec::new(),
        timeout: secs(10),
        digest: None,
        concurrency: NonZeroU16::MIN,
        retry: RetryPlan::try_from(crate::model::retry_plan::RetryNumbers::default()).unwrap(),
        links: Arc::new(links),
        memory: 1_000,
    }
}

impl Bench {
    fn new(post: Arc<ScriptedPost>) -> Self {
        Self::with(post, plan(Plainly { batch: None }))
    }

    fn with(post: Arc<ScriptedPost>, plan: LanePlan) -> Self {
        let (settler, jobs) = Settler::by_hand();
        let queue = Arc::new(Mutex::new(mpsc::channel(1).0));
        let consumed = Arc::new(AtomicU64::new(0));
        let clock = Clock::starting_at("2026-06-01T12:00:00Z".parse().unwrap());
        let (posted, cards) = mpsc::channel(2);
        let tools = LaneTools {
            post: post.clone(),
            broker: Arc::new(LaneQueue { feed: Arc::clone(&queue), consumed: Arc::clone(&consumed) }),
            settler,
            clock,
            scrubber: Scrubber::default(),
            posted,
            deliveries: DeliveryLog::none(),
        };
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        let metrics = Metrics::new().channel(&plan.id);
        let handle = start(plan, tools.clone(), metrics, &tracker, stop.clone());
        let receipts = Arc::new(Counts::default());
        let began = Instant::now();
        Self { post, handle, tools, queue, jobs, cards, receipts, consumed, stop, tracker, clock, began }
    }

    fn delivery(&self, id: &str) -> Delivery {
        let json = serde_json::json!({
            "id": id, "time": "2026-06-01T12:00:00Z", "decision": "REQUIRE_APPROVAL", "severity": "LOW",
            "agent": {"id": "a"}, "tool": "t", "approval": {"id": "apr", "expires_at": "2026-06-03T12:00:00Z"},
        });
        let decision = Decision::decode(Bytes::from(json.to_string())).unwrap();
        Delivery::new(Arc::new(decision), self.handle.id.clone(), self.clock.now())
    }

    fn receipt(&self) -> Receipt {
        Receipt::new(0, self.receipts.clone())
    }

    async fn hand_over(&self, id: &str) {
        self.handle.hand_over(self.delivery(id), self.receipt(), false).await;
    }

    fn put_in_queue(&self, delivery: &Delivery, redelivered: bool) {
        let arrival = Arrival { body: delivery.to_bytes(), redelivered, receipt: self.receipt() };
        self.queue.lock().unwrap().try_send(arrival).unwrap();
    }

    /// The next delivery that was parked.
    async fn parked(&mut self) -> Delivery {
        match self.jobs.recv().await.unwrap() {
            Job::Publish { message, receipt, .. } => {
                let id = || self.handle.id.clone();
                let own = [Queue::Lane(id()), Queue::Urgent(id())].map(Destination::Queue);
                assert!(own.contains(&message.to), "{:?}", message.to);
                receipt.settle();
                Delivery::from_bytes(&message.body).unwrap()
            }
            Job::Bury { letter, .. } => panic!("buried and not parked: {letter:?}"),
        }
    }

    /// The next letter that was buried.
    async fn buried(&mut self) -> DeadLetter {
        match self.jobs.recv().await.unwrap() {
            Job::Bury { letter, receipt, .. } => {
                receipt.settle();
                *letter
            }
            Job::Publish { message, .. } => panic!("published and not buried: {message:?}"),
        }
    }

    /// Waits until `count` posts were seen, and says when, counted from the beginning.
    async fn posts(&self, count: usize) -> Vec<(Duration, String)> {
        let deadline = Instant::now() + secs(20 * 60);
        while self.post.seen().len() < count {
            assert!(Instant::now() < deadline, "{} posts, not {count}, within twenty minutes", self.post.seen().len());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Let the lane conclude the last one.
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.post.seen().into_iter().map(|(at, body)| (at - self.began, body)).collect()
    }

    fn delivered(&self) -> u64 {
        self.handle.metrics.endings(Ending::Delivered)
    }

    fn settled(&self) -> u64 {
        self.receipts.settled.load(Ordering::Relaxed)
    }
}

#[expect(clippy::unnecessary_wraps, reason = "a script is a list of results")]
fn status(status: u16) -> Result<Reply, Trouble> {
    Ok(Reply::new(status, ""))
}

/// The time from each post to the next.
fn gaps(posts: &[(Duration, String)]) -> Vec<Duration> {
    posts.windows(2).map(|pair| pair[1].0.saturating_sub(pair[0].0)).collect()
}

fn about(found: Duration, expected: Duration) -> bool {
    (expected..expected + Duration::from_millis(10)).contains(&found)
}

#[tokio::test(start_paused = true)]
async fn a_delivery_from_memory_is_posted_and_its_receipt_settled() {
    let bench = Bench::new(ScriptedPost::new([]));
    bench.hand_over("a").await;
    assert_eq!(bench.posts(1).await[0].1, "a");
    assert_eq!((bench.delivered(), bench.settled()), (1, 1));
    assert_eq!(bench.handle.metrics.in_memory.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_rate_limited_endpoint_is_left_alone_for_as_long_as_it_asked() {
    // Goal: `Retry-After` wins over our own, shorter delay, pauses the lane, and costs the delivery no attempt.
    // Method: script two replies, let paused time jump, then read the clock.
    let asked = Reply::new(429, "").with_header("retry-after", "30");
    let mut bench = Bench::new(ScriptedPost::new([Ok(asked)]));
    bench.hand_over("a").await;
    let parked = bench.parked().await;
    assert_eq!(parked.attempts, 0);
    assert!(matches!(bench.handle.state(), LaneState::Paused { .. }));
    bench.put_in_queue(&parked, false);
    let posts = bench.posts(2).await;
    assert!((secs(30)..secs(34)).contains(&posts[1].0), "{posts:?}");
    assert_eq!(bench.handle.state(), LaneState::Flowing);
}

#[tokio::test(start_paused = true)]
async fn five_failures_in_a_row_pause_the_lane_and_a_single_probe_ends_it() {
    let script = std::iter::repeat_n(Err(Trouble::Refused), 6);
    let bench = Bench::new(ScriptedPost::new(script));
    for id in ["a", "b", "c", "d", "e", "f", "g"] {
        bench.put_in_queue(&bench.delivery(id), false);
    }
    let posts = bench.posts(6).await;
    // The sixth was the probe; it failed, so the pause goes on, and nothing else was tried in between.
    assert!(posts[5].0 > posts[4].0 + Duration::from_millis(700), "{posts:?}");
    assert!(matches!(bench.handle.state(), LaneState::Paused { .. }));
    assert_eq!(bench.delivered(), 0);
    bench.posts(13).await;
    assert_eq!((bench.delivered(), bench.settled()), (7, 7));
    assert_eq!(bench.handle.state(), LaneState::Flowing);
}

#[tokio::test(start_paused = true)]
async fn a_paused_lane_hands_its_memory_to_the_broker() {
    let mut bench = Bench::new(ScriptedPost::new([Ok(Reply::new(429, "").with_header("retry-after", "60"))]));
    for id in ["a", "b"] {
        bench.hand_over(id).await;
    }
    let parked = [bench.parked().await, bench.parked().await].map(|delivery| delivery.decision.id.to_string());
    assert!(parked.contains(&String::from("a")) && parked.contains(&String::from("b")));
    bench.hand_over("c").await;
    assert_eq!(&*bench.parked().await.decision.id, "c");
    assert_eq!((bench.settled(), bench.handle.metrics.in_memory.get()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_broken_destination_holds_the_lane_and_probes_grow_from_five_minutes_to_an_hour() {
    let bench = Bench::new(ScriptedPost::new(std::iter::repeat_n(status(404), 7)));
    bench.put_in_queue(&bench.delivery("a"), false);
    let gaps: Vec<u64> = bench.posts(1).await.into_iter().map(|(at, _)| at.as_secs()).collect();
    assert_eq!(gaps, [0]);
    assert!(matches!(bench.handle.state(), LaneState::Held { .. }));
    tokio::time::sleep(secs(301)).await;
    assert_eq!(bench.post.seen().len(), 2);
    tokio::time::sleep(secs(598)).await;
    assert_eq!(bench.post.seen().len(), 2);
    tokio::time::sleep(secs(3)).await;
    // The window was given back to the broker, and what is given back comes again.
    bench.put_in_queue(&bench.delivery("a"), true);
    tokio::time::sleep(secs(1)).await;
    assert_eq!(bench.post.seen().len(), 3, "the second probe comes after ten minutes");
}

#[tokio::test(start_paused = true)]
async fn a_delivery_dies_when_its_attempts_are_used_up_and_no_sooner() {
    let mut bench = Bench::new(ScriptedPost::new(std::iter::repeat_n(status(500), 20)));
    bench.hand_over("a").await;
    let mut attempts = 0;
    let letter = loop {
        match bench.jobs.recv().await.unwrap() {
            Job::Publish { message, receipt, .. } => {
                receipt.settle();
                let delivery = Delivery::from_bytes(&message.body).unwrap();
                assert!(delivery.attempts > attempts);
                attempts = delivery.attempts;
                bench.put_in_queue(&delivery, false);
            }
            Job::Bury { letter, .. } => break letter,
        }
    };
    assert_eq!((letter.reason, letter.attempts), (DeathReason::Exhausted, 10));
    let told = letter.history.iter().map(|attempt| (attempt.outcome.as_str(), attempt.status)).collect::<Vec<_>>();
    assert_eq!(told, [("try_later", Some(500)); 10]);
    assert!(letter.history.is_sorted_by_key(|attempt| attempt.at) && letter.history[9].text.contains("500"));
    assert_eq!(letter.last_reply.unwrap().status, Some(500));
    assert_eq!(bench.post.seen().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_limit_holds_to_the_token_and_is_used_to_the_full() {
    let rate = Rate { count: 1, per: secs(1), burst: 1 };
    let bench = Bench::with(ScriptedPost::new([]), LanePlan { pace: vec![rate], ..plan(Plainly { batch: None }) });
    for id in 0..30 {
        bench.put_in_queue(&bench.delivery(&id.to_string()), false);
    }
    // Another worker may have sent the moment before, so the first one waits as well.
    for (at, (sent, _)) in (1..).zip(bench.posts(30).await) {
        assert!(about(sent, secs(at)), "{at}: {sent:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limited_lane_takes_nothing_hand_over() {
    let rate = Rate { count: 1, per: secs(1), burst: 1 };
    let mut bench = Bench::with(ScriptedPost::new([]), LanePlan { pace: vec![rate], ..plan(Plainly { batch: None }) });
    bench.hand_over("a").await;
    assert_eq!(&*bench.parked().await.decision.id, "a");
    assert!(bench.post.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_refused_card_is_tried_once_more_as_plain_text_and_is_then_dead() {
    let mut bench = Bench::new(ScriptedPost::new([status(400), status(400), status(400), status(200)]));
    bench.hand_over("a").await;
    let letter = bench.buried().await;
    assert_eq!((letter.reason, letter.attempts), (DeathReason::Refused, 2));
    // By what the console tells a lane that only makes dead letters from one that is well.
    let in_a_row = |bench: &Bench| bench.handle.metrics.untaken.in_a_row().map_or(0, |(count, _)| count);
    assert_eq!(in_a_row(&bench), 1);
    bench.hand_over("b").await;
    let bodies: Vec<String> = bench.posts(4).await.into_iter().map(|(_, body)| body).collect();
    assert_eq!(bodies, ["a", "plain:a", "b", "plain:b"]);
    assert_eq!((bench.delivered(), in_a_row(&bench)), (1, 0));
    assert_eq!(bench.handle.state(), LaneState::Flowing);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_late_is_dead_and_not_posted() {
    let mut bench = Bench::new(ScriptedPost::new([]));
    let mut old = bench.delivery("old");
    old.first_at = Timestamp::from_unix_millis(bench.clock.now().unix_millis() - 24 * 3_600_000 - 1);
    bench.put_in_queue(&old, false);
    assert_eq!(bench.buried().await.reason, DeathReason::Expired);
    tokio::time::sleep(secs(2 * 24 * 3600)).await;
    bench.put_in_queue(&bench.delivery("unanswered"), false);
    assert_eq!(bench.buried().await.reason, DeathReason::ApprovalExpired);
    assert!(bench.post.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_rendering_ends_as_a_dead_letter_and_the_lane_goes_on() {
    let mut bench = Bench::new(ScriptedPost::new([]));
    bench.hand_over("panic").await;
    bench.hand_over("b").await;
    assert_eq!(bench.buried().await.reason, DeathReason::Poison);
    assert_eq!(bench.posts(1).await[0].1, "b");
}

#[tokio::test(start_paused = true)]
async fn what_was_delivered_is_not_delivered_again_when_the_broker_had_not_heard_of_it() {
    let bench = Bench::new(ScriptedPost::new([]));
    let delivery = bench.delivery("a");
    bench.put_in_queue(&delivery, false);
    bench.posts(1).await;
    bench.put_in_queue(&delivery, true);
    bench.put_in_queue(&bench.delivery("b"), true);
    let posts = bench.posts(2).await;
    assert_eq!((posts.len(), posts[1].1.as_str()), (2, "b"));
    assert_eq!((bench.delivered(), bench.settled()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_stop_finishes_the_send_under_way_parks_memory_and_gives_the_queue_back() {
    let post = Arc::new(ScriptedPost { takes: secs(3), ..ScriptedPost::default() });
    let mut bench = Bench::new(post);
    bench.hand_over("under way").await;
    bench.posts(1).await;
    bench.hand_over("waiting").await;
    bench.put_in_queue(&bench.delivery("queued"), false);
    bench.stop.cancel();
    bench.tracker.close();
    bench.tracker.wait().await;
    assert!(about(bench.began.elapsed(), secs(3)), "{:?}", bench.began.elapsed());
    assert_eq!(bench.delivered(), 1);
    assert_eq!(&*bench.parked().await.decision.id, "waiting");
    assert_eq!(bench.settled(), 2);
    assert_eq!(bench.post.seen().len(), 1);
}

fn batched(events: usize) -> LanePlan {
    plan(Plainly { batch: Some(BatchLimits { events, bytes: 1_000, wait: secs(1) }) })
}

#[tokio::test(start_paused = true)]
async fn a_batch_goes_when_it_is_full_or_its_first_has_waited_long_enough() {
    let bench = Bench::with(ScriptedPost::new([]), batched(3));
    for id in ["a", "b", "c", "d"] {
        bench.hand_over(id).await;
    }
    let posts = bench.posts(2).await;
    assert_eq!((posts[0].1.as_str(), posts[1].1.as_str()), ("a b c", "d"));
    assert!(about(posts[0].0, secs(0)) && about(posts[1].0, secs(1)), "{posts:?}");
    assert_eq!(bench.delivered(), 4);
}

#[tokio::test(start_paused = true)]
async fn one_refused_member_of_a_batch_is_found_and_the_others_are_delivered() {
    // The endpoint takes two of four, refuses the third by name, and has not looked at the fourth.
    let named = Reply::new(400, "").with_header("accepted", "2");
    let mut bench = Bench::with(ScriptedPost::new([Ok(named)]), batched(4));
    for id in ["a", "b", "c", "d"] {
        bench.hand_over(id).await;
    }
    assert_eq!(bench.buried().await.decision_id.as_deref(), Some("c"));
    let posts = bench.posts(2).await;
    assert_eq!(posts[1].1, "d");
    assert_eq!(bench.delivered(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_too_large_is_sent_in_halves() {
    let bench = Bench::with(ScriptedPost::new([status(413), status(200), status(200)]), batched(4));
    for id in ["a", "b", "c", "d"] {
        bench.hand_over(id).await;
    }
    let bodies: Vec<String> = bench.posts(3).await.into_iter().map(|(_, body)| body).collect();
    assert_eq!(bodies, ["a b c d", "a b", "c d"]);
    assert_eq!(bench.delivered(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_refused_member_that_nobody_names_is_found_by_halving() {
    // Refused as long as "c" is among them: a b c d, then c d, then c, then c as plain text.
    let script = [400, 200, 400, 400, 400, 200].map(status);
    let mut bench = Bench::with(ScriptedPost::new(script), batched(4));
    for id in ["a", "b", "c", "d"] {
        bench.hand_over(id).await;
    }
    assert_eq!(bench.buried().await.decision_id.as_deref(), Some("c"));
    bench.posts(6).await;
    assert_eq!(bench.delivered(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_falls_behind_lets_the_broker_wait_and_takes_from_memory_again_when_it_has_caught_up() {
    // Goal: a slow endpoint holds few decisions, so that the intake stays free for the other lanes.
    // Method: an endpoint that takes 200 ms is given twenty deliveries at once.
    let post = Arc::new(ScriptedPost { takes: Duration::from_millis(200), ..ScriptedPost::default() });
    let mut bench = Bench::new(post);
    for id in 0..20 {
        bench.hand_over(&id.to_string()).await;
    }
    // The fourth has waited for more than half a second.
    bench.posts(4).await;
    let mut parked = Vec::new();
    while let Ok(job) = bench.jobs.try_recv() {
        let Job::Publish { message, receipt, .. } = job else { panic!("{job:?}") };
        receipt.settle();
        parked.push(Delivery::from_bytes(&message.body).unwrap());
    }
    assert!(parked.len() >= 12, "only {} were handed to the broker", parked.len());
    bench.hand_over("late").await;
    parked.push(bench.parked().await);
    for delivery in &parked {
        bench.put_in_queue(delivery, false);
    }
    bench.posts(21).await;
    tokio::time::sleep(secs(2)).await;
    assert_eq!((bench.delivered(), bench.handle.metrics.in_memory.get()), (21, 0));
    bench.hand_over("after").await;
    bench.posts(22).await;
    assert!(bench.jobs.try_recv().is_err(), "the lane takes from memory again");
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_is_written_down_on_the_broker() {
    // Goal: a counted attempt survives the worker. Method: what came from the lane's queue goes back there, richer by one.
    let mut bench = Bench::new(ScriptedPost::new([status(503)]));
    bench.put_in_queue(&bench.delivery("a"), false);
    let parked = bench.parked().await;
    assert_eq!(parked.attempts, 1);
    assert!(parked.not_before.unwrap() > bench.clock.now());
    bench.put_in_queue(&parked, false);
    let posts = bench.posts(2).await;
    assert!(posts[1].0 >= Duration::from_millis(750), "{posts:?}");
}
